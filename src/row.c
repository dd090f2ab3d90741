/*-------------------------------------------------------------------------
 *
 * row.c
 *	  Rows of our tables: made, changed, locked and stored.
 *
 * What the executor does beside the access method is done here: index
 * entries, with the predicates of partial indexes, and the speculative
 * insertion of a row whose key may be there already.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "access/heapam.h"
#include "access/skey.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"

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
	row->next = MakeTupleTableSlot(table->shape->desc, &TTSOpsVirtual);
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

/*
 * Whether another transaction may have locked the stored version, or be
 * storing another: a look at the page, without its lock.  That one may have
 * ended long ago; hf_lock() knows.
 */
bool
hf_may_be_locked(HfRow *row)
{
	return (ExecFetchSlotHeapTuple(row->stored, false, NULL)->t_data->t_infomask & HEAP_XMAX_INVALID) == 0;
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
	row->stored = MakeTupleTableSlot(table->shape->desc, table_slot_callbacks(table->rel));
	row->next = MakeTupleTableSlot(table->shape->desc, &TTSOpsVirtual);
	dlist_push_head(&table->rows, &row->node);
	return row;
}

void
hf_row_free(HfRow *row)
{
	dlist_delete(&row->node);
	if (row->stored != NULL && row->table->spare == NULL)
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

static bool
predicate_holds(HfShape *shape, int i, TupleTableSlot *slot)
{
	bool		holds;

	if (shape->indexes[i].predicate == NULL)
		return true;
	shape->econtext->ecxt_scantuple = slot;
	holds = ExecQual(shape->indexes[i].predicate, shape->econtext);
	ResetExprContext(shape->econtext);
	return holds;
}

/*
 * The entry of one index.  An expression index of the user's needs an executor
 * state; ours do not.
 */
static bool
insert_one_entry(HfTable *table, int i, TupleTableSlot *slot, IndexUniqueCheck check)
{
	Relation	index = hf_open_index(table, i);
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
insert_index_entries(HfTable *table, TupleTableSlot *slot, HfIndexes which, Relation arbiter)
{
	bool		unique_ok = true;

	for (int i = 0; i < table->shape->nindexes; i++)
	{
		HfIndexShape *shape = &table->shape->indexes[i];
		bool		arbitrates = arbiter != NULL && shape->info->ii_Unique &&
			shape->info->ii_IndexAttrNumbers[0] == arbiter->rd_index->indkey.values[0];

		if (which == HF_SUMMARIZING_INDEXES && !hf_index_summarizes(shape->info))
			continue;
		if (predicate_holds(table->shape, i, slot) &&
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

/*
 * The row to be stored, as the table's access method takes it without a copy:
 * in a slot that owns it, until forget_formed().
 */
static TupleTableSlot *
formed(HfRow *row)
{
	HfTable    *table = row->table;
	MemoryContext old = MemoryContextSwitchTo(table->cxt);

	if (table->formed == NULL)
		table->formed = MakeTupleTableSlot(table->shape->desc, &TTSOpsHeapTuple);
	ExecStoreHeapTuple(hf_form_tuple(table->shape, row->next->tts_values, row->next->tts_isnull), table->formed, true);
	table->formed->tts_tableOid = RelationGetRelid(table->rel);
	MemoryContextSwitchTo(old);
	return table->formed;
}

/* It has been stored, or not: the row is told where. */
static void
forget_formed(HfRow *row)
{
	row->next->tts_tid = row->table->formed->tts_tid;
	ExecClearTuple(row->table->formed);
}

void
hf_insert(HfCall *call, HfRow *row)
{
	store_next(row);
	table_tuple_insert(row->table->rel, formed(row), hf_command_id(call), 0, NULL);
	forget_formed(row);
	insert_index_entries(row->table, row->next, HF_ALL_INDEXES, NULL);
}

/* The row as hf_multi_insert() takes it. */
HeapTuple
hf_row_tuple(HfRow *row)
{
	return hf_form_tuple(row->table->shape, row->next->tts_values, row->next->tts_isnull);
}

/* HF_AT_ONCE slots of a table, kept from call to call: to make and drop one for each row costs as much as forming the row. */
static TupleTableSlot **
bulk_slots(HfTable *table)
{
	HfShape *shape = table->shape;

	/* a call inside a call must not take the slots that the outer one is using */
	if (shape->slots == NULL || hf_call_depth() > 1)
	{
		MemoryContext old = MemoryContextSwitchTo(hf_call_depth() > 1 ? table->cxt : shape->cxt);
		TupleTableSlot **slots = palloc(sizeof(TupleTableSlot *) * HF_AT_ONCE);

		for (int i = 0; i < HF_AT_ONCE; i++)
			slots[i] = MakeTupleTableSlot(shape->desc, &TTSOpsHeapTuple);
		MemoryContextSwitchTo(old);
		if (hf_call_depth() > 1)
			return slots;
		shape->slots = slots;
	}
	return shape->slots;
}

/* The slot owns the tuple.  One that an error left full has nothing to free: its tuple went with the memory of the call that failed. */
static void
store_owned(TupleTableSlot *slot, HeapTuple tuple)
{
	slot->tts_flags &= ~TTS_FLAG_SHOULDFREE;
	ExecStoreHeapTuple(tuple, slot, true);
}

/* Several new rows of one table, at most HF_AT_ONCE, in one WAL record per page.  The tuples are gone afterwards. */
void
hf_multi_insert(HfCall *call, HfTable *table, HeapTuple *tuples, int n)
{
	TupleTableSlot **slots = bulk_slots(table);

	for (int i = 0; i < n; i++)
	{
		store_owned(slots[i], tuples[i]);
		slots[i]->tts_tableOid = RelationGetRelid(table->rel);
	}
	if (n == 1)
		table_tuple_insert(table->rel, slots[0], hf_command_id(call), 0, NULL);
	else
		table_multi_insert(table->rel, slots, n, hf_command_id(call), 0, NULL);
	for (int i = 0; i < n; i++)
	{
		insert_index_entries(table, slots[i], HF_ALL_INDEXES, NULL);
		ExecClearTuple(slots[i]);
	}
}

static TM_Result
try_update(HfCall *call, HfRow *row, bool wait)
{
	TM_FailureData tmfd;
	LockTupleMode lockmode;
	TM_Result	result;
	HfIndexes	indexes;

	store_next(row);
	result = hf_table_tuple_update(row->table->rel, &row->stored->tts_tid, formed(row), hf_command_id(call),
								   SnapshotAny, wait, &tmfd, &lockmode, &indexes);
	forget_formed(row);
	if (result != TM_Ok)
		return result;
	if (row->table->id == HF_JOB)
		hf_note_job_place(row);
	if (indexes != HF_NO_INDEXES)
		insert_index_entries(row->table, row->next, indexes, NULL);
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

	IndexScanDesc scan = hf_lookup_scan(probe->table, index);
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
		{
			xwait = TransactionIdIsValid(dirty->xmin) ? dirty->xmin : dirty->xmax;
			index_rescan(scan, &skey, 1, NULL, 0);	/* gives its pins back; a scan that came to its end has none */
		}
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
		TupleTableSlot *slot;
		uint32		token;
		bool		ok;

		CHECK_FOR_INTERRUPTS();
		if (key_conflict(probe, index, key, NULL, true))
			return false;
		if (before != NULL)
			before(row);		/* after any wait */

		token = SpeculativeInsertionLockAcquire(GetCurrentTransactionId());
		slot = formed(row);
		table_tuple_insert_speculative(row->table->rel, slot, hf_command_id(call), 0, NULL, token);
		row->next->tts_tid = slot->tts_tid;
		ok = insert_index_entries(row->table, row->next, HF_ALL_INDEXES, index) ||
			!key_conflict(probe, index, key, &row->next->tts_tid, false);
		table_tuple_complete_speculative(row->table->rel, slot, token, ok);
		forget_formed(row);
		SpeculativeInsertionLockRelease(GetCurrentTransactionId());
		if (ok)
			return true;
	}
}
