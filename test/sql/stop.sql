\i test/setup.sql
\i test/tools.sql
-- Why a job stopped, or what it waits for; and timeouts that are not what they say.
SELECT plan(61);

SELECT pg_temp.at('00:00:00') \g /dev/null
SELECT holdfast.define_retry_policy('plain', '10 s', 2, '1 h', '0 s', '5 s', 3, max_lost => 2, reconcile_delay => '1 min', reconcile_max => 2) \g /dev/null
CREATE FUNCTION pg_temp.why(subject text) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(concat_ws(' ', r.reason, '(' || r.detail || ')'), '; ' ORDER BY r.job_id) FROM holdfast.stop_reason r WHERE r.subject = $1
$$;
CREATE FUNCTION pg_temp.because(subject text) RETURNS text LANGUAGE sql AS $$ SELECT string_agg(r.because, '; ' ORDER BY r.job_id) FROM holdfast.stop_reason r WHERE r.subject = $1 $$;
CREATE FUNCTION pg_temp.failed(name text, error_class text DEFAULT 'Boom', side_effect text DEFAULT 'none') RETURNS text LANGUAGE sql AS $$
	SELECT decision FROM holdfast.fail(pg_temp.id($1), pg_temp.lease($1), $2, 'message', $3)
$$;

-- jobs that wait

SELECT holdfast.create_queue('wait', retry_policy => 'plain') \g /dev/null
SELECT outcome FROM holdfast.enqueue('wait', 'act', 'scheduled', delay => '1 h') \g /dev/null
SELECT is(pg_temp.why('scheduled'), 'scheduled', 'a job not yet tried is scheduled');
SELECT is(pg_temp.because('scheduled'), 'not yet tried: not before 2030-01-01 01:00:00+00; first to stop it is max_lost, after 2 more lost leases', 'with what would stop it first: here a crash loop, before the budget');
SELECT results_eq($$SELECT attempts_left, budget_end, losses_left, reconciles_left, first_stop FROM holdfast.stop_reason WHERE subject = 'scheduled'$$, $$VALUES (3, '2030-01-01 01:00:30+00'::timestamptz, 2, 2, 'crash_loop')$$,
	'G4: how far away each is: three failures, at 0, 10 and 30 s');
SELECT pg_temp.started('flight', 'plain') \g /dev/null
SELECT is(pg_temp.why('flight'), 'in_flight', 'a job at work is in flight');
SELECT is(pg_temp.because('flight'), 'attempt 1 is at work by w, lease until 2030-01-01 00:01:30+00', 'by whom, until when');
SELECT pg_temp.started('stuck', 'plain'), pg_temp.at('00:02:00') \g /dev/null
SELECT is(pg_temp.why('stuck'), 'stuck_lease', 'G8: a lease that is over, and that nobody has noted, is stuck');
SELECT is(pg_temp.because('stuck'), 'the lease of attempt 1 ended at 2030-01-01 00:01:30+00, 00:00:30 ago, and nobody has reported or settled it', 'G8: since when');
SELECT pg_temp.started('retry', 'plain'), pg_temp.failed('retry') \g /dev/null
SELECT is(pg_temp.why('retry'), 'awaiting_retry', 'a failure that will be tried again awaits its retry');
SELECT is(pg_temp.because('retry'), 'failure 1 of 3 (attempt 1): not before 2030-01-01 00:02:10+00; first to stop it is the budget, after 2 more failures, at 2030-01-01 00:02:30+00 at the earliest', 'G4: failure f of m (attempt n), when, and what would stop it first');
SELECT pg_temp.started('deadline soon', 'plain', options => '{"give_up_at": "2030-01-01 00:02:25+00"}'), pg_temp.failed('deadline soon') \g /dev/null
SELECT results_eq($$SELECT first_stop, until_give_up FROM holdfast.stop_reason WHERE subject = 'deadline soon'$$, $$VALUES ('deadline', '25 s'::interval)$$, 'G4: give_up_at comes before the budget''s end');
SELECT pg_temp.started('unknown', 'plain'), pg_temp.failed('unknown', side_effect => 'unknown') \g /dev/null
SELECT is(pg_temp.why('unknown'), 'awaiting_reconcile', 'G6: an unknown effect awaits its reconcile');
SELECT is((SELECT first_stop || ' ' || reconciles_left FROM holdfast.stop_reason WHERE subject = 'unknown'), 'reconcile_max 2', 'G4: which has a limit of its own');
SELECT pg_temp.started('paused', 'plain'), pg_temp.failed('paused'), holdfast.pause_queue('paused', 'provider down') \g /dev/null
SELECT is(pg_temp.why('paused'), 'paused', 'a paused queue');
SELECT matches(pg_temp.because('paused'), 'the queue is paused \(provider down\)', 'and why');
SELECT pg_temp.started('snooze', 'plain') \g /dev/null
SELECT decision FROM holdfast.snooze(pg_temp.id('snooze'), pg_temp.lease('snooze'), '1 min') \g /dev/null
SELECT is(pg_temp.why('snooze'), 'scheduled', 'a snoozed job is scheduled');
SELECT holdfast.create_queue('streams', side_effects => false), holdfast.define_stream('streams', 'loop', 1, '1 h') \g /dev/null
SELECT outcome FROM unnest(ARRAY['first', 'parked']) s, holdfast.enqueue('streams', 'act', s, stream => 'loop') \g /dev/null
SELECT decision FROM holdfast.claim('streams', 'w') c, holdfast.fail(c.job_id, c.lease_id, 'ValidationError') \g /dev/null
SELECT count(*) FROM holdfast.claim('streams', 'w') \g /dev/null
SELECT is(pg_temp.why('parked'), 'parked', 'a job of an open stream is parked');

-- jobs that ended

SELECT is(pg_temp.why('first'), 'terminal_policy_failure (class)', 'a class that the policy, or "default", calls terminal');
SELECT pg_temp.started('success', 'plain'), holdfast.complete(pg_temp.id('success'), pg_temp.lease('success')) \g /dev/null
SELECT is(pg_temp.why('success'), 'succeeded', 'a success');
SELECT pg_temp.started('budget', 'plain'), pg_temp.failed('budget'), pg_temp.again('budget'), pg_temp.failed('budget'), pg_temp.again('budget'), pg_temp.failed('budget') \g /dev/null
SELECT is(pg_temp.why('budget'), 'terminal_policy_failure (budget)', 'G4: the budget');
SELECT is(pg_temp.because('budget'), 'failure 3 of 3 (attempt 3): the budget is used up', 'G4: failure f of m (attempt n)');
SELECT pg_temp.started('late', 'plain', options => format('{"give_up_at": "%s"}', pg_temp.clock() + interval '5 s')::jsonb), pg_temp.failed('late') \g /dev/null
SELECT is(pg_temp.why('late'), 'terminal_policy_failure (deadline)', 'G4: a deadline');
SELECT pg_temp.started('crash', 'plain', false), pg_temp.at(pg_temp.clock() + interval '2 min'), pg_temp.claimed('crash'), pg_temp.again('crash'), pg_temp.at(pg_temp.clock() + interval '2 min'), pg_temp.claimed('crash') \g /dev/null
SELECT is(pg_temp.why('crash'), 'terminal_policy_failure (crash_loop)', 'G4: too many lost leases');
SELECT is((SELECT because FROM holdfast.timeout_finding WHERE subject = 'crash' AND finding = 'budget_conflict'),
	'failure 2 of 3 (attempt 2): stopped by crash_loop, which is a limit of 2 below max_attempts, 3: two limits count one budget', 'G4: which is a limit below the budget');
SELECT pg_temp.started('unresolved', 'plain'), pg_temp.failed('unresolved', side_effect => 'unknown'), pg_temp.again('unresolved'), pg_temp.failed('unresolved', side_effect => 'unknown'), pg_temp.again('unresolved'), pg_temp.failed('unresolved', side_effect => 'unknown') \g /dev/null
SELECT matches(pg_temp.why('unresolved'), '^terminal_policy_failure', 'G6: an effect that stays unknown');
SELECT pg_temp.started('cancelled', 'plain'), holdfast.cancel(pg_temp.id('cancelled'), 'not wanted', true) \g /dev/null
SELECT is(pg_temp.why('cancelled'), 'cancelled', 'cancelled by force');
SELECT matches(pg_temp.because('cancelled'), '^attempt 1, cancelled at .*: ', 'when');
SELECT holdfast.cancel(job_id, 'not wanted either') FROM holdfast.enqueue('wait', 'act', 'never tried', delay => '1 h') \g /dev/null
SELECT is(pg_temp.why('never tried'), 'cancelled', 'cancelled before it was ever tried');
SELECT matches(pg_temp.because('never tried'), 'cancelled at .*: not wanted either', 'and why');
SELECT outcome FROM holdfast.enqueue('wait', 'act', 'waits too long', give_up_at => pg_temp.clock() + interval '1 s') \g /dev/null
SELECT pg_temp.at(pg_temp.clock() + interval '1 min') \g /dev/null
SELECT count(*) FROM holdfast.maintain() \g /dev/null
SELECT is(pg_temp.why('waits too long'), 'terminal_policy_failure (deadline)', 'a deadline that passed while the job waited');
SELECT pg_temp.started('redriven', 'plain', options => '{"max_attempts": 1}'), pg_temp.failed('redriven') \g /dev/null
SELECT is(pg_temp.why('redriven'), 'terminal_policy_failure (budget)', 'setting the scene');
SELECT outcome FROM holdfast.redrive(pg_temp.id('redriven'), 'again') \g /dev/null
SELECT isnt(pg_temp.why('redriven'), 'terminal_policy_failure (budget)', 'a redriven job has not ended');
SELECT is((SELECT string_agg(DISTINCT source || ' ' || reason, ', ') FROM holdfast.stop_reason WHERE reason IN ('premature_stop', 'unexplained_stop')), NULL, 'G4: none of holdfast''s own jobs stopped early, or without a reason');
SELECT is((SELECT count(*) FROM holdfast.stop_reason WHERE source = 'native'), (SELECT count(*) FROM (SELECT job_id FROM holdfast.job UNION SELECT job_id FROM holdfast.dead_job UNION SELECT job_id FROM pg_temp.evidence) j), 'G10: every job has one row');

-- imported

CREATE FUNCTION pg_temp.log(subject text, VARIADIC records jsonb[]) RETURNS void LANGUAGE sql AS $$
	SELECT FROM holdfast.import_attempts('log', (SELECT jsonb_agg(jsonb_build_object('job_id', $1, 'subject', $1, 'action_key', 'run', 'attempt_number', n, 'started_at', '2029-12-01 08:00:00+00'::timestamptz + n * interval '1 h',
		'outcome', 'failed', 'exception_class', 'Boom') || r) FROM unnest($2) WITH ORDINALITY AS u (r, n)))
$$;
SELECT pg_temp.log(subject, VARIADIC records) FROM (VALUES
	('i success', ARRAY['{"outcome": "succeeded"}'::jsonb]), ('i cancelled', ARRAY['{"outcome": "cancelled", "final": true}'::jsonb]),
	('i budget', ARRAY['{}', '{"max_attempts": 2, "final": true}'::jsonb]), ('i class', ARRAY['{"exception_class": "ValidationError", "max_attempts": 5, "final": true}'::jsonb]),
	('i deadline', ARRAY['{"stop_reason": "deadline", "final": true}'::jsonb]), ('i unexplained', ARRAY['{"final": true, "stop_reason": "gave up"}'::jsonb]),
	('i premature', ARRAY['{"max_attempts": 5, "final": true}'::jsonb]), ('i ended', ARRAY['{"max_attempts": 5}'::jsonb]), ('i waits', ARRAY['{"next_not_before": "2029-12-02 08:00:00+00", "max_attempts": 5}'::jsonb]),
	('i not final', ARRAY['{"final": false}'::jsonb]), ('i open', ARRAY['{"outcome": null}'::jsonb]), ('i stuck', ARRAY['{"outcome": null, "lease_expires_at": "2029-12-01 10:00:00+00"}'::jsonb]),
	('i snoozed', ARRAY['{"outcome": "snoozed"}'::jsonb]), ('i last', ARRAY['{"final": true}'::jsonb, '{"outcome": "succeeded"}']), ('i no number', ARRAY['{"attempt_number": null, "max_attempts": 5, "final": true}'::jsonb])
) AS v (subject, records) \g /dev/null
SELECT is(pg_temp.why(subject), answer, 'imported: ' || subject) FROM (VALUES
	('i success', 'succeeded'), ('i cancelled', 'cancelled'), ('i budget', 'terminal_policy_failure (budget)'), ('i class', 'terminal_policy_failure (class)'), ('i deadline', 'terminal_policy_failure (deadline)'),
	('i unexplained', 'unexplained_stop (gave up)'), ('i premature', 'premature_stop'), ('i ended', 'premature_stop'), ('i waits', 'awaiting_retry'), ('i not final', 'awaiting_retry'), ('i open', 'in_flight'), ('i stuck', 'stuck_lease'),
	('i snoozed', 'scheduled'), ('i last', 'succeeded'), ('i no number', 'unexplained_stop')) AS v (subject, answer);
SELECT is(pg_temp.because('i premature'), 'failure 1 of 5 (attempt 1): stopped by a condition not on record, with 4 of 5 attempts of its budget left', 'G14: a stop whose condition is not on record says so');
SELECT is(pg_temp.because('i unexplained'), 'failure 1 of ? (attempt 1): max_attempts is not on record, so whether the budget ended it cannot be told; stopped by gave up', 'G14: what is missing is named');

-- the incident: a loop that stopped at 3 of 5, with timeouts of 743 s under a limit of 21,600 s

SELECT pg_temp.log('loop', '{"outcome": "timeout", "exception_class": "TimeoutError", "timeout_kind": "max_runtime", "timeout_ms": 21600000, "elapsed_ms": 743000, "max_attempts": 5}',
	'{"outcome": "timeout", "exception_class": "TimeoutError", "timeout_kind": "max_runtime", "timeout_ms": 21600000, "elapsed_ms": 743000, "max_attempts": 5}',
	'{"outcome": "timeout", "exception_class": "TimeoutError", "timeout_kind": "max_runtime", "timeout_ms": 21600000, "elapsed_ms": 743000, "max_attempts": 5, "final": true, "stop_reason": "max_consecutive_failures"}') \g /dev/null
SELECT is(pg_temp.why('loop'), 'premature_stop (max_consecutive_failures)', 'the incident: it stopped before its budget');
SELECT is(pg_temp.because('loop'), 'failure 3 of 5 (attempt 3): stopped by max_consecutive_failures, with 2 of 5 attempts of its budget left', 'the incident: by what, and what was left');
SELECT is((SELECT count(*) FROM holdfast.timeout_finding WHERE subject = 'loop' AND finding = 'timeout_mismatch'), 3::bigint, 'the incident: all three timeouts are not what they say');
SELECT is((SELECT DISTINCT because FROM holdfast.timeout_finding WHERE subject = 'loop' AND attempt_number = 3 AND finding = 'timeout_mismatch'),
	'TimeoutError (max_runtime) of attempt 3: configured 21600 s, limit said to have fired 21600 s, elapsed 743 s: another limit fired first', 'the incident: both figures');
SELECT is((SELECT because FROM holdfast.timeout_finding WHERE subject = 'loop' AND finding = 'budget_conflict'),
	'failure 3 of 5 (attempt 3): stopped by max_consecutive_failures, which is a limit of 3 below max_attempts, 5: two limits count one budget', 'the incident: and the two limits');

-- when a timeout is a finding, and what it may mean

SELECT pg_temp.log('t ' || name, '{"outcome": "timeout", "exception_class": "TimeoutError"}'::jsonb || record) FROM (VALUES
	('just short', '{"timeout_kind": "max_runtime", "timeout_ms": 1000, "elapsed_ms": 899}'::jsonb), ('near', '{"timeout_kind": "max_runtime", "timeout_ms": 1000, "elapsed_ms": 900}'), ('near above', '{"timeout_kind": "max_runtime", "timeout_ms": 1000, "elapsed_ms": 1100}'),
	('long', '{"timeout_kind": "max_runtime", "timeout_ms": 1000, "elapsed_ms": 1101}'), ('long read', '{"timeout_kind": "read", "timeout_limit_ms": 1000, "elapsed_ms": 5000}'), ('short read', '{"timeout_kind": "read", "timeout_limit_ms": 1000, "elapsed_ms": 500}'),
	('no limit', '{"timeout_kind": "read", "timeout_ms": 1000, "elapsed_ms": 500}'), ('no kind', '{"timeout_ms": 1000, "elapsed_ms": 500}'), ('no time', '{"timeout_kind": "max_runtime", "timeout_ms": 1000}'),
	('by times', '{"timeout_kind": "max_runtime", "timeout_ms": 10000, "finished_at": "2029-12-01 09:00:02+00"}'), ('lease', '{"timeout_kind": "max_runtime", "timeout_ms": 10000, "lease_expires_at": "2029-12-01 09:00:05+00", "elapsed_ms": 5000}'),
	('configured', '{"timeout_kind": "read", "timeout_ms": 3000, "timeout_limit_ms": 10000, "elapsed_ms": 3001}'), ('success', '{"outcome": "succeeded", "timeout_kind": "max_runtime", "timeout_ms": 1000, "elapsed_ms": 5}')) AS v (name, record) \g /dev/null
SELECT is((SELECT string_agg(substr(subject, 3), ', ' ORDER BY subject) FROM holdfast.timeout_finding WHERE subject LIKE 't %'), 'by times, configured, just short, lease, long, short read', 'below 0.9, or for max_runtime above 1.1 of the limit; and only where both are on record');
SELECT is((SELECT array_to_string(reading, '; ') FROM holdfast.timeout_finding WHERE subject = 't ' || name), reading, 'the likely reading: ' || name) FROM (VALUES
	('lease', 'the lease ended before the timeout, after 5 s'), ('configured', 'another limit fired first: the configured one'), ('long', 'the limit did not stop it: the worker noticed late, or not by this limit')) AS v (name, reading);
SELECT pg_temp.log('usual ' || n, '{"outcome": "succeeded", "elapsed_ms": 20000}') FROM generate_series(1, 9) n \g /dev/null
SELECT pg_temp.log('unusual', '{"started_at": "2029-12-01 10:00:00+00", "outcome": "timeout", "timeout_kind": "connect", "timeout_limit_ms": 10000, "elapsed_ms": 3001}') \g /dev/null
SELECT matches((SELECT because FROM holdfast.timeout_finding WHERE subject = 'unusual'), 'the timeout is below the action''s usual latency, 20 s$', 'the likely reading: from the action''s own history');
SELECT pg_temp.started('native timeout', options => '{"timeout": "30 s"}'), pg_temp.at(pg_temp.clock() + interval '7 s') \g /dev/null
SELECT decision FROM holdfast.fail(pg_temp.id('native timeout'), pg_temp.lease('native timeout'), 'TimeoutError', timeout_kind => 'max_runtime') \g /dev/null
SELECT matches((SELECT because FROM holdfast.timeout_finding WHERE subject = 'native timeout'), '^TimeoutError \(max_runtime\) of attempt 1: configured 30 s, limit said to have fired 30 s, elapsed 7 s: another limit fired first', 'native: a timeout that came too early');

SELECT * FROM finish();
ROLLBACK;
