"""A failing sequence of calls made short: stretches are left out as long as the same call fails in the same way."""
import time

from calls import OPS, Array, Ref, literal
from driver import CONTROL, set_up
from model import stamp

def related(calls, about):
	"""The calls that concern a job of the last one, those that concern no job (settings, transactions), and it."""
	last = about.get(calls[-1].n, set())
	return [c for c in calls if c is calls[-1] or not about.get(c.n) or about[c.n] & last]

def shrink(calls, kind, replay, until, about):
	"""
	Delta debugging: replay(calls) answers the calls that were made, and the kind of divergence or None.  First all that
	concerns other jobs at once, then stretches from half of the sequence down to single calls, until none can be spared.
	"""
	made, k = replay(related(calls, about))
	if k == kind: calls = made
	size = max(len(calls) // 2, 1)
	while time.time() < until:
		at, shorter = 0, False
		while at < len(calls) and time.time() < until:
			made, k = replay(calls[:at] + calls[at + size:])
			if k == kind: calls, shorter = made, True
			else: at += size
		if size == 1 and not shorter: break
		size = max(min(size // 2, len(calls) // 2), 1)
	alone, k = replay([c._replace(session=0) for c in calls if c.op not in CONTROL])		# easier to paste, if that is all it takes
	return alone if k == kind and len(alone) <= len(calls) else calls

def as_sql(calls):
	"""The sequence as SQL to paste, its sessions one after the other where they are only one."""
	used = {(r.call, r.row) for c in calls for a in c.args for r in (a if type(a) is Array else [a]) if type(r) is Ref}
	asked = {n for n, _ in used}
	yield 'CREATE EXTENSION holdfast;'
	yield 'CREATE TABLE answered (call integer, n bigint, job_id bigint, lease_id uuid);'
	yield from (f'{s};' for s in set_up())
	session = clock = None
	for c in calls:
		if c.session != session: yield f'-- session {c.session}'
		if c.op not in CONTROL and (c.session != session or c.now != clock): yield f"SET holdfast.clock = '{stamp(c.now)}';"
		clock = c.now if c.op not in CONTROL else clock if c.session == session else None
		session = c.session
		yield statement(c, c.n in asked) + ';'

def statement(c, answered=False):
	if c.op in CONTROL: return CONTROL[c.op]
	def refer(r): return f'(SELECT {r.what} FROM answered WHERE call = {r.call} AND n = {r.row})'
	sql = OPS[c.op].call
	for i in range(len(c.args), 0, -1): sql = sql.replace(f'${i}', literal(c.args[i - 1], refer))
	if c.op == 'in_one': return f'SELECT c.job_id, holdfast.complete(c.job_id, c.lease_id) FROM holdfast.{sql} c'
	if not answered: return f'SELECT * FROM holdfast.{sql}'
	lease = 'NULL' if c.op in ('enqueue', 'enqueue_batch') else 'x.lease_id'
	return f'INSERT INTO answered SELECT {c.n}, x.ordinality, x.job_id, {lease} FROM holdfast.{sql} WITH ORDINALITY x'
