\i test/setup.sql
\i test/tools.sql
-- Least privilege at work: what each kind of grant reaches, and that it reaches no further.
SELECT plan(141);

SELECT pg_temp.at('00:00:00') \g /dev/null
CREATE ROLE regress_holdfast_producer;
CREATE ROLE regress_holdfast_worker;
CREATE ROLE regress_holdfast_reader;
CREATE ROLE regress_holdfast_operator;
CREATE ROLE regress_holdfast_member IN ROLE regress_holdfast_worker;
CREATE ROLE regress_holdfast_wrapper;
CREATE ROLE regress_holdfast_nobody;
SELECT holdfast.create_queue(q) FROM unnest(ARRAY['a', 'b']) q \g /dev/null
SELECT holdfast.define_stream(q, 'loop') FROM unnest(ARRAY['a', 'b']) q \g /dev/null
SELECT holdfast.grant_queue('a', 'regress_holdfast_' || kind, kind) FROM unnest(ARRAY['producer', 'worker', 'reader', 'operator']) kind \g /dev/null
SELECT holdfast.grant_queue('b', 'regress_holdfast_wrapper', 'worker') \g /dev/null

-- a statement run by another role: its first column, or the SQLSTATE
CREATE FUNCTION pg_temp.by(kind text, statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	answer	text;
BEGIN
	PERFORM set_config('role', 'regress_holdfast_' || kind, true);
	EXECUTE statement INTO answer;
	PERFORM set_config('role', 'none', true);
	RETURN coalesce(answer, 'null');
EXCEPTION WHEN OTHERS THEN		-- takes the role back, too
	RETURN SQLSTATE;
END
$$;
-- a call about the scene's job by another role
CREATE FUNCTION pg_temp.told(kind text, name text, call text) RETURNS text LANGUAGE sql AS $$
	SELECT pg_temp.by($1, replace(replace(replace('SELECT * FROM holdfast.' || $3, '@job', format('%L::bigint, %L::uuid', s.job_id, s.lease_id)),
								  '@id', format('%L::bigint', s.job_id)), '@key', format('%L::uuid', s.idempotency_key)))
	FROM scene s WHERE s.name = $2
$$;
CREATE FUNCTION pg_temp.scene(name text, queue_name text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM holdfast.enqueue(scene.queue_name, 'act', scene.name, priority => -50);
	INSERT INTO scene SELECT c.subject, c.job_id, c.idempotency_key, c.lease_id FROM holdfast.claim(scene.queue_name, 'w') c;
	RETURN scene.name;
END
$$;

-- every function of the extension, called by every kind: 42501 unless the design names it

CREATE TEMPORARY TABLE allowed AS
	SELECT k.kind, f.name FROM (VALUES
		('{producer,worker,reader,operator}'::text[], '{intent_key,key_of,effect_key,backoff_delay,jitter_ms,job_seed,version}'::text[]),
		('{producer}', '{enqueue,enqueue_batch,outcome}'),
		('{worker}', '{claim,claim_any,complete_and_claim,complete,complete_batch,fail,schedule_retry,snooze,release,heartbeat,assert_lease,validate_lease,reconcile,ledger_transition,effects,outcome,next_wakeup}'),
		('{reader,operator}', '{metrics,explain,timeline,is_granted,events_of,event_line,report_html,html_text,recoverable,span,how_long,error_summary,latest_events,budget,clock,pairs,pair_because,backoff_window,normalized_message,error_digest,policy_figure,class_disposition,budget_end,span_start,span_end,verdicts}'),
		('{operator}', '{cancel,redrive,redrive_queue,settle_unknown,pause_queue,resume_queue,purge_queue,resume_stream}')) AS v (kinds, names),
		unnest(v.kinds) AS k (kind), unnest(v.names) AS f (name)
	WHERE EXISTS (SELECT FROM pg_proc p WHERE p.pronamespace = 'holdfast'::regnamespace AND p.proname = f.name);
CREATE TEMPORARY TABLE function AS
	SELECT p.oid, p.proname::text AS name, p.oid::regprocedure::text AS signature,
		format(CASE p.prokind WHEN 'w' THEN 'SELECT holdfast.%I(%s) OVER ()' ELSE 'SELECT FROM holdfast.%I(%s)' END,
			p.proname, (SELECT string_agg(format('(SELECT NULL::%s)', format_type(t, NULL)), ', ' ORDER BY n)
			FROM unnest(p.proargtypes) WITH ORDINALITY AS a (t, n))) AS call
	FROM pg_proc p
	WHERE p.pronamespace = 'holdfast'::regnamespace AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype);
CREATE TEMPORARY TABLE matrix AS
	SELECT kind, f.name, f.signature, pg_temp.by(kind, f.call) AS answer, EXISTS (SELECT FROM allowed a WHERE a.kind = k.kind AND a.name = f.name) AS allowed
	FROM unnest(ARRAY['producer', 'worker', 'reader', 'operator', 'nobody']) AS k (kind), function f;
SELECT cmp_ok((SELECT count(*) FROM function), '>=', 60::bigint, 'the catalog names the functions');
SELECT is_empty(format($$SELECT kind, signature, answer FROM matrix WHERE kind = %L AND NOT allowed AND answer <> '42501'$$, kind), 'G13: closed to a ' || kind || ': every other function')
FROM unnest(ARRAY['producer', 'worker', 'reader', 'operator', 'nobody']) AS kind;
SELECT is_empty(format($$SELECT kind, signature, answer FROM matrix WHERE kind = %L AND allowed AND answer = '42501'$$, kind), 'G13: open to a ' || kind || ': every function of its kind')
FROM unnest(ARRAY['producer', 'worker', 'reader', 'operator']) AS kind;

-- every table, view and sequence

SELECT is_empty($$SELECT kind, c.relname FROM pg_class c, unnest(ARRAY['producer', 'worker', 'reader', 'operator', 'nobody']) AS kind
	WHERE c.relnamespace = 'holdfast'::regnamespace AND c.relkind IN ('r', 'p', 'm', 'f')
	  AND (has_table_privilege('regress_holdfast_' || kind, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
		   OR has_any_column_privilege('regress_holdfast_' || kind, c.oid, 'SELECT, INSERT, UPDATE, REFERENCES'))$$, 'G13: no privilege on any table');
SELECT is_empty($$SELECT kind, c.relname FROM pg_class c, unnest(ARRAY['producer', 'worker', 'reader', 'operator', 'nobody']) AS kind
	WHERE c.relnamespace = 'holdfast'::regnamespace AND c.relkind = 'S' AND has_sequence_privilege('regress_holdfast_' || kind, c.oid, 'USAGE, SELECT, UPDATE')$$, 'G13: nor on any sequence');
SELECT is_empty($$SELECT kind, c.relname FROM pg_class c, unnest(ARRAY['producer', 'worker', 'reader', 'operator', 'nobody']) AS kind
	WHERE c.relnamespace = 'holdfast'::regnamespace AND c.relkind = 'v' AND has_table_privilege('regress_holdfast_' || kind, c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')$$,
	'G13: views are for reading at most');
SELECT is_empty($$SELECT kind, c.relname, pg_temp.by(kind, format('SELECT FROM holdfast.%I', c.relname)) FROM pg_class c, unnest(ARRAY['producer', 'worker', 'nobody']) AS kind
	WHERE c.relnamespace = 'holdfast'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND pg_temp.by(kind, format('SELECT FROM holdfast.%I', c.relname)) <> '42501'$$,
	'G13: producers and workers read nothing');
SELECT is_empty($$SELECT kind, c.relname FROM pg_class c, unnest(ARRAY['reader', 'operator']) AS kind
	WHERE c.relnamespace = 'holdfast'::regnamespace AND c.relkind IN ('r', 'p') AND pg_temp.by(kind, format('SELECT FROM holdfast.%I', c.relname)) <> '42501'$$,
	'G13: readers and operators read no table');
SELECT is(pg_temp.by('worker', statement), '42501', 'G13: a worker writes no table: ' || statement) FROM unnest(ARRAY['UPDATE holdfast.job SET run_after = now()', 'DELETE FROM holdfast.job',
	'INSERT INTO holdfast.setting VALUES (''token_floor'', ''1'')', 'TRUNCATE holdfast.event', 'SET LOCAL holdfast.clock = ''2040-01-01''', 'SET LOCAL holdfast.single_transaction = on',
	'SELECT set_config(''holdfast.clock'', '''', true)']) AS statement;

-- a whole worker's day, with grants and nothing else

SELECT is(pg_temp.by('producer', $$SELECT outcome FROM holdfast.enqueue('a', 'act', 'day')$$), 'created', 'G13: a producer enqueues');
SELECT is(pg_temp.by('producer', $$SELECT outcome FROM holdfast.enqueue_batch('a', '[{"action_key": "act", "subject": "night"}]')$$), 'created', 'G13: and batches');
INSERT INTO scene SELECT 'day', j.job_id, j.idempotency_key, pg_temp.by('worker', $$SELECT lease_id FROM holdfast.claim('a', 'w')$$)::uuid FROM pg_temp.job j WHERE j.subject = 'day';
SELECT is(pg_temp.told('worker', 'day', call), answer, 'G13: a worker of the queue: ' || call) FROM (VALUES
	('heartbeat(@job)', 'extended'), ('validate_lease(@job)', 'true'), ('ledger_transition(@job, ''started'', ''mail'')', 'ok'), ('ledger_transition(@job, ''committed'', ''mail'')', 'ok'),
	('effects(@job)', 'mail'), ('fail(@job, ''Boom'')', 'reconcile'), ('outcome(@job)', 'failed'), ('next_wakeup(''a'')', '0')) AS v (call, answer);
SELECT is(pg_temp.told('producer', 'day', 'outcome(@job)'), 'failed', 'G13: its producer may ask for the outcome');
SELECT is(pg_temp.by('reader', $$SELECT unknown_effects FROM holdfast.metrics('a')$$), '1', 'G13: a reader of the queue sees its figures');
SELECT is(pg_temp.by('operator', $$SELECT unknown_effects FROM holdfast.metrics('a')$$), '1', 'G13: and so does an operator');
SELECT is(pg_temp.by('reader', $$SELECT count(*) FROM holdfast.attempt$$), '1', 'G13: a reader sees its attempts');
SELECT is(pg_temp.told('operator', 'day', 'settle_unknown(@key, ''landed'', ''{}'', ''seen'')'), 'committed', 'G13: an operator settles');
SELECT is(pg_temp.told('operator', 'day', call), answer, 'G13: an operator of the queue: ' || call) FROM (VALUES
	('pause_queue(''a'')', ''), ('resume_queue(''a'')', ''), ('resume_stream(''a'', ''loop'')', ''), ('purge_queue(''a'')', '1'), ('redrive_queue(''a'', ''r'')', '0'), ('cancel(@id)', 'unknown_job')) AS v (call, answer);
SELECT pg_temp.scene('member', 'a') \g /dev/null
SELECT is(pg_temp.told('member', 'member', 'complete(@job)'), 'completed', 'G13: a member of a granted role may what the role may');

-- another queue

SELECT pg_temp.scene('in a', 'a'), pg_temp.scene('in b', 'b'), pg_temp.scene('doubt in b', 'b'), pg_temp.scene('dead in b', 'b'), pg_temp.scene('landed in b', 'b') \g /dev/null
SELECT decision FROM scene s, holdfast.fail(s.job_id, s.lease_id, 'Boom') WHERE s.name = 'doubt in b' \g /dev/null
SELECT holdfast.cancel(s.job_id, NULL, true) FROM scene s WHERE s.name = 'dead in b' \g /dev/null
SELECT holdfast.complete(s.job_id, s.lease_id) FROM scene s WHERE s.name = 'landed in b' \g /dev/null
SELECT outcome FROM holdfast.enqueue('b', 'act', 'waits in b') \g /dev/null
SELECT outcome FROM holdfast.enqueue('a', 'act', 'waits in a') \g /dev/null
SELECT pg_temp.stored() AS before \gset
SELECT is(pg_temp.told(kind, 'in b', call), '42501', format('G13: %s of queue a, %s', kind, call)) FROM (VALUES
	('worker', 'claim(''b'', ''w'')'), ('worker', 'claim_any(ARRAY[''b''], ''w'')'), ('worker', 'claim_any(ARRAY[''a'', ''b''], ''w'')'), ('worker', 'claim_any(ARRAY[''b'', ''a''], ''w'', 1)'),
	('worker', 'complete_and_claim(''b'', ''w'', ''{}'', ''{}'')'), ('worker', 'next_wakeup(''b'')'),
	('producer', 'enqueue(''b'', ''act'', ''s'')'), ('producer', 'enqueue_batch(''b'', ''[]'')'), ('producer', 'enqueue_batch(''b'', ''[{"action_key": "act", "subject": "s"}]'')'),
	('reader', 'metrics(''b'')'), ('operator', 'metrics(''b'')'),
	('operator', 'purge_queue(''b'')'), ('operator', 'pause_queue(''b'')'), ('operator', 'resume_queue(''b'')'), ('operator', 'redrive_queue(''b'', ''r'')'), ('operator', 'resume_stream(''b'', ''loop'')'),
	('worker', 'enqueue(''a'', ''act'', ''s'')'), ('producer', 'claim(''a'', ''w'')'), ('reader', 'claim(''a'', ''w'')'), ('reader', 'cancel(@id)'), ('operator', 'complete(@job)'), ('reader', 'enqueue(''a'', ''act'', ''s'')')
) AS v (kind, call);
SELECT is(pg_temp.told(kind, name, call), answer, format('G13: %s of queue a, a job in b: %s', kind, call)) FROM (VALUES
	('worker', 'in b', 'complete(@job)', 'unknown_job'), ('worker', 'in b', 'fail(@job, ''X'')', 'unknown_job'), ('worker', 'in b', 'schedule_retry(@job, ''9 s'')', 'unknown_job'),
	('worker', 'in b', 'snooze(@job, ''9 s'')', 'unknown_job'), ('worker', 'in b', 'release(@job)', 'unknown_job'), ('worker', 'in b', 'heartbeat(@job)', 'unknown_job'),
	('worker', 'in b', 'reconcile(@job, ''landed'')', 'unknown_job'), ('worker', 'in b', 'ledger_transition(@job, ''committed'')', 'unknown_job'), ('worker', 'in b', 'outcome(@job)', 'unknown_job'),
	('worker', 'landed in b', 'outcome(@job)', 'unknown_job'), ('worker', 'landed in b', 'complete(@job)', 'unknown_job'), ('worker', 'landed in b', 'heartbeat(@job)', 'unknown_job'),
	('producer', 'in b', 'outcome(@job)', 'unknown_job'), ('worker', 'in b', 'validate_lease(@job)', 'false'), ('worker', 'in b', 'effects(@job)', 'null'),
	('worker', 'in b', 'assert_lease(@job)', 'JQ001'), ('worker', 'in b', 'complete(@job, strict => true)', 'JQ001'),
	('operator', 'in b', 'cancel(@id)', 'unknown_job'), ('operator', 'in b', 'cancel(@id, NULL, true)', 'unknown_job'), ('operator', 'dead in b', 'redrive(@id, ''r'')', 'unknown_job')
) AS v (kind, name, call, answer);
SELECT ok(pg_temp.told('operator', name, 'settle_unknown(@key, ''landed'', ''{}'', ''r'')') IN ('42501', '42704'), 'G13: operator of queue a, settle_unknown: ' || name) FROM unnest(ARRAY['doubt in b', 'dead in b']) AS name;
SELECT is(pg_temp.told('worker', 'in b', 'complete_batch(ARRAY[@id], ARRAY[gen_random_uuid()])'), (SELECT job_id::text FROM scene WHERE name = 'in b'), 'G13: complete_batch answers per job');
SELECT is(pg_temp.stored(), :'before', 'G13: none of these changed or recorded anything');
SELECT is(pg_temp.by('worker', format($$SELECT string_agg(outcome, ' ' ORDER BY job_id) FROM holdfast.complete_batch(ARRAY[%s, %s], ARRAY[%L, %L]::uuid[])$$, a.job_id, b.job_id, a.lease_id, b.lease_id)),
	'completed unknown_job', 'G2: one job that is not granted does not undo the others') FROM scene a, scene b WHERE a.name = 'in a' AND b.name = 'in b';
SELECT is((SELECT status FROM pg_temp.job WHERE subject = 'in b'), 'running', 'G13: it runs on');
SELECT is(pg_temp.by('producer', $$SELECT concat_ws(' ', outcome, job_id, existing_since) FROM holdfast.enqueue('a', 'act', 'landed in b')$$), 'already_committed', 'G13: a known intent in b answers without job and time');
SELECT is(pg_temp.by('producer', $$SELECT concat_ws(' ', outcome, job_id, existing_since) FROM holdfast.enqueue('a', 'act', 'in b')$$), 'duplicate', 'G13: a live one, too');
SELECT is(pg_temp.by('producer', $$SELECT concat_ws(' ', outcome, job_id, existing_since) FROM holdfast.enqueue('a', 'act', 'doubt in b')$$), 'duplicate', 'G13: one to be reconciled, too');
SELECT is(pg_temp.by('producer', $$SELECT concat_ws(' ', outcome, job_id, existing_since) FROM holdfast.enqueue('a', 'act', 'dead in b')$$), 'unknown_effect', 'G13: and one whose effect is unknown');
CREATE FUNCTION pg_temp.detail_by(kind text, statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail	text;
BEGIN
	PERFORM set_config('role', 'regress_holdfast_' || kind, true);
	EXECUTE statement;
	RETURN 'accepted';
EXCEPTION WHEN SQLSTATE 'JQ007' THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RETURN detail;
END
$$;
SELECT matches(pg_temp.detail_by('producer', format($$SELECT holdfast.enqueue('a', 'act', %L, '{"pin": 1}')$$, name)), wanted, 'G13: JQ007 tells ' || what) FROM (VALUES
	('landed in b', 'the known one''s is in a queue not granted', 'no digest of a payload in another queue, which could be guessed by it'),
	('in b', 'the known one''s is in a queue not granted', 'none of a live job''s, either'),
	('waits in a', 'the known one''s is [0-9a-f]{64}', 'that of a payload in a queue of the producer''s')) AS v (name, wanted, what);
SELECT isnt(pg_temp.by('producer', $$SELECT concat_ws(' ', outcome, job_id, existing_since) FROM holdfast.enqueue('a', 'act', 'waits in a')$$), 'duplicate', 'G13: in a the producer is told');
SELECT is(pg_temp.by(kind, $$SELECT count(*) FROM holdfast.attempt WHERE queue = 'b'$$), '0', 'G13: the views show no rows of b to ' || kind) FROM unnest(ARRAY['reader', 'operator']) AS kind;
SELECT is(pg_temp.by('reader', format('SELECT count(*) FROM holdfast.%I WHERE queue IS DISTINCT FROM ''a''', view)), '0', 'G13: a reader reads the forensic views, and sees no other queue: ' || view)
FROM unnest(ARRAY['attempt', 'attempt_pair', 'span_pair', 'failure_pair', 'same_action_same_error_within_backoff_window', 'lease_overlap', 'stop_reason', 'timeout_finding', 'failure_pattern']) AS view;
SELECT is(pg_temp.by('reader', 'SELECT count(*) > 0 FROM holdfast.stop_reason'), 'true', 'G13: but its own');
SELECT isnt(pg_temp.by(kind, $$SELECT count(*) FROM holdfast.attempt WHERE queue = 'a'$$), '0', 'G13: but those of a to ' || kind) FROM unnest(ARRAY['reader', 'operator']) AS kind;

-- rights come before arguments, and a read-only transaction before both

SELECT is(pg_temp.by(kind, statement), '42501', 'G13: rights are looked at before arguments: ' || statement) FROM (VALUES
	('worker', $$SELECT FROM holdfast.claim('b', NULL)$$), ('worker', $$SELECT FROM holdfast.claim('b', 'w', -1)$$), ('worker', $$SELECT FROM holdfast.claim('b', 'w', modes => 'no such')$$),
	('worker', $$SELECT FROM holdfast.claim_any(ARRAY['b'], NULL)$$),
	('producer', $$SELECT FROM holdfast.enqueue('b', NULL, NULL)$$), ('producer', $$SELECT FROM holdfast.enqueue_batch('b', '7')$$),
	('operator', $$SELECT FROM holdfast.redrive_queue('b', NULL)$$), ('operator', $$SELECT FROM holdfast.pause_queue('b', repeat('r', 100000))$$)) AS v (kind, statement);
SELECT pg_temp.scene('read only', 'a') \g /dev/null
CREATE TEMPORARY TABLE writing AS SELECT v.name, replace(replace(replace(call, '@job', format('%L::bigint, %L::uuid', s.job_id, s.lease_id)), '@id', format('%L::bigint', s.job_id)),
		'@key', format('%L::uuid', s.idempotency_key)) AS call FROM (VALUES
	('enqueue', 'enqueue(''a'', ''act'', ''s'')'), ('enqueue_batch', 'enqueue_batch(''a'', ''[]'')'), ('claim', 'claim(''a'', ''w'')'), ('claim_any', 'claim_any(ARRAY[''a''], ''w'')'),
	('complete_and_claim', 'complete_and_claim(''a'', ''w'', ''{}'', ''{}'')'), ('complete', 'complete(@job)'), ('complete_batch', 'complete_batch(ARRAY[@id], ARRAY[gen_random_uuid()])'),
	('fail', 'fail(@job, ''X'')'), ('schedule_retry', 'schedule_retry(@job)'), ('snooze', 'snooze(@job, ''9 s'')'), ('release', 'release(@job)'), ('heartbeat', 'heartbeat(@job)'),
	('assert_lease', 'assert_lease(@job)'), ('reconcile', 'reconcile(@job, ''landed'')'), ('ledger_transition', 'ledger_transition(@job, ''committed'')'), ('cancel', 'cancel(@id)'),
	('redrive', 'redrive(@id, ''r'')'), ('redrive_queue', 'redrive_queue(''a'', ''r'')'), ('settle_unknown', 'settle_unknown(@key, ''landed'', ''{}'', ''r'')'), ('purge_queue', 'purge_queue(''a'')'),
	('pause_queue', 'pause_queue(''a'')'), ('resume_queue', 'resume_queue(''a'')'), ('resume_stream', 'resume_stream(''a'', ''loop'')')) AS v (name, call), scene s WHERE s.name = 'read only';
SELECT is_empty($$SELECT name FROM allowed WHERE name NOT IN (SELECT name FROM writing) AND name NOT IN ('intent_key', 'key_of', 'effect_key', 'backoff_delay', 'jitter_ms', 'job_seed', 'version',
	'outcome', 'validate_lease', 'effects', 'next_wakeup', 'metrics', 'explain', 'timeline', 'is_granted', 'events_of', 'event_line', 'report_html', 'html_text', 'recoverable', 'span', 'how_long', 'error_summary', 'latest_events', 'budget', 'clock', 'pairs', 'pair_because', 'backoff_window', 'normalized_message', 'error_digest', 'policy_figure', 'class_disposition', 'budget_end', 'span_start', 'span_end', 'verdicts')$$, 'the list of writing functions is complete');
SAVEPOINT s;
SET TRANSACTION READ ONLY;
SELECT coalesce(string_agg(name || ' ' || answer, ', '), '') AS writing
FROM (SELECT name, pg_temp.refusal('SELECT * FROM holdfast.' || call) AS answer FROM writing) w WHERE answer <> '25006' \gset
SELECT coalesce(string_agg(f.name || ' ' || f.answer, ', ' ORDER BY f.name), '') AS nulls
FROM (SELECT f.name, pg_temp.refusal(f.call) AS answer FROM function f JOIN writing w USING (name)) f WHERE answer <> '25006' \gset
SELECT coalesce(string_agg(call || ' ' || answer, ', '), '') AS reading FROM (SELECT call, pg_temp.refusal('SELECT * FROM holdfast.' || call) AS answer FROM unnest(ARRAY['next_wakeup(''a'')', 'metrics(''a'')',
	'validate_lease(1, gen_random_uuid())', 'effects(1, gen_random_uuid())', 'outcome(1, gen_random_uuid())', 'list_queues()']) AS call) r WHERE answer <> 'accepted' \gset
ROLLBACK TO s;
SELECT is(:'writing'::text, '', 'a read-only transaction: every writing function is 25006');
SELECT is(:'nulls'::text, '', 'a read-only transaction is looked at before arguments');
SELECT is(:'reading'::text, '', 'a read-only transaction may read');

-- the effective role: a SECURITY DEFINER wrapper speaks for its owner

CREATE FUNCTION public.regress_holdfast_claim_b() RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ SELECT subject FROM holdfast.claim('b', 'wrapped') $$;
ALTER FUNCTION public.regress_holdfast_claim_b() OWNER TO regress_holdfast_wrapper;
CREATE FUNCTION public.regress_holdfast_claim_a() RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ SELECT subject FROM holdfast.claim('a', 'wrapped') $$;
ALTER FUNCTION public.regress_holdfast_claim_a() OWNER TO regress_holdfast_wrapper;
CREATE FUNCTION public.regress_holdfast_invoker() RETURNS text LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$ SELECT subject FROM holdfast.claim('b', 'wrapped') $$;
SELECT is(pg_temp.by('nobody', 'SELECT public.regress_holdfast_claim_b()'), 'waits in b', 'G13: a SECURITY DEFINER wrapper claims with its owner''s grant');
SELECT is(pg_temp.by('worker', 'SELECT public.regress_holdfast_claim_a()'), '42501', 'G13: and not with its caller''s');
SELECT is(pg_temp.by('worker', 'SELECT public.regress_holdfast_invoker()'), '42501', 'G13: an ordinary wrapper is its caller');
SELECT is(pg_temp.by('worker', $$SELECT subject FROM holdfast.claim('a', 'w')$$), 'waits in a', 'G13: the grant of the caller works beside it');

-- a role dropped and made anew has nothing until regrant()

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA holdfast FROM regress_holdfast_producer;
REVOKE ALL ON SCHEMA holdfast FROM regress_holdfast_producer;
DROP ROLE regress_holdfast_producer;
CREATE ROLE regress_holdfast_producer;
SELECT is(pg_temp.by('producer', $$SELECT outcome FROM holdfast.enqueue('a', 'act', 'anew')$$), '42501', 'G13: a role made anew has nothing');
GRANT USAGE ON SCHEMA holdfast TO regress_holdfast_producer;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA holdfast TO regress_holdfast_producer;
SELECT is(pg_temp.by('producer', $$SELECT outcome FROM holdfast.enqueue('a', 'act', 'anew')$$), '42501', 'G13: not even with EXECUTE on every function: the row is another role''s');
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA holdfast FROM regress_holdfast_producer;
SELECT is(holdfast.regrant(), 1::bigint, 'regrant() binds the row to the role');
SELECT is(pg_temp.by('producer', $$SELECT outcome FROM holdfast.enqueue('a', 'act', 'anew')$$), 'created', 'G13: which then has its queue');
SELECT is(pg_temp.by('producer', $$SELECT outcome FROM holdfast.enqueue('b', 'act', 'anew b')$$), '42501', 'G13: and no other');
ALTER ROLE regress_holdfast_worker RENAME TO regress_holdfast_renamed;
SELECT is(pg_temp.by('renamed', $$SELECT subject FROM holdfast.claim('a', 'w')$$), '42501', 'G13: a renamed role has lost its queue');
ALTER ROLE regress_holdfast_renamed RENAME TO regress_holdfast_worker;
SELECT is(pg_temp.by('worker', $$SELECT subject FROM holdfast.claim('a', 'w')$$), 'anew', 'G13: under its own name it has it again');

-- revoked, and another kind

SELECT holdfast.grant_queue('b', 'regress_holdfast_worker', 'worker'), holdfast.revoke_queue('a', 'regress_holdfast_worker', 'worker') \g /dev/null
SELECT is(pg_temp.by('worker', $$SELECT subject FROM holdfast.claim('a', 'w')$$), '42501', 'G13: with another queue still granted, the revoked one is closed at once');
SELECT isnt(pg_temp.by('worker', $$SELECT count(*) FROM holdfast.claim('b', 'w')$$), '42501', 'G13: and the other is open');
SELECT holdfast.create_queue('c'), holdfast.grant_queue('c', 'regress_holdfast_operator', 'operator') \g /dev/null
SELECT is(pg_temp.by('operator', $$SELECT holdfast.pause_queue('c')$$), '', 'setting the scene');
SELECT holdfast.drop_queue('c'), holdfast.create_queue('c') \g /dev/null
SELECT is(pg_temp.by('operator', $$SELECT holdfast.pause_queue('c')$$), '42501', 'G13: a queue dropped and made anew is granted to nobody');

SELECT * FROM finish();
ROLLBACK;
