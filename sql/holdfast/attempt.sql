/* Attempts that did not run under holdfast: of watched tables, and imported. */

CREATE SEQUENCE holdfast.record_id_seq AS bigint CACHE 1;
COMMENT ON SEQUENCE holdfast.record_id_seq IS 'numbers of attempt_record, in the order of arrival';
SELECT pg_catalog.pg_extension_config_dump('holdfast.record_id_seq', '');

/*
 * No index is on a column that the end of an attempt changes, so that a
 * watched table's second write of a record stays HOT.  There is room for it
 * on the page even where one statement ends many attempts.
 */
CREATE TABLE holdfast.attempt_record (
	record_id			bigint		NOT NULL DEFAULT pg_catalog.nextval('holdfast.record_id_seq'),
	recorded_at			timestamptz	NOT NULL,
	source				text		COLLATE "C" NOT NULL CHECK (source NOT IN ('', 'native')),
	digest				uuid,
	rank				integer,
	synthetic_lease		boolean		NOT NULL DEFAULT false,
	job_id				text		COLLATE "C" NOT NULL CHECK (job_id <> ''),
	subject				text		COLLATE "C" NOT NULL CHECK (subject <> ''),
	action_key			text		COLLATE "C" NOT NULL CHECK (action_key <> ''),
	started_at			timestamptz	NOT NULL CHECK (isfinite(started_at)),
	attempt_number		integer,
	intent_version		integer,
	lease_id			text		COLLATE "C",
	idempotency_key		text		COLLATE "C",
	correlation_id		text		COLLATE "C",
	scope				text		COLLATE "C",
	worker_name			text		COLLATE "C",
	lease_expires_at	timestamptz	CHECK (isfinite(lease_expires_at)),
	last_report_at		timestamptz	CHECK (isfinite(last_report_at)),
	finished_at			timestamptz	CHECK (isfinite(finished_at)),
	outcome				text		COLLATE "C"
						CHECK (outcome IN ('succeeded', 'failed', 'timeout', 'lost', 'cancelled', 'snoozed', 'released')),
	worker_result		text		COLLATE "C",
	side_effect_state	text		COLLATE "C",
	exception_class		text		COLLATE "C",
	message				text		COLLATE "C",
	timeout_kind		text		COLLATE "C",
	timeout_ms			bigint,
	timeout_limit_ms	bigint,
	elapsed_ms			bigint,
	next_not_before		timestamptz	CHECK (isfinite(next_not_before)),
	retry_policy		text		COLLATE "C",
	delay_ms			bigint,
	max_attempts		integer,
	failures			integer,
	redriven			boolean,
	final				boolean,
	stop_reason			text		COLLATE "C",
	payload_digest		bytea,
	counted_at_claim	boolean,
	CHECK ((digest IS NULL) = (rank IS NULL)),
	PRIMARY KEY (record_id)
) WITH (fillfactor = 45);
COMMENT ON TABLE holdfast.attempt_record IS 'attempts of watched tables, written by their triggers, and imported ones; ids as text';
COMMENT ON COLUMN holdfast.attempt_record.record_id IS 'the order of arrival, which decides where nothing else does';
COMMENT ON COLUMN holdfast.attempt_record.source IS 'a watched table, or the name that an import gave its log';
COMMENT ON COLUMN holdfast.attempt_record.digest IS 'of an imported record: its source and all its fields; null for a watched table';
COMMENT ON COLUMN holdfast.attempt_record.rank IS 'of an imported record: from 1, among equal records of its batch';
COMMENT ON COLUMN holdfast.attempt_record.synthetic_lease IS 'the lease id was made of id, attempt number and start, since the table names none';
COMMENT ON COLUMN holdfast.attempt_record.counted_at_claim IS 'of a watched table: whether its claims count attempts up; false: its failures do, and attempt_number is their count + 1';
COMMENT ON COLUMN holdfast.attempt_record.finished_at IS 'the attempt''s own report; null while it is open, or if nothing reported';
COMMENT ON COLUMN holdfast.attempt_record.last_report_at IS 'the latest sign of life under the lease, if later than the report';
SELECT pg_catalog.pg_extension_config_dump('holdfast.attempt_record', '');

CREATE UNIQUE INDEX attempt_record_digest ON holdfast.attempt_record (digest, rank) WHERE digest IS NOT NULL;
CREATE INDEX attempt_record_subject ON holdfast.attempt_record (subject, action_key, started_at);
CREATE INDEX attempt_record_job ON holdfast.attempt_record (job_id, source, started_at);
CREATE INDEX attempt_record_key ON holdfast.attempt_record (idempotency_key, started_at) WHERE idempotency_key IS NOT NULL;
CREATE INDEX attempt_record_correlation ON holdfast.attempt_record (correlation_id) WHERE correlation_id IS NOT NULL;
CREATE INDEX attempt_record_started ON holdfast.attempt_record USING brin (started_at);

CREATE FUNCTION holdfast.attempt_retention() RETURNS interval
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT coalesce((SELECT s.value::bigint * interval '1 ms' FROM holdfast.setting s WHERE s.name = 'attempt_retention'),
					interval '400 days')
$$;
COMMENT ON FUNCTION holdfast.attempt_retention() IS 'how long attempts of watched tables and imported ones are kept, from when they were recorded; for the owner';

CREATE FUNCTION holdfast.set_attempt_retention(retention interval) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	INSERT INTO holdfast.setting
		VALUES ('attempt_retention', holdfast.interval_ms(set_attempt_retention.retention, 'retention', 86400000, 315360000000)::text)
		ON CONFLICT (name) DO UPDATE SET value = excluded.value;
END
$$;
COMMENT ON FUNCTION holdfast.set_attempt_retention(interval) IS
	'how long attempts of watched tables and imported ones are kept, from when they were recorded: 1 to 3650 days; for the owner';

-- Oldest first, by the primary key: records are recorded in the order of their ids.
CREATE FUNCTION holdfast.purge_attempts(max integer DEFAULT 10000) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	before	timestamptz := holdfast.clock() - holdfast.attempt_retention();
	n		bigint;
BEGIN
	DELETE FROM holdfast.attempt_record r
	USING (SELECT o.record_id, o.recorded_at FROM holdfast.attempt_record o ORDER BY o.record_id LIMIT purge_attempts.max) old
	WHERE r.record_id = old.record_id AND old.recorded_at < before;
	GET DIAGNOSTICS n = ROW_COUNT;
	RETURN n;
END
$$;
COMMENT ON FUNCTION holdfast.purge_attempts(integer) IS 'internal: delete the oldest attempt records past retention; how many';
