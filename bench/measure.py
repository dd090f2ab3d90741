"""Interleaved slices: A B A B ..., on one server, with progress and the time left."""
import os
import shutil
import sys
import tempfile
import time

import psycopg

from peers.base import Dry
from stats import ratio_row


def settings():
    """The server's settings, for all peers alike.

    Everything that makes a commit durable is on.  No checkpoint is to fall into a slice, nor a page image that
    another peer does not pay for, so the log may grow to a quarter of the disk's free space.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    free = shutil.disk_usage(os.environ.get("BENCH_DIR") or tempfile.gettempdir()).free >> 30
    return {
        "fsync": "on", "synchronous_commit": "on", "full_page_writes": "on",
        "shared_buffers": f"{min(4096, memory // 6)}MB", "max_wal_size": f"{max(4, min(48, free // 4))}GB",
        "min_wal_size": "2GB", "checkpoint_timeout": "1d", "max_connections": "200",
        "autovacuum": "on", "autovacuum_naptime": "10s", "jit": "off",
    }


class Arm:
    """One side of a comparison: a peer at one kind of work.

    The work settles jobs, and needs a queue that is full enough; or it adds jobs, perhaps from batches that are
    staged for it.
    """

    def __init__(self, peer, op, batch=1, guess=10_000, adds=False, staged=False, title=None):
        self.peer, self.op, self.batch = peer, op, batch
        self.guess = guess          # jobs a second, before the first slice has told
        self.adds, self.staged = adds, staged
        self.title = title or peer.title

    def prepare(self, jobs):
        if self.staged:
            self.peer.stage((jobs // self.batch + 1 - self.peer.staged()) * self.batch, self.batch)
        elif not self.adds:
            live = self.peer.live_jobs()
            if live < jobs:
                self.peer.fill(jobs - live)


class Plan:
    """What was asked for, and how long that takes."""

    def __init__(self, options):
        self.slices, self.seconds, self.scale = options.slices, options.seconds, options.scale
        self.quick = options.quick

    def comparison(self, clients, arms, fill=2.0):
        """Seconds for that many client counts and arms; fill: what comes before each slice."""
        return clients * arms * self.slices * (self.seconds + fill)

    def scaled(self, count):
        return max(1, round(count * self.scale))


class Bench(Plan):
    def __init__(self, options):
        super().__init__(options)
        self.data = options.data
        self.connect()
        self.case, self.begun = None, time.monotonic()
        self.case_seconds = self.expected_done = self.expected_left = self.fraction = 0.0
        self.versions = {}

    def connect(self):
        self.admin = psycopg.connect(dbname="postgres", autocommit=True)

    # Progress.

    def expect(self, seconds):
        self.expected_left = seconds

    def begin(self, case, seconds):
        self.case, self.case_seconds, self.fraction, self.versions = case, seconds, 0.0, {}

    def end(self):
        """Whatever a case left behind would weigh on the next."""
        self.connect()      # a case that stopped the server may have failed to come back
        for (database,) in self.admin.execute(r"SELECT datname FROM pg_database WHERE datname LIKE 'bench\_%'").fetchall():
            self.admin.execute(f'DROP DATABASE "{database}" WITH (FORCE)')
        self.expected_done += self.case_seconds
        self.expected_left -= self.case_seconds

    def progress(self, text, fraction=None):
        """One line: the time left, judged by how long the work so far took against what was expected."""
        if fraction is not None:
            self.fraction = fraction
        inside = self.case_seconds * self.fraction
        pace = (time.monotonic() - self.begun + 30) / (self.expected_done + inside + 30)
        left = max(0, self.expected_left - inside) * pace
        print(f"[{left // 60:3.0f}:{left % 60:02.0f} left] {self.case}: {text}", file=sys.stderr, flush=True)

    # Slices.

    def create(self, *peers):
        for peer in peers:
            peer.create()
            if version := peer.version():
                self.versions[type(peer).title] = version

    def rounds(self, points, run, text, part=(0, 1)):
        """Run every point once a round, in turn.  Returns each point's values, in the order of the rounds.

        part: which of how many equal parts of the case this is.
        """
        values = {point: [] for point in points}
        steps = self.slices * len(points)
        for n in range(self.slices):
            for i, point in enumerate(points):
                values[point].append(run(point, n + 1))
                self.progress(f"slice {n + 1} of {self.slices}, {text(point, values[point][-1])}",
                              (part[0] + (n * len(points) + i + 1) / steps) / part[1])
        return values

    def slice(self, arm, clients):
        """Fill, tidy, and measure once; a queue that ran dry is filled twice as high and measured again.

        The checkpoint comes before the filling: the pages that the slice will touch have then been written to the
        log already, and no peer pays for images of them.
        """
        while True:
            self.admin.execute("CHECKPOINT")
            arm.prepare(int(arm.guess * self.seconds * 1.3) + clients * arm.batch)
            arm.peer.tidy()
            live = arm.peer.live_jobs()
            before = self.counters()
            try:
                result = arm.peer.load(arm.op, clients, self.seconds, arm.batch)
                if arm.staged and arm.peer.staged() <= 0:
                    raise Dry
                break
            except Dry:
                arm.guess *= 2
                self.progress(f"{arm.title} ran dry at {live:,} jobs; once more with more")
        used = {key: value - before[key] for key, value in self.counters().items()}
        if used.pop("checkpoints"):
            raise RuntimeError("a checkpoint fell into a slice: raise max_wal_size")
        change = (arm.peer.live_jobs() - live) * (1 if arm.adds else -1)
        if abs(change - result["jobs"]) > clients * max(arm.batch, 100):
            raise RuntimeError(f"{arm.title} says that it did {result['jobs']:,} jobs, but its tables say {change:,}")
        arm.guess = max(arm.guess * 0.7, result["rate"])
        return result | used

    def counters(self):
        row = self.admin.execute("""SELECT checkpoints_timed + checkpoints_req, wal_bytes::bigint, wal_fpi
                                    FROM pg_stat_bgwriter, pg_stat_wal""").fetchone()
        return dict(zip(("checkpoints", "wal_bytes", "wal_fpi"), row))

    def compare(self, arms, clients_list, goals={}):
        """Measure the first arm beside the others.  Returns the lines of the table and every slice.

        goals: (title, clients) -> what the ratio is to reach, and what it should.
        """
        rows, raw = [], []
        peers = dict.fromkeys(arm.peer for arm in arms)
        self.create(*peers)
        points = [(clients, arm) for clients in clients_list for arm in arms]

        def run(point, n):
            clients, arm = point
            result = self.slice(arm, clients)
            raw.append({"clients": clients, "slice": n, "arm": arm.title} | result)
            return result["rate"]

        values = self.rounds(points, run, lambda point, rate: f"{plural(point[0])}, {point[1].title} {rate:,.0f} jobs/s")
        first, *others = arms
        for clients in clients_list:
            for arm in others:
                floor, aim = goals.get((arm.title, clients), (None, None))
                rows.append(ratio_row(values[clients, first], values[clients, arm], what=plural(clients),
                                      beside=arm.title, unit="jobs/s", goal=floor, aim=aim))
        for peer in peers:
            peer.drop()
        return {"rows": rows, "raw": raw}


def plural(clients):
    return f"{clients} client{'s' * (clients > 1)}"
