#!/usr/bin/env python3
"""A reference model of jobs, leases, ledger and budgets, and a driver that compares it with the engine.

	scripts/server /usr/bin/python3 test/model/model.py --calls 20000 --seed 1

Random calls go to the engine, from several sessions under a frozen clock, and to the model.  After each, the
answer and the rows and events of the jobs it may touch are compared; every 1,000 calls everything is.  The
model (class Model) is the design, section 4 and 6, in plain Python; Driver knows SQL.  A divergence prints
the seed, the call, what was expected and what came, and the last calls on that job.
"""
import argparse, collections, copy, datetime as dt, hashlib, json, os, random, sys, time, types, uuid

MS, S = 1000, 1_000_000						# the clock counts microseconds
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
START = int((dt.datetime(2030, 1, 1, tzinfo=dt.timezone.utc) - EPOCH).total_seconds()) * S
NS = types.SimpleNamespace

def stamp(us): return None if us is None else EPOCH + dt.timedelta(microseconds=us)
def micros(t): return None if t is None else (t - EPOCH) // dt.timedelta(microseconds=1)

# ---------------------------------------------------------------- section 6: exact algorithms

def splitmix64(seed, n):
	m = (1 << 64) - 1
	z = (seed + n * 0x9E3779B97F4A7C15) & m
	z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & m
	z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & m
	return z ^ (z >> 31)

def jitter_ms(job_id, n, window): return splitmix64(job_id, n) % window if window else 0

def backoff_ms(p, n):
	d = float(p.base)
	for _ in range(n - 1):
		if d >= p.max or d * p.rate == d: break
		d = d * p.rate
	return int(min(d, p.max))

def digest(tag, *parts):
	h = hashlib.sha256(tag.encode())
	for p in parts:
		b = None if p is None else p.encode()
		h.update(b'\xff\xff\xff\xff' if b is None else len(b).to_bytes(4, 'big') + b)
	b = bytearray(h.digest()[:16])
	b[6], b[8] = b[6] & 15 | 0x80, b[8] & 63 | 0x80
	return uuid.UUID(bytes=bytes(b))

def intent_key(subject, action, scope, version): return digest('holdfast intent 1', subject, action, scope, str(version))
def effect_key(key, effect): return digest('holdfast effect 1', str(key), effect)

# ---------------------------------------------------------------- settings: small figures, so that limits are met

POLICIES = {n: NS(name=n, **dict(zip('base rate max jitter min max_attempts lost_counts max_lost max_reset rec_delay rec_max'.split(), v)))
	for n, v in {
		'default':	(30000, 2, 3600000, 30000, 5000, 5, True, 20, 86400000, 60000, 20),
		'p1':		(1000, 2, 8000, 1000, 500, 3, True, 20, 20000, 3000, 3),
		'p2':		(300, 1.7, 5000, 0, 300, 4, False, 2, 10000, 700, 2),
		'p3':		(2000, 1, 2000, 3000, 5000, 6, True, 3, 15000, 5000, 50)}.items()}
RULES = {(p, c): (d, e) for p, c, d, e in [
	('default', 'TimeoutError', 'retry', 'unknown'), ('default', 'LeaseExpired', 'retry', 'unknown'),
	('default', 'RetryRequested', 'retry', 'unknown'), ('default', 'ReleasedTooOften', 'retry', 'none'),
	('default', 'RateLimitError', 'honor_reset', 'none'), ('default', 'ValidationError', 'terminal', 'none'),
	('default', 'DuplicateActionError', 'suppress', 'landed'),
	('p1', 'Boom%', 'terminal', 'unknown'), ('p1', 'Half', 'terminal', 'none'), ('p1', 'Gone', 'suppress', 'landed'),
	('p2', 'Reset', 'honor_reset', 'unknown'), ('p2', 'Landed', 'retry', 'landed'), ('p3', 'Boom%', 'suppress', 'none')]}
CLASSES = ['TimeoutError', 'RateLimitError', 'ValidationError', 'DuplicateActionError', 'Odd', 'BoomX', 'Half', 'Gone', 'Reset', 'Landed']
QUEUES = {n: NS(name=n, **dict(zip('lease timeout grace heartbeat policy max_attempts se separate'.split(), v)))
	for n, v in {
		'qa': (20000, 10000, 5000, None, 'p1', None, True, False),
		'qb': (9000, 30000, 0, 3000, 'p2', 3, True, False),
		'qc': (15000, 10000, 5000, None, 'p1', None, False, False),
		'qd': (20000, 5000, 5000, None, 'p3', None, True, True),
		'qe': (5000, 3000, 1000, None, 'p2', None, False, False),
		'qf': (90000, 60000, 15000, None, 'default', None, True, False)}.items()}

TOLERATED = set()			# --tolerate: differences that are known, so that others are found behind them

class Refused(Exception):
	"""An SQLSTATE; nothing was changed."""

# ---------------------------------------------------------------- the model

class Model:
	def __init__(self):
		self.now, self.jobs, self.dead, self.ledger = START, {}, {}, {}
		self.attempts = {}			# (job_id, lease) -> what the evidence says of it
		self.events = collections.defaultdict(list)		# job_id -> [(kind, attempt_number)]
		self.findings = collections.Counter()			# (kind, job_id)
		self.touched = set()

	# ---- evidence
	def event(self, j, kind, attempt=None):
		self.events[j.id].append((kind, j.attempt if attempt is None else attempt))
		self.touched.add(j.id)
	def finding(self, kind, job_id): self.findings[kind, job_id] += 1
	def late(self, j):
		if self.now < j.lease_end: return False
		self.finding('late_report', j.id)
		return True
	def end(self, j, kind, **what):
		self.attempts[j.id, j.lease].end = NS(kind=kind, at=self.now, **what)

	# ---- settings of a job: job, queue, policy
	def policy(self, j): return POLICIES[j.policy or QUEUES[j.queue].policy]
	def max_attempts(self, j): return j.max_attempts or QUEUES[j.queue].max_attempts or self.policy(j).max_attempts
	def timeout(self, j): return j.timeout or QUEUES[j.queue].timeout
	def lease_for(self, j, asked):
		q = QUEUES[j.queue]
		return max(asked or q.lease, self.needed(q, self.timeout(j)))
	def needed(self, q, timeout): return min(timeout + q.grace, 3 * q.heartbeat if q.heartbeat else 10 ** 9)	# G8
	def check_lease(self, q, asked):
		if asked and asked < self.needed(q, q.timeout): raise Refused('JQ005')
	def rule(self, policy, cls):
		for p in (policy, 'default'):
			for c in [cls] + [c for q, c in RULES if q == p and c.endswith('%') and cls.startswith(c[:-1])]:
				if (p, c) in RULES: return (p + '/' + c, *RULES[p, c])
		return '(none)', 'retry', 'unknown'

	# ---- ledger
	def led(self, j): return self.ledger.get(j.key) if j.se else None
	def children(self, l): return [c for c in self.ledger.values() if c.parent == l.key] if l and l.has_effects else []
	def set(self, l, j, state):
		l.state, l.job, l.queue, l.attempt, l.changed = state, j.id, j.queue, j.attempt, self.now
	def unknowns(self, l): return [x for x in [l] + self.children(l) if x.state == 'unknown'] if l else []
	def open_children(self, l): return [c for c in self.children(l) if c.state in ('started', 'unknown')]
	def fail_children(self, j):
		for c in self.children(self.led(j)):
			if c.state == 'started': self.set(c, j, 'unknown')
		return [c for c in self.children(self.led(j)) if c.state == 'unknown']

	# ---- where a job goes
	def requeue(self, j, at, mode):
		j.lease = j.lease_end = j.started = j.worker = None
		j.status, j.mode, j.run_after = 'pending', mode, max(at, self.now)
	def gone(self, j): del self.jobs[j.id]
	def die(self, j, reason):
		self.gone(j)
		j.lease = j.lease_end = j.started = j.worker = None
		j.status, j.reason, j.ended = 'pending', reason, self.now
		self.dead[j.id] = j

	# ---- enqueue
	def enqueue(self, queue, *jobs):
		"""jobs: (the id it gets if it is created, arguments)"""
		return [self.enter(j) for j in [self.new(queue, new_id, a) for new_id, a in jobs]]
	def new(self, queue, new_id, a):
		q, j = QUEUES[queue], NS(id=new_id, queue=queue, mode='execute', status='pending', attempt=0, failures=0,
			reconciles=0, losses=0, resumes=0, lease=None, lease_end=None, started=None, worker=None, cancel=False,
			final=None, last_class=None, last_message=None, enqueued=self.now, token=0)
		j.intent = (a['subject'], a['action_key'], a.get('scope'), a.get('intent_version', 1))
		j.key = intent_key(*j.intent)
		j.payload = json.dumps(a.get('payload', {}))
		j.priority, j.timeout, j.max_attempts, j.policy = a.get('priority', 0), a.get('timeout'), a.get('max_attempts'), a.get('retry_policy')
		j.se = a.get('side_effects', q.se)
		if j.timeout and not q.heartbeat and j.timeout + q.grace > q.lease: raise Refused('JQ005')
		j.run_after = max(a.get('run_after') or self.now + a.get('delay', 0) * MS, self.now)
		j.give_up = a.get('give_up_at')
		if j.give_up is not None and j.give_up <= j.run_after: raise Refused('22023')
		return j
	def enter(self, j):
		live = next((x for x in self.jobs.values() if x.key == j.key), None)
		l = self.ledger.get(j.key)
		known = l if l else live
		if l and not j.se or live and live.se != j.se or known and known.payload != j.payload: raise Refused('JQ007')
		if live: return self.known(j, live.id, 'duplicate', live.attempt, live.enqueued)
		if j.se:
			if l:
				outcome = {'committed': 'already_committed', 'failed_terminal': 'dead'}.get(l.state)
				if l.state != 'committed' and self.unknowns(l): outcome = 'unknown_effect'	# G6: of a child, too
				if outcome: return self.known(j, l.job, outcome, l.attempt, l.changed)
				self.set(l, j, 'planned')
			else:
				self.ledger[j.key] = l = NS(key=j.key, parent=None, effect=None, has_effects=False, payload=j.payload)
				self.set(l, j, 'planned')
		self.jobs[j.id] = j
		self.touched.add(j.id)
		return j.id, j.key, 'created', None
	def known(self, j, job_id, outcome, attempt, since):
		self.event(NS(id=job_id), 'action_duplicate_enqueue', attempt)
		return job_id, j.key, outcome, since

	# ---- claim
	def claim(self, queue, worker, qty, lease, modes, answers):
		"""answers: (lease_id, fencing_token) of what the engine granted, in order."""
		q = QUEUES[queue]
		self.check_lease(q, lease)
		wanted = {'all': ('execute',) if q.separate else ('execute', 'reconcile')}.get(modes, (modes,))
		out, aside = [], 0
		for j in sorted((j for j in self.jobs.values() if j.queue == queue and j.mode in wanted),
						key=lambda j: (j.priority, j.run_after, j.id)):
			if len(out) == qty or aside == 100: break
			l = self.led(j)
			if j.lease:
				if j.lease_end > self.now: continue
				self.lost(j)
				aside += 1
			elif j.run_after > self.now: continue
			elif l and l.job != j.id: raise NotImplementedError('key owned')
			elif l and l.state == 'committed' and j.mode == 'execute':
				self.event(j, 'action_suppressed')
				self.gone(j)
				aside += 1
			elif j.mode == 'execute' and j.give_up is not None and self.now >= j.give_up:
				self.past_deadline(j)
				aside += 1
			else:
				out.append(self.grant(j, l, lease, worker, *(answers[len(out)] if len(out) < len(answers) else (uuid.uuid4(), 0))))
		return out
	def grant(self, j, l, lease, worker, lease_id, token):
		assert j.mode == 'reconcile' or not self.unknowns(l), f'job {j.id}: an unknown effect would execute (G6)'
		previous = j.attempt
		j.status, j.attempt, j.started, j.lease, j.worker = 'running', j.attempt + 1, self.now, lease_id, worker
		j.lease_end = self.now + self.lease_for(j, lease) * MS
		j.token_ok, j.token = token > j.token, token
		if l and j.mode == 'execute' and l.state != 'started': self.set(l, j, 'started')
		self.attempts[j.id, lease_id] = NS(attempt=j.attempt, known=True, end=None, decision=None, stale=False, stale_beat=False, found=[])
		self.event(j, 'action_attempt_started')
		return NS(job_id=j.id, attempt_number=j.attempt, failures=j.failures, max_attempts=self.max_attempts(j),
			lease_expires_at=j.lease_end, deadline_at=self.deadline(j, self.now, j.mode), mode=j.mode, ledger_state=l and l.state,
			effects={c.effect: c.state for c in self.children(l)} or None, idempotency_key=j.key, timeout_ms=self.timeout(j),
			previous_attempt=previous or None, previous_error_class=j.last_class, previous_message=j.last_message, token_rises=j.token_ok)
	def deadline(self, j, since, mode='execute'):
		at = since + self.timeout(j) * MS
		return min(at, j.give_up) if j.give_up is not None and mode == 'execute' else at
	def past_deadline(self, j):
		if l := self.led(j):
			assert l.state in ('planned', 'failed_retryable')
			self.set(l, j, 'failed_terminal')
		self.event(j, 'action_exhausted')
		self.die(j, 'deadline')
	def settle_expired(self, queue):
		n = 0
		for j in [j for j in self.jobs.values() if j.queue == queue]:
			if j.lease and j.lease_end <= self.now: self.lost(j)
			elif not j.lease and j.run_after <= self.now and j.mode == 'execute' and j.give_up is not None and j.give_up <= self.now:
				if (l := self.led(j)) and l.state == 'committed': continue
				self.past_deadline(j)
			else: continue
			n += 1
		return n

	# ---- whose lease it is (G2)
	def find(self, job_id, lease, fn, strict=False):
		"""(job, None, None) under its own lease, else (None, answer, attempt)."""
		j = self.jobs.get(job_id)
		if j and j.lease == lease: return j, None, None
		if strict: raise Refused('JQ001')
		if not j and not self.events[job_id]: return None, 'unknown_job', None
		h = self.attempts.get((job_id, lease)) or NS(attempt=None, known=False, end=None, stale=False, stale_beat=False, found=[])
		if h.end and h.end.kind not in ('lost', 'cancelled') and fn != 'heartbeat': return None, 'reported', h
		if fn == 'heartbeat' and h.stale_beat: return None, 'stale', h
		last = max((a for _, a in self.events[job_id]), default=0)
		if h.known and not h.stale and last > h.attempt: self.finding('lease_overlap', job_id)
		self.stale(job_id, lease, h, fn, h.attempt if h.known else last)
		return None, 'stale', h
	def stale(self, job_id, lease, h, fn, attempt):
		self.attempts[job_id, lease] = h
		h.stale, h.stale_beat = True, h.stale_beat or fn == 'heartbeat'
		self.event(NS(id=job_id), 'action_stale_report', attempt)
		self.finding('stale', job_id)
		return 'stale'
	def repeat(self, job_id, h, same, at=None):
		self.event(NS(id=job_id), 'action_duplicate_report', at or h.attempt)
		answer = 'duplicate' if same else 'conflict'
		self.finding(answer, job_id)
		return answer
	def heartbeat(self, job_id, lease, asked):
		j, answer, h = self.find(job_id, lease, 'heartbeat')
		if not j: return answer, None
		h = self.attempts[job_id, lease]
		if self.now >= j.lease_end:
			if not h.stale_beat: self.stale(job_id, lease, h, 'heartbeat', j.attempt)
			return 'stale', None
		self.check_lease(QUEUES[j.queue], asked)
		j.lease_end = max(j.lease_end, self.now + self.lease_for(j, asked) * MS)
		self.touched.add(job_id)
		return 'cancel_requested' if j.cancel else 'extended', j.lease_end
	def validate_lease(self, job_id, lease):
		j = self.jobs.get(job_id)
		return bool(j and j.lease == lease and self.now < j.lease_end)
	def assert_lease(self, job_id, lease):
		if not self.validate_lease(job_id, lease): raise Refused('JQ001')
		return self.jobs[job_id].lease_end

	# ---- complete
	def complete(self, job_id, lease, result=None, strict=False):
		j, answer, h = self.find(job_id, lease, 'complete', strict)
		if answer == 'reported':
			e = h.end
			return self.repeat(job_id, h, e.kind == 'completed' and e.report == result or e.kind == 'reconciled' and (e.report[0] == 'landed' if 'reconciled_duplicate' in TOLERATED else e.done))
		if not j: return answer
		if j.mode == 'reconcile' or self.open_children(self.led(j)): raise Refused('JQ003')
		self.end(j, 'completed', report=result)
		self.late(j)
		if (l := self.led(j)) and l.state != 'committed': self.set(l, j, 'committed')
		self.event(j, 'action_attempt_succeeded')
		self.gone(j)
		return 'completed'
	def complete_batch(self, pairs):
		done = {}
		for p in sorted(set(pairs), key=lambda p: (p[0], p[1].bytes)):
			done[p] = self.complete(*p)
		return [(p[0], done[p]) for p in pairs]

	# ---- a failure
	def fail(self, job_id, lease, fn, cls, message=None, side_effect=None, asked=None):
		j, answer, h = self.find(job_id, lease, fn)
		if answer == 'reported':
			same = h.end.kind == 'failed' and h.end.report == (fn, cls, message, side_effect)
			return self.again(self.repeat(job_id, h, same), h)
		return self.failed(j, fn, cls, message, side_effect, asked) if j else NS(decision=answer)
	def again(self, answer, h): return NS(**{**vars(h.decision), 'decision': answer}) if h.decision else NS(decision=answer, any=True)
	def lost(self, j):
		self.finding('lost_lease', j.id)
		return self.failed(j, None, 'LeaseExpired')
	def failed(self, j, fn, cls, message=None, side_effect=None, asked=None):
		lost, always, l, p, h = not fn, fn == 'schedule_retry', self.led(j), self.policy(j), self.attempts[j.id, j.lease]
		name, disposition, effect = self.rule(p.name, cls)
		effect = 'unknown' if lost else side_effect or effect
		reconciling = j.mode == 'reconcile'
		if not lost: self.late(j)
		j.losses += lost
		if reconciling: j.reconciles += 1
		elif not lost or p.lost_counts: j.failures += 1
		j.resumes, j.last_class, j.last_message = 0, cls, message
		d = NS(decision=None, reason=None, rule='schedule_retry' if always else name, retry_policy=p.name, delay_ms=None, jitter_ms=None,
			next_not_before=None, attempt_number=j.attempt, failures=j.failures, max_attempts=self.max_attempts(j))
		self.end(j, 'lost' if lost else 'failed', report=(fn, cls, message, side_effect))
		h.decision = d
		self.event(j, 'action_attempt_lost' if lost else 'action_attempt_failed')
		self.fail_children(j)
		committed = l and l.state == 'committed'
		if l and not reconciling and not committed:
			self.set(l, j, {'unknown': 'unknown', 'none': 'failed_retryable', 'landed': 'committed'}[effect])
		unknown = self.unknowns(l)
		if not unknown and (committed or effect == 'landed'):
			suppressed = disposition == 'suppress' and not always and not lost
			d.decision, d.reason = 'suppressed' if suppressed else 'succeeded', 'ledger_committed' if committed else 'side_effect_landed'
			self.event(j, 'action_suppressed' if suppressed else 'action_attempt_succeeded')
			self.gone(j)
			return d

		n = max(j.failures, 1)
		d.jitter_ms = 0 if reconciling else jitter_ms(j.id, n, p.jitter)
		d.delay_ms = p.rec_delay if reconciling else backoff_ms(p, n) + d.jitter_ms
		if asked is not None:
			honor = disposition == 'honor_reset' and not always
			least = d.delay_ms if honor else p.min
			if reconciling: least = max(least, p.rec_delay)
			if honor: asked = min(asked, p.max_reset)
			if asked >= least or least != d.delay_ms: d.jitter_ms = 0
			d.delay_ms = max(asked, least)
		if lost and unknown and not ('lost_delay' in TOLERATED and committed): d.delay_ms = max(d.delay_ms, p.rec_delay)	# the old request may still be on its way
		d.delay_ms = max(d.delay_ms, 1)
		d.next_not_before = self.now + d.delay_ms * MS

		final = None
		if reconciling: final = 'unresolved' if j.reconciles >= p.rec_max else None
		elif disposition == 'terminal' and not always: final = 'terminal'
		elif j.failures >= d.max_attempts: final = 'budget'
		elif lost and j.losses >= p.max_lost: final = 'crash_loop'
		elif j.give_up is not None and d.next_not_before >= j.give_up: final = 'deadline'
		if unknown and not reconciling:			# first it is to be known what happened
			if final in ('terminal', 'crash_loop'): j.final = final
			final = None
		if j.cancel or final: d.delay_ms = d.jitter_ms = d.next_not_before = None
		if j.cancel:
			d.decision, d.reason = 'cancelled', 'unresolved' if unknown else 'cancelled'
			self.event(j, 'action_cancelled')
			self.die(j, 'unresolved') if unknown else self.gone(j)
		elif final:
			d.decision, d.reason = 'dead', final
			if l and not unknown: self.set(l, j, 'failed_terminal')
			self.event(j, 'action_terminal' if final == 'terminal' else 'action_exhausted')
			self.die(j, final)
		else:
			d.decision, d.reason = ('reconcile', 'side_effect_unknown') if unknown else ('retry', 'retryable')
			self.event(j, 'action_reconcile_scheduled' if unknown else 'action_retry_scheduled')
			self.requeue(j, d.next_not_before, 'reconcile' if unknown else 'execute')
		return d

	# ---- snooze, release (asked None)
	def resume(self, job_id, lease, fn, asked, reason):
		j, answer, h = self.find(job_id, lease, fn)
		if answer == 'reported':
			same = h.end.kind in ('snoozed', 'released', 'failed') and h.end.report[:3:2] == (fn, reason)
			return self.again(self.repeat(job_id, h, same), h)
		if not j: return NS(decision=answer)
		l, p, h = self.led(j), self.policy(j), self.attempts[job_id, lease]
		if self.open_children(l): raise Refused('JQ004')
		committed = l and l.state == 'committed'
		if j.resumes == 10 and not committed: return self.failed(j, fn, 'ReleasedTooOften', reason)
		n = j.resumes + 1
		d = h.decision = NS(decision=fn + 'd', reason=None, rule=None, retry_policy=p.name, delay_ms=asked or 0, jitter_ms=0,
			next_not_before=None, attempt_number=j.attempt, failures=j.failures, max_attempts=self.max_attempts(j))
		self.end(j, d.decision, report=(fn, None, reason))
		self.late(j)
		if l and l.state == 'started': self.set(l, j, 'planned')
		self.event(j, 'action_' + d.decision)
		if committed or j.cancel:
			d.delay_ms = d.jitter_ms = None
			d.decision, d.reason = ('succeeded', 'ledger_committed') if committed else ('cancelled', 'unresolved' if self.unknowns(l) else 'cancelled')
			self.event(j, 'action_attempt_succeeded' if committed else 'action_cancelled')
			self.die(j, 'unresolved') if self.unknowns(l) else self.gone(j)
			return d
		if n >= 2:
			jitter = jitter_ms(j.id, n, p.jitter)
			if backoff_ms(p, n) + jitter > d.delay_ms: d.delay_ms, d.jitter_ms = backoff_ms(p, n) + jitter, jitter
		d.next_not_before, j.resumes = self.now + d.delay_ms * MS, n
		self.requeue(j, d.next_not_before, j.mode)
		return d

	# ---- findings about unknown effects
	def no_more_execution(self, j):
		if j.final: return j.final
		if j.failures >= self.max_attempts(j): return 'budget'
		if j.give_up is not None and self.now >= j.give_up: return 'deadline'
	def reconcile(self, job_id, lease, finding, effect=None):
		"""(outcome, next_not_before, lease_expires_at, deadline_at)"""
		j, answer, h = self.find(job_id, lease, 'reconcile')
		if answer == 'reported':
			same = h.end.kind == 'reconciled' and (h.end.report == (finding, effect) or 'reconcile_effect' in TOLERATED and h.end.report[0] == finding)
			return self.repeat(job_id, h, same), h.end.next if same else None, None, None
		if not j: return answer, None, None, None
		l, h = self.led(j), self.attempts[job_id, lease]
		if not l: raise Refused('JQ004')
		row = self.ledger.get(effect_key(j.key, effect)) if effect else l
		if not row or row.state != 'unknown' or j.mode == 'execute':
			before = next((f for f in reversed(h.found) if f.effect == effect), None)
			if not before: raise Refused('JQ004')
			if before.finding != finding: return self.repeat(job_id, h, False), None, None, None
			if self.now >= j.lease_end: return self.stale(job_id, lease, h, 'reconcile', j.attempt), None, None, None
			return before.outcome, None, j.lease_end, 'any'
		late = self.now >= j.lease_end
		if late and finding == 'not_landed': return self.stale(job_id, lease, h, 'reconcile', j.attempt), None, None, None
		self.late(j)
		return self.found(j, l, row, finding, effect, h, late)
	def found(self, j, l, row, finding, effect, h, late):
		def done(outcome, next=None, lease_end=None, deadline=None, ends=True):
			h.found.append(NS(effect=effect, finding=finding, outcome=outcome))
			if ends:
				self.attempts[j.id, lease].end = NS(kind='reconciled', at=self.now, report=(finding, effect), done=outcome == 'done', next=next)
			self.event(j, 'action_reconciled')
			return outcome, next, lease_end, deadline
		def later(mode):
			if j.cancel:
				self.die(j, 'unresolved')
				return done('dead')
			self.requeue(j, self.now + self.policy(j).rec_delay * MS, mode)
			return done('retry', j.run_after)
		lease = j.lease
		if finding == 'undetermined': return later('reconcile')
		self.set(row, j, 'committed' if finding == 'landed' else 'failed_retryable')
		if self.unknowns(l): return done('reconcile', None, j.lease_end, ends=False)
		if l.state == 'committed':				# final, whatever comes next
			self.gone(j)
			return done('done')
		if j.cancel:							# an operator asked for the end, and nothing is unknown any more
			self.set(l, j, 'failed_retryable')
			done('dead')
			self.event(j, 'action_cancelled')
			self.gone(j)
			return h.found[-1].outcome, None, None, None
		if final := self.no_more_execution(j):	# G4: budget and give_up_at are looked at now
			self.set(l, j, 'failed_terminal')
			self.die(j, final)
			done('dead')
			self.event(j, 'action_terminal' if final == 'terminal' else 'action_exhausted')
			return h.found[-1].outcome, None, None, None
		if late:								# the past counts, the future is not granted
			self.set(l, j, 'failed_retryable')
			return later('execute')
		self.set(l, j, 'started')
		j.mode, j.run_after = 'execute', self.now
		j.lease_end = max(j.lease_end, self.now + self.lease_for(j, None) * MS)
		return done('execute', None, j.lease_end, self.deadline(j, self.now), ends=False)
	def ledger_transition(self, job_id, lease, to, effect=None):
		j, answer, h = self.find(job_id, lease, 'ledger_transition')
		if answer == 'reported':
			return self.stale(job_id, lease, h, 'ledger_transition', h.attempt), None
		if not j: return answer, None
		l, h = self.led(j), self.attempts[job_id, lease]
		if not l: raise Refused('JQ004')
		key = effect_key(j.key, effect) if effect else l.key
		row = self.ledger.get(key)
		state = row.state if row else None
		if state == to: return 'duplicate', to
		if j.mode == 'reconcile' or not (effect and to == 'started' and state in (None, 'planned', 'failed_retryable') or
				state == 'started' and to == 'committed' or effect and state == 'started' and to == 'failed_retryable'): raise Refused('JQ004')
		if to == 'started' and self.now >= j.lease_end: return self.stale(job_id, lease, h, 'ledger_transition', j.attempt), None
		if not row:
			row = self.ledger[key] = NS(key=key, parent=l.key, effect=effect, has_effects=False)
			if not l.has_effects: l.has_effects, l.changed = True, self.now
		self.set(row, j, to)
		self.late(j)
		self.event(j, 'action_ledger_changed')
		return 'ok', to

	# ---- operators
	def cancel(self, job_id, force):
		j = self.jobs.get(job_id)
		if not j: return 'unknown_job'
		if j.lease and not force:
			if not j.cancel: self.event(j, 'action_cancel_requested')
			j.cancel = True
			return 'requested'
		return 'dead' if self.end_now(j, 'action_cancelled') else 'cancelled'
	def end_now(self, j, kind):
		l = self.led(j)
		self.fail_children(j)
		if j.lease:
			if l and l.state == 'started': self.set(l, j, 'unknown')
			self.end(j, 'cancelled', report=(None, None, None))
		self.event(j, kind)
		unknown = self.unknowns(l)
		if j.lease and l and l.state == 'committed' and not unknown: self.event(j, 'action_attempt_succeeded')
		self.die(j, 'unresolved') if unknown else self.gone(j)
		return unknown
	def purge(self, queue, running):
		n = 0
		for j in [j for j in self.jobs.values() if j.queue == queue and (running or not j.lease)]:
			self.end_now(j, 'action_purged')
			n += 1
		return n
	def redrive(self, job_id):
		j = self.dead.get(job_id)
		if not j: return 'unknown_job', None
		l = self.led(j)
		known = self.ledger.get(j.key)			# also by a job that declared side effects where this one did not
		if known and (known.state == 'committed' or not j.se) or any(x.key == j.key for x in self.jobs.values()): raise Refused('JQ004')
		del self.dead[job_id]
		j.failures = j.reconciles = j.losses = j.resumes = 0
		j.cancel, j.final = False, None
		if j.give_up is not None and j.give_up <= self.now: j.give_up = None
		for c in self.children(l):
			if c.state == 'failed_terminal' and 'redrive_child' not in TOLERATED: self.set(c, j, 'planned')
		if l: self.set(l, j, 'planned' if l.state == 'failed_terminal' else l.state)
		self.jobs[j.id] = j
		self.requeue(j, self.now, 'reconcile' if self.unknowns(l) else 'execute')
		self.event(j, 'action_redriven')
		return 'redriven', j.id
	def settle_unknown(self, key, finding):
		row = self.ledger.get(key)
		if not row: raise Refused('42704')
		l = self.ledger[row.parent] if row.parent else row
		j = self.jobs.get(l.job) or self.dead.get(l.job)
		abandoned = finding == 'abandoned'		# of the whole action, and with it of what is unknown of its parts
		if j and j.lease or abandoned and row.parent or not (self.unknowns(l) if abandoned else row.state == 'unknown'): raise Refused('JQ004')
		live = l.job in self.jobs
		for x in self.unknowns(l) if abandoned else [row]:
			self.set(x, j, {'landed': 'committed', 'not_landed': 'failed_retryable', 'abandoned': 'failed_terminal'}[finding])
		self.event(j, 'action_reconciled')
		answer = row.state, j.id
		if abandoned and (l.state != 'committed' or 'abandon_committed' in TOLERATED): final = 'abandoned'
		elif self.unknowns(l):
			if live: self.requeue(j, j.run_after, 'reconcile')
			return answer
		elif l.state == 'committed':
			self.jobs.pop(j.id, None), self.dead.pop(j.id, None)
			return answer
		else: final = self.no_more_execution(j) if live else None
		if final:
			self.set(l, j, 'failed_terminal')
			if live: self.die(j, final)
			j.reason = final
		elif live: self.requeue(j, j.run_after, 'execute')
		return l.state if row is l else row.state, j.id

	# ---- outcome
	def outcome(self, job_id, lease):
		j, h = self.jobs.get(job_id), self.attempts.get((job_id, lease))
		if not j and not self.events[job_id]: return 'unknown_job', None, None
		state = j.status if j else 'ended'
		if j and j.lease == lease: return 'running', None, state
		if not h or not h.known: return 'stale', None, state
		return (h.end.kind if h.end else 'lost'), 'any', state

# ---------------------------------------------------------------- the driver

class Divergence(Exception): pass

JOB = '''job_id status mode run_after attempt_number failures reconciles losses resumes lease_id lease_expires_at started_at worker_name
	cancel_requested_at final_reason last_error_class last_error_message priority give_up_at fencing_token idempotency_key'''.split()
def job_row(j):
	return dict(zip(JOB, (j.id, j.status, j.mode, j.run_after, j.attempt, j.failures, j.reconciles, j.losses, j.resumes, j.lease, j.lease_end, j.started,
		j.worker, j.cancel, j.final, j.last_class, j.last_message, j.priority, j.give_up, j.token, j.key)))
def dead_row(j): return {**job_row(j), 'mode': None, 'run_after': None, 'reason': j.reason, 'ended_at': j.ended}
def ledger_row(l): return dict(key=l.key, state=l.state, job_id=l.job, attempt_number=l.attempt, has_effects=l.has_effects, parent_key=l.parent, effect=l.effect, changed_at=l.changed)
COLUMNS = ', '.join(f'{c} IS NOT NULL AS {c}' if c == 'cancel_requested_at' else c for c in JOB)
READ = {
	'job': f'SELECT {COLUMNS} FROM holdfast.job WHERE job_id = ANY(%s)',
	'dead_job': f"SELECT {COLUMNS.replace(' mode', ' NULL AS mode').replace(' run_after', ' NULL AS run_after')}, reason, ended_at FROM holdfast.dead_job WHERE job_id = ANY(%s)",
	'ledger': 'SELECT idempotency_key AS key, state, job_id, attempt_number, has_effects, parent_key, effect, changed_at FROM holdfast.ledger WHERE idempotency_key = ANY(%s)',
	'unknown_effect': 'SELECT idempotency_key AS key, job_id FROM holdfast.unknown_effect WHERE idempotency_key = ANY(%s)',
	'events': '''SELECT event_id, job_id, kind, attempt_number, side_effect_state, at FROM holdfast.event WHERE job_id = ANY(%(j)s) AND event_id > %(e)s
		UNION ALL SELECT event_id, job_id, kind, attempt_number, side_effect_state, at FROM holdfast.event_overflow WHERE job_id = ANY(%(j)s) AND event_id > %(e)s ORDER BY 1''',
	'findings': 'SELECT kind, job_id, count(*) FROM holdfast.finding WHERE job_id = ANY(%s) GROUP BY 1, 2',
	'last': 'SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS last_value FROM holdfast.event_id_seq'}
STATE_RIDES = {'action_' + k for k in '''attempt_started attempt_succeeded attempt_failed attempt_lost retry_scheduled reconcile_scheduled snoozed released cancelled
	suppressed exhausted terminal redriven purged'''.split()}

class Driver:
	def __init__(self, args, dsn):
		import psycopg
		from psycopg.rows import dict_row
		self.pg, self.args, self.m, self.log, self.calls, self.frontier = psycopg, args, Model(), [], 0, 12
		self.tally, self.refusals = collections.Counter(), collections.Counter()
		def connect(**kw):
			c = psycopg.connect(dsn, autocommit=True, prepare_threshold=1, **kw)
			c.execute("SET timezone = 'UTC'; SET client_min_messages = warning; SET intervalstyle = 'postgres'")
			c.add_notice_handler(lambda d: self.notices.append(f'{d.sqlstate} {d.message_primary}') if d.severity_nonlocalized == 'WARNING' else None)
			return c
		self.notices = []
		self.sessions = [NS(n=n, c=connect(row_factory=dict_row), clock=None) for n in range(args.sessions)]
		if args.scan_hint:
			for s in self.sessions: s.c.execute(f"LOAD 'holdfast'; SET holdfast.scan_hint = '{args.scan_hint}'")
		self.watch = connect(row_factory=dict_row)
		self.set_clock(self.sessions[0])
		self.queue_ids, self.last_event, self.findings_seen = {}, 0, collections.Counter()
	def close(self):
		for c in [s.c for s in self.sessions] + [self.watch]: c.close()
	def set_clock(self, s):
		if s.clock != self.m.now:
			s.c.execute("SELECT set_config('holdfast.clock', %s, false)", [str(stamp(self.m.now))])
			s.clock = self.m.now

	def make_queues(self):
		c = self.sessions[0].c
		ms = lambda n: None if n is None else f'{n} ms'
		c.execute("LOAD 'holdfast'")
		for p in list(POLICIES.values())[1:]:
			c.execute('''SELECT holdfast.define_retry_policy(%s, %s::interval, %s, %s::interval, %s::interval, %s::interval, %s, %s, %s, %s::interval, %s::interval, %s)''',
				(p.name, ms(p.base), p.rate, ms(p.max), ms(p.jitter), ms(p.min), p.max_attempts, p.lost_counts, p.max_lost, ms(p.max_reset), ms(p.rec_delay), p.rec_max))
		for (p, cls), (d, e) in RULES.items():
			if p != 'default': c.execute('SELECT holdfast.define_error_rule(%s, %s, %s, %s)', (p, cls, d, e))
		for q in QUEUES.values():
			c.execute('''SELECT holdfast.create_queue(%s, lease => %s::interval, timeout => %s::interval, grace => %s::interval, heartbeat => %s::interval, retry_policy => %s,
				max_attempts => %s, side_effects => %s, reconcile => %s)''', (q.name, ms(q.lease), ms(q.timeout), ms(q.grace), ms(q.heartbeat), q.policy, q.max_attempts, q.se,
				'separate' if q.separate else 'any'))
		for r in c.execute('SELECT queue_name, queue_id FROM holdfast.queue').fetchall(): self.queue_ids[r['queue_name']] = r['queue_id']
		rules = {(r['policy_name'], r['error_class']): (r['disposition'], r['side_effect']) for p in POLICIES for r in c.execute('SELECT * FROM holdfast.list_error_rules(%s)', [p]).fetchall()}
		assert all(rules[k] == v for k, v in RULES.items()), 'the rules are not those of the model'

	# ---- one call: to the engine, to the model, compared
	def call(self, what, jobs, sql, params, model, compare, rollback=False, batch=False, keys=()):
		s = random.Random(f'{self.args.seed}/{self.calls}/session').choice(self.sessions)
		self.set_clock(s)
		self.calls += 1
		self.tally[what] += 1
		self.note = f'{self.calls}: session {s.n}, clock {stamp(self.m.now):%H:%M:%S.%f}: {sql % tuple(map(repr, params))}'
		self.log.append((set(jobs), self.note))
		m, m.touched = self.m, set(jobs)
		try:
			if rollback: s.c.execute('BEGIN')
			got = s.c.execute(sql, params).fetchall()
		except self.pg.Error as e:
			if e.sqlstate is None or e.sqlstate[:2] in ('XX', '57', '08'): self.fail(f'the engine raised {e.sqlstate}: {e}')
			got = e.sqlstate
		finally:
			if rollback: s.c.execute('ROLLBACK')
		if rollback or batch and isinstance(got, str): m = copy.deepcopy(m)
		try:
			want = model(m, got)
		except Refused as e:
			want = e.args[0]
			m.touched = set(jobs)
			self.refusals[want] += 1
		except AssertionError as e:
			self.fail(f'the model: {e}')
		self.log[-1][0].update(m.touched)
		if self.notices: self.fail(f'the engine warned: {self.notices}')
		if isinstance(got, str) or isinstance(want, str): same = got == want
		else: same = compare(want, got)
		if same is not True: self.fail(f'expected {want}\ngot      {got}' + ('' if same is False else f'\ndiffers  {same}'))
		if rollback: self.m.touched = set(m.touched)
		self.compare(self.m.touched, set(keys), isinstance(got, str) or rollback)
		if self.calls % 1000 == 0: self.compare_all()

	def fail(self, what):
		jobs = self.log[-1][0]
		lines = [note for touched, note in self.log if touched & jobs][-15:] if len(jobs) < 6 else [n for _, n in self.log[-15:]]
		for i in sorted(jobs):
			j = self.m.jobs.get(i) or self.m.dead.get(i)
			if j and len(jobs) < 6: lines.append(f'model: job {i} of {j.queue} ' + str({k: v for k, v in job_row(j).items() if v not in (None, 0, False)}))
		raise Divergence(f'seed {self.args.seed}, call {self.calls}\n{self.note}\n{what}\nthe last calls on {sorted(jobs)}:\n  ' + '\n  '.join(lines))

	def differ(self, table, want, got):
		for r in got.values():
			for k, v in r.items():
				if isinstance(v, dt.datetime): r[k] = micros(v)
		for k in want.keys() | got.keys():
			w, g = want.get(k), got.get(k)
			if w != g:
				self.log[-1][0].add((w or g).get('job_id'))
				if w and g: w, g = ({c: v for c, v in x.items() if (w.get(c), c) != (g.get(c), c)} for x in (w, g))
				self.fail(f'{table} {k}:\nexpected {w}\ngot      {g}')

	def read(self, ids, keys):
		with self.watch.pipeline():
			cur = {t: self.watch.execute(q, {'j': ids, 'e': self.last_event} if t == 'events' else None if t == 'last' else [keys if t in ('ledger', 'unknown_effect') else ids])
				for t, q in READ.items()}
			return {t: c.fetchall() for t, c in cur.items()}
	def compare(self, ids, keys, unchanged=False):
		m, ids = self.m, list(ids)
		mine = [j for i in ids for j in [m.jobs.get(i) or m.dead.get(i)] if j]
		keys = set(keys) | {j.key for j in mine if j.se} | {l.key for l in m.ledger.values() if l.job in ids}
		keys |= {c.key for k in list(keys) if k in m.ledger for c in m.children(m.ledger[k])}
		rows = self.read(ids, list(keys))
		self.differ('job', {i: job_row(m.jobs[i]) for i in ids if i in m.jobs}, {r['job_id']: r for r in rows['job']})
		self.differ('dead_job', {i: dead_row(m.dead[i]) for i in ids if i in m.dead}, {r['job_id']: r for r in rows['dead_job']})
		self.compare_ledger(keys, rows)
		got = [(r['job_id'], r['kind'], r['attempt_number']) for r in rows['events']]
		want = [(i, *e) for i in ids for e in m.events[i][m.seen.get(i, 0):]]
		if 'batch_repeat' in TOLERATED: got, want = ([(i, k, 'duplicate' in k and 'enqueue' in k or a) for i, k, a in e] for e in (got, want))
		if sorted(got) != sorted(want): self.fail(f'events:\nexpected {sorted(want)}\ngot      {sorted(got)}')
		for r in rows['events']:
			j = next((l for l in m.ledger.values() if l.job == r['job_id'] and not l.parent), None)
			if 'cancelled_state' in TOLERATED and r['kind'] == 'action_cancelled': continue
			if r['kind'] in STATE_RIDES and r['side_effect_state'] != (j.state if j else None):
				self.fail(f"event {r['kind']} says side_effect_state {r['side_effect_state']}, the ledger {j and j.state}")
		if not unchanged and rows['last'][0]['last_value'] - self.last_event != len(want):
			self.fail(f"{rows['last'][0]['last_value'] - self.last_event} events were written, {len(want)} expected")
		for i in ids: m.seen[i] = len(m.events[i])
		self.last_event = rows['last'][0]['last_value']
		want = {k: n for k, n in m.findings.items() if k[1] in ids}
		got = {(r['kind'], r['job_id']): r['count'] for r in rows['findings']}
		if want != got: self.fail(f'findings: expected {set(want.items()) - set(got.items())}, got {set(got.items()) - set(want.items())}')
	def compare_ledger(self, keys, rows):
		m = self.m
		self.differ('ledger', {k: ledger_row(m.ledger[k]) for k in keys if k in m.ledger}, {r['key']: r for r in rows['ledger']})
		self.differ('unknown_effect', {k: dict(key=k, job_id=m.ledger[k].job) for k in keys if k in m.ledger and m.ledger[k].state == 'unknown'},
			{r['key']: r for r in rows['unknown_effect']})
	def judge_retries(self):
		"""Every attempt after another was delayed by policy, or is explained otherwise; every stop is the policy's."""
		for what, sql in (
			('a retry that holdfast scheduled is unexplained or without backoff', """SELECT job_id_b, attempt_number_b, verdict, also, because FROM holdfast.attempt_pair
				WHERE verdict = 'unexplained' OR verdict = 'retry_without_backoff' LIMIT 3"""),
			('a stop is unexplained or premature', "SELECT job_id, reason, because FROM holdfast.stop_reason WHERE reason IN ('premature_stop', 'unexplained_stop') LIMIT 3")):
			rows = self.watch.execute(sql).fetchall()
			if rows: raise Divergence(f'{what}: {rows}')
		self.tally.update({f'pair {r["verdict"]}': r['n'] for r in self.watch.execute('SELECT verdict, count(*) AS n FROM holdfast.attempt_pair GROUP BY 1').fetchall()})
	def compare_all(self):
		m, q = self.m, lambda t: self.watch.execute(READ[t].replace(' = ANY(%s)', ' IS NOT NULL')).fetchall()
		self.differ('job', {i: job_row(j) for i, j in m.jobs.items()}, {r['job_id']: r for r in q('job')})
		self.differ('dead_job', {i: dead_row(j) for i, j in m.dead.items()}, {r['job_id']: r for r in q('dead_job')})
		self.compare_ledger(m.ledger, {'ledger': q('ledger'), 'unknown_effect': q('unknown_effect')})
		got = collections.Counter({(r['job_id'], r['kind'], r['attempt_number']): r['n'] for r in self.watch.execute('''SELECT job_id, kind, attempt_number, count(*) AS n FROM
			(SELECT * FROM holdfast.event UNION ALL SELECT * FROM holdfast.event_overflow) e GROUP BY 1, 2, 3''').fetchall()})
		want = collections.Counter((i, *e) for i, es in m.events.items() for e in es)
		if got != want and 'batch_repeat' not in TOLERATED: self.fail(f'events: missing {want - got}, too many {got - want}')
		back = self.watch.execute('''SELECT * FROM (SELECT job_id, kind, attempt_number, event_id, at, lag(at) OVER w AS at_before, lag(attempt_number) OVER w AS attempt_before, lag(kind) OVER w AS kind_before FROM
			(SELECT * FROM holdfast.event UNION ALL SELECT * FROM holdfast.event_overflow) e WINDOW w AS (PARTITION BY job_id, attempt_number ORDER BY event_id)) x WHERE at < at_before LIMIT 3''').fetchall()
		if back and 'time' not in TOLERATED: self.fail(f'event times go back: {back}')

	# ---- random calls
	def pair(self, r):
		"""A job and a lease: mostly a current one, else a past one, another job's, or none at all."""
		m, x = self.m, r.random()
		running = [j for j in m.jobs.values() if j.lease]
		recent = list(m.attempts)[-80:]
		if running and x < .72:
			j = r.choice(running)
			return j.id, j.lease
		if recent and x < .92: return r.choice(recent)
		if running and recent and x < .96: return r.choice(running).id, r.choice(recent)[1]
		if m.jobs and x < .985: return r.choice(list(m.jobs)), uuid.UUID(int=r.getrandbits(128))
		return r.choice([0, -1, 10 ** 9]), uuid.UUID(int=r.getrandbits(128))
	def pick(self, r, *weighted):
		return r.choices([v for v, _ in weighted], [w for _, w in weighted])[0]

	def step(self, i):
		r = random.Random(f'{self.args.seed}/{i}')
		few = len(self.m.jobs) < 30
		op = self.pick(r, ('advance', 22), ('enqueue', 18 if few else 5), ('enqueue_batch', 4 if few else 1), ('claim', 22), ('complete', 6), ('complete_batch', 2),
			('complete_and_claim', 3), ('fail', 14), ('schedule_retry', 4), ('snooze', 4), ('release', 3), ('heartbeat', 5), ('reconcile', 12), ('transition', 9),
			('cancel', 3), ('redrive', 3), ('settle_unknown', 3), ('settle_expired', 2), ('maintain', .15), ('purge', .05), ('outcome', 2), ('assert', 2), ('in_one', 2))
		getattr(self, 'do_' + op)(r)

	def do_advance(self, r):
		m = self.m
		at = [j.run_after for j in m.jobs.values() if not j.lease] + [j.lease_end for j in m.jobs.values() if j.lease] + [j.give_up for j in m.jobs.values() if j.give_up]
		at = sorted(t for t in at if t > m.now)[:6]
		kind = r.random()
		if at and kind < .35: to = r.choice(at)
		elif at and kind < .5: to = r.choice(at) - MS
		else: to = m.now + self.pick(r, (r.randrange(200 * MS), 3), (r.randrange(5 * S), 4), (r.randrange(30 * S), 1), (1, .3), (r.randrange(3600 * S), .03))
		m.now = max(to, m.now)
		if kind < .5 and at:
			due = [j.queue for j in m.jobs.values() if j.run_after in (m.now, m.now + MS) or j.lease_end in (m.now, m.now + MS)]
			if due: self.claim(r, r.choice(due))

	def new_job(self, r, queue):
		self.frontier += r.random() < .3
		n = max(0, self.frontier - int(r.expovariate(.08)))
		q, x = QUEUES[queue], random.Random(n)
		a = dict(action_key=x.choice(['send', 'charge']), subject=f's{n}')
		if x.random() < .3: a['scope'] = x.choice(['x', 'y'])
		if x.random() < .2: a['intent_version'] = x.choice([0, 2])
		a['payload'] = {'n': n if r.random() > .02 else -1}
		run = self.m.now
		if r.random() < .25:
			a['delay'] = r.choice([0, 1, r.randrange(5000)])
			run += a['delay'] * MS
		elif r.random() < .2:
			a['run_after'] = self.m.now + r.randrange(-5 * S, 5 * S)
			run = max(run, a['run_after'])
		if r.random() < .3: a['priority'] = r.choice([-1, 0, 1, 5])
		if r.random() < .2: a['timeout'] = r.choice([1, 2000, 12000, 40000])
		if r.random() < .3: a['give_up_at'] = run + r.choice([0, MS, r.randrange(1, 6 * S), r.randrange(1, 60 * S)])
		if r.random() < .2: a['max_attempts'] = r.choice([1, 2, 3])
		if r.random() < .15: a['retry_policy'] = r.choice(['p1', 'p2', 'p3'])
		if r.random() < .03: a['side_effects'] = not q.se
		return a
	def sql_value(self, k, v):
		if k in ('delay', 'timeout'): return f'{v} ms'
		if k in ('run_after', 'give_up_at'): return stamp(v)
		return json.dumps(v) if k == 'payload' else v
	def queue_for(self, r): return r.choice(['qa', 'qa', 'qb', 'qb', 'qc', 'qd', 'qe', 'qf'])
	def do_enqueue(self, r):
		queue = self.queue_for(r)
		a = self.new_job(r, queue)
		names = list(a)
		def compare(want, got):
			g = got[0]
			return (g['job_id'], g['idempotency_key'], g['outcome'], micros(g['existing_since'])) == want[0]
		def model(m, got):
			return m.enqueue(queue, (got[0]['job_id'] if not isinstance(got, str) else 0, a))
		key = intent_key(a['subject'], a['action_key'], a.get('scope'), a.get('intent_version', 1))
		self.call('enqueue', [], 'SELECT * FROM holdfast.enqueue(%s, ' + ', '.join(f'{k} => %s' for k in names) + ')',
			[queue] + [self.sql_value(k, a[k]) for k in names], model, compare, rollback=r.random() < .02, keys=[key])
	def do_enqueue_batch(self, r):
		queue = self.queue_for(r)
		jobs = [self.new_job(r, queue) for _ in range(r.randrange(1, 7))]
		if r.random() < .3: jobs.append(dict(r.choice(jobs)))
		for a in jobs:
			if r.random() < .95: a['payload'] = {'n': int(a['subject'][1:])}
			if r.random() < .9 or 'batch_mixed' in TOLERATED: a.pop('side_effects', None)
		def model(m, got): return m.enqueue(queue, *((got[i]['job_id'] if not isinstance(got, str) else -i, a) for i, a in enumerate(jobs)))
		def compare(want, got): return [(g['job_id'], g['idempotency_key'], g['outcome'], micros(g['existing_since'])) for g in got] == want and [g['ordinal'] for g in got] == list(range(1, len(jobs) + 1))
		text = json.dumps([{k: str(v) if isinstance(v := self.sql_value(k, a[k]), dt.datetime) else a[k] if k == 'payload' else v for k in a} for a in jobs])
		self.call('enqueue_batch', [], 'SELECT * FROM holdfast.enqueue_batch(%s, %s)', [queue, text], model, compare, batch=True, rollback=r.random() < .02)

	def same_context(self, want, got):
		if len(want) != len(got): return f'{len(want)} jobs expected, {[w.job_id for w in want]}, {len(got)} came, {[g["job_id"] for g in got]}'
		for w, g in zip(want, got):
			g = {**g, 'lease_expires_at': micros(g['lease_expires_at']), 'deadline_at': micros(g['deadline_at']), 'token_rises': True,
				'effects': {k: v['state'] for k, v in g['effects'].items()} if g['effects'] else None}
			d = {k: (v, g[k]) for k, v in vars(w).items() if v != g[k]}
			if d: return f'job {w.job_id}: (expected, got) {d}'
		return True
	def claim_args(self, r, queue):
		q = QUEUES[queue]
		lease = self.pick(r, (None, 8), (q.lease * 2, 1), (3 * (q.heartbeat or 10000), 1), (r.randrange(1, 30000), 1))
		return r.choice(['w1', 'w2', 'w3']), r.choice([1, 1, 2, 3, 10]), lease, self.pick(r, ('all', 6), ('execute', 1), ('reconcile', 3 if q.separate else 1))
	def claim(self, r, queue):
		worker, qty, lease, modes = self.claim_args(r, queue)
		def model(m, got):
			return m.claim(queue, worker, qty, lease, modes, [(g['lease_id'], g['fencing_token']) for g in got] if not isinstance(got, str) else [])
		self.call('claim', [], 'SELECT * FROM holdfast.claim(%s, %s, %s, %s, %s)', [queue, worker, qty, lease and f'{lease} ms', modes], model, self.same_context,
			rollback=r.random() < .03)
	def do_claim(self, r): self.claim(r, r.choice(list(QUEUES)))
	def pairs(self, r):
		pairs = [self.pair(r) for _ in range(r.randrange(0, 5))]
		pairs = [p for p in pairs if not ((j := self.m.jobs.get(p[0])) and j.lease == p[1] and j.mode == 'reconcile') or r.random() < .1]
		if pairs and r.random() < .3: pairs.append(pairs[0])
		return pairs
	def do_complete_batch(self, r):
		pairs = self.pairs(r)
		self.call('complete_batch', [p[0] for p in pairs], 'SELECT * FROM holdfast.complete_batch(%s::bigint[], %s::uuid[])', [[p[0] for p in pairs], [p[1] for p in pairs]],
			lambda m, got: m.complete_batch(pairs), lambda want, got: [(g['job_id'], g['outcome']) for g in got] == want, batch=True)
	def do_complete_and_claim(self, r):
		queue, pairs = r.choice(list(QUEUES)), self.pairs(r)
		worker, qty, lease, modes = self.claim_args(r, queue)
		def model(m, got):
			done = m.complete_batch(pairs)
			granted = [] if isinstance(got, str) else [(g['lease_id'], g['fencing_token']) for g in got if g['kind'] == 'claimed']
			return done, m.claim(queue, worker, qty, lease, modes, granted)
		def compare(want, got):
			if [(g['job_id'], g['outcome']) for g in got if g['kind'] == 'completed'] != want[0]: return 'completed'
			return self.same_context(want[1], [g for g in got if g['kind'] == 'claimed'])
		self.call('complete_and_claim', [p[0] for p in pairs], 'SELECT * FROM holdfast.complete_and_claim(%s, %s, %s::bigint[], %s::uuid[], %s, %s, %s)',
			[queue, worker, [p[0] for p in pairs], [p[1] for p in pairs], qty, lease and f'{lease} ms', modes], model, compare, batch=True)

	def do_complete(self, r):
		p, result, strict = self.pair(r), r.choice([None, None, {'ok': 1}, {'ok': 2}]), r.random() < .1
		self.call('complete', [p[0]], 'SELECT holdfast.complete(%s, %s, %s, %s) AS outcome', [*p, result and json.dumps(result), strict],
			lambda m, got: [m.complete(*p, result, strict)], lambda want, got: got[0]['outcome'] == want[0], rollback=r.random() < .02)
	def same_decision(self, want, got):
		w, g = vars(want[0]), got[0]
		if 'cancelled_reason' in TOLERATED and w['decision'] in ('duplicate', 'conflict') and not w.get('any') and len(w) > 1 and w['reason'] in ('cancelled', 'unresolved', 'ledger_committed'):
			w = {'decision': w['decision']}
		if w.get('any') or len(w) == 1: return w['decision'] == g['decision']
		g = {**g, 'next_not_before': micros(g['next_not_before'])}
		d = {k: (v, g[k]) for k, v in w.items() if v != g[k]}
		return not d or f'(expected, got) {d}'
	def decide(self, what, p, sql, params, model, r):
		self.call(what, [p[0]], sql, [*p, *params], lambda m, got: [model(m)], self.same_decision, rollback=r.random() < .02)
	def do_fail(self, r):
		p, cls, message = self.pair(r), r.choice(CLASSES), r.choice([None, None, 'no'])
		se = self.pick(r, (None, 6), ('none', 4), ('unknown', 2), ('landed', 1))
		after = self.pick(r, (None, 5), (r.choice([0, 1, 100, r.randrange(30000)]), 2))
		at = self.m.now + r.randrange(-2 * S, 20 * S) if after is None and r.random() < .15 else None
		asked = after if at is None else max(0, -(-(at - self.m.now) // MS))
		self.decide('fail', p, 'SELECT * FROM holdfast.fail(%s, %s, %s, %s, %s, retry_after => %s, retry_at => %s)',
			[cls, message, se, None if after is None else f'{after} ms', stamp(at)], lambda m: m.fail(*p, 'fail', cls, message, se, asked), r)
	def do_schedule_retry(self, r):
		p, delay, se = self.pair(r), r.choice([None, 1, 200, r.randrange(1, 30000)]), r.choice([None, 'none', 'none', 'unknown'])
		cls = r.choice(['RetryRequested', 'ValidationError', 'Odd'])
		self.decide('schedule_retry', p, 'SELECT * FROM holdfast.schedule_retry(%s, %s, %s, %s, side_effect => %s)', [delay and f'{delay} ms', cls, se],
			lambda m: m.fail(*p, 'schedule_retry', cls, None, se, delay), r)
	def do_snooze(self, r):
		p, delay, reason = self.pair(r), r.choice([1, 100, r.randrange(1, 20000)]), r.choice([None, 'later'])
		self.decide('snooze', p, 'SELECT * FROM holdfast.snooze(%s, %s, %s, %s)', [f'{delay} ms', reason], lambda m: m.resume(*p, 'snooze', delay, reason), r)
	def do_release(self, r):
		p, reason = self.pair(r), r.choice([None, 'deploy'])
		self.decide('release', p, 'SELECT * FROM holdfast.release(%s, %s, %s)', [reason], lambda m: m.resume(*p, 'release', None, reason), r)
	def do_heartbeat(self, r):
		p, lease = self.pair(r), self.pick(r, (None, 3), (r.randrange(1, 60000), 1))
		self.call('heartbeat', [p[0]], 'SELECT * FROM holdfast.heartbeat(%s, %s, %s)', [*p, lease and f'{lease} ms'], lambda m, got: m.heartbeat(*p, lease),
			lambda want, got: (got[0]['outcome'], micros(got[0]['lease_expires_at'])) == want)
	def do_assert(self, r):
		p = self.pair(r)
		if r.random() < .5:
			self.call('assert_lease', [p[0]], 'SELECT holdfast.assert_lease(%s, %s) AS until', p, lambda m, got: [m.assert_lease(*p)], lambda want, got: micros(got[0]['until']) == want[0])
		else: self.call('validate_lease', [p[0]], 'SELECT holdfast.validate_lease(%s, %s) AS valid', p, lambda m, got: [m.validate_lease(*p)], lambda want, got: got[0]['valid'] == want[0])
	def do_outcome(self, r):
		p = self.pair(r)
		self.call('outcome', [p[0]], 'SELECT * FROM holdfast.outcome(%s, %s)', p, lambda m, got: m.outcome(*p),
			lambda want, got: all(w in ('any', g) for w, g in zip(want, (got[0]['outcome'], got[0]['decision'], got[0]['state']))))

	def lease_with_effects(self, r, mode):
		those = [j for j in self.m.jobs.values() if j.lease and j.mode == mode and j.se]
		if those and r.random() < .8:
			j = r.choice(those)
			return j.id, j.lease
		return self.pair(r)
	def do_transition(self, r):
		p, to, effect = self.lease_with_effects(r, 'execute'), r.choice(['started', 'started', 'committed', 'failed_retryable']), r.choice([None, 'a', 'a', 'b'])
		self.call('ledger_transition', [p[0]], 'SELECT * FROM holdfast.ledger_transition(%s, %s, %s, %s)', [*p, to, effect], lambda m, got: m.ledger_transition(*p, to, effect),
			lambda want, got: (got[0]['outcome'], got[0]['state']) == want, rollback=r.random() < .02)
	def do_reconcile(self, r):
		p, finding = self.lease_with_effects(r, 'reconcile'), self.pick(r, ('landed', 3), ('not_landed', 4), ('undetermined', 1))
		j = self.m.jobs.get(p[0])
		open_ones = [l.effect for l in self.m.unknowns(self.m.led(j))] if j else []
		effect = r.choice(open_ones) if open_ones and r.random() < .8 else r.choice([None, 'a', 'b', 'c'])
		self.call('reconcile', [p[0]], 'SELECT * FROM holdfast.reconcile(%s, %s, %s, null, %s)', [*p, finding, effect], lambda m, got: m.reconcile(*p, finding, effect),
			lambda want, got: all(w in ('any', g) for w, g in zip(want, (got[0]['outcome'], *(micros(got[0][c]) for c in ('next_not_before', 'lease_expires_at', 'deadline_at'))))),
			rollback=r.random() < .02)

	def do_cancel(self, r):
		job, force = r.choice(list(self.m.jobs) + [0]), r.random() < .35
		self.call('cancel', [job], "SELECT holdfast.cancel(%s, 'so', %s) AS outcome", [job, force], lambda m, got: [m.cancel(job, force)], lambda want, got: got[0]['outcome'] == want[0])
	def do_redrive(self, r):
		job = r.choice(list(self.m.dead)[-15:] + list(self.m.jobs)[:1] + [0])
		if 'redrive_mixed' in TOLERATED and (j := self.m.dead.get(job)) and not j.se and j.key in self.m.ledger: return
		self.call('redrive', [job], "SELECT * FROM holdfast.redrive(%s, 'so')", [job], lambda m, got: m.redrive(job), lambda want, got: (got[0]['outcome'], got[0]['job_id']) == want)
	def do_settle_unknown(self, r):
		keys = [l.key for l in self.m.ledger.values() if l.state == 'unknown'] * 5 + list(self.m.ledger)[-5:] + [uuid.UUID(int=1)]
		key, finding = r.choice(keys), r.choice(['landed', 'not_landed', 'not_landed', 'abandoned'])
		l = self.m.ledger.get(key)
		self.call('settle_unknown', [l.job] if l else [], "SELECT * FROM holdfast.settle_unknown(%s, %s, null, 'so')", [key, finding], lambda m, got: m.settle_unknown(key, finding),
			lambda want, got: (got[0]['state'], got[0]['job_id']) == want, keys=[key])
	def do_settle_expired(self, r):
		queue = r.choice(list(QUEUES))
		self.call('settle_expired', [], 'SELECT holdfast.settle_expired(%s, 1000) AS n', [self.queue_ids[queue]], lambda m, got: [m.settle_expired(queue)], lambda want, got: got[0]['n'] == want[0])
	def do_maintain(self, r):
		self.call('maintain', [], 'SELECT * FROM holdfast.maintain()', [], lambda m, got: [sum(m.settle_expired(q) for q in QUEUES)], lambda want, got: got[0]['done'] == want[0])
	def do_purge(self, r):
		queue, running = r.choice(list(QUEUES)), r.random() < .5
		self.call('purge_queue', [], 'SELECT holdfast.purge_queue(%s, %s) AS n', [queue, running], lambda m, got: [m.purge(queue, running)], lambda want, got: got[0]['n'] == want[0])
	def do_in_one(self, r):
		"""Claim and complete in one transaction: refused (JQ008), but exactly once without side effects (G7)."""
		queue = r.choice(list(QUEUES))
		def model(m, got):
			c = m.claim(queue, 'w', 1, None, 'all', [(g['lease_id'], g['fencing_token']) for g in got] if not isinstance(got, str) else [])
			if not c: return []
			j = m.jobs[c[0].job_id]
			if j.se: raise Refused('JQ008')
			return [m.complete(j.id, j.lease)]
		self.call('in_one', [], 'SELECT c.lease_id, c.fencing_token, c.job_id, holdfast.complete(c.job_id, c.lease_id) AS outcome FROM holdfast.claim(%s, %s) c', [queue, 'w'], model,
			lambda want, got: [g['outcome'] for g in got] == want, batch=True)

# ---------------------------------------------------------------- running it

def run(args, steps):
	"""None, or the divergence."""
	import psycopg
	with psycopg.connect('dbname=postgres', autocommit=True) as c:
		if not c.execute("SELECT 1 FROM pg_database WHERE datname = 'holdfast_model_template'").fetchone():
			c.execute('CREATE DATABASE holdfast_model_template')
			with psycopg.connect('dbname=holdfast_model_template', autocommit=True) as t: t.execute('CREATE EXTENSION holdfast')
		c.execute('DROP DATABASE IF EXISTS holdfast_model WITH (FORCE)')
		c.execute('CREATE DATABASE holdfast_model TEMPLATE holdfast_model_template')
	d = Driver(args, 'dbname=holdfast_model')
	d.m.seen = {}
	try:
		d.make_queues()
		for i in steps: d.step(i)
		d.compare_all()
		d.judge_retries()
	except Divergence as e: return d, e
	finally: d.close()
	return d, None

def shrink(args, steps, first):
	"""Leave out stretches of calls as long as the same call diverges in the same way."""
	kind = lambda d, e: (d.log[-1][1].split('holdfast.')[1].split('(')[0], str(e).split('\n')[2][:12])
	wanted, best, size, until = kind(*first), first, len(steps) // 2, time.time() + args.shrink_seconds
	while size and time.time() < until:
		at = 0
		while at < len(steps) and time.time() < until:
			fewer = steps[:at] + steps[at + size:]
			d, e = run(args, fewer)
			if e and kind(d, e) == wanted: best, steps = (d, e), fewer[:fewer.index(fewer[-1]) + 1]
			else: at += size
		size //= 2
	return best, steps

def main():
	p = argparse.ArgumentParser()
	p.add_argument('--calls', type=int, default=20000)
	p.add_argument('--seed', type=int, default=random.SystemRandom().randrange(10 ** 6))
	p.add_argument('--sessions', type=int, default=3)
	p.add_argument('--scan-hint', choices=['on', 'off', 'check'])
	p.add_argument('--shrink', action='store_true', help='look for a shorter sequence with the same divergence')
	p.add_argument('--shrink-seconds', type=int, default=120)
	p.add_argument('--tolerate', default='', help='known differences, by name, separated by commas')
	args = p.parse_args()
	TOLERATED.update(args.tolerate.split(','))
	print(f'seed {args.seed}', flush=True)
	began, steps = time.time(), list(range(args.calls))
	d, e = run(args, steps)
	took = time.time() - began
	print(f'{d.calls} calls in {took:.1f} s, {d.calls / took:.0f} a second; {dict(d.tally)}; refused {dict(d.refusals)}; '
		f'{len(d.m.jobs)} live, {len(d.m.dead)} dead, {len(d.m.ledger)} ledger rows, clock {stamp(d.m.now):%d %H:%M:%S}')
	if e and args.shrink: (d, e), steps = shrink(args, [s for s in steps if s <= d.calls * 2], (d, e))
	if e:
		print(f'DIVERGENCE: {e}')
		if args.shrink: print(f'steps {steps}')
	sys.exit(bool(e))

if __name__ == '__main__': main()
