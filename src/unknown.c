/*-------------------------------------------------------------------------
 *
 * unknown.c
 *	  What operators find about an unknown effect: settle_unknown.
 *
 * It starts from a key: the ledger is read unlocked, then the job is locked,
 * then the ledger, and all begins anew if the row names another job by then.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "miscadmin.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(holdfast_settle_unknown);

typedef enum Finding
{
	LANDED, NOT_LANDED, ABANDONED
} Finding;

static const char *const findings[] = {"landed", "not_landed", "abandoned", NULL};

typedef struct Settling
{
	HfCall	   *call;
	pg_uuid_t  *key;
	HfRow	   *row;			/* of the key: a parent's or a child's */
	HfRow	   *ledger;			/* of the job's own key; row itself, or its parent */
	HfRow	   *job;			/* live or dead */
	bool		live;
} Settling;

pg_noreturn static void
cannot_settle(Settling *s, const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_HF_ILLEGAL_TRANSITION),
			 errmsg("effect %s cannot be settled", DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(s->key)))),
			 errdetail("%s", detail),
			 errhint("%s", hint)));
}

/* The job, live or dead, not locked; false: neither. */
static bool
find_job(Settling *s, int64 job_id)
{
	s->job = hf_row_for(hf_open(s->call, HF_JOB));
	s->live = hf_find_job(s->job, job_id);
	if (s->live)
		return true;
	hf_row_free(s->job);
	s->job = hf_row_for(hf_open(s->call, HF_DEAD_JOB));
	if (hf_find_job(s->job, job_id))
		return true;
	hf_row_free(s->job);
	s->job = NULL;
	return false;
}

/*
 * From the key to the rows, locked in order: read the ledger unlocked, lock
 * the job, lock the ledger, and start over if it names another job by then, or
 * if a job that was not found is there: it moves from dead to live, or back,
 * under the lock of its ledger row.
 */
static void
lock_settling(Settling *s)
{
	HfCall	   *call = s->call;

	for (;;)
	{
		HfRow	   *seen = hf_row_for(hf_open(call, HF_LEDGER));
		int64		job_id;
		pg_uuid_t	own_key;
		bool		found;

		CHECK_FOR_INTERRUPTS();
		if (!hf_find_key(seen, s->key) || !hf_is_granted_id(hf_int32(seen, LEDGER_QUEUE), HF_OPERATOR))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("idempotency key %s is not known",
							DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(s->key)))),
					 errhint("See holdfast.unknown_effect for the keys whose effect is unknown.")));
		job_id = hf_int64(seen, LEDGER_JOB_ID);
		own_key = hf_is_null(seen, LEDGER_PARENT_KEY) ? *s->key : *hf_uuid(seen, LEDGER_PARENT_KEY);
		found = find_job(s, job_id);
		if (found && hf_lock(call, s->job, false) != HF_LOCKED)
			continue;
		if (hf_ledger_lock(call, &own_key, false, &s->ledger) != HF_LEDGER_HELD)
		{
			if (memcmp(&own_key, s->key, UUID_LEN) != 0)
				cannot_settle(s, "The ledger row of the action that it is part of is missing.",
							  "See holdfast.verify(); a claim of the job enters it anew.");
			continue;
		}
		s->row = s->ledger;
		if (memcmp(&own_key, s->key, UUID_LEN) != 0 && hf_ledger_lock(call, s->key, false, &s->row) != HF_LEDGER_HELD)
			continue;
		if (hf_int64(s->row, LEDGER_JOB_ID) == job_id && (found || !find_job(s, job_id)))
			return;
	}
}

static void
add_settled_event(Settling *s, HfRow *job, const char *kind, const char *finding, const char *state, text *reason,
				  Jsonb *evidence, const char *decision, const char *dead_by, TimestampTz next)
{
	HfEvent		event;
	HfDetail	detail = {0};

	hf_event_init(s->call, &event, kind, job);
	if (s->live)
		hf_event_set_enqueued(&event, job);
	hf_event_set(&event, EVENT_WORKER_RESULT, CStringGetTextDatum(finding));
	hf_event_set(&event, EVENT_SIDE_EFFECT_STATE, hf_get(s->ledger, LEDGER_STATE));
	if (next != 0)
		hf_event_set(&event, EVENT_NEXT_NOT_BEFORE, TimestampTzGetDatum(next));
	if (s->row != s->ledger)
	{
		hf_detail_text(&detail, "effect", hf_text(s->row, LEDGER_EFFECT));
		hf_detail_cstring(&detail, "effect_state", state);
	}
	hf_detail_cstring(&detail, "by", GetUserNameFromId(GetUserId(), false));
	hf_detail_text(&detail, "reason", reason);
	hf_detail_cstring(&detail, "decision", decision);
	hf_detail_cstring(&detail, "dead_by", dead_by);
	hf_detail_jsonb(&detail, "evidence", evidence);
	hf_event_set(&event, EVENT_DETAIL, hf_detail_end(&detail));
	hf_event_add(s->call, &event);
}

/* A dead job's row goes, since its effect has landed; or its reason changes. */
static void
settle_dead(Settling *s, const char *reason)
{
	if (reason == NULL)
		hf_delete_locked(s->call, s->job);
	else
	{
		hf_set(s->job, DEAD_REASON, CStringGetTextDatum(reason));
		hf_update_locked(s->call, s->job);
	}
}

/* Abandoning an action abandons what is unknown of its parts. */
static void
abandon_children(Settling *s)
{
	ListCell   *lc;

	foreach(lc, hf_ledger_children(s->call, s->ledger, true))
		if (hf_ledger_is(lfirst(lc), "unknown"))
			hf_ledger_set(s->call, lfirst(lc), s->job, "failed_terminal", (Datum) 0);
}

/* The job of a ledger row whose own row is gone, as far as the ledger tells it. */
static HfRow *
job_of_ledger(Settling *s)
{
	static const int pairs[][2] = {{JOB_ID, LEDGER_JOB_ID}, {JOB_KEY, LEDGER_KEY}, {JOB_QUEUE, LEDGER_QUEUE},
		{JOB_ATTEMPT_NUMBER, LEDGER_ATTEMPT_NUMBER}, {JOB_SUBJECT, LEDGER_SUBJECT}, {JOB_ACTION_KEY, LEDGER_ACTION_KEY}};
	HfRow	   *job = hf_row_new(hf_open(s->call, HF_JOB));

	for (int i = 0; i < lengthof(pairs); i++)
		hf_set(job, pairs[i][0], hf_get(s->ledger, pairs[i][1]));
	hf_set(job, JOB_CORRELATION_ID,
		   CStringGetTextDatum(DatumGetCString(DirectFunctionCall1(uuid_out, hf_get(s->ledger, LEDGER_KEY)))));
	hf_set(job, JOB_MODE, hf_word("reconcile"));
	return job;
}

/* What becomes of the job once the effect is settled. */
static const char *
decide_settled(Settling *s, Finding finding, bool more, const char **final)
{
	const HfQueue *queue = s->job ? hf_queue_by_id(hf_int32(s->job, JOB_QUEUE)) : NULL;

	*final = NULL;
	if (finding == ABANDONED)
	{
		if (hf_ledger_is(s->ledger, "committed"))
			return "succeeded";	/* only parts of it are abandoned */
		*final = "abandoned";
		return "dead";
	}
	if (more)
		return "reconcile";
	if (hf_ledger_is(s->ledger, "committed") || (finding == LANDED && s->row == s->ledger))
		return "succeeded";
	if (s->live)
		*final = hf_job_no_more_execution(s->call, s->job, queue);
	return s->live && *final == NULL ? "execute" : "dead";
}

static void
settle_unknown(Settling *s, Finding finding, Jsonb *evidence, text *reason, const char **state)
{
	HfCall	   *call = s->call;
	bool		more = hf_ledger_others_unknown(call, s->ledger, s->row);
	const char *final;
	const char *decision = decide_settled(s, finding, more, &final);
	bool		goes_on = s->live && final == NULL && strcmp(decision, "succeeded") != 0;
	TimestampTz was = goes_on ? hf_time(s->job, JOB_RUN_AFTER) : 0;
	TimestampTz run_after = goes_on ? hf_not_before(was) : 0;

	*state = finding == LANDED || hf_ledger_is(s->row, "committed") ? "committed" :
		finding == NOT_LANDED ? "failed_retryable" : "failed_terminal";
	if (s->row == s->ledger && final != NULL)
		*state = "failed_terminal";
	if (finding == ABANDONED)
		abandon_children(s);
	if (!hf_ledger_is(s->row, "committed")) /* final */
		hf_ledger_set(call, s->row, s->job, *state, evidence ? JsonbPGetDatum(evidence) : (Datum) 0);
	if (s->row != s->ledger && final != NULL)
		hf_ledger_set(call, s->ledger, s->job, "failed_terminal", (Datum) 0);
	add_settled_event(s, s->job ? s->job : job_of_ledger(s), "action_reconciled",
					  findings[finding], *state, reason, evidence, decision, final, run_after > was ? run_after : 0);
	if (s->job == NULL)
		return;
	if (!s->live)
		settle_dead(s, strcmp(decision, "succeeded") == 0 ? NULL :
					final != NULL ? final : text_to_cstring(hf_text(s->job, DEAD_REASON)));
	else if (goes_on)
		hf_job_requeue(call, s->job, run_after, more ? "reconcile" : "execute");
	else if (strcmp(decision, "succeeded") == 0)
	{
		hf_job_gone(call, s->job);
		if (!hf_is_null(s->job, JOB_STREAM))
			hf_stream_ended(call, hf_int32(s->job, JOB_QUEUE), hf_text(s->job, JOB_STREAM), true);
	}
	else
		hf_job_die(call, s->job, final);
}

/*
 * holdfast.settle_unknown(idempotency_key uuid, finding text, evidence jsonb, reason text)
 *		returns setof (state text, job_id bigint)
 *
 * An operator's finding about an unknown effect: landed | not_landed |
 * abandoned.  Errors: JQ004 while the job runs (with the lease's end) or where
 * nothing is unknown, 42704 for a key that is not known, 22004 without a
 * reason.
 */
Datum
holdfast_settle_unknown(PG_FUNCTION_ARGS)
{
	HfCall		call;
	Settling	s = {0};
	Finding		finding;
	const char *state;
	Datum		values[2];
	bool		nulls[2] = {false, false};
	Jsonb	   *evidence = hf_arg_jsonb(fcinfo, 2, "evidence", HF_MAX_JSONB);
	text	   *reason;

	hf_begin(&call, "settle_unknown", true);
	s.call = &call;
	s.key = hf_arg_uuid(fcinfo, 0, "idempotency_key");
	finding = hf_arg_choice(fcinfo, 1, "finding", findings);
	reason = hf_arg_text(fcinfo, 3, "reason", HF_MAX_TEXT, true);
	lock_settling(&s);
	call.now = hf_clock_now();
	if (s.live && !hf_is_null(s.job, JOB_LEASE_ID))
		cannot_settle(&s, psprintf("Job " INT64_FORMAT " is running; its lease ends at %s.", hf_int64(s.job, JOB_ID),
								   timestamptz_to_str(hf_time(s.job, JOB_LEASE_EXPIRES_AT))),
					  "Wait for its report or the end of its lease, or cancel it with force.");
	if (!hf_ledger_is(s.row, "unknown") &&
		!(finding == ABANDONED && s.row == s.ledger && hf_ledger_any_unknown(&call, s.ledger)))
		cannot_settle(&s, psprintf("The ledger says %s.", text_to_cstring(hf_text(s.row, LEDGER_STATE))),
					  "Only an unknown effect is settled by an operator.");
	if (finding == ABANDONED && s.row != s.ledger)
		cannot_settle(&s, "It is a child effect.", "Abandon the action itself, by the key of its job.");
	values[1] = hf_get(s.row, LEDGER_JOB_ID);
	settle_unknown(&s, finding, evidence, reason, &state);
	values[0] = CStringGetTextDatum(state);
	hf_answer_row(fcinfo, "tl", values, nulls);
	hf_end(&call);
	return (Datum) 0;
}
