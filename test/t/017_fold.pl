# The oracle that 001_crash judges by would see a row that is not the fold of its events (fold_broken.py).

use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Relay;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('fold');
$node->init;
$node->append_conf('postgresql.conf', "fsync = off\n");
$node->start;
local $ENV{PGHOST} = $node->host;
local $ENV{PGPORT} = $node->port;
local $ENV{PGDATABASE} = 'postgres';
cmp_ok(relay('fold_broken.py'), '>=', 35, 'many ways');
$node->stop;
done_testing();
