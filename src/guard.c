/*-------------------------------------------------------------------------
 *
 * guard.c
 *	  Plain SQL on our own tables passes through the state machine too.
 *
 * Triggers, ENABLE ALWAYS, on UPDATE, DELETE and TRUNCATE.  What breaks an
 * invariant is refused BEFORE ROW; what is accepted leaves its evidence AFTER
 * ROW, from the row as it was stored.  BEFORE decides what the state machine
 * adds to the row (the charge of a failure, mode reconcile, the time reserved
 * for the events), AFTER writes the events and the ledger.
 *
 * The library's own writes go through the access methods and fire no trigger;
 * what the extension does by SQL passes (hf_is_own).  No guard decides on
 * INSERT: a restore is one, and needs no setting.  An INSERT by anybody but a
 * superuser, who alone can restore, is put on record.
 *
 * Which change is legal is said in docs/state-machine.md, "By hand".
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "catalog/namespace.h"
#include "catalog/pg_type_d.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "parser/parse_func.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

#define EVENTS_RESERVED 3		/* microseconds: an event each, of one change by hand */
#define HF_MAX_SHOWN 200		/* bytes of a changed value in the evidence */

typedef struct Guard
{
	HfCall		call;
	TriggerData *trigger;
	const char *op;				/* UPDATE, DELETE, TRUNCATE */
	char	   *table;
	HfTableId	id;
	HfRow	   *old;
	HfRow	   *new;			/* of an UPDATE */
	bool		changed[DEAD_NCOLUMNS];
	bool	   *replaced;		/* by attribute: what the state machine puts into the new row */
} Guard;

PG_FUNCTION_INFO_V1(holdfast_guard);

/* ---------------------------------------------------------------- who, and what */

static char *
shown(const char *string, int max)
{
	return pnstrdup(string, pg_mbcliplen(string, strlen(string), max));
}

/* Who is at it, as whom, from what program and with which statement. */
void
hf_detail_who(HfDetail *detail)
{
	hf_detail_cstring(detail, "by", GetUserNameFromId(GetUserId(), false));
	if (GetSessionUserId() != GetUserId())
		hf_detail_cstring(detail, "session_user", GetUserNameFromId(GetSessionUserId(), true));
	if (application_name != NULL && application_name[0] != '\0')
		hf_detail_cstring(detail, "application", application_name);
	if (debug_query_string != NULL)
		hf_detail_cstring(detail, "statement", shown(debug_query_string, HF_MAX_TEXT));
}

/* Equal as stored; an unchanged value out of line is not fetched. */
static bool
same_value(Form_pg_attribute att, Datum a, bool a_null, Datum b, bool b_null)
{
	if (a_null || b_null)
		return a_null && b_null;
	if (att->attlen == -1 && VARATT_IS_EXTERNAL_ONDISK(DatumGetPointer(a)) && VARATT_IS_EXTERNAL_ONDISK(DatumGetPointer(b)) &&
		memcmp(DatumGetPointer(a), DatumGetPointer(b), VARSIZE_EXTERNAL(DatumGetPointer(a))) == 0)
		return true;
	return datum_image_eq(a, b, att->attbyval, att->attlen);
}

static char *
show_value(Form_pg_attribute att, Datum value)
{
	Oid			output;
	bool		varlena;

	getTypeOutputInfo(att->atttypid, &output, &varlena);
	return shown(OidOutputFunctionCall(output, value), HF_MAX_SHOWN);
}

/* {"column": {"from": ..., "to": ...}, ...} of what differs; of a DELETE, all that was there but for the payload. */
static void
detail_changes(HfDetail *detail, TriggerData *trigger)
{
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);
	HeapTuple	new = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? trigger->tg_newtuple : NULL;
	HfDetail	all = {0};
	Datum		changes;

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		HfDetail	one = {0};
		bool		from_null;
		bool		to_null = true;
		Datum		from = heap_getattr(trigger->tg_trigtuple, i + 1, desc, &from_null);
		Datum		to = new != NULL ? heap_getattr(new, i + 1, desc, &to_null) : (Datum) 0;

		if (att->attisdropped || strcmp(NameStr(att->attname), "payload") == 0 ||
			strcmp(NameStr(att->attname), "last_event_at") == 0 || same_value(att, from, from_null, to, to_null))
			continue;
		if (!from_null)
			hf_detail_cstring(&one, "from", show_value(att, from));
		if (!to_null)
			hf_detail_cstring(&one, "to", show_value(att, to));
		hf_detail_jsonb(&all, NameStr(att->attname), DatumGetJsonbP(hf_detail_end(&one)));
	}
	changes = hf_detail_end(&all);
	if (changes != (Datum) 0)
		hf_detail_jsonb(detail, "changed", DatumGetJsonbP(changes));
}

/* ---------------------------------------------------------------- refusals */

/* An event that carries what a ledger row, or an event, says of its job. */
static void
event_of_row(HfEvent *event, const HfRow *row, const int pairs[][2], int npairs)
{
	memset(event->null, true, sizeof(event->null));
	for (int i = 0; i < npairs; i++)
		hf_event_copy(event, pairs[i][0], row, pairs[i][1]);
}

static void
event_of_ledger(HfEvent *event, const HfRow *ledger)
{
	static const int pairs[][2] = {{EVENT_JOB_ID, LEDGER_JOB_ID}, {EVENT_KEY, LEDGER_KEY}, {EVENT_QUEUE, LEDGER_QUEUE},
	{EVENT_ATTEMPT_NUMBER, LEDGER_ATTEMPT_NUMBER}, {EVENT_SUBJECT, LEDGER_SUBJECT}, {EVENT_ACTION_KEY, LEDGER_ACTION_KEY},
	{EVENT_AT, LEDGER_CHANGED_AT}};

	event_of_row(event, ledger, pairs, lengthof(pairs));
	hf_event_set(event, EVENT_CORRELATION_ID,
				 CStringGetTextDatum(DatumGetCString(DirectFunctionCall1(uuid_out, hf_get(ledger, LEDGER_KEY)))));
}

static void
event_of_event(HfEvent *event, const HfRow *row)
{
	static const int pairs[][2] = {{EVENT_JOB_ID, EVENT_JOB_ID}, {EVENT_KEY, EVENT_KEY}, {EVENT_QUEUE, EVENT_QUEUE},
	{EVENT_ATTEMPT_NUMBER, EVENT_ATTEMPT_NUMBER}, {EVENT_SUBJECT, EVENT_SUBJECT}, {EVENT_ACTION_KEY, EVENT_ACTION_KEY},
	{EVENT_CORRELATION_ID, EVENT_CORRELATION_ID}, {EVENT_LEASE_ID, EVENT_LEASE_ID}, {EVENT_AT, EVENT_AT}};

	event_of_row(event, row, pairs, lengthof(pairs));
}

/* Remember that this is about to be refused, in case the transaction commits after all. */
static void
remember(Guard *g, int sqlerrcode)
{
	char	   *what = psprintf("%s of %s.%s", g->op, HF_SCHEMA, g->table);
	HfEvent		event;

	if (g->old == NULL)
	{
		hf_remember_refusal(&g->call, NULL, sqlerrcode, what);
		return;
	}
	switch (g->id)
	{
		case HF_JOB:
		case HF_DEAD_JOB:
			hf_remember_job_refusal(&g->call, g->old, sqlerrcode, what);
			break;
		case HF_LEDGER:
			event_of_ledger(&event, g->old);
			hf_remember_refusal(&g->call, &event, sqlerrcode, what);
			break;
		default:
			event_of_event(&event, g->old);
			hf_remember_refusal(&g->call, &event, sqlerrcode, what);
	}
}

/* The rest are errmsg(), errdetail() and errhint(). */
#define refuse(g, sqlerrcode, ...) \
	do { \
		remember((g), (sqlerrcode)); \
		ereport(ERROR, (errcode(sqlerrcode), __VA_ARGS__)); \
	} while (0)

/* ---------------------------------------------------------------- which columns */

static void
find_changes(Guard *g)
{
	TupleDesc	desc = RelationGetDescr(g->old->table->rel);

	for (int c = 0; g->new != NULL && c < hf_table_ncolumns(g->id); c++)
		g->changed[c] = !same_value(TupleDescAttr(desc, HF_ATT(g->old, c)), hf_get(g->old, c), hf_is_null(g->old, c),
									hf_get(g->new, c), hf_is_null(g->new, c));
}

static bool
any_changed(const Guard *g, int but)
{
	for (int c = 0; c < hf_table_ncolumns(g->id); c++)
		if (g->changed[c] && c != but)
			return true;
	return false;
}

static bool
listed(int column, const int *columns)
{
	for (; *columns >= 0; columns++)
		if (*columns == column)
			return true;
	return false;
}

/* Refuse a change of any column but those allowed: JQ007 where it says which intent it is, else JQ004. */
static void
check_columns(Guard *g, const int *identity, const int *allowed, const int *allowed_too, const char *hint)
{
	for (int c = 0; c < hf_table_ncolumns(g->id); c++)
	{
		if (!g->changed[c] || listed(c, allowed) || listed(c, allowed_too))
			continue;
		if (listed(c, identity))
			refuse(g, ERRCODE_HF_INTENT_MISMATCH,
				   errmsg("column \"%s\" of table \"%s.%s\" cannot be changed", hf_column_name(g->id, c), HF_SCHEMA, g->table),
				   errdetail("It says which intent this is, and every attempt of a job is of one intent."),
				   errhint("Another intent is another job: enqueue it under its own subject, action_key, scope or intent_version."));
		refuse(g, ERRCODE_HF_ILLEGAL_TRANSITION,
			   errmsg("column \"%s\" of table \"%s.%s\" cannot be changed by hand", hf_column_name(g->id, c), HF_SCHEMA, g->table),
			   errdetail("The state machine keeps it."),
			   errhint("%s", hint));
	}
}

/* The state machine puts a value into the row that is going to be stored. */
static void
put(Guard *g, int column, Datum value, bool null)
{
	if (null)
		hf_set_null(g->new, column);
	else
		hf_set(g->new, column, value);
	g->replaced[HF_ATT(g->new, column)] = true;
}

static const int nothing[] = {-1};
static const int job_identity[] = {JOB_KEY, JOB_SUBJECT, JOB_ACTION_KEY, JOB_SCOPE, JOB_INTENT_VERSION,
JOB_CORRELATION_ID, JOB_PAYLOAD_DIGEST, JOB_PAYLOAD, JOB_SIDE_EFFECTS, -1};
static const int job_settings[] = {JOB_PRIORITY, JOB_MAX_ATTEMPTS, JOB_RETRY_POLICY, JOB_TIMEOUT_MS, JOB_GIVE_UP_AT,
JOB_HEADERS, JOB_STREAM, -1};
static const int of_pending[] = {JOB_RUN_AFTER, -1};
static const int of_running[] = {JOB_LEASE_EXPIRES_AT, JOB_LAST_HEARTBEAT_AT, JOB_CANCEL_REQUESTED_AT, -1};
static const int of_requeue[] = {JOB_STATUS, JOB_LEASE_ID, JOB_LEASE_EXPIRES_AT, JOB_STARTED_AT, JOB_LAST_HEARTBEAT_AT,
	JOB_WORKER_NAME, JOB_RUN_AFTER, JOB_MODE, JOB_FAILURES, JOB_RECONCILES, JOB_RESUMES, JOB_LAST_ERROR_CLASS,
JOB_LAST_ERROR_MESSAGE, -1};
static const int ledger_identity[] = {LEDGER_KEY, LEDGER_SUBJECT, LEDGER_ACTION_KEY, LEDGER_SCOPE, LEDGER_INTENT_VERSION,
LEDGER_PAYLOAD_DIGEST, LEDGER_PARENT_KEY, LEDGER_EFFECT, -1};
static const int ledger_states[] = {LEDGER_STATE, LEDGER_EVIDENCE, LEDGER_CHANGED_AT, -1};

static bool
is_running(const HfRow *job)
{
	return !hf_is_null(job, JOB_LEASE_ID);
}

static bool
in_mode(const HfRow *job, const char *mode)
{
	return hf_text_is(hf_get(job, JOB_MODE), mode);
}

/* ---------------------------------------------------------------- job: what is refused */

static void
check_settings(Guard *g, const HfQueue *queue)
{
	if (g->changed[JOB_RETRY_POLICY] && !hf_is_null(g->new, JOB_RETRY_POLICY))
		(void) hf_require_policy(text_to_cstring(hf_text(g->new, JOB_RETRY_POLICY)));
	if (g->changed[JOB_TIMEOUT_MS] && is_running(g->new) && queue != NULL)
	{
		int64		lease_ms = (hf_time(g->new, JOB_LEASE_EXPIRES_AT) - hf_time(g->new, JOB_STARTED_AT)) / 1000;
		int64		need_ms = hf_job_timeout_ms(g->new, queue) + queue->grace_ms;

		if (lease_ms < need_ms && queue->heartbeat_ms == 0)
			refuse(g, ERRCODE_HF_LEASE_SHORT,
				   errmsg("lease of " INT64_FORMAT " ms is shorter than the timeout of the running attempt", lease_ms),
				   errdetail("The action may run for " INT64_FORMAT " ms and the queue's grace is " INT64_FORMAT " ms.",
							 hf_job_timeout_ms(g->new, queue), queue->grace_ms),
				   errhint("Change the timeout while the job is pending."));
	}
}

/* A pending job stays pending: not sooner after a failure, and never for a time that is past. */
static void
check_pending(Guard *g)
{
	TimestampTz stored = hf_time(g->new, JOB_RUN_AFTER);

	if (g->changed[JOB_RUN_AFTER] || g->changed[JOB_PRIORITY])
		stored = hf_not_before(stored);
	if (hf_int32(g->old, JOB_ATTEMPT_NUMBER) > 0 && stored < hf_time(g->old, JOB_RUN_AFTER))
		refuse(g, ERRCODE_HF_NO_DELAY,
			   errmsg("job " INT64_FORMAT " cannot be made due sooner than was decided", hf_int64(g->old, JOB_ID)),
			   errdetail("Attempt %d has ended, and the next one was put off until %s; the statement asks for %s.",
						 hf_int32(g->old, JOB_ATTEMPT_NUMBER), pstrdup(timestamptz_to_str(hf_time(g->old, JOB_RUN_AFTER))),
						 pstrdup(timestamptz_to_str(hf_time(g->new, JOB_RUN_AFTER)))),
			   errhint("Wait for it, or change the retry policy for the failures to come."));
	if (stored != hf_time(g->new, JOB_RUN_AFTER))
		put(g, JOB_RUN_AFTER, TimestampTzGetDatum(stored), false);
}

/* A lease is never shortened nor revived, and what was asked stays asked. */
static void
check_running(Guard *g)
{
	TimestampTz until = hf_time(g->old, JOB_LEASE_EXPIRES_AT);

	if (g->changed[JOB_LEASE_EXPIRES_AT] &&
		(hf_time(g->new, JOB_LEASE_EXPIRES_AT) < until || until <= g->call.now ||
		 hf_time(g->new, JOB_LEASE_EXPIRES_AT) > g->call.now + HF_MAX_LEASE_MS * 1000))
		refuse(g, ERRCODE_HF_ILLEGAL_TRANSITION,
			   errmsg("the lease of job " INT64_FORMAT " cannot be set to end at %s", hf_int64(g->old, JOB_ID),
					  pstrdup(timestamptz_to_str(hf_time(g->new, JOB_LEASE_EXPIRES_AT)))),
			   errdetail("It ends at %s: a lease is never shortened, is not revived once it is over, and lasts a day at most.",
						 pstrdup(timestamptz_to_str(until))),
			   errhint("Call holdfast.heartbeat() to extend it, or holdfast.cancel() with force => true to end the attempt."));
	if (g->changed[JOB_CANCEL_REQUESTED_AT] && !hf_is_null(g->old, JOB_CANCEL_REQUESTED_AT))
		refuse(g, ERRCODE_HF_ILLEGAL_TRANSITION,
			   errmsg("the cancellation of job " INT64_FORMAT " cannot be taken back", hf_int64(g->old, JOB_ID)),
			   errdetail("The worker may have been told already."),
			   errhint("Let it end, and enqueue or redrive it."));
}

/* Why the end of this attempt does not lead back to pending, or NULL. */
static const char *
why_not_again(Guard *g, HfRow *ledger, bool unknown, const HfQueue *queue, const HfPolicy *policy)
{
	if (ledger != NULL && hf_ledger_is(ledger, "committed"))
		return "Its side effect has landed: it ends as succeeded.";
	if (!hf_is_null(g->old, JOB_CANCEL_REQUESTED_AT))
		return "Its cancellation was requested: its attempt's end is its own.";
	if (in_mode(g->old, "reconcile"))
		return hf_int32(g->old, JOB_RECONCILES) + 1 >= policy->reconcile_max ? "reconcile_max is used up." : NULL;
	if (unknown)
		return NULL;
	if (hf_int32(g->old, JOB_FAILURES) + 1 >= hf_job_max_attempts(g->new, queue))
		return "Its budget is used up: it is dead.";
	if (!hf_is_null(g->new, JOB_GIVE_UP_AT) && hf_time(g->new, JOB_RUN_AFTER) >= hf_time(g->new, JOB_GIVE_UP_AT))
		return "The next attempt would not be before give_up_at: it is dead.";
	return NULL;
}

/*
 * running -> pending by hand is a failure that nobody reported: charged, its
 * effect unknown, and not due before the least delay of the policy.
 */
static void
check_requeue(Guard *g, const HfQueue *queue)
{
	const HfPolicy *policy = hf_job_policy(g->new, queue);
	bool		reconciling = in_mode(g->old, "reconcile");
	int			counter = reconciling ? JOB_RECONCILES : JOB_FAILURES;
	int32		charged = hf_int32(g->old, counter) + 1;
	HfRow	   *ledger = NULL;
	bool		unknown = reconciling || hf_bool(g->old, JOB_SIDE_EFFECTS);
	int64		least = reconciling ? Max(policy->min_ms, policy->reconcile_ms) : policy->min_ms;
	int64		delay;
	const char *why;

	hf_lease_check_committed(&g->call, g->old, "UPDATE");
	if (hf_bool(g->old, JOB_SIDE_EFFECTS))
		(void) hf_ledger_lock_of(&g->call, g->old, false, &ledger);
	g->call.now = hf_clock_now();	/* after any wait */
	delay = (hf_time(g->new, JOB_RUN_AFTER) - g->call.now) / 1000;
	if (delay < Max(least, 1))
		refuse(g, ERRCODE_HF_NO_DELAY,
			   errmsg("job " INT64_FORMAT " cannot be put back without a delay", hf_int64(g->old, JOB_ID)),
			   errdetail("Attempt %d has not been reported; run_after is %s, and policy \"%s\" lets it come back " INT64_FORMAT " ms from now at the earliest.",
						 hf_int32(g->old, JOB_ATTEMPT_NUMBER), pstrdup(timestamptz_to_str(hf_time(g->new, JOB_RUN_AFTER))),
						 policy->name, Max(least, 1)),
			   errhint("Call holdfast.fail(), which decides when; or set run_after to holdfast.clock() + holdfast.backoff_delay('%s', job_id, %d).",
					   policy->name, Max(charged, 1)));
	why = why_not_again(g, ledger, unknown, queue, policy);
	if (why != NULL)
		refuse(g, ERRCODE_HF_ILLEGAL_TRANSITION,
			   errmsg("job " INT64_FORMAT " cannot be pending again", hf_int64(g->old, JOB_ID)),
			   errdetail("%s", why),
			   errhint("Call holdfast.fail() or holdfast.complete(), which end it."));
	if ((g->changed[JOB_FAILURES] && (reconciling || hf_int32(g->new, JOB_FAILURES) != charged)) ||
		(g->changed[JOB_RECONCILES] && (!reconciling || hf_int32(g->new, JOB_RECONCILES) != charged)))
		refuse(g, ERRCODE_HF_ILLEGAL_TRANSITION,
			   errmsg("an attempt of job " INT64_FORMAT " is charged once", hf_int64(g->old, JOB_ID)),
			   errdetail("%s is %d, and is going to be %d.", hf_column_name(HF_JOB, counter), charged - 1, charged),
			   errhint("Leave failures and reconciles to the guard."));
	if (unknown && in_mode(g->new, "execute") && g->changed[JOB_MODE])
		refuse(g, ERRCODE_HF_RECONCILE_FIRST,
			   errmsg("job " INT64_FORMAT " cannot go from mode reconcile to execute", hf_int64(g->old, JOB_ID)),
			   errdetail("Its effect is unknown, and only a finding leads from there to execution."),
			   errhint("Call holdfast.reconcile(), or have an operator call holdfast.settle_unknown()."));

	put(g, counter, Int32GetDatum(charged), false);
	put(g, JOB_RESUMES, Int32GetDatum(0), false);
	put(g, JOB_MODE, hf_word(unknown ? "reconcile" : "execute"), false);
	put(g, JOB_WORKER_NAME, (Datum) 0, true);
	put(g, JOB_LAST_HEARTBEAT_AT, (Datum) 0, true);
	put(g, JOB_RUN_AFTER, TimestampTzGetDatum(hf_not_before(hf_time(g->new, JOB_RUN_AFTER))), false);
	if (ledger != NULL)
		hf_row_free(ledger);
}

static void
before_job_update(Guard *g)
{
	const HfQueue *queue = hf_queue_by_id(hf_int32(g->old, JOB_QUEUE));
	const char *hint = "Call holdfast.claim(), complete(), fail(), snooze(), cancel() or redrive(), which keep it.";

	if (!any_changed(g, -1))
		return;
	if (is_running(g->old) && !is_running(g->new))
	{
		check_columns(g, job_identity, job_settings, of_requeue, hint);
		check_settings(g, queue);
		check_requeue(g, queue);
	}
	else if (is_running(g->old))
	{
		check_columns(g, job_identity, job_settings, of_running, hint);
		check_settings(g, queue);
		check_running(g);
	}
	else
	{
		check_columns(g, job_identity, job_settings, of_pending, hint);
		check_settings(g, queue);
		check_pending(g);
	}
	put(g, JOB_LAST_EVENT_AT, TimestampTzGetDatum(EVENTS_RESERVED +
		(hf_is_null(g->old, JOB_LAST_EVENT_AT) ? g->call.now : Max(g->call.now, hf_time(g->old, JOB_LAST_EVENT_AT) + 1))), false);
}

/* Only what waits, with nothing unknown, may be taken away. */
static void
before_job_delete(Guard *g)
{
	HfRow	   *ledger = NULL;

	if (is_running(g->old))
		refuse(g, ERRCODE_HF_ILLEGAL_TRANSITION,
			   errmsg("job " INT64_FORMAT " is running and cannot be deleted", hf_int64(g->old, JOB_ID)),
			   errdetail("Its lease ends at %s.", pstrdup(timestamptz_to_str(hf_time(g->old, JOB_LEASE_EXPIRES_AT)))),
			   errhint("Call holdfast.complete() if it is done, or holdfast.cancel()."));
	if (hf_bool(g->old, JOB_SIDE_EFFECTS) && hf_ledger_lock_of(&g->call, g->old, false, &ledger) == HF_LEDGER_HELD &&
		hf_ledger_any_unknown(&g->call, ledger))
		refuse(g, ERRCODE_HF_RECONCILE_FIRST,
			   errmsg("job " INT64_FORMAT " cannot be deleted while its effect is unknown", hf_int64(g->old, JOB_ID)),
			   errdetail("It would be forgotten that somebody must find out."),
			   errhint("Call holdfast.cancel(), which keeps it as unresolved, or holdfast.settle_unknown()."));
	if (ledger != NULL)
		hf_row_free(ledger);
}

/* ---------------------------------------------------------------- job: what is put on record */

static void
add_changed_event(Guard *g, HfRow *job)
{
	HfEvent		event;
	HfDetail	detail = {0};

	hf_event_init(&g->call, &event, "action_changed_by_sql", job);
	hf_event_set_enqueued(&event, job);
	if (!is_running(job))
		hf_event_copy(&event, EVENT_NEXT_NOT_BEFORE, job, JOB_RUN_AFTER);
	hf_event_copy(&event, EVENT_LEASE_EXPIRES_AT, job, JOB_LEASE_EXPIRES_AT);
	hf_event_copy(&event, EVENT_FAILURES, job, JOB_FAILURES);
	hf_detail_cstring(&detail, "operation", g->op);
	hf_detail_who(&detail);
	detail_changes(&detail, g->trigger);
	hf_event_set(&event, EVENT_DETAIL, hf_detail_end(&detail));
	hf_event_add(&g->call, &event);
}

/* An event of the transition that the change by hand amounts to. */
static void
add_transition_event(Guard *g, HfRow *job, HfEvent *event, const char *state, const char *decision)
{
	HfDetail	detail = {0};

	if (state != NULL)
		hf_event_set(event, EVENT_SIDE_EFFECT_STATE, hf_word(state));
	hf_detail_cstring(&detail, "report", g->op);
	hf_detail_cstring(&detail, "by", GetUserNameFromId(GetUserId(), false));
	hf_detail_cstring(&detail, "decision", decision);
	hf_event_set(event, EVENT_DETAIL, hf_detail_end(&detail));
	hf_event_add(&g->call, event);
}

static Datum
class_by_hand(const Guard *g)
{
	return g->changed[JOB_LAST_ERROR_CLASS] && !hf_is_null(g->new, JOB_LAST_ERROR_CLASS) ?
		hf_get(g->new, JOB_LAST_ERROR_CLASS) : hf_word("ChangedBySql");
}

static void
record_requeue(Guard *g)
{
	const HfQueue *queue = hf_queue_by_id(hf_int32(g->old, JOB_QUEUE));
	const HfPolicy *policy = hf_job_policy(g->new, queue);
	HfRow	   *ledger = NULL;
	const char *state = NULL;
	bool		reconcile = in_mode(g->new, "reconcile");
	HfEvent		event;

	if (hf_bool(g->old, JOB_SIDE_EFFECTS))
		(void) hf_ledger_lock_of(&g->call, g->old, false, &ledger);
	if (ledger != NULL)
	{
		(void) hf_ledger_fail_children(&g->call, ledger, g->new);
		if (!hf_ledger_is(ledger, "unknown"))
			hf_ledger_set(&g->call, ledger, g->new, "unknown", (Datum) 0);
		state = "unknown";
		hf_row_free(ledger);
	}
	/* the attempt's end carries what was of the attempt; the new row has the time */
	hf_set(g->old, JOB_LAST_EVENT_AT, hf_get(g->new, JOB_LAST_EVENT_AT));
	hf_event_end_of_attempt(&g->call, &event, "action_attempt_failed", "failed", g->old);
	hf_set(g->new, JOB_LAST_EVENT_AT, hf_get(g->old, JOB_LAST_EVENT_AT));
	hf_event_set(&event, EVENT_EXCEPTION_CLASS, class_by_hand(g));
	hf_event_set(&event, EVENT_TIMEOUT_MS, Int64GetDatum(hf_job_timeout_ms(g->old, queue)));
	hf_event_copy(&event, EVENT_FAILURES, g->new, JOB_FAILURES);
	hf_event_set(&event, EVENT_MAX_ATTEMPTS, Int32GetDatum(hf_job_max_attempts(g->new, queue)));
	add_transition_event(g, g->old, &event, state, NULL);

	hf_event_init(&g->call, &event, reconcile ? "action_reconcile_scheduled" : "action_retry_scheduled", g->new);
	hf_event_copy(&event, EVENT_LEASE_ID, g->old, JOB_LEASE_ID);
	hf_event_copy(&event, EVENT_WORKER_NAME, g->old, JOB_WORKER_NAME);
	hf_event_set(&event, EVENT_EXCEPTION_CLASS, class_by_hand(g));
	hf_event_set(&event, EVENT_RETRY_POLICY, CStringGetTextDatum(policy->name));
	hf_event_copy(&event, EVENT_FAILURES, g->new, JOB_FAILURES);
	hf_event_set(&event, EVENT_MAX_ATTEMPTS, Int32GetDatum(hf_job_max_attempts(g->new, queue)));
	hf_event_set(&event, EVENT_DELAY_MS, Int64GetDatum((hf_time(g->new, JOB_RUN_AFTER) - g->call.now) / 1000));
	hf_event_copy(&event, EVENT_NEXT_NOT_BEFORE, g->new, JOB_RUN_AFTER);
	add_transition_event(g, g->new, &event, state, reconcile ? "reconcile" : "retry");
}

static void
after_job_update(Guard *g)
{
	TimestampTz reserved;

	if (!any_changed(g, JOB_LAST_EVENT_AT))
		return;
	/* the events lie in the microseconds that BEFORE has kept free */
	reserved = hf_time(g->new, JOB_LAST_EVENT_AT) - EVENTS_RESERVED;
	hf_set(g->new, JOB_LAST_EVENT_AT, TimestampTzGetDatum(reserved - 1));
	g->call.now = reserved;
	if (is_running(g->old) && !is_running(g->new))
		record_requeue(g);
	else if (g->changed[JOB_CANCEL_REQUESTED_AT] && !hf_is_null(g->new, JOB_CANCEL_REQUESTED_AT))
	{
		HfEvent		event;

		hf_event_init(&g->call, &event, "action_cancel_requested", g->new);
		add_transition_event(g, g->new, &event, NULL, NULL);
	}
	add_changed_event(g, g->new);
	if (!is_running(g->new))
		hf_hint_pending(hf_int32(g->new, JOB_QUEUE), in_mode(g->new, "reconcile"), hf_int32(g->new, JOB_PRIORITY),
							hf_time(g->new, JOB_RUN_AFTER), hf_int64(g->new, JOB_ID));
}

/* A job that waited is gone: cancelled, by hand. */
static void
after_job_delete(Guard *g)
{
	HfRow	   *ledger = hf_bool(g->old, JOB_SIDE_EFFECTS) ? hf_ledger_of(&g->call, g->old) : NULL;
	HfEvent		event;

	add_changed_event(g, g->old);
	hf_event_init(&g->call, &event, "action_cancelled", g->old);
	hf_event_set_enqueued(&event, g->old);
	if (ledger != NULL)
		hf_event_copy(&event, EVENT_SIDE_EFFECT_STATE, ledger, LEDGER_STATE);
	add_transition_event(g, g->old, &event, NULL, "cancelled");
	if (ledger != NULL)
		hf_row_free(ledger);
}

/* ---------------------------------------------------------------- ledger */

/* By hand as by ledger_transition(): what a worker knows of an effect that it has started. */
static bool
ledger_move_is_legal(const HfRow *old, const HfRow *new)
{
	bool		child = !hf_is_null(old, LEDGER_PARENT_KEY);

	return hf_ledger_is(old, "started") && (hf_ledger_is(new, "committed") || (child && hf_ledger_is(new, "failed_retryable")));
}

static void
before_ledger(Guard *g)
{
	if (g->new == NULL)
		refuse(g, ERRCODE_HF_ILLEGAL_TRANSITION,
			   errmsg("a row of table \"%s.ledger\" cannot be deleted by hand", HF_SCHEMA),
			   errdetail("What is known of the effect (%s) would be forgotten, and the intent could be done again.",
						 text_to_cstring(hf_text(g->old, LEDGER_STATE))),
			   errhint("maintain() deletes rows that are past their queue's ledger_retention."));
	check_columns(g, ledger_identity, ledger_states, nothing, "Its job's transitions change it.");
	if (g->changed[LEDGER_STATE] && !ledger_move_is_legal(g->old, g->new))
		refuse(g, ERRCODE_HF_ILLEGAL_TRANSITION,
			   errmsg("the ledger cannot go from %s to %s by hand", text_to_cstring(hf_text(g->old, LEDGER_STATE)),
					  text_to_cstring(hf_text(g->new, LEDGER_STATE))),
			   errdetail("By hand, started may become committed%s.",
						 hf_is_null(g->old, LEDGER_PARENT_KEY) ? "" : " or failed_retryable"),
			   errhint("Call reconcile(), settle_unknown(), complete(), fail() or redrive(), which move the job along."));
	if (!g->changed[LEDGER_STATE] && any_changed(g, -1) && hf_ledger_is(g->old, "committed"))
		refuse(g, ERRCODE_HF_ILLEGAL_TRANSITION,
			   errmsg("a committed row of table \"%s.ledger\" is final", HF_SCHEMA),
			   errdetail("It has been so since %s.", pstrdup(timestamptz_to_str(hf_time(g->old, LEDGER_CHANGED_AT)))),
			   errhint("Keep notes of your own in a table of your own."));
	if (any_changed(g, -1))
		put(g, LEDGER_CHANGED_AT, TimestampTzGetDatum(g->call.now), false);
}

static void
after_ledger(Guard *g)
{
	HfRow	   *job = hf_row_for(hf_open(&g->call, HF_JOB));
	bool		live = hf_find_job(job, hf_int64(g->new, LEDGER_JOB_ID));
	const char *const kinds[] = {"action_ledger_changed", "action_changed_by_sql"};
	HfEvent		of;
	HfEvent		event;

	if (!any_changed(g, LEDGER_CHANGED_AT))
		return;
	event_of_ledger(&of, g->new);
	for (int i = g->changed[LEDGER_STATE] ? 0 : 1; i < lengthof(kinds); i++)
	{
		HfDetail	detail = {0};

		/* the job's lock comes before the ledger's, which is held: its row is not written here */
		if (live)
			hf_event_init(&g->call, &event, kinds[i], job);
		else
			hf_event_follow(&g->call, &event, kinds[i], &of);
		hf_event_set(&of, EVENT_AT, event.value[EVENT_AT]);
		hf_event_copy(&event, EVENT_SIDE_EFFECT_STATE, g->new, LEDGER_STATE);
		hf_detail_cstring(&detail, "operation", g->op);
		if (!hf_is_null(g->new, LEDGER_EFFECT))
			hf_detail_text(&detail, "effect", hf_text(g->new, LEDGER_EFFECT));
		hf_detail_who(&detail);
		detail_changes(&detail, g->trigger);
		hf_event_set(&event, EVENT_DETAIL, hf_detail_end(&detail));
		hf_event_add(&g->call, &event);
	}
	hf_row_free(job);
}

/* ---------------------------------------------------------------- the other tables */

static void
before_dead_job(Guard *g)
{
	if (g->new == NULL)
		refuse(g, ERRCODE_HF_ILLEGAL_TRANSITION,
			   errmsg("dead job " INT64_FORMAT " cannot be deleted by hand", hf_int64(g->old, JOB_ID)),
			   errdetail("It would be in none of the states that a committed job can end in."),
			   errhint("Call holdfast.redrive(), and holdfast.cancel() if it is not wanted; or holdfast.settle_unknown()."));
	check_columns(g, job_identity, job_settings, nothing, "Call holdfast.redrive() or settle_unknown().");
	check_settings(g, NULL);
	if (any_changed(g, -1))
		put(g, JOB_LAST_EVENT_AT, TimestampTzGetDatum(EVENTS_RESERVED + Max(g->call.now, hf_time(g->old, JOB_LAST_EVENT_AT) + 1)), false);
}

static void
after_dead_job(Guard *g)
{
	if (!any_changed(g, JOB_LAST_EVENT_AT))
		return;
	g->call.now = hf_time(g->new, JOB_LAST_EVENT_AT) - EVENTS_RESERVED;
	hf_set(g->new, JOB_LAST_EVENT_AT, TimestampTzGetDatum(g->call.now - 1));
	add_changed_event(g, g->new);
}

/* Evidence, and figures made of it: nobody changes them. */
static void
refuse_append_only(Guard *g)
{
	refuse(g, ERRCODE_HF_ILLEGAL_TRANSITION,
		   errmsg("%s of table \"%s.%s\" is refused", g->op, HF_SCHEMA, g->table),
		   errdetail("It holds evidence, or what is kept from it, which only the extension writes."),
		   errhint("Days of events past retention are dropped by holdfast.maintain()."));
}

/* A queue by hand: its figures must hold together (G8), and its name and number stay. */
static void
before_queue(Guard *g)
{
	TriggerData *t = g->trigger;
	TupleDesc	desc = RelationGetDescr(t->tg_relation);
	static const int fixed[] = {QUEUE_ID, QUEUE_NAME};
	HfTable    *table = hf_open(&g->call, HF_QUEUE);
	Oid			argtypes[1] = {desc->tdtypeid};

	g->old = NULL;				/* a refusal concerns no job */
	if (!TRIGGER_FIRED_BY_UPDATE(t->tg_event))
		refuse(g, ERRCODE_HF_ILLEGAL_TRANSITION,
			   errmsg("a queue cannot be deleted by hand"),
			   errdetail("Its jobs, grants and effects would be left behind."),
			   errhint("Call holdfast.drop_queue()."));
	for (int i = 0; i < lengthof(fixed); i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, table->att[fixed[i]] - 1);
		bool		from_null;
		bool		to_null;
		Datum		from = heap_getattr(t->tg_trigtuple, att->attnum, desc, &from_null);
		Datum		to = heap_getattr(t->tg_newtuple, att->attnum, desc, &to_null);

		if (!same_value(att, from, from_null, to, to_null))
			refuse(g, ERRCODE_HF_ILLEGAL_TRANSITION,
				   errmsg("column \"%s\" of table \"%s.queue\" cannot be changed", NameStr(att->attname), HF_SCHEMA),
				   errdetail("Grants and evidence refer to the queue by it."),
				   errhint("Create another queue."));
	}
	(void) OidFunctionCall1(LookupFuncName(list_make2(makeString(HF_SCHEMA), makeString("check_queue")), 1, argtypes, false),
							heap_copy_tuple_as_datum(t->tg_newtuple, desc));
}

/* Settings decide what becomes of a failure: what they were, and who changed them, is on record. */
static void
record_setting(Guard *g)
{
	TriggerData *t = g->trigger;
	TupleDesc	desc = RelationGetDescr(t->tg_relation);
	HfDetail	detail = {0};
	int			att = SPI_fnumber(desc, strcmp(g->table, "queue") == 0 ? "queue_id" : "queue");
	int32		queue_id = HF_NO_QUEUE;
	bool		null;

	if (att > 0 && TupleDescAttr(desc, att - 1)->atttypid == INT4OID)
		queue_id = DatumGetInt32(heap_getattr(t->tg_trigtuple, att, desc, &null));
	hf_detail_cstring(&detail, "table", g->table);
	hf_detail_cstring(&detail, "operation", g->op);
	hf_detail_who(&detail);
	for (int i = 0; i < desc->natts; i++)	/* which row it was */
		if (TupleDescAttr(desc, i)->atttypid == TEXTOID && TupleDescAttr(desc, i)->attnotnull)
		{
			hf_detail_cstring(&detail, "row", show_value(TupleDescAttr(desc, i), heap_getattr(t->tg_trigtuple, i + 1, desc, &null)));
			break;
		}
	detail_changes(&detail, t);
	hf_finding(&g->call, "setting_changed", queue_id, NULL, NULL, hf_detail_end(&detail));
}

static void
record_insert(Guard *g)
{
	HfDetail	detail = {0};

	hf_detail_cstring(&detail, "table", g->table);
	hf_detail_cstring(&detail, "operation", g->op);
	hf_detail_who(&detail);
	hf_finding(&g->call, "changed_by_sql", HF_NO_QUEUE, NULL, NULL, hf_detail_end(&detail));
}

/* ---------------------------------------------------------------- the trigger */

static void
load(Guard *g, HfTable *table)
{
	g->old = hf_row_for(table);
	ExecForceStoreHeapTuple(g->trigger->tg_trigtuple, g->old->stored, false);
	hf_row_load(g->old);
	if (TRIGGER_FIRED_BY_UPDATE(g->trigger->tg_event))
	{
		g->new = hf_row_for(table);
		ExecForceStoreHeapTuple(g->trigger->tg_newtuple, g->new->stored, false);
		hf_row_load(g->new);
		find_changes(g);
	}
}

/* What BEFORE lets be stored: the row of the statement, and what the state machine has put in. */
static HeapTuple
stored_row(Guard *g)
{
	HeapTuple	tuple = g->trigger->tg_newtuple;
	TupleDesc	desc = RelationGetDescr(g->trigger->tg_relation);
	MemoryContext old;

	if (g->new == NULL)
		return TRIGGER_FIRED_BY_UPDATE(g->trigger->tg_event) ? tuple : g->trigger->tg_trigtuple;
	for (int i = 0; i < desc->natts; i++)
		if (g->replaced[i])
		{
			old = MemoryContextSwitchTo(g->call.caller_cxt);
			tuple = heap_modify_tuple(tuple, desc, g->new->next->tts_values, g->new->next->tts_isnull, g->replaced);
			MemoryContextSwitchTo(old);
			break;
		}
	return tuple;
}

static const struct
{
	const char *name;			/* argument of the trigger */
	HfTableId	id;
	void		(*before) (Guard *g);
	void		(*after) (Guard *g);
}			guards[] = {
	{"dead_job", HF_DEAD_JOB, before_dead_job, after_dead_job},
	{"ledger", HF_LEDGER, before_ledger, after_ledger},
	{"evidence", HF_EVENT, refuse_append_only, NULL},
	{"kept", HF_NTABLES, refuse_append_only, NULL},
	{"queue", HF_NTABLES, before_queue, record_setting},
	{"setting", HF_NTABLES, NULL, record_setting},
};

static void
guard_row(Guard *g, const char *name)
{
	TriggerData *t = g->trigger;
	bool		before = TRIGGER_FIRED_BEFORE(t->tg_event);
	bool		update = TRIGGER_FIRED_BY_UPDATE(t->tg_event);

	if (strcmp(name, "job") == 0)
	{
		g->id = HF_JOB;
		load(g, hf_open(&g->call, HF_JOB));
		if (before)
			(update ? before_job_update : before_job_delete) (g);
		else
			(update ? after_job_update : after_job_delete) (g);
		return;
	}
	for (int i = 0; i < lengthof(guards); i++)
	{
		if (strcmp(name, guards[i].name) != 0)
			continue;
		g->id = guards[i].id;
		if (g->id != HF_NTABLES)
			load(g, g->id == HF_EVENT ? hf_open_partition(&g->call, relation_open(RelationGetRelid(t->tg_relation), NoLock)) :
				 hf_open(&g->call, g->id));
		if (before && guards[i].before != NULL)
			guards[i].before(g);
		else if (!before && guards[i].after != NULL)
			guards[i].after(g);
		return;
	}
	elog(ERROR, "unknown guard \"%s\"", name);
}

/*
 * holdfast.guard('name') returns trigger
 *
 * Guards UPDATE, DELETE and TRUNCATE of one of our tables; "name" says by
 * which rules.  Errors: JQ003, JQ004, JQ005, JQ006, JQ007, JQ008.
 */
Datum
holdfast_guard(PG_FUNCTION_ARGS)
{
	TriggerData *t = (TriggerData *) fcinfo->context;
	Guard		g = {0};
	HeapTuple	row;

	if (!CALLED_AS_TRIGGER(fcinfo) || t->tg_trigger->tgnargs != 1 ||
		RelationGetNamespace(t->tg_relation) != get_namespace_oid(HF_SCHEMA, false))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("guard() is a trigger function of holdfast's own tables"),
				 errhint("Watch a table of your own with holdfast.watch().")));
	row = TRIGGER_FIRED_BY_UPDATE(t->tg_event) ? t->tg_newtuple : t->tg_trigtuple;
	if (hf_is_own() || (TRIGGER_FIRED_BY_INSERT(t->tg_event) && superuser()))
		return PointerGetDatum(row);
	g.trigger = t;
	g.op = TRIGGER_FIRED_BY_UPDATE(t->tg_event) ? "UPDATE" : TRIGGER_FIRED_BY_DELETE(t->tg_event) ? "DELETE" :
		TRIGGER_FIRED_BY_INSERT(t->tg_event) ? "INSERT" : "TRUNCATE";
	hf_begin(&g.call, "guard", true);
	g.table = pstrdup(RelationGetRelationName(t->tg_relation));
	g.replaced = palloc0(sizeof(bool) * RelationGetDescr(t->tg_relation)->natts);
	if (TRIGGER_FIRED_BY_INSERT(t->tg_event))
		record_insert(&g);
	else if (TRIGGER_FIRED_FOR_STATEMENT(t->tg_event))
		refuse_append_only(&g);
	else
		guard_row(&g, t->tg_trigger->tgargs[0]);
	row = TRIGGER_FIRED_BEFORE(t->tg_event) && TRIGGER_FIRED_FOR_ROW(t->tg_event) ? stored_row(&g) : NULL;
	hf_end(&g.call);
	return PointerGetDatum(row);
}
