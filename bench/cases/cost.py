"""What a job costs beside time: instructions, write-ahead log and memory."""
import statistics
import threading
import time

import instructions
import wal
from peers.base import HERE, pgbench
from peers.queues import Handwritten, Holdfast
from probe import Session
from stats import fixed_limit, ratio_row

from . import case


# Of the server and of holdfast; a function's count includes what it calls.
PARTS = [("ExecutorStart", "making the statement ready"), ("hf_dispatch_next", "finding the next job"), ("hf_ledger_of", "finding its ledger row"),
         ("heap_update", "storing new versions of rows"), ("heap_insert", "inserting rows, one by one"), ("heap_multi_insert", "and by the hundred"),
         ("heap_delete", "deleting rows"), ("heap_lock_tuple", "locking rows"), ("heap_form_tuple", "forming rows"),
         ("index_insert", "inserting index entries"), ("nextval_internal", "sequences"), ("hf_payload_digest", "the payload's digest"),
         ("hf_intent_key", "the intent key"), ("XLogInsert", "writing the log, in all of these"), ("CommitTransactionCommand", "committing")]


@case("instructions", "instructions per job", needs=["valgrind"], seconds=lambda b: 150)
def instructions_per_job(bench):
    """What the processor does for a job, beside the hand-written queue: the server under callgrind, one client.

    A session's first calls fill its caches, so each figure is the difference between a long session and a short one.
    """
    arms, counts = [Holdfast(), Handwritten()], {}
    works = [("claim + complete, batch 1", "work1", 1, 100, 400), ("complete_and_claim, batch 1", "next1", 1, 100, 400),
             ("claim + complete, batch 100", "work", 100, 5, 20), ("enqueue one", "enqueue1", 1, 100, 400)]
    bench.create(*arms)
    for peer in arms:
        peer.fill(5000)
        peer.tidy()
    with instructions.server_stopped(bench, arms), instructions.counting_server(bench.data) as folder:
        for n, (what, op, batch, short, more) in enumerate(works):
            for peer in arms:
                first, both = (instructions.of_session(folder, lambda: pgbench(peer.database, HERE / peer.name / f"{op}.sql", 1, None, batch, transactions=t))
                               for t in (short, short + more))
                counts[what, peer.title] = {name: (count - first.get(name, 0)) / (more * batch) for name, count in both.items()}
                bench.progress(f"{what}, {peer.title}: {counts[what, peer.title]['PostgresMain']:,.0f}", (n + 1) / len(works))
    rows = [ratio_row(*([counts[what, peer.title]["PostgresMain"]] for peer in arms), beside="hand-written", what=what, unit="instructions", at_most=True)
            for what, *_ in works]
    columns = [(what, peer.title) for what, *_ in works for peer in arms]
    lines = [[f"{name}: {meaning}", *(f"{c:,.0f}" if (c := counts[column].get(name, 0)) >= 50 else "" for column in columns)] for name, meaning in PARTS]
    for peer in arms:
        peer.drop()
    return {"rows": rows, "raw": [{"what": what, "arm": arm, "instructions": {k: round(v) for k, v in found.items() if v >= 50}}
                                  for (what, arm), found in counts.items()],
            "tables": [{"title": "instructions per job by part", "head": ["part", *(f"{what}, {arm}" for what, arm in columns)], "rows": lines}]}


@case("wal", "WAL per job, whole life", seconds=lambda b: b.slices * 2 * 12)
def wal_per_job(bench):
    """Bytes of log from enqueue to complete, without full-page images, by part; one by one, and in batches of 100.

    Autovacuum is off, and a VACUUM is counted by itself after each slice.  Rows with VACUUM include it.
    """
    arms = [Holdfast(), Handwritten()]
    bench.create(*arms)
    raw, totals = [], {}
    with wal.no_autovacuum(bench.admin):
        for peer in arms:
            peer.fill(5000)
            peer.tidy()
        points = [(batch, peer) for batch in (1, 100) for peer in arms]

        def run(point, n):
            batch, peer = point
            jobs = 2000 if batch == 1 else 10_000
            found = life(bench, peer, batch, jobs)
            sums = {"": sum(v for part, v in found.items() if part != "vacuum"), " and VACUUM": sum(found.values())}
            for what, value in sums.items():
                totals.setdefault((batch, what, peer.title), []).append(value)
            raw.append({"slice": n, "batch": batch, "arm": peer.title, "jobs": jobs, "bytes_per_job": found})
            return sums[""]

        bench.rounds(points, run, lambda point, value: f"batch {point[0]}, {point[1].title} {value:,.0f} bytes/job")
    goals = {(1, ""): (2.2, 1.6), (100, ""): (1.7, 1.3)}
    rows = []
    for batch in (1, 100):
        for what in ("", " and VACUUM"):
            floor, aim = goals.get((batch, what), (None, None))
            rows.append(ratio_row(totals[batch, what, "holdfast"], totals[batch, what, "hand-written"], beside="hand-written",
                                  what=f"batch {batch}{what}", unit="bytes/job", at_most=True, goal=floor, aim=aim))
    for peer in arms:
        peer.drop()
    return {"rows": rows, "raw": raw, "tables": [by_part(raw)]}


def by_part(raw):
    """Where the bytes go: the medians over the slices."""
    parts = dict.fromkeys(part for r in raw for part in r["bytes_per_job"])
    columns = list(dict.fromkeys((r["arm"], r["batch"]) for r in raw))
    lines = []
    for part in parts:
        medians = [statistics.median(r["bytes_per_job"].get(part, 0) for r in raw if (r["arm"], r["batch"]) == c) for c in columns]
        lines.append([part, *(f"{m:,.0f}" if m else "" for m in medians)])
    return {"title": "bytes per job by part", "head": ["part", *(f"{arm}, batch {batch}" for arm, batch in columns)], "rows": lines}


def life(bench, peer, batch, jobs):
    """Enqueue that many jobs, and claim and complete as many.  Returns bytes per job by part."""
    if batch > 1 and hasattr(peer, "stage"):
        peer.stage(jobs, batch)
    bench.admin.execute("CHECKPOINT")
    begin = wal.position(bench.admin)
    for op in ("enqueue1", "work1") if batch == 1 else ("enqueue", "work"):
        pgbench(peer.database, HERE / peer.name / f"{op}.sql", 1, None, batch, transactions=jobs // batch)
    end = wal.position(bench.admin)
    found = wal.parts(bench.admin, peer.db, begin, end)
    begin = wal.position(bench.admin)
    peer.tidy()
    vacuum = wal.parts(bench.admin, peer.db, begin, wal.position(bench.admin))
    found["vacuum"] = sum(vacuum.values())
    return {part: size / jobs for part, size in sorted(found.items(), key=lambda item: -item[1]) if part != "next_batch"}


@case("memory", "memory", seconds=lambda b: 700 * b.scale + 60)
def memory(bench):
    """One session that claims and completes a million times, and one that claims 1,000 jobs of 100 kB at once.

    Anonymous memory of the backend, as the kernel counts it: after a warm-up of a hundredth of the cycles, and at
    the end.  The large claim's is the highest seen, above what the session had before.
    """
    peer = Holdfast()
    bench.create(peer)
    cycles, raw = bench.scaled(1_000_000), []
    with Session(peer.database) as session:
        session.prepare_holdfast()
        block = max(1, min(cycles // 100, 10_000))
        for done in range(0, cycles, block):
            if peer.live_jobs() < block:
                peer.fill(10 * block)
            for _ in range(block):
                session.cycle()
            raw.append({"cycles": done + block, "anonymous_kb": session.anonymous_kb(), "contexts_kb": session.contexts_kb()})
            bench.progress(f"{done + block:,} cycles, {raw[-1]['anonymous_kb']:,} kB", 0.9 * done / cycles)
    growth = (raw[-1]["anonymous_kb"] - raw[0]["anonymous_kb"]) / 1024
    peak = large_claim(bench, peer)
    raw.append({"jobs": 1000, "payload_kb": 100, "peak_kb": peak})
    peer.drop()
    return {"rows": [fixed_limit(growth, 1.0, what=f"growth over {cycles:,} cycles", unit="MB"),
                     fixed_limit(peak / 1024, LARGE_CLAIM_MB, what="claim of 1,000 jobs of 100 kB", unit="MB")], "raw": raw}


LARGE_CLAIM_MB = 64     # the payloads are 100 MB: what holds them all does not pass


def large_claim(bench, peer):
    """The highest anonymous memory of a backend while it claims 1,000 jobs of 100 kB, in kB, above what it had."""
    peer.db.execute("SELECT holdfast.create_queue('large')")
    for n in range(100):        # text that compression cannot shrink much
        peer.db.execute("""SELECT count(*) FROM holdfast.enqueue_batch('large', (SELECT jsonb_agg(jsonb_build_object('action_key', 'send',
            'subject', %s || '-' || i, 'payload', (SELECT jsonb_build_object('data', string_agg(md5(i || '-' || %s || '-' || j), ''))
            FROM generate_series(1, 3125) j))) FROM generate_series(1, 10) i))""", (str(n), n))
    with Session(peer.database) as session:
        session.run("SELECT * FROM holdfast.claim('bench', 'worker', 1)")
        before, seen, over = session.anonymous_kb(), [0], threading.Event()

        def watch():
            while not over.is_set():
                seen.append(session.anonymous_kb())
                time.sleep(0.005)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            rows = session.run("SELECT * FROM holdfast.claim('large', 'worker', 1000)")
        finally:
            over.set()
            watcher.join()
    if rows != 1000:
        raise RuntimeError(f"the large claim returned {rows} jobs")
    return max(seen) - before
