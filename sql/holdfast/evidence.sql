/* Evidence: append-only events, findings, and what is folded from them. */

CREATE SEQUENCE holdfast.event_id_seq AS bigint CACHE 1;
COMMENT ON SEQUENCE holdfast.event_id_seq IS 'numbers of events; CACHE 1, since they order the events of one instant';
SELECT pg_catalog.pg_extension_config_dump('holdfast.event_id_seq', '');

CREATE TABLE holdfast.event (
	event_id			bigint		NOT NULL,
	at					timestamptz	NOT NULL,
	job_id				bigint		NOT NULL,
	idempotency_key		uuid		NOT NULL,
	queue				integer		NOT NULL,
	attempt_number		integer		NOT NULL,
	kind				text		COLLATE "C" NOT NULL,
	subject				text		COLLATE "C" NOT NULL,
	action_key			text		COLLATE "C" NOT NULL,
	correlation_id		text		COLLATE "C" NOT NULL,
	lease_id			uuid,
	worker_name			text		COLLATE "C",
	mode				text		COLLATE "C",
	lease_expires_at	timestamptz,
	fencing_token		bigint,
	last_heartbeat_at	timestamptz,
	scope				text		COLLATE "C",
	intent_version		integer,
	failures			integer,
	max_attempts		integer,
	payload_digest		bytea,
	enqueued_at			timestamptz,
	enqueued_by			text		COLLATE "C",
	exception_class		text		COLLATE "C",
	message				text		COLLATE "C",
	timeout_kind		text		COLLATE "C",
	timeout_ms			bigint,
	timeout_limit_ms	bigint,
	elapsed_ms			bigint,
	worker_result		text		COLLATE "C",
	side_effect_state	text		COLLATE "C",
	retry_policy		text		COLLATE "C",
	delay_ms			bigint,
	jitter_ms			bigint,
	next_not_before		timestamptz,
	detail				jsonb
) PARTITION BY RANGE (at);
COMMENT ON TABLE holdfast.event IS 'append-only evidence, a partition a day; written in the transaction of the change it describes';
COMMENT ON COLUMN holdfast.event.at IS 'the clock of the call, never going back within a job; order a job''s events by (attempt_number, at, event_id)';
COMMENT ON COLUMN holdfast.event.fencing_token IS 'of a start: the token that was handed out with the lease';
COMMENT ON COLUMN holdfast.event.worker_result IS 'what the worker saw: succeeded, failed, timeout, lost, snoozed, released, cancelled';
COMMENT ON COLUMN holdfast.event.side_effect_state IS 'the ledger''s state of the action after the event (of a child effect detail tells); null without side effects';
COMMENT ON COLUMN holdfast.event.delay_ms IS 'the delay that was decided, jitter included';
COMMENT ON COLUMN holdfast.event.next_not_before IS 'the earliest time of the next attempt';

CREATE TABLE holdfast.event_overflow (LIKE holdfast.event);
COMMENT ON TABLE holdfast.event_overflow IS 'takes the events of a day that has no partition; maintain() moves them';
SELECT pg_catalog.pg_extension_config_dump('holdfast.event_overflow', '');
-- maintain() deletes here, and in finding: without a key, a publication of the table would refuse it.
ALTER TABLE holdfast.event_overflow REPLICA IDENTITY FULL;
CREATE INDEX event_overflow_job ON holdfast.event_overflow (job_id) WITH (deduplicate_items = off);	-- the indexes of a day are like these
CREATE INDEX event_overflow_subject ON holdfast.event_overflow (subject, action_key)
	WHERE attempt_number = 0 OR (attempt_number = 1 AND kind = 'action_attempt_started');

CREATE TABLE holdfast.finding (
	at					timestamptz	NOT NULL,
	queue				integer		NOT NULL,
	kind				text		COLLATE "C" NOT NULL,
	job_id				bigint,
	attempt_number		integer,
	lease_id			uuid,
	worker_name			text		COLLATE "C",
	detail				jsonb
);
COMMENT ON TABLE holdfast.finding IS 'one row per stale, duplicate, conflicting or late report, lost lease, overlap, violation or refusal; and per pause, resume or drop of a queue';
SELECT pg_catalog.pg_extension_config_dump('holdfast.finding', '');
ALTER TABLE holdfast.finding REPLICA IDENTITY FULL;
CREATE INDEX finding_queue ON holdfast.finding (queue, at);

CREATE TABLE holdfast.queue_hour (
	queue				integer		NOT NULL,
	hour				timestamptz	NOT NULL,
	started				bigint		NOT NULL,
	succeeded			bigint		NOT NULL,
	failed				bigint		NOT NULL,
	lost				bigint		NOT NULL,
	snoozed				bigint		NOT NULL,
	released			bigint		NOT NULL,
	retried				bigint		NOT NULL,
	dead				bigint		NOT NULL,
	cancelled			bigint		NOT NULL,
	suppressed			bigint		NOT NULL,
	PRIMARY KEY (queue, hour)
);
COMMENT ON TABLE holdfast.queue_hour IS 'attempts and outcomes per queue and hour, folded from the events by maintain()';
SELECT pg_catalog.pg_extension_config_dump('holdfast.queue_hour', '');
