\i test/setup.sql
\i test/tools.sql
-- Kinds of tables: partitioned ones, queues that write little, the presets; and who may change a watched row.
SELECT plan(58);

SELECT pg_temp.at('00:00:00') \g /dev/null
CREATE SCHEMA own;
CREATE FUNCTION pg_temp.seen(source text) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(concat_ws(' ', a.job_id, a.attempt_number, coalesce(a.outcome, 'runs'), CASE WHEN a.final THEN 'final' END), ', ' ORDER BY a.arrival)
	FROM holdfast.attempt a WHERE a.source = seen.source
$$;
CREATE FUNCTION pg_temp.broke(source text) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(concat_ws(' ', v.id, v.violation, v.action), ', ' ORDER BY v.at, v.id, v.violation) FROM holdfast.violation v WHERE v.source = broke.source
$$;

-- an UPDATE that moves a row between partitions is one change

CREATE TABLE own.parts (id integer, status text NOT NULL DEFAULT 'pending', attempts integer NOT NULL DEFAULT 0, run_after timestamptz, lease_end timestamptz, key text)
	PARTITION BY LIST (status);
CREATE TABLE own.parts_running (note text, lease_end timestamptz, attempts integer NOT NULL DEFAULT 0, run_after timestamptz, key text, id integer, status text NOT NULL);
ALTER TABLE own.parts_running DROP COLUMN note;
ALTER TABLE own.parts ATTACH PARTITION own.parts_running FOR VALUES IN ('running');
CREATE TABLE own.parts_rest PARTITION OF own.parts DEFAULT PARTITION BY RANGE (id);
CREATE TABLE own.parts_low PARTITION OF own.parts_rest FOR VALUES FROM (MINVALUE) TO (100);
SELECT holdfast.watch('own.parts', '{"id": "id", "status": "status", "attempt_number": "attempts", "run_after": "run_after", "lease_expires_at": "lease_end",
	"idempotency_key": "key", "succeeded": ["done"]}') \g /dev/null
CREATE TABLE own.parts_high PARTITION OF own.parts_rest FOR VALUES FROM (100) TO (MAXVALUE);
INSERT INTO own.parts (id, key) VALUES (1, 'k'), (2, 'k2');
SELECT is(pg_temp.seen('own.parts'), NULL, 'nothing has begun');
UPDATE own.parts SET status = 'running', attempts = attempts + 1 WHERE id = 1;
SELECT is(pg_temp.seen('own.parts'), '1 1 runs', 'a claim that moves the row begins an attempt');
UPDATE own.parts SET lease_end = pg_temp.clock() + interval '1 min' WHERE id = 1;
SELECT is((SELECT lease_expires_at FROM holdfast.attempt WHERE source = 'own.parts'), pg_temp.clock() + interval '1 min', 'a heartbeat in its partition');
UPDATE own.parts SET status = 'pending', run_after = pg_temp.clock() WHERE id = 1;
SELECT is(pg_temp.seen('own.parts'), '1 1 failed', 'a requeue that moves it ends the attempt, and is no success');
SELECT is(pg_temp.broke('own.parts'), '1 requeue_without_delay recorded', 'G3: and it is judged as one change');
UPDATE own.parts SET status = 'running', attempts = attempts + 1 WHERE id = 1;
SELECT is(pg_temp.broke('own.parts'), '1 requeue_without_delay recorded, 1 retry_without_backoff recorded', 'G3: so is the claim that follows');
UPDATE own.parts SET status = 'done' WHERE id = 1;
SELECT is(pg_temp.seen('own.parts'), '1 1 failed, 1 2 succeeded final', 'a success that moves it');
SELECT is((SELECT stop_reason FROM holdfast.attempt WHERE source = 'own.parts' AND attempt_number = 2), 'done', 'with its status, and not as a deletion');
UPDATE own.parts SET id = 101 WHERE id = 2;
UPDATE own.parts SET status = 'running', attempts = 1 WHERE id = 101;
UPDATE own.parts SET status = 'elsewhere', attempts = 1 WHERE id = 101;
SELECT is(pg_temp.seen('own.parts'), '1 1 failed, 1 2 succeeded final, 101 1 cancelled final', 'a partition made after the watch began is watched too');
INSERT INTO own.parts (id, status, attempts) VALUES (3, 'running', 1);
DELETE FROM own.parts WHERE id = 3;
SELECT is((SELECT stop_reason FROM holdfast.attempt WHERE source = 'own.parts' AND job_id = '3'), 'deleted', 'a row deleted in earnest is gone');
SELECT holdfast.watch('own.parts', mode => 'correct') \g /dev/null
INSERT INTO own.parts (id) VALUES (4);
UPDATE own.parts SET status = 'running', attempts = 1 WHERE id = 4;
UPDATE own.parts SET status = 'pending' WHERE id = 4;
SELECT is((SELECT run_after - pg_temp.clock() FROM own.parts WHERE id = 4), holdfast.backoff_delay('default', 4, 1), 'G3: correct gives a moving row its delay');
UPDATE own.parts SET status = 'running', attempts = 2 WHERE id = 4;
SELECT is((SELECT status FROM own.parts WHERE id = 4), 'pending', 'G3: and lets no retry begin early');
SELECT holdfast.watch('own.parts', mode => 'enforce') \g /dev/null
SELECT is(pg_temp.refusal($$UPDATE own.parts SET status = 'running', attempts = 2 WHERE id = 4$$), 'JQ006', 'G3: enforce refuses it');
INSERT INTO own.parts (id, status, attempts) VALUES (5, 'running', 1);
SELECT is(pg_temp.refusal($$WITH gone AS (DELETE FROM own.parts WHERE id = 5 RETURNING *) INSERT INTO own.parts SELECT id, 'pending', attempts FROM gone$$), 'JQ006',
	'G3: and a row deleted and entered again at once');
SELECT is((SELECT count(*) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE c.relname LIKE 'parts%' AND t.tgenabled <> 'A'), 0::bigint, 'every trigger is ENABLE ALWAYS');
SELECT is((SELECT string_agg(c.relname, ' ' ORDER BY c.relname) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE t.tgname = 'holdfast_watch_truncate' AND t.tgenabled = 'A'),
	'parts parts_high parts_low parts_rest parts_running', 'each partition tells of its TRUNCATE');
SELECT holdfast.watch('own.parts', mode => 'observe') \g /dev/null
SELECT is((SELECT count(*) FROM pg_trigger WHERE tgname = 'zzz_holdfast_watch'), 0::bigint, 'observe needs no trigger before the row');
SET LOCAL session_replication_role = replica;
UPDATE own.parts SET status = 'running', attempts = 2 WHERE id = 4;
SET LOCAL session_replication_role = origin;
SELECT is((SELECT outcome FROM holdfast.attempt WHERE source = 'own.parts' AND job_id = '4' AND attempt_number = 2), NULL, 'session_replication_role hides nothing');
SELECT is((SELECT count(*) FROM holdfast.attempt WHERE source = 'own.parts' AND job_id = '4'), 2::bigint, 'the attempt is there');

-- a queue that writes nothing at its claim: an attempt shows at its end

CREATE TABLE own.locked (id integer PRIMARY KEY, state text NOT NULL DEFAULT 'todo', tries integer NOT NULL DEFAULT 0, due timestamptz, error text);
SELECT holdfast.watch('own.locked', '{"id": "id", "status": "state", "attempt_number": "tries", "run_after": "due", "message": "error",
	"pending": ["todo"], "running": [], "succeeded": ["done"], "dead": ["dead"]}') \g /dev/null
INSERT INTO own.locked (id) VALUES (1), (2), (3);
UPDATE own.locked SET state = 'done' WHERE id = 1;
UPDATE own.locked SET tries = tries + 1, due = pg_temp.clock() + interval '1 min', error = 'request timed out' WHERE id = 2;
UPDATE own.locked SET due = pg_temp.clock() WHERE id = 3;
SELECT is(pg_temp.seen('own.locked'), '1 1 succeeded final, 2 1 timeout', 'successes and counted failures');
SELECT is((SELECT next_not_before FROM holdfast.attempt WHERE source = 'own.locked' AND job_id = '2'), pg_temp.clock() + interval '1 min', 'with the time of the retry');
SELECT is(pg_temp.broke('own.locked'), NULL, 'and no violation');
UPDATE own.locked SET tries = tries + 1, due = pg_temp.clock() WHERE id = 3;
SELECT is(pg_temp.broke('own.locked'), '3 requeue_without_delay recorded', 'G3: a failure without delay is one');

-- status by expression, an array or boolean column; a table whose claims do not count

CREATE TABLE own.flags (id text PRIMARY KEY, busy boolean NOT NULL DEFAULT false, worker text, run_after timestamptz);
SELECT holdfast.watch('own.flags', '{"id": "id", "status": "busy", "pending": [false], "running": [true], "worker_name": "worker", "run_after": "run_after"}') \g /dev/null
INSERT INTO own.flags VALUES ('a'), ('');
UPDATE own.flags SET busy = true, worker = 'w1' WHERE id = 'a';
UPDATE own.flags SET worker = 'w2' WHERE id = 'a';
SELECT is(pg_temp.seen('own.flags'), 'a 1 lost, a 2 runs', 'another worker on a running row is another attempt; attempts are counted here');
SELECT is((SELECT lease_id FROM holdfast.attempt WHERE source = 'own.flags' AND attempt_number = 2), 'a:2:2030-01-01T00:00:00.000001Z', 'a worker''s name is never a lease: one is made of id, attempt and start');
SELECT is((SELECT bool_and(synthetic_lease) FROM holdfast.attempt WHERE source = 'own.flags'), true, 'and marked synthetic');
UPDATE own.flags SET busy = false, run_after = 'infinity' WHERE id = 'a';
SELECT is(pg_temp.seen('own.flags'), 'a 1 lost, a 2 failed', 'a row parked for ever');
SELECT is(pg_temp.broke('own.flags'), NULL, 'is no retry without delay');
UPDATE own.flags SET busy = true, run_after = NULL WHERE id = '';
SELECT is((SELECT count(*) FROM holdfast.attempt WHERE source = 'own.flags' AND job_id = '(null)'), 1::bigint, 'an id that is null or empty has a name');
SELECT results_eq($$SELECT a.job_id COLLATE "default" FROM holdfast.attempt_record a WHERE a.source = 'own.flags' AND (a.job_id = '' OR a.subject = '' OR a.action_key = '' OR NOT isfinite(a.started_at))$$,
	$$SELECT ''::text WHERE false$$, 'what the constraints of attempt_record say holds');

-- mode correct writes a time of the column's type

CREATE DOMAIN own.soon AS timestamptz CHECK (VALUE < '2030-01-01 00:30:00+00');
CREATE TABLE own.bounded (id integer PRIMARY KEY, status text, attempts integer, run_after own.soon);
SELECT holdfast.watch('own.bounded', '{"id": "id", "status": "status", "attempt_number": "attempts", "run_after": "run_after"}', 'correct') \g /dev/null
SELECT pg_temp.at('00:10:00') \g /dev/null
INSERT INTO own.bounded VALUES (1, 'running', 1), (2, 'running', 1);
SELECT is(pg_temp.refusal($$UPDATE own.bounded SET status = 'pending' WHERE id = 1$$), 'accepted', 'a delay that the domain takes');
SELECT pg_temp.at('00:29:59.9') \g /dev/null
SELECT is(pg_temp.refusal($$UPDATE own.bounded SET status = 'pending' WHERE id = 2$$), '23514', 'a domain''s constraint is not passed by');

-- a failed row of which nothing is on record is put back

CREATE TABLE own.before (id integer PRIMARY KEY, status text, run_after timestamptz);
INSERT INTO own.before VALUES (1, 'failed', '2020-01-01 00:00:00+00');
SELECT holdfast.watch('own.before', '{"id": "id", "status": "status", "run_after": "run_after"}', 'correct') \g /dev/null
INSERT INTO own.before VALUES (2, 'failed', '2020-01-01 00:00:00+00');
UPDATE own.before SET status = 'pending';
SELECT is((SELECT count(*) FROM own.before WHERE run_after > pg_temp.clock()), 2::bigint, 'mode correct gives it its delay');
SELECT results_eq($$SELECT DISTINCT violation COLLATE "default", action COLLATE "default", because COLLATE "default" FROM holdfast.violation WHERE source = 'own.before'$$,
	$$VALUES ('requeue_without_delay', 'corrected', 'it had failed, of which nothing is on record, and run_after is 2020-01-01T00:00:00Z')$$, 'and says what it knows');
SELECT holdfast.watch('own.before', mode => 'enforce') \g /dev/null
INSERT INTO own.before VALUES (3, 'failed', '2020-01-01 00:00:00+00');
SELECT is(pg_temp.refusal($$UPDATE own.before SET status = 'pending' WHERE id = 3$$), 'JQ006', 'mode enforce refuses it');

-- counts that are none, or have no room

CREATE TABLE own.counts (id integer PRIMARY KEY, status text DEFAULT 'pending', attempts bigint, most bigint);
SELECT holdfast.watch('own.counts', '{"id": "id", "status": "status", "attempt_number": "attempts", "max_attempts": "most"}') \g /dev/null
INSERT INTO own.counts VALUES (1, DEFAULT, 9223372036854775807, 9223372036854775807), (2, DEFAULT, 2147483647, -9223372036854775808), (3, DEFAULT, -9223372036854775808, 0), (4, DEFAULT, -1, -1);
UPDATE own.counts SET status = 'running';
UPDATE own.counts SET status = 'failed';
SELECT results_eq($$SELECT job_id COLLATE "default", attempt_number, failures, max_attempts FROM holdfast.attempt WHERE source = 'own.counts' ORDER BY 1$$,
	$$VALUES ('1', 2147483647, 2147483647, 2147483647), ('2', 2147483647, 2147483647, 0), ('3', 1, 1, 0), ('4', 1, 1, 0)$$, 'are kept as the nearest that is one');
SELECT lives_ok($$CREATE TEMPORARY TABLE stops AS SELECT * FROM holdfast.stop_reason$$, 'and the views can count with them');

-- an operator puts rows back

CREATE TABLE own.dead (id integer PRIMARY KEY, status text NOT NULL DEFAULT 'pending', attempts integer NOT NULL DEFAULT 0, run_after timestamptz NOT NULL DEFAULT '2020-01-01');
SELECT holdfast.watch('own.dead', '{"id": "id", "status": "status", "attempt_number": "attempts", "run_after": "run_after"}', 'enforce') \g /dev/null
INSERT INTO own.dead VALUES (1);
UPDATE own.dead SET status = 'running', attempts = 1;
UPDATE own.dead SET status = 'dead';
SELECT is(pg_temp.refusal($$UPDATE own.dead SET status = 'pending'$$), 'JQ004', 'a dead row is not revived by hand');
SELECT holdfast.watch_redriven('own.dead'::regclass, '1') \g /dev/null
SELECT is(pg_temp.refusal($$UPDATE own.dead SET status = 'pending'$$), 'accepted', 'an operator who says so may');
SELECT is(pg_temp.refusal($$UPDATE own.dead SET status = 'running', attempts = 2$$), 'accepted', 'and it may begin at once');
SELECT is(pg_temp.seen('own.dead'), '1 1 failed, 1 2 runs', 'the attempt before is not the last any more');
SELECT is(pg_temp.broke('own.dead'), NULL, 'and none of this is a violation');
UPDATE own.dead SET status = 'failed';
SELECT is(pg_temp.refusal($$UPDATE own.dead SET status = 'pending', run_after = pg_temp.clock()$$), 'JQ006', 'G3: a failed row is not put back for now');
SELECT is(pg_temp.refusal($$UPDATE own.dead SET status = 'running', attempts = 3$$), 'JQ006', 'G3: nor claimed before the policy''s time');
SELECT pg_temp.at('01:00:00') \g /dev/null
SELECT is(pg_temp.refusal($$UPDATE own.dead SET status = 'running', attempts = 3$$), 'accepted', 'G3: after it, it is claimed');

-- the presets fit the tables they are for, as far as those are known

CREATE SCHEMA pgboss;
CREATE TYPE pgboss.job_state AS ENUM ('created', 'retry', 'active', 'completed', 'cancelled', 'failed');
CREATE TABLE pgboss.job (id uuid, name text, state pgboss.job_state, retry_limit integer, retry_count integer, start_after timestamptz, started_on timestamptz, singleton_key text,
	expire_in interval, expire_seconds integer, output jsonb);
CREATE SCHEMA graphile_worker;
CREATE TABLE graphile_worker._private_jobs (id bigint, task_id integer, run_at timestamptz, attempts smallint, max_attempts smallint, last_error text, key text, locked_at timestamptz, locked_by text);
CREATE TYPE own.river_state AS ENUM ('available', 'cancelled', 'completed', 'discarded', 'pending', 'retryable', 'running', 'scheduled');
CREATE TABLE own.river_job (id bigint, state own.river_state, attempt smallint, max_attempts smallint, attempted_at timestamptz, attempted_by text[], scheduled_at timestamptz, kind text, errors jsonb[]);
CREATE TYPE own.oban_state AS ENUM ('available', 'scheduled', 'executing', 'retryable', 'completed', 'discarded', 'cancelled');
CREATE TABLE own.oban_jobs (id bigint, state own.oban_state, worker text, attempt integer, max_attempts integer, attempted_at timestamp, attempted_by text[], scheduled_at timestamp, errors jsonb[]);
CREATE TABLE own.q_mail (msg_id bigint, read_ct integer NOT NULL DEFAULT 0, enqueued_at timestamptz, vt timestamptz, message jsonb);
CREATE TYPE own.procrastinate_status AS ENUM ('todo', 'doing', 'succeeded', 'failed');
CREATE TABLE own.procrastinate_jobs (id bigint, queue_name text, task_name text, status own.procrastinate_status, scheduled_at timestamptz, attempts integer NOT NULL DEFAULT 0);
SELECT is(pg_temp.refusal(format('SELECT holdfast.watch(%L, holdfast.watch_preset(%L), %L)', relation, preset, mode)), 'accepted', format('preset %s, %s', preset, mode)) FROM (VALUES
	('graphile_worker._private_jobs', 'graphile-worker', 'correct'), ('pgboss.job', 'pg-boss', 'observe'), ('pgboss.job', 'pg-boss 10', 'observe'), ('own.river_job', 'river', 'correct'),
	('own.oban_jobs', 'oban', 'correct'), ('own.q_mail', 'pgmq', 'observe'), ('own.procrastinate_jobs', 'procrastinate', 'correct')) AS v (relation, preset, mode);
SELECT is(pg_temp.refusal($$SELECT holdfast.watch_preset('celery')$$), '42704', 'a preset that is not there');
INSERT INTO own.q_mail (msg_id) VALUES (7);
UPDATE own.q_mail SET read_ct = read_ct + 1, vt = pg_temp.clock() + interval '30 s';
SELECT pg_temp.at('01:00:30') \g /dev/null
UPDATE own.q_mail SET read_ct = read_ct + 1, vt = pg_temp.clock() + interval '30 s';
DELETE FROM own.q_mail;
SELECT is(pg_temp.seen('own.q_mail'), '7 1 lost, 7 2 succeeded final', 'pgmq: a message read again after its visibility timeout');
INSERT INTO own.oban_jobs VALUES (1, 'available', 'Mailer', 0, 3, NULL, NULL, '2030-01-01', '{}');
UPDATE own.oban_jobs SET state = 'executing', attempt = 1, attempted_at = '2030-01-01 01:00:30', attempted_by = '{node}';
UPDATE own.oban_jobs SET state = 'retryable', scheduled_at = '2030-01-01 01:00:50', errors = errors || '{"attempt": 1, "error": "** (MatchError) no match"}'::jsonb;
SELECT results_eq($$SELECT lease_id COLLATE "default", exception_class COLLATE "default", delay_ms FROM holdfast.attempt WHERE source = 'own.oban_jobs'$$,
	$$VALUES ('2030-01-01T01:00:30Z', 'MatchError', 20000::bigint)$$, 'Oban: times without a time zone are UTC, and the class is in the message');

-- a role without any right in holdfast changes a watched table, and its changes are seen

CREATE ROLE regress_holdfast_stranger;
GRANT USAGE ON SCHEMA own TO regress_holdfast_stranger;
GRANT SELECT, INSERT, UPDATE, DELETE ON own.flags TO regress_holdfast_stranger;
SET LOCAL ROLE regress_holdfast_stranger;
INSERT INTO own.flags VALUES ('s');
UPDATE own.flags SET busy = true WHERE id = 's';
RESET ROLE;
SELECT is((SELECT count(*) FROM holdfast.attempt WHERE source = 'own.flags' AND job_id = 's'), 1::bigint, 'G13: the trigger needs no right of its user''s');

-- nothing outlives the row

CREATE TABLE own.many (id integer PRIMARY KEY, status text NOT NULL DEFAULT 'pending', attempts integer NOT NULL DEFAULT 0, run_after timestamptz);
SELECT holdfast.watch('own.many', '{"id": "id", "status": "status", "attempt_number": "attempts", "run_after": "run_after", "subject": {"expr": "md5(id::text)"}}') \g /dev/null
INSERT INTO own.many (id) SELECT generate_series(1, 20000);
UPDATE own.many SET status = 'running' WHERE id <= 10;
CREATE FUNCTION pg_temp.bytes() RETURNS numeric LANGUAGE sql AS $$ SELECT sum(total_bytes) FROM pg_backend_memory_contexts WHERE name ~ '^holdfast|^ExprContext$' $$;
SELECT pg_temp.bytes() AS bytes \gset
UPDATE own.many SET status = 'running' WHERE id > 10;
SELECT pg_temp.bytes() AS then \gset
SELECT cmp_ok(:then::numeric - :bytes::numeric, '<', 65536::numeric, 'the memory after 20,000 rows is that after 10, but for less than 4 bytes a row');
SELECT is((SELECT count(*) FROM holdfast.attempt WHERE source = 'own.many'), 20000::bigint, 'all of them are on record');

SELECT * FROM finish();
ROLLBACK;
