/*-------------------------------------------------------------------------
 *
 * metrics.c
 *	  What an operator watches of a queue.
 *
 * The figures come from the jobs, from "finding" and from "queue_hour", never
 * from events.  Jobs are counted here, along the dispatch index: an SQL count
 * over the same rows takes twice as long, and metrics() is asked for every few
 * seconds.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"

#define COUNTED_AT_MOST 100000	/* entries of a queue, some 30 ms */

PG_FUNCTION_INFO_V1(holdfast_queue_counts);
PG_FUNCTION_INFO_V1(holdfast_metrics);

typedef struct Counts
{
	int64		claimable;
	int64		parked;
	int64		running;
	bool		exact;
	TimestampTz oldest;			/* run_after of the job that has been due for longest, or DT_NOEND */
} Counts;

static void
count_row(HfRow *row, TimestampTz now, Counts *counts)
{
	bool		isnull;
	TimestampTz run_after = DatumGetTimestampTz(slot_getattr(row->stored, row->table->att[JOB_RUN_AFTER], &isnull));

	if (hf_text_is(slot_getattr(row->stored, row->table->att[JOB_STATUS], &isnull), "running"))
		counts->running++;
	else if (run_after > now)
		counts->parked++;
	else
	{
		counts->claimable++;
		counts->oldest = Min(counts->oldest, run_after);
	}
}

static void
count_jobs(HfCall *call, int32 queue_id, Counts *counts)
{
	HfTable    *table = hf_open(call, HF_JOB);
	HfRow	   *row = hf_row_for(table);
	IndexScanDesc scan = hf_index_beginscan(table->rel, hf_index(table, "_dispatch"), GetActiveSnapshot(), 1);
	ScanKeyData key;
	int			seen = 0;

	memset(counts, 0, sizeof(Counts));
	counts->oldest = DT_NOEND;
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(queue_id));
	index_rescan(scan, &key, 1, NULL, 0);
	while (index_getnext_slot(scan, ForwardScanDirection, row->stored) && seen++ < COUNTED_AT_MOST)
	{
		CHECK_FOR_INTERRUPTS();
		count_row(row, call->now, counts);
	}
	counts->exact = seen <= COUNTED_AT_MOST;
	index_endscan(scan);
	hf_row_free(row);
}

/*
 * holdfast.queue_counts(queue integer)
 *		returns setof (claimable bigint, parked bigint, running bigint, exact boolean, oldest_claimable_ms bigint)
 *
 * Internal, for queue_metrics_of(): jobs that are due, due later and running.
 * Lower bounds, and exact is false, beyond the first 100,000 entries.
 */
Datum
holdfast_queue_counts(PG_FUNCTION_ARGS)
{
	HfCall		call;
	Counts		counts;
	Datum		values[5];
	bool		nulls[5] = {false};
	int32		queue_id = hf_arg_int(fcinfo, 0, "queue", PG_INT32_MIN, PG_INT32_MAX);

	hf_begin(&call, "queue_counts", false);
	count_jobs(&call, queue_id, &counts);
	values[0] = Int64GetDatum(counts.claimable);
	values[1] = Int64GetDatum(counts.parked);
	values[2] = Int64GetDatum(counts.running);
	values[3] = BoolGetDatum(counts.exact);
	nulls[4] = counts.oldest == DT_NOEND;
	values[4] = nulls[4] ? (Datum) 0 : Int64GetDatum((call.now - counts.oldest) / 1000);
	hf_answer_row(fcinfo, "lllbl", values, nulls);
	hf_end(&call);
	return (Datum) 0;
}

/*
 * holdfast.metrics(queue_name text) returns setof queue_metrics
 *
 * One line of what an operator watches; at most some tens of ms however large
 * the queue is.  For readers.  Errors: 42704, 42501.
 */
Datum
holdfast_metrics(PG_FUNCTION_ARGS)
{
	HfCall		call;
	text	   *name = hf_arg_text(fcinfo, 0, "queue_name", HF_MAX_NAME, true);
	const HfQueue *queue;
	Oid			types[1] = {INT4OID};
	Datum		values[1];

	InitMaterializedSRF(fcinfo, 0);
	hf_begin(&call, "metrics", false);
	queue = hf_queue_by_name(name);
	hf_check_granted(queue, HF_READER);
	values[0] = Int32GetDatum(queue->queue_id);
	hf_query_as_owner(fcinfo, "SELECT * FROM holdfast.queue_metrics_of($1)", 1, types, values, NULL);
	hf_end(&call);
	return (Datum) 0;
}
