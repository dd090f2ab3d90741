/*-------------------------------------------------------------------------
 *
 * find.c
 *	  Rows of our tables, found by a key or where they were stored.
 *
 * Lookups use a dirty snapshot, which shows the newest committed version and
 * takes no serializable read locks: leases order settlers, not the isolation
 * level.  A row that moved between reading the index page and the heap can be
 * missed by it, so a lookup that finds nothing asks again with a snapshot of
 * this moment before it believes it.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "access/heapam.h"
#include "access/skey.h"
#include "storage/bufmgr.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

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
IndexScanDesc
hf_lookup_scan(HfTable *table, Relation index)
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
	IndexScanDesc scan = hf_lookup_scan(table, index);
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

void
hf_note_job_place(const HfRow *row)
{
	int64		job_id = hf_int64(row, JOB_ID);
	int			i = (uint64) job_id % lengthof(job_places);

	job_places[i].job_id = job_id;
	job_places[i].place = row->next->tts_tid;
}

/* A table can have been cut short since a place was noted. */
bool
hf_may_lie_at(HfTable *table, ItemPointer place)
{
	if (table->nblocks == 0)
		table->nblocks = RelationGetNumberOfBlocks(table->rel);
	return ItemPointerIsValid(place) && ItemPointerGetBlockNumber(place) < table->nblocks;
}

/* The newest version of a row, if it lies at this place: which row that is, the caller checks.  It is not loaded. */
static bool
fetch_at(HfRow *row, ItemPointer place)
{
	SnapshotData dirty;

	InitDirtySnapshot(dirty);
	return table_tuple_fetch_row_version(row->table->rel, place, &dirty, row->stored) && !TransactionIdIsValid(dirty.xmin);
}

/* The row with this job_id (of job or dead_job), not locked. */
bool
hf_find_job(HfRow *row, int64 job_id)
{
	if (row->table->id == HF_JOB)
	{
		int			i = (uint64) job_id % lengthof(job_places);

		if (job_places[i].job_id == job_id && hf_may_lie_at(row->table, &job_places[i].place) &&
			fetch_at(row, &job_places[i].place))
		{
			hf_row_load(row);
			if (hf_int64(row, JOB_ID) == job_id)
				return true;
		}
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
 * short: then it looks again, since pruning moves rows.
 */
bool
hf_find_key_at(HfRow *row, const pg_uuid_t *key, int key_column, ItemPointer place)
{
	Buffer		buffer;
	bool		found;

	if (!hf_may_lie_at(row->table, place) || !fetch_at(row, place))
		return false;
	buffer = ((BufferHeapTupleTableSlot *) row->stored)->buffer;
	if (PageGetHeapFreeSpace(BufferGetPage(buffer)) < BLCKSZ / 10)
	{
		IncrBufferRefCount(buffer);
		ExecClearTuple(row->stored);
		heap_page_prune_opt(row->table->rel, buffer);
		found = fetch_at(row, place);
		ReleaseBuffer(buffer);
		if (!found)
			return false;
	}
	hf_row_load(row);
	return memcmp(hf_uuid(row, key_column), key, UUID_LEN) == 0;
}
