/* Queues and who may use them. */

CREATE SEQUENCE holdfast.queue_id_seq AS integer CACHE 1;
COMMENT ON SEQUENCE holdfast.queue_id_seq IS 'numbers of queues, never used again';
SELECT pg_catalog.pg_extension_config_dump('holdfast.queue_id_seq', '');

CREATE TABLE holdfast.queue (
	queue_id			integer		NOT NULL PRIMARY KEY DEFAULT pg_catalog.nextval('holdfast.queue_id_seq'),
	queue_name			text		COLLATE "C" NOT NULL UNIQUE CHECK (queue_name <> ''),
	lease				interval	NOT NULL,
	timeout				interval	NOT NULL,
	grace				interval	NOT NULL,
	heartbeat			interval,
	retry_policy		text		COLLATE "C" NOT NULL,
	max_attempts		integer		CHECK (max_attempts > 0),
	side_effects		boolean		NOT NULL,
	reconcile			text		COLLATE "C" NOT NULL CHECK (reconcile IN ('any', 'separate')),
	retention			interval	NOT NULL,
	ledger_retention	interval	NOT NULL,
	auto_recover		boolean		NOT NULL,
	paused				boolean		NOT NULL DEFAULT false,
	pause_reason		text		COLLATE "C",
	created_at			timestamptz	NOT NULL
);
COMMENT ON TABLE holdfast.queue IS 'a named lane with its defaults';
SELECT pg_catalog.pg_extension_config_dump('holdfast.queue', '');

CREATE TABLE holdfast.queue_grant (
	queue_name			text		COLLATE "C" NOT NULL,
	role_name			text		COLLATE "C" NOT NULL,
	kind				text		COLLATE "C" NOT NULL CHECK (kind IN ('producer', 'worker', 'operator', 'reader')),
	role_oid			oid			NOT NULL,
	PRIMARY KEY (queue_name, role_name, kind)
);
COMMENT ON TABLE holdfast.queue_grant IS 'who may do what with a queue; a row holds only while role_name and role_oid are one role';
SELECT pg_catalog.pg_extension_config_dump('holdfast.queue_grant', '');

CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON holdfast.queue
	FOR EACH STATEMENT EXECUTE FUNCTION holdfast.config_changed();
ALTER TABLE holdfast.queue ENABLE ALWAYS TRIGGER config_changed;
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON holdfast.queue_grant
	FOR EACH STATEMENT EXECUTE FUNCTION holdfast.config_changed();
ALTER TABLE holdfast.queue_grant ENABLE ALWAYS TRIGGER config_changed;

/*
 * Queue settings are rows; every backend's copy is dropped when they change.
 *
 * Lock order of the functions below and in access.sql: queue_grant, the row in
 * queue, job.  What needs a queue to stay takes its row FOR KEY SHARE, which
 * only drop_queue waits for.
 */

CREATE FUNCTION holdfast.known_queue(queue_name text) RETURNS integer
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	id	integer;
BEGIN
	IF known_queue.queue_name IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = '22004', MESSAGE = 'argument "queue_name" must not be null';
	END IF;
	SELECT q.queue_id INTO id FROM holdfast.queue q WHERE q.queue_name = known_queue.queue_name FOR KEY SHARE;
	IF id IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = '42704',
			MESSAGE = pg_catalog.format('queue "%s" does not exist', known_queue.queue_name),
			HINT = 'Create it with holdfast.create_queue(), or see holdfast.list_queues().';
	END IF;
	RETURN id;
END
$$;
COMMENT ON FUNCTION holdfast.known_queue(text) IS
	'internal: number of a queue (42704 if there is none), which cannot be dropped before this transaction ends';

-- The settings of a queue as they would be stored.  G8 is decided here, for create_queue and alter_queue alike.
CREATE FUNCTION holdfast.check_queue(q holdfast.queue) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	one_day			CONSTANT bigint := 86400000;
	ten_years		CONSTANT bigint := 315360000000;	-- of 365 days
	lease_ms		CONSTANT bigint := holdfast.interval_ms(q.lease, 'lease', 1, one_day);
	timeout_ms		CONSTANT bigint := holdfast.interval_ms(q.timeout, 'timeout', 1, one_day);
	grace_ms		CONSTANT bigint := holdfast.interval_ms(q.grace, 'grace', 0, one_day);
	heartbeat_ms	CONSTANT bigint := CASE WHEN q.heartbeat IS NOT NULL
											THEN holdfast.interval_ms(q.heartbeat, 'heartbeat', 1, one_day) END;
	retention_ms	CONSTANT bigint := holdfast.interval_ms(q.retention, 'retention', one_day, ten_years);
	ledger_ms		CONSTANT bigint := holdfast.interval_ms(q.ledger_retention, 'ledger_retention', one_day, ten_years);
	absent			text;
BEGIN
	absent := CASE WHEN q.retry_policy IS NULL THEN 'retry_policy' WHEN q.side_effects IS NULL THEN 'side_effects'
				   WHEN q.reconcile IS NULL THEN 'reconcile' WHEN q.auto_recover IS NULL THEN 'auto_recover' END;
	IF absent IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = '22004',
			MESSAGE = pg_catalog.format('argument "%s" must not be null', absent);
	END IF;

	IF lease_ms < timeout_ms + grace_ms AND (heartbeat_ms IS NULL OR lease_ms < 3 * heartbeat_ms) THEN
		RAISE EXCEPTION USING ERRCODE = 'JQ005',
			MESSAGE = CASE WHEN heartbeat_ms IS NULL
				THEN pg_catalog.format('lease of %s ms is shorter than timeout and grace of queue "%s"', lease_ms, q.queue_name)
				ELSE pg_catalog.format('lease of %s ms is shorter than timeout and grace, and than three heartbeats, of queue "%s"',
									   lease_ms, q.queue_name) END,
			DETAIL = pg_catalog.format('The timeout is %s ms and the grace %s ms, together %s ms; %s.',
				timeout_ms, grace_ms, timeout_ms + grace_ms,
				CASE WHEN heartbeat_ms IS NULL THEN 'no heartbeat is declared'
					 ELSE pg_catalog.format('the heartbeat is %s ms, three of them %s ms', heartbeat_ms, 3 * heartbeat_ms) END),
			HINT = CASE
				WHEN timeout_ms + grace_ms <= one_day AND lease_ms >= 3
					THEN pg_catalog.format('Set the lease to at least %s ms, lower the timeout, or declare a heartbeat of at most %s ms.',
										   timeout_ms + grace_ms, lease_ms / 3)
				WHEN timeout_ms + grace_ms <= one_day
					THEN pg_catalog.format('Set the lease to at least %s ms, or lower the timeout.', timeout_ms + grace_ms)
				WHEN lease_ms >= 3
					THEN pg_catalog.format('Lower the timeout, or declare a heartbeat of at most %s ms.', lease_ms / 3)
				ELSE 'Lower the timeout, or declare a heartbeat and a lease of at least three of them.' END;
	END IF;

	IF q.max_attempts < 1 THEN
		RAISE EXCEPTION USING ERRCODE = '22023',
			MESSAGE = 'argument "max_attempts" must be between 1 and 2147483647',
			DETAIL = pg_catalog.format('The value given is %s.', q.max_attempts),
			HINT = 'Leave it null to take the number from the retry policy.';
	END IF;

	IF q.reconcile NOT IN ('any', 'separate') THEN
		RAISE EXCEPTION USING ERRCODE = '22023',
			MESSAGE = pg_catalog.format('argument "reconcile" does not know "%s"', q.reconcile),
			HINT = 'It is one of "any", "separate".';
	END IF;

	IF ledger_ms < retention_ms THEN
		RAISE EXCEPTION USING ERRCODE = '22023',
			MESSAGE = 'argument "ledger_retention" must not be shorter than "retention"',
			DETAIL = pg_catalog.format('The ledger would be kept for %s ms, the events for %s ms.', ledger_ms, retention_ms),
			HINT = pg_catalog.format('Set ledger_retention to at least %s.', q.retention);
	END IF;

	IF q.retry_policy <> 'default' THEN
		PERFORM FROM holdfast.retry_policy p WHERE p.policy_name = q.retry_policy FOR KEY SHARE;
		IF NOT FOUND THEN
			RAISE EXCEPTION USING ERRCODE = '42704',
				MESSAGE = pg_catalog.format('retry policy "%s" does not exist', q.retry_policy),
				HINT = 'Define it with holdfast.define_retry_policy(), or use "default", which always exists.';
		END IF;
	END IF;
END
$$;
COMMENT ON FUNCTION holdfast.check_queue(holdfast.queue) IS
	'internal: refuses settings out of bounds (22004, 22023), a retry policy that does not exist (42704), and a lease that '
	'an attempt could outlive unnoticed (JQ005)';

CREATE FUNCTION holdfast.create_queue(
	queue_name			text,
	lease				interval	DEFAULT '90 seconds',
	timeout				interval	DEFAULT '60 seconds',
	grace				interval	DEFAULT '15 seconds',
	heartbeat			interval	DEFAULT NULL,
	retry_policy		text		DEFAULT 'default',
	max_attempts		integer		DEFAULT NULL,
	side_effects		boolean		DEFAULT true,
	reconcile			text		DEFAULT 'any',
	retention			interval	DEFAULT '90 days',
	ledger_retention	interval	DEFAULT '400 days',
	auto_recover		boolean		DEFAULT false
) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	q	holdfast.queue;
BEGIN
	q.queue_name := holdfast.checked_name(create_queue.queue_name, 'queue_name');
	q.lease := create_queue.lease;
	q.timeout := create_queue.timeout;
	q.grace := create_queue.grace;
	q.heartbeat := create_queue.heartbeat;
	q.retry_policy := create_queue.retry_policy;
	q.max_attempts := create_queue.max_attempts;
	q.side_effects := create_queue.side_effects;
	q.reconcile := create_queue.reconcile;
	q.retention := create_queue.retention;
	q.ledger_retention := create_queue.ledger_retention;
	q.auto_recover := create_queue.auto_recover;
	PERFORM holdfast.check_queue(q);

	-- Waits for another transaction that is creating the same name.
	INSERT INTO holdfast.queue (queue_name, lease, timeout, grace, heartbeat, retry_policy, max_attempts,
			side_effects, reconcile, retention, ledger_retention, auto_recover, created_at)
		VALUES (q.queue_name, q.lease, q.timeout, q.grace, q.heartbeat, q.retry_policy, q.max_attempts,
			q.side_effects, q.reconcile, q.retention, q.ledger_retention, q.auto_recover, holdfast.clock())
		ON CONFLICT (queue_name) DO NOTHING;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = '42710',
			MESSAGE = pg_catalog.format('queue "%s" already exists', q.queue_name),
			HINT = 'Change it with holdfast.alter_queue(), or choose another name.';
	END IF;

	PERFORM holdfast.make_partitions();
END
$$;
COMMENT ON FUNCTION holdfast.create_queue(text, interval, interval, interval, interval, text, integer, boolean, text, interval, interval, boolean) IS
	'creates a queue: lease is the time a worker has without a word, timeout what one attempt may take, grace what it may '
	'need to stop and report, heartbeat how often a worker promises to renew its lease (null: never); lease >= timeout + '
	'grace, or lease >= 3 * heartbeat, else JQ005; lease, timeout, grace and heartbeat are at most a day, retention and '
	'ledger_retention 1 to 3650 days (22023), none with months or years; max_attempts null: the policy''s; reconcile '
	'"separate": claims of all modes leave reconcile jobs to claims of mode reconcile; 42710 if the name is taken, 42704 '
	'if the policy does not exist; called by the extension''s owner';

CREATE FUNCTION holdfast.alter_queue(
	queue_name			text,
	lease				interval	DEFAULT NULL,
	timeout				interval	DEFAULT NULL,
	grace				interval	DEFAULT NULL,
	heartbeat			interval	DEFAULT NULL,
	retry_policy		text		DEFAULT NULL,
	max_attempts		integer		DEFAULT NULL,
	side_effects		boolean		DEFAULT NULL,
	reconcile			text		DEFAULT NULL,
	retention			interval	DEFAULT NULL,
	ledger_retention	interval	DEFAULT NULL,
	auto_recover		boolean		DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	id	CONSTANT integer := holdfast.known_queue(alter_queue.queue_name);
	q	holdfast.queue;
BEGIN
	SELECT * INTO STRICT q FROM holdfast.queue o WHERE o.queue_id = id FOR NO KEY UPDATE;
	q.lease := coalesce(alter_queue.lease, q.lease);
	q.timeout := coalesce(alter_queue.timeout, q.timeout);
	q.grace := coalesce(alter_queue.grace, q.grace);
	IF alter_queue.heartbeat = '0' THEN		-- as '1 mon -30 days' is, too
		PERFORM holdfast.interval_ms(alter_queue.heartbeat, 'heartbeat', 0, 0);
	END IF;
	q.heartbeat := nullif(coalesce(alter_queue.heartbeat, q.heartbeat), '0');
	q.retry_policy := coalesce(alter_queue.retry_policy, q.retry_policy);
	q.max_attempts := nullif(coalesce(alter_queue.max_attempts, q.max_attempts), 0);
	q.side_effects := coalesce(alter_queue.side_effects, q.side_effects);
	q.reconcile := coalesce(alter_queue.reconcile, q.reconcile);
	q.retention := coalesce(alter_queue.retention, q.retention);
	q.ledger_retention := coalesce(alter_queue.ledger_retention, q.ledger_retention);
	q.auto_recover := coalesce(alter_queue.auto_recover, q.auto_recover);
	PERFORM holdfast.check_queue(q);

	UPDATE holdfast.queue o
		SET lease = q.lease, timeout = q.timeout, grace = q.grace, heartbeat = q.heartbeat,
			retry_policy = q.retry_policy, max_attempts = q.max_attempts, side_effects = q.side_effects,
			reconcile = q.reconcile, retention = q.retention, ledger_retention = q.ledger_retention,
			auto_recover = q.auto_recover
		WHERE o.queue_id = id;
END
$$;
COMMENT ON FUNCTION holdfast.alter_queue(text, interval, interval, interval, interval, text, integer, boolean, text, interval, interval, boolean) IS
	'changes settings of a queue: null leaves one as it is, 0 clears heartbeat and max_attempts; bounds and errors as in '
	'create_queue, for the settings as they will stand together; leases already granted keep their end, and jobs keep the '
	'side_effects they were enqueued with; called by the extension''s owner';

CREATE FUNCTION holdfast.check_queue_empty(q holdfast.queue, force boolean) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	enough	CONSTANT integer := 1000;	-- rows counted at most, so that a refusal is quick
	live	bigint;
	dead	bigint;
	doubts	bigint;
BEGIN
	SELECT pg_catalog.count(*) INTO live
		FROM (SELECT FROM holdfast.job j WHERE j.queue = q.queue_id LIMIT enough) AS counted;
	SELECT pg_catalog.count(*) INTO dead
		FROM (SELECT FROM holdfast.dead_job d WHERE d.queue = q.queue_id LIMIT enough) AS counted;
	SELECT pg_catalog.count(*) INTO doubts
		FROM (SELECT FROM holdfast.unknown_effect u WHERE u.queue = q.queue_id LIMIT enough) AS counted;

	IF live > 0 OR doubts > 0 OR (dead > 0 AND NOT force) THEN
		RAISE EXCEPTION USING ERRCODE = '55006',
			MESSAGE = CASE WHEN doubts > 0 AND force
				THEN pg_catalog.format('queue "%s" has side effects whose outcome is unknown', q.queue_name)
				ELSE pg_catalog.format('queue "%s" is not empty', q.queue_name) END,
			DETAIL = pg_catalog.format('Live jobs: %s%s; dead jobs: %s%s; unknown side effects: %s%s.',
				CASE WHEN live = enough THEN 'at least ' END, live,
				CASE WHEN dead = enough THEN 'at least ' END, dead,
				CASE WHEN doubts = enough THEN 'at least ' END, doubts),
			HINT = CASE WHEN doubts > 0
				THEN 'Settle each unknown effect with holdfast.settle_unknown(); force does not pass over them, '
					 'those of purged running jobs included.'
				ELSE 'Let its jobs end, or call holdfast.drop_queue() with force => true: live jobs are then purged, '
					 'on record, and dead jobs stay in holdfast.dead_job.' END;
	END IF;
END
$$;
COMMENT ON FUNCTION holdfast.check_queue_empty(holdfast.queue, boolean) IS
	'internal: refuses (55006) to drop a queue with live jobs, unknown effects or, without force, dead jobs';

/*
 * enqueue takes no lock on a queue's row, so what keeps a job from landing in
 * a queue that is just going is the lock on job, and that enqueue looks the
 * queue up after its own lock on job.  All writers of all queues wait for that
 * lock, so it is given up quickly; a snapshot older than the lock would not
 * see the jobs that were committed while it was waited for.
 */
CREATE FUNCTION holdfast.do_drop_queue(queue_name text, force boolean) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
AS $$
DECLARE
	q		holdfast.queue;
	lost	record;
BEGIN
	IF do_drop_queue.force IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = '22004', MESSAGE = 'argument "force" must not be null';
	END IF;
	IF pg_catalog.current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
		RAISE EXCEPTION USING ERRCODE = '25001',
			MESSAGE = 'drop_queue needs isolation level READ COMMITTED',
			DETAIL = pg_catalog.format('This transaction is %s and cannot see a job that is committed meanwhile.',
									   pg_catalog.upper(pg_catalog.current_setting('transaction_isolation'))),
			HINT = 'Call it in a transaction begun with ISOLATION LEVEL READ COMMITTED.';
	END IF;
	SELECT * INTO q FROM holdfast.queue o WHERE o.queue_name = do_drop_queue.queue_name;
	IF NOT FOUND THEN
		PERFORM holdfast.known_queue(do_drop_queue.queue_name);
	ELSIF NOT do_drop_queue.force THEN
		PERFORM holdfast.check_queue_empty(q, false);	-- the usual refusal, without a lock
	END IF;

	BEGIN
		LOCK TABLE holdfast.queue_grant IN SHARE ROW EXCLUSIVE MODE;
		SELECT * INTO q FROM holdfast.queue o WHERE o.queue_name = do_drop_queue.queue_name FOR UPDATE;
		LOCK TABLE holdfast.job IN SHARE ROW EXCLUSIVE MODE;
	EXCEPTION WHEN lock_not_available THEN
		RAISE EXCEPTION USING ERRCODE = '55P03',
			MESSAGE = pg_catalog.format('could not lock queue "%s"', do_drop_queue.queue_name),
			DETAIL = 'Another transaction that enqueues, settles or configures has been open for more than 5 s.',
			HINT = 'Try again when it has ended; pg_stat_activity shows long transactions.';
	END;
	IF q.queue_id IS NULL THEN		-- dropped while we waited
		PERFORM holdfast.known_queue(do_drop_queue.queue_name);
	END IF;

	IF do_drop_queue.force THEN
		PERFORM holdfast.purge_queue(q.queue_name, include_running => true);
	END IF;
	PERFORM holdfast.check_queue_empty(q, do_drop_queue.force);

	-- Events, dead jobs and figures carry the queue's number, which is never used again: this row keeps its name.
	INSERT INTO holdfast.finding (at, queue, kind, detail)
		VALUES (holdfast.clock(), q.queue_id, 'queue_dropped',
			pg_catalog.jsonb_build_object('queue_name', q.queue_name, 'by', current_user, 'settings', pg_catalog.to_jsonb(q)));

	DELETE FROM holdfast.stream s WHERE s.queue = q.queue_id;
	DELETE FROM holdfast.claim_front f WHERE f.queue = q.queue_id;
	DELETE FROM holdfast.queue o WHERE o.queue_id = q.queue_id;
	-- A queue of the same name made later must not find old grants waiting for it.
	FOR lost IN
		DELETE FROM holdfast.queue_grant g WHERE g.queue_name = q.queue_name RETURNING g.role_name, g.role_oid
	LOOP
		PERFORM holdfast.sync_role(lost.role_name, lost.role_oid);
	END LOOP;
END
$$;
COMMENT ON FUNCTION holdfast.do_drop_queue(text, boolean) IS
	'internal: the body of drop_queue(), which guards let pass only when called by it';

CREATE FUNCTION holdfast.drop_queue(queue_name text, force boolean DEFAULT false) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'holdfast_own';
COMMENT ON FUNCTION holdfast.drop_queue(text, boolean) IS
	'drops a queue, its streams and its grants; refused (55006, with counts) while it has live jobs, dead jobs or unknown '
	'side effects; force purges live jobs, running ones included, leaving their events, and leaves dead jobs in dead_job, '
	'from where they can be read but no longer redriven; unknown side effects block even then, until settle_unknown; '
	'events, findings, figures and the ledger stay, and a finding "queue_dropped" keeps name and settings; enqueue, claim '
	'and settlement in all queues wait until the transaction ends, so commit at once; 55P03 if a writer is in the way for '
	'5 s, 25001 above READ COMMITTED; called by the extension''s owner';

CREATE FUNCTION holdfast.pause_queue(queue_name text, reason text DEFAULT NULL) RETURNS void
LANGUAGE C AS 'MODULE_PATHNAME', 'holdfast_pause_queue';
COMMENT ON FUNCTION holdfast.pause_queue(text, text) IS
	'claims find nothing in the queue until resume_queue; enqueue and running attempts go on; called by its operators';

CREATE FUNCTION holdfast.resume_queue(queue_name text, reason text DEFAULT NULL) RETURNS void
LANGUAGE C AS 'MODULE_PATHNAME', 'holdfast_resume_queue';
COMMENT ON FUNCTION holdfast.resume_queue(text, text) IS
	'ends a pause; called by the queue''s operators';

CREATE FUNCTION holdfast.list_queues() RETURNS TABLE (
	queue_name			text,
	lease				interval,
	timeout				interval,
	grace				interval,
	heartbeat			interval,
	retry_policy		text,
	max_attempts		integer,
	side_effects		boolean,
	reconcile			text,
	retention			interval,
	ledger_retention	interval,
	auto_recover		boolean,
	paused				boolean,
	pause_reason		text,
	created_at			timestamptz
)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT q.queue_name, q.lease, q.timeout, q.grace, q.heartbeat, q.retry_policy, q.max_attempts, q.side_effects,
		   q.reconcile, q.retention, q.ledger_retention, q.auto_recover, q.paused, q.pause_reason, q.created_at
	FROM holdfast.queue q
	ORDER BY q.queue_name
$$;
COMMENT ON FUNCTION holdfast.list_queues() IS
	'the queues and their settings, by name; heartbeat null: none promised, max_attempts null: the policy''s; called by '
	'the extension''s owner';

CREATE VIEW holdfast.grants AS
	SELECT g.queue_name, g.role_name, g.kind,
		   EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid = g.role_oid AND r.rolname = g.role_name) AS valid
	FROM holdfast.queue_grant g;
COMMENT ON VIEW holdfast.grants IS 'who may do what with which queue';
COMMENT ON COLUMN holdfast.grants.valid IS
	'false: the role was dropped, renamed or made anew since, or this is another cluster; the grant gives nothing until '
	'regrant()';

CREATE FUNCTION holdfast.check_granted(queue_name text, kind text) RETURNS void
LANGUAGE C STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'holdfast_check_granted';
COMMENT ON FUNCTION holdfast.check_granted(text, text) IS 'internal: 42501 unless the effective role may act on the queue as kind';

CREATE FUNCTION holdfast.is_granted(queue integer, kind text) RETURNS boolean
LANGUAGE C STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'holdfast_is_granted';
COMMENT ON FUNCTION holdfast.is_granted(integer, text) IS 'whether the effective role may act on the queue as kind';
