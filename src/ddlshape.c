/*-------------------------------------------------------------------------
 *
 * ddlshape.c
 *	  What DDL is about: which objects are ours, and what is as we make it.
 *
 * A restore makes the days of events by statements of its own.  They are
 * known by their shape, which is that of make_partition(): the columns of
 * event, the indexes and the trigger of event_overflow under the day's name,
 * the bounds of the day in UTC.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/transam.h"
#include "catalog/dependency.h"
#include "catalog/index.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_policy.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_rewrite.h"
#include "catalog/pg_trigger.h"
#include "commands/event_trigger.h"
#include "commands/trigger.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/* ---------------------------------------------------------------- which objects are ours */

/* Looked up each time: what a backend remembers is put right by calls only. */
Oid
hf_ddl_ours(HfDdl *d, const char *name)
{
	return get_relname_relid(name, d->ns);
}

static Oid
parent_of(Oid relid)
{
	return get_rel_relispartition(relid) ? get_partition_parent(relid, true) : InvalidOid;
}

bool
hf_ddl_is_ours(HfDdl *d, Oid relid)
{
	Oid			parent;

	if (!OidIsValid(relid))
		return false;
	if (get_rel_namespace(relid) == d->ns || getExtensionOfObject(RelationRelationId, relid) == d->extension)
		return true;
	parent = parent_of(relid);
	return OidIsValid(parent) && get_rel_namespace(parent) == d->ns;
}

/* The table that a trigger, rule, policy, constraint or index belongs to. */
Oid
hf_ddl_table_of(Oid classid, Oid objid)
{
	static const struct
	{
		Oid			classid;
		Oid			index;
		AttrNumber	oid;
		AttrNumber	relid;
	}			owned[] = {
		{TriggerRelationId, TriggerOidIndexId, Anum_pg_trigger_oid, Anum_pg_trigger_tgrelid},
		{RewriteRelationId, RewriteOidIndexId, Anum_pg_rewrite_oid, Anum_pg_rewrite_ev_class},
		{PolicyRelationId, PolicyOidIndexId, Anum_pg_policy_oid, Anum_pg_policy_polrelid},
		{ConstraintRelationId, ConstraintOidIndexId, Anum_pg_constraint_oid, Anum_pg_constraint_conrelid},
	};

	if (classid == RelationRelationId)
		return get_rel_relkind(objid) == RELKIND_INDEX || get_rel_relkind(objid) == RELKIND_PARTITIONED_INDEX ?
			IndexGetRelation(objid, true) : objid;
	for (int i = 0; i < lengthof(owned); i++)
		if (owned[i].classid == classid)
		{
			Relation	rel = table_open(classid, AccessShareLock);
			ScanKeyData key;
			SysScanDesc scan;
			HeapTuple	tuple;
			Oid			relid = InvalidOid;
			bool		null;

			ScanKeyInit(&key, owned[i].oid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(objid));
			scan = systable_beginscan(rel, owned[i].index, true, NULL, 1, &key);
			tuple = systable_getnext(scan);
			if (HeapTupleIsValid(tuple))
				relid = DatumGetObjectId(heap_getattr(tuple, owned[i].relid, RelationGetDescr(rel), &null));
			systable_endscan(scan);
			table_close(rel, AccessShareLock);
			return relid;
		}
	return InvalidOid;
}

/* ---------------------------------------------------------------- the shape of a day */

/* The day in the name of a table event_YYYYMMDD; false if it is no such name. */
static bool
day_of_name(const char *name, TimestampTz *from)
{
	int			year;
	int			month;
	int			day;

	if (strlen(name) != 14 || strncmp(name, "event_", 6) != 0 || strspn(name + 6, "0123456789") != 8 ||
		sscanf(name + 6, "%4d%2d%2d", &year, &month, &day) != 3 || month < 1 || month > 12 || day < 1 || day > 31)
		return false;
	*from = (TimestampTz) (date2j(year, month, day) - POSTGRES_EPOCH_JDATE) * USECS_PER_DAY;
	return true;
}

static bool
is_day(HfDdl *d, Oid relid)
{
	TimestampTz from;

	return OidIsValid(relid) && get_rel_namespace(relid) == d->ns && get_rel_relkind(relid) == RELKIND_RELATION &&
		day_of_name(get_rel_name(relid), &from);
}

/* The columns of the events, no constraint, and logged. */
static bool
has_shape_of_day(HfDdl *d, Oid relid)
{
	Relation	event = table_open(hf_ddl_ours(d, "event"), AccessShareLock);
	Relation	rel = table_open(relid, AccessShareLock);
	TupleDesc	want = RelationGetDescr(event);
	TupleDesc	have = RelationGetDescr(rel);
	bool		same = rel->rd_rel->relpersistence == RELPERSISTENCE_PERMANENT &&
		(have->constr == NULL || have->constr->num_check == 0);
	int			i = 0;
	int			j = 0;

	/* a column that was dropped from one of them is not in the other */
	while (same)
	{
		Form_pg_attribute a;
		Form_pg_attribute b;

		while (i < want->natts && TupleDescAttr(want, i)->attisdropped)
			i++;
		while (j < have->natts && TupleDescAttr(have, j)->attisdropped)
			j++;
		if (i == want->natts || j == have->natts)
			break;
		a = TupleDescAttr(want, i++);
		b = TupleDescAttr(have, j++);
		same = strcmp(NameStr(a->attname), NameStr(b->attname)) == 0 && a->atttypid == b->atttypid &&
			a->attnotnull == b->attnotnull && a->attcollation == b->attcollation;
	}
	same = same && i == want->natts && j == have->natts;
	table_close(rel, AccessShareLock);
	table_close(event, AccessShareLock);
	return same;
}

/* Holds its own day, in UTC, and nothing else. */
static bool
has_bounds_of_day(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	TimestampTz from;
	bool		null = true;
	bool		exact = false;
	Datum		bound;

	if (!HeapTupleIsValid(tuple))
		return false;
	bound = SysCacheGetAttr(RELOID, tuple, Anum_pg_class_relpartbound, &null);
	if (!null && day_of_name(NameStr(((Form_pg_class) GETSTRUCT(tuple))->relname), &from))
	{
		PartitionBoundSpec *spec = stringToNode(TextDatumGetCString(bound));

		if (spec->strategy == PARTITION_STRATEGY_RANGE && !spec->is_default)
		{
			PartitionRangeDatum *lower = linitial(spec->lowerdatums);
			PartitionRangeDatum *upper = linitial(spec->upperdatums);

			exact = lower->kind == PARTITION_RANGE_DATUM_VALUE && upper->kind == PARTITION_RANGE_DATUM_VALUE &&
				DatumGetTimestampTz(((Const *) lower->value)->constvalue) == from &&
				DatumGetTimestampTz(((Const *) upper->value)->constvalue) == from + USECS_PER_DAY;
		}
	}
	ReleaseSysCache(tuple);
	return exact;
}

/* The definition of an index or trigger of a day is that of event_overflow's, but for the name. */
static bool
is_like_overflow(Oid function, Oid objid, const char *day, Oid model)
{
	char	   *have;
	char	   *want;

	if (!OidIsValid(model))
		return false;
	have = TextDatumGetCString(OidFunctionCall1(function, ObjectIdGetDatum(objid)));
	want = TextDatumGetCString(OidFunctionCall1(function, ObjectIdGetDatum(model)));
	want = TextDatumGetCString(DirectFunctionCall3Coll(replace_text, C_COLLATION_OID, CStringGetTextDatum(want),
													   CStringGetTextDatum("event_overflow"), CStringGetTextDatum(day)));
	return strcmp(have, want) == 0;
}

static bool
is_index_of_day(HfDdl *d, Oid indexid, Oid relid)
{
	const char *day = get_rel_name(relid);
	const char *name = get_rel_name(indexid);
	size_t		len = strlen(day);

	return strncmp(name, day, len) == 0 &&
		is_like_overflow(F_PG_GET_INDEXDEF_OID, indexid, day, get_relname_relid(psprintf("event_overflow%s", name + len), d->ns));
}

static bool
is_trigger_of_day(HfDdl *d, Oid triggerid, Oid relid)
{
	return is_like_overflow(F_PG_GET_TRIGGERDEF_OID, triggerid, get_rel_name(relid),
							get_trigger_oid(hf_ddl_ours(d, "event_overflow"), "guard_statement", true));
}

Oid
hf_ddl_owner_of(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			owner = InvalidOid;

	if (HeapTupleIsValid(tuple))
	{
		owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
		ReleaseSysCache(tuple);
	}
	return owner;
}

/* ---------------------------------------------------------------- ALTER TABLE, step by step */

/*
 * False where the command has made something else than a day a partition of
 * event: by ATTACH, where the object is the parent, or by PARTITION OF.
 */
bool
hf_ddl_partition_is_day(HfDdl *d, const HfDdlTarget *t)
{
	Node	   *stmt = d->event->parsetree;
	Oid			part = InvalidOid;

	if (IsA(stmt, CreateStmt) && ((CreateStmt *) stmt)->partbound != NULL && t->classid == RelationRelationId)
		part = t->objid;
	else if (IsA(stmt, AlterTableStmt) && ((AlterTableCmd *) linitial(((AlterTableStmt *) stmt)->cmds))->subtype == AT_AttachPartition)
		part = RangeVarGetRelid(((PartitionCmd *) ((AlterTableCmd *) linitial(((AlterTableStmt *) stmt)->cmds))->def)->name, NoLock, true);
	return !OidIsValid(part) || (is_day(d, part) && has_shape_of_day(d, part) && has_bounds_of_day(part));
}

static bool
is_attach_of_day(HfDdl *d, AlterTableCmd *cmd)
{
	Oid			part = RangeVarGetRelid(((PartitionCmd *) cmd->def)->name, NoLock, true);

	return is_day(d, part) && has_shape_of_day(d, part) && has_bounds_of_day(part);
}

/* A step that leaves things as holdfast has them. */
static bool
is_as_made(HfDdl *d, AlterTableCmd *cmd, Oid relid)
{
	switch (cmd->subtype)
	{
		case AT_EnableAlwaysTrig:	/* whether all are, is looked at after the command */
			return true;
		case AT_ChangeOwner:
			return hf_ddl_owner_of(relid) == hf_ddl_owner_of(hf_ddl_ours(d, "queue"));
		case AT_AttachPartition:
			return relid == hf_ddl_ours(d, "event") && is_attach_of_day(d, cmd);
		default:
			return false;
	}
}

/* A step that stops no evidence. */
static bool
is_harmless(AlterTableCmd *cmd)
{
	switch (cmd->subtype)
	{
		case AT_AddColumn:
		case AT_SetRelOptions:
		case AT_ResetRelOptions:
		case AT_SetStatistics:
		case AT_SetOptions:
		case AT_ResetOptions:
		case AT_SetStorage:
		case AT_ClusterOn:
		case AT_DropCluster:
			return true;
		default:
			return false;
	}
}

static bool
all_steps(AlterTableStmt *stmt, HfDdl *d, Oid relid, bool (*test) (AlterTableCmd *cmd), bool as_made)
{
	ListCell   *lc;

	foreach(lc, stmt->cmds)
		if (!(as_made ? is_as_made(d, lfirst(lc), relid) : test(lfirst(lc))))
			return false;
	return true;
}

/*
 * A function of somebody's; of a default, where "context" is set, also one of
 * PostgreSQL's own that is not immutable, since some run a query that they are
 * given: but for those that a column may well begin with.
 */
static bool
is_of_others(Oid function, void *context)
{
	static const Oid harmless[] = {F_NEXTVAL, F_NOW, F_TRANSACTION_TIMESTAMP, F_STATEMENT_TIMESTAMP, F_CLOCK_TIMESTAMP, F_GEN_RANDOM_UUID};

	if (function >= FirstNormalObjectId)
		return true;
	if (context == NULL || func_volatile(function) == PROVOLATILE_IMMUTABLE)
		return false;
	for (int i = 0; i < lengthof(harmless); i++)
		if (function == harmless[i])
			return false;
	return true;
}

static bool
calls_others(Node *node, void *context)
{
	if (node == NULL)
		return false;
	/* a domain's constraints, and what a composite type is made of, come with the type, also later */
	if ((IsA(node, CoerceToDomain) && ((CoerceToDomain *) node)->resulttype >= FirstNormalObjectId) ||
		(IsA(node, CoerceViaIO) && ((CoerceViaIO *) node)->resulttype >= FirstNormalObjectId) ||
		(IsA(node, FuncExpr) && ((FuncExpr *) node)->funcresulttype >= FirstNormalObjectId) ||
		(IsA(node, Const) && ((Const *) node)->consttype >= FirstNormalObjectId))
		return true;
	return check_functions_in_node(node, is_of_others, context) || expression_tree_walker(node, calls_others, context);
}

/*
 * An index over a function of somebody's: it would run as whoever writes, and
 * within what the extension does itself, where no guard looks.
 */
bool
hf_ddl_index_calls_others(Oid indexid)
{
	static const AttrNumber attributes[] = {Anum_pg_index_indexprs, Anum_pg_index_indpred};
	HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(indexid));
	bool		found = false;

	if (!HeapTupleIsValid(tuple))
		return false;
	for (int i = 0; i < lengthof(attributes); i++)
	{
		/* as it is stored: simplified, a domain without constraints is not to be seen */
		bool		null;
		Datum		expr = SysCacheGetAttr(INDEXRELID, tuple, attributes[i], &null);

		if (!null && calls_others(stringToNode(TextDatumGetCString(expr)), NULL))
			found = true;
	}
	ReleaseSysCache(tuple);
	return found;
}

/* Defaults and types of columns run code as well: all of ours are PostgreSQL's own. */
bool
hf_ddl_columns_of_others(Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);
	bool		as_default = true;

	if (rel->rd_rel->relkind != RELKIND_RELATION && rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		return false;
	for (int i = 0; i < desc->natts; i++)
		if (!TupleDescAttr(desc, i)->attisdropped && TupleDescAttr(desc, i)->atttypid >= FirstNormalObjectId)
			return true;
	for (int i = 0; desc->constr != NULL && i < desc->constr->num_defval; i++)
		if (calls_others(stringToNode(desc->constr->defval[i].adbin), &as_default))
			return true;
	return false;
}

static bool
is_check(Node *node)
{
	return IsA(node, Constraint) &&
		(((Constraint *) node)->contype == CONSTR_CHECK || ((Constraint *) node)->contype == CONSTR_FOREIGN ||
		 ((Constraint *) node)->contype == CONSTR_EXCLUSION || ((Constraint *) node)->contype == CONSTR_GENERATED ||
		 ((Constraint *) node)->deferrable);
}

/* A constraint that our writes would pass by. */
bool
hf_ddl_adds_check(AlterTableStmt *stmt)
{
	ListCell   *lc;
	ListCell   *lc2;

	foreach(lc, stmt->cmds)
	{
		AlterTableCmd *cmd = lfirst(lc);

		if (cmd->subtype == AT_AddConstraint && is_check(cmd->def))
			return true;
		if (cmd->subtype == AT_AddColumn && IsA(cmd->def, ColumnDef))
			foreach(lc2, ((ColumnDef *) cmd->def)->constraints)
				if (is_check(lfirst(lc2)))
					return true;
	}
	return false;
}

/* The tables that a table inherits from, by the catalog. */
List *
hf_ddl_parents(Oid relid)
{
	Relation	inherits = table_open(InheritsRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	List	   *parents = NIL;

	ScanKeyInit(&key, Anum_pg_inherits_inhrelid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relid));
	scan = systable_beginscan(inherits, InheritsRelidSeqnoIndexId, true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		parents = lappend_oid(parents, ((Form_pg_inherits) GETSTRUCT(tuple))->inhparent);
	systable_endscan(scan);
	table_close(inherits, AccessShareLock);
	return parents;
}

/* Inherits from a plain table of ours. */
bool
hf_ddl_inherits(HfDdl *d, Oid relid)
{
	ListCell   *lc;

	foreach(lc, hf_ddl_parents(relid))
		if (get_rel_namespace(lfirst_oid(lc)) == d->ns)
			return true;
	return false;
}

/* Whether a command on one of our tables is one of those that leave no record. */
bool
hf_ddl_leaves_no_record(HfDdl *d, const HfDdlTarget *t)
{
	Node	   *stmt = d->event->parsetree;

	if (strcmp(d->tag, "COMMENT") == 0 || strcmp(d->tag, "SECURITY LABEL") == 0 || strcmp(d->tag, "REINDEX") == 0)
		return true;
	if (IsA(stmt, AlterTableStmt) && all_steps((AlterTableStmt *) stmt, d, t->relid, NULL, true))
		return true;
	if (!is_day(d, t->relid))
		return false;
	if (IsA(stmt, CreateStmt))
		return t->objid == t->relid && has_shape_of_day(d, t->relid) && ((CreateStmt *) stmt)->partbound == NULL;
	if (IsA(stmt, IndexStmt))
		return t->classid == RelationRelationId && is_index_of_day(d, t->objid, t->relid);
	if (IsA(stmt, CreateTrigStmt))
		return t->classid == TriggerRelationId && is_trigger_of_day(d, t->objid, t->relid);
	return false;
}

bool
hf_ddl_is_harmless(HfDdl *d)
{
	Node	   *stmt = d->event->parsetree;

	return (IsA(stmt, IndexStmt) && !((IndexStmt *) stmt)->unique) || IsA(stmt, CreateStatsStmt) ||
		(IsA(stmt, AlterTableStmt) && all_steps((AlterTableStmt *) stmt, d, InvalidOid, is_harmless, false));
}
