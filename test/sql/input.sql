\i test/setup.sql
\i test/tools.sql
-- Bad input, by hand: what each argument's bounds say, tried on every function that has the argument; all of it is
-- refused with the SQLSTATE of docs/reference.md, and changes nothing.  test/t/008_input.pl makes up 100,000 more.
SELECT plan(8);

SELECT pg_temp.at('00:00:00') \g /dev/null
CREATE ROLE regress_holdfast_any;
CREATE ROLE regress_holdfast_reader;
CREATE TABLE regress_holdfast_records (job_id text, subject text, action_key text, started_at timestamptz);
SELECT holdfast.create_queue(q) FROM unnest(ARRAY['a', 'b']) q \g /dev/null
SELECT holdfast.grant_queue('a', 'regress_holdfast_any', kind) FROM unnest(ARRAY['producer', 'worker', 'reader', 'operator']) kind \g /dev/null
SELECT holdfast.grant_queue('a', 'regress_holdfast_reader', 'reader') \g /dev/null
SELECT holdfast.define_stream('a', 'loop'), holdfast.define_retry_policy('own', '1 s', min_delay => '1 s'), holdfast.define_error_rule('own', 'Odd%', 'terminal') \g /dev/null
SELECT outcome FROM holdfast.enqueue('a', 'act', 'held') \g /dev/null
CREATE TEMPORARY TABLE held AS SELECT job_id, lease_id FROM holdfast.claim('a', 'w');
GRANT SELECT ON held TO PUBLIC;

-- what a call is made of, besides the one bad argument
CREATE TEMPORARY TABLE good (argument text, value text);
INSERT INTO good VALUES
	('queue_name', '''a'''), ('queue_names', 'ARRAY[''a'']'), ('worker_name', '''w'''), ('job_id', '(SELECT job_id FROM held)'), ('lease_id', '(SELECT lease_id FROM held)'),
	('job_ids', 'ARRAY(SELECT job_id FROM held)'), ('lease_ids', 'ARRAY(SELECT lease_id FROM held)'), ('action_key', '''act'''), ('subject', '''new'''), ('error_class', '''Boom'''),
	('finding', '''landed'''), ('to_state', '''committed'''), ('delay', '''9 s'''), ('reason', '''r'''), ('jobs', '''[]'''), ('idempotency_key', 'gen_random_uuid()'), ('evidence', '''{}'''),
	('stream', '''loop'''), ('policy_name', '''own'''), ('base_delay', '''1 s'''), ('disposition', '''retry'''), ('role_name', '''regress_holdfast_any'''), ('kind', '''worker'''), ('floor', '0'),
	('source', '''log'''), ('attempts', '''[]'''), ('relation', '''regress_holdfast_records'''), ('retention', '''400 days'''), ('retry_policy', '''own'''), ('failures', '1'), ('jitter_window', '''1 s'''),
	('queue', '1');

-- the bounds, by kind of value
CREATE TEMPORARY TABLE bound (kind text, value text, answer text);
INSERT INTO bound VALUES
	('required', 'NULL', '22004'),
	('name', '''''', '22023'), ('name', 'repeat(''x'', 201)', '22023'), ('name', 'repeat(''é'', 101)', '22023'), ('name', 'repeat(''x'', 1000000)', '22023'),
	('named', '''''', '42704'), ('named', 'repeat(''x'', 201)', '42704'),
	('line', '''''', '22023'), ('line', 'repeat(''x'', 1001)', '22023'), ('line', 'repeat(''é'', 501)', '22023'),
	('scope', 'repeat(''x'', 1001)', '22023'),
	('word', '''''', '22023'), ('word', '''no such''', '22023'), ('word', ''' all''', '22023'), ('word', '''ALL''', '22023'), ('word', 'E''all\n''', '22023'), ('word', 'repeat(''x'', 100000)', '22023'),
	('known', '''no such''', '42704'), ('known', '''A''', '42704'), ('known', 'E''a\t''', '42704'), ('known', '''a''''; DROP TABLE held; --''', '42704'), ('known', '''%s%n''', '42704'),
	('span', '''1 mon''', '22023'), ('span', '''-1 mon''', '22023'), ('span', '''1 mon -30 days''', '22023'), ('span', '''178000000 years''', '22023'), ('span', '''-178000000 years''', '22023'),
	('span', '''-1 ms''', '22023'), ('span', '''-1 us''', '22023'), ('span', '''3651 days''', '22023'), ('span', '''106751991 days''', '22023'), ('span', '''2147483647 days 2562047788:00:54.775807''', '22023'),
	('span', '''-2147483648 days''', '22023'), ('span', '''2562047788:00:54.775807''', '22023'), ('span', '''-2562047788:00:54.775807''', '22023'),
	('some', '''0''', '22023'), ('some', '''999 us''', '22023'),
	('day', '''1 day 00:00:00.001''', '22023'),
	('gap', '''1 mon''', '22023'), ('gap', '''178000000 years''', '22023'), ('gap', '''3651 days''', '22023'), ('gap', '''106751991 days''', '22023'), ('gap', '''2562047788:00:54.775807''', '22023'),
	('gap', '''0''', 'JQ006'), ('gap', '''-1 s''', 'JQ006'), ('gap', '''999 us''', 'JQ006'), ('gap', '''-2562047788:00:54.775807''', 'JQ006'),
	('time', '''infinity''', '22023'), ('time', '''-infinity''', '22023'),
	('near', '''294276-12-31 23:59:59.999999+00''', '22023'), ('near', '''2041-01-01 00:00:00+00''', '22023'),
	('from 0', '-1', '22023'), ('from 0', '-2147483647', '22023'), ('from 0', '''-2147483648''', '22023'),
	('from 1', '0', '22023'), ('from 1', '-1', '22023'), ('from 1', '''-2147483648''', '22023'),
	('1000', '1001', '22023'), ('1000', '2147483647', '22023'),
	('1000000', '1000001', '22023'),
	('priority', '101', '22023'), ('priority', '-101', '22023'), ('priority', '''2147483647''', '22023'), ('priority', '''-2147483648''', '22023'),
	('big from 0', '-1', '22023'), ('big from 0', '''-9223372036854775808''', '22023'),
	('floor', '9000000000000000001', '22023'),
	('rate', '''NaN''', '22023'), ('rate', '''Infinity''', '22023'), ('rate', '''-Infinity''', '22023'), ('rate', '0', '22023'), ('rate', '-2', '22023'), ('rate', '0.999', '22023'), ('rate', '1.005', '22023'),
	('rate', '1000.5', '22023'), ('rate', '1e300', '22023'), ('rate', '''-0''', '22023'),
	('queues', '''{}''', '22023'), ('queues', '''{NULL}''', '22004'), ('queues', '''{a,NULL}''', '22004'), ('queues', 'array_fill(''a''::text, ARRAY[65])', '22023'), ('queues', '''{a,no such}''', '42704'),
	('queues', '''{""}''', '42704'), ('queues', 'ARRAY[repeat(''x'', 201)]', '42704'), ('queues', '''{a,b}''', '42501'), ('queues', '''{b}''', '42501'),
	('json', 'to_jsonb(repeat(''x'', 16777217))', '54000'), ('json', '(SELECT jsonb_agg(''1e131071''::jsonb) FROM generate_series(1, 65))', '54000'),
	('json', '(SELECT jsonb_agg((''1.'' || repeat(''0'', 16383))::jsonb) FROM generate_series(1, 513))', '54000'),
	('payload', 'to_jsonb(repeat(''x'', 67108865))', '54000'), ('payload', '(SELECT jsonb_build_object(''a'', jsonb_agg(''-1e131071''::jsonb)) FROM generate_series(1, 257))', '54000'),
	('ids', '''{}''', '22023'), ('ids', '''{NULL}''', '22004'), ('ids', '''{{1},{2}}''', '2202E'), ('ids', '''{1,2}''', '22023'), ('ids', 'array_fill(1::bigint, ARRAY[10001])', '22023'),
	('leases', '''{}''', '22023'), ('leases', '''{NULL}''', '22004'), ('leases', 'array_fill(gen_random_uuid(), ARRAY[2])', '22023'), ('leases', 'array_fill(gen_random_uuid(), ARRAY[1, 1])', '2202E'),
	('jobs', '''7''', '22023'), ('jobs', '''null''', '22023'), ('jobs', '''{}''', '22023'), ('jobs', '''"a"''', '22023'), ('jobs', '''[null]''', '22023'), ('jobs', '''[[]]''', '22023'), ('jobs', '''[7]''', '22023'),
	('jobs', '''[{}]''', '22004'), ('jobs', '''[{"action_key": "a"}]''', '22004'), ('jobs', '''[{"subject": "a"}]''', '22004'), ('jobs', '''[{"action_key": null, "subject": "s"}]''', '22004'),
	('jobs', '''[{"action_key": "", "subject": "s"}]''', '22023'), ('jobs', '''[{"action_key": "a", "subject": {}}]''', '22023'),
	('jobs', '''[{"action_key": "a", "subject": "s", "no such": 1}]''', '22023'), ('jobs', '''[{"action_key": "a", "subject": "s", "queue_name": "b"}]''', '22023'),
	('jobs', '''[{"action_key": "a", "subject": "s", "priority": "x"}]''', '22P02'), ('jobs', '''[{"action_key": "a", "subject": "s", "priority": 1e10}]''', '22003'),
	('jobs', '''[{"action_key": "a", "subject": "s", "priority": 1.5}]''', '22P02'), ('jobs', '''[{"action_key": "a", "subject": "s", "priority": 101}]''', '22023'),
	('jobs', '''[{"action_key": "a", "subject": "s", "delay": "no time"}]''', '22007'), ('jobs', '''[{"action_key": "a", "subject": "s", "delay": 1e300}]''', '22007'), ('jobs', '''[{"action_key": "a", "subject": "s", "delay": "1000000000000 years"}]''', '22015'),
	('jobs', '''[{"action_key": "a", "subject": "s", "delay": "1 mon"}]''', '22023'), ('jobs', '''[{"action_key": "a", "subject": "s", "run_after": "infinity"}]''', '22023'),
	('jobs', '''[{"action_key": "a", "subject": "s", "run_after": "yesterdax"}]''', '22007'), ('jobs', '''[{"action_key": "a", "subject": "s", "side_effects": 7}]''', '22P02'),
	('jobs', '''[{"action_key": "a", "subject": "s", "idempotency_key": "x"}]''', '22P02'), ('jobs', '''[{"action_key": "a", "subject": "s", "max_attempts": 0}]''', '22023'),
	('jobs', '''[{"action_key": "a", "subject": "s", "intent_version": -1}]''', '22023'), ('jobs', '''[{"action_key": "a", "subject": "s", "retry_policy": "no such"}]''', '42704'),
	('jobs', '''[{"action_key": "a", "subject": "s", "timeout": "1 day 1 s"}]''', '22023'), ('jobs', '''[{"action_key": "a", "subject": "s", "timeout": "80 s"}]''', 'JQ005'),
	('jobs', '''[{"action_key": "a", "subject": "s", "run_after": "2030-01-02 00:00:00+00", "delay": "1 s"}]''', '22023'),
	('jobs', '(SELECT jsonb_agg(jsonb_build_object(''action_key'', ''a'', ''subject'', ''s'')) FROM generate_series(1, 10001))', '22023'),
	('records', '''7''', '22023'), ('records', '''{}''', '22023'), ('records', '''[null]''', '22023'), ('records', '''[{}]''', '22023'), ('records', '''[{"no such": 1}]''', '22023'),
	('records', '''[{"job_id": "1", "subject": "s", "action_key": "a", "started_at": 7}]''', '22023'), ('records', '''[{"job_id": "1", "subject": "s", "action_key": "a", "started_at": "infinity"}]''', '22023'),
	('records', '''[{"job_id": {}, "subject": "s", "action_key": "a", "started_at": "2030-01-01"}]''', '22023'),
	('records', '''[{"job_id": "1", "subject": "s", "action_key": "a", "started_at": "2030-01-01", "attempt_number": -1}]''', '22023'),
	('records', '''[{"job_id": "1", "subject": "s", "action_key": "a", "started_at": "2030-01-01", "elapsed_ms": 1e300}]''', '22023'),
	('records', '''[{"job_id": "1", "subject": "s", "action_key": "a", "started_at": "2030-01-01", "final": "x"}]''', '22023'),
	('records', '''[{"job_id": "1", "subject": "s", "action_key": "a", "started_at": "2030-01-01", "lease_id": "x", "outcome": "no such"}]''', '22023');

-- which bounds an argument has, in the functions named, or in all that write or set
CREATE TEMPORARY TABLE bounded (argument text, kinds text[], functions text[]);
INSERT INTO bounded VALUES
	('queue_name', '{required,name,known}', '{enqueue,enqueue_batch,claim,complete_and_claim,next_wakeup,metrics,pause_queue,resume_queue,purge_queue,redrive_queue,resume_stream}'),
	('queue_name', '{required,named,known}', '{alter_queue,drop_queue,define_stream,grant_queue}'),
	('queue_name', '{required,name}', '{create_queue}'), ('queue_name', '{known}', '{revoke_queue}'), ('queue_names', '{required,queues}', NULL),
	('worker_name', '{required,name}', '{claim,claim_any,complete_and_claim}'), ('action_key', '{required,name}', '{enqueue}'), ('action_key', '{name}', '{redrive_queue,timeline,events_of}'),
	('subject', '{required,line}', '{enqueue}'), ('subject', '{line}', '{timeline,events_of}'), ('correlation_id', '{line}', '{enqueue,timeline,events_of}'), ('scope', '{scope}', '{enqueue}'),
	('error_class', '{required,name}', '{fail,define_error_rule}'), ('error_class', '{name}', '{schedule_retry,redrive_queue}'), ('effect', '{name}', '{reconcile,ledger_transition}'),
	('stream', '{name}', '{enqueue}'), ('stream', '{required,name}', '{define_stream,resume_stream}'), ('stream', '{known}', '{resume_stream}'),
	('retry_policy', '{name,known}', '{enqueue}'), ('retry_policy', '{named,known}', '{create_queue,alter_queue,backoff_delay}'), ('policy_name', '{required,name}', '{define_retry_policy}'),
	('policy_name', '{required,known}', '{define_error_rule,drop_retry_policy,list_error_rules}'),
	('reason', '{line}', '{cancel,snooze,release,pause_queue,resume_queue,resume_stream}'), ('reason', '{required,line}', '{redrive,redrive_queue,settle_unknown}'),
	('job_id', '{required}', '{complete,fail,schedule_retry,snooze,release,heartbeat,assert_lease,reconcile,ledger_transition,effects,outcome,cancel,redrive}'),
	('lease_id', '{required}', '{complete,fail,schedule_retry,snooze,release,heartbeat,assert_lease,reconcile,ledger_transition,effects,outcome}'),
	('job_ids', '{required,ids}', NULL), ('lease_ids', '{required,leases}', NULL), ('jobs', '{required,jobs}', NULL), ('idempotency_key', '{required}', '{settle_unknown}'),
	('modes', '{required,word}', NULL), ('side_effect', '{word}', '{fail,schedule_retry,define_error_rule}'), ('timeout_kind', '{word}', '{fail}'), ('finding', '{required,word}', NULL),
	('to_state', '{required,word}', NULL), ('disposition', '{required,word}', NULL), ('reconcile', '{word}', NULL), ('kind', '{word}', '{grant_queue,revoke_queue,is_granted}'),
	('qty', '{required,from 1,1000}', NULL), ('max', '{required,from 1,1000000}', '{redrive_queue}'), ('priority', '{priority}', NULL), ('intent_version', '{from 0}', '{enqueue}'),
	('max_attempts', '{from 1}', '{enqueue,create_queue,define_retry_policy}'), ('max_attempts', '{from 0}', '{alter_queue}'), ('failures', '{from 1}', '{jitter_ms,backoff_delay}'), ('threshold', '{from 1}', NULL),
	('max_lost', '{from 1}', NULL), ('reconcile_max', '{from 1}', NULL), ('timeout_limit_ms', '{big from 0}', '{fail}'), ('floor', '{required,big from 0,floor}', NULL), ('backoff_rate', '{rate}', NULL),
	('lease', '{span,some,day}', NULL), ('timeout', '{span,some,day}', NULL), ('heartbeat', '{span,day}', NULL), ('grace', '{span,day}', NULL), ('delay', '{span}', '{enqueue}'),
	('delay', '{gap}', '{schedule_retry,snooze}'), ('delay', '{required}', '{snooze}'), ('retry_after', '{span}', NULL), ('base_delay', '{required,span,some}', NULL), ('max_delay', '{span,some}', NULL),
	('min_delay', '{span,some}', NULL), ('max_reset', '{span,some}', NULL), ('reconcile_delay', '{span,some}', NULL), ('jitter_window', '{span}', '{jitter_ms,define_retry_policy}'), ('cool_down', '{span,some}', NULL),
	('retention', '{span,some}', NULL), ('ledger_retention', '{span,some}', NULL), ('run_after', '{time,near}', '{enqueue}'), ('retry_at', '{time,near}', '{fail}'), ('give_up_at', '{time}', '{enqueue}'),
	('result', '{json}', '{complete}'), ('detail', '{json}', '{fail,schedule_retry}'), ('evidence', '{json}', '{reconcile,ledger_transition,settle_unknown}'), ('headers', '{json}', '{enqueue}'), ('payload', '{payload}', '{enqueue}'),
	('source', '{required,name}', '{import_attempts,import_attempts_from}'), ('attempts', '{required,records}', '{import_attempts}');

CREATE TEMPORARY TABLE argument AS
	SELECT p.oid, p.proname::text AS function, a.name AS argument, a.n, a.type::regtype, a.n > p.pronargs - p.pronargdefaults AS optional,
		CASE WHEN has_function_privilege('regress_holdfast_any', p.oid, 'EXECUTE') THEN 'regress_holdfast_any' ELSE 'none' END AS role
	FROM pg_proc p, unnest(p.proargnames[1:p.pronargs], p.proargtypes::oid[]) WITH ORDINALITY AS a (name, type, n)
	WHERE p.pronamespace = 'holdfast'::regnamespace AND p.prokind = 'f';
CREATE TEMPORARY TABLE bad_case AS
	SELECT bad.function, bad.argument, b.value, b.answer, bad.role,
		(SELECT format('SELECT * FROM holdfast.%I(%s)', bad.function, string_agg(format('%I => (%s)::%s', a.argument, CASE WHEN a.n = bad.n THEN b.value ELSE coalesce(g.value, 'NULL') END, a.type), ', ' ORDER BY a.n))
		 FROM argument a LEFT JOIN good g USING (argument) WHERE a.oid = bad.oid AND (a.n = bad.n OR NOT a.optional)) AS call
	FROM bounded x JOIN bound b ON b.kind = ANY (x.kinds)
	JOIN argument bad ON bad.argument = x.argument AND (bad.function = ANY (x.functions) OR x.functions IS NULL AND bad.role <> 'none' AND NOT has_function_privilege('regress_holdfast_reader', bad.oid, 'EXECUTE')
		OR x.functions IS NULL AND bad.function IN ('create_queue', 'alter_queue', 'define_retry_policy', 'define_error_rule', 'define_stream', 'post_restore', 'set_attempt_retention'));

-- The answer of a call that is always undone; 'accepted' if it was not refused.
CREATE FUNCTION pg_temp.answer(role text, call text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('role', answer.role, true);
	EXECUTE call;
	RAISE EXCEPTION SQLSTATE 'ZZZZZ';
EXCEPTION WHEN OTHERS THEN
	RETURN CASE SQLSTATE WHEN 'ZZZZZ' THEN 'accepted' ELSE SQLSTATE END;
END
$$;
CREATE FUNCTION pg_temp.settings() RETURNS text LANGUAGE sql AS $$
	SELECT md5(concat((SELECT string_agg(q::text, ';' ORDER BY q.queue_id) FROM holdfast.queue q), (SELECT string_agg(s::text, ';' ORDER BY s.name) FROM holdfast.setting s),
		(SELECT string_agg(p::text, ';' ORDER BY p.policy_name) FROM holdfast.retry_policy p), (SELECT string_agg(r::text, ';' ORDER BY r.policy_name, r.error_class) FROM holdfast.error_rule r),
		(SELECT string_agg(g::text, ';' ORDER BY g::text) FROM holdfast.queue_grant g), (SELECT string_agg(s::text, ';' ORDER BY s::text) FROM holdfast.stream s)))
$$;

SELECT pg_temp.stored() || pg_temp.settings() AS before \gset
CREATE TEMPORARY TABLE answered AS SELECT c.*, pg_temp.answer(c.role, c.call) AS answered FROM bad_case c;
SELECT cmp_ok((SELECT count(*) FROM answered), '>=', 1000::bigint, 'bad values of arguments, by their bounds');
SELECT is_empty('SELECT function, argument, left(value, 60), answer AS wanted, answered FROM answered WHERE answered <> answer', 'each is refused, with the SQLSTATE that the reference gives');
SELECT is_empty('SELECT x.argument, f FROM bounded x LEFT JOIN unnest(x.functions) f ON true WHERE NOT EXISTS (SELECT FROM argument a WHERE a.argument = x.argument AND (x.functions IS NULL OR a.function = f))',
	'the table names functions and arguments that exist');
SELECT is(pg_temp.stored() || pg_temp.settings(), :'before', 'and nothing is changed');

-- what is good alone, and bad together
SELECT is_empty($$SELECT call, wanted, pg_temp.answer('regress_holdfast_any', replace(replace('SELECT * FROM holdfast.' || call, '@job', '(SELECT job_id FROM held), (SELECT lease_id FROM held)'), '@id', '(SELECT job_id FROM held)')) AS answered
	FROM (VALUES
	('enqueue(''a'', ''act'', ''s'', run_after => now(), delay => ''1 s'')', '22023'), ('enqueue(''a'', ''act'', ''s'', give_up_at => ''1999-01-01 00:00:00+00'')', '22023'),
	('enqueue(''a'', ''act'', ''s'', delay => ''2 s'', give_up_at => ''2030-01-01 00:00:01+00'')', '22023'), ('enqueue(''a'', ''act'', ''s'', timeout => ''80 s'')', 'JQ005'),
	('enqueue(''a'', ''act'', ''held'', ''7'')', 'JQ007'), ('enqueue(''a'', ''act'', ''s'', idempotency_key => (SELECT idempotency_key FROM holdfast.enqueue(''a'', ''act'', ''held'')))', 'JQ007'),
	('enqueue(''a'', ''act'', ''held'', side_effects => false)', 'JQ007'), ('enqueue(''a'', ''act'', ''s'', (SELECT to_jsonb(repeat(''x'', 67108865))))', '54000'),
	('enqueue(''a'', ''act'', ''s'', headers => (SELECT to_jsonb(repeat(''x'', 67108865))))', '54000'), ('enqueue(''b'', ''act'', ''s'')', '42501'), ('enqueue(''b'', NULL, NULL)', '42501'),
	('enqueue_batch(''b'', ''[]'')', '42501'), ('enqueue_batch(''a'', ''[{"action_key": "act", "subject": "held", "payload": 1}]'')', 'JQ007'),
	('enqueue_batch(''a'', ''[{"action_key": "act", "subject": "s"}, {"action_key": "act", "subject": "s", "payload": 1}]'')', 'JQ007'),
	('claim(''a'', ''w'', lease => ''74 s'')', 'JQ005'), ('claim(''b'', ''w'')', '42501'), ('claim(''b'', NULL)', '42501'), ('claim_any(ARRAY[''a''], ''w'', lease => ''1 ms'')', 'JQ005'),
	('heartbeat(@job, ''1 ms'')', 'JQ005'), ('heartbeat(@job, ''74.999 s'')', 'JQ005'),
	('fail(@job, ''Boom'', retry_after => ''1 s'', retry_at => ''2030-01-02 00:00:00+00'')', '22023'), ('fail(@job, ''Boom'', side_effect => ''committed'')', '22023'),
	('fail(@job, ''Boom'', timeout_kind => ''max runtime'')', '22023'), ('snooze(@job, NULL)', '22004'), ('complete(@id, gen_random_uuid(), strict => true)', 'JQ001'),
	('complete(-1, gen_random_uuid(), strict => true)', 'JQ001'), ('assert_lease(@id, gen_random_uuid())', 'JQ001'), ('assert_lease(9223372036854775807, gen_random_uuid())', 'JQ001'),
	('reconcile(@job, ''landed'')', 'JQ004'), ('reconcile(@job, ''landed'', effect => ''no such'')', 'JQ004'), ('ledger_transition(@job, ''failed_retryable'')', 'JQ004'),
	('ledger_transition(@job, ''committed'', ''never started'')', 'JQ004'), ('ledger_transition(@job, ''unknown'')', '22023'), ('ledger_transition(@job, ''planned'')', '22023'),
	('settle_unknown(gen_random_uuid(), ''landed'', ''{}'', ''r'')', '42704'), ('resume_stream(''a'', ''no such'')', '42704'), ('timeline()', '22023'), ('pair_because(jsonb_populate_record(NULL::holdfast.pair, ''{}''))', '22023'), ('pair_because(jsonb_populate_record(NULL::holdfast.pair, ''{"verdict": "no such"}''))', '22023'),
	('pair_because(jsonb_populate_record(NULL::holdfast.pair, ''{"verdict": "unexplained"}''))', 'accepted'),
	('complete_batch(ARRAY[@id, 1], ARRAY(SELECT lease_id FROM held))', '22023'), ('metrics(''b'')', '42501'), ('pause_queue(''b'')', '42501'), ('redrive_queue(''b'', NULL)', '42501')) AS v (call, wanted)
	WHERE pg_temp.answer('regress_holdfast_any', replace(replace('SELECT * FROM holdfast.' || call, '@job', '(SELECT job_id FROM held), (SELECT lease_id FROM held)'), '@id', '(SELECT job_id FROM held)')) <> wanted$$,
	'arguments that do not go together');
SELECT is_empty($$SELECT call, wanted, pg_temp.answer('none', 'SELECT * FROM holdfast.' || call) AS answered FROM (VALUES
	('create_queue(''a'')', '42710'), ('create_queue(''c'', lease => ''74 s'')', 'JQ005'), ('create_queue(''c'', lease => ''74 s'', heartbeat => ''25 s'')', 'JQ005'), ('create_queue(''c'', retention => ''9 days'', ledger_retention => ''8 days'')', '22023'),
	('alter_queue(''a'', grace => ''31 s'')', 'JQ005'), ('alter_queue(''a'', timeout => ''76 s'')', 'JQ005'), ('alter_queue(''a'', ledger_retention => ''89 days'')', '22023'), ('drop_queue(''a'')', '55006'),
	('grant_queue(''a'', ''no such'', ''worker'')', '42704'), ('grant_queue(''a'', ''public'', ''worker'')', '0LP01'), ('grant_queue(''a'', '''', ''worker'')', '42704'), ('grant_queue(''a'', ''none'', ''worker'')', '42704'),
	('revoke_queue(''b'', ''regress_holdfast_any'', ''worker'')', '42704'), ('drop_error_rule(''own'', ''no such'')', '42704'), ('define_retry_policy(''c'', ''2 s'', max_delay => ''1 s'')', '22023'),
	('define_retry_policy(''c'', ''2 s'', min_delay => ''9 s'', reconcile_delay => ''8 s'')', '22023'), ('import_attempts(''native'', ''[]'')', '22023'),
	('import_attempts_from(''log'', ''regress_holdfast_records'', ''{"subject": "no such"}'')', '42703'), ('import_attempts_from(''log'', ''regress_holdfast_records'', ''[]'')', '22023'),
	('import_attempts_from(''log'', 0::regclass)', '22023')) AS v (call, wanted)
	WHERE pg_temp.answer('none', 'SELECT * FROM holdfast.' || call) <> wanted$$, 'the owner''s, too');
SELECT is(pg_temp.stored() || pg_temp.settings(), :'before', 'and nothing is changed');
SELECT is((SELECT status FROM pg_temp.job WHERE subject = 'held'), 'running', 'the job that all of them were about runs on');

SELECT * FROM finish();
ROLLBACK;
