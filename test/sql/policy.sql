\i test/setup.sql
-- Policies and error rules are data with bounds (G3, G4): what is not allowed is refused where it is defined, what is
-- built in can be overridden and hidden, and the order in which rules are tried can be read.
SELECT plan(109);

CREATE FUNCTION pg_temp.refusal(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail	text;
	hint	text;
BEGIN
	EXECUTE statement;
	RETURN 'not refused';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(E'\n', SQLSTATE || ': ' || SQLERRM, nullif(detail, ''), nullif(hint, ''));
END
$$;
-- a call of define_retry_policy with these arguments after the name and the base delay, and what came of it
CREATE FUNCTION pg_temp.define_with(arguments text) RETURNS text LANGUAGE sql AS $$
	SELECT pg_temp.refusal('SELECT holdfast.define_retry_policy(''probe'', ' || arguments || ')')
$$;
CREATE FUNCTION pg_temp.rules(policy_name text) RETURNS SETOF text LANGUAGE sql AS $$
	SELECT concat_ws(' ', r.policy_name, r.error_class, r.disposition, r.side_effect, CASE WHEN r.built_in THEN 'built in' END)
	FROM holdfast.list_error_rules($1) WITH ORDINALITY r (policy_name, error_class, disposition, side_effect, built_in, place) ORDER BY place
$$;

-- the built-in policy and its rules

SELECT results_eq('SELECT * FROM holdfast.list_retry_policies()',
	$$VALUES ('default', '30 s'::interval, 2::float8, '1 h'::interval, '30 s'::interval, '5 s'::interval, 5, true, 20, '24 h'::interval, '1 min'::interval, 20, true)$$,
	'the built-in policy');
SELECT is_empty('SELECT * FROM holdfast.retry_policy', 'is not a row, which a restore would collide with');
SELECT is_empty('SELECT * FROM holdfast.error_rule', 'nor are its rules');
SELECT ok(ARRAY(SELECT pg_temp.rules('default')) @> ARRAY[
	'default TimeoutError retry unknown built in',
	'default LeaseExpired retry unknown built in',
	'default RetryRequested retry unknown built in',
	'default ReleasedTooOften retry none built in',
	'default RateLimitError honor_reset none built in',
	'default ValidationError terminal none built in',
	'default DuplicateActionError suppress landed built in'], 'the rules of the design');
SELECT ok(ARRAY(SELECT pg_temp.rules('default')) @> ARRAY[
	'default ReadTimeout retry unknown built in', 'default ConnectionResetError retry unknown built in',
	'default ConnectionRefusedError retry none built in', 'default gaierror retry none built in',
	'default ETIMEDOUT retry unknown built in', 'default ECONNRESET retry unknown built in',
	'default ECONNREFUSED retry none built in', 'default ENOTFOUND retry none built in',
	'default context.DeadlineExceeded retry unknown built in', 'default *net.DNSError retry none built in',
	'default java.net.SocketTimeoutException retry unknown built in', 'default java.net.ConnectException retry none built in',
	'default IllegalArgumentException terminal unknown built in',
	'default Net::ReadTimeout retry unknown built in', 'default Net::OpenTimeout retry none built in',
	'default Errno::ECONNREFUSED retry none built in', 'default ArgumentError terminal unknown built in',
	'default TooManyRequestsError honor_reset none built in'], 'and of Python, Node, Go, Java and Ruby');
SELECT is_empty($$SELECT * FROM holdfast.list_error_rules('default') WHERE error_class ~* '(read|write|response|server).?time|reset|abort|pipe|eof' AND side_effect <> 'unknown'$$,
	'G6: a class that can be raised after the request was sent never says that nothing happened');
SELECT is_empty($$SELECT * FROM holdfast.list_error_rules('default') WHERE error_class IN ('TypeError', 'ConnectError', 'ConnectException', 'Exception', 'Error', 'StandardError')$$,
	'G14: names that mean different things have no rule');
SELECT is((SELECT count(*) FROM holdfast.list_error_rules('default')), (SELECT count(DISTINCT error_class) FROM holdfast.list_error_rules('default')),
	'no class has two rules');
SELECT is_empty('SELECT * FROM holdfast.list_error_rules(''default'') WHERE NOT built_in', 'all of them are marked as built in');

-- define_retry_policy

SELECT lives_ok($$SELECT holdfast.define_retry_policy('patient', '2 s')$$, 'a policy needs a name and a base delay');
SELECT results_eq($$SELECT * FROM holdfast.list_retry_policies() WHERE policy_name = 'patient'$$,
	$$VALUES ('patient', '2 s'::interval, 2::float8, '1 h'::interval, '30 s'::interval, '5 s'::interval, 5, true, 20, '24 h'::interval, '1 min'::interval, 20, false)$$,
	'the defaults are those of the design');
SELECT lives_ok($$SELECT holdfast.define_retry_policy(policy_name => 'patient', base_delay => '1 day', backoff_rate => 1.5, max_delay => '30 days', jitter_window => '1 h',
	min_delay => '10 s', max_attempts => 7, lost_lease_counts => false, max_lost => 3, max_reset => '2 days', reconcile_delay => '10 s', reconcile_max => 9)$$,
	'every argument has a name; defining a policy again replaces it');
SELECT results_eq($$SELECT * FROM holdfast.list_retry_policies()$$,
	$$VALUES
		('default', '30 s'::interval, 2::float8, '1 h'::interval, '30 s'::interval, '5 s'::interval, 5, true, 20, '24 h'::interval, '1 min'::interval, 20, true),
		('patient', '24 h', 1.5, '720 h', '1 h', '10 s', 7, false, 3, '48 h', '10 s', 9, false)$$,
	'policies are listed by name, with the figures that apply');
SELECT is((SELECT array_agg(parameter ORDER BY place) FROM unnest((SELECT proargnames FROM pg_proc WHERE oid = 'holdfast.define_retry_policy'::regproc)) WITH ORDINALITY u (parameter, place)),
	ARRAY['policy_name', 'base_delay', 'backoff_rate', 'max_delay', 'jitter_window', 'min_delay', 'max_attempts', 'lost_lease_counts', 'max_lost', 'max_reset', 'reconcile_delay', 'reconcile_max'],
	'the parameters are those of the columns, in their order');

SELECT is(pg_temp.define_with(arguments), 'not refused', 'allowed: ' || arguments) FROM unnest(ARRAY[
	$$'1 ms', backoff_rate => 1, jitter_window => '0', min_delay => '1 ms', reconcile_delay => '1 ms', max_reset => '1 ms'$$,
	$$'1 ms', backoff_rate => 1.01$$,
	$$'1 ms', backoff_rate => 1000$$,
	$$'3650 days', max_delay => '3650 days', jitter_window => '3650 days', min_delay => '3650 days', reconcile_delay => '3650 days', max_reset => '3650 days'$$,
	$$'1 s', max_delay => '1 s'$$,
	$$'1 s', max_attempts => 1, max_lost => 1, reconcile_max => 1$$,
	$$'1 s', max_attempts => 2147483647, max_lost => 2147483647, reconcile_max => 2147483647$$]) arguments;

SELECT is(split_part(pg_temp.define_with(arguments), E'\n', 1), '22023: argument ' || message, 'refused: ' || arguments) FROM (VALUES
	($$'0'$$,												'"base_delay" must be between 1 ms and 315360000000 ms'),
	($$'-1 s'$$,											'"base_delay" must be between 1 ms and 315360000000 ms'),
	($$'0.9 ms'$$,											'"base_delay" must be between 1 ms and 315360000000 ms'),
	($$'3651 days'$$,										'"base_delay" must be between 1 ms and 315360000000 ms'),
	($$'1 month'$$,											'"base_delay" must not contain months or years'),
	($$'2 h'$$,												'"max_delay" must be between 7200000 ms and 315360000000 ms'),
	($$'10 s', max_delay => '9 s'$$,						'"max_delay" must be between 10000 ms and 315360000000 ms'),
	($$'10 s', max_delay => '1 year'$$,						'"max_delay" must not contain months or years'),
	($$'10 s', max_delay => '3650 days 1 ms'$$,				'"max_delay" must be between 10000 ms and 315360000000 ms'),
	($$'1 s', jitter_window => '-1 ms'$$,					'"jitter_window" must be between 0 ms and 315360000000 ms'),
	($$'1 s', jitter_window => '3651 days'$$,				'"jitter_window" must be between 0 ms and 315360000000 ms'),
	($$'1 s', min_delay => '0'$$,							'"min_delay" must be between 1 ms and 315360000000 ms'),
	($$'1 s', reconcile_delay => '4999 ms'$$,				'"reconcile_delay" must be between 5000 ms and 315360000000 ms'),
	($$'1 s', min_delay => '2 min'$$,						'"reconcile_delay" must be between 120000 ms and 315360000000 ms'),
	($$'1 s', max_reset => '0'$$,							'"max_reset" must be between 1 ms and 315360000000 ms'),
	($$'1 s', backoff_rate => 0.99$$,						'"backoff_rate" must be 1, or between 1.01 and 1000'),
	($$'1 s', backoff_rate => 1.009$$,						'"backoff_rate" must be 1, or between 1.01 and 1000'),
	($$'1 s', backoff_rate => 1000.1$$,						'"backoff_rate" must be 1, or between 1.01 and 1000'),
	($$'1 s', backoff_rate => -2$$,							'"backoff_rate" must be 1, or between 1.01 and 1000'),
	($$'1 s', backoff_rate => 0$$,							'"backoff_rate" must be 1, or between 1.01 and 1000'),
	($$'1 s', backoff_rate => 'NaN'$$,						'"backoff_rate" must be 1, or between 1.01 and 1000'),
	($$'1 s', backoff_rate => 'infinity'$$,					'"backoff_rate" must be 1, or between 1.01 and 1000'),
	($$'1 s', backoff_rate => '-infinity'$$,				'"backoff_rate" must be 1, or between 1.01 and 1000'),
	($$'1 s', max_attempts => 0$$,							'"max_attempts" must be between 1 and 2147483647'),
	($$'1 s', max_attempts => -1$$,							'"max_attempts" must be between 1 and 2147483647'),
	($$'1 s', max_lost => 0$$,								'"max_lost" must be between 1 and 2147483647'),
	($$'1 s', reconcile_max => 0$$,							'"reconcile_max" must be between 1 and 2147483647')
) v (arguments, message);
SELECT is(pg_temp.define_with(arguments), '22004: argument "' || name || '" must not be null' || coalesce(E'\n' || hint, ''), name || ' cannot be null') FROM (VALUES
	('NULL',							'base_delay', NULL),
	($$'1 s', max_delay => NULL$$,		'max_delay', NULL),
	($$'1 s', jitter_window => NULL$$,	'jitter_window', NULL),
	($$'1 s', min_delay => NULL$$,		'min_delay', NULL),
	($$'1 s', max_reset => NULL$$,		'max_reset', NULL),
	($$'1 s', reconcile_delay => NULL$$, 'reconcile_delay', NULL),
	($$'1 s', backoff_rate => NULL$$,	'backoff_rate', 'Leave the argument out to get its default.'),
	($$'1 s', max_attempts => NULL$$,	'max_attempts', 'Leave the argument out to get its default.'),
	($$'1 s', lost_lease_counts => NULL$$, 'lost_lease_counts', 'Leave the argument out to get its default.'),
	($$'1 s', max_lost => NULL$$,		'max_lost', 'Leave the argument out to get its default.'),
	($$'1 s', reconcile_max => NULL$$,	'reconcile_max', 'Leave the argument out to get its default.')
) v (arguments, name, hint);
SELECT is(pg_temp.define_with($$'1 s', backoff_rate => 0.5$$),
	E'22023: argument "backoff_rate" must be 1, or between 1.01 and 1000\nThe value given is 0.5.\nUse 1 for a constant delay, 2 to double it after every failure.',
	'a refusal has figures and a way out');
SELECT is(pg_temp.refusal($$SELECT holdfast.define_retry_policy(NULL, '1 s')$$), '22004: argument "policy_name" must not be null', 'a policy has a name');
SELECT is(pg_temp.refusal($$SELECT holdfast.define_retry_policy('', '1 s')$$), '22023: argument "policy_name" must not be empty', 'of at least a character');
SELECT is(pg_temp.refusal($$SELECT holdfast.define_retry_policy(repeat('x', 201), '1 s')$$),
	E'22023: argument "policy_name" must not be longer than 200 bytes\nThe value given has 201 bytes.\nShorten it, or use a digest of it.', 'and at most 200 bytes');

-- overriding what is built in

SELECT lives_ok($$SELECT holdfast.define_retry_policy('default', '7 s', jitter_window => '0')$$, 'the built-in policy can be overridden');
SELECT is(holdfast.backoff_delay('default', 1, 1), '7 s'::interval, 'and is');
SELECT is((SELECT built_in FROM holdfast.list_retry_policies() WHERE policy_name = 'default'), false, 'which the list says');
SELECT lives_ok($$SELECT holdfast.define_error_rule('default', 'ValidationError', 'retry')$$, 'a built-in rule can be overridden');
SELECT ok(ARRAY(SELECT pg_temp.rules('default')) @> ARRAY['default ValidationError retry unknown'], 'and is, with side effect unknown unless it is said');
SELECT lives_ok($$SELECT holdfast.drop_retry_policy('default')$$, 'the override can be dropped');
SELECT is(holdfast.backoff_delay('default', 1, 1), '32.465 s'::interval, 'and the built-in policy is back');
SELECT ok(ARRAY(SELECT pg_temp.rules('default')) @> ARRAY['default ValidationError retry unknown'], 'with the rules that were given to it, since it never went away');
SELECT is(pg_temp.refusal($$SELECT holdfast.drop_retry_policy('default')$$),
	E'42704: retry policy "default" has not been overridden\nThe built-in policy applies, and cannot be dropped.\nOverride it with holdfast.define_retry_policy(''default'', ...).',
	'the built-in policy itself cannot be dropped');
SELECT lives_ok($$SELECT holdfast.drop_error_rule('default', 'ValidationError')$$, 'a built-in rule can be dropped');
SELECT is_empty($$SELECT * FROM holdfast.list_error_rules('default') WHERE error_class = 'ValidationError'$$, 'and is gone');
SELECT results_eq($$SELECT error_class, hidden FROM holdfast.error_rule WHERE policy_name = 'default'$$, $$VALUES ('ValidationError' COLLATE "C", true)$$,
	'by a row that hides it, so that a dump keeps the decision');
SELECT is(pg_temp.refusal($$SELECT holdfast.drop_error_rule('default', 'ValidationError')$$),
	E'42704: retry policy "default" has no rule for error class "ValidationError"\nSee holdfast.list_error_rules(), which also shows the rules that come from another policy.',
	'it cannot be dropped twice');
SELECT lives_ok($$SELECT holdfast.define_error_rule('default', 'ValidationError', 'terminal', 'none')$$, 'it can be defined again');
SELECT ok(ARRAY(SELECT pg_temp.rules('default')) @> ARRAY['default ValidationError terminal none'], 'and is back');

-- the order of rules

SELECT lives_ok($$
	SELECT holdfast.define_error_rule('patient', 'Timeout%', 'terminal', 'none');
	SELECT holdfast.define_error_rule('patient', '%Error', 'terminal', 'unknown');
	SELECT holdfast.define_error_rule('patient', 'Rate%Error', 'honor_reset', 'none');
	SELECT holdfast.define_error_rule('patient', 'Bate%Error', 'honor_reset', 'none');
	SELECT holdfast.define_error_rule('patient', 'rate_limit', 'honor_reset', 'none');
	SELECT holdfast.define_error_rule('patient', 'App\Timeout', 'retry', 'none');
	SELECT holdfast.define_error_rule('patient', 'Timeout', 'retry', 'unknown');
	SELECT holdfast.define_error_rule('patient', 'App\\%', 'retry', 'unknown');
	SELECT holdfast.define_error_rule('default', 'LeaseExp%', 'retry', 'unknown')$$, 'rules of a policy: spellings, patterns, escapes');
SELECT results_eq($$SELECT rule FROM pg_temp.rules('patient') WITH ORDINALITY r (rule, place) WHERE rule LIKE 'patient %' ORDER BY place$$, ARRAY[
	'patient App\Timeout retry none',
	'patient Timeout retry unknown',
	'patient Bate%Error honor_reset none',
	'patient Rate%Error honor_reset none',
	'patient rate_limit honor_reset none',
	'patient Timeout% terminal none',
	'patient %Error terminal unknown',
	'patient App\\% retry unknown'], 'spelled-out classes come first, then patterns, longest first, ties in byte order');
SELECT is_empty($$SELECT * FROM holdfast.list_error_rules('patient') WHERE policy_name = 'default' AND (error_class LIKE 'Timeout%' OR error_class LIKE '%Error')$$,
	'rules of default that the policy covers, by spelling or by a pattern, are left out');
SELECT ok(ARRAY(SELECT pg_temp.rules('patient')) @> ARRAY['default LeaseExpired retry unknown built in', 'default LeaseExp% retry unknown', 'default ECONNREFUSED retry none built in'],
	'the others apply');
SELECT is((SELECT array_agg(DISTINCT policy_name) FROM holdfast.list_error_rules('default')), ARRAY['default'], 'default has no rules of other policies');
SELECT lives_ok($$SELECT holdfast.define_error_rule('patient', 'Timeout', 'suppress', 'landed')$$, 'a rule can be defined again');
SELECT ok(ARRAY(SELECT pg_temp.rules('patient')) @> ARRAY['patient Timeout suppress landed'], 'which replaces it');
SELECT lives_ok($$SELECT holdfast.drop_error_rule('patient', 'Timeout')$$, 'a rule can be dropped');
SELECT is_empty($$SELECT * FROM holdfast.error_rule WHERE policy_name = 'patient' AND error_class = 'Timeout'$$, 'and leaves nothing behind');

SELECT is(pg_temp.refusal(statement), refusal, statement) FROM (VALUES
	($$SELECT holdfast.define_error_rule('nowhere', 'X', 'retry')$$,
		E'42704: retry policy "nowhere" does not exist\nSee holdfast.list_retry_policies(), or make it with holdfast.define_retry_policy().'),
	($$SELECT holdfast.define_error_rule(NULL, 'X', 'retry')$$, '22004: argument "policy_name" must not be null'),
	($$SELECT holdfast.define_error_rule('patient', NULL, 'retry')$$, '22004: argument "error_class" must not be null'),
	($$SELECT holdfast.define_error_rule('patient', '', 'retry')$$, '22023: argument "error_class" must not be empty'),
	($$SELECT holdfast.define_error_rule('patient', 'X', NULL)$$, E'22004: argument "disposition" must not be null\nIt is one of "retry", "terminal", "honor_reset", "suppress".'),
	($$SELECT holdfast.define_error_rule('patient', 'X', 'Retry')$$, E'22023: argument "disposition" cannot be "Retry"\nIt is one of "retry", "terminal", "honor_reset", "suppress".'),
	($$SELECT holdfast.define_error_rule('patient', 'X', 'retry', NULL)$$, E'22004: argument "side_effect" must not be null\nIt is one of "unknown", "none", "landed".'),
	($$SELECT holdfast.define_error_rule('patient', 'X', 'retry', '')$$, E'22023: argument "side_effect" cannot be ""\nIt is one of "unknown", "none", "landed".'),
	($$SELECT holdfast.define_error_rule('patient', 'X%\', 'retry')$$,
		E'22023: argument "error_class" must not end with the escape character\nIn the pattern X%\\ the last backslash escapes nothing.\nWrite a backslash that is meant as such twice.'),
	($$SELECT holdfast.drop_error_rule('patient', 'ECONNREFUSED')$$,
		E'42704: retry policy "patient" has no rule for error class "ECONNREFUSED"\nSee holdfast.list_error_rules(), which also shows the rules that come from another policy.'),
	($$SELECT * FROM holdfast.list_error_rules('nowhere')$$,
		E'42704: retry policy "nowhere" does not exist\nSee holdfast.list_retry_policies(), or make it with holdfast.define_retry_policy().'),
	($$SELECT * FROM holdfast.list_error_rules(NULL)$$, '22004: argument "policy_name" must not be null')
) v (statement, refusal);
SELECT is(pg_temp.refusal(statement), 'not refused', statement) FROM unnest(ARRAY[
	$$SELECT holdfast.define_error_rule('patient', 'X%\\', 'retry')$$,
	$$SELECT holdfast.define_error_rule('patient', 'no wildcard \', 'retry')$$]) statement;

-- what a hand-written row holds is never an error in fail()

INSERT INTO holdfast.error_rule VALUES ('patient', 'Broken%\', 'terminal', 'none');
SELECT lives_ok($$SELECT * FROM holdfast.list_error_rules('patient')$$, 'a pattern that LIKE would refuse stops nothing');
UPDATE holdfast.retry_policy SET min_delay = '-1 s', reconcile_delay = '0', max_delay = '200 years', max_reset = '1 month' WHERE policy_name = 'patient';
SELECT results_eq($$SELECT min_delay, reconcile_delay, max_delay, max_reset FROM holdfast.list_retry_policies() WHERE policy_name = 'patient'$$,
	$$VALUES ('1 ms'::interval, '1 ms'::interval, '87600 h'::interval, '720 h'::interval)$$,
	'G3: durations out of bounds count as the nearest bound, never as no delay');

-- drop_retry_policy

SELECT is(pg_temp.refusal($$SELECT holdfast.drop_retry_policy('nowhere')$$), E'42704: retry policy "nowhere" does not exist\nSee holdfast.list_retry_policies().', 'only what is there can be dropped');
DO $$ BEGIN PERFORM holdfast.create_queue('revenue', retry_policy => 'patient'); PERFORM holdfast.create_queue('Mail', retry_policy => 'patient'); END $$;
SELECT is(pg_temp.refusal($$SELECT holdfast.drop_retry_policy('patient')$$),
	E'2BP01: retry policy "patient" is in use\nIt is the policy of 2 queue(s): "Mail", revenue.\nGive the queues another one with holdfast.alter_queue(queue_name, retry_policy => ...).',
	'a policy that queues use stays, and the queues are named');
SELECT isnt_empty($$SELECT * FROM holdfast.error_rule WHERE policy_name = 'patient'$$, 'with its rules');
DO $$ BEGIN PERFORM holdfast.alter_queue('revenue', retry_policy => 'default'); PERFORM holdfast.drop_queue('Mail'); END $$;
SELECT lives_ok($$SELECT holdfast.drop_retry_policy('patient')$$, 'it goes when they have another');
SELECT is_empty($$SELECT * FROM holdfast.error_rule WHERE policy_name = 'patient'$$, 'and takes its rules along');
SELECT throws_ok($$SELECT holdfast.backoff_delay('patient', 1, 1)$$, '42704', 'retry policy "patient" does not exist', 'it is gone at once');
SELECT * FROM finish();
ROLLBACK;
