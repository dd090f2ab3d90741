/* Why a job stopped, or what it waits for. */

CREATE FUNCTION holdfast.policy_figure(retry_policy text, figure text) RETURNS bigint
LANGUAGE C STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'holdfast_policy_figure';
COMMENT ON FUNCTION holdfast.policy_figure(text, text) IS
	'internal: max_attempts | max_lost | reconcile_max | reconcile_ms of a policy; of "default" where it is null or not one of this database';

CREATE FUNCTION holdfast.class_disposition(retry_policy text, error_class text) RETURNS text
LANGUAGE C STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'holdfast_class_disposition';
COMMENT ON FUNCTION holdfast.class_disposition(text, text) IS
	'internal: what an error class means under a policy: retry | terminal | honor_reset | suppress; null for no class';

CREATE FUNCTION holdfast.budget_end(retry_policy text, job_id bigint, failures integer, max_attempts integer, since timestamptz)
RETURNS timestamptz
LANGUAGE C STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'holdfast_budget_end';
COMMENT ON FUNCTION holdfast.budget_end(text, bigint, integer, integer, timestamptz) IS
	'internal: when the budget is used up, if the next attempt begins at "since" and every one fails at once';

/*
 * What is known of each job, whether it is live, dead, gone or another
 * queue's: its last attempt, if it had one, and its row, if it has one.  Jobs
 * without an attempt come from the tables, and, if they are gone, from the
 * event of their end.
 */
CREATE VIEW holdfast.job_state WITH (security_barrier) AS
	SELECT l.source, l.job_id, l.queue, l.subject, l.action_key,
		   CASE WHEN j.job_id IS NOT NULL THEN 'live' WHEN d.job_id IS NOT NULL THEN 'dead' WHEN l.source = 'native' THEN 'gone'
				WHEN l.outcome IN ('succeeded', 'cancelled') OR l.final THEN 'final'
				WHEN l.outcome IS NULL THEN 'open'
				WHEN l.final IS NULL AND l.next_not_before IS NULL AND l.outcome IN ('failed', 'timeout', 'lost') THEN 'final'
				ELSE 'waiting' END AS state,
		   j.job_id AS live_id,
		   l.attempt_number, l.outcome, l.exception_class, l.message, l.timeout_kind, l.timeout_ms, l.timeout_limit_ms, l.elapsed_ms,
		   l.side_effect_state, l.started_at, l.ended_at, coalesce(d.ended_at, l.finished_at, l.ended_at, l.started_at) AS stopped_at,
		   coalesce(j.lease_expires_at, l.lease_expires_at) AS lease_expires_at,
		   coalesce(j.worker_name, l.worker_name) AS worker_name,
		   CASE WHEN j.job_id IS NOT NULL THEN j.run_after WHEN d.job_id IS NULL THEN l.next_not_before END AS next_not_before,
		   coalesce(j.retry_policy, d.retry_policy, l.retry_policy, q.retry_policy) AS retry_policy,
		   coalesce(j.failures, d.failures, l.failures, CASE WHEN l.source <> 'native' THEN l.attempt_number END) AS failures,
		   coalesce(j.max_attempts, d.max_attempts, l.max_attempts, q.max_attempts) AS max_attempts,
		   coalesce(d.reason, l.stop_reason) AS stop_reason, l.final_kind,
		   coalesce(j.give_up_at, d.give_up_at) AS give_up_at,
		   j.status, j.mode, j.stream, j.losses, j.reconciles, j.queue AS queue_id, j.started_at AS running_since
	FROM (SELECT DISTINCT ON (a.source, a.subject, a.action_key, a.job_id) a.*,
				 CASE WHEN a.source = 'native' THEN a.job_id::bigint END AS native_id
		  FROM holdfast.attempt a
		  ORDER BY a.source, a.subject, a.action_key, a.job_id, a.started_at DESC, a.attempt_number DESC NULLS FIRST, a.arrival DESC) l
	LEFT JOIN holdfast.job j ON j.job_id = l.native_id
	LEFT JOIN holdfast.dead_job d ON d.job_id = l.native_id
	LEFT JOIN holdfast.queue q ON q.queue_id = coalesce(j.queue, d.queue)
	UNION ALL
	SELECT 'native', j.job_id::text, q.queue_name, j.subject, j.action_key, 'live', j.job_id,
		   NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, j.run_after,
		   coalesce(j.retry_policy, q.retry_policy), 0, coalesce(j.max_attempts, q.max_attempts), NULL, NULL, j.give_up_at,
		   j.status, j.mode, j.stream, j.losses, j.reconciles, j.queue, NULL
	FROM holdfast.job j JOIN holdfast.queue q ON q.queue_id = j.queue
	WHERE j.attempt_number = 0 AND holdfast.is_granted(j.queue, 'reader')
	UNION ALL
	SELECT 'native', d.job_id::text, q.queue_name, d.subject, d.action_key, 'dead', NULL,
		   NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, d.ended_at, NULL, NULL, NULL,
		   coalesce(d.retry_policy, q.retry_policy), 0, coalesce(d.max_attempts, q.max_attempts), d.reason, NULL, d.give_up_at,
		   NULL, NULL, NULL, NULL, NULL, NULL, NULL
	FROM holdfast.dead_job d LEFT JOIN holdfast.queue q ON q.queue_id = d.queue
	WHERE d.attempt_number = 0 AND holdfast.is_granted(d.queue, 'reader')
	UNION ALL
	SELECT 'native', e.job_id::text, q.queue_name, e.subject, e.action_key, 'gone', NULL,
		   NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, e.side_effect_state, NULL, NULL, e.at, NULL, NULL, NULL,
		   NULL, 0, NULL, e.detail ->> 'reason', e.kind, NULL,
		   NULL, NULL, NULL, NULL, NULL, NULL, NULL
	FROM holdfast.event_all e LEFT JOIN holdfast.queue q ON q.queue_id = e.queue
	WHERE e.attempt_number = 0 AND e.kind IN ('action_cancelled', 'action_purged', 'action_suppressed')
	  AND holdfast.is_granted(e.queue, 'reader')
	  AND NOT EXISTS (SELECT FROM holdfast.dead_job d WHERE d.job_id = e.job_id);
COMMENT ON VIEW holdfast.job_state IS 'internal: what stop_reason is made of, a row per job';

-- The reason first; the sentence is made of it, and only where it is read.
CREATE VIEW holdfast.stop_reason WITH (security_barrier) AS
	SELECT s.source, s.job_id, s.queue, s.subject, s.action_key, s.reason, s.detail,
		   CASE s.reason
			WHEN 'succeeded' THEN format('%s succeeded at %s', s.which, s.stopped_at)
			WHEN 'suppressed' THEN format('at %s its effect was found to have landed already, by another job or attempt', s.stopped_at)
			WHEN 'cancelled' THEN format('%s%s at %s%s', s.which || ', ', CASE s.detail WHEN 'abandoned' THEN 'abandoned' ELSE 'cancelled' END,
				s.stopped_at, ': ' || s.stop_reason)
			WHEN 'terminal_policy_failure' THEN s.failure || CASE s.detail
				WHEN 'budget' THEN ': the budget is used up'
				WHEN 'class' THEN format(': class %s is %s under policy "%s"', s.exception_class, s.disposition, coalesce(s.retry_policy, 'default'))
				WHEN 'deadline' THEN coalesce(format(': past give_up_at, %s', s.give_up_at), ': past its deadline')
				WHEN 'crash_loop' THEN format(': %s leases were lost, as many as the policy allows', holdfast.policy_figure(s.retry_policy, 'max_lost'))
				ELSE format(': %s', CASE s.detail WHEN 'unresolved' THEN 'its effect stays unknown' ELSE s.detail END) END
			WHEN 'premature_stop' THEN format('%s: stopped by %s, with %s of %s attempts of its budget left', s.failure,
				coalesce(s.stop_reason, 'a condition not on record'), s.max_attempts - s.failures, s.max_attempts)
			WHEN 'unexplained_stop' THEN format('%s: %s, so whether the budget ended it cannot be told; stopped by %s', s.failure,
				CASE WHEN s.state = 'gone' THEN 'the job is gone, and its end is not on record'
					 WHEN s.max_attempts IS NULL THEN 'max_attempts is not on record' ELSE 'attempt_number is not on record' END,
				coalesce(s.stop_reason, 'a condition not on record'))
			WHEN 'in_flight' THEN format('%s is at work%s, lease %s', s.which, ' by ' || s.worker_name,
				coalesce('until ' || s.lease_expires_at, 'not on record'))
			WHEN 'stuck_lease' THEN format('the lease of %s ended at %s, %s ago, and nobody has reported or settled it', s.which, s.lease_expires_at,
				s.now - s.lease_expires_at)
			ELSE format('%s%s%s', coalesce(s.failure || ': ', 'not yet tried: '),
				CASE s.reason WHEN 'paused' THEN 'the queue is paused' || coalesce(' (' || s.pause_reason || ')', '')
							  WHEN 'parked' THEN format('stream "%s" is open', s.stream)
							  WHEN 'awaiting_reconcile' THEN 'its effect is unknown, and is looked for from ' || s.next_not_before
							  ELSE coalesce('not before ' || s.next_not_before, 'at a time not on record') END,
				'; ' || CASE s.first_stop
					WHEN 'budget' THEN format('first to stop it is the budget, after %s more failures, at %s at the earliest', s.attempts_left, s.budget_end)
					WHEN 'deadline' THEN format('first to stop it is give_up_at, %s, in %s', s.give_up_at, s.give_up_at - s.now)
					WHEN 'reconcile_max' THEN format('first to stop it is reconcile_max, after %s more attempts, at %s at the earliest',
						s.reconciles_left, s.reconcile_end)
					WHEN 'crash_loop' THEN format('first to stop it is max_lost, after %s more lost leases', s.losses_left) END)
		   END AS because,
		   s.attempt_number, s.failures, s.max_attempts, s.outcome, s.exception_class, s.stop_reason, s.retry_policy, s.started_at, s.stopped_at,
		   s.lease_expires_at, s.worker_name, s.next_not_before, s.stream, s.first_stop, s.attempts_left, s.budget_end, s.give_up_at,
		   s.give_up_at - s.now AS until_give_up, s.losses_left, s.reconciles_left
	FROM (
		SELECT x.*, r.reason, r.detail, q.pause_reason, c.now, c.disposition,
			   CASE WHEN x.attempt_number IS NULL THEN CASE WHEN x.started_at IS NULL THEN 'it' ELSE 'an attempt without a number' END
					ELSE 'attempt ' || x.attempt_number END AS which,
			   CASE WHEN x.started_at IS NOT NULL THEN
				format('failure %s of %s (attempt %s)', coalesce(x.failures::text, '?'), coalesce(x.max_attempts::text, '?'),
					   coalesce(x.attempt_number::text, '?')) END AS failure,
			   n.attempts_left, n.reconciles_left, n.losses_left, n.budget_end, n.reconcile_end,
			   CASE WHEN x.state <> 'live' THEN NULL
					WHEN x.mode = 'reconcile' THEN CASE WHEN n.losses_left < n.reconciles_left THEN 'crash_loop' ELSE 'reconcile_max' END
					WHEN x.give_up_at < n.budget_end OR n.budget_end IS NULL AND x.give_up_at IS NOT NULL THEN 'deadline'
					WHEN n.losses_left < n.attempts_left THEN 'crash_loop'
					ELSE 'budget' END AS first_stop
		FROM (SELECT j.source, j.job_id, j.queue, j.subject, j.action_key, j.state, j.live_id, j.attempt_number, j.outcome, j.exception_class,
					 j.started_at, j.stopped_at, j.lease_expires_at, j.worker_name, j.next_not_before, j.retry_policy, j.failures,
					 CASE WHEN j.source = 'native' AND j.state <> 'gone'
						  THEN coalesce(j.max_attempts, holdfast.policy_figure(j.retry_policy, 'max_attempts'))::integer
						  ELSE j.max_attempts END AS max_attempts,
					 j.stop_reason, j.final_kind, j.side_effect_state, j.give_up_at, j.status, j.mode, j.stream, j.losses, j.reconciles, j.queue_id
			  FROM holdfast.job_state j) x
		LEFT JOIN holdfast.queue q ON q.queue_id = x.queue_id
		LEFT JOIN holdfast.stream t ON t.queue = x.queue_id AND t.key = x.stream AND t.state <> 'closed'
		CROSS JOIN LATERAL (SELECT (SELECT holdfast.clock()) AS now, holdfast.class_disposition(x.retry_policy, x.exception_class) AS disposition) c
		CROSS JOIN LATERAL (SELECT x.max_attempts - x.failures AS attempts_left,
			(holdfast.policy_figure(x.retry_policy, 'reconcile_max') - x.reconciles)::integer AS reconciles_left,
			(holdfast.policy_figure(x.retry_policy, 'max_lost') - x.losses)::integer AS losses_left,
			CASE WHEN x.live_id IS NOT NULL
				 THEN holdfast.budget_end(x.retry_policy, x.live_id, x.failures, x.max_attempts, greatest(x.next_not_before, c.now)) END AS budget_end,
			greatest(x.next_not_before, c.now) + (holdfast.policy_figure(x.retry_policy, 'reconcile_max') - x.reconciles - 1)
				* holdfast.policy_figure(x.retry_policy, 'reconcile_ms') * interval '1 ms' AS reconcile_end) n
		CROSS JOIN LATERAL (SELECT
			CASE
				WHEN x.state = 'live' THEN CASE
					WHEN x.status = 'running' THEN CASE WHEN x.lease_expires_at > c.now THEN 'in_flight' ELSE 'stuck_lease' END
					WHEN q.paused THEN 'paused'
					WHEN t.key IS NOT NULL THEN 'parked'
					WHEN x.mode = 'reconcile' THEN 'awaiting_reconcile'
					WHEN x.outcome IN ('failed', 'timeout', 'lost') THEN 'awaiting_retry'
					ELSE 'scheduled' END
				WHEN x.state = 'open' THEN CASE WHEN x.lease_expires_at <= c.now THEN 'stuck_lease' ELSE 'in_flight' END
				WHEN x.state = 'waiting' THEN CASE WHEN x.outcome IN ('snoozed', 'released') THEN 'scheduled' ELSE 'awaiting_retry' END
				WHEN x.final_kind = 'action_suppressed' THEN 'suppressed'
				WHEN x.final_kind IN ('action_cancelled', 'action_purged') OR x.state = 'dead' AND x.stop_reason = 'abandoned' THEN 'cancelled'
				WHEN x.outcome = 'succeeded' OR x.final_kind = 'action_attempt_succeeded' OR x.state = 'gone' AND x.side_effect_state = 'committed' THEN 'succeeded'
				WHEN x.outcome = 'cancelled' THEN 'cancelled'
				WHEN x.state = 'gone' THEN 'unexplained_stop'
				WHEN x.failures >= x.max_attempts OR c.disposition IN ('terminal', 'suppress') OR x.stop_reason = 'deadline'
					 OR x.give_up_at <= x.stopped_at
					 OR x.state = 'dead' AND x.stop_reason IN ('budget', 'terminal', 'crash_loop', 'unresolved') THEN 'terminal_policy_failure'
				WHEN x.max_attempts IS NULL OR x.failures IS NULL THEN 'unexplained_stop'
				ELSE 'premature_stop' END AS reason,
			CASE
				WHEN x.state IN ('live', 'open', 'waiting') THEN NULL
				WHEN x.state = 'dead' AND x.stop_reason = 'abandoned' THEN 'abandoned'
				WHEN x.final_kind = 'action_purged' THEN 'purged'
				WHEN x.final_kind IN ('action_suppressed', 'action_cancelled', 'action_attempt_succeeded') OR x.outcome IN ('succeeded', 'cancelled')
					 OR x.state = 'gone' THEN NULL
				WHEN x.failures >= x.max_attempts THEN 'budget'
				WHEN c.disposition IN ('terminal', 'suppress') THEN 'class'
				WHEN x.stop_reason = 'deadline' OR x.give_up_at <= x.stopped_at THEN 'deadline'
				ELSE x.stop_reason END AS detail) r
	) s;
COMMENT ON VIEW holdfast.stop_reason IS
	'why each job ended, or what it waits for, and what will stop it first; docs/forensics.md has the rules';
COMMENT ON COLUMN holdfast.stop_reason.detail IS 'of a terminal failure: budget, class, deadline, crash_loop or unresolved; else the recorded stop reason';
COMMENT ON COLUMN holdfast.stop_reason.first_stop IS 'of a live job: budget, deadline, reconcile_max or crash_loop, whichever would end it first';
COMMENT ON COLUMN holdfast.stop_reason.budget_end IS 'when the budget would be used up, if every attempt failed at once';
