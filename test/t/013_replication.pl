# Logical replication to a subscriber with holdfast installed: the same rows,
# none twice and none of the subscriber's own; and after the publisher is gone
# it is the queue, once the sequences and the tokens' floor are raised.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($publisher, $subscriber) = map { PostgreSQL::Test::Cluster->new($_) } ('publisher', 'subscriber');
$publisher->init(allows_streaming => 'logical');
$subscriber->init(allows_streaming => 'logical');
$_->append_conf('postgresql.conf', "fsync = off\n") for $publisher, $subscriber;
$_->start for $publisher, $subscriber;

sub on { my ($node, $sql) = @_; return $node->safe_psql('postgres', $sql) }

# every table but the subscriber's own: the front of its sessions, and the definitions that its verify() compares
sub rows
{
	my $node = shift;
	my @tables = split /\n/, on($node, q(
		SELECT c.oid::regclass FROM pg_class c WHERE c.relnamespace = 'holdfast'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
			AND c.relname NOT IN ('claim_front', 'definition') ORDER BY 1::text));
	return join "\n", map { "$_ " . on($node, "SELECT count(*), md5(coalesce(string_agg(md5(x::text), '' ORDER BY x::text COLLATE \"C\"), '')) FROM $_ x") } @tables;
}

on($_, 'CREATE EXTENSION holdfast; SELECT FROM holdfast.make_partitions()') for $publisher, $subscriber;
on($publisher, q(
	SELECT holdfast.create_queue('mail'), holdfast.define_retry_policy('own', '1 s', min_delay => '1 s');
	SELECT holdfast.enqueue('mail', 'send', 'early ' || n, jsonb_build_object('n', n)) FROM generate_series(1, 30) n;
));
on($publisher, on($publisher, q(
	SELECT format('CREATE PUBLICATION queue FOR TABLE %s WITH (publish_via_partition_root = true)', string_agg(c.oid::regclass::text, ', '))
	FROM pg_class c
	WHERE c.relnamespace = 'holdfast'::regnamespace AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND NOT c.relispartition AND c.relname <> 'definition')));
on($subscriber, "CREATE SUBSCRIPTION queue CONNECTION '" . $publisher->connstr . " dbname=postgres' PUBLICATION queue");
$subscriber->wait_for_subscription_sync($publisher, 'queue');
is(rows($subscriber), rows($publisher), 'what was there before is copied');

# one of everything, while it is replicated
on($publisher, q(CREATE TABLE held AS SELECT job_id, lease_id, row_number() OVER () AS n FROM holdfast.claim('mail', 'w', 20)));
on($publisher, q(
	SELECT holdfast.complete(job_id, lease_id) FROM held WHERE n <= 4;
	SELECT holdfast.complete(job_id, lease_id) FROM held WHERE n = 1;
	SELECT f.decision FROM held, holdfast.fail(job_id, lease_id, 'Boom') f WHERE n BETWEEN 5 AND 7;
	SELECT f.decision FROM held, holdfast.fail(job_id, lease_id, 'ValidationError') f WHERE n = 8;
	SELECT f.decision FROM held, holdfast.snooze(job_id, lease_id, '1 min') f WHERE n = 9;
	SELECT holdfast.cancel(job_id, 'why', true) FROM held WHERE n = 10;
	SELECT outcome FROM held, holdfast.heartbeat(job_id, gen_random_uuid()) WHERE n = 11;
	SELECT holdfast.enqueue('mail', 'send', 'late ' || n) FROM generate_series(1, 10) n;
	SELECT holdfast.pause_queue('mail', 'a while'), holdfast.resume_queue('mail');
	SELECT holdfast.alter_queue('mail', grace => '10 s');
	UPDATE holdfast.job SET priority = 7 WHERE subject = 'late 1';
));
# days without a partition overflow, and are moved later
on($publisher, q(SET holdfast.clock = '2041-05-05 10:00:00+00'; SELECT holdfast.cancel(job_id) FROM holdfast.job WHERE subject = 'late 2'));
$publisher->wait_for_catchup('queue');
is(rows($subscriber), rows($publisher), 'G7: the same rows after claims, reports, operators and plain SQL: none twice, and none of its own');
on($subscriber, q(SET holdfast.clock = '2041-05-05 10:00:00+00'; SELECT FROM holdfast.make_partitions()));	# that day, too
on($publisher, q(SELECT * FROM holdfast.maintain(); SELECT * FROM holdfast.redrive_queue('mail', 'why')));
$publisher->wait_for_catchup('queue');
is(rows($subscriber), rows($publisher), 'and after upkeep');
unlike(slurp_file($subscriber->logfile), qr/ERROR/, 'the subscriber had nothing to complain of');

# The publisher is gone, and the subscriber becomes the queue: docs/operating.md.
my $floor = on($publisher, 'SELECT max(fencing_token) FROM holdfast.job');
$publisher->stop('immediate');
on($subscriber, 'ALTER SUBSCRIPTION queue DISABLE; ALTER SUBSCRIPTION queue SET (slot_name = NONE)');
on($subscriber, 'DROP SUBSCRIPTION queue');
on($subscriber, q(
	SELECT setval('holdfast.queue_id_seq', (SELECT max(queue_id) FROM holdfast.queue) + 1000);
	SELECT setval('holdfast.job_id_seq', (SELECT max(job_id) FROM holdfast.event_all) + 1000000);
	SELECT setval('holdfast.event_id_seq', (SELECT max(event_id) FROM holdfast.event_all) + 1000000);
));
on($subscriber, "SELECT holdfast.post_restore($floor + 1)");
is(on($subscriber, q(SELECT outcome FROM holdfast.enqueue('mail', 'send', 'late 3'))), 'duplicate', 'G5: intents are known');
is(on($subscriber, q(SELECT outcome FROM holdfast.enqueue('mail', 'send', 'new'))), 'created', 'new jobs get new ids');
is(on($subscriber, "SELECT count(*), bool_and(fencing_token > $floor) FROM holdfast.claim('mail', 'w2', 3)"), '3|t', 'G1: it hands out jobs, with greater tokens');
is(on($subscriber, q(SELECT count(*) - count(DISTINCT event_id) FROM holdfast.event_all)), 0, 'and no event id is given twice');

$subscriber->stop;
done_testing();
