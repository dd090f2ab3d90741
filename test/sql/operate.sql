\i test/setup.sql
\i test/tools.sql
-- What operators do: cancel, purge, redrive, settle_unknown, pause and resume.
SELECT plan(217);

SELECT pg_temp.at('00:00:00') \g /dev/null
SELECT holdfast.define_retry_policy('p', '10 s', backoff_rate => 1, jitter_window => '0', min_delay => '1 s', max_attempts => 3,
	reconcile_delay => '60 s', reconcile_max => 2) \g /dev/null
SELECT holdfast.define_retry_policy('once', '10 s', backoff_rate => 1, jitter_window => '0', min_delay => '1 s', max_attempts => 1) \g /dev/null

-- a call about the scene's job: its first column, or the SQLSTATE
CREATE FUNCTION pg_temp.tell(name text, call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	answer	text;
BEGIN
	EXECUTE (SELECT replace(replace(replace(replace('SELECT * FROM holdfast.' || call, '@job', format('%L::bigint, %L::uuid', s.job_id, s.lease_id)),
									'@queue', quote_literal(s.name)), '@id', format('%L::bigint', s.job_id)), '@key', format('%L::uuid', s.idempotency_key))
			 FROM scene s WHERE s.name = tell.name) INTO answer;
	RETURN answer;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END
$$;
CREATE FUNCTION pg_temp.told(name text, calls text[]) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	call	text;
	answer	text;
BEGIN
	FOREACH call IN ARRAY calls LOOP
		answer := CASE WHEN call = '' THEN pg_temp.again(name) ELSE pg_temp.tell(name, call) END;
	END LOOP;
	RETURN answer;
END
$$;
COMMENT ON FUNCTION pg_temp.told(text, text[]) IS 'several calls, '''' for the next claim; the last answer';
CREATE FUNCTION pg_temp.later(by interval) RETURNS timestamptz LANGUAGE sql AS $$ SELECT pg_temp.at(pg_temp.clock() + $1) $$;

-- cancel, pending: with each state of the ledger

CREATE TEMPORARY TABLE pending (name text PRIMARY KEY, calls text[], answer text, state text);
INSERT INTO pending VALUES
	('planned', ARRAY['release(@job)'], 'cancelled', 'gone, ledger planned'),
	('retryable', ARRAY['fail(@job, ''Boom'', side_effect => ''none'')'], 'cancelled', 'gone, ledger failed_retryable'),
	('unknown', ARRAY['fail(@job, ''Boom'')'], 'dead', 'dead (unresolved), ledger unknown');
SELECT pg_temp.started(name, 'p', true, '{"payload": {"n": 1}}'), pg_temp.told(name, calls) FROM pending \g /dev/null
SELECT is(pg_temp.tell(name, 'cancel(@id, ''not wanted'')'), answer, format('cancel, pending, ledger %s: %s', name, answer)) FROM pending ORDER BY name;
SELECT is(pg_temp.state(name), state, format('G6: cancel, pending, ledger %s: %s', name, state)) FROM pending ORDER BY name;
SELECT results_eq($$SELECT s.name COLLATE "default", e.detail ->> 'reason', e.detail ->> 'by' = current_user, e.enqueued_at IS NOT NULL, e.enqueued_by IS NOT NULL
		FROM pg_temp.evidence e JOIN scene s USING (job_id) WHERE s.name IN (SELECT name FROM pending) AND e.kind = 'action_cancelled' ORDER BY 1$$,
	$$VALUES ('planned', 'not wanted', true, true, true), ('retryable', 'not wanted', true, true, true), ('unknown', 'not wanted', true, true, true)$$,
	'G7: each is on record, with why, by whom, and who had enqueued it');
SELECT is((SELECT payload FROM pg_temp.dead_job WHERE job_id = pg_temp.id('unknown')), '{"n": 1}'::jsonb, 'G10: what is unknown is kept with its payload');
SELECT is(pg_temp.tell('planned', 'cancel(@id)'), 'unknown_job', 'a cancelled job is no longer known');
SELECT is(pg_temp.tell('unknown', 'cancel(@id)'), 'unknown_job', 'nor is a dead one cancelled');
SELECT is(holdfast.cancel(9000000000000000000), 'unknown_job', 'nor one that never was');
SELECT is((SELECT outcome FROM holdfast.enqueue('planned', 'act', 'planned', '{"n": 1}')), 'created', 'G5: a cancelled intent may be scheduled again');
SELECT is((SELECT outcome FROM holdfast.enqueue('unknown', 'act', 'unknown', '{"n": 1}')), 'unknown_effect', 'G6: unless its effect is unknown');
SELECT holdfast.create_queue('fresh') \g /dev/null
SELECT is((SELECT holdfast.cancel(job_id) FROM holdfast.enqueue('fresh', 'act', 'fresh')), 'cancelled', 'a job that was never claimed');
SELECT is((SELECT count(*) FROM pg_temp.evidence WHERE subject = 'fresh' AND kind = 'action_cancelled' AND attempt_number = 0), 1::bigint, 'G7: is on record, too');
SELECT pg_temp.started('plainp', 'p', false), pg_temp.told('plainp', ARRAY['fail(@job, ''TimeoutError'')']) \g /dev/null
SELECT is(pg_temp.tell('plainp', 'cancel(@id)'), 'cancelled', 'a job without side effects is never unknown');
SELECT is(pg_temp.state('plainp'), 'gone, ledger none', 'and vanishes');

SELECT pg_temp.started('childp', 'p'), pg_temp.told('childp', ARRAY['ledger_transition(@job, ''started'', ''mail'')', 'fail(@job, ''Boom'', side_effect => ''none'')']) \g /dev/null
SELECT is(pg_temp.tell('childp', 'cancel(@id)'), 'dead', 'G6: cancel, pending, a child unknown: dead');
SELECT alike(pg_temp.state('childp'), 'dead (unresolved), %', 'G6: kept until the child is settled');
SELECT is(pg_temp.tell('childp', 'enqueue(@queue, ''act'', @queue)'), (SELECT job_id::text FROM scene WHERE name = 'childp'), 'G6: enqueueing the intent names the dead job');
SELECT is((SELECT outcome FROM holdfast.enqueue('childp', 'act', 'childp')), 'unknown_effect', 'G6: and creates nothing');
SELECT is(pg_temp.tell('childp', 'settle_unknown(holdfast.effect_key(@key, ''mail''), ''landed'', ''{}'', ''r'')'), 'committed', 'the child is found to have landed');
SELECT alike(pg_temp.state('childp'), 'dead (%', 'the action itself had not: its job stays dead');
SELECT is(pg_temp.told('childp', ARRAY['redrive(@id, ''r'')', '']), 'attempt 2, execute', 'G6: redriven, it executes');
SELECT results_eq($$SELECT e.effect, e.state FROM holdfast.effects(pg_temp.id('childp'), pg_temp.lease('childp')) e$$, $$VALUES ('mail', 'committed')$$, 'G6: and sees that the child has landed');

-- cancel, running: at the next report

SELECT pg_temp.started('asked', 'p') \g /dev/null
SELECT is((SELECT outcome FROM holdfast.heartbeat(pg_temp.id('asked'), pg_temp.lease('asked'))), 'extended', 'before');
SELECT is(pg_temp.tell('asked', 'cancel(@id, ''changed our mind'')'), 'requested', 'a running job is asked to end');
SELECT is(pg_temp.state('asked'), 'running, execute, ledger started', 'and goes on');
SELECT is((SELECT cancel_requested_at FROM pg_temp.job WHERE job_id = pg_temp.id('asked')), pg_temp.clock(), 'the request is stored');
SELECT pg_temp.later('10 s') \g /dev/null
SELECT results_eq($$SELECT outcome, lease_expires_at >= pg_temp.clock() + interval '80 s' FROM holdfast.heartbeat(pg_temp.id('asked'), pg_temp.lease('asked'))$$,
	$$VALUES ('cancel_requested', true)$$, 'the next heartbeat says so; the lease is not shortened');
SELECT is(pg_temp.tell('asked', 'cancel(@id)'), 'requested', 'asking twice is no error');
SELECT is((SELECT cancel_requested_at FROM pg_temp.job WHERE job_id = pg_temp.id('asked')), pg_temp.clock() - interval '10 s', 'and the first time stands');
SELECT is(pg_temp.tell('asked', 'complete(@job)'), 'completed', 'a complete still completes');
SELECT is(pg_temp.state('asked'), 'gone, ledger committed', 'G6: what is done is done');

CREATE TEMPORARY TABLE running (name text PRIMARY KEY, calls text[], answer text, state text);
INSERT INTO running VALUES
	('r-none', ARRAY['cancel(@id)', 'fail(@job, ''Cancelled'', side_effect => ''none'')'], 'cancelled', 'gone, ledger failed_retryable'),
	('r-class', ARRAY['cancel(@id)', 'fail(@job, ''ValidationError'')'], 'cancelled', 'gone, ledger failed_retryable'),
	('r-unknown', ARRAY['cancel(@id)', 'fail(@job, ''Cancelled'')'], 'cancelled', 'dead (unresolved), ledger unknown'),
	('r-landed', ARRAY['cancel(@id)', 'fail(@job, ''Cancelled'', side_effect => ''landed'')'], 'succeeded', 'gone, ledger committed'),
	('r-retry', ARRAY['cancel(@id)', 'schedule_retry(@job, ''1 s'', side_effect => ''none'')'], 'cancelled', 'gone, ledger failed_retryable'),
	('r-snooze', ARRAY['cancel(@id)', 'snooze(@job, ''1 s'')'], 'cancelled', NULL),
	('r-release', ARRAY['cancel(@id)', 'release(@job)'], 'cancelled', NULL),
	('r-reconciling', ARRAY['fail(@job, ''Boom'')', '', 'cancel(@id)', 'fail(@job, ''Cancelled'', side_effect => ''none'')'], 'cancelled', 'dead (unresolved), ledger unknown'),
	('r-undetermined', ARRAY['fail(@job, ''Boom'')', '', 'cancel(@id)', 'reconcile(@job, ''undetermined'')'], 'dead', 'dead (unresolved), ledger unknown'),
	('r-found', ARRAY['fail(@job, ''Boom'')', '', 'cancel(@id)', 'reconcile(@job, ''landed'')'], 'done', 'gone, ledger committed'),
	('f-started', ARRAY['cancel(@id, ''now'', true)'], 'dead', 'dead (unresolved), ledger unknown'),
	('f-reconciling', ARRAY['fail(@job, ''Boom'')', '', 'cancel(@id, ''now'', true)'], 'dead', 'dead (unresolved), ledger unknown'),
	('f-found', ARRAY['fail(@job, ''Boom'')', '', 'reconcile(@job, ''not_landed'')', 'cancel(@id, ''now'', true)'], 'dead', 'dead (unresolved), ledger unknown'),
	('f-child', ARRAY['ledger_transition(@job, ''committed'')', 'ledger_transition(@job, ''started'', ''mail'')', 'cancel(@id, ''now'', true)'], 'dead', 'dead (unresolved), ledger committed');
SELECT pg_temp.started(name, 'p') FROM running \g /dev/null
SELECT is(pg_temp.told(name, calls), answer, format('cancel, running: %s answers %s', array_to_string(calls, '; '), answer)) FROM running ORDER BY name;
SELECT is(pg_temp.state(name), state, format('G6: %s: %s', array_to_string(calls, '; '), state)) FROM running WHERE state IS NOT NULL ORDER BY name;
SELECT matches(pg_temp.state(name), '^gone, ledger (planned|failed_retryable)$', 'cancel, running: nothing was sent, so it vanishes: ' || array_to_string(calls, '; '))
FROM running WHERE state IS NULL ORDER BY name;
SELECT is((SELECT count(DISTINCT e.job_id) FROM pg_temp.evidence e JOIN scene s USING (job_id) JOIN running r USING (name)
		WHERE e.kind = 'action_cancelled' AND r.answer IN ('cancelled')), 7::bigint, 'G7: each that ended as cancelled is on record as such');
SELECT is((SELECT l.state FROM pg_temp.ledger l JOIN scene s ON l.parent_key = s.idempotency_key WHERE s.name = 'f-child'), 'unknown', 'G6: a forced cancel leaves a started child unknown');
SELECT is(pg_temp.tell('f-started', call), answer, 'G2: after a forced cancel, ' || call) FROM (VALUES
	('heartbeat(@job)', 'stale'), ('validate_lease(@job)', 'false'), ('assert_lease(@job)', 'JQ001')) AS v (call, answer);
SELECT ok(pg_temp.tell('f-started', 'complete(@job)') IN ('stale', 'conflict'), 'G2: nor does a complete count any more');
SELECT is(pg_temp.state('f-started'), 'dead (unresolved), ledger unknown', 'G2: and changes nothing');
SELECT pg_temp.started('r-lost', 'p'), pg_temp.tell('r-lost', 'cancel(@id)') \g /dev/null
SELECT pg_temp.later('90 s') \g /dev/null
SELECT is(pg_temp.claimed('r-lost'), 'none', 'a cancelled job at its lease''s end');
SELECT is(pg_temp.state('r-lost'), 'dead (unresolved), ledger unknown', 'G6: ends there, its effect unknown');
SELECT pg_temp.started('plainr', 'p', false) \g /dev/null
SELECT is(pg_temp.tell('plainr', 'cancel(@id, NULL, true)'), 'cancelled', 'a forced cancel without side effects');
SELECT is(pg_temp.state('plainr'), 'gone, ledger none', 'leaves nothing behind');
SELECT pg_temp.started('plainl', 'p', false), pg_temp.tell('plainl', 'cancel(@id)') \g /dev/null
SELECT pg_temp.later('90 s') \g /dev/null
SELECT is(pg_temp.claimed('plainl'), 'none', 'a request, then a lost lease, without side effects');
SELECT is(pg_temp.state('plainl'), 'gone, ledger none', 'ends it as cancelled');
SELECT is(pg_temp.tell('asked', call), '22004', 'cancel is refused: ' || call) FROM unnest(ARRAY['cancel(NULL)']) AS call;
SELECT is(pg_temp.tell('asked', call), '22023', 'cancel is refused: ' || call) FROM unnest(ARRAY['cancel(@id, repeat(''r'', 100000))']) AS call;

-- purge_queue

SELECT pg_temp.started('purge', 'p', true) \g /dev/null
SELECT outcome FROM holdfast.enqueue('purge', 'act', 'waits') \g /dev/null
SELECT outcome FROM holdfast.enqueue('purge', 'act', 'parked', delay => '1 day') \g /dev/null
SELECT outcome FROM holdfast.enqueue('purge', 'act', 'urgent', priority => -5) \g /dev/null
SELECT outcome FROM holdfast.enqueue('fresh', 'act', 'elsewhere') \g /dev/null
SELECT is(holdfast.purge_queue('purge'), 3::bigint, 'purge_queue ends the pending jobs of the queue');
SELECT results_eq($$SELECT subject, status FROM pg_temp.job WHERE queue IN ('purge', 'fresh') ORDER BY 1$$, $$VALUES ('elsewhere', 'pending'), ('purge', 'running')$$,
	'running jobs stay, and other queues');
SELECT results_eq($$SELECT subject, enqueued_at IS NOT NULL AND enqueued_by IS NOT NULL FROM pg_temp.evidence WHERE kind = 'action_purged' ORDER BY 1$$,
	$$VALUES ('parked', true), ('urgent', true), ('waits', true)$$, 'G7: each is on record, with who had enqueued it and when');
SELECT is((SELECT outcome FROM holdfast.enqueue('purge', 'act', 'waits')), 'created', 'G5: a purged intent may be scheduled again');
SELECT is(holdfast.purge_queue('purge', true), 2::bigint, 'include_running ends those, too');
SELECT is(pg_temp.state('purge'), 'dead (unresolved), ledger unknown', 'G6: and makes their ledger unknown');
SELECT is(holdfast.purge_queue('purge', true), 0::bigint, 'an empty queue is no error');
SELECT pg_temp.started('purge-unknown', 'p'), pg_temp.tell('purge-unknown', 'fail(@job, ''Boom'')') \g /dev/null
SELECT is(holdfast.purge_queue('purge-unknown'), 1::bigint, 'a pending job whose effect is unknown');
SELECT is(pg_temp.state('purge-unknown'), 'dead (unresolved), ledger unknown', 'G6: goes to dead with its payload');
SELECT holdfast.create_queue('batches', side_effects => false) \g /dev/null
SELECT count(*) FROM holdfast.enqueue_batch('batches', (SELECT jsonb_agg(jsonb_build_object('action_key', 'act', 'subject', n)) FROM generate_series(1, 2500) n)) \g /dev/null
SELECT is(holdfast.purge_queue('batches'), 2500::bigint, 'more than a batch');
SELECT is((SELECT count(*) FROM pg_temp.job WHERE queue = 'batches'), 0::bigint, 'none is left');
SELECT is((SELECT count(*) FROM pg_temp.evidence WHERE queue = 'batches' AND kind = 'action_purged'), 2500::bigint, 'G7: every one is on record');
SELECT throws_ok($$SELECT holdfast.purge_queue('nowhere')$$, '42704', NULL, 'an unknown queue is refused');
SELECT throws_ok($$SELECT holdfast.purge_queue(NULL)$$, '22004', NULL, 'and null');

-- redrive

SELECT pg_temp.started('redrive', 'p', true, jsonb_build_object('payload', '{"n": 7}'::jsonb, 'headers', '{"h": 1}'::jsonb, 'give_up_at', pg_temp.clock() + '1 h', 'priority', 3)) \g /dev/null
SELECT is(pg_temp.told('redrive', ARRAY['snooze(@job, ''1 s'')', '', 'fail(@job, ''Boom'', side_effect => ''none'')', '', 'fail(@job, ''Bang'', ''it broke'', side_effect => ''none'')', '',
	'fail(@job, ''ValidationError'')']), 'dead', 'setting the scene');
SELECT results_eq($$SELECT failures, attempt_number, reason, ended_at, last_error_class FROM pg_temp.dead_job WHERE job_id = pg_temp.id('redrive')$$,
	$$SELECT 3, 4, 'terminal', pg_temp.clock(), 'ValidationError'$$, 'a dead job says why and when it ended');
CREATE TEMPORARY TABLE before AS SELECT fencing_token, enqueued_at, enqueued_by FROM pg_temp.dead_job WHERE job_id = pg_temp.id('redrive');
SELECT pg_temp.later('2 h') \g /dev/null
SELECT results_eq($$SELECT outcome, job_id FROM holdfast.redrive(pg_temp.id('redrive'), 'fixed the template')$$, $$SELECT 'redriven', pg_temp.id('redrive')$$, 'an operator redrives it');
SELECT results_eq($$SELECT status, mode, failures, reconciles, losses, resumes, attempt_number, give_up_at, run_after, payload, headers, priority FROM pg_temp.job WHERE job_id = pg_temp.id('redrive')$$,
	$$SELECT 'pending', 'execute', 0, 0, 0, 0, 4, NULL::timestamptz, pg_temp.clock(), '{"n": 7}'::jsonb, '{"h": 1}'::jsonb, 3$$,
	'G4: its counters begin again, attempt_number goes on, a give_up_at that is past is cleared, and it is due');
SELECT results_eq($$SELECT fencing_token, enqueued_at, enqueued_by FROM pg_temp.job WHERE job_id = pg_temp.id('redrive')$$, 'SELECT * FROM before', 'and keeps what it was');
SELECT is_empty($$SELECT * FROM pg_temp.dead_job WHERE job_id = pg_temp.id('redrive')$$, 'G10: it is in one place');
SELECT is((SELECT last_event_at FROM pg_temp.job WHERE job_id = pg_temp.id('redrive')), (SELECT max(at) FROM pg_temp.evidence WHERE job_id = pg_temp.id('redrive')),
	'and knows when its last event was, so that the next one is not before it, whatever the clock does');
SELECT results_eq($$SELECT attempt_number, detail ->> 'reason', detail ->> 'by' = current_user, side_effect_state FROM pg_temp.evidence WHERE job_id = pg_temp.id('redrive') AND kind = 'action_redriven'$$,
	$$VALUES (4, 'fixed the template', true, 'planned')$$, 'G3: the one exception is recorded: who and why');
SELECT ok((SELECT detail::text LIKE '%2030-01-01%' AND detail::text ~ '\y3\y' FROM pg_temp.evidence WHERE job_id = pg_temp.id('redrive') AND kind = 'action_redriven'),
	'G7: with the give_up_at that was cleared, and the failures there were');
SELECT results_eq($$SELECT attempt_number, failures, max_attempts, mode, previous_attempt, previous_error_class FROM holdfast.claim('redrive', 'w')$$,
	$$VALUES (5, 0, 3, 'execute', 4, 'ValidationError')$$, 'G4: it is claimed as attempt 5, with its whole budget');
SELECT results_eq($$SELECT outcome, job_id FROM holdfast.redrive(pg_temp.id('redrive'), 'again')$$, $$VALUES ('unknown_job', NULL::bigint)$$, 'a live job is not redriven');
SELECT is((SELECT outcome FROM holdfast.redrive(9000000000000000000, 'again')), 'unknown_job', 'nor one that never was');

SELECT pg_temp.started('keeps', 'p', true, jsonb_build_object('give_up_at', pg_temp.clock() + '1 h')), pg_temp.told('keeps', ARRAY['fail(@job, ''ValidationError'')', 'redrive(@id, ''r'')']) \g /dev/null
SELECT is((SELECT give_up_at FROM pg_temp.job WHERE job_id = pg_temp.id('keeps')), pg_temp.clock() + '1 h', 'G4: a give_up_at that is not past stays');
SELECT pg_temp.started('losses', 'p'), pg_temp.tell('losses', 'release(@job)'), pg_temp.again('losses') \g /dev/null
SELECT pg_temp.later('90 s'), pg_temp.claimed('losses'), pg_temp.told('losses', ARRAY['', 'fail(@job, ''X'')', '', 'fail(@job, ''X'')']) \g /dev/null
SELECT results_eq($$SELECT failures, losses, reconciles, reason FROM pg_temp.dead_job WHERE job_id = pg_temp.id('losses')$$, $$VALUES (1, 1, 2, 'unresolved')$$, 'setting the scene');
SELECT is(pg_temp.tell('losses', 'redrive(@id, ''r'')'), 'redriven', 'a dead job whose effect is unknown');
SELECT results_eq($$SELECT mode, failures, losses, reconciles, resumes FROM pg_temp.job WHERE job_id = pg_temp.id('losses')$$, $$VALUES ('reconcile', 0, 0, 0, 0)$$,
	'G6: is redriven in mode reconcile, every counter from 0');
SELECT is((SELECT count(*) FROM pg_temp.evidence e, jsonb_object_keys(e.detail) AS k WHERE e.job_id = pg_temp.id('losses') AND e.kind = 'action_redriven' AND k ~ 'failures|losses|reconciles|resumes'), 4::bigint,
	'G7: all recorded: failures, losses, reconciles and resumes as they were');
SELECT pg_temp.started('asked-dead', 'p'), pg_temp.told('asked-dead', ARRAY['cancel(@id)', 'fail(@job, ''Boom'')', 'redrive(@id, ''r'')', '']) \g /dev/null
SELECT is((SELECT outcome FROM holdfast.heartbeat(pg_temp.id('asked-dead'), pg_temp.lease('asked-dead'))), 'extended', 'a redriven job is no longer asked to end');
SELECT pg_temp.started('plaind', 'once', false), pg_temp.told('plaind', ARRAY['fail(@job, ''Boom'')']) \g /dev/null
SELECT is(pg_temp.state('plaind'), 'dead (budget), ledger none', 'setting the scene: dead, without side effects');
SELECT is((SELECT outcome FROM holdfast.enqueue('plaind', 'act', 'plaind')), 'created', 'its key is unique among live jobs only');
SELECT is(pg_temp.tell('plaind', 'redrive(@id, ''r'')'), 'JQ004', 'G5: with another live job of the key, redrive is refused');
SELECT alike(pg_temp.refusal_detail(format($$SELECT * FROM holdfast.redrive(%s, 'r')$$, pg_temp.id('plaind'))), '%' || (SELECT job_id FROM pg_temp.job WHERE queue = 'plaind') || '%',
	'G5: and names it');
SELECT holdfast.purge_queue('plaind') \g /dev/null
SELECT is(pg_temp.tell('plaind', 'redrive(@id, ''r'')'), 'redriven', 'G5: without it, it is accepted');

-- a dead job whose intent was found not to have landed, and was scheduled anew

SELECT pg_temp.started('anew', 'p'), pg_temp.told('anew', ARRAY['cancel(@id, NULL, true)', 'settle_unknown(@key, ''not_landed'', ''{}'', ''r'')']) \g /dev/null
SELECT is(pg_temp.state('anew'), 'dead (unresolved), ledger failed_retryable', 'setting the scene');
SELECT is((SELECT outcome FROM holdfast.enqueue('anew', 'act', 'anew')), 'created', 'G5: failed_retryable without a job answers created');
SELECT is(pg_temp.tell('anew', 'redrive(@id, ''r'')'), 'JQ004', 'G5: redrive is refused while another live job has the key');
SELECT alike(pg_temp.refusal_detail(format($$SELECT * FROM holdfast.redrive(%s, 'r')$$, pg_temp.id('anew'))), '%' || (SELECT job_id FROM pg_temp.job WHERE queue = 'anew') || '%', 'G5: and names it');
CREATE TEMPORARY TABLE dead AS SELECT pg_temp.id('anew') AS job_id;
SELECT is((SELECT holdfast.complete(c.job_id, c.lease_id) FROM holdfast.claim('anew', 'w') c), 'completed', 'the new job completes');
SELECT throws_ok(format($$SELECT * FROM holdfast.redrive(%s, 'r')$$, job_id), 'JQ004', NULL, 'G6: redrive is refused for a committed key') FROM dead;
SELECT is((SELECT count(*) FROM pg_temp.dead_job d JOIN dead USING (job_id)), 1::bigint, 'and the dead job stays');
SELECT results_eq($$SELECT redriven, skipped FROM holdfast.redrive_queue('anew', 'r')$$, $$VALUES (0::bigint, 1::bigint)$$, 'G6: by filter it is skipped and counted');
SELECT throws_ok(format($$SELECT * FROM holdfast.redrive(%s, %s)$$, job_id, reason), state, NULL, 'redrive is refused: ' || reason) FROM dead,
	(VALUES ('NULL', '22004'), ($$repeat('r', 100000)$$, '22023')) AS v (reason, state);

-- a dead job whose intent another dead job has had since, with an effect that is unknown: it takes that over

SELECT pg_temp.started('moves', 'p'), pg_temp.told('moves', ARRAY['cancel(@id, NULL, true)', 'settle_unknown(@key, ''not_landed'', ''{}'', ''r'')']),
	(SELECT outcome FROM holdfast.enqueue('moves', 'act', 'moves')) \g /dev/null
SELECT job_id AS other FROM holdfast.claim('moves', 'w') \gset
SELECT holdfast.cancel(:other, NULL, true), pg_temp.clock() AS unknown_since, pg_temp.later('1 h') \gset
SELECT results_eq($$SELECT u.job_id, u.since FROM holdfast.unknown_effect u JOIN scene s USING (idempotency_key) WHERE s.name = 'moves'$$,
	format('VALUES (%s::bigint, %L::timestamptz)', :other, :'unknown_since'), 'an unknown effect is the last job''s');
SELECT is(pg_temp.tell('moves', 'redrive(@id, ''r'')'), 'redriven', 'the job before it is redriven');
SELECT results_eq($$SELECT u.job_id, u.since, j.mode FROM holdfast.unknown_effect u JOIN scene s USING (idempotency_key) JOIN pg_temp.job j ON j.job_id = s.job_id WHERE s.name = 'moves'$$,
	format('VALUES (%s::bigint, %L::timestamptz, ''reconcile'')', pg_temp.id('moves'), :'unknown_since'), 'G6: and has the unknown effect now, unknown since when it was');

-- redrive_queue

SELECT holdfast.create_queue('many', retry_policy => 'once') \g /dev/null
SELECT outcome FROM holdfast.enqueue_batch('many', '[{"action_key": "send", "subject": "a"}, {"action_key": "send", "subject": "b"}, {"action_key": "bill", "subject": "c"},
	{"action_key": "bill", "subject": "d"}, {"action_key": "bill", "subject": "e"}, {"action_key": "bill", "subject": "f"}]') \g /dev/null
CREATE TEMPORARY TABLE many AS SELECT subject COLLATE "default" AS subject, job_id, lease_id FROM holdfast.claim('many', 'w', 10);
CREATE FUNCTION pg_temp.die(subject text, error_class text) RETURNS void LANGUAGE sql AS $$
	SELECT FROM many m, holdfast.fail(m.job_id, m.lease_id, $2, side_effect => 'none') WHERE m.subject = $1
$$;
SELECT pg_temp.die('a', 'Boom'), pg_temp.die('b', 'Bang'), pg_temp.die('c', 'Boom') \g /dev/null
SELECT pg_temp.later('10 s'), pg_temp.die('d', 'Boom'), pg_temp.die('e', 'Bang') \g /dev/null
CREATE TEMPORARY TABLE middle AS SELECT pg_temp.clock() AS at;
SELECT pg_temp.later('10 s'), pg_temp.die('f', 'Boom') \g /dev/null
CREATE FUNCTION pg_temp.live() RETURNS text LANGUAGE sql AS $$ SELECT string_agg(subject, ' ' ORDER BY subject) FROM pg_temp.job WHERE queue = 'many' $$;
SELECT is((SELECT count(*) FROM pg_temp.dead_job WHERE queue = 'many'), 6::bigint, 'setting the scene: six dead jobs');
SELECT results_eq($$SELECT redriven, skipped FROM holdfast.redrive_queue('many', 'r', action_key => 'send')$$, $$VALUES (2::bigint, 0::bigint)$$, 'redrive_queue by action');
SELECT is(pg_temp.live(), 'a b', 'those alone');
SELECT results_eq($$SELECT redriven, skipped FROM holdfast.redrive_queue('many', 'r', error_class => 'Bang')$$, $$VALUES (1::bigint, 0::bigint)$$, 'redrive_queue by error class');
SELECT is(pg_temp.live(), 'a b e', 'that alone');
SELECT results_eq($$SELECT redriven, skipped FROM holdfast.redrive_queue('many', 'r', since => (SELECT at + interval '1 ms' FROM middle))$$, $$VALUES (1::bigint, 0::bigint)$$, 'redrive_queue by time');
SELECT is(pg_temp.live(), 'a b e f', 'that alone');
SELECT results_eq($$SELECT redriven, skipped FROM holdfast.redrive_queue('many', 'r', max => 1)$$, $$VALUES (1::bigint, 0::bigint)$$, 'redrive_queue up to a number');
SELECT is((SELECT count(*) FROM pg_temp.dead_job WHERE queue = 'many'), 1::bigint, 'one is left');
SELECT results_eq($$SELECT redriven, skipped FROM holdfast.redrive_queue('many', 'r', action_key => 'bill', error_class => 'Bang')$$, $$VALUES (0::bigint, 0::bigint)$$, 'filters are joined by and');
SELECT results_eq($$SELECT redriven, skipped FROM holdfast.redrive_queue('many', 'r')$$, $$VALUES (1::bigint, 0::bigint)$$, 'without a filter, all');
SELECT is((SELECT count(*) FROM pg_temp.evidence WHERE queue = 'many' AND kind = 'action_redriven' AND detail ->> 'reason' = 'r'), 6::bigint, 'G3: each is recorded');
SELECT is((SELECT count(*) FROM holdfast.claim('many', 'w', 10) WHERE mode = 'execute'), 6::bigint, 'G10: and all are claimable');
SELECT throws_ok($$SELECT * FROM holdfast.redrive_queue($$ || arguments || ')', state, NULL, 'redrive_queue is refused: ' || arguments) FROM (VALUES
	($$'nowhere', 'r'$$, '42704'), ($$'many', NULL$$, '22004'), ($$'many', 'r', max => 0$$, '22023'), ($$'many', 'r', max => -1$$, '22023')) AS v (arguments, state);

-- settle_unknown, on a pending and on a dead job

CREATE FUNCTION pg_temp.in_doubt(name text, options jsonb DEFAULT '{}', policy text DEFAULT 'p', dies boolean DEFAULT false) RETURNS text LANGUAGE sql AS $$
	SELECT pg_temp.started($1, $3, true, $2);
	SELECT pg_temp.tell($1, 'fail(@job, ''Boom'')');
	SELECT CASE WHEN $4 THEN pg_temp.tell($1, 'cancel(@id)') END;
	SELECT pg_temp.state($1)
$$;
SELECT is(pg_temp.in_doubt('s-' || name, dies => dies), state, 'setting the scene: ' || name)
FROM (VALUES ('live1', false), ('live2', false), ('live3', false), ('dead1', true), ('dead2', true), ('dead3', true)) AS v (name, dies),
	LATERAL (SELECT CASE WHEN dies THEN 'dead (unresolved), ledger unknown' ELSE 'pending, reconcile, ledger unknown' END) AS s (state);
SELECT results_eq(format($$SELECT u.state, u.job_id = s.job_id FROM scene s, holdfast.settle_unknown(s.idempotency_key, %L, '{"ticket": 12}', 'asked the provider') u WHERE s.name = %L$$, finding, 's-' || name),
	format('VALUES (%L, true)', state), format('settle_unknown %s: %s', finding, name)) FROM (VALUES
	('live1', 'landed', 'committed'), ('live2', 'not_landed', 'failed_retryable'), ('live3', 'abandoned', 'failed_terminal'),
	('dead1', 'landed', 'committed'), ('dead2', 'not_landed', 'failed_retryable'), ('dead3', 'abandoned', 'failed_terminal')) AS v (name, finding, state);
SELECT is(pg_temp.state('s-' || name), state, format('G6: settle_unknown, %s: %s', name, state)) FROM (VALUES
	('live1', 'gone, ledger committed'), ('live2', 'pending, execute, ledger failed_retryable'), ('live3', 'dead (abandoned), ledger failed_terminal'),
	('dead1', 'gone, ledger committed'), ('dead2', 'dead (unresolved), ledger failed_retryable'), ('dead3', 'dead (abandoned), ledger failed_terminal')) AS v (name, state);
SELECT results_eq($$SELECT s.name COLLATE "default", e.kind, e.worker_result, e.detail ->> 'reason', e.detail -> 'evidence', e.detail ->> 'by' = current_user
		FROM pg_temp.evidence e JOIN scene s USING (job_id) WHERE s.name ~ '^s-(live|dead)' AND e.kind = 'action_reconciled' ORDER BY 1$$,
	$$SELECT v.name, 'action_reconciled', v.finding, 'asked the provider', '{"ticket": 12}'::jsonb, true FROM (VALUES ('s-dead1', 'landed'), ('s-dead2', 'not_landed'), ('s-dead3', 'abandoned'),
		('s-live1', 'landed'), ('s-live2', 'not_landed'), ('s-live3', 'abandoned')) AS v (name, finding)$$, 'G7: each is on record, with who, why, and the evidence');
SELECT is((SELECT evidence FROM pg_temp.ledger l JOIN scene s USING (idempotency_key) WHERE s.name = 's-live1'), '{"ticket": 12}'::jsonb, 'the ledger keeps the evidence');
SELECT is((SELECT count(*) FROM holdfast.unknown_effect u JOIN scene s USING (job_id) WHERE s.name ~ '^s-'), 0::bigint, 'G6: none of them is unknown any more');
SELECT is(pg_temp.again('s-live2'), 'attempt 2, execute', 'G6: after not_landed a pending job executes');
SELECT is(pg_temp.tell('s-dead2', 'redrive(@id, ''r'')'), 'redriven', 'after not_landed a dead job may be redriven');
SELECT is(pg_temp.again('s-dead2'), 'attempt 2, execute', 'G6: and executes');
SELECT is(pg_temp.tell('s-live3', 'redrive(@id, ''r'')'), 'redriven', 'an abandoned one, too, an operator may redrive');
SELECT is(pg_temp.state('s-live3'), 'pending, execute, ledger planned', 'G6: failed_terminal to planned');

SELECT pg_temp.in_doubt('s-due') \g /dev/null
SELECT is((SELECT run_after > pg_temp.clock() FROM pg_temp.job WHERE job_id = pg_temp.id('s-due')), true, 'setting the scene');
SELECT is(pg_temp.tell('s-due', 'settle_unknown(@key, ''not_landed'', ''{}'', ''r'')'), 'failed_retryable', 'an operator is quick');
SELECT is(pg_temp.claimed('s-due'), 'none', 'G3: a finding does not shorten the delay after the failure');
SELECT is(pg_temp.again('s-due'), 'attempt 2, execute', 'G3: at its time it executes');
SELECT is((SELECT next_not_before FROM pg_temp.evidence WHERE job_id = pg_temp.id('s-due') AND kind = 'action_reconciled'), NULL, 'G3: and by the finding its time has not changed');
SELECT pg_temp.in_doubt('s-waited'), pg_temp.later('1 h'), pg_temp.tell('s-waited', 'settle_unknown(@key, ''not_landed'', ''{}'', ''r'')') \g /dev/null
SELECT results_eq($$SELECT next_not_before FROM pg_temp.evidence WHERE job_id = pg_temp.id('s-waited') AND kind = 'action_reconciled'$$,
	$$SELECT run_after FROM pg_temp.job WHERE job_id = pg_temp.id('s-waited') AND run_after = pg_temp.clock()$$, 'G9: one whose time is past is due now, and the finding says so');
SELECT pg_temp.in_doubt('s-budget', '{}', 'once') \g /dev/null
SELECT is(pg_temp.tell('s-budget', 'settle_unknown(@key, ''not_landed'', ''{}'', ''r'')'), 'failed_terminal', 'G4: not_landed without budget');
SELECT is(pg_temp.state('s-budget'), 'dead (budget), ledger failed_terminal', 'G4: is dead instead');
SELECT is((SELECT detail ->> 'dead_by' FROM pg_temp.evidence WHERE job_id = pg_temp.id('s-budget') AND kind = 'action_reconciled'), 'budget', 'G4: and its evidence says by what');
SELECT pg_temp.in_doubt('s-late', jsonb_build_object('give_up_at', pg_temp.clock() + '20 s')) \g /dev/null
SELECT pg_temp.later('20 s') \g /dev/null
SELECT is(pg_temp.tell('s-late', 'settle_unknown(@key, ''not_landed'', ''{}'', ''r'')'), 'failed_terminal', 'G4: not_landed past give_up_at');
SELECT is(pg_temp.state('s-late'), 'dead (deadline), ledger failed_terminal', 'G4: is dead instead');
SELECT pg_temp.started('s-class', 'p'), pg_temp.tell('s-class', 'fail(@job, ''ValidationError'', side_effect => ''unknown'')') \g /dev/null
SELECT is(pg_temp.tell('s-class', 'settle_unknown(@key, ''not_landed'', ''{}'', ''r'')'), 'failed_terminal', 'G4: not_landed after a terminal class');
SELECT is(pg_temp.state('s-class'), 'dead (terminal), ledger failed_terminal', 'G4: dead by terminal');
SELECT pg_temp.in_doubt('s-max', '{}', 'once', true) \g /dev/null
SELECT is(pg_temp.tell('s-max', 'settle_unknown(@key, ''not_landed'', ''{}'', ''r'')'), 'failed_retryable', 'not_landed on a dead job asks for no budget');
SELECT is(pg_temp.state('s-max'), 'dead (unresolved), ledger failed_retryable', 'it stays dead until redriven');
SELECT pg_temp.in_doubt('s-run') \g /dev/null
SELECT pg_temp.again('s-run') \g /dev/null
SELECT is(pg_temp.tell('s-run', format('settle_unknown(@key, %L, ''{}'', ''r'')', finding)), 'JQ004', 'G1: while a job runs, settle_unknown is JQ004: ' || finding)
FROM unnest(ARRAY['landed', 'not_landed', 'abandoned']) AS finding;
SELECT alike(pg_temp.refusal_detail(format($$SELECT * FROM holdfast.settle_unknown(%L, 'landed', '{}', 'r')$$, idempotency_key)),
	'%' || to_char(pg_temp.clock() + interval '90 s', 'YYYY-MM-DD HH24:MI:SS') || '%', 'G1: with the lease''s end') FROM scene WHERE name = 's-run';
SELECT is(pg_temp.tell('s-run', call), state, 'settle_unknown is refused: ' || call) FROM (VALUES
	('settle_unknown(NULL, ''landed'', ''{}'', ''r'')', '22004'), ('settle_unknown(gen_random_uuid(), ''landed'', ''{}'', ''r'')', '42704'),
	('settle_unknown(@key, NULL, ''{}'', ''r'')', '22004'), ('settle_unknown(@key, ''undetermined'', ''{}'', ''r'')', '22023'), ('settle_unknown(@key, ''landed'', ''{}'', NULL)', '22004')
) AS v (call, state);
SELECT is(pg_temp.state('s-run'), 'running, reconcile, ledger unknown', 'a refused settlement changes nothing');
SELECT pg_temp.in_doubt('s-twice'), pg_temp.tell('s-twice', 'settle_unknown(@key, ''not_landed'', ''{}'', ''r'')') \g /dev/null
SELECT is(pg_temp.tell('s-twice', 'settle_unknown(@key, ''landed'', ''{}'', ''r'')'), 'JQ004', 'G6: what is settled is not settled again');

-- abandoned, with a child that is unknown, too: what is dead is dead, and the event says so

SELECT pg_temp.started('s-child', 'p'), pg_temp.told('s-child', ARRAY['ledger_transition(@job, ''started'', ''mail'')', 'fail(@job, ''Boom'')']) \g /dev/null
SELECT is(pg_temp.tell('s-child', 'settle_unknown(@key, ''abandoned'', ''{}'', ''r'')'), 'failed_terminal', 'abandoned, with an unknown child');
SELECT is(pg_temp.state('s-child'), 'dead (abandoned), ledger failed_terminal', 'is dead, abandoned');
SELECT isnt((SELECT detail ->> 'decision' FROM pg_temp.evidence WHERE job_id = pg_temp.id('s-child') AND kind = 'action_reconciled'), 'reconcile', 'G7: the event does not say that it is to be reconciled');

SELECT is_empty($$SELECT u.idempotency_key FROM holdfast.unknown_effect u JOIN scene s USING (job_id) WHERE s.name = 's-child'$$, 'G6: nothing of it is unknown any more');
SELECT is(pg_temp.told('s-child', ARRAY['redrive(@id, ''r'')', '']), 'attempt 2, execute', 'an operator redrives it, and so has settled both');
SELECT is(pg_temp.tell('s-child', 'ledger_transition(@job, ''started'', ''mail'')'), 'ok', 'G6: failed_terminal to planned by redrive: the child, too, may be started again');

-- pause and resume

SELECT pg_temp.started('pause', 'p') \g /dev/null
SELECT outcome FROM holdfast.enqueue('pause', 'act', 'waits') \g /dev/null
SELECT lives_ok($$SELECT holdfast.pause_queue('pause', 'provider is down')$$, 'pause_queue');
SELECT results_eq($$SELECT paused, pause_reason COLLATE "default" FROM holdfast.list_queues() WHERE queue_name = 'pause'$$, $$VALUES (true, 'provider is down')$$, 'says why');
SELECT is_empty($$SELECT * FROM holdfast.claim('pause', 'w')$$, 'a paused queue hands out nothing');
SELECT is_empty($$SELECT * FROM holdfast.claim_any(ARRAY['pause'], 'w')$$, 'claim_any neither');
SELECT is((SELECT outcome FROM holdfast.enqueue('pause', 'act', 'later')), 'created', 'enqueue goes on');
SELECT is((SELECT outcome FROM holdfast.heartbeat(pg_temp.id('pause'), pg_temp.lease('pause'))), 'extended', 'and so does what runs');
SELECT results_eq($$SELECT kind, outcome FROM holdfast.complete_and_claim('pause', 'w', ARRAY[pg_temp.id('pause')], ARRAY[pg_temp.lease('pause')])$$, $$VALUES ('completed', 'completed')$$,
	'complete_and_claim completes, and claims nothing');
SELECT lives_ok($$SELECT holdfast.pause_queue('pause')$$, 'pausing twice is no error');
SELECT lives_ok($$SELECT holdfast.resume_queue('pause', 'it is back')$$, 'resume_queue');
SELECT results_eq($$SELECT paused, pause_reason FROM holdfast.list_queues() WHERE queue_name = 'pause'$$, $$VALUES (false, NULL::text)$$, 'forgets why');
SELECT results_eq($$SELECT subject FROM holdfast.claim('pause', 'w', 5)$$, $$VALUES ('waits'), ('later')$$, 'G10: nothing was lost');
SELECT lives_ok($$SELECT holdfast.resume_queue('pause')$$, 'resuming twice is no error');
SELECT throws_ok(format($$SELECT holdfast.%s('nowhere')$$, f), '42704', NULL, f || ' of an unknown queue is refused') FROM unnest(ARRAY['pause_queue', 'resume_queue']) AS f;

SELECT results_eq($$SELECT l.idempotency_key FROM holdfast.ledger l WHERE l.state = 'unknown' ORDER BY 1$$, 'SELECT idempotency_key FROM holdfast.unknown_effect ORDER BY 1',
	'G6: unknown_effect has kept step');

SELECT * FROM finish();
ROLLBACK;
