"""A reference model of jobs, leases, ledger, budgets and streams: the design, sections 4 and 6, in plain Python.

Model has one method for each function of the API.  A method changes the model's rows and answers what the function
should, or raises Refused.  It knows no SQL and no transactions: what it changes is noted in Undo.log, so that whoever
drives it (calls.py) can take back a call, a savepoint or a whole transaction.
"""
import datetime as dt, hashlib, json, types, uuid

MS, S = 1000, 1_000_000						# the clock counts microseconds
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
START = int((dt.datetime(2030, 1, 1, tzinfo=dt.timezone.utc) - EPOCH).total_seconds()) * S
NS = types.SimpleNamespace

def stamp(us): return None if us is None else EPOCH + dt.timedelta(microseconds=us)

# ---------------------------------------------------------------- rows whose changes can be taken back

MISSING = object()

class Undo:
	log = []			# of (dictionary, key, what was there), or (list, None, None) for what was appended
	@classmethod
	def to(cls, mark):
		while len(cls.log) > mark:
			d, k, old = cls.log.pop()
			if type(d) is list: d.pop()
			elif old is MISSING: dict.pop(d, k, None)
			else: dict.__setitem__(d, k, old)

class Row(NS):
	def __setattr__(self, k, v):
		d = self.__dict__
		Undo.log.append((d, k, d.get(k, MISSING)))
		d[k] = v

class Table(dict):
	def __setitem__(self, k, v):
		Undo.log.append((self, k, self.get(k, MISSING)))
		dict.__setitem__(self, k, v)
	def __delitem__(self, k):
		Undo.log.append((self, k, self[k]))
		dict.__delitem__(self, k)
	def grow(self, k, v):
		"""Append to the list under k."""
		if k not in self: self[k] = []
		Undo.log.append((self[k], None, None))
		self[k].append(v)

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
	return str(uuid.UUID(bytes=bytes(b)))

def intent_key(subject, action, scope, version): return digest('holdfast intent 1', subject, action, scope, str(version))
def effect_key(key, effect): return digest('holdfast effect 1', key, effect)

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
QUEUES = {n: NS(name=n, **dict(zip('lease timeout grace heartbeat policy max_attempts se separate'.split(), v)), paused=False)
	for n, v in {
		'qa': (20000, 10000, 5000, None, 'p1', None, True, False),
		'qb': (9000, 30000, 0, 3000, 'p2', 3, True, False),
		'qc': (15000, 10000, 5000, None, 'p1', None, False, False),
		'qd': (20000, 5000, 5000, None, 'p3', None, True, True),
		'qe': (5000, 3000, 1000, None, 'p2', None, False, False),
		'qf': (90000, 60000, 15000, None, 'default', None, True, False)}.items()}

class Refused(Exception):
	"""An SQLSTATE; nothing was changed.  of: the job and attempt that the refusal is recorded with, if it commits."""
	def __init__(self, code, of=None): self.code, self.of = code, of

# ---------------------------------------------------------------- the model

class Model:
	def __init__(self):
		self.now, self.floor = START, Row(token=0)
		self.jobs, self.dead, self.ledger, self.kids = Table(), Table(), Table(), Table()
		self.keys = {}					# job_id -> idempotency key
		self.attempts = Table()			# (job_id, lease) -> what the evidence says of it
		self.recent = []				# its keys, those of claims that were rolled back among them
		self.events = Table()			# job_id -> [(kind, attempt_number)]
		self.findings = Table()			# (kind, job_id) -> how many
		self.queues = {n: Row(**vars(q)) for n, q in QUEUES.items()}
		self.policies = {n: Row(**vars(p)) for n, p in POLICIES.items()}
		self.rules = Table(RULES)
		self.streams = Table()			# (queue, stream) -> its breaker
		self.ends, self.on_trial = [], set()	# of the call: (queue, stream, whether the job succeeded), counted when it ends; streams whose trial it named
		self.touched, self.touched_keys = set(), set()
		self.told, self.written = {}, 0	# job_id -> how many of its events have been compared; and how many were ever written
		# of the calling session: jobs locked by others, leases granted and asserted in its transaction, its level
		self.busy, self.granted, self.asserted, self.snapshot = frozenset(), frozenset(), frozenset(), False

	# ---- evidence
	def event(self, j, kind, attempt=None):
		self.events.grow(j.id, (kind, j.attempt if attempt is None else attempt))
		self.touched.add(j.id)
		self.written += 1
	def finding(self, kind, job_id): self.findings[kind, job_id] = self.findings.get((kind, job_id), 0) + 1
	def refused(self, of):
		"""A refusal whose transaction commits after all."""
		self.event(NS(id=of[0]), 'action_violation', of[1])
		self.finding('refusal', of[0])
	def late(self, j):
		if self.now < j.lease_end: return False
		self.finding('late_report', j.id)
		return True
	def ended(self, j, success):
		if j.stream: self.ends.append((j.queue, j.stream, success))
	def end(self, j, kind, **what):
		self.attempts[j.id, j.lease].end = NS(kind=kind, at=self.now, **what)

	# ---- settings of a job: job, queue, policy
	def policy(self, j): return self.policies[j.policy or self.queues[j.queue].policy]
	def max_attempts(self, j): return j.max_attempts or self.queues[j.queue].max_attempts or self.policy(j).max_attempts
	def timeout(self, j): return j.timeout or self.queues[j.queue].timeout
	def lease_for(self, j, asked):
		q = self.queues[j.queue]
		return max(asked or q.lease, self.needed(q, self.timeout(j)))
	def needed(self, q, timeout): return min(timeout + q.grace, 3 * q.heartbeat if q.heartbeat else 10 ** 9)	# G8
	def check_lease(self, q, asked):
		if asked and asked < self.needed(q, q.timeout): raise Refused('JQ005')
	def rule(self, policy, cls):
		for p in (policy, 'default'):
			for c in [cls] + [c for q, c in self.rules if q == p and c.endswith('%') and cls.startswith(c[:-1])]:
				if (p, c) in self.rules: return (p + '/' + c, *self.rules[p, c])
		return '(none)', 'retry', 'unknown'

	# ---- ledger
	def led(self, j): return self.ledger.get(j.key) if j.se else None
	def children(self, l): return [self.ledger[k] for k in self.kids.get(l.key, [])] if l and l.has_effects else []
	def set(self, l, j, state):
		l.state, l.job, l.queue, l.attempt, l.changed = state, j.id, j.queue, j.attempt, self.now
		self.touched_keys.add(l.key)
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
		j.status, j.reason, j.ended, j.parked = 'pending', reason, self.now, None
		self.dead[j.id] = j
		self.ended(j, False)

	# ---- enqueue
	def enqueue(self, queue, *jobs):
		"""jobs: (the id it gets if it is created, arguments)"""
		made = [self.new(queue, new_id, a) for new_id, a in jobs]
		again = [any(x.key == j.key for x in made[:i]) for i, j in enumerate(made)]
		answers = {i: self.enter(made[i]) for i in sorted(range(len(made)), key=lambda i: (again[i], '' if again[i] else made[i].key, i))}
		return [answers[i] for i in range(len(made))]		# keys are taken in their order; which mismatch is refused rests on it
	def new(self, queue, new_id, a):
		q, j = self.queues[queue], Row(id=new_id, queue=queue, mode='execute', status='pending', attempt=0, failures=0,
			reconciles=0, losses=0, resumes=0, lease=None, lease_end=None, started=None, worker=None, cancel=False,
			final=None, last_class=None, last_message=None, enqueued=self.now, token=0, stream=a.get('stream'), parked=None)
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
		if l and not j.se or live and live.se != j.se or known and known.payload != j.payload: raise Refused('JQ007', (live.id if live else l.job, 0))
		if live: return self.known(j, live.id, 'duplicate', live.attempt, live.enqueued)
		if j.se:
			if l:
				outcome = {'committed': 'already_committed', 'failed_terminal': 'dead'}.get(l.state)
				if l.state != 'committed' and self.unknowns(l): outcome = 'unknown_effect'	# G6: of a child, too
				if outcome: return self.known(j, l.job, outcome, l.attempt, l.changed)
				self.set(l, j, 'planned')
			else:
				self.ledger[j.key] = l = Row(key=j.key, parent=None, effect=None, has_effects=False, payload=j.payload)
				self.set(l, j, 'planned')
		self.jobs[j.id] = j
		self.keys[j.id] = j.key
		self.touched.add(j.id)
		return j.id, j.key, 'created', None
	def known(self, j, job_id, outcome, attempt, since):
		self.event(NS(id=job_id), 'action_duplicate_enqueue', attempt)
		return job_id, j.key, outcome, since

	# ---- claim
	def claim(self, queues, worker, qty, lease, modes, answers):
		"""answers: (lease_id, fencing_token) of what the engine granted, in order."""
		if self.snapshot: raise Refused('25001')
		out, aside = [], 0
		for q in [self.queues[n] for n in dict.fromkeys(queues)]:
			if len(out) == qty or aside == 100: break
			self.check_lease(q, lease)
			wanted = {'all': ('execute',) if q.separate else ('execute', 'reconcile')}.get(modes, (modes,))
			for j in sorted((j for j in self.jobs.values() if j.queue == q.name and j.mode in wanted and not q.paused),
							key=lambda j: (j.priority, j.run_after, j.id)):
				if len(out) == qty or aside == 100: break
				if j.id in self.busy or j.lease in self.asserted: continue
				l = self.led(j)
				if j.stream and self.left_to_maintain(j, l): continue
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
				elif self.is_past_deadline(j):
					self.past_deadline(j)
					aside += 1
				elif j.stream and self.parked(j): aside += 1
				else:
					out.append(self.grant(j, l, lease, worker, *(answers[len(out)] if len(out) < len(answers) else (str(uuid.uuid4()), 0))))
		return out
	def grant(self, j, l, lease, worker, lease_id, token):
		assert j.mode == 'reconcile' or not self.unknowns(l), f'job {j.id}: an unknown effect would execute (G6)'
		previous = j.attempt
		j.status, j.attempt, j.started, j.lease, j.worker, j.parked = 'running', j.attempt + 1, self.now, lease_id, worker, None
		j.lease_end = self.now + self.lease_for(j, lease) * MS
		least = max(j.token + 1, self.floor.token)		# or the wall clock, which is behind a floor
		j.token_ok, j.token = token == least if self.floor.token else token >= least, token
		if l and j.mode == 'execute' and l.state != 'started': self.set(l, j, 'started')
		self.recent.append((j.id, lease_id))
		self.attempts[j.id, lease_id] = Row(attempt=j.attempt, known=True, end=None, decision=None, stale=False, stale_beat=False, found=[])
		self.event(j, 'action_attempt_started')
		return NS(job_id=j.id, attempt_number=j.attempt, failures=j.failures, max_attempts=self.max_attempts(j),
			lease_expires_at=j.lease_end, deadline_at=self.deadline(j, self.now, j.mode), mode=j.mode, ledger_state=l and l.state,
			effects={c.effect: c.state for c in self.children(l)} or None, idempotency_key=j.key, timeout_ms=self.timeout(j),
			previous_attempt=previous or None, previous_error_class=j.last_class, previous_message=j.last_message, token_rises=j.token_ok)
	def deadline(self, j, since, mode='execute'):
		at = since + self.timeout(j) * MS
		return min(at, j.give_up) if j.give_up is not None and mode == 'execute' else at
	def is_past_deadline(self, j): return j.mode == 'execute' and j.give_up is not None and self.now >= j.give_up
	def past_deadline(self, j):
		if l := self.led(j):
			assert l.state in ('planned', 'failed_retryable')
			self.set(l, j, 'failed_terminal')
		self.event(j, 'action_exhausted')
		self.die(j, 'deadline')
	def settle_expired(self, queue):
		n = 0
		for j in sorted((j for j in self.jobs.values() if j.queue == queue and j.id not in self.busy and j.lease not in self.asserted),
						key=lambda j: (j.priority, j.run_after, j.id)):		# their streams count ends in a row
			if j.lease and j.lease_end <= self.now: self.lost(j)
			elif not j.lease and j.run_after <= self.now and self.is_past_deadline(j):
				if (l := self.led(j)) and l.state == 'committed': continue
				if not self.excused(j): self.past_deadline(j)
			else: continue
			n += 1
		return n

	# ---- streams: breakers that park what waits, and end nothing early
	def stream(self, j): return self.streams.get((j.queue, j.stream)) if j.stream else None
	def left_to_maintain(self, j, l):
		"""What would write the stream, which a claim does not."""
		if not j.lease: return self.is_past_deadline(j)
		p = self.policy(j)
		return (j.failures + 1 >= self.max_attempts(j) or j.losses + 1 >= p.max_lost or j.reconciles + 1 >= p.rec_max or j.give_up is not None
			or j.cancel or bool(l and l.state == 'committed'))
	def held_until(self, j):
		"""Until when the stream holds the job back, or None."""
		s = self.stream(j)
		if not s or s.state == 'closed': return None
		if self.now < s.ends: return s.ends
		t = self.jobs.get(s.trial) if s.trial not in (None, j.id) else None
		return t.lease_end if t and t.lease and self.now < t.lease_end else None
	def move_turn(self, j, at, credit):
		self.event(j, 'action_deferred')
		if j.give_up is not None: j.give_up += credit
		j.run_after = max(at, self.now)
	def park(self, j, until):
		since = max(self.stream(j).opened, j.run_after)
		if j.parked is None: j.parked = since
		self.move_turn(j, until, until - since)
	def bring_back(self, j):
		turn = max(self.now, j.parked)
		unspent, j.parked = max(j.run_after - turn, 0), None
		self.move_turn(j, turn, -unspent)
	def parked(self, j):
		"""A claim would hand the job out: it is put off, or it is the trial."""
		s = self.stream(j)
		if not s or s.state == 'closed': return False
		if s.name in self.on_trial: return True		# this claim has just named it: the others are stepped over
		if until := self.held_until(j): self.park(j, until)
		elif s.trial != j.id:
			s.state, s.trial = 'trial', j.id
			self.on_trial.add(s.name)
			self.finding('stream_trial', j.id)
		return bool(until)
	def excused(self, j):
		"""Past give_up_at, but by an outage of its stream."""
		s = self.stream(j)
		if not s or s.opened is None or j.give_up <= (since := max(s.opened, j.run_after)): return False
		if until := self.held_until(j):
			self.park(j, until)
			return True
		until = s.ends if s.closed is None else s.closed
		if j.parked is not None or j.run_after >= until or self.now >= j.give_up + until - since: return False
		self.move_turn(j, self.now, until - since)
		return True
	def open(self, s):
		if s.state == 'closed': s.opened = self.now
		s.state, s.ends, s.closed, s.trial = 'open', self.now + s.cool * MS, None, None
		self.finding('stream_opened', None)
	def close(self, s):
		s.count = 0
		if s.state != 'closed': s.state, s.closed, s.ends, s.trial = 'closed', self.now, None, None
	def flush(self):
		"""The call ends: count what it has ended."""
		those, self.ends, self.on_trial = self.ends, [], set()
		for at in dict.fromkeys((q, k) for q, k, _ in those):
			ends = [success for q, k, success in those if (q, k) == at]
			failures = len(ends) - 1 - max((i for i, success in enumerate(ends) if success), default=-1)
			s = self.streams.get(at)
			if not s:
				if failures: s = self.new_stream(at)
				else: continue
			elif True in ends and s.count > 0:
				if s.state != 'closed': self.finding('stream_closed', None)
				self.close(s)
			if failures:
				s.count += failures
				if s.count >= s.threshold or s.state != 'closed': self.open(s)
	def new_stream(self, at, threshold=5, cool=300000):
		s = self.streams[at] = Row(name='/'.join(at), state='closed', count=0, threshold=threshold, cool=cool, opened=None, ends=None, closed=None, trial=None)
		return s
	def define_stream(self, queue, stream, threshold, cool):
		s = self.streams.get((queue, stream))
		if s: s.threshold, s.cool = threshold, cool
		else: self.new_stream((queue, stream), threshold, cool)
	def resume_stream(self, queue, stream):
		s = self.streams.get((queue, stream))
		if not s: raise Refused('42704')
		for j in list(self.jobs.values()):
			if j.queue == queue and j.stream == stream and not j.lease and j.parked is not None: self.bring_back(j)
		self.close(s)
		self.finding('stream_resumed', None)
	def settle_streams(self, queue):
		n = 0
		for j in [j for j in self.jobs.values() if j.queue == queue and not j.lease and self.stream(j)]:
			until = self.held_until(j)
			if until and j.run_after < until: self.park(j, until)
			elif not until and self.stream(j).state == 'closed' and j.parked is not None and j.run_after > self.now: self.bring_back(j)
			else: continue
			n += 1
		return n
	def maintain(self):
		n = 0
		for q in self.queues:
			n += self.settle_expired(q)
			self.flush()					# each is a call of its own
		for q in self.queues: self.settle_streams(q)
		return n

	# ---- whose lease it is (G2)
	def find(self, job_id, lease, fn, strict=False):
		"""(job, None, None) under its own lease, else (None, answer, attempt)."""
		j = self.jobs.get(job_id)
		if j and j.lease == lease:
			if lease in self.granted and j.se and fn != 'heartbeat': raise Refused('JQ008', (j.id, j.attempt))
			return j, None, None
		events = self.events.get(job_id)
		h = self.attempts.get((job_id, lease)) or Row(attempt=None, known=False, end=None, stale=False, stale_beat=False, found=[])
		last = max((a for _, a in events or ()), default=0)
		if strict: raise Refused('JQ001', (job_id, h.attempt if h.known else last) if j or events else None)
		if not j and not events: return None, 'unknown_job', None
		if h.end and h.end.kind not in ('lost', 'cancelled') and fn != 'heartbeat': return None, 'reported', h
		if fn == 'heartbeat' and h.stale_beat: return None, 'stale', h
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
		if job_id in self.busy: return 'held', self.jobs[job_id].lease_end		# asserted by another session, and not over
		j, answer, h = self.find(job_id, lease, 'heartbeat')
		if not j: return answer, None
		h = self.attempts[job_id, lease]
		if self.now >= j.lease_end:
			if not h.stale_beat: self.stale(job_id, lease, h, 'heartbeat', j.attempt)
			return 'stale', None
		self.check_lease(self.queues[j.queue], asked)
		j.lease_end = max(j.lease_end, self.now + self.lease_for(j, asked) * MS)
		self.touched.add(job_id)
		return 'cancel_requested' if j.cancel else 'extended', j.lease_end
	def validate_lease(self, job_id, lease):
		j = self.jobs.get(job_id)
		return bool(j and j.lease == lease and self.now < j.lease_end)
	def assert_lease(self, job_id, lease):
		if not self.validate_lease(job_id, lease):
			h, events = self.attempts.get((job_id, lease)), self.events.get(job_id)
			raise Refused('JQ001', (job_id, h.attempt if h and h.known else max((a for _, a in events or ()), default=0)) if events or job_id in self.jobs else None)
		return self.jobs[job_id].lease_end

	# ---- complete
	def complete(self, job_id, lease, result=None, strict=False):
		j, answer, h = self.find(job_id, lease, 'complete', strict)
		if answer == 'reported':
			e = h.end
			return self.repeat(job_id, h, e.kind == 'completed' and e.report == result or e.kind == 'reconciled' and e.done)
		if not j: return answer
		if j.mode == 'reconcile' or self.open_children(self.led(j)): raise Refused('JQ003', (j.id, j.attempt))
		self.end(j, 'completed', report=result)
		self.late(j)
		if (l := self.led(j)) and l.state != 'committed': self.set(l, j, 'committed')
		self.event(j, 'action_attempt_succeeded')
		self.gone(j)
		self.ended(j, True)
		return 'completed'
	def complete_batch(self, pairs):
		done = {}
		for p in sorted(set(pairs)):
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
			self.ended(j, True)
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
		if lost and unknown: d.delay_ms = max(d.delay_ms, p.rec_delay)	# the old request may still be on its way
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
		if self.open_children(l): raise Refused('JQ004', (j.id, j.attempt))
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
			if committed: self.ended(j, True)
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
			same = h.end.kind == 'reconciled' and h.end.report == (finding, effect)
			return self.repeat(job_id, h, same), h.end.next if same else None, None, None
		if not j: return answer, None, None, None
		l, h = self.led(j), self.attempts[job_id, lease]
		if not l: raise Refused('JQ004', (j.id, j.attempt))
		row = self.ledger.get(effect_key(j.key, effect)) if effect else l
		if not row or row.state != 'unknown' or j.mode == 'execute':
			before = next((f for f in reversed(h.found) if f.effect == effect), None)
			if not before: raise Refused('JQ004', (j.id, j.attempt))
			if before.finding != finding: return self.repeat(job_id, h, False), None, None, None
			if self.now >= j.lease_end: return self.stale(job_id, lease, h, 'reconcile', j.attempt), None, None, None
			return before.outcome, None, j.lease_end, 'any'
		late = self.now >= j.lease_end
		if late and finding == 'not_landed': return self.stale(job_id, lease, h, 'reconcile', j.attempt), None, None, None
		self.late(j)
		return self.found(j, l, row, finding, effect, h, late)
	def found(self, j, l, row, finding, effect, h, late):
		def done(outcome, next=None, lease_end=None, deadline=None, ends=True):
			h.found = h.found + [NS(effect=effect, finding=finding, outcome=outcome)]
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
			self.ended(j, True)
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
		if not l: raise Refused('JQ004', (j.id, j.attempt))
		key = effect_key(j.key, effect) if effect else l.key
		row = self.ledger.get(key)
		state = row.state if row else None
		if state == to: return 'duplicate', to
		if j.mode == 'reconcile' or not (effect and to == 'started' and state in (None, 'planned', 'failed_retryable') or
				state == 'started' and to == 'committed' or effect and state == 'started' and to == 'failed_retryable'): raise Refused('JQ004', (j.id, j.attempt))
		if to == 'started' and self.now >= j.lease_end: return self.stale(job_id, lease, h, 'ledger_transition', j.attempt), None
		if not row:
			row = self.ledger[key] = Row(key=key, parent=l.key, effect=effect, has_effects=False)
			self.kids.grow(l.key, key)
			if not l.has_effects: l.has_effects, l.changed = True, self.now
			self.touched_keys.add(l.key)
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
		if known and (known.state == 'committed' or not j.se) or any(x.key == j.key for x in self.jobs.values()): raise Refused('JQ004', (j.id, j.attempt))
		del self.dead[job_id]
		j.failures = j.reconciles = j.losses = j.resumes = 0
		j.cancel, j.final, j.parked = False, None, None
		if j.give_up is not None and j.give_up <= self.now: j.give_up = None
		for c in self.children(l):
			if c.state == 'failed_terminal': self.set(c, j, 'planned')
			elif c.job != j.id and c.state != 'committed': self.set(c, j, c.state)		# of an earlier job of the intent
		if l: self.set(l, j, 'planned' if l.state == 'failed_terminal' else l.state)
		self.jobs[j.id] = j
		self.requeue(j, self.now, 'reconcile' if self.unknowns(l) else 'execute')
		self.event(j, 'action_redriven')
		return 'redriven', j.id
	def redrive_queue(self, queue, action, cls, since, most):
		redriven = skipped = 0
		for i in sorted(i for i, j in self.dead.items() if j.queue == queue and action in (None, j.intent[1]) and cls in (None, j.last_class)
						and (since is None or j.ended >= since)):
			if redriven == most: break
			try:
				self.redrive(i)
				redriven += 1
			except Refused: skipped += 1
		return redriven, skipped
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
		if abandoned and l.state != 'committed': final = 'abandoned'
		elif self.unknowns(l):
			if live: self.requeue(j, j.run_after, 'reconcile')
			return answer
		elif l.state == 'committed':
			for those in (self.jobs, self.dead):
				if j.id in those: del those[j.id]
			if live: self.ended(j, True)
			return answer
		else: final = self.no_more_execution(j) if live else None
		if final:
			self.set(l, j, 'failed_terminal')
			if live: self.die(j, final)
			j.reason = final
		elif live: self.requeue(j, j.run_after, 'execute')
		return l.state if row is l else row.state, j.id

	# ---- settings
	def pause(self, queue, paused):
		self.queues[queue].paused = paused
		self.finding('queue_paused' if paused else 'queue_resumed', None)
	def alter(self, queue, lease, max_attempts):
		q = self.queues[queue]
		if lease < self.needed(q, q.timeout): raise Refused('JQ005')
		q.lease, q.max_attempts = lease, max_attempts or None
	def post_restore(self, floor):
		self.floor.token = max(self.floor.token, floor + 1)
		return self.floor.token

	# ---- outcome
	def effects(self, job_id, lease):
		j = self.jobs.get(job_id)
		return {c.effect: c.state for c in self.children(self.led(j))} if j and j.lease == lease else {}
	def outcome(self, job_id, lease):
		j, h = self.jobs.get(job_id), self.attempts.get((job_id, lease))
		if not j and not self.events.get(job_id): return 'unknown_job', None, None
		state = j.status if j else 'ended'
		if j and j.lease == lease: return 'running', None, state
		if not h or not h.known: return 'stale', None, state
		return (h.end.kind if h.end else 'lost'), 'any', state
