/*-------------------------------------------------------------------------
 *
 * config.c
 *	  Settings, as this backend knows them: queues, grants, token floor.
 *
 * A change of one of these tables reaches every backend as a relcache
 * invalidation of that table, sent by the statement trigger config_changed.
 * The callback only notes it; the next outermost call forgets everything and
 * reads again what it needs, with a snapshot of that moment, so that neither
 * the isolation level nor a plan can hold on to an old setting.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "commands/trigger.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

static MemoryContext config_cxt = NULL;
static bool config_stale = true;
static Oid	config_oids[5];		/* of the tables that settings are read from */

static bool queues_loaded = false;
static HfQueue *queues = NULL;
static int	nqueues = 0;
static bool floor_loaded = false;
static int64 token_floor = 0;

PG_FUNCTION_INFO_V1(holdfast_config_changed);

static void
forget_config(Datum arg, Oid relid)
{
	if (relid == InvalidOid)
		config_stale = true;
	else
		for (int i = 0; i < lengthof(config_oids); i++)
			if (config_oids[i] == relid)
				config_stale = true;
}

void
hf_config_init(void)
{
	CacheRegisterRelcacheCallback(forget_config, (Datum) 0);
}

/* Trigger config_changed: every backend is to read the settings again. */
Datum
holdfast_config_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("config_changed() is a trigger function"),
				 errhint("It runs when a table of settings changes.")));
	CacheInvalidateRelcache(trigger->tg_relation);
	return PointerGetDatum(NULL);	/* of an AFTER trigger: no row, and not null */
}

void
hf_config_check(void)
{
	static uint64 generation = 0;

	/* OIDs are read anew whenever one of our tables may be another */
	if (hf_call_depth() > 1 || (!config_stale && generation == hf_tables_generation()))
		return;
	if (config_cxt == NULL)
		config_cxt = AllocSetContextCreate(CacheMemoryContext, "holdfast settings", ALLOCSET_SMALL_SIZES);
	else
		MemoryContextReset(config_cxt);
	queues_loaded = floor_loaded = false;
	nqueues = 0;
	hf_policy_forget();
	hf_access_forget();
	config_oids[0] = hf_table_oid(HF_QUEUE);
	config_oids[1] = hf_table_oid(HF_QUEUE_GRANT);
	config_oids[2] = hf_table_oid(HF_RETRY_POLICY);
	config_oids[3] = hf_table_oid(HF_ERROR_RULE);
	config_oids[4] = hf_table_oid(HF_SETTING);
	config_stale = false;
	generation = hf_tables_generation();
}

MemoryContext
hf_config_context(void)
{
	return config_cxt;
}

/*
 * Hand every row of a table of settings to "row", its values by column enum.
 * The callback copies what it keeps into hf_config_context().
 */
void
hf_config_scan(HfTableId id, HfConfigRow row, void *arg)
{
	HfCall		reading = {.cxt = CurrentMemoryContext};
	HfTable    *table = hf_open(&reading, id);
	Snapshot	snapshot = RegisterSnapshot(IsInParallelMode() ? GetActiveSnapshot() : GetLatestSnapshot());
	TableScanDesc scan = table_beginscan(table->rel, snapshot, 0, NULL);
	TupleTableSlot *slot = table_slot_create(table->rel, NULL);
	int			ncolumns = hf_table_ncolumns(id);
	Datum	   *values = palloc(sizeof(Datum) * ncolumns);
	bool	   *nulls = palloc(sizeof(bool) * ncolumns);

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		slot_getallattrs(slot);
		for (int c = 0; c < ncolumns; c++)
		{
			values[c] = slot->tts_values[table->att[c] - 1];
			nulls[c] = slot->tts_isnull[table->att[c] - 1];
		}
		row(arg, values, nulls);
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	hf_close(table);
	pfree(values);
	pfree(nulls);
}

/* ---------------------------------------------------------------- queues */

static void
load_queue(void *arg, const Datum *values, const bool *nulls)
{
	MemoryContext old = MemoryContextSwitchTo(config_cxt);
	HfQueue    *queue;

	if (nqueues == 0)
		queues = palloc(sizeof(HfQueue) * 8);
	else if (nqueues >= 8 && (nqueues & (nqueues - 1)) == 0)
		queues = repalloc_huge(queues, sizeof(HfQueue) * nqueues * 2);
	queue = &queues[nqueues++];
	queue->queue_id = DatumGetInt32(values[QUEUE_ID]);
	queue->queue_name = TextDatumGetCString(values[QUEUE_NAME]);
	queue->lease_ms = hf_stored_ms(values[QUEUE_LEASE], 0);
	queue->timeout_ms = hf_stored_ms(values[QUEUE_TIMEOUT], 0);
	queue->grace_ms = hf_stored_ms(values[QUEUE_GRACE], 0);
	queue->heartbeat_ms = nulls[QUEUE_HEARTBEAT] ? 0 : hf_stored_ms(values[QUEUE_HEARTBEAT], 0);
	queue->retry_policy = TextDatumGetCString(values[QUEUE_RETRY_POLICY]);
	queue->max_attempts = nulls[QUEUE_MAX_ATTEMPTS] ? 0 : DatumGetInt32(values[QUEUE_MAX_ATTEMPTS]);
	queue->side_effects = DatumGetBool(values[QUEUE_SIDE_EFFECTS]);
	queue->reconcile_separate = hf_text_is(values[QUEUE_RECONCILE], "separate");
	queue->paused = DatumGetBool(values[QUEUE_PAUSED]);
	MemoryContextSwitchTo(old);
}

static int
by_name(const void *a, const void *b)
{
	return strcmp(((const HfQueue *) a)->queue_name, ((const HfQueue *) b)->queue_name);
}

static int32 *queues_by_id = NULL;	/* indexes into queues, sorted by queue_id */

static int
by_id(const void *a, const void *b)
{
	int32		x = queues[*(const int32 *) a].queue_id;
	int32		y = queues[*(const int32 *) b].queue_id;

	return x < y ? -1 : x > y;
}

static void
load_queues(void)
{
	if (queues_loaded)
		return;
	nqueues = 0;
	hf_config_scan(HF_QUEUE, load_queue, NULL);
	qsort(queues, nqueues, sizeof(HfQueue), by_name);
	queues_by_id = MemoryContextAllocHuge(config_cxt, sizeof(int32) * Max(nqueues, 1));
	for (int i = 0; i < nqueues; i++)
		queues_by_id[i] = i;
	qsort(queues_by_id, nqueues, sizeof(int32), by_id);
	queues_loaded = true;
}

/* 42704 if there is none */
const HfQueue *
hf_queue_by_name(const text *queue_name)
{
	char	   *name = text_to_cstring(queue_name);
	int			low = 0;
	int			high;

	load_queues();
	high = nqueues;
	while (low < high)
	{
		int			middle = (low + high) / 2;
		int			order = strcmp(queues[middle].queue_name, name);

		if (order == 0)
		{
			pfree(name);
			return &queues[middle];
		}
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("queue \"%s\" does not exist", name),
			 errhint("Create it with holdfast.create_queue(), or see holdfast.list_queues().")));
}

/* NULL if there is none: jobs outlive nothing, but events outlive their queue */
const HfQueue *
hf_queue_by_id(int32 queue_id)
{
	int			low = 0;
	int			high;

	load_queues();
	high = nqueues;
	while (low < high)
	{
		int			middle = (low + high) / 2;
		HfQueue    *queue = &queues[queues_by_id[middle]];

		if (queue->queue_id == queue_id)
			return queue;
		if (queue->queue_id < queue_id)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

/* ---------------------------------------------------------------- token floor */

static void
load_setting(void *arg, const Datum *values, const bool *nulls)
{
	if (hf_text_is(values[SETTING_NAME], "token_floor"))
		token_floor = DatumGetInt64(DirectFunctionCall1(int8in, PointerGetDatum(TextDatumGetCString(values[SETTING_VALUE]))));
}

/* No fencing token is handed out below it; raised by post_restore(). */
int64
hf_token_floor(void)
{
	if (!floor_loaded)
	{
		token_floor = 0;
		hf_config_scan(HF_SETTING, load_setting, NULL);
		floor_loaded = true;
	}
	return token_floor;
}
