\i test/setup.sql
\i test/tools.sql
-- Reconciling: what each finding leads to, and that nothing but a finding leads from unknown to execution.
SELECT plan(217);

SELECT pg_temp.at('00:00:00') \g /dev/null
SELECT holdfast.define_retry_policy('p', '10 s', backoff_rate => 1, jitter_window => '0', min_delay => '1 s', max_attempts => 3,
	reconcile_delay => '60 s', reconcile_max => 2) \g /dev/null
SELECT holdfast.define_retry_policy('slow', '5 min', backoff_rate => 1, jitter_window => '0', min_delay => '1 s', max_attempts => 3,
	reconcile_delay => '60 s', reconcile_max => 2) \g /dev/null
SELECT holdfast.define_retry_policy('once', '10 s', backoff_rate => 1, jitter_window => '0', min_delay => '1 s', max_attempts => 1,
	reconcile_delay => '60 s') \g /dev/null

-- a call about the scene's job: its first column, or the SQLSTATE
CREATE FUNCTION pg_temp.tell(name text, call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	answer	text;
BEGIN
	EXECUTE (SELECT replace(replace(replace(replace('SELECT * FROM holdfast.' || call, '@job', format('%L::bigint, %L::uuid', s.job_id, s.lease_id)),
									'@old', format('%L::bigint, %L::uuid', s.job_id, s.old_lease_id)),
									'@id', format('%L::bigint', s.job_id)), '@key', format('%L::uuid', s.idempotency_key))
			 FROM scene s WHERE s.name = tell.name) INTO answer;
	RETURN answer;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END
$$;
CREATE FUNCTION pg_temp.due(name text) RETURNS interval LANGUAGE sql AS $$
	SELECT j.run_after - pg_temp.clock() FROM holdfast.job j JOIN scene s USING (job_id) WHERE s.name = $1
$$;
COMMENT ON FUNCTION pg_temp.due(text) IS 'how long from now until the scene''s job is due';
CREATE FUNCTION pg_temp.later(by interval) RETURNS timestamptz LANGUAGE sql AS $$ SELECT pg_temp.at(pg_temp.clock() + $1) $$;
-- the scene's job, unknown and claimed again in mode reconcile
CREATE FUNCTION pg_temp.doubtful(name text, policy text DEFAULT 'p', options jsonb DEFAULT '{}') RETURNS text LANGUAGE sql AS $$
	SELECT pg_temp.started($1, $2, true, $3);
	SELECT pg_temp.tell($1, 'fail(@job, ''Boom'')');
	SELECT pg_temp.again($1)
$$;

-- when a job with an unknown effect comes back

SELECT pg_temp.started('delay', 'p') \g /dev/null
SELECT results_eq($$SELECT decision, delay_ms, next_not_before FROM holdfast.fail(pg_temp.id('delay'), pg_temp.lease('delay'), 'Boom')$$,
	$$VALUES ('reconcile', 10000::bigint, '2030-01-01 00:00:10+00'::timestamptz)$$, 'G3: after a failure, the first claim in mode reconcile is at the policy''s delay');
SELECT pg_temp.later('9.999 s') \g /dev/null
SELECT is(pg_temp.claimed('delay'), 'none', 'G9: not claimable one millisecond early');
SELECT pg_temp.later('1 ms') \g /dev/null
SELECT is(pg_temp.claimed('delay'), 'attempt 2, reconcile', 'G9: claimable on the millisecond, in mode reconcile');
SELECT is(pg_temp.tell('delay', 'fail(@job, ''ProviderDown'')'), 'reconcile', 'that attempt fails');
SELECT is(pg_temp.due('delay'), '60 s', 'G4: later ones at reconcile_delay');
SELECT is((SELECT failures FROM pg_temp.job WHERE job_id = pg_temp.id('delay')), 1, 'G4: a failure in mode reconcile is not charged to the budget of execution');
SELECT is((SELECT reconciles FROM pg_temp.job WHERE job_id = pg_temp.id('delay')), 1, 'G4: but to reconcile_max');
SELECT alike(pg_temp.events('delay'), 'attempt_started, attempt_failed, reconcile_scheduled, attempt_started, attempt_failed, reconcile_scheduled', 'G7: each is on record');

SELECT pg_temp.started('lost', 'p') \g /dev/null
SELECT pg_temp.later('90 s') \g /dev/null
SELECT is(pg_temp.claimed('lost'), 'none', 'a lost lease');
SELECT is(pg_temp.due('lost'), '60 s', 'G3: after a lost lease, reconcile_delay if that is the longer');
SELECT is(pg_temp.again('lost'), 'attempt 2, reconcile', 'then it is claimed in mode reconcile');
SELECT pg_temp.later('90 s') \g /dev/null
SELECT is(pg_temp.claimed('lost'), 'none', 'a lost lease in mode reconcile');
SELECT is(pg_temp.due('lost'), '60 s', 'G4: again at reconcile_delay');
SELECT is((SELECT reconciles FROM pg_temp.job WHERE job_id = pg_temp.id('lost')), 1, 'G4: a lost attempt in mode reconcile counts against reconcile_max');
SELECT pg_temp.started('lost-slow', 'slow') \g /dev/null
SELECT pg_temp.later('100 s') \g /dev/null
SELECT is(pg_temp.claimed('lost-slow'), 'none', 'a lost lease under a slow policy');
SELECT is(pg_temp.due('lost-slow'), '5 min', 'G3: after a lost lease, the policy''s delay if that is the longer, counted from the discovery');
SELECT results_eq($$SELECT at, lease_expires_at FROM pg_temp.evidence WHERE job_id = pg_temp.id('lost-slow') AND kind = 'action_attempt_lost'$$,
	$$SELECT pg_temp.clock(), pg_temp.clock() - interval '10 s'$$, 'G7: the event has both times');

-- landed

SELECT is(pg_temp.doubtful('landed'), 'attempt 2, reconcile', 'setting the scene');
SELECT is(pg_temp.tell('landed', 'complete(@job)'), 'JQ003', 'G6: complete is refused before a finding');
SELECT is(pg_temp.state('landed'), 'running, reconcile, ledger unknown', 'G6: and changes nothing');
SELECT results_eq($$SELECT * FROM holdfast.reconcile(pg_temp.id('landed'), pg_temp.lease('landed'), 'landed', '{"message_id": "m-1"}')$$,
	$$VALUES ('done', NULL::timestamptz, NULL::timestamptz, NULL::timestamptz)$$, 'G6: landed settles the job');
SELECT is(pg_temp.state('landed'), 'gone, ledger committed', 'G6: it ended as succeeded');
SELECT is((SELECT evidence FROM pg_temp.ledger l JOIN scene s USING (idempotency_key) WHERE s.name = 'landed'), '{"message_id": "m-1"}'::jsonb, 'the ledger keeps the evidence');
SELECT results_eq($$SELECT worker_result, side_effect_state, detail -> 'evidence' FROM pg_temp.evidence WHERE job_id = pg_temp.id('landed') AND kind = 'action_reconciled'$$,
	$$VALUES ('landed', 'committed', '{"message_id": "m-1"}'::jsonb)$$, 'G7: and so does the event');
SELECT is(pg_temp.tell('landed', 'complete(@job)'), 'duplicate', 'G2: a complete that follows is a duplicate, not an error');
SELECT ok(pg_temp.tell('landed', 'reconcile(@job, ''landed'')') IN ('done', 'duplicate'), 'G2: the same finding again is answered by the first');
SELECT is(pg_temp.tell('landed', 'reconcile(@job, ''not_landed'')'), 'conflict', 'G2: another finding is a conflict');
SELECT is(pg_temp.tell('landed', 'reconcile(@job, ''undetermined'')'), 'conflict', 'G2: and so is this one');
SELECT is(pg_temp.tell('landed', 'fail(@job, ''Boom'')'), 'conflict', 'G2: and a failure');
SELECT is(pg_temp.state('landed'), 'gone, ledger committed', 'G2: the first stands');
SELECT is((SELECT outcome FROM holdfast.enqueue('landed', 'act', 'landed')), 'already_committed', 'G5: and the intent is known to be done');

-- not_landed

SELECT is(pg_temp.doubtful('not'), 'attempt 2, reconcile', 'setting the scene');
SELECT pg_temp.later('30 s') \g /dev/null
SELECT results_eq($$SELECT * FROM holdfast.reconcile(pg_temp.id('not'), pg_temp.lease('not'), 'not_landed')$$,
	$$SELECT 'execute', NULL::timestamptz, pg_temp.clock() + interval '90 s', pg_temp.clock() + interval '60 s'$$,
	'G6: not_landed answers execute, and renews the lease and the deadline as a claim would');
SELECT is(pg_temp.state('not'), 'running, execute, ledger started', 'G6: mode and ledger follow, under the same lease');
SELECT is((SELECT lease_expires_at - pg_temp.clock() FROM pg_temp.job WHERE job_id = pg_temp.id('not')), '90 s', 'G8: the lease that is stored is the one answered');
SELECT pg_temp.later('10 s') \g /dev/null
SELECT results_eq($$SELECT outcome, lease_expires_at FROM holdfast.reconcile(pg_temp.id('not'), pg_temp.lease('not'), 'not_landed')$$,
	$$SELECT 'execute', pg_temp.clock() + interval '80 s'$$, 'G2: the same finding again answers with the first outcome and the present end of the lease');
SELECT is((SELECT outcome FROM holdfast.heartbeat(pg_temp.id('not'), pg_temp.lease('not'))), 'extended', 'the attempt goes on');
SELECT results_eq($$SELECT outcome, lease_expires_at FROM holdfast.reconcile(pg_temp.id('not'), pg_temp.lease('not'), 'not_landed')$$,
	$$SELECT 'execute', pg_temp.clock() + interval '90 s'$$, 'G2: the end as the heartbeat left it');
SELECT is(pg_temp.tell('not', 'reconcile(@job, ''landed'')'), 'conflict', 'G2: another finding under the lease is a conflict');
SELECT is(pg_temp.tell('not', 'reconcile(@job, ''undetermined'')'), 'conflict', 'G2: and so is this one');
SELECT is(pg_temp.state('not'), 'running, execute, ledger started', 'G2: the first stands');
SELECT is(pg_temp.tell('not', 'complete(@job)'), 'completed', 'G6: complete is accepted after the finding');
SELECT is(pg_temp.state('not'), 'gone, ledger committed', 'done');

SELECT pg_temp.doubtful('long') \g /dev/null
SELECT is(pg_temp.tell('long', 'snooze(@job, ''1 s'')'), 'snoozed', 'setting the scene');
SELECT pg_temp.at(run_after) FROM pg_temp.job WHERE job_id = pg_temp.id('long') \g /dev/null
UPDATE scene SET lease_id = c.lease_id FROM holdfast.claim('long', 'w', lease => '1 h') AS c WHERE name = 'long';
SELECT results_eq($$SELECT outcome, lease_expires_at, deadline_at FROM holdfast.reconcile(pg_temp.id('long'), pg_temp.lease('long'), 'not_landed')$$,
	$$SELECT 'execute', pg_temp.clock() + interval '1 h', pg_temp.clock() + interval '60 s'$$, 'G8: not_landed never shortens a lease');
SELECT is(pg_temp.tell('long', 'fail(@job, ''Boom'')'), 'reconcile', 'the execution that follows fails, its effect unknown');
SELECT is(pg_temp.state('long'), 'pending, reconcile, ledger unknown', 'G6: and is to be reconciled anew');
SELECT is((SELECT failures FROM pg_temp.job WHERE job_id = pg_temp.id('long')), 2, 'G4: that was mode execute, and is charged');
SELECT is(pg_temp.due('long'), '10 s', 'G4: and comes back at the policy''s delay');
SELECT is(pg_temp.again('long'), 'attempt 4, reconcile', 'the next attempt');
SELECT is(pg_temp.tell('long', 'reconcile(@job, ''landed'')'), 'done', 'G2: under another lease another finding is not a conflict');

SELECT pg_temp.doubtful('upto', 'p', jsonb_build_object('give_up_at', pg_temp.clock() + '40 s')) \g /dev/null
SELECT results_eq($$SELECT outcome, deadline_at FROM holdfast.reconcile(pg_temp.id('upto'), pg_temp.lease('upto'), 'not_landed')$$,
	$$SELECT 'execute', pg_temp.clock() + interval '30 s'$$, 'G4: the new deadline is at most give_up_at');

-- not_landed, but no more execution

SELECT pg_temp.doubtful('past', 'p', jsonb_build_object('give_up_at', pg_temp.clock() + '15 s')) \g /dev/null
SELECT pg_temp.later('5 s') \g /dev/null
SELECT results_eq($$SELECT outcome, lease_expires_at, deadline_at FROM holdfast.reconcile(pg_temp.id('past'), pg_temp.lease('past'), 'not_landed')$$,
	$$VALUES ('dead', NULL::timestamptz, NULL::timestamptz)$$, 'G4: not_landed at give_up_at ends the job');
SELECT is(pg_temp.state('past'), 'dead (deadline), ledger failed_terminal', 'G4: with that reason');
SELECT is(pg_temp.doubtful('budget', 'once'), 'attempt 2, reconcile', 'G4: with its budget used up, and its effect unknown, a job is reconciled first');
SELECT is(pg_temp.tell('budget', 'reconcile(@job, ''not_landed'')'), 'dead', 'G4: not_landed without budget ends the job');
SELECT is(pg_temp.state('budget'), 'dead (budget), ledger failed_terminal', 'G4: with that reason');
SELECT ok(pg_temp.tell('budget', 'reconcile(@job, ''not_landed'')') IN ('dead', 'duplicate'), 'G2: the same finding again is answered by the first');
SELECT pg_temp.doubtful('saved', 'once') \g /dev/null
SELECT is(pg_temp.tell('saved', 'reconcile(@job, ''landed'')'), 'done', 'G4: landed needs no budget');
SELECT pg_temp.started('terminal', 'p') \g /dev/null
SELECT is(pg_temp.tell('terminal', 'fail(@job, ''ValidationError'', side_effect => ''unknown'')'), 'reconcile', 'G6: a terminal class with an unknown effect is reconciled first');
SELECT is(pg_temp.due('terminal'), '10 s', 'G3: at the policy''s delay');
SELECT is(pg_temp.again('terminal'), 'attempt 2, reconcile', 'it is claimed in mode reconcile');
SELECT is(pg_temp.tell('terminal', 'reconcile(@job, ''undetermined'')'), 'retry', 'the provider cannot say yet');
SELECT is(pg_temp.again('terminal'), 'attempt 3, reconcile', 'it is asked once more');
SELECT is(pg_temp.tell('terminal', 'reconcile(@job, ''not_landed'')'), 'dead', 'G4: then dead by terminal, though there is budget');
SELECT is(pg_temp.state('terminal'), 'dead (terminal), ledger failed_terminal', 'G4: with that reason');
SELECT pg_temp.started('terminal2', 'p'), pg_temp.tell('terminal2', 'fail(@job, ''ValidationError'', side_effect => ''unknown'')'), pg_temp.again('terminal2') \g /dev/null
SELECT is(pg_temp.tell('terminal2', 'reconcile(@job, ''landed'')'), 'done', 'G14: and if it landed, the job ended as succeeded');
SELECT pg_temp.started('nogiveup', 'p', true, jsonb_build_object('give_up_at', pg_temp.clock() + '5 s')) \g /dev/null
SELECT is(pg_temp.tell('nogiveup', 'fail(@job, ''Boom'')'), 'reconcile', 'G4: give_up_at bounds execution, not reconciling');
SELECT pg_temp.later('1 h') \g /dev/null
SELECT is(pg_temp.claimed('nogiveup'), 'attempt 2, reconcile', 'G4: in mode reconcile give_up_at is not looked at');
SELECT is(pg_temp.tell('nogiveup', 'reconcile(@job, ''undetermined'')'), 'retry', 'nor by undetermined');
SELECT is(pg_temp.due('nogiveup'), '60 s', 'G4: it has its own delay');

-- undetermined

SELECT pg_temp.doubtful('undet') \g /dev/null
CREATE TEMPORARY TABLE said AS SELECT * FROM holdfast.reconcile(pg_temp.id('undet'), pg_temp.lease('undet'), 'undetermined', '{"looked": true}');
SELECT results_eq('SELECT outcome, next_not_before, lease_expires_at, deadline_at FROM said',
	$$SELECT 'retry', pg_temp.clock() + interval '60 s', NULL::timestamptz, NULL::timestamptz$$, 'G3: undetermined ends the attempt, and comes back after reconcile_delay');
SELECT is(pg_temp.state('undet'), 'pending, reconcile, ledger unknown', 'G6: in mode reconcile');
SELECT is(pg_temp.due('undet'), '60 s', 'G3: stored');
SELECT pg_temp.later('1 s') \g /dev/null
SELECT results_eq($$SELECT outcome IN ('retry', 'duplicate'), next_not_before FROM holdfast.reconcile(pg_temp.id('undet'), pg_temp.lease('undet'), 'undetermined')$$,
	$$SELECT true, next_not_before FROM said$$, 'G2: the same finding again: the first outcome is returned');
SELECT is(pg_temp.tell('undet', 'reconcile(@job, ''landed'')'), 'conflict', 'G2: another finding under the ended attempt''s lease is a conflict');
SELECT is(pg_temp.state('undet'), 'pending, reconcile, ledger unknown', 'G2: the first stands');
SELECT is(pg_temp.again('undet'), 'attempt ' || n || ', reconcile', 'undetermined, round ' || n) || E'\n' ||
	   is(pg_temp.tell('undet', 'reconcile(@job, ''undetermined'')'), 'retry', 'G4: undetermined does not count against reconcile_max, round ' || n)
FROM generate_series(3, 7) AS n;
SELECT results_eq($$SELECT failures, reconciles, attempt_number FROM pg_temp.job WHERE job_id = pg_temp.id('undet')$$, $$VALUES (1, 0, 7)$$,
	'G4: undetermined counts neither for failures nor for reconcile_max');
SELECT is(pg_temp.again('undet'), 'attempt 8, reconcile', 'the next attempt');
SELECT is(pg_temp.tell('undet', 'reconcile(@old, ''landed'')'), 'conflict', 'G2: a finding under the lease before, which said undetermined, is a conflict');
SELECT is(pg_temp.tell('undet', 'reconcile(@job, ''landed'')'), 'done', 'a finding in the end');

-- reconcile_max

SELECT pg_temp.doubtful('max') \g /dev/null
SELECT is(pg_temp.tell('max', 'snooze(@job, ''1 s'')'), 'snoozed', 'a snooze in mode reconcile');
SELECT is(pg_temp.again('max'), 'attempt 3, reconcile', 'keeps mode and ledger');
SELECT is((SELECT reconciles FROM pg_temp.job WHERE job_id = pg_temp.id('max')), 0, 'G4: and counts against nothing');
SELECT is(pg_temp.tell('max', 'fail(@job, ''ValidationError'', side_effect => ''none'')'), 'reconcile', 'the first failure; no class ends a job in mode reconcile');
SELECT is(pg_temp.again('max'), 'attempt 4, reconcile', 'the second attempt that counts');
SELECT results_eq($$SELECT decision, reason, next_not_before FROM holdfast.fail(pg_temp.id('max'), pg_temp.lease('max'), 'ProviderDown')$$,
	$$VALUES ('dead', 'unresolved', NULL::timestamptz)$$, 'G4: reconcile_max used up: dead, unresolved');
SELECT is(pg_temp.state('max'), 'dead (unresolved), ledger unknown', 'G6: with the ledger unknown');
SELECT is((SELECT count(*) FROM holdfast.unknown_effect u JOIN scene s USING (idempotency_key) WHERE s.name = 'max'), 1::bigint, 'G14: and known to be so');
SELECT is((SELECT unknown_effects FROM holdfast.metrics('max')), 1::bigint, 'G4: it shows in metrics');
SELECT is((SELECT outcome FROM holdfast.enqueue('max', 'act', 'max')), 'unknown_effect', 'G6: enqueueing the intent again creates nothing');
SELECT is((SELECT payload FROM pg_temp.dead_job WHERE job_id = pg_temp.id('max')), '{}'::jsonb, 'it is kept with its payload');
SELECT is(pg_temp.tell('max', 'redrive(@id, ''provider is back'')'), 'redriven', 'an operator redrives it');
SELECT results_eq($$SELECT status, mode, reconciles, failures FROM pg_temp.job WHERE job_id = pg_temp.id('max')$$, $$VALUES ('pending', 'reconcile', 0, 0)$$,
	'G6: redrive is no finding: it is reconciled again, its counters from 0');
SELECT is(pg_temp.again('max'), 'attempt 5, reconcile', 'attempt_number goes on');

-- what else counts against reconcile_max, and what ends nothing in mode reconcile

SELECT holdfast.define_retry_policy('free', '10 s', backoff_rate => 1, jitter_window => '0', min_delay => '1 s', max_attempts => 3,
	lost_lease_counts => false, reconcile_delay => '60 s', reconcile_max => 2) \g /dev/null
SELECT pg_temp.started('free', 'free'), pg_temp.later('90 s'), pg_temp.claimed('free'), pg_temp.again('free') \g /dev/null
SELECT results_eq($$SELECT mode, failures, losses, reconciles FROM pg_temp.job WHERE job_id = pg_temp.id('free')$$, $$VALUES ('reconcile', 0, 1, 0)$$, 'G4: a lost lease that is not charged leaves the effect unknown, too');
SELECT pg_temp.later('90 s'), pg_temp.claimed('free'), pg_temp.again('free') \g /dev/null
SELECT results_eq($$SELECT mode, failures, losses, reconciles FROM pg_temp.job WHERE job_id = pg_temp.id('free')$$, $$VALUES ('reconcile', 0, 2, 1)$$,
	'G4: in mode reconcile a lost attempt counts against reconcile_max, charged or not');
SELECT pg_temp.later('90 s'), pg_temp.claimed('free') \g /dev/null
SELECT is(pg_temp.state('free'), 'dead (unresolved), ledger unknown', 'G4: and uses it up');
SELECT holdfast.define_retry_policy('crash', '10 s', backoff_rate => 1, jitter_window => '0', min_delay => '1 s', max_attempts => 9, max_lost => 1, reconcile_delay => '60 s') \g /dev/null
SELECT pg_temp.started('crash', 'crash'), pg_temp.later('90 s'), pg_temp.claimed('crash') \g /dev/null
SELECT is(pg_temp.state('crash'), 'pending, reconcile, ledger unknown', 'G6: max_lost used up, but the effect unknown: reconciled first');
SELECT pg_temp.again('crash'), pg_temp.later('90 s'), pg_temp.claimed('crash') \g /dev/null
SELECT is(pg_temp.state('crash'), 'pending, reconcile, ledger unknown', 'G4: in mode reconcile max_lost ends nothing');
SELECT is(pg_temp.again('crash'), 'attempt 3, reconcile', 'it is claimed again');
SELECT is(pg_temp.tell('crash', 'reconcile(@job, ''not_landed'')'), 'dead', 'G4: and not_landed ends it');
SELECT is(pg_temp.state('crash'), 'dead (crash_loop), ledger failed_terminal', 'G4: with that reason');
SELECT pg_temp.doubtful('often') \g /dev/null
SELECT pg_temp.tell('often', 'snooze(@job, ''1 s'')'), pg_temp.again('often') FROM generate_series(1, 10) \g /dev/null
SELECT results_eq($$SELECT mode, reconciles, failures FROM pg_temp.job WHERE job_id = pg_temp.id('often')$$, $$VALUES ('reconcile', 0, 1)$$, 'G3: ten snoozes in a row are free');
SELECT is(pg_temp.tell('often', 'snooze(@job, ''1 s'')'), 'reconcile', 'G3: the eleventh is charged, as ReleasedTooOften');
SELECT results_eq($$SELECT mode, reconciles, failures, last_error_class FROM pg_temp.job WHERE job_id = pg_temp.id('often')$$, $$VALUES ('reconcile', 1, 1, 'ReleasedTooOften')$$,
	'G4: in mode reconcile against reconcile_max');
SELECT is((SELECT l.state FROM pg_temp.ledger l JOIN scene s USING (idempotency_key) WHERE s.name = 'often'), 'unknown', 'G6: its rule says none, and yet the ledger stays unknown');

-- late findings

SELECT pg_temp.doubtful('late-not') \g /dev/null
SELECT pg_temp.later('90 s') \g /dev/null
SELECT is(pg_temp.tell('late-not', 'reconcile(@job, ''not_landed'')'), 'stale', 'G2: not_landed grants the future: at the lease''s end it is stale');
SELECT is(pg_temp.state('late-not'), 'running, reconcile, ledger unknown', 'G2: and changes nothing');
SELECT is((SELECT count(*) FROM pg_temp.finding WHERE job_id = pg_temp.id('late-not') AND kind = 'stale'), 1::bigint, 'G2: but is on record');
SELECT is(pg_temp.tell('late-not', 'reconcile(@job, ''landed'')'), 'done', 'G2: landed reports the past: it counts as long as nobody noted the lease''s end');
SELECT is(pg_temp.state('late-not'), 'gone, ledger committed', 'G2: what is known to have happened is never thrown away');
SELECT results_eq($$SELECT (detail ->> 'late')::boolean FROM pg_temp.evidence WHERE job_id = pg_temp.id('late-not') AND kind = 'action_reconciled'$$, $$VALUES (true)$$, 'G2: marked late');
SELECT is((SELECT count(*) FROM pg_temp.finding WHERE job_id = pg_temp.id('late-not') AND kind LIKE 'late%'), 1::bigint, 'G2: and a finding');
SELECT pg_temp.doubtful('late-un') \g /dev/null
SELECT pg_temp.later('100 s') \g /dev/null
SELECT results_eq($$SELECT outcome, next_not_before FROM holdfast.reconcile(pg_temp.id('late-un'), pg_temp.lease('late-un'), 'undetermined')$$,
	$$SELECT 'retry', pg_temp.clock() + interval '60 s'$$, 'G2: undetermined reports the past, too');
SELECT pg_temp.doubtful('noted') \g /dev/null
SELECT pg_temp.later('90 s') \g /dev/null
SELECT pg_temp.claimed('noted') \g /dev/null
SELECT is(pg_temp.tell('noted', format('reconcile(@job, %L)', finding)), 'stale', 'G2: once the lease''s end is noted, stale: ' || finding) FROM unnest(ARRAY['landed', 'not_landed', 'undetermined']) AS finding;
SELECT is(pg_temp.state('noted'), 'pending, reconcile, ledger unknown', 'G2: which changes nothing');
SELECT pg_temp.again('noted') \g /dev/null
SELECT is(pg_temp.tell('noted', format('reconcile(@old, %L)', finding)), 'stale', 'G2: under a lease before the current one, stale: ' || finding) FROM unnest(ARRAY['landed', 'not_landed', 'undetermined']) AS finding;
SELECT is((SELECT outcome FROM holdfast.reconcile(pg_temp.id('noted'), gen_random_uuid(), 'landed')), 'stale', 'G2: a lease that was never granted is stale');
SELECT is((SELECT outcome FROM holdfast.reconcile(9000000000000000000, gen_random_uuid(), 'landed')), 'unknown_job', 'G2: a job that never was is unknown_job');
SELECT is(pg_temp.state('noted'), 'running, reconcile, ledger unknown', 'G2: none of these changed anything');

-- the request may still be on its way: a late landed about a child, with nothing else unknown, grants no execution

SELECT pg_temp.started('late-child', 'p'), pg_temp.tell('late-child', 'ledger_transition(@job, ''started'', ''mail'')'),
	pg_temp.tell('late-child', 'fail(@job, ''Boom'', side_effect => ''none'')'), pg_temp.again('late-child') \g /dev/null
SELECT pg_temp.later('90 s') \g /dev/null
SELECT isnt(pg_temp.tell('late-child', 'reconcile(@job, ''landed'', NULL, ''mail'')'), 'execute', 'G1: a late finding about the last child grants no execution under a lease that is over');
SELECT is((SELECT l.state FROM pg_temp.ledger l JOIN scene s ON l.parent_key = s.idempotency_key WHERE s.name = 'late-child'), 'committed', 'G2: but the child is known to have landed');

-- the arguments

SELECT pg_temp.doubtful('args') \g /dev/null
SELECT is(pg_temp.tell('args', call), state, 'reconcile is refused: ' || call) FROM (VALUES
	('reconcile(@job, NULL)', '22004'), ('reconcile(@job, ''Landed'')', '22023'), ('reconcile(@job, ''abandoned'')', '22023'), ('reconcile(@job, '''')', '22023'),
	('reconcile(NULL, gen_random_uuid(), ''landed'')', '22004'), ('reconcile(@id, NULL, ''landed'')', '22004'),
	('reconcile(@job, ''landed'', effect => repeat(''e'', 100000))', '22023'), ('reconcile(@job, ''landed'', effect => ''none'')', 'JQ004')
) AS v (call, state);
SELECT is(pg_temp.state('args'), 'running, reconcile, ledger unknown', 'a refused finding changes nothing');
SELECT throws_ok($$SELECT holdfast.define_retry_policy('bad', '1 s', min_delay => '2 min', reconcile_delay => '1 min')$$, '22023', NULL, 'G3: a reconcile_delay below min_delay is refused');

-- queues with reconcile => 'separate'

SELECT holdfast.create_queue('separate', retry_policy => 'p', reconcile => 'separate') \g /dev/null
SELECT holdfast.enqueue('separate', 'act', 'doubtful') \g /dev/null
SELECT pg_temp.claimed('separate') \g /dev/null
SELECT is(pg_temp.tell('separate', 'fail(@job, ''Boom'')'), 'reconcile', 'setting the scene');
SELECT holdfast.enqueue('separate', 'act', 'fresh') \g /dev/null
SELECT pg_temp.later('1 h') \g /dev/null
SELECT results_eq($$SELECT subject, mode FROM holdfast.claim('separate', 'w', 10)$$, $$VALUES ('fresh', 'execute')$$, 'a separate queue: modes all hands out execute jobs only');
SELECT is_empty($$SELECT * FROM holdfast.claim('separate', 'w', 10)$$, 'and nothing else, though one is due');
SELECT is_empty($$SELECT * FROM holdfast.claim('separate', 'w', 10, modes => 'execute')$$, 'nor does execute');
SELECT is_empty($$SELECT * FROM holdfast.claim_any(ARRAY['separate'], 'w', 10)$$, 'nor claim_any');
SELECT results_eq($$SELECT subject, mode FROM holdfast.claim('separate', 'w', 10, modes => 'reconcile')$$, $$VALUES ('doubtful', 'reconcile')$$, 'modes reconcile hands it out');
SELECT pg_temp.started('any', 'p'), pg_temp.tell('any', 'fail(@job, ''Boom'')') \g /dev/null
SELECT pg_temp.later('1 h') \g /dev/null
SELECT is_empty($$SELECT * FROM holdfast.claim('any', 'w', modes => 'execute')$$, 'in any queue modes execute leaves reconcile jobs');
SELECT results_eq($$SELECT mode FROM holdfast.claim('any', 'w')$$, $$VALUES ('reconcile')$$, 'and all hands them out, as reconcile');
SELECT throws_ok($$SELECT * FROM holdfast.claim('any', 'w', modes => 'both')$$, '22023', NULL, 'a mode that is not known is refused');

-- G6: every path from unknown, tried; none executes without a finding

CREATE TEMPORARY TABLE path (n int GENERATED ALWAYS AS IDENTITY, what text, calls text[]);
INSERT INTO path (what, calls) VALUES
	('time', '{}'),
	('fail, none', ARRAY['fail(@job, ''X'', side_effect => ''none'')']),
	('fail, landed', ARRAY['fail(@job, ''X'', side_effect => ''landed'')']),
	('fail, a class with none', ARRAY['fail(@job, ''RateLimitError'', retry_after => ''1 s'')']),
	('fail, a suppressing class', ARRAY['fail(@job, ''DuplicateActionError'')']),
	('fail, a terminal class', ARRAY['fail(@job, ''ValidationError'')']),
	('schedule_retry, none', ARRAY['schedule_retry(@job, ''1 s'', side_effect => ''none'')']),
	('snooze', ARRAY['snooze(@job, ''1 s'')']),
	('release', ARRAY['release(@job)']),
	('undetermined', ARRAY['reconcile(@job, ''undetermined'')']),
	('complete', ARRAY['complete(@job)']),
	('ledger_transition to started', ARRAY['ledger_transition(@job, ''started'')']),
	('ledger_transition to failed_retryable', ARRAY['ledger_transition(@job, ''failed_retryable'')']),
	('ledger_transition to committed', ARRAY['ledger_transition(@job, ''committed'')']),
	('heartbeat', ARRAY['heartbeat(@job)']),
	('a child of its own', ARRAY['ledger_transition(@job, ''started'', ''child'')']),
	('a request to cancel, then release', ARRAY['cancel(@id)', 'release(@job)']),
	('a request to cancel, then fail', ARRAY['cancel(@id)', 'fail(@job, ''X'', side_effect => ''none'')']),
	('a forced cancel, then redrive', ARRAY['cancel(@id, NULL, true)', 'redrive(@id, ''r'')']),
	('fail twice, then redrive', ARRAY['fail(@job, ''X'')', '', 'fail(@job, ''X'')', 'redrive(@id, ''r'')']),
	('release, cancel, redrive', ARRAY['release(@job)', 'cancel(@id)', 'redrive(@id, ''r'')']),
	('release, cancel, redrive_queue', ARRAY['release(@job)', 'cancel(@id)', 'redrive_queue(@queue, ''r'')']),
	('purge with the running ones, redrive', ARRAY['purge_queue(@queue, true)', 'redrive(@id, ''r'')']),
	('release, purge, redrive', ARRAY['release(@job)', 'purge_queue(@queue)', 'redrive(@id, ''r'')']),
	('enqueueing it again', ARRAY['enqueue(@queue, ''act'', @queue)']),
	('enqueueing it without side effects', ARRAY['enqueue(@queue, ''act'', @queue, side_effects => false)']),
	('enqueueing its key', ARRAY['enqueue(@queue, ''act'', @queue, idempotency_key => @key)']),
	('cancel, enqueue', ARRAY['cancel(@id, NULL, true)', 'enqueue(@queue, ''act'', @queue)']),
	('alter_queue to no side effects', ARRAY['alter_queue(@queue, side_effects => false)', 'release(@job)']),
	('pause, resume', ARRAY['release(@job)', 'pause_queue(@queue)', 'resume_queue(@queue)']);
CREATE FUNCTION pg_temp.walk(what text, child boolean) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	calls	CONSTANT text[] := (SELECT p.calls FROM path p WHERE p.what = walk.what);
	name	CONSTANT text := CASE WHEN child THEN 'child, ' ELSE '' END || walk.what;
	call	text;
	context	record;
	seen	text[] := '{}';
BEGIN
	IF child THEN
		PERFORM pg_temp.started(name, 'p');
		PERFORM pg_temp.tell(name, 'ledger_transition(@job, ''started'', ''mail'')');
		PERFORM pg_temp.tell(name, 'fail(@job, ''Boom'', side_effect => ''none'')');
		PERFORM pg_temp.again(name);
	ELSE
		PERFORM pg_temp.doubtful(name);
	END IF;
	FOREACH call IN ARRAY calls LOOP
		IF call = '' THEN
			PERFORM pg_temp.again(name);
		ELSE
			PERFORM pg_temp.tell(name, replace(call, '@queue', quote_literal(name)));
		END IF;
	END LOOP;
	FOR i IN 1 .. 4 LOOP
		PERFORM pg_temp.later('1 day');
		FOR context IN SELECT * FROM holdfast.claim(name, 'w', 10) LOOP
			seen := seen || context.mode;
		END LOOP;
	END LOOP;
	IF (SELECT l.state FROM pg_temp.ledger l, scene s WHERE s.name = CASE WHEN child THEN 'child, ' ELSE '' END || walk.what
			AND l.idempotency_key = CASE WHEN child THEN holdfast.effect_key(s.idempotency_key, 'mail') ELSE s.idempotency_key END) <> 'unknown' THEN
		RETURN 'not unknown any more';
	END IF;
	RETURN CASE WHEN 'execute' = ANY (seen) THEN 'executed' ELSE 'not executed' END;
END
$$;
SELECT is(pg_temp.walk(what, false), 'not executed', 'G6: no path from unknown to execution: ' || what) FROM path ORDER BY n;
SELECT is(pg_temp.walk(what, true), 'not executed', 'G6: nor with an unknown child: ' || what) FROM path ORDER BY n;
SELECT results_eq($$SELECT l.idempotency_key FROM holdfast.ledger l WHERE l.state = 'unknown' ORDER BY 1$$, 'SELECT idempotency_key FROM holdfast.unknown_effect ORDER BY 1',
	'G6: unknown_effect has kept step');

SELECT * FROM finish();
ROLLBACK;
