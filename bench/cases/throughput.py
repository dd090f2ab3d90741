"""Jobs a second: claim and complete, one by one and in batches, and enqueue."""
from measure import Arm, plural
from peers.npm import Graphile, PgBoss
from peers.queues import Handwritten, HandwrittenPartial, Holdfast, Insert, Limit, PgQ
from stats import ratio_row

from . import case


@case("batch1", "claim + complete, batch 1", quick=True, needs=["node"],
      seconds=lambda b: b.comparison(2, 3) if b.quick else b.comparison(3, 5))
def batch1(bench):
    """A worker's two calls for each job, each its own commit: claim, then complete."""
    npm = [] if bench.quick else [Arm(Graphile(), "work", guess=2000), Arm(PgBoss(), "work", guess=1000)]
    goals = {("hand-written", 1): (1.0, 1.2), ("hand-written", 4): (1.0, 1.2), ("hand-written", 16): (1.3, 1.6),
             ("the limit", 1): (0.40, 0.45)}
    for clients in (1, 4, 16):
        goals |= {("graphile-worker", clients): (2, None), ("pg-boss", clients): (10, None)}
    return bench.compare(
        [Arm(Holdfast(), "work1", guess=3000), Arm(Handwritten(), "work1", guess=3000),
         Arm(Limit(), "insert1", adds=True), *npm],
        [1, 16] if bench.quick else [1, 4, 16], goals)


@case("next1", "complete_and_claim, batch 1", quick=True,
      seconds=lambda b: b.comparison(2 if b.quick else 3, 3))
def next1(bench):
    """The loop of a busy worker: one call settles the last job and claims the next, one commit for each job."""
    goals = {("the limit", 1): (0.55, 0.75), ("the limit", 4): (0.60, 0.75), ("the limit", 16): (0.50, 0.75)}
    return bench.compare(
        [Arm(Holdfast(), "next1", guess=4000), Arm(Limit(), "insert1", adds=True), Arm(Handwritten(), "next1", guess=4000)],
        [1, 16] if bench.quick else [1, 4, 16], goals)


@case("batch100", "claim + complete, batch 100", quick=True, needs=["node"],
      seconds=lambda b: b.comparison(1, 2, fill=8) if b.quick else b.comparison(3, 4, fill=6))
def batch100(bench):
    """A hundred jobs a call, two calls; the hand-written queue with two prepared statements.

    graphile-worker in its batched mode, as its makers' page on performance sets it: 24 jobs at a time and a local queue
    of 500 for each client, completions gathered.  pg-boss fetches and completes a hundred at a time.
    """
    npm = [] if bench.quick else [Arm(Graphile(), "work", 100, guess=30_000), Arm(PgBoss(), "work", 100, guess=20_000)]
    goals = {}
    for clients in (1, 2, 4):
        goals |= {("hand-written", clients): (0.9, 1.2), ("graphile-worker", clients): (1.0, None),
                  ("pg-boss", clients): (5, None)}
    return bench.compare(
        [Arm(Holdfast(), "work", 100, guess=50_000), Arm(Handwritten(), "work", 100, guess=50_000), *npm],
        [2] if bench.quick else [1, 2, 4], goals)


@case("enqueue1", "enqueue one", quick=True, needs=["pgq"], seconds=lambda b: b.comparison(1 if b.quick else 2, 4, fill=1))
def enqueue1(bench):
    """One job, one commit.  Beside PgQ's insert_event with the same payload and key text, and a bare INSERT."""
    goals = {("PgQ", clients): (1.0, None) for clients in (1, 4)} | {("the limit", clients): (0.75, None) for clients in (1, 4)}
    return bench.compare(
        [Arm(Holdfast(), "enqueue1", adds=True), Arm(PgQ(), "enqueue1", adds=True), Arm(Limit(), "insert1", adds=True),
         Arm(Handwritten(), "enqueue1", adds=True)],
        [1] if bench.quick else [1, 4], goals)


@case("enqueue1000", "enqueue_batch, 1,000 jobs", seconds=lambda b: b.comparison(1, 3, fill=10))
def enqueue1000(bench):
    """A thousand jobs a call.

    What is added lies ready in a table, for holdfast as the arrays that its clients send, for INSERT as rows:
    making them is nobody's cost.
    """
    insert = Insert()
    keyed, plain = "INSERT ... ON CONFLICT", "INSERT, no key"
    return bench.compare(
        [Arm(Holdfast(), "enqueue", 1000, guess=60_000, adds=True, staged=True),
         Arm(insert, "keyed", 1000, guess=150_000, adds=True, staged=True, title=keyed),
         Arm(insert, "plain", 1000, guess=400_000, adds=True, staged=True, title=plain)],
        [1], {(keyed, 1): (0.8, 1.0)})


@case("crowd", "64 and 128 clients", seconds=lambda b: b.comparison(3, 2))
def crowd(bench):
    """claim + complete, batch 1: what remains of the throughput at 16 clients, beside what hand-written keeps."""
    counts = (16, 64, 128)
    result = bench.compare([Arm(Holdfast(), "work1", guess=5000), Arm(Handwritten(), "work1", guess=5000)], counts)
    rates = {(s["arm"], s["clients"], s["slice"]): s["rate"] for s in result["raw"]}

    def kept(arm, clients):
        return [rates[arm, clients, n] / rates[arm, 16, n] for n in range(1, bench.slices + 1)]

    result["rows"] += [ratio_row(kept("holdfast", clients), kept("hand-written", clients), beside="hand-written",
                                 what=f"{plural(clients)}, kept", unit="of that at 16", goal=1.0) for clients in counts[1:]]
    return result


@case("handwritten", "the hand-written queue's variants", seconds=lambda b: b.comparison(2, 3))
def handwritten(bench):
    """That the hand-written peer is no straw man: the claim that it uses beside the usual ones, batch 1.

    ctid: rows found by ctid, no index changes.  join: UPDATE ... FROM a locking subquery, by primary key.
    partial: a dispatch index WHERE status = 'pending', which each claim must leave.
    """
    arms = [Arm(Handwritten(), "work1", guess=3000, title="ctid")]
    arms += [Arm(Handwritten("join"), "join", guess=3000), Arm(HandwrittenPartial("partial"), "work1", guess=3000)]
    return bench.compare(arms, [1, 16])
