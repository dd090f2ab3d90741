\i test/setup.sql
\i test/tools.sql
-- Streams: the breaker counts jobs that ended, parks what waits, and ends nothing early.
SELECT plan(145);

SELECT pg_temp.at('00:00:00') \g /dev/null
SELECT holdfast.define_retry_policy('p', '10 s', backoff_rate => 1, jitter_window => '0', min_delay => '1 s', max_attempts => 3,
	reconcile_delay => '60 s', reconcile_max => 1) \g /dev/null
SELECT holdfast.create_queue('loop', retry_policy => 'p'), holdfast.create_queue('other', retry_policy => 'p'),
	holdfast.create_queue('plain', retry_policy => 'p', side_effects => false) \g /dev/null

CREATE FUNCTION pg_temp.later(by interval) RETURNS timestamptz LANGUAGE sql AS $$ SELECT pg_temp.at(pg_temp.clock() + $1) $$;
CREATE FUNCTION pg_temp.breaker(key text, queue_name text DEFAULT 'loop') RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws(' ', s.state, s.consecutive_terminal, 'of', s.threshold)
	FROM holdfast.stream s JOIN holdfast.queue q ON q.queue_id = s.queue WHERE s.key = $1 AND q.queue_name = $2
$$;
-- a job of the stream, claimed; then it fails
CREATE FUNCTION pg_temp.run(stream text, subject text, give_up_at timestamptz DEFAULT NULL, queue_name text DEFAULT 'loop') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	context	holdfast.execution_context;
BEGIN
	PERFORM holdfast.enqueue(run.queue_name, 'act', run.subject, stream => run.stream, give_up_at => run.give_up_at);
	SELECT * INTO context FROM holdfast.claim(run.queue_name, 'w');
	IF context.job_id IS NULL THEN
		RETURN 'none';
	END IF;
	INSERT INTO scene VALUES (context.subject, context.job_id, context.idempotency_key, context.lease_id);
	RETURN context.subject;
END
$$;
CREATE FUNCTION pg_temp.fails(subject text, error_class text DEFAULT 'ValidationError', side_effect text DEFAULT 'none') RETURNS text LANGUAGE sql AS $$
	SELECT decision FROM scene s, holdfast.fail(s.job_id, s.lease_id, $2, side_effect => $3) WHERE s.name = $1
$$;
CREATE FUNCTION pg_temp.dies(stream text, subject text) RETURNS text LANGUAGE sql AS $$
	SELECT pg_temp.run($1, $2);
	SELECT pg_temp.fails($2)
$$;
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

-- define_stream

SELECT lives_ok($$SELECT holdfast.define_stream('loop', 'a', 2, '5 min')$$, 'define_stream');
SELECT is(pg_temp.breaker('a'), 'closed 0 of 2', 'a stream begins closed');
SELECT throws_ok($$SELECT holdfast.define_stream($$ || arguments || ')', state, NULL, 'define_stream is refused: ' || arguments) FROM (VALUES
	($$'nowhere', 'a'$$, '42704'), ($$NULL, 'a'$$, '22004'), ($$'loop', NULL$$, '22004'), ($$'loop', ''$$, '22023'), ($$'loop', repeat('a', 100000)$$, '22023'),
	($$'loop', 'a', 0$$, '22023'), ($$'loop', 'a', NULL$$, '22004'), ($$'loop', 'a', 2, '0'$$, '22023'), ($$'loop', 'a', 2, '-1 s'$$, '22023'), ($$'loop', 'a', 2, '1 mon'$$, '22023')
) AS v (arguments, state);

-- what counts

SELECT is(pg_temp.run('a', 'a1'), 'a1', 'a job of the stream');
SELECT is(pg_temp.fails('a1', 'Boom', 'none'), 'retry', 'a retryable attempt');
SELECT is(pg_temp.breaker('a'), 'closed 0 of 2', 'G4: retryable attempts never count');
SELECT pg_temp.later('10 s') \g /dev/null
UPDATE scene SET lease_id = c.lease_id FROM holdfast.claim('loop', 'w') c WHERE name = c.subject;
SELECT is(pg_temp.tell('a1', 'snooze(@job, ''1 s'')'), 'snoozed', 'a snooze');
SELECT pg_temp.later('1 s') \g /dev/null
UPDATE scene SET lease_id = c.lease_id FROM holdfast.claim('loop', 'w') c WHERE name = c.subject;
SELECT is(pg_temp.fails('a1', 'Boom', 'unknown'), 'reconcile', 'an unknown effect');
SELECT is(pg_temp.breaker('a'), 'closed 0 of 2', 'G4: nor do snoozes, nor jobs that are to be reconciled');
SELECT pg_temp.later('10 s') \g /dev/null
UPDATE scene SET lease_id = c.lease_id FROM holdfast.claim('loop', 'w') c WHERE name = c.subject;
SELECT is(pg_temp.fails('a1', 'ProviderDown', 'unknown'), 'dead', 'reconcile_max used up: the job has ended');
SELECT is(pg_temp.breaker('a'), 'closed 1 of 2', 'G4: a job that ended in failure counts');
SELECT is(pg_temp.dies('b', 'b1'), 'dead', 'a job of another stream');
SELECT is(pg_temp.breaker('a'), 'closed 1 of 2', 'G4: a stream counts its own jobs');
SELECT is(pg_temp.breaker('b'), 'closed 1 of 5', 'a stream that nobody defined has the defaults');
SELECT is((SELECT cool_down FROM holdfast.stream WHERE key = 'b'), '5 min', 'both of them');
SELECT pg_temp.run(NULL, 'n1'), pg_temp.fails('n1') \g /dev/null
SELECT is((SELECT count(*) FROM holdfast.stream), 2::bigint, 'a job without a stream counts nowhere');
SELECT is(pg_temp.run('a', 'a2'), 'a2', 'another job of the stream');
SELECT is(pg_temp.tell('a2', 'complete(@job)'), 'completed', 'succeeds');
SELECT is(pg_temp.breaker('a'), 'closed 0 of 2', 'G4: a success clears the count: failures in a row');
SELECT is(pg_temp.dies('a', 'a3'), 'dead', 'one ends in failure');
SELECT is(pg_temp.breaker('a'), 'closed 1 of 2', 'the count is 1');
SELECT pg_temp.run('a', 'a4') \g /dev/null
SELECT is(pg_temp.fails('a4', 'DuplicateActionError', 'landed'), 'suppressed', 'a suppressed job has succeeded');
SELECT is(pg_temp.breaker('a'), 'closed 0 of 2', 'G4: it clears the count');
SELECT is(pg_temp.dies('a', 'a5'), 'dead', 'one ends in failure');
SELECT pg_temp.run('a', 'a6'), pg_temp.fails('a6', 'Boom', 'unknown') \g /dev/null
SELECT is(pg_temp.tell('a6', 'settle_unknown(@key, ''landed'', ''{}'', ''seen'')'), 'committed', 'an operator finds that it had landed');
SELECT is(pg_temp.breaker('a'), 'closed 0 of 2', 'G4: settle_unknown landed ends a job as succeeded, and clears the count');
SELECT holdfast.resume_stream('loop', 'a') \g /dev/null
SELECT is(pg_temp.dies('a', 'a7'), 'dead', 'one ends in failure');
SELECT pg_temp.run('a', 'a8'), pg_temp.fails('a8', 'Boom', 'unknown') \g /dev/null
SELECT pg_temp.later('10 s') \g /dev/null
UPDATE scene SET lease_id = c.lease_id FROM holdfast.claim('loop', 'w') c WHERE name = c.subject;
SELECT is(pg_temp.tell('a8', 'reconcile(@job, ''landed'')'), 'done', 'a worker finds that it had landed');
SELECT is(pg_temp.breaker('a'), 'closed 0 of 2', 'G4: it clears the count');

-- the threshold

SELECT is(pg_temp.dies('a', 'c1'), 'dead', 'the first in a row');
SELECT is(pg_temp.run('a', 'c2', pg_temp.clock() + interval '1 min'), 'c2', 'the second is handed out');
SELECT outcome FROM holdfast.enqueue('loop', 'act', 'waits', stream => 'a', give_up_at => pg_temp.clock() + '1 min', max_attempts => 1) \g /dev/null
SELECT outcome FROM holdfast.enqueue('loop', 'act', 'waits later', stream => 'a') \g /dev/null
SELECT outcome FROM holdfast.enqueue('loop', 'act', 'of b', stream => 'b') \g /dev/null
SELECT outcome FROM holdfast.enqueue('other', 'act', 'of other', stream => 'a') \g /dev/null
SELECT is(pg_temp.fails('c2'), 'dead', 'the second in a row');
SELECT is(pg_temp.breaker('a'), 'open 2 of 2', 'G4: at its threshold a stream opens');
SELECT is((SELECT opened_at FROM holdfast.stream WHERE key = 'a'), pg_temp.clock(), 'now');
SELECT pg_temp.later('30 s') \g /dev/null
SELECT results_eq($$SELECT subject FROM holdfast.claim('loop', 'w', 10)$$, $$VALUES ('of b')$$, 'G4: its jobs are not handed out; another stream''s are');
SELECT results_eq($$SELECT subject FROM holdfast.claim('other', 'w', 10)$$, $$VALUES ('of other')$$, 'G4: nor does the name count in another queue');
SELECT holdfast.complete(job_id, lease_id) FROM pg_temp.job WHERE subject LIKE 'of %' \g /dev/null
SELECT results_eq($$SELECT subject, status, run_after, give_up_at, failures, attempt_number FROM pg_temp.job WHERE stream = 'a' AND queue = 'loop' ORDER BY 1$$,
	$$SELECT 'waits', 'pending', s.opened_at + interval '5 min', s.opened_at + interval '6 min', 0, 0 FROM holdfast.stream s WHERE key = 'a'
	  UNION ALL SELECT 'waits later', 'pending', s.opened_at + interval '5 min', NULL, 0, 0 FROM holdfast.stream s WHERE key = 'a'$$,
	'G4: they are parked until the cool-down''s end, and give_up_at moves as much');
SELECT results_eq($$SELECT e.subject, e.next_not_before, e.enqueued_at IS NOT NULL, e.attempt_number FROM pg_temp.evidence e WHERE e.kind = 'action_deferred' ORDER BY 1$$,
	$$SELECT v.subject, s.opened_at + interval '5 min', true, 0 FROM holdfast.stream s, (VALUES ('waits'), ('waits later')) v (subject) WHERE s.key = 'a'$$,
	'G7: with action_deferred, and until when');
SELECT is_empty($$SELECT * FROM holdfast.claim('loop', 'w', 10)$$, 'claiming again');
SELECT is((SELECT count(*) FROM pg_temp.evidence WHERE kind = 'action_deferred'), 2::bigint, 'G12: defers nobody twice');
SELECT pg_temp.at((SELECT opened_at + interval '4 min 59.999 s' FROM holdfast.stream WHERE key = 'a')) \g /dev/null
SELECT is_empty($$SELECT * FROM holdfast.claim('loop', 'w', 10)$$, 'G9: not claimable one millisecond before the cool-down''s end');
SELECT pg_temp.later('1 ms') \g /dev/null
SELECT results_eq($$SELECT subject, deadline_at > pg_temp.clock() FROM holdfast.claim('loop', 'w', 1)$$, $$VALUES ('waits', true)$$,
	'G4: then it is claimable, though its first give_up_at is past: the breaker ended nothing early');
SELECT is(pg_temp.breaker('a'), 'trial 2 of 2', 'G4: as the trial');
SELECT results_eq($$SELECT f.detail ->> 'stream', f.job_id, f.attempt_number FROM pg_temp.finding f WHERE f.kind = 'stream_trial'$$,
	$$SELECT 'a', j.job_id, 0 FROM pg_temp.job j WHERE j.subject = 'waits'$$, 'G7: which is on record');
SELECT is_empty($$SELECT subject FROM holdfast.claim('loop', 'w', 10)$$, 'G4: one trial job: the next is not handed out');
SELECT results_eq($$SELECT j.run_after, e.detail ->> 'because' FROM pg_temp.job j JOIN pg_temp.evidence e USING (job_id)
	WHERE j.subject = 'waits later' AND e.next_not_before = j.run_after$$,
	$$SELECT t.lease_expires_at, format('stream a is open, and job %s is on trial', t.job_id) FROM pg_temp.job t WHERE t.subject = 'waits'$$,
	'G4: it is parked until the end of the trial''s lease, and says why');

-- the trial: a retryable failure says nothing, the next job is tried

INSERT INTO scene SELECT 'waits', j.job_id, j.idempotency_key, j.lease_id FROM pg_temp.job j WHERE j.subject = 'waits';
SELECT is(pg_temp.tell('waits', 'snooze(@job, ''20 s'')'), 'snoozed', 'the trial is put off');
SELECT is_empty($$SELECT subject FROM holdfast.claim('loop', 'w', 10)$$, 'setting the scene: what is parked waits for its time');
SELECT is((SELECT done FROM holdfast.maintain() WHERE task = 'stream jobs parked or freed'), 0::bigint, 'maintain leaves it there: the stream is not closed');
SELECT pg_temp.later('20 s') \g /dev/null
SELECT results_eq($$SELECT subject FROM holdfast.claim('loop', 'w', 10)$$, $$VALUES ('waits')$$, 'G4: the trial goes on, one job at a time, by run_after');
UPDATE scene s SET lease_id = j.lease_id FROM pg_temp.job j WHERE s.name = 'waits' AND j.subject = 'waits';
SELECT results_eq($$SELECT subject FROM holdfast.claim('loop', 'w', 10)$$, $$SELECT ''::text WHERE false$$, 'and nobody else');

-- a trial that ends in failure: another cool-down, and opened_at stays that of the outage

SELECT is(pg_temp.fails('waits'), 'dead', 'the trial ends in failure');
SELECT is(pg_temp.breaker('a'), 'open 3 of 2', 'G4: the stream is open again');
SELECT results_eq($$SELECT cool_down_ends, opened_at FROM holdfast.stream WHERE key = 'a'$$,
	$$SELECT pg_temp.clock() + interval '5 min', '2030-01-01 00:00:31+00'::timestamptz$$, 'for another cool-down');
SELECT pg_temp.later('90 s') \g /dev/null
SELECT is_empty($$SELECT subject FROM holdfast.claim('loop', 'w', 10)$$, 'G4: and parks what comes');
SELECT pg_temp.later('3 min 30 s') \g /dev/null
SELECT results_eq($$SELECT subject FROM holdfast.claim('loop', 'w', 10)$$, $$VALUES ('waits later')$$, 'G4: then the next trial');
INSERT INTO scene SELECT 'waits later', j.job_id, j.idempotency_key, j.lease_id FROM pg_temp.job j WHERE j.subject = 'waits later';
SELECT holdfast.enqueue('loop', 'act', n, stream => 'a', give_up_at => pg_temp.clock() + interval '10 min') FROM unnest('{p1,p2,p3}'::text[]) n \g /dev/null
SELECT is_empty($$SELECT subject FROM holdfast.claim('loop', 'w', 10)$$, 'three new jobs are parked');

-- a trial that succeeds: closed, and maintain brings back what was parked

SELECT pg_temp.later('1 s') \g /dev/null
SELECT is(pg_temp.tell('waits later', 'complete(@job)'), 'completed', 'the trial succeeds');
SELECT is(pg_temp.breaker('a'), 'closed 0 of 2', 'G4: the stream is closed');
SELECT is_empty($$SELECT subject FROM holdfast.claim('loop', 'w', 10)$$, 'what is parked has a time of its own');
SELECT results_eq($$SELECT done FROM holdfast.maintain() WHERE task = 'stream jobs parked or freed'$$, ARRAY[3::bigint], 'G4: maintain brings it back');
SELECT results_eq($$SELECT subject, run_after, give_up_at, parked_from FROM pg_temp.job WHERE subject LIKE 'p_' ORDER BY 1$$,
	$$SELECT n, pg_temp.clock(), pg_temp.clock() + interval '10 min', NULL::timestamptz FROM unnest('{p1,p2,p3}'::text[]) n$$,
	'G4: due now, and give_up_at has moved by the second that it was parked');
SELECT is((SELECT count(*) FROM pg_temp.evidence WHERE kind = 'action_deferred' AND detail ->> 'reason' = 'stream_closed'), 3::bigint, 'G7: on record');
SELECT is((SELECT holds FROM holdfast.stream WHERE key = 'a'), true, 'it may be that a claim has parked one meanwhile');
SELECT count(*) FROM holdfast.maintain() \g /dev/null
SELECT is((SELECT holds FROM holdfast.stream WHERE key = 'a'), false, 'maintain looks once more, and then no longer');
SELECT is((SELECT count(*) FROM holdfast.claim('loop', 'w', 10) c, holdfast.complete(c.job_id, c.lease_id)), 3::bigint, 'G4: all of them are handed out');

-- maintain parks what no claim has met, and a deadline is not past while the stream is open

SELECT is(pg_temp.dies('a', n), 'dead', 'one ends in failure') FROM unnest('{d1,d2}'::text[]) n;
SELECT outcome FROM holdfast.enqueue('loop', 'act', 'unmet', stream => 'a', run_after => pg_temp.clock() + interval '10 s', give_up_at => pg_temp.clock() + interval '20 s') \g /dev/null
SELECT pg_temp.later('1 s') \g /dev/null
SELECT results_eq($$SELECT done FROM holdfast.maintain() WHERE task = 'stream jobs parked or freed'$$, ARRAY[1::bigint], 'G4: maintain parks it before its time has come');
SELECT results_eq($$SELECT run_after - pg_temp.clock(), give_up_at - run_after, parked_from - pg_temp.clock() FROM pg_temp.job WHERE subject = 'unmet'$$,
	$$VALUES (interval '4 min 59 s', interval '10 s', interval '9 s')$$, 'G4: its ten seconds are left to it');
SELECT holdfast.resume_stream('loop', 'a') \g /dev/null
SELECT results_eq($$SELECT run_after - pg_temp.clock(), give_up_at - run_after FROM pg_temp.job WHERE subject = 'unmet'$$,
	$$VALUES (interval '9 s', interval '10 s')$$, 'G4: resumed, it has the time that it had');
SELECT holdfast.cancel(job_id) FROM pg_temp.job WHERE subject = 'unmet' \g /dev/null

-- an outage that nobody looked at: neither a claim nor maintain, until it was over and give_up_at past

SELECT is(pg_temp.dies('a', n), 'dead', 'one ends in failure') FROM unnest('{o1,o2}'::text[]) n;
SELECT pg_temp.run('other', 'o3') \g /dev/null
SELECT outcome FROM holdfast.enqueue('loop', 'act', 'o4', stream => 'a', give_up_at => pg_temp.clock() + interval '20 s') \g /dev/null
SELECT pg_temp.later('1 min') \g /dev/null
UPDATE holdfast.stream SET state = 'closed', closed_at = pg_temp.clock(), cool_down_ends = NULL, consecutive_terminal = 0 WHERE key = 'a';
SELECT count(*) FROM holdfast.maintain() \g /dev/null
SELECT results_eq($$SELECT status, run_after - pg_temp.clock(), give_up_at - pg_temp.clock() FROM pg_temp.job WHERE subject = 'o4'$$,
	$$VALUES ('pending', interval '0', interval '20 s')$$, 'G4: the minute is given back, once');
SELECT pg_temp.later('20 s') \g /dev/null
SELECT count(*) FROM holdfast.maintain() \g /dev/null
SELECT is((SELECT reason FROM pg_temp.dead_job WHERE subject = 'o4'), 'deadline', 'G4: and its own twenty seconds end it');

-- a job whose time was up before its stream opened

SELECT holdfast.resume_stream('loop', 'a') \g /dev/null
SELECT outcome FROM holdfast.enqueue('loop', 'act', 'e1', stream => 'a', give_up_at => pg_temp.clock() + interval '1 s') \g /dev/null
SELECT holdfast.enqueue('loop', 'act', n, stream => 'a', priority => -1) FROM unnest('{e2,e3}'::text[]) n \g /dev/null
SELECT count(*) FROM holdfast.claim('loop', 'w', 2) \g /dev/null
SELECT pg_temp.later('2 s') \g /dev/null
SELECT holdfast.fail(job_id, lease_id, 'ValidationError', side_effect => 'none') FROM pg_temp.job WHERE subject IN ('e2', 'e3') \g /dev/null
SELECT is(pg_temp.breaker('a'), 'open 2 of 2', 'the stream opens a second after a job''s give_up_at, which nobody has noticed');
SELECT count(*) FROM holdfast.maintain() \g /dev/null
SELECT is((SELECT reason FROM pg_temp.dead_job WHERE subject = 'e1'), 'deadline', 'G4: it ends by its own deadline, and is not held');

-- a trial whose job is cancelled, or lost

SELECT holdfast.resume_stream('loop', 'a'), holdfast.define_stream('loop', 'a', 1, '1 min') \g /dev/null
SELECT is(pg_temp.dies('a', 't1'), 'dead', 'one ends in failure, and opens the stream');
SELECT holdfast.enqueue('loop', 'act', n, stream => 'a', delay => '1 min') FROM unnest('{t2,t3,t4}'::text[]) n \g /dev/null
SELECT pg_temp.later('1 min') \g /dev/null
SELECT is((SELECT count(*) FROM holdfast.claim('loop', 'w', 10)), 1::bigint, 'G4: one call has one trial');
SELECT is((SELECT count(*) FROM pg_temp.job WHERE subject LIKE 't_' AND parked_from IS NOT NULL), 0::bigint, 'and steps over the others');
SELECT results_eq($$SELECT holdfast.cancel(job_id, 'test', force => true) FROM pg_temp.job WHERE subject = 't2'$$, ARRAY['dead'], 'the trial is cancelled');
SELECT is(pg_temp.breaker('a'), 'open 2 of 1', 'G4: unresolved, it has ended in failure: the stream is open again');
SELECT pg_temp.later('1 min') \g /dev/null
SELECT results_eq($$SELECT subject FROM holdfast.claim('loop', 'w', 1)$$, $$VALUES ('t3')$$, 'the next trial');
SELECT pg_temp.later('90 s') \g /dev/null
SELECT results_eq($$SELECT subject FROM holdfast.claim('loop', 'w', 10)$$, $$VALUES ('t4')$$,
	'G4: its lease is lost, which tells nothing: another is the trial');
INSERT INTO scene SELECT j.subject, j.job_id, j.idempotency_key, j.lease_id FROM pg_temp.job j WHERE j.subject = 't4';
SELECT is(pg_temp.tell('t4', 'complete(@job)'), 'completed', 'which succeeds');
SELECT is(pg_temp.breaker('a'), 'closed 0 of 1', 'and closes the stream');
SELECT holdfast.purge_queue('loop', true) \g /dev/null

-- resume_stream

SELECT holdfast.define_stream('plain', 'r', 1, '1 h') \g /dev/null
SELECT is(pg_temp.run('r', 'r1', NULL, 'plain'), 'r1', 'a stream with threshold 1');
SELECT is(pg_temp.fails('r1'), 'dead', 'one job ends in failure');
SELECT is(pg_temp.breaker('r', 'plain'), 'open 1 of 1', 'and it opens');
SELECT is(pg_temp.run('r', 'r2', NULL, 'plain'), 'none', 'a new job of it is parked');
SELECT lives_ok($$SELECT holdfast.resume_stream('plain', 'r', 'provider is back')$$, 'an operator closes it');
SELECT is(pg_temp.breaker('r', 'plain'), 'closed 0 of 1', 'at once, its count from 0');
SELECT results_eq($$SELECT f.detail ->> 'by', f.detail ->> 'reason', f.detail ->> 'jobs_brought_back' FROM pg_temp.finding f WHERE f.kind = 'stream_resumed' AND f.queue = 'plain'$$,
	$$SELECT current_user::text COLLATE "default", 'provider is back', '1'$$, 'G7: by whom and why is on record');
SELECT is((SELECT run_after - pg_temp.clock() FROM pg_temp.job WHERE subject = 'r2'), interval '0', 'G4: what was parked is due again');
SELECT is(pg_temp.run('r', 'r3', NULL, 'plain'), 'r2', 'G4: and is handed out');
SELECT is(pg_temp.run('r', 'r4', NULL, 'plain'), 'r3', 'and so is a new job');
SELECT is(pg_temp.fails('r3'), 'dead', 'another failure');
SELECT is(pg_temp.breaker('r', 'plain'), 'open 1 of 1', 'opens it again');
SELECT throws_ok($$SELECT holdfast.resume_stream($$ || arguments || ')', state, NULL, 'resume_stream is refused: ' || arguments) FROM (VALUES
	($$'nowhere', 'r'$$, '42704'), ($$'plain', 'nothing'$$, '42704'), ($$NULL, 'r'$$, '22004'), ($$'plain', NULL$$, '22004')) AS v (arguments, state);

-- a cool-down that is over needs no maintain: nothing's correctness waits for it

SELECT pg_temp.later('1 h') \g /dev/null
SELECT results_eq($$SELECT subject FROM holdfast.claim('plain', 'w')$$, $$VALUES ('r4')$$, 'G4: after the cool-down jobs are handed out, whether or not maintain() has run');

-- lost leases that would end a job with a stream are left to maintain()

SELECT holdfast.define_retry_policy('once', '10 s', jitter_window => '0', min_delay => '1 s', max_attempts => 1) \g /dev/null
SELECT holdfast.create_queue('left', retry_policy => 'once', side_effects => false), holdfast.define_stream('left', 'l', 1, '1 h') \g /dev/null
SELECT is(pg_temp.run('l', 'l1', NULL, 'left'), 'l1', 'a job with a stream and a budget of one');
SELECT pg_temp.later('90 s') \g /dev/null
SELECT is_empty($$SELECT * FROM holdfast.claim('left', 'w')$$, 'its lease is lost');
SELECT is((SELECT status FROM pg_temp.job WHERE subject = 'l1'), 'running', 'a claim, which ends no job of a stream, leaves it alone');
SELECT isnt((SELECT done FROM holdfast.maintain() WHERE task = 'leases and deadlines settled'), 0::bigint, 'maintain settles it');
SELECT is(pg_temp.state('l1'), 'dead (budget), ledger none', 'by its policy');
SELECT is(pg_temp.breaker('l', 'left'), 'open 1 of 1', 'G4: and the stream counts it');
SELECT outcome FROM holdfast.enqueue('left', 'act', 'l2', stream => 'l', give_up_at => pg_temp.clock() + '10 s') \g /dev/null
SELECT is_empty($$SELECT * FROM holdfast.claim('left', 'w')$$, 'a job parked by the open stream');
SELECT pg_temp.later('11 s') \g /dev/null
SELECT count(*) FROM holdfast.maintain() \g /dev/null
SELECT is((SELECT status FROM pg_temp.job WHERE subject = 'l2'), 'pending', 'G4: time parked by a stream cannot end a job early, not by maintain() either');

-- an unknown effect of a job with a stream is looked for after its give_up_at too, as that of any other

SELECT holdfast.create_queue('sent', retry_policy => 'p'), holdfast.define_stream('sent', 's', 2) \g /dev/null
SELECT is(pg_temp.run('s', 'u1', pg_temp.clock() + '20 min', 'sent'), 'u1', 'a job with a stream, a side effect and a deadline');
SELECT is((SELECT f.decision FROM pg_temp.job j, holdfast.fail(j.job_id, j.lease_id, 'TimeoutError') f WHERE j.subject = 'u1'), 'reconcile', 'its effect is unknown');
SELECT pg_temp.later('1 h') \g /dev/null
SELECT is((SELECT count(*) FROM pg_temp.job WHERE subject = 'u1' AND run_after < give_up_at AND give_up_at < pg_temp.clock()), 1::bigint, 'its deadline passes before anybody has looked for it');
SELECT count(*) FROM holdfast.maintain() \g /dev/null
SELECT results_eq($$SELECT subject, mode FROM holdfast.claim('sent', 'w')$$, $$VALUES ('u1', 'reconcile')$$, 'G6: whoever looks for it is handed the job');
SELECT is((SELECT outcome FROM pg_temp.job j, holdfast.reconcile(j.job_id, j.lease_id, 'not_landed') WHERE j.subject = 'u1'), 'dead', 'G4: then its deadline ends it');

-- what an operator finds out about a parked job leaves it parked: it comes back with the others

SELECT holdfast.define_stream('sent', 't', 1, '1 h') \g /dev/null
SELECT is(pg_temp.run('t', 'y1', NULL, 'sent'), 'y1', 'a job of another stream');
SELECT is((SELECT f.decision FROM pg_temp.job j, holdfast.fail(j.job_id, j.lease_id, 'TimeoutError') f WHERE j.subject = 'y1'), 'reconcile', 'whose effect is unknown');
SELECT is(pg_temp.run('t', 'y2', NULL, 'sent'), 'y2', 'and a second');
SELECT is(pg_temp.fails('y2'), 'dead', 'which opens the stream');
SELECT pg_temp.later('2 min') \g /dev/null
SELECT count(*) FROM holdfast.maintain() \g /dev/null
SELECT is((SELECT state FROM pg_temp.job j, holdfast.settle_unknown(j.idempotency_key, 'not_landed', NULL, 'asked the provider') WHERE j.subject = 'y1'), 'failed_retryable',
	'its effect is settled while it is parked');
SELECT holdfast.resume_stream('sent', 't') \g /dev/null
SELECT results_eq($$SELECT subject, mode FROM holdfast.claim('sent', 'w')$$, $$VALUES ('y1', 'execute')$$, 'G4: with the stream it comes back, and need not wait for the end of the cool-down');

-- one trial at a time: a claim that gives it to another job does not hand out the one that had it as well

SELECT holdfast.create_queue('trial', retry_policy => 'p', side_effects => false), holdfast.define_stream('trial', 'x', 1, '1 s') \g /dev/null
SELECT is(pg_temp.run('x', 'x1', NULL, 'trial'), 'x1', 'a job of a new stream');
SELECT is(pg_temp.fails('x1'), 'dead', 'opens it');
SELECT pg_temp.later('2 s') \g /dev/null
SELECT is(pg_temp.run('x', 'x2', NULL, 'trial'), 'x2', 'the trial after the cool-down');
SELECT is(pg_temp.fails('x2', 'Odd'), 'retry', 'is to be made again');
SELECT pg_temp.later('1 h') \g /dev/null
SELECT outcome FROM holdfast.enqueue('trial', 'act', 'x3', stream => 'x', priority => -1) \g /dev/null
SELECT results_eq($$SELECT subject FROM holdfast.claim('trial', 'w', 10)$$, $$VALUES ('x3')$$, 'another comes before it: that one alone is handed out');
SELECT is((SELECT status FROM pg_temp.job WHERE subject = 'x2'), 'pending', 'and the first waits');

-- a give_up_at at the end of time cannot be moved beyond it, and keeps no claim from the others

SELECT holdfast.create_queue('far', retry_policy => 'once', side_effects => false), holdfast.define_stream('far', 'f', 1, '20 days') \g /dev/null
SELECT is(pg_temp.run('f', 'f1', NULL, 'far'), 'f1', 'a job of another stream');
SELECT is(pg_temp.fails('f1'), 'dead', 'opens it, for longer than there is room at the end of time');
SELECT outcome FROM holdfast.enqueue('far', 'act', 'f2', stream => 'f', give_up_at => '294276-12-31 23:59:59+00') \g /dev/null
SELECT outcome FROM holdfast.enqueue('far', 'act', 'f3') \g /dev/null
SELECT results_eq($$SELECT subject FROM holdfast.claim('far', 'w', 10)$$, $$VALUES ('f3')$$, 'a claim parks its next job, and hands out another');
SELECT is((SELECT extract(year FROM give_up_at)::text FROM pg_temp.job WHERE subject = 'f2'), '294276', 'G4: whose give_up_at is a time still');
SELECT holdfast.resume_stream('far', 'f') \g /dev/null
SELECT results_eq($$SELECT subject FROM holdfast.claim('far', 'w', 10)$$, $$VALUES ('f2')$$, 'G4: and has not come any sooner');

-- whatever was stored by hand, what ends a job is settled

SELECT holdfast.create_queue('by hand', retry_policy => 'p', side_effects => false), holdfast.define_stream('by hand', 's', 1) \g /dev/null
UPDATE holdfast.stream SET cool_down = '1 mon 1 day' WHERE key = 's' AND queue = (SELECT queue_id FROM holdfast.queue WHERE queue_name = 'by hand');
SELECT is(pg_temp.run('s', 'h1', NULL, 'by hand'), 'h1', 'a stream whose cool-down is no duration');
SELECT is(pg_temp.fails('h1'), 'dead', 'G4: what opens it is no error');
SELECT is((SELECT cool_down_ends - opened_at FROM holdfast.stream s WHERE s.key = 's' AND s.cool_down = '1 mon 1 day'), '31 days'::interval, 'a month is taken for 30 days');

SELECT * FROM finish();
ROLLBACK;
