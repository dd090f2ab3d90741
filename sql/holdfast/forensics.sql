/* Reading the evidence. */

CREATE VIEW holdfast.event_all AS
	SELECT e.* FROM holdfast.event e
	UNION ALL
	SELECT o.* FROM holdfast.event_overflow o;
COMMENT ON VIEW holdfast.event_all IS 'every event, wherever it lies';

/*
 * One row per attempt.  The aggregates pick, from the attempt's few events,
 * the one that says it: an attempt begins once, and its end and what was
 * decided then are two events at most.
 */
CREATE VIEW holdfast.attempt WITH (security_barrier) AS
	SELECT 'native'::text COLLATE "C" AS source,
		   a.job_id::text COLLATE "C" AS job_id,
		   q.queue_name AS queue,
		   a.attempt_number,
		   CASE WHEN a.attempt_number > 1 THEN a.attempt_number - 1 END AS previous_attempt,
		   a.lease_id::text COLLATE "C" AS lease_id,
		   a.idempotency_key::text COLLATE "C" AS idempotency_key,
		   a.correlation_id, a.subject, a.action_key, a.scope, a.intent_version, a.worker_name, a.mode,
		   a.started_at, a.finished_at, a.last_report_at, a.lease_expires_at,
		   CASE a.worker_result WHEN 'landed' THEN 'succeeded' WHEN 'not_landed' THEN NULL WHEN 'undetermined' THEN 'released'
				ELSE a.worker_result END AS outcome,
		   a.worker_result, a.side_effect_state, a.exception_class, a.message,
		   a.timeout_kind, a.timeout_ms, a.timeout_limit_ms, a.elapsed_ms,
		   a.next_not_before, a.retry_policy, a.delay_ms, a.jitter_ms, a.failures, a.max_attempts,
		   a.redriven, a.final, a.stop_reason, a.payload_digest,
		   false AS synthetic_lease, NULL::bigint AS record_id
	FROM (
		SELECT e.job_id, e.attempt_number, e.queue, e.idempotency_key, e.correlation_id, e.subject, e.action_key,
			   (array_agg(e.lease_id) FILTER (WHERE e.kind = 'action_attempt_started'))[1] AS lease_id,
			   max(e.scope) AS scope, max(e.intent_version) AS intent_version,
			   (array_agg(e.worker_name) FILTER (WHERE e.kind = 'action_attempt_started'))[1] AS worker_name,
			   (array_agg(e.mode) FILTER (WHERE e.kind = 'action_attempt_started'))[1] AS mode,
			   min(e.at) FILTER (WHERE e.kind = 'action_attempt_started') AS started_at,
			   min(e.at) FILTER (WHERE e.ends) AS finished_at,
			   max(e.at) FILTER (WHERE e.ends AND e.kind <> 'action_attempt_lost'
								 OR e.kind IN ('action_stale_report', 'action_duplicate_report', 'action_ledger_changed')) AS last_report_at,
			   max(e.lease_expires_at) AS lease_expires_at,
			   (array_agg(e.worker_result ORDER BY e.at, e.event_id) FILTER (WHERE e.ends))[1] AS worker_result,
			   (array_agg(e.side_effect_state ORDER BY e.at DESC, e.event_id DESC)
				FILTER (WHERE e.side_effect_state IS NOT NULL))[1] AS side_effect_state,
			   (array_agg(e.exception_class ORDER BY e.at, e.event_id) FILTER (WHERE e.ends))[1] AS exception_class,
			   (array_agg(e.message ORDER BY e.at, e.event_id) FILTER (WHERE e.ends))[1] AS message,
			   max(e.timeout_kind) AS timeout_kind, max(e.timeout_ms) AS timeout_ms,
			   max(e.timeout_limit_ms) AS timeout_limit_ms, max(e.elapsed_ms) FILTER (WHERE e.ends) AS elapsed_ms,
			   max(e.next_not_before) FILTER (WHERE e.kind NOT IN ('action_deferred', 'action_redriven')) AS next_not_before,
			   max(e.retry_policy) AS retry_policy,
			   max(e.delay_ms) FILTER (WHERE e.kind <> 'action_deferred') AS delay_ms, max(e.jitter_ms) AS jitter_ms,
			   max(e.failures) AS failures, max(e.max_attempts) AS max_attempts,
			   bool_or(e.kind = 'action_redriven') AS redriven,
			   bool_or(e.kind IN ('action_terminal', 'action_exhausted', 'action_cancelled', 'action_purged', 'action_suppressed',
								  'action_attempt_succeeded')
					   OR e.kind = 'action_reconciled' AND e.detail ->> 'outcome' IN ('done', 'dead')) AS final,
			   max(e.detail ->> 'reason') FILTER (WHERE e.kind IN ('action_terminal', 'action_exhausted', 'action_cancelled')) AS stop_reason,
			   (array_agg(e.payload_digest) FILTER (WHERE e.payload_digest IS NOT NULL))[1] AS payload_digest
		FROM (SELECT v.*, v.lease_id IS NOT NULL
					 AND (v.kind IN ('action_attempt_succeeded', 'action_attempt_failed', 'action_attempt_lost', 'action_snoozed',
									 'action_released', 'action_cancelled', 'action_purged')
						  OR v.kind = 'action_reconciled' AND v.detail ->> 'outcome' IN ('done', 'retry', 'dead')) AS ends
			  FROM holdfast.event_all v
			  WHERE v.attempt_number > 0) e
		GROUP BY e.job_id, e.attempt_number, e.queue, e.idempotency_key, e.correlation_id, e.subject, e.action_key
	) a
	LEFT JOIN holdfast.queue q ON q.queue_id = a.queue
	WHERE a.started_at IS NOT NULL AND holdfast.is_granted(a.queue, 'reader')
	UNION ALL
	SELECT r.source, r.job_id, NULL, r.attempt_number,
		   CASE WHEN r.attempt_number > 1 THEN r.attempt_number - 1 END,
		   r.lease_id, r.idempotency_key, r.correlation_id, r.subject, r.action_key, r.scope, r.intent_version, r.worker_name, NULL,
		   r.started_at, r.finished_at, r.last_report_at, r.lease_expires_at, r.outcome,
		   r.worker_result, r.side_effect_state, r.exception_class, r.message,
		   r.timeout_kind, r.timeout_ms, r.timeout_limit_ms, r.elapsed_ms,
		   r.next_not_before, r.retry_policy, r.delay_ms, NULL, r.failures, r.max_attempts,
		   r.redriven, r.final, r.stop_reason, r.payload_digest, r.synthetic_lease, r.record_id
	FROM holdfast.attempt_record r
	WHERE holdfast.is_granted(0, 'reader');		-- no queue has this number: for the owner
COMMENT ON VIEW holdfast.attempt IS
	'one row per attempt: native ones, of the queues granted to the caller, and for the owner those of watched tables and imports';
COMMENT ON COLUMN holdfast.attempt.last_report_at IS 'the latest report under its lease, stale ones among them';
COMMENT ON COLUMN holdfast.attempt.stop_reason IS 'why the job ended with this attempt';
