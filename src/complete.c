/*-------------------------------------------------------------------------
 *
 * complete.c
 *	  The action is done: complete, complete_batch.
 *
 * The hot path of settling.  The job is deleted as it was read, and locked
 * first only where it was changed meanwhile; the ledger row is found by its
 * place, and changed under the job's lock without one of its own.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(holdfast_complete);
PG_FUNCTION_INFO_V1(holdfast_complete_batch);

/*
 * The usual case of a completion, without a lock first: the job runs under
 * this lease in mode execute, and is deleted as it was read.  false: it is not
 * so, or was changed meanwhile; nothing has been written.
 */
static bool
delete_held(HfSettle *s)
{
	s->job = hf_row_for(hf_open(s->call, HF_JOB));
	if (hf_find_job(s->job, s->job_id) && !hf_is_null(s->job, JOB_LEASE_ID) &&
		memcmp(hf_uuid(s->job, JOB_LEASE_ID), s->lease_id, UUID_LEN) == 0 &&
		hf_text_is(hf_get(s->job, JOB_MODE), "execute") &&
		hf_is_granted_id(hf_int32(s->job, JOB_QUEUE), HF_WORKER))
	{
		hf_lease_check_committed(s->call, s->job, s->function);
		if (hf_delete(s->call, s->job))
		{
			s->call->now = hf_clock_now();	/* there may have been a wait */
			if (hf_bool(s->job, JOB_SIDE_EFFECTS))
				s->ledger = hf_ledger_of(s->call, s->job);
			return true;
		}
	}
	hf_settle_release(s);
	return false;
}

/*
 * Complete one job: the outcome.  result is jsonb, or 0.
 */
const char *
hf_complete_one(HfSettle *s, Datum result)
{
	HfCall	   *call = s->call;
	bool		deleted = delete_held(s);
	const char *outcome = deleted ? NULL : hf_settle_find(s, HF_FIND_SETTLE);
	Jsonb	   *given = result ? DatumGetJsonbP(result) : NULL;
	HfEvent		event;
	HfDetail	detail = {0};
	bool		unknown = false;

	if (outcome != NULL)
	{
		if (strcmp(outcome, "reported") != 0)
			return outcome;
		/* a success under this lease is what this report says too, also if reconcile said it first */
		return hf_settle_repeat(s, (hf_text_is(s->history->end.value[EVENT_KIND], "action_attempt_succeeded") &&
									hf_same_jsonb(hf_event_detail_jsonb(&s->history->end, "result"), given)) ||
								(hf_text_is(s->history->end.value[EVENT_KIND], "action_reconciled") &&
								 hf_event_detail(&s->history->end, "outcome") != NULL &&
								 strcmp(hf_event_detail(&s->history->end, "outcome"), "done") == 0));
	}
	if (!deleted)
		hf_settle_ledger(s);
	if (hf_text_is(hf_get(s->job, JOB_MODE), "reconcile") ||
		(s->ledger != NULL && hf_bool(s->ledger, LEDGER_HAS_EFFECTS) && hf_ledger_open_child(call, s->ledger, &unknown)))
	{
		hf_remember_job_refusal(call, s->job, ERRCODE_HF_RECONCILE_FIRST, "complete");
		ereport(ERROR,
				(errcode(ERRCODE_HF_RECONCILE_FIRST),
				 errmsg("job " INT64_FORMAT " cannot be completed before its side effect is reconciled", s->job_id),
				 errdetail("The ledger says that the outcome of %s is not known.",
						   unknown ? "a child effect" : "the effect, or of a child effect,"),
				 errhint("Look at the provider, then call holdfast.reconcile() with landed, not_landed or undetermined.")));
	}
	hf_event_end_of_attempt(call, &event, "action_attempt_succeeded", "succeeded", s->job);
	hf_event_copy(&event, EVENT_FAILURES, s->job, JOB_FAILURES);
	if (s->ledger != NULL)
		hf_event_set(&event, EVENT_SIDE_EFFECT_STATE, hf_word("committed"));
	if (hf_job_late(call, s->job, "complete"))
		hf_detail_bool(&detail, "late", true);
	hf_detail_jsonb(&detail, "result", given);
	if (detail.state != NULL)
		hf_event_set(&event, EVENT_DETAIL, hf_detail_end(&detail));
	hf_event_add(call, &event);
	if (s->ledger != NULL && !hf_ledger_is(s->ledger, "committed"))
		hf_ledger_set(call, s->ledger, s->job, "committed", result);
	if (!hf_is_null(s->job, JOB_STREAM))
		hf_stream_ended(call, hf_int32(s->job, JOB_QUEUE), hf_text(s->job, JOB_STREAM), true);
	if (!deleted)
		hf_job_gone(call, s->job);
	return "completed";
}

/*
 * holdfast.complete(job_id bigint, lease_id uuid, result jsonb => null,
 *					 strict boolean => false) returns text
 *
 * completed | duplicate | conflict | stale | unknown_job.  Errors: JQ001 with
 * strict, JQ003 reconcile first, JQ008 claim not committed.
 */
Datum
holdfast_complete(PG_FUNCTION_ARGS)
{
	HfCall		call;
	HfSettle	s;
	Jsonb	   *result;
	const char *outcome;

	hf_settle_begin(&s, &call, fcinfo, "complete");
	s.strict = !PG_ARGISNULL(3) && PG_GETARG_BOOL(3);
	result = hf_arg_jsonb(fcinfo, 2, "result", HF_MAX_JSONB);
	outcome = hf_complete_one(&s, result != NULL ? JsonbPGetDatum(result) : (Datum) 0);
	hf_settle_end(&s);
	PG_RETURN_TEXT_P(cstring_to_text(outcome));
}

/* A pair of arguments of a call on many jobs. */
typedef struct Pair
{
	int64		job_id;
	pg_uuid_t	lease_id;
	const char *outcome;
} Pair;

static int
pair_order(const void *a, const void *b)
{
	const Pair *x = *(Pair *const *) a;
	const Pair *y = *(Pair *const *) b;

	if (x->job_id != y->job_id)
		return x->job_id < y->job_id ? -1 : 1;
	return memcmp(&x->lease_id, &y->lease_id, UUID_LEN);
}

static Datum *
array_arg(FunctionCallInfo fcinfo, int argno, const char *name, Oid element, int16 len, bool byval, char align, int *n)
{
	ArrayType  *array;
	Datum	   *values;
	bool	   *nulls;

	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", name),
				 errhint("Give an empty array for no jobs.")));
	array = PG_GETARG_ARRAYTYPE_P(argno);
	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("argument \"%s\" must have one dimension", name)));
	deconstruct_array(array, element, len, byval, align, &values, &nulls, n);
	for (int i = 0; i < *n; i++)
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("argument \"%s\" must not contain nulls", name),
					 errdetail("Element %d is null.", i + 1)));
	return values;
}

static int
pairs_arg(FunctionCallInfo fcinfo, int ids_arg, int leases_arg, Pair **pairs)
{
	int			n;
	int			nleases;
	Datum	   *ids = array_arg(fcinfo, ids_arg, "job_ids", INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &n);
	Datum	   *leases = array_arg(fcinfo, leases_arg, "lease_ids", UUIDOID, UUID_LEN, false, TYPALIGN_CHAR, &nleases);

	if (n != nleases || n > HF_MAX_BATCH)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 n != nleases ? errmsg("job_ids and lease_ids must have the same length") :
				 errmsg("too many jobs in one call"),
				 errdetail("There are %d job ids and %d lease ids; at most %d may be given.", n, nleases, HF_MAX_BATCH)));
	*pairs = palloc(sizeof(Pair) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		(*pairs)[i].job_id = DatumGetInt64(ids[i]);
		(*pairs)[i].lease_id = *DatumGetUUIDP(leases[i]);
	}
	return n;
}

/*
 * Complete many, in the order of job_id so that two calls cannot deadlock; a
 * pair that is given twice is dealt with once.  "put" gets the answers in the
 * order of the arguments.
 */
void
hf_complete_many(HfCall *call, FunctionCallInfo fcinfo, int ids_arg, int leases_arg, HfCompleted put, void *put_arg)
{
	Pair	   *pairs;
	Pair	  **sorted;
	int			n = pairs_arg(fcinfo, ids_arg, leases_arg, &pairs);

	sorted = palloc(sizeof(Pair *) * Max(n, 1));
	for (int i = 0; i < n; i++)
		sorted[i] = &pairs[i];
	qsort(sorted, n, sizeof(Pair *), pair_order);
	for (int i = 0; i < n; i++)
	{
		HfSettle	s;

		CHECK_FOR_INTERRUPTS();
		if (i > 0 && sorted[i]->job_id == sorted[i - 1]->job_id)
		{
			if (pair_order(&sorted[i], &sorted[i - 1]) == 0)
			{
				sorted[i]->outcome = sorted[i - 1]->outcome;
				continue;
			}
			/* another lease of the same job: its event comes after those of the first */
			hf_events_flush(call);
			CommandCounterIncrement();
		}
		hf_settle_init(&s, call, "complete_batch", sorted[i]->job_id, &sorted[i]->lease_id);
		sorted[i]->outcome = hf_complete_one(&s, (Datum) 0);
		hf_settle_release(&s);
	}
	for (int i = 0; i < n; i++)
		put(put_arg, pairs[i].job_id, pairs[i].outcome);
}

static void
put_completed(void *arg, int64 job_id, const char *outcome)
{
	ReturnSetInfo *rsinfo = arg;
	Datum		values[2] = {Int64GetDatum(job_id), CStringGetTextDatum(outcome)};
	bool		nulls[2] = {false, false};

	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/*
 * holdfast.complete_batch(job_ids bigint[], lease_ids uuid[])
 *		returns setof (job_id bigint, outcome text)
 *
 * Answers per job, in the order of the arguments.
 */
Datum
holdfast_complete_batch(PG_FUNCTION_ARGS)
{
	HfCall		call;

	hf_answer_begin(fcinfo, "lt");
	hf_begin(&call, "complete_batch", true);
	hf_complete_many(&call, fcinfo, 0, 1, put_completed, fcinfo->resultinfo);
	hf_end(&call);
	return (Datum) 0;
}
