/*-------------------------------------------------------------------------
 *
 * call.c
 *	  The frame of every call.
 *
 * A call allocates in a context of its own, so that a loop of a million calls
 * in one statement uses no more memory than one.  At its end it writes its
 * evidence and makes its changes visible to the next call of the same
 * statement.  After an error the transaction's own clean-up releases
 * everything; only the depth is put right here.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "access/parallel.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"

static int	depth = 0;

static void
reset_depth(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_ABORT || event == XACT_EVENT_COMMIT || event == XACT_EVENT_PREPARE)
		depth = 0;
}

static void
reset_depth_sub(SubXactEvent event, SubTransactionId me, SubTransactionId parent, void *arg)
{
	/* No call begins a subtransaction, so none is under way once one has aborted. */
	if (event == SUBXACT_EVENT_ABORT_SUB)
		depth = 0;
}

/* How many calls are under way: 1 in all but contrived cases. */
int
hf_call_depth(void)
{
	return depth;
}

void
hf_begin(HfCall *call, const char *function, bool write)
{
	static bool registered = false;

	if (write)
	{
		char		name[NAMEDATALEN + 16];

		snprintf(name, sizeof(name), "%s.%s()", HF_SCHEMA, function);
		PreventCommandIfReadOnly(name);
		PreventCommandIfParallelMode(name);
		PreventCommandDuringRecovery(name);
	}
	if (!registered)
	{
		RegisterXactCallback(reset_depth, NULL);
		RegisterSubXactCallback(reset_depth_sub, NULL);
		registered = true;
	}
	memset(call, 0, sizeof(HfCall));
	if (depth++ == 0)
	{
		/* locks that are held already would let changes of others go unnoticed */
		AcceptInvalidationMessages();
		hf_tables_check();
	}
	call->generation = hf_tables_generation();
	call->write = write;
	call->cxt = AllocSetContextCreate(CurrentMemoryContext, "holdfast call", ALLOCSET_DEFAULT_SIZES);
	call->caller_cxt = MemoryContextSwitchTo(call->cxt);
	call->now = hf_clock_now();
	hf_config_check();
}

void
hf_end(HfCall *call)
{
	if (call->write)
	{
		hf_streams_flush(call);
		hf_events_flush(call);
	}
	for (int i = 0; i < HF_NTABLES; i++)
		if (call->tables[i] != NULL)
			hf_close(call->tables[i]);
	MemoryContextSwitchTo(call->caller_cxt);
	MemoryContextDelete(call->cxt);
	depth--;
	if (call->write)
		CommandCounterIncrement();
}

/* Fetched anew for each write, since anything that ran SQL has moved it on. */
CommandId
hf_command_id(HfCall *call)
{
	return GetCurrentCommandId(true);
}

/* ---------------------------------------------------------------- words */

bool
hf_text_is(Datum value, const char *word)
{
	text	   *t = DatumGetTextPP(value);
	size_t		len = strlen(word);

	return VARSIZE_ANY_EXHDR(t) == len && memcmp(VARDATA_ANY(t), word, len) == 0;
}

/*
 * A text Datum of a word of the schema ('pending', an event kind), made once
 * per backend.
 */
Datum
hf_word(const char *word)
{
	static HTAB *words = NULL;
	struct
	{
		char		word[NAMEDATALEN];
		Datum		datum;
	}		   *entry;
	bool		found;

	Assert(strlen(word) < NAMEDATALEN);
	if (words == NULL)
	{
		HASHCTL		ctl = {0};

		ctl.keysize = NAMEDATALEN;
		ctl.entrysize = sizeof(*entry);
		ctl.hcxt = TopMemoryContext;
		words = hash_create("holdfast words", 128, &ctl, HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	}
	entry = hash_search(words, word, HASH_FIND, &found);
	if (!found)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
		Datum		datum = CStringGetTextDatum(word);

		MemoryContextSwitchTo(old);
		entry = hash_search(words, word, HASH_ENTER, NULL);
		entry->datum = datum;
	}
	return entry->datum;
}
