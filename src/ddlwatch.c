/*-------------------------------------------------------------------------
 *
 * ddlwatch.c
 *	  DDL on watched tables: their triggers stay, and fit.
 *
 * A watched table is its owner's, who may have no right in our schema: what
 * is done here for the watch must not keep him from altering his table.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_trigger.h"
#include "commands/event_trigger.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "storage/bufmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

/* The table that is watched: of a partition, the one at the top. */
Oid
hf_watch_top(Oid relid)
{
	while (get_rel_relispartition(relid))
		relid = get_partition_parent(relid, true);
	return relid;
}

/* CREATE TRIGGER, or nothing but ENABLE ALWAYS. */
static bool
puts_triggers_there(Node *stmt)
{
	ListCell   *lc;

	if (IsA(stmt, AlterTableStmt))
		foreach(lc, ((AlterTableStmt *) stmt)->cmds)
			if (((AlterTableCmd *) lfirst(lc))->subtype != AT_EnableAlwaysTrig)
				return false;
	return IsA(stmt, AlterTableStmt) || IsA(stmt, CreateTrigStmt);
}

static bool
makes_partition(Node *stmt)
{
	if (IsA(stmt, AlterTableStmt))
		return ((AlterTableCmd *) linitial(((AlterTableStmt *) stmt)->cmds))->subtype == AT_AttachPartition;
	return IsA(stmt, CreateStmt) && ((CreateStmt *) stmt)->partbound != NULL;
}

/* Whether the trigger that the command is about calls a function of ours. */
static bool
calls_us(HfDdl *d, const HfDdlTarget *t, Relation rel)
{
	for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
		if (rel->trigdesc->triggers[i].tgoid == t->objid)
			return getExtensionOfObject(ProcedureRelationId, rel->trigdesc->triggers[i].tgfoid) == d->extension;
	return false;
}

/*
 * A watch's triggers are known by their names, by whoever drops them and by
 * unwatch(): one that has another, goes with an extension of others, or calls
 * another function, would be gone unseen.
 */
static void
check_trigger(HfDdl *d, const HfDdlTarget *t, Relation rel)
{
	static const char *const names[] = {"holdfast_watch", "zzz_holdfast_watch", "holdfast_watch_truncate"};
	Node	   *stmt = d->event->parsetree;

	if (IsA(stmt, CreateTrigStmt) && calls_us(d, t, rel))
	{
		if (!has_privs_of_role(GetUserId(), hf_ddl_owner_of(hf_ddl_ours(d, "queue"))))
			hf_ddl_refuse_trigger(d, t->identity);
	}
	else if (hf_ddl_is_permitted())
		return;
	else if (IsA(stmt, CreateTrigStmt) && ((CreateTrigStmt *) stmt)->replace)
	{
		for (int i = 0; i < lengthof(names); i++)
			if (strcmp(((CreateTrigStmt *) stmt)->trigname, names[i]) == 0)
				hf_ddl_refuse_unpermitted(d, t->identity, "A trigger of that name is a watch's.");
	}
	else if ((IsA(stmt, RenameStmt) || IsA(stmt, AlterObjectDependsStmt)) && calls_us(d, t, rel))
		hf_ddl_refuse_unpermitted(d, t->identity, "The triggers of a watch are known by their names, and go with nothing else.");
}

/* How many tables have the trigger of a watch. */
static uint64
tables_of(int32 watch_id)
{
	if (SPI_execute(psprintf("SELECT FROM holdfast.watch_relation r WHERE r.watch_id OPERATOR(pg_catalog.=) %d", watch_id), true, 0) != SPI_OK_SELECT)
		elog(ERROR, "unexpected result of an internal query");
	return SPI_processed;
}

/* What is wrong with a trigger that was made by hand; a restore makes them as watch() does. */
static char *
wrong_trigger(Oid relid, int32 watch_id)
{
	Relation	rel = try_relation_open(relid, AccessShareLock);
	char	   *problem = rel != NULL ? hf_watch_misshapen(rel) : NULL;

	if (rel != NULL)
		relation_close(rel, AccessShareLock);
	if (problem == NULL && tables_of(watch_id) > 1)
		problem = psprintf("another table has the trigger of watch %d", watch_id);
	return problem;
}

/*
 * With the rights of the extension's owner, since whoever makes a partition
 * needs none in our schema.  An owner who may not alter the table leaves it,
 * and hf_watch_recheck() and verify() tell.
 */
static void
give_triggers(HfDdl *d, Oid relid)
{
	Oid			owner = hf_ddl_owner_of(hf_ddl_ours(d, "queue"));
	Oid			user;
	int			context;

	if (!has_privs_of_role(owner, hf_ddl_owner_of(relid)))
		return;
	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(owner, context | SECURITY_LOCAL_USERID_CHANGE);
	hf_own_execute(psprintf("SELECT holdfast.watch_triggers(%u::pg_catalog.oid::pg_catalog.regclass)", relid));
	SetUserIdAndSecContext(user, context);
}

static bool
holds_rows(Oid relid)
{
	bool		holds = false;
	ListCell   *lc;

	foreach(lc, find_all_inheritors(relid, NoLock, NULL))
	{
		Relation	rel = try_relation_open(lfirst_oid(lc), AccessShareLock);

		if (rel == NULL)
			continue;
		holds |= rel->rd_rel->relkind == RELKIND_FOREIGN_TABLE ||
			(rel->rd_rel->relkind == RELKIND_RELATION && RelationGetNumberOfBlocks(rel) > 0);
		relation_close(rel, AccessShareLock);
	}
	return holds;
}

/* Whether the command drops a column and adds one of the same name. */
static bool
replaces_column(List *cmds, const char *name)
{
	ListCell   *lc;

	foreach(lc, cmds)
		if (((AlterTableCmd *) lfirst(lc))->subtype == AT_AddColumn &&
			strcmp(castNode(ColumnDef, ((AlterTableCmd *) lfirst(lc))->def)->colname, name) == 0)
			return true;
	return false;
}

/*
 * What the command did to rows, or lets be done to them, that no trigger sees,
 * in a sentence; NULL: nothing.  "rewrites": it has given them other values.
 */
static char *
unseen(Node *stmt, Oid relid, bool *rewrites)
{
	ListCell   *lc;

	if (get_rel_relispartition(relid) && !IsA(stmt, AlterTableStmt))
		return NULL;			/* the name of a partition means nothing */
	if (IsA(stmt, RenameStmt) && ((RenameStmt *) stmt)->renameType == OBJECT_TABLE)
		return "the table has another name now, and another table may take its place";
	if (IsA(stmt, AlterObjectSchemaStmt))
		return "the table is in another schema now, and another table may take its place";
	if (IsA(stmt, AlterTableStmt))
		foreach(lc, ((AlterTableStmt *) stmt)->cmds)
		{
			AlterTableCmd *cmd = lfirst(lc);
			Oid			part;

			*rewrites = (cmd->subtype == AT_AlterColumnType && castNode(ColumnDef, cmd->def)->raw_default != NULL) ||
				(cmd->subtype == AT_DropColumn && replaces_column(((AlterTableStmt *) stmt)->cmds, cmd->name));
			if (*rewrites)
				return psprintf("column \"%s\" was given other values, past the triggers", cmd->name);
			if (cmd->subtype == AT_DetachPartition || cmd->subtype == AT_DetachPartitionFinalize)
				return psprintf("partition \"%s\" was detached, whose rows are not seen any more", castNode(PartitionCmd, cmd->def)->name->relname);
			if (cmd->subtype == AT_AttachPartition)
			{
				part = RangeVarGetRelid(castNode(PartitionCmd, cmd->def)->name, NoLock, true);
				if (OidIsValid(part) && holds_rows(part))
					return psprintf("partition \"%s\" came with rows", castNode(PartitionCmd, cmd->def)->name->relname);
			}
		}
	return NULL;
}

/*
 * A watched table, or a partition of one: its triggers stay on, a new
 * partition gets those that it does not inherit, and a mapping that no longer
 * fits is refused in mode enforce.
 */
void
hf_ddl_watched_changed(HfDdl *d, const HfDdlTarget *t)
{
	Node	   *stmt = d->event->parsetree;
	Relation	rel = try_relation_open(t->relid, AccessShareLock);
	int32		watch_id = 0;
	HfWatch    *watch = NULL;
	bool		enforce;
	bool		rewrites = false;
	bool		made = false;	/* a trigger of ours, by its owner */
	char	   *note;
	char	   *problem;

	if (t->classid == TriggerRelationId && rel != NULL)
	{
		check_trigger(d, t, rel);
		made = IsA(stmt, CreateTrigStmt) && calls_us(d, t, rel);
	}
	if (rel != NULL && rel->trigdesc != NULL && rel->rd_rel->relkind != RELKIND_VIEW)
		watch_id = hf_watch_id_of(rel);
	if (watch_id != 0)
		watch = hf_watch_of(rel, watch_id);
	enforce = watch != NULL && watch->mode == HF_ENFORCE;
	if (rel != NULL)
		relation_close(rel, AccessShareLock);
	if (watch_id == 0)
		return;
	note = hf_ddl_put_back(d, t->relid);
	if (puts_triggers_there(stmt))
	{
		/* watch(), or a restore, which has not come to the others yet */
		problem = made ? wrong_trigger(t->relid, watch_id) : NULL;
		if (problem != NULL && enforce && !hf_ddl_is_permitted())
			hf_ddl_refuse_unpermitted(d, t->identity, psprintf("It would stop the watch, whose mode is enforce: %s.", problem));
		if (problem != NULL)
			hf_ddl_record_for(d, -watch_id, t->type, t->identity, problem);
		return;
	}
	if (makes_partition(stmt) && !hf_ddl_is_permitted())
		give_triggers(d, hf_watch_top(t->relid));
	problem = hf_watch_recheck(t->relid);
	if (problem != NULL && enforce && !hf_ddl_is_permitted())
		hf_ddl_refuse_unpermitted(d, t->identity, psprintf("It would stop the watch, whose mode is enforce: %s.", problem));
	if (problem == NULL && t->classid == RelationRelationId && t->objid == t->relid)
		problem = unseen(stmt, t->relid, &rewrites);
	if (rewrites && enforce && !hf_ddl_is_permitted())
		hf_ddl_refuse_unpermitted(d, t->identity, psprintf("It would pass by the watch, whose mode is enforce: %s.", problem));
	if (problem != NULL || note != NULL)
		hf_ddl_record_for(d, -watch_id, t->type, t->identity, problem != NULL ? problem : note);
}

/* A table that may inherit from a watched one, which does not see the rows of its children. */
void
hf_ddl_watched_inherited(HfDdl *d, Oid relid)
{
	ListCell   *lc;

	foreach(lc, hf_ddl_parents(relid))
	{
		HfDdlTarget t = {.classid = RelationRelationId, .type = "table", .objid = lfirst_oid(lc), .relid = lfirst_oid(lc)};

		t.identity = quote_qualified_identifier(get_namespace_name(get_rel_namespace(t.relid)), get_rel_name(t.relid));
		hf_ddl_watched_changed(d, &t);
	}
}

/* A watch whose trigger is gone with the command. */
void
hf_ddl_watch_dropped(HfDdl *d, const char *identity)
{
	Oid			user;
	int			context;
	bool		ends;

	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(hf_ddl_owner_of(hf_ddl_ours(d, "queue")), context | SECURITY_LOCAL_USERID_CHANGE);
	ends = SPI_execute("SELECT FROM holdfast.watch w WHERE w.mode OPERATOR(pg_catalog.=) 'enforce' AND NOT EXISTS"
					" (SELECT FROM holdfast.watch_relation r WHERE r.watch_id OPERATOR(pg_catalog.=) w.watch_id)", true, 1) == SPI_OK_SELECT &&
		SPI_processed > 0;
	SetUserIdAndSecContext(user, context);
	if (ends && !hf_ddl_is_permitted())
		hf_ddl_refuse_unpermitted(d, identity, "It would end a watch whose mode is enforce.");
}

/* Another trigger of a watched table is gone. */
void
hf_ddl_trigger_dropped(HfDdl *d, DropStmt *stmt)
{
	ListCell   *lc;

	foreach(lc, stmt->objects)
	{
		List	   *names = list_copy(lfirst(lc));
		HfDdlTarget t = {.classid = RelationRelationId, .type = "table"};

		names = list_truncate(names, list_length(names) - 1);	/* the trigger's name is the last */
		t.objid = t.relid = RangeVarGetRelid(makeRangeVarFromNameList(names), NoLock, true);
		t.identity = NameListToString(names);
		if (OidIsValid(t.relid) && !hf_ddl_is_ours(d, t.relid))
			hf_ddl_watched_changed(d, &t);
	}
}
