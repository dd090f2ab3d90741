# G12 under an old snapshot, which keeps the index entries of finished jobs: a
# backend that has not claimed yet begins at the front that another has left in
# claim_front, and a front hides nothing that is due.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('front');
$node->init;
$node->append_conf('postgresql.conf', "autovacuum = off\nfsync = off\n");
$node->start;

# Each of these is a backend of its own, and so begins without a hint.
sub sql { return $node->safe_psql('postgres', shift) }
sub claim { return sql(q(SELECT subject FROM holdfast.claim('mail', 'w'))) }
sub fronts { return sql('SELECT count(*) FROM holdfast.claim_front') }

# The buffers that the first claim of a backend reads, once its caches are filled.
sub buffers
{
	my $plan = sql(q(SELECT FROM holdfast.claim('empty', 'w'); EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM holdfast.claim('mail', 'w')));
	my ($hit, $read) = $plan =~ /"Shared Hit Blocks": (\d+),\s+"Shared Read Blocks": (\d+)/;
	return $hit + $read;
}

sql(q(
	CREATE EXTENSION holdfast;
	SELECT holdfast.define_retry_policy('quick', '1 ms', 1, '1 ms', '0', '1 ms');
	SELECT holdfast.create_queue('mail', lease => '1 h', timeout => '10 ms', grace => '0', retry_policy => 'quick', side_effects => false);
	SELECT holdfast.create_queue('empty');
	SELECT count(*) FROM generate_series(1, 3010) i, holdfast.enqueue('mail', 'act', 'job-' || i);
));

my $old = $node->background_psql('postgres');
$old->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT txid_current()');

# One job is left running below the front; 3,000 are done; nine wait.
is(sql(q(SELECT subject FROM holdfast.claim('mail', 'a worker that dies', lease => '3 s'))), 'job-1', 'the first job is claimed and left');
is(sql(q(
	CREATE TABLE claimed AS SELECT c.* FROM generate_series(1, 30) i, holdfast.claim('mail', 'w-' || i, 100) c;
	SELECT count(*) FROM holdfast.complete_batch((SELECT array_agg(job_id) FROM claimed), (SELECT array_agg(lease_id) FROM claimed))
	WHERE outcome = 'completed';
)), '3000', '3,000 are done');
is(fronts(), '0', 'nobody has walked far yet');
sql(q(BEGIN; SELECT FROM holdfast.claim('mail', 'w'); ROLLBACK));
is(fronts(), '0', 'a claim that rolls back leaves no front');
# ANALYZE has a backend forget its hints, and next_wakeup() read the front that its own transaction has left.
my $own = $node->background_psql('postgres');
$own->query_safe(q(BEGIN; SELECT subject FROM holdfast.claim('mail', 'w', 2)));
sql('ANALYZE holdfast.job');
$own->query_safe(q(SELECT holdfast.next_wakeup('mail'); ROLLBACK));
is($own->query_safe(q(BEGIN; SELECT subject FROM holdfast.claim('mail', 'w'))), 'job-3002', 'G9: nor does its own backend go by it after a rollback');
$own->query_safe('ROLLBACK');
$own->quit;

my $walked = buffers();
is(fronts(), '1', 'a claim that has walked far leaves its hint');
my $begun = buffers();
cmp_ok($walked - $begun, '>', 150, 'G12: the next new backend begins there, and does not read the pages of what is done');
note("buffers: $walked to walk, $begun to begin");
is(claim(), 'job-3004', 'G9: and what it hands out is next in turn');

$node->poll_query_until('postgres', q(SELECT coalesce(max(lease_expires_at), '-infinity') < clock_timestamp() FROM holdfast.job WHERE subject = 'job-1'))
	or die 'the lease does not end';
claim();
is(sql(q(SELECT count(*) FROM holdfast.event_all WHERE subject = 'job-1' AND kind = 'action_attempt_lost')), '1',
	'G8: a lease that has ended below the front is found');

# A test's clock is its own, and a front of the future, as after the clock was set back, is not believed.
sql(q(SET holdfast.clock = '2100-01-01 00:00:00+00'; SELECT FROM holdfast.claim('mail', 'w')));
is(sql(q(SELECT count(*) FROM holdfast.claim_front WHERE clock > clock_timestamp())), '0', 'a frozen clock leaves no front');
sql(q(BEGIN; SELECT holdfast.permit_ddl('a test plants a row'); ALTER TABLE holdfast.claim_front DISABLE TRIGGER guard_before;
	UPDATE holdfast.claim_front SET clock = clock + '1 day', run_after = run_after + '1 day';
	ALTER TABLE holdfast.claim_front ENABLE ALWAYS TRIGGER guard_before; COMMIT));
like(claim(), qr/^job-/, 'G10: a front of the future hides nothing');

$node->stop('immediate');
$node->start;
is(fronts(), '0', 'after a crash there is no front');
like(claim(), qr/^job-/, 'G10: and what is due is handed out');

$node->stop;
done_testing();
