/*-------------------------------------------------------------------------
 *
 * timeline.c
 *	  Events by subject, job, key or correlation id, for those who may read them.
 *
 * What the planner would spend on a hundred partitions is more than what the
 * history of one subject costs, so their indexes are asked directly.  Rights
 * are looked at here, event by event: the functions over this one run with the
 * rights of their caller, who has none on the tables.
 *
 * By job_id and by subject an index finds the events.  A key leads to its
 * subject by the ledger, or by the job that has it.  For a correlation id, a
 * key that nobody knows any more, or a time alone, the days from since to
 * until are read.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "access/stratnum.h"
#include "catalog/pg_type_d.h"
#include "lib/qunique.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

#define FEW_JOBS 20

PG_FUNCTION_INFO_V1(holdfast_events_of);
PG_FUNCTION_INFO_V1(holdfast_explain);
PG_FUNCTION_INFO_V1(holdfast_latest_events);
PG_FUNCTION_INFO_V1(holdfast_budget);

typedef struct Search
{
	HfCall	   *call;
	ReturnSetInfo *rsinfo;
	Snapshot	snapshot;
	text	   *subject;		/* each NULL: any */
	text	   *action_key;
	pg_uuid_t  *key;
	text	   *correlation_id;
	TimestampTz since;			/* inclusive */
	TimestampTz until;			/* exclusive */
	bool		by_id;			/* ids are all jobs that may have what is asked for */
	int64	   *ids;
	int			nids;
	int			room;
	int32		queue;			/* asked about last */
	bool		granted;
	ScanKeyData keys[2];		/* of the index that is being asked */
	int			nkeys;
} Search;

static void
key_text(Search *s, text *value)
{
	ScanKeyEntryInitialize(&s->keys[s->nkeys], 0, s->nkeys + 1, BTEqualStrategyNumber, InvalidOid, C_COLLATION_OID, F_TEXTEQ,
						   PointerGetDatum(value));
	s->nkeys++;
}

static void
key_job(Search *s, int64 job_id)
{
	ScanKeyInit(&s->keys[0], 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(job_id));
	s->nkeys = 1;
}

static bool
may_read(Search *s, int32 queue)
{
	if (s->queue != queue)
	{
		s->granted = hf_is_granted_id(queue, HF_READER);
		s->queue = queue;
	}
	return s->granted;
}

static bool
is_text(const HfRow *row, int column, text *wanted)
{
	return wanted == NULL ||
		(!hf_is_null(row, column) &&
		 DatumGetBool(DirectFunctionCall2Coll(texteq, C_COLLATION_OID, hf_get(row, column), PointerGetDatum(wanted))));
}

/* Columns by name, as the parent has them: a partition may have them in another order. */
static void
put_event(Search *s, const HfRow *event)
{
	const AttrNumber *att = hf_open(s->call, HF_EVENT)->att;
	int			natts = s->rsinfo->setDesc->natts;
	Datum	   *values = palloc0(sizeof(Datum) * natts);
	bool	   *nulls = palloc(sizeof(bool) * natts);

	memset(nulls, true, sizeof(bool) * natts);
	for (int c = 0; c < EVENT_NCOLUMNS; c++)
	{
		values[att[c] - 1] = hf_get(event, c);
		nulls[att[c] - 1] = hf_is_null(event, c);
	}
	tuplestore_putvalues(s->rsinfo->setResult, s->rsinfo->setDesc, values, nulls);
	pfree(values);
	pfree(nulls);
}

static void
take_event(Search *s, HfRow *event)
{
	hf_row_load(event);
	if (hf_time(event, EVENT_AT) >= s->since && hf_time(event, EVENT_AT) < s->until &&
		is_text(event, EVENT_SUBJECT, s->subject) && is_text(event, EVENT_ACTION_KEY, s->action_key) &&
		is_text(event, EVENT_CORRELATION_ID, s->correlation_id) &&
		(s->key == NULL || memcmp(hf_uuid(event, EVENT_KEY), s->key, UUID_LEN) == 0) &&
		may_read(s, hf_int32(event, EVENT_QUEUE)))
		put_event(s, event);
}

/* ---------------------------------------------------------------- which jobs */

static void
add_id(Search *s, int64 id)
{
	if (s->nids == s->room)
	{
		s->room = Max(16, s->room * 2);
		s->ids = s->ids == NULL ? palloc(sizeof(int64) * s->room) : repalloc_huge(s->ids, sizeof(int64) * s->room);
	}
	s->ids[s->nids++] = id;
}

static int
by_id(const void *a, const void *b)
{
	int64		x = *(const int64 *) a;
	int64		y = *(const int64 *) b;

	return x < y ? -1 : x > y;
}

/* An entry of this index is a job's first event. */
static void
ids_of_subject(HfTable *table, void *arg)
{
	Search	   *s = arg;
	HfRow	   *event = hf_row_for(table);
	IndexScanDesc scan = hf_index_beginscan(table->rel, hf_index(table, "_subject"), s->snapshot, s->nkeys);

	index_rescan(scan, s->keys, s->nkeys, NULL, 0);
	while (index_getnext_slot(scan, ForwardScanDirection, event->stored))
	{
		CHECK_FOR_INTERRUPTS();
		hf_row_load(event);
		add_id(s, hf_int64(event, EVENT_JOB_ID));
	}
	index_endscan(scan);
	hf_row_free(event);
}

/* Whose key it is: subject and action, if anything still knows. */
static void
subject_of_key(Search *s)
{
	HfRow	   *ledger = hf_row_for(hf_open(s->call, HF_LEDGER));
	HfRow	   *job = hf_row_for(hf_open(s->call, HF_JOB));

	if (hf_find_key(ledger, s->key))
	{
		s->subject = DatumGetTextPCopy(hf_get(ledger, LEDGER_SUBJECT));
		s->action_key = DatumGetTextPCopy(hf_get(ledger, LEDGER_ACTION_KEY));
		/* the events of a child effect are its action's */
		if (!hf_is_null(ledger, LEDGER_PARENT_KEY))
			s->key = (pg_uuid_t *) memcpy(palloc(UUID_LEN), hf_uuid(ledger, LEDGER_PARENT_KEY), UUID_LEN);
	}
	else if (hf_find_live_key(job, s->key))
	{
		s->subject = DatumGetTextPCopy(hf_get(job, JOB_SUBJECT));
		s->action_key = DatumGetTextPCopy(hf_get(job, JOB_ACTION_KEY));
	}
	hf_row_free(job);
	hf_row_free(ledger);
}

/* ---------------------------------------------------------------- their events */

static void
events_of_job(Search *s, HfTable *table, HfRow *event, int64 job_id)
{
	IndexScanDesc scan;

	key_job(s, job_id);
	scan = hf_index_beginscan(table->rel, hf_index(table, "_job"), s->snapshot, 1);
	index_rescan(scan, s->keys, 1, NULL, 0);
	while (index_getnext_slot(scan, ForwardScanDirection, event->stored))
	{
		CHECK_FOR_INTERRUPTS();
		take_event(s, event);
	}
	index_endscan(scan);
}

static void
events_in(HfTable *table, void *arg)
{
	Search	   *s = arg;
	HfRow	   *event = hf_row_for(table);

	if (s->by_id)
	{
		for (int i = 0; i < s->nids; i++)
			events_of_job(s, table, event, s->ids[i]);
	}
	else
	{
		TableScanDesc scan = table_beginscan(table->rel, s->snapshot, 0, NULL);

		while (table_scan_getnextslot(scan, ForwardScanDirection, event->stored))
		{
			CHECK_FOR_INTERRUPTS();
			take_event(s, event);
		}
		table_endscan(scan);
	}
	hf_row_free(event);
}

static void
events_of_one(HfTable *table, void *arg)
{
	Search	   *s = arg;
	HfRow	   *event = hf_row_for(table);

	events_of_job(s, table, event, s->ids[s->nids]);
	hf_row_free(event);
}

/* Few jobs are asked for one by one, so that days without them are passed over; many, day by day. */
static void
events_by_id(Search *s)
{
	int			n = s->nids;

	if (n > FEW_JOBS)
	{
		hf_event_tables(s->call, s->since, s->until, NULL, events_in, s);
		return;
	}
	for (s->nids = 0; s->nids < n; s->nids++)
	{
		HfProbe		probe = {"_job", s->snapshot, s->keys, 1};

		key_job(s, s->ids[s->nids]);
		hf_event_tables(s->call, s->since, s->until, &probe, events_of_one, s);
	}
}

/*
 * holdfast.events_of(subject text, action_key text, job_id bigint, idempotency_key uuid,
 *					  correlation_id text, since timestamptz, until timestamptz)
 *		returns setof event
 *
 * The events that fit all arguments that are not null, of the queues that the
 * caller may read, in no order.  Errors: 22023 if all are null.
 */
Datum
holdfast_events_of(PG_FUNCTION_ARGS)
{
	HfCall		call;
	Search		s = {0};
	bool		by_job = !PG_ARGISNULL(2);

	InitMaterializedSRF(fcinfo, 0);
	hf_begin(&call, "events_of", false);
	s.call = &call;
	s.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	s.snapshot = GetActiveSnapshot();
	s.subject = hf_arg_text(fcinfo, 0, "subject", HF_MAX_TEXT, false);
	s.action_key = hf_arg_text(fcinfo, 1, "action_key", HF_MAX_NAME, false);
	s.key = PG_ARGISNULL(3) ? NULL : PG_GETARG_UUID_P(3);
	s.correlation_id = hf_arg_text(fcinfo, 4, "correlation_id", HF_MAX_TEXT, false);
	s.since = PG_ARGISNULL(5) ? DT_NOBEGIN : PG_GETARG_TIMESTAMPTZ(5);
	s.until = PG_ARGISNULL(6) ? DT_NOEND : PG_GETARG_TIMESTAMPTZ(6);
	s.queue = -1;
	if (s.subject == NULL && s.action_key == NULL && !by_job && s.key == NULL && s.correlation_id == NULL &&
		PG_ARGISNULL(5) && PG_ARGISNULL(6))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("nothing says whose history is asked for"),
				 errhint("Give subject, action_key, job_id, idempotency_key, correlation_id, since or until.")));

	if (s.subject == NULL && !by_job && s.key != NULL)
		subject_of_key(&s);
	if (by_job)
		add_id(&s, PG_GETARG_INT64(2));
	else if (s.subject != NULL)
	{
		HfProbe		probe = {"_subject", s.snapshot, s.keys};

		key_text(&s, s.subject);
		if (s.action_key != NULL)
			key_text(&s, s.action_key);
		probe.nkeys = s.nkeys;
		hf_event_tables(&call, DT_NOBEGIN, s.until, &probe, ids_of_subject, &s);
		qsort(s.ids, s.nids, sizeof(int64), by_id);
		s.nids = qunique(s.ids, s.nids, sizeof(int64), by_id);
	}
	s.by_id = by_job || s.subject != NULL;
	if (s.by_id)
		events_by_id(&s);
	else
		hf_event_tables(&call, s.since, s.until, NULL, events_in, &s);
	hf_end(&call);
	return (Datum) 0;
}

/* ---------------------------------------------------------------- explain */

static void
queue_of_job(HfTable *table, void *arg)
{
	Search	   *s = arg;
	HfRow	   *event = hf_row_for(table);
	IndexScanDesc scan;

	if (s->queue >= 0)
		return;
	scan = hf_index_beginscan(table->rel, hf_index(table, "_job"), s->snapshot, 1);
	index_rescan(scan, s->keys, 1, NULL, 0);
	if (index_getnext_slot(scan, ForwardScanDirection, event->stored))
	{
		hf_row_load(event);
		s->queue = hf_int32(event, EVENT_QUEUE);
	}
	index_endscan(scan);
	hf_row_free(event);
}

/* The queue of a job, live, dead or ended; -1 if nothing knows it. */
static int32
find_queue(HfCall *call, int64 job_id)
{
	HfRow	   *job = hf_row_for(hf_open(call, HF_JOB));
	HfRow	   *dead = hf_row_for(hf_open(call, HF_DEAD_JOB));
	Search		s = {0};

	s.queue = -1;
	s.snapshot = GetActiveSnapshot();
	if (hf_find_job(job, job_id))
		s.queue = hf_int32(job, JOB_QUEUE);
	else if (hf_find_job(dead, job_id))
		s.queue = hf_int32(dead, JOB_QUEUE);
	else
	{
		HfProbe		probe = {"_job", s.snapshot, s.keys, 1};

		key_job(&s, job_id);
		hf_event_tables(call, DT_NOBEGIN, DT_NOEND, &probe, queue_of_job, &s);
	}
	hf_row_free(dead);
	hf_row_free(job);
	return s.queue;
}

/*
 * holdfast.explain(job_id bigint) returns setof explanation
 *
 * For readers of the job's queue; a job of another one is not known.
 */
Datum
holdfast_explain(PG_FUNCTION_ARGS)
{
	HfCall		call;
	int64		job_id = hf_arg_bigint(fcinfo, 0, "job_id");
	int32		queue;
	Oid			types[2] = {INT8OID, BOOLOID};
	Datum		values[2] = {Int64GetDatum(job_id), BoolGetDatum(false)};

	InitMaterializedSRF(fcinfo, 0);
	hf_begin(&call, "explain", false);
	queue = find_queue(&call, job_id);
	values[1] = BoolGetDatum(queue >= 0 && hf_is_granted_id(queue, HF_READER));
	hf_query_as_owner(fcinfo, "SELECT * FROM holdfast.explain_of($1, $2)", 2, types, values, NULL);
	hf_end(&call);
	return (Datum) 0;
}

/* ---------------------------------------------------------------- ps */

#define TAIL_BLOCKS 256			/* of a day's table: some thousand events, whatever the day holds */

/* The latest blocks of a table that is only appended to. */
static void
tail_of(HfTable *table, void *arg)
{
	Search	   *s = arg;
	HfRow	   *event = hf_row_for(table);
	BlockNumber nblocks = RelationGetNumberOfBlocks(table->rel);
	ItemPointerData first;
	ItemPointerData last;
	TableScanDesc scan;

	ItemPointerSet(&first, nblocks > TAIL_BLOCKS ? nblocks - TAIL_BLOCKS : 0, FirstOffsetNumber);
	ItemPointerSet(&last, MaxBlockNumber, MaxOffsetNumber);
	scan = table_beginscan_tidrange(table->rel, s->snapshot, &first, &last);
	while (table_scan_getnextslot_tidrange(scan, ForwardScanDirection, event->stored))
	{
		CHECK_FOR_INTERRUPTS();
		take_event(s, event);
	}
	table_endscan(scan);
	hf_row_free(event);
}

/*
 * holdfast.latest_events(since timestamptz) returns setof event
 *
 * Events since then, of the queues that the caller may read: those in the
 * latest blocks of each day.  For ps, which must not read a day through.
 */
Datum
holdfast_latest_events(PG_FUNCTION_ARGS)
{
	HfCall		call;
	Search		s = {0};

	InitMaterializedSRF(fcinfo, 0);
	hf_begin(&call, "latest_events", false);
	s.call = &call;
	s.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	s.snapshot = GetActiveSnapshot();
	s.since = hf_arg_timestamp(fcinfo, 0, "since");
	s.until = DT_NOEND;
	s.queue = -1;
	hf_event_tables(&call, s.since, s.until, NULL, tail_of, &s);
	hf_end(&call);
	return (Datum) 0;
}

/*
 * holdfast.budget(max_attempts integer, retry_policy text, queue integer) returns integer
 *
 * The m of "failure f of m": the job's own, else its queue's, else its policy's.
 */
Datum
holdfast_budget(PG_FUNCTION_ARGS)
{
	HfCall		call;
	text	   *policy_name = hf_arg_text(fcinfo, 1, "retry_policy", HF_MAX_NAME, false);
	const HfQueue *queue;
	const HfPolicy *policy;
	int32		budget;

	if (!PG_ARGISNULL(0))
		PG_RETURN_INT32(PG_GETARG_INT32(0));
	hf_begin(&call, "budget", false);
	queue = PG_ARGISNULL(2) ? NULL : hf_queue_by_id(PG_GETARG_INT32(2));
	policy = policy_name != NULL ? hf_policy(text_to_cstring(policy_name)) : queue != NULL ? hf_policy(queue->retry_policy) : NULL;
	if (policy == NULL)
		policy = hf_policy("default");
	budget = queue != NULL && queue->max_attempts > 0 ? queue->max_attempts : policy->max_attempts;
	hf_end(&call);
	PG_RETURN_INT32(budget);
}
