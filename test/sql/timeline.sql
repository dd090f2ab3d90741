\i test/setup.sql
\i test/tools.sql
-- The history of a subject, a job, a key, a correlation id, as it is read in psql.
SELECT plan(38);

SELECT pg_temp.at('00:00:00') \g /dev/null
SELECT holdfast.define_retry_policy('demo', '1 s', jitter_window => '0', min_delay => '500 ms', reconcile_delay => '1 s') \g /dev/null
SELECT holdfast.create_queue(q, lease => '3 s', timeout => '2 s', grace => '500 ms', retry_policy => 'demo') FROM unnest('{mail,other}'::text[]) q \g /dev/null
SELECT setval('holdfast.job_id_seq', 41) \g /dev/null

CREATE FUNCTION pg_temp.me() RETURNS text LANGUAGE sql AS 'SELECT current_user::text';
CREATE FUNCTION pg_temp.lines(call text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY EXECUTE format('SELECT concat_ws('' | '', to_char(at, ''MI:SS.MS''), job, attempt, worker, what, took, decided, ledger, mark)
		FROM holdfast.timeline(%s)', call);
END
$$;

-- the incident: a timeout of which nothing is known; the retry finds out; its worker is frozen, and reports when another has the job

SELECT holdfast.enqueue('mail', 'send_email', 'prospect-7ca677ed25d3', '{"to": "a"}', correlation_id => 'campaign-9') \g /dev/null
SELECT pg_temp.at('00:00:01') \g /dev/null
SELECT pg_temp.claimed('mail') \g /dev/null
SELECT pg_temp.at('00:00:03.001') \g /dev/null
SELECT holdfast.fail(pg_temp.id('mail'), pg_temp.lease('mail'), 'TimeoutError', E'no\nanswer', timeout_kind => 'read', timeout_limit_ms => 2000) \g /dev/null
SELECT pg_temp.at('00:00:05') \g /dev/null
SELECT pg_temp.claimed('mail') \g /dev/null
SELECT pg_temp.at('00:00:08.500') \g /dev/null
SELECT count(*) FROM holdfast.claim('mail', 'another') \g /dev/null
SELECT pg_temp.at('00:00:09.500') \g /dev/null
SELECT pg_temp.claimed('mail') \g /dev/null
SELECT pg_temp.at('00:00:10.200') \g /dev/null
SELECT holdfast.reconcile(pg_temp.id('mail'), pg_temp.old_lease('mail'), 'landed') \g /dev/null
SELECT holdfast.reconcile(pg_temp.id('mail'), pg_temp.lease('mail'), 'landed', '{"message": 7}') \g /dev/null
SELECT holdfast.enqueue('mail', 'send_email', 'prospect-7ca677ed25d3', '{"to": "a"}', correlation_id => 'campaign-9') \g /dev/null

SELECT results_eq($$SELECT * FROM pg_temp.lines('subject => ''prospect-7ca677ed25d3''')$$, $$VALUES
	('00:00.000 | 42 | enqueued | by ' || pg_temp.me()),
	('00:01.000 | 42 | 1 | w | started | lease of 3 s, timeout 2 s, failure 0 of 5 so far | started'),
	('00:03.001 | 42 | 1 | w | failed: TimeoutError (read): configured 2 s, elapsed 2.001 s | 2.001 s | unknown'),
	('00:03.001 | 42 | 1 | w | to be reconciled | failure 1 of 5; the effect is unknown, to be reconciled in 1 s by policy demo; not before 00:00:04.001 | unknown'),
	('00:05.000 | 42 | 2 | w | started, to find out | lease of 3 s, timeout 2 s, failure 1 of 5 so far | unknown | gap 1.999 s'),
	('00:08.500 | 42 | 2 | w | lost: LeaseExpired (lease): configured 3 s, elapsed 3.500 s | 3.500 s | unknown'),
	('00:08.500 | 42 | 2 | w | to be reconciled | failure 1 of 5; the effect is unknown, to be reconciled in 1 s by policy demo; not before 00:00:09.500 | unknown'),
	('00:09.500 | 42 | 3 | w | started, to find out | lease of 3 s, timeout 2 s, failure 1 of 5 so far | unknown | OVERLAP 0.700 s with attempt 2'),
	('00:10.200 | 42 | 2 | w | stale report: reconcile | the lease''s end is on record | STALE'),
	('00:10.200 | 42 | 3 | w | found: landed | done | committed'),
	('00:10.200 | 42 | 3 | enqueued again: already_committed')$$,
	'G7: everything that happened to the subject, in order: who, how long, what was decided and why, what is known; the gap and the overlap are marked');
SELECT results_eq($$SELECT lease FROM holdfast.timeline('prospect-7ca677ed25d3') WHERE attempt = 3 AND what LIKE 'started%'$$,
	$$SELECT left(pg_temp.lease('mail')::text, 8) COLLATE "default"$$, 'a lease by its first eight characters');
SELECT set_config('intervalstyle', 'iso_8601', true) \g /dev/null
CREATE FUNCTION pg_temp.digest(call text) RETURNS text LANGUAGE sql AS $$ SELECT count(*) || ' ' || md5(string_agg(l, ';')) FROM pg_temp.lines($1) l $$;
SELECT is(pg_temp.digest(call), pg_temp.digest($$'prospect-7ca677ed25d3'$$), 'the same by ' || call) FROM unnest(ARRAY[
	'job_id => 42', $$correlation_id => 'campaign-9'$$, $$'prospect-7ca677ed25d3', 'send_email'$$,
	$$since => '2030-01-01 00:00:00+00'$$, $$action_key => 'send_email'$$, $$until => '2030-01-01 01:00:00+00'$$,
	$$'prospect-7ca677ed25d3', since => '2030-01-01 00:00:00+00', until => '2030-01-01 00:00:10.201+00'$$]) AS call;
SELECT is(pg_temp.digest(format('idempotency_key => %L', idempotency_key)), pg_temp.digest($$'prospect-7ca677ed25d3'$$), 'the same by the key')
	FROM scene WHERE name = 'mail';
SELECT is(pg_temp.digest(format('idempotency_key => %L', holdfast.key_of('nobody''s'))), NULL, 'a key that nobody knows has no history');
SELECT results_eq($$SELECT * FROM pg_temp.lines('''prospect-7ca677ed25d3'', since => ''2030-01-01 00:00:03.001+00'', until => ''2030-01-01 00:00:05+00''')$$, $$VALUES
	('00:03.001 | 42 | 1 | w | failed: TimeoutError (read): configured 2 s, elapsed 2.001 s | 2.001 s | unknown'),
	('00:03.001 | 42 | 1 | w | to be reconciled | failure 1 of 5; the effect is unknown, to be reconciled in 1 s by policy demo; not before 00:00:04.001 | unknown')$$,
	'since is inclusive, until exclusive');
SELECT is_empty($$SELECT * FROM holdfast.timeline($$ || call || ')', 'nothing: ' || call) FROM unnest(ARRAY[
	$$'nobody'$$, 'job_id => 41', $$'prospect-7ca677ed25d3', 'other'$$, $$'prospect-7ca677ed25d3', job_id => 44$$, $$correlation_id => 'campaign'$$,
	$$'prospect-7ca677ed25d3', since => '2031-01-01'$$, $$source_job => '42'$$]) AS call;
SELECT throws_ok('SELECT * FROM holdfast.timeline()', '22023', 'nothing says whose history is asked for', 'nothing at all is refused');

-- other ends

SELECT pg_temp.at('00:10:00') \g /dev/null
SELECT holdfast.define_stream('other', 'loop', 1, '1 min') \g /dev/null
SELECT holdfast.enqueue('other', 'charge', 'customer-1', stream => 'loop') \g /dev/null
SELECT pg_temp.claimed('other') \g /dev/null
SELECT holdfast.snooze(pg_temp.id('other'), pg_temp.lease('other'), '5 s', 'not yet') \g /dev/null
SELECT pg_temp.at('00:10:05') \g /dev/null
SELECT pg_temp.claimed('other') \g /dev/null
SELECT holdfast.heartbeat(pg_temp.id('other'), pg_temp.lease('other')) \g /dev/null
SELECT pg_temp.at('00:10:09') \g /dev/null
SELECT holdfast.fail(pg_temp.id('other'), pg_temp.lease('other'), 'ValidationError', 'no such card: <b>' || repeat('x', 100), 'none') \g /dev/null
SELECT holdfast.redrive(pg_temp.id('other'), 'card corrected') \g /dev/null
SELECT count(*) FROM holdfast.claim('other', 'w2') \g /dev/null
SELECT holdfast.cancel(pg_temp.id('other'), 'customer has left') \g /dev/null
SELECT results_eq($$SELECT * FROM pg_temp.lines('''customer-1''')$$, $$VALUES
	('10:00.000 | 44 | enqueued | by ' || pg_temp.me()),
	('10:00.000 | 44 | 1 | w | started | lease of 3 s, timeout 2 s, failure 0 of 5 so far | started'),
	('10:00.000 | 44 | 1 | w | snoozed | 0 s | snooze by the worker, 1 in a row; not charged, failure 0 of 5 (attempt 1); not before 00:10:05.000; not yet | planned'),
	('10:05.000 | 44 | 2 | w | started | lease of 3 s, timeout 2 s, failure 0 of 5 so far | started | gap 5 s'),
	('10:09.000 | 44 | 2 | w | failed: ValidationError: no such card: <b>' || repeat('x', 63) || ' | 4 s | failed_terminal | LATE'),
	('10:09.000 | 44 | 2 | w | dead: terminal | failure 1 of 5; rule default/ValidationError says terminal | failed_terminal'),
	('10:09.000 | 44 | 2 | redriven | not before 00:10:09.000; by ' || pg_temp.me() || '; card corrected | planned'),
	('10:09.000 | 44 | 2 | parked | stream loop is open: 1 jobs in a row ended in failure; not before 00:11:09.000'),
	('10:09.000 | 44 | 2 | cancelled | cancelled; by ' || pg_temp.me() || '; customer has left | planned')$$,
	'snoozed, late, dead, redriven, parked, cancelled: each with its reason');

-- attempts of elsewhere

SELECT holdfast.import_attempts('loops', $$[
	{"job_id": "a", "subject": "loop-1", "action_key": "review", "attempt_number": 1, "worker_name": "r1", "lease_id": "L1", "correlation_id": "c",
	 "started_at": "2029-12-31 10:00:00+00", "finished_at": "2029-12-31 10:12:23+00", "outcome": "timeout", "exception_class": "TimeoutError",
	 "timeout_kind": "max_runtime", "timeout_ms": 21600000, "next_not_before": "2029-12-31 10:13:00+00", "retry_policy": "loop"},
	{"job_id": "a", "subject": "loop-1", "action_key": "review", "attempt_number": 2, "worker_name": "r2", "lease_id": "L2", "correlation_id": "c",
	 "started_at": "2029-12-31 10:12:40+00", "lease_expires_at": "2029-12-31 10:20:00+00"},
	{"job_id": "b", "subject": "loop-1", "action_key": "review", "attempt_number": 1, "worker_name": "r3", "lease_id": "L3", "correlation_id": "c",
	 "started_at": "2029-12-31 10:15:00+00", "finished_at": "2029-12-31 10:15:01+00", "outcome": "succeeded", "idempotency_key": "k"}]$$) \g /dev/null
SELECT results_eq($$SELECT * FROM pg_temp.lines('''loop-1''')$$, $$VALUES
	('00:00.000 | loops/a | 1 | r1 | started | timeout 21600 s'),
	('12:23.000 | loops/a | 1 | r1 | timeout: TimeoutError (max_runtime): configured 21600 s, elapsed 743 s | 743 s | not before 10:13:00.000; by policy loop'),
	('12:40.000 | loops/a | 2 | r2 | started | lease of 440 s | EARLY by 20 s, gap 17 s'),
	('15:00.000 | loops/b | 1 | r3 | started'),
	('15:01.000 | loops/b | 1 | r3 | succeeded | 1 s')$$, 'an imported log reads the same way; both figures of the timeout are there');
SELECT is(pg_temp.digest(call), pg_temp.digest($$'loop-1'$$), 'the same by ' || call) FROM unnest(ARRAY[
	$$correlation_id => 'c'$$, $$'loop-1', 'review'$$, $$until => '2030-01-01'$$]) AS call;
SELECT holdfast.import_attempts('twice', jsonb_build_array(r, r)) FROM (VALUES ('{"job_id": "c", "subject": "twice", "action_key": "review", "attempt_number": 1,
	"lease_id": "L", "started_at": "2029-12-31 11:00:00+00", "finished_at": "2029-12-31 11:00:01+00", "outcome": "failed", "exception_class": "E"}'::jsonb)) v (r) \g /dev/null
SELECT is((SELECT string_agg(what, ', ') FROM holdfast.timeline('twice')), 'started, started, failed: E, failed: E', 'what a log says twice is said twice, and no more');
SELECT is((SELECT count(*) FROM pg_temp.lines($$source_job => 'b'$$)), 2::bigint, 'a job of elsewhere by its id there');
SELECT is((SELECT count(*) FROM pg_temp.lines($$idempotency_key => '00000000-0000-0000-0000-000000000000'$$)), 0::bigint, 'a key that is no uuid is not asked for');

-- how it is found: by indexes only

CREATE FUNCTION pg_temp.scans(relkind "char") RETURNS bigint LANGUAGE sql AS $$
	SELECT sum(pg_stat_get_xact_numscans(c.oid))::bigint FROM pg_class c
	WHERE c.relname ~ '^(event|attempt_record)_?' AND c.relkind = $1 AND c.relnamespace = 'holdfast'::regnamespace
$$;
SET LOCAL enable_seqscan = off;	-- attempt_record is small here
DISCARD PLANS;	-- those above were made with it on, for tables as small as these
CREATE TEMPORARY TABLE before AS SELECT pg_temp.scans('r') AS tables, pg_temp.scans('i') AS indexes;
SELECT count(*) FROM pg_temp.lines($$'customer-1'$$) \g /dev/null
SELECT count(*) FROM pg_temp.lines($$job_id => 42$$) \g /dev/null
SELECT is(pg_temp.scans('r') - tables, 0::bigint, 'neither a subject nor a job has a table read through') FROM before;
SELECT cmp_ok(pg_temp.scans('i') - indexes, '>', 0::bigint, 'but indexes') FROM before;
SELECT count(*) FROM pg_temp.lines($$correlation_id => 'campaign-9'$$) \g /dev/null
SELECT cmp_ok(pg_temp.scans('r') - tables, '>', 0::bigint, 'a correlation id alone has the days read through') FROM before;

-- a subject of many jobs

SELECT holdfast.create_queue('many') \g /dev/null
SELECT holdfast.enqueue('many', 'act', 'many', scope => n::text) FROM generate_series(1, 25) n \g /dev/null
SELECT count(*) FROM holdfast.claim('many', 'w', 25) \g /dev/null
SELECT results_eq($$SELECT count(*), count(DISTINCT job), count(*) FILTER (WHERE what = 'started') FROM holdfast.timeline('many')$$,
	$$VALUES (50::bigint, 25::bigint, 25::bigint)$$, 'each of many jobs of a subject, once');

-- G13: rows of the queues granted to the caller

CREATE ROLE regress_holdfast_reader;
SELECT holdfast.grant_queue('mail', 'regress_holdfast_reader', 'reader') \g /dev/null
CREATE FUNCTION pg_temp.as_reader(call text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	n	bigint;
BEGIN
	SET LOCAL ROLE regress_holdfast_reader;
	EXECUTE format('SELECT count(*) FROM holdfast.timeline(%s)', call) INTO n;
	RESET ROLE;
	RETURN n;
END
$$;
SELECT is(pg_temp.as_reader($$'prospect-7ca677ed25d3'$$), 11::bigint, 'G13: a reader sees its queue');
SELECT is(pg_temp.as_reader('job_id => 42'), 11::bigint, 'G13: by any way');
SELECT is(pg_temp.as_reader(call), 0::bigint, 'G13: and no other: ' || call) FROM unnest(ARRAY[$$'customer-1'$$, 'job_id => 44', $$'loop-1'$$, $$correlation_id => 'c'$$]) AS call;

SELECT * FROM finish();
ROLLBACK;
