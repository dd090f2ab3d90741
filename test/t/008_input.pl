# Bad input, made up: calls of every function with every argument, as roles that
# are granted one queue (input.sql).  Only SQLSTATEs of docs/reference.md come
# back, nothing of another queue or of the settings changes, and no backend dies.

use strict;
use warnings;
use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $calls = $ENV{INPUT_CALLS} || 100_000;
my $seed = $ENV{INPUT_SEED} || 1;

my $node = PostgreSQL::Test::Cluster->new('input');
$node->init;
$node->append_conf('postgresql.conf', "fsync = off\nlog_min_messages = panic\nmax_stack_depth = 2MB\n");
$node->start;

sub sql { return $node->safe_psql('postgres', shift) }

# What is documented: the rows of the section SQLSTATE, and the functions that have a row of their own.
my $reference = slurp_file("$FindBin::Bin/../../docs/reference.md");
my ($states) = $reference =~ /^## SQLSTATE\n(.*?)^## /ms;
my @states = map { split /, / } $states =~ /^\| ([0-9A-Z]{5}(?:, [0-9A-Z]{5})*) \|/mg;
my ($tables) = $reference =~ /^(## Queues.*?)^## Settings/ms;
my %public = map { $_ => 1 } map { /\b([a-z_]+)\(/g } map { (split /\|/)[1] } $tables =~ /^(\| [a-z_]+\(.*)/mg;
cmp_ok(scalar(@states), '>', 12, 'docs/reference.md lists SQLSTATEs');
cmp_ok(scalar(keys %public), '>', 40, '... and functions');

sql('CREATE EXTENSION holdfast; CREATE ROLE input_worker; CREATE ROLE input_any');
sql(slurp_file("$FindBin::Bin/input.sql"));
sql("INSERT INTO input.documented VALUES ('$_')") for @states;
sql("INSERT INTO input.public VALUES ('$_')") for sort keys %public;
sql('CALL input.set_scene()');
sql('CALL input.list_functions()');
is(sql(q(SELECT count(DISTINCT state) FROM (SELECT state FROM holdfast.ledger UNION ALL SELECT status FROM holdfast.job UNION ALL SELECT mode FROM holdfast.job) s)),
	10, 'the scene has jobs and ledger rows in all their states');
is(sql(q(SELECT DISTINCT t::regtype FROM input.function f, unnest(f.types) t WHERE input.any_value(t::regtype) IS NULL)), '',
	'there are bad values for every type of an argument');

my ($status, $out, $err) = $node->psql('postgres', "SET holdfast.clock = '2030-01-01 00:01:10+00'; CALL input.run($seed, $calls)",
	timeout => 1800, on_error_stop => 1);
is($status, 0, "seed $seed: the session that made $calls calls is alive") or diag($err);
is(sql('SELECT sum(calls) FROM input.answer'), $calls, "seed $seed: all calls were answered");
is(sql('SELECT said, role, left(call, 600) FROM input.finding ORDER BY 1 LIMIT 20'), '',
	"G13: seed $seed: only documented SQLSTATEs, and nothing changed that is not the role's");
is(sql(q(SELECT f.name FROM input.function f WHERE NOT EXISTS (SELECT FROM input.answer a WHERE a.function = f.name AND a.role <> 'none'))), '',
	"seed $seed: every function was called");
is(sql(q(SELECT f.name FROM input.function f WHERE f.open AND NOT EXISTS (SELECT FROM input.answer a WHERE a.function = f.name AND a.sqlstate = '00000'))), '',
	"seed $seed: every function of a worker was also called in a way that it accepts");
note(sql(q(SELECT string_agg(format('%s %s', sqlstate, n), ', ' ORDER BY n DESC) FROM (SELECT sqlstate, sum(calls) AS n FROM input.answer GROUP BY 1) a)));

$node->stop;
done_testing();
