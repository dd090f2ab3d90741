/*-------------------------------------------------------------------------
 *
 * table.c
 *	  Our tables, opened for a call, and what a backend remembers of them.
 *
 * A backend remembers, for each of our tables, which attribute number a
 * column has, what an insert puts into columns that the library does not
 * know, and the predicates of the indexes.  All of it hangs on relcache
 * callbacks: a callback only marks it stale, and the next outermost call
 * builds it anew, so that nothing is freed while a call uses it.
 *
 * row.c writes them, find.c reads them.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "access/heapam.h"
#include "access/nbtree.h"
#include "access/skey.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "catalog/namespace.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "optimizer/optimizer.h"
#include "rewrite/rewriteHandler.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#define NAME_ENTRY(e, n) n,
static const char *const job_columns[] = {HF_JOB_COLUMNS(NAME_ENTRY) HF_DEAD_JOB_COLUMNS(NAME_ENTRY)};
static const char *const ledger_columns[] = {HF_LEDGER_COLUMNS(NAME_ENTRY)};
static const char *const event_columns[] = {HF_EVENT_COLUMNS(NAME_ENTRY)};
static const char *const finding_columns[] = {HF_FINDING_COLUMNS(NAME_ENTRY)};
static const char *const unknown_effect_columns[] = {HF_UNKNOWN_EFFECT_COLUMNS(NAME_ENTRY)};
static const char *const stream_columns[] = {HF_STREAM_COLUMNS(NAME_ENTRY)};
static const char *const queue_columns[] = {HF_QUEUE_COLUMNS(NAME_ENTRY)};
static const char *const queue_grant_columns[] = {HF_QUEUE_GRANT_COLUMNS(NAME_ENTRY)};
static const char *const retry_policy_columns[] = {HF_RETRY_POLICY_COLUMNS(NAME_ENTRY)};
static const char *const error_rule_columns[] = {HF_ERROR_RULE_COLUMNS(NAME_ENTRY)};
static const char *const setting_columns[] = {HF_SETTING_COLUMNS(NAME_ENTRY)};
static const char *const claim_front_columns[] = {HF_CLAIM_FRONT_COLUMNS(NAME_ENTRY)};
static const char *const record_columns[] = {HF_RECORD_COLUMNS(NAME_ENTRY)};
static const char *const watch_columns[] = {HF_WATCH_COLUMNS(NAME_ENTRY)};

static const struct
{
	const char *name;
	const char *const *columns;
	int			ncolumns;
}			tables[HF_NTABLES] = {
	[HF_JOB] = {"job", job_columns, JOB_NCOLUMNS},
	[HF_DEAD_JOB] = {"dead_job", job_columns, DEAD_NCOLUMNS},
	[HF_LEDGER] = {"ledger", ledger_columns, LEDGER_NCOLUMNS},
	[HF_EVENT] = {"event", event_columns, EVENT_NCOLUMNS},
	[HF_EVENT_OVERFLOW] = {"event_overflow", event_columns, EVENT_NCOLUMNS},
	[HF_FINDING] = {"finding", finding_columns, FINDING_NCOLUMNS},
	[HF_UNKNOWN_EFFECT] = {"unknown_effect", unknown_effect_columns, UNKNOWN_NCOLUMNS},
	[HF_STREAM] = {"stream", stream_columns, STREAM_NCOLUMNS},
	[HF_QUEUE] = {"queue", queue_columns, QUEUE_NCOLUMNS},
	[HF_QUEUE_GRANT] = {"queue_grant", queue_grant_columns, GRANT_NCOLUMNS},
	[HF_RETRY_POLICY] = {"retry_policy", retry_policy_columns, POLICY_NCOLUMNS},
	[HF_ERROR_RULE] = {"error_rule", error_rule_columns, RULE_NCOLUMNS},
	[HF_SETTING] = {"setting", setting_columns, SETTING_NCOLUMNS},
	[HF_CLAIM_FRONT] = {"claim_front", claim_front_columns, FRONT_NCOLUMNS},
	[HF_RECORD] = {"attempt_record", record_columns, RECORD_NCOLUMNS},
	[HF_WATCH] = {"watch", watch_columns, WATCH_NCOLUMNS},
};

/* A shape is never overwritten, since handles of this call may use it. */
typedef struct ShapeEntry
{
	Oid			relid;			/* hash key */
	HfShape *shape;
} ShapeEntry;

static MemoryContext shape_cxt = NULL;
static HTAB *shapes = NULL;
static Oid	table_oids[HF_NTABLES];
static const char *const sequences[] = {"job_id_seq", "event_id_seq", "record_id_seq"};
static Oid	sequence_oids[lengthof(sequences)];
static bool shapes_stale = true;
static uint64 shapes_generation = 0;
static uint64 resets = 0;		/* invalidations of everything */
static uint64 job_invalidations = 0;
static uint64 invalidations = 0;	/* of any relation, ours or not */

static void forget_relation(Datum arg, Oid relid);
static void forget_all(Datum arg, int cacheid, uint32 hashvalue);

void
hf_table_init(void)
{
	CacheRegisterRelcacheCallback(forget_relation, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, forget_all, (Datum) 0);
}

/* An invalidation message came in: only note it. */
static void
forget_relation(Datum arg, Oid relid)
{
	ShapeEntry *entry;

	invalidations++;
	if (relid == InvalidOid)
	{
		shapes_stale = true;
		resets++;
	}
	else if (shapes != NULL && (entry = hash_search(shapes, &relid, HASH_FIND, NULL)) != NULL)
	{
		shapes_stale = entry->shape->stale = true;
		if (relid == table_oids[HF_JOB])
			job_invalidations++;
	}
}

static void
forget_all(Datum arg, int cacheid, uint32 hashvalue)
{
	shapes_stale = true;
}

/*
 * Called by the outermost call only: forget what has become stale.  The
 * generation lets others (config.c, dispatch.c, evidence.c) notice.
 */
void
hf_tables_check(void)
{
	HASHCTL		ctl;

	if (!shapes_stale)
		return;
	if (shape_cxt == NULL)
		shape_cxt = AllocSetContextCreate(CacheMemoryContext, "holdfast tables", ALLOCSET_SMALL_SIZES);
	else
		MemoryContextReset(shape_cxt);
	shapes = NULL;
	memset(table_oids, 0, sizeof(table_oids));
	memset(&ctl, 0, sizeof(ctl));
	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(ShapeEntry);
	ctl.hcxt = shape_cxt;
	shapes = hash_create("holdfast tables", 32, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	memset(sequence_oids, 0, sizeof(sequence_oids));
	shapes_stale = false;
	shapes_generation++;
}

/* Moves on with every invalidation of table job, for the scan hints. */
uint64
hf_job_generation(void)
{
	return resets + job_invalidations;
}

uint64
hf_tables_generation(void)
{
	return shapes_generation;
}

int
hf_table_ncolumns(HfTableId id)
{
	return tables[id].ncolumns;
}

const char *
hf_column_name(HfTableId id, int column)
{
	return tables[id].columns[column];
}

const char *
hf_table_name(HfTableId id)
{
	return tables[id].name;
}

Oid
hf_sequence_oid(const char *name)
{
	int			i = 0;

	while (i < lengthof(sequences) && strcmp(sequences[i], name) != 0)
		i++;
	if (i == lengthof(sequences))
		elog(ERROR, "holdfast has no sequence \"%s\"", name);
	if (!OidIsValid(sequence_oids[i]))
		sequence_oids[i] = get_relname_relid(name, get_namespace_oid(HF_SCHEMA, false));
	return sequence_oids[i];
}

/* The OID of one of our tables. */
Oid
hf_table_oid(HfTableId id)
{
	if (!OidIsValid(table_oids[id]))
	{
		Oid			namespace_oid = get_namespace_oid(HF_SCHEMA, true);
		Oid			relid = OidIsValid(namespace_oid) ? get_relname_relid(tables[id].name, namespace_oid) : InvalidOid;

		if (!OidIsValid(relid))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("table \"%s.%s\" does not exist", HF_SCHEMA, tables[id].name),
					 errhint("Run CREATE EXTENSION holdfast.")));
		table_oids[id] = relid;
	}
	return table_oids[id];
}

/* What the executor would do for a table and this library does not, or NULL. */
const char *
hf_unsupported(Relation rel, Oid our_namespace)
{
	if (rel->rd_rules != NULL && rel->rd_rel->relkind != RELKIND_VIEW)
		return "a rule";
	if (rel->rd_rel->relrowsecurity)
		return "row security";
	if (rel->rd_rel->relhassubclass && rel->rd_rel->relkind == RELKIND_RELATION &&
		has_subclass(RelationGetRelid(rel)) && find_inheritance_children(RelationGetRelid(rel), NoLock) != NIL)
		return "a child table";
	for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
		if (get_func_namespace(rel->trigdesc->triggers[i].tgfoid) != our_namespace)
			return rel->trigdesc->triggers[i].tgisinternal ? "a foreign key" : "a trigger";
	return NULL;
}

/* Refuse loudly rather than ignore silently. */
static void
refuse_unsupported(Relation rel, Oid our_namespace)
{
	const char *what = hf_unsupported(rel, our_namespace);

	if (what != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s.%s\" has %s that holdfast would pass by", HF_SCHEMA, RelationGetRelationName(rel), what),
				 errhint("Remove it; to react to jobs, read holdfast.event.")));
}

/* Values for the columns of an insert that the library does not know. */
static void
build_fill(HfShape *shape, Relation rel, const bool *known)
{
	TupleDesc	desc = RelationGetDescr(rel);

	shape->fill = palloc0(sizeof(Datum) * desc->natts);
	shape->fill_null = palloc(sizeof(bool) * desc->natts);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		Node	   *expr;

		shape->fill_null[i] = true;
		if (known[i] || att->attisdropped)
			continue;
		if (att->atthasdef)
		{
			expr = build_column_default(rel, i + 1);
			expr = expr ? eval_const_expressions(NULL, expr) : NULL;
			if (expr == NULL || !IsA(expr, Const))
				shape->behind = true;
			else if (!((Const *) expr)->constisnull)
			{
				shape->fill[i] = datumCopy(((Const *) expr)->constvalue, att->attbyval, att->attlen);
				shape->fill_null[i] = false;
			}
		}
		else if (att->atthasmissing)
		{
			Datum		missing = getmissingattr(desc, i + 1, &shape->fill_null[i]);

			if (!shape->fill_null[i])
				shape->fill[i] = datumCopy(missing, att->attbyval, att->attlen);
		}
		else if (att->attnotnull)
			shape->behind = true;
	}
}

static void
build_indexes(HfShape *shape, Relation rel)
{
	List	   *oids = RelationGetIndexList(rel);
	ListCell   *lc;

	shape->indexes = palloc0(sizeof(HfIndexShape) * Max(list_length(oids), 1));
	foreach(lc, oids)
	{
		Relation	irel = index_open(lfirst_oid(lc), AccessShareLock);
		HfIndexShape *index = &shape->indexes[shape->nindexes];

		if (irel->rd_index->indisready)
		{
			index->indexid = RelationGetRelid(irel);
			namestrcpy(&index->name, RelationGetRelationName(irel));
			index->usable = irel->rd_index->indisvalid;
			index->info = BuildIndexInfo(irel);
			if (irel->rd_index->indisexclusion || !irel->rd_index->indimmediate)
				ereport(ERROR,
						(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						 errmsg("index \"%s\" on table \"%s.%s\" is an exclusion or deferrable constraint",
								RelationGetRelationName(irel), HF_SCHEMA, RelationGetRelationName(rel)),
						 errhint("Drop the constraint; holdfast keeps unique and plain indexes only.")));
			if (index->info->ii_Predicate != NIL)
				index->predicate = ExecInitQual((List *) expression_planner((Expr *) index->info->ii_Predicate), NULL);
			shape->nindexes++;
		}
		index_close(irel, AccessShareLock);
	}
	list_free(oids);
}

/* Remember a table that is open, of the columns of table "id". */
static HfShape *
table_shape(HfTableId id, Relation rel)
{
	Oid			relid = RelationGetRelid(rel);
	ShapeEntry *entry = hash_search(shapes, &relid, HASH_FIND, NULL);
	HfShape    *shape;
	TupleDesc	desc = RelationGetDescr(rel);
	MemoryContext old;
	bool	   *known;
	uint64		before = invalidations;

	if (entry != NULL && !entry->shape->stale && entry->shape->resets == resets)
		return entry->shape;

	refuse_unsupported(rel, get_namespace_oid(HF_SCHEMA, false));
	old = MemoryContextSwitchTo(shape_cxt);
	shape = palloc0(sizeof(HfShape));
	shape->resets = resets;
	shape->cxt = shape_cxt;
	shape->desc = CreateTupleDescCopyConstr(desc);
	shape->econtext = CreateStandaloneExprContext();
	shape->att = palloc0(sizeof(AttrNumber) * tables[id].ncolumns);
	shape->in_order = (desc->natts == tables[id].ncolumns);
	known = palloc0(sizeof(bool) * desc->natts);
	for (int c = 0; c < tables[id].ncolumns; c++)
	{
		for (int i = 0; i < desc->natts && shape->att[c] == 0; i++)
			if (!TupleDescAttr(desc, i)->attisdropped &&
				strcmp(NameStr(TupleDescAttr(desc, i)->attname), tables[id].columns[c]) == 0)
			{
				shape->att[c] = i + 1;
				known[i] = true;
			}
		if (shape->att[c] == 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("reconnect: library and schema differ in version"),
					 errdetail("Column \"%s\" of table \"%s.%s\" does not exist.",
							   tables[id].columns[c], HF_SCHEMA, RelationGetRelationName(rel)),
					 errhint("Run ALTER EXTENSION holdfast UPDATE, then reconnect.")));
		shape->in_order &= (shape->att[c] == c + 1);
	}
	hf_columns_build(shape);
	build_fill(shape, rel, known);
	build_indexes(shape, rel);
	pfree(known);
	MemoryContextSwitchTo(old);

	entry = hash_search(shapes, &relid, HASH_ENTER, NULL);
	entry->shape = shape;

	/*
	 * What came in while it was made, with every lock that was taken for it,
	 * could not mark it stale.  It is good for this transaction, whose lock on
	 * the table whoever drops an index waits for, and not beyond.
	 */
	if (invalidations != before)
		shapes_stale = shape->stale = true;
	return shape;
}

/* A handle for an open relation, good until the call ends. */
static HfTable *
make_table(HfTableId id, Relation rel)
{
	HfShape *shape = table_shape(id, rel);
	HfTable    *table = palloc0(sizeof(HfTable));

	table->id = id;
	table->rel = rel;
	table->att = shape->att;
	table->shape = shape;
	table->indexes = palloc0(sizeof(Relation) * Max(shape->nindexes, 1));
	table->infos = palloc0(sizeof(IndexInfo *) * Max(shape->nindexes, 1));
	table->cxt = CurrentMemoryContext;
	dlist_init(&table->rows);
	return table;
}

/* Open one of our tables for this call; the lock stays until the transaction ends. */
HfTable *
hf_open(HfCall *call, HfTableId id)
{
	if (call->tables[id] == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(call->cxt);
		Oid			relid = hf_table_oid(id);
		Relation	rel = try_relation_open(relid, call->write ? RowExclusiveLock : AccessShareLock);

		if (rel == NULL)		/* dropped, and perhaps created again, since we looked */
		{
			table_oids[id] = InvalidOid;
			rel = table_open(hf_table_oid(id), call->write ? RowExclusiveLock : AccessShareLock);
		}
		call->tables[id] = make_table(id, rel);
		MemoryContextSwitchTo(old);
	}
	return call->tables[id];
}

/* The same for an event partition that the caller has opened. */
HfTable *
hf_open_partition(HfCall *call, Relation rel)
{
	MemoryContext old = MemoryContextSwitchTo(call->cxt);
	HfTable    *table = make_table(HF_EVENT, rel);

	MemoryContextSwitchTo(old);
	return table;
}

void
hf_close(HfTable *table)
{
	dlist_iter	iter;

	/* the pins of what was read; the rows themselves go with the call's memory */
	dlist_foreach(iter, &table->rows)
	{
		HfRow	   *row = dlist_container(HfRow, node, iter.cur);

		if (row->stored != NULL)
			ExecClearTuple(row->stored);
	}
	if (table->lookup != NULL)
		index_endscan(table->lookup);
	for (int i = 0; i < table->shape->nindexes; i++)
	{
		if (table->indexes[i] == NULL)
			continue;
		hf_index_insert_cleanup(table->indexes[i], table->infos[i]);
		index_close(table->indexes[i], NoLock);
	}
	relation_close(table->rel, NoLock);
}

/*
 * Open one index, with an IndexInfo of this call's own: access methods keep
 * pointers in it that do not outlive a statement.
 */
Relation
hf_open_index(HfTable *table, int i)
{
	if (table->indexes[i] == NULL)
	{
		IndexInfo  *info = MemoryContextAlloc(table->cxt, sizeof(IndexInfo));

		*info = *table->shape->indexes[i].info;
		info->ii_AmCache = NULL;
		info->ii_Context = table->cxt;
		info->ii_ExpressionsState = NIL;
		table->infos[i] = info;
		table->indexes[i] = index_open(table->shape->indexes[i].indexid, RowExclusiveLock);
	}
	return table->indexes[i];
}

/*
 * One of our indexes: its name is the table's and a suffix.  It is found
 * through the table's list of indexes, so that REINDEX CONCURRENTLY may put
 * another in its place.
 */
Relation
hf_index(HfTable *table, const char *suffix)
{
	const char *relname = RelationGetRelationName(table->rel);
	size_t		len = strlen(relname);

	for (int i = 0; i < table->shape->nindexes; i++)
	{
		const char *name = NameStr(table->shape->indexes[i].name);

		if (table->shape->indexes[i].usable && strncmp(name, relname, len) == 0 && strcmp(name + len, suffix) == 0)
			return hf_open_index(table, i);
	}
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("an index of table \"%s.%s\" is missing", HF_SCHEMA, RelationGetRelationName(table->rel)),
			 errdetail("No valid index is named \"%s%s\".", relname, suffix),
			 errhint("Make it valid again with REINDEX INDEX, or create it anew as the install script does.")));
}
