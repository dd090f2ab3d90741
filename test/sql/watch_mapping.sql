\i test/setup.sql
\i test/tools.sql
-- What watch() refuses, and how it says so: the mapping's key, and the column.
SELECT plan(53);

SELECT pg_temp.at('00:00:00') \g /dev/null
CREATE SCHEMA own;
CREATE TYPE own.state AS ENUM ('waiting', 'busy', 'over');
CREATE TABLE own.jobs (
	id			bigint		PRIMARY KEY,
	status		text		NOT NULL DEFAULT 'pending',
	state		own.state	NOT NULL DEFAULT 'waiting',
	attempts	integer		NOT NULL DEFAULT 0,
	run_after	timestamptz,
	seconds		integer,
	payload		jsonb,
	open		boolean		NOT NULL GENERATED ALWAYS AS (attempts < 5) STORED
);
CREATE FUNCTION pg_temp.message(mapping text, mode text DEFAULT NULL, relation text DEFAULT 'own.jobs') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	state	text;
	message	text;
BEGIN
	PERFORM holdfast.watch(relation::regclass, mapping::jsonb, mode);
	RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT;
	RETURN state || ' ' || message;
END
$$;
-- the keys that are needed, and more
CREATE FUNCTION pg_temp.more(keys text) RETURNS text LANGUAGE sql AS $$ SELECT pg_temp.message('{"id": "id", "status": "status", ' || $1 || '}') $$;

SELECT is(pg_temp.message(NULL), '22004 argument "mapping" must not be null', 'no mapping');
SELECT is(pg_temp.message('[]'), '22023 argument "mapping" must be a JSON object', 'not an object');
SELECT is(pg_temp.message('{"status": "status"}'), '22023 mapping key "id" is missing', 'no id');
SELECT is(pg_temp.message('{"id": "id"}'), '22023 mapping key "status" is missing', 'no status');
SELECT is(pg_temp.message('{"id": "id", "status": "status"}', 'watchful'), '22023 argument "mode" cannot be "watchful"', 'no such mode');
SELECT is(pg_temp.more(keys), answer, keys) FROM (VALUES
	('"leese": "id"', '22023 mapping key "leese" is not known'),
	('"subject": "who"', '42703 mapping key "subject": column "who" of table "jobs" does not exist'),
	('"subject": 7', '22023 mapping key "subject" must be a column''s name or {"expr": "..."}'),
	('"subject": {"expr": 7}', '22023 mapping key "subject" must be a column''s name or {"expr": "..."}'),
	('"subject": {"expr": "id::text", "b": 1}', '22023 mapping key "subject" must be a column''s name or {"expr": "..."}'),
	('"subject": {"column": "id"}', '22023 mapping key "subject" must be a column''s name or {"expr": "..."}'),
	('"attempt_number": "status"', '42804 mapping key "attempt_number": column "status" is of type text'),
	('"run_after": "seconds"', '42804 mapping key "run_after": column "seconds" is of type integer'),
	('"timeout": "seconds"', '42804 mapping key "timeout": column "seconds" is of type integer'),
	('"timeout": {"expr": "seconds"}', '42804 mapping key "timeout": the expression is of type integer'),
	('"payload": "status"', '42804 mapping key "payload": column "status" is of type text'),
	('"when": "attempts"', '42804 mapping key "when": column "attempts" is of type integer'),
	('"when": {"expr": "no_such = 1"}', '42703 mapping key "when": column "no_such" does not exist'),
	('"subject": {"expr": "id ||"}', '42601 mapping key "subject": syntax error at end of input'),
	('"subject": {"expr": ""}', '42601 mapping key "subject": it must be one expression over the columns of the row'),
	('"subject": {"expr": "1 FROM pg_class"}', '42601 mapping key "subject": it must be one expression over the columns of the row'),
	('"subject": {"expr": "1; DROP TABLE own.jobs"}', '42601 mapping key "subject": syntax error at or near ";"'),
	('"subject": {"expr": "*"}', '42601 mapping key "subject": it must be one expression over the columns of the row'),
	('"subject": {"expr": "1, 2"}', '42601 mapping key "subject": it must be one expression over the columns of the row'),
	('"subject": {"expr": "(SELECT 1)"}', '0A000 mapping key "subject": cannot use subquery in check constraint'),
	('"subject": {"expr": "count(*)"}', '42803 mapping key "subject": aggregate functions are not allowed in check constraints'),
	('"subject": {"expr": "random()"}', '42P17 mapping key "subject": functions in it must not be volatile'),
	('"subject": {"expr": "ctid::text"}', '42P10 mapping key "subject": system column "ctid" reference in check constraint is invalid'),
	('"subject": {"expr": "$1"}', '42P02 mapping key "subject": there is no parameter $1'),
	('"pending": "new"', '22023 mapping key "pending" must be an array of at most 100 status values'),
	('"pending": [{}]', '22023 mapping key "pending" must be an array of strings, numbers, booleans, or null for a row that is gone'),
	('"pending": ["new"], "running": ["new"]', '22023 mapping keys "pending" and "running" both name the status "new"'),
	('"succeeded": [null], "dead": [null]', '22023 mapping keys "dead" and "succeeded" both hold null'),
	('"retry_policy": "no_such"', '42704 mapping key "retry_policy": "no_such" is neither a column of table "jobs" nor a retry policy')
) AS v (keys, answer);
SELECT is(pg_temp.message('{"id": "id", "status": "state", "pending": ["waiting"], "running": ["bussy"]}'),
	'22023 mapping key "running": type own.state has no label "bussy"', 'a label that the enum does not have');
SELECT is(pg_temp.message('{"id": "id", "status": "status"}', 'correct'), '22023 mode "correct" needs mapping key "run_after" to name a column', 'correct without run_after');
SELECT is(pg_temp.message('{"id": "id", "status": "status", "run_after": {"expr": "run_after"}}', 'correct'),
	'22023 mode "correct" needs mapping key "run_after" to name a column', 'correct cannot write an expression');
SELECT is(pg_temp.message('{"id": "id", "status": "status"}', 'enforce'), '22023 mode "enforce" needs mapping key "run_after"', 'enforce without run_after');
SELECT is(pg_temp.message('{"id": "id", "status": "status", "run_after": "run_after", "running": []}', 'enforce'),
	'22023 mode "enforce" needs a status in mapping key "running"', 'a queue that writes nothing at its claim');
SELECT is(pg_temp.message('{"id": "id", "status": "status", "run_after": "run_after", "when": "open"}', 'enforce'),
	'0A000 mapping key "when": column "open" of table "jobs" is generated, which mode "enforce" cannot use', 'a generated column, before the row is stored');
SELECT is_empty('SELECT FROM holdfast.watched', 'none of these has watched anything');

CREATE VIEW own.view AS SELECT * FROM own.jobs;
CREATE TABLE own.parent (LIKE own.jobs) PARTITION BY LIST (status);
CREATE TABLE own.part PARTITION OF own.parent DEFAULT;
CREATE TABLE own.old (id bigint, status text);
CREATE TABLE own.child () INHERITS (own.old);
CREATE TEMPORARY TABLE fleeting (id bigint, status text);
SELECT is(pg_temp.message('{"id": "id", "status": "status"}', NULL, relation), answer, relation) FROM (VALUES
	('own.view', '42809 "view" is not a permanent table'),
	('fleeting', '42809 "fleeting" is not a permanent table'),
	('own.part', '42809 table "part" is a partition'),
	('own.old', '0A000 table "old" has child tables'),
	('holdfast.queue', '42809 table "queue" is holdfast''s own'),
	('own.parent', 'accepted')
) AS v (relation, answer);

-- the least that works, and what a later change of the table does

SELECT is(pg_temp.message('{"id": "id", "status": "status", "subject": {"expr": "payload ->> ''to''"}}'), 'accepted', 'id and status are enough');
INSERT INTO own.jobs (id, payload) VALUES (1, '{"to": "p1"}');
UPDATE own.jobs SET status = 'running';
SELECT results_eq($$SELECT job_id COLLATE "default", subject COLLATE "default", action_key COLLATE "default", attempt_number FROM holdfast.attempt WHERE source = 'own.jobs'$$,
	$$VALUES ('1', 'p1', 'own.jobs', 1)$$, 'what is not mapped has a default');
ALTER TABLE own.jobs RENAME COLUMN payload TO data;
UPDATE own.jobs SET status = 'done';
SELECT is((SELECT problem FROM holdfast.watched WHERE relation = 'own.jobs'), 'mapping key "subject": column "payload" does not exist',
	'a mapping that no longer fits does not stop the worker, but shows');
SELECT is((SELECT count(*) FROM holdfast.finding WHERE kind = 'watch_broken'), 1::bigint, 'and is a finding');

CREATE TABLE own.labels (id bigint PRIMARY KEY, state own.state);
SELECT holdfast.watch('own.labels', '{"id": "id", "status": "state", "pending": ["waiting"], "running": ["busy"], "succeeded": ["over"]}') \g /dev/null
INSERT INTO own.labels VALUES (1, 'busy');
ALTER TYPE own.state RENAME VALUE 'busy' TO 'at it';
UPDATE own.labels SET state = 'over';
SELECT is((SELECT problem FROM holdfast.watched WHERE relation = 'own.labels'), 'mapping key "running": type own.state has no label "busy"',
	'a label that is renamed, in a session that knew it');
SELECT is((SELECT count(*) FROM holdfast.finding WHERE kind = 'watch_broken'), 2::bigint, 'is a finding, too');

SELECT * FROM finish();
ROLLBACK;
