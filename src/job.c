/*-------------------------------------------------------------------------
 *
 * job.c
 *	  The state machine of a job: what an end of an attempt leads to.
 *
 * Every function here takes a job that is locked and loaded, and its ledger
 * row, locked and loaded too, or NULL where the job has no side effects.
 * Each writes the job, the ledger, and the events that tell of it, or raises.
 *
 * The rules that a change here can break:
 *	 - a failed attempt comes back at a stored time in the future (G3);
 *	 - only the job's own policy ends its retries (G4);
 *	 - from ledger state unknown nothing leads to execution but a finding (G6):
 *	   such a job waits in mode reconcile, or is dead as unresolved.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "access/xact.h"
#include "utils/builtins.h"
#include "utils/formatting.h"

/* ---------------------------------------------------------------- settings of a job: job, queue, policy */

const HfPolicy *
hf_job_policy(const HfRow *job, const HfQueue *queue)
{
	const HfPolicy *policy = NULL;

	if (!hf_is_null(job, JOB_RETRY_POLICY))
		policy = hf_policy(text_to_cstring(hf_text(job, JOB_RETRY_POLICY)));
	else if (queue != NULL)
		policy = hf_policy(queue->retry_policy);
	return policy != NULL ? policy : hf_policy("default");
}

int32
hf_job_max_attempts(const HfRow *job, const HfQueue *queue)
{
	if (!hf_is_null(job, JOB_MAX_ATTEMPTS))
		return hf_int32(job, JOB_MAX_ATTEMPTS);
	if (queue != NULL && queue->max_attempts > 0)
		return queue->max_attempts;
	return hf_job_policy(job, queue)->max_attempts;
}

int64
hf_job_timeout_ms(const HfRow *job, const HfQueue *queue)
{
	if (!hf_is_null(job, JOB_TIMEOUT_MS))
		return hf_int64(job, JOB_TIMEOUT_MS);
	return queue != NULL ? queue->timeout_ms : 0;
}

/* ---------------------------------------------------------------- storing a job */

/*
 * The time from which a job may be claimed: what is wanted, but not below the
 * clock as read after the transaction has its xid.  Scan hints rest on this:
 * an entry that becomes visible later was not written for an earlier time.
 */
TimestampTz
hf_not_before(TimestampTz wanted)
{
	TimestampTz now;

	(void) GetCurrentTransactionId();
	now = hf_clock_now();
	return Max(wanted, now);
}

static void
clear_lease(HfRow *job)
{
	hf_set_null(job, JOB_LEASE_ID);
	hf_set_null(job, JOB_LEASE_EXPIRES_AT);
	hf_set_null(job, JOB_STARTED_AT);
	hf_set_null(job, JOB_LAST_HEARTBEAT_AT);
	hf_set_null(job, JOB_WORKER_NAME);
}

/* Pending again, from run_after on (already passed through hf_not_before); one that its stream has parked stays so. */
void
hf_job_requeue(HfCall *call, HfRow *job, TimestampTz run_after, const char *mode)
{
	clear_lease(job);
	hf_set(job, JOB_STATUS, hf_word("pending"));
	hf_set(job, JOB_MODE, hf_word(mode));
	hf_set(job, JOB_RUN_AFTER, TimestampTzGetDatum(run_after));
	hf_update_locked(call, job);
	hf_hint_pending(hf_int32(job, JOB_QUEUE), strcmp(mode, "reconcile") == 0, hf_int32(job, JOB_PRIORITY),
						run_after, hf_int64(job, JOB_ID));
}

void
hf_job_gone(HfCall *call, HfRow *job)
{
	hf_delete_locked(call, job);
}

/* Move the job, with its payload, to dead_job; its stream counts it. */
void
hf_job_die(HfCall *call, HfRow *job, const char *reason)
{
	HfRow	   *dead = hf_row_new(hf_open(call, HF_DEAD_JOB));

	hf_row_copy(dead, job, JOB_NCOLUMNS);
	clear_lease(dead);
	hf_set_null(dead, JOB_PARKED_FROM);
	hf_set(dead, JOB_STATUS, hf_word("pending"));
	hf_set(dead, DEAD_ENDED_AT, TimestampTzGetDatum(call->now));
	hf_set(dead, DEAD_REASON, CStringGetTextDatum(reason));
	hf_insert(call, dead);
	hf_row_free(dead);
	hf_delete_locked(call, job);
	if (!hf_is_null(job, JOB_STREAM))
		hf_stream_ended(call, hf_int32(job, JOB_QUEUE), hf_text(job, JOB_STREAM), false);
}

/* ---------------------------------------------------------------- events of an attempt's end */

/* What ends an attempt carries its last heartbeat, its lease's end and its duration. */
void
hf_event_end_of_attempt(HfCall *call, HfEvent *event, const char *kind, const char *result, HfRow *job)
{
	hf_event_init(call, event, kind, job);
	hf_event_copy(event, EVENT_LEASE_EXPIRES_AT, job, JOB_LEASE_EXPIRES_AT);
	hf_event_copy(event, EVENT_LAST_HEARTBEAT_AT, job, JOB_LAST_HEARTBEAT_AT);
	if (!hf_is_null(job, JOB_STARTED_AT))
		hf_event_set(event, EVENT_ELAPSED_MS,
					 Int64GetDatum(Max((call->now - hf_time(job, JOB_STARTED_AT)) / 1000, 0)));
	hf_event_set(event, EVENT_WORKER_RESULT, hf_word(result));
}

/*
 * A report after the lease's end counts, since nobody had noted that end, but
 * it is marked and is a finding.
 */
bool
hf_job_late(HfCall *call, HfRow *job, const char *function)
{
	HfDetail	detail = {0};

	if (call->now < hf_time(job, JOB_LEASE_EXPIRES_AT))
		return false;
	hf_detail_cstring(&detail, "report", function);
	hf_detail_int(&detail, "late_ms", (call->now - hf_time(job, JOB_LEASE_EXPIRES_AT)) / 1000);
	hf_finding(call, "late_report", hf_int32(job, JOB_QUEUE), job, hf_uuid(job, JOB_LEASE_ID), hf_detail_end(&detail));
	return true;
}

/* ---------------------------------------------------------------- a failure */

typedef struct Failure
{
	const HfReport *report;
	const HfQueue *queue;
	const HfPolicy *policy;
	HfRule		rule;
	HfSideEffect effect;
	bool		reconciling;
	bool		late;
	const char *final;			/* why this failure ends the job, or NULL */
	bool		asked;			/* the delay is what the worker asked for */
	bool		raised;			/* ... raised to the least allowed */
	bool		capped;			/* ... or cut to max_reset */
} Failure;

static bool
is_timeout(const HfReport *report)
{
	char	   *class;

	if (report->timeout_kind != NULL)
		return true;
	class = asc_tolower(VARDATA_ANY(report->error_class), VARSIZE_ANY_EXHDR(report->error_class));
	return strstr(class, "timeout") != NULL || strstr(class, "timedout") != NULL || strstr(class, "deadlineexceeded") != NULL;
}

/* The policy's delay and jitter for the n-th failure, then what the worker asked for. */
static void
choose_delay(Failure *f, HfRow *job, HfDecision *d)
{
	const HfPolicy *p = f->policy;
	int32		n = Max(hf_int32(job, JOB_FAILURES), 1);
	int64		least;
	int64		asked = f->report->asked_ms;

	if (f->reconciling)
	{
		d->jitter_ms = 0;
		d->delay_ms = p->reconcile_ms;
	}
	else
	{
		d->jitter_ms = hf_jitter_ms(hf_int64(job, JOB_ID), n, p->jitter_ms);
		d->delay_ms = hf_backoff_ms(p->base_ms, p->rate, p->max_ms, n) + d->jitter_ms;
	}
	if (asked >= 0)
	{
		/* a provider's reset: never sooner than the policy; any other wish: not below min_delay */
		least = (f->rule.disposition == HF_HONOR_RESET && !f->report->retry_always) ? d->delay_ms : p->min_ms;
		if (f->reconciling)
			least = Max(least, p->reconcile_ms);
		if (f->rule.disposition == HF_HONOR_RESET && !f->report->retry_always && asked > p->max_reset_ms)
		{
			asked = p->max_reset_ms;
			f->capped = true;
		}
		f->asked = true;
		f->raised = (asked < least);
		if (asked >= least || least != d->delay_ms)
			d->jitter_ms = 0;
		d->delay_ms = Max(asked, least);
	}
	if (f->report->lost && !f->reconciling && hf_bool(job, JOB_SIDE_EFFECTS))
		d->delay_ms = Max(d->delay_ms, p->reconcile_ms);
	d->delay_ms = Max(d->delay_ms, 1);
}

static void
add_attempt_event(HfCall *call, Failure *f, HfRow *job, const char *ledger_state)
{
	const HfReport *r = f->report;
	HfEvent		event;
	HfDetail	detail = {0};

	hf_event_end_of_attempt(call, &event, r->lost ? "action_attempt_lost" : "action_attempt_failed",
							r->lost ? "lost" : is_timeout(r) ? "timeout" : "failed", job);
	hf_event_set(&event, EVENT_EXCEPTION_CLASS, PointerGetDatum(r->error_class));
	if (r->message != NULL)
		hf_event_set(&event, EVENT_MESSAGE, PointerGetDatum(r->message));
	if (r->timeout_kind != NULL)
		hf_event_set(&event, EVENT_TIMEOUT_KIND, PointerGetDatum(r->timeout_kind));
	else if (r->lost)
		hf_event_set(&event, EVENT_TIMEOUT_KIND, hf_word("lease"));
	if (r->timeout_limit_ms >= 0)
		hf_event_set(&event, EVENT_TIMEOUT_LIMIT_MS, Int64GetDatum(r->timeout_limit_ms));
	hf_event_set(&event, EVENT_TIMEOUT_MS, Int64GetDatum(hf_job_timeout_ms(job, f->queue)));
	hf_event_copy(&event, EVENT_FAILURES, job, JOB_FAILURES);
	hf_event_set(&event, EVENT_MAX_ATTEMPTS, Int32GetDatum(hf_job_max_attempts(job, f->queue)));
	if (ledger_state != NULL)
		hf_event_set(&event, EVENT_SIDE_EFFECT_STATE, CStringGetTextDatum(ledger_state));
	hf_detail_cstring(&detail, "report", r->function);
	if (r->side_effect >= 0)
		hf_detail_cstring(&detail, "side_effect",
						  r->side_effect == HF_EFFECT_NONE ? "none" : r->side_effect == HF_EFFECT_LANDED ? "landed" : "unknown");
	if (f->late)
		hf_detail_bool(&detail, "late", true);
	hf_detail_jsonb(&detail, "detail", r->detail);
	if (detail.state != NULL)
		hf_event_set(&event, EVENT_DETAIL, hf_detail_end(&detail));
	hf_event_add(call, &event);
}

static void
add_decision_event(HfCall *call, Failure *f, HfRow *job, const char *kind, const char *ledger_state, const HfDecision *d)
{
	HfEvent		event;
	HfDetail	detail = {0};

	hf_event_init(call, &event, kind, job);
	hf_event_set(&event, EVENT_EXCEPTION_CLASS, PointerGetDatum(f->report->error_class));
	hf_event_set(&event, EVENT_RETRY_POLICY, CStringGetTextDatum(d->retry_policy));
	hf_event_set(&event, EVENT_FAILURES, Int32GetDatum(d->failures));
	hf_event_set(&event, EVENT_MAX_ATTEMPTS, Int32GetDatum(d->max_attempts));
	if (d->next_not_before != 0)
	{
		hf_event_set(&event, EVENT_DELAY_MS, Int64GetDatum(d->delay_ms));
		hf_event_set(&event, EVENT_JITTER_MS, Int64GetDatum(d->jitter_ms));
		hf_event_set(&event, EVENT_NEXT_NOT_BEFORE, TimestampTzGetDatum(d->next_not_before));
	}
	if (ledger_state != NULL)
		hf_event_set(&event, EVENT_SIDE_EFFECT_STATE, CStringGetTextDatum(ledger_state));
	hf_detail_cstring(&detail, "decision", d->decision);
	hf_detail_cstring(&detail, "reason", d->reason);
	hf_detail_cstring(&detail, "rule", d->rule);
	hf_detail_cstring(&detail, "because", d->because);
	hf_event_set(&event, EVENT_DETAIL, hf_detail_end(&detail));
	hf_event_add(call, &event);
}

/* Seconds, with a fraction only where there is one. */
static char *
seconds(int64 ms)
{
	return ms % 1000 == 0 ? psprintf(INT64_FORMAT " s", ms / 1000) : psprintf(INT64_FORMAT ".%03d s", ms / 1000, (int) (ms % 1000));
}

/* `failure f of m (attempt n)`, and what the error was, with its figures */
static char *
describe(const Failure *f, const HfRow *job, const HfDecision *d)
{
	StringInfoData s;
	const HfReport *r = f->report;

	initStringInfo(&s);
	appendStringInfo(&s, "failure %d of %d (attempt %d): %s", d->failures, d->max_attempts, d->attempt_number,
					 text_to_cstring(r->error_class));
	if (r->timeout_kind != NULL || is_timeout(r))
	{
		int64		limit = r->timeout_limit_ms >= 0 ? r->timeout_limit_ms : hf_job_timeout_ms(job, f->queue);

		if (r->timeout_kind != NULL)
			appendStringInfo(&s, " (%s)", text_to_cstring(r->timeout_kind));
		appendStringInfo(&s, ": configured %s", seconds(limit));
		if (!hf_is_null(job, JOB_STARTED_AT))
		{
			int64		elapsed = Max((hf_time(job, JOB_LAST_EVENT_AT) - hf_time(job, JOB_STARTED_AT)) / 1000, 0);

			appendStringInfo(&s, ", elapsed %s", seconds(elapsed));
		}
	}
	return s.data;
}

/* Ends in success: what is known to have landed is final, whatever was reported. */
static void
end_landed(HfCall *call, Failure *f, HfRow *job, HfRow *ledger, HfDecision *d)
{
	bool		suppressed = (f->rule.disposition == HF_SUPPRESS && !f->report->retry_always && !f->report->lost);
	bool		was_committed = ledger != NULL && hf_ledger_is(ledger, "committed");

	d->decision = suppressed ? "suppressed" : "succeeded";
	d->reason = was_committed ? "ledger_committed" : "side_effect_landed";
	d->because = psprintf("%s, and the side effect has landed: the job is done", describe(f, job, d));
	if (ledger != NULL && !was_committed)
		hf_ledger_set(call, ledger, job, "committed", (Datum) 0);
	add_decision_event(call, f, job, suppressed ? "action_suppressed" : "action_attempt_succeeded",
					   ledger ? "committed" : NULL, d);
	hf_job_gone(call, job);
	if (!hf_is_null(job, JOB_STREAM))
		hf_stream_ended(call, hf_int32(job, JOB_QUEUE), hf_text(job, JOB_STREAM), true);
}

/* An operator asked for the end; whether the job may vanish depends on the ledger. */
static void
end_cancelled(HfCall *call, Failure *f, HfRow *job, const char *ledger_state, bool unknown, HfDecision *d)
{
	d->decision = "cancelled";
	d->reason = unknown ? "unresolved" : "cancelled";
	d->because = psprintf("%s, and cancellation was requested%s", describe(f, job, d),
						  unknown ? "; the effect is unknown, so the job is kept as dead" : "");
	add_decision_event(call, f, job, "action_cancelled", ledger_state, d);
	if (unknown)
		hf_job_die(call, job, "unresolved");
	else
		hf_job_gone(call, job);
}

static void
end_dead(HfCall *call, Failure *f, HfRow *job, const char *ledger_state, HfDecision *d)
{
	d->decision = "dead";
	d->reason = f->final;
	d->because = psprintf("%s; %s", describe(f, job, d),
						  strcmp(f->final, "terminal") == 0 ? psprintf("rule %s says terminal", d->rule) :
						  strcmp(f->final, "budget") == 0 ? "the budget is used up" :
						  strcmp(f->final, "deadline") == 0 ? "the next attempt would not be before give_up_at" :
						  strcmp(f->final, "crash_loop") == 0 ? "too many leases were lost" :
						  "the effect could not be resolved within reconcile_max attempts");
	add_decision_event(call, f, job, strcmp(f->final, "terminal") == 0 ? "action_terminal" : "action_exhausted",
					   ledger_state, d);
	hf_job_die(call, job, f->final);
}

static void
come_back(HfCall *call, Failure *f, HfRow *job, const char *ledger_state, HfDecision *d, bool reconcile)
{
	d->decision = reconcile ? "reconcile" : "retry";
	d->reason = reconcile ? "side_effect_unknown" : "retryable";
	d->because = psprintf("%s; %s in %s by policy %s%s%s", describe(f, job, d),
						  reconcile ? "the effect is unknown, to be reconciled" : "next attempt",
						  seconds(d->delay_ms), d->retry_policy,
						  f->asked ? ", as asked" : "", f->raised ? " but raised to the least delay" : f->capped ? " but cut to max_reset" : "");
	add_decision_event(call, f, job, reconcile ? "action_reconcile_scheduled" : "action_retry_scheduled", ledger_state, d);
	hf_job_requeue(call, job, d->next_not_before, reconcile ? "reconcile" : "execute");
}

/* Why a failure in mode execute is the last one, or NULL. */
static const char *
final_reason(const Failure *f, HfRow *job, const HfDecision *d)
{
	if (f->rule.disposition == HF_TERMINAL && !f->report->retry_always)
		return "terminal";
	if (d->failures >= d->max_attempts)
		return "budget";
	if (f->report->lost && hf_int32(job, JOB_LOSSES) >= f->policy->max_lost)
		return "crash_loop";
	if (!hf_is_null(job, JOB_GIVE_UP_AT) && d->next_not_before >= hf_time(job, JOB_GIVE_UP_AT))
		return "deadline";
	return NULL;
}

static void
count_failure(Failure *f, HfRow *job)
{
	if (f->report->lost)
		hf_set(job, JOB_LOSSES, Int32GetDatum(hf_int32(job, JOB_LOSSES) + 1));
	if (f->reconciling)
		hf_set(job, JOB_RECONCILES, Int32GetDatum(hf_int32(job, JOB_RECONCILES) + 1));
	else if ((!f->report->lost || f->policy->lost_lease_counts) && hf_int32(job, JOB_FAILURES) < PG_INT32_MAX)
		hf_set(job, JOB_FAILURES, Int32GetDatum(hf_int32(job, JOB_FAILURES) + 1));
	hf_set(job, JOB_RESUMES, Int32GetDatum(0));
	hf_set(job, JOB_LAST_ERROR_CLASS, PointerGetDatum(f->report->error_class));
	if (f->report->message != NULL)
		hf_set(job, JOB_LAST_ERROR_MESSAGE, PointerGetDatum(f->report->message));
	else
		hf_set_null(job, JOB_LAST_ERROR_MESSAGE);
}

/*
 * An attempt has failed, or its lease has ended with nobody reporting.
 */
void
hf_job_failed(HfCall *call, HfRow *job, HfRow *ledger, const HfReport *report, HfDecision *d)
{
	Failure		f = {0};
	const char *state = NULL;	/* the ledger's, after this */
	bool		unknown = false;	/* what happened is to be found out */
	int			open_children;

	memset(d, 0, sizeof(HfDecision));
	f.report = report;
	f.queue = hf_queue_by_id(hf_int32(job, JOB_QUEUE));
	f.policy = hf_job_policy(job, f.queue);
	f.rule = hf_rule(f.policy->name, text_to_cstring(report->error_class));
	f.reconciling = hf_text_is(hf_get(job, JOB_MODE), "reconcile");
	f.effect = report->lost ? HF_EFFECT_UNKNOWN : report->side_effect >= 0 ? report->side_effect : f.rule.side_effect;
	f.late = !report->lost && hf_job_late(call, job, report->function);

	count_failure(&f, job);
	d->rule = report->retry_always ? "schedule_retry" : f.rule.name;
	d->retry_policy = f.policy->name;
	d->delay_ms = -1;
	d->attempt_number = hf_int32(job, JOB_ATTEMPT_NUMBER);
	d->failures = hf_int32(job, JOB_FAILURES);
	d->max_attempts = hf_job_max_attempts(job, f.queue);

	/* child effects that were started have an unknown outcome now */
	open_children = ledger != NULL ? hf_ledger_fail_children(call, ledger, job) : 0;
	if (ledger != NULL)
	{
		if (hf_ledger_is(ledger, "committed"))
			f.effect = HF_EFFECT_LANDED;
		state = f.reconciling && !hf_ledger_is(ledger, "committed") ? text_to_cstring(hf_text(ledger, LEDGER_STATE)) :
			f.effect == HF_EFFECT_UNKNOWN ? "unknown" : f.effect == HF_EFFECT_LANDED ? "committed" : "failed_retryable";
		unknown = f.reconciling || f.effect == HF_EFFECT_UNKNOWN || open_children > 0;
	}
	else if (hf_bool(job, JOB_SIDE_EFFECTS))	/* the row was removed by other hands: a claim enters it anew, by the mode */
		unknown = f.reconciling || f.effect == HF_EFFECT_UNKNOWN;
	if (f.effect == HF_EFFECT_LANDED && open_children == 0 &&
		(!f.reconciling || (ledger != NULL && hf_ledger_is(ledger, "committed"))))
	{
		add_attempt_event(call, &f, job, state);
		end_landed(call, &f, job, ledger, d);
		return;
	}

	choose_delay(&f, job, d);
	d->next_not_before = hf_not_before(call->now + d->delay_ms * 1000);

	if (f.reconciling)
		f.final = hf_int32(job, JOB_RECONCILES) >= f.policy->reconcile_max ? "unresolved" : NULL;
	else
		f.final = final_reason(&f, job, d);
	if (f.final != NULL && !f.reconciling && unknown)
	{
		/* First it is to be known what happened; budget and give_up_at are looked at again then. */
		if (strcmp(f.final, "terminal") == 0 || strcmp(f.final, "crash_loop") == 0)
			hf_set(job, JOB_FINAL_REASON, CStringGetTextDatum(f.final));
		f.final = NULL;
	}
	if (f.final != NULL && ledger != NULL && !unknown && hf_is_null(job, JOB_CANCEL_REQUESTED_AT))
		state = "failed_terminal";
	add_attempt_event(call, &f, job, state);
	if (ledger != NULL && state != NULL && !hf_ledger_is(ledger, state))
		hf_ledger_set(call, ledger, job, state, (Datum) 0);

	if (!hf_is_null(job, JOB_CANCEL_REQUESTED_AT) || f.final != NULL)
		d->next_not_before = 0, d->delay_ms = -1;
	if (!hf_is_null(job, JOB_CANCEL_REQUESTED_AT))
		end_cancelled(call, &f, job, state, unknown, d);
	else if (f.final != NULL)
		end_dead(call, &f, job, state, d);
	else
		come_back(call, &f, job, state, d, unknown);
}

/* The lease has ended and nobody reported; whoever notices settles it, by policy. */
void
hf_job_lost(HfCall *call, HfRow *job, HfRow *ledger, HfDecision *decision)
{
	HfReport	report = {0};
	HfDetail	detail = {0};

	hf_detail_time(&detail, "lease_expired_at", hf_time(job, JOB_LEASE_EXPIRES_AT));
	hf_detail_int(&detail, "noticed_after_ms", (call->now - hf_time(job, JOB_LEASE_EXPIRES_AT)) / 1000);
	hf_finding(call, "lost_lease", hf_int32(job, JOB_QUEUE), job, hf_uuid(job, JOB_LEASE_ID), hf_detail_end(&detail));
	report.error_class = DatumGetTextPP(hf_word("LeaseExpired"));
	report.side_effect = -1;
	report.asked_ms = -1;
	report.timeout_limit_ms = (hf_time(job, JOB_LEASE_EXPIRES_AT) - hf_time(job, JOB_STARTED_AT)) / 1000;
	report.lost = true;
	report.function = "lease_expired";
	hf_job_failed(call, job, ledger, &report, decision);
}

/* An event that says why a job ended, where no failure did: the caller has told what happened before. */
void
hf_job_ended(HfCall *call, HfRow *job, const char *kind, const char *ledger_state, const char *reason)
{
	const HfQueue *queue = hf_queue_by_id(hf_int32(job, JOB_QUEUE));
	HfEvent		event;
	HfDetail	detail = {0};

	hf_event_init(call, &event, kind, job);
	if (ledger_state != NULL)
		hf_event_set(&event, EVENT_SIDE_EFFECT_STATE, CStringGetTextDatum(ledger_state));
	hf_event_copy(&event, EVENT_FAILURES, job, JOB_FAILURES);
	hf_event_set(&event, EVENT_MAX_ATTEMPTS, Int32GetDatum(hf_job_max_attempts(job, queue)));
	hf_event_set(&event, EVENT_RETRY_POLICY, CStringGetTextDatum(hf_job_policy(job, queue)->name));
	hf_detail_cstring(&detail, "reason", reason);
	hf_event_set(&event, EVENT_DETAIL, hf_detail_end(&detail));
	hf_event_add(call, &event);
}

/*
 * Whether a pending job has outlived give_up_at.  In mode reconcile none has: an
 * unknown effect is looked for as long as reconcile_max allows (G6).
 */
bool
hf_job_is_past_deadline(const HfCall *call, const HfRow *job)
{
	return !hf_is_null(job, JOB_GIVE_UP_AT) && call->now >= hf_time(job, JOB_GIVE_UP_AT) &&
		hf_text_is(hf_get(job, JOB_MODE), "execute");
}

/* A pending job is past its deadline: it ends. */
void
hf_job_past_deadline(HfCall *call, HfRow *job, HfRow *ledger)
{
	HfEvent		event;
	HfDetail	detail = {0};

	hf_event_init(call, &event, "action_exhausted", job);
	hf_event_set_enqueued(&event, job);
	if (ledger != NULL)
	{
		hf_ledger_set(call, ledger, job, "failed_terminal", (Datum) 0);
		hf_event_set(&event, EVENT_SIDE_EFFECT_STATE, hf_word("failed_terminal"));
	}
	hf_detail_cstring(&detail, "decision", "dead");
	hf_detail_cstring(&detail, "reason", "deadline");
	hf_detail_time(&detail, "give_up_at", hf_time(job, JOB_GIVE_UP_AT));
	hf_event_set(&event, EVENT_DETAIL, hf_detail_end(&detail));
	hf_event_add(call, &event);
	hf_job_die(call, job, "deadline");
}
