#!/usr/bin/env python3
"""Generated histories with known answers: which attempts are paired, and the verdict on each pair.

	scripts/server /usr/bin/python3 test/model/pairs.py --histories 10000 --seed 1

Each history is a subject with a few jobs and attempts: short and long, overlapping, sharing leases and keys, with
times that are equal and fields that are missing.  All are imported, and what the view attempt_pair says is compared
with the oracle below, which knows the rules of the design (section 9) and nothing of the program: it looks at every
two attempts of a history.  No pair may be missing, and none too many.
"""
import argparse, collections, datetime as dt, json, random, re, sys

import psycopg

EPOCH = dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)
WINDOW = 24 * 3600 * 1000					# the clock counts milliseconds

# ---------------------------------------------------------------- the oracle

class A:
	"""An attempt, with what the rules call its end and its close."""
	def __init__(self, arrival, r):
		self.arrival, self.r = arrival, r
		self.start, self.number, self.lease, self.key = r['started_at'], r.get('attempt_number'), r.get('lease_id'), r.get('idempotency_key')
		own = None if r.get('outcome') == 'lost' else r.get('finished_at')		# a lost attempt has no report of its own
		signs = [t for t in (own, r.get('last_report_at')) if t is not None]
		self.end = max(signs) if signs else r.get('lease_expires_at')
		self.close = own if own is not None else r.get('lease_expires_at') if r.get('lease_expires_at') is not None else self.end
	def order(self): return (self.start, self.number is None, self.number or 0, self.arrival)
	def job(self): return self.r['job_id']

def lease_relation(a, b):
	if a.lease and b.lease: return 'same' if a.lease == b.lease else 'other'
	if a.number is not None and b.number is not None and a.number != b.number: return 'other'
	return 'untold'

def both_differ(x, y): return x is not None and y is not None and x != y

def expected_pairs(attempts):
	"""The rules (1), (2) and (3), for each B."""
	ordered = sorted(attempts, key=A.order)
	for i, b in enumerate(ordered):
		earlier = ordered[:i]
		in_job = [a for a in earlier if a.job() == b.job()]
		before = in_job[-1] if in_job else None
		chosen = [before] if before else []
		for a in in_job:
			if a is not before and lease_relation(a, b) == 'other' and a.end is not None and a.end > b.start: chosen.append(a)
		others = [a for a in earlier if a.job() != b.job() and (before is None or a.start >= before.start)]
		with_key = [a for a in others if b.key is not None and a.key == b.key]
		recent = [a for a in others if b.start - (a.end if a.end is not None else a.start) <= WINDOW]
		if with_key: chosen.append(with_key[-1])
		elif recent: chosen.append(recent[-1])
		for a in chosen: yield a, b, in_job

ORDER = ['duplicate_log', 'lease_overlap', 'distinct_intent', 'duplicate_side_effect_risk', 'repeat_after_success', 'resumed',
	'duplicate_dispatch', 'duplicate_scheduling', 'retry_without_backoff', 'legitimate_delayed_retry']

def fitting(a, b, in_job):
	same_job, lease = a.job() == b.job(), lease_relation(a, b)
	same_key = a.key is not None and a.key == b.key
	overlap = a.end is not None and b.start < a.end
	after = a.end is not None and b.start >= a.end
	out, later = a.r.get('outcome'), a.r.get('next_not_before')
	settled = out in ('succeeded', 'failed', 'cancelled', 'snoozed', 'released') and a.r.get('side_effect_state') != 'unknown'
	redriven = any(x.r.get('redriven') for x in in_job if x.order() >= a.order()) if same_job else False
	waits = later is not None and a.close is not None and later > a.close
	if same_job and lease == 'same' and (overlap or b.start == a.start): yield 'duplicate_log'
	if same_job and lease == 'other' and overlap: yield 'lease_overlap'
	if not same_job and not same_key and (both_differ(a.r.get('scope'), b.r.get('scope')) or
			both_differ(a.r.get('intent_version'), b.r.get('intent_version')) and settled): yield 'distinct_intent'
	if both_differ(a.key, b.key): yield 'duplicate_side_effect_risk'
	if out == 'succeeded' and (same_job or same_key): yield 'repeat_after_success'
	if same_job and (out in ('snoozed', 'released') or redriven): yield 'resumed'
	if not same_job and same_key and overlap: yield 'duplicate_dispatch'
	if not same_job and same_key and after: yield 'duplicate_scheduling'
	if same_job and after and (lease == 'same' or later is None or not waits or b.start < later): yield 'retry_without_backoff'
	if same_job and lease == 'other' and waits and b.start >= later and (a.r.get('retry_policy') or a.r.get('delay_ms') is not None): yield 'legitimate_delayed_retry'

def what_is_missing(a, b):
	missing = []
	if a.job() != b.job(): missing += [f'idempotency_key of {n}' for n, x in (('a', a), ('b', b)) if x.key is None]
	elif lease_relation(a, b) == 'untold': missing += [f'lease_id of {n}' for n, x in (('a', a), ('b', b)) if x.lease is None]
	if a.end is None: missing.append('finished_at of a')
	if not missing and a.job() == b.job() and not a.r.get('retry_policy') and a.r.get('delay_ms') is None: missing.append('retry_policy of a')
	return missing or ['clock']

def failure(r): return (r.get('exception_class'), None if r.get('message') is None else re.sub(r'\d+', '#', r['message']))

def elapsed(r):
	if r.get('elapsed_ms') is not None: return r['elapsed_ms']
	if r.get('finished_at') is not None: return r['finished_at'] - r['started_at']

def changes(a, b):
	a, b = a.r, b.r
	if both_differ(a.get('worker_name'), b.get('worker_name')): yield 'worker'
	if both_differ(a.get('timeout_ms'), b.get('timeout_ms')): yield 'timeout'
	fa, fb = failure(a), failure(b)
	if a.get('outcome') and b.get('outcome'):
		if fa != fb: yield 'error'
	elif both_differ(fa[0], fb[0]) or fa != (None, None) and fb != (None, None) and fa != fb: yield 'error'
	ea, eb = elapsed(a), elapsed(b)
	if ea is not None and eb is not None and 20 * abs(eb - ea) > ea: yield 'elapsed'

SAID = ('outcome', 'side_effect_state', 'worker_name', 'timeout_ms', 'exception_class', 'message', 'timeout_kind', 'timeout_limit_ms')
def identical(a, b): return all(a.r.get(f) == b.r.get(f) for f in SAID) and elapsed(a.r) == elapsed(b.r)

# ---------------------------------------------------------------- histories

def history(r, n):
	"""One subject's records, in the order in which its log has them."""
	unit = r.choice([1, 1000, 3600 * 1000, 3600 * 1000])			# of time, in ms: from races to days
	span, jobs = r.choice([4, 12, 40]), r.choice([1, 1, 2, 3, 5])
	keys = r.choice([['k'], ['k', None], ['k', 'l', None], ['k', 'k', 'l'], [None]])
	lacking = r.choice([0, 0, .15, .5])								# how much of the evidence is missing
	plain = r.random() < .3											# a queue that works: numbers, leases, delays
	records = []
	for job in range(jobs):
		key, number, clock = r.choice(keys), 0, r.randrange(span) * unit
		for _ in range(r.choice([1, 2, 2, 3, 4, 6])):
			number += 1
			start = clock if plain else r.randrange(span) * unit
			took = r.choice([0, 1, 1, 2, 5, 20]) * unit
			x = {'job_id': f'{n}-{job}', 'subject': f'subject-{n}', 'action_key': 'act', 'started_at': start, 'attempt_number': number,
				'lease_id': f'lease-{n}-{job}-{number}' if plain or r.random() < .6 else f'lease-{n}-{r.randrange(3)}',
				'idempotency_key': key if plain or r.random() < .9 else r.choice(keys),
				'finished_at': start + took, 'outcome': r.choice(['failed', 'failed', 'timeout', 'timeout', 'succeeded', 'lost', 'cancelled', 'snoozed', 'released'])}
			if not plain and r.random() < .2: x['attempt_number'] = r.randrange(3)
			if r.random() < .5: x['lease_expires_at'] = start + r.choice([1, 3, 10]) * unit
			if r.random() < .15: x['last_report_at'] = start + r.choice([0, 2, 8, 30]) * unit
			if x['outcome'] in ('failed', 'timeout'):
				x['exception_class'] = r.choice(['TimeoutError', 'TimeoutError', 'Boom'])
				x['message'] = r.choice(['timed out after 743 s', 'timed out after 744 s', 'no answer', None])
				if r.random() < .7:
					x['retry_policy'], x['delay_ms'] = r.choice([('default', 30), ('default', None), (None, 30), (None, None)])
					x['next_not_before'] = x['finished_at'] + r.choice([0, 1, 2, 10]) * unit
			if r.random() < .4: x['worker_name'] = r.choice(['w1', 'w2'])
			if r.random() < .2: x['scope'] = r.choice(['s1', 's2'])
			if r.random() < .2: x['intent_version'] = r.choice([1, 2])
			if r.random() < .1: x['side_effect_state'] = r.choice(['unknown', 'committed'])
			if r.random() < .1: x['redriven'] = r.choice([True, False])
			if r.random() < .2: x['timeout_ms'] = r.choice([60000, 70000])
			if r.random() < .2: x['elapsed_ms'] = r.choice([0, 100, 104, 105, 106, 2 ** 40])
			if r.random() < .1: x['timeout_limit_ms'] = 30000
			for f in list(x):
				if f not in ('job_id', 'subject', 'action_key', 'started_at') and r.random() < lacking: del x[f]
			if plain and x.get('next_not_before') is not None: clock = x['next_not_before'] + r.choice([0, 0, 1]) * unit
			elif plain: clock = start + took + r.choice([0, 1]) * unit
			records.append({k: v for k, v in x.items() if v is not None})
			if r.random() < .05: records.append(dict(records[-1]))		# logged twice
	if r.random() < .3: r.shuffle(records)
	return records

TIMES = {'started_at', 'finished_at', 'lease_expires_at', 'last_report_at', 'next_not_before'}
def as_json(x): return {k: (EPOCH + dt.timedelta(milliseconds=v)).isoformat() if k in TIMES else v for k, v in x.items()}

# ---------------------------------------------------------------- the comparison

def identity(r): return (r['job_id'], r.get('attempt_number'), r.get('lease_id'), r['started_at'])

def compare_spans(c, r):
	"""The view of a span says what the view of everything says of it, although it looks at few of the earlier attempts."""
	columns = '''subject, job_id_a, attempt_number_a, lease_id_a, started_at_a, job_id_b, attempt_number_b, lease_id_b, started_at_b, gap, verdict, also, missing, changed, identical_evidence'''
	wrong = 0
	for _ in range(4):
		since = EPOCH + dt.timedelta(milliseconds=r.choice([r.randrange(40), r.randrange(40000), r.randrange(40) * 3600 * 1000]))
		until = since + dt.timedelta(milliseconds=r.choice([3, 3000, 3 * 3600 * 1000, 30 * 3600 * 1000]))
		c.execute("SELECT set_config('holdfast.span_since', %s, false), set_config('holdfast.span_until', %s, false)", (since.isoformat(), until.isoformat()))
		n, differ = c.execute(f'''WITH span AS MATERIALIZED (SELECT {columns} FROM holdfast.span_pair), whole AS MATERIALIZED
			(SELECT {columns} FROM holdfast.attempt_pair WHERE started_at_b >= holdfast.span_start() AND started_at_b < holdfast.span_end())
			SELECT (SELECT count(*) FROM whole), (SELECT count(*) FROM ((TABLE span EXCEPT ALL TABLE whole) UNION ALL (TABLE whole EXCEPT ALL TABLE span)) d)''').fetchone()
		print(f'span from {since:%d %H:%M:%S.%f} to {until:%d %H:%M:%S.%f}: {n} pairs, {differ} differ')
		wrong += differ
	return wrong

def main():
	p = argparse.ArgumentParser()
	p.add_argument('--histories', type=int, default=10000)
	p.add_argument('--seed', type=int, default=random.SystemRandom().randrange(10 ** 6))
	args = p.parse_args()
	r = random.Random(args.seed)
	c = psycopg.connect('', autocommit=True)
	c.execute("SET timezone = 'UTC'; DROP EXTENSION IF EXISTS holdfast; CREATE EXTENSION holdfast")
	expected, told, histories = collections.Counter(), collections.Counter(), []
	for n in range(args.histories):
		h = history(r, n)
		for a, b, in_job in expected_pairs([A(i, x) for i, x in enumerate(h)]):
			fits = sorted(set(fitting(a, b, in_job)), key=ORDER.index)
			missing = [] if fits else what_is_missing(a, b)
			verdict = fits[0] if fits else 'unexplained'
			told[verdict] += 1
			told.update('also ' + v for v in fits[1:])
			gap = None if a.end is None else b.start - a.end
			expected[(f'subject-{n}', *identity(a.r), *identity(b.r), gap, verdict, tuple(fits[1:]), tuple(missing), tuple(changes(a, b)), identical(a, b))] += 1
		histories.append(h)
	for i in range(0, len(histories), 5000):			# a history in one batch: what was logged twice would be known in the next
		batch = [as_json(x) for h in histories[i:i + 5000] for x in h]
		read, added, known = c.execute('SELECT * FROM holdfast.import_attempts(%s, %s)', ('generated', json.dumps(batch))).fetchone()
		assert read == added == len(batch), (read, added, known)
	c.execute('ANALYZE holdfast.attempt_record')
	ms = lambda t: (t - EPOCH) // dt.timedelta(milliseconds=1)
	found = collections.Counter()
	becauses = collections.defaultdict(str)
	for s, ja, na, la, sa, jb, nb, lb, sb, gap, verdict, also, missing, changed, same, because in c.execute('''
			SELECT subject, job_id_a, attempt_number_a, lease_id_a, started_at_a, job_id_b, attempt_number_b, lease_id_b, started_at_b,
				(extract(epoch FROM gap) * 1000)::bigint, verdict, also, missing, changed, identical_evidence, because FROM holdfast.attempt_pair'''):
		found[(s, ja, na, la, ms(sa), jb, nb, lb, ms(sb), gap, verdict, tuple(also), tuple(missing), tuple(changed), same)] += 1
		becauses[verdict] = because
		assert because, (s, verdict)
	print(f'seed {args.seed}: {args.histories} histories, {sum(map(len, histories))} attempts, {sum(expected.values())} pairs: {dict(sorted(told.items()))}')
	absent = [v for v in ORDER + ['unexplained'] if not told[v]]
	if absent: print('never generated:', absent)
	for verdict in ORDER + ['unexplained']: print(f'  {verdict}: {becauses[verdict]}')
	wrong = 0
	for what, left in (('not found', expected - found), ('not asked for', found - expected)):
		wrong += sum(left.values())
		for x in sorted(left, key=str)[:5]:
			print(what, x)
			if what == 'not found':
				for y in (x for h in histories for x in h):
					if y['subject'] == x[0]: print('   ', y)
	wrong += compare_spans(c, r)
	print(f'{wrong} differences')
	sys.exit(bool(wrong or absent))

if __name__ == '__main__': main()
