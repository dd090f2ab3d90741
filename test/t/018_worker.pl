# The background worker: it does what maintain() does, as a role that is no
# superuser, and survives what happens to it; and the queue stays correct with
# it killed, frozen and absent.

use strict;
use warnings;
use Time::HiRes qw(time);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('worker');
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', q(
fsync = off
log_line_prefix = '%e '
log_statement = none
restart_after_crash = on
holdfast.maintain_databases = 'app'
));

sub sql { my ($statement, $database) = @_; return $node->safe_psql($database // 'app', $statement) }
sub set { sql("ALTER SYSTEM SET holdfast.$_[0] = '$_[1]'", 'postgres'); $node->reload }
sub until_true { my ($query, $database) = @_; return $node->poll_query_until($database // 'app', $query) }

# What the log has said since the mark.
my $mark = 0;
sub mark { $mark = -s $node->logfile }
sub logged { my $text = substr(slurp_file($node->logfile), $mark); return $text }
sub until_logged
{
	my ($pattern, $name) = @_;
	my $end = time + $PostgreSQL::Test::Utils::timeout_default;
	until_true('SELECT pg_sleep(0.05) IS NOT NULL', 'postgres') until logged() =~ $pattern || time > $end;
	like(logged(), $pattern, $name);
}
sub times_logged { my ($pattern) = @_; my @all = logged() =~ /$pattern/g; return scalar @all }

my $launcher = q(SELECT pid FROM pg_stat_activity WHERE backend_type = 'holdfast launcher');
my $run = q(FROM pg_stat_activity WHERE backend_type = 'holdfast maintain' AND wait_event_type = 'Lock');
# maintain() has come to its end after now
sub maintained
{
	my ($name, $database) = @_;
	my $now = sql('SELECT clock_timestamp()', 'postgres');
	ok(until_true("SELECT coalesce((SELECT at FROM holdfast.upkeep WHERE name = 'ledger'), '-infinity') > '$now'", $database), $name);
}
# a session that holds what every run needs, so that a run waits
sub hold
{
	my $session = $node->background_psql('app');
	$session->query_safe('BEGIN; LOCK TABLE holdfast.upkeep');
	ok(until_true("SELECT count(*) = 1 $run"), 'a run waits for a lock');
	return $session;
}
sub let_go { my ($session) = @_; $session->query_safe('ROLLBACK'); $session->quit }

# ---------------------------------------------------------------- not preloaded
$node->start;
is(sql("LOAD 'holdfast'; SHOW holdfast.maintain_databases", 'postgres'), 'app', 'the settings exist where the library is not preloaded');
is(sql($launcher, 'postgres'), '', '... and there is no launcher');
my (undef, undef, $refused) = $node->psql('postgres', "LOAD 'holdfast'; SET holdfast.maintain_role = 'postgres'");
like($refused, qr/cannot be changed now/, 'no session can choose the role');

# ---------------------------------------------------------------- switched on
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'holdfast'\nholdfast.maintain_interval = 1\n");
mark();
$node->restart;
until_logged(qr/maintain_role: "" is not set\n.*HINT:/, 'without a role it does nothing, and says what to do');
sql($_, 'postgres') for 'CREATE ROLE keeper LOGIN', 'CREATE DATABASE app', 'CREATE DATABASE other';
for my $database (qw(app other))
{
	sql(q(CREATE EXTENSION holdfast; GRANT USAGE ON SCHEMA holdfast TO keeper), $database);
	sql(q(SELECT holdfast.create_queue('q', lease => '200 ms', timeout => '10 ms', grace => '0')), $database);
}
sql('GRANT EXECUTE ON FUNCTION holdfast.maintain() TO keeper', 'other');
mark();
set('maintain_databases', 'app, other');
set('maintain_role', 'keeper');
maintained('a database is maintained', 'other');
until_logged(qr/42501 WARNING:  holdfast could not maintain database "app" as role "keeper": permission denied for function maintain\n/,
	'where the role may not call maintain() the log says so');
logged() =~ /HINT:  In that database: (GRANT USAGE .*; GRANT EXECUTE .*;)/ or die 'no hint';
sql($1);
$node->reload;
maintained('... and what its hint says is enough, after a reload at once');
is(sql(q(SELECT string_agg(DISTINCT problem, ', ') FROM holdfast.verify())), '', 'verify() has nothing to say about the grant');
is($node->safe_psql('app', q(SELECT has_table_privilege('keeper', 'holdfast.job', 'SELECT, INSERT, UPDATE, DELETE') OR pg_has_role('keeper', 'postgres', 'MEMBER'))), 'f',
	'G13: the role has no right on a table');
my (undef, undef, $error) = $node->psql('app', 'SET ROLE keeper; SELECT * FROM holdfast.do_maintain()');
like($error, qr/permission denied for function do_maintain/, 'G13: ... nor on another function');

# Where evidence lies is not for the role to choose.
my $day = q(SELECT max(partition_name) FROM holdfast.event_partition);
my $last_day = sql($day);
sql(q(SET allow_in_place_tablespaces = on; CREATE TABLESPACE elsewhere LOCATION ''), 'postgres');
my $made = 0;
until ($made)	# unless a run of the background worker makes it first
{
	$made = sql("BEGIN; DROP TABLE holdfast.$last_day; SET LOCAL ROLE keeper; SET LOCAL default_tablespace = elsewhere;
		SELECT count(*) FROM holdfast.maintain() WHERE task = 'partitions made' AND done = 1; COMMIT");
	until_true("SELECT ($day) = '$last_day'") or last;
}
is($made, '1', 'a day is made again by the role');
is(sql(q(SELECT count(*) FROM pg_class WHERE relname LIKE 'event\_2%' AND reltablespace <> 0)), '0', '... in the place where evidence lies, not in one of its own choice');
sql('DROP TABLESPACE elsewhere', 'postgres');

# a lease that ended in a queue nobody claims from
sub lapsed
{
	my ($subject) = @_;
	sql("SELECT holdfast.enqueue('q', 'act', '$subject')");
	sql("SELECT FROM holdfast.claim('q', 'a worker that dies', 100)");
	return "SELECT count(*) = 1 FROM holdfast.event_all WHERE kind = 'action_attempt_lost' AND subject = '$subject'";
}
ok(until_true(lapsed('lost')), 'G8: a lease that ended is settled, and nobody has claimed');

# ---------------------------------------------------------------- a run that waits
my $holder = hold();
is(sql("SELECT application_name, datname, usename, state, query $run"), 'holdfast maintain|app|keeper|active|SELECT FROM holdfast.maintain()',
	'pg_stat_activity shows it, as the role');
is(sql('SELECT rolsuper FROM pg_roles WHERE rolname = (SELECT usename ' . $run . ')'), 'f', '... which is no superuser');
mark();
until_logged(qr/55P03 WARNING:  holdfast could not maintain database "app".*lock timeout\n(?:.*\n)*?.*HINT:  Somebody holds a lock/,
	'a lock does not hold it up for long');
is(sql(q(SELECT outcome FROM holdfast.enqueue('q', 'act', 'meanwhile'))), 'created', 'G10: the queue goes on meanwhile');
let_go($holder);
maintained('... and when the lock is gone so does it');

set('maintain_timeout', '200ms');
mark();
$holder = hold();
until_logged(qr/57014 WARNING:.*canceling statement due to statement timeout\n(?:.*\n)*?.*HINT:.*maintain_timeout/, 'it has a time limit of its own');
let_go($holder);
set('maintain_timeout', '1min');

$holder = hold();
mark();
is(sql("SELECT pg_cancel_backend(pid) $run"), 't', 'a run is canceled');
until_logged(qr/57014 WARNING:.*canceling statement due to user request/, '... and told in the log');
$node->reload;
ok(until_true("SELECT count(*) = 1 $run"), '... and there is another one');
my $pid = sql("SELECT pid $run");
my $start = time;
is(sql("SELECT pg_terminate_backend(pid) $run"), 't', 'a run is terminated');
ok(until_true("SELECT count(*) = 1 $run AND pid <> $pid"), '... and there is another one');
cmp_ok(time - $start, '<', 10, '... within ten seconds');
let_go($holder);
maintained('... which comes to its end');

# ---------------------------------------------------------------- two of them
my $other = $node->background_psql('app');
$other->query_safe('BEGIN; SELECT FROM holdfast.maintain()');
mark();
ok(until_true(lapsed('both')), 'beside a maintain() that somebody else has open it settles leases');
is(times_logged(qr/could not maintain/), 0, '... and neither is in the way of the other');
sql('CREATE ROLE clerk; GRANT USAGE ON SCHEMA holdfast TO clerk; GRANT EXECUTE ON FUNCTION holdfast.oldest_writer() TO clerk');
my $begun = q(SELECT min(xact_start) FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND datname = current_database() AND backend_type = 'client backend');
isnt(sql($begun), '', 'a transaction of others has written, and is open');
is(sql("SET ROLE clerk; $begun"), '', '... which who is no superuser does not see');
is(sql('SET ROLE clerk; SELECT holdfast.oldest_writer()'), sql($begun), '... but an owner who is none counts no hour before it is over');
$other->query_safe('COMMIT');
$other->quit;

# ---------------------------------------------------------------- autovacuum writes no event
# It analyzes an index whose expression takes a transaction id, and waits.
$other = $node->background_psql('app');
$other->query_safe('SELECT pg_advisory_lock(18)');
sql(q{
	CREATE FUNCTION waits(n integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$
		BEGIN
			IF EXISTS (SELECT FROM pg_stat_activity WHERE pid = pg_backend_pid() AND backend_type = 'autovacuum worker') THEN
				PERFORM pg_current_xact_id(), pg_advisory_xact_lock_shared(18);
			END IF;
			RETURN n;
		END $$;
	CREATE TABLE analyzed (n integer) WITH (autovacuum_analyze_threshold = 0, autovacuum_analyze_scale_factor = 0);
	CREATE INDEX ON analyzed (waits(n));
	INSERT INTO analyzed SELECT generate_series(1, 10)});
$node->append_conf('postgresql.conf', 'autovacuum_naptime = 1s');
$node->reload;
ok(until_true(q(SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'autovacuum worker' AND backend_xid IS NOT NULL AND wait_event = 'advisory')),
	'autovacuum has a transaction id, and waits');
is(sql('SELECT holdfast.oldest_writer()'), '', '... which puts no hour off');
$other->quit;
sql('DROP TABLE analyzed');

# ---------------------------------------------------------------- frozen
set('maintain_timeout', '100ms');
$holder = $node->background_psql('app');
$holder->query_safe('BEGIN; LOCK TABLE holdfast.upkeep');
# A run that waits has 100 ms: catch one.
my $frozen;
until ($frozen)
{
	$frozen = sql("SELECT pid $run LIMIT 1") or $node->reload, next;
	kill('STOP', $frozen) or $frozen = '';
	$frozen = '' unless sql("SELECT count(*) $run AND pid = " . ($frozen || 0)) eq '1';
}
mark();
let_go($holder);
is(sql(q(SELECT outcome FROM holdfast.enqueue('q', 'act', 'beside a frozen one'))), 'created', 'G10: with a run frozen, jobs are entered');
is(sql(q(SELECT count(*) FROM holdfast.claim('q', 'w', 10) c WHERE c.subject = 'beside a frozen one')), '1', 'G1: ... handed out');
cmp_ok(sql('SELECT count(*) FROM holdfast.maintain()'), '>=', 3, '... and maintain() may be called');
maintained('... and the other database is maintained', 'other');
until_logged(qr/maintain_databases: "app" has not ended a run in time.*\n.*HINT:.*SIGCONT/, 'the log tells of a run that does not end');
kill('CONT', $frozen);
ok(until_true("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $frozen"), 'when it goes on it ends');
set('maintain_timeout', '1min');
maintained('... and the next one does its work');

$pid = sql($launcher);
kill('STOP', $pid);
is(sql(q(SELECT outcome FROM holdfast.enqueue('q', 'act', 'beside a frozen launcher'))), 'created', 'G10: with the launcher frozen, jobs are entered');
is(sql(q(SELECT count(*) FROM holdfast.claim('q', 'w', 10) c WHERE c.subject = 'beside a frozen launcher')), '1', 'G1: ... and handed out');
kill('CONT', $pid);
maintained('when it goes on so does upkeep');

# ---------------------------------------------------------------- killed
$start = time;
is(sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'holdfast launcher'"), 't', 'the launcher is terminated');
ok(until_true("SELECT count(*) = 1 FROM ($launcher) l WHERE l.pid <> $pid"), '... and there is another one');
cmp_ok(time - $start, '<', 10, '... within ten seconds');
maintained('... which does its work');

my $jobs = q(SELECT count(*), sum(attempt_number) FROM holdfast.job WHERE subject IN ('beside a frozen one', 'beside a frozen launcher', 'kept'));
sql(q(SELECT holdfast.enqueue('q', 'act', 'kept', run_after => now() + interval '1 day')));
for my $victim ('launcher', 'run')
{
	my $killed = $victim eq 'run' ? do { $holder = hold(); sql("SELECT pid $run") } : sql($launcher);
	kill('KILL', $killed);
	# PostgreSQL starts all over, as after any crash of a process of its own.
	ok(until_true("SELECT count(*) = 1 FROM ($launcher) l WHERE l.pid <> $killed"), "the $victim is killed, and there is a launcher");
	maintained('... which does its work');
	eval { $holder->quit } if $victim eq 'run';
	is((split /\|/, sql($jobs))[0], '3', '... and nothing is lost');
}

# ---------------------------------------------------------------- databases and the extension come and go
mark();
sql('DROP DATABASE other', 'postgres');
until_logged(qr/maintain_databases: "other" does not exist\n.*HINT:/, 'a database is dropped, and the log says so');
maintained('... the others go on') for 1 .. 3;
is(times_logged(qr/"other" does not exist/), 1, '... and says it once');

mark();
$holder = hold();
my $dropper = $node->background_psql('app');
$dropper->query_until(qr/begun/, "\\echo begun\nDROP EXTENSION holdfast CASCADE;\n");
ok(until_true(q(SELECT count(*) = 1 FROM pg_locks WHERE classid = 'pg_extension'::regclass AND NOT granted)), 'DROP EXTENSION waits for a run that is under way');
is(sql(q(SELECT count(*) FROM pg_locks l JOIN pg_locks w USING (pid) WHERE w.classid = 'pg_extension'::regclass AND NOT w.granted AND l.relation::regclass::text LIKE 'holdfast.%' AND l.mode = 'AccessExclusiveLock')),
	'0', '... with nothing of the queue locked');
let_go($holder);
$dropper->quit;
until_logged(qr/"app" does not have the extension holdfast\n.*HINT:/, 'the extension is dropped, and the log says so');
sql('CREATE EXTENSION holdfast; GRANT USAGE ON SCHEMA holdfast TO keeper; GRANT EXECUTE ON FUNCTION holdfast.maintain() TO keeper');
sql(q(SELECT holdfast.create_queue('q', lease => '200 ms', timeout => '10 ms', grace => '0')));
maintained('... and made again, without a reload');
is(times_logged(qr/does not have the extension/), 1, '... and it was said once');

mark();
sql('ALTER DATABASE app RENAME TO "App, renamed"', 'postgres');
until_logged(qr/maintain_databases: "app" does not exist/, 'a database is renamed');
set('maintain_databases', '"App, renamed"');
maintained('... and maintained under its new name', 'App, renamed');
sql('ALTER DATABASE "App, renamed" RENAME TO app', 'postgres');
set('maintain_databases', 'app, nothing, app');
maintained('... and its old one');

mark();
sql('ALTER DATABASE app ALLOW_CONNECTIONS false', 'postgres');
until_logged(qr/maintain_databases: "app" does not accept connections\n/, 'a database that lets nobody in');
sql('ALTER DATABASE app ALLOW_CONNECTIONS true', 'postgres');
maintained('... is maintained when it does again');

mark();
my ($code) = $node->psql('postgres', q(ALTER SYSTEM SET holdfast.maintain_databases = 'a,,b'));
isnt($code, 0, 'a list that is none is refused');
($code) = $node->psql('postgres', sprintf q(ALTER SYSTEM SET holdfast.maintain_databases = '%s'), join ',', map { "d$_" } 1 .. 65);
isnt($code, 0, '... and one that is too long');

# ---------------------------------------------------------------- the role
mark();
sql('ALTER ROLE keeper RENAME TO warden', 'postgres');
until_logged(qr/maintain_role: "keeper" does not exist\n.*HINT:/, 'the role is renamed, and the log says so');
set('maintain_role', 'warden');
maintained('... and it goes on under the new name');
my $last;
for my $case (['postgres', 'is a superuser', ''], ['warden', 'is not permitted to log in', 'NOLOGIN'], ['warden', 'is a superuser', 'LOGIN SUPERUSER'])
{
	mark();
	sql("ALTER ROLE warden $case->[2]", 'postgres') if $case->[2];
	set('maintain_role', $case->[0]);
	until_logged(qr/maintain_role: "$case->[0]" $case->[1]\n.*HINT:/, "a role that $case->[1] is not used");
	until_true(q(SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'holdfast maintain'));
	$last //= sql(q(SELECT at FROM holdfast.upkeep WHERE name = 'ledger'));
}
is(sql(q(SELECT at FROM holdfast.upkeep WHERE name = 'ledger')), $last, '... and nothing is run');
sql('ALTER ROLE warden NOSUPERUSER LOGIN', 'postgres');
# Settings of the role do not change what a run does.
sql('ALTER ROLE warden SET default_transaction_read_only = on; ALTER ROLE warden SET default_transaction_isolation = serializable; ALTER ROLE warden SET search_path = public', 'postgres');
maintained('a role in order is used again, whatever its settings');

# ---------------------------------------------------------------- a standby
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('worker_standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby);
is($standby->safe_psql('app', $launcher), '', 'on a standby there is no launcher');
$holder = hold();
$start = time;
$node->stop('fast');
cmp_ok(time - $start, '<', 10, 'a fast shutdown does not wait for a run that waits');
eval { $holder->quit };
my $promoted = $standby->safe_psql('app', 'SELECT clock_timestamp()');
$standby->promote;
ok($standby->poll_query_until('app', "SELECT at > '$promoted' FROM holdfast.upkeep WHERE name = 'ledger'"), '... until it is promoted');
$standby->stop;

# ---------------------------------------------------------------- slots, and pg_upgrade
$node->append_conf('postgresql.conf', "max_worker_processes = 1\nmax_logical_replication_workers = 0\n");
mark();
$node->start;
until_logged(qr/maintain_databases: "app" waits for a free background worker\n.*HINT:.*max_worker_processes/, 'without a free slot it waits, and says so');
$node->stop;
$node->append_conf('postgresql.conf', "max_worker_processes = 8\n");
PostgreSQL::Test::Utils::system_or_bail('pg_ctl', '--wait', '--pgdata', $node->data_dir, '--log', $node->logfile, '--options', '-b', 'start');
is(sql($launcher, 'postgres'), '', 'in binary upgrade mode there is no launcher');
PostgreSQL::Test::Utils::system_or_bail('pg_ctl', '--wait', '--pgdata', $node->data_dir, '--mode', 'fast', 'stop');
$node->start;
maintained('... and otherwise there is');
unlike(slurp_file($node->logfile), qr/terminated by signal [^9]|PANIC|TRAP|XX000|leak/, 'no process crashed by itself, and nothing leaked');

$node->stop;
done_testing();
