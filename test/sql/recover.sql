\i test/setup.sql
\i test/tools.sql
-- Jobs that stopped although their policy, as it is now, would have gone on.
SELECT plan(37);

SELECT pg_temp.at('00:00:00') \g /dev/null
SELECT holdfast.define_retry_policy('p', '10 s', 2, jitter_window => '0', min_delay => '1 s', max_attempts => 5, reconcile_max => 1, max_lost => 1, lost_lease_counts => false),
	holdfast.define_error_rule('p', 'Boom', 'retry', 'none'), holdfast.define_error_rule('p', 'Bad', 'terminal', 'none') \g /dev/null
SELECT pg_temp.started(name, 'p', options => options) FROM (VALUES ('terminal', '{}'::jsonb), ('budget', '{"max_attempts": 1}'), ('deadline', '{"give_up_at": "2030-01-01 00:00:05+00"}'),
	('unresolved', '{}'), ('abandoned', '{}'), ('fine', '{}'), ('none', '{}')) v (name, options) \g /dev/null
CREATE FUNCTION pg_temp.listed() RETURNS text LANGUAGE sql AS $$ SELECT string_agg(subject, ', ' ORDER BY subject) FROM holdfast.recoverable() WHERE source = 'native' $$;
CREATE FUNCTION pg_temp.maintained() RETURNS bigint LANGUAGE sql AS $$ SELECT done FROM holdfast.maintain() WHERE task = 'jobs recovered' $$;

SELECT holdfast.fail(pg_temp.id('terminal'), pg_temp.lease('terminal'), 'Bad'), holdfast.fail(pg_temp.id('budget'), pg_temp.lease('budget'), 'Boom'),
	holdfast.fail(pg_temp.id('deadline'), pg_temp.lease('deadline'), 'Boom'), holdfast.fail(pg_temp.id('unresolved'), pg_temp.lease('unresolved'), 'Boom', side_effect => 'unknown'),
	holdfast.fail(pg_temp.id('abandoned'), pg_temp.lease('abandoned'), 'Boom', side_effect => 'unknown'), holdfast.complete(pg_temp.id('fine'), pg_temp.lease('fine')),
	holdfast.fail(pg_temp.id('none'), pg_temp.lease('none'), 'Boom') \g /dev/null
SELECT holdfast.settle_unknown((SELECT idempotency_key FROM scene WHERE name = 'abandoned'), 'abandoned', '{}', 'test') \g /dev/null
SELECT pg_temp.again('unresolved') \g /dev/null
SELECT holdfast.fail(pg_temp.id('unresolved'), pg_temp.lease('unresolved'), 'Boom') \g /dev/null
SELECT pg_temp.at('00:01:30') \g /dev/null
SELECT is(pg_temp.state(name), state, 'the scene: ' || name) FROM (VALUES ('terminal', 'dead (terminal), ledger failed_terminal'), ('budget', 'dead (budget), ledger failed_terminal'),
	('deadline', 'dead (deadline), ledger failed_terminal'), ('unresolved', 'dead (unresolved), ledger unknown'), ('abandoned', 'dead (abandoned), ledger failed_terminal'),
	('none', 'pending, execute, ledger failed_retryable')) v (name, state);
SELECT is(pg_temp.listed(), NULL, 'G4: what its own policy ended is not recoverable');

-- the policy is another one now

SELECT holdfast.define_error_rule('p', 'Bad', 'retry', 'none') \g /dev/null
SELECT is(pg_temp.listed(), 'terminal', 'a class that may be retried now');
UPDATE holdfast.dead_job SET max_attempts = 4 WHERE job_id = pg_temp.id('budget');
SELECT is(pg_temp.listed(), 'budget, terminal', 'a budget that is larger now');
SELECT results_eq($$SELECT source, job_id::bigint, queue COLLATE "default", exception_class COLLATE "default", attempt_number, failures, max_attempts, stopped_by COLLATE "default", automatic, how
	FROM holdfast.recoverable() WHERE subject = 'budget'$$,
	$$VALUES ('native', pg_temp.id('budget'), 'budget', 'Boom', 1, 1, 4, 'budget', false, format('SELECT * FROM holdfast.redrive(%s, ''...'')', pg_temp.id('budget')))$$,
	'with its figures, and the call that puts it back');
SELECT is(pg_temp.maintained(), 0::bigint, 'maintain() leaves it to the operator');
SELECT is(pg_temp.state('budget'), 'dead (budget), ledger failed_terminal', 'where the queue does not say auto_recover');

-- auto_recover: once for each failure, after the policy's delay, with the budget that is left

SELECT holdfast.alter_queue('budget', auto_recover => true), holdfast.alter_queue('deadline', auto_recover => true), holdfast.alter_queue('unresolved', auto_recover => true),
	holdfast.alter_queue('abandoned', auto_recover => true) \g /dev/null
SELECT is((SELECT automatic FROM holdfast.recoverable() WHERE subject = 'budget'), true, 'the list says so');
SELECT is(pg_temp.maintained(), 1::bigint, 'maintain() recovers what is recoverable, and nothing else');
SELECT is(pg_temp.state('budget'), 'pending, execute, ledger planned', 'the job is back');
SELECT results_eq($$SELECT run_after - pg_temp.clock(), failures, attempt_number FROM pg_temp.job WHERE subject = 'budget'$$, $$VALUES (interval '10 s', 1, 1)$$,
	'G3: at the policy''s delay, G4: with the failures it was charged with');
SELECT results_eq($$SELECT delay_ms, next_not_before - pg_temp.clock(), retry_policy, detail ->> 'reason', detail ->> 'was_dead_by', detail ->> 'by' FROM pg_temp.evidence WHERE kind = 'action_redriven'$$,
	$$SELECT 10000::bigint, interval '10 s', 'p', 'auto_recover: retryable, with budget left', 'budget', current_user::text COLLATE "default"$$, 'G7: on record, with the decision');
SELECT is(pg_temp.maintained(), 0::bigint, 'never twice for one failure');
SELECT is_empty($$SELECT * FROM holdfast.claim('budget', 'w')$$, 'G3: not due before its time');
SELECT is(pg_temp.again('budget'), 'attempt 2, execute', 'then it is');
SELECT holdfast.fail(pg_temp.id('budget'), pg_temp.lease('budget'), 'Boom') \g /dev/null
SELECT is((SELECT run_after - pg_temp.clock() FROM pg_temp.job WHERE subject = 'budget'), interval '20 s', 'G4: failure 2 of 4 goes on where it was');
SELECT pg_temp.again('budget') \g /dev/null
SELECT holdfast.fail(pg_temp.id('budget'), pg_temp.lease('budget'), 'Boom') \g /dev/null
SELECT pg_temp.again('budget') \g /dev/null
SELECT is((SELECT decision || ' ' || reason FROM holdfast.fail(pg_temp.id('budget'), pg_temp.lease('budget'), 'Boom')), 'dead budget', 'G4: and ends with the fourth');
SELECT is(pg_temp.maintained(), 0::bigint, 'G4: a budget used up is not recovered again and again');

-- what must not come back by itself

SELECT is(pg_temp.state(name), state, 'left dead: ' || name) FROM (VALUES ('deadline', 'dead (deadline), ledger failed_terminal'), ('unresolved', 'dead (unresolved), ledger unknown'),
	('abandoned', 'dead (abandoned), ledger failed_terminal')) v (name, state);
SELECT holdfast.define_error_rule('p', 'Late', 'terminal', 'none') \g /dev/null
SELECT pg_temp.started('late', 'p', options => jsonb_build_object('give_up_at', pg_temp.clock() + interval '1 min')) \g /dev/null
SELECT holdfast.fail(pg_temp.id('late'), pg_temp.lease('late'), 'Late'), holdfast.define_error_rule('p', 'Late', 'retry', 'none') \g /dev/null
SELECT matches(pg_temp.listed(), 'late', 'before its give_up_at');
SELECT pg_temp.at(pg_temp.clock() + interval '1 min') \g /dev/null
SELECT is(pg_temp.listed(), 'terminal', 'G4: past its give_up_at it is not recoverable');
SELECT is((SELECT outcome FROM holdfast.redrive(pg_temp.id('terminal'), 'rule corrected')), 'redriven', 'redrive takes what is listed');
SELECT is((SELECT run_after - pg_temp.clock() || ' ' || failures FROM pg_temp.job WHERE subject = 'terminal'), '00:00:00 0', 'due now, its counters from 0, as always');
SELECT is(pg_temp.listed(), NULL, 'and then it is listed no more');

-- lost leases: as many as the policy allows, and then it allows more

SELECT pg_temp.started('crash', 'p', side_effects => false) \g /dev/null
SELECT pg_temp.at(pg_temp.clock() + interval '90 s') \g /dev/null
SELECT count(*) FROM holdfast.claim('crash', 'w') \g /dev/null
SELECT is(pg_temp.state('crash'), 'dead (crash_loop), ledger none', 'a job whose workers die');
SELECT is(pg_temp.listed(), NULL, 'G4: is not recoverable');
SELECT holdfast.define_retry_policy('p', '10 s', 2, jitter_window => '0', min_delay => '1 s', max_attempts => 5, max_lost => 2, lost_lease_counts => false) \g /dev/null
SELECT is(pg_temp.listed(), 'crash', 'until its policy allows one more');
SELECT holdfast.redrive(pg_temp.id('crash'), 'test') \g /dev/null

-- imported ones are reported

SELECT holdfast.import_attempts('loops', $$[
	{"job_id": "loop-4", "subject": "loop-4", "action_key": "review", "attempt_number": 3, "started_at": "2029-12-31 08:00:00+00", "finished_at": "2029-12-31 08:12:23+00",
	 "outcome": "timeout", "exception_class": "TimeoutError", "timeout_kind": "max_runtime", "timeout_ms": 21600000, "max_attempts": 5, "final": true, "stop_reason": "max_consecutive_failures"},
	{"job_id": "loop-5", "subject": "loop-5", "action_key": "review", "attempt_number": 5, "started_at": "2029-12-31 08:00:00+00", "finished_at": "2029-12-31 08:12:23+00",
	 "outcome": "timeout", "exception_class": "TimeoutError", "max_attempts": 5, "final": true},
	{"job_id": "loop-6", "subject": "loop-6", "action_key": "review", "attempt_number": 1, "started_at": "2029-12-31 08:00:00+00", "finished_at": "2029-12-31 08:12:23+00",
	 "outcome": "failed", "exception_class": "ValidationError", "max_attempts": 5, "final": true}]$$) \g /dev/null
SELECT results_eq($$SELECT source COLLATE "default", job_id COLLATE "default", failures, max_attempts, stopped_by COLLATE "default", automatic, how FROM holdfast.recoverable() WHERE source <> 'native'$$,
	$$VALUES ('loops', 'loop-4', 3, 5, 'max_consecutive_failures', false, NULL::text)$$, 'stopped at 3 of 5 by another condition; not those whose budget or class ended them');

-- G13

SELECT pg_temp.started('seen', 'p'), pg_temp.started('hidden', 'p') \g /dev/null
SELECT holdfast.define_error_rule('p', 'Bad', 'terminal', 'none'), holdfast.fail(pg_temp.id('seen'), pg_temp.lease('seen'), 'Bad'), holdfast.fail(pg_temp.id('hidden'), pg_temp.lease('hidden'), 'Bad'),
	holdfast.define_error_rule('p', 'Bad', 'retry', 'none') \g /dev/null
CREATE ROLE regress_holdfast_reader;
SELECT holdfast.grant_queue('seen', 'regress_holdfast_reader', 'reader') \g /dev/null
SET LOCAL ROLE regress_holdfast_reader;
SELECT string_agg(subject, ', ') AS seen FROM holdfast.recoverable() \gset
RESET ROLE;
SELECT is(:'seen'::text, 'seen', 'G13: a reader sees its queue''s');
SELECT is(pg_temp.listed(), 'hidden, seen', 'the owner all');

SELECT * FROM finish();
ROLLBACK;
