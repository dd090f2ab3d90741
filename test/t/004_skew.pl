# The schema is newer than the library, as it is for a backend that was there
# before ALTER EXTENSION UPDATE: an answer type that has one column more, or one
# less, is an error that says so, or is filled with null, and never a crash.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('skew');
$node->init;
$node->append_conf('postgresql.conf', "log_statement = none\nlog_line_prefix = '%e '\nrestart_after_crash = on\n");
$node->start;

my @types = split /\n/, do {
	$node->safe_psql('postgres', 'CREATE EXTENSION holdfast');
	$node->safe_psql('postgres', q(
		SELECT c.oid::regclass FROM pg_class c WHERE c.relnamespace = 'holdfast'::regnamespace AND c.relkind = 'c' ORDER BY 1::text));
};
cmp_ok(scalar @types, '>=', 8, 'there are answer types');

# what a worker, a producer and an operator call
my @calls = (
	q(SELECT * FROM holdfast.enqueue('q', 'act', 's2')),
	q(SELECT * FROM holdfast.enqueue_batch('q', '[{"action_key": "act", "subject": "s3"}]')),
	q(SELECT * FROM holdfast.claim('q', 'w')),
	q(SELECT h.* FROM held, holdfast.heartbeat(job_id, lease_id) h WHERE n = 1),
	q(SELECT r.* FROM held, holdfast.ledger_transition(job_id, lease_id, 'started', 'part') r WHERE n = 1),
	q(SELECT r.* FROM held, holdfast.effects(job_id, lease_id) r WHERE n = 1),
	q(SELECT r.* FROM held, holdfast.outcome(job_id, lease_id) r WHERE n = 1),
	q(SELECT f.* FROM held, holdfast.fail(job_id, lease_id, 'TimeoutError') f WHERE n = 2),
	q(SELECT r.* FROM held, holdfast.reconcile(job_id, lease_id, 'landed') r WHERE n = 3),
	q(SELECT b.* FROM held, holdfast.complete_batch(ARRAY[job_id], ARRAY[lease_id]) b WHERE n = 4),
	q(SELECT b.* FROM held, holdfast.complete_and_claim('q', 'w', ARRAY[job_id], ARRAY[lease_id]) b WHERE n = 5),
	q(SELECT * FROM holdfast.settle_unknown((SELECT idempotency_key FROM holdfast.unknown_effect LIMIT 1), 'landed', '{}', 'seen')),
	q(SELECT * FROM holdfast.redrive((SELECT min(job_id) FROM holdfast.dead_job), 'repaired')),
	q(SELECT * FROM holdfast.redrive_queue('q', 'repaired')),
	q(SELECT * FROM holdfast.list_retry_policies()),
	q(SELECT * FROM holdfast.list_error_rules('default')),
	q(SELECT * FROM holdfast.maintain()));

for my $type (@types)
{
	my $last = $node->safe_psql('postgres',
		"SELECT attname FROM pg_attribute WHERE attrelid = '$type'::regclass AND attnum > 0 ORDER BY attnum DESC LIMIT 1");
	for my $change ("ADD ATTRIBUTE extra text", "DROP ATTRIBUTE \"$last\"", "ALTER ATTRIBUTE \"$last\" TYPE point")
	{
		$node->safe_psql('postgres', q(
			DROP EXTENSION holdfast CASCADE;
			CREATE EXTENSION holdfast;
			SELECT holdfast.create_queue('q');
			SELECT holdfast.enqueue('q', 'act', 'x' || n) FROM generate_series(1, 6) n;
			DROP TABLE IF EXISTS held;
			CREATE TABLE held AS SELECT job_id, lease_id, row_number() OVER () AS n FROM holdfast.claim('q', 'w', 6);
		));
		my ($altered, undef, $refused) = $node->psql('postgres', "ALTER TYPE $type $change");
		my $err = '';
		if ($altered == 0)
		{
			# one connection, as a worker's
			(undef, undef, $err) = $node->psql('postgres', join("\n", '\set VERBOSITY verbose', map { "$_;" } @calls), on_error_stop => 0);
		}
		my @bad = grep { /ERROR:|FATAL:|server closed|connection to server/ && !/ERROR:  (55000|42804|42846|JQ\d+|22\w+)/ } split /\n/, $err;
		is(join("\n", @bad), '', "$type: $change");
		$node->poll_query_until('postgres', 'SELECT true') if @bad;
	}
}
unlike(slurp_file($node->logfile), qr/terminated by signal/, 'no process crashed');

$node->stop;
done_testing();
