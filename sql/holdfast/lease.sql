/* Leases: extending one, and making sure of one. */

CREATE TYPE holdfast.heartbeat_result AS (
	outcome				text,
	lease_expires_at	timestamptz
);
COMMENT ON TYPE holdfast.heartbeat_result IS 'extended | held | stale | unknown_job | cancel_requested, and the lease''s end';

CREATE FUNCTION holdfast.heartbeat(job_id bigint, lease_id uuid, lease interval DEFAULT NULL)
RETURNS SETOF holdfast.heartbeat_result
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'holdfast_heartbeat';
COMMENT ON FUNCTION holdfast.heartbeat(bigint, uuid, interval)
	IS 'extend a current lease from now; never shortens, never revives; for workers';

CREATE FUNCTION holdfast.validate_lease(job_id bigint, lease_id uuid) RETURNS boolean
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'holdfast_validate_lease';
COMMENT ON FUNCTION holdfast.validate_lease(bigint, uuid) IS 'whether the lease is the job''s own and not over; for workers';

CREATE FUNCTION holdfast.assert_lease(job_id bigint, lease_id uuid) RETURNS timestamptz
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'holdfast_assert_lease';
COMMENT ON FUNCTION holdfast.assert_lease(bigint, uuid)
	IS 'the lease''s end, with the job locked until commit, or JQ001; for workers that write rows of their own';
