# The incident on a table of one's own: six workers with its bug, by the real
# clock, in each mode.  observe records every immediate retry with both
# attempts; in correct the second attempt comes at the policy's time, and no
# row is stuck; in enforce it cannot come early, and everything else works.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use constant { JOBS => 200, WORKERS => 6 };

my $node = PostgreSQL::Test::Cluster->new('worker');
$node->init;
$node->start;

sub sql { return $node->safe_psql('postgres', shift) }

# The base delay is 300 ms, and the jitter up to 200.
sql(q(
	CREATE EXTENSION holdfast;
	SELECT holdfast.define_retry_policy('soon', '300 ms', 2, '1 s', '200 ms', '1 ms');
	CREATE TABLE jobs (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), status text NOT NULL DEFAULT 'pending', attempts int NOT NULL DEFAULT 0,
		run_after timestamptz NOT NULL DEFAULT now(), worker text);
	SELECT holdfast.watch('jobs', '{"id": "id", "status": "status", "attempt_number": "attempts", "run_after": "run_after", "worker_name": "worker",
		"retry_policy": "soon", "succeeded": ["done"]}');
));

# Runs the workers in a mode; their sums of claims, timeouts, successes, refusals.
sub run_workers
{
	my ($mode) = @_;
	sql("DELETE FROM jobs; SELECT holdfast.watch('jobs', mode => '$mode'); INSERT INTO jobs SELECT FROM generate_series(1, " . JOBS . ')');
	my @out = ('') x WORKERS;
	my @workers = map {
		IPC::Run::start [ '/usr/bin/python3', 'test/queues/worker.py', $node->connstr('postgres'), "w$_" ], '<', \undef, '>', \$out[$_]
	} 0 .. WORKERS - 1;
	my @sum = (0) x 4;
	for my $n (0 .. WORKERS - 1)
	{
		ok($workers[$n]->finish, "$mode: worker $n ends well");
		my @done = split ' ', $out[$n];
		$sum[$_] += $done[$_] for 0 .. 3;
	}
	note("$mode: claims, timeouts, successes, refused: @sum");
	return @sum;
}

my $now = q(WITH j AS (SELECT a.* FROM holdfast.attempt a JOIN jobs ON a.job_id = jobs.id::text WHERE a.source = 'public.jobs'),
	p AS (SELECT b.*, a.outcome AS before, a.finished_at AS failed_at, a.next_not_before AS allowed_at FROM j b JOIN j a ON a.job_id = b.job_id AND a.attempt_number = b.attempt_number - 1),
	v AS (SELECT v.* FROM holdfast.violation v JOIN jobs ON v.id = jobs.id::text));

my ($claims, $timeouts, $successes, $refused) = run_workers('observe');
is("$timeouts $successes $refused", JOBS . ' ' . JOBS . ' 0', 'observe: every job times out once and is done');
is(sql("$now SELECT count(*) FROM j"), $claims, 'G7: every claim is an attempt on record');
is(sql("$now SELECT count(*) FROM j WHERE outcome IS NULL OR finished_at < started_at"), 0, 'G7: and each has its end');
is(sql("$now SELECT count(*) || ' ' || count(*) FILTER (WHERE detail ? 'previous_lease_id' AND attempt_number = 2 AND previous_attempt = 1) FROM v WHERE violation = 'retry_without_backoff'"),
	JOBS . ' ' . JOBS, 'G3: each immediate retry is on record, with both attempts');
is(sql("$now SELECT count(*) FROM v WHERE violation = 'requeue_without_delay' AND action = 'recorded'"), JOBS, 'G3: and so is each requeue that led to it');

($claims, $timeouts, $successes, $refused) = run_workers('correct');
is("$timeouts $successes $refused", JOBS . ' ' . JOBS . ' 0', 'correct: every job is done: no row is stuck');
is(sql("$now SELECT count(*) FROM j"), $claims, 'G7: every claim is an attempt on record');
is(sql("$now SELECT count(*) || ' ' || count(*) FILTER (WHERE started_at >= allowed_at AND allowed_at > failed_at) FROM p"),
	JOBS . ' ' . JOBS, 'G3: no second attempt before the policy\'s time');
# the delay counts from the statement's BEFORE trigger, the failure is noted by its AFTER trigger
is(sql("$now SELECT count(*) FROM p WHERE abs(extract(epoch FROM allowed_at - failed_at - holdfast.backoff_delay('soon', holdfast.job_seed(job_id), 1))) > 0.25"), 0,
	'G11: which is the one that can be recomputed');
is(sql("$now SELECT string_agg(DISTINCT violation || ' ' || action, ', ') FROM v"), 'requeue_without_delay corrected', 'what was corrected is on record');

($claims, $timeouts, $successes, $refused) = run_workers('enforce');
is("$claims $timeouts $successes $refused", JOBS . ' 0 0 ' . JOBS, 'enforce: every requeue is refused, and every worker claims on');
is(sql("$now SELECT count(*) FROM p"), 0, 'G3: no second attempt');
sql(q(UPDATE jobs SET status = 'done'));
is(sql("$now SELECT count(*) FROM j WHERE outcome = 'succeeded'"), JOBS, 'enforce: what breaks nothing is recorded as ever');

# deleted in one transaction, entered again in another: a success, and another row of that id
sql(q(DELETE FROM jobs; INSERT INTO jobs (id) VALUES ('d0000000-0000-4000-8000-000000000001'); UPDATE jobs SET status = 'running'));
sql(q(DELETE FROM jobs));
sql(q(INSERT INTO jobs (id) VALUES ('d0000000-0000-4000-8000-000000000001')));
is(sql("$now SELECT outcome FROM j"), 'succeeded', 'a row that is entered again later does not take its deletion back');

done_testing();
