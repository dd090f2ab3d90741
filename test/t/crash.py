"""A server dies under load, or its connections are cut, again and again (G10); for 001_crash.pl.

	crash.py BINDIR DATA LOG HOST PORT	with CRASH_CYCLES, CRASH_BACKENDS, CRASH_CUTS and SEED in the environment

Prints TAP without a plan.  After each recovery, before anybody may connect, everything that was acknowledged is looked
up, and every job and ledger row that could have changed is compared with the fold of its events.  SIGKILL is not a
power failure: what the operating system was given, it keeps.
"""
import os
import random
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import psycopg
from psycopg.rows import dict_row

sys.path.insert(0, os.path.join(os.path.dirname(__file__), '..', 'model'))
from fold import Oracle
import load
from tap import note, ok

BINDIR, DATA, LOG, HOST, PORT = sys.argv[1:]
CYCLES, BACKENDS, CUTS = (int(os.environ.get(name) or default) for name, default in
                          (('CRASH_CYCLES', 20), ('CRASH_BACKENDS', 5), ('CRASH_CUTS', 100)))
SEED = int(os.environ.get('SEED') or random.SystemRandom().randrange(10 ** 6))


def conninfo(host=HOST):
    return f'host={host} port={PORT} dbname=postgres'


# ---------------------------------------------------------------- the server

def process(pid):
    """Its state and its parent; '', 0 if there is none."""
    try:
        with open(f'/proc/{pid}/stat') as f:
            state, parent = f.read().rpartition(') ')[2].split()[:2]
            return state, int(parent)
    except OSError:
        return '', 0


def postmaster():
    with open(f'{DATA}/postmaster.pid') as f:
        return int(f.readline())


def children(pid):
    return [int(p) for p in os.listdir('/proc') if p.isdigit() and process(p)[1] == pid]


def wait_until(what, condition):
    deadline = time.monotonic() + 180
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f'waited three minutes for {what}')
        time.sleep(0.005)


def exists(pid):
    try:
        os.kill(pid, 0)
        return True
    except ProcessLookupError:
        return False


def kill_server():
    """Every process of it at once: the postmaster is stopped first, so that it starts no other; and all of them are
    waited for, since one that still sits in a write keeps the shared memory in use."""
    pid = postmaster()
    os.kill(pid, signal.SIGSTOP)
    wait_until('the postmaster to stop', lambda: process(pid)[0] == 'T')
    pids = children(pid)
    for p in pids + [pid]:
        os.kill(p, signal.SIGKILL)
    wait_until('the server to be gone', lambda: all(process(p)[0] in ('', 'Z', 'X') for p in pids + [pid]))
    wait_until('the postmaster to be reaped', lambda: not exists(pid))


def start_server():
    subprocess.run([f'{BINDIR}/pg_ctl', 'start', '--silent', '--wait', '--timeout=180', f'--pgdata={DATA}', f'--log={LOG}'], check=True, capture_output=True)


def kill_backend(rng):
    """One backend of a client; the postmaster ends the others, and recovers."""
    def command(pid):
        try:
            with open(f'/proc/{pid}/cmdline') as f:
                return f.read()
        except OSError:
            return ''
    killed = None
    while killed is None:
        pids = children(postmaster())
        try:
            killed = rng.choice([p for p in pids if '[local]' in command(p)])
            os.kill(killed, signal.SIGKILL)
        except (IndexError, ProcessLookupError):	# it has just ended
            killed = None
    wait_until('every process but the postmaster to be gone', lambda: not any(process(p)[1] == postmaster() for p in pids))
    wait_until('the recovery', can_connect)


def can_connect():
    try:
        psycopg.connect(conninfo()).close()
        return True
    except psycopg.OperationalError:
        return False


# ---------------------------------------------------------------- cut connections

class Proxy:
    """Between the clients and the server.  While cutting, one call in twenty is the connection's last: a COMMIT, or a
    call that commits by itself, which the server never sees, sees in part, or carries out unheard."""

    def __init__(self, seed):
        self.random, self.cutting, self.cuts, self.lock = random.Random(seed), False, 0, threading.Lock()
        self.temporary = tempfile.TemporaryDirectory(prefix='cut')
        self.folder = self.temporary.name
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(f'{self.folder}/.s.PGSQL.{PORT}')
        self.listener.listen(50)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client = self.listener.accept()[0]
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(f'{HOST}/.s.PGSQL.{PORT}')
            self.relay(client, server)
        except OSError:
            pass									# as good as a cut
        finally:
            client.close()
            server.close()

    def relay(self, client, server):
        ready, in_transaction = False, False		# ready: the start-up is over
        while True:
            for source in select.select([client, server], [], [])[0]:
                data = source.recv(1 << 16)
                if not data:
                    return
                if source is server:
                    ready = ready or data.endswith((b'Z\0\0\0\5I', b'Z\0\0\0\5T'))
                    client.sendall(data)
                    continue
                commits = b'COMMIT' in data
                if ready and (commits or not in_transaction) and b'BEGIN' not in data and self.is_last():
                    return self.cut(data, server)
                in_transaction = (in_transaction or b'BEGIN' in data) and not (commits or b'ROLLBACK' in data)
                server.sendall(data)

    def is_last(self):
        with self.lock:
            if not self.cutting or self.random.random() >= 0.05:
                return False
            self.cuts += 1
            return True

    def cut(self, data, server):
        how = self.random.choice(['before', 'within', 'at once', 'unheard'])
        if how != 'before':
            server.sendall(data[:len(data) // 2] if how == 'within' else data)
        if how == 'unheard':
            server.recv(1)


# ---------------------------------------------------------------- the run

class Run:
    def __init__(self):
        self.random, self.recovery = random.Random(SEED), []
        self.proxy = Proxy(SEED + 1)
        self.world = load.World(SEED, lambda: conninfo(self.proxy.folder if self.proxy.cutting else HOST))
        self.account = load.Account(self.world, Oracle(), conninfo())

    def crashes(self):
        kinds = ['server'] * CYCLES + ['backend'] * BACKENDS
        self.random.shuffle(kinds)
        for n, kind in enumerate(kinds, 1):
            had = len(self.world.acks)
            time.sleep(0.2 + self.random.random() * 0.8)
            wait_until('load', lambda: len(self.world.acks) > had + 20)
            self.world.gate.clear()
            if kind == 'server':
                kill_server()
            else:
                kill_backend(self.random)
            began = time.monotonic()
            if kind == 'server':
                start_server()
                self.recovery.append(time.monotonic() - began)
            self.account.judged(f'crash {n} ({kind})')
            self.world.gate.set()
            if n % 100 == 0:
                note(f'after {n} of {len(kinds)} crashes: {self.account_so_far()}')

    def cut_connections(self):
        """All go through the proxy from the time on when they lose their connection."""
        if CUTS == 0:
            return
        self.proxy.cutting = True
        with psycopg.connect(conninfo(), autocommit=True) as c:
            c.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()")
        deadline = time.monotonic() + 30 + CUTS
        while self.proxy.cuts < CUTS and time.monotonic() < deadline:
            time.sleep(0.05)
        self.proxy.cutting = False
        ok(self.proxy.cuts >= CUTS, 'connections were cut around COMMIT', self.proxy.cuts)
        self.account.judged(f'after {self.proxy.cuts} cut connections')

    def at_the_end(self):
        self.account.judged('at the end, of the whole history or 20,000 jobs of it', everything=True)
        ok(not self.world.problems, 'no error but lost connections, no wrong answer', *self.world.problems[:10])
        with psycopg.connect(conninfo(), row_factory=dict_row) as c:
            states = {r['idempotency_key']: r['state'] for r in c.execute('SELECT idempotency_key, state FROM holdfast.ledger WHERE parent_key IS NULL')}
            wrong = [f'{key}: landed {self.world.landed[key]} times, ledger {states.get(key)}' for key in self.world.keys
                     if self.world.landed[key] != (states.get(key) == 'committed')]
            twice = [f'{key}: {n} times' for key, n in self.world.landed.items() if isinstance(key, tuple) and n > 1]
            ok(not wrong + twice, 'G6: no effect landed twice, and the ledger says committed of those that landed, and of no other',
               *(wrong + twice)[:10])
            for name, sql in RULES.items():
                rows = c.execute(sql).fetchall()
                ok(not rows, name, *rows[:5])

    def account_so_far(self):
        found_out = sum(n for what, n in list(self.world.tally.items()) if what.startswith('resolved'))
        return (f'{len(self.world.acks)} transitions acknowledged, {self.account.lost} lost, {self.account.doubled} doubled, '
                f'{len(self.account.problems) - self.account.lost - self.account.doubled} rows that are not the fold of their events, '
                f'{found_out} answers lost and found out')

    def figures(self):
        tally, kinds = self.world.tally, {}
        for ack in self.world.acks:
            kinds[ack.what] = kinds.get(ack.what, 0) + 1
        note('acknowledged: ' + ', '.join(f'{n} {what}' for what, n in sorted(kinds.items())))
        note('; '.join(f'{what} {n}' for what, n in sorted(tally.items())))
        ok(tally['answers lost'] > 0, 'answers were lost, and each was found out by the recipe')
        recovery = f', recovery {sum(self.recovery) / len(self.recovery):.2f} s on average, {max(self.recovery):.2f} s at most' if self.recovery else ''
        note(f'figures: {CYCLES} kills of the server, {BACKENDS} of a backend, {self.proxy.cuts} connections cut{recovery}')
        note(f'figures: {self.account_so_far()}')

    def run(self):
        note(f'SEED={SEED} CRASH_CYCLES={CYCLES} CRASH_BACKENDS={BACKENDS} CRASH_CUTS={CUTS}')
        with psycopg.connect(conninfo(), autocommit=True) as c:
            c.execute('CREATE EXTENSION holdfast')
            c.execute(load.SETUP)
        self.world.start()
        self.crashes()
        self.cut_connections()
        load.drain(self.world, conninfo())
        self.at_the_end()
        self.figures()


RULES = {
    'G1: no lease was given twice':
        "SELECT lease_id FROM holdfast.event WHERE kind = 'action_attempt_started' GROUP BY 1 HAVING count(*) > 1",
    'G3: every attempt after another was delayed by policy, or is explained otherwise':
        "SELECT verdict, because FROM holdfast.attempt_pair WHERE verdict IN ('unexplained', 'retry_without_backoff') LIMIT 5",
    'G4: every job has ended well, and says so':
        "SELECT reason, because FROM holdfast.stop_reason WHERE reason NOT IN ('succeeded', 'suppressed', 'cancelled') LIMIT 5",
    'G7: what a worker wrote beside its report stands with the report': '''
        SELECT job_id FROM own_write o WHERE 1 <> (SELECT count(*) FROM holdfast.event e WHERE e.job_id = o.job_id AND
            e.lease_id = o.lease_id AND e.kind = 'action_attempt_succeeded')''',
    'nothing of what was rolled back is there': '''
        SELECT subject FROM holdfast.ledger WHERE subject LIKE 'rolled%' UNION ALL
        SELECT subject FROM holdfast.event WHERE subject LIKE 'rolled%' LIMIT 5''',
}

if __name__ == '__main__':
    Run().run()
