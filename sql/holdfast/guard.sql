/* Guards: plain SQL on holdfast's own tables passes through the state machine too (src/guard.c). */

CREATE FUNCTION holdfast.guard() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'holdfast_guard';
COMMENT ON FUNCTION holdfast.guard() IS
	'trigger: refuses what breaks an invariant (JQ003 to JQ008), and puts on record what is accepted, and by whom';

CREATE VIEW holdfast.guarded AS
	SELECT t.table_name, t.rule, g.trigger_name,
		   -- rows of settings are entered by functions in SQL all day: what changes is on record
		   CASE WHEN g.trigger_name = 'guard_statement' AND t.entered THEN 'BEFORE TRUNCATE' ELSE g.events END AS events, g.level
	FROM (VALUES
		('job', 'job', true, false), ('dead_job', 'dead_job', true, false), ('ledger', 'ledger', true, false),
		('event', 'evidence', false, false), ('event_overflow', 'evidence', false, false),
		('finding', 'kept', false, false), ('queue_hour', 'kept', false, false), ('unknown_effect', 'kept', false, false),
		('claim_front', 'kept', false, false),
		('attempt_record', 'kept', false, false), ('definition', 'kept', false, true),
		('queue', 'queue', true, true), ('queue_grant', 'setting', true, true), ('retry_policy', 'setting', true, true),
		('error_rule', 'setting', true, true), ('setting', 'setting', true, true), ('stream', 'setting', true, true),
		('upkeep', 'setting', true, true), ('watch', 'setting', true, true)
	) AS t (table_name, rule, accepts, entered)
	JOIN (VALUES
		('guard_before', 'BEFORE UPDATE OR DELETE', 'ROW'),
		('guard_after', 'AFTER UPDATE OR DELETE', 'ROW'),
		('guard_statement', 'BEFORE INSERT OR TRUNCATE', 'STATEMENT')
	) AS g (trigger_name, events, level) ON t.accepts OR g.trigger_name <> 'guard_after';
COMMENT ON VIEW holdfast.guarded IS
	'internal: the one list of guards; a partition of event gets its row triggers from event, and guard_statement from make_partition()';

DO $install$
DECLARE
	g	record;
BEGIN
	FOR g IN SELECT * FROM holdfast.guarded LOOP
		EXECUTE pg_catalog.format('CREATE TRIGGER %I %s ON holdfast.%I FOR EACH %s EXECUTE FUNCTION holdfast.guard(%L)',
			g.trigger_name, g.events, g.table_name, g.level, g.rule);
		EXECUTE pg_catalog.format('ALTER TABLE holdfast.%I ENABLE ALWAYS TRIGGER %I', g.table_name, g.trigger_name);
	END LOOP;
END
$install$;
