/*-------------------------------------------------------------------------
 *
 * call.c
 *	  The frame of every call.
 *
 * A call allocates in a context that is empty again at its end, so that a loop
 * of a million calls in one statement uses no more memory than one.  At its end it writes its
 * evidence and makes its changes visible to the next call of the same
 * statement.  After an error the transaction's own clean-up releases
 * everything; only the depth is put right here.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "access/parallel.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"

/* What the context keeps from call to call, so that a batch need not ask the system for memory each time. */
#define KEPT_BYTES (256 * 1024)

static int	depth = 0;
static int *begun_at = NULL;	/* of each call under way: the nesting of subtransactions that it began in */
static int	begun_room = 0;
static MemoryContext outermost_cxt = NULL;	/* of the outermost call, reset when it ends */

static void
reset_depth(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_ABORT || event == XACT_EVENT_COMMIT || event == XACT_EVENT_PREPARE)
	{
		if (depth > 0 && outermost_cxt != NULL)
			MemoryContextReset(outermost_cxt);	/* a call that ended in an error */
		depth = 0;
	}
}

static void
reset_depth_sub(SubXactEvent event, SubTransactionId me, SubTransactionId parent, void *arg)
{
	/*
	 * Calls that began in it have ended.  One that began outside has not: what
	 * it evaluates (a watch's expressions) may catch errors of its own.
	 */
	if (event == SUBXACT_EVENT_ABORT_SUB)
		while (depth > 0 && begun_at[depth - 1] >= GetCurrentTransactionNestLevel())
			depth--;
}

static void
note_beginning(void)
{
	if (depth == begun_room)
	{
		int			room = begun_room == 0 ? 8 : begun_room * 2;

		begun_at = begun_room == 0 ? MemoryContextAlloc(TopMemoryContext, sizeof(int) * room) :
			repalloc(begun_at, sizeof(int) * room);
		begun_room = room;
	}
	begun_at[depth] = GetCurrentTransactionNestLevel();
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

	if (write && (XactReadOnly || IsInParallelMode() || RecoveryInProgress()))
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
	note_beginning();
	if (depth++ == 0)
	{
		/* locks that are held already would let changes of others go unnoticed */
		AcceptInvalidationMessages();
		hf_tables_check();
	}
	call->generation = hf_tables_generation();
	call->write = write;
	if (depth > 1)
		call->cxt = AllocSetContextCreate(CurrentMemoryContext, "holdfast call", ALLOCSET_DEFAULT_SIZES);
	else
	{
		if (outermost_cxt == NULL)
			outermost_cxt = AllocSetContextCreate(TopMemoryContext, "holdfast call", KEPT_BYTES, KEPT_BYTES,
												  ALLOCSET_DEFAULT_MAXSIZE);
		else
			MemoryContextReset(outermost_cxt);	/* a subtransaction may have ended a call */
		call->cxt = outermost_cxt;
	}
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
	if (call->cxt == outermost_cxt)
		MemoryContextReset(call->cxt);
	else
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
 * per backend.  Most words are literals and so have one address: what was
 * found there last is tried first, and is compared, since another string may
 * have come to lie there.
 */
Datum
hf_word(const char *word)
{
	typedef struct Word
	{
		char		word[NAMEDATALEN];
		Datum		datum;
	} Word;

	static HTAB *words = NULL;
	static struct
	{
		const char *address;
		const Word *entry;
	}			recent[256];
	int			slot = ((uintptr_t) word ^ ((uintptr_t) word >> 8)) % lengthof(recent);
	Word	   *entry;
	bool		found;

	if (recent[slot].address == word && strcmp(recent[slot].entry->word, word) == 0)
		return recent[slot].entry->datum;
	Assert(strlen(word) < NAMEDATALEN);
	if (words == NULL)
	{
		HASHCTL		ctl = {0};

		ctl.keysize = NAMEDATALEN;
		ctl.entrysize = sizeof(Word);
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
	recent[slot].address = word;
	recent[slot].entry = entry;
	return entry->datum;
}
