/*-------------------------------------------------------------------------
 *
 * ddl.c
 *	  The event trigger: DDL on the tables that hold evidence, or make it.
 *
 * One function serves four events.  ddl_command_start sees what the others
 * cannot: the drop of the extension itself, of everything an owner has, and
 * the replacement of a function, this one among them.  ddl_command_end, which
 * knows the objects, does the rest, sql_drop the drops, and table_rewrite
 * refuses before the work is done.
 *
 * Three answers.  What the library would pass by (rules, foreign keys,
 * triggers of others, CHECK constraints, ...) is refused always.  Everything
 * else on our objects leaves a finding, evidence_ddl, in the same transaction.
 * With evidence mode "enforce" it is refused unless it is harmless, or was
 * permitted first (permit_ddl).  A trigger of ours that is switched off or no
 * longer ALWAYS is put back at once, unless permitted.
 *
 * What a restore does, and make_partition, is known by its shape: a table of
 * a day, its columns, indexes, trigger, owner and bounds as they are made
 * here, leave no record.
 *
 * Other DDL pays for one call and a look at the parse tree; see
 * docs/security.md for figures.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/event_trigger.h"
#include "commands/extension.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(holdfast_evidence_ddl);
PG_FUNCTION_INFO_V1(holdfast_permit_ddl);

/* ---------------------------------------------------------------- permission */

static TransactionId permitted_xid = InvalidTransactionId;

static void
forget_permission(SubXactEvent event, SubTransactionId me, SubTransactionId parent, void *arg)
{
	/* The record of the permission may be gone with what is rolled back. */
	if (event == SUBXACT_EVENT_ABORT_SUB)
		permitted_xid = InvalidTransactionId;
}

bool
hf_ddl_is_permitted(void)
{
	return TransactionIdIsValid(permitted_xid) && permitted_xid == GetTopTransactionIdIfAny();
}

/*
 * holdfast.permit_ddl(reason text) returns void
 *
 * Until this transaction ends, DDL on holdfast's objects is neither refused
 * nor put back; it is on record all the same, and so is this.  For the owner.
 * Errors: 22004, 22023.
 */
Datum
holdfast_permit_ddl(PG_FUNCTION_ARGS)
{
	static bool registered = false;
	text	   *reason = hf_arg_text(fcinfo, 0, "reason", HF_MAX_TEXT, true);
	HfCall		call;
	HfDetail	detail = {0};

	hf_begin(&call, "permit_ddl", true);
	hf_detail_who(&detail);
	hf_detail_text(&detail, "reason", reason);
	hf_finding(&call, "ddl_permitted", HF_NO_QUEUE, NULL, NULL, hf_detail_end(&detail));
	hf_end(&call);
	if (!registered)
		RegisterSubXactCallback(forget_permission, NULL);
	registered = true;
	permitted_xid = GetTopTransactionId();
	PG_RETURN_VOID();
}

static void
find_mode(void *arg, const Datum *values, const bool *nulls)
{
	if (hf_text_is(values[SETTING_NAME], "evidence_mode"))
		*(bool *) arg = hf_text_is(values[SETTING_VALUE], "enforce");
}

static bool
is_enforced(void)
{
	bool		enforced = false;
	HfCall		call;

	hf_begin(&call, "evidence_ddl", false);
	hf_config_scan(HF_SETTING, find_mode, &enforced);
	hf_end(&call);
	return enforced && !hf_ddl_is_permitted();
}

/* ---------------------------------------------------------------- record, refuse */

/* The finding of a command on an object; "note" says what else was done, or NULL. */
void
hf_ddl_record_for(HfDdl *d, int32 queue, const char *type, const char *identity, const char *note)
{
	HfCall		call;
	HfDetail	detail = {0};

	hf_begin(&call, "evidence_ddl", true);
	hf_detail_cstring(&detail, "command", d->tag);
	hf_detail_cstring(&detail, "type", type);
	hf_detail_cstring(&detail, "object", identity);
	hf_detail_cstring(&detail, "note", note);
	if (hf_ddl_is_permitted())
		hf_detail_bool(&detail, "permitted", true);
	hf_detail_who(&detail);
	hf_finding(&call, "evidence_ddl", queue, NULL, NULL, hf_detail_end(&detail));
	hf_end(&call);
	d->recorded = true;
}

static void
record(HfDdl *d, const char *type, const char *identity, const char *note)
{
	hf_ddl_record_for(d, HF_NO_QUEUE, type, identity, note);
}

static void
remember(HfDdl *d, const char *identity, int sqlerrcode)
{
	HfCall		call;

	hf_begin(&call, "evidence_ddl", true);
	hf_remember_refusal(&call, NULL, sqlerrcode, psprintf("%s: %s", d->tag, identity));
	hf_end(&call);
}

/* Refused whatever the mode: the library would pass it by, run it, or not find its tables. */
static void
refuse_always(HfDdl *d, const char *identity, const char *why)
{
	remember(d, identity, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("%s is refused on \"%s\"", d->tag, identity),
			 errdetail("%s", why),
			 errhint("To react to jobs, read holdfast.event; what is yours belongs in a table of your own.")));
}

/*
 * A function, view or the like of the extension, or a function entered into
 * its schema: upgrade scripts change it, or a superuser, since what the
 * extension does itself rests on it.
 */
static void
refuse_member(HfDdl *d, const char *identity)
{
	if (superuser())
		return;
	remember(d, identity, ERRCODE_INSUFFICIENT_PRIVILEGE);
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("%s is refused on \"%s\"", d->tag, identity),
			 errdetail("It belongs to extension holdfast, or could be taken for what does, and what maintain() and the guards do rests on it."),
			 errhint("ALTER EXTENSION holdfast UPDATE changes it, or a superuser does.")));
}

/* What a trigger of ours writes is evidence of the table that a watch is on, and of no other. */
void
hf_ddl_refuse_trigger(HfDdl *d, const char *identity)
{
	remember(d, identity, ERRCODE_INSUFFICIENT_PRIVILEGE);
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("%s is refused on \"%s\"", d->tag, identity),
			 errdetail("It calls a function of extension holdfast, whose owner you are not."),
			 errhint("Have the owner of the extension call holdfast.watch().")));
}

void
hf_ddl_refuse_unpermitted(HfDdl *d, const char *identity, const char *why)
{
	remember(d, identity, ERRCODE_INSUFFICIENT_PRIVILEGE);
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("%s is refused on \"%s\"", d->tag, identity),
			 errdetail("%s", why),
			 errhint("Call holdfast.permit_ddl(reason) first in the same transaction, which is on record.")));
}

/* With evidence mode "enforce": what could stop the evidence needs permission first. */
static void
refuse_if_enforced(HfDdl *d, const char *identity)
{
	if (is_enforced())
		hf_ddl_refuse_unpermitted(d, identity, "It could stop the evidence, and the evidence mode is \"enforce\".");
}

/* ---------------------------------------------------------------- triggers that must stay on */

/*
 * Put back the triggers of a table that run a function of ours and are no
 * longer ALWAYS; what was put back, or NULL.
 */
static char *
put_back_triggers(HfDdl *d, Oid relid)
{
	Relation	rel = try_relation_open(relid, AccessShareLock);
	TriggerDesc *triggers;
	List	   *names = NIL;
	ListCell   *lc;
	StringInfoData done;
	char	   *table;

	if (rel == NULL)
		return NULL;
	triggers = CopyTriggerDesc(rel->trigdesc);	/* the catalogs are read meanwhile, and the entry may be built anew */
	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		Trigger    *trigger = &triggers->triggers[i];

		if (!trigger->tgisinternal && trigger->tgenabled != TRIGGER_FIRES_ALWAYS &&
			getExtensionOfObject(ProcedureRelationId, trigger->tgfoid) == d->extension)
			names = lappend(names, pstrdup(trigger->tgname));
	}
	table = quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)), RelationGetRelationName(rel));
	relation_close(rel, AccessShareLock);
	if (names == NIL)
		return NULL;
	initStringInfo(&done);
	appendStringInfoString(&done, hf_ddl_is_permitted() ? "not ALWAYS any more:" : "put back to ALWAYS:");
	foreach(lc, names)
	{
		if (!hf_ddl_is_permitted())
			hf_own_execute(psprintf("ALTER TABLE ONLY %s ENABLE ALWAYS TRIGGER %s", table, quote_identifier(lfirst(lc))));
		appendStringInfo(&done, " %s", (char *) lfirst(lc));
	}
	return done.data;
}

/* The same of a table and its partitions. */
char *
hf_ddl_put_back(HfDdl *d, Oid relid)
{
	char	   *done = put_back_triggers(d, relid);
	ListCell   *lc;

	if (get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE)
		foreach(lc, find_all_inheritors(relid, NoLock, NULL))
		{
			char	   *part = lfirst_oid(lc) != relid ? put_back_triggers(d, lfirst_oid(lc)) : NULL;

			if (done == NULL)
				done = part;
		}
	return done;
}

/* ---------------------------------------------------------------- ddl_command_end */

static void
our_table_changed(HfDdl *d, const HfDdlTarget *t)
{
	Node	   *stmt = d->event->parsetree;
	Relation	rel;
	const char *what;
	char	   *note;

	if ((get_rel_relkind(t->relid) == RELKIND_COMPOSITE_TYPE ? getExtensionOfObject(TypeRelationId, get_rel_type_id(t->relid)) :
		 get_rel_relkind(t->relid) != RELKIND_RELATION && get_rel_relkind(t->relid) != RELKIND_PARTITIONED_TABLE ?
		 getExtensionOfObject(RelationRelationId, t->relid) : InvalidOid) == d->extension)
		refuse_member(d, t->identity);
	if (IsA(stmt, AlterObjectSchemaStmt))
		refuse_always(d, t->identity, "The library looks for its tables in schema holdfast.");
	if (IsA(stmt, AlterTableStmt) && hf_ddl_adds_check((AlterTableStmt *) stmt))
		refuse_always(d, t->identity, "The library writes past constraints of others.");
	if (IsA(stmt, IndexStmt) && t->classid == RelationRelationId && t->objid != t->relid && hf_ddl_index_calls_others(t->objid))
		refuse_always(d, t->identity, "The index calls a function of others, which would run as whoever writes.");
	rel = try_relation_open(t->relid, AccessShareLock);
	if (rel != NULL)
	{
		bool		runs_others = hf_ddl_columns_of_others(rel);

		what = hf_unsupported(rel, d->ns);
		relation_close(rel, AccessShareLock);
		if (what != NULL)
			refuse_always(d, t->identity, psprintf("The library writes past %s.", what));
		if (runs_others)
			refuse_always(d, t->identity, "A default or a type is of others, and would run as whoever writes.");
	}
	if (IsA(stmt, CreateTrigStmt) && hf_ddl_leaves_no_record(d, t))
	{
		(void) put_back_triggers(d, t->relid);	/* made as ORIGIN, as CREATE TRIGGER does */
		return;
	}
	if (!hf_ddl_partition_is_day(d, t))
		refuse_always(d, t->identity, "Only a day of events, as holdfast.make_partition() makes it, may be a partition of holdfast.event.");
	note = hf_ddl_put_back(d, t->relid);
	if (note == NULL && hf_ddl_leaves_no_record(d, t))
		return;
	if (!hf_ddl_is_harmless(d))
		refuse_if_enforced(d, t->identity);
	record(d, t->type, t->identity, note);
}

/* What may have made a table, or one that inherits; CREATE SCHEMA is one command with all that it makes. */
static bool
makes_tables(Node *stmt)
{
	return IsA(stmt, CreateStmt) || IsA(stmt, AlterTableStmt) || IsA(stmt, CreateForeignTableStmt) || IsA(stmt, CreateSchemaStmt);
}

/* A table of others must not refer to one of ours, nor inherit from it. */
static void
check_other_table(HfDdl *d, const HfDdlTarget *t)
{
	Relation	rel;
	ListCell   *lc;

	if (!makes_tables(d->event->parsetree))
		return;
	rel = try_relation_open(t->relid, AccessShareLock);
	if (rel == NULL)
		return;
	if ((rel->rd_rel->relkind == RELKIND_RELATION || rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE) &&
		rel->rd_rel->relpersistence != RELPERSISTENCE_TEMP)
		foreach(lc, RelationGetFKeyList(rel))
			if (hf_ddl_is_ours(d, ((ForeignKeyCacheInfo *) lfirst(lc))->confrelid))
				refuse_always(d, t->identity, "The library writes past foreign keys to its tables.");
	relation_close(rel, AccessShareLock);
}

/* GRANT of more than reading on our tables; REVOKE takes nothing away that evidence needs. */
static void
granted(HfDdl *d, GrantStmt *stmt)
{
	ListCell   *lc;
	bool		writes = stmt->privileges == NIL;	/* ALL */
	bool		ours = false;

	if (!stmt->is_grant)
		return;
	foreach(lc, stmt->privileges)
		writes |= ((AccessPriv *) lfirst(lc))->priv_name == NULL ||
			(strcmp(((AccessPriv *) lfirst(lc))->priv_name, "select") != 0 && strcmp(((AccessPriv *) lfirst(lc))->priv_name, "usage") != 0 &&
			 strcmp(((AccessPriv *) lfirst(lc))->priv_name, "execute") != 0);
	if (!writes)
		return;
	foreach(lc, stmt->objects)
	{
		if (stmt->targtype == ACL_TARGET_ALL_IN_SCHEMA || stmt->objtype == OBJECT_SCHEMA)
			ours |= strcmp(strVal(lfirst(lc)), HF_SCHEMA) == 0 && stmt->objtype != OBJECT_FUNCTION;
		else if (stmt->objtype == OBJECT_TABLE || stmt->objtype == OBJECT_SEQUENCE)
			ours |= hf_ddl_is_ours(d, RangeVarGetRelid(lfirst(lc), NoLock, true));
	}
	if (!ours)
		return;
	refuse_if_enforced(d, HF_SCHEMA);
	record(d, "privilege", HF_SCHEMA, NULL);
}

static void
command_on(HfDdl *d, HfDdlTarget *t)
{
	Node	   *stmt = d->event->parsetree;

	t->relid = hf_ddl_table_of(t->classid, t->objid);
	if (OidIsValid(t->relid) && hf_ddl_is_ours(d, t->relid))
	{
		if (t->classid == RelationRelationId && t->objid == t->relid && !IsA(stmt, AlterTableStmt) &&
			get_rel_namespace(t->relid) != d->ns && hf_ddl_inherits(d, t->relid))
			refuse_always(d, t->identity, "The library does not look into children of its tables.");
		our_table_changed(d, t);
	}
	else if (OidIsValid(t->relid))
	{
		if (t->classid == RelationRelationId && t->objid == t->relid)
		{
			check_other_table(d, t);
			if (makes_tables(stmt) && hf_ddl_inherits(d, t->relid))
				refuse_always(d, t->identity, "The library does not look into children of its tables.");
			if (makes_tables(stmt) && !get_rel_relispartition(t->relid))
				hf_ddl_watched_inherited(d, t->relid);
		}
		hf_ddl_watched_changed(d, t);
	}
	else if (t->classid == NamespaceRelationId ? t->objid == d->ns :
			 t->classid == ExtensionRelationId ? t->objid == d->extension :
			 (t->schema != NULL && strcmp(t->schema, HF_SCHEMA) == 0) || getExtensionOfObject(t->classid, t->objid) == d->extension)
	{
		if (strcmp(d->tag, "COMMENT") == 0 || (IsA(stmt, CreateFunctionStmt) && d->recorded))
			return;
		if (t->objid == d->ns && IsA(stmt, RenameStmt))
			refuse_always(d, t->identity, "The library looks for its tables in schema holdfast.");
		if (t->objid == d->extension || getExtensionOfObject(t->classid, t->objid) == d->extension ||
			t->classid == ProcedureRelationId)	/* a function may be taken for one of ours, by its name */
			refuse_member(d, t->identity);
		refuse_if_enforced(d, t->identity);
		record(d, t->type, t->identity, NULL);
	}
}

/* Ask for the objects of the command, by a plan that is kept. */
static uint64
query(SPIPlanPtr *plan, const char *sql)
{
	if (*plan == NULL)
	{
		*plan = SPI_prepare(sql, 0, NULL);
		SPI_keepplan(*plan);
	}
	if (SPI_execute_plan(*plan, NULL, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "unexpected result of an internal query");
	return SPI_processed;
}

static Oid
oid_at(uint64 row, int column)
{
	bool		null;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &null);

	return null ? InvalidOid : DatumGetObjectId(value);
}

static void
on_command_end(HfDdl *d)
{
	static SPIPlanPtr plan = NULL;
	Node	   *stmt = d->event->parsetree;
	SPITupleTable *rows;
	uint64		n;
	ListCell   *lc;

	if (IsA(stmt, GrantStmt))
	{
		granted(d, (GrantStmt *) stmt);
		return;
	}
	if (IsA(stmt, DropStmt))
	{
		if (((DropStmt *) stmt)->removeType == OBJECT_TRIGGER)
			hf_ddl_trigger_dropped(d, (DropStmt *) stmt);
		return;					/* the rest is sql_drop's */
	}
	if (IsA(stmt, CreateSchemaStmt))
		foreach(lc, ((CreateSchemaStmt *) stmt)->schemaElts)
			if (IsA(lfirst(lc), GrantStmt))
				granted(d, lfirst(lc));
	SPI_connect();
	n = query(&plan, "SELECT classid, objid, object_type, object_identity, schema_name FROM pg_catalog.pg_event_trigger_ddl_commands()");
	rows = SPI_tuptable;
	for (uint64 i = 0; i < n; i++)
	{
		HfDdlTarget		t = {0};

		SPI_tuptable = rows;	/* what is done about a row may have asked too */
		t.classid = oid_at(i, 1);
		t.objid = oid_at(i, 2);
		t.type = SPI_getvalue(rows->vals[i], rows->tupdesc, 3);
		t.identity = SPI_getvalue(rows->vals[i], rows->tupdesc, 4);
		t.schema = SPI_getvalue(rows->vals[i], rows->tupdesc, 5);
		if (OidIsValid(t.objid) && t.identity != NULL)
			command_on(d, &t);
	}
	SPI_finish();
}

/* ---------------------------------------------------------------- sql_drop */

static void
on_drop(HfDdl *d)
{
	static SPIPlanPtr plan = NULL;
	SPITupleTable *rows;
	uint64		n;

	if (strncmp(d->tag, "ALTER ", 6) == 0)
		return;					/* ddl_command_end follows */
	SPI_connect();
	n = query(&plan, "SELECT object_type, object_identity, original FROM pg_catalog.pg_event_trigger_dropped_objects()"
			  " WHERE (original AND (schema_name OPERATOR(pg_catalog.=) 'holdfast'"
			  " OR object_identity OPERATOR(pg_catalog.~) ' on holdfast\\.'))"
			  " OR (object_type OPERATOR(pg_catalog.=) 'trigger' AND (object_identity OPERATOR(pg_catalog.~) '^holdfast_watch on '"
			  " OR (original AND object_identity OPERATOR(pg_catalog.~) '^(zzz_)?holdfast_watch(_truncate)? on ')))");
	rows = SPI_tuptable;
	for (uint64 i = 0; i < n; i++)
	{
		char	   *type = SPI_getvalue(rows->vals[i], rows->tupdesc, 1);
		char	   *identity = SPI_getvalue(rows->vals[i], rows->tupdesc, 2);

		bool		null;
		bool		original = DatumGetBool(SPI_getbinval(rows->vals[i], rows->tupdesc, 3, &null));

		if (strstr(identity, "holdfast_watch on ") == identity)
		{
			if (original)		/* else the table goes with it, and leaves nothing to be seen */
				hf_ddl_watch_dropped(d, identity);
		}
		else if (strstr(identity, "holdfast_watch") == NULL)
			refuse_if_enforced(d, identity);
		record(d, type, identity, NULL);
	}
	SPI_finish();
}

/* ---------------------------------------------------------------- ddl_command_start */

static bool
names_us(List *names)
{
	ListCell   *lc;

	foreach(lc, names)
		if (IsA(lfirst(lc), String) && strcmp(strVal(lfirst(lc)), HF_SCHEMA) == 0)
			return true;
	return false;
}

static bool
owns_us(HfDdl *d, List *roles)
{
	Oid			owner = hf_ddl_owner_of(hf_ddl_ours(d, "queue"));
	ListCell   *lc;

	foreach(lc, roles)
		if (get_rolespec_oid(lfirst(lc), true) == owner)
			return true;
	return false;
}

/* It takes the evidence with it, so that only the server's log can tell of it. */
static void
evidence_goes(HfDdl *d, const char *identity)
{
	refuse_if_enforced(d, identity);
	ereport(LOG_SERVER_ONLY,
			(errmsg("holdfast: evidence is dropped by %s of \"%s\", by role \"%s\"", d->tag, identity,
					GetUserNameFromId(GetUserId(), false)),
			 errhidestmt(false)));
}

static bool
has_member_function(HfDdl *d, const char *name)
{
	CatCList   *list = SearchSysCacheList1(PROCNAMEARGSNSP, CStringGetDatum(name));
	bool		found = false;

	for (int i = 0; i < list->n_members; i++)
		found |= getExtensionOfObject(ProcedureRelationId, ((Form_pg_proc) GETSTRUCT(&list->members[i]->tuple))->oid) == d->extension;
	ReleaseSysCacheList(list);
	return found;
}

static void
on_command_start(HfDdl *d)
{
	Node	   *stmt = d->event->parsetree;

	switch (nodeTag(stmt))
	{
		case T_DropStmt:
			if ((((DropStmt *) stmt)->removeType == OBJECT_EXTENSION || ((DropStmt *) stmt)->removeType == OBJECT_SCHEMA) &&
				names_us(((DropStmt *) stmt)->objects))
				evidence_goes(d, HF_SCHEMA);
			break;
		case T_DropOwnedStmt:
			if (owns_us(d, ((DropOwnedStmt *) stmt)->roles))
				evidence_goes(d, HF_SCHEMA);
			break;
		case T_AlterObjectSchemaStmt:
			if (((AlterObjectSchemaStmt *) stmt)->relation != NULL &&
				hf_ddl_is_ours(d, RangeVarGetRelid(((AlterObjectSchemaStmt *) stmt)->relation, NoLock, true)))
				refuse_always(d, ((AlterObjectSchemaStmt *) stmt)->relation->relname, "The library looks for its tables in schema holdfast.");
			break;
		case T_CreateFunctionStmt:
			{
				CreateFunctionStmt *create = (CreateFunctionStmt *) stmt;
				char	   *name;

				/* the function may be this one, which would not be asked afterwards */
				if (create->replace && QualifiedNameGetCreationNamespace(create->funcname, &name) == d->ns)
				{
					if (has_member_function(d, name))
						refuse_member(d, name);
					refuse_if_enforced(d, name);
					record(d, "function", psprintf("%s.%s", HF_SCHEMA, name), "a function of this name may be replaced");
				}
				break;
			}
		default:
			break;
	}
}

/* ---------------------------------------------------------------- the event trigger */

static void
on_table_rewrite(HfDdl *d)
{
	Oid			relid = DatumGetObjectId(OidFunctionCall0(F_PG_EVENT_TRIGGER_TABLE_REWRITE_OID));

	if (hf_ddl_is_ours(d, relid) && !hf_ddl_is_harmless(d))
		refuse_if_enforced(d, get_rel_name(relid));
}

/* What cannot concern us, known without asking for its objects. */
static bool
is_elsewhere(Node *stmt)
{
	switch (nodeTag(stmt))
	{
		case T_CreateStmt:
			return ((CreateStmt *) stmt)->relation->relpersistence == RELPERSISTENCE_TEMP && ((CreateStmt *) stmt)->inhRelations == NIL;
		case T_CreateTableAsStmt:
			return ((CreateTableAsStmt *) stmt)->into->rel->relpersistence == RELPERSISTENCE_TEMP;
		case T_ViewStmt:
			return ((ViewStmt *) stmt)->view->relpersistence == RELPERSISTENCE_TEMP;
		case T_RefreshMatViewStmt:
		case T_CommentStmt:
			return true;
		default:
			return false;
	}
}

/*
 * holdfast.evidence_ddl() returns event_trigger
 */
Datum
holdfast_evidence_ddl(PG_FUNCTION_ARGS)
{
	HfDdl			d = {0};
	MemoryContext cxt;
	MemoryContext old;

	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("evidence_ddl() is an event trigger function"),
				 errhint("It is called by PostgreSQL when DDL is run.")));
	d.event = (EventTriggerData *) fcinfo->context;
	if (IsBinaryUpgrade || is_elsewhere(d.event->parsetree) || hf_is_own(0))
		PG_RETURN_NULL();
	d.ns = get_namespace_oid(HF_SCHEMA, true);
	d.extension = get_extension_oid("holdfast", true);
	if (!OidIsValid(d.extension))
		PG_RETURN_NULL();
	d.tag = GetCommandTagName(d.event->tag);
	if (!OidIsValid(d.ns))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("schema \"%s\" cannot be renamed", HF_SCHEMA),
				 errdetail("The library looks for its tables in it."),
				 errhint("To be rid of it, DROP EXTENSION holdfast.")));

	cxt = AllocSetContextCreate(CurrentMemoryContext, "holdfast ddl", ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(cxt);
	PushActiveSnapshot(GetTransactionSnapshot());
	if (strcmp(d.event->event, "ddl_command_start") == 0)
		on_command_start(&d);
	else if (strcmp(d.event->event, "ddl_command_end") == 0)
		on_command_end(&d);
	else if (strcmp(d.event->event, "sql_drop") == 0)
		on_drop(&d);
	else
		on_table_rewrite(&d);
	PopActiveSnapshot();
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
	PG_RETURN_NULL();
}
