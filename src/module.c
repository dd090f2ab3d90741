/*-------------------------------------------------------------------------
 *
 * module.c
 *	  Loading the library.
 *
 * The prefix "holdfast" is reserved, so that a session cannot plant a
 * placeholder setting before the library is loaded: holdfast.clock would let
 * a worker outlive its lease.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "utils/builtins.h"
#include "utils/guc.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);	/* not declared by PostgreSQL 15 */

PG_FUNCTION_INFO_V1(holdfast_version);

void
_PG_init(void)
{
	hf_clock_init();
	hf_evidence_init();
	hf_hint_init();
	hf_lease_init();
	hf_table_init();
	hf_config_init();
	hf_pair_init();
	hf_watch_init();
	hf_span_init();
	hf_worker_init();
	MarkGUCPrefixReserved("holdfast");
}

/* holdfast.version() returns text: the version of the loaded library */
Datum
holdfast_version(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(HOLDFAST_VERSION));
}
