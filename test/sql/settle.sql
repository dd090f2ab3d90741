\i test/setup.sql
\i test/tools.sql
-- Settling: what each report does to job, budget and ledger, and when the job comes back.
SELECT plan(355);

SELECT pg_temp.at('00:00:00') \g /dev/null
SELECT holdfast.define_retry_policy('plain', '10 s', 2, '1 h', '0 s', '5 s', 5) \g /dev/null
CREATE FUNCTION pg_temp.failed(name text, error_class text, side_effect text DEFAULT NULL, retry_after interval DEFAULT NULL, message text DEFAULT NULL)
RETURNS SETOF holdfast.retry_decision LANGUAGE sql AS $$
	SELECT * FROM holdfast.fail(pg_temp.id($1), pg_temp.lease($1), $2, $5, $3, $4)
$$;
CREATE FUNCTION pg_temp.due_in(name text) RETURNS interval LANGUAGE sql AS $$
	SELECT run_after - pg_temp.clock() FROM pg_temp.job WHERE job_id = pg_temp.id($1)
$$;
CREATE FUNCTION pg_temp.completed(name text) RETURNS text LANGUAGE sql AS $$ SELECT holdfast.complete(pg_temp.id($1), pg_temp.lease($1)) $$;

-- it happened | call | charged | ledger | comes back

SELECT is(pg_temp.started(s, 'plain'), 'attempt 1, execute', 'setting the scene: ' || s) FROM unnest(ARRAY['done', 'it failed', 'I know when', 'I say when', 'not now', 'shutting down']) AS s;
SELECT is(pg_temp.completed('done'), 'completed', 'done: complete');
SELECT is(pg_temp.state('done'), 'gone, ledger committed', 'done: committed, and never comes back');
SELECT results_eq($$SELECT decision, failures, next_not_before - pg_temp.clock() FROM pg_temp.failed('it failed', 'ConnectionRefusedError')$$,
	$$VALUES ('retry', 1, '10 s'::interval)$$, 'it failed: charged, comes back by policy');
SELECT is(pg_temp.state('it failed'), 'pending, execute, ledger failed_retryable', 'it failed: the ledger goes by the class''s rule');
SELECT results_eq($$SELECT decision, failures, next_not_before - pg_temp.clock() FROM pg_temp.failed('I know when', 'ConnectionRefusedError', retry_after => '7 s')$$,
	$$VALUES ('retry', 1, '7 s'::interval)$$, 'it failed, and I know when: charged, comes back then');
SELECT results_eq($$SELECT decision, failures, next_not_before - pg_temp.clock() FROM holdfast.schedule_retry(pg_temp.id('I say when'), pg_temp.lease('I say when'), '7 s', side_effect => 'none')$$,
	$$VALUES ('retry', 1, '7 s'::interval)$$, 'schedule_retry: charged, comes back then');
SELECT is(pg_temp.state('I say when'), 'pending, execute, ledger failed_retryable', 'schedule_retry: the ledger goes by the side effect');
SELECT results_eq($$SELECT decision, failures, next_not_before - pg_temp.clock() FROM holdfast.snooze(pg_temp.id('not now'), pg_temp.lease('not now'), '7 s')$$,
	$$VALUES ('snoozed', 0, '7 s'::interval)$$, 'not now: snooze is not charged, comes back then');
SELECT is(pg_temp.state('not now'), 'pending, execute, ledger planned', 'not now: nothing was sent, the ledger says planned');
SELECT results_eq($$SELECT decision, failures, next_not_before - pg_temp.clock() FROM holdfast.release(pg_temp.id('shutting down'), pg_temp.lease('shutting down'))$$,
	$$VALUES ('released', 0, '0 s'::interval)$$, 'shutting down: release is not charged, comes back at once');
SELECT is(pg_temp.state('shutting down'), 'pending, execute, ledger planned', 'shutting down: the ledger says planned');
SELECT is(pg_temp.again(s), 'attempt 2, execute', 'G9: ' || s || ': comes back as attempt 2') FROM unnest(ARRAY['shutting down', 'not now', 'I say when', 'I know when', 'it failed']) AS s;

-- complete

SELECT pg_temp.started('complete', 'plain') \g /dev/null
SELECT is(holdfast.complete(pg_temp.id('complete'), pg_temp.lease('complete'), '{"message_id": "m-1"}'), 'completed', 'complete with a result');
SELECT is((SELECT count(*) FROM pg_temp.evidence WHERE job_id = pg_temp.id('complete') AND kind = 'action_attempt_succeeded' AND detail::text LIKE '%m-1%'), 1::bigint, 'G7: the result is on record');
SELECT is(pg_temp.state('complete'), 'gone, ledger committed', 'G10: the job is gone');
SELECT is(holdfast.complete(pg_temp.id('complete'), pg_temp.lease('complete'), '{"message_id": "m-1"}'), 'duplicate', 'G2: the same report again is a duplicate');
SELECT results_eq($$SELECT decision FROM pg_temp.failed('complete', 'TimeoutError')$$, ARRAY['conflict'], 'G2: another report is a conflict');
SELECT is((SELECT decision FROM holdfast.schedule_retry(pg_temp.id('complete'), pg_temp.lease('complete'), '1 h')), 'conflict', 'G2: also by schedule_retry');
SELECT is((SELECT decision FROM holdfast.snooze(pg_temp.id('complete'), pg_temp.lease('complete'), '1 h')), 'conflict', 'G2: also by snooze');
SELECT is((SELECT decision FROM holdfast.release(pg_temp.id('complete'), pg_temp.lease('complete'))), 'conflict', 'G2: also by release');
SELECT is(pg_temp.state('complete'), 'gone, ledger committed', 'G2: the first stands');
SELECT ok((SELECT count(*) >= 2 AND bool_and(lease_id = pg_temp.lease('complete') AND attempt_number = 1) FROM pg_temp.evidence WHERE job_id = pg_temp.id('complete') AND kind = 'action_duplicate_report'),
	'G2: repeated reports are on record');
SELECT isnt_empty($$SELECT * FROM pg_temp.finding WHERE job_id = pg_temp.id('complete')$$, 'G2: and are findings');
SELECT is(holdfast.complete(pg_temp.id('complete'), gen_random_uuid()), 'stale', 'G2: a lease that never was is stale');
SELECT pg_temp.stored() AS before \gset
SELECT is(holdfast.complete(9223372036854775807, gen_random_uuid()), 'unknown_job', 'G2: a job that there is not is unknown_job');
SELECT results_eq($$SELECT f.decision, r.decision, s.decision, l.decision FROM holdfast.fail(-1, gen_random_uuid(), 'X') f, holdfast.schedule_retry(0, gen_random_uuid()) r,
	holdfast.snooze(9223372036854775806, gen_random_uuid(), '1 s') s, holdfast.release(9223372036854775806, gen_random_uuid()) l$$,
	$$VALUES ('unknown_job', 'unknown_job', 'unknown_job', 'unknown_job')$$, 'G2: to every report');
SELECT is(pg_temp.stored(), :'before', 'G2: without an event');
SELECT throws_ok($$SELECT holdfast.complete(9223372036854775807, gen_random_uuid(), strict => true)$$, 'JQ001', NULL, 'G2: strict raises instead');
SELECT throws_ok(format('SELECT holdfast.complete(%s, gen_random_uuid(), strict => true)', pg_temp.id('it failed')), 'JQ001', NULL, 'G2: strict raises for another lease');
SELECT is(pg_temp.state('it failed'), 'running, execute, ledger started', 'G2: and has changed nothing');

SELECT pg_temp.started('strict', 'plain') \g /dev/null
SELECT is(holdfast.complete(pg_temp.id('strict'), pg_temp.lease('strict'), strict => true), 'completed', 'strict is no hindrance to the holder');

-- a live job that nobody has claimed, as far as this server knows: the claim was rolled back, or committed by a server that is gone

SELECT job_id AS never FROM holdfast.enqueue('complete', 'act', 'never claimed') \gset
SELECT to_jsonb(j) AS before FROM holdfast.job j WHERE job_id = :never \gset
SELECT is(holdfast.complete(:never, '00000000-0000-4000-8000-000000000001'), 'stale', 'G2: a report about a job that was never claimed is stale');
SELECT is((SELECT outcome FROM holdfast.heartbeat(:never, '00000000-0000-4000-8000-000000000001')), 'stale', 'G2: a heartbeat, too');
SELECT results_eq(format('SELECT outcome FROM holdfast.complete_batch(ARRAY[%s], ARRAY[gen_random_uuid()])', :never), ARRAY['stale'], 'G2: and in a batch');
SELECT throws_ok(format('SELECT holdfast.assert_lease(%s, gen_random_uuid())', :never), 'JQ001', NULL, 'G2: an assertion raises');
SELECT results_eq(format($$SELECT kind, lease_id IS NOT NULL, attempt_number, subject, worker_result FROM pg_temp.evidence WHERE job_id = %s ORDER BY event_id$$, :never),
	$$VALUES ('action_stale_report', true, 0, 'never claimed', 'complete'), ('action_stale_report', true, 0, 'never claimed', 'heartbeat'), ('action_stale_report', true, 0, 'never claimed', 'complete_batch')$$,
	'G2: each that was answered is on record');
SELECT results_eq(format('SELECT outcome, state FROM holdfast.outcome(%s, gen_random_uuid())', :never), $$VALUES ('stale', 'pending')$$, 'G10: outcome says that the lease was never granted, and that the job waits');
SELECT is((SELECT to_jsonb(j) FROM holdfast.job j WHERE job_id = :never), :'before'::jsonb, 'G2: none of it changes the job');
SELECT is(holdfast.cancel(:never), 'cancelled', 'it is a job like any other');

-- the same failure twice, another one

SELECT pg_temp.started('twice', 'plain') \g /dev/null
CREATE TEMPORARY TABLE first AS SELECT * FROM pg_temp.failed('twice', 'ConnectionRefusedError', message => 'no');
SELECT pg_temp.at('00:00:11') \g /dev/null
SELECT results_eq($$SELECT decision, reason, rule, retry_policy, delay_ms, jitter_ms, next_not_before, attempt_number, failures, max_attempts FROM pg_temp.failed('twice', 'ConnectionRefusedError', message => 'no')$$,
	$$SELECT 'duplicate', reason, rule, retry_policy, delay_ms, jitter_ms, next_not_before, attempt_number, failures, max_attempts FROM first$$,
	'G2: a failure reported twice is a duplicate, with the first decision''s fields');
SELECT is(pg_temp.completed('twice'), 'conflict', 'G2: a success after a failure is a conflict');
SELECT is((SELECT decision FROM pg_temp.failed('twice', 'ValidationError')), 'conflict', 'G2: another failure likewise');
SELECT pg_temp.started('detailed', 'plain') \g /dev/null
SELECT is((SELECT decision FROM holdfast.fail(pg_temp.id('detailed'), pg_temp.lease('detailed'), 'Odd', side_effect => 'none', detail => detail)), answer, 'G2: detail is part of the report: ' || answer)
FROM (VALUES (1, '{"code": 1}'::jsonb, 'retry'), (2, '{"code": 1.0}', 'duplicate'), (3, '{"code": 2}', 'conflict'), (4, NULL, 'conflict')) AS v (n, detail, answer) ORDER BY n;
SELECT results_eq($$SELECT failures, run_after FROM pg_temp.job WHERE job_id = pg_temp.id('twice')$$, $$SELECT 1, next_not_before FROM first$$, 'G4: charged once, G3: its time stands');

-- complete_batch

SELECT pg_temp.at('00:01:00') \g /dev/null
SELECT pg_temp.started(s, 'plain') FROM unnest(ARRAY['b1', 'b2', 'b3', 'b4', 'b5']) AS s \g /dev/null
SELECT decision FROM pg_temp.failed('b4', 'ConnectionRefusedError') \g /dev/null
SELECT pg_temp.completed('b5') \g /dev/null
SELECT set_eq($$SELECT s.name, r.outcome FROM holdfast.complete_batch(
		ARRAY[pg_temp.id('b1'), pg_temp.id('b2'), pg_temp.id('b3'), pg_temp.id('b4'), pg_temp.id('b5'), 9223372036854775807],
		ARRAY[pg_temp.lease('b1'), gen_random_uuid(), pg_temp.lease('b3'), pg_temp.lease('b4'), pg_temp.lease('b5'), gen_random_uuid()]) r LEFT JOIN scene s USING (job_id)$$,
	$$VALUES ('b1', 'completed'), ('b2', 'stale'), ('b3', 'completed'), ('b4', 'conflict'), ('b5', 'duplicate'), (NULL, 'unknown_job')$$,
	'G2: complete_batch answers per job, one stale lease never undoes the others');
SELECT is(pg_temp.state(s), CASE s WHEN 'b2' THEN 'running, execute, ledger started' WHEN 'b4' THEN 'pending, execute, ledger failed_retryable' ELSE 'gone, ledger committed' END, 'G2: ' || s || ' is as answered')
FROM unnest(ARRAY['b1', 'b2', 'b3', 'b4', 'b5']) AS s;
SELECT is((SELECT count(*) FROM pg_temp.evidence WHERE job_id = pg_temp.id('b2') AND kind = 'action_stale_report'), 1::bigint, 'G2: a stale one is recorded once');
SELECT is((SELECT max(outcome) FROM holdfast.complete_batch(ARRAY[pg_temp.id('b2'), pg_temp.id('b2')], ARRAY[pg_temp.lease('b2'), pg_temp.lease('b2')])), 'completed', 'the same job twice in a call is dealt with once');
SELECT is_empty($$SELECT * FROM pg_temp.evidence WHERE job_id = pg_temp.id('b2') AND kind = 'action_duplicate_report'$$, 'and is no duplicate report');
SELECT pg_temp.started('b6', 'plain') \g /dev/null
SELECT bag_eq($$SELECT r.outcome FROM holdfast.complete_batch(array_fill(pg_temp.id('b6'), ARRAY[3]),
		ARRAY[pg_temp.lease('b6'), 'ffffffff-ffff-ffff-ffff-ffffffffffff', '00000000-0000-0000-0000-000000000000']) r$$,
	$$VALUES ('completed'), ('stale'), ('stale')$$, 'G2: other leases of a job that the call completes are stale, before it and after');
SELECT is((SELECT count(*) FROM pg_temp.evidence WHERE job_id = pg_temp.id('b6') AND kind = 'action_stale_report'), 2::bigint, 'and each is recorded');
SELECT is((SELECT count(*) FROM pg_temp.evidence s, pg_temp.evidence e WHERE s.job_id = pg_temp.id('b6') AND e.job_id = s.job_id
	AND s.kind = 'action_stale_report' AND e.kind = 'action_attempt_succeeded' AND s.at > e.at), 1::bigint, 'the one after it at a later time');
SELECT is_empty($$SELECT * FROM holdfast.complete_batch('{}', '{}')$$, 'an empty batch is no error');

-- reports after the lease's end

SELECT pg_temp.started(s, 'plain') FROM unnest(ARRAY['late', 'late failure', 'late snooze', 'too late', 'too late failure']) AS s \g /dev/null
SELECT pg_temp.at('00:02:30') \g /dev/null
SELECT is(pg_temp.completed('late'), 'completed', 'G2: a report at the lease''s end counts, as long as nobody has noted that end');
SELECT is(pg_temp.state('late'), 'gone, ledger committed', 'G2: what is known to have happened is never thrown away');
SELECT ok((SELECT detail::text LIKE '%late%' FROM pg_temp.evidence WHERE job_id = pg_temp.id('late') AND kind = 'action_attempt_succeeded'), 'G2: it is marked late');
SELECT is((SELECT count(*) FROM pg_temp.finding WHERE job_id = pg_temp.id('late')), 1::bigint, 'G2: and is a finding');
SELECT is((SELECT decision FROM pg_temp.failed('late failure', 'ConnectionRefusedError')), 'retry', 'G2: a late failure counts too');
SELECT ok((SELECT detail::text LIKE '%late%' FROM pg_temp.evidence WHERE job_id = pg_temp.id('late failure') AND kind = 'action_attempt_failed'), 'G2: it is marked late');
SELECT is((SELECT count(*) FROM pg_temp.finding WHERE job_id = pg_temp.id('late failure')), 1::bigint, 'G2: and is a finding');
SELECT is((SELECT decision FROM holdfast.snooze(pg_temp.id('late snooze'), pg_temp.lease('late snooze'), '1 h')), 'snoozed', 'G2: so does a late snooze');
SELECT is(pg_temp.claimed(s), 'none', 'G8: the end is noted: ' || s) FROM unnest(ARRAY['too late', 'too late failure']) AS s;
SELECT is(pg_temp.completed('too late'), 'stale', 'G2: after that, complete is stale');
SELECT is((SELECT decision FROM pg_temp.failed('too late failure', 'TimeoutError')), 'stale', 'G2: and so is fail');
SELECT is(pg_temp.state(s), 'pending, reconcile, ledger unknown', 'G2: nothing has changed: ' || s) FROM unnest(ARRAY['too late', 'too late failure']) AS s;
SELECT is((SELECT count(*) FROM pg_temp.evidence WHERE job_id = pg_temp.id('too late') AND kind = 'action_stale_report'), 1::bigint, 'G2: it is on record');

-- fail: the classes of the policy default

SELECT pg_temp.at('01:00:00') \g /dev/null
CREATE TEMPORARY TABLE class (n serial, error_class text, side_effect text, decision text, state text, due boolean);
INSERT INTO class (error_class, side_effect, decision, state, due) VALUES
	('TimeoutError', NULL, 'reconcile', 'pending, reconcile, ledger unknown', true),
	('TimeoutError', 'none', 'retry', 'pending, execute, ledger failed_retryable', true),
	('TimeoutError', 'landed', 'succeeded', 'gone, ledger committed', false),
	('LeaseExpired', NULL, 'reconcile', 'pending, reconcile, ledger unknown', true),
	('NobodyKnowsThisError', NULL, 'reconcile', 'pending, reconcile, ledger unknown', true),
	('NobodyKnowsThisError', 'none', 'retry', 'pending, execute, ledger failed_retryable', true),
	('NobodyKnowsThisError', 'unknown', 'reconcile', 'pending, reconcile, ledger unknown', true),
	('NobodyKnowsThisError', 'landed', 'succeeded', 'gone, ledger committed', false),
	('RateLimitError', NULL, 'retry', 'pending, execute, ledger failed_retryable', true),
	('RateLimitError', 'unknown', 'reconcile', 'pending, reconcile, ledger unknown', true),
	('ValidationError', NULL, 'dead', 'dead (%), ledger failed_terminal', false),
	('ValidationError', 'unknown', 'reconcile', 'pending, reconcile, ledger unknown', true),
	('ValidationError', 'landed', 'succeeded', 'gone, ledger committed', false),
	('DuplicateActionError', NULL, 'suppressed', 'gone, ledger committed', false),
	('DuplicateActionError', 'landed', 'suppressed', 'gone, ledger committed', false),
	('DuplicateActionError', 'none', 'retry', 'pending, execute, ledger failed_retryable', true),
	('DuplicateActionError', 'unknown', 'reconcile', 'pending, reconcile, ledger unknown', true);
SELECT pg_temp.started('class ' || n) FROM class \g /dev/null
SELECT is(d.decision, c.decision, format('G3: %s, side effect %s: %s', c.error_class, coalesce(c.side_effect, 'by the rule'), c.decision))
FROM (SELECT * FROM class ORDER BY n) c, pg_temp.failed('class ' || n, c.error_class, c.side_effect) d;
SELECT ok(pg_temp.state('class ' || n) LIKE c.state, format('G6: %s, side effect %s: %s', c.error_class, coalesce(c.side_effect, 'by the rule'), c.state)) FROM class c ORDER BY n;
SELECT is(pg_temp.due_in('class ' || n), CASE WHEN c.due THEN holdfast.backoff_delay('default', pg_temp.id('class ' || n), 1) END,
	format('G3: %s, side effect %s: due by the formula for its job', c.error_class, coalesce(c.side_effect, 'by the rule'))) FROM class c ORDER BY n;
SELECT is((SELECT reason FROM pg_temp.dead_job WHERE job_id = pg_temp.id('class 11')) IS NOT NULL, true, 'G10: a job that ended in failure is in dead_job, with a reason');
SELECT results_eq($$SELECT payload, attempt_number, failures, ended_at FROM pg_temp.dead_job WHERE job_id = pg_temp.id('class 11')$$,
	$$VALUES ('{}'::jsonb, 1, 1, '2030-01-01 01:00:00+00'::timestamptz)$$, 'G10: and with its payload');

-- fail: the fields of the decision

SELECT pg_temp.started('decision', options => '{"max_attempts": 3}') \g /dev/null
CREATE TEMPORARY TABLE decision AS SELECT * FROM pg_temp.failed('decision', 'ConnectionRefusedError', message => 'refused');
SELECT results_eq($$SELECT decision, retry_policy, delay_ms, jitter_ms, next_not_before, attempt_number, failures, max_attempts FROM decision$$,
	$$SELECT 'retry', 'default', 30000 + j, j, pg_temp.clock() + (30000 + j) * interval '1 ms', 1, 1, 3 FROM holdfast.jitter_ms(pg_temp.id('decision'), 1, '30 s') j$$,
	'G3: the decision gives policy, delay, jitter and time');
SELECT matches((SELECT rule FROM decision), 'ConnectionRefusedError', 'G3: and the rule');
SELECT matches((SELECT because FROM decision), 'failure 1 of 3 \(attempt 1\)', 'G4: and says failure f of m (attempt n)');
SELECT results_eq($$SELECT run_after, last_error_class FROM pg_temp.job WHERE job_id = pg_temp.id('decision')$$, $$SELECT next_not_before, 'ConnectionRefusedError' FROM decision$$, 'G3: it is stored');
SELECT is(pg_temp.again('decision'), 'attempt 2, execute', 'the second attempt') ;
SELECT results_eq($$SELECT delay_ms, jitter_ms, failures, attempt_number FROM pg_temp.failed('decision', 'ConnectionRefusedError')$$,
	$$SELECT 60000 + j, j, 2, 2 FROM holdfast.jitter_ms(pg_temp.id('decision'), 2, '30 s') j$$, 'G11: the second delay is twice the first, with its own jitter');

-- fail: what the caller knows of the time

SELECT pg_temp.at('02:00:00') \g /dev/null
CREATE TEMPORARY TABLE asked (n serial, error_class text, arguments text, due interval, claim text);
INSERT INTO asked (error_class, arguments, due, claim) VALUES
	('ConnectionRefusedError', $$retry_after => '1 s'$$, '5 s', 'not below min_delay'),
	('ConnectionRefusedError', $$retry_after => '5.001 s'$$, '5.001 s', 'to the millisecond'),
	('ConnectionRefusedError', $$retry_after => '2 h'$$, '2 h', 'later than the policy'),
	('ConnectionRefusedError', $$retry_after => '48 h'$$, '48 h', 'max_reset bounds what a provider says, not what the caller knows'),
	('ConnectionRefusedError', $$retry_at => '2030-01-01 02:00:07+00'$$, '7 s', 'retry_at: then'),
	('ConnectionRefusedError', $$retry_at => '2030-01-01 01:00:00+00'$$, '5 s', 'retry_at in the past: min_delay'),
	('RateLimitError', $$retry_after => '1 s'$$, '10 s', 'honor_reset: never sooner than the policy''s delay'),
	('RateLimitError', $$retry_after => '10 min'$$, '10 min', 'honor_reset: the provider''s reset'),
	('RateLimitError', $$retry_after => '48 h'$$, '24 h', 'honor_reset: at most max_reset'),
	('RateLimitError', $$retry_at => '2030-01-01 02:10:00+00'$$, '10 min', 'honor_reset: also as a time'),
	('RateLimitError', $$retry_at => '2031-01-01 02:10:00+00'$$, '24 h', 'honor_reset: at most max_reset from now'),
	('RateLimitError', $$retry_at => '2029-01-01 02:10:00+00'$$, '10 s', 'honor_reset: a reset in the past is the policy''s delay'),
	('RateLimitError', $$side_effect => 'none'$$, '10 s', 'honor_reset: without one, the policy''s delay');
SELECT pg_temp.started('asked ' || n, 'plain') FROM asked \g /dev/null
SELECT lives_ok(format('SELECT * FROM holdfast.fail(%s, %L, %L, %s)', pg_temp.id('asked ' || n), pg_temp.lease('asked ' || n), a.error_class, a.arguments), 'fail, ' || a.arguments) FROM asked a ORDER BY n;
SELECT is(pg_temp.due_in('asked ' || n), a.due, format('G3: %s, %s: %s', a.error_class, a.arguments, a.claim)) FROM asked a ORDER BY n;

-- fail: rules of the users

SELECT holdfast.define_retry_policy('ruled', '10 s', 2, '1 h', '0 s', '5 s', 5), holdfast.define_error_rule('ruled', 'TimeoutError', 'terminal', 'none'),
	   holdfast.define_error_rule('ruled', 'Http%', 'retry', 'none'), holdfast.define_error_rule('ruled', 'Http5%', 'terminal', 'none'),
	   holdfast.define_error_rule('ruled', 'Http503', 'suppress', 'landed'), holdfast.define_error_rule('ruled', 'Weak', 'suppress', 'none'),
	   holdfast.define_error_rule('ruled', 'Landed', 'retry', 'landed'), holdfast.define_error_rule('default', 'House', 'terminal', 'none') \g /dev/null
CREATE TEMPORARY TABLE ruled (error_class text, decision text, claim text);
INSERT INTO ruled VALUES ('TimeoutError', 'dead', 'a rule of the job''s policy goes before that of default'), ('ValidationError', 'dead', 'rules of default apply where the policy has none'),
	('House', 'dead', 'also those added to it'), ('Http404', 'retry', 'a pattern'), ('Http500', 'dead', 'the longest pattern first'), ('Http503', 'suppressed', 'the exact class before patterns'),
	('Weak', 'retry', 'suppress holds only with the side effect landed'), ('Landed', 'succeeded', 'a failure whose effect landed is a success'), ('http404', 'reconcile', 'classes know case'),
	('Unheard', 'reconcile', 'everything without a rule: retry, unknown');
SELECT pg_temp.started('ruled ' || error_class, 'ruled') FROM ruled \g /dev/null
SELECT is(d.decision, r.decision, format('G3: %s: %s', r.error_class, r.claim)) FROM ruled r, pg_temp.failed('ruled ' || r.error_class, r.error_class) d;
SELECT holdfast.define_retry_policy('slow', '100 s', 1, '1 h', '0 s', '5 s', 5) \g /dev/null
SELECT pg_temp.started('own policy', 'plain', options => '{"retry_policy": "slow"}') \g /dev/null
SELECT results_eq($$SELECT retry_policy, delay_ms FROM pg_temp.failed('own policy', 'ConnectionRefusedError')$$, $$VALUES ('slow', 100000::bigint)$$, 'G3: a job''s policy goes before its queue''s');

-- the budget

SELECT holdfast.define_retry_policy('two', '10 s', 2, '1 h', '0 s', '5 s', 2) \g /dev/null
SELECT pg_temp.started('budget', 'two') \g /dev/null
SELECT is((SELECT decision FROM pg_temp.failed('budget', 'ConnectionRefusedError')), 'retry', 'G4: failure 1 of 2 is retried');
SELECT is(pg_temp.again('budget'), 'attempt 2, execute', 'G4: as attempt 2');
CREATE TEMPORARY TABLE last AS SELECT * FROM pg_temp.failed('budget', 'ConnectionRefusedError');
SELECT results_eq($$SELECT decision, failures, max_attempts, next_not_before, delay_ms FROM last$$, $$VALUES ('dead', 2, 2, NULL::timestamptz, NULL::bigint)$$, 'G4: failure 2 of 2 ends the job');
SELECT matches((SELECT because FROM last), 'failure 2 of 2 \(attempt 2\)', 'G4: and says so');
SELECT ok(pg_temp.state('budget') LIKE 'dead (%), ledger failed_terminal', 'G4: the job is dead, its ledger failed_terminal');
SELECT pg_temp.started('budget unknown', 'two', options => '{"max_attempts": 1}') \g /dev/null
SELECT is((SELECT decision FROM pg_temp.failed('budget unknown', 'TimeoutError')), 'reconcile', 'G6: the last failure, with an unknown effect: it is reconciled first');
SELECT is(pg_temp.state('budget unknown'), 'pending, reconcile, ledger unknown', 'G6: the job is not dead');
SELECT is(pg_temp.due_in('budget unknown'), '10 s'::interval, 'G3: it comes back at the policy''s delay');
SELECT pg_temp.started('terminal unknown', 'two') \g /dev/null
SELECT decision FROM pg_temp.failed('terminal unknown', 'ValidationError', 'unknown') \g /dev/null
SELECT results_eq($$SELECT mode, pg_temp.due_in('terminal unknown') FROM pg_temp.job WHERE job_id = pg_temp.id('terminal unknown')$$, $$VALUES ('reconcile', '10 s'::interval)$$,
	'G6: a terminal class, with an unknown effect: it is reconciled first, at the policy''s delay');
SELECT pg_temp.started('job budget', 'two', options => '{"max_attempts": 3}'), pg_temp.started('queue budget', 'two') \g /dev/null
SELECT holdfast.alter_queue('job budget', max_attempts => 7), holdfast.alter_queue('queue budget', max_attempts => 7) \g /dev/null
SELECT results_eq($$SELECT j.max_attempts, q.max_attempts FROM pg_temp.failed('job budget', 'ConnectionRefusedError') j, pg_temp.failed('queue budget', 'ConnectionRefusedError') q$$,
	$$VALUES (3, 7)$$, 'G4: the budget is the job''s, before the queue''s, before the policy''s');
SELECT pg_temp.started('snoozed budget', 'two') \g /dev/null
SELECT decision FROM holdfast.snooze(pg_temp.id('snoozed budget'), pg_temp.lease('snoozed budget'), '1 s') \g /dev/null
SELECT pg_temp.again('snoozed budget') \g /dev/null
SELECT results_eq($$SELECT decision, failures, attempt_number FROM pg_temp.failed('snoozed budget', 'ConnectionRefusedError')$$, $$VALUES ('retry', 1, 2)$$, 'G4: the budget counts failures, not attempts');

-- give_up_at

SELECT pg_temp.at('03:00:00') \g /dev/null
SELECT pg_temp.started('deadline', 'plain', options => '{"give_up_at": "2030-01-01 03:00:10+00"}'), pg_temp.started('in time', 'plain', options => '{"give_up_at": "2030-01-01 03:00:10.001+00"}'),
	   pg_temp.started('deadline unknown', 'plain', options => '{"give_up_at": "2030-01-01 03:00:10+00"}') \g /dev/null
SELECT results_eq($$SELECT decision, next_not_before FROM pg_temp.failed('deadline', 'ConnectionRefusedError')$$, $$VALUES ('dead', NULL::timestamptz)$$, 'G4: a failure whose next run_after is not before give_up_at ends the job at once');
SELECT is(pg_temp.state('deadline'), 'dead (deadline), ledger failed_terminal', 'G4: reason deadline');
SELECT is((SELECT decision FROM pg_temp.failed('in time', 'ConnectionRefusedError')), 'retry', 'G4: 1 ms before it, the job is retried');
SELECT is((SELECT decision FROM pg_temp.failed('deadline unknown', 'TimeoutError')), 'reconcile', 'G6: with an unknown effect it is reconciled first');
SELECT is(pg_temp.again('deadline unknown'), 'attempt 2, reconcile', 'G4: give_up_at does not bound reconciling');

-- lost leases

SELECT pg_temp.at('04:00:00') \g /dev/null
SELECT holdfast.define_retry_policy('crash', '10 s', 2, '1 h', '0 s', '5 s', 100, max_lost => 2), holdfast.define_retry_policy('uncounted', '10 s', 2, '1 h', '0 s', '5 s', 1, lost_lease_counts => false, max_lost => 3) \g /dev/null
CREATE FUNCTION pg_temp.lost(name text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_temp.at(j.lease_expires_at) FROM holdfast.job j WHERE j.job_id = pg_temp.id(lost.name);
	RETURN pg_temp.claimed(lost.name);
END
$$;
SELECT pg_temp.started('crash', 'crash', side_effects => false) \g /dev/null
SELECT is(pg_temp.lost('crash'), 'none', 'G3: a lost job is not handed out at once');
SELECT results_eq($$SELECT mode, failures, losses, pg_temp.due_in('crash') >= '10 s' FROM pg_temp.job WHERE job_id = pg_temp.id('crash')$$, $$VALUES ('execute', 1, 1, true)$$, 'without side effects a lost attempt is retried by executing');
SELECT is(pg_temp.again('crash'), 'attempt 2, execute', 'attempt 2');
SELECT is(pg_temp.lost('crash'), 'none', 'its lease is lost too');
SELECT is(pg_temp.state('crash'), 'dead (crash_loop), ledger none', 'max_lost losses end the job, reason crash_loop');
SELECT is(pg_temp.started('uncounted', 'uncounted', side_effects => false), 'attempt 1, execute', 'a policy that does not count lost leases');
SELECT is(pg_temp.lost('uncounted'), 'none', 'the lease is lost');
SELECT results_eq($$SELECT failures, losses, pg_temp.due_in('uncounted') >= '5 s' FROM pg_temp.job WHERE job_id = pg_temp.id('uncounted')$$, $$VALUES (0, 1, true)$$, 'G4: it is not charged, G3: and comes back after a delay');
SELECT is(pg_temp.again('uncounted'), 'attempt 2, execute', 'attempt 2');
SELECT is(pg_temp.lost('uncounted'), 'none', 'lost');
SELECT is(pg_temp.again('uncounted'), 'attempt 3, execute', 'attempt 3');
SELECT is(pg_temp.lost('uncounted'), 'none', 'lost');
SELECT is(pg_temp.state('uncounted'), 'dead (crash_loop), ledger none', 'max_lost ends it all the same');
SELECT is(pg_temp.started('crash unknown', 'crash'), 'attempt 1, execute', 'with side effects') ;
SELECT is(pg_temp.lost('crash unknown'), 'none', 'lost');
SELECT is(pg_temp.due_in('crash unknown'), '1 min'::interval, 'G6: its first claim is at the longer of the policy''s delay and reconcile_delay');

-- mode reconcile has a limit of its own

SELECT pg_temp.at('05:00:00') \g /dev/null
SELECT holdfast.define_retry_policy('looking', '10 s', 2, '1 h', '0 s', '5 s', 1, reconcile_delay => '77 s', reconcile_max => 2) \g /dev/null
SELECT pg_temp.started('looking', 'looking') \g /dev/null
SELECT is((SELECT decision FROM pg_temp.failed('looking', 'TimeoutError')), 'reconcile', 'attempt 1 executes, and its effect is unknown');
SELECT is(pg_temp.due_in('looking'), '10 s'::interval, 'G3: the first claim to reconcile is at the policy''s delay');
SELECT is(pg_temp.again('looking'), 'attempt 2, reconcile', 'attempt 2 reconciles');
SELECT throws_ok(format('SELECT holdfast.complete(%s, %L)', pg_temp.id('looking'), pg_temp.lease('looking')), 'JQ003', NULL, 'G6: complete before a finding is refused');
SELECT throws_ok(format('SELECT * FROM holdfast.complete_batch(ARRAY[%s], ARRAY[%L]::uuid[])', pg_temp.id('looking'), pg_temp.lease('looking')), 'JQ003', NULL, 'G6: also in a batch');
SELECT is(pg_temp.state('looking'), 'running, reconcile, ledger unknown', 'G6: and nothing has changed');
SELECT is((SELECT decision FROM holdfast.snooze(pg_temp.id('looking'), pg_temp.lease('looking'), '3 s')), 'snoozed', 'a reconciling attempt may snooze');
SELECT is(pg_temp.state('looking'), 'pending, reconcile, ledger unknown', 'G6: mode and ledger stay');
SELECT is(pg_temp.again('looking'), 'attempt 3, reconcile', 'attempt 3 reconciles');
SELECT is((SELECT decision FROM pg_temp.failed('looking', 'ConnectionRefusedError', 'none')), 'reconcile', 'G6: a failure to look is no finding');
SELECT is(pg_temp.state('looking'), 'pending, reconcile, ledger unknown', 'G6: whatever side effect it names');
SELECT is(pg_temp.due_in('looking'), '77 s'::interval, 'G3: later claims to reconcile are at reconcile_delay');
SELECT is(pg_temp.again('looking'), 'attempt 4, reconcile', 'attempt 4 reconciles');
SELECT is((SELECT decision FROM pg_temp.failed('looking', 'ConnectionRefusedError')), 'dead', 'G4: reconcile_max charged attempts in mode reconcile end the job');
SELECT is(pg_temp.state('looking'), 'dead (unresolved), ledger unknown', 'G4: as unresolved, the ledger unknown');

-- schedule_retry

SELECT pg_temp.at('06:00:00') \g /dev/null
SELECT pg_temp.started(s, 'plain') FROM unnest(ARRAY['raised', 'by policy', 'default class', 'terminal class', 'no delay', 'in two days']) AS s \g /dev/null
CREATE TEMPORARY TABLE raised AS SELECT * FROM holdfast.schedule_retry(pg_temp.id('raised'), pg_temp.lease('raised'), '1 s', side_effect => 'none');
SELECT results_eq($$SELECT decision, delay_ms, jitter_ms, failures, next_not_before - pg_temp.clock() FROM raised$$, $$VALUES ('retry', 5000::bigint, 0::bigint, 1, '5 s'::interval)$$,
	'G3: a delay below min_delay is raised to it');
SELECT matches((SELECT because FROM raised), 'min_delay|raised|1\.000 s|1 s', 'G3: and the answer says so');
SELECT results_eq($$SELECT decision, delay_ms FROM holdfast.schedule_retry(pg_temp.id('by policy'), pg_temp.lease('by policy'), side_effect => 'none')$$, $$VALUES ('retry', 10000::bigint)$$,
	'G3: without a delay it is the policy''s');
SELECT is((SELECT decision FROM holdfast.schedule_retry(pg_temp.id('default class'), pg_temp.lease('default class'), '1 min')), 'reconcile', 'G6: a retry of which nobody said that nothing was sent is reconciled');
SELECT is((SELECT exception_class FROM pg_temp.evidence WHERE job_id = pg_temp.id('default class') AND kind = 'action_attempt_failed'), 'RetryRequested', 'G7: its class is RetryRequested');
SELECT is(pg_temp.due_in('default class'), '1 min'::interval, 'then');
SELECT is((SELECT next_not_before - pg_temp.clock() FROM holdfast.schedule_retry(pg_temp.id('in two days'), pg_temp.lease('in two days'), '48 h', side_effect => 'none')), '48 h'::interval, 'however far');
SELECT is((SELECT decision FROM holdfast.schedule_retry(pg_temp.id('terminal class'), pg_temp.lease('terminal class'), error_class => 'ValidationError')), 'retry', 'schedule_retry''s disposition is retry, whatever the class');
SELECT throws_ok(format('SELECT * FROM holdfast.schedule_retry(%s, %L, %L)', pg_temp.id('no delay'), pg_temp.lease('no delay'), '0 s'), 'JQ006', NULL, 'G3: a retry without delay is refused');
SELECT throws_ok(format('SELECT * FROM holdfast.snooze(%s, %L, %L)', pg_temp.id('no delay'), pg_temp.lease('no delay'), '0 s'), 'JQ006', NULL, 'G3: a snooze without delay is refused');
SELECT is(pg_temp.state('no delay'), 'running, execute, ledger started', 'G3: and nothing has changed');
SELECT pg_temp.started('schedule budget', 'two', options => '{"max_attempts": 1}') \g /dev/null
SELECT is((SELECT decision FROM holdfast.schedule_retry(pg_temp.id('schedule budget'), pg_temp.lease('schedule budget'), '1 min', side_effect => 'none')), 'dead', 'G4: schedule_retry is charged, and the budget applies');

-- snooze and release

SELECT pg_temp.at('07:00:00') \g /dev/null
SELECT pg_temp.started('snooze', 'plain') \g /dev/null
SELECT results_eq($$SELECT decision, next_not_before - pg_temp.clock(), failures FROM holdfast.snooze(pg_temp.id('snooze'), pg_temp.lease('snooze'), '1 ms')$$, $$VALUES ('snoozed', '1 ms'::interval, 0)$$, 'the first snooze is for as long as asked');
SELECT is(pg_temp.claimed('snooze'), 'none', 'G9: not before');
SELECT is(pg_temp.again('snooze'), 'attempt 2, execute', 'G9: but then');
SELECT is((SELECT next_not_before - pg_temp.clock() FROM holdfast.snooze(pg_temp.id('snooze'), pg_temp.lease('snooze'), '1 s')), '20 s'::interval, 'G3: the second in a row is not due before the policy''s delay for n = 2');
SELECT is(pg_temp.again('snooze'), 'attempt 3, execute', 'attempt 3');
SELECT is((SELECT next_not_before - pg_temp.clock() FROM holdfast.snooze(pg_temp.id('snooze'), pg_temp.lease('snooze'), '1 h')), '1 h'::interval, 'G3: a longer one is as long as asked');
SELECT is(pg_temp.again('snooze'), 'attempt 4, execute', 'attempt 4');
SELECT is((SELECT next_not_before - pg_temp.clock() FROM holdfast.release(pg_temp.id('snooze'), pg_temp.lease('snooze'))), '80 s'::interval, 'G3: a release is one of the row: n = 4');
SELECT is(pg_temp.again('snooze'), 'attempt 5, execute', 'attempt 5');
SELECT decision FROM pg_temp.failed('snooze', 'ConnectionRefusedError') \g /dev/null
SELECT is(pg_temp.again('snooze'), 'attempt 6, execute', 'attempt 6, after a failure');
SELECT is((SELECT next_not_before - pg_temp.clock() FROM holdfast.snooze(pg_temp.id('snooze'), pg_temp.lease('snooze'), '1 s')), '1 s'::interval, 'a failure begins a new row');

SELECT pg_temp.started('release', 'plain') \g /dev/null
SELECT outcome FROM holdfast.enqueue('release', 'act', 'waiting') \g /dev/null
SELECT pg_temp.at(pg_temp.clock() + interval '1 ms') \g /dev/null
SELECT decision FROM holdfast.release(pg_temp.id('release'), pg_temp.lease('release')) \g /dev/null
SELECT results_eq($$SELECT subject, attempt_number FROM holdfast.claim('release', 'w', 2)$$, $$VALUES ('waiting', 1), ('release', 2)$$, 'a released job is due at once, behind those already due') ;

SELECT holdfast.define_retry_policy('steady', '10 s', 1, '1 h', '0 s', '5 s', 5) \g /dev/null
SELECT pg_temp.started('often', 'steady') \g /dev/null
CREATE FUNCTION pg_temp.release_again(n integer) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	answer	text;
BEGIN
	SELECT format('%s, %s of %s, in %s', d.decision, d.failures, d.max_attempts, d.next_not_before - pg_temp.clock()) INTO answer
	FROM holdfast.release(pg_temp.id('often'), pg_temp.lease('often')) d;
	PERFORM pg_temp.again('often');
	RETURN answer;
END
$$;
SELECT is(pg_temp.release_again(n), CASE n WHEN 1 THEN 'released, 0 of 5, in 00:00:00' WHEN 11 THEN 'retry, 1 of 5, in 00:00:10' ELSE 'released, 0 of 5, in 00:00:10' END,
	CASE n WHEN 11 THEN 'G3: the eleventh in a row is charged' ELSE 'release ' || n || ' in a row' END) FROM generate_series(1, 11) n;
SELECT results_eq($$SELECT attempt_number, failures, last_error_class, mode FROM pg_temp.job WHERE job_id = pg_temp.id('often')$$, $$VALUES (12, 1, 'ReleasedTooOften', 'execute')$$, 'G3: as ReleasedTooOften, retry, none');

-- cancel of a running job

SELECT pg_temp.at('08:00:00') \g /dev/null
SELECT pg_temp.started(s, 'plain') FROM unnest(ARRAY['cancel none', 'cancel unknown', 'cancel done', 'cancel snooze']) AS s \g /dev/null
SELECT is(holdfast.cancel(pg_temp.id(s)), 'requested', 'cancel of a running job is a request: ' || s) FROM unnest(ARRAY['cancel none', 'cancel unknown', 'cancel done', 'cancel snooze']) AS s;
SELECT is(pg_temp.completed('cancel done'), 'completed', 'a complete still completes');
SELECT is(pg_temp.state('cancel done'), 'gone, ledger committed', 'and is committed');
SELECT is((SELECT decision FROM pg_temp.failed('cancel none', 'ConnectionRefusedError')), 'cancelled', 'a failure ends it as cancelled');
SELECT is(pg_temp.state('cancel none'), 'gone, ledger failed_retryable', 'with side effect none the ledger is failed_retryable');
SELECT decision FROM pg_temp.failed('cancel unknown', 'TimeoutError') \g /dev/null
SELECT is(pg_temp.state('cancel unknown'), 'dead (unresolved), ledger unknown', 'G6: with an unknown effect it is dead, unresolved, until somebody looks');
SELECT decision FROM holdfast.snooze(pg_temp.id('cancel snooze'), pg_temp.lease('cancel snooze'), '1 s') \g /dev/null
SELECT is_empty($$SELECT * FROM pg_temp.job WHERE job_id = pg_temp.id('cancel snooze')$$, 'a snooze, too, is its next report');

-- queues without side effects

SELECT pg_temp.started(s, 'plain', side_effects => false) FROM unnest(ARRAY['plain timeout', 'plain terminal', 'plain done', 'plain snooze', 'plain suppress']) AS s \g /dev/null
SELECT results_eq($$SELECT decision, next_not_before - pg_temp.clock() FROM pg_temp.failed('plain timeout', 'TimeoutError')$$, $$VALUES ('retry', '10 s'::interval)$$, 'without side effects a timeout is retried by executing');
SELECT is(pg_temp.state('plain timeout'), 'pending, execute, ledger none', 'without side effects there is no ledger');
SELECT is((SELECT decision FROM pg_temp.failed('plain terminal', 'ValidationError', 'unknown')), 'dead', 'a terminal class ends it, there is nothing to reconcile');
SELECT is(pg_temp.completed('plain done'), 'completed', 'complete');
SELECT is(pg_temp.state('plain done'), 'gone, ledger none', 'it is gone');
SELECT is((SELECT decision FROM holdfast.snooze(pg_temp.id('plain snooze'), pg_temp.lease('plain snooze'), '1 s')), 'snoozed', 'snooze');
SELECT is((SELECT decision FROM pg_temp.failed('plain suppress', 'DuplicateActionError')), 'suppressed', 'suppress');
SELECT is_empty($$SELECT * FROM pg_temp.evidence WHERE subject LIKE 'plain %' AND side_effect_state IS NOT NULL$$, 'their evidence knows no side effect state');

-- fail takes what it is told

SELECT pg_temp.started('long', 'plain') \g /dev/null
SELECT is((SELECT decision FROM pg_temp.failed('long', 'ConnectionRefusedError', message => repeat('é', 1000000))), 'retry', 'a message of 2 MB is cut, never refused');
SELECT ok((SELECT octet_length(message) BETWEEN 1000 AND 100000 FROM pg_temp.evidence WHERE job_id = pg_temp.id('long') AND kind = 'action_attempt_failed'), 'at a bound, and at a character''s boundary');
INSERT INTO holdfast.retry_policy VALUES ('mad', '178000000 years', 1e308, '178000000 years', '178000000 years', '-178000000 years', 5, true, 20, '178000000 years', '178000000 years', 20);
SELECT pg_temp.started('mad', 'mad') \g /dev/null
SELECT is((SELECT decision FROM pg_temp.failed('mad', 'ConnectionRefusedError')), 'retry', 'G3: fail never errs because of a policy''s arithmetic');
SELECT ok(pg_temp.due_in('mad') >= '1 ms' AND isfinite((SELECT run_after FROM pg_temp.job WHERE job_id = pg_temp.id('mad'))), 'G3: and the delay is at least 1 ms, and finite');
SELECT pg_temp.started('dropped', 'plain', options => '{"retry_policy": "slow"}') \g /dev/null
SELECT holdfast.drop_retry_policy('slow') \g /dev/null
SELECT is((SELECT decision FROM pg_temp.failed('dropped', 'ConnectionRefusedError')), 'retry', 'G3: nor because its policy was dropped');

-- a job whose ledger is committed ends as succeeded, whatever comes next; the event says what came

SELECT pg_temp.at('09:00:00') \g /dev/null
SELECT pg_temp.started('landed ' || what, 'plain') FROM unnest(ARRAY['fail', 'snooze', 'release', 'loss', 'complete']) AS what \g /dev/null
SELECT count(t.outcome) FROM unnest(ARRAY['fail', 'snooze', 'release', 'loss', 'complete']) AS what, holdfast.ledger_transition(pg_temp.id('landed ' || what), pg_temp.lease('landed ' || what), 'committed') t \g /dev/null
SELECT is((SELECT decision FROM pg_temp.failed('landed fail', 'ConnectionRefusedError')), 'succeeded', 'G6: a failure after the effect is committed: succeeded');
SELECT is((SELECT decision FROM holdfast.snooze(pg_temp.id('landed snooze'), pg_temp.lease('landed snooze'), '1 s')), 'succeeded', 'G6: a snooze: succeeded');
SELECT is((SELECT decision FROM holdfast.release(pg_temp.id('landed release'), pg_temp.lease('landed release'))), 'succeeded', 'G6: a release: succeeded');
SELECT is(pg_temp.completed('landed complete'), 'completed', 'G6: a complete: completed');
SELECT pg_temp.at('09:01:30') \g /dev/null
SELECT is(pg_temp.claimed('landed loss'), 'none', 'G6: a lost lease');
SELECT is(pg_temp.state('landed ' || what), 'gone, ledger committed', 'G10: it ends as succeeded: ' || what) FROM unnest(ARRAY['fail', 'snooze', 'release', 'loss', 'complete']) AS what;
SELECT ok(pg_temp.events('landed fail') LIKE '%attempt_failed%' AND pg_temp.events('landed loss') LIKE '%attempt_lost%', 'G7: the event says what came: a failure, a loss');
SELECT is_empty($$SELECT kind, exception_class FROM pg_temp.evidence WHERE subject IN ('landed snooze', 'landed release') AND (kind = 'action_attempt_failed' OR exception_class IS NOT NULL)$$,
	'G14: nobody reported a failure where the worker snoozed or released');

-- a rollback takes it all

SELECT pg_temp.started('rolled back', 'plain') \g /dev/null
SELECT pg_temp.stored() AS before \gset
SAVEPOINT s;
SELECT pg_temp.completed('rolled back') \g /dev/null
ROLLBACK TO s;
SELECT is(pg_temp.stored(), :'before', 'G7: a report rolled back was not made, nor is it on record');
SELECT is(pg_temp.completed('rolled back'), 'completed', 'G2: and may be made again');

-- arguments out of bounds: a documented SQLSTATE, and nothing changed

SELECT pg_temp.started('bad', 'plain') \g /dev/null
CREATE TEMPORARY TABLE bad (call text, states text[]);
INSERT INTO bad VALUES
	('complete(NULL, %2$L)', '{22004}'), ('complete(%1$s, NULL)', '{22004}'), ('complete(%1$s, ''x'')', '{22P02}'),
	('complete_batch(NULL, ''{}'')', '{22004}'), ('complete_batch(''{}'', NULL)', '{22004}'), ('complete_batch(ARRAY[%1$s], ''{}'')', '{22023}'),
	('complete_batch(ARRAY[%1$s, NULL], ARRAY[%2$L, %2$L]::uuid[])', '{22004}'), ('complete_batch(ARRAY[%1$s], ARRAY[NULL]::uuid[])', '{22004}'),
	('complete_batch(array_fill(1::bigint, ARRAY[200000]), array_fill(%2$L::uuid, ARRAY[200000]))', '{22023}'),
	('fail(NULL, %2$L, ''E'')', '{22004}'), ('fail(%1$s, NULL, ''E'')', '{22004}'), ('fail(%1$s, %2$L, NULL)', '{22004}'), ('fail(%1$s, %2$L, '''')', '{22023}'),
	('fail(%1$s, %2$L, ''E'', side_effect => ''maybe'')', '{22023}'), ('fail(%1$s, %2$L, ''E'', side_effect => '''')', '{22023}'),
	('fail(%1$s, %2$L, ''E'', retry_after => ''-1 ms'')', '{22023}'), ('fail(%1$s, %2$L, ''E'', retry_after => ''1 mon'')', '{22023}'),
	('fail(%1$s, %2$L, ''E'', retry_after => ''2562047788 h'')', '{22023}'), ('fail(%1$s, %2$L, ''E'', retry_after => ''-2147483648 days'')', '{22023}'),
	('fail(%1$s, %2$L, ''E'', retry_at => ''infinity'')', '{22023}'), ('fail(%1$s, %2$L, ''E'', retry_at => ''-infinity'')', '{22023}'),
	('fail(%1$s, %2$L, ''E'', retry_at => ''294276-12-31 00:00:00+00'')', '{22023}'),
	('fail(%1$s, %2$L, ''E'', retry_after => ''1 min'', retry_at => ''2031-01-01 00:00:00+00'')', '{22023}'),
	('fail(%1$s, %2$L, ''E'', timeout_kind => ''patience'')', '{22023}'), ('fail(%1$s, %2$L, ''E'', timeout_limit_ms => -1)', '{22023}'),
	('schedule_retry(NULL, %2$L)', '{22004}'), ('schedule_retry(%1$s, NULL)', '{22004}'), ('schedule_retry(%1$s, %2$L, ''-1 ms'')', '{22023,JQ006}'),
	('schedule_retry(%1$s, %2$L, ''1 mon'')', '{22023}'), ('schedule_retry(%1$s, %2$L, ''2562047788 h'')', '{22023}'), ('schedule_retry(%1$s, %2$L, ''0.0004 s'')', '{JQ006}'),
	('schedule_retry(%1$s, %2$L, error_class => '''')', '{22023}'), ('schedule_retry(%1$s, %2$L, side_effect => ''maybe'')', '{22023}'),
	('snooze(NULL, %2$L, ''1 s'')', '{22004}'), ('snooze(%1$s, NULL, ''1 s'')', '{22004}'), ('snooze(%1$s, %2$L, NULL)', '{22004,JQ006}'), ('snooze(%1$s, %2$L, ''-1 s'')', '{22023,JQ006}'),
	('snooze(%1$s, %2$L, ''0.0004 s'')', '{JQ006}'), ('snooze(%1$s, %2$L, ''1 mon'')', '{22023}'), ('snooze(%1$s, %2$L, ''2562047788 h'')', '{22023}'),
	('release(NULL, %2$L)', '{22004}'), ('release(%1$s, NULL)', '{22004}');
SELECT pg_temp.stored() AS before \gset
SELECT is(CASE WHEN state = ANY (states) THEN 'refused' ELSE state END, 'refused', format(call, 'job', 'lease') || ' is refused')
FROM bad, pg_temp.refusal(format('SELECT * FROM holdfast.' || call, pg_temp.id('bad'), pg_temp.lease('bad'))) AS state;
SELECT is(pg_temp.stored(), :'before', 'a refused report has changed nothing');

-- a ledger row that other hands have removed: what is reported counts, and what is not known is not repeated blindly

SELECT pg_temp.started(name), pg_temp.planted('ledger', format('DELETE FROM holdfast.ledger WHERE subject = %L', name))
FROM unnest(ARRAY['bare-timeout', 'bare-none', 'bare-landed', 'bare-lost']) name \g /dev/null
SELECT is((SELECT decision FROM holdfast.fail(pg_temp.id('bare-timeout'), pg_temp.lease('bare-timeout'), 'TimeoutError')), 'reconcile', 'G6: no ledger row, and nobody knows what was sent');
SELECT is((SELECT decision FROM holdfast.fail(pg_temp.id('bare-none'), pg_temp.lease('bare-none'), 'Boom', side_effect => 'none')), 'retry', 'nothing was sent');
SELECT is((SELECT decision FROM holdfast.fail(pg_temp.id('bare-landed'), pg_temp.lease('bare-landed'), 'Boom', side_effect => 'landed')), 'succeeded', 'it has landed');
SELECT pg_temp.at(lease_expires_at) FROM holdfast.job WHERE job_id = pg_temp.id('bare-lost') \g /dev/null
SELECT is(holdfast.settle_expired(queue, 10), 1::bigint, 'a lease that ends') FROM holdfast.job WHERE job_id = pg_temp.id('bare-lost');
SELECT is(pg_temp.state(name), state, 'so it is stored: ' || name) FROM (VALUES ('bare-timeout', 'pending, reconcile, ledger none'),
	('bare-none', 'pending, execute, ledger none'), ('bare-landed', 'gone, ledger none'), ('bare-lost', 'pending, reconcile, ledger none')) AS v (name, state);
SELECT is(pg_temp.again('bare-timeout'), 'none', 'the claim that enters the row anew takes the next job');
SELECT is(pg_temp.again('bare-timeout'), 'attempt 2, reconcile', 'G6: and the next one asks first');
SELECT pg_temp.planted('ledger', 'DELETE FROM holdfast.ledger WHERE subject = ''bare-timeout''') \g /dev/null
SELECT is((SELECT decision FROM holdfast.fail(pg_temp.id('bare-timeout'), pg_temp.lease('bare-timeout'), 'Boom', side_effect => 'landed')), 'reconcile',
	'G6: in mode reconcile it is for reconcile() to say so, with a ledger row or without');

SELECT * FROM finish();
ROLLBACK;
