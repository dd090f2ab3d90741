/* Bringing the history of another queue: attempts from JSON, or from a relation. */

CREATE FUNCTION holdfast.attempt_of(source text, record jsonb, ordinal bigint) RETURNS holdfast.attempt_record
LANGUAGE C STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'holdfast_attempt_of';
COMMENT ON FUNCTION holdfast.attempt_of(text, jsonb, bigint) IS
	'internal: a record of a log, checked, as it will be stored; 22023 with its ordinal, the field and the reason';

CREATE FUNCTION holdfast.attempt_fields() RETURNS text[]
LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'holdfast_attempt_fields';
COMMENT ON FUNCTION holdfast.attempt_fields() IS 'internal: the fields of an attempt that can be imported';

CREATE TYPE holdfast.import_result AS (
	read				bigint,
	added				bigint,
	known				bigint
);
COMMENT ON TYPE holdfast.import_result IS 'records read, those that were new, and those that were there already';

/*
 * "records" is a query that answers (record jsonb, ordinal bigint); $1 in it
 * is "attempts".  A record is known by its digest and its rank among the equal
 * ones of its batch: a batch twice adds nothing, and what a log says twice in
 * one batch stays twice.  Record ids are drawn in the batch's order.  Sorts
 * and tuplestores spill, so that memory does not grow with the batch.
 */
CREATE FUNCTION holdfast.import_records(source text, records text, attempts jsonb) RETURNS holdfast.import_result
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO, YMD' SET jit = off AS $$
DECLARE
	columns	text := (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) FROM pg_attribute a
					 WHERE a.attrelid = 'holdfast.attempt_record'::regclass AND a.attnum > 0 AND NOT a.attisdropped
					   AND a.attname NOT IN ('record_id', 'recorded_at', 'rank'));
	result	holdfast.import_result;
BEGIN
	PERFORM holdfast.checked_name(import_records.source, 'source');
	IF import_records.source = 'native' THEN
		RAISE EXCEPTION USING ERRCODE = '22023',
			MESSAGE = 'argument "source" must not be "native"',
			DETAIL = 'That is the name of the attempts that ran under holdfast.',
			HINT = 'Name the log or the queue that the attempts come from.';
	END IF;
	-- two imports of one source, in different orders, would deadlock in the unique index
	PERFORM holdfast.be_alone('attempt_record', hashtext(import_records.source), true);
	PERFORM holdfast.make_partitions();
	EXECUTE format($q$
		WITH batch AS MATERIALIZED (
			SELECT r.ordinal, a.*, row_number() OVER (PARTITION BY a.digest ORDER BY r.ordinal)::integer AS place
			FROM (%1$s) r (record, ordinal), LATERAL holdfast.attempt_of($2, r.record, r.ordinal) a),
		added AS (
			INSERT INTO holdfast.attempt_record (record_id, recorded_at, rank, %2$s)
			SELECT nextval('holdfast.record_id_seq'), $3, b.place, %2$s FROM (SELECT * FROM batch ORDER BY ordinal) b
			ON CONFLICT (digest, rank) WHERE digest IS NOT NULL DO NOTHING
			RETURNING 1)
		SELECT b.n, a.n, b.n - a.n FROM (SELECT count(*) AS n FROM batch) b, (SELECT count(*) AS n FROM added) a
		$q$, import_records.records, columns)
		INTO result USING import_records.attempts, import_records.source, holdfast.clock();
	-- the questions come next, and autovacuum's worker later
	IF result.added >= 10000 THEN
		ANALYZE holdfast.attempt_record;
	END IF;
	RETURN result;
END
$$;
COMMENT ON FUNCTION holdfast.import_records(text, text, jsonb) IS 'internal: what import_attempts and import_attempts_from share';

CREATE FUNCTION holdfast.import_attempts(source text, attempts jsonb) RETURNS SETOF holdfast.import_result
LANGUAGE plpgsql ROWS 1 SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	largest	CONSTANT integer := 256000000;	-- bytes; jsonb itself ends at 268,435,455 with an error of its own
BEGIN
	IF import_attempts.attempts IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = '22004',
			MESSAGE = 'argument "attempts" must not be null',
			HINT = 'Give a JSON array of objects with the fields of an attempt.';
	END IF;
	IF pg_column_size(import_attempts.attempts) > largest THEN
		RAISE EXCEPTION USING ERRCODE = '54000',
			MESSAGE = 'argument "attempts" is too large',
			DETAIL = format('It has %s bytes; a jsonb is taken up to %s.', pg_column_size(import_attempts.attempts), largest),
			HINT = 'Split the array, or load it into a table and call holdfast.import_attempts_from().';
	END IF;
	IF jsonb_typeof(import_attempts.attempts) <> 'array' THEN
		RAISE EXCEPTION USING ERRCODE = '22023',
			MESSAGE = 'argument "attempts" must be an array',
			DETAIL = format('It is of type %s.', jsonb_typeof(import_attempts.attempts)),
			HINT = 'Give a JSON array of objects with the fields of an attempt.';
	END IF;
	RETURN NEXT holdfast.import_records(import_attempts.source,
		'SELECT e.value, e.ordinality FROM jsonb_array_elements($1) WITH ORDINALITY e', import_attempts.attempts);
END
$$;
COMMENT ON FUNCTION holdfast.import_attempts(text, jsonb) IS
	'imports attempts of another queue, an array of objects with the fields of an attempt; all or nothing: 22023 names the '
	'bad record, its field and the reason; 54000 above 256,000,000 bytes; the same batch again adds nothing; for the owner';

CREATE FUNCTION holdfast.import_attempts_from(source text, relation regclass, mapping jsonb DEFAULT '{}')
RETURNS SETOF holdfast.import_result
LANGUAGE plpgsql ROWS 1 SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO, YMD' AS $$
DECLARE
	fields	CONSTANT text[] := holdfast.attempt_fields();
	pairs	text[];
	entry	record;
	taken	text;
BEGIN
	IF import_attempts_from.relation IS NULL OR import_attempts_from.mapping IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = '22004', MESSAGE = format('argument "%s" must not be null',
			CASE WHEN import_attempts_from.relation IS NULL THEN 'relation' ELSE 'mapping' END);
	END IF;
	IF jsonb_typeof(import_attempts_from.mapping) <> 'object' THEN
		RAISE EXCEPTION USING ERRCODE = '22023', MESSAGE = 'argument "mapping" must be an object',
			HINT = 'Its keys are fields of an attempt, its values names of columns, or {"expr": "..."}.';
	END IF;
	FOR entry IN
		SELECT f.name, import_attempts_from.mapping -> f.name AS mapped, f.name = ANY (fields) AS known, a.attname AS same
		FROM (SELECT unnest(fields) AS name UNION SELECT jsonb_object_keys(import_attempts_from.mapping)) f
		LEFT JOIN pg_attribute a ON a.attrelid = import_attempts_from.relation AND a.attname = f.name AND a.attnum > 0 AND NOT a.attisdropped
		ORDER BY f.name = ANY (fields), import_attempts_from.mapping -> f.name IS NULL, f.name	-- what was said wrongly comes before what was not said
	LOOP
		IF NOT entry.known THEN
			RAISE EXCEPTION USING ERRCODE = '22023',
				MESSAGE = format('mapping key "%s" is no field of an attempt', entry.name),
				HINT = format('The fields are %s.', array_to_string(fields, ', '));
		END IF;
		taken := NULL;
		CASE coalesce(jsonb_typeof(entry.mapped), 'absent')
			WHEN 'absent' THEN
				taken := quote_ident(entry.same);
			WHEN 'null' THEN
				NULL;	-- left out, although there is a column of the field's name
			WHEN 'string' THEN
				IF NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = import_attempts_from.relation
							   AND a.attname = entry.mapped #>> '{}' AND a.attnum > 0 AND NOT a.attisdropped) THEN
					RAISE EXCEPTION USING ERRCODE = '42703',
						MESSAGE = format('mapping key "%s": relation %s has no column "%s"', entry.name,
							import_attempts_from.relation, entry.mapped #>> '{}'),
						HINT = 'Give a column''s name as it is stored, or {"expr": "..."} for anything else.';
				END IF;
				taken := quote_ident(entry.mapped #>> '{}');
			ELSE
				IF jsonb_typeof(entry.mapped -> 'expr') IS DISTINCT FROM 'string' OR (SELECT count(*) FROM jsonb_object_keys(entry.mapped)) <> 1 THEN
					RAISE EXCEPTION USING ERRCODE = '22023',
						MESSAGE = format('mapping key "%s" is neither a column''s name nor an expression', entry.name),
						DETAIL = format('It is %s.', entry.mapped),
						HINT = 'Give a column''s name, {"expr": "..."}, or null to leave the field out.';
				END IF;
				taken := format('(%s)', entry.mapped ->> 'expr');
		END CASE;
		IF taken IS NOT NULL THEN
			pairs := pairs || format('%L, %s', entry.name, taken);
		ELSIF entry.name IN ('job_id', 'subject', 'action_key', 'started_at') THEN
			RAISE EXCEPTION USING ERRCODE = '22023',
				MESSAGE = format('mapping has no key "%s"', entry.name),
				DETAIL = format('Relation %s has no column of that name either.', import_attempts_from.relation),
				HINT = 'Map job_id, subject, action_key and started_at; a constant is {"expr": "''send_email''"}.';
		END IF;
	END LOOP;
	RETURN NEXT holdfast.import_records(import_attempts_from.source,
		format('SELECT jsonb_build_object(%s), row_number() OVER () FROM %s', array_to_string(pairs, ', '), import_attempts_from.relation), NULL);
END
$$;
COMMENT ON FUNCTION holdfast.import_attempts_from(text, regclass, jsonb) IS
	'imports attempts of another queue from a table or view, in bounded memory; mapping: field to column name, to {"expr": '
	'"..."} over the row (names qualified: the search path is pg_catalog), or to null; a field that is not mapped comes from '
	'the column of its name, if there is one; 42703 for a column that is not there, otherwise as import_attempts; for the owner';

CREATE FUNCTION holdfast.do_drop_import(source text) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	n	bigint;
BEGIN
	PERFORM holdfast.checked_name(do_drop_import.source, 'source');
	DELETE FROM holdfast.attempt_record r WHERE r.source = do_drop_import.source AND r.digest IS NOT NULL;
	GET DIAGNOSTICS n = ROW_COUNT;
	INSERT INTO holdfast.finding (at, queue, kind, detail)
		VALUES (holdfast.clock(), 0, 'import_dropped', jsonb_build_object('source', do_drop_import.source, 'records', n, 'by', current_user));
	RETURN n;
END
$$;
COMMENT ON FUNCTION holdfast.do_drop_import(text) IS 'internal: the body of drop_import(), which guards let pass only when called by it';

CREATE FUNCTION holdfast.drop_import(source text) RETURNS bigint
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'holdfast_own';
COMMENT ON FUNCTION holdfast.drop_import(text) IS
	'deletes what was imported under a source''s name, to import it anew with another mapping; how many records; attempts of '
	'watched tables stay; for the owner';
