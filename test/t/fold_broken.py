"""The oracle of test/model/fold.py finds every way in which a row and its events can part; for 017_fold.pl.

In one transaction, by a superuser's hand, with the guards off: each change is made, must be found and named, and is
undone.  Prints TAP without a plan.
"""
import os
import sys

import psycopg
from psycopg.rows import dict_row

sys.path.insert(0, os.path.join(os.path.dirname(__file__), '..', 'model'))
from fold import Oracle
from tap import ok

# subject: the calls that bring it where it is, each after its claim
SCENES = {
    'running': [],
    'waiting': ["fail(%s, %s, 'Http503', side_effect => 'none')"],
    'doubt': ["fail(%s, %s, 'TimeoutError')"],
    'dead': ["fail(%s, %s, 'ValidationError')"],
    'parts': ["ledger_transition(%s, %s, 'started', 'charge')"],
    'parts in doubt': ["ledger_transition(%s, %s, 'started', 'charge')", "fail(%s, %s, 'TimeoutError', side_effect => 'none')"],
    'snoozed': ["snooze(%s, %s, '1 h')"],
    'done': ['complete(%s, %s)'],
}
JOB = "UPDATE holdfast.job SET {} WHERE subject = '{}'"
EVENT = "DELETE FROM holdfast.event WHERE subject = '{}' AND kind = 'action_{}'"
# what is found, and what was done
BROKEN = [
    ('status is pending', JOB.format("status = 'pending', lease_id = NULL, lease_expires_at = NULL, started_at = NULL", 'running')),
    ('mode is execute', JOB.format("mode = 'execute'", 'doubt')),
    ('attempt_number is 2', JOB.format('attempt_number = 2', 'waiting')),
    ('failures is 0', JOB.format('failures = 0', 'waiting')),
    ('reconciles is 1', JOB.format('reconciles = 1', 'doubt')),
    ('losses is 1', JOB.format('losses = 1', 'doubt')),
    ('resumes is 0', JOB.format('resumes = 0', 'snoozed')),
    ('lease_id is', JOB.format('lease_id = gen_random_uuid()', 'running')),
    ('lease_expires_at is', JOB.format("lease_expires_at = lease_expires_at + interval '1 ms'", 'running')),
    ('lease_expires_at is', JOB.format("lease_expires_at = lease_expires_at - interval '1 ms', last_heartbeat_at = started_at", 'running')),
    ('worker_name is', JOB.format("worker_name = 'another'", 'running')),
    ('fencing_token is', JOB.format('fencing_token = fencing_token - 1', 'waiting')),
    ('run_after is', JOB.format("run_after = run_after - interval '1 ms'", 'waiting')),
    ('run_after is', JOB.format("run_after = run_after + interval '1 ms'", 'snoozed')),
    ('cancel_requested_at is', JOB.format('cancel_requested_at = started_at', 'running')),
    ('last_error_class is', JOB.format("last_error_class = 'Other'", 'waiting')),
    ('last_event_at is', JOB.format("last_event_at = last_event_at - interval '1 us'", 'waiting')),
    ('is gone, and its events say live', "DELETE FROM holdfast.job WHERE subject = 'waiting'"),
    ('is gone, and its events say dead', "DELETE FROM holdfast.dead_job WHERE subject = 'dead'"),
    ('reason is budget', "UPDATE holdfast.dead_job SET reason = 'budget' WHERE subject = 'dead'"),
    ('both live and dead', "INSERT INTO holdfast.dead_job SELECT j.*, now(), 'budget' FROM holdfast.job j WHERE subject = 'waiting'"),
    ('is planned, and its events say started', "UPDATE holdfast.ledger SET state = 'planned' WHERE subject = 'running' AND effect IS NULL"),
    ('is committed, and its events say unknown', "UPDATE holdfast.ledger SET state = 'committed' WHERE subject = 'doubt'"),
    ('is started, and its events say committed', "UPDATE holdfast.ledger SET state = 'started' WHERE subject = 'done'"),
    ('has no ledger row', "DELETE FROM holdfast.ledger WHERE subject = 'done'"),
    ('effects of key', "UPDATE holdfast.ledger SET state = 'committed' WHERE subject = 'parts' AND effect = 'charge'"),
    ('effects of key', "UPDATE holdfast.ledger SET state = 'planned' WHERE subject = 'parts in doubt' AND effect = 'charge'"),
    ('unknown_effect is not the ledger', 'DELETE FROM holdfast.unknown_effect'),
    ('has been at work, and has no events', "DELETE FROM holdfast.event WHERE subject = 'running'"),
    ('under a lease that was not current', EVENT.format('waiting', 'attempt_started')),
    ('failures is 1', EVENT.format('waiting', 'attempt_failed')),
    ('is live, and its events say None', EVENT.format('waiting', 'retry_scheduled')),
    ('is gone, and its events say live', EVENT.format('done', 'attempt_succeeded')),
    ('began while live and running', """INSERT INTO holdfast.event SELECT (json_populate_record(e, json_build_object(
        'event_id', nextval('holdfast.event_id_seq'), 'at', e.at + interval '1 us'))).* FROM holdfast.event e WHERE subject = 'running'"""),
    ('succeeded twice', """INSERT INTO holdfast.event SELECT (json_populate_record(e, json_build_object(
        'event_id', nextval('holdfast.event_id_seq'), 'at', e.at + interval '1 us'))).* FROM holdfast.event e
        WHERE subject = 'done' AND kind = 'action_attempt_succeeded'"""),
    ('is out of order', """INSERT INTO holdfast.event SELECT (json_populate_record(e, json_build_object(
        'event_id', nextval('holdfast.event_id_seq'), 'at', e.at - interval '1 s', 'kind', 'action_deferred'))).* FROM holdfast.event e
        WHERE subject = 'waiting' AND kind = 'action_retry_scheduled'"""),
]


def set_scenes(c):
    c.execute('CREATE EXTENSION holdfast')
    c.execute("SELECT holdfast.define_retry_policy('slow', '1 h')")
    c.execute("SELECT holdfast.create_queue('q', lease => '1 h', timeout => '50 min', retry_policy => 'slow')")
    for subject, calls in SCENES.items():
        c.execute("SELECT holdfast.enqueue('q', 'act', %s)", [subject])
        row = c.execute("SELECT job_id, lease_id FROM holdfast.claim('q', 'worker')").fetchone()
        for call in calls:
            c.execute(f'SELECT holdfast.{call}', (row['job_id'], row['lease_id']))


with psycopg.connect(autocommit=True, row_factory=dict_row) as c:
    set_scenes(c)
    c.execute('BEGIN ISOLATION LEVEL REPEATABLE READ')
    problems, events = Oracle().judge(c)
    ok(not problems and len(events) > len(SCENES), 'G7: every row is the fold of its events', *problems)
    c.execute("SELECT holdfast.permit_ddl('a test of the oracle')")
    for table in ('job', 'dead_job', 'ledger', 'unknown_effect', 'event'):
        c.execute(f'ALTER TABLE holdfast.{table} DISABLE TRIGGER ALL')
    for found, statement in BROKEN:
        c.execute('SAVEPOINT before')
        changed = c.execute(statement).rowcount
        problems, _ = Oracle().judge(c)
        ok(changed > 0 and any(found in p for p in problems), f'the oracle finds: {found}', statement, f'{changed} rows', *problems)
        c.execute('ROLLBACK TO before')
    problems, _ = Oracle().judge(c)
    ok(not problems, 'and nothing once it is undone', *problems)
    c.execute('ROLLBACK')
