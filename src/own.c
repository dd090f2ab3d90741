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
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "commands/extension.h"
#include "replication/logicalworker.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

static int	own_depth = 0;

PG_FUNCTION_INFO_V1(holdfast_own);

/*
 * Whether what is being done now is the extension's own doing, its install or
 * upgrade script's, or the replay of another server's changes by the real
 * apply worker.  session_replication_role is no such sign: anybody who may set
 * it can pretend.
 */
bool
hf_is_own(void)
{
	return own_depth > 0 || IsLogicalWorker() ||
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

/* Call the body of the function that this is, as the extension's own doing. */
Datum
holdfast_own(PG_FUNCTION_ARGS)
{
	LOCAL_FCINFO(body, FUNC_MAX_ARGS);
	FmgrInfo	flinfo;
	Datum		result;

	fmgr_info(find_body(fcinfo->flinfo->fn_oid), &flinfo);
	InitFunctionCallInfoData(*body, &flinfo, fcinfo->nargs, fcinfo->fncollation, fcinfo->context, fcinfo->resultinfo);
	for (int i = 0; i < fcinfo->nargs; i++)
		body->args[i] = fcinfo->args[i];
	own_depth++;
	PG_TRY();
	{
		result = FunctionCallInvoke(body);
	}
	PG_FINALLY();
	{
		own_depth--;
	}
	PG_END_TRY();
	fcinfo->isnull = body->isnull;
	return result;
}
