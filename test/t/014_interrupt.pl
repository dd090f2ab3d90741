# Calls cancelled, terminated and timed out in their middle (interrupt.py): all
# or nothing, and neither a lock nor a buffer is left behind.

use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Relay;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('interrupt');
$node->init;
$node->append_conf('postgresql.conf', "fsync = off\n");
$node->start;
local $ENV{PGHOST} = $node->host;
local $ENV{PGPORT} = $node->port;
$node->safe_psql('postgres', 'CREATE EXTENSION holdfast');

my $number = relay('interrupt.py');
cmp_ok($number, '>=', 30, 'calls were interrupted');
my $log = slurp_file($node->logfile);
unlike($log, qr/leak|terminated by signal|PANIC|TRAP|XX000/i, 'no leak of a buffer, a relation or a snapshot is reported, and no backend died');

$node->stop;
done_testing();
