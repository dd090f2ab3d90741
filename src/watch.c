/*-------------------------------------------------------------------------
 *
 * watch.c
 *	  The triggers of watched tables.
 *
 * Evidence is written after the row is stored, from the row as stored
 * (watch_row).  What a mode forbids or corrects is dealt with before
 * (watch_before), a trigger that is there in the modes correct and enforce
 * only, since a BEFORE trigger makes the executor lock each row first.  Its
 * name comes last in the alphabet, so that it sees what other triggers made
 * of the row.
 *
 * A row that is taken out and put in again never passes watch_before as one
 * change; in mode enforce watch_row refuses what such a pair breaks.
 *
 * The triggers are ENABLE ALWAYS, and so fire under
 * session_replication_role = replica too.  The apply worker of logical
 * replication is told apart: the evidence was written where the change was
 * made.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "access/relation.h"
#include "catalog/namespace.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "replication/logicalworker.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(holdfast_watch_row);
PG_FUNCTION_INFO_V1(holdfast_watch_before);
PG_FUNCTION_INFO_V1(holdfast_watch_truncated);
PG_FUNCTION_INFO_V1(holdfast_watch_problem);
PG_FUNCTION_INFO_V1(holdfast_watch_redriven);

static TriggerData *
trigger_data(FunctionCallInfo fcinfo, const char *function, TriggerEvent timing)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) || (trigger->tg_event & TRIGGER_EVENT_TIMINGMASK) != timing ||
		trigger->tg_trigger->tgnargs != 1)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("%s() is a trigger function of watched tables", function),
				 errhint("Use holdfast.watch().")));
	return trigger;
}

/* ---------------------------------------------------------------- a mapping that no longer fits */

/* On record once per backend and cause; in mode enforce nothing passes unseen. */
static void
note_problem(HfWatch *w, Relation rel)
{
	static int32 noted_watch = 0;
	static char noted[256];
	HfCall		call;
	HfDetail	detail = {0};

	if (w->mode == HF_ENFORCE)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the watch on table \"%s\" no longer fits it", RelationGetRelationName(rel)),
				 errdetail("%s", w->problem),
				 errhint("Call holdfast.watch() with a mapping that fits, or holdfast.unwatch().")));
	if (noted_watch == w->watch_id && strncmp(noted, w->problem, sizeof(noted) - 1) == 0)
		return;
	hf_begin(&call, "watch_row", true);
	hf_detail_cstring(&detail, "relation", w->source);
	hf_detail_cstring(&detail, "problem", w->problem);
	hf_finding(&call, "watch_broken", -w->watch_id, NULL, NULL, hf_detail_end(&detail));
	hf_end(&call);
	noted_watch = w->watch_id;
	strlcpy(noted, w->problem, sizeof(noted));
}

/* The compiled mapping for the trigger's table, ready for a row; NULL: stand aside. */
static HfWatch *
begin_row(TriggerData *trigger)
{
	HfWatch    *w;

	if (IsLogicalWorker())
		return NULL;
	w = hf_watch_of(trigger->tg_relation, pg_strtoint32(trigger->tg_trigger->tgargs[0]));
	if (w == NULL)
		return NULL;
	if (w->problem != NULL)
	{
		note_problem(w, trigger->tg_relation);
		return NULL;
	}
	hf_watch_refuse_busy(w, trigger->tg_relation);
	ResetExprContext(w->econtext);
	return w;
}

typedef HeapTuple (*ReadRow) (HfWatch *w, TriggerData *trigger);

/* What a trigger does with a row, and returns; expressions may call what comes here again, for the same table. */
static HeapTuple
with_watch(TriggerData *trigger, ReadRow read, HeapTuple otherwise)
{
	HfWatch    *w = begin_row(trigger);
	HeapTuple	result = NULL;

	if (w == NULL)
		return otherwise;
	w->busy = true;
	PG_TRY();
	{
		result = read(w, trigger);
	}
	PG_FINALLY();
	{
		w->busy = false;
	}
	PG_END_TRY();
	return result;
}

/* ---------------------------------------------------------------- after the row is stored */

/* What mode enforce refuses of a row that has been stored: all but a retry whose time has come by now. */
static uint32
refused_late(HfChange *c, uint32 found)
{
	if (c->w->mode != HF_ENFORCE)
		return 0;
	if (hf_retry_not_before(c) <= c->call->now)
		found &= ~(1u << HF_RETRY_NOW);
	return found;
}

static HeapTuple
read_stored(HfWatch *w, TriggerData *trigger)
{
	HfCall		call;
	HfChange	c = {.call = &call, .w = w};
	uint32		found;

	if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
		c.new = trigger->tg_trigslot;
	else
		c.old = trigger->tg_trigslot;
	if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
		c.new = trigger->tg_newslot;
	if (!hf_change_classify(&c))
		return NULL;

	hf_begin(&call, "watch_row", true);
	hf_change_look_up(&c);
	found = hf_violations(&c);
	if (found != 0)
	{
		uint32		refused = refused_late(&c, found);

		if (refused != 0)
			hf_violation_refuse(&c, refused);
		hf_violations_record(&c, found, "recorded", DT_NOBEGIN);
	}
	hf_change_record(&c);
	hf_end(&call);
	return NULL;
}

/* Trigger: evidence of a change of a watched row; its argument is the watch's number. */
Datum
holdfast_watch_row(PG_FUNCTION_ARGS)
{
	return PointerGetDatum(with_watch(trigger_data(fcinfo, "watch_row", TRIGGER_EVENT_AFTER), read_stored, NULL));
}

/* ---------------------------------------------------------------- before it is stored */

/* A worker that polls meets the same row again and again: on record once per attempt and backend, about. */
static bool
skipped_before(const HfChange *c)
{
	static int64 skipped[64];
	static int	next = 0;
	int64		attempt = hf_int64(c->last, RECORD_ID) ^ hf_time(c->last, RECORD_STARTED_AT);

	for (int i = 0; i < lengthof(skipped); i++)
		if (skipped[i] == attempt)
			return true;
	skipped[next] = attempt;
	next = (next + 1) % lengthof(skipped);
	return false;
}

/* The new row with the policy's time in it. */
static HeapTuple
corrected(HfChange *c, TriggerData *trigger, uint32 found, MemoryContext cxt)
{
	const char *policy;
	TimestampTz run_after = c->call->now + hf_watch_delay_ms(c, &policy) * 1000;
	int			att = c->w->fields[MAP_RUN_AFTER].att;
	Oid			type = TupleDescAttr(RelationGetDescr(trigger->tg_relation), att - 1)->atttypid;
	Datum		value = TimestampTzGetDatum(run_after);
	bool		isnull = false;
	MemoryContext old;
	HeapTuple	tuple;

	/* a domain's constraints are looked at where a value becomes one of it, which is here */
	if (getBaseType(type) != type)
		domain_check(value, false, type, NULL, CurrentMemoryContext);
	hf_violations_record(c, found, "corrected", run_after);
	old = MemoryContextSwitchTo(cxt);
	tuple = heap_modify_tuple_by_cols(trigger->tg_newtuple, RelationGetDescr(trigger->tg_relation), 1, &att, &value, &isnull);
	MemoryContextSwitchTo(old);
	return tuple;
}

/*
 * Whether mode correct may have anything to do with the change, as far as the
 * row alone shows: a first claim, or a requeue with a delay, need not be judged
 * before it is stored.
 */
static bool
may_correct(HfChange *c)
{
	TimestampTz run_after;
	int32		count;

	if (c->begins)
		return c->w->fields[MAP_ATTEMPT_NUMBER].att == 0 ||
			!hf_watch_int(c->w, MAP_ATTEMPT_NUMBER, c->old, &count) || count != 0 ||
			(hf_watch_time(c->w, MAP_RUN_AFTER, c->old, &run_after) && run_after > hf_clock_now());
	return c->requeued && (!hf_watch_time(c->w, MAP_RUN_AFTER, c->new, &run_after) || run_after <= hf_clock_now());
}

static HeapTuple
read_unstored(HfWatch *w, TriggerData *trigger)
{
	static const uint32 correctable = 1u << HF_REQUEUE_NOW | 1u << HF_NO_RUN_AFTER;
	HfCall		call;
	HfChange	c = {.call = &call, .w = w, .old = trigger->tg_trigslot, .new = trigger->tg_newslot};
	HeapTuple	result = trigger->tg_newtuple;
	MemoryContext cxt = CurrentMemoryContext;
	uint32		found;

	if (w->mode == HF_OBSERVE || !hf_change_classify(&c) || (w->mode == HF_CORRECT && !may_correct(&c)))
		return result;

	hf_begin(&call, "watch_before", true);
	hf_change_look_up(&c);
	found = hf_violations(&c);
	if ((found & (1u << HF_RETRY_NOW)) && hf_retry_not_before(&c) > call.now)
	{
		if (c.w->mode == HF_CORRECT)
		{
			if (!skipped_before(&c))
				hf_violations_record(&c, 1u << HF_RETRY_NOW, "skipped", DT_NOBEGIN);
			result = NULL;
		}
	}
	else
		found &= ~(1u << HF_RETRY_NOW);
	if (c.w->mode == HF_ENFORCE && found != 0)
		hf_violation_refuse(&c, found);
	if (result != NULL && (found & correctable))
		result = corrected(&c, trigger, found & correctable, cxt);
	hf_end(&call);
	return result;
}

/*
 * Trigger, in the modes correct and enforce: a requeue gets its delay, a
 * retry before its time finds no row; or both are refused.
 */
Datum
holdfast_watch_before(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = trigger_data(fcinfo, "watch_before", TRIGGER_EVENT_BEFORE);

	if (!TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
		return PointerGetDatum(trigger->tg_trigtuple);
	return PointerGetDatum(with_watch(trigger, read_unstored, trigger->tg_newtuple));
}

/* Trigger: a watched table was emptied, which ends no attempt on record. */
Datum
holdfast_watch_truncated(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = trigger_data(fcinfo, "watch_truncated", TRIGGER_EVENT_AFTER);
	HfCall		call;
	HfDetail	detail = {0};

	if (IsLogicalWorker())
		return PointerGetDatum(NULL);
	hf_begin(&call, "watch_truncated", true);
	hf_detail_cstring(&detail, "relation", quote_qualified_identifier(get_namespace_name(RelationGetNamespace(trigger->tg_relation)),
																	   RelationGetRelationName(trigger->tg_relation)));
	hf_detail_cstring(&detail, "by", GetUserNameFromId(GetUserId(), false));
	hf_finding(&call, "watch_truncated", -pg_strtoint32(trigger->tg_trigger->tgargs[0]), NULL, NULL, hf_detail_end(&detail));
	hf_end(&call);
	return PointerGetDatum(NULL);
}

/* ---------------------------------------------------------------- for the event trigger, verify() and operators */

static const char *const functions[] = {"watch_row", "watch_before", "watch_truncated"};

/* Our trigger of that function on the table, or NULL; a copy, since reading the catalogs may build the table's entry anew. */
static Trigger *
find_trigger(Relation rel, const char *function)
{
	Oid			ours = get_namespace_oid(HF_SCHEMA, true);
	TriggerDesc *triggers = CopyTriggerDesc(rel->trigdesc);

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		Trigger    *trigger = &triggers->triggers[i];
		char	   *name = get_func_name(trigger->tgfoid);

		if (name != NULL && strcmp(name, function) == 0 && get_func_namespace(trigger->tgfoid) == ours && trigger->tgnargs == 1)
			return trigger;
	}
	return NULL;
}

/* One that sees less than all, or later, leaves changes unseen. */
char *
hf_watch_misshapen(Relation rel)
{
	static const struct
	{
		const char *function;
		int16		type;
	}			made[] = {
		{"watch_row", TRIGGER_TYPE_ROW | TRIGGER_TYPE_AFTER | TRIGGER_TYPE_INSERT | TRIGGER_TYPE_UPDATE | TRIGGER_TYPE_DELETE},
		{"watch_before", TRIGGER_TYPE_ROW | TRIGGER_TYPE_BEFORE | TRIGGER_TYPE_UPDATE},
		{"watch_truncated", TRIGGER_TYPE_STATEMENT | TRIGGER_TYPE_AFTER | TRIGGER_TYPE_TRUNCATE},
	};
	Oid			ours = get_namespace_oid(HF_SCHEMA, true);
	TriggerDesc *triggers = CopyTriggerDesc(rel->trigdesc);

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		Trigger    *trigger = &triggers->triggers[i];
		char	   *name = get_func_namespace(trigger->tgfoid) == ours ? get_func_name(trigger->tgfoid) : NULL;

		for (int m = 0; m < lengthof(made) && name != NULL; m++)
			if (strcmp(name, made[m].function) == 0 &&
				(trigger->tgtype != made[m].type || trigger->tgqual != NULL || trigger->tgnattr != 0 || OidIsValid(trigger->tgconstraint)))
				return psprintf("trigger \"%s\" on table \"%s\" is not as holdfast.watch() makes it",
								trigger->tgname, RelationGetRelationName(rel));
	}
	return NULL;
}

int32
hf_watch_id_of(Relation rel)
{
	Trigger    *trigger = find_trigger(rel, functions[0]);

	return trigger != NULL ? pg_strtoint32(trigger->tgargs[0]) : 0;
}

/*
 * What is wrong with the watch on a table or partition, in a sentence; NULL
 * where all is well, or it is not watched.  Not to be called within a call.
 */
char *
hf_watch_recheck(Oid relid)
{
	Relation	rel = try_relation_open(relid, AccessShareLock);
	int32		watch_id = rel != NULL ? hf_watch_id_of(rel) : 0;
	HfWatch    *w;
	char	   *problem = NULL;

	if (rel == NULL)
		return NULL;
	if (watch_id != 0)
	{
		w = hf_watch_of(rel, watch_id);
		if (w == NULL)
			problem = psprintf("table \"%s\" has the trigger of a watch that holdfast.watch does not have", RelationGetRelationName(rel));
		else if (w->problem != NULL)
			problem = pstrdup(w->problem);
		else if (rel->rd_rel->relkind == RELKIND_RELATION && rel->rd_rel->relhassubclass &&
				 find_inheritance_children(relid, NoLock) != NIL)
			problem = psprintf("table \"%s\" has child tables, whose rows are not seen", RelationGetRelationName(rel));
		else
			problem = hf_watch_misshapen(rel);
		for (int f = 0; w != NULL && problem == NULL && f < lengthof(functions); f++)
		{
			Trigger    *trigger = find_trigger(rel, functions[f]);

			/* a partition is emptied with its own, which whoever makes it may not be able to give it */
			if (f == 1 ? w->mode == HF_OBSERVE : f == 2 && rel->rd_rel->relispartition)
				continue;
			if (trigger == NULL)
				problem = psprintf("trigger %s is missing on table \"%s\"", functions[f], RelationGetRelationName(rel));
			else if (trigger->tgenabled != TRIGGER_FIRES_ALWAYS)
				problem = psprintf("trigger \"%s\" on table \"%s\" is not ENABLE ALWAYS", trigger->tgname, RelationGetRelationName(rel));
		}
	}
	relation_close(rel, NoLock);
	return problem;
}

/* holdfast.watch_problem(relation oid) returns text: hf_watch_recheck() for SQL */
Datum
holdfast_watch_problem(PG_FUNCTION_ARGS)
{
	char	   *problem = hf_watch_recheck(PG_GETARG_OID(0));

	if (problem == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(problem));
}

/*
 * holdfast.watch_redriven(relation oid, id text) returns void
 *
 * Marks the row's latest attempt as redriven by an operator, who is about to
 * put the row back: no violation then.  42704 where the table is not watched.
 */
Datum
holdfast_watch_redriven(PG_FUNCTION_ARGS)
{
	Relation	rel = hf_watch_open(PG_GETARG_OID(0), RowExclusiveLock);
	int32		watch_id = hf_watch_id_of(rel);
	HfWatch    *w = watch_id != 0 ? hf_watch_of(rel, watch_id) : NULL;
	HfCall		call;

	if (w == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("table \"%s\" is not watched", RelationGetRelationName(rel)),
				 errhint("The view holdfast.watched lists the tables that are.")));
	hf_begin(&call, "watch_redriven", true);
	hf_record_redriven(&call, w, PG_GETARG_TEXT_PP(1));
	hf_end(&call);
	relation_close(rel, NoLock);
	PG_RETURN_VOID();
}
