/*-------------------------------------------------------------------------
 *
 * settle.c
 *	  Reports under a lease: how one is found, and fail, schedule_retry, snooze,
 *	  release.  complete.c has the success.
 *
 * A report of the past counts under the job's own lease as long as nobody has
 * noted that lease's end.  Anything else changes nothing, does not raise, and
 * is on record: stale, duplicate, conflict or unknown_job.  Workers that write
 * rows of their own in the same transaction ask for strict, and get JQ001.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(holdfast_fail);
PG_FUNCTION_INFO_V1(holdfast_schedule_retry);
PG_FUNCTION_INFO_V1(holdfast_snooze);
PG_FUNCTION_INFO_V1(holdfast_release);

/* ---------------------------------------------------------------- finding what a report is about */

/* A report of this function about this job and lease. */
void
hf_settle_init(HfSettle *s, HfCall *call, const char *function, int64 job_id, pg_uuid_t *lease_id)
{
	memset(s, 0, sizeof(HfSettle));
	s->call = call;
	s->function = function;
	s->job_id = job_id;
	s->lease_id = lease_id;
}

/* Arguments 0 and 1 are job_id and lease_id. */
void
hf_settle_begin(HfSettle *s, HfCall *call, FunctionCallInfo fcinfo, const char *function)
{
	hf_begin(call, function, true);
	hf_settle_init(s, call, function, hf_arg_bigint(fcinfo, 0, "job_id"), hf_arg_uuid(fcinfo, 1, "lease_id"));
}

/* Give the rows back, not their locks. */
void
hf_settle_release(HfSettle *s)
{
	if (s->ledger != NULL)
		hf_row_free(s->ledger);
	if (s->job != NULL)
		hf_row_free(s->job);
	s->job = s->ledger = NULL;
}

void
hf_settle_end(HfSettle *s)
{
	hf_settle_release(s);
	hf_end(s->call);
}

static void
lease_lost(HfSettle *s, const HfEvent *of, const char *outcome)
{
	if (of != NULL)
		hf_remember_refusal(s->call, of, ERRCODE_HF_LEASE_LOST, s->function);
	ereport(ERROR,
			(errcode(ERRCODE_HF_LEASE_LOST),
			 errmsg("the lease on job " INT64_FORMAT " is not current", s->job_id),
			 errdetail("The report would have been answered %s.", outcome),
			 errhint("Roll back; another worker has the job, or its end is on record: see holdfast.outcome().")));
}

/* Put a report that changes nothing on record. */
static const char *
record(HfSettle *s, const HfEvent *of, const char *kind, const char *outcome, const char *why)
{
	HfEvent		event;
	HfDetail	detail = {0};

	if (s->strict)
		lease_lost(s, of, outcome);
	hf_event_follow(s->call, &event, kind, of);
	/* after everything that is on record of the job, whichever attempt that was */
	if (s->job == NULL && s->history != NULL)
		hf_event_set(&event, EVENT_AT, TimestampTzGetDatum(Max(DatumGetTimestampTz(event.value[EVENT_AT]),
															   DatumGetTimestampTz(s->history->last.value[EVENT_AT]) + 1)));
	hf_event_set(&event, EVENT_LEASE_ID, UUIDPGetDatum(s->lease_id));
	hf_event_set(&event, EVENT_WORKER_RESULT, CStringGetTextDatum(s->function));
	if (s->report != NULL)
	{
		hf_event_set(&event, EVENT_EXCEPTION_CLASS, PointerGetDatum(s->report->error_class));
		if (s->report->message != NULL)
			hf_event_set(&event, EVENT_MESSAGE, PointerGetDatum(s->report->message));
	}
	hf_detail_cstring(&detail, "report", s->function);
	hf_detail_cstring(&detail, "outcome", outcome);
	hf_detail_cstring(&detail, "because", why);
	hf_event_set(&event, EVENT_DETAIL, hf_detail_end(&detail));
	hf_event_add(s->call, &event);
	hf_event_finding(s->call, outcome, &event);
	return outcome;
}

/* The lease is the job's own, but this call grants the future, and the lease is over. */
const char *
hf_settle_stale(HfSettle *s, const char *why)
{
	HfEvent		of;

	hf_event_init(s->call, &of, "action_attempt_started", s->job);
	if (!s->strict && strcmp(s->function, "heartbeat") == 0)
	{
		s->history = palloc(sizeof(HfHistory));
		if (hf_history(s->call, s->job_id, s->lease_id, s->history) && s->history->stale_heartbeat_seen)
			return "stale";
	}
	return record(s, &of, "action_stale_report", "stale", why);
}

/* The end of this attempt is on record: the same report again, or another. */
const char *
hf_settle_repeat(HfSettle *s, bool same)
{
	return record(s, &s->history->end, "action_duplicate_report", same ? "duplicate" : "conflict",
				  same ? "the same report is on record" : "another report under this lease is on record");
}

/* The attempt's end is on record, and this call says nothing of an end: stale. */
const char *
hf_settle_past(HfSettle *s)
{
	return record(s, &s->history->end, "action_stale_report", "stale", "the attempt's end is on record");
}

/*
 * The lease is not current: what do the events say of it?  Of a live job there
 * may be none, if no claim of it was committed, or if the server that committed
 * one is gone: its fields are given.
 */
static const char *
look_back(HfSettle *s, const HfEvent *live)
{
	HfHistory  *h = s->history = palloc(sizeof(HfHistory));
	const HfEvent *of;
	bool		known = hf_history(s->call, s->job_id, s->lease_id, h);

	if (!known && live != NULL)
		h->last = *live;
	else if (!known || !hf_is_granted_id(DatumGetInt32(h->last.value[EVENT_QUEUE]), HF_WORKER))
	{
		if (s->strict)
			lease_lost(s, NULL, "unknown_job");
		return "unknown_job";
	}
	if (h->known && h->ended && !hf_text_is(h->end.value[EVENT_KIND], "action_attempt_lost") &&
		!hf_text_is(h->end.value[EVENT_KIND], "action_cancelled") && !hf_text_is(h->end.value[EVENT_KIND], "action_purged") &&
		strcmp(s->function, "heartbeat") != 0 && strcmp(s->function, "assert_lease") != 0)
		return "reported";
	if (strcmp(s->function, "heartbeat") == 0 && h->stale_heartbeat_seen)
		return "stale";
	of = h->known ? &h->started : &h->last;
	/* the worker went on while another had the job: once per lease, for the metrics */
	if (h->known && !h->stale_seen && !s->strict &&
		DatumGetInt32(h->last.value[EVENT_ATTEMPT_NUMBER]) > DatumGetInt32(h->started.value[EVENT_ATTEMPT_NUMBER]))
		hf_event_finding(s->call, "lease_overlap", &h->started);
	return record(s, of, "action_stale_report", "stale",
				  !h->known ? "the lease was never granted for this job" :
				  h->ended ? "the lease's end is on record" : "another lease holds the job");
}

/*
 * Find the job and see whose lease it has.  NULL: the lease is the job's own,
 * and the job is locked.  Else the answer; "reported" when the end of the
 * attempt is on record and the caller is to compare (hf_settle_repeat).
 */
const char *
hf_settle_find(HfSettle *s, HfFind how)
{
	HfLock		lock;
	HfEvent    *live = NULL;

	s->job = hf_row_for(hf_open(s->call, HF_JOB));
	if (!hf_find_job(s->job, s->job_id))
		goto past;
	if (!hf_is_granted_id(hf_int32(s->job, JOB_QUEUE), HF_WORKER))
	{
		hf_settle_release(s);
		if (s->strict)
			lease_lost(s, NULL, "unknown_job");
		return "unknown_job";
	}
	lock = hf_lock(s->call, s->job, how == HF_FIND_SKIP);
	if (lock == HF_GONE)
		goto past;
	if (how != HF_FIND_SKIP)
		s->call->now = hf_clock_now();	/* there may have been a wait */
	if (hf_is_null(s->job, JOB_LEASE_ID) || memcmp(hf_uuid(s->job, JOB_LEASE_ID), s->lease_id, UUID_LEN) != 0)
	{
		HfEvent		event;

		hf_event_init(s->call, &event, "action_attempt_started", s->job);
		hf_event_keep(live = palloc(sizeof(HfEvent)), &event);
		goto past;
	}
	if (lock == HF_BUSY)
		return s->call->now < hf_time(s->job, JOB_LEASE_EXPIRES_AT) ? "held" :
			hf_settle_stale(s, "heartbeat after the end of the lease");
	s->queue = hf_queue_by_id(hf_int32(s->job, JOB_QUEUE));
	if (how == HF_FIND_SETTLE)
		hf_lease_check_committed(s->call, s->job, s->function);
	return NULL;

past:
	hf_settle_release(s);
	return look_back(s, live);
}

/* Lock the ledger row of the job, if it has side effects. */
void
hf_settle_ledger(HfSettle *s)
{
	if (hf_bool(s->job, JOB_SIDE_EFFECTS))
		hf_ledger_lock_of(s->call, s->job, false, &s->ledger);
}

/* ---------------------------------------------------------------- decisions */

#define DECISION_COLUMNS 11

static Datum
answer_decision(FunctionCallInfo fcinfo, const HfDecision *d)
{
	Datum		values[DECISION_COLUMNS];
	bool		nulls[DECISION_COLUMNS];
	bool		bare = d->attempt_number == 0;	/* nothing is known */
	int			i = 0;

#define PUT(is_null, datum) (nulls[i] = (is_null), values[i] = nulls[i] ? (Datum) 0 : (datum), i++)
	PUT(false, CStringGetTextDatum(d->decision));
	PUT(d->reason == NULL, CStringGetTextDatum(d->reason));
	PUT(d->rule == NULL, CStringGetTextDatum(d->rule));
	PUT(d->retry_policy == NULL, CStringGetTextDatum(d->retry_policy));
	PUT(d->next_not_before == 0, Int64GetDatum(d->delay_ms));
	PUT(d->next_not_before == 0, Int64GetDatum(d->jitter_ms));
	PUT(d->next_not_before == 0, TimestampTzGetDatum(d->next_not_before));
	PUT(bare, Int32GetDatum(d->attempt_number));
	PUT(bare, Int32GetDatum(d->failures));
	PUT(bare, Int32GetDatum(d->max_attempts));
	PUT(d->because == NULL, CStringGetTextDatum(d->because));
#undef PUT
	return hf_answer_row(fcinfo, "ttttllziiit", values, nulls);
}

/* A string of an event's detail, or NULL. */
char *
hf_event_detail(const HfEvent *event, const char *key)
{
	JsonbValue	value;

	if (event->null[EVENT_DETAIL] || !JB_ROOT_IS_OBJECT(DatumGetJsonbP(event->value[EVENT_DETAIL])))
		return NULL;
	if (getKeyJsonValueFromContainer(&DatumGetJsonbP(event->value[EVENT_DETAIL])->root, key, strlen(key), &value) == NULL ||
		value.type != jbvString)
		return NULL;
	return pnstrdup(value.val.string.val, value.val.string.len);
}

static int64
event_int64(const HfEvent *event, int column, int64 missing)
{
	return event->null[column] ? missing : DatumGetInt64(event->value[column]);
}

/* The first decision again, from its event. */
static void
decision_of(const HfHistory *h, HfDecision *d)
{
	const HfEvent *e = h->decided ? &h->decision : &h->end;

	d->reason = hf_event_detail(e, "reason");
	d->rule = hf_event_detail(e, "rule");
	d->because = hf_event_detail(e, "because");
	d->retry_policy = e->null[EVENT_RETRY_POLICY] ? NULL : TextDatumGetCString(e->value[EVENT_RETRY_POLICY]);
	d->delay_ms = event_int64(e, EVENT_DELAY_MS, -1);
	d->jitter_ms = event_int64(e, EVENT_JITTER_MS, 0);
	d->next_not_before = event_int64(e, EVENT_NEXT_NOT_BEFORE, 0);
	d->attempt_number = DatumGetInt32(e->value[EVENT_ATTEMPT_NUMBER]);
	d->failures = e->null[EVENT_FAILURES] ? 0 : DatumGetInt32(e->value[EVENT_FAILURES]);
	d->max_attempts = e->null[EVENT_MAX_ATTEMPTS] ? 0 : DatumGetInt32(e->value[EVENT_MAX_ATTEMPTS]);
}

static bool
same_text(const HfEvent *event, int column, const text *value)
{
	if (event->null[column] || value == NULL)
		return event->null[column] == (value == NULL);
	return DatumGetBool(DirectFunctionCall2Coll(texteq, C_COLLATION_OID, event->value[column], PointerGetDatum(value)));
}

/* A member of an event's detail, or NULL. */
Jsonb *
hf_event_detail_jsonb(const HfEvent *event, const char *key)
{
	JsonbValue	value;

	if (event->null[EVENT_DETAIL] ||
		getKeyJsonValueFromContainer(&DatumGetJsonbP(event->value[EVENT_DETAIL])->root, key, strlen(key), &value) == NULL)
		return NULL;
	return JsonbValueToJsonb(&value);
}

/* Whether two are equal as jsonb, or both missing. */
bool
hf_same_jsonb(Jsonb *a, Jsonb *b)
{
	if (a == NULL || b == NULL)
		return a == b;
	return compareJsonbContainers(&a->root, &b->root) == 0;
}

/* ---------------------------------------------------------------- fail, schedule_retry */

/*
 * JQ006 for a delay that is not positive: no failed or snoozed attempt comes
 * back for now.
 */
static int64
delay_arg(HfSettle *s, FunctionCallInfo fcinfo, int argno, const char *name)
{
	Interval   *delay = PG_ARGISNULL(argno) ? NULL : PG_GETARG_INTERVAL_P(argno);

	if (delay != NULL && delay->month == 0 && delay->day <= 0 && delay->time + delay->day * USECS_PER_DAY < 1000)
	{
		s->strict = false;
		if (hf_settle_find(s, HF_FIND_SETTLE) == NULL)
			hf_remember_job_refusal(s->call, s->job, ERRCODE_HF_NO_DELAY, s->function);
		ereport(ERROR,
				(errcode(ERRCODE_HF_NO_DELAY),
				 errmsg("argument \"%s\" must be at least 1 ms", name),
				 errdetail("Without a delay the job would come back at once, in a hot loop."),
				 errhint("Give a positive delay; to hand the job back on shutdown, call release().")));
	}
	return hf_arg_interval_ms(fcinfo, argno, name, 1, HF_MAX_DELAY_MS);
}

static const char *const side_effects[] = {"unknown", "none", "landed", NULL};
static const char *const timeout_kinds[] = {"max_runtime", "idle", "connect", "read", "lease", NULL};

/* Settle a failure, or compare it with what is on record. */
static Datum
settle_failure(HfSettle *s, FunctionCallInfo fcinfo, HfReport *report)
{
	HfDecision	decision = {0};
	const char *outcome;

	s->report = report;
	outcome = hf_settle_find(s, HF_FIND_SETTLE);
	if (outcome == NULL)
	{
		hf_settle_ledger(s);
		hf_job_failed(s->call, s->job, s->ledger, report, &decision);
	}
	else if (strcmp(outcome, "reported") == 0)
	{
		const HfEvent *end = &s->history->end;
		char	   *side_effect = hf_event_detail(end, "side_effect");
		bool		same = hf_text_is(end->value[EVENT_KIND], "action_attempt_failed") &&
			same_text(end, EVENT_EXCEPTION_CLASS, report->error_class) &&
			same_text(end, EVENT_MESSAGE, report->message) &&
			hf_event_detail(end, "report") != NULL && strcmp(hf_event_detail(end, "report"), report->function) == 0 &&
			(side_effect == NULL) == (report->side_effect < 0) &&
			(side_effect == NULL || strcmp(side_effect, side_effects[report->side_effect]) == 0) &&
			hf_same_jsonb(hf_event_detail_jsonb(end, "detail"), report->detail);

		decision_of(s->history, &decision);
		decision.decision = hf_settle_repeat(s, same);
	}
	else
		decision.decision = outcome;
	answer_decision(fcinfo, &decision);
	hf_settle_end(s);
	return (Datum) 0;
}

static void
report_init(HfReport *report, const char *function)
{
	memset(report, 0, sizeof(HfReport));
	report->side_effect = -1;
	report->asked_ms = -1;
	report->timeout_limit_ms = -1;
	report->function = function;
}

static text *
message_arg(FunctionCallInfo fcinfo, int argno)
{
	return PG_ARGISNULL(argno) ? NULL : hf_cut_message(PG_GETARG_TEXT_PP(argno));
}

/*
 * holdfast.fail(job_id bigint, lease_id uuid, error_class text, message text => null,
 *				 side_effect text => null, retry_after interval => null,
 *				 retry_at timestamptz => null, timeout_kind text => null,
 *				 timeout_limit_ms bigint => null, detail jsonb => null)
 *		returns setof retry_decision
 *
 * The attempt failed; what follows is decided by the error rules and the
 * policy of the job.  Errors: 22004, 22023, JQ008.
 */
Datum
holdfast_fail(PG_FUNCTION_ARGS)
{
	HfCall		call;
	HfSettle	s;
	HfReport	report;

	hf_settle_begin(&s, &call, fcinfo, "fail");
	report_init(&report, "fail");
	report.error_class = hf_arg_text(fcinfo, 2, "error_class", HF_MAX_NAME, true);
	report.message = message_arg(fcinfo, 3);
	if (!PG_ARGISNULL(4))
		report.side_effect = hf_arg_choice(fcinfo, 4, "side_effect", side_effects);
	if (!PG_ARGISNULL(5) && !PG_ARGISNULL(6))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("retry_after and retry_at exclude each other"),
				 errhint("Give the one that the provider gave.")));
	if (!PG_ARGISNULL(5))
		report.asked_ms = hf_arg_interval_ms(fcinfo, 5, "retry_after", 0, HF_MAX_DELAY_MS);
	if (!PG_ARGISNULL(6))
	{
		TimestampTz at = hf_arg_timestamp(fcinfo, 6, "retry_at");

		if (at > call.now + HF_MAX_DELAY_MS * 1000)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("argument \"retry_at\" is too far in the future"),
					 errdetail("It is more than ten years away."),
					 errhint("Give the time that the provider gave, or none.")));
		report.asked_ms = at <= call.now ? 0 : (at - call.now + 999) / 1000;
	}
	if (!PG_ARGISNULL(7))
		report.timeout_kind = cstring_to_text(timeout_kinds[hf_arg_choice(fcinfo, 7, "timeout_kind", timeout_kinds)]);
	if (!PG_ARGISNULL(8))
	{
		report.timeout_limit_ms = PG_GETARG_INT64(8);
		if (report.timeout_limit_ms < 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("argument \"timeout_limit_ms\" must not be negative"),
					 errhint("Give the limit that fired, in milliseconds.")));
	}
	report.detail = hf_arg_jsonb(fcinfo, 9, "detail", HF_MAX_JSONB);
	return settle_failure(&s, fcinfo, &report);
}

/*
 * holdfast.schedule_retry(job_id bigint, lease_id uuid, delay interval => null,
 *						   error_class text => 'RetryRequested', message text => null,
 *						   side_effect text => null, detail jsonb => null)
 *		returns setof retry_decision
 *
 * fail with the disposition fixed to retry: charged, and the budget applies.
 * Errors: JQ006 for a delay that is not positive, 22004, 22023, JQ008.
 */
Datum
holdfast_schedule_retry(PG_FUNCTION_ARGS)
{
	HfCall		call;
	HfSettle	s;
	HfReport	report;

	hf_settle_begin(&s, &call, fcinfo, "schedule_retry");
	report_init(&report, "schedule_retry");
	report.retry_always = true;
	if (!PG_ARGISNULL(2))
		report.asked_ms = delay_arg(&s, fcinfo, 2, "delay");
	report.error_class = hf_arg_text(fcinfo, 3, "error_class", HF_MAX_NAME, true);
	report.message = message_arg(fcinfo, 4);
	if (!PG_ARGISNULL(5))
		report.side_effect = hf_arg_choice(fcinfo, 5, "side_effect", side_effects);
	report.detail = hf_arg_jsonb(fcinfo, 6, "detail", HF_MAX_JSONB);
	return settle_failure(&s, fcinfo, &report);
}

/* ---------------------------------------------------------------- snooze, release */

/* JQ004 while a child effect is started or unknown: something was sent. */
static void
refuse_open_children(HfSettle *s)
{
	bool		unknown;

	if (s->ledger == NULL || !hf_bool(s->ledger, LEDGER_HAS_EFFECTS) ||
		!hf_ledger_open_child(s->call, s->ledger, &unknown))
		return;
	hf_remember_job_refusal(s->call, s->job, ERRCODE_HF_ILLEGAL_TRANSITION, s->function);
	ereport(ERROR,
			(errcode(ERRCODE_HF_ILLEGAL_TRANSITION),
			 errmsg("job " INT64_FORMAT " has a child effect that is %s", s->job_id, unknown ? "unknown" : "started"),
			 errdetail("%s says that nothing was sent.", s->function),
			 errhint("Settle the child effect with ledger_transition() or reconcile(), or call fail().")));
}

/* An operator asked for the end, and nothing was sent. */
static void
resume_cancelled(HfSettle *s, HfDecision *d)
{
	bool		unknown = s->ledger != NULL && hf_ledger_is(s->ledger, "unknown");

	d->decision = "cancelled";
	d->reason = unknown ? "unresolved" : "cancelled";
	if (s->ledger != NULL && hf_ledger_is(s->ledger, "started"))
		hf_ledger_set(s->call, s->ledger, s->job, "planned", (Datum) 0);
	hf_job_ended(s->call, s->job, "action_cancelled", s->ledger ? text_to_cstring(hf_text(s->ledger, LEDGER_STATE)) : NULL,
				 d->reason);
	if (unknown)
		hf_job_die(s->call, s->job, "unresolved");
	else
		hf_job_gone(s->call, s->job);
}

/* The ledger is committed: the job is done, whatever the worker meant. */
static void
resume_committed(HfSettle *s, HfDecision *d)
{
	d->decision = "succeeded";
	d->reason = "ledger_committed";
	hf_job_ended(s->call, s->job, "action_attempt_succeeded", "committed", d->reason);
	hf_job_gone(s->call, s->job);
	if (!hf_is_null(s->job, JOB_STREAM))
		hf_stream_ended(s->call, hf_int32(s->job, JOB_QUEUE), hf_text(s->job, JOB_STREAM), true);
}

static void
resume_later(HfSettle *s, HfEvent *event, HfDecision *d, int64 asked_ms, const HfPolicy *policy, int32 resumes)
{
	bool		released = asked_ms < 0;
	TimestampTz run_after;
	const char *mode = hf_text_is(hf_get(s->job, JOB_MODE), "reconcile") ? "reconcile" : "execute";

	d->decision = released ? "released" : "snoozed";
	d->delay_ms = released ? 0 : asked_ms;
	if (resumes >= 2)
	{
		d->jitter_ms = hf_jitter_ms(s->job_id, resumes, policy->jitter_ms);
		d->delay_ms = Max(d->delay_ms, hf_backoff_ms(policy->base_ms, policy->rate, policy->max_ms, resumes) + d->jitter_ms);
	}
	if (d->delay_ms == asked_ms)
		d->jitter_ms = 0;
	run_after = hf_not_before(s->call->now + d->delay_ms * 1000);
	d->next_not_before = run_after;
	hf_event_set(event, EVENT_DELAY_MS, Int64GetDatum(d->delay_ms));
	hf_event_set(event, EVENT_JITTER_MS, Int64GetDatum(d->jitter_ms));
	hf_event_set(event, EVENT_NEXT_NOT_BEFORE, TimestampTzGetDatum(run_after));
	if (s->ledger != NULL && hf_ledger_is(s->ledger, "started"))
		hf_ledger_set(s->call, s->ledger, s->job, "planned", (Datum) 0);
	hf_set(s->job, JOB_RESUMES, Int32GetDatum(resumes));
	hf_job_requeue(s->call, s->job, run_after, mode);
}

/* asked_ms -1: release */
static void
resume(HfSettle *s, int64 asked_ms, text *reason, HfDecision *d)
{
	HfCall	   *call = s->call;
	const HfPolicy *policy = hf_job_policy(s->job, s->queue);
	int32		resumes = hf_int32(s->job, JOB_RESUMES) + 1;
	HfEvent		event;
	HfDetail	detail = {0};

	hf_settle_ledger(s);
	refuse_open_children(s);
	if (resumes > HF_MAX_RESUMES && !(s->ledger != NULL && hf_ledger_is(s->ledger, "committed")))
	{
		HfReport	report;

		report_init(&report, s->function);
		report.error_class = cstring_to_text("ReleasedTooOften");
		report.message = reason;
		hf_job_failed(call, s->job, s->ledger, &report, d);
		return;
	}
	d->attempt_number = hf_int32(s->job, JOB_ATTEMPT_NUMBER);
	d->failures = hf_int32(s->job, JOB_FAILURES);
	d->max_attempts = hf_job_max_attempts(s->job, s->queue);
	d->retry_policy = policy->name;
	d->because = psprintf("%s by the worker, %d in a row; not charged, failure %d of %d (attempt %d)",
						  s->function, resumes, d->failures, d->max_attempts, d->attempt_number);
	hf_event_end_of_attempt(call, &event, asked_ms < 0 ? "action_released" : "action_snoozed",
							asked_ms < 0 ? "released" : "snoozed", s->job);
	hf_event_copy(&event, EVENT_FAILURES, s->job, JOB_FAILURES);
	hf_event_set(&event, EVENT_MAX_ATTEMPTS, Int32GetDatum(d->max_attempts));
	hf_event_set(&event, EVENT_RETRY_POLICY, CStringGetTextDatum(d->retry_policy));
	if (reason != NULL)
		hf_event_set(&event, EVENT_MESSAGE, PointerGetDatum(reason));
	if (s->ledger != NULL)
		hf_event_set(&event, EVENT_SIDE_EFFECT_STATE,
					 hf_ledger_is(s->ledger, "started") ? hf_word("planned") : hf_get(s->ledger, LEDGER_STATE));
	if (hf_job_late(call, s->job, s->function))
		hf_detail_bool(&detail, "late", true);
	hf_detail_cstring(&detail, "report", s->function);
	hf_detail_cstring(&detail, "because", d->because);
	hf_event_set(&event, EVENT_DETAIL, hf_detail_end(&detail));
	if (s->ledger != NULL && hf_ledger_is(s->ledger, "committed"))
	{
		hf_event_add(call, &event);
		resume_committed(s, d);
	}
	else if (!hf_is_null(s->job, JOB_CANCEL_REQUESTED_AT))
	{
		hf_event_add(call, &event);
		resume_cancelled(s, d);
	}
	else
	{
		resume_later(s, &event, d, asked_ms, policy, resumes);
		hf_event_add(call, &event);
	}
}

static Datum
settle_resume(FunctionCallInfo fcinfo, const char *function, int64 asked_ms, HfCall *call, HfSettle *s, text *reason)
{
	HfDecision	decision = {0};
	const char *outcome = hf_settle_find(s, HF_FIND_SETTLE);

	if (outcome == NULL)
		resume(s, asked_ms, reason, &decision);
	else if (strcmp(outcome, "reported") == 0)
	{
		const HfEvent *end = &s->history->end;
		char	   *report = hf_event_detail(end, "report");
		bool		same = report != NULL && strcmp(report, function) == 0 && same_text(end, EVENT_MESSAGE, reason);

		decision_of(s->history, &decision);
		decision.decision = hf_settle_repeat(s, same);
	}
	else
		decision.decision = outcome;
	answer_decision(fcinfo, &decision);
	hf_settle_end(s);
	return (Datum) 0;
}

/*
 * holdfast.snooze(job_id bigint, lease_id uuid, delay interval, reason text => null)
 *		returns setof retry_decision
 *
 * Not now, and nothing was sent; not charged.  From the second time in a row
 * not before the policy's delay; after ten in a row charged as
 * ReleasedTooOften.  Errors: JQ006 for a delay that is not positive, JQ004
 * with a child effect open, JQ008.
 */
Datum
holdfast_snooze(PG_FUNCTION_ARGS)
{
	HfCall		call;
	HfSettle	s;
	int64		asked_ms;

	hf_settle_begin(&s, &call, fcinfo, "snooze");
	asked_ms = delay_arg(&s, fcinfo, 2, "delay");
	return settle_resume(fcinfo, "snooze", asked_ms, &call, &s, hf_arg_text(fcinfo, 3, "reason", HF_MAX_TEXT, false));
}

/*
 * holdfast.release(job_id bigint, lease_id uuid, reason text => null)
 *		returns setof retry_decision
 *
 * The worker shuts down and nothing was sent: due at once, behind those that
 * are due already; bounded as snooze is.
 */
Datum
holdfast_release(PG_FUNCTION_ARGS)
{
	HfCall		call;
	HfSettle	s;

	hf_settle_begin(&s, &call, fcinfo, "release");
	return settle_resume(fcinfo, "release", -1, &call, &s, hf_arg_text(fcinfo, 2, "reason", HF_MAX_TEXT, false));
}
