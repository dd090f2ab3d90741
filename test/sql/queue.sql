\i test/setup.sql
-- Queues: settings, their bounds, and what a drop leaves behind.
SELECT plan(58);

CREATE FUNCTION pg_temp.refusal(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail	text;
	hint	text;
BEGIN
	EXECUTE statement;
	RETURN 'not refused';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(E'\n', SQLSTATE || ': ' || SQLERRM, nullif(detail, ''), nullif(hint, ''));
END
$$;
-- a call of create_queue with one argument more, and what came of it
CREATE FUNCTION pg_temp.create_with(argument text) RETURNS text LANGUAGE sql AS $$
	SELECT left(pg_temp.refusal('SELECT holdfast.create_queue(''probe'', ' || argument || ')'), 5)
$$;
CREATE FUNCTION pg_temp.queue_id(queue_name text) RETURNS integer LANGUAGE sql AS $$
	SELECT q.queue_id FROM holdfast.queue q WHERE q.queue_name = $1
$$;
CREATE VIEW pg_temp.evidence AS SELECT * FROM holdfast.event UNION ALL SELECT * FROM holdfast.event_overflow;

SET LOCAL holdfast.clock = '2030-01-01 00:00:00+00';

-- create_queue

SELECT lives_ok($$SELECT holdfast.create_queue('mail')$$, 'a queue needs nothing but a name');
SELECT results_eq(
	$$SELECT * FROM holdfast.list_queues() WHERE queue_name = 'mail'$$,
	$$VALUES ('mail', '90 s'::interval, '60 s'::interval, '15 s'::interval, NULL::interval, 'default', NULL::integer, true,
			  'any', '90 days'::interval, '400 days'::interval, false, false, NULL, '2030-01-01 00:00:00+00'::timestamptz)$$,
	'list_queues shows the defaults, and the one clock''s time');
SELECT is(pg_temp.refusal($$SELECT holdfast.create_queue('mail', lease => '100 s')$$),
	E'42710: queue "mail" already exists\nChange it with holdfast.alter_queue(), or choose another name.',
	'a name is taken once, and the error says what to do');
SELECT is((SELECT lease FROM holdfast.list_queues() WHERE queue_name = 'mail'), '90 s'::interval,
	'the queue that had the name is as it was');

SELECT is(left(pg_temp.refusal('SELECT holdfast.create_queue(NULL)'), 5), '22004', 'a queue has a name');
SELECT is(left(pg_temp.refusal('SELECT holdfast.create_queue('''')'), 5), '22023', 'the name is not empty');
SELECT lives_ok('SELECT holdfast.create_queue(repeat(''x'', 200))', 'a name of 200 bytes is accepted');
SELECT is(left(pg_temp.refusal('SELECT holdfast.create_queue(repeat(''x'', 201))'), 5), '22023',
	'a name of 201 bytes is refused');

SELECT is(pg_temp.create_with(argument), expected, argument || ' is refused')
FROM (VALUES
	('lease => ''0 s''', '22023'),
	('lease => ''1 day 1 ms''', '22023'),
	('lease => NULL', '22004'),
	('timeout => ''0 s''', '22023'),
	('timeout => ''1 mon''', '22023'),
	('grace => ''-1 ms''', '22023'),
	('heartbeat => ''0 s''', '22023'),
	('max_attempts => 0', '22023'),
	('side_effects => NULL', '22004'),
	('reconcile => ''both''', '22023'),
	('retention => ''23:59:59''', '22023'),
	('retention => ''3651 days''', '22023'),
	('auto_recover => NULL', '22004'),
	('retry_policy => ''absent''', '42704')
) AS bad (argument, expected);
SELECT is(pg_temp.refusal($$SELECT holdfast.create_queue('probe', retention => '30 days', ledger_retention => '29 days')$$),
	E'22023: argument "ledger_retention" must not be shorter than "retention"\n'
	'The ledger would be kept for 2505600000 ms, the events for 2592000000 ms.\n'
	'Set ledger_retention to at least 30 days.',
	'the ledger is kept as long as the events that it explains');

SELECT holdfast.define_retry_policy('gentle', '1 min') \g /dev/null
SELECT lives_ok($$SELECT holdfast.create_queue('gentle', retry_policy => 'gentle', side_effects => false,
											  max_attempts => 2147483647, reconcile => 'separate')$$,
	'a queue may have a policy of its own');

-- G8

SELECT is(pg_temp.refusal($$SELECT holdfast.create_queue('short', lease => '74.999 s')$$),
	E'JQ005: lease of 74999 ms is shorter than timeout and grace of queue "short"\n'
	'The timeout is 60000 ms and the grace 15000 ms, together 75000 ms; no heartbeat is declared.\n'
	'Set the lease to at least 75000 ms, lower the timeout, or declare a heartbeat of at most 24999 ms.',
	'G8: a lease 1 ms below timeout + grace is refused, with both figures');
SELECT is(pg_temp.refusal($$SELECT holdfast.create_queue('short', lease => '59.999 s', heartbeat => '20 s')$$),
	E'JQ005: lease of 59999 ms is shorter than timeout and grace, and than three heartbeats, of queue "short"\n'
	'The timeout is 60000 ms and the grace 15000 ms, together 75000 ms; the heartbeat is 20000 ms, three of them 60000 ms.\n'
	'Set the lease to at least 75000 ms, lower the timeout, or declare a heartbeat of at most 19999 ms.',
	'G8: a lease 1 ms below three heartbeats is refused, with the figures');
SELECT is(pg_temp.refusal($$SELECT holdfast.create_queue('short', timeout => '1 day', grace => '1 ms', lease => '1 day')$$),
	E'JQ005: lease of 86400000 ms is shorter than timeout and grace of queue "short"\n'
	'The timeout is 86400000 ms and the grace 1 ms, together 86400001 ms; no heartbeat is declared.\n'
	'Lower the timeout, or declare a heartbeat of at most 28800000 ms.',
	'G8: the hint names no lease that would be refused');
SELECT is_empty($$SELECT * FROM holdfast.list_queues() WHERE queue_name = 'short'$$, 'G8: nothing of it is stored');
SELECT lives_ok($$SELECT holdfast.create_queue('exact', lease => '75 s')$$, 'G8: timeout + grace is enough');
SELECT lives_ok($$SELECT holdfast.create_queue('beating', timeout => '6 h', lease => '60 s', heartbeat => '20 s')$$,
	'G8: three heartbeats are enough, however long the timeout');

-- alter_queue

CREATE TEMPORARY TABLE before AS SELECT * FROM holdfast.list_queues() WHERE queue_name IN ('beating', 'gentle');
SELECT holdfast.alter_queue('beating'), holdfast.alter_queue('gentle') \g /dev/null
SELECT results_eq($$SELECT * FROM holdfast.list_queues() WHERE queue_name IN ('beating', 'gentle')$$,
	'SELECT * FROM before', 'alter_queue leaves what is null as it is');
SELECT is(left(pg_temp.refusal($$SELECT holdfast.alter_queue('beating', heartbeat => '0')$$), 5), 'JQ005',
	'G8: a heartbeat on which the lease rests cannot be cleared');
SELECT is(left(pg_temp.refusal($$SELECT holdfast.alter_queue('exact', timeout => '60.001 s')$$), 5), 'JQ005',
	'G8: a longer timeout needs a longer lease');
SELECT is(left(pg_temp.refusal($$SELECT holdfast.alter_queue('exact', grace => '15.001 s')$$), 5), 'JQ005',
	'G8: a longer grace needs a longer lease');
SELECT holdfast.alter_queue('beating', lease => '2 h', timeout => '90 min', heartbeat => '0', max_attempts => 3,
							retry_policy => 'gentle', side_effects => false, reconcile => 'separate',
							retention => '10 days', ledger_retention => '20 days', auto_recover => true,
							grace => '30 min') \g /dev/null
SELECT results_eq($$SELECT * FROM holdfast.list_queues() WHERE queue_name = 'beating'$$,
	$$VALUES ('beating', '2 h'::interval, '90 min'::interval, '30 min'::interval, NULL::interval, 'gentle', 3, false,
			  'separate', '10 days'::interval, '20 days'::interval, true, false, NULL, '2030-01-01 00:00:00+00'::timestamptz)$$,
	'alter_queue changes every setting; a heartbeat of 0 clears it');
SELECT holdfast.alter_queue('beating', max_attempts => 0) \g /dev/null
SELECT is((SELECT max_attempts FROM holdfast.list_queues() WHERE queue_name = 'beating'), NULL,
	'max_attempts of 0 clears it');
SELECT is(pg_temp.refusal($$SELECT holdfast.alter_queue('absent', lease => '2 min')$$),
	E'42704: queue "absent" does not exist\nCreate it with holdfast.create_queue(), or see holdfast.list_queues().',
	'an unknown queue is named in the error');

-- define_stream

SELECT holdfast.define_stream('mail', 'account-1') \g /dev/null
SELECT results_eq($$SELECT state, consecutive_terminal, threshold, cool_down FROM holdfast.stream WHERE key = 'account-1'$$,
	$$VALUES ('closed' COLLATE "C", 0, 5, '5 min'::interval)$$, 'a stream begins closed, with the defaults');
INSERT INTO holdfast.stream (queue, key, state, consecutive_terminal, threshold, cool_down, opened_at, cool_down_ends)
	VALUES (pg_temp.queue_id('mail'), 'account-2', 'open', 7, 5, '5 min', '2030-01-01 00:00:00+00', '2030-01-01 00:05:00+00');
SELECT holdfast.define_stream('mail', 'account-2', 9, '1 h') \g /dev/null
SELECT results_eq($$SELECT state, consecutive_terminal, threshold, cool_down, opened_at FROM holdfast.stream WHERE key = 'account-2'$$,
	$$VALUES ('open' COLLATE "C", 7, 9, '1 h'::interval, '2030-01-01 00:00:00+00'::timestamptz)$$,
	'defining a stream anew keeps its state and count');
SELECT results_eq(
	$$SELECT left(pg_temp.refusal('SELECT holdfast.define_stream(' || arguments || ')'), 5)
	  FROM (VALUES (1, '''absent'', ''s'''), (2, '''mail'', '''''), (3, '''mail'', NULL'), (4, '''mail'', ''s'', 0'),
				   (5, '''mail'', ''s'', 1, ''0 s'''), (6, '''mail'', ''s'', 1, ''1 year''')) AS bad (n, arguments)
	  ORDER BY n$$,
	ARRAY['42704', '22023', '22004', '22023', '22023', '22023'], 'a stream''s figures have bounds');

-- drop_queue

SELECT is(left(pg_temp.refusal($$SELECT holdfast.drop_queue('absent')$$), 5), '42704', 'only a queue that exists is dropped');
SELECT lives_ok($$SELECT holdfast.drop_queue('exact')$$, 'an empty queue is dropped');

CREATE TEMPORARY TABLE dropped AS SELECT pg_temp.queue_id('mail') AS queue_id;
SELECT holdfast.enqueue('mail', 'send_email', 'ann'), holdfast.enqueue('mail', 'send_email', 'bob') \g /dev/null
SELECT is(pg_temp.refusal($$SELECT holdfast.drop_queue('mail')$$),
	E'55006: queue "mail" is not empty\nLive jobs: 2; dead jobs: 0; unknown side effects: 0.\n'
	'Let its jobs end, or call holdfast.drop_queue() with force => true: live jobs are then purged, on record, '
	'and dead jobs stay in holdfast.dead_job.',
	'G10: a queue with live jobs is not dropped silently');


INSERT INTO holdfast.dead_job
	SELECT (jsonb_populate_record(j, '{"job_id": 4000000000}')).*, '2030-01-01 00:00:00+00', 'budget'
	FROM holdfast.job j, dropped WHERE j.queue = dropped.queue_id LIMIT 1;
CREATE TEMPORARY TABLE seen AS SELECT e.* FROM pg_temp.evidence e, dropped WHERE e.queue = dropped.queue_id;
CREATE ROLE regress_holdfast_worker;
SELECT holdfast.grant_queue('mail', 'regress_holdfast_worker', 'worker') \g /dev/null
SELECT lives_ok($$SELECT holdfast.drop_queue('mail', force => true)$$, 'force drops a queue with live and dead jobs');
SELECT is_empty($$SELECT * FROM holdfast.list_queues() WHERE queue_name = 'mail'$$, 'the queue is gone');
SELECT is_empty('SELECT job_id FROM holdfast.job, dropped WHERE queue = queue_id', 'and its live jobs are');
SELECT is_empty('SELECT key FROM holdfast.stream, dropped WHERE queue = queue_id', 'and its streams are');
SELECT is_empty($$SELECT * FROM holdfast.grants WHERE queue_name = 'mail'$$,
	'G13: and its grants are, so that a later queue of this name is not open to them');
SELECT ok(NOT has_schema_privilege('regress_holdfast_worker', 'holdfast', 'USAGE'),
	'G13: and the privileges that came with them');
SELECT is((SELECT count(*) FROM pg_temp.evidence e, dropped WHERE e.queue = dropped.queue_id AND e.kind = 'action_purged'),
	2::bigint, 'G7: each purged job leaves its event');
SELECT is_empty('SELECT * FROM seen EXCEPT SELECT e.* FROM pg_temp.evidence e',
	'G7: the events from before are all there, unchanged');
SELECT results_eq('SELECT job_id FROM holdfast.dead_job, dropped WHERE queue = queue_id', ARRAY[4000000000],
	'G10: the dead job stays, with its payload');
SELECT results_eq(
	$$SELECT f.at, f.detail->>'queue_name', f.detail->>'by' FROM holdfast.finding f, dropped
	  WHERE f.queue = dropped.queue_id AND f.kind = 'queue_dropped'$$,
	$$VALUES ('2030-01-01 00:00:00+00'::timestamptz, 'mail', current_user::text COLLATE "default")$$,
	'G7: a finding keeps the name under which the evidence was written, when it was dropped and by whom');
SELECT holdfast.create_queue('mail') \g /dev/null
SELECT isnt(pg_temp.queue_id('mail'), (SELECT queue_id FROM dropped), 'G7: a queue''s number is never used again');

SELECT holdfast.create_queue('doubtful') \g /dev/null
SELECT holdfast.enqueue('doubtful', 'charge', 'ann'), holdfast.enqueue('doubtful', 'charge', 'bob') \g /dev/null
INSERT INTO holdfast.unknown_effect
	SELECT gen_random_uuid(), pg_temp.queue_id('doubtful'), n, '2030-01-01 00:00:00+00' FROM generate_series(1, 1001) n;
SELECT is(pg_temp.refusal($$SELECT holdfast.drop_queue('doubtful', force => true)$$),
	E'55006: queue "doubtful" has side effects whose outcome is unknown\n'
	'Live jobs: 0; dead jobs: 0; unknown side effects: at least 1000.\n'
	'Settle each unknown effect with holdfast.settle_unknown(); force does not pass over them, '
	'those of purged running jobs included.',
	'G6: not even force drops a queue with an unknown effect');
SELECT is((SELECT count(*) FROM holdfast.job WHERE queue = pg_temp.queue_id('doubtful')), 2::bigint,
	'G10: a drop that is refused has purged nothing');

-- a row entered by hand, with durations that create_queue would refuse, is no hindrance to the others

INSERT INTO holdfast.queue SELECT (jsonb_populate_record(q, '{"queue_id": 4711, "queue_name": "by hand", "lease": "1 mon", "timeout": "-1 year", "grace": "178000000 years"}')).*
	FROM holdfast.queue q WHERE q.queue_name = 'doubtful';
SELECT is((SELECT outcome FROM holdfast.enqueue('doubtful', 'charge', 'cid')), 'created', 'G10: jobs are entered in other queues');
SELECT is((SELECT count(*) FROM holdfast.claim('doubtful', 'w', 9)), 3::bigint, 'G10: and handed out');

SELECT * FROM finish();
ROLLBACK;
