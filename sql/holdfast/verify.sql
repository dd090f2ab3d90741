/*
 * verify(): what is switched off, missing or differently defined, also by a
 * superuser behind the triggers.
 *
 * What the install script made is noted, object by object, when it ends.  The
 * note is no evidence and is not dumped: a restore notes what it installs.
 * Whoever can rewrite the catalog can rewrite the note too, so that verify()
 * finds accidents and clumsy hands, and not a careful superuser.
 */

CREATE TABLE holdfast.definition (
	kind			text		COLLATE "C" NOT NULL,
	object			text		COLLATE "C" NOT NULL,
	server_version	integer		NOT NULL,
	digest			text		COLLATE "C" NOT NULL,
	PRIMARY KEY (kind, object)
);
COMMENT ON TABLE holdfast.definition IS 'how the install script, or the last upgrade script, has left each object; not dumped';
COMMENT ON COLUMN holdfast.definition.server_version IS 'of the server that was asked for the definition; another major version may print a view differently';

CREATE FUNCTION holdfast.present_definitions() RETURNS TABLE (kind text, object text, definition text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO' SET intervalstyle = 'postgres'
SET standard_conforming_strings = on SET quote_all_identifiers = off
AS $$
	WITH member AS MATERIALIZED (
		SELECT d.classid, d.objid
		FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
		WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'holdfast'
	), tab AS MATERIALIZED (
		SELECT c.* FROM member m JOIN pg_class c ON c.oid = m.objid WHERE m.classid = 'pg_class'::regclass
		UNION ALL
		SELECT c.* FROM member m JOIN pg_type y ON y.oid = m.objid JOIN pg_class c ON c.oid = y.typrelid AND c.relkind = 'c'
		WHERE m.classid = 'pg_type'::regclass
	)
	SELECT 'function', p.oid::regprocedure::text,
		   concat_ws(E'\n', l.lanname, p.prosrc, p.probin, p.provolatile, p.proparallel, p.prosecdef, p.proisstrict, p.proretset,
					 p.prorettype::regtype, p.proargnames, pg_get_expr(p.proargdefaults, 0), p.proconfig)
	FROM member m JOIN pg_proc p ON p.oid = m.objid JOIN pg_language l ON l.oid = p.prolang
	WHERE m.classid = 'pg_proc'::regclass
	UNION ALL
	SELECT 'body', p.oid::regprocedure::text, pg_get_function_sqlbody(p.oid)	-- of one in standard SQL, which has no source text
	FROM member m JOIN pg_proc p ON p.oid = m.objid
	WHERE m.classid = 'pg_proc'::regclass AND p.prosqlbody IS NOT NULL
	UNION ALL
	SELECT 'view', t.oid::regclass::text, concat_ws(E'\n', t.reloptions, pg_get_viewdef(t.oid)) FROM tab t WHERE t.relkind = 'v'
	UNION ALL
	SELECT CASE t.relkind WHEN 'c' THEN 'type' ELSE 'table' END, t.oid::regclass::text,
		   concat_ws(E'\n', t.relpersistence, t.relrowsecurity, t.relforcerowsecurity,
					 string_agg(concat_ws(' ', a.attname, format_type(a.atttypid, a.atttypmod), a.attcollation, a.attnotnull,
										  pg_get_expr(d.adbin, d.adrelid)), ', ' ORDER BY a.attnum))
	FROM tab t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
	LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
	WHERE t.relkind IN ('r', 'p', 'c')
	GROUP BY t.oid, t.relkind, t.relpersistence, t.relrowsecurity, t.relforcerowsecurity
	UNION ALL
	SELECT 'constraint', format('%s on %s', quote_ident(o.conname), t.oid::regclass), concat_ws(' ', pg_get_constraintdef(o.oid), o.convalidated)
	FROM tab t JOIN pg_constraint o ON o.conrelid = t.oid WHERE o.contype <> 'n'
	UNION ALL
	SELECT 'index', i.indexrelid::regclass::text, concat_ws(' ', pg_get_indexdef(i.indexrelid), i.indisvalid, i.indisready)
	FROM tab t JOIN pg_index i ON i.indrelid = t.oid WHERE t.relkind IN ('r', 'p')
	UNION ALL
	SELECT 'trigger', format('%s on %s', quote_ident(g.tgname), t.oid::regclass), concat_ws(' ', pg_get_triggerdef(g.oid), g.tgenabled)
	FROM tab t JOIN pg_trigger g ON g.tgrelid = t.oid WHERE NOT g.tgisinternal
	UNION ALL
	SELECT 'event trigger', quote_ident(g.evtname), concat_ws(' ', g.evtevent, g.evtfoid::regprocedure, g.evtenabled, g.evttags)
	FROM member m JOIN pg_event_trigger g ON g.oid = m.objid WHERE m.classid = 'pg_event_trigger'::regclass
	UNION ALL
	SELECT 'sequence', t.oid::regclass::text, concat_ws(' ', s.seqtypid::regtype, s.seqincrement, s.seqcache, s.seqcycle)
	FROM tab t JOIN pg_sequence s ON s.seqrelid = t.oid
$$;
COMMENT ON FUNCTION holdfast.present_definitions() IS 'internal: the extension''s objects as the catalog has them now';

CREATE FUNCTION holdfast.store_definitions() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	DELETE FROM holdfast.definition;
	INSERT INTO holdfast.definition
		SELECT p.kind, p.object, current_setting('server_version_num')::integer, encode(sha256(convert_to(p.definition, 'UTF8')), 'hex')
		FROM holdfast.present_definitions() p;
END
$$;
COMMENT ON FUNCTION holdfast.store_definitions() IS
	'internal: notes how the objects are now; the last statement of the install script and of each upgrade script';

CREATE FUNCTION holdfast.do_accept_definitions(reason text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM holdfast.checked_reason(reason);
	INSERT INTO holdfast.finding (at, queue, kind, detail)
		SELECT holdfast.clock(), 0, 'definitions_accepted',
			   jsonb_build_object('by', current_user, 'reason', reason, 'objects', coalesce(jsonb_agg(v.object ORDER BY v.object), '[]'))
		FROM holdfast.verify_definitions() v;
	PERFORM holdfast.store_definitions();
END
$$;
COMMENT ON FUNCTION holdfast.do_accept_definitions(text) IS 'internal: the body of accept_definitions()';

CREATE FUNCTION holdfast.accept_definitions(reason text) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'holdfast_own';
COMMENT ON FUNCTION holdfast.accept_definitions(text) IS
	'takes the present definitions of the extension''s objects for right, on record with the reason; for the owner';

CREATE TYPE holdfast.verify_result AS (
	check_name	text,
	object		text,
	problem		text,
	hint		text
);
COMMENT ON TYPE holdfast.verify_result IS 'something that is not as it should be, and the way out';

CREATE FUNCTION holdfast.verify_definitions() RETURNS SETOF holdfast.verify_result
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT 'definition', coalesce(d.kind, p.kind) || ' ' || coalesce(d.object, p.object),
		   CASE WHEN p.object IS NULL THEN 'is missing' WHEN d.object IS NULL THEN 'was added' ELSE 'is defined differently, or switched off' END,
		   CASE WHEN p.object IS NULL OR d.object IS NOT NULL
				THEN 'Put it back as the install script of this version makes it, or call holdfast.accept_definitions(); findings of kind evidence_ddl say who changed it.'
				ELSE 'Remove it: holdfast would pass it by.' END
	FROM holdfast.definition d
	FULL JOIN (SELECT n.kind, n.object, n.definition, encode(sha256(convert_to(n.definition, 'UTF8')), 'hex') AS digest
			   FROM holdfast.present_definitions() n) p USING (kind, object)
	WHERE d.digest IS DISTINCT FROM p.digest
	  AND NOT (d.object IS NOT NULL AND coalesce(p.kind, '') IN ('view', 'body') AND d.server_version / 10000 <> current_setting('server_version_num')::integer / 10000)
	  AND NOT (d.object IS NULL AND p.kind = 'index' AND p.definition !~ 'UNIQUE|EXCLUDE')	-- one of the user's is kept like our own
	UNION ALL
	SELECT 'definition', 'the note of definitions', 'is empty', 'Install the extension anew, or call holdfast.accept_definitions() if you know its state to be right.'
	WHERE NOT EXISTS (SELECT FROM holdfast.definition)
	UNION ALL
	SELECT 'library', 'extension holdfast', format('version %s is installed, and the library is version %s', e.extversion, holdfast.version()),
		   'Reconnect, or run ALTER EXTENSION holdfast UPDATE.'
	FROM pg_extension e WHERE e.extname = 'holdfast' AND e.extversion <> holdfast.version()
$$;
COMMENT ON FUNCTION holdfast.verify_definitions() IS 'internal: what is missing, added, or not as it was installed';

-- What the library would pass by, or others could reach, on our tables and partitions.
CREATE FUNCTION holdfast.verify_tables() RETURNS SETOF holdfast.verify_result
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	WITH ext AS (SELECT e.oid, e.extowner FROM pg_extension e WHERE e.extname = 'holdfast'),
	member AS MATERIALIZED (
		SELECT d.classid, d.objid FROM pg_depend d, ext
		WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = ext.oid AND d.deptype = 'e'
	), ours AS MATERIALIZED (
		SELECT c.oid, c.relname, c.relkind, c.relowner, c.relacl, c.relpersistence, c.relnamespace, c.relispartition,
			   EXISTS (SELECT FROM member m WHERE m.classid = 'pg_class'::regclass AND m.objid = c.oid) AS is_member
		FROM pg_class c
		WHERE c.relkind IN ('r', 'p', 'v', 'S', 'm', 'f') AND
			  (c.relnamespace = 'holdfast'::regnamespace OR c.oid IN (SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = 'holdfast.event'::regclass))
	)
	SELECT 'foreign key', o.conrelid::regclass::text, format('constraint %I refers to %s', o.conname, o.confrelid::regclass), 'Drop the constraint.'
	FROM pg_constraint o JOIN ours t ON t.oid = o.confrelid WHERE o.contype = 'f'
	UNION ALL
	SELECT 'rule', t.oid::regclass::text, format('rule %I', r.rulename), 'Drop the rule.'
	FROM ours t JOIN pg_rewrite r ON r.ev_class = t.oid WHERE t.relkind <> 'v'
	UNION ALL
	SELECT 'policy', t.oid::regclass::text, format('policy %I', p.polname), 'Drop the policy.'
	FROM ours t JOIN pg_policy p ON p.polrelid = t.oid
	UNION ALL
	SELECT 'child', i.inhrelid::regclass::text, format('inherits from %s', i.inhparent::regclass), 'Detach it: only the days that maintain() makes belong there.'
	FROM pg_inherits i JOIN ours t ON t.oid = i.inhparent
	WHERE t.relname <> 'event' OR NOT EXISTS (SELECT FROM holdfast.event_partition v WHERE v.relid = i.inhrelid)
	UNION ALL
	SELECT 'planted', t.oid::regclass::text, 'is not of the extension', 'Move it to a schema of your own.'
	FROM ours t WHERE NOT t.is_member AND NOT (t.relname ~ '^event_[0-9]{8}$' AND t.relkind = 'r')
	UNION ALL
	SELECT 'detached', t.oid::regclass::text, 'is a day of events that is not attached: its events are not seen',
		   'Attach it again, FOR VALUES FROM its day TO the next, in UTC.'
	FROM ours t WHERE NOT t.is_member AND t.relname ~ '^event_[0-9]{8}$' AND NOT t.relispartition
	UNION ALL
	SELECT 'planted', p.oid::regprocedure::text, 'is not of the extension', 'Drop it, or move it to a schema of your own.'
	FROM pg_proc p WHERE p.pronamespace = 'holdfast'::regnamespace
	  AND NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_proc'::regclass AND m.objid = p.oid)
	UNION ALL
	SELECT 'owner', t.oid::regclass::text, format('belongs to %s, the extension to %s', t.relowner::regrole, ext.extowner::regrole),
		   format('ALTER ... OWNER TO %s.', (SELECT c.relowner::regrole FROM pg_class c WHERE c.oid = 'holdfast.event'::regclass))
	FROM ours t, ext WHERE t.relowner <> (SELECT c.relowner FROM pg_class c WHERE c.oid = 'holdfast.event'::regclass)
	UNION ALL
	SELECT 'owner', quote_ident(g.evtname), format('an event trigger that %s owns, who is no superuser and can switch it off', g.evtowner::regrole),
		   'ALTER EVENT TRIGGER ... OWNER TO a superuser that nobody logs in as.'
	FROM member m JOIN pg_event_trigger g ON g.oid = m.objid JOIN pg_roles r ON r.oid = g.evtowner
	WHERE m.classid = 'pg_event_trigger'::regclass AND NOT r.rolsuper
	UNION ALL
	SELECT 'privilege', t.oid::regclass::text, format('%s has %s', coalesce(r.rolname, 'PUBLIC'), string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type)),
		   'Revoke it: roles reach queues by functions.'
	FROM ours t CROSS JOIN LATERAL aclexplode(t.relacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
	WHERE a.grantee <> t.relowner AND (a.grantee = 0 OR a.privilege_type NOT IN ('SELECT', 'USAGE') OR (t.relkind = 'S' AND a.privilege_type = 'USAGE'))
	GROUP BY t.oid, r.rolname
	UNION ALL
	SELECT 'privilege', 'schema holdfast', format('%s has %s', coalesce(r.rolname, 'PUBLIC'), a.privilege_type), 'Revoke it.'
	FROM pg_namespace n CROSS JOIN LATERAL aclexplode(n.nspacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
	WHERE n.nspname = 'holdfast' AND a.grantee <> n.nspowner AND (a.grantee = 0 OR a.privilege_type <> 'USAGE')
	UNION ALL
	SELECT 'privilege', p.oid::regprocedure::text, 'PUBLIC may execute it', 'REVOKE ALL ON FUNCTION ... FROM PUBLIC.'
	FROM member m JOIN pg_proc p ON p.oid = m.objid
	WHERE m.classid = 'pg_proc'::regclass AND (p.proacl IS NULL OR EXISTS (SELECT FROM aclexplode(p.proacl) a WHERE a.grantee = 0))
$$;
COMMENT ON FUNCTION holdfast.verify_tables() IS 'internal: what others have added to our tables, or may do to them';

-- A day of events is as make_partition() makes it.
CREATE FUNCTION holdfast.verify_partitions() RETURNS SETOF holdfast.verify_result
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO' AS $$
	SELECT 'partition', v.relid::regclass::text, p.problem, 'Put it back as holdfast.make_partition() makes it; see findings of kind evidence_ddl.'
	FROM holdfast.event_partition v
	JOIN pg_class c ON c.oid = v.relid
	CROSS JOIN LATERAL (
		SELECT format('trigger %s is %s', w.name, CASE WHEN t.oid IS NULL THEN 'missing' WHEN t.tgenabled = 'D' THEN 'switched off'
													   WHEN t.tgenabled <> 'A' THEN 'not ALWAYS' ELSE 'another one' END) AS problem
		FROM (VALUES ('guard_before', 27), ('guard_statement', 38)) AS w (name, type)
		LEFT JOIN pg_trigger t ON t.tgrelid = v.relid AND t.tgname = w.name
		WHERE t.oid IS NULL OR t.tgenabled <> 'A' OR t.tgfoid <> (SELECT p.oid FROM pg_proc p WHERE p.proname = 'guard' AND p.pronamespace = 'holdfast'::regnamespace) OR t.tgtype <> w.type OR t.tgqual IS NOT NULL
			  OR t.tgargs <> E'evidence\\000'::bytea
		UNION ALL
		SELECT format('trigger %I is not holdfast''s', t.tgname) FROM pg_trigger t
		WHERE t.tgrelid = v.relid AND NOT t.tgisinternal AND t.tgname NOT IN ('guard_before', 'guard_statement')
		UNION ALL
		SELECT format('constraint %I is not holdfast''s', o.conname) FROM pg_constraint o WHERE o.conrelid = v.relid AND o.contype NOT IN ('n')
		UNION ALL
		SELECT format('index %s is missing or not valid', v.partition_name || w.suffix)
		FROM (VALUES ('_job'), ('_subject')) AS w (suffix)
		LEFT JOIN pg_class ic ON ic.relname = v.partition_name || w.suffix AND ic.relnamespace = c.relnamespace
		LEFT JOIN pg_index i ON i.indexrelid = ic.oid AND i.indrelid = v.relid AND i.indisvalid
		WHERE i.indexrelid IS NULL
		UNION ALL
		SELECT 'is in another schema' WHERE c.relnamespace <> 'holdfast'::regnamespace
		UNION ALL
		SELECT 'is not logged: a crash empties it' WHERE c.relpersistence <> 'p'
		UNION ALL
		SELECT 'has row security' WHERE c.relrowsecurity
		UNION ALL
		SELECT format('holds %s instead of its day', pg_get_expr(c.relpartbound, c.oid))
		WHERE pg_get_expr(c.relpartbound, c.oid) <> format('FOR VALUES FROM (''%s 00:00:00+00'') TO (''%s 00:00:00+00'')', v.day, v.day + 1)
	) p
	UNION ALL
	SELECT 'partition', 'holdfast.event', format('has no partition for %s: events go to event_overflow', d.day), 'Call holdfast.maintain(), every minute.'
	FROM (SELECT (holdfast.clock() AT TIME ZONE 'UTC')::date AS day) d
	WHERE EXISTS (SELECT FROM holdfast.queue) AND NOT EXISTS (SELECT FROM holdfast.event_partition v WHERE v.day = d.day)
$$;
COMMENT ON FUNCTION holdfast.verify_partitions() IS 'internal: days of events that are not as they were made';

CREATE FUNCTION holdfast.verify_settings() RETURNS SETOF holdfast.verify_result
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT 'grant', format('%s of queue %s', g.kind, g.queue_name), format('role %s was dropped, renamed or made anew: the grant gives nothing', g.role_name),
		   'Call holdfast.regrant(), or revoke_queue() if the role is not to have it.'
	FROM holdfast.grants g WHERE NOT g.valid
	UNION ALL
	SELECT 'grant', format('%s of queue %s', g.kind, g.queue_name), 'the queue does not exist', 'Call holdfast.revoke_queue().'
	FROM holdfast.grants g WHERE NOT EXISTS (SELECT FROM holdfast.queue q WHERE q.queue_name = g.queue_name)
	UNION ALL
	SELECT 'setting', s.name, format('is %s in this session', s.value), s.hint
	FROM (VALUES
		('session_replication_role', current_setting('session_replication_role'), 'origin', 'The guards fire all the same; other triggers and foreign keys do not.'),
		('event_triggers', current_setting('event_triggers', true), 'on', 'DDL leaves no record meanwhile.'),
		('holdfast.clock', current_setting('holdfast.clock', true), '', 'The clock is frozen, for tests only.'),
		('holdfast.single_transaction', current_setting('holdfast.single_transaction', true), 'off', 'A crash may forget a claim whose work was begun.')
	) AS s (name, value, normal, hint)
	WHERE s.value <> s.normal
	UNION ALL
	SELECT 'setting', concat_ws(' ', 'role ' || nullif(s.setrole, 0)::regrole, 'database ' || (SELECT d.datname FROM pg_database d WHERE d.oid = s.setdatabase)),
		   format('has %s set', c.setting), 'ALTER ROLE or ALTER DATABASE ... RESET it.'
	FROM pg_db_role_setting s CROSS JOIN LATERAL unnest(s.setconfig) AS c (setting)
	WHERE c.setting ~ '^(session_replication_role=(replica|local)|event_triggers=(off|false|0)|holdfast[.](clock|single_transaction)=)'
	  AND (s.setdatabase = 0 OR s.setdatabase = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()))
	UNION ALL
	SELECT 'watch', coalesce(w.relation, w.source), w.problem, 'Call holdfast.watch() again, or holdfast.unwatch_all() if the table is gone for good; see findings of kind evidence_ddl.'
	FROM holdfast.watched w WHERE w.problem IS NOT NULL
	UNION ALL
	SELECT 'setting', 'queue ' || q.queue_name, format('retry policy %s does not exist: default decides', q.retry_policy), 'Define it, or alter the queue.'
	FROM holdfast.queue q
	WHERE q.retry_policy <> 'default' AND NOT EXISTS (SELECT FROM holdfast.retry_policy p WHERE p.policy_name = q.retry_policy)
$$;
COMMENT ON FUNCTION holdfast.verify_settings() IS 'internal: grants that give nothing, and settings that switch something off';

/*
 * Whether jobs and ledger rows are what their events add up to.  The cost is
 * bounded: the newest "max" live and dead jobs, and as many unknown effects.
 */
CREATE FUNCTION holdfast.verify_state(max integer DEFAULT 1000) RETURNS SETOF holdfast.verify_result
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	WITH seen AS MATERIALIZED (
		(SELECT j.job_id, j.status, j.mode, j.attempt_number, j.lease_id, j.fencing_token, j.idempotency_key, j.side_effects, j.last_event_at, true AS live
		 FROM holdfast.job j ORDER BY j.job_id DESC LIMIT max)
		UNION ALL
		(SELECT d.job_id, 'dead', d.mode, d.attempt_number, NULL, d.fencing_token, d.idempotency_key, d.side_effects, d.last_event_at, false
		 FROM holdfast.dead_job d ORDER BY d.job_id DESC LIMIT max)
	), told AS MATERIALIZED (
		SELECT s.*, e.*, l.state
		FROM seen s
		CROSS JOIN LATERAL (
			SELECT count(*) AS events, max(v.attempt_number) FILTER (WHERE v.kind = 'action_attempt_started') AS started,
				   bool_or(v.kind = 'action_attempt_started' AND v.lease_id = s.lease_id) AS lease_granted,
				   bool_or(v.attempt_number = s.attempt_number AND v.kind IN ('action_attempt_failed', 'action_attempt_lost', 'action_snoozed',
						'action_released', 'action_reconciled', 'action_cancelled', 'action_purged', 'action_redriven')) AS ended,
				   max(v.event_id) AS last_id,
				   max(v.at) AS last_at,
				   (array_agg(v.side_effect_state ORDER BY v.attempt_number DESC, v.at DESC, v.event_id DESC)
						FILTER (WHERE v.side_effect_state IS NOT NULL))[1] AS told_state
			FROM holdfast.event_all v WHERE v.job_id = s.job_id) e
		LEFT JOIN holdfast.ledger l ON l.idempotency_key = s.idempotency_key AND l.job_id = s.job_id
	)
	SELECT 'state', 'job ' || t.job_id, p.problem, p.hint
	FROM told t
	CROSS JOIN LATERAL (
		SELECT format('is at attempt %s, and the last one on record is %s', t.attempt_number, coalesce(t.started::text, 'none')) AS problem,
			   'Its row or its events were changed past the guards; holdfast.event_all has what is left.' AS hint
		WHERE (t.live OR t.events > 0) AND coalesce(t.started, 0) <> t.attempt_number
		UNION ALL
		SELECT 'runs under a lease that was never granted', 'Cancel it by holdfast.cancel(job_id, force => true).'
		WHERE t.status = 'running' AND t.lease_granted IS NOT TRUE
		UNION ALL
		SELECT format('is %s, and the end of attempt %s is not on record', t.status, t.attempt_number), 'It was put back past the guards.'
		WHERE t.status <> 'running' AND t.attempt_number > 0 AND t.started = t.attempt_number AND t.ended IS NOT TRUE
		UNION ALL
		SELECT 'has no ledger row, though it has side effects', 'A claim enters it anew; what it knew is lost.'
		WHERE t.live AND t.side_effects AND NOT EXISTS (SELECT FROM holdfast.ledger l WHERE l.idempotency_key = t.idempotency_key)
		UNION ALL
		SELECT format('its ledger says %s, and its last event %s', t.state, t.told_state), 'The ledger was changed past the guards; see the events.'
		WHERE t.state <> t.told_state
		UNION ALL
		SELECT format('event %s was never handed out by event_id_seq', t.last_id), 'The event was entered by hand.'
		WHERE t.last_id > coalesce(pg_sequence_last_value('holdfast.event_id_seq'), 0)
		UNION ALL
		SELECT 'is to execute, and its effect is unknown', 'The next claim turns it to mode reconcile.'
		WHERE t.live AND t.state = 'unknown' AND t.mode = 'execute'
	) p
	UNION ALL
	SELECT 'state', 'unknown effect ' || u.idempotency_key, format('the ledger says %s', coalesce(l.state, 'nothing')), 'The row was left behind, or the ledger changed, past the guards.'
	FROM (SELECT * FROM holdfast.unknown_effect ORDER BY idempotency_key LIMIT max) u
	LEFT JOIN holdfast.ledger l ON l.idempotency_key = u.idempotency_key
	WHERE l.state IS DISTINCT FROM 'unknown'
	UNION ALL
	SELECT 'state', 'job ' || t.job_id, 'its effect is unknown, and operators do not see it', 'Its row in holdfast.unknown_effect was removed past the guards.'
	FROM told t WHERE t.state = 'unknown' AND NOT EXISTS (SELECT FROM holdfast.unknown_effect u WHERE u.idempotency_key = t.idempotency_key)
$$;
COMMENT ON FUNCTION holdfast.verify_state(integer) IS 'internal: jobs, ledger rows and unknown effects that their events do not account for';

CREATE FUNCTION holdfast.verify() RETURNS SETOF holdfast.verify_result
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
	SELECT * FROM holdfast.verify_definitions()
	UNION ALL SELECT * FROM holdfast.verify_tables()
	UNION ALL SELECT * FROM holdfast.verify_partitions()
	UNION ALL SELECT * FROM holdfast.verify_settings()
	UNION ALL SELECT * FROM holdfast.verify_state()
$$;
COMMENT ON FUNCTION holdfast.verify() IS
	'what is switched off, missing, added or differently defined, who may do too much, and jobs whose events do not account '
	'for them; no row: all is well; for the owner';
