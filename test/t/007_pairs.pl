# Ten thousand generated histories with known answers: every pair that the
# rules ask for and no other, each with its verdict (test/model/pairs.py).

use strict;
use warnings;
use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $histories = $ENV{PAIR_HISTORIES} || 5000;
my @seeds = split /,/, $ENV{PAIR_SEEDS} || '1,2';

my $node = PostgreSQL::Test::Cluster->new('pairs');
$node->init;
$node->append_conf('postgresql.conf', "fsync = off\n");
$node->start;
local $ENV{PGHOST} = $node->host;
local $ENV{PGPORT} = $node->port;

foreach my $seed (@seeds)
{
	my @command = ('/usr/bin/python3', "$FindBin::Bin/../model/pairs.py", '--histories', $histories, '--seed', $seed);
	my $out = '';
	my $same = IPC::Run::run(\@command, '>&', \$out);
	ok($same, "seed $seed: $histories histories, every pair and verdict as the rules say") or diag($out);
}

$node->stop;
done_testing();
