#!/usr/bin/python3
"""A holdfast worker: claim, act, report.  Copy it, and replace deliver() and look_up().

    PROVIDER=http://host:port worker.py QUEUE NAME      connects as libpq's PGHOST, PGDATABASE, ... say

It sends every request with the job's idempotency key, and keeps to three rules: what it was handed in
mode reconcile it asks about before it sends anything; whatever happens ends in one report under the
lease; and when to try again is the database's decision, never its own.
"""
import http.client
import json
import os
import signal
import sys
import time
import urllib.parse
from email.utils import parsedate_to_datetime

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

QUEUE, NAME = sys.argv[1:3]
PROVIDER = urllib.parse.urlsplit(os.environ["PROVIDER"])
STOP = {signal.SIGTERM, signal.SIGINT}
LONGEST_SLEEP = 1.0     # seconds: a job enqueued during a sleep waits for its end

# The time left is by the server's clock, so that a worker whose clock is off keeps the same deadline.
LEFT = "extract(epoch FROM deadline_at - clock_timestamp())::float8 AS seconds_left"
CLAIM = f"SELECT *, {LEFT} FROM holdfast.claim(%s, %s)"
COMPLETE = "SELECT holdfast.complete(%(job_id)s, %(lease_id)s, %(result)s) AS outcome"
RECONCILE = f"SELECT *, {LEFT} FROM holdfast.reconcile(%(job_id)s, %(lease_id)s, %(finding)s, %(evidence)s)"
RELEASE = "SELECT decision AS outcome FROM holdfast.release(%(job_id)s, %(lease_id)s, 'worker is shutting down')"
FAIL = """SELECT decision AS outcome, because FROM holdfast.fail(%(job_id)s, %(lease_id)s, %(error_class)s, %(message)s,
          side_effect => %(side_effect)s, retry_after => %(retry_after)s, retry_at => %(retry_at)s,
          timeout_kind => %(timeout_kind)s, timeout_limit_ms => %(timeout_limit_ms)s)"""
UNSAID = dict.fromkeys(("side_effect", "retry_after", "retry_at", "timeout_kind", "timeout_limit_ms"))


class Failure(Exception):
    """What fail() is told.  Where it says no side effect the error class's rule does; without one it is unknown."""

    def __init__(self, error_class, message, **said):
        super().__init__(f"{error_class}: {message}")
        self.report = UNSAID | {"error_class": error_class, "message": message} | said


class Database:
    connection = None

    def row(self, sql, params):
        """The first row.  In autocommit, since a claim must have committed before its work begins.

        After a broken connection the statement is sent again.  That is safe: a report that had arrived is
        answered with its first outcome, and a claim that had is a lease that lapses and is looked into.
        """
        while True:
            asked = time.monotonic()
            try:
                if self.connection is None or self.connection.closed:
                    self.connection = psycopg.connect(autocommit=True, row_factory=dict_row)
                row = self.connection.execute(sql, params).fetchone()
                return row and row | {"deadline": asked + (row.get("seconds_left") or 0)}
            except psycopg.OperationalError as error:
                print(f"database: {str(error).strip()}", flush=True)
                if stop_asked(LONGEST_SLEEP):
                    sys.exit("stopped with no database to report to")


def stop_asked(seconds=0.0):
    """Sleep, and say whether SIGTERM or SIGINT came.  They are blocked elsewhere: no report is cut in two."""
    return signal.sigtimedwait(STOP, seconds) is not None


def call(job, method, path, body=None):
    """One HTTP request that carries the job's identity.  Returns status, headers and the decoded reply."""
    seconds = job["deadline"] - time.monotonic()
    if seconds <= 0:        # this process was held up: the lease may be another worker's by now
        raise Failure("DeadlineExceeded", "too late to send anything", side_effect="none")
    kind = http.client.HTTPSConnection if PROVIDER.scheme == "https" else http.client.HTTPConnection
    connection, phase = kind(PROVIDER.netloc, timeout=seconds), "connect"
    headers = {"Idempotency-Key": str(job["idempotency_key"]), "Fencing-Token": str(job["fencing_token"]),
               "Correlation-Id": job["correlation_id"], "Content-Type": "application/json"}
    try:
        connection.connect()
        phase = "read"
        connection.request(method, PROVIDER.path.rstrip("/") + path, json.dumps(body) if body else None, headers)
        reply = connection.getresponse()
        text = reply.read().decode()
        is_json = reply.headers.get_content_type() == "application/json"
        return reply.status, reply.headers, json.loads(text) if is_json else {"text": text}
    except (OSError, http.client.HTTPException, ValueError) as error:
        said = {"side_effect": "none"} if phase == "connect" else {}    # nothing was sent
        if isinstance(error, TimeoutError):
            said |= {"timeout_kind": phase, "timeout_limit_ms": round(seconds * 1000)}
        raise Failure(type(error).__name__, str(error), **said) from error
    finally:
        connection.close()


def deliver(job):
    """Mode execute: ask for the effect.  What a status says about the effect is the provider's promise."""
    status, headers, reply = call(job, "POST", "/effects", {key: job[key] for key in ("action_key", "subject", "payload")})
    if 200 <= status < 300:
        return reply
    if status == 429:
        reset = headers["Retry-After"] or ""        # seconds, or a date; without it the policy decides
        when = {"retry_after": f"{reset} s"} if reset.isdigit() else \
               {"retry_at": parsedate_to_datetime(reset)} if reset else {}
        raise Failure("RateLimitError", f"429, try again after {reset or 'a while'}", **when)
    if status in (400, 422):
        raise Failure("ValidationError", f"{status}: {reply}")
    # This provider promises that 503 comes before any effect; of any other status nothing is known.
    raise Failure(f"Http{status}", str(reply), side_effect="none" if status == 503 else None)


def look_up(job):
    """Mode reconcile: an earlier request's outcome is unknown.  Ask for it, send nothing."""
    status, _, reply = call(job, "GET", f"/effects/{job['idempotency_key']}")
    findings = {"landed": "landed", "unknown": "not_landed", "in_progress": "undetermined"}
    if reply.get("state") not in findings:      # a proxy's 404 is not a finding
        raise Failure(f"Http{status}", str(reply))
    return {"finding": findings[reply["state"]], "evidence": Jsonb(reply)}


def attempt(database, job):
    """Work under one lease.  Answers of stale, unknown_job, conflict and duplicate are logged and need nothing:
    they changed nothing, holdfast has them on record, and what is to become of the job is in other hands."""
    try:
        if job["mode"] == "reconcile":
            answer = database.row(RECONCILE, job | look_up(job))
            if answer["outcome"] != "execute":
                return answer
            job["deadline"] = answer["deadline"]    # it did not land: go on, under the same lease
        result = deliver(job)
    except psycopg.Error:
        raise
    except Exception as error:  # a bug in the handler is a failure like any other, of which nothing is known
        failure = error if isinstance(error, Failure) else Failure(type(error).__name__, str(error))
        return database.row(FAIL, job | failure.report)
    return database.row(COMPLETE, job | {"result": Jsonb(result)})


def main():
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP)
    database, stop = Database(), False
    while not stop:
        job = database.row(CLAIM, (QUEUE, NAME))
        stop = stop_asked()
        if job is None:
            wakeup = database.row("SELECT holdfast.next_wakeup(%s) AS ms", (QUEUE,))["ms"]
            seconds = LONGEST_SLEEP if wakeup is None else min(wakeup / 1000, LONGEST_SLEEP)
            stop = stop or stop_asked(max(seconds, 0.01))
        else:
            answer = database.row(RELEASE, job) if stop else attempt(database, job)
            print(job["subject"], f"attempt {job['attempt_number']} {job['mode']}:", answer["outcome"],
                  answer.get("because") or "", flush=True)


if __name__ == "__main__":
    main()
