\i test/setup.sql
\i test/tools.sql
-- What the expressions of a mapping call is of others: as whom it runs, and what it may do.
SELECT plan(3);

SELECT pg_temp.at('00:00:00') \g /dev/null
SELECT holdfast.create_queue('mail') \g /dev/null
CREATE ROLE regress_holdfast_tenant;
CREATE SCHEMA own AUTHORIZATION regress_holdfast_tenant;
GRANT ALL ON SCHEMA own TO PUBLIC;

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

SELECT * FROM finish();
ROLLBACK;
