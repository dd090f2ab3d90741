/*-------------------------------------------------------------------------
 *
 * args.c
 *	  Bounds of arguments: every value from outside passes here first.
 *
 * Rows are written without an executor that would check constraints, so what
 * these functions let through is what the tables will hold.  Durations become
 * whole milliseconds at once: a day counts as 24 hours, and months and years,
 * which have no fixed length, are refused, so that no session's time zone can
 * change a lease or a delay.
 *
 * Errors: 22004 for a NULL where a value is needed, 22023 for anything else.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include <math.h>

#include "access/detoast.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

#define MS_PER_DAY		INT64CONST(86400000)
#define US_PER_MS		INT64CONST(1000)

static inline bool
interval_not_finite_compat(const Interval *value)
{
#ifdef INTERVAL_NOT_FINITE		/* since PostgreSQL 17 */
	return INTERVAL_NOT_FINITE(value);
#else
	(void) value;
	return false;
#endif
}

static void
require_argument(FunctionCallInfo fcinfo, int argno, const char *name)
{
	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", name)));
}

static char *
interval_text(const Interval *value)
{
	return DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(value)));
}

/*
 * A duration in whole milliseconds, within [min_ms, max_ms].
 *
 * A fraction of a millisecond is cut off, but something between 0 and 1 ms is
 * out of range even where 0 is allowed: it was not meant to be nothing.
 * Nothing here can overflow: 2^31 days and 2^63 us are 2 * 10^17 ms.
 */
int64
hf_interval_ms(const Interval *value, const char *name, int64 min_ms, int64 max_ms)
{
	int64		ms;
	int64		rest_us;

	if (interval_not_finite_compat(value))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must be finite", name),
				 errdetail("The value given is %s.", interval_text(value)),
				 errhint("Give a duration of at most %lld ms.", (long long) max_ms)));
	if (value->month != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must not contain months or years", name),
				 errdetail("The value given is %s, and a month has no fixed length.", interval_text(value)),
				 errhint("Use days or hours, for example '30 days'; a day counts as 24 hours.")));

	ms = value->day * MS_PER_DAY + value->time / US_PER_MS;
	rest_us = value->time % US_PER_MS;
	if (rest_us < 0)
	{
		ms--;
		rest_us += US_PER_MS;
	}

	if (ms < min_ms || ms > max_ms || (ms == 0 && rest_us > 0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must be between %lld ms and %lld ms",
						name, (long long) min_ms, (long long) max_ms),
				 errdetail("The value given is %s.", interval_text(value)),
				 errhint("Durations are counted in whole milliseconds, and a day as 24 hours.")));
	return ms;
}

/* A duration that is stored, of at least min_ms and at most ten years: moved into bounds rather than refused. */
int64
hf_stored_ms(Datum interval, int64 min_ms)
{
	const Interval *value = DatumGetIntervalP(interval);

	/* doubles cannot overflow here, and whole milliseconds up to the bound are exact */
	double		ms = value->month * 30.0 * 86400000.0 + value->day * 86400000.0 + floor(value->time / 1000.0);

	return (int64) Min(Max(ms, (double) min_ms), (double) HF_MAX_DELAY_MS);
}

int64
hf_arg_interval_ms(FunctionCallInfo fcinfo, int argno, const char *name, int64 min_ms, int64 max_ms)
{
	require_argument(fcinfo, argno, name);
	return hf_interval_ms(PG_GETARG_INTERVAL_P(argno), name, min_ms, max_ms);
}

/*
 * A text of 1 to max_bytes bytes; NULL where it is null and not required.
 * The length is looked at before a long value is fetched from its TOAST table.
 */
text *
hf_arg_text(FunctionCallInfo fcinfo, int argno, const char *name, int max_bytes, bool required)
{
	Size		len;

	if (PG_ARGISNULL(argno) && !required)
		return NULL;
	require_argument(fcinfo, argno, name);

	len = toast_raw_datum_size(PG_GETARG_DATUM(argno)) - VARHDRSZ;
	if (len == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must not be empty", name),
				 required ? 0 : errhint("Leave it null where there is no value.")));
	if (len > (Size) max_bytes)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must not be longer than %d bytes", name, max_bytes),
				 errdetail("The value given has %zu bytes.", len),
				 errhint("Shorten it, or use a digest of it.")));
	return PG_GETARG_TEXT_PP(argno);
}

/* Infinite times are refused: they would never be due, or always be first. */
TimestampTz
hf_arg_timestamp(FunctionCallInfo fcinfo, int argno, const char *name)
{
	TimestampTz value;

	require_argument(fcinfo, argno, name);
	value = PG_GETARG_TIMESTAMPTZ(argno);
	if (TIMESTAMP_NOT_FINITE(value))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must be finite", name),
				 errdetail("The value given is %s.", TIMESTAMP_IS_NOBEGIN(value) ? "-infinity" : "infinity"),
				 errhint("Give a date and time.")));
	return value;
}

int32
hf_arg_int(FunctionCallInfo fcinfo, int argno, const char *name, int32 min, int32 max)
{
	int32		value;

	require_argument(fcinfo, argno, name);
	value = PG_GETARG_INT32(argno);
	if (value < min || value > max)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"%s\" must be between %d and %d", name, min, max),
				 errdetail("The value given is %d.", value)));
	return value;
}

int64
hf_arg_bigint(FunctionCallInfo fcinfo, int argno, const char *name)
{
	require_argument(fcinfo, argno, name);
	return PG_GETARG_INT64(argno);
}

pg_uuid_t *
hf_arg_uuid(FunctionCallInfo fcinfo, int argno, const char *name)
{
	require_argument(fcinfo, argno, name);
	return PG_GETARG_UUID_P(argno);
}

/* How long the numbers in a jsonb are as text: one of ten stored bytes may have 130,000 digits. */
Size
hf_jsonb_digits(Jsonb *jsonb)
{
	JsonbIterator *it = JsonbIteratorInit(&jsonb->root);
	JsonbIteratorToken token;
	JsonbValue	value;
	Size		digits = 0;

	while ((token = JsonbIteratorNext(&it, &value, false)) != WJB_DONE)
		if ((token == WJB_ELEM || token == WJB_VALUE) && value.type == jbvNumeric)
		{
			char	   *number = DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value.val.numeric)));

			CHECK_FOR_INTERRUPTS();
			digits += strlen(number);
			pfree(number);
		}
	return digits;
}

/*
 * A jsonb of at most max_bytes bytes; NULL where it is null.  Its numbers may
 * have half as many digits: as text a row must stay below the 1 GB that a
 * claim's answer, and a dump, can hold.  What is small cannot have more.
 */
Jsonb *
hf_arg_jsonb(FunctionCallInfo fcinfo, int argno, const char *name, int max_bytes)
{
	Size		size;
	Jsonb	   *jsonb;

	if (PG_ARGISNULL(argno))
		return NULL;
	size = toast_raw_datum_size(PG_GETARG_DATUM(argno));
	if (size > (Size) max_bytes)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("argument \"%s\" is too large", name),
				 errdetail("It has %zu bytes; at most %d are taken.", size, max_bytes),
				 errhint("Store it elsewhere and give a reference.")));
	jsonb = PG_GETARG_JSONB_P(argno);
	if (size > 512 && hf_jsonb_digits(jsonb) > (Size) max_bytes / 2)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("argument \"%s\" is too large", name),
				 errdetail("Its numbers have more than %d digits in all.", max_bytes / 2),
				 errhint("Store it elsewhere and give a reference.")));
	return jsonb;
}

/* The index of the argument among choices, a list that ends with NULL. */
int
hf_arg_choice(FunctionCallInfo fcinfo, int argno, const char *name, const char *const *choices)
{
	text	   *value = hf_arg_text(fcinfo, argno, name, HF_MAX_TEXT, true);
	StringInfoData list;

	for (int i = 0; choices[i] != NULL; i++)
	{
		if (strlen(choices[i]) == VARSIZE_ANY_EXHDR(value) &&
			memcmp(choices[i], VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value)) == 0)
			return i;
	}

	initStringInfo(&list);
	for (int i = 0; choices[i] != NULL; i++)
		appendStringInfo(&list, "%s\"%s\"", i == 0 ? "" : ", ", choices[i]);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("argument \"%s\" cannot be \"%s\"", name, text_to_cstring(value)),
			 errhint("It is one of %s.", list.data)));
	return -1;					/* not reached */
}

/* At most HF_MAX_MESSAGE bytes of a message, whole characters; NULL stays NULL. */
text *
hf_cut_message(text *message)
{
	int			len;

	if (message == NULL)
		return NULL;
	len = (int) VARSIZE_ANY_EXHDR(message);
	if (len <= HF_MAX_MESSAGE)
		return message;
	return cstring_to_text_with_len(VARDATA_ANY(message),
									pg_mbcliplen(VARDATA_ANY(message), len, HF_MAX_MESSAGE));
}

/*
 * holdfast.interval_ms(value interval, name text, min_ms bigint, max_ms bigint)
 *		returns bigint
 *
 * hf_interval_ms() for the parts that are written in SQL, so that a bound
 * reads alike everywhere.
 */
PG_FUNCTION_INFO_V1(holdfast_interval_ms);
Datum
holdfast_interval_ms(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(hf_arg_text(fcinfo, 1, "name", HF_MAX_NAME, true));

	PG_RETURN_INT64(hf_arg_interval_ms(fcinfo, 0, name,
									   hf_arg_bigint(fcinfo, 2, "min_ms"),
									   hf_arg_bigint(fcinfo, 3, "max_ms")));
}

/*
 * holdfast.checked_name(value text, name text) returns text
 *
 * The value of argument "name" where it is a proper name, 1 to HF_MAX_NAME
 * bytes, for the parts that are written in SQL.
 */
PG_FUNCTION_INFO_V1(holdfast_checked_name);
Datum
holdfast_checked_name(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(hf_arg_text(fcinfo, 1, "name", HF_MAX_NAME, true));

	PG_RETURN_TEXT_P(hf_arg_text(fcinfo, 0, name, HF_MAX_NAME, true));
}
