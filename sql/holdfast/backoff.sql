/* Retry delays: pure functions with published answers. */

CREATE FUNCTION holdfast.jitter_ms(job_id bigint, failures integer, jitter_window interval) RETURNS bigint
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'holdfast_jitter_ms';
COMMENT ON FUNCTION holdfast.jitter_ms(bigint, integer, interval) IS
	'milliseconds from 0 to below the window, added to the delay after that many failures; the same for ever';

CREATE FUNCTION holdfast.job_seed(id text) RETURNS bigint
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'holdfast_job_seed';
COMMENT ON FUNCTION holdfast.job_seed(text) IS
	'what stands for the job id in jitter_ms() where ids are not bigint';

-- Reads the policies as this backend knows them, hence not in a parallel worker.
CREATE FUNCTION holdfast.backoff_delay(retry_policy text, job_id bigint, failures integer) RETURNS interval
LANGUAGE C STABLE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'holdfast_backoff_delay';
COMMENT ON FUNCTION holdfast.backoff_delay(text, bigint, integer) IS
	'delay by the policy''s formula after that many failures, jitter included, min_delay not applied';
