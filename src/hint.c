/*-------------------------------------------------------------------------
 *
 * hint.c
 *	  Where a claim may begin, and what comes next: what a backend remembers.
 *
 * Entries of finished jobs stay in the dispatch index for as long as an old
 * snapshot could see them, and running jobs stay at its front.  Each backend
 * therefore remembers, per (queue, mode, priority), a turn below which it need
 * not look: the hint.  It is the least turn of what a scan met that is pending
 * and due, or still being inserted by another transaction; and never above the
 * clock of the scan less HF_MARGIN, since an entry can appear unseen only
 * between its enqueuer's reading of the clock and its index insertion
 * (hf_not_before).
 *
 * For the same reason nothing can appear among the entries that a scan has
 * read if they are older than HF_MARGIN.  A scan reads a page of the index at
 * a time, and a claim of one job needs one entry of it: the rest is kept as
 * "ahead", and the next claims look at those rows, by their places, without a
 * scan.  Every entry that matters, from the hint to the last one ahead, is
 * among them; a hint that is lowered therefore forgets them.  So does a change
 * of that page of the index, by its LSN: a job that is stored on another page of
 * the table has another entry then, of the same turn.
 *
 * A slot is forgotten when this backend writes a lower turn, when a
 * transaction of its own that moved the hint rolls back or is prepared, when the
 * clock steps back, and when the table is invalidated.  Once the least lease end among
 * running jobs passed over has come, the hint goes back to the least turn of
 * theirs.  What is overlooked all the same is found by the net (dispatch.c).
 * A new backend begins with what another has left (front.c).
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "access/xact.h"
#include "utils/guc.h"
#include "utils/memutils.h"

static const struct config_enum_entry modes[] = {
	{"off", HF_HINT_OFF, false}, {"on", HF_HINT_ON, false}, {"check", HF_HINT_CHECK, false}, {NULL, 0, false}
};

const HfTurn hf_first_turn = {DT_NOBEGIN, PG_INT64_MIN};
const HfTurn hf_last_turn = {DT_NOEND, PG_INT64_MAX};
HfHintMode	hf_hint_mode = HF_HINT_ON;

static int	mode_setting = HF_HINT_ON;
static HfSlot slots[HF_NSLOTS];
static int	nslots = 0;			/* those after them have not been used */
static HfEntry *ahead[HF_NSLOTS];	/* HF_AHEAD entries each, once needed */
static uint64 generation = 0;
static uint64 uses = 0;
static bool moved_in_transaction = false;

static void
forget_moved(void)
{
	for (int i = 0; i < nslots; i++)
		if (slots[i].in_transaction)
			slots[i].used = false;
	moved_in_transaction = false;
}

static void
on_xact_event(XactEvent event, void *arg)
{
	if (!moved_in_transaction)
		return;
	if (event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		forget_moved();			/* what is prepared may be rolled back, by whomever */
	else if (event == XACT_EVENT_COMMIT)
	{
		for (int i = 0; i < nslots; i++)
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

static void
assign_mode(int newval, void *extra)
{
	hf_hint_mode = newval;
}

void
hf_hint_init(void)
{
	DefineCustomEnumVariable("holdfast.scan_hint",
							 "Whether a claim begins where the last one of this backend left off.",
							 "check makes both scans and warns of a job that the hint would have missed.",
							 &mode_setting, HF_HINT_ON, modes, PGC_USERSET, 0, NULL, assign_mode, NULL);
	RegisterXactCallback(on_xact_event, NULL);
	RegisterSubXactCallback(on_subxact_event, NULL);
}

/* How many slots there are to look at. */
int
hf_slot_count(void)
{
	return nslots;
}

/* The i-th of them, or NULL if it is not in use. */
HfSlot *
hf_slot(int i)
{
	return slots[i].used ? &slots[i] : NULL;
}

/* Forget everything if table job was invalidated since. */
void
hf_slots_check(void)
{
	if (generation == hf_job_generation())
		return;
	memset(slots, 0, sizeof(slots));
	nslots = 0;
	generation = hf_job_generation();
}

static HfSlot *
find(int32 queue_id, bool reconcile, int32 priority)
{
	for (int i = 0; i < nslots; i++)
		if (hf_slot_is(&slots[i], queue_id, reconcile, priority))
			return &slots[i];
	return NULL;
}

/* Begin there, with nothing remembered of what was passed over. */
static void
reset(HfSlot *slot, HfTurn hint, TimestampTz clock)
{
	slot->hint = hint;
	slot->nahead = 0;
	slot->least_running = hf_last_turn;
	slot->least_lease_end = DT_NOEND;
	slot->clock = clock;
}

/* The slot to use, fit to begin a scan with; the least recently used one is replaced. */
HfSlot *
hf_slot_take(int32 queue_id, bool reconcile, int32 priority, TimestampTz now)
{
	HfSlot	   *slot = find(queue_id, reconcile, priority);

	if (slot == NULL)
	{
		slot = &slots[0];
		for (int i = 1; i < HF_NSLOTS && slot->used; i++)
			if (!slots[i].used || slots[i].last_use < slot->last_use)
				slot = &slots[i];
		memset(slot, 0, sizeof(HfSlot));
		nslots = Max(nslots, slot - slots + 1);
		slot->used = slot->fresh = true;
		slot->queue_id = queue_id;
		slot->reconcile = reconcile;
		slot->priority = priority;
		slot->swept_to = hf_first_turn;
		reset(slot, hf_first_turn, now);
	}
	else if (now < slot->clock)
		reset(slot, hf_first_turn, now);
	else if (now >= slot->least_lease_end)
		reset(slot, hf_turn_cmp(slot->least_running, slot->hint) < 0 ? slot->least_running : slot->hint, now);
	slot->last_use = ++uses;
	return slot;
}

/* Something that is pending and due lies below the hint. */
void
hf_slot_lower(HfSlot *slot, HfTurn hint)
{
	slot->hint = hint;
	slot->nahead = 0;
}

/* A scan, with this clock, has moved the hint; what was ahead is ahead, if the hint was not lowered. */
void
hf_slot_move(HfSlot *slot, HfTurn hint, TimestampTz clock)
{
	if (hf_turn_cmp(hint, slot->hint) < 0)
		slot->nahead = 0;
	slot->hint = hint;
	slot->clock = clock;
	slot->in_transaction = moved_in_transaction = true;
}

/* This backend makes a job pending: nothing that is remembered may bar the way to it. */
void
hf_hint_pending(int32 queue_id, bool reconcile, int32 priority, TimestampTz run_after, int64 job_id)
{
	HfSlot	   *slot = find(queue_id, reconcile, priority);
	HfTurn		turn = {run_after, job_id};

	if (slot == NULL)
		return;
	if (hf_turn_cmp(turn, slot->hint) < 0)
		hf_slot_lower(slot, turn);
	else if (slot->nahead > 0 && hf_turn_cmp(turn, hf_slot_ahead(slot)[slot->nahead - 1].turn) < 0)
		slot->nahead = 0;
}

/* The entries ahead: slot->nahead of them, room for HF_AHEAD. */
HfEntry *
hf_slot_ahead(HfSlot *slot)
{
	int			i = slot - slots;

	if (ahead[i] == NULL)
		ahead[i] = MemoryContextAlloc(TopMemoryContext, sizeof(HfEntry) * HF_AHEAD);
	return ahead[i];
}
