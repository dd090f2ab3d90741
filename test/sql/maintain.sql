\i test/setup.sql
\i test/tools.sql
-- Upkeep: partitions, overflow, retention, what nobody claimed, figures; and how long a worker may sleep.
SELECT plan(72);

SELECT pg_temp.at('00:00:00') \g /dev/null
SELECT holdfast.define_retry_policy('p', '10 s', backoff_rate => 1, jitter_window => '0', min_delay => '1 s', max_attempts => 3,
	reconcile_delay => '60 s') \g /dev/null
CREATE FUNCTION pg_temp.later(by interval) RETURNS timestamptz LANGUAGE sql AS $$ SELECT pg_temp.at(pg_temp.clock() + $1) $$;
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
CREATE FUNCTION pg_temp.maintained() RETURNS void LANGUAGE sql AS $$ SELECT count(*) FROM holdfast.maintain() $$;
CREATE FUNCTION pg_temp.days() RETURNS SETOF text LANGUAGE sql AS $$
	SELECT substring(pg_get_expr(c.relpartbound, c.oid) FROM 'FROM \(''(\d{4}-\d\d-\d\d)')
	FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'holdfast.event'::regclass ORDER BY 1
$$;
COMMENT ON FUNCTION pg_temp.days() IS 'the days that event has a partition for';
CREATE FUNCTION pg_temp.has_day(day text) RETURNS boolean LANGUAGE sql AS $$ SELECT EXISTS (SELECT FROM pg_temp.days() d WHERE d = $1) $$;

-- next_wakeup

CREATE FUNCTION pg_temp.wakeup(run_after interval[], running interval DEFAULT NULL) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
	q		text := 'wake ' || md5(run_after::text || coalesce(running::text, ''));
	wait	interval;
BEGIN
	PERFORM holdfast.create_queue(q, lease => coalesce(running, '90 s'), timeout => coalesce(running, '90 s') - interval '1 ms', grace => '1 ms');
	IF running IS NOT NULL THEN
		PERFORM holdfast.enqueue(q, 'act', q || ' running');
		PERFORM holdfast.claim(q, 'w');
	END IF;
	FOREACH wait IN ARRAY run_after LOOP
		PERFORM holdfast.enqueue(q, 'act', q || wait, run_after => pg_temp.clock() + wait);
	END LOOP;
	RETURN holdfast.next_wakeup(q);
END
$$;
SELECT is(pg_temp.wakeup(parked::interval[], running::interval), ms, 'next_wakeup: ' || claim) FROM (VALUES
	('{}', NULL, NULL, 'nothing is scheduled'), ('{0}', NULL, 0, 'a job is due'), ('{1 h,0}', NULL, 0, 'one of two is due'),
	('{30 s}', NULL, 30000, 'the next is due in 30 s'), ('{40 s,20 s,30 s}', NULL, 20000, 'the first of three'),
	('{1 ms}', NULL, 1, 'in a millisecond'), ('{0.0015 s}', NULL, 2, 'never early: a fraction is rounded up'),
	('{1 min}', NULL, 60000, 'in a minute'), ('{60.001 s}', NULL, 60000, 'at most a minute'), ('{1 day}', NULL, 60000, 'not a day'),
	('{}', '90 s', 1000, 'at most a second while jobs run'), ('{1 h}', '90 s', 1000, 'though the next is due in an hour'),
	('{10 ms}', '90 s', 10, 'the next is due before that')
) AS v (parked, running, ms, claim);
SELECT holdfast.create_queue('priorities') \g /dev/null
SELECT holdfast.enqueue('priorities', 'act', p::text, priority => p, delay => make_interval(secs => 50 - p)) FROM generate_series(-20, 20, 10) AS p \g /dev/null
SELECT is(holdfast.next_wakeup('priorities'), 30000, 'next_wakeup: the soonest, whatever its priority');
SELECT pg_temp.started('doubt', 'p'), pg_temp.tell('doubt', 'fail(@job, ''Boom'')') \g /dev/null
SELECT is(holdfast.next_wakeup('doubt'), 10000, 'next_wakeup: jobs to reconcile count, too');
SELECT throws_ok($$SELECT holdfast.next_wakeup('nowhere')$$, '42704', NULL, 'next_wakeup of an unknown queue is refused');
SELECT throws_ok($$SELECT holdfast.next_wakeup(NULL)$$, '22004', NULL, 'and of null');

-- partitions ahead

SELECT ok(pg_temp.has_day('2030-01-01') AND pg_temp.has_day('2030-01-02') AND pg_temp.has_day('2030-01-07'), 'create_queue makes partitions ahead');
SELECT pg_temp.later('2 days'), pg_temp.maintained() \g /dev/null
SELECT ok(pg_temp.has_day('2030-01-04') AND pg_temp.has_day('2030-01-09'), 'maintain makes the next ones');
SELECT is((SELECT count(*) FROM pg_temp.days()), (SELECT count(DISTINCT d) FROM pg_temp.days() d), 'each day once');
SELECT is_empty($$SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid, pg_class p
	WHERE p.oid = 'holdfast.event'::regclass AND i.inhparent = p.oid AND (c.relowner <> p.relowner OR c.relacl IS NOT NULL AND c.relacl <> '{}'
		AND EXISTS (SELECT FROM aclexplode(c.relacl) a WHERE a.grantee <> c.relowner))$$, 'G13: they are the extension owner''s, and nobody else''s');
SELECT is_empty($$SELECT 1 FROM pg_index WHERE indrelid = 'holdfast.event'::regclass$$, 'event itself has no index that a partition would inherit');
SELECT is((SELECT min(n) || ' ' || max(n) FROM (SELECT count(*) AS n FROM pg_inherits i LEFT JOIN pg_index x ON x.indrelid = i.inhrelid
	WHERE i.inhparent = 'holdfast.event'::regclass GROUP BY i.inhrelid) c), '2 2', 'each has the two indexes of its own');

-- the overflow

SELECT pg_temp.at('2030-01-20 23:59:50+00'::timestamptz) \g /dev/null
SELECT holdfast.enqueue('priorities', 'act', 'overflow', priority => -100) \g /dev/null
CREATE TEMPORARY TABLE overflow AS SELECT * FROM holdfast.claim('priorities', 'w');
SELECT is((SELECT subject FROM overflow), 'overflow', 'a job on a day without a partition');
SELECT pg_temp.later('20 s') \g /dev/null
SELECT is((SELECT holdfast.complete(job_id, lease_id) FROM overflow), 'completed', 'completed on the next, without a partition, too');
CREATE TEMPORARY TABLE events AS SELECT * FROM holdfast.event_overflow;
SELECT is((SELECT string_agg(kind, ' ' ORDER BY event_id) FROM events), 'action_attempt_started action_attempt_succeeded', 'G7: event_overflow takes the events');
SELECT ok(NOT pg_temp.has_day('2030-01-20') AND NOT pg_temp.has_day('2030-01-21'), 'setting the scene');
SELECT pg_temp.later('1 day'), pg_temp.maintained() \g /dev/null
SELECT results_eq('SELECT * FROM holdfast.event WHERE job_id = (SELECT job_id FROM overflow) ORDER BY event_id', 'SELECT * FROM events ORDER BY event_id', 'G7: maintain moves them unchanged');
SELECT is_empty('SELECT * FROM holdfast.event_overflow', 'G7: and leaves none behind');
SELECT results_eq($$SELECT count(*) FROM holdfast.event WHERE event_id IN (SELECT event_id FROM events)$$, $$VALUES (2::bigint)$$, 'G10: each is in one place');
SELECT ok(pg_temp.has_day('2030-01-20') AND pg_temp.has_day('2030-01-21'), 'into their days');
SELECT ok(pg_temp.has_day('2030-01-22') AND pg_temp.has_day('2030-01-23'), 'and the next ones are there, too');

-- leases and deadlines, in queues that nobody claims from

SELECT pg_temp.at('2030-01-22 12:00:00+00'::timestamptz) \g /dev/null
SELECT pg_temp.started('lease', 'p'), pg_temp.started('plain', 'p', false), pg_temp.started('paused', 'p'), holdfast.pause_queue('paused') \g /dev/null
SELECT pg_temp.started('asked', 'p'), pg_temp.tell('asked', 'cancel(@id)') \g /dev/null
SELECT pg_temp.started('committed', 'p'), pg_temp.tell('committed', 'ledger_transition(@job, ''committed'')') \g /dev/null
SELECT pg_temp.started('reconciling', 'p'), pg_temp.tell('reconciling', 'fail(@job, ''Boom'')') \g /dev/null
SELECT pg_temp.started('deadline', 'p', true, '{"give_up_at": "2030-01-22 12:01:30+00"}'), pg_temp.tell('deadline', 'release(@job)') \g /dev/null
SELECT pg_temp.started('deadline2', 'p', true, '{"give_up_at": "2030-01-22 12:01:30+00"}'), pg_temp.tell('deadline2', 'fail(@job, ''Boom'', side_effect => ''none'')') \g /dev/null
SELECT pg_temp.started('deadline3', 'p', true, '{"give_up_at": "2030-01-22 12:01:30+00"}'), pg_temp.tell('deadline3', 'fail(@job, ''Boom'')') \g /dev/null
SELECT pg_temp.later('10 s'), pg_temp.again('reconciling') \g /dev/null
SELECT pg_temp.at('2030-01-22 12:01:29.999+00'::timestamptz), pg_temp.maintained() \g /dev/null
SELECT is(pg_temp.state(name), state, 'G9: one millisecond before, maintain leaves it: ' || name) FROM (VALUES
	('lease', 'running, execute, ledger started'), ('plain', 'running, execute, ledger none'), ('asked', 'running, execute, ledger started'),
	('deadline', 'pending, execute, ledger planned'), ('deadline2', 'pending, execute, ledger failed_retryable')) AS v (name, state);
SELECT pg_temp.later('1 ms') \g /dev/null
SELECT is((SELECT sum(done) FROM holdfast.maintain() WHERE task LIKE 'leases%'), 7::numeric, 'G8: maintain settles what is over, and says how many');
SELECT is(pg_temp.state(name), state, format('G8: maintain, %s: %s', name, state)) FROM (VALUES
	('lease', 'pending, reconcile, ledger unknown'), ('plain', 'pending, execute, ledger none'), ('paused', 'pending, reconcile, ledger unknown'),
	('asked', 'dead (unresolved), ledger unknown'), ('committed', 'gone, ledger committed'), ('reconciling', 'running, reconcile, ledger unknown'),
	('deadline', 'dead (deadline), ledger failed_terminal'), ('deadline2', 'dead (deadline), ledger failed_terminal'),
	('deadline3', 'pending, reconcile, ledger unknown')) AS v (name, state);
SELECT is((SELECT count(*) FROM pg_temp.finding f JOIN scene s USING (job_id) WHERE s.name = 'lease' AND f.kind = 'lost_lease'), 1::bigint, 'G8: a lost lease is a finding');
SELECT is(pg_temp.tell('lease', 'complete(@job)'), 'stale', 'G2: a report after maintain noted the lease''s end is stale');
SELECT is((SELECT run_after FROM pg_temp.job WHERE job_id = pg_temp.id('lease')), pg_temp.clock() + '60 s', 'G3: the delay counts from the discovery');
SELECT pg_temp.later('10 s'), pg_temp.maintained() \g /dev/null
SELECT is(pg_temp.state('reconciling'), 'pending, reconcile, ledger unknown', 'G8: a lease in mode reconcile is settled, too');

-- twice

SELECT pg_temp.stored() AS before \gset
SELECT results_eq('SELECT task, done FROM holdfast.maintain() WHERE done <> 0', $$SELECT ''::text, 0::bigint WHERE false$$, 'maintain again finds nothing to do');
SELECT is(pg_temp.stored(), :'before', 'and changes nothing');

-- the hours

SELECT pg_temp.at('2030-01-23 07:10:00+00'::timestamptz), pg_temp.maintained() \g /dev/null
SELECT holdfast.create_queue('hours', retry_policy => 'p', side_effects => false) \g /dev/null
CREATE FUNCTION pg_temp.attempt(subject text, call text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM holdfast.enqueue('hours', 'act', attempt.subject);
	EXECUTE 'SELECT FROM holdfast.claim(''hours'', ''w'') AS c, LATERAL holdfast.' || call;
END
$$;
SELECT pg_temp.attempt('h' || n, 'complete(c.job_id, c.lease_id)') FROM generate_series(1, 3) AS n \g /dev/null
SELECT pg_temp.attempt('f1', 'fail(c.job_id, c.lease_id, ''ValidationError'')'), pg_temp.attempt('s1', 'snooze(c.job_id, c.lease_id, ''1 day'')') \g /dev/null
SELECT pg_temp.at('2030-01-23 07:59:59.9+00'::timestamptz), pg_temp.attempt('h4', 'complete(c.job_id, c.lease_id)') \g /dev/null
SELECT pg_temp.maintained() \g /dev/null
SELECT is_empty($$SELECT * FROM holdfast.queue_hour h JOIN holdfast.queue q ON q.queue_id = h.queue WHERE q.queue_name = 'hours'$$, 'an hour is counted once it is over');
SELECT pg_temp.at('2030-01-23 08:00:00+00'::timestamptz), pg_temp.attempt('h5', 'complete(c.job_id, c.lease_id)'), pg_temp.maintained() \g /dev/null
SELECT results_eq($$SELECT h.hour, h.started, h.succeeded, h.failed, h.lost, h.snoozed, h.dead FROM holdfast.queue_hour h JOIN holdfast.queue q ON q.queue_id = h.queue WHERE q.queue_name = 'hours'$$,
	$$VALUES ('2030-01-23 07:00:00+00'::timestamptz, 6::bigint, 4::bigint, 1::bigint, 0::bigint, 1::bigint, 1::bigint)$$, 'attempts and outcomes by hour');
SELECT pg_temp.maintained() \g /dev/null
SELECT is((SELECT sum(h.started) FROM holdfast.queue_hour h JOIN holdfast.queue q ON q.queue_id = h.queue WHERE q.queue_name = 'hours'), 6::numeric, 'no hour is counted twice');
SELECT pg_temp.at('2030-01-23 11:30:00+00'::timestamptz), pg_temp.maintained() \g /dev/null
SELECT results_eq($$SELECT h.hour, h.started, h.succeeded FROM holdfast.queue_hour h JOIN holdfast.queue q ON q.queue_id = h.queue WHERE q.queue_name = 'hours' ORDER BY 1$$,
	$$VALUES ('2030-01-23 07:00:00+00'::timestamptz, 6::bigint, 4::bigint), ('2030-01-23 08:00:00+00', 1, 1)$$, 'the next hour, and quiet ones cost no row');

-- the ledger

SELECT holdfast.create_queue('short', retry_policy => 'p', retention => '1 day', ledger_retention => '2 days') \g /dev/null
CREATE FUNCTION pg_temp.short(subject text, call text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM holdfast.enqueue('short', 'act', short.subject);
	EXECUTE 'SELECT FROM holdfast.claim(''short'', ''w'') AS c, LATERAL holdfast.' || call;
END
$$;
SELECT pg_temp.at('2030-01-24 12:00:00+00'::timestamptz) \g /dev/null
SELECT pg_temp.short('all done', 'complete(c.job_id, c.lease_id)') \g /dev/null
SELECT pg_temp.short('doubtful', 'fail(c.job_id, c.lease_id, ''Boom'')') \g /dev/null
SELECT pg_temp.short('doubtful, dead', 'cancel(c.job_id, NULL, true)') \g /dev/null
SELECT pg_temp.short('retryable', 'fail(c.job_id, c.lease_id, ''Boom'', side_effect => ''none'', retry_after => ''10 days'')') \g /dev/null
SELECT holdfast.cancel((SELECT job_id FROM holdfast.enqueue('short', 'act', 'cancelled'))) \g /dev/null
SELECT holdfast.enqueue('short', 'act', 'parked for long', delay => '30 days') \g /dev/null
CREATE FUNCTION pg_temp.kept() RETURNS text LANGUAGE sql AS $$ SELECT string_agg(subject, '; ' ORDER BY subject) FROM pg_temp.ledger WHERE queue = 'short' $$;
SELECT pg_temp.at('2030-01-26 11:59:59.999+00'::timestamptz), pg_temp.maintained() \g /dev/null
SELECT is(pg_temp.kept(), 'all done; cancelled; doubtful; doubtful, dead; parked for long; retryable', 'G5: no row goes before ledger_retention');
SELECT is((SELECT outcome FROM holdfast.enqueue('short', 'act', 'all done')), 'already_committed', 'G5: a committed intent is known so long');
SELECT pg_temp.later('2 ms'), pg_temp.maintained(), pg_temp.maintained() \g /dev/null
SELECT is(pg_temp.kept(), 'doubtful; doubtful, dead; parked for long; retryable', 'G6: past it, rows go, but never unknown ones, nor those of live jobs');
SELECT is((SELECT outcome FROM holdfast.enqueue('short', 'act', 'all done')), 'created', 'G5: the intent is no longer known');
SELECT pg_temp.later('400 days'), pg_temp.maintained(), pg_temp.maintained() \g /dev/null
SELECT is((SELECT string_agg(state, ' ') FROM pg_temp.ledger WHERE queue = 'short' AND subject LIKE 'doubtful%'), 'unknown unknown', 'G6: time never settles unknown');

-- partitions past retention; the longest of any queue is 90 days

SELECT holdfast.create_queue('kept'), holdfast.create_queue('unkept') \g /dev/null
SELECT pg_temp.at('2032-01-01 12:00:00+00'::timestamptz), pg_temp.maintained() \g /dev/null
SELECT holdfast.enqueue('kept', 'act', 'live', run_after => '2033-01-01 00:00:00+00') \g /dev/null
SELECT pg_temp.at('2032-01-02 12:00:00+00'::timestamptz), holdfast.enqueue('kept', 'act', 'live') \g /dev/null
SELECT holdfast.enqueue('unkept', 'act', 'done') \g /dev/null
SELECT pg_temp.at('2032-01-03 12:00:00+00'::timestamptz), holdfast.complete(job_id, lease_id) FROM holdfast.claim('unkept', 'w') \g /dev/null
SELECT pg_temp.at('2032-01-04 12:00:00+00'::timestamptz), holdfast.enqueue('unkept', 'act', 'doubt') \g /dev/null
SELECT holdfast.cancel(job_id, NULL, true) FROM holdfast.claim('unkept', 'w') \g /dev/null
SELECT pg_temp.at('2032-04-01 23:59:59.999+00'::timestamptz), pg_temp.maintained() \g /dev/null
SELECT ok(pg_temp.has_day('2032-01-02'), 'a day is kept until its last event is past retention');
SELECT pg_temp.at('2032-04-02 00:00:00+00'::timestamptz), pg_temp.maintained() \g /dev/null
SELECT ok(pg_temp.has_day('2032-01-02'), 'G10: a day with evidence of a live job is kept beyond it');
SELECT pg_temp.at('2032-04-20 00:00:00+00'::timestamptz), pg_temp.maintained() \g /dev/null
SELECT ok(NOT pg_temp.has_day('2032-01-03'), 'a day without any is dropped');
SELECT ok(NOT pg_temp.has_day('2032-01-01'), 'an empty one, too');
SELECT ok(pg_temp.has_day('2032-01-04'), 'G6: one with evidence of an unknown effect is kept');
SELECT is((SELECT count(*) FROM holdfast.event e WHERE e.subject = 'live'), 1::bigint, 'G10: the live job''s evidence is there');
SELECT results_eq($$SELECT min(oldest_evidence), count(kept_by_job) > 0 FROM holdfast.metrics('kept')$$, $$SELECT (SELECT min(d)::date FROM pg_temp.days() d), true$$,
	'metrics name the oldest day kept, and a job that keeps one');
SELECT holdfast.cancel(job_id) FROM pg_temp.job WHERE subject = 'live' \g /dev/null
SELECT FROM pg_temp.ledger l, holdfast.settle_unknown(l.idempotency_key, 'landed', '{}', 'r') WHERE l.state = 'unknown' \g /dev/null
SELECT pg_temp.maintained() \g /dev/null
SELECT ok(NOT pg_temp.has_day('2032-01-02') AND NOT pg_temp.has_day('2032-01-04'), 'when nothing of them is live or unknown any more, they are dropped');
SELECT ok(pg_temp.has_day('2032-04-20') AND pg_temp.has_day('2032-04-21'), 'those of now stay');
SELECT is((SELECT count(*) FROM holdfast.event e WHERE e.subject IN ('live', 'doubt')), 2::bigint, 'G7: with what has just been recorded in them');

SELECT * FROM finish();
ROLLBACK;
