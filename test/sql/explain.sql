\i test/setup.sql
\i test/tools.sql
-- One job explained: sentences, and a row per fact.
SELECT plan(25);

SELECT pg_temp.at('00:00:00') \g /dev/null
SELECT holdfast.define_retry_policy('careful', '1 s', 2, '300 s', '1 s', '1 s', max_attempts => 5, reconcile_max => 3) \g /dev/null
SELECT holdfast.create_queue('revenue', lease => '6 h 1 min', timeout => '6 h', retry_policy => 'careful'),
	holdfast.create_queue('other', max_attempts => 7) \g /dev/null
SELECT setval('holdfast.job_id_seq', 42, false) \g /dev/null
CREATE FUNCTION pg_temp.said(job_id bigint, fact text DEFAULT NULL) RETURNS SETOF text LANGUAGE sql AS $$
	SELECT concat_ws(' | ', x.fact, x.value, x.because) FROM holdfast.explain($1) x WHERE $2 IS NULL OR x.fact = $2
$$;

SELECT results_eq('SELECT * FROM pg_temp.said(42)', $$VALUES
	('summary | Job 42 is not known. | it never was, or is in a queue not granted to you, or its evidence is past retention')$$, 'a job that never was');
SELECT throws_ok('SELECT * FROM holdfast.explain(NULL)', '22004', NULL, 'a null is refused');

-- a retry, its policy and figures

SELECT holdfast.enqueue('revenue', 'send_email', 'prospect-7ca677ed25d3', scope => 'campaign-9', delay => '1 min', give_up_at => '2030-01-02 00:00:00+00') \g /dev/null
SELECT results_eq('SELECT * FROM pg_temp.said(42)', $$VALUES
	('summary | Job 42, send_email for prospect-7ca677ed25d3 in queue revenue: scheduled.'),
	('summary | It runs again in 60 s in mode execute, not before 2030-01-01 00:01:00.000.'),
	('summary | Its side effect has not landed.'),
	('state | scheduled'),
	('budget | failure 0 of 5 (attempt 0) | max_attempts 5 is policy careful; 5 left'),
	('ledger | planned | since 2030-01-01 00:00:00.000'),
	('next run | 2030-01-01 00:01:00.000, in 60 s, mode execute | the time that enqueue was given'),
	('would stop it | its deadline | give_up_at 2030-01-02 00:00:00.000, in 24 h 0 min'),
	('would stop it | its budget | 5 more failures, of 5'),
	('would stop it | lost leases (max_lost) | 20 more, of 20'),
	('would stop it | an error class that is terminal | the rules of policy careful'),
	('operator can | cancel(42, reason)')$$, 'G4: a job that waits for its first run: when, why then, and what would stop it');
SELECT pg_temp.at('00:01:00') \g /dev/null
SELECT pg_temp.claimed('revenue') \g /dev/null
SELECT pg_temp.at('00:02:00') \g /dev/null
SELECT holdfast.heartbeat(pg_temp.id('revenue'), pg_temp.lease('revenue')) \g /dev/null
SELECT pg_temp.at('00:13:23') \g /dev/null
SELECT results_eq($$SELECT * FROM pg_temp.said(42) s WHERE s NOT LIKE 'would stop%'$$, $$VALUES
	('summary | Job 42, send_email for prospect-7ca677ed25d3 in queue revenue: running.'),
	('summary | Worker w holds it in mode execute, attempt 1, since 00:01:00.000; its lease ends in 20977 s.'),
	('summary | Its side effect may be under way.'),
	('state | running'),
	('held by | w | lease ' || left(pg_temp.lease('revenue')::text, 8) || ' until 06:03:00.000, in 20977 s; last heartbeat 683 s ago'),
	('budget | failure 0 of 5 (attempt 1) | max_attempts 5 is policy careful; 5 left'),
	('ledger | started | since 2030-01-01 00:01:00.000'),
	('operator can | cancel(42, reason), at its next report; force => true: now, its effect unknown')$$,
	'G1: who holds it, under which lease, until when');
SELECT holdfast.fail(pg_temp.id('revenue'), pg_temp.lease('revenue'), 'Boom', 'no answer', 'none') \g /dev/null
SELECT results_eq($$SELECT * FROM pg_temp.said(42) s$$, $$VALUES
	('summary | Job 42, send_email for prospect-7ca677ed25d3 in queue revenue: awaiting retry.'),
	('summary | It runs again in 1.413 s in mode execute, not before 2030-01-01 00:13:24.413.'),
	('summary | The last failure was Boom: no answer.'),
	('summary | Its side effect has not landed.'),
	('state | awaiting retry'),
	('budget | failure 1 of 5 (attempt 1) | max_attempts 5 is policy careful; 4 left'),
	('last error | Boom | attempt 1 by w, now, no answer'),
	('ledger | failed_retryable | since 2030-01-01 00:13:23.000'),
	('next run | 2030-01-01 00:13:24.413, in 1.413 s, mode execute | policy careful after failure 1: 1.413 s, of which jitter 0.413 s, counted from 00:13:23.000 (base 00:00:01 x 2^0, at most 00:05:00, jitter below 00:00:01)'),
	('would stop it | its deadline | give_up_at 2030-01-02 00:00:00.000, in 23 h 46 min'),
	('would stop it | its budget | 4 more failures, of 5'),
	('would stop it | lost leases (max_lost) | 20 more, of 20'),
	('would stop it | an error class that is terminal | the rules of policy careful'),
	('operator can | cancel(42, reason)')$$, 'G3: the next run, and which policy and figures chose it');

-- a timeout: both figures, the unknown effect, reconcile

SELECT pg_temp.again('revenue') \g /dev/null
SELECT pg_temp.at('00:25:47.413') \g /dev/null
SELECT holdfast.fail(pg_temp.id('revenue'), pg_temp.lease('revenue'), 'TimeoutError', timeout_kind => 'max_runtime', timeout_limit_ms => 21600000) \g /dev/null
SELECT results_eq($$SELECT s FROM pg_temp.said(42) s WHERE s ~ '^(last|ledger|would|operator)'$$, $$VALUES
	('last error | TimeoutError (max_runtime): configured 21600 s, elapsed 743 s | attempt 2 by w, now'),
	('ledger | unknown | since 2030-01-01 00:25:47.413'),
	('would stop it | reconcile_max | 3 more attempts to find out that fail, of 3'),
	('operator can | cancel(42, reason)'),
	('operator can | settle_unknown(''' || (SELECT idempotency_key FROM scene) || ''', ''landed'' | ''not_landed'' | ''abandoned'', evidence, reason), if you know what happened')$$,
	'G6: a timeout with its kind and both figures; while the effect is unknown only reconcile_max stops it');
SELECT is((SELECT value FROM holdfast.explain(42) OFFSET 3 LIMIT 1), 'Whether its side effect landed is not known, so it is looked into and never blindly repeated.', 'G6: in a sentence');
SELECT pg_temp.again('revenue') \g /dev/null
SELECT is((SELECT value FROM holdfast.explain(42) WHERE fact = 'state'), 'running', 'it is looked into');
SELECT holdfast.cancel(42, 'customer has left') \g /dev/null
SELECT is((SELECT s FROM pg_temp.said(42, 'would stop it') s LIMIT 1), 'would stop it | the cancellation | at its next report, or its lease''s end', 'a cancellation comes first');
SELECT pg_temp.at('06:40:00') \g /dev/null
SELECT is((SELECT value FROM holdfast.explain(42) WHERE fact = 'state'), 'running, its lease is over', 'a stuck lease');
SELECT matches((SELECT value FROM holdfast.explain(42) WHERE fact = 'operator can' LIMIT 1), 'maintain', 'and who settles it');
SELECT count(*) FROM holdfast.maintain() \g /dev/null
SELECT matches((SELECT s FROM pg_temp.said(42, 'state') s), '^state \| dead: unresolved \| failure 2 of 5 \(attempt 3\): LeaseExpired.*cancellation was requested.*, now$', 'G4: why it is dead');
SELECT results_eq($$SELECT s FROM pg_temp.said(42) s WHERE s ~ '^(budget|operator)'$$, $$VALUES
	('budget | failure 2 of 5 (attempt 3) | max_attempts 5 is policy careful; 3 left'),
	('operator can | redrive(42, reason), which looks into the effect first'),
	('operator can | settle_unknown(''' || (SELECT idempotency_key FROM scene) || ''', ''landed'' | ''not_landed'' | ''abandoned'', evidence, reason), if you know what happened')$$,
	'and what can be done');
SELECT holdfast.settle_unknown((SELECT idempotency_key FROM scene), 'landed', '{"seen": "in the log"}', 'provider''s log') \g /dev/null
SELECT results_eq($$SELECT s FROM pg_temp.said(42) s WHERE s ~ '^(state|ledger|operator)'$$, $$VALUES
	('state | succeeded | provider''s log, now'),
	('ledger | committed | since 2030-01-01 06:40:00.000; evidence {"seen": "in the log"}'),
	('operator can | nothing: it has ended')$$, 'a job that has ended: how, and why');

-- streams, pauses, children, a job of its own budget

SELECT pg_temp.at('07:00:00') \g /dev/null
SELECT holdfast.define_stream('other', 'account-1', 1, '5 min') \g /dev/null
SELECT holdfast.enqueue('other', 'act', 'first', stream => 'account-1') \g /dev/null
SELECT pg_temp.claimed('other') \g /dev/null
SELECT is((SELECT because FROM holdfast.explain(pg_temp.id('other')) WHERE fact = 'budget'), 'max_attempts 7 is queue other; 7 left', 'G4: whose budget it is');
SELECT holdfast.ledger_transition(pg_temp.id('other'), pg_temp.lease('other'), 'started', 'charge') \g /dev/null
SELECT is((SELECT value FROM holdfast.explain(pg_temp.id('other')) WHERE fact = 'effect charge'), 'started', 'a child effect is a fact of its own');
SELECT holdfast.fail(pg_temp.id('other'), pg_temp.lease('other'), 'ValidationError', side_effect => 'none') \g /dev/null
SELECT matches((SELECT s FROM pg_temp.said(pg_temp.id('other'), 'next run') s), 'the effect is unknown, to be reconciled in', 'G6: a started child makes the job look first');
SELECT holdfast.enqueue('other', 'act', 'parked', stream => 'account-1', max_attempts => 2) \g /dev/null
SELECT holdfast.cancel(pg_temp.id('other'), force => true) \g /dev/null
SELECT count(*) FROM holdfast.claim('other', 'w') \g /dev/null
CREATE TEMPORARY TABLE parked AS SELECT job_id FROM pg_temp.job WHERE subject = 'parked';
SELECT results_eq($$SELECT s FROM parked, pg_temp.said(job_id) s WHERE s ~ '^(state|budget|next|stream|operator)'$$, $$SELECT v FROM parked, unnest(ARRAY[
	'state | parked by its stream', 'budget | failure 0 of 2 (attempt 0) | max_attempts 2 is the job''s own; 2 left',
	'next run | 2030-01-01 07:05:00.000, in 300 s, mode execute | stream account-1 is open: 1 jobs in a row ended in failure',
	'stream | account-1: open | 1 of 1 jobs in a row ended in failure; the cool-down ends in 300 s',
	format('operator can | cancel(%s, reason)', job_id), 'operator can | resume_stream(''other'', ''account-1'', reason), if the outage is over']) v$$,
	'G4: parked by its stream, until when and why');
SELECT holdfast.resume_stream('other', 'account-1'), holdfast.pause_queue('other', 'deploy') \g /dev/null
SELECT results_eq($$SELECT s FROM parked, pg_temp.said(job_id) s WHERE s ~ '^(summary|state|operator)'$$, $$SELECT v FROM parked, unnest(ARRAY[
	format('summary | Job %s, act for parked in queue other: waiting, the queue is paused.', job_id), 'summary | Nothing is handed out: deploy.', 'summary | Its side effect has not landed.',
	'state | waiting, the queue is paused', format('operator can | cancel(%s, reason)', job_id), 'operator can | resume_queue(''other'', reason)']) v$$, 'a paused queue');
SELECT is(holdfast.budget(NULL, NULL, NULL), 5, 'G4: where nothing else says it, the budget is that of policy default');
SELECT is(holdfast.budget(3, 'careful', q.queue_id), 3, 'the job''s own comes first') FROM holdfast.queue q WHERE q.queue_name = 'other';
SELECT is(holdfast.budget(NULL, 'careful', q.queue_id), 7, 'then the queue''s') FROM holdfast.queue q WHERE q.queue_name = 'other';

-- G13, and speed: by indexes only

CREATE ROLE regress_holdfast_reader;
SELECT holdfast.grant_queue('other', 'regress_holdfast_reader', 'reader') \g /dev/null
CREATE FUNCTION pg_temp.as_reader(job_id bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	t	text;
BEGIN
	SET LOCAL ROLE regress_holdfast_reader;
	SELECT x.value INTO t FROM holdfast.explain(as_reader.job_id) x LIMIT 1;
	RESET ROLE;
	RETURN t;
END
$$;
SELECT is(pg_temp.as_reader(42), 'Job 42 is not known.', 'G13: to a reader of another queue the job is not known');
SELECT matches(pg_temp.as_reader(job_id), 'act for parked', 'G13: one of its own queue is explained') FROM parked;
CREATE FUNCTION pg_temp.scans() RETURNS bigint LANGUAGE sql AS $$
	SELECT sum(pg_stat_get_xact_numscans(c.oid))::bigint FROM pg_class c
	WHERE c.relname ~ '^(event|ledger|job|dead_job)' AND c.relkind = 'r' AND c.relnamespace = 'holdfast'::regnamespace
$$;
SET LOCAL enable_seqscan = off;	-- the tables are small here
DISCARD PLANS;	-- those above were made with it on
CREATE TEMPORARY TABLE before AS SELECT pg_temp.scans() AS scans;
SELECT count(*) FROM pg_temp.said(42) \g /dev/null
SELECT is(pg_temp.scans() - scans, 0::bigint, 'no table is read through') FROM before;

SELECT * FROM finish();
ROLLBACK;
