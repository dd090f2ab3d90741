/* The schema, and the facts that every other part rests on. */

-- Fail closed: the schema must be ours alone before anything is put into it.
DO $install$
DECLARE
	ns		pg_catalog.pg_namespace%ROWTYPE;
	guest	pg_catalog.text;
BEGIN
	SELECT n.* INTO STRICT ns FROM pg_catalog.pg_namespace n WHERE n.nspname OPERATOR(pg_catalog.=) 'holdfast';
	-- by name, and not by ::regrole, which would fold the name "Ops" to that of another role
	IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid OPERATOR(pg_catalog.=) ns.nspowner
				   AND (r.rolsuper OR r.rolname OPERATOR(pg_catalog.=) current_user)) THEN
		RAISE EXCEPTION USING ERRCODE = '42501',
			MESSAGE = 'schema "holdfast" belongs to another role',
			DETAIL = pg_catalog.format('It is owned by %s, who could change what is put into it.', ns.nspowner::pg_catalog.regrole),
			HINT = 'Drop or rename that schema, then run CREATE EXTENSION again.';
	END IF;
	SELECT d.what INTO guest FROM (
		SELECT 'relation ' || c.relname AS what FROM pg_catalog.pg_class c WHERE c.relnamespace OPERATOR(pg_catalog.=) ns.oid
		UNION ALL SELECT 'function ' || p.proname FROM pg_catalog.pg_proc p WHERE p.pronamespace OPERATOR(pg_catalog.=) ns.oid
		UNION ALL SELECT 'type ' || t.typname FROM pg_catalog.pg_type t WHERE t.typnamespace OPERATOR(pg_catalog.=) ns.oid
		UNION ALL SELECT 'operator ' || o.oprname FROM pg_catalog.pg_operator o WHERE o.oprnamespace OPERATOR(pg_catalog.=) ns.oid
		UNION ALL SELECT 'collation ' || l.collname FROM pg_catalog.pg_collation l WHERE l.collnamespace OPERATOR(pg_catalog.=) ns.oid
		UNION ALL SELECT 'conversion ' || v.conname FROM pg_catalog.pg_conversion v WHERE v.connamespace OPERATOR(pg_catalog.=) ns.oid
		UNION ALL SELECT 'statistics ' || s.stxname FROM pg_catalog.pg_statistic_ext s WHERE s.stxnamespace OPERATOR(pg_catalog.=) ns.oid
		UNION ALL SELECT 'CREATE privilege of another role'
			FROM pg_catalog.aclexplode(ns.nspacl) a
			WHERE a.privilege_type OPERATOR(pg_catalog.=) 'CREATE' AND a.grantee OPERATOR(pg_catalog.<>) ns.nspowner
	) d LIMIT 1;
	IF guest IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = '55000',
			MESSAGE = 'schema "holdfast" is not empty',
			DETAIL = pg_catalog.format('It holds %s.', guest),
			HINT = 'Drop or rename that schema, then run CREATE EXTENSION again.';
	END IF;
END
$install$;

COMMENT ON SCHEMA holdfast IS 'queue primitives for work with side effects: leases, retries by policy, a ledger, and evidence';

CREATE FUNCTION holdfast.version() RETURNS text
LANGUAGE C STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'holdfast_version';
COMMENT ON FUNCTION holdfast.version() IS 'version of the loaded library';

CREATE FUNCTION holdfast.config_changed() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'holdfast_config_changed';
COMMENT ON FUNCTION holdfast.config_changed() IS 'trigger: tells every backend that its copy of the settings is out of date';

CREATE TABLE holdfast.setting (
	name			text		COLLATE "C" PRIMARY KEY,
	value			text		COLLATE "C" NOT NULL,
	-- no claim could be made without a floor that can be read: at most 9 * 10^18 + 1
	CHECK (CASE WHEN name = 'evidence_mode' THEN value IN ('observe', 'enforce')
				WHEN name IN ('token_floor', 'attempt_retention') THEN value ~ '^([0-9]{1,18}|[1-8][0-9]{18}|90{17}[01])$' ELSE true END)
);
COMMENT ON TABLE holdfast.setting IS 'what an operator has set, and must survive a dump: token_floor, evidence_mode, attempt_retention (ms)';
SELECT pg_catalog.pg_extension_config_dump('holdfast.setting', '');

CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON holdfast.setting
	FOR EACH STATEMENT EXECUTE FUNCTION holdfast.config_changed();
ALTER TABLE holdfast.setting ENABLE ALWAYS TRIGGER config_changed;

-- Bounds of arguments, for the functions that are written in SQL.
CREATE FUNCTION holdfast.interval_ms(value interval, name text, min_ms bigint, max_ms bigint) RETURNS bigint
LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'holdfast_interval_ms';
COMMENT ON FUNCTION holdfast.interval_ms(interval, text, bigint, bigint) IS
	'internal: argument "name" in whole milliseconds; 22004 if null, 22023 if out of bounds or with months';

CREATE FUNCTION holdfast.checked_name(value text, name text) RETURNS text
LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'holdfast_checked_name';
COMMENT ON FUNCTION holdfast.checked_name(text, text) IS
	'internal: argument "name" as given; 22004 if null, 22023 if empty or longer than 200 bytes';

CREATE FUNCTION holdfast.be_alone(relation text, what integer, wait boolean) RETURNS boolean
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'holdfast_be_alone';
COMMENT ON FUNCTION holdfast.be_alone(text, integer, boolean) IS
	'internal: a lock until the transaction ends, such as no role can take by SQL; false if another has it and wait is false';

CREATE FUNCTION holdfast.clock() RETURNS timestamptz
LANGUAGE C VOLATILE PARALLEL SAFE AS 'MODULE_PATHNAME', 'holdfast_clock';
COMMENT ON FUNCTION holdfast.clock() IS 'the one clock: the wall clock, or what holdfast.clock is set to';
