# The schema changes under running workers (7.8 of the design): no crash, no
# internal error, no lost job, and no error at all but where the extension is
# dropped.  Producers that hold their transaction open do not make jobs wait.

use strict;
use warnings;
use FindBin;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $seed = $ENV{SEED} || int(rand(1e6));
my $seconds = $ENV{CHURN_SECONDS} || 5;
diag("SEED=$seed CHURN_SECONDS=$seconds");
srand($seed);

my $node = PostgreSQL::Test::Cluster->new('churn');
$node->init;
$node->append_conf('postgresql.conf', q(
max_connections = 40
log_statement = none
log_line_prefix = '=== %e '
deadlock_timeout = 50ms
backtrace_functions = 'relation_open'
));
$node->start;

sub sql { return $node->safe_psql('postgres', shift) }

my $queue = q(
	SELECT holdfast.define_retry_policy('quick', '1 ms', 1, '1 ms', '0', '1 ms', max_attempts => 1000000, max_lost => 1000000,
		reconcile_delay => '1 ms', reconcile_max => 1000000);
	SELECT holdfast.create_queue('churn', lease => '30 s', timeout => '20 s', grace => '5 s', retry_policy => 'quick');
);

sub begin_load
{
	my ($name, @how) = @_;
	my %load = (stopfile => $node->basedir . "/stop.$name", out => '', err => '',
				log => -s $node->logfile);

	sql(q(
		DROP TABLE IF EXISTS acked_enqueue, acked_complete, problem, wait;
		CREATE TABLE acked_enqueue (job_id bigint, at float8);
		CREATE TABLE acked_complete (job_id bigint, outcome text);
		CREATE TABLE problem (state text, what text, n integer);
		CREATE TABLE wait (ms float8);
	));
	$load{run} = IPC::Run::start(
		[ '/usr/bin/python3', "$FindBin::Bin/churn.py", $node->connstr('postgres') . ' user=' . getpwuid($<), $seed,
		  $load{stopfile}, @how ],
		'<', \undef, '>', \$load{out}, '2>', \$load{err});
	return \%load;
}

sub end_load
{
	my ($load, $name) = @_;

	append_to_file($load->{stopfile}, '');
	$load->{run}->finish;
	is($load->{err}, '', "$name: the clients ended well");
	# PostgreSQL's parser itself fails so where the type that a function returns is being dropped.
	is(join("\n", grep { /^(XX|58)\w{3} / && !(/^\w+ ERROR:  could not open relation with OID/ && /BACKTRACE/ && !/holdfast\.so/) }
			split /^=== (?=\w{5} (?:ERROR|FATAL|PANIC|LOG|WARNING))/m, slurp_file($node->logfile, $load->{log})), '',
		"$name: no internal error in the server log");
}

# What was acknowledged is what happened, and all of it.
sub check_all_done
{
	my $name = shift;

	is(sql('SELECT state, what, n FROM problem ORDER BY n DESC LIMIT 5'), '', "$name: no error");
	is(sql(q(SELECT outcome FROM acked_complete WHERE outcome <> 'completed' LIMIT 5)), '', "$name: every report counted");
	is(sql('SELECT count(*) FROM holdfast.job'), '0', "$name: every job is done");
	is(sql(q(SELECT count(*) FROM acked_enqueue a WHERE 1 <>
				(SELECT count(*) FROM acked_complete c WHERE c.job_id = a.job_id))), '0', "$name: each once");
	is(sql(q(SELECT count(*) FROM acked_complete c WHERE 1 <>
				(SELECT count(*) FROM (SELECT job_id, kind FROM holdfast.event UNION ALL
									   SELECT job_id, kind FROM holdfast.event_overflow) e
				 WHERE e.job_id = c.job_id AND e.kind = 'action_attempt_succeeded'))), '0', "$name: and on record once");
	diag("$name: " . sql(q(SELECT format('%s jobs, waits after commit: max %s ms, p99 %s ms', count(*), round(max(ms)),
		round(percentile_cont(0.99) WITHIN GROUP (ORDER BY ms))) FROM wait)));
}

sql("CREATE EXTENSION holdfast; $queue");

# Producers that hold their transaction, and nothing else.
my $load = begin_load('steady');
sleep $seconds;
end_load($load, 'steady');
check_all_done('steady');
cmp_ok(sql('SELECT max(ms) FROM wait'), '<', 500, 'no job waits for longer than 500 ms after its commit');

# Indexes, columns, tables rewritten.
my @indexes = split /\n/, sql(q(
	SELECT i.indexrelid::regclass FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
	WHERE c.relnamespace = 'holdfast'::regnamespace AND c.relkind = 'r' AND
		  (c.relname !~ '^event_2' OR c.relname = to_char(now() AT TIME ZONE 'UTC', '"event_"YYYYMMDD')) ORDER BY 1));
$load = begin_load('reindex');
sleep 0.3;
sql("REINDEX INDEX CONCURRENTLY $_") for @indexes;
end_load($load, 'reindex');
check_all_done('reindex');
diag(scalar(@indexes) . ' indexes');

$load = begin_load('columns');
sleep 0.3;
for my $table (qw(job ledger event dead_job event_overflow queue retry_policy finding))
{
	sql("ALTER TABLE holdfast.$table ADD COLUMN extra_a text");
	sleep 0.1;
	sql("ALTER TABLE holdfast.$table ADD COLUMN extra_b text NOT NULL DEFAULT 'as before'");
	sleep 0.1;
	sql("ALTER TABLE holdfast.$table ADD COLUMN extra_c integer DEFAULT 7");
	sql("ALTER TABLE holdfast.$table DROP COLUMN extra_a");
	sleep 0.1;
}
end_load($load, 'columns');
check_all_done('columns');
is(sql("SELECT count(*) FROM holdfast.ledger WHERE extra_b <> 'as before' OR extra_c <> 7"), '0',
	'new columns have their defaults in rows from before and after');
is(sql("SELECT count(*) FROM holdfast.event WHERE extra_b <> 'as before' OR extra_c <> 7"), '0', '... in events too');
sql("ALTER TABLE holdfast.$_ DROP COLUMN extra_b, DROP COLUMN extra_c") for qw(job ledger event dead_job event_overflow queue retry_policy finding);

$load = begin_load('rewrites');
sleep 0.3;
for (1 .. 2)
{
	for my $table (qw(job ledger event event_overflow queue))
	{
		sql("VACUUM FULL holdfast.$table");
		sql("VACUUM (FREEZE) holdfast.$table");
		sql("REINDEX TABLE holdfast.$table");
		sleep 0.05;
	}
	sql('CLUSTER holdfast.job USING job_pkey');
	sql('ALTER TABLE holdfast.ledger SET (fillfactor = 80)');
}
end_load($load, 'rewrites');
check_all_done('rewrites');

# Partitions: a past one and today's go and come back.
my $day = sql(q(SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')));
sql(q(SET holdfast.clock = '2020-01-02 12:00:00+00'; SELECT holdfast.make_partitions()));
$load = begin_load('partitions');
sleep 0.3;
for my $n (-1 .. 9)
{
	sql("DROP TABLE holdfast." . sql("SELECT to_char(date '2020-01-02' + $n, '\"event_\"YYYYMMDD')")) if $n < 8;
	# events of today have nowhere to go for a while, but into event_overflow
	sql("ALTER TABLE holdfast.event DETACH PARTITION holdfast.event_$day");
	sleep 0.1;
	sql("ALTER TABLE holdfast.event ATTACH PARTITION holdfast.event_$day FOR VALUES FROM ("
		. sql("SELECT quote_literal(to_char(date '$day', 'YYYY-MM-DD 00:00:00+00'))") . ") TO ("
		. sql("SELECT quote_literal(to_char(date '$day' + 1, 'YYYY-MM-DD 00:00:00+00'))") . ")");
	sleep 0.05;
}
end_load($load, 'partitions');
check_all_done('partitions');
cmp_ok(sql('SELECT count(*) FROM holdfast.event_overflow'), '>', 0, 'events of a day without a partition overflow');

# Settings change all the time.
$load = begin_load('settings');
sleep 0.3;
for my $n (1 .. 15)
{
	sql("SELECT holdfast.create_queue('q$n'); SELECT holdfast.alter_queue('churn', lease => '" . (30 + $n) . " s')");
	sql("SELECT holdfast.define_error_rule('quick', 'E$n', 'retry'); SELECT holdfast.drop_queue('q$n')");
	sql("SELECT holdfast.pause_queue('churn'); SELECT holdfast.resume_queue('churn')");
}
end_load($load, 'settings');
check_all_done('settings');

# The extension goes and comes back, under clients that keep their connections, and under such that do not.
for my $how ('keep', 'reconnect')
{
	sql("DROP EXTENSION holdfast CASCADE; CREATE EXTENSION holdfast; $queue");
	$load = begin_load($how, $how);
	sleep 0.3;
	for my $n (1 .. 5)
	{
		my ($status, undef, $stderr) = $node->psql('postgres', 'DROP EXTENSION holdfast CASCADE');
		redo if $status != 0 && $stderr =~ /deadlock detected/;	# it locks in an order of its own
		is($stderr, '', "$how: drop $n");
		sleep 0.05 if $n % 2;
		sql("CREATE EXTENSION holdfast; $queue");
		sleep 0.2;
		# what the fresh extension gets done, by whom ever
		is($node->poll_query_until('postgres', q(SELECT count(*) > 0 FROM holdfast.event WHERE kind = 'action_attempt_succeeded')), 1,
			"$how: the workers go on after recreation $n");
	}
	end_load($load, $how);
	# undefined schema, table, function, queue or type while it is gone; a deadlock with DROP; the parser's
	is(sql(q(SELECT state, what, n FROM problem WHERE state NOT IN ('3F000', '42P01', '42883', '42704', '40P01')
			 AND what NOT LIKE 'could not open relation with OID%' ORDER BY n DESC LIMIT 5)), '',
		"$how: only documented errors");
	diag("$how: " . sql(q(SELECT string_agg(format('%s x %s', n, state), ', ') FROM (SELECT state, sum(n) AS n FROM problem GROUP BY state) p)));
	is(sql('SELECT count(*) FROM holdfast.job'), '0', "$how: every job is done");
}

$node->stop;
done_testing();
