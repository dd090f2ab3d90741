/*-------------------------------------------------------------------------
 *
 * maintain.c
 *	  Upkeep that is not SQL, and reading with the owner's rights.
 *
 * A claim settles the leases that have ended in what it scans.  A queue that
 * nobody claims from, or jobs that a claim leaves alone since their end would
 * write a stream, are settled here, by the same functions.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"

#define PENDING_IN_A_ROW 10000	/* running jobs are ahead of the backlog */

PG_FUNCTION_INFO_V1(holdfast_settle_expired);
PG_FUNCTION_INFO_V1(holdfast_next_wakeup);
PG_FUNCTION_INFO_V1(holdfast_oldest_writer);

/* ---------------------------------------------------------------- expired leases, past deadlines */

static bool
settle_one(HfCall *call, HfRow *job)
{
	HfRow	   *ledger = NULL;
	HfDecision	decision;
	bool		expired = !hf_is_null(job, JOB_LEASE_ID);
	bool		past = !expired && hf_job_is_past_deadline(call, job);

	if ((!expired && !past) || (expired && hf_lease_asserted(job)) || hf_lock(call, job, true) != HF_LOCKED)
		return false;
	if (hf_bool(job, JOB_SIDE_EFFECTS) && hf_ledger_lock_of(call, job, true, &ledger) == HF_LEDGER_BUSY)
		return false;
	if (expired)
		hf_job_lost(call, job, ledger, &decision);
	else if (hf_is_null(job, JOB_STREAM) || !hf_stream_excuses(call, job))
		hf_job_past_deadline(call, job, ledger);
	return true;
}

/*
 * holdfast.settle_expired(queue integer, max integer) returns bigint
 *
 * Settle leases that have ended, and pending jobs past give_up_at, of one
 * queue: how many.  For maintain().
 */
Datum
holdfast_settle_expired(PG_FUNCTION_ARGS)
{
	HfCall		call;
	int32		queue_id = hf_arg_int(fcinfo, 0, "queue", PG_INT32_MIN, PG_INT32_MAX);
	int32		max = hf_arg_int(fcinfo, 1, "max", 1, 1000000);
	HfDispatch *dispatch;
	HfRow	   *job;
	int64		settled = 0;
	int			pending = 0;

	hf_begin(&call, "settle_expired", true);
	dispatch = hf_dispatch_begin_whole(&call, queue_id);
	while (settled < max && pending < PENDING_IN_A_ROW && (job = hf_dispatch_next(dispatch)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		if (settle_one(&call, job))
		{
			settled++;
			pending = 0;
		}
		else
			pending++;
	}
	(void) hf_dispatch_end(dispatch, false);
	hf_end(&call);
	PG_RETURN_INT64(settled);
}

/*
 * holdfast.next_wakeup(queue_name text) returns integer
 *
 * How many ms a worker may sleep: 0 a job is due, null nothing is scheduled,
 * at most 60,000, at most 1,000 while jobs run or where what is due is not for
 * every claim (hf_dispatch_wait_ms).  Errors: 42704, 42501.
 */
Datum
holdfast_next_wakeup(PG_FUNCTION_ARGS)
{
	HfCall		call;
	const HfQueue *queue;
	int32		wait_ms;

	text	   *name = hf_arg_text(fcinfo, 0, "queue_name", HF_MAX_NAME, true);

	hf_begin(&call, "next_wakeup", false);
	queue = hf_queue_by_name(name);
	hf_check_granted(queue, HF_WORKER);
	wait_ms = hf_dispatch_wait_ms(&call, queue);
	if (queue->paused && wait_ms >= 0)
		wait_ms = 60000;
	hf_end(&call);
	if (wait_ms < 0)
		PG_RETURN_NULL();
	PG_RETURN_INT32(wait_ms);
}

/*
 * holdfast.oldest_writer() returns timestamptz
 *
 * When the oldest of the other transactions began that are open in this
 * database and have written; null if there is none, -infinity if one does not
 * tell (track_activities is off).  Autovacuum writes no event.
 * pg_stat_activity hides the sessions of others from an owner who is no
 * superuser.
 */
Datum
holdfast_oldest_writer(PG_FUNCTION_ARGS)
{
	TimestampTz oldest = DT_NOEND;

	pgstat_clear_backend_activity_snapshot();	/* as it is now, not as it was earlier in this transaction */
	for (int i = pgstat_fetch_stat_numbackends(); i > 0; i--)
	{
		LocalPgBackendStatus *backend = hf_backend_status(i);
		TimestampTz begin = backend->backendStatus.st_xact_start_timestamp;

		if (backend->backendStatus.st_databaseid != MyDatabaseId || backend->backendStatus.st_procpid == MyProcPid ||
			backend->backendStatus.st_backendType == B_AUTOVAC_WORKER || !TransactionIdIsValid(backend->backend_xid))
			continue;
		oldest = Min(oldest, begin != 0 ? begin : DT_NOBEGIN);
	}
	if (oldest == DT_NOEND)
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(oldest);
}

/* ---------------------------------------------------------------- reading as the owner */

/*
 * Answer a set-returning function with a query that runs with the rights of
 * the extension's owner.  The caller has checked what the effective role may
 * see.  The text is a constant and qualifies every name.
 */
void
hf_query_as_owner(FunctionCallInfo fcinfo, const char *sql, int nargs, Oid *types, Datum *values, const char *nulls)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(hf_table_oid(HF_QUEUE)));
	Oid			owner;
	Oid			user;
	int			context;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for table \"%s.queue\"", HF_SCHEMA);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(owner, context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	SPI_connect();
	if (SPI_execute_with_args(sql, nargs, types, values, nulls, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "unexpected result of an internal query");
	for (uint64 i = 0; i < SPI_processed; i++)
		tuplestore_puttuple(rsinfo->setResult, SPI_tuptable->vals[i]);
	SPI_finish();
	SetUserIdAndSecContext(user, context);
}
