\i test/setup.sql
\i test/tools.sql
-- The ledger: every row of its table of moves, every other move refused, and child effects.
SELECT plan(248);

SELECT pg_temp.at('00:00:00') \g /dev/null
SELECT holdfast.define_retry_policy('p', '10 s', backoff_rate => 1, jitter_window => '0', min_delay => '1 s', max_attempts => 3,
	reconcile_delay => '60 s', reconcile_max => 2) \g /dev/null
SELECT holdfast.define_retry_policy('once', '10 s', jitter_window => '0', min_delay => '1 s', max_attempts => 1) \g /dev/null

CREATE FUNCTION pg_temp.ledger(name text, effect text DEFAULT NULL) RETURNS text LANGUAGE sql AS $$
	SELECT l.state FROM pg_temp.ledger l, scene s
	WHERE s.name = $1 AND l.idempotency_key = coalesce(holdfast.effect_key(s.idempotency_key, $2), s.idempotency_key)
$$;
-- a call about the scene's job: its first column, or the SQLSTATE
CREATE FUNCTION pg_temp.tell(name text, call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	answer	text;
BEGIN
	EXECUTE (SELECT replace(replace(replace('SELECT * FROM holdfast.' || call, '@job', format('%L::bigint, %L::uuid', s.job_id, s.lease_id)),
									'@id', format('%L::bigint', s.job_id)), '@key', format('%L::uuid', s.idempotency_key))
			 FROM scene s WHERE s.name = tell.name) INTO answer;
	RETURN answer;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END
$$;
CREATE FUNCTION pg_temp.doubts() RETURNS SETOF text LANGUAGE sql AS $$
	SELECT coalesce(l.idempotency_key, u.idempotency_key)::text
	FROM (SELECT * FROM holdfast.ledger WHERE state = 'unknown') l
	FULL JOIN holdfast.unknown_effect u ON u.idempotency_key = l.idempotency_key AND u.job_id = l.job_id AND u.queue = l.queue
	WHERE l.idempotency_key IS NULL OR u.idempotency_key IS NULL
$$;
COMMENT ON FUNCTION pg_temp.doubts() IS 'ledger rows and rows of unknown_effect that do not belong together';

-- planned, started, committed

SELECT holdfast.create_queue('plan') \g /dev/null
SELECT job_id FROM holdfast.enqueue('plan', 'act', 'plan') \g /dev/null
SELECT is((SELECT state FROM pg_temp.ledger WHERE subject = 'plan'), 'planned', 'G6: - to planned: enqueue');
SELECT pg_temp.claimed('plan') \g /dev/null
SELECT is(pg_temp.ledger('plan'), 'started', 'G6: planned to started: claim in mode execute');
SELECT pg_temp.at('00:00:01') \g /dev/null
SELECT is(pg_temp.tell('plan', 'complete(@job, ''{"message": 7}'')'), 'completed', 'the action is done');
SELECT results_eq($$SELECT state, attempt_number, changed_at, created_at FROM pg_temp.ledger WHERE subject = 'plan'$$,
	$$VALUES ('committed', 1, '2030-01-01 00:00:01+00'::timestamptz, '2030-01-01 00:00:00+00'::timestamptz)$$,
	'G6: started to committed: complete; the row says when and by which attempt');

SELECT pg_temp.started('trans') \g /dev/null
SELECT results_eq($$SELECT outcome, state FROM holdfast.ledger_transition(pg_temp.id('trans'), pg_temp.lease('trans'), 'committed', NULL, '{"charge": 1}')$$,
	$$VALUES ('ok', 'committed')$$, 'G6: started to committed: ledger_transition');
SELECT is((SELECT evidence FROM pg_temp.ledger WHERE subject = 'trans'), '{"charge": 1}'::jsonb, 'the evidence given is kept');
SELECT is(pg_temp.events('trans'), 'attempt_started, ledger_changed', 'G7: a call that changes nothing else writes action_ledger_changed');
SELECT results_eq($$SELECT outcome, state FROM holdfast.ledger_transition(pg_temp.id('trans'), pg_temp.lease('trans'), 'committed')$$,
	$$VALUES ('duplicate', 'committed')$$, 'G2: the same move again is a duplicate');
SELECT is(pg_temp.state('trans'), 'running, execute, ledger committed', 'the attempt goes on until it is reported');
SELECT is(pg_temp.tell('trans', 'complete(@job)'), 'completed', 'and a complete ends it');
SELECT is(pg_temp.state('trans'), 'gone, ledger committed', 'G10: succeeded');

SELECT pg_temp.started('landed') \g /dev/null
SELECT is(pg_temp.tell('landed', 'fail(@job, ''Boom'', side_effect => ''landed'')'), 'succeeded', 'G6: fail with side effect landed, mode execute');
SELECT is(pg_temp.state('landed'), 'gone, ledger committed', 'G6: started to committed: fail with side effect landed');
SELECT pg_temp.started('suppress') \g /dev/null
SELECT is(pg_temp.tell('suppress', 'fail(@job, ''DuplicateActionError'')'), 'suppressed', 'an error rule that says suppress');
SELECT is(pg_temp.state('suppress'), 'gone, ledger committed', 'G6: started to committed: suppress');

-- started to planned

SELECT pg_temp.started('snooze') \g /dev/null
SELECT is(pg_temp.tell('snooze', 'snooze(@job, ''30 s'')'), 'snoozed', 'nothing was sent');
SELECT is(pg_temp.state('snooze'), 'pending, execute, ledger planned', 'G6: started to planned: snooze');
SELECT pg_temp.started('release') \g /dev/null
SELECT is(pg_temp.tell('release', 'release(@job)'), 'released', 'shutting down');
SELECT is(pg_temp.state('release'), 'pending, execute, ledger planned', 'G6: started to planned: release');

-- started to failed_retryable, and back

SELECT pg_temp.started('none', 'p') \g /dev/null
SELECT is(pg_temp.tell('none', 'fail(@job, ''Boom'', side_effect => ''none'')'), 'retry', 'nothing was sent, and it failed');
SELECT is(pg_temp.state('none'), 'pending, execute, ledger failed_retryable', 'G6: started to failed_retryable: fail with side effect none');
SELECT is(pg_temp.again('none'), 'attempt 2, execute', 'G6: and it executes again');
SELECT is(pg_temp.ledger('none'), 'started', 'G6: failed_retryable to started: claim in mode execute');
SELECT is(pg_temp.tell('none', 'schedule_retry(@job, ''10 s'', side_effect => ''none'')'), 'retry', 'schedule_retry');
SELECT is(pg_temp.state('none'), 'pending, execute, ledger failed_retryable', 'G6: started to failed_retryable: schedule_retry');

-- to failed_terminal

SELECT pg_temp.started('class') \g /dev/null
SELECT is(pg_temp.tell('class', 'fail(@job, ''ValidationError'')'), 'dead', 'a terminal class');
SELECT is(pg_temp.state('class'), 'dead (terminal), ledger failed_terminal', 'G6: started to failed_terminal: class');
SELECT pg_temp.started('budget', 'once') \g /dev/null
SELECT is(pg_temp.tell('budget', 'fail(@job, ''Boom'', side_effect => ''none'')'), 'dead', 'a used up budget');
SELECT is(pg_temp.state('budget'), 'dead (budget), ledger failed_terminal', 'G6: started to failed_terminal: budget');
SELECT pg_temp.started('late', 'p', true, jsonb_build_object('give_up_at', pg_temp.clock() + '10 s')) \g /dev/null
SELECT is(pg_temp.tell('late', 'fail(@job, ''Boom'', side_effect => ''none'')'), 'dead', 'the next attempt would not be before give_up_at');
SELECT is(pg_temp.state('late'), 'dead (deadline), ledger failed_terminal', 'G6: started to failed_terminal: give_up_at');
SELECT pg_temp.started('intime', 'p', true, jsonb_build_object('give_up_at', pg_temp.clock() + '10.001 s')) \g /dev/null
SELECT is(pg_temp.tell('intime', 'fail(@job, ''Boom'', side_effect => ''none'')'), 'retry', 'G4: a millisecond earlier it comes back');
SELECT is(pg_temp.again('intime'), 'attempt 2, execute', 'G4: and is claimed before give_up_at');
SELECT is(pg_temp.tell('intime', 'release(@job)'), 'released', 'setting the scene');
SELECT pg_temp.at(pg_temp.clock() + '1 ms') \g /dev/null
SELECT is(pg_temp.claimed('intime'), 'none', 'G4: at give_up_at it is not handed out');
SELECT is(pg_temp.state('intime'), 'dead (deadline), ledger failed_terminal', 'G6: planned to failed_terminal: give_up_at past while pending');
SELECT pg_temp.started('retryable', 'p', true, jsonb_build_object('give_up_at', pg_temp.clock() + '11 s')) \g /dev/null
SELECT is(pg_temp.tell('retryable', 'fail(@job, ''Boom'', side_effect => ''none'')'), 'retry', 'setting the scene');
SELECT pg_temp.at(pg_temp.clock() + '11 s') \g /dev/null
SELECT is(pg_temp.claimed('retryable'), 'none', 'G4: past give_up_at it is not handed out');
SELECT is(pg_temp.state('retryable'), 'dead (deadline), ledger failed_terminal', 'G6: failed_retryable to failed_terminal: give_up_at past while pending');

-- to unknown

SELECT pg_temp.started('unknown', 'p') \g /dev/null
SELECT is(pg_temp.tell('unknown', 'fail(@job, ''Boom'')'), 'reconcile', 'G6: a class without a rule leaves the effect unknown');
SELECT is(pg_temp.state('unknown'), 'pending, reconcile, ledger unknown', 'G6: started to unknown: fail');
SELECT pg_temp.started('asked', 'p') \g /dev/null
SELECT is(pg_temp.tell('asked', 'schedule_retry(@job, ''30 s'')'), 'reconcile', 'G6: schedule_retry, too');
SELECT is(pg_temp.state('asked'), 'pending, reconcile, ledger unknown', 'G6: started to unknown: schedule_retry');
SELECT pg_temp.started('override', 'p') \g /dev/null
SELECT is(pg_temp.tell('override', 'fail(@job, ''RateLimitError'', side_effect => ''unknown'')'), 'reconcile', 'the worker''s side_effect overrides the rule');
SELECT is(pg_temp.ledger('override'), 'unknown', 'G6: started to unknown: by the worker''s word');
SELECT pg_temp.started('lost', 'p') \g /dev/null
SELECT pg_temp.at(pg_temp.clock() + '90 s') \g /dev/null
SELECT is(pg_temp.claimed('lost'), 'none', 'G3: a lost lease is no reason to execute at once');
SELECT is(pg_temp.state('lost'), 'pending, reconcile, ledger unknown', 'G6: started to unknown: lease lost');
SELECT pg_temp.started('forced', 'p') \g /dev/null
SELECT is(pg_temp.tell('forced', 'cancel(@id, ''stop'', true)'), 'dead', 'a forced cancel');
SELECT is(pg_temp.state('forced'), 'dead (unresolved), ledger unknown', 'G6: started to unknown: forced cancel');
SELECT is_empty('SELECT pg_temp.doubts()', 'G6: unknown_effect has a row for each unknown one, and no other');
SELECT is((SELECT count(*) FROM holdfast.unknown_effect), 5::bigint, 'G6: five so far');

-- unknown stays unknown

SELECT pg_temp.started('stays', 'p') \g /dev/null
SELECT is(pg_temp.tell('stays', 'fail(@job, ''Boom'')'), 'reconcile', 'setting the scene');
CREATE TEMPORARY TABLE since AS SELECT u.since FROM holdfast.unknown_effect u JOIN scene s USING (idempotency_key) WHERE s.name = 'stays';
SELECT is(pg_temp.again('stays'), 'attempt 2, reconcile', 'G6: unknown is handed out in mode reconcile');
SELECT is(pg_temp.state('stays'), 'running, reconcile, ledger unknown', 'G6: unknown stays: claim in mode reconcile');
SELECT is(pg_temp.tell('stays', 'snooze(@job, ''30 s'')'), 'snoozed', 'not now');
SELECT is(pg_temp.state('stays'), 'pending, reconcile, ledger unknown', 'G6: unknown stays: snooze');
SELECT pg_temp.again('stays') \g /dev/null
SELECT is(pg_temp.tell('stays', 'release(@job)'), 'released', 'shutting down');
SELECT is(pg_temp.state('stays'), 'pending, reconcile, ledger unknown', 'G6: unknown stays: release');
SELECT pg_temp.again('stays') \g /dev/null
SELECT is(pg_temp.tell('stays', 'reconcile(@job, ''undetermined'')'), 'retry', 'the provider cannot say');
SELECT is(pg_temp.state('stays'), 'pending, reconcile, ledger unknown', 'G6: unknown stays: undetermined');
SELECT pg_temp.again('stays') \g /dev/null
SELECT is(pg_temp.tell('stays', 'fail(@job, ''ProviderDown'', side_effect => ''none'')'), 'reconcile', 'the provider is down; this attempt sent nothing');
SELECT is(pg_temp.state('stays'), 'pending, reconcile, ledger unknown', 'G6: unknown stays: fail, whatever this attempt sent');
SELECT pg_temp.again('stays') \g /dev/null
SELECT pg_temp.at(pg_temp.clock() + '90 s') \g /dev/null
SELECT is(pg_temp.claimed('stays'), 'none', 'the lease is lost, and reconcile_max (2) used up');
SELECT is(pg_temp.state('stays'), 'dead (unresolved), ledger unknown', 'G6: unknown stays: lease lost, and exhausted');
SELECT is(pg_temp.tell('stays', 'redrive(@id, ''again'')'), 'redriven', 'an operator redrives it');
SELECT is(pg_temp.state('stays'), 'pending, reconcile, ledger unknown', 'G6: unknown stays: redrive');
SELECT is((SELECT u.since FROM holdfast.unknown_effect u JOIN scene s USING (idempotency_key) WHERE s.name = 'stays'), (SELECT since FROM since),
	'G6: and is known to be so since the first failure');
SELECT pg_temp.again('stays') \g /dev/null
SELECT is(pg_temp.tell('stays', 'fail(@job, ''Boom'', side_effect => ''landed'')'), 'reconcile', 'G6: in mode reconcile a failure is no finding, not even with side effect landed');
SELECT is(pg_temp.ledger('stays'), 'unknown', 'G6: the ledger says unknown still');

-- out of unknown

SELECT pg_temp.again('stays') \g /dev/null
SELECT is(pg_temp.tell('stays', 'reconcile(@job, ''landed'')'), 'done', 'G6: a finding');
SELECT is(pg_temp.state('stays'), 'gone, ledger committed', 'G6: unknown to committed: reconcile landed');
SELECT is(pg_temp.again('unknown'), 'attempt 2, reconcile', 'setting the scene');
SELECT is(pg_temp.tell('unknown', 'reconcile(@job, ''not_landed'')'), 'execute', 'G6: the other finding');
SELECT is(pg_temp.state('unknown'), 'running, execute, ledger started', 'G6: unknown to started: reconcile not_landed, under the same lease');
SELECT is(pg_temp.tell('asked', 'settle_unknown(@key, ''landed'', ''{}'', ''seen'')'), 'committed', 'an operator''s finding: landed');
SELECT is(pg_temp.state('asked'), 'gone, ledger committed', 'G6: unknown to committed: settle_unknown landed');
SELECT is(pg_temp.tell('lost', 'settle_unknown(@key, ''not_landed'', ''{}'', ''looked'')'), 'failed_retryable', 'an operator''s finding: not_landed');
SELECT is(pg_temp.state('lost'), 'pending, execute, ledger failed_retryable', 'G6: unknown to failed_retryable: settle_unknown not_landed, pending');
SELECT is(pg_temp.tell('forced', 'settle_unknown(@key, ''not_landed'', ''{}'', ''looked'')'), 'failed_retryable', 'the same of a dead job');
SELECT is(pg_temp.state('forced'), 'dead (unresolved), ledger failed_retryable', 'G6: unknown to failed_retryable: settle_unknown not_landed, dead');
SELECT is(pg_temp.tell('override', 'settle_unknown(@key, ''abandoned'', ''{}'', ''too old'')'), 'failed_terminal', 'an operator gives up');
SELECT is(pg_temp.state('override'), 'dead (abandoned), ledger failed_terminal', 'G6: unknown to failed_terminal: settle_unknown abandoned');
SELECT is_empty('SELECT pg_temp.doubts()', 'G6: unknown_effect has kept step');
SELECT is((SELECT count(*) FROM holdfast.unknown_effect), 0::bigint, 'G6: nothing is unknown any more');

-- failed_terminal to planned

SELECT is(pg_temp.tell('class', 'redrive(@id, ''fixed'')'), 'redriven', 'an operator redrives a dead job');
SELECT is(pg_temp.state('class'), 'pending, execute, ledger planned', 'G6: failed_terminal to planned: redrive');

-- committed is final

CREATE FUNCTION pg_temp.committed(name text) RETURNS text LANGUAGE sql AS $$
	SELECT pg_temp.started($1, 'p');
	SELECT pg_temp.tell($1, 'ledger_transition(@job, ''committed'')')
$$;
SELECT is(pg_temp.committed('c-' || how), 'ok', 'setting the scene: committed, then ' || how) FROM unnest(ARRAY['lost', 'fail', 'class', 'retry', 'cancel', 'force', 'asked']) AS how;
SELECT is(pg_temp.tell('c-fail', 'fail(@job, ''Boom'')'), 'succeeded', 'G6: committed is final: a failure with an unknown effect ends it as succeeded');
SELECT is(pg_temp.tell('c-class', 'fail(@job, ''ValidationError'', side_effect => ''none'')'), 'succeeded', 'G6: committed is final: a terminal class');
SELECT is(pg_temp.tell('c-retry', 'schedule_retry(@job, ''10 s'', side_effect => ''none'')'), 'succeeded', 'G6: committed is final: schedule_retry');
SELECT is(pg_temp.tell('c-asked', 'cancel(@id)'), 'requested', 'setting the scene: a cancel is requested');
SELECT is(pg_temp.tell('c-asked', 'fail(@job, ''Cancelled'', side_effect => ''none'')'), 'succeeded', 'G6: committed is final: a failure after a request to cancel');
SELECT isnt(pg_temp.tell('c-force', 'cancel(@id, ''stop'', true)'), 'dead', 'G6: committed is final: a forced cancel leaves nothing unknown');
SELECT pg_temp.at(pg_temp.clock() + '90 s') \g /dev/null
SELECT is(pg_temp.claimed('c-lost'), 'none', 'G6: committed is final: a lost lease');
SELECT is(pg_temp.state('c-' || how), 'gone, ledger committed', 'G6: it is gone, and the ledger committed: ' || how) FROM unnest(ARRAY['lost', 'fail', 'class', 'retry', 'asked', 'force']) AS how;
SELECT is((SELECT count(*) FROM pg_temp.evidence WHERE kind = 'action_attempt_succeeded' AND job_id = pg_temp.id('c-' || how)), 1::bigint, 'G10: and ended as succeeded: ' || how)
FROM unnest(ARRAY['lost', 'fail', 'class', 'retry', 'asked', 'force']) AS how;
SELECT alike(pg_temp.events('c-lost'), '%attempt_lost%', 'G7: the event says what came');
SELECT is((SELECT count(*) FROM pg_temp.dead_job d JOIN scene s USING (job_id) WHERE s.name LIKE 'c-%'), 0::bigint, 'G6: none of them is dead');
SELECT pg_temp.committed('c-snooze') \g /dev/null
SELECT ok(pg_temp.tell('c-snooze', call) IN ('JQ004', 'succeeded'), 'G6: committed is final: ' || call || ' does not make it planned')
FROM unnest(ARRAY['snooze(@job, ''30 s'')']) AS call;
SELECT is(pg_temp.ledger('c-snooze'), 'committed', 'G6: not by a snooze');
SELECT pg_temp.committed('c-release') \g /dev/null
SELECT ok(pg_temp.tell('c-release', 'release(@job)') IN ('JQ004', 'succeeded'), 'G6: committed is final: release does not make it planned');
SELECT is(pg_temp.ledger('c-release'), 'committed', 'G6: not by a release');

-- every other move is JQ004

SELECT pg_temp.started('no-started', 'p') \g /dev/null
SELECT pg_temp.committed('no-committed') \g /dev/null
SELECT pg_temp.started('no-retryable', 'p'), pg_temp.tell('no-retryable', 'fail(@job, ''Boom'', side_effect => ''none'')') \g /dev/null
SELECT pg_temp.started('no-planned', 'p'), pg_temp.tell('no-planned', 'snooze(@job, ''1 h'')') \g /dev/null
SELECT pg_temp.started('no-terminal', 'p'), pg_temp.tell('no-terminal', 'fail(@job, ''ValidationError'')') \g /dev/null
SELECT pg_temp.started('no-unknown', 'p'), pg_temp.tell('no-unknown', 'fail(@job, ''Boom'')'), pg_temp.again('no-unknown') \g /dev/null
SELECT pg_temp.stored() AS before \gset
SELECT is(pg_temp.tell('no-' || scene, call), 'JQ004', format('G6: from %s, %s is JQ004', scene, call)) FROM (VALUES
	('started', 'ledger_transition(@job, ''failed_retryable'')'),
	('started', 'reconcile(@job, ''landed'')'), ('started', 'reconcile(@job, ''not_landed'')'), ('started', 'reconcile(@job, ''undetermined'')'),
	('started', 'reconcile(@job, ''landed'', effect => ''charge'')'),
	('started', 'settle_unknown(@key, ''landed'', ''{}'', ''r'')'), ('started', 'settle_unknown(@key, ''not_landed'', ''{}'', ''r'')'),
	('started', 'settle_unknown(@key, ''abandoned'', ''{}'', ''r'')'),
	('committed', 'ledger_transition(@job, ''started'')'), ('committed', 'ledger_transition(@job, ''failed_retryable'')'),
	('committed', 'reconcile(@job, ''landed'')'), ('committed', 'reconcile(@job, ''not_landed'')'),
	('committed', 'settle_unknown(@key, ''not_landed'', ''{}'', ''r'')'),
	('retryable', 'settle_unknown(@key, ''landed'', ''{}'', ''r'')'), ('retryable', 'settle_unknown(@key, ''not_landed'', ''{}'', ''r'')'),
	('retryable', 'settle_unknown(@key, ''abandoned'', ''{}'', ''r'')'),
	('planned', 'settle_unknown(@key, ''landed'', ''{}'', ''r'')'), ('planned', 'settle_unknown(@key, ''not_landed'', ''{}'', ''r'')'),
	('planned', 'settle_unknown(@key, ''abandoned'', ''{}'', ''r'')'),
	('terminal', 'settle_unknown(@key, ''landed'', ''{}'', ''r'')'), ('terminal', 'settle_unknown(@key, ''abandoned'', ''{}'', ''r'')'),
	('unknown', 'ledger_transition(@job, ''committed'')'), ('unknown', 'ledger_transition(@job, ''started'')'),
	('unknown', 'ledger_transition(@job, ''failed_retryable'')'),
	('unknown', 'settle_unknown(@key, ''landed'', ''{}'', ''r'')')
) AS v (scene, call);
SELECT ok(pg_temp.tell('no-started', format('ledger_transition(@job, %L)', state)) IN ('JQ004', '22023'), 'G6: no worker moves a ledger row to ' || state)
FROM unnest(ARRAY['planned', 'unknown', 'failed_terminal', 'Started', '']) AS state;
SELECT is(pg_temp.stored(), :'before', 'G6: a refused move has changed nothing');
SELECT is(pg_temp.tell('no-started', 'ledger_transition(@job, ''started'')'), 'duplicate', 'G2: started again is a duplicate');
SELECT is(pg_temp.tell('no-unknown', 'complete(@job)'), 'JQ003', 'G6: in mode reconcile complete is refused before a finding');
SELECT is(pg_temp.state('no-' || scene), state, 'G6: refused moves leave it ' || state) FROM (VALUES
	('started', 'running, execute, ledger started'), ('committed', 'running, execute, ledger committed'), ('retryable', 'pending, execute, ledger failed_retryable'),
	('planned', 'pending, execute, ledger planned'), ('terminal', 'dead (terminal), ledger failed_terminal'), ('unknown', 'running, reconcile, ledger unknown')
) AS v (scene, state);

-- without side effects there is no ledger

SELECT is(pg_temp.started('plain', 'p', false), 'attempt 1, execute', 'a job without side effects');
SELECT is(pg_temp.tell('plain', call), 'JQ004', 'without side effects there is no ledger to move: ' || call)
FROM unnest(ARRAY['ledger_transition(@job, ''committed'')', 'ledger_transition(@job, ''started'', ''charge'')', 'reconcile(@job, ''landed'')']) AS call;
SELECT is(pg_temp.tell('plain', 'fail(@job, ''TimeoutError'')'), 'retry', 'without side effects a timeout is retried by executing');
SELECT is(pg_temp.again('plain'), 'attempt 2, execute', 'in mode execute');
SELECT pg_temp.at(pg_temp.clock() + '90 s') \g /dev/null
SELECT is(pg_temp.claimed('plain'), 'none', 'a lost lease without side effects');
SELECT is(pg_temp.state('plain'), 'pending, execute, ledger none', 'is retried by executing, and has no ledger row');
SELECT is((SELECT count(*) FROM pg_temp.evidence WHERE job_id = pg_temp.id('plain') AND side_effect_state IS NOT NULL), 0::bigint, 'nor do its events name a state');
SELECT is_empty($$SELECT * FROM holdfast.unknown_effect u JOIN scene s USING (job_id) WHERE s.name = 'plain'$$, 'and nothing of it is unknown');

-- child effects: rows of their own

SELECT pg_temp.started('child', 'p') \g /dev/null
SELECT is((SELECT has_effects FROM pg_temp.ledger WHERE subject = 'child'), false, 'a job without child effects pays nothing for them');
SELECT results_eq($$SELECT outcome, state FROM holdfast.ledger_transition(pg_temp.id('child'), pg_temp.lease('child'), 'started', 'charge')$$,
	$$VALUES ('ok', 'started')$$, 'G6: child: none to started');
SELECT results_eq($$SELECT l.idempotency_key = holdfast.effect_key(s.idempotency_key, 'charge'), l.parent_key = s.idempotency_key, l.effect, l.state, l.job_id = s.job_id
		FROM pg_temp.ledger l JOIN scene s ON s.idempotency_key = l.parent_key WHERE s.name = 'child'$$,
	$$VALUES (true, true, 'charge', 'started', true)$$, 'G5: its key is effect_key(key, effect), and it knows its parent');
SELECT is((SELECT l.has_effects FROM pg_temp.ledger l JOIN scene s USING (idempotency_key) WHERE s.name = 'child'), true, 'the first child sets has_effects');
SELECT is(pg_temp.ledger('child'), 'started', 'the parent stays started');
SELECT is(pg_temp.tell('child', 'ledger_transition(@job, ''started'', ''charge'')'), 'duplicate', 'G2: the same move again is a duplicate');
SELECT is(pg_temp.tell('child', 'complete(@job)'), 'JQ003', 'G6: complete is refused while a child is started');
SELECT is(pg_temp.tell('child', call), 'JQ004', 'G6: with an open child, JQ004: ' || call) FROM unnest(ARRAY['snooze(@job, ''30 s'')', 'release(@job)']) AS call;
SELECT is(pg_temp.tell('child', 'ledger_transition(@job, ''committed'', ''mail'')'), 'JQ004', 'G6: child: none to committed is JQ004');
SELECT is(pg_temp.tell('child', 'ledger_transition(@job, ''failed_retryable'', ''mail'')'), 'JQ004', 'G6: child: none to failed_retryable is JQ004');
SELECT is(pg_temp.tell('child', 'ledger_transition(@job, ''failed_retryable'', ''charge'')'), 'ok', 'G6: child: started to failed_retryable');
SELECT is(pg_temp.tell('child', 'ledger_transition(@job, ''committed'', ''charge'')'), 'JQ004', 'G6: child: failed_retryable to committed is JQ004');
SELECT is(pg_temp.tell('child', 'ledger_transition(@job, ''started'', ''charge'')'), 'ok', 'G6: child: failed_retryable to started');
SELECT is(pg_temp.tell('child', 'ledger_transition(@job, ''committed'', ''charge'', ''{"id": "ch_1"}'')'), 'ok', 'G6: child: started to committed');
SELECT is((SELECT side_effect_state FROM holdfast.attempt WHERE job_id = pg_temp.id('child')::text), 'started', 'G9: the evidence''s side_effect_state is the action''s own');
SELECT is_empty($$SELECT * FROM holdfast.verify_state() WHERE object = 'job ' || pg_temp.id('child')$$, 'and nothing is found that the events do not account for');
SELECT is(pg_temp.tell('child', format('ledger_transition(@job, %L, ''charge'')', state)), 'JQ004', 'G6: child: committed is final, not to ' || state)
FROM unnest(ARRAY['started', 'failed_retryable']) AS state;
SELECT results_eq($$SELECT e.effect, e.idempotency_key = holdfast.effect_key(s.idempotency_key, 'charge'), e.state, e.evidence
		FROM scene s, holdfast.effects(s.job_id, s.lease_id) e WHERE s.name = 'child'$$,
	$$VALUES ('charge', true, 'committed', '{"id": "ch_1"}'::jsonb)$$, 'effects() shows them to the holder of the lease');
SELECT is_empty($$SELECT * FROM holdfast.effects(pg_temp.id('child'), gen_random_uuid())$$, 'G2: and to nobody else');
SELECT is(pg_temp.tell('child', 'ledger_transition(@job, ''started'', ''mail'')'), 'ok', 'a second child');
SELECT is(pg_temp.tell('child', 'ledger_transition(@job, ''started'', ''log'')'), 'ok', 'a third child');
SELECT is(pg_temp.tell('child', 'fail(@job, ''Boom'', side_effect => ''none'')'), 'reconcile', 'G6: a failure with a started child is to be reconciled, whatever the parent sent');
SELECT results_eq($$SELECT l.effect, l.state FROM pg_temp.ledger l JOIN scene s ON s.idempotency_key = l.parent_key WHERE s.name = 'child' ORDER BY 1$$,
	$$VALUES ('charge', 'committed'), ('log', 'unknown'), ('mail', 'unknown')$$, 'G6: child: started to unknown by a failure; a committed one stays');
SELECT isnt(pg_temp.ledger('child'), 'unknown', 'the parent, of which nothing was sent, is not unknown');
SELECT is_empty('SELECT pg_temp.doubts()', 'G6: unknown_effect knows the children');
SELECT pg_temp.at(run_after) FROM pg_temp.job WHERE job_id = pg_temp.id('child') \g /dev/null
CREATE TEMPORARY TABLE context AS SELECT * FROM holdfast.claim('child', 'w');
UPDATE scene SET lease_id = (SELECT lease_id FROM context) WHERE name = 'child';
SELECT results_eq($$SELECT attempt_number, mode, effects -> 'charge' ->> 'state', effects -> 'mail' ->> 'state', effects -> 'log' ->> 'state',
		effects -> 'charge' -> 'evidence' FROM context$$,
	$$VALUES (2, 'reconcile', 'committed', 'unknown', 'unknown', '{"id": "ch_1"}'::jsonb)$$,
	'G6: a job with an unknown child is in mode reconcile, and the claim says what is known of each');
SELECT is(pg_temp.tell('child', 'complete(@job)'), 'JQ003', 'G6: complete is refused while a child is unknown');
SELECT is(pg_temp.tell('child', call), 'JQ004', 'G6: with an unknown child, JQ004: ' || call) FROM unnest(ARRAY['snooze(@job, ''30 s'')', 'release(@job)']) AS call;
SELECT is(pg_temp.tell('child', format('ledger_transition(@job, %L, ''mail'')', state)), 'JQ004', 'G6: child: unknown to ' || state || ' only by a finding')
FROM unnest(ARRAY['started', 'committed', 'failed_retryable']) AS state;
SELECT is(pg_temp.tell('child', 'reconcile(@job, ''landed'', NULL, ''charge'')'), 'JQ004', 'G6: a committed child is not reconciled');
SELECT is(pg_temp.tell('child', 'reconcile(@job, ''landed'', NULL, ''nothing'')'), 'JQ004', 'G6: nor one that is not there');
SELECT is(pg_temp.tell('child', 'reconcile(@job, ''landed'', ''{"id": "m_1"}'', ''mail'')'), 'reconcile', 'G6: a finding about one child, while another is unknown, answers reconcile');
SELECT is(pg_temp.ledger('child', 'mail'), 'committed', 'G6: child: unknown to committed: reconcile landed');
SELECT is((SELECT side_effect_state FROM holdfast.attempt WHERE job_id = pg_temp.id('child')::text AND attempt_number = 2), pg_temp.ledger('child'), 'G9: also after a finding about a child');
SELECT is_empty($$SELECT * FROM holdfast.verify_state() WHERE object = 'job ' || pg_temp.id('child')$$, 'and the events account for all');
SELECT is(pg_temp.tell('child', 'reconcile(@job, ''not_landed'', NULL, ''log'')'), 'execute', 'G6: the last one settled answers execute');
SELECT is(pg_temp.ledger('child', 'log'), 'failed_retryable', 'G6: child: unknown to failed_retryable: reconcile not_landed');
SELECT is(pg_temp.state('child'), 'running, execute, ledger started', 'G6: the parent becomes started, in mode execute under the same lease');
SELECT is(pg_temp.tell('child', 'ledger_transition(@job, ''started'', ''log'')'), 'ok', 'the one that had not landed is done again');
SELECT is(pg_temp.tell('child', 'ledger_transition(@job, ''committed'', ''log'')'), 'ok', 'and lands');
SELECT is(pg_temp.tell('child', 'complete(@job)'), 'completed', 'G6: with every child settled, complete is accepted');
SELECT is(pg_temp.state('child'), 'gone, ledger committed', 'the whole action is committed');

-- a parent committed by ledger_transition

SELECT pg_temp.committed('p-child') \g /dev/null
SELECT is(pg_temp.tell('p-child', 'ledger_transition(@job, ''started'', ''mail'')'), 'ok', 'a child of a parent that is committed');
SELECT is(pg_temp.tell('p-child', 'complete(@job)'), 'JQ003', 'G6: complete is refused while it is started');
SELECT pg_temp.at(pg_temp.clock() + '90 s') \g /dev/null
SELECT is(pg_temp.claimed('p-child'), 'none', 'the lease is lost');
SELECT is(pg_temp.state('p-child'), 'pending, reconcile, ledger committed', 'G6: a job with any unknown effect is in mode reconcile');
SELECT is((SELECT run_after FROM pg_temp.job WHERE job_id = pg_temp.id('p-child')), pg_temp.clock() + '60 s',
	'G6: after a lost lease a child, too, waits reconcile_delay: the old request may still be on its way');
SELECT is(pg_temp.again('p-child'), 'attempt 2, reconcile', 'its next attempt');
SELECT is(pg_temp.tell('p-child', 'reconcile(@job, ''landed'', NULL, ''mail'')'), 'done', 'G6: with the last child settled and the parent committed, the job is done');
SELECT is(pg_temp.state('p-child'), 'gone, ledger committed', 'it ended as succeeded');

-- parent and child both unknown

SELECT pg_temp.started('both', 'p'), pg_temp.tell('both', 'ledger_transition(@job, ''started'', ''mail'')'), pg_temp.tell('both', 'fail(@job, ''Boom'')'), pg_temp.again('both') \g /dev/null
SELECT is(pg_temp.ledger('both') || pg_temp.ledger('both', 'mail'), 'unknownunknown', 'setting the scene: parent and child unknown');
SELECT is(pg_temp.tell('both', 'reconcile(@job, ''landed'')'), 'reconcile', 'G6: the parent landed, the child is unknown still');
SELECT is(pg_temp.state('both'), 'running, reconcile, ledger committed', 'G6: so the job goes on');
SELECT is(pg_temp.tell('both', 'complete(@job)'), 'JQ003', 'G6: and is not to be completed');
SELECT is(pg_temp.tell('both', 'reconcile(@job, ''not_landed'', NULL, ''mail'')'), 'done', 'G6: a job whose ledger is committed ends as succeeded');
SELECT is(pg_temp.ledger('both', 'mail'), 'failed_retryable', 'with its child as found');
SELECT pg_temp.started('both2', 'p'), pg_temp.tell('both2', 'ledger_transition(@job, ''started'', ''mail'')'), pg_temp.tell('both2', 'fail(@job, ''Boom'')'), pg_temp.again('both2') \g /dev/null
SELECT is(pg_temp.tell('both2', 'reconcile(@job, ''not_landed'', NULL, ''mail'')'), 'reconcile', 'G6: the child did not land, the parent is unknown still');
SELECT is(pg_temp.state('both2'), 'running, reconcile, ledger unknown', 'G6: no path to execution');
SELECT is(pg_temp.tell('both2', 'reconcile(@job, ''not_landed'')'), 'execute', 'G6: until the parent, too, is found');
SELECT is(pg_temp.state('both2'), 'running, execute, ledger started', 'G6: then it executes');
SELECT pg_temp.started('op-child', 'p'), pg_temp.tell('op-child', 'ledger_transition(@job, ''started'', ''mail'')'), pg_temp.tell('op-child', 'fail(@job, ''Boom'')') \g /dev/null
SELECT is(pg_temp.tell('op-child', 'settle_unknown(@key, ''not_landed'', ''{}'', ''r'')'), 'failed_retryable', 'an operator finds the parent, and not the child');
SELECT alike(pg_temp.state('op-child'), 'pending, reconcile,%', 'G6: a job with any unknown effect stays in mode reconcile');
SELECT is(pg_temp.tell('op-child', 'settle_unknown(holdfast.effect_key(@key, ''mail''), ''not_landed'', ''{}'', ''r'')'), 'failed_retryable', 'and then the child, by its own key');
SELECT alike(pg_temp.state('op-child'), 'pending, execute,%', 'G6: only then the job executes');

-- a job that was enqueued under the key of another's effect

SELECT pg_temp.started('payment'), holdfast.create_queue('charge') \g /dev/null
SELECT is((SELECT outcome FROM scene, holdfast.enqueue('charge', 'act', 'charge', idempotency_key => holdfast.effect_key(scene.idempotency_key, 'charge')) WHERE name = 'payment'),
	'created', 'nothing keeps a producer from it');
SELECT is(pg_temp.tell('payment', 'ledger_transition(@job, ''started'', ''charge'')'), 'JQ007', 'G5: the effect cannot take the job''s ledger row');
SELECT is(pg_temp.claimed('charge'), 'attempt 1, execute', 'G10: and the job is handed out');
SELECT is(pg_temp.tell('payment', 'ledger_transition(@job, ''committed'', ''charge'')'), 'JQ007', 'nor can the effect end it');
SELECT pg_temp.tell('charge', 'fail(@job, ''Boom'')'), pg_temp.tell('payment', 'fail(@job, ''Boom'')'), pg_temp.again('payment') \g /dev/null
SELECT is(pg_temp.tell('payment', 'reconcile(@job, ''landed'', NULL, ''charge'')'), 'JQ007', 'G6: nor say what became of it');
SELECT is(pg_temp.state('charge'), 'pending, reconcile, ledger unknown', 'G6: it is its own');
SELECT is(pg_temp.again('charge'), 'attempt 2, reconcile', 'and asks for itself');
SELECT is(pg_temp.tell('charge', 'reconcile(@job, ''landed'')'), 'done', 'and ends');
SELECT is_empty('SELECT pg_temp.doubts()', 'G6: unknown_effect has kept step to the end');

-- more evidence of child effects than a claim answers

SELECT pg_temp.started('laden', 'p') \g /dev/null
SELECT pg_temp.tell('laden', format('ledger_transition(@job, ''started'', ''mail %s'', to_jsonb(repeat(''x'', 6000000)))', n)) FROM generate_series(1, 3) n \g /dev/null
SELECT pg_temp.tell('laden', 'fail(@job, ''Boom'')') \g /dev/null
SELECT pg_temp.at(pg_temp.clock() + '60 s') \g /dev/null
CREATE TEMPORARY TABLE laden AS SELECT * FROM holdfast.claim('laden', 'w');
SELECT is((SELECT string_agg(key || ' ' || CASE WHEN value ? 'evidence' THEN 'told' ELSE value ->> 'evidence_left_out' END, ', ' ORDER BY value ? 'evidence' DESC) FROM laden, jsonb_each(effects))
	~ '^mail . told, mail . told, mail . true$', true, 'what is too much evidence for a claim is left out of it');
SELECT is((SELECT count(*) FROM laden l, holdfast.effects(l.job_id, l.lease_id) e WHERE length(e.evidence #>> '{}') = 6000000), 3::bigint, 'and effects() has it');

-- the row of an action is gone, by other hands, and an effect of it is unknown

SELECT pg_temp.started('headless'), pg_temp.tell('headless', 'ledger_transition(@job, ''started'', ''mail'')'), pg_temp.tell('headless', 'fail(@job, ''Boom'')'),
	pg_temp.planted('ledger', 'DELETE FROM holdfast.ledger WHERE subject = ''headless'' AND effect IS NULL') \g /dev/null
SET LOCAL statement_timeout = '10 s';
SELECT is(pg_temp.tell('headless', 'settle_unknown(holdfast.effect_key(@key, ''mail''), ''landed'', ''{}'', ''r'')'), 'JQ004', 'what is missing is said, and not waited for');

SELECT * FROM finish();
ROLLBACK;
