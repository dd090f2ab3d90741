/*-------------------------------------------------------------------------
 *
 * server.c
 *	  As much of the server as the pure functions of src/ want, for a fuzzer.
 *
 * StringInfo and SHA-256 are those that the server gives its clients
 * (libpgcommon).  A memory context is what one call of the fuzzer allocates, each
 * chunk by malloc, so that AddressSanitizer sees an access beyond it.  An error has nowhere to go: pure functions raise none, so
 * that one is a finding.  What else src/ refers to stays unresolved: a call of
 * it, which would be no pure function's, crashes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/uuid.h"

MemoryContext CurrentMemoryContext = NULL;

int
GetDatabaseEncoding(void)
{
	return PG_UTF8;
}

/* UTF8 already */
unsigned char *
pg_do_encoding_conversion(unsigned char *src, int len, int src_encoding, int dest_encoding)
{
	return src;
}

struct varlena *
pg_detoast_datum_packed(struct varlena *datum)
{
	return datum;
}

text *
cstring_to_text_with_len(const char *s, int len)
{
	text	   *result = palloc(len + VARHDRSZ);

	SET_VARSIZE(result, len + VARHDRSZ);
	memcpy(VARDATA(result), s, len);
	return result;
}

/* ---------------------------------------------------------------- memory */

static void *chunks[1000];
static int	nchunks;

static int
find_chunk(void *chunk)
{
	for (int i = nchunks - 1; i >= 0; i--)
		if (chunks[i] == chunk)
			return i;
	abort();					/* never allocated, or freed before */
}

static void *
keep(void *chunk)
{
	if (chunk == NULL || nchunks == lengthof(chunks))
		abort();
	return chunks[nchunks++] = chunk;
}

void *
palloc(Size size)
{
	return keep(malloc(size));
}

void *
palloc0(Size size)
{
	return keep(calloc(1, size));
}

void *
repalloc(void *chunk, Size size)
{
	int			i = find_chunk(chunk);

	if ((chunks[i] = realloc(chunk, size)) == NULL)
		abort();
	return chunks[i];
}

void
pfree(void *chunk)
{
	chunks[find_chunk(chunk)] = chunks[nchunks - 1];
	nchunks--;
	free(chunk);
}

void
fuzz_reset_memory(void)
{
	while (nchunks > 0)
		free(chunks[--nchunks]);
}

/* In a context that outlives the call: the caller has it freed. */
void *
MemoryContextAllocZero(MemoryContext context, Size size)
{
	return calloc(1, size);
}

/* ---------------------------------------------------------------- the rest */

int
pg_ltoa(int32 value, char *a)
{
	return sprintf(a, "%d", value);
}

Datum
uuid_out(PG_FUNCTION_ARGS)
{
	const pg_uuid_t *uuid = PG_GETARG_UUID_P(0);
	char	   *result = palloc(2 * UUID_LEN + 5);
	char	   *p = result;

	for (int i = 0; i < UUID_LEN; i++)
		p += sprintf(p, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", uuid->data[i]);
	PG_RETURN_CSTRING(result);
}

Datum
DirectFunctionCall1Coll(PGFunction func, Oid collation, Datum arg1)
{
	LOCAL_FCINFO(fcinfo, 1);

	InitFunctionCallInfoData(*fcinfo, NULL, 1, collation, NULL, NULL);
	fcinfo->args[0].value = arg1;
	fcinfo->args[0].isnull = false;
	return func(fcinfo);
}

bool
errstart(int elevel, const char *domain)
{
	abort();
}

bool
errstart_cold(int elevel, const char *domain)
{
	abort();
}
