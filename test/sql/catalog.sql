\i test/setup.sql
-- What holds of every object of the extension, asked of the catalog: an object that is added cannot be forgotten.
SELECT plan(23);

CREATE TEMPORARY VIEW member AS
	SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
	WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'holdfast';
CREATE TEMPORARY VIEW func AS
	SELECT p.*, l.lanname FROM member m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid JOIN pg_language l ON l.oid = p.prolang;
CREATE TEMPORARY VIEW rel AS
	SELECT c.* FROM member m JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid;
-- what the roles may call besides the pure functions, and what of it changes anything
CREATE TEMPORARY VIEW open AS SELECT k.kind, f.* FROM holdfast.kind_privilege k JOIN func f ON f.proname = k.object_name WHERE k.object_type = 'function';

SELECT cmp_ok((SELECT count(*) FROM func), '>', 100::bigint, 'the catalog lists the functions');
SELECT is((SELECT e.extversion FROM pg_extension e WHERE e.extname = 'holdfast'), holdfast.version(), 'library and schema are of one version');

-- privileges and search paths

SELECT is_empty($$SELECT f.oid::regprocedure FROM func f WHERE f.prosecdef AND (f.proname <> 'maintain' OR NOT coalesce(f.proconfig @> ARRAY['search_path=pg_catalog, pg_temp'], false))$$,
	'D8: but for maintain(), whose search_path is pinned, no function runs with its owner''s rights');
SELECT is_empty($$SELECT f.oid::regprocedure FROM func f WHERE f.lanname <> 'c' AND f.prosqlbody IS NULL AND NOT coalesce(f.proconfig @> ARRAY['search_path=pg_catalog, pg_temp'], false)$$,
	'D8: every function in SQL or PL/pgSQL pins search_path = pg_catalog, pg_temp, or was parsed when it was made');
SELECT is_empty($$SELECT f.oid::regprocedure FROM func f WHERE f.lanname NOT IN ('c', 'sql', 'plpgsql')$$, 'and no other language is used');
SELECT is_empty($$SELECT f.oid::regprocedure FROM func f, aclexplode(coalesce(f.proacl, acldefault('f', f.proowner))) a WHERE a.grantee <> f.proowner$$, 'D12, G13: no function is PUBLIC''s');
SELECT is_empty($$SELECT c.oid::regclass FROM rel c, aclexplode(coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's'::"char" ELSE 'r' END, c.relowner))) a WHERE a.grantee <> c.relowner$$,
	'D12, G13: nor a table, view or sequence');
SELECT is_empty($$SELECT y.oid::regtype FROM member m JOIN pg_type y ON m.classid = 'pg_type'::regclass AND y.oid = m.objid WHERE has_schema_privilege('public', 'holdfast', 'USAGE')$$, 'D12, G13: nor the schema');
SELECT is_empty($$SELECT c.oid::regclass FROM holdfast.kind_privilege k JOIN rel c ON c.relname = k.object_name WHERE k.object_type = 'view' AND NOT coalesce(c.reloptions @> ARRAY['security_barrier=true'], false)$$,
	'G13: every view that a role reads is a barrier: no function of the reader''s sees a row before it');
SELECT is_empty($$SELECT k.object_name FROM holdfast.kind_privilege k WHERE k.object_type = 'view' AND NOT EXISTS (SELECT FROM rel c WHERE c.relname = k.object_name AND c.relkind = 'v')$$, 'G13: and none is a table');
SELECT is((SELECT array_agg(DISTINCT e.evtowner::regrole::text) FROM pg_event_trigger e JOIN member m ON m.classid = 'pg_event_trigger'::regclass AND m.objid = e.oid WHERE e.evtenabled = 'A'),
	(SELECT ARRAY[r.rolname::text] FROM pg_roles r WHERE r.oid = 10), 'D4: the event triggers are ALWAYS, and of the superuser that the cluster was made with');
SELECT is((SELECT string_agg(format('%s %s', e.evtname, e.evtenabled), ', ' ORDER BY e.evtname) FROM pg_event_trigger e JOIN member m ON m.classid = 'pg_event_trigger'::regclass AND m.objid = e.oid),
	'holdfast_ddl_drop A, holdfast_ddl_end A, holdfast_ddl_rewrite A, holdfast_ddl_start A', 'D2: all four of them');
SELECT is_empty($$SELECT t.tgrelid::regclass, t.tgname FROM pg_trigger t JOIN rel c ON c.oid = t.tgrelid WHERE NOT t.tgisinternal AND t.tgenabled <> 'A'$$, 'D1, D2: every trigger is ALWAYS');
SELECT is_empty($$SELECT c.oid::regclass FROM rel c JOIN holdfast.guarded g ON g.table_name = c.relname AND g.level = 'STATEMENT' AND g.events ~ 'TRUNCATE'
	WHERE NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgtype & 32 > 0)$$, 'D1: what is guarded is guarded against TRUNCATE');

-- answers and arguments

SELECT is_empty($$SELECT f.oid::regprocedure FROM func f WHERE f.prorettype = 'record'::regtype AND f.proallargtypes IS NULL$$, 'D10: no function answers with a bare RECORD');
SELECT is_empty($$SELECT f.oid::regprocedure FROM func f, unnest(f.proargtypes || f.prorettype) t JOIN pg_type y ON y.oid = t
	WHERE y.typtype = 'p' AND y.typname NOT IN ('void', 'trigger', 'event_trigger', 'record')$$, 'D10: nor takes any type there is');
SELECT is_empty($$SELECT o.oid::regprocedure FROM open o WHERE o.kind IN ('producer', 'worker') AND o.provolatile = 'v' AND o.proparallel <> 'u' AND o.proname <> 'clock'$$, 'what changes something is not for parallel workers');
SELECT is_empty($$SELECT f.oid::regprocedure FROM func f WHERE f.proleakproof$$, 'no function is said to be leakproof');
SELECT is_empty($$SELECT a.attrelid::regclass, a.attname FROM rel c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
	WHERE c.relkind IN ('r', 'p') AND a.atttypid IN ('text'::regtype, 'text[]'::regtype) AND a.attcollation <> 'pg_catalog."C"'::regcollation$$, 'every text column sorts by its bytes');
SELECT is_empty($$SELECT a.attrelid::regclass, a.attname FROM rel c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
	WHERE c.relkind IN ('r', 'p') AND format_type(a.atttypid, NULL) ~ '^reg'$$, 'D7: no table has a column that pg_upgrade would refuse');
SELECT is_empty($$SELECT c.oid::regclass FROM rel c WHERE c.relkind IN ('r', 'p', 'S') AND c.relpersistence = 'p' AND c.oid <> 'holdfast.event'::regclass AND c.relname <> 'definition'
	AND NOT c.oid = ANY ((SELECT e.extconfig FROM pg_extension e WHERE e.extname = 'holdfast')::oid[])$$, 'D6: every table and sequence is dumped');

-- words

SELECT is_empty($$SELECT pg_describe_object(m.classid, m.objid, 0) FROM member m
	LEFT JOIN pg_type y ON m.classid = 'pg_type'::regclass AND y.oid = m.objid LEFT JOIN pg_class c ON c.oid = y.typrelid
	WHERE (y.oid IS NULL OR c.relkind = 'c' OR y.typtype IN ('d', 'e')) AND obj_description(CASE WHEN y.typtype = 'c' THEN y.oid ELSE m.objid END, (m.classid::regclass)::name) IS NULL
	  AND NOT (y.oid IS NOT NULL AND y.typelem <> 0)$$, 'every object has a comment');
SELECT is((SELECT count(*) FROM regexp_matches(pg_read_file((SELECT c.setting FROM pg_config c WHERE c.name = 'SHAREDIR') || '/extension/holdfast--' || holdfast.version() || '.sql'),
	'^[[:space:]]*CREATE (OR REPLACE|[A-Z ]+ IF NOT EXISTS|ROLE|USER)', 'gn')), 0::bigint, 'D9: the install script takes over nothing that is there, and makes no role');
SELECT * FROM finish();
ROLLBACK;
