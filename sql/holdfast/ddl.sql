/* The event trigger: DDL on the tables that hold evidence, or make it (src/ddl.c). */

CREATE FUNCTION holdfast.evidence_ddl() RETURNS event_trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'holdfast_evidence_ddl';
COMMENT ON FUNCTION holdfast.evidence_ddl() IS
	'event trigger: puts DDL on holdfast''s objects on record (finding evidence_ddl), refuses what the library would pass by, '
	'puts back triggers that are switched off';

CREATE EVENT TRIGGER holdfast_ddl_start ON ddl_command_start
	WHEN TAG IN ('DROP EXTENSION', 'DROP SCHEMA', 'DROP OWNED', 'CREATE FUNCTION', 'ALTER TABLE')
	EXECUTE FUNCTION holdfast.evidence_ddl();
CREATE EVENT TRIGGER holdfast_ddl_end ON ddl_command_end EXECUTE FUNCTION holdfast.evidence_ddl();
CREATE EVENT TRIGGER holdfast_ddl_drop ON sql_drop EXECUTE FUNCTION holdfast.evidence_ddl();
CREATE EVENT TRIGGER holdfast_ddl_rewrite ON table_rewrite EXECUTE FUNCTION holdfast.evidence_ddl();
COMMENT ON EVENT TRIGGER holdfast_ddl_start IS 'what the other three cannot see: DROP EXTENSION, DROP SCHEMA, DROP OWNED';
COMMENT ON EVENT TRIGGER holdfast_ddl_end IS 'DDL on the tables of holdfast and on watched ones: on record, refused, or put back';
COMMENT ON EVENT TRIGGER holdfast_ddl_drop IS 'what was dropped: on record, or refused';
COMMENT ON EVENT TRIGGER holdfast_ddl_rewrite IS 'an ALTER TABLE that rewrites rows of evidence: on record, or refused';

/*
 * ALTER EVENT TRIGGER is DDL that no event trigger sees.  So that an owner of
 * the extension who is no superuser any more cannot switch them off, they
 * belong to the superuser that the cluster was made with.
 */
DO $install$
DECLARE
	g		record;
	super	pg_catalog.name := (SELECT r.rolname FROM pg_catalog.pg_roles r WHERE r.oid OPERATOR(pg_catalog.=) 10 AND r.rolsuper);
BEGIN
	FOR g IN SELECT e.evtname FROM pg_catalog.pg_event_trigger e WHERE e.evtfoid OPERATOR(pg_catalog.=) 'holdfast.evidence_ddl()'::pg_catalog.regprocedure LOOP
		EXECUTE pg_catalog.format('ALTER EVENT TRIGGER %I ENABLE ALWAYS', g.evtname);
		IF super IS NOT NULL THEN
			EXECUTE pg_catalog.format('ALTER EVENT TRIGGER %I OWNER TO %I', g.evtname, super);
		END IF;
	END LOOP;
END
$install$;

CREATE FUNCTION holdfast.permit_ddl(reason text) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'holdfast_permit_ddl';
COMMENT ON FUNCTION holdfast.permit_ddl(text) IS
	'until this transaction ends, DDL on holdfast''s objects is neither refused nor put back, but on record all the same; '
	'ends early where a savepoint or an exception block is rolled back; what the library would pass by is refused even then; '
	'for the owner';

CREATE FUNCTION holdfast.checked_reason(reason text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF reason IS NULL OR octet_length(reason) NOT BETWEEN 1 AND 1000 THEN
		RAISE EXCEPTION USING ERRCODE = CASE WHEN reason IS NULL THEN '22004' ELSE '22023' END,
			MESSAGE = CASE WHEN reason IS NULL THEN 'argument "reason" must not be null' ELSE 'argument "reason" must have 1 to 1000 bytes' END,
			HINT = 'Say why: it goes on record.';
	END IF;
	RETURN reason;
END
$$;
COMMENT ON FUNCTION holdfast.checked_reason(text) IS 'internal: argument "reason" as given; 22004 if null, 22023 if empty or longer than 1000 bytes';

CREATE FUNCTION holdfast.do_set_evidence_mode(mode text, reason text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	PERFORM holdfast.checked_reason(reason);
	IF mode IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = '22004', MESSAGE = 'argument "mode" must not be null', HINT = 'It is one of "observe", "enforce".';
	ELSIF mode NOT IN ('observe', 'enforce') THEN
		RAISE EXCEPTION USING ERRCODE = '22023',
			MESSAGE = format('argument "mode" does not know "%s"', left(mode, 200)),
			HINT = 'It is one of "observe", "enforce".';
	END IF;
	INSERT INTO holdfast.finding (at, queue, kind, detail)
		VALUES (holdfast.clock(), 0, 'evidence_mode', jsonb_build_object('mode', mode, 'reason', reason, 'by', current_user));
	INSERT INTO holdfast.setting AS s (name, value) VALUES ('evidence_mode', mode)
		ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE s.value <> excluded.value;
END
$$;
COMMENT ON FUNCTION holdfast.do_set_evidence_mode(text, text) IS 'internal: the body of set_evidence_mode()';

CREATE FUNCTION holdfast.set_evidence_mode(mode text, reason text) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'holdfast_own';
COMMENT ON FUNCTION holdfast.set_evidence_mode(text, text) IS
	'"observe": DDL on holdfast''s objects is on record; "enforce": what could stop the evidence is refused (42501) unless '
	'permit_ddl() was called first; on record with the reason; for the owner';
