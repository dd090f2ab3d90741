/* Jobs that stopped although their policy would have gone on. */

CREATE TYPE holdfast.recoverable_job AS (
	source				text,
	job_id				text,
	queue				text,
	subject				text,
	action_key			text,
	exception_class		text,
	attempt_number		integer,
	failures			integer,
	max_attempts		integer,
	stopped_at			timestamptz,
	stopped_by			text,
	automatic			boolean,
	how					text
);
COMMENT ON TYPE holdfast.recoverable_job IS 'a job that stopped with a retryable class and budget left';
COMMENT ON COLUMN holdfast.recoverable_job.automatic IS 'maintain() puts it back: its queue or its watch says auto_recover';
COMMENT ON COLUMN holdfast.recoverable_job.how IS 'the call that puts it back; null: only its own queue can';

CREATE FUNCTION holdfast.recoverable_ids(queue integer) RETURNS SETOF bigint
LANGUAGE C STABLE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'holdfast_recoverable_ids';
COMMENT ON FUNCTION holdfast.recoverable_ids(integer) IS
	'internal: the dead jobs of a queue that its policies, as they are now, would not have ended';

CREATE FUNCTION holdfast.recover_dead(queue integer, max integer) RETURNS bigint
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'holdfast_recover_dead';
COMMENT ON FUNCTION holdfast.recover_dead(integer, integer) IS
	'internal: put recoverable dead jobs of a queue back, after their policy''s delay and with the budget that is left; how many';

CREATE FUNCTION holdfast.recoverable_of(queues integer[], elsewhere boolean) RETURNS SETOF holdfast.recoverable_job
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT 'native', d.job_id::text, q.queue_name, d.subject, d.action_key, d.last_error_class, d.attempt_number, d.failures,
		   holdfast.budget(d.max_attempts, d.retry_policy, d.queue), d.ended_at, d.reason, q.auto_recover,
		   format('SELECT * FROM holdfast.redrive(%s, ''...'')', d.job_id)
	FROM holdfast.queue q, LATERAL holdfast.recoverable_ids(q.queue_id) r (job_id) JOIN holdfast.dead_job d USING (job_id)
	WHERE q.queue_id = ANY ($1)
	UNION ALL
	SELECT s.source, s.job_id, NULL, s.subject, s.action_key, s.exception_class, s.attempt_number, s.failures, s.max_attempts,
		   s.stopped_at, coalesce(s.stop_reason, 'a condition not on record'), false, NULL
	FROM holdfast.stop_reason s
	WHERE $2 AND s.source <> 'native' AND s.reason = 'premature_stop'
	ORDER BY 10, 1, 2
$$;
COMMENT ON FUNCTION holdfast.recoverable_of(integer[], boolean) IS 'internal: the query behind recoverable(), which says what the caller may see';

CREATE FUNCTION holdfast.recoverable() RETURNS SETOF holdfast.recoverable_job
LANGUAGE C STABLE PARALLEL UNSAFE ROWS 100 AS 'MODULE_PATHNAME', 'holdfast_recoverable';
COMMENT ON FUNCTION holdfast.recoverable() IS
	'jobs that stopped with a retryable class and budget left, by the policies as they are now: dead ones of the queues that '
	'the caller may read, and for the owner those of watched tables and imports; how says what puts one back';

CREATE FUNCTION holdfast.recover_all(max integer DEFAULT 1000) RETURNS bigint
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
	SELECT coalesce((SELECT sum(holdfast.recover_dead(q.queue_id, $1)) FROM holdfast.queue q WHERE q.auto_recover), 0)::bigint
$$;
COMMENT ON FUNCTION holdfast.recover_all(integer) IS 'internal: what auto_recover asks of maintain(); how many jobs were put back';
