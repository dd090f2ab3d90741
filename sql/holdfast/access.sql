/*
 * Who may call what.  The last part of the install script.
 *
 * A row in queue_grant says which queue a role may reach; the engine, and the
 * views by their own conditions, look there.  EXECUTE, SELECT and USAGE only
 * open the door, so a privilege left over gives no queue away.  They are
 * ordinary privileges on members of the extension, which pg_dump dumps as far
 * as they differ from those that the install script leaves behind: no script
 * of the extension may therefore call regrant() or grant_queue.
 */

CREATE VIEW holdfast.kind_privilege AS
	SELECT k.kind, l.object_type, o.object_name
	FROM (VALUES
		('{producer,worker,reader,operator}'::text[], 'schema', '{holdfast}'::text[]),
		('{producer,worker,reader,operator}', 'function',
		 '{intent_key,key_of,effect_key,backoff_delay,jitter_ms,job_seed,version}'),
		('{producer}', 'function',
		 '{enqueue,enqueue_batch,outcome}'),
		('{worker}', 'function',
		 '{claim,claim_any,complete_and_claim,complete,complete_batch,fail,schedule_retry,snooze,release,
		   heartbeat,assert_lease,validate_lease,reconcile,ledger_transition,effects,outcome,next_wakeup}'),
		('{reader,operator}', 'function',
		 '{metrics,explain,timeline,is_granted,events_of,event_line,report_html,html_text,recoverable,span,how_long,error_summary,latest_events,budget,clock,
		   pairs,pair_because,backoff_window,normalized_message,error_digest,policy_figure,class_disposition,budget_end,span_start,span_end,verdicts}'),
		('{reader,operator}', 'view',
		 '{attempt,attempt_elsewhere,fingerprint,attempt_pair,span_pair,failure_pair,same_action_same_error_within_backoff_window,
		   lease_overlap,stop_reason,timeout_finding,failure_pattern,ps}'),
		('{operator}', 'function',
		 '{cancel,redrive,redrive_queue,settle_unknown,pause_queue,resume_queue,purge_queue,resume_stream}')
	) AS l (kinds, object_type, object_names),
	pg_catalog.unnest(l.kinds) AS k (kind),
	pg_catalog.unnest(l.object_names) AS o (object_name);
COMMENT ON VIEW holdfast.kind_privilege IS
	'internal: the one list of what each kind of grant opens; a view in it shows only rows of queues granted to the '
	'caller, and what it calls is in the list too';

CREATE VIEW holdfast.kind_object AS
	WITH member AS (
		SELECT d.classid, d.objid
		FROM pg_catalog.pg_depend d
		JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
		WHERE d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.deptype = 'e' AND e.extname = 'holdfast'
	)
	SELECT k.kind, 'EXECUTE' AS privilege, pg_catalog.format('FUNCTION %s', p.oid::pg_catalog.regprocedure) AS object,
		   p.proacl AS acl
	FROM holdfast.kind_privilege k
	JOIN pg_catalog.pg_proc p ON p.proname = k.object_name
	JOIN member m ON m.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND m.objid = p.oid
	WHERE k.object_type = 'function'
	UNION ALL
	SELECT k.kind, 'SELECT', pg_catalog.format('TABLE %s', c.oid::pg_catalog.regclass), c.relacl
	FROM holdfast.kind_privilege k
	JOIN pg_catalog.pg_class c ON c.relname = k.object_name AND c.relkind = 'v'
	JOIN member m ON m.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND m.objid = c.oid
	WHERE k.object_type = 'view'
	UNION ALL
	SELECT k.kind, 'USAGE', pg_catalog.format('SCHEMA %I', n.nspname), n.nspacl
	FROM holdfast.kind_privilege k
	JOIN pg_catalog.pg_namespace n ON n.nspname = k.object_name
	WHERE k.object_type = 'schema';
COMMENT ON VIEW holdfast.kind_object IS
	'internal: kind_privilege, as far as its objects exist and belong to the extension, every overload a row, with its '
	'present privileges';

CREATE FUNCTION holdfast.sync_role(role_name text, role_oid oid) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	change	record;
BEGIN
	-- After a renaming or a restore, name and oid are of two roles; either may hold privileges.
	FOR change IN
		SELECT w.rolname, o.privilege, o.object, pg_catalog.bool_or(w.valid) AS wanted
		FROM (SELECT r.oid, r.rolname, k.kind,
					 EXISTS (SELECT FROM holdfast.queue_grant g
							 WHERE g.kind = k.kind AND g.role_oid = r.oid AND g.role_name = r.rolname) AS valid,
					 EXISTS (SELECT FROM holdfast.queue_grant g
							 WHERE g.kind = k.kind AND (g.role_oid = r.oid OR g.role_name = r.rolname)) AS named
			  FROM pg_catalog.pg_roles r, (SELECT DISTINCT p.kind FROM holdfast.kind_privilege p) k
			  WHERE r.oid = sync_role.role_oid OR r.rolname = sync_role.role_name) w
		JOIN holdfast.kind_object o ON o.kind = w.kind
		CROSS JOIN LATERAL
			(SELECT EXISTS (SELECT FROM pg_catalog.aclexplode(o.acl) a
							WHERE a.grantee = w.oid AND a.privilege_type = o.privilege) AS held) h
		GROUP BY w.rolname, o.privilege, o.object, h.held
		HAVING (pg_catalog.bool_or(w.valid) AND NOT h.held) OR (h.held AND NOT pg_catalog.bool_or(w.named))
		ORDER BY w.rolname, o.object
	LOOP
		IF change.wanted THEN
			EXECUTE pg_catalog.format('GRANT %s ON %s TO %I', change.privilege, change.object, change.rolname);
		ELSE
			EXECUTE pg_catalog.format('REVOKE %s ON %s FROM %I', change.privilege, change.object, change.rolname);
		END IF;
	END LOOP;
END
$$;
COMMENT ON FUNCTION holdfast.sync_role(text, oid) IS
	'internal: gives the role what its valid grants open, takes back what no grant names it for; the caller has locked '
	'queue_grant, since concurrent changes of one object''s privileges fail';

CREATE FUNCTION holdfast.check_kind(kind text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF check_kind.kind IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = '22004', MESSAGE = 'argument "kind" must not be null';
	END IF;
	IF check_kind.kind NOT IN ('producer', 'worker', 'operator', 'reader') THEN
		RAISE EXCEPTION USING ERRCODE = '22023',
			MESSAGE = pg_catalog.format('argument "kind" does not know "%s"', check_kind.kind),
			HINT = 'It is one of "producer", "worker", "operator", "reader".';
	END IF;
END
$$;
COMMENT ON FUNCTION holdfast.check_kind(text) IS 'internal: refuses a kind of grant that is null (22004) or not known (22023)';

CREATE FUNCTION holdfast.grant_queue(queue_name text, role_name text, kind text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	grantee	oid;
BEGIN
	PERFORM holdfast.check_kind(grant_queue.kind);
	IF grant_queue.role_name IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = '22004', MESSAGE = 'argument "role_name" must not be null';
	END IF;
	LOCK TABLE holdfast.queue_grant IN SHARE ROW EXCLUSIVE MODE;
	PERFORM holdfast.known_queue(grant_queue.queue_name);

	SELECT r.oid INTO grantee FROM pg_catalog.pg_roles r WHERE r.rolname = grant_queue.role_name;
	IF grantee IS NULL AND pg_catalog.lower(grant_queue.role_name) = 'public' THEN
		RAISE EXCEPTION USING ERRCODE = '0LP01',
			MESSAGE = 'a queue cannot be granted to PUBLIC',
			HINT = 'Grant it to a role, and that role to those who share it.';
	ELSIF grantee IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = '42704',
			MESSAGE = pg_catalog.format('role "%s" does not exist', grant_queue.role_name),
			HINT = 'Create the role first, and give its name as it is stored, without quotes.';
	END IF;

	INSERT INTO holdfast.queue_grant (queue_name, role_name, kind, role_oid)
		VALUES (grant_queue.queue_name, grant_queue.role_name, grant_queue.kind, grantee)
		ON CONFLICT (queue_name, role_name, kind) DO UPDATE SET role_oid = excluded.role_oid;
	PERFORM holdfast.sync_role(grant_queue.role_name, grantee);
END
$$;
COMMENT ON FUNCTION holdfast.grant_queue(text, text, text) IS
	'lets a role be producer, worker, reader or operator of a queue: records it, and gives the role USAGE on the schema '
	'and EXECUTE on the functions of that kind (SELECT on the views); doing it again does no harm; 42704 for an unknown '
	'queue or role, 22023 for an unknown kind, 0LP01 for PUBLIC; called by the extension''s owner';

CREATE FUNCTION holdfast.revoke_queue(queue_name text, role_name text, kind text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	grantee	oid;
BEGIN
	PERFORM holdfast.check_kind(revoke_queue.kind);
	LOCK TABLE holdfast.queue_grant IN SHARE ROW EXCLUSIVE MODE;
	DELETE FROM holdfast.queue_grant g
		WHERE g.queue_name = revoke_queue.queue_name AND g.role_name = revoke_queue.role_name AND g.kind = revoke_queue.kind
		RETURNING g.role_oid INTO grantee;
	IF grantee IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = '42704',
			MESSAGE = pg_catalog.format('role "%s" has no grant of kind "%s" on queue "%s"',
										revoke_queue.role_name, revoke_queue.kind, revoke_queue.queue_name),
			HINT = 'The view holdfast.grants shows the grants there are.';
	END IF;
	PERFORM holdfast.sync_role(revoke_queue.role_name, grantee);
END
$$;
COMMENT ON FUNCTION holdfast.revoke_queue(text, text, text) IS
	'takes a grant back, also of a role that is gone or renamed (by its name in holdfast.grants); the kind''s functions go '
	'with the role''s last grant of that kind, USAGE on the schema with its last grant; a role can be dropped after its '
	'last; 42704 if there is no such grant, so that a slip of the pen is not taken for a revocation; called by the '
	'extension''s owner';

CREATE FUNCTION holdfast.regrant() RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	stale	oid[];
	rebound	bigint;
BEGIN
	LOCK TABLE holdfast.queue_grant IN SHARE ROW EXCLUSIVE MODE;
	-- By name alone: in another cluster, the number may be a stranger's.
	stale := ARRAY(SELECT DISTINCT g.role_oid
				   FROM holdfast.queue_grant g JOIN pg_catalog.pg_roles r ON r.rolname = g.role_name
				   WHERE r.oid <> g.role_oid);
	UPDATE holdfast.queue_grant g SET role_oid = r.oid
		FROM pg_catalog.pg_roles r
		WHERE r.rolname = g.role_name AND r.oid <> g.role_oid;
	GET DIAGNOSTICS rebound = ROW_COUNT;
	PERFORM holdfast.sync_role(r.rolname, r.oid)
		FROM pg_catalog.pg_roles r
		WHERE r.oid = ANY (stale) OR EXISTS (SELECT FROM holdfast.queue_grant g WHERE g.role_oid = r.oid)
		ORDER BY r.oid;
	RETURN rebound;
END
$$;
COMMENT ON FUNCTION holdfast.regrant() IS
	'binds the grants whose role was dropped and made anew, or restored into another cluster, to the role that has the '
	'name now, and answers with their number; then gives every granted role the privileges of its kinds, also on functions '
	'that an upgrade brought: call it after a restore and after ALTER EXTENSION UPDATE; a renamed role needs grant_queue '
	'under its new name; called by the extension''s owner';

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA holdfast FROM PUBLIC;

-- Default privileges of the role that installs would have opened tables and functions to others.
DO $access$
DECLARE
	opened	record;
BEGIN
	FOR opened IN
		SELECT o.object, r.rolname
		FROM (SELECT pg_catalog.format('FUNCTION %s', p.oid::pg_catalog.regprocedure) AS object, p.proacl AS acl, p.proowner AS owner
			  FROM pg_catalog.pg_proc p WHERE p.pronamespace = 'holdfast'::pg_catalog.regnamespace
			  UNION ALL
			  SELECT pg_catalog.format('%s holdfast.%I', CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.relname),
					 c.relacl, c.relowner
			  FROM pg_catalog.pg_class c
			  WHERE c.relnamespace = 'holdfast'::pg_catalog.regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'S')) o
		CROSS JOIN LATERAL pg_catalog.aclexplode(o.acl) a
		LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
		WHERE a.grantee <> o.owner
		GROUP BY o.object, r.rolname
	LOOP
		EXECUTE pg_catalog.format('REVOKE ALL ON %s FROM %s', opened.object,
								  coalesce(pg_catalog.quote_ident(opened.rolname), 'PUBLIC'));
	END LOOP;
	IF EXISTS (SELECT FROM pg_catalog.pg_namespace n, pg_catalog.aclexplode(n.nspacl) a
			   WHERE n.nspname = 'holdfast' AND a.grantee = 0) THEN
		REVOKE ALL ON SCHEMA holdfast FROM PUBLIC;
	END IF;
END
$access$;
