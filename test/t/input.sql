/*
 * Calls of holdfast's functions with made-up arguments, for 008_input.pl.
 *
 * Everything comes from the catalog: a new function is called, and a new
 * argument filled, without a change here; a type without values below fails
 * the test.  Calls run in batches of one transaction, which is rolled back (or,
 * one in twenty, committed), as a role that is granted queue 'a' alone; what
 * holds of queue 'b' and of the settings must then be as before.
 */
CREATE SCHEMA input;
GRANT USAGE ON SCHEMA input TO PUBLIC;

CREATE TABLE input.scene (queue_name text, job_id bigint, lease_id uuid, idempotency_key uuid, subject text);
CREATE TABLE input.not_ours (idempotency_key uuid);		-- of queues b and c
CREATE TABLE input.answer (role text, function text, sqlstate text, calls bigint);
CREATE TABLE input.finding (said text, role text, call text);
CREATE TABLE input.documented (sqlstate text);
CREATE TABLE input.public (function text);		-- the functions of the reference, by name

-- A job in each state, for each queue: pending, later, running, running with child effects, in doubt, being reconciled, dead, succeeded.
CREATE PROCEDURE input.set_scene() LANGUAGE plpgsql AS $$
DECLARE
	q	text;
BEGIN
	PERFORM holdfast.define_retry_policy('own', '1 s', min_delay => '1 s', max_attempts => 3);
	FOREACH q IN ARRAY ARRAY['a', 'b', 'c'] LOOP
		PERFORM holdfast.create_queue(q, retry_policy => 'own', side_effects => q <> 'c');
		PERFORM holdfast.define_stream(q, 'loop');
		PERFORM holdfast.enqueue(q, 'act', q || '-' || n, to_jsonb(n), priority => n, stream => CASE n WHEN 7 THEN 'loop' END)
			FROM generate_series(1, 12) n;
		PERFORM holdfast.enqueue(q, 'act', q || '-later', delay => '9 days');
	END LOOP;
	PERFORM holdfast.grant_queue('a', 'input_worker', 'worker');
	PERFORM holdfast.grant_queue('a', 'input_any', kind) FROM unnest(ARRAY['producer', 'worker', 'reader', 'operator']) kind;
	COMMIT;
	SET holdfast.clock = '2030-01-01 00:00:01+00';
	INSERT INTO input.scene SELECT q2, c.job_id, c.lease_id, c.idempotency_key, c.subject
		FROM unnest(ARRAY['a', 'b', 'c']) q2, holdfast.claim(q2, 'w', 9) c;
	COMMIT;
	PERFORM holdfast.fail(job_id, lease_id, 'Boom') FROM input.scene WHERE subject ~ '-[4]$';
	PERFORM holdfast.fail(job_id, lease_id, 'ValidationError') FROM input.scene WHERE subject ~ '-5$';
	PERFORM holdfast.complete(job_id, lease_id, '{"sent": true}') FROM input.scene WHERE subject ~ '-6$';
	PERFORM holdfast.ledger_transition(job_id, lease_id, 'started', 'mail') FROM input.scene WHERE subject ~ '-3$' AND queue_name <> 'c';
	PERFORM holdfast.fail(job_id, lease_id, 'Boom', side_effect => 'none') FROM input.scene WHERE subject ~ '-7$';
	PERFORM holdfast.cancel(job_id, 'why', true) FROM input.scene WHERE subject ~ '-8$';
	PERFORM holdfast.fail(job_id, lease_id, 'Boom') FROM input.scene WHERE subject ~ '-9$';
	COMMIT;
	SET holdfast.clock = '2030-01-01 00:01:10+00';
	UPDATE input.scene s SET lease_id = c.lease_id FROM unnest(ARRAY['a', 'b']) q2, holdfast.claim(q2, 'w', 1, modes => 'reconcile') c
		WHERE c.job_id = s.job_id;
	INSERT INTO input.not_ours SELECT l.idempotency_key FROM holdfast.ledger l WHERE l.subject ~ '^[bc]-';
	COMMIT;
END
$$;

-- What the roles must not change: the rows of queues b and c, and the settings.  An intent knows no queue: that it was
-- enqueued again, from another one, is said beside its job.
CREATE FUNCTION input.others() RETURNS text LANGUAGE sql AS $$
	SELECT md5(concat(
		(SELECT string_agg(j::text, ';' ORDER BY j.job_id) FROM holdfast.job j WHERE j.queue > 1),
		(SELECT string_agg(d::text, ';' ORDER BY d.job_id) FROM holdfast.dead_job d WHERE d.queue > 1),
		(SELECT string_agg(e::text, ';' ORDER BY e.event_id) FROM holdfast.event_all e WHERE e.queue > 1 AND e.kind <> 'action_duplicate_enqueue'),
		(SELECT string_agg(f::text, ';' ORDER BY f::text) FROM holdfast.finding f WHERE f.queue > 1),
		(SELECT string_agg(l::text, ';' ORDER BY l.idempotency_key) FROM holdfast.ledger l JOIN input.not_ours USING (idempotency_key)),
		(SELECT string_agg(concat(q.queue_id, q.queue_name, q.lease, q.timeout, q.retry_policy, q.side_effects), ';' ORDER BY q.queue_id) FROM holdfast.queue q),
		(SELECT string_agg(q::text, ';' ORDER BY q.queue_id) FROM holdfast.queue q WHERE q.queue_id > 1),
		(SELECT string_agg(s::text, ';' ORDER BY s.name) FROM holdfast.setting s),
		(SELECT string_agg(p::text, ';' ORDER BY p.policy_name) FROM holdfast.retry_policy p),
		(SELECT string_agg(r::text, ';' ORDER BY r::text) FROM holdfast.error_rule r),
		(SELECT string_agg(g::text, ';' ORDER BY g::text) FROM holdfast.queue_grant g)))
$$;

CREATE FUNCTION input.one_of(VARIADIC words text[]) RETURNS text LANGUAGE sql VOLATILE AS $$ SELECT words[1 + floor(random() * cardinality(words))::integer] $$;

CREATE FUNCTION input.any_text() RETURNS text LANGUAGE plpgsql VOLATILE AS $$
BEGIN
	CASE floor(random() * 12)::integer
		WHEN 0 THEN RETURN NULL;
		WHEN 1 THEN RETURN '';
		WHEN 2 THEN RETURN repeat(input.one_of('x', 'é', E'\n', '%', '日'), input.one_of('199', '200', '201', '999', '1000', '1001', '8192', '8193')::integer);
		WHEN 3 THEN RETURN repeat('x', floor(random() * 3000)::integer);
		WHEN 4 THEN RETURN input.one_of('%s%s%n', '"', '''', '\', '''; DROP TABLE input.scene; --', '$1', '${a}', '{}', '{"a', E'\u0001', E'\u200b', U&'\00e9', U&'e\0301', '🙂', E'\r\n');
		WHEN 5 THEN RETURN input.one_of('a', 'b', 'A', ' a', 'a ', 'c', 'no such', 'public', 'default', 'own', 'null', 'NULL', 'act', 'loop', 'mail', 'holdfast', 'pg_catalog');
		WHEN 6 THEN RETURN (SELECT subject FROM input.scene OFFSET floor(random() * 20) LIMIT 1);
		WHEN 7 THEN RETURN input.one_of('all', 'execute', 'reconcile', 'landed', 'not_landed', 'undetermined', 'abandoned', 'unknown', 'none', 'started', 'committed', 'failed_retryable', 'planned',
										'retry', 'terminal', 'suppress', 'honor_reset', 'worker', 'reader', 'operator', 'producer', 'max_runtime', 'idle', 'lease', 'separate', 'any', 'native');
		WHEN 8 THEN RETURN input.one_of('Boom', 'TimeoutError', 'ValidationError', 'RateLimitError', 'LeaseExpired', 'DuplicateActionError', 'RetryRequested', '%', '_', '\%', 'Bo%', '%%%%%%%%%%%%%%%%%%%%x');
		WHEN 9 THEN RETURN input.one_of('0', '-1', '1e400', 'NaN', 'infinity', 'now', 'epoch', 'input_worker', 'input_any', 'postgres', 'job_id', 'input.scene');
		ELSE RETURN (SELECT string_agg(chr(1 + floor(random() * 55294)::integer), '') FROM generate_series(1, floor(random() * 60)::integer));
	END CASE;
END
$$;

CREATE FUNCTION input.any_bigint() RETURNS bigint LANGUAGE sql VOLATILE AS $$
	SELECT CASE floor(random() * 6)::integer
		WHEN 0 THEN NULL
		WHEN 1 THEN floor(random() * 40)::bigint - 2
		WHEN 2 THEN (ARRAY[0, -1, 1, 9223372036854775807, (-9223372036854775808)::bigint, 9000000000000000000, 4294967296, 2147483648, -2147483649])[1 + floor(random() * 9)::integer]
		WHEN 3 THEN (1::bigint << floor(random() * 63)::integer) - floor(random() * 2)::bigint
		WHEN 4 THEN (SELECT job_id FROM input.scene OFFSET floor(random() * 27) LIMIT 1)
		ELSE floor((random() - 0.5) * 1e18)::bigint END
$$;

CREATE FUNCTION input.any_integer() RETURNS integer LANGUAGE sql VOLATILE AS $$
	SELECT CASE floor(random() * 5)::integer
		WHEN 0 THEN NULL
		WHEN 1 THEN floor(random() * 30)::integer - 2
		WHEN 2 THEN (ARRAY[0, -1, 1, 2147483647, (-2147483648)::integer, 100, 101, -100, -101, 1000, 1001, 65535, 1000000, 1000001])[1 + floor(random() * 14)::integer]
		WHEN 3 THEN (1::bigint << floor(random() * 31)::integer)::integer - 1
		ELSE floor((random() - 0.5) * 4e9)::integer END
$$;

-- Months, days and microseconds each for themselves: what a clock cannot count is in none of them, or in all.
CREATE FUNCTION input.any_interval() RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT CASE floor(random() * 5)::integer
		WHEN 0 THEN NULL
		WHEN 1 THEN input.one_of('0', '-1 s', '1 us', '999 us', '1 ms', '-1 us', '1 day', '1 day 00:00:00.001', '3650 days', '3651 days', '1 mon', '-1 mon', '1 mon -30 days', '178000000 years', '-178000000 years',
			'2147483647 days', '-2147483648 days', '2562047788:00:54.775807', '-2562047788:00:54.775807', '106751991 days 04:00:54.775807', '-1 day 24:00:00', '24:00:00 -1 day')
		WHEN 2 THEN format('%s us', floor(random() * 1e10)::bigint)
		WHEN 3 THEN format('%s s', floor(random() * 200))
		ELSE format('%s mons %s days %s s', floor((random() - 0.5) * 4) * floor(random() * 2), floor((random() - 0.5) * 8000), floor((random() - 0.5) * 1e6)) END
$$;

CREATE FUNCTION input.any_time() RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT CASE floor(random() * 4)::integer
		WHEN 0 THEN NULL
		WHEN 1 THEN input.one_of('infinity', '-infinity', '4714-11-24 00:00:00+00 BC', '294276-12-31 23:59:59.999999+00', '1970-01-01 00:00:00+00', '2000-01-01 00:00:00+00', '1999-12-31 23:59:59.999999+00',
			'2030-01-01 00:01:10+00', '2030-01-01 00:01:10.001+00', '2039-12-30 00:00:00+00', '2040-02-01 00:00:00+00')
		ELSE ('2030-01-01 00:00:00+00'::timestamptz + (random() - 0.2) * interval '12 days')::text END
$$;

CREATE FUNCTION input.any_jsonb(depth integer DEFAULT 3) RETURNS jsonb LANGUAGE plpgsql VOLATILE AS $$
BEGIN
	CASE floor(random() * CASE WHEN depth > 0 THEN 11 ELSE 6 END)::integer
		WHEN 0 THEN RETURN NULL;
		WHEN 1 THEN RETURN to_jsonb(input.any_bigint());
		WHEN 2 THEN RETURN to_jsonb(input.any_text());
		WHEN 3 THEN RETURN input.one_of('null', 'true', '{}', '[]', '0', '-0', '1e-300', '1.0000', '""')::jsonb;
		WHEN 4 THEN RETURN to_jsonb(input.any_interval());
		WHEN 5 THEN RETURN to_jsonb(input.any_time());
		WHEN 6 THEN RETURN (SELECT jsonb_agg(input.any_jsonb(depth - 1)) FROM generate_series(1, floor(random() * 4)::integer) OFFSET 0);
		WHEN 7 THEN RETURN (repeat('[', 500) || repeat(']', 500))::jsonb;
		WHEN 8 THEN RETURN (SELECT jsonb_agg(input.any_object(depth)) FROM generate_series(1, 1 + floor(random() * 4)::integer));
		WHEN 9 THEN RETURN to_jsonb('1'::numeric) || ('1e' || floor(random() * 5000))::jsonb;
		ELSE RETURN input.any_object(depth);
	END CASE;
END
$$;

-- Half its members are those that enqueue_batch and the imports know.
CREATE FUNCTION input.any_object(depth integer) RETURNS jsonb LANGUAGE sql VOLATILE AS $$
	SELECT coalesce(jsonb_object_agg(coalesce(m.name, 'null'), m.value), '{}') || CASE WHEN random() < 0.5 THEN
			jsonb_build_object('action_key', 'act', 'subject', input.one_of('a-1', 'b-1', 'new', 'b-later'), 'job_id', '1', 'started_at', '2030-01-01T00:00:00Z') ELSE '{}' END
	FROM (SELECT CASE WHEN random() < 0.9 THEN input.one_of('action_key', 'subject', 'payload', 'scope', 'intent_version', 'run_after', 'delay', 'priority', 'timeout', 'give_up_at', 'max_attempts', 'retry_policy',
					'side_effects', 'stream', 'correlation_id', 'headers', 'idempotency_key', 'job_id', 'started_at', 'outcome', 'attempt_number', 'expr', 'lease_id', 'elapsed_ms') ELSE input.any_text() END AS name,
			input.any_jsonb(depth - 1) AS value
		  FROM generate_series(1, floor(random() * 4)::integer) OFFSET 0) m
$$;

CREATE FUNCTION input.any_uuid() RETURNS uuid LANGUAGE sql VOLATILE AS $$
	SELECT CASE floor(random() * 5)::integer
		WHEN 0 THEN NULL
		WHEN 1 THEN input.one_of('00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff')::uuid
		WHEN 2 THEN md5(random()::text)::uuid
		WHEN 3 THEN (SELECT lease_id FROM input.scene OFFSET floor(random() * 27) LIMIT 1)
		ELSE (SELECT idempotency_key FROM input.scene OFFSET floor(random() * 27) LIMIT 1) END
$$;

-- A value of a type, as an expression; null for a type that has none here.
CREATE FUNCTION input.any_value(type regtype) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	element	regtype;
BEGIN
	CASE type
		WHEN 'text'::regtype THEN RETURN quote_nullable(input.any_text());
		WHEN 'bigint'::regtype THEN RETURN quote_nullable(input.any_bigint());
		WHEN 'integer'::regtype THEN RETURN quote_nullable(input.any_integer());
		WHEN 'boolean'::regtype THEN RETURN input.one_of('NULL', 'true', 'false');
		WHEN 'uuid'::regtype THEN RETURN quote_nullable(input.any_uuid());
		WHEN 'interval'::regtype THEN RETURN quote_nullable(input.any_interval());
		WHEN 'timestamptz'::regtype THEN RETURN quote_nullable(input.any_time());
		WHEN 'jsonb'::regtype THEN RETURN quote_nullable(input.any_jsonb());
		WHEN 'float8'::regtype THEN RETURN quote_nullable(input.one_of('NaN', 'Infinity', '-Infinity', '0', '-0', '1', '1.01', '1.005', '2', '1000', '1000.1', '-1', '1e300', '5e-324', NULL));
		WHEN 'date'::regtype THEN RETURN quote_nullable(input.one_of('infinity', '-infinity', '4714-11-24 BC', '5874897-12-31', '2030-01-01', '1999-12-31', NULL));
		WHEN 'oid'::regtype THEN RETURN quote_nullable(input.one_of('0', '1', '10', '4294967295', '16384', NULL));
		WHEN 'bytea'::regtype THEN RETURN quote_nullable(input.one_of('', '\x00', '\xff00ff', NULL));
		WHEN 'regclass'::regtype THEN RETURN quote_nullable(input.one_of('0', '4294967295', 'pg_class', 'holdfast.job', 'input.scene', 'pg_class_oid_index', 'holdfast.attempt', NULL));
		ELSE NULL;
	END CASE;
	SELECT t.typelem INTO element FROM pg_type t WHERE t.oid = type AND t.typcategory = 'A';
	IF FOUND THEN
		RETURN CASE floor(random() * 8)::integer
			WHEN 0 THEN 'NULL'
			WHEN 1 THEN quote_literal('{}')
			WHEN 2 THEN format('ARRAY[%s, %s]', coalesce(input.any_value(element), 'NULL'), coalesce(input.any_value(element), 'NULL'))
			WHEN 3 THEN format('ARRAY[ARRAY[%s::%s], ARRAY[NULL]]', input.any_value(element), element)
			WHEN 4 THEN format('array_fill(%s::%s, ARRAY[%s])', input.any_value(element), element, input.one_of('1', '64', '65', '300', '10001'))
			WHEN 5 THEN format('array_fill(%s::%s, ARRAY[3], ARRAY[-7])', input.any_value(element), element)
			ELSE format('ARRAY[%s::%s]', input.any_value(element), element) END;
	END IF;
	IF EXISTS (SELECT FROM pg_type t WHERE t.oid = type AND t.typtype = 'c') THEN
		RETURN CASE WHEN random() < 0.2 THEN 'NULL'
			ELSE (SELECT format('ROW(%s)', string_agg(CASE WHEN random() < 0.6 THEN coalesce(input.any_value(a.atttypid), 'NULL') ELSE 'NULL' END, ', ' ORDER BY a.attnum))
				  FROM pg_type t JOIN pg_attribute a ON a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped WHERE t.oid = type) END;
	END IF;
	RETURN NULL;
END
$$;

-- A value that a sensible caller gives, by the argument's name; else one of the type.
CREATE FUNCTION input.good_value(argument text, type regtype, s input.scene) RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT CASE argument
		WHEN 'queue_name' THEN quote_literal('a') WHEN 'worker_name' THEN quote_literal('w') WHEN 'job_id' THEN quote_nullable(s.job_id::text) WHEN 'lease_id' THEN quote_nullable(s.lease_id::text)
		WHEN 'idempotency_key' THEN quote_nullable(s.idempotency_key::text) WHEN 'action_key' THEN quote_literal('act') WHEN 'subject' THEN quote_literal(input.one_of(s.subject, 'new', 'fresh'))
		WHEN 'job_ids' THEN format('ARRAY[%s]', s.job_id) WHEN 'lease_ids' THEN format('ARRAY[%L]', s.lease_id) WHEN 'queue_names' THEN 'ARRAY[''a'']' WHEN 'qty' THEN input.one_of('1', '2', '10')
		WHEN 'error_class' THEN quote_literal(input.one_of('Boom', 'TimeoutError', 'ValidationError')) WHEN 'finding' THEN quote_literal(input.one_of('landed', 'not_landed', 'undetermined', 'abandoned'))
		WHEN 'to_state' THEN quote_literal(input.one_of('started', 'committed', 'failed_retryable')) WHEN 'effect' THEN input.one_of('NULL', '''mail''') WHEN 'reason' THEN quote_literal('r')
		WHEN 'evidence' THEN '''{}''' WHEN 'delay' THEN quote_literal(input.one_of('9 s', '1 ms', '2 days')) WHEN 'jobs' THEN quote_nullable(jsonb_build_array(input.any_object(1))) WHEN 'stream' THEN '''loop'''
		WHEN 'queue' THEN '1' WHEN 'kind' THEN '''reader''' WHEN 'policy_name' THEN '''own''' WHEN 'source' THEN '''log''' WHEN 'role_name' THEN '''input_worker''' WHEN 'retry_policy' THEN '''own'''
		WHEN 'modes' THEN quote_literal(input.one_of('all', 'execute', 'reconcile')) WHEN 'strict' THEN input.one_of('true', 'false') WHEN 'lease' THEN '''90 s''' WHEN 'relation' THEN '''input.scene'''
		ELSE input.any_value(type) END
$$;

-- The functions that are called; "open": to the worker.
CREATE TABLE input.function (n serial, oid oid, name text, names text[], types oid[], required integer, open boolean, public boolean, is_window boolean);
CREATE FUNCTION input.a_call(f input.function) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	s		input.scene;
	badness	CONSTANT float8 := CASE floor(random() * 3)::integer WHEN 0 THEN 0.05 WHEN 1 THEN 0.2 ELSE 0.6 END;
	given	text[] := '{}';
BEGIN
	SELECT * INTO s FROM input.scene OFFSET floor(random() * 27) LIMIT 1;
	FOR i IN 1 .. coalesce(cardinality(f.types), 0) LOOP
		CONTINUE WHEN i > f.required AND random() < 0.7;
		given := given || format('%I => (%s)::%s', f.names[i],
			coalesce(CASE WHEN random() < badness THEN input.any_value(f.types[i]) ELSE input.good_value(f.names[i], f.types[i], s) END, 'NULL'), f.types[i]::regtype);
	END LOOP;
	RETURN format(CASE WHEN f.is_window THEN 'SELECT holdfast.%I(%s) OVER (ORDER BY n) FROM generate_series(1, 3) n' ELSE 'SELECT * FROM holdfast.%I(%s)' END,
		f.name, array_to_string(given, ', '));
END
$$;

CREATE PROCEDURE input.list_functions() LANGUAGE sql AS $$
	INSERT INTO input.function (oid, name, names, types, required, open, public, is_window)
		SELECT p.oid, p.proname::text, p.proargnames[1:p.pronargs], ARRAY(SELECT unnest(p.proargtypes)), p.pronargs - p.pronargdefaults,
			has_function_privilege('input_worker', p.oid, 'EXECUTE'), EXISTS (SELECT FROM input.public d WHERE d.function = p.proname), p.prokind = 'w'
		FROM pg_proc p
		WHERE p.pronamespace = 'holdfast'::regnamespace AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
		ORDER BY p.proname, p.oid
$$;

CREATE PROCEDURE input.run(seed bigint, calls integer) LANGUAGE plpgsql AS $$
DECLARE
	before		CONSTANT text := input.others();
	documented	CONSTANT text[] := ARRAY(SELECT sqlstate FROM input.documented);
	functions	CONSTANT integer := (SELECT max(n) FROM input.function);
	f			input.function;
	pick		integer;
	role		text;
	call		text;
	state		text;
	message		text;
	answers		text[];
	findings	text[];
	made		integer := 0;
BEGIN
	PERFORM setseed((seed % 1000000) / 1000000.0);
	WHILE made < calls LOOP
		answers := '{}';
		findings := '{}';
		role := CASE WHEN random() < 0.45 THEN 'input_worker' WHEN random() < 0.8 THEN 'input_any' ELSE 'none' END;
		FOR i IN 1 .. least(200, calls - made) LOOP
			LOOP
				pick := 1 + floor(random() * functions)::integer;
				SELECT * INTO f FROM input.function x WHERE x.n = pick;
				EXIT WHEN CASE role WHEN 'none' THEN f.public WHEN 'input_worker' THEN f.open OR random() < 0.1 ELSE f.public OR random() < 0.1 END;
			END LOOP;
			call := input.a_call(f);
			state := '00000';
			BEGIN
				PERFORM set_config('role', role, true);
				EXECUTE call;
				PERFORM set_config('role', 'none', true);
				IF random() < 0.5 THEN
					RAISE EXCEPTION SQLSTATE 'ZZZZZ';
				END IF;
			EXCEPTION WHEN OTHERS THEN
				IF SQLSTATE <> 'ZZZZZ' THEN
					state := SQLSTATE;
					message := SQLERRM;
				END IF;
			END;
			answers := answers || concat_ws(' ', role, f.name, state);
			IF state <> '00000' AND state <> ALL (documented) THEN
				findings := findings || array[format('%s %s', state, message), role, call];
			END IF;
		END LOOP;
		made := made + cardinality(answers);
		IF role <> 'none' AND input.others() <> before THEN
			findings := findings || array['changed what is not the role''s', role, format('calls %s to %s', made - cardinality(answers), made)];
		END IF;
		IF role <> 'none' AND random() < 0.05 THEN
			COMMIT;		-- records the refusals, too
		ELSE
			ROLLBACK;
		END IF;
		INSERT INTO input.answer SELECT split_part(a, ' ', 1), split_part(a, ' ', 2), split_part(a, ' ', 3), count(*) FROM unnest(answers) a GROUP BY 1, 2, 3;
		INSERT INTO input.finding SELECT findings[n], findings[n + 1], findings[n + 2] FROM generate_series(1, cardinality(findings), 3) n;
		COMMIT;
	END LOOP;
END
$$;
