\i test/setup.sql
\i test/tools.sql
-- verify() names whatever is switched off, missing, added or differently defined, also by a superuser, behind the triggers.
SELECT plan(64);

SELECT pg_temp.at('00:00:00') \g /dev/null
CREATE ROLE regress_holdfast_gone;
CREATE ROLE regress_holdfast_other;
SELECT pg_temp.started('run'), pg_temp.started('plain', side_effects => false), pg_temp.started('doubt'), pg_temp.started('dead'), pg_temp.started('failed') \g /dev/null
SELECT f.decision FROM scene s, holdfast.fail(s.job_id, s.lease_id, CASE s.name WHEN 'dead' THEN 'ValidationError' ELSE 'TimeoutError' END) f
	WHERE s.name IN ('doubt', 'dead', 'failed') \g /dev/null
SELECT holdfast.enqueue('run', 'act', 'waits') \g /dev/null

-- behind the event trigger
DO $$
DECLARE
	name	text;
BEGIN
	FOR name IN SELECT evtname FROM pg_event_trigger WHERE evtname LIKE 'holdfast%' LOOP
		EXECUTE format('ALTER EVENT TRIGGER %I DISABLE', name);
	END LOOP;
END $$;
-- this session's frozen clock and the like are reported, too
CREATE TEMPORARY TABLE before AS SELECT * FROM holdfast.verify();
SELECT is_empty($$SELECT * FROM before WHERE check_name <> 'setting' AND object NOT LIKE 'event trigger holdfast%'$$, 'where all is well nothing is reported');
SELECT results_eq($$SELECT object COLLATE "default" FROM before WHERE check_name = 'setting' ORDER BY 1$$, $$VALUES ('holdfast.clock'), ('holdfast.single_transaction')$$,
	'but for what the tests themselves have set');

-- what verify() finds after a statement, which is undone
CREATE FUNCTION pg_temp.found(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	found	text;
BEGIN
	EXECUTE statement;
	SELECT coalesce(string_agg(format('%s %s %s', v.check_name, v.object, v.problem), '; '), 'nothing') INTO found
		FROM (SELECT * FROM holdfast.verify() EXCEPT ALL SELECT * FROM before) v;
	RAISE EXCEPTION USING ERRCODE = 'UUUUU', MESSAGE = 'undone';
EXCEPTION WHEN SQLSTATE 'UUUUU' THEN
	RETURN found;
END
$$;
SELECT alike(pg_temp.found(statement), '%' || finding || '%', left(statement, 100)) FROM (VALUES
	('ALTER TABLE holdfast.job DISABLE TRIGGER guard_before', 'definition trigger guard_before on holdfast.job is defined differently, or switched off'),
	('ALTER TABLE holdfast.job ENABLE TRIGGER guard_after', 'trigger guard_after on holdfast.job'), ('ALTER TABLE holdfast.ledger ENABLE REPLICA TRIGGER guard_before', 'trigger guard_before on holdfast.ledger'),
	('UPDATE pg_trigger SET tgenabled = ''D'' WHERE tgname = ''guard_statement'' AND tgrelid = ''holdfast.finding''::regclass', 'trigger guard_statement on holdfast.finding'),
	('DROP TRIGGER guard_before ON holdfast.event', 'definition trigger guard_before on holdfast.event is missing'), ('DROP TRIGGER config_changed ON holdfast.queue', 'trigger config_changed on holdfast.queue is missing'),
	('ALTER TABLE ONLY holdfast.event_20300101 DISABLE TRIGGER guard_before', 'partition holdfast.event_20300101 trigger guard_before is switched off'),
	('DROP TRIGGER guard_statement ON holdfast.event_20300102', 'partition holdfast.event_20300102 trigger guard_statement is missing'),
	('DROP INDEX holdfast.event_20300101_job', 'index event_20300101_job is missing'), ('DROP INDEX holdfast.job_dispatch', 'definition index holdfast.job_dispatch is missing'),
	('UPDATE pg_index SET indisvalid = false WHERE indexrelid = ''holdfast.job_pkey''::regclass', 'index holdfast.job_pkey is defined differently'),
	('CREATE UNIQUE INDEX u ON holdfast.job (subject)', 'index holdfast.u was added'),
	('CREATE RULE r AS ON DELETE TO holdfast.event DO INSTEAD NOTHING', 'rule holdfast.event rule r'), ('CREATE RULE r AS ON INSERT TO holdfast.event_20300101 DO INSTEAD NOTHING', 'rule holdfast.event_20300101'),
	('ALTER TABLE holdfast.job ENABLE ROW LEVEL SECURITY', 'table holdfast.job is defined differently'), ('CREATE POLICY p ON holdfast.job USING (false)', 'policy holdfast.job policy p'),
	('CREATE TABLE pg_temp.child () INHERITS (holdfast.finding)', 'inherits from holdfast.finding'), ('CREATE TABLE public.child (job_id bigint REFERENCES holdfast.job)', 'foreign key public.child'),
	('ALTER TABLE holdfast.job ADD CONSTRAINT c CHECK (priority < 5)', 'definition constraint c on holdfast.job was added'), ('ALTER TABLE holdfast.ledger DROP CONSTRAINT ledger_state_check', 'constraint ledger_state_check on holdfast.ledger is missing'),
	('ALTER TABLE holdfast.finding SET UNLOGGED', 'table holdfast.finding is defined differently'), ('ALTER TABLE holdfast.event_20300101 SET UNLOGGED', 'event_20300101 is not logged'),
	('ALTER TABLE holdfast.job ADD COLUMN extra text', 'table holdfast.job is defined differently'), ('ALTER TABLE holdfast.finding RENAME TO findings', 'table holdfast.finding is missing'),
	('ALTER TABLE holdfast.event DETACH PARTITION holdfast.event_20300101', 'detached holdfast.event_20300101'), ('ALTER TABLE holdfast.event_20300102 SET SCHEMA public', 'public.event_20300102'),
	('DROP TABLE holdfast.event_20300101', 'has no partition for 2030-01-01'), ('CREATE TABLE holdfast.event_x PARTITION OF holdfast.event DEFAULT', 'child holdfast.event_x'),
	('ALTER TABLE holdfast.ledger OWNER TO regress_holdfast_other', 'owner holdfast.ledger belongs to regress_holdfast_other'), ('GRANT UPDATE ON holdfast.ledger TO regress_holdfast_other', 'privilege holdfast.ledger regress_holdfast_other has UPDATE'),
	('GRANT SELECT ON holdfast.job TO PUBLIC', 'privilege holdfast.job PUBLIC has SELECT'), ('GRANT CREATE ON SCHEMA holdfast TO regress_holdfast_other', 'schema holdfast regress_holdfast_other has CREATE'),
	('GRANT EXECUTE ON FUNCTION holdfast.maintain() TO PUBLIC', 'holdfast.maintain() PUBLIC may execute it'),
	('CREATE FUNCTION holdfast.enqueue(text) RETURNS text LANGUAGE sql AS ''SELECT $1''', 'planted holdfast.enqueue(text)'), ('CREATE VIEW holdfast.spy AS SELECT 1', 'planted holdfast.spy'),
	('CREATE OR REPLACE FUNCTION holdfast.guard() RETURNS trigger LANGUAGE plpgsql AS ''BEGIN RETURN NULL; END''', 'function holdfast.guard() is defined differently'),
	('CREATE OR REPLACE FUNCTION holdfast.span(ms bigint) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN ''none''', 'body holdfast.span(bigint) is defined differently'),
	('UPDATE pg_proc SET prosrc = ''holdfast_own'' WHERE oid = ''holdfast.guard()''::regprocedure', 'function holdfast.guard() is defined differently'),
	('UPDATE pg_proc SET probin = ''/tmp/evil.so'' WHERE oid = ''holdfast.key_of(text)''::regprocedure', 'function holdfast.key_of(text) is defined differently'),
	('ALTER FUNCTION holdfast.purge_ledger SET search_path = public', 'function holdfast.purge_ledger(bigint) is defined differently'), ('CREATE OR REPLACE VIEW holdfast.guarded AS SELECT * FROM (VALUES (''''::text, ''''::text, ''''::text, ''''::text, ''''::text)) AS v (table_name, rule, trigger_name, events, level)', 'view holdfast.guarded is defined differently'),
	('ALTER EXTENSION holdfast DROP TABLE holdfast.finding', 'table holdfast.finding is missing'), ('ALTER TYPE holdfast.maintain_result ADD ATTRIBUTE extra text', 'type holdfast.maintain_result'),
	('ALTER SEQUENCE holdfast.event_id_seq CACHE 50', 'sequence holdfast.event_id_seq is defined differently'), ('INSERT INTO holdfast.event (event_id, at, job_id, idempotency_key, queue, attempt_number, kind, subject, action_key, correlation_id) SELECT 999999999, at, job_id, idempotency_key, queue, 0, ''forged'', subject, action_key, correlation_id FROM holdfast.event LIMIT 1', 'was never handed out by event_id_seq'),
	('SELECT holdfast.grant_queue(''run'', ''regress_holdfast_gone'', ''reader''); ALTER ROLE regress_holdfast_gone RENAME TO regress_holdfast_else', 'grant reader of queue run role regress_holdfast_gone'),
	('ALTER ROLE regress_holdfast_other SET session_replication_role = replica', 'setting role regress_holdfast_other'),
	('UPDATE pg_extension SET extversion = ''0.0.9'' WHERE extname = ''holdfast''', 'library extension holdfast version 0.0.9 is installed, and the library is version'),
	-- past the guards
	($$SELECT pg_temp.planted('job', 'UPDATE holdfast.job SET status = ''pending'', lease_id = NULL, lease_expires_at = NULL, started_at = NULL WHERE subject = ''run''')$$, 'is pending, and the end of attempt 1 is not on record'),
	($$SELECT pg_temp.planted('job', 'UPDATE holdfast.job SET attempt_number = 9 WHERE subject = ''plain''')$$, 'is at attempt 9, and the last one on record is 1'),
	($$SELECT pg_temp.planted('job', 'UPDATE holdfast.job SET lease_id = gen_random_uuid() WHERE subject = ''run''')$$, 'runs under a lease that was never granted'),
	($$SELECT pg_temp.planted('ledger', 'UPDATE holdfast.ledger SET state = ''failed_retryable'' WHERE subject = ''doubt''')$$, 'its ledger says failed_retryable, and its last event unknown'),
	($$SELECT pg_temp.planted('ledger', 'DELETE FROM holdfast.ledger WHERE subject = ''run''')$$, 'has no ledger row, though it has side effects'),
	($$SELECT pg_temp.planted('job', 'UPDATE holdfast.job SET mode = ''execute'' WHERE subject = ''doubt''')$$, 'is to execute, and its effect is unknown'),
	($$ALTER TABLE holdfast.unknown_effect DISABLE TRIGGER ALL; DELETE FROM holdfast.unknown_effect; ALTER TABLE holdfast.unknown_effect ENABLE ALWAYS TRIGGER guard_before$$, 'and operators do not see it'),
	($$ALTER TABLE holdfast.event DISABLE TRIGGER ALL; DELETE FROM holdfast.event WHERE kind = 'action_attempt_started'$$, 'and the last one on record is none')
) AS v (statement, finding);

-- what is right although it differs

SELECT throws_ok('DELETE FROM holdfast.definition', 'JQ004', NULL, 'the note of definitions is guarded');
SELECT is(pg_temp.found('CREATE INDEX mine ON holdfast.job (subject)'), 'nothing', 'an index of the user''s is no problem');
SELECT is(pg_temp.found('ALTER TABLE holdfast.job ADD COLUMN extra text; SELECT holdfast.accept_definitions(''ticket 7'')'), 'nothing', 'what was accepted is right');
SELECT holdfast.accept_definitions('ticket 7') \g /dev/null
SELECT results_eq($$SELECT detail->>'by' = current_user, detail->>'reason' FROM holdfast.finding WHERE kind = 'definitions_accepted'$$, $$VALUES (true, 'ticket 7')$$, 'which is on record');
SELECT throws_ok('SELECT holdfast.accept_definitions(NULL)', '22004', NULL, 'a reason is required');
SELECT throws_ok('SELECT holdfast.do_accept_definitions(''x'')', 'JQ004', NULL, 'and its body does nothing by hand');

SELECT * FROM finish();
ROLLBACK;
