"""A worker with the bug of the incident, on a table of its own with uuid ids.

	worker.py DSN NAME

`except TimeoutError: attempts += 1; status = 'pending'`, and nothing else.  The
first attempt at each row times out.  A statement that the database refuses is
given up, and the worker goes on with the next row, until none is pending, or a
minute is over.  Prints its claims, its timeouts, its successes and what was
refused.
"""
import sys
import time

import psycopg

dsn, name = sys.argv[1:]
db = psycopg.connect(dsn, autocommit=True)
done = {"claims": 0, "timeouts": 0, "successes": 0, "refused": 0}

CLAIM = """UPDATE jobs SET status = 'running', worker = %s
           WHERE id = (SELECT id FROM jobs WHERE status = 'pending' AND run_after <= now() ORDER BY run_after LIMIT 1 FOR UPDATE SKIP LOCKED)
           RETURNING id, attempts"""


def handle(attempts):
    if attempts == 0:
        raise TimeoutError


end = time.monotonic() + 60
while time.monotonic() < end:
    row = db.execute(CLAIM, (name,)).fetchone()
    if row is None:
        if db.execute("SELECT FROM jobs WHERE status = 'pending' LIMIT 1").fetchone() is None:
            break
        time.sleep(0.02)
        continue
    job, attempts = row
    done["claims"] += 1
    try:
        handle(attempts)
        db.execute("UPDATE jobs SET status = 'done' WHERE id = %s", (job,))
        done["successes"] += 1
    except TimeoutError:
        try:
            db.execute("UPDATE jobs SET attempts = attempts + 1, status = 'pending' WHERE id = %s", (job,))
            done["timeouts"] += 1
        except psycopg.Error as error:
            if error.sqlstate != "JQ006":
                raise
            done["refused"] += 1
print(*done.values())
