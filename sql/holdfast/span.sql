/* The attempts of a span of time, rather than of a subject. */

CREATE FUNCTION holdfast.span_start() RETURNS timestamptz
LANGUAGE C STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'holdfast_span_start';
COMMENT ON FUNCTION holdfast.span_start() IS 'where span_pair and failure_pattern begin: holdfast.span_since, else a day before the end';

CREATE FUNCTION holdfast.span_end() RETURNS timestamptz
LANGUAGE C STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'holdfast_span_end';
COMMENT ON FUNCTION holdfast.span_end() IS 'where span_pair and failure_pattern end: holdfast.span_until, else now';

/*
 * The earlier records that the rules need for the records of a span, by
 * index: those of its jobs; of each key the latest, and, if its job goes on in
 * the span, the latest of another job; and of each subject and action those
 * that reach into the pair window, and further than all that began later: what
 * src/pair.c has on its stack when the span begins.  The names are sorted first, so
 * that an index is gone through once rather than hit at random; OFFSET 0 keeps
 * the planner from reading all of the history instead.
 */
CREATE VIEW holdfast.span_context AS
	WITH seen AS MATERIALIZED (
		SELECT r.job_id, r.source, r.subject, r.action_key, r.idempotency_key FROM holdfast.attempt_record r
		WHERE r.started_at >= holdfast.span_start() AND r.started_at < holdfast.span_end())
	SELECT o.record_id
	FROM (SELECT DISTINCT s.job_id, s.source FROM seen s ORDER BY s.job_id, s.source) k
	CROSS JOIN LATERAL (SELECT x.record_id FROM holdfast.attempt_record x
						WHERE x.job_id = k.job_id AND x.source = k.source AND x.started_at < holdfast.span_start() OFFSET 0) o
	UNION
	SELECT o.record_id
	FROM (SELECT DISTINCT s.idempotency_key, s.source, s.subject, s.action_key FROM seen s WHERE s.idempotency_key IS NOT NULL
		  ORDER BY s.idempotency_key, s.source, s.subject, s.action_key) k
	CROSS JOIN LATERAL (
		SELECT x.record_id, x.job_id FROM holdfast.attempt_record x
		WHERE x.idempotency_key = k.idempotency_key AND x.started_at < holdfast.span_start()
		  AND x.source = k.source AND x.subject = k.subject AND x.action_key = k.action_key
		ORDER BY x.started_at DESC FETCH FIRST ROW WITH TIES) a
	CROSS JOIN LATERAL (
		SELECT a.record_id
		UNION ALL
		(SELECT x.record_id FROM holdfast.attempt_record x
		 WHERE x.idempotency_key = k.idempotency_key AND x.started_at < holdfast.span_start()
		   AND x.source = k.source AND x.subject = k.subject AND x.action_key = k.action_key AND x.job_id <> a.job_id
		   AND EXISTS (SELECT FROM holdfast.attempt_record y WHERE y.job_id = a.job_id AND y.source = k.source
					   AND y.started_at >= holdfast.span_start() AND y.started_at < holdfast.span_end())
		 ORDER BY x.started_at DESC FETCH FIRST ROW WITH TIES)) o
	UNION
	SELECT o.record_id
	FROM (SELECT DISTINCT s.subject, s.action_key, s.source FROM seen s ORDER BY s.subject, s.action_key, s.source) k
	CROSS JOIN (SELECT current_setting('holdfast.pair_window')::interval AS pair_window) w
	CROSS JOIN LATERAL (
		SELECT x.arrival AS record_id, coalesce(x.ended_at, x.started_at) AS reach,
			   max(coalesce(x.ended_at, x.started_at)) OVER (ORDER BY x.started_at DESC GROUPS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS later_reach
		FROM holdfast.foreign_attempt x
		WHERE x.subject = k.subject AND x.action_key = k.action_key AND x.source = k.source AND x.started_at < holdfast.span_start()
		  AND x.started_at >= holdfast.span_start() - interval '1 day' - w.pair_window
		  AND coalesce(x.ended_at, x.started_at) >= holdfast.span_start() - w.pair_window) o
	WHERE o.later_reach IS NULL OR o.reach > o.later_reach;
COMMENT ON VIEW holdfast.span_context IS 'internal: the records before the span that pairs of the span may need';

CREATE VIEW holdfast.span_attempt AS
	SELECT f.*, true AS wanted FROM holdfast.foreign_attempt f
	WHERE f.started_at >= holdfast.span_start() AND f.started_at < holdfast.span_end() AND (SELECT holdfast.is_granted(0, 'reader'))
	UNION ALL
	SELECT f.*, false
	FROM (SELECT x.record_id FROM holdfast.span_context x ORDER BY x.record_id) c
	CROSS JOIN LATERAL (SELECT r.* FROM holdfast.foreign_attempt r WHERE r.arrival = c.record_id OFFSET 0) f
	WHERE (SELECT holdfast.is_granted(0, 'reader'))
	UNION ALL
	SELECT n.*, n.started_at >= holdfast.span_start() FROM holdfast.own_attempt n
	WHERE n.started_at >= holdfast.span_start() - interval '7 days' AND n.started_at < holdfast.span_end();
COMMENT ON VIEW holdfast.span_attempt IS 'internal: the attempts of the span, and, not wanted themselves, the earlier ones they may be paired with';
