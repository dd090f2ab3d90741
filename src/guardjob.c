/*-------------------------------------------------------------------------
 *
 * guardjob.c
 *	  Jobs, live and dead, that are changed by plain SQL.
 *
 * The transitions are those of job.c, as far as a statement can tell what is
 * meant: BEFORE checks them and puts into the row what the state machine
 * adds, AFTER writes the events and the ledger from the row as it was stored.
 * docs/state-machine.md, "By hand", has the table.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "miscadmin.h"
#include "utils/builtins.h"

#define EVENTS_RESERVED 3		/* microseconds: an event each, of one change by hand */

static const int job_identity[] = {JOB_KEY, JOB_SUBJECT, JOB_ACTION_KEY, JOB_SCOPE, JOB_INTENT_VERSION,
JOB_CORRELATION_ID, JOB_PAYLOAD_DIGEST, JOB_PAYLOAD, JOB_SIDE_EFFECTS, -1};
static const int job_settings[] = {JOB_PRIORITY, JOB_MAX_ATTEMPTS, JOB_RETRY_POLICY, JOB_TIMEOUT_MS, JOB_GIVE_UP_AT,
JOB_HEADERS, JOB_STREAM, -1};
static const int of_pending[] = {JOB_RUN_AFTER, -1};
static const int of_running[] = {JOB_LEASE_EXPIRES_AT, JOB_LAST_HEARTBEAT_AT, JOB_CANCEL_REQUESTED_AT, -1};
static const int of_requeue[] = {JOB_STATUS, JOB_LEASE_ID, JOB_LEASE_EXPIRES_AT, JOB_STARTED_AT, JOB_LAST_HEARTBEAT_AT,
	JOB_WORKER_NAME, JOB_RUN_AFTER, JOB_MODE, JOB_FAILURES, JOB_RECONCILES, JOB_RESUMES, JOB_LAST_ERROR_CLASS,
JOB_LAST_ERROR_MESSAGE, -1};
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
check_settings(HfGuard *g, const HfQueue *queue)
{
	if (g->changed[JOB_RETRY_POLICY] && !hf_is_null(g->new, JOB_RETRY_POLICY))
		(void) hf_require_policy(text_to_cstring(hf_text(g->new, JOB_RETRY_POLICY)));
	if (g->changed[JOB_TIMEOUT_MS] && is_running(g->new) && queue != NULL)
	{
		int64		lease_ms = (hf_time(g->new, JOB_LEASE_EXPIRES_AT) - hf_time(g->new, JOB_STARTED_AT)) / 1000;
		int64		need_ms = hf_job_timeout_ms(g->new, queue) + queue->grace_ms;

		if (lease_ms < need_ms && queue->heartbeat_ms == 0)
			hf_refuse(g, ERRCODE_HF_LEASE_SHORT,
				   errmsg("lease of " INT64_FORMAT " ms is shorter than the timeout of the running attempt", lease_ms),
				   errdetail("The action may run for " INT64_FORMAT " ms and the queue's grace is " INT64_FORMAT " ms.",
							 hf_job_timeout_ms(g->new, queue), queue->grace_ms),
				   errhint("Change the timeout while the job is pending."));
	}
}

/* A pending job stays pending: not sooner after a failure, and never for a time that is past. */
static void
check_pending(HfGuard *g)
{
	TimestampTz stored = hf_time(g->new, JOB_RUN_AFTER);

	if (g->changed[JOB_RUN_AFTER] || g->changed[JOB_PRIORITY])
		stored = hf_not_before(stored);
	if (hf_int32(g->old, JOB_ATTEMPT_NUMBER) > 0 && stored < hf_time(g->old, JOB_RUN_AFTER))
		hf_refuse(g, ERRCODE_HF_NO_DELAY,
			   errmsg("job " INT64_FORMAT " cannot be made due sooner than was decided", hf_int64(g->old, JOB_ID)),
			   errdetail("Attempt %d has ended, and the next one was put off until %s; the statement asks for %s.",
						 hf_int32(g->old, JOB_ATTEMPT_NUMBER), pstrdup(timestamptz_to_str(hf_time(g->old, JOB_RUN_AFTER))),
						 pstrdup(timestamptz_to_str(hf_time(g->new, JOB_RUN_AFTER)))),
			   errhint("Wait for it, or change the retry policy for the failures to come."));
	if (stored != hf_time(g->new, JOB_RUN_AFTER))
		hf_guard_put(g, JOB_RUN_AFTER, TimestampTzGetDatum(stored), false);
}

/* A lease is never shortened nor revived, and what was asked stays asked. */
static void
check_running(HfGuard *g)
{
	TimestampTz until = hf_time(g->old, JOB_LEASE_EXPIRES_AT);

	if (g->changed[JOB_LEASE_EXPIRES_AT] &&
		(hf_time(g->new, JOB_LEASE_EXPIRES_AT) < until || until <= g->call.now ||
		 hf_time(g->new, JOB_LEASE_EXPIRES_AT) > g->call.now + HF_MAX_LEASE_MS * 1000))
		hf_refuse(g, ERRCODE_HF_ILLEGAL_TRANSITION,
			   errmsg("the lease of job " INT64_FORMAT " cannot be set to end at %s", hf_int64(g->old, JOB_ID),
					  pstrdup(timestamptz_to_str(hf_time(g->new, JOB_LEASE_EXPIRES_AT)))),
			   errdetail("It ends at %s: a lease is never shortened, is not revived once it is over, and lasts a day at most.",
						 pstrdup(timestamptz_to_str(until))),
			   errhint("Call holdfast.heartbeat() to extend it, or holdfast.cancel() with force => true to end the attempt."));
	if (g->changed[JOB_CANCEL_REQUESTED_AT] && !hf_is_null(g->old, JOB_CANCEL_REQUESTED_AT))
		hf_refuse(g, ERRCODE_HF_ILLEGAL_TRANSITION,
			   errmsg("the cancellation of job " INT64_FORMAT " cannot be taken back", hf_int64(g->old, JOB_ID)),
			   errdetail("The worker may have been told already."),
			   errhint("Let it end, and enqueue or redrive it."));
}

/* Why the end of this attempt does not lead back to pending, or NULL. */
static const char *
why_not_again(HfGuard *g, HfRow *ledger, bool unknown, const HfQueue *queue, const HfPolicy *policy)
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
check_requeue(HfGuard *g, const HfQueue *queue)
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
		hf_refuse(g, ERRCODE_HF_NO_DELAY,
			   errmsg("job " INT64_FORMAT " cannot be put back without a delay", hf_int64(g->old, JOB_ID)),
			   errdetail("Attempt %d has not been reported; run_after is %s, and policy \"%s\" lets it come back " INT64_FORMAT " ms from now at the earliest.",
						 hf_int32(g->old, JOB_ATTEMPT_NUMBER), pstrdup(timestamptz_to_str(hf_time(g->new, JOB_RUN_AFTER))),
						 policy->name, Max(least, 1)),
			   errhint("Call holdfast.fail(), which decides when; or set run_after to holdfast.clock() + holdfast.backoff_delay('%s', job_id, %d).",
					   policy->name, Max(charged, 1)));
	why = why_not_again(g, ledger, unknown, queue, policy);
	if (why != NULL)
		hf_refuse(g, ERRCODE_HF_ILLEGAL_TRANSITION,
			   errmsg("job " INT64_FORMAT " cannot be pending again", hf_int64(g->old, JOB_ID)),
			   errdetail("%s", why),
			   errhint("Call holdfast.fail() or holdfast.complete(), which end it."));
	if ((g->changed[JOB_FAILURES] && (reconciling || hf_int32(g->new, JOB_FAILURES) != charged)) ||
		(g->changed[JOB_RECONCILES] && (!reconciling || hf_int32(g->new, JOB_RECONCILES) != charged)))
		hf_refuse(g, ERRCODE_HF_ILLEGAL_TRANSITION,
			   errmsg("an attempt of job " INT64_FORMAT " is charged once", hf_int64(g->old, JOB_ID)),
			   errdetail("%s is %d, and is going to be %d.", hf_column_name(HF_JOB, counter), charged - 1, charged),
			   errhint("Leave failures and reconciles to the guard."));
	if (unknown && in_mode(g->new, "execute") && g->changed[JOB_MODE])
		hf_refuse(g, ERRCODE_HF_RECONCILE_FIRST,
			   errmsg("job " INT64_FORMAT " cannot go from mode reconcile to execute", hf_int64(g->old, JOB_ID)),
			   errdetail("Its effect is unknown, and only a finding leads from there to execution."),
			   errhint("Call holdfast.reconcile(), or have an operator call holdfast.settle_unknown()."));

	hf_guard_put(g, counter, Int32GetDatum(charged), false);
	hf_guard_put(g, JOB_RESUMES, Int32GetDatum(0), false);
	hf_guard_put(g, JOB_MODE, hf_word(unknown ? "reconcile" : "execute"), false);
	hf_guard_put(g, JOB_WORKER_NAME, (Datum) 0, true);
	hf_guard_put(g, JOB_LAST_HEARTBEAT_AT, (Datum) 0, true);
	hf_guard_put(g, JOB_RUN_AFTER, TimestampTzGetDatum(hf_not_before(hf_time(g->new, JOB_RUN_AFTER))), false);
	if (ledger != NULL)
		hf_row_free(ledger);
}

void
hf_guard_before_job_update(HfGuard *g)
{
	const HfQueue *queue = hf_queue_by_id(hf_int32(g->old, JOB_QUEUE));
	const char *hint = "Call holdfast.claim(), complete(), fail(), snooze(), cancel() or redrive(), which keep it.";

	if (!hf_guard_any_changed(g, -1))
		return;
	if (is_running(g->old) && !is_running(g->new))
	{
		hf_guard_check_columns(g, job_identity, job_settings, of_requeue, hint);
		check_settings(g, queue);
		check_requeue(g, queue);
	}
	else if (is_running(g->old))
	{
		hf_guard_check_columns(g, job_identity, job_settings, of_running, hint);
		check_settings(g, queue);
		check_running(g);
	}
	else
	{
		hf_guard_check_columns(g, job_identity, job_settings, of_pending, hint);
		check_settings(g, queue);
		check_pending(g);
	}
	hf_guard_put(g, JOB_LAST_EVENT_AT, TimestampTzGetDatum(EVENTS_RESERVED +
		(hf_is_null(g->old, JOB_LAST_EVENT_AT) ? g->call.now : Max(g->call.now, hf_time(g->old, JOB_LAST_EVENT_AT) + 1))), false);
}

/* Only what waits, with hf_guard_nothing unknown, may be taken away. */
void
hf_guard_before_job_delete(HfGuard *g)
{
	HfRow	   *ledger = NULL;

	if (is_running(g->old))
		hf_refuse(g, ERRCODE_HF_ILLEGAL_TRANSITION,
			   errmsg("job " INT64_FORMAT " is running and cannot be deleted", hf_int64(g->old, JOB_ID)),
			   errdetail("Its lease ends at %s.", pstrdup(timestamptz_to_str(hf_time(g->old, JOB_LEASE_EXPIRES_AT)))),
			   errhint("Call holdfast.complete() if it is done, or holdfast.cancel()."));
	if (hf_bool(g->old, JOB_SIDE_EFFECTS) && hf_ledger_lock_of(&g->call, g->old, false, &ledger) == HF_LEDGER_HELD &&
		hf_ledger_any_unknown(&g->call, ledger))
		hf_refuse(g, ERRCODE_HF_RECONCILE_FIRST,
			   errmsg("job " INT64_FORMAT " cannot be deleted while its effect is unknown", hf_int64(g->old, JOB_ID)),
			   errdetail("It would be forgotten that somebody must find out."),
			   errhint("Call holdfast.cancel(), which keeps it as unresolved, or holdfast.settle_unknown()."));
	if (ledger != NULL)
		hf_row_free(ledger);
}

/* ---------------------------------------------------------------- job: what is put on record */

static void
add_changed_event(HfGuard *g, HfRow *job)
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
	hf_detail_changes(&detail, g->trigger);
	hf_event_set(&event, EVENT_DETAIL, hf_detail_end(&detail));
	hf_event_add(&g->call, &event);
}

/* An event of the transition that the change by hand amounts to. */
static void
add_transition_event(HfGuard *g, HfRow *job, HfEvent *event, const char *state, const char *decision)
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
class_by_hand(const HfGuard *g)
{
	return g->changed[JOB_LAST_ERROR_CLASS] && !hf_is_null(g->new, JOB_LAST_ERROR_CLASS) ?
		hf_get(g->new, JOB_LAST_ERROR_CLASS) : hf_word("ChangedBySql");
}

static void
record_requeue(HfGuard *g)
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

void
hf_guard_after_job_update(HfGuard *g)
{
	TimestampTz reserved;

	if (!hf_guard_any_changed(g, JOB_LAST_EVENT_AT))
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
void
hf_guard_after_job_delete(HfGuard *g)
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

/* ---------------------------------------------------------------- dead jobs */

void
hf_guard_before_dead_job(HfGuard *g)
{
	if (g->new == NULL)
		hf_refuse(g, ERRCODE_HF_ILLEGAL_TRANSITION,
			   errmsg("dead job " INT64_FORMAT " cannot be deleted by hand", hf_int64(g->old, JOB_ID)),
			   errdetail("It would be in none of the states that a committed job can end in."),
			   errhint("Call holdfast.redrive(), and holdfast.cancel() if it is not wanted; or holdfast.settle_unknown()."));
	hf_guard_check_columns(g, job_identity, job_settings, hf_guard_nothing, "Call holdfast.redrive() or settle_unknown().");
	check_settings(g, NULL);
	if (hf_guard_any_changed(g, -1))
		hf_guard_put(g, JOB_LAST_EVENT_AT, TimestampTzGetDatum(EVENTS_RESERVED + Max(g->call.now, hf_time(g->old, JOB_LAST_EVENT_AT) + 1)), false);
}

void
hf_guard_after_dead_job(HfGuard *g)
{
	if (!hf_guard_any_changed(g, JOB_LAST_EVENT_AT))
		return;
	g->call.now = hf_time(g->new, JOB_LAST_EVENT_AT) - EVENTS_RESERVED;
	hf_set(g->new, JOB_LAST_EVENT_AT, TimestampTzGetDatum(g->call.now - 1));
	add_changed_event(g, g->new);
}
