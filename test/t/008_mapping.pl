# Mappings of watched tables, made up (mapping.sql): watch() accepts one, or
# refuses it with a documented SQLSTATE, and where it is accepted the table can be
# written, but for an expression's own errors.  No backend dies.

use strict;
use warnings;
use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $mappings = $ENV{MAPPINGS} || 5_000;
my $seed = $ENV{INPUT_SEED} || 1;

my $node = PostgreSQL::Test::Cluster->new('mapping');
$node->init;
$node->append_conf('postgresql.conf', "fsync = off\nlog_min_messages = panic\nmax_stack_depth = 2MB\n");
$node->start;

sub sql { return $node->safe_psql('postgres', shift) }

my ($states) = slurp_file("$FindBin::Bin/../../docs/reference.md") =~ /^## SQLSTATE\n(.*?)^## /ms;
my @states = map { split /, / } $states =~ /^\| ([0-9A-Z]{5}(?:, [0-9A-Z]{5})*) \|/mg;

sql('CREATE EXTENSION holdfast');
sql(slurp_file("$FindBin::Bin/input.sql"));
sql(slurp_file("$FindBin::Bin/mapping.sql"));
sql("INSERT INTO input.documented VALUES ('$_')") for @states;

my ($status, $out, $err) = $node->psql('postgres', "CALL mapping.run($seed, $mappings)", timeout => 3600, on_error_stop => 1);
is($status, 0, "seed $seed: the session that gave $mappings mappings is alive") or diag($err);
is(sql('SELECT count(*) FROM mapping.answer'), $mappings, "seed $seed: each was answered");
is(sql('SELECT said, left(mapping::text, 600) FROM mapping.finding ORDER BY 1 LIMIT 20'), '', "seed $seed: only documented SQLSTATEs");
cmp_ok(sql(q(SELECT count(*) FROM mapping.answer WHERE sqlstate = '00000')), '>', $mappings / 20, 'many are accepted');
cmp_ok(sql(q(SELECT count(DISTINCT regexp_replace(message, '"[^"]*"', '""', 'g')) FROM mapping.answer WHERE sqlstate <> '00000')), '>', 20,
	'... and the others refused for many reasons');
note(sql(q(SELECT string_agg(format('%s %s', sqlstate, n), ', ' ORDER BY n DESC) FROM (SELECT sqlstate, count(*) AS n FROM mapping.answer GROUP BY 1) a)));

$node->stop;
done_testing();
