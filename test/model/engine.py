"""The engine's side: sessions, and the rows that the model's are compared with.

libpq is called by psycopg.pq, since a call of psycopg itself takes longer than the engine does: a statement is prepared
once for each session, and answers one JSON value for each row.
"""
import json

from psycopg import pq

from model import stamp

OK = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK)

class SqlError(Exception):
	def __init__(self, state, message): self.state, self.message = state, message
	def __str__(self): return f'{self.state}: {self.message}'

class Session:
	"""A connection, and what its open transaction holds."""
	def __init__(self, dsn, n=0):
		self.pg, self.n, self.prepared, self.warnings, self.clock = pq.PGconn.connect(dsn.encode()), n, {}, [], None
		if self.pg.status != pq.ConnStatus.OK: raise SqlError('08006', self.pg.error_message.decode())
		self.pg.notice_handler = self.warned
		self.do("SET timezone = 'UTC'; SET client_min_messages = warning; SET intervalstyle = 'postgres'; SET plan_cache_mode = force_generic_plan; SET jit = off; "
			"SET lock_timeout = '4s'; SET statement_timeout = '60s'")
		self.ended()
	def ended(self):
		"""No transaction is open."""
		self.open, self.snapshot, self.log, self.marks, self.refusals = False, False, [], [], []
		self.named, self.locked, self.keys, self.asserted, self.granted, self.held = set(), set(), set(), set(), set(), set()
	def warned(self, result):
		if result.error_field(pq.DiagnosticField.SEVERITY_NONLOCALIZED) == b'WARNING':
			self.warnings.append(result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY).decode())
	def check(self, result):
		if result.status not in OK:
			state, message = (result.error_field(f) for f in (pq.DiagnosticField.SQLSTATE, pq.DiagnosticField.MESSAGE_PRIMARY))
			raise SqlError(state.decode() if state else '08006', (message or result.error_message).decode())
		return result
	def do(self, sql): self.check(self.pg.exec_(sql.encode()))
	def ask(self, sql, params=()):
		"""The first column of each row, from JSON."""
		name = self.prepared.get(sql)
		if not name:
			name = self.prepared[sql] = b's%d' % len(self.prepared)
			try: self.check(self.pg.prepare(name, sql.encode()))
			except SqlError:
				del self.prepared[sql]
				raise
		r = self.check(self.pg.exec_prepared(name, [None if p is None else p.encode() for p in params]))
		return [None if (v := r.get_value(i, 0)) is None else v.decode() if r.ftype(0) == 25 else v and json.loads(v) for i in range(r.ntuples)]
	def set_clock(self, now):
		if self.clock != now:
			self.do(f"SET holdfast.clock = '{stamp(now)}'")
			self.clock = now
	def close(self): self.pg.finish()

def us(column): return f'(extract(epoch FROM {column}) * 1000000)::bigint'

JOB = '''job_id status mode run_after attempt_number failures reconciles losses resumes lease_id lease_expires_at started_at worker_name
	cancel_requested_at final_reason last_error_class last_error_message priority give_up_at fencing_token idempotency_key stream parked_from'''.split()
DEAD = JOB + ['reason', 'ended_at']
LEDGER = 'idempotency_key state job_id attempt_number has_effects parent_key effect changed_at'.split()
COLUMNS = {'job': JOB, 'dead_job': DEAD, 'ledger': LEDGER, 'unknown_effect': ['idempotency_key', 'job_id'], 'stream': 'name state consecutive_terminal threshold opened_at cool_down_ends closed_at trial_job_id'.split(), 'finding': ['kind', 'job_id', 'count']}
def column(c):
	if c == 'cancel_requested_at': return f'{c} IS NOT NULL'
	return us(c) if c in ('run_after', 'lease_expires_at', 'started_at', 'give_up_at', 'ended_at', 'changed_at', 'parked_from', 'opened_at', 'cool_down_ends', 'closed_at') else c
def rows(table, columns): return 'json_build_array(' + ', '.join('NULL' if table == 'dead_job' and c in ('mode', 'run_after') else column(c) for c in columns) + ')'
EVENT = 'event_id, job_id, kind, attempt_number, side_effect_state'
LAST = 'SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM holdfast.event_id_seq'

def some():
	"""What is stored of these jobs ($1; events after $2) and keys ($3), in one statement."""
	def of(table, where): return f"(SELECT json_agg({rows(table, COLUMNS[table])}) FROM holdfast.{table} WHERE {where})"
	return f"""SELECT json_build_object('job', {of('job', 'job_id = ANY ($1)')}, 'dead_job', {of('dead_job', 'job_id = ANY ($1)')},
		'ledger', {of('ledger', 'idempotency_key = ANY ($3)')}, 'unknown_effect', {of('unknown_effect', 'idempotency_key = ANY ($3)')},
		'events', (SELECT json_agg(json_build_array({EVENT}) ORDER BY event_id) FROM (SELECT e.* FROM unnest($1::bigint[], $2::bigint[]) AS t (id, since),
			LATERAL (SELECT {EVENT} FROM holdfast.event WHERE job_id = t.id AND event_id > t.since
			UNION ALL SELECT {EVENT} FROM holdfast.event_overflow WHERE job_id = t.id AND event_id > t.since) e) e),
		'finding', (SELECT json_agg(json_build_array(kind, job_id, n)) FROM (SELECT kind, job_id, count(*) AS n FROM holdfast.finding WHERE job_id = ANY ($1) GROUP BY 1, 2) f),
		'last', ({LAST}))"""
SOME = some()
def every(table):
	if table == 'finding': return 'SELECT json_build_array(kind, job_id, count(*)) FROM holdfast.finding GROUP BY kind, job_id'
	return f'SELECT {rows(table, COLUMNS[table])} FROM holdfast.{table}'
EVERY_STREAM = f"SELECT {rows('stream', COLUMNS['stream'])} FROM (SELECT q.queue_name || '/' || s.key AS name, s.* FROM holdfast.stream s JOIN holdfast.queue q ON q.queue_id = s.queue) s"
EVERY_EVENT = 'SELECT json_build_array(job_id, kind, attempt_number, count(*)) FROM holdfast.event_all GROUP BY job_id, kind, attempt_number'
BACK = '''SELECT to_json(x) FROM (SELECT job_id, kind, attempt_number, event_id, at, lag(at) OVER w AS at_before, lag(kind) OVER w AS kind_before
	FROM holdfast.event_all WINDOW w AS (PARTITION BY job_id, attempt_number ORDER BY event_id)) x WHERE at < at_before
	AND NOT kind = ANY ($1) AND NOT kind_before = ANY ($1) LIMIT 3'''
# A refusal is written at the commit; a report that changes nothing leaves the job's row, and so its last time, alone.
ASIDE = 'action_violation action_stale_report action_duplicate_report action_duplicate_enqueue'.split()
JUDGED = (
	('a retry that holdfast scheduled is unexplained or without backoff', """SELECT to_json(p) FROM holdfast.attempt_pair p WHERE verdict IN ('unexplained', 'retry_without_backoff') LIMIT 3"""),
	('a stop is unexplained or premature', "SELECT to_json(s) FROM holdfast.stop_reason s WHERE reason IN ('premature_stop', 'unexplained_stop') LIMIT 3"),
	('verify() finds jobs or ledger rows that their events do not account for', 'SELECT to_json(v) FROM holdfast.verify_state(100000) v LIMIT 3'))

# ---------------------------------------------------------------- the same rows, as the model has them

def job_row(j):
	return [j.id, j.status, j.mode, j.run_after, j.attempt, j.failures, j.reconciles, j.losses, j.resumes, j.lease, j.lease_end, j.started, j.worker,
		j.cancel, j.final, j.last_class, j.last_message, j.priority, j.give_up, j.token, j.key, j.stream, j.parked]
def dead_row(j):
	r = job_row(j)
	r[2] = r[3] = None
	return r + [j.reason, j.ended]
def ledger_row(l): return [l.key, l.state, l.job, l.attempt, l.has_effects, l.parent, l.effect, l.changed]
def stream_row(s): return [s.name, s.state, s.count, s.threshold, s.opened, s.ends, s.closed, s.trial]
def unknown_row(l): return [l.key, l.job]
