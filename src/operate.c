/*-------------------------------------------------------------------------
 *
 * operate.c
 *	  What operators do: cancel, purge, redrive, pause, resume.
 *
 * Every one leaves evidence of who asked and why.  A job never vanishes while
 * its ledger says unknown: it is kept in dead_job as unresolved, where it can
 * be settled or redriven.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "access/stratnum.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/snapmgr.h"

#define AT_ONCE 1000
#define AT_MOST 1000000

PG_FUNCTION_INFO_V1(holdfast_cancel);
PG_FUNCTION_INFO_V1(holdfast_purge_queue);
PG_FUNCTION_INFO_V1(holdfast_redrive);
PG_FUNCTION_INFO_V1(holdfast_redrive_queue);
PG_FUNCTION_INFO_V1(holdfast_pause_queue);
PG_FUNCTION_INFO_V1(holdfast_resume_queue);

/* Who asked, and why. */
void
hf_detail_operator(HfDetail *detail, const text *reason)
{
	hf_detail_cstring(detail, "by", GetUserNameFromId(GetUserId(), false));
	hf_detail_text(detail, "reason", reason);
}

/* ---------------------------------------------------------------- cancel, purge */

/* Note on a running job that it is to end at its next report or its lease's end. */
static void
request_cancel(HfCall *call, HfRow *job, text *reason)
{
	HfEvent		event;
	HfDetail	detail = {0};

	if (!hf_is_null(job, JOB_CANCEL_REQUESTED_AT))
		return;
	hf_set(job, JOB_CANCEL_REQUESTED_AT, TimestampTzGetDatum(call->now));
	hf_event_init(call, &event, "action_cancel_requested", job);
	hf_detail_operator(&detail, reason);
	hf_event_set(&event, EVENT_DETAIL, hf_detail_end(&detail));
	hf_event_add(call, &event);
	hf_update_locked(call, job);
}

/*
 * End a live job now, whatever its state; the caller has locked it.  Returns
 * whether it is kept as dead, since its effect is or becomes unknown.
 */
static bool
end_now(HfCall *call, HfRow *job, const char *kind, text *reason)
{
	HfRow	   *ledger = NULL;
	bool		running = !hf_is_null(job, JOB_LEASE_ID);
	bool		unknown = false;
	int			unknown_children;
	HfEvent		event;
	HfDetail	detail = {0};

	if (hf_bool(job, JOB_SIDE_EFFECTS))
		hf_ledger_lock_of(call, job, false, &ledger);
	if (ledger != NULL && hf_int64(ledger, LEDGER_JOB_ID) == hf_int64(job, JOB_ID))
	{
		unknown_children = hf_ledger_fail_children(call, ledger, job);
		if (running && hf_ledger_is(ledger, "started"))
			hf_ledger_set(call, ledger, job, "unknown", (Datum) 0);
		unknown = hf_ledger_is(ledger, "unknown") || unknown_children > 0;
	}
	if (running)
		hf_event_end_of_attempt(call, &event, kind, "cancelled", job);
	else
		hf_event_init(call, &event, kind, job);
	hf_event_set_enqueued(&event, job);
	if (ledger != NULL)
		hf_event_copy(&event, EVENT_SIDE_EFFECT_STATE, ledger, LEDGER_STATE);
	hf_detail_operator(&detail, reason);
	hf_detail_cstring(&detail, "decision", unknown ? "dead" : "cancelled");
	hf_event_set(&event, EVENT_DETAIL, hf_detail_end(&detail));
	hf_event_add(call, &event);
	if (running && ledger != NULL && !unknown && hf_ledger_is(ledger, "committed"))
		hf_job_ended(call, job, "action_attempt_succeeded", "committed", "ledger_committed");
	if (unknown)
		hf_job_die(call, job, "unresolved");
	else
		hf_job_gone(call, job);
	if (ledger != NULL)
		hf_row_free(ledger);
	return unknown;
}

/*
 * holdfast.cancel(job_id bigint, reason text => null, force boolean => false) returns text
 *
 * cancelled | requested (running: at its next report or lease's end) | dead
 * (the effect is unknown: kept as unresolved) | unknown_job.  For operators.
 */
Datum
holdfast_cancel(PG_FUNCTION_ARGS)
{
	HfCall		call;
	int64		job_id;
	text	   *reason;
	bool		force = !PG_ARGISNULL(2) && PG_GETARG_BOOL(2);
	HfRow	   *job;
	const char *outcome = "unknown_job";

	hf_begin(&call, "cancel", true);
	job_id = hf_arg_bigint(fcinfo, 0, "job_id");
	reason = hf_arg_text(fcinfo, 1, "reason", HF_MAX_TEXT, false);
	job = hf_row_for(hf_open(&call, HF_JOB));
	if (hf_find_job(job, job_id) && hf_is_granted_id(hf_int32(job, JOB_QUEUE), HF_OPERATOR) &&
		hf_lock(&call, job, false) == HF_LOCKED)
	{
		call.now = hf_clock_now();
		if (!hf_is_null(job, JOB_LEASE_ID) && !force)
		{
			request_cancel(&call, job, reason);
			outcome = "requested";
		}
		else
			outcome = end_now(&call, job, "action_cancelled", reason) ? "dead" : "cancelled";
	}
	hf_row_free(job);
	hf_end(&call);
	PG_RETURN_TEXT_P(cstring_to_text(outcome));
}

static int
by_id(const void *a, const void *b)
{
	int64		x = *(const int64 *) a;
	int64		y = *(const int64 *) b;

	return x < y ? -1 : x > y;
}

/* Up to "max" ids of rows of a queue, from an index that begins with the queue. */
int
hf_ids_of_queue(HfTable *table, Relation index, int32 queue_id, bool (*wanted) (HfRow *row, void *arg), void *arg,
				int64 **ids, int max)
{
	HfRow	   *row = hf_row_for(table);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ScanKeyData key;
	IndexScanDesc scan;
	int			n = 0;
	int			room = Min(max, AT_ONCE);

	*ids = palloc(sizeof(int64) * room);
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(queue_id));
	scan = hf_index_beginscan(table->rel, index, snapshot, 1);
	index_rescan(scan, &key, 1, NULL, 0);
	while (n < max && index_getnext_slot(scan, ForwardScanDirection, row->stored))
	{
		CHECK_FOR_INTERRUPTS();
		hf_row_load(row);
		if (!wanted(row, arg))
			continue;
		if (n == room)
			*ids = repalloc(*ids, sizeof(int64) * (room *= 2));
		(*ids)[n++] = hf_int64(row, JOB_ID);
	}
	index_endscan(scan);
	UnregisterSnapshot(snapshot);
	hf_row_free(row);
	qsort(*ids, n, sizeof(int64), by_id);
	return n;
}

static bool
may_purge(HfRow *job, void *arg)
{
	return *(bool *) arg || hf_is_null(job, JOB_LEASE_ID);
}

/*
 * holdfast.purge_queue(queue_name text, include_running boolean => false) returns bigint
 *
 * End every live job of the queue, each on record; how many.  Running jobs
 * stay unless include_running, which makes their ledger unknown.  For
 * operators.
 */
Datum
holdfast_purge_queue(PG_FUNCTION_ARGS)
{
	HfCall		call;
	bool		include_running = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);
	const HfQueue *queue;
	int64		purged = 0;
	int64	   *ids;
	int			n;

	hf_begin(&call, "purge_queue", true);
	queue = hf_queue_by_name(hf_arg_text(fcinfo, 0, "queue_name", HF_MAX_NAME, true));
	hf_check_granted(queue, HF_OPERATOR);
	do
	{
		HfTable    *table = hf_open(&call, HF_JOB);
		int64		before = purged;

		/* all of them before the first is locked, since locks are taken in the order of ids */
		n = hf_ids_of_queue(table, hf_index(table, "_dispatch"), queue->queue_id, may_purge, &include_running, &ids, AT_MOST);
		for (int i = 0; i < n; i++)
		{
			HfRow	   *job = hf_row_for(table);

			CHECK_FOR_INTERRUPTS();
			if (hf_find_job(job, ids[i]) && hf_lock(&call, job, false) == HF_LOCKED && may_purge(job, &include_running))
			{
				end_now(&call, job, "action_purged", NULL);
				purged++;
			}
			hf_row_free(job);
			if (i % AT_ONCE == AT_ONCE - 1 || i == n - 1)
			{
				hf_events_flush(&call);
				CommandCounterIncrement();
			}
		}
		pfree(ids);
		if (purged == before)
			break;
	} while (n == AT_MOST);
	hf_end(&call);
	PG_RETURN_INT64(purged);
}

/* ---------------------------------------------------------------- redrive */

/* What keeps a job with side effects from being redriven; its mode if nothing does. */
static HfRedriven
redrive_ledger(HfCall *call, HfRow *job, HfRow *live, HfRow *ledger, const char **mode, int64 *other)
{
	List	   *children;
	ListCell   *lc;

	if (hf_ledger_is(ledger, "committed"))
		return REDRIVE_COMMITTED;
	if (hf_int64(ledger, LEDGER_JOB_ID) != hf_int64(job, JOB_ID) && hf_find_job(live, hf_int64(ledger, LEDGER_JOB_ID)))
	{
		*other = hf_int64(ledger, LEDGER_JOB_ID);
		return REDRIVE_LIVE;
	}
	if (hf_ledger_any_unknown(call, ledger))
		*mode = "reconcile";
	children = hf_ledger_children(call, ledger, true);
	foreach(lc, children)
	{
		HfRow	   *child = lfirst(lc);

		if (hf_ledger_is(child, "failed_terminal"))
			hf_ledger_set(call, child, job, "planned", (Datum) 0);
		else if (hf_int64(child, LEDGER_JOB_ID) != hf_int64(job, JOB_ID) && !hf_ledger_is(child, "committed"))
			hf_ledger_set(call, child, job, text_to_cstring(hf_text(child, LEDGER_STATE)), (Datum) 0);
	}
	hf_ledger_free(children);
	hf_ledger_set(call, ledger, job, hf_ledger_is(ledger, "failed_terminal") ? "planned" :
				  text_to_cstring(hf_text(ledger, LEDGER_STATE)), (Datum) 0);
	return REDRIVEN;
}

/* Not before the time that is stored, nor before now. */
static void
set_turn(HfRow *job)
{
	hf_set(job, JOB_RUN_AFTER, TimestampTzGetDatum(hf_not_before(hf_time(job, JOB_RUN_AFTER))));
}

/* The job as it begins anew: due now, its counters from 0; or, recovered, after its policy's delay, with what is left. */
static void
renew(HfCall *call, HfRow *job, const HfRow *dead, int64 delay_ms, HfDetail *detail)
{
	static const int zeroed[] = {JOB_FAILURES, JOB_RECONCILES, JOB_LOSSES, JOB_RESUMES};
	static const int cleared[] = {JOB_CANCEL_REQUESTED_AT, JOB_FINAL_REASON, JOB_PARKED_FROM};

	hf_row_copy(job, dead, JOB_NCOLUMNS);
	for (int i = 0; i < lengthof(zeroed) && delay_ms < 0; i++)
		hf_set(job, zeroed[i], Int32GetDatum(0));
	for (int i = 0; i < lengthof(cleared); i++)
		hf_set_null(job, cleared[i]);
	if (!hf_is_null(job, JOB_GIVE_UP_AT) && hf_time(job, JOB_GIVE_UP_AT) <= call->now)
	{
		hf_detail_time(detail, "give_up_at_cleared", hf_time(job, JOB_GIVE_UP_AT));
		hf_set_null(job, JOB_GIVE_UP_AT);
	}
	hf_set(job, JOB_STATUS, hf_word("pending"));
	hf_set(job, JOB_RUN_AFTER, TimestampTzGetDatum(call->now + Max(delay_ms, 0) * 1000));
	set_turn(job);
}

/* Enter the job again.  REDRIVE_LIVE: another without side effects has its key. */
static HfRedriven
enter_again(HfCall *call, HfRow *job, HfRow *live, int64 *other)
{
	HfRow	   *ledger;
	HfRedriven	refused = REDRIVEN;

	if (hf_bool(job, JOB_SIDE_EFFECTS))
	{
		hf_insert(call, job);
		return REDRIVEN;
	}
	ledger = hf_row_for(hf_open(call, HF_LEDGER));
	if (hf_key_taken(ledger, "_pkey", hf_uuid(job, JOB_KEY)) && hf_find_key(ledger, hf_uuid(job, JOB_KEY)))
		refused = hf_ledger_is(ledger, "committed") ? REDRIVE_COMMITTED : REDRIVE_DECLARED;
	hf_row_free(ledger);
	if (refused != REDRIVEN)
		return refused;
	while (!hf_insert_unique(call, job, "_live_key", hf_uuid(job, JOB_KEY), live, set_turn))
		if (hf_find_live_key(live, hf_uuid(job, JOB_KEY)))
		{
			*other = hf_int64(live, JOB_ID);
			return REDRIVE_LIVE;
		}
	return REDRIVEN;
}

static void
add_redriven_event(HfCall *call, HfEvent *event, HfRow *job, const HfRow *ledger, const HfRow *dead, text *reason,
				   int64 delay_ms, HfDetail *detail)
{
	hf_event_set(event, EVENT_NEXT_NOT_BEFORE, hf_get(job, JOB_RUN_AFTER));
	if (delay_ms >= 0)
	{
		hf_event_set(event, EVENT_DELAY_MS, Int64GetDatum(delay_ms));
		hf_event_set(event, EVENT_RETRY_POLICY,
					 CStringGetTextDatum(hf_job_policy(job, hf_queue_by_id(hf_int32(job, JOB_QUEUE)))->name));
		hf_detail_bool(detail, "recovered", true);
	}
	if (ledger != NULL)
		hf_event_copy(event, EVENT_SIDE_EFFECT_STATE, ledger, LEDGER_STATE);
	hf_detail_operator(detail, reason);
	hf_detail_text(detail, "was_dead_by", hf_text(dead, DEAD_REASON));
	hf_detail_int(detail, "failures_before", hf_int32(dead, JOB_FAILURES));
	hf_detail_int(detail, "reconciles_before", hf_int32(dead, JOB_RECONCILES));
	hf_detail_int(detail, "losses_before", hf_int32(dead, JOB_LOSSES));
	hf_detail_int(detail, "resumes_before", hf_int32(dead, JOB_RESUMES));
	hf_event_set(event, EVENT_DETAIL, hf_detail_end(detail));
	hf_event_add(call, event);
}

/*
 * Put a dead job back, locked and loaded; what keeps it from that is answered,
 * *other names a live job.  With a delay (or -1) it is recovered: no operator
 * asked for it.
 */
HfRedriven
hf_redrive(HfCall *call, HfRow *dead, text *reason, int64 delay_ms, int64 *other)
{
	HfRow	   *job = hf_row_new(hf_open(call, HF_JOB));
	HfRow	   *live = hf_row_for(hf_open(call, HF_JOB));
	HfRow	   *ledger = NULL;
	HfRedriven	result = REDRIVEN;
	const char *mode = "execute";
	HfEvent		event;
	HfDetail	detail = {0};

	renew(call, job, dead, delay_ms, &detail);
	if (hf_bool(job, JOB_SIDE_EFFECTS) && hf_ledger_lock_of(call, job, false, &ledger) == HF_LEDGER_HELD)
		result = redrive_ledger(call, job, live, ledger, &mode, other);
	hf_set(job, JOB_MODE, hf_word(mode));
	hf_event_init(call, &event, "action_redriven", job);	/* the row that is entered notes the event's time */
	if (result == REDRIVEN)
		result = enter_again(call, job, live, other);
	if (result == REDRIVEN)
	{
		add_redriven_event(call, &event, job, ledger, dead, reason, delay_ms, &detail);
		hf_delete_locked(call, dead);
		hf_hint_pending(hf_int32(job, JOB_QUEUE), strcmp(mode, "reconcile") == 0, hf_int32(job, JOB_PRIORITY),
							hf_time(job, JOB_RUN_AFTER), hf_int64(job, JOB_ID));
	}
	if (ledger != NULL)
		hf_row_free(ledger);
	hf_row_free(live);
	hf_row_free(job);
	return result;
}

/*
 * holdfast.redrive(job_id bigint, reason text) returns setof (outcome text, job_id bigint)
 *
 * Put a dead job back, due now; attempt_number goes on, the counters begin
 * again.  For operators.  Errors: JQ004 if its key is committed, has another
 * live job, is known with side effects by now, or its queue is gone; 22004
 * without a reason.
 */
Datum
holdfast_redrive(PG_FUNCTION_ARGS)
{
	HfCall		call;
	int64		job_id;
	text	   *reason;
	HfRow	   *dead;
	Datum		values[2] = {hf_word("unknown_job"), (Datum) 0};
	bool		nulls[2] = {false, true};
	int64		other = 0;

	hf_begin(&call, "redrive", true);
	job_id = hf_arg_bigint(fcinfo, 0, "job_id");
	reason = hf_arg_text(fcinfo, 1, "reason", HF_MAX_TEXT, true);
	dead = hf_row_for(hf_open(&call, HF_DEAD_JOB));
	if (hf_find_job(dead, job_id) && hf_is_granted_id(hf_int32(dead, JOB_QUEUE), HF_OPERATOR) &&
		hf_lock(&call, dead, false) == HF_LOCKED)
	{
		HfRedriven	result = REDRIVE_GONE;

		call.now = hf_clock_now();
		if (hf_queue_by_id(hf_int32(dead, JOB_QUEUE)) != NULL)
			result = hf_redrive(&call, dead, reason, -1, &other);
		if (result != REDRIVEN)
		{
			hf_remember_job_refusal(&call, dead, ERRCODE_HF_ILLEGAL_TRANSITION, "redrive");
			ereport(ERROR,
					(errcode(ERRCODE_HF_ILLEGAL_TRANSITION),
					 errmsg("job " INT64_FORMAT " cannot be redriven", job_id),
					 result == REDRIVE_COMMITTED ? errdetail("Its side effect has landed already.") :
					 result == REDRIVE_LIVE ? errdetail("Job " INT64_FORMAT " of the same intent is live.", other) :
					 result == REDRIVE_DECLARED ? errdetail("Its key is known with side effects by now.") :
					 errdetail("Its queue has been dropped."),
					 errhint("Another intent needs another intent_version or scope: enqueue it.")));
		}
		values[0] = hf_word("redriven");
		values[1] = Int64GetDatum(job_id);
		nulls[1] = false;
	}
	hf_answer_row(fcinfo, "tl", values, nulls);
	hf_row_free(dead);
	hf_end(&call);
	return (Datum) 0;
}

typedef struct RedriveFilter
{
	text	   *action_key;
	text	   *error_class;
	TimestampTz since;			/* or 0 */
} RedriveFilter;

static bool
text_matches(HfRow *row, int column, text *wanted)
{
	return wanted == NULL ||
		(!hf_is_null(row, column) &&
		 DatumGetBool(DirectFunctionCall2Coll(texteq, C_COLLATION_OID, hf_get(row, column), PointerGetDatum(wanted))));
}

static bool
passes_filter(HfRow *dead, void *arg)
{
	RedriveFilter *f = arg;

	return text_matches(dead, JOB_ACTION_KEY, f->action_key) &&
		text_matches(dead, JOB_LAST_ERROR_CLASS, f->error_class) &&
		(f->since == 0 || hf_time(dead, DEAD_ENDED_AT) >= f->since);
}

/*
 * holdfast.redrive_queue(queue_name text, reason text, action_key text => null,
 *						  error_class text => null, since timestamptz => null, max int => 1000)
 *		returns setof (redriven bigint, skipped bigint)
 *
 * redrive by filter, oldest first; jobs whose key is committed or has another
 * live job are skipped and counted.  For operators.
 */
Datum
holdfast_redrive_queue(PG_FUNCTION_ARGS)
{
	HfCall		call;
	text	   *reason;
	RedriveFilter filter;
	int			max;
	const HfQueue *queue;
	HfTable    *table;
	int64	   *ids;
	int			n;
	int64		redriven = 0;
	int64		skipped = 0;
	Datum		values[2];
	bool		nulls[2] = {false, false};

	hf_begin(&call, "redrive_queue", true);
	queue = hf_queue_by_name(hf_arg_text(fcinfo, 0, "queue_name", HF_MAX_NAME, true));
	hf_check_granted(queue, HF_OPERATOR);
	reason = hf_arg_text(fcinfo, 1, "reason", HF_MAX_TEXT, true);
	filter.action_key = hf_arg_text(fcinfo, 2, "action_key", HF_MAX_NAME, false);
	filter.error_class = hf_arg_text(fcinfo, 3, "error_class", HF_MAX_NAME, false);
	filter.since = PG_ARGISNULL(4) ? 0 : hf_arg_timestamp(fcinfo, 4, "since");
	max = hf_arg_int(fcinfo, 5, "max", 1, AT_MOST);
	table = hf_open(&call, HF_DEAD_JOB);
	n = hf_ids_of_queue(table, hf_index(table, "_queue"), queue->queue_id, passes_filter, &filter, &ids, AT_MOST);
	for (int i = 0; i < n && redriven < max; i++)
	{
		HfRow	   *dead = hf_row_for(table);
		int64		other;

		CHECK_FOR_INTERRUPTS();
		if (hf_find_job(dead, ids[i]) && hf_lock(&call, dead, false) == HF_LOCKED)
		{
			call.now = hf_clock_now();
			if (hf_redrive(&call, dead, reason, -1, &other) == REDRIVEN)
				redriven++;
			else
				skipped++;
		}
		hf_row_free(dead);
		if (i % AT_ONCE == AT_ONCE - 1)
			hf_events_flush(&call);
		CommandCounterIncrement();	/* the next may be of the same intent */
	}
	values[0] = Int64GetDatum(redriven);
	values[1] = Int64GetDatum(skipped);
	hf_answer_row(fcinfo, "ll", values, nulls);
	hf_end(&call);
	return (Datum) 0;
}

/* ---------------------------------------------------------------- pause, resume */

static Datum
set_paused(FunctionCallInfo fcinfo, const char *function, bool paused)
{
	HfCall		call;
	text	   *reason;
	const HfQueue *queue;
	HfRow	   *row;
	HfDetail	detail = {0};

	hf_begin(&call, function, true);
	queue = hf_queue_by_name(hf_arg_text(fcinfo, 0, "queue_name", HF_MAX_NAME, true));
	hf_check_granted(queue, HF_OPERATOR);
	reason = hf_arg_text(fcinfo, 1, "reason", HF_MAX_TEXT, false);
	row = hf_row_for(hf_open(&call, HF_QUEUE));
	if (hf_find_queue(row, queue->queue_id) && hf_lock(&call, row, false) == HF_LOCKED)
	{
		hf_set(row, QUEUE_PAUSED, BoolGetDatum(paused));
		if (paused && reason != NULL)
			hf_set(row, QUEUE_PAUSE_REASON, PointerGetDatum(reason));
		else
			hf_set_null(row, QUEUE_PAUSE_REASON);
		hf_update(&call, row);
		CacheInvalidateRelcache(row->table->rel);
		hf_detail_operator(&detail, reason);
		hf_finding(&call, paused ? "queue_paused" : "queue_resumed", queue->queue_id, NULL, NULL, hf_detail_end(&detail));
	}
	hf_row_free(row);
	hf_end(&call);
	PG_RETURN_VOID();
}

/*
 * holdfast.pause_queue(queue_name text, reason text => null) returns void
 *
 * Hand out no more jobs of the queue; what runs goes on.  For operators.
 */
Datum
holdfast_pause_queue(PG_FUNCTION_ARGS)
{
	return set_paused(fcinfo, "pause_queue", true);
}

/* holdfast.resume_queue(queue_name text, reason text => null) returns void */
Datum
holdfast_resume_queue(PG_FUNCTION_ARGS)
{
	return set_paused(fcinfo, "resume_queue", false);
}
