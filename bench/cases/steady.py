"""Producers and consumers together, for ten minutes."""
import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg

from peers.base import HERE, pgbench
from peers.queues import Holdfast
from stats import fixed_limit, plain_figure, ratio_row

from . import case

RATE = 1000         # jobs a second: well below what two cores do, so that latency is not the length of a queue
CONSUMERS = 4

# From the clock of the enqueue call to the clock of the complete call, by the evidence of both.
LATENCIES = """
WITH settled AS MATERIALIZED (
	SELECT floor(extract(epoch FROM s.enqueued_at - %(begin)s) / %(bucket)s)::int AS bucket,
		   (extract(epoch FROM d.at - s.enqueued_at) * 1000)::float8 AS ms
	FROM holdfast.event s JOIN holdfast.event d USING (job_id)
	WHERE s.kind = 'action_attempt_started' AND d.kind = 'action_attempt_succeeded' AND s.enqueued_at >= %(begin)s)
SELECT bucket, count(*), percentile_disc(ARRAY[0.5, 0.99, 0.999]) WITHIN GROUP (ORDER BY ms), max(ms)
FROM settled GROUP BY GROUPING SETS ((bucket), ()) ORDER BY bucket"""


def run(bench, producers, script):
    """Lines of the table, the figures of each of 60 equal stretches, and of the whole."""
    peer = Holdfast()
    bench.create(peer)
    seconds = max(20, round(600 * bench.scale))
    bench.admin.execute("ALTER SYSTEM SET checkpoint_timeout = '5min'")
    bench.admin.execute("SELECT pg_reload_conf()")
    begin, over = peer.value("SELECT clock_timestamp()"), threading.Event()
    folder = HERE / "holdfast"

    def upkeep():
        """maintain() every minute, as README says; and the progress."""
        with psycopg.connect(dbname=peer.database, autocommit=True) as db:
            for second in range(seconds):
                if over.wait(1):
                    break
                if second % 60 == 30:
                    db.execute("SELECT * FROM holdfast.maintain()")
                if second % 10 == 9:
                    bench.progress(f"{second + 1} of {seconds} s, {peer.live_jobs()} jobs live", 0.95 * second / seconds)

    try:
        with ThreadPoolExecutor() as pool:
            load = [pool.submit(pgbench, peer.database, folder / f"{script}.sql", producers, seconds, rate=RATE),
                    pool.submit(pgbench, peer.database, folder / "consume.sql", CONSUMERS, seconds + 3), pool.submit(upkeep)]
            try:
                produced, _, _ = [future.result() for future in load]
            finally:
                over.set()
    finally:
        bench.admin.execute("ALTER SYSTEM RESET checkpoint_timeout")
        bench.admin.execute("SELECT pg_reload_conf()")
    found = peer.db.execute(LATENCIES, {"begin": begin, "bucket": seconds / 60}).fetchall()
    *parts, (_, jobs, whole, longest) = found
    if jobs != produced["jobs"]:
        raise RuntimeError(f"{produced['jobs']:,} jobs were enqueued, {jobs:,} were settled")
    peer.drop()
    raw = [{"second": bucket * seconds / 60, "jobs_per_s": count * 60 / seconds, "p50_ms": p50, "p99_ms": p99, "p999_ms": p999, "max_ms": top}
           for bucket, count, (p50, p99, p999), top in parts if bucket < 60]
    return raw, {"jobs_per_s": jobs / seconds, "p50_ms": whole[0], "p99_ms": whole[1], "p999_ms": whole[2], "max_ms": longest}


def rows(raw, whole):
    """The whole run's figures, and the last tenth of the stretches beside the first: flat from beginning to end."""
    tenth = len(raw) // 10
    first, last = raw[:tenth], raw[-tenth:]
    titles = {"jobs_per_s": ("throughput", "jobs/s"), "p50_ms": ("p50", "ms"), "p99_ms": ("p99", "ms"), "p999_ms": ("p99.9", "ms"),
              "max_ms": ("max", "ms")}
    lines = [plain_figure(whole[key], what=f"{title}, enqueue to complete" if unit == "ms" else title, unit=unit)
             for key, (title, unit) in titles.items()]
    lines.append(ratio_row([r["jobs_per_s"] for r in last], [r["jobs_per_s"] for r in first], what="throughput, last tenth",
                           beside="first tenth", unit="jobs/s", goal=0.95))
    lines.append(ratio_row([r["p50_ms"] for r in last], [r["p50_ms"] for r in first], what="p50, last tenth", beside="first tenth",
                           unit="ms", at_most=True, goal=1.2))
    return lines


@case("steady", "steady state", seconds=lambda b: 600 * b.scale + 30)
def steady(bench):
    """Four producers and four consumers, 1,000 jobs a second, ten minutes, with autovacuum, maintain() every minute and checkpoints.

    Consumers claim up to ten jobs a call, and sleep for 5 ms where they find none.
    """
    raw, whole = run(bench, 4, "enqueue1")
    return {"rows": rows(raw, whole), "raw": raw}


@case("steady_open", "steady state, transactions held open", seconds=lambda b: 600 * b.scale + 30)
def steady_open(bench):
    """The same with producers that hold their transaction open for 20 ms after enqueue, which the latencies include."""
    raw, whole = run(bench, 64, "produce_open")
    lines = [line for line in rows(raw, whole) if line["what"] != "p99.9, enqueue to complete"]
    return {"rows": [*lines, fixed_limit(whole["p999_ms"], 200, what="p99.9, enqueue to complete", unit="ms")], "raw": raw}
