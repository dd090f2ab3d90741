\i test/setup.sql
\i test/tools.sql
-- Leases: who holds one, until when, and what a lease that is over is good for.
SELECT plan(103);

SELECT pg_temp.at('00:00:00') \g /dev/null
SELECT holdfast.define_retry_policy('plain', '10 s', 2, '1 h', '0 s', '5 s', 100) \g /dev/null
CREATE FUNCTION pg_temp.beat(name text, lease interval DEFAULT NULL) RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws(' until ', h.outcome, to_char(h.lease_expires_at AT TIME ZONE 'UTC', 'HH24:MI:SS.MS')) FROM holdfast.heartbeat(pg_temp.id($1), pg_temp.lease($1), $2) h
$$;
CREATE FUNCTION pg_temp.valid(name text) RETURNS boolean LANGUAGE sql AS $$ SELECT holdfast.validate_lease(pg_temp.id($1), pg_temp.lease($1)) $$;
CREATE FUNCTION pg_temp.ends(name text) RETURNS timestamptz LANGUAGE sql AS $$ SELECT lease_expires_at FROM pg_temp.job WHERE job_id = pg_temp.id($1) $$;

-- G1: one holder, until the lease's end

SELECT is(pg_temp.started('hold', 'plain'), 'attempt 1, execute', 'a job is claimed');
SELECT is_empty($$SELECT * FROM holdfast.claim('hold', 'w2', 10)$$, 'G1: not twice');
SELECT ok(pg_temp.valid('hold'), 'G1: its lease is valid');
SELECT is(holdfast.validate_lease(pg_temp.id('hold'), gen_random_uuid()), false, 'G1: no other is');
SELECT is(holdfast.validate_lease(9223372036854775807, pg_temp.lease('hold')), false, 'G1: nor for another job');
SELECT is(holdfast.assert_lease(pg_temp.id('hold'), pg_temp.lease('hold')), '2030-01-01 00:01:30+00', 'assert_lease answers with its end');
SELECT throws_ok(format('SELECT holdfast.assert_lease(%s, gen_random_uuid())', pg_temp.id('hold')), 'JQ001', NULL, 'G2: or raises JQ001, for another lease');
SELECT throws_ok(format('SELECT holdfast.assert_lease(9223372036854775807, %L)', pg_temp.lease('hold')), 'JQ001', NULL, 'G2: or another job');

SELECT pg_temp.started('end', 'plain') \g /dev/null
SELECT pg_temp.at('00:01:29.999') \g /dev/null
SELECT ok(pg_temp.valid('end'), 'G1: 1 ms before its end a lease is valid');
SELECT is_empty($$SELECT * FROM holdfast.claim('end', 'w2')$$, 'G1: and nobody else gets the job');
SELECT pg_temp.at('00:01:30') \g /dev/null
SELECT ok(NOT pg_temp.valid('end'), 'G1: at its end it is not');
SELECT throws_ok(format('SELECT holdfast.assert_lease(%s, %L)', pg_temp.id('end'), pg_temp.lease('end')), 'JQ001', NULL, 'G2: nor can it be asserted');
SELECT is((SELECT outcome FROM holdfast.heartbeat(pg_temp.id('end'), pg_temp.lease('end'))), 'stale', 'G2: nor revived by a heartbeat');
SELECT is((SELECT outcome FROM holdfast.heartbeat(pg_temp.id('end'), pg_temp.lease('end'), '1 day')), 'stale', 'G2: however long');
SELECT results_eq($$SELECT status, lease_expires_at, lease_id = pg_temp.lease('end') FROM pg_temp.job WHERE job_id = pg_temp.id('end')$$,
	$$VALUES ('running', '2030-01-01 00:01:30+00'::timestamptz, true)$$, 'G2: a stale heartbeat changes nothing');
SELECT is((SELECT count(*) FROM pg_temp.evidence WHERE job_id = pg_temp.id('end') AND kind = 'action_stale_report'), 1::bigint,
	'G2: it is on record, once');
SELECT results_eq($$SELECT attempt_number, lease_id = pg_temp.lease('end'), worker_name, subject, idempotency_key = holdfast.intent_key('end', 'act', NULL, 1)
	FROM pg_temp.evidence WHERE job_id = pg_temp.id('end') AND kind = 'action_stale_report'$$,
	$$VALUES (1, true, 'w', 'end', true)$$, 'G2: with the lease and the attempt that it was of');
SELECT isnt_empty($$SELECT * FROM pg_temp.finding WHERE job_id = pg_temp.id('end')$$, 'G2: and is a finding');

-- heartbeats

SELECT pg_temp.at('00:05:00') \g /dev/null
SELECT pg_temp.started('beat', 'plain') \g /dev/null
SELECT pg_temp.at('00:05:30') \g /dev/null
SELECT is(pg_temp.beat('beat'), 'extended until 00:07:00.000', 'a heartbeat extends by the queue''s lease, from now');
SELECT results_eq($$SELECT lease_expires_at, last_heartbeat_at, attempt_number FROM pg_temp.job WHERE job_id = pg_temp.id('beat')$$,
	$$VALUES ('2030-01-01 00:07:00+00'::timestamptz, '2030-01-01 00:05:30+00'::timestamptz, 1)$$, 'and is stored');
SELECT is(pg_temp.beat('beat', '5 min'), 'extended until 00:10:30.000', 'or by the lease that it asks for');
SELECT is(pg_temp.beat('beat', '80 s'), 'extended until 00:10:30.000', 'G2: a shorter one never shortens');
SELECT is(pg_temp.beat('beat'), 'extended until 00:10:30.000', 'G2: nor does the queue''s');
SELECT pg_temp.at('00:05:10') \g /dev/null
SELECT is(pg_temp.beat('beat'), 'extended until 00:10:30.000', 'G2: nor a clock that steps back');
SELECT ok(pg_temp.valid('beat'), 'G1: the lease is valid then');
SELECT pg_temp.at('00:10:29.999') \g /dev/null
SELECT is_empty($$SELECT * FROM holdfast.claim('beat', 'w2')$$, 'G1: an extended lease holds to its new end');
SELECT is(pg_temp.beat('beat'), 'extended until 00:11:59.999', 'a heartbeat 1 ms before the end is in time');
SELECT is((SELECT lease_id FROM pg_temp.job WHERE job_id = pg_temp.id('beat')), pg_temp.lease('beat'), 'the lease is still the same one');
SELECT is((SELECT outcome FROM holdfast.heartbeat(pg_temp.id('beat'), gen_random_uuid())), 'stale', 'G2: another lease''s heartbeat is stale');
SELECT is(pg_temp.ends('beat'), '2030-01-01 00:11:59.999+00', 'G2: and extends nothing');
SELECT pg_temp.stored() AS before \gset
SELECT is((SELECT outcome FROM holdfast.heartbeat(9223372036854775807, gen_random_uuid())), 'unknown_job', 'G2: a job that there is not is unknown_job');
SELECT is(pg_temp.stored(), :'before', 'G2: and leaves no event');
SELECT is_empty($$SELECT * FROM pg_temp.evidence WHERE job_id = pg_temp.id('beat') AND kind NOT IN ('action_attempt_started', 'action_stale_report')$$,
	'a heartbeat is no event of its own');
SELECT is(holdfast.cancel(pg_temp.id('beat'), 'stop'), 'requested', 'a running job is asked to stop');
SELECT is((SELECT outcome FROM holdfast.heartbeat(pg_temp.id('beat'), pg_temp.lease('beat'))), 'cancel_requested', 'its heartbeat hears of it');
SELECT is(holdfast.complete(pg_temp.id('beat'), pg_temp.lease('beat')), 'completed', 'and it may still complete');
SELECT is((SELECT outcome FROM holdfast.heartbeat(pg_temp.id('beat'), pg_temp.lease('beat'))), 'stale', 'G2: after that a heartbeat is stale');
SELECT ok(NOT pg_temp.valid('beat'), 'G2: and the lease is not valid');
SELECT ok((SELECT e.last_heartbeat_at = '2030-01-01 00:10:29.999+00' FROM pg_temp.evidence e WHERE e.job_id = pg_temp.id('beat') AND e.kind = 'action_attempt_succeeded'),
	'G7: what ends an attempt carries its last heartbeat');
SELECT is((SELECT lease_expires_at FROM pg_temp.evidence e WHERE e.job_id = pg_temp.id('beat') AND e.kind = 'action_attempt_succeeded'), '2030-01-01 00:11:59.999+00',
	'G7: and its last lease end');

-- a lease that was lost stays lost

SELECT pg_temp.at('00:20:00') \g /dev/null
SELECT pg_temp.started('lost', 'plain') \g /dev/null
SELECT pg_temp.at('00:21:30') \g /dev/null
SELECT is(pg_temp.claimed('lost'), 'none', 'G8: a claim finds the lease over');
SELECT pg_temp.at('00:20:30') \g /dev/null
SELECT is((SELECT outcome FROM holdfast.heartbeat(pg_temp.id('lost'), pg_temp.lease('lost'))), 'stale', 'G2: a clock that steps back does not revive what was reported lost');
SELECT ok(NOT pg_temp.valid('lost'), 'G2: nor does it make the lease valid');
SELECT is(pg_temp.state('lost'), 'pending, reconcile, ledger unknown', 'G2: the job is as the claim left it');
SELECT is(pg_temp.again('lost'), 'attempt 2, reconcile', 'G1: the next attempt has another lease');
SELECT results_eq($$SELECT (holdfast.heartbeat(pg_temp.id('lost'), pg_temp.old_lease('lost'))).outcome, holdfast.complete(pg_temp.id('lost'), pg_temp.old_lease('lost')),
	(SELECT decision FROM holdfast.fail(pg_temp.id('lost'), pg_temp.old_lease('lost'), 'TimeoutError')),
	(SELECT decision FROM holdfast.schedule_retry(pg_temp.id('lost'), pg_temp.old_lease('lost'), '1 h')),
	(SELECT decision FROM holdfast.snooze(pg_temp.id('lost'), pg_temp.old_lease('lost'), '1 h')),
	(SELECT decision FROM holdfast.release(pg_temp.id('lost'), pg_temp.old_lease('lost')))$$,
	$$VALUES ('stale', 'stale', 'stale', 'stale', 'stale', 'stale')$$, 'G2: a zombie is answered stale, whatever it reports');
SELECT is(pg_temp.state('lost'), 'running, reconcile, ledger unknown', 'G2: and the job runs on');
SELECT ok(pg_temp.valid('lost'), 'G2: under the lease of attempt 2');
SELECT ok((SELECT count(*) >= 1 AND bool_and(attempt_number = 1) FROM pg_temp.evidence WHERE job_id = pg_temp.id('lost') AND kind = 'action_stale_report' AND lease_id = pg_temp.old_lease('lost')),
	'G2: the zombie is on record, as attempt 1');
SELECT throws_ok(format('SELECT holdfast.complete(%s, %L, strict => true)', pg_temp.id('lost'), pg_temp.old_lease('lost')), 'JQ001', NULL, 'G2: with strict it is raised to instead');
SELECT throws_ok(format('SELECT holdfast.assert_lease(%s, %L)', pg_temp.id('lost'), pg_temp.old_lease('lost')), 'JQ001', NULL, 'G2: as by assert_lease');

-- a lease asserted in this transaction is kept until its end

SELECT pg_temp.started('asserted', 'plain') \g /dev/null
SELECT holdfast.assert_lease(pg_temp.id('asserted'), pg_temp.lease('asserted')) \g /dev/null
SELECT pg_temp.at(pg_temp.ends('asserted') + interval '1 h') \g /dev/null
SELECT is_empty($$SELECT * FROM holdfast.claim('asserted', 'w2', 10)$$, 'G2: an asserted lease is not lost before the transaction ends');
SELECT is(pg_temp.state('asserted'), 'running, execute, ledger started', 'G2: its job is not taken');
SELECT is(holdfast.complete(pg_temp.id('asserted'), pg_temp.lease('asserted')), 'completed', 'G2: and the rows written beside it are paid for');

-- unless the assertion was rolled back

SELECT pg_temp.started('unasserted', 'plain') \g /dev/null
SAVEPOINT s;
SELECT holdfast.assert_lease(pg_temp.id('unasserted'), pg_temp.lease('unasserted')) \g /dev/null
ROLLBACK TO s;
SELECT pg_temp.at(pg_temp.ends('unasserted') + interval '1 h') \g /dev/null
SELECT is_empty($$SELECT * FROM holdfast.claim('unasserted', 'w2', 10)$$, 'after a rollback to a savepoint');
SELECT is(pg_temp.state('unasserted'), 'pending, reconcile, ledger unknown', 'G1: a lease asserted since then is lost like any other');

-- fencing tokens

SELECT pg_temp.at('01:00:00') \g /dev/null
CREATE TEMPORARY TABLE token (n serial, fencing_token bigint, not_before bigint DEFAULT extract(epoch FROM clock_timestamp()) * 1000000);
SELECT holdfast.create_queue('token', retry_policy => 'plain') \g /dev/null
SELECT outcome FROM holdfast.enqueue('token', 'act', 'token') \g /dev/null
CREATE FUNCTION pg_temp.token() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	context	holdfast.execution_context;
BEGIN
	INSERT INTO token (fencing_token) VALUES (NULL);
	SELECT * INTO STRICT context FROM holdfast.claim('token', 'w');
	UPDATE token SET fencing_token = context.fencing_token WHERE n = (SELECT max(n) FROM token);
	PERFORM holdfast.fail(context.job_id, context.lease_id, 'ConnectionRefusedError', side_effect => 'none');
	PERFORM pg_temp.at(j.run_after) FROM holdfast.job j WHERE j.job_id = context.job_id;
END
$$;
SELECT pg_temp.token() FROM generate_series(1, 5) \g /dev/null
SELECT ok(bool_and(fencing_token BETWEEN not_before AND extract(epoch FROM clock_timestamp()) * 1000000), 'a fencing token is the microseconds of the real clock, never of the frozen one')
FROM token;
SELECT pg_temp.at('2001-01-01 00:00:00+00'::timestamptz) \g /dev/null
SAVEPOINT s;
SELECT count(*) FROM holdfast.claim('token', 'w') \g /dev/null
ROLLBACK TO s;
SELECT pg_temp.at('12:00:00') \g /dev/null
SELECT pg_temp.token() \g /dev/null
SELECT ok(bool_and(t.fencing_token > u.fencing_token), 'G1: each is greater than every one before, however the clock was set') FROM token t JOIN token u ON u.n < t.n;
INSERT INTO holdfast.setting VALUES ('token_floor', '5000000000000000');
SELECT pg_temp.token() \g /dev/null
SELECT ok((SELECT max(fencing_token) >= 5000000000000000 FROM token), 'G1: never below a persisted floor');
SELECT pg_temp.token() \g /dev/null
SELECT is((SELECT max(fencing_token) - (SELECT fencing_token FROM token ORDER BY n DESC OFFSET 1 LIMIT 1) FROM token), 1::bigint,
	'G1: where the real clock is not above the last one, the last one + 1');
SELECT ok((SELECT count(DISTINCT fencing_token) = count(*) FROM token), 'G1: no token is given twice');

-- G8: where it is set

SELECT throws_ok($$SELECT holdfast.create_queue('q', lease => '74.999 s')$$, 'JQ005', NULL, 'G8: create_queue refuses a lease that an attempt could outlive');
SELECT holdfast.create_queue('g8'), holdfast.create_queue('g8 beating', lease => '60 s', heartbeat => '20 s', timeout => '1 h') \g /dev/null
SELECT throws_ok($$SELECT holdfast.alter_queue('g8', timeout => '75.001 s')$$, 'JQ005', NULL, 'G8: alter_queue');
SELECT throws_ok($$SELECT holdfast.alter_queue('g8 beating', heartbeat => '20.001 s')$$, 'JQ005', NULL, 'G8: alter_queue, of the heartbeat');
SELECT throws_ok($$SELECT * FROM holdfast.enqueue('g8', 'act', 's', timeout => '75.001 s')$$, 'JQ005', NULL, 'G8: enqueue');
SELECT throws_ok($$SELECT * FROM holdfast.claim('g8', 'w', lease => '74.999 s')$$, 'JQ005', NULL, 'G8: claim');
SELECT pg_temp.at('12:00:00') \g /dev/null
SELECT outcome FROM holdfast.enqueue('g8 beating', 'act', 'g8 beating') \g /dev/null
SELECT is(pg_temp.claimed('g8 beating'), 'attempt 1, execute', 'G8: a job may run for an hour') ;
SELECT is(pg_temp.ends('g8 beating'), '2030-01-01 12:01:00+00', 'G8: under a lease of a minute');
SELECT pg_temp.at('12:00:59.999') \g /dev/null
SELECT is(pg_temp.beat('g8 beating'), 'extended until 12:01:59.999', 'G8: that its heartbeats extend');
SELECT pg_temp.at('12:01:59.999') \g /dev/null
SELECT is_empty($$SELECT * FROM holdfast.claim('g8 beating', 'w2')$$, 'G8: without them it is noticed at its end');
SELECT is(pg_temp.state('g8 beating'), 'pending, reconcile, ledger unknown', 'G8: as lost');

-- JQ008: a claim is committed before its work begins

SET holdfast.single_transaction = off;
SELECT pg_temp.at('13:00:00') \g /dev/null
SELECT pg_temp.started('uncommitted', 'plain') \g /dev/null
SELECT pg_temp.stored() AS before \gset
SELECT throws_ok(format(call, pg_temp.id('uncommitted'), pg_temp.lease('uncommitted')), 'JQ008', NULL, 'G7: ' || split_part(call, '(', 1) || ' in the transaction that claimed is refused')
FROM unnest(ARRAY['SELECT holdfast.complete(%s, %L)', 'SELECT * FROM holdfast.complete_batch(ARRAY[%s], ARRAY[%L]::uuid[])', 'SELECT * FROM holdfast.complete_and_claim(''uncommitted'', ''w'', ARRAY[%s], ARRAY[%L]::uuid[])',
	'SELECT * FROM holdfast.fail(%s, %L, ''TimeoutError'')', 'SELECT * FROM holdfast.schedule_retry(%s, %L)',
	'SELECT * FROM holdfast.snooze(%s, %L, ''1 s'')', 'SELECT * FROM holdfast.release(%s, %L)']) AS call;
SELECT is(pg_temp.stored(), :'before', 'G7: and nothing has changed');
SAVEPOINT s;
SELECT pg_temp.started('in subtransaction', 'plain') \g /dev/null
RELEASE s;
SELECT throws_ok(format('SELECT holdfast.complete(%s, %L)', pg_temp.id('in subtransaction'), pg_temp.lease('in subtransaction')), 'JQ008', NULL, 'G7: a subtransaction is no commit');
SELECT is((SELECT outcome FROM holdfast.heartbeat(pg_temp.id('uncommitted'), pg_temp.lease('uncommitted'))), 'extended', 'a heartbeat settles nothing');
SELECT pg_temp.started('without effects', 'plain', side_effects => false) \g /dev/null
SELECT is(holdfast.complete(pg_temp.id('without effects'), pg_temp.lease('without effects')), 'completed', 'G7: without side effects claim, own writes and complete are one transaction');
SET holdfast.single_transaction = on;
SELECT is(holdfast.complete(pg_temp.id('uncommitted'), pg_temp.lease('uncommitted')), 'completed', 'the superuser''s setting is for tests like these');

-- arguments out of bounds: a documented SQLSTATE, and nothing changed

SELECT pg_temp.started('bad', 'plain') \g /dev/null
CREATE TEMPORARY TABLE bad (call text, states text[]);
INSERT INTO bad VALUES
	('heartbeat(NULL, %2$L)', '{22004}'), ('heartbeat(%1$s, NULL)', '{22004}'), ('heartbeat(%1$s, %2$L, ''0 s'')', '{22023,JQ005}'),
	('heartbeat(%1$s, %2$L, ''-1 s'')', '{22023}'), ('heartbeat(%1$s, %2$L, ''1 mon'')', '{22023}'), ('heartbeat(%1$s, %2$L, ''2562047788 h'')', '{22023}'),
	('heartbeat(%1$s, %2$L, ''-2147483648 days'')', '{22023}'), ('heartbeat(%1$s, ''no uuid'')', '{22P02}'),
	('validate_lease(NULL, %2$L)', '{22004}'), ('validate_lease(%1$s, NULL)', '{22004}'),
	('assert_lease(NULL, %2$L)', '{22004}'), ('assert_lease(%1$s, NULL)', '{22004}'), ('assert_lease(-1, %2$L)', '{JQ001}'), ('assert_lease(0, %2$L)', '{JQ001}');
SELECT pg_temp.stored() AS before \gset
SELECT is(CASE WHEN state = ANY (states) THEN 'refused' ELSE state END, 'refused', format(call, 'job', 'lease') || ' is refused')
FROM bad, pg_temp.refusal(format('SELECT * FROM holdfast.' || call, pg_temp.id('bad'), pg_temp.lease('bad'))) AS state;
SELECT is(pg_temp.stored(), :'before', 'a refused call has changed nothing');

-- a queue that other hands have deleted: its jobs that run may still be reported on

SELECT pg_temp.started('orphan'), pg_temp.started('doubt') \g /dev/null
SELECT holdfast.fail(pg_temp.id('doubt'), pg_temp.lease('doubt'), 'TimeoutError'), pg_temp.again('doubt') \g /dev/null
SELECT pg_temp.planted('queue', 'DELETE FROM holdfast.queue WHERE queue_name IN (''orphan'', ''doubt'')') \g /dev/null
SELECT pg_temp.at(lease_expires_at - interval '1 s'), lease_expires_at AS lease_end FROM holdfast.job WHERE job_id = pg_temp.id('orphan') \gset
SELECT is(h, row('extended', :'lease_end'::timestamptz)::holdfast.heartbeat_result, 'a heartbeat has nothing to extend the lease by, and keeps it')
FROM holdfast.heartbeat(pg_temp.id('orphan'), pg_temp.lease('orphan')) h;
SELECT is(h, row('extended', pg_temp.clock() + interval '5 min')::holdfast.heartbeat_result, 'but what is asked for')
FROM holdfast.heartbeat(pg_temp.id('orphan'), pg_temp.lease('orphan'), '5 min') h;
SELECT is(holdfast.complete(pg_temp.id('orphan'), pg_temp.lease('orphan')), 'completed', 'and it can be completed');
SELECT is((SELECT outcome FROM holdfast.reconcile(pg_temp.id('doubt'), pg_temp.lease('doubt'), 'not_landed')), 'execute', 'a finding counts, too');
SELECT is((SELECT status || ', ' || mode FROM pg_temp.job WHERE job_id = pg_temp.id('doubt')), 'running, execute', 'and the job goes on under its lease');

SELECT * FROM finish();
ROLLBACK;
