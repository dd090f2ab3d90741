\i test/setup.sql
-- Grants: what each kind opens, and that nothing else is open.
SELECT plan(45);

CREATE FUNCTION pg_temp.refusal(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	hint	text;
BEGIN
	EXECUTE statement;
	RETURN 'not refused';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(E'\n', SQLSTATE || ': ' || SQLERRM, nullif(hint, ''));
END
$$;
-- the SQLSTATE of a statement run by another role
CREATE FUNCTION pg_temp.refusal_to(role_name text, statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('role', role_name, true);
	EXECUTE statement;
	PERFORM set_config('role', 'none', true);
	RETURN 'not refused';
EXCEPTION WHEN OTHERS THEN		-- takes the role back, too
	RETURN SQLSTATE;
END
$$;
-- what a role may call and read, by name
CREATE FUNCTION pg_temp.opened(role_name text) RETURNS SETOF text LANGUAGE sql AS $$
	SELECT DISTINCT p.proname::text FROM pg_proc p
	WHERE p.pronamespace = 'holdfast'::regnamespace AND has_function_privilege(role_name, p.oid, 'EXECUTE')
	UNION
	SELECT c.relname FROM pg_class c
	WHERE c.relnamespace = 'holdfast'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'S') AND
		CASE WHEN c.relkind = 'S' THEN has_sequence_privilege(role_name, c.oid, 'USAGE, SELECT, UPDATE')
			 ELSE has_any_column_privilege(role_name, c.oid, 'SELECT, INSERT, UPDATE, REFERENCES')
			   OR has_table_privilege(role_name, c.oid, 'DELETE, TRUNCATE, TRIGGER') END
$$;
-- of these names, those that the extension has
CREATE FUNCTION pg_temp.present(names text) RETURNS SETOF text LANGUAGE sql AS $$
	SELECT n FROM regexp_split_to_table(names, '\s+') n
	WHERE EXISTS (SELECT FROM pg_proc p WHERE p.pronamespace = 'holdfast'::regnamespace AND p.proname = n)
	   OR EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = 'holdfast'::regnamespace AND c.relkind = 'v' AND c.relname = n)
$$;
\set pure 'intent_key key_of effect_key backoff_delay jitter_ms job_seed version'
\set producer 'enqueue enqueue_batch outcome'
\set worker 'claim claim_any complete_and_claim complete complete_batch fail schedule_retry snooze release heartbeat assert_lease validate_lease reconcile ledger_transition effects outcome next_wakeup'
\set reader 'metrics explain timeline is_granted events_of event_line report_html html_text recoverable span how_long error_summary latest_events budget clock pairs pair_because backoff_window normalized_message error_digest policy_figure class_disposition budget_end span_start span_end verdicts attempt attempt_elsewhere fingerprint attempt_pair span_pair failure_pair same_action_same_error_within_backoff_window lease_overlap stop_reason timeout_finding failure_pattern ps'
\set operator 'cancel redrive redrive_queue settle_unknown pause_queue resume_queue purge_queue resume_stream'

CREATE ROLE regress_holdfast_producer;
CREATE ROLE regress_holdfast_worker;
CREATE ROLE regress_holdfast_reader;
CREATE ROLE regress_holdfast_operator;
CREATE ROLE regress_holdfast_member IN ROLE regress_holdfast_worker;
CREATE ROLE regress_holdfast_nobody;
SELECT holdfast.create_queue('mail'), holdfast.create_queue('bills') \g /dev/null

-- nothing for PUBLIC

SELECT is_empty(
	$$SELECT p.oid::regprocedure FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
	  WHERE p.pronamespace = 'holdfast'::regnamespace AND a.grantee <> p.proowner$$,
	'G13: no function is open to anybody');
SELECT is_empty(
	$$SELECT c.oid::regclass FROM pg_class c, aclexplode(c.relacl) a
	  WHERE c.relnamespace = 'holdfast'::regnamespace AND a.grantee <> c.relowner$$,
	'G13: nor is a table, view or sequence');
SELECT ok(NOT has_schema_privilege('regress_holdfast_nobody', 'holdfast', 'USAGE'), 'G13: nor is the schema');

-- what each kind opens

SELECT holdfast.grant_queue('mail', 'regress_holdfast_' || kind, kind)
	FROM unnest(ARRAY['producer', 'worker', 'reader', 'operator']) kind \g /dev/null
SELECT set_eq($$SELECT pg_temp.opened('regress_holdfast_producer')$$,
	format('SELECT pg_temp.present(%L)', concat_ws(' ', :'pure', :'producer')), 'G13: what a producer may call');
SELECT set_eq($$SELECT pg_temp.opened('regress_holdfast_worker')$$,
	format('SELECT pg_temp.present(%L)', concat_ws(' ', :'pure', :'worker')), 'G13: what a worker may call');
SELECT set_eq($$SELECT pg_temp.opened('regress_holdfast_reader')$$,
	format('SELECT pg_temp.present(%L)', concat_ws(' ', :'pure', :'reader')), 'G13: what a reader may call and read');
SELECT set_eq($$SELECT pg_temp.opened('regress_holdfast_operator')$$,
	format('SELECT pg_temp.present(%L)', concat_ws(' ', :'pure', :'reader', :'operator')),
	'G13: what an operator may call and read');
SELECT set_eq($$SELECT pg_temp.opened('regress_holdfast_member')$$,
	$$SELECT pg_temp.opened('regress_holdfast_worker')$$, 'G13: a member of a role may what the role may');
SELECT is_empty($$SELECT role FROM unnest(ARRAY['producer', 'worker', 'reader', 'operator']) role
				  WHERE NOT has_schema_privilege('regress_holdfast_' || role, 'holdfast', 'USAGE')
					 OR has_schema_privilege('regress_holdfast_' || role, 'holdfast', 'CREATE')$$,
	'G13: each may use the schema, and make nothing in it');
SELECT is_empty(
	$$SELECT role, p.proname FROM pg_proc p, unnest(ARRAY['producer', 'worker', 'reader', 'operator']) role
	  WHERE p.pronamespace = 'holdfast'::regnamespace
		AND has_function_privilege('regress_holdfast_' || role, p.oid, 'EXECUTE WITH GRANT OPTION')$$,
	'G13: and pass nothing on');
SELECT is_empty(
	$$SELECT o.kind, o.object FROM holdfast.kind_object o
	  WHERE NOT EXISTS (SELECT FROM aclexplode(o.acl) a
						WHERE a.grantee = ('regress_holdfast_' || o.kind)::regrole AND a.privilege_type = o.privilege)$$,
	'G13: of functions of one name, every one is granted');
SELECT is_empty(
	$$SELECT role, statement, refused FROM unnest(ARRAY['producer', 'worker', 'reader', 'operator']) role,
		unnest(ARRAY[
			'SELECT FROM holdfast.job',
			'SELECT FROM holdfast.queue_grant',
			'INSERT INTO holdfast.setting VALUES (''token_floor'', ''1'')',
			'SELECT nextval(''holdfast.job_id_seq'')',
			'SELECT holdfast.create_queue(''theirs'')',
			'SELECT holdfast.alter_queue(''mail'', lease => ''1 h'')',
			'SELECT holdfast.drop_queue(''mail'')',
			'SELECT FROM holdfast.list_queues()',
			'SELECT holdfast.grant_queue(''bills'', current_user, ''worker'')',
			'SELECT holdfast.revoke_queue(''mail'', ''regress_holdfast_worker'', ''worker'')',
			'SELECT holdfast.regrant()',
			'SELECT holdfast.define_stream(''mail'', ''account-1'')']) statement,
		pg_temp.refusal_to('regress_holdfast_' || role, statement) refused
	  WHERE refused <> '42501'$$,
	'G13: tables and configuration are closed, even to an operator');

-- grants are rows

SELECT results_eq($$SELECT * FROM holdfast.grants ORDER BY kind$$,
	$$SELECT 'mail' COLLATE "C", ('regress_holdfast_' || kind) COLLATE "C", kind COLLATE "C", true
	  FROM (VALUES ('operator'), ('producer'), ('reader'), ('worker')) AS granted (kind)$$,
	'G13: the view grants shows who may do what');
SELECT holdfast.grant_queue('mail', 'regress_holdfast_worker', 'worker') \g /dev/null
SELECT is((SELECT count(*) FROM holdfast.grants WHERE role_name = 'regress_holdfast_worker'), 1::bigint,
	'granting again does no harm');

-- errors

SELECT is(pg_temp.refusal(format('SELECT holdfast.grant_queue(%L, %L, %L)', queue_name, role_name, kind)), expected, description)
FROM (VALUES
	('mail', 'PUBLIC', 'worker',
	 E'0LP01: a queue cannot be granted to PUBLIC\nGrant it to a role, and that role to those who share it.',
	 'G13: a queue is not granted to PUBLIC'),
	('mail', 'public', 'worker',
	 E'0LP01: a queue cannot be granted to PUBLIC\nGrant it to a role, and that role to those who share it.',
	 'G13: nor to public'),
	('mail', 'regress_holdfast_absent', 'worker',
	 E'42704: role "regress_holdfast_absent" does not exist\nCreate the role first, and give its name as it is stored, without quotes.',
	 'only a role that exists is granted anything'),
	('absent', 'regress_holdfast_worker', 'worker',
	 E'42704: queue "absent" does not exist\nCreate it with holdfast.create_queue(), or see holdfast.list_queues().',
	 'only a queue that exists is granted'),
	('mail', 'regress_holdfast_worker', 'owner',
	 E'22023: argument "kind" does not know "owner"\nIt is one of "producer", "worker", "operator", "reader".',
	 'there are four kinds'),
	(NULL, 'regress_holdfast_worker', 'worker', '22004: argument "queue_name" must not be null', 'a grant has a queue'),
	('mail', NULL, 'worker', '22004: argument "role_name" must not be null', 'a grant has a role'),
	('mail', 'regress_holdfast_worker', NULL, '22004: argument "kind" must not be null', 'a grant has a kind')
) AS bad (queue_name, role_name, kind, expected, description);
SELECT is(pg_temp.refusal($$SELECT holdfast.revoke_queue('bills', 'regress_holdfast_worker', 'worker')$$),
	E'42704: role "regress_holdfast_worker" has no grant of kind "worker" on queue "bills"\n'
	'The view holdfast.grants shows the grants there are.',
	'G13: a revocation that revokes nothing is an error');
SELECT is(left(pg_temp.refusal($$SELECT holdfast.revoke_queue('mail', 'regress_holdfast_worker', 'owner')$$), 5), '22023',
	'and so is one of an unknown kind');

-- revoke_queue

SELECT holdfast.grant_queue('bills', 'regress_holdfast_worker', 'worker'),
	   holdfast.grant_queue('mail', 'regress_holdfast_worker', 'producer'),
	   holdfast.revoke_queue('mail', 'regress_holdfast_worker', 'worker') \g /dev/null
SELECT set_eq($$SELECT pg_temp.opened('regress_holdfast_worker')$$,
	format('SELECT pg_temp.present(%L)', concat_ws(' ', :'pure', :'producer', :'worker')),
	'G13: while the role has another queue of the kind, its functions stay open');
SELECT holdfast.revoke_queue('bills', 'regress_holdfast_worker', 'worker') \g /dev/null
SELECT set_eq($$SELECT pg_temp.opened('regress_holdfast_worker')$$,
	format('SELECT pg_temp.present(%L)', concat_ws(' ', :'pure', :'producer')),
	'G13: with the last queue of the kind they go, but for those that another kind opens');
SELECT holdfast.revoke_queue('mail', 'regress_holdfast_worker', 'producer') \g /dev/null
SELECT is_empty($$SELECT pg_temp.opened('regress_holdfast_worker')$$, 'G13: with the last grant nothing is open');
SELECT ok(NOT has_schema_privilege('regress_holdfast_worker', 'holdfast', 'USAGE'), 'G13: not even the schema');
SELECT lives_ok('DROP ROLE regress_holdfast_worker', 'then nothing keeps the role from being dropped');

-- a role made anew, or renamed

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA holdfast FROM regress_holdfast_producer;
REVOKE ALL ON SCHEMA holdfast FROM regress_holdfast_producer;
DROP ROLE regress_holdfast_producer;
SELECT is((SELECT valid FROM holdfast.grants WHERE kind = 'producer'), false, 'G13: the grant of a dropped role is not valid');
SELECT is(holdfast.regrant(), 0::bigint, 'regrant() has nobody to give it to');
CREATE ROLE regress_holdfast_producer;
SELECT is((SELECT valid FROM holdfast.grants WHERE kind = 'producer'), false, 'G13: a role made anew does not inherit it');
SELECT is_empty($$SELECT pg_temp.opened('regress_holdfast_producer')$$, 'G13: and may call nothing');
SELECT is(holdfast.regrant(), 1::bigint, 'regrant() binds it to the role that has the name now');
SELECT is((SELECT valid FROM holdfast.grants WHERE kind = 'producer'), true, 'the grant is valid again');
SELECT set_eq($$SELECT pg_temp.opened('regress_holdfast_producer')$$,
	format('SELECT pg_temp.present(%L)', concat_ws(' ', :'pure', :'producer')), 'and opens what its kind opens');
SELECT is(holdfast.regrant(), 0::bigint, 'regrant() again does no harm');

ALTER ROLE regress_holdfast_reader RENAME TO regress_holdfast_renamed;
SELECT is((SELECT valid FROM holdfast.grants WHERE kind = 'reader'), false, 'G13: the grant of a renamed role is not valid');
CREATE ROLE regress_holdfast_reader;
SELECT is(holdfast.regrant(), 1::bigint, 'regrant() goes by the name');
SELECT is_empty($$SELECT pg_temp.opened('regress_holdfast_renamed')$$, 'G13: and takes back what the renamed role had');
SELECT isnt_empty($$SELECT pg_temp.opened('regress_holdfast_reader')$$, 'G13: which the role of that name now has');

-- as after a restore into another cluster, where the number is a stranger's and the name another role's

INSERT INTO holdfast.queue_grant (queue_name, role_name, kind, role_oid)
	SELECT 'bills', 'regress_holdfast_reader', 'worker', r.oid FROM pg_roles r WHERE r.rolname = 'regress_holdfast_nobody';
SELECT is(holdfast.regrant(), 1::bigint, 'regrant() binds a restored grant');
SELECT is_empty($$SELECT pg_temp.opened('regress_holdfast_nobody')$$, 'G13: the stranger gets nothing');
SELECT set_eq($$SELECT pg_temp.opened('regress_holdfast_reader')$$,
	format('SELECT pg_temp.present(%L)', concat_ws(' ', :'pure', :'reader', :'worker')), 'the role of that name does');

-- a grant outlives its role until it is revoked

INSERT INTO holdfast.queue_grant (queue_name, role_name, kind, role_oid) VALUES ('bills', 'regress_holdfast_gone', 'worker', 1);
SELECT lives_ok($$SELECT holdfast.revoke_queue('bills', 'regress_holdfast_gone', 'worker')$$,
	'the grant of a role that is gone can be revoked');

SELECT * FROM finish();
ROLLBACK;
