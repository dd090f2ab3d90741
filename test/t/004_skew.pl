# The schema is newer than the library, as it is for a backend that was there
# before ALTER EXTENSION UPDATE: a function whose answer has one column more, or
# one less, or one of another type says so, or PostgreSQL does, and nothing crashes.

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
	q(SELECT f.* FROM held, holdfast.fail(job_id, lease_id, 'TimeoutError') f WHERE n = 7),
	q(SELECT r.* FROM held, holdfast.reconcile(job_id, lease_id, 'landed') r WHERE n = 3),
	q(SELECT b.* FROM held, holdfast.complete_batch(ARRAY[job_id], ARRAY[lease_id]) b WHERE n = 4),
	q(SELECT b.* FROM held, holdfast.complete_and_claim('q', 'w', ARRAY[job_id], ARRAY[lease_id]) b WHERE n = 8),
	q(SELECT * FROM holdfast.settle_unknown((SELECT idempotency_key FROM holdfast.unknown_effect WHERE job_id = 2), 'landed', '{}', 'seen')),
	q(SELECT * FROM holdfast.redrive((SELECT min(job_id) FROM holdfast.dead_job), 'repaired')),
	q(SELECT * FROM holdfast.redrive_queue('q', 'repaired')),
	q(SELECT * FROM holdfast.recover('jobs', '1', 'repaired')),
	q(SELECT * FROM holdfast.recoverable()),
	q(SELECT * FROM holdfast.explain(1)),
	q(SELECT * FROM holdfast.timeline('x1')),
	q(SELECT * FROM holdfast.attempt_pair),
	q(SELECT * FROM holdfast.verdicts('2020-01-01', '2040-01-01')),
	q(SELECT * FROM holdfast.metrics('q')),
	q(SELECT * FROM holdfast.verify()),
	q(SELECT * FROM holdfast.import_attempts('log', '[]')),
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
			SELECT holdfast.create_queue('q', lease => '1 h');
			SELECT holdfast.enqueue('q', 'act', 'x' || n) FROM generate_series(1, 8) n;
			DROP TABLE IF EXISTS held, jobs;
			CREATE TABLE held AS SELECT job_id, lease_id, row_number() OVER () AS n FROM holdfast.claim('q', 'w', 8);
			SELECT holdfast.fail(job_id, lease_id, CASE n WHEN 3 THEN 'TimeoutError' ELSE 'ValidationError' END) FROM held WHERE n IN (3, 6);
			-- five minutes on, one is being reconciled
			SELECT set_config('holdfast.clock', to_char(now() + interval '5 min', 'YYYY-MM-DD HH24:MI:SSOF'), false);
			UPDATE held SET lease_id = c.lease_id FROM holdfast.claim('q', 'w', modes => 'reconcile') c WHERE c.job_id = held.job_id;
			SELECT decision FROM holdfast.fail(2, (SELECT lease_id FROM held WHERE job_id = 2), 'TimeoutError');
			CREATE TABLE jobs (id integer, status text, attempts integer, max_attempts integer, run_after timestamptz);
			SELECT holdfast.watch('jobs', '{"id": "id", "status": "status", "attempt_number": "attempts", "max_attempts": "max_attempts", "run_after": "run_after"}');
			INSERT INTO jobs VALUES (1, 'running', 1, 5);
			UPDATE jobs SET status = 'failed';
			-- one attempt was reported twice
			SELECT holdfast.complete(5, (SELECT lease_id FROM held WHERE job_id = 5)), holdfast.complete(5, (SELECT lease_id FROM held WHERE job_id = 5));
		));
		my ($altered, undef, $refused) = $node->psql('postgres', "ALTER TYPE $type $change");
		my $err = '';
		is($altered, 0, "$type: $change") or diag($refused);
		# one connection, as a worker's
		(undef, undef, $err) = $node->psql('postgres', join("\n", '\set VERBOSITY verbose', map { "$_;" } @calls), on_error_stop => 0);
		my @said = grep { /ERROR:|FATAL:|server closed|connection to server/ } split /\n/, $err;
		my @bad = grep { !/ERROR:  (55000: reconnect: library older than schema|42804|42846|42P13|42601|22P02)/ } @said;	# all but the first are PostgreSQL's own
		is(join("\n", @bad), '', '... no call errs otherwise');
		cmp_ok(@said - @bad, '>', 0, '... and one says so') unless $type eq 'holdfast.import_result';	# PL/pgSQL, which casts what it can
		$node->poll_query_until('postgres', 'SELECT true') if @bad;
	}
}
unlike(slurp_file($node->logfile), qr/terminated by signal/, 'no process crashed');

$node->stop;
done_testing();
