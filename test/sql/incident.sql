\i test/setup.sql
\i test/tools.sql
/*
 * The incident: a job timed out, and was run again at once, for the same
 * subject and action, with nothing on record that said whether it might be.
 * The job is number 42, so that its delay is the published one: 1413 ms.
 */
SELECT plan(29);

SELECT pg_temp.at('00:00:00') \g /dev/null
SELECT holdfast.define_retry_policy('careful', '1 s', 2, '300 s', '1 s', '1 s') \g /dev/null
SELECT holdfast.create_queue('revenue', lease => '6 h 1 min', timeout => '6 h', grace => '15 s', retry_policy => 'careful') \g /dev/null
SELECT setval('holdfast.job_id_seq', 42, false) \g /dev/null
SELECT results_eq(
	$$SELECT job_id, outcome FROM holdfast.enqueue('revenue', 'send_email', 'prospect-7ca677ed25d3', '{"template": 7}', scope => 'campaign-9')$$,
	$$VALUES (42::bigint, 'created')$$, 'the job is number 42');
SELECT is(holdfast.backoff_delay('careful', 42, 1), '1.413 s'::interval, 'G11: its first delay is the published one');

CREATE TEMPORARY TABLE first AS SELECT * FROM holdfast.claim('revenue', 'worker-1');
SELECT results_eq($$SELECT attempt_number, mode, idempotency_key, lease_expires_at, deadline_at FROM first$$,
	$$VALUES (1, 'execute', '5a1879b7-62c2-8974-ae6a-00b2feadbc6a'::uuid, '2030-01-01 06:01:00+00'::timestamptz, '2030-01-01 06:00:00+00'::timestamptz)$$,
	'attempt 1 executes, under a lease that outlives its timeout');
SELECT pg_temp.at('00:12:23') \g /dev/null

-- T0: the timeout, after 743 of 21,600 seconds

CREATE TEMPORARY TABLE decision AS SELECT d.* FROM first f,
	holdfast.fail(f.job_id, f.lease_id, 'TimeoutError', 'no answer', timeout_kind => 'max_runtime', timeout_limit_ms => 21600000) d;
SELECT results_eq(
	$$SELECT decision, retry_policy, delay_ms, jitter_ms, next_not_before, attempt_number, failures, max_attempts FROM decision$$,
	$$VALUES ('reconcile', 'careful', 1413::bigint, 413::bigint, '2030-01-01 00:12:24.413+00'::timestamptz, 1, 1, 5)$$,
	'G3: the policy decides: the effect is to be looked for, after the published delay');
SELECT matches((SELECT rule FROM decision), 'TimeoutError', 'G3: and the decision names its rule');
SELECT matches((SELECT because FROM decision), 'failure 1 of 5 \(attempt 1\)', 'G4: the count is of failures, and says so');
SELECT matches((SELECT because FROM decision), 'TimeoutError \(max_runtime\): configured 21600 s, elapsed 743 s',
	'G14: the limit said to have fired and the time that passed stand side by side');
SELECT results_eq($$SELECT status, mode, run_after, failures, attempt_number FROM pg_temp.job WHERE job_id = 42$$,
	$$VALUES ('pending', 'reconcile', '2030-01-01 00:12:24.413+00'::timestamptz, 1, 1)$$, 'G3: the time is stored with the failure');
SELECT is((SELECT state FROM pg_temp.ledger WHERE idempotency_key = '5a1879b7-62c2-8974-ae6a-00b2feadbc6a'), 'unknown',
	'G6: whether the email was sent is not known, and that is a state');

-- not before its time

SELECT is_empty($$SELECT * FROM holdfast.claim('revenue', 'worker-2')$$, 'G3: not claimable at T0');
SELECT results_eq($$SELECT job_id, outcome FROM holdfast.enqueue('revenue', 'send_email', 'prospect-7ca677ed25d3', '{"template": 7}', scope => 'campaign-9')$$,
	$$VALUES (42::bigint, 'duplicate')$$, 'G5: nor by enqueueing the same intent again');
SELECT is_empty($$SELECT * FROM holdfast.claim('revenue', 'worker-2', 10)$$, 'G3: which makes nothing claimable');
SELECT is((SELECT decision FROM first f, holdfast.fail(f.job_id, f.lease_id, 'TimeoutError', 'no answer', timeout_kind => 'max_runtime', timeout_limit_ms => 21600000)),
	'duplicate', 'G2: nor by reporting the failure again');
SELECT is((SELECT outcome FROM first f, holdfast.heartbeat(f.job_id, f.lease_id)), 'stale', 'G2: nor by a heartbeat of the old lease');
SELECT results_eq($$SELECT decision FROM first f, holdfast.schedule_retry(f.job_id, f.lease_id, '1 ms')$$, ARRAY['conflict'],
	'G3: nor by asking for an earlier retry under the old lease');
SELECT is((SELECT run_after FROM pg_temp.job WHERE job_id = 42), '2030-01-01 00:12:24.413+00', 'G3: the stored time stands');
SELECT pg_temp.at('00:12:24.412') \g /dev/null
SELECT is_empty($$SELECT * FROM holdfast.claim('revenue', 'worker-2')$$, 'G9: not claimable at T0 + delay - 1 ms');
SELECT is_empty($$SELECT * FROM holdfast.claim('revenue', 'worker-2', modes => 'reconcile')$$, 'G9: nor by who reconciles');
SELECT pg_temp.at('00:12:24.412999') \g /dev/null
SELECT is_empty($$SELECT * FROM holdfast.claim_any('{revenue}', 'worker-2')$$, 'G9: nor 1 us before');

-- at its time

SELECT pg_temp.at('00:12:24.413') \g /dev/null
SELECT is_empty($$SELECT * FROM holdfast.claim('revenue', 'worker-2', modes => 'execute')$$, 'G6: never again to be executed blindly');
CREATE TEMPORARY TABLE second AS SELECT * FROM holdfast.claim('revenue', 'worker-2', 10);
SELECT results_eq(
	$$SELECT job_id, attempt_number, mode, ledger_state, idempotency_key, subject, action_key, failures, previous_attempt, previous_error_class FROM second$$,
	$$VALUES (42::bigint, 2, 'reconcile', 'unknown', '5a1879b7-62c2-8974-ae6a-00b2feadbc6a'::uuid, 'prospect-7ca677ed25d3', 'send_email', 1, 1, 'TimeoutError')$$,
	'G9: claimable at T0 + delay, G5: as attempt 2 with the same key, G6: in mode reconcile');
SELECT ok((SELECT s.lease_id <> f.lease_id AND s.fencing_token > f.fencing_token FROM first f, second s),
	'G1: under another lease and a greater fencing token');
SELECT is((SELECT outcome FROM first f, LATERAL (SELECT holdfast.complete(f.job_id, f.lease_id) AS outcome) c), 'conflict', 'G2: the first worker can no longer complete');
SELECT throws_ok(format('SELECT holdfast.complete(42, %L)', (SELECT lease_id FROM second)), 'JQ003', NULL, 'G6: the second cannot, before it has a finding');

-- what is on record

SELECT results_eq(
	$$SELECT attempt_number, kind, worker_name, worker_result, side_effect_state, next_not_before FROM pg_temp.evidence
	  WHERE job_id = 42 AND kind NOT IN ('action_duplicate_enqueue', 'action_duplicate_report', 'action_stale_report') ORDER BY attempt_number, at, event_id$$,
	$$VALUES (1, 'action_attempt_started', 'worker-1', NULL, 'started', NULL),
			 (1, 'action_attempt_failed', 'worker-1', 'timeout', 'unknown', NULL),
			 (1, 'action_reconcile_scheduled', 'worker-1', NULL, 'unknown', '2030-01-01 00:12:24.413+00'::timestamptz),
			 (2, 'action_attempt_started', 'worker-2', NULL, 'unknown', NULL)$$,
	'G7: both attempts, the timeout, what is known of the effect, and the decision between them');
SELECT results_eq(
	$$SELECT exception_class, message, timeout_kind, timeout_ms, timeout_limit_ms, elapsed_ms FROM pg_temp.evidence WHERE job_id = 42 AND kind = 'action_attempt_failed'$$,
	$$VALUES ('TimeoutError', 'no answer', 'max_runtime', 21600000::bigint, 21600000::bigint, 743000::bigint)$$, 'G7: the timeout with all its figures');
SELECT results_eq(
	$$SELECT retry_policy, delay_ms, jitter_ms FROM pg_temp.evidence WHERE job_id = 42 AND kind = 'action_reconcile_scheduled'$$,
	$$VALUES ('careful', 1413::bigint, 413::bigint)$$, 'G3: the delay, its jitter and its policy');
SELECT is((SELECT count(DISTINCT (idempotency_key, correlation_id, subject, action_key)) FROM pg_temp.evidence WHERE job_id = 42), 1::bigint,
	'G5: all of it under one key and one correlation id');
SELECT ok((SELECT bool_and(enqueued_at = '2030-01-01 00:00:00+00' AND enqueued_by = current_user) FROM pg_temp.evidence WHERE job_id = 42 AND kind = 'action_attempt_started'),
	'G7: every path out of pending carries who enqueued it and when');

SELECT * FROM finish();
ROLLBACK;
