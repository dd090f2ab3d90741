/*-------------------------------------------------------------------------
 *
 * pure.c
 *	  The pure functions of src/ under libFuzzer: keys, backoff and jitter, and
 *	  what makes two messages one failure.
 *
 * The first byte of an input chooses what is called with the rest.  Besides
 * what the sanitizers see, each answer is held against what is promised of it;
 * a broken promise aborts.  The parser of a watch mapping is not here: it is
 * the server's jsonb, parser and planner; test/t/008_input.pl feeds it.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "common/cryptohash.h"
#include "common/sha2.h"

extern Datum holdfast_normalized_message(PG_FUNCTION_ARGS);
extern Datum holdfast_error_digest(PG_FUNCTION_ARGS);
extern void fuzz_reset_memory(void);
extern int	LLVMFuzzerTestOneInput(const uint8 *data, size_t size);

#define require(condition) do { if (!(condition)) { fprintf(stderr, "not so: %s\n", #condition); abort(); } } while (0)

/* What is left of the input. */
typedef struct Input
{
	const uint8 *at;
	size_t		left;
} Input;

static void
take(Input *in, void *into, size_t size)
{
	size_t		n = Min(size, in->left);

	memset(into, 0, size);
	if (n > 0)
		memcpy(into, in->at, n);
	in->at += n;
	in->left -= n;
}

static text *
make_text(const void *bytes, size_t len)
{
	text	   *result = palloc(len + VARHDRSZ);

	SET_VARSIZE(result, len + VARHDRSZ);
	if (len > 0)
		memcpy(VARDATA(result), bytes, len);
	return result;
}

/* A text, or NULL: a byte has its length, or says that there is none, or that it is all the rest. */
static text *
take_text(Input *in)
{
	uint8		len;
	size_t		n;
	text	   *result;

	take(in, &len, 1);
	if (len == 255)
		return NULL;
	n = len == 254 ? in->left : Min(len, in->left);
	result = make_text(in->at, n);
	in->at += n;
	in->left -= n;
	return result;
}

/* ---------------------------------------------------------------- keys */

#define UUID_FORMAT "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x"
#define UUID_BYTES(b) b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]

/* The bytes that key.c says it digests, put together by hand. */
typedef struct Parts
{
	uint8	   *bytes;
	size_t		len;
} Parts;

static void
add_bytes(Parts *p, const void *bytes, size_t len)
{
	p->bytes = repalloc(p->bytes, p->len + len + 1);
	if (len > 0)
		memcpy(p->bytes + p->len, bytes, len);
	p->len += len;
}

static void
add_part(Parts *p, const void *bytes, size_t len)
{
	uint8		length[4] = {len >> 24, len >> 16, len >> 8, len};

	add_bytes(p, length, 4);
	add_bytes(p, bytes, len);
}

static void
add_text(Parts *p, const text *value)
{
	if (value == NULL)
		add_bytes(p, "\xff\xff\xff\xff", 4);
	else
		add_part(p, VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
}

static Parts
begin_parts(const char *label)
{
	Parts		p = {palloc(1), 0};

	add_bytes(&p, label, strlen(label));
	return p;
}

static void
digest_parts(Parts *p, uint8 *digest)
{
	pg_cryptohash_ctx *ctx = pg_cryptohash_create(PG_SHA256);

	require(ctx != NULL && pg_cryptohash_init(ctx) >= 0);
	require(pg_cryptohash_update(ctx, p->bytes, p->len) >= 0);
	require(pg_cryptohash_final(ctx, digest, PG_SHA256_DIGEST_LENGTH) >= 0);
	pg_cryptohash_free(ctx);
	pfree(p->bytes);
}

static bool
is_key_of(Parts *p, const pg_uuid_t *key)
{
	uint8		digest[PG_SHA256_DIGEST_LENGTH];

	digest_parts(p, digest);
	digest[6] = 0x80 | (digest[6] & 0x0f);
	digest[8] = 0x80 | (digest[8] & 0x3f);
	return memcmp(digest, key->data, UUID_LEN) == 0;
}

static void
fuzz_key(Input *in)
{
	int32		version;
	text	   *subject,
			   *action_key,
			   *scope;
	pg_uuid_t	key;
	pg_uuid_t	parent;
	char		decimal[12];
	char		parent_text[37];
	Parts		p;

	take(in, &version, sizeof(version));
	take(in, &parent, sizeof(parent));
	subject = take_text(in);
	action_key = take_text(in);
	scope = take_text(in);

	hf_intent_key(subject, action_key, scope, version, &key);
	p = begin_parts("holdfast intent 1");
	add_text(&p, subject);
	add_text(&p, action_key);
	add_text(&p, scope);
	add_part(&p, decimal, snprintf(decimal, sizeof(decimal), "%d", version));
	require(is_key_of(&p, &key));

	if (subject != NULL)
	{
		uint8		digest[PG_SHA256_DIGEST_LENGTH];
		uint64		seed = 0;

		hf_key_of(subject, &key);
		p = begin_parts("holdfast key 1");
		add_text(&p, subject);
		require(is_key_of(&p, &key));

		p = begin_parts("holdfast seed 1");
		add_bytes(&p, VARDATA_ANY(subject), VARSIZE_ANY_EXHDR(subject));
		digest_parts(&p, digest);
		for (int i = 0; i < 8; i++)
			seed = seed << 8 | digest[i];
		require((uint64) hf_job_seed(subject) == seed);

		hf_effect_key(&parent, subject, &key);
		p = begin_parts("holdfast effect 1");
		add_part(&p, parent_text, sprintf(parent_text, UUID_FORMAT, UUID_BYTES(parent.data)));
		add_text(&p, subject);
		require(is_key_of(&p, &key));
	}
}

/* ---------------------------------------------------------------- delays */

static void
fuzz_backoff(Input *in)
{
	struct
	{
		int64		base_ms;
		int64		max_ms;
		int64		job_id;
		int64		window_ms;
		double		rate;
		int32		failures;
	}			a;
	int64		delay,
				next,
				jitter;

	take(in, &a, sizeof(a));
	/* the bounds of a policy, failures and rate apart: the function must hold what it promises for any */
	a.base_ms = (int64) ((uint64) a.base_ms % HF_MAX_DELAY_MS);
	a.max_ms = (int64) ((uint64) a.max_ms % HF_MAX_DELAY_MS);
	a.window_ms %= HF_MAX_DELAY_MS;
	if (!(a.rate >= 1.01))
		a.rate = 1;
	a.failures &= PG_INT32_MAX;

	delay = hf_backoff_ms(a.base_ms, a.rate, a.max_ms, a.failures);
	require(delay >= Min(a.base_ms, a.max_ms) && delay <= a.max_ms);
	next = hf_backoff_ms(a.base_ms, a.rate, a.max_ms, a.failures < PG_INT32_MAX ? a.failures + 1 : a.failures);
	require(next >= delay);

	jitter = hf_jitter_ms(a.job_id, a.failures, a.window_ms);
	require(jitter >= 0 && (jitter < a.window_ms || (jitter == 0 && a.window_ms <= 0)));
	require(jitter == hf_jitter_ms(a.job_id, a.failures, a.window_ms));
}

/* ---------------------------------------------------------------- messages */

static text *
normalized(text *message)
{
	LOCAL_FCINFO(fcinfo, 1);

	InitFunctionCallInfoData(*fcinfo, NULL, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = PointerGetDatum(message);
	fcinfo->args[0].isnull = false;
	return DatumGetTextPP(holdfast_normalized_message(fcinfo));
}

static bool
error_digest(FmgrInfo *flinfo, text *class, text *message, pg_uuid_t *digest)
{
	LOCAL_FCINFO(fcinfo, 2);
	Datum		result;

	InitFunctionCallInfoData(*fcinfo, flinfo, 2, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = PointerGetDatum(class);
	fcinfo->args[0].isnull = class == NULL;
	fcinfo->args[1].value = PointerGetDatum(message);
	fcinfo->args[1].isnull = message == NULL;
	result = holdfast_error_digest(fcinfo);
	if (!fcinfo->isnull)
		*digest = *DatumGetUUIDP(result);
	return !fcinfo->isnull;
}

static void
fuzz_message(Input *in)
{
	static FmgrInfo remembers;	/* of one query that has met all the inputs */
	FmgrInfo	fresh = {0};
	text	   *class = take_text(in);
	text	   *message;
	text	   *result;
	const char *bytes;
	int			len;
	pg_uuid_t	one,
				other;

	/* a text of the server has no zero byte */
	message = make_text(in->at, in->left);
	for (int i = 0; i < VARSIZE_ANY_EXHDR(message); i++)
		if (VARDATA_ANY(message)[i] == '\0')
			VARDATA_ANY(message)[i] = ' ';

	result = normalized(message);
	bytes = VARDATA_ANY(result);
	len = VARSIZE_ANY_EXHDR(result);
	require(len <= VARSIZE_ANY_EXHDR(message));
	require(len == 0 || bytes[len - 1] != ' ');
	for (int i = 0; i < len; i++)
	{
		require(!(bytes[i] >= '\t' && bytes[i] <= '\r'));
		require(bytes[i] < '0' || bytes[i] > '9');
		require(i == 0 || bytes[i] != ' ' || bytes[i - 1] != ' ');
	}

	/* What is remembered of earlier calls, and of this one, changes nothing. */
	require(error_digest(&fresh, class, message, &one) && error_digest(&remembers, class, message, &other));
	require(memcmp(&one, &other, sizeof(one)) == 0);
	require(error_digest(&remembers, class, message, &other) && memcmp(&one, &other, sizeof(one)) == 0);
	/* Messages of one normal form are one failure, and a class is not a message. */
	require(error_digest(&fresh, class, NULL, &other) == (class != NULL));
	require(class == NULL || memcmp(&one, &other, sizeof(one)) != 0);

	free(fresh.fn_extra);
}

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	static void (*const target[]) (Input *) = {fuzz_key, fuzz_backoff, fuzz_message};
	Input		in = {data, size};
	uint8		which;

	take(&in, &which, 1);
	target[which % lengthof(target)](&in);
	fuzz_reset_memory();
	return 0;
}
