/*-------------------------------------------------------------------------
 *
 * dispatch.c
 *	  Jobs in the order of their turn: the skip scan and the scan hint.
 *
 * The dispatch index is (queue, mode, priority, run_after, job_id).  Within a
 * mode the scan goes from priority to priority: at the first entry that is
 * not due it seeks the next one, so that parked jobs cost nothing.  Two modes
 * are merged.
 *
 * Entries of finished jobs stay in the index for as long as an old snapshot
 * could see them, and running jobs stay at its front.  Each backend therefore
 * remembers, per (queue, mode, priority), a key below which it need not look:
 * the hint.  It is the least key of what the scan met that is pending and due,
 * or still being inserted by another transaction; and never above the clock
 * of the scan less MARGIN, since an entry can appear unseen only between its
 * enqueuer's reading of the clock and its index insertion (hf_not_before).
 *
 * What a hint could make one overlook is found again by:
 *	 - the least lease end among running jobs passed over: once it has passed,
 *	   the hint goes back to the least key among them;
 *	 - the net: once a second a claim looks at some entries below the hint, and
 *	   a claim that would answer short at all of them, if time allows;
 *	 - forgetting: when this backend writes a lower key, when a transaction of
 *	   its own that moved the hint rolls back, when the clock steps back, and
 *	   when the table is invalidated.
 *
 * The scan uses a dirty snapshot: newest versions, and what others insert.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "access/nbtree.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"

#define NSLOTS			64
#define MARGIN			(50 * INT64CONST(1000))		/* us */
#define SWEEP_ENTRIES	500
#define SWEEP_EVERY_MS	1000
#define SWEEP_BUDGET_MS	50

typedef struct Key
{
	TimestampTz run_after;
	int64		job_id;
} Key;

static const Key lowest = {DT_NOBEGIN, PG_INT64_MIN};
static const Key highest_of_all = {DT_NOEND, PG_INT64_MAX};

typedef struct Slot
{
	bool		used;
	int32		queue_id;
	bool		reconcile;
	int32		priority;
	uint64		last_use;
	Key			hint;
	Key			least_running;	/* of running jobs below the hint */
	TimestampTz least_lease_end;	/* among them */
	TimestampTz clock;			/* of the scan that set it */
	Key			swept_to;		/* where the net goes on */
	instr_time	swept_at;
	bool		in_transaction; /* moved in this transaction */
} Slot;

typedef struct ModeScan
{
	bool		reconcile;
	bool		done;
	bool		short_of;		/* ran out of entries of the last priority */
	IndexScanDesc scan;			/* of the present priority, or NULL */
	int32		priority;
	bool		any_priority;	/* priority is that of a scan begun */
	Slot	   *slot;
	HfRow	   *row;			/* the candidate */
	bool		full;			/* the candidate has not been handed out */
	Key			key;			/* of the candidate */
	bool		pinned;
	Key			pin;			/* least key that must stay above the hint */
	Key			last;			/* of the last entry met */
	bool		met_any;
	TimestampTz least_lease_end;
	Key			least_running;
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
	bool		use_hints;
};

typedef enum HintMode
{
	HINT_OFF, HINT_ON, HINT_CHECK
} HintMode;

static const struct config_enum_entry hint_modes[] = {
	{"off", HINT_OFF, false}, {"on", HINT_ON, false}, {"check", HINT_CHECK, false}, {NULL, 0, false}
};

static int	scan_hint = HINT_ON;
static Slot slots[NSLOTS];
static uint64 slots_generation = 0;
static uint64 uses = 0;
static bool moved_in_transaction = false;

static bool sweep(HfDispatch *d, Slot *slot, int entries, bool *complete);

/* ---------------------------------------------------------------- slots */

static void
forget_moved(void)
{
	for (int i = 0; i < NSLOTS; i++)
		if (slots[i].in_transaction)
			slots[i].used = false;
	moved_in_transaction = false;
}

static void
on_xact_event(XactEvent event, void *arg)
{
	if (!moved_in_transaction)
		return;
	if (event == XACT_EVENT_ABORT)
		forget_moved();
	else if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_PREPARE)
	{
		for (int i = 0; i < NSLOTS; i++)
			slots[i].in_transaction = false;
		moved_in_transaction = false;
	}
}

static void
on_subxact_event(SubXactEvent event, SubTransactionId me, SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB && moved_in_transaction)
		forget_moved();
}

void
hf_dispatch_init(void)
{
	DefineCustomEnumVariable("holdfast.scan_hint",
							 "Whether a claim begins where the last one of this backend left off.",
							 "check makes both scans and warns of a job that the hint would have missed.",
							 &scan_hint, HINT_ON, hint_modes, PGC_USERSET, 0, NULL, NULL, NULL);
	RegisterXactCallback(on_xact_event, NULL);
	RegisterSubXactCallback(on_subxact_event, NULL);
}

static int
compare(Key a, Key b)
{
	if (a.run_after != b.run_after)
		return a.run_after < b.run_after ? -1 : 1;
	return a.job_id < b.job_id ? -1 : a.job_id > b.job_id;
}

static Slot *
find_slot(int32 queue_id, bool reconcile, int32 priority)
{
	for (int i = 0; i < NSLOTS; i++)
		if (slots[i].used && slots[i].queue_id == queue_id && slots[i].reconcile == reconcile &&
			slots[i].priority == priority)
			return &slots[i];
	return NULL;
}

static void
reset_slot(Slot *slot, Key hint, TimestampTz clock)
{
	slot->hint = hint;
	slot->least_running = highest_of_all;
	slot->least_lease_end = DT_NOEND;
	slot->clock = clock;
}

/* The slot to use, fit to begin a scan with; the least recently used one is replaced. */
static Slot *
take_slot(HfDispatch *d, bool reconcile, int32 priority)
{
	Slot	   *slot = find_slot(d->queue_id, reconcile, priority);
	TimestampTz now = d->call->now;

	if (slot == NULL)
	{
		slot = &slots[0];
		for (int i = 1; i < NSLOTS && slot->used; i++)
			if (!slots[i].used || slots[i].last_use < slot->last_use)
				slot = &slots[i];
		memset(slot, 0, sizeof(Slot));
		slot->used = true;
		slot->queue_id = d->queue_id;
		slot->reconcile = reconcile;
		slot->priority = priority;
		slot->swept_to = lowest;
		reset_slot(slot, lowest, now);
	}
	else if (now < slot->clock)
		reset_slot(slot, lowest, now);
	else if (now >= slot->least_lease_end)
		reset_slot(slot, compare(slot->least_running, slot->hint) < 0 ? slot->least_running : slot->hint, now);
	slot->last_use = ++uses;
	return slot;
}

/* This backend makes a job pending: a hint must not lie above it. */
void
hf_dispatch_pending(int32 queue_id, bool reconcile, int32 priority, TimestampTz run_after, int64 job_id)
{
	Slot	   *slot = find_slot(queue_id, reconcile, priority);
	Key			key = {run_after, job_id};

	if (slot != NULL && compare(key, slot->hint) < 0)
		slot->hint = key;
}

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
begin_priority(HfDispatch *d, bool reconcile, int32 priority, Key from, TimestampTz upto, bool want_entries)
{
	IndexScanDesc scan;
	ScanKeyData keys[5];
	ScanKey		row = palloc(sizeof(ScanKeyData) * 2);	/* the scan keeps a pointer to it */
	int			n = 0;

	int4_key(&keys[n++], 1, BTEqualStrategyNumber, F_INT4EQ, d->queue_id);
	mode_key(&keys[n++], reconcile);
	int4_key(&keys[n++], 3, BTEqualStrategyNumber, F_INT4EQ, priority);
	if (compare(from, lowest) != 0)
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
	scan->xs_want_itup = want_entries;
	index_rescan(scan, keys, n, NULL, 0);
	return scan;
}

/* The least priority above "above" (or at all) that this backend has a slot for. */
static bool
known_priority(HfDispatch *d, ModeScan *m, int32 *known)
{
	bool		found = false;

	for (int i = 0; i < NSLOTS; i++)
		if (slots[i].used && slots[i].queue_id == d->queue_id && slots[i].reconcile == m->reconcile &&
			(!m->any_priority || slots[i].priority > m->priority) && (!found || slots[i].priority < *known))
		{
			*known = slots[i].priority;
			found = true;
		}
	return found;
}

/*
 * The next priority of the mode that may have an entry, above the present one.
 * Where a slot says which to expect, only the gap before it is looked at: the
 * scan ends at the first page's high key, rather than step over the entries of
 * finished jobs at the front of the expected priority.
 */
static bool
next_priority(HfDispatch *d, ModeScan *m)
{
	IndexScanDesc scan;
	ScanKeyData keys[4];
	int			n = 0;
	int32		expected = 0;
	bool		known = known_priority(d, m, &expected);
	bool		found;

	int4_key(&keys[n++], 1, BTEqualStrategyNumber, F_INT4EQ, d->queue_id);
	mode_key(&keys[n++], m->reconcile);
	if (m->any_priority)
		int4_key(&keys[n++], 3, BTGreaterStrategyNumber, F_INT4GT, m->priority);
	if (known)
		int4_key(&keys[n++], 3, BTLessStrategyNumber, F_INT4LT, expected);
	scan = hf_index_beginscan(d->table->rel, d->index, &d->dirty, n);
	scan->xs_want_itup = true;	/* the entry says it; the row need not be looked at */
	index_rescan(scan, keys, n, NULL, 0);
	found = (index_getnext_tid(scan, ForwardScanDirection) != NULL);
	if (found)
	{
		bool		isnull;

		m->priority = DatumGetInt32(index_getattr(scan->xs_itup, 3, scan->xs_itupdesc, &isnull));
	}
	else if (known)
		m->priority = expected;
	m->any_priority |= found || known;
	index_endscan(scan);
	return found || known;
}

static void
pin(ModeScan *m, Key key)
{
	if (!m->pinned || compare(key, m->pin) < 0)
	{
		m->pinned = true;
		m->pin = key;
	}
}

static void
passed_running(ModeScan *m, Key key, TimestampTz lease_end)
{
	m->met_running = true;
	if (lease_end < m->least_lease_end)
		m->least_lease_end = lease_end;
	if (compare(key, m->least_running) < 0)
		m->least_running = key;
}

/* Move the slot's hint to what the scan of its priority has shown. */
static void
close_priority(HfDispatch *d, ModeScan *m, bool to_the_end)
{
	Slot	   *slot = m->slot;
	Key			hint;
	Key			highest = {d->call->now - MARGIN, PG_INT64_MIN};

	if (m->scan == NULL)
		return;
	index_endscan(m->scan);
	m->scan = NULL;
	if (!d->use_hints || !slot->used || slot->queue_id != d->queue_id || slot->reconcile != m->reconcile || slot->priority != m->priority)
		return;					/* given to another meanwhile */
	hint = to_the_end ? highest : m->met_any ? m->last : slot->hint;
	if (m->pinned && compare(m->pin, hint) < 0)
		hint = m->pin;
	if (compare(highest, hint) < 0)
		hint = highest;
	if (compare(hint, slot->hint) < 0 && !m->pinned)
		hint = slot->hint;		/* the margin does not take back what was seen */
	if (m->least_lease_end < slot->least_lease_end)
		slot->least_lease_end = m->least_lease_end;
	if (compare(m->least_running, slot->least_running) < 0)
		slot->least_running = m->least_running;
	slot->hint = hint;
	slot->clock = d->call->now;
	slot->in_transaction = moved_in_transaction = true;
}

/* What an entry's row says; true if the caller is to see it. */
static bool
look_at(HfDispatch *d, ModeScan *m)
{
	HfRow	   *row = m->row;

	hf_row_load(row);
	m->key.run_after = hf_time(row, JOB_RUN_AFTER);
	m->key.job_id = hf_int64(row, JOB_ID);
	m->met_any = true;
	m->last = m->key;
	if (TransactionIdIsValid(d->dirty.xmin))
	{
		pin(m, m->key);			/* another transaction is inserting it */
		return false;
	}
	if (hf_text_is(hf_get(row, JOB_STATUS), "running"))
	{
		TimestampTz lease_end = hf_time(row, JOB_LEASE_EXPIRES_AT);

		if (d->call->now < lease_end)
		{
			passed_running(m, m->key, lease_end);
			return false;
		}
	}
	if (TransactionIdIsValid(d->dirty.xmax))
	{
		pin(m, m->key);			/* another transaction is changing it */
		return false;
	}
	return true;
}

/* holdfast.scan_hint = check: say what a scan from the hint on would have missed. */
static void
check_hint(HfDispatch *d, Slot *slot)
{
	Key			hint = slot->hint;
	bool		complete = false;

	if (scan_hint != HINT_CHECK || compare(hint, lowest) == 0)
		return;
	slot->swept_to = lowest;
	if (sweep(d, slot, PG_INT32_MAX, &complete))
		ereport(WARNING,
				(errmsg("scan hint would have missed job " INT64_FORMAT, slot->hint.job_id),
				 errdetail("It is due since %s; the hint stood at job " INT64_FORMAT ".",
						   pstrdup(timestamptz_to_str(slot->hint.run_after)), hint.job_id)));
}

static void
advance(HfDispatch *d, ModeScan *m)
{
	while (!m->full && !m->done)
	{
		CHECK_FOR_INTERRUPTS();
		if (m->scan == NULL)
		{
			if (!next_priority(d, m))
			{
				m->done = true;
				return;
			}
			m->slot = take_slot(d, m->reconcile, m->priority);
			check_hint(d, m->slot);
			m->pinned = m->met_any = false;
			m->least_lease_end = DT_NOEND;
			m->least_running = highest_of_all;
			m->scan = begin_priority(d, m->reconcile, m->priority, d->use_hints ? m->slot->hint : lowest, d->call->now,
									 false);
		}
		if (!index_getnext_slot(m->scan, ForwardScanDirection, m->row->stored))
			close_priority(d, m, true);
		else if (look_at(d, m))
			m->full = true;
	}
}

/* ---------------------------------------------------------------- the net */

static Key
key_of_entry(IndexScanDesc scan)
{
	Key			key;
	bool		isnull;

	key.run_after = DatumGetTimestampTz(index_getattr(scan->xs_itup, 4, scan->xs_itupdesc, &isnull));
	key.job_id = DatumGetInt64(index_getattr(scan->xs_itup, 5, scan->xs_itupdesc, &isnull));
	return key;
}

/*
 * Look at up to "entries" entries below the hint, from where the last look
 * ended.  Returns true when the hint was lowered.
 */
static bool
sweep(HfDispatch *d, Slot *slot, int entries, bool *complete)
{
	HfRow	   *row = hf_row_for(d->table);
	IndexScanDesc scan;
	bool		lowered = false;
	int			seen = 0;

	*complete = false;
	scan = begin_priority(d, slot->reconcile, slot->priority, slot->swept_to, slot->hint.run_after, true);
	while (!*complete && seen++ < entries)
	{
		Key			key;

		CHECK_FOR_INTERRUPTS();
		if (index_getnext_tid(scan, ForwardScanDirection) == NULL)
		{
			*complete = true;
			break;
		}
		/* entries count, whether their row is still to be seen or not */
		key = key_of_entry(scan);
		if (compare(key, slot->hint) >= 0)
		{
			*complete = true;
			break;
		}
		slot->swept_to = key;
		if (!index_fetch_heap(scan, row->stored))
			continue;
		hf_row_load(row);
		if (hf_text_is(hf_get(row, JOB_STATUS), "pending") || TransactionIdIsValid(d->dirty.xmin) ||
			d->call->now >= hf_time(row, JOB_LEASE_EXPIRES_AT))
		{
			slot->hint = key;
			lowered = *complete = true;
		}
		else
		{
			slot->least_lease_end = Min(slot->least_lease_end, hf_time(row, JOB_LEASE_EXPIRES_AT));
			if (compare(key, slot->least_running) < 0)
				slot->least_running = key;
		}
	}
	index_endscan(scan);
	hf_row_free(row);
	if (*complete)
		slot->swept_to = lowest;
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
	for (int i = 0; i < NSLOTS; i++)
	{
		Slot	   *slot = &slots[i];
		instr_time	since;
		bool		complete;

		if (!slot->used || slot->queue_id != d->queue_id || compare(slot->hint, lowest) == 0)
			continue;
		now = begin;
		since = now;
		INSTR_TIME_SUBTRACT(since, slot->swept_at);
		if (!INSTR_TIME_IS_ZERO(slot->swept_at) && INSTR_TIME_GET_MILLISEC(since) < SWEEP_EVERY_MS)
			continue;
		do
		{
			lowered |= sweep(d, slot, SWEEP_ENTRIES, &complete);
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

	if (slots_generation != hf_job_generation())
	{
		memset(slots, 0, sizeof(slots));
		slots_generation = hf_job_generation();
	}
	d->call = call;
	d->queue_id = queue_id;
	d->table = hf_open(call, HF_JOB);
	d->index = hf_index(d->table, "_dispatch");
	call->now = hf_clock_now(); /* there may have been a wait */
	d->use_hints = (scan_hint != HINT_OFF);
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

	d->use_hints = false;
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
			(m->priority == first->priority && compare(m->key, first->key) < 0))
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
	pin(d->current, d->current->key);
}

/* The job just handed out runs now, until then. */
void
hf_dispatch_running_until(HfDispatch *d, TimestampTz lease_end)
{
	passed_running(d->current, d->current->key, lease_end);
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
			pin(m, m->key);
		close_priority(d, m, false);
		hf_row_free(m->row);
	}
	return d->use_hints && sweep_due(d, answered_short) && answered_short;
}

/* ---------------------------------------------------------------- how long to sleep */

/* The run_after of the first pending job of a priority that is not due yet, or DT_NOEND. */
static TimestampTz
next_run_after(HfDispatch *d, ModeScan *m)
{
	TimestampTz next = DT_NOEND;
	Key			from = {d->call->now, PG_INT64_MAX};
	IndexScanDesc scan = begin_priority(d, m->reconcile, m->priority, from, DT_NOEND, false);

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
	HfDispatch *d = hf_dispatch_begin_whole(call, queue->queue_id);
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
