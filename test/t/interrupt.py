#!/usr/bin/python3
"""Calls that are ended in their middle: cancelled, terminated, timed out.

Short calls are stopped where they wait for a row that another session has
locked; long ones after a random time.  Afterwards nothing has changed, the
backend holds no lock, and the same call works.  Prints TAP; SEED makes a run
repeatable but for the machine's own timing.
"""
import os
import random
import sys
import time

import psycopg

SEED = int(os.environ.get('SEED', '1'))
ROUNDS = int(os.environ.get('INTERRUPT_ROUNDS', '6'))       # of each long call
rng = random.Random(SEED)
tests = 0


def ok(good, name, why=''):
    global tests
    tests += 1
    print(f"{'ok' if good else 'not ok'} {tests} - {name}", flush=True)
    if not good:
        print('# ' + str(why).replace('\n', '\n# '), flush=True)


def connect():
    return psycopg.connect('dbname=postgres', autocommit=True)


def run(connection, sql):
    cursor = connection.execute(sql)
    return cursor.fetchall() if cursor.description else []


control = connect()
STORED = """
SELECT md5(concat(
    (SELECT string_agg(j::text, ';' ORDER BY j.job_id) FROM holdfast.job j), (SELECT string_agg(l::text, ';' ORDER BY l.idempotency_key) FROM holdfast.ledger l),
    (SELECT string_agg(d::text, ';' ORDER BY d.job_id) FROM holdfast.dead_job d), (SELECT string_agg(e::text, ';' ORDER BY e.event_id) FROM holdfast.event_all e),
    (SELECT string_agg(f::text, ';' ORDER BY f::text) FROM holdfast.finding f), (SELECT string_agg(q::text, ';' ORDER BY q.queue_id) FROM holdfast.queue q),
    (SELECT string_agg(s::text, ';' ORDER BY s::text) FROM holdfast.stream s)))"""


def stored():
    return run(control, STORED)[0][0]


def locks(pid):
    """What a backend has locked outside of a transaction: nothing but itself."""
    return run(control, f"SELECT locktype, mode, relation::regclass::text FROM pg_locks WHERE pid = {pid} AND locktype NOT IN ('virtualxid')")


# --- short calls, which wait for the row of the job or of its key

for sql in ("SELECT holdfast.create_queue('q'), holdfast.create_queue('long')", "SELECT holdfast.define_stream('q', 'loop')",
            "SELECT outcome FROM generate_series(1, 4) n, holdfast.enqueue('q', 'act', 's' || n, stream => 'loop')",
            'CREATE TABLE held AS SELECT c.* FROM holdfast.claim(\'q\', \'w\', 3) c',
            "SELECT f.decision FROM held, holdfast.fail(job_id, lease_id, 'TimeoutError') f WHERE subject = 's2'",
            "SELECT holdfast.cancel(job_id, 'why', true) FROM held WHERE subject = 's3'",
            "SET holdfast.clock = '2040-01-01 00:00:00+00'",
            "UPDATE held SET lease_id = c.lease_id FROM holdfast.claim('q', 'w', 1, modes => 'reconcile') c WHERE c.job_id = held.job_id",
            'RESET holdfast.clock'):
    run(control, sql)
job = {subject: (job_id, lease, key) for subject, job_id, lease, key in run(control, 'SELECT subject, job_id, lease_id, idempotency_key FROM held')}
HELD = "{0}, '{1}'"
SHORT = [   # subject whose rows are locked, call
    ('s1', f'complete({HELD})'), ('s1', f"fail({HELD}, 'Boom')"), ('s1', f"schedule_retry({HELD}, '9 s')"), ('s1', f"snooze({HELD}, '9 s')"), ('s1', f'release({HELD})'),
    ('s1', f'assert_lease({HELD})'), ('s1', f"ledger_transition({HELD}, 'committed')"), ('s1', f"ledger_transition({HELD}, 'started', 'mail')"),
    ('s1', "complete_batch(ARRAY[{0}], ARRAY['{1}'::uuid])"), ('s1', "complete_and_claim('q', 'w', ARRAY[{0}], ARRAY['{1}'::uuid])"),
    ('s2', f"reconcile({HELD}, 'landed')"), ('s2', f"reconcile({HELD}, 'not_landed')"), ('s2', f"reconcile({HELD}, 'undetermined')"), ('s2', f"fail({HELD}, 'Boom')"),
    ('s1', "cancel({0}, 'why')"), ('s1', "cancel({0}, 'why', true)"), ('s1', "purge_queue('q', true)"),
    ('s3', "redrive({0}, 'why')"), ('s3', "settle_unknown('{2}', 'landed', to_jsonb(1), 'why')"), ('s3', "settle_unknown('{2}', 'abandoned', to_jsonb(1), 'why')"),
]
blocker = connect()
for subject, call in SHORT:
    sql = 'SELECT * FROM holdfast.' + call.format(*job[subject])
    before = stored()
    problems = []
    for manner, state in (('statement_timeout', '57014'), ('lock_timeout', '55P03'), ('cancel', '57014'), ('terminate', '57P01')):
        session = connect()
        pid = session.info.backend_pid
        run(blocker, 'BEGIN')
        for table in ('job', 'dead_job', 'ledger'):
            run(blocker, f"SELECT FROM holdfast.{table} WHERE job_id = {job[subject][0]} FOR UPDATE")
        if manner.endswith('timeout'):
            run(session, f"SET {manner} = '50ms'")
        else:       # in another session, as soon as this one waits
            run(control, f"""CREATE OR REPLACE PROCEDURE stop() LANGUAGE plpgsql AS $$ BEGIN
                FOR i IN 1 .. 1000 LOOP
                    PERFORM pg_stat_clear_snapshot();
                    IF EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid} AND wait_event_type = 'Lock') THEN
                        PERFORM pg_{manner}_backend({pid}); RETURN;
                    END IF;
                    PERFORM pg_sleep(0.005);
                END LOOP; END $$""")
            control.pgconn.send_query(b'CALL stop()')
        try:
            run(session, sql)
            problems.append(f'{manner}: it did not wait')
        except psycopg.Error as error:
            # the end of a connection has no SQLSTATE for psycopg
            if error.sqlstate != state and not (manner == 'terminate' and 'administrator command' in str(error)):
                problems.append(f'{manner}: {error.sqlstate} {error}')
        if not manner.endswith('timeout'):
            while control.pgconn.get_result():
                pass
        if manner != 'terminate':
            if locks(pid):
                problems.append(f'{manner}: holds {locks(pid)}')
        run(blocker, 'ROLLBACK')
        if manner == 'terminate':
            session = connect()
        if stored() != before:
            problems.append(f'{manner}: something has changed')
        try:        # and it works, in the same backend where there is one
            run(session, 'RESET statement_timeout; RESET lock_timeout; BEGIN')
            run(session, sql)
            run(session, 'ROLLBACK')
        except psycopg.Error as error:
            problems.append(f'{manner}, then again: {error}')
        session.close()
    ok(not problems, 'all or nothing, four times: ' + call, '\n'.join(problems))

# --- long calls, stopped after a random time

run(control, "SELECT count(*) FROM generate_series(1, 3000) n, holdfast.enqueue('long', 'act', 'l' || n)")
run(control, "CREATE TABLE many AS SELECT job_id, lease_id FROM holdfast.claim('long', 'w', 1000)")
run(control, "SELECT count(*) FROM many, holdfast.cancel(job_id, 'why', true) WHERE job_id IN (SELECT job_id FROM many ORDER BY job_id LIMIT 300)")
LONG = [
    "claim('long', 'w', 1000)", "claim_any(ARRAY['q', 'long'], 'w', 1000)",
    "complete_batch(ARRAY(SELECT job_id FROM many ORDER BY job_id), ARRAY(SELECT lease_id FROM many ORDER BY job_id))",
    "complete_and_claim('long', 'w', ARRAY(SELECT job_id FROM many ORDER BY job_id), ARRAY(SELECT lease_id FROM many ORDER BY job_id), 1000)",
    "enqueue_batch('long', (SELECT jsonb_agg(jsonb_build_object('action_key', 'act', 'subject', 'new ' || n)) FROM generate_series(1, 3000) n))",
    "purge_queue('long', true)", "redrive_queue('long', 'why')", 'maintain()', "settle_expired((SELECT queue_id FROM holdfast.queue WHERE queue_name = 'long'), 1000)",
    "timeline(action_key => 'act')", "metrics('long')",
]
all_stopped = 0
for call in LONG:
    stopped, problems = 0, []
    sql = 'SELECT * FROM holdfast.' + call
    session = connect()
    pid = session.info.backend_pid
    clock = "SET holdfast.clock = '2040-01-01 00:00:00+00'" if call.startswith(('maintain', 'settle_expired')) else 'RESET holdfast.clock'
    run(session, clock)
    for _ in range(2):      # the first is cold
        run(session, 'BEGIN')
        began = time.monotonic()
        run(session, sql)
        took = max(time.monotonic() - began, 0.001)
        run(session, 'ROLLBACK')
    before = stored()
    for _ in range(ROUNDS):
        limit = max(1, int(rng.random() * took * 900))
        try:
            run(session, 'BEGIN')
            run(session, f'SET LOCAL statement_timeout = {limit}')
            run(session, sql)
            run(session, 'ROLLBACK')
        except psycopg.Error as error:
            stopped += 1
            all_stopped += 1
            if error.sqlstate != '57014':
                problems.append(f'after {limit} ms: {error.sqlstate} {error}')
            run(session, 'ROLLBACK')
        if locks(pid):
            problems.append(f'after {limit} ms: holds {locks(pid)}')
        if stored() != before:
            problems.append(f'after {limit} ms: something has changed')
    try:
        run(session, 'BEGIN')
        run(session, sql)
        run(session, 'ROLLBACK')
    except psycopg.Error as error:
        problems.append(f'then again: {error}')
    session.close()
    ok(not problems, f'all or nothing, stopped {stopped} times of {ROUNDS}, of {took * 1000:.0f} ms: {call[:40]}', '\n'.join(problems))

ok(all_stopped >= len(LONG), f'seed {SEED}: {all_stopped} long calls were stopped in their middle')
print(f'1..{tests}')
sys.exit(0)
