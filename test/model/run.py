#!/usr/bin/env python3
"""The engine against a reference model of it (model.py): random calls from several sessions under a frozen clock.

	scripts/server /usr/bin/python3 test/model/run.py --calls 20000 --seed 1

The calls are made in rounds, each in a fresh database with a seed of its own: the seed, seed + 1, and so on; odd ones
with holdfast.scan_hint on, even ones with check; every third has jobs with streams, and one session.  After each call
the answer and the rows and events that it may touch are compared, and every 1,000 calls everything is.  A sequence
that fails is made short and printed as SQL.
"""
import argparse, collections, multiprocessing, os, random, sys, time, uuid

from calls import ENQUEUE, OPS, At, Array, Ms, functions_forgotten
from driver import Call, Divergence, Driver, set_up
from engine import Session
from model import CLASSES, MS, NS, POLICIES, QUEUES, RULES, S, Model
from shrink import as_sql, shrink

TEMPLATE = 'holdfast_model_template'
WEIGHTS = dict(enqueue=18, enqueue_batch=4, claim=20, claim_any=3, complete=6, complete_batch=2, complete_and_claim=3, fail=14, schedule_retry=4, snooze=4, release=3,
	heartbeat=5, reconcile=12, ledger_transition=9, cancel=3, redrive=3, redrive_queue=.2, settle_unknown=3, settle_expired=2, maintain=.15, purge_queue=.1, outcome=1.5,
	assert_lease=2, validate_lease=1, effects=.5, in_one=2, pause_queue=.1, resume_queue=.4, alter_queue=.2, define_retry_policy=.2, define_error_rule=.2, drop_error_rule=.1, post_restore=.03,
	define_stream=.3, resume_stream=.5, settle_streams=1)
STREAM_OPS = ['define_stream', 'resume_stream', 'settle_streams']
assert WEIGHTS.keys() == OPS.keys(), WEIGHTS.keys() ^ OPS.keys()
QUEUE_NAMES, STREAMS = list(QUEUES), ['s1', 's2']

class Caller:
	"""Makes up calls, mostly such as mean something to what the model has."""
	def __init__(self, driver, seed, streams):
		self.d, self.r, self.frontier, self.n, self.streams = driver, random.Random(seed), 12, 0, streams
		weights = {n: w for n, w in WEIGHTS.items() if streams or n not in STREAM_OPS}
		self.names, self.weights = list(weights), list(weights.values())
		self.lean = [w if n not in ('enqueue', 'enqueue_batch') else w / 4 for n, w in weights.items()]

	def step(self):
		r, d, m = self.r, self.d, self.d.m
		if r.random() < .22: self.advance()
		s = r.choice(d.sessions)
		x = r.random()
		if not s.open and x < .05: op = r.choice(['begin', 'begin', 'begin_rr'])
		elif s.open and x < .26: op = 'commit' if x < .12 else 'rollback' if x < .16 else 'savepoint' if x < .22 else 'rollback_to'
		else: op = r.choices(self.names, self.lean if len(m.jobs) >= 30 else self.weights)[0]
		if s.snapshot and op in ('claim', 'claim_any', 'complete_and_claim', 'in_one') and r.random() < .9: op = 'complete'
		args = getattr(self, op)() if op in OPS else []
		self.n += 1
		return d.make(Call(self.n, s.n, m.now, op, args))
	def end_all(self):
		for s in self.d.sessions:
			if s.open:
				self.n += 1
				self.d.make(Call(self.n, s.n, self.d.m.now, self.r.choice(['commit', 'commit', 'rollback']), []))

	def advance(self):
		r, m = self.r, self.d.m
		at = sorted(t for j in m.jobs.values() for t in (j.lease_end if j.lease else j.run_after, j.give_up) if t and t > m.now)[:6]
		at += [s.ends for s in m.streams.values() if s.ends and s.ends > m.now]
		x = r.random()
		if at and x < .35: m.now = r.choice(at)
		elif at and x < .5: m.now = max(r.choice(at) - MS, m.now)
		else: m.now += self.pick((r.randrange(200 * MS), 3), (r.randrange(5 * S), 4), (r.randrange(30 * S), 1), (1, .3), (r.randrange(3600 * S), .03))
	def pick(self, *weighted): return self.r.choices([v for v, _ in weighted], [w for _, w in weighted])[0]
	def refs(self, *ids): return [self.d.ref(i) for i in ids]
	def one_of(self, those): return self.r.choice(those) if those else None
	def strange(self): return str(uuid.UUID(int=self.r.getrandbits(128)))

	def pair(self, mode=None):
		"""A job and a lease: mostly a current one, else a past one, another job's, or none at all."""
		m, r, x = self.d.m, self.r, self.r.random()
		running = [j for j in m.jobs.values() if j.lease]
		recent = m.recent[-80:]
		if mode and x < .6: running = [j for j in running if j.mode == mode and j.se] or running
		if running and x < .72:
			j = r.choice(running)
			return self.refs(j.id, j.lease)
		if recent and x < .92: return self.refs(*r.choice(recent))
		if running and recent and x < .96: return self.refs(r.choice(running).id, r.choice(recent)[1])
		if m.jobs and x < .985: return [self.d.ref(r.choice(list(m.jobs))), self.strange()]
		return [r.choice([0, -1, 10 ** 9]), self.strange()]
	def pairs(self):
		m, value = self.d.m, self.d.value
		pairs = [self.pair() for _ in range(self.r.randrange(0, 5))]
		pairs = [p for p in pairs if not ((j := m.jobs.get(value(p[0]))) and j.lease == value(p[1]) and j.mode == 'reconcile') or self.r.random() < .1]
		if pairs and self.r.random() < .3: pairs.append(pairs[0])
		return [Array(p[0] for p in pairs), Array(p[1] for p in pairs)]

	def new_job(self, queue):
		r = self.r
		self.frontier += r.random() < .3
		n = max(0, self.frontier - int(r.expovariate(.08)))
		q, x = QUEUES[queue], random.Random(n)
		a = dict(action_key=x.choice(['send', 'charge']), subject=f's{n}', payload={'n': n if r.random() > .02 else -1})
		if x.random() < .3: a['scope'] = x.choice(['x', 'y'])
		if x.random() < .2: a['intent_version'] = x.choice([0, 2])
		run = self.d.m.now
		if r.random() < .25:
			a['delay'] = Ms(r.choice([0, 1, r.randrange(5000)]))
			run += a['delay'] * MS
		elif r.random() < .2:
			a['run_after'] = At(self.d.m.now + r.randrange(-5 * S, 5 * S))
			run = max(run, a['run_after'])
		if r.random() < .3: a['priority'] = r.choice([-1, 0, 1, 5])
		if r.random() < .2: a['timeout'] = Ms(r.choice([1, 2000, 12000, 40000]))
		if r.random() < .3: a['give_up_at'] = At(run + r.choice([0, MS, r.randrange(1, 6 * S), r.randrange(1, 60 * S)]))
		if r.random() < .2: a['max_attempts'] = r.choice([1, 2, 3])
		if r.random() < .15: a['retry_policy'] = r.choice(['p1', 'p2', 'p3'])
		if r.random() < .03: a['side_effects'] = not q.se
		if self.streams and r.random() < .7: a['stream'] = r.choice(STREAMS)
		return a
	def busy_queue(self): return self.r.choice(['qa', 'qa', 'qb', 'qb', 'qc', 'qd', 'qe', 'qf'])
	def queue(self): return self.r.choice(QUEUE_NAMES)
	def enqueue(self):
		queue = self.busy_queue()
		a = self.new_job(queue)
		return [queue] + [a.get(k) for k in ENQUEUE]
	def enqueue_batch(self):
		r, queue = self.r, self.busy_queue()
		jobs = [self.new_job(queue) for _ in range(r.randrange(1, 7))]
		if r.random() < .3: jobs.append(dict(r.choice(jobs)))
		for a in jobs:
			if r.random() < .95: a['payload'] = {'n': int(a['subject'][1:])}
			if r.random() < .9: a.pop('side_effects', None)
		return [queue, jobs]
	def claiming(self, queue):
		q = QUEUES[queue]
		lease = self.pick((None, 8), (q.lease * 2, 1), (3 * (q.heartbeat or 10000), 1), (self.r.randrange(1, 30000), 1))
		return [self.r.choice([1, 1, 2, 3, 10]), lease and Ms(lease), self.pick(('all', 6), ('execute', 1), ('reconcile', 3 if q.separate else 1))]
	def worker(self): return self.r.choice(['w1', 'w2', 'w3'])
	def claim(self):
		due = [j.queue for j in self.d.m.jobs.values() if (j.lease_end if j.lease else j.run_after) <= self.d.m.now]
		queue = self.r.choice(due) if due and self.r.random() < .5 else self.queue()
		return [queue, self.worker(), *self.claiming(queue)]
	def claim_any(self):
		queues = [self.queue() for _ in range(self.r.randrange(1, 4))]
		return [Array(queues), self.worker(), *self.claiming(queues[0])]
	def complete(self): return [*self.pair(), self.r.choice([None, None, {'ok': 1}, {'ok': 2}]), self.r.random() < .1]
	def complete_batch(self): return self.pairs()
	def complete_and_claim(self):
		queue = self.queue()
		return [queue, self.worker(), *self.pairs(), *self.claiming(queue)]
	def fail(self):
		r = self.r
		after = self.pick((None, 5), (r.choice([0, 1, 100, r.randrange(30000)]), 2))
		at = At(self.d.m.now + r.randrange(-2 * S, 20 * S)) if after is None and r.random() < .15 else None
		effect = self.pick((None, 6), ('none', 4), ('unknown', 2), ('landed', 1))
		return [*self.pair(), r.choice(CLASSES), r.choice([None, None, 'no']), effect, after if after is None else Ms(after), at]
	def schedule_retry(self):
		delay = self.r.choice([None, 1, 200, self.r.randrange(1, 30000)])
		return [*self.pair(), delay and Ms(delay), self.r.choice(['RetryRequested', 'ValidationError', 'Odd']), self.r.choice([None, 'none', 'none', 'unknown'])]
	def snooze(self): return [*self.pair(), Ms(self.r.choice([1, 100, self.r.randrange(1, 20000)])), self.r.choice([None, 'later'])]
	def release(self): return [*self.pair(), self.r.choice([None, 'deploy'])]
	def heartbeat(self):
		held = [j for s in self.d.sessions for j in s.held]
		lease = self.pick((None, 3), (self.r.randrange(1, 60000), 1))
		if held and self.r.random() < .5 and (j := self.d.m.jobs.get(self.r.choice(held))) and j.lease: return [*self.refs(j.id, j.lease), None]
		return [*self.pair(), lease and Ms(lease)]
	def assert_lease(self): return self.pair()
	def validate_lease(self): return self.pair()
	def outcome(self): return self.pair()
	def effects(self): return self.pair('execute')
	def ledger_transition(self):
		return [*self.pair('execute'), self.r.choice(['started', 'started', 'committed', 'failed_retryable']), self.r.choice([None, 'a', 'a', 'b'])]
	def reconcile(self):
		m, pair = self.d.m, self.pair('reconcile')
		j = m.jobs.get(self.d.value(pair[0]))
		open_ones = [l.effect for l in m.unknowns(m.led(j))] if j else []
		effect = self.r.choice(open_ones) if open_ones and self.r.random() < .8 else self.r.choice([None, 'a', 'b', 'c'])
		return [*pair, self.pick(('landed', 3), ('not_landed', 4), ('undetermined', 1)), effect]
	def cancel(self): return [self.d.ref(self.r.choice(list(self.d.m.jobs) + [0])), self.r.random() < .35]
	def redrive(self): return [self.d.ref(self.r.choice(list(self.d.m.dead)[-15:] + list(self.d.m.jobs)[:1] + [0]))]
	def redrive_queue(self):
		since = self.r.choice([None, At(self.d.m.now - self.r.randrange(60 * S))])
		return [self.queue(), self.r.choice([None, 'send', 'charge']), self.r.choice([None, None, 'Odd', 'TimeoutError']), since, self.r.choice([1, 3])]
	def settle_unknown(self):
		keys = [l.key for l in self.d.m.ledger.values() if l.state == 'unknown'] * 5 + list(self.d.m.ledger)[-5:] + [str(uuid.UUID(int=1))]
		return [self.r.choice(keys), self.r.choice(['landed', 'not_landed', 'not_landed', 'abandoned'])]
	def settle_expired(self): return [self.queue()]
	def in_one(self): return [self.queue()]
	def maintain(self): return []
	def define_stream(self): return [self.busy_queue(), self.r.choice(STREAMS), self.r.choice([1, 1, 2, 3]), Ms(self.r.choice([1, 500, 3000, 20000]))]
	def resume_stream(self): return [self.busy_queue(), self.r.choice(STREAMS + ['none'] * (self.r.random() < .1))]
	def settle_streams(self): return [self.queue()]
	def purge_queue(self): return [self.queue(), self.r.random() < .5]
	def pause_queue(self): return [self.queue()]
	def resume_queue(self): return [self.one_of([q.name for q in self.d.m.queues.values() if q.paused]) or self.queue()]
	def alter_queue(self):
		queue = self.queue()
		return [queue, Ms(QUEUES[queue].lease + self.r.choice([0, 0, 5000, -4000])), self.r.choice([QUEUES[queue].max_attempts or 0, 0, 2, 4])]
	def define_retry_policy(self):
		p = self.r.choice(list(POLICIES.values())[1:])
		return [p.name, Ms(p.base), p.rate, Ms(p.max), Ms(self.r.choice([p.jitter, 0, 500])), Ms(p.min), self.r.choice([p.max_attempts, 2, 5]), p.lost_counts, self.r.choice([p.max_lost, 3]),
			Ms(p.max_reset), Ms(p.rec_delay), self.r.choice([p.rec_max, 2])]
	def define_error_rule(self):
		return [self.r.choice(['p1', 'p2', 'p3']), self.r.choice(['Odd', 'Half', 'Boom%']), self.r.choice(['retry', 'terminal', 'honor_reset', 'suppress']), self.r.choice(['unknown', 'none', 'landed'])]
	def drop_error_rule(self): return [self.r.choice(['p1', 'p2', 'p3']), self.r.choice(['Odd', 'Half', 'Boom%'])]
	def post_restore(self): return [max(19 * 10 ** 14, self.d.m.floor.token) + self.r.randrange(-5, 10 ** 9)]

# ---------------------------------------------------------------- rounds

def database(): return f'holdfast_model_{os.getpid()}'
def fresh_database(admin):
	admin.do(f'DROP DATABASE IF EXISTS {database()} WITH (FORCE)')
	admin.do(f'CREATE DATABASE {database()} TEMPLATE {TEMPLATE} STRATEGY file_copy')
def make_template():
	admin = Session('dbname=postgres')
	admin.do(f'DROP DATABASE IF EXISTS {TEMPLATE}')
	admin.do(f'CREATE DATABASE {TEMPLATE}')
	admin.close()
	s = Session(f'dbname={TEMPLATE}')
	s.do("CREATE EXTENSION holdfast; SET holdfast.clock = '2030-01-01 00:00:00+00'")
	for sql in set_up(): s.do(sql)
	forgotten = functions_forgotten(s.ask)
	rules = {(p, r['error_class']): (r['disposition'], r['side_effect']) for p in POLICIES for r in s.ask('SELECT to_json(x) FROM holdfast.list_error_rules($1) x', [p]) if r['policy_name'] == p}
	assert all(rules[k] == v for k, v in RULES.items()), 'the rules are not those of the model'
	s.close()
	return forgotten

def replay(admin, calls, args, hint, model):
	"""The calls that were made, and the divergence or None."""
	fresh_database(admin)
	d = Driver(f'dbname={database()}', args.sessions, hint, model)
	try:
		for c in calls: d.make(c)
		for s in d.sessions: d.make(Call(0, s.n, d.m.now, 'rollback', []))
		d.compare_all(0)
		d.judge()
	except Divergence as e: return d.calls, e
	finally: d.close()
	return d.calls, None

class BrokenModel(Model):
	def max_attempts(self, j): return super().max_attempts(j) + (j.failures == 2)

def round_of(args, seed, calls):
	"""One round: what came of it."""
	streams = seed % 3 == 0					# whoever ends a job waits for its stream: one session
	if streams: args = argparse.Namespace(**{**vars(args), 'sessions': 1})
	model = BrokenModel if args.broken else Model
	hint = args.scan_hint or ('on' if seed % 2 else 'check')
	admin = Session('dbname=postgres')
	fresh_database(admin)
	d = Driver(f'dbname={database()}', args.sessions, hint, model)
	caller, began, said = Caller(d, seed, streams), time.time(), None
	try:
		checked = 0
		while d.made < calls:
			caller.step()
			if d.made // 1000 > checked or d.made >= calls:
				checked = d.made // 1000
				caller.end_all()
				d.compare_all(caller.n)
		d.judge()
	except Divergence as e: said = e
	finally: d.close()
	took = time.time() - began
	out = [f'seed {seed}, scan_hint {hint}{", streams" * streams}: {d.made} calls in {took:.1f} s, {d.made / took:.0f} a second; {len(d.m.jobs)} live, {len(d.m.dead)} dead, {len(d.m.ledger)} ledger rows']
	if said:
		out.append(f'DIVERGENCE at call {d.made}: {said}')
		made = d.calls
		again = lambda c: (lambda made, e: (made, e.kind if e else None))(*replay(admin, c, args, hint, model))
		if again(made)[1] != said.kind: out.append('it does not come again when the calls are replayed')
		else:
			short = shrink(made, said.kind, again, time.time() + args.shrink_seconds, d.about)
			_, e = replay(admin, short, args, hint, model)
			out += [f'shrunk from {len(made)} calls to {len(short)}:', *as_sql(short), f'-- {e}']
	admin.do(f'DROP DATABASE IF EXISTS {database()} WITH (FORCE)')
	admin.close()
	return NS(calls=d.made, tally=d.tally, refusals=d.refusals, out=out, failed=bool(said))

def work(job): return round_of(*job)

def main():
	p = argparse.ArgumentParser()
	p.add_argument('--calls', type=int, default=20000)
	p.add_argument('--round', type=int, default=10000, help='calls in one database')
	p.add_argument('--seed', type=int, default=random.SystemRandom().randrange(10 ** 6))
	p.add_argument('--sessions', type=int, default=3)
	p.add_argument('--processes', type=int, default=1)
	p.add_argument('--scan-hint', choices=['on', 'off', 'check'])
	p.add_argument('--shrink-seconds', type=int, default=120)
	p.add_argument('--break', dest='broken', action='store_true', help='with a model that is wrong about budgets, to see that it is found')
	args = p.parse_args()
	print(f'seed {args.seed}', flush=True)
	forgotten, gone = make_template()
	if forgotten or gone: sys.exit(f'calls.py: functions that write and are neither called nor left out: {forgotten}; left out, and not there: {gone}')
	rounds = [(args, args.seed + i, min(args.round, args.calls - i * args.round)) for i in range(-(-args.calls // args.round))]
	began, calls, tally, refusals, failed = time.time(), 0, collections.Counter(), collections.Counter(), 0
	with multiprocessing.Pool(args.processes) as pool:
		for r in pool.imap(work, rounds):
			print('\n'.join(r.out), flush=True)
			calls, failed = calls + r.calls, failed + r.failed
			tally.update(r.tally)
			refusals.update(r.refusals)
			if failed >= 3: break
	took = time.time() - began
	print(f'{calls} calls in {took:.1f} s, {calls / took:.0f} a second; {dict(tally)}; refused {dict(refusals)}')
	never = [n for n in OPS if not tally[n]] if calls >= 10000 and len(rounds) >= 3 else []
	if never: print(f'never called: {never}')
	sys.exit(bool(failed or never))

if __name__ == '__main__': main()
