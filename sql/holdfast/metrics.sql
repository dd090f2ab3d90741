/* What an operator watches. */

CREATE TYPE holdfast.queue_metrics AS (
	queue_name				text,
	paused					boolean,
	claimable				bigint,
	parked					bigint,
	running					bigint,
	exact					boolean,
	estimated_jobs			bigint,
	oldest_claimable_ms		bigint,
	unknown_effects			bigint,
	awaiting_reconcile		bigint,
	dead					bigint,
	attempts_last_hour		bigint,
	succeeded_last_hour		bigint,
	failed_last_hour		bigint,
	attempts_last_day		bigint,
	succeeded_last_day		bigint,
	failed_last_day			bigint,
	counted_up_to			timestamptz,
	lease_overlaps_last_hour bigint,
	lease_overlaps_last_day	bigint,
	stale_reports_last_hour	bigint,
	stale_reports_last_day	bigint,
	lost_leases_last_hour	bigint,
	lost_leases_last_day	bigint,
	oldest_evidence			date,
	kept_by_job				bigint
);
COMMENT ON TYPE holdfast.queue_metrics IS 'one line per queue';
COMMENT ON COLUMN holdfast.queue_metrics.exact IS 'claimable, parked and running are exact; if not, they are lower bounds, from the first 100,000 entries';
COMMENT ON COLUMN holdfast.queue_metrics.estimated_jobs IS 'live jobs of all queues by the planner''s statistics, where the counts are not exact';
COMMENT ON COLUMN holdfast.queue_metrics.oldest_claimable_ms IS 'how long the longest-waiting job has been due; parked jobs do not count';
COMMENT ON COLUMN holdfast.queue_metrics.counted_up_to IS 'attempts and outcomes are counted up to here by maintain(), for the hour and the day before';
COMMENT ON COLUMN holdfast.queue_metrics.oldest_evidence IS 'the oldest day of events kept';
COMMENT ON COLUMN holdfast.queue_metrics.kept_by_job IS 'a job, live or unknown, that keeps a day of events past its retention';

CREATE FUNCTION holdfast.queue_counts(queue integer)
RETURNS TABLE (claimable bigint, parked bigint, running bigint, exact boolean, oldest_claimable_ms bigint)
LANGUAGE C STABLE PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'holdfast_queue_counts';
COMMENT ON FUNCTION holdfast.queue_counts(integer) IS 'internal: the jobs of a queue that are due, due later and running, up to 100,000';

CREATE FUNCTION holdfast.queue_metrics_of(queue integer) RETURNS SETOF holdfast.queue_metrics
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
	WITH clock AS MATERIALIZED (SELECT holdfast.clock() AS now),
	folded AS MATERIALIZED (SELECT u.at FROM holdfast.upkeep u WHERE u.name = 'fold'),
	hours AS (
		SELECT sum(h.started) FILTER (WHERE h.hour >= f.at - interval '1 hour') AS started_hour,
			   sum(h.succeeded) FILTER (WHERE h.hour >= f.at - interval '1 hour') AS succeeded_hour,
			   sum(h.failed + h.lost) FILTER (WHERE h.hour >= f.at - interval '1 hour') AS failed_hour,
			   sum(h.started) AS started_day, sum(h.succeeded) AS succeeded_day, sum(h.failed + h.lost) AS failed_day
		FROM folded f JOIN holdfast.queue_hour h ON h.queue = $1 AND h.hour >= f.at - interval '24 hours' AND h.hour < f.at),
	findings AS (
		SELECT count(*) FILTER (WHERE f.kind = 'lease_overlap' AND f.at > c.now - interval '1 hour') AS overlaps_hour,
			   count(*) FILTER (WHERE f.kind = 'lease_overlap') AS overlaps_day,
			   count(*) FILTER (WHERE f.kind = 'stale' AND f.at > c.now - interval '1 hour') AS stale_hour,
			   count(*) FILTER (WHERE f.kind = 'stale') AS stale_day,
			   count(*) FILTER (WHERE f.kind = 'lost_lease' AND f.at > c.now - interval '1 hour') AS lost_hour,
			   count(*) FILTER (WHERE f.kind = 'lost_lease') AS lost_day
		FROM clock c JOIN holdfast.finding f ON f.queue = $1 AND f.at > c.now - interval '24 hours' AND f.at <= c.now)
	SELECT q.queue_name, q.paused, n.claimable, n.parked, n.running, n.exact,
		   CASE WHEN NOT n.exact THEN (SELECT r.reltuples::bigint FROM pg_class r WHERE r.oid = 'holdfast.job'::regclass) END,
		   n.oldest_claimable_ms,
		   (SELECT count(*) FROM holdfast.unknown_effect u WHERE u.queue = $1),
		   (SELECT count(*) FROM holdfast.job j WHERE j.queue = $1 AND j.mode = 'reconcile'),
		   (SELECT count(*) FROM holdfast.dead_job d WHERE d.queue = $1),
		   coalesce(h.started_hour, 0), coalesce(h.succeeded_hour, 0), coalesce(h.failed_hour, 0),
		   coalesce(h.started_day, 0), coalesce(h.succeeded_day, 0), coalesce(h.failed_day, 0),
		   (SELECT f.at FROM folded f),
		   f.overlaps_hour, f.overlaps_day, f.stale_hour, f.stale_day, f.lost_hour, f.lost_day,
		   (SELECT min(p.day) FROM holdfast.event_partition p),
		   (SELECT u.position FROM holdfast.upkeep u WHERE u.name = 'kept_by_job')
	FROM holdfast.queue q, holdfast.queue_counts($1) n, hours h, findings f
	WHERE q.queue_id = $1
$$;
COMMENT ON FUNCTION holdfast.queue_metrics_of(integer) IS 'internal: the query behind metrics(), which checks who asks';

CREATE FUNCTION holdfast.metrics(queue_name text) RETURNS SETOF holdfast.queue_metrics
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'holdfast_metrics';
COMMENT ON FUNCTION holdfast.metrics(text) IS 'what to watch of a queue, in some tens of ms however large it is; for readers';

CREATE FUNCTION holdfast.metrics_all() RETURNS SETOF holdfast.queue_metrics
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
	SELECT m.* FROM holdfast.list_queues() q, holdfast.metrics(q.queue_name) m ORDER BY m.queue_name
$$;
COMMENT ON FUNCTION holdfast.metrics_all() IS 'metrics() of every queue; for the owner';
