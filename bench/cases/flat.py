"""What a claim must not notice: parked jobs, a deep backlog, other queues, and an old snapshot."""
import statistics
from contextlib import ExitStack, contextmanager

import psycopg

import instructions
from measure import Arm
from peers.base import HERE, pgbench
from peers.queues import Handwritten, Holdfast
from probe import Prober
from stats import ratio_row

from . import case


def compare_claims(bench, peers, prepare, queue="bench", cycles=200):
    """Claims of one session at each of two peers, in turn: the second is to cost no more than 1.2 times the first.

    prepare(peer) comes before each slice.  p99 is only reported.
    """
    figures, raw = {}, []

    def run(peer, n):
        prepare(peer)
        with Prober(peer.database) as prober:
            found = prober.measure(cycles, queue)
        figures.setdefault(peer, []).append(found)
        raw.append({"slice": n, "arm": peer.title} | found)
        return found["p50_ms"]

    bench.rounds(peers, run, lambda peer, ms: f"{peer.title}, claim p50 {ms:.3f} ms", part=(0, 1.2))
    usual, other = peers
    rows = []
    for key, unit in (("p50_ms", "ms"), ("p99_ms", "ms"), ("buffers", "buffers"), ("cpu_us", "us of CPU")):
        rows.append(ratio_row([f[key] for f in figures[other]], [f[key] for f in figures[usual]], beside=usual.title, unit=unit,
                              what=f"{other.title}: claim {key.split('_')[0]}", at_most=True, goal=None if key == "p99_ms" else 1.2))
    for peer in peers:
        prepare(peer)
    with instructions.server_stopped(bench, peers):
        counted = {peer: instructions.per_claim(bench.data, peer.database, queue) for peer in peers}
    raw += [{"arm": peer.title, "instructions": counted[peer]} for peer in peers]
    rows.append(ratio_row([statistics.median(counted[other])], [statistics.median(counted[usual])], what=f"{other.title}: claim",
                          beside=usual.title, unit="instructions", at_most=True, goal=1.2))
    return rows, raw


def top_up(peer, jobs):
    peer.fill(jobs)
    peer.tidy()


@case("parked", "jobs parked and of lower priority", needs=["valgrind"], seconds=lambda b: 160 * b.scale + b.slices * 4 + 60)
def parked(bench):
    """1,000,000 jobs parked for tomorrow and 1,000,000 of lower priority, beside an empty background.

    One session, claim by claim; instructions by callgrind.
    """
    empty, busy = Holdfast("empty background"), Holdfast("parked and lower")
    bench.create(empty, busy)
    count = bench.scaled(1_000_000)
    busy.fill(count, ", 'delay', '1 day'")
    busy.fill(count, ", 'priority', 10")
    busy.tidy()
    rows, raw = compare_claims(bench, [empty, busy], lambda peer: top_up(peer, 250))
    for peer in (empty, busy):
        peer.drop()
    return {"rows": rows, "raw": raw}


@case("queues", "10,000 queues", needs=["valgrind"], seconds=lambda b: 60 * b.scale + b.slices * 4 + 60)
def queues(bench):
    """10,000 queues with a job each beside the one that is claimed from, and a database with that one queue alone."""
    alone, crowded = Holdfast("one queue"), Holdfast("10,000 queues")
    bench.create(alone, crowded)
    count = bench.scaled(10_000)
    crowded.db.execute("SELECT count(holdfast.create_queue('queue-' || n)) FROM generate_series(1, %s) n", (count,))
    crowded.db.execute("""SELECT count(*) FROM generate_series(1, %s) n,
        LATERAL holdfast.enqueue('queue-' || n, 'send_email', 'other-' || n, payload(n)::jsonb)""", (count,))
    crowded.tidy()
    rows, raw = compare_claims(bench, [alone, crowded], lambda peer: top_up(peer, 250))
    for peer in (alone, crowded):
        peer.drop()
    return {"rows": rows, "raw": raw}


@case("backlog", "10,000,000 pending", seconds=lambda b: 500 * b.scale + b.comparison(1, 4, fill=10))
def backlog(bench):
    """claim + complete, batch 1, 4 clients, with 10,000,000 jobs pending, beside 100,000; hand-written too."""
    raw, rates = [], {}
    deep, usual = bench.scaled(10_000_000), bench.scaled(100_000)
    arms = [Level(kind(f"{kind.title}, {level:,} pending"), level) for kind in (Holdfast, Handwritten) for level in (deep, usual)]
    for arm in arms:
        bench.create(arm.peer)
        arm.peer.fill(arm.level)
        arm.peer.tidy()
        bench.progress(f"{arm.title}: filled")

    def run(arm, n):
        result = bench.slice(arm, 4)
        raw.append({"slice": n, "arm": arm.title} | result)
        rates.setdefault(arm.title, []).append(result["rate"])
        return result["rate"]

    bench.rounds(arms, run, lambda arm, rate: f"{arm.title} {rate:,.0f} jobs/s")
    rows = []
    for kind, goal in ((Holdfast, 0.85), (Handwritten, None)):
        rows.append(ratio_row(*(rates[f"{kind.title}, {level:,} pending"] for level in (deep, usual)), goal=goal, unit="jobs/s",
                              what=f"{kind.title}, {deep:,} pending", beside=f"{usual:,} pending"))
    for arm in arms:
        arm.peer.drop()
    return {"rows": rows, "raw": raw}


class Level(Arm):
    """An arm whose queue is kept at a level."""

    def __init__(self, peer, level):
        super().__init__(peer, "work1", guess=3000)
        self.level = level

    def prepare(self, jobs):
        super().prepare(max(jobs, self.level))


@contextmanager
def old_snapshot(database):
    """A transaction with a snapshot and an id of its own: the rows that die after it began cannot be removed."""
    with psycopg.connect(dbname=database) as db:
        db.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        db.execute("SELECT pg_current_xact_id()")
        yield
        db.rollback()


def settle(bench, fill, each, old):
    """Settle jobs slice by slice at holdfast and hand-written in turn.  Returns rates by peer, buffers per claim, raw figures.

    Every slice of holdfast settles as many.  Hand-written would take hours under an old snapshot: its slices end
    after the usual time.
    """
    peers = [Holdfast(), Handwritten()]
    bench.create(*peers)
    held = [old_snapshot(peer.database) for peer in peers if old]
    raw, rates = [], {peer.title: [] for peer in peers}
    with ExitStack() as stack:
        for snapshot in held:
            stack.enter_context(snapshot)
        for peer in peers:
            fill(peer, each * bench.slices + 5000)
            peer.tidy()
            bench.progress(f"{peer.title}: filled{', under an old snapshot' * old}")
        bench.admin.execute("CHECKPOINT")

        def run(peer, n):
            if isinstance(peer, Holdfast):
                done = pgbench(peer.database, HERE / peer.name / "work.sql", 2, None, 100, transactions=each // 200)
            else:
                want = 2 * int(bench.seconds * max(rates[peer.title], default=100_000))
                peer.fill(max(0, want - peer.live_jobs()))
                done = pgbench(peer.database, HERE / peer.name / "work.sql", 2, bench.seconds, 100)
            raw.append({"slice": n, "arm": peer.title, "snapshot": old, "jobs": done["jobs"], "rate": done["rate"]})
            rates[peer.title].append(done["rate"])
            return done["rate"]

        bench.rounds(peers, run, lambda peer, rate: f"{peer.title}{', old snapshot' * old} {rate:,.0f} jobs/s", part=(old, 2))
        with Prober(peers[0].database) as prober:
            buffers = prober.buffers(100)
    for peer in peers:
        peer.drop()
    return rates, statistics.median(buffers), raw


def settle_under_snapshot(bench, fill):
    """First without, then with the old snapshot, not in turn: an open transaction id holds back every database of a server."""
    each = max(200, bench.scaled(2_000_000) // bench.slices // 200 * 200)
    (usual, usual_buffers, raw), (old, old_buffers, more) = (settle(bench, fill, each, held) for held in (False, True))
    rows = []
    for title, goal in (("holdfast", 0.9), ("hand-written", None)):
        rows += [ratio_row(with_it, without, what=f"{title}, {which}", beside="without", unit="jobs/s", goal=goal)
                 for which, with_it, without in (("old snapshot", old[title], usual[title]),
                                                 ("the last slice", old[title][-1:], usual[title][-1:]))]
    rows.append(ratio_row([old_buffers], [usual_buffers], what="holdfast: claim, after all slices", beside="without", unit="buffers",
                          at_most=True, goal=1.2))
    return {"rows": rows, "raw": raw + more}


@case("snapshot", "an old snapshot, 2,000,000 jobs settled", seconds=lambda b: 400 * b.scale + b.slices * 20)
def snapshot(bench):
    """A session with a snapshot and a transaction id stays open while 2,000,000 jobs are settled, batch 100, 2 clients."""
    return settle_under_snapshot(bench, lambda peer, jobs: peer.fill(jobs))


@case("instant", "the same, all jobs at one run_after", seconds=lambda b: 400 * b.scale + b.slices * 20)
def instant(bench):
    """As snapshot, with every job due at the same microsecond."""
    return settle_under_snapshot(bench, lambda peer, jobs: peer.fill_at_once(jobs))
