\i test/setup.sql
\i test/tools.sql
/*
 * A worker with the bug of the incident, on its own table with uuid ids:
 * what observe records, correct puts right and enforce refuses.
 */
SELECT plan(60);

SELECT pg_temp.at('00:00:00') \g /dev/null
SELECT holdfast.define_retry_policy('careful', '1 s', 2, '300 s', '1 s', '1 s') \g /dev/null
CREATE SCHEMA own;
CREATE TABLE own.jobs (
	id			uuid		PRIMARY KEY,
	status		text		NOT NULL DEFAULT 'pending',
	attempts	integer		NOT NULL DEFAULT 0,
	run_after	timestamptz,
	worker		text,
	error		text,
	prospect	text		NOT NULL DEFAULT 'prospect-7ca677ed25d3'
);
SELECT holdfast.watch('own.jobs', '{"id": "id", "status": "status", "attempt_number": "attempts", "run_after": "run_after",
	"worker_name": "worker", "exception_class": "error", "subject": "prospect", "retry_policy": "careful",
	"pending": ["pending"], "running": ["running"], "succeeded": ["done"], "failed": [], "dead": ["dead"]}') \g /dev/null
SELECT results_eq($$SELECT relation COLLATE "default", source COLLATE "default", mode COLLATE "default", problem FROM holdfast.watched$$, $$VALUES ('own.jobs', 'own.jobs', 'observe', NULL::text)$$,
	'the view lists the watched table');

-- what a worker of one's own does; it looks at run_after, and not at anything else
CREATE FUNCTION pg_temp.claim(worker text) RETURNS SETOF uuid LANGUAGE sql AS $$
	UPDATE own.jobs SET status = 'running', worker = $1
	WHERE id = (SELECT id FROM own.jobs WHERE status = 'pending' AND coalesce(run_after, '-infinity') <= pg_temp.clock()
				ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
	RETURNING id
$$;
-- except TimeoutError: attempts += 1; status = 'pending'
CREATE FUNCTION pg_temp.timed_out(job uuid) RETURNS void LANGUAGE sql AS $$
	UPDATE own.jobs SET attempts = attempts + 1, status = 'pending', error = 'TimeoutError' WHERE id = $1
$$;
CREATE VIEW pg_temp.seen AS
	SELECT job_id COLLATE "default", attempt_number, outcome COLLATE "default", started_at, finished_at, next_not_before, delay_ms,
		   retry_policy COLLATE "default", worker_name COLLATE "default", final, stop_reason COLLATE "default"
	FROM holdfast.attempt WHERE source = 'own.jobs';
CREATE VIEW pg_temp.broke AS SELECT at, id, violation, action, attempt_number, previous_attempt FROM holdfast.violation;

-- observe

INSERT INTO own.jobs (id) VALUES ('a0000000-0000-4000-8000-000000000001');
SELECT is(pg_temp.claim('w1'), 'a0000000-0000-4000-8000-000000000001', 'the job is claimed');
SELECT results_eq('SELECT attempt_number, outcome, worker_name FROM pg_temp.seen', $$VALUES (1, NULL::text, 'w1')$$, 'G7: an attempt that runs is on record');
SELECT pg_temp.at('00:01:00') \g /dev/null
SELECT pg_temp.timed_out('a0000000-0000-4000-8000-000000000001') \g /dev/null
SELECT pg_temp.at('00:01:00.005') \g /dev/null
SELECT isnt_empty($$SELECT pg_temp.claim('w2')$$, 'observe changes nothing: the retry comes at once');
SELECT results_eq('SELECT attempt_number, outcome, worker_name, finished_at, next_not_before FROM pg_temp.seen ORDER BY started_at',
	$$VALUES (1, 'timeout', 'w1', '2030-01-01 00:01:00+00'::timestamptz, NULL::timestamptz), (2, NULL, 'w2', NULL, NULL)$$,
	'G7: both attempts are on record, numbered from 1');
SELECT results_eq('SELECT violation, action, attempt_number, previous_attempt FROM pg_temp.broke ORDER BY at, violation',
	$$VALUES ('pending_without_run_after', 'recorded', 1, 1), ('requeue_without_delay', 'recorded', 1, 1), ('retry_without_backoff', 'recorded', 2, 1)$$,
	'G3: the requeue, and the retry that it led to, with both attempts');
SELECT is((SELECT because FROM holdfast.violation WHERE violation = 'retry_without_backoff'),
	'it began 5 ms after attempt 1 (timeout) ended, and no later time was stored for it', 'G14: with its figures');
SELECT is((SELECT count(*) FROM holdfast.event_all WHERE kind = 'action_violation' AND subject = 'prospect-7ca677ed25d3'), 3::bigint,
	'a violation is an event, too');
SELECT is((SELECT verdict FROM holdfast.attempt_pair WHERE source = 'own.jobs'), 'retry_without_backoff', 'and the pair has its verdict');
UPDATE own.jobs SET status = 'done';
SELECT results_eq('SELECT outcome, final, stop_reason FROM pg_temp.seen WHERE attempt_number = 2', $$VALUES ('succeeded', true, 'done')$$, 'a success ends it');
SELECT pg_temp.at('00:02:00') \g /dev/null
UPDATE own.jobs SET status = 'pending', run_after = pg_temp.clock() + interval '1 min';
SELECT results_eq($$SELECT violation FROM pg_temp.broke WHERE at = '2030-01-01 00:02:00+00'$$, $$VALUES ('settled_row_revived')$$, 'a settled row that is revived');

-- correct

DELETE FROM own.jobs;
SELECT holdfast.watch('own.jobs', mode => 'correct') \g /dev/null
SELECT results_eq($$SELECT detail ->> 'from', detail ->> 'to' FROM holdfast.finding WHERE kind = 'watch_changed'$$, $$VALUES ('observe', 'correct')$$,
	'switching is one call, and on record');
INSERT INTO own.jobs (id) VALUES ('b0000000-0000-4000-8000-000000000001');
SELECT pg_temp.claim('w1') \g /dev/null
SELECT pg_temp.timed_out('b0000000-0000-4000-8000-000000000001') \g /dev/null
SELECT results_eq('SELECT status, run_after - pg_temp.clock() FROM own.jobs',
	$$SELECT 'pending', holdfast.backoff_delay('careful', holdfast.job_seed('b0000000-0000-4000-8000-000000000001'), 1)$$,
	'G3: the requeue gets the policy''s time');
SELECT results_eq($$SELECT violation, action, corrected_to FROM holdfast.violation WHERE id LIKE 'b%' ORDER BY violation$$,
	$$SELECT v, 'corrected', run_after FROM own.jobs, unnest(ARRAY['pending_without_run_after', 'requeue_without_delay']) v$$, 'which is on record');
SELECT results_eq($$SELECT outcome, next_not_before, retry_policy, delay_ms FROM pg_temp.seen WHERE job_id LIKE 'b%'$$,
	$$SELECT 'timeout', run_after, 'careful', (1000 * extract(epoch FROM run_after - pg_temp.clock()))::bigint FROM own.jobs$$,
	'G3: the attempt says when the next may come, and by which policy');
SELECT is_empty($$SELECT pg_temp.claim('w2')$$, 'G3: nothing is due now');
SELECT pg_temp.at((SELECT run_after - interval '1 ms' FROM own.jobs)) \g /dev/null
UPDATE own.jobs SET status = 'running', worker = 'rash';
SELECT is((SELECT status FROM own.jobs), 'pending', 'G9: a claim that does not look at run_after finds no row one millisecond early');
UPDATE own.jobs SET status = 'running', worker = 'rash';
SELECT results_eq($$SELECT violation, action, attempt_number FROM pg_temp.broke WHERE action = 'skipped'$$, $$VALUES ('retry_without_backoff', 'skipped', 2)$$,
	'which is on record once');
SELECT pg_temp.at((SELECT run_after FROM own.jobs)) \g /dev/null
SELECT isnt_empty($$SELECT pg_temp.claim('w2')$$, 'G9: on the millisecond it is claimed: no row is stuck');
SELECT is((SELECT verdict FROM holdfast.attempt_pair WHERE source = 'own.jobs' AND job_id_b LIKE 'b%' AND job_id_a = job_id_b), 'legitimate_delayed_retry', 'and the pair is a legitimate retry');
SELECT pg_temp.timed_out('b0000000-0000-4000-8000-000000000001') \g /dev/null
SELECT is((SELECT run_after - pg_temp.clock() FROM own.jobs), holdfast.backoff_delay('careful', holdfast.job_seed('b0000000-0000-4000-8000-000000000001'), 2),
	'G3: the second failure waits longer');
UPDATE own.jobs SET run_after = pg_temp.clock();
UPDATE own.jobs SET status = 'running';
SELECT is((SELECT status FROM own.jobs), 'pending', 'G3: moving run_after by hand does not move the time on record');
SELECT pg_temp.at('00:30:00') \g /dev/null
UPDATE own.jobs SET status = 'running', error = NULL;
UPDATE own.jobs SET status = 'pending', attempts = attempts - 1;
SELECT results_eq($$SELECT outcome FROM pg_temp.seen WHERE started_at = pg_temp.clock()$$, $$VALUES ('released')$$, 'a count taken back is a release');
SELECT is((SELECT run_after FROM own.jobs) <= pg_temp.clock(), true, 'which may be due at once');

UPDATE own.jobs SET status = 'running' WHERE status = 'pending';
UPDATE own.jobs SET status = 'pending', attempts = attempts + 1;
UPDATE own.jobs SET run_after = '2030-01-01 00:50:00+00';
SELECT pg_temp.at('00:45:00') \g /dev/null
UPDATE own.jobs SET status = 'running';
SELECT is((SELECT status FROM own.jobs), 'pending', 'G9: a run_after that was made later by hand holds too');

-- enforce

DELETE FROM own.jobs;
SELECT holdfast.watch('own.jobs', mode => 'enforce') \g /dev/null
INSERT INTO own.jobs (id) VALUES ('c0000000-0000-4000-8000-000000000001'), ('c0000000-0000-4000-8000-000000000002');
SELECT pg_temp.claim('w1') \g /dev/null
SELECT is(pg_temp.refusal($$SELECT pg_temp.timed_out('c0000000-0000-4000-8000-000000000001')$$), 'JQ006', 'G3: a requeue without delay is refused');
SELECT is(pg_temp.refusal_detail($$SELECT pg_temp.timed_out('c0000000-0000-4000-8000-000000000001')$$),
	'By the watch in mode enforce: attempt 1 failed, and run_after is null.', 'with its figures');
SELECT is((SELECT status FROM own.jobs WHERE id = 'c0000000-0000-4000-8000-000000000001'), 'running', 'the row is as it was');
SELECT isnt_empty($$SELECT pg_temp.claim('w1')$$, 'the worker''s other transactions still work');
UPDATE own.jobs SET status = 'done' WHERE id = 'c0000000-0000-4000-8000-000000000002';
SELECT is((SELECT outcome FROM pg_temp.seen WHERE job_id = 'c0000000-0000-4000-8000-000000000002'), 'succeeded', 'and leave their evidence');
UPDATE own.jobs SET attempts = attempts + 1, status = 'pending', error = 'TimeoutError',
	run_after = pg_temp.clock() + holdfast.backoff_delay('careful', holdfast.job_seed(id::text), attempts + 1)
WHERE id = 'c0000000-0000-4000-8000-000000000001';
SELECT is((SELECT status FROM own.jobs WHERE id = 'c0000000-0000-4000-8000-000000000001'), 'pending', 'G3: with the one-line fix the requeue is accepted');
SELECT is(pg_temp.refusal($$UPDATE own.jobs SET status = 'running' WHERE id = 'c0000000-0000-4000-8000-000000000001'$$), 'JQ006', 'G9: an early claim is refused');
SELECT is(pg_temp.refusal($$UPDATE own.jobs SET status = 'pending', run_after = pg_temp.clock() + interval '1 h' WHERE status = 'done'$$), 'JQ004', 'a settled row is not revived');
SELECT pg_temp.at('01:00:00') \g /dev/null
SELECT is(pg_temp.claim('w3'), 'c0000000-0000-4000-8000-000000000001', 'G9: in its time it is claimed');

-- the other violations, each refused and, in observe, recorded

CREATE TABLE own.whole (
	id bigint PRIMARY KEY, state text NOT NULL DEFAULT 'pending', attempt smallint NOT NULL DEFAULT 0, at timestamp, lease uuid, lease_end timestamptz,
	key text, max_runtime interval, action text NOT NULL DEFAULT 'send_email');
SELECT holdfast.watch('own.whole', '{"id": "id", "status": "state", "attempt_number": "attempt", "run_after": "at", "lease": "lease", "lease_expires_at": "lease_end",
	"idempotency_key": "key", "timeout": "max_runtime", "action_key": "action"}', 'enforce') \g /dev/null
CREATE FUNCTION pg_temp.full_claim(n integer, changes text DEFAULT 'at = at') RETURNS text LANGUAGE sql AS $$
	SELECT pg_temp.refusal(format($q$UPDATE own.whole SET state = 'running', attempt = %s, lease = gen_random_uuid(), lease_end = pg_temp.clock() + interval '1 min', %s$q$, n, changes))
$$;
CREATE FUNCTION pg_temp.full_fail(changes text DEFAULT 'at = at') RETURNS text LANGUAGE sql AS $$
	SELECT pg_temp.refusal(format($q$UPDATE own.whole SET state = 'pending', at = (pg_temp.clock() + interval '10 s') AT TIME ZONE 'UTC', lease = NULL, %s$q$, replace(changes, 'at = at', 'key = key')))
$$;
-- The lease counts from the start of the transaction by the real clock: an hour, so that a slow machine is no excuse.
INSERT INTO own.whole (id, key, max_runtime) VALUES (42, 'k1', '30 s');
SELECT is(pg_temp.full_claim(1, 'max_runtime = ''1 h'''), 'JQ005', 'G8: a lease shorter than the timeout');
SELECT is(pg_temp.full_claim(1), 'accepted', 'a proper claim');
SELECT is(pg_temp.refusal($$UPDATE own.whole SET key = 'k2'$$), 'JQ007', 'G5: a key that the handler made anew');
SELECT is(pg_temp.full_fail($$key = 'k3'$$), 'JQ007', 'G5: or with its report');
SELECT is(pg_temp.full_claim(2), 'JQ004', 'G1: a claim under a lease that is not over');
SELECT is(pg_temp.full_fail(), 'accepted', 'a proper requeue');
SELECT is((SELECT next_not_before FROM holdfast.attempt WHERE source = 'own.whole'), pg_temp.clock() + interval '10 s', 'a timestamp without time zone counts as UTC');
SELECT pg_temp.at('01:00:10') \g /dev/null
SELECT is(pg_temp.full_claim(1), 'JQ004', 'an attempt number that is not advanced');
SELECT is(pg_temp.full_claim(2, $$key = 'k2'$$), 'JQ007', 'G5: a key changed between attempts');
SELECT is(pg_temp.full_claim(2), 'accepted', 'a proper retry');
SELECT is((SELECT string_agg(attempt_number || ' ' || (lease_id = lease::text)::text || ' ' || synthetic_lease::text, ', ' ORDER BY attempt_number)
		   FROM holdfast.attempt, own.whole WHERE source = 'own.whole' AND attempt_number = 2), '2 true false', 'the lease on record is the row''s own');
SELECT holdfast.watch('own.whole', mode => 'observe') \g /dev/null
SELECT pg_temp.at('01:00:20') \g /dev/null
SELECT pg_temp.full_fail($$key = 'k4'$$), pg_temp.full_claim(2, $$key = 'k5', max_runtime = '2 min'$$) \g /dev/null
SELECT results_eq($$SELECT violation, action FROM pg_temp.broke WHERE id = '42' ORDER BY violation$$,
	$$VALUES ('attempt_number_not_advanced', 'recorded'), ('idempotency_key_changed', 'recorded'), ('key_made_anew', 'recorded'),
			 ('lease_shorter_than_timeout', 'recorded'), ('retry_without_backoff', 'recorded')$$, 'in observe each is on record');
SELECT pg_temp.at('01:05:00') \g /dev/null
SELECT pg_temp.full_claim(3) \g /dev/null
SELECT results_eq($$SELECT attempt_number, outcome COLLATE "default", finished_at FROM holdfast.attempt WHERE source = 'own.whole' ORDER BY attempt_number DESC, started_at DESC LIMIT 2$$,
	$$VALUES (3, NULL::text, NULL::timestamptz), (2, 'lost', NULL)$$, 'a claim after the lease''s end: the attempt before was lost');
UPDATE own.whole SET lease_end = lease_end + interval '1 min';
SELECT results_eq($$SELECT lease_expires_at, last_report_at FROM holdfast.attempt WHERE source = 'own.whole' AND attempt_number = 3$$,
	$$VALUES ('2030-01-01 01:07:00+00'::timestamptz, pg_temp.clock())$$, 'a longer lease is a sign of life');

-- rows that are deleted, entered again, or left out

SELECT holdfast.watch('own.whole', (SELECT mapping || '{"when": {"expr": "action <> ''quiet''"}}' FROM holdfast.watched WHERE source = 'own.whole')) \g /dev/null
DELETE FROM own.whole;
SELECT results_eq($$SELECT outcome COLLATE "default", final, stop_reason COLLATE "default" FROM holdfast.attempt WHERE source = 'own.whole' AND attempt_number = 3$$, $$VALUES ('succeeded', true, 'deleted')$$,
	'a row that is deleted while it runs has succeeded');
INSERT INTO own.whole (id, action) VALUES (43, 'quiet'), (44, 'loud');
UPDATE own.whole SET state = 'running', attempt = 1;
SELECT results_eq($$SELECT job_id COLLATE "default" FROM holdfast.attempt WHERE source = 'own.whole' AND outcome IS NULL$$, $$VALUES ('44')$$, '"when" leaves rows out');
WITH gone AS (DELETE FROM own.whole WHERE id = 44 RETURNING *)
INSERT INTO own.whole SELECT id, 'pending', attempt, at, lease, lease_end, key, max_runtime, action FROM gone;
SELECT results_eq($$SELECT attempt_number, outcome COLLATE "default", final FROM holdfast.attempt WHERE source = 'own.whole' AND job_id = '44'$$, $$VALUES (1, 'failed', NULL::boolean)$$,
	'a row deleted and entered again in one statement is one change: a requeue');
SELECT results_eq($$SELECT violation FROM pg_temp.broke WHERE id = '44' ORDER BY 1$$, $$VALUES ('pending_without_run_after'), ('requeue_without_delay')$$, 'and judged as one');
TRUNCATE own.whole;
SELECT is((SELECT detail ->> 'relation' FROM holdfast.finding WHERE kind = 'watch_truncated'), 'own.whole', 'a TRUNCATE is on record');

-- an end to it

SELECT holdfast.unwatch('own.whole') \g /dev/null
SELECT is((SELECT string_agg(source, ',') FROM holdfast.watched), 'own.jobs', 'unwatch() ends it');
SELECT is((SELECT count(*) FROM pg_trigger WHERE tgrelid = 'own.whole'::regclass), 0::bigint, 'and takes its triggers away');
SELECT is((SELECT count(*) > 0 FROM holdfast.attempt WHERE source = 'own.whole'), true, 'the evidence stays');
SELECT pg_temp.at('23:00:00') \g /dev/null
SELECT holdfast.watch('own.whole', '{"id": "id", "status": "state", "attempt_number": "attempt", "idempotency_key": "key"}') \g /dev/null
INSERT INTO own.whole (id, state, attempt, key) VALUES (42, 'running', 1, 'other');
SELECT is_empty($$SELECT FROM pg_temp.broke WHERE at = pg_temp.clock()$$, 'a new watch judges by its own evidence alone');
SELECT task FROM holdfast.maintain() \g /dev/null
SELECT is_empty('SELECT FROM holdfast.queue_hour WHERE queue < 0', 'its violations are no queue''s figures');
SELECT is(holdfast.unwatch_all(), 2::bigint, 'unwatch_all() ends every watch');
SELECT is_empty('SELECT FROM holdfast.watched', 'none is left');

SELECT * FROM finish();
ROLLBACK;
