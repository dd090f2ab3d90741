/* Settling: reports under a lease. */

CREATE TYPE holdfast.retry_decision AS (
	decision			text,
	reason				text,
	rule				text,
	retry_policy		text,
	delay_ms			bigint,
	jitter_ms			bigint,
	next_not_before		timestamptz,
	attempt_number		integer,
	failures			integer,
	max_attempts		integer,
	because				text
);
COMMENT ON TYPE holdfast.retry_decision IS 'retry | reconcile | dead | suppressed | succeeded | snoozed | released | cancelled | duplicate | conflict | stale | unknown_job, and why';

CREATE TYPE holdfast.complete_result AS (
	job_id				bigint,
	outcome				text
);
COMMENT ON TYPE holdfast.complete_result IS 'completed | duplicate | conflict | stale | unknown_job, per job';

CREATE FUNCTION holdfast.complete(job_id bigint, lease_id uuid, result jsonb DEFAULT NULL, strict boolean DEFAULT false)
RETURNS text
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'holdfast_complete';
COMMENT ON FUNCTION holdfast.complete(bigint, uuid, jsonb, boolean)
	IS 'the action is done: completed | duplicate | conflict | stale | unknown_job; for workers';

CREATE FUNCTION holdfast.complete_batch(job_ids bigint[], lease_ids uuid[])
RETURNS SETOF holdfast.complete_result
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 100 AS 'MODULE_PATHNAME', 'holdfast_complete_batch';
COMMENT ON FUNCTION holdfast.complete_batch(bigint[], uuid[]) IS 'complete many, answering per job; for workers';

CREATE FUNCTION holdfast.fail(job_id bigint, lease_id uuid, error_class text, message text DEFAULT NULL,
	side_effect text DEFAULT NULL, retry_after interval DEFAULT NULL, retry_at timestamptz DEFAULT NULL,
	timeout_kind text DEFAULT NULL, timeout_limit_ms bigint DEFAULT NULL, detail jsonb DEFAULT NULL)
RETURNS SETOF holdfast.retry_decision
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'holdfast_fail';
COMMENT ON FUNCTION holdfast.fail(bigint, uuid, text, text, text, interval, timestamptz, text, bigint, jsonb)
	IS 'the attempt failed; the error rules and the policy decide what follows; for workers';

CREATE FUNCTION holdfast.schedule_retry(job_id bigint, lease_id uuid, delay interval DEFAULT NULL,
	error_class text DEFAULT 'RetryRequested', message text DEFAULT NULL, side_effect text DEFAULT NULL,
	detail jsonb DEFAULT NULL)
RETURNS SETOF holdfast.retry_decision
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'holdfast_schedule_retry';
COMMENT ON FUNCTION holdfast.schedule_retry(bigint, uuid, interval, text, text, text, jsonb)
	IS 'fail with the disposition fixed to retry: charged, not below the policy''s min_delay; for workers';

CREATE FUNCTION holdfast.snooze(job_id bigint, lease_id uuid, delay interval, reason text DEFAULT NULL)
RETURNS SETOF holdfast.retry_decision
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'holdfast_snooze';
COMMENT ON FUNCTION holdfast.snooze(bigint, uuid, interval, text) IS 'not now, and nothing was sent: not charged; for workers';

CREATE FUNCTION holdfast.release(job_id bigint, lease_id uuid, reason text DEFAULT NULL)
RETURNS SETOF holdfast.retry_decision
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'holdfast_release';
COMMENT ON FUNCTION holdfast.release(bigint, uuid, text) IS 'hand the job back on shutdown, nothing was sent: not charged; for workers';
