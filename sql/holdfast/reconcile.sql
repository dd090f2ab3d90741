/* Finding out what happened to a side effect. */

CREATE TYPE holdfast.reconcile_result AS (
	outcome				text,
	next_not_before		timestamptz,
	lease_expires_at	timestamptz,
	deadline_at			timestamptz
);
COMMENT ON TYPE holdfast.reconcile_result IS 'done | execute | reconcile | retry | dead | duplicate | conflict | stale | unknown_job, and the times that go with it';

CREATE TYPE holdfast.ledger_transition_result AS (
	outcome				text,
	state				text
);
COMMENT ON TYPE holdfast.ledger_transition_result IS 'ok | duplicate | stale | unknown_job, and the ledger''s state';

CREATE TYPE holdfast.effect_state AS (
	effect				text,
	idempotency_key		uuid,
	state				text,
	evidence			jsonb
);
COMMENT ON TYPE holdfast.effect_state IS 'a child effect of an action, its own key, and what is known of it';

CREATE TYPE holdfast.settle_unknown_result AS (
	state				text,
	job_id				bigint
);
COMMENT ON TYPE holdfast.settle_unknown_result IS 'the ledger''s state, and whose it is';

CREATE TYPE holdfast.outcome_result AS (
	outcome				text,
	decision			text,
	state				text,
	at					timestamptz
);
COMMENT ON TYPE holdfast.outcome_result IS 'running | completed | failed | lost | snoozed | released | cancelled | reconciled | stale | unknown_job; what was decided; the job: pending | running | ended; when';

CREATE FUNCTION holdfast.reconcile(job_id bigint, lease_id uuid, finding text, evidence jsonb DEFAULT NULL,
	effect text DEFAULT NULL)
RETURNS SETOF holdfast.reconcile_result
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'holdfast_reconcile';
COMMENT ON FUNCTION holdfast.reconcile(bigint, uuid, text, jsonb, text)
	IS 'what the provider says of an unknown effect: landed | not_landed | undetermined; for workers';

CREATE FUNCTION holdfast.ledger_transition(job_id bigint, lease_id uuid, to_state text, effect text DEFAULT NULL,
	evidence jsonb DEFAULT NULL)
RETURNS SETOF holdfast.ledger_transition_result
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'holdfast_ledger_transition';
COMMENT ON FUNCTION holdfast.ledger_transition(bigint, uuid, text, text, jsonb)
	IS 'move the ledger of an action, or of a child effect, to started | committed | failed_retryable; for workers';

CREATE FUNCTION holdfast.effects(job_id bigint, lease_id uuid) RETURNS SETOF holdfast.effect_state
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'holdfast_effects';
COMMENT ON FUNCTION holdfast.effects(bigint, uuid) IS 'the child effects of the job whose lease this is; for workers';

CREATE FUNCTION holdfast.settle_unknown(idempotency_key uuid, finding text, evidence jsonb, reason text)
RETURNS SETOF holdfast.settle_unknown_result
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'holdfast_settle_unknown';
COMMENT ON FUNCTION holdfast.settle_unknown(uuid, text, jsonb, text)
	IS 'an operator''s finding about an unknown effect: landed | not_landed | abandoned; for operators';

CREATE FUNCTION holdfast.outcome(job_id bigint, lease_id uuid) RETURNS SETOF holdfast.outcome_result
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'holdfast_outcome';
COMMENT ON FUNCTION holdfast.outcome(bigint, uuid) IS 'what became of an attempt, for a client whose COMMIT answer was lost; for producers and workers';
