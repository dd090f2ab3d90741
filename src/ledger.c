/*-------------------------------------------------------------------------
 *
 * ledger.c
 *	  The ledger: what is known about each side effect.
 *
 * A row is locked after its job's, a parent before its children, children by
 * key.  A claim never waits here.  hf_ledger_set is the one place that writes
 * a state, and keeps unknown_effect beside it; which moves are legal is
 * decided by the callers, from the table in docs/state-machine.md.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "access/stratnum.h"
#include "access/xact.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"

static HfLedgerLook
lock_found(HfCall *call, HfRow *row, bool skip, HfRow **ledger)
{
	HfLock		lock = hf_lock(call, row, skip);

	if (lock == HF_LOCKED)
	{
		*ledger = row;
		return HF_LEDGER_HELD;
	}
	hf_row_free(row);
	if (lock == HF_BUSY && !skip)
		elog(ERROR, "a ledger row was changed twice by one command");
	return lock == HF_BUSY ? HF_LEDGER_BUSY : HF_LEDGER_NONE;
}

/* Find and lock the row of a key.  The caller frees *ledger. */
HfLedgerLook
hf_ledger_lock(HfCall *call, const pg_uuid_t *key, bool skip, HfRow **ledger)
{
	HfRow	   *row = hf_row_for(hf_open(call, HF_LEDGER));

	*ledger = NULL;
	if (hf_find_key(row, key))
		return lock_found(call, row, skip, ledger);
	hf_row_free(row);
	return HF_LEDGER_NONE;
}

/* The row of a job's own key, not locked, or NULL: at its place, or by the index. */
HfRow *
hf_ledger_of(HfCall *call, const HfRow *job)
{
	HfRow	   *row = hf_row_for(hf_open(call, HF_LEDGER));

	if ((!hf_is_null(job, JOB_LEDGER_PLACE) &&
		 hf_find_key_at(row, hf_uuid(job, JOB_KEY), LEDGER_KEY, (ItemPointer) DatumGetPointer(hf_get(job, JOB_LEDGER_PLACE)))) ||
		hf_find_key(row, hf_uuid(job, JOB_KEY)))
		return row;
	hf_row_free(row);
	return NULL;
}

/* Find and lock it.  The caller frees *ledger. */
HfLedgerLook
hf_ledger_lock_of(HfCall *call, const HfRow *job, bool skip, HfRow **ledger)
{
	HfRow	   *row = hf_ledger_of(call, job);

	*ledger = NULL;
	return row == NULL ? HF_LEDGER_NONE : lock_found(call, row, skip, ledger);
}

/* The job is to remember where its ledger row has just been stored. */
void
hf_ledger_note_place(const HfRow *ledger, HfRow *job)
{
	ItemPointer place = palloc(sizeof(ItemPointerData));

	*place = ledger->next->tts_tid;
	hf_set(job, JOB_LEDGER_PLACE, PointerGetDatum(place));
}

bool
hf_ledger_is(const HfRow *ledger, const char *state)
{
	return hf_text_is(hf_get(ledger, LEDGER_STATE), state);
}

static void
note_unknown(HfCall *call, const HfRow *ledger)
{
	HfTable    *table = hf_open(call, HF_UNKNOWN_EFFECT);
	HfRow	   *found = hf_row_for(table);

	if (!hf_find_key(found, hf_uuid(ledger, LEDGER_KEY)))
	{
		HfRow	   *row = hf_row_new(table);

		hf_set(row, UNKNOWN_KEY, hf_get(ledger, LEDGER_KEY));
		hf_set(row, UNKNOWN_QUEUE, hf_get(ledger, LEDGER_QUEUE));
		hf_set(row, UNKNOWN_JOB_ID, hf_get(ledger, LEDGER_JOB_ID));
		hf_set(row, UNKNOWN_SINCE, TimestampTzGetDatum(call->now));
		hf_insert(call, row);
		hf_row_free(row);
	}
	else if (hf_int64(found, UNKNOWN_JOB_ID) != hf_int64(ledger, LEDGER_JOB_ID))
	{
		/* another job of the intent has it now; since when it is unknown stays */
		hf_set(found, UNKNOWN_JOB_ID, hf_get(ledger, LEDGER_JOB_ID));
		hf_set(found, UNKNOWN_QUEUE, hf_get(ledger, LEDGER_QUEUE));
		hf_update_locked(call, found);
	}
	hf_row_free(found);
}

static void
forget_unknown(HfCall *call, const HfRow *ledger)
{
	HfRow	   *row = hf_row_for(hf_open(call, HF_UNKNOWN_EFFECT));

	if (hf_find_key(row, hf_uuid(ledger, LEDGER_KEY)))
		hf_delete(call, row);
	hf_row_free(row);
}

static void
fill_state(HfCall *call, HfRow *ledger, const HfRow *job, const char *state, Datum evidence)
{
	hf_set(ledger, LEDGER_STATE, hf_word(state));
	hf_set(ledger, LEDGER_CHANGED_AT, TimestampTzGetDatum(call->now));
	if (job != NULL)
	{
		hf_set(ledger, LEDGER_JOB_ID, hf_get(job, JOB_ID));
		hf_set(ledger, LEDGER_QUEUE, hf_get(job, JOB_QUEUE));
		hf_set(ledger, LEDGER_ATTEMPT_NUMBER, hf_get(job, JOB_ATTEMPT_NUMBER));
	}
	if (evidence != (Datum) 0)
		hf_set(ledger, LEDGER_EVIDENCE, evidence);
}

/*
 * Store a state, and whose it is.  evidence 0 leaves what is there.  The row
 * must not be set twice in one call.  The caller holds the job's lock, under
 * which alone the state changes; the row's own lock need not be held.
 */
void
hf_ledger_set(HfCall *call, HfRow *ledger, HfRow *job, const char *state, Datum evidence)
{
	bool		was_unknown = hf_ledger_is(ledger, "unknown");
	bool		is_unknown = strcmp(state, "unknown") == 0;

	fill_state(call, ledger, job, state, evidence);
	while (!hf_update(call, ledger))
	{
		if (hf_lock(call, ledger, false) != HF_LOCKED)
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("a ledger row was removed by another transaction"),
					 errhint("Try again.")));
		fill_state(call, ledger, job, state, evidence);
	}
	if (job != NULL && hf_is_null(ledger, LEDGER_PARENT_KEY))
		hf_ledger_note_place(ledger, job);
	if (is_unknown)
		note_unknown(call, ledger);
	else if (was_unknown && !is_unknown)
		forget_unknown(call, ledger);
}

/*
 * Store "started", for the attempt that a claim is about to begin: over the row
 * as it was found, which is not locked, or nothing.  false: another
 * transaction is at it.
 */
bool
hf_ledger_start(HfCall *call, HfRow *ledger, HfRow *job)
{
	fill_state(call, ledger, job, "started", (Datum) 0);
	hf_set(ledger, LEDGER_ATTEMPT_NUMBER, Int32GetDatum(hf_next_attempt(hf_int32(job, JOB_ATTEMPT_NUMBER))));
	if (!hf_update_skip(call, ledger))
		return false;
	hf_ledger_note_place(ledger, job);
	return true;
}

/* Put back what hf_ledger_start() has replaced. */
void
hf_ledger_unstart(HfCall *call, HfRow *ledger)
{
	HfRow	   *started = hf_row_for(ledger->table);

	CommandCounterIncrement();	/* one command may not write a row twice */
	hf_row_load(ledger);
	if (!hf_find_key(started, hf_uuid(ledger, LEDGER_KEY)))
		elog(ERROR, "a ledger row just stored was not found");
	hf_row_copy(started, ledger, LEDGER_NCOLUMNS);
	hf_update_locked(call, started);
	hf_row_free(started);
}

/* A row for the intent of a job, not yet stored. */
HfRow *
hf_ledger_new(HfCall *call, const HfRow *job, const char *state)
{
	HfRow	   *row = hf_row_new(hf_open(call, HF_LEDGER));

	hf_set(row, LEDGER_KEY, hf_get(job, JOB_KEY));
	hf_set(row, LEDGER_CREATED_AT, TimestampTzGetDatum(call->now));
	hf_set(row, LEDGER_QUEUE, hf_get(job, JOB_QUEUE));
	hf_set(row, LEDGER_INTENT_VERSION, hf_get(job, JOB_INTENT_VERSION));
	hf_set(row, LEDGER_SUBJECT, hf_get(job, JOB_SUBJECT));
	hf_set(row, LEDGER_ACTION_KEY, hf_get(job, JOB_ACTION_KEY));
	if (!hf_is_null(job, JOB_SCOPE))
		hf_set(row, LEDGER_SCOPE, hf_get(job, JOB_SCOPE));
	hf_set(row, LEDGER_PAYLOAD_DIGEST, hf_get(job, JOB_PAYLOAD_DIGEST));
	hf_set(row, LEDGER_JOB_ID, hf_get(job, JOB_ID));
	hf_set(row, LEDGER_ATTEMPT_NUMBER, hf_get(job, JOB_ATTEMPT_NUMBER));
	hf_set(row, LEDGER_HAS_EFFECTS, BoolGetDatum(false));
	hf_set(row, LEDGER_CHANGED_AT, TimestampTzGetDatum(call->now));
	hf_set(row, LEDGER_STATE, hf_word(state));
	return row;
}

/* ---------------------------------------------------------------- child effects */

void
hf_ledger_free(List *rows)
{
	ListCell   *lc;

	foreach(lc, rows)
		hf_row_free(lfirst(lc));
	list_free(rows);
}

static int
by_key(const ListCell *a, const ListCell *b)
{
	return memcmp(hf_uuid((HfRow *) lfirst(a), LEDGER_KEY), hf_uuid((HfRow *) lfirst(b), LEDGER_KEY), UUID_LEN);
}

/* The rows of the child effects of an action, in the order of their keys; NIL where there are none. */
List *
hf_ledger_children(HfCall *call, const HfRow *ledger, bool lock)
{
	HfTable    *table = hf_open(call, HF_LEDGER);
	List	   *children = NIL;
	List	   *locked = NIL;
	ListCell   *lc;
	ScanKeyData key;
	IndexScanDesc scan;
	Snapshot	snapshot;
	HfRow	   *row;

	if (!hf_bool(ledger, LEDGER_HAS_EFFECTS))
		return NIL;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_UUID_EQ, hf_get(ledger, LEDGER_KEY));
	scan = hf_index_beginscan(table->rel, hf_index(table, "_parent"), snapshot, 1);
	index_rescan(scan, &key, 1, NULL, 0);
	row = hf_row_for(table);
	while (index_getnext_slot(scan, ForwardScanDirection, row->stored))
	{
		hf_row_load(row);
		children = lappend(children, row);
		row = hf_row_for(table);
	}
	hf_row_free(row);
	index_endscan(scan);
	UnregisterSnapshot(snapshot);
	list_sort(children, by_key);
	if (!lock)
		return children;
	foreach(lc, children)
	{
		/* the parent is locked, and whoever changes a child locks the parent first */
		if (hf_lock(call, lfirst(lc), false) == HF_LOCKED)
			locked = lappend(locked, lfirst(lc));
	}
	return locked;
}

/*
 * The attempt ended without success: child effects that were started are
 * unknown now.  Returns how many are unknown.
 */
int
hf_ledger_fail_children(HfCall *call, const HfRow *ledger, HfRow *job)
{
	int			unknown = 0;
	List	   *children = hf_ledger_children(call, ledger, true);
	ListCell   *lc;

	foreach(lc, children)
	{
		HfRow	   *child = lfirst(lc);

		if (hf_ledger_is(child, "started"))
			hf_ledger_set(call, child, job, "unknown", (Datum) 0);
		if (hf_ledger_is(child, "unknown"))
			unknown++;
	}
	hf_ledger_free(children);
	return unknown;
}

/* Whether a child effect is started or unknown; *unknown: one is unknown. */
bool
hf_ledger_open_child(HfCall *call, const HfRow *ledger, bool *unknown)
{
	bool		open = false;
	List	   *children = hf_ledger_children(call, ledger, true);
	ListCell   *lc;

	*unknown = false;
	foreach(lc, children)
	{
		if (hf_ledger_is(lfirst(lc), "unknown"))
			open = *unknown = true;
		else if (hf_ledger_is(lfirst(lc), "started"))
			open = true;
	}
	hf_ledger_free(children);
	return open;
}

/* Whether the action, or any child effect of it, is unknown. */
bool
hf_ledger_any_unknown(HfCall *call, const HfRow *ledger)
{
	List	   *children;
	ListCell   *lc;
	bool		unknown = hf_ledger_is(ledger, "unknown");

	if (unknown)
		return true;
	children = hf_ledger_children(call, ledger, false);
	foreach(lc, children)
		unknown |= hf_ledger_is(lfirst(lc), "unknown");
	hf_ledger_free(children);
	return unknown;
}

/*
 * {"charge": {"state": ..., "key": ..., "evidence": ...}, ...}, or 0 where there
 * are none.  A claim must be able to answer it, however many there are: what
 * is too much evidence for that is left out, and effects() has it.
 */
Datum
hf_ledger_effects(HfCall *call, const HfRow *ledger)
{
	HfDetail	all = {0};
	List	   *children;
	ListCell   *lc;
	Size		size = 0;

	if (ledger == NULL)
		return (Datum) 0;
	children = hf_ledger_children(call, ledger, false);
	foreach(lc, children)
	{
		HfRow	   *child = lfirst(lc);
		HfDetail	one = {0};

		hf_detail_text(&one, "state", hf_text(child, LEDGER_STATE));
		hf_detail_cstring(&one, "idempotency_key",
						  DatumGetCString(DirectFunctionCall1(uuid_out, hf_get(child, LEDGER_KEY))));
		if (!hf_is_null(child, LEDGER_EVIDENCE))
		{
			Jsonb	   *evidence = DatumGetJsonbP(hf_get(child, LEDGER_EVIDENCE));

			size += VARSIZE(evidence) + hf_jsonb_digits(evidence);
			if (size <= HF_MAX_JSONB)
				hf_detail_jsonb(&one, "evidence", evidence);
			else
				hf_detail_bool(&one, "evidence_left_out", true);
		}
		hf_detail_jsonb(&all, text_to_cstring(hf_text(child, LEDGER_EFFECT)), DatumGetJsonbP(hf_detail_end(&one)));
	}
	hf_ledger_free(children);
	return hf_detail_end(&all);
}
