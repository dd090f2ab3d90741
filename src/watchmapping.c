/*-------------------------------------------------------------------------
 *
 * watchmapping.c
 *	  What the columns of a watched table mean: the mapping, compiled.
 *
 * Each key is bound to a column, or to an expression that is planned and
 * initialized once (watchvalue.c keeps it), so that a row costs an evaluation
 * each and no SQL.  Whatever is wrong is said with the key and the column.
 *
 * Expressions are parsed with settings of our own (parse_settings), whoever's
 * session it is: what a mapping means must not depend on who fires the
 * trigger.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "access/sysattr.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "parser/parse_collate.h"
#include "parser/parse_expr.h"
#include "parser/parse_node.h"
#include "parser/parse_relation.h"
#include "parser/parser.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

typedef enum FieldType
{
	FIELD_TEXT,					/* any type, as text */
	FIELD_INT,
	FIELD_TIME,
	FIELD_INTERVAL,
	FIELD_JSONB,
	FIELD_BOOL
} FieldType;

static const struct
{
	const char *name;
	FieldType	type;
}			keys[MAP_NKEYS] = {
	[MAP_ID] = {"id", FIELD_TEXT}, [MAP_STATUS] = {"status", FIELD_TEXT},
	[MAP_ATTEMPT_NUMBER] = {"attempt_number", FIELD_INT}, [MAP_RUN_AFTER] = {"run_after", FIELD_TIME},
	[MAP_LEASE] = {"lease", FIELD_TEXT}, [MAP_LEASE_EXPIRES_AT] = {"lease_expires_at", FIELD_TIME},
	[MAP_WORKER_NAME] = {"worker_name", FIELD_TEXT}, [MAP_EXCEPTION_CLASS] = {"exception_class", FIELD_TEXT},
	[MAP_MESSAGE] = {"message", FIELD_TEXT}, [MAP_SUBJECT] = {"subject", FIELD_TEXT},
	[MAP_ACTION_KEY] = {"action_key", FIELD_TEXT}, [MAP_SCOPE] = {"scope", FIELD_TEXT},
	[MAP_IDEMPOTENCY_KEY] = {"idempotency_key", FIELD_TEXT}, [MAP_TIMEOUT] = {"timeout", FIELD_INTERVAL},
	[MAP_MAX_ATTEMPTS] = {"max_attempts", FIELD_INT}, [MAP_RETRY_POLICY] = {"retry_policy", FIELD_TEXT},
	[MAP_PAYLOAD] = {"payload", FIELD_JSONB}, [MAP_WHEN] = {"when", FIELD_BOOL},
};

static const char *const type_names[] = {
	[FIELD_TEXT] = "text", [FIELD_INT] = "smallint, integer or bigint",
	[FIELD_TIME] = "timestamp with time zone, or timestamp (which counts as UTC)", [FIELD_INTERVAL] = "interval",
	[FIELD_JSONB] = "jsonb", [FIELD_BOOL] = "boolean",
};

/* In the order of HfRowClass: both the keys of the arrays and, where a key is missing, its one value. */
static const char *const classes[] = {"pending", "running", "succeeded", "failed", "dead"};
#define NCLASSES lengthof(classes)

const char *const hf_watch_modes[] = {"observe", "correct", "enforce", NULL};

PG_FUNCTION_INFO_V1(holdfast_watch_check);

/* ---------------------------------------------------------------- columns and expressions */

static bool
type_fits(FieldType type, Oid typid)
{
	typid = getBaseType(typid);
	switch (type)
	{
		case FIELD_INT:
			return typid == INT2OID || typid == INT4OID || typid == INT8OID;
		case FIELD_TIME:
			return typid == TIMESTAMPTZOID || typid == TIMESTAMPOID;
		case FIELD_INTERVAL:
			return typid == INTERVALOID;
		case FIELD_JSONB:
			return typid == JSONBOID;
		case FIELD_BOOL:
			return typid == BOOLOID;
		default:
			return true;
	}
}

static void
refuse_generated(Relation rel, AttrNumber att, const char *key, HfWatchMode mode)
{
	if (mode != HF_OBSERVE && TupleDescAttr(RelationGetDescr(rel), att - 1)->attgenerated != '\0')
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("mapping key \"%s\": column \"%s\" of table \"%s\" is generated, which mode \"%s\" cannot use",
						key, NameStr(TupleDescAttr(RelationGetDescr(rel), att - 1)->attname),
						RelationGetRelationName(rel), hf_watch_modes[mode]),
				 errdetail("The modes correct and enforce look at a row before it is stored, when generated columns are not computed yet."),
				 errhint("Map the expression that generates it, as {\"expr\": \"...\"}, or use mode observe.")));
}

static void
bind_type(HfMapField *field, HfMapKey key, Oid typid, const char *what)
{
	Oid			function;
	bool		varlena;

	if (!type_fits(keys[key].type, typid))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("mapping key \"%s\": %s is of type %s", keys[key].name, what, format_type_be(typid)),
				 errdetail("The key needs a value of type %s.", type_names[keys[key].type]),
				 errhint("Map an expression that converts it, as {\"expr\": \"...\"}.")));
	field->type = getBaseType(typid);
	getTypeOutputInfo(field->type, &function, &varlena);
	fmgr_info_cxt(function, &field->output, CurrentMemoryContext);
}

static AttrNumber
find_column(Relation rel, const char *name)
{
	TupleDesc	desc = RelationGetDescr(rel);

	for (int i = 0; i < desc->natts; i++)
		if (!TupleDescAttr(desc, i)->attisdropped && strcmp(NameStr(TupleDescAttr(desc, i)->attname), name) == 0)
			return i + 1;
	return InvalidAttrNumber;
}

static char *
column_list(Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < desc->natts; i++)
		if (!TupleDescAttr(desc, i)->attisdropped)
			appendStringInfo(&list, "%s%s", list.len > 0 ? ", " : "", NameStr(TupleDescAttr(desc, i)->attname));
	return list.data;
}

static void
bind_column(HfWatch *w, HfMapKey key, Relation rel, const char *column)
{
	HfMapField *field = &w->fields[key];

	field->att = find_column(rel, column);
	if (field->att == InvalidAttrNumber)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("mapping key \"%s\": column \"%s\" of table \"%s\" does not exist",
						keys[key].name, column, RelationGetRelationName(rel)),
				 errdetail("Its columns are %s.", column_list(rel)),
				 errhint("Name a column, or give an expression as {\"expr\": \"...\"}.")));
	refuse_generated(rel, field->att, keys[key].name, w->mode);
	bind_type(field, key, TupleDescAttr(RelationGetDescr(rel), field->att - 1)->atttypid, psprintf("column \"%s\"", column));
}

/* All columns of all tables, which stands for no expression: the parser expects it in a target list alone. */
static bool
is_star(const Node *node)
{
	return IsA(node, ColumnRef) && IsA(linitial(((const ColumnRef *) node)->fields), A_Star);
}

/* One expression and nothing else, of a SELECT's target list. */
static Node *
raw_expression(const char *source)
{
	List	   *list = raw_parser(source, RAW_PARSE_PLPGSQL_EXPR);
	SelectStmt *select = list_length(list) == 1 ? (SelectStmt *) linitial_node(RawStmt, list)->stmt : NULL;

	if (select == NULL || !IsA(select, SelectStmt) || list_length(select->targetList) != 1 ||
		linitial_node(ResTarget, select->targetList)->name != NULL ||
		is_star(linitial_node(ResTarget, select->targetList)->val) || select->op != SETOP_NONE ||
		select->distinctClause != NIL || select->intoClause != NULL || select->fromClause != NIL ||
		select->whereClause != NULL || select->groupClause != NIL || select->havingClause != NULL ||
		select->windowClause != NIL || select->valuesLists != NIL || select->sortClause != NIL ||
		select->limitOffset != NULL || select->limitCount != NULL || select->lockingClause != NIL ||
		select->withClause != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("it must be one expression over the columns of the row")));
	return linitial_node(ResTarget, select->targetList)->val;
}

/* What the parser looks at: names, the escapes of a literal, what "= NULL" means, and literals of times. */
static const char *const parse_settings[][2] = {
	{"search_path", "pg_catalog, pg_temp"}, {"standard_conforming_strings", "on"}, {"transform_null_equals", "off"},
	{"array_nulls", "on"}, {"datestyle", "ISO, YMD"}, {"timezone", "UTC"}, {"intervalstyle", "postgres"},
};

static Expr *
parse_expression(Relation rel, HfMapKey key, const char *source, HfWatchMode mode)
{
	ParseState *pstate = make_parsestate(NULL);
	ParseNamespaceItem *item = addRangeTableEntryForRelation(pstate, rel, AccessShareLock, NULL, false, true);
	Bitmapset  *attributes = NULL;
	Node	   *node;
	int			att = -1;

	addNSItemToQuery(pstate, item, true, true, true);
	node = transformExpr(pstate, raw_expression(source), EXPR_KIND_CHECK_CONSTRAINT);
	if (exprType(node) == UNKNOWNOID)
		node = coerce_to_common_type(pstate, node, keys[key].type == FIELD_INTERVAL ? INTERVALOID : TEXTOID, "mapping");
	assign_expr_collations(pstate, node);
	node = (Node *) expression_planner((Expr *) node);
	if (contain_volatile_functions(node))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("functions in it must not be volatile")));
	pull_varattnos(node, 1, &attributes);
	while ((att = bms_next_member(attributes, att)) >= 0)
	{
		AttrNumber	column = att + FirstLowInvalidHeapAttributeNumber;

		if (column < 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
					 errmsg("it must not name a system column")));
		if (column > 0)
			refuse_generated(rel, column, keys[key].name, mode);
	}
	free_parsestate(pstate);
	return (Expr *) node;
}

/*
 * The same; whatever is wrong is said with the mapping's key.
 *
 * Parsing, planning and initializing may already run what others have made: a
 * literal of a type of the table's own, a function that is called with nothing
 * but constants.  As in recover.c that is done as the table's owner, whoever
 * asks, and can leave nothing behind.
 */
static void
bind_expression(HfWatch *w, HfMapKey key, Relation rel, const char *source)
{
	HfMapField *field = &w->fields[key];
	MemoryContext cxt = CurrentMemoryContext;
	int			guc_level = NewGUCNestLevel();
	Expr	   *expr = NULL;
	Oid			user;
	int			security;

	GetUserIdAndSecContext(&user, &security);
	SetUserIdAndSecContext(hf_ddl_owner_of(hf_watch_top(RelationGetRelid(rel))),
						   security | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	for (int i = 0; i < lengthof(parse_settings); i++)
		(void) set_config_option(parse_settings[i][0], parse_settings[i][1], PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	PG_TRY();
	{
		expr = parse_expression(rel, key, source, w->mode);
		field->expr = ExecInitExpr(expr, NULL);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		SetUserIdAndSecContext(user, security);
		MemoryContextSwitchTo(cxt);
		error = CopyErrorData();
		if (ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION ||
			strncmp(error->message, "mapping key", 11) == 0)
			PG_RE_THROW();
		FlushErrorState();
		ereport(ERROR,
				(errcode(error->sqlerrcode),
				 errmsg("mapping key \"%s\": %s", keys[key].name, error->message),
				 errdetail("The expression is: %s", source),
				 error->hint ? errhint("%s", error->hint) :
				 errhint("Write one expression over the row's columns; functions and operators outside pg_catalog need their schema.")));
	}
	PG_END_TRY();
	AtEOXact_GUC(false, guc_level);
	SetUserIdAndSecContext(user, security);
	bind_type(field, key, exprType((Node *) expr), "the expression");
}

bool
hf_watch_maps(const HfWatch *w, HfMapKey key)
{
	const HfMapField *field = &w->fields[key];

	return field->att != 0 || field->expr != NULL || field->constant != NULL;
}

/* ---------------------------------------------------------------- reading the JSON */

static void
refuse_value(const char *key, const char *must)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("mapping key \"%s\" must be %s", key, must)));
}

static char *
json_string(const JsonbValue *value)
{
	return pnstrdup(value->val.string.val, value->val.string.len);
}

static void
bind_field(HfWatch *w, HfMapKey key, Relation rel, const JsonbValue *value)
{
	JsonbIterator *it;
	JsonbValue	name;
	JsonbValue	expr;

	if (value->type == jbvString)
	{
		char	   *string = json_string(value);

		if (key == MAP_RETRY_POLICY && find_column(rel, string) == InvalidAttrNumber)
			w->fields[key].constant = cstring_to_text(string);
		else
			bind_column(w, key, rel, string);
		return;
	}
	if (value->type == jbvBinary && JsonContainerIsObject(value->val.binary.data) &&
		JsonContainerSize(value->val.binary.data) == 1)
	{
		it = JsonbIteratorInit(value->val.binary.data);
		(void) JsonbIteratorNext(&it, &name, true);
		(void) JsonbIteratorNext(&it, &name, true);
		(void) JsonbIteratorNext(&it, &expr, true);
		if (name.val.string.len == 4 && memcmp(name.val.string.val, "expr", 4) == 0 && expr.type == jbvString)
		{
			bind_expression(w, key, rel, json_string(&expr));
			return;
		}
	}
	refuse_value(keys[key].name, "a column's name or {\"expr\": \"...\"}");
}

static void
add_status(HfWatch *w, HfRowClass class, const char *value)
{
	for (int i = 0; i < w->nstatuses; i++)
		if (strcmp(w->statuses[i].value, value) == 0 && w->statuses[i].class != class)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("mapping keys \"%s\" and \"%s\" both name the status \"%s\"",
							classes[w->statuses[i].class], classes[class], value),
					 errhint("A status means one thing.")));
	w->statuses[w->nstatuses].value = value;
	w->statuses[w->nstatuses].len = strlen(value);
	w->statuses[w->nstatuses++].class = class;
}

/* A null among the values says what it means that a running row is deleted. */
static void
bind_statuses(HfWatch *w, HfRowClass class, const JsonbValue *array, bool *gone_set)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	value;

	if (array->type != jbvBinary || !JsonContainerIsArray(array->val.binary.data) ||
		JsonContainerIsScalar(array->val.binary.data) || JsonContainerSize(array->val.binary.data) > 100)
		refuse_value(classes[class], "an array of at most 100 status values");
	it = JsonbIteratorInit(array->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token != WJB_ELEM)
			continue;
		if (value.type == jbvNull)
		{
			if (*gone_set)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("mapping keys \"%s\" and \"%s\" both hold null", classes[w->gone], classes[class]),
						 errdetail("A null says what it means that a running row is deleted, which is one thing.")));
			w->gone = class;
			*gone_set = true;
		}
		else if (value.type == jbvString)
			add_status(w, class, json_string(&value));
		else if (value.type == jbvNumeric)
			add_status(w, class, DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value.val.numeric))));
		else if (value.type == jbvBool)
			add_status(w, class, value.val.boolean ? "true" : "false");
		else
			refuse_value(classes[class], "an array of strings, numbers, booleans, or null for a row that is gone");
	}
}

/* A label that the enum does not have would never be met. */
static void
check_labels(const HfWatch *w, const bool *given)
{
	const HfMapField *status = &w->fields[MAP_STATUS];

	if (!type_is_enum(status->type))
		return;
	for (int i = 0; i < w->nstatuses; i++)
	{
		const HfMapStatus *s = &w->statuses[i];

		if (given[s->class] &&
			!SearchSysCacheExists2(ENUMTYPOIDNAME, ObjectIdGetDatum(status->type), CStringGetDatum(s->value)))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("mapping key \"%s\": type %s has no label \"%s\"", classes[s->class],
							format_type_be(status->type), s->value)));
	}
}

static void
check_mode(const HfWatch *w)
{
	if (w->mode == HF_OBSERVE)
		return;
	if (!hf_watch_maps(w, MAP_RUN_AFTER) || (w->mode == HF_CORRECT && w->fields[MAP_RUN_AFTER].att == 0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("mode \"%s\" needs mapping key \"run_after\"%s", hf_watch_modes[w->mode],
						w->mode == HF_CORRECT ? " to name a column" : ""),
				 errdetail("A retry can be delayed only where a column says not before which time the row is to run."),
				 errhint("Add a column of type timestamptz that the claim looks at, or use mode observe.")));
	if (w->blind)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("mode \"%s\" needs a status in mapping key \"running\"", hf_watch_modes[w->mode]),
				 errdetail("A queue that writes nothing at its claim can be observed only.")));
}

static int
find_name(const JsonbValue *name, int *class)
{
	for (*class = 0; *class < NCLASSES; (*class)++)
		if (strlen(classes[*class]) == name->val.string.len &&
			memcmp(classes[*class], name->val.string.val, name->val.string.len) == 0)
			return MAP_NKEYS;
	for (int k = 0; k < MAP_NKEYS; k++)
		if (strlen(keys[k].name) == name->val.string.len && memcmp(keys[k].name, name->val.string.val, name->val.string.len) == 0)
			return k;
	return -1;
}

static void
refuse_key(const char *name)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int k = 0; k < MAP_NKEYS; k++)
		appendStringInfo(&list, "%s, ", keys[k].name);
	for (int c = 0; c < NCLASSES; c++)
		appendStringInfo(&list, "%s%s", c > 0 ? ", " : "", classes[c]);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("mapping key \"%s\" is not known", name),
			 errhint("The keys are %s.", list.data)));
}

/* Bind the mapping to the table, in the current memory context, or say what is wrong. */
void
hf_watch_compile(HfWatch *w, Relation rel, Jsonb *mapping)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	name;
	JsonbValue	value;
	bool		given[NCLASSES] = {false};
	bool		gone_set = false;
	int			class;

	if (!JB_ROOT_IS_OBJECT(mapping))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"mapping\" must be a JSON object"),
				 errhint("For example {\"id\": \"id\", \"status\": \"status\", \"pending\": [\"pending\"], \"running\": [\"running\"]}.")));
	w->econtext = CreateStandaloneExprContext();
	w->gone = HF_ROW_SUCCEEDED;
	w->statuses = palloc0(sizeof(HfMapStatus) * 101 * NCLASSES);
	it = JsonbIteratorInit(&mapping->root);
	while ((token = JsonbIteratorNext(&it, &name, true)) != WJB_DONE)
	{
		int			key;

		if (token != WJB_KEY)
			continue;
		key = find_name(&name, &class);
		(void) JsonbIteratorNext(&it, &value, true);
		if (key < 0)
			refuse_key(json_string(&name));
		if (value.type == jbvNull)
			continue;
		if (key < MAP_NKEYS)
			bind_field(w, key, rel, &value);
		else
		{
			bind_statuses(w, class, &value, &gone_set);
			given[class] = true;
		}
	}
	for (int k = MAP_ID; k <= MAP_STATUS; k++)
		if (!hf_watch_maps(w, k))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("mapping key \"%s\" is missing", keys[k].name),
					 errhint("The keys \"id\" and \"status\" are needed; name a column, or give {\"expr\": \"...\"}.")));
	for (class = 0; class < NCLASSES; class++)
	{
		bool		taken = given[class];

		for (int i = 0; i < w->nstatuses && !taken; i++)
			taken = strcmp(w->statuses[i].value, classes[class]) == 0;
		if (!taken)
			add_status(w, class, classes[class]);
	}
	w->blind = true;
	for (int i = 0; i < w->nstatuses; i++)
		if (w->statuses[i].class == HF_ROW_RUNNING)
			w->blind = false;
	w->has_dead = given[HF_ROW_DEAD];
	check_labels(w, given);
	check_mode(w);
}

/* 42704 where there is no such table or partition; the caller closes it. */
Relation
hf_watch_open(Oid relid, LOCKMODE lockmode)
{
	Relation	rel = try_relation_open(relid, lockmode);

	if (rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no relation with OID %u", relid),
				 errhint("The view holdfast.watched lists the tables that are watched.")));
	if (rel->rd_rel->relkind != RELKIND_RELATION && rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a table", RelationGetRelationName(rel)),
				 errhint("Only tables can be watched.")));
	return rel;
}

/*
 * holdfast.watch_check(relation oid, mapping jsonb, mode text) returns void
 *
 * Whether the mapping fits the table, for watch().  Errors name the key and
 * the column: 42703, 42804, 22023, or what is wrong with an expression.
 */
Datum
holdfast_watch_check(PG_FUNCTION_ARGS)
{
	Relation	rel = hf_watch_open(PG_GETARG_OID(0), AccessShareLock);
	HfWatch		w = {.mode = hf_arg_choice(fcinfo, 2, "mode", hf_watch_modes)};
	HfCall		call;
	int			own = hf_own_suspend();	/* the planner may run what the expressions call */

	hf_watch_compile(&w, rel, PG_GETARG_JSONB_P(1));
	hf_own_resume(own);
	hf_begin(&call, "watch_check", false);
	if (w.fields[MAP_RETRY_POLICY].constant != NULL && hf_policy(text_to_cstring(w.fields[MAP_RETRY_POLICY].constant)) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("mapping key \"retry_policy\": \"%s\" is neither a column of table \"%s\" nor a retry policy",
						text_to_cstring(w.fields[MAP_RETRY_POLICY].constant), RelationGetRelationName(rel)),
				 errhint("See holdfast.list_retry_policies().")));
	hf_end(&call);
	FreeExprContext(w.econtext, true);
	relation_close(rel, NoLock);
	PG_RETURN_VOID();
}
