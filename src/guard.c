/*-------------------------------------------------------------------------
 *
 * guard.c
 *	  Plain SQL on our own tables passes through the state machine too.
 *
 * Triggers, ENABLE ALWAYS, on UPDATE, DELETE and TRUNCATE.  What breaks an
 * invariant is refused BEFORE ROW; what is accepted leaves its evidence AFTER
 * ROW, from the row as it was stored.  BEFORE decides what the state machine
 * adds to the row (the charge of a failure, mode reconcile, the time reserved
 * for the events), AFTER writes the events and the ledger.
 *
 * The library's own writes go through the access methods and fire no trigger;
 * what the extension does by SQL passes (hf_is_own).  No guard decides on
 * INSERT: a restore is one, and needs no setting.  An INSERT by anybody but a
 * superuser, who alone can restore, is put on record.
 *
 * Which change is legal is said in docs/state-machine.md, "By hand".
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "catalog/namespace.h"
#include "catalog/pg_type_d.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "parser/parse_func.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

#define HF_MAX_SHOWN 200		/* bytes of a changed value in the evidence */

PG_FUNCTION_INFO_V1(holdfast_guard);

/* ---------------------------------------------------------------- who, and what */

static char *
shown(const char *string, int max)
{
	return pnstrdup(string, pg_mbcliplen(string, strlen(string), max));
}

/* Who is at it, as whom, from what program and with which statement. */
void
hf_detail_who(HfDetail *detail)
{
	hf_detail_cstring(detail, "by", GetUserNameFromId(GetUserId(), false));
	if (GetSessionUserId() != GetUserId())
		hf_detail_cstring(detail, "session_user", GetUserNameFromId(GetSessionUserId(), true));
	if (application_name != NULL && application_name[0] != '\0')
		hf_detail_cstring(detail, "application", application_name);
	if (debug_query_string != NULL)
		hf_detail_cstring(detail, "statement", shown(debug_query_string, HF_MAX_TEXT));
}

/* Equal as stored; an unchanged value out of line is not fetched. */
static bool
same_value(Form_pg_attribute att, Datum a, bool a_null, Datum b, bool b_null)
{
	if (a_null || b_null)
		return a_null && b_null;
	if (att->attlen == -1 && VARATT_IS_EXTERNAL_ONDISK(DatumGetPointer(a)) && VARATT_IS_EXTERNAL_ONDISK(DatumGetPointer(b)) &&
		memcmp(DatumGetPointer(a), DatumGetPointer(b), VARSIZE_EXTERNAL(DatumGetPointer(a))) == 0)
		return true;
	return datum_image_eq(a, b, att->attbyval, att->attlen);
}

static char *
show_value(Form_pg_attribute att, Datum value)
{
	Oid			output;
	bool		varlena;

	getTypeOutputInfo(att->atttypid, &output, &varlena);
	return shown(OidOutputFunctionCall(output, value), HF_MAX_SHOWN);
}

/* {"column": {"from": ..., "to": ...}, ...} of what differs; of a DELETE, all that was there but for the payload. */
void
hf_detail_changes(HfDetail *detail, TriggerData *trigger)
{
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);
	HeapTuple	new = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? trigger->tg_newtuple : NULL;
	HfDetail	all = {0};
	Datum		changes;

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		HfDetail	one = {0};
		bool		from_null;
		bool		to_null = true;
		Datum		from = heap_getattr(trigger->tg_trigtuple, i + 1, desc, &from_null);
		Datum		to = new != NULL ? heap_getattr(new, i + 1, desc, &to_null) : (Datum) 0;

		if (att->attisdropped || strcmp(NameStr(att->attname), "payload") == 0 ||
			strcmp(NameStr(att->attname), "last_event_at") == 0 || same_value(att, from, from_null, to, to_null))
			continue;
		if (!from_null)
			hf_detail_cstring(&one, "from", show_value(att, from));
		if (!to_null)
			hf_detail_cstring(&one, "to", show_value(att, to));
		hf_detail_jsonb(&all, NameStr(att->attname), DatumGetJsonbP(hf_detail_end(&one)));
	}
	changes = hf_detail_end(&all);
	if (changes != (Datum) 0)
		hf_detail_jsonb(detail, "changed", DatumGetJsonbP(changes));
}

/* ---------------------------------------------------------------- refusals */

/* An event that carries what a ledger row, or an event, says of its job. */
static void
event_of_row(HfEvent *event, const HfRow *row, const int pairs[][2], int npairs)
{
	memset(event->null, true, sizeof(event->null));
	for (int i = 0; i < npairs; i++)
		hf_event_copy(event, pairs[i][0], row, pairs[i][1]);
}

static void
event_of_ledger(HfEvent *event, const HfRow *ledger)
{
	static const int pairs[][2] = {{EVENT_JOB_ID, LEDGER_JOB_ID}, {EVENT_KEY, LEDGER_KEY}, {EVENT_QUEUE, LEDGER_QUEUE},
	{EVENT_ATTEMPT_NUMBER, LEDGER_ATTEMPT_NUMBER}, {EVENT_SUBJECT, LEDGER_SUBJECT}, {EVENT_ACTION_KEY, LEDGER_ACTION_KEY},
	{EVENT_AT, LEDGER_CHANGED_AT}};

	event_of_row(event, ledger, pairs, lengthof(pairs));
	hf_event_set(event, EVENT_CORRELATION_ID,
				 CStringGetTextDatum(DatumGetCString(DirectFunctionCall1(uuid_out, hf_get(ledger, LEDGER_KEY)))));
}

static void
event_of_event(HfEvent *event, const HfRow *row)
{
	static const int pairs[][2] = {{EVENT_JOB_ID, EVENT_JOB_ID}, {EVENT_KEY, EVENT_KEY}, {EVENT_QUEUE, EVENT_QUEUE},
	{EVENT_ATTEMPT_NUMBER, EVENT_ATTEMPT_NUMBER}, {EVENT_SUBJECT, EVENT_SUBJECT}, {EVENT_ACTION_KEY, EVENT_ACTION_KEY},
	{EVENT_CORRELATION_ID, EVENT_CORRELATION_ID}, {EVENT_LEASE_ID, EVENT_LEASE_ID}, {EVENT_AT, EVENT_AT}};

	event_of_row(event, row, pairs, lengthof(pairs));
}

/* Remember that this is about to be refused, in case the transaction commits after all. */
void
hf_guard_remember(HfGuard *g, int sqlerrcode)
{
	char	   *what = psprintf("%s of %s.%s", g->op, HF_SCHEMA, g->table);
	HfEvent		event;

	if (g->old == NULL)
	{
		hf_remember_refusal(&g->call, NULL, sqlerrcode, what);
		return;
	}
	switch (g->id)
	{
		case HF_JOB:
		case HF_DEAD_JOB:
			hf_remember_job_refusal(&g->call, g->old, sqlerrcode, what);
			break;
		case HF_LEDGER:
			event_of_ledger(&event, g->old);
			hf_remember_refusal(&g->call, &event, sqlerrcode, what);
			break;
		default:
			event_of_event(&event, g->old);
			hf_remember_refusal(&g->call, &event, sqlerrcode, what);
	}
}

/* ---------------------------------------------------------------- which columns */

static void
find_changes(HfGuard *g)
{
	TupleDesc	desc = RelationGetDescr(g->old->table->rel);

	for (int c = 0; g->new != NULL && c < hf_table_ncolumns(g->id); c++)
		g->changed[c] = !same_value(TupleDescAttr(desc, HF_ATT(g->old, c)), hf_get(g->old, c), hf_is_null(g->old, c),
									hf_get(g->new, c), hf_is_null(g->new, c));
}

bool
hf_guard_any_changed(const HfGuard *g, int but)
{
	for (int c = 0; c < hf_table_ncolumns(g->id); c++)
		if (g->changed[c] && c != but)
			return true;
	return false;
}

static bool
listed(int column, const int *columns)
{
	for (; *columns >= 0; columns++)
		if (*columns == column)
			return true;
	return false;
}

/* Refuse a change of any column but those allowed: JQ007 where it says which intent it is, else JQ004. */
void
hf_guard_check_columns(HfGuard *g, const int *identity, const int *allowed, const int *allowed_too, const char *hint)
{
	for (int c = 0; c < hf_table_ncolumns(g->id); c++)
	{
		if (!g->changed[c] || listed(c, allowed) || listed(c, allowed_too))
			continue;
		if (listed(c, identity))
			hf_refuse(g, ERRCODE_HF_INTENT_MISMATCH,
				   errmsg("column \"%s\" of table \"%s.%s\" cannot be changed", hf_column_name(g->id, c), HF_SCHEMA, g->table),
				   errdetail("It says which intent this is, and every attempt of a job is of one intent."),
				   errhint("Another intent is another job: enqueue it under its own subject, action_key, scope or intent_version."));
		hf_refuse(g, ERRCODE_HF_ILLEGAL_TRANSITION,
			   errmsg("column \"%s\" of table \"%s.%s\" cannot be changed by hand", hf_column_name(g->id, c), HF_SCHEMA, g->table),
			   errdetail("The state machine keeps it."),
			   errhint("%s", hint));
	}
}

/* The state machine puts a value into the row that is going to be stored. */
void
hf_guard_put(HfGuard *g, int column, Datum value, bool null)
{
	if (null)
		hf_set_null(g->new, column);
	else
		hf_set(g->new, column, value);
	g->replaced[HF_ATT(g->new, column)] = true;
}

const int	hf_guard_nothing[] = {-1};

static const int ledger_identity[] = {LEDGER_KEY, LEDGER_SUBJECT, LEDGER_ACTION_KEY, LEDGER_SCOPE, LEDGER_INTENT_VERSION,
LEDGER_PAYLOAD_DIGEST, LEDGER_PARENT_KEY, LEDGER_EFFECT, -1};
static const int ledger_states[] = {LEDGER_STATE, LEDGER_EVIDENCE, LEDGER_CHANGED_AT, -1};


/* ---------------------------------------------------------------- ledger */

/* By hand as by ledger_transition(): what a worker knows of an effect that it has started. */
static bool
ledger_move_is_legal(const HfRow *old, const HfRow *new)
{
	bool		child = !hf_is_null(old, LEDGER_PARENT_KEY);

	return hf_ledger_is(old, "started") && (hf_ledger_is(new, "committed") || (child && hf_ledger_is(new, "failed_retryable")));
}

static void
before_ledger(HfGuard *g)
{
	if (g->new == NULL)
		hf_refuse(g, ERRCODE_HF_ILLEGAL_TRANSITION,
			   errmsg("a row of table \"%s.ledger\" cannot be deleted by hand", HF_SCHEMA),
			   errdetail("What is known of the effect (%s) would be forgotten, and the intent could be done again.",
						 text_to_cstring(hf_text(g->old, LEDGER_STATE))),
			   errhint("maintain() deletes rows that are past their queue's ledger_retention."));
	hf_guard_check_columns(g, ledger_identity, ledger_states, hf_guard_nothing, "Its job's transitions change it.");
	if (g->changed[LEDGER_STATE] && !ledger_move_is_legal(g->old, g->new))
		hf_refuse(g, ERRCODE_HF_ILLEGAL_TRANSITION,
			   errmsg("the ledger cannot go from %s to %s by hand", text_to_cstring(hf_text(g->old, LEDGER_STATE)),
					  text_to_cstring(hf_text(g->new, LEDGER_STATE))),
			   errdetail("By hand, started may become committed%s.",
						 hf_is_null(g->old, LEDGER_PARENT_KEY) ? "" : " or failed_retryable"),
			   errhint("Call reconcile(), settle_unknown(), complete(), fail() or redrive(), which move the job along."));
	if (!g->changed[LEDGER_STATE] && hf_guard_any_changed(g, -1) && hf_ledger_is(g->old, "committed"))
		hf_refuse(g, ERRCODE_HF_ILLEGAL_TRANSITION,
			   errmsg("a committed row of table \"%s.ledger\" is final", HF_SCHEMA),
			   errdetail("It has been so since %s.", pstrdup(timestamptz_to_str(hf_time(g->old, LEDGER_CHANGED_AT)))),
			   errhint("Keep notes of your own in a table of your own."));
	if (hf_guard_any_changed(g, -1))
		hf_guard_put(g, LEDGER_CHANGED_AT, TimestampTzGetDatum(g->call.now), false);
}

static void
after_ledger(HfGuard *g)
{
	HfRow	   *job = hf_row_for(hf_open(&g->call, HF_JOB));
	bool		live = hf_find_job(job, hf_int64(g->new, LEDGER_JOB_ID));
	const char *const kinds[] = {"action_ledger_changed", "action_changed_by_sql"};
	HfEvent		of;
	HfEvent		event;

	if (!hf_guard_any_changed(g, LEDGER_CHANGED_AT))
		return;
	event_of_ledger(&of, g->new);
	for (int i = g->changed[LEDGER_STATE] ? 0 : 1; i < lengthof(kinds); i++)
	{
		HfDetail	detail = {0};

		/* the job's lock comes before the ledger's, which is held: its row is not written here */
		if (live)
			hf_event_init(&g->call, &event, kinds[i], job);
		else
			hf_event_follow(&g->call, &event, kinds[i], &of);
		hf_event_set(&of, EVENT_AT, event.value[EVENT_AT]);
		hf_detail_cstring(&detail, "operation", g->op);
		if (hf_is_null(g->new, LEDGER_EFFECT))
			hf_event_copy(&event, EVENT_SIDE_EFFECT_STATE, g->new, LEDGER_STATE);
		else
			hf_detail_text(&detail, "effect", hf_text(g->new, LEDGER_EFFECT));
		hf_detail_who(&detail);
		hf_detail_changes(&detail, g->trigger);
		hf_event_set(&event, EVENT_DETAIL, hf_detail_end(&detail));
		hf_event_add(&g->call, &event);
	}
	hf_row_free(job);
}

/* ---------------------------------------------------------------- the other tables */

/* Evidence, and figures made of it: nobody changes them. */
static void
refuse_append_only(HfGuard *g)
{
	hf_refuse(g, ERRCODE_HF_ILLEGAL_TRANSITION,
		   errmsg("%s of table \"%s.%s\" is refused", g->op, HF_SCHEMA, g->table),
		   errdetail("It holds evidence, or what is kept from it, which only the extension writes."),
		   errhint("Days of events past retention are dropped by holdfast.maintain()."));
}

/* A queue by hand: its figures must hold together (G8), and its name and number stay. */
static void
before_queue(HfGuard *g)
{
	TriggerData *t = g->trigger;
	TupleDesc	desc = RelationGetDescr(t->tg_relation);
	static const int fixed[] = {QUEUE_ID, QUEUE_NAME};
	HfTable    *table = hf_open(&g->call, HF_QUEUE);
	Oid			argtypes[1] = {desc->tdtypeid};

	g->old = NULL;				/* a refusal concerns no job */
	if (!TRIGGER_FIRED_BY_UPDATE(t->tg_event))
		hf_refuse(g, ERRCODE_HF_ILLEGAL_TRANSITION,
			   errmsg("a queue cannot be deleted by hand"),
			   errdetail("Its jobs, grants and effects would be left behind."),
			   errhint("Call holdfast.drop_queue()."));
	for (int i = 0; i < lengthof(fixed); i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, table->att[fixed[i]] - 1);
		bool		from_null;
		bool		to_null;
		Datum		from = heap_getattr(t->tg_trigtuple, att->attnum, desc, &from_null);
		Datum		to = heap_getattr(t->tg_newtuple, att->attnum, desc, &to_null);

		if (!same_value(att, from, from_null, to, to_null))
			hf_refuse(g, ERRCODE_HF_ILLEGAL_TRANSITION,
				   errmsg("column \"%s\" of table \"%s.queue\" cannot be changed", NameStr(att->attname), HF_SCHEMA),
				   errdetail("Grants and evidence refer to the queue by it."),
				   errhint("Create another queue."));
	}
	(void) OidFunctionCall1(LookupFuncName(list_make2(makeString(HF_SCHEMA), makeString("check_queue")), 1, argtypes, false),
							heap_copy_tuple_as_datum(t->tg_newtuple, desc));
}

/* Settings decide what becomes of a failure: what they were, and who changed them, is on record. */
static void
record_setting(HfGuard *g)
{
	TriggerData *t = g->trigger;
	TupleDesc	desc = RelationGetDescr(t->tg_relation);
	HfDetail	detail = {0};
	int			att = SPI_fnumber(desc, strcmp(g->table, "queue") == 0 ? "queue_id" : "queue");
	int32		queue_id = HF_NO_QUEUE;
	bool		null;

	if (att > 0 && TupleDescAttr(desc, att - 1)->atttypid == INT4OID)
		queue_id = DatumGetInt32(heap_getattr(t->tg_trigtuple, att, desc, &null));
	hf_detail_cstring(&detail, "table", g->table);
	hf_detail_cstring(&detail, "operation", g->op);
	hf_detail_who(&detail);
	for (int i = 0; i < desc->natts; i++)	/* which row it was */
		if (TupleDescAttr(desc, i)->atttypid == TEXTOID && TupleDescAttr(desc, i)->attnotnull)
		{
			hf_detail_cstring(&detail, "row", show_value(TupleDescAttr(desc, i), heap_getattr(t->tg_trigtuple, i + 1, desc, &null)));
			break;
		}
	hf_detail_changes(&detail, t);
	hf_finding(&g->call, "setting_changed", queue_id, NULL, NULL, hf_detail_end(&detail));
}

static void
record_insert(HfGuard *g)
{
	HfDetail	detail = {0};

	hf_detail_cstring(&detail, "table", g->table);
	hf_detail_cstring(&detail, "operation", g->op);
	hf_detail_who(&detail);
	hf_finding(&g->call, "changed_by_sql", HF_NO_QUEUE, NULL, NULL, hf_detail_end(&detail));
}

/* ---------------------------------------------------------------- the trigger */

static void
load(HfGuard *g, HfTable *table)
{
	g->old = hf_row_for(table);
	ExecForceStoreHeapTuple(g->trigger->tg_trigtuple, g->old->stored, false);
	hf_row_load(g->old);
	if (TRIGGER_FIRED_BY_UPDATE(g->trigger->tg_event))
	{
		g->new = hf_row_for(table);
		ExecForceStoreHeapTuple(g->trigger->tg_newtuple, g->new->stored, false);
		hf_row_load(g->new);
		find_changes(g);
	}
}

/* What BEFORE lets be stored: the row of the statement, and what the state machine has put in. */
static HeapTuple
stored_row(HfGuard *g)
{
	HeapTuple	tuple = g->trigger->tg_newtuple;
	TupleDesc	desc = RelationGetDescr(g->trigger->tg_relation);
	MemoryContext old;

	if (g->new == NULL)
		return TRIGGER_FIRED_BY_UPDATE(g->trigger->tg_event) ? tuple : g->trigger->tg_trigtuple;
	for (int i = 0; i < desc->natts; i++)
		if (g->replaced[i])
		{
			old = MemoryContextSwitchTo(g->call.caller_cxt);
			tuple = heap_modify_tuple(tuple, desc, g->new->next->tts_values, g->new->next->tts_isnull, g->replaced);
			MemoryContextSwitchTo(old);
			break;
		}
	return tuple;
}

static const struct
{
	const char *name;			/* argument of the trigger */
	HfTableId	id;
	void		(*before) (HfGuard *g);
	void		(*after) (HfGuard *g);
}			guards[] = {
	{"dead_job", HF_DEAD_JOB, hf_guard_before_dead_job, hf_guard_after_dead_job},
	{"ledger", HF_LEDGER, before_ledger, after_ledger},
	{"evidence", HF_EVENT, refuse_append_only, NULL},
	{"kept", HF_NTABLES, refuse_append_only, NULL},
	{"queue", HF_NTABLES, before_queue, record_setting},
	{"setting", HF_NTABLES, NULL, record_setting},
};

static void
guard_row(HfGuard *g, const char *name)
{
	TriggerData *t = g->trigger;
	bool		before = TRIGGER_FIRED_BEFORE(t->tg_event);
	bool		update = TRIGGER_FIRED_BY_UPDATE(t->tg_event);

	if (strcmp(name, "job") == 0)
	{
		g->id = HF_JOB;
		load(g, hf_open(&g->call, HF_JOB));
		if (before)
			(update ? hf_guard_before_job_update : hf_guard_before_job_delete) (g);
		else
			(update ? hf_guard_after_job_update : hf_guard_after_job_delete) (g);
		return;
	}
	for (int i = 0; i < lengthof(guards); i++)
	{
		if (strcmp(name, guards[i].name) != 0)
			continue;
		g->id = guards[i].id;
		if (g->id != HF_NTABLES)
			load(g, g->id == HF_EVENT ? hf_open_partition(&g->call, relation_open(RelationGetRelid(t->tg_relation), NoLock)) :
				 hf_open(&g->call, g->id));
		if (before && guards[i].before != NULL)
			guards[i].before(g);
		else if (!before && guards[i].after != NULL)
			guards[i].after(g);
		return;
	}
	elog(ERROR, "unknown guard \"%s\"", name);
}

/*
 * holdfast.guard('name') returns trigger
 *
 * Guards UPDATE, DELETE and TRUNCATE of one of our tables; "name" says by
 * which rules.  Errors: JQ003, JQ004, JQ005, JQ006, JQ007, JQ008.
 */
Datum
holdfast_guard(PG_FUNCTION_ARGS)
{
	TriggerData *t = (TriggerData *) fcinfo->context;
	HfGuard		g = {0};
	HeapTuple	row;

	if (!CALLED_AS_TRIGGER(fcinfo) || t->tg_trigger->tgnargs != 1 ||
		RelationGetNamespace(t->tg_relation) != get_namespace_oid(HF_SCHEMA, false))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("guard() is a trigger function of holdfast's own tables"),
				 errhint("Watch a table of your own with holdfast.watch().")));
	row = TRIGGER_FIRED_BY_UPDATE(t->tg_event) ? t->tg_newtuple : t->tg_trigtuple;
	if (hf_is_own(1) || (TRIGGER_FIRED_BY_INSERT(t->tg_event) && superuser()))
		return PointerGetDatum(row);
	g.trigger = t;
	g.op = TRIGGER_FIRED_BY_UPDATE(t->tg_event) ? "UPDATE" : TRIGGER_FIRED_BY_DELETE(t->tg_event) ? "DELETE" :
		TRIGGER_FIRED_BY_INSERT(t->tg_event) ? "INSERT" : "TRUNCATE";
	hf_begin(&g.call, "guard", true);
	g.table = pstrdup(RelationGetRelationName(t->tg_relation));
	g.replaced = palloc0(sizeof(bool) * RelationGetDescr(t->tg_relation)->natts);
	if (TRIGGER_FIRED_BY_INSERT(t->tg_event))
		record_insert(&g);
	else if (TRIGGER_FIRED_FOR_STATEMENT(t->tg_event))
		refuse_append_only(&g);
	else
		guard_row(&g, t->tg_trigger->tgargs[0]);
	row = TRIGGER_FIRED_BEFORE(t->tg_event) && TRIGGER_FIRED_FOR_ROW(t->tg_event) ? stored_row(&g) : NULL;
	hf_end(&g.call);
	return PointerGetDatum(row);
}
