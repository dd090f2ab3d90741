"""Workers and producers for 001_crash.pl, and a provider that counts.

	crash.py CONNINFO SEED STOPFILE

Runs until STOPFILE exists, reconnecting whenever the server is gone, then
drains what is left and writes what it was told into tables of the test's own:
what was acknowledged, what was not, and how often each effect landed.  The
provider is this process: an effect lands when a worker says so, and reconcile
asks it.
"""
import os
import random
import sys
import threading
import time

import psycopg

conninfo, seed, stopfile = sys.argv[1], int(sys.argv[2]), sys.argv[3]

landed = {}				# idempotency key -> how often
landed_lock = threading.Lock()
enqueued = []			# (job_id, key, queue, outcome): acknowledged
retried = []			# (first answer lost) outcome of the second enqueue
completed = []			# (job_id, lease_id, answer): acknowledged
lost = []				# (job_id, lease_id, what, answer to its repetition or None)
own = []				# (job_id, lease_id) written in the transaction that completes: acknowledged
problems = []
draining = threading.Event()
finished = threading.Event()


def stopping():
    return os.path.exists(stopfile)


class Client(threading.Thread):
    def __init__(self, number):
        super().__init__(daemon=True)
        self.number = number
        self.random = random.Random(seed * 1000 + number)
        self.conn = None

    def connect(self):
        while True:
            try:
                self.conn = psycopg.connect(conninfo, autocommit=True, connect_timeout=2)
                return
            except psycopg.OperationalError:
                time.sleep(0.02)

    def rows(self, sql, *args):
        return self.conn.execute(sql, args).fetchall()

    def run(self):
        while not self.over():
            try:
                if self.conn is None:
                    self.connect()
                    self.resolve()
                self.step()
            except psycopg.OperationalError as error:
                if not (self.conn.closed or self.conn.broken):
                    problems.append(f'{type(self).__name__}: {error.sqlstate} {error}')
                self.conn.close()
                self.conn = None
            except psycopg.Error as error:
                problems.append(f'{type(self).__name__}: {error.sqlstate} {error}')
                self.conn.close()
                self.conn = None


class Producer(Client):
    counter = 0
    doubtful = None

    def over(self):
        return draining.is_set() and self.doubtful is None

    def enqueue(self, queue, subjects):
        if len(subjects) == 1:
            return self.rows('SELECT job_id, idempotency_key, outcome FROM holdfast.enqueue(%s, %s, %s)',
                             queue, 'act', subjects[0])
        jobs = [{'action_key': 'act', 'subject': s} for s in subjects]
        return self.rows('SELECT job_id, idempotency_key, outcome FROM holdfast.enqueue_batch(%s, %s)',
                         queue, psycopg.types.json.Jsonb(jobs))

    def resolve(self):
        """The answer was lost: the same intents again, which is safe."""
        if self.doubtful:
            queue, subjects = self.doubtful
            for job_id, key, outcome in self.enqueue(queue, subjects):
                retried.append(outcome)
                enqueued.append((job_id, key, queue, outcome))
            self.doubtful = None

    def step(self):
        queue = self.random.choice(['mail', 'mail', 'plain'])
        subjects = [f'{self.number}-{self.counter + i}' for i in range(self.random.choice([1, 1, 1, 10]))]
        self.counter += len(subjects)
        if self.random.random() < 0.2:
            # rolled back: must leave nothing, whatever comes between
            self.conn.execute('BEGIN')
            self.enqueue(queue, ['rolled-back-' + s for s in subjects])
            self.conn.execute('ROLLBACK')
        self.doubtful = (queue, subjects)
        enqueued.extend((job_id, key, queue, outcome) for job_id, key, outcome in self.enqueue(queue, subjects))
        self.doubtful = None
        time.sleep(self.random.random() * 0.01)


class Worker(Client):
    inflight = None			# (what, [(job_id, lease_id)]): sent, not answered
    idle = 0

    def over(self):
        return finished.is_set()

    def resolve(self):
        """A report whose answer was lost is sent again, or is left for the end, when events and outcome() tell."""
        if self.inflight is None:
            return
        what, pairs = self.inflight
        for job_id, lease_id in pairs:
            answer = None
            if what != 'own' and self.random.random() < 0.5:
                answer = self.rows('SELECT holdfast.complete(%s, %s)', job_id, lease_id)[0][0]
                if answer == 'completed':
                    completed.append((job_id, lease_id, answer))
            lost.append((job_id, lease_id, what, answer))
        self.inflight = None

    def land(self, key):
        with landed_lock:
            landed[key] = landed.get(key, 0) + 1

    def complete(self, jobs, how):
        pairs = [(job['job_id'], job['lease_id']) for job in jobs]
        self.inflight = (how, pairs)
        if how == 'complete':
            answers = [self.rows('SELECT holdfast.complete(%s, %s)', *pair)[0][0] for pair in pairs[:1]]
            pairs = pairs[:1]
        elif how == 'batch':
            answers = [row[1] for row in self.rows('SELECT job_id, outcome FROM holdfast.complete_batch(%s, %s)',
                                                   [p[0] for p in pairs], [p[1] for p in pairs])]
        else:
            pairs = pairs[:1]
            self.inflight = (how, pairs)
            self.conn.execute('BEGIN')
            self.conn.execute('SELECT holdfast.assert_lease(%s, %s)', pairs[0])
            self.conn.execute('INSERT INTO own_write VALUES (%s, %s)', pairs[0])
            answers = [self.rows('SELECT holdfast.complete(%s, %s, strict => true)', *pairs[0])[0][0]]
            self.conn.execute('COMMIT')
            own.append(pairs[0])
        self.inflight = None
        completed.extend((job_id, lease_id, answer) for (job_id, lease_id), answer in zip(pairs, answers))

    def claim(self):
        queue = self.random.choice(['mail', 'mail', 'plain'])
        qty = self.random.choice([1, 1, 1, 5])
        cursor = self.conn.execute("""SELECT job_id, lease_id, idempotency_key, mode, side_effects, deadline_at > clock_timestamp() AS in_time
            FROM (SELECT c.*, %s = 'mail' AS side_effects FROM holdfast.claim(%s, %s, %s) c) c""",
                                   (queue, queue, f'worker-{self.number}', qty))
        names = [column.name for column in cursor.description]
        return [dict(zip(names, row)) for row in cursor.fetchall()]

    def step(self):
        jobs = self.claim()
        if not jobs:
            time.sleep(0.01)
        executed = []
        for job in jobs:
            pair = (job['job_id'], job['lease_id'])
            if job['mode'] == 'reconcile':
                self.reconcile(job, pair)
                continue
            chance = 1 if draining.is_set() else self.random.random()
            if chance < 0.08:
                self.conn.execute("SELECT * FROM holdfast.fail(%s, %s, 'Http503', side_effect => 'none')", pair)
            elif chance < 0.12:
                if self.random.random() < 0.5:
                    self.land(job['idempotency_key'])
                self.conn.execute("SELECT * FROM holdfast.fail(%s, %s, 'TimeoutError')", pair)
            elif chance < 0.15:
                self.conn.execute("SELECT * FROM holdfast.snooze(%s, %s, '1 ms')", pair)
            elif chance < 0.18:
                self.conn.execute("SELECT * FROM holdfast.release(%s, %s)", pair)
            elif chance < 0.20:
                if self.random.random() < 0.5:
                    self.land(job['idempotency_key'])		# then the worker dies
            elif job['in_time']:
                if chance < 0.25:
                    self.conn.execute("SELECT * FROM holdfast.heartbeat(%s, %s)", pair)
                self.land(job['idempotency_key'])
                executed.append(job)
        if executed:
            how = self.random.choice(['complete', 'batch', 'own'])
            self.complete(executed, how)
            if how != 'batch':
                for job in executed[1:]:
                    self.complete([job], 'complete')
            if self.random.random() < 0.1:
                answer = self.rows('SELECT holdfast.complete(%s, %s)', executed[0]['job_id'], executed[0]['lease_id'])[0][0]
                if answer not in ('duplicate', 'stale'):
                    problems.append(f'a second complete was answered {answer}')

    def reconcile(self, job, pair):
        with landed_lock:
            finding = 'landed' if landed.get(job['idempotency_key']) else 'not_landed'
        outcome = self.rows('SELECT outcome FROM holdfast.reconcile(%s, %s, %s)', *pair, finding)[0][0]
        if outcome == 'execute':
            self.land(job['idempotency_key'])
            self.complete([job], 'complete')
        elif outcome not in ('done', 'stale'):
            problems.append(f'reconcile {finding} was answered {outcome}')


clients = [Producer(n) for n in range(3)] + [Worker(n) for n in range(10, 15)]
for client in clients:
    client.start()
while not stopping():
    time.sleep(0.02)
draining.set()
until = time.time() + 30
with psycopg.connect(conninfo, autocommit=True) as conn:
    while time.time() < until and (any(c.is_alive() for c in clients if isinstance(c, Producer)) or
                                   conn.execute('SELECT EXISTS (SELECT FROM holdfast.job)').fetchone()[0]):
        time.sleep(0.05)
    finished.set()
    for client in clients:
        client.join(10)
    for name, rows in (('acked_enqueue', enqueued), ('acked_complete', completed), ('lost_answer', lost),
                       ('acked_own', own), ('effect_landed', list(landed.items())),
                       ('retried_enqueue', [(outcome,) for outcome in retried]),
                       ('problem', [(text,) for text in problems])):
        with conn.cursor() as cursor, cursor.copy(f'COPY {name} FROM STDIN') as copy:
            for row in rows:
                copy.write_row(row)
