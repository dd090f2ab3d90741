-- A queue as a careful team writes it by hand: no evidence, no ledger, no policy.
--
-- The dispatch index names no column that a claim changes and is not partial,
-- and the fillfactor leaves room on the page, so that a claim is a HOT update
-- and touches no index.  Claims find rows by ctid, which is safe under the
-- row lock just taken.  `make bench CASE=handwritten` measures the
-- usual alternatives beside this one.
CREATE TABLE job (
	id				bigint		GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	queue			integer		NOT NULL DEFAULT 1,
	priority		integer		NOT NULL DEFAULT 0,
	run_at			timestamptz	NOT NULL DEFAULT now(),
	status			text		NOT NULL DEFAULT 'pending',
	attempts		integer		NOT NULL DEFAULT 0,
	locked_until	timestamptz,
	payload			jsonb		NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX ON job (queue, priority, run_at, id);
