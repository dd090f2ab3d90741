# A dump restored elsewhere is the same queue: every row of every table, the
# figures, the sequences, the grants; and it works at once, without any setting,
# today and on another day.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('dump');
$node->init;
$node->append_conf('postgresql.conf', "log_statement = none\nlog_line_prefix = '%e '\n");
$node->start;

sub sql { my ($database, $sql) = @_; return $node->safe_psql($database, $sql) }

my $dir = $node->basedir;

# One of everything: live, running, waiting, to be reconciled, dead; the ledger in all its states; events of two days,
# one of which has no partition; findings, a stream, grants, policies, settings.
sub fill
{
	my ($database, $day) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $database");
	sql($database, 'CREATE EXTENSION holdfast');
	sql($database, qq(
		SET holdfast.clock = '$day 10:00:00+00';
		SELECT holdfast.define_retry_policy('own', '2 s', 3, '1 min', '1 s', '1 s', 7);
		SELECT holdfast.define_retry_policy('default', '10 s', 2, '1 min', '1 s', '1 s', 3);
		SELECT holdfast.define_error_rule('own', 'Odd%', 'terminal', 'none');
		SELECT holdfast.define_error_rule('default', 'TimeoutError', 'retry', 'none');
		SELECT holdfast.drop_error_rule('default', 'RateLimitError');
		SELECT holdfast.create_queue('mail', retry_policy => 'own', max_attempts => 4);
		SELECT holdfast.create_queue('plain', side_effects => false, heartbeat => '10 s');
		SELECT holdfast.create_queue('gone');
		SELECT holdfast.define_stream('plain', 'loop', 1, '1 h');
		SELECT holdfast.grant_queue('mail', 'dump_worker', 'worker');
		SELECT holdfast.grant_queue('plain', 'dump_reader', 'reader');
		SELECT holdfast.drop_queue('gone');
		SELECT holdfast.import_attempts('log', jsonb_build_array(r, r)) FROM (SELECT jsonb_build_object('job_id', n, 'subject', 's', 'action_key', 'a',
			'started_at', '$day 10:00:00+00', 'message', E'tab\t ünï') AS r FROM generate_series(1, 5) n) r;
		SELECT holdfast.set_attempt_retention('30 days');
		SELECT holdfast.enqueue('mail', 'send', 's' || n, jsonb_build_object('n', n, 'text', E'tab\\t ünï \\\\ "'), priority => n % 3)
			FROM generate_series(1, 40) n;
		SELECT holdfast.enqueue('plain', 'resize', 'p' || n, headers => '{"a": null}', stream => 'loop') FROM generate_series(1, 10) n;
		SELECT holdfast.enqueue('mail', 'send', 'later', delay => '3 days', give_up_at => '$day 10:00:00+00'::timestamptz + interval '9 days');
		SELECT holdfast.enqueue('mail', 'send', 's1', '{"n": 1, "text": "tab\\t ünï \\\\ \\""}');
	));
	sql($database, qq(
		SET holdfast.clock = '$day 10:00:01+00';
		CREATE TABLE held AS SELECT job_id, lease_id, row_number() OVER () AS n FROM holdfast.claim('mail', 'w1', 30);
		INSERT INTO held SELECT job_id, lease_id, 100 + row_number() OVER () FROM holdfast.claim('plain', 'w1', 5);
	));
	sql($database, qq(
		SET holdfast.clock = '$day 10:00:02+00';
		SELECT holdfast.complete(job_id, lease_id, '{"ok": true}') FROM held WHERE n <= 5 OR n = 101;
		SELECT holdfast.complete(job_id, lease_id, '{"ok": true}') FROM held WHERE n = 1;
		SELECT f.* FROM held, holdfast.fail(job_id, lease_id, 'Http503', 'down', 'none') f WHERE n BETWEEN 6 AND 8;
		SELECT f.* FROM held, holdfast.fail(job_id, lease_id, 'ReadTimeout') f WHERE n BETWEEN 9 AND 11;
		SELECT f.* FROM held, holdfast.fail(job_id, lease_id, 'OddThing', side_effect => 'none') f WHERE n = 12;
		SELECT f.* FROM held, holdfast.fail(job_id, lease_id, 'ValidationError') f WHERE n = 102;
		SELECT f.* FROM held, holdfast.snooze(job_id, lease_id, '1 h') f WHERE n = 13;
		SELECT holdfast.cancel(job_id, 'why not', force => true) FROM held WHERE n = 14;
		SELECT holdfast.cancel(job_id) FROM held WHERE n = 15;
		SELECT holdfast.complete(job_id, gen_random_uuid()) FROM held WHERE n = 16;
		SELECT holdfast.pause_queue('plain', 'maintenance');
	));
	# a day without a partition, which holdfast.event_overflow takes
	sql($database, qq(
		SET holdfast.clock = '2041-05-05 10:00:00+00';
		SELECT holdfast.cancel(job_id) FROM holdfast.job WHERE subject = 's40';
	));
	sql($database, "INSERT INTO holdfast.setting VALUES ('token_floor', '9000000000000000')");
	is(sql($database, q(SELECT string_agg(DISTINCT state, ' ' ORDER BY state) FROM holdfast.ledger)),
		'committed failed_retryable failed_terminal planned started unknown', "$database: the ledger is in all its states");
	cmp_ok(sql($database, 'SELECT count(*) FROM holdfast.event_overflow'), '>', 0, "$database: events overflow");
	cmp_ok(sql($database, 'SELECT count(*) FROM holdfast.dead_job'), '>', 2, "$database: jobs are dead");
}

# Every relation with rows of the extension: how many, and a digest that any difference of any value changes.
sub digest
{
	my $database = shift;
	my @tables = split /\n/, sql($database, q(
		SELECT c.oid::regclass FROM pg_class c WHERE c.relnamespace = 'holdfast'::regnamespace AND c.relkind IN ('r', 'p') ORDER BY 1::text));
	my @lines = map {
		"$_ " . sql($database, "SELECT count(*), md5(coalesce(string_agg(md5(x::text), '' ORDER BY x::text COLLATE \"C\"), '')) FROM $_ x")
	} sort @tables;

	push @lines, sql($database, q(
		SELECT 'sequence', c.relname, pg_sequence_last_value(c.oid) FROM pg_class c
		WHERE c.relnamespace = 'holdfast'::regnamespace AND c.relkind = 'S' ORDER BY 2));
	push @lines, sql($database, q(SELECT * FROM holdfast.grants ORDER BY 1, 2, 3));
	push @lines, sql($database, q(SELECT * FROM holdfast.list_queues()));
	push @lines, sql($database, q(SELECT * FROM holdfast.list_retry_policies()));
	push @lines, sql($database, q(SELECT * FROM holdfast.list_error_rules('own')));
	# partitions: bounds, indexes, owner
	push @lines, sql($database, q(
		SELECT c.relname, pg_get_expr(c.relpartbound, c.oid), c.relowner::regrole,
			   (SELECT string_agg(pg_get_indexdef(indexrelid), '; ' ORDER BY indexrelid::regclass::text) FROM pg_index WHERE indrelid = c.oid)
		FROM pg_class c WHERE relispartition ORDER BY 1));
	push @lines, sql($database, q(
		SELECT p.proname, a.grantee::regrole, a.privilege_type FROM pg_proc p, aclexplode(p.proacl) a
		WHERE pronamespace = 'holdfast'::regnamespace AND a.grantee::regrole::text LIKE 'dump%' ORDER BY 1, 2, 3));
	return join "\n", @lines;
}

# It works: who holds a lease still holds it, the next job is claimed, nothing is enqueued twice.
sub check_works
{
	my ($database, $day, $name) = @_;

	is(sql($database, qq(
		SET holdfast.clock = '$day 10:00:30+00';
		SELECT holdfast.complete(job_id, lease_id) FROM held WHERE n = 20;
		SELECT holdfast.complete(job_id, lease_id) FROM held WHERE n = 2;
		SELECT outcome FROM held, holdfast.heartbeat(job_id, lease_id) WHERE n = 21;
	)), "completed\nconflict\nextended", "$name: leases hold, and the history of those that ended is known");
	is(sql($database, qq(
		SET holdfast.clock = '$day 10:00:30+00';
		SELECT count(*), min(attempt_number), bool_and(fencing_token >= 9000000000000000) FROM holdfast.claim('mail', 'w2', 5);
	)), '5|2|t', "$name: a claim works, what is to be tried again comes first, and tokens are above the floor");
	is(sql($database, qq(
		SET holdfast.clock = '$day 10:00:30+00';
		SELECT outcome FROM holdfast.enqueue('mail', 'send', 'later');
		SELECT outcome, job_id > (SELECT max(job_id) FROM held) FROM holdfast.enqueue('mail', 'send', 'new');
	)), "duplicate\ncreated|t", "$name: intents are known, and new jobs get new ids");
	my $events = 'SELECT count(*), count(DISTINCT event_id) FROM (SELECT event_id FROM holdfast.event UNION ALL SELECT event_id FROM holdfast.event_overflow) e';
	# beforehand: what it parks for the open stream is evidence that it adds
	sql($database, "SET holdfast.clock = '$day 10:00:31+00'; SELECT FROM holdfast.settle_all_streams()");
	my $before = sql($database, $events);
	sql($database, "SET holdfast.clock = '2041-05-05 10:00:00+00'; SELECT FROM holdfast.make_partitions()");
	sql($database, "SET holdfast.clock = '$day 10:00:31+00'; SELECT FROM holdfast.maintain()");
	is(sql($database, $events), $before, "$name: maintain() loses no event");
	is(sql($database, 'SELECT count(*) FROM holdfast.event_overflow'), '0', "$name: ... and finds a place for each, in a partition made late");
	is(sql($database, qq(
		SELECT count(*) - count(DISTINCT event_id) FROM (SELECT event_id FROM holdfast.event UNION ALL SELECT event_id FROM holdfast.event_overflow) e
	)), '0', "$name: no event id is given twice");
	is(sql($database, qq(
		SET holdfast.clock = '$day 10:00:30+00';
		SET ROLE dump_worker;
		SELECT count(*) FROM holdfast.claim('mail', 'w3');
	)), '1', "$name: a grant holds");
	my ($status, undef, $stderr) = $node->psql('postgres' eq $database ? 'postgres' : $database,
		"\\set VERBOSITY sqlstate\nSET ROLE dump_reader; SELECT * FROM holdfast.claim('mail', 'w3')");
	like($stderr, qr/42501/, "$name: and no more than it");
}

$node->safe_psql('postgres', 'CREATE ROLE dump_worker; CREATE ROLE dump_reader');
my $today = sql('postgres', q(SELECT (now() AT TIME ZONE 'UTC')::date));

my $n = 0;
for my $case ([ 'today', $today ], [ 'another day', '2024-02-28' ])
{
	my ($when, $day) = @$case;
	my $source = 'source_' . ++$n;

	fill($source, $day);
	my $expected = digest($source);

	my %dump = (plain => "$dir/$source.sql", custom => "$dir/$source.dump", directory => "$dir/$source.dir", tar => "$dir/$source.tar", inserts => "$dir/$source.inserts");
	$node->command_ok([ 'pg_dump', '-d', $node->connstr($source), '-f', $dump{plain} ], "$when: a plain dump");
	$node->command_ok([ 'pg_dump', '-Fc', '-d', $node->connstr($source), '-f', $dump{custom} ], "$when: a custom dump");
	$node->command_ok([ 'pg_dump', '-Fd', '-j2', '-d', $node->connstr($source), '-f', $dump{directory} ], "$when: a dump in a directory, by two");
	$node->command_ok([ 'pg_dump', '-Ft', '-d', $node->connstr($source), '-f', $dump{tar} ], "$when: a tar dump");
	$node->command_ok([ 'pg_dump', '--rows-per-insert=10', '-d', $node->connstr($source), '-f', $dump{inserts} ], "$when: a dump of INSERTs");
	is(digest($source), $expected, "$when: dumping changes nothing");

	for my $how ('psql', 'psql, one transaction', 'psql, INSERTs', 'pg_restore', 'pg_restore -j2', 'pg_restore -j4 of a directory', 'pg_restore of a tar file',
		'pg_restore, data apart', 'pg_restore, data apart, --disable-triggers')
	{
		my $name = "$how, $when";
		my $target = "target_" . ++$n;
		my @restore = ('pg_restore', '--exit-on-error', '-d', $node->connstr($target));

		$node->safe_psql('postgres', "CREATE DATABASE $target");
		if ($how =~ /^psql/)
		{
			$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', $how =~ /one/ ? '-1' : (), '-o', '/dev/null',
				'-d', $node->connstr($target), '-f', $dump{$how =~ /INSERT/ ? 'inserts' : 'plain'} ], "$name: restored");
		}
		elsif ($how =~ /apart/)
		{
			$node->command_ok([ @restore, "--section=$_", $how =~ /disable/ && $_ eq 'data' ? '--disable-triggers' : (), $dump{custom} ], "$name: restored $_")
				for qw(pre-data data post-data);
		}
		else
		{
			$node->command_ok([ @restore, $how =~ /(-j\d)/ ? "$1" : (), $dump{$how =~ /(directory|tar)/ ? "$1" : 'custom'} ], "$name: restored");
		}
		my ($got, $wanted) = (digest($target), $expected);
		if ($how =~ /disable/)
		{
			# That triggers were switched off, and back on, is DDL on the evidence, and on record.
			s/^holdfast\.finding .*$//m for $got, $wanted;
			cmp_ok(sql($target, "SELECT count(*) FROM holdfast.finding WHERE kind = 'evidence_ddl'"), '>', 0, "$name: is on record");
			is(sql($target, q(SELECT string_agg(t.tgrelid::regclass || '.' || t.tgname, ' ') FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
				WHERE c.relnamespace = 'holdfast'::regnamespace AND NOT t.tgisinternal AND t.tgenabled <> 'A')), '', "$name: all guards are on again");
		}
		is($got, $wanted, "$name: every row, sequence and privilege is the same");
		check_works($target, $day, $name);
		$node->safe_psql('postgres', "DROP DATABASE $target");
	}

	# a dump of a restored database is the same once more
	my $again = 'again_' . ++$n;
	$node->safe_psql('postgres', "CREATE DATABASE $again");
	$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr($again), $dump{custom} ], "$when: restored");
	$node->command_ok([ 'pg_dump', '-d', $node->connstr($again), '-f', "$dir/$again.sql" ], "$when: dumped again");
	my ($first, $second) = map { join '', grep { !/^\\(un)?restrict / } split /^/, slurp_file($_) } ($dump{plain}, "$dir/$again.sql");
	ok($first eq $second, "$when: the dump of a restored dump is that dump");
	check_works($source, $day, "the source, $when");
}

$node->stop;
done_testing();
