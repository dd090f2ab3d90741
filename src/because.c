/*-------------------------------------------------------------------------
 *
 * because.c
 *	  The sentence that goes with a verdict, with its figures.
 *
 * Made from the pair alone, and only where it is read: a query that counts
 * verdicts does not pay for it.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "catalog/pg_type_d.h"
#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/typcache.h"

typedef struct Pair
{
	Datum		value[PAIR_NCOLUMNS];
	bool		null[PAIR_NCOLUMNS];
} Pair;

static char *
text_of(const Pair *p, int column)
{
	return p->null[column] ? "none on record" : text_to_cstring(DatumGetTextPP(p->value[column]));
}

static char *
time_of(const Pair *p, int column)
{
	return p->null[column] ? "a time not on record"
		: DatumGetCString(DirectFunctionCall1(timestamptz_out, p->value[column]));
}

static TimestampTz
at(const Pair *p, int column)
{
	return DatumGetTimestampTz(p->value[column]);
}

/* a duration, in the unit that a reader would choose */
static char *
duration(int64 us)
{
	int64		abs_us = us < 0 ? -us : us;

	if (abs_us < 10 * USECS_PER_SEC)
		return psprintf("%.10g ms", us / 1000.0);
	if (abs_us < SECS_PER_DAY * USECS_PER_SEC)
		return psprintf("%.10g s", us / 1000 / 1000.0);
	return psprintf("%.1f days", us / ((double) SECS_PER_DAY * USECS_PER_SEC));
}

static char *
attempt(const Pair *p, int number, int job_id, bool with_job)
{
	char	   *name = p->null[number] ? pstrdup("an attempt without a number") :
		psprintf("attempt %d", DatumGetInt32(p->value[number]));

	return with_job ? psprintf("%s of job %s", name, text_of(p, job_id)) : name;
}

static char *
ended(const Pair *p)
{
	return psprintf("%s (%s%s%s)", time_of(p, PAIR_ENDED_AT_A), p->null[PAIR_OUTCOME_A] ? "no outcome" : text_of(p, PAIR_OUTCOME_A),
					p->null[PAIR_CLASS_A] ? "" : ", ", p->null[PAIR_CLASS_A] ? "" : text_of(p, PAIR_CLASS_A));
}

/* What the delay was decided by. */
static char *
decision(const Pair *p)
{
	char	   *delay = p->null[PAIR_DELAY_A] ? "" :
		psprintf(", %s", duration(DatumGetInt64(p->value[PAIR_DELAY_A]) * 1000));

	return p->null[PAIR_POLICY_A] ? psprintf("a recorded delay%s", delay)
		: psprintf("policy \"%s\"%s", text_of(p, PAIR_POLICY_A), delay);
}

static void
without_backoff(StringInfo s, const Pair *p, bool same_lease)
{
	int64		gap = at(p, PAIR_STARTED_AT_B) - at(p, PAIR_ENDED_AT_A);

	appendStringInfo(s, "it started %s after A's end at %s, ", duration(gap), ended(p));
	if (same_lease)
		appendStringInfo(s, "under the same lease %s", text_of(p, PAIR_LEASE_ID_A));
	else if (p->null[PAIR_NEXT_NOT_BEFORE_A])
		appendStringInfoString(s, "and no time before which it should not start is on record");
	else if (at(p, PAIR_NEXT_NOT_BEFORE_A) <= at(p, PAIR_CLOSED_AT_A))
		appendStringInfo(s, "and the time decided for it, %s, was not after A's close at %s", time_of(p, PAIR_NEXT_NOT_BEFORE_A),
						 time_of(p, PAIR_CLOSED_AT_A));
	else if (at(p, PAIR_STARTED_AT_B) < at(p, PAIR_NEXT_NOT_BEFORE_A))
		appendStringInfo(s, "%s before the time decided for it, %s (%s)",
						 duration(at(p, PAIR_NEXT_NOT_BEFORE_A) - at(p, PAIR_STARTED_AT_B)), time_of(p, PAIR_NEXT_NOT_BEFORE_A), decision(p));
	else
		appendStringInfo(s, "and its delay of %lld ms is below the least that policy \"%s\" gives, %lld ms",
						 (long long) DatumGetInt64(p->value[PAIR_DELAY_A]), text_of(p, PAIR_POLICY_A),
						 (long long) DatumGetInt64(p->value[PAIR_LEAST_DELAY]));
}

static void
unexplained(StringInfo s, const Pair *p)
{
	Datum	   *missing;
	bool	   *nulls;
	int			n = 0;

	if (!p->null[PAIR_MISSING])
		deconstruct_array(DatumGetArrayTypeP(p->value[PAIR_MISSING]), TEXTOID, -1, false, TYPALIGN_INT, &missing, &nulls, &n);
	appendStringInfoString(s, "not on record: ");
	for (int i = 0; i < n; i++)
		appendStringInfo(s, "%s%s", i == 0 ? "" : ", ", nulls[i] ? "?" : TextDatumGetCString(missing[i]));
	appendStringInfo(s, "; what is: A started at %s and ended at %s, B started at %s", time_of(p, PAIR_STARTED_AT_A),
					 time_of(p, PAIR_ENDED_AT_A), time_of(p, PAIR_STARTED_AT_B));
}

static bool
same(const Pair *p, int a, int b)
{
	return !p->null[a] && !p->null[b] &&
		DatumGetBool(DirectFunctionCall2Coll(texteq, C_COLLATION_OID, p->value[a], p->value[b]));
}

/* A caller can make up a row: of a pair, only the verdict is needed for a sentence. */
static HfVerdict
verdict_of(const Pair *p)
{
	if (!p->null[PAIR_VERDICT])
		for (HfVerdict v = 0; v <= UNEXPLAINED; v++)
			if (hf_text_is(p->value[PAIR_VERDICT], hf_verdicts[v]))
				return v;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("argument \"pair\" has no verdict"),
			 errdetail("Its verdict is \"%s\".", text_of(p, PAIR_VERDICT)),
			 errhint("Read the column because of the view holdfast.attempt_pair.")));
	return UNEXPLAINED;			/* not reached */
}

static void
sentence(StringInfo s, const Pair *p)
{
	bool		same_job = same(p, PAIR_JOB_ID_A, PAIR_JOB_ID_B);
	char	   *b = attempt(p, PAIR_NUMBER_B, PAIR_JOB_ID_B, !same_job);
	char	   *a = attempt(p, PAIR_NUMBER_A, PAIR_JOB_ID_A, !same_job);
	HfVerdict	verdict = verdict_of(p);

	appendStringInfo(s, "%s after %s: ", b, a);
	switch (verdict)
	{
		case DUPLICATE_LOG:
			if (!p->null[PAIR_REPEATS])
				appendStringInfo(s, "its end was reported %lld more times under lease %s, last at %s; the first report stands",
								 (long long) DatumGetInt64(p->value[PAIR_REPEATS]), text_of(p, PAIR_LEASE_ID_A),
								 time_of(p, PAIR_LAST_REPEAT_AT));
			else
				appendStringInfo(s, "both name lease %s, and the second started at %s, %s", text_of(p, PAIR_LEASE_ID_A),
								 time_of(p, PAIR_STARTED_AT_B),
								 at(p, PAIR_STARTED_AT_A) == at(p, PAIR_STARTED_AT_B) ? "when the first did"
								 : psprintf("before the first's end at %s", ended(p)));
			break;
		case LEASE_OVERLAP:
		case DUPLICATE_DISPATCH:
			appendStringInfo(s, "it started at %s, %s before A's end at %s", time_of(p, PAIR_STARTED_AT_B),
							 duration(at(p, PAIR_ENDED_AT_A) - at(p, PAIR_STARTED_AT_B)), ended(p));
			if (verdict == LEASE_OVERLAP)
				appendStringInfo(s, "; leases %s and %s", text_of(p, PAIR_LEASE_ID_A), text_of(p, PAIR_LEASE_ID_B));
			else
				appendStringInfo(s, "; both jobs have key %s", text_of(p, PAIR_KEY_A));
			break;
		case DISTINCT_INTENT:
			if (!same(p, PAIR_SCOPE_A, PAIR_SCOPE_B) && !(p->null[PAIR_SCOPE_A] && p->null[PAIR_SCOPE_B]))
				appendStringInfo(s, "scope %s and scope %s are two intents", text_of(p, PAIR_SCOPE_A), text_of(p, PAIR_SCOPE_B));
			else
				appendStringInfo(s, "versions %d and %d of the intent are two, and the first had ended as %s",
								 DatumGetInt32(p->value[PAIR_VERSION_A]), DatumGetInt32(p->value[PAIR_VERSION_B]), text_of(p, PAIR_OUTCOME_A));
			break;
		case DUPLICATE_SIDE_EFFECT_RISK:
			appendStringInfo(s, "the same %s with another idempotency key, %s and then %s, so that no provider can tell that it is one effect",
							 same_job ? "job" : "subject and action", text_of(p, PAIR_KEY_A), text_of(p, PAIR_KEY_B));
			break;
		case REPEAT_AFTER_SUCCESS:
			appendStringInfo(s, "A had succeeded by %s, and B started at %s", time_of(p, PAIR_ENDED_AT_A), time_of(p, PAIR_STARTED_AT_B));
			break;
		case RESUMED:
			if (!p->null[PAIR_OUTCOME_A] && (hf_text_is(p->value[PAIR_OUTCOME_A], "snoozed") || hf_text_is(p->value[PAIR_OUTCOME_A], "released")))
				appendStringInfo(s, "A was %s at %s, which is no failure", text_of(p, PAIR_OUTCOME_A), time_of(p, PAIR_ENDED_AT_A));
			else
				appendStringInfo(s, "A ended at %s, and an operator redrove the job before B", ended(p));
			break;
		case DUPLICATE_SCHEDULING:
			appendStringInfo(s, "another job with key %s started at %s, %s after A's end at %s", text_of(p, PAIR_KEY_A),
							 time_of(p, PAIR_STARTED_AT_B), duration(at(p, PAIR_STARTED_AT_B) - at(p, PAIR_ENDED_AT_A)), ended(p));
			break;
		case RETRY_WITHOUT_BACKOFF:
			without_backoff(s, p, same(p, PAIR_LEASE_ID_A, PAIR_LEASE_ID_B));
			break;
		case LEGITIMATE_DELAYED_RETRY:
			appendStringInfo(s, "A closed at %s, %s allowed the next from %s, and it started %s after that", time_of(p, PAIR_CLOSED_AT_A),
							 decision(p), time_of(p, PAIR_NEXT_NOT_BEFORE_A),
							 duration(at(p, PAIR_STARTED_AT_B) - at(p, PAIR_NEXT_NOT_BEFORE_A)));
			break;
		default:
			unexplained(s, p);
	}
	if (verdict == DUPLICATE_DISPATCH && !p->null[PAIR_SCOPE_A] && !p->null[PAIR_SCOPE_B] && !same(p, PAIR_SCOPE_A, PAIR_SCOPE_B))
		appendStringInfo(s, ", although their scopes are %s and %s: the key is too coarse", text_of(p, PAIR_SCOPE_A), text_of(p, PAIR_SCOPE_B));
}

/*
 * holdfast.pair_because(pair holdfast.pair) returns text
 *
 * Why the pair has its verdict.  STABLE: times are in the session's zone.
 */
PG_FUNCTION_INFO_V1(holdfast_pair_because);
Datum
holdfast_pair_because(PG_FUNCTION_ARGS)
{
	HeapTupleHeader header = PG_GETARG_HEAPTUPLEHEADER(0);
	HeapTupleData tuple = {0};
	TupleDesc	desc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(header), HeapTupleHeaderGetTypMod(header));
	Pair		pair;
	StringInfoData s;

	hf_answer_check(desc, PAIR_COLUMNS);
	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	tuple.t_data = header;
	heap_deform_tuple(&tuple, desc, pair.value, pair.null);
	ReleaseTupleDesc(desc);
	initStringInfo(&s);
	sentence(&s, &pair);
	PG_RETURN_TEXT_P(cstring_to_text_with_len(s.data, s.len));
}
