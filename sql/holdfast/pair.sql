/* Any two attempts that belong together, and the verdict on them. */

CREATE TYPE holdfast.pair AS (
	job_id_a			text,
	attempt_number_a	integer,
	lease_id_a			text,
	started_at_a		timestamptz,
	ended_at_a			timestamptz,
	closed_at_a			timestamptz,
	outcome_a			text,
	exception_class_a	text,
	error_digest_a		uuid,
	worker_name_a		text,
	idempotency_key_a	text,
	scope_a				text,
	intent_version_a	integer,
	elapsed_ms_a		bigint,
	next_not_before_a	timestamptz,
	retry_policy_a		text,
	delay_ms_a			bigint,
	job_id_b			text,
	attempt_number_b	integer,
	lease_id_b			text,
	started_at_b		timestamptz,
	ended_at_b			timestamptz,
	outcome_b			text,
	exception_class_b	text,
	error_digest_b		uuid,
	worker_name_b		text,
	idempotency_key_b	text,
	scope_b				text,
	intent_version_b	integer,
	elapsed_ms_b		bigint,
	gap					interval,
	verdict				text,
	also				text[],
	changed				text[],
	identical_evidence	boolean,
	missing				text[],
	least_delay_ms		bigint,
	repeats				bigint,
	last_repeat_at		timestamptz
);
COMMENT ON TYPE holdfast.pair IS 'internal: an earlier attempt A, a later one B, and what was found; src/pair.c knows the columns by their place';

CREATE FUNCTION holdfast.pairs(source text, job_id text, attempt_number integer, lease_id text, started_at timestamptz,
	ended_at timestamptz, closed_at timestamptz, idempotency_key text, scope text, intent_version integer, outcome text,
	side_effect_state text, next_not_before timestamptz, retry_policy text, delay_ms bigint, redriven boolean, worker_name text,
	mode text, timeout_ms bigint, payload_digest bytea, exception_class text, error_digest uuid, elapsed_ms bigint,
	evidence_hash bigint, repeats bigint, last_repeat_at timestamptz, wanted boolean)
RETURNS holdfast.pair[]
LANGUAGE C STABLE WINDOW AS 'MODULE_PATHNAME', 'holdfast_pairs';
COMMENT ON FUNCTION holdfast.pairs(text, text, integer, text, timestamptz, timestamptz, timestamptz, text, text, integer, text, text,
	timestamptz, text, bigint, boolean, text, text, bigint, bytea, text, uuid, bigint, bigint, bigint, timestamptz, boolean) IS
	'internal: the pairs of an attempt with earlier ones, over the attempts of one source, subject and action in their order';

CREATE FUNCTION holdfast.pair_because(pair holdfast.pair) RETURNS text
LANGUAGE C STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'holdfast_pair_because';
COMMENT ON FUNCTION holdfast.pair_because(holdfast.pair) IS 'internal: why a pair has its verdict, a sentence with its figures';

CREATE FUNCTION holdfast.backoff_window(retry_policy text) RETURNS interval
LANGUAGE C STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'holdfast_backoff_window';
COMMENT ON FUNCTION holdfast.backoff_window(text) IS
	'internal: the base delay of a policy; of "default" where it is null or not one of this database';

-- The same view twice: over all attempts, where a condition on subject reaches the indexes, and over those of the span.
DO $install$
DECLARE
	made	record;
BEGIN
	FOR made IN SELECT * FROM (VALUES ('attempt_pair', 'attempt', 'true'), ('span_pair', 'span_attempt', 't.wanted')) AS v (name, input, wanted) LOOP
		EXECUTE format($view$
CREATE VIEW holdfast.%1$I WITH (security_barrier) AS
	SELECT w.source, w.subject, w.action_key, w.queue,
		   (w.p).job_id_a COLLATE "C" AS job_id_a, (w.p).attempt_number_a, (w.p).lease_id_a COLLATE "C" AS lease_id_a, (w.p).started_at_a,
		   (w.p).job_id_b COLLATE "C" AS job_id_b, (w.p).attempt_number_b, (w.p).lease_id_b COLLATE "C" AS lease_id_b, (w.p).started_at_b,
		   (w.p).gap, (w.p).verdict COLLATE "C" AS verdict, (w.p).also, holdfast.pair_because(w.p) AS because, (w.p).changed,
		   (w.p).identical_evidence, (w.p).missing, (w.p).ended_at_a, (w.p).closed_at_a, (w.p).next_not_before_a,
		   (w.p).retry_policy_a COLLATE "C" AS retry_policy_a, (w.p).delay_ms_a, (w.p).outcome_a COLLATE "C" AS outcome_a,
		   (w.p).exception_class_a COLLATE "C" AS exception_class_a, (w.p).error_digest_a, (w.p).worker_name_a COLLATE "C" AS worker_name_a,
		   (w.p).elapsed_ms_a, (w.p).idempotency_key_a COLLATE "C" AS idempotency_key_a, (w.p).ended_at_b,
		   (w.p).outcome_b COLLATE "C" AS outcome_b, (w.p).exception_class_b COLLATE "C" AS exception_class_b, (w.p).error_digest_b,
		   (w.p).worker_name_b COLLATE "C" AS worker_name_b, (w.p).elapsed_ms_b, (w.p).idempotency_key_b COLLATE "C" AS idempotency_key_b
	FROM (SELECT v.source, v.subject, v.action_key, v.queue, unnest(v.pairs) AS p	-- as a FROM item it would cost four times as much
		  FROM (SELECT a.source, a.subject, a.action_key, a.queue,
					   holdfast.pairs(a.source, a.job_id, a.attempt_number, a.lease_id, a.started_at, a.ended_at, a.closed_at,
						a.idempotency_key, a.scope, a.intent_version, a.outcome, a.side_effect_state, a.next_not_before, a.retry_policy,
						a.delay_ms, a.redriven, a.worker_name, a.mode, a.timeout_ms, a.payload_digest, a.exception_class, a.error_digest,
						a.elapsed, a.evidence_hash, a.repeats, a.last_repeat_at, a.is_wanted)
						OVER (PARTITION BY a.subject, a.action_key, a.source ORDER BY a.started_at, a.attempt_number, a.arrival) AS pairs
				FROM (SELECT t.*, holdfast.error_digest(t.exception_class, t.message) AS error_digest,
							 coalesce(t.elapsed_ms, ((extract(epoch FROM t.finished_at) - extract(epoch FROM t.started_at)) * 1000)::bigint) AS elapsed,
							 hashtextextended(coalesce(t.message, ''), 0) # hashtextextended(coalesce(t.timeout_kind, ''), 1)
								# coalesce(t.timeout_limit_ms, -1) AS evidence_hash, %3$s AS is_wanted
					  FROM holdfast.%2$I t) a
			   ) v
		 ) w
			$view$, made.name, made.input, made.wanted);
	END LOOP;
END
$install$;
COMMENT ON VIEW holdfast.span_pair IS
	'attempt_pair for all second attempts that began in the span: from holdfast.span_since to holdfast.span_until, or in the last day';
COMMENT ON VIEW holdfast.attempt_pair IS
	'an earlier attempt A and a later one B of a source, subject and action, and the verdict on them; docs/forensics.md has the rules';
COMMENT ON COLUMN holdfast.attempt_pair.gap IS 'from A''s end to B''s start; negative: they overlapped; null: A''s end is not on record';
COMMENT ON COLUMN holdfast.attempt_pair.also IS 'other verdicts that fit';
COMMENT ON COLUMN holdfast.attempt_pair.changed IS 'what was different at B: worker, mode, timeout, payload, error, elapsed (by more than 5 %)';
COMMENT ON COLUMN holdfast.attempt_pair.identical_evidence IS 'both records say the same of everything but who the attempt was and when';
COMMENT ON COLUMN holdfast.attempt_pair.missing IS 'of an unexplained pair: what would have to be on record';

CREATE VIEW holdfast.failure_pair WITH (security_barrier) AS
	SELECT p.* FROM holdfast.attempt_pair p
	WHERE p.outcome_a IN ('failed', 'timeout', 'lost') AND p.outcome_b IN ('failed', 'timeout', 'lost');
COMMENT ON VIEW holdfast.failure_pair IS 'the pairs of which both attempts failed, timed out or were lost';

CREATE VIEW holdfast.same_action_same_error_within_backoff_window WITH (security_barrier) AS
	SELECT p.* FROM holdfast.failure_pair p
	WHERE p.error_digest_a = p.error_digest_b
	  AND p.started_at_b < coalesce(p.next_not_before_a, p.closed_at_a + holdfast.backoff_window(p.retry_policy_a));
COMMENT ON VIEW holdfast.same_action_same_error_within_backoff_window IS
	'pairs of the same failure of the same action, the second of which began before the first one''s delay was over: that on '
	'record, else the base delay of its policy, else of the policy "default", from its close';

CREATE VIEW holdfast.lease_overlap WITH (security_barrier) AS
	SELECT p.* FROM holdfast.attempt_pair p
	WHERE p.verdict = 'lease_overlap' OR 'lease_overlap' = ANY (p.also);
COMMENT ON VIEW holdfast.lease_overlap IS 'the pairs of attempts that were at work on one job at the same time, under two leases';

-- count(DISTINCT) and the sums are over the failures of the span; the verdicts over the pairs whose second attempt is one of them.
CREATE VIEW holdfast.failure_pattern WITH (security_barrier) AS
	SELECT f.source, f.queue, f.action_key, f.exception_class, f.error_digest, holdfast.normalized_message(f.message) AS normalized_message,
		   f.attempts, f.subjects, f.jobs, coalesce(p.pairs, '{}') AS pairs, f.worker_time_lost, f.first_seen, f.last_seen
	FROM (SELECT t.source, t.queue, t.action_key, t.exception_class, holdfast.error_digest(t.exception_class, t.message) AS error_digest,
				 min(t.message) AS message, count(*) AS attempts, count(DISTINCT t.subject) AS subjects, count(DISTINCT t.job_id) AS jobs,
				 sum(coalesce(t.elapsed_ms * interval '1 ms', t.finished_at - t.started_at)) AS worker_time_lost,
				 min(t.started_at) AS first_seen, max(t.started_at) AS last_seen
		  FROM holdfast.span_attempt t
		  WHERE t.wanted AND t.outcome IN ('failed', 'timeout', 'lost')
		  GROUP BY t.source, t.queue, t.action_key, t.exception_class, holdfast.error_digest(t.exception_class, t.message)) f
	LEFT JOIN (SELECT v.source, v.queue, v.action_key, v.exception_class_b, v.error_digest_b, jsonb_object_agg(v.verdict, v.n) AS pairs
			   FROM (SELECT s.source, s.queue, s.action_key, s.exception_class_b, s.error_digest_b, s.verdict, count(*) AS n
					 FROM holdfast.span_pair s
					 WHERE s.outcome_b IN ('failed', 'timeout', 'lost')
					 GROUP BY s.source, s.queue, s.action_key, s.exception_class_b, s.error_digest_b, s.verdict) v
			   GROUP BY v.source, v.queue, v.action_key, v.exception_class_b, v.error_digest_b) p
		ON p.source = f.source AND p.queue IS NOT DISTINCT FROM f.queue AND p.action_key = f.action_key
		   AND p.exception_class_b IS NOT DISTINCT FROM f.exception_class AND p.error_digest_b IS NOT DISTINCT FROM f.error_digest;
COMMENT ON VIEW holdfast.failure_pattern IS
	'which failures keep coming, per action, class and normalized message: how many subjects and jobs, their pairs by verdict, the '
	'time that workers lost; from holdfast.span_since to holdfast.span_until, or in the last day';

CREATE TYPE holdfast.verdict_count AS (
	source				text,
	queue				text,
	action_key			text,
	verdict				text,
	pairs				bigint
);
COMMENT ON TYPE holdfast.verdict_count IS 'how many pairs of an action have a verdict';

-- With settings that a view cannot have: memory to sort a day in, and no JIT, which would take longer than the query;
-- and a form of dates that says the same when it is read back as a setting, which abbreviations of time zones do not.
CREATE FUNCTION holdfast.verdicts(since timestamptz, until timestamptz) RETURNS SETOF holdfast.verdict_count
LANGUAGE plpgsql ROWS 100 SET search_path = pg_catalog, pg_temp SET work_mem = '256MB' SET jit = off
SET datestyle = 'ISO, YMD' SET timezone = 'UTC' SET holdfast.span_since = '' SET holdfast.span_until = '' AS $$
BEGIN
	PERFORM set_config('holdfast.span_since', verdicts.since::text, true), set_config('holdfast.span_until', verdicts.until::text, true);
	RETURN QUERY
		SELECT p.source, p.queue, p.action_key, p.verdict, count(*) FROM holdfast.span_pair p
		GROUP BY p.source, p.queue, p.action_key, p.verdict ORDER BY p.source, p.queue, p.action_key, p.verdict;
END
$$;
COMMENT ON FUNCTION holdfast.verdicts(timestamptz, timestamptz) IS
	'the pairs whose second attempt began in the span, counted by source, queue, action and verdict; for readers';
