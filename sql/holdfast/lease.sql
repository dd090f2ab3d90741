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

/*
 * After a restore into another cluster, a point-in-time recovery or a failover
 * to a standby whose clock was behind: no token is handed out at or below the
 * highest that an outside resource has seen.
 */
CREATE FUNCTION holdfast.post_restore(floor bigint) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	stored bigint;
BEGIN
	IF floor IS NULL OR floor < 0 OR floor > 9000000000000000000 THEN
		RAISE EXCEPTION USING ERRCODE = CASE WHEN floor IS NULL THEN '22004' ELSE '22023' END,
			MESSAGE = 'argument "floor" must be between 0 and 9000000000000000000',
			HINT = 'Give the highest fencing token that any outside resource has seen.';
	END IF;
	INSERT INTO holdfast.setting AS s (name, value) VALUES ('token_floor', (floor + 1)::text)
	ON CONFLICT (name) DO UPDATE SET value = greatest(s.value::bigint, excluded.value::bigint)::text
	RETURNING s.value::bigint INTO stored;
	RETURN stored;
END
$$;
COMMENT ON FUNCTION holdfast.post_restore(bigint)
	IS 'hand out no fencing token at or below floor, the highest seen outside; never lowers it; the floor now in force';
