# Behind PgBouncer in transaction mode, where each statement may run in another
# backend: nothing of the API hangs on a session (pooled.py).

use strict;
use warnings;
use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $jobs = $ENV{POOLED_JOBS} || 400;
my $node = PostgreSQL::Test::Cluster->new('pooled');
$node->init;
$node->append_conf('postgresql.conf', "fsync = off\n");
$node->start;
sub sql { return $node->safe_psql('postgres', shift) }
sql(q(
	CREATE EXTENSION holdfast;
	CREATE TABLE sent (subject text PRIMARY KEY);
	SELECT holdfast.define_retry_policy('quick', '1 ms', 1, '1 ms', '0', '1 ms', 50, reconcile_delay => '1 ms');
	SELECT holdfast.create_queue('mail', retry_policy => 'quick');
));

my $dir = PostgreSQL::Test::Utils::tempdir_short();
my $port = $node->port;
my $host = $node->host;
my $user = sql('SELECT current_user');
append_to_file("$dir/pgbouncer.ini", qq(
[databases]
postgres = host=$host port=$port dbname=postgres user=$user
[pgbouncer]
unix_socket_dir = $dir
listen_addr =
listen_port = 6432
auth_type = any
pool_mode = transaction
default_pool_size = 3
logfile = $dir/log
pidfile = $dir/pid
));
my $log = '';
my $pooler = IPC::Run::start([ '/usr/sbin/pgbouncer', '-q', "$dir/pgbouncer.ini" ], '>&', \$log);
my $up = 0;
for (1 .. 300)
{
	last if $up = -S "$dir/.s.PGSQL.6432";
	select undef, undef, undef, 0.1;
}
ok($up, 'the pooler runs') or diag($log);

my $out = '';
ok(IPC::Run::run([ '/usr/bin/python3', "$FindBin::Bin/pooled.py", "host=$dir port=6432 user=$user dbname=postgres", $jobs ], '>&', \$out),
	"$jobs jobs through a pooler in transaction mode, each answer as without it") or diag($out);
note($out);
$pooler->kill_kill;

is(sql('SELECT count(*) FROM holdfast.job'), 0, 'G10: no job is left');
is(sql(q(SELECT count(*), count(DISTINCT job_id) FROM holdfast.event_all WHERE kind = 'action_attempt_succeeded' OR kind = 'action_reconciled')),
	sql(q(SELECT count(*) || '|' || count(*) FROM holdfast.ledger WHERE state = 'committed' AND parent_key IS NULL)), 'G2: each was settled once');
is(sql(q(SELECT string_agg(DISTINCT kind, ' ') FROM holdfast.finding WHERE kind NOT IN ('duplicate', 'refusal'))), '', 'no lease was lost, none stale');
is(sql('SELECT count(*) FROM sent'), sql(q(SELECT count(*) FROM holdfast.ledger l JOIN sent USING (subject) WHERE l.state = 'committed')), 'G7: own rows came with the job');

$node->stop;
done_testing();
