# What others can prepare, hold or call to get at holdfast: planted schemas and
# objects, names that shadow, locks held for ever, functions that look at rows
# before a view does, functions called as they are not meant to be; and
# databases in other encodings, in which keys must be the same.

use strict;
use warnings;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('hostile');
$node->init(extra => [ '--encoding=UTF8', '--locale=C' ]);
$node->start;

# status, standard output, standard error of one session
sub run_as
{
	my ($database, $role, $sql) = @_;
	my ($rc, $out, $err) = $node->psql($database, $sql, extra_params => [ '-U', $role, '-v', 'VERBOSITY=verbose' ]);
	return ($rc, $out, $err);
}
sub super { return $node->safe_psql('hostile', shift) }
sub answer { my ($role, $sql) = @_; my (undef, $out, $err) = run_as('hostile', $role, $sql); return $err =~ /(?:ERROR|FATAL):\s+(\w{5})/ ? $1 : $out }
my $me = $node->safe_psql('postgres', 'SELECT current_user');
$node->safe_psql('postgres', "CREATE ROLE mallory LOGIN; CREATE ROLE reader_a LOGIN; CREATE ROLE producer_a LOGIN; CREATE ROLE worker_a LOGIN; CREATE ROLE table_owner LOGIN");

# D9: installed where another was first: it fails closed, and leaves nothing
for my $case (
	[ '42501', 'a schema of another role', 'CREATE SCHEMA holdfast AUTHORIZATION mallory' ],
	[ '42501', 'a schema of another role, with a function of the name of ours', 'CREATE SCHEMA holdfast AUTHORIZATION mallory; CREATE FUNCTION holdfast.complete(text, text) RETURNS text LANGUAGE sql AS $$ SELECT $1 $$' ],
	[ '55000', 'a schema in which another role may create', 'CREATE SCHEMA holdfast; GRANT CREATE ON SCHEMA holdfast TO mallory' ],
	[ '55000', 'a schema in which everybody may create', 'CREATE SCHEMA holdfast; GRANT CREATE ON SCHEMA holdfast TO PUBLIC' ],
	map { [ '55000', "a schema with $_->[0] in it", "CREATE SCHEMA holdfast; $_->[1]" ] }
		[ 'a function', 'CREATE FUNCTION holdfast.enqueue(text) RETURNS text LANGUAGE sql AS $$ SELECT $1 $$' ],
		[ 'a table', 'CREATE TABLE holdfast.planted (a integer)' ],
		[ 'a type', 'CREATE DOMAIN holdfast.text AS pg_catalog.text' ],
		[ 'an operator', 'CREATE OPERATOR holdfast.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = pg_catalog.int8ne)' ],
		[ 'a collation', 'CREATE COLLATION holdfast."C" FROM pg_catalog."POSIX"' ],
		[ 'a conversion', 'CREATE CONVERSION holdfast.planted FOR \'LATIN1\' TO \'UTF8\' FROM iso8859_1_to_utf8' ])
{
	my ($expected, $what, $prepare) = @$case;
	$node->safe_psql('postgres', 'DROP DATABASE IF EXISTS planted');
	$node->safe_psql('postgres', 'CREATE DATABASE planted');
	$node->safe_psql('planted', $prepare);
	my (undef, undef, $err) = run_as('planted', $me, 'CREATE EXTENSION holdfast');
	like($err, qr/ERROR:\s+$expected: schema "holdfast" /, "D9: $what: $expected");
	is($node->safe_psql('planted', "SELECT count(*) FROM pg_event_trigger") . $node->safe_psql('planted', "SELECT count(*) FROM pg_extension WHERE extname = 'holdfast'"), '00', '... and nothing is left');
}

# D9: by a role whose name is no identifier.  Folded, it would be another's: mallory's, who has made the schema.
{
	$node->safe_psql('postgres', qq(CREATE ROLE "Mallory" SUPERUSER LOGIN; CREATE ROLE "x""';\n--" SUPERUSER LOGIN; CREATE ROLE "W;""'\n--" LOGIN));
	for my $role ('Mallory', "x\"';\n--")
	{
		(my $shown = $role) =~ s/\n/\\n/;
		$node->safe_psql('postgres', 'DROP DATABASE planted');
		$node->safe_psql('postgres', 'CREATE DATABASE planted');
		$node->safe_psql('planted', 'CREATE SCHEMA holdfast AUTHORIZATION mallory');
		like((run_as('planted', $role, 'CREATE EXTENSION holdfast'))[2], qr/ERROR:\s+42501: schema "holdfast" /, "D9: a schema of mallory's, installed by $shown: 42501");
		$node->safe_psql('planted', 'DROP SCHEMA holdfast');
		my (undef, $out, $err) = run_as('planted', $role, q(CREATE EXTENSION holdfast; SELECT holdfast.create_queue('q'); SELECT outcome FROM holdfast.enqueue('q', 'act', 's'); ALTER TABLE holdfast.job DISABLE TRIGGER guard_before));
		is("$out $err", "\ncreated ", "... in a database that has none it installs, and works");
		my $worker = qq(W;"'\n--);
		is($node->safe_psql('planted', qq(SELECT holdfast.grant_queue('q', x, 'worker') FROM (VALUES (E'W;"''\\n--')) v (x); SELECT valid FROM holdfast.grants)), "\nt", '... a queue is granted to a role of such a name');
		is((run_as('planted', $worker, q(SELECT subject FROM holdfast.claim('q', 'w'))))[1], 's', '... which claims from it');
		is($node->safe_psql('planted', qq(SELECT detail->>'by' FROM holdfast.finding WHERE kind = 'evidence_ddl')), $role, '... DDL is on record as the first one\'s');
		is($node->safe_psql('planted', 'SELECT count(*) FROM holdfast.verify()'), '0', '... and verify() reports nothing');
		$node->safe_psql('planted', qq(SELECT holdfast.revoke_queue('q', x, 'worker') FROM (VALUES (E'W;"''\\n--')) v (x)));
	}
}

# D8, D9: names that shadow.  A schema "trap" has every function that holdfast's SQL names, with the same arguments, and
# operators for the usual types; it comes first in the path, of the session that installs too, and pg_temp has tables of our names.
$node->safe_psql('postgres', 'CREATE DATABASE hostile');
super(q(
	CREATE SCHEMA trap;
	CREATE FUNCTION trap.spring() RETURNS integer LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trapped' USING ERRCODE = 'TRAP1'; END $$;
	DO $$
	DECLARE
		o	record;
	BEGIN
		FOR o IN SELECT op.oprname, op.oprleft::regtype AS l, op.oprright::regtype AS r, op.oprresult::regtype AS result, row_number() OVER () AS n FROM pg_operator op
			WHERE op.oprnamespace = 'pg_catalog'::regnamespace AND op.oprleft IN ('text'::regtype, 'bigint'::regtype, 'integer'::regtype, 'uuid'::regtype, 'timestamptz'::regtype, 'interval'::regtype, 'jsonb'::regtype, 'oid'::regtype, 'name'::regtype, 'boolean'::regtype)
			  AND op.oprright IN ('text'::regtype, 'bigint'::regtype, 'integer'::regtype, 'uuid'::regtype, 'timestamptz'::regtype, 'interval'::regtype, 'jsonb'::regtype, 'oid'::regtype, 'name'::regtype, 'boolean'::regtype, 'text[]'::regtype)
		LOOP
			EXECUTE format('CREATE FUNCTION trap.op%s(%s, %s) RETURNS %s LANGUAGE plpgsql AS %L', o.n, o.l, o.r, o.result, 'BEGIN PERFORM trap.spring(); END');
			EXECUTE format('CREATE OPERATOR trap.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = trap.op%s)', o.oprname, o.l, o.r, o.n);
		END LOOP;
	END
	$$;
));
my $path = 'SET search_path = trap, public, pg_catalog; ';
my (undef, undef, $err) = run_as('hostile', $me, $path . 'CREATE TEMPORARY TABLE queue (a integer); CREATE TEMPORARY TABLE job (a integer); CREATE EXTENSION holdfast');
is($err, '', 'D9: it is installed by a session whose path leads elsewhere');
super(q(
	DO $$
	DECLARE
		f	record;
	BEGIN
		FOR f IN SELECT DISTINCT p.proname, p.oid, pg_get_function_arguments(p.oid) AS arguments, pg_get_function_result(p.oid) AS result
			FROM pg_proc p
			WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f' AND p.prorettype NOT IN ('trigger'::regtype, 'internal'::regtype, 'event_trigger'::regtype)
			  AND NOT EXISTS (SELECT FROM unnest(p.proargtypes) t JOIN pg_type y ON y.oid = t WHERE y.typtype = 'p' AND y.typname NOT IN ('anyelement', 'anyarray'))
			  AND p.proallargtypes IS NULL AND NOT p.proretset AND p.prorettype NOT IN (SELECT y.oid FROM pg_type y WHERE y.typtype = 'p' AND y.typname <> 'void')
			  AND EXISTS (SELECT FROM pg_proc h WHERE h.pronamespace = 'holdfast'::regnamespace AND h.prosrc ~ ('\m' || p.proname || '\M'))
		LOOP
			EXECUTE format('CREATE FUNCTION trap.%I(%s) RETURNS %s LANGUAGE plpgsql AS %L', f.proname, f.arguments, f.result, 'BEGIN PERFORM trap.spring(); END');
		END LOOP;
	END
	$$;
));
cmp_ok(super("SELECT count(*) FROM pg_proc WHERE pronamespace = 'trap'::regnamespace AND proname !~ '^op[0-9]'"), '>', 40, 'D8: there are traps of the names that are used');
is(answer($me, $path . "SELECT 'a'::text = 'a'::text"), 'TRAP1', 'D8: an operator that is not qualified falls into one');
is(answer($me, $path . "SELECT format('a')"), 'TRAP1', 'D8: a function, too');
my $shadows = $path . join('', map { "CREATE TEMPORARY TABLE $_ (a integer); " } qw(job dead_job queue queue_grant ledger event event_overflow finding setting stream retry_policy error_rule attempt_record watch definition upkeep));
super(q(SELECT holdfast.create_queue('a'), holdfast.create_queue('b'), holdfast.define_stream('a', 's');
	SELECT holdfast.enqueue(q, 'act', q || '-' || n, '{"secret": 1}', stream => CASE WHEN q = 'a' THEN 's' END) FROM unnest(ARRAY['a', 'b']) q, generate_series(1, 9) n;
	CREATE TABLE held AS SELECT * FROM holdfast.claim('a', 'w', 5);
	INSERT INTO held SELECT * FROM holdfast.claim('b', 'w', 5);
	SELECT f.decision FROM held, holdfast.fail(job_id, lease_id, 'Boom', 'secret of ' || subject) f WHERE subject ~ '-[123]';
	SELECT holdfast.complete(job_id, lease_id) FROM held WHERE subject ~ '-4';
	CREATE TABLE own_queue (id bigint, status text, attempts integer, run_after timestamptz)));
my @calls = (
	"create_queue('c')", "alter_queue('c', lease => '120 s')", "pause_queue('c')", "resume_queue('c')", "grant_queue('c', 'worker_a', 'worker')", "revoke_queue('c', 'worker_a', 'worker')", "list_queues()",
	"define_retry_policy('p', '1 s')", "define_error_rule('p', 'X', 'retry')", "list_error_rules('p')", "drop_error_rule('p', 'X')", "drop_retry_policy('p')", "define_stream('c', 't')", "drop_queue('c')",
	"maintain()", "metrics('a')", "metrics_all()", "verify()", "regrant()", "post_restore(1)", "explain(1)", "timeline(subject => 'a-1')", "report_html('a-1')", "recoverable()", "verdicts('2020-01-01', '2040-01-01')",
	"import_attempts('log', '[{\"job_id\": \"1\", \"subject\": \"s\", \"action_key\": \"a\", \"started_at\": \"2026-01-01\"}]')", "import_attempts_from('log', 'public.held'::regclass, '{\"started_at\": {\"expr\": \"lease_expires_at\"}, \"job_id\": {\"expr\": \"job_id::text\"}}')", "drop_import('log')",
	"watch('public.own_queue', '{\"id\": \"id\", \"status\": \"status\", \"pending\": [\"p\"], \"running\": [\"r\"], \"succeeded\": [\"s\"], \"failed\": [\"f\"], \"attempt_number\": \"attempts\", \"run_after\": \"run_after\", \"action_key\": {\"expr\": \"''x''\"}, \"subject\": {\"expr\": \"id::text\"}}', 'correct', true)",
	"maintain()", "unwatch('public.own_queue')", "unwatch_all()", "purge_queue('b')", "redrive_queue('a', 'r')", "cancel(6)", "set_attempt_retention('400 days')", "attempt_retention()", "permit_ddl('r')", "accept_definitions('r')",
	"set_evidence_mode('observe', 'r')", "enqueue('a', 'act', 'new')", "claim('a', 'w')", "next_wakeup('a')", "clock()");
for my $call (@calls)
{
	my (undef, undef, $said) = run_as('hostile', $me, $shadows . "SELECT * FROM holdfast.$call");
	is($said, '', "D8: $call is not led astray");
}
for my $view (split /\n/, super(q(SELECT relname FROM pg_class WHERE relnamespace = 'holdfast'::regnamespace AND relkind = 'v' ORDER BY 1)))
{
	my (undef, undef, $said) = run_as('hostile', $me, $shadows . "TABLE holdfast.$view");
	is($said, '', "D8: nor is the view $view");
}

# G1, G8: a clock of one's own would be the others' leases.  A setting planted before the library is loaded is discarded.
super(q(SELECT holdfast.create_queue('leased'), holdfast.grant_queue('leased', 'worker_a', 'worker');
	SELECT outcome FROM holdfast.enqueue('leased', 'act', 'mine');
	CREATE TABLE mine AS SELECT job_id, lease_id FROM holdfast.claim('leased', 'w')));
for my $plant ([ "SET holdfast.clock = '2040-01-01T00:00:00Z';" ], [ "SELECT set_config('holdfast.clock', '2040-01-01T00:00:00Z', false) \\gset\n" ], [ '', '-c holdfast.clock=2040-01-01T00:00:00Z' ])
{
	my ($before, $options) = @$plant;
	my (undef, $out, $err) = do { local $ENV{PGOPTIONS} = $options // ''; run_as('hostile', 'worker_a', "$before SELECT count(*) FROM holdfast.claim('leased', 'thief')") };
	is($out, '0', 'G1: no lease is taken by ' . ($options // $before =~ s/\s*$//r));
	like($err, qr/WARNING:\s+42501: permission denied to set parameter "holdfast.clock"/, '... of which nothing is left');
	is(super('SELECT holdfast.validate_lease(job_id, lease_id) FROM mine'), 't', '... and it holds');
}
is(answer('worker_a', "ALTER ROLE worker_a SET holdfast.clock = '2040-01-01T00:00:00Z'"), '42501', 'G1: nor can a role keep one');
super(q(SELECT outcome FROM holdfast.enqueue('leased', 'act', 'theirs')));
is(answer('worker_a', q(SET holdfast.single_transaction = on; BEGIN; SELECT job_id, lease_id FROM holdfast.claim('leased', 'w') \gset
	SELECT holdfast.complete(:job_id, :'lease_id'))), 'JQ008', 'G7: nor is a claim settled in its transaction by a setting planted so');

# G13: a function that looks at rows, and costs nothing, does not see those of another queue before the view leaves them out
super(q(SELECT holdfast.grant_queue('a', 'reader_a', 'reader'), holdfast.grant_queue('a', 'producer_a', 'producer'), holdfast.grant_queue('a', 'worker_a', 'worker')));
my $look = q(CREATE FUNCTION pg_temp.look(t text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$ BEGIN RAISE NOTICE 'seen %', t; RETURN true; END $$; );
for my $view (split /\n/, super(q(SELECT object_name FROM holdfast.kind_privilege WHERE kind = 'reader' AND object_type = 'view' ORDER BY 1)))
{
	my (undef, undef, $said) = run_as('hostile', 'reader_a', $look . "SELECT FROM holdfast.$view v WHERE pg_temp.look(v::text)");
	unlike($said, qr/[(," ]b-\d|ERROR/, "G13: no row of another queue is seen through $view");
}
like((run_as('hostile', 'reader_a', $look . 'SELECT FROM holdfast.attempt v WHERE pg_temp.look(v::text)'))[2], qr/seen .*a-1/, '... which shows those of its own');

# pairs() is a window function of the views, which a reader may call by hand
is(answer('reader_a', 'SELECT holdfast.pairs(' . join(', ', ('NULL') x 27) . ') OVER ()'), '22004', 'called with nothing, pairs() refuses');
is(answer('reader_a', q(SELECT sum(cardinality(p)) > 0 FROM (SELECT holdfast.pairs('native', 'j' || n % 7, nullif(n % 9, 3), nullif('l' || n % 4, 'l3'),
	CASE n % 11 WHEN 0 THEN 'infinity' WHEN 1 THEN '-infinity' ELSE '2030-01-01'::timestamptz + hashint4(n) * interval '1 us' END, CASE n % 5 WHEN 0 THEN NULL WHEN 1 THEN '-infinity' ELSE '2030-01-01'::timestamptz + hashint4(-n) * interval '1 us' END,
	'infinity', nullif('k' || n % 3, 'k0'), repeat('s', n), -1, 'no such', 'no such', '-infinity', 'no such', -9223372036854775808, n % 2 = 0, 'w', 'm', -1, '\x00', 'e', NULL, -1, n, n % 3 - 1, 'infinity', n % 4 > 0)
	OVER (PARTITION BY n % 3 ORDER BY hashint4(n)) AS p FROM generate_series(1, 3000) n) x)), 't', 'in any order, with times that are not finite, it answers');

# Whatever lock another role may hold, upkeep and imports go on.
my $cells = super(q(SELECT string_agg(format('SELECT pg_advisory_lock(%s, %s), pg_advisory_lock(%s)', c.oid, k, (c.oid::bigint << 32) + k), '; ') FROM pg_class c, unnest(ARRAY[0, hashtext('log')]) k WHERE c.oid IN ('holdfast.upkeep'::regclass, 'holdfast.attempt_record'::regclass, 'holdfast.stream'::regclass)));
my ($in, $held, $trouble) = ("$cells; SELECT 'held';\n", '', '');
my $session = IPC::Run::start([ 'psql', '-XAtq', '-U', 'mallory', '-d', $node->connstr('hostile') ], '<', \$in, '>', \$held, '2>', \$trouble, IPC::Run::timeout(60));
$session->pump until $held =~ /held/ || $trouble;
is($trouble, '', 'D: a role without a grant holds advisory locks');
is(answer($me, "SET lock_timeout = '5 s'; SELECT count(*) FROM holdfast.maintain()"), '9', '... maintain() does all its tasks');
is(answer($me, q(SET lock_timeout = '5 s'; SELECT added FROM holdfast.import_attempts('log', '[{"job_id": "1", "subject": "s", "action_key": "a", "started_at": "2026-01-01"}]'))), '1', '... an import imports');
$in .= "\\q\n";
$session->finish;
for my $role (qw(mallory reader_a producer_a worker_a))
{
	for my $mode ('ROW SHARE', 'SHARE', 'ACCESS EXCLUSIVE')
	{
		is(super(sprintf(q(SELECT count(*) FROM pg_class c WHERE c.relnamespace = 'holdfast'::regnamespace AND c.relkind IN ('r', 'p') AND has_table_privilege('%s', c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')), $role)), '0', "G13: $role may lock no table") if $mode eq 'SHARE';
		is(answer($role, "BEGIN; LOCK TABLE holdfast.attempt IN $mode MODE"), '42501', "G13: nor, through a view, $mode");
	}
}

# B2: an expired day that somebody reads is dropped another time; nobody waits for that
super("SELECT holdfast.make_partition('2020-01-01')");
($in, $held, $trouble) = ("BEGIN; SELECT count(*) FROM holdfast.event_20200101; SELECT 'held';\n", '', '');
$session = IPC::Run::start([ 'psql', '-XAtq', '-U', $me, '-d', $node->connstr('hostile') ], '<', \$in, '>', \$held, '2>', \$trouble, IPC::Run::timeout(60));
$session->pump until $held =~ /held/ || $trouble;
my $upkeep = $node->background_psql('hostile');
$upkeep->query_safe(q(SET lock_timeout = '5 s'; BEGIN));
is($upkeep->query_safe(q(SELECT done FROM holdfast.maintain() WHERE task = 'partitions dropped')), '0', 'B2: while a transaction reads an expired day, maintain() does not wait for it');
is(answer('producer_a', q(SET lock_timeout = '5 s'; SELECT outcome FROM holdfast.enqueue('a', 'act', 'meanwhile'))), 'created', '... nor does a producer for maintain(), though its transaction is open');
is(answer('worker_a', q(SET lock_timeout = '5 s'; SELECT count(*) FROM holdfast.claim('leased', 'w'))), '1', '... nor a worker, who writes an event');
$upkeep->query_safe('COMMIT');
$upkeep->quit;
$in .= "\\q\n";
$session->finish;
is(answer($me, q(SELECT done FROM holdfast.maintain() WHERE task = 'partitions dropped')), '1', '... and it is dropped the next time');

# A11: a lease counts from the claim, not from the begin of its transaction
is(answer($me, q(BEGIN; SELECT FROM pg_sleep(0.2); SELECT min(c.lease_expires_at) >= now() + interval '90.2 s' FROM holdfast.claim('a', 'late') c; COMMIT)), "t", 'A11: a lease counts from the clock of its claim');

# A15, A16: in ordinary use, within a savepoint too, no row of holdfast's is locked by two at a time
my $multixacts = q(CHECKPOINT; SELECT next_multixact_id FROM pg_control_checkpoint());
my $before = super($multixacts);
super(q(SELECT holdfast.create_queue('many'); SELECT count(*) FROM generate_series(1, 200) n, holdfast.enqueue('many', 'act', n::text)));
my $work = q(SELECT job_id, lease_id FROM holdfast.claim('many', 'w') \gset
SELECT outcome FROM holdfast.heartbeat(:job_id, :'lease_id');
BEGIN;
SAVEPOINT a;
SELECT holdfast.assert_lease(:job_id, :'lease_id');
SELECT state FROM holdfast.ledger_transition(:job_id, :'lease_id', 'started', 'mail');
SELECT state FROM holdfast.ledger_transition(:job_id, :'lease_id', 'committed', 'mail');
SELECT holdfast.complete(:job_id, :'lease_id');
COMMIT;
) x 5;
my @inputs = ($work) x 6;
my $output = '';
my @workers = map { IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('hostile') ], '<', \$_, '>', \$output, IPC::Run::timeout(60)) } @inputs;
$_->finish for @workers;
is(super(q(SELECT count(*) FROM holdfast.event_all WHERE kind = 'action_attempt_succeeded' AND queue = (SELECT queue_id FROM holdfast.queue WHERE queue_name = 'many'))), '30', 'six workers have each done five jobs');
# in more savepoints than a transaction's entry in shared memory has room for, too, and beside others who do the same
super(q(SELECT count(*) FROM generate_series(201, 500) n, holdfast.enqueue('many', 'act', n::text); CREATE TABLE held_many AS SELECT row_number() OVER () AS n, c.* FROM holdfast.claim('many', 'w', 300) c));
@inputs = map { my $first = 100 * $_; 'BEGIN; ' . join('', map { "SAVEPOINT s; SELECT h.outcome, holdfast.assert_lease(job_id, lease_id), holdfast.complete(job_id, lease_id) FROM held_many, holdfast.heartbeat(job_id, lease_id) h WHERE n = $first + $_;\n" } 1 .. 100) . 'COMMIT;' } 0 .. 2;
@workers = map { IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('hostile') ], '<', \$_, '>', \$output, IPC::Run::timeout(60)) } @inputs;
$_->finish for @workers;
is(super(q(SELECT count(*) FROM held_many h JOIN holdfast.event_all e USING (job_id, lease_id) WHERE e.kind = 'action_attempt_succeeded')), '300', 'three workers have each done 100 jobs in 100 savepoints of one transaction');
is(super($multixacts), $before, 'A15, A16: and no multixact was made');

# C9: a day is 24 hours, on every day
is(answer($me, q(SET timezone = 'Europe/Berlin'; SET holdfast.clock = '2026-10-24 12:00:00+02'; SELECT outcome FROM holdfast.enqueue('many', 'act', 'autumn', delay => '1 day'); SELECT extract(epoch FROM run_after - enqueued_at)::integer FROM holdfast.job WHERE subject = 'autumn')), "created\n86400", 'C9: a day over the end of summer time is 24 hours');

# B7: what is too large or too deep is refused, and the backend goes on
is(answer('producer_a', q(SELECT holdfast.enqueue('a', 'act', 'large', to_jsonb(repeat('x', 70000000))))), '54000', 'B7: a payload of 70 MB');
is(answer('producer_a', q(SELECT holdfast.enqueue('a', 'act', 'deep', (repeat('[', 1000000) || repeat(']', 1000000))::jsonb))), '54001', 'B7: a payload a million deep');
is(answer('producer_a', q(SELECT outcome FROM holdfast.enqueue('a', 'act', 'many members', (SELECT jsonb_object_agg(n, repeat('[', 40)::text) FROM generate_series(1, 100000) n)))), 'created', 'B7: one with a hundred thousand members');

# C14: what is no text is refused when it is enqueued, and not when a worker reads it
my $jobs = super('SELECT count(*) FROM holdfast.job');
for my $case ([ '22P05', q('{"a": "\u0000"}') ], [ '22P02', q('"\ud83d"') ], [ '22P02', q('["\ude42"]') ], [ '22P02', q('{"\ud83d\ud83d": 1}') ], [ '42883', q('{}'::json) ])
{
	my ($state, $payload) = @$case;
	is(answer('producer_a', "SELECT holdfast.enqueue('a', 'act', 'no text', $payload)"), $state, "C14: a payload $payload");
	is(answer('producer_a', "SELECT holdfast.enqueue_batch('a', " . ($payload =~ s/'(.*)'/'[{"action_key": "act", "subject": "no text", "payload": $1}]'/r) . ')'), $state, '... also in a batch');
}
is(answer('producer_a', q(SELECT holdfast.enqueue('a', 'act', E'\xff'))), '22021', 'C14: bytes that are no text');
is(super('SELECT count(*) FROM holdfast.job'), $jobs, '... and there is no job of it');

# Whoever owns a partitioned table that is watched, and has no right in holdfast, makes partitions of it.
super(q(GRANT CREATE ON SCHEMA public TO table_owner;
	CREATE TABLE parted (id bigint, status text, attempts integer, run_after timestamptz) PARTITION BY RANGE (id); ALTER TABLE parted OWNER TO table_owner;
	SELECT holdfast.watch('parted', '{"id": "id", "status": "status", "pending": ["p"], "running": ["r"], "succeeded": ["s"], "failed": ["f"], "attempt_number": "attempts", "run_after": "run_after", "action_key": {"expr": "''x''"}, "subject": {"expr": "id::text"}}', 'correct')));
is(answer('table_owner', q(CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (1) TO (100); INSERT INTO parted VALUES (1, 'r', 1, now()); SELECT 'made')), 'made', 'the owner of a watched table makes a partition');
is(super(q(SELECT count(*) FROM pg_trigger WHERE tgrelid = 'parted_1'::regclass AND tgenabled = 'A' AND NOT tgisinternal)) . super(q(SELECT count(*) FROM holdfast.attempt_record WHERE source = 'public.parted')), '31', '... with its triggers, which record');
is(answer('table_owner', 'CREATE TABLE other (id bigint); CREATE TRIGGER t AFTER INSERT ON other FOR EACH ROW EXECUTE FUNCTION holdfast.watch_row()'), '42501', '... and cannot use them elsewhere by name');
is(super(q(SELECT count(*) FROM holdfast.verify())), '0', '... verify() reports nothing');
super(q(CREATE TABLE victim (LIKE parted); SELECT holdfast.watch('victim', (SELECT mapping FROM holdfast.watch WHERE source = 'public.parted')); SELECT holdfast.grant_queue('a', 'table_owner', 'worker')));
my $victim = super(q(SELECT watch_id FROM holdfast.watch WHERE source = 'public.victim'));
is(answer('table_owner', "CREATE TABLE another (LIKE parted); CREATE TRIGGER t AFTER INSERT OR UPDATE OR DELETE ON another FOR EACH ROW EXECUTE FUNCTION holdfast.watch_row($victim); INSERT INTO another VALUES (1, 'r', 1, now())"), '42501',
	'... nor, with a grant on a queue, by their names: evidence of another table is not made');
is(super(q(SELECT count(*) FROM holdfast.attempt_record WHERE source = 'public.victim')), '0', '... and there is none');
super(q(SELECT holdfast.unwatch('victim'), holdfast.revoke_queue('a', 'table_owner', 'worker')));
super(q(SELECT holdfast.unwatch('parted')));
is(super(q(SELECT count(*) FROM pg_proc p, aclexplode(p.proacl) a WHERE p.proname ~ '^watch_' AND p.pronamespace = 'holdfast'::regnamespace AND a.grantee = 'table_owner'::regrole)), '0', 'unwatched, it has no right left');

# G11: keys and digests are the same in databases of other encodings; what cannot be converted is refused
my $keys = q(SELECT holdfast.intent_key('zo' || x, x, NULL, 1), holdfast.key_of(x), encode(holdfast.payload_digest(to_jsonb(x)), 'hex'), holdfast.job_seed(x), holdfast.effect_key('5a1879b7-62c2-8974-ae6a-00b2feadbc6a', x), holdfast.error_digest(x, x || ' 17'), holdfast.normalized_message(x || ' 17')
	FROM (SELECT convert_from('%s', 'UTF8')) v (x));
for my $case ([ 'LATIN1', '\xc3ab' ], [ 'LATIN9', '\xe282ac' ], [ 'WIN1252', '\xe282ac' ], [ 'EUC_JP', '\xe697a5e69cac' ], [ 'KOI8R', '\xd0b6' ])
{
	my ($encoding, $bytes) = @$case;
	my $database = lc "in_$encoding";
	$node->safe_psql('postgres', "CREATE DATABASE $database ENCODING '$encoding' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'");
	my $utf8 = "SET client_encoding = 'UTF8'; ";
	$node->safe_psql($database, 'CREATE EXTENSION holdfast');
	is($node->safe_psql($database, $utf8 . sprintf($keys, $bytes)), super($utf8 . sprintf($keys, $bytes)), "G11: the same keys and digests in $encoding");
	is($node->safe_psql($database, sprintf(q(SELECT holdfast.create_queue(x) FROM (SELECT convert_from('%1$s', 'UTF8')) v (x); SELECT j.outcome FROM (SELECT convert_from('%1$s', 'UTF8')) v (x), holdfast.enqueue(x, x, x, to_jsonb(x)) j;
		CREATE TABLE held AS SELECT c.* FROM (SELECT convert_from('%1$s', 'UTF8')) v (x), holdfast.claim(x, x) c;
		SELECT f.decision FROM held h, holdfast.fail(h.job_id, h.lease_id, h.subject, 'x' || repeat(h.subject, 9000)) f;
		SELECT CASE WHEN message = left('x' || repeat(subject, 9000), length(message)) AND octet_length(message) IN (8191, 8192) THEN 'cut' ELSE format('%%s bytes: %%s', octet_length(message), left(message, 9)) END, length(holdfast.report_html(subject)) > 1000 FROM holdfast.attempt; SELECT count(*) FROM holdfast.verify()), $bytes)), "\ncreated\nreconcile\ncut|t\n0", "... and a job runs through, its message cut between letters");
}
$node->safe_psql('postgres', "CREATE DATABASE in_sql_ascii ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'");
like((run_as('in_sql_ascii', $me, 'CREATE EXTENSION holdfast'))[2], qr/ERROR:\s+0A000: encoding "SQL_ASCII" cannot be converted/, 'SQL_ASCII, which says nothing of its bytes, is refused');

# C5: where integers end, the number of an attempt stays
super(q(SELECT holdfast.create_queue('worn', side_effects => false); SELECT FROM holdfast.enqueue('worn', 'act', 'worn');
	BEGIN; SELECT holdfast.permit_ddl('a test plants a row'); ALTER TABLE holdfast.job DISABLE TRIGGER guard_before, DISABLE TRIGGER guard_after;
	UPDATE holdfast.job SET attempt_number = 2147483646 WHERE subject = 'worn'; ALTER TABLE holdfast.job ENABLE ALWAYS TRIGGER guard_before, ENABLE ALWAYS TRIGGER guard_after; COMMIT));
is(answer($me, q(SELECT attempt_number FROM holdfast.claim('worn', 'w'))) . ' ' . answer($me, q(SELECT f.attempt_number FROM holdfast.job j, holdfast.fail(j.job_id, j.lease_id, 'Boom') f WHERE j.subject = 'worn';
	SET holdfast.clock = '2040-01-01 00:00:00+00'; SELECT attempt_number FROM holdfast.claim('worn', 'w'))), "2147483647 2147483647\n2147483647", 'C5: attempt 2,147,483,647 is followed by another of that number');

# C11: texts that run into each other make no two intents one
is(super(q(SELECT count(*) - count(DISTINCT holdfast.intent_key(s, a, c, v)) FROM (
	SELECT DISTINCT p[1 + n % 100] AS s, p[1 + n / 100 % 100] AS a, p[1 + n / 10000 % 100] AS c, 1 + n % 3 AS v FROM generate_series(0, 999999) n,
		(SELECT array_agg(CASE WHEN i = 1 THEN NULL WHEN i = 2 THEN '' ELSE translate(substr(md5(i::text), 1, 1 + i % 3), '0123456789abcdef', 'abababab:::,,{}0') || CASE WHEN i > 50 THEN i::text ELSE '' END END) AS p FROM generate_series(1, 100) i) w) t)), '0',
	'C11: no two of a million tuples have one key');

unlike(slurp_file($node->logfile), qr/terminated by signal|PANIC|TRAP:|XX000/, 'no process crashed');
$node->stop;
done_testing();
