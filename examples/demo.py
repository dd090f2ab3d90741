#!/usr/bin/python3
"""Runs the incident for real, and checks it against the provider's own log.  Started by scripts/demo.

    demo.py FOLDER      logs go there; connects as libpq's PGHOST, ... say, as a superuser
                        PROVIDER=url: use that provider; docs/demo.md has the protocol

The provider and the workers are processes of their own; none of them knows that it is in a demo.
"""
import collections
import datetime
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import psycopg
from psycopg.types.json import Jsonb

HERE, FOLDER = pathlib.Path(__file__).resolve().parent, pathlib.Path(sys.argv[1])
DEADLINE = 75       # seconds: what has not happened by then will not
ORDINARY = 20
TIMEOUT, LEASE, RESET = 2, 3, 4     # seconds; RESET is what the provider's 429 asks for

# steps: what the provider does with the subject's first request; with a later one it would simply let it land.
# requests: how many it must have been sent in the end.  evidence: kinds of event that must then be on record.
Scene = collections.namedtuple("Scene", "story steps requests evidence")
SCENES = {
    "prospect-7ca677ed25d3": Scene(
        f"lands, but the provider hangs beyond the timeout of {TIMEOUT} s",
        [{"after": 8}], 1, ["attempt_failed", "reconcile_scheduled", "reconciled"]),
    "prospect-refused": Scene(
        "is refused with 503, before any effect",
        [{"effect": False, "answer": 503}], 2, ["attempt_failed", "retry_scheduled", "attempt_succeeded"]),
    "prospect-limited": Scene(
        f"gets 429, to be tried again in {RESET} s",
        [{"effect": False, "answer": 429, "retry_after": RESET}], 2,
        ["attempt_failed", "retry_scheduled", "attempt_succeeded"]),
    "prospect-rejected": Scene(
        "has an input that the provider rejects with 422",
        [], 1, ["attempt_failed", "terminal"]),
    "prospect-dropped": Scene(
        "loses its connection, with no effect and no answer",
        [{"effect": False, "answer": 0}], 2,
        ["attempt_failed", "reconcile_scheduled", "reconciled", "attempt_succeeded"]),
    "prospect-slow": Scene(
        "is still under way when it is asked about, and lands later",
        [{"before": 5}], 1, ["attempt_failed", "reconcile_scheduled", "reconciled"]),
    "prospect-killed": Scene(
        "lands, and its worker is killed with SIGKILL before the answer",
        [{"after": 8}], 1, ["attempt_lost", "reconcile_scheduled", "reconciled"]),
    "prospect-frozen": Scene(
        f"lands while its worker is frozen, beyond the lease of {LEASE} s, and then let go on",
        [{"before": 2.5}], 1, ["attempt_lost", "reconcile_scheduled", "reconciled", "stale_report"]),
}
REJECTED = "prospect-rejected"
SUBJECTS = [*SCENES, *(f"prospect-{n:02}" for n in range(1, ORDINARY + 1))]

# The workers' role owns nothing: EXECUTE on the functions, for the queues granted to it, is all that a worker needs.
SETUP = f"""
CREATE EXTENSION holdfast;
SELECT holdfast.define_retry_policy('demo', base_delay => '1 s', jitter_window => '500 ms', min_delay => '500 ms',
                                    reconcile_delay => '1 s');
SELECT holdfast.create_queue('revenue', lease => '{LEASE} s', timeout => '{TIMEOUT} s', grace => '500 ms',
                             retry_policy => 'demo');
CREATE ROLE demo_worker;
SELECT holdfast.grant_queue('revenue', 'demo_worker', 'worker');
"""

ENDINGS = """
SELECT l.subject, l.state, d.reason
FROM holdfast.ledger l LEFT JOIN holdfast.dead_job d USING (idempotency_key)"""

# Every attempt that started before a time that an earlier decision about its job had named.
TOO_EARLY = """
SELECT subject, attempt_number FROM (
    SELECT *, max(next_not_before) OVER (PARTITION BY job_id ORDER BY attempt_number, at, event_id
                                         ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS not_before
    FROM holdfast.event) e
WHERE kind = 'action_attempt_started' AND at < not_before"""


class DemoFailed(Exception):
    pass


class Provider:
    """The provider as the demo sees it: its script, and its log of this run's intents."""

    def __init__(self, url):
        self.url, self.keys = url.rstrip("/"), {}

    def ask(self, method, path, body=None):
        request = urllib.request.Request(self.url + path, json.dumps(body).encode() if body else None, method=method)
        with urllib.request.urlopen(request, timeout=10) as reply:
            return reply.read().decode()

    def accepts(self, script):
        try:
            self.ask("PUT", "/script", script)
        except urllib.error.HTTPError as error:
            if error.code not in (404, 405, 501):
                raise
            return False
        return True

    def log(self, what, subject):
        key = self.keys[subject]
        return [line for line in map(json.loads, self.ask("GET", "/log").splitlines())
                if line["what"] == what and line["idempotency_key"] == key]


class Demo:
    def __init__(self):
        self.begin, self.next_progress = time.monotonic(), 0
        self.children = {}          # name -> process
        self.to_catch = {}          # subject -> what the provider must have logged of it, and what is done then
        self.frozen = None          # the worker under SIGSTOP
        self.failures = 0

    def say(self, text):
        print(f"[{time.monotonic() - self.begin:5.1f} s] {text}", flush=True)

    def rows(self, sql, *params):
        return self.database.execute(sql, params).fetchall()

    # ------------------------------------------------------------ processes

    def start(self, name, *command, **options):
        with open(FOLDER / f"{name}.log", "w", encoding="utf-8") as log:
            options = {"stdout": log, "stderr": log} | options
            self.children[name] = subprocess.Popen([sys.executable, *map(str, command)], **options)
        return self.children[name]

    def start_worker(self, name):
        self.start(name, HERE / "worker.py", "revenue", name,
                   env=os.environ | {"PROVIDER": self.provider.url, "PGOPTIONS": "-c role=demo_worker"})

    def start_provider(self):
        if os.environ.get("PROVIDER"):
            return Provider(os.environ["PROVIDER"])
        process = self.start("provider", HERE / "provider.py", "--log", FOLDER / "provider.jsonl",
                             stdout=subprocess.PIPE, text=True)
        return Provider(process.stdout.readline().strip())

    def kill(self, name):
        self.children[name].kill()
        self.children.pop(name).wait()
        self.start_worker("worker-3")
        self.say(f"--> SIGKILL to {name}, in the middle of its request; worker-3 takes its place")

    def freeze(self, name):
        self.children[name].send_signal(signal.SIGSTOP)
        self.frozen = name
        self.say(f"--> SIGSTOP to {name}, in the middle of its request")

    def catch(self):
        """Do what is to be done to a worker at the moment when the provider has got so far with its request."""
        for subject, (what, act) in list(self.to_catch.items()):
            if self.scripted and not self.provider.log(what, subject):
                continue
            worker = self.rows("SELECT worker_name FROM holdfast.job "
                               "WHERE subject = %s AND status = 'running' AND attempt_number = 1", subject)
            if worker:
                act(worker[0][0])
            elif self.rows("SELECT FROM holdfast.event WHERE subject = %s AND worker_result IS NOT NULL", subject):
                if self.scripted:
                    raise DemoFailed(f"the worker of {subject} could not be caught in time; is this machine very busy?")
                self.say(f"--> {subject} was too quick to be caught")
            else:
                continue
            del self.to_catch[subject]

    # ------------------------------------------------------------ waiting

    def wait_for(self, what, condition, seconds=DEADLINE):
        end = min(time.monotonic() + seconds, self.begin + DEADLINE)
        while not condition():
            self.catch()
            for name, process in self.children.items():
                if process.poll() is not None:
                    raise DemoFailed(f"{name} ended by itself:\n" + (FOLDER / f"{name}.log").read_text()[-2000:])
            if time.monotonic() > end:
                raise DemoFailed(f"after {time.monotonic() - self.begin:.0f} s still not: {what}")
            if time.monotonic() > self.next_progress:
                self.progress()
            time.sleep(0.03)

    def progress(self):
        self.next_progress = time.monotonic() + 1
        live = self.rows("SELECT status || ' to ' || mode, count(*) FROM holdfast.job GROUP BY 1 ORDER BY 1")
        unknown = self.rows("SELECT count(*) FROM holdfast.unknown_effect")[0][0]
        ended = len(SUBJECTS) - sum(count for _, count in live)
        self.say(f"{ended:2} of {len(SUBJECTS)} jobs ended, {unknown} effects unknown; "
                 + (", ".join(f"{count} {what}" for what, count in live) or "none live"))

    def ended(self, subject):
        return not self.rows("SELECT FROM holdfast.job WHERE subject = %s", subject)

    # ------------------------------------------------------------ the incident

    def run(self):
        self.provider = self.start_provider()
        self.database = psycopg.connect(autocommit=True)
        self.database.execute(SETUP)
        self.scripted = self.provider.accepts({subject: scene.steps for subject, scene in SCENES.items()})
        self.enqueue()
        self.say(f"provider {self.provider.url}; queue revenue: {len(SUBJECTS)} emails to send")
        if self.scripted:
            for subject, scene in SCENES.items():
                self.say(f"    {subject} {scene.story}")
        else:
            self.say("this provider takes no script: what is left is to kill a worker and freeze one, if there is time")

        self.to_catch = {"prospect-killed": ("landed", self.kill), "prospect-frozen": ("received", self.freeze)}
        self.start_worker("worker-1")
        self.start_worker("worker-2")
        self.wait_for("one worker killed, one frozen", lambda: not self.to_catch)
        if self.frozen:
            self.wait_for("prospect-frozen settled by another worker", lambda: self.ended("prospect-frozen"))
            self.children[self.frozen].send_signal(signal.SIGCONT)
            self.say(f"--> SIGCONT to {self.frozen}; its job has been settled meanwhile, and it does not know")
            # Without a script it may have got its report through before the signal reached it.
            if self.scripted or self.rows(
                    "SELECT FROM holdfast.event WHERE kind = 'action_attempt_lost' AND subject = 'prospect-frozen'"):
                self.wait_for(f"a stale report of {self.frozen} on record", lambda: self.rows(
                    "SELECT FROM holdfast.event WHERE kind = 'action_stale_report' AND worker_name = %s", self.frozen))
        self.wait_for("every job ended", lambda: not self.rows("SELECT FROM holdfast.job"))
        self.progress()
        workers = {name: process for name, process in self.children.items() if name.startswith("worker")}
        for process in workers.values():
            process.terminate()
        status = {name: process.wait(10) for name, process in workers.items()}
        if self.scripted:       # else a worker may have been asked before it was up
            self.expect("the workers ended cleanly on SIGTERM", status, dict.fromkeys(workers, 0))

    def enqueue(self):
        # Another provider keeps its log from run to run: there the intents must be new ones.
        scope = f"campaign-{time.time():.0f}" if os.environ.get("PROVIDER") else "campaign-9"
        jobs = [{"action_key": "send_email", "subject": subject, "scope": scope,
                 "payload": {"to": "nobody" if subject == REJECTED else f"{subject}@example.com"}} for subject in SUBJECTS]
        answers = self.rows("SELECT ordinal, idempotency_key::text, outcome FROM holdfast.enqueue_batch('revenue', %s) "
                            "ORDER BY ordinal", Jsonb(jobs))
        if [outcome for _, _, outcome in answers] != ["created"] * len(SUBJECTS):
            raise DemoFailed(f"enqueue_batch answered {answers}")
        self.provider.keys = {subject: key for subject, (_, key, _) in zip(SUBJECTS, answers)}

    # ------------------------------------------------------------ the end of it

    def show(self):
        query = HERE / "timeline.sql"
        print(f"\nThe timelines:\n\n{query.read_text(encoding='utf-8')}", flush=True)
        for subject, scene in SCENES.items():
            print(f"{subject} {scene.story}" if self.scripted else subject, flush=True)
            subprocess.run(["psql", "-Xq", "-v", f"subject={subject}", "-f", str(query)], check=True)

    def answer(self):
        print("\nThe incident's questions, query by query (docs/runbook.md says how to read the answers):\n", flush=True)
        subprocess.run(["psql", "-Xq", "-f", str(HERE / "questions.sql")], check=True)

    def expect(self, what, found, expected):
        """Compares by name, and says which ones differ."""
        wrong = {name: (found.get(name), expected.get(name)) for name in [*expected, *(found.keys() - expected.keys())]
                 if found.get(name) != expected.get(name)}
        self.failures += len(wrong)
        print(f"{'FAIL' if wrong else 'PASS'}  {what}", flush=True)
        for name, (is_, should) in wrong.items():
            print(f"      {name}: {is_!r}, should be {should!r}", flush=True)

    def check(self):
        received = {subject: self.provider.log("received", subject) for subject in SUBJECTS}
        landed = {subject: len(self.provider.log("landed", subject)) for subject in SUBJECTS}
        endings = self.rows(ENDINGS)
        print("The check, against the provider's own log:\n", flush=True)
        self.expect(f"each effect landed exactly once, and that of {REJECTED} never",
                    landed, {subject: int(subject != REJECTED) for subject in SUBJECTS})
        self.expect("the ledger says so: committed, and failed_terminal for the rejected one",
                    {subject: state for subject, state, _ in endings},
                    {subject: "failed_terminal" if subject == REJECTED else "committed" for subject in SUBJECTS})
        self.expect("only the rejected job is dead, and no effect is left unknown",
                    {subject: "dead" for subject, _, reason in endings if reason}
                    | dict(self.rows("SELECT idempotency_key::text, 'unknown' FROM holdfast.unknown_effect")),
                    {REJECTED: "dead"})
        self.expect("no attempt started before the time that its retry decision had named",
                    {f"{subject}, attempt {number}": "too early" for subject, number in self.rows(TOO_EARLY)}, {})
        tokens = {subject: [int(line["fencing_token"]) for line in lines] for subject, lines in received.items()}
        self.expect("the fencing token rose from request to request", tokens,
                    {subject: sorted(set(of_subject)) for subject, of_subject in tokens.items()})
        if self.scripted:
            self.expect("no subject met more requests than it needed",
                        {subject: len(lines) for subject, lines in received.items()},
                        {subject: SCENES[subject].requests if subject in SCENES else 1 for subject in SUBJECTS})
            kinds = collections.defaultdict(set)
            for subject, kind in self.rows("SELECT DISTINCT subject, kind FROM holdfast.event"):
                kinds[subject].add(kind.removeprefix("action_"))
            self.expect("the evidence of each scene is on record",
                        {subject: sorted(kinds[subject] & set(scene.evidence)) for subject, scene in SCENES.items()},
                        {subject: sorted(scene.evidence) for subject, scene in SCENES.items()})
            times = [datetime.datetime.fromisoformat(line["at"]) for line in received["prospect-limited"]]
            self.expect(f"the rate limit's reset of {RESET} s was kept",
                        {"too early": [str(b - a) for a, b in zip(times, times[1:]) if (b - a).total_seconds() < RESET]},
                        {"too early": []})

    def end(self):
        for process in self.children.values():
            process.kill()      # SIGKILL, since one may be frozen


def main():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    demo = Demo()
    try:
        try:
            demo.run()
        except (DemoFailed, OSError, subprocess.TimeoutExpired, psycopg.Error) as failed:
            print(f"FAIL  {type(failed).__name__}: {failed}", flush=True)
            demo.failures += 1
        if demo.provider.keys:
            demo.show()
            demo.check()
            demo.answer()
    finally:
        demo.end()
    if demo.failures:
        sys.exit(f"\nDEMO FAILED: {demo.failures} of the facts above are not as they should be")
    print(f"\nDEMO PASSED in {time.monotonic() - demo.begin:.0f} s")


if __name__ == "__main__":
    main()
