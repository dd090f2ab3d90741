/* The attempts of a span of time, rather than of a subject. */

CREATE FUNCTION holdfast.span_start() RETURNS timestamptz
LANGUAGE C STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'holdfast_span_start';
COMMENT ON FUNCTION holdfast.span_start() IS 'where span_pair and failure_pattern begin: holdfast.span_since, else a day before the end';

CREATE FUNCTION holdfast.span_end() RETURNS timestamptz
LANGUAGE C STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'holdfast_span_end';
COMMENT ON FUNCTION holdfast.span_end() IS 'where span_pair and failure_pattern end: holdfast.span_until, else now';

/*
 * The earlier records that the rules need for the records of a span, by
 * index: those of its jobs; of each key the latest, and the latest of another
 * job; and of each subject and action the latest three that may be in the
 * pair window.  The names are sorted first, so that an index is gone through
 * once rather than hit at random.
 */
CREATE VIEW holdfast.span_context AS
	SELECT o.record_id
	FROM (SELECT DISTINCT r.job_id, r.source FROM holdfast.attempt_record r
		  WHERE r.started_at >= holdfast.span_start() AND r.started_at < holdfast.span_end() ORDER BY r.job_id, r.source) k
	CROSS JOIN LATERAL (SELECT x.record_id FROM holdfast.attempt_record x
						WHERE x.job_id = k.job_id AND x.source = k.source AND x.started_at < holdfast.span_start() OFFSET 0) o
	UNION
	SELECT o.record_id
	FROM (SELECT DISTINCT r.idempotency_key, r.source, r.subject, r.action_key FROM holdfast.attempt_record r
		  WHERE r.started_at >= holdfast.span_start() AND r.started_at < holdfast.span_end() AND r.idempotency_key IS NOT NULL
		  ORDER BY r.idempotency_key, r.source, r.subject, r.action_key) k
	CROSS JOIN LATERAL (
		SELECT x.record_id, x.job_id FROM holdfast.attempt_record x
		WHERE x.idempotency_key = k.idempotency_key AND x.started_at < holdfast.span_start()
		  AND x.source = k.source AND x.subject = k.subject AND x.action_key = k.action_key
		ORDER BY x.started_at DESC, x.attempt_number DESC, x.record_id DESC LIMIT 1) a
	CROSS JOIN LATERAL (
		SELECT a.record_id
		UNION ALL
		(SELECT x.record_id FROM holdfast.attempt_record x
		 WHERE x.idempotency_key = k.idempotency_key AND x.started_at < holdfast.span_start()
		   AND x.source = k.source AND x.subject = k.subject AND x.action_key = k.action_key AND x.job_id <> a.job_id
		 ORDER BY x.started_at DESC, x.attempt_number DESC, x.record_id DESC LIMIT 1)) o
	UNION
	SELECT o.record_id
	FROM (SELECT DISTINCT r.subject, r.action_key, r.source FROM holdfast.attempt_record r
		  WHERE r.started_at >= holdfast.span_start() AND r.started_at < holdfast.span_end() ORDER BY r.subject, r.action_key, r.source) k
	CROSS JOIN LATERAL (
		SELECT x.record_id FROM holdfast.attempt_record x
		WHERE x.subject = k.subject AND x.action_key = k.action_key AND x.source = k.source AND x.started_at < holdfast.span_start()
		  AND x.started_at >= holdfast.span_start() - interval '1 day' - current_setting('holdfast.pair_window')::interval
		ORDER BY x.started_at DESC FETCH FIRST 3 ROWS WITH TIES) o;
COMMENT ON VIEW holdfast.span_context IS 'internal: the records before the span that pairs of the span may need';

CREATE VIEW holdfast.span_attempt AS
	SELECT f.*, true AS wanted FROM holdfast.foreign_attempt f
	WHERE f.started_at >= holdfast.span_start() AND f.started_at < holdfast.span_end() AND (SELECT holdfast.is_granted(0, 'reader'))
	UNION ALL
	SELECT f.*, false FROM holdfast.span_context c JOIN holdfast.foreign_attempt f ON f.arrival = c.record_id
	WHERE (SELECT holdfast.is_granted(0, 'reader'))
	UNION ALL
	SELECT n.*, n.started_at >= holdfast.span_start() FROM holdfast.attempt n
	WHERE n.source = 'native' AND n.started_at >= holdfast.span_start() - interval '7 days' AND n.started_at < holdfast.span_end();
COMMENT ON VIEW holdfast.span_attempt IS 'internal: the attempts of the span, and, not wanted themselves, the earlier ones they may be paired with';
