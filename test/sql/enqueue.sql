\i test/setup.sql
\i test/tools.sql
-- Enqueueing: intent keys, what a known intent answers, batches, bounds.
SELECT plan(141);

CREATE FUNCTION pg_temp.ledger(key uuid) RETURNS text LANGUAGE sql AS $$
	SELECT l.state FROM pg_temp.ledger l WHERE l.idempotency_key = $1
$$;
SELECT pg_temp.at('00:00:00') \g /dev/null
SELECT holdfast.create_queue(q) FROM unnest(ARRAY['mail', 'other', 'fifo', 'batch', 'committed', 'dead', 'unknown', 'retried',
	'cancelled', 'late']) AS q \g /dev/null
SELECT holdfast.create_queue('plain', side_effects => false) \g /dev/null
SELECT holdfast.create_queue('beating', lease => '60 s', heartbeat => '20 s') \g /dev/null

-- a new intent

SELECT results_eq(
	$$SELECT idempotency_key, outcome, existing_since
	  FROM holdfast.enqueue('mail', 'send_email', 'prospect-7ca677ed25d3', '{"template": 7}', scope => 'campaign-9')$$,
	$$VALUES ('5a1879b7-62c2-8974-ae6a-00b2feadbc6a'::uuid, 'created', NULL::timestamptz)$$,
	'G11: a new intent is created under its published key');
SELECT results_eq(
	$$SELECT idempotency_key, outcome FROM holdfast.enqueue('mail', 'send_email', 'prospect-7ca677ed25d3', scope => 'campaign-9',
															intent_version => 2)$$,
	$$VALUES ('8e801c4f-96af-809a-b50c-c9d5a129d76e'::uuid, 'created')$$, 'G11: another version is another intent');
SELECT results_eq(
	$$SELECT idempotency_key, outcome FROM holdfast.enqueue('mail', 'c', 'ab')
	  UNION ALL SELECT idempotency_key, outcome FROM holdfast.enqueue('mail', 'bc', 'a')$$,
	$$VALUES ('82f63520-4560-8af1-9b51-1b1225b11e8a'::uuid, 'created'), ('3597ddce-010b-85c5-8013-0fe086c47b67', 'created')$$,
	'G11: subject ab with action c is not subject a with action bc');
SELECT results_eq(
	$$SELECT status, mode, priority, run_after, attempt_number, failures, enqueued_at, enqueued_by, correlation_id, side_effects,
			 payload, scope, intent_version, lease_id
	  FROM pg_temp.job WHERE idempotency_key = '5a1879b7-62c2-8974-ae6a-00b2feadbc6a'$$,
	$$VALUES ('pending', 'execute', 0, '2030-01-01 00:00:00+00'::timestamptz, 0, 0, '2030-01-01 00:00:00+00'::timestamptz,
			  current_user::text COLLATE "default", '5a1879b7-62c2-8974-ae6a-00b2feadbc6a', true, '{"template": 7}'::jsonb, 'campaign-9', 1,
			  NULL::uuid)$$,
	'the stored job has the defaults: due now, first in its priority, correlated by its key');
SELECT is(pg_temp.ledger('5a1879b7-62c2-8974-ae6a-00b2feadbc6a'), 'planned', 'its ledger row says planned');
SELECT is_empty('SELECT * FROM pg_temp.evidence', 'enqueueing alone is no attempt: no event');

SELECT is((SELECT idempotency_key FROM holdfast.enqueue('mail', 'send_email', 'keyed',
		idempotency_key => '00000000-0000-4000-8000-000000000001')), '00000000-0000-4000-8000-000000000001',
	'a key given by the caller is the key');
SELECT results_eq(
	$$SELECT idempotency_key, outcome FROM holdfast.enqueue('mail', 'send_email', 'keyed-2', idempotency_key => holdfast.key_of('order-1'))$$,
	$$VALUES (holdfast.key_of('order-1'), 'created')$$, 'key_of makes a key of a key that the business has');

-- the fields that a caller may give

SELECT outcome FROM holdfast.enqueue('beating', 'render', 'full', '[1, {"b": null}]', 's', 3, run_after => '2030-01-01 06:00+00',
	priority => -7, timeout => '2 h', give_up_at => '2030-01-02 00:00+00', max_attempts => 9, retry_policy => 'default',
	stream => NULL, correlation_id => 'trace-1', headers => '{"h": 1}') \g /dev/null
SELECT results_eq(
	$$SELECT run_after, priority, timeout_ms, give_up_at, max_attempts, retry_policy, correlation_id, headers, payload, scope,
			 intent_version FROM pg_temp.job WHERE subject = 'full'$$,
	$$VALUES ('2030-01-01 06:00+00'::timestamptz, -7, 7200000::bigint, '2030-01-02 00:00+00'::timestamptz, 9, 'default', 'trace-1',
			  '{"h": 1}'::jsonb, '[1, {"b": null}]'::jsonb, 's', 3)$$,
	'every field is stored as given');
SELECT outcome FROM holdfast.enqueue('mail', 'act', 'nulls', payload => NULL, intent_version => NULL, priority => NULL, timeout => NULL,
	side_effects => NULL) \g /dev/null
SELECT results_eq($$SELECT payload, intent_version, priority, timeout_ms, side_effects, idempotency_key FROM pg_temp.job WHERE subject = 'nulls'$$,
	$$VALUES ('{}'::jsonb, 1, 0, NULL::bigint, true, holdfast.intent_key('nulls', 'act', NULL, 1))$$,
	'a null is as good as an argument left out, as drivers send it');
SELECT is((SELECT outcome FROM holdfast.enqueue('mail', 'send_email', 'bound' || p, priority => p)), 'created',
	'priority ' || p || ' is within bounds') FROM unnest(ARRAY[-100, 100]) AS p;

-- G9: when it is due

SELECT pg_temp.at('00:00:10') \g /dev/null
CREATE FUNCTION pg_temp.due(arguments text) RETURNS timestamptz LANGUAGE plpgsql AS $$
DECLARE
	due	timestamptz;
BEGIN
	EXECUTE format('SELECT job_id FROM holdfast.enqueue(''late'', ''act'', %L, %s)', arguments, arguments);
	SELECT j.run_after INTO STRICT due FROM pg_temp.job j WHERE j.subject = arguments;
	RETURN due;
END
$$;
SELECT is(pg_temp.due(argument), due::timestamptz, 'G9: ' || claim) FROM (VALUES
	($$run_after => '2030-01-01 00:00:11.001+00'$$, '2030-01-01 00:00:11.001+00', 'a future run_after is stored to the millisecond'),
	($$run_after => '2030-01-01 00:00:11.000001+00'$$, '2030-01-01 00:00:11.000001+00', 'and to the microsecond'),
	($$run_after => '2029-12-31 00:00:00+00'$$, '2030-01-01 00:00:10+00', 'a run_after in the past counts as now'),
	($$run_after => '2030-01-01 00:00:10+00'$$, '2030-01-01 00:00:10+00', 'now is now'),
	($$delay => '1 ms'$$, '2030-01-01 00:00:10.001+00', 'a delay counts from the clock'),
	($$delay => '0 s'$$, '2030-01-01 00:00:10+00', 'no delay is now'),
	($$delay => '1 day'$$, '2030-01-02 00:00:10+00', 'a day is 24 hours')
) AS v (argument, due, claim);

-- known intents: a live job

CREATE TEMPORARY TABLE first AS SELECT * FROM holdfast.enqueue('mail', 'send_email', 'known', '{"a": 1, "b": [1, 2]}');
SELECT pg_temp.at('00:00:20') \g /dev/null
SELECT results_eq(
	$$SELECT job_id, idempotency_key, outcome, existing_since FROM holdfast.enqueue('mail', 'send_email', 'known', '{"a": 1, "b": [1, 2]}')$$,
	$$SELECT job_id, idempotency_key, 'duplicate', '2030-01-01 00:00:10+00'::timestamptz FROM first$$,
	'G5: a live intent answers duplicate, with the earlier job and when');
SELECT results_eq(
	$$SELECT job_id, outcome FROM holdfast.enqueue('other', 'send_email', 'known', '{"a": 1, "b": [1, 2]}')$$,
	$$SELECT job_id, 'duplicate' FROM first$$, 'G5: one intent is one intent in all queues');
SELECT results_eq(
	$$SELECT job_id, outcome FROM holdfast.enqueue('mail', 'send_email', 'known', '{"b": [1.0, 2.00], "a": 1.0}', priority => 50, delay => '1 h')$$,
	$$SELECT job_id, 'duplicate' FROM first$$, 'payloads are equal if equal as jsonb');
SELECT results_eq(
	$$SELECT priority, run_after, queue, payload::text FROM pg_temp.job j WHERE j.subject = 'known'$$,
	$$VALUES (0, '2030-01-01 00:00:10+00'::timestamptz, 'mail', '{"a": 1, "b": [1, 2]}')$$,
	'G5: the first stands: a duplicate changes nothing of it');
SELECT results_eq(
	$$SELECT kind, count(*) FROM pg_temp.evidence WHERE job_id = (SELECT job_id FROM first) GROUP BY kind$$,
	$$VALUES ('action_duplicate_enqueue', 3::bigint)$$, 'G7: each duplicate is on record');
SELECT outcome FROM holdfast.enqueue('committed', 'act', 'committed', '{"n": 1}') \g /dev/null
SELECT pg_temp.claimed('committed') \g /dev/null
SELECT is((SELECT outcome FROM holdfast.enqueue('committed', 'act', 'committed', '{"n": 1}')), 'duplicate', 'G5: a running job answers duplicate');

-- known intents: the ledger's answers

SELECT holdfast.complete(pg_temp.id('committed'), pg_temp.lease('committed')) \g /dev/null
SELECT pg_temp.at('00:00:30') \g /dev/null
SELECT results_eq(
	$$SELECT job_id, outcome, existing_since <= '2030-01-01 00:00:20+00' FROM holdfast.enqueue('committed', 'act', 'committed', '{"n": 1}')$$,
	$$SELECT pg_temp.id('committed'), 'already_committed', true$$,
	'G5: what was done answers already_committed, with the earlier job and when');
SELECT is((SELECT outcome FROM holdfast.enqueue('other', 'act', 'committed', '{"n": 1}')), 'already_committed', 'G5: also from another queue');
SELECT is_empty($$SELECT * FROM pg_temp.job WHERE subject = 'committed'$$, 'G5: and nothing is created');

SELECT outcome FROM holdfast.enqueue('dead', 'act', 'dead', '{"n": 1}') \g /dev/null
SELECT pg_temp.claimed('dead') \g /dev/null
SELECT decision FROM holdfast.fail(pg_temp.id('dead'), pg_temp.lease('dead'), 'ValidationError') \g /dev/null
SELECT pg_temp.at('00:00:40') \g /dev/null
SELECT results_eq(
	$$SELECT job_id, outcome, existing_since <= '2030-01-01 00:00:30+00' FROM holdfast.enqueue('dead', 'act', 'dead', '{"n": 1}')$$,
	$$SELECT pg_temp.id('dead'), 'dead', true$$, 'G5: failed_terminal answers dead, with the earlier job and when');
SELECT is_empty($$SELECT * FROM pg_temp.job WHERE subject = 'dead'$$, 'G5: and nothing is created');
SELECT outcome FROM holdfast.redrive(pg_temp.id('dead'), 'fixed') \g /dev/null
SELECT results_eq($$SELECT job_id, outcome FROM holdfast.enqueue('dead', 'act', 'dead', '{"n": 1}')$$,
	$$SELECT pg_temp.id('dead'), 'duplicate'$$, 'G5: a redriven job is live again: duplicate');

SELECT outcome FROM holdfast.enqueue('unknown', 'act', 'unknown', '{"n": 1}') \g /dev/null
SELECT pg_temp.claimed('unknown') \g /dev/null
SELECT holdfast.cancel(pg_temp.id('unknown'), 'stop', force => true) \g /dev/null
SELECT pg_temp.at('00:00:50') \g /dev/null
SELECT results_eq(
	$$SELECT job_id, outcome, existing_since <= '2030-01-01 00:00:40+00' FROM holdfast.enqueue('unknown', 'act', 'unknown', '{"n": 1}')$$,
	$$SELECT pg_temp.id('unknown'), 'unknown_effect', true$$,
	'G6: an unknown effect answers unknown_effect, with the earlier job and when');
SELECT is_empty($$SELECT * FROM pg_temp.job WHERE subject = 'unknown'$$, 'G6: and nothing is created');

SELECT outcome FROM holdfast.enqueue('retried', 'act', 'timed out') \g /dev/null
SELECT pg_temp.claimed('retried') \g /dev/null
SELECT decision FROM holdfast.fail(pg_temp.id('retried'), pg_temp.lease('retried'), 'TimeoutError') \g /dev/null
SELECT is((SELECT outcome FROM holdfast.enqueue('retried', 'act', 'timed out')), 'duplicate', 'G6: unknown with a live job answers duplicate');

SELECT outcome FROM holdfast.enqueue('cancelled', 'act', 'planned') \g /dev/null
SELECT holdfast.cancel((SELECT job_id FROM pg_temp.job WHERE subject = 'planned')) \g /dev/null
SELECT results_eq(
	$$SELECT e.outcome, e.existing_since, e.job_id <> (SELECT min(v.job_id) FROM pg_temp.evidence v WHERE v.subject = 'planned')
	  FROM holdfast.enqueue('cancelled', 'act', 'planned') e$$,
	$$VALUES ('created', NULL::timestamptz, true)$$, 'G5: planned without a job answers created, with a new job');
SELECT holdfast.cancel((SELECT job_id FROM pg_temp.job WHERE subject = 'planned')) \g /dev/null
SELECT outcome FROM holdfast.enqueue('cancelled', 'act', 'retryable', '{"n": 1}') \g /dev/null
SELECT pg_temp.claimed('cancelled') \g /dev/null
SELECT holdfast.cancel(pg_temp.id('cancelled')) \g /dev/null
SELECT decision FROM holdfast.fail(pg_temp.id('cancelled'), pg_temp.lease('cancelled'), 'ConnectionRefusedError', side_effect => 'none') \g /dev/null
SELECT is(pg_temp.ledger(holdfast.intent_key('retryable', 'act', NULL, 1)), 'failed_retryable', 'setting the scene: cancelled, and nothing was sent');
SELECT throws_ok($$SELECT * FROM holdfast.enqueue('cancelled', 'act', 'retryable', '{"n": 2}')$$, 'JQ007', NULL,
	'G5: the key of a job that is gone still knows its payload');
SELECT is((SELECT outcome FROM holdfast.enqueue('cancelled', 'act', 'retryable', '{"n": 1}')), 'created',
	'G5: failed_retryable without a job answers created');

-- intents without side effects: unique among live jobs only

SELECT results_eq(
	$$SELECT outcome FROM holdfast.enqueue('plain', 'act', 'plain') UNION ALL SELECT outcome FROM holdfast.enqueue('plain', 'act', 'plain')$$,
	$$VALUES ('created'), ('duplicate')$$, 'G5: without side effects, too, one live job per intent');
SELECT is_empty($$SELECT * FROM pg_temp.ledger WHERE subject = 'plain'$$, 'without side effects there is no ledger row');
SELECT pg_temp.claimed('plain') \g /dev/null
SELECT holdfast.complete(pg_temp.id('plain'), pg_temp.lease('plain')) \g /dev/null
SELECT is((SELECT outcome FROM holdfast.enqueue('plain', 'act', 'plain')), 'created', 'without side effects a settled intent may run again');
SELECT is((SELECT outcome FROM holdfast.enqueue('mail', 'act', 'plain in mail', side_effects => false)), 'created', 'a job may say that it has none');
SELECT is_empty($$SELECT * FROM pg_temp.ledger WHERE subject = 'plain in mail'$$, 'and then has no ledger row');
SELECT is((SELECT outcome FROM holdfast.enqueue('plain', 'act', 'effect in plain', side_effects => true)), 'created', 'and the reverse');
SELECT is((SELECT state FROM pg_temp.ledger WHERE subject = 'effect in plain'), 'planned', 'and then has one');

-- JQ007: the key is another intent's

SELECT outcome FROM holdfast.enqueue('other', 'act', 'mine', '{"n": 1}', scope => 's', idempotency_key => holdfast.key_of('mine')) \g /dev/null
SELECT pg_temp.stored() AS before \gset
SELECT is(pg_temp.refusal(statement), 'JQ007', 'G5: ' || claim) FROM (VALUES
	($$SELECT * FROM holdfast.enqueue('other', 'act', 'yours', '{"n": 1}', scope => 's', idempotency_key => holdfast.key_of('mine'))$$, 'a key with another subject'),
	($$SELECT * FROM holdfast.enqueue('other', 'acT', 'mine', '{"n": 1}', scope => 's', idempotency_key => holdfast.key_of('mine'))$$, 'a key with another action'),
	($$SELECT * FROM holdfast.enqueue('other', 'act', 'mine', '{"n": 1}', scope => 't', idempotency_key => holdfast.key_of('mine'))$$, 'a key with another scope'),
	($$SELECT * FROM holdfast.enqueue('other', 'act', 'mine', '{"n": 1}', idempotency_key => holdfast.key_of('mine'))$$, 'a key without its scope'),
	($$SELECT * FROM holdfast.enqueue('other', 'act', 'mine', '{"n": 2}', scope => 's', idempotency_key => holdfast.key_of('mine'))$$, 'a key with another payload'),
	($$SELECT * FROM holdfast.enqueue('other', 'act', 'mine', scope => 's', idempotency_key => holdfast.key_of('mine'))$$, 'a key with the default payload'),
	($$SELECT * FROM holdfast.enqueue('other', 'act', 'mine', '{"n": 1}', scope => 's', side_effects => false, idempotency_key => holdfast.key_of('mine'))$$, 'a key with side effects, enqueued without'),
	($$SELECT * FROM holdfast.enqueue('plain', 'act', 'plain', side_effects => true)$$, 'a key without side effects, enqueued with them'),
	($$SELECT * FROM holdfast.enqueue('mail', 'act', 'plain')$$, 'the same, by another queue''s default'),
	($$SELECT * FROM holdfast.enqueue('mail', 'act', 'committed', '{"n": 1}', side_effects => false)$$, 'a committed key, enqueued without side effects'),
	($$SELECT * FROM holdfast.enqueue('committed', 'act', 'committed', '{"n": 2}')$$, 'a committed key with another payload'),
	($$SELECT * FROM holdfast.enqueue('unknown', 'act', 'unknown', '{"n": 2}')$$, 'an unknown key with another payload'),
	($$SELECT * FROM holdfast.enqueue_batch('other', '[{"action_key": "act", "subject": "fresh"}, {"action_key": "act", "subject": "committed", "payload": {"n": 2}}]')$$, 'a batch with such a job')
) AS v (statement, claim);
SELECT is(pg_temp.stored(), :'before', 'G5: a refused enqueue leaves the original, and all else, as it was');
SELECT ok(detail LIKE '%' || encode(holdfast.payload_digest('{"n": 1}'), 'hex') || '%' AND detail LIKE '%' || encode(holdfast.payload_digest('{"n": 2}'), 'hex') || '%',
	'G5: JQ007 shows both digests')
FROM pg_temp.refusal_detail($$SELECT * FROM holdfast.enqueue('committed', 'act', 'committed', '{"n": 2}')$$) AS detail;

-- G8

SELECT results_eq($$SELECT outcome FROM holdfast.enqueue('mail', 'act', 'long enough', timeout => '75 s')$$, ARRAY['created'],
	'G8: a timeout that with its grace fits the lease');
SELECT throws_ok($$SELECT * FROM holdfast.enqueue('mail', 'act', 'too long', timeout => '75.001 s')$$, 'JQ005', NULL,
	'G8: a timeout that the lease would not outlive is refused where it is set');
SELECT matches(pg_temp.refusal_detail($$SELECT * FROM holdfast.enqueue('mail', 'act', 'too long', timeout => '75.001 s')$$), '90000.*90001',
	'G8: with both figures');
SELECT results_eq($$SELECT outcome FROM holdfast.enqueue('beating', 'act', 'any length', timeout => '6 h')$$, ARRAY['created'],
	'G8: a queue with a heartbeat takes any timeout');

-- G7: a rollback takes it all

SAVEPOINT s;
SELECT outcome FROM holdfast.enqueue('mail', 'act', 'rolled back') \g /dev/null
ROLLBACK TO s;
SELECT is_empty($$SELECT subject FROM pg_temp.job WHERE subject = 'rolled back' UNION ALL SELECT subject FROM pg_temp.ledger WHERE subject = 'rolled back'$$,
	'G7: job and ledger row are gone with the transaction');
SELECT is((SELECT outcome FROM holdfast.enqueue('mail', 'act', 'rolled back')), 'created', 'G5: a rolled back intent was never known');
SAVEPOINT s;
SET TRANSACTION READ ONLY;
SELECT pg_temp.refusal($$SELECT * FROM holdfast.enqueue('mail', 'act', 'read only')$$) AS state \gset
ROLLBACK TO s;
SELECT is(:'state'::text, '25006', 'a read-only transaction cannot enqueue');

-- batches

SELECT results_eq(
	$$SELECT ordinal, outcome, idempotency_key FROM holdfast.enqueue_batch('batch', '[
		{"action_key": "act", "subject": "b1"},
		{"action_key": "act", "subject": "b2", "scope": "s", "intent_version": 4},
		{"action_key": "act", "subject": "b1"},
		{"action_key": "act", "subject": "committed", "payload": {"n": 1}},
		{"action_key": "act", "subject": "dead", "payload": {"n": 1}},
		{"action_key": "act", "subject": "unknown", "payload": {"n": 1}},
		{"action_key": "act", "subject": "b3", "scope": null}]') ORDER BY ordinal$$,
	$$VALUES (1::bigint, 'created', holdfast.intent_key('b1', 'act', NULL, 1)), (2, 'created', holdfast.intent_key('b2', 'act', 's', 4)),
			 (3, 'duplicate', holdfast.intent_key('b1', 'act', NULL, 1)), (4, 'already_committed', holdfast.intent_key('committed', 'act', NULL, 1)),
			 (5, 'duplicate', holdfast.intent_key('dead', 'act', NULL, 1)), (6, 'unknown_effect', holdfast.intent_key('unknown', 'act', NULL, 1)),
			 (7, 'created', holdfast.intent_key('b3', 'act', NULL, 1))$$,
	'G5: a batch answers for each of its jobs, by ordinal; the same key twice is created once');
SELECT results_eq(
	$$SELECT ordinal, job_id = (SELECT j.job_id FROM pg_temp.job j WHERE j.subject = 'b1'), existing_since FROM holdfast.enqueue_batch('batch', '[{"action_key": "act", "subject": "b1"}, {"action_key": "act", "subject": "b1"}]') ORDER BY 1$$,
	$$VALUES (1::bigint, true, '2030-01-01 00:00:50+00'::timestamptz), (2, true, '2030-01-01 00:00:50+00')$$,
	'G5: a known key twice in a batch answers twice with the earlier job and when');
SELECT is((SELECT count(*) FROM pg_temp.job WHERE subject = 'b1'), 1::bigint, 'G5: and is there once');
SELECT holdfast.alter_queue('batch', lease => '60 s', timeout => '20 s', heartbeat => '20 s') \g /dev/null
SELECT outcome FROM holdfast.enqueue_batch('batch', '[{"action_key": "render", "subject": "in batch", "payload": [1], "scope": "s",
	"intent_version": 3, "run_after": "2030-01-01 06:00+00", "priority": -7, "timeout": "2 h", "give_up_at": "2030-01-02T00:00Z",
	"max_attempts": 9, "retry_policy": "default", "side_effects": false, "correlation_id": "trace-2", "headers": {"h": 1},
	"idempotency_key": "00000000-0000-4000-8000-00000000000b"}]') \g /dev/null
SELECT results_eq(
	$$SELECT run_after, priority, timeout_ms, give_up_at, max_attempts, retry_policy, side_effects, correlation_id, headers, payload, scope,
			 intent_version, idempotency_key FROM pg_temp.job WHERE subject = 'in batch'$$,
	$$VALUES ('2030-01-01 06:00+00'::timestamptz, -7, 7200000::bigint, '2030-01-02 00:00+00'::timestamptz, 9, 'default', false, 'trace-2',
			  '{"h": 1}'::jsonb, '[1]'::jsonb, 's', 3, '00000000-0000-4000-8000-00000000000b'::uuid)$$,
	'a batch knows every parameter of enqueue by its name');
SELECT outcome FROM holdfast.enqueue_batch('batch', '[{"action_key": "act", "subject": "delayed", "delay": "90 s"}]') \g /dev/null
SELECT is((SELECT run_after FROM pg_temp.job WHERE subject = 'delayed'), '2030-01-01 00:02:20+00', 'a delay in a batch counts from the clock');
SELECT is_empty($$SELECT * FROM holdfast.enqueue_batch('batch', '[]')$$, 'an empty batch is no error');

SELECT count(*) FROM holdfast.enqueue_batch('fifo', (SELECT jsonb_agg(jsonb_build_object('action_key', 'act', 'subject', md5(n::text), 'payload', n) ORDER BY n)
	FROM generate_series(1, 700) n)) \g /dev/null
SELECT is((SELECT array_agg(payload::text::int ORDER BY place) FROM holdfast.claim('fifo', 'w', 700) WITH ORDINALITY
		AS c (job_id, attempt_number, failures, max_attempts, fencing_token, lease_id, lease_expires_at, deadline_at, mode, ledger_state, ledger_evidence,
			  effects, idempotency_key, correlation_id, action_key, subject, scope, intent_version, payload, headers, timeout_ms, previous_attempt,
			  previous_error_class, previous_message, place)),
	ARRAY(SELECT generate_series(1, 700)), 'G9: a batch is served in its own order');

-- arguments out of bounds: a documented SQLSTATE, and nothing changed

CREATE TEMPORARY TABLE bad (argument text, states text[]);
INSERT INTO bad VALUES
	($$NULL, 'act', 's'$$, '{22004}'), ($$'nowhere', 'act', 's'$$, '{42704}'), ($$'', 'act', 's'$$, '{42704,22023}'),
	($$repeat('q', 100000), 'act', 's'$$, '{42704,22023}'),
	($$'mail', NULL, 's'$$, '{22004}'), ($$'mail', '', 's'$$, '{22023}'), ($$'mail', repeat('a', 100000), 's'$$, '{22023}'),
	($$'mail', 'act', NULL$$, '{22004}'), ($$'mail', 'act', ''$$, '{22023}'), ($$'mail', 'act', repeat('s', 100000)$$, '{22023}'),
	($$'mail', 'act', 's', scope => repeat('s', 100000)$$, '{22023}'),
	($$'mail', 'act', 's', correlation_id => repeat('s', 100000)$$, '{22023}'),
	($$'mail', 'act', 's', stream => repeat('s', 100000)$$, '{22023}'),
	($$'mail', 'act', 's', priority => -101$$, '{22023}'), ($$'mail', 'act', 's', priority => 101$$, '{22023}'),
	($$'mail', 'act', 's', priority => 2147483647$$, '{22023}'),
	($$'mail', 'act', 's', run_after => 'infinity'$$, '{22023}'), ($$'mail', 'act', 's', run_after => '-infinity'$$, '{22023}'),
	($$'mail', 'act', 's', run_after => '294276-12-31 23:59:59+00'$$, '{22023}'),
	($$'mail', 'act', 's', delay => '-1 ms'$$, '{22023}'), ($$'mail', 'act', 's', delay => '1 mon'$$, '{22023}'),
	($$'mail', 'act', 's', delay => '1 year'$$, '{22023}'), ($$'mail', 'act', 's', delay => '1 mon -30 days'$$, '{22023}'),
	($$'mail', 'act', 's', delay => '2147483647 days'$$, '{22023}'), ($$'mail', 'act', 's', delay => '2562047788 h'$$, '{22023}'),
	($$'mail', 'act', 's', delay => '-2147483648 days'$$, '{22023}'),
	($$'mail', 'act', 's', delay => '1 s', run_after => '2031-01-01 00:00+00'$$, '{22023}'),
	($$'mail', 'act', 's', delay => '0 s', run_after => '2031-01-01 00:00+00'$$, '{22023}'),
	($$'mail', 'act', 's', timeout => '0 s'$$, '{22023}'), ($$'mail', 'act', 's', timeout => '-1 s'$$, '{22023}'),
	($$'mail', 'act', 's', timeout => '1 mon'$$, '{22023}'), ($$'beating', 'act', 's', timeout => '2147483647 days'$$, '{22023}'),
	($$'mail', 'act', 's', give_up_at => 'infinity'$$, '{22023}'), ($$'mail', 'act', 's', give_up_at => '-infinity'$$, '{22023}'),
	($$'mail', 'act', 's', max_attempts => 0$$, '{22023}'), ($$'mail', 'act', 's', max_attempts => -1$$, '{22023}'),
	($$'mail', 'act', 's', retry_policy => 'nowhere'$$, '{42704}'), ($$'mail', 'act', 's', retry_policy => ''$$, '{42704,22023}'),
	($$'mail', 'act', 's', idempotency_key => 'no uuid'$$, '{22P02}');
SELECT pg_temp.stored() AS before \gset
SELECT is(CASE WHEN state = ANY (states) THEN 'refused' ELSE state END, 'refused', 'enqueue(' || left(argument, 60) || ') is refused')
FROM bad, pg_temp.refusal('SELECT * FROM holdfast.enqueue(' || argument || ')') AS state;

CREATE TEMPORARY TABLE bad_batch (jobs text, states text[]);
INSERT INTO bad_batch VALUES
	('NULL', '{22004}'), ($$'{}'$$, '{22023}'), ($$'null'$$, '{22023,22004}'), ($$'7'$$, '{22023}'), ($$'[1]'$$, '{22023}'), ($$'[null]'$$, '{22023,22004}'),
	($$'[[]]'$$, '{22023}'), ($$'[{}]'$$, '{22004,22023}'), ($$'[{"action_key": "act"}]'$$, '{22004,22023}'),
	($$'[{"action_key": "act", "subject": null}]'$$, '{22004,22023}'), ($$'[{"action_key": "act", "subject": ""}]'$$, '{22023}'),
	($$'[{"action_key": "act", "subject": "s", "prority": 1}]'$$, '{22023}'),
	($$'[{"action_key": "act", "subject": "s", "priority": "high"}]'$$, '{22023,22P02}'),
	($$'[{"action_key": "act", "subject": "s", "priority": 101}]'$$, '{22023}'),
	($$'[{"action_key": "act", "subject": "s", "priority": 1e100}]'$$, '{22023,22003}'),
	($$'[{"action_key": "act", "subject": "s", "delay": "1 mon"}]'$$, '{22023}'),
	($$'[{"action_key": "act", "subject": "s", "delay": "soon"}]'$$, '{22023,22007}'),
	($$'[{"action_key": "act", "subject": "s", "delay": "1 s", "run_after": "2031-01-01"}]'$$, '{22023}'),
	($$'[{"action_key": "act", "subject": "s", "run_after": "infinity"}]'$$, '{22023}'),
	($$'[{"action_key": "act", "subject": "s", "run_after": "2030-13-01"}]'$$, '{22023,22008}'),
	($$'[{"action_key": "act", "subject": "s", "idempotency_key": "x"}]'$$, '{22023,22P02}'),
	($$'[{"action_key": "act", "subject": "s", "retry_policy": "nowhere"}]'$$, '{42704}'),
	($$'[{"action_key": "act", "subject": "s", "timeout": "1 day"}]'$$, '{JQ005}'),
	($$'[{"action_key": "act", "subject": "twice", "payload": 1}, {"action_key": "act", "subject": "twice", "payload": 2}]'$$, '{JQ007}'),
	($$'[{"action_key": "act", "subject": "good"}, {"action_key": "act", "subject": ""}]'$$, '{22023}'),
	($$(SELECT jsonb_agg(jsonb_build_object('action_key', 'act', 'subject', n)) FROM generate_series(1, 200000) n)$$, '{22023}');
SELECT is(CASE WHEN state = ANY (states) THEN 'refused' ELSE state END, 'refused', 'enqueue_batch(' || left(jobs, 100) || ') is refused')
FROM bad_batch, pg_temp.refusal('SELECT * FROM holdfast.enqueue_batch(''other'', ' || jobs || ')') AS state;
SELECT is(pg_temp.stored(), :'before', 'a refused call has changed nothing, a refused job takes its batch along');
SELECT is(pg_temp.refusal($$SELECT * FROM holdfast.enqueue_batch('nowhere', '[]')$$), '42704', 'a batch for an unknown queue is refused, even if empty');

SELECT * FROM finish();
ROLLBACK;
