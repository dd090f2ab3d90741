\i test/setup.sql
\i test/tools.sql
-- What the expressions of a mapping call is of others: as whom it runs, and what it may do.
SELECT plan(16);

SELECT pg_temp.at('00:00:00') \g /dev/null
SELECT holdfast.create_queue('mail') \g /dev/null
CREATE ROLE regress_holdfast_tenant;
CREATE SCHEMA own AUTHORIZATION regress_holdfast_tenant;
GRANT ALL ON SCHEMA own TO PUBLIC;
CREATE TABLE own.ran (as_role text);
GRANT ALL ON own.ran TO PUBLIC;
CREATE FUNCTION own.note() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN INSERT INTO own.ran VALUES (current_user); RETURN true; END $$;
CREATE FUNCTION own.look() RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT own.note()';
CREATE FUNCTION pg_temp.ran_as() RETURNS text LANGUAGE sql AS $$
	WITH gone AS (DELETE FROM own.ran RETURNING as_role) SELECT string_agg(DISTINCT as_role, ', ') FROM gone
$$;

-- Parsing and planning an expression may already run what the table's owner has made.

CREATE DOMAIN own.word AS text;
ALTER DOMAIN own.word OWNER TO regress_holdfast_tenant;
CREATE TABLE own.jobs (id integer PRIMARY KEY, status text, run_after timestamptz, tags text[]);
ALTER TABLE own.jobs OWNER TO regress_holdfast_tenant;
SELECT holdfast.watch('own.jobs', '{"id": "id", "status": "status", "run_after": "run_after", "subject": {"expr": "(tags @> ''{urgent}'')::text"}}') \g /dev/null
SET LOCAL ROLE regress_holdfast_tenant;
ALTER DOMAIN own.word ADD CHECK (own.note());
ALTER TABLE own.jobs ALTER COLUMN tags TYPE own.word[];
SELECT is(pg_temp.ran_as(), 'regress_holdfast_tenant', 'a literal of the table owner''s type, checked by the event trigger, runs as him');
RESET ROLE;
UPDATE holdfast.watch SET mode = mode;
INSERT INTO own.jobs VALUES (1, 'running');
SELECT is(pg_temp.ran_as(), 'regress_holdfast_tenant', 'and, initialized for a superuser''s statement, as him');
UPDATE holdfast.watch SET mode = mode;
SELECT is_empty('SELECT FROM holdfast.watched WHERE problem IS NOT NULL', 'nothing is wrong with it');
SELECT is(pg_temp.ran_as(), 'regress_holdfast_tenant', 'nor when a superuser looks');
SELECT holdfast.watch('own.jobs', '{"id": "id", "status": "status", "run_after": "run_after", "subject": {"expr": "own.look()::text"}}') \g /dev/null
SELECT is(pg_temp.ran_as(), 'regress_holdfast_tenant', 'a function of nothing, when a superuser calls watch()');
CREATE OR REPLACE FUNCTION own.note() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN SET LOCAL datestyle = 'German'; SET LOCAL ROLE regress_holdfast_other; RETURN true; END $$;
CREATE ROLE regress_holdfast_other;
GRANT regress_holdfast_other TO regress_holdfast_tenant;
SELECT is((SELECT problem FROM holdfast.watched), 'mapping key "subject": cannot set parameter "role" within security-definer function', 'it cannot become another');
SELECT is(current_setting('datestyle'), 'ISO, YMD', 'and leaves no setting behind');

-- An expression that catches its errors, and calls holdfast, within the trigger's own call.

CREATE FUNCTION own.number(t text) RETURNS integer LANGUAGE plpgsql STABLE AS $$
BEGIN
	RETURN t::integer;
EXCEPTION WHEN OTHERS THEN
	PERFORM holdfast.enqueue('mail', 'act', t || n) FROM generate_series(1, 3) n;
	RETURN 7;
END
$$;
CREATE TABLE own.texts (id integer PRIMARY KEY, status text, most text, run_after timestamptz);
SELECT holdfast.watch('own.texts', '{"id": "id", "status": "status", "run_after": "run_after", "max_attempts": {"expr": "own.number(most)"}, "subject": {"expr": "''s'' || own.number(most)"}}', 'correct') \g /dev/null
INSERT INTO own.texts SELECT n, 'running', 'no number ' || n FROM generate_series(1, 20) n;
UPDATE own.texts SET status = 'failed';
UPDATE own.texts SET status = 'pending';
SELECT results_eq($$SELECT outcome COLLATE "default", max_attempts, subject COLLATE "default", next_not_before > pg_temp.clock(), count(*) FROM holdfast.attempt WHERE source = 'own.texts' GROUP BY 1, 2, 3, 4$$,
	$$VALUES ('failed', 7, 's7', true, 20::bigint)$$, 'the attempts are on record');
SELECT is((SELECT count(*) FROM holdfast.job WHERE subject ~ '^no number'), 60::bigint, 'and so is what it entered');
CREATE UNIQUE INDEX late ON holdfast.attempt_record (record_id, job_id, source);
INSERT INTO own.texts VALUES (21, 'running', 'x');
SET LOCAL enable_seqscan = off;
SELECT is((SELECT count(*) FROM holdfast.attempt_record WHERE record_id > 0 AND job_id = '21' AND source = 'own.texts'), 1::bigint, 'an index that was made meanwhile is kept');

-- An expression that changes its table, whose row is being read.

CREATE FUNCTION own.change() RETURNS integer LANGUAGE plpgsql AS $$ BEGIN UPDATE own.selfish SET status = 'done'; RETURN 1; END $$;
CREATE FUNCTION own.changing(t text) RETURNS integer LANGUAGE sql STABLE AS 'SELECT own.change()';
CREATE TABLE own.selfish (id integer PRIMARY KEY, status text);
SELECT holdfast.watch('own.selfish', '{"id": "id", "status": "status", "subject": {"expr": "own.changing(status)::text"}}') \g /dev/null
SELECT is(pg_temp.refusal($$INSERT INTO own.selfish VALUES (1, 'running')$$), '55006', 'it is refused');
CREATE OR REPLACE FUNCTION own.change() RETURNS integer LANGUAGE sql AS 'SELECT 1';
SELECT is(pg_temp.refusal($$INSERT INTO own.selfish VALUES (1, 'running')$$), 'accepted', 'and the next statement is not');

-- One that is cancelled while it is initialized is initialized again.

CREATE FUNCTION own.slow() RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN 'fast'; END $$;
CREATE TABLE own.slow (id integer PRIMARY KEY, status text);
SELECT holdfast.watch('own.slow', '{"id": "id", "status": {"expr": "coalesce(status, own.slow())"}}') \g /dev/null
CREATE OR REPLACE FUNCTION own.slow() RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE admin_shutdown; END $$;
SELECT is(pg_temp.refusal($$INSERT INTO own.slow VALUES (1, 'running')$$), '57P01', 'a cancel reaches the statement');
SELECT is(pg_temp.refusal($$INSERT INTO own.slow VALUES (1, 'running')$$), '57P01', 'and the next one');
CREATE FUNCTION own.enter() RETURNS text LANGUAGE sql AS $$ INSERT INTO own.slow VALUES (2, 'running') RETURNING status $$;
CREATE OR REPLACE FUNCTION own.slow() RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN own.enter(); END $$;
SELECT is(pg_temp.refusal($$INSERT INTO own.slow VALUES (1, 'running')$$), 'accepted', 'one that changes the table meanwhile is a mapping that does not fit');
SELECT is((SELECT detail ->> 'problem' FROM holdfast.finding WHERE kind = 'watch_broken'), 'mapping key "status": the watch on table "slow" is reading a row of it', 'on record');

SELECT * FROM finish();
ROLLBACK;
