# G1, G2: a database that has forgotten the last that it acknowledged, and goes
# on.  A standby that was behind is promoted, and then another of the same
# primary; a server with synchronous_commit off crashes; a point-in-time
# recovery ends before the claims; a dump is restored that is older than they.
# In each no lease that is forgotten is honoured again, by any call, each of
# which hears what docs/operating.md says and is on record; and every fencing
# token is greater than all that any of the servers handed out before for the
# job or for the intent.
#
# FAILOVER_ROUNDS rounds of two promotions each, and the others once.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $rounds = $ENV{FAILOVER_ROUNDS} || 1;

# ---------------------------------------------------------------- what was acknowledged, anywhere

my %greatest;		# "job 7", or an idempotency key -> its greatest fencing token
my %known;			# lease -> true
my @wrong;			# tokens that are not greater, leases that were given before
my $tokens = 0;
my $refused = 0;	# calls under forgotten leases that were answered and recorded

# A database: [node, name].
sub sql { my ($db, $sql) = @_; return $db->[0]->safe_psql($db->[1], $sql) }

# Claim, and check every token and lease: [job, lease] each.
sub claim
{
	my ($db, $queue, $worker, $qty, $setting) = @_;
	my $rows = sql($db, ($setting // '') .
		"SELECT job_id, lease_id, fencing_token, idempotency_key FROM holdfast.claim('$queue', '$worker', $qty)");
	my @granted;
	for my $row (map { [ split /\|/ ] } split /\n/, $rows)
	{
		my ($job, $lease, $token, $key) = @$row;
		for my $what ("job $job", $key)
		{
			push @wrong, "$what: $token after $greatest{$what}" if defined $greatest{$what} && $token <= $greatest{$what};
			$greatest{$what} = $token;
		}
		push @wrong, "lease $lease was given before" if $known{$lease}++;
		push @granted, [ $job, $lease ];
		$tokens++;
	}
	return @granted;
}

# ---------------------------------------------------------------- the scene

sub install
{
	my $db = shift;
	sql($db, q(
		CREATE EXTENSION holdfast;
		SELECT holdfast.define_retry_policy('quick', '1 ms', 1, '1 ms', '0', '1 ms', reconcile_delay => '1 ms');
		SELECT holdfast.create_queue(q, lease => '1 h', retry_policy => 'quick', side_effects => q = 'mail') FROM unnest(ARRAY['mail', 'plain']) q;

		-- what a call answers, or its SQLSTATE
		CREATE FUNCTION told(call text, job bigint, lease uuid) RETURNS text LANGUAGE plpgsql AS $$
		DECLARE
			answer text;
		BEGIN
			EXECUTE call INTO answer USING job, lease;
			RETURN answer;
		EXCEPTION WHEN OTHERS THEN
			RETURN SQLSTATE;
		END $$;
	));
}

sub settled { my ($db, $call, @leases) = @_; return sql($db, told($call, @leases)) }

# SQL that makes a call under each lease: "ANSWER xN" each
sub told
{
	my ($call, @leases) = @_;
	return "SELECT answer || ' x' || count(*) FROM (SELECT told(\$\$SELECT $call\$\$, job, lease) AS answer FROM (VALUES " .
		join(', ', map { "($_->[0]::bigint, '$_->[1]'::uuid)" } @leases) . ") AS v (job, lease) OFFSET 0) t GROUP BY answer ORDER BY 1;";
}

my $turn = 0;

# What the copy will know: jobs that wait, jobs that ended, and jobs under leases that it goes on with.
sub known_part
{
	my $db = shift;
	my %scene = (turn => ++$turn, forgotten => [], unborn => []);

	sql($db, "SELECT holdfast.enqueue('mail', 'send', 'known ' || n || ' of $turn') FROM generate_series(1, 8) n;
		SELECT holdfast.enqueue('plain', 'resize', 'known ' || n || ' of $turn') FROM generate_series(1, 4) n");
	$scene{kept} = [ claim($db, 'mail', 'kept', 3), claim($db, 'plain', 'kept', 1) ];
	my ($done) = claim($db, 'mail', 'done', 1);
	settled($db, 'holdfast.complete($1, $2)', $done);
	$scene{last_job} = sql($db, 'SELECT max(job_id) FROM holdfast.job');
	return \%scene;
}

# What it will not know.  With a setting, which is to hold for all of it, nothing may be committed in between without.
sub forgotten_part
{
	my ($db, $scene, $setting) = @_;
	my $before = $setting // '';
	my @claimed = (claim($db, 'mail', 'forgotten', 3, $setting), claim($db, 'plain', 'forgotten', 2, $setting));

	sql($db, "$before
		SELECT decision FROM holdfast.fail($claimed[0][0], '$claimed[0][1]', 'ConnectionRefusedError');
		SELECT decision FROM holdfast.fail($claimed[3][0], '$claimed[3][1]', 'TimeoutError');
		SELECT holdfast.complete($claimed[1][0], '$claimed[1][1]');
		SELECT outcome FROM holdfast.heartbeat($claimed[2][0], '$claimed[2][1]');
		SELECT holdfast.complete($scene->{kept}[0][0], '$scene->{kept}[0][1]');
		SELECT decision FROM holdfast.fail($scene->{kept}[1][0], '$scene->{kept}[1][1]', 'TimeoutError');
		SELECT count(*) FROM generate_series(1, 40) n, holdfast.enqueue('mail', 'send', 'forgotten ' || n || ' of $scene->{turn}', priority => -n);
		SELECT pg_sleep(0.003)");
	forget($scene, @claimed, claim($db, 'mail', 'forgotten', 2, $setting), claim($db, 'mail', 'again', 2, $setting), claim($db, 'plain', 'again', 1, $setting));
}

# The copy knows the jobs of these leases, or not even them.
sub forget
{
	my ($scene, @leases) = @_;
	push @{ $scene->{$_->[0] > $scene->{last_job} ? 'unborn' : 'forgotten'} }, $_ for @leases;
}

# ---------------------------------------------------------------- the judge

# Every call that acts under a lease; those that answer "stale" write so.
my %acts = (
	complete => 'holdfast.complete($1, $2)',
	complete_batch => 'outcome FROM holdfast.complete_batch(ARRAY[$1], ARRAY[$2])',
	complete_and_claim => q(outcome FROM holdfast.complete_and_claim('idle', 'w', ARRAY[$1], ARRAY[$2])),
	fail => q(decision FROM holdfast.fail($1, $2, 'TimeoutError')),
	schedule_retry => q(decision FROM holdfast.schedule_retry($1, $2, '1 s')),
	snooze => q(decision FROM holdfast.snooze($1, $2, '1 s')),
	release => 'decision FROM holdfast.release($1, $2)',
	heartbeat => 'outcome FROM holdfast.heartbeat($1, $2)',
	reconcile => q(outcome FROM holdfast.reconcile($1, $2, 'not_landed')),
	ledger_transition => q(outcome FROM holdfast.ledger_transition($1, $2, 'committed')));
my %raises = (
	assert_lease => 'holdfast.assert_lease($1, $2)',
	'complete, strict' => 'holdfast.complete($1, $2, strict => true)');
my %asks = (
	validate_lease => [ 'holdfast.validate_lease($1, $2)', 'false', 'false' ],
	effects => [ 'count(*) FROM holdfast.effects($1, $2)', '0', '0' ],
	outcome => [ 'outcome FROM holdfast.outcome($1, $2)', 'stale', 'unknown_job' ]);
my %ended = (%asks, outcome => [ $asks{outcome}[0], 'lost' ]);

my %beaten;
my $stored = q(SELECT md5(string_agg(r, '' ORDER BY r)) FROM (
	SELECT j::text AS r FROM holdfast.job j UNION ALL SELECT d::text FROM holdfast.dead_job d UNION ALL SELECT l::text FROM holdfast.ledger l
	UNION ALL SELECT u::text FROM holdfast.unknown_effect u) x);
my $on_record = q(SELECT count(*) FILTER (WHERE kind = 'stale') || ' ' || count(*) FILTER (WHERE kind = 'refusal') || ' ' ||
	(SELECT count(*) FROM holdfast.event_all WHERE kind = 'action_stale_report') FROM holdfast.finding);

# Every call under each of the leases is answered so, changes nothing, and is on record; ended: stale, and lost.
sub refuses
{
	my ($db, $name, $answer, @leases) = @_;
	my $n = @leases;
	my $stale = $answer ne 'unknown_job';
	my $asks = $answer eq 'ended' ? \%ended : \%asks;
	$answer = 'stale' if $stale;
	my ($rows, $record) = (sql($db, $stored), sql($db, $on_record));
	my (%heard, %wanted);

	for my $call (sort keys %acts)
	{
		$heard{$call} = settled($db, $acts{$call}, @leases);
		$wanted{$call} = "$answer x$n";
	}
	for my $call (sort keys %raises)
	{
		$heard{$call} = settled($db, $raises{$call}, @leases);
		$wanted{$call} = "JQ001 x$n";
	}
	for my $call (sort keys %$asks)
	{
		my ($sql, $if_stale, $if_unknown) = @{ $asks->{$call} };
		$heard{$call} = settled($db, $sql, @leases);
		$wanted{$call} = ($stale ? $if_stale : $if_unknown) . " x$n";
	}
	is_deeply(\%heard, \%wanted, "G2: $name: every call hears $answer");
	is(sql($db, $stored), $rows, "G2: $name: nothing is changed");
	my ($found, $refusals, $events) = split ' ', $record;
	# a lease's stale heartbeats are recorded once
	my $acts = $stale ? $n * (keys(%acts) - 1) + grep { !$beaten{"@$db $_->[1]"}++ } @leases : 0;
	my $raises = $stale ? $n * keys %raises : 0;
	is(sql($db, $on_record), join(' ', $found + $acts, $refusals + $raises, $events + $acts), "G2: $name: each is on record");
	$refused += $acts + $raises;
}

# A standby reads, and does nothing else: 25006.
sub on_standby
{
	my ($db, $kept) = @_;
	my ($job, $lease) = @$kept;
	my %writes = (%acts, %raises,
		enqueue => q(holdfast.enqueue('mail', 'send', 's')),
		enqueue_batch => q(holdfast.enqueue_batch('mail', '[]')),
		claim => q(holdfast.claim('mail', 'w')),
		claim_any => q(holdfast.claim_any(ARRAY['mail'], 'w')),
		cancel => 'holdfast.cancel($1)',
		redrive => q(holdfast.redrive($1, 'why')),
		redrive_queue => q(holdfast.redrive_queue('mail', 'why')),
		settle_unknown => q(holdfast.settle_unknown($2, 'landed', '{}', 'why')),
		purge_queue => q(holdfast.purge_queue('mail')),
		pause_queue => q(holdfast.pause_queue('mail')),
		create_queue => q(holdfast.create_queue('other')),
		grant_queue => q(holdfast.grant_queue('mail', 'nobody', 'worker')),
		post_restore => 'holdfast.post_restore(1)',
		maintain => 'holdfast.maintain()');
	my @reads = (q(metrics('mail')), 'metrics_all()', "explain($job)", "timeline(job_id => $job)", 'list_queues()', 'attempt', 'attempt_pair', 'stop_reason', 'verify()',
		"outcome($job, '$lease')", "validate_lease($job, '$lease')", "effects($job, '$lease')", q(next_wakeup('mail')), 'recoverable()');
	my %heard;

	for my $call (sort keys %writes)
	{
		(my $sql = $writes{$call}) =~ s/\$1/$job\::bigint/g;
		$sql =~ s/\$2/'$lease'::uuid/g;
		my (undef, undef, $stderr) = $db->[0]->psql($db->[1], "\\set VERBOSITY sqlstate\nSELECT $sql");
		$heard{$call} = $stderr =~ /(\w{5})$/ ? $1 : "no error: $stderr";
	}
	is_deeply(\%heard, { map { $_ => '25006' } keys %writes }, 'a standby refuses everything that writes: 25006');
	my %failed;
	for my $read (@reads)
	{
		my ($status, undef, $stderr) = $db->[0]->psql($db->[1], "SELECT * FROM holdfast.$read");
		$failed{$read} = $stderr if $status;
	}
	is_deeply(\%failed, {}, 'and reads');
}

sub judge
{
	my ($db, $name, $scene) = @_;
	my @forgotten = @{ $scene->{forgotten} };
	my @unborn = @{ $scene->{unborn} };

	sql($db, "SELECT holdfast.create_queue('idle') WHERE NOT EXISTS (SELECT FROM holdfast.queue WHERE queue_name = 'idle')");
	if ($scene->{ended})
	{
		# docs/operating.md, step 1: after the last of them is over, and before anybody is let in
		sql($db, "SET holdfast.clock = '" . sql($db, q(SELECT now() + interval '2 h')) . "'; SELECT FROM holdfast.maintain()");
		refuses($db, "$name, leases that were ended", 'ended', @{ $scene->{kept} });
	}
	refuses($db, "$name, forgotten leases", 'stale', @forgotten);
	refuses($db, "$name, leases of forgotten jobs", 'unknown_job', @unborn);

	# Forgotten ids may be given again, to other intents, and what is due is due.
	sql($db, "SELECT count(*) FROM generate_series(1, 80) n, holdfast.enqueue('mail', 'send', 'new ' || n || ' of $scene->{turn}')");
	my @granted = (claim($db, 'mail', 'new', 1000), claim($db, 'plain', 'new', 1000));
	my %by_job = map { $_->[0] => 1 } @granted;
	my @reborn = grep { $by_job{$_->[0]} } @unborn;
	cmp_ok(scalar(grep { $by_job{$_->[0]} } @forgotten), '>', 0, "G10: $name: what is not known to be done is handed out again");
	is(join("\n", @wrong), '', "G1: $name: fencing tokens are greater than every one before, and no lease is given twice");
	refuses($db, "$name, forgotten leases, beside new ones", 'stale', grep { $by_job{$_->[0]} } @forgotten);
	cmp_ok(scalar(@reborn), '>', 0, "$name: ids of forgotten jobs are given to others");
	refuses($db, "$name, forgotten leases of jobs whose ids were given again", 'stale', @reborn);
	is(settled($db, 'holdfast.validate_lease($1, $2)', @granted), 'true x' . @granted, "G1: $name: the new leases hold");

	# Leases that it knows are leases: a report that was forgotten is made again.
	my @kept = @{ $scene->{kept} };
	if (!$scene->{ended})
	{
		is(settled($db, 'holdfast.complete($1, $2)', @kept), 'completed x' . @kept, "G10: $name: a lease that it knows holds");
		is(settled($db, 'holdfast.complete($1, $2)', @kept), 'duplicate x' . @kept, "G2: $name: ... and is settled once");
	}
	is(settled($db, 'holdfast.complete($1, $2)', @granted), 'completed x' . @granted, "G2: $name: the new leases are settled");
	refuses($db, "$name, forgotten leases of jobs that are done", 'stale', grep { $by_job{$_->[0]} } @forgotten);
	is(sql($db, q(SELECT check_name, object, problem FROM holdfast.verify())), '', "$name: verify() has nothing to report");
	is(sql($db, q(SELECT verdict, because FROM holdfast.attempt_pair WHERE verdict IN ('unexplained', 'retry_without_backoff') LIMIT 3)), '',
		"G3: $name: every retry is explained");
	forget($scene, @granted);	# if there is another copy
}

# ---------------------------------------------------------------- a standby that is behind, and another

# What would be forgotten only now and then is not to be: nothing else may flush the log.
my $settings = "shared_buffers = 32MB\nwal_buffers = 4MB\nautovacuum = off\nbgwriter_lru_maxpages = 0\nwal_writer_delay = 10s\nholdfast.scan_hint = check\n" .
	"log_statement = none\nlog_line_prefix = '%e '\n";
my @logs;

sub new_node
{
	my ($name, $setup) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	$setup->($node);
	push @logs, $node->logfile;
	return $node;
}

# It keeps its sessions, and will replay nothing more.
sub cut_off
{
	my $node = shift;
	$node->append_conf('postgresql.conf', "primary_conninfo = ''");
	$node->reload;
	$node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM pg_stat_wal_receiver') or die 'the standby is not cut off';
}

# A front that would hide what is due from each new session: unlogged, it must not come along.
sub plant_front
{
	my $db = shift;
	sql($db, q(BEGIN; SELECT holdfast.permit_ddl('a test plants a row'); ALTER TABLE holdfast.claim_front DISABLE TRIGGER guard_before;
		INSERT INTO holdfast.claim_front SELECT queue_id, false, 0, now() - interval '1 ms', 0, 'infinity', 0, 'infinity', now() FROM holdfast.queue;
		ALTER TABLE holdfast.claim_front ENABLE ALWAYS TRIGGER guard_before; COMMIT));
}

my $primary = new_node('primary0', sub { $_[0]->init(allows_streaming => 1); $_[0]->append_conf('postgresql.conf', $settings) });
$primary->start;
install([ $primary, 'postgres' ]);

for my $round (1 .. $rounds)
{
	my $db = [ $primary, 'postgres' ];
	$primary->backup('copy');
	my @standby = map {
		new_node("standby$round$_", sub { $_[0]->init_from_backup($primary, 'copy', has_streaming => 1); $_[0]->start })
	} 'a', 'b';
	my $scene = known_part($db);
	$primary->wait_for_catchup($_, 'replay') for @standby;
	cut_off($_) for @standby;

	# a session of before the promotion, which has read the settings
	my $old = $standby[0]->background_psql('postgres');
	is($old->query_safe(q(SELECT holdfast.next_wakeup('mail'))), '0', "round $round: a standby says that jobs are due");
	on_standby([ $standby[0], 'postgres' ], $scene->{kept}[0]) if $round == 1;

	forgotten_part($db, $scene);
	plant_front($db);
	$primary->stop('immediate');

	$standby[0]->promote;
	is(sql([ $standby[0], 'postgres' ], 'SELECT count(*) FROM holdfast.claim_front'), '0', "round $round: no front comes along");
	is($old->query_safe(q(SELECT count(*) FROM holdfast.claim('mail', 'w', 1, modes => 'reconcile'))), '0',
		"round $round: a session of before the promotion claims");
	judge([ $standby[0], 'postgres' ], "round $round, a standby", $scene);
	$old->quit;
	$standby[0]->stop('immediate');

	$standby[1]->promote;
	judge([ $standby[1], 'postgres' ], "round $round, the second standby of the same primary", $scene);
	$_->clean_node for $primary, $standby[0];
	$primary = $standby[1];
}

my $db = [ $primary, 'postgres' ];

# ---------------------------------------------------------------- a crash with synchronous_commit off

# What /proc says of a process; nothing if there is no such process.
sub process
{
	my $pid = shift;
	open my $status, '<', "/proc/$pid/status" or return '';
	return join '', <$status>;
}

# Every process at once, the WAL writer among them, which is stopped already.
sub kill_server
{
	my $node = shift;
	my ($postmaster) = slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/;
	my @all = grep { $_ == $postmaster || process($_) =~ /^PPid:\s+$postmaster$/m } map { m{(\d+)} } glob '/proc/[0-9]*';

	kill 'KILL', @all;
	$node->kill9;
	for (1 .. 6000)
	{
		return if !grep { process($_) =~ /^State:\s+[^ZX]/m } @all;
		sleep 0.01;
	}
	die 'the server is not gone';
}

{
	my $scene = known_part($db);
	sql($db, 'CHECKPOINT');
	kill 'STOP', sql($db, q(SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'));
	my $at = sql($db, 'SELECT pg_current_wal_insert_lsn()');
	my $events = sql($db, 'SELECT max(event_id) FROM holdfast.event_all');
	forgotten_part($db, $scene, 'SET synchronous_commit = off;');
	is(sql($db, "SELECT pg_current_wal_flush_lsn() <= '$at'"), 't', 'synchronous_commit off: nothing of it is on disk');
	kill_server($primary);
	$primary->start;
	is(sql($db, 'SELECT max(event_id) FROM holdfast.event_all'), $events, 'synchronous_commit off: it is lost in a crash');
	judge($db, 'synchronous_commit off', $scene);
}

# ---------------------------------------------------------------- a point-in-time recovery

{
	$primary->enable_archiving;
	$primary->restart;
	$primary->backup('base');
	my $scene = known_part($db);
	my $until = sql($db, 'SELECT clock_timestamp()');
	forgotten_part($db, $scene);
	my $segment = sql($db, 'SELECT pg_walfile_name(pg_switch_wal())');
	$primary->poll_query_until('postgres', "SELECT coalesce(last_archived_wal >= '$segment', false) FROM pg_stat_archiver") or die 'nothing is archived';
	my $floor = 1000 + sql($db, 'SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint');
	my $recovered = new_node('recovered', sub {
		$_[0]->init_from_backup($primary, 'base', has_restoring => 1, standby => 0);
		$_[0]->append_conf('postgresql.conf', "archive_mode = off\nrecovery_target_time = '$until'\nrecovery_target_action = promote\n");
		$_[0]->start;
	});
	$primary->stop;
	$recovered->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()') or die 'the recovery does not end';
	judge([ $recovered, 'postgres' ], 'point-in-time recovery', $scene);
	$primary = $recovered;
	$db = [ $primary, 'postgres' ];
}

# ---------------------------------------------------------------- a dump that is older

{
	my $scene = known_part($db);
	my $dump = $primary->basedir . '/dump.sql';
	$primary->command_ok([ 'pg_dump', '-d', $primary->connstr('postgres'), '-f', $dump ], 'a dump');
	forgotten_part($db, $scene);
	$primary->safe_psql('postgres', 'CREATE DATABASE restored');
	$primary->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', '-d', $primary->connstr('restored'), '-f', $dump ], 'is restored');
	$db = [ $primary, 'restored' ];
	$scene->{ended} = 1;
	judge($db, 'a dump restored', $scene);
}

# ---------------------------------------------------------------- a floor for the tokens

# A clock that is behind: what has been seen outside is of the future.  A session that has claimed before hears of it.
{
	my $session = $primary->background_psql('restored');
	my $floor = 1000000 * (time + 86400 * 365);
	sql($db, q(SELECT holdfast.enqueue('mail', 'send', 'floor ' || n) FROM generate_series(1, 3) n));
	my $claim = q(SELECT fencing_token FROM holdfast.claim('mail', 'w'));
	cmp_ok($session->query_safe($claim), '<', $floor, 'tokens are of the clock');
	is(sql($db, "SELECT holdfast.post_restore($floor)"), $floor + 1, 'post_restore() gives them a floor');
	cmp_ok($session->query_safe($claim), '>', $floor, 'G1: ... which a session of before keeps');
	is(sql($db, 'SELECT holdfast.post_restore(5)'), $floor + 1, '... and which is never lowered');
	cmp_ok(sql($db, $claim), '>', $floor, 'G1: nor does another session go below');
	$session->quit;
}

$primary->stop;
is(join('', grep { /scan hint would have missed|^XX\w{3} |PANIC/ } map { split /^/, slurp_file($_) } @logs), '', 'no hint was wrong, and no error internal');
diag("$tokens tokens, each greater than all before; $refused calls under forgotten leases on record");
done_testing();
