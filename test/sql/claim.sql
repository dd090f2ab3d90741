\i test/setup.sql
\i test/tools.sql
-- Claiming: the order, the number, the time, the lease, and what is settled on the way.

-- A claim in a transaction with an old snapshot could not follow the newest versions.
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
\i test/tools.sql
SELECT holdfast.create_queue('mail') \g /dev/null
SELECT outcome FROM holdfast.enqueue('mail', 'act', 's') \g /dev/null
SELECT pg_temp.refusal($$SELECT * FROM holdfast.claim('mail', 'w')$$) AS claim,
	   pg_temp.refusal($$SELECT * FROM holdfast.claim_any('{mail}', 'w')$$) AS claim_any,
	   pg_temp.refusal($$SELECT * FROM holdfast.complete_and_claim('mail', 'w', '{}', '{}')$$) AS complete_and_claim,
	   (SELECT status FROM pg_temp.job WHERE subject = 's') AS status \gset in_repeatable_read_
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
\i test/tools.sql
SELECT holdfast.create_queue('mail') \g /dev/null
SELECT pg_temp.refusal($$SELECT * FROM holdfast.claim('mail', 'w')$$) AS claim,
	   pg_temp.refusal($$SELECT * FROM holdfast.complete_and_claim('mail', 'w', '{}', '{}')$$) AS complete_and_claim \gset in_serializable_
ROLLBACK;
BEGIN;
SET holdfast.single_transaction = on;
\i test/tools.sql

SELECT plan(124);

SELECT is(:'in_repeatable_read_claim'::text, '25001', 'claim in REPEATABLE READ is refused');
SELECT is(:'in_repeatable_read_claim_any'::text, '25001', 'claim_any likewise');
SELECT is(:'in_repeatable_read_complete_and_claim'::text, '25001', 'complete_and_claim likewise');
SELECT is(:'in_repeatable_read_status'::text, 'pending', 'and the job is untouched');
SELECT is(:'in_serializable_claim'::text, '25001', 'claim in SERIALIZABLE is refused');
SELECT is(:'in_serializable_complete_and_claim'::text, '25001', 'complete_and_claim likewise');

-- the subjects that a claim hands out, in order
CREATE FUNCTION pg_temp.got(queue_name text, qty integer, modes text DEFAULT 'all') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	context	holdfast.execution_context;
	got		text[] := '{}';
BEGIN
	FOR context IN SELECT * FROM holdfast.claim(queue_name, 'w', qty, modes => modes) LOOP
		got := got || context.subject;
	END LOOP;
	RETURN array_to_string(got, ' ');
END
$$;
CREATE FUNCTION pg_temp.got_any(queue_names text[], qty integer) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	context	holdfast.execution_context;
	got		text[] := '{}';
BEGIN
	FOR context IN SELECT * FROM holdfast.claim_any(queue_names, 'w', qty) LOOP
		got := got || context.subject;
	END LOOP;
	RETURN array_to_string(got, ' ');
END
$$;
CREATE FUNCTION pg_temp.put(queue_name text, subjects text, options jsonb DEFAULT '{}') RETURNS void LANGUAGE sql AS $$
	SELECT count(*) FROM holdfast.enqueue_batch(queue_name,
		(SELECT jsonb_agg('{"action_key": "act"}' || jsonb_build_object('subject', s, 'scope', queue_name) || options ORDER BY n)
		 FROM unnest(string_to_array(subjects, ' ')) WITH ORDINALITY AS u (s, n)))
$$;

SELECT pg_temp.at('00:00:00') \g /dev/null
SELECT holdfast.define_retry_policy('plain', '10 s', 2, '1 h', '0 s', '5 s', 3) \g /dev/null
SELECT holdfast.create_queue(q, retry_policy => 'plain') FROM unnest(ARRAY['order', 'qty', 'skip', 'time', 'late', 'modes', 'a', 'b', 'c', 'paused',
	'lease', 'context', 'lost', 'many', 'suppressed', 'doubtful', 'gave up', 'settling', 'bad']) AS q \g /dev/null
SELECT holdfast.create_queue('separate', retry_policy => 'plain', reconcile => 'separate') \g /dev/null
SELECT holdfast.create_queue('beating', lease => '60 s', heartbeat => '20 s', timeout => '6 h') \g /dev/null

-- the order: priority, run_after, job_id

SELECT is_empty($$SELECT * FROM holdfast.claim('order', 'w', 10)$$, 'an empty queue gives nothing');
SELECT pg_temp.put('order', 'late-0', '{"run_after": "2030-01-01 00:00:03+00"}'), pg_temp.put('order', 'low', '{"priority": 100}'),
	   pg_temp.put('order', 'early-0', '{"run_after": "2030-01-01 00:00:02+00"}'), pg_temp.put('order', 'early-5 early-5b', '{"priority": 5, "run_after": "2030-01-01 00:00:01+00"}'),
	   pg_temp.put('order', 'early-0b', '{"run_after": "2030-01-01 00:00:02+00"}'), pg_temp.put('order', 'high', '{"priority": -100, "run_after": "2030-01-01 00:00:05+00"}'),
	   pg_temp.put('order', 'parked', '{"priority": -100, "run_after": "2030-01-01 00:00:05.001+00"}') \g /dev/null
SELECT pg_temp.at('00:00:05') \g /dev/null
SELECT is(pg_temp.got('order', 10), 'high early-0 early-0b late-0 early-5 early-5b low', 'the order is priority, run_after, job_id');
SELECT is(pg_temp.got('order', 10), '', 'G1: what was handed out is not handed out again');

-- qty

SELECT pg_temp.put('qty', (SELECT string_agg(n::text, ' ' ORDER BY n) FROM generate_series(1, 20) n)) \g /dev/null
SELECT is(pg_temp.got('qty', 1), '1', 'qty 1 gives one');
SELECT is(pg_temp.got('qty', 3), '2 3 4', 'qty 3 gives three, never more');
SELECT is(pg_temp.got('qty', 100), '5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20', 'a qty above what there is gives what there is');
SELECT results_eq($$SELECT count(*), count(DISTINCT lease_id), count(DISTINCT job_id) FROM pg_temp.job WHERE queue = 'qty' AND status = 'running' AND attempt_number = 1$$,
	$$VALUES (20::bigint, 20::bigint, 20::bigint)$$, 'G1: each job has one attempt, and a lease of its own');

-- parked jobs are skipped

SELECT pg_temp.put('skip', (SELECT string_agg(format('parked-%s-%s', p, n), ' ') FROM generate_series(1, 60) n), jsonb_build_object('priority', p, 'delay', '1 h'))
FROM generate_series(-100, 20, 10) p \g /dev/null
SELECT pg_temp.put('skip', 'due-20', '{"priority": 20}'), pg_temp.put('skip', 'due-5', '{"priority": 5}'), pg_temp.put('skip', 'due-100', '{"priority": 100}') \g /dev/null
SELECT is(pg_temp.got('skip', 2), 'due-5 due-20', 'G12: parked jobs of a priority hide no due job of a later one');
SELECT is(pg_temp.got('skip', 2), 'due-100', 'G12: nor of the last');

-- G9

SELECT pg_temp.put('time', 'job', '{"run_after": "2030-01-01 00:01:00+00"}') \g /dev/null
SELECT pg_temp.at('00:00:59.999') \g /dev/null
SELECT is(pg_temp.got('time', 1), '', 'G9: not claimable at run_after - 1 ms');
SELECT pg_temp.at('00:00:59.999999') \g /dev/null
SELECT is(pg_temp.got('time', 1), '', 'G9: nor at run_after - 1 us');
SELECT pg_temp.at('00:01:00') \g /dev/null
SELECT is(pg_temp.got('time', 1), 'job', 'G9: claimable at run_after');

SELECT pg_temp.put('late', 'first') \g /dev/null
SELECT pg_temp.at('00:01:10') \g /dev/null
SELECT pg_temp.put('late', 'second', '{"run_after": "2029-01-01 00:00:00+00"}') \g /dev/null
SELECT is(pg_temp.got('late', 2), 'first second', 'G9: a run_after in the past does not overtake');
SELECT pg_temp.put('late', 'third') \g /dev/null
SELECT is(pg_temp.got('late', 2), 'third', 'G9: what comes behind the last claim is seen');
SELECT pg_temp.put('late', 'urgent', '{"priority": -1}'), pg_temp.put('late', 'usual') \g /dev/null
SELECT is(pg_temp.got('late', 1), 'urgent', 'G9: and what comes before it');
SAVEPOINT s;
SELECT pg_temp.got('late', 1) \g /dev/null
ROLLBACK TO s;
SELECT is(pg_temp.got('late', 1), 'usual', 'G10: a claim rolled back gives its job back, at its place');
SELECT pg_temp.at('00:01:05') \g /dev/null
SELECT pg_temp.put('late', 'earlier') \g /dev/null
SELECT is(pg_temp.got('late', 1), 'earlier', 'G9: a clock that steps back hides no job');

-- modes

SELECT pg_temp.at('00:02:00') \g /dev/null
SELECT pg_temp.put(q, 'r1 r2') FROM unnest(ARRAY['modes', 'separate']) q \g /dev/null
SELECT decision FROM unnest(ARRAY['modes', 'separate']) q, holdfast.claim(q, 'w', 2) c, holdfast.fail(c.job_id, c.lease_id, 'TimeoutError') \g /dev/null
SELECT pg_temp.at('00:02:05') \g /dev/null
SELECT pg_temp.put(q, 'e1'), pg_temp.put(q, 'e2', '{"delay": "10 s"}') FROM unnest(ARRAY['modes', 'separate']) q \g /dev/null
SELECT pg_temp.at('00:02:15') \g /dev/null
SAVEPOINT s;
SELECT pg_temp.got('modes', 9) AS all, pg_temp.got('separate', 9) AS separate \gset by_mode_
ROLLBACK TO s;
SELECT is(:'by_mode_all'::text, 'e1 r1 r2 e2', 'modes all takes both, in one order');
SELECT is(:'by_mode_separate'::text, 'e1 e2', 'with reconcile => separate, modes all takes jobs to execute only');
SELECT is(pg_temp.got('modes', 9, 'execute'), 'e1 e2', 'modes execute takes jobs to execute only');
SELECT is(pg_temp.got('modes', 9, 'reconcile'), 'r1 r2', 'modes reconcile takes the others only');
SELECT is(pg_temp.got('separate', 9, 'reconcile'), 'r1 r2', 'with reconcile => separate they have to be asked for');

-- claim_any

SELECT pg_temp.put('a', 'a1 a2'), pg_temp.put('b', 'b1 b2 b3', '{"priority": 50}'), pg_temp.put('c', 'c1', '{"priority": -100}') \g /dev/null
SAVEPOINT s;
SELECT pg_temp.got_any('{b,a,c}', 4) AS four, pg_temp.got_any('{b,a,c}', 9) AS rest \gset any_
ROLLBACK TO s;
SELECT is(:'any_four'::text, 'b1 b2 b3 a1', 'claim_any takes from the queues in the order of the array, up to qty in all');
SELECT is(:'any_rest'::text, 'a2 c1', 'and the rest later');
SELECT holdfast.pause_queue('a', 'provider down') \g /dev/null
SELECT is(pg_temp.got('a', 9), '', 'a paused queue hands out nothing');
SELECT is(pg_temp.got_any('{a,c,b}', 2), 'c1 b1', 'claim_any passes over a paused queue');
SELECT holdfast.resume_queue('a') \g /dev/null
SELECT is(pg_temp.got_any('{a,b}', 9), 'a1 a2 b2 b3', 'a resumed queue goes on where it was');
SELECT is_empty($$SELECT * FROM holdfast.claim_any(array_fill('c'::text, ARRAY[64]), 'w')$$, '64 queues are within bounds');

-- leases

CREATE FUNCTION pg_temp.lease_of(queue_name text, options jsonb DEFAULT '{}', lease interval DEFAULT NULL) RETURNS interval LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_temp.put(queue_name, md5(random()::text), options);
	RETURN (SELECT c.lease_expires_at - pg_temp.clock() FROM holdfast.claim(queue_name, 'w', lease => lease_of.lease) c);
END
$$;
SELECT is(pg_temp.lease_of('lease'), '90 s'::interval, 'a lease is the queue''s');
SELECT is(pg_temp.lease_of('lease', lease => '2 h'), '2 h'::interval, 'or the claim''s');
SELECT is(pg_temp.lease_of('lease', lease => '75 s'), '75 s'::interval, 'G8: a lease of timeout + grace is enough');
SELECT pg_temp.put('lease', 'waiting') \g /dev/null
SELECT throws_ok($$SELECT * FROM holdfast.claim('lease', 'w', lease => '74.999 s')$$, 'JQ005', NULL, 'G8: a lease 1 ms shorter is refused');
SELECT matches(pg_temp.refusal_detail($$SELECT * FROM holdfast.claim('lease', 'w', lease => '74.999 s')$$), '75000|60000.*15000', 'G8: with the figures');
SELECT throws_ok($$SELECT * FROM holdfast.claim_any('{lease}', 'w', lease => '74.999 s')$$, 'JQ005', NULL, 'G8: also by claim_any');
SELECT throws_ok($$SELECT * FROM holdfast.complete_and_claim('lease', 'w', '{}', '{}', lease => '74.999 s')$$, 'JQ005', NULL, 'G8: also by complete_and_claim');
SELECT is(pg_temp.got('lease', 9), 'waiting', 'G8: and the job is not claimed by it');
SELECT is(pg_temp.lease_of('beating'), '60 s'::interval, 'G8: with a heartbeat the lease is the queue''s, whatever the timeout');
SELECT is(pg_temp.lease_of('beating', lease => '61 s'), '61 s'::interval, 'G8: or what the claim asks for');
SELECT throws_ok($$SELECT * FROM holdfast.claim('beating', 'w', lease => '59.999 s')$$, 'JQ005', NULL, 'G8: not below three heartbeats');
SELECT pg_temp.put('lease', 'long', '{"timeout": "75 s"}') \g /dev/null
SELECT holdfast.alter_queue('lease', lease => '75 s') \g /dev/null
SELECT results_eq($$SELECT lease_expires_at - pg_temp.clock(), deadline_at - pg_temp.clock(), timeout_ms FROM holdfast.claim('lease', 'w')$$,
	$$VALUES ('90 s'::interval, '75 s'::interval, 75000::bigint)$$, 'G8: a job that needs a longer lease gets it, after the queue''s was shortened');
SELECT pg_temp.put('lease', 'again', '{"timeout": "60 s"}') \g /dev/null
SELECT holdfast.alter_queue('lease', timeout => '1 min', grace => '15 s', lease => '20 min') \g /dev/null
SELECT pg_temp.put('lease', 'longer', '{"timeout": "19 min"}') \g /dev/null
SELECT results_eq($$SELECT subject, lease_expires_at - pg_temp.clock() FROM holdfast.claim('lease', 'w', 2, lease => '80 s')$$,
	$$VALUES ('again', '80 s'::interval), ('longer', '1155 s'::interval)$$, 'G8: an explicit lease, too, is raised for the job that needs more');

-- the execution context

SELECT pg_temp.at('00:03:00') \g /dev/null
SELECT outcome FROM holdfast.enqueue('context', 'send_email', 'p', '{"template": 7}', 'campaign-9', 3, timeout => '30 s', correlation_id => 'trace',
	headers => '{"h": 1}', priority => -1) \g /dev/null
CREATE TEMPORARY TABLE first AS SELECT * FROM holdfast.claim('context', 'worker-1');
SELECT results_eq(
	$$SELECT attempt_number, failures, max_attempts, lease_expires_at, deadline_at, mode, ledger_state, idempotency_key, correlation_id FROM first$$,
	$$VALUES (1, 0, 3, '2030-01-01 00:04:30+00'::timestamptz, '2030-01-01 00:03:30+00'::timestamptz, 'execute', 'started',
			  holdfast.intent_key('p', 'send_email', 'campaign-9', 3), 'trace')$$, 'the context says which attempt it is, of what, and until when');
SELECT results_eq(
	$$SELECT action_key, subject, scope, intent_version, payload, headers, timeout_ms, previous_attempt, previous_error_class, previous_message FROM first$$,
	$$VALUES ('send_email', 'p', 'campaign-9', 3, '{"template": 7}'::jsonb, '{"h": 1}'::jsonb, 30000::bigint, NULL::integer, NULL, NULL)$$, 'what is to be done, and that nothing came before');
SELECT results_eq(
	$$SELECT j.status, j.attempt_number, j.lease_id = f.lease_id, j.fencing_token = f.fencing_token, j.worker_name, j.started_at, l.state, l.attempt_number
	  FROM first f, pg_temp.job j, pg_temp.ledger l WHERE j.job_id = f.job_id AND l.idempotency_key = f.idempotency_key$$,
	$$VALUES ('running', 1, true, true, 'worker-1', '2030-01-01 00:03:00+00'::timestamptz, 'started', 1)$$, 'G7: job and ledger say the same');
SELECT decision FROM first f, holdfast.fail(f.job_id, f.lease_id, 'ConnectionRefusedError', 'refused', side_effect => 'none') \g /dev/null
SELECT pg_temp.at('00:03:10') \g /dev/null
CREATE TEMPORARY TABLE second AS SELECT * FROM holdfast.claim('context', 'worker-2');
SELECT results_eq(
	$$SELECT attempt_number, failures, mode, ledger_state, correlation_id, previous_attempt, previous_error_class, previous_message FROM second$$,
	$$VALUES (2, 1, 'execute', 'started', 'trace', 1, 'ConnectionRefusedError', 'refused')$$, 'the next one says what came before');
SELECT results_eq($$SELECT idempotency_key FROM second$$, $$SELECT idempotency_key FROM first$$, 'G5: every attempt carries the same key');
SELECT ok((SELECT s.fencing_token > f.fencing_token AND s.lease_id <> f.lease_id FROM first f, second s), 'G1: a new lease and a greater token');

SELECT pg_temp.put('context', 'by-policy'), pg_temp.put('context', 'by-job', '{"max_attempts": 7}') \g /dev/null
SELECT holdfast.alter_queue('context', max_attempts => 4) \g /dev/null
SELECT pg_temp.put('context', 'by-queue') \g /dev/null
SELECT results_eq($$SELECT subject, max_attempts FROM holdfast.claim('context', 'w', 9) ORDER BY job_id$$,
	$$VALUES ('by-policy', 4), ('by-job', 7), ('by-queue', 4)$$, 'G4: the budget is the job''s, the queue''s, the policy''s, looked up when needed');

-- give_up_at

SELECT pg_temp.put('gave up', 'j1 j2', '{"give_up_at": "2030-01-01 00:04:00+00"}'), pg_temp.put('gave up', 'j3', '{"give_up_at": "2030-01-01 01:00:00+00"}') \g /dev/null
SELECT pg_temp.at('00:03:59.999') \g /dev/null
SELECT results_eq($$SELECT subject, deadline_at FROM holdfast.claim('gave up', 'w')$$, $$VALUES ('j1', '2030-01-01 00:04:00+00'::timestamptz)$$,
	'G4: before give_up_at a job is handed out, to stop there');
SELECT pg_temp.at('00:04:00.001') \g /dev/null
SELECT results_eq($$SELECT subject, deadline_at FROM holdfast.claim('gave up', 'w', 9)$$, $$VALUES ('j3', '2030-01-01 00:05:00.001+00'::timestamptz)$$,
	'G4: after it, it is not, and others are');
SELECT results_eq($$SELECT d.reason, d.ended_at, l.state FROM pg_temp.dead_job d JOIN pg_temp.ledger l USING (idempotency_key) WHERE d.subject = 'j2'$$,
	$$VALUES ('deadline', '2030-01-01 00:04:00.001+00'::timestamptz, 'failed_terminal')$$, 'G4: it is dead, reason deadline, ledger failed_terminal');
SELECT is((SELECT status FROM pg_temp.job WHERE subject = 'j1'), 'running', 'G4: give_up_at ends no attempt that runs');
SELECT decision FROM pg_temp.job j, holdfast.fail(j.job_id, j.lease_id, 'TimeoutError') WHERE j.subject = 'j1' \g /dev/null
SELECT pg_temp.at('00:05:00') \g /dev/null
SELECT results_eq($$SELECT subject, mode, attempt_number, deadline_at FROM holdfast.claim('gave up', 'w')$$,
	$$VALUES ('j1', 'reconcile', 2, '2030-01-01 00:06:00+00'::timestamptz)$$, 'G4: in mode reconcile give_up_at is not looked at');

-- expired leases

SELECT pg_temp.at('00:10:00') \g /dev/null
SELECT pg_temp.put('lost', 'lost'), pg_temp.claimed('lost'), pg_temp.put('lost', 'other') \g /dev/null
SELECT pg_temp.at('00:11:29.999') \g /dev/null
SELECT is(pg_temp.got('lost', 9), 'other', 'G1: 1 ms before its end a lease holds');
SELECT is(pg_temp.state('lost'), 'running, execute, ledger started', 'G1: and its job runs');
SELECT pg_temp.at('00:11:30') \g /dev/null
SELECT is(pg_temp.got('lost', 9), '', 'G8: at its end the job is not handed out at once');
SELECT is(pg_temp.state('lost'), 'pending, reconcile, ledger unknown', 'G6: a lost attempt may have done it: its effect is to be reconciled');
SELECT results_eq($$SELECT run_after, failures, losses, last_error_class FROM pg_temp.job WHERE job_id = pg_temp.id('lost')$$,
	$$VALUES ('2030-01-01 00:12:30+00'::timestamptz, 1, 1, 'LeaseExpired')$$,
	'G3: charged as LeaseExpired, due after the longer of the policy''s delay and reconcile_delay, from the discovery');
SELECT results_eq($$SELECT attempt_number, exception_class, worker_name, worker_result, side_effect_state, at >= '2030-01-01 00:11:30+00', lease_expires_at
	FROM pg_temp.evidence WHERE job_id = pg_temp.id('lost') AND kind = 'action_attempt_lost'$$,
	$$VALUES (1, 'LeaseExpired', 'w', 'lost', 'unknown', true, '2030-01-01 00:11:30+00'::timestamptz)$$, 'G8: the loss is on record, with the lease''s end and its discovery');
SELECT isnt_empty($$SELECT * FROM pg_temp.finding WHERE job_id = pg_temp.id('lost')$$, 'G8: and is a finding');
SELECT pg_temp.at('00:12:29.999') \g /dev/null
SELECT is(pg_temp.claimed('lost'), 'none', 'G9: not claimable 1 ms before the delay is over');
SELECT pg_temp.at('00:12:30') \g /dev/null
SELECT is(pg_temp.claimed('lost'), 'attempt 2, reconcile', 'G9: claimable when it is, to reconcile');
SELECT is((SELECT previous_error_class FROM holdfast.claim('lost', 'w')), NULL, 'G1: once');

SELECT pg_temp.put('many', (SELECT string_agg(n::text, ' ') FROM generate_series(1, 250) n)) \g /dev/null
SELECT count(*) FROM holdfast.claim('many', 'w', 250) \g /dev/null
SELECT pg_temp.at('00:15:00') \g /dev/null
SELECT pg_temp.put('many', 'fresh') \g /dev/null
SELECT pg_temp.got('many', 9) AS one \gset many_
SELECT is((SELECT count(*) FROM pg_temp.job WHERE queue = 'many' AND status = 'pending' AND mode = 'reconcile'), 100::bigint,
	'one claim settles at most 100 jobs besides those that it hands out');
SELECT pg_temp.got('many', 9) AS two, pg_temp.got('many', 9) AS three \gset many_
SELECT is((SELECT count(*) FROM pg_temp.job WHERE queue = 'many' AND status = 'pending' AND mode = 'reconcile'), 250::bigint, 'G8: the next ones settle the others');
SELECT is(concat(:'many_one', :'many_two', :'many_three'), 'fresh', 'and hand out what is due behind them, once');

-- intents that are committed

SELECT pg_temp.at('00:20:00') \g /dev/null
SELECT pg_temp.put('suppressed', 'done waiting') \g /dev/null
SELECT pg_temp.planted('ledger', $$UPDATE holdfast.ledger SET state = 'committed' WHERE subject = 'done' AND scope = 'suppressed'$$) \g /dev/null
SELECT is(pg_temp.got('suppressed', 9), 'waiting', 'G6: a job whose intent is committed is not handed out');
SELECT is_empty($$SELECT * FROM pg_temp.job WHERE subject = 'done' AND queue = 'suppressed'$$, 'G10: it is gone');
SELECT results_eq($$SELECT kind, side_effect_state, enqueued_at, enqueued_by = current_user FROM pg_temp.evidence WHERE subject = 'done' AND queue = 'suppressed'$$,
	$$VALUES ('action_suppressed', 'committed', '2030-01-01 00:20:00+00'::timestamptz, true)$$, 'G7: as suppressed, on record, with who enqueued it and when');

-- intents that are unknown by other hands

SELECT pg_temp.put('doubtful', 'gone') \g /dev/null
SELECT pg_temp.planted('ledger', $$UPDATE holdfast.ledger SET state = 'unknown' WHERE subject = 'gone' AND scope = 'doubtful'$$) \g /dev/null
SELECT is_empty($$SELECT * FROM holdfast.claim('doubtful', 'w')$$, 'G6: a job whose effect is unknown is not handed out to execute');
SELECT results_eq($$SELECT mode, status FROM pg_temp.job WHERE queue = 'doubtful'$$, $$VALUES ('reconcile', 'pending')$$,
	'G6: it is to be reconciled');

-- complete_and_claim

SELECT pg_temp.put('settling', 's1 s2 s3 s4') \g /dev/null
CREATE TEMPORARY TABLE batch AS SELECT * FROM holdfast.claim('settling', 'w', 2);
CREATE TEMPORARY TABLE answer AS SELECT a.* FROM (SELECT array_agg(job_id ORDER BY subject) AS jobs, array_agg(lease_id ORDER BY subject) AS leases FROM batch) b,
	holdfast.complete_and_claim('settling', 'w2', b.jobs || 9223372036854775807, b.leases || gen_random_uuid(), 5) a;
SELECT results_eq($$SELECT a.kind, a.outcome, coalesce(b.subject, a.subject) FROM answer a LEFT JOIN batch b USING (job_id) ORDER BY a.kind DESC, a.job_id$$,
	$$VALUES ('completed', 'completed', 's1'), ('completed', 'completed', 's2'), ('completed', 'unknown_job', NULL), ('claimed', NULL, 's3'), ('claimed', NULL, 's4')$$,
	'complete_and_claim answers for each job reported, and hands out the next');
SELECT results_eq($$SELECT DISTINCT attempt_number, lease_id, lease_expires_at, mode, idempotency_key FROM answer WHERE kind = 'completed'$$,
	$$VALUES (NULL::integer, NULL::uuid, NULL::timestamptz, NULL::text, NULL::uuid)$$, 'the context is null where completed');
SELECT results_eq($$SELECT a.attempt_number, a.mode, j.worker_name, a.lease_id = j.lease_id FROM answer a JOIN pg_temp.job j USING (job_id) ORDER BY a.job_id$$,
	$$VALUES (1, 'execute', 'w2', true), (1, 'execute', 'w2', true)$$, 'and there where claimed');
SELECT results_eq($$SELECT l.state FROM batch b JOIN pg_temp.ledger l USING (idempotency_key)$$, ARRAY['committed', 'committed'], 'G7: what was reported is committed');
SELECT pg_temp.put('settling', 's5') \g /dev/null
SELECT is((SELECT subject FROM holdfast.complete_and_claim('settling', 'w', '{}', '{}')), 's5', 'with nothing to report it is a claim');
SELECT is_empty($$SELECT * FROM holdfast.complete_and_claim('settling', 'w', '{}', '{}')$$, 'with nothing due it is empty');

-- arguments out of bounds: a documented SQLSTATE, and nothing changed

SELECT pg_temp.put('bad', 'b1 b2') \g /dev/null
CREATE TEMPORARY TABLE bad (call text, states text[]);
INSERT INTO bad VALUES
	($$claim(NULL, 'w')$$, '{22004}'), ($$claim('nowhere', 'w')$$, '{42704}'), ($$claim('', 'w')$$, '{42704,22023}'),
	($$claim(repeat('q', 100000), 'w')$$, '{42704,22023}'),
	($$claim('bad', NULL)$$, '{22004}'), ($$claim('bad', '')$$, '{22023}'), ($$claim('bad', repeat('w', 100000))$$, '{22023}'),
	($$claim('bad', 'w', 0)$$, '{22023}'), ($$claim('bad', 'w', -1)$$, '{22023}'), ($$claim('bad', 'w', 1000000000)$$, '{22023}'),
	($$claim('bad', 'w', 2147483647)$$, '{22023}'), ($$claim('bad', 'w', -2147483648)$$, '{22023}'),
	($$claim('bad', 'w', lease => '0 s')$$, '{22023,JQ005}'), ($$claim('bad', 'w', lease => '-1 s')$$, '{22023}'), ($$claim('bad', 'w', lease => '1 mon')$$, '{22023}'),
	($$claim('bad', 'w', lease => '1 mon -29 days')$$, '{22023}'), ($$claim('bad', 'w', lease => '2562047788 h')$$, '{22023}'),
	($$claim('bad', 'w', lease => '-2147483648 days')$$, '{22023}'), ($$claim('bad', 'w', lease => '3651 days')$$, '{22023}'),
	($$claim('bad', 'w', modes => 'both')$$, '{22023}'), ($$claim('bad', 'w', modes => '')$$, '{22023}'), ($$claim('bad', 'w', modes => repeat('m', 100000))$$, '{22023}'),
	($$claim_any(NULL, 'w')$$, '{22004}'), ($$claim_any('{bad,NULL}', 'w')$$, '{22004}'), ($$claim_any('{bad,nowhere}', 'w', 9)$$, '{42704}'),
	($$claim_any(array_fill('bad'::text, ARRAY[65]), 'w')$$, '{22023}'), ($$claim_any('{bad}', 'w', 0)$$, '{22023}'), ($$claim_any('{bad}', NULL)$$, '{22004}'),
	($$claim_any('{bad}', 'w', modes => 'both')$$, '{22023}'),
	($$complete_and_claim('bad', 'w', NULL, '{}')$$, '{22004}'), ($$complete_and_claim('bad', 'w', '{}', NULL)$$, '{22004}'),
	($$complete_and_claim('bad', 'w', '{1}', '{}')$$, '{22023}'), ($$complete_and_claim('bad', 'w', '{NULL}', ARRAY[gen_random_uuid()])$$, '{22004}'),
	($$complete_and_claim('bad', 'w', '{1}', '{NULL}')$$, '{22004}'), ($$complete_and_claim('nowhere', 'w', '{}', '{}')$$, '{42704}'),
	($$complete_and_claim('bad', 'w', '{}', '{}', 1000000000)$$, '{22023}'), ($$complete_and_claim('bad', NULL, '{}', '{}')$$, '{22004}');
SELECT pg_temp.stored() AS before \gset
SELECT is(CASE WHEN state = ANY (states) THEN 'refused' ELSE state END, 'refused', left(call, 100) || ' is refused')
FROM bad, pg_temp.refusal('SELECT * FROM holdfast.' || call) AS state;
SELECT is(pg_temp.stored(), :'before', 'a refused claim has changed nothing');

-- A second live job of one key, which only a hand can make: it is not handed out before its key's own job, however early it is due.

SELECT holdfast.create_queue('owned') \g /dev/null
SELECT job_id FROM holdfast.enqueue('owned', 'act', 'owned') \gset owner_
INSERT INTO holdfast.job SELECT (jsonb_populate_record(j, '{"job_id": 999999999}' || jsonb_build_object('run_after', j.run_after - interval '1 s'))).*
	FROM holdfast.job j WHERE j.job_id = :owner_job_id;
SELECT results_eq($$SELECT job_id FROM holdfast.claim('owned', 'w', 2)$$, ARRAY[:owner_job_id::bigint], 'G5: only the job that its ledger row names is handed out');
SELECT is((SELECT status FROM holdfast.job WHERE job_id = 999999999), 'pending', 'the other one waits');
SELECT is((SELECT detail ->> 'reason' FROM holdfast.event_all WHERE job_id = 999999999 AND kind = 'action_deferred'), 'key_owned', 'and it is on record why');

SELECT * FROM finish();
ROLLBACK;
