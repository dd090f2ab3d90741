/*-------------------------------------------------------------------------
 *
 * lease.c
 *	  Leases: how long, who holds one, and what is still allowed under it.
 *
 * A claim must be committed before its work begins, else a crash would forget
 * the claim but not the effect.  The leases granted in this transaction are
 * therefore kept in backend memory until it ends, and settling one of them is
 * refused (JQ008).  The row's xmin would not do: a subtransaction or an update
 * in between hides it.  So are the leases asserted in it.  What a rollback to
 * a savepoint has taken back is neither.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "access/xact.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"

static bool single_transaction = false;

typedef struct LeaseHere
{
	pg_uuid_t	lease_id;
	TransactionId xid;			/* of the transaction or subtransaction that granted or asserted it */
} LeaseHere;

/* A list, in TopTransactionContext: few transactions look one up, and all that claim make one. */
typedef struct LeasesHere
{
	LeaseHere  *leases;
	int			n;
	int			room;
} LeasesHere;

static LeasesHere granted_here;
static LeasesHere asserted_here;

PG_FUNCTION_INFO_V1(holdfast_heartbeat);
PG_FUNCTION_INFO_V1(holdfast_validate_lease);
PG_FUNCTION_INFO_V1(holdfast_assert_lease);

static bool
any_granted_here(void)
{
	for (int i = 0; i < granted_here.n; i++)
		if (TransactionIdIsCurrentTransactionId(granted_here.leases[i].xid))
			return true;
	return false;
}

static void
on_xact_event(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_PRE_PREPARE && any_granted_here())
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot prepare a transaction that has claimed a job"),
				 errdetail("The job would be held by nobody until the prepared transaction ends."),
				 errhint("Commit the claim before the work begins.")));
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
	{
		memset(&granted_here, 0, sizeof(LeasesHere));
		memset(&asserted_here, 0, sizeof(LeasesHere));
	}
}

void
hf_lease_init(void)
{
	DefineCustomBoolVariable("holdfast.single_transaction",
							 "Lets a job be claimed and settled in one transaction, for tests that roll back.",
							 "A crash would then forget the claim but not the effect.",
							 &single_transaction, false, PGC_SUSET, 0, NULL, NULL, NULL);
	RegisterXactCallback(on_xact_event, NULL);
}

static void
remember_lease(LeasesHere *here, const pg_uuid_t *lease_id)
{
	LeaseHere	lease = {*lease_id, GetCurrentTransactionId()};

	if (here->n == here->room)
	{
		int			room = here->room == 0 ? 16 : here->room * 2;

		/* the list is as it was until there is room: an error here can be caught */
		here->leases = here->room == 0 ? MemoryContextAlloc(TopTransactionContext, sizeof(LeaseHere) * room) :
			repalloc_huge(here->leases, sizeof(LeaseHere) * room);
		here->room = room;
	}
	here->leases[here->n++] = lease;
}

/* Whether the lease is among them, and was not taken back by a rollback to a savepoint. */
static bool
is_here(const LeasesHere *here, const pg_uuid_t *lease_id)
{
	for (int i = here->n - 1; i >= 0; i--)
		if (memcmp(&here->leases[i].lease_id, lease_id, UUID_LEN) == 0 && TransactionIdIsCurrentTransactionId(here->leases[i].xid))
			return true;
	return false;
}

/* A claim has granted this lease. */
void
hf_lease_granted(const pg_uuid_t *lease_id)
{
	remember_lease(&granted_here, lease_id);
}

/* Whether this transaction rests on the lease: then it is kept, over or not, until the transaction ends. */
bool
hf_lease_asserted(const HfRow *job)
{
	return is_here(&asserted_here, hf_uuid(job, JOB_LEASE_ID));
}

/* JQ008 if the job's lease was granted in this transaction, unless nothing outside depends on it. */
void
hf_lease_check_committed(HfCall *call, HfRow *job, const char *function)
{
	if (single_transaction || !hf_bool(job, JOB_SIDE_EFFECTS) || !is_here(&granted_here, hf_uuid(job, JOB_LEASE_ID)))
		return;
	hf_remember_job_refusal(call, job, ERRCODE_HF_CLAIM_UNCOMMITTED, function);
	ereport(ERROR,
			(errcode(ERRCODE_HF_CLAIM_UNCOMMITTED),
			 errmsg("the claim of job " INT64_FORMAT " has not been committed", hf_int64(job, JOB_ID)),
			 errdetail("It was made in this transaction; if it rolled back, the side effect would be forgotten."),
			 errhint("Commit after claim(), then work, then settle; or declare the queue side_effects => false.")));
}

/*
 * The lease that a claim grants: what is asked or the queue's, and at least
 * what the job's own timeout needs, so that one job never fails a claim.
 * Where a queue is gone that other hands have deleted, what is asked or needed.
 */
int64
hf_lease_for(const HfRow *job, const HfQueue *queue, int64 asked_ms)
{
	int64		need = hf_job_timeout_ms(job, queue);

	if (queue == NULL)
		return Max(asked_ms, need);
	need += queue->grace_ms;
	return Max(asked_ms > 0 ? asked_ms : queue->lease_ms,
			   queue->heartbeat_ms > 0 ? Min(need, 3 * queue->heartbeat_ms) : need);
}

/* JQ005 if a lease asked for cannot cover the queue's timeout or heartbeats. */
void
hf_lease_check_asked(const HfQueue *queue, int64 asked_ms)
{
	int64		need = queue->timeout_ms + queue->grace_ms;
	bool		by_heartbeat = queue->heartbeat_ms > 0 && 3 * queue->heartbeat_ms < need;

	if (by_heartbeat)
		need = 3 * queue->heartbeat_ms;

	if (asked_ms >= need)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_HF_LEASE_SHORT),
			 errmsg("lease of " INT64_FORMAT " ms is too short for queue \"%s\"", asked_ms, queue->queue_name),
			 by_heartbeat ?
			 errdetail("The queue's heartbeat is " INT64_FORMAT " ms, and a lease must last three of them.",
					   queue->heartbeat_ms) :
			 errdetail("An action may run for " INT64_FORMAT " ms and the queue's grace is " INT64_FORMAT " ms.",
					   queue->timeout_ms, queue->grace_ms),
			 errhint("Claim with a lease of at least " INT64_FORMAT " ms, or lower the queue's figures.", need)));
}

/* ---------------------------------------------------------------- SQL functions */

/*
 * holdfast.heartbeat(job_id bigint, lease_id uuid, lease interval => null)
 *		returns (outcome text, lease_expires_at timestamptz)
 *
 * Extends a current lease to lease (or the queue's lease) from now; never
 * shortens one, never revives one that is over.  Does not wait for a
 * transaction that has asserted the lease: it answers held.
 */
Datum
holdfast_heartbeat(PG_FUNCTION_ARGS)
{
	HfCall		call;
	HfSettle	s;
	Datum		values[2];
	bool		nulls[2] = {false, true};
	int64		asked_ms = -1;
	TimestampTz until;
	const char *outcome;

	hf_settle_begin(&s, &call, fcinfo, "heartbeat");
	if (!PG_ARGISNULL(2))
		asked_ms = hf_arg_interval_ms(fcinfo, 2, "lease", 1, HF_MAX_LEASE_MS);
	outcome = hf_settle_find(&s, HF_FIND_SKIP);
	if (outcome == NULL && call.now >= hf_time(s.job, JOB_LEASE_EXPIRES_AT))
		outcome = hf_settle_stale(&s, "heartbeat after the end of the lease");
	if (outcome == NULL)
	{
		if (asked_ms > 0 && s.queue != NULL)
			hf_lease_check_asked(s.queue, asked_ms);
		until = call.now + hf_lease_for(s.job, s.queue, asked_ms) * 1000;
		until = Max(until, hf_time(s.job, JOB_LEASE_EXPIRES_AT));
		hf_set(s.job, JOB_LEASE_EXPIRES_AT, TimestampTzGetDatum(until));
		hf_set(s.job, JOB_LAST_HEARTBEAT_AT, TimestampTzGetDatum(call.now));
		hf_update_locked(&call, s.job);
		outcome = hf_is_null(s.job, JOB_CANCEL_REQUESTED_AT) ? "extended" : "cancel_requested";
	}
	values[0] = CStringGetTextDatum(outcome);
	if (s.job != NULL && strcmp(outcome, "stale") != 0)
	{
		values[1] = hf_get(s.job, JOB_LEASE_EXPIRES_AT);
		nulls[1] = false;
	}
	hf_answer_row(fcinfo, "tz", values, nulls);
	hf_settle_end(&s);
	return (Datum) 0;
}

/*
 * holdfast.validate_lease(job_id bigint, lease_id uuid) returns boolean
 *
 * Whether the lease is the job's own and not over, at this moment.
 */
Datum
holdfast_validate_lease(PG_FUNCTION_ARGS)
{
	HfCall		call;
	int64		job_id = hf_arg_bigint(fcinfo, 0, "job_id");
	pg_uuid_t  *lease_id = hf_arg_uuid(fcinfo, 1, "lease_id");
	HfRow	   *job;
	bool		valid;

	hf_begin(&call, "validate_lease", false);
	job = hf_row_for(hf_open(&call, HF_JOB));
	valid = hf_find_job(job, job_id) &&
		hf_is_granted_id(hf_int32(job, JOB_QUEUE), HF_WORKER) &&
		!hf_is_null(job, JOB_LEASE_ID) &&
		memcmp(hf_uuid(job, JOB_LEASE_ID), lease_id, UUID_LEN) == 0 &&
		call.now < hf_time(job, JOB_LEASE_EXPIRES_AT);
	hf_row_free(job);
	hf_end(&call);
	PG_RETURN_BOOL(valid);
}

/*
 * holdfast.assert_lease(job_id bigint, lease_id uuid) returns timestamptz
 *
 * The lease's end, with the job locked until the transaction ends, so that
 * nobody can settle, lose or take it meanwhile; or JQ001.
 */
Datum
holdfast_assert_lease(PG_FUNCTION_ARGS)
{
	HfCall		call;
	HfSettle	s;
	TimestampTz until;

	hf_settle_begin(&s, &call, fcinfo, "assert_lease");
	s.strict = true;
	if (hf_settle_find(&s, HF_FIND_ASSERT) == NULL && call.now >= hf_time(s.job, JOB_LEASE_EXPIRES_AT))
		hf_settle_stale(&s, "assertion after the end of the lease");
	until = hf_time(s.job, JOB_LEASE_EXPIRES_AT);
	if (!is_here(&asserted_here, s.lease_id))
		remember_lease(&asserted_here, s.lease_id);
	hf_settle_end(&s);
	PG_RETURN_TIMESTAMPTZ(until);
}
