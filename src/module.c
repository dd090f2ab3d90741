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
#include "utils/memutils.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);	/* not declared by PostgreSQL 15 */

PG_FUNCTION_INFO_V1(holdfast_version);

/* What a backend keeps of freed memory from call to call, rather than give it back to the system. */
#define KEPT_HEAP (1024 * 1024)

/*
 * glibc's malloc gives the end of the heap back as soon as 128 kB of it are
 * free, so that each batch would fault its pages in anew: half of a batch's
 * page faults.  It learns from the largest block of a mapping of its own that
 * was ever freed: so show it one.  (mallopt() would end its learning.)
 */
static void
keep_freed_memory(void)
{
	pfree(MemoryContextAlloc(TopMemoryContext, KEPT_HEAP));
}

void
_PG_init(void)
{
	keep_freed_memory();
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
