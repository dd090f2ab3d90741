/* Jobs that stopped although their policy would have gone on. */

CREATE TYPE holdfast.recoverable_job AS (
	source				text,
	job_id				text,
	queue				text,
	subject				text,
	action_key			text,
	exception_class		text,
	attempt_number		integer,
	failures			integer,
	max_attempts		integer,
	stopped_at			timestamptz,
	stopped_by			text,
	automatic			boolean,
	how					text
);
COMMENT ON TYPE holdfast.recoverable_job IS 'a job that stopped with a retryable class and budget left';
COMMENT ON COLUMN holdfast.recoverable_job.automatic IS 'maintain() puts it back: its queue or its watch says auto_recover';
COMMENT ON COLUMN holdfast.recoverable_job.how IS 'the call that puts it back; null: only its own queue can';

CREATE FUNCTION holdfast.recoverable_ids(queue integer) RETURNS SETOF bigint
LANGUAGE C STABLE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'holdfast_recoverable_ids';
COMMENT ON FUNCTION holdfast.recoverable_ids(integer) IS
	'internal: the dead jobs of a queue that its policies, as they are now, would not have ended';

CREATE FUNCTION holdfast.recover_dead(queue integer, max integer) RETURNS bigint
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'holdfast_recover_dead';
COMMENT ON FUNCTION holdfast.recover_dead(integer, integer) IS
	'internal: put recoverable dead jobs of a queue back, after their policy''s delay and with the budget that is left; how many';

CREATE FUNCTION holdfast.recoverable_of(queues integer[], elsewhere boolean) RETURNS SETOF holdfast.recoverable_job
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT 'native', d.job_id::text, q.queue_name, d.subject, d.action_key, d.last_error_class, d.attempt_number, d.failures,
		   holdfast.budget(d.max_attempts, d.retry_policy, d.queue), d.ended_at, d.reason, q.auto_recover,
		   format('SELECT * FROM holdfast.redrive(%s, ''...'')', d.job_id)
	FROM holdfast.queue q, LATERAL holdfast.recoverable_ids(q.queue_id) r (job_id) JOIN holdfast.dead_job d USING (job_id)
	WHERE q.queue_id = ANY ($1)
	UNION ALL
	SELECT s.source, s.job_id, NULL, s.subject, s.action_key, s.exception_class, s.attempt_number, s.failures, s.max_attempts,
		   s.stopped_at, coalesce(s.stop_reason, 'a condition not on record'), coalesce(w.auto_recover, false),
		   CASE WHEN r.relid IS NOT NULL THEN format('SELECT * FROM holdfast.recover(%L, %L, ''...'')', r.relid::regclass, s.job_id) END
	FROM holdfast.stop_reason s
	LEFT JOIN holdfast.watch w ON w.source = s.source
	LEFT JOIN holdfast.watch_relation r USING (watch_id)
	WHERE $2 AND s.source <> 'native' AND s.reason = 'premature_stop'
	ORDER BY 10, 1, 2
$$;
COMMENT ON FUNCTION holdfast.recoverable_of(integer[], boolean) IS 'internal: the query behind recoverable(), which says what the caller may see';

CREATE FUNCTION holdfast.recoverable() RETURNS SETOF holdfast.recoverable_job
LANGUAGE C STABLE PARALLEL UNSAFE ROWS 100 AS 'MODULE_PATHNAME', 'holdfast_recoverable';
COMMENT ON FUNCTION holdfast.recoverable() IS
	'jobs that stopped with a retryable class and budget left, by the policies as they are now: dead ones of the queues that '
	'the caller may read, and for the owner those of watched tables and imports; how says what puts one back';

/* ---------------------------------------------------------------- watched tables */

CREATE TYPE holdfast.recover_result AS (
	outcome				text,
	not_before			timestamptz,
	delay_ms			bigint
);
COMMENT ON TYPE holdfast.recover_result IS 'recovered, and from when on the row may be claimed';

-- How a mapping names a column or an expression; null where it is left out.
CREATE FUNCTION holdfast.mapped(mapping jsonb, key text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
	SELECT CASE jsonb_typeof($1 -> $2) WHEN 'string' THEN quote_ident($1 ->> $2) WHEN 'object' THEN format('(%s)', $1 -> $2 ->> 'expr') END
$$;
COMMENT ON FUNCTION holdfast.mapped(jsonb, text) IS 'internal: a key of a watch''s mapping as SQL over the row';

-- The words of a status, as watch() reads them.
CREATE FUNCTION holdfast.mapped_words(mapping jsonb, key text) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
	SELECT CASE WHEN $1 ? $2 THEN ARRAY(SELECT e FROM jsonb_array_elements_text($1 -> $2) e WHERE e IS NOT NULL) ELSE ARRAY[$2] END
$$;
COMMENT ON FUNCTION holdfast.mapped_words(jsonb, text) IS 'internal: the status values that a watch''s mapping gives a word';

CREATE FUNCTION holdfast.update_as_owner(relation regclass, statement text, status text, not_before timestamptz, id text, words text[]) RETURNS bigint
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'holdfast_update_as_owner';
COMMENT ON FUNCTION holdfast.update_as_owner(regclass, text, text, timestamptz, text, text[]) IS
	'internal: run the update that puts a row of a watched table back as the table''s owner, whose triggers it fires; how many rows';

/*
 * Puts a row back as its own queue would: status and run_after, nothing else.
 * The trigger of the watch writes the evidence of the change, and takes it for
 * no violation, since it was said first (watch_redriven).
 */
CREATE FUNCTION holdfast.do_recover_row(relation regclass, id text, reason text) RETURNS SETOF holdfast.recover_result
LANGUAGE plpgsql ROWS 1 SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	w			holdfast.watch;
	last		holdfast.attempt_record;
	stopped		record;
	status_type	text;
	after_type	text;
	id_type		text;
	policy		text;
	delay		interval;
	not_before	timestamptz;
	rows		bigint;
BEGIN
	SELECT x.* INTO w FROM holdfast.watch x JOIN holdfast.watch_relation r USING (watch_id) WHERE r.relid = do_recover_row.relation;
	IF w.watch_id IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = '42704',
			MESSAGE = format('table "%s" is not watched', do_recover_row.relation),
			HINT = 'The view holdfast.watched lists the tables that are.';
	END IF;
	IF jsonb_typeof(w.mapping -> 'status') <> 'string' OR jsonb_typeof(w.mapping -> 'run_after') IS DISTINCT FROM 'string'
	   OR (holdfast.mapped_words(w.mapping, 'pending'))[1] IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = '0A000',
			MESSAGE = format('rows of table "%s" cannot be put back by its mapping', do_recover_row.relation),
			DETAIL = 'Its status and its run_after must be columns, and a status must mean pending.',
			HINT = 'Use the queue''s own way to retry a job.';
	END IF;

	SELECT r.* INTO last FROM holdfast.attempt_record r
		WHERE r.source = w.source AND r.job_id = do_recover_row.id ORDER BY r.started_at DESC, r.record_id DESC LIMIT 1;
	SELECT s.* INTO stopped FROM holdfast.stop_reason s
		WHERE s.source = w.source AND s.subject = last.subject AND s.job_id = do_recover_row.id;
	IF stopped.reason IS DISTINCT FROM 'premature_stop' THEN
		RAISE EXCEPTION USING ERRCODE = 'JQ004',
			MESSAGE = format('row %s of table "%s" cannot be recovered', do_recover_row.id, do_recover_row.relation),
			DETAIL = CASE WHEN stopped.reason IS NULL THEN 'No attempt of it is on record.'
						  ELSE format('It is %s: %s.', stopped.reason, stopped.because) END,
			HINT = 'holdfast.recoverable() lists the rows that can be.';
	END IF;

	SELECT format_type(a.atttypid, a.atttypmod) INTO status_type FROM pg_attribute a
		WHERE a.attrelid = do_recover_row.relation AND a.attname = w.mapping ->> 'status';
	SELECT format_type(a.atttypid, a.atttypmod) INTO after_type FROM pg_attribute a
		WHERE a.attrelid = do_recover_row.relation AND a.attname = w.mapping ->> 'run_after';
	SELECT format_type(a.atttypid, a.atttypmod) INTO id_type FROM pg_attribute a
		WHERE a.attrelid = do_recover_row.relation AND a.attname = w.mapping ->> 'id' AND jsonb_typeof(w.mapping -> 'id') = 'string';
	policy := coalesce((SELECT p.policy_name FROM holdfast.list_retry_policies() p WHERE p.policy_name = last.retry_policy), 'default');
	delay := holdfast.backoff_delay(policy,
		CASE WHEN id_type IN ('smallint', 'integer', 'bigint') THEN do_recover_row.id::bigint ELSE holdfast.job_seed(do_recover_row.id) END,
		greatest(coalesce(last.attempt_number, 1), 1));
	not_before := holdfast.clock() + delay;

	IF NOT (has_column_privilege(do_recover_row.relation, w.mapping ->> 'status', 'UPDATE') AND
			has_column_privilege(do_recover_row.relation, w.mapping ->> 'run_after', 'UPDATE')) THEN
		RAISE EXCEPTION USING ERRCODE = '42501', MESSAGE = format('permission denied for table "%s"', do_recover_row.relation),
			HINT = format('Have its owner GRANT UPDATE on it to "%s".', current_user);
	END IF;
	PERFORM holdfast.watch_redriven(do_recover_row.relation, do_recover_row.id);
	rows := holdfast.update_as_owner(do_recover_row.relation, format('UPDATE %s SET %I = $1::text::%s, %I = %s WHERE %s = %s AND %I::text = ANY ($4)',
			do_recover_row.relation, w.mapping ->> 'status', status_type, w.mapping ->> 'run_after',
			CASE WHEN after_type LIKE 'timestamp%without%' THEN '($2 AT TIME ZONE ''UTC'')' ELSE '$2' END,
			CASE WHEN id_type IS NULL THEN holdfast.mapped(w.mapping, 'id') || '::text' ELSE quote_ident(w.mapping ->> 'id') END,
			CASE WHEN id_type IS NULL THEN '$3' ELSE '$3::' || id_type END, w.mapping ->> 'status'),
		(holdfast.mapped_words(w.mapping, 'pending'))[1], not_before, do_recover_row.id,
		holdfast.mapped_words(w.mapping, 'failed') || holdfast.mapped_words(w.mapping, 'dead'));
	IF rows <> 1 THEN
		RAISE EXCEPTION USING ERRCODE = 'JQ004',
			MESSAGE = format('row %s of table "%s" cannot be recovered', do_recover_row.id, do_recover_row.relation),
			DETAIL = format('%s rows of that id have a status that means failed or dead.', rows),
			HINT = 'Somebody has put it back, or taken it, meanwhile.';
	END IF;
	PERFORM holdfast.watch_note('watch_recovered', w.watch_id, jsonb_build_object('relation', w.source, 'id', do_recover_row.id, 'reason', do_recover_row.reason,
		'attempt_number', last.attempt_number, 'retry_policy', policy, 'delay_ms', round(extract(epoch FROM delay) * 1000), 'not_before', not_before,
		'because', stopped.because));
	RETURN NEXT ('recovered', not_before, round(extract(epoch FROM delay) * 1000)::bigint)::holdfast.recover_result;
END
$$;
COMMENT ON FUNCTION holdfast.do_recover_row(regclass, text, text) IS 'internal: the body of recover_row()';

-- The table's triggers and the mapping's expressions are the table owner's: also within maintain() they are guarded.
CREATE FUNCTION holdfast.recover_row(relation regclass, id text, reason text) RETURNS SETOF holdfast.recover_result
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'holdfast_disowned';
COMMENT ON FUNCTION holdfast.recover_row(regclass, text, text) IS 'internal: what recover() and auto_recover share';

CREATE FUNCTION holdfast.recover(relation regclass, id text, reason text) RETURNS SETOF holdfast.recover_result
LANGUAGE plpgsql ROWS 1 SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF recover.relation IS NULL OR recover.id IS NULL OR recover.reason IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = '22004', MESSAGE = format('argument "%s" must not be null',
			CASE WHEN recover.relation IS NULL THEN 'relation' WHEN recover.id IS NULL THEN 'id' ELSE 'reason' END);
	END IF;
	RETURN QUERY SELECT * FROM holdfast.recover_row(recover.relation, recover.id, recover.reason);
END
$$;
COMMENT ON FUNCTION holdfast.recover(regclass, text, text) IS
	'puts a row of a watched table back that stopped with a retryable class and budget left: status and run_after by the '
	'mapping, after the policy''s delay; a finding says by whom and why; 42704 not watched, 0A000 where the mapping has no '
	'columns for it, JQ004 where the row is not recoverable, with the reason; called by the extension''s owner, who may '
	'update the table';

CREATE TABLE holdfast.recover_open (
	watch_id			integer		NOT NULL,
	record_id			bigint		NOT NULL,
	PRIMARY KEY (watch_id, record_id)
);
COMMENT ON TABLE holdfast.recover_open IS 'attempts that had not ended when maintain() looked at them for auto_recover';
SELECT pg_catalog.pg_extension_config_dump('holdfast.recover_open', '');

/*
 * Rows that stopped since the last call, of watches with auto_recover.  It
 * goes through the records in their order, and remembers those that are open.
 * The last five minutes are gone through again, for records that were not
 * committed yet.  A failure after which the row was put back is left alone.
 */
CREATE FUNCTION holdfast.recover_watched() RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	at_once		CONSTANT integer := 100000;
	now			CONSTANT timestamptz := holdfast.clock();
	w			record;
	r			record;
	position	bigint;
	passed		bigint;
	n			bigint := 0;
BEGIN
	FOR w IN SELECT x.watch_id, x.source, v.relid::regclass AS relation FROM holdfast.watch x JOIN holdfast.watch_relation v USING (watch_id)
			 WHERE x.auto_recover ORDER BY x.watch_id LOOP
		position := coalesce((SELECT u.position FROM holdfast.upkeep u WHERE u.name = 'recover ' || w.watch_id), 0);
		passed := position;
		FOR r IN
			SELECT a.record_id, a.recorded_at, a.job_id, a.subject, a.outcome, a.started_at,
				   a.outcome IN ('failed', 'timeout', 'lost') AND a.redriven IS NOT TRUE AND coalesce(a.final, a.next_not_before IS NULL) AS stopped
			FROM (SELECT o.record_id FROM holdfast.recover_open o WHERE o.watch_id = w.watch_id
				  UNION
				  (SELECT b.record_id FROM holdfast.attempt_record b WHERE b.record_id > position AND b.source = w.source ORDER BY 1 LIMIT at_once)) x
			JOIN holdfast.attempt_record a USING (record_id) ORDER BY a.record_id
		LOOP
			IF r.outcome IS NULL THEN
				INSERT INTO holdfast.recover_open VALUES (w.watch_id, r.record_id) ON CONFLICT DO NOTHING;
			ELSIF r.stopped AND EXISTS (SELECT FROM holdfast.stop_reason s WHERE s.source = w.source AND s.subject = r.subject
										AND s.job_id = r.job_id AND s.reason = 'premature_stop' AND s.started_at = r.started_at) THEN
				BEGIN
					PERFORM holdfast.recover_row(w.relation, r.job_id, 'auto_recover: retryable, with budget left');
					n := n + 1;
				EXCEPTION WHEN SQLSTATE 'JQ004' OR feature_not_supported OR insufficient_privilege OR lock_not_available THEN
					NULL;	-- somebody else has it, or its table does not let it be put back
				WHEN OTHERS THEN	-- an error of its table's triggers must not stop upkeep
					RAISE WARNING USING ERRCODE = SQLSTATE,
						MESSAGE = format('row %s of watched table "%s" could not be put back: %s', r.job_id, w.relation, SQLERRM),
						HINT = format('SELECT * FROM holdfast.recover(%L, %L, ''...'') shows the error.', w.relation, r.job_id);
				END;
			END IF;
			IF r.recorded_at < now - interval '5 min' THEN
				passed := greatest(passed, r.record_id);
			END IF;
		END LOOP;
		DELETE FROM holdfast.recover_open o WHERE o.watch_id = w.watch_id
			AND NOT EXISTS (SELECT FROM holdfast.attempt_record a WHERE a.record_id = o.record_id AND a.outcome IS NULL);
		INSERT INTO holdfast.upkeep VALUES ('recover ' || w.watch_id, passed, now)
			ON CONFLICT (name) DO UPDATE SET position = excluded.position, at = excluded.at;
	END LOOP;
	RETURN n;
END
$$;
COMMENT ON FUNCTION holdfast.recover_watched() IS 'internal: auto_recover of watched tables; how many rows were put back';

CREATE FUNCTION holdfast.recover_all(max integer DEFAULT 1000) RETURNS bigint
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
	SELECT coalesce((SELECT sum(holdfast.recover_dead(q.queue_id, $1)) FROM holdfast.queue q WHERE q.auto_recover), 0)::bigint
		   + holdfast.recover_watched()
$$;
COMMENT ON FUNCTION holdfast.recover_all(integer) IS 'internal: what auto_recover asks of maintain(); how many jobs were put back';
