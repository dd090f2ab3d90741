"""Workers that die, and workers that are frozen beyond their lease and go on as if nothing had been (G1, G2, G6).

For 018_frozen.pl: WORKER_KILLS, WORKER_FREEZES and SEED in the environment; prints TAP without a plan.  Each worker is
a process.  It says what it was handed and what it was answered, a line each, on a pipe; SIGKILL and SIGSTOP come while
it is between its claim and its report, or wherever it is then.  The provider knows the idempotency key.
"""
import collections
import ctypes
import json
import os
import random
import select
import signal
import sys
import time

import psycopg
from psycopg.rows import dict_row

sys.path.insert(0, os.path.join(os.path.dirname(__file__), '..', 'model'))
from fold import Oracle
from tap import note, ok

KILLS, FREEZES = (int(os.environ.get(name) or default) for name, default in (('WORKER_KILLS', 150), ('WORKER_FREEZES', 40)))
SEED = int(os.environ.get('SEED') or random.SystemRandom().randrange(10 ** 6))
WORKERS = 8
PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None)
LEASE = 0.3			# seconds
SETUP = """
    CREATE EXTENSION holdfast;
    SELECT holdfast.define_retry_policy('quick', '1 ms', 1, '1 ms', '0', '1 ms', max_attempts => 1000000, max_lost => 1000000,
        reconcile_delay => '1 ms', reconcile_max => 1000000);
    SELECT holdfast.create_queue('mail', lease => '300 ms', timeout => '200 ms', grace => '100 ms', retry_policy => 'quick');
    SELECT holdfast.create_queue('plain', lease => '300 ms', timeout => '200 ms', grace => '100 ms', retry_policy => 'quick', side_effects => false);
    CREATE TABLE own_write (job_id bigint, lease_id uuid);
    CREATE TABLE provider (key uuid PRIMARY KEY)"""

# ---------------------------------------------------------------- a worker

class Worker:
    def __init__(self, number, pipe):
        self.random, self.pipe, self.name = random.Random(SEED * 1000 + number), pipe, f'worker-{number}'
        self.conn = psycopg.connect(autocommit=True, row_factory=dict_row, prepare_threshold=None)

    def say(self, what, job, answer=None):
        os.write(self.pipe, (json.dumps([what, os.getpid(), job['job_id'], str(job['lease_id']), answer]) + '\n').encode())

    def ask(self, job, function, *params):
        """Call a function that reports, and say what it answered."""
        holders = ''.join(', %s' for _ in params)
        row = self.conn.execute(f'SELECT * FROM holdfast.{function}(%s, %s{holders})', (job['job_id'], job['lease_id'], *params)).fetchone()
        answer = next(iter(row.values()))
        self.say(function, job, answer)
        return answer

    def run(self):
        while True:
            queue = self.random.choice(['mail', 'mail', 'plain'])
            jobs = self.conn.execute('SELECT * FROM holdfast.claim(%s, %s, %s)', (queue, self.name, self.random.choice([1, 1, 3]))).fetchall()
            if not jobs:
                time.sleep(0.005)
            for job in jobs:
                self.say('claim', job)
            for job in jobs:
                time.sleep(self.random.random() * 0.004)
                self.work(job)

    def send(self, job):
        self.conn.execute('INSERT INTO provider VALUES (%s) ON CONFLICT DO NOTHING', [job['idempotency_key']])

    def work(self, job):
        if job['attempt_number'] > 1 and self.random.random() < 0.5:
            time.sleep(self.random.random() * 0.12)		# so that whoever was frozen wakes while another has the job
        if job['mode'] == 'reconcile':
            landed = self.conn.execute('SELECT FROM provider WHERE key = %s', [job['idempotency_key']]).fetchone() is not None
            time.sleep(self.random.random() * 0.002)
            if self.ask(job, 'reconcile', 'landed' if landed else 'not_landed') != 'execute':
                return
        elif self.random.random() < 0.1:
            self.ask(job, 'heartbeat')
        self.send(job)
        time.sleep(self.random.random() * 0.002)
        how = self.random.random()
        if how < 0.1:
            self.ask(job, 'fail', 'TimeoutError')
        elif how < 0.2 and job['ledger_state'] is None:
            self.ask(job, 'snooze', '2 ms')
        elif how < 0.3 and job['ledger_state'] is None:
            self.ask(job, 'release')
        elif how < 0.5:
            self.complete_with_own_write(job)
        else:
            if how < 0.6 and job['ledger_state'] is not None and self.ask(job, 'ledger_transition', 'committed') == 'stale':
                time.sleep(0.001)				# a worker that pays no heed
            self.ask(job, 'complete')

    def complete_with_own_write(self, job):
        """Strict: without the lease nothing is written.  The refusal is put on record by the commit."""
        pair = job['job_id'], job['lease_id']
        self.conn.execute('BEGIN; SAVEPOINT before')
        try:
            self.conn.execute('SELECT holdfast.assert_lease(%s, %s)', pair)
            self.conn.execute('INSERT INTO own_write VALUES (%s, %s)', pair)
            answer = self.conn.execute('SELECT holdfast.complete(%s, %s, strict => true) AS answer', pair).fetchone()['answer']
        except psycopg.Error as error:
            if error.sqlstate != 'JQ001':
                raise
            self.conn.execute('ROLLBACK TO before')
            answer = 'JQ001'
        self.conn.execute('COMMIT')
        self.say('own', job, answer)


def fork_worker(number, pipe):
    pid = os.fork()
    if pid == 0:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)		# a frozen one, too, ends with this test
        try:
            Worker(number, pipe).run()
        except BaseException as error:
            os.write(pipe, (json.dumps(['error', os.getpid(), 0, '', f'{type(error).__name__} {error}'[:500]]) + '\n').encode())
        finally:
            os._exit(1)
    return pid


# ---------------------------------------------------------------- their fate

class Supervisor:
    def __init__(self, conn):
        self.conn, self.random, self.number = conn, random.Random(SEED), 0
        self.read, self.write = os.pipe()
        self.lines, self.rest = [], b''
        self.pids, self.frozen = set(), {}			# frozen: pid -> when it goes on
        self.kills = self.freezes = self.enqueued = 0

    def listen(self, seconds):
        """The lines that came."""
        if not select.select([self.read], [], [], seconds)[0]:
            return []
        *lines, self.rest = (self.rest + os.read(self.read, 1 << 16)).split(b'\n')
        lines = [json.loads(line) for line in lines]
        self.lines += lines
        return lines

    def tend(self):
        now = time.monotonic()
        for pid in [p for p, until in self.frozen.items() if now >= until]:
            os.kill(pid, signal.SIGCONT)
            del self.frozen[pid]
        while len(self.pids) < WORKERS:
            self.number += 1
            self.pids.add(fork_worker(self.number, self.write))
        if self.conn.execute('SELECT count(*) AS n FROM holdfast.job').fetchone()['n'] < 100:
            jobs = [{'action_key': 'act', 'subject': f's-{self.enqueued + i}'} for i in range(50)]
            self.enqueued += 50
            self.conn.execute('SELECT FROM holdfast.enqueue_batch(%s, %s)', (self.random.choice(['mail', 'mail', 'plain']), json.dumps(jobs)))

    def bury(self, pid):
        os.waitpid(pid, 0)
        self.pids.discard(pid)
        self.frozen.pop(pid, None)

    def strike(self, line):
        what, pid = line[:2]
        if what == 'error':
            return self.bury(pid)
        if what != 'claim' or pid not in self.pids or pid in self.frozen:
            return
        chance = self.random.random()
        if self.kills < KILLS and chance < 0.25:
            os.kill(pid, signal.SIGKILL)
            self.bury(pid)
            self.kills += 1
        elif self.freezes < FREEZES and chance < 0.5 and len(self.frozen) < WORKERS - 3:
            os.kill(pid, signal.SIGSTOP)
            self.frozen[pid] = time.monotonic() + LEASE * (1.05 + self.random.random())
            self.freezes += 1

    def run(self):
        tended = 0
        while self.kills < KILLS or self.freezes < FREEZES or self.frozen:
            for line in self.listen(0.005):
                self.strike(line)
            if time.monotonic() - tended > 0.01:
                self.tend()
                tended = time.monotonic()

    def drain(self):
        """Until nothing is left to do, with nobody dying."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.conn.execute('SELECT EXISTS (SELECT FROM holdfast.job) AS x').fetchone()['x']:
            for line in self.listen(0.01):
                if line[0] == 'error':
                    self.bury(line[1])
        for pid in list(self.pids):
            os.kill(pid, signal.SIGTERM)
            self.bury(pid)
        while self.listen(0):
            pass


# ---------------------------------------------------------------- judging

# What came after the lease's end was noted, or after the next attempt began, and changed something all the same.  What
# is lost with its ledger committed is noted as succeeded by whoever notes the loss.
ACCEPTED = """
    SELECT r.job_id, r.attempt_number, r.kind FROM holdfast.event r
    WHERE r.kind IN ('action_attempt_succeeded', 'action_attempt_failed', 'action_snoozed', 'action_released', 'action_reconciled', 'action_ledger_changed')
      AND EXISTS (SELECT FROM holdfast.event l WHERE l.job_id = r.job_id AND l.event_id < r.event_id AND
                  (l.kind = 'action_attempt_lost' AND l.lease_id = r.lease_id AND r.detail ->> 'reason' IS DISTINCT FROM 'ledger_committed'
                   OR l.kind = 'action_attempt_started' AND l.attempt_number > r.attempt_number))"""


KINDS = {'complete': 'attempt_succeeded', 'own': 'attempt_succeeded', 'fail': 'attempt_failed', 'snooze': 'snoozed', 'release': 'released',
         'reconcile': 'reconciled', 'ledger_transition': 'ledger_changed'}


def judge(c, supervisor):
    answers = collections.Counter()
    granted = collections.Counter()				# (lease, event kind) -> how often a worker heard that its report counts
    refused = collections.Counter()				# (lease, event kind, function) -> how often a worker heard so
    for what, _, _, lease, answer in supervisor.lines:
        if what == 'claim':
            continue
        answers[f'{what} {answer}'] += 1
        if answer in ('stale', 'JQ001'):
            kind = 'action_stale_report' if answer == 'stale' else 'action_violation'
            refused[lease, kind, what if answer == 'stale' else None] += 1
        elif what in KINDS and answer != 'duplicate':
            granted[lease, 'action_' + KINDS[what]] += 1
    events = collections.Counter((str(r['lease_id']), r['kind'], r['worker_result']) for r in c.execute('''
        SELECT lease_id, kind, worker_result FROM holdfast.event WHERE kind IN ('action_stale_report', 'action_violation')''').fetchall())
    missing = [key for key, n in refused.items() if events[key] < (1 if key[2] == 'heartbeat' else n)]
    ok(answers['error'] == 0 and not any(a.startswith('error') for a in answers), 'no worker met an error', *[a for a in answers if a.startswith('error')])
    ok(not missing, 'G2: each refusal that a worker heard of is on record', *missing[:5])
    stale = sum(refused.values())
    ok(stale > 0, 'and there were some')
    accepted = c.execute(ACCEPTED).fetchall()
    found = collections.Counter((str(r['lease_id']), r['kind']) for r in c.execute('SELECT lease_id, kind FROM holdfast.event_all').fetchall())
    accepted += [f'{kind} under {lease}: told {n} times, on record {found[lease, kind]} times' for (lease, kind), n in granted.items()
                 if found[lease, kind] != n]
    ok(not accepted, 'G2: no stale write was accepted: what was is on record, once, under the lease of who reported it', *accepted[:5])
    findings = c.execute("SELECT count(*) AS n FROM holdfast.finding WHERE kind = 'stale'").fetchone()['n']
    ok(findings >= sum(n for key, n in refused.items() if key[1] == 'action_stale_report' and key[2] != 'heartbeat'), 'G2: each is a finding', findings)
    wrong = c.execute('''SELECT o.* FROM own_write o LEFT JOIN holdfast.event e ON e.job_id = o.job_id AND e.lease_id = o.lease_id
        AND e.kind = 'action_attempt_succeeded' WHERE e.job_id IS NULL''').fetchall()
    ok(not wrong, 'G7: what a worker wrote beside its report stands with the report', *wrong[:5])
    c.execute('BEGIN ISOLATION LEVEL REPEATABLE READ')
    problems, events = Oracle().judge(c)
    c.execute('COMMIT')
    ok(not problems, 'G7: every row is the fold of its events: one holder, each attempt ended under its own lease', *problems[:5])
    left = c.execute('SELECT (SELECT count(*) FROM holdfast.job) AS live, (SELECT count(*) FROM holdfast.dead_job) AS dead').fetchone()
    ok(left == {'live': 0, 'dead': 0}, 'G10: every job came to its end', left)
    wrong = c.execute('''SELECT idempotency_key, state FROM holdfast.ledger l WHERE state <> 'committed' OR NOT EXISTS
        (SELECT FROM provider p WHERE p.key = l.idempotency_key)''').fetchall()
    ok(not wrong, 'G6: every effect has landed, and the ledger says so', *wrong[:5])
    lost = c.execute("SELECT count(*) AS n FROM holdfast.event WHERE kind = 'action_attempt_lost'").fetchone()['n']
    jobs = len({e['job_id'] for e in events})
    note('; '.join(f'{answer} {n}' for answer, n in sorted(answers.items())))
    note(f'figures: {supervisor.kills} workers killed, {supervisor.freezes} frozen beyond their lease, {jobs} jobs, {lost} leases lost')
    note(f'figures: {stale} stale writes refused and told so, {len(accepted)} accepted, {len(missing)} refusals not on record')


def poison(c):
    """A job whose every worker dies of it: attempts count at the claim, and max_lost of them are the last."""
    c.execute('''SELECT holdfast.define_retry_policy('poison', '1 ms', 1, '1 ms', '0', '1 ms', max_attempts => 100, max_lost => 5);
        SELECT holdfast.create_queue('poison', lease => '100 ms', timeout => '50 ms', grace => '50 ms', retry_policy => 'poison', side_effects => false);
        SELECT holdfast.enqueue('poison', 'act', 'poison')''')
    died, deadline = 0, time.monotonic() + 60
    while time.monotonic() < deadline and c.execute('SELECT job_id FROM holdfast.job').fetchone():
        pid = os.fork()
        if pid == 0:
            with psycopg.connect(autocommit=True) as own:
                if own.execute("SELECT * FROM holdfast.claim('poison', 'w')").fetchall():
                    os.kill(os.getpid(), signal.SIGKILL)
            os._exit(0)
        died += os.WIFSIGNALED(os.waitpid(pid, 0)[1])
        time.sleep(0.01)
    dead = c.execute('SELECT reason, attempt_number, losses FROM holdfast.dead_job').fetchall()
    ok(died == 5 and dead == [{'reason': 'crash_loop', 'attempt_number': 5, 'losses': 5}], 'A9: a job of which every worker dies is handed out max_lost times', died, dead)
    ok(not c.execute("SELECT * FROM holdfast.claim('poison', 'w')").fetchall(), 'A9: and not again')


def main():
    note(f'SEED={SEED} WORKER_KILLS={KILLS} WORKER_FREEZES={FREEZES}')
    with psycopg.connect(autocommit=True, row_factory=dict_row) as c:
        c.execute(SETUP)
        supervisor = Supervisor(c)
        supervisor.run()
        supervisor.drain()
        c.execute('VACUUM ANALYZE')
        judge(c, supervisor)
        poison(c)


main()
