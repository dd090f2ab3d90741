# The presets against the real thing: graphile-worker and pg-boss run jobs
# that time out and retry, and the evidence shows each attempt.
#
# scripts/test installs both from npm, as make bench does, and leaves this
# test out, saying so, where npm cannot be reached.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $packages = 'test/queues/node_modules';
my ($node_js) = grep { -x } glob("$packages/node-linux-*/bin/node");
plan skip_all => "no $packages: scripts/test installs them" unless defined $node_js;

my $node = PostgreSQL::Test::Cluster->new('queues');
$node->init;
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION holdfast');

sub sql { return $node->safe_psql('postgres', shift) }

sub js
{
	my ($script, $command) = @_;
	local %ENV = (%ENV, PGHOST => $node->host, PGPORT => $node->port, PGDATABASE => 'postgres', PGUSER => getpwuid($<) . '', NODE_ENV => 'production');
	my ($out, $err);
	my $ok = IPC::Run::run [ 'timeout', '60', $node_js, "test/queues/$script.mjs", $command ], '<', \undef, '>', \$out, '2>', \$err;
	ok($ok, "$script $command") or diag("$out$err");
	return;
}

sub attempts
{
	my ($where) = @_;
	return sql(qq(SELECT string_agg(concat_ws(' ', attempt_number, outcome, exception_class, CASE WHEN final THEN 'final' END), ', ' ORDER BY started_at)
		FROM holdfast.attempt WHERE $where));
}

# graphile-worker

js('graphile', 'migrate');
sql(q(SELECT holdfast.watch('graphile_worker._private_jobs', holdfast.watch_preset('graphile-worker'))));
js('graphile', 'work');
my $jobs = q(source = 'graphile_worker._private_jobs');
is(attempts("$jobs AND subject = 'well'"), '1 succeeded final', 'graphile-worker: a job that is done');
is(attempts("$jobs AND subject = 'silent'"), '1 timeout TimeoutError, 2 succeeded final', 'graphile-worker: a job that times out, and is done at the second attempt');
is(sql(qq(SELECT count(DISTINCT lease_id) || ' ' || bool_or(synthetic_lease) FROM holdfast.attempt WHERE $jobs AND subject = 'silent')), '2 false',
	'graphile-worker: each attempt has its lease');
is(sql(qq(SELECT verdict FROM holdfast.attempt_pair WHERE $jobs AND subject = 'silent')), 'legitimate_delayed_retry',
	'G3: graphile-worker retries after a delay, which is on record');
is(sql(qq(SELECT count(*) FROM holdfast.violation WHERE $jobs)), 0, 'graphile-worker breaks nothing');
is(sql(qq(SELECT count(*) FROM holdfast.attempt WHERE $jobs AND worker_name IS NULL)), 0, 'graphile-worker: who did it is on record');

# pg-boss, whose jobs lie in partitions, and are taken out and put in again when they fail

js('pgboss', 'migrate');
sql(q(SELECT holdfast.watch('pgboss.job', holdfast.watch_preset('pg-boss'))));
js('pgboss', 'work');
$jobs = q(source = 'pgboss.job');
is(attempts("$jobs AND action_key = '$_'"), '1 timeout TimeoutError, 2 succeeded final', "pg-boss: both attempts, $_") for qw(patient rash stuck);
is(sql(qq(SELECT verdict FROM holdfast.attempt_pair WHERE $jobs AND action_key = '$_->[0]')), $_->[1], "G3: pg-boss, $_->[0]: $_->[1]")
	for [ 'patient', 'legitimate_delayed_retry' ], [ 'rash', 'retry_without_backoff' ], [ 'stuck', 'legitimate_delayed_retry' ];
is(sql(qq(SELECT string_agg(violation, ' ' ORDER BY at) FROM holdfast.violation v WHERE $jobs
	AND id = (SELECT job_id FROM holdfast.attempt a WHERE $jobs AND a.action_key = 'rash' LIMIT 1))), 'requeue_without_delay retry_without_backoff',
	'G3: what it does by default is on record as what it is');
is(sql(qq(SELECT count(*) FROM holdfast.violation WHERE $jobs)), 2, 'and nothing else is');
is(sql(q(SELECT count(*) FROM holdfast.watched WHERE problem IS NOT NULL)), 0, 'both watches work');

done_testing();
