"""What every peer has: a database of its own, a way to fill it, and load generators."""
import os
import re
import subprocess
from pathlib import Path

import psycopg

HERE = Path(__file__).parent


class Dry(Exception):
    """A client found no job: the slice says nothing, and wants a fuller queue."""


class Peer:
    """A queue in a database of its own.  `name` is its folder here, `title` what the tables call it."""
    name = title = None
    live = None         # counts the jobs that are not settled
    vacuum = ""         # the tables that a slice leaves work in, for VACUUM
    settle = None       # settles the job that each client of next1 still holds at the end of a slice

    def __init__(self, title=None):
        """Two peers of one kind, told apart by their titles, have a database each."""
        self.title = title or self.title
        self.database = "bench_" + re.sub(r"\W+", "_", self.title).lower()
        self.db = None
        self.filled = 0         # numbers of payload() used so far

    def create(self):
        """A new database with an empty queue."""
        self.drop()
        with psycopg.connect(dbname="postgres", autocommit=True) as db:
            db.execute(f"CREATE DATABASE {self.database}")
        self.connect()
        self.db.execute((HERE.parent / "payload.sql").read_text())
        self.filled = 0
        self.install()

    def connect(self):
        self.db = psycopg.connect(dbname=self.database, autocommit=True)

    def drop(self):
        if self.db:
            self.db.close()
            self.db = None
        with psycopg.connect(dbname="postgres", autocommit=True) as db:
            db.execute(f"DROP DATABASE IF EXISTS {self.database} WITH (FORCE)")

    def install(self):
        self.db.execute((HERE / self.name / "install.sql").read_text())

    def version(self):
        """What was measured, for the record."""
        return ""

    def fill(self, jobs):
        """Add jobs that are due."""
        raise NotImplementedError

    def value(self, sql, params=()):
        return self.db.execute(sql, params).fetchone()[0]

    def live_jobs(self):
        return self.value(self.live)

    def tidy(self):
        """What autovacuum would do sooner or later, before the slice rather than in it."""
        self.db.execute(f"VACUUM (ANALYZE) {self.vacuum}")

    def load(self, op, clients, seconds, batch=1):
        """Run one kind of work; returns jobs, and jobs a second (rate)."""
        done = pgbench(self.database, HERE / self.name / f"{op}.sql", clients, seconds, batch)
        if op == "next1":
            self.db.execute(self.settle)
        return done

    def fill_in_steps(self, jobs, sql, step=5000):
        """Run sql with (first, last) payload number until that many jobs were added."""
        while jobs > 0:
            n = min(step, jobs)
            done = self.db.execute(sql, (self.filled + 1, self.filled + n))
            if done.rowcount == 1 and done.description and (made := done.fetchone()[0]) != n:
                raise RuntimeError(f"{self.title}: {made} jobs were made instead of {n}")
            self.filled += n
            jobs -= n


def pgbench(database, script, clients, seconds, batch=1, transactions=None, rate=None):
    """Prepared statements from pgbench, for so many seconds or transactions a client.  Returns jobs, and jobs a second.

    A script's \\gset fails where a claim finds nothing, so that a queue that runs dry is noticed.
    """
    command = ["pgbench", "--no-vacuum", "--protocol=prepared", f"--client={clients}",
               f"--jobs={min(clients, os.cpu_count())}", f"--file={script}", f"--define=qty={batch}", "--define=job_id=0"]
    command += [f"--transactions={transactions}"] if transactions else [f"--time={round(seconds)}"]
    command += [f"--rate={rate}"] if rate else []
    done = subprocess.run([*command, database], capture_output=True, text=True)
    if done.returncode != 0:
        dry = re.search(r'expected one row, got 0|malformed array literal: ""|"jobs" must not be null', done.stderr)
        raise (Dry if dry else RuntimeError)(f"{' '.join(command)}:\n{done.stderr}")
    jobs = int(re.search(r"actually processed: (\d+)", done.stdout)[1]) * batch
    per_second = float(re.search(r"^tps = ([\d.]+) \(without", done.stdout, re.M)[1]) * batch
    return {"jobs": jobs, "rate": per_second}
