"""Interleaved slices: A B A B ..., on one server, with progress and the time left."""
import os
import sys
import time

import psycopg

from peers.base import Dry
from stats import ratio_row

# A slice is to have no checkpoint in it and no page image that another has not: the server's settings, for all alike.
SETTINGS = {
    "fsync": "on", "synchronous_commit": "on", "full_page_writes": "on",
    "shared_buffers": None, "max_wal_size": "16GB", "min_wal_size": "4GB", "checkpoint_timeout": "1h",
    "max_connections": "200", "autovacuum": "on", "autovacuum_naptime": "10s", "jit": "off",
}


def settings():
    """shared_buffers is a sixth of the memory, at most 4 GB."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return SETTINGS | {"shared_buffers": f"{min(4096, memory // 6 >> 20)}MB"}


class Arm:
    """One side of a comparison: a peer at one kind of work."""

    def __init__(self, peer, op, batch=1, guess=10_000, drains=True):
        self.peer, self.op, self.batch, self.drains = peer, op, batch, drains
        self.guess = guess          # jobs a second, before the first slice has told

    @property
    def title(self):
        return self.peer.title


def goal(goals, clients, beside):
    floor, aim = goals.get((beside, clients), (None, None))
    return {"goal": floor, "aim": aim}


class Plan:
    """What was asked for, and how long that takes."""

    def __init__(self, options):
        self.slices, self.seconds, self.scale = options.slices, options.seconds, options.scale
        self.quick = options.quick

    def comparison(self, clients, arms, fill=2.0):
        """Seconds for that many client counts and arms; fill: what comes before each slice."""
        return clients * arms * self.slices * (self.seconds + fill)


class Bench(Plan):
    def __init__(self, options):
        super().__init__(options)
        self.data = options.data
        self.admin = psycopg.connect(dbname="postgres", autocommit=True)
        self.case, self.fraction, self.begun = None, 0.0, time.monotonic()
        self.expected_done = self.expected_left = 0.0

    # Progress.

    def expect(self, seconds):
        self.expected_left = seconds

    def begin(self, case, seconds):
        self.case, self.case_seconds, self.fraction = case, seconds, 0.0

    def end(self):
        self.expected_done += self.case_seconds
        self.expected_left -= self.case_seconds

    def progress(self, text, fraction=None):
        """One line: the time left, judged by how long the work so far took against what was expected."""
        if fraction is not None:
            self.fraction = fraction
        inside = self.case_seconds * self.fraction
        elapsed, done = time.monotonic() - self.begun, self.expected_done + inside
        pace = (elapsed + 30) / (done + 30)
        left = max(0, self.expected_left - inside) * pace
        print(f"[{left // 60:3.0f}:{left % 60:02.0f} left] {self.case}: {text}", file=sys.stderr, flush=True)

    # Slices.

    def slice(self, arm, clients):
        """Fill, tidy, and measure once; a queue that ran dry is filled twice as high and measured again.

        The checkpoint comes before the filling: the pages that the slice will touch have then been written to the
        log already, and no peer pays for images of them.
        """
        while True:
            self.admin.execute("CHECKPOINT")
            want = int(arm.guess * self.seconds * 1.3) + clients * arm.batch
            live = arm.peer.live_jobs()
            if arm.drains and live < want:
                arm.peer.fill(want - live)
            arm.peer.tidy()
            live = arm.peer.live_jobs()
            before = self.counters()
            try:
                result = arm.peer.load(arm.op, clients, self.seconds, arm.batch)
            except Dry:
                arm.guess *= 2
                self.progress(f"{arm.title} ran dry at {live:,} jobs; once more with more")
                continue
            after = self.counters()
            break
        if arm.drains:
            gone = live - arm.peer.live_jobs()
            if abs(gone - result["jobs"]) > clients * arm.batch:
                raise RuntimeError(f"{arm.title} says that {result['jobs']} jobs were done, but {gone} are gone")
        if after["checkpoints"] != before["checkpoints"]:
            raise RuntimeError("a checkpoint fell into a slice: raise max_wal_size")
        arm.guess = max(arm.guess * 0.7, result["rate"])
        result.pop("latencies_ms")
        return result | {key: after[key] - before[key] for key in after if key != "checkpoints"}

    def counters(self):
        row = self.admin.execute("""SELECT checkpoints_timed + checkpoints_req, wal_bytes::bigint, wal_fpi
                                    FROM pg_stat_bgwriter, pg_stat_wal""").fetchone()
        return dict(zip(("checkpoints", "wal_bytes", "wal_fpi"), row))

    def compare(self, arms, clients_list, goals={}, unit="jobs/s"):
        """Measure the first arm beside the others.  Returns the lines of the table and every slice."""
        rows, raw = [], []
        steps, step = len(clients_list) * self.slices * len(arms), 0
        peers = dict.fromkeys(arm.peer for arm in arms)
        for peer in peers:
            peer.create()
        for clients in clients_list:
            rates = {arm.title: [] for arm in arms}
            for n in range(self.slices):
                for arm in arms:
                    result = self.slice(arm, clients)
                    rates[arm.title].append(result["rate"])
                    raw.append({"clients": clients, "slice": n + 1, "arm": arm.title} | result)
                    step += 1
                    self.progress(f"{clients} client{'s' * (clients > 1)}, slice {n + 1} of {self.slices}, "
                                  f"{arm.title} {result['rate']:,.0f} {unit}", step / steps)
            first, *others = arms
            rows += [ratio_row(rates[first.title], rates[arm.title], clients=clients, beside=arm.title, unit=unit,
                               **goal(goals, clients, arm.title)) for arm in others]
        for peer in peers:
            peer.drop()
        return rows, raw
