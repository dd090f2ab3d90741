/*-------------------------------------------------------------------------
 *
 * backoff.c
 *	  Retry delays: exponential growth, a cap, and jitter that replays.
 *
 * A delay is a pure function of its arguments: it reads no clock and no
 * setting, and no error can come out of it, since an error in fail() would
 * strand the job.  Jitter is the n-th output of SplitMix64 (Steele, Lea,
 * Flood 2014) seeded with the job id, rather than random() or a server hash,
 * so that a schedule recorded today can be recomputed years later, in another
 * language.  test/sql/backoff.sql pins it with known answers.
 *
 * Growth is repeated multiplication in IEEE doubles, not pow(): the same
 * multiplications give the same bits everywhere, while libraries differ in
 * the last bit of pow().
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "utils/builtins.h"

/* The n-th output, from 1, of the SplitMix64 generator seeded with seed. */
uint64
hf_splitmix64(uint64 seed, uint64 n)
{
	uint64		z = seed + n * UINT64CONST(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64CONST(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64CONST(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

/*
 * min(base_ms * rate^(failures - 1), max_ms), fractions cut off.
 *
 * With a rate of 1, or of at least 1.01 as define_retry_policy() demands, the
 * loop ends after at most 2,700 rounds whatever the failures: at the cap, or
 * where the delay no longer changes.
 */
int64
hf_backoff_ms(int64 base_ms, double rate, int64 max_ms, int32 failures)
{
	double		delay = (double) base_ms;
	double		max = (double) max_ms;

	for (int32 n = 1; n < failures && delay < max; n++)
	{
		double		next = delay * rate;

		if (next == delay)
			break;
		delay = next;
	}

	/* written so that a NaN, which no caller should bring, is the cap too */
	return delay < max ? (int64) delay : max_ms;
}

/*
 * Milliseconds in [0, window_ms).  The remainder favours small values by less
 * than one in 10^7 at a window of ten years.
 */
int64
hf_jitter_ms(int64 job_id, int32 failures, int64 window_ms)
{
	if (window_ms <= 0)
		return 0;
	return (int64) (hf_splitmix64((uint64) job_id, (uint64) failures) % (uint64) window_ms);
}

/*
 * holdfast.jitter_ms(job_id bigint, failures int, jitter_window interval)
 *		returns bigint
 *
 * Milliseconds in [0, window): added to the delay, so a retry never comes
 * sooner than the policy says.  IMMUTABLE STRICT.  Errors: 22023 for a
 * negative window or failures < 1.
 */
PG_FUNCTION_INFO_V1(holdfast_jitter_ms);
Datum
holdfast_jitter_ms(PG_FUNCTION_ARGS)
{
	int64		job_id = hf_arg_bigint(fcinfo, 0, "job_id");
	int32		failures = hf_arg_int(fcinfo, 1, "failures", 1, PG_INT32_MAX);
	int64		window_ms = hf_arg_interval_ms(fcinfo, 2, "jitter_window", 0, HF_MAX_DELAY_MS);

	PG_RETURN_INT64(hf_jitter_ms(job_id, failures, window_ms));
}

/*
 * holdfast.job_seed(id text) returns bigint
 *
 * What stands for the job id in jitter_ms() where ids are not bigint.
 * IMMUTABLE STRICT.
 */
PG_FUNCTION_INFO_V1(holdfast_job_seed);
Datum
holdfast_job_seed(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(hf_job_seed(PG_GETARG_TEXT_PP(0)));
}

/*
 * holdfast.backoff_delay(retry_policy text, job_id bigint, failures int)
 *		returns interval
 *
 * The delay by the policy's formula, jitter included, before min_delay and
 * the worker's own wishes are looked at.  The interval has no days or months,
 * so that adding it to a time never depends on a time zone.  STABLE STRICT.
 * Errors: 42704 for an unknown policy, 22023 for failures < 1.
 */
PG_FUNCTION_INFO_V1(holdfast_backoff_delay);
Datum
holdfast_backoff_delay(PG_FUNCTION_ARGS)
{
	const HfPolicy *policy;
	int64		job_id = hf_arg_bigint(fcinfo, 1, "job_id");
	int32		failures = hf_arg_int(fcinfo, 2, "failures", 1, PG_INT32_MAX);
	HfCall		call;
	int64		delay_ms;
	Interval   *delay;

	hf_begin(&call, "backoff_delay", false);
	policy = hf_require_policy(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	delay_ms = hf_backoff_ms(policy->base_ms, policy->rate, policy->max_ms, failures) +
		hf_jitter_ms(job_id, failures, policy->jitter_ms);
	hf_end(&call);

	delay = (Interval *) palloc0(sizeof(Interval));
	delay->time = delay_ms * 1000;
	PG_RETURN_INTERVAL_P(delay);
}
