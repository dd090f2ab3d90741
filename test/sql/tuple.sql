\i test/setup.sql
\i test/tools.sql
-- Rows are formed by the library (tuple.c): values of every length and kind are in the next version as they were in the last.
SELECT plan(19);

SELECT pg_temp.at('00:00:00') \g /dev/null
SELECT holdfast.create_queue('sizes') \g /dev/null

-- short and long headers, compressed, out of line
CREATE TEMPORARY TABLE given AS
	SELECT n, jsonb_build_object('m', left(string_agg(md5(concat_ws('-', n, i)), '' ORDER BY i), n)) AS mixed, jsonb_build_object('a', repeat('a', n)) AS alike,
		   CASE WHEN n > 0 AND n <= 200 THEN repeat('é', n) END AS scope
	FROM (SELECT generate_series(0, 300) UNION ALL VALUES (2000), (2048), (8000), (100000), (400000)) l (n), generate_series(0, n / 32) i
	GROUP BY n;
CREATE FUNCTION pg_temp.enter(version int) RETURNS bigint LANGUAGE sql AS $$
	SELECT count(*) FROM given g, holdfast.enqueue('sizes', 'act', 'subject ' || n, mixed, scope, version, headers => alike) e WHERE e.outcome = 'created'
$$;
-- what no claim and no failure changes
CREATE VIEW pg_temp.kept AS
	SELECT j.job_id, to_jsonb(j) - '{status, attempt_number, fencing_token, lease_id, lease_expires_at, started_at, last_event_at, worker_name, ledger_place,
		run_after, failures, last_error_class, last_error_message, mode}'::text[] AS row
	FROM holdfast.job j;

SELECT is(pg_temp.enter(1), 306::bigint, 'jobs of every length are entered');
CREATE TEMPORARY TABLE before AS SELECT * FROM pg_temp.kept;
SELECT is_empty($$SELECT n FROM given g JOIN holdfast.job j ON j.subject = 'subject ' || n
	WHERE (j.payload, j.headers, j.scope) IS DISTINCT FROM (g.mixed, g.alike, g.scope)$$, 'they are stored as they were given');

CREATE TEMPORARY TABLE taken AS SELECT * FROM holdfast.claim('sizes', repeat('w', 150), 1000);
SELECT is((SELECT count(*) FROM given g JOIN taken t ON t.subject = 'subject ' || n
	WHERE (t.payload, t.headers, t.scope) IS NOT DISTINCT FROM (g.mixed, g.alike, g.scope)), 306::bigint, 'a claim answers them as they were given');
SELECT set_eq('TABLE pg_temp.kept', 'TABLE before', 'a claimed job is what it was, but for what the claim has written');
SELECT is((SELECT count(*) FROM holdfast.job j JOIN taken t USING (job_id, lease_id, attempt_number, fencing_token) WHERE j.worker_name = repeat('w', 150)), 306::bigint, 'and that is stored');
SELECT is((SELECT count(*) FROM holdfast.event e JOIN taken t USING (job_id, lease_id) JOIN given g ON e.subject = 'subject ' || n
	WHERE e.kind = 'action_attempt_started' AND e.scope IS NOT DISTINCT FROM g.scope AND e.worker_name = repeat('w', 150)), 306::bigint, 'and in evidence');

SELECT is((SELECT count(*) FROM taken t, holdfast.fail(t.job_id, t.lease_id, 'ConnectionError', left(t.payload ->> 'm', 300), 'none') f WHERE f.decision = 'retry'), 306::bigint,
	'all of them fail');
SELECT set_eq('TABLE pg_temp.kept', 'TABLE before', 'a failed job is what it was');
SELECT is((SELECT count(*) FROM holdfast.event e JOIN taken t USING (job_id, lease_id) WHERE e.kind = 'action_attempt_failed' AND e.message = left(t.payload ->> 'm', 300)),
	306::bigint, 'messages of every length are on record');

-- columns that the library does not know, of every alignment, in rows from before and after
ALTER TABLE holdfast.job
	ADD COLUMN odd_boolean boolean NOT NULL DEFAULT true, ADD COLUMN odd_smallint smallint DEFAULT -7, ADD COLUMN odd_char "char" DEFAULT 'c', ADD COLUMN odd_point point DEFAULT '(1,2)',
	ADD COLUMN odd_nothing int, ADD COLUMN odd_name name DEFAULT 'a name', ADD COLUMN odd_float double precision DEFAULT 0.5, ADD COLUMN odd_macaddr macaddr DEFAULT '08:00:2b:01:02:03',
	ADD COLUMN odd_numeric numeric DEFAULT 12345.678, ADD COLUMN odd_array int[] DEFAULT '{1,2,3}', ADD COLUMN odd_plain text DEFAULT 'plain', ALTER COLUMN odd_plain SET STORAGE PLAIN;
CREATE FUNCTION pg_temp.odd() RETURNS bigint LANGUAGE sql AS $$
	SELECT count(*) FROM holdfast.job
	WHERE odd_boolean AND odd_smallint = -7 AND odd_char = 'c' AND odd_point ~= '(1,2)' AND odd_nothing IS NULL AND odd_name = 'a name' AND odd_float = 0.5
	  AND odd_macaddr = '08:00:2b:01:02:03' AND odd_numeric = 12345.678 AND odd_array = '{1,2,3}' AND odd_plain = 'plain'
$$;
SELECT is(pg_temp.odd(), 306::bigint, 'columns are added');
SELECT pg_temp.at('01:00:00') \g /dev/null
SELECT is(pg_temp.enter(2), 306::bigint, 'more jobs are entered');
SELECT is(pg_temp.odd(), 612::bigint, 'they have the defaults');
SELECT is((SELECT count(*) FROM holdfast.claim('sizes', 'w', 1000)), 612::bigint, 'all are claimed');
SELECT is(pg_temp.odd(), 612::bigint, 'and keep the columns that the library does not know');
SELECT is((SELECT count(*) FROM given g JOIN holdfast.job j ON j.subject = 'subject ' || n
	WHERE (j.payload, j.headers, j.scope) IS NOT DISTINCT FROM (g.mixed, g.alike, g.scope)), 612::bigint, 'and those that it does');
SELECT is((SELECT count(*) FROM holdfast.job j, holdfast.complete(j.job_id, j.lease_id) c WHERE c = 'completed'), 612::bigint, 'and can be completed');

-- an error in the midst of storing rows leaves nothing behind that the next call would stumble over
SELECT pg_temp.at('02:00:00') \g /dev/null
SELECT pg_temp.enter(3) \g /dev/null
SELECT DISTINCT tableoid::regclass AS day FROM (SELECT tableoid FROM holdfast.event UNION ALL SELECT tableoid FROM holdfast.event_overflow) e \gset
CREATE INDEX fails ON :day ((1 / length(replace(worker_name, 'who fails', '')))) WHERE kind = 'action_attempt_started';
SELECT is(pg_temp.refusal($$SELECT count(*) FROM holdfast.claim('sizes', 'who fails', 1000)$$), '22012', 'evidence that cannot be stored');
SELECT is((SELECT count(*) FROM holdfast.claim('sizes', 'w', 1000)), 306::bigint, 'the next claim stores it');
SELECT is((SELECT count(*) FROM holdfast.job j, holdfast.complete(j.job_id, j.lease_id) c WHERE c = 'completed'), 306::bigint, 'and the jobs can be completed');

SELECT * FROM finish();
ROLLBACK;
