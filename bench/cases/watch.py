"""What a watch costs the table that it is on."""
import statistics

from peers.queues import Holdfast
from probe import Session, timed
from stats import ratio_row

from . import case

ROWS, UPDATES = 100_000, 200
MAPPING = '{"id": "id", "status": "status", "attempt_number": "attempts", "run_after": "run_after", "worker_name": "worker"}'
CHANGES = {
    "claim": "status = 'running', attempts = attempts + 1, worker = 'w'",
    "requeue": "status = 'pending', run_after = now() + interval '1 hour'",
    "another column": "worker = 'x'",
}


@case("watch", "watched tables", seconds=lambda b: b.slices * 30)
def watch(bench):
    """A table of one's own with a uuid as its key, beside the same one that is not watched, in mode observe.

    One UPDATE over 100,000 rows, of which each begins or ends an attempt, or neither; and committed UPDATEs of single
    rows, one of each table in turn, the median of 200.  Both tables are new for each slice.
    """
    peer = Holdfast()
    bench.create(peer)
    one, many = ({change: ([], []) for change in CHANGES} for _ in range(2))
    raw = []
    with Session(peer.database) as session:
        def fresh():
            if session.value("SELECT count(*) FROM holdfast.watched") == "1":
                session.run("SELECT holdfast.unwatch('watched')")
            session.run(f"""
                DROP TABLE IF EXISTS watched, plain;
                CREATE TABLE plain (id uuid PRIMARY KEY, n int UNIQUE, status text NOT NULL DEFAULT 'pending',
                    attempts int NOT NULL DEFAULT 0, run_after timestamptz NOT NULL DEFAULT now(), worker text);
                INSERT INTO plain (id, n) SELECT gen_random_uuid(), n FROM generate_series(1, {ROWS}) n;
                CREATE TABLE watched (LIKE plain INCLUDING ALL);
                INSERT INTO watched SELECT * FROM plain;
                SELECT holdfast.watch('watched', '{MAPPING}')""")
            session.run("VACUUM ANALYZE plain, watched")
            session.run("CHECKPOINT")

        def run(_, n):
            fresh()
            for change, columns in CHANGES.items():
                times = [[timed(lambda: session.run(f"UPDATE {table} SET {columns} WHERE n = {i}"))[0]
                          for table in ("plain", "watched")] for i in range(1, UPDATES + 1)]
                for series, column in zip(one[change], zip(*times)):
                    series.append(statistics.median(column))
            fresh()
            for change, columns in CHANGES.items():
                for series, table in zip(many[change], ("plain", "watched")):
                    series.append(timed(lambda: session.run(f"UPDATE {table} SET {columns}"))[0])
            raw.append({"slice": n} | {f"{name}, {change}": [series[-1] for series in found[change]]
                                       for name, found in (("one", one), ("many", many)) for change in CHANGES})
            return many["claim"][1][-1] / many["claim"][0][-1]

        bench.rounds(["watch"], run, lambda _, ratio: f"{ROWS:,} claims took {ratio:.2f} times as long")
    peer.drop()
    return {"rows": [ratio_row(found[change][1], found[change][0], what=f"{name}: {change}", beside="unwatched", unit="ms", at_most=True, goal=goal)
                     for name, found, goal in (("one row, committed", one, 1.6), (f"{ROWS:,} rows", many, 6.0)) for change in CHANGES],
            "raw": raw}
