\i test/setup.sql
\i test/tools.sql
-- Pairs of attempts and their verdicts: what holdfast did itself, the incident's logs, and how an answer is found.
SELECT plan(62);

SELECT pg_temp.at('00:00:00') \g /dev/null
SELECT holdfast.define_retry_policy('plain', '10 s', 2, '1 h', '0 s', '5 s', 4), holdfast.define_retry_policy('quick', '1 s', 1, '1 h', '0 s', '5 s', 4) \g /dev/null
-- the verdicts on a subject, in the order of the second attempts
CREATE FUNCTION pg_temp.verdicts(subject text) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(concat_ws(' also ', p.verdict, nullif(array_to_string(p.also, ', '), '')), '; ' ORDER BY p.started_at_b, p.attempt_number_a)
	FROM holdfast.attempt_pair p WHERE p.subject = $1
$$;
CREATE FUNCTION pg_temp.because(subject text) RETURNS text LANGUAGE sql AS $$ SELECT string_agg(p.because, E'\n' ORDER BY p.started_at_b) FROM holdfast.attempt_pair p WHERE p.subject = $1 $$;
CREATE FUNCTION pg_temp.failed(name text, error_class text DEFAULT 'TimeoutError', message text DEFAULT 'no answer', side_effect text DEFAULT 'none') RETURNS text LANGUAGE sql AS $$
	SELECT decision FROM holdfast.fail(pg_temp.id($1), pg_temp.lease($1), $2, $3, $4)
$$;

-- what holdfast scheduled itself

SELECT pg_temp.started('retry', 'plain'), pg_temp.at('00:00:03'), pg_temp.failed('retry'), pg_temp.again('retry') \g /dev/null
SELECT is(pg_temp.verdicts('retry'), 'legitimate_delayed_retry', 'G3: a retry by policy is a legitimate delayed retry');
SELECT is(pg_temp.because('retry'), 'attempt 2 after attempt 1: A closed at 2030-01-01 00:00:03+00, policy "plain", 10 s allowed the next from 2030-01-01 00:00:13+00, and it started 0 ms after that', 'G3: with the figures');
SELECT is((SELECT changed FROM holdfast.attempt_pair WHERE subject = 'retry'), '{}'::text[], 'nothing was different at the second attempt');
SELECT pg_temp.started('quick', 'quick'), pg_temp.failed('quick'), pg_temp.again('quick') \g /dev/null
SELECT is(pg_temp.verdicts('quick'), 'legitimate_delayed_retry', 'a policy may begin below its own min_delay, which bounds what is asked for');
SELECT pg_temp.started('effect', 'plain'), pg_temp.failed('effect', side_effect => 'unknown'), pg_temp.again('effect') \g /dev/null
SELECT is(pg_temp.verdicts('effect'), 'legitimate_delayed_retry', 'G6: a reconcile attempt waits as a retry does');
SELECT is((SELECT changed FROM holdfast.attempt_pair WHERE subject = 'effect'), '{mode}'::text[], 'G6: and its mode was different');
SELECT outcome FROM holdfast.reconcile(pg_temp.id('effect'), pg_temp.lease('effect'), 'undetermined') \g /dev/null
SELECT pg_temp.again('effect') \g /dev/null
SELECT is(pg_temp.verdicts('effect'), 'legitimate_delayed_retry; resumed also legitimate_delayed_retry', 'an undetermined look at the provider is resumed');
SELECT pg_temp.started('snooze', 'plain') \g /dev/null
SELECT decision FROM holdfast.snooze(pg_temp.id('snooze'), pg_temp.lease('snooze'), '1 min') \g /dev/null
SELECT pg_temp.again('snooze') \g /dev/null
SELECT decision FROM holdfast.release(pg_temp.id('snooze'), pg_temp.lease('snooze')) \g /dev/null
SELECT pg_temp.again('snooze') \g /dev/null
SELECT is((SELECT string_agg(verdict, ' ' ORDER BY started_at_b) FROM holdfast.attempt_pair WHERE subject = 'snooze'), 'resumed resumed', 'snoozed and released attempts are resumed, not retried');
SELECT pg_temp.started('redrive', 'plain', options => '{"max_attempts": 1}'), pg_temp.failed('redrive') \g /dev/null
SELECT outcome FROM holdfast.redrive(pg_temp.id('redrive'), 'provider is back') \g /dev/null
SELECT pg_temp.again('redrive') \g /dev/null
SELECT matches(pg_temp.verdicts('redrive'), '^resumed', 'a redriven job is resumed');
SELECT matches(pg_temp.because('redrive'), 'an operator redrove the job before B$', 'by an operator');

-- a worker frozen beyond its lease reports after another has taken the job

SELECT pg_temp.started('frozen', 'plain', false), pg_temp.at('00:10:00'), pg_temp.claimed('frozen') \g /dev/null
SELECT pg_temp.again('frozen') \g /dev/null
SELECT is(pg_temp.verdicts('frozen'), 'legitimate_delayed_retry', 'G1: after a lost lease the next attempt waits for the policy''s time');
SELECT is((SELECT closed_at_a FROM holdfast.attempt_pair WHERE subject = 'frozen'), (SELECT lease_expires_at FROM holdfast.attempt WHERE subject = 'frozen' AND attempt_number = 1), 'G1: a lost attempt closed with its lease');
SELECT pg_temp.at(pg_temp.clock() + interval '5 s') \g /dev/null
SELECT is((SELECT holdfast.complete(pg_temp.id('frozen'), pg_temp.old_lease('frozen'))), 'stale', 'setting the scene: the frozen worker wakes up');
SELECT is(pg_temp.verdicts('frozen'), 'lease_overlap also legitimate_delayed_retry', 'G1: its report shows that two were at work at once');
SELECT is((SELECT count(*) FROM holdfast.lease_overlap WHERE subject = 'frozen'), 1::bigint, 'G1: the view lease_overlap has the pair');
SELECT is((SELECT lease_overlaps_last_hour FROM holdfast.metrics('frozen')), 1::bigint, 'G1: and the metrics count it');
SELECT matches(pg_temp.because('frozen'), '5000 ms before A''s end at .* \(lost, LeaseExpired\); leases ', 'G1: with the figures');

-- the same end reported twice

SELECT pg_temp.started('twice', 'plain', false) \g /dev/null
SELECT holdfast.complete(pg_temp.id('twice'), pg_temp.lease('twice')) FROM generate_series(1, 3) \g /dev/null
SELECT is(pg_temp.verdicts('twice'), 'duplicate_log', 'G2: a report that came again is a duplicate log');
SELECT matches(pg_temp.because('twice'), 'its end was reported 2 more times under lease ', 'G2: how often');

-- other jobs

SELECT pg_temp.started('other', 'plain', options => '{"scope": "january"}'), pg_temp.failed('other') \g /dev/null
SELECT holdfast.enqueue('other', 'act', 'other', scope => 'february'), pg_temp.claimed('other') \g /dev/null
SELECT is(pg_temp.verdicts('other'), 'distinct_intent also duplicate_side_effect_risk', 'G5: another scope is another intent');
SELECT is((SELECT array_agg(DISTINCT p.verdict) FROM holdfast.attempt_pair p WHERE p.verdict = 'unexplained'), NULL, 'G3: of all that holdfast did here, nothing is unexplained');

-- the incident: two TimeoutErrors of one subject, once without and once with a recorded delay

CREATE FUNCTION pg_temp.timeouts(subject text, first jsonb DEFAULT '{}', second jsonb DEFAULT '{}') RETURNS bigint LANGUAGE sql AS $$
	SELECT added FROM holdfast.import_attempts('incident', jsonb_build_array(
		jsonb_build_object('job_id', '9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d', 'subject', $1, 'action_key', 'send_email', 'attempt_number', 1, 'worker_name', 'w1', 'outcome', 'timeout',
			'started_at', '2029-12-01 08:00:00+00', 'finished_at', '2029-12-01 08:00:30+00', 'exception_class', 'TimeoutError', 'message', 'timed out after 30.00 s, request 7f3a') || $2,
		jsonb_build_object('job_id', '9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d', 'subject', $1, 'action_key', 'send_email', 'attempt_number', 2, 'worker_name', 'w2', 'outcome', 'timeout',
			'started_at', '2029-12-01 08:00:30.020+00', 'finished_at', '2029-12-01 08:01:00.020+00', 'exception_class', 'TimeoutError', 'message', 'timed out after 30.02 s, request 99') || $3))
$$;
SELECT is(pg_temp.timeouts('prospect-7ca677ed25d3'), 2::bigint, 'the incident''s log');
SELECT is(pg_temp.verdicts('prospect-7ca677ed25d3'), 'retry_without_backoff', 'the incident: no delay on record');
SELECT is(pg_temp.because('prospect-7ca677ed25d3'), 'attempt 2 after attempt 1: it started 20 ms after A''s end at 2029-12-01 08:00:30+00 (timeout, TimeoutError), and no time before which it should not start is on record', 'the incident: the figures');
SELECT is((SELECT changed FROM holdfast.attempt_pair WHERE subject = 'prospect-7ca677ed25d3'), '{worker}'::text[], 'the incident: only the worker was different; the messages tell of the same failure');
SELECT is((SELECT count(*) FROM holdfast.same_action_same_error_within_backoff_window WHERE subject = 'prospect-7ca677ed25d3'), 1::bigint, 'the incident: the same error of the same action, within the window of a backoff');
SELECT is(pg_temp.timeouts('prospect-delayed', '{"next_not_before": "2029-12-01 08:00:30.015+00", "retry_policy": "provider", "delay_ms": 15}'), 2::bigint, 'the same log, with a recorded delay');
SELECT is(pg_temp.verdicts('prospect-delayed'), 'legitimate_delayed_retry', 'the incident: with the delay on record it is a delayed retry');
SELECT is((SELECT count(*) FROM holdfast.same_action_same_error_within_backoff_window WHERE subject = 'prospect-delayed'), 0::bigint, 'the incident: after the window of its backoff');
SELECT is(pg_temp.timeouts('prospect-early', '{"next_not_before": "2029-12-01 08:01:00+00", "retry_policy": "provider", "delay_ms": 30000}'), 2::bigint, 'the same log, begun before its time');
SELECT matches(pg_temp.because('prospect-early'), '29.98 s before the time decided for it, 2029-12-01 08:01:00\+00 \(policy "provider", 30 s\)$', 'the incident: too early, by how much');
SELECT is(pg_temp.timeouts('prospect-identical', '{"lease_id": "l"}', '{"lease_id": "l", "attempt_number": 1, "started_at": "2029-12-01 08:00:00+00", "finished_at": "2029-12-01 08:00:30+00", "worker_name": "w1", "message": "timed out after 30.00 s, request 7f3a"}'),
	2::bigint, 'the same attempt, logged twice');
SELECT results_eq($$SELECT verdict COLLATE "default", identical_evidence FROM holdfast.attempt_pair WHERE subject = 'prospect-identical'$$, $$VALUES ('duplicate_log', true)$$, 'the incident: one attempt, logged twice, with identical evidence');
SELECT is((SELECT count(*) FROM holdfast.failure_pair WHERE action_key = 'send_email'), 4::bigint, 'all of them are pairs of failures');

-- when two messages tell of the same failure

SELECT is((SELECT array_agg(DISTINCT holdfast.error_digest('E', m)) FROM unnest(messages) m) IS NOT NULL AND (SELECT count(DISTINCT holdfast.error_digest('E', m)) FROM unnest(messages) m) = 1, true, 'the same failure: ' || messages[1]) FROM (VALUES
	(ARRAY['timed out after 743 s', 'timed out after 21600.5 s', 'timed out after -1 s', 'timed out  after 1,000.25 s ']),
	(ARRAY['no row 7ca677ed-25d3-4bad-9bdd-2b0d7b3dcb6d', 'no row deadbeef-cafe-babe-dead-beefdeadbeef', 'no row 12', 'no row deadbeefcafe', 'no row 0x7ffe1a']),
	(ARRAY['at 2026-01-31T08:15:00.123Z from 10.0.0.7:443', 'at 2025-12-01 from fe80::1', 'at 2025-12-01T23:59 from aa:bb:cc:dd:ee:ff']),
	(ARRAY['Mon, 02 Jan 2006 15:04 GMT: bounced by bob@example.com', 'Fri, 13 Feb 2026 01:00 GMT: bounced by a.b+c@mail.example.org'])) AS v (messages);
SELECT is(holdfast.normalized_message('prospect-7ca677ed25d3: /app/v2/send.py:123 said "503 Busy" to mx1.example.com'), 'prospect-#: /app/#/send.py:# said "# Busy" to #.example.com', 'names and paths stay');
SELECT isnt(holdfast.error_digest('E', 'a/1'), holdfast.error_digest('E', 'b/1'), 'other words are another failure');
SELECT isnt(holdfast.error_digest('E', 'm'), holdfast.error_digest('F', 'm'), 'and so is another class');
SELECT is(holdfast.error_digest(NULL, NULL), NULL, 'no error, no digest');
SET LOCAL statement_timeout = '10s';
SELECT is(holdfast.normalized_message(repeat('ab:', 300000) || 'abx') = repeat('ab:', 300000) || 'abx', true, 'a long message takes no more than its length in time');
SET LOCAL statement_timeout = '5min';

-- how an answer about one subject is found: through the indexes on subject, never by sorting the history

INSERT INTO holdfast.attempt_record (recorded_at, source, job_id, subject, action_key, started_at, attempt_number)
	SELECT holdfast.clock(), 'many', n::text, 'subject-' || n % 5000, 'act', '2029-12-01'::timestamptz + n * interval '1 s', 1 FROM generate_series(1, 20000) n;
SELECT holdfast.create_queue('many', side_effects => false) \g /dev/null
SELECT count(*) FROM holdfast.enqueue_batch('many', (SELECT jsonb_agg(jsonb_build_object('action_key', 'act', 'subject', 'subject-' || n)) FROM generate_series(1, 3000) n)) \g /dev/null
SELECT count(holdfast.complete(c.job_id, c.lease_id)) FROM holdfast.claim('many', 'w', 1000) c \g /dev/null
SELECT count(holdfast.complete(c.job_id, c.lease_id)) FROM holdfast.claim('many', 'w', 1000) c \g /dev/null
SELECT count(holdfast.complete(c.job_id, c.lease_id)) FROM holdfast.claim('many', 'w', 1000) c \g /dev/null
SELECT count(*) FROM holdfast.maintain() \g /dev/null
-- as autovacuum would, and not only where it has come by already
ANALYZE holdfast.attempt_record, holdfast.event, holdfast.event_overflow, holdfast.job, holdfast.dead_job, holdfast.ledger, holdfast.queue;
-- the lines of a plan that read a whole table of more than a few rows, or sort more than a few; a bitmap also counts
-- the entries of rows that are gone, of which VACUUM may have left any number: the heap scan above it tells
CREATE FUNCTION pg_temp.heavy(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	line	text;
	heavy	text := '';
	n		bigint := 0;
BEGIN
	FOR line IN EXECUTE 'EXPLAIN (ANALYZE, TIMING OFF, SUMMARY OFF) ' || statement LOOP
		CONTINUE WHEN line ~ 'Bitmap Index Scan|Index Cond';
		n := coalesce(substring(line FROM 'actual rows=(\d+)')::bigint, n);
		IF line ~ 'Rows Removed by Filter: \d{3,}' OR n > 200 THEN
			heavy := heavy || line || E'\n';
		END IF;
	END LOOP;
	RETURN heavy;
END
$$;
SELECT is(pg_temp.heavy(format('SELECT * FROM holdfast.%I WHERE subject = ''subject-7''', view)), '', 'one subject touches few rows: ' || view)
FROM unnest(ARRAY['attempt', 'fingerprint', 'attempt_pair', 'failure_pair', 'same_action_same_error_within_backoff_window', 'lease_overlap', 'stop_reason', 'timeout_finding']) AS view;
SELECT isnt(pg_temp.heavy('SELECT * FROM holdfast.attempt_pair'), '', 'and the test can tell: all of them touch many');
SELECT is((SELECT count(*) FROM holdfast.attempt_pair WHERE subject = 'subject-7'), 3::bigint, 'with the answer: three pairs of the import');

-- a span of time, and what keeps failing in it

SELECT holdfast.import_attempts('spans', (SELECT jsonb_agg(jsonb_build_object('job_id', 'j' || n, 'subject', 'p' || n % 3, 'action_key', 'send', 'attempt_number', a, 'lease_id', n || '/' || a, 'idempotency_key', 'k' || n,
	'started_at', '2029-06-01 00:00:00+00'::timestamptz + n * interval '6 h' + a * interval '1 min', 'finished_at', '2029-06-01 00:00:00+00'::timestamptz + n * interval '6 h' + a * interval '1 min 10 s',
	'outcome', CASE a WHEN 3 THEN 'succeeded' ELSE 'failed' END, 'exception_class', CASE a WHEN 3 THEN NULL ELSE 'Boom' END, 'message', CASE a WHEN 3 THEN NULL ELSE 'after ' || n || ' s' END,
	'next_not_before', CASE n % 2 WHEN 0 THEN '2029-06-01 00:00:00+00'::timestamptz + n * interval '6 h' + (a + 1) * interval '1 min' END, 'delay_ms', 50000) ORDER BY n, a) FROM generate_series(0, 39) n, generate_series(1, 3) a)) \g /dev/null
SET LOCAL holdfast.span_since = '2029-12-31 00:00:00+00';
SET LOCAL holdfast.span_until = '2030-01-02 00:00:00+00';
SELECT bag_eq($$SELECT * FROM holdfast.span_pair WHERE source = 'native'$$, $$SELECT * FROM holdfast.attempt_pair WHERE source = 'native'$$, 'the pairs of a span, native');
SET LOCAL holdfast.span_since = '2029-06-03 00:00:00+00';
SET LOCAL holdfast.span_until = '2029-06-04 00:00:00+00';
SELECT bag_eq($$SELECT * FROM holdfast.span_pair WHERE source = 'spans'$$, $$SELECT * FROM holdfast.attempt_pair WHERE source = 'spans' AND started_at_b >= '2029-06-03' AND started_at_b < '2029-06-04'$$, 'the pairs of a span are the pairs whose second attempt began in it');
SELECT results_eq($$SELECT exception_class COLLATE "default", normalized_message COLLATE "default", attempts, subjects, jobs, pairs, worker_time_lost, first_seen, last_seen FROM holdfast.failure_pattern WHERE source = 'spans'$$,
	$$VALUES ('Boom', 'after # s', 8::bigint, 3::bigint, 4::bigint, '{"legitimate_delayed_retry": 2, "retry_without_backoff": 2, "duplicate_side_effect_risk": 4}'::jsonb, '2 min'::interval, '2029-06-03 00:01:00+00'::timestamptz, '2029-06-03 18:02:00+00'::timestamptz)$$,
	'what keeps failing: how often, for how many, its pairs by verdict, and the time it cost');
RESET holdfast.span_since;
SELECT results_eq($$SELECT action_key COLLATE "default", verdict COLLATE "default", pairs FROM holdfast.verdicts('2029-06-03 00:00+00', '2029-06-04 00:00+00') WHERE source = 'spans'$$, $$VALUES ('send', 'duplicate_side_effect_risk', 4::bigint), ('send', 'legitimate_delayed_retry', 4), ('send', 'retry_without_backoff', 4)$$, 'the verdicts of a span, counted');
RESET holdfast.span_until;
SELECT is((SELECT count(*) FROM holdfast.failure_pattern WHERE source = 'spans'), 0::bigint, 'by itself the last day');
SELECT is((SELECT count(*) > 0 FROM holdfast.failure_pattern WHERE source = 'native'), true, 'of native attempts, too');
SELECT is(pg_temp.refusal($$SET LOCAL holdfast.span_since = 'yesterday'$$), '22023', 'a span is given by timestamps');

-- an attempt of before the span that began earlier than another one, and ended later

INSERT INTO holdfast.attempt_record (recorded_at, source, job_id, subject, action_key, attempt_number, outcome, started_at, finished_at, last_report_at) VALUES
	(holdfast.clock(), 'reach', 'one', 'reach', 'act', 1, 'failed', '2026-01-01 02:00:00+00', '2026-01-01 22:00:00+00', NULL),
	(holdfast.clock(), 'reach', 'two', 'reach', 'act', 1, 'cancelled', '2026-01-01 02:00:00+00', '2026-01-01 03:00:00+00', '2026-01-02 08:00:00+00'),
	(holdfast.clock(), 'reach', 'two', 'reach', 'act', 2, 'failed', '2026-01-01 03:00:00+00', '2026-01-01 04:00:00+00', NULL),
	(holdfast.clock(), 'reach', 'one', 'reach', 'act', 2, 'failed', '2026-01-02 09:00:00+00', '2026-01-02 11:00:00+00', NULL);
SELECT set_config('holdfast.span_since', '2026-01-01 06:00:00+00', true), set_config('holdfast.span_until', '2026-01-02 12:00:00+00', true) \g /dev/null
SELECT set_eq($$SELECT job_id_a, attempt_number_a, job_id_b, attempt_number_b, verdict FROM holdfast.span_pair WHERE subject = 'reach'$$,
	$$SELECT job_id_a, attempt_number_a, job_id_b, attempt_number_b, verdict FROM holdfast.attempt_pair WHERE subject = 'reach' AND started_at_b >= '2026-01-01 06:00:00+00'$$,
	'a span has the pairs with an attempt that outlasts one begun after it');
SELECT is((SELECT count(*) FROM holdfast.span_pair WHERE subject = 'reach'), 2::bigint, 'which are two');

SELECT * FROM finish();
ROLLBACK;
