-- Mappings of watched tables, made up: a good one with some of its members
-- dropped, exchanged, or replaced by anything.  Each is given to watch(), and
-- the table written if it is accepted.  Needs input.sql, for its bad values.

CREATE SCHEMA mapping;
CREATE TYPE mapping.state AS ENUM ('waiting', 'busy', 'over');
CREATE DOMAIN mapping.small AS integer CHECK (VALUE < 100);
CREATE TABLE mapping.jobs (
	id			bigint			PRIMARY KEY,
	status		text			NOT NULL,
	state		mapping.state	DEFAULT 'busy',
	attempts	integer			DEFAULT 0,
	tries		mapping.small,
	flag		boolean,
	run_after	timestamptz,
	began		timestamp,
	wait		interval,
	ratio		double precision,
	price		numeric,
	payload		jsonb,
	raw			json,
	tags		text[],
	uid			uuid,
	bits		bytea,
	"odd ""name'" text,
	doubled		integer			GENERATED ALWAYS AS (attempts * 2) STORED
);
CREATE TABLE mapping.answer (sqlstate text, mapping jsonb, message text);
CREATE TABLE mapping.finding (said text, mapping jsonb);

CREATE FUNCTION mapping.a_column() RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT CASE WHEN random() < 0.8 THEN input.one_of('id', 'status', 'state', 'attempts', 'tries', 'flag', 'run_after', 'began', 'wait', 'ratio', 'price', 'payload', 'raw', 'tags', 'uid', 'bits', 'odd "name''', 'doubled')
		ELSE input.one_of('ctid', 'tableoid', 'xmin', 'ID', 'jobs', 'no_such', 'id ', '"id"', 'mapping.jobs.id', repeat('x', 200)) END
$$;

CREATE FUNCTION mapping.an_expression(depth integer) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
BEGIN
	CASE floor(random() * CASE WHEN depth > 0 THEN 12 ELSE 3 END)::integer
		WHEN 0 THEN RETURN quote_ident(mapping.a_column());
		WHEN 1 THEN RETURN coalesce(quote_literal(left(input.any_text(), 40)), 'NULL');
		WHEN 2 THEN RETURN input.one_of('0', '1', '-1', '1e400', 'NULL', 'true', '$1', 'now()', 'clock_timestamp()', 'random()', 'current_user', 'DEFAULT', '*', 'jobs', 'jobs.*', '',
			'count(*)', 'row_number() OVER ()', 'generate_series(1, 3)', '(SELECT 1)', 'id; DROP TABLE mapping.jobs', 'id) FROM mapping.jobs --', '/*', '''', '"', 'E''\x''', 'U&"\0441"', 'pg_sleep(60)');
		WHEN 3 THEN RETURN format('(%s)', mapping.an_expression(depth - 1));
		WHEN 4 THEN RETURN format('%s %s %s', mapping.an_expression(depth - 1), input.one_of('+', '-', '/', '||', '=', '<', 'AND', 'IS DISTINCT FROM', '->', '->>', '@>', 'COLLATE', ','), mapping.an_expression(depth - 1));
		WHEN 5 THEN RETURN format('%s(%s)', input.one_of('coalesce', 'abs', 'lower', 'length', 'md5', 'to_timestamp', 'sum', 'nullif', 'greatest', 'pg_catalog.format', 'no_such', 'unnest', 'jsonb_array_elements', 'row_to_json', 'pg_typeof', 'public.f', 'xmlelement'), mapping.an_expression(depth - 1));
		WHEN 6 THEN RETURN format('CASE WHEN %s THEN %s ELSE %s END', mapping.an_expression(depth - 1), mapping.an_expression(depth - 1), mapping.an_expression(depth - 1));
		WHEN 7 THEN RETURN format('(%s)::%s', mapping.an_expression(depth - 1), input.one_of('text', 'integer', 'smallint', 'timestamptz', 'interval', 'boolean', 'jsonb', 'mapping.state', 'mapping.small', 'mapping.jobs', 'no_such', 'text[]', 'record', 'anyelement'));
		WHEN 8 THEN RETURN format('ARRAY[%s]', mapping.an_expression(depth - 1));
		WHEN 9 THEN RETURN format('ROW(%s)', mapping.an_expression(depth - 1));
		WHEN 10 THEN RETURN repeat('(', 200) || mapping.an_expression(0) || repeat(')', 200);
		ELSE RETURN format('NOT %s', mapping.an_expression(depth - 1));
	END CASE;
END
$$;

CREATE FUNCTION mapping.a_value() RETURNS jsonb LANGUAGE sql VOLATILE AS $$
	SELECT CASE floor(random() * 6)::integer
		WHEN 0 THEN to_jsonb(mapping.a_column())
		WHEN 1 THEN to_jsonb(mapping.a_column())
		WHEN 2 THEN jsonb_build_object('expr', mapping.an_expression(3))
		WHEN 3 THEN jsonb_build_object(input.one_of('expr', 'EXPR', 'column', ''), coalesce(input.any_jsonb(1), 'null'), input.one_of('expr', 'x'), 'id')
		WHEN 4 THEN (SELECT jsonb_agg(coalesce(input.any_jsonb(0), 'null')) FROM generate_series(1, input.one_of('1', '2', '100', '101')::integer))
		ELSE coalesce(input.any_jsonb(2), 'null') END
$$;

CREATE FUNCTION mapping.a_key() RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT CASE WHEN random() < 0.95 THEN input.one_of('id', 'status', 'attempt_number', 'run_after', 'lease', 'lease_expires_at', 'worker_name', 'exception_class', 'message', 'subject', 'action_key', 'scope',
			'idempotency_key', 'timeout', 'max_attempts', 'retry_policy', 'payload', 'when', 'pending', 'running', 'succeeded', 'failed', 'dead', 'cancelled')
		ELSE coalesce(input.any_text(), 'x') END
$$;

CREATE FUNCTION mapping.a_mapping() RETURNS jsonb LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	mapping	jsonb := '{"id": "id", "status": "status"}';
BEGIN
	IF random() < 0.02 THEN
		RETURN input.any_jsonb(2);
	END IF;
	FOR i IN 1 .. floor(random() * 5)::integer LOOP
		IF random() < 0.05 THEN
			mapping := mapping - mapping.a_key();
		ELSE
			mapping := mapping || jsonb_build_object(mapping.a_key(), mapping.a_value());
		END IF;
	END LOOP;
	RETURN mapping;
END
$$;

-- An expression may fail for a row: then its error is the statement's, and the row is not written.
CREATE PROCEDURE mapping.write() LANGUAGE plpgsql AS $$
DECLARE
	statement	text;
BEGIN
	FOREACH statement IN ARRAY ARRAY[
			$s$INSERT INTO mapping.jobs (id, status, attempts, tries, run_after, payload, uid) VALUES (1, 'pending', 0, 1, '2030-01-01', '{"a": 1}', gen_random_uuid()), (2, 'running', 1, 2, NULL, '[]', NULL)$s$,
			$s$UPDATE mapping.jobs SET status = 'running', attempts = attempts + 1$s$,
			$s$UPDATE mapping.jobs SET status = CASE id WHEN 1 THEN 'failed' ELSE 'succeeded' END, state = 'over', run_after = 'infinity', ratio = 'NaN'$s$,
			$s$UPDATE mapping.jobs SET status = 'anything', id = id + 10$s$, $s$DELETE FROM mapping.jobs$s$] LOOP
		BEGIN
			EXECUTE statement;
		EXCEPTION WHEN data_exception OR program_limit_exceeded OR check_violation OR SQLSTATE 'JQ001' OR SQLSTATE 'JQ002' OR SQLSTATE 'JQ003' OR SQLSTATE 'JQ004' OR SQLSTATE 'JQ005'
			OR SQLSTATE 'JQ006' OR SQLSTATE 'JQ007' OR SQLSTATE 'JQ008' OR SQLSTATE 'JQ009' THEN NULL;
		END;
	END LOOP;
END
$$;

CREATE PROCEDURE mapping.run(seed bigint, mappings integer) LANGUAGE plpgsql AS $$
DECLARE
	documented	CONSTANT text[] := ARRAY(SELECT d.sqlstate FROM input.documented d);
	mapping		jsonb;
	state		text;
	said		text;
	watched		boolean;
BEGIN
	PERFORM setseed((seed % 1000000) / 1000000.0);
	FOR i IN 1 .. mappings LOOP
		mapping := mapping.a_mapping();
		state := '00000';
		said := NULL;
		watched := false;
		BEGIN
			PERFORM holdfast.watch('mapping.jobs', mapping, input.one_of('observe', 'observe', 'correct', 'enforce', NULL));
			watched := true;
			CALL mapping.write();
			RAISE EXCEPTION SQLSTATE 'ZZZZZ';
		EXCEPTION WHEN OTHERS THEN
			IF SQLSTATE <> 'ZZZZZ' THEN
				state := SQLSTATE;
				said := SQLERRM;
			END IF;
		END;
		INSERT INTO mapping.answer VALUES (state, mapping, said);
		-- what PostgreSQL's parser says of an expression has its own state, after the mapping's key
		IF state <> '00000' AND (watched OR state <> ALL (documented)) AND (watched OR said !~ '^mapping key "' OR state !~ '^(42|22|0A|54)') THEN
			INSERT INTO mapping.finding VALUES (format('%s %s %s', CASE WHEN watched THEN 'writing:' ELSE 'watch:' END, state, said), mapping);
		END IF;
		IF i % 100 = 0 THEN
			COMMIT;
		END IF;
	END LOOP;
END
$$;
