# The server dies under load, with SIGKILL to every process of it or to one
# backend, and connections are cut around COMMIT (G10): crash.py.

use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Relay;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('crash');
$node->init;
$node->append_conf('postgresql.conf', "fsync = on\nsynchronous_commit = on\nrestart_after_crash = on\nmax_connections = 40\n"
	. "log_statement = none\nlog_line_prefix = '%e '\n");
$node->start;
relay('crash.py', $node->config_data('--bindir'), $node->data_dir, $node->logfile, $node->host, $node->port);
is(join('', grep { /^(XX|58)\w{3} ERROR/ } split /^/, slurp_file($node->logfile)), '', 'no internal error in the server log');
$node->stop;
done_testing();
