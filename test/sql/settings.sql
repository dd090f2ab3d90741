\i test/setup.sql
\i test/tools.sql
-- Settings that any session may have change nothing: not what is written, not what is decided, not a verdict, and not
-- how many jobs a claim hands out.  One history is written and read under each of them, and compared.
SET jit = off;		-- a disabled scan costs so much that everything would be compiled
SELECT plan(25);

SELECT pg_temp.at('00:00:00') \g /dev/null
SELECT holdfast.define_retry_policy('p', '10 s', jitter_window => '3 s', max_attempts => 3),
	holdfast.create_queue('mail', retry_policy => 'p'), holdfast.create_queue('plain', retry_policy => 'p', side_effects => false),
	holdfast.define_stream('mail', 'loop', 1), holdfast.make_partitions() \g /dev/null

-- One history, and everything that can be read of it: rows of tables first, as they are typed, and texts last.
CREATE PROCEDURE pg_temp.write() LANGUAGE plpgsql AS $$
DECLARE
	held	record;
	n	integer := 0;
BEGIN
	PERFORM holdfast.enqueue('mail', 'act', 's' || i, jsonb_build_object('n', i * 0.1, 'at', '2030-02-01', 'text', U&'zo\00eb\\n'), scope => 'c', delay => '0',
		stream => CASE i WHEN 9 THEN 'loop' END, headers => '{"a": [1, null, "x"]}', correlation_id => CASE i WHEN 3 THEN 'corr' END) FROM generate_series(1, 12) i;
	PERFORM holdfast.enqueue_batch('plain', '[{"action_key": "do", "subject": "x", "delay": "00:00:00.5", "payload": {"b": 1.50, "a": 1e2}}, {"action_key": "do", "subject": "y", "run_after": "2030-01-01T00:00:03+00:00"},
		{"action_key": "do", "subject": "z", "timeout": "PT30S", "give_up_at": "2030-01-01 01:00:00+00"}]');
	PERFORM holdfast.enqueue('mail', 'act', 's1', '{"n": 0.1, "at": "2030-02-01", "text": "zo\u00eb\\n"}', scope => 'c');
	PERFORM pg_temp.at('00:00:05');
	CREATE TEMPORARY TABLE got AS SELECT * FROM holdfast.claim('mail', 'w1', 100);
	CREATE TEMPORARY TABLE said (n integer, answer text);
	FOR held IN SELECT * FROM got ORDER BY job_id LOOP
		n := n + 1;
		PERFORM pg_temp.at('2030-01-01 00:00:05+00'::timestamptz + n * interval '1.5 s');
		INSERT INTO said SELECT n, CASE n
			WHEN 1 THEN holdfast.complete(held.job_id, held.lease_id, '{"sent": true}')
			WHEN 2 THEN (SELECT r.because FROM holdfast.fail(held.job_id, held.lease_id, 'TimeoutError', 'after 12 s', timeout_kind => 'max_runtime', timeout_limit_ms => 60000) r)
			WHEN 3 THEN (SELECT r.because FROM holdfast.fail(held.job_id, held.lease_id, 'Boom', 'id 4711 at 2030-01-01', side_effect => 'none', retry_after => '90 s') r)
			WHEN 4 THEN (SELECT r.because FROM holdfast.fail(held.job_id, held.lease_id, 'RateLimitError', NULL, retry_at => '2030-01-01 02:00:00+00') r)
			WHEN 5 THEN (SELECT r.because FROM holdfast.schedule_retry(held.job_id, held.lease_id, '1 day', side_effect => 'none') r)
			WHEN 6 THEN (SELECT r.because FROM holdfast.snooze(held.job_id, held.lease_id, '2 h 3 min') r)
			WHEN 7 THEN (SELECT r.because FROM holdfast.release(held.job_id, held.lease_id) r)
			WHEN 8 THEN (SELECT r.state FROM holdfast.ledger_transition(held.job_id, held.lease_id, 'started', 'mail') r)
			WHEN 9 THEN (SELECT r.because FROM holdfast.fail(held.job_id, held.lease_id, 'ValidationError', 'bad') r)
			WHEN 10 THEN (SELECT r.outcome FROM holdfast.heartbeat(held.job_id, held.lease_id, '300 s') r)
			WHEN 11 THEN holdfast.complete(held.job_id, '11111111-1111-4111-8111-111111111111')
			WHEN 12 THEN (SELECT r.because FROM holdfast.fail(held.job_id, held.lease_id, 'ValidationError', 'worse') r) END;
	END LOOP;
	PERFORM holdfast.fail(c.job_id, c.lease_id, 'Boom', 'again ' || c.subject) FROM holdfast.claim_any(ARRAY['plain', 'mail'], 'w2', 2) c;
	PERFORM pg_temp.at('00:10:00');
	PERFORM FROM holdfast.maintain();
	PERFORM holdfast.reconcile(c.job_id, c.lease_id, 'landed', '{"found": 1}') FROM holdfast.claim('mail', 'w3', 2, modes => 'reconcile') c;
	PERFORM holdfast.redrive(d.job_id, 'fixed') FROM (SELECT job_id FROM holdfast.dead_job ORDER BY job_id LIMIT 1) d;
	PERFORM FROM holdfast.import_attempts('log', '[{"job_id": "1", "subject": "s2", "action_key": "act", "started_at": "2030-01-01 00:00:01", "finished_at": "2030-01-01T00:00:02.5Z", "outcome": "failed", "exception_class": "E", "message": "m 1", "attempt_number": 1},
		{"job_id": "1", "subject": "s2", "action_key": "act", "started_at": "2030-01-01 00:00:02+00", "outcome": "timeout", "timeout_ms": "60000", "elapsed_ms": 100.9, "attempt_number": "2"}]');
	PERFORM pg_temp.at('02:00:00');
	PERFORM FROM holdfast.maintain();
	CREATE TEMPORARY TABLE read_attempt AS SELECT * FROM holdfast.attempt;
	CREATE TEMPORARY TABLE read_pair AS SELECT * FROM holdfast.attempt_pair;
	CREATE TEMPORARY TABLE read_stop AS SELECT * FROM holdfast.stop_reason;
	CREATE TEMPORARY TABLE read_timeout AS SELECT * FROM holdfast.timeout_finding;
	CREATE TEMPORARY TABLE read_fingerprint AS SELECT * FROM holdfast.fingerprint;
	CREATE TEMPORARY TABLE read_verdicts AS SELECT * FROM holdfast.verdicts('2030-01-01 00:00:00+00', '2030-01-02 00:00:00+00');
	CREATE TEMPORARY TABLE read_pattern AS SELECT * FROM holdfast.failure_pattern;
	CREATE TEMPORARY TABLE read_ps AS SELECT * FROM holdfast.ps;
	CREATE TEMPORARY TABLE read_timeline AS SELECT * FROM holdfast.timeline(subject => 's2');
	CREATE TEMPORARY TABLE read_explain AS SELECT j.job_id, x.* FROM holdfast.job j, holdfast.explain(j.job_id) x;
	CREATE TEMPORARY TABLE read_recoverable AS SELECT * FROM holdfast.recoverable();
	CREATE TEMPORARY TABLE read_metrics AS SELECT * FROM holdfast.metrics_all();
	CREATE TEMPORARY TABLE read_verify AS SELECT * FROM holdfast.verify();
	CREATE TEMPORARY TABLE read_pure AS SELECT holdfast.intent_key(U&'\00eb', E'\\', NULL, -1), holdfast.payload_digest('[1.0, "\u00eb", {"a": 1e-7}]'), holdfast.jitter_ms(7, 3, '30 s'),
		holdfast.backoff_delay('p', 42, 9), holdfast.job_seed('x'), holdfast.error_digest('E', E'at 0x1f \\ 17.5e3');
	CREATE TEMPORARY TABLE read_report AS SELECT holdfast.report_html('s2');
END
$$;
-- Lease ids are random, fencing tokens of the real clock, places of rows are where there was room: none is compared.  What
-- a reader's sentence says of times is in the reader's form: it is not compared where "told" is false.
CREATE FUNCTION pg_temp.everything(told boolean) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	source	text;
BEGIN
	FOREACH source IN ARRAY ARRAY['holdfast.job', 'holdfast.dead_job', 'holdfast.ledger', 'holdfast.event_all', 'holdfast.finding', 'holdfast.unknown_effect', 'holdfast.stream',
		'holdfast.queue_hour', 'holdfast.attempt_record', 'said', 'read_attempt', 'read_pair', 'read_stop', 'read_timeout', 'read_fingerprint', 'read_verdicts', 'read_pattern', 'read_ps',
		'read_timeline', 'read_explain', 'read_recoverable', 'read_metrics', 'read_verify', 'read_pure', 'read_report']
	LOOP
		RETURN QUERY EXECUTE format($q$SELECT l FROM (SELECT %1$L || ' ' || regexp_replace(regexp_replace((to_jsonb(t) - 'ledger_place' - %2$L::text[])::text,
			'\m[0-9a-f]{8}(-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12})?\M(?!-)', 'lease', 'g'),
			'"fencing_token": "?[0-9]+', '"fencing_token": 0', 'g') FROM %1$s t) x (l) ORDER BY l COLLATE "C"$q$, source,
			CASE WHEN told OR source !~ '^read' THEN '{}'::text[] ELSE '{because,value,decided,report_html,time}' END);
	END LOOP;
END
$$;
-- The history under settings; undone, but for the lines.
CREATE TEMPORARY TABLE line (setting text, line text, n bigint);
CREATE FUNCTION pg_temp.history(settings text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	was		CONSTANT text[] := ARRAY(SELECT quote_nullable(current_setting(split_part(s, '=', 1), true)) FROM unnest(string_to_array(settings, '; ')) s);
	lines	text[];
	s		text;
BEGIN
	PERFORM setval('holdfast.job_id_seq', 1000, false), setval('holdfast.event_id_seq', 1000, false), setval('holdfast.record_id_seq', 1000, false);
	BEGIN
		FOREACH s IN ARRAY string_to_array(settings, '; ') LOOP
			PERFORM set_config(split_part(s, '=', 1), split_part(s, '=', 2), true);
		END LOOP;
		EXECUTE 'DISCARD PLANS';
		CALL pg_temp.write();
		FOREACH s IN ARRAY string_to_array(settings, '; ') LOOP
			EXECUTE format('SET LOCAL %s TO DEFAULT', split_part(s, '=', 1));
		END LOOP;
		SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL intervalstyle = 'postgres'; SET LOCAL search_path = pg_catalog, pg_temp, public;
		lines := ARRAY(SELECT pg_temp.everything(settings !~ 'datestyle|timezone'));
		RAISE EXCEPTION SQLSTATE 'ZZZZZ';
	EXCEPTION WHEN SQLSTATE 'ZZZZZ' THEN NULL;
	END;
	INSERT INTO line SELECT settings, l, n FROM unnest(lines) WITH ORDINALITY AS x (l, n);
END
$$;
SELECT pg_temp.history(s) FROM unnest(ARRAY['holdfast.scan_hint=on', 'timezone=UTC']) s \g /dev/null
SELECT cmp_ok(count(*), '>', 150::bigint, 'the history has lines to compare') FROM line;
SELECT is((SELECT count(*) FROM line WHERE line ~ '^read_verify' AND setting = 'timezone=UTC'), 2::bigint, 'verify() reports what the test itself has set');
CREATE FUNCTION pg_temp.same(settings text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_temp.history(settings);
	RETURN is_empty(format($q$SELECT x.line, y.line FROM (SELECT b.line, b.n FROM line b WHERE b.setting = CASE WHEN %1$L ~ 'datestyle|timezone' THEN 'timezone=UTC' ELSE 'holdfast.scan_hint=on' END) x FULL JOIN (SELECT l.line, l.n FROM line l WHERE l.setting = %1$L) y USING (n)
		WHERE x.line IS DISTINCT FROM y.line$q$, settings), 'the same under ' || settings);
END
$$;
SELECT pg_temp.same(settings) FROM unnest(ARRAY[
	'datestyle=German, DMY', 'timezone=America/St_Johns; datestyle=SQL, DMY', 'timezone=Asia/Kolkata; datestyle=Postgres, MDY', 'timezone_abbreviations=India; timezone=Asia/Kolkata; datestyle=SQL, MDY',
	'intervalstyle=sql_standard', 'intervalstyle=iso_8601; extra_float_digits=-15', 'bytea_output=escape; array_nulls=off', 'standard_conforming_strings=off', 'quote_all_identifiers=on', 'transform_null_equals=on',
	'xmloption=document; row_security=off; check_function_bodies=off; backslash_quote=off; default_toast_compression=lz4; exit_on_error=off', 'search_path=', 'search_path=pg_temp, public, pg_catalog',
	'geqo_threshold=2; from_collapse_limit=1; join_collapse_limit=1', 'plan_cache_mode=force_generic_plan; constraint_exclusion=on; enable_partition_pruning=off', 'enable_seqscan=off; enable_bitmapscan=off',
	'enable_indexscan=off; enable_indexonlyscan=off', 'enable_hashjoin=off; enable_mergejoin=off; enable_hashagg=off', 'enable_nestloop=off; enable_hashagg=off; enable_sort=off',
	'enable_material=off; enable_memoize=off; enable_incremental_sort=off; work_mem=64kB; hash_mem_multiplier=1', 'holdfast.scan_hint=off', 'holdfast.scan_hint=check']) settings;

SELECT holdfast.create_queue('twenty', side_effects => false) \g /dev/null
SELECT holdfast.enqueue_batch('twenty', (SELECT jsonb_agg(jsonb_build_object('action_key', 'act', 'subject', n)) FROM generate_series(1, 20) n)) \g /dev/null
CREATE FUNCTION pg_temp.counted(switched_off text, n integer) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	answer	text;
BEGIN
	PERFORM set_config(s.name, 'off', true) FROM pg_settings s WHERE s.name LIKE 'enable\_%' AND switched_off IN (s.name, 'all');
	EXECUTE format('SELECT format(''%%s of 20, %%s left'', count(DISTINCT c.job_id), 20 - count(*)) FROM holdfast.claim(''twenty'', ''w'', %s) c', n) INTO answer;
	IF (SELECT count(*) FROM pg_temp.job j WHERE j.queue = 'twenty' AND j.status = 'running') <> n THEN
		answer := 'other jobs run';
	END IF;
	RAISE EXCEPTION SQLSTATE 'ZZZZZ';
EXCEPTION WHEN SQLSTATE 'ZZZZZ' THEN
	RETURN answer;
END
$$;
-- A1: a claim of n hands out n, under every plan that the planner may be driven to.
SELECT is_empty($$
	SELECT g.name, n, pg_temp.counted(g.name, n) FROM (SELECT s.name FROM pg_settings s WHERE s.name LIKE 'enable\_%' UNION ALL VALUES ('all')) g, generate_series(1, 20) n
	WHERE pg_temp.counted(g.name, n) IS DISTINCT FROM format('%s of 20, %s left', n, 20 - n)$$, 'A1: exactly n of 20 jobs under every enable_... setting off, and under all of them off');
SELECT * FROM finish();
ROLLBACK;
