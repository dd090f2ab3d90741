/* Upkeep: partitions, retention, what nobody claimed. */

/*
 * The one place that makes event partitions, of days in UTC.  The parent has
 * no index that they would inherit: after a restore the indexes would collide.
 */
CREATE FUNCTION holdfast.make_partitions(days integer DEFAULT 7) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	today	date := (holdfast.clock() AT TIME ZONE 'UTC')::date;
	owner	text := (SELECT c.relowner::regrole::text FROM pg_class c WHERE c.oid = 'holdfast.event'::regclass);
	part	text;
	made	integer := 0;
BEGIN
	-- lets writers through, and keeps out another that makes partitions
	LOCK TABLE ONLY holdfast.event IN SHARE UPDATE EXCLUSIVE MODE;
	FOR n IN -1 .. days LOOP
		part := to_char(today + n, '"event_"YYYYMMDD');
		CONTINUE WHEN to_regclass('holdfast.' || part) IS NOT NULL;
		EXECUTE format('CREATE TABLE holdfast.%I (LIKE holdfast.event)', part);
		EXECUTE format('CREATE INDEX %I ON holdfast.%I (job_id)', part || '_job', part);
		EXECUTE format('CREATE INDEX %I ON holdfast.%I (subject, action_key)
			WHERE attempt_number = 0 OR (attempt_number = 1 AND kind = ''action_attempt_started'')', part || '_subject', part);
		EXECUTE format('ALTER TABLE holdfast.%I OWNER TO %s', part, owner);
		EXECUTE format('REVOKE ALL ON holdfast.%I FROM PUBLIC', part);
		EXECUTE format('ALTER TABLE holdfast.event ATTACH PARTITION holdfast.%I FOR VALUES FROM (%L) TO (%L)', part,
			to_char(today + n, 'YYYY-MM-DD 00:00:00+00'), to_char(today + n + 1, 'YYYY-MM-DD 00:00:00+00'));
		made := made + 1;
	END LOOP;
	RETURN made;
END
$$;
COMMENT ON FUNCTION holdfast.make_partitions(integer) IS 'internal: make the event partitions of yesterday, today and the next days; how many were made';
