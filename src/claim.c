/*-------------------------------------------------------------------------
 *
 * claim.c
 *	  claim, claim_any, complete_and_claim.
 *
 * A claim waits for no row lock.  A job that nothing bars from starting, the
 * usual case, is started without a lock first: its ledger row and then the job
 * are stored over the versions that were read, or, where another transaction
 * is at one of them, neither is.  Any other job is locked, and its ledger row,
 * or stepped over; with both held the claim settles what it has found: leases
 * that have ended, jobs past their deadline, intents already committed, jobs
 * of an open stream, jobs whose key another live job owns.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(holdfast_claim);
PG_FUNCTION_INFO_V1(holdfast_claim_any);
PG_FUNCTION_INFO_V1(holdfast_complete_and_claim);

#define CONTEXT_COLUMNS 24
#define CONTEXT_TYPES "liiiluzztt" "jjutttti" "jjlitt"

typedef enum Modes
{
	MODES_ALL, MODES_EXECUTE, MODES_RECONCILE
} Modes;

static const char *const modes_names[] = {"all", "execute", "reconcile", NULL};

/* What a worker asks for, and where the answer goes. */
typedef struct Claim
{
	HfCall	   *call;
	FunctionCallInfo fcinfo;
	const HfQueue *queue;
	text	   *worker_name;
	int			qty;
	int64		lease_ms;		/* or -1 */
	Modes		modes;
	int			granted;
	int			aside;			/* settled, suppressed or deferred besides */
	bool		lock_first;		/* somebody locks jobs without changing them: look before writing */
	bool		merged;			/* complete_and_claim: kind and outcome come first */
} Claim;

/* ---------------------------------------------------------------- one job */

/* Greater than every token handed out before for the job, whatever happened to the server since. */
static int64
next_token(const HfRow *job)
{
	int64		token = hf_clock_real() + (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;

	token = Max(token, hf_int64(job, JOB_FENCING_TOKEN) + 1);
	return Max(token, hf_token_floor());
}

/*
 * A random (version 4) uuid.  Random bytes are asked for in bulk, since each
 * time costs more than the bytes, and each is forgotten once handed out.
 */
static void
random_lease_id(pg_uuid_t *lease_id)
{
	static pg_uuid_t pool[64];
	static int	left = 0;

	if (left == 0)
	{
		if (!pg_strong_random(pool, sizeof(pool)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate a lease id"),
					 errhint("The server has no source of strong random numbers.")));
		left = lengthof(pool);
	}
	*lease_id = pool[--left];
	memset(&pool[left], 0, sizeof(pg_uuid_t));
	lease_id->data[6] = (lease_id->data[6] & 0x0f) | 0x40;
	lease_id->data[8] = (lease_id->data[8] & 0x3f) | 0x80;
}

static void
put_context(Claim *c, HfRow *job, HfRow *ledger, TimestampTz deadline, int32 max_attempts)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) c->fcinfo->resultinfo;
	Datum		values[CONTEXT_COLUMNS + 2];
	bool		nulls[CONTEXT_COLUMNS + 2];
	Datum		effects = hf_ledger_effects(c->call, ledger);
	bool		first = hf_int32(job, JOB_ATTEMPT_NUMBER) <= 1;
	int			i = 0;

#define PUT(is_null, datum) (nulls[i] = (is_null), values[i] = nulls[i] ? (Datum) 0 : (datum), i++)
#define PUT_JOB(column) (nulls[i] = hf_is_null(job, column), values[i] = hf_get(job, column), i++)
	if (c->merged)
	{
		PUT(false, hf_word("claimed"));
		PUT(true, (Datum) 0);
	}
	PUT_JOB(JOB_ID);
	PUT_JOB(JOB_ATTEMPT_NUMBER);
	PUT_JOB(JOB_FAILURES);
	PUT(false, Int32GetDatum(max_attempts));
	PUT_JOB(JOB_FENCING_TOKEN);
	PUT_JOB(JOB_LEASE_ID);
	PUT_JOB(JOB_LEASE_EXPIRES_AT);
	PUT(false, TimestampTzGetDatum(deadline));
	PUT_JOB(JOB_MODE);
	PUT(ledger == NULL, hf_get(ledger, LEDGER_STATE));
	PUT(ledger == NULL || hf_is_null(ledger, LEDGER_EVIDENCE), hf_get(ledger, LEDGER_EVIDENCE));
	PUT(effects == (Datum) 0, effects);
	PUT_JOB(JOB_KEY);
	PUT_JOB(JOB_CORRELATION_ID);
	PUT_JOB(JOB_ACTION_KEY);
	PUT_JOB(JOB_SUBJECT);
	PUT_JOB(JOB_SCOPE);
	PUT_JOB(JOB_INTENT_VERSION);
	PUT_JOB(JOB_PAYLOAD);
	PUT_JOB(JOB_HEADERS);
	PUT(false, Int64GetDatum(hf_job_timeout_ms(job, c->queue)));
	PUT(first, Int32GetDatum(hf_int32(job, JOB_ATTEMPT_NUMBER) - 1));
	PUT_JOB(JOB_LAST_ERROR_CLASS);
	PUT_JOB(JOB_LAST_ERROR_MESSAGE);
#undef PUT
#undef PUT_JOB
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/*
 * Hand the job out.  Without "locked" its ledger row is started already, and
 * the job is stored over the version that was read or not at all: false,
 * another transaction is at it.
 */
static bool
grant(Claim *c, HfDispatch *dispatch, HfRow *job, HfRow *ledger, bool locked)
{
	HfCall	   *call = c->call;
	pg_uuid_t	lease_id;
	int64		lease_ms = hf_lease_for(job, c->queue, c->lease_ms);
	int64		timeout_ms = hf_job_timeout_ms(job, c->queue);
	TimestampTz until = call->now + lease_ms * 1000;
	TimestampTz deadline = call->now + timeout_ms * 1000;
	int32		max_attempts = hf_job_max_attempts(job, c->queue);
	bool		execute = hf_text_is(hf_get(job, JOB_MODE), "execute");
	HfEvent		event;

	if (execute && !hf_is_null(job, JOB_GIVE_UP_AT))
		deadline = Min(deadline, hf_time(job, JOB_GIVE_UP_AT));
	random_lease_id(&lease_id);
	hf_set(job, JOB_STATUS, hf_word("running"));
	hf_set(job, JOB_ATTEMPT_NUMBER, Int32GetDatum(hf_next_attempt(hf_int32(job, JOB_ATTEMPT_NUMBER))));
	hf_set(job, JOB_FENCING_TOKEN, Int64GetDatum(next_token(job)));
	hf_set(job, JOB_LEASE_ID, UUIDPGetDatum(&lease_id));
	hf_set(job, JOB_LEASE_EXPIRES_AT, TimestampTzGetDatum(until));
	hf_set(job, JOB_STARTED_AT, TimestampTzGetDatum(call->now));
	hf_set_null(job, JOB_LAST_HEARTBEAT_AT);
	hf_set_null(job, JOB_PARKED_FROM);
	hf_set(job, JOB_WORKER_NAME, PointerGetDatum(c->worker_name));
	if (locked && ledger != NULL && execute && !hf_ledger_is(ledger, "started"))
		hf_ledger_set(call, ledger, job, "started", (Datum) 0);

	hf_event_init(call, &event, "action_attempt_started", job);
	hf_event_set_enqueued(&event, job);
	hf_event_copy(&event, EVENT_LEASE_EXPIRES_AT, job, JOB_LEASE_EXPIRES_AT);
	hf_event_copy(&event, EVENT_FENCING_TOKEN, job, JOB_FENCING_TOKEN);
	hf_event_copy(&event, EVENT_FAILURES, job, JOB_FAILURES);
	hf_event_set(&event, EVENT_MAX_ATTEMPTS, Int32GetDatum(max_attempts));
	hf_event_set(&event, EVENT_TIMEOUT_MS, Int64GetDatum(timeout_ms));
	if (ledger != NULL)
		hf_event_copy(&event, EVENT_SIDE_EFFECT_STATE, ledger, LEDGER_STATE);

	if (locked)
		hf_update_locked(call, job);
	else if (!hf_update_skip(call, job))
		return false;
	hf_event_add(call, &event);
	hf_lease_granted(&lease_id);
	hf_dispatch_running_until(dispatch, until);
	put_context(c, job, ledger, deadline, max_attempts);
	c->granted++;
	return true;
}

/* Not its turn after all: later, and why. */
static void
defer(Claim *c, HfRow *job, TimestampTz until, const char *reason, const char *because)
{
	HfEvent		event;
	HfDetail	detail = {0};

	until = hf_not_before(until);
	hf_event_init(c->call, &event, "action_deferred", job);
	hf_event_set_enqueued(&event, job);
	hf_event_set(&event, EVENT_NEXT_NOT_BEFORE, TimestampTzGetDatum(until));
	hf_event_set(&event, EVENT_DELAY_MS, Int64GetDatum(Max((until - c->call->now) / 1000, 0)));
	hf_detail_cstring(&detail, "reason", reason);
	hf_detail_cstring(&detail, "because", because);
	hf_event_set(&event, EVENT_DETAIL, hf_detail_end(&detail));
	hf_event_add(c->call, &event);
	hf_set_null(job, JOB_PARKED_FROM);
	hf_job_requeue(c->call, job, until, hf_text_is(hf_get(job, JOB_MODE), "execute") ? "execute" : "reconcile");
	c->aside++;
}

/* The intent has landed already: the job is done without being handed out. */
static void
suppress(Claim *c, HfRow *job)
{
	HfEvent		event;
	HfDetail	detail = {0};

	hf_event_init(c->call, &event, "action_suppressed", job);
	hf_event_set_enqueued(&event, job);
	hf_event_set(&event, EVENT_SIDE_EFFECT_STATE, hf_word("committed"));
	hf_detail_cstring(&detail, "reason", "ledger_committed");
	hf_event_set(&event, EVENT_DETAIL, hf_detail_end(&detail));
	hf_event_add(c->call, &event);
	hf_job_gone(c->call, job);
	c->aside++;
}

/* The ledger names another job: wait for what that one does. */
static void
defer_to_owner(Claim *c, HfRow *job, HfRow *ledger)
{
	HfRow	   *owner = hf_row_for(hf_open(c->call, HF_JOB));
	const HfPolicy *policy = hf_job_policy(job, c->queue);
	TimestampTz until = c->call->now + policy->reconcile_ms * 1000;
	bool		live = hf_find_job(owner, hf_int64(ledger, LEDGER_JOB_ID));

	if (live && !hf_is_null(owner, JOB_LEASE_EXPIRES_AT) && hf_time(owner, JOB_LEASE_EXPIRES_AT) > c->call->now)
		until = hf_time(owner, JOB_LEASE_EXPIRES_AT);
	defer(c, job, until, "key_owned",
		  psprintf("job " INT64_FORMAT " owns the idempotency key", hf_int64(ledger, LEDGER_JOB_ID)));
	hf_row_free(owner);
}

/* Whether losing this lease could end the job: then its stream is written, which a claim does not do. */
static bool
loss_may_end(const Claim *c, const HfRow *job)
{
	const HfPolicy *policy = hf_job_policy(job, c->queue);

	return hf_int32(job, JOB_FAILURES) + 1 >= hf_job_max_attempts(job, c->queue) ||
		hf_int32(job, JOB_LOSSES) + 1 >= policy->max_lost ||
		hf_int32(job, JOB_RECONCILES) + 1 >= policy->reconcile_max ||
		!hf_is_null(job, JOB_GIVE_UP_AT) || !hf_is_null(job, JOB_CANCEL_REQUESTED_AT);
}

/* Whether the lease of a job with a stream has ended after the effect landed: that is a success, which the stream counts. */
static bool
success_is_lost(const HfRow *job, const HfRow *ledger)
{
	return !hf_is_null(job, JOB_LEASE_ID) && !hf_is_null(job, JOB_STREAM) && ledger != NULL && hf_ledger_is(ledger, "committed");
}

/* With the job and its ledger row locked and loaded: decide what becomes of it. */
static void
decide(Claim *c, HfDispatch *dispatch, HfRow *job, HfRow *ledger)
{
	HfCall	   *call = c->call;
	HfGate		gate;

	if (!hf_is_null(job, JOB_LEASE_ID))
	{
		HfDecision	decision;

		hf_job_lost(call, job, ledger, &decision);
		c->aside++;
	}
	else if (ledger != NULL && hf_int64(ledger, LEDGER_JOB_ID) != hf_int64(job, JOB_ID))
		defer_to_owner(c, job, ledger);
	else if (ledger != NULL && hf_ledger_is(ledger, "committed") && hf_text_is(hf_get(job, JOB_MODE), "execute"))
		suppress(c, job);
	else if (ledger != NULL && hf_text_is(hf_get(job, JOB_MODE), "execute") && hf_ledger_any_unknown(call, ledger))
	{
		/* no path leads from unknown to execution but a finding */
		hf_set(job, JOB_MODE, hf_word("reconcile"));
		defer(c, job, call->now + hf_job_policy(job, c->queue)->reconcile_ms * 1000, "side_effect_unknown",
			  "the ledger says unknown");
	}
	else if (hf_job_is_past_deadline(call, job))
	{
		hf_job_past_deadline(call, job, ledger);
		c->aside++;
	}
	else if (!hf_is_null(job, JOB_STREAM) && (gate = hf_stream_gate(call, job)) != HF_GATE_PASS)
	{
		if (gate == HF_GATE_STEP_OVER)
			hf_dispatch_keep(dispatch);
		c->aside++;
	}
	else
		(void) grant(c, dispatch, job, ledger, true);
}

/* Whether nothing bars the job from being handed out, and nobody is at it, as the two rows were read: the usual case. */
static bool
may_start(Claim *c, HfRow *job, HfRow *ledger)
{
	return hf_is_null(job, JOB_LEASE_ID) && hf_is_null(job, JOB_STREAM) &&
		(hf_is_null(job, JOB_GIVE_UP_AT) || c->call->now < hf_time(job, JOB_GIVE_UP_AT)) &&
		hf_text_is(hf_get(job, JOB_MODE), "execute") && !hf_may_be_locked(job) &&
		(ledger == NULL ||
		 (hf_int64(ledger, LEDGER_JOB_ID) == hf_int64(job, JOB_ID) && !hf_bool(ledger, LEDGER_HAS_EFFECTS) &&
		  (hf_ledger_is(ledger, "planned") || hf_ledger_is(ledger, "failed_retryable"))));
}

/*
 * Start such a job.  The ledger row comes first, since the job remembers its
 * place; it is put back if the job is not to be had, and then stays locked
 * until the transaction ends.  That is rare: whoever claims is at the ledger
 * row before, and who else is at the job was so when it was read.
 */
static bool
start(Claim *c, HfDispatch *dispatch, HfRow *job, HfRow *ledger)
{
	if (ledger != NULL && !hf_ledger_start(c->call, ledger, job))
		return false;
	if (grant(c, dispatch, job, ledger, false))
		return true;
	if (ledger != NULL)
		hf_ledger_unstart(c->call, ledger);
	c->lock_first = true;
	return false;
}

/* A row that is missing, purged by retention or by hand, is entered anew, for the next claim. */
static void
enter_ledger_anew(HfCall *call, HfRow *job)
{
	HfRow	   *fresh = hf_ledger_new(call, job, hf_text_is(hf_get(job, JOB_MODE), "execute") ? "planned" : "unknown");
	HfRow	   *probe = hf_row_for(hf_open(call, HF_LEDGER));

	(void) hf_insert_unique(call, fresh, "_pkey", hf_uuid(job, JOB_KEY), probe, NULL);
	hf_row_free(probe);
	hf_row_free(fresh);
}

/* Deal with one job; false: step over it, another transaction is at it, its ledger row was missing, or it is not a claim's. */
static bool
take(Claim *c, HfDispatch *dispatch, HfRow *job)
{
	HfCall	   *call = c->call;
	HfRow	   *ledger = NULL;
	bool		taken;

	if (hf_bool(job, JOB_SIDE_EFFECTS) && (ledger = hf_ledger_of(call, job)) == NULL)
	{
		if (hf_lock(call, job, true) == HF_LOCKED)
			enter_ledger_anew(call, job);
		return false;
	}
	if (!c->lock_first && may_start(c, job, ledger))
		taken = start(c, dispatch, job, ledger);
	else if (success_is_lost(job, ledger))
		taken = false;			/* left to maintain() */
	else
	{
		taken = hf_lock(call, job, true) == HF_LOCKED && (ledger == NULL || hf_lock(call, ledger, true) == HF_LOCKED);
		if (taken)
			decide(c, dispatch, job, ledger);
	}
	if (ledger != NULL)
		hf_row_free(ledger);
	return taken;
}

/* ---------------------------------------------------------------- one queue */

/* One pass over the queue; true: the hints hid something, and there is room for it. */
static bool
claim_pass(Claim *c)
{
	HfCall	   *call = c->call;
	bool		execute = c->modes != MODES_RECONCILE;
	bool		reconcile = c->modes == MODES_RECONCILE || (c->modes == MODES_ALL && !c->queue->reconcile_separate);
	HfDispatch *dispatch = hf_dispatch_begin(call, c->queue->queue_id, execute, reconcile);
	bool		exhausted = false;

	while (c->granted < c->qty && c->aside < HF_MAX_ASIDE && !exhausted)
	{
		HfRow	   *job;
		bool		leave_to_maintain;

		CHECK_FOR_INTERRUPTS();
		job = hf_dispatch_next(dispatch);
		exhausted = (job == NULL);
		if (exhausted)
			break;
		leave_to_maintain = !hf_is_null(job, JOB_STREAM) &&
			(!hf_is_null(job, JOB_LEASE_ID) ? loss_may_end(c, job) : hf_job_is_past_deadline(call, job));
		if (!hf_is_null(job, JOB_LEASE_ID) && hf_lease_asserted(job))
			leave_to_maintain = true;
		if (leave_to_maintain || !take(c, dispatch, job))
			hf_dispatch_keep(dispatch);
	}
	return hf_dispatch_end(dispatch, exhausted && c->granted < c->qty);
}

static void
claim_queue(Claim *c, const HfQueue *queue)
{
	c->queue = queue;
	if (c->lease_ms > 0)
		hf_lease_check_asked(queue, c->lease_ms);
	if (queue->paused)
		return;
	while (claim_pass(c) && c->granted < c->qty)
		CommandCounterIncrement();
}

/* ---------------------------------------------------------------- SQL functions */

/* The arguments from "argno" on: worker_name, qty, lease, modes. */
static void
claim_begin(Claim *c, HfCall *call, FunctionCallInfo fcinfo, const char *function, const char *columns)
{
	hf_answer_begin(fcinfo, columns);
	hf_begin(call, function, true);
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("%s.%s() needs isolation level READ COMMITTED", HF_SCHEMA, function),
				 errdetail("At a higher level this transaction would go on seeing jobs as they were at its start."),
				 errhint("Claim in a transaction of its own at READ COMMITTED; settling works at every level.")));
	memset(c, 0, sizeof(Claim));
	c->call = call;
	c->fcinfo = fcinfo;
}

static void
claim_args(Claim *c, int worker_arg, int qty_arg)
{
	c->worker_name = hf_arg_text(c->fcinfo, worker_arg, "worker_name", HF_MAX_NAME, true);
	c->qty = hf_arg_int(c->fcinfo, qty_arg, "qty", 1, HF_MAX_QTY);
	c->lease_ms = c->fcinfo->args[qty_arg + 1].isnull ? -1 :
		hf_arg_interval_ms(c->fcinfo, qty_arg + 1, "lease", 1, HF_MAX_LEASE_MS);
	c->modes = hf_arg_choice(c->fcinfo, qty_arg + 2, "modes", modes_names);
}

/*
 * holdfast.claim(queue_name text, worker_name text, qty int => 1,
 *				  lease interval => null, modes text => 'all')
 *		returns setof execution_context
 *
 * Up to qty (1 to 1000) jobs that are due, in the order priority, run_after,
 * job_id.  Never waits for another worker.  Errors: 25001 above READ
 * COMMITTED, 42501, 42704, 22023, JQ005 for a lease too short for the queue.
 */
Datum
holdfast_claim(PG_FUNCTION_ARGS)
{
	HfCall		call;
	Claim		c;

	claim_begin(&c, &call, fcinfo, "claim", CONTEXT_TYPES);
	c.queue = hf_queue_by_name(hf_arg_text(fcinfo, 0, "queue_name", HF_MAX_NAME, true));
	hf_check_granted(c.queue, HF_WORKER);
	claim_args(&c, 1, 2);
	claim_queue(&c, c.queue);
	hf_end(&call);
	return (Datum) 0;
}

/*
 * holdfast.claim_any(queue_names text[], worker_name text, qty int => 1,
 *					  lease interval => null, modes text => 'all')
 *		returns setof execution_context
 *
 * The same over at most 64 queues, in the array's order.
 */
Datum
holdfast_claim_any(PG_FUNCTION_ARGS)
{
	HfCall		call;
	Claim		c;
	Datum	   *names;
	bool	   *nulls;
	int			n;
	const HfQueue *queues[HF_MAX_QUEUES];

	claim_begin(&c, &call, fcinfo, "claim_any", CONTEXT_TYPES);
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"queue_names\" must not be null"),
				 errhint("Give the names of the queues to claim from.")));
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), TEXTOID, -1, false, TYPALIGN_INT, &names, &nulls, &n);
	if (n < 1 || n > HF_MAX_QUEUES)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"queue_names\" must name 1 to %d queues", HF_MAX_QUEUES),
				 errdetail("It names %d.", n)));
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("argument \"queue_names\" must not contain nulls"),
					 errdetail("Element %d is null.", i + 1)));
		queues[i] = hf_queue_by_name(DatumGetTextPP(names[i]));
		hf_check_granted(queues[i], HF_WORKER);
	}
	claim_args(&c, 1, 2);
	for (int i = 0; i < n && c.granted < c.qty && c.aside < HF_MAX_ASIDE; i++)
	{
		bool		again = false;

		for (int j = 0; j < i; j++)
			again |= (queues[j] == queues[i]);
		if (!again)
			claim_queue(&c, queues[i]);
	}
	hf_end(&call);
	return (Datum) 0;
}

static void
put_completed(void *arg, int64 job_id, const char *outcome)
{
	Claim	   *c = arg;
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) c->fcinfo->resultinfo;
	Datum		values[CONTEXT_COLUMNS + 2] = {0};
	bool		nulls[CONTEXT_COLUMNS + 2];

	memset(nulls, true, sizeof(nulls));
	values[0] = hf_word("completed");
	values[1] = CStringGetTextDatum(outcome);
	values[2] = Int64GetDatum(job_id);
	nulls[0] = nulls[1] = nulls[2] = false;
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/*
 * holdfast.complete_and_claim(queue_name text, worker_name text, job_ids bigint[],
 *							   lease_ids uuid[], qty int => 1, lease interval => null,
 *							   modes text => 'all')
 *		returns setof claimed_or_completed
 *
 * complete_batch and claim in one call, and so in one commit.
 */
Datum
holdfast_complete_and_claim(PG_FUNCTION_ARGS)
{
	HfCall		call;
	Claim		c;

	claim_begin(&c, &call, fcinfo, "complete_and_claim", "tt" CONTEXT_TYPES);
	c.merged = true;
	c.queue = hf_queue_by_name(hf_arg_text(fcinfo, 0, "queue_name", HF_MAX_NAME, true));
	hf_check_granted(c.queue, HF_WORKER);
	claim_args(&c, 1, 4);
	hf_complete_many(&call, fcinfo, 2, 3, put_completed, &c);
	hf_events_flush(&call);
	hf_streams_flush(&call);	/* a claim may name a trial, and nobody waits for a stream while holding another */
	CommandCounterIncrement();
	claim_queue(&c, c.queue);
	hf_end(&call);
	return (Datum) 0;
}
