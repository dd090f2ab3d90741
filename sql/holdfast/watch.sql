/* Watched tables: evidence for queue tables of others. */

CREATE SEQUENCE holdfast.watch_id_seq AS integer;
COMMENT ON SEQUENCE holdfast.watch_id_seq IS 'numbers of watches, never used again';
SELECT pg_catalog.pg_extension_config_dump('holdfast.watch_id_seq', '');

CREATE TABLE holdfast.watch (
	watch_id			integer		NOT NULL DEFAULT pg_catalog.nextval('holdfast.watch_id_seq') PRIMARY KEY,
	source				text		COLLATE "C" NOT NULL UNIQUE,
	mapping				jsonb		NOT NULL CHECK (jsonb_typeof(mapping) = 'object'),
	mode				text		COLLATE "C" NOT NULL CHECK (mode IN ('observe', 'correct', 'enforce')),
	auto_recover		boolean		NOT NULL DEFAULT false,
	watched_at			timestamptz	NOT NULL,
	watched_by			text		COLLATE "C" NOT NULL,
	changed_at			timestamptz	NOT NULL,
	changed_by			text		COLLATE "C" NOT NULL
);
COMMENT ON TABLE holdfast.watch IS 'a watched table each: what its columns mean, and what is done about violations; its triggers carry watch_id';
COMMENT ON COLUMN holdfast.watch.source IS 'under which name the attempts are recorded: the table''s when it was first watched';
SELECT pg_catalog.pg_extension_config_dump('holdfast.watch', '');

CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON holdfast.watch
	FOR EACH STATEMENT EXECUTE FUNCTION holdfast.config_changed();
ALTER TABLE holdfast.watch ENABLE ALWAYS TRIGGER config_changed;

CREATE FUNCTION holdfast.watch_row() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'holdfast_watch_row';
COMMENT ON FUNCTION holdfast.watch_row() IS 'trigger of watched tables: evidence of a change, from the row as stored';

CREATE FUNCTION holdfast.watch_before() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'holdfast_watch_before';
COMMENT ON FUNCTION holdfast.watch_before() IS 'trigger of watched tables in the modes correct and enforce';

CREATE FUNCTION holdfast.watch_truncated() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'holdfast_watch_truncated';
COMMENT ON FUNCTION holdfast.watch_truncated() IS 'trigger of watched tables: puts a TRUNCATE on record';

CREATE FUNCTION holdfast.watch_check(relation oid, mapping jsonb, mode text) RETURNS void
LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'holdfast_watch_check';
COMMENT ON FUNCTION holdfast.watch_check(oid, jsonb, text) IS 'internal: raises what is wrong with a mapping, naming its key and the column';

CREATE FUNCTION holdfast.watch_problem(relation oid) RETURNS text
LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'holdfast_watch_problem';
COMMENT ON FUNCTION holdfast.watch_problem(oid) IS 'internal: what is wrong with the watch on a table or partition, null where all is well';

CREATE FUNCTION holdfast.watch_redriven(relation oid, id text) RETURNS void
LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'holdfast_watch_redriven';
COMMENT ON FUNCTION holdfast.watch_redriven(oid, text) IS
	'an operator is about to put the row back, which then is no violation; 42704 where the table is not watched; for the owner';

-- Its triggers say which table a watch is on: they follow it through a renaming, a dump and a restore.
CREATE VIEW holdfast.watch_relation AS
	SELECT pg_catalog.encode(pg_catalog.substr(t.tgargs, 1, pg_catalog.length(t.tgargs) - 1), 'escape')::integer AS watch_id,
		   t.tgrelid AS relid
	FROM pg_catalog.pg_trigger t
	WHERE t.tgfoid = 'holdfast.watch_row()'::pg_catalog.regprocedure AND t.tgparentid = 0 AND t.tgnargs = 1;
COMMENT ON VIEW holdfast.watch_relation IS 'internal: which table each watch is on';

CREATE VIEW holdfast.watched AS
	SELECT w.watch_id, r.relid::pg_catalog.regclass::text COLLATE "C" AS relation, w.source, w.mode, w.auto_recover, w.mapping,
		   w.watched_at, w.watched_by, w.changed_at, w.changed_by,
		   CASE WHEN r.relid IS NULL THEN 'its table is gone, or has lost its trigger'
				WHEN pg_catalog.count(*) OVER (PARTITION BY w.watch_id) > 1 THEN 'more than one table has its trigger'
				ELSE holdfast.watch_problem(r.relid) END AS problem
	FROM holdfast.watch w LEFT JOIN holdfast.watch_relation r USING (watch_id);
COMMENT ON VIEW holdfast.watched IS 'the watched tables, their mappings and modes; problem is null where the watch works';

CREATE VIEW holdfast.violation AS
	SELECT f.at, w.source, f.detail ->> 'id' AS id, f.detail ->> 'violation' AS violation, f.detail ->> 'mode' AS mode,
		   f.detail ->> 'action' AS action, f.attempt_number, f.worker_name,
		   (f.detail ->> 'previous_attempt')::integer AS previous_attempt,
		   (f.detail ->> 'previous_finished_at')::timestamptz AS previous_finished_at,
		   (f.detail ->> 'corrected_to')::timestamptz AS corrected_to,
		   f.detail ->> 'because' AS because, f.detail
	FROM holdfast.finding f LEFT JOIN holdfast.watch w ON w.watch_id = -f.queue
	WHERE f.queue < 0 AND f.kind IN ('violation', 'refusal');
COMMENT ON VIEW holdfast.violation IS 'what changes of watched rows broke, and what was done: recorded, corrected, skipped, refused';

/* ---------------------------------------------------------------- watch, unwatch */

CREATE FUNCTION holdfast.watch_note(kind text, watch_id integer, detail jsonb) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
	INSERT INTO holdfast.finding (at, queue, kind, detail)
	VALUES (holdfast.clock(), -watch_note.watch_id, watch_note.kind, watch_note.detail || jsonb_build_object('by', current_user))
$$;
COMMENT ON FUNCTION holdfast.watch_note(text, integer, jsonb) IS 'internal: a finding about a watch, with the effective role';

-- TRUNCATE triggers are not inherited by partitions, so each has its own.  The others are: whoever makes a partition makes
-- them, and needs EXECUTE, of which nobody else has any use: on a table that is not watched they raise 39P01.
CREATE FUNCTION holdfast.watch_triggers(relation regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	w		holdfast.watch;
	part	regclass;
	has		boolean;
	owner	name;
BEGIN
	SELECT x.* INTO STRICT w FROM holdfast.watch x JOIN holdfast.watch_relation r USING (watch_id)
		WHERE r.relid = watch_triggers.relation;
	has := EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = watch_triggers.relation AND t.tgname = 'zzz_holdfast_watch');
	IF w.mode = 'observe' AND has THEN
		EXECUTE format('DROP TRIGGER zzz_holdfast_watch ON %s', relation);
	ELSIF w.mode <> 'observe' AND NOT has THEN
		EXECUTE format('CREATE TRIGGER zzz_holdfast_watch BEFORE UPDATE ON %s
			FOR EACH ROW EXECUTE FUNCTION holdfast.watch_before(%L)', relation, w.watch_id);
	END IF;
	IF w.mode <> 'observe' THEN
		EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER zzz_holdfast_watch', relation);
	END IF;
	EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER holdfast_watch', relation);
	FOR part IN SELECT watch_triggers.relation UNION SELECT t.relid FROM pg_partition_tree(watch_triggers.relation) t LOOP
		IF NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = part AND t.tgname = 'holdfast_watch_truncate') THEN
			EXECUTE format('CREATE TRIGGER holdfast_watch_truncate AFTER TRUNCATE ON %s
				FOR EACH STATEMENT EXECUTE FUNCTION holdfast.watch_truncated(%L)', part, w.watch_id);
		END IF;
		EXECUTE format('ALTER TABLE ONLY %s ENABLE ALWAYS TRIGGER holdfast_watch_truncate', part);
	END LOOP;
	FOR owner IN SELECT r.rolname FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner
		WHERE c.oid = watch_triggers.relation AND c.relkind = 'p' AND NOT has_function_privilege(r.oid, 'holdfast.watch_row()', 'EXECUTE')
	LOOP
		EXECUTE format('GRANT EXECUTE ON FUNCTION holdfast.watch_row(), holdfast.watch_before(), holdfast.watch_truncated() TO %I', owner);
	END LOOP;
END
$$;
COMMENT ON FUNCTION holdfast.watch_triggers(regclass) IS
	'internal: gives a watched table and its partitions the triggers of its mode that are missing or switched off';

CREATE FUNCTION holdfast.watch_refuse(relation regclass) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	c	pg_class;
BEGIN
	IF relation IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = '22004', MESSAGE = 'argument "relation" must not be null';
	END IF;
	SELECT x.* INTO c FROM pg_class x WHERE x.oid = relation;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = '42704',
			MESSAGE = format('there is no relation with OID %s', relation::oid);
	ELSIF c.relkind NOT IN ('r', 'p') OR c.relpersistence = 't' THEN
		RAISE EXCEPTION USING ERRCODE = '42809',
			MESSAGE = format('"%s" is not a permanent table', c.relname),
			HINT = 'Only tables, partitioned ones too, can be watched.';
	ELSIF c.relispartition THEN
		RAISE EXCEPTION USING ERRCODE = '42809',
			MESSAGE = format('table "%s" is a partition', c.relname),
			HINT = format('Watch %s, of which it is one.', pg_partition_root(relation));
	ELSIF c.relnamespace = 'holdfast'::regnamespace THEN
		RAISE EXCEPTION USING ERRCODE = '42809',
			MESSAGE = format('table "%s" is holdfast''s own', c.relname),
			HINT = 'Its evidence is written already.';
	ELSIF EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = relation AND c.relkind = 'r') THEN
		RAISE EXCEPTION USING ERRCODE = '0A000',
			MESSAGE = format('table "%s" has child tables', c.relname),
			DETAIL = 'Row triggers are not inherited by child tables that are no partitions.',
			HINT = 'Watch the child tables.';
	END IF;
END
$$;
COMMENT ON FUNCTION holdfast.watch_refuse(regclass) IS 'internal: refuses what cannot be watched';

CREATE FUNCTION holdfast.do_watch(relation regclass, mapping jsonb, mode text, auto_recover boolean) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	old		holdfast.watch;
	new		holdfast.watch;
BEGIN
	PERFORM holdfast.watch_refuse(do_watch.relation);
	-- changes under way end first, and then meet the triggers
	EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', do_watch.relation);
	LOCK TABLE holdfast.watch IN SHARE ROW EXCLUSIVE MODE;
	SELECT w.* INTO old FROM holdfast.watch w JOIN holdfast.watch_relation r USING (watch_id) WHERE r.relid = do_watch.relation;
	new := old;
	new.mapping := coalesce(do_watch.mapping, old.mapping);
	new.mode := coalesce(do_watch.mode, old.mode, 'observe');
	new.auto_recover := coalesce(do_watch.auto_recover, old.auto_recover, false);
	IF new.mapping IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = '22004',
			MESSAGE = 'argument "mapping" must not be null',
			DETAIL = format('Table %s is not watched yet.', do_watch.relation),
			HINT = 'Say which columns mean what, for example with holdfast.watch_preset().';
	END IF;
	PERFORM holdfast.watch_check(do_watch.relation, new.mapping, new.mode);

	IF old.watch_id IS NOT NULL THEN
		UPDATE holdfast.watch w SET mapping = new.mapping, mode = new.mode, auto_recover = new.auto_recover, changed_at = holdfast.clock(), changed_by = current_user
			WHERE w.watch_id = old.watch_id;
		PERFORM holdfast.watch_note('watch_changed', old.watch_id, jsonb_build_object('relation', old.source,
			'from', old.mode, 'to', new.mode, 'mapping_changed', old.mapping <> new.mapping));
	ELSE
		-- a table of that name may have been watched before, and be gone
		INSERT INTO holdfast.watch AS w (source, mapping, mode, auto_recover, watched_at, watched_by, changed_at, changed_by)
			SELECT format('%s.%s', n.nspname, c.relname), new.mapping, new.mode, new.auto_recover, holdfast.clock(), current_user, holdfast.clock(), current_user
			FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = do_watch.relation
			ON CONFLICT (source) DO UPDATE SET mapping = excluded.mapping, mode = excluded.mode, auto_recover = excluded.auto_recover, watched_at = excluded.watched_at,
				watched_by = excluded.watched_by, changed_at = excluded.changed_at, changed_by = excluded.changed_by
				WHERE NOT EXISTS (SELECT FROM holdfast.watch_relation r WHERE r.watch_id = w.watch_id)
			RETURNING w.* INTO new;
		IF new.watch_id IS NULL THEN
			RAISE EXCEPTION USING ERRCODE = '55000',
				MESSAGE = format('another table is watched under the name of %s', do_watch.relation),
				DETAIL = 'It had that name when it was first watched.',
				HINT = 'Call holdfast.unwatch() for it first; the view holdfast.watched lists both names.';
		END IF;
		EXECUTE format('CREATE TRIGGER holdfast_watch AFTER INSERT OR UPDATE OR DELETE ON %s
			FOR EACH ROW EXECUTE FUNCTION holdfast.watch_row(%L)', do_watch.relation, new.watch_id);
		PERFORM holdfast.watch_note('watched', new.watch_id, jsonb_build_object('relation', new.source, 'to', new.mode));
	END IF;
	PERFORM holdfast.watch_triggers(do_watch.relation);
	PERFORM holdfast.make_partitions();
END
$$;
COMMENT ON FUNCTION holdfast.do_watch(regclass, jsonb, text, boolean) IS 'internal: the body of watch()';

CREATE FUNCTION holdfast.watch(relation regclass, mapping jsonb DEFAULT NULL, mode text DEFAULT NULL, auto_recover boolean DEFAULT NULL) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'holdfast_own';
COMMENT ON FUNCTION holdfast.watch(regclass, jsonb, text, boolean) IS
	'puts a table under watch, or changes mapping and mode of one that is (a null leaves them; a new watch observes); on '
	'record as a finding; mapping is an object of mapping keys, mode is observe, correct or enforce; 42703, 42804, 22023 and '
	'others name the mapping''s key and the column; called by the extension''s owner, who must own the table';

CREATE FUNCTION holdfast.do_unwatch(relation regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	t		record;
	gone	holdfast.watch;
	owner	name;
BEGIN
	DELETE FROM holdfast.watch w USING holdfast.watch_relation r
		WHERE r.watch_id = w.watch_id AND r.relid = do_unwatch.relation RETURNING w.* INTO gone;
	IF gone.watch_id IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = '42704',
			MESSAGE = format('table "%s" is not watched', do_unwatch.relation),
			HINT = 'The view holdfast.watched lists the tables that are.';
	END IF;
	FOR t IN
		SELECT g.tgrelid::regclass AS relid, g.tgname FROM pg_trigger g
		WHERE g.tgparentid = 0 AND g.tgname IN ('holdfast_watch', 'zzz_holdfast_watch', 'holdfast_watch_truncate')
		  AND g.tgrelid IN (SELECT do_unwatch.relation::oid UNION SELECT p.relid FROM pg_partition_tree(do_unwatch.relation) p)
	LOOP
		EXECUTE format('DROP TRIGGER %I ON %s', t.tgname, t.relid);
	END LOOP;
	FOR owner IN SELECT r.rolname FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner
		WHERE c.oid = do_unwatch.relation AND c.relkind = 'p' AND EXISTS (SELECT FROM pg_proc p, aclexplode(p.proacl) a
				WHERE p.oid = 'holdfast.watch_row()'::regprocedure AND a.grantee = r.oid AND a.grantee <> p.proowner)
		  AND NOT EXISTS (SELECT FROM holdfast.watch_relation w JOIN pg_class o ON o.oid = w.relid WHERE o.relowner = c.relowner AND o.relkind = 'p')
	LOOP
		EXECUTE format('REVOKE EXECUTE ON FUNCTION holdfast.watch_row(), holdfast.watch_before(), holdfast.watch_truncated() FROM %I', owner);
	END LOOP;
	PERFORM holdfast.watch_note('unwatched', gone.watch_id, jsonb_build_object('relation', gone.source, 'from', gone.mode));
END
$$;
COMMENT ON FUNCTION holdfast.do_unwatch(regclass) IS 'internal: the body of unwatch()';

CREATE FUNCTION holdfast.unwatch(relation regclass) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'holdfast_own';
COMMENT ON FUNCTION holdfast.unwatch(regclass) IS
	'ends the watch on a table; its attempts stay on record, and so does this, as a finding; 42704 where it is not watched; '
	'called by the extension''s owner, who must own the table';

CREATE FUNCTION holdfast.do_unwatch_all() RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	w	record;
	n	bigint := 0;
BEGIN
	FOR w IN SELECT x.watch_id, x.source, x.mode, r.relid FROM holdfast.watch x LEFT JOIN holdfast.watch_relation r USING (watch_id) ORDER BY 1 LOOP
		IF w.relid IS NOT NULL THEN
			PERFORM holdfast.do_unwatch(w.relid);
		ELSE
			DELETE FROM holdfast.watch x WHERE x.watch_id = w.watch_id;
			PERFORM holdfast.watch_note('unwatched', w.watch_id, jsonb_build_object('relation', w.source, 'from', w.mode));
		END IF;
		n := n + 1;
	END LOOP;
	RETURN n;
END
$$;
COMMENT ON FUNCTION holdfast.do_unwatch_all() IS 'internal: the body of unwatch_all()';

CREATE FUNCTION holdfast.unwatch_all() RETURNS bigint
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'holdfast_own';
COMMENT ON FUNCTION holdfast.unwatch_all() IS
	'ends every watch, also of tables that are gone, and answers with their number: DROP EXTENSION needs it first; called by '
	'the extension''s owner';

/* ---------------------------------------------------------------- presets */

CREATE VIEW holdfast.watch_presets AS
	SELECT p.preset, p.relation, p.mapping::jsonb AS mapping, p.unseen
	FROM (VALUES
		('graphile-worker', 'graphile_worker._private_jobs', $${
			"id": "id", "attempt_number": "attempts", "max_attempts": "max_attempts", "run_after": "run_at",
			"status": {"expr": "CASE WHEN locked_at IS NOT NULL THEN 'running' WHEN attempts >= max_attempts THEN 'dead' ELSE 'pending' END"},
			"pending": ["pending"], "running": ["running"], "succeeded": [null], "failed": [], "dead": ["dead"],
			"lease": "locked_at", "lease_expires_at": {"expr": "locked_at + interval '4 hours'"}, "worker_name": "locked_by",
			"exception_class": {"expr": "substring(last_error from '^[A-Za-z_][A-Za-z0-9_.:]*(?:Error|Exception|Timeout)')"},
			"message": "last_error", "subject": {"expr": "coalesce(key, id::text)"}, "action_key": {"expr": "'task ' || task_id"}}$$,
		 'the task''s name, which is in another table: action_key is its number; the error''s class, where its message does not begin with it'),
		('pg-boss', 'pgboss.job', $${
			"id": "id", "attempt_number": {"expr": "retry_count + 1"}, "max_attempts": {"expr": "retry_limit + 1"}, "run_after": "start_after",
			"status": "state", "pending": ["created", "retry"], "running": ["active"], "succeeded": ["completed"], "failed": [], "dead": ["failed"],
			"lease": "started_on", "lease_expires_at": {"expr": "started_on + expire_seconds * interval '1 s'"},
			"timeout": {"expr": "expire_seconds * interval '1 s'"},
			"exception_class": {"expr": "coalesce(output ->> 'name', CASE WHEN output #>> '{value,message}' ~ 'time(d )?out' THEN 'TimeoutError' END)"},
			"message": {"expr": "coalesce(output ->> 'message', output #>> '{value,message}')"},
			"subject": {"expr": "coalesce(singleton_key, id::text)"}, "action_key": "name"}$$,
		 'the worker''s name; a failed job is deleted and entered again, so that its requeue can be recorded and refused, not corrected'),
		('pg-boss 10', 'pgboss.job', $${
			"id": "id", "attempt_number": {"expr": "retry_count + 1"}, "max_attempts": {"expr": "retry_limit + 1"}, "run_after": "start_after",
			"status": "state", "pending": ["created", "retry"], "running": ["active"], "succeeded": ["completed"], "failed": [], "dead": ["failed"],
			"lease": "started_on", "lease_expires_at": {"expr": "started_on + expire_in"}, "timeout": "expire_in",
			"exception_class": {"expr": "coalesce(output ->> 'name', CASE WHEN output #>> '{value,message}' ~ 'time(d )?out' THEN 'TimeoutError' END)"},
			"message": {"expr": "coalesce(output ->> 'message', output #>> '{value,message}')"},
			"subject": {"expr": "coalesce(singleton_key, id::text)"}, "action_key": "name"}$$,
		 'as pg-boss'),
		('river', 'public.river_job', $${
			"id": "id", "attempt_number": "attempt", "max_attempts": "max_attempts", "run_after": "scheduled_at",
			"status": "state", "pending": ["available", "pending", "scheduled", "retryable"], "running": ["running"],
			"succeeded": ["completed"], "failed": [], "dead": ["discarded"],
			"lease": "attempted_at", "worker_name": {"expr": "attempted_by[array_upper(attempted_by, 1)]"},
			"message": {"expr": "errors[array_upper(errors, 1)] ->> 'error'"}, "action_key": "kind"}$$,
		 'the lease''s end, which is in the client''s settings; the error''s class; a crash, until the rescuer puts the job back'),
		('oban', 'public.oban_jobs', $${
			"id": "id", "attempt_number": "attempt", "max_attempts": "max_attempts", "run_after": "scheduled_at",
			"status": "state", "pending": ["available", "scheduled", "retryable"], "running": ["executing"],
			"succeeded": ["completed"], "failed": [], "dead": ["discarded"],
			"lease": "attempted_at", "worker_name": {"expr": "attempted_by[1]"},
			"exception_class": {"expr": "substring(errors[array_upper(errors, 1)] ->> 'error' from '^\\*\\* \\(([^)]*)\\)')"},
			"message": {"expr": "errors[array_upper(errors, 1)] ->> 'error'"}, "action_key": "worker"}$$,
		 'the lease''s end: an executing job has none; a crash, until a plugin rescues the job'),
		('pgmq', 'pgmq.q_NAME', $${
			"id": "msg_id", "attempt_number": "read_ct", "status": {"expr": "CASE WHEN read_ct > 0 THEN 'running' ELSE 'pending' END"},
			"pending": ["pending"], "running": ["running"], "succeeded": [null], "failed": [], "dead": [],
			"lease_expires_at": "vt"}$$,
		 'failures: a message whose visibility timeout ends is read again, and its attempt before is lost; deletion and archiving are success; pop() is a deletion without a claim; the worker''s name and the error'),
		('procrastinate', 'public.procrastinate_jobs', $${
			"id": "id", "attempt_number": "attempts", "run_after": "scheduled_at",
			"status": "status", "pending": ["todo"], "running": ["doing"], "succeeded": ["succeeded"], "failed": [], "dead": ["failed"],
			"scope": "queue_name", "action_key": "task_name"}$$,
		 'the worker''s name and the error, which are in no column that all its versions have; the lease''s end')
	) AS p (preset, relation, mapping, unseen);
COMMENT ON VIEW holdfast.watch_presets IS 'mappings for queue tables in the wild: the usual table, and what cannot be seen of it';

CREATE FUNCTION holdfast.watch_preset(preset text) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	found	jsonb := (SELECT p.mapping FROM holdfast.watch_presets p WHERE p.preset = watch_preset.preset);
BEGIN
	IF found IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = '42704',
			MESSAGE = format('there is no preset "%s"', watch_preset.preset),
			HINT = format('It is one of %s.', (SELECT string_agg(format('"%s"', p.preset), ', ') FROM holdfast.watch_presets p));
	END IF;
	RETURN found;
END
$$;
COMMENT ON FUNCTION holdfast.watch_preset(text) IS
	'the mapping of a queue in the wild, for watch(); add keys with ||; 42704 where there is none of that name; for the owner';
