/*-------------------------------------------------------------------------
 *
 * key.c
 *	  Names for intents and effects, and a digest of what a job carries.
 *
 * All are SHA-256 over a label with a version, then a sequence of parts, each
 * with its length in front: what is joined can be taken apart again, so two
 * different inputs never become the same bytes.  A part is its length in
 * bytes as 4 bytes big-endian, then the bytes; texts are in UTF-8 whatever
 * the database's encoding; a NULL is the length 0xffffffff and no bytes.
 *
 *		intent key		"holdfast intent 1", subject, action_key, scope,
 *						intent_version in decimal
 *		key of a text	"holdfast key 1", the text
 *		effect key		"holdfast effect 1", the parent key in its usual text
 *						form (36 characters, lower case), the effect's name
 *		job seed		"holdfast seed 1", then the text without a length
 *		payload digest	"holdfast payload 1", then the value as below
 *
 * A key is the first 16 bytes of the digest made a UUID of version 8
 * (RFC 9562).  A seed is the first 8 bytes as a big-endian integer.
 *
 * The canonical form of a jsonb value, by its first byte:
 *
 *		n  t  f			null, true, false
 *		#  part			a number: plain decimal digits without an exponent,
 *						no trailing zeros after the point, no point without
 *						digits after it, no "-0"
 *		"  part			a string
 *		[  values  ]	an array
 *		{  pairs  }		an object: each key as a string, then its value; keys
 *						in jsonb's order, which is by length in bytes, then by
 *						bytes
 *
 * Two values have one form exactly when jsonb calls them equal.  (The order
 * of an object's keys is the one stored: in a database that is not UTF8,
 * lengths are those of its own encoding.)
 *
 * test/sql/key.sql has known answers.  Changing one byte of this needs a new
 * version in the label: the keys are in other people's databases.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "common/cryptohash.h"
#include "common/sha2.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/resowner.h"

#define NULL_LENGTH		0xffffffff

/*
 * A digest being made.  Short pieces are gathered first, since every call of
 * the library has its price; so has making a context, and one is kept for all.
 * It is never used by two digests at a time, and begins anew after an error.
 */
typedef struct Digest
{
	pg_cryptohash_ctx *ctx;
	bool		convert;		/* is the database's encoding not UTF8? */
	size_t		used;
	uint8		buffer[512];
} Digest;

static void
digest_check(Digest *digest, int result)
{
	if (result < 0)
		elog(ERROR, "could not compute SHA-256: %s", pg_cryptohash_error(digest->ctx));
}

static void
digest_bytes(Digest *digest, const void *bytes, size_t len)
{
	if (len > sizeof(digest->buffer) - digest->used)
	{
		digest_check(digest, pg_cryptohash_update(digest->ctx, digest->buffer, digest->used));
		digest->used = 0;
		if (len > sizeof(digest->buffer))
		{
			digest_check(digest, pg_cryptohash_update(digest->ctx, (const uint8 *) bytes, len));
			return;
		}
	}
	memcpy(digest->buffer + digest->used, bytes, len);
	digest->used += len;
}

/* The backend's context.  Its resource owner is its own, or it would go with the transaction. */
static pg_cryptohash_ctx *
kept_context(void)
{
	static pg_cryptohash_ctx *kept = NULL;
	static ResourceOwner owner = NULL;
	ResourceOwner current = CurrentResourceOwner;
	MemoryContext old;

	if (kept != NULL)
		return kept;
	old = MemoryContextSwitchTo(TopMemoryContext);
	if (owner == NULL)
		owner = ResourceOwnerCreate(NULL, "holdfast digests");
	CurrentResourceOwner = owner;
	PG_TRY();
	{
		kept = pg_cryptohash_create(PG_SHA256);
	}
	PG_FINALLY();
	{
		CurrentResourceOwner = current;
		MemoryContextSwitchTo(old);
	}
	PG_END_TRY();
	if (kept == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	return kept;
}

static void
digest_begin(Digest *digest, const char *label)
{
	digest->ctx = kept_context();
	digest_check(digest, pg_cryptohash_init(digest->ctx));
	digest->convert = GetDatabaseEncoding() != PG_UTF8;
	digest->used = 0;
	digest_bytes(digest, label, strlen(label));
}

static void
digest_end(Digest *digest, uint8 *result)
{
	digest_check(digest, pg_cryptohash_update(digest->ctx, digest->buffer, digest->used));
	digest_check(digest, pg_cryptohash_final(digest->ctx, result, PG_SHA256_DIGEST_LENGTH));
}

static void
digest_length(Digest *digest, uint32 len)
{
	len = pg_hton32(len);
	digest_bytes(digest, &len, sizeof(len));
}

static void
digest_ascii(Digest *digest, const char *string)
{
	digest_length(digest, strlen(string));
	digest_bytes(digest, string, strlen(string));
}

/* A string in the database's encoding, as UTF-8; with its length, or bare. */
static void
digest_string(Digest *digest, const char *string, int len, bool with_length)
{
	char	   *utf8 = unconstify(char *, string);

	if (digest->convert)
	{
		utf8 = (char *) pg_do_encoding_conversion((unsigned char *) unconstify(char *, string), len,
												  GetDatabaseEncoding(), PG_UTF8);
		if (utf8 != string)
			len = strlen(utf8);
	}
	if (with_length)
		digest_length(digest, len);
	digest_bytes(digest, utf8, len);
	if (utf8 != string)
		pfree(utf8);
}

static void
digest_text(Digest *digest, const text *value)
{
	if (value == NULL)
		digest_length(digest, NULL_LENGTH);
	else
		digest_string(digest, VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value), true);
}

/* Ends the digest as a UUID of version 8. */
static void
digest_uuid(Digest *digest, pg_uuid_t *key)
{
	uint8		result[PG_SHA256_DIGEST_LENGTH];

	digest_end(digest, result);
	memcpy(key->data, result, UUID_LEN);
	key->data[6] = (key->data[6] & 0x0f) | 0x80;
	key->data[8] = (key->data[8] & 0x3f) | 0x80;
}

static void
make_intent_key(const text *subject, const text *action_key, const text *scope,
				const int32 *intent_version, pg_uuid_t *key)
{
	Digest		digest;

	digest_begin(&digest, "holdfast intent 1");
	digest_text(&digest, subject);
	digest_text(&digest, action_key);
	digest_text(&digest, scope);
	if (intent_version == NULL)
		digest_length(&digest, NULL_LENGTH);
	else
	{
		char		version[12];	/* sign, ten digits, end */

		pg_ltoa(*intent_version, version);
		digest_ascii(&digest, version);
	}
	digest_uuid(&digest, key);
}

void
hf_intent_key(const text *subject, const text *action_key, const text *scope,
			  int32 intent_version, pg_uuid_t *key)
{
	make_intent_key(subject, action_key, scope, &intent_version, key);
}

void
hf_effect_key(const pg_uuid_t *parent, const text *effect, pg_uuid_t *key)
{
	Digest		digest;
	char	   *parent_text = DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(parent)));

	digest_begin(&digest, "holdfast effect 1");
	digest_ascii(&digest, parent_text);
	digest_text(&digest, effect);
	digest_uuid(&digest, key);
	pfree(parent_text);
}

void
hf_key_of(const text *id, pg_uuid_t *key)
{
	Digest		digest;

	digest_begin(&digest, "holdfast key 1");
	digest_text(&digest, id);
	digest_uuid(&digest, key);
}

int64
hf_job_seed(const text *id)
{
	Digest		digest;
	uint8		result[PG_SHA256_DIGEST_LENGTH];
	uint64		seed;

	digest_begin(&digest, "holdfast seed 1");
	digest_string(&digest, VARDATA_ANY(id), VARSIZE_ANY_EXHDR(id), false);
	digest_end(&digest, result);
	memcpy(&seed, result, sizeof(seed));
	return (int64) pg_ntoh64(seed);
}

/* How long a text is as UTF-8: digests are the same in every database. */
int
hf_utf8_length(const text *value)
{
	char	   *string = VARDATA_ANY(value);
	int			len = VARSIZE_ANY_EXHDR(value);
	char	   *utf8 = (char *) pg_do_encoding_conversion((unsigned char *) string, len, GetDatabaseEncoding(), PG_UTF8);

	if (utf8 == string)
		return len;
	len = strlen(utf8);
	pfree(utf8);
	return len;
}

/* A digest of text in the database's encoding, under a label of its own. */
void
hf_text_digest(const char *label, const char *string, int len, pg_uuid_t *result)
{
	Digest		digest;

	digest_begin(&digest, label);
	digest_string(&digest, string, len, false);
	digest_uuid(&digest, result);
}

static void
digest_scalar(Digest *digest, const JsonbValue *value)
{
	char	   *number;

	switch (value->type)
	{
		case jbvNull:
			digest_bytes(digest, "n", 1);
			break;
		case jbvBool:
			digest_bytes(digest, value->val.boolean ? "t" : "f", 1);
			break;
		case jbvNumeric:
			number = numeric_normalize(value->val.numeric);
			digest_bytes(digest, "#", 1);
			digest_ascii(digest, number);
			pfree(number);
			break;
		case jbvString:
			digest_bytes(digest, "\"", 1);
			digest_string(digest, value->val.string.val, value->val.string.len, true);
			break;
		default:
			elog(ERROR, "unexpected type %d in a jsonb value", (int) value->type);
	}
}

/* SHA-256 of the canonical form of a jsonb, as described above. */
bytea *
hf_payload_digest(Datum payload)
{
	Jsonb	   *jsonb = DatumGetJsonbP(payload);
	JsonbIterator *it = JsonbIteratorInit(&jsonb->root);
	JsonbIteratorToken token;
	JsonbValue	value;
	Digest		digest;
	bytea	   *result;

	digest_begin(&digest, "holdfast payload 1");
	while ((token = JsonbIteratorNext(&it, &value, false)) != WJB_DONE)
	{
		/* a number of a few stored bytes may have 130,000 digits */
		CHECK_FOR_INTERRUPTS();

		switch (token)
		{
			case WJB_BEGIN_ARRAY:
				if (!value.val.array.rawScalar)
					digest_bytes(&digest, "[", 1);
				break;
			case WJB_END_ARRAY:
				/* a scalar alone is stored as an array of one, and ends like it */
				if (!JB_ROOT_IS_SCALAR(jsonb))
					digest_bytes(&digest, "]", 1);
				break;
			case WJB_BEGIN_OBJECT:
				digest_bytes(&digest, "{", 1);
				break;
			case WJB_END_OBJECT:
				digest_bytes(&digest, "}", 1);
				break;
			case WJB_KEY:
			case WJB_ELEM:
			case WJB_VALUE:
				digest_scalar(&digest, &value);
				break;
			default:
				elog(ERROR, "unexpected token %d in a jsonb value", (int) token);
		}
	}

	result = (bytea *) palloc(VARHDRSZ + PG_SHA256_DIGEST_LENGTH);
	SET_VARSIZE(result, VARHDRSZ + PG_SHA256_DIGEST_LENGTH);
	digest_end(&digest, (uint8 *) VARDATA(result));
	if ((void *) jsonb != (void *) DatumGetPointer(payload))
		pfree(jsonb);
	return result;
}

/* A digest in lower-case hexadecimal, for messages. */
char *
hf_hex(const bytea *digest)
{
	size_t		len = VARSIZE_ANY_EXHDR(digest);
	char	   *hex = (char *) palloc(2 * len + 1);

	hex_encode(VARDATA_ANY(digest), len, hex);
	hex[2 * len] = '\0';
	return hex;
}

/*
 * holdfast.intent_key(subject text, action_key text, scope text,
 *		intent_version integer) returns uuid
 *
 * The idempotency key of an intent.  A NULL is a value of its own, so the
 * result never is NULL.  IMMUTABLE, not STRICT.  No length is refused.
 */
PG_FUNCTION_INFO_V1(holdfast_intent_key);
Datum
holdfast_intent_key(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *key = (pg_uuid_t *) palloc(sizeof(pg_uuid_t));
	int32		version = PG_ARGISNULL(3) ? 0 : PG_GETARG_INT32(3);

	make_intent_key(PG_ARGISNULL(0) ? NULL : PG_GETARG_TEXT_PP(0),
					PG_ARGISNULL(1) ? NULL : PG_GETARG_TEXT_PP(1),
					PG_ARGISNULL(2) ? NULL : PG_GETARG_TEXT_PP(2),
					PG_ARGISNULL(3) ? NULL : &version, key);
	PG_RETURN_UUID_P(key);
}

/*
 * holdfast.key_of(id text) returns uuid
 *
 * An idempotency key made of a key that the business has already, such as an
 * order number.  IMMUTABLE STRICT.
 */
PG_FUNCTION_INFO_V1(holdfast_key_of);
Datum
holdfast_key_of(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *key = (pg_uuid_t *) palloc(sizeof(pg_uuid_t));

	hf_key_of(PG_GETARG_TEXT_PP(0), key);
	PG_RETURN_UUID_P(key);
}

/*
 * holdfast.effect_key(idempotency_key uuid, effect text) returns uuid
 *
 * The key of one effect of an action that has several.  IMMUTABLE STRICT.
 */
PG_FUNCTION_INFO_V1(holdfast_effect_key);
Datum
holdfast_effect_key(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *key = (pg_uuid_t *) palloc(sizeof(pg_uuid_t));

	hf_effect_key(PG_GETARG_UUID_P(0), PG_GETARG_TEXT_PP(1), key);
	PG_RETURN_UUID_P(key);
}

/*
 * holdfast.payload_digest(payload jsonb) returns bytea
 *
 * By which two payloads of one intent are compared: equal exactly for values
 * that are equal as jsonb.  IMMUTABLE STRICT.
 */
PG_FUNCTION_INFO_V1(holdfast_payload_digest);
Datum
holdfast_payload_digest(PG_FUNCTION_ARGS)
{
	PG_RETURN_BYTEA_P(hf_payload_digest(PG_GETARG_DATUM(0)));
}
