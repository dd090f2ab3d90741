# The engine against a reference model: random calls from several sessions
# under a frozen clock; each answer and each row compared (test/model/model.py).

use strict;
use warnings;
use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# "time": an event about a job that is gone does not know a report that was
# stale a microsecond before it; docs/limits.md says so.
my $calls = $ENV{MODEL_CALLS} || 3000;
my @seeds = split /,/, $ENV{MODEL_SEEDS} || '1,2,3,4';

my $node = PostgreSQL::Test::Cluster->new('model');
$node->init;
$node->append_conf('postgresql.conf', "fsync = off\n");
$node->start;
local $ENV{PGHOST} = $node->host;
local $ENV{PGPORT} = $node->port;

foreach my $seed (@seeds)
{
	my $hint = $seed % 2 ? 'on' : 'check';
	my @command = ('/usr/bin/python3', "$FindBin::Bin/../model/model.py", '--calls', $calls, '--seed', $seed, '--scan-hint', $hint,
		'--tolerate', $ENV{MODEL_TOLERATE} || 'time');
	my $out = '';
	my $same = IPC::Run::run(\@command, '>&', \$out);
	ok($same, "seed $seed: $calls calls as the design says, scan_hint $hint") or diag($out);
}

$node->stop;
done_testing();
