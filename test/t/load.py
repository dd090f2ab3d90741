"""Clients for tests that take their server, or their connection, away.

Each keeps account of what it was told (Ack), and of the one call whose answer it is waiting for.  Where the answer is
lost it finds out by the recipe of docs/operating.md: an enqueue is repeated, a report is repeated or outcome() is asked
first, a claim is made anew.  Account.judge() compares the account with the record.

The provider is here too: an effect lands when a worker says so before its deadline, and reconcile asks whether it has.
What is sent after a lease's end only a provider can refuse, so a worker that is late sends nothing.
"""
import collections
import random
import threading
import time

import psycopg
from psycopg.types.json import Jsonb

from tap import ok

TIMEOUT = 0.6		# seconds: an attempt's, of both queues
SETUP = """
    SELECT holdfast.define_retry_policy('quick', '1 ms', 1, '1 ms', '0', '1 ms', max_attempts => 1000000, max_lost => 1000000,
        reconcile_delay => '1 ms', reconcile_max => 1000000);
    SELECT holdfast.create_queue('mail', lease => '1 s', timeout => '600 ms', grace => '300 ms', retry_policy => 'quick');
    SELECT holdfast.create_queue('plain', lease => '1 s', timeout => '600 ms', grace => '300 ms', retry_policy => 'quick', side_effects => false);
    SELECT holdfast.define_stream(queue, 'flow', threshold => 2, cool_down => '100 ms') FROM unnest(ARRAY['mail', 'plain']) AS queue;
    CREATE TABLE own_write (job_id bigint, lease_id uuid)"""

# what: created, started, ended, changed, beaten, refused, own, cancel_requested, cancelled, redriven, settled
Ack = collections.namedtuple('Ack', 'what job_id lease_id told')
ENDS = {'complete': 'attempt_succeeded', 'fail': 'attempt_failed', 'schedule_retry': 'attempt_failed', 'snooze': 'snoozed',
        'release': 'released', 'reconcile': 'reconciled'}
OUTCOMES = {'complete': 'completed', 'fail': 'failed', 'schedule_retry': 'failed', 'snooze': 'snoozed', 'release': 'released',
            'reconcile': 'reconciled'}


class World:
    """What the clients share."""

    def __init__(self, seed, conninfo):
        self.seed, self.conninfo = seed, conninfo
        self.gate = threading.Event()			# closed: nobody connects
        self.gate.set()
        self.draining, self.finished = threading.Event(), threading.Event()
        self.acks, self.problems, self.tally = [], [], collections.Counter()
        self.keys = {}							# of jobs with side effects: idempotency_key -> True
        self.landed, self.lock = collections.Counter(), threading.Lock()

    def problem(self, what):
        self.problems.append(what)

    def land(self, effect, deadline):
        """Whether it was sent: not after the attempt's deadline, which is before the lease's end."""
        with self.lock:
            if time.monotonic() >= deadline:
                return False
            self.landed[effect] += 1
            return True

    def has_landed(self, effect):
        with self.lock:
            return self.landed[effect] > 0

    def start(self, producers=3, workers=6, operators=1):
        kinds = [Producer] * producers + [Worker] * workers + [Operator] * operators
        self.clients = [kind(self, n) for n, kind in enumerate(kinds)]
        for client in self.clients:
            client.start()


class Report:
    """One call about one lease: what it does, how it is made, and what its effect is about."""

    def __init__(self, what, job, sql, *params, about=None):
        self.what, self.job_id, self.lease_id, self.sql, self.params, self.about = what, job['job_id'], job['lease_id'], sql, params, about


class Client(threading.Thread):
    def __init__(self, world, number):
        super().__init__(daemon=True)
        self.world, self.number = world, number
        self.random = random.Random(world.seed * 1000 + number)
        self.conn, self.waiting = None, None	# waiting: what was sent and not answered

    def connect(self):
        while True:
            self.world.gate.wait()
            try:
                self.conn = psycopg.connect(self.world.conninfo(), autocommit=True, connect_timeout=5, prepare_threshold=2)
                return
            except psycopg.OperationalError:
                time.sleep(0.02)

    def rows(self, sql, *args):
        return self.conn.execute(sql, args).fetchall()

    def dicts(self, sql, *args):
        cursor = self.conn.execute(sql, args)
        names = [column.name for column in cursor.description]
        return [dict(zip(names, row)) for row in cursor.fetchall()]

    def ack(self, what, job_id, lease_id=None, told=None):
        self.world.acks.append(Ack(what, job_id, lease_id, told))

    def run(self):
        while not (self.over() and self.waiting is None):
            try:
                if self.conn is None:
                    self.connect()
                if self.waiting is not None:
                    self.world.tally['answers lost'] += 1
                    self.resolve(self.waiting)
                    self.waiting = None
                else:
                    self.step()
            except psycopg.Error as error:
                if not (self.conn.closed or self.conn.broken):
                    self.world.problem(f'{type(self).__name__}: {error.sqlstate} {error}')
                    self.waiting = None
                self.conn.close()
                self.conn = None
            except Exception as error:			# of the test itself
                self.world.problem(f'{type(self).__name__}: {type(error).__name__} {error}')
                raise

    def resolved(self, how):
        self.world.tally[f'resolved: {how}'] += 1


class Producer(Client):
    counter = 0
    BACKLOG = 300		# live jobs; with more of them the workers catch up first, since the account compares every one each time

    def __init__(self, world, number):
        super().__init__(world, number)
        self.known, self.full = collections.defaultdict(list), False

    def over(self):
        return self.world.draining.is_set()

    def enqueue(self, queue, subjects):
        if len(subjects) == 1:
            stream, seconds = self.random.choice(['flow'] + [None] * 5), self.random.choice([1, 5] + [None] * 18)
            return self.rows("""SELECT job_id, idempotency_key, outcome FROM holdfast.enqueue(%s, %s, %s, stream => %s,
                give_up_at => clock_timestamp() + %s * interval '1 s')""", queue, 'act', subjects[0], stream, seconds)
        return self.rows('SELECT job_id, idempotency_key, outcome FROM holdfast.enqueue_batch(%s, %s)', queue,
                         Jsonb([{'action_key': 'act', 'subject': s} for s in subjects]))

    def told(self, queue, rows):
        for job_id, key, outcome in rows:
            if queue == 'mail':
                self.world.keys[key] = True
            if outcome == 'created':
                self.ack('created', job_id)
            elif outcome not in ('duplicate', 'already_committed', 'unknown_effect', 'dead'):
                self.world.problem(f'an enqueue was answered {outcome}')

    def resolve(self, waiting):
        """The same intents again, which is safe (G5)."""
        queue, subjects = waiting
        rows = self.enqueue(queue, subjects)
        self.told(queue, rows)
        self.resolved('enqueue had not arrived' if all(row[2] == 'created' for row in rows) else 'enqueue had arrived')

    def step(self):
        if self.full or self.random.random() < 0.05:
            self.full = self.rows('SELECT count(*) FROM holdfast.job')[0][0] > self.BACKLOG
        if self.full:
            time.sleep(0.05)
            return
        queue = self.random.choice(['mail', 'mail', 'plain'])
        subjects = [f'{queue}-{self.number}-{self.counter + i}' for i in range(self.random.choice([1, 1, 1, 4, 10]))]
        how = self.random.random()
        if how < 0.1 and self.known[queue]:			# an intent that was known before
            subjects = [self.random.choice(self.known[queue][-100:])]
        else:
            self.counter += len(subjects)
        if how > 0.85:								# leaves nothing, whatever comes between
            self.conn.execute('BEGIN')
            self.enqueue(queue, ['rolled-back-' + s for s in subjects])
            self.conn.execute('ROLLBACK')
        elif how > 0.6:								# one transaction of several
            self.conn.execute('BEGIN')
            rows = [row for s in subjects for row in self.enqueue(queue, [s])]
            self.waiting = queue, subjects
            self.conn.execute('COMMIT')
            self.told(queue, rows)
        else:
            self.waiting = queue, subjects
            self.told(queue, self.enqueue(queue, subjects))
            self.known[queue].append(subjects[0])
        self.waiting = None
        time.sleep(self.random.random() * 0.01)


class Worker(Client):
    def over(self):
        return self.world.finished.is_set()

    # reports, and the recipe

    def send(self, report):
        """The answer's row, which is kept account of."""
        self.waiting = [report]
        row = self.rows(report.sql, report.job_id, report.lease_id, *report.params)[0]
        self.told(report, row)
        self.waiting = None
        return row

    def told(self, report, row, repeated=False):
        answer = row[0]
        if answer == 'stale':
            self.ack('refused', report.job_id, report.lease_id, 'action_stale_report')
        elif answer == 'duplicate' and report.what == 'transition':
            self.ack('changed', report.job_id, report.lease_id, report.about)
        elif answer == 'duplicate':
            self.ack('refused', report.job_id, report.lease_id, 'action_duplicate_report')
            self.ack('ended', report.job_id, report.lease_id, (report.what, report.about))
            if not repeated:
                self.world.problem(f'the first {report.what} of a lease was answered duplicate')
        elif answer in ('conflict', 'unknown_job'):
            self.world.problem(f'{report.what} was answered {answer}')
        elif report.what == 'transition':
            self.ack('changed', report.job_id, report.lease_id, report.about)
        elif report.what == 'heartbeat':
            self.ack('beaten', report.job_id, report.lease_id, row[1])
        else:
            self.ack('ended', report.job_id, report.lease_id, (report.what, report.about))

    def resolve(self, waiting):
        for report in list(waiting):
            if report is not None:
                self.resolve_report(report)
                waiting.remove(report)				# if the connection goes again, from here on
            else:
                self.resolved('claim made anew')

    def resolve_report(self, report):
        if report.what in OUTCOMES and self.random.random() < 0.5:
            outcome = self.rows('SELECT outcome FROM holdfast.outcome(%s, %s)', report.job_id, report.lease_id)[0][0]
            if outcome == OUTCOMES[report.what] or outcome == 'failed' and report.what in ('snooze', 'release'):
                self.ack('ended', report.job_id, report.lease_id, (report.what, report.about))
                return self.resolved('outcome() says that it had arrived')
            if outcome in ('lost', 'cancelled'):
                return self.resolved(f'outcome() says {outcome}')
            if outcome != 'running':
                self.world.problem(f'outcome() of a {report.what} says {outcome}')
        try:
            row = self.rows(report.sql, report.job_id, report.lease_id, *report.params)[0]
        except psycopg.Error as error:
            if error.sqlstate != 'JQ004' or report.what != 'transition':
                raise
            return self.resolved('the repetition of a transition is refused')
        self.told(report, row, repeated=True)
        self.resolved('repeated, and it had arrived' if row[0] == 'duplicate' else 'repeated, and the lease was over' if row[0] == 'stale'
                      else 'repeated, and it took effect once')

    # work

    def claim(self, finished=()):
        """Claims, and with the same call reports what is finished."""
        queue, qty = self.random.choice(['mail', 'mail', 'plain']), self.random.choice([1, 1, 1, 5])
        reports = [complete(job) for job in finished]
        self.waiting = reports + [None]
        sent = time.monotonic()
        if finished:
            rows = self.dicts('SELECT * FROM holdfast.complete_and_claim(%s, %s, %s, %s, %s)', queue, f'worker-{self.number}',
                              [job['job_id'] for job in finished], [job['lease_id'] for job in finished], qty)
            for report, row in zip(reports, [r for r in rows if r['kind'] == 'completed']):
                self.told(report, [row['outcome']])
            rows = [r for r in rows if r['kind'] == 'claimed']
        elif self.random.random() < 0.2:
            rows = self.dicts('SELECT * FROM holdfast.claim_any(%s, %s, %s)', ['plain', 'mail'], f'worker-{self.number}', qty)
        else:
            rows = self.dicts('SELECT * FROM holdfast.claim(%s, %s, %s)', queue, f'worker-{self.number}', qty)
        for job in rows:
            job['deadline'] = sent + TIMEOUT
            self.ack('started', job['job_id'], job['lease_id'], (job['attempt_number'], int(job['fencing_token']), job['mode']))
        self.waiting = None
        return rows

    def step(self):
        jobs = self.claim()
        if not jobs:
            time.sleep(0.01)
        while jobs:
            finished = [job for job in jobs if self.work(job)]
            if not finished:
                return
            how = self.random.random()
            if how < 0.3 and not self.world.finished.is_set():
                jobs = self.claim(finished)
                continue
            if how < 0.5:
                self.complete_batch(finished)
            elif how < 0.7:
                for job in finished:
                    self.complete_with_own_write(job)
                return
            else:
                for job in finished:
                    self.send(complete(job))
            if self.random.random() < 0.1:
                self.repeat(finished[0])
            return

    def repeat(self, job):
        answer = self.rows('SELECT holdfast.complete(%s, %s)', job['job_id'], job['lease_id'])[0][0]
        if answer not in ('duplicate', 'stale'):
            self.world.problem(f'a second complete was answered {answer}')

    def complete_batch(self, jobs):
        reports = [complete(job) for job in jobs]
        self.waiting = list(reports)
        rows = self.rows('SELECT outcome FROM holdfast.complete_batch(%s, %s)', [j['job_id'] for j in jobs], [j['lease_id'] for j in jobs])
        for report, row in zip(reports, rows):
            self.told(report, row)
        self.waiting = None

    def complete_with_own_write(self, job):
        """The worker's own row, in the transaction that completes: with the lease, or not at all."""
        report, pair = complete(job), (job['job_id'], job['lease_id'])
        try:
            self.conn.execute('BEGIN')
            self.conn.execute('SELECT holdfast.assert_lease(%s, %s)', pair)
            self.conn.execute('INSERT INTO own_write VALUES (%s, %s)', pair)
            row = self.rows('SELECT holdfast.complete(%s, %s, strict => true)', *pair)[0]
            self.waiting = [report]
            self.conn.execute('COMMIT')
        except psycopg.Error as error:
            if error.sqlstate != 'JQ001':
                raise
            self.conn.execute('ROLLBACK')
            return
        self.told(report, row)
        self.ack('own', *pair)
        self.waiting = None

    def work(self, job):
        """True: it is to be completed."""
        if job['mode'] == 'reconcile':
            return self.reconcile(job)
        if job['ledger_state'] is None:
            key = None
        else:
            key = job['idempotency_key']
        chance = 1 if self.world.draining.is_set() else self.random.random()
        if chance < 0.06:
            self.send(Report('fail', job, "SELECT decision FROM holdfast.fail(%s, %s, 'Http503', side_effect => 'none')"))
        elif chance < 0.07:
            self.send(Report('fail', job, "SELECT decision FROM holdfast.fail(%s, %s, 'ValidationError', 'no such address')"))
        elif chance < 0.10:
            self.send(Report('schedule_retry', job, "SELECT decision FROM holdfast.schedule_retry(%s, %s, '2 ms', side_effect => 'none')"))
        elif chance < 0.14:
            if self.random.random() < 0.5:
                self.world.land(key, job['deadline'])
            self.send(Report('fail', job, "SELECT decision FROM holdfast.fail(%s, %s, 'TimeoutError')"))
        elif chance < 0.17:
            self.send(Report('snooze', job, "SELECT decision FROM holdfast.snooze(%s, %s, '3 ms')"))
        elif chance < 0.20:
            self.send(Report('release', job, 'SELECT decision FROM holdfast.release(%s, %s)'))
        elif chance < 0.22:
            if self.random.random() < 0.5:
                self.world.land(key, job['deadline'])		# then the worker dies
        elif chance < 0.32 and key is not None:
            return self.work_in_parts(job, key, chance)
        else:
            if chance < 0.40:
                self.send(Report('heartbeat', job, 'SELECT outcome, lease_expires_at FROM holdfast.heartbeat(%s, %s)'))
            return key is None or self.world.land(key, job['deadline'])
        return False

    def transition(self, job, to_state, effect):
        return self.send(Report('transition', job, 'SELECT outcome FROM holdfast.ledger_transition(%s, %s, %s, %s)', to_state, effect,
                                about=(effect, to_state)))[0] in ('ok', 'duplicate')

    def work_in_parts(self, job, key, chance):
        """A child effect before the action, or the action noted as committed before it is reported."""
        if chance < 0.29:
            state = (job['effects'] or {}).get('charge', {}).get('state')
            if state != 'committed':
                if not self.transition(job, 'started', 'charge'):
                    return False
                landed = self.random.random() < 0.7 and self.world.land((key, 'charge'), job['deadline'])
                if self.random.random() < 0.3:			# and what became of it this worker does not hear
                    self.send(Report('fail', job, "SELECT decision FROM holdfast.fail(%s, %s, 'TimeoutError', side_effect => 'none')"))
                    return False
                if not self.transition(job, 'committed' if landed else 'failed_retryable', 'charge'):
                    return False
            return self.world.land(key, job['deadline'])
        if not self.world.land(key, job['deadline']) or not self.transition(job, 'committed', None):
            return False
        if self.random.random() < 0.5:
            self.send(Report('fail', job, "SELECT decision FROM holdfast.fail(%s, %s, 'Late')"))		# ends as succeeded all the same
            return False
        return True

    def reconcile(self, job):
        key = job['idempotency_key']
        unknown = [effect for effect, e in (job['effects'] or {}).items() if e['state'] == 'unknown']
        unknown += [None] if job['ledger_state'] == 'unknown' else []
        for effect in unknown:
            finding = 'landed' if self.world.has_landed((key, effect) if effect else key) else 'not_landed'
            if self.random.random() < 0.05 and not self.world.draining.is_set():
                finding = 'undetermined'
            sent = time.monotonic()
            answer = self.send(Report('reconcile', job, 'SELECT outcome FROM holdfast.reconcile(%s, %s, %s, effect => %s)', finding, effect,
                                      about=(finding, effect)))[0]
            if answer == 'execute':
                return self.world.land(key, sent + TIMEOUT)
            if answer not in ('reconcile', 'done', 'retry', 'dead', 'stale'):
                self.world.problem(f'reconcile {finding} was answered {answer}')
            if answer != 'reconcile':
                return False
        return False


def complete(job):
    return Report('complete', job, 'SELECT holdfast.complete(%s, %s)')


class Operator(Client):
    """Cancels, and puts right what stopped.  An answer that is lost needs no finding out: the next look shows what is there."""

    def over(self):
        return self.world.finished.is_set()

    def resolve(self, waiting):
        self.world.tally[f'unanswered {waiting[0]}'] += 1
        self.resolved('an operator looks again')

    def call(self, what, job_id, sql, *params):
        self.waiting = what, job_id
        try:
            answer = self.rows(sql, *params)[0][0]
        except psycopg.Error as error:
            if error.sqlstate not in ('JQ004', '42704'):
                raise
            answer = 'refused'
        if what == 'cancel' and answer == 'requested':
            self.ack('cancel_requested', job_id)
        elif answer not in ('refused', 'unknown_job'):
            self.ack({'cancel': 'cancelled', 'redrive': 'redriven', 'settle': 'settled'}[what], job_id)
        self.waiting = None

    def step(self):
        chance = self.random.random()
        # whom an operator ended may be sending still, until its deadline
        over = "clock_timestamp() - interval '1 s'"
        if chance < 0.25:
            self.conn.execute('SELECT * FROM holdfast.maintain()')
        elif chance < 0.5 and not self.world.draining.is_set():
            for row in self.rows("SELECT job_id FROM holdfast.job WHERE status = 'running' OR random() < 0.1 ORDER BY random() LIMIT 1"):
                self.call('cancel', row[0], 'SELECT holdfast.cancel(%s, %s, %s)', row[0], 'a test', self.random.random() < 0.4)
        elif chance < 0.75:
            for row in self.rows(f'SELECT job_id FROM holdfast.dead_job WHERE ended_at < {over} LIMIT 10'):
                self.call('redrive', row[0], "SELECT outcome FROM holdfast.redrive(%s, 'a test')", row[0])
        else:
            for key, job_id in self.rows(f'''SELECT idempotency_key, job_id FROM holdfast.unknown_effect u WHERE since < {over}
                    AND EXISTS (SELECT FROM holdfast.ledger l WHERE l.idempotency_key = u.idempotency_key AND parent_key IS NULL) LIMIT 1'''):
                self.call('settle', job_id, "SELECT state FROM holdfast.settle_unknown(%s, %s, '{}', 'a test')", key,
                          'landed' if self.world.has_landed(key) else 'not_landed')
        time.sleep(0.02)


# what would not drain: three of each, their intents' ledger rows, and the latest events of each intent
LEFT = '''
    WITH l(place, job_id, key, what) AS (
        (SELECT 'job', job_id, idempotency_key, to_jsonb(j) FROM holdfast.job j LIMIT 3) UNION ALL
        (SELECT 'dead_job', job_id, idempotency_key, to_jsonb(d) FROM holdfast.dead_job d LIMIT 3) UNION ALL
        (SELECT 'unknown_effect', job_id, idempotency_key, to_jsonb(u) FROM holdfast.unknown_effect u LIMIT 3)),
    keys AS (SELECT DISTINCT coalesce(parent_key, key) AS key FROM l LEFT JOIN holdfast.ledger ON idempotency_key = key),
    lines AS (SELECT place, what FROM l UNION ALL
        SELECT 'ledger', to_jsonb(w) FROM holdfast.ledger w JOIN keys ON key IN (w.idempotency_key, w.parent_key) UNION ALL
        SELECT 'event', to_jsonb(e) FROM keys CROSS JOIN LATERAL
            (SELECT * FROM holdfast.event e WHERE e.idempotency_key = key ORDER BY event_id DESC LIMIT 12) e)
    SELECT place || ' ' || jsonb_strip_nulls(what) FROM lines'''


def drain(world, conninfo):
    """Liveness: with nothing in the way everything comes to its end, and the clients too."""
    world.draining.set()
    left, deadline = None, time.monotonic() + 300	# of a slow machine, too
    with psycopg.connect(conninfo, autocommit=True) as c:
        while time.monotonic() < deadline:
            # a dead job whose intent was entered again, and has landed, stays where it is: nothing is left to redrive
            left = c.execute("""SELECT (SELECT count(*) FROM holdfast.job), (SELECT count(*) FROM holdfast.dead_job d WHERE NOT EXISTS
                    (SELECT FROM holdfast.ledger l WHERE l.idempotency_key = d.idempotency_key AND l.state = 'committed' AND l.job_id <> d.job_id)),
                (SELECT count(*) FROM holdfast.unknown_effect)""").fetchone()
            if not any(left) and not any(p.is_alive() for p in world.clients if isinstance(p, Producer)):
                break
            time.sleep(0.05)
        why = [row[0] for row in c.execute(LEFT).fetchall()] if any(left) else []
    ok(not any(left), 'everything drains: no job is left, none is dead that could be redriven, no effect is unknown', left, *why)
    world.finished.set()
    for client in world.clients:
        client.join(30)
    ok(not any(client.is_alive() for client in world.clients), 'the clients ended')


# ---------------------------------------------------------------- the account and the record

class Record:
    """The events of some jobs, and where the jobs are, to look up what was acknowledged."""

    def __init__(self, c, events, job_ids):
        self.of_job, self.of_lease = collections.defaultdict(list), collections.defaultdict(list)
        for e in events:
            self.of_job[e['job_id']].append(e)
            if e['lease_id'] is not None:
                self.of_lease[e['lease_id']].append(e)
        ids = [list(job_ids)]
        self.here = {r['job_id'] for r in c.execute('''SELECT job_id FROM holdfast.job WHERE job_id = ANY(%s)
            UNION ALL SELECT job_id FROM holdfast.dead_job WHERE job_id = ANY(%s)''', ids * 2).fetchall()}
        self.until = {r['lease_id']: r['lease_expires_at'] for r in
                      c.execute('SELECT lease_id, lease_expires_at FROM holdfast.job WHERE lease_id IS NOT NULL').fetchall()}
        self.own = collections.Counter(r['lease_id'] for r in
                                       c.execute('SELECT lease_id FROM own_write WHERE job_id = ANY(%s)', ids).fetchall())

    def times(self, ack):
        """How often the record has what was acknowledged: 1 is right, 0 lost, more doubled."""
        under = self.of_lease[ack.lease_id] if ack.lease_id else []
        if ack.what == 'created':
            return 1 if ack.job_id in self.here or self.of_job[ack.job_id] else 0
        if ack.what == 'started':
            return sum(e['kind'] == 'action_attempt_started' and e['job_id'] == ack.job_id and
                       (e['attempt_number'], e['fencing_token'], e['mode']) == ack.told for e in under)
        if ack.what == 'ended':
            what, about = ack.told
            kinds = ['action_' + ENDS[what]] + (['action_attempt_failed'] if what in ('snooze', 'release') else [])
            return sum(e['kind'] in kinds and
                       (about is None or e['kind'] == 'action_attempt_failed' or
                        (e['worker_result'], (e['detail'] or {}).get('effect')) == about) for e in under)
        if ack.what == 'beaten':
            ends = [e['lease_expires_at'] for e in under] + [self.until.get(ack.lease_id)]
            return 1 if any(end is not None and end >= ack.told for end in ends) else 0
        if ack.what == 'own':
            return self.own[ack.lease_id]
        if ack.what == 'changed':
            effect, to = ack.told
            return min(1, sum(e['kind'] == 'action_ledger_changed' and (e['detail'].get('effect'), e['detail']['to']) == (effect, to)
                              for e in under))
        if ack.what == 'refused':
            return min(1, sum(e['kind'] == ack.told for e in under))
        kind = {'cancel_requested': ['action_cancel_requested'], 'cancelled': ['action_cancelled'], 'redriven': ['action_redriven'],
                'settled': ['action_reconciled']}[ack.what]
        return min(1, sum(e['kind'] in kind for e in self.of_job[ack.job_id]))


class Account:
    """Judges what the clients were told, and the fold of all events, bit by bit."""

    def __init__(self, world, oracle, conninfo):
        self.world, self.oracle, self.conninfo, self.seen = world, oracle, conninfo, 0
        self.lost, self.doubled, self.problems = 0, 0, []

    def judged(self, when, everything=False):
        problems = self.judge(everything)
        return ok(not problems, f'G10, G7: {when}: what was acknowledged is there, once, and the rows are the fold of their events',
                  f'{len(problems)} problems', *problems[:10])

    def judge(self, everything=False, at_once=5000, at_most=20000):
        """What was acknowledged since the last time, or ever of so many jobs, drawn: the problems found."""
        acks = self.world.acks[0 if everything else self.seen:]
        if not everything:
            self.seen += len(acks)
        by_job = collections.defaultdict(list)
        for ack in acks:
            by_job[ack.job_id].append(ack)
        problems, ids = [], sorted(by_job)
        if everything and len(ids) > at_most:
            ids = sorted(random.Random(self.world.seed).sample(ids, at_most))
        with psycopg.connect(self.conninfo, row_factory=psycopg.rows.dict_row) as c:
            c.execute('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ')
            for i in range(0, max(len(ids), 1), at_once):
                some = ids[i:i + at_once]
                wrong, events = self.oracle.judge(c, some)
                record = Record(c, events, some)
                problems += wrong + [p for i in some for p in self.judge_acks(record, by_job[i])]
        self.problems += problems
        return problems

    def judge_acks(self, record, acks):
        for ack in acks:
            times = record.times(ack)
            if times == 0:
                self.lost += 1
                yield f'lost: {ack}'
            elif times > 1:
                self.doubled += 1
                yield f'{times} times: {ack}'
