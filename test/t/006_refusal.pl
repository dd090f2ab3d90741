# A refusal that a worker catches, and then commits, is on record (design, 3:
# remembered outside the transaction's state, recorded at its commit); one
# whose transaction is rolled back has happened to nobody.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('refusal');
$node->init;
$node->start;

sub sql { return $node->safe_psql('postgres', shift) }

sql(q(
	CREATE EXTENSION holdfast;
	SELECT holdfast.create_queue('mail');
	SELECT holdfast.enqueue('mail', 'act', 'held'), holdfast.enqueue('mail', 'act', 'looked for'), holdfast.enqueue('mail', 'act', 'free');
	CREATE TABLE held AS SELECT * FROM holdfast.claim('mail', 'w', 2);
));
sql(q(SELECT decision FROM held, holdfast.fail(job_id, lease_id, 'TimeoutError') WHERE subject = 'looked for'));
sql(q(
	SET holdfast.clock = '2040-01-01 00:00:00+00';
	CREATE TABLE looking AS SELECT * FROM holdfast.claim('mail', 'w', modes => 'reconcile');
));
sql(q(CREATE FUNCTION refused(statement text) RETURNS text LANGUAGE plpgsql AS
	'BEGIN EXECUTE statement; RETURN ''accepted''; EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE; END'));
sql(q(CREATE VIEW violation AS SELECT detail->>'sqlstate' AS sqlstate, subject, attempt_number
	FROM (SELECT * FROM holdfast.event UNION ALL SELECT * FROM holdfast.event_overflow) e WHERE kind = 'action_violation'));

my @refused = (
	# SQLSTATE, subject, statement: what is caught, and of which job
	[ 'JQ001', 'held', q(SELECT holdfast.complete(job_id, gen_random_uuid(), strict => true) FROM held WHERE subject = 'held') ],
	[ 'JQ001', 'held', q(SELECT holdfast.assert_lease(job_id, gen_random_uuid()) FROM held WHERE subject = 'held') ],
	[ 'JQ003', 'looked for', q(SELECT holdfast.complete(job_id, lease_id) FROM looking) ],
	[ 'JQ006', 'held', q(SELECT holdfast.snooze(job_id, lease_id, '0 s') FROM held WHERE subject = 'held') ],
	[ 'JQ006', 'held', q(SELECT holdfast.schedule_retry(job_id, lease_id, '0 s') FROM held WHERE subject = 'held') ],
	[ 'JQ007', 'held', q(SELECT holdfast.enqueue('mail', 'act', 'held', '{"n": 2}')) ],
);
for my $refused (@refused)
{
	my ($state, $subject, $statement) = @$refused;
	my $count = qq(SELECT count(*) FROM violation WHERE sqlstate = '$state' AND subject = '$subject');
	my $call = 'SELECT refused($$' . $statement . '$$)';
	my $before = sql($count);
	is(sql($call), $state, "$state: $statement");
	is(sql($count) - $before, 1, "G7: a refusal that is caught is on record at commit: $state");
	$before = sql($count);
	sql("BEGIN; $call; ROLLBACK");
	is(sql($count) - $before, 0, "G7: one that is rolled back is not: $state");
	sql("BEGIN; SAVEPOINT s; $call; ROLLBACK TO s; COMMIT");
	is(sql($count) - $before, 1, "G7: a savepoint does not lose it: $state");
}

my $jq008 = q(DO $$
DECLARE
	c	record;
BEGIN
	SELECT * INTO STRICT c FROM holdfast.claim('mail', 'w', modes => 'execute');
	BEGIN
		PERFORM holdfast.complete(c.job_id, c.lease_id);
	EXCEPTION WHEN SQLSTATE 'JQ008' THEN NULL;
	END;
END $$);
sql($jq008);
is(sql(q(SELECT sqlstate FROM violation WHERE subject = 'free')), 'JQ008', 'G7: settling in the transaction that claimed is on record');
is(sql(q(SELECT status FROM holdfast.job WHERE subject = 'free')), 'running', 'G7: and the claim is committed');
is(sql(q(SELECT count(*) FROM holdfast.finding f JOIN holdfast.job j USING (job_id) WHERE j.subject = 'free')), 1, 'G7: a refusal is a finding');

done_testing();
