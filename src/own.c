/*-------------------------------------------------------------------------
 *
 * own.c
 *	  What the extension does itself, by SQL, and guards let pass.
 *
 * A few functions of the extension write its tables by SQL.  Each is called
 * through a function in C of the same name, which marks the time until it
 * returns, and calls the body, named do_NAME.  A body called by hand has no
 * mark: its writes are guarded like any others.  The mark cannot be set from
 * SQL in any other way.
 *
 * Likewise a lock that no SQL function can take: anybody may hold an advisory
 * lock, for as long as he likes, and would keep the extension from its upkeep.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "replication/logicalworker.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

static int	own_depth = 0;
static int	own_trigger_depth;		/* of triggers, where the mark was set */

PG_FUNCTION_INFO_V1(holdfast_own);
PG_FUNCTION_INFO_V1(holdfast_disowned);

static int
trigger_depth(void)
{
	return DatumGetInt32(OidFunctionCall0(F_PG_TRIGGER_DEPTH));
}

/*
 * Whether what is being done now is the extension's own doing, its install or
 * upgrade script's, or the replay of another server's changes by the real
 * apply worker.  session_replication_role is no such sign: anybody who may set
 * it can pretend.  "triggers" is 1 where a trigger asks, 0 where an event
 * trigger does: a trigger of others that a statement of ours fires is theirs.
 */
bool
hf_is_own(int triggers)
{
	return (own_depth > 0 && trigger_depth() == own_trigger_depth + triggers) || IsLogicalWorker() ||
		(creating_extension && CurrentExtensionObject == get_extension_oid("holdfast", true));
}

/* The body of the function "self": do_NAME with the same arguments, of the same extension. */
static Oid
find_body(Oid self)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(self));
	Form_pg_proc proc;
	char	   *name;
	Oid			body;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", self);
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	name = psprintf("do_%s", NameStr(proc->proname));
	body = GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid, CStringGetDatum(name),
						   PointerGetDatum(&proc->proargtypes), ObjectIdGetDatum(proc->pronamespace));
	if (!OidIsValid(body) || !OidIsValid(getExtensionOfObject(ProcedureRelationId, self)) ||
		getExtensionOfObject(ProcedureRelationId, body) != getExtensionOfObject(ProcedureRelationId, self))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function \"%s.%s\" of the extension is missing", HF_SCHEMA, name),
				 errhint("See holdfast.verify().")));
	ReleaseSysCache(tuple);
	return body;
}

/* Call the body of the function that this is, with the mark set or taken away until it returns. */
static Datum
call_body(FunctionCallInfo fcinfo, bool own)
{
	LOCAL_FCINFO(body, FUNC_MAX_ARGS);
	FmgrInfo	flinfo;
	Datum		result;
	int			saved = own_depth;
	int			saved_triggers = own_trigger_depth;

	fmgr_info(find_body(fcinfo->flinfo->fn_oid), &flinfo);
	InitFunctionCallInfoData(*body, &flinfo, fcinfo->nargs, fcinfo->fncollation, fcinfo->context, fcinfo->resultinfo);
	for (int i = 0; i < fcinfo->nargs; i++)
		body->args[i] = fcinfo->args[i];
	own_depth = own ? 1 : 0;
	own_trigger_depth = trigger_depth();
	PG_TRY();
	{
		result = FunctionCallInvoke(body);
	}
	PG_FINALLY();
	{
		own_depth = saved;
		own_trigger_depth = saved_triggers;
	}
	PG_END_TRY();
	fcinfo->isnull = body->isnull;
	return result;
}

/* As the extension's own doing. */
Datum
holdfast_own(PG_FUNCTION_ARGS)
{
	return call_body(fcinfo, true);
}

/*
 * As anybody's: within what the extension does itself, for what runs
 * expressions, functions and triggers of others.
 */
Datum
holdfast_disowned(PG_FUNCTION_ARGS)
{
	return call_body(fcinfo, false);
}

/* The same around C code; hf_own_resume() takes what this has answered.  An error puts it right by itself. */
int
hf_own_suspend(void)
{
	int			saved = own_depth;

	own_depth = 0;
	return saved;
}

void
hf_own_resume(int saved)
{
	own_depth = saved;
}

/* Run a statement that the library has made, as the extension's own doing. */
void
hf_own_execute(const char *sql)
{
	int			saved = own_depth;
	int			saved_triggers = own_trigger_depth;

	SPI_connect();
	own_depth = 1;
	own_trigger_depth = trigger_depth();
	PG_TRY();
	{
		if (SPI_execute(sql, false, 0) < 0)
			elog(ERROR, "unexpected result of an internal statement");
	}
	PG_FINALLY();
	{
		own_depth = saved;
		own_trigger_depth = saved_triggers;
	}
	PG_END_TRY();
	SPI_finish();
}

/*
 * Be the only one at something of a table until the transaction ends; false:
 * another is, and "wait" is not set.  SQL's advisory locks have 1 or 2 in the
 * last field.
 */
bool
hf_be_alone(Oid relid, uint32 what, bool wait)
{
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, relid, what, 3);
	return LockAcquire(&tag, ExclusiveLock, false, !wait) != LOCKACQUIRE_NOT_AVAIL;
}

/*
 * holdfast.be_alone(relation text, what integer, wait boolean) returns boolean
 *
 * "relation" is the name of a table of ours.
 */
PG_FUNCTION_INFO_V1(holdfast_be_alone);
Datum
holdfast_be_alone(PG_FUNCTION_ARGS)
{
	Oid			relid = get_relname_relid(text_to_cstring(PG_GETARG_TEXT_PP(0)), get_namespace_oid(HF_SCHEMA, false));

	PG_RETURN_BOOL(hf_be_alone(relid, PG_GETARG_INT32(1), PG_GETARG_BOOL(2)));
}
