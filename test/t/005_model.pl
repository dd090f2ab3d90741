# The engine against a reference model: random calls from several sessions, some
# within transactions that are open at the same time, under a frozen clock; each
# answer, the rows and events that a call may touch, and every 1,000 calls
# everything, compared (test/model/run.py).

use strict;
use warnings;
use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $calls = $ENV{MODEL_CALLS} || 100_000;
my $seed = $ENV{MODEL_SEED} || 1;
my $processes = $ENV{MODEL_PROCESSES} || 2;

my $node = PostgreSQL::Test::Cluster->new('model');
$node->init;
$node->append_conf('postgresql.conf', "fsync = off\n");
$node->start;
local $ENV{PGHOST} = $node->host;
local $ENV{PGPORT} = $node->port;

sub run_model
{
	my $out = '';
	my $same = IPC::Run::run([ '/usr/bin/python3', "$FindBin::Bin/../model/run.py", @_ ], '>&', \$out);
	return ($same, $out);
}

my ($same, $out) = run_model('--calls', $calls, '--round', 5000, '--seed', $seed, '--processes', $processes);
ok($same, "G1 to G11: $calls calls from seed $seed on, as the design says") or diag($out);
note($out);

# A model that is wrong must be found out, and the sequence be short and paste.
($same, $out) = run_model('--calls', 2000, '--seed', 1, '--break', '--shrink-seconds', 60);
my ($before, $after) = $out =~ /^shrunk from (\d+) calls to (\d+):$/m;
ok(!$same && defined $after && $after <= $before / 2, 'a model that is wrong about budgets is found out, and the sequence made short') or diag($out);
note("shrunk from $before calls to $after") if defined $after;
my ($pasted) = $out =~ /^(CREATE EXTENSION.*?)^-- fail/ms;
$node->safe_psql('postgres', 'CREATE DATABASE pasted');
my ($status, $answer, $errors) = $node->psql('pasted', $pasted // 'nothing', on_error_stop => 0);
unlike($errors, qr/syntax error|does not exist|invalid input|could not/, 'the sequence is SQL that can be pasted');
like($answer, qr/^(retry|reconcile|dead)\|/m, '... and ends with the answer that the model did not expect');

$node->stop;
done_testing();
