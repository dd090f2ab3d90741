/*-------------------------------------------------------------------------
 *
 * stream.c
 *	  Streams: breaker groups of jobs.
 *
 * A stream counts jobs of it that ended in failure, in a row, and never
 * retryable attempts: it parks what waits, it ends nothing early (G4).  At its
 * threshold it opens; when the cool-down is over one job at a time is handed
 * out for a trial; a job that succeeds closes it, one that ends in failure
 * begins another cool-down.
 *
 * Whoever ends a job writes its stream, last in the lock order.  A claim reads
 * streams unlocked, and writes one only to name the trial, under a lock that
 * it does not wait for: two claims must not both have one.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "access/stratnum.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"

#define DEFAULT_THRESHOLD 5
#define DEFAULT_COOL_DOWN (INT64CONST(300) * USECS_PER_SEC)
#define RESUME_AT_MOST 1000000

PG_FUNCTION_INFO_V1(holdfast_resume_stream);
PG_FUNCTION_INFO_V1(holdfast_settle_streams);

static bool
same_text(Datum a, Datum b)
{
	return DatumGetBool(DirectFunctionCall2Coll(texteq, C_COLLATION_OID, a, b));
}

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
	uint32		hash = DatumGetUInt32(hash_any((unsigned char *) VARDATA_ANY(stream), VARSIZE_ANY_EXHDR(stream)));

	(void) hf_be_alone(hf_table_oid(HF_STREAM), hash ^ (uint32) queue_id, true);
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
note_change(HfCall *call, const HfRow *row, const char *kind, const HfRow *job)
{
	HfDetail	detail = {0};

	hf_detail_text(&detail, "stream", hf_text(row, STREAM_KEY));
	hf_detail_int(&detail, "consecutive_terminal", hf_int32(row, STREAM_CONSECUTIVE));
	hf_detail_int(&detail, "threshold", hf_int32(row, STREAM_THRESHOLD));
	if (!hf_is_null(row, STREAM_COOL_DOWN_ENDS))
		hf_detail_time(&detail, "cool_down_ends", hf_time(row, STREAM_COOL_DOWN_ENDS));
	hf_finding(call, kind, hf_int32(row, STREAM_QUEUE), job, NULL, hf_detail_end(&detail));
}

/* Hold its jobs back; opened_at stays where it holds them already. */
static void
open_stream(HfCall *call, HfRow *row)
{
	int64		cool_down = hf_stored_ms(hf_get(row, STREAM_COOL_DOWN), 0);

	if (hf_text_is(hf_get(row, STREAM_STATE), "closed"))
		hf_set(row, STREAM_OPENED_AT, TimestampTzGetDatum(call->now));
	hf_set(row, STREAM_STATE, hf_word("open"));
	hf_set(row, STREAM_COOL_DOWN_ENDS, TimestampTzGetDatum(call->now + cool_down * 1000));
	hf_set(row, STREAM_HOLDS, BoolGetDatum(true));
	hf_set_null(row, STREAM_CLOSED_AT);
	hf_set_null(row, STREAM_TRIAL_JOB_ID);
	note_change(call, row, "stream_opened", NULL);
}

/* opened_at stays: what waited through the outage, and nobody looked at, is given that time later. */
static void
close_stream(HfCall *call, HfRow *row)
{
	hf_set(row, STREAM_CONSECUTIVE, Int32GetDatum(0));
	if (hf_text_is(hf_get(row, STREAM_STATE), "closed"))
		return;
	hf_set(row, STREAM_STATE, hf_word("closed"));
	hf_set(row, STREAM_CLOSED_AT, TimestampTzGetDatum(call->now));
	hf_set_null(row, STREAM_COOL_DOWN_ENDS);
	hf_set_null(row, STREAM_TRIAL_JOB_ID);
}

static void
new_stream(HfCall *call, const Ended *ended)
{
	HfRow	   *row = hf_row_new(hf_open(call, HF_STREAM));
	Interval   *cool_down = palloc0(sizeof(Interval));

	cool_down->time = DEFAULT_COOL_DOWN;
	hf_set(row, STREAM_QUEUE, Int32GetDatum(ended->queue_id));
	hf_set(row, STREAM_KEY, PointerGetDatum(ended->stream));
	hf_set(row, STREAM_STATE, hf_word("closed"));
	hf_set(row, STREAM_CONSECUTIVE, Int32GetDatum(ended->failures));
	hf_set(row, STREAM_THRESHOLD, Int32GetDatum(DEFAULT_THRESHOLD));
	hf_set(row, STREAM_COOL_DOWN, IntervalPGetDatum(cool_down));
	hf_set(row, STREAM_HOLDS, BoolGetDatum(false));
	if (ended->failures >= DEFAULT_THRESHOLD)
		open_stream(call, row);
	hf_insert(call, row);
	hf_row_free(row);
}

static void
count_ended(HfCall *call, HfRow *row, const Ended *ended)
{
	if (ended->success)
	{
		bool		was_closed = hf_text_is(hf_get(row, STREAM_STATE), "closed");

		close_stream(call, row);
		if (!was_closed)
			note_change(call, row, "stream_closed", NULL);
	}
	if (ended->failures > 0)
	{
		hf_set(row, STREAM_CONSECUTIVE, Int32GetDatum(hf_int32(row, STREAM_CONSECUTIVE) + ended->failures));
		/* one that holds its jobs back already goes on, whatever its threshold has become */
		if (hf_int32(row, STREAM_CONSECUTIVE) >= hf_int32(row, STREAM_THRESHOLD) ||
			!hf_text_is(hf_get(row, STREAM_STATE), "closed"))
			open_stream(call, row);
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
	{
		call->now = hf_clock_now();
		count_ended(call, row, ended);
	}
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

		if (one->queue_id == queue_id && same_text(PointerGetDatum(one->stream), PointerGetDatum(stream)))
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

/* ---------------------------------------------------------------- jobs held back */

/* Whether the stream, as the row says, holds the job back now, and until when. */
static bool
holds_back(HfCall *call, const HfRow *row, int64 job_id, TimestampTz *until)
{
	HfRow	   *trial;
	bool		running;

	if (hf_text_is(hf_get(row, STREAM_STATE), "closed"))
		return false;
	*until = hf_time(row, STREAM_COOL_DOWN_ENDS);
	if (call->now < *until || hf_is_null(row, STREAM_TRIAL_JOB_ID) || hf_int64(row, STREAM_TRIAL_JOB_ID) == job_id)
		return call->now < *until;
	trial = hf_row_for(hf_open(call, HF_JOB));
	running = hf_find_job(trial, hf_int64(row, STREAM_TRIAL_JOB_ID)) && !hf_is_null(trial, JOB_LEASE_ID) &&
		call->now < hf_time(trial, JOB_LEASE_EXPIRES_AT);
	if (running)
		*until = hf_time(trial, JOB_LEASE_EXPIRES_AT);
	hf_row_free(trial);
	return running;
}

/* A time so much later, or earlier, but none that PostgreSQL cannot read again. */
static TimestampTz
moved_by(TimestampTz at, int64 by)
{
	return by > 0 && at >= END_TIMESTAMP - by ? END_TIMESTAMP - 1 : Max(at + by, MIN_TIMESTAMP);
}

/*
 * Give the job a new turn, on record, and move its give_up_at by "credit": the
 * time that its stream takes from it, or gives back.
 */
static void
move_turn(HfCall *call, HfRow *job, TimestampTz run_after, int64 credit, const char *reason, const char *because)
{
	HfEvent		event;
	HfDetail	detail = {0};

	run_after = hf_not_before(run_after);
	hf_event_init(call, &event, "action_deferred", job);
	hf_event_set_enqueued(&event, job);
	hf_event_set(&event, EVENT_NEXT_NOT_BEFORE, TimestampTzGetDatum(run_after));
	hf_event_set(&event, EVENT_DELAY_MS, Int64GetDatum(Max((run_after - call->now) / 1000, 0)));
	hf_detail_cstring(&detail, "reason", reason);
	hf_detail_cstring(&detail, "because", because);
	hf_detail_text(&detail, "stream", hf_text(job, JOB_STREAM));
	if (!hf_is_null(job, JOB_GIVE_UP_AT) && credit != 0)
	{
		hf_set(job, JOB_GIVE_UP_AT, TimestampTzGetDatum(moved_by(hf_time(job, JOB_GIVE_UP_AT), credit)));
		hf_detail_time(&detail, "give_up_at", hf_time(job, JOB_GIVE_UP_AT));
	}
	hf_event_set(&event, EVENT_DETAIL, hf_detail_end(&detail));
	hf_event_add(call, &event);
	hf_set(job, JOB_RUN_AFTER, TimestampTzGetDatum(run_after));
	hf_update_locked(call, job);
	hf_hint_pending(hf_int32(job, JOB_QUEUE), hf_text_is(hf_get(job, JOB_MODE), "reconcile"),
						hf_int32(job, JOB_PRIORITY), run_after, hf_int64(job, JOB_ID));
}

/* Since when the outage keeps the job waiting: it has had no turn since its run_after. */
static TimestampTz
held_since(const HfRow *row, const HfRow *job)
{
	return Max(hf_time(row, STREAM_OPENED_AT), hf_time(job, JOB_RUN_AFTER));
}

static void
park(HfCall *call, HfRow *job, const HfRow *row, TimestampTz until)
{
	TimestampTz since = held_since(row, job);
	char	   *stream = text_to_cstring(hf_text(row, STREAM_KEY));

	if (hf_is_null(job, JOB_PARKED_FROM))
		hf_set(job, JOB_PARKED_FROM, TimestampTzGetDatum(since));
	move_turn(call, job, until, until - since, "stream_open",
			  hf_is_null(row, STREAM_TRIAL_JOB_ID) ?
			  psprintf("stream %s is open: %d jobs in a row ended in failure", stream, hf_int32(row, STREAM_CONSECUTIVE)) :
			  psprintf("stream %s is open, and job " INT64_FORMAT " is on trial", stream, hf_int64(row, STREAM_TRIAL_JOB_ID)));
}

static void
bring_back(HfCall *call, HfRow *job)
{
	TimestampTz turn = Max(call->now, hf_time(job, JOB_PARKED_FROM));
	int64		unspent = Max(hf_time(job, JOB_RUN_AFTER) - turn, 0);

	hf_set_null(job, JOB_PARKED_FROM);
	move_turn(call, job, turn, -unspent, "stream_closed",
			  psprintf("stream %s is closed", text_to_cstring(hf_text(job, JOB_STREAM))));
}

/*
 * This call has named the stream's trial.  Both versions of the row are
 * remembered, by their places: what a call stores is not seen by its own
 * reads, but in a later pass of the claim.
 */
static void
note_trial(HfCall *call, const HfRow *row)
{
	MemoryContext old = MemoryContextSwitchTo(call->cxt);
	ItemPointer places = palloc(2 * sizeof(ItemPointerData));

	places[0] = row->stored->tts_tid;
	places[1] = row->next->tts_tid;
	call->trials = lappend(lappend(call->trials, &places[0]), &places[1]);
	MemoryContextSwitchTo(old);
}

static bool
has_named_trial(HfCall *call, const HfRow *row)
{
	ListCell   *lc;

	foreach(lc, call->trials)
		if (ItemPointerEquals(lfirst(lc), &row->stored->tts_tid))
			return true;
	return false;
}

/*
 * A claim would hand the job out, which it has locked.  PASS: it may, perhaps
 * as the stream's trial.  PARKED: the job has been put off.  STEP_OVER: the
 * trial is just being named, by another claim or by this one.
 */
HfGate
hf_stream_gate(HfCall *call, HfRow *job)
{
	HfRow	   *row = hf_row_for(hf_open(call, HF_STREAM));
	HfGate		gate = HF_GATE_PASS;
	TimestampTz until;

	if (!find_stream(row, hf_int32(job, JOB_QUEUE), hf_text(job, JOB_STREAM)) ||
		hf_text_is(hf_get(row, STREAM_STATE), "closed"))
	{
		hf_row_free(row);
		return HF_GATE_PASS;
	}
	if (has_named_trial(call, row))
		gate = HF_GATE_STEP_OVER;
	else if (holds_back(call, row, hf_int64(job, JOB_ID), &until))
	{
		park(call, job, row, until);
		gate = HF_GATE_PARKED;
	}
	else if (!hf_is_null(row, STREAM_TRIAL_JOB_ID) && hf_int64(row, STREAM_TRIAL_JOB_ID) == hf_int64(job, JOB_ID))
		;						/* it is on trial already */
	else if (hf_lock(call, row, true) != HF_LOCKED)
		gate = HF_GATE_STEP_OVER;
	else
	{
		hf_set(row, STREAM_STATE, hf_word("trial"));
		hf_set(row, STREAM_TRIAL_JOB_ID, hf_get(job, JOB_ID));
		note_change(call, row, "stream_trial", job);
		hf_update_locked(call, row);
		note_trial(call, row);
	}
	hf_row_free(row);
	return gate;
}

/*
 * A pending job, locked, is past its give_up_at.  True if its stream kept it
 * waiting, so that it is not yet: the time is given back, and the job parked
 * where the stream still holds it.
 */
bool
hf_stream_excuses(HfCall *call, HfRow *job)
{
	HfRow	   *row = hf_row_for(hf_open(call, HF_STREAM));
	bool		excused = false;
	TimestampTz until;

	/* one whose time was up before its stream began to hold it has lost nothing by that */
	if (find_stream(row, hf_int32(job, JOB_QUEUE), hf_text(job, JOB_STREAM)) && !hf_is_null(row, STREAM_OPENED_AT) &&
		hf_time(job, JOB_GIVE_UP_AT) > held_since(row, job))
	{
		if (holds_back(call, row, hf_int64(job, JOB_ID), &until))
		{
			park(call, job, row, until);
			excused = true;
		}
		else
		{
			/* an outage that is over; what was parked has had its credit */
			until = hf_is_null(row, STREAM_CLOSED_AT) ? hf_time(row, STREAM_COOL_DOWN_ENDS) : hf_time(row, STREAM_CLOSED_AT);
			if (hf_is_null(job, JOB_PARKED_FROM) && hf_time(job, JOB_RUN_AFTER) < until &&
				call->now < hf_time(job, JOB_GIVE_UP_AT) + (until - held_since(row, job)))
			{
				move_turn(call, job, call->now, until - held_since(row, job), "stream_was_open",
						  psprintf("stream %s was open", text_to_cstring(hf_text(row, STREAM_KEY))));
				excused = true;
			}
		}
	}
	hf_row_free(row);
	return excused;
}

/* ---------------------------------------------------------------- maintain, resume */

/* Which jobs of a queue are to be parked, or brought back. */
typedef struct Wanted
{
	HfCall	   *call;
	HfRow	   *row;			/* the stream looked at last */
	bool		found;
	text	   *only;			/* one stream, whose jobs are brought back; or NULL: by each stream's state */
} Wanted;

/* Whether the job is to be parked until *until; or, with *until 0, brought back. */
static bool
is_wanted(Wanted *w, HfRow *job, TimestampTz *until)
{
	*until = 0;
	if (hf_is_null(job, JOB_STREAM) || !hf_is_null(job, JOB_LEASE_ID))
		return false;
	if (w->only != NULL)
		return !hf_is_null(job, JOB_PARKED_FROM) && same_text(hf_get(job, JOB_STREAM), PointerGetDatum(w->only));
	if (!w->found || !same_text(hf_get(job, JOB_STREAM), hf_get(w->row, STREAM_KEY)))
		w->found = find_stream(w->row, hf_int32(job, JOB_QUEUE), hf_text(job, JOB_STREAM));
	if (!w->found)
		return false;
	if (holds_back(w->call, w->row, hf_int64(job, JOB_ID), until))
		return hf_time(job, JOB_RUN_AFTER) < *until;
	*until = 0;
	return hf_text_is(hf_get(w->row, STREAM_STATE), "closed") && !hf_is_null(job, JOB_PARKED_FROM) &&
		hf_time(job, JOB_RUN_AFTER) > w->call->now;
}

static bool
wanted(HfRow *job, void *arg)
{
	TimestampTz until;

	return is_wanted(arg, job, &until);
}

static int64
park_or_bring_back(HfCall *call, int32 queue_id, text *only, int max)
{
	HfTable    *table = hf_open(call, HF_JOB);
	Wanted		w = {call, hf_row_for(hf_open(call, HF_STREAM)), false, only};
	int64	   *ids;
	int			n = hf_ids_of_queue(table, hf_index(table, "_dispatch"), queue_id, wanted, &w, &ids, max);
	int64		moved = 0;

	for (int i = 0; i < n; i++)
	{
		HfRow	   *job = hf_row_for(table);
		TimestampTz until;

		CHECK_FOR_INTERRUPTS();
		/* one that a claim has just now need not be waited for */
		if (hf_find_job(job, ids[i]) && hf_lock(call, job, only == NULL) == HF_LOCKED && is_wanted(&w, job, &until))
		{
			if (until != 0)
				park(call, job, w.row, until);
			else
				bring_back(call, job);
			moved++;
		}
		hf_row_free(job);
	}
	hf_row_free(w.row);
	pfree(ids);
	return moved;
}

/*
 * holdfast.settle_streams(queue integer, max integer) returns bigint
 *
 * Park the pending jobs of a queue's open streams, and bring back those of
 * closed ones: how many.  For maintain(): a claim parks only what it meets.
 */
Datum
holdfast_settle_streams(PG_FUNCTION_ARGS)
{
	HfCall		call;
	int32		queue_id = hf_arg_int(fcinfo, 0, "queue", PG_INT32_MIN, PG_INT32_MAX);
	int32		max = hf_arg_int(fcinfo, 1, "max", 1, 1000000);
	int64		moved;

	hf_begin(&call, "settle_streams", true);
	moved = park_or_bring_back(&call, queue_id, NULL, max);
	hf_end(&call);
	PG_RETURN_INT64(moved);
}

/*
 * holdfast.resume_stream(queue_name text, stream text, reason text => null) returns void
 *
 * Close an open stream now, and bring its parked jobs back.  For operators.
 * Errors: 42704 for an unknown stream, 42501.
 */
Datum
holdfast_resume_stream(PG_FUNCTION_ARGS)
{
	HfCall		call;
	const HfQueue *queue;
	text	   *stream;
	text	   *reason;
	HfRow	   *row;
	int64		moved;
	HfDetail	detail = {0};

	hf_begin(&call, "resume_stream", true);
	queue = hf_queue_by_name(hf_arg_text(fcinfo, 0, "queue_name", HF_MAX_NAME, true));
	hf_check_granted(queue, HF_OPERATOR);
	stream = hf_arg_text(fcinfo, 1, "stream", HF_MAX_NAME, true);
	reason = hf_arg_text(fcinfo, 2, "reason", HF_MAX_TEXT, false);
	row = hf_row_for(hf_open(&call, HF_STREAM));
	/* jobs before their stream, in the order of locks; what is parked meanwhile comes back by maintain() */
	moved = find_stream(row, queue->queue_id, stream) ?
		park_or_bring_back(&call, queue->queue_id, stream, RESUME_AT_MOST) : 0;
	if (!find_stream(row, queue->queue_id, stream) || hf_lock(&call, row, false) != HF_LOCKED)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("stream \"%s\" of queue \"%s\" does not exist", text_to_cstring(stream), queue->queue_name),
				 errhint("A stream is made by define_stream() or by its first job that ends in failure.")));
	call.now = hf_clock_now();
	close_stream(&call, row);
	hf_update_locked(&call, row);
	hf_detail_operator(&detail, reason);
	hf_detail_text(&detail, "stream", stream);
	hf_detail_int(&detail, "jobs_brought_back", moved);
	hf_finding(&call, "stream_resumed", queue->queue_id, NULL, NULL, hf_detail_end(&detail));
	hf_row_free(row);
	hf_end(&call);
	PG_RETURN_VOID();
}
