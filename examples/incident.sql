/*
 * The incident of the demo, replayed on a frozen clock, so that every figure
 * is the same each time:
 *
 *	CREATE EXTENSION holdfast;
 *	\i examples/incident.sql
 *
 * Two workers send emails through a provider that misbehaves, on 2030-01-01
 * from 09:00:00 on, in queue revenue.  Then come the logs of the time before
 * holdfast, as a team would import them.  For a superuser, in a database of
 * its own: the queue's data are made up.  Leaves the clock at 09:01:00.
 */
\set QUIET on
SET client_min_messages = warning;
SET timezone = 'UTC';
LOAD 'holdfast';
BEGIN;
SET LOCAL holdfast.single_transaction = on;

CREATE FUNCTION pg_temp.at(clock text) RETURNS void LANGUAGE sql AS $$
	SELECT set_config('holdfast.clock', '2030-01-01 09:' || clock || '+00', false)
$$;
-- claims the job of a subject, which must be the next in turn
CREATE TEMPORARY TABLE held (subject text PRIMARY KEY, job_id bigint, lease_id uuid);
CREATE FUNCTION pg_temp.claim(worker text, subject text, clock text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	c	holdfast.execution_context;
BEGIN
	PERFORM pg_temp.at(claim.clock);
	SELECT * INTO c FROM holdfast.claim('revenue', claim.worker);
	IF c.subject IS DISTINCT FROM claim.subject THEN
		RAISE EXCEPTION 'claimed %, not %', c.subject, claim.subject;
	END IF;
	INSERT INTO held VALUES (claim.subject, c.job_id, c.lease_id)
		ON CONFLICT ON CONSTRAINT held_pkey DO UPDATE SET lease_id = excluded.lease_id;
END
$$;

DO $incident$
DECLARE
	frozen	uuid;
BEGIN
	PERFORM pg_temp.at('00:00');
	PERFORM holdfast.define_retry_policy('demo', base_delay => '1 s', jitter_window => '0', min_delay => '500 ms', reconcile_delay => '1 s');
	PERFORM holdfast.create_queue('revenue', lease => '3 s', timeout => '2 s', grace => '500 ms', retry_policy => 'demo');
	PERFORM holdfast.enqueue('revenue', 'send_email', s, jsonb_build_object('to', s || '@example.com'), scope => 'campaign-9', priority => n::integer)
		FROM unnest('{prospect-7ca677ed25d3,prospect-refused,prospect-limited,prospect-rejected,prospect-frozen,prospect-killed}'::text[])
			WITH ORDINALITY v (s, n);

	-- lands, but the provider hangs beyond the timeout: the effect is unknown, the next attempt asks and sends nothing
	PERFORM pg_temp.claim('worker-1', 'prospect-7ca677ed25d3', '00:01');
	-- 503, before any effect: a retry at the policy's time
	PERFORM pg_temp.claim('worker-2', 'prospect-refused', '00:01.100');
	PERFORM holdfast.fail(job_id, lease_id, 'Http503', 'service unavailable', 'none') FROM held WHERE subject = 'prospect-refused';
	-- 429, to be tried again in 4 s
	PERFORM pg_temp.claim('worker-2', 'prospect-limited', '00:01.200');
	PERFORM holdfast.fail(job_id, lease_id, 'RateLimitError', 'slow down', retry_after => '4 s') FROM held WHERE subject = 'prospect-limited';
	-- its input is invalid: dead after one attempt
	PERFORM pg_temp.claim('worker-2', 'prospect-rejected', '00:01.300');
	PERFORM holdfast.fail(job_id, lease_id, 'ValidationError', 'no such mailbox') FROM held WHERE subject = 'prospect-rejected';
	-- its worker is frozen, beyond the lease
	PERFORM pg_temp.claim('worker-2', 'prospect-frozen', '00:01.400');
	PERFORM pg_temp.at('00:03');
	PERFORM holdfast.fail(job_id, lease_id, 'TimeoutError', 'no answer', timeout_kind => 'read', timeout_limit_ms => 2000)
		FROM held WHERE subject = 'prospect-7ca677ed25d3';
	PERFORM pg_temp.claim('worker-1', 'prospect-refused', '00:03.100');
	PERFORM holdfast.complete(job_id, lease_id) FROM held WHERE subject = 'prospect-refused';
	-- its worker is killed, before the answer
	PERFORM pg_temp.claim('worker-1', 'prospect-killed', '00:03.200');
	PERFORM pg_temp.claim('worker-3', 'prospect-7ca677ed25d3', '00:04.100');
	PERFORM holdfast.reconcile(job_id, lease_id, 'landed', '{"message_id": "m-1"}') FROM held WHERE subject = 'prospect-7ca677ed25d3';
	PERFORM pg_temp.at('00:05');
	PERFORM holdfast.claim('revenue', 'worker-3');		-- finds that a lease has ended
	PERFORM pg_temp.claim('worker-3', 'prospect-limited', '00:05.300');
	PERFORM holdfast.complete(job_id, lease_id) FROM held WHERE subject = 'prospect-limited';
	SELECT lease_id INTO frozen FROM held WHERE subject = 'prospect-frozen';
	PERFORM pg_temp.claim('worker-3', 'prospect-frozen', '00:06.200');
	PERFORM pg_temp.at('00:06.700');
	PERFORM holdfast.complete(job_id, frozen) FROM held WHERE subject = 'prospect-frozen';	-- the first worker thaws: stale
	PERFORM pg_temp.at('00:06.900');
	PERFORM holdfast.reconcile(job_id, lease_id, 'landed', '{"message_id": "m-2"}') FROM held WHERE subject = 'prospect-frozen';
	PERFORM pg_temp.at('00:07');
	PERFORM holdfast.claim('revenue', 'worker-3');		-- and that another has
	PERFORM pg_temp.claim('worker-3', 'prospect-killed', '00:08.100');
	PERFORM holdfast.reconcile(job_id, lease_id, 'undetermined') FROM held WHERE subject = 'prospect-killed';
	PERFORM pg_temp.at('01:00');

	-- the time before holdfast: two TimeoutErrors of one action, and a review loop that stopped at 3 of 5
	PERFORM holdfast.import_attempts('old-log', $$[
		{"job_id": "job-17", "subject": "prospect-7ca677ed25d3", "action_key": "send_email", "attempt_number": 1, "worker_name": "worker-a",
		 "lease_id": "lease-1", "started_at": "2029-12-30 10:00:00+00", "finished_at": "2029-12-30 10:01:00+00", "outcome": "timeout",
		 "exception_class": "TimeoutError", "message": "no answer after 60 s", "timeout_kind": "read", "timeout_limit_ms": 60000, "max_attempts": 5},
		{"job_id": "job-17", "subject": "prospect-7ca677ed25d3", "action_key": "send_email", "attempt_number": 2, "worker_name": "worker-b",
		 "lease_id": "lease-2", "started_at": "2029-12-30 10:01:00.200+00", "finished_at": "2029-12-30 10:02:00.200+00", "outcome": "timeout",
		 "exception_class": "TimeoutError", "message": "no answer after 60 s", "timeout_kind": "read", "timeout_limit_ms": 60000, "max_attempts": 5,
		 "final": true, "stop_reason": "worker exited"}]$$);
	PERFORM holdfast.import_attempts('review-loops', $$[
		{"job_id": "loop-4", "subject": "review-loop-4", "action_key": "review", "attempt_number": 1, "worker_name": "r1", "lease_id": "r-1",
		 "started_at": "2029-12-31 08:00:00+00", "finished_at": "2029-12-31 08:12:23+00", "outcome": "timeout", "exception_class": "TimeoutError",
		 "message": "reviewer timed out", "timeout_kind": "max_runtime", "timeout_ms": 21600000, "elapsed_ms": 743000, "max_attempts": 5,
		 "next_not_before": "2029-12-31 08:13:23+00", "retry_policy": "review", "delay_ms": 60000},
		{"job_id": "loop-4", "subject": "review-loop-4", "action_key": "review", "attempt_number": 2, "worker_name": "r1", "lease_id": "r-2",
		 "started_at": "2029-12-31 08:13:25+00", "finished_at": "2029-12-31 08:25:48+00", "outcome": "timeout", "exception_class": "TimeoutError",
		 "message": "reviewer timed out", "timeout_kind": "max_runtime", "timeout_ms": 21600000, "elapsed_ms": 743000, "max_attempts": 5,
		 "next_not_before": "2029-12-31 08:27:48+00", "retry_policy": "review", "delay_ms": 120000},
		{"job_id": "loop-4", "subject": "review-loop-4", "action_key": "review", "attempt_number": 3, "worker_name": "r2", "lease_id": "r-3",
		 "started_at": "2029-12-31 08:27:50+00", "finished_at": "2029-12-31 08:40:13+00", "outcome": "timeout", "exception_class": "TimeoutError",
		 "message": "reviewer timed out", "timeout_kind": "max_runtime", "timeout_ms": 21600000, "elapsed_ms": 743000, "max_attempts": 5,
		 "final": true, "stop_reason": "max_consecutive_failures"}]$$);
END
$incident$;
COMMIT;
\set QUIET off
