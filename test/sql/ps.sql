\i test/setup.sql
\i test/tools.sql
-- What an operator sees in a terminal: a line for each stream, live job and job that ended just now.
SELECT plan(8);

SELECT pg_temp.at('00:00:00') \g /dev/null
SELECT holdfast.define_retry_policy('p', '10 s', jitter_window => '0', min_delay => '1 s') \g /dev/null
SELECT holdfast.create_queue(q, retry_policy => 'p') FROM unnest('{mail,other,quiet}'::text[]) q \g /dev/null
SELECT setval('holdfast.job_id_seq', 10, false) \g /dev/null
CREATE FUNCTION pg_temp.lines() RETURNS SETOF text LANGUAGE sql AS $$
	SELECT concat_ws(' | ', queue, what, name, state, progress, worker, time, note) FROM holdfast.ps
$$;
SELECT is_empty('SELECT * FROM holdfast.ps', 'nothing is going on');

SELECT holdfast.define_stream('mail', 'loop', 1, '5 min') \g /dev/null
SELECT holdfast.enqueue('mail', 'act', s, stream => CASE s WHEN 'dies' THEN 'loop' WHEN 'parked' THEN 'loop' END, priority => p)
	FROM (VALUES ('succeeds', 1), ('dies', 2), ('stuck', 3), ('runs', 4), ('retried', 5), ('reconciled', 6), ('parked', 7), ('cancelled', 8)) v (s, p) \g /dev/null
SELECT holdfast.enqueue('mail', 'act', 'scheduled', delay => '1 h'), holdfast.enqueue('mail', 'act', 'due', run_after => pg_temp.clock() + interval '55 s', max_attempts => 2),
	holdfast.enqueue('quiet', 'act', 'paused') \g /dev/null
SELECT holdfast.pause_queue('quiet') \g /dev/null
SELECT holdfast.complete(job_id, lease_id) FROM holdfast.claim('mail', 'w1') \g /dev/null
SELECT holdfast.fail(job_id, lease_id, 'ValidationError') FROM holdfast.claim('mail', 'w1') \g /dev/null
SELECT count(*) FROM holdfast.claim('mail', 'w1', lease => '80 s') \g /dev/null
SELECT pg_temp.at('00:00:50') \g /dev/null
SELECT count(*) FROM holdfast.claim('mail', 'w2') \g /dev/null
SELECT holdfast.fail(job_id, lease_id, 'Boom', side_effect => 'none') FROM holdfast.claim('mail', 'w1') \g /dev/null
SELECT holdfast.fail(job_id, lease_id, 'Boom', side_effect => 'unknown') FROM holdfast.claim('mail', 'w1') \g /dev/null
SELECT holdfast.cancel(job_id) FROM holdfast.claim('mail', 'w1') \g /dev/null
SELECT holdfast.release(job_id, lease_id) FROM pg_temp.job WHERE subject = 'cancelled' \g /dev/null
SELECT pg_temp.at('00:01:40') \g /dev/null
SELECT holdfast.cancel(job_id) FROM pg_temp.job WHERE subject = 'runs' \g /dev/null
SELECT results_eq('SELECT * FROM pg_temp.lines()', $$VALUES
	('mail | stream | loop | open | 1 of 1 ended in failure | cool-down ends in 200 s'),
	('mail | act for stuck | 12 | stuck lease | failure 0 of 5 (attempt 1) | w1 | since 100 s, lease ended 20 s ago'),
	('mail | act for runs | 13 | running | failure 0 of 5 (attempt 1) | w2 | since 50 s, lease ends in 40 s | to be cancelled'),
	('mail | act for due | 19 | due | failure 0 of 2 (attempt 0) | 45 s ago'),
	('mail | act for retried | 14 | due | failure 1 of 5 (attempt 1) | 40 s ago | last: Boom'),
	('mail | act for reconciled | 15 | due | failure 1 of 5 (attempt 1) | 40 s ago | effect unknown; last: Boom'),
	('mail | act for parked | 16 | parked | failure 0 of 5 (attempt 0) | in 200 s'),
	('mail | act for scheduled | 18 | scheduled | failure 0 of 5 (attempt 0) | in 3500 s'),
	('mail | act for dies | 11 | dead: terminal | failure 1 of 5 (attempt 1) | 100 s ago | last: ValidationError'),
	('mail | act for succeeds | 10 | succeeded | attempt 1 | w1 | 100 s ago'),
	('mail | act for cancelled | 17 | cancelled | attempt 1 | w1 | 50 s ago | cancelled'),
	('quiet | act for paused | 20 | paused | failure 0 of 5 (attempt 0) | 100 s ago')$$,
	'streams that hold back first, then what runs, what is due, what waits, and what has ended');
SELECT pg_temp.at('00:00:55') \g /dev/null
SELECT is((SELECT string_agg(state, ', ' ORDER BY state) FROM holdfast.ps WHERE name IN ('14', '15')), 'awaiting reconcile, awaiting retry', 'what waits after a failure says what for');
SELECT pg_temp.at('00:15:01') \g /dev/null
SELECT results_eq($$SELECT name COLLATE "default" FROM holdfast.ps WHERE state ~ '^(dead|succeeded|cancelled)'$$, $$VALUES ('17')$$, 'what ended more than 15 minutes ago is no longer shown');
SELECT results_eq($$SELECT what COLLATE "default" FROM holdfast.ps LIMIT 1$$, $$VALUES ('stream')$$, 'in that order also with a limit');

-- G13
CREATE ROLE regress_holdfast_reader;
CREATE ROLE regress_holdfast_stranger;
SELECT holdfast.grant_queue('quiet', 'regress_holdfast_reader', 'reader'), holdfast.grant_queue('other', 'regress_holdfast_stranger', 'reader') \g /dev/null
SET LOCAL ROLE regress_holdfast_reader;
SELECT string_agg(queue || ' ' || state, ', ') AS seen FROM holdfast.ps \gset
RESET ROLE;
SELECT is(:'seen'::text, 'quiet paused', 'G13: a reader sees its queue');
SET LOCAL ROLE regress_holdfast_stranger;
SELECT count(*) AS seen FROM holdfast.ps \gset
RESET ROLE;
SELECT is(:'seen'::text, '0', 'G13: and no other');
SELECT is((SELECT count(*) FROM holdfast.latest_events(pg_temp.clock() - interval '1 day')) > 10, true, 'the latest events are those of the days since then');

SELECT * FROM finish();
ROLLBACK;
