"""Reading the evidence: one subject, one job, and a whole day."""
import statistics

from peers.base import HERE, pgbench
from peers.queues import Holdfast
from probe import Session, timed
from stats import fixed_limit, ratio_row

from . import case

BATCH, FAILING = 100, 500


@case("evidence", "timeline, explain, classification", seconds=lambda b: 900 * b.scale + 30)
def evidence(bench):
    """Over 1,000,000 and over 10,000,000 attempts: the median of 30 timelines and 30 explanations, and all pairs classified."""
    peer, raw = Holdfast(), []
    bench.create(peer)
    if peer.value("SELECT to_regclass('holdfast.attempt_pair') IS NULL OR to_regprocedure('holdfast.explain(bigint)') IS NULL"):
        raise NotImplementedError("this version has no attempt_pair or no explain()")
    peer.db.execute("""SELECT holdfast.define_retry_policy('soon', '1 ms', 1, '1 ms', '0', '1 ms', 20);
                       SELECT holdfast.create_queue('retry', retry_policy => 'soon')""")
    attempts = 0
    for target in (bench.scaled(1_000_000), bench.scaled(10_000_000)):
        attempts += history(bench, peer, target - attempts)
        peer.tidy()
        raw.append({"attempts": attempts} | read(bench, peer))
        bench.progress(f"{attempts:,} attempts classified in {raw[-1]['classified_s']:.1f} s", target / bench.scaled(10_000_000))
    peer.drop()
    million, ten = raw
    each = [r["classified_s"] / r["attempts"] * 1e6 for r in raw]
    return {"rows": [
        fixed_limit(ten["timeline_ms"], 20, what=f"timeline of a subject, {ten['attempts']:,} attempts", unit="ms"),
        fixed_limit(ten["explain_ms"], 20, what=f"explain a job, {ten['attempts']:,} attempts", unit="ms"),
        fixed_limit(million["classified_s"], 10 * bench.scale, what=f"all pairs of {million['attempts']:,} attempts", unit="s"),
        ratio_row(each[1:], each[:1], what=f"a pair's share, {ten['attempts']:,} attempts", beside=f"{million['attempts']:,}",
                  unit="us/attempt", at_most=True, goal=1.25)], "raw": raw}


def history(bench, peer, attempts):
    """That many attempts: jobs of three attempts each, and jobs that succeed at once."""
    failing = min(FAILING, attempts // 6)
    first = peer.filled + 1
    peer.filled += failing
    peer.db.execute("""SELECT count(*) FROM generate_series(%s::bigint, %s) n,
        LATERAL holdfast.enqueue('retry', 'send_email', 'troubled-' || n, payload(n)::jsonb)""", (first, peer.filled))
    with Session(peer.database) as session:
        session.prepare_holdfast()
        session.prepare(b"fail", b"SELECT decision FROM holdfast.fail($1, $2, 'ConnectionError', 'refused', 'none')")
        for settle in (b"fail", b"fail", b"complete"):
            for _ in range(failing):
                session.call(settle, *session.claim(b"retry"))
    rest = (attempts - 3 * failing) // BATCH * BATCH
    for done in range(0, rest, 200_000):
        jobs = min(200_000, rest - done)
        peer.fill(jobs)
        pgbench(peer.database, HERE / "holdfast" / "work.sql", 1, None, BATCH, transactions=jobs // BATCH)
        bench.progress(f"{done + jobs:,} of {rest:,} attempts made")
    return 3 * failing + rest


def read(bench, peer):
    """Medians in ms over 30 troubled subjects, and the seconds that the classification of everything takes."""
    jobs = peer.db.execute("""SELECT subject, job_id FROM holdfast.event WHERE subject LIKE 'troubled-%' AND kind = 'action_attempt_failed'
                              GROUP BY 1, 2 ORDER BY hashint8(job_id) LIMIT 30""").fetchall()
    with Session(peer.database) as session:
        for warm_up in (False, True):
            timelines = [timed(lambda: session.run(f"SELECT * FROM holdfast.timeline(subject => '{subject}')")) for subject, _ in jobs]
            explained = [timed(lambda: session.run(f"SELECT * FROM holdfast.explain({job})")) for _, job in jobs]
        if min(lines for _, lines in timelines) < 6 or min(lines for _, lines in explained) < 1:
            raise RuntimeError("a timeline or an explanation has lines missing")
        ms, _ = timed(lambda: session.run("SELECT verdict, count(*) FROM holdfast.attempt_pair GROUP BY verdict"))
    return {"timeline_ms": statistics.median(ms for ms, _ in timelines), "explain_ms": statistics.median(ms for ms, _ in explained),
            "classified_s": ms / 1000}
