/*-------------------------------------------------------------------------
 *
 * policy.c
 *	  Retry policies and error rules: the built-in ones, and the users'.
 *
 * Policy "default" and its rules are not rows but arrays in this file, since
 * an install script that inserts rows would collide with a restore.  A row
 * stands before the built-in policy or rule of the same name; a hidden row
 * takes the built-in rule away.
 *
 * The rule of an error class is looked for in the job's policy, then in
 * "default"; in each, a rule spelled exactly like the class comes first, then
 * the patterns, longest (in bytes) first, ties in byte order.  A rule with %
 * or _ in it is a pattern as LIKE understands it, backslash escapes included;
 * names such as rate_limit are patterns too, which is why spelling wins.
 *
 * fail() depends on this file and must not be stopped by what a table holds:
 * a stored figure out of bounds is moved to the nearest bound, a pattern that
 * LIKE would refuse is compared by spelling only.
 *
 * What is loaded lives in hf_config_context() and goes away with it.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "catalog/pg_collation.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#define DEFAULT_POLICY "default"

#define SECOND	INT64CONST(1000)
#define MINUTE	(60 * SECOND)
#define HOUR	(60 * MINUTE)

static const HfPolicy builtin_policy = {
	.name = DEFAULT_POLICY,
	.base_ms = 30 * SECOND,
	.rate = 2,
	.max_ms = 1 * HOUR,
	.jitter_ms = 30 * SECOND,
	.min_ms = 5 * SECOND,
	.max_attempts = 5,
	.lost_lease_counts = true,
	.max_lost = 20,
	.max_reset_ms = 24 * HOUR,
	.reconcile_ms = 1 * MINUTE,
	.reconcile_max = 20
};

/*
 * The built-in rules: class names as workers in Python, Node, Go, Java and
 * Ruby report them.  "None" is a promise that the effect cannot have happened
 * and lets the action be executed again, so it is given only to classes that
 * are raised before a request can be on its way, or that say that it was
 * turned away unread.  Some names have no rule on purpose, because they mean
 * another thing elsewhere: TypeError is what fetch() in Node raises when it
 * loses its connection, ConnectError any failed call of one RPC library, and
 * ConnectException also a timeout while reading in PHP.
 */

/* The request may have arrived: the time ran out, or the connection dropped. */
static const char *const retry_unknown[] = {
	"LeaseExpired", "RetryRequested",	/* holdfast's own */

	/* Python */
	"TimeoutError", "ReadTimeout", "ReadTimeoutError", "ReadError", "WriteTimeout", "WriteError", "Timeout",
	"ServerTimeoutError", "ServerDisconnectedError", "SocketTimeoutError", "ConnectionError",
	"ConnectionResetError", "ConnectionAbortedError", "BrokenPipeError", "RemoteDisconnected",
	"RemoteProtocolError", "IncompleteRead", "ProtocolError", "ChunkedEncodingError",
	"APITimeoutError", "APIConnectionError",
	/* Node */
	"ETIMEDOUT", "ESOCKETTIMEDOUT", "ECONNRESET", "ECONNABORTED", "EPIPE", "AbortError",
	"UND_ERR_HEADERS_TIMEOUT", "UND_ERR_BODY_TIMEOUT", "UND_ERR_SOCKET",
	"HeadersTimeoutError", "BodyTimeoutError", "SocketError",
	/* Go */
	"DeadlineExceeded", "context.DeadlineExceeded", "context.deadlineExceededError", "DEADLINE_EXCEEDED",
	"Unavailable", "UNAVAILABLE", "*net.OpError", "*url.Error", "io.ErrUnexpectedEOF",
	/* Java */
	"TimeoutException", "java.util.concurrent.TimeoutException", "SocketTimeoutException",
	"java.net.SocketTimeoutException", "HttpTimeoutException", "java.net.http.HttpTimeoutException",
	"SocketException", "java.net.SocketException", "EOFException", "java.io.EOFException",
	"NoHttpResponseException", "org.apache.http.NoHttpResponseException",
	/* Ruby */
	"Timeout::Error", "Net::ReadTimeout", "Net::WriteTimeout", "EOFError", "Errno::ETIMEDOUT",
	"Errno::ECONNRESET", "Errno::ECONNABORTED", "Errno::EPIPE", "Faraday::TimeoutError",
	"Faraday::ConnectionFailed",
	NULL
};

/* No connection was made, so nothing was sent. */
static const char *const retry_none[] = {
	"ReleasedTooOften",			/* holdfast's own */

	/* Python */
	"ConnectionRefusedError", "gaierror", "socket.gaierror", "NewConnectionError", "NameResolutionError",
	"ConnectTimeout", "ConnectTimeoutError", "httpx.ConnectError", "PoolTimeout",
	"ClientConnectorError", "ClientConnectorDNSError",
	/* Node */
	"ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "UND_ERR_CONNECT_TIMEOUT",
	/* Go */
	"*net.DNSError",
	/* Java */
	"java.net.ConnectException", "UnknownHostException", "java.net.UnknownHostException",
	"HttpConnectTimeoutException", "java.net.http.HttpConnectTimeoutException",
	"ConnectTimeoutException", "org.apache.http.conn.ConnectTimeoutException",
	"HttpHostConnectException", "org.apache.http.conn.HttpHostConnectException",
	/* Ruby */
	"Errno::ECONNREFUSED", "Net::OpenTimeout", "Socket::ResolutionError",
	NULL
};

/* The provider turned the request away, and may have said until when. */
static const char *const honor_reset_none[] = {
	"RateLimitError", "RateLimitException", "RateLimitExceeded", "RateLimitExceededError",
	"RateLimitExceededException", "TooManyRequests", "TooManyRequestsError", "TooManyRequestsException",
	"Throttling", "ThrottlingError", "ThrottlingException", "ThrottledException", "SlowDown",
	"StripeRateLimitError", "Stripe::RateLimitError", "stripe.error.RateLimitError",
	"Faraday::TooManyRequestsError", "RestClient::TooManyRequests",
	NULL
};

/* The input was found wrong before it was used. */
static const char *const terminal_none[] = {
	"ValidationError", "ValidationException", "ActiveModel::ValidationError",
	"django.core.exceptions.ValidationError", "jsonschema.exceptions.ValidationError",
	"marshmallow.exceptions.ValidationError", "pydantic_core._pydantic_core.ValidationError",
	"jakarta.validation.ValidationException", "validator.ValidationErrors",
	NULL
};

/*
 * Trying again will not help, but the class does not say when it was raised:
 * an answer that cannot be read raises these as well as a wrong input does.
 */
static const char *const terminal_unknown[] = {
	"ValueError", "NotImplementedError",	/* Python; the latter Ruby too */
	"ERR_INVALID_ARG_TYPE", "ERR_INVALID_ARG_VALUE", "ZodError",	/* Node */
	"InvalidArgument", "INVALID_ARGUMENT",	/* Go */
	"IllegalArgumentException", "java.lang.IllegalArgumentException", "ConstraintViolationException",	/* Java */
	"ArgumentError", "ActiveRecord::RecordInvalid", /* Ruby */
	"BadRequestError", "BadRequestException", "InvalidRequestError", "UnprocessableEntityError",
	NULL
};

/* The provider knows the action from an earlier attempt. */
static const char *const suppress_landed[] = {
	"DuplicateActionError",
	NULL
};

static const struct
{
	HfDisposition disposition;
	HfSideEffect side_effect;
	const char *const *classes;
}			builtin_rules[] = {
	{HF_RETRY, HF_EFFECT_UNKNOWN, retry_unknown},
	{HF_RETRY, HF_EFFECT_NONE, retry_none},
	{HF_HONOR_RESET, HF_EFFECT_NONE, honor_reset_none},
	{HF_TERMINAL, HF_EFFECT_NONE, terminal_none},
	{HF_TERMINAL, HF_EFFECT_UNKNOWN, terminal_unknown},
	{HF_SUPPRESS, HF_EFFECT_LANDED, suppress_landed}
};

/* in the order of the enums; the tables' CHECK constraints have the same words */
static const char *const disposition_names[] = {"retry", "terminal", "honor_reset", "suppress", NULL};
static const char *const side_effect_names[] = {"unknown", "none", "landed", NULL};

typedef struct Policy
{
	HfPolicy	policy;
	bool		built_in;
} Policy;

typedef struct Rule
{
	const char *policy;
	const char *error_class;
	int			length;			/* of error_class */
	text	   *pattern;		/* NULL: compared by spelling only */
	bool		hidden;
	bool		built_in;
	HfRule		rule;
} Rule;

/* Each list is in the order in which it is searched. */
typedef struct Policies
{
	int			npolicies;
	Policy	   *policies;		/* by name */
	int			nrules;
	Rule	  **rules;			/* by policy, error_class */
	int			npatterns;
	Rule	  **patterns;		/* by policy, length descending, error_class */
} Policies;

static const Policies *loaded = NULL;

/* ---------------------------------------------------------------- loading */

/* While rows arrive; arrays grow by doubling. */
typedef struct Loading
{
	Policies   *p;
	int			max_policies;
	int			max_rules;
} Loading;

static void *
grown(void *array, int used, int *max, size_t size)
{
	if (used < *max)
		return array;
	*max *= 2;
	return repalloc(array, *max * size);
}

/* A stored duration in milliseconds, moved into bounds rather than refused. */
static int64
stored_ms(Datum value, bool isnull, int64 min_ms, int64 missing_ms)
{
	return isnull ? missing_ms : hf_stored_ms(value, min_ms);
}

static int32
stored_count(Datum value, bool isnull, int32 missing)
{
	return isnull ? missing : Max(DatumGetInt32(value), 1);
}

static double
stored_rate(Datum value, bool isnull, double missing)
{
	double		rate = isnull ? missing : DatumGetFloat8(value);

	if (!(rate > 1))			/* NaN too */
		return 1;
	return Min(Max(rate, 1.01), 1000);
}

static int
stored_choice(Datum value, bool isnull, const char *const *choices)
{
	char	   *word;

	if (isnull)
		return 0;
	word = TextDatumGetCString(value);
	for (int i = 0; choices[i] != NULL; i++)
		if (strcmp(word, choices[i]) == 0)
			return i;
	return 0;
}

static void
add_policy(Loading *loading, const HfPolicy *policy, bool built_in)
{
	Policies   *p = loading->p;

	p->policies = grown(p->policies, p->npolicies, &loading->max_policies, sizeof(Policy));
	p->policies[p->npolicies].policy = *policy;
	p->policies[p->npolicies].built_in = built_in;
	p->npolicies++;
}

static void
policy_row(void *arg, const Datum *values, const bool *nulls)
{
	const HfPolicy *missing = &builtin_policy;
	HfPolicy	policy;
	MemoryContext old;

	if (nulls[POLICY_NAME])
		return;

	old = MemoryContextSwitchTo(hf_config_context());
	policy.name = TextDatumGetCString(values[POLICY_NAME]);
	policy.base_ms = stored_ms(values[POLICY_BASE_DELAY], nulls[POLICY_BASE_DELAY], 1, missing->base_ms);
	policy.rate = stored_rate(values[POLICY_BACKOFF_RATE], nulls[POLICY_BACKOFF_RATE], missing->rate);
	policy.max_ms = stored_ms(values[POLICY_MAX_DELAY], nulls[POLICY_MAX_DELAY], 1, missing->max_ms);
	policy.jitter_ms = stored_ms(values[POLICY_JITTER_WINDOW], nulls[POLICY_JITTER_WINDOW], 0, missing->jitter_ms);
	policy.min_ms = stored_ms(values[POLICY_MIN_DELAY], nulls[POLICY_MIN_DELAY], 1, missing->min_ms);
	policy.max_attempts = stored_count(values[POLICY_MAX_ATTEMPTS], nulls[POLICY_MAX_ATTEMPTS], missing->max_attempts);
	policy.lost_lease_counts = nulls[POLICY_LOST_LEASE_COUNTS] ? missing->lost_lease_counts :
		DatumGetBool(values[POLICY_LOST_LEASE_COUNTS]);
	policy.max_lost = stored_count(values[POLICY_MAX_LOST], nulls[POLICY_MAX_LOST], missing->max_lost);
	policy.max_reset_ms = stored_ms(values[POLICY_MAX_RESET], nulls[POLICY_MAX_RESET], 1, missing->max_reset_ms);
	policy.reconcile_ms = stored_ms(values[POLICY_RECONCILE_DELAY], nulls[POLICY_RECONCILE_DELAY],
									policy.min_ms, Max(missing->reconcile_ms, policy.min_ms));
	policy.reconcile_max = stored_count(values[POLICY_RECONCILE_MAX], nulls[POLICY_RECONCILE_MAX], missing->reconcile_max);
	add_policy((Loading *) arg, &policy, false);
	MemoryContextSwitchTo(old);
}

/* Has it a wildcard, escaped or not, and would LIKE take it? */
static bool
is_pattern(const char *error_class)
{
	if (strpbrk(error_class, "%_") == NULL)
		return false;
	for (const char *c = error_class; *c != '\0'; c++)
	{
		if (*c == '\\' && *++c == '\0')
			return false;
	}
	return true;
}

/* The current context is hf_config_context(), where the names live too. */
static void
add_rule(Loading *loading, const char *policy, const char *error_class,
		 HfDisposition disposition, HfSideEffect side_effect, bool hidden, bool built_in)
{
	Policies   *p = loading->p;
	Rule	   *rule = (Rule *) palloc(sizeof(Rule));

	rule->policy = policy;
	rule->error_class = error_class;
	rule->length = strlen(error_class);
	rule->pattern = is_pattern(error_class) ? cstring_to_text(error_class) : NULL;
	rule->hidden = hidden;
	rule->built_in = built_in;
	rule->rule.name = psprintf("%s/%s", policy, error_class);
	rule->rule.disposition = disposition;
	rule->rule.side_effect = side_effect;

	p->rules = grown(p->rules, p->nrules, &loading->max_rules, sizeof(Rule *));
	p->rules[p->nrules++] = rule;
}

static void
rule_row(void *arg, const Datum *values, const bool *nulls)
{
	MemoryContext old;

	if (nulls[RULE_POLICY_NAME] || nulls[RULE_ERROR_CLASS])
		return;

	old = MemoryContextSwitchTo(hf_config_context());
	add_rule((Loading *) arg,
			 TextDatumGetCString(values[RULE_POLICY_NAME]),
			 TextDatumGetCString(values[RULE_ERROR_CLASS]),
			 stored_choice(values[RULE_DISPOSITION], nulls[RULE_DISPOSITION], disposition_names),
			 stored_choice(values[RULE_SIDE_EFFECT], nulls[RULE_SIDE_EFFECT], side_effect_names),
			 !nulls[RULE_HIDDEN] && DatumGetBool(values[RULE_HIDDEN]),
			 false);
	MemoryContextSwitchTo(old);
}

static int
compare_policies(const void *a, const void *b)
{
	return strcmp(((const Policy *) a)->policy.name, ((const Policy *) b)->policy.name);
}

static int
compare_rules(const void *a, const void *b)
{
	const Rule *ra = *(const Rule *const *) a;
	const Rule *rb = *(const Rule *const *) b;
	int			by_policy = strcmp(ra->policy, rb->policy);

	return by_policy != 0 ? by_policy : strcmp(ra->error_class, rb->error_class);
}

static int
compare_patterns(const void *a, const void *b)
{
	const Rule *ra = *(const Rule *const *) a;
	const Rule *rb = *(const Rule *const *) b;
	int			by_policy = strcmp(ra->policy, rb->policy);

	if (by_policy != 0)
		return by_policy;
	if (ra->length != rb->length)
		return ra->length > rb->length ? -1 : 1;
	return strcmp(ra->error_class, rb->error_class);
}

static const Policy *
find_policy(const Policies *p, const char *name)
{
	Policy		key;

	key.policy.name = name;
	return bsearch(&key, p->policies, p->npolicies, sizeof(Policy), compare_policies);
}

/* The rule spelled like this, among the first nrules. */
static const Rule *
find_spelling(const Policies *p, int nrules, const char *policy, const char *error_class)
{
	Rule		key;
	const Rule *wanted = &key;
	Rule	  **found;

	key.policy = policy;
	key.error_class = error_class;
	found = bsearch(&wanted, p->rules, nrules, sizeof(Rule *), compare_rules);
	return found == NULL ? NULL : *found;
}

/*
 * Reads both tables, and adds the built-in policy and rules where no row
 * stands in front of them.
 */
static const Policies *
policies(void)
{
	MemoryContext context = hf_config_context();
	MemoryContext old;
	Loading		loading;
	Policies   *p;
	int			nrows;
	int			nrules = 0;

	if (loaded != NULL)
		return loaded;

	p = (Policies *) MemoryContextAllocZero(context, sizeof(Policies));
	loading.p = p;
	loading.max_policies = 8;
	p->policies = (Policy *) MemoryContextAlloc(context, loading.max_policies * sizeof(Policy));
	loading.max_rules = 256;
	p->rules = (Rule **) MemoryContextAlloc(context, loading.max_rules * sizeof(Rule *));

	hf_config_scan(HF_RETRY_POLICY, policy_row, &loading);
	hf_config_scan(HF_ERROR_RULE, rule_row, &loading);

	old = MemoryContextSwitchTo(context);

	qsort(p->policies, p->npolicies, sizeof(Policy), compare_policies);
	if (find_policy(p, DEFAULT_POLICY) == NULL)
	{
		add_policy(&loading, &builtin_policy, true);
		qsort(p->policies, p->npolicies, sizeof(Policy), compare_policies);
	}

	nrows = p->nrules;
	qsort(p->rules, nrows, sizeof(Rule *), compare_rules);
	for (size_t i = 0; i < lengthof(builtin_rules); i++)
	{
		for (const char *const *error_class = builtin_rules[i].classes; *error_class != NULL; error_class++)
		{
			if (find_spelling(p, nrows, DEFAULT_POLICY, *error_class) == NULL)
				add_rule(&loading, DEFAULT_POLICY, *error_class,
						 builtin_rules[i].disposition, builtin_rules[i].side_effect, false, true);
		}
	}

	for (int i = 0; i < p->nrules; i++)
	{
		if (!p->rules[i]->hidden)
			p->rules[nrules++] = p->rules[i];
	}
	p->nrules = nrules;
	qsort(p->rules, p->nrules, sizeof(Rule *), compare_rules);

	p->patterns = (Rule **) palloc(Max(p->nrules, 1) * sizeof(Rule *));
	for (int i = 0; i < p->nrules; i++)
	{
		if (p->rules[i]->pattern != NULL)
			p->patterns[p->npatterns++] = p->rules[i];
	}
	qsort(p->patterns, p->npatterns, sizeof(Rule *), compare_patterns);

	MemoryContextSwitchTo(old);

	/* only now: an error on the way leaves nothing half-loaded behind */
	loaded = p;
	return loaded;
}

void
hf_policy_forget(void)
{
	loaded = NULL;
}

/* ---------------------------------------------------------------- looking up */

const HfPolicy *
hf_policy(const char *name)
{
	const Policy *found = find_policy(policies(), name);

	return found == NULL ? NULL : &found->policy;
}

const HfPolicy *
hf_require_policy(const char *name)
{
	const HfPolicy *policy = hf_policy(name);

	if (policy == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("retry policy \"%s\" does not exist", name),
				 errhint("See holdfast.list_retry_policies(), or make it with holdfast.define_retry_policy().")));
	return policy;
}

static const Rule *
find_rule(const Policies *p, const char *policy, const char *error_class, text *class_text)
{
	const Rule *found = find_spelling(p, p->nrules, policy, error_class);

	if (found != NULL)
		return found;
	for (int i = 0; i < p->npatterns; i++)
	{
		if (strcmp(p->patterns[i]->policy, policy) == 0 &&
			DatumGetBool(DirectFunctionCall2Coll(textlike, C_COLLATION_OID,
												 PointerGetDatum(class_text),
												 PointerGetDatum(p->patterns[i]->pattern))))
			return p->patterns[i];
	}
	return NULL;
}

/* What an error class means under a policy, which need not exist. */
HfRule
hf_rule(const char *policy, const char *error_class)
{
	static const HfRule none = {"(none)", HF_RETRY, HF_EFFECT_UNKNOWN};
	const Policies *p = policies();
	text	   *class_text = cstring_to_text(error_class);
	const Rule *found = find_rule(p, policy, error_class, class_text);

	if (found == NULL && strcmp(policy, DEFAULT_POLICY) != 0)
		found = find_rule(p, DEFAULT_POLICY, error_class, class_text);
	pfree(class_text);
	return found == NULL ? none : found->rule;
}

/* ---------------------------------------------------------------- lists */

static Datum
interval_datum(int64 ms)
{
	Interval   *interval = (Interval *) palloc0(sizeof(Interval));

	interval->time = ms * 1000;
	return IntervalPGetDatum(interval);
}

/*
 * holdfast.list_retry_policies() returns setof holdfast.retry_policy_entry
 *
 * The policies by name, with the figures that apply, built-in or not.
 */
PG_FUNCTION_INFO_V1(holdfast_list_retry_policies);
Datum
holdfast_list_retry_policies(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	const Policies *p;
	HfCall		call;

	hf_answer_begin(fcinfo, "tvfvvvibivvib");
	hf_begin(&call, "list_retry_policies", false);
	p = policies();
	for (int i = 0; i < p->npolicies; i++)
	{
		const HfPolicy *policy = &p->policies[i].policy;
		Datum		values[] = {
			CStringGetTextDatum(policy->name),
			interval_datum(policy->base_ms),
			Float8GetDatum(policy->rate),
			interval_datum(policy->max_ms),
			interval_datum(policy->jitter_ms),
			interval_datum(policy->min_ms),
			Int32GetDatum(policy->max_attempts),
			BoolGetDatum(policy->lost_lease_counts),
			Int32GetDatum(policy->max_lost),
			interval_datum(policy->max_reset_ms),
			interval_datum(policy->reconcile_ms),
			Int32GetDatum(policy->reconcile_max),
			BoolGetDatum(p->policies[i].built_in)
		};
		bool		nulls[lengthof(values)] = {false};

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	hf_end(&call);
	return (Datum) 0;
}

static void
put_rule(ReturnSetInfo *rsinfo, const Rule *rule)
{
	Datum		values[] = {
		CStringGetTextDatum(rule->policy),
		CStringGetTextDatum(rule->error_class),
		CStringGetTextDatum(disposition_names[rule->rule.disposition]),
		CStringGetTextDatum(side_effect_names[rule->rule.side_effect]),
		BoolGetDatum(rule->built_in)
	};
	bool		nulls[lengthof(values)] = {false};

	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/*
 * Can a rule of "default" be reached under the named policy?  Not where the
 * policy has a rule spelled the same, or a pattern over it.  Whether a pattern
 * covers another cannot be told: one with % is left out only where spelled the
 * same, while _ is taken for part of a name, as it nearly always is.
 */
static bool
reached_under(const Policies *p, const char *policy, const Rule *rule)
{
	const Rule *found;
	text	   *class_text;

	if (strchr(rule->error_class, '%') != NULL)
		return find_spelling(p, p->nrules, policy, rule->error_class) == NULL;
	class_text = cstring_to_text(rule->error_class);
	found = find_rule(p, policy, rule->error_class, class_text);
	pfree(class_text);
	return found == NULL;
}

/* The rules of one policy that can be reached under another, in search order. */
static void
put_rules(ReturnSetInfo *rsinfo, const Policies *p, const char *policy, const char *under)
{
	bool		own = strcmp(policy, under) == 0;

	for (int i = 0; i < p->nrules; i++)
	{
		if (p->rules[i]->pattern == NULL && strcmp(p->rules[i]->policy, policy) == 0 &&
			(own || reached_under(p, under, p->rules[i])))
			put_rule(rsinfo, p->rules[i]);
	}
	for (int i = 0; i < p->npatterns; i++)
	{
		if (strcmp(p->patterns[i]->policy, policy) == 0 &&
			(own || reached_under(p, under, p->patterns[i])))
			put_rule(rsinfo, p->patterns[i]);
	}
}

/*
 * holdfast.list_error_rules(policy_name text)
 *		returns setof holdfast.error_rule_entry
 *
 * The rules that apply under a policy: its own, then those of "default" that
 * it leaves in force; in each, spellings in byte order, then patterns in the
 * order in which they are tried.  Errors: 22004, 22023, and 42704 for an
 * unknown policy.
 */
PG_FUNCTION_INFO_V1(holdfast_list_error_rules);
Datum
holdfast_list_error_rules(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	char	   *name = text_to_cstring(hf_arg_text(fcinfo, 0, "policy_name", HF_MAX_NAME, true));
	const Policies *p;
	HfCall		call;

	hf_answer_begin(fcinfo, "ttttb");
	hf_begin(&call, "list_error_rules", false);
	hf_require_policy(name);
	p = policies();
	put_rules(rsinfo, p, name, name);
	if (strcmp(name, DEFAULT_POLICY) != 0)
		put_rules(rsinfo, p, DEFAULT_POLICY, name);
	hf_end(&call);
	return (Datum) 0;
}

/*
 * holdfast.is_built_in_rule(error_class text) returns boolean
 *
 * Is there a built-in rule of this class, whatever the tables say?  For
 * drop_error_rule().  IMMUTABLE STRICT.
 */
PG_FUNCTION_INFO_V1(holdfast_is_built_in_rule);
Datum
holdfast_is_built_in_rule(PG_FUNCTION_ARGS)
{
	char	   *wanted = text_to_cstring(PG_GETARG_TEXT_PP(0));

	for (size_t i = 0; i < lengthof(builtin_rules); i++)
	{
		for (const char *const *error_class = builtin_rules[i].classes; *error_class != NULL; error_class++)
		{
			if (strcmp(*error_class, wanted) == 0)
				PG_RETURN_BOOL(true);
		}
	}
	PG_RETURN_BOOL(false);
}
