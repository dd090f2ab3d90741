/*-------------------------------------------------------------------------
 *
 * stop.c
 *	  What the view stop_reason asks of the policies.
 *
 * A policy that this database does not have, as imported attempts may name,
 * counts as "default", as it does for a job.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "utils/builtins.h"

#define MAX_TERMS	10000		/* of a sum of delays; the rest is taken to be like the last */

static const char *const figures[] = {"max_attempts", "max_lost", "reconcile_max", "reconcile_ms", NULL};

static const HfPolicy *
policy_of(FunctionCallInfo fcinfo, int argno)
{
	const HfPolicy *policy = PG_ARGISNULL(argno) ? NULL : hf_policy(text_to_cstring(PG_GETARG_TEXT_PP(argno)));

	return policy != NULL ? policy : hf_policy("default");
}

/* holdfast.policy_figure(retry_policy text, figure text) returns bigint */
PG_FUNCTION_INFO_V1(holdfast_policy_figure);
Datum
holdfast_policy_figure(PG_FUNCTION_ARGS)
{
	HfCall		call;
	const HfPolicy *policy;
	int			figure = hf_arg_choice(fcinfo, 1, "figure", figures);
	int64		result;

	hf_begin(&call, "policy_figure", false);
	policy = policy_of(fcinfo, 0);
	result = figure == 0 ? policy->max_attempts : figure == 1 ? policy->max_lost : figure == 2 ? policy->reconcile_max
		: policy->reconcile_ms;
	hf_end(&call);
	PG_RETURN_INT64(result);
}

/*
 * holdfast.class_disposition(retry_policy text, error_class text) returns text
 *
 * retry | terminal | honor_reset | suppress: by the policy's rules, else by
 * those of "default".  NULL for no class.
 */
PG_FUNCTION_INFO_V1(holdfast_class_disposition);
Datum
holdfast_class_disposition(PG_FUNCTION_ARGS)
{
	static const char *const names[] = {
		[HF_RETRY] = "retry", [HF_TERMINAL] = "terminal", [HF_HONOR_RESET] = "honor_reset", [HF_SUPPRESS] = "suppress"};
	HfCall		call;
	HfRule		rule;

	if (PG_ARGISNULL(1))
		PG_RETURN_NULL();
	hf_begin(&call, "class_disposition", false);
	rule = hf_rule(policy_of(fcinfo, 0)->name, text_to_cstring(PG_GETARG_TEXT_PP(1)));
	hf_end(&call);
	PG_RETURN_TEXT_P(cstring_to_text(names[rule.disposition]));
}

/*
 * holdfast.budget_end(retry_policy text, job_id bigint, failures integer,
 *		max_attempts integer, since timestamptz) returns timestamptz
 *
 * When the last failure of the budget comes, if the next attempt begins at
 * "since" and every one fails at once.  STRICT but for retry_policy; NULL where
 * no timestamp reaches as far.
 */
PG_FUNCTION_INFO_V1(holdfast_budget_end);
Datum
holdfast_budget_end(PG_FUNCTION_ARGS)
{
	HfCall		call;
	const HfPolicy *policy;
	int32		failures;
	int32		max_attempts;
	double		ms = 0;			/* a sum of int64, which may be out of their range */
	double		delay = 0;

	if (PG_ARGISNULL(1) || PG_ARGISNULL(2) || PG_ARGISNULL(3) || PG_ARGISNULL(4))
		PG_RETURN_NULL();
	failures = PG_GETARG_INT32(2);
	max_attempts = PG_GETARG_INT32(3);
	hf_begin(&call, "budget_end", false);
	policy = policy_of(fcinfo, 0);
	for (int32 n = failures + 1; n < max_attempts; n++)
	{
		if (n - failures > MAX_TERMS)
		{
			ms += delay * (max_attempts - n);
			break;
		}
		delay = (double) hf_backoff_ms(policy->base_ms, policy->rate, policy->max_ms, n) +
			hf_jitter_ms(PG_GETARG_INT64(1), n, policy->jitter_ms);
		ms += delay;
	}
	hf_end(&call);
	if (ms * 1000 + (double) PG_GETARG_TIMESTAMPTZ(4) >= (double) END_TIMESTAMP)
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(PG_GETARG_TIMESTAMPTZ(4) + (int64) (ms * 1000));
}
