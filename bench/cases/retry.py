"""What a failed attempt costs."""
import statistics

from peers.queues import Holdfast
from probe import Session, timed
from stats import ratio_row

from . import case

ATTEMPTS, JOBS = 10, 100


@case("retry", "fail, retry, claim", seconds=lambda b: b.slices * 4)
def retry(bench):
    """Ten attempts per job: claim and fail nine times, the effect known to be none, then claim and complete.

    One session, the median of 100 jobs, beside claim and complete of jobs that succeed at once, one of which goes
    before each.  The reconcile rows: a failure that leaves the effect unknown, and the attempt in mode reconcile that
    finds that it landed.
    """
    peer = Holdfast()
    bench.create(peer)
    peer.db.execute("""SELECT holdfast.define_retry_policy('soon', '1 ms', 1, '1 ms', '0', '1 ms', 20, reconcile_delay => '1 ms');
                       SELECT holdfast.create_queue('retry', retry_policy => 'soon');""")
    what = [f"attempt {n}: claim + {'complete' if n == ATTEMPTS else 'fail'}" for n in range(1, ATTEMPTS + 1)]
    unknown = ["effect unknown: claim + fail", "mode reconcile: claim + reconcile"]
    values, usual = ({name: [] for name in [*what, *unknown]} for _ in range(2))
    raw = []
    with Session(peer.database) as session:
        session.prepare_holdfast()
        session.prepare(b"fail", b"SELECT decision FROM holdfast.fail($1, $2, 'ConnectionError', 'refused', $3)")
        session.prepare(b"landed", b"SELECT outcome FROM holdfast.reconcile($1, $2, 'landed')")

        def cycle(queue, settle, *report, expected):
            answer = session.call(settle, *session.claim(queue), *report).get_value(0, 0).decode()
            if answer != expected:
                raise RuntimeError(f"{settle.decode()}: {answer} instead of {expected}")

        def measure(name, *settle, expected):
            """A cycle of jobs that succeed at once just before each one that is measured."""
            times = [[timed(lambda: cycle(b"bench", b"complete", expected="completed"))[0],
                      timed(lambda: cycle(b"retry", *settle, expected=expected))[0]] for _ in range(JOBS)]
            for series, column in ((usual, 0), (values, 1)):
                series[name].append(statistics.median(row[column] for row in times))

        def enqueue():
            peer.db.execute("""SELECT count(*) FROM generate_series(%s::bigint, %s) n,
                LATERAL holdfast.enqueue('retry', 'send_email', 'retry-' || n, payload(n)::jsonb)""", (peer.filled + 1, peer.filled + JOBS))
            peer.filled += JOBS

        def run(_, n):
            peer.fill(JOBS * len(values))
            enqueue()
            for name in what[:-1]:
                measure(name, b"fail", b"none", expected="retry")
            measure(what[-1], b"complete", expected="completed")
            enqueue()
            measure(unknown[0], b"fail", b"unknown", expected="reconcile")
            measure(unknown[1], b"landed", expected="done")
            raw.append({"slice": n} | {name: {"ms": series[-1], "claim_complete_ms": usual[name][-1]} for name, series in values.items()})
            return values[what[1]][-1]

        bench.rounds(["retry"], run, lambda _, ms: f"attempt 2 took {ms:.3f} ms")
    peer.drop()
    return {"rows": [ratio_row(values[name], usual[name], what=name, beside="claim + complete", unit="ms", at_most=True, goal=2.0)
                     for name in values], "raw": raw}
