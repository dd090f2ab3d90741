\i test/setup.sql
\i test/tools.sql
-- What an operator watches: known figures, and for how long a finding counts.
SELECT plan(30);

SELECT pg_temp.at('00:00:00') \g /dev/null
SELECT holdfast.define_retry_policy('p', '10 s', backoff_rate => 1, jitter_window => '0', min_delay => '1 s', max_attempts => 3,
	reconcile_delay => '60 s') \g /dev/null
SELECT holdfast.create_queue('mail', retry_policy => 'p'), holdfast.create_queue('other', retry_policy => 'p') \g /dev/null
CREATE FUNCTION pg_temp.later(by interval) RETURNS timestamptz LANGUAGE sql AS $$ SELECT pg_temp.at(pg_temp.clock() + $1) $$;
CREATE TEMPORARY TABLE lease (subject text PRIMARY KEY, job_id bigint, idempotency_key uuid, lease_id uuid);
CREATE FUNCTION pg_temp.claim(n integer DEFAULT 1) RETURNS void LANGUAGE sql AS $$
	INSERT INTO lease SELECT subject, job_id, idempotency_key, lease_id FROM holdfast.claim('mail', 'w', n)
	ON CONFLICT (subject) DO UPDATE SET lease_id = excluded.lease_id
$$;

SELECT results_eq($$SELECT queue_name, paused, claimable, parked, running, exact, oldest_claimable_ms, unknown_effects, awaiting_reconcile, dead,
		attempts_last_hour, failed_last_day, counted_up_to, lease_overlaps_last_day, stale_reports_last_day, lost_leases_last_day FROM holdfast.metrics('mail')$$,
	$$VALUES ('mail', false, 0::bigint, 0::bigint, 0::bigint, true, NULL::bigint, 0::bigint, 0::bigint, 0::bigint, 0::bigint, 0::bigint, NULL::timestamptz, 0::bigint, 0::bigint, 0::bigint)$$,
	'an empty queue has a line of noughts');

-- claimable, parked, running

SELECT outcome FROM holdfast.enqueue_batch('mail', '[{"action_key": "act", "subject": "a"}, {"action_key": "act", "subject": "b", "priority": 9}, {"action_key": "act", "subject": "c", "delay": "5 s"},
	{"action_key": "act", "subject": "d", "delay": "1 h"}, {"action_key": "act", "subject": "e", "delay": "1 day", "priority": -9}]') \g /dev/null
SELECT outcome FROM holdfast.enqueue('other', 'act', 'elsewhere') \g /dev/null
SELECT pg_temp.later('4.999 s') \g /dev/null
SELECT results_eq($$SELECT claimable, parked, running, oldest_claimable_ms FROM holdfast.metrics('mail')$$, $$VALUES (2::bigint, 3::bigint, 0::bigint, 4999::bigint)$$,
	'G9: one millisecond before its time a job is parked');
SELECT pg_temp.later('1 ms') \g /dev/null
SELECT results_eq($$SELECT claimable, parked, running, oldest_claimable_ms FROM holdfast.metrics('mail')$$, $$VALUES (3::bigint, 2::bigint, 0::bigint, 5000::bigint)$$,
	'G9: at its time it is claimable');
SELECT pg_temp.claim() \g /dev/null
SELECT results_eq($$SELECT claimable, parked, running FROM holdfast.metrics('mail')$$, $$VALUES (2::bigint, 2::bigint, 1::bigint)$$, 'a claimed one is running');
SELECT pg_temp.claim(2) \g /dev/null
SELECT results_eq($$SELECT claimable, parked, running, oldest_claimable_ms FROM holdfast.metrics('mail')$$, $$VALUES (0::bigint, 2::bigint, 3::bigint, NULL::bigint)$$,
	'with nothing due, nothing waits');

-- unknown, awaiting reconcile, dead

SELECT FROM lease, holdfast.fail(job_id, lease_id, 'Boom') WHERE subject = 'a' \g /dev/null
SELECT results_eq($$SELECT running, parked, unknown_effects, awaiting_reconcile, dead FROM holdfast.metrics('mail')$$, $$VALUES (2::bigint, 3::bigint, 1::bigint, 1::bigint, 0::bigint)$$,
	'G6: an unknown effect awaits its finding');
SELECT holdfast.cancel(job_id, NULL, true) FROM lease WHERE subject = 'b' \g /dev/null
SELECT results_eq($$SELECT running, unknown_effects, awaiting_reconcile, dead FROM holdfast.metrics('mail')$$, $$VALUES (1::bigint, 2::bigint, 1::bigint, 1::bigint)$$,
	'G4: a dead one that is unresolved shows until it is settled');
SELECT FROM lease, holdfast.fail(job_id, lease_id, 'ValidationError') WHERE subject = 'c' \g /dev/null
SELECT results_eq($$SELECT running, unknown_effects, awaiting_reconcile, dead FROM holdfast.metrics('mail')$$, $$VALUES (0::bigint, 2::bigint, 1::bigint, 2::bigint)$$, 'one that is dead is dead');
SELECT FROM lease, holdfast.settle_unknown(idempotency_key, 'landed', '{}', 'r') WHERE subject IN ('a', 'b') \g /dev/null
SELECT results_eq($$SELECT unknown_effects, awaiting_reconcile, dead, parked FROM holdfast.metrics('mail')$$, $$VALUES (0::bigint, 0::bigint, 1::bigint, 2::bigint)$$, 'settled, they show no more');
SELECT FROM lease, holdfast.redrive(job_id, 'r') WHERE subject = 'c' \g /dev/null
SELECT results_eq($$SELECT claimable, dead, oldest_claimable_ms FROM holdfast.metrics('mail')$$, $$VALUES (1::bigint, 0::bigint, 0::bigint)$$, 'redriven, it is claimable, and has not waited');

-- findings: lost leases, stale reports, overlaps

SELECT pg_temp.claim() \g /dev/null
CREATE TEMPORARY TABLE first AS SELECT * FROM lease WHERE subject = 'c';
SELECT pg_temp.later('90 s'), pg_temp.claim() \g /dev/null
SELECT results_eq($$SELECT lost_leases_last_hour, lost_leases_last_day, stale_reports_last_hour, lease_overlaps_last_hour, unknown_effects FROM holdfast.metrics('mail')$$,
	$$VALUES (1::bigint, 1::bigint, 0::bigint, 0::bigint, 1::bigint)$$, 'G8: a lost lease');
SELECT pg_temp.later('60 s'), pg_temp.claim() \g /dev/null
SELECT is((SELECT count(*) FROM lease l JOIN first f USING (job_id) WHERE l.lease_id <> f.lease_id), 1::bigint, 'setting the scene: another lease has the job');
SELECT is((SELECT holdfast.complete(job_id, lease_id) FROM first), 'stale', 'G2: a report under the first lease');
SELECT results_eq($$SELECT lost_leases_last_hour, stale_reports_last_hour, stale_reports_last_day, lease_overlaps_last_hour, lease_overlaps_last_day FROM holdfast.metrics('mail')$$,
	$$VALUES (1::bigint, 1::bigint, 1::bigint, 1::bigint, 1::bigint)$$, 'G1: is stale, and shows that two worked at once');
SELECT is((SELECT outcome FROM first, holdfast.heartbeat(job_id, lease_id)), 'stale', 'its heartbeat is stale, too');
SELECT is((SELECT lease_overlaps_last_hour FROM holdfast.metrics('mail')), 1::bigint, 'G1: an overlap is one, however many reports tell of it');
SELECT is((SELECT stale_reports_last_day FROM holdfast.metrics('other')), 0::bigint, 'another queue has none of it');
CREATE TEMPORARY TABLE stale AS SELECT stale_reports_last_day AS n FROM holdfast.metrics('mail');
SELECT pg_temp.later('1 h') \g /dev/null
SELECT results_eq($$SELECT lost_leases_last_hour, stale_reports_last_hour, lease_overlaps_last_hour, lost_leases_last_day, stale_reports_last_day = (SELECT n FROM stale), lease_overlaps_last_day FROM holdfast.metrics('mail')$$,
	$$VALUES (0::bigint, 0::bigint, 0::bigint, 1::bigint, true, 1::bigint)$$, 'after an hour they count for the day alone');
SELECT pg_temp.later('23 h') \g /dev/null
SELECT results_eq($$SELECT lost_leases_last_day, stale_reports_last_day, lease_overlaps_last_day FROM holdfast.metrics('mail')$$, $$VALUES (0::bigint, 0::bigint, 0::bigint)$$, 'and after a day no more');

-- attempts and outcomes, as far as maintain() has counted

SELECT pg_temp.at('2030-01-03 05:10:00+00'::timestamptz) \g /dev/null
SELECT holdfast.create_queue('hours', retry_policy => 'p', side_effects => false) \g /dev/null
SELECT count(*) FROM holdfast.maintain() \g /dev/null
CREATE FUNCTION pg_temp.attempt(subject text, call text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM holdfast.enqueue('hours', 'act', attempt.subject);
	EXECUTE 'SELECT FROM holdfast.claim(''hours'', ''w'') AS c, LATERAL holdfast.' || call;
END
$$;
SELECT pg_temp.attempt('h' || n, 'complete(c.job_id, c.lease_id)') FROM generate_series(1, 2) AS n \g /dev/null
SELECT pg_temp.attempt('f1', 'fail(c.job_id, c.lease_id, ''ValidationError'')') \g /dev/null
SELECT pg_temp.at('2030-01-03 06:10:00+00'::timestamptz), pg_temp.attempt('h3', 'complete(c.job_id, c.lease_id)') \g /dev/null
SELECT count(*) FROM holdfast.maintain() \g /dev/null
SELECT results_eq($$SELECT attempts_last_hour, succeeded_last_hour, failed_last_hour, attempts_last_day, succeeded_last_day, failed_last_day, counted_up_to FROM holdfast.metrics('hours')$$,
	$$VALUES (3::bigint, 2::bigint, 1::bigint, 3::bigint, 2::bigint, 1::bigint, '2030-01-03 06:00:00+00'::timestamptz)$$, 'attempts and outcomes, and up to when');
SELECT pg_temp.at('2030-01-03 07:10:00+00'::timestamptz) \g /dev/null
SELECT is((SELECT counted_up_to FROM holdfast.metrics('hours')), '2030-01-03 06:00:00+00', 'G14: without maintain() the figures say that they are old');
SELECT count(*) FROM holdfast.maintain() \g /dev/null
SELECT results_eq($$SELECT attempts_last_hour, succeeded_last_hour, failed_last_hour, attempts_last_day, succeeded_last_day, failed_last_day, counted_up_to FROM holdfast.metrics('hours')$$,
	$$VALUES (1::bigint, 1::bigint, 0::bigint, 4::bigint, 3::bigint, 1::bigint, '2030-01-03 07:00:00+00'::timestamptz)$$, 'an hour later');
SELECT is((SELECT oldest_evidence FROM holdfast.metrics('hours')), (SELECT min(day) FROM holdfast.event_partition), 'the oldest day of evidence');

-- all queues, and a paused one

SELECT holdfast.pause_queue('other') \g /dev/null
SELECT results_eq($$SELECT queue_name, paused FROM holdfast.metrics_all() WHERE queue_name IN ('mail', 'other', 'hours')$$, $$VALUES ('hours', false), ('mail', false), ('other', true)$$, 'metrics_all has a line for each, by name');
SELECT is((SELECT claimable FROM holdfast.metrics('other')), 1::bigint, 'a paused queue''s jobs are counted all the same');
SELECT throws_ok($$SELECT * FROM holdfast.metrics('nowhere')$$, '42704', NULL, 'metrics of an unknown queue is refused');
SELECT throws_ok($$SELECT * FROM holdfast.metrics(NULL)$$, '22004', NULL, 'and of null');

-- G12: a large queue is counted up to 100,000 entries

SELECT holdfast.create_queue('large', side_effects => false) \g /dev/null
SELECT sum(n) FROM generate_series(0, 9) AS i, LATERAL (SELECT count(*) AS n FROM holdfast.enqueue_batch('large',
	(SELECT jsonb_agg(jsonb_build_object('action_key', 'act', 'subject', 'large ' || i * 10000 + n)) FROM generate_series(1, 10000) AS n))) AS b \g /dev/null
SELECT results_eq($$SELECT claimable, parked, running, exact FROM holdfast.metrics('large')$$, $$VALUES (100000::bigint, 0::bigint, 0::bigint, true)$$, 'exact up to 100,000');
SELECT outcome FROM holdfast.enqueue_batch('large', '[{"action_key": "act", "subject": "one more"}, {"action_key": "act", "subject": "and another"}]') \g /dev/null
SELECT results_eq($$SELECT claimable >= 100000 AND claimable <= 100002, exact FROM holdfast.metrics('large')$$, $$VALUES (true, false)$$, 'beyond that "at least"');
SELECT is((SELECT estimated_jobs FROM holdfast.metrics('mail')), NULL, 'no estimate is needed beside what is exact');

SELECT * FROM finish();
ROLLBACK;
