/*-------------------------------------------------------------------------
 *
 * watchrecord.c
 *	  Attempts of watched rows: what a change of a row says of them.
 *
 * An attempt is one row of attempt_record: written where a row comes to be
 * running, completed where it ceases to be.  The second write changes no
 * indexed column but a key that came late, and so is HOT.
 *
 * A queue may take a row out and put it in again instead of updating it, and
 * an UPDATE that moves a row between partitions is a DELETE and an INSERT to
 * its triggers.  The deletion ends the attempt; the insertion of the same id
 * in the same transaction finds that end, takes it back, and goes on as the
 * one change that it was.  Nothing has to be remembered for it: the record's
 * own xmin says which transaction wrote it.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "access/sysattr.h"
#include "access/xact.h"
#include "commands/sequence.h"
#include "utils/builtins.h"
#include "utils/formatting.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"

#define DELETED "deleted"		/* stop_reason of an attempt whose row was deleted while it ran */

/* The row that speaks for the attempt: as it is now, or as it was last. */
static TupleTableSlot *
spokesman(const HfChange *c)
{
	return c->new != NULL ? c->new : c->old;
}

/* ---------------------------------------------------------------- what the change is */

static bool
same_text(const text *a, const text *b)
{
	if (a == NULL || b == NULL)
		return a == b;
	return VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(b) && memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) == 0;
}

static bool
text_changed(const HfChange *c, HfMapKey key, int max_bytes)
{
	if (!hf_watch_maps(c->w, key))
		return false;
	return !same_text(hf_watch_text(c->w, key, c->old, max_bytes), hf_watch_text(c->w, key, c->new, max_bytes));
}

/* 1: the count went up in this change, -1: down, 0: neither, or it is not mapped */
static int
count_moved(const HfChange *c, HfMapKey key)
{
	int32		before;
	int32		after;

	if (c->old == NULL || c->new == NULL || !hf_watch_int(c->w, key, c->old, &before) || !hf_watch_int(c->w, key, c->new, &after))
		return 0;
	return after > before ? 1 : after < before ? -1 : 0;
}

/* A running row was claimed anew: another lease, another count, or, where no lease is mapped, another worker. */
static bool
claimed_anew(const HfChange *c)
{
	if (count_moved(c, MAP_ATTEMPT_NUMBER) > 0)
		return true;
	if (hf_watch_maps(c->w, MAP_LEASE))
		return text_changed(c, MAP_LEASE, HF_MAX_TEXT);
	return text_changed(c, MAP_WORKER_NAME, HF_MAX_NAME);
}

static bool
time_changed(const HfChange *c, HfMapKey key)
{
	TimestampTz before = 0;
	TimestampTz after = 0;
	bool		had = hf_watch_time(c->w, key, c->old, &before);
	bool		has = hf_watch_time(c->w, key, c->new, &after);

	return had != has || before != after;
}

/* What the change is, from the row alone; false: nothing that evidence is kept of. */
bool
hf_change_classify(HfChange *c)
{
	HfWatch    *w = c->w;

	if (!((c->new != NULL && hf_watch_when(w, c->new)) || (c->old != NULL && hf_watch_when(w, c->old))))
		return false;
	c->was = c->old != NULL ? hf_watch_class(w, c->old) : HF_ROW_ABSENT;
	c->is = c->new != NULL ? hf_watch_class(w, c->new) : HF_ROW_ABSENT;

	if (c->old == NULL)
		c->begins = (c->is == HF_ROW_RUNNING);
	else if (c->was == HF_ROW_RUNNING && c->is == HF_ROW_RUNNING)
	{
		c->begins = c->ends = claimed_anew(c);
		return c->begins || time_changed(c, MAP_LEASE_EXPIRES_AT) || text_changed(c, MAP_IDEMPOTENCY_KEY, HF_MAX_TEXT);
	}
	else if (c->was == HF_ROW_RUNNING)
		c->ends = true;
	else if (c->is == HF_ROW_RUNNING)
		c->begins = true;
	else if (w->blind && c->was == HF_ROW_PENDING)
		c->ends = (c->is != HF_ROW_PENDING && c->is != HF_ROW_OTHER) || count_moved(c, MAP_ATTEMPT_NUMBER) > 0;
	c->requeued = c->is == HF_ROW_PENDING && c->old != NULL && (c->ends || c->was != HF_ROW_PENDING);
	return c->old == NULL || c->begins || c->ends || c->requeued || (c->was == HF_ROW_FAILED && c->is == HF_ROW_DEAD);
}

/* ---------------------------------------------------------------- finding the latest attempt */

bool
hf_record_is(const HfRow *record, int column, const char *word)
{
	return record != NULL && !hf_is_null(record, column) && hf_text_is(hf_get(record, column), word);
}

/*
 * The newest record of a row, or NULL: by the index, from its end.  It orders
 * by started_at, which therefore never goes back within a row (after_last).
 */
static HfRow *
find_last(HfCall *call, HfWatch *w, text *id)
{
	HfTable    *table = hf_open(call, HF_RECORD);
	HfRow	   *row = hf_row_for(table);
	SnapshotData dirty;
	ScanKeyData key[2];
	IndexScanDesc scan;
	bool		found = false;

	InitDirtySnapshot(dirty);
	ScanKeyInit(&key[0], 1, BTEqualStrategyNumber, F_TEXTEQ, PointerGetDatum(id));
	ScanKeyInit(&key[1], 2, BTEqualStrategyNumber, F_TEXTEQ, CStringGetTextDatum(w->source));
	key[0].sk_collation = key[1].sk_collation = C_COLLATION_OID;
	scan = hf_index_beginscan(table->rel, hf_index(table, "_job"), &dirty, 2);
	index_rescan(scan, key, 2, NULL, 0);
	while (!found && index_getnext_slot(scan, BackwardScanDirection, row->stored))
		found = !TransactionIdIsValid(dirty.xmin);
	index_endscan(scan);
	if (found)
	{
		hf_row_load(row);
		/* what an earlier watch recorded may be of another table that had this name */
		found = hf_time(row, RECORD_RECORDED_AT) >= w->since;
	}
	if (!found)
	{
		hf_row_free(row);
		return NULL;
	}
	return row;
}

/* Whether the record's newest version was written by this transaction. */
static bool
written_here(HfRow *record)
{
	bool		isnull;
	Datum		xmin = slot_getsysattr(record->stored, MinTransactionIdAttributeNumber, &isnull);

	return TransactionIdIsCurrentTransactionId(DatumGetTransactionId(xmin));
}

/* An inserted row whose attempt was ended by its deletion a moment ago: one change. */
static void
take_back_deletion(HfChange *c)
{
	static const int ended[] = {RECORD_FINISHED_AT, RECORD_OUTCOME, RECORD_WORKER_RESULT, RECORD_SIDE_EFFECT_STATE,
		RECORD_ELAPSED_MS, RECORD_FAILURES, RECORD_FINAL, RECORD_STOP_REASON, RECORD_NEXT_NOT_BEFORE, RECORD_DELAY_MS,
		RECORD_EXCEPTION_CLASS, RECORD_MESSAGE};
	int32		number;

	if (!hf_record_is(c->last, RECORD_STOP_REASON, DELETED) || !written_here(c->last))
		return;
	for (int i = 0; i < lengthof(ended); i++)
		hf_set_null(c->last, ended[i]);
	c->open = true;
	c->was = HF_ROW_RUNNING;
	c->requeued = (c->is == HF_ROW_PENDING);
	c->begins = c->ends = true;
	if (c->is != HF_ROW_RUNNING)
		c->begins = false;
	else if (hf_watch_maps(c->w, MAP_LEASE) && !hf_is_null(c->last, RECORD_LEASE_ID))
		c->begins = c->ends = !same_text(hf_watch_text(c->w, MAP_LEASE, c->new, HF_MAX_TEXT), hf_text(c->last, RECORD_LEASE_ID));
	else
		c->begins = c->ends = hf_watch_int(c->w, MAP_ATTEMPT_NUMBER, c->new, &number) &&
			!hf_is_null(c->last, RECORD_ATTEMPT_NUMBER) && number > hf_int32(c->last, RECORD_ATTEMPT_NUMBER);
}

/* Find the row's latest attempt; what an insertion is may turn on it. */
void
hf_change_look_up(HfChange *c)
{
	c->id = hf_watch_text(c->w, MAP_ID, c->old != NULL ? c->old : c->new, HF_MAX_TEXT);
	if (c->id == NULL)
		c->id = cstring_to_text("(null)");
	c->last = find_last(c->call, c->w, c->id);
	c->open = c->last != NULL && hf_is_null(c->last, RECORD_OUTCOME);
	if (c->old == NULL && c->last != NULL && !c->open)
		take_back_deletion(c);
}

/* ---------------------------------------------------------------- the end of an attempt */

static bool
says_timeout(const text *class, const text *message)
{
	static const char *const words[] = {"timeout", "timedout", "timed out", "deadlineexceeded", "deadline exceeded", "deadline_exceeded"};
	const text *said = class != NULL ? class : message;
	char	   *lower;

	if (said == NULL)
		return false;
	lower = asc_tolower(VARDATA_ANY(said), Min(VARSIZE_ANY_EXHDR(said), HF_MAX_TEXT));
	for (int i = 0; i < lengthof(words); i++)
		if (strstr(lower, words[i]) != NULL)
			return true;
	return false;
}

/*
 * A row put back with its count taken back was not charged: it was released,
 * or snoozed where it is to come later.  Anything else that puts a running
 * row back is a failure, also where no error is named: that is the bug that
 * is looked for.
 */
static const char *
outcome_of_requeue(const HfChange *c, const char *failed)
{
	TimestampTz run_after;

	if (count_moved(c, MAP_ATTEMPT_NUMBER) >= 0 && count_moved(c, MAP_MAX_ATTEMPTS) <= 0)
		return failed;
	return hf_watch_time(c->w, MAP_RUN_AFTER, c->new, &run_after) && run_after > c->call->now ? "snoozed" : "released";
}

const char *
hf_change_outcome(const HfChange *c)
{
	TupleTableSlot *row = spokesman(c);
	const char *failed = says_timeout(hf_watch_text(c->w, MAP_EXCEPTION_CLASS, row, HF_MAX_NAME),
									  hf_watch_text(c->w, MAP_MESSAGE, row, HF_MAX_MESSAGE)) ? "timeout" : "failed";
	HfRowClass	is = c->is == HF_ROW_ABSENT ? c->w->gone : c->is;

	switch (is)
	{
		case HF_ROW_SUCCEEDED:
			return "succeeded";
		case HF_ROW_FAILED:
		case HF_ROW_DEAD:
			return failed;
		case HF_ROW_RUNNING:
			return "lost";
		case HF_ROW_PENDING:
			return c->new != NULL ? outcome_of_requeue(c, failed) : "released";
		default:
			return "cancelled";
	}
}

/*
 * The n of the backoff formula: attempts so far.  A mapped column says it as
 * the change leaves it, whether the claim counts or the failure; an expression
 * over it was meant for the running attempt, so it is taken as it was then.
 */
int32
hf_change_failures(HfChange *c)
{
	TupleTableSlot *slot = c->w->fields[MAP_ATTEMPT_NUMBER].expr != NULL && c->old != NULL ? c->old : spokesman(c);
	int32		n;

	if (!hf_watch_int(c->w, MAP_ATTEMPT_NUMBER, slot, &n))
		n = c->last != NULL && !hf_is_null(c->last, RECORD_ATTEMPT_NUMBER) ? hf_int32(c->last, RECORD_ATTEMPT_NUMBER) : 1;
	return Max(n, 1);
}

static void
set_text(HfRow *record, int column, text *value)
{
	if (value != NULL)
		hf_set(record, column, PointerGetDatum(value));
	else
		hf_set_null(record, column);
}

/* Not before which time the row is to run again, and by which policy. */
static void
set_retry(HfChange *c, HfRow *record)
{
	TimestampTz run_after;
	text	   *policy = hf_watch_text(c->w, MAP_RETRY_POLICY, c->new, HF_MAX_NAME);

	if (policy == NULL && c->w->mode == HF_CORRECT)
		policy = DatumGetTextPP(hf_word("default"));
	set_text(record, RECORD_RETRY_POLICY, policy);
	if (!hf_watch_time(c->w, MAP_RUN_AFTER, c->new, &run_after) || TIMESTAMP_NOT_FINITE(run_after))
		return;
	hf_set(record, RECORD_NEXT_NOT_BEFORE, TimestampTzGetDatum(run_after));
	if (run_after > c->call->now)
		hf_set(record, RECORD_DELAY_MS, Int64GetDatum((run_after - c->call->now) / 1000));
}

static void
set_end(HfChange *c, HfRow *record)
{
	TupleTableSlot *row = spokesman(c);
	const char *outcome = hf_change_outcome(c);

	hf_set(record, RECORD_OUTCOME, hf_word(outcome));
	hf_set(record, RECORD_WORKER_RESULT, hf_word(outcome));
	if (strcmp(outcome, "lost") != 0)
		hf_set(record, RECORD_FINISHED_AT, TimestampTzGetDatum(c->call->now));
	hf_set(record, RECORD_ELAPSED_MS, Int64GetDatum(Max((c->call->now - hf_time(record, RECORD_STARTED_AT)) / 1000, 0)));
	if (strcmp(outcome, "timeout") == 0 || strcmp(outcome, "lost") == 0)
		hf_set(record, RECORD_SIDE_EFFECT_STATE, hf_word("unknown"));
	if (strcmp(outcome, "failed") == 0 || strcmp(outcome, "timeout") == 0)
	{
		set_text(record, RECORD_EXCEPTION_CLASS, hf_watch_text(c->w, MAP_EXCEPTION_CLASS, row, HF_MAX_NAME));
		set_text(record, RECORD_MESSAGE, hf_watch_text(c->w, MAP_MESSAGE, row, HF_MAX_MESSAGE));
		hf_set(record, RECORD_FAILURES, Int32GetDatum(hf_change_failures(c)));
	}
	if (c->is == HF_ROW_PENDING || (c->is == HF_ROW_FAILED && c->w->has_dead))
		set_retry(c, record);
	else if (c->is != HF_ROW_RUNNING)
	{
		text	   *status = c->new != NULL ? hf_watch_text(c->w, MAP_STATUS, c->new, HF_MAX_NAME) : NULL;

		hf_set(record, RECORD_FINAL, BoolGetDatum(true));
		hf_set(record, RECORD_STOP_REASON, status != NULL ? PointerGetDatum(status) : hf_word(DELETED));
	}
}

/* ---------------------------------------------------------------- its beginning */

/*
 * Attempts count from 1.  Where the claim counts, the column says the number;
 * where the failure does, it is the count of those before.  Which of the two
 * a queue does shows at its claims: the column moves or it does not.  An
 * expression says the number itself.
 */
int32
hf_change_number(const HfChange *c, bool *counted_at_claim)
{
	int32		number;
	bool		before = c->last != NULL && !hf_is_null(c->last, RECORD_COUNTED_AT_CLAIM) && hf_bool(c->last, RECORD_COUNTED_AT_CLAIM);

	*counted_at_claim = true;
	if (!hf_watch_int(c->w, MAP_ATTEMPT_NUMBER, c->new, &number))
		return c->last != NULL && !hf_is_null(c->last, RECORD_ATTEMPT_NUMBER) ? hf_next_attempt(hf_int32(c->last, RECORD_ATTEMPT_NUMBER)) : 1;
	if (c->w->fields[MAP_ATTEMPT_NUMBER].att == 0 || count_moved(c, MAP_ATTEMPT_NUMBER) > 0 || before ||
		(c->old == NULL && c->last == NULL && number > 0))
		return number;
	*counted_at_claim = false;
	return hf_next_attempt(number);
}

/* The number of an attempt whose beginning was not seen. */
static int32
number_unseen(const HfChange *c, TupleTableSlot *row)
{
	int32		number;

	return hf_watch_int(c->w, MAP_ATTEMPT_NUMBER, row, &number) ? Max(number, 1) : 1;
}

/* A clock that stands or steps back must not put an attempt before the one it follows. */
static TimestampTz
after_last(const HfChange *c, TimestampTz at)
{
	return c->last != NULL && at <= hf_time(c->last, RECORD_STARTED_AT) ? hf_time(c->last, RECORD_STARTED_AT) + 1 : at;
}

/* A record of the attempt that "row" is running. */
static HfRow *
new_record(HfChange *c, TupleTableSlot *row, TimestampTz started_at)
{
	HfWatch    *w = c->w;
	HfRow	   *r = hf_row_new(hf_open(c->call, HF_RECORD));
	text	   *subject = hf_watch_text(w, MAP_SUBJECT, row, HF_MAX_TEXT);
	text	   *action = hf_watch_text(w, MAP_ACTION_KEY, row, HF_MAX_NAME);
	text	   *lease = hf_watch_text(w, MAP_LEASE, row, HF_MAX_TEXT);
	bytea	   *digest = hf_watch_digest(w, row);
	bool		begins = (row == c->new);
	bool		counted = false;
	int32		number = begins ? hf_change_number(c, &counted) : number_unseen(c, row);
	int32		max_attempts;
	int64		timeout_ms = hf_watch_ms(w, MAP_TIMEOUT, row);
	TimestampTz expires;

	started_at = after_last(c, started_at);
	hf_set(r, RECORD_ID, Int64GetDatum(nextval_internal(hf_sequence_oid("record_id_seq"), false)));
	hf_set(r, RECORD_RECORDED_AT, TimestampTzGetDatum(c->call->now));
	hf_set(r, RECORD_SOURCE, CStringGetTextDatum(w->source));
	hf_set(r, RECORD_JOB_ID, PointerGetDatum(c->id));
	hf_set(r, RECORD_SUBJECT, PointerGetDatum(subject != NULL ? subject : c->id));
	hf_set(r, RECORD_ACTION_KEY, action != NULL ? PointerGetDatum(action) : CStringGetTextDatum(w->source));
	hf_set(r, RECORD_STARTED_AT, TimestampTzGetDatum(started_at));
	hf_set(r, RECORD_ATTEMPT_NUMBER, Int32GetDatum(number));
	if (begins)
		hf_set(r, RECORD_COUNTED_AT_CLAIM, BoolGetDatum(counted));
	hf_set(r, RECORD_SYNTHETIC_LEASE, BoolGetDatum(lease == NULL));
	if (lease == NULL)			/* nothing in the row is new at each claim but these */
		lease = cstring_to_text(psprintf("%s:%d:%s", text_to_cstring(c->id), number, hf_time_text(started_at)));
	hf_set(r, RECORD_LEASE_ID, PointerGetDatum(lease));
	set_text(r, RECORD_KEY, hf_watch_text(w, MAP_IDEMPOTENCY_KEY, row, HF_MAX_TEXT));
	set_text(r, RECORD_SCOPE, hf_watch_text(w, MAP_SCOPE, row, HF_MAX_TEXT));
	set_text(r, RECORD_WORKER_NAME, hf_watch_text(w, MAP_WORKER_NAME, row, HF_MAX_NAME));
	set_text(r, RECORD_RETRY_POLICY, hf_watch_text(w, MAP_RETRY_POLICY, row, HF_MAX_NAME));
	if (hf_watch_time(w, MAP_LEASE_EXPIRES_AT, row, &expires) && !TIMESTAMP_NOT_FINITE(expires))
		hf_set(r, RECORD_LEASE_EXPIRES_AT, TimestampTzGetDatum(expires));
	if (timeout_ms >= 0)
		hf_set(r, RECORD_TIMEOUT_MS, Int64GetDatum(timeout_ms));
	if (hf_watch_int(w, MAP_MAX_ATTEMPTS, row, &max_attempts))
		hf_set(r, RECORD_MAX_ATTEMPTS, Int32GetDatum(max_attempts));
	if (digest != NULL)
		hf_set(r, RECORD_PAYLOAD_DIGEST, PointerGetDatum(digest));
	return r;
}

/* ---------------------------------------------------------------- writing */

/*
 * Store c->last.  If another transaction changed the record meanwhile (an
 * operator's redrive, a purge), its newest version takes over what this change
 * says, but for the operator's mark.
 */
static void
store(HfChange *c)
{
	while (!hf_update(c->call, c->last))
	{
		HfRow	   *newest = find_last(c->call, c->w, c->id);
		bool		null;
		Datum		redriven;

		if (newest == NULL || hf_int64(newest, RECORD_ID) != hf_int64(c->last, RECORD_ID))
			return;				/* purged: there is nothing to complete */
		redriven = hf_get(newest, RECORD_REDRIVEN);
		null = hf_is_null(newest, RECORD_REDRIVEN);
		hf_row_copy(newest, c->last, RECORD_NCOLUMNS);
		if (!null)
			hf_set(newest, RECORD_REDRIVEN, redriven);
		c->last = newest;
	}
}

static void
record_end(HfChange *c)
{
	if (c->open)
	{
		set_end(c, c->last);
		store(c);
	}
	else
	{
		/* It began unseen: before the watch did, or by a claim that writes nothing. */
		TimestampTz began = c->w->blind ? GetCurrentTransactionStartTimestamp() : c->w->since;
		HfRow	   *record = new_record(c, c->old, Min(began, c->call->now));

		set_end(c, record);
		hf_insert(c->call, record);
		hf_row_free(record);
	}
	c->open = false;
}

/* A sign of life under the lease, or a key that came late. */
static void
record_progress(HfChange *c)
{
	TimestampTz expires;

	if (hf_is_null(c->last, RECORD_KEY))
		set_text(c->last, RECORD_KEY, hf_watch_text(c->w, MAP_IDEMPOTENCY_KEY, c->new, HF_MAX_TEXT));
	if (hf_watch_time(c->w, MAP_LEASE_EXPIRES_AT, c->new, &expires) && !TIMESTAMP_NOT_FINITE(expires))
		hf_set(c->last, RECORD_LEASE_EXPIRES_AT, TimestampTzGetDatum(expires));
	hf_set(c->last, RECORD_LAST_REPORT_AT, TimestampTzGetDatum(c->call->now));
	store(c);
}

/* A row whose attempt had ended is pending again, or dead after all. */
static void
record_afterthought(HfChange *c)
{
	if (c->requeued)
	{
		hf_set(c->last, RECORD_FINAL, BoolGetDatum(false));
		hf_set_null(c->last, RECORD_STOP_REASON);
		if (hf_is_null(c->last, RECORD_NEXT_NOT_BEFORE) ||
			(!hf_is_null(c->last, RECORD_FINISHED_AT) &&
			 hf_time(c->last, RECORD_NEXT_NOT_BEFORE) <= hf_time(c->last, RECORD_FINISHED_AT)))
			set_retry(c, c->last);
	}
	else
	{
		hf_set(c->last, RECORD_FINAL, BoolGetDatum(true));
		set_text(c->last, RECORD_STOP_REASON, hf_watch_text(c->w, MAP_STATUS, c->new, HF_MAX_NAME));
	}
	store(c);
}

/* Write what the change says of attempts. */
void
hf_change_record(HfChange *c)
{
	if (c->begins && c->open && !c->ends)
	{
		/* Its end was not seen: the trigger was off, or the table was truncated. */
		HfRowClass	is = c->is;

		c->is = HF_ROW_RUNNING;
		record_end(c);
		c->is = is;
	}
	if (c->ends)
		record_end(c);
	else if (c->open && !c->begins && c->is == HF_ROW_RUNNING)
		record_progress(c);
	else if (c->last != NULL && !c->open && !c->begins && c->old != NULL &&
			 (c->requeued || (c->was == HF_ROW_FAILED && c->is == HF_ROW_DEAD)))
		record_afterthought(c);
	if (c->begins)
	{
		HfRow	   *record = new_record(c, c->new, c->call->now);

		hf_insert(c->call, record);
		hf_row_free(record);
	}
}

/* An operator puts the row back: what follows its latest attempt is no violation. */
void
hf_record_redriven(HfCall *call, HfWatch *w, text *id)
{
	HfChange	c = {.call = call, .w = w, .id = id};

	c.last = find_last(call, w, id);
	if (c.last == NULL || hf_is_null(c.last, RECORD_OUTCOME))
		return;
	do
	{
		hf_set(c.last, RECORD_REDRIVEN, BoolGetDatum(true));
		if (hf_update(call, c.last))
			return;
		c.last = find_last(call, w, id);
	}
	while (c.last != NULL && !hf_is_null(c.last, RECORD_OUTCOME));
}
