/*-------------------------------------------------------------------------
 *
 * clock.c
 *	  The one clock.
 *
 * Every decision about time reads hf_clock_now(), once per call and again
 * after a wait for a lock.  It is the wall clock and never the transaction's
 * start, since a lease granted late in a long transaction must not be born
 * expired.  holdfast.clock freezes it, for tests; only a superuser may set
 * it, or a worker could steal a lease with it.  Fencing tokens alone are made
 * from the real clock.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include <ctype.h>

#include "utils/builtins.h"
#include "utils/guc.h"

static char *clock_setting = NULL;
static TimestampTz frozen;
static bool is_frozen = false;

PG_FUNCTION_INFO_V1(holdfast_clock);

/*
 * The value of a setting must be a finite timestamp that begins with a digit: a
 * name such as "now" would mean something else at each look.
 */
bool
hf_check_timestamp_setting(char **newval, void **extra, GucSource source)
{
	TimestampTz value;
	TimestampTz *parsed;

	if (**newval == '\0')
		return true;
	if (!isdigit((unsigned char) **newval))
	{
		GUC_check_errdetail("It must be empty or a timestamp such as 2030-01-01 00:00:00+00.");
		return false;
	}
	value = DatumGetTimestampTz(DirectFunctionCall3(timestamptz_in, CStringGetDatum(*newval),
													ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
#if PG_VERSION_NUM >= 160000
	parsed = (TimestampTz *) guc_malloc(LOG, sizeof(TimestampTz));
#else
	parsed = (TimestampTz *) malloc(sizeof(TimestampTz));
#endif
	if (parsed == NULL)
		return false;
	*parsed = value;
	*extra = parsed;
	return true;
}

static void
assign_clock(const char *newval, void *extra)
{
	is_frozen = (extra != NULL);
	if (is_frozen)
		frozen = *(TimestampTz *) extra;
}

void
hf_clock_init(void)
{
	DefineCustomStringVariable("holdfast.clock",
							   "Freezes the clock of holdfast, for tests.",
							   "Empty: the wall clock.",
							   &clock_setting, "", PGC_SUSET, GUC_DISALLOW_IN_FILE,
							   hf_check_timestamp_setting, assign_clock, NULL);
}

/* Microseconds since 2000-01-01 UTC, frozen if a test says so. */
TimestampTz
hf_clock_now(void)
{
	return is_frozen ? frozen : GetCurrentTimestamp();
}

/* The wall clock, never frozen: for fencing tokens. */
TimestampTz
hf_clock_real(void)
{
	return GetCurrentTimestamp();
}

bool
hf_clock_is_frozen(void)
{
	return is_frozen;
}

/* holdfast.clock() returns timestamptz: what the next call would take for now */
Datum
holdfast_clock(PG_FUNCTION_ARGS)
{
	PG_RETURN_TIMESTAMPTZ(hf_clock_now());
}
