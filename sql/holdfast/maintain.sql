/* Upkeep: partitions, retention, what nobody claimed. */

CREATE TABLE holdfast.upkeep (
	name				text		COLLATE "C" NOT NULL PRIMARY KEY,
	position			bigint,
	at					timestamptz
);
COMMENT ON TABLE holdfast.upkeep IS 'how far maintain() has come: fold (at), ledger (block), kept_by_job (job_id)';
SELECT pg_catalog.pg_extension_config_dump('holdfast.upkeep', '');

CREATE VIEW holdfast.event_partition AS
	SELECT c.oid AS relid, c.relname::text COLLATE "C" AS partition_name,
		   to_date(substr(c.relname, 7), 'YYYYMMDD') AS day
	FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
	WHERE i.inhparent = 'holdfast.event'::pg_catalog.regclass
	  AND c.relname ~ '^event_[0-9]{8}$';
COMMENT ON VIEW holdfast.event_partition IS 'the days of events that are kept';

/*
 * The one place that makes an event partition, of a day in UTC.  The parent
 * has no index that it would inherit: after a restore the indexes would
 * collide.  Where it lies is not for the caller of maintain() to choose.
 */
CREATE FUNCTION holdfast.make_partition(day date) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET default_tablespace = '' SET default_table_access_method = heap AS $$
DECLARE
	part	text := to_char(day, '"event_"YYYYMMDD');
	owner	text := (SELECT c.relowner::regrole::text FROM pg_class c WHERE c.oid = 'holdfast.event'::regclass);
	grantee	text;
BEGIN
	IF to_regclass('holdfast.' || part) IS NOT NULL THEN
		RETURN false;
	END IF;
	EXECUTE format('CREATE TABLE holdfast.%I (LIKE holdfast.event)', part);
	-- A job has few events on a page: looking for duplicates before each split would cost more than it saves.
	EXECUTE format('CREATE INDEX %I ON holdfast.%I (job_id) WITH (deduplicate_items = off)', part || '_job', part);
	EXECUTE format('CREATE INDEX %I ON holdfast.%I (subject, action_key)
		WHERE attempt_number = 0 OR (attempt_number = 1 AND kind = ''action_attempt_started'')', part || '_subject', part);
	EXECUTE format('CREATE TRIGGER guard_statement BEFORE INSERT OR TRUNCATE ON holdfast.%I
		FOR EACH STATEMENT EXECUTE FUNCTION holdfast.guard(''evidence'')', part);	-- the row triggers come with ATTACH
	EXECUTE format('ALTER TABLE holdfast.%I ENABLE ALWAYS TRIGGER guard_statement', part);
	EXECUTE format('ALTER TABLE holdfast.%I OWNER TO %s', part, owner);
	FOR grantee IN
		SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END
		FROM pg_class c, aclexplode(c.relacl) a
		WHERE c.oid = ('holdfast.' || part)::regclass AND a.grantee <> c.relowner
	LOOP
		EXECUTE format('REVOKE ALL ON holdfast.%I FROM %s', part, grantee);	-- given by default privileges
	END LOOP;
	EXECUTE format('ALTER TABLE holdfast.event ATTACH PARTITION holdfast.%I FOR VALUES FROM (%L) TO (%L)', part,
		to_char(day, 'YYYY-MM-DD 00:00:00+00'), to_char(day + 1, 'YYYY-MM-DD 00:00:00+00'));
	RETURN true;
END
$$;
COMMENT ON FUNCTION holdfast.make_partition(date) IS 'internal: make the event partition of a day; false if it is there';

CREATE FUNCTION holdfast.make_partitions() RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	today	date := (holdfast.clock() AT TIME ZONE 'UTC')::date;
	made	integer := 0;
BEGIN
	IF (SELECT count(*) FROM generate_series(-1, 7) n
		WHERE to_regclass(to_char(today + n, '"holdfast.event_"YYYYMMDD')) IS NULL) = 0 THEN
		RETURN 0;
	END IF;
	-- lets writers through, and keeps out another that makes partitions
	LOCK TABLE ONLY holdfast.event IN SHARE UPDATE EXCLUSIVE MODE;
	FOR n IN -1 .. 7 LOOP
		made := made + holdfast.make_partition(today + n)::integer;
	END LOOP;
	RETURN made;
END
$$;
COMMENT ON FUNCTION holdfast.make_partitions() IS 'internal: make the event partitions of yesterday, today and the next week; how many were made';

CREATE FUNCTION holdfast.settle_expired(queue integer, max integer) RETURNS bigint
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'holdfast_settle_expired';
COMMENT ON FUNCTION holdfast.settle_expired(integer, integer)
	IS 'internal: settle leases that have ended, and pending jobs past give_up_at; how many';

CREATE FUNCTION holdfast.next_wakeup(queue_name text) RETURNS integer
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'holdfast_next_wakeup';
COMMENT ON FUNCTION holdfast.next_wakeup(text)
	IS 'how many ms a worker may sleep: 0 now, null nothing scheduled, at most 60,000, at most 1,000 while jobs run; for workers';

-- Events of days that had no partition go to where they belong, unchanged.
CREATE FUNCTION holdfast.move_overflow() RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	d		date;
	moved	bigint := 0;
	n		bigint;
BEGIN
	FOR d IN SELECT DISTINCT (o.at AT TIME ZONE 'UTC')::date FROM holdfast.event_overflow o ORDER BY 1 LIMIT 100 LOOP
		PERFORM holdfast.make_partition(d);
		WITH gone AS (
			DELETE FROM holdfast.event_overflow o
			WHERE o.at >= (d::timestamp AT TIME ZONE 'UTC') AND o.at < ((d + 1)::timestamp AT TIME ZONE 'UTC')
			RETURNING o.*)
		INSERT INTO holdfast.event SELECT * FROM gone;
		GET DIAGNOSTICS n = ROW_COUNT;
		moved := moved + n;
	END LOOP;
	RETURN moved;
END
$$;
COMMENT ON FUNCTION holdfast.move_overflow() IS 'internal: move the events of event_overflow into their days; how many';

CREATE FUNCTION holdfast.oldest_writer() RETURNS timestamptz
LANGUAGE C VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'holdfast_oldest_writer';
COMMENT ON FUNCTION holdfast.oldest_writer() IS
	'internal: when the oldest other transaction began that is open and has written, autovacuum apart; null: none; -infinity: one does not tell';

/*
 * Attempts and outcomes by queue and hour.  An hour is counted once it is over
 * and no transaction is left that was under way in it and could still commit
 * an event of it.
 */
CREATE FUNCTION holdfast.fold_hours() RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	upto	timestamptz := date_trunc('hour', least(holdfast.clock(), holdfast.oldest_writer(),
		(SELECT min(x.prepared) FROM pg_prepared_xacts x WHERE x.database = current_database())), 'UTC');
	since	timestamptz := (SELECT u.at FROM holdfast.upkeep u WHERE u.name = 'fold');
	n		bigint;
BEGIN
	since := coalesce(since, upto - interval '24 hours');
	IF since >= upto THEN
		RETURN 0;
	END IF;
	INSERT INTO holdfast.queue_hour AS q
	SELECT e.queue, date_trunc('hour', e.at, 'UTC'),
		   count(*) FILTER (WHERE e.kind = 'action_attempt_started'),
		   count(*) FILTER (WHERE e.kind = 'action_attempt_succeeded'),
		   count(*) FILTER (WHERE e.kind = 'action_attempt_failed'),
		   count(*) FILTER (WHERE e.kind = 'action_attempt_lost'),
		   count(*) FILTER (WHERE e.kind = 'action_snoozed'),
		   count(*) FILTER (WHERE e.kind = 'action_released'),
		   count(*) FILTER (WHERE e.kind IN ('action_retry_scheduled', 'action_reconcile_scheduled')),
		   count(*) FILTER (WHERE e.kind IN ('action_terminal', 'action_exhausted')),
		   count(*) FILTER (WHERE e.kind IN ('action_cancelled', 'action_purged')),
		   count(*) FILTER (WHERE e.kind = 'action_suppressed')
	FROM (SELECT v.queue, v.at, v.kind FROM holdfast.event v WHERE v.at >= since AND v.at < upto
		  UNION ALL
		  SELECT o.queue, o.at, o.kind FROM holdfast.event_overflow o WHERE o.at >= since AND o.at < upto) e
	WHERE e.queue > 0		-- others are of watched tables
	GROUP BY 1, 2
	ON CONFLICT (queue, hour) DO UPDATE SET started = excluded.started, succeeded = excluded.succeeded,
		failed = excluded.failed, lost = excluded.lost, snoozed = excluded.snoozed, released = excluded.released,
		retried = excluded.retried, dead = excluded.dead, cancelled = excluded.cancelled, suppressed = excluded.suppressed;
	GET DIAGNOSTICS n = ROW_COUNT;
	INSERT INTO holdfast.upkeep VALUES ('fold', NULL, upto) ON CONFLICT (name) DO UPDATE SET at = excluded.at;
	RETURN n;
END
$$;
COMMENT ON FUNCTION holdfast.fold_hours() IS 'internal: count the events of hours that are over into queue_hour; how many rows';

/*
 * Ledger rows past their queue's ledger_retention, a stretch of the table per
 * call, since no index may be on a column that a claim or a settlement
 * changes.  Never unknown or started, and never of a live or dead job.
 */
CREATE FUNCTION holdfast.purge_ledger(blocks bigint DEFAULT 4096) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	total	bigint := pg_relation_size('holdfast.ledger') / current_setting('block_size')::bigint;
	start	bigint := coalesce((SELECT u.position FROM holdfast.upkeep u WHERE u.name = 'ledger'), 0);
	now		timestamptz := holdfast.clock();
	n		bigint;
BEGIN
	IF start >= total THEN
		start := 0;
	END IF;
	DELETE FROM holdfast.ledger l
	WHERE l.ctid >= format('(%s,0)', start)::tid AND l.ctid < format('(%s,0)', least(start + blocks, 4294967295))::tid
	  AND l.state IN ('committed', 'failed_terminal', 'failed_retryable', 'planned')
	  AND l.changed_at < now - coalesce((SELECT q.ledger_retention FROM holdfast.queue q WHERE q.queue_id = l.queue),
										interval '400 days')
	  AND NOT EXISTS (SELECT FROM holdfast.job j WHERE j.job_id = l.job_id)
	  AND NOT EXISTS (SELECT FROM holdfast.dead_job d WHERE d.job_id = l.job_id)
	  AND NOT EXISTS (SELECT FROM holdfast.unknown_effect u WHERE u.job_id = l.job_id);
	GET DIAGNOSTICS n = ROW_COUNT;
	INSERT INTO holdfast.upkeep VALUES ('ledger', start + blocks, now)
		ON CONFLICT (name) DO UPDATE SET position = excluded.position, at = excluded.at;
	RETURN n;
END
$$;
COMMENT ON FUNCTION holdfast.purge_ledger(bigint) IS 'internal: delete ledger rows past retention in the next stretch of the table; how many';

/*
 * Days of events past the longest retention of any queue.  Never waits for a
 * lock, so that it queues neither behind nor in front of writers: what cannot
 * be had at once is for the next time.  A day stays while it holds evidence of
 * a live job or of an unknown effect.
 */
CREATE FUNCTION holdfast.drop_partitions() RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	oldest	date := ((holdfast.clock() - (SELECT max(q.retention) FROM holdfast.queue q)) AT TIME ZONE 'UTC')::date;
	p		record;
	keeper	bigint;
	dropped	bigint := 0;
BEGIN
	DELETE FROM holdfast.upkeep u WHERE u.name = 'kept_by_job';
	FOR p IN SELECT * FROM holdfast.event_partition v WHERE v.day < oldest ORDER BY v.day LOOP
		EXECUTE format('SELECT e.job_id FROM holdfast.%1$I e JOIN holdfast.unknown_effect u USING (job_id)
			UNION ALL SELECT e.job_id FROM holdfast.%1$I e JOIN holdfast.job j USING (job_id) LIMIT 1', p.partition_name)
			INTO keeper;
		IF keeper IS NOT NULL THEN
			INSERT INTO holdfast.upkeep VALUES ('kept_by_job', keeper, holdfast.clock()) ON CONFLICT (name) DO NOTHING;
			CONTINUE;
		END IF;
		BEGIN
			LOCK TABLE ONLY holdfast.event IN ACCESS EXCLUSIVE MODE NOWAIT;
			EXECUTE format('LOCK TABLE holdfast.%I IN ACCESS EXCLUSIVE MODE NOWAIT', p.partition_name);
			EXECUTE format('DROP TABLE holdfast.%I', p.partition_name);
			dropped := dropped + 1;
		EXCEPTION WHEN lock_not_available THEN
			EXIT;
		END;
	END LOOP;
	DELETE FROM holdfast.finding f WHERE f.at < (oldest::timestamp AT TIME ZONE 'UTC') AND f.kind <> 'queue_dropped';
	DELETE FROM holdfast.queue_hour h WHERE h.hour < (oldest::timestamp AT TIME ZONE 'UTC');
	RETURN dropped;
END
$$;
COMMENT ON FUNCTION holdfast.drop_partitions() IS 'internal: drop days of events past retention, without waiting for a lock; how many';

CREATE TYPE holdfast.maintain_result AS (
	task				text,
	done				bigint
);
COMMENT ON TYPE holdfast.maintain_result IS 'a task of maintain(), and how many things it did';

CREATE FUNCTION holdfast.do_maintain() RETURNS SETOF holdfast.maintain_result
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RETURN NEXT ('leases and deadlines settled', coalesce((
		SELECT sum(holdfast.settle_expired(q.queue_id, 1000)) FROM holdfast.queue q), 0))::holdfast.maintain_result;
	RETURN NEXT ('stream jobs parked or freed', holdfast.settle_all_streams())::holdfast.maintain_result;
	RETURN NEXT ('jobs recovered', holdfast.recover_all())::holdfast.maintain_result;
	-- one at a time from here on; another that is at it does it for both
	IF NOT holdfast.be_alone('upkeep', 0, false) THEN
		RETURN;
	END IF;
	RETURN NEXT ('hours counted', holdfast.fold_hours())::holdfast.maintain_result;
	RETURN NEXT ('ledger rows purged', holdfast.purge_ledger())::holdfast.maintain_result;
	RETURN NEXT ('partitions made', holdfast.make_partitions())::holdfast.maintain_result;
	RETURN NEXT ('overflow events moved', holdfast.move_overflow())::holdfast.maintain_result;
	RETURN NEXT ('partitions dropped', holdfast.drop_partitions())::holdfast.maintain_result;
	RETURN NEXT ('attempt records purged', holdfast.purge_attempts())::holdfast.maintain_result;
END
$$;
COMMENT ON FUNCTION holdfast.do_maintain() IS 'internal: the body of maintain(), which guards let pass only when called by it';

/*
 * With the owner's rights whoever calls it: so upkeep can be left to a role
 * that is given EXECUTE and nothing else, and a superuser's call does not run
 * what others have put on a table as the superuser.
 */
CREATE FUNCTION holdfast.maintain() RETURNS SETOF holdfast.maintain_result
LANGUAGE C VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'holdfast_own';
COMMENT ON FUNCTION holdfast.maintain()
	IS 'upkeep: safe to call at any time, any number at once, from the background worker, pg_cron, a timer or by hand; what '
	'was done; for the owner, and roles given EXECUTE on it and USAGE on the schema';
