/* One job, explained. */

CREATE TYPE holdfast.explanation AS (
	fact				text,
	value				text,
	because				text
);
COMMENT ON TYPE holdfast.explanation IS 'a fact about a job: the summary first, in sentences';

-- The policy that a job is under now, as the engine looks it up: job, queue, default.
CREATE FUNCTION holdfast.policy_in_force(job_policy text, queue integer) RETURNS holdfast.retry_policy_entry
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT p FROM holdfast.list_retry_policies() p
	WHERE p.policy_name IN (coalesce($1, (SELECT q.retry_policy FROM holdfast.queue q WHERE q.queue_id = $2)), 'default')
	ORDER BY p.policy_name = 'default' LIMIT 1
$$;
COMMENT ON FUNCTION holdfast.policy_in_force(text, integer) IS 'internal: the retry policy of a job, by its own and its queue''s setting';

-- Why the next run is when it is, from the decision that set it.
CREATE FUNCTION holdfast.why_then(e holdfast.event, policy holdfast.retry_policy_entry) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET intervalstyle = 'postgres' AS $$
	SELECT CASE
		WHEN e.event_id IS NULL THEN 'the time that enqueue was given'
		WHEN e.kind = 'action_retry_scheduled' AND e.jitter_ms IS NOT NULL AND e.detail ->> 'because' NOT LIKE '%, as asked%' THEN
			format('policy %s after failure %s: %s, of which jitter %s, counted from %s%s', e.retry_policy, e.failures,
				holdfast.span(e.delay_ms), holdfast.span(e.jitter_ms), to_char(e.at, 'HH24:MI:SS.MS'),
				CASE WHEN policy.policy_name = e.retry_policy
					 THEN format(' (base %s x %s^%s, at most %s, jitter below %s)', policy.base_delay, policy.backoff_rate,
								 greatest(e.failures - 1, 0), policy.max_delay, policy.jitter_window) ELSE '' END)
		WHEN e.kind = 'action_reconciled' AND e.lease_id IS NOT NULL AND e.next_not_before IS NOT NULL THEN
			format('attempt %s asked, and the answer was %s: asked again %s later', e.attempt_number, e.worker_result, holdfast.span(e.at, e.next_not_before))
		ELSE coalesce(e.detail ->> 'because', replace(regexp_replace(e.kind, '^action_', ''), '_', ' ') || coalesce(' by ' || (e.detail ->> 'by') || ': ' || (e.detail ->> 'reason'), ''))
	END
$$;
COMMENT ON FUNCTION holdfast.why_then(holdfast.event, holdfast.retry_policy_entry) IS 'internal: which decision chose the next run, with its figures';

CREATE FUNCTION holdfast.explain_of(job_id bigint, known boolean) RETURNS SETOF holdfast.explanation
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
#variable_conflict use_column
DECLARE
	now			CONSTANT timestamptz := holdfast.clock();
	j			holdfast.job;			-- live or dead
	dead		holdfast.dead_job;
	q			holdfast.queue;
	s			holdfast.stream;
	l			holdfast.ledger;
	policy		holdfast.retry_policy_entry;
	ended		holdfast.event;			-- of a job that is gone
	failed		holdfast.event;			-- the last attempt's failure
	decided		holdfast.event;			-- what chose the next run
	budget		integer;
	budget_by	text;
	state		text;
	live		boolean;
	summary		text[] := '{}';
	can			text[] := '{}';
	events		CONSTANT holdfast.event[] := ARRAY(SELECT e FROM holdfast.events_of(NULL, NULL, explain_of.job_id, NULL, NULL, NULL, NULL) e);
BEGIN
	SELECT * INTO j FROM holdfast.job o WHERE o.job_id = explain_of.job_id;
	live := FOUND;
	IF NOT live THEN
		SELECT * INTO dead FROM holdfast.dead_job o WHERE o.job_id = explain_of.job_id;
		IF FOUND THEN
			dead.payload := '{}';	-- it may be large
			SELECT o.* INTO j FROM jsonb_populate_record(NULL::holdfast.job, to_jsonb(dead)) o;
		END IF;
	END IF;
	SELECT * INTO ended FROM unnest(events) e
		WHERE e.kind NOT IN ('action_stale_report', 'action_duplicate_report', 'action_duplicate_enqueue', 'action_violation')
		ORDER BY e.attempt_number DESC, e.at DESC, e.event_id DESC LIMIT 1;
	IF NOT explain_of.known OR (j.job_id IS NULL AND ended.event_id IS NULL) THEN
		RETURN NEXT ('summary', format('Job %s is not known.', explain_of.job_id),
			'it never was, or is in a queue not granted to you, or its evidence is past retention')::holdfast.explanation;
		RETURN;
	END IF;
	SELECT * INTO failed FROM unnest(events) e
		WHERE e.kind IN ('action_attempt_failed', 'action_attempt_lost') ORDER BY e.attempt_number DESC, e.at DESC, e.event_id DESC LIMIT 1;
	SELECT * INTO decided FROM unnest(events) e
		WHERE e.next_not_before IS NOT NULL ORDER BY e.attempt_number DESC, e.at DESC, e.event_id DESC LIMIT 1;
	SELECT * INTO q FROM holdfast.queue o WHERE o.queue_id = coalesce(j.queue, ended.queue);
	SELECT * INTO l FROM holdfast.ledger o WHERE o.idempotency_key = coalesce(j.idempotency_key, ended.idempotency_key);
	SELECT * INTO s FROM holdfast.stream o WHERE o.queue = j.queue AND o.key = j.stream;
	policy := holdfast.policy_in_force(j.retry_policy, coalesce(j.queue, ended.queue));
	budget := holdfast.budget(j.max_attempts, j.retry_policy, coalesce(j.queue, ended.queue));
	budget_by := CASE WHEN j.max_attempts IS NOT NULL THEN 'the job''s own' WHEN q.max_attempts IS NOT NULL THEN 'queue ' || q.queue_name ELSE 'policy ' || policy.policy_name END;

	-- state
	state := CASE
		WHEN live AND j.status = 'running' AND j.lease_expires_at <= now THEN 'running, its lease is over'
		WHEN live AND j.status = 'running' THEN 'running'
		WHEN live AND q.paused THEN 'waiting, the queue is paused'
		WHEN live AND j.parked_from IS NOT NULL AND j.run_after > now THEN 'parked by its stream'
		WHEN live AND j.run_after > now AND j.attempt_number = 0 THEN 'scheduled'
		WHEN live AND j.run_after > now THEN CASE j.mode WHEN 'reconcile' THEN 'awaiting reconcile' ELSE 'awaiting retry' END
		WHEN live THEN 'due'
		WHEN dead.job_id IS NOT NULL THEN 'dead: ' || dead.reason
		WHEN ended.kind IN ('action_attempt_succeeded', 'action_reconciled') THEN 'succeeded'
		WHEN ended.kind = 'action_suppressed' THEN 'suppressed'
		WHEN ended.kind IN ('action_cancelled', 'action_purged') THEN regexp_replace(ended.kind, '^action_', '')
		ELSE 'gone' END;
	summary := summary || format('Job %s, %s for %s in queue %s: %s.', explain_of.job_id, coalesce(j.action_key, ended.action_key),
		coalesce(j.subject, ended.subject), coalesce(q.queue_name, '(dropped)'), state);
	IF live AND j.status = 'running' THEN
		summary := summary || format('Worker %s holds it in mode %s, attempt %s, since %s; its lease %s.', j.worker_name, j.mode, j.attempt_number,
			to_char(j.started_at, 'HH24:MI:SS.MS'), CASE WHEN j.lease_expires_at > now THEN 'ends ' ELSE 'ended ' END || holdfast.how_long(j.lease_expires_at, now));
	ELSIF live THEN
		summary := summary || CASE WHEN q.paused THEN format('Nothing is handed out: %s.', coalesce(q.pause_reason, 'no reason was given'))
			WHEN j.run_after > now THEN format('It runs again %s in mode %s, not before %s.', holdfast.how_long(j.run_after, now), j.mode, to_char(j.run_after, 'YYYY-MM-DD HH24:MI:SS.MS'))
			ELSE format('Any worker that claims mode %s may have it now; it has been due for %s.', j.mode, holdfast.span(j.run_after, now)) END;
	END IF;
	IF failed.event_id IS NOT NULL THEN
		summary := summary || format('The last failure was %s.', holdfast.error_summary(failed.exception_class, failed.message,
			failed.worker_result = 'timeout', failed.timeout_kind, failed.timeout_limit_ms, failed.timeout_ms, failed.elapsed_ms));
	END IF;
	IF l.state IS NOT NULL THEN
		summary := summary || CASE l.state WHEN 'unknown' THEN 'Whether its side effect landed is not known, so it is looked into and never blindly repeated.'
			WHEN 'committed' THEN 'Its side effect has landed.' WHEN 'started' THEN 'Its side effect may be under way.'
			ELSE 'Its side effect has not landed.' END;
	END IF;
	RETURN QUERY SELECT 'summary'::text, t, NULL::text FROM unnest(summary) t;
	RETURN NEXT ('state', state, CASE WHEN live THEN NULL
		WHEN dead.job_id IS NOT NULL THEN coalesce(ended.detail ->> 'because', ended.detail ->> 'reason') || ', ' || holdfast.how_long(dead.ended_at, now)
		ELSE concat_ws(', ', ended.detail ->> 'because', ended.detail ->> 'reason', holdfast.how_long(ended.at, now)) END)::holdfast.explanation;
	IF live AND j.status = 'running' THEN
		RETURN NEXT ('held by', j.worker_name, format('lease %s until %s, %s%s%s', left(j.lease_id::text, 8), to_char(j.lease_expires_at, 'HH24:MI:SS.MS'),
			holdfast.how_long(j.lease_expires_at, now), coalesce('; last heartbeat ' || holdfast.how_long(j.last_heartbeat_at, now), ''),
			CASE WHEN j.cancel_requested_at IS NOT NULL THEN '; to end: cancellation was requested' ELSE '' END))::holdfast.explanation;
	END IF;
	IF j.job_id IS NOT NULL THEN
		RETURN NEXT ('budget', format('failure %s of %s (attempt %s)', j.failures, budget, j.attempt_number), format('max_attempts %s is %s; %s left', budget, budget_by, greatest(budget - j.failures, 0)))::holdfast.explanation;
	ELSE
		RETURN NEXT ('budget', format('failure %s of %s (attempt %s)', coalesce(failed.failures, 0), coalesce(failed.max_attempts, budget), ended.attempt_number), NULL)::holdfast.explanation;
	END IF;
	IF failed.event_id IS NOT NULL THEN
		RETURN NEXT ('last error', holdfast.error_summary(failed.exception_class, NULL, failed.worker_result = 'timeout', failed.timeout_kind,
				failed.timeout_limit_ms, failed.timeout_ms, failed.elapsed_ms),
			concat_ws(', ', format('attempt %s by %s, %s', failed.attempt_number, failed.worker_name, holdfast.how_long(failed.at, now)), left(failed.message, 200)))::holdfast.explanation;
	END IF;
	IF l.state IS NOT NULL THEN
		RETURN NEXT ('ledger', l.state, format('since %s%s', to_char(l.changed_at, 'YYYY-MM-DD HH24:MI:SS.MS'), coalesce('; evidence ' || left(l.evidence::text, 200), '')))::holdfast.explanation;
		RETURN QUERY SELECT 'effect ' || c.effect, c.state, format('since %s', to_char(c.changed_at, 'YYYY-MM-DD HH24:MI:SS.MS')) FROM holdfast.ledger c WHERE c.parent_key = l.idempotency_key ORDER BY c.effect;
	ELSE
		RETURN NEXT ('ledger', 'none', 'the job was enqueued without side effects, or its row is past ledger_retention')::holdfast.explanation;
	END IF;
	IF live AND j.status = 'pending' THEN
		RETURN NEXT ('next run', format('%s, %s, mode %s', to_char(j.run_after, 'YYYY-MM-DD HH24:MI:SS.MS'), holdfast.how_long(j.run_after, now), j.mode),
			holdfast.why_then(CASE WHEN decided.next_not_before = j.run_after THEN decided ELSE ended END, policy))::holdfast.explanation;
	END IF;
	IF s.key IS NOT NULL THEN
		RETURN NEXT ('stream', format('%s: %s', s.key, s.state), format('%s of %s jobs in a row ended in failure%s', s.consecutive_terminal, s.threshold,
			CASE s.state WHEN 'open' THEN format('; the cool-down %s %s', CASE WHEN s.cool_down_ends > now THEN 'ends' ELSE 'ended' END, holdfast.how_long(s.cool_down_ends, now))
						 WHEN 'trial' THEN format('; job %s is on trial', s.trial_job_id) ELSE '' END))::holdfast.explanation;
	END IF;

	-- what would stop it, the nearest first
	IF live THEN
		RETURN QUERY SELECT 'would stop it'::text, v.condition, v.how_far FROM (VALUES
			(CASE WHEN j.cancel_requested_at IS NOT NULL THEN 0 END, 'the cancellation', 'at its next report, or its lease''s end'),
			(CASE WHEN j.mode = 'execute' THEN budget - j.failures END, 'its budget', format('%s more failures, of %s', greatest(budget - j.failures, 0), budget)),
			(CASE WHEN j.mode = 'reconcile' THEN policy.reconcile_max - j.reconciles END, 'reconcile_max', format('%s more attempts to find out that fail, of %s', greatest(policy.reconcile_max - j.reconciles, 0), policy.reconcile_max)),
			(CASE WHEN j.mode = 'execute' THEN policy.max_lost - j.losses END, 'lost leases (max_lost)', format('%s more, of %s', greatest(policy.max_lost - j.losses, 0), policy.max_lost)),
			(CASE WHEN j.mode = 'execute' AND j.give_up_at IS NOT NULL THEN 0 END, 'its deadline', format('give_up_at %s, %s', to_char(j.give_up_at, 'YYYY-MM-DD HH24:MI:SS.MS'), holdfast.how_long(j.give_up_at, now))),
			(CASE WHEN j.mode = 'execute' THEN 1000000 END, 'an error class that is terminal', format('the rules of policy %s', policy.policy_name))
		) AS v (rank, condition, how_far) WHERE v.rank IS NOT NULL ORDER BY v.rank;
	END IF;

	-- what an operator can do now
	can := CASE
		WHEN live AND j.status = 'running' AND j.lease_expires_at <= now THEN ARRAY['wait for the next claim or maintain(), which settles the lease: call maintain() if nobody does']
		WHEN live THEN ARRAY[format('cancel(%s, reason)%s', explain_of.job_id, CASE WHEN j.status = 'running' THEN ', at its next report; force => true: now, its effect unknown' ELSE '' END)]
		WHEN dead.job_id IS NOT NULL AND q.queue_id IS NULL THEN ARRAY['nothing: the queue was dropped']
		WHEN dead.job_id IS NOT NULL AND (l.state IS NULL OR l.state <> 'committed')
			THEN ARRAY[format('redrive(%s, reason)%s', explain_of.job_id, CASE WHEN l.state = 'unknown' THEN ', which looks into the effect first' ELSE ', once its cause is gone' END)]
		ELSE ARRAY['nothing: it has ended'] END;
	IF l.state = 'unknown' AND NOT (live AND j.status = 'running') THEN
		can := can || format('settle_unknown(''%s'', ''landed'' | ''not_landed'' | ''abandoned'', evidence, reason), if you know what happened', l.idempotency_key);
	END IF;
	IF s.state IN ('open', 'trial') AND live THEN
		can := can || format('resume_stream(%L, %L, reason), if the outage is over', q.queue_name, s.key);
	END IF;
	IF q.paused AND live THEN
		can := can || format('resume_queue(%L, reason)', q.queue_name);
	END IF;
	RETURN QUERY SELECT 'operator can'::text, c, NULL::text FROM unnest(can) c;
END
$$;
COMMENT ON FUNCTION holdfast.explain_of(bigint, boolean) IS 'internal: the facts behind explain(), which checks who asks, and so whether the job is known to them';

CREATE FUNCTION holdfast.explain(job_id bigint) RETURNS SETOF holdfast.explanation
LANGUAGE C STABLE PARALLEL UNSAFE ROWS 15 AS 'MODULE_PATHNAME', 'holdfast_explain';
COMMENT ON FUNCTION holdfast.explain(bigint) IS
	'a job in a few sentences, and a row per fact: its state and why, who holds it until when, failure f of m (attempt n) and '
	'whose budget, the last error with its figures, the ledger, the next run and what chose it, what would stop it, nearest '
	'first, and what an operator can do now; for readers of its queue';
