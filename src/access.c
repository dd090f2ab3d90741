/*-------------------------------------------------------------------------
 *
 * access.c
 *	  Who may do what with a queue.
 *
 * The hot functions write through the access methods, where no table
 * privilege is looked at, so every one of them asks here, with the effective
 * role: a SECURITY DEFINER wrapper speaks for its owner.  The extension's
 * owner and superusers pass every check.  A grant holds only while the role's
 * name and oid, as recorded, are one role: a role that was dropped and made
 * again inherits nothing.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

typedef struct Grant
{
	char	   *queue_name;
	HfKind		kind;
	Oid			role;
	char	   *role_name;
} Grant;

static Grant *grants = NULL;
static int	ngrants = 0;
static bool grants_loaded = false;

static const char *const kind_names[] = {"producer", "worker", "operator", "reader", NULL};

PG_FUNCTION_INFO_V1(holdfast_check_granted);
PG_FUNCTION_INFO_V1(holdfast_is_granted);

void
hf_access_forget(void)
{
	grants = NULL;
	ngrants = 0;
	grants_loaded = false;
}

static void
load_grant(void *arg, const Datum *values, const bool *nulls)
{
	MemoryContext old = MemoryContextSwitchTo(hf_config_context());

	if (ngrants == 0)
		grants = palloc(sizeof(Grant) * 8);
	else if (ngrants >= 8 && (ngrants & (ngrants - 1)) == 0)
		grants = repalloc_huge(grants, sizeof(Grant) * ngrants * 2);
	for (int k = 0; kind_names[k] != NULL; k++)
		if (hf_text_is(values[GRANT_KIND], kind_names[k]))
			grants[ngrants].kind = k;
	grants[ngrants].queue_name = TextDatumGetCString(values[GRANT_QUEUE_NAME]);
	grants[ngrants].role_name = TextDatumGetCString(values[GRANT_ROLE_NAME]);
	grants[ngrants].role = DatumGetObjectId(values[GRANT_ROLE_OID]);
	ngrants++;
	MemoryContextSwitchTo(old);
}

/* Whether the effective role is the extension's owner, a member of it, or a superuser. */
bool
hf_is_owner(void)
{
	HeapTuple	tuple;
	Oid			owner;

	if (superuser())
		return true;
	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(hf_table_oid(HF_QUEUE)));
	if (!HeapTupleIsValid(tuple))
		return false;
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return has_privs_of_role(GetUserId(), owner);
}

/* Whether the effective role may act on the queue as "kind"; an operator may what a reader may. */
bool
hf_is_granted(const HfQueue *queue, HfKind kind)
{
	if (hf_is_owner())
		return true;
	if (!grants_loaded)
	{
		hf_config_scan(HF_QUEUE_GRANT, load_grant, NULL);
		grants_loaded = true;
	}
	for (int i = 0; i < ngrants; i++)
	{
		char	   *name;

		if (grants[i].kind != kind && !(kind == HF_READER && grants[i].kind == HF_OPERATOR))
			continue;
		if (strcmp(grants[i].queue_name, queue->queue_name) != 0)
			continue;
		name = GetUserNameFromId(grants[i].role, true);
		if (name != NULL && strcmp(name, grants[i].role_name) == 0 && has_privs_of_role(GetUserId(), grants[i].role))
			return true;
	}
	return false;
}

/* The same, by number: false for a queue that is gone, but for the owner. */
bool
hf_is_granted_id(int32 queue_id, HfKind kind)
{
	const HfQueue *queue = hf_queue_by_id(queue_id);

	return queue != NULL ? hf_is_granted(queue, kind) : hf_is_owner();
}

/* 42501 unless the effective role may act on the queue as "kind" */
void
hf_check_granted(const HfQueue *queue, HfKind kind)
{
	if (!hf_is_granted(queue, kind))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for queue \"%s\"", queue->queue_name),
				 errdetail("Role \"%s\" is no %s of it.", GetUserNameFromId(GetUserId(), false), kind_names[kind]),
				 errhint("Have the owner run holdfast.grant_queue('%s', '%s', '%s').",
						 queue->queue_name, GetUserNameFromId(GetUserId(), false), kind_names[kind])));
}

/*
 * holdfast.check_granted(queue_name text, kind text) returns void
 *
 * Errors: 42501 if the effective role is not granted it; 42704 for an unknown
 * queue; 22023 for an unknown kind.
 */
Datum
holdfast_check_granted(PG_FUNCTION_ARGS)
{
	HfCall		call;
	text	   *queue_name = hf_arg_text(fcinfo, 0, "queue_name", HF_MAX_NAME, true);
	int			kind = hf_arg_choice(fcinfo, 1, "kind", kind_names);

	hf_begin(&call, "check_granted", false);
	hf_check_granted(hf_queue_by_name(queue_name), kind);
	hf_end(&call);
	PG_RETURN_VOID();
}

/* holdfast.is_granted(queue integer, kind text) returns boolean: for the views, which show a role its own queues */
Datum
holdfast_is_granted(PG_FUNCTION_ARGS)
{
	HfCall		call;
	bool		granted;
	int32		queue_id = hf_arg_int(fcinfo, 0, "queue", PG_INT32_MIN, PG_INT32_MAX);
	int			kind = hf_arg_choice(fcinfo, 1, "kind", kind_names);

	hf_begin(&call, "is_granted", false);
	granted = hf_is_granted_id(queue_id, kind);
	hf_end(&call);
	PG_RETURN_BOOL(granted);
}
