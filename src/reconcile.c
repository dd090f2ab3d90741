/*-------------------------------------------------------------------------
 *
 * reconcile.c
 *	  Finding out what happened, under a lease: reconcile, ledger_transition,
 *	  effects.  unknown.c has what operators find.
 *
 * From ledger state unknown no path leads to execution but a finding: a
 * worker's, under its lease in mode reconcile, or an operator's.  The lease is
 * looked at before the ledger, so that the same finding again under the same
 * lease is answered as the first was.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "access/stratnum.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(holdfast_reconcile);
PG_FUNCTION_INFO_V1(holdfast_ledger_transition);
PG_FUNCTION_INFO_V1(holdfast_effects);

typedef enum Finding
{
	LANDED, NOT_LANDED, UNDETERMINED
} Finding;

static const char *const findings[] = {"landed", "not_landed", "undetermined", NULL};

pg_noreturn static void
illegal(HfSettle *s, const char *what, const char *hint)
{
	hf_remember_job_refusal(s->call, s->job, ERRCODE_HF_ILLEGAL_TRANSITION, s->function);
	ereport(ERROR,
			(errcode(ERRCODE_HF_ILLEGAL_TRANSITION),
			 errmsg("%s is not possible for job " INT64_FORMAT, s->function, s->job_id),
			 errdetail("%s", what),
			 errhint("%s", hint)));
}

/* A job was enqueued with the effect's key, and has a ledger row of its own there. */
static void
refuse_intent(HfSettle *s, text *effect, pg_uuid_t *key)
{
	hf_remember_job_refusal(s->call, s->job, ERRCODE_HF_INTENT_MISMATCH, s->function);
	ereport(ERROR,
			(errcode(ERRCODE_HF_INTENT_MISMATCH),
			 errmsg("idempotency key %s of effect \"%s\" is known as that of an action",
					DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(key))), text_to_cstring(effect)),
			 errdetail("A job was enqueued with it, and what is known of that one would be overwritten."),
			 errhint("Give the effect another name; enqueue no job under the key of an effect.")));
}

/* The child effect's row, or NULL if there is none yet. */
static HfRow *
find_child(HfSettle *s, text *effect, pg_uuid_t *key)
{
	HfRow	   *child;

	hf_effect_key(hf_uuid(s->job, JOB_KEY), effect, key);
	if (hf_ledger_lock(s->call, key, false, &child) != HF_LEDGER_HELD)
		return NULL;
	if (hf_is_null(child, LEDGER_PARENT_KEY))
		refuse_intent(s, effect, key);
	return child;
}

/* Whether any effect of the job is unknown still, but for the row just settled. */
bool
hf_ledger_others_unknown(HfCall *call, HfRow *ledger, const HfRow *settled)
{
	ListCell   *lc;

	if (settled != ledger && hf_ledger_is(ledger, "unknown"))
		return true;
	foreach(lc, hf_ledger_children(call, ledger, false))
	{
		HfRow	   *child = lfirst(lc);

		if (hf_ledger_is(child, "unknown") &&
			(settled == NULL || memcmp(hf_uuid(child, LEDGER_KEY), hf_uuid(settled, LEDGER_KEY), UUID_LEN) != 0))
			return true;
	}
	return false;
}

/* Why a job that would execute again may not, or NULL: its own policy says so, nothing else. */
const char *
hf_job_no_more_execution(HfCall *call, const HfRow *job, const HfQueue *queue)
{
	if (!hf_is_null(job, JOB_FINAL_REASON))
		return text_to_cstring(hf_text(job, JOB_FINAL_REASON));
	if (hf_int32(job, JOB_FAILURES) >= hf_job_max_attempts(job, queue))
		return "budget";
	if (!hf_is_null(job, JOB_GIVE_UP_AT) && call->now >= hf_time(job, JOB_GIVE_UP_AT))
		return "deadline";
	return NULL;
}

/* ---------------------------------------------------------------- reconcile */

typedef struct Answer
{
	const char *outcome;
	TimestampTz next_not_before;	/* 0: null, as the others */
	TimestampTz lease_expires_at;
	TimestampTz deadline_at;
} Answer;

typedef struct Found
{
	Finding		finding;
	text	   *effect;			/* NULL: the action itself */
	Jsonb	   *evidence;
	bool		late;
} Found;

/* side_effect_state is the action's own, as in every event; an effect's is in the detail, or follows from the finding. */
static void
add_found_event(HfSettle *s, const Found *found, const char *outcome, TimestampTz next, const char *reason)
{
	HfEvent		event;
	HfDetail	detail = {0};

	hf_event_end_of_attempt(s->call, &event, "action_reconciled", findings[found->finding], s->job);
	hf_event_copy(&event, EVENT_SIDE_EFFECT_STATE, s->ledger, LEDGER_STATE);
	hf_event_copy(&event, EVENT_FAILURES, s->job, JOB_FAILURES);
	if (next != 0)
	{
		hf_event_set(&event, EVENT_NEXT_NOT_BEFORE, TimestampTzGetDatum(next));
		hf_event_set(&event, EVENT_DELAY_MS, Int64GetDatum((next - s->call->now) / 1000));
	}
	hf_detail_cstring(&detail, "report", "reconcile");
	hf_detail_text(&detail, "effect", found->effect);
	hf_detail_cstring(&detail, "outcome", outcome);
	hf_detail_cstring(&detail, "reason", reason);
	if (found->late)
		hf_detail_bool(&detail, "late", true);
	hf_detail_jsonb(&detail, "evidence", found->evidence);
	hf_event_set(&event, EVENT_DETAIL, hf_detail_end(&detail));
	hf_event_add(s->call, &event);
}

/* The attempt ends; the job comes back in this mode. */
static void
come_back(HfSettle *s, const Found *found, const char *mode, Answer *answer)
{
	const HfPolicy *policy = hf_job_policy(s->job, s->queue);

	if (!hf_is_null(s->job, JOB_CANCEL_REQUESTED_AT))
	{
		add_found_event(s, found, "dead", 0, "unresolved");
		hf_job_die(s->call, s->job, "unresolved");
		answer->outcome = "dead";
		return;
	}
	answer->outcome = "retry";
	answer->next_not_before = hf_not_before(s->call->now + policy->reconcile_ms * 1000);
	add_found_event(s, found, "retry", answer->next_not_before, NULL);
	hf_job_requeue(s->call, s->job, answer->next_not_before, mode);
}

/* Nothing is unknown any more: the job executes again, under the same lease renewed. */
static void
go_on(HfSettle *s, const Found *found, HfRow *settled, Answer *answer)
{
	HfCall	   *call = s->call;
	const char *final = hf_job_no_more_execution(call, s->job, s->queue);
	int64		lease_ms;

	if (!hf_is_null(s->job, JOB_CANCEL_REQUESTED_AT))
	{
		/* nothing landed, and an operator asked for the end */
		hf_ledger_set(call, s->ledger, s->job, "failed_retryable", (Datum) 0);
		add_found_event(s, found, "dead", 0, "cancelled");
		hf_job_ended(call, s->job, "action_cancelled", "failed_retryable", "cancelled");
		hf_job_gone(call, s->job);
		answer->outcome = "dead";
		return;
	}
	if (final != NULL)
	{
		hf_ledger_set(call, s->ledger, s->job, "failed_terminal", (Datum) 0);
		add_found_event(s, found, "dead", 0, final);
		hf_job_ended(call, s->job, strcmp(final, "terminal") == 0 ? "action_terminal" : "action_exhausted",
					 "failed_terminal", final);
		hf_job_die(call, s->job, final);
		answer->outcome = "dead";
		return;
	}
	if (found->late)
	{
		/* the past counts, the future is not granted: another attempt goes on */
		hf_ledger_set(call, s->ledger, s->job, "failed_retryable", (Datum) 0);
		come_back(s, found, "execute", answer);
		return;
	}
	hf_ledger_set(call, s->ledger, s->job, "started",
				  settled == s->ledger && found->evidence ? JsonbPGetDatum(found->evidence) : (Datum) 0);
	lease_ms = hf_lease_for(s->job, s->queue, -1);
	answer->lease_expires_at = Max(hf_time(s->job, JOB_LEASE_EXPIRES_AT), call->now + lease_ms * 1000);
	answer->deadline_at = call->now + hf_job_timeout_ms(s->job, s->queue) * 1000;
	if (!hf_is_null(s->job, JOB_GIVE_UP_AT))
		answer->deadline_at = Min(answer->deadline_at, hf_time(s->job, JOB_GIVE_UP_AT));
	answer->outcome = "execute";
	hf_set(s->job, JOB_LEASE_EXPIRES_AT, TimestampTzGetDatum(answer->lease_expires_at));
	hf_set(s->job, JOB_MODE, hf_word("execute"));
	hf_set(s->job, JOB_RUN_AFTER, TimestampTzGetDatum(hf_not_before(call->now)));
	add_found_event(s, found, "execute", 0, NULL);
	hf_update_locked(call, s->job);
}

static void
keep_reconciling(HfSettle *s, const Found *found, Answer *answer)
{
	answer->outcome = "reconcile";
	answer->lease_expires_at = hf_time(s->job, JOB_LEASE_EXPIRES_AT);
	add_found_event(s, found, "reconcile", 0, NULL);
	hf_update_locked(s->call, s->job);	/* the time of its last event */
}

static void
done(HfSettle *s, const Found *found, Answer *answer)
{
	add_found_event(s, found, "done", 0, NULL);
	answer->outcome = "done";
	hf_job_gone(s->call, s->job);
	if (!hf_is_null(s->job, JOB_STREAM))
		hf_stream_ended(s->call, hf_int32(s->job, JOB_QUEUE), hf_text(s->job, JOB_STREAM), true);
}

/* A finding about one effect, under the job's own lease, in mode reconcile. */
static void
settle_finding(HfSettle *s, Found *found, HfRow *row, Answer *answer)
{
	HfCall	   *call = s->call;
	bool		child = row != s->ledger;
	bool		more = hf_ledger_others_unknown(call, s->ledger, row);
	Datum		evidence = found->evidence ? JsonbPGetDatum(found->evidence) : (Datum) 0;

	if (found->finding == UNDETERMINED)
	{
		come_back(s, found, "reconcile", answer);
		return;
	}
	if (found->finding == LANDED)
	{
		hf_ledger_set(call, row, s->job, "committed", evidence);
		if (!child && !more)
			done(s, found, answer);
		else if (more)
			keep_reconciling(s, found, answer);
		else if (hf_ledger_is(s->ledger, "committed"))
			done(s, found, answer);
		else
			go_on(s, found, row, answer);
		return;
	}
	if (child || more)
		hf_ledger_set(call, row, s->job, "failed_retryable", evidence);
	if (more)
		keep_reconciling(s, found, answer);
	else if (child && hf_ledger_is(s->ledger, "committed"))
		done(s, found, answer);
	else
		go_on(s, found, row, answer);
}

static bool
same_effect(const HfEvent *event, const text *effect)
{
	char	   *was = hf_event_detail(event, "effect");

	if (was == NULL || effect == NULL)
		return was == NULL && effect == NULL;
	return strcmp(was, text_to_cstring(effect)) == 0;
}

/* What was found before under this very lease, while it is still current. */
static bool
found_before(HfSettle *s, const Found *found, Answer *answer)
{
	HfHistory  *h = s->history = palloc(sizeof(HfHistory));
	HfEvent    *before = NULL;
	ListCell   *lc;

	if (!hf_history(s->call, s->job_id, s->lease_id, h))
		return false;
	foreach(lc, h->findings)
		if (before == NULL && same_effect(lfirst(lc), found->effect))
			before = lfirst(lc);
	if (before == NULL)
		return false;
	if (!hf_text_is(before->value[EVENT_WORKER_RESULT], findings[found->finding]))
	{
		h->end = *before;
		answer->outcome = hf_settle_repeat(s, false);
		return true;
	}
	answer->outcome = hf_event_detail(before, "outcome");
	if (s->call->now >= hf_time(s->job, JOB_LEASE_EXPIRES_AT))
	{
		answer->outcome = hf_settle_stale(s, "the finding is on record, and the lease is over");
		return true;
	}
	answer->lease_expires_at = hf_time(s->job, JOB_LEASE_EXPIRES_AT);
	answer->deadline_at = Min(DatumGetTimestampTz(before->value[EVENT_AT]) + hf_job_timeout_ms(s->job, s->queue) * 1000,
							  hf_is_null(s->job, JOB_GIVE_UP_AT) ? DT_NOEND : hf_time(s->job, JOB_GIVE_UP_AT));
	return true;
}

static void
reconcile(HfSettle *s, Found *found, Answer *answer)
{
	HfRow	   *row;
	pg_uuid_t	key;

	hf_settle_ledger(s);
	if (s->ledger == NULL)
		illegal(s, "The job has no side effects, so nothing of it is unknown.", "Call complete() or fail().");
	row = found->effect ? find_child(s, found->effect, &key) : s->ledger;
	if (row == NULL || !hf_ledger_is(row, "unknown") || hf_text_is(hf_get(s->job, JOB_MODE), "execute"))
	{
		if (found_before(s, found, answer))
			return;
		illegal(s, row == NULL ? "There is no such child effect." :
				psprintf("The ledger says %s.", text_to_cstring(hf_text(row, LEDGER_STATE))),
				"reconcile() is for what the ledger calls unknown, in mode reconcile.");
	}
	found->late = s->call->now >= hf_time(s->job, JOB_LEASE_EXPIRES_AT);
	if (found->late && found->finding == NOT_LANDED)
	{
		answer->outcome = hf_settle_stale(s, "not_landed grants the future, and the lease is over");
		return;
	}
	hf_job_late(s->call, s->job, "reconcile");
	settle_finding(s, found, row, answer);
}

/*
 * holdfast.reconcile(job_id bigint, lease_id uuid, finding text,
 *					  evidence jsonb => null, effect text => null)
 *		returns setof reconcile_result
 *
 * landed settles, not_landed answers execute, undetermined ends the attempt.
 * Errors: JQ004 where nothing is unknown, JQ007 for an effect whose key is an
 * action's, JQ008, 22004, 22023.
 */
Datum
holdfast_reconcile(PG_FUNCTION_ARGS)
{
	HfCall		call;
	HfSettle	s;
	Found		found = {0};
	Answer		answer = {0};
	const char *outcome;
	Datum		values[4];
	bool		nulls[4] = {false};

	hf_settle_begin(&s, &call, fcinfo, "reconcile");
	found.finding = hf_arg_choice(fcinfo, 2, "finding", findings);
	found.evidence = hf_arg_jsonb(fcinfo, 3, "evidence", HF_MAX_JSONB);
	found.effect = hf_arg_text(fcinfo, 4, "effect", HF_MAX_NAME, false);
	outcome = hf_settle_find(&s, HF_FIND_SETTLE);
	if (outcome == NULL)
		reconcile(&s, &found, &answer);
	else if (strcmp(outcome, "reported") == 0)
	{
		const HfEvent *end = &s.history->end;
		bool		same = hf_text_is(end->value[EVENT_KIND], "action_reconciled") &&
			hf_text_is(end->value[EVENT_WORKER_RESULT], findings[found.finding]) && same_effect(end, found.effect);

		if (same && !end->null[EVENT_NEXT_NOT_BEFORE])
			answer.next_not_before = DatumGetTimestampTz(end->value[EVENT_NEXT_NOT_BEFORE]);
		answer.outcome = hf_settle_repeat(&s, same);
	}
	else
		answer.outcome = outcome;
	values[0] = CStringGetTextDatum(answer.outcome);
	values[1] = TimestampTzGetDatum(answer.next_not_before);
	values[2] = TimestampTzGetDatum(answer.lease_expires_at);
	values[3] = TimestampTzGetDatum(answer.deadline_at);
	nulls[1] = answer.next_not_before == 0;
	nulls[2] = answer.lease_expires_at == 0;
	nulls[3] = answer.deadline_at == 0;
	hf_answer_row(fcinfo, "tzzz", values, nulls);
	hf_settle_end(&s);
	return (Datum) 0;
}

/* ---------------------------------------------------------------- ledger_transition, effects */

static const char *const to_states[] = {"started", "committed", "failed_retryable", NULL};

static void
add_changed_event(HfSettle *s, text *effect, const char *from, const char *to, bool late)
{
	HfEvent		event;
	HfDetail	detail = {0};

	hf_event_init(s->call, &event, "action_ledger_changed", s->job);
	hf_event_copy(&event, EVENT_SIDE_EFFECT_STATE, s->ledger, LEDGER_STATE);
	hf_detail_text(&detail, "effect", effect);
	hf_detail_cstring(&detail, "from", from);
	hf_detail_cstring(&detail, "to", to);
	if (late)
		hf_detail_bool(&detail, "late", true);
	hf_event_set(&event, EVENT_DETAIL, hf_detail_end(&detail));
	hf_event_add(s->call, &event);
	hf_update_locked(s->call, s->job);	/* the time of its last event */
}

static void
new_child(HfSettle *s, text *effect, pg_uuid_t *key, Datum evidence)
{
	HfRow	   *child = hf_ledger_new(s->call, s->job, "started");

	hf_set(child, LEDGER_KEY, UUIDPGetDatum(key));
	hf_set(child, LEDGER_PARENT_KEY, hf_get(s->job, JOB_KEY));
	hf_set(child, LEDGER_EFFECT, PointerGetDatum(effect));
	hf_set_null(child, LEDGER_PAYLOAD_DIGEST);
	if (evidence != (Datum) 0)
		hf_set(child, LEDGER_EVIDENCE, evidence);
	hf_insert(s->call, child);
	if (!hf_bool(s->ledger, LEDGER_HAS_EFFECTS))
	{
		hf_set(s->ledger, LEDGER_HAS_EFFECTS, BoolGetDatum(true));
		hf_ledger_set(s->call, s->ledger, s->job, text_to_cstring(hf_text(s->ledger, LEDGER_STATE)), (Datum) 0);
	}
}

/* The state after the transition; *duplicate: it was there already. */
static const char *
transition(HfSettle *s, const char *to, text *effect, Datum evidence, bool *duplicate)
{
	bool		late = s->call->now >= hf_time(s->job, JOB_LEASE_EXPIRES_AT);
	pg_uuid_t	key;
	HfRow	   *row;
	char	   *from;

	hf_settle_ledger(s);
	if (s->ledger == NULL)
		illegal(s, "The job has no side effects, so it has no ledger.", "Declare them: enqueue with side_effects => true.");
	row = effect ? find_child(s, effect, &key) : s->ledger;
	from = row ? text_to_cstring(hf_text(row, LEDGER_STATE)) : "none";
	if (strcmp(from, to) == 0)
	{
		*duplicate = true;
		return to;
	}
	if (hf_text_is(hf_get(s->job, JOB_MODE), "reconcile"))
		illegal(s, psprintf("The ledger says %s, and the job is to be reconciled.", from),
				"Call reconcile() with what the provider says.");
	if (!(effect != NULL && strcmp(to, "started") == 0 &&
		  (row == NULL || strcmp(from, "planned") == 0 || strcmp(from, "failed_retryable") == 0)) &&
		!(strcmp(from, "started") == 0 && strcmp(to, "committed") == 0) &&
		!(effect != NULL && strcmp(from, "started") == 0 && strcmp(to, "failed_retryable") == 0))
		illegal(s, psprintf("The ledger does not go from %s to %s this way.", from, to),
				"docs/state-machine.md lists every move and the function that makes it.");
	if (late && strcmp(to, "started") == 0)
		return NULL;
	if (row == NULL && hf_key_taken(hf_row_for(hf_open(s->call, HF_LEDGER)), "_pkey", &key))
		refuse_intent(s, effect, &key); /* it was being entered */
	if (row == NULL)
		new_child(s, effect, &key, evidence);
	else
		hf_ledger_set(s->call, row, s->job, to, evidence);
	hf_job_late(s->call, s->job, s->function);
	add_changed_event(s, effect, from, to, late);
	return to;
}

/*
 * holdfast.ledger_transition(job_id bigint, lease_id uuid, to_state text,
 *							  effect text => null, evidence jsonb => null)
 *		returns setof (outcome text, state text)
 *
 * ok | duplicate | stale | unknown_job.  Errors: JQ004 for a move that is not
 * in the table, or while something is to be reconciled; JQ007 for an effect
 * whose key is an action's; JQ008.
 */
Datum
holdfast_ledger_transition(PG_FUNCTION_ARGS)
{
	HfCall		call;
	HfSettle	s;
	const char *to;
	text	   *effect;
	Jsonb	   *evidence;
	const char *outcome;
	const char *state = NULL;
	bool		duplicate = false;
	Datum		values[2];
	bool		nulls[2] = {false, true};

	hf_settle_begin(&s, &call, fcinfo, "ledger_transition");
	to = to_states[hf_arg_choice(fcinfo, 2, "to_state", to_states)];
	effect = hf_arg_text(fcinfo, 3, "effect", HF_MAX_NAME, false);
	evidence = hf_arg_jsonb(fcinfo, 4, "evidence", HF_MAX_JSONB);
	outcome = hf_settle_find(&s, HF_FIND_SETTLE);
	if (outcome == NULL)
	{
		state = transition(&s, to, effect, evidence != NULL ? JsonbPGetDatum(evidence) : (Datum) 0, &duplicate);
		outcome = state == NULL ? hf_settle_stale(&s, "started grants the future, and the lease is over") :
			duplicate ? "duplicate" : "ok";
	}
	else if (strcmp(outcome, "reported") == 0)
		outcome = hf_settle_past(&s);
	values[0] = CStringGetTextDatum(outcome);
	if (state != NULL)
	{
		values[1] = CStringGetTextDatum(state);
		nulls[1] = false;
	}
	hf_answer_row(fcinfo, "tt", values, nulls);
	hf_settle_end(&s);
	return (Datum) 0;
}

/*
 * holdfast.effects(job_id bigint, lease_id uuid)
 *		returns setof (effect text, idempotency_key uuid, state text, evidence jsonb)
 *
 * The child effects of the job, for whoever holds its lease; none otherwise.
 */
Datum
holdfast_effects(PG_FUNCTION_ARGS)
{
	HfCall		call;
	int64		job_id = hf_arg_bigint(fcinfo, 0, "job_id");
	pg_uuid_t  *lease_id = hf_arg_uuid(fcinfo, 1, "lease_id");
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	HfRow	   *job;
	HfRow	   *ledger;
	ListCell   *lc;

	hf_answer_begin(fcinfo, "tutj");
	hf_begin(&call, "effects", false);
	job = hf_row_for(hf_open(&call, HF_JOB));
	ledger = hf_row_for(hf_open(&call, HF_LEDGER));
	if (hf_find_job(job, job_id) && hf_is_granted_id(hf_int32(job, JOB_QUEUE), HF_WORKER) &&
		!hf_is_null(job, JOB_LEASE_ID) && memcmp(hf_uuid(job, JOB_LEASE_ID), lease_id, UUID_LEN) == 0 &&
		hf_find_key(ledger, hf_uuid(job, JOB_KEY)))
	{
		foreach(lc, hf_ledger_children(&call, ledger, false))
		{
			HfRow	   *child = lfirst(lc);
			Datum		values[4] = {hf_get(child, LEDGER_EFFECT), hf_get(child, LEDGER_KEY),
			hf_get(child, LEDGER_STATE), hf_get(child, LEDGER_EVIDENCE)};
			bool		nulls[4] = {false, false, false, hf_is_null(child, LEDGER_EVIDENCE)};

			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		}
	}
	hf_end(&call);
	return (Datum) 0;
}
