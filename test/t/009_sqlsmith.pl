# SQLsmith: random SQL around holdfast's functions and views, as a worker and as
# an operator.  Whatever they write, no backend dies and nothing is XX000.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $statements = $ENV{SMITH_STATEMENTS} || 5000;		# for each role
my $seed = $ENV{SMITH_SEED} || 1;

my $node = PostgreSQL::Test::Cluster->new('sqlsmith');
$node->init;
$node->append_conf('postgresql.conf', qq(
fsync = off
jit = off
log_line_prefix = '%e '
track_functions = all
));
$node->start;

sub sql { return $node->safe_psql('postgres', shift) }

# SQLsmith knows the functions that its pg_proc shows, those that return sets left out, and the relations that its role
# sees.  So it is shown holdfast's, wrappers for those that return sets, what core gives to the same types, and a view
# with the ids, leases and keys of some jobs.
sql(q(
	CREATE EXTENSION holdfast;
	CREATE ROLE smith_worker LOGIN;
	CREATE ROLE smith_operator LOGIN;
	SELECT holdfast.create_queue(q) FROM unnest(ARRAY['a', 'b']) q;
	SELECT holdfast.define_stream('a', 'loop');
	SELECT holdfast.grant_queue('a', 'smith_worker', kind) FROM unnest(ARRAY['worker', 'producer']) kind;
	SELECT holdfast.grant_queue('a', 'smith_operator', kind) FROM unnest(ARRAY['operator', 'reader']) kind;
	SELECT holdfast.enqueue(q, 'act', q || n) FROM unnest(ARRAY['a', 'b']) q, generate_series(1, 20) n;
));
sql(q(CREATE TABLE held AS SELECT c.* FROM unnest(ARRAY['a', 'b']) q, holdfast.claim(q, 'w', 10) c));
sql(q(
	SELECT holdfast.fail(job_id, lease_id, 'Boom') FROM held WHERE job_id % 5 = 1;
	SELECT holdfast.complete(job_id, lease_id) FROM held WHERE job_id % 5 = 2;
	SELECT holdfast.cancel(job_id, 'why', true) FROM held WHERE job_id % 5 = 3;

	CREATE SCHEMA smith;
	CREATE VIEW smith.sample AS
		SELECT job_id, lease_id, idempotency_key, subject, action_key, 'a'::text AS queue_name, payload, timeout_ms, attempt_number, fencing_token,
			lease_expires_at, interval '90 s' AS lease, ARRAY[job_id] AS job_ids, ARRAY[lease_id] AS lease_ids, ARRAY['a'] AS queue_names,
			(ARRAY['all', 'landed', 'not_landed', 'started', 'none'])[1 + job_id % 5] AS word, job_id % 2 = 0 AS flag
		FROM held OFFSET 0;
	CREATE VIEW smith.pg_proc AS
		SELECT * FROM pg_catalog.pg_proc p
		WHERE p.pronamespace IN ('holdfast'::regnamespace, 'smith'::regnamespace) OR p.prokind = 'a' AND p.proname IN ('count', 'min', 'max')
			OR p.prokind = 'w' OR p.prokind = 'f' AND p.proname IN ('now', 'gen_random_uuid', 'to_jsonb', 'upper', 'substr', 'abs', 'array_append', 'date_trunc', 'md5', 'random', 'lower');
	GRANT USAGE ON SCHEMA smith TO PUBLIC;
	GRANT SELECT ON ALL TABLES IN SCHEMA smith TO PUBLIC;
	DO $$
	DECLARE
		f	record;
	BEGIN
		FOR f IN SELECT p.proname, pg_get_function_identity_arguments(p.oid) AS arguments,
					(SELECT string_agg('$' || n, ', ' ORDER BY n) FROM generate_series(1, p.pronargs) n) AS given
				 FROM pg_proc p WHERE p.pronamespace = 'holdfast'::regnamespace AND p.proretset AND p.prokind = 'f' LOOP
			EXECUTE format('CREATE FUNCTION smith.%I(%s) RETURNS text LANGUAGE sql VOLATILE AS ''SELECT string_agg(x::text, '''' '''') FROM holdfast.%I(%s) x''',
				f.proname, f.arguments, f.proname, f.given);
		END LOOP;
	END
	$$;
));
my $before = sql(q(SELECT md5(string_agg(j::text, ';' ORDER BY j.job_id)), (SELECT count(*) FROM holdfast.event) FROM holdfast.job j));

for my $role ('smith_worker', 'smith_operator')
{
	my $target = $node->connstr('postgres') . " user=$role options='-c search_path=smith,pg_catalog -c statement_timeout=200'";
	my $out = '';
	my $done = IPC::Run::run([ 'sqlsmith', "--target=$target", "--seed=$seed", "--max-queries=$statements", '--exclude-catalog', '--verbose' ],
		'>&', \$out, IPC::Run::timeout(3600));
	ok($done, "seed $seed: SQLsmith wrote $statements statements as $role") or diag(substr($out, -2000));
}

my $log = slurp_file($node->logfile);
unlike($log, qr/terminated by signal|PANIC|TRAP/, 'no backend died');
is(join("\n", grep { defined } ($log =~ /^(XX\w{3} .*(?:\n\t.*|\nXX.*){0,3})/mg)[0 .. 4]), '', 'nothing is XX000');
is(sql(q(SELECT md5(string_agg(j::text, ';' ORDER BY j.job_id)), (SELECT count(*) FROM holdfast.event) FROM holdfast.job j)), $before,
	'SQLsmith rolls back, and so nothing has changed');
cmp_ok(sql(q(SELECT sum(calls) FROM pg_stat_user_functions WHERE schemaname = 'holdfast')), '>', $statements / 4, 'functions of holdfast were called');
note(sql(q(SELECT string_agg(format('%s %s', funcname, calls), ', ' ORDER BY calls DESC) FROM pg_stat_user_functions WHERE schemaname = 'holdfast')));

$node->stop;
done_testing();
