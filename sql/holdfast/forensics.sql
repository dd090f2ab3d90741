/* Reading the evidence: attempts, and how they look to one who compares them. */

CREATE VIEW holdfast.event_all AS
	SELECT e.* FROM holdfast.event e
	UNION ALL
	SELECT o.* FROM holdfast.event_overflow o;
COMMENT ON VIEW holdfast.event_all IS 'every event, wherever it lies';

/*
 * The attempts of each job, from its first claim, which the index on (subject,
 * action_key) finds; its other events are found by job_id, in the partitions
 * from that day on.  A condition on subject or action_key reaches that index,
 * since all aggregates are grouped by them.
 *
 * The aggregates pick, from the attempt's few events, the one that says it: an
 * attempt begins once, and its end and what was decided then are two events at
 * most.  "ends": an event that ends an attempt; "reports": one that its worker
 * sent, and so a sign of life; a report sent once more is none, but one that
 * says something else is.
 */
CREATE VIEW holdfast.native_attempt AS
	SELECT a.*
	FROM (
		SELECT f.subject, f.action_key, f.queue, f.job_id, f.idempotency_key, f.correlation_id, e.attempt_number,
			   (array_agg(e.lease_id) FILTER (WHERE e.kind = 'action_attempt_started'))[1] AS lease_id,
			   max(e.scope) AS scope, max(e.intent_version) AS intent_version,
			   (array_agg(e.worker_name) FILTER (WHERE e.kind = 'action_attempt_started'))[1] AS worker_name,
			   (array_agg(e.mode) FILTER (WHERE e.kind = 'action_attempt_started'))[1] AS mode,
			   min(e.at) FILTER (WHERE e.kind = 'action_attempt_started') AS started_at,
			   min(e.event_id) FILTER (WHERE e.kind = 'action_attempt_started') AS arrival,
			   min(e.at) FILTER (WHERE e.ends) AS finished_at,
			   min(e.at) FILTER (WHERE e.ends AND e.reports) AS reported_at,
			   greatest(max(e.at) FILTER (WHERE e.reports), max(e.last_heartbeat_at)) AS last_sign_at,
			   greatest(max(e.at) FILTER (WHERE e.reports OR e.kind = 'action_duplicate_report'), max(e.last_heartbeat_at)) AS last_report_at,
			   count(*) FILTER (WHERE e.kind = 'action_duplicate_report') AS repeats,
			   max(e.at) FILTER (WHERE e.kind = 'action_duplicate_report') AS last_repeat_at,
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
			   (array_agg(e.kind ORDER BY e.at DESC, e.event_id DESC)
				FILTER (WHERE e.kind IN ('action_terminal', 'action_exhausted', 'action_cancelled', 'action_purged', 'action_suppressed',
										 'action_attempt_succeeded')))[1] AS final_kind,
			   max(e.detail ->> 'reason') FILTER (WHERE e.kind IN ('action_terminal', 'action_exhausted', 'action_cancelled')) AS stop_reason,
			   (array_agg(e.payload_digest) FILTER (WHERE e.payload_digest IS NOT NULL))[1] AS payload_digest
		FROM (SELECT v.subject, v.action_key, v.queue, v.job_id, v.idempotency_key, v.correlation_id, v.at
			  FROM holdfast.event_all v WHERE v.attempt_number = 1 AND v.kind = 'action_attempt_started') f
		JOIN (SELECT v.*, v.lease_id IS NOT NULL
					 AND (v.kind IN ('action_attempt_succeeded', 'action_attempt_failed', 'action_attempt_lost', 'action_snoozed',
									 'action_released', 'action_cancelled', 'action_purged')
						  OR v.kind = 'action_reconciled' AND v.detail ->> 'outcome' IN ('done', 'retry', 'dead')) AS ends,
					 v.lease_id IS NOT NULL
					 AND (v.kind IN ('action_attempt_succeeded', 'action_attempt_failed', 'action_snoozed', 'action_released',
									 'action_reconciled', 'action_stale_report', 'action_ledger_changed')
						  OR v.kind = 'action_duplicate_report' AND v.detail ->> 'outcome' = 'conflict'
						  OR v.kind = 'action_cancelled' AND v.detail ->> 'by' IS NULL) AS reports
			  FROM holdfast.event_all v
			  WHERE v.attempt_number > 0) e ON e.job_id = f.job_id AND e.at >= f.at
		GROUP BY f.subject, f.action_key, f.queue, f.job_id, f.idempotency_key, f.correlation_id, e.attempt_number
	) a
	WHERE a.started_at IS NOT NULL;
COMMENT ON VIEW holdfast.native_attempt IS 'internal: one row per attempt under holdfast, from its events, whosoever asks';

-- The columns of attempt, in its order.
CREATE VIEW holdfast.foreign_attempt AS
	SELECT r.source, r.job_id, NULL::text COLLATE "C" AS queue, r.attempt_number,
		   CASE WHEN r.attempt_number > 1 THEN r.attempt_number - 1 END AS previous_attempt,
		   r.lease_id, r.idempotency_key, r.correlation_id, r.subject, r.action_key, r.scope, r.intent_version, r.worker_name,
		   NULL::text COLLATE "C" AS mode,
		   r.started_at, r.finished_at, r.last_report_at, r.lease_expires_at,
		   coalesce(greatest(CASE WHEN r.outcome = 'lost' THEN NULL ELSE r.finished_at END, r.last_report_at), r.lease_expires_at) AS ended_at,
		   coalesce(CASE WHEN r.outcome = 'lost' THEN NULL ELSE r.finished_at END, r.lease_expires_at, r.last_report_at) AS closed_at,
		   r.outcome, r.worker_result, r.side_effect_state, r.exception_class, r.message,
		   r.timeout_kind, r.timeout_ms, r.timeout_limit_ms, r.elapsed_ms,
		   r.next_not_before, r.retry_policy, r.delay_ms, NULL::bigint AS jitter_ms, r.failures, r.max_attempts,
		   r.redriven, r.final, NULL::text COLLATE "C" AS final_kind, r.stop_reason, r.payload_digest, r.synthetic_lease,
		   0::bigint AS repeats, NULL::timestamptz AS last_repeat_at, r.record_id AS arrival
	FROM holdfast.attempt_record r;
COMMENT ON VIEW holdfast.foreign_attempt IS 'internal: the attempts of watched tables and imported ones, whosoever asks';

CREATE VIEW holdfast.own_attempt WITH (security_barrier) AS
	SELECT 'native'::text COLLATE "C" AS source,
		   a.job_id::text COLLATE "C" AS job_id,
		   q.queue_name AS queue,
		   a.attempt_number,
		   CASE WHEN a.attempt_number > 1 THEN a.attempt_number - 1 END AS previous_attempt,
		   a.lease_id::text COLLATE "C" AS lease_id,
		   a.idempotency_key::text COLLATE "C" AS idempotency_key,
		   a.correlation_id, a.subject, a.action_key, a.scope, a.intent_version, a.worker_name, a.mode,
		   a.started_at, a.finished_at, a.last_report_at, a.lease_expires_at,
		   coalesce(a.last_sign_at, a.lease_expires_at) AS ended_at,
		   coalesce(a.reported_at, a.lease_expires_at, a.last_sign_at) AS closed_at,
		   CASE a.worker_result WHEN 'landed' THEN 'succeeded' WHEN 'not_landed' THEN 'failed' WHEN 'undetermined' THEN 'released'
				ELSE a.worker_result END AS outcome,
		   a.worker_result, a.side_effect_state, a.exception_class, a.message,
		   a.timeout_kind, a.timeout_ms, a.timeout_limit_ms, a.elapsed_ms,
		   a.next_not_before, a.retry_policy, a.delay_ms, a.jitter_ms, a.failures, a.max_attempts,
		   a.redriven, a.final, a.final_kind, a.stop_reason, a.payload_digest,
		   false AS synthetic_lease, a.repeats, a.last_repeat_at, a.arrival
	FROM holdfast.native_attempt a
	LEFT JOIN holdfast.queue q ON q.queue_id = a.queue
	WHERE (SELECT holdfast.is_granted(0, 'reader'))
	   OR a.queue IN (SELECT g.queue_id FROM holdfast.queue g WHERE holdfast.is_granted(g.queue_id, 'reader'));
COMMENT ON VIEW holdfast.own_attempt IS 'internal: the native attempts of the queues granted to the caller';

CREATE VIEW holdfast.attempt WITH (security_barrier) AS
	SELECT o.* FROM holdfast.own_attempt o
	UNION ALL
	SELECT f.* FROM holdfast.foreign_attempt f
	WHERE (SELECT holdfast.is_granted(0, 'reader'));		-- no queue has the number 0: for the owner
COMMENT ON VIEW holdfast.attempt IS
	'one row per attempt: native ones, of the queues granted to the caller, and for the owner those of watched tables and imports; '
	'a condition on subject is answered by an index';
COMMENT ON COLUMN holdfast.attempt.finished_at IS 'its report; of a native attempt that nobody reported, when its loss was noticed';
COMMENT ON COLUMN holdfast.attempt.last_report_at IS 'the latest sign of life under its lease: reports, stale ones, heartbeats, ledger writes';
COMMENT ON COLUMN holdfast.attempt.ended_at IS 'the last sign of life, else the end of its lease; null: not on record';
COMMENT ON COLUMN holdfast.attempt.closed_at IS 'its own report, else the end of its lease, else the last sign of life; a delay counts from here';
COMMENT ON COLUMN holdfast.attempt.redriven IS 'an operator put the job back after this attempt';
COMMENT ON COLUMN holdfast.attempt.stop_reason IS 'why the job ended with this attempt';
COMMENT ON COLUMN holdfast.attempt.final_kind IS 'of a native attempt: the event that ended its job';
COMMENT ON COLUMN holdfast.attempt.repeats IS 'how often its end was reported again under its lease';
COMMENT ON COLUMN holdfast.attempt.arrival IS 'orders attempts of one source that nothing else orders';

CREATE FUNCTION holdfast.normalized_message(message text) RETURNS text
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'holdfast_normalized_message';
COMMENT ON FUNCTION holdfast.normalized_message(text) IS
	'a message with its numbers, ids, addresses and times as #; docs/forensics.md has the rules';

CREATE FUNCTION holdfast.error_digest(exception_class text, message text) RETURNS uuid
LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'holdfast_error_digest';
COMMENT ON FUNCTION holdfast.error_digest(text, text) IS
	'the same for two failures of one class whose normalized messages are equal; null without class and message';

CREATE VIEW holdfast.fingerprint WITH (security_barrier) AS
	SELECT a.source, a.job_id, a.attempt_number, a.lease_id, a.subject, a.action_key, a.worker_name, a.mode, a.idempotency_key,
		   a.started_at, a.finished_at, a.next_not_before,
		   coalesce(a.elapsed_ms, ((extract(epoch FROM a.finished_at) - extract(epoch FROM a.started_at)) * 1000)::bigint) AS elapsed_ms,
		   a.timeout_ms, a.outcome, a.exception_class, holdfast.normalized_message(a.message) AS normalized_message,
		   holdfast.error_digest(a.exception_class, a.message) AS error_digest, a.payload_digest
	FROM holdfast.attempt a;
COMMENT ON VIEW holdfast.fingerprint IS 'what tells an attempt from another, and its failure from another, one row per attempt';
