/*-------------------------------------------------------------------------
 *
 * table.c
 *	  Our tables, through the access methods.
 *
 * A backend remembers, for each of our tables, which attribute number a
 * column has, what an insert puts into columns that the library does not
 * know, and the predicates of the indexes.  All of it hangs on relcache
 * callbacks: a callback only marks it stale, and the next outermost call
 * builds it anew, so that nothing is freed while a call uses it.
 *
 * Lookups use a dirty snapshot, which shows the newest committed version and
 * takes no serializable read locks: leases order settlers, not the isolation
 * level.  A row that moved between reading the index page and the heap can be
 * missed by it, so a lookup that finds nothing asks again with a snapshot of
 * this moment before it believes it.
 *
 * What differs between major versions of the server is in this file.
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

/* What a backend remembers of one index. */
typedef struct IndexShape
{
	Oid			indexid;
	NameData	name;
	bool		usable;			/* for scans: valid, not only ready */
	IndexInfo  *info;
	ExprState  *predicate;
} IndexShape;

/* What a backend remembers of one table or event partition. */
typedef struct TableShape
{
	bool		stale;			/* an invalidation came in since it was built */
	uint64		resets;			/* how often everything had been invalidated by then */
	AttrNumber *att;			/* column enum -> attribute number */
	Datum	   *fill;			/* by attribute: what an insert puts there */
	bool	   *fill_null;
	bool		behind;			/* an unknown column has a default that only SQL can make */
	int			nindexes;
	IndexShape *indexes;
	TupleTableSlot **slots;		/* for rows that are inserted in bulk, made when first asked for */
} TableShape;

/* A shape is never overwritten, since handles of this call may use it. */
typedef struct ShapeEntry
{
	Oid			relid;			/* hash key */
	TableShape *shape;
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
static ExprContext *predicate_econtext = NULL;

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
	predicate_econtext = NULL;
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

	while (strcmp(sequences[i], name) != 0)
		i++;
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
build_fill(TableShape *shape, Relation rel, const bool *known)
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
build_indexes(TableShape *shape, Relation rel)
{
	List	   *oids = RelationGetIndexList(rel);
	ListCell   *lc;

	shape->indexes = palloc0(sizeof(IndexShape) * Max(list_length(oids), 1));
	foreach(lc, oids)
	{
		Relation	irel = index_open(lfirst_oid(lc), AccessShareLock);
		IndexShape *index = &shape->indexes[shape->nindexes];

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
static TableShape *
table_shape(HfTableId id, Relation rel)
{
	Oid			relid = RelationGetRelid(rel);
	ShapeEntry *entry = hash_search(shapes, &relid, HASH_FIND, NULL);
	TableShape *shape;
	TupleDesc	desc = RelationGetDescr(rel);
	MemoryContext old;
	bool	   *known;

	if (entry != NULL && !entry->shape->stale && entry->shape->resets == resets)
		return entry->shape;

	refuse_unsupported(rel, get_namespace_oid(HF_SCHEMA, false));
	old = MemoryContextSwitchTo(shape_cxt);
	shape = palloc0(sizeof(TableShape));
	shape->resets = resets;
	if (predicate_econtext == NULL)
		predicate_econtext = CreateStandaloneExprContext();
	shape->att = palloc0(sizeof(AttrNumber) * tables[id].ncolumns);
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
	}
	build_fill(shape, rel, known);
	build_indexes(shape, rel);
	pfree(known);
	MemoryContextSwitchTo(old);

	entry = hash_search(shapes, &relid, HASH_ENTER, NULL);
	entry->shape = shape;
	return shape;
}

/* A handle for an open relation, good until the call ends. */
static HfTable *
make_table(HfTableId id, Relation rel)
{
	TableShape *shape = table_shape(id, rel);
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
	table->closing = true;
	if (table->spare != NULL)
	{
		dlist_push_head(&table->rows, &table->spare->node);
		table->spare = NULL;
	}
	while (!dlist_is_empty(&table->rows))
		hf_row_free(dlist_head_element(HfRow, node, &table->rows));
	if (table->lookup != NULL)
		index_endscan(table->lookup);
	for (int i = 0; i < table->shape->nindexes; i++)
	{
		if (table->indexes[i] == NULL)
			continue;
#if PG_VERSION_NUM >= 170000
		index_insert_cleanup(table->indexes[i], table->infos[i]);	/* BRIN keeps pins in its IndexInfo */
#endif
		index_close(table->indexes[i], NoLock);
	}
	relation_close(table->rel, NoLock);
}

/*
 * Open one index, with an IndexInfo of this call's own: access methods keep
 * pointers in it that do not outlive a statement.
 */
static Relation
open_index(HfTable *table, int i)
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
			return open_index(table, i);
	}
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("an index of table \"%s.%s\" is missing", HF_SCHEMA, RelationGetRelationName(table->rel)),
			 errdetail("No valid index is named \"%s%s\".", relname, suffix),
			 errhint("Make it valid again with REINDEX INDEX, or create it anew as the install script does.")));
}

/* ---------------------------------------------------------------- rows */

/* What an insert begins with: every column null, unknown ones at their default. */
void
hf_table_fill(HfTable *table, Datum *values, bool *nulls)
{
	int			natts = RelationGetDescr(table->rel)->natts;

	if (table->shape->behind)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("reconnect: library older than schema"),
				 errdetail("Table \"%s.%s\" has a column whose default this library cannot make.",
						   HF_SCHEMA, RelationGetRelationName(table->rel)),
				 errhint("Reconnect, to load the library of the installed version; or give the column a constant default.")));
	memcpy(values, table->shape->fill, sizeof(Datum) * natts);
	memcpy(nulls, table->shape->fill_null, sizeof(bool) * natts);
}

/* A row to insert. */
HfRow *
hf_row_new(HfTable *table)
{
	HfRow	   *row = palloc0(sizeof(HfRow));

	row->table = table;
	row->next = MakeSingleTupleTableSlot(RelationGetDescr(table->rel), &TTSOpsVirtual);
	dlist_push_head(&table->rows, &row->node);
	hf_table_fill(table, row->next->tts_values, row->next->tts_isnull);
	return row;
}

/* The stored version in "row->stored" becomes what is read and changed. */
void
hf_row_load(HfRow *row)
{
	slot_getallattrs(row->stored);
	memcpy(row->next->tts_values, row->stored->tts_values, sizeof(Datum) * row->stored->tts_nvalid);
	memcpy(row->next->tts_isnull, row->stored->tts_isnull, sizeof(bool) * row->stored->tts_nvalid);
}

/* A row with room for a stored version. */
HfRow *
hf_row_for(HfTable *table)
{
	HfRow	   *row = table->spare;

	if (row != NULL)
	{
		table->spare = NULL;
		dlist_push_head(&table->rows, &row->node);
		return row;
	}
	row = MemoryContextAllocZero(table->cxt, sizeof(HfRow));
	row->table = table;
	row->stored = table_slot_create(table->rel, NULL);
	row->next = MakeSingleTupleTableSlot(RelationGetDescr(table->rel), &TTSOpsVirtual);
	dlist_push_head(&table->rows, &row->node);
	return row;
}

void
hf_row_free(HfRow *row)
{
	dlist_delete(&row->node);
	if (row->stored != NULL && row->table->spare == NULL && !row->table->closing)
	{
		ExecClearTuple(row->stored);
		ExecClearTuple(row->next);
		row->table->spare = row;
		return;
	}
	if (row->stored != NULL)
		ExecDropSingleTupleTableSlot(row->stored);
	ExecDropSingleTupleTableSlot(row->next);
	pfree(row);
}

/* Columns that two tables have under one enum, from one row to another. */
void
hf_row_copy(HfRow *to, const HfRow *from, int ncolumns)
{
	for (int c = 0; c < ncolumns; c++)
	{
		to->next->tts_values[HF_ATT(to, c)] = from->next->tts_values[HF_ATT(from, c)];
		to->next->tts_isnull[HF_ATT(to, c)] = from->next->tts_isnull[HF_ATT(from, c)];
	}
}

/* ---------------------------------------------------------------- writing */

typedef enum WhichIndexes
{
	ALL_INDEXES, SUMMARIZING_INDEXES
} WhichIndexes;

static bool
predicate_holds(IndexShape *shape, TupleTableSlot *slot)
{
	bool		holds;

	if (shape->predicate == NULL)
		return true;
	predicate_econtext->ecxt_scantuple = slot;
	holds = ExecQual(shape->predicate, predicate_econtext);
	ResetExprContext(predicate_econtext);
	return holds;
}

/*
 * The entry of one index.  An expression index of the user's needs an executor
 * state; ours do not.
 */
static bool
insert_one_entry(HfTable *table, int i, TupleTableSlot *slot, IndexUniqueCheck check)
{
	Relation	index = open_index(table, i);
	IndexInfo  *info = table->infos[i];
	Datum		values[INDEX_MAX_KEYS];
	bool		isnull[INDEX_MAX_KEYS];
	EState	   *estate = NULL;
	bool		ok;

	if (info->ii_Expressions != NIL)
	{
		estate = CreateExecutorState();
		GetPerTupleExprContext(estate)->ecxt_scantuple = slot;
		info->ii_ExpressionsState = NIL;
	}
	FormIndexDatum(info, slot, estate, values, isnull);
	ok = index_insert(index, values, isnull, &slot->tts_tid, table->rel,
					  index->rd_index->indisunique ? check : UNIQUE_CHECK_NO, false, info);
	if (estate != NULL)
	{
		info->ii_ExpressionsState = NIL;
		FreeExecutorState(estate);
	}
	return ok;
}

/*
 * The entries of a new version.  With an arbiter, its conflicts (and those of
 * a copy of it that REINDEX CONCURRENTLY is making) are answered, by false,
 * rather than raised.
 */
static bool
insert_index_entries(HfTable *table, TupleTableSlot *slot, WhichIndexes which, Relation arbiter)
{
	bool		unique_ok = true;

	for (int i = 0; i < table->shape->nindexes; i++)
	{
		IndexShape *shape = &table->shape->indexes[i];
		bool		arbitrates = arbiter != NULL && shape->info->ii_Unique &&
			shape->info->ii_IndexAttrNumbers[0] == arbiter->rd_index->indkey.values[0];

#if PG_VERSION_NUM >= 160000
		if (which == SUMMARIZING_INDEXES && !shape->info->ii_Summarizing)
			continue;
#endif
		if (predicate_holds(shape, slot) &&
			!insert_one_entry(table, i, slot, arbitrates ? UNIQUE_CHECK_PARTIAL : UNIQUE_CHECK_YES))
			unique_ok = false;
	}
	return unique_ok;
}

static void
store_next(HfRow *row)
{
	if (TTS_EMPTY(row->next))
		ExecStoreVirtualTuple(row->next);
	row->next->tts_tableOid = RelationGetRelid(row->table->rel);
}

void
hf_insert(HfCall *call, HfRow *row)
{
	store_next(row);
	table_tuple_insert(row->table->rel, row->next, hf_command_id(call), 0, NULL);
	insert_index_entries(row->table, row->next, ALL_INDEXES, NULL);
}

/* The row as hf_multi_insert() takes it. */
HeapTuple
hf_row_tuple(HfRow *row)
{
	return heap_form_tuple(RelationGetDescr(row->table->rel), row->next->tts_values, row->next->tts_isnull);
}

/*
 * HF_AT_ONCE slots of a table, kept from call to call: to make and drop one for
 * each row costs as much as forming the row.  Their descriptor is a copy that
 * is not counted, so that an error leaves nothing behind.
 */
static TupleTableSlot **
bulk_slots(HfTable *table)
{
	TableShape *shape = table->shape;

	/* a call inside a call must not take the slots that the outer one is using */
	if (shape->slots == NULL || hf_call_depth() > 1)
	{
		MemoryContext old = MemoryContextSwitchTo(hf_call_depth() > 1 ? table->cxt : shape_cxt);
		TupleDesc	desc = CreateTupleDescCopyConstr(RelationGetDescr(table->rel));
		TupleTableSlot **slots = palloc(sizeof(TupleTableSlot *) * HF_AT_ONCE);

		for (int i = 0; i < HF_AT_ONCE; i++)
			slots[i] = MakeTupleTableSlot(desc, &TTSOpsHeapTuple);
		MemoryContextSwitchTo(old);
		if (hf_call_depth() > 1)
			return slots;
		shape->slots = slots;
	}
	return shape->slots;
}

/* Several new rows of one table, at most HF_AT_ONCE, in one WAL record per page. */
void
hf_multi_insert(HfCall *call, HfTable *table, HeapTuple *tuples, int n)
{
	TupleTableSlot **slots = bulk_slots(table);

	for (int i = 0; i < n; i++)
	{
		ExecStoreHeapTuple(tuples[i], slots[i], false);
		slots[i]->tts_tableOid = RelationGetRelid(table->rel);
	}
	if (n == 1)
		table_tuple_insert(table->rel, slots[0], hf_command_id(call), 0, NULL);
	else
		table_multi_insert(table->rel, slots, n, hf_command_id(call), 0, NULL);
	for (int i = 0; i < n; i++)
	{
		insert_index_entries(table, slots[i], ALL_INDEXES, NULL);
		ExecClearTuple(slots[i]);
	}
}

/*
 * Where this backend last stored a job: whoever claims a job mostly settles it
 * too, and need not descend an index for it.  A hint, checked before it is
 * believed.
 */
static struct
{
	int64		job_id;
	ItemPointerData place;
}			job_places[1024];

static void
note_job_place(const HfRow *row)
{
	int64		job_id = hf_int64(row, JOB_ID);
	int			i = (uint64) job_id % lengthof(job_places);

	job_places[i].job_id = job_id;
	job_places[i].place = row->next->tts_tid;
}

static TM_Result
try_update(HfCall *call, HfRow *row, bool wait)
{
	TM_FailureData tmfd;
	LockTupleMode lockmode;
	TM_Result	result;
#if PG_VERSION_NUM >= 160000
	TU_UpdateIndexes update_indexes;
#else
	bool		update_indexes;
#endif

	store_next(row);
	result = table_tuple_update(row->table->rel, &row->stored->tts_tid, row->next, hf_command_id(call),
								SnapshotAny, InvalidSnapshot, wait, &tmfd, &lockmode, &update_indexes);
	if (result != TM_Ok)
		return result;
	if (row->table->id == HF_JOB)
		note_job_place(row);
#if PG_VERSION_NUM >= 160000
	if (update_indexes != TU_None)
		insert_index_entries(row->table, row->next,
							 update_indexes == TU_All ? ALL_INDEXES : SUMMARIZING_INDEXES, NULL);
#else
	if (update_indexes)
		insert_index_entries(row->table, row->next, ALL_INDEXES, NULL);
#endif
	return TM_Ok;
}

/*
 * Replace the stored version, which the caller has locked (or may wait for).
 * false: another transaction changed it first, read it again.
 */
bool
hf_update(HfCall *call, HfRow *row)
{
	TM_Result	result = try_update(call, row, true);

	if (result == TM_Updated || result == TM_Deleted)
		return false;
	if (result != TM_Ok)
		elog(ERROR, "unexpected result %d of an update of \"%s\"", result, RelationGetRelationName(row->table->rel));
	return true;
}

/*
 * Replace the stored version as it was loaded, or write nothing: false where
 * another transaction has it locked or has changed it.  Mostly one WAL record,
 * where a lock first would make two.  A lock of this transaction's own, which
 * an update that may not wait takes for another's, is sorted out by taking it
 * again; so is everything in a server with assertions, one of which says that
 * an update may wait.
 */
bool
hf_update_skip(HfCall *call, HfRow *row)
{
#ifndef USE_ASSERT_CHECKING
	if (try_update(call, row, false) == TM_Ok)
		return true;
#endif
	return hf_lock(call, row, true) == HF_LOCKED && hf_update(call, row);
}

/* Delete the stored version; false as for hf_update. */
bool
hf_delete(HfCall *call, HfRow *row)
{
	TM_FailureData tmfd;
	TM_Result	result = table_tuple_delete(row->table->rel, &row->stored->tts_tid, hf_command_id(call),
											SnapshotAny, InvalidSnapshot, true, &tmfd, false);

	if (result == TM_Updated || result == TM_Deleted)
		return false;
	if (result != TM_Ok)
		elog(ERROR, "unexpected result %d of a delete from \"%s\"", result, RelationGetRelationName(row->table->rel));
	return true;
}

/* The same where the caller holds the row's lock, so that nobody can have changed it. */
void
hf_update_locked(HfCall *call, HfRow *row)
{
	if (!hf_update(call, row))
		elog(ERROR, "a locked row of \"%s\" was changed by another transaction", RelationGetRelationName(row->table->rel));
}

void
hf_delete_locked(HfCall *call, HfRow *row)
{
	if (!hf_delete(call, row))
		elog(ERROR, "a locked row of \"%s\" was changed by another transaction", RelationGetRelationName(row->table->rel));
}

/*
 * Lock the stored version, following to the newest if the caller may wait,
 * and load it.  HF_GONE: deleted; HF_BUSY: locked or changed by another
 * transaction, with skip only.  With skip it is the version that the caller
 * has loaded, or none, and what was loaded stands: the slot's pin kept it.
 */
HfLock
hf_lock(HfCall *call, HfRow *row, bool skip)
{
	TM_FailureData tmfd;
	ItemPointerData tid = row->stored->tts_tid;
	TM_Result	result;

	result = table_tuple_lock(row->table->rel, &tid, SnapshotAny, row->stored, hf_command_id(call),
							  LockTupleNoKeyExclusive, skip ? LockWaitSkip : LockWaitBlock,
							  skip ? 0 : TUPLE_LOCK_FLAG_FIND_LAST_VERSION, &tmfd);
	if (result == TM_Ok)
	{
		if (!skip)
			hf_row_load(row);
		return HF_LOCKED;
	}
	if (result == TM_Deleted)
		return HF_GONE;
	return HF_BUSY;
}

/* ---------------------------------------------------------------- reading */

IndexScanDesc
hf_index_beginscan_bitmap(Relation index, Snapshot snapshot, int nkeys)
{
#if PG_VERSION_NUM >= 180000
	return index_beginscan_bitmap(index, snapshot, NULL, nkeys);
#else
	return index_beginscan_bitmap(index, snapshot, nkeys);
#endif
}

IndexScanDesc
hf_index_beginscan(Relation heap, Relation index, Snapshot snapshot, int nkeys)
{
#if PG_VERSION_NUM >= 180000
	return index_beginscan(heap, index, snapshot, NULL, nkeys, 0);
#else
	return index_beginscan(heap, index, snapshot, nkeys, 0);
#endif
}

/*
 * Find a row by an equality on the first column of one of our indexes, into
 * row->stored, and load it.
 */
static bool
find_with(HfRow *row, Relation index, RegProcedure equal, Datum value, Snapshot snapshot)
{
	ScanKeyData key;
	IndexScanDesc scan;
	bool		found;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, equal, value);
	scan = hf_index_beginscan(row->table->rel, index, snapshot, 1);
	index_rescan(scan, &key, 1, NULL, 0);
	found = index_getnext_slot(scan, ForwardScanDirection, row->stored);
	index_endscan(scan);
	if (found)
		hf_row_load(row);
	return found;
}

/*
 * The scan, with a dirty snapshot, that the table keeps for the lookups of the
 * call: a scan's workspace is too large to make it each time.
 */
static IndexScanDesc
lookup_scan(HfTable *table, Relation index)
{
	if (table->lookup != NULL && table->lookup->indexRelation != index)
	{
		index_endscan(table->lookup);
		table->lookup = NULL;
	}
	if (table->lookup == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(GetMemoryChunkContext(table));

		InitDirtySnapshot(table->dirty);
		table->lookup = hf_index_beginscan(table->rel, index, &table->dirty, 1);
		MemoryContextSwitchTo(old);
	}
	return table->lookup;
}

static bool
find_dirty(HfRow *row, Relation index, RegProcedure equal, Datum value, bool *met_any)
{
	HfTable    *table = row->table;
	IndexScanDesc scan = lookup_scan(table, index);
	ScanKeyData key;
	bool		found;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, equal, value);
	index_rescan(scan, &key, 1, NULL, 0);
	found = *met_any = false;
	while (!found && index_getnext_tid(scan, ForwardScanDirection) != NULL)
	{
		*met_any = true;
		found = index_fetch_heap(scan, row->stored) && !TransactionIdIsValid(table->dirty.xmin);
	}
	index_rescan(scan, &key, 1, NULL, 0);	/* gives its pins back */
	if (found)
		hf_row_load(row);
	return found;
}

static bool
find(HfRow *row, Relation index, RegProcedure equal, Datum value)
{
	Snapshot	latest;
	bool		found;
	bool		met_any;

	if (find_dirty(row, index, equal, value, &met_any))
		return true;
	if (!met_any)
		return false;			/* no entry, so no row that could have moved */
	latest = RegisterSnapshot(GetLatestSnapshot());
	found = find_with(row, index, equal, value, latest);
	UnregisterSnapshot(latest);
	return found;
}

/* A table can have been cut short since a place was noted. */
bool
hf_may_lie_at(HfTable *table, ItemPointer place)
{
	if (table->nblocks == 0)
		table->nblocks = RelationGetNumberOfBlocks(table->rel);
	return ItemPointerIsValid(place) && ItemPointerGetBlockNumber(place) < table->nblocks;
}

/* The newest version of a row, if it lies at this place: which row that is, the caller checks. */
static bool
fetch_at(HfRow *row, ItemPointer place)
{
	SnapshotData dirty;

	InitDirtySnapshot(dirty);
	if (!table_tuple_fetch_row_version(row->table->rel, place, &dirty, row->stored) || TransactionIdIsValid(dirty.xmin))
		return false;
	hf_row_load(row);
	return true;
}

/* The row with this job_id (of job or dead_job), not locked. */
bool
hf_find_job(HfRow *row, int64 job_id)
{
	if (row->table->id == HF_JOB)
	{
		int			i = (uint64) job_id % lengthof(job_places);

		if (job_places[i].job_id == job_id && hf_may_lie_at(row->table, &job_places[i].place) &&
			fetch_at(row, &job_places[i].place) && hf_int64(row, JOB_ID) == job_id)
			return true;
	}
	return find(row, hf_index(row->table, "_pkey"), F_INT8EQ, Int64GetDatum(job_id));
}

/* The row with this key (of ledger or unknown_effect), not locked. */
bool
hf_find_key(HfRow *row, const pg_uuid_t *key)
{
	return find(row, hf_index(row->table, "_pkey"), F_UUID_EQ, UUIDPGetDatum(key));
}

/* The row of table queue, not locked. */
bool
hf_find_queue(HfRow *row, int32 queue_id)
{
	return find(row, hf_index(row->table, "_pkey"), F_INT4EQ, Int32GetDatum(queue_id));
}

/* The live job without side effects that has this key, not locked. */
bool
hf_find_live_key(HfRow *row, const pg_uuid_t *key)
{
	return find(row, hf_index(row->table, "_live_key"), F_UUID_EQ, UUIDPGetDatum(key));
}

/*
 * The row of a key where it was last known to lie.  An index scan prunes the
 * pages that it visits, which keeps updates HOT; so does this, where room is
 * short, before it looks at the row, which pruning may move.
 */
bool
hf_find_key_at(HfRow *row, const pg_uuid_t *key, int key_column, ItemPointer place)
{
	Buffer		buffer;
	bool		found;

	if (!hf_may_lie_at(row->table, place))
		return false;
	buffer = ReadBuffer(row->table->rel, ItemPointerGetBlockNumber(place));
	if (PageGetHeapFreeSpace(BufferGetPage(buffer)) < BLCKSZ / 10)
		heap_page_prune_opt(row->table->rel, buffer);
	found = fetch_at(row, place) && memcmp(hf_uuid(row, key_column), key, UUID_LEN) == 0;
	ReleaseBuffer(buffer);
	return found;
}

/* ---------------------------------------------------------------- unique insertion */

/*
 * Look for a row with this key, seen by a dirty snapshot.  With "wait", wait
 * for whoever inserts or deletes one, and look again.
 */
static bool
key_conflict(HfRow *probe, Relation index, const pg_uuid_t *key, ItemPointer self, bool wait)
{
	/* A ledger row stays whatever is being done to it; a job may be on its way out. */
	bool		may_go = (probe->table->id == HF_JOB);

	IndexScanDesc scan = lookup_scan(probe->table, index);
	SnapshotData *dirty = &probe->table->dirty;
	ScanKeyData skey;

	ScanKeyInit(&skey, 1, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(key));
	for (;;)
	{
		TransactionId xwait = InvalidTransactionId;
		bool		found = false;

		index_rescan(scan, &skey, 1, NULL, 0);
		while (!found && index_getnext_slot(scan, ForwardScanDirection, probe->stored))
			found = (self == NULL || !ItemPointerEquals(self, &probe->stored->tts_tid));
		if (found)
			xwait = TransactionIdIsValid(dirty->xmin) ? dirty->xmin : dirty->xmax;
		index_rescan(scan, &skey, 1, NULL, 0);	/* gives its pins back */
		if (!found || !TransactionIdIsValid(xwait))
			return found;
		if (!wait)
		{
			/* two speculative inserters: the one with the younger xid gives way */
			if (dirty->speculativeToken == 0 || !TransactionIdPrecedes(GetCurrentTransactionId(), xwait))
				return true;
		}
		if (dirty->speculativeToken != 0)
			SpeculativeInsertionWait(dirty->xmin, dirty->speculativeToken);
		else if (TransactionIdIsValid(dirty->xmin) || may_go)
			XactLockTableWait(xwait, probe->table->rel, &probe->stored->tts_tid, XLTW_InsertIndex);
		else
			return true;		/* being changed: it is there, and its newest version is read later */
	}
}

/*
 * Whether a row with this key is there or being entered by a transaction that
 * commits: waits for it.
 */
bool
hf_key_taken(HfRow *probe, const char *index_suffix, const pg_uuid_t *key)
{
	return key_conflict(probe, hf_index(probe->table, index_suffix), key, NULL, true);
}

/*
 * Insert a row whose key may be there already, as INSERT ... ON CONFLICT does:
 * entered speculatively, so that two inserters of one key neither fail nor
 * wait for each other in a circle.  "before" is called before each try, after
 * any wait.  false: the key is there; "probe" holds the version found, as of
 * some moment, and it is to be read again.
 */
bool
hf_insert_unique(HfCall *call, HfRow *row, const char *index_suffix, const pg_uuid_t *key, HfRow *probe,
				 void (*before) (HfRow *row))
{
	Relation	index = hf_index(row->table, index_suffix);

	store_next(row);
	for (;;)
	{
		uint32		token;
		bool		ok;

		CHECK_FOR_INTERRUPTS();
		if (key_conflict(probe, index, key, NULL, true))
			return false;
		if (before != NULL)
			before(row);		/* after any wait */

		token = SpeculativeInsertionLockAcquire(GetCurrentTransactionId());
		table_tuple_insert_speculative(row->table->rel, row->next, hf_command_id(call), 0, NULL, token);
		ok = insert_index_entries(row->table, row->next, ALL_INDEXES, index) ||
			!key_conflict(probe, index, key, &row->next->tts_tid, false);
		table_tuple_complete_speculative(row->table->rel, row->next, token, ok);
		SpeculativeInsertionLockRelease(GetCurrentTransactionId());
		if (ok)
			return true;
	}
}
