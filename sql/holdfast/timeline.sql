/* What happened, in order. */

CREATE FUNCTION holdfast.events_of(subject text, action_key text, job_id bigint, idempotency_key uuid, correlation_id text,
	since timestamptz, until timestamptz) RETURNS SETOF holdfast.event
LANGUAGE C STABLE PARALLEL UNSAFE ROWS 50 AS 'MODULE_PATHNAME', 'holdfast_events_of';
COMMENT ON FUNCTION holdfast.events_of(text, text, bigint, uuid, text, timestamptz, timestamptz) IS
	'the events that fit all arguments that are not null, of the queues that the caller may read, in no order; by indexes for '
	'a subject, a job or a key that the ledger knows, otherwise by reading the days from since to until; 22023 if all are '
	'null; for readers';

CREATE VIEW holdfast.attempt_elsewhere WITH (security_barrier) AS
	SELECT r.* FROM holdfast.attempt_record r WHERE holdfast.is_granted(0, 'reader');	-- no queue has this number: for the owner
COMMENT ON VIEW holdfast.attempt_elsewhere IS 'attempts of watched tables and imported ones, for the owner';

CREATE FUNCTION holdfast.span(ms bigint) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN
	CASE WHEN ms < 0 THEN '-' ELSE '' END || CASE
		WHEN abs(ms) >= 172800000 THEN format('%s d %s h', abs(ms) / 86400000, abs(ms) / 3600000 % 24)
		WHEN abs(ms) >= 36000000 THEN format('%s h %s min', abs(ms) / 3600000, abs(ms) / 60000 % 60)
		WHEN abs(ms) % 1000 = 0 THEN format('%s s', abs(ms) / 1000)
		ELSE format('%s.%s s', abs(ms) / 1000, to_char(abs(ms) % 1000, 'FM000')) END;
COMMENT ON FUNCTION holdfast.span(bigint) IS 'milliseconds as the reports print them: 743 s, 1.413 s, 11 h 5 min, 3 d 4 h';

CREATE FUNCTION holdfast.span(since timestamptz, until timestamptz) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN
	holdfast.span(round((extract(epoch FROM until) - extract(epoch FROM since)) * 1000)::bigint);
COMMENT ON FUNCTION holdfast.span(timestamptz, timestamptz) IS 'the time between two times, as the reports print it';

CREATE FUNCTION holdfast.how_long(at timestamptz, now timestamptz) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN
	CASE WHEN abs(extract(epoch FROM at) - extract(epoch FROM now)) < 0.0005 THEN 'now' WHEN at > now THEN 'in ' || holdfast.span(now, at) ELSE holdfast.span(at, now) || ' ago' END;
COMMENT ON FUNCTION holdfast.how_long(timestamptz, timestamptz) IS 'a time as the reports print it: in 1.413 s, now, 743 s ago';

CREATE FUNCTION holdfast.error_summary(exception_class text, message text, timed_out boolean, timeout_kind text,
	timeout_limit_ms bigint, timeout_ms bigint, elapsed_ms bigint) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
	concat(coalesce(exception_class, 'an error without a class'),
		' (' || timeout_kind || ')',
		CASE WHEN timed_out OR timeout_kind IS NOT NULL
			 THEN coalesce(': configured ' || holdfast.span(coalesce(timeout_limit_ms, timeout_ms)), ': no limit on record')
				  || coalesce(', elapsed ' || holdfast.span(elapsed_ms), '')
			 ELSE ': ' || left(regexp_replace(message, E'\\s+', ' ', 'g'), 80) END);
COMMENT ON FUNCTION holdfast.error_summary(text, text, boolean, text, bigint, bigint, bigint) IS
	'an error in a line: TimeoutError (max_runtime): configured 21600 s, elapsed 743 s';

CREATE TYPE holdfast.timeline_line AS (
	at					timestamptz,
	job					text,
	attempt				integer,
	worker				text,
	lease				text,
	what				text,
	took				text,
	decided				text,
	ledger				text,
	mark				text
);
COMMENT ON TYPE holdfast.timeline_line IS 'a thing that happened';
COMMENT ON COLUMN holdfast.timeline_line.at IS 'to the millisecond; a call''s own clock, or that of another source''s log';
COMMENT ON COLUMN holdfast.timeline_line.job IS 'a number: a job of holdfast; otherwise the source, a slash and the id there';
COMMENT ON COLUMN holdfast.timeline_line.lease IS 'its first eight characters';
COMMENT ON COLUMN holdfast.timeline_line.decided IS 'what was decided, by which rule or policy and why';
COMMENT ON COLUMN holdfast.timeline_line.ledger IS 'what is known of the side effect from then on';
COMMENT ON COLUMN holdfast.timeline_line.mark IS
	'at a start: the gap since the attempt before it in its job, OVERLAP with whose lease had not ended, EARLY before its time; '
	'at a report: LATE after the lease''s end, STALE under a lease that is no longer the job''s';

-- A line for each event, and its attempt's times for the marks.
CREATE FUNCTION holdfast.event_line(e holdfast.event) RETURNS holdfast.timeline_line
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
	SELECT date_trunc('milliseconds', e.at), e.job_id::text, nullif(e.attempt_number, 0), e.worker_name, left(e.lease_id::text, 8),
		CASE e.kind
			WHEN 'action_attempt_started' THEN CASE e.mode WHEN 'reconcile' THEN 'started, to find out' ELSE 'started' END
			WHEN 'action_attempt_succeeded' THEN 'succeeded'
			WHEN 'action_attempt_failed' THEN 'failed: ' || e.error
			WHEN 'action_attempt_lost' THEN 'lost: ' || e.error
			WHEN 'action_retry_scheduled' THEN 'to be retried'
			WHEN 'action_reconcile_scheduled' THEN 'to be reconciled'
			WHEN 'action_reconciled' THEN concat('found: ', coalesce(e.worker_result, e.detail ->> 'decision'), ' (effect ' || (e.detail ->> 'effect') || ')')
			WHEN 'action_ledger_changed' THEN concat('ledger: ', coalesce(e.detail ->> 'to', e.side_effect_state), ' (effect ' || (e.detail ->> 'effect') || ')')
			WHEN 'action_terminal' THEN 'dead: terminal'
			WHEN 'action_exhausted' THEN 'dead: ' || coalesce(e.detail ->> 'reason', 'exhausted')
			WHEN 'action_deferred' THEN CASE WHEN e.detail ->> 'reason' = 'stream_open' THEN 'parked' ELSE 'deferred' END
			WHEN 'action_duplicate_enqueue' THEN 'enqueued again: ' || coalesce(e.detail ->> 'outcome', 'duplicate')
			WHEN 'action_duplicate_report' THEN 'reported again: ' || coalesce(e.detail ->> 'report', e.worker_result, '')
			WHEN 'action_stale_report' THEN 'stale report: ' || coalesce(e.detail ->> 'report', e.worker_result, '')
			WHEN 'action_violation' THEN concat_ws(' ', 'refused:', e.detail ->> 'refused', e.detail ->> 'sqlstate')
			ELSE replace(regexp_replace(e.kind, '^action_', ''), '_', ' ')
		END,
		CASE WHEN e.kind IN ('action_attempt_succeeded', 'action_attempt_failed', 'action_attempt_lost', 'action_snoozed', 'action_released')
			 THEN holdfast.span(e.elapsed_ms) END,
		CASE e.kind
			WHEN 'action_attempt_started' THEN concat_ws(', ',
				'lease of ' || holdfast.span(e.at, e.lease_expires_at), 'timeout ' || holdfast.span(e.timeout_ms),
				format('failure %s of %s so far', e.failures, e.max_attempts))
			ELSE nullif(concat_ws('; ', coalesce(regexp_replace(e.detail ->> 'because', E'^(failure [0-9]+ of [0-9]+) \\(attempt [0-9]+\\): .*; ', E'\\1; '), CASE WHEN e.kind <> 'action_duplicate_enqueue' THEN e.detail ->> 'outcome' END,
					CASE WHEN e.kind NOT IN ('action_attempt_failed', 'action_attempt_lost') THEN e.detail ->> 'decision' END),
				'not before ' || to_char(e.next_not_before, 'HH24:MI:SS.MS'),
				'by ' || (e.detail ->> 'by'),
				CASE WHEN e.kind IN ('action_snoozed', 'action_released') THEN e.message
					 WHEN e.detail ? 'by' OR e.kind IN ('action_suppressed', 'action_exhausted') AND NOT e.detail ? 'because'
					 THEN e.detail ->> 'reason' END), '')
		END,
		e.side_effect_state,
		CASE WHEN e.kind = 'action_stale_report' THEN 'STALE' WHEN e.detail ->> 'late' = 'true' THEN 'LATE' END
	FROM (SELECT e.*, holdfast.error_summary(e.exception_class, e.message, e.worker_result = 'timeout', e.timeout_kind,
											 e.timeout_limit_ms, e.timeout_ms, e.elapsed_ms) AS error) e
$$;
COMMENT ON FUNCTION holdfast.event_line(holdfast.event) IS 'internal: an event as timeline() prints it, but for the marks of a start';

/*
 * An attempt's end, for the marks: its own report or a later one, else its
 * lease's end.  Overlaps are looked for among attempts of one job or one key.
 */
CREATE FUNCTION holdfast.timeline(subject text DEFAULT NULL, action_key text DEFAULT NULL, job_id bigint DEFAULT NULL,
	idempotency_key uuid DEFAULT NULL, correlation_id text DEFAULT NULL, since timestamptz DEFAULT NULL,
	until timestamptz DEFAULT NULL, source_job text DEFAULT NULL) RETURNS SETOF holdfast.timeline_line
LANGUAGE plpgsql STABLE PARALLEL UNSAFE ROWS 100
SET search_path = pg_catalog, pg_temp SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
	records	holdfast.attempt_elsewhere[];
BEGIN
	-- a statement for each index: a plan once made serves every call
	IF $3 IS NOT NULL THEN
		NULL;		-- a number is a job of holdfast
	ELSIF $1 IS NOT NULL THEN
		records := ARRAY(SELECT r FROM holdfast.attempt_elsewhere r WHERE r.subject = $1);
	ELSIF $8 IS NOT NULL THEN
		records := ARRAY(SELECT r FROM holdfast.attempt_elsewhere r WHERE r.job_id = $8);
	ELSIF $4 IS NOT NULL THEN
		records := ARRAY(SELECT r FROM holdfast.attempt_elsewhere r WHERE r.idempotency_key = $4::text);
	ELSIF $5 IS NOT NULL THEN
		records := ARRAY(SELECT r FROM holdfast.attempt_elsewhere r WHERE r.correlation_id = $5);
	ELSE
		records := ARRAY(SELECT r FROM holdfast.attempt_elsewhere r
						 WHERE r.started_at >= coalesce($6, '-infinity') AND r.started_at < coalesce($7, 'infinity'));
	END IF;

	RETURN QUERY WITH event AS MATERIALIZED (
		SELECT e.* FROM holdfast.events_of($1, $2, $3, $4, $5, $6, $7) e WHERE $8 IS NULL),
	record AS MATERIALIZED (
		SELECT r.* FROM unnest(records) r
		WHERE ($2 IS NULL OR r.action_key = $2) AND ($4 IS NULL OR r.idempotency_key = $4::text)
		  AND ($5 IS NULL OR r.correlation_id = $5) AND ($6 IS NULL OR r.started_at >= $6) AND ($7 IS NULL OR r.started_at < $7)
		  AND ($8 IS NULL OR r.job_id = $8)),
	attempt AS (
		SELECT e.job_id::text AS job, e.attempt_number AS attempt, e.idempotency_key::text AS key, e.lease_id::text AS lease,
			   min(e.event_id) FILTER (WHERE e.kind = 'action_attempt_started') AS place,
			   min(e.at) FILTER (WHERE e.kind = 'action_attempt_started') AS started_at,
			   min(e.at) FILTER (WHERE e.worker_result IS NOT NULL AND e.kind NOT IN
				   ('action_attempt_lost', 'action_stale_report', 'action_duplicate_report') AND e.worker_result <> 'not_landed') AS reported_at,
			   max(e.at) FILTER (WHERE e.worker_result IS NOT NULL AND e.kind <> 'action_attempt_lost') AS last_report_at,
			   max(e.lease_expires_at) AS lease_expires_at,
			   max(e.next_not_before) FILTER (WHERE e.kind NOT IN ('action_deferred', 'action_redriven')) AS next_not_before
		FROM event e WHERE e.lease_id IS NOT NULL GROUP BY 1, 2, 3, 4
		UNION ALL
		SELECT r.source || '/' || r.job_id, r.attempt_number, r.idempotency_key, r.lease_id, r.record_id, r.started_at, r.finished_at,
			   greatest(r.finished_at, r.last_report_at), r.lease_expires_at, r.next_not_before
		FROM record r),
	placed AS (
		SELECT a.*, coalesce(a.last_report_at, a.lease_expires_at) AS ended_at,
			   lag(coalesce(a.reported_at, a.lease_expires_at)) OVER by_job AS closed_before,
			   lag(a.next_not_before) OVER by_job AS not_before,
			   greatest(max(coalesce(a.last_report_at, a.lease_expires_at)) OVER (by_job ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING),
				   CASE WHEN a.key IS NOT NULL THEN max(coalesce(a.last_report_at, a.lease_expires_at))
						OVER (PARTITION BY a.key ORDER BY a.started_at, a.place ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) END) AS busy_until
		FROM attempt a WHERE a.started_at IS NOT NULL
		WINDOW by_job AS (PARTITION BY a.job ORDER BY a.started_at, a.place)),
	start AS (
		SELECT b.job, b.place, concat_ws(', ',
				   o.mark,
				   CASE WHEN b.started_at < b.not_before THEN 'EARLY by ' || holdfast.span(b.started_at, b.not_before) END,
				   CASE WHEN o.mark IS NULL THEN 'gap ' || holdfast.span(b.closed_before, b.started_at) END) AS mark
		FROM placed b
		LEFT JOIN LATERAL (
			SELECT format('OVERLAP %s with attempt %s', holdfast.span(b.started_at, a.ended_at), coalesce(a.attempt::text, '?'))
				   || CASE WHEN a.job <> b.job THEN ' of job ' || a.job ELSE '' END AS mark
			FROM placed a
			WHERE b.started_at < b.busy_until AND (a.job = b.job OR a.key = b.key) AND (a.started_at, a.place) < (b.started_at, b.place)
			  AND a.ended_at > b.started_at AND a.lease IS DISTINCT FROM b.lease
			ORDER BY a.ended_at DESC LIMIT 1) o ON true)
	SELECT l.at, l.job, l.attempt, l.worker, l.lease, l.what, l.took, l.decided, l.ledger,
		   CASE WHEN l.what LIKE 'started%' THEN nullif(s.mark, '') ELSE l.mark END
	FROM (
		SELECT x.at AS precise, 1 AS rank, x.event_id AS place, p.* FROM event x, LATERAL holdfast.event_line(x) p
		UNION ALL
		SELECT e.enqueued_at, 0, min(e.event_id), date_trunc('milliseconds', e.enqueued_at), e.job_id::text, NULL, NULL, NULL,
			   'enqueued', NULL, 'by ' || min(e.enqueued_by), NULL, NULL
		FROM event e WHERE e.enqueued_at IS NOT NULL AND e.kind <> 'action_duplicate_enqueue' AND ($6 IS NULL OR e.enqueued_at >= $6) AND ($7 IS NULL OR e.enqueued_at < $7)
		GROUP BY e.job_id, e.enqueued_at
		UNION ALL
		SELECT r.started_at, 1, r.record_id, date_trunc('milliseconds', r.started_at), r.source || '/' || r.job_id, r.attempt_number,
			   r.worker_name, left(r.lease_id, 8), 'started', NULL,
			   nullif(concat_ws(', ', 'lease of ' || holdfast.span(r.started_at, r.lease_expires_at), 'timeout ' || holdfast.span(r.timeout_ms)), ''),
			   NULL, NULL
		FROM record r
		UNION ALL
		SELECT r.finished_at, 2, r.record_id, date_trunc('milliseconds', r.finished_at), r.source || '/' || r.job_id, r.attempt_number,
			   r.worker_name, left(r.lease_id, 8),
			   concat(coalesce(r.outcome, 'ended'), CASE WHEN r.exception_class IS NOT NULL OR r.outcome IN ('failed', 'timeout', 'lost') THEN ': ' ||
				   holdfast.error_summary(r.exception_class, r.message, r.outcome = 'timeout', r.timeout_kind, r.timeout_limit_ms, r.timeout_ms,
					   coalesce(r.elapsed_ms, round((extract(epoch FROM r.finished_at) - extract(epoch FROM r.started_at)) * 1000)::bigint)) END),
			   holdfast.span(coalesce(r.elapsed_ms, round((extract(epoch FROM r.finished_at) - extract(epoch FROM r.started_at)) * 1000)::bigint)),
			   nullif(concat_ws('; ', 'not before ' || to_char(r.next_not_before, 'HH24:MI:SS.MS'), 'by policy ' || r.retry_policy,
				   CASE WHEN r.final THEN concat('final', ': ' || r.stop_reason) END), ''),
			   r.side_effect_state, CASE WHEN r.finished_at >= r.lease_expires_at THEN 'LATE' END
		FROM record r WHERE r.finished_at IS NOT NULL
	) l
	LEFT JOIN start s ON s.job = l.job AND s.place = l.place AND l.what LIKE 'started%'
	ORDER BY l.precise, l.rank, l.place;
END
$$;
COMMENT ON FUNCTION holdfast.timeline(text, text, bigint, uuid, text, timestamptz, timestamptz, text) IS
	'everything that happened to a subject, an action, a job, a key or under a correlation id, a line each, in order; since '
	'inclusive, until exclusive; source_job: a job of a watched table or an import; several arguments narrow it down; rows of '
	'the queues that the caller may read; 22023 if nothing is given';
