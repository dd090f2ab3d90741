-- What several pgTAP files use: \i test/tools.sql, after test/setup.sql.  All of it is temporary.

-- the frozen clock, a time of day of 2030-01-01
CREATE FUNCTION pg_temp.at(clock text) RETURNS timestamptz LANGUAGE sql AS $$
	SELECT set_config('holdfast.clock', '2030-01-01 ' || clock || '+00', true)::timestamptz
$$;
CREATE FUNCTION pg_temp.at(clock timestamptz) RETURNS timestamptz LANGUAGE sql AS $$
	SELECT set_config('holdfast.clock', to_char(clock AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US"+00"'), true)::timestamptz
$$;
CREATE FUNCTION pg_temp.clock() RETURNS timestamptz LANGUAGE sql AS $$
	SELECT current_setting('holdfast.clock')::timestamptz
$$;

-- the SQLSTATE of a refused statement, or 'accepted'; what an accepted one did stays
CREATE FUNCTION pg_temp.refusal(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END
$$;
CREATE FUNCTION pg_temp.refusal_detail(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail	text;
BEGIN
	EXECUTE statement;
	RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RETURN detail;
END
$$;

-- a row as only other hands can have left it: the guards of its table are off meanwhile
CREATE FUNCTION pg_temp.planted(table_name text, statement text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM holdfast.permit_ddl('a test plants a row');
	EXECUTE format('ALTER TABLE holdfast.%1$I DISABLE TRIGGER guard_before, DISABLE TRIGGER guard_after', table_name);
	EXECUTE statement;
	EXECUTE format('ALTER TABLE holdfast.%1$I ENABLE ALWAYS TRIGGER guard_before, ENABLE ALWAYS TRIGGER guard_after', table_name);
END
$$;

-- holdfast's tables, with the queue's name, and in the collation of a literal
DO $$
DECLARE
	part	record;
BEGIN
	FOR part IN
		SELECT v.name, string_agg(format(CASE WHEN a.attname = 'queue' THEN '(SELECT q.queue_name COLLATE "default" FROM holdfast.queue q WHERE q.queue_id = t.queue) AS queue'
											  WHEN a.atttypid = 'text'::regtype THEN 't.%1$I COLLATE "default" AS %1$I' ELSE 't.%I' END, a.attname),
								  ', ' ORDER BY a.attnum) AS columns, v.source
		FROM (VALUES ('job', 'job', 'holdfast.job'), ('dead_job', 'dead_job', 'holdfast.dead_job'), ('ledger', 'ledger', 'holdfast.ledger'),
					 ('finding', 'finding', 'holdfast.finding'),
					 ('evidence', 'event', '(SELECT * FROM holdfast.event UNION ALL SELECT * FROM holdfast.event_overflow)')) AS v (name, type, source)
		JOIN pg_attribute a ON a.attrelid = format('holdfast.%I', v.type)::regclass AND a.attnum > 0 AND NOT a.attisdropped
		GROUP BY v.name, v.source
	LOOP
		EXECUTE format('CREATE VIEW pg_temp.%I AS SELECT %s FROM %s t', part.name, part.columns, part.source);
	END LOOP;
END
$$;
CREATE FUNCTION pg_temp.stored() RETURNS text LANGUAGE sql AS $$
	SELECT md5(concat(
		(SELECT string_agg(j::text, ';' ORDER BY j.job_id) FROM pg_temp.job j),
		(SELECT string_agg(l::text, ';' ORDER BY l.idempotency_key) FROM pg_temp.ledger l),
		(SELECT string_agg(d::text, ';' ORDER BY d.job_id) FROM pg_temp.dead_job d),
		(SELECT string_agg(e::text, ';' ORDER BY e.event_id) FROM pg_temp.evidence e),
		(SELECT string_agg(f::text, ';' ORDER BY f::text) FROM pg_temp.finding f)))
$$;
COMMENT ON FUNCTION pg_temp.stored() IS 'a digest of everything that a call could change';

-- Scenes: a queue of its own for each, named like the scene, and the one job in it.
CREATE TEMPORARY TABLE scene (
	name			text	PRIMARY KEY,
	job_id			bigint,
	idempotency_key	uuid,
	lease_id		uuid,
	old_lease_id	uuid
);
CREATE FUNCTION pg_temp.claimed(name text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	context	holdfast.execution_context;
BEGIN
	SELECT * INTO context FROM holdfast.claim(claimed.name, 'w');
	IF context.job_id IS NULL THEN
		RETURN 'none';
	END IF;
	INSERT INTO scene VALUES (claimed.name, context.job_id, context.idempotency_key, context.lease_id)
		ON CONFLICT ON CONSTRAINT scene_pkey DO UPDATE SET old_lease_id = scene.lease_id, lease_id = excluded.lease_id;
	RETURN format('attempt %s, %s', context.attempt_number, context.mode);
END
$$;
COMMENT ON FUNCTION pg_temp.claimed(text) IS 'claims from the scene''s queue, remembers the lease, and says what came';
CREATE FUNCTION pg_temp.started(name text, retry_policy text DEFAULT 'default', side_effects boolean DEFAULT true, options jsonb DEFAULT '{}')
RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM holdfast.create_queue(started.name, retry_policy => started.retry_policy, side_effects => started.side_effects);
	PERFORM holdfast.enqueue_batch(started.name, jsonb_build_array('{"action_key": "act"}' || jsonb_build_object('subject', started.name) || started.options));
	RETURN pg_temp.claimed(started.name);
END
$$;
COMMENT ON FUNCTION pg_temp.started(text, text, boolean, jsonb) IS 'makes the scene: queue, job, first claim';
CREATE FUNCTION pg_temp.again(name text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_temp.at(greatest(j.run_after, pg_temp.clock())) FROM holdfast.job j JOIN scene s USING (job_id) WHERE s.name = again.name;
	RETURN pg_temp.claimed(again.name);
END
$$;
COMMENT ON FUNCTION pg_temp.again(text) IS 'sets the clock to when the scene''s job is due, and claims it';
CREATE FUNCTION pg_temp.id(name text) RETURNS bigint LANGUAGE sql AS $$ SELECT s.job_id FROM scene s WHERE s.name = $1 $$;
CREATE FUNCTION pg_temp.lease(name text) RETURNS uuid LANGUAGE sql AS $$ SELECT s.lease_id FROM scene s WHERE s.name = $1 $$;
CREATE FUNCTION pg_temp.old_lease(name text) RETURNS uuid LANGUAGE sql AS $$ SELECT s.old_lease_id FROM scene s WHERE s.name = $1 $$;
CREATE FUNCTION pg_temp.state(name text) RETURNS text LANGUAGE sql AS $$
	SELECT concat_ws(', ',
		coalesce((SELECT format('%s, %s', j.status, j.mode) FROM pg_temp.job j WHERE j.job_id = s.job_id),
				 (SELECT format('dead (%s)', d.reason) FROM pg_temp.dead_job d WHERE d.job_id = s.job_id), 'gone'),
		'ledger ' || coalesce((SELECT l.state FROM pg_temp.ledger l WHERE l.idempotency_key = s.idempotency_key), 'none'))
	FROM scene s WHERE s.name = $1
$$;
COMMENT ON FUNCTION pg_temp.state(text) IS 'where the scene''s job is, and what its ledger row says';
CREATE FUNCTION pg_temp.events(name text) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(replace(e.kind, 'action_', ''), ', ' ORDER BY e.attempt_number, e.at, e.event_id)
	FROM pg_temp.evidence e WHERE e.job_id = pg_temp.id($1)
$$;
