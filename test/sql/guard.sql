\i test/setup.sql
\i test/tools.sql
-- Plain SQL on holdfast's own tables: what breaks an invariant is refused, what is accepted is on record, by whom.
SELECT plan(134);

SELECT pg_temp.at('00:00:00') \g /dev/null
SELECT holdfast.define_retry_policy('p', '10 s', backoff_rate => 1, jitter_window => '0', min_delay => '5 s', max_attempts => 3,
	reconcile_delay => '60 s', reconcile_max => 3) \g /dev/null
-- the scenes: running and pending, with an effect and without
SELECT pg_temp.started(name, 'p', effects) FROM (VALUES ('run', true), ('plain', false), ('failed', false), ('doubt', true), ('dead', true), ('asked', true), ('landed', true)) AS v (name, effects) \g /dev/null
SELECT pg_temp.at('00:00:10') \g /dev/null
SELECT f.decision FROM scene s, holdfast.fail(s.job_id, s.lease_id, 'Http503', side_effect => 'none') f WHERE s.name = 'failed' \g /dev/null
SELECT f.decision FROM scene s, holdfast.fail(s.job_id, s.lease_id, 'TimeoutError') f WHERE s.name = 'doubt' \g /dev/null
SELECT f.decision FROM scene s, holdfast.fail(s.job_id, s.lease_id, 'ValidationError') f WHERE s.name = 'dead' \g /dev/null
SELECT holdfast.cancel(s.job_id) FROM scene s WHERE s.name = 'asked' \g /dev/null
SELECT holdfast.ledger_transition(s.job_id, s.lease_id, 'committed') FROM scene s WHERE s.name = 'landed' \g /dev/null
SELECT holdfast.create_queue('fresh', retry_policy => 'p') \g /dev/null
INSERT INTO scene (name, job_id, idempotency_key) SELECT s, e.job_id, e.idempotency_key FROM unnest(ARRAY['later', 'now', 'unwanted']) s,
	holdfast.enqueue('fresh', 'act', s, delay => CASE s WHEN 'now' THEN interval '0 s' ELSE '1 h' END) e \g /dev/null

CREATE FUNCTION pg_temp.by_hand(name text, statement text) RETURNS text LANGUAGE sql AS $$
	SELECT pg_temp.refusal(replace(replace($2, '@id', pg_temp.id($1)::text), '@key', quote_literal((SELECT s.idempotency_key FROM scene s WHERE s.name = $1))))
$$;
CREATE FUNCTION pg_temp.back(more text DEFAULT '') RETURNS text LANGUAGE sql AS $$
	SELECT 'UPDATE holdfast.job SET status = ''pending'', lease_id = NULL, lease_expires_at = NULL, started_at = NULL' || $1 || ' WHERE job_id = @id'
$$;

CREATE FUNCTION pg_temp.event(name text, kind text) RETURNS SETOF pg_temp.evidence LANGUAGE sql AS $$
	SELECT * FROM pg_temp.evidence e WHERE e.job_id = pg_temp.id($1) AND e.kind = 'action_' || $2
$$;

-- refused: each with the SQLSTATE of what it would break, and nothing is changed

CREATE TEMPORARY TABLE refused (name text, state text, statement text);
INSERT INTO refused
	SELECT name, state, pg_temp.back(more) FROM (VALUES
		-- the incident: attempts += 1; status = 'pending'
		('run', 'JQ006', ''), ('plain', 'JQ006', ''), ('plain', 'JQ006', ', run_after = holdfast.clock()'), ('plain', 'JQ006', ', run_after = holdfast.clock() + ''4999 ms'''),
		('plain', 'JQ006', ', run_after = ''2000-01-01'''), ('plain', 'JQ004', ', run_after = holdfast.clock() + ''1 h'', attempt_number = attempt_number + 1'),
		('plain', 'JQ004', ', run_after = holdfast.clock() + ''1 h'', attempt_number = 0'), ('plain', 'JQ004', ', run_after = holdfast.clock() + ''1 h'', failures = 7'),
		('plain', 'JQ004', ', run_after = holdfast.clock() + ''1 h'', reconciles = 1'), ('plain', 'JQ004', ', run_after = holdfast.clock() + ''1 h'', losses = 9'),
		('plain', 'JQ007', ', run_after = holdfast.clock() + ''1 h'', idempotency_key = gen_random_uuid()'), ('plain', 'JQ004', ', run_after = holdfast.clock() + ''1 h'', fencing_token = 1'),
		('plain', 'JQ004', ', run_after = holdfast.clock() + ''1 h'', give_up_at = holdfast.clock() + ''1 h'''), ('asked', 'JQ004', ', run_after = holdfast.clock() + ''1 h'''),
		('plain', 'JQ004', ', run_after = holdfast.clock() + ''1 h'', max_attempts = 1'), ('landed', 'JQ004', ', run_after = holdfast.clock() + ''1 h''')) AS v (name, state, more)
	UNION ALL
	SELECT name, state, 'UPDATE holdfast.job SET ' || change || ' WHERE job_id = @id' FROM (VALUES
		('run', 'JQ004', 'job_id = job_id + 1000000'), ('run', 'JQ007', 'subject = ''another'''), ('run', 'JQ007', 'payload = ''{"n": 2}'''), ('run', 'JQ007', 'scope = ''other'''),
		('run', 'JQ007', 'side_effects = false'), ('run', 'JQ004', 'attempt_number = attempt_number + 1'), ('run', 'JQ004', 'lease_id = gen_random_uuid()'),
		('run', 'JQ004', 'worker_name = ''thief'''), ('run', 'JQ004', 'lease_expires_at = lease_expires_at - interval ''1 s'''), ('run', 'JQ004', 'lease_expires_at = holdfast.clock() + interval ''2 days'''),
		('run', 'JQ004', 'started_at = started_at - interval ''1 h'''), ('run', 'JQ005', 'timeout_ms = 3600000'), ('run', 'JQ004', 'mode = ''reconcile'''), ('run', '42704', 'retry_policy = ''nowhere'''),
		('run', 'JQ004', 'last_event_at = NULL'), ('run', 'JQ004', 'enqueued_by = ''nobody'''), ('run', 'JQ004', 'queue = queue + 1'), ('asked', 'JQ004', 'cancel_requested_at = NULL'),
		('failed', 'JQ006', 'run_after = holdfast.clock()'), ('failed', 'JQ006', 'run_after = run_after - interval ''1 ms'''), ('failed', 'JQ004', 'failures = 0'), ('failed', 'JQ004', 'attempt_number = 0'),
		('failed', 'JQ004', 'last_error_class = ''Nothing'''), ('doubt', 'JQ004', 'mode = ''execute'''), ('doubt', 'JQ004', 'reconciles = 1'), ('later', 'JQ007', 'correlation_id = ''x'''),
		('now', 'JQ004', 'status = ''running'', lease_id = gen_random_uuid(), lease_expires_at = holdfast.clock() + interval ''1 h'', started_at = holdfast.clock(), attempt_number = 1')) AS v (name, state, change)
	UNION ALL VALUES
		('run', 'JQ004', 'DELETE FROM holdfast.job WHERE job_id = @id'), ('doubt', 'JQ003', 'DELETE FROM holdfast.job WHERE job_id = @id'),
		('run', 'JQ004', 'INSERT INTO holdfast.job SELECT * FROM holdfast.job WHERE job_id = @id ON CONFLICT (job_id) DO UPDATE SET lease_id = gen_random_uuid()'),
		('dead', 'JQ004', 'DELETE FROM holdfast.dead_job WHERE job_id = @id'), ('dead', 'JQ004', 'UPDATE holdfast.dead_job SET reason = ''other'' WHERE job_id = @id'),
		('dead', 'JQ007', 'UPDATE holdfast.dead_job SET payload = ''{"n": 2}'' WHERE job_id = @id'),
		('run', 'JQ004', 'UPDATE holdfast.ledger SET state = ''planned'' WHERE idempotency_key = @key'), ('run', 'JQ004', 'UPDATE holdfast.ledger SET state = ''unknown'' WHERE idempotency_key = @key'),
		('run', 'JQ004', 'UPDATE holdfast.ledger SET state = ''failed_retryable'' WHERE idempotency_key = @key'), ('doubt', 'JQ004', 'UPDATE holdfast.ledger SET state = ''failed_retryable'' WHERE idempotency_key = @key'),
		('doubt', 'JQ004', 'UPDATE holdfast.ledger SET state = ''committed'' WHERE idempotency_key = @key'), ('later', 'JQ004', 'UPDATE holdfast.ledger SET state = ''committed'' WHERE idempotency_key = @key'),
		('landed', 'JQ004', 'UPDATE holdfast.ledger SET state = ''started'' WHERE idempotency_key = @key'), ('landed', 'JQ004', 'UPDATE holdfast.ledger SET evidence = ''{}'' WHERE idempotency_key = @key'),
		('run', 'JQ004', 'UPDATE holdfast.ledger SET job_id = 0 WHERE idempotency_key = @key'), ('run', 'JQ007', 'UPDATE holdfast.ledger SET idempotency_key = gen_random_uuid() WHERE idempotency_key = @key'),
		('run', 'JQ004', 'DELETE FROM holdfast.ledger WHERE idempotency_key = @key'), ('doubt', 'JQ004', 'DELETE FROM holdfast.unknown_effect WHERE idempotency_key = @key'),
		('run', 'JQ004', 'UPDATE holdfast.event SET at = at + interval ''1 s'' WHERE job_id = @id'), ('run', 'JQ004', 'DELETE FROM holdfast.event WHERE job_id = @id'),
		('run', 'JQ004', 'UPDATE holdfast.event_20300101 SET worker_name = ''another'' WHERE job_id = @id'), ('run', 'JQ004', 'DELETE FROM holdfast.event_20300101 WHERE job_id = @id'),
		('run', 'JQ004', 'UPDATE holdfast.queue SET queue_id = queue_id + 100'), ('run', 'JQ005', 'UPDATE holdfast.queue SET lease = ''1 s'''), ('run', 'JQ004', 'DELETE FROM holdfast.queue'),
		('run', 'JQ004', 'MERGE INTO holdfast.job j USING (VALUES (@id)) v (id) ON j.job_id = v.id WHEN MATCHED THEN DELETE');
INSERT INTO refused SELECT 'run', 'JQ004', format('TRUNCATE holdfast.%I CASCADE', t) FROM unnest(ARRAY['job', 'dead_job', 'ledger', 'event', 'event_20300101', 'event_overflow', 'finding', 'unknown_effect',
	'queue', 'queue_grant', 'retry_policy', 'error_rule', 'setting', 'stream', 'queue_hour', 'upkeep', 'attempt_record']) t;
-- of each of findings and figures a row
SELECT f.decision FROM scene s, holdfast.fail(s.job_id, gen_random_uuid(), 'Stale') f WHERE s.name = 'run' \g /dev/null
INSERT INTO holdfast.queue_hour VALUES (1, '2029-01-01', 1, 1, 0, 0, 0, 0, 0, 0, 0, 0);
INSERT INTO refused VALUES ('run', 'JQ004', 'UPDATE holdfast.finding SET kind = ''nothing'''), ('run', 'JQ004', 'DELETE FROM holdfast.finding'),
	('run', '23514', 'INSERT INTO holdfast.setting VALUES (''token_floor'', ''9000000000000000002'')'), ('run', '23514', 'INSERT INTO holdfast.setting VALUES (''evidence_mode'', ''off'')'),
	('run', '23514', 'INSERT INTO holdfast.setting VALUES (''attempt_retention'', ''1 year'')'), ('run', 'JQ004', 'UPDATE holdfast.queue_hour SET failed = 0'), ('run', 'JQ004', 'DELETE FROM holdfast.queue_hour');
SELECT pg_temp.stored() AS before \gset
SELECT is(pg_temp.by_hand(name, statement), state, format('%s: %s: %s', CASE state WHEN 'JQ006' THEN 'G3' WHEN 'JQ005' THEN 'G8' WHEN 'JQ003' THEN 'G6' WHEN 'JQ007' THEN 'G5' ELSE 'G7' END, name, statement))
FROM refused ORDER BY ctid;
SELECT is(pg_temp.stored(), :'before', 'what was refused has changed nothing');
SET LOCAL session_replication_role = replica;
SELECT is((SELECT count(*) FROM refused r WHERE pg_temp.by_hand(r.name, r.statement) <> r.state), 0::bigint, 'the guards hold under session_replication_role = replica');
RESET session_replication_role;
SELECT alike(pg_temp.refusal_detail(replace(pg_temp.back(), '@id', pg_temp.id('plain')::text)), 'Attempt 1 has not been reported; % 5000 ms from now at the earliest.',
	'G3: the refusal has its figures');

-- accepted: by the state machine's own rules, and on record

SELECT is(pg_temp.by_hand('plain', pg_temp.back(', run_after = holdfast.clock() + ''5 s'', last_error_class = ''TimeoutError''')), 'accepted', 'G3: a failure by hand, after min_delay, is accepted');
SELECT results_eq($$SELECT status, mode, attempt_number, failures, run_after, worker_name, lease_id FROM pg_temp.job WHERE job_id = pg_temp.id('plain')$$,
	$$VALUES ('pending', 'execute', 1, 1, pg_temp.clock() + '5 s', NULL::text, NULL::uuid)$$, 'G4: it is charged, once');
SELECT is(pg_temp.events('plain'), 'attempt_started, attempt_failed, retry_scheduled, changed_by_sql', 'G7: the events of the transition are there, and that it was by hand');
SELECT results_eq($$SELECT exception_class, worker_name, lease_id = pg_temp.lease('plain'), failures FROM pg_temp.event('plain', 'attempt_failed')$$,
	$$VALUES ('TimeoutError', 'w', true, 1)$$, 'G7: of the attempt that it was');
SELECT results_eq($$SELECT delay_ms, next_not_before, retry_policy, detail->>'decision' FROM pg_temp.event('plain', 'retry_scheduled')$$,
	$$VALUES (5000::bigint, pg_temp.clock() + '5 s', 'p', 'retry')$$, 'G3: with the delay that was chosen');
SELECT ok(e.detail->>'by' = current_user AND e.detail->>'statement' LIKE '%by_hand%' AND e.detail->'changed'->'status' = '{"from": "running", "to": "pending"}'
	AND e.detail->'changed'->'failures' = '{"from": "0", "to": "1"}', 'G7: who did it, with which statement, and what it changed') FROM pg_temp.event('plain', 'changed_by_sql') e;
SELECT is(holdfast.complete(pg_temp.id('plain'), pg_temp.lease('plain')), 'conflict', 'G2: the worker''s own report comes too late');
SELECT is(pg_temp.again('plain'), 'attempt 2, execute', 'G9: and the job is claimed when it is due');

SELECT is(pg_temp.by_hand('run', pg_temp.back(', run_after = holdfast.clock() + ''1 h''')), 'accepted', 'with side effects: a requeue by hand');
SELECT is(pg_temp.state('run'), 'pending, reconcile, ledger unknown', 'G6: nobody said what became of the effect: it is to be reconciled');
SELECT is(pg_temp.events('run'), 'attempt_started, stale_report, attempt_failed, reconcile_scheduled, changed_by_sql', 'G7: on record');
SELECT is((SELECT count(*) FROM holdfast.unknown_effect u WHERE u.job_id = pg_temp.id('run')), 1::bigint, 'G6: and an operator finds it');

SELECT is(pg_temp.by_hand('later', 'UPDATE holdfast.job SET run_after = ''2000-01-01'', priority = -5 WHERE job_id = @id'), 'accepted', 'a job that never ran may be brought forward');
SELECT is((SELECT run_after FROM pg_temp.job WHERE job_id = pg_temp.id('later')), pg_temp.clock(), 'but not into the past, where no claim might look');
SELECT is((SELECT subject FROM holdfast.claim('fresh', 'w')), 'later', 'a claim of this session finds it there');
SELECT is(pg_temp.by_hand('failed', 'UPDATE holdfast.job SET run_after = run_after + interval ''1 h'', max_attempts = 9 WHERE job_id = @id'), 'accepted', 'a retry may be put off');
SELECT is(pg_temp.events('failed'), 'attempt_started, attempt_failed, retry_scheduled, changed_by_sql', 'G7: on record');
SELECT is(pg_temp.by_hand('unwanted', 'DELETE FROM holdfast.job WHERE job_id = @id'), 'accepted', 'a job that waits may be deleted');
SELECT is(pg_temp.events('unwanted'), 'changed_by_sql, cancelled', 'G10: it is cancelled, on record');
SELECT is(pg_temp.by_hand('asked', 'UPDATE holdfast.job SET lease_expires_at = lease_expires_at + interval ''1 s'' WHERE job_id = @id'), 'accepted', 'a lease may be made longer');
SELECT is(pg_temp.by_hand('later', 'UPDATE holdfast.job SET cancel_requested_at = holdfast.clock() WHERE job_id = @id'), 'accepted', 'a cancellation may be asked for');
SELECT is(pg_temp.by_hand('later', 'UPDATE holdfast.ledger SET state = ''committed'', evidence = ''{"seen": true}'' WHERE idempotency_key = @key'), 'accepted', 'what a worker has started may be noted as landed');
SELECT is(pg_temp.events('later'), 'changed_by_sql, attempt_started, cancel_requested, changed_by_sql, ledger_changed, changed_by_sql', 'G7: all of it is on record');
SELECT is(pg_temp.by_hand('dead', 'UPDATE holdfast.dead_job SET retry_policy = ''p'', priority = 3 WHERE job_id = @id'), 'accepted', 'settings of a dead job may be changed');
SELECT is(pg_temp.events('dead'), 'attempt_started, attempt_failed, terminal, changed_by_sql', 'G7: on record');
SELECT is_empty($$SELECT job_id FROM (SELECT e.job_id, e.at, lag(e.at) OVER (PARTITION BY e.job_id ORDER BY e.event_id) AS before FROM pg_temp.evidence e) o WHERE at <= before$$,
	'event times go forward within each job, those of changes by hand too');
SELECT is(pg_temp.by_hand('dead', 'UPDATE holdfast.job SET priority = priority'), 'accepted', 'a statement that changes nothing');
SELECT is(pg_temp.events('failed'), 'attempt_started, attempt_failed, retry_scheduled, changed_by_sql', '... leaves no event');

-- settings

SELECT is(pg_temp.by_hand('run', 'UPDATE holdfast.queue SET lease = ''200 s'' WHERE queue_name = ''run'''), 'accepted', 'a queue by hand, as alter_queue would');
SELECT is(pg_temp.by_hand('run', 'UPDATE holdfast.retry_policy SET max_attempts = 1'), 'accepted', 'a policy by hand');
SELECT results_eq($$SELECT queue, detail->>'table', detail->>'row', detail->'changed', detail->>'by' = current_user FROM pg_temp.finding WHERE kind = 'setting_changed' ORDER BY detail->>'table'$$,
	$$VALUES ('run', 'queue', 'run', '{"lease": {"from": "00:01:30", "to": "00:03:20"}}'::jsonb, true),
			 (NULL, 'retry_policy', 'p', '{"max_attempts": {"from": "3", "to": "1"}}', true)$$, 'what settings were, and who changed them, is on record');

-- what the extension does itself is no change by hand

CREATE FUNCTION pg_temp.by_hand_on_record() RETURNS bigint LANGUAGE sql AS $$
	SELECT (SELECT count(*) FROM pg_temp.evidence WHERE kind IN ('action_changed_by_sql', 'action_violation')) + (SELECT count(*) FROM pg_temp.finding WHERE kind IN ('setting_changed', 'changed_by_sql', 'refusal'))
$$;
SELECT pg_temp.by_hand_on_record() AS before \gset
SELECT pg_temp.at('00:00:30') \g /dev/null
SELECT lives_ok('SELECT * FROM holdfast.maintain()', 'maintain folds, purges, moves and drops');
SELECT lives_ok($$SELECT holdfast.create_queue('short'), holdfast.define_stream('short', 's'), holdfast.drop_queue('short', true)$$, 'drop_queue deletes');
SELECT is(pg_temp.by_hand_on_record(), :before::bigint, 'neither leaves a record of a change by hand');
SELECT holdfast.create_queue('body') \g /dev/null
SELECT throws_ok('SELECT holdfast.do_drop_queue(''body'', true)', 'JQ004', NULL, 'a body called by hand is guarded like anything else');
SELECT is_empty($$SELECT g.table_name, g.trigger_name FROM holdfast.guarded g LEFT JOIN pg_trigger t ON t.tgrelid = ('holdfast.' || g.table_name)::regclass AND t.tgname = g.trigger_name
	WHERE t.tgenabled IS DISTINCT FROM 'A'$$, 'every guard is there, ALWAYS');
SELECT is_empty($$SELECT i.inhrelid::regclass FROM pg_inherits i WHERE i.inhparent = 'holdfast.event'::regclass
	AND (SELECT count(*) FROM pg_trigger t WHERE t.tgrelid = i.inhrelid AND t.tgenabled = 'A' AND t.tgname IN ('guard_before', 'guard_statement')) <> 2$$, 'on every partition, too');
SELECT throws_ok('CREATE TABLE pg_temp.t (a integer); CREATE TRIGGER g BEFORE DELETE ON pg_temp.t FOR EACH ROW EXECUTE FUNCTION holdfast.guard(''job''); INSERT INTO pg_temp.t VALUES (1); DELETE FROM pg_temp.t',
	'39P01', NULL, 'guard() is for holdfast''s own tables');

SELECT * FROM finish();
ROLLBACK;
