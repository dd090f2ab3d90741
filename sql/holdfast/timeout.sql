/* Timeouts that are not what they say, budgets that another limit cuts short, and failures that keep coming. */

/*
 * The usual latency of an action is the median of its successes among the
 * latest 2,000 attempts (native: events) of the day before, so that it costs
 * the same however long the history is; it is looked for only where there is a
 * finding.
 */
CREATE VIEW holdfast.timeout_finding WITH (security_barrier) AS
	SELECT f.source, f.job_id, f.attempt_number, 'timeout_mismatch'::text COLLATE "C" AS finding,
		   format('%s (%s)%s: configured %s, limit said to have fired %s, elapsed %s: %s', coalesce(f.exception_class, 'timeout'),
				  coalesce(f.timeout_kind, 'kind not on record'), coalesce(' of attempt ' || f.attempt_number, ''),
				  coalesce(holdfast.span(f.timeout_ms), 'nothing on record'), holdfast.span(f.limit_ms), holdfast.span(f.elapsed_ms),
				  array_to_string(r.reading, '; ')) AS because,
		   r.reading, f.subject, f.action_key, f.queue, f.lease_id, f.started_at, f.timeout_kind, f.timeout_ms, f.limit_ms, f.elapsed_ms,
		   f.lease_ms, r.usual_ms, NULL::integer AS max_attempts, NULL::text COLLATE "C" AS stop_reason
	FROM (SELECT a.*, coalesce(a.timeout_limit_ms, CASE WHEN a.timeout_kind = 'max_runtime' THEN a.timeout_ms END) AS limit_ms,
				 coalesce(a.elapsed_ms, ((extract(epoch FROM a.finished_at) - extract(epoch FROM a.started_at)) * 1000)::bigint) AS took_ms,
				 ((extract(epoch FROM a.lease_expires_at) - extract(epoch FROM a.started_at)) * 1000)::bigint AS lease_ms
		  FROM holdfast.attempt a
		  WHERE a.outcome IS DISTINCT FROM 'succeeded'
			AND (a.outcome = 'timeout' OR a.worker_result = 'timeout' OR a.timeout_kind IS NOT NULL OR a.timeout_limit_ms IS NOT NULL)) t
	CROSS JOIN LATERAL (SELECT t.source, t.job_id, t.attempt_number, t.exception_class, t.timeout_kind, t.timeout_ms, t.limit_ms,
							   t.took_ms AS elapsed_ms, t.lease_ms, t.subject, t.action_key, t.queue, t.lease_id, t.started_at) f
	LEFT JOIN holdfast.queue q ON q.queue_name = f.queue
	CROSS JOIN LATERAL (
		SELECT u.usual_ms, array_remove(ARRAY[
			CASE
				WHEN f.elapsed_ms > f.limit_ms THEN 'the limit did not stop it: the worker noticed late, or not by this limit'
				WHEN f.lease_ms < f.limit_ms AND f.elapsed_ms >= 0.9 * f.lease_ms THEN format('the lease ended before the timeout, after %s', holdfast.span(f.lease_ms))
				WHEN f.timeout_ms <> f.limit_ms AND f.elapsed_ms BETWEEN 0.9 * f.timeout_ms AND 1.1 * f.timeout_ms
					THEN 'another limit fired first: the configured one'
				ELSE 'another limit fired first' END,
			CASE WHEN f.limit_ms < u.usual_ms THEN format('the timeout is below the action''s usual latency, %s', holdfast.span(u.usual_ms)) END,
			CASE WHEN f.lease_ms < f.limit_ms AND NOT (f.elapsed_ms >= 0.9 * f.lease_ms)
				 THEN format('its lease, %s, is shorter than the timeout', holdfast.span(f.lease_ms)) END], NULL) AS reading
		FROM (SELECT CASE WHEN f.source = 'native'
				THEN (SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY e.elapsed_ms)
					  FROM (SELECT v.kind, v.queue, v.action_key, v.elapsed_ms FROM holdfast.event v
							WHERE v.job_id < CASE WHEN f.source = 'native' THEN f.job_id::bigint END
							  AND v.at >= f.started_at - interval '1 day' AND v.at < f.started_at
							ORDER BY v.job_id DESC LIMIT 2000) e
					  WHERE e.kind = 'action_attempt_succeeded' AND e.queue = q.queue_id AND e.action_key = f.action_key)
				ELSE (SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY coalesce(n.elapsed_ms, ((extract(epoch FROM n.finished_at) - extract(epoch FROM n.started_at)) * 1000)::bigint))
					  FROM (SELECT r.* FROM holdfast.attempt_record r
							WHERE r.started_at >= f.started_at - interval '1 day' AND r.started_at < f.started_at
							ORDER BY r.started_at DESC LIMIT 2000) n
					  WHERE n.source = f.source AND n.action_key = f.action_key AND n.outcome = 'succeeded') END AS usual_ms) u) r
	WHERE f.elapsed_ms < 0.9 * f.limit_ms
	   OR f.timeout_kind = 'max_runtime'
		  AND f.elapsed_ms > 1.1 * f.limit_ms + coalesce((extract(epoch FROM q.grace) * 1000)::bigint, 0)
	UNION ALL
	SELECT s.source, s.job_id, s.attempt_number, 'budget_conflict',
		   format('failure %s of %s (attempt %s): stopped by %s, which is a limit of %s below max_attempts, %s: two limits count one budget',
				  s.failures, s.max_attempts, coalesce(s.attempt_number::text, '?'), s.stop_reason, s.other_limit, s.max_attempts),
		   ARRAY['another limit ended the job before its budget'], s.subject, s.action_key, s.queue, NULL, s.started_at, NULL, NULL, NULL, NULL,
		   NULL, NULL, s.max_attempts, s.stop_reason
	FROM (SELECT j.*, CASE j.stop_reason WHEN 'crash_loop' THEN holdfast.policy_figure(j.retry_policy, 'max_lost')
										 WHEN 'unresolved' THEN holdfast.policy_figure(j.retry_policy, 'reconcile_max')
										 ELSE coalesce(substring(j.stop_reason FROM '[0-9]{1,9}')::bigint, j.failures) END AS other_limit
		  FROM holdfast.stop_reason j
		  WHERE j.stop_reason IS NOT NULL
			AND (j.reason = 'premature_stop' OR j.reason = 'terminal_policy_failure' AND j.detail IN ('crash_loop', 'unresolved'))) s
	WHERE s.other_limit < s.max_attempts;
COMMENT ON VIEW holdfast.timeout_finding IS
	'timeouts that fired at another time than they say, and jobs that another limit stopped before their budget, with the likely reading';
COMMENT ON COLUMN holdfast.timeout_finding.timeout_ms IS 'the timeout that was configured';
COMMENT ON COLUMN holdfast.timeout_finding.limit_ms IS 'the limit said to have fired';
COMMENT ON COLUMN holdfast.timeout_finding.usual_ms IS 'the median latency of the action''s successes of the day before';
