#!/usr/bin/env python3
"""Real clock, real concurrency: workers that fail, release, snooze, die, freeze and report twice.

	scripts/server /usr/bin/python3 test/model/chaos.py --seconds 30 --workers 12 --seed 1

Producers repeat intents, operators cancel, redrive and settle, maintain() runs beside.  At the end the evidence is
judged: one holder (G1), no hot loop (G3), budgets (G4), one live job per intent (G5), unknown never executes (G6),
nothing stays live when workers succeed (G4, G10), rows = the fold of the events (G7, fold.py), leases not settled
before their end (G8), nothing lost (G10).
"""
import argparse, collections, json, multiprocessing, random, sys, time, uuid

import psycopg
from psycopg.rows import dict_row
from fold import Oracle

DB = 'dbname=holdfast_chaos'
ERRORS_EXPECTED = {'JQ001', 'JQ003', 'JQ004', 'JQ007'}

def connect(): return psycopg.connect(DB, autocommit=True, row_factory=dict_row, prepare_threshold=2)

class Client:
	def __init__(self, args, n, out):
		self.r, self.until, self.c, self.out = random.Random(f'{args.seed}/{n}'), args.until, connect(), out
		self.n, self.tally, self.problems, self.held, self.made = n, collections.Counter(), [], [], []
	def call(self, sql, *params):
		try: return self.c.execute(sql, params).fetchall()
		except psycopg.Error as e:
			self.tally[f'error {e.sqlstate}'] += 1
			if e.sqlstate not in ERRORS_EXPECTED: self.problems.append(f'{sql} {params}: {e.sqlstate} {e}')
			if self.c.closed or self.c.broken: self.c = connect()
	def run(self):
		try:
			while time.time() < self.until: self.step()
		except Exception as e: self.problems.append(f'client {self.n}: {type(e).__name__} {e}')
		self.out.put((self.tally, self.problems, self.held, self.made))

class Producer(Client):
	def step(self):
		queue = self.r.choice(['effects', 'effects', 'plain', 'separate'])
		subject = f'{queue == "plain"}-{int(2 * (time.time() - self.until))}-{self.r.randrange(60)}'
		give_up = f'{self.r.randrange(20, 4000)} ms' if self.r.random() < .1 else None
		rows = self.call('''SELECT * FROM holdfast.enqueue(%s, 'act', %s, delay => %s::interval, give_up_at => clock_timestamp() + %s::interval, priority => %s, stream => %s)''',
			queue, subject, f'{self.r.choice([0, 0, 1, 15])} ms', give_up, self.r.choice([0, 0, 1]), self.r.choice([None, None, 'flow']))
		for x in rows or []:
			self.tally['enqueue ' + x['outcome']] += 1
			if x['outcome'] == 'created': self.made.append(x['job_id'])
		time.sleep(self.r.random() * .01)

class Worker(Client):
	last = []
	def step(self):
		r = self.r
		jobs = self.call('SELECT * FROM holdfast.claim(%s, %s, %s, modes => %s)', r.choice(['effects', 'effects', 'plain', 'separate']), f'w{self.n}', r.choice([1, 1, 3]),
			r.choice(['all', 'all', 'reconcile']))
		if not jobs: time.sleep(.003)
		for j in jobs or []:
			began = time.time()
			if r.random() < .1: time.sleep(.003)
			if r.random() < .03:
				self.tally['freeze'] += 1
				time.sleep(.5)
			elif r.random() < .2: self.call('SELECT * FROM holdfast.heartbeat(%s, %s)', j['job_id'], j['lease_id'])
			span = began, min(time.time(), j['lease_expires_at'].timestamp())
			if span[0] < span[1]: self.held.append((j['job_id'], str(j['lease_id']), *span))
			sql, params = self.report(j)
			if r.random() < .05:			# dies in mid-transaction, after the call and before the commit
				self.tally['die'] += 1
				try:
					self.c.execute('BEGIN')
					self.c.execute(sql, (j['job_id'], j['lease_id'], *params))
				except psycopg.Error as e: self.tally[f'error {e.sqlstate}'] += 1
				self.c.close()
				self.c = connect()
				if r.random() < .5: continue
			for _ in range(r.choice([1, 1, 1, 2])):
				x = self.call(sql, j['job_id'], j['lease_id'], *params)
				if x: self.tally[sql.split('.')[1].split('(')[0] + ' ' + next(iter(x[0].values()))] += 1
			self.last = (self.last + [(sql, (j['job_id'], j['lease_id'], *params))])[-20:]
		if self.last and r.random() < .1:
			sql, params = r.choice(self.last)
			self.call(sql, *params)
	def report(self, j):
		r = self.r
		if j['mode'] == 'reconcile':
			unknown = [e for e, x in (j['effects'] or {}).items() if x['state'] == 'unknown'] + ([None] if j['ledger_state'] == 'unknown' else [])
			if r.random() < .8: return 'SELECT * FROM holdfast.reconcile(%s, %s, %s, effect => %s)', (r.choice(['landed', 'not_landed', 'not_landed', 'undetermined']), r.choice(unknown or [None]))
		elif j['ledger_state'] and r.random() < .2:
			return 'SELECT * FROM holdfast.ledger_transition(%s, %s, %s, %s)', r.choice([('started', 'a'), ('started', 'b'), ('committed', None)])
		return r.choice([
			('SELECT * FROM holdfast.fail(%s, %s, %s, side_effect => %s)', (r.choice(['TimeoutError', 'Odd', 'ValidationError']), r.choice([None, 'none', 'none']))),
			('SELECT * FROM holdfast.fail(%s, %s, %s, side_effect => %s)', ('Odd', 'none')),
			('SELECT * FROM holdfast.schedule_retry(%s, %s, %s, side_effect => %s)', ('2 ms', 'none')),
			('SELECT * FROM holdfast.snooze(%s, %s, %s)', (f'{r.randrange(1, 20)} ms',)),
			('SELECT * FROM holdfast.release(%s, %s)', ()),
			('SELECT holdfast.complete(%s, %s) AS outcome', ())])

class Operator(Client):
	def step(self):
		r = self.r
		x = r.random()
		if x < .3: self.call('SELECT * FROM holdfast.maintain()')
		elif x < .5:
			for j in self.call('SELECT job_id FROM holdfast.job ORDER BY random() LIMIT 1') or []: self.call('SELECT holdfast.cancel(%s, %s, %s) AS outcome', j['job_id'], 'chaos', r.random() < .5)
		elif x < .8:
			for j in self.call('SELECT job_id FROM holdfast.dead_job ORDER BY random() LIMIT 3') or []: self.call('SELECT * FROM holdfast.redrive(%s, %s)', j['job_id'], 'chaos')
		else:
			for u in self.call('SELECT idempotency_key AS k FROM holdfast.unknown_effect ORDER BY random() LIMIT 1') or []:
				self.call("SELECT * FROM holdfast.settle_unknown(%s, %s, null, 'chaos')", u['k'], r.choice(['landed', 'not_landed', 'abandoned']))
		twice = self.call('SELECT idempotency_key, count(*) FROM holdfast.job GROUP BY 1 HAVING count(*) > 1')
		if twice: self.problems.append(f'G5: {twice}')
		time.sleep(.01)

def drain(seconds=60):
	"""Liveness: with workers that succeed, and maintain(), every job comes to its end.  What is left after so long is not lost, but stuck."""
	c, until = connect(), time.time() + seconds
	while time.time() < until:
		c.execute('SELECT * FROM holdfast.maintain()')
		for queue in ('effects', 'separate', 'plain'):
			for modes in ('all', 'reconcile'):
				for j in c.execute('SELECT * FROM holdfast.claim(%s, %s, 100, modes => %s)', (queue, 'drain', modes)).fetchall():
					unknown = [e for e, x in (j['effects'] or {}).items() if x['state'] == 'unknown'] + ([None] if j['ledger_state'] == 'unknown' else [])
					for effect in unknown: c.execute('SELECT * FROM holdfast.reconcile(%s, %s, %s, effect => %s)', (j['job_id'], j['lease_id'], 'landed', effect))
					if not unknown: c.execute('SELECT holdfast.complete(%s, %s)', (j['job_id'], j['lease_id']))
		if not c.execute('SELECT FROM holdfast.job LIMIT 1').fetchall(): break
		time.sleep(.02)
	return [f'G4, G10: stuck: {r}' for r in c.execute('SELECT job_id, queue, status, mode, stream, run_after, give_up_at, lease_expires_at FROM holdfast.job LIMIT 5').fetchall()]

# ---------------------------------------------------------------- judging

def judge(made, held):
	problems, c = [], connect()
	def no(what, sql):
		rows = c.execute(sql).fetchall()
		if not rows: return
		problems.append(f'{what}: {len(rows)}, such as {rows[:2]}')
		for i in [r['job_id'] for r in rows[:2] if 'job_id' in r]:		# and the story of it
			key = (c.execute('SELECT idempotency_key AS k FROM e WHERE job_id = %s LIMIT 1', [i]).fetchone() or {'k': None})['k']
			for q, t in (('SELECT state, job_id, effect, attempt_number, changed_at::time::text AS at FROM holdfast.ledger WHERE %s IN (idempotency_key, parent_key)', 'ledger'),
					('SELECT job_id, mode, status, attempt_number FROM holdfast.job WHERE idempotency_key = %s', 'job'),
					('SELECT job_id, reason, attempt_number FROM holdfast.dead_job WHERE idempotency_key = %s', 'dead')):
				for r in c.execute(q, [key]).fetchall(): problems.append(f'  {t} {tuple(r.values())}')
			for r in c.execute("""SELECT job_id, attempt_number AS n, at::time::text, substr(kind, 8) AS kind, mode, side_effect_state AS state, worker_result AS result, detail->>'decision' AS d, detail->>'outcome' AS o
				FROM e WHERE idempotency_key = %s ORDER BY event_id DESC LIMIT 12""", [key]).fetchall()[::-1]: problems.append(f'  {tuple(r.values())}')
	c.execute('CREATE TEMP TABLE e AS SELECT * FROM holdfast.event UNION ALL SELECT * FROM holdfast.event_overflow; CREATE INDEX ON e (job_id, attempt_number, at, event_id); ANALYZE e')
	no('G1: an attempt began before the one before it was over', '''SELECT * FROM (SELECT job_id, attempt_number, kind, at, lag(kind) OVER w AS before, lag(attempt_number) OVER w AS n
		FROM e WHERE kind = 'action_attempt_started' OR kind IN ('action_attempt_failed', 'action_attempt_lost', 'action_snoozed', 'action_released', 'action_cancelled', 'action_purged', 'action_redriven')
			OR kind = 'action_reconciled' WINDOW w AS (PARTITION BY job_id ORDER BY event_id)) x WHERE kind = 'action_attempt_started' AND before = 'action_attempt_started' ''')
	no('G8: a lease was taken away before its end', "SELECT job_id, at, lease_expires_at FROM e WHERE kind = 'action_attempt_lost' AND at < lease_expires_at")
	no('G3: a decision without delay', "SELECT * FROM e WHERE kind IN ('action_retry_scheduled', 'action_reconcile_scheduled', 'action_snoozed') AND next_not_before <= at")
	no('G3, G9: an attempt began before its time', '''SELECT job_id, at, n FROM (SELECT job_id, kind, at, lag(kind) OVER w AS before, lag(next_not_before) OVER w AS n FROM e
		WHERE next_not_before IS NOT NULL OR kind IN ('action_attempt_started', 'action_redriven') OR kind = 'action_reconciled' WINDOW w AS (PARTITION BY job_id ORDER BY event_id)) x
		WHERE kind = 'action_attempt_started' AND n > at AND before <> 'action_duplicate_report' ''')
	no('G4: charged beyond the budget', "SELECT job_id, failures, max_attempts FROM e WHERE kind IN ('action_attempt_failed', 'action_attempt_lost') AND failures > max_attempts")
	no('G4: executed with the budget used up', "SELECT job_id, failures, max_attempts FROM e WHERE kind = 'action_attempt_started' AND mode = 'execute' AND failures >= max_attempts")
	no('G5: two live jobs of a key', 'SELECT idempotency_key FROM holdfast.job GROUP BY 1 HAVING count(*) > 1')
	no('G6: executing with an unknown effect', '''SELECT j.job_id, j.status, l.effect FROM holdfast.job j JOIN holdfast.ledger l ON j.idempotency_key IN (l.idempotency_key, l.parent_key)
		WHERE j.mode = 'execute' AND l.state = 'unknown' ''')
	no('reconciling with nothing unknown', '''SELECT j.job_id, j.status FROM holdfast.job j WHERE j.mode = 'reconcile' AND NOT EXISTS
		(SELECT FROM holdfast.ledger l WHERE j.idempotency_key IN (l.idempotency_key, l.parent_key) AND l.state = 'unknown')''')
	no('unknown_effect is not the ledger', '''SELECT * FROM (SELECT idempotency_key, job_id FROM holdfast.ledger WHERE state = 'unknown') l
		FULL JOIN holdfast.unknown_effect u USING (idempotency_key, job_id) WHERE l IS NULL OR u IS NULL''')
	no('running without ledger started', '''SELECT j.job_id, l.state FROM holdfast.job j JOIN holdfast.ledger l USING (idempotency_key)
		WHERE j.status = 'running' AND j.mode = 'execute' AND l.state NOT IN ('started', 'committed')''')
	no('G3: a retry that is unexplained, or without backoff', "SELECT job_id_b::bigint AS job_id, attempt_number_b, verdict, because FROM holdfast.attempt_pair WHERE verdict IN ('unexplained', 'retry_without_backoff')")
	no('G4: a stop that is unexplained, or premature', "SELECT job_id::bigint AS job_id, reason, because FROM holdfast.stop_reason WHERE reason IN ('premature_stop', 'unexplained_stop')")
	no('an attempt number twice', "SELECT job_id, attempt_number FROM e WHERE kind = 'action_attempt_started' GROUP BY 1, 2 HAVING count(*) > 1")
	no('event times go back', '''SELECT * FROM (SELECT job_id, kind, event_id, at, lag(at) OVER w AS before, lag(kind) OVER w AS kind_before FROM e
		WHERE kind NOT IN ('action_stale_report', 'action_duplicate_report', 'action_duplicate_enqueue') -- they are written without the job's lock
		WINDOW w AS (PARTITION BY job_id, attempt_number ORDER BY event_id)) x WHERE at < before''')
	c.execute('BEGIN ISOLATION LEVEL REPEATABLE READ')
	wrong, events = Oracle().judge(c)
	c.execute('COMMIT')
	seen = {e['job_id'] for e in events}
	lost = set(made) - seen - {r['job_id'] for r in c.execute('SELECT job_id FROM holdfast.job').fetchall()}
	if lost: problems.append(f'G10: neither live nor on record: {sorted(lost)[:5]}')
	if wrong: problems.append(f'G7, G10: state is not the fold of the events: {len(wrong)}, such as {wrong[:3]}')
	by_job = collections.defaultdict(list)
	ends = {str(r['lease_id']): r['at'].timestamp() for r in c.execute("""SELECT lease_id, min(at) AS at FROM e WHERE lease_id IS NOT NULL AND kind IN
		('action_cancelled', 'action_purged', 'action_attempt_failed', 'action_attempt_lost', 'action_snoozed', 'action_released', 'action_attempt_succeeded') GROUP BY 1""").fetchall()}
	for job, lease, began, until in held: by_job[job].append((began, min(until, ends.get(lease, until)), lease))
	for job, spans in by_job.items():
		for a, b in zip(sorted(spans), sorted(spans)[1:]):
			if a[2] != b[2] and b[0] < a[1]: problems.append(f'G1: job {job} was held twice: {a} {b}')
	print('pairs', dict((r['verdict'], r['n']) for r in c.execute('SELECT verdict, count(*) AS n FROM holdfast.attempt_pair GROUP BY 1').fetchall()))
	print(f'{len(seen)} jobs with {len(events)} events, {len(held)} leases')
	return problems

def main():
	p = argparse.ArgumentParser()
	p.add_argument('--seconds', type=float, default=20)
	p.add_argument('--workers', type=int, default=10)
	p.add_argument('--seed', type=int, default=random.SystemRandom().randrange(10 ** 6))
	args = p.parse_args()
	print(f'seed {args.seed}', flush=True)
	with psycopg.connect('dbname=postgres', autocommit=True) as c:
		c.execute('DROP DATABASE IF EXISTS holdfast_chaos WITH (FORCE)')
		c.execute('CREATE DATABASE holdfast_chaos')
	c = connect()
	for sql in ('CREATE EXTENSION holdfast',
			"SELECT holdfast.define_retry_policy('quick', '2 ms', 1.5, '50 ms', '5 ms', '1 ms', 4, max_lost => 4, reconcile_delay => '3 ms', reconcile_max => 6)",
			"SELECT holdfast.create_queue('effects', lease => '300 ms', timeout => '200 ms', grace => '100 ms', retry_policy => 'quick')",
			"SELECT holdfast.create_queue('separate', lease => '300 ms', timeout => '200 ms', grace => '100 ms', retry_policy => 'quick', reconcile => 'separate')",
			"SELECT holdfast.create_queue('plain', lease => '300 ms', timeout => '200 ms', grace => '100 ms', retry_policy => 'quick', side_effects => false)",
			"SELECT holdfast.define_stream(queue, 'flow', threshold => 3, cool_down => '50 ms') FROM unnest(ARRAY['effects', 'separate', 'plain']) AS queue"): c.execute(sql)
	out, args.until = multiprocessing.Queue(), time.time() + args.seconds
	kinds = [Producer] * 2 + [Operator] * 2 + [Worker] * args.workers
	those = [multiprocessing.Process(target=lambda k=k, n=n: k(args, n, out).run()) for n, k in enumerate(kinds)]
	for x in those: x.start()
	tally, problems, held, made = collections.Counter(), [], [], []
	for _ in those:
		t, bad, h, m = out.get()
		tally.update(t)
		problems += bad
		held += h
		made += m
	for x in those: x.join()
	problems += drain() + judge(made, held)
	print(dict(sorted(tally.items())))
	for what in problems[:100]: print('' if what[0] == ' ' else 'PROBLEM', what[:600])
	print(f'{sum(p[0] != " " for p in problems)} problems')
	sys.exit(bool(problems))

if __name__ == '__main__': main()
