/* Enqueueing: one live job per intent. */

CREATE TYPE holdfast.enqueue_result AS (
	job_id				bigint,
	idempotency_key		uuid,
	outcome				text,
	existing_since		timestamptz
);
COMMENT ON TYPE holdfast.enqueue_result IS 'created | duplicate | already_committed | unknown_effect | dead, and the job: the new one, or the earlier one and when';

CREATE TYPE holdfast.enqueue_batch_result AS (
	ordinal				bigint,
	job_id				bigint,
	idempotency_key		uuid,
	outcome				text,
	existing_since		timestamptz
);
COMMENT ON TYPE holdfast.enqueue_batch_result IS 'an enqueue_result per element, by its place in the array, from 1';

CREATE FUNCTION holdfast.enqueue(queue_name text, action_key text, subject text, payload jsonb DEFAULT '{}',
	scope text DEFAULT NULL, intent_version integer DEFAULT 1, run_after timestamptz DEFAULT NULL,
	delay interval DEFAULT NULL, priority integer DEFAULT 0, timeout interval DEFAULT NULL,
	give_up_at timestamptz DEFAULT NULL, max_attempts integer DEFAULT NULL, retry_policy text DEFAULT NULL,
	side_effects boolean DEFAULT NULL, stream text DEFAULT NULL, correlation_id text DEFAULT NULL,
	headers jsonb DEFAULT NULL, idempotency_key uuid DEFAULT NULL)
RETURNS SETOF holdfast.enqueue_result
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'holdfast_enqueue';
COMMENT ON FUNCTION holdfast.enqueue(text, text, text, jsonb, text, integer, timestamptz, interval, integer, interval,
	timestamptz, integer, text, boolean, text, text, jsonb, uuid)
	IS 'schedule an action for a subject, once per intent; for producers';

CREATE FUNCTION holdfast.enqueue_batch(queue_name text, jobs jsonb)
RETURNS SETOF holdfast.enqueue_batch_result
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'holdfast_enqueue_batch';
COMMENT ON FUNCTION holdfast.enqueue_batch(text, jsonb)
	IS 'enqueue many: an array of objects with enqueue''s parameter names; for producers';
