/* What operators do with jobs and queues. */

CREATE TYPE holdfast.redrive_result AS (
	outcome				text,
	job_id				bigint
);
COMMENT ON TYPE holdfast.redrive_result IS 'redriven | unknown_job';

CREATE TYPE holdfast.redrive_queue_result AS (
	redriven			bigint,
	skipped				bigint
);
COMMENT ON TYPE holdfast.redrive_queue_result IS 'how many were put back, and how many could not be';

CREATE FUNCTION holdfast.cancel(job_id bigint, reason text DEFAULT NULL, force boolean DEFAULT false) RETURNS text
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'holdfast_cancel';
COMMENT ON FUNCTION holdfast.cancel(bigint, text, boolean)
	IS 'end a job: cancelled | requested | dead | unknown_job; force ends a running one now, its effect unknown; for operators';

CREATE FUNCTION holdfast.redrive(job_id bigint, reason text) RETURNS SETOF holdfast.redrive_result
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'holdfast_redrive';
COMMENT ON FUNCTION holdfast.redrive(bigint, text) IS 'put a dead job back, due now, its counters from 0; for operators';

CREATE FUNCTION holdfast.redrive_queue(queue_name text, reason text, action_key text DEFAULT NULL,
	error_class text DEFAULT NULL, since timestamptz DEFAULT NULL, max integer DEFAULT 1000)
RETURNS SETOF holdfast.redrive_queue_result
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'holdfast_redrive_queue';
COMMENT ON FUNCTION holdfast.redrive_queue(text, text, text, text, timestamptz, integer)
	IS 'put dead jobs of a queue back, by filter; for operators';

CREATE FUNCTION holdfast.purge_queue(queue_name text, include_running boolean DEFAULT false) RETURNS bigint
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'holdfast_purge_queue';
COMMENT ON FUNCTION holdfast.purge_queue(text, boolean)
	IS 'end every live job of a queue, each on record; how many; for operators';
