/*-------------------------------------------------------------------------
 *
 * recover.c
 *	  Jobs that stopped although their policy would have gone on.
 *
 * A job is recovered at most once for each failure: being recovered it is dead
 * no longer, and comes back only by another.  It keeps the failures that it
 * was charged with: what is recovered is the budget that was left, no new one
 * (G4), and it comes back after its policy's delay (G3).  Rows of watched
 * tables are put back by SQL (recover.sql); the record of the attempt says so.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"

#define RECOVERABLE_AT_MOST 1000000

PG_FUNCTION_INFO_V1(holdfast_recoverable);
PG_FUNCTION_INFO_V1(holdfast_recoverable_ids);
PG_FUNCTION_INFO_V1(holdfast_recover_dead);
PG_FUNCTION_INFO_V1(holdfast_update_as_owner);

/*
 * Whether the job's policy, as it is now, would not have ended it: the class
 * may be retried, and there is budget left.  What an operator ended, what is
 * past give_up_at and what could not be resolved stays dead.
 */
static bool
is_recoverable(HfRow *dead, void *arg)
{
	const HfQueue *queue = hf_queue_by_id(hf_int32(dead, JOB_QUEUE));
	const HfPolicy *policy = hf_job_policy(dead, queue);
	HfRule		rule;

	if (hf_is_null(dead, JOB_LAST_ERROR_CLASS) || !hf_is_null(dead, JOB_CANCEL_REQUESTED_AT))
		return false;
	if (!hf_text_is(hf_get(dead, DEAD_REASON), "terminal") && !hf_text_is(hf_get(dead, DEAD_REASON), "budget") &&
		!(hf_text_is(hf_get(dead, DEAD_REASON), "crash_loop") && hf_int32(dead, JOB_LOSSES) < policy->max_lost))
		return false;
	if (!hf_is_null(dead, JOB_GIVE_UP_AT) && hf_time(dead, JOB_GIVE_UP_AT) <= hf_clock_now())
		return false;
	rule = hf_rule(policy->name, text_to_cstring(hf_text(dead, JOB_LAST_ERROR_CLASS)));
	return (rule.disposition == HF_RETRY || rule.disposition == HF_HONOR_RESET) &&
		hf_int32(dead, JOB_FAILURES) < hf_job_max_attempts(dead, queue);
}

/*
 * holdfast.recoverable_ids(queue integer) returns setof bigint
 *
 * The dead jobs of a queue that recoverable() lists and auto_recover takes.
 */
Datum
holdfast_recoverable_ids(PG_FUNCTION_ARGS)
{
	HfCall		call;
	int32		queue_id = hf_arg_int(fcinfo, 0, "queue", PG_INT32_MIN, PG_INT32_MAX);
	ReturnSetInfo *rsinfo;
	HfTable    *table;
	int64	   *ids;
	int			n;
	bool		null = false;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	hf_begin(&call, "recoverable_ids", false);
	table = hf_open(&call, HF_DEAD_JOB);
	n = hf_queue_by_id(queue_id) == NULL ? 0 :
		hf_ids_of_queue(table, hf_index(table, "_queue"), queue_id, is_recoverable, NULL, &ids, RECOVERABLE_AT_MOST);
	for (int i = 0; i < n; i++)
	{
		Datum		id = Int64GetDatum(ids[i]);

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, &id, &null);
	}
	hf_end(&call);
	return (Datum) 0;
}

/*
 * holdfast.recover_dead(queue integer, max integer) returns bigint
 *
 * Put recoverable jobs of a queue back, each after its policy's delay, with
 * the budget that is left: how many.  For maintain(), where the queue says
 * auto_recover.  A job is recovered once for each failure: what was recovered
 * is no longer dead, and comes back only by another.
 */
Datum
holdfast_recover_dead(PG_FUNCTION_ARGS)
{
	HfCall		call;
	int32		queue_id = hf_arg_int(fcinfo, 0, "queue", PG_INT32_MIN, PG_INT32_MAX);
	int32		max = hf_arg_int(fcinfo, 1, "max", 1, 1000000);
	text	   *reason = cstring_to_text("auto_recover: retryable, with budget left");
	const HfQueue *queue;
	HfTable    *table;
	int64	   *ids;
	int			n;
	int64		recovered = 0;

	hf_begin(&call, "recover_dead", true);
	queue = hf_queue_by_id(queue_id);
	table = hf_open(&call, HF_DEAD_JOB);
	n = queue == NULL ? 0 : hf_ids_of_queue(table, hf_index(table, "_queue"), queue_id, is_recoverable, NULL, &ids, max);
	for (int i = 0; i < n; i++)
	{
		HfRow	   *dead = hf_row_for(table);
		int64		other;

		CHECK_FOR_INTERRUPTS();
		if (hf_find_job(dead, ids[i]) && hf_lock(&call, dead, true) == HF_LOCKED && is_recoverable(dead, NULL))
		{
			const HfPolicy *policy = hf_job_policy(dead, queue);
			int32		failures = Max(hf_int32(dead, JOB_FAILURES), 1);

			call.now = hf_clock_now();
			if (hf_redrive(&call, dead, reason,
							hf_backoff_ms(policy->base_ms, policy->rate, policy->max_ms, failures) +
							hf_jitter_ms(ids[i], failures, policy->jitter_ms), &other) == REDRIVEN)
				recovered++;
		}
		hf_row_free(dead);
		CommandCounterIncrement();	/* the next may be of the same intent */
	}
	hf_end(&call);
	PG_RETURN_INT64(recovered);
}

/* ---------------------------------------------------------------- recoverable() */

typedef struct Granted
{
	Datum	   *queues;
	int			n;
	int			room;
} Granted;

static void
add_granted(void *arg, const Datum *values, const bool *nulls)
{
	Granted    *g = arg;

	if (!hf_is_granted_id(DatumGetInt32(values[QUEUE_ID]), HF_READER))
		return;
	if (g->n == g->room)
		g->queues = repalloc(g->queues, sizeof(Datum) * (g->room *= 2));
	g->queues[g->n++] = values[QUEUE_ID];
}

/*
 * holdfast.recoverable() returns setof recoverable_job
 *
 * Of the queues that the caller may read; for the owner also those of watched
 * tables and imports.
 */
Datum
holdfast_recoverable(PG_FUNCTION_ARGS)
{
	HfCall		call;
	Granted		g = {palloc(sizeof(Datum) * 8), 0, 8};
	Oid			types[2] = {INT4ARRAYOID, BOOLOID};
	Datum		values[2];

	InitMaterializedSRF(fcinfo, 0);
	hf_begin(&call, "recoverable", false);
	hf_config_scan(HF_QUEUE, add_granted, &g);
	values[0] = PointerGetDatum(construct_array(g.queues, g.n, INT4OID, sizeof(int32), true, TYPALIGN_INT));
	values[1] = BoolGetDatum(hf_is_owner());
	hf_query_as_owner(fcinfo, "SELECT * FROM holdfast.recoverable_of($1, $2)", 2, types, values, NULL);
	hf_end(&call);
	return (Datum) 0;
}

/*
 * holdfast.update_as_owner(relation regclass, statement text, status text,
 *		not_before timestamptz, id text, words text[]) returns bigint
 *
 * Run the update that puts a row of a watched table back, as the table's
 * owner: triggers and the mapping's expressions are his, and must not run with
 * the rights of the extension's owner, nor leave settings behind that change
 * what maintain() does next.  How many rows.  The caller has looked whether
 * the row may be updated.
 */
Datum
holdfast_update_as_owner(PG_FUNCTION_ARGS)
{
	Oid			relation = PG_GETARG_OID(0);
	Oid			types[] = {TEXTOID, TIMESTAMPTZOID, TEXTOID, TEXTARRAYOID};
	Datum		values[] = {PG_GETARG_DATUM(2), PG_GETARG_DATUM(3), PG_GETARG_DATUM(4), PG_GETARG_DATUM(5)};
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));
	int			level = NewGUCNestLevel();
	int64		rows;
	Oid			owner;
	Oid			user;
	int			context;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table with OID %u does not exist", relation)));
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(owner, context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	SPI_connect();
	if (SPI_execute_with_args(text_to_cstring(PG_GETARG_TEXT_PP(1)), 4, types, values, NULL, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "unexpected result of an internal statement");
	rows = SPI_processed;
	SPI_finish();
	AtEOXact_GUC(false, level);
	SetUserIdAndSecContext(user, context);
	PG_RETURN_INT64(rows);
}
