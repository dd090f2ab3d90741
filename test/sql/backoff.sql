\i test/setup.sql
-- Delays and jitter are pure functions with published answers (G11), never below the policy's formula (G3).
-- The answers were computed outside PostgreSQL, from the description alone.
SELECT plan(50);

CREATE FUNCTION pg_temp.refusal(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail	text;
	hint	text;
BEGIN
	EXECUTE statement;
	RETURN 'not refused';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(E'\n', SQLSTATE || ': ' || SQLERRM, nullif(detail, ''), nullif(hint, ''));
END
$$;

-- jitter

-- 658607535 is 0xe220a8397b1dcdaf, the first output of SplitMix64 seeded with 0, modulo 10^9
SELECT results_eq($$
	SELECT holdfast.jitter_ms(job_id, failures, jitter_window)
	FROM (VALUES
		(1, 0::bigint, 1, '1 ms'::interval),
		(2, 0, 1, '1000000 s'),
		(3, -1, 1, '30 s'),
		(4, -9223372036854775808, 1, '30 s'),
		(5, 9223372036854775807, 2147483647, '30 s'),
		(6, 7, 3, '3650 days'),
		(7, 7, 3, '1 day'),
		(8, 7, 3, '24 hours'),
		(9, 1, 2147483647, '1 s')
	) v (n, job_id, failures, jitter_window) ORDER BY n$$,
	ARRAY[0, 658607535, 23936, 13915, 16582, 314495609346, 86009346, 86009346, 396]::bigint[],
	'G11: jitter of the smallest, largest and negative ids, failures and windows');
SELECT is(holdfast.jitter_ms(42, 1, '0'), 0::bigint, 'a window of 0 is no jitter');
SELECT is(holdfast.jitter_ms(42, 1, '1.9 ms'), 0::bigint, 'a fraction of a millisecond is cut off the window');
SELECT ok(bool_and(j >= 0 AND j < 1000) AND count(DISTINCT j) > 900, 'jitter fills its window and stays below its end')
FROM (SELECT holdfast.jitter_ms(id, 1, '1 s') AS j FROM generate_series(1, 10000) id) s;
SELECT is(holdfast.jitter_ms(NULL, 1, '1 s'), NULL, 'jitter_ms is strict');
SELECT throws_ok($$SELECT holdfast.jitter_ms(1, 0, '1 s')$$, '22023',
	'argument "failures" must be between 1 and 2147483647', 'jitter needs a failure');
SELECT throws_ok($$SELECT holdfast.jitter_ms(1, -1, '1 s')$$, '22023',
	'argument "failures" must be between 1 and 2147483647', 'failures are not negative');
SELECT throws_ok($$SELECT holdfast.jitter_ms(1, 1, '-1 s')$$, '22023',
	'argument "jitter_window" must be between 0 ms and 315360000000 ms', 'a window is not negative');
SELECT throws_ok($$SELECT holdfast.jitter_ms(1, 1, '0.5 ms')$$, '22023',
	'argument "jitter_window" must be between 0 ms and 315360000000 ms', 'a window below a millisecond is not taken for none');
SELECT throws_ok($$SELECT holdfast.jitter_ms(1, 1, '3651 days')$$, '22023',
	'argument "jitter_window" must be between 0 ms and 315360000000 ms', 'a window has ten years at most');
SELECT throws_ok($$SELECT holdfast.jitter_ms(1, 1, '1 month')$$, '22023',
	'argument "jitter_window" must not contain months or years', 'a month is no duration');

-- seeds

SELECT results_eq($$
	SELECT holdfast.job_seed(id)
	FROM (VALUES (1, 'order-1001'), (2, ''), (3, U&'zo\00eb'), (4, '0198f3a0-7c1e-7000-8000-000000000001')) v (n, id) ORDER BY n$$,
	ARRAY[2014148884189248152, -4222654665428041845, -1222944261187590835, -7508239568479312630],
	'G11: seeds of text ids');
SELECT is(holdfast.job_seed(NULL), NULL, 'job_seed is strict');

-- delays

DO $$ BEGIN PERFORM holdfast.define_retry_policy('published', base_delay => '1 s', backoff_rate => 2, max_delay => '300 s', jitter_window => '1 s'); END $$;
SELECT results_eq($$
	SELECT holdfast.backoff_delay('published', job_id, failures)
	FROM (VALUES (1, 1, 1), (2, 1, 2), (3, 1, 3), (4, 42, 1), (5, 42, 9), (6, 42, 10), (7, 42, 63)) v (n, job_id, failures) ORDER BY n$$,
	ARRAY['1.465 s', '2.519 s', '4.590 s', '1.413 s', '256.005 s', '300.974 s', '300.302 s']::interval[],
	'G11: the published schedule');
SELECT results_eq($$
	SELECT holdfast.backoff_delay('default', 1, n) FROM unnest(ARRAY[1, 2, 3, 4, 5, 8, 2147483647]) WITH ORDINALITY u (n, o) ORDER BY o$$,
	ARRAY['32.465 s', '88.519 s', '130.590 s', '250.235 s', '508.761 s', '3610.533 s', '3629.396 s']::interval[],
	'G11: the schedule of the built-in policy');

CREATE FUNCTION pg_temp.delay_ms(base_ms bigint, rate float8, max_ms bigint, failures integer) RETURNS numeric
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM holdfast.define_retry_policy('scratch', base_ms * interval '1 ms', rate, (max_ms || ' ms')::interval, '0', '1 ms');
	RETURN extract(epoch FROM holdfast.backoff_delay('scratch', 1, failures)) * 1000;
END
$$;
SELECT is(pg_temp.delay_ms(1000, 1.7, 1000000000, 3), 2890.0, 'base 1000, rate 1.7, n 3: 2890');
SELECT is(pg_temp.delay_ms(1000, 1.2, 1000000000, 4), 1728.0, 'base 1000, rate 1.2, n 4: 1728');
SELECT is(pg_temp.delay_ms(3, 1.1, 1000000000, 50), 320.0, 'fractions of a millisecond are carried, and cut off at the end');
SELECT is(pg_temp.delay_ms(1, 1.01, 315360000000, 2600), 170314043988.0, 'the slowest growth, below the cap');
SELECT is(pg_temp.delay_ms(1, 1.01, 315360000000, 2147483647), 315360000000.0, 'the slowest growth, at once at the cap');
SELECT is(pg_temp.delay_ms(500, 1, 1000000000, 2147483647), 500.0, 'rate 1 is a constant delay, whatever the failures');
SELECT is(pg_temp.delay_ms(1000, 2, 1000, 1), 1000.0, 'max_delay may equal base_delay');
SELECT is(pg_temp.delay_ms(1000, 2, 1000, 2), 1000.0, 'and then never grows');
SELECT is(pg_temp.delay_ms(1, 1000, 315360000000, 2147483647), 315360000000.0, 'the fastest growth ends at the cap');
SELECT is(pg_temp.delay_ms(1, 1000, 315360000000, 4), 1000000000.0, 'the fastest growth, before the cap');
SELECT is(pg_temp.delay_ms(315360000000, 1000, 315360000000, 2147483647), 315360000000.0, 'the largest base does not overflow');

SELECT ok(bool_and(delay >= previous), 'delays never fall as failures grow')
FROM (SELECT holdfast.backoff_delay('scratch', 1, n) AS delay, lag(holdfast.backoff_delay('scratch', 1, n), 1, '0') OVER (ORDER BY n) AS previous
	  FROM generate_series(1, 200) n) s;
-- C2: at each power of two, and beside it, up to the last integer
SELECT is_empty($$
	SELECT * FROM (
		SELECT p.policy_name, n, d, lag(d, 1, interval '0') OVER (PARTITION BY p.policy_name ORDER BY n) AS before, p.max_delay + p.jitter_window AS most, p.jitter_window
		FROM holdfast.list_retry_policies() p,
			(SELECT DISTINCT least(greatest((1::bigint << e) + i, 1), 2147483647)::integer FROM generate_series(0, 31) e, generate_series(-1, 1) i) v (n),
			holdfast.backoff_delay(p.policy_name, 42, n) d) s
	WHERE d <= interval '0' OR d >= most + interval '1 ms' OR d + jitter_window < before$$, 'under each policy defined here a delay is above 0, at most max_delay and the jitter, and never falls');
DO $$ BEGIN PERFORM holdfast.define_retry_policy('long', '3650 days', max_delay => '3650 days', jitter_window => '3650 days'); END $$;
SELECT ok(bool_and(extract(day FROM d) = 0 AND extract(month FROM d) = 0) AND max(d) > '3650 days',
	'a delay has no days or months, which would depend on a time zone')
FROM (SELECT holdfast.backoff_delay('long', 1, n) AS d FROM generate_series(1, 10) n) s;
SELECT ok(holdfast.backoff_delay('published', 42, 10) > '300 s', 'jitter comes on top of max_delay');

DO $$ BEGIN PERFORM holdfast.define_retry_policy('hasty', base_delay => '1 ms', backoff_rate => 1, jitter_window => '0', min_delay => '5 s'); END $$;
SELECT is(holdfast.backoff_delay('hasty', 1, 1), '1 ms'::interval, 'backoff_delay is the formula, min_delay is not applied');

SELECT is(holdfast.backoff_delay(NULL, 1, 1), NULL, 'backoff_delay is strict');
SELECT throws_ok($$SELECT holdfast.backoff_delay('nowhere', 1, 1)$$, '42704', 'retry policy "nowhere" does not exist', 'an unknown policy');
SELECT throws_ok($$SELECT holdfast.backoff_delay('default', 1, 0)$$, '22023',
	'argument "failures" must be between 1 and 2147483647', 'a delay needs a failure');

-- a hand-written row may be nonsense, and still every delay is a delay (C3: an error would strand the job)

UPDATE holdfast.retry_policy SET backoff_rate = 'NaN', base_delay = '-1 s', jitter_window = '-1 s' WHERE policy_name = 'scratch';
SELECT is(holdfast.backoff_delay('scratch', 1, 2147483647), '1 ms'::interval, 'G3: a stored NaN or a negative delay becomes the least delay');
UPDATE holdfast.retry_policy SET backoff_rate = 'infinity', base_delay = '1 ms', max_delay = '1000 years' WHERE policy_name = 'scratch';
SELECT is(holdfast.backoff_delay('scratch', 1, 2147483647), '87600:00:00'::interval, 'a stored infinity or a century becomes the longest delay');
UPDATE holdfast.retry_policy SET backoff_rate = 1.0000001 WHERE policy_name = 'scratch';
SELECT is(holdfast.backoff_delay('scratch', 1, 2147483647), '87600:00:00'::interval, 'a stored rate of nearly 1 does not loop two thousand million times');

-- the bounds of durations, which every other function shares

SELECT results_eq($$
	SELECT holdfast.interval_ms(value, 'lease', 0, 86400000)
	FROM (VALUES (1, '0'::interval), (2, '1 ms'), (3, '1.999 ms'), (4, '1 day'), (5, '1 day -0.5 ms'), (6, '2 days -24:00:00'), (7, '-1 day 24:00:01')) v (n, value) ORDER BY n$$,
	ARRAY[0, 1, 1, 86400000, 86399999, 86400000, 1000]::bigint[],
	'durations are whole milliseconds and a day is 24 hours');
SELECT is(pg_temp.refusal(format($$SELECT holdfast.interval_ms(%L, 'lease', 0, 86400000)$$, value)),
	format(E'22023: argument "lease" must be between 0 ms and 86400000 ms\nThe value given is %s.\nDurations are counted in whole milliseconds, and a day as 24 hours.', value::interval),
	'a lease cannot be ' || value)
FROM unnest(ARRAY['0.5 ms', '-0.5 ms', '-1 ms', '1 day 1 ms', '2147483647 days', '-2147483648 days', '2562047788 hours']) value;
SELECT is(pg_temp.refusal(format($$SELECT holdfast.interval_ms(%L, 'lease', 0, 86400000)$$, value)),
	format(E'22023: argument "lease" must not contain months or years\nThe value given is %s, and a month has no fixed length.\nUse days or hours, for example \'30 days\'; a day counts as 24 hours.', value::interval),
	'a lease cannot be ' || value)
FROM unnest(ARRAY['1 month', '1 month -30 days', '-1 year']) value;
SELECT is(pg_temp.refusal($$SELECT holdfast.interval_ms('infinity', 'lease', 0, 86400000)$$),
	CASE WHEN current_setting('server_version_num')::integer >= 170000
		THEN E'22023: argument "lease" must be finite\nThe value given is infinity.\nGive a duration of at most 86400000 ms.'
		ELSE '22007: invalid input syntax for type interval: "infinity"' END,
	'a lease is finite (before 17 no interval is infinite)');
SELECT throws_ok($$SELECT holdfast.interval_ms(NULL, 'lease', 1, 86400000)$$, '22004', 'argument "lease" must not be null', 'a duration that is needed');
SELECT * FROM finish();
ROLLBACK;
