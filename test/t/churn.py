"""Workers and producers for 002_churn.pl: claim and complete while the schema changes.

	churn.py CONNINFO SEED STOPFILE [reconnect]

Every statement is prepared by name, as drivers do, so that plans outlive what
they were made for.  Errors are counted by SQLSTATE and text into table problem
at the end; with "reconnect" a client makes a new connection after an error,
else it goes on with the one it has.  Jobs are checked by the caller: a client
notes what was acknowledged in tables that no DROP EXTENSION touches.
"""
import os
import random
import sys
import threading
import time

import psycopg

conninfo, seed, stopfile = sys.argv[1], int(sys.argv[2]), sys.argv[3]
reconnect = 'reconnect' in sys.argv[4:]
problems = {}
enqueued = []			# job_id, time of its commit
started = {}			# job_id -> first claim
completed = []
stop = threading.Event()


class Client(threading.Thread):
    def __init__(self, number):
        super().__init__(daemon=True)
        self.number = number
        self.random = random.Random(seed * 1000 + number)

    def connect(self):
        return psycopg.connect(conninfo, autocommit=True, prepare_threshold=0)

    def run(self):
        conn = self.connect()
        while not self.over():
            try:
                self.step(conn)
            except psycopg.Error as error:
                key = (error.sqlstate or 'none', str(error).split('\n')[0])
                problems[key] = problems.get(key, 0) + 1
                if conn.closed or conn.broken or reconnect:
                    conn.close()
                    conn = self.connect()
                elif conn.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                    conn.execute('ROLLBACK')
                time.sleep(0.005)
        conn.close()


class Producer(Client):
    """Holds its transaction open for 20 ms after the enqueue."""
    n = 0

    def over(self):
        return stop.is_set()

    def step(self, conn):
        self.n += 1
        conn.execute('BEGIN')
        job_id = conn.execute('SELECT job_id FROM holdfast.enqueue(%s, %s, %s)',
                              ('churn', 'act', f'{self.number}-{self.n}-{time.time_ns()}')).fetchone()[0]
        time.sleep(0.02)
        conn.execute('COMMIT')
        enqueued.append((job_id, time.time()))


class Worker(Client):
    held = ()
    drained = 0

    def over(self):
        return stop.is_set() and self.drained > 20

    def step(self, conn):
        self.held = ()
        if self.random.random() < 0.5:
            jobs = conn.execute('SELECT job_id, lease_id FROM holdfast.claim(%s, %s, %s)', ('churn', f'w{self.number}', 3)).fetchall()
        else:
            jobs = conn.execute('SELECT job_id, lease_id FROM holdfast.complete_and_claim(%s, %s, %s, %s, %s) WHERE kind = %s',
                                ('churn', f'w{self.number}', [], [], 1, 'claimed')).fetchall()
        now = time.time()
        for job_id, lease_id in jobs:
            started.setdefault(job_id, now)
        self.drained = 0 if jobs else self.drained + 1
        for job_id, lease_id in jobs:
            chance = self.random.random()
            if chance < 0.1:
                conn.execute('SELECT * FROM holdfast.heartbeat(%s, %s)', (job_id, lease_id))
            if chance > 0.95:
                conn.execute('SELECT * FROM holdfast.snooze(%s, %s, %s)', (job_id, lease_id, '1 ms'))
                continue
            answer = conn.execute('SELECT holdfast.complete(%s, %s)', (job_id, lease_id)).fetchone()[0]
            completed.append((job_id, answer))
        if not jobs:
            time.sleep(0.002)


clients = [Producer(n) for n in range(4)] + [Worker(n) for n in range(10, 14)]
for client in clients:
    client.start()
while not os.path.exists(stopfile):
    time.sleep(0.02)
stop.set()
for client in clients:
    client.join(20)
waits = sorted(started[job_id] - at for job_id, at in enqueued if job_id in started)
with psycopg.connect(conninfo, autocommit=True) as conn:
    for name, rows in (('acked_enqueue', enqueued), ('acked_complete', completed),
                       ('problem', [(state, text, n) for (state, text), n in problems.items()]),
                       ('wait', [(w * 1000,) for w in waits])):
        with conn.cursor() as cursor, cursor.copy(f'COPY {name} FROM STDIN') as copy:
            for row in rows:
                copy.write_row(row)
