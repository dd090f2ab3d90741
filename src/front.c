/*-------------------------------------------------------------------------
 *
 * front.c
 *	  The hint that a new backend begins with.
 *
 * A backend's first claim would walk all entries of finished jobs that an old
 * snapshot keeps in the dispatch index: two million of them take seconds.  A
 * claim that has walked far therefore leaves its hint, with all that belongs
 * to it, in table claim_front, and a backend that has none takes that one.
 *
 * A front is as good as a hint that a backend has kept for itself for as long,
 * and is checked as one is (hint.c).  It is written in the transaction of the
 * claim, and so is gone if that rolls back; nobody waits for its row, and there
 * may be several for one priority.  The table is unlogged: after a crash, on a
 * promoted standby and in a restored database there is no front, and the first
 * claim walks.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "access/stratnum.h"
#include "access/xlog.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"

static bool
is_front_of(const HfRow *row, const HfSlot *slot)
{
	return hf_bool(row, FRONT_RECONCILE) == slot->reconcile && hf_int32(row, FRONT_PRIORITY) == slot->priority;
}

/*
 * Find the greatest front of the slot's queue, mode and priority, into row.
 * Another transaction's, not committed, is none yet.
 */
static bool
find_front(HfRow *row, const HfSlot *slot)
{
	HfTable    *table = row->table;
	HfRow	   *seen = hf_row_for(table);
	SnapshotData dirty;
	IndexScanDesc scan;
	ScanKeyData key;
	bool		found = false;

	InitDirtySnapshot(dirty);
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(slot->queue_id));
	scan = hf_index_beginscan(table->rel, hf_index(table, "_queue"), &dirty, 1);
	index_rescan(scan, &key, 1, NULL, 0);
	while (index_getnext_slot(scan, ForwardScanDirection, seen->stored))
	{
		if (TransactionIdIsValid(dirty.xmin))
			continue;
		hf_row_load(seen);
		if (!is_front_of(seen, slot) || (found && hf_time(seen, FRONT_RUN_AFTER) <= hf_time(row, FRONT_RUN_AFTER)))
			continue;
		ExecCopySlot(row->stored, seen->stored);
		hf_row_load(row);
		found = true;
	}
	index_endscan(scan);
	hf_row_free(seen);
	return found;
}

/* Begin a slot that is new to this backend with the front, if there is one that holds at this time. */
void
hf_front_read(HfCall *call, HfSlot *slot)
{
	HfRow	   *row;

	/* a test's clock is its own; a standby cannot read the table */
	if (hf_clock_is_frozen() || RecoveryInProgress())
		return;
	row = hf_row_for(hf_open(call, HF_CLAIM_FRONT));
	if (find_front(row, slot) && hf_time(row, FRONT_CLOCK) <= call->now)
	{
		HfTurn		hint = {hf_time(row, FRONT_RUN_AFTER), hf_int64(row, FRONT_JOB_ID)};

		hf_slot_move(slot, hint, hf_time(row, FRONT_CLOCK));	/* it may be this transaction's, which rolls back */
		slot->least_running.run_after = hf_time(row, FRONT_RUNNING_RUN_AFTER);
		slot->least_running.job_id = hf_int64(row, FRONT_RUNNING_JOB_ID);
		slot->least_lease_end = hf_time(row, FRONT_LEASE_END);
	}
	hf_row_free(row);
}

static void
fill(HfRow *row, const HfSlot *slot)
{
	hf_set(row, FRONT_QUEUE, Int32GetDatum(slot->queue_id));
	hf_set(row, FRONT_RECONCILE, BoolGetDatum(slot->reconcile));
	hf_set(row, FRONT_PRIORITY, Int32GetDatum(slot->priority));
	hf_set(row, FRONT_RUN_AFTER, TimestampTzGetDatum(slot->hint.run_after));
	hf_set(row, FRONT_JOB_ID, Int64GetDatum(slot->hint.job_id));
	hf_set(row, FRONT_RUNNING_RUN_AFTER, TimestampTzGetDatum(slot->least_running.run_after));
	hf_set(row, FRONT_RUNNING_JOB_ID, Int64GetDatum(slot->least_running.job_id));
	hf_set(row, FRONT_LEASE_END, TimestampTzGetDatum(slot->least_lease_end));
	hf_set(row, FRONT_CLOCK, TimestampTzGetDatum(slot->clock));
}

/* Leave the slot's hint for others, unless another transaction is at it. */
void
hf_front_write(HfCall *call, const HfSlot *slot)
{
	HfTable    *table;
	HfRow	   *row;

	if (hf_clock_is_frozen() || !call->write)
		return;
	table = hf_open(call, HF_CLAIM_FRONT);
	row = hf_row_for(table);
	if (find_front(row, slot))
	{
		fill(row, slot);
		(void) hf_update_skip(call, row);
	}
	else
	{
		HfRow	   *fresh = hf_row_new(table);

		fill(fresh, slot);
		hf_insert(call, fresh);
		hf_row_free(fresh);
	}
	hf_row_free(row);
}
