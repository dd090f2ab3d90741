/* What is going on, in a terminal. */

CREATE FUNCTION holdfast.latest_events(since timestamptz) RETURNS SETOF holdfast.event
LANGUAGE C STABLE PARALLEL UNSAFE ROWS 1000 AS 'MODULE_PATHNAME', 'holdfast_latest_events';
COMMENT ON FUNCTION holdfast.latest_events(timestamptz) IS
	'the events since then, of the queues that the caller may read, as far as they lie in the latest 256 blocks of their day; '
	'for readers';

CREATE FUNCTION holdfast.budget(max_attempts integer, retry_policy text, queue integer) RETURNS integer
LANGUAGE C STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'holdfast_budget';
COMMENT ON FUNCTION holdfast.budget(integer, text, integer) IS
	'the m of "failure f of m": a job''s own max_attempts, else that of the queue with this number, else its policy''s; for readers';

CREATE VIEW holdfast.ps WITH (security_barrier) AS
	SELECT v.queue, v.what, v.name, v.state, v.progress, v.worker, v.time, v.note
	FROM (
		SELECT q.queue_name AS queue, 'stream'::text AS what, s.key AS name, s.state AS state,
			   format('%s of %s ended in failure', s.consecutive_terminal, s.threshold) AS progress, NULL::text AS worker,
			   CASE s.state WHEN 'closed' THEN 'closed ' || holdfast.how_long(s.closed_at, c.now)
							ELSE format('cool-down %s %s', CASE WHEN s.cool_down_ends > c.now THEN 'ends' ELSE 'ended' END, holdfast.how_long(s.cool_down_ends, c.now)) END AS time,
			   CASE WHEN s.trial_job_id IS NOT NULL THEN format('job %s is on trial', s.trial_job_id) END AS note,
			   CASE s.state WHEN 'closed' THEN 8 ELSE 0 END AS rank, s.opened_at AS at
		FROM holdfast.clock() c (now), holdfast.stream s JOIN holdfast.queue q ON q.queue_id = s.queue
		WHERE holdfast.is_granted(s.queue, 'reader')
		UNION ALL
		SELECT q.queue_name, j.action_key || ' for ' || j.subject, j.job_id::text,
			   CASE WHEN j.status = 'running' THEN CASE WHEN j.lease_expires_at <= c.now THEN 'stuck lease' ELSE 'running' END
					WHEN q.paused THEN 'paused'
					WHEN j.parked_from IS NOT NULL AND j.run_after > c.now THEN 'parked'
					WHEN j.run_after <= c.now THEN 'due'
					WHEN j.attempt_number = 0 THEN 'scheduled'
					WHEN j.mode = 'reconcile' THEN 'awaiting reconcile'
					ELSE 'awaiting retry' END,
			   format('failure %s of %s (attempt %s)', j.failures, holdfast.budget(j.max_attempts, j.retry_policy, j.queue), j.attempt_number),
			   j.worker_name,
			   CASE WHEN j.status = 'running' THEN format('since %s, lease %s %s', holdfast.span(j.started_at, c.now),
							CASE WHEN j.lease_expires_at > c.now THEN 'ends' ELSE 'ended' END, holdfast.how_long(j.lease_expires_at, c.now))
					ELSE holdfast.how_long(j.run_after, c.now) END,
			   nullif(concat_ws('; ', CASE WHEN j.mode = 'reconcile' THEN 'effect unknown' END, CASE WHEN j.cancel_requested_at IS NOT NULL THEN 'to be cancelled' END,
						 'last: ' || j.last_error_class), ''),
			   CASE WHEN j.status = 'running' THEN 1 WHEN j.run_after <= c.now THEN 2 ELSE 3 END,
			   CASE WHEN j.status = 'running' THEN j.started_at ELSE j.run_after END
		FROM holdfast.clock() c (now), holdfast.job j JOIN holdfast.queue q ON q.queue_id = j.queue
		WHERE holdfast.is_granted(j.queue, 'reader')
		UNION ALL
		SELECT q.queue_name, d.action_key || ' for ' || d.subject, d.job_id::text, 'dead: ' || d.reason,
			   format('failure %s of %s (attempt %s)', d.failures, holdfast.budget(d.max_attempts, d.retry_policy, d.queue), d.attempt_number),
			   NULL, holdfast.how_long(d.ended_at, c.now), 'last: ' || d.last_error_class, 4, d.ended_at
		FROM holdfast.clock() c (now), holdfast.queue q JOIN holdfast.dead_job d ON d.queue = q.queue_id
		WHERE holdfast.is_granted(q.queue_id, 'reader') AND d.ended_at > c.now - interval '15 min'
		UNION ALL
		SELECT q.queue_name, e.action_key || ' for ' || e.subject, e.job_id::text, e.state, format('attempt %s', e.attempt_number), e.worker_name,
			   holdfast.how_long(e.at, e.now), e.detail ->> 'reason', 5, e.at
		FROM (SELECT DISTINCT ON (x.job_id) x.*, c.now,
					 CASE x.kind WHEN 'action_suppressed' THEN 'suppressed' WHEN 'action_cancelled' THEN 'cancelled' WHEN 'action_purged' THEN 'purged' ELSE 'succeeded' END AS state
			  FROM holdfast.clock() c (now), LATERAL holdfast.latest_events(c.now - interval '15 min') x
			  WHERE x.kind IN ('action_attempt_succeeded', 'action_suppressed', 'action_cancelled', 'action_purged')
				 OR x.kind = 'action_reconciled' AND x.detail ->> 'outcome' = 'done'
			  ORDER BY x.job_id, x.at DESC, x.event_id DESC) e
		JOIN holdfast.queue q ON q.queue_id = e.queue
		WHERE NOT EXISTS (SELECT FROM holdfast.job j WHERE j.job_id = e.job_id) AND NOT EXISTS (SELECT FROM holdfast.dead_job d WHERE d.job_id = e.job_id)
	) v
	ORDER BY v.queue, v.rank, v.at, v.name;
COMMENT ON VIEW holdfast.ps IS
	'a line for each stream, live job and job that ended in the last 15 minutes (of those that succeeded: the latest thousands); '
	'rows of the queues that the caller may read';
COMMENT ON COLUMN holdfast.ps.what IS 'stream, or action and subject of the job';
COMMENT ON COLUMN holdfast.ps.name IS 'the stream''s name, the job''s number';
