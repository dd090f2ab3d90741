/*-------------------------------------------------------------------------
 *
 * history.c
 *	  What the events say of a lease that is no longer current; outcome().
 *
 * Asked only for reports that come too late, twice or from nowhere.  It looks
 * back as far as the longest lease and a week, in the partitions of that time
 * and in event_overflow, and sees what is committed at this moment.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "access/stratnum.h"
#include "catalog/pg_am_d.h"
#include "miscadmin.h"
#include "nodes/tidbitmap.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "utils/builtins.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(holdfast_outcome);

#define LOOK_BACK (INT64CONST(8) * USECS_PER_DAY)	/* the longest lease, a day, and 7 days */

/* Keep an event beyond the scan it was met in. */
static void
keep(HfEvent *to, const HfRow *event)
{
	HfEvent		met;

	for (int c = 0; c < EVENT_NCOLUMNS; c++)
	{
		met.null[c] = hf_is_null(event, c);
		met.value[c] = hf_get(event, c);
	}
	hf_event_keep(to, &met);
}

static bool
later(const HfRow *event, const HfEvent *than)
{
	if (hf_int32(event, EVENT_ATTEMPT_NUMBER) != DatumGetInt32(than->value[EVENT_ATTEMPT_NUMBER]))
		return hf_int32(event, EVENT_ATTEMPT_NUMBER) > DatumGetInt32(than->value[EVENT_ATTEMPT_NUMBER]);
	if (hf_time(event, EVENT_AT) != DatumGetTimestampTz(than->value[EVENT_AT]))
		return hf_time(event, EVENT_AT) > DatumGetTimestampTz(than->value[EVENT_AT]);
	return hf_int64(event, EVENT_ID) > DatumGetInt64(than->value[EVENT_ID]);
}

static bool
is_one_of(Datum kind, const char *const *words)
{
	for (; *words != NULL; words++)
		if (hf_text_is(kind, *words))
			return true;
	return false;
}

static const char *const ends[] = {"action_attempt_succeeded", "action_attempt_failed", "action_attempt_lost",
	"action_snoozed", "action_released", "action_cancelled", "action_purged", NULL};
static const char *const decisions[] = {"action_retry_scheduled", "action_reconcile_scheduled", "action_exhausted",
	"action_terminal", "action_suppressed", "action_cancelled", "action_attempt_succeeded", NULL};

static void
take(HfHistory *h, const HfRow *event, const pg_uuid_t *lease_id, bool *any)
{
	Datum		kind = hf_get(event, EVENT_KIND);

	if (!*any || later(event, &h->last))
		keep(&h->last, event);
	*any = true;
	if (hf_is_null(event, EVENT_LEASE_ID) || memcmp(hf_uuid(event, EVENT_LEASE_ID), lease_id, UUID_LEN) != 0)
		return;
	if (hf_text_is(kind, "action_attempt_started"))
	{
		h->known = true;
		keep(&h->started, event);
	}
	else if (hf_text_is(kind, "action_stale_report"))
	{
		h->stale_seen = true;
		if (hf_text_is(hf_get(event, EVENT_WORKER_RESULT), "heartbeat"))
			h->stale_heartbeat_seen = true;
	}
	else if (hf_text_is(kind, "action_reconciled"))
	{
		HfEvent    *finding = palloc(sizeof(HfEvent));

		keep(finding, event);
		h->findings = lcons(finding, h->findings);
	}
	else
	{
		/* the first of the two events of an end is the report, the second the decision */
		if (is_one_of(kind, ends) && (!h->ended || !later(event, &h->end)))
		{
			h->ended = true;
			keep(&h->end, event);
		}
		if (is_one_of(kind, decisions) && (!h->decided || later(event, &h->decision)))
		{
			h->decided = true;
			keep(&h->decision, event);
		}
	}
}

static int
latest_first(const ListCell *a, const ListCell *b)
{
	int64		x = DatumGetInt64(((HfEvent *) lfirst(a))->value[EVENT_ID]);
	int64		y = DatumGetInt64(((HfEvent *) lfirst(b))->value[EVENT_ID]);

	return x > y ? -1 : x < y;
}

/* A finding ends the attempt itself, unless the job went on under the same lease. */
static void
end_by_finding(HfHistory *h)
{
	HfEvent    *last = h->findings != NIL ? linitial(h->findings) : NULL;
	char	   *outcome = last ? hf_event_detail(last, "outcome") : NULL;

	if (outcome == NULL || strcmp(outcome, "execute") == 0 || strcmp(outcome, "reconcile") == 0)
		return;
	if (h->ended && !hf_text_is(h->end.value[EVENT_KIND], "action_cancelled"))
		return;					/* a cancellation may be what the finding led to */
	h->ended = h->decided = true;
	h->end = h->decision = *last;
}

/* What is looked for, and whether anything was met. */
typedef struct Look
{
	int64		job_id;
	const pg_uuid_t *lease_id;
	HfHistory  *history;
	bool		any;
} Look;

static void
scan_one(HfTable *table, void *arg)
{
	Look	   *look = arg;
	SnapshotData dirty;
	HfRow	   *event = hf_row_for(table);
	ScanKeyData key;
	IndexScanDesc scan;

	/* events never move; a dirty snapshot takes no serializable read locks */
	InitDirtySnapshot(dirty);
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(look->job_id));
	scan = hf_index_beginscan(table->rel, hf_index(table, "_job"), &dirty, 1);
	index_rescan(scan, &key, 1, NULL, 0);
	while (index_getnext_slot(scan, ForwardScanDirection, event->stored))
	{
		if (TransactionIdIsValid(dirty.xmin))
			continue;			/* not committed */
		hf_row_load(event);
		take(look->history, event, look->lease_id, &look->any);
	}
	index_endscan(scan);
	hf_row_free(event);
}

/*
 * Whether the index of a day has an entry for the keys.  In a new session this
 * costs a fraction of opening the day's table, whose many columns and triggers
 * are read from the catalogs first.  True where it cannot be told.
 */
static bool
day_has_entry(Oid day, const HfProbe *probe)
{
	char	   *name;
	Oid			indexid;
	Relation	index;
	IndexScanDesc scan;
	TIDBitmap  *bitmap;
	bool		found;

	LockRelationOid(day, AccessShareLock);
	name = get_rel_name(day);
	if (name == NULL)
	{
		UnlockRelationOid(day, AccessShareLock);
		return false;			/* dropped meanwhile */
	}
	indexid = get_relname_relid(psprintf("%s%s", name, probe->suffix), get_rel_namespace(day));
	if (!OidIsValid(indexid))
		return true;
	index = index_open(indexid, AccessShareLock);
	if (index->rd_index->indrelid != day || !index->rd_index->indisvalid || index->rd_rel->relam != BTREE_AM_OID)
		found = true;
	else
	{
		scan = hf_index_beginscan_bitmap(index, probe->snapshot, probe->nkeys);
		index_rescan(scan, probe->keys, probe->nkeys, NULL, 0);
		bitmap = tbm_create(work_mem * INT64CONST(1024), NULL);
		found = index_getbitmap(scan, bitmap) > 0;
		tbm_free(bitmap);
		index_endscan(scan);
	}
	index_close(index, NoLock);
	return found;
}

/*
 * Call "scan" for event_overflow, and for each day of events that may hold
 * some of [since, until), from the latest back.  With a probe only for days
 * whose index has an entry for it.  Events move from event_overflow into their
 * day, which may be made for them: in this order what is moved meanwhile is
 * met once or twice, in the other perhaps not at all.
 */
void
hf_event_tables(HfCall *call, TimestampTz since, TimestampTz until, const HfProbe *probe,
				void (*scan) (HfTable *table, void *arg), void *arg)
{
	Relation	parent = hf_open(call, HF_EVENT)->rel;
	PartitionDesc desc;

	scan(hf_open(call, HF_EVENT_OVERFLOW), arg);
	AcceptInvalidationMessages();	/* the lock on the parent lets new days through */
	desc = RelationGetPartitionDesc(parent, true);
	/* indexes[b] is what lies below bound b */
	for (int b = desc->nparts > 0 ? desc->boundinfo->ndatums - 1 : 0; b > 0; b--)
	{
		int			i = desc->boundinfo->indexes[b];
		Relation	rel;
		HfTable    *table;

		if (desc->boundinfo->kind[b][0] == PARTITION_RANGE_DATUM_VALUE &&
			DatumGetTimestampTz(desc->boundinfo->datums[b][0]) <= since)
			break;
		if (i < 0 || (desc->boundinfo->kind[b - 1][0] == PARTITION_RANGE_DATUM_VALUE &&
					  DatumGetTimestampTz(desc->boundinfo->datums[b - 1][0]) >= until))
			continue;
		if (probe != NULL && !day_has_entry(desc->oids[i], probe))
			continue;
		rel = try_relation_open(desc->oids[i], AccessShareLock);
		if (rel == NULL)
			continue;
		table = hf_open_partition(call, rel);
		scan(table, arg);
		hf_close(table);
	}
}

/* false: nothing is known of the job; h->known: the lease is one of its own */
bool
hf_history(HfCall *call, int64 job_id, const pg_uuid_t *lease_id, HfHistory *h)
{
	Look		look = {job_id, lease_id, h, false};

	memset(h, 0, sizeof(HfHistory));
	hf_event_tables(call, call->now - LOOK_BACK, DT_NOEND, NULL, scan_one, &look);
	list_sort(h->findings, latest_first);
	end_by_finding(h);
	return look.any;
}

/* ---------------------------------------------------------------- outcome */

/* What became of the attempt, in one word. */
static const char *
outcome_word(const HfHistory *h, bool current)
{
	static const char *const words[][2] = {
		{"action_attempt_succeeded", "completed"}, {"action_attempt_failed", "failed"}, {"action_attempt_lost", "lost"},
		{"action_snoozed", "snoozed"}, {"action_released", "released"}, {"action_cancelled", "cancelled"},
	{"action_purged", "cancelled"}, {"action_reconciled", "reconciled"}};

	if (current)
		return "running";
	if (!h->known)
		return "stale";
	if (h->ended)
		for (int i = 0; i < lengthof(words); i++)
			if (hf_text_is(h->end.value[EVENT_KIND], words[i][0]))
				return words[i][1];
	return "lost";
}

/*
 * holdfast.outcome(job_id bigint, lease_id uuid)
 *		returns setof (outcome text, decision text, state text, at timestamptz)
 *
 * What became of an attempt, for a client whose COMMIT answer was lost:
 * running | completed | failed | lost | snoozed | released | cancelled |
 * reconciled | stale (the lease was never granted) | unknown_job.
 */
Datum
holdfast_outcome(PG_FUNCTION_ARGS)
{
	HfCall		call;
	int64		job_id = hf_arg_bigint(fcinfo, 0, "job_id");
	pg_uuid_t  *lease_id = hf_arg_uuid(fcinfo, 1, "lease_id");
	HfHistory  *h;
	HfRow	   *job;
	bool		live;
	bool		current;
	bool		known;
	int32		queue = HF_NO_QUEUE;
	Datum		values[4] = {0};
	bool		nulls[4] = {false, true, true, true};

	hf_begin(&call, "outcome", false);
	h = palloc0(sizeof(HfHistory));
	job = hf_row_for(hf_open(&call, HF_JOB));
	live = hf_find_job(job, job_id);
	current = live && !hf_is_null(job, JOB_LEASE_ID) && memcmp(hf_uuid(job, JOB_LEASE_ID), lease_id, UUID_LEN) == 0;
	known = hf_history(&call, job_id, lease_id, h);
	if (live || known)
		queue = live ? hf_int32(job, JOB_QUEUE) : DatumGetInt32(h->last.value[EVENT_QUEUE]);
	if ((live || known) && (hf_is_granted_id(queue, HF_WORKER) || hf_is_granted_id(queue, HF_PRODUCER)))
	{
		const HfEvent *at = h->ended ? &h->end : h->known ? &h->started : &h->last;
		char	   *decision = h->decided ? hf_event_detail(&h->decision, "decision") : NULL;

		values[0] = CStringGetTextDatum(outcome_word(h, current));
		if (decision != NULL)
		{
			values[1] = CStringGetTextDatum(decision);
			nulls[1] = false;
		}
		values[2] = live ? hf_get(job, JOB_STATUS) : hf_word("ended");
		values[3] = at->value[EVENT_AT];
		nulls[2] = false;
		nulls[3] = !known;
	}
	else
		values[0] = hf_word("unknown_job");
	hf_answer_row(fcinfo, "tttz", values, nulls);
	hf_end(&call);
	return (Datum) 0;
}
