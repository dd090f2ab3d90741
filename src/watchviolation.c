/*-------------------------------------------------------------------------
 *
 * watchviolation.c
 *	  What a change of a watched row breaks, and what is done about it.
 *
 * A change is judged by the row and by the latest attempt on record, before
 * the record is brought up to date.  In mode observe the trigger records what
 * it finds; in mode correct it also gives a requeue its delay, and lets no
 * retry begin before its time; in mode enforce it refuses, with the SQLSTATE
 * of the guarantee.
 *
 * A violation is an event of kind action_violation and a finding, under a
 * queue number that is the watch's, negated.  The event's job_id, which must
 * be a number, is a seed of table and id; `detail` has both in words.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include <ctype.h>

#include "access/xact.h"
#include "utils/builtins.h"

static const struct
{
	const char *name;
	int			sqlstate;
	const char *summary;		/* of a refusal: row "id" of "table" ... */
	const char *hint;
}			violations[HF_NVIOLATIONS] = {
	[HF_SETTLED_REVIVED] = {"settled_row_revived", ERRCODE_HF_ILLEGAL_TRANSITION, "is settled and cannot come back",
	"Enter a new row; an operator puts a settled one back with holdfast.recover()."},
	[HF_REQUEUE_NOW] = {"requeue_without_delay", ERRCODE_HF_NO_DELAY, "is put back without a delay",
	"Set the mapped run_after to now() + holdfast.backoff_delay(policy, holdfast.job_seed(id::text), attempts); or watch in mode correct, which does."},
	[HF_NO_RUN_AFTER] = {"pending_without_run_after", ERRCODE_HF_NO_DELAY, "is put back with no time to run after",
	"Set the mapped run_after with the status; or watch in mode correct, which does."},
	[HF_RETRY_NOW] = {"retry_without_backoff", ERRCODE_HF_NO_DELAY, "is tried again before its time",
	"Claim only rows whose run_after has come."},
	[HF_ATTEMPT_SAME] = {"attempt_number_not_advanced", ERRCODE_HF_ILLEGAL_TRANSITION, "is claimed without a new attempt number",
	"Add 1 to the mapped attempt_number where the row is claimed, or where its failure is noted."},
	[HF_KEY_CHANGED] = {"idempotency_key_changed", ERRCODE_HF_INTENT_MISMATCH, "has another idempotency key than its last attempt",
	"Every attempt of one row carries the key that it was entered with."},
	[HF_KEY_ANEW] = {"key_made_anew", ERRCODE_HF_INTENT_MISMATCH, "got another idempotency key while it was running",
	"Make the key when the row is entered; a handler only reads it."},
	[HF_LEASE_BRIEF] = {"lease_shorter_than_timeout", ERRCODE_HF_LEASE_SHORT, "is claimed under a lease shorter than its timeout",
	"Make the lease longer than the timeout, or lower the timeout."},
	[HF_LEASE_TAKEN] = {"lease_taken", ERRCODE_HF_ILLEGAL_TRANSITION, "is claimed under another lease that is not over",
	"Claim a running row only after its lease's end."},
};

/* ---------------------------------------------------------------- judging */

static bool
was_reported_failed(const HfChange *c)
{
	return c->last != NULL && !c->open &&
		(hf_record_is(c->last, RECORD_OUTCOME, "failed") || hf_record_is(c->last, RECORD_OUTCOME, "timeout"));
}

static bool
is_redriven(const HfChange *c)
{
	return c->last != NULL && !hf_is_null(c->last, RECORD_REDRIVEN) && hf_bool(c->last, RECORD_REDRIVEN);
}

/* Whether a time was stored for the retry that lies after the failure. */
static bool
has_stored_delay(const HfChange *c)
{
	return !hf_is_null(c->last, RECORD_NEXT_NOT_BEFORE) &&
		(hf_is_null(c->last, RECORD_FINISHED_AT) ||
		 hf_time(c->last, RECORD_NEXT_NOT_BEFORE) > hf_time(c->last, RECORD_FINISHED_AT));
}

/* The policy's delay in ms after the failure that the change is, or follows. */
int64
hf_watch_delay_ms(HfChange *c, const char **policy_name)
{
	TupleTableSlot *row = c->new != NULL ? c->new : c->old;
	text	   *name = hf_watch_text(c->w, MAP_RETRY_POLICY, row, HF_MAX_NAME);
	const HfPolicy *policy = name != NULL ? hf_policy(text_to_cstring(name)) : NULL;
	int32		n = hf_change_failures(c);

	if (policy == NULL)
		policy = hf_require_policy("default");
	if (!c->ends && c->last != NULL && !hf_is_null(c->last, RECORD_FAILURES))
		n = hf_int32(c->last, RECORD_FAILURES);
	*policy_name = policy->name;
	return Max(hf_backoff_ms(policy->base_ms, policy->rate, policy->max_ms, n) +
			   hf_jitter_ms(hf_watch_seed(c->w, row), n, policy->jitter_ms), 1);
}

/*
 * The time before which the attempt that begins would be a retry without
 * backoff: the one stored for it, or, where none was, the policy's.
 */
TimestampTz
hf_retry_not_before(HfChange *c)
{
	TimestampTz at = DT_NOBEGIN;
	TimestampTz run_after;
	const char *policy;

	if (!c->begins || !was_reported_failed(c) || is_redriven(c))
		return at;
	if (has_stored_delay(c))
		at = hf_time(c->last, RECORD_NEXT_NOT_BEFORE);
	else if (!hf_is_null(c->last, RECORD_FINISHED_AT))
		at = hf_time(c->last, RECORD_FINISHED_AT) + hf_watch_delay_ms(c, &policy) * 1000;
	if (c->old != NULL && hf_watch_time(c->w, MAP_RUN_AFTER, c->old, &run_after))
		at = Max(at, run_after);
	return at;
}

static uint32
judge_key(HfChange *c)
{
	text	   *key = c->new != NULL ? hf_watch_text(c->w, MAP_IDEMPOTENCY_KEY, c->new, HF_MAX_TEXT) : NULL;
	bool		recorded = c->last != NULL && !hf_is_null(c->last, RECORD_KEY);
	bool		same = recorded && key != NULL && hf_text_is(PointerGetDatum(key), text_to_cstring(hf_text(c->last, RECORD_KEY)));

	if (c->last == NULL || !hf_watch_maps(c->w, MAP_IDEMPOTENCY_KEY))
		return 0;
	if (c->begins)
		return recorded && !same ? 1u << HF_KEY_CHANGED : 0;
	if (!c->open || key == NULL || same)
		return 0;
	/* a key that appears in a later attempt cannot be the first attempt's */
	if (recorded || (!hf_is_null(c->last, RECORD_ATTEMPT_NUMBER) && hf_int32(c->last, RECORD_ATTEMPT_NUMBER) > 1))
		return 1u << HF_KEY_ANEW;
	return 0;
}

static uint32
judge_beginning(HfChange *c)
{
	uint32		found = 0;
	bool		counted;
	int64		timeout_ms = hf_watch_ms(c->w, MAP_TIMEOUT, c->new);
	TimestampTz expires;
	TimestampTz run_after;

	if (was_reported_failed(c) && !is_redriven(c) &&
		(!has_stored_delay(c) || hf_time(c->last, RECORD_NEXT_NOT_BEFORE) > c->call->now ||
		 (c->old != NULL && hf_watch_time(c->w, MAP_RUN_AFTER, c->old, &run_after) && run_after > c->call->now)))
		found |= 1u << HF_RETRY_NOW;
	if (c->open && hf_watch_maps(c->w, MAP_LEASE_EXPIRES_AT) && !hf_is_null(c->last, RECORD_LEASE_EXPIRES_AT) &&
		hf_time(c->last, RECORD_LEASE_EXPIRES_AT) > c->call->now)
		found |= 1u << HF_LEASE_TAKEN;
	if (c->last != NULL && !hf_is_null(c->last, RECORD_ATTEMPT_NUMBER) &&
		hf_change_number(c, &counted) <= hf_int32(c->last, RECORD_ATTEMPT_NUMBER) &&
		!hf_record_is(c->last, RECORD_OUTCOME, "released") && !hf_record_is(c->last, RECORD_OUTCOME, "snoozed"))
		found |= 1u << HF_ATTEMPT_SAME;
	/* a worker counts from its now(), which is the transaction's start */
	if (timeout_ms >= 0 && hf_watch_time(c->w, MAP_LEASE_EXPIRES_AT, c->new, &expires) &&
		expires < c->call->now - Max(hf_clock_real() - GetCurrentTransactionStartTimestamp(), 0) + timeout_ms * 1000)
		found |= 1u << HF_LEASE_BRIEF;
	return found;
}

static uint32
judge_requeue(HfChange *c)
{
	TimestampTz run_after;
	bool		stored;
	bool		failed;

	if (!hf_watch_maps(c->w, MAP_RUN_AFTER) || is_redriven(c))
		return 0;
	stored = hf_watch_time(c->w, MAP_RUN_AFTER, c->new, &run_after);
	failed = c->ends ? strcmp(hf_change_outcome(c), "failed") == 0 || strcmp(hf_change_outcome(c), "timeout") == 0 :
		c->was == HF_ROW_FAILED &&
		!(was_reported_failed(c) && has_stored_delay(c) && hf_time(c->last, RECORD_NEXT_NOT_BEFORE) <= c->call->now);
	return (stored ? 0 : 1u << HF_NO_RUN_AFTER) |
		(failed && (!stored || run_after <= c->call->now) ? 1u << HF_REQUEUE_NOW : 0);
}

static bool
is_revived(const HfChange *c)
{
	if (is_redriven(c) || !(c->begins || c->is == HF_ROW_PENDING))
		return false;
	if (c->old != NULL || c->ends)
		return c->was == HF_ROW_SUCCEEDED || c->was == HF_ROW_DEAD;
	/* entered again under the id of a row that was seen to succeed, and not to go by it */
	return c->last != NULL && !c->open && hf_record_is(c->last, RECORD_OUTCOME, "succeeded") &&
		!hf_record_is(c->last, RECORD_STOP_REASON, "deleted");
}

uint32
hf_violations(HfChange *c)
{
	uint32		found = judge_key(c);

	if (c->begins)
		found |= judge_beginning(c);
	if (c->requeued)
		found |= judge_requeue(c);
	if (is_revived(c))
		found |= 1u << HF_SETTLED_REVIVED;
	return found;
}

/* ---------------------------------------------------------------- saying it */

static char *
figures(TimestampTz from, TimestampTz to)
{
	return psprintf(INT64_FORMAT " ms", (to - from) / 1000);
}

/* What the latest attempt is called: `attempt 1 (w1, timeout)`. */
static char *
attempt_called(const HfChange *c)
{
	StringInfoData s;

	initStringInfo(&s);
	if (c->last == NULL)
		appendStringInfoString(&s, "an earlier attempt");
	else
	{
		appendStringInfo(&s, "attempt %d", hf_is_null(c->last, RECORD_ATTEMPT_NUMBER) ? 0 : hf_int32(c->last, RECORD_ATTEMPT_NUMBER));
		if (!hf_is_null(c->last, RECORD_OUTCOME))
			appendStringInfo(&s, " (%s)", text_to_cstring(hf_text(c->last, RECORD_OUTCOME)));
	}
	return s.data;
}

static char *
because_retry(HfChange *c)
{
	TimestampTz finished = hf_is_null(c->last, RECORD_FINISHED_AT) ? c->call->now : hf_time(c->last, RECORD_FINISHED_AT);

	if (has_stored_delay(c))
		return psprintf("it began %s after %s ended, and %s before the time stored for it, %s",
						figures(finished, c->call->now), attempt_called(c),
						figures(c->call->now, Max(hf_time(c->last, RECORD_NEXT_NOT_BEFORE), c->call->now)),
						hf_time_text(hf_time(c->last, RECORD_NEXT_NOT_BEFORE)));
	return psprintf("it began %s after %s ended, and no later time was stored for it",
					figures(finished, c->call->now), attempt_called(c));
}

static char *
because(HfChange *c, HfViolation violation)
{
	TimestampTz at;
	text	   *key;
	bool		counted;

	switch (violation)
	{
		case HF_RETRY_NOW:
			return because_retry(c);
		case HF_REQUEUE_NOW:
			if (!hf_watch_time(c->w, MAP_RUN_AFTER, c->new, &at))
				return psprintf("%s failed, and run_after is null", attempt_called(c));
			if (c->last == NULL && !c->ends)
				return psprintf("it had failed, of which nothing is on record, and run_after is %s", hf_time_text(at));
			return psprintf("%s failed at %s, and run_after is %s", attempt_called(c),
							hf_time_text(c->ends || hf_is_null(c->last, RECORD_FINISHED_AT) ? c->call->now : hf_time(c->last, RECORD_FINISHED_AT)),
							hf_time_text(at));
		case HF_NO_RUN_AFTER:
			return pstrdup("the row is pending, and run_after is null");
		case HF_ATTEMPT_SAME:
			return psprintf("its attempt number is %d, and that of its last attempt was %d", hf_change_number(c, &counted),
							hf_int32(c->last, RECORD_ATTEMPT_NUMBER));
		case HF_KEY_CHANGED:
		case HF_KEY_ANEW:
			key = hf_watch_text(c->w, MAP_IDEMPOTENCY_KEY, c->new, HF_MAX_TEXT);
			return psprintf("its key is %s, and %s had %s", key != NULL ? text_to_cstring(key) : "null", attempt_called(c),
							hf_is_null(c->last, RECORD_KEY) ? "none" : text_to_cstring(hf_text(c->last, RECORD_KEY)));
		case HF_LEASE_BRIEF:
			(void) hf_watch_time(c->w, MAP_LEASE_EXPIRES_AT, c->new, &at);
			return psprintf("the lease ends in %s, and the timeout is " INT64_FORMAT " ms",
							figures(c->call->now, at), hf_watch_ms(c->w, MAP_TIMEOUT, c->new));
		case HF_LEASE_TAKEN:
			return psprintf("the lease of %s ends at %s", attempt_called(c), hf_time_text(hf_time(c->last, RECORD_LEASE_EXPIRES_AT)));
		default:
			return psprintf("its status was %s", c->was == HF_ROW_DEAD ? "dead" : "succeeded");
	}
}

/* ---------------------------------------------------------------- recording */

static void
set_key(HfEvent *event, HfChange *c, TupleTableSlot *row)
{
	text	   *key = hf_watch_text(c->w, MAP_IDEMPOTENCY_KEY, row, HF_MAX_TEXT);
	pg_uuid_t  *uuid = palloc(sizeof(pg_uuid_t));
	char	   *string = key != NULL ? text_to_cstring(key) : NULL;
	bool		is_uuid = string != NULL && strlen(string) == 36;

	for (int i = 0; is_uuid && i < 36; i++)
		is_uuid = (i == 8 || i == 13 || i == 18 || i == 23) ? string[i] == '-' : isxdigit((unsigned char) string[i]) != 0;
	if (is_uuid)
		uuid = DatumGetUUIDP(DirectFunctionCall1(uuid_in, CStringGetDatum(string)));
	else
		hf_key_of(key != NULL ? key : cstring_to_text(psprintf("%s/%s", c->w->source, text_to_cstring(c->id))), uuid);
	hf_event_set(event, EVENT_KEY, UUIDPGetDatum(uuid));
	hf_event_set(event, EVENT_CORRELATION_ID,
				 key != NULL ? PointerGetDatum(key) :
				 CStringGetTextDatum(DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(uuid)))));
}

static void
add_attempt(HfDetail *detail, const HfRow *record)
{
	static const struct
	{
		int			column;
		const char *key;
	}			texts[] = {{RECORD_LEASE_ID, "previous_lease_id"}, {RECORD_WORKER_NAME, "previous_worker_name"},
		{RECORD_OUTCOME, "previous_outcome"}, {RECORD_EXCEPTION_CLASS, "previous_exception_class"}},
				times[] = {{RECORD_STARTED_AT, "previous_started_at"}, {RECORD_FINISHED_AT, "previous_finished_at"},
		{RECORD_NEXT_NOT_BEFORE, "previous_next_not_before"}};

	hf_detail_int(detail, "previous_record", hf_int64(record, RECORD_ID));
	if (!hf_is_null(record, RECORD_ATTEMPT_NUMBER))
		hf_detail_int(detail, "previous_attempt", hf_int32(record, RECORD_ATTEMPT_NUMBER));
	for (int i = 0; i < lengthof(texts); i++)
		if (!hf_is_null(record, texts[i].column))
			hf_detail_text(detail, texts[i].key, hf_text(record, texts[i].column));
	for (int i = 0; i < lengthof(times); i++)
		if (!hf_is_null(record, times[i].column))
			hf_detail_cstring(detail, times[i].key, hf_time_text(hf_time(record, times[i].column)));
}

static void
make_event(HfChange *c, HfEvent *event, HfViolation violation, const char *action, TimestampTz corrected_to)
{
	HfWatch    *w = c->w;
	TupleTableSlot *row = c->new != NULL ? c->new : c->old;
	text	   *subject = hf_watch_text(w, MAP_SUBJECT, row, HF_MAX_TEXT);
	text	   *action_key = hf_watch_text(w, MAP_ACTION_KEY, row, HF_MAX_NAME);
	text	   *worker = hf_watch_text(w, MAP_WORKER_NAME, row, HF_MAX_NAME);
	char	   *id = text_to_cstring(c->id);
	bool		counted;
	int32		number = c->begins ? hf_change_number(c, &counted) :
		c->last != NULL && !hf_is_null(c->last, RECORD_ATTEMPT_NUMBER) ? hf_int32(c->last, RECORD_ATTEMPT_NUMBER) : 0;
	HfDetail	detail = {0};
	TimestampTz run_after;

	memset(event->null, true, sizeof(event->null));
	hf_event_set(event, EVENT_KIND, hf_word("action_violation"));
	hf_event_set(event, EVENT_AT, TimestampTzGetDatum(c->call->now));
	hf_event_set(event, EVENT_JOB_ID, Int64GetDatum(hf_job_seed(cstring_to_text(psprintf("%s/%s", w->source, id)))));
	hf_event_set(event, EVENT_QUEUE, Int32GetDatum(-w->watch_id));
	hf_event_set(event, EVENT_ATTEMPT_NUMBER, Int32GetDatum(Max(number, 0)));
	hf_event_set(event, EVENT_SUBJECT, PointerGetDatum(subject != NULL ? subject : c->id));
	hf_event_set(event, EVENT_ACTION_KEY, action_key != NULL ? PointerGetDatum(action_key) : CStringGetTextDatum(w->source));
	set_key(event, c, row);
	if (worker != NULL)
		hf_event_set(event, EVENT_WORKER_NAME, PointerGetDatum(worker));

	hf_detail_cstring(&detail, "violation", violations[violation].name);
	hf_detail_cstring(&detail, "mode", hf_watch_modes[w->mode]);
	hf_detail_cstring(&detail, "action", action);
	hf_detail_cstring(&detail, "relation", w->source);
	hf_detail_cstring(&detail, "id", id);
	hf_detail_cstring(&detail, "because", because(c, violation));
	hf_detail_cstring(&detail, "at", hf_time_text(c->call->now));
	if (strcmp(action, "refused") == 0)
		hf_detail_cstring(&detail, "sqlstate", unpack_sql_state(violations[violation].sqlstate));
	if (c->new != NULL && hf_watch_time(w, MAP_RUN_AFTER, c->new, &run_after))
		hf_detail_cstring(&detail, "run_after", hf_time_text(run_after));
	if (corrected_to != DT_NOBEGIN)
	{
		const char *policy;
		int64		delay_ms = hf_watch_delay_ms(c, &policy);

		hf_event_set(event, EVENT_RETRY_POLICY, CStringGetTextDatum(policy));
		hf_event_set(event, EVENT_DELAY_MS, Int64GetDatum(delay_ms));
		hf_event_set(event, EVENT_NEXT_NOT_BEFORE, TimestampTzGetDatum(corrected_to));
		hf_detail_cstring(&detail, "corrected_to", hf_time_text(corrected_to));
		hf_detail_cstring(&detail, "retry_policy", policy);
		hf_detail_int(&detail, "delay_ms", delay_ms);
	}
	if (c->last != NULL)
		add_attempt(&detail, c->last);
	hf_event_set(event, EVENT_DETAIL, hf_detail_end(&detail));
}

/* Each as an event and a finding.  corrected_to: DT_NOBEGIN where nothing was corrected. */
void
hf_violations_record(HfChange *c, uint32 found, const char *action, TimestampTz corrected_to)
{
	HfEvent		event;

	for (int v = 0; v < HF_NVIOLATIONS; v++)
		if (found & (1u << v))
		{
			make_event(c, &event, v, action, corrected_to);
			hf_event_add(c->call, &event);
			hf_event_finding(c->call, "violation", &event);
		}
}

/* Refuse the change for the first of what it breaks; on record if the transaction commits after all. */
void
hf_violation_refuse(HfChange *c, uint32 found)
{
	HfEvent		event;
	int			v = 0;

	while (!(found & (1u << v)))
		v++;
	make_event(c, &event, v, "refused", DT_NOBEGIN);
	hf_remember_event(&event);
	ereport(ERROR,
			(errcode(violations[v].sqlstate),
			 errmsg("row \"%s\" of \"%s\" %s", text_to_cstring(c->id), c->w->source, violations[v].summary),
			 errdetail("By the watch in mode enforce: %s.", because(c, v)),
			 errhint("%s", violations[v].hint)));
}
