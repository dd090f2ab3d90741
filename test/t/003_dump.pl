# A dump restored elsewhere is the same queue: every row of every table, the
# figures, the sequences, the grants; and it works at once, without any setting,
# today and on another day.

use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use EveryState;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('dump');
$node->init;
$node->append_conf('postgresql.conf', "log_statement = none\nlog_line_prefix = '%e '\n");
$node->start;

my $dir = $node->basedir;

$node->safe_psql('postgres', 'CREATE ROLE dump_worker; CREATE ROLE dump_reader');
my $today = sql($node, 'postgres', q(SELECT (now() AT TIME ZONE 'UTC')::date));

my $n = 0;
for my $case ([ 'today', $today ], [ 'another day', '2024-02-28' ])
{
	my ($when, $day) = @$case;
	my $source = 'source_' . ++$n;

	fill($node, $source, $day);
	my $expected = digest($node, $source);
	my $verdicts = verdicts($node, $source, $day);

	my %dump = (plain => "$dir/$source.sql", custom => "$dir/$source.dump", directory => "$dir/$source.dir", tar => "$dir/$source.tar", inserts => "$dir/$source.inserts");
	$node->command_ok([ 'pg_dump', '-d', $node->connstr($source), '-f', $dump{plain} ], "$when: a plain dump");
	$node->command_ok([ 'pg_dump', '-Fc', '-d', $node->connstr($source), '-f', $dump{custom} ], "$when: a custom dump");
	$node->command_ok([ 'pg_dump', '-Fd', '-j2', '-d', $node->connstr($source), '-f', $dump{directory} ], "$when: a dump in a directory, by two");
	$node->command_ok([ 'pg_dump', '-Ft', '-d', $node->connstr($source), '-f', $dump{tar} ], "$when: a tar dump");
	$node->command_ok([ 'pg_dump', '--rows-per-insert=10', '-d', $node->connstr($source), '-f', $dump{inserts} ], "$when: a dump of INSERTs");
	is(digest($node, $source), $expected, "$when: dumping changes nothing");

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
		my ($got, $wanted) = (digest($node, $target), $expected);
		if ($how =~ /disable/)
		{
			# That triggers were switched off, and back on, is DDL on the evidence, and on record.
			s/^holdfast\.finding .*$//m for $got, $wanted;
			cmp_ok(sql($node, $target, "SELECT count(*) FROM holdfast.finding WHERE kind = 'evidence_ddl'"), '>', 0, "$name: is on record");
			is(sql($node, $target, q(SELECT string_agg(t.tgrelid::regclass || '.' || t.tgname, ' ') FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
				WHERE c.relnamespace = 'holdfast'::regnamespace AND NOT t.tgisinternal AND t.tgenabled <> 'A')), '', "$name: all guards are on again");
		}
		is($got, $wanted, "$name: every row, sequence and privilege is the same");
		is(verdicts($node, $target, $day), $verdicts, "$name: it says the same of them") unless $how =~ /disable/;
		check_works($node, $target, $day, $name);
		$node->safe_psql('postgres', "DROP DATABASE $target");
	}

	# a dump of a restored database is the same once more
	my $again = 'again_' . ++$n;
	$node->safe_psql('postgres', "CREATE DATABASE $again");
	$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr($again), $dump{custom} ], "$when: restored");
	$node->command_ok([ 'pg_dump', '-d', $node->connstr($again), '-f', "$dir/$again.sql" ], "$when: dumped again");
	my ($first, $second) = map { join '', grep { !/^\\(un)?restrict / } split /^/, slurp_file($_) } ($dump{plain}, "$dir/$again.sql");
	ok($first eq $second, "$when: the dump of a restored dump is that dump");
	check_works($node, $source, $day, "the source, $when");
}

$node->stop;
done_testing();
