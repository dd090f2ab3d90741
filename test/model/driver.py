"""Calls made to the engine and to the model, and compared: the answer, then the rows and events that the call may touch.

A session may hold a transaction open over several calls, with savepoints.  What another session does meanwhile then has
a defined answer where it steps over what is locked (a claim, settle_expired) or does not wait for it (a heartbeat); a
call that would wait is not made here: who waits for whom is what test/specs is about.
"""
import collections

from calls import OPS, Ref, text
from engine import ASIDE, BACK, COLUMNS, EVERY_EVENT, EVERY_STREAM, JUDGED, SOME, Session, SqlError, dead_row, every, job_row, ledger_row, stream_row, unknown_row
from model import POLICIES, QUEUES, RULES, Model, Refused, Undo

CONTROL = {'begin': 'BEGIN', 'begin_rr': 'BEGIN ISOLATION LEVEL REPEATABLE READ', 'commit': 'COMMIT', 'rollback': 'ROLLBACK', 'savepoint': 'SAVEPOINT s', 'rollback_to': 'ROLLBACK TO s'}
STATE_RIDES = {'action_' + k for k in '''attempt_started attempt_succeeded attempt_failed attempt_lost retry_scheduled reconcile_scheduled snoozed released cancelled
	suppressed exhausted terminal redriven purged reconciled ledger_changed'''.split()}
REFUSED = "SELECT to_json(job_id) FROM holdfast.event_all WHERE event_id > $1 AND kind = 'action_violation' AND NOT job_id = ANY($2) ORDER BY event_id"
NO_ONE = '00000000-0000-0000-0000-000000000000'

Call = collections.namedtuple('Call', 'n session now op args')

class State(str):
	"""An SQLSTATE in the place of an answer."""

class Divergence(Exception):
	def __init__(self, op, what, how): self.kind, self.how = (op, what), how
	def __str__(self): return f'{self.kind[0]}: {self.kind[1]}: {self.how}'

def ms(n): return 'NULL' if n is None else f"interval '{n} ms'"
def set_up():
	"""The queues and policies, in SQL."""
	for p in list(POLICIES.values())[1:]:
		yield (f"SELECT holdfast.define_retry_policy('{p.name}', {ms(p.base)}, {p.rate}, {ms(p.max)}, {ms(p.jitter)}, {ms(p.min)}, {p.max_attempts}, {p.lost_counts}, {p.max_lost}, "
			f"{ms(p.max_reset)}, {ms(p.rec_delay)}, {p.rec_max})")
	for (p, cls), (d, e) in RULES.items():
		if p != 'default': yield f"SELECT holdfast.define_error_rule('{p}', '{cls}', '{d}', '{e}')"
	for q in QUEUES.values():
		yield (f"SELECT holdfast.create_queue('{q.name}', lease => {ms(q.lease)}, timeout => {ms(q.timeout)}, grace => {ms(q.grace)}, heartbeat => {ms(q.heartbeat)}, retry_policy => '{q.policy}', "
			f"max_attempts => {q.max_attempts or 'NULL'}, side_effects => {q.se}, reconcile => '{'separate' if q.separate else 'any'}')")

class Driver:
	def __init__(self, dsn, sessions=3, scan_hint=None, model=Model):
		self.m, self.calls, self.made, self.tally, self.refusals = model(), [], 0, collections.Counter(), collections.Counter()
		self.sessions = [Session(dsn, n) for n in range(sessions)]
		if scan_hint:
			for s in self.sessions: s.do(f"LOAD 'holdfast'; SET holdfast.scan_hint = '{scan_hint}'")
		self.values, self.refs, self.seen = {}, {}, {}		# Ref -> value and back; job_id -> its last event_id and how many it had
		self.count, self.last, self.unsure = 0, 0, False
		self.about = {}			# number of a call -> jobs and keys that it concerned
	def close(self):
		for s in self.sessions: s.close()

	# ---- who holds what
	def others(self, s): return [o for o in self.sessions if o.open and o is not s]
	def may(self, s, op, args, ids, keys):
		"""Whether the call has a defined answer now, without waiting for another session."""
		others, o = self.others(s), OPS[op]
		if o.quiet: return not s.open and not others
		for other in others:
			if other.keys & keys: return False
			if ids & other.named:
				if op != 'heartbeat' or args[0] not in other.held or s.snapshot: return False
				j = self.m.jobs[args[0]]
				if j.lease != args[1] or self.m.now >= j.lease_end: return False
			if o.queues and any(i in self.m.jobs and self.m.jobs[i].queue in o.queues(args) for i in other.named - other.locked): return False
		return True

	# ---- one call
	def value(self, a):
		if type(a) is Ref: return self.values.get(a, 0 if a.what == 'job_id' else NO_ONE)
		return type(a)(map(self.value, a)) if isinstance(a, list) and any(type(x) is Ref for x in a) else a
	def make(self, c):
		"""Make the call c.  False: it would have to wait, or there is no transaction to end."""
		s, m = self.sessions[c.session], self.m
		m.now = c.now
		if c.op in CONTROL: return self.control(c, s)
		op, args = OPS[c.op], [self.value(a) for a in c.args]
		ids, keys = op.jobs(args), set(op.keys(args))
		ids |= {m.ledger[k].job for k in keys if c.op == 'settle_unknown' and k in m.ledger}
		keys |= {m.keys[i] for i in ids if i in m.keys}
		if not self.may(s, c.op, args, ids, keys): return False
		self.calls.append(c)
		self.made += 1
		self.tally[c.op] += 1
		s.set_clock(c.now)
		m.busy, m.granted, m.asserted, m.snapshot = frozenset().union(*(o.locked for o in self.others(s))), s.granted, s.asserted, s.snapshot
		m.touched, m.touched_keys = set(ids), set(keys)
		if not s.open: s.log.clear()
		Undo.log, mark, before = s.log, len(s.log), m.jobs.keys() & ids
		try: got = s.ask(op.sql, [text(a) for a in args])
		except SqlError as e:
			if e.state[:2] in ('XX', '57', '08') or e.state in ('55P03', '40P01'): self.fail(c, 'the engine raised', str(e))
			got = State(e.state)
		m.ends, m.on_trial = [], set()
		try:
			want = op.model(m, got, *args)
			m.flush()
		except Refused as e:
			Undo.to(mark if s.open else 0)
			want, m.touched, m.touched_keys = State(e.code), set(ids), set(keys)
			self.refusals[want] += 1
			if s.open and e.of: s.refusals.append(e.of)
		except AssertionError as e: self.fail(c, 'the model', str(e))
		self.about[c.n] = m.touched | m.touched_keys | {g.get('job_id') for g in (got if type(got) is list else []) if type(g) is dict}
		if s.warnings: self.fail(c, 'the engine warned', str(s.warnings))
		same = (got == want or f'expected {want}, got {got}') if type(got) is State or type(want) is State else op.same(want, got)
		if same is not True: self.fail(c, 'the answer', same)
		self.remember(c, got)
		if s.open and type(got) is list: s.granted |= {g['lease_id'] for g in got if type(g) is dict and g.get('lease_id')}
		if type(got) is State:
			self.unsure = True
			if s.open: self.undo(s)
		elif s.open and not op.reads and not m.busy & ids and (c.op, want) != ('redrive', ('unknown_job', None)): self.hold(s, c.op, args, before)
		if not s.snapshot: self.compare(c, s, m.touched, m.touched_keys)
		return True
	def hold(self, s, op, args, before):
		"""What the call has locked, or changed, stays so until the transaction ends."""
		m = self.m
		there = before | (m.touched & m.jobs.keys()) | {i for i in m.touched if i in m.dead}
		fresh = m.touched - s.named
		s.named |= m.touched
		s.keys |= m.touched_keys | {m.keys[i] for i in m.touched if i in m.keys}
		if op not in ('enqueue', 'enqueue_batch'): s.locked |= there
		else: s.locked |= {i for i in there if i in m.jobs and not m.events.get(i)}	# created, not found
		if op == 'assert_lease':
			s.asserted.add(args[1])
			if args[0] in fresh: s.held.add(args[0])
		elif op != 'validate_lease': s.held -= m.touched
	def undo(self, s):
		"""An error within a transaction: back to its savepoint, or it is over."""
		if not s.marks:
			self.m.touched |= s.named
			self.m.touched_keys |= s.keys
			s.do('ROLLBACK')
			self.rolled_back(s)
			return
		s.do('ROLLBACK TO s')
		self.back_to_mark(s)
	def back_to_mark(self, s):
		mark, held = s.marks[-1]
		Undo.log = s.log
		Undo.to(mark)
		s.named, s.locked, s.keys, s.asserted, s.granted, s.held = map(set, held)
		for of in s.refusals:			# told at the commit
			s.named.add(of[0])
			if of[0] in self.m.keys: s.keys.add(self.m.keys[of[0]])
		s.clock, self.unsure = None, True
	def rolled_back(self, s):
		Undo.log = s.log
		Undo.to(0)
		s.ended()
		s.clock, self.unsure = None, True
	def control(self, c, s):
		m = self.m
		if s.open == c.op.startswith('begin') or c.op == 'rollback_to' and not s.marks: return False
		self.calls.append(c)
		self.tally[c.op] += 1
		if c.op.startswith('begin'):
			s.do(CONTROL[c.op] + '; SELECT FROM holdfast.job')		# a snapshot is taken here
			s.open, s.snapshot, s.log = True, c.op == 'begin_rr', []
		elif c.op == 'savepoint':
			s.do(CONTROL[c.op])
			s.marks.append((len(s.log), [set(x) for x in (s.named, s.locked, s.keys, s.asserted, s.granted, s.held)]))
		elif c.op == 'rollback_to':
			s.do(CONTROL[c.op])
			self.back_to_mark(s)
		else:
			Undo.log, m.touched, m.touched_keys = s.log, set(s.named), set(s.keys)
			s.set_clock(c.now)
			if c.op == 'rollback':
				s.do('ROLLBACK')
				self.rolled_back(s)
			else:
				refusals = s.refusals
				try: s.do('COMMIT')
				except SqlError as e: self.fail(c, 'the engine raised', str(e))
				s.ended()
				taken_back = iter(s.ask(REFUSED, [str(self.last), '{' + ','.join(map(str, m.keys)) + '}']) if any(of[0] < 0 for of in refusals) else [])
				for of in refusals: m.refused((next(taken_back, 0), of[1]) if of[0] < 0 else of)	# of a job of the same call, whose id only the engine knows
			self.compare(c, s, m.touched, m.touched_keys)
		return True
	def remember(self, c, got):
		"""What later calls may refer to."""
		for k, g in enumerate(got if type(got) is list else [], 1):
			if type(g) is not dict: continue
			for what in ('job_id', 'lease_id'):
				if g.get(what) and (what == 'lease_id' or g.get('outcome') == 'created'):
					r = Ref(what, c.n, k)
					self.values[r] = g[what]
					self.refs[g[what]] = r
	def ref(self, v): return self.refs.get(v, v)

	# ---- the comparison
	def fail(self, c, what, how):
		for s in self.sessions:
			if s.open: how += f'; session {s.n} is in a transaction that has locked jobs {sorted(s.locked)} and named {sorted(s.named - s.locked)}'
		raise Divergence(c.op, what, how)
	def differ(self, c, table, want, got):
		got = {r[0]: r for r in got or []}
		if want == got: return
		for k in want.keys() | got.keys():
			w, g = want.get(k), got.get(k)
			if w != g:
				if w and g: w, g = ({n: v for n, v, o in zip(COLUMNS[table], x, y) if v != o} for x, y in ((w, g), (g, w)))
				self.fail(c, table, f'{k}: expected {w}, got {g}')
	def compare(self, c, s, ids, keys):
		m, ids = self.m, sorted(ids)
		keys = keys | {m.keys[i] for i in ids if i in m.keys}
		keys |= {k for p in keys for k in m.kids.get(p, ())}
		for o in self.others(s): keys -= o.keys		# a key of a dead job without side effects may be another's by now
		since = [self.seen.get(i, 0) for i in ids]
		r = s.ask(SOME, ['{' + ','.join(map(str, x)) + '}' for x in (ids, since, keys)])[0]
		self.differ(c, 'job', {i: job_row(m.jobs[i]) for i in ids if i in m.jobs}, r['job'])
		self.differ(c, 'dead_job', {i: dead_row(m.dead[i]) for i in ids if i in m.dead}, r['dead_job'])
		self.differ(c, 'ledger', {k: ledger_row(m.ledger[k]) for k in keys if k in m.ledger}, r['ledger'])
		self.differ(c, 'unknown_effect', {k: unknown_row(m.ledger[k]) for k in keys if k in m.ledger and m.ledger[k].state == 'unknown'}, r['unknown_effect'])
		if m.streams: self.compare_streams(c, s)
		self.compare_events(c, s, ids, r['events'] or [])
		want = {(kind, i): n for (kind, i), n in m.findings.items() if i in set(ids)}
		got = {(kind, i): n for kind, i, n in r['finding'] or []}
		if want != got: self.fail(c, 'finding', f'expected {set(want.items()) - set(got.items())}, got {set(got.items()) - set(want.items())}')
		if not self.unsure and r['last'] - self.last != m.written - self.count:
			self.fail(c, 'events', f"{r['last'] - self.last} were written, {m.written - self.count} expected")
		self.last, self.count, self.unsure = r['last'], m.written, False
	def compare_streams(self, c, s): self.differ(c, 'stream', {x.name: stream_row(x) for x in self.m.streams.values()}, s.ask(EVERY_STREAM))
	def compare_events(self, c, s, ids, got):
		m = self.m
		by = collections.defaultdict(list)
		for e in got: by[e[1]].append((e[2], e[3]))
		for i in ids:
			want = m.events.get(i, [])[m.told.get(i, 0):]
			if sorted(want) != sorted(by[i]): self.fail(c, 'events', f'job {i}: expected {want}, got {by[i]}')
		for e in got:
			l = m.ledger.get(m.keys.get(e[1]))
			state = l.state if l and l.job == e[1] else None
			if e[0] > self.last and c.op != 'commit' and e[2] in STATE_RIDES and e[4] != state: self.fail(c, 'events', f'{e[2]} of job {e[1]} says side_effect_state {e[4]}, the ledger {state}')
		if not s.open:
			for e in got: self.seen[e[1]] = max(self.seen.get(e[1], 0), e[0])
			for i in ids: m.told[i] = len(m.events.get(i, []))
	def compare_all(self, n):
		"""Everything, while no transaction is open."""
		m, s, c = self.m, self.sessions[0], Call(n, 0, self.m.now, 'everything', [])
		self.differ(c, 'job', {i: job_row(j) for i, j in m.jobs.items()}, s.ask(every('job')))
		self.differ(c, 'dead_job', {i: dead_row(j) for i, j in m.dead.items()}, s.ask(every('dead_job')))
		self.differ(c, 'ledger', {k: ledger_row(l) for k, l in m.ledger.items()}, s.ask(every('ledger')))
		self.differ(c, 'unknown_effect', {k: unknown_row(l) for k, l in m.ledger.items() if l.state == 'unknown'}, s.ask(every('unknown_effect')))
		self.compare_streams(c, s)
		for what, want, sql in (('events', collections.Counter((i, *e) for i, es in m.events.items() for e in es), EVERY_EVENT), ('finding', m.findings, every('finding'))):
			got = {tuple(k): n for *k, n in s.ask(sql)}
			got.pop(('setting_changed', None), None)			# of the guards: guard.sql
			want = {k: n for k, n in want.items() if n}
			if got != want: self.fail(c, what, f'expected {set(want.items()) - set(got.items())}, got {set(got.items()) - set(want.items())}')
		if back := s.ask(BACK, ['{' + ','.join(ASIDE) + '}']): self.fail(c, 'events', f'their times go back: {back}')
	def judge(self):
		"""Every attempt after another was delayed by policy, or is explained otherwise; every stop is the policy's."""
		for what, sql in JUDGED:
			if r := self.sessions[0].ask(sql): self.fail(Call(0, 0, 0, 'judge', []), what, str(r))
		self.tally.update({f'pair {v}': n for v, n in self.sessions[0].ask('SELECT json_build_array(verdict, count(*)) FROM holdfast.attempt_pair GROUP BY verdict')})
