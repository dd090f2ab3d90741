"""The calls that are made at random, each with its SQL, its counterpart in the model, and how the answers compare.

A call's arguments are plain values; an interval is a Ms, a time an At, and what an earlier call answered a Ref, so that
a recorded sequence can be replayed, and printed, with ids and leases of its own.
"""
import datetime as dt, json
from collections import namedtuple

from model import EPOCH, MS, Refused, intent_key, stamp

class Ms(int): pass				# an interval, in milliseconds
class At(int): pass				# a time, in microseconds
class Array(list): pass
Ref = namedtuple('Ref', 'what call row')	# 'job_id' or 'lease_id' of a row that a call answered

def micros(t): return None if t is None else (dt.datetime.fromisoformat(t) - EPOCH) // dt.timedelta(microseconds=1)

def text(v):
	"""As libpq sends it."""
	if v is None or type(v) is str: return v
	if type(v) is bool: return 't' if v else 'f'
	if type(v) is Ms: return f'{v} ms'
	if type(v) is At: return str(stamp(v))
	if type(v) is Array: return '{' + ','.join(map(text, v)) + '}'
	if type(v) is dict: return json.dumps(v)
	if type(v) is list: return json.dumps([{k: text(x) if type(x) in (Ms, At) else x for k, x in o.items()} for o in v])
	return str(v)

def literal(v, refer):
	"""As a person would type it; refer says how a Ref is looked up."""
	if v is None: return 'NULL'
	if type(v) is Ref: return refer(v)
	if type(v) is Array: return 'ARRAY[' + ', '.join(literal(x, refer) for x in v) + ']'
	if type(v) is bool: return str(v).lower()
	if type(v) is int: return str(v)
	return "'" + text(v).replace("'", "''") + "'"

# ---------------------------------------------------------------- how answers compare: True, or what differs

def one(want, got): return got[0] == want or f'expected {want}, got {got[0]}'
def all_of(want, got): return got == want or f'expected {want}, got {got}'
def fields(*names, times=()):
	def same(want, got):
		g = tuple(micros(got[0][n]) if n in times else got[0][n] for n in names)
		return all(w in ('any', x) for w, x in zip(want, g)) or f'expected {want}, got {g}'
	return same

def enqueued(want, got):
	g = [(x['job_id'], x['idempotency_key'], x['outcome'], micros(x['existing_since'])) for x in got]
	return g == want and all(x.get('ordinal', i) == i for i, x in enumerate(got, 1)) or f'expected {want}, got {g}'

def contexts(want, got):
	if len(want) != len(got): return f'{len(want)} jobs expected, {[w.job_id for w in want]}, {len(got)} came, {[g["job_id"] for g in got]}'
	for w, g in zip(want, got):
		g = {**g, 'lease_expires_at': micros(g['lease_expires_at']), 'deadline_at': micros(g['deadline_at']), 'token_rises': True,
			'effects': {k: v['state'] for k, v in g['effects'].items()} if g['effects'] else None}
		d = {k: (v, g[k]) for k, v in vars(w).items() if v != g[k]}
		if d: return f'job {w.job_id}: (expected, got) {d}'
	return True

def decision(want, got):
	w, g = vars(want), got[0]
	if w.get('any') or len(w) == 1: return w['decision'] == g['decision'] or f'expected {w["decision"]}, got {g["decision"]}'
	g = {**g, 'next_not_before': micros(g['next_not_before'])}
	d = {k: (v, g[k]) for k, v in w.items() if v != g[k]}
	return not d or f'(expected, got) {d}'

def completed_and_claimed(want, got):
	done = [(g['job_id'], g['outcome']) for g in got if g['kind'] == 'completed']
	return contexts(want[1], [g for g in got if g['kind'] == 'claimed']) if done == want[0] else f'expected {want[0]}, got {done}'

# ---------------------------------------------------------------- the calls

def grants(got): return [(g['lease_id'], g['fencing_token']) for g in got if g.get('lease_id')] if type(got) is list else []

ENQUEUE = 'action_key subject payload scope intent_version run_after delay priority timeout give_up_at max_attempts retry_policy side_effects stream'.split()
def given(values): return {k: v for k, v in zip(ENQUEUE, values) if v is not None}
def key_of(a): return intent_key(a['subject'], a['action_key'], a.get('scope'), a.get('intent_version', 1))
def new_id(got, i): return got[i]['job_id'] if type(got) is list else -i - 1

def enqueue_batch(m, got, queue, jobs):
	return m.enqueue(queue, *((new_id(got, i), dict(a)) for i, a in enumerate(jobs)))
def complete_and_claim(m, got, queue, worker, ids, leases, qty, lease, modes):
	if m.snapshot: raise Refused('25001')
	done = m.complete_batch(list(zip(ids, leases)))
	m.flush()
	return done, m.claim([queue], worker, qty, lease, modes, grants(got))
def in_one(m, got, queue):
	"""Claim and complete in one transaction: refused (JQ008), but exactly once without side effects (G7)."""
	c = m.claim([queue], 'w', 1, None, 'all', grants(got))
	if not c: return []
	m.flush()
	j = m.jobs[c[0].job_id]
	if j.se: raise Refused('JQ008', (j.id, j.attempt))
	return [m.complete(j.id, j.lease)]
def asked(m, after, at):
	return after if at is None else max(0, -(-(at - m.now) // MS))
def rule(m, got, policy, cls, *what):
	if what: m.rules[policy, cls] = what
	elif (policy, cls) in m.rules: del m.rules[policy, cls]
	else: raise Refused('42704')
def policy(m, got, name, base, rate, longest, jitter, least, max_attempts, lost_counts, max_lost, max_reset, rec_delay, rec_max):
	p = m.policies[name]
	p.base, p.rate, p.max, p.jitter, p.min, p.max_attempts, p.lost_counts = base, rate, longest, jitter, least, max_attempts, lost_counts
	p.max_lost, p.max_reset, p.rec_delay, p.rec_max = max_lost, max_reset, rec_delay, rec_max

class Op:
	"""
	sql: the call; model: what it is in the model; same: how the answers compare; names: which arguments are job ids;
	reads: it writes nothing and locks nothing; quiet: only while no transaction is open (it would wait, or wait for it);
	queues: which it takes jobs from, stepping over what is locked.
	"""
	def __init__(self, sql, model, same=one, names=(), reads=False, quiet=False, queues=None, lateral=None, keys=None):
		self.call, self.model, self.same, self.names = sql, model, same, names
		self.reads, self.quiet, self.queues, self.keys = reads, quiet, queues, keys or (lambda a: ())
		self.sql = lateral or f'SELECT to_json(x) FROM holdfast.{sql} x'
	def jobs(self, a):
		return {j for n in self.names for j in (a[n] if type(a[n]) is Array else [a[n]])}

OPS = {
	'enqueue': Op('enqueue($1, ' + ', '.join(f'{k} => ${i}' for i, k in enumerate(ENQUEUE, 2)) + ')',
		lambda m, got, queue, *a: m.enqueue(queue, (new_id(got, 0), given(a))), enqueued, keys=lambda a: [key_of(given(a[1:]))]),
	'enqueue_batch': Op('enqueue_batch($1, $2)', enqueue_batch, enqueued, keys=lambda a: [key_of(x) for x in a[1]]),
	'claim': Op('claim($1, $2, $3, $4, $5)', lambda m, got, queue, *a: m.claim([queue], *a, grants(got)), contexts, queues=lambda a: [a[0]]),
	'claim_any': Op('claim_any($1, $2, $3, $4, $5)', lambda m, got, *a: m.claim(*a, grants(got)), contexts, queues=lambda a: a[0]),
	'complete': Op('complete($1, $2, $3, $4)', lambda m, got, *a: m.complete(*a), names=[0]),
	'complete_batch': Op('complete_batch($1, $2)', lambda m, got, ids, leases: m.complete_batch(list(zip(ids, leases))),
		lambda want, got: all_of(want, [(g['job_id'], g['outcome']) for g in got]), names=[0]),
	'complete_and_claim': Op('complete_and_claim($1, $2, $3, $4, $5, $6, $7)', complete_and_claim, completed_and_claimed, names=[2], queues=lambda a: [a[0]]),
	'fail': Op('fail($1, $2, $3, $4, $5, $6, $7)', lambda m, got, job, lease, cls, message, effect, after, at:
		m.fail(job, lease, 'fail', cls, message, effect, asked(m, after, at)), decision, names=[0]),
	'schedule_retry': Op('schedule_retry($1, $2, $3, $4, side_effect => $5)', lambda m, got, job, lease, delay, cls, effect:
		m.fail(job, lease, 'schedule_retry', cls, None, effect, delay), decision, names=[0]),
	'snooze': Op('snooze($1, $2, $3, $4)', lambda m, got, job, lease, delay, reason: m.resume(job, lease, 'snooze', delay, reason), decision, names=[0]),
	'release': Op('release($1, $2, $3)', lambda m, got, job, lease, reason: m.resume(job, lease, 'release', None, reason), decision, names=[0]),
	'heartbeat': Op('heartbeat($1, $2, $3)', lambda m, got, *a: m.heartbeat(*a), fields('outcome', 'lease_expires_at', times=['lease_expires_at']), names=[0]),
	'assert_lease': Op('assert_lease($1, $2)', lambda m, got, *a: m.assert_lease(*a), lambda want, got: one(want, [micros(got[0])]), names=[0]),
	'validate_lease': Op('validate_lease($1, $2)', lambda m, got, *a: m.validate_lease(*a), names=[0], reads=True),
	'outcome': Op('outcome($1, $2)', lambda m, got, *a: m.outcome(*a), fields('outcome', 'decision', 'state'), names=[0], reads=True),
	'effects': Op('effects($1, $2)', lambda m, got, *a: m.effects(*a), lambda want, got: all_of(want, {g['effect']: g['state'] for g in got}), names=[0], reads=True),
	'reconcile': Op('reconcile($1, $2, $3, null, $4)', lambda m, got, *a: m.reconcile(*a),
		fields('outcome', 'next_not_before', 'lease_expires_at', 'deadline_at', times=['next_not_before', 'lease_expires_at', 'deadline_at']), names=[0]),
	'ledger_transition': Op('ledger_transition($1, $2, $3, $4)', lambda m, got, *a: m.ledger_transition(*a), fields('outcome', 'state'), names=[0]),
	'cancel': Op("cancel($1, 'so', $2)", lambda m, got, *a: m.cancel(*a), names=[0]),
	'redrive': Op("redrive($1, 'so')", lambda m, got, *a: m.redrive(*a), fields('outcome', 'job_id'), names=[0]),
	'redrive_queue': Op("redrive_queue($1, 'so', $2, $3, $4, $5)", lambda m, got, *a: m.redrive_queue(*a), fields('redriven', 'skipped'), quiet=True),
	'settle_unknown': Op("settle_unknown($1, $2, null, 'so')", lambda m, got, *a: m.settle_unknown(*a), fields('state', 'job_id'), keys=lambda a: [a[0]]),
	'settle_expired': Op('settle_expired((SELECT queue_id FROM holdfast.queue WHERE queue_name = $1), 1000)', lambda m, got, queue: m.settle_expired(queue), queues=lambda a: [a[0]]),
	'maintain': Op('maintain()', lambda m, got: m.maintain(), lambda want, got: one(want, [got[0]['done']]), quiet=True),
	'define_stream': Op('define_stream($1, $2, $3, $4)', lambda m, got, *a: m.define_stream(*a), lambda want, got: True, quiet=True),
	'resume_stream': Op("resume_stream($1, $2, 'so')", lambda m, got, *a: m.resume_stream(*a), lambda want, got: True, quiet=True),
	'settle_streams': Op('settle_streams((SELECT queue_id FROM holdfast.queue WHERE queue_name = $1), 10000)', lambda m, got, queue: m.settle_streams(queue), quiet=True),
	'purge_queue': Op('purge_queue($1, $2)', lambda m, got, *a: m.purge(*a), quiet=True),
	'pause_queue': Op('pause_queue($1)', lambda m, got, queue: m.pause(queue, True), lambda want, got: True, quiet=True),
	'resume_queue': Op('resume_queue($1)', lambda m, got, queue: m.pause(queue, False), lambda want, got: True, quiet=True),
	'alter_queue': Op('alter_queue($1, lease => $2, max_attempts => $3)', lambda m, got, *a: m.alter(*a), lambda want, got: True, quiet=True),
	'define_retry_policy': Op('define_retry_policy($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)', policy, lambda want, got: True, quiet=True),
	'define_error_rule': Op('define_error_rule($1, $2, $3, $4)', rule, lambda want, got: True, quiet=True),
	'drop_error_rule': Op('drop_error_rule($1, $2)', rule, lambda want, got: True, quiet=True),
	'post_restore': Op('post_restore($1)', lambda m, got, floor: m.post_restore(floor), quiet=True),
	'in_one': Op("claim($1, 'w')", in_one, lambda want, got: all_of(want, [g['outcome'] for g in got]), queues=lambda a: [a[0]],
		lateral="SELECT json_build_object('lease_id', c.lease_id, 'fencing_token', c.fencing_token, 'job_id', c.job_id, 'outcome', holdfast.complete(c.job_id, c.lease_id)) FROM holdfast.claim($1, 'w') c"),
}

# ---------------------------------------------------------------- what is not called, and why

LEFT_OUT = {
	'create_queue grant_queue revoke_queue regrant drop_retry_policy': 'set up once; each is refused or done as a whole: queue.sql, grants.sql, policy.sql',
	'drop_queue do_drop_queue check_queue_empty': 'nothing of the queue is left to compare: queue.sql',
	'settle_all_streams': 'a part of maintain(), which is called',
	'recover recover_row do_recover_row recover_dead recover_all recover_watched': 'recover.sql, recover_watched.sql; the queues do not recover by themselves',
	'make_partition make_partitions move_overflow fold_hours purge_ledger drop_partitions do_maintain be_alone oldest_writer': "parts of maintain(), which is called; their rows are maintain.sql's",
	'import_records import_attempts import_attempts_from do_drop_import drop_import set_attempt_retention purge_attempts': 'records of other sources: import.sql, pairs.py',
	'watch unwatch unwatch_all do_watch do_unwatch do_unwatch_all watch_note watch_check watch_triggers watch_redriven watch_problem update_as_owner': 'tables of others: watch*.sql, 011_watch_queues.pl',
	'permit_ddl set_evidence_mode do_set_evidence_mode store_definitions accept_definitions do_accept_definitions': 'the guards: guard.sql, verify.sql, 009_attacks.pl',
	'sync_role check_kind check_queue known_queue': 'checks within other functions',
}

def functions_forgotten(run):
	"""Functions that may write and are neither called nor left out; and those left out that do not exist."""
	there = set(run("""SELECT to_json(proname) FROM pg_proc WHERE pronamespace = 'holdfast'::regnamespace AND provolatile = 'v'
		AND prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)"""))
	known = set(OPS) | {n for names in LEFT_OUT for n in names.split()} | READERS
	return sorted(there - known), sorted(known - there - set(OPS) - READERS)
READERS = set('''explain explain_of timeline events_of metrics metrics_all queue_metrics_of queue_counts next_wakeup latest_events pairs verdicts recoverable recoverable_of recoverable_ids
	report_html verify verify_definitions verify_tables verify_partitions verify_settings is_granted version clock'''.split())
