/*-------------------------------------------------------------------------
 *
 * stream.c
 *	  Streams: breaker groups of jobs.
 *
 * A stream counts jobs of it that ended in failure, in a row, and never
 * retryable attempts: it parks what waits, it ends nothing early.  A claim
 * reads a stream unlocked and never writes one; whoever ends a job writes it,
 * last in the lock order.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "access/stratnum.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"

#define DEFAULT_THRESHOLD 5
#define DEFAULT_COOL_DOWN (INT64CONST(300) * USECS_PER_SEC)

PG_FUNCTION_INFO_V1(holdfast_resume_stream);

static bool
find_stream(HfRow *row, int32 queue_id, text *stream)
{
	ScanKeyData keys[2];
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	IndexScanDesc scan;
	bool		found;

	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(queue_id));
	ScanKeyEntryInitialize(&keys[1], 0, 2, BTEqualStrategyNumber, InvalidOid, C_COLLATION_OID, F_TEXTEQ,
						   PointerGetDatum(stream));
	scan = hf_index_beginscan(row->table->rel, hf_index(row->table, "_pkey"), snapshot, 2);
	index_rescan(scan, keys, 2, NULL, 0);
	found = index_getnext_slot(scan, ForwardScanDirection, row->stored);
	index_endscan(scan);
	UnregisterSnapshot(snapshot);
	if (found)
		hf_row_load(row);
	return found;
}

/* Whoever makes the row of a stream is alone with it until the transaction ends. */
static void
lock_stream_name(int32 queue_id, text *stream)
{
	LOCKTAG		tag;
	uint32		hash = DatumGetUInt32(hash_any((unsigned char *) VARDATA_ANY(stream), VARSIZE_ANY_EXHDR(stream)));

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, hf_table_oid(HF_STREAM), hash ^ (uint32) queue_id, 3);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

/* What the jobs of one stream came to in this call. */
typedef struct Ended
{
	int32		queue_id;
	text	   *stream;
	bool		success;		/* one of them succeeded: the count begins anew */
	int32		failures;		/* in a row, since the last success */
} Ended;

static void
new_stream(HfCall *call, const Ended *ended)
{
	HfRow	   *row = hf_row_new(hf_open(call, HF_STREAM));
	Interval   *cool_down = palloc0(sizeof(Interval));
	bool		open = ended->failures >= DEFAULT_THRESHOLD;

	cool_down->time = DEFAULT_COOL_DOWN;
	hf_set(row, STREAM_QUEUE, Int32GetDatum(ended->queue_id));
	hf_set(row, STREAM_KEY, PointerGetDatum(ended->stream));
	hf_set(row, STREAM_STATE, hf_word(open ? "open" : "closed"));
	hf_set(row, STREAM_CONSECUTIVE, Int32GetDatum(ended->failures));
	hf_set(row, STREAM_THRESHOLD, Int32GetDatum(DEFAULT_THRESHOLD));
	hf_set(row, STREAM_COOL_DOWN, IntervalPGetDatum(cool_down));
	if (open)
		hf_set(row, STREAM_OPENED_AT, TimestampTzGetDatum(call->now));
	hf_insert(call, row);
	hf_row_free(row);
}

static void
count_ended(HfCall *call, HfRow *row, const Ended *ended)
{
	int32		consecutive = (ended->success ? 0 : hf_int32(row, STREAM_CONSECUTIVE)) + ended->failures;

	hf_set(row, STREAM_CONSECUTIVE, Int32GetDatum(consecutive));
	if (ended->success)
	{
		hf_set(row, STREAM_STATE, hf_word("closed"));
		hf_set_null(row, STREAM_OPENED_AT);
	}
	if (ended->failures > 0 && consecutive >= hf_int32(row, STREAM_THRESHOLD))
	{
		hf_set(row, STREAM_STATE, hf_word("open"));
		hf_set(row, STREAM_OPENED_AT, TimestampTzGetDatum(call->now));
	}
	hf_update_locked(call, row);
}

static void
store_ended(HfCall *call, const Ended *ended)
{
	HfRow	   *row = hf_row_for(hf_open(call, HF_STREAM));
	bool		found = find_stream(row, ended->queue_id, ended->stream);

	if (!found && ended->failures > 0)
	{
		lock_stream_name(ended->queue_id, ended->stream);
		found = find_stream(row, ended->queue_id, ended->stream);
		if (!found)
			new_stream(call, ended);
	}
	/* a success writes only where something is counted */
	if (found && (ended->failures > 0 || hf_int32(row, STREAM_CONSECUTIVE) > 0) && hf_lock(call, row, false) == HF_LOCKED)
		count_ended(call, row, ended);
	hf_row_free(row);
}

/* A job of the stream has ended; it is counted when the call ends, last in the order of locks. */
void
hf_stream_ended(HfCall *call, int32 queue_id, text *stream, bool success)
{
	MemoryContext old = MemoryContextSwitchTo(call->cxt);
	Ended	   *ended = NULL;
	ListCell   *lc;

	foreach(lc, call->streams)
	{
		Ended	   *one = lfirst(lc);

		if (one->queue_id == queue_id && VARSIZE_ANY_EXHDR(one->stream) == VARSIZE_ANY_EXHDR(stream) &&
			memcmp(VARDATA_ANY(one->stream), VARDATA_ANY(stream), VARSIZE_ANY_EXHDR(stream)) == 0)
			ended = one;
	}
	if (ended == NULL)
	{
		ended = palloc0(sizeof(Ended));
		ended->queue_id = queue_id;
		ended->stream = (text *) DatumGetPointer(datumCopy(PointerGetDatum(stream), false, -1));
		call->streams = lappend(call->streams, ended);
	}
	if (success)
	{
		ended->success = true;
		ended->failures = 0;
	}
	else
		ended->failures++;
	MemoryContextSwitchTo(old);
}

static int
by_queue_and_name(const ListCell *a, const ListCell *b)
{
	const Ended *x = lfirst(a);
	const Ended *y = lfirst(b);
	int			len = Min(VARSIZE_ANY_EXHDR(x->stream), VARSIZE_ANY_EXHDR(y->stream));
	int			order;

	if (x->queue_id != y->queue_id)
		return x->queue_id < y->queue_id ? -1 : 1;
	order = memcmp(VARDATA_ANY(x->stream), VARDATA_ANY(y->stream), len);
	return order != 0 ? order : (int) VARSIZE_ANY_EXHDR(x->stream) - (int) VARSIZE_ANY_EXHDR(y->stream);
}

/* Count what the call has ended, stream by stream in their order. */
void
hf_streams_flush(HfCall *call)
{
	ListCell   *lc;

	list_sort(call->streams, by_queue_and_name);
	foreach(lc, call->streams)
		store_ended(call, lfirst(lc));
	call->streams = NIL;
}

/* Whether the stream holds its jobs back, and until when. */
bool
hf_stream_open(HfCall *call, int32 queue_id, text *stream, TimestampTz *until)
{
	HfRow	   *row = hf_row_for(hf_open(call, HF_STREAM));
	bool		open = false;

	if (find_stream(row, queue_id, stream) && hf_text_is(hf_get(row, STREAM_STATE), "open"))
	{
		*until = hf_time(row, STREAM_OPENED_AT) +
			hf_interval_ms(DatumGetIntervalP(hf_get(row, STREAM_COOL_DOWN)), "cool_down", 0, HF_MAX_DELAY_MS) * 1000;
		open = call->now < *until;
	}
	hf_row_free(row);
	return open;
}

/*
 * holdfast.resume_stream(queue_name text, stream text, reason text => null) returns void
 *
 * Close an open stream now.  For operators.  Errors: 42704 for an unknown
 * stream, 42501.
 */
Datum
holdfast_resume_stream(PG_FUNCTION_ARGS)
{
	HfCall		call;
	const HfQueue *queue;
	text	   *stream;
	text	   *reason;
	HfRow	   *row;
	HfDetail	detail = {0};

	hf_begin(&call, "resume_stream", true);
	queue = hf_queue_by_name(hf_arg_text(fcinfo, 0, "queue_name", HF_MAX_NAME, true));
	hf_check_granted(queue, HF_OPERATOR);
	stream = hf_arg_text(fcinfo, 1, "stream", HF_MAX_NAME, true);
	reason = hf_arg_text(fcinfo, 2, "reason", HF_MAX_TEXT, false);
	row = hf_row_for(hf_open(&call, HF_STREAM));
	if (!find_stream(row, queue->queue_id, stream) || hf_lock(&call, row, false) != HF_LOCKED)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("stream \"%s\" of queue \"%s\" does not exist", text_to_cstring(stream), queue->queue_name),
				 errhint("A stream is made by define_stream() or by its first job that ends in failure.")));
	hf_set(row, STREAM_STATE, hf_word("closed"));
	hf_set(row, STREAM_CONSECUTIVE, Int32GetDatum(0));
	hf_set_null(row, STREAM_OPENED_AT);
	hf_update(&call, row);
	hf_detail_operator(&detail, reason);
	hf_detail_text(&detail, "stream", stream);
	hf_finding(&call, "stream_resumed", queue->queue_id, NULL, NULL, hf_detail_end(&detail));
	hf_row_free(row);
	hf_end(&call);
	PG_RETURN_VOID();
}
