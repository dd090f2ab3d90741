/* Live jobs, and jobs that ended in failure. */

CREATE SEQUENCE holdfast.job_id_seq AS bigint CACHE 1;
COMMENT ON SEQUENCE holdfast.job_id_seq IS 'job ids, drawn in the order of insertion';
SELECT pg_catalog.pg_extension_config_dump('holdfast.job_id_seq', '');

/*
 * Column order is deliberate.  What indexes name comes first and, but for
 * mode, has a fixed width, since every update compares it in both versions.
 * A claim writes the middle section only, so that the WAL record of a HOT
 * update, which leaves out the common prefix and suffix of the two versions,
 * stays small.  fillfactor
 * leaves room on a page for a claimed version of each of its jobs: a batch of
 * claims changes them all before any old version can be pruned.
 */
CREATE TABLE holdfast.job (
	job_id				bigint		NOT NULL,
	enqueued_at			timestamptz	NOT NULL,
	idempotency_key		uuid		NOT NULL,
	queue				integer		NOT NULL,
	priority			integer		NOT NULL CHECK (priority BETWEEN -100 AND 100),
	run_after			timestamptz	NOT NULL CHECK (isfinite(run_after)),
	side_effects		boolean		NOT NULL,
	intent_version		integer		NOT NULL,
	mode				text		COLLATE "C" NOT NULL CHECK (mode IN ('execute', 'reconcile')),
	timeout_ms			bigint		CHECK (timeout_ms > 0),
	max_attempts		integer		CHECK (max_attempts > 0),
	action_key			text		COLLATE "C" NOT NULL CHECK (action_key <> ''),
	subject				text		COLLATE "C" NOT NULL CHECK (subject <> ''),
	scope				text		COLLATE "C",
	correlation_id		text		COLLATE "C" NOT NULL,
	stream				text		COLLATE "C",
	retry_policy		text		COLLATE "C",
	enqueued_by			text		COLLATE "C" NOT NULL,
	ledger_place		tid,
	give_up_at			timestamptz	CHECK (isfinite(give_up_at)),
	status				text		COLLATE "C" NOT NULL CHECK (status IN ('pending', 'running')),
	attempt_number		integer		NOT NULL CHECK (attempt_number >= 0),
	failures			integer		NOT NULL CHECK (failures >= 0),
	reconciles			integer		NOT NULL CHECK (reconciles >= 0),
	losses				integer		NOT NULL CHECK (losses >= 0),
	resumes				integer		NOT NULL CHECK (resumes >= 0),
	fencing_token		bigint		NOT NULL,
	lease_id			uuid,
	lease_expires_at	timestamptz	CHECK (isfinite(lease_expires_at)),
	started_at			timestamptz,
	last_heartbeat_at	timestamptz,
	last_event_at		timestamptz,
	cancel_requested_at	timestamptz,
	parked_from			timestamptz,
	worker_name			text		COLLATE "C",
	final_reason		text		COLLATE "C",
	last_error_class	text		COLLATE "C",
	last_error_message	text		COLLATE "C",
	payload_digest		bytea		NOT NULL,
	headers				jsonb,
	payload				jsonb		NOT NULL,
	CHECK ((status = 'running') = (lease_id IS NOT NULL)),
	CHECK ((status = 'running') = (lease_expires_at IS NOT NULL)),
	CHECK ((status = 'running') = (started_at IS NOT NULL)),
	CHECK (status = 'pending' OR attempt_number > 0),
	CHECK (mode = 'execute' OR side_effects),
	PRIMARY KEY (job_id)
) WITH (fillfactor = 45, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.1);
COMMENT ON TABLE holdfast.job IS 'live jobs only: a success deletes its row, a failure that ends moves it to dead_job';
COMMENT ON COLUMN holdfast.job.failures IS 'attempts charged to the budget since the last redrive: the n of the backoff formula';
COMMENT ON COLUMN holdfast.job.attempt_number IS 'claims so far, from 1; never goes back';
COMMENT ON COLUMN holdfast.job.reconciles IS 'attempts charged or lost in mode reconcile, against the policy''s reconcile_max';
COMMENT ON COLUMN holdfast.job.losses IS 'leases that ended with nobody reporting, against the policy''s max_lost';
COMMENT ON COLUMN holdfast.job.resumes IS 'snoozes and releases in a row';
COMMENT ON COLUMN holdfast.job.fencing_token IS 'the last one handed out; greater than every one before';
COMMENT ON COLUMN holdfast.job.ledger_place IS 'where the ledger row was last known to lie: a hint, checked before it is believed';
COMMENT ON COLUMN holdfast.job.final_reason IS 'why the job will be dead once its unknown effect is found not to have landed';
COMMENT ON COLUMN holdfast.job.started_at IS 'when the running attempt was claimed';
COMMENT ON COLUMN holdfast.job.parked_from IS 'of a pending job that its stream has put off: since when it has been waiting for the stream';
COMMENT ON COLUMN holdfast.job.last_event_at IS 'time of the latest event, so that event times never go back';
SELECT pg_catalog.pg_extension_config_dump('holdfast.job', '');

-- No index, nor the predicate of one, names a column that a claim or a settlement changes, but for run_after and mode.
CREATE INDEX job_dispatch ON holdfast.job (queue, mode, priority, run_after, job_id) WITH (deduplicate_items = off);
CREATE UNIQUE INDEX job_live_key ON holdfast.job (idempotency_key) WHERE NOT side_effects;

/*
 * Unlogged, and not dumped: after a crash, on a promoted standby and in a
 * restored database the first claim of each priority finds its way by itself.
 */
CREATE UNLOGGED TABLE holdfast.claim_front (
	queue				integer		NOT NULL,
	reconcile			boolean		NOT NULL,
	priority			integer		NOT NULL,
	run_after			timestamptz	NOT NULL,
	job_id				bigint		NOT NULL,
	running_run_after	timestamptz	NOT NULL,
	running_job_id		bigint		NOT NULL,
	lease_end			timestamptz	NOT NULL,
	clock				timestamptz	NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE holdfast.claim_front IS 'where a backend that has not claimed yet may begin: a hint, left by a claim that had to walk far';
COMMENT ON COLUMN holdfast.claim_front.run_after IS 'with job_id: no job that waits and is due comes before it';
COMMENT ON COLUMN holdfast.claim_front.lease_end IS 'the least lease end among running jobs before it, the first of which is running_job_id';
CREATE INDEX claim_front_queue ON holdfast.claim_front (queue);

CREATE TABLE holdfast.dead_job (
	LIKE holdfast.job,
	ended_at			timestamptz	NOT NULL,
	reason				text		COLLATE "C" NOT NULL,
	PRIMARY KEY (job_id)
);
COMMENT ON TABLE holdfast.dead_job IS 'jobs that ended in failure, with their payload, until redriven or settled';
SELECT pg_catalog.pg_extension_config_dump('holdfast.dead_job', '');

CREATE INDEX dead_job_queue ON holdfast.dead_job (queue, ended_at);
CREATE INDEX dead_job_key ON holdfast.dead_job (idempotency_key);
