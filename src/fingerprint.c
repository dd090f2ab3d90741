/*-------------------------------------------------------------------------
 *
 * fingerprint.c
 *	  When two messages tell of the same failure.
 *
 * A message is normalised before it is compared: what tells one occurrence
 * from the next becomes "#".  That is, reading from left to right:
 *
 *	 - a UUID; a mail address; an IPv6 or MAC address;
 *	 - a word of letters and digits with at least one digit in it: a number, a
 *	   hexadecimal address, an id.  "-", "_", "/" and the like end a word, so
 *	   that the name in front of an id, and the path in front of a line number,
 *	   stay;
 *	 - digits joined by one of . , : + - to more digits count as one number:
 *	   1.5, 10.0.0.7:443, 2026-01-31, 08:15:00.123; so does a sign in front
 *	   of a number, where no word precedes it;
 *	 - a word of eight or more letters a to f: a hexadecimal id without a digit;
 *	 - the English abbreviations of months and days, and AM and PM.
 *
 * Runs of "#" and of white space become one of each.  Letters keep their case.
 * Everything is bytes; those above 127 are letters, so that the encoding does
 * not matter.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "common/hashfn.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"

typedef struct Cursor
{
	const unsigned char *at;
	const unsigned char *end;
	const unsigned char *no_address;	/* none begins before this: looked at from further left */
} Cursor;

static inline bool
is_digit(unsigned char c)
{
	return c >= '0' && c <= '9';
}

static inline bool
is_word(unsigned char c)
{
	return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c >= 128;
}

static inline bool
is_hex(unsigned char c)
{
	return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static inline bool
is_space(unsigned char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool
is_uuid(const Cursor *c)
{
	if (c->end - c->at < 36)
		return false;
	for (int i = 0; i < 36; i++)
		if (i == 8 || i == 13 || i == 18 || i == 23 ? c->at[i] != '-' : !is_hex(c->at[i]))
			return false;
	return c->end - c->at == 36 || !is_word(c->at[36]);
}

/*
 * Where hexadecimal groups joined by colons end, or NULL if they are no address.
 * Then what begins further right among them is none either, and is not looked
 * at again: a long message would take the square of its length.
 */
static const unsigned char *
colons_end(Cursor *c)
{
	const unsigned char *p = c->at;
	const unsigned char *scanned;
	int			colons = 0;
	bool		digit = false;

	if (p < c->no_address)
		return NULL;
	for (; p < c->end && (is_hex(*p) || *p == ':'); p++)
	{
		colons += *p == ':';
		digit |= is_digit(*p);
	}
	scanned = p;
	while (p > c->at && p[-1] == ':')
	{
		p--;
		colons--;
	}
	if ((p == c->end || !is_word(*p)) && (colons >= 5 || (colons >= 2 && digit)))
		return p;
	c->no_address = scanned;
	return NULL;
}

/* Where a mail address that begins here ends, or NULL. */
static const unsigned char *
mail_end(const Cursor *c, const unsigned char *begin)
{
	const unsigned char *p = c->at;

	/* what follows one of these was looked at from the front */
	if (p > begin && strchr("._+-", p[-1]) != NULL)
		return NULL;
	while (p < c->end && (is_word(*p) || *p == '.' || *p == '_' || *p == '+' || *p == '-'))
		p++;
	if (p == c->at || p + 1 >= c->end || *p != '@' || !is_word(p[1]))
		return NULL;
	for (p++; p < c->end && (is_word(*p) || *p == '-' || (*p == '.' && p + 1 < c->end && is_word(p[1]))); p++);
	return p;
}

static bool
is_calendar_word(const unsigned char *word, int len)
{
	static const char *const words[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
		"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun", "AM", "PM", "am", "pm"};

	for (int i = 0; i < lengthof(words); i++)
		if (strlen(words[i]) == len && memcmp(words[i], word, len) == 0)
			return true;
	return false;
}

/*
 * The end of the word that begins here, and whether it varies from one
 * occurrence of a failure to the next.  Numbers that a separator joins are one
 * word.
 */
static const unsigned char *
word_end(const Cursor *c, bool *varies)
{
	const unsigned char *p = c->at;
	bool		digit = false;
	bool		hex = true;

	for (;;)
	{
		for (; p < c->end && is_word(*p); p++)
		{
			digit |= is_digit(*p);
			hex &= is_hex(*p);
		}
		if (p > c->at && p + 1 < c->end && is_digit(p[-1]) && is_digit(p[1]) && strchr(".,:+-", *p) != NULL && *p != '\0')
			p++;
		else
			break;
	}
	*varies = digit || (hex && p - c->at >= 8) || is_calendar_word(c->at, p - c->at);
	return p;
}

static void
normalize(const char *message, int len, StringInfo s)
{
	const unsigned char *begin = (const unsigned char *) message;
	Cursor		c = {begin, begin + len, begin};

	initStringInfo(s);
	while (c.at < c.end)
	{
		const unsigned char *end = NULL;
		bool		varies = true;
		bool		in_word = c.at > begin && is_word(c.at[-1]);

		if (is_space(*c.at))
		{
			if (s->len > 0 && s->data[s->len - 1] != ' ')
				appendStringInfoChar(s, ' ');
			c.at++;
			continue;
		}
		if ((*c.at == '-' || *c.at == '+') && !in_word && c.at + 1 < c.end && is_digit(c.at[1]))
			c.at++;				/* a sign */
		if (is_word(*c.at))
		{
			if (is_uuid(&c))
				end = c.at + 36;
			else if ((end = mail_end(&c, begin)) == NULL && (end = colons_end(&c)) == NULL)
				end = word_end(&c, &varies);
		}
		else if (*c.at == ':' && !in_word && (end = colons_end(&c)) != NULL)
			varies = true;
		else
		{
			end = c.at + 1;
			varies = false;
		}
		if (!varies)
			appendBinaryStringInfo(s, (const char *) c.at, end - c.at);
		else if (s->len == 0 || s->data[s->len - 1] != '#')
			appendStringInfoChar(s, '#');
		c.at = end;
	}
	while (s->len > 0 && s->data[s->len - 1] == ' ')
		s->data[--s->len] = '\0';
}

/*
 * holdfast.normalized_message(message text) returns text
 *
 * IMMUTABLE STRICT.
 */
PG_FUNCTION_INFO_V1(holdfast_normalized_message);
Datum
holdfast_normalized_message(PG_FUNCTION_ARGS)
{
	text	   *message = PG_GETARG_TEXT_PP(0);
	StringInfoData s;

	normalize(VARDATA_ANY(message), VARSIZE_ANY_EXHDR(message), &s);
	PG_RETURN_TEXT_P(cstring_to_text_with_len(s.data, s.len));
}

/*
 * A history has far fewer messages than failures: the digests of those met
 * last are kept for the query, each in the place that its hash gives.
 */
#define REMEMBERED 256
#define REMEMBERED_BYTES 512	/* longer texts are rare, and digested anew */

typedef struct Remembered
{
	int			len;			/* 0: nothing */
	char		text[REMEMBERED_BYTES];
	pg_uuid_t	digest;
} Remembered;

static void
digest_error(FunctionCallInfo fcinfo, StringInfo text, const char *message, int message_len, pg_uuid_t *digest)
{
	Remembered *all = fcinfo->flinfo->fn_extra;
	Remembered *place = NULL;
	StringInfoData s;

	if (text->len + message_len <= REMEMBERED_BYTES)
	{
		if (all == NULL)
			all = fcinfo->flinfo->fn_extra = MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt, sizeof(Remembered) * REMEMBERED);
		place = &all[(hash_bytes((const unsigned char *) text->data, text->len) ^
					  hash_bytes((const unsigned char *) message, message_len)) % REMEMBERED];
		if (place->len == text->len + message_len && memcmp(place->text, text->data, text->len) == 0 &&
			memcmp(place->text + text->len, message, message_len) == 0)
		{
			*digest = place->digest;
			return;
		}
		place->len = text->len + message_len;
		memcpy(place->text, text->data, text->len);
		memcpy(place->text + text->len, message, message_len);
	}
	normalize(message, message_len, &s);
	appendBinaryStringInfo(text, s.data, s.len);
	hf_text_digest("holdfast error 1", text->data, text->len, digest);
	if (place != NULL)
		place->digest = *digest;
}

/*
 * holdfast.error_digest(exception_class text, message text) returns uuid
 *
 * The same for two failures of one class whose normalised messages are equal;
 * NULL where there is neither class nor message.  IMMUTABLE.
 */
PG_FUNCTION_INFO_V1(holdfast_error_digest);
Datum
holdfast_error_digest(PG_FUNCTION_ARGS)
{
	text	   *class = PG_ARGISNULL(0) ? NULL : PG_GETARG_TEXT_PP(0);
	text	   *message = PG_ARGISNULL(1) ? NULL : PG_GETARG_TEXT_PP(1);
	pg_uuid_t  *digest = palloc(sizeof(pg_uuid_t));
	StringInfoData s;

	if (class == NULL && message == NULL)
		PG_RETURN_NULL();
	/* the class with its length, or that there is none; then, if there is one, the message */
	initStringInfo(&s);
	if (class == NULL)
		appendStringInfoChar(&s, '-');
	else
	{
		appendStringInfo(&s, "%d:", hf_utf8_length(class));
		appendBinaryStringInfo(&s, VARDATA_ANY(class), VARSIZE_ANY_EXHDR(class));
	}
	if (message != NULL)
	{
		appendStringInfoChar(&s, ':');
		digest_error(fcinfo, &s, VARDATA_ANY(message), VARSIZE_ANY_EXHDR(message), digest);
	}
	else
		digest_error(fcinfo, &s, "", 0, digest);
	pfree(s.data);
	PG_RETURN_UUID_P(digest);
}
