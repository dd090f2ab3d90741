# The server dies under load, with SIGKILL to every process of it (G10): what
# was acknowledged is there, once; what was not is one thing or the other, and
# can be found out; no effect lands twice.  SIGKILL is not a power failure: what
# the operating system was given, it keeps.

use strict;
use warnings;
use FindBin;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $cycles = $ENV{CRASH_CYCLES} || 6;
my $seed = $ENV{SEED} || int(rand(1e6));
diag("SEED=$seed CRASH_CYCLES=$cycles");
srand($seed);

my $node = PostgreSQL::Test::Cluster->new('crash');
$node->init;
$node->append_conf('postgresql.conf', "fsync = on\nsynchronous_commit = on\nmax_connections = 40\nlog_statement = none\nlog_line_prefix = '%e '\n");
$node->start;
$node->safe_psql('postgres', q(
	CREATE EXTENSION holdfast;
	SELECT holdfast.define_retry_policy('quick', '1 ms', 1, '1 ms', '0', '1 ms', max_attempts => 1000000, max_lost => 1000000,
		reconcile_delay => '1 ms', reconcile_max => 1000000);
	SELECT holdfast.create_queue('mail', lease => '1500 ms', timeout => '1 s', grace => '500 ms', retry_policy => 'quick');
	SELECT holdfast.create_queue('plain', lease => '1500 ms', timeout => '1 s', grace => '500 ms', retry_policy => 'quick',
		side_effects => false);
	CREATE TABLE own_write (job_id bigint, lease_id uuid);
	CREATE TABLE acked_enqueue (job_id bigint, key uuid, queue text, outcome text);
	CREATE TABLE acked_complete (job_id bigint, lease_id uuid, outcome text);
	CREATE TABLE lost_answer (job_id bigint, lease_id uuid, what text, repeated text);
	CREATE TABLE acked_own (job_id bigint, lease_id uuid);
	CREATE TABLE effect_landed (key uuid, times integer);
	CREATE TABLE retried_enqueue (outcome text);
	CREATE TABLE problem (what text);

	-- the events that end an attempt
	CREATE VIEW attempt_end AS
		SELECT job_id, attempt_number, lease_id, kind, at, event_id FROM holdfast.event
		WHERE lease_id IS NOT NULL AND
			  (kind IN ('action_attempt_succeeded', 'action_attempt_failed', 'action_attempt_lost', 'action_snoozed', 'action_released')
			   OR (kind = 'action_reconciled' AND worker_result IN ('landed', 'undetermined')));
));

# What holds at every moment, under load too: each query counts what breaks the rule.
my %rule = (
	'no job is both live and dead' =>
		'SELECT count(*) FROM holdfast.job JOIN holdfast.dead_job USING (job_id)',
	'no live or dead job has succeeded' => q(
		SELECT count(*) FROM (SELECT job_id FROM holdfast.job UNION ALL SELECT job_id FROM holdfast.dead_job) j
		JOIN holdfast.event e USING (job_id) WHERE e.kind = 'action_attempt_succeeded'),
	'a job succeeds at most once' => q(
		SELECT count(*) FROM (SELECT FROM holdfast.event WHERE kind = 'action_attempt_succeeded'
							  GROUP BY job_id HAVING count(*) > 1) x),
	'an attempt starts once, under a lease of its own' => q(
		SELECT count(*) - count(DISTINCT (job_id, attempt_number)) + count(*) - count(DISTINCT lease_id)
		FROM holdfast.event WHERE kind = 'action_attempt_started'),
	'every attempt of a live job is on record' => q(
		SELECT count(*) FROM holdfast.job j
		WHERE attempt_number <> (SELECT count(*) FROM holdfast.event e
								 WHERE e.job_id = j.job_id AND e.kind = 'action_attempt_started')),
	'an attempt has ended before the next one starts' => q(
		SELECT count(*) FROM holdfast.event s
		WHERE s.kind = 'action_attempt_started' AND s.attempt_number > 1 AND
			  NOT EXISTS (SELECT FROM attempt_end e WHERE e.job_id = s.job_id AND e.attempt_number = s.attempt_number - 1
						  AND (e.at, e.event_id) < (s.at, s.event_id))),
	'a running job holds the lease that its latest attempt was given' => q(
		SELECT count(*) FROM holdfast.job j WHERE status = 'running' AND NOT EXISTS
			(SELECT FROM holdfast.event e WHERE e.job_id = j.job_id AND e.attempt_number = j.attempt_number
			 AND e.kind = 'action_attempt_started' AND e.lease_id = j.lease_id)),
	'the ledger agrees with every live job' => q(
		SELECT count(*) FROM holdfast.job j LEFT JOIN holdfast.ledger l USING (idempotency_key)
		WHERE j.side_effects AND (l.job_id = j.job_id AND
			CASE WHEN j.mode = 'reconcile' THEN l.state = 'unknown' WHEN j.status = 'running' THEN l.state = 'started'
				 ELSE l.state IN ('planned', 'failed_retryable') END) IS NOT TRUE),
	'a committed effect has one success or finding on record' => q(
		SELECT count(*) FROM holdfast.ledger l WHERE state = 'committed' AND 1 <>
			(SELECT count(*) FROM holdfast.event e WHERE e.job_id = l.job_id AND
				(e.kind = 'action_attempt_succeeded' OR e.kind = 'action_reconciled' AND e.worker_result = 'landed'))),
	'unknown effects are listed' => q(
		SELECT count(*) FROM (SELECT idempotency_key FROM holdfast.ledger WHERE state = 'unknown') l
		FULL JOIN holdfast.unknown_effect u USING (idempotency_key) WHERE l IS NULL OR u IS NULL),
	'nothing of what was rolled back is there' => q(
		SELECT (SELECT count(*) FROM holdfast.job WHERE subject LIKE 'rolled%') +
			   (SELECT count(*) FROM holdfast.ledger WHERE subject LIKE 'rolled%') +
			   (SELECT count(*) FROM holdfast.event WHERE subject LIKE 'rolled%')),
);

sub check_rules
{
	my $when = shift;
	$node->safe_psql('postgres', 'ANALYZE holdfast.job, holdfast.ledger, holdfast.event');
	my @broken = grep { $node->safe_psql('postgres', $rule{$_}) ne '0' } sort keys %rule;

	is(join('; ', @broken), '', "G10: the rules hold $when");
}

# Every process of the server at once.  The postmaster is stopped first, so that it starts no other;
# and all of them are waited for, since one that still sits in a write keeps the shared memory in use.
sub kill_server
{
	my $postmaster = slurp_file($node->data_dir . '/postmaster.pid');
	my ($pid) = $postmaster =~ /^(\d+)/;

	kill 'STOP', $pid;
	wait_until('the postmaster to stop', sub { process_state($pid) eq 'T' });
	my @children = grep { parent($_) == $pid } map { m{(\d+)} } glob '/proc/[0-9]*';
	kill 'KILL', @children;
	$node->kill9;
	wait_until('the server to be gone', sub { !grep { process_state($_) !~ /^[ZX]?$/ } @children, $pid });
	wait_until('the postmaster to be reaped', sub { !kill 0, $pid });
	return scalar @children;
}

# What /proc says of a process, from the state on; nothing if there is no such process.
sub process
{
	my $pid = shift;

	open my $stat, '<', "/proc/$pid/stat" or return;
	return split ' ', (<$stat> // '') =~ s/.*\) //r;
}

sub process_state { return (process(shift))[0] // '' }
sub parent { return (process(shift))[1] // 0 }

sub wait_until
{
	my ($what, $condition) = @_;
	my $deadline = time + 60;

	until ($condition->())
	{
		die "waited a minute for $what" if time > $deadline;
		sleep 0.005;
	}
}

my $stopfile = $node->basedir . '/stop';
my ($out, $err) = ('', '');
my $load = IPC::Run::start(
	[ '/usr/bin/python3', "$FindBin::Bin/crash.py", $node->connstr('postgres') . ' user=' . getpwuid($<), $seed, $stopfile ],
	'<', \undef, '>', \$out, '2>', \$err);

my @recovery;
for my $cycle (1 .. $cycles)
{
	sleep 0.7 + rand(0.8);
	my $killed = kill_server();
	my $began = time;
	$node->start;
	push @recovery, time - $began;
	cmp_ok($killed, '>=', 8, "cycle $cycle: the server died under load");
	check_rules("after crash $cycle");
}
sleep 0.5;
append_to_file($stopfile, '');
$load->finish;
is($err, '', 'the clients ended well');
$node->safe_psql('postgres', 'VACUUM ANALYZE');

check_rules('at the end');

sub rows { return $node->safe_psql('postgres', shift) }

is(join('', grep { /^(XX|58)\w{3} ERROR/ } split /^/, slurp_file($node->logfile)), '', 'no internal error in the server log');
is(rows('SELECT what, count(*) FROM problem GROUP BY what ORDER BY 2 DESC LIMIT 5'), '', 'no error but lost connections, no wrong answer');
is(rows('SELECT count(*) FROM holdfast.job'), '0', 'everything drains: no job is left behind');
is(rows('SELECT count(*) FROM holdfast.dead_job'), '0', 'nothing died: no budget was used up by crashes');
is(rows(q(
	SELECT count(*) FROM acked_enqueue a WHERE outcome = 'created' AND NOT EXISTS
		(SELECT FROM holdfast.event e WHERE e.job_id = a.job_id AND
			(e.kind = 'action_attempt_succeeded' OR e.kind = 'action_reconciled' AND e.worker_result = 'landed')))),
	'0', 'G10: every acknowledged enqueue has come to an end that is on record');
is(rows(q(SELECT verdict, because FROM holdfast.attempt_pair WHERE verdict IN ('unexplained', 'retry_without_backoff') LIMIT 5)), '',
	'G3: every attempt after another was delayed by policy, or is explained otherwise');
cmp_ok(rows(q(SELECT count(*) FROM holdfast.attempt_pair WHERE verdict = 'legitimate_delayed_retry')), '>', 0, '... and some were delayed');
is(rows(q(SELECT reason, because FROM holdfast.stop_reason WHERE reason NOT IN ('succeeded', 'suppressed') LIMIT 5)), '',
	'G4: every job has ended well, and says so');
is(rows(q(SELECT count(*) - count(DISTINCT job_id) FROM acked_enqueue WHERE outcome = 'created')), '0', 'no job was created twice');
is(rows(q(SELECT count(*) FROM retried_enqueue WHERE outcome NOT IN ('created', 'duplicate', 'already_committed'))), '0',
	'G5: an enqueue that is repeated, since its answer was lost, is safe');
is(rows(q(
	SELECT count(*) FROM acked_complete a WHERE outcome = 'completed' AND 1 <>
		(SELECT count(*) FROM holdfast.event e WHERE e.job_id = a.job_id AND e.lease_id = a.lease_id
		 AND e.kind = 'action_attempt_succeeded'))),
	'0', 'G10: every acknowledged completion is there exactly once');
is(rows(q(SELECT outcome, count(*) FROM acked_complete WHERE outcome NOT IN ('completed', 'stale') GROUP BY outcome)), '',
	'a first report is completed, or stale after its lease');
is(rows(q(
	SELECT count(*) FROM acked_enqueue a LEFT JOIN holdfast.ledger l ON l.idempotency_key = a.key
	WHERE a.queue = 'mail' AND l.state IS DISTINCT FROM 'committed')), '0', 'the ledger says committed for each of them');
is(rows(q(
	SELECT count(*) FROM (SELECT DISTINCT key FROM acked_enqueue WHERE queue = 'mail') a LEFT JOIN effect_landed l USING (key)
	WHERE l.times IS DISTINCT FROM 1)), '0', 'G6: each side effect landed once, and none twice');
is(rows(q(
	SELECT count(*) FROM own_write o LEFT JOIN holdfast.event e ON e.job_id = o.job_id AND e.lease_id = o.lease_id
		AND e.kind = 'action_attempt_succeeded' WHERE e IS NULL)), '0', 'G7: what a worker wrote beside its report stands with the report');
is(rows('SELECT count(*) FROM acked_own a LEFT JOIN own_write o USING (job_id, lease_id) WHERE o IS NULL'), '0',
	'... and is not lost');

# Answers that were lost: what the repetition heard agrees with the record.
is(rows(q(
	SELECT count(*) FROM lost_answer l CROSS JOIN LATERAL
		(SELECT count(*) AS n FROM holdfast.event e WHERE e.job_id = l.job_id AND e.lease_id = l.lease_id
		 AND e.kind = 'action_attempt_succeeded') s
	WHERE repeated IS NOT NULL AND
		  NOT (CASE WHEN s.n = 1 THEN repeated IN ('completed', 'duplicate') WHEN s.n = 0 THEN repeated = 'stale' ELSE false END))),
	'0', 'G2: a report that is repeated, since its answer was lost, hears the truth');
is(rows(q(
	SELECT count(*) FROM lost_answer l CROSS JOIN LATERAL holdfast.outcome(l.job_id, l.lease_id) o
	WHERE (o.outcome = 'completed') <> EXISTS (SELECT FROM holdfast.event e WHERE e.job_id = l.job_id AND e.lease_id = l.lease_id
											   AND e.kind = 'action_attempt_succeeded'))),
	'0', 'G10: outcome() resolves every answer that was lost');

diag(rows(q(
	SELECT format('%s enqueues and %s completions acknowledged, %s and %s answers lost, %s leases lost, %s reconciled',
		(SELECT count(*) FROM acked_enqueue), (SELECT count(*) FROM acked_complete),
		(SELECT count(*) FROM retried_enqueue), (SELECT count(*) FROM lost_answer),
		(SELECT count(*) FROM holdfast.event WHERE kind = 'action_attempt_lost'),
		(SELECT count(*) FROM holdfast.event WHERE kind = 'action_reconciled')))));
diag(sprintf('recovery: %s s', join(' ', map { sprintf '%.2f', $_ } @recovery)));

$node->stop;
done_testing();
