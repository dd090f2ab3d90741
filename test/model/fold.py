#!/usr/bin/env python3
"""The rows of jobs and ledger, computed from the events alone, and compared with the rows that are stored (G7, G10).

	scripts/server /usr/bin/python3 test/model/fold.py		the current database; exit status 1 if they disagree

Written from docs/state-machine.md, and from nothing else: it knows no policy and no clock.  Events that change no row
(stale and duplicate reports, duplicate enqueues, violations) are left out.  A heartbeat writes no event: it may have
moved the lease's end of a running job, and nothing else.  What happened before a job's first claim is on no record
but its enqueue: run_after is known from the first decision on, the ledger from the first claim on.
"""
import collections
import sys

import psycopg
from psycopg.rows import dict_row

NOTES = ('action_stale_report', 'action_duplicate_report', 'action_duplicate_enqueue', 'action_violation')
COUNTERS = ('attempt_number', 'failures', 'reconciles', 'losses', 'resumes')
COLUMNS = """event_id, at, job_id, idempotency_key, attempt_number, kind, lease_id, worker_name, mode, lease_expires_at, fencing_token,
	failures, exception_class, worker_result, side_effect_state, next_not_before, detail"""
JOB = """job_id, idempotency_key, status, mode, attempt_number, failures, reconciles, losses, resumes, lease_id, lease_expires_at,
	last_heartbeat_at, run_after, fencing_token, worker_name, cancel_requested_at, last_error_class, last_event_at, side_effects"""


class Job:
    """What the events say of one job.  place: live, dead, gone; or None between an attempt's end and the decision."""

    def __init__(self):
        self.place, self.status, self.mode, self.reason = 'live', 'pending', 'execute', None
        self.attempt_number = self.failures = self.reconciles = self.losses = self.resumes = 0
        self.lease_id = self.lease_expires_at = self.worker_name = self.fencing_token = None
        self.run_after = None		# None: no decision is on record
        self.succeeded = False
        self.cancel_requested, self.last_error_class, self.last_event_at = False, None, None

    def pending(self, mode, run_after):
        self.place, self.status, self.mode = 'live', 'pending', mode
        if run_after is not None:
            self.run_after = run_after
        self.end_lease()

    def end_lease(self):
        self.status = 'pending'
        self.lease_id = self.lease_expires_at = self.worker_name = None

    def leaves(self, place, reason=None):
        self.place, self.reason = place, reason or self.reason
        self.end_lease()


class Intent:
    """What the events say of an idempotency key: its jobs, the ledger's state, and that of each child effect."""

    def __init__(self):
        self.jobs = collections.defaultdict(Job)
        self.state, self.effects, self.problems = None, {}, []

    def take(self, e):
        job, detail = self.jobs[e['job_id']], e['detail'] or {}
        if job.last_event_at is not None and (e['attempt_number'], e['at']) < (job.attempt_number, job.last_event_at):
            self.problems.append(f"job {e['job_id']}: event {e['event_id']} is out of order")
        job.last_event_at = e['at']
        rule = getattr(self, e['kind'].removeprefix('action_'), None)
        if rule is None:
            self.problems.append(f"job {e['job_id']}: {e['kind']} is not in the fold")
        else:
            rule(job, e, detail)

    def ledger_is(self, e):
        if e['side_effect_state'] is not None:
            self.state = e['side_effect_state']

    def effects_become(self, state, then):
        self.effects.update({effect: then for effect, s in self.effects.items() if s == state})

    # an attempt begins

    def attempt_started(self, job, e, detail):
        if job.place != 'live' or job.status != 'pending' or job.fencing_token is not None and e['fencing_token'] <= job.fencing_token:
            self.problems.append(f"job {e['job_id']}: attempt {e['attempt_number']} began while {job.place} and {job.status}, token {e['fencing_token']} after {job.fencing_token}")
        if e['attempt_number'] != job.attempt_number + 1 or e['failures'] != job.failures:
            self.problems.append(f"job {e['job_id']}: attempt {e['attempt_number']} with {e['failures']} failures after attempt {job.attempt_number} with {job.failures}")
        job.status, job.mode, job.attempt_number = 'running', e['mode'], e['attempt_number']
        job.lease_id, job.lease_expires_at, job.worker_name, job.fencing_token = (
            e['lease_id'], e['lease_expires_at'], e['worker_name'], e['fencing_token'])
        self.ledger_is(e)

    # an attempt ends

    def attempt_failed(self, job, e, detail):
        if job.lease_id is None or e['lease_id'] != job.lease_id:
            self.problems.append(f"job {e['job_id']}: attempt {e['attempt_number']} ended under a lease that was not current")
        if e['mode'] == 'reconcile':
            job.reconciles += 1
        elif e['failures'] not in (job.failures + 1, job.failures if e['kind'] == 'action_attempt_lost' else None):
            self.problems.append(f"job {e['job_id']}: {e['failures']} failures after {job.failures}")
        job.failures, job.resumes, job.last_error_class = e['failures'], 0, e['exception_class']
        job.leaves(None)
        self.effects_become('started', 'unknown')
        self.ledger_is(e)

    def attempt_lost(self, job, e, detail):
        self.attempt_failed(job, e, detail)
        job.losses += 1

    def snoozed(self, job, e, detail):
        if job.lease_id is None or e['lease_id'] != job.lease_id:
            self.problems.append(f"job {e['job_id']}: attempt {e['attempt_number']} ended under a lease that was not current")
        if e['next_not_before'] is None:		# its end follows
            job.leaves(None)
        else:
            job.resumes += 1
            job.pending(e['mode'], e['next_not_before'])
        self.ledger_is(e)

    released = snoozed

    def attempt_succeeded(self, job, e, detail):
        if job.place == 'live' and (job.lease_id is None or e['lease_id'] != job.lease_id):
            self.problems.append(f"job {e['job_id']}: succeeded under a lease that was not current")
        if job.succeeded:
            self.problems.append(f"job {e['job_id']}: succeeded twice")
        job.succeeded = True
        job.leaves('gone')
        self.ledger_is(e)

    # what was decided

    def retry_scheduled(self, job, e, detail):
        job.pending('reconcile' if e['kind'] == 'action_reconcile_scheduled' else 'execute', e['next_not_before'])
        self.ledger_is(e)

    reconcile_scheduled = retry_scheduled

    def exhausted(self, job, e, detail):
        job.leaves('dead', detail['reason'])
        self.ledger_is(e)

    terminal = exhausted

    def suppressed(self, job, e, detail):
        job.leaves('gone')
        self.ledger_is(e)

    def deferred(self, job, e, detail):
        job.pending(e['mode'], e['next_not_before'])

    # findings

    def reconciled(self, job, e, detail):
        if 'by' in detail:
            return self.settled(job, e, detail)
        finding, outcome, effect = e['worker_result'], detail['outcome'], detail.get('effect')
        if effect is not None and finding != 'undetermined':
            self.effects[effect] = 'committed' if finding == 'landed' else 'failed_retryable'
        self.ledger_is(e)
        if outcome == 'done':
            job.leaves('gone')
        elif outcome == 'retry':
            job.pending('reconcile' if finding == 'undetermined' else 'execute', e['next_not_before'])
        elif outcome == 'dead':					# its end follows, but for this one
            job.leaves('dead' if detail['reason'] == 'unresolved' else None, detail['reason'])
        elif outcome == 'execute':
            job.mode, job.lease_expires_at = 'execute', e['lease_expires_at']
            job.run_after = None				# where it runs, and no decision

    def settled(self, job, e, detail):
        """By an operator."""
        decision = detail['decision']
        if 'effect' in detail:
            self.effects[detail['effect']] = detail['effect_state']
        if e['worker_result'] == 'abandoned':
            self.effects_become('unknown', 'failed_terminal')
        self.ledger_is(e)
        if job.place == 'gone':
            return
        if decision == 'succeeded':
            job.leaves('gone')
        elif decision == 'dead':
            job.leaves('dead', detail.get('dead_by'))
        elif job.place == 'live':
            job.pending(decision, e['next_not_before'])

    def ledger_changed(self, job, e, detail):
        if 'effect' in detail:
            self.effects[detail['effect']] = detail['to']
        else:
            self.state = detail['to']

    # operators

    def cancel_requested(self, job, e, detail):
        job.cancel_requested = True

    def cancelled(self, job, e, detail):
        dead = detail.get('decision') == 'dead' if 'by' in detail else detail['reason'] == 'unresolved'
        job.leaves('dead' if dead else 'gone', 'unresolved')
        if 'by' in detail:
            self.effects_become('started', 'unknown')
        self.ledger_is(e)

    purged = cancelled

    def redriven(self, job, e, detail):
        job.pending(e['mode'], e['next_not_before'])
        job.cancel_requested, job.reason = False, None
        if not detail.get('recovered'):
            job.failures = job.reconciles = job.losses = job.resumes = 0
        self.effects_become('failed_terminal', 'planned')
        self.ledger_is(e)


def fold(events):
    """key -> Intent, of events in the order of event_id, in which those of a key were written."""
    intents = collections.defaultdict(Intent)
    for e in events:
        if e['kind'] not in NOTES:
            intents[e['idempotency_key']].take(e)
    return intents


def differences(job, row, place):
    """What the stored row has, where the fold has another value: (column, row, fold)."""
    yield from ((c, row[c], getattr(job, c)) for c in COUNTERS + ('last_error_class', 'last_event_at') if row[c] != getattr(job, c))
    if row['fencing_token'] != (job.fencing_token or row['fencing_token']):
        yield 'fencing_token', row['fencing_token'], job.fencing_token
    if (row['cancel_requested_at'] is not None) != job.cancel_requested:
        yield 'cancel_requested_at', row['cancel_requested_at'], job.cancel_requested
    if place == 'dead':
        if row['reason'] != job.reason:
            yield 'reason', row['reason'], job.reason
        return
    yield from ((c, row[c], getattr(job, c)) for c in ('status', 'mode', 'lease_id', 'worker_name') if row[c] != getattr(job, c))
    if job.run_after not in (None, row['run_after']):
        yield 'run_after', row['run_after'], job.run_after
    ends, began = row['lease_expires_at'], job.lease_expires_at
    if ends != began and not (ends and began and ends > began and row['last_heartbeat_at'] is not None):
        yield 'lease_expires_at', ends, began


class Oracle:
    """Judges all jobs, or those of an increasing set: a key is judged with every job of it that was seen before."""

    def __init__(self):
        self.jobs_of_key = collections.defaultdict(set)

    def read_events(self, c, job_ids):
        """In the order of event_id, with those of the other jobs of the same keys."""
        sql = f'SELECT {COLUMNS} FROM holdfast.event_all'
        if job_ids is None:
            events = c.execute(f'{sql} ORDER BY event_id').fetchall()
            self.note(events)
            return events
        wanted, known = set(job_ids), None
        while wanted != known:			# the events of a new job may tell that its key is known
            known = wanted
            events = c.execute(f'{sql} WHERE job_id = ANY(%s) ORDER BY event_id', [list(known)]).fetchall()
            self.note(events)
            wanted = known.union(*(self.jobs_of_key[e['idempotency_key']] for e in events))
        return events

    def note(self, events):
        for e in events:
            self.jobs_of_key[e['idempotency_key']].add(e['job_id'])

    def judge(self, c, job_ids=None):
        """Problems, and the events, of a connection in one REPEATABLE READ transaction with dict_row.

        Without job_ids every job is judged, else those, and all that are live or dead."""
        live = {r['job_id']: r for r in c.execute(f'SELECT {JOB} FROM holdfast.job').fetchall()}
        dead = {r['job_id']: r for r in c.execute(f'SELECT {JOB}, reason FROM holdfast.dead_job').fetchall()}
        events = self.read_events(c, None if job_ids is None else set(job_ids) | live.keys() | dead.keys())
        intents = fold(events)
        problems = [p for intent in intents.values() for p in intent.problems]
        problems += [f'job {i} is both live and dead' for i in live.keys() & dead.keys()]
        self.judge_jobs(intents, live, dead, problems)
        self.judge_ledger(c, intents, live, problems)
        return problems, events

    def judge_jobs(self, intents, live, dead, problems):
        seen = set()
        for intent in intents.values():
            for i, job in intent.jobs.items():
                seen.add(i)
                place = 'live' if i in live else 'dead' if i in dead else 'gone'
                if place != job.place:
                    problems.append(f'job {i} is {place}, and its events say {job.place}')
                elif place != 'gone':
                    problems += [f'job {i}: {column} is {stored}, and its events say {told}'
                                 for column, stored, told in differences(job, live.get(i) or dead[i], place)]
        for i, row in (live | dead).items():
            if i not in seen and any(row[c] for c in COUNTERS):
                problems.append(f'job {i} has been at work, and has no events')

    def judge_ledger(self, c, intents, live, problems):
        """From the first claim of the job that the row names."""
        keys = list(intents)
        rows = c.execute('''SELECT idempotency_key, parent_key, effect, job_id, state FROM holdfast.ledger
            WHERE idempotency_key = ANY(%s) OR parent_key = ANY(%s)''', [keys, keys]).fetchall()
        stored = collections.defaultdict(dict)
        for r in rows:
            stored[r['parent_key'] or r['idempotency_key']][r['effect']] = r
        for key, intent in intents.items():
            row = stored[key].pop(None, None)
            if intent.state is None:			# never claimed, or without side effects
                continue
            if row is None:
                problems.append(f'key {key} has no ledger row, and its events say {intent.state}')
            elif intent.jobs[row['job_id']].attempt_number > 0 and row['state'] != intent.state:
                problems.append(f"ledger of job {row['job_id']} is {row['state']}, and its events say {intent.state}")
            told = {effect: r['state'] for effect, r in stored[key].items()}
            if told != intent.effects:
                problems.append(f'effects of key {key} are {told}, and the events say {intent.effects}')
        keys = [r['idempotency_key'] for r in rows if r['state'] == 'unknown']
        noted = {r['idempotency_key'] for r in c.execute('SELECT idempotency_key FROM holdfast.unknown_effect WHERE idempotency_key = ANY(%s)',
                                                         [[r['idempotency_key'] for r in rows]]).fetchall()}
        if noted != set(keys):
            problems.append(f'unknown_effect is not the ledger: {noted ^ set(keys)}')


def judge_all():
    with psycopg.connect(row_factory=dict_row) as c:
        c.execute('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ')
        problems, events = Oracle().judge(c)
    for p in problems[:50]:
        print(p)
    print(f'{len(events)} events of {len({e["job_id"] for e in events})} jobs: {len(problems)} problems')
    return bool(problems)


if __name__ == '__main__':
    sys.exit(judge_all())
