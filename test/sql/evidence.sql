\i test/setup.sql
\i test/tools.sql
-- Evidence: what each event says, where it is kept, and that it stands and falls with what it describes.
SELECT plan(89);

SELECT pg_temp.at('00:00:00') \g /dev/null
SELECT holdfast.define_retry_policy('plain', '10 s', 2, '1 h', '0 s', '5 s', 2) \g /dev/null
CREATE FUNCTION pg_temp.failed(name text, error_class text, side_effect text DEFAULT NULL) RETURNS text LANGUAGE sql AS $$
	SELECT decision FROM holdfast.fail(pg_temp.id($1), pg_temp.lease($1), $2, 'message', $3)
$$;
CREATE FUNCTION pg_temp.completed(name text) RETURNS text LANGUAGE sql AS $$ SELECT holdfast.complete(pg_temp.id($1), pg_temp.lease($1)) $$;
-- the one event of a kind of a scene's job
CREATE FUNCTION pg_temp.event(name text, kind text) RETURNS SETOF pg_temp.evidence LANGUAGE sql AS $$
	SELECT * FROM pg_temp.evidence e WHERE e.job_id = pg_temp.id($1) AND e.kind = 'action_' || $2
$$;
CREATE FUNCTION pg_temp.enqueued(name text, kind text) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(format('%s by %s', to_char(enqueued_at AT TIME ZONE 'UTC', 'HH24:MI:SS'), CASE enqueued_by WHEN current_user THEN 'me' ELSE enqueued_by END), ', ') FROM pg_temp.event($1, $2)
$$;

-- a start

SELECT pg_temp.started('start', 'plain', options => '{"scope": "s", "intent_version": 3, "payload": {"n": 1.0}, "correlation_id": "trace", "timeout": "30 s", "max_attempts": 7}') \g /dev/null
SELECT is(pg_temp.events('start'), 'attempt_started', 'G7: a claim is an event');
SELECT results_eq(
	$$SELECT at, queue, attempt_number, lease_id = pg_temp.lease('start'), idempotency_key, correlation_id, subject, action_key, worker_name FROM pg_temp.event('start', 'attempt_started')$$,
	$$VALUES ('2030-01-01 00:00:00+00'::timestamptz, 'start', 1, true, holdfast.intent_key('start', 'act', 's', 3), 'trace', 'start', 'act', 'w')$$, 'G7: who works on what, under which lease');
SELECT results_eq(
	$$SELECT mode, lease_expires_at, fencing_token = (SELECT fencing_token FROM pg_temp.job WHERE job_id = pg_temp.id('start')), scope, intent_version, failures, max_attempts, payload_digest = holdfast.payload_digest('{"n": 1}'), side_effect_state FROM pg_temp.event('start', 'attempt_started')$$,
	$$VALUES ('execute', '2030-01-01 00:01:30+00'::timestamptz, true, 's', 3, 0, 7, true, 'started')$$, 'G7: how, until when, with which token and budget, and what is known of the effect');
SELECT is(pg_temp.enqueued('start', 'attempt_started'), '00:00:00 by me', 'G7: a start carries who enqueued it and when');
SELECT ok((SELECT worker_result IS NULL AND exception_class IS NULL AND next_not_before IS NULL FROM pg_temp.event('start', 'attempt_started')), 'G14: and claims nothing of the end');

-- a success

SELECT pg_temp.at('00:00:07.250') \g /dev/null
SELECT holdfast.complete(pg_temp.id('start'), pg_temp.lease('start'), '{"id": "m-1"}') \g /dev/null
SELECT is(pg_temp.events('start'), 'attempt_started, attempt_succeeded', 'G7: a success is an event');
SELECT results_eq(
	$$SELECT at, attempt_number, lease_id = pg_temp.lease('start'), worker_name, worker_result, side_effect_state, elapsed_ms, lease_expires_at, exception_class FROM pg_temp.event('start', 'attempt_succeeded')$$,
	$$VALUES ('2030-01-01 00:00:07.250+00'::timestamptz, 1, true, 'w', 'succeeded', 'committed', 7250::bigint, '2030-01-01 00:01:30+00'::timestamptz, NULL)$$, 'G7: with its time, the effect and the last lease end');
SELECT is((SELECT count(DISTINCT (queue, idempotency_key, correlation_id, subject, action_key, lease_id, worker_name, attempt_number)) FROM pg_temp.evidence WHERE job_id = pg_temp.id('start')), 1::bigint,
	'all events of an attempt carry the same correlation fields');

-- a failure and its decision

SELECT pg_temp.at('00:01:00') \g /dev/null
SELECT pg_temp.started('failure', options => '{"timeout": "30 s"}') \g /dev/null
SELECT pg_temp.at('00:01:12') \g /dev/null
SELECT decision FROM holdfast.fail(pg_temp.id('failure'), pg_temp.lease('failure'), 'TimeoutError', 'no answer', timeout_kind => 'read', timeout_limit_ms => 12000, detail => '{"host": "mx1"}') \g /dev/null
SELECT is(pg_temp.events('failure'), 'attempt_started, attempt_failed, reconcile_scheduled', 'G7: a failure with an unknown effect is two events');
SELECT results_eq(
	$$SELECT exception_class, message, timeout_kind, timeout_ms, timeout_limit_ms, elapsed_ms, detail::text LIKE '%mx1%' FROM pg_temp.event('failure', 'attempt_failed')$$,
	$$VALUES ('TimeoutError', 'no answer', 'read', 30000::bigint, 12000::bigint, 12000::bigint, true)$$, 'G7: the failure as the worker saw it');
SELECT results_eq($$SELECT worker_result, side_effect_state FROM pg_temp.event('failure', 'attempt_failed')$$, $$VALUES ('timeout', 'unknown')$$,
	'G14: a timeout''s two facts stand apart: what the worker saw, what is known of the effect');
SELECT results_eq(
	$$SELECT retry_policy, delay_ms, jitter_ms, next_not_before, side_effect_state, attempt_number, lease_id = pg_temp.lease('failure') FROM pg_temp.event('failure', 'reconcile_scheduled')$$,
	$$SELECT 'default', 30000 + j, j, '2030-01-01 00:01:12+00'::timestamptz + (30000 + j) * interval '1 ms', 'unknown', 1, true FROM holdfast.jitter_ms(pg_temp.id('failure'), 1, '30 s') j$$,
	'G3: the decision with its policy, delay, jitter and time');
SELECT ok((SELECT e.next_not_before = j.run_after FROM pg_temp.event('failure', 'reconcile_scheduled') e, pg_temp.job j WHERE j.job_id = e.job_id), 'G3: which is the time that is stored');
SELECT is(pg_temp.again('failure'), 'attempt 2, reconcile', 'setting the scene');
SELECT results_eq($$SELECT mode, failures, side_effect_state FROM pg_temp.event('failure', 'attempt_started') WHERE attempt_number = 2$$, $$VALUES ('reconcile', 1, 'unknown')$$, 'G6: the next start says that it is to reconcile');

SELECT pg_temp.at('01:00:00') \g /dev/null
SELECT pg_temp.started('retry', 'plain') \g /dev/null
SELECT pg_temp.failed('retry', 'ConnectionRefusedError') \g /dev/null
SELECT is(pg_temp.events('retry'), 'attempt_started, attempt_failed, retry_scheduled', 'G7: a failure that is retried is two events');
SELECT results_eq($$SELECT f.worker_result, f.side_effect_state, f.exception_class, r.delay_ms, r.next_not_before FROM pg_temp.event('retry', 'attempt_failed') f, pg_temp.event('retry', 'retry_scheduled') r$$,
	$$VALUES ('failed', 'failed_retryable', 'ConnectionRefusedError', 10000::bigint, '2030-01-01 01:00:10+00'::timestamptz)$$, 'G3: with the time of the next attempt');
SELECT pg_temp.again('retry') \g /dev/null
SELECT pg_temp.failed('retry', 'ConnectionRefusedError') \g /dev/null
SELECT is(pg_temp.events('retry'), 'attempt_started, attempt_failed, retry_scheduled, attempt_started, attempt_failed, exhausted', 'G4: the budget''s end is an event');
SELECT results_eq($$SELECT attempt_number, side_effect_state, next_not_before FROM pg_temp.event('retry', 'exhausted')$$, $$VALUES (2, 'failed_terminal', NULL::timestamptz)$$, 'G4: nothing comes after it');

SELECT pg_temp.started('terminal', 'plain') \g /dev/null
SELECT pg_temp.failed('terminal', 'ValidationError') \g /dev/null
SELECT is(pg_temp.events('terminal'), 'attempt_started, attempt_failed, terminal', 'G4: a class that ends the job is an event');
SELECT results_eq($$SELECT attempt_number, side_effect_state, exception_class FROM pg_temp.event('terminal', 'attempt_failed')$$, $$VALUES (1, 'failed_terminal', 'ValidationError')$$, 'G4: and its failure names the class');
SELECT pg_temp.started('suppress', 'plain') \g /dev/null
SELECT pg_temp.failed('suppress', 'DuplicateActionError') \g /dev/null
SELECT is(pg_temp.events('suppress'), 'attempt_started, attempt_failed, suppressed', 'a suppressed failure is an event');
SELECT ok((SELECT bool_and(side_effect_state = 'committed') FROM pg_temp.evidence WHERE job_id = pg_temp.id('suppress') AND kind = 'action_suppressed'), 'its effect is committed');
SELECT pg_temp.started('landed', 'plain') \g /dev/null
SELECT pg_temp.failed('landed', 'TimeoutError', 'landed') \g /dev/null
SELECT ok((SELECT bool_or(worker_result = 'timeout' AND side_effect_state = 'committed') FROM pg_temp.evidence WHERE job_id = pg_temp.id('landed')), 'G14: a timeout whose effect landed says both');

-- a deadline, for a job that runs and for one that waits

SELECT pg_temp.at('02:00:00') \g /dev/null
SELECT pg_temp.started('deadline', 'plain', options => '{"give_up_at": "2030-01-01 02:00:05+00"}'), holdfast.create_queue('waiting') \g /dev/null
SELECT pg_temp.failed('deadline', 'ConnectionRefusedError') \g /dev/null
SELECT is(pg_temp.events('deadline'), 'attempt_started, attempt_failed, exhausted', 'G4: give_up_at''s end is an event');
INSERT INTO scene (name, job_id, idempotency_key) SELECT 'waiting', job_id, idempotency_key FROM holdfast.enqueue('waiting', 'act', 'waiting', run_after => '2030-01-01 02:00:01+00', give_up_at => '2030-01-01 02:00:05+00', correlation_id => 'trace');
SELECT pg_temp.at('02:00:06') \g /dev/null
SELECT is(pg_temp.claimed('waiting'), 'none', 'setting the scene');
SELECT is(pg_temp.events('waiting'), 'exhausted', 'G4: also for a job that never ran');
SELECT is(pg_temp.enqueued('waiting', 'exhausted'), '02:00:00 by me', 'G7: its way out of pending carries who enqueued it and when');
SELECT results_eq($$SELECT attempt_number, lease_id, correlation_id, side_effect_state FROM pg_temp.event('waiting', 'exhausted')$$, $$VALUES (0, NULL::uuid, 'trace', 'failed_terminal')$$, 'G7: before any attempt');

-- a loss

SELECT pg_temp.at('03:00:00') \g /dev/null
SELECT pg_temp.started('loss', 'plain') \g /dev/null
SELECT pg_temp.at('03:01:00') \g /dev/null
SELECT outcome FROM holdfast.heartbeat(pg_temp.id('loss'), pg_temp.lease('loss')) \g /dev/null
SELECT pg_temp.at('03:05:00') \g /dev/null
SELECT is(pg_temp.claimed('loss'), 'none', 'setting the scene');
SELECT is(pg_temp.events('loss'), 'attempt_started, attempt_lost, reconcile_scheduled', 'G8: a loss is two events');
SELECT results_eq(
	$$SELECT at >= '2030-01-01 03:05:00+00' AND at < '2030-01-01 03:05:00.001+00', lease_expires_at, last_heartbeat_at, lease_id = pg_temp.lease('loss'), worker_name, exception_class, worker_result, side_effect_state FROM pg_temp.event('loss', 'attempt_lost')$$,
	$$VALUES (true, '2030-01-01 03:02:30+00'::timestamptz, '2030-01-01 03:01:00+00'::timestamptz, true, 'w', 'LeaseExpired', 'lost', 'unknown')$$,
	'G8: when it was discovered, when the lease ended, and its last sign of life');
SELECT is((SELECT next_not_before FROM pg_temp.event('loss', 'reconcile_scheduled')), '2030-01-01 03:06:00+00', 'G3: the delay counts from the discovery');
SELECT is((SELECT count(*) FROM pg_temp.finding WHERE job_id = pg_temp.id('loss')), 1::bigint, 'G8: a lost lease is one finding');
SELECT results_eq($$SELECT queue, attempt_number, lease_id = pg_temp.lease('loss'), worker_name FROM pg_temp.finding WHERE job_id = pg_temp.id('loss')$$, $$VALUES ('loss', 1, true, 'w')$$, 'G8: that says whose it was');

-- snooze and release

SELECT pg_temp.at('04:00:00') \g /dev/null
SELECT pg_temp.started('snooze', 'plain') \g /dev/null
SELECT decision FROM holdfast.snooze(pg_temp.id('snooze'), pg_temp.lease('snooze'), '1 min', 'provider closed') \g /dev/null
SELECT is(pg_temp.events('snooze'), 'attempt_started, snoozed', 'a snooze is an event');
SELECT results_eq($$SELECT worker_result, side_effect_state, next_not_before, delay_ms, concat(message, detail) LIKE '%provider closed%' FROM pg_temp.event('snooze', 'snoozed')$$,
	$$VALUES ('snoozed', 'planned', '2030-01-01 04:01:00+00'::timestamptz, 60000::bigint, true)$$, 'G3: with its reason and its time');
SELECT pg_temp.started('release', 'plain') \g /dev/null
SELECT decision FROM holdfast.release(pg_temp.id('release'), pg_temp.lease('release'), 'shutdown') \g /dev/null
SELECT is(pg_temp.events('release'), 'attempt_started, released', 'a release is an event');
SELECT results_eq($$SELECT worker_result, side_effect_state, next_not_before, concat(message, detail) LIKE '%shutdown%' FROM pg_temp.event('release', 'released')$$,
	$$VALUES ('released', 'planned', '2030-01-01 04:00:00+00'::timestamptz, true)$$, 'with its reason and its time');

-- duplicates, conflicts, stale reports

SELECT pg_temp.at('05:00:00') \g /dev/null
SELECT pg_temp.started('again', 'plain') \g /dev/null
SELECT outcome FROM holdfast.enqueue('again', 'act', 'again') \g /dev/null
SELECT is(pg_temp.events('again'), 'attempt_started, duplicate_enqueue', 'G5: a duplicate enqueue is an event');
SELECT results_eq($$SELECT idempotency_key, subject, queue FROM pg_temp.event('again', 'duplicate_enqueue')$$, $$VALUES (holdfast.intent_key('again', 'act', NULL, 1), 'again', 'again')$$, 'G5: of the job that is there');
SELECT pg_temp.completed('again') \g /dev/null
SELECT pg_temp.completed('again') \g /dev/null
SELECT is((SELECT count(*) FROM pg_temp.event('again', 'duplicate_report') WHERE attempt_number = 1 AND lease_id = pg_temp.lease('again')), 1::bigint, 'G2: a duplicate report is an event');
SELECT is((SELECT count(*) FROM pg_temp.finding WHERE job_id = pg_temp.id('again')), 1::bigint, 'G2: and a finding');
SELECT pg_temp.failed('again', 'TimeoutError') \g /dev/null
SELECT is((SELECT count(*) FROM pg_temp.finding WHERE job_id = pg_temp.id('again')), 2::bigint, 'G2: so is a conflict');
SELECT ok((SELECT bool_or(e.detail::text LIKE '%fail%' AND e.detail::text LIKE '%conflict%') FROM pg_temp.event('again', 'duplicate_report') e), 'G2: which says what was reported, and what was answered');
SELECT outcome FROM holdfast.enqueue('again', 'act', 'again') \g /dev/null
SELECT is((SELECT count(*) FROM pg_temp.event('again', 'duplicate_enqueue')), 2::bigint, 'G5: an enqueue of a committed intent is an event');

SELECT pg_temp.started('stale', 'plain') \g /dev/null
SELECT pg_temp.at('05:10:00') \g /dev/null
SELECT is(pg_temp.claimed('stale'), 'none', 'setting the scene');
SELECT is(pg_temp.again('stale'), 'attempt 2, reconcile', 'setting the scene');
SELECT holdfast.complete(pg_temp.id('stale'), pg_temp.old_lease('stale'), '{"id": "m-2"}') \g /dev/null
SELECT results_eq($$SELECT attempt_number, lease_id = pg_temp.old_lease('stale'), worker_name, detail::text LIKE '%complete%' FROM pg_temp.event('stale', 'stale_report')$$,
	$$VALUES (1, true, 'w', true)$$, 'G2: a stale report is an event of the attempt that it is of, and says what was reported');
SELECT is((SELECT count(*) FROM pg_temp.finding f WHERE f.job_id = pg_temp.id('stale') AND f.kind LIKE '%stale%'), 1::bigint, 'G2: and a finding');
SELECT is((SELECT count(*) FROM pg_temp.evidence WHERE job_id = pg_temp.id('stale') AND attempt_number = 2), 1::bigint, 'G2: attempt 2 has nothing to do with it');

-- every path out of pending

SELECT pg_temp.at('06:00:00') \g /dev/null
SELECT holdfast.create_queue('out', retry_policy => 'plain') \g /dev/null
INSERT INTO scene (name, job_id, idempotency_key) SELECT s, e.job_id, e.idempotency_key FROM unnest(ARRAY['out cancelled', 'out suppressed', 'out purged']) s, holdfast.enqueue('out', 'act', s, delay => CASE s WHEN 'out suppressed' THEN interval '0 s' ELSE '1 h' END) e;
SELECT pg_temp.at('06:00:01') \g /dev/null
SELECT is(holdfast.cancel(pg_temp.id('out cancelled'), 'not wanted'), 'cancelled', 'a waiting job is cancelled');
SELECT pg_temp.planted('ledger', $$UPDATE holdfast.ledger SET state = 'committed' WHERE subject = 'out suppressed'$$) \g /dev/null
SELECT is_empty($$SELECT * FROM holdfast.claim('out', 'w')$$, 'a waiting job whose intent is committed is suppressed');
SELECT is(holdfast.purge_queue('out'), 1::bigint, 'the others are purged');
SELECT is(pg_temp.events('out ' || kind), kind, 'G7: it is an event: ' || kind) FROM unnest(ARRAY['cancelled', 'suppressed', 'purged']) AS kind;
SELECT is(pg_temp.enqueued('out ' || kind, kind), '06:00:00 by me', 'G7: it carries who enqueued the job and when: ' || kind) FROM unnest(ARRAY['cancelled', 'suppressed', 'purged']) AS kind;
SELECT ok((SELECT e::text LIKE '%not wanted%' FROM pg_temp.event('out cancelled', 'cancelled') e), 'a cancellation has its reason');
SELECT is_empty($$SELECT * FROM pg_temp.job WHERE queue = 'out'$$, 'G10: none is left');
SELECT is_empty($$SELECT e.job_id FROM pg_temp.evidence e WHERE e.kind = 'action_attempt_started' AND (e.enqueued_at IS NULL OR e.enqueued_by IS NULL)$$, 'G7: no start is without who enqueued it and when');

-- operators

SELECT pg_temp.started('cancel running', 'plain') \g /dev/null
SELECT holdfast.cancel(pg_temp.id('cancel running'), 'stop it') \g /dev/null
SELECT pg_temp.failed('cancel running', 'ConnectionRefusedError') \g /dev/null
SELECT ok(pg_temp.events('cancel running') LIKE 'attempt_started, %cancelled', 'a cancelled attempt ends with an event');
SELECT ok((SELECT bool_and(attempt_number = 1) FROM pg_temp.event('cancel running', 'cancelled')), 'of its attempt');
SELECT outcome FROM holdfast.redrive(pg_temp.id('terminal'), 'fixed the address') \g /dev/null
SELECT ok((SELECT e::text LIKE '%fixed the address%' FROM pg_temp.event('terminal', 'redriven') e), 'G3: a redrive is an event, with its reason');
SELECT is((SELECT side_effect_state FROM pg_temp.event('terminal', 'redriven')), 'planned', 'G3: and what it made of the ledger');
SELECT is(pg_temp.claimed('terminal'), 'attempt 2, execute', 'attempt numbers go on');

-- times

SELECT pg_temp.at('07:00:00') \g /dev/null
SELECT pg_temp.started('backwards', 'plain') \g /dev/null
SELECT pg_temp.at('06:59:00') \g /dev/null
SELECT is(pg_temp.failed('backwards', 'ConnectionRefusedError'), 'retry', 'a clock that steps back');
SELECT pg_temp.at('06:59:10') \g /dev/null
SELECT is(pg_temp.claimed('backwards'), 'attempt 2, execute', 'G9: delays go by the clock');
SELECT pg_temp.completed('backwards') \g /dev/null
SELECT is(pg_temp.events('backwards'), 'attempt_started, attempt_failed, retry_scheduled, attempt_started, attempt_succeeded', 'event times are monotone per job: ordered by attempt and time they tell the story');
SELECT ok(min(at) = '2030-01-01 07:00:00+00' AND max(at) < '2030-01-01 07:00:00.001+00', 'an event is not before the one before it') FROM pg_temp.evidence WHERE job_id = pg_temp.id('backwards');
SELECT is_empty($$SELECT FROM (SELECT at, lag(at) OVER (PARTITION BY job_id ORDER BY event_id) AS before FROM pg_temp.evidence) e WHERE at < before$$, 'event times are monotone, for every job here');
SELECT is_empty($$SELECT FROM (SELECT attempt_number, lag(attempt_number) OVER (PARTITION BY job_id ORDER BY at, event_id) AS before FROM pg_temp.evidence WHERE kind = 'action_attempt_started') e
	WHERE attempt_number <> coalesce(before, 0) + 1$$, 'attempt numbers count from 1 and leave none out');
SELECT ok((SELECT elapsed_ms >= 0 FROM pg_temp.event('backwards', 'attempt_failed')), 'no attempt took less than no time');

-- where events are kept

SELECT is_empty($$SELECT * FROM holdfast.event_overflow$$, 'events of a day that has its partition are in it');
SELECT pg_temp.at('2035-06-01 12:00:00+00'::timestamptz) \g /dev/null
SELECT outcome FROM holdfast.enqueue('out', 'act', 'far day') \g /dev/null
INSERT INTO scene (name, job_id, lease_id) SELECT 'far day', job_id, lease_id FROM holdfast.claim('out', 'w');
SELECT pg_temp.completed('far day') \g /dev/null
SELECT results_eq($$SELECT kind, at FROM holdfast.event_overflow WHERE job_id = pg_temp.id('far day') ORDER BY event_id$$,
	$$VALUES ('action_attempt_started' COLLATE "C", '2035-06-01 12:00:00+00'::timestamptz), ('action_attempt_succeeded', (SELECT max(at) FROM holdfast.event_overflow))$$,
	'G7: events of a day without a partition go to event_overflow');
SELECT is_empty($$SELECT * FROM holdfast.event WHERE job_id = pg_temp.id('far day')$$, 'G7: once');
SELECT is(pg_temp.completed('far day'), 'duplicate', 'G2: a lease in event_overflow is known');
SELECT is((SELECT count(*) FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid WHERE i.inhparent = 'holdfast.event'::regclass AND pg_get_expr(c.relpartbound, c.oid) = 'DEFAULT'), 0::bigint, 'there is no DEFAULT partition');

-- evidence stands and falls with its transaction

SELECT pg_temp.at('08:00:00') \g /dev/null
SELECT pg_temp.started('rolled back', 'plain') \g /dev/null
SELECT pg_temp.stored() AS before \gset
SAVEPOINT s;
SELECT pg_temp.failed('rolled back', 'TimeoutError') \g /dev/null
SELECT outcome FROM holdfast.enqueue('rolled back', 'act', 'rolled back') \g /dev/null
SELECT holdfast.complete(pg_temp.id('rolled back'), gen_random_uuid()) \g /dev/null
ROLLBACK TO s;
SELECT is(pg_temp.stored(), :'before', 'G7: an event is gone with the change that it describes');
SELECT is(pg_temp.state('rolled back'), 'running, execute, ledger started', 'G7: and the change with it');
DO $$
BEGIN
	PERFORM holdfast.complete(pg_temp.id('rolled back'), pg_temp.lease('rolled back'));
	RAISE EXCEPTION 'the worker''s own rows failed';
EXCEPTION WHEN raise_exception THEN NULL;
END
$$;
SELECT is(pg_temp.stored(), :'before', 'G7: also by an exception block');
SELECT is(pg_temp.completed('rolled back'), 'completed', 'G2: and the report may be made again');

-- the whole

SELECT is_empty($$SELECT kind FROM pg_temp.evidence WHERE kind <> ALL (ARRAY['action_attempt_started', 'action_attempt_succeeded', 'action_attempt_failed', 'action_attempt_lost', 'action_retry_scheduled',
	'action_reconcile_scheduled', 'action_reconciled', 'action_ledger_changed', 'action_snoozed', 'action_released', 'action_cancelled', 'action_cancel_requested', 'action_suppressed', 'action_exhausted', 'action_terminal', 'action_redriven',
	'action_deferred', 'action_duplicate_enqueue', 'action_duplicate_report', 'action_stale_report', 'action_purged', 'action_changed_by_sql', 'action_violation', 'evidence_ddl'])$$, 'events are of the kinds that are documented');
SELECT is_empty($$SELECT FROM pg_temp.evidence WHERE kind IN ('action_retry_scheduled', 'action_reconcile_scheduled') AND subject <> 'backwards'
	AND (next_not_before <= at OR next_not_before IS NULL OR delay_ms < 1 OR retry_policy IS NULL)$$,
	'G3: every retry decided is in the future, by a policy on record');
SELECT is_empty($$SELECT job_id, lease_id FROM pg_temp.evidence WHERE kind IN ('action_attempt_succeeded', 'action_attempt_failed', 'action_attempt_lost', 'action_snoozed', 'action_released')
	AND subject <> 'landed' GROUP BY 1, 2 HAVING count(*) > 1$$, 'G2: no lease has two ends (a failure whose effect landed is followed by its success)');
SELECT is_empty($$SELECT e.job_id, e.lease_id FROM pg_temp.evidence e WHERE e.kind IN ('action_attempt_succeeded', 'action_attempt_failed', 'action_attempt_lost', 'action_snoozed', 'action_released')
	AND NOT EXISTS (SELECT FROM pg_temp.evidence s WHERE s.kind = 'action_attempt_started' AND s.job_id = e.job_id AND s.lease_id = e.lease_id AND s.attempt_number = e.attempt_number AND s.worker_name = e.worker_name
					AND s.correlation_id = e.correlation_id AND s.idempotency_key = e.idempotency_key)$$, 'G7: no end is without its start, under the same names');
SELECT is_empty($$SELECT FROM pg_temp.evidence WHERE idempotency_key IS NULL OR correlation_id IS NULL OR subject IS NULL OR action_key IS NULL OR queue IS NULL$$, 'G7: every event names its intent');

SELECT * FROM finish();
ROLLBACK;
