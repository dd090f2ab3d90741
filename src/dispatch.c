/*-------------------------------------------------------------------------
 *
 * dispatch.c
 *	  Jobs in the order of their turn: the skip scan, and its net.
 *
 * The dispatch index is (queue, mode, priority, run_after, job_id).  Within a
 * mode the scan goes from priority to priority: at the first entry that is
 * not due it seeks the next one, so that parked jobs cost nothing.  Two modes
 * are merged.
 *
 * A scan begins at the hint of this backend, and goes through the entries that
 * are ahead before it reads the index (hint.c has the rules).  What a hint hides
 * all the same is found by the net: once a second a claim looks at some entries
 * below the hint, and a claim that would answer short at all of them, if time
 * allows.
 *
 * The scan uses a dirty snapshot: newest versions, and what others insert.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "access/nbtree.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"

#define FAR				1000	/* entries walked, most of them of finished jobs */
#define SWEEP_ENTRIES	500
#define SWEEP_EVERY_MS	1000
#define SWEEP_BUDGET_MS	50

typedef struct ModeScan
{
	bool		reconcile;
	bool		done;
	bool		open;			/* a priority is being scanned */
	IndexScanDesc scan;			/* of it; NULL while the entries ahead last */
	int			next_ahead;		/* the next of them */
	HfTurn		resume;			/* where the scan begins after them */
	int32		priority;
	bool		any_priority;	/* priority is that of a scan begun */
	HfSlot	   *slot;
	HfRow	   *row;			/* the candidate */
	bool		full;			/* the candidate has not been handed out */
	HfEntry		entry;			/* of the candidate */
	HfEntry    *pinned;			/* entries that must stay above the hint, the first HF_AHEAD of them */
	int			npinned;
	BlockNumber block;			/* the index page that the present entry is on */
	XLogRecPtr	lsn;			/* of it, when it was read */
	BlockNumber pin_block;		/* the page of all that is pinned, or none */
	XLogRecPtr	pin_lsn;
	int			walked;			/* entries that the scan has read */
	HfTurn		last;			/* of the last entry met */
	bool		met_any;
	TimestampTz least_lease_end;
	HfTurn		least_running;
	bool		met_running;	/* in any priority */
} ModeScan;

struct HfDispatch
{
	HfCall	   *call;
	int32		queue_id;
	HfTable    *table;
	Relation	index;
	SnapshotData dirty;
	ModeScan	modes[2];
	int			nmodes;
	ModeScan   *current;		/* whose candidate was handed out last */
	bool		use_hints;		/* begin at them */
	bool		move_hints;		/* and move them */
	IndexFetchTableData *fetch; /* of the rows ahead */
};

static bool sweep(HfDispatch *d, HfSlot *slot, int entries, bool settled, bool *complete);

/* ---------------------------------------------------------------- scans */

static void
int4_key(ScanKey key, int attno, StrategyNumber strategy, RegProcedure function, int32 value)
{
	ScanKeyInit(key, attno, strategy, function, Int32GetDatum(value));
}

static void
mode_key(ScanKey key, bool reconcile)
{
	ScanKeyEntryInitialize(key, 0, 2, BTEqualStrategyNumber, InvalidOid, C_COLLATION_OID, F_TEXTEQ,
						   hf_word(reconcile ? "reconcile" : "execute"));
}

/*
 * Begin a scan of one priority from "from" (inclusive) to what is due now.
 * The lower bound is a row comparison, so that a million jobs of one instant
 * do not stand between.
 */
static IndexScanDesc
begin_priority(HfDispatch *d, bool reconcile, int32 priority, HfTurn from, TimestampTz upto)
{
	IndexScanDesc scan;
	ScanKeyData keys[5];
	ScanKey		row = palloc(sizeof(ScanKeyData) * 2);	/* the scan keeps a pointer to it */
	int			n = 0;

	int4_key(&keys[n++], 1, BTEqualStrategyNumber, F_INT4EQ, d->queue_id);
	mode_key(&keys[n++], reconcile);
	int4_key(&keys[n++], 3, BTEqualStrategyNumber, F_INT4EQ, priority);
	if (hf_turn_cmp(from, hf_first_turn) != 0)
	{
		ScanKeyEntryInitialize(&row[0], SK_ROW_MEMBER, 4, BTGreaterEqualStrategyNumber, InvalidOid, InvalidOid,
							   F_TIMESTAMP_CMP, TimestampTzGetDatum(from.run_after));
		ScanKeyEntryInitialize(&row[1], SK_ROW_MEMBER | SK_ROW_END, 5, BTGreaterEqualStrategyNumber, InvalidOid,
							   InvalidOid, F_BTINT8CMP, Int64GetDatum(from.job_id));
		memset(&keys[n], 0, sizeof(ScanKeyData));
		keys[n].sk_flags = SK_ROW_HEADER;
		keys[n].sk_attno = 4;
		keys[n].sk_strategy = BTGreaterEqualStrategyNumber;
		keys[n].sk_argument = PointerGetDatum(row);
		n++;
	}
	ScanKeyInit(&keys[n++], 4, BTLessEqualStrategyNumber, F_TIMESTAMPTZ_LE, TimestampTzGetDatum(upto));
	scan = hf_index_beginscan(d->table->rel, d->index, &d->dirty, n);
	scan->xs_want_itup = true;	/* the net and what is ahead go by the entries */
	index_rescan(scan, keys, n, NULL, 0);
	return scan;
}

/* The least priority above "above" (or at all) that this backend has a slot for. */
static bool
known_priority(HfDispatch *d, ModeScan *m, int32 *known)
{
	bool		found = false;

	for (int i = 0; i < hf_slot_count(); i++)
	{
		const HfSlot *slot = hf_slot(i);

		if (slot != NULL && slot->queue_id == d->queue_id && slot->reconcile == m->reconcile &&
			(!m->any_priority || slot->priority > m->priority) && (!found || slot->priority < *known))
		{
			*known = slot->priority;
			found = true;
		}
	}
	return found;
}

/* The least priority of the mode with an entry between "above" and "below", both exclusive. */
static bool
priority_between(HfDispatch *d, bool reconcile, int32 above, int32 below, int32 *priority)
{
	IndexScanDesc scan;
	ScanKeyData keys[4];
	bool		found;
	bool		isnull;

	int4_key(&keys[0], 1, BTEqualStrategyNumber, F_INT4EQ, d->queue_id);
	mode_key(&keys[1], reconcile);
	int4_key(&keys[2], 3, BTGreaterStrategyNumber, F_INT4GT, above);
	int4_key(&keys[3], 3, BTLessStrategyNumber, F_INT4LT, below);
	scan = hf_index_beginscan(d->table->rel, d->index, &d->dirty, lengthof(keys));
	scan->xs_want_itup = true;	/* the entry says it; the row need not be looked at */
	index_rescan(scan, keys, lengthof(keys), NULL, 0);
	found = (index_getnext_tid(scan, ForwardScanDirection) != NULL);
	if (found)
		*priority = DatumGetInt32(index_getattr(scan->xs_itup, 3, scan->xs_itupdesc, &isnull));
	index_endscan(scan);
	return found;
}

/*
 * The next priority of the mode that may have an entry, above the present one.
 * Where a slot says which to expect, only the gap before it is looked at,
 * rather than the entries of finished jobs at the front of the expected one.
 */
static bool
next_priority(HfDispatch *d, ModeScan *m)
{
	int32		above = m->any_priority ? m->priority : PG_INT32_MIN;
	int32		expected = PG_INT32_MAX;
	bool		known = known_priority(d, m, &expected);
	bool		empty = d->use_hints && hf_gap_empty(d->table, d->index, d->queue_id, m->reconcile, above, expected);
	int32		next = expected;

	if (!empty || hf_hint_mode == HF_HINT_CHECK)
	{
		bool		found = priority_between(d, m->reconcile, above, expected, &next);

		if (found && empty)
			ereport(WARNING,
					(errmsg("a claim would have missed priority %d", next)));
		known |= found;
	}
	if (known)
		m->priority = next;
	m->any_priority |= known;
	return known;
}

/* The candidate, or what was met in its place, stays where it is: the hint must not pass it. */
static void
pin(ModeScan *m)
{
	if (m->pinned == NULL)
		m->pinned = palloc(sizeof(HfEntry) * HF_AHEAD);
	if (m->npinned < HF_AHEAD)
		m->pinned[m->npinned] = m->entry;
	if (m->npinned++ == 0)
	{
		m->pin_block = m->block;
		m->pin_lsn = m->lsn;
	}
	else if (m->pin_block != m->block || m->pin_lsn != m->lsn)
		m->pin_block = InvalidBlockNumber;
}

static void
passed_running(ModeScan *m, HfTurn turn, TimestampTz lease_end)
{
	m->met_running = true;
	if (lease_end < m->least_lease_end)
		m->least_lease_end = lease_end;
	if (hf_turn_cmp(turn, m->least_running) < 0)
		m->least_running = turn;
}

static HfTurn
turn_after(HfTurn turn)
{
	turn.job_id++;				/* ids begin at 1 and end far below the type's last value */
	return turn;
}

static HfTurn
turn_of_entry(IndexScanDesc scan)
{
	HfTurn		turn;
	bool		isnull;

	turn.run_after = DatumGetTimestampTz(index_getattr(scan->xs_itup, 4, scan->xs_itupdesc, &isnull));
	turn.job_id = DatumGetInt64(index_getattr(scan->xs_itup, 5, scan->xs_itupdesc, &isnull));
	return turn;
}

/* ---------------------------------------------------------------- the entries ahead */

/* Where the present entry of the scan points; the scan itself says where its row was found. */
static ItemPointerData
place_of_entry(IndexScanDesc scan)
{
	BTScanPos	pos = &((BTScanOpaque) scan->opaque)->currPos;

	return pos->items[pos->itemIndex].heapTid;
}

static bool
more_on_page(IndexScanDesc scan)
{
	BTScanPos	pos = &((BTScanOpaque) scan->opaque)->currPos;

	return BTScanPosIsValid(*pos) && pos->itemIndex < pos->lastItem;
}

/* The row of the next entry ahead that has one; false: there is none. */
static bool
next_ahead(HfDispatch *d, ModeScan *m)
{
	HfEntry    *ahead = hf_slot_ahead(m->slot);

	/* the slot may be given to another priority, or what is ahead forgotten, while a call uses it */
	while (hf_slot_is(m->slot, d->queue_id, m->reconcile, m->priority) && m->next_ahead < m->slot->nahead)
	{
		ItemPointerData place;
		bool		again = false;
		bool		all_dead;

		m->entry = ahead[m->next_ahead++];
		if (hf_turn_cmp(m->entry.turn, m->slot->hint) < 0)
			continue;
		m->resume = turn_after(m->entry.turn);
		place = m->entry.place;
		if (!hf_may_lie_at(d->table, &place))
			continue;
		if (d->fetch == NULL)
			d->fetch = table_index_fetch_begin(d->table->rel);
		if (table_index_fetch_tuple(d->fetch, &place, &d->dirty, m->row->stored, &again, &all_dead))
			return true;
	}
	return false;
}

/* The scan has gone on to another page: what it was like then. */
static void
note_page(HfDispatch *d, ModeScan *m)
{
	BTScanPos	pos = &((BTScanOpaque) m->scan->opaque)->currPos;

	if (pos->currPage == m->block)
		return;
	m->block = pos->currPage;
	m->lsn = InvalidXLogRecPtr;
	if (BufferIsValid(pos->buf))
	{
		_bt_lockbuf(d->index, pos->buf, BT_READ);
		m->lsn = PageGetLSN(BufferGetPage(pos->buf));
		_bt_unlockbuf(d->index, pos->buf);
	}
}

/*
 * Keep what the scan's page still has, behind what is pinned: no job can
 * appear among these entries any more, since they are older than the margin.
 * The entry of one that is there can be replaced by another, if its row moves
 * to another page; then the page of the index is not as it was (open_priority).
 */
static void
look_ahead(HfDispatch *d, ModeScan *m, HfTurn upto)
{
	HfSlot	   *slot = m->slot;
	HfEntry    *ahead = hf_slot_ahead(slot);

	slot->nahead = 0;
	if (hf_turn_cmp(upto, m->last) < 0 || m->npinned > HF_AHEAD || XLogRecPtrIsInvalid(m->lsn) || !RelationNeedsWAL(d->index) ||
		(m->npinned > 0 && (m->pin_block != m->block || m->pin_lsn != m->lsn)))
		return;
	slot->ahead_block = m->block;
	slot->ahead_lsn = m->lsn;
	for (int i = 0; i < m->npinned; i++)
		ahead[slot->nahead++] = m->pinned[i];
	while (slot->nahead < HF_AHEAD && more_on_page(m->scan) &&
		   index_getnext_tid(m->scan, ForwardScanDirection) != NULL)
	{
		HfEntry    *entry = &ahead[slot->nahead];

		entry->turn = turn_of_entry(m->scan);
		entry->place = place_of_entry(m->scan);
		if (hf_turn_cmp(upto, entry->turn) < 0)
			break;
		slot->nahead++;
	}
}

/* ---------------------------------------------------------------- one priority */

/* Move the slot's hint to what the scan of its priority has shown. */
static void
close_priority(HfDispatch *d, ModeScan *m, bool to_the_end)
{
	HfSlot	   *slot = m->slot;
	HfTurn		hint;
	HfTurn		highest = {d->call->now - HF_MARGIN, PG_INT64_MIN};

	if (!m->open)
		return;
	m->open = false;
	if (d->move_hints && hf_slot_is(slot, d->queue_id, m->reconcile, m->priority))
	{
		hint = to_the_end ? highest : m->met_any ? turn_after(m->last) : slot->hint;
		if (m->npinned > 0 && hf_turn_cmp(m->pinned[0].turn, hint) < 0)
			hint = m->pinned[0].turn;
		if (hf_turn_cmp(highest, hint) < 0)
			hint = highest;
		if (hf_turn_cmp(hint, slot->hint) < 0 && m->npinned == 0)
			hint = slot->hint;	/* the margin does not take back what was seen */
		if (m->least_lease_end < slot->least_lease_end)
			slot->least_lease_end = m->least_lease_end;
		if (hf_turn_cmp(m->least_running, slot->least_running) < 0)
			slot->least_running = m->least_running;
		hf_slot_move(slot, hint, d->call->now);
		if (m->scan != NULL && m->met_any)
			look_ahead(d, m, highest);
		if (m->walked > FAR)
			hf_front_write(d->call, slot);
	}
	if (m->scan != NULL)
		index_endscan(m->scan);
	m->scan = NULL;
}

/* Whether the row is the one that the entry ahead was made for: its place may have another by now. */
static bool
is_of_entry(const HfDispatch *d, const ModeScan *m)
{
	const HfRow *row = m->row;

	return hf_int64(row, JOB_ID) == m->entry.turn.job_id && hf_time(row, JOB_RUN_AFTER) == m->entry.turn.run_after &&
		hf_int32(row, JOB_QUEUE) == d->queue_id && hf_int32(row, JOB_PRIORITY) == m->priority &&
		hf_text_is(hf_get(row, JOB_MODE), m->reconcile ? "reconcile" : "execute");
}

/* What an entry's row says; true if the caller is to see it. */
static bool
look_at(HfDispatch *d, ModeScan *m)
{
	HfRow	   *row = m->row;

	hf_row_load(row);
	if (m->scan != NULL)
	{
		m->entry.turn.run_after = hf_time(row, JOB_RUN_AFTER);
		m->entry.turn.job_id = hf_int64(row, JOB_ID);
		m->entry.place = place_of_entry(m->scan);
	}
	else if (!is_of_entry(d, m))
		return false;
	m->met_any = true;
	m->last = m->entry.turn;
	if (TransactionIdIsValid(d->dirty.xmin))
	{
		pin(m);					/* another transaction is inserting it */
		return false;
	}
	if (hf_text_is(hf_get(row, JOB_STATUS), "running"))
	{
		TimestampTz lease_end = hf_time(row, JOB_LEASE_EXPIRES_AT);

		if (d->call->now < lease_end)
		{
			passed_running(m, m->entry.turn, lease_end);
			return false;
		}
	}
	if (TransactionIdIsValid(d->dirty.xmax))
	{
		pin(m);					/* another transaction is changing it */
		return false;
	}
	return true;
}

/* Whether another transaction is inserting, changing or deleting the row that was just fetched. */
static bool
being_written(const HfDispatch *d)
{
	return TransactionIdIsValid(d->dirty.xmin) || TransactionIdIsValid(d->dirty.xmax);
}

static void
warn_of_missed(HfTurn turn, const char *what, HfTurn stood)
{
	ereport(WARNING,
			(errmsg("scan hint would have missed job " INT64_FORMAT, turn.job_id),
			 errdetail("It is due since %s; %s job " INT64_FORMAT ".",
					   pstrdup(timestamptz_to_str(turn.run_after)), what, stood.job_id)));
}

/* Whether the entries ahead, which take the place of a scan, are all that one would find. */
static void
check_ahead(HfDispatch *d, HfSlot *slot)
{
	HfEntry    *ahead = hf_slot_ahead(slot);
	HfTurn		last = slot->nahead > 0 ? ahead[slot->nahead - 1].turn : hf_first_turn;
	HfRow	   *row = hf_row_for(d->table);
	IndexScanDesc scan = begin_priority(d, slot->reconcile, slot->priority, slot->hint, last.run_after);
	int			i = 0;

	while (slot->nahead > 0 && index_getnext_slot(scan, ForwardScanDirection, row->stored))
	{
		HfTurn		turn = turn_of_entry(scan);
		ItemPointerData place = place_of_entry(scan);

		hf_row_load(row);
		if (hf_turn_cmp(last, turn) < 0)
			break;
		while (hf_turn_cmp(ahead[i].turn, turn) < 0)
			i++;
		if ((hf_turn_cmp(ahead[i].turn, turn) != 0 || !ItemPointerEquals(&ahead[i].place, &place)) && !being_written(d) &&
			(hf_text_is(hf_get(row, JOB_STATUS), "pending") || d->call->now >= hf_time(row, JOB_LEASE_EXPIRES_AT)))
			warn_of_missed(turn, "what is ahead goes to", last);
	}
	index_endscan(scan);
	hf_row_free(row);
}

/* holdfast.scan_hint = check: say what a scan from the first entry on would have found. */
static void
check_hint(HfDispatch *d, HfSlot *slot)
{
	HfTurn		hint = slot->hint;
	bool		complete = false;

	if (hf_hint_mode != HF_HINT_CHECK || hf_turn_cmp(hint, hf_first_turn) == 0)
		return;
	check_ahead(d, slot);
	slot->swept_to = hf_first_turn;
	if (sweep(d, slot, PG_INT32_MAX, true, &complete))
		warn_of_missed(slot->hint, "the hint stood at", hint);
}

/* Begin with the next priority; false: there is none. */
static bool
open_priority(HfDispatch *d, ModeScan *m)
{
	if (!next_priority(d, m))
		return false;
	m->slot = hf_slot_take(d->queue_id, m->reconcile, m->priority, d->call->now);
	if (m->slot->fresh && d->use_hints)
	{
		hf_front_read(d->call, m->slot);
		m->slot->fresh = false;
		m->slot = hf_slot_take(d->queue_id, m->reconcile, m->priority, d->call->now);	/* a lease may have ended since */
	}
	if (m->slot->nahead > 0 && !hf_page_stands(d->index, m->slot->ahead_block, m->slot->ahead_lsn))
		m->slot->nahead = 0;
	m->block = m->slot->nahead > 0 ? m->slot->ahead_block : InvalidBlockNumber;
	m->lsn = m->slot->ahead_lsn;
	check_hint(d, m->slot);
	m->met_any = false;
	m->npinned = m->walked = 0;
	m->least_lease_end = DT_NOEND;
	m->least_running = hf_last_turn;
	m->next_ahead = d->move_hints ? 0 : HF_AHEAD;
	m->resume = d->use_hints ? m->slot->hint : hf_first_turn;
	if (d->use_hints && !d->move_hints && hf_turn_cmp(m->slot->least_running, m->resume) < 0)
		m->resume = m->slot->least_running;
	m->open = true;
	return true;
}

/* The next row of the priority: of the entries ahead, then of the index. */
static bool
next_row(HfDispatch *d, ModeScan *m)
{
	if (m->scan == NULL)
	{
		if (next_ahead(d, m))
			return true;
		m->scan = begin_priority(d, m->reconcile, m->priority, m->resume, d->call->now);
	}
	/* as index_getnext_slot() does, but counting, and ready to be interrupted among dead entries */
	for (;;)
	{
		if (!m->scan->xs_heap_continue)
		{
			if (index_getnext_tid(m->scan, ForwardScanDirection) == NULL)
				return false;
			note_page(d, m);
			if (m->walked++ % 1000 == 0)
				CHECK_FOR_INTERRUPTS();
		}
		if (index_fetch_heap(m->scan, m->row->stored))
			return true;
	}
}

static void
advance(HfDispatch *d, ModeScan *m)
{
	while (!m->full && !m->done)
	{
		CHECK_FOR_INTERRUPTS();
		if (!m->open && !open_priority(d, m))
			m->done = true;
		else if (!next_row(d, m))
			close_priority(d, m, true);
		else if (look_at(d, m))
			m->full = true;
	}
}

/* ---------------------------------------------------------------- the net */

/*
 * Look at up to "entries" entries below the hint, from where the last look
 * ended.  Returns true when the hint was lowered.  What another transaction is
 * writing no claim can have; the net goes back to what it inserts, but with
 * "settled" such rows are passed over.
 */
static bool
sweep(HfDispatch *d, HfSlot *slot, int entries, bool settled, bool *complete)
{
	HfRow	   *row = hf_row_for(d->table);
	IndexScanDesc scan;
	bool		lowered = false;
	int			seen = 0;

	*complete = false;
	scan = begin_priority(d, slot->reconcile, slot->priority, slot->swept_to, slot->hint.run_after);
	while (!*complete && seen++ < entries)
	{
		HfTurn		turn;

		CHECK_FOR_INTERRUPTS();
		if (index_getnext_tid(scan, ForwardScanDirection) == NULL)
		{
			*complete = true;
			break;
		}
		/* entries count, whether their row is still to be seen or not */
		turn = turn_of_entry(scan);
		if (hf_turn_cmp(turn, slot->hint) >= 0)
		{
			*complete = true;
			break;
		}
		slot->swept_to = turn;
		if (!index_fetch_heap(scan, row->stored) || (settled && being_written(d)))
			continue;
		hf_row_load(row);
		if (hf_text_is(hf_get(row, JOB_STATUS), "pending") || TransactionIdIsValid(d->dirty.xmin) ||
			d->call->now >= hf_time(row, JOB_LEASE_EXPIRES_AT))
		{
			hf_slot_lower(slot, turn);
			lowered = *complete = true;
		}
		else
		{
			slot->least_lease_end = Min(slot->least_lease_end, hf_time(row, JOB_LEASE_EXPIRES_AT));
			if (hf_turn_cmp(turn, slot->least_running) < 0)
				slot->least_running = turn;
		}
	}
	index_endscan(scan);
	hf_row_free(row);
	if (*complete)
		slot->swept_to = hf_first_turn;
	return lowered;
}

/* Sweep the slots of this queue that are due; with "all", to their end if that is quick. */
static bool
sweep_due(HfDispatch *d, bool all)
{
	instr_time	begin;
	instr_time	now;
	bool		lowered = false;

	INSTR_TIME_SET_CURRENT(begin);
	for (int i = 0; i < hf_slot_count(); i++)
	{
		HfSlot	   *slot = hf_slot(i);
		instr_time	since;
		bool		complete;

		if (slot == NULL || slot->queue_id != d->queue_id || hf_turn_cmp(slot->hint, hf_first_turn) == 0)
			continue;
		now = begin;
		since = now;
		INSTR_TIME_SUBTRACT(since, slot->swept_at);
		if (!INSTR_TIME_IS_ZERO(slot->swept_at) && INSTR_TIME_GET_MILLISEC(since) < SWEEP_EVERY_MS)
			continue;
		do
		{
			lowered |= sweep(d, slot, SWEEP_ENTRIES, false, &complete);
			INSTR_TIME_SET_CURRENT(now);
			since = now;
			INSTR_TIME_SUBTRACT(since, begin);
		} while (all && !complete && INSTR_TIME_GET_MILLISEC(since) < SWEEP_BUDGET_MS);
		if (complete || !all)
			slot->swept_at = now;
	}
	return lowered;
}

/* ---------------------------------------------------------------- the interface */

HfDispatch *
hf_dispatch_begin(HfCall *call, int32 queue_id, bool execute, bool reconcile)
{
	HfDispatch *d = palloc0(sizeof(HfDispatch));

	hf_slots_check();
	d->call = call;
	d->queue_id = queue_id;
	d->table = hf_open(call, HF_JOB);
	d->index = hf_index(d->table, "_dispatch");
	call->now = hf_clock_now(); /* there may have been a wait */
	d->use_hints = d->move_hints = (hf_hint_mode != HF_HINT_OFF);
	InitDirtySnapshot(d->dirty);
	if (execute)
		d->nmodes++;
	if (reconcile)
		d->modes[d->nmodes++].reconcile = true;
	for (int i = 0; i < d->nmodes; i++)
		d->modes[i].row = hf_row_for(d->table);
	return d;
}

/* Both modes from the first entry on, for upkeep: hints are neither used nor moved. */
HfDispatch *
hf_dispatch_begin_whole(HfCall *call, int32 queue_id)
{
	HfDispatch *d = hf_dispatch_begin(call, queue_id, true, true);

	d->use_hints = d->move_hints = false;
	return d;
}

/*
 * Both modes, for whoever only looks: from the first job that may wait or run.
 * Hints are not moved.
 */
static HfDispatch *
begin_looking(HfCall *call, int32 queue_id)
{
	HfDispatch *d = hf_dispatch_begin(call, queue_id, true, true);

	d->move_hints = false;
	return d;
}

/*
 * The next job that is pending and due, or whose lease has ended, in the order
 * priority, run_after, job_id; NULL when there is none.  It is not locked.
 */
HfRow *
hf_dispatch_next(HfDispatch *d)
{
	ModeScan   *first = NULL;

	for (int i = 0; i < d->nmodes; i++)
	{
		ModeScan   *m = &d->modes[i];

		advance(d, m);
		if (!m->full)
			continue;
		if (first == NULL || m->priority < first->priority ||
			(m->priority == first->priority && hf_turn_cmp(m->entry.turn, first->entry.turn) < 0))
			first = m;
	}
	d->current = first;
	if (first == NULL)
		return NULL;
	first->full = false;
	return first->row;
}

/* The job just handed out stays as it is, pending and due. */
void
hf_dispatch_keep(HfDispatch *d)
{
	pin(d->current);
}

/* The job just handed out runs now, until then. */
void
hf_dispatch_running_until(HfDispatch *d, TimestampTz lease_end)
{
	passed_running(d->current, d->current->entry.turn, lease_end);
}

/*
 * End the scans.  true: the answer was short, and the net has found entries
 * that the hints hid: scan again.
 */
bool
hf_dispatch_end(HfDispatch *d, bool answered_short)
{
	for (int i = 0; i < d->nmodes; i++)
	{
		ModeScan   *m = &d->modes[i];

		if (m->full)
			pin(m);
		close_priority(d, m, false);
		hf_row_free(m->row);
	}
	if (d->fetch != NULL)
		table_index_fetch_end(d->fetch);
	return d->move_hints && sweep_due(d, answered_short) && answered_short;
}

/* ---------------------------------------------------------------- how long to sleep */

/* The run_after of the first pending job of a priority that is not due yet, or DT_NOEND. */
static TimestampTz
next_run_after(HfDispatch *d, ModeScan *m)
{
	TimestampTz next = DT_NOEND;
	HfTurn		from = {d->call->now, PG_INT64_MAX};
	IndexScanDesc scan = begin_priority(d, m->reconcile, m->priority, from, DT_NOEND);

	while (index_getnext_slot(scan, ForwardScanDirection, m->row->stored))
	{
		CHECK_FOR_INTERRUPTS();
		hf_row_load(m->row);
		if (hf_text_is(hf_get(m->row, JOB_STATUS), "pending"))
		{
			next = hf_time(m->row, JOB_RUN_AFTER);
			break;
		}
	}
	index_endscan(scan);
	return next;
}

/*
 * Whether a claim would have the candidate.  The lost lease of a job with a
 * stream may be left to maintain(), and where reconcile is separate a claim of
 * all modes hands out no reconcile job: nobody is to poll hot for those.
 */
static bool
wanted_now(const HfQueue *queue, const HfRow *job)
{
	if (!hf_is_null(job, JOB_LEASE_ID) && !hf_is_null(job, JOB_STREAM))
		return false;
	return !queue->reconcile_separate || hf_text_is(hf_get(job, JOB_MODE), "execute");
}

/*
 * Milliseconds until a job of the queue may be due: 0 now, -1 nothing is
 * scheduled; at most 60,000, and at most 1,000 while jobs run, since a lease
 * can end or a job be released.
 */
int32
hf_dispatch_wait_ms(HfCall *call, const HfQueue *queue)
{
	HfDispatch *d = begin_looking(call, queue->queue_id);
	HfRow	   *job;
	bool		due = false;
	bool		soon = false;	/* something that may be due at any time */
	TimestampTz next = DT_NOEND;

	while (!due && (job = hf_dispatch_next(d)) != NULL)
	{
		due = wanted_now(queue, job);
		soon = true;
	}
	for (int i = 0; i < d->nmodes && !due; i++)
	{
		ModeScan	m = d->modes[i];

		soon |= m.met_running;
		m.any_priority = false;
		m.row = hf_row_for(d->table);
		while (next_priority(d, &m))
			next = Min(next, next_run_after(d, &m));
	}
	(void) hf_dispatch_end(d, false);
	if (due)
		return 0;
	if (next == DT_NOEND)
		return soon ? 1000 : -1;
	next = (next - call->now + 999) / 1000;
	return Min(next, soon ? 1000 : 60000);
}
