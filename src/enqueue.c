/*-------------------------------------------------------------------------
 *
 * enqueue.c
 *	  enqueue, enqueue_batch: one live job per intent.
 *
 * With side effects the ledger row is the unique one, without them the job's
 * own key; either is entered speculatively, as INSERT ... ON CONFLICT does.
 * Where the key is there already, what is known of the intent decides, read
 * as it is at that moment, at every isolation level.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "access/detoast.h"
#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "commands/sequence.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(holdfast_enqueue);
PG_FUNCTION_INFO_V1(holdfast_enqueue_batch);

/* The arguments of enqueue, in its order. */
enum
{
	ARG_QUEUE_NAME, ARG_ACTION_KEY, ARG_SUBJECT, ARG_PAYLOAD, ARG_SCOPE, ARG_INTENT_VERSION, ARG_RUN_AFTER, ARG_DELAY,
	ARG_PRIORITY, ARG_TIMEOUT, ARG_GIVE_UP_AT, ARG_MAX_ATTEMPTS, ARG_RETRY_POLICY, ARG_SIDE_EFFECTS, ARG_STREAM,
	ARG_CORRELATION_ID, ARG_HEADERS, ARG_IDEMPOTENCY_KEY, NARGS
};

static const int counters[] = {JOB_ATTEMPT_NUMBER, JOB_FAILURES, JOB_RECONCILES, JOB_LOSSES, JOB_RESUMES};

typedef struct Enqueued
{
	int64		job_id;
	bool		hidden;			/* the earlier job lies in a queue that is not granted */
	pg_uuid_t	key;
	const char *outcome;
	TimestampTz since;			/* 0: null */
	int32		queue_id;		/* of the job that is known, for the evidence */
	int32		attempt_number;
} Enqueued;

/* ---------------------------------------------------------------- from arguments to a row */

static bool
given(FunctionCallInfo fcinfo, int argno)
{
	return !PG_ARGISNULL(argno);
}

static void
set_text(HfRow *job, int column, FunctionCallInfo fcinfo, int argno, const char *name, int max_bytes, bool required)
{
	text	   *value = hf_arg_text(fcinfo, argno, name, max_bytes, required);

	if (value != NULL)
		hf_set(job, column, PointerGetDatum(value));
}

/* G8: the job's own timeout must fit the queue's lease, or its heartbeats must cover it. */
static void
check_timeout(const HfQueue *queue, int64 timeout_ms)
{
	if (queue->heartbeat_ms > 0 || timeout_ms + queue->grace_ms <= queue->lease_ms)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_HF_LEASE_SHORT),
			 errmsg("timeout of " INT64_FORMAT " ms does not fit the lease of queue \"%s\"", timeout_ms, queue->queue_name),
			 errdetail("The lease is " INT64_FORMAT " ms; timeout and grace need " INT64_FORMAT " ms.",
					   queue->lease_ms, timeout_ms + queue->grace_ms),
			 errhint("Lower the timeout, lengthen the queue's lease, or give the queue a heartbeat.")));
}

static void
set_times(HfCall *call, HfRow *job, FunctionCallInfo fcinfo)
{
	TimestampTz run_after = call->now;

	if (given(fcinfo, ARG_RUN_AFTER) && given(fcinfo, ARG_DELAY))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("run_after and delay exclude each other"),
				 errhint("Give the one or the other.")));
	if (given(fcinfo, ARG_RUN_AFTER))
		run_after = hf_arg_timestamp(fcinfo, ARG_RUN_AFTER, "run_after");
	if (given(fcinfo, ARG_DELAY))
		run_after += hf_arg_interval_ms(fcinfo, ARG_DELAY, "delay", 0, HF_MAX_DELAY_MS) * 1000;
	if (run_after > call->now + HF_MAX_DELAY_MS * 1000)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"run_after\" is too far in the future"),
				 errdetail("It is more than ten years away."),
				 errhint("Schedule it when it is nearer.")));
	run_after = Max(run_after, call->now);
	hf_set(job, JOB_RUN_AFTER, TimestampTzGetDatum(run_after));
	if (given(fcinfo, ARG_GIVE_UP_AT))
	{
		TimestampTz give_up_at = hf_arg_timestamp(fcinfo, ARG_GIVE_UP_AT, "give_up_at");

		if (give_up_at <= run_after)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("argument \"give_up_at\" must be after the job may first run"),
					 errdetail("The job may run from %s.", timestamptz_to_str(run_after)),
					 errhint("Give a later give_up_at, or none.")));
		hf_set(job, JOB_GIVE_UP_AT, TimestampTzGetDatum(give_up_at));
	}
}

/* A pending job from the arguments, checked; not stored, and without a job_id. */
static HfRow *
job_from_args(HfCall *call, FunctionCallInfo fcinfo, const HfQueue *queue)
{
	HfRow	   *job = hf_row_new(hf_open(call, HF_JOB));
	pg_uuid_t  *key = palloc(sizeof(pg_uuid_t));
	int32		version = given(fcinfo, ARG_INTENT_VERSION) ?
		hf_arg_int(fcinfo, ARG_INTENT_VERSION, "intent_version", 0, PG_INT32_MAX) : 1;
	bool		se = given(fcinfo, ARG_SIDE_EFFECTS) ? PG_GETARG_BOOL(ARG_SIDE_EFFECTS) : queue->side_effects;
	Datum		payload = given(fcinfo, ARG_PAYLOAD) ? JsonbPGetDatum(hf_arg_jsonb(fcinfo, ARG_PAYLOAD, "payload", HF_MAX_PAYLOAD)) :
		DirectFunctionCall1(jsonb_in, CStringGetDatum("{}"));

	set_text(job, JOB_ACTION_KEY, fcinfo, ARG_ACTION_KEY, "action_key", HF_MAX_NAME, true);
	set_text(job, JOB_SUBJECT, fcinfo, ARG_SUBJECT, "subject", HF_MAX_TEXT, true);
	if (given(fcinfo, ARG_SCOPE) && VARSIZE_ANY_EXHDR(PG_GETARG_TEXT_PP(ARG_SCOPE)) == 0)
		hf_set(job, JOB_SCOPE, PointerGetDatum(cstring_to_text("")));	/* not the same scope as none */
	else
		set_text(job, JOB_SCOPE, fcinfo, ARG_SCOPE, "scope", HF_MAX_TEXT, false);
	if (given(fcinfo, ARG_IDEMPOTENCY_KEY))
		*key = *hf_arg_uuid(fcinfo, ARG_IDEMPOTENCY_KEY, "idempotency_key");
	else
		hf_intent_key(hf_text(job, JOB_SUBJECT), hf_text(job, JOB_ACTION_KEY),
					  hf_is_null(job, JOB_SCOPE) ? NULL : hf_text(job, JOB_SCOPE), version, key);
	hf_set(job, JOB_KEY, UUIDPGetDatum(key));
	hf_set(job, JOB_ENQUEUED_AT, TimestampTzGetDatum(call->now));
	hf_set(job, JOB_ENQUEUED_BY, CStringGetTextDatum(GetUserNameFromId(GetUserId(), false)));
	hf_set(job, JOB_QUEUE, Int32GetDatum(queue->queue_id));
	hf_set(job, JOB_PRIORITY, Int32GetDatum(given(fcinfo, ARG_PRIORITY) ?
											hf_arg_int(fcinfo, ARG_PRIORITY, "priority", -100, 100) : 0));
	hf_set(job, JOB_INTENT_VERSION, Int32GetDatum(version));
	hf_set(job, JOB_SIDE_EFFECTS, BoolGetDatum(se));
	if (given(fcinfo, ARG_TIMEOUT))
	{
		int64		timeout_ms = hf_arg_interval_ms(fcinfo, ARG_TIMEOUT, "timeout", 1, HF_MAX_LEASE_MS);

		check_timeout(queue, timeout_ms);
		hf_set(job, JOB_TIMEOUT_MS, Int64GetDatum(timeout_ms));
	}
	if (given(fcinfo, ARG_MAX_ATTEMPTS))
		hf_set(job, JOB_MAX_ATTEMPTS, Int32GetDatum(hf_arg_int(fcinfo, ARG_MAX_ATTEMPTS, "max_attempts", 1, PG_INT32_MAX)));
	set_text(job, JOB_RETRY_POLICY, fcinfo, ARG_RETRY_POLICY, "retry_policy", HF_MAX_NAME, false);
	if (!hf_is_null(job, JOB_RETRY_POLICY) && hf_policy(text_to_cstring(hf_text(job, JOB_RETRY_POLICY))) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("retry policy \"%s\" does not exist", text_to_cstring(hf_text(job, JOB_RETRY_POLICY))),
				 errhint("Define it with holdfast.define_retry_policy(), or see holdfast.list_retry_policies().")));
	set_text(job, JOB_STREAM, fcinfo, ARG_STREAM, "stream", HF_MAX_NAME, false);
	set_text(job, JOB_CORRELATION_ID, fcinfo, ARG_CORRELATION_ID, "correlation_id", HF_MAX_TEXT, false);
	if (hf_is_null(job, JOB_CORRELATION_ID))
		hf_set(job, JOB_CORRELATION_ID,
			   CStringGetTextDatum(DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(key)))));
	if (given(fcinfo, ARG_HEADERS))
		hf_set(job, JOB_HEADERS, JsonbPGetDatum(hf_arg_jsonb(fcinfo, ARG_HEADERS, "headers", HF_MAX_JSONB)));
	hf_set(job, JOB_PAYLOAD, payload);
	hf_set(job, JOB_PAYLOAD_DIGEST, PointerGetDatum(hf_payload_digest(payload)));
	set_times(call, job, fcinfo);
	hf_set(job, JOB_MODE, hf_word("execute"));
	hf_set(job, JOB_STATUS, hf_word("pending"));
	for (int c = 0; c < lengthof(counters); c++)
		hf_set(job, counters[c], Int32GetDatum(0));
	hf_set(job, JOB_FENCING_TOKEN, Int64GetDatum(0));
	return job;
}

/* ---------------------------------------------------------------- storing it */

static void
draw_job_id(HfRow *job)
{
	hf_set(job, JOB_ID, Int64GetDatum(nextval_internal(hf_sequence_oid("job_id_seq"), false)));
}

/* The clock is read after the transaction has its xid, and the id drawn in the order of insertion. */
static void
settle_turn(HfRow *job)
{
	hf_set(job, JOB_RUN_AFTER, TimestampTzGetDatum(hf_not_before(hf_time(job, JOB_RUN_AFTER))));
}

static bool
same(const HfRow *a, int acol, const HfRow *b, int bcol)
{
	if (hf_is_null(a, acol) || hf_is_null(b, bcol))
		return hf_is_null(a, acol) == hf_is_null(b, bcol);
	return DatumGetBool(DirectFunctionCall2Coll(byteaeq, C_COLLATION_OID, hf_get(a, acol), hf_get(b, bcol)));
}

/* JQ007 is on record with the job that is known, if the transaction commits after all. */
static void
remember_mismatch(HfCall *call, HfRow *job, int64 known_job_id)
{
	HfEvent		event;

	hf_event_init(call, &event, "action_violation", job);
	hf_event_set(&event, EVENT_JOB_ID, Int64GetDatum(known_job_id));
	hf_remember_refusal(call, &event, ERRCODE_HF_INTENT_MISMATCH, "enqueue");
}

static void
mismatch(const HfRow *job, const HfRow *known, int digest_column, int queue_column, const char *what)
{
	const char *was = "unknown";

	/* a digest is enough to guess a short payload by */
	if (!hf_is_granted_id(hf_int32(known, queue_column), HF_PRODUCER))
		was = "in a queue not granted";
	else if (!hf_is_null(known, digest_column))
		was = hf_hex(DatumGetByteaPP(hf_get(known, digest_column)));
	ereport(ERROR,
			(errcode(ERRCODE_HF_INTENT_MISMATCH),
			 errmsg("idempotency key %s is known with another %s",
					DatumGetCString(DirectFunctionCall1(uuid_out, hf_get(job, JOB_KEY))), what),
			 errdetail("The payload's digest is %s, the known one's is %s.",
					   hf_hex(DatumGetByteaPP(hf_get(job, JOB_PAYLOAD_DIGEST))), was),
			 errhint("One key is one intent: for another one raise intent_version, or change the scope.")));
}

/* JQ007: with side effects the ledger keeps the key, without them only the live job does. */
static void
other_declaration(HfCall *call, HfRow *job, int64 known_job_id, const char *known)
{
	remember_mismatch(call, job, known_job_id);
	ereport(ERROR,
			(errcode(ERRCODE_HF_INTENT_MISMATCH),
			 errmsg("idempotency key %s is known %s side effects",
					DatumGetCString(DirectFunctionCall1(uuid_out, hf_get(job, JOB_KEY))), known),
			 errdetail("This job declares the opposite; its payload's digest is %s.",
					   hf_hex(DatumGetByteaPP(hf_get(job, JOB_PAYLOAD_DIGEST)))),
			 errhint("Declare side_effects as before, or make it another intent with intent_version or scope.")));
}

/* JQ007 unless the known row, of ledger or job, is of the same intent. */
static void
check_same_intent(HfCall *call, HfRow *job, const HfRow *known, int subject, int action, int scope, int version,
				  int digest, int queue, int id)
{
	if (same(job, JOB_SUBJECT, known, subject) && same(job, JOB_ACTION_KEY, known, action) &&
		same(job, JOB_SCOPE, known, scope) && hf_int32(job, JOB_INTENT_VERSION) == hf_int32(known, version) &&
		same(job, JOB_PAYLOAD_DIGEST, known, digest))
		return;
	remember_mismatch(call, job, hf_int64(known, id));
	if (!same(job, JOB_SUBJECT, known, subject))
		mismatch(job, known, digest, queue, "subject");
	if (!same(job, JOB_ACTION_KEY, known, action))
		mismatch(job, known, digest, queue, "action");
	if (!same(job, JOB_SCOPE, known, scope))
		mismatch(job, known, digest, queue, "scope");
	if (hf_int32(job, JOB_INTENT_VERSION) != hf_int32(known, version))
		mismatch(job, known, digest, queue, "intent version");
	mismatch(job, known, digest, queue, "payload");
}

/* Events of one call are a microsecond apart, and the last call of a job that is gone wrote at most so many. */
#define EVENTS_OF_AN_END 4

static TimestampTz
last_event_of(const HfRow *job)
{
	return hf_is_null(job, JOB_LAST_EVENT_AT) ? 0 : hf_time(job, JOB_LAST_EVENT_AT);
}

/* The answer for an intent that is there already, and its evidence. */
static void
known_intent(HfCall *call, Enqueued *answer, const char *outcome, HfRow *job, int64 known_job_id, int32 known_queue,
			 int32 attempt, TimestampTz since, TimestampTz last_event_at)
{
	HfEvent		event;
	HfDetail	detail = {0};

	answer->outcome = outcome;
	answer->job_id = known_job_id;
	answer->since = since;
	answer->queue_id = known_queue;
	answer->attempt_number = attempt;
	answer->hidden = !hf_is_granted_id(known_queue, HF_PRODUCER);
	hf_detail_cstring(&detail, "outcome", outcome);
	hf_event_init(call, &event, "action_duplicate_enqueue", job);
	hf_event_set_enqueued(&event, job);
	hf_event_set(&event, EVENT_AT, TimestampTzGetDatum(Max(call->now, last_event_at + 1)));
	hf_event_set(&event, EVENT_JOB_ID, Int64GetDatum(known_job_id));
	hf_event_set(&event, EVENT_QUEUE, Int32GetDatum(known_queue));
	hf_event_set(&event, EVENT_ATTEMPT_NUMBER, Int32GetDatum(attempt));
	hf_event_set(&event, EVENT_DETAIL, hf_detail_end(&detail));
	hf_event_add(call, &event);
}

/* A job whose intent the ledger knows.  true: it is to be inserted after all. */
static bool
reserve_known(HfCall *call, HfRow *job, HfRow *ledger, Enqueued *answer)
{
	HfRow	   *live = hf_row_for(hf_open(call, HF_JOB));
	HfRow	   *again = hf_row_for(hf_open(call, HF_LEDGER));
	const char *outcome = NULL;
	bool		ours = false;

	for (;;)
	{
		int64		known_job_id;
		HfLock		lock;

		CHECK_FOR_INTERRUPTS();
		if (!hf_find_key(ledger, hf_uuid(job, JOB_KEY)))
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("the ledger row of this intent went away while it was looked at"),
					 errhint("Try again.")));
		check_same_intent(call, job, ledger, LEDGER_SUBJECT, LEDGER_ACTION_KEY, LEDGER_SCOPE, LEDGER_INTENT_VERSION,
						  LEDGER_PAYLOAD_DIGEST, LEDGER_QUEUE, LEDGER_JOB_ID);
		known_job_id = hf_int64(ledger, LEDGER_JOB_ID);
		if (hf_find_job(live, known_job_id))
		{
			known_intent(call, answer, "duplicate", job, known_job_id, hf_int32(live, JOB_QUEUE),
						 hf_int32(live, JOB_ATTEMPT_NUMBER), hf_time(live, JOB_ENQUEUED_AT), last_event_of(live));
			break;
		}
		/* whoever has ended the job since has stored the ledger row anew: what it says now is what counts */
		if (!hf_find_key(again, hf_uuid(job, JOB_KEY)) ||
			!ItemPointerEquals(&again->stored->tts_tid, &ledger->stored->tts_tid))
			continue;
		if (hf_ledger_is(ledger, "committed"))
			outcome = "already_committed";
		else if (hf_ledger_is(ledger, "started") || hf_ledger_any_unknown(call, ledger))
			outcome = "unknown_effect";	/* started, and its job gone by other hands: nobody knows */
		else if (hf_ledger_is(ledger, "failed_terminal"))
			outcome = "dead";
		if (outcome != NULL)
		{
			known_intent(call, answer, outcome, job, known_job_id, hf_int32(ledger, LEDGER_QUEUE),
						 hf_int32(ledger, LEDGER_ATTEMPT_NUMBER), hf_time(ledger, LEDGER_CHANGED_AT),
						 hf_time(ledger, LEDGER_CHANGED_AT) + EVENTS_OF_AN_END);
			break;
		}
		/* planned or failed_retryable without a job: it is ours to have, unless another was quicker */
		lock = hf_lock(call, ledger, false);
		if (lock != HF_LOCKED || hf_int64(ledger, LEDGER_JOB_ID) != known_job_id ||
			(!hf_ledger_is(ledger, "planned") && !hf_ledger_is(ledger, "failed_retryable")) ||
			hf_find_job(live, known_job_id))
			continue;
		hf_ledger_set(call, ledger, job, "planned", (Datum) 0);
		ours = true;
		break;
	}
	hf_row_free(again);
	hf_row_free(live);
	return ours;
}

/* Enter the intent of a job with side effects.  true: the job is to be inserted. */
static bool
reserve(HfCall *call, HfRow *job, Enqueued *answer)
{
	HfRow	   *probe = hf_row_for(hf_open(call, HF_LEDGER));
	HfRow	   *live = hf_row_for(hf_open(call, HF_JOB));
	HfRow	   *ledger = hf_ledger_new(call, job, "planned");
	bool		ours;

	ours = hf_insert_unique(call, ledger, "_pkey", &answer->key, probe, NULL);
	if (ours)
		hf_ledger_note_place(ledger, job);
	else
		ours = reserve_known(call, job, probe, answer);
	/* the other kind is looked for after the own row is entered, so that one of two sees the other */
	if (ours && hf_key_taken(live, "_live_key", &answer->key) && hf_find_live_key(live, &answer->key))
		other_declaration(call, job, hf_int64(live, JOB_ID), "without");
	hf_row_free(ledger);
	hf_row_free(live);
	hf_row_free(probe);
	return ours;
}

static void
created(HfRow *job, Enqueued *answer)
{
	hf_hint_pending(hf_int32(job, JOB_QUEUE), false, hf_int32(job, JOB_PRIORITY), hf_time(job, JOB_RUN_AFTER),
						hf_int64(job, JOB_ID));
	answer->outcome = "created";
	answer->job_id = hf_int64(job, JOB_ID);
}

/* A job without side effects: its own key is the unique one, among live jobs. */
static void
enqueue_without_effects(HfCall *call, HfRow *job, Enqueued *answer)
{
	HfRow	   *live = hf_row_for(hf_open(call, HF_JOB));
	HfRow	   *ledger = hf_row_for(hf_open(call, HF_LEDGER));

	for (;;)
	{
		if (hf_insert_unique(call, job, "_live_key", &answer->key, live, settle_turn))
		{
			if (hf_key_taken(ledger, "_pkey", &answer->key) && hf_find_key(ledger, &answer->key))
				other_declaration(call, job, hf_int64(ledger, LEDGER_JOB_ID), "with");
			created(job, answer);
			break;
		}
		if (!hf_find_live_key(live, &answer->key))
			continue;			/* it ended in between */
		check_same_intent(call, job, live, JOB_SUBJECT, JOB_ACTION_KEY, JOB_SCOPE, JOB_INTENT_VERSION, JOB_PAYLOAD_DIGEST,
						  JOB_QUEUE, JOB_ID);
		known_intent(call, answer, "duplicate", job, hf_int64(live, JOB_ID), hf_int32(live, JOB_QUEUE),
					 hf_int32(live, JOB_ATTEMPT_NUMBER), hf_time(live, JOB_ENQUEUED_AT), last_event_of(live));
		break;
	}
	hf_row_free(ledger);
	hf_row_free(live);
}

/* Enter the intent; a job with side effects is inserted afterwards (true), one without is already. */
static bool
enter(HfCall *call, HfRow *job, Enqueued *answer)
{
	memset(answer, 0, sizeof(Enqueued));
	answer->key = *hf_uuid(job, JOB_KEY);
	if (hf_bool(job, JOB_SIDE_EFFECTS))
		return reserve(call, job, answer);
	enqueue_without_effects(call, job, answer);
	return false;
}

static void
insert_job(HfCall *call, HfRow *job, Enqueued *answer)
{
	settle_turn(job);
	hf_insert(call, job);
	created(job, answer);
}

static void
put_answer(ReturnSetInfo *rsinfo, int64 ordinal, const Enqueued *answer)
{
	Datum		values[5];
	bool		nulls[5] = {false, answer->hidden, false, false, answer->hidden || answer->since == 0};
	int			skip = ordinal == 0 ? 1 : 0;

	values[0] = Int64GetDatum(ordinal);
	values[1] = Int64GetDatum(answer->job_id);
	values[2] = UUIDPGetDatum(&answer->key);
	values[3] = CStringGetTextDatum(answer->outcome);
	values[4] = TimestampTzGetDatum(answer->since);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values + skip, nulls + skip);
}

/*
 * The queue of a call, looked up after the job table is locked: drop_queue
 * locks it too, and a job must not land in a queue that is being dropped.
 */
static const HfQueue *
queue_of(HfCall *call, FunctionCallInfo fcinfo)
{
	const HfQueue *queue;

	hf_open(call, HF_JOB);
	hf_config_check();
	call->now = hf_clock_now(); /* there may have been a wait */
	queue = hf_queue_by_name(hf_arg_text(fcinfo, 0, "queue_name", HF_MAX_NAME, true));
	hf_check_granted(queue, HF_PRODUCER);
	return queue;
}

/*
 * holdfast.enqueue(queue_name text, action_key text, subject text,
 *					payload jsonb => '{}', scope text => null, intent_version int => 1,
 *					run_after timestamptz => null, delay interval => null, priority int => 0,
 *					timeout interval => null, give_up_at timestamptz => null,
 *					max_attempts int => null, retry_policy text => null,
 *					side_effects boolean => null, stream text => null,
 *					correlation_id text => null, headers jsonb => null,
 *					idempotency_key uuid => null)
 *		returns setof enqueue_result
 *
 * created | duplicate | already_committed | unknown_effect | dead.  Errors:
 * JQ005 for a timeout that the lease does not cover, JQ007 for a key known
 * with another intent or payload, 22004, 22023, 42501, 42704, 54000.
 */
Datum
holdfast_enqueue(PG_FUNCTION_ARGS)
{
	HfCall		call;
	Enqueued	answer;
	HfRow	   *job;
	const HfQueue *queue;

	hf_answer_begin(fcinfo, "lutz");
	hf_begin(&call, "enqueue", true);
	queue = queue_of(&call, fcinfo);
	job = job_from_args(&call, fcinfo, queue);
	draw_job_id(job);
	if (enter(&call, job, &answer))
		insert_job(&call, job, &answer);
	put_answer((ReturnSetInfo *) fcinfo->resultinfo, 0, &answer);
	hf_end(&call);
	return (Datum) 0;
}

/* ---------------------------------------------------------------- enqueue_batch */

typedef struct BatchJob
{
	int64		ordinal;
	HfRow	   *job;
	bool		insert;			/* the intent is entered, the job is not */
	const struct BatchJob *first;	/* of the same key, in the same batch */
	Enqueued	answer;
} BatchJob;

static const struct
{
	const char *name;
	Oid			type;
}			fields[NARGS] = {
	[ARG_QUEUE_NAME] = {"queue_name", TEXTOID}, [ARG_ACTION_KEY] = {"action_key", TEXTOID},
	[ARG_SUBJECT] = {"subject", TEXTOID}, [ARG_PAYLOAD] = {"payload", JSONBOID}, [ARG_SCOPE] = {"scope", TEXTOID},
	[ARG_INTENT_VERSION] = {"intent_version", INT4OID}, [ARG_RUN_AFTER] = {"run_after", TIMESTAMPTZOID},
	[ARG_DELAY] = {"delay", INTERVALOID}, [ARG_PRIORITY] = {"priority", INT4OID}, [ARG_TIMEOUT] = {"timeout", INTERVALOID},
	[ARG_GIVE_UP_AT] = {"give_up_at", TIMESTAMPTZOID}, [ARG_MAX_ATTEMPTS] = {"max_attempts", INT4OID},
	[ARG_RETRY_POLICY] = {"retry_policy", TEXTOID}, [ARG_SIDE_EFFECTS] = {"side_effects", BOOLOID},
	[ARG_STREAM] = {"stream", TEXTOID}, [ARG_CORRELATION_ID] = {"correlation_id", TEXTOID},
	[ARG_HEADERS] = {"headers", JSONBOID}, [ARG_IDEMPOTENCY_KEY] = {"idempotency_key", UUIDOID},
};

static int
field_of(const char *name, int len)
{
	for (int i = ARG_QUEUE_NAME + 1; i < NARGS; i++)
		if (strlen(fields[i].name) == len && memcmp(fields[i].name, name, len) == 0)
			return i;
	return -1;
}

/* The text of a scalar, as its type's input function takes it. */
static char *
scalar_text(const JsonbValue *value, const char *field)
{
	switch (value->type)
	{
		case jbvString:
			return pnstrdup(value->val.string.val, value->val.string.len);
		case jbvNumeric:
			return DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value->val.numeric)));
		case jbvBool:
			return value->val.boolean ? "true" : "false";
		default:
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("field \"%s\" must be a scalar", field),
					 errhint("Only payload and headers take objects and arrays.")));
	}
}

static Datum
field_value(int field, JsonbValue *value)
{
	Oid			input;
	Oid			ioparam;

	if (fields[field].type == JSONBOID)
		return JsonbPGetDatum(JsonbValueToJsonb(value));
	if (fields[field].type == TEXTOID)
		return CStringGetTextDatum(scalar_text(value, fields[field].name));
	getTypeInputInfo(fields[field].type, &input, &ioparam);
	return OidInputFunctionCall(input, scalar_text(value, fields[field].name), ioparam, -1);
}

/* One object of the array, as the arguments of enqueue. */
static void
args_from_object(FunctionCallInfo args, const HfQueue *queue, JsonbContainer *object)
{
	JsonbIterator *it = JsonbIteratorInit(object);
	JsonbIteratorToken token;
	JsonbValue	value;

	for (int i = 0; i < NARGS; i++)
		args->args[i].isnull = true;
	args->args[ARG_QUEUE_NAME].value = CStringGetTextDatum(queue->queue_name);
	args->args[ARG_QUEUE_NAME].isnull = false;
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		int			field;

		if (token != WJB_KEY)
			continue;
		field = field_of(value.val.string.val, value.val.string.len);
		if (field < 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("unknown field \"%s\"", pnstrdup(value.val.string.val, value.val.string.len)),
					 errhint("The fields are enqueue's parameters, without queue_name.")));
		(void) JsonbIteratorNext(&it, &value, true);
		if (value.type == jbvNull && fields[field].type != JSONBOID)
			continue;
		args->args[field].value = field_value(field, &value);
		args->args[field].isnull = false;
	}
}

static void
batch_error(void *arg)
{
	errcontext("job %lld of the batch", (long long) *(int64 *) arg);
}

static int
by_key(const void *a, const void *b)
{
	const BatchJob *x = *(BatchJob *const *) a;
	const BatchJob *y = *(BatchJob *const *) b;
	int			order = memcmp(hf_uuid(x->job, JOB_KEY), hf_uuid(y->job, JOB_KEY), UUID_LEN);

	return order != 0 ? order : x->ordinal < y->ordinal ? -1 : 1;
}

/* A key that comes twice in a batch: what was found for its first holds, and a job made for it is a duplicate now. */
static void
repeat_of_first(HfCall *call, BatchJob *again)
{
	const BatchJob *first = again->first;
	bool		was_created = strcmp(first->answer.outcome, "created") == 0;

	if (hf_bool(again->job, JOB_SIDE_EFFECTS) != hf_bool(first->job, JOB_SIDE_EFFECTS))
		other_declaration(call, again->job, first->answer.job_id,
						  hf_bool(first->job, JOB_SIDE_EFFECTS) ? "with" : "without");
	check_same_intent(call, again->job, first->job, JOB_SUBJECT, JOB_ACTION_KEY, JOB_SCOPE, JOB_INTENT_VERSION,
					  JOB_PAYLOAD_DIGEST, JOB_QUEUE, JOB_ID);
	again->answer.key = first->answer.key;
	known_intent(call, &again->answer, was_created ? "duplicate" : first->answer.outcome, again->job,
				 first->answer.job_id, was_created ? hf_int32(again->job, JOB_QUEUE) : first->answer.queue_id,
				 was_created ? 0 : first->answer.attempt_number,
				 was_created ? hf_time(first->job, JOB_ENQUEUED_AT) : first->answer.since, 0);
	again->answer.hidden = first->answer.hidden;
}

/* The jobs of the array, checked, in the order given. */
static int
read_batch(HfCall *call, FunctionCallInfo fcinfo, const HfQueue *queue, BatchJob **batch)
{
	Jsonb	   *jobs;
	JsonbIterator *it;
	JsonbValue	value;
	int			n = 0;
	LOCAL_FCINFO(args, NARGS);
	int64		ordinal = 0;
	ErrorContextCallback context = {error_context_stack, batch_error, &ordinal};

	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"jobs\" must not be null"),
				 errhint("Give a JSON array of objects with enqueue's parameter names.")));
	jobs = PG_GETARG_JSONB_P(1);
	if (!JB_ROOT_IS_ARRAY(jobs) || JB_ROOT_IS_SCALAR(jobs) || JB_ROOT_COUNT(jobs) > HF_MAX_BATCH)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"jobs\" must be an array of at most %d objects", HF_MAX_BATCH),
				 errhint("Split larger batches.")));
	*batch = palloc(sizeof(BatchJob) * Max(JB_ROOT_COUNT(jobs), 1));
	InitFunctionCallInfoData(*args, fcinfo->flinfo, NARGS, InvalidOid, NULL, NULL);
	error_context_stack = &context;
	it = JsonbIteratorInit(&jobs->root);
	(void) JsonbIteratorNext(&it, &value, true);
	while (JsonbIteratorNext(&it, &value, true) == WJB_ELEM)
	{
		ordinal++;
		if (value.type != jbvBinary || !JsonContainerIsObject(value.val.binary.data))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("each job must be an object"),
					 errhint("Give objects with enqueue's parameter names.")));
		args_from_object(args, queue, value.val.binary.data);
		memset(&(*batch)[n], 0, sizeof(BatchJob));
		(*batch)[n].ordinal = ordinal;
		(*batch)[n].job = job_from_args(call, args, queue);
		n++;
	}
	error_context_stack = context.previous;
	return n;
}

/* Store the jobs whose intents are entered. */
static void
insert_jobs(HfCall *call, BatchJob *batch, int n)
{
	HeapTuple	tuples[HF_AT_ONCE];
	int			ntuples = 0;

	for (int i = 0; i < n; i++)
	{
		if (batch[i].insert)
		{
			settle_turn(batch[i].job);
			tuples[ntuples++] = hf_row_tuple(batch[i].job);
			created(batch[i].job, &batch[i].answer);
		}
		if (ntuples == HF_AT_ONCE || (i == n - 1 && ntuples > 0))
		{
			CHECK_FOR_INTERRUPTS();
			hf_multi_insert(call, hf_open(call, HF_JOB), tuples, ntuples);
			ntuples = 0;
		}
	}
}

/*
 * holdfast.enqueue_batch(queue_name text, jobs jsonb)
 *		returns setof (ordinal, job_id, idempotency_key, outcome, existing_since)
 *
 * jobs is an array of at most 10,000 objects with enqueue's parameter names.
 * Keys are taken in their order, so that two batches cannot deadlock; a key
 * that comes twice is a duplicate of its first.
 */
Datum
holdfast_enqueue_batch(PG_FUNCTION_ARGS)
{
	HfCall		call;
	BatchJob   *batch;
	BatchJob  **sorted;
	int			n;
	const HfQueue *queue;

	hf_answer_begin(fcinfo, "llutz");
	hf_begin(&call, "enqueue_batch", true);
	queue = queue_of(&call, fcinfo);
	n = read_batch(&call, fcinfo, queue, &batch);
	sorted = palloc(sizeof(BatchJob *) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		draw_job_id(batch[i].job);
		sorted[i] = &batch[i];
	}
	qsort(sorted, n, sizeof(BatchJob *), by_key);
	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (i > 0 && memcmp(hf_uuid(sorted[i]->job, JOB_KEY), hf_uuid(sorted[i - 1]->job, JOB_KEY), UUID_LEN) == 0)
			sorted[i]->first = sorted[i - 1]->first ? sorted[i - 1]->first : sorted[i - 1];
		else
			sorted[i]->insert = enter(&call, sorted[i]->job, &sorted[i]->answer);
	}
	insert_jobs(&call, batch, n);
	for (int i = 0; i < n; i++)
		if (batch[i].first != NULL)
			repeat_of_first(&call, &batch[i]);
	for (int i = 0; i < n; i++)
		put_answer((ReturnSetInfo *) fcinfo->resultinfo, batch[i].ordinal, &batch[i].answer);
	hf_end(&call);
	return (Datum) 0;
}
