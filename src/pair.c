/*-------------------------------------------------------------------------
 *
 * pair.c
 *	  Which attempts belong together, and the verdict on each two.
 *
 * holdfast.pairs() is a window function over the attempts of one source,
 * subject and action, in their order: by start, then attempt number, then
 * arrival (within a native job that is the order of attempt numbers, since the
 * times of a job's events never go back).  For each attempt B it answers its
 * pairs with earlier attempts A:
 *
 *	(1) the attempt before it in its job;
 *	(2) each earlier attempt of its job, under another lease, whose end is on
 *		record and after B's start;
 *	(3) one attempt of another job, started since B's predecessor in its own job
 *		if it has one: the latest-started with B's key; else the latest-started
 *		that ended (or, its end unknown, started) at most pair_window before B.
 *
 * A partition is read once and forwards.  What is kept of it: per job its last
 * attempt and those not yet over; per key the latest attempt, and the latest of
 * another job than that one's; and for the second half of (3) a stack, in which
 * an attempt lies only while no later-started one reaches as far.  Each is
 * entered and leaves once, so that the work is linear in attempts and pairs,
 * and no index or second sort is needed.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include <math.h>

#include "catalog/pg_type_d.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"
#include "windowapi.h"

static int	pair_window = 86400;	/* holdfast.pair_window, in seconds */

/* the arguments of holdfast.pairs(), in their order */
enum
{
	P_SOURCE, P_JOB_ID, P_ATTEMPT_NUMBER, P_LEASE_ID, P_STARTED_AT, P_ENDED_AT, P_CLOSED_AT, P_KEY, P_SCOPE,
	P_INTENT_VERSION, P_OUTCOME, P_SIDE_EFFECT_STATE, P_NEXT_NOT_BEFORE, P_RETRY_POLICY, P_DELAY_MS, P_REDRIVEN,
	P_WORKER_NAME, P_MODE, P_TIMEOUT_MS, P_PAYLOAD_DIGEST, P_EXCEPTION_CLASS, P_ERROR_DIGEST, P_ELAPSED_MS,
	P_EVIDENCE_HASH, P_REPEATS, P_LAST_REPEAT_AT, P_WANTED,
	P_NARGS
};

/* An attempt, in one piece of memory with its texts; freed with the last of those that refer to it. */
typedef struct Attempt
{
	Datum		value[P_WANTED];
	bool		null[P_WANTED];
	int			references;
	struct Job *job;
	struct Key *key;			/* NULL: no key on record */
	bool		native;
	int			redrives_before;	/* of its job, by an operator */
	TimestampTz reach;			/* its end; its start, if the end is unknown */
} Attempt;

/* One job, or one key, by its text. */
typedef struct Entry
{
	uint32		hash;
	text	   *name;
} Entry;

typedef struct Job
{
	Entry		entry;
	Attempt    *last;
	Attempt   **open;			/* those whose end is on record and was not over when last looked at */
	int			nopen;
	int			aopen;
	bool		mixed;			/* not all of them are under the lease of open[0] */
	int			redrives;
} Job;

typedef struct Key
{
	Entry		entry;
	Attempt    *latest;
	Attempt    *other;			/* the latest of another job than that */
} Key;

typedef struct Names
{
	Entry	  **slot;
	int			size;			/* a power of 2 */
	int			used;
} Names;

/* What is kept of a partition; zeroed by the executor when one begins. */
typedef struct Partition
{
	MemoryContext cxt;
	Names		jobs;
	Names		keys;
	Attempt   **stack;
	int			depth;
	int			allocated;
} Partition;

#define IS_NULL(a, c)	((a)->null[c])
#define TIME(a, c)		DatumGetTimestampTz((a)->value[c])
#define INT(a, c)		DatumGetInt32((a)->value[c])
#define BIGINT(a, c)	DatumGetInt64((a)->value[c])
#define TEXT(a, c)		((text *) DatumGetPointer((a)->value[c]))

static const struct
{
	bool		byval;
	int16		len;
}			types[P_WANTED] = {
	[P_SOURCE] = {false, -1}, [P_JOB_ID] = {false, -1}, [P_ATTEMPT_NUMBER] = {true, 4}, [P_LEASE_ID] = {false, -1},
	[P_STARTED_AT] = {true, 8}, [P_ENDED_AT] = {true, 8}, [P_CLOSED_AT] = {true, 8}, [P_KEY] = {false, -1},
	[P_SCOPE] = {false, -1}, [P_INTENT_VERSION] = {true, 4}, [P_OUTCOME] = {false, -1},
	[P_SIDE_EFFECT_STATE] = {false, -1}, [P_NEXT_NOT_BEFORE] = {true, 8}, [P_RETRY_POLICY] = {false, -1},
	[P_DELAY_MS] = {true, 8}, [P_REDRIVEN] = {true, 1}, [P_WORKER_NAME] = {false, -1}, [P_MODE] = {false, -1},
	[P_TIMEOUT_MS] = {true, 8}, [P_PAYLOAD_DIGEST] = {false, -1}, [P_EXCEPTION_CLASS] = {false, -1},
	[P_ERROR_DIGEST] = {false, UUID_LEN}, [P_ELAPSED_MS] = {true, 8}, [P_EVIDENCE_HASH] = {true, 8},
	[P_REPEATS] = {true, 8}, [P_LAST_REPEAT_AT] = {true, 8},
};

/* ---------------------------------------------------------------- what is kept of a partition */

static bool
same_text(const text *a, const text *b)
{
	return VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(b) && memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) == 0;
}

/* The entry of a name; made, with "size" zeroed bytes, if there is none. */
static void *
named(Partition *part, Names *names, text *name, Size size)
{
	uint32		hash = hash_bytes((const unsigned char *) VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));
	Entry	   *entry;
	int			at;

	if (2 * names->used >= names->size)
	{
		int			old_size = names->size;
		Entry	  **old = names->slot;

		names->size = Max(4, 2 * old_size);
		names->slot = MemoryContextAllocExtended(part->cxt, sizeof(Entry *) * names->size, MCXT_ALLOC_ZERO | MCXT_ALLOC_HUGE);
		for (int i = 0; i < old_size; i++)
			if (old[i] != NULL)
			{
				for (at = old[i]->hash & (names->size - 1); names->slot[at] != NULL; at = (at + 1) & (names->size - 1));
				names->slot[at] = old[i];
			}
		if (old != NULL)
			pfree(old);
	}
	for (at = hash & (names->size - 1); (entry = names->slot[at]) != NULL; at = (at + 1) & (names->size - 1))
		if (entry->hash == hash && same_text(entry->name, name))
			return entry;
	entry = names->slot[at] = MemoryContextAllocZero(part->cxt, size + VARSIZE_ANY(name));
	entry->hash = hash;
	entry->name = (text *) ((char *) entry + size);
	memcpy(entry->name, name, VARSIZE_ANY(name));
	names->used++;
	return entry;
}

static bool
text_is(const Attempt *a, int column, const char *word)
{
	return !IS_NULL(a, column) && hf_text_is(a->value[column], word);
}

static void
release(Attempt *a)
{
	if (a != NULL && --a->references == 0)
		pfree(a);
}

/* "place" refers to A instead of what it referred to. */
static void
refer(Attempt **place, Attempt *a)
{
	if (a != NULL)
		a->references++;
	release(*place);
	*place = a;
}

typedef enum LeaseRelation
{
	SAME_LEASE, OTHER_LEASE, UNTOLD_LEASE
} LeaseRelation;

static LeaseRelation
leases(const Attempt *a, const Attempt *b)
{
	if (!IS_NULL(a, P_LEASE_ID) && !IS_NULL(b, P_LEASE_ID))
		return same_text(TEXT(a, P_LEASE_ID), TEXT(b, P_LEASE_ID)) ? SAME_LEASE : OTHER_LEASE;
	if (!IS_NULL(a, P_ATTEMPT_NUMBER) && !IS_NULL(b, P_ATTEMPT_NUMBER) && INT(a, P_ATTEMPT_NUMBER) != INT(b, P_ATTEMPT_NUMBER))
		return OTHER_LEASE;
	return UNTOLD_LEASE;
}

/* The row that the window function stands on, copied into the partition's memory; the caller holds a reference. */
static Attempt *
current_attempt(WindowObject winobj, Partition *part)
{
	Attempt		row;
	Attempt    *a;
	Size		size = MAXALIGN(sizeof(Attempt));
	char	   *place;

	for (int c = 0; c < P_WANTED; c++)
	{
		row.value[c] = WinGetFuncArgCurrent(winobj, c, &row.null[c]);
		if (row.null[c] || types[c].byval)
			continue;
		if (types[c].len == -1)
			row.value[c] = PointerGetDatum(PG_DETOAST_DATUM_PACKED(row.value[c]));
		size += datumGetSize(row.value[c], false, types[c].len);
	}
	/* the views give both; a reader may call the function by hand */
	if (row.null[P_JOB_ID] || row.null[P_STARTED_AT])
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", row.null[P_JOB_ID] ? "job_id" : "started_at")));
	a = MemoryContextAlloc(part->cxt, size);
	place = (char *) a + MAXALIGN(sizeof(Attempt));
	for (int c = 0; c < P_WANTED; c++)
	{
		a->null[c] = row.null[c];
		a->value[c] = row.value[c];
		if (row.null[c] || types[c].byval)
			continue;
		size = datumGetSize(row.value[c], false, types[c].len);
		memcpy(place, DatumGetPointer(row.value[c]), size);
		a->value[c] = PointerGetDatum(place);
		place += size;
	}
	a->references = 1;
	a->native = text_is(a, P_SOURCE, "native");
	a->job = named(part, &part->jobs, TEXT(a, P_JOB_ID), MAXALIGN(sizeof(Job)));
	a->key = IS_NULL(a, P_KEY) ? NULL : named(part, &part->keys, TEXT(a, P_KEY), MAXALIGN(sizeof(Key)));
	a->redrives_before = a->job->redrives;
	a->reach = IS_NULL(a, P_ENDED_AT) ? TIME(a, P_STARTED_AT) : TIME(a, P_ENDED_AT);
	return a;
}

static void
push(MemoryContext cxt, Attempt ***list, int *n, int *allocated, Attempt *a)
{
	if (*n == *allocated)
	{
		*allocated = Max(4, 2 * *allocated);
		*list = *list == NULL ? MemoryContextAlloc(cxt, sizeof(Attempt *) * *allocated)
			: repalloc_huge(*list, sizeof(Attempt *) * *allocated);
	}
	a->references++;
	(*list)[(*n)++] = a;
}

/* B has been dealt with, and becomes an earlier attempt. */
static void
keep(Partition *part, Attempt *b)
{
	Job		   *job = b->job;

	refer(&job->last, b);
	job->redrives += !IS_NULL(b, P_REDRIVEN) && DatumGetBool(b->value[P_REDRIVEN]);
	if (!IS_NULL(b, P_ENDED_AT) && TIME(b, P_ENDED_AT) > TIME(b, P_STARTED_AT))
	{
		job->mixed = job->nopen > 0 && (job->mixed || leases(job->open[0], b) != SAME_LEASE);
		push(part->cxt, &job->open, &job->nopen, &job->aopen, b);
	}
	if (b->key != NULL)
	{
		if (b->key->latest != NULL && b->key->latest->job != job)
			refer(&b->key->other, b->key->latest);
		refer(&b->key->latest, b);
	}

	/*
	 * Who started earlier and reaches no further is never the latest that
	 * fits.  Of those that started at the same time one may be of the job
	 * that asks, so they stay.
	 */
	while (part->depth > 0 && part->stack[part->depth - 1]->reach <= b->reach &&
		   TIME(part->stack[part->depth - 1], P_STARTED_AT) < TIME(b, P_STARTED_AT))
		release(part->stack[--part->depth]);
	push(part->cxt, &part->stack, &part->depth, &part->allocated, b);
}

/* Rule (3): the one attempt of another job that B is paired with, or NULL. */
static Attempt *
of_another_job(Partition *part, const Attempt *b)
{
	TimestampTz earliest = TIME(b, P_STARTED_AT) - (int64) pair_window * USECS_PER_SEC;
	TimestampTz since = b->job->last != NULL ? TIME(b->job->last, P_STARTED_AT) : DT_NOBEGIN;

	if (b->key != NULL)
	{
		Attempt    *a = b->key->latest;

		if (a != NULL && a->job == b->job)
			a = b->key->other;
		if (a != NULL && TIME(a, P_STARTED_AT) >= since)
			return a;
	}
	/* starts only grow: who is out of the window now is so for good */
	while (part->depth > 0 && part->stack[part->depth - 1]->reach < earliest)
		release(part->stack[--part->depth]);
	for (int i = part->depth - 1; i >= 0 && TIME(part->stack[i], P_STARTED_AT) >= since; i--)
		if (part->stack[i]->job != b->job && part->stack[i]->reach >= earliest)
			return part->stack[i];
	return NULL;
}

/* ---------------------------------------------------------------- the verdict */

const char *const hf_verdicts[] = {
	"duplicate_log", "lease_overlap", "distinct_intent", "duplicate_side_effect_risk", "repeat_after_success", "resumed",
	"duplicate_dispatch", "duplicate_scheduling", "retry_without_backoff", "legitimate_delayed_retry", "unexplained"
};

/* Natively a missing scope is an intent's own, and so differs from any; in a log it is not on record. */
static bool
scopes_differ(const Attempt *a, const Attempt *b)
{
	if (IS_NULL(a, P_SCOPE) || IS_NULL(b, P_SCOPE))
		return a->native && IS_NULL(a, P_SCOPE) != IS_NULL(b, P_SCOPE);
	return !same_text(TEXT(a, P_SCOPE), TEXT(b, P_SCOPE));
}

/* What became of the attempt's effect is known. */
static bool
is_settled(const Attempt *a)
{
	return !IS_NULL(a, P_OUTCOME) && !text_is(a, P_OUTCOME, "timeout") && !text_is(a, P_OUTCOME, "lost") &&
		!text_is(a, P_SIDE_EFFECT_STATE, "unknown");
}

/*
 * The least delay that the policy gives: min_delay bounds what is asked for,
 * the policy's own first delay may lie below it.  -1 where it is not known, or
 * not holdfast that decided.
 */
static int64
least_delay(const Attempt *a)
{
	const HfPolicy *policy;

	if (!a->native || IS_NULL(a, P_RETRY_POLICY) || IS_NULL(a, P_DELAY_MS))
		return -1;
	policy = hf_policy(text_to_cstring(TEXT(a, P_RETRY_POLICY)));
	return policy == NULL ? -1 : Min(policy->min_ms, policy->base_ms);
}

/* Every verdict that fits, as bits; 0: none does. */
static uint32
verdict_bits(const Attempt *a, const Attempt *b)
{
	TimestampTz start = TIME(b, P_STARTED_AT);
	bool		ended = !IS_NULL(a, P_ENDED_AT);
	bool		before_end = ended && start < TIME(a, P_ENDED_AT);
	bool		after_end = ended && !before_end;
	bool		same_job = a->job == b->job;
	bool		same_key = a->key != NULL && a->key == b->key;
	bool		other_keys = a->key != NULL && b->key != NULL && a->key != b->key;
	LeaseRelation lease = same_job ? leases(a, b) : UNTOLD_LEASE;
	bool		delayed;		/* a time after A's close was set, and kept */
	uint32		bits = 0;

	if (same_job && lease == SAME_LEASE && (before_end || start == TIME(a, P_STARTED_AT)))
		bits |= 1 << DUPLICATE_LOG;
	if (same_job && lease == OTHER_LEASE && before_end)
		bits |= 1 << LEASE_OVERLAP;
	if (!same_job && !same_key &&
		(scopes_differ(a, b) ||
		 (!IS_NULL(a, P_INTENT_VERSION) && !IS_NULL(b, P_INTENT_VERSION) &&
		  INT(a, P_INTENT_VERSION) != INT(b, P_INTENT_VERSION) && is_settled(a))))
		bits |= 1 << DISTINCT_INTENT;
	if (other_keys)
		bits |= 1 << DUPLICATE_SIDE_EFFECT_RISK;
	if (text_is(a, P_OUTCOME, "succeeded") && (same_job || same_key))
		bits |= 1 << REPEAT_AFTER_SUCCESS;
	if (same_job && (text_is(a, P_OUTCOME, "snoozed") || text_is(a, P_OUTCOME, "released") ||
					 b->redrives_before > a->redrives_before))
		bits |= 1 << RESUMED;
	if (!same_job && same_key && before_end)
		bits |= 1 << DUPLICATE_DISPATCH;
	if (!same_job && same_key && after_end)
		bits |= 1 << DUPLICATE_SCHEDULING;
	if (!same_job)
		return bits;

	delayed = !IS_NULL(a, P_NEXT_NOT_BEFORE) && !IS_NULL(a, P_CLOSED_AT) &&
		TIME(a, P_NEXT_NOT_BEFORE) > TIME(a, P_CLOSED_AT) && start >= TIME(a, P_NEXT_NOT_BEFORE);
	if (after_end &&
		(lease == SAME_LEASE || !delayed || (!IS_NULL(a, P_DELAY_MS) && BIGINT(a, P_DELAY_MS) < least_delay(a))))
		bits |= 1 << RETRY_WITHOUT_BACKOFF;
	if (lease == OTHER_LEASE && delayed && !(IS_NULL(a, P_RETRY_POLICY) && IS_NULL(a, P_DELAY_MS)))
		bits |= 1 << LEGITIMATE_DELAYED_RETRY;
	return bits;
}

/* What would have to be on record for a verdict, where none fits. */
static int
missing_evidence(const Attempt *a, const Attempt *b, const char **missing)
{
	int			n = 0;

	if (a->job != b->job)
	{
		if (a->key == NULL)
			missing[n++] = "idempotency_key of a";
		if (b->key == NULL)
			missing[n++] = "idempotency_key of b";
	}
	else if (leases(a, b) == UNTOLD_LEASE)
	{
		if (IS_NULL(a, P_LEASE_ID))
			missing[n++] = "lease_id of a";
		if (IS_NULL(b, P_LEASE_ID))
			missing[n++] = "lease_id of b";
	}
	if (IS_NULL(a, P_ENDED_AT))
		missing[n++] = "finished_at of a";
	if (n == 0 && a->job == b->job && IS_NULL(a, P_RETRY_POLICY) && IS_NULL(a, P_DELAY_MS))
		missing[n++] = "retry_policy of a";
	if (n == 0)
		missing[n++] = "clock";
	return n;
}

/* ---------------------------------------------------------------- what was different at the second attempt */

static bool
differs(const Attempt *a, const Attempt *b, int column, bool if_one_is_missing)
{
	if (IS_NULL(a, column) || IS_NULL(b, column))
		return if_one_is_missing && IS_NULL(a, column) != IS_NULL(b, column);
	if (types[column].len == -1)
		return !same_text(TEXT(a, column), TEXT(b, column));
	return !datumIsEqual(a->value[column], b->value[column], types[column].byval, types[column].len);
}

static int
changes(const Attempt *a, const Attempt *b, const char **changed)
{
	bool		both_ended = !IS_NULL(a, P_OUTCOME) && !IS_NULL(b, P_OUTCOME);
	int			n = 0;

	if (differs(a, b, P_WORKER_NAME, false))
		changed[n++] = "worker";
	if (differs(a, b, P_MODE, false))
		changed[n++] = "mode";
	if (differs(a, b, P_TIMEOUT_MS, false))
		changed[n++] = "timeout";
	if (differs(a, b, P_PAYLOAD_DIGEST, false))
		changed[n++] = "payload";
	if (differs(a, b, P_EXCEPTION_CLASS, both_ended) || differs(a, b, P_ERROR_DIGEST, both_ended))
		changed[n++] = "error";
	if (!IS_NULL(a, P_ELAPSED_MS) && !IS_NULL(b, P_ELAPSED_MS) &&
		fabs((double) BIGINT(b, P_ELAPSED_MS) - (double) BIGINT(a, P_ELAPSED_MS)) > 0.05 * BIGINT(a, P_ELAPSED_MS))
		changed[n++] = "elapsed";
	return n;
}

/* Both records say the same of everything but who the attempt was, and when. */
static bool
identical(const Attempt *a, const Attempt *b)
{
	static const int columns[] = {P_OUTCOME, P_SIDE_EFFECT_STATE, P_WORKER_NAME, P_MODE, P_TIMEOUT_MS, P_PAYLOAD_DIGEST,
		P_EXCEPTION_CLASS, P_ERROR_DIGEST, P_ELAPSED_MS, P_EVIDENCE_HASH};

	for (int i = 0; i < lengthof(columns); i++)
		if (differs(a, b, columns[i], true))
			return false;
	return true;
}

/* ---------------------------------------------------------------- the answer */

/* holdfast.pair begins with A's and B's columns */
static const int a_columns[PAIR_JOB_ID_B] = {P_JOB_ID, P_ATTEMPT_NUMBER, P_LEASE_ID, P_STARTED_AT, P_ENDED_AT, P_CLOSED_AT,
	P_OUTCOME, P_EXCEPTION_CLASS, P_ERROR_DIGEST, P_WORKER_NAME, P_KEY, P_SCOPE, P_INTENT_VERSION, P_ELAPSED_MS,
	P_NEXT_NOT_BEFORE, P_RETRY_POLICY, P_DELAY_MS};
static const int b_columns[PAIR_GAP - PAIR_JOB_ID_B] = {P_JOB_ID, P_ATTEMPT_NUMBER, P_LEASE_ID, P_STARTED_AT, P_ENDED_AT,
	P_OUTCOME, P_EXCEPTION_CLASS, P_ERROR_DIGEST, P_WORKER_NAME, P_KEY, P_SCOPE, P_INTENT_VERSION, P_ELAPSED_MS};

typedef struct Shape
{
	TupleDesc	desc;
	Oid			type;
	int16		typlen;
	bool		typbyval;
	char		typalign;
	Datum		empty;			/* an empty text[] */
} Shape;

static Shape *
get_shape(FmgrInfo *flinfo)
{
	Shape	   *shape = flinfo->fn_extra;
	MemoryContext old;
	HfCall		call;

	if (shape != NULL)
		return shape;
	old = MemoryContextSwitchTo(flinfo->fn_mcxt);
	hf_begin(&call, "pairs", false);	/* takes note of changed settings, for least_delay() */
	hf_end(&call);
	shape = palloc0(sizeof(Shape));
	shape->type = get_element_type(get_fn_expr_rettype(flinfo));
	shape->desc = lookup_rowtype_tupdesc_copy(shape->type, -1);
	hf_answer_check(shape->desc, PAIR_COLUMNS);
	get_typlenbyvalalign(shape->type, &shape->typlen, &shape->typbyval, &shape->typalign);
	shape->empty = PointerGetDatum(construct_empty_array(TEXTOID));
	MemoryContextSwitchTo(old);
	return flinfo->fn_extra = shape;
}

static Datum
words(Shape *shape, const char *const *word, int n)
{
	Datum		values[HF_NVERDICTS];

	if (n == 0)
		return shape->empty;
	for (int i = 0; i < n; i++)
		values[i] = hf_word(word[i]);
	return PointerGetDatum(construct_array(values, n, TEXTOID, -1, false, TYPALIGN_INT));
}

static Datum
make_pair(Shape *shape, const Attempt *a, const Attempt *b, bool reported_again)
{
	uint32		bits = reported_again ? 1 << DUPLICATE_LOG : verdict_bits(a, b);
	const char *word[HF_NVERDICTS];
	Datum		values[PAIR_NCOLUMNS];
	bool		nulls[PAIR_NCOLUMNS];
	HfVerdict	verdict = UNEXPLAINED;
	int			n = 0;
	Interval   *gap;

	memset(nulls, false, sizeof(nulls));
	for (int i = 0; i < PAIR_JOB_ID_B; i++)
	{
		values[i] = a->value[a_columns[i]];
		nulls[i] = a->null[a_columns[i]];
	}
	for (int i = 0; i < PAIR_GAP - PAIR_JOB_ID_B; i++)
	{
		values[PAIR_JOB_ID_B + i] = b->value[b_columns[i]];
		nulls[PAIR_JOB_ID_B + i] = b->null[b_columns[i]];
	}
	nulls[PAIR_GAP] = IS_NULL(a, P_ENDED_AT);
	if (!nulls[PAIR_GAP])
	{
		gap = palloc0(sizeof(Interval));
		gap->time = TIME(b, P_STARTED_AT) - TIME(a, P_ENDED_AT);
		values[PAIR_GAP] = IntervalPGetDatum(gap);
	}
	for (HfVerdict v = DUPLICATE_LOG; v < UNEXPLAINED; v++)
		if (bits & (1 << v))
		{
			if (verdict == UNEXPLAINED)
				verdict = v;
			else
				word[n++] = hf_verdicts[v];
		}
	values[PAIR_VERDICT] = hf_word(hf_verdicts[verdict]);
	values[PAIR_ALSO] = words(shape, word, n);
	values[PAIR_CHANGED] = words(shape, word, changes(a, b, word));
	values[PAIR_IDENTICAL] = BoolGetDatum(identical(a, b));
	values[PAIR_MISSING] = verdict != UNEXPLAINED ? shape->empty : words(shape, word, missing_evidence(a, b, word));
	values[PAIR_LEAST_DELAY] = Int64GetDatum(verdict == RETRY_WITHOUT_BACKOFF ? least_delay(a) : -1);
	nulls[PAIR_LEAST_DELAY] = DatumGetInt64(values[PAIR_LEAST_DELAY]) < 0;
	nulls[PAIR_REPEATS] = nulls[PAIR_LAST_REPEAT_AT] = !reported_again;
	if (reported_again)
	{
		values[PAIR_REPEATS] = a->value[P_REPEATS];
		values[PAIR_LAST_REPEAT_AT] = a->value[P_LAST_REPEAT_AT];
		nulls[PAIR_LAST_REPEAT_AT] = a->null[P_LAST_REPEAT_AT];
	}
	return HeapTupleGetDatum(heap_form_tuple(shape->desc, values, nulls));
}

/* Rule (2): room for all pairs of B, with those in it that its job's open attempts make. */
static Datum *
overlapping(Shape *shape, const Attempt *b, bool wanted, int *n)
{
	Job		   *job = b->job;
	TimestampTz start = TIME(b, P_STARTED_AT);
	Datum	   *pairs;
	int			left = 0;

	*n = 0;
	/* an attempt that was logged a thousand times is not compared with itself a million times */
	if (job->nopen > 0 && !job->mixed && TIME(job->open[0], P_ENDED_AT) > start && leases(job->open[0], b) == SAME_LEASE)
		return palloc(sizeof(Datum) * 3);
	pairs = palloc(sizeof(Datum) * (job->nopen + 3));
	for (int i = 0; i < job->nopen; i++)
	{
		Attempt    *a = job->open[i];

		CHECK_FOR_INTERRUPTS();
		if (TIME(a, P_ENDED_AT) <= start)
		{
			release(a);			/* over, for all that start later */
			continue;
		}
		job->open[left++] = a;
		if (wanted && a != job->last && leases(a, b) == OTHER_LEASE)
			pairs[(*n)++] = make_pair(shape, a, b, false);
	}
	job->nopen = left;
	return pairs;
}

/*
 * holdfast.pairs(source, job_id, ... ) OVER (PARTITION BY source, subject,
 *		action_key ORDER BY started_at, attempt_number, arrival)
 *		returns holdfast.pair[]
 *
 * The pairs of the current attempt with earlier ones; NULL if there are none,
 * or "wanted" is false.
 */
PG_FUNCTION_INFO_V1(holdfast_pairs);
Datum
holdfast_pairs(PG_FUNCTION_ARGS)
{
	WindowObject winobj = PG_WINDOW_OBJECT();
	Shape	   *shape = get_shape(fcinfo->flinfo);
	Partition  *part = WinGetPartitionLocalMemory(winobj, sizeof(Partition));
	Attempt    *b;
	Attempt    *other;
	Datum	   *pairs;
	int			n;
	bool		isnull;
	bool		wanted;

	if (part->cxt == NULL)
		part->cxt = GetMemoryChunkContext(part);
	b = current_attempt(winobj, part);
	wanted = DatumGetBool(WinGetFuncArgCurrent(winobj, P_WANTED, &isnull)) && !isnull;
	pairs = overlapping(shape, b, wanted, &n);
	if (wanted && b->job->last != NULL)
		pairs[n++] = make_pair(shape, b->job->last, b, false);
	other = of_another_job(part, b);
	if (wanted && other != NULL)
		pairs[n++] = make_pair(shape, other, b, false);
	if (wanted && !IS_NULL(b, P_REPEATS) && BIGINT(b, P_REPEATS) > 0)
		pairs[n++] = make_pair(shape, b, b, true);
	keep(part, b);
	release(b);
	if (n == 0)
		PG_RETURN_NULL();
	PG_RETURN_ARRAYTYPE_P(construct_array(pairs, n, shape->type, shape->typlen, shape->typbyval, shape->typalign));
}

/* holdfast.backoff_window(retry_policy text) returns interval: the base delay of the policy, else of "default" */
PG_FUNCTION_INFO_V1(holdfast_backoff_window);
Datum
holdfast_backoff_window(PG_FUNCTION_ARGS)
{
	HfCall		call;
	const HfPolicy *policy;
	Interval   *result = palloc0(sizeof(Interval));

	hf_begin(&call, "backoff_window", false);
	policy = PG_ARGISNULL(0) ? NULL : hf_policy(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	if (policy == NULL)
		policy = hf_policy("default");
	result->time = policy->base_ms * 1000;
	hf_end(&call);
	PG_RETURN_INTERVAL_P(result);
}

void
hf_pair_init(void)
{
	DefineCustomIntVariable("holdfast.pair_window",
							"How long after the end of an attempt another job of the same subject and action is compared with it.",
							"Attempts with the same idempotency key are compared however far apart they are.",
							&pair_window, 86400, 0, 315360000, PGC_USERSET, GUC_UNIT_S, NULL, NULL, NULL);
}
