/*-------------------------------------------------------------------------
 *
 * import.c
 *	  One record of a foreign log, checked, as a row of attempt_record.
 *
 * What is wrong with a record is said with its place in the batch and the
 * name of the field; the import that called then keeps nothing of the batch.
 * Fields that no attempt has are refused rather than passed over: a misspelt
 * name would turn into missing evidence, and so into a wrong verdict.
 *
 * A record's digest covers its source and all its fields as they are stored,
 * so that the same log imported twice is known by it, also where the second
 * time it comes from a table instead of JSON.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "catalog/pg_type_d.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

#define MAX_ID		1000		/* bytes of an id or a subject: they are in an index */
#define MAX_WORDS	8192		/* bytes of a text that no index holds */

typedef enum FieldKind
{
	FIELD_REQUIRED,				/* a text that must be there */
	FIELD_ID,					/* the empty text counts as missing */
	FIELD_WORDS,
	FIELD_MESSAGE,				/* cut, never refused */
	FIELD_OUTCOME,
	FIELD_TIME,
	FIELD_INT,
	FIELD_COUNT,				/* an integer from 0 */
	FIELD_MS,					/* whole milliseconds, a fraction cut off */
	FIELD_BOOL
} FieldKind;

static const struct
{
	const char *name;
	FieldKind	kind;
}			fields[] = {
	{"job_id", FIELD_REQUIRED}, {"subject", FIELD_REQUIRED}, {"action_key", FIELD_REQUIRED}, {"started_at", FIELD_TIME},
	{"lease_id", FIELD_ID}, {"lease_expires_at", FIELD_TIME}, {"attempt_number", FIELD_COUNT}, {"scope", FIELD_ID},
	{"intent_version", FIELD_INT}, {"idempotency_key", FIELD_ID}, {"correlation_id", FIELD_ID}, {"worker_name", FIELD_ID},
	{"finished_at", FIELD_TIME}, {"last_report_at", FIELD_TIME}, {"outcome", FIELD_OUTCOME}, {"worker_result", FIELD_WORDS},
	{"side_effect_state", FIELD_WORDS}, {"exception_class", FIELD_ID}, {"message", FIELD_MESSAGE},
	{"timeout_kind", FIELD_WORDS}, {"timeout_ms", FIELD_MS}, {"timeout_limit_ms", FIELD_MS}, {"elapsed_ms", FIELD_MS},
	{"next_not_before", FIELD_TIME}, {"retry_policy", FIELD_ID}, {"delay_ms", FIELD_MS}, {"max_attempts", FIELD_COUNT},
	{"redriven", FIELD_BOOL}, {"final", FIELD_BOOL}, {"stop_reason", FIELD_WORDS},
};
#define FIELD_STARTED_AT 3		/* the one required field that is no text */
#define NFIELDS lengthof(fields)

static const char *const outcomes[] = {"succeeded", "failed", "timeout", "lost", "cancelled", "snoozed", "released"};

/* Where the fields are in the row that is answered. */
typedef struct Shape
{
	TupleDesc	desc;
	AttrNumber	field[NFIELDS];
	AttrNumber	source;
	AttrNumber	digest;
	AttrNumber	synthetic_lease;
} Shape;

static AttrNumber
column(TupleDesc desc, const char *name)
{
	for (int i = 0; i < desc->natts; i++)
		if (strcmp(NameStr(TupleDescAttr(desc, i)->attname), name) == 0 && !TupleDescAttr(desc, i)->attisdropped)
			return i + 1;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("reconnect: library older than schema"),
			 errdetail("attempt_record has no column \"%s\".", name),
			 errhint("Reconnect, to load the library of the installed version.")));
}

static Shape *
get_shape(FunctionCallInfo fcinfo)
{
	Shape	   *shape = fcinfo->flinfo->fn_extra;
	MemoryContext old;

	if (shape != NULL)
		return shape;
	old = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
	shape = palloc0(sizeof(Shape));
	if (get_call_result_type(fcinfo, NULL, &shape->desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "attempt_of does not answer with a row");
	shape->desc = BlessTupleDesc(CreateTupleDescCopy(shape->desc));
	for (int f = 0; f < NFIELDS; f++)
		shape->field[f] = column(shape->desc, fields[f].name);
	shape->source = column(shape->desc, "source");
	shape->digest = column(shape->desc, "digest");
	shape->synthetic_lease = column(shape->desc, "synthetic_lease");
	MemoryContextSwitchTo(old);
	return fcinfo->flinfo->fn_extra = shape;
}

/* ---------------------------------------------------------------- one field */

typedef struct Place
{
	int64		ordinal;		/* of the record in its batch, from 1 */
	const char *field;
} Place;

pg_noreturn static void bad_field(const Place *place, const char *value, const char *reason, const char *hint);

static void
bad_field(const Place *place, const char *value, const char *reason, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("record %lld: \"%s\" %s", (long long) place->ordinal, place->field, reason),
			 value != NULL ? errdetail("The value given is \"%s\". Nothing of the batch is kept.",
									   pnstrdup(value, pg_mbcliplen(value, strlen(value), 100)))
			 : errdetail("Nothing of the batch is kept."),
			 errhint("%s", hint)));
}

/* The text of a scalar; NULL for null, and for the empty string, which is how a log that became text says it. */
static char *
scalar_text(const JsonbValue *value, const Place *place)
{
	switch (value->type)
	{
		case jbvNull:
			return NULL;
		case jbvString:
			return value->val.string.len == 0 ? NULL : pnstrdup(value->val.string.val, value->val.string.len);
		case jbvNumeric:
			return DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value->val.numeric)));
		case jbvBool:
			return value->val.boolean ? "true" : "false";
		default:
			bad_field(place, NULL, "is an object or an array", "Every field of an attempt is a scalar.");
	}
}

/*
 * A type's input function, with its refusal as ours.  Where PostgreSQL has
 * soft errors (since 16) and where it has none, the error is caught and raised
 * again, never passed over, so no state of the failed call can leak.
 */
static Datum
input(const Place *place, PGFunction function, char *string, const char *reason, const char *hint)
{
	MemoryContext old = CurrentMemoryContext;
	Datum		result = (Datum) 0;

	PG_TRY();
	{
		result = DirectFunctionCall3(function, CStringGetDatum(string), ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
	}
	PG_CATCH();
	{
		int			category;

		MemoryContextSwitchTo(old);
		category = ERRCODE_TO_CATEGORY(geterrcode());
		if (category != ERRCODE_DATA_EXCEPTION)
			PG_RE_THROW();
		FlushErrorState();
		bad_field(place, string, reason, hint);
	}
	PG_END_TRY();
	return result;
}

static Datum
time_value(const Place *place, const JsonbValue *value, char *string)
{
	static const char *const hint = "Give a time such as \"2026-01-31 08:15:00.123+01\"; without an offset it is taken as UTC.";
	TimestampTz at;

	/* a number may be seconds, milliseconds or a year: the caller knows, we do not */
	if (value->type != jbvString)
		bad_field(place, string, "is no time", "Give a time as text, or convert it: to_timestamp(seconds).");
	at = DatumGetTimestampTz(input(place, timestamptz_in, string, "is no time", hint));
	if (TIMESTAMP_NOT_FINITE(at))
		bad_field(place, string, "is not finite", hint);
	return TimestampTzGetDatum(at);
}

static Datum
number_value(const Place *place, const JsonbValue *value, char *string, FieldKind kind)
{
	static const char *const hint = "Numbers may be given as JSON numbers or as text.";
	int64		min = kind == FIELD_INT ? PG_INT32_MIN : 0;
	int64		max = kind == FIELD_MS ? PG_INT64_MAX : PG_INT32_MAX;
	Datum		number;
	Datum		whole;
	Datum		bound;

	if (value->type == jbvBool)
		bad_field(place, string, "is no number", hint);
	number = input(place, numeric_in, string, "is no number", hint);
	if (numeric_is_nan(DatumGetNumeric(number)) || numeric_is_inf(DatumGetNumeric(number)))
		bad_field(place, string, "is no number", hint);
	whole = DirectFunctionCall2(numeric_trunc, number, Int32GetDatum(0));
	if (kind != FIELD_MS && DatumGetInt32(DirectFunctionCall2(numeric_cmp, number, whole)) != 0)
		bad_field(place, string, "is not a whole number", hint);
	bound = NumericGetDatum(int64_to_numeric(min));
	if (DatumGetInt32(DirectFunctionCall2(numeric_cmp, number, bound)) < 0)
		bad_field(place, string, "is too small", kind == FIELD_INT ? hint : "It counts from 0.");
	bound = NumericGetDatum(int64_to_numeric(max));
	if (DatumGetInt32(DirectFunctionCall2(numeric_cmp, whole, bound)) > 0)
		bad_field(place, string, "is too large", hint);
	if (kind == FIELD_MS)
		return DirectFunctionCall1(numeric_int8, whole);
	return DirectFunctionCall1(numeric_int4, whole);
}

static Datum
text_value(const Place *place, char *string, FieldKind kind)
{
	text	   *result;
	int			max = kind == FIELD_REQUIRED || kind == FIELD_ID ? MAX_ID : MAX_WORDS;

	if (kind == FIELD_OUTCOME)
	{
		for (int i = 0; i < lengthof(outcomes); i++)
			if (strcmp(string, outcomes[i]) == 0)
				return CStringGetTextDatum(string);
		bad_field(place, string, "is no outcome",
				  "It is one of succeeded, failed, timeout, lost, cancelled, snoozed, released; leave it out of an attempt that is open.");
	}
	if (kind != FIELD_MESSAGE && strlen(string) > max)
		bad_field(place, string, "is too long", psprintf("At most %d bytes are kept.", max));
	result = cstring_to_text(string);
	return PointerGetDatum(kind == FIELD_MESSAGE ? hf_cut_message(result) : result);
}

static Datum
field_value(const Place *place, int field, const JsonbValue *value, bool *isnull)
{
	char	   *string = scalar_text(value, place);

	*isnull = string == NULL;
	if (*isnull)
		return (Datum) 0;
	switch (fields[field].kind)
	{
		case FIELD_TIME:
			return time_value(place, value, string);
		case FIELD_INT:
		case FIELD_COUNT:
		case FIELD_MS:
			return number_value(place, value, string, fields[field].kind);
		case FIELD_BOOL:
			return input(place, boolin, string, "is neither true nor false", "Give true or false.");
		default:
			return text_value(place, string, fields[field].kind);
	}
}

/* ---------------------------------------------------------------- one record */

static int
field_of(const JsonbValue *key)
{
	for (int f = 0; f < NFIELDS; f++)
		if (strlen(fields[f].name) == key->val.string.len &&
			memcmp(fields[f].name, key->val.string.val, key->val.string.len) == 0)
			return f;
	return -1;
}

/* What a record is known by: a text that spells source and fields, each with its length or as missing. */
static void
make_digest(text *source, const Datum *values, const bool *nulls, pg_uuid_t *digest)
{
	StringInfoData s;

	initStringInfo(&s);
	appendStringInfo(&s, "%d:", (int) VARSIZE_ANY_EXHDR(source));
	appendBinaryStringInfo(&s, VARDATA_ANY(source), VARSIZE_ANY_EXHDR(source));
	for (int f = 0; f < NFIELDS; f++)
	{
		if (nulls[f])
			appendStringInfoChar(&s, '-');
		else
			switch (fields[f].kind)
			{
				case FIELD_TIME:
				case FIELD_MS:
					appendStringInfo(&s, "%lld;", (long long) DatumGetInt64(values[f]));
					break;
				case FIELD_INT:
				case FIELD_COUNT:
					appendStringInfo(&s, "%d;", DatumGetInt32(values[f]));
					break;
				case FIELD_BOOL:
					appendStringInfoChar(&s, DatumGetBool(values[f]) ? 't' : 'f');
					break;
				default:
					appendStringInfo(&s, "%d:", (int) VARSIZE_ANY_EXHDR(values[f]));
					appendBinaryStringInfo(&s, VARDATA_ANY(values[f]), VARSIZE_ANY_EXHDR(values[f]));
			}
	}
	hf_text_digest("holdfast record 1", s.data, s.len, digest);
	pfree(s.data);
}

/*
 * holdfast.attempt_of(source text, record jsonb, ordinal bigint)
 *		returns holdfast.attempt_record
 *
 * The record as it will be stored, but for record_id, recorded_at and rank.
 * Errors: 22023 with the record's ordinal, the field and the reason.
 */
PG_FUNCTION_INFO_V1(holdfast_attempt_of);
Datum
holdfast_attempt_of(PG_FUNCTION_ARGS)
{
	text	   *source = PG_GETARG_TEXT_PP(0);
	Place		place = {PG_GETARG_INT64(2), NULL};
	Shape	   *shape = get_shape(fcinfo);
	Jsonb	   *record = PG_ARGISNULL(1) ? NULL : PG_GETARG_JSONB_P(1);
	Datum		values[NFIELDS];
	bool		nulls[NFIELDS];
	Datum	   *row = palloc0(sizeof(Datum) * shape->desc->natts);
	bool	   *row_null = palloc(sizeof(bool) * shape->desc->natts);
	pg_uuid_t	digest;
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	value;

	memset(nulls, true, sizeof(nulls));
	if (record == NULL || !JB_ROOT_IS_OBJECT(record))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("record %lld: is no object", (long long) place.ordinal),
				 errdetail("Nothing of the batch is kept."),
				 errhint("Give an object with the fields of an attempt.")));
	it = JsonbIteratorInit(&record->root);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		int			field;

		if (token != WJB_KEY)
			continue;
		field = field_of(&value);
		if (field < 0)
		{
			place.field = pnstrdup(value.val.string.val, value.val.string.len);
			bad_field(&place, NULL, "is no field of an attempt", "docs/reference.md lists the fields; leave others out.");
		}
		place.field = fields[field].name;
		(void) JsonbIteratorNext(&it, &value, true);
		values[field] = field_value(&place, field, &value, &nulls[field]);
	}
	for (int f = 0; f < NFIELDS; f++)
		if (nulls[f] && (fields[f].kind == FIELD_REQUIRED || f == FIELD_STARTED_AT))
		{
			place.field = fields[f].name;
			bad_field(&place, NULL, "is missing", "An attempt has at least job_id, subject, action_key and started_at.");
		}

	make_digest(source, values, nulls, &digest);
	memset(row_null, true, sizeof(bool) * shape->desc->natts);
	for (int f = 0; f < NFIELDS; f++)
	{
		row[shape->field[f] - 1] = values[f];
		row_null[shape->field[f] - 1] = nulls[f];
	}
	row[shape->source - 1] = PointerGetDatum(source);
	row_null[shape->source - 1] = false;
	row[shape->digest - 1] = UUIDPGetDatum(&digest);
	row_null[shape->digest - 1] = false;
	row[shape->synthetic_lease - 1] = BoolGetDatum(false);
	row_null[shape->synthetic_lease - 1] = false;
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(shape->desc, row, row_null)));
}

/* holdfast.attempt_fields() returns text[]: the fields of a record, in the order of its digest */
PG_FUNCTION_INFO_V1(holdfast_attempt_fields);
Datum
holdfast_attempt_fields(PG_FUNCTION_ARGS)
{
	Datum		names[NFIELDS];

	for (int f = 0; f < NFIELDS; f++)
		names[f] = CStringGetTextDatum(fields[f].name);
	PG_RETURN_ARRAYTYPE_P(construct_array(names, NFIELDS, TEXTOID, -1, false, TYPALIGN_INT));
}
