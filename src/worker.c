/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  The optional background worker: maintain() by itself.
 *
 * Only with shared_preload_libraries = 'holdfast'.  A launcher, which is
 * connected to no database and runs no SQL, starts a short-lived worker for
 * each configured database when its turn comes; that one calls maintain() in
 * one transaction, as a role that is no superuser, and is gone.  So nothing
 * is held between two runs that DROP DATABASE or DROP EXTENSION would wait
 * for, and nothing is remembered that a crash could lose.
 *
 * No guarantee waits for it, and several of them do no harm: maintain() sees
 * to that.  A worker tells the launcher how it ended by a word in dynamic
 * shared memory; one that is killed tells nothing.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "commands/dbcommands.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "port/atomics.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timeout.h"
#include "utils/varlena.h"
#include "utils/wait_event.h"

#define LANES			64			/* databases at most */
#define AT_ONCE			3			/* runs, so that parallel queries find a free slot too */
#define SLOW_MS			10000		/* a run this old is not counted among them: it may be frozen */
#define AGAIN_MS		5000		/* after a launcher or a worker is gone without a word */
#define REST_MS			1000		/* at least, between two runs */
#define LONGEST_WAIT_MS	600000		/* between two failures, if the interval is not longer */
#define LOCK_WAIT		"3s"		/* below the five for which DROP DATABASE waits */

/* How a run ended. */
typedef enum Outcome
{
	RUN_GONE = 0,				/* it said nothing */
	RUN_DONE, RUN_FAILED,
	RUN_ABSENT					/* the database does not have the extension */
} Outcome;

/* What keeps a role or a database from being used, and what the log was told of it last. */
typedef enum Trouble
{
	TROUBLE_NONE, ROLE_UNSET, ROLE_MISSING, ROLE_SUPERUSER, ROLE_NOLOGIN, DATABASE_MISSING, DATABASE_CLOSED, NO_SLOT,
	OVERDUE
} Trouble;

static const struct
{
	const char *what;
	const char *hint;
}			troubles[] = {
	[ROLE_UNSET] = {"is not set", "Set it to a role that may log in, is no superuser, and may execute holdfast.maintain(); reload."},
	[ROLE_MISSING] = {"does not exist", "Create the role, or correct holdfast.maintain_role and reload."},
	[ROLE_SUPERUSER] = {"is a superuser", "Give upkeep a role of its own; it needs EXECUTE on holdfast.maintain() and no more."},
	[ROLE_NOLOGIN] = {"is not permitted to log in", "ALTER ROLE ... LOGIN; it needs no password."},
	[DATABASE_MISSING] = {"does not exist", "Correct holdfast.maintain_databases and reload."},
	[DATABASE_CLOSED] = {"does not accept connections", "Take it out of holdfast.maintain_databases, or ALTER DATABASE ... ALLOW_CONNECTIONS true."},
	[NO_SLOT] = {"waits for a free background worker", "Raise max_worker_processes."},
	[OVERDUE] = {"has not ended a run in time, and was told to end", "If its process is stopped, let it go on (SIGCONT); what it has locked waits for it."},
};

/* A database of the list. */
typedef struct Lane
{
	char		name[NAMEDATALEN];
	bool		wanted;
	BackgroundWorkerHandle *handle;	/* of the run under way */
	int64		started_at;		/* by now_ms() */
	int64		due_at;
	int			failures;		/* in a row */
	Outcome		outcome;		/* of the last run */
	Trouble		told;
	Oid			oid;			/* only while runs are being started */
} Lane;

/* What a worker is told, in bgw_extra. */
typedef struct Task
{
	Oid			database;
	Oid			role;
	dsm_handle	board;
	int32		lane;
	Outcome		last;
} Task;

StaticAssertDecl(sizeof(Task) <= BGW_EXTRALEN, "a task must fit into bgw_extra");

static char *databases_setting;
static char *role_setting;
static int	interval_s;
static int	timeout_ms;

static Lane lanes[LANES];
static Trouble role_told;
static dsm_segment *board;		/* an Outcome for each lane */

extern PGDLLEXPORT pg_noreturn void holdfast_launcher_main(Datum arg);
extern PGDLLEXPORT pg_noreturn void holdfast_worker_main(Datum arg);

/* ---------------------------------------------------------------- settings */

/* The names in the list, as they are stored: no folding. */
static bool
split_names(const char *setting, char **copy, List **names)
{
	*copy = pstrdup(setting);
	return SplitGUCList(*copy, ',', names);
}

static bool
check_databases(char **newval, void **extra, GucSource source)
{
	char	   *copy;
	List	   *names;
	ListCell   *lc;
	bool		valid = split_names(*newval, &copy, &names);

	if (!valid)
		GUC_check_errdetail("It is a list of names, separated by commas.");
	else if (list_length(names) > LANES)
	{
		GUC_check_errdetail("It has %d names; at most %d are maintained.", list_length(names), LANES);
		valid = false;
	}
	else
		foreach(lc, names)
			if (strlen(lfirst(lc)) >= NAMEDATALEN)
			{
				GUC_check_errdetail("\"%s\" is longer than a name can be.", (char *) lfirst(lc));
				valid = false;
			}
	list_free(names);
	pfree(copy);
	return valid;
}

/* Settings always, so that postgresql.conf may have them; the launcher where the library is preloaded. */
void
hf_worker_init(void)
{
	BackgroundWorker launcher = {0};

	DefineCustomStringVariable("holdfast.maintain_databases",
							   "The databases in which the background worker calls maintain().",
							   "Names separated by commas. It needs shared_preload_libraries = 'holdfast'.",
							   &databases_setting, "", PGC_SIGHUP, GUC_LIST_INPUT, check_databases, NULL, NULL);
	DefineCustomStringVariable("holdfast.maintain_role",
							   "The role as which the background worker calls maintain().",
							   "It must be permitted to log in, and no superuser.",
							   &role_setting, "", PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("holdfast.maintain_interval",
							"How often the background worker calls maintain().",
							NULL, &interval_s, 60, 1, 3600, PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("holdfast.maintain_timeout",
							"How long a call of the background worker may take.",
							NULL, &timeout_ms, 600000, 100, 86400000, PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	if (!process_shared_preload_libraries_in_progress || IsBinaryUpgrade)
		return;
	strlcpy(launcher.bgw_name, "holdfast launcher", sizeof(launcher.bgw_name));
	strlcpy(launcher.bgw_type, "holdfast launcher", sizeof(launcher.bgw_type));
	strlcpy(launcher.bgw_library_name, "holdfast", sizeof(launcher.bgw_library_name));
	strlcpy(launcher.bgw_function_name, "holdfast_launcher_main", sizeof(launcher.bgw_function_name));
	launcher.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	launcher.bgw_start_time = BgWorkerStart_RecoveryFinished;	/* not on a standby, until it is promoted */
	launcher.bgw_restart_time = AGAIN_MS / 1000;
	RegisterBackgroundWorker(&launcher);
}

/* ---------------------------------------------------------------- the launcher */

/* A clock that nobody sets. */
static int64
now_ms(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return (int64) INSTR_TIME_GET_MILLISEC(now);
}

/* Say what is in the way, once, until something else is. */
static void
tell(Trouble *told, Trouble trouble, const char *kind, const char *name)
{
	if (trouble != *told && trouble != TROUBLE_NONE)
		ereport(WARNING,
				(errmsg("holdfast.%s: \"%s\" %s", kind, name, troubles[trouble].what),
				 errhint("%s", troubles[trouble].hint)));
	*told = trouble;
}

static Lane *
find_lane(const char *name)
{
	for (int i = 0; i < LANES; i++)
		if ((lanes[i].wanted || lanes[i].handle != NULL) && strcmp(lanes[i].name, name) == 0)
			return &lanes[i];
	return NULL;
}

static Lane *
free_lane(void)
{
	for (int i = 0; i < LANES; i++)
		if (!lanes[i].wanted && lanes[i].handle == NULL)
			return &lanes[i];
	return NULL;
}

/* Bring the lanes in line with the list.  All are due: what was in the way may be repaired. */
static void
read_list(void)
{
	char	   *copy;
	List	   *names;
	ListCell   *lc;

	for (int i = 0; i < LANES; i++)
		lanes[i].wanted = false;
	(void) split_names(databases_setting, &copy, &names);
	foreach(lc, names)
	{
		Lane	   *lane = find_lane(lfirst(lc));

		if (lane == NULL && (lane = free_lane()) == NULL)
			continue;			/* runs of databases that were in the list are under way: the next reload */
		if (lane->handle == NULL)
		{
			*lane = (Lane) {.due_at = now_ms()};
			strlcpy(lane->name, lfirst(lc), NAMEDATALEN);
		}
		lane->wanted = true;
	}
	list_free(names);
	pfree(copy);
	role_told = TROUBLE_NONE;
}

static int64
delay_after(const Lane *lane)
{
	int64		interval = interval_s * INT64CONST(1000);
	int64		longest = Max(interval, LONGEST_WAIT_MS);
	int64		delay = lane->outcome == RUN_GONE ? Min(interval, AGAIN_MS) : interval;

	for (int i = 1; i < lane->failures && delay < longest; i++)
		delay *= 2;
	return Min(delay, longest);
}

/* Note how a run has ended, or that it does not. */
static void
look_at_run(Lane *lane)
{
	pid_t		pid;
	int64		now = now_ms();

	if (GetBackgroundWorkerPid(lane->handle, &pid) != BGWH_STOPPED)
	{
		if (now > lane->started_at + timeout_ms + SLOW_MS && lane->told != OVERDUE)
		{
			tell(&lane->told, OVERDUE, "maintain_databases", lane->name);
			TerminateBackgroundWorker(lane->handle);
		}
		return;
	}
	pfree(lane->handle);
	lane->handle = NULL;
	lane->told = TROUBLE_NONE;
	lane->outcome = pg_atomic_read_u32((pg_atomic_uint32 *) dsm_segment_address(board) + (lane - lanes));
	if (lane->outcome == RUN_DONE)
	{
		lane->failures = 0;
		lane->due_at = Max(lane->started_at + interval_s * INT64CONST(1000), now + REST_MS);
	}
	else
	{
		lane->failures++;
		lane->due_at = now + delay_after(lane);
	}
}

static Oid
usable_role(void)
{
	HeapTuple	tuple = SearchSysCache1(AUTHNAME, CStringGetDatum(role_setting));
	Trouble		trouble = role_setting[0] == '\0' ? ROLE_UNSET : ROLE_MISSING;
	Oid			role = InvalidOid;

	if (HeapTupleIsValid(tuple))
	{
		Form_pg_authid authid = (Form_pg_authid) GETSTRUCT(tuple);

		trouble = authid->rolsuper ? ROLE_SUPERUSER : !authid->rolcanlogin ? ROLE_NOLOGIN : TROUBLE_NONE;
		role = trouble == TROUBLE_NONE ? authid->oid : InvalidOid;
		ReleaseSysCache(tuple);
	}
	tell(&role_told, trouble, "maintain_role", role_setting);
	return role;
}

/*
 * Look the databases up, by one scan: without a database there is no
 * certainty that an index of pg_database can be opened.
 */
static void
find_databases(void)
{
	Relation	rel = table_open(DatabaseRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	Trouble		found[LANES];
	HeapTuple	tuple;

	for (int i = 0; i < LANES; i++)
	{
		lanes[i].oid = InvalidOid;
		found[i] = DATABASE_MISSING;
	}
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);
		Lane	   *lane = find_lane(NameStr(database->datname));

		if (lane == NULL)
			continue;
		found[lane - lanes] = database->datallowconn ? TROUBLE_NONE : DATABASE_CLOSED;
		lane->oid = database->datallowconn ? database->oid : InvalidOid;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	for (int i = 0; i < LANES; i++)
		if (lanes[i].wanted && lanes[i].handle == NULL && (lanes[i].told != NO_SLOT || found[i] != TROUBLE_NONE))
			tell(&lanes[i].told, found[i], "maintain_databases", lanes[i].name);
}

static void
start_run(Lane *lane, Oid role)
{
	BackgroundWorker worker = {0};
	Task		task = {lane->oid, role, dsm_segment_handle(board), lane - lanes, lane->outcome};
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	snprintf(worker.bgw_name, sizeof(worker.bgw_name), "holdfast maintain: %s", lane->name);
	strlcpy(worker.bgw_type, "holdfast maintain", sizeof(worker.bgw_type));
	strlcpy(worker.bgw_library_name, "holdfast", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "holdfast_worker_main", sizeof(worker.bgw_function_name));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_notify_pid = MyProcPid;
	memcpy(worker.bgw_extra, &task, sizeof(task));
	pg_atomic_write_u32((pg_atomic_uint32 *) dsm_segment_address(board) + (lane - lanes), RUN_GONE);
	lane->started_at = now_ms();
	if (!RegisterDynamicBackgroundWorker(&worker, &lane->handle))
	{
		lane->handle = NULL;
		lane->due_at = lane->started_at + Min(interval_s * INT64CONST(1000), AGAIN_MS);
	}
	tell(&lane->told, lane->handle == NULL ? NO_SLOT : TROUBLE_NONE, "maintain_databases", lane->name);
	MemoryContextSwitchTo(old);
}

/* Start what is due.  What cannot be started is looked at again after the interval. */
static void
start_runs(void)
{
	int64		now = now_ms();
	int			young = 0;
	bool		due = false;
	Oid			role;

	for (int i = 0; i < LANES; i++)
	{
		if (lanes[i].handle != NULL)
			young += now < lanes[i].started_at + SLOW_MS;
		else if (lanes[i].wanted && lanes[i].due_at <= now)
			due = true;
	}
	if (!due || young >= AT_ONCE)
		return;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	role = usable_role();
	find_databases();
	CommitTransactionCommand();
	for (int i = 0; i < LANES; i++)
	{
		Lane	   *lane = &lanes[i];

		if (!lane->wanted || lane->handle != NULL || lane->due_at > now)
			continue;
		if (!OidIsValid(role) || !OidIsValid(lane->oid))
			lane->due_at = now + interval_s * INT64CONST(1000);
		else if (young < AT_ONCE)
		{
			start_run(lane, role);
			young += lane->handle != NULL;
		}
	}
}

/* How long the launcher may sleep.  The end of a run wakes it. */
static long
sleep_ms(void)
{
	int64		now = now_ms();
	int64		until = now + LONGEST_WAIT_MS;

	for (int i = 0; i < LANES; i++)
		if (lanes[i].handle != NULL)
			until = Min(until, now + AGAIN_MS);
		else if (lanes[i].wanted)
			until = Min(until, Max(lanes[i].due_at, now + 100));	/* due already: too many are under way */
	return (long) (until - now);
}

void
holdfast_launcher_main(Datum arg)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	board = dsm_create(sizeof(pg_atomic_uint32) * LANES, 0);
	for (int i = 0; i < LANES; i++)
		pg_atomic_init_u32((pg_atomic_uint32 *) dsm_segment_address(board) + i, RUN_GONE);
	read_list();
	for (;;)
	{
		if (ProcDiePending)
			proc_exit(1);		/* to be started again, and nothing for the log of a shutdown */
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			read_list();
		}
		for (int i = 0; i < LANES; i++)
			if (lanes[i].handle != NULL)
				look_at_run(&lanes[i]);
		start_runs();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, sleep_ms(), PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}

/* ---------------------------------------------------------------- a run */

/* Settings of the role or the database must not change what a run does. */
static void
set_session(void)
{
	static const char *const settings[][2] = {
		{"application_name", "holdfast maintain"},
		{"search_path", "pg_catalog, pg_temp"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_deferrable", "off"},
		{"lock_timeout", LOCK_WAIT}
	};

	for (int i = 0; i < lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1], PGC_USERSET, PGC_S_OVERRIDE);
}

static const char *
way_out(const ErrorData *error, const char *role)
{
	switch (error->sqlerrcode)
	{
		case ERRCODE_INSUFFICIENT_PRIVILEGE:
			return psprintf("In that database: GRANT USAGE ON SCHEMA %s TO %s; GRANT EXECUTE ON FUNCTION %s.maintain() TO %s;",
							HF_SCHEMA, quote_identifier(role), HF_SCHEMA, quote_identifier(role));
		case ERRCODE_LOCK_NOT_AVAILABLE:
			return "Somebody holds a lock that it needs; pg_locks names it. It will try again.";
		case ERRCODE_QUERY_CANCELED:
			return "It was canceled, or took longer than holdfast.maintain_timeout. It will try again.";
		default:
			return error->hint != NULL ? error->hint :
				"See what holdfast.verify() says, and call holdfast.maintain() by hand. It will try again.";
	}
}

/* Whether the database has the extension.  DROP EXTENSION then waits for this transaction, before it locks anything. */
static bool
has_extension(void)
{
	Oid			extension = get_extension_oid("holdfast", true);

	if (!OidIsValid(extension))
		return false;
	LockDatabaseObject(ExtensionRelationId, extension, 0, AccessShareLock);
	return get_extension_oid("holdfast", true) == extension;
}

/* Call maintain() where it is.  An error is told once, with the way out, and is not passed on. */
static Outcome
run_maintain(const Task *task)
{
	static const char *const sql = "SELECT FROM " HF_SCHEMA ".maintain()";
	static char database[NAMEDATALEN];
	static char role[NAMEDATALEN];
	MemoryContext outer = CurrentMemoryContext;
	volatile Outcome outcome = RUN_FAILED;

	PG_TRY();
	{
		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		strlcpy(database, get_database_name(task->database), NAMEDATALEN);
		strlcpy(role, GetUserNameFromId(task->role, false), NAMEDATALEN);
		enable_timeout_after(STATEMENT_TIMEOUT, timeout_ms);	/* of SPI, PostgreSQL does not do it by itself */
		pgstat_report_activity(STATE_RUNNING, sql);
		PushActiveSnapshot(GetTransactionSnapshot());
		if (!has_extension())
		{
			outcome = RUN_ABSENT;
			ereport(task->last == RUN_ABSENT ? DEBUG1 : WARNING,
					(errmsg("holdfast.maintain_databases: \"%s\" does not have the extension holdfast", database),
					 errhint("CREATE EXTENSION holdfast in it, or take it out of the list.")));
		}
		else
		{
			SPI_connect();
			if (SPI_execute(sql, false, 0) != SPI_OK_SELECT)
				elog(ERROR, "unexpected result of an internal query");
			SPI_finish();
		}
		PopActiveSnapshot();
		CommitTransactionCommand();	/* within the limit too: it may wait for a synchronous standby */
		disable_timeout(STATEMENT_TIMEOUT, false);
		if (outcome != RUN_ABSENT)
			outcome = RUN_DONE;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		HOLD_INTERRUPTS();
		disable_timeout(STATEMENT_TIMEOUT, false);
		MemoryContextSwitchTo(outer);
		error = CopyErrorData();
		FlushErrorState();
		AbortOutOfAnyTransaction();
		RESUME_INTERRUPTS();
		outcome = RUN_FAILED;
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("holdfast could not maintain database \"%s\" as role \"%s\": %s", database, role, error->message),
				 error->detail != NULL ? errdetail("%s", error->detail) : 0,
				 errhint("%s", way_out(error, role)),
				 error->context != NULL ? errcontext("%s", error->context) : 0));
	}
	PG_END_TRY();
	return outcome;
}

void
holdfast_worker_main(Datum arg)
{
	Task		task;
	dsm_segment *segment;
	Outcome		outcome;

	memcpy(&task, MyBgworkerEntry->bgw_extra, sizeof(task));
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	segment = dsm_attach(task.board);
	if (segment == NULL)
		proc_exit(0);			/* its launcher is gone; the next one starts others */
	BackgroundWorkerInitializeConnectionByOid(task.database, task.role, 0);
	set_session();
	outcome = run_maintain(&task);
	pg_atomic_write_u32((pg_atomic_uint32 *) dsm_segment_address(segment) + task.lane, outcome);
	proc_exit(0);
}
