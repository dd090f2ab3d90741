\i test/setup.sql
\i test/tools.sql
-- Import: attempts of another queue, all or nothing, each known by what it says and how often.
SELECT plan(75);

SELECT pg_temp.at('00:00:00') \g /dev/null
CREATE FUNCTION pg_temp.record(more jsonb DEFAULT '{}') RETURNS jsonb LANGUAGE sql AS $$
	SELECT '{"job_id": "7", "subject": "s", "action_key": "act", "started_at": "2029-12-01 08:00:00+00"}'::jsonb || $1
$$;
CREATE FUNCTION pg_temp.import(source text, VARIADIC records jsonb[]) RETURNS text LANGUAGE sql AS $$
	SELECT format('%s read, %s added, %s known', read, added, known) FROM holdfast.import_attempts($1, to_jsonb($2))
$$;
-- what a refusal says: SQLSTATE and message
CREATE FUNCTION pg_temp.said(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ' ' || SQLERRM;
END
$$;
CREATE FUNCTION pg_temp.kept(source text) RETURNS bigint LANGUAGE sql AS $$ SELECT count(*) FROM holdfast.attempt_record r WHERE r.source = $1 $$;

-- a record, whole

CREATE TEMPORARY TABLE whole AS SELECT '{"job_id": 7, "lease_id": "l-1", "lease_expires_at": "2029-12-01 08:01:30+00", "attempt_number": 2, "subject": "prospect", "action_key": "send_email",
	"scope": "campaign-9", "intent_version": 3, "idempotency_key": "k-1", "correlation_id": "trace", "worker_name": "w1", "started_at": "2029-12-01T09:00:00.123456+01:00",
	"finished_at": "2029-12-01 08:00:30Z", "last_report_at": "2029-12-01 08:02:00+00", "outcome": "timeout", "worker_result": "timeout", "side_effect_state": "unknown",
	"exception_class": "TimeoutError", "message": "no answer", "timeout_kind": "read", "timeout_ms": "60000", "timeout_limit_ms": 30000, "elapsed_ms": 29876.9,
	"next_not_before": "2029-12-01 08:05:00+00", "retry_policy": "default", "delay_ms": 270000, "max_attempts": 5, "redriven": false, "final": "yes", "stop_reason": "max_consecutive_failures"}'::jsonb AS record;
SELECT is((SELECT pg_temp.import('whole', record) FROM whole), '1 read, 1 added, 0 known', 'a record with every field');
SELECT results_eq($$SELECT source COLLATE "default", job_id COLLATE "default", lease_id COLLATE "default", attempt_number, subject COLLATE "default", action_key COLLATE "default", scope COLLATE "default", intent_version,
		idempotency_key COLLATE "default", correlation_id COLLATE "default", worker_name COLLATE "default" FROM holdfast.attempt_record WHERE source = 'whole'$$,
	$$VALUES ('whole', '7', 'l-1', 2, 'prospect', 'send_email', 'campaign-9', 3, 'k-1', 'trace', 'w1')$$, 'G14: who and what, as it was said; ids as text');
SELECT results_eq($$SELECT started_at, finished_at, last_report_at, lease_expires_at, next_not_before FROM holdfast.attempt_record WHERE source = 'whole'$$,
	$$VALUES ('2029-12-01 08:00:00.123456+00'::timestamptz, '2029-12-01 08:00:30+00'::timestamptz, '2029-12-01 08:02:00+00'::timestamptz, '2029-12-01 08:01:30+00'::timestamptz, '2029-12-01 08:05:00+00'::timestamptz)$$,
	'G14: when, to the microsecond');
SELECT results_eq($$SELECT outcome COLLATE "default", worker_result COLLATE "default", side_effect_state COLLATE "default", exception_class COLLATE "default", message COLLATE "default", timeout_kind COLLATE "default",
		timeout_ms, timeout_limit_ms, elapsed_ms, retry_policy COLLATE "default", delay_ms, max_attempts, redriven, final, stop_reason COLLATE "default" FROM holdfast.attempt_record WHERE source = 'whole'$$,
	$$VALUES ('timeout', 'timeout', 'unknown', 'TimeoutError', 'no answer', 'read', 60000::bigint, 30000::bigint, 29876::bigint, 'default', 270000::bigint, 5, false, true, 'max_consecutive_failures')$$,
	'G14: how it ended; numbers as numbers or text, fractions of a millisecond cut off');
SELECT is((SELECT array_agg(k ORDER BY k) FROM whole, jsonb_object_keys(record) k), (SELECT array_agg(f ORDER BY f) FROM unnest(holdfast.attempt_fields()) f), 'these were all fields');
SELECT is((SELECT count(*) FROM holdfast.attempt a WHERE a.source = 'whole' AND a.job_id = '7' AND a.previous_attempt = 1), 1::bigint, 'the view attempt shows it, with a link to the attempt before');

-- the least that a record must say, and what is missing

SELECT is(pg_temp.import('least', pg_temp.record()), '1 read, 1 added, 0 known', 'a record with the four required fields');
SELECT is((SELECT count(*) FROM holdfast.attempt_record r, jsonb_each(to_jsonb(r)) e WHERE r.source = 'least' AND e.value <> 'null'), 10::bigint,
	'G14: what was not said is not made up (the four, source, digest, rank, record_id, recorded_at, synthetic_lease)');
SELECT is(pg_temp.import('least', pg_temp.record('{"message": null, "worker_name": "", "finished_at": ""}')), '1 read, 0 added, 1 known', 'null and the empty text are missing');
SELECT is(pg_temp.import('least', pg_temp.record('{"started_at": "2029-12-01 08:00:00"}')), '1 read, 0 added, 1 known', 'a time without an offset is UTC, whatever the session says');
SET LOCAL timezone = 'Asia/Tokyo';
SELECT is(pg_temp.import('least', pg_temp.record('{"started_at": "2029-12-01 08:00:00"}')), '1 read, 0 added, 1 known', 'a time without an offset is UTC, also in Tokyo');
SET LOCAL timezone = 'UTC';

-- known: by source, fields and rank

SELECT is(pg_temp.import('log', pg_temp.record(), pg_temp.record(), pg_temp.record('{"attempt_number": 2}')), '3 read, 3 added, 0 known', 'what a log says twice in one batch stays twice');
SELECT is(pg_temp.import('log', pg_temp.record(), pg_temp.record(), pg_temp.record('{"attempt_number": 2}')), '3 read, 0 added, 3 known', 'a batch twice adds nothing');
SELECT is(pg_temp.import('log', pg_temp.record('{"attempt_number": 2}'), pg_temp.record()), '2 read, 0 added, 2 known', 'nor does a part of it, in another order');
SELECT is(pg_temp.import('log', pg_temp.record(), pg_temp.record(), pg_temp.record()), '3 read, 1 added, 2 known', 'a third of its kind in one batch is new');
SELECT is(pg_temp.import('other', pg_temp.record()), '1 read, 1 added, 0 known', 'another source knows nothing of it');
SELECT is(pg_temp.import('log', pg_temp.record(jsonb_build_object(field, value))), '1 read, 1 added, 0 known', 'one field makes a record another: ' || field) FROM (VALUES
	('message', '"m"'::jsonb), ('worker_name', '"m"'), ('final', 'false'), ('redriven', 'false'), ('elapsed_ms', '0'), ('delay_ms', '0'), ('started_at', '"2029-12-01 08:00:00.000001+00"')) AS v (field, value);
SELECT is((SELECT array_agg(r.rank ORDER BY r.record_id) FROM holdfast.attempt_record r WHERE r.source = 'log' AND r.message IS NULL AND r.attempt_number IS NULL AND r.worker_name IS NULL AND r.final IS NULL
	AND r.redriven IS NULL AND r.elapsed_ms IS NULL AND r.delay_ms IS NULL AND r.started_at = '2029-12-01 08:00:00+00'), ARRAY[1, 2, 3], 'equal records are told apart by their rank');
SELECT is(pg_temp.import('order', VARIADIC ARRAY(SELECT pg_temp.record(jsonb_build_object('message', n::text)) FROM generate_series(1, 50) n)), '50 read, 50 added, 0 known', 'a batch in an order');
SELECT is((SELECT array_agg(message::int ORDER BY record_id) FROM holdfast.attempt_record WHERE source = 'order'), ARRAY(SELECT generate_series(1, 50)), 'record ids follow the order of the batch');
SELECT is(pg_temp.import('none', VARIADIC '{}'), '0 read, 0 added, 0 known', 'an empty batch');

-- a bad record: its place, its field, the reason; nothing kept

CREATE FUNCTION pg_temp.refused(field text, value jsonb) RETURNS text LANGUAGE sql AS $$
	SELECT pg_temp.said(format('SELECT pg_temp.import(''bad'', pg_temp.record(), pg_temp.record(''{"attempt_number": 2}''), %L::jsonb)', pg_temp.record(jsonb_build_object(field, value))))
$$;
SELECT is(pg_temp.refused(field, value), answer, 'a bad record: ' || answer) FROM (VALUES
	('started_at', '"yesterdayish"'::jsonb, '22023 record 3: "started_at" is no time'), ('started_at', '1700000000', '22023 record 3: "started_at" is no time'),
	('started_at', 'null', '22023 record 3: "started_at" is missing'), ('finished_at', '"infinity"', '22023 record 3: "finished_at" is not finite'), ('finished_at', '"2029-13-01"', '22023 record 3: "finished_at" is no time'),
	('job_id', '""', '22023 record 3: "job_id" is missing'), ('subject', 'null', '22023 record 3: "subject" is missing'), ('subject', to_jsonb(repeat('x', 1001)), '22023 record 3: "subject" is too long'),
	('outcome', '"exploded"', '22023 record 3: "outcome" is no outcome'), ('attempt_number', '-1', '22023 record 3: "attempt_number" is too small'),
	('attempt_number', '1.5', '22023 record 3: "attempt_number" is not a whole number'), ('attempt_number', '3000000000', '22023 record 3: "attempt_number" is too large'),
	('attempt_number', '"NaN"', '22023 record 3: "attempt_number" is no number'), ('attempt_number', 'true', '22023 record 3: "attempt_number" is no number'),
	('elapsed_ms', '-0.5', '22023 record 3: "elapsed_ms" is too small'), ('elapsed_ms', '1e30', '22023 record 3: "elapsed_ms" is too large'), ('elapsed_ms', '"soon"', '22023 record 3: "elapsed_ms" is no number'),
	('final', '"perhaps"', '22023 record 3: "final" is neither true nor false'), ('message', '{}', '22023 record 3: "message" is an object or an array'),
	('attempts', '1', '22023 record 3: "attempts" is no field of an attempt')) AS v (field, value, answer);
SELECT is(pg_temp.said($$SELECT pg_temp.import('bad', pg_temp.record(), '7')$$), '22023 record 2: is no object', 'a bad record: a scalar');
SELECT is(pg_temp.kept('bad'), 0::bigint, 'nothing of a bad batch is kept');
SELECT is(pg_temp.import('long', pg_temp.record(jsonb_build_object('message', repeat('ä', 10000)))), '1 read, 1 added, 0 known', 'a long message is cut, not refused');

-- arguments

SELECT is(pg_temp.refusal(call), answer, 'arguments: ' || call) FROM (VALUES
	('SELECT holdfast.import_attempts(NULL, ''[]'')', '22004'), ('SELECT holdfast.import_attempts('''', ''[]'')', '22023'), ('SELECT holdfast.import_attempts(''native'', ''[]'')', '22023'),
	('SELECT holdfast.import_attempts(''x'', NULL)', '22004'), ('SELECT holdfast.import_attempts(''x'', ''{}'')', '22023')) AS v (call, answer);
SELECT is(pg_temp.refusal($$SELECT holdfast.import_attempts('x', jsonb_build_array(repeat('x', 256000001)))$$), '54000', 'a jsonb above 256,000,000 bytes is refused, with a hint');

-- from a relation

CREATE TEMPORARY TABLE log (id uuid, who text, began timestamp, "ended At" timestamptz, tries int, worker_name text, message text, extra jsonb);
INSERT INTO log VALUES ('00000000-0000-0000-0000-000000000001', 's1', '2029-12-01 08:00:00', '2029-12-01 08:00:05+00', 1, 'w', 'm', '{"code": 7}'), ('00000000-0000-0000-0000-000000000002', 's2', '2029-12-01 08:00:00.5', NULL, 2, NULL, NULL, NULL);
SELECT results_eq($$SELECT read, added, known FROM holdfast.import_attempts_from('table', 'pg_temp.log', '{"job_id": "id", "subject": "who", "action_key": {"expr": "''send_email''"}, "started_at": "began", "finished_at": "ended At",
		"attempt_number": {"expr": "tries + 1"}, "message": null, "exception_class": {"expr": "''E'' || (extra ->> ''code'')"}}')$$, $$VALUES (2::bigint, 2::bigint, 0::bigint)$$, 'from a table, with a mapping');
SELECT results_eq($$SELECT job_id COLLATE "default", subject COLLATE "default", action_key COLLATE "default", started_at, finished_at, attempt_number, worker_name COLLATE "default", message COLLATE "default", exception_class COLLATE "default"
	FROM holdfast.attempt_record WHERE source = 'table' ORDER BY record_id$$,
	$$VALUES ('00000000-0000-0000-0000-000000000001', 's1', 'send_email', '2029-12-01 08:00:00+00'::timestamptz, '2029-12-01 08:00:05+00'::timestamptz, 2, 'w', NULL, 'E7'), ('00000000-0000-0000-0000-000000000002', 's2', 'send_email', '2029-12-01 08:00:00.5+00', NULL, 3, NULL, NULL, NULL)$$,
	'columns, expressions and constants as mapped; a column of a field''s name by itself, unless mapped to null');
CREATE TEMPORARY VIEW again AS SELECT 7 AS job_id, 's' AS subject, 'act' AS action_key, timestamptz '2029-12-01 08:00:00+00' AS started_at;
SELECT results_eq($$SELECT read, added, known FROM holdfast.import_attempts_from('log', 'pg_temp.again')$$, $$VALUES (1::bigint, 0::bigint, 1::bigint)$$, 'a record is the same from a relation as from JSON');
SELECT is(pg_temp.said(format('SELECT holdfast.import_attempts_from(''x'', ''pg_temp.log'', %L)', mapping)), answer, 'a bad mapping: ' || answer) FROM (VALUES
	('{"job_id": "no such"}', '42703 mapping key "job_id": relation log has no column "no such"'), ('{"jobid": "id"}', '22023 mapping key "jobid" is no field of an attempt'),
	('{"job_id": {"sql": "id"}}', '22023 mapping key "job_id" is neither a column''s name nor an expression'), ('{"job_id": "id", "subject": "who", "action_key": "who"}', '22023 mapping has no key "started_at"'),
	('[]', '22023 argument "mapping" must be an object'), ('{"job_id": "id", "subject": "who", "action_key": {"expr": "NULL"}, "started_at": "began"}', '22023 record 1: "action_key" is missing')) AS v (mapping, answer);
SELECT is(pg_temp.kept('x'), 0::bigint, 'nothing of it is kept');
INSERT INTO log SELECT gen_random_uuid(), 's' || n % 7, '2029-12-02'::timestamp + n * interval '1 s', NULL, n % 3, NULL, NULL, NULL FROM generate_series(1, 20000) n;
SET LOCAL work_mem = '64kB';
SELECT results_eq($$SELECT read, added, known FROM holdfast.import_attempts_from('many', 'pg_temp.log', '{"job_id": "id", "subject": "who", "action_key": {"expr": "''act''"}, "started_at": "began", "attempt_number": "tries"}')$$,
	$$VALUES (20002::bigint, 20002::bigint, 0::bigint)$$, 'many records, with little memory');
SELECT cmp_ok((SELECT reltuples FROM pg_class WHERE oid = 'holdfast.attempt_record'::regclass), '>=', 20000::real, 'of a large import the planner knows at once');
RESET work_mem;

-- taken back, and retention

SELECT is(holdfast.drop_import('many'), 20002::bigint, 'an import can be taken back, to map it otherwise');
INSERT INTO holdfast.attempt_record (recorded_at, source, job_id, subject, action_key, started_at) VALUES (holdfast.clock(), 'watched', '1', 's', 'a', holdfast.clock());
SELECT is(holdfast.drop_import('watched'), 0::bigint, 'but not the evidence of a watched table');
SELECT pg_temp.at('2030-02-01 00:00:00+00'::timestamptz) \g /dev/null
SELECT is(pg_temp.import('young', pg_temp.record('{"started_at": "1999-01-01 00:00:00+00"}')), '1 read, 1 added, 0 known', 'setting the scene');
SELECT is(pg_temp.refusal($$SELECT holdfast.set_attempt_retention('1 h')$$), '22023', 'retention is at least a day');
SELECT lives_ok($$SELECT holdfast.set_attempt_retention('30 days')$$, 'retention of attempt records is a setting of its own');
SELECT is((SELECT done > 0 FROM holdfast.maintain() WHERE task = 'attempt records purged'), true, 'maintain() purges them');
SELECT is((SELECT string_agg(DISTINCT source, ' ') FROM holdfast.attempt_record), 'young', 'counted from when they were recorded, not from when they ran');

SELECT * FROM finish();
ROLLBACK;
