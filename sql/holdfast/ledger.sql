/* The ledger: what is known about each side effect. */

/*
 * fillfactor leaves room on a page for the two versions that an attempt adds
 * to each row, so that they stay HOT also while an old snapshot, held by some
 * other session, keeps the earlier ones from being pruned.
 */
CREATE TABLE holdfast.ledger (
	idempotency_key		uuid		NOT NULL,
	created_at			timestamptz	NOT NULL,
	queue				integer		NOT NULL,
	intent_version		integer		NOT NULL,
	subject				text		COLLATE "C" NOT NULL,
	action_key			text		COLLATE "C" NOT NULL,
	scope				text		COLLATE "C",
	payload_digest		bytea,
	parent_key			uuid,
	effect				text		COLLATE "C",
	job_id				bigint		NOT NULL,
	attempt_number		integer		NOT NULL,
	has_effects			boolean		NOT NULL,
	changed_at			timestamptz	NOT NULL,
	state				text		COLLATE "C" NOT NULL
						CHECK (state IN ('planned', 'started', 'committed', 'failed_retryable', 'failed_terminal', 'unknown')),
	evidence			jsonb,
	CHECK ((parent_key IS NULL) = (effect IS NULL)),
	PRIMARY KEY (idempotency_key)
) WITH (fillfactor = 35, autovacuum_vacuum_scale_factor = 0.05);
COMMENT ON TABLE holdfast.ledger IS 'one row per idempotency key: what is known about the side effect';
COMMENT ON COLUMN holdfast.ledger.queue IS 'the queue of the latest job of the intent';
COMMENT ON COLUMN holdfast.ledger.job_id IS 'the latest job of the intent; it alone may be handed out';
COMMENT ON COLUMN holdfast.ledger.parent_key IS 'of a child effect: the key of the action it is part of';
COMMENT ON COLUMN holdfast.ledger.has_effects IS 'child effects exist, and are to be looked for by parent_key';
SELECT pg_catalog.pg_extension_config_dump('holdfast.ledger', '');

CREATE INDEX ledger_parent ON holdfast.ledger (parent_key) WHERE parent_key IS NOT NULL;

CREATE TABLE holdfast.unknown_effect (
	idempotency_key		uuid		NOT NULL PRIMARY KEY,
	queue				integer		NOT NULL,
	job_id				bigint		NOT NULL,
	since				timestamptz	NOT NULL
);
COMMENT ON TABLE holdfast.unknown_effect IS 'a row while the ledger says unknown, so that it is found without an index on a changing column';
SELECT pg_catalog.pg_extension_config_dump('holdfast.unknown_effect', '');

CREATE INDEX unknown_effect_queue ON holdfast.unknown_effect (queue, since);
