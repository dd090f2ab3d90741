\i test/setup.sql
\i test/tools.sql
-- Rows of watched tables that stopped although their policy would have gone on: recover(), and auto_recover.
SELECT plan(49);

SELECT pg_temp.at('00:00:00') \g /dev/null
SELECT holdfast.define_retry_policy('p', '10 s', 2, jitter_window => '0', min_delay => '1 s'), holdfast.define_error_rule('p', 'Bad', 'terminal', 'none') \g /dev/null
CREATE TABLE public.loops (
	id			integer		PRIMARY KEY,
	status		text		NOT NULL DEFAULT 'pending',
	attempts	integer		NOT NULL DEFAULT 0,
	run_after	timestamptz,
	worker		text,
	error		text
);
SELECT holdfast.watch('public.loops', '{"id": "id", "status": "status", "attempt_number": "attempts", "run_after": "run_after", "worker_name": "worker",
	"exception_class": "error", "max_attempts": {"expr": "5"}, "retry_policy": "p", "succeeded": ["done"], "dead": ["given up"]}') \g /dev/null
CREATE FUNCTION pg_temp.attempt(id integer, error text, status text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	UPDATE public.loops l SET status = 'running', attempts = l.attempts + 1, worker = 'w', error = NULL WHERE l.id = attempt.id;
	PERFORM pg_temp.at(pg_temp.clock() + interval '1 s');
	UPDATE public.loops l SET status = attempt.status, error = attempt.error, run_after = pg_temp.clock() + interval '1 min' WHERE l.id = attempt.id;
END
$$;
CREATE FUNCTION pg_temp.row(id integer) RETURNS text LANGUAGE sql AS $$
	SELECT format('%s, attempt %s, in %s', l.status, l.attempts, l.run_after - pg_temp.clock()) FROM public.loops l WHERE l.id = $1
$$;
CREATE FUNCTION pg_temp.listed() RETURNS text LANGUAGE sql AS $$ SELECT string_agg(job_id, ', ' ORDER BY job_id) FROM holdfast.recoverable() $$;
CREATE FUNCTION pg_temp.maintained() RETURNS bigint LANGUAGE sql AS $$ SELECT done FROM holdfast.maintain() WHERE task = 'jobs recovered' $$;

-- 1 is given up at 1 of 5 by another limit, 2 by its class, 3 has used its budget up, 4 succeeded, 5 waits, 6 runs

INSERT INTO public.loops (id, attempts) VALUES (1, 0), (2, 0), (3, 4), (4, 0), (5, 0), (6, 0);
SELECT pg_temp.attempt(1, 'TimeoutError', 'given up'), pg_temp.attempt(2, 'Bad', 'given up'), pg_temp.attempt(3, 'TimeoutError', 'given up'),
	pg_temp.attempt(4, NULL, 'done'), pg_temp.attempt(5, 'TimeoutError', 'pending') \g /dev/null
UPDATE public.loops SET status = 'running', attempts = 1 WHERE id = 6;
SELECT results_eq($$SELECT job_id COLLATE "default", reason COLLATE "default" FROM holdfast.stop_reason WHERE source = 'public.loops' ORDER BY 1$$,
	$$VALUES ('1', 'premature_stop'), ('2', 'terminal_policy_failure'), ('3', 'terminal_policy_failure'), ('4', 'succeeded'), ('5', 'awaiting_retry'), ('6', 'in_flight')$$, 'the scene');
SELECT results_eq($$SELECT source COLLATE "default", job_id COLLATE "default", exception_class COLLATE "default", failures, max_attempts, automatic, how COLLATE "default" FROM holdfast.recoverable()$$,
	$$VALUES ('public.loops', '1', 'TimeoutError', 1, 5, false, 'SELECT * FROM holdfast.recover(''public.loops'', ''1'', ''...'')')$$, 'only what stopped with budget left is listed, and how to put it back');
SELECT is(pg_temp.maintained(), 0::bigint, 'maintain() leaves it alone');

-- recover

SELECT throws_ok(format('SELECT * FROM holdfast.recover(%s)', arguments), state, NULL, 'recover is refused: ' || arguments) FROM (VALUES
	($$NULL, '1', 'r'$$, '22004'), ($$'loops', NULL, 'r'$$, '22004'), ($$'loops', '1', NULL$$, '22004'), ($$'pg_class', '1', 'r'$$, '42704'),
	($$'loops', '2', 'r'$$, 'JQ004'), ($$'loops', '3', 'r'$$, 'JQ004'), ($$'loops', '4', 'r'$$, 'JQ004'), ($$'loops', '5', 'r'$$, 'JQ004'), ($$'loops', '6', 'r'$$, 'JQ004'), ($$'loops', '7', 'r'$$, 'JQ004')) v (arguments, state);
SELECT alike(pg_temp.refusal_detail($$SELECT holdfast.recover('loops', '3', 'r')$$), 'It is terminal_policy_failure: failure 5 of 5 %', 'and says why');
SELECT is(pg_temp.refusal_detail($$SELECT holdfast.recover('loops', '7', 'r')$$), 'No attempt of it is on record.', 'also of a row that is not known');
CREATE TEMPORARY TABLE violations AS SELECT count(*) AS n FROM holdfast.violation;
SELECT results_eq($$SELECT outcome, not_before - pg_temp.clock(), delay_ms FROM holdfast.recover('loops', '1', 'reviewer is back')$$,
	$$VALUES ('recovered', interval '10 s', 10000::bigint)$$, 'G3: an operator puts it back, at the policy''s delay');
SELECT is(pg_temp.row(1), 'pending, attempt 1, in 00:00:10', 'G4: by the mapping: status and run_after, and no more');
SELECT is((SELECT count(*) FROM holdfast.violation) - n, 0::bigint, 'which is no violation') FROM violations;
SELECT results_eq($$SELECT next_not_before - pg_temp.clock(), redriven FROM holdfast.attempt WHERE source = 'public.loops' AND job_id = '1'$$,
	$$VALUES (interval '10 s', true)$$, 'G7: the attempt before says when the next may begin, and that it was put back');
SELECT results_eq($$SELECT detail ->> 'id', detail ->> 'reason', detail ->> 'by', detail ->> 'retry_policy' FROM holdfast.finding WHERE kind = 'watch_recovered'$$,
	$$SELECT '1', 'reviewer is back', current_user::text COLLATE "default", 'p'$$, 'G7: a finding says by whom and why');
SELECT is(pg_temp.listed(), NULL, 'it is listed no more');
SELECT is(pg_temp.refusal($$SELECT holdfast.recover('loops', '1', 'again')$$), 'JQ004', 'nor can it be put back twice');
SELECT pg_temp.at('00:01:00') \g /dev/null
SELECT pg_temp.attempt(1, 'TimeoutError', 'given up') \g /dev/null
SELECT is(pg_temp.listed(), '1', 'another failure is another matter');
SELECT is((SELECT verdict COLLATE "default" FROM holdfast.attempt_pair WHERE source = 'public.loops' AND job_id_b = '1'), 'resumed', 'the pair is explained by the one that put it back');

-- auto_recover

SELECT holdfast.watch('public.loops', auto_recover => true) \g /dev/null
SELECT is((SELECT auto_recover FROM holdfast.watched), true, 'a watch with auto_recover');
SELECT is((SELECT mode COLLATE "default" FROM holdfast.watched), 'observe', 'its mode stays');
SELECT is((SELECT automatic FROM holdfast.recoverable()), true, 'the list says so');
SELECT is(pg_temp.maintained(), 1::bigint, 'maintain() puts it back');
SELECT is(pg_temp.row(1), 'pending, attempt 2, in 00:00:20', 'G3: at the policy''s delay for the second failure');
SELECT is((SELECT string_agg(status, ', ' ORDER BY id) FROM public.loops WHERE id > 1), 'given up, given up, done, pending, running', 'and leaves the others alone');
SELECT is(pg_temp.maintained(), 0::bigint, 'once');
UPDATE public.loops SET status = 'failed' WHERE id = 1;
UPDATE public.loops SET status = 'given up' WHERE id = 1;
SELECT is((SELECT reason COLLATE "default" FROM holdfast.stop_reason WHERE source = 'public.loops' AND job_id = '1'), 'premature_stop', 'somebody gives the same failure up again');
SELECT is(pg_temp.maintained(), 0::bigint, 'never twice for one failure, though somebody gave it up again');
SELECT is(pg_temp.row(1), 'given up, attempt 2, in 00:00:20', 'it stays');
UPDATE public.loops SET status = 'pending' WHERE id = 1;
SELECT pg_temp.at('00:02:00') \g /dev/null
SELECT pg_temp.attempt(1, 'TimeoutError', 'given up') \g /dev/null
SELECT is(pg_temp.maintained(), 1::bigint, 'the third failure');
SELECT pg_temp.at('00:03:00') \g /dev/null
SELECT pg_temp.attempt(1, 'TimeoutError', 'given up') \g /dev/null
SELECT is(pg_temp.maintained(), 1::bigint, 'the fourth');
SELECT pg_temp.at('00:05:00') \g /dev/null
SELECT pg_temp.attempt(1, 'TimeoutError', 'given up') \g /dev/null
SELECT is(pg_temp.maintained(), 0::bigint, 'G4: the fifth uses the budget up');
-- an attempt that is open while others come and go is not forgotten
SELECT pg_temp.at('00:15:00') \g /dev/null
SELECT is(pg_temp.maintained(), 0::bigint, 'ten minutes later: nothing');
UPDATE public.loops SET status = 'given up', error = 'TimeoutError' WHERE id = 6;
SELECT is(pg_temp.maintained(), 1::bigint, 'an attempt that ended long after it began is seen');
SELECT is(pg_temp.row(6), 'pending, attempt 1, in 00:00:10', 'and put back');
SELECT holdfast.watch('public.loops', auto_recover => false) \g /dev/null
SELECT pg_temp.at('00:16:00') \g /dev/null
SELECT pg_temp.attempt(6, 'TimeoutError', 'given up') \g /dev/null
SELECT is(pg_temp.maintained(), 0::bigint, 'switched off');

-- other types, and mappings that say too little

CREATE TYPE public.loop_state AS ENUM ('waiting', 'working', 'failed', 'done');
CREATE TABLE public.typed (id uuid PRIMARY KEY, state public.loop_state NOT NULL DEFAULT 'waiting', n integer NOT NULL DEFAULT 0, due timestamp);
SELECT holdfast.watch('public.typed', '{"id": "id", "status": "state", "attempt_number": "n", "run_after": "due", "pending": ["waiting"], "running": ["working"], "failed": [], "dead": ["failed"],
	"exception_class": {"expr": "CASE state WHEN ''failed'' THEN ''Boom'' END"}, "max_attempts": {"expr": "5"}}') \g /dev/null
INSERT INTO public.typed VALUES ('a0000000-0000-4000-8000-000000000001');
UPDATE public.typed SET state = 'working', n = 1;
UPDATE public.typed SET state = 'failed';
SELECT is((SELECT outcome FROM holdfast.recover('typed', 'a0000000-0000-4000-8000-000000000001', 'test')), 'recovered', 'an enum, a uuid, a timestamp without time zone');
SELECT is((SELECT state || ' ' || (due AT TIME ZONE 'UTC' = pg_temp.clock() + holdfast.backoff_delay('default', holdfast.job_seed(id::text), 1)) FROM public.typed), 'waiting true', 'G11: the delay is that of the seed');
CREATE TABLE public.derived (id integer PRIMARY KEY, locked timestamptz, n integer NOT NULL DEFAULT 0, due timestamptz, dead boolean NOT NULL DEFAULT false);
SELECT holdfast.watch('public.derived', '{"id": "id", "status": {"expr": "CASE WHEN locked IS NOT NULL THEN ''running'' WHEN dead THEN ''dead'' ELSE ''pending'' END"}, "attempt_number": "n",
	"run_after": "due", "max_attempts": {"expr": "5"}, "exception_class": {"expr": "''Boom''"}}') \g /dev/null
INSERT INTO public.derived VALUES (1);
UPDATE public.derived SET locked = pg_temp.clock(), n = 1;
UPDATE public.derived SET locked = NULL, dead = true;
SELECT is(pg_temp.refusal($$SELECT holdfast.recover('derived', '1', 'test')$$), '0A000', 'a status that is no column cannot be set');

-- triggers of a table are its owner's, also where upkeep fires them

CREATE ROLE regress_holdfast_tenant;
CREATE FUNCTION public.tenant() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	NEW.seen := format('%s, path %s', current_user, current_setting('search_path'));
	SET search_path = public;
	IF NEW.n > 1 AND NEW.status = 'pending' THEN
		RAISE EXCEPTION 'out of order';
	END IF;
	RETURN NEW;
END
$$;
CREATE TABLE public.tenants (id integer PRIMARY KEY, status text NOT NULL DEFAULT 'pending', n integer NOT NULL DEFAULT 0, due timestamptz, seen text);
ALTER TABLE public.tenants OWNER TO regress_holdfast_tenant;
SELECT holdfast.watch('public.tenants', '{"id": "id", "status": "status", "attempt_number": "n", "run_after": "due", "max_attempts": {"expr": "5"}, "exception_class": {"expr": "''Boom''"}}',
	auto_recover => true) \g /dev/null
INSERT INTO public.tenants VALUES (1), (2);
UPDATE public.tenants SET status = 'running', n = id;
UPDATE public.tenants SET status = 'dead';
CREATE TRIGGER tenant BEFORE UPDATE ON public.tenants FOR EACH ROW EXECUTE FUNCTION public.tenant();
SET client_min_messages = error;
SELECT is(pg_temp.maintained(), 1::bigint, 'a trigger that raises keeps its row from being put back, and nothing else');
RESET client_min_messages;
SELECT results_eq('SELECT id, status, seen FROM public.tenants ORDER BY id',
	$$VALUES (1, 'pending', 'regress_holdfast_tenant, path pg_catalog, pg_temp'), (2, 'dead', NULL)$$, 'G13: a trigger is fired as the table''s owner');
SELECT is(current_setting('search_path'), '"$user", public', 'and leaves no setting behind');
SELECT is(pg_temp.refusal($$SELECT holdfast.recover('tenants', '2', 'test')$$), 'P0001', 'by hand, its error is shown');
SELECT is((SELECT count(*) FROM holdfast.upkeep WHERE name = 'ledger' AND at = pg_temp.clock()), 1::bigint, 'maintain() came to its end');

SELECT * FROM finish();
ROLLBACK;
