/* Retry policies and what each error class means. */

CREATE TABLE holdfast.retry_policy (
	policy_name			text		COLLATE "C" NOT NULL PRIMARY KEY CHECK (policy_name <> ''),
	base_delay			interval	NOT NULL,
	backoff_rate		float8		NOT NULL,
	max_delay			interval	NOT NULL,
	jitter_window		interval	NOT NULL,
	min_delay			interval	NOT NULL,
	max_attempts		integer		NOT NULL CHECK (max_attempts > 0),
	lost_lease_counts	boolean		NOT NULL,
	max_lost			integer		NOT NULL CHECK (max_lost > 0),
	max_reset			interval	NOT NULL,
	reconcile_delay		interval	NOT NULL,
	reconcile_max		integer		NOT NULL CHECK (reconcile_max > 0)
);
COMMENT ON TABLE holdfast.retry_policy IS 'how long to wait after a failure, and when to stop; a row named default overrides the built-in one';
SELECT pg_catalog.pg_extension_config_dump('holdfast.retry_policy', '');

CREATE TABLE holdfast.error_rule (
	policy_name			text		COLLATE "C" NOT NULL,
	error_class			text		COLLATE "C" NOT NULL CHECK (error_class <> ''),
	disposition			text		COLLATE "C" NOT NULL CHECK (disposition IN ('retry', 'terminal', 'honor_reset', 'suppress')),
	side_effect			text		COLLATE "C" NOT NULL CHECK (side_effect IN ('unknown', 'none', 'landed')),
	hidden				boolean		NOT NULL DEFAULT false,
	PRIMARY KEY (policy_name, error_class)
);
COMMENT ON TABLE holdfast.error_rule IS 'what an error class, exact or a LIKE pattern, means under a policy';
COMMENT ON COLUMN holdfast.error_rule.hidden IS 'the row hides the built-in rule of this class instead of stating one';
SELECT pg_catalog.pg_extension_config_dump('holdfast.error_rule', '');

CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON holdfast.retry_policy
	FOR EACH STATEMENT EXECUTE FUNCTION holdfast.config_changed();
ALTER TABLE holdfast.retry_policy ENABLE ALWAYS TRIGGER config_changed;
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON holdfast.error_rule
	FOR EACH STATEMENT EXECUTE FUNCTION holdfast.config_changed();
ALTER TABLE holdfast.error_rule ENABLE ALWAYS TRIGGER config_changed;

CREATE TYPE holdfast.retry_policy_entry AS (
	policy_name			text,
	base_delay			interval,
	backoff_rate		float8,
	max_delay			interval,
	jitter_window		interval,
	min_delay			interval,
	max_attempts		integer,
	lost_lease_counts	boolean,
	max_lost			integer,
	max_reset			interval,
	reconcile_delay		interval,
	reconcile_max		integer,
	built_in			boolean
);
COMMENT ON TYPE holdfast.retry_policy_entry IS 'a retry policy with the figures that apply; see list_retry_policies()';

CREATE TYPE holdfast.error_rule_entry AS (
	policy_name			text,
	error_class			text,
	disposition			text,
	side_effect			text,
	built_in			boolean
);
COMMENT ON TYPE holdfast.error_rule_entry IS 'what an error class means under a policy; see list_error_rules()';

CREATE FUNCTION holdfast.list_retry_policies() RETURNS SETOF holdfast.retry_policy_entry
LANGUAGE C STABLE ROWS 10 AS 'MODULE_PATHNAME', 'holdfast_list_retry_policies';
COMMENT ON FUNCTION holdfast.list_retry_policies() IS 'the retry policies by name, the built-in one among them';

CREATE FUNCTION holdfast.list_error_rules(policy_name text) RETURNS SETOF holdfast.error_rule_entry
LANGUAGE C STABLE ROWS 200 AS 'MODULE_PATHNAME', 'holdfast_list_error_rules';
COMMENT ON FUNCTION holdfast.list_error_rules(text) IS
	'the error rules that apply under a policy: its own, then those of "default" that it leaves in force, in the order in which they are tried';

CREATE FUNCTION holdfast.is_built_in_rule(error_class text) RETURNS boolean
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'holdfast_is_built_in_rule';
COMMENT ON FUNCTION holdfast.is_built_in_rule(text) IS 'internal: is there a built-in rule of this class, overridden or not';

CREATE FUNCTION holdfast.define_retry_policy(
	policy_name			text,
	base_delay			interval,
	backoff_rate		float8		DEFAULT 2,
	max_delay			interval	DEFAULT '1 h',
	jitter_window		interval	DEFAULT '30 s',
	min_delay			interval	DEFAULT '5 s',
	max_attempts		integer		DEFAULT 5,
	lost_lease_counts	boolean		DEFAULT true,
	max_lost			integer		DEFAULT 20,
	max_reset			interval	DEFAULT '24 h',
	reconcile_delay		interval	DEFAULT '1 min',
	reconcile_max		integer		DEFAULT 20
) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
#variable_conflict use_column
DECLARE
	ten_years	CONSTANT bigint := 315360000000;
	base_ms		bigint;
	min_ms		bigint;
	bad_name	text;
	bad_value	text;
	bad_hint	text;
BEGIN
	PERFORM holdfast.checked_name(define_retry_policy.policy_name, 'policy_name');
	base_ms := holdfast.interval_ms(define_retry_policy.base_delay, 'base_delay', 1, ten_years);
	PERFORM holdfast.interval_ms(define_retry_policy.max_delay, 'max_delay', base_ms, ten_years);
	PERFORM holdfast.interval_ms(define_retry_policy.jitter_window, 'jitter_window', 0, ten_years);
	min_ms := holdfast.interval_ms(define_retry_policy.min_delay, 'min_delay', 1, ten_years);
	PERFORM holdfast.interval_ms(define_retry_policy.max_reset, 'max_reset', 1, ten_years);
	PERFORM holdfast.interval_ms(define_retry_policy.reconcile_delay, 'reconcile_delay', min_ms, ten_years);

	bad_name := CASE
		WHEN define_retry_policy.backoff_rate IS NULL THEN 'backoff_rate'
		WHEN define_retry_policy.max_attempts IS NULL THEN 'max_attempts'
		WHEN define_retry_policy.lost_lease_counts IS NULL THEN 'lost_lease_counts'
		WHEN define_retry_policy.max_lost IS NULL THEN 'max_lost'
		WHEN define_retry_policy.reconcile_max IS NULL THEN 'reconcile_max'
	END;
	IF bad_name IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = '22004',
			MESSAGE = format('argument "%s" must not be null', bad_name),
			HINT = 'Leave the argument out to get its default.';
	END IF;

	-- a NaN is above every number here
	IF define_retry_policy.backoff_rate <> 1 AND define_retry_policy.backoff_rate NOT BETWEEN 1.01 AND 1000 THEN
		RAISE EXCEPTION USING ERRCODE = '22023',
			MESSAGE = 'argument "backoff_rate" must be 1, or between 1.01 and 1000',
			DETAIL = format('The value given is %s.', define_retry_policy.backoff_rate),
			HINT = 'Use 1 for a constant delay, 2 to double it after every failure.';
	END IF;

	SELECT a.name, a.value::text, a.hint INTO bad_name, bad_value, bad_hint
	FROM (VALUES
		('max_attempts', define_retry_policy.max_attempts, 'Use 1 for an action that must never be tried again.'),
		('max_lost', define_retry_policy.max_lost, 'Use 1 to end a job with its first lost lease.'),
		('reconcile_max', define_retry_policy.reconcile_max, 'Use 1 to look for an unknown effect once only.')
	) a (name, value, hint)
	WHERE a.value < 1 LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION USING ERRCODE = '22023',
			MESSAGE = format('argument "%s" must be between 1 and 2147483647', bad_name),
			DETAIL = format('The value given is %s.', bad_value),
			HINT = bad_hint;
	END IF;

	INSERT INTO holdfast.retry_policy AS p (policy_name, base_delay, backoff_rate, max_delay, jitter_window, min_delay,
		max_attempts, lost_lease_counts, max_lost, max_reset, reconcile_delay, reconcile_max)
	VALUES (define_retry_policy.policy_name, define_retry_policy.base_delay, define_retry_policy.backoff_rate,
		define_retry_policy.max_delay, define_retry_policy.jitter_window, define_retry_policy.min_delay,
		define_retry_policy.max_attempts, define_retry_policy.lost_lease_counts, define_retry_policy.max_lost,
		define_retry_policy.max_reset, define_retry_policy.reconcile_delay, define_retry_policy.reconcile_max)
	ON CONFLICT (policy_name) DO UPDATE SET
		base_delay = excluded.base_delay,
		backoff_rate = excluded.backoff_rate,
		max_delay = excluded.max_delay,
		jitter_window = excluded.jitter_window,
		min_delay = excluded.min_delay,
		max_attempts = excluded.max_attempts,
		lost_lease_counts = excluded.lost_lease_counts,
		max_lost = excluded.max_lost,
		max_reset = excluded.max_reset,
		reconcile_delay = excluded.reconcile_delay,
		reconcile_max = excluded.reconcile_max;
END
$function$;
COMMENT ON FUNCTION holdfast.define_retry_policy(text, interval, float8, interval, interval, interval, integer, boolean, integer, interval, interval, integer) IS
	'makes a retry policy, or replaces the one of this name; "default" overrides the built-in one';

CREATE FUNCTION holdfast.define_error_rule(policy_name text, error_class text, disposition text, side_effect text DEFAULT 'unknown') RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
#variable_conflict use_column
DECLARE
	dispositions	CONSTANT text[] := ARRAY['retry', 'terminal', 'honor_reset', 'suppress'];
	side_effects	CONSTANT text[] := ARRAY['unknown', 'none', 'landed'];
	escape			CONSTANT text := chr(92);
	bad_name		text;
	bad_value		text;
BEGIN
	PERFORM holdfast.checked_name(define_error_rule.policy_name, 'policy_name');
	PERFORM holdfast.checked_name(define_error_rule.error_class, 'error_class');

	-- a pattern that LIKE cannot finish: an odd number of backslashes at its end
	IF (strpos(define_error_rule.error_class, '%') > 0 OR strpos(define_error_rule.error_class, '_') > 0)
	   AND (length(define_error_rule.error_class) - length(rtrim(define_error_rule.error_class, escape))) % 2 = 1 THEN
		RAISE EXCEPTION USING ERRCODE = '22023',
			MESSAGE = 'argument "error_class" must not end with the escape character',
			DETAIL = format('In the pattern %s the last backslash escapes nothing.', define_error_rule.error_class),
			HINT = 'Write a backslash that is meant as such twice.';
	END IF;
	bad_name := CASE
		WHEN define_error_rule.disposition IS NULL OR define_error_rule.disposition <> ALL (dispositions) THEN 'disposition'
		WHEN define_error_rule.side_effect IS NULL OR define_error_rule.side_effect <> ALL (side_effects) THEN 'side_effect'
	END;
	IF bad_name IS NOT NULL THEN
		bad_value := CASE bad_name WHEN 'disposition' THEN define_error_rule.disposition ELSE define_error_rule.side_effect END;
		RAISE EXCEPTION USING
			ERRCODE = CASE WHEN bad_value IS NULL THEN '22004' ELSE '22023' END,
			MESSAGE = CASE WHEN bad_value IS NULL THEN format('argument "%s" must not be null', bad_name)
				ELSE format('argument "%s" cannot be "%s"', bad_name, bad_value) END,
			HINT = format('It is one of "%s".',
				array_to_string(CASE bad_name WHEN 'disposition' THEN dispositions ELSE side_effects END, '", "'));
	END IF;

	-- the lock keeps the policy from being dropped until this rule is there to be dropped with it
	PERFORM FROM holdfast.retry_policy p WHERE p.policy_name = define_error_rule.policy_name FOR KEY SHARE;
	IF NOT FOUND AND define_error_rule.policy_name <> 'default' THEN
		RAISE EXCEPTION USING ERRCODE = '42704',
			MESSAGE = format('retry policy "%s" does not exist', define_error_rule.policy_name),
			HINT = 'See holdfast.list_retry_policies(), or make it with holdfast.define_retry_policy().';
	END IF;

	INSERT INTO holdfast.error_rule AS r (policy_name, error_class, disposition, side_effect, hidden)
	VALUES (define_error_rule.policy_name, define_error_rule.error_class, define_error_rule.disposition,
		define_error_rule.side_effect, false)
	ON CONFLICT (policy_name, error_class) DO UPDATE SET
		disposition = excluded.disposition,
		side_effect = excluded.side_effect,
		hidden = excluded.hidden;
END
$function$;
COMMENT ON FUNCTION holdfast.define_error_rule(text, text, text, text) IS
	'says what an error class, exact or a LIKE pattern, means under a policy; replaces the rule of this class';

CREATE FUNCTION holdfast.drop_retry_policy(policy_name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
#variable_conflict use_column
DECLARE
	users		text;
	user_count	bigint;
BEGIN
	PERFORM holdfast.checked_name(drop_retry_policy.policy_name, 'policy_name');

	-- first the row, which waits for whoever is giving it to a queue; then the queues are looked at
	DELETE FROM holdfast.retry_policy p WHERE p.policy_name = drop_retry_policy.policy_name;
	IF NOT FOUND THEN
		IF drop_retry_policy.policy_name = 'default' THEN
			RAISE EXCEPTION USING ERRCODE = '42704',
				MESSAGE = 'retry policy "default" has not been overridden',
				DETAIL = 'The built-in policy applies, and cannot be dropped.',
				HINT = 'Override it with holdfast.define_retry_policy(''default'', ...).';
		END IF;
		RAISE EXCEPTION USING ERRCODE = '42704',
			MESSAGE = format('retry policy "%s" does not exist', drop_retry_policy.policy_name),
			HINT = 'See holdfast.list_retry_policies().';
	END IF;

	-- "default" lives on, built in, and so do the rules that were given to it
	IF drop_retry_policy.policy_name = 'default' THEN
		RETURN;
	END IF;

	SELECT string_agg(quote_ident(q.queue_name), ', ' ORDER BY q.queue_name) FILTER (WHERE q.place <= 10), count(*)
	INTO users, user_count
	FROM (SELECT q.queue_name, row_number() OVER (ORDER BY q.queue_name) AS place
		  FROM holdfast.queue q WHERE q.retry_policy = drop_retry_policy.policy_name) q;
	IF user_count > 0 THEN
		RAISE EXCEPTION USING ERRCODE = '2BP01',
			MESSAGE = format('retry policy "%s" is in use', drop_retry_policy.policy_name),
			DETAIL = format('It is the policy of %s queue(s): %s%s.', user_count, users,
				CASE WHEN user_count > 10 THEN ', ...' ELSE '' END),
			HINT = 'Give the queues another one with holdfast.alter_queue(queue_name, retry_policy => ...).';
	END IF;

	DELETE FROM holdfast.error_rule r WHERE r.policy_name = drop_retry_policy.policy_name;
END
$function$;
COMMENT ON FUNCTION holdfast.drop_retry_policy(text) IS
	'drops a retry policy that no queue uses, and its error rules; of "default" only the row that overrides the built-in one';

CREATE FUNCTION holdfast.drop_error_rule(policy_name text, error_class text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
#variable_conflict use_column
DECLARE
	dropped		boolean;
BEGIN
	PERFORM holdfast.checked_name(drop_error_rule.policy_name, 'policy_name');
	PERFORM holdfast.checked_name(drop_error_rule.error_class, 'error_class');

	IF drop_error_rule.policy_name = 'default' AND holdfast.is_built_in_rule(drop_error_rule.error_class) THEN
		INSERT INTO holdfast.error_rule AS r (policy_name, error_class, disposition, side_effect, hidden)
		VALUES ('default', drop_error_rule.error_class, 'retry', 'unknown', true)
		ON CONFLICT (policy_name, error_class) DO UPDATE SET
			disposition = excluded.disposition,
			side_effect = excluded.side_effect,
			hidden = true
		WHERE NOT r.hidden;
	ELSE
		DELETE FROM holdfast.error_rule r
		WHERE r.policy_name = drop_error_rule.policy_name AND r.error_class = drop_error_rule.error_class;
	END IF;
	dropped := FOUND;

	IF NOT dropped THEN
		RAISE EXCEPTION USING ERRCODE = '42704',
			MESSAGE = format('retry policy "%s" has no rule for error class "%s"',
				drop_error_rule.policy_name, drop_error_rule.error_class),
			HINT = 'See holdfast.list_error_rules(), which also shows the rules that come from another policy.';
	END IF;
END
$function$;
COMMENT ON FUNCTION holdfast.drop_error_rule(text, text) IS
	'drops the rule of an error class; a built-in one is hidden, until the class is defined again';
