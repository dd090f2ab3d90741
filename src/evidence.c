/*-------------------------------------------------------------------------
 *
 * evidence.c
 *	  Events and findings: the one place that writes them.
 *
 * The events of a call are collected as formed tuples, each already meant for
 * the partition of its day, and go in with one multi-insert when the call
 * ends (hf_events_flush), in the same transaction as what they describe.  A
 * day without a partition has its events in event_overflow; the insert never
 * fails for want of one, and makes none, which would take a strong lock.
 *
 * An error undoes the evidence of its own refusal.  Refusals are therefore
 * also remembered outside the transaction's state and written when the
 * transaction commits after all, which it can where a savepoint or an
 * exception block caught the error.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "access/detoast.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "commands/extension.h"
#include "commands/sequence.h"
#include "miscadmin.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/partcache.h"
#include "utils/snapmgr.h"

typedef struct PendingEvent
{
	HfTable    *table;
	HeapTuple	tuple;
} PendingEvent;

struct HfEvents
{
	int			n;
	int			allocated;
	PendingEvent *pending;
	HfTable    *partition;		/* of the last event: a call rarely needs two */
	TimestampTz lower;
	TimestampTz upper;
	List	   *opened;			/* partitions to close */
	Datum	   *values;			/* scratch, by attribute */
	bool	   *nulls;
};

/* How a value of each event column is stored, to copy it where no table is open. */
typedef struct HfEventType
{
	bool		byval;
	int16		len;
} HfEventType;

#define INT4 {true, 4}
#define INT8 {true, 8}
#define UUID {false, UUID_LEN}
#define VARLENA {false, -1}
static const HfEventType event_types[EVENT_NCOLUMNS] = {
	[EVENT_ID] = INT8, [EVENT_AT] = INT8, [EVENT_JOB_ID] = INT8, [EVENT_KEY] = UUID, [EVENT_QUEUE] = INT4,
	[EVENT_ATTEMPT_NUMBER] = INT4, [EVENT_KIND] = VARLENA, [EVENT_SUBJECT] = VARLENA, [EVENT_ACTION_KEY] = VARLENA,
	[EVENT_CORRELATION_ID] = VARLENA, [EVENT_LEASE_ID] = UUID, [EVENT_WORKER_NAME] = VARLENA, [EVENT_MODE] = VARLENA,
	[EVENT_LEASE_EXPIRES_AT] = INT8, [EVENT_FENCING_TOKEN] = INT8, [EVENT_LAST_HEARTBEAT_AT] = INT8, [EVENT_SCOPE] = VARLENA,
	[EVENT_INTENT_VERSION] = INT4, [EVENT_FAILURES] = INT4, [EVENT_MAX_ATTEMPTS] = INT4,
	[EVENT_PAYLOAD_DIGEST] = VARLENA, [EVENT_ENQUEUED_AT] = INT8, [EVENT_ENQUEUED_BY] = VARLENA,
	[EVENT_EXCEPTION_CLASS] = VARLENA, [EVENT_MESSAGE] = VARLENA, [EVENT_TIMEOUT_KIND] = VARLENA,
	[EVENT_TIMEOUT_MS] = INT8, [EVENT_TIMEOUT_LIMIT_MS] = INT8, [EVENT_ELAPSED_MS] = INT8,
	[EVENT_WORKER_RESULT] = VARLENA, [EVENT_SIDE_EFFECT_STATE] = VARLENA, [EVENT_RETRY_POLICY] = VARLENA,
	[EVENT_DELAY_MS] = INT8, [EVENT_JITTER_MS] = INT8, [EVENT_NEXT_NOT_BEFORE] = INT8, [EVENT_DETAIL] = VARLENA,
};

/* The partition of the day, remembered across calls. */
static struct
{
	uint64		generation;
	Oid			relid;			/* InvalidOid: the day has none */
	TimestampTz lower;
	TimestampTz upper;
}			day;

/* ---------------------------------------------------------------- routing */

/* Look the partition up by the bounds that the event table has now. */
static void
find_day(HfCall *call, TimestampTz at)
{
	Relation	parent = hf_open(call, HF_EVENT)->rel;
	PartitionDesc desc = RelationGetPartitionDesc(parent, true);
	PartitionKey key = RelationGetPartitionKey(parent);
	Datum		value = TimestampTzGetDatum(at);
	bool		equal;
	int			offset;
	int			index;

	day.generation = call->generation;
	day.relid = InvalidOid;
	day.lower = DT_NOBEGIN;
	day.upper = DT_NOEND;
	if (desc->nparts == 0)
		return;
	offset = partition_range_datum_bsearch(key->partsupfunc, key->partcollation, desc->boundinfo, 1, &value, &equal);
	if (offset >= 0 && desc->boundinfo->kind[offset][0] == PARTITION_RANGE_DATUM_VALUE)
		day.lower = DatumGetTimestampTz(desc->boundinfo->datums[offset][0]);
	if (offset + 1 < desc->boundinfo->ndatums && desc->boundinfo->kind[offset + 1][0] == PARTITION_RANGE_DATUM_VALUE)
		day.upper = DatumGetTimestampTz(desc->boundinfo->datums[offset + 1][0]);
	index = desc->boundinfo->indexes[offset + 1];
	if (index >= 0 && desc->is_leaf[index])
		day.relid = desc->oids[index];
}

static void
route(HfCall *call, HfEvents *events, TimestampTz at)
{
	Relation	rel;

	if (events->partition != NULL && at >= events->lower && at < events->upper)
		return;
	for (;;)
	{
		if (day.generation != call->generation || at < day.lower || at >= day.upper)
			find_day(call, at);
		if (!OidIsValid(day.relid))
		{
			events->partition = hf_open(call, HF_EVENT_OVERFLOW);
			break;
		}
		rel = try_relation_open(day.relid, RowExclusiveLock);
		if (rel != NULL && rel->rd_rel->relispartition)
		{
			events->partition = hf_open_partition(call, rel);
			events->opened = lappend(events->opened, events->partition);
			break;
		}
		/* dropped or detached before we had the lock: look again */
		if (rel != NULL)
			relation_close(rel, NoLock);
		day.generation = 0;
	}
	events->lower = day.lower;
	events->upper = day.upper;
}

/* ---------------------------------------------------------------- events */

/*
 * Begin an event of a job: its correlation fields and its time, which is the
 * call's but never before the job's last event.  The job row takes note of
 * the time; the caller stores the row.
 */
void
hf_event_init(HfCall *call, HfEvent *event, const char *kind, HfRow *job)
{
	TimestampTz at = call->now;

	memset(event->null, true, sizeof(event->null));
	hf_event_set(event, EVENT_KIND, hf_word(kind));
	if (!hf_is_null(job, JOB_LAST_EVENT_AT) && at <= hf_time(job, JOB_LAST_EVENT_AT))
		at = hf_time(job, JOB_LAST_EVENT_AT) + 1;
	hf_set(job, JOB_LAST_EVENT_AT, TimestampTzGetDatum(at));
	hf_event_set(event, EVENT_AT, TimestampTzGetDatum(at));
	hf_event_set(event, EVENT_JOB_ID, hf_get(job, JOB_ID));
	hf_event_set(event, EVENT_KEY, hf_get(job, JOB_KEY));
	hf_event_set(event, EVENT_QUEUE, hf_get(job, JOB_QUEUE));
	hf_event_set(event, EVENT_ATTEMPT_NUMBER, hf_get(job, JOB_ATTEMPT_NUMBER));
	hf_event_set(event, EVENT_SUBJECT, hf_get(job, JOB_SUBJECT));
	hf_event_set(event, EVENT_ACTION_KEY, hf_get(job, JOB_ACTION_KEY));
	hf_event_set(event, EVENT_CORRELATION_ID, hf_get(job, JOB_CORRELATION_ID));
	hf_event_set(event, EVENT_MODE, hf_get(job, JOB_MODE));
	hf_event_copy(event, EVENT_LEASE_ID, job, JOB_LEASE_ID);
	hf_event_copy(event, EVENT_WORKER_NAME, job, JOB_WORKER_NAME);
}

/* Evidence that a job leaves the state pending carries who put it there and when. */
void
hf_event_set_enqueued(HfEvent *event, const HfRow *job)
{
	hf_event_copy(event, EVENT_ENQUEUED_AT, job, JOB_ENQUEUED_AT);
	hf_event_copy(event, EVENT_ENQUEUED_BY, job, JOB_ENQUEUED_BY);
	hf_event_copy(event, EVENT_SCOPE, job, JOB_SCOPE);
	hf_event_copy(event, EVENT_INTENT_VERSION, job, JOB_INTENT_VERSION);
	hf_event_copy(event, EVENT_PAYLOAD_DIGEST, job, JOB_PAYLOAD_DIGEST);
}

/* The event's values, by attribute of its partition. */
static void
put_values(HfEvents *events, const HfEvent *event)
{
	if (events->partition->shape->in_order)
	{
		memcpy(events->values, event->value, sizeof(event->value));
		memcpy(events->nulls, event->null, sizeof(event->null));
		return;
	}
	hf_table_fill(events->partition, events->values, events->nulls);
	for (int c = 0; c < EVENT_NCOLUMNS; c++)
	{
		events->values[events->partition->att[c] - 1] = event->value[c];
		events->nulls[events->partition->att[c] - 1] = event->null[c];
	}
}

/* Take the event; what it points to may change afterwards. */
void
hf_event_add(HfCall *call, const HfEvent *event)
{
	HfEvents   *events = call->events;
	MemoryContext old = MemoryContextSwitchTo(call->cxt);

	if (events == NULL)
	{
		events = call->events = palloc0(sizeof(HfEvents));
		events->allocated = 8;
		events->pending = palloc(sizeof(PendingEvent) * events->allocated);
	}
	if (events->n == events->allocated)
	{
		events->allocated *= 2;
		events->pending = repalloc(events->pending, sizeof(PendingEvent) * events->allocated);
	}
	route(call, events, DatumGetTimestampTz(event->value[EVENT_AT]));
	if (events->values == NULL)
	{
		events->values = palloc(sizeof(Datum) * MaxHeapAttributeNumber);
		events->nulls = palloc(sizeof(bool) * MaxHeapAttributeNumber);
	}
	put_values(events, event);
	events->values[events->partition->att[EVENT_ID] - 1] = Int64GetDatum(nextval_internal(hf_sequence_oid("event_id_seq"), false));
	events->nulls[events->partition->att[EVENT_ID] - 1] = false;
	events->pending[events->n].table = events->partition;
	events->pending[events->n].tuple = hf_form_tuple(events->partition->shape, events->values, events->nulls);
	events->n++;
	MemoryContextSwitchTo(old);
}

/* Write what the call has collected. */
void
hf_events_flush(HfCall *call)
{
	HfEvents   *events = call->events;
	HeapTuple	tuples[HF_AT_ONCE];
	ListCell   *lc;

	if (events == NULL)
		return;
	for (int done = 0, n; done < events->n; done += n)
	{
		HfTable    *table = events->pending[done].table;

		for (n = 0; n < HF_AT_ONCE && done + n < events->n && events->pending[done + n].table == table; n++)
			tuples[n] = events->pending[done + n].tuple;
		hf_multi_insert(call, table, tuples, n);
	}
	foreach(lc, events->opened)
		hf_close(lfirst(lc));
	call->events = NULL;
}

/* ---------------------------------------------------------------- findings */

/* One row of what an operator wants counted; "job" may be NULL. */
void
hf_finding(HfCall *call, const char *kind, int32 queue_id, const HfRow *job, const pg_uuid_t *lease_id, Datum detail)
{
	HfRow	   *row = hf_row_new(hf_open(call, HF_FINDING));

	hf_set(row, FINDING_AT, TimestampTzGetDatum(call->now));
	hf_set(row, FINDING_QUEUE, Int32GetDatum(queue_id));
	hf_set(row, FINDING_KIND, hf_word(kind));
	if (job != NULL)
	{
		hf_set(row, FINDING_JOB_ID, hf_get(job, JOB_ID));
		hf_set(row, FINDING_ATTEMPT_NUMBER, hf_get(job, JOB_ATTEMPT_NUMBER));
		if (!hf_is_null(job, JOB_WORKER_NAME))
			hf_set(row, FINDING_WORKER_NAME, hf_get(job, JOB_WORKER_NAME));
	}
	if (lease_id != NULL)
		hf_set(row, FINDING_LEASE_ID, UUIDPGetDatum(lease_id));
	if (detail != (Datum) 0)
		hf_set(row, FINDING_DETAIL, detail);
	hf_insert(call, row);
	hf_row_free(row);
}

/* ---------------------------------------------------------------- details: small jsonb objects */

static void
push_key(HfDetail *detail, const char *key)
{
	JsonbValue	value;

	if (detail->state == NULL)
		pushJsonbValue(&detail->state, WJB_BEGIN_OBJECT, NULL);
	value.type = jbvString;
	value.val.string.val = unconstify(char *, key);
	value.val.string.len = strlen(key);
	pushJsonbValue(&detail->state, WJB_KEY, &value);
}

void
hf_detail_cstring(HfDetail *detail, const char *key, const char *string)
{
	JsonbValue	value;

	if (string == NULL)
		return;
	push_key(detail, key);
	value.type = jbvString;
	value.val.string.val = unconstify(char *, string);
	value.val.string.len = strlen(string);
	pushJsonbValue(&detail->state, WJB_VALUE, &value);
}

void
hf_detail_text(HfDetail *detail, const char *key, const text *string)
{
	if (string != NULL)
		hf_detail_cstring(detail, key, text_to_cstring(string));
}

void
hf_detail_int(HfDetail *detail, const char *key, int64 number)
{
	JsonbValue	value;

	push_key(detail, key);
	value.type = jbvNumeric;
	value.val.numeric = DatumGetNumeric(DirectFunctionCall1(int8_numeric, Int64GetDatum(number)));
	pushJsonbValue(&detail->state, WJB_VALUE, &value);
}

void
hf_detail_bool(HfDetail *detail, const char *key, bool truth)
{
	JsonbValue	value;

	push_key(detail, key);
	value.type = jbvBool;
	value.val.boolean = truth;
	pushJsonbValue(&detail->state, WJB_VALUE, &value);
}

void
hf_detail_time(HfDetail *detail, const char *key, TimestampTz at)
{
	struct pg_tm tm;
	fsec_t		fsec;
	char		buffer[MAXDATELEN + 1];

	/* in UTC: what is stored does not depend on whose session wrote it */
	if (timestamp2tm(at, NULL, &tm, &fsec, NULL, NULL) != 0)
		elog(ERROR, "timestamp out of range");
	EncodeDateTime(&tm, fsec, true, 0, NULL, USE_ISO_DATES, buffer);
	hf_detail_cstring(detail, key, pstrdup(buffer));
}

/* A jsonb as it is, or nothing for NULL. */
void
hf_detail_jsonb(HfDetail *detail, const char *key, Jsonb *jsonb)
{
	JsonbValue	value;

	if (jsonb == NULL)
		return;
	push_key(detail, key);
	if (JB_ROOT_IS_SCALAR(jsonb))
		JsonbExtractScalar(&jsonb->root, &value);
	else
	{
		value.type = jbvBinary;
		value.val.binary.data = &jsonb->root;
		value.val.binary.len = VARSIZE_ANY_EXHDR(jsonb);
	}
	pushJsonbValue(&detail->state, WJB_VALUE, &value);
}

/* The object, or 0 where nothing was put in. */
Datum
hf_detail_end(HfDetail *detail)
{
	if (detail->state == NULL)
		return (Datum) 0;
	return JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&detail->state, WJB_END_OBJECT, NULL)));
}

/* ---------------------------------------------------------------- events about a job that is not at hand */

/*
 * Copy an event into the current memory context: whole, since the table where a
 * value lies out of line may be gone when the copy is used.
 */
void
hf_event_keep(HfEvent *to, const HfEvent *from)
{
	for (int c = 0; c < EVENT_NCOLUMNS; c++)
	{
		const HfEventType *type = &event_types[c];

		to->null[c] = from->null[c];
		if (to->null[c])
			to->value[c] = (Datum) 0;
		else if (type->len == -1 && VARATT_IS_EXTERNAL(DatumGetPointer(from->value[c])))
			to->value[c] = PointerGetDatum(detoast_external_attr((struct varlena *) DatumGetPointer(from->value[c])));
		else
			to->value[c] = datumCopy(from->value[c], type->byval, type->len);
	}
}

/* Begin an event that carries on the correlation fields of another. */
void
hf_event_follow(HfCall *call, HfEvent *event, const char *kind, const HfEvent *of)
{
	static const int carried[] = {EVENT_JOB_ID, EVENT_KEY, EVENT_QUEUE, EVENT_ATTEMPT_NUMBER, EVENT_SUBJECT,
		EVENT_ACTION_KEY, EVENT_CORRELATION_ID, EVENT_LEASE_ID, EVENT_WORKER_NAME, EVENT_MODE};
	TimestampTz at = DatumGetTimestampTz(of->value[EVENT_AT]) + 1;

	memset(event->null, true, sizeof(event->null));
	for (int i = 0; i < lengthof(carried); i++)
	{
		event->value[carried[i]] = of->value[carried[i]];
		event->null[carried[i]] = of->null[carried[i]];
	}
	hf_event_set(event, EVENT_KIND, hf_word(kind));
	hf_event_set(event, EVENT_AT, TimestampTzGetDatum(Max(at, call->now)));
}

/* The finding that goes with an event. */
void
hf_event_finding(HfCall *call, const char *kind, const HfEvent *event)
{
	static const int pairs[][2] = {{FINDING_QUEUE, EVENT_QUEUE}, {FINDING_JOB_ID, EVENT_JOB_ID},
		{FINDING_ATTEMPT_NUMBER, EVENT_ATTEMPT_NUMBER}, {FINDING_LEASE_ID, EVENT_LEASE_ID},
		{FINDING_WORKER_NAME, EVENT_WORKER_NAME}, {FINDING_DETAIL, EVENT_DETAIL}};
	HfRow	   *row = hf_row_new(hf_open(call, HF_FINDING));

	hf_set(row, FINDING_AT, TimestampTzGetDatum(call->now));
	hf_set(row, FINDING_KIND, hf_word(kind));
	for (int i = 0; i < lengthof(pairs); i++)
		if (!event->null[pairs[i][1]])
			hf_set(row, pairs[i][0], event->value[pairs[i][1]]);
	hf_insert(call, row);
	hf_row_free(row);
}

/* ---------------------------------------------------------------- refusals that raise */

static List *refusals = NIL;	/* of HfEvent, in TopTransactionContext */

/*
 * Remember that "function" is about to refuse, with an error, something of the
 * attempt that "of" tells of, in case the transaction commits after all.  With
 * "of" NULL no job is concerned, and only the finding is written.
 */
void
hf_remember_refusal(HfCall *call, const HfEvent *of, int sqlerrcode, const char *function)
{
	HfEvent		event;
	HfDetail	detail = {0};

	if (of != NULL)
		hf_event_follow(call, &event, "action_violation", of);
	else
		memset(event.null, true, sizeof(event.null));
	hf_detail_cstring(&detail, "refused", function);
	hf_detail_cstring(&detail, "sqlstate", unpack_sql_state(sqlerrcode));
	hf_detail_cstring(&detail, "by", GetUserNameFromId(GetUserId(), false));
	hf_event_set(&event, EVENT_DETAIL, hf_detail_end(&detail));
	hf_remember_event(&event);
}

/* The same of an event that is complete. */
void
hf_remember_event(const HfEvent *event)
{
	HfEvent    *kept;
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);

	kept = palloc(sizeof(HfEvent));
	hf_event_keep(kept, event);
	refusals = lappend(refusals, kept);
	MemoryContextSwitchTo(old);
}

void
hf_remember_job_refusal(HfCall *call, HfRow *job, int sqlerrcode, const char *function)
{
	HfEvent		event;

	hf_event_init(call, &event, "action_violation", job);
	hf_remember_refusal(call, &event, sqlerrcode, function);
}

static void
write_refusals(void)
{
	HfCall		call;
	ListCell   *lc;
	List	   *list = refusals;
	bool		read_only = XactReadOnly;

	refusals = NIL;
	if (!OidIsValid(get_extension_oid("holdfast", true)))
		return;					/* dropped in this very transaction */
	XactReadOnly = false;		/* they were made before the rest was declared so */
	PushActiveSnapshot(GetTransactionSnapshot());
	hf_begin(&call, "refusal", true);
	foreach(lc, list)
	{
		HfEvent    *event = lfirst(lc);

		if (event->null[EVENT_JOB_ID])
			hf_finding(&call, "refusal", HF_NO_QUEUE, NULL, NULL, event->value[EVENT_DETAIL]);
		else
		{
			hf_event_add(&call, event);
			hf_event_finding(&call, "refusal", event);
		}
	}
	hf_end(&call);
	PopActiveSnapshot();
	XactReadOnly = read_only;
}

static void
on_xact_event(XactEvent event, void *arg)
{
	if (refusals == NIL)
		return;
	if (event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_PRE_PREPARE)
		write_refusals();
	else if (event == XACT_EVENT_ABORT)
		refusals = NIL;
}

void
hf_evidence_init(void)
{
	RegisterXactCallback(on_xact_event, NULL);
}
