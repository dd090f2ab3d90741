"""Jobs a second: claim and complete, one by one and in batches, and enqueue."""
from measure import Arm
from peers.queues import Handwritten, Holdfast, Limit

from . import case


@case("batch1", "claim + complete, batch 1", quick=True, seconds=lambda b: b.comparison(3, 3))
def batch1(bench):
    """A worker's two calls for each job, each its own commit."""
    goals = {("hand-written", 1): (1.0, 1.2), ("hand-written", 4): (1.0, 1.2), ("hand-written", 16): (1.3, 1.6),
             ("the limit", 1): (0.40, 0.45)}
    return bench.compare(
        [Arm(Holdfast(), "work1", guess=3000), Arm(Handwritten(), "work1", guess=3000),
         Arm(Limit(), "insert1", drains=False)],
        [1, 16] if bench.quick else [1, 4, 16], goals)


@case("next1", "complete_and_claim, batch 1", quick=True, seconds=lambda b: b.comparison(3, 3))
def next1(bench):
    """The loop of a busy worker: one call settles the last job and claims the next, one commit for each job."""
    goals = {("the limit", 1): (0.55, 0.75), ("the limit", 4): (0.60, 0.75), ("the limit", 16): (0.50, 0.75)}
    return bench.compare(
        [Arm(Holdfast(), "next1", guess=4000), Arm(Handwritten(), "next1", guess=4000),
         Arm(Limit(), "insert1", drains=False)],
        [1, 16] if bench.quick else [1, 4, 16], goals)


@case("batch100", "claim + complete, batch 100", quick=True, seconds=lambda b: b.comparison(3, 2, fill=6))
def batch100(bench):
    """A hundred jobs a call, two calls; the hand-written queue with two prepared statements."""
    goals = {("hand-written", clients): (0.9, 1.2) for clients in (1, 2, 4)}
    return bench.compare(
        [Arm(Holdfast(), "work", 100, guess=50_000), Arm(Handwritten(), "work", 100, guess=50_000)],
        [2] if bench.quick else [1, 2, 4], goals)
