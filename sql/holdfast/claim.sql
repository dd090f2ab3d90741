/* Claiming: jobs whose turn it is, each under a lease. */

CREATE TYPE holdfast.execution_context AS (
	job_id				bigint,
	attempt_number		integer,
	failures			integer,
	max_attempts		integer,
	fencing_token		bigint,
	lease_id			uuid,
	lease_expires_at	timestamptz,
	deadline_at			timestamptz,
	mode				text,
	ledger_state		text,
	ledger_evidence		jsonb,
	effects				jsonb,
	idempotency_key		uuid,
	correlation_id		text,
	action_key			text,
	subject				text,
	scope				text,
	intent_version		integer,
	payload				jsonb,
	headers				jsonb,
	timeout_ms			bigint,
	previous_attempt	integer,
	previous_error_class text,
	previous_message	text
);
COMMENT ON TYPE holdfast.execution_context IS 'what a handler attaches to its outbound calls; it invents nothing';
COMMENT ON COLUMN holdfast.execution_context.mode IS 'execute: do it; reconcile: find out what happened, then call reconcile()';
COMMENT ON COLUMN holdfast.execution_context.deadline_at IS 'the handler stops here';
COMMENT ON COLUMN holdfast.execution_context.fencing_token IS 'for outside resources: refuse a token below the highest seen; a string in JSON';

CREATE TYPE holdfast.completed_or_claimed AS (
	kind				text,
	outcome				text,
	job_id				bigint,
	attempt_number		integer,
	failures			integer,
	max_attempts		integer,
	fencing_token		bigint,
	lease_id			uuid,
	lease_expires_at	timestamptz,
	deadline_at			timestamptz,
	mode				text,
	ledger_state		text,
	ledger_evidence		jsonb,
	effects				jsonb,
	idempotency_key		uuid,
	correlation_id		text,
	action_key			text,
	subject				text,
	scope				text,
	intent_version		integer,
	payload				jsonb,
	headers				jsonb,
	timeout_ms			bigint,
	previous_attempt	integer,
	previous_error_class text,
	previous_message	text
);
COMMENT ON TYPE holdfast.completed_or_claimed IS 'kind completed: outcome and job_id; kind claimed: an execution_context';

CREATE FUNCTION holdfast.claim(queue_name text, worker_name text, qty integer DEFAULT 1, lease interval DEFAULT NULL,
	modes text DEFAULT 'all')
RETURNS SETOF holdfast.execution_context
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'holdfast_claim';
COMMENT ON FUNCTION holdfast.claim(text, text, integer, interval, text)
	IS 'take up to qty due jobs under leases, never waiting for another worker; commit before the work begins; for workers';

CREATE FUNCTION holdfast.claim_any(queue_names text[], worker_name text, qty integer DEFAULT 1, lease interval DEFAULT NULL,
	modes text DEFAULT 'all')
RETURNS SETOF holdfast.execution_context
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'holdfast_claim_any';
COMMENT ON FUNCTION holdfast.claim_any(text[], text, integer, interval, text)
	IS 'claim from several queues, in the array''s order; for workers';

CREATE FUNCTION holdfast.complete_and_claim(queue_name text, worker_name text, job_ids bigint[], lease_ids uuid[],
	qty integer DEFAULT 1, lease interval DEFAULT NULL, modes text DEFAULT 'all')
RETURNS SETOF holdfast.completed_or_claimed
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'holdfast_complete_and_claim';
COMMENT ON FUNCTION holdfast.complete_and_claim(text, text, bigint[], uuid[], integer, interval, text)
	IS 'complete_batch and claim in one call and one commit; for workers';
