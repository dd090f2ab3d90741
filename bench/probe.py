"""One session, call by call: latency, processor time, buffers and memory of its backend.

It speaks libpq through psycopg's thin wrapper, so that a call's time has little of Python in it.
"""
import json
import statistics
import time

from psycopg import pq

from stats import percentile

CLAIM = b"SELECT job_id, lease_id, attempt_number, idempotency_key, payload FROM holdfast.claim($1, 'worker')"
COMPLETE = b"SELECT holdfast.complete($1, $2)"


class Session:
    def __init__(self, database):
        self.connection = pq.PGconn.connect(f"dbname={database}".encode())
        if self.connection.status != pq.ConnStatus.OK:
            raise RuntimeError(self.connection.error_message.decode())
        self.pid = self.connection.backend_pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.finish()

    def check(self, result):
        if result.status not in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
            raise RuntimeError(result.error_message.decode())
        return result

    def run(self, sql):
        """How many rows it returned."""
        return self.check(self.connection.exec_(sql.encode())).ntuples

    def value(self, sql):
        return self.check(self.connection.exec_(sql.encode())).get_value(0, 0).decode()

    def prepare(self, name, sql):
        self.check(self.connection.prepare(name, sql))

    def call(self, name, *params):
        return self.check(self.connection.exec_prepared(name, params))

    def prepare_holdfast(self):
        self.prepare(b"claim", CLAIM)
        self.prepare(b"complete", COMPLETE)

    def claim(self, queue=b"bench"):
        """Job and lease; an error where there is none."""
        result = self.call(b"claim", queue)
        if result.ntuples != 1:
            raise RuntimeError(f"a claim from {queue.decode()} found nothing")
        return result.get_value(0, 0), result.get_value(0, 1)

    def cycle(self):
        result = self.call(b"complete", *self.claim())
        if result.get_value(0, 0) != b"completed":
            raise RuntimeError(f"complete answered {result.get_value(0, 0).decode()}")

    def anonymous_kb(self):
        """Memory that is the backend's own: no shared buffers, no program text."""
        with open(f"/proc/{self.pid}/smaps_rollup") as lines:
            return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))

    def contexts_kb(self):
        return int(self.value("SELECT sum(total_bytes) / 1024 FROM pg_backend_memory_contexts").split(".")[0])


def timed(function):
    """Milliseconds, and what it returned."""
    begin = time.perf_counter_ns()
    result = function()
    return (time.perf_counter_ns() - begin) / 1e6, result


class Prober(Session):
    """What a holdfast claim costs, one by one."""

    def __init__(self, database):
        super().__init__(database)
        self.prepare_holdfast()

    def measure(self, cycles, queue="bench"):
        """Median and tail of a claim, in a loop of claim and complete; and buffers, from a tenth as many."""
        queue = queue.encode()
        self.warm_up(queue)
        times, spent = [], []
        for _ in range(cycles):
            before = self.processor_us()
            ms, lease = timed(lambda: self.claim(queue))
            times.append(ms)
            spent.append(self.processor_us() - before)
            self.call(b"complete", *lease)
        return {"p50_ms": percentile(times, 0.5), "p99_ms": percentile(times, 0.99), "cpu_us": statistics.median(spent),
                "buffers": statistics.median(self.buffers(max(10, cycles // 10), queue.decode()))}

    def processor_us(self):
        """Time on a processor so far, in the kernel and out of it."""
        with open(f"/proc/{self.pid}/schedstat") as file:
            return int(file.read().split()[0]) / 1000

    def warm_up(self, queue):
        """The caches of a new backend are not what is measured."""
        for _ in range(10):
            self.call(b"complete", *self.claim(queue))

    def buffers(self, cycles, queue="bench"):
        """Shared buffers touched by each of so many claims.

        The leases go to a temporary table, whose buffers EXPLAIN counts apart, so that the jobs can be completed.
        """
        self.run("CREATE TEMPORARY TABLE IF NOT EXISTS taken (job_id bigint, lease_id uuid)")
        found = []
        for _ in range(cycles):
            plan = json.loads(self.value(f"""EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON)
                INSERT INTO taken SELECT job_id, lease_id FROM holdfast.claim('{queue}', 'worker')"""))[0]["Plan"]
            found.append(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
            if self.run("SELECT holdfast.complete(job_id, lease_id) FROM taken") != 1:
                raise RuntimeError("a claim found nothing")
            self.run("TRUNCATE taken")
        return found
