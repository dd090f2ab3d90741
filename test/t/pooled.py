#!/usr/bin/python3
"""Workers and producers behind a pooler in transaction mode, for 015_pooled.pl.

pooled.py CONNINFO JOBS: every statement may go to another backend.  Each
answer is compared with what the call must answer; at the end every job has
been settled once.  Prints what went wrong, and the number of calls.
"""
import collections
import sys
import threading
import time

import psycopg

conninfo, jobs = sys.argv[1], int(sys.argv[2])
CLIENTS = 8
wrong = []
calls = collections.Counter()
backends = set()
lock = threading.Lock()


class Client(threading.Thread):
    def __init__(self, number):
        super().__init__()
        self.number = number
        self.db = psycopg.connect(conninfo, autocommit=True, prepare_threshold=None)

    def ask(self, sql, *values):
        row = self.db.execute(sql, values).fetchone()
        with lock:
            calls[sql.split('holdfast.')[1].split('(')[0]] += 1
        return row

    def expect(self, wanted, sql, *values):
        row = self.ask(sql, *values)
        if row is None or row[0] != wanted:
            wrong.append(f'{sql}: {row} instead of {wanted}')

    def run(self):
        try:
            for n in range(jobs // CLIENTS):
                self.expect('created', "SELECT outcome FROM holdfast.enqueue('mail', 'send', %s)", f'{self.number}-{n}')
                self.expect('duplicate', "SELECT outcome FROM holdfast.enqueue('mail', 'send', %s)", f'{self.number}-{n}')
            idle = 0
            while idle < 50:
                time.sleep(0.002 * bool(idle))
                backends.add(self.db.execute('SELECT pg_backend_pid()').fetchone()[0])
                row = self.ask("SELECT job_id, lease_id, subject, mode, attempt_number FROM holdfast.claim('mail', %s)", f'w{self.number}')
                idle = 0 if row else idle + 1
                if row:
                    self.work(*row)
        except Exception as error:
            wrong.append(f'client {self.number}: {error!r}')

    def work(self, job, lease, subject, mode, attempt):
        held = (job, lease)
        self.expect('extended', 'SELECT outcome FROM holdfast.heartbeat(%s, %s)', *held)
        self.expect(True, 'SELECT validate_lease FROM holdfast.validate_lease(%s, %s)', *held)
        self.expect('running', 'SELECT outcome FROM holdfast.outcome(%s, %s)', *held)
        kind = (int(subject.split('-')[1]) + attempt) % 6 if mode == 'execute' else 'reconcile'
        if kind == 0:
            self.expect('ok', "SELECT outcome FROM holdfast.ledger_transition(%s, %s, 'started', 'part')", *held)
            self.expect('part', 'SELECT effect FROM holdfast.effects(%s, %s)', *held)
            self.expect('ok', "SELECT outcome FROM holdfast.ledger_transition(%s, %s, 'committed', 'part')", *held)
            self.expect('completed', 'SELECT holdfast.complete(%s, %s)', *held)
            self.expect('duplicate', 'SELECT holdfast.complete(%s, %s)', *held)
        elif kind == 1:
            self.expect('retry', "SELECT decision FROM holdfast.fail(%s, %s, 'Boom', side_effect => 'none')", *held)
        elif kind == 2:
            self.expect('snoozed', "SELECT decision FROM holdfast.snooze(%s, %s, '1 ms')", *held)
        elif kind == 3:
            self.expect('reconcile', "SELECT decision FROM holdfast.fail(%s, %s, 'TimeoutError')", *held)
        elif kind == 'reconcile':
            self.expect('done', "SELECT outcome FROM holdfast.reconcile(%s, %s, 'landed')", *held)
        elif kind == 4:     # its own rows and the job, in one transaction
            with self.db.transaction():
                self.ask('SELECT holdfast.assert_lease(%s, %s)', *held)
                self.db.execute('INSERT INTO sent VALUES (%s)', (subject,))
                self.expect('completed', 'SELECT holdfast.complete(%s, %s, strict => true)', *held)
        else:
            rows = self.db.execute("SELECT kind, outcome, job_id, lease_id, subject, mode, attempt_number FROM holdfast.complete_and_claim('mail', 'w', "
                                   "ARRAY[%s]::bigint[], ARRAY[%s]::uuid[])", held).fetchall()
            calls['complete_and_claim'] += 1
            if rows[0][1] != 'completed':
                wrong.append(f'complete_and_claim: {rows}')
            for row in rows[1:]:
                self.work(*row[2:])


# A claim is known to its own transaction, and not to the next one on the same backend.
with psycopg.connect(conninfo, autocommit=True, prepare_threshold=None) as db:
    db.execute("SELECT * FROM holdfast.enqueue('mail', 'send', 'first')")
    try:
        with db.transaction():
            job = db.execute("SELECT job_id, lease_id FROM holdfast.claim('mail', 'w')").fetchone()
            db.execute('SELECT holdfast.complete(%s, %s)', job)
        wrong.append('G7: settled in the transaction of the claim')
    except psycopg.Error as error:
        if error.sqlstate != 'JQ008':
            wrong.append(f'instead of JQ008: {error}')
    job = db.execute("SELECT job_id, lease_id FROM holdfast.claim('mail', 'w')").fetchone()
    if db.execute('SELECT holdfast.complete(%s, %s)', job).fetchone()[0] != 'completed':
        wrong.append('the claim after one that was rolled back')

clients = [Client(n) for n in range(CLIENTS)]
for client in clients:
    client.start()
for client in clients:
    client.join()
for line in wrong[:20]:
    print(line)
print(f'{sum(calls.values())} calls of {len(calls)} functions by {CLIENTS} clients over {len(backends)} backends')
sys.exit(1 if wrong or len(backends) < 2 else 0)
