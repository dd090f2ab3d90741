# PREPARE TRANSACTION: a claim cannot be prepared, since its job would be held
# by nobody; everything else can, is neither lost nor undone by a crash, and
# takes effect, with its evidence, when it is committed, by whomever.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('prepared');
$node->init;
$node->append_conf('postgresql.conf', "max_prepared_transactions = 20\nholdfast.scan_hint = check\nlog_line_prefix = '%e '\n");
$node->start;

# Times of the test's own; each call is a session.
my $clock = '2030-01-01 00:00:00';
sub sql { return $node->safe_psql('postgres', "SET holdfast.clock = '$clock+00'; " . shift) }
sub state_of
{
	my $sql = shift;
	my (undef, undef, $stderr) = $node->psql('postgres', "\\set VERBOSITY sqlstate\nSET holdfast.clock = '$clock+00'; $sql");
	return $stderr =~ /ERROR:\s+(\w{5})/ ? $1 : "no error: $stderr";
}
sub events { return sql("SELECT coalesce(string_agg(kind, ' ' ORDER BY event_id), '') FROM holdfast.event_all WHERE subject = '$_[0]'") }
sub enqueue { return sql("SELECT job_id FROM holdfast.enqueue('mail', 'send', '$_[0]')") }
sub claim { return split /\|/, sql(q(SELECT job_id, lease_id FROM holdfast.claim('mail', 'w'))) }

sub crash
{
	$node->stop('immediate');
	$node->start;
}

sql(q(
	CREATE EXTENSION holdfast;
	SELECT FROM holdfast.make_partitions();
	SELECT holdfast.define_retry_policy('quick', '1 s', 1, '1 s', '0', '1 s', reconcile_delay => '1 s');
	SELECT holdfast.create_queue('mail', lease => '2 min', retry_policy => 'quick');
	SELECT holdfast.create_queue('none');
));

# ---------------------------------------------------------------- claims

my $first = enqueue('first');
for my $call (q(holdfast.claim('mail', 'w')), q(holdfast.claim_any(ARRAY['none', 'mail'], 'w')), q(holdfast.complete_and_claim('mail', 'w', '{}', '{}')))
{
	is(state_of("BEGIN; SELECT * FROM $call; PREPARE TRANSACTION 'claimed'"), '0A000', "a claim is not prepared: $call");
}
is(state_of(q(BEGIN; SAVEPOINT s; SELECT * FROM holdfast.claim('mail', 'w'); RELEASE s; PREPARE TRANSACTION 'claimed')), '0A000', '... nor one in a savepoint');
is(sql('SELECT count(*) FROM pg_prepared_xacts'), '0', 'nothing is left prepared');
is(events('first'), '', 'G7: nor on record');
is(sql(q(BEGIN; SELECT count(*) FROM holdfast.claim('none', 'w'); PREPARE TRANSACTION 'nothing'; COMMIT PREPARED 'nothing')), '0', 'a claim that finds nothing may be');
is(state_of(q(BEGIN; SAVEPOINT s; SELECT FROM holdfast.claim('mail', 'w'); ROLLBACK TO s; SELECT FROM holdfast.claim('none', 'w'); PREPARE TRANSACTION 'undone'; COMMIT PREPARED 'undone')),
	'no error: ', '... and one that was rolled back');
my ($job, $lease) = claim();
is($job, $first, 'G10: the job is handed out to the next');
sql("SELECT holdfast.complete($job, '$lease')");

# ---------------------------------------------------------------- an enqueue

sql(q(BEGIN; SELECT holdfast.enqueue('mail', 'send', 'prepared'); PREPARE TRANSACTION 'enqueue'));
enqueue('second');
is(sql(q(SELECT subject FROM holdfast.claim('mail', 'w'))), 'second', 'a prepared enqueue is not there yet, and nobody waits for it');
is(state_of(q(SET lock_timeout = '100 ms'; SELECT * FROM holdfast.enqueue('mail', 'send', 'prepared'))), '55P03', 'G5: the same intent waits for it');
crash();
is(state_of(q(SET lock_timeout = '100 ms'; SELECT * FROM holdfast.enqueue('mail', 'send', 'prepared'))), '55P03', '... also after a crash');
$clock = '2030-01-01 00:01:00';
my $session = $node->background_psql('postgres');
$session->query_safe("SET holdfast.clock = '$clock+00'");
is($session->query_safe(q(SELECT count(*) FROM holdfast.claim('mail', 'w'))), '0', 'a session finds nothing, and remembers where it looked');
sql(q(COMMIT PREPARED 'enqueue'));
is($session->query_safe(q(SELECT subject FROM holdfast.claim('mail', 'w'))), 'prepared', 'G9: once it is committed the job is found by that session');
is(sql(q(SELECT outcome FROM holdfast.enqueue('mail', 'send', 'prepared'))), 'duplicate', 'G5: and known');
sql(q(BEGIN; SELECT holdfast.enqueue('mail', 'send', 'undone'); PREPARE TRANSACTION 'enqueue'));
sql(q(ROLLBACK PREPARED 'enqueue'));
is(sql(q(SELECT outcome FROM holdfast.enqueue('mail', 'send', 'undone'))), 'created', 'G5: one that is rolled back never was');
is(sql(q(SELECT subject FROM holdfast.claim('mail', 'w'))), 'undone', 'and its intent is claimed once');

# ---------------------------------------------------------------- a report

for my $end ('COMMIT', 'ROLLBACK')
{
	enqueue("reported, $end");
	my ($job, $lease) = claim();
	sql("BEGIN; SELECT holdfast.complete($job, '$lease', '{\"n\": 1}'); PREPARE TRANSACTION 'report'");
	is(sql("SELECT outcome FROM holdfast.heartbeat($job, '$lease')"), 'held', "$end: a report is prepared, and the job is held");
	crash();
	is(sql("SELECT outcome FROM holdfast.heartbeat($job, '$lease')"), 'held', "$end: ... also after a crash");
	my $later = $clock =~ s/00:0(\d)/'00:0' . ($1 + 3)/er;
	is(sql("SET holdfast.clock = '$later+00'; SELECT count(*) FROM holdfast.claim('mail', 'w2') WHERE job_id = $job"), '0', "$end: no claim waits for it, or takes it, after the lease's end");
	sql("SET holdfast.clock = '$later+00'; SELECT FROM holdfast.maintain()");
	is(events("reported, $end"), 'action_attempt_started', "$end: nor does maintain() settle it");
	sql("$end PREPARED 'report'");
	is(sql("SELECT outcome FROM holdfast.outcome($job, '$lease')"), $end eq 'COMMIT' ? 'completed' : 'running', "$end: then it is what was decided");
	sql("SET holdfast.clock = '$later+00'; SELECT FROM holdfast.maintain()");
	like(events("reported, $end"), $end eq 'COMMIT' ? qr/^action_attempt_started action_attempt_succeeded$/ : qr/^action_attempt_started action_attempt_lost action_reconcile_scheduled$/,
		"G7: $end: with its evidence, once");
	is(sql("SELECT state FROM holdfast.ledger WHERE job_id = $job"), $end eq 'COMMIT' ? 'committed' : 'unknown', "$end: and the ledger");
}

# ---------------------------------------------------------------- an asserted lease

enqueue('asserted');
$clock = '2030-01-01 00:10:00';
($job, $lease) = split /\|/, sql(q(SELECT job_id, lease_id FROM holdfast.claim('mail', 'w', 100) WHERE subject = 'asserted'));
sql("CREATE TABLE own (job_id bigint); BEGIN; SELECT holdfast.assert_lease($job, '$lease'); INSERT INTO own VALUES ($job); PREPARE TRANSACTION 'assert'");
$clock = '2030-01-01 00:20:00';
sql('SELECT FROM holdfast.maintain()');
is(sql("SELECT status FROM holdfast.job WHERE job_id = $job"), 'running', 'G2: a lease that a prepared transaction has asserted is kept');
crash();
sql('SELECT FROM holdfast.maintain()');
is(sql("SELECT status FROM holdfast.job WHERE job_id = $job"), 'running', '... also after a crash');
sql(q(COMMIT PREPARED 'assert'));
sql('SELECT FROM holdfast.maintain()');
is(sql("SELECT (SELECT count(*) FROM own) || ' ' || status || ' ' || mode FROM holdfast.job WHERE job_id = $job"), '1 pending reconcile', '... until it ends');

# ---------------------------------------------------------------- a refusal that was caught

sub refused { return sql("SELECT count(*) FROM holdfast.finding WHERE kind = 'refusal' AND job_id = $job") }
my $caught = "DO \$\$ BEGIN PERFORM holdfast.assert_lease($job, '$lease'); EXCEPTION WHEN SQLSTATE 'JQ001' THEN END \$\$";
sql("BEGIN; $caught; PREPARE TRANSACTION 'refusal'");
is(refused(), '0', 'a refusal is prepared with its transaction');
crash();
sql(q(COMMIT PREPARED 'refusal'));
is(refused(), '1', 'G7: and on record with it');
sql("BEGIN; $caught; PREPARE TRANSACTION 'refusal'");
sql(q(ROLLBACK PREPARED 'refusal'));
is(refused(), '1', '... or not');

# ---------------------------------------------------------------- what a session remembers of its queue

# It completes a job, finds nothing where that was, and prepares: the job may come back.  All of it within
# a second, in which nothing is looked at twice.
$session->quit;
$session = $node->background_psql('postgres');
$session->query_safe('SET holdfast.scan_hint = on');
sub at { $clock = "2030-01-01 01:00:0$_[0]"; return $session->query_safe("SET holdfast.clock = '$clock+00'") }
at('0.00');
sql(q(SELECT holdfast.create_queue('hint', lease => '100 ms', timeout => '10 ms', grace => '0', retry_policy => 'quick')));
sql(q(SELECT holdfast.enqueue('hint', 'send', 'back again'), holdfast.enqueue('hint', 'send', 'behind', delay => '250 ms')));
($job, $lease) = split /\|/, $session->query_safe(q(SELECT job_id, lease_id FROM holdfast.claim('hint', 'w')));
at('0.20');
$session->query_safe("BEGIN; SELECT holdfast.complete($job, '$lease'); SELECT FROM holdfast.claim('hint', 'w'); PREPARE TRANSACTION 'hint'");
$session->query_safe(q(ROLLBACK PREPARED 'hint'));
at('0.30');
is($session->query_safe(q(SELECT subject FROM holdfast.claim('hint', 'w'))), 'behind', 'a job is claimed');
is(events('back again'), 'action_attempt_started action_attempt_lost action_reconcile_scheduled', 'G8: and the one before it, whose report was rolled back, is found to be lost');
$session->quit;

# ---------------------------------------------------------------- watched tables

sql(q(CREATE TABLE jobs (id integer PRIMARY KEY, status text DEFAULT 'pending', attempts integer DEFAULT 0, run_after timestamptz DEFAULT now());
	SELECT holdfast.watch('jobs', '{"id": "id", "status": "status", "attempt_number": "attempts", "run_after": "run_after", "succeeded": ["done"]}');
	INSERT INTO jobs VALUES (1), (2)));
sql(q(BEGIN; UPDATE jobs SET status = 'running', attempts = 1 WHERE id = 1; PREPARE TRANSACTION 'one'));
sql(q(BEGIN; UPDATE jobs SET status = 'running', attempts = 1 WHERE id = 2; PREPARE TRANSACTION 'two'));
crash();
sql(q(COMMIT PREPARED 'one'));
sql(q(ROLLBACK PREPARED 'two'));
sql(q(UPDATE jobs SET status = 'done' WHERE id = 1));
is(sql(q(SELECT string_agg(concat_ws(' ', job_id, attempt_number, outcome), ', ') FROM holdfast.attempt WHERE source = 'public.jobs')), '1 1 succeeded',
	'a watched table: what was prepared is on record if it was committed');

is(sql('SELECT count(*) FROM pg_prepared_xacts'), '0', 'nothing is left prepared');
is($node->safe_psql('postgres', 'SELECT FROM holdfast.make_partitions(); SELECT check_name, object FROM holdfast.verify()'), '', 'and verify() has nothing to report');
is(join('', grep { /scan hint would have missed|^XX\w{3} |PANIC/ } split /^/, slurp_file($node->logfile)), '', 'no hint was wrong, and no error internal');

$node->stop;
done_testing();
