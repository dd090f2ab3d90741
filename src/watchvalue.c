/*-------------------------------------------------------------------------
 *
 * watchvalue.c
 *	  Mappings as this backend remembers them, and what they read from a row.
 *
 * A mapping is compiled once per backend and table and kept until the table,
 * the row in holdfast.watch or a function changes.
 *
 * A mapping that fits the table when watch() is called may cease to: a column
 * is renamed or dropped.  A worker's UPDATE must not fail for that unless the
 * mode is enforce, so the compilation runs in a subtransaction, and what is
 * wrong is kept (HfWatch.problem) for the trigger to put on record.
 *
 * Expressions are initialized with the rights of the table's owner, and
 * evaluated as the user whose statement fires the trigger.  What they return
 * lives until the next row.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/syscache.h"

/* ---------------------------------------------------------------- what this backend remembers */

/* A row of holdfast.watch. */
typedef struct WatchRow
{
	int32		watch_id;
	char	   *source;
	Jsonb	   *mapping;
	HfWatchMode mode;
	TimestampTz since;
	struct WatchRow *next;
} WatchRow;

typedef struct WatchEntry
{
	Oid			relid;			/* hash key */
	bool		stale;
	uint64		generation;		/* of "rows" */
	MemoryContext cxt;
	HfWatch    *watch;			/* NULL: no such row */
} WatchEntry;

static HTAB *watches = NULL;
static MemoryContext rows_cxt = NULL;
static WatchRow *rows = NULL;
static bool rows_stale = true;
static Oid	watch_table = InvalidOid;
static uint64 generation = 1;

static void
forget_relation(Datum arg, Oid relid)
{
	WatchEntry *entry;

	if (relid == InvalidOid || relid == watch_table)
	{
		rows_stale = true;
		generation++;
	}
	else if (watches != NULL && (entry = hash_search(watches, &relid, HASH_FIND, NULL)) != NULL)
		entry->stale = true;
}

/* A function or an enum changed: expressions hold on to them. */
static void
forget_expressions(Datum arg, int cacheid, uint32 hashvalue)
{
	generation++;
}

void
hf_watch_init(void)
{
	CacheRegisterRelcacheCallback(forget_relation, (Datum) 0);
	CacheRegisterSyscacheCallback(PROCOID, forget_expressions, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, forget_expressions, (Datum) 0);
	CacheRegisterSyscacheCallback(ENUMOID, forget_expressions, (Datum) 0);
}

static void
load_row(void *arg, const Datum *values, const bool *nulls)
{
	MemoryContext old = MemoryContextSwitchTo(rows_cxt);
	WatchRow   *row = palloc0(sizeof(WatchRow));

	row->watch_id = DatumGetInt32(values[WATCH_ID]);
	row->source = TextDatumGetCString(values[WATCH_SOURCE]);
	row->mapping = DatumGetJsonbPCopy(values[WATCH_MAPPING]);
	for (int m = 0; hf_watch_modes[m] != NULL; m++)
		if (hf_text_is(values[WATCH_MODE], hf_watch_modes[m]))
			row->mode = m;
	row->since = DatumGetTimestampTz(values[WATCH_WATCHED_AT]);
	row->next = rows;
	rows = row;
	MemoryContextSwitchTo(old);
}

static WatchRow *
find_row(int32 watch_id)
{
	if (rows_stale)
	{
		HfCall		call;
		uint64		before;

		if (rows_cxt == NULL)
			rows_cxt = AllocSetContextCreate(CacheMemoryContext, "holdfast watches", ALLOCSET_SMALL_SIZES);
		hf_begin(&call, "watch", false);
		watch_table = hf_table_oid(HF_WATCH);
		MemoryContextReset(rows_cxt);
		rows = NULL;
		before = generation;
		hf_config_scan(HF_WATCH, load_row, NULL);
		rows_stale = (generation != before);
		hf_end(&call);
	}
	for (WatchRow *row = rows; row != NULL; row = row->next)
		if (row->watch_id == watch_id)
			return row;
	return NULL;
}

/* Compile; what is wrong with the mapping becomes w->problem. */
static void
compile_safely(HfWatch *w, Relation rel, Jsonb *mapping)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(cxt);
	PG_TRY();
	{
		hf_watch_compile(w, rel, mapping);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(cxt);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		if (ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION)
		{
			CurrentResourceOwner = owner;
			ReThrowError(error);
		}
		w->problem = MemoryContextStrdup(cxt, error->message);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	CurrentResourceOwner = owner;
}

/* What is called meanwhile must not use it, and one that was not finished, because of a cancel, is none. */
static void
compile_entry(WatchEntry *entry, Relation rel, Jsonb *mapping)
{
	entry->watch->busy = true;
	entry->stale = false;		/* an invalidation while compiling makes it stale again */
	PG_TRY();
	{
		compile_safely(entry->watch, rel, mapping);
	}
	PG_CATCH();
	{
		entry->watch = NULL;
		entry->stale = true;
		PG_RE_THROW();
	}
	PG_END_TRY();
	entry->watch->busy = false;
}

/* What an expression calls must not change the table that it is evaluated for: the mapping is in use. */
void
hf_watch_refuse_busy(const HfWatch *w, Relation rel)
{
	if (w->busy)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("the watch on table \"%s\" is reading a row of it", RelationGetRelationName(rel)),
				 errdetail("An expression of its mapping calls what changes the table, or something that the mapping rests on."),
				 errhint("Functions in a mapping should do nothing but compute.")));
}

/*
 * The mapping of a watched table or partition, compiled.  Not called within a
 * call (hf_begin), whose memory a subtransaction that fails would leave to it.
 */
HfWatch *
hf_watch_of(Relation rel, int32 watch_id)
{
	Oid			relid = RelationGetRelid(rel);
	WatchEntry *entry;
	WatchRow   *row;
	MemoryContext old;
	bool		found;

	if (watches == NULL)
	{
		HASHCTL		ctl = {.keysize = sizeof(Oid), .entrysize = sizeof(WatchEntry), .hcxt = CacheMemoryContext};

		watches = hash_create("holdfast watched tables", 16, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	entry = hash_search(watches, &relid, HASH_ENTER, &found);
	if (found && !entry->stale && entry->generation == generation && !rows_stale)
		return entry->watch;
	if (!found)
	{
		entry->cxt = NULL;
		entry->watch = NULL;
	}
	if (entry->watch != NULL)
		hf_watch_refuse_busy(entry->watch, rel);
	entry->stale = true;		/* until it is whole */
	entry->watch = NULL;
	if (entry->cxt == NULL)
		entry->cxt = AllocSetContextCreate(CacheMemoryContext, "holdfast watch", ALLOCSET_SMALL_SIZES);
	else
		MemoryContextReset(entry->cxt);

	row = find_row(watch_id);
	entry->generation = generation;
	if (row == NULL)
	{
		entry->stale = false;
		return NULL;
	}
	old = MemoryContextSwitchTo(entry->cxt);
	entry->watch = palloc0(sizeof(HfWatch));
	entry->watch->watch_id = watch_id;
	entry->watch->source = pstrdup(row->source);
	entry->watch->mode = row->mode;
	entry->watch->since = row->since;
	compile_entry(entry, rel, DatumGetJsonbPCopy(JsonbPGetDatum(row->mapping)));
	MemoryContextSwitchTo(old);
	return entry->watch;
}

/* ---------------------------------------------------------------- values of a row */

static Datum
fetch(HfWatch *w, HfMapKey key, TupleTableSlot *slot, bool *isnull)
{
	HfMapField *field = &w->fields[key];

	if (field->att != 0)
		return slot_getattr(slot, field->att, isnull);
	if (field->expr != NULL)
	{
		w->econtext->ecxt_scantuple = slot;
		return ExecEvalExprSwitchContext(field->expr, w->econtext, isnull);
	}
	*isnull = true;
	return (Datum) 0;
}

/* Session settings must not change what a time is called: leases are compared as text. */
char *
hf_time_text(TimestampTz at)
{
	struct pg_tm tm;
	fsec_t		fsec;
	char		buffer[MAXDATELEN + 1];

	if (TIMESTAMP_NOT_FINITE(at) || timestamp2tm(at, NULL, &tm, &fsec, NULL, NULL) != 0)
		return pstrdup(TIMESTAMP_IS_NOBEGIN(at) ? "-infinity" : "infinity");
	EncodeDateTime(&tm, fsec, false, 0, NULL, USE_XSD_DATES, buffer);
	return psprintf("%sZ", buffer);
}

/* NULL for a null or an empty value; a longer one than max_bytes is cut. */
text *
hf_watch_text(HfWatch *w, HfMapKey key, TupleTableSlot *slot, int max_bytes)
{
	HfMapField *field = &w->fields[key];
	text	   *value;
	bool		isnull;
	Datum		datum;
	int			len;

	if (field->constant != NULL)
		return field->constant;
	datum = fetch(w, key, slot, &isnull);
	if (isnull)
		return NULL;
	if (field->type == TEXTOID || field->type == VARCHAROID)
		value = DatumGetTextPP(datum);
	else if (field->type == TIMESTAMPTZOID || field->type == TIMESTAMPOID)
		value = cstring_to_text(hf_time_text(DatumGetTimestampTz(datum)));
	else if (field->type == BOOLOID)
		value = cstring_to_text(DatumGetBool(datum) ? "true" : "false");
	else
		value = cstring_to_text(OutputFunctionCall(&field->output, datum));
	len = VARSIZE_ANY_EXHDR(value);
	if (len == 0)
		return NULL;
	if (len > max_bytes)
		value = cstring_to_text_with_len(VARDATA_ANY(value), pg_mbcliplen(VARDATA_ANY(value), len, max_bytes));
	return value;
}

bool
hf_watch_int(HfWatch *w, HfMapKey key, TupleTableSlot *slot, int32 *value)
{
	bool		isnull;
	Datum		datum = fetch(w, key, slot, &isnull);
	int64		number;

	if (isnull)
		return false;
	number = w->fields[key].type == INT2OID ? DatumGetInt16(datum) :
		w->fields[key].type == INT4OID ? DatumGetInt32(datum) : DatumGetInt64(datum);
	*value = (int32) Min(Max(number, 0), PG_INT32_MAX);	/* both are counts */
	return true;
}

bool
hf_watch_time(HfWatch *w, HfMapKey key, TupleTableSlot *slot, TimestampTz *value)
{
	bool		isnull;
	Datum		datum = fetch(w, key, slot, &isnull);

	if (isnull)
		return false;
	*value = DatumGetTimestampTz(datum);	/* a timestamp counts as UTC */
	return true;
}

int64
hf_watch_ms(HfWatch *w, HfMapKey key, TupleTableSlot *slot)
{
	bool		isnull;
	Datum		datum = fetch(w, key, slot, &isnull);
	Interval   *interval;
	double		ms;

	if (isnull)
		return -1;
	interval = DatumGetIntervalP(datum);
	ms = interval->month * 30.0 * 86400000.0 + interval->day * 86400000.0 + interval->time / 1000.0;
	return (int64) Min(Max(ms, -1), (double) HF_MAX_DELAY_MS);
}

bytea *
hf_watch_digest(HfWatch *w, TupleTableSlot *slot)
{
	bool		isnull;
	Datum		datum = fetch(w, MAP_PAYLOAD, slot, &isnull);

	return isnull ? NULL : hf_payload_digest(datum);
}

/* What stands for the job id in a delay's jitter: the id itself where it is a number. */
int64
hf_watch_seed(HfWatch *w, TupleTableSlot *slot)
{
	Oid			type = w->fields[MAP_ID].type;
	bool		isnull;
	Datum		datum;
	text	   *id;

	if (type == INT2OID || type == INT4OID || type == INT8OID)
	{
		datum = fetch(w, MAP_ID, slot, &isnull);
		if (!isnull)
			return type == INT2OID ? DatumGetInt16(datum) : type == INT4OID ? DatumGetInt32(datum) : DatumGetInt64(datum);
	}
	id = hf_watch_text(w, MAP_ID, slot, HF_MAX_TEXT);
	return id == NULL ? 0 : hf_job_seed(id);
}

HfRowClass
hf_watch_class(HfWatch *w, TupleTableSlot *slot)
{
	text	   *status = hf_watch_text(w, MAP_STATUS, slot, HF_MAX_TEXT);

	if (status != NULL)
		for (int i = 0; i < w->nstatuses; i++)
			if (w->statuses[i].len == VARSIZE_ANY_EXHDR(status) &&
				memcmp(w->statuses[i].value, VARDATA_ANY(status), w->statuses[i].len) == 0)
				return w->statuses[i].class;
	return HF_ROW_OTHER;
}

/* Whether the row is one of those watched. */
bool
hf_watch_when(HfWatch *w, TupleTableSlot *slot)
{
	bool		isnull;
	Datum		datum;

	if (!hf_watch_maps(w, MAP_WHEN))
		return true;
	datum = fetch(w, MAP_WHEN, slot, &isnull);
	return !isnull && DatumGetBool(datum);
}
