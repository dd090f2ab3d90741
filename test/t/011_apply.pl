# The real logical apply worker replays what was guarded where it was made: the
# guards of the subscriber let it pass, leave no events of their own, and stop
# anybody else, also one who only pretends, by session_replication_role.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my %node;
for my $name (qw(publisher subscriber))
{
	$node{$name} = PostgreSQL::Test::Cluster->new($name);
	$node{$name}->init(allows_streaming => 'logical');
	$node{$name}->start;
	$node{$name}->safe_psql('postgres', 'CREATE EXTENSION holdfast');
}
my ($pub, $sub) = @node{qw(publisher subscriber)};
my $tables = 'holdfast.queue, holdfast.job, holdfast.dead_job, holdfast.ledger, holdfast.unknown_effect, holdfast.setting';

$pub->safe_psql('postgres', "CREATE PUBLICATION all_jobs FOR TABLE $tables");
$sub->safe_psql('postgres', "CREATE SUBSCRIPTION all_jobs CONNECTION '" . ($pub->connstr('postgres') =~ s/'/''/gr) . "' PUBLICATION all_jobs");
$sub->wait_for_subscription_sync($pub, 'all_jobs') if $sub->can('wait_for_subscription_sync');
$pub->safe_psql('postgres', q(
	SELECT holdfast.create_queue('mail');
	SELECT holdfast.enqueue('mail', 'act', 's' || n) FROM generate_series(1, 6) n;
	CREATE TABLE held AS SELECT job_id, lease_id, row_number() OVER () AS n FROM holdfast.claim('mail', 'w', 5);
));
$pub->safe_psql('postgres', q(
	SELECT holdfast.complete(job_id, lease_id) FROM held WHERE n = 1;
	SELECT f.decision FROM held, holdfast.fail(job_id, lease_id, 'TimeoutError') f WHERE n = 2;
	SELECT f.decision FROM held, holdfast.fail(job_id, lease_id, 'Http503', side_effect => 'none') f WHERE n = 3;
	SELECT f.decision FROM held, holdfast.fail(job_id, lease_id, 'ValidationError') f WHERE n = 4;
));
$pub->wait_for_catchup('all_jobs');

# without the hint where a row lies, which is another's
my $digest = q(SELECT md5(concat(
	(SELECT string_agg((to_jsonb(j) - 'ledger_place')::text, ';' ORDER BY job_id) FROM holdfast.job j),
	(SELECT string_agg((to_jsonb(d) - 'ledger_place')::text, ';' ORDER BY job_id) FROM holdfast.dead_job d),
	(SELECT string_agg(l::text, ';' ORDER BY idempotency_key) FROM holdfast.ledger l),
	(SELECT string_agg(u::text, ';' ORDER BY idempotency_key) FROM holdfast.unknown_effect u))));
is($sub->safe_psql('postgres', $digest), $pub->safe_psql('postgres', $digest), 'claims, ends and ledger states arrive unchanged');
is($sub->safe_psql('postgres', 'SELECT count(*) FROM holdfast.job'), '4', '... and all of them');
is($sub->safe_psql('postgres', 'SELECT count(*) FROM holdfast.event_all'), '0', 'the subscriber writes no event of its own');
is($sub->safe_psql('postgres', 'SELECT count(*) FROM holdfast.finding'), '0', '... nor a finding');

my (undef, undef, $err) = $sub->psql('postgres', "\\set VERBOSITY sqlstate\nSET session_replication_role = replica; UPDATE holdfast.job SET attempt_number = 0 WHERE status = 'running'");
like($err, qr/JQ004/, 'session_replication_role = replica is not the apply worker');

$sub->safe_psql('postgres', 'DROP SUBSCRIPTION all_jobs');
$_->stop for values %node;
done_testing();
