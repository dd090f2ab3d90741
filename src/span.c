/*-------------------------------------------------------------------------
 *
 * span.c
 *	  The span of time that span_pair and failure_pattern look at.
 *
 * A view takes no arguments, and a function that took them would have to read
 * the tables with more rights than its caller's.  So the span is two settings,
 * which everybody may set: the views show each role its own queues whatever
 * the span is.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "utils/guc.h"

static char *since_setting = NULL;
static char *until_setting = NULL;
static TimestampTz since;
static TimestampTz until;
static bool has_since = false;
static bool has_until = false;

static void
assign_since(const char *newval, void *extra)
{
	has_since = (extra != NULL);
	if (has_since)
		since = *(TimestampTz *) extra;
}

static void
assign_until(const char *newval, void *extra)
{
	has_until = (extra != NULL);
	if (has_until)
		until = *(TimestampTz *) extra;
}

void
hf_span_init(void)
{
	DefineCustomStringVariable("holdfast.span_since",
							   "Where the views span_pair and failure_pattern begin.",
							   "Empty: a day before the end.",
							   &since_setting, "", PGC_USERSET, GUC_DISALLOW_IN_FILE,
							   hf_check_timestamp_setting, assign_since, NULL);
	DefineCustomStringVariable("holdfast.span_until",
							   "Where the views span_pair and failure_pattern end.",
							   "Empty: now.",
							   &until_setting, "", PGC_USERSET, GUC_DISALLOW_IN_FILE,
							   hf_check_timestamp_setting, assign_until, NULL);
}

static TimestampTz
span_end(void)
{
	return has_until ? until : hf_clock_now();
}

/* holdfast.span_end() returns timestamptz: the first time that is no longer in the span */
PG_FUNCTION_INFO_V1(holdfast_span_end);
Datum
holdfast_span_end(PG_FUNCTION_ARGS)
{
	PG_RETURN_TIMESTAMPTZ(span_end());
}

/* holdfast.span_start() returns timestamptz: the first time in the span */
PG_FUNCTION_INFO_V1(holdfast_span_start);
Datum
holdfast_span_start(PG_FUNCTION_ARGS)
{
	PG_RETURN_TIMESTAMPTZ(has_since ? since : span_end() - USECS_PER_DAY);
}
