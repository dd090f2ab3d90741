# A database with holdfast that has one of everything, a digest of it that any
# difference changes, and that it works: for what copies or upgrades a database.

package EveryState;

use strict;
use warnings;
use Exporter 'import';
use Test::More;

our @EXPORT = qw(sql fill digest verdicts check_works);

# Of these functions: the server, and the database.
sub sql { my ($node, $database, $sql) = @_; return $node->safe_psql($database, $sql) }

# One of everything: live, running, waiting, to be reconciled, dead; the ledger in all its states; events of two days,
# one of which has no partition; findings, a stream, grants, policies, settings.
sub fill
{
	my ($node, $database, $day) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $database");
	sql($node, $database, 'CREATE EXTENSION holdfast');
	sql($node, $database, qq(
		SET holdfast.clock = '$day 10:00:00+00';
		SELECT holdfast.define_retry_policy('own', '2 s', 3, '1 min', '1 s', '1 s', 7);
		SELECT holdfast.define_retry_policy('default', '10 s', 2, '1 min', '1 s', '1 s', 3);
		SELECT holdfast.define_error_rule('own', 'Odd%', 'terminal', 'none');
		SELECT holdfast.define_error_rule('default', 'TimeoutError', 'retry', 'none');
		SELECT holdfast.drop_error_rule('default', 'RateLimitError');
		SELECT holdfast.create_queue('mail', retry_policy => 'own', max_attempts => 4);
		SELECT holdfast.create_queue('plain', side_effects => false, heartbeat => '10 s');
		SELECT holdfast.create_queue('gone');
		SELECT holdfast.define_stream('plain', 'loop', 1, '1 h');
		SELECT holdfast.grant_queue('mail', 'dump_worker', 'worker');
		SELECT holdfast.grant_queue('plain', 'dump_reader', 'reader');
		SELECT holdfast.drop_queue('gone');
		SELECT holdfast.import_attempts('log', jsonb_build_array(r, r)) FROM (SELECT jsonb_build_object('job_id', n, 'subject', 's', 'action_key', 'a',
			'started_at', '$day 10:00:00+00', 'message', E'tab\t ünï') AS r FROM generate_series(1, 5) n) r;
		SELECT holdfast.set_attempt_retention('30 days');
		SELECT holdfast.enqueue('mail', 'send', 's' || n, jsonb_build_object('n', n, 'text', E'tab\\t ünï \\\\ "'), priority => n % 3)
			FROM generate_series(1, 40) n;
		SELECT holdfast.enqueue('plain', 'resize', 'p' || n, headers => '{"a": null}', stream => 'loop') FROM generate_series(1, 10) n;
		SELECT holdfast.enqueue('mail', 'send', 'later', delay => '3 days', give_up_at => '$day 10:00:00+00'::timestamptz + interval '9 days');
		SELECT holdfast.enqueue('mail', 'send', 's1', '{"n": 1, "text": "tab\\t ünï \\\\ \\""}');
	));
	sql($node, $database, qq(
		SET holdfast.clock = '$day 10:00:01+00';
		CREATE TABLE held AS SELECT job_id, lease_id, row_number() OVER () AS n FROM holdfast.claim('mail', 'w1', 30);
		INSERT INTO held SELECT job_id, lease_id, 100 + row_number() OVER () FROM holdfast.claim('plain', 'w1', 5);
	));
	sql($node, $database, qq(
		SET holdfast.clock = '$day 10:00:02+00';
		SELECT holdfast.complete(job_id, lease_id, '{"ok": true}') FROM held WHERE n <= 5 OR n = 101;
		SELECT holdfast.complete(job_id, lease_id, '{"ok": true}') FROM held WHERE n = 1;
		SELECT f.* FROM held, holdfast.fail(job_id, lease_id, 'Http503', 'down', 'none') f WHERE n BETWEEN 6 AND 8;
		SELECT f.* FROM held, holdfast.fail(job_id, lease_id, 'ReadTimeout') f WHERE n BETWEEN 9 AND 11;
		SELECT f.* FROM held, holdfast.fail(job_id, lease_id, 'OddThing', side_effect => 'none') f WHERE n = 12;
		SELECT f.* FROM held, holdfast.fail(job_id, lease_id, 'ValidationError') f WHERE n = 102;
		SELECT f.* FROM held, holdfast.snooze(job_id, lease_id, '1 h') f WHERE n = 13;
		SELECT holdfast.cancel(job_id, 'why not', force => true) FROM held WHERE n = 14;
		SELECT holdfast.cancel(job_id) FROM held WHERE n = 15;
		SELECT holdfast.complete(job_id, gen_random_uuid()) FROM held WHERE n = 16;
		SELECT holdfast.pause_queue('plain', 'maintenance');
	));
	# a day without a partition, which holdfast.event_overflow takes
	sql($node, $database, qq(
		SET holdfast.clock = '2041-05-05 10:00:00+00';
		SELECT holdfast.cancel(job_id) FROM holdfast.job WHERE subject = 's40';
	));
	sql($node, $database, "INSERT INTO holdfast.setting VALUES ('token_floor', '9000000000000000')");
	is(sql($node, $database, q(SELECT string_agg(DISTINCT state, ' ' ORDER BY state) FROM holdfast.ledger)),
		'committed failed_retryable failed_terminal planned started unknown', "$database: the ledger is in all its states");
	cmp_ok(sql($node, $database, 'SELECT count(*) FROM holdfast.event_overflow'), '>', 0, "$database: events overflow");
	cmp_ok(sql($node, $database, 'SELECT count(*) FROM holdfast.dead_job'), '>', 2, "$database: jobs are dead");
}

# Every relation with rows of the extension: how many, and a digest that any difference of any value changes.
sub digest
{
	my ($node, $database) = @_;
	my @tables = split /\n/, sql($node, $database, q(
		SELECT c.oid::regclass FROM pg_class c WHERE c.relnamespace = 'holdfast'::regnamespace AND c.relkind IN ('r', 'p') ORDER BY 1::text));
	my @lines = map {
		"$_ " . sql($node, $database, "SELECT count(*), md5(coalesce(string_agg(md5(x::text), '' ORDER BY x::text COLLATE \"C\"), '')) FROM $_ x")
	} sort @tables;

	push @lines, sql($node, $database, q(
		SELECT 'sequence', c.relname, pg_sequence_last_value(c.oid) FROM pg_class c
		WHERE c.relnamespace = 'holdfast'::regnamespace AND c.relkind = 'S' ORDER BY 2));
	push @lines, sql($node, $database, q(SELECT * FROM holdfast.grants ORDER BY 1, 2, 3));
	push @lines, sql($node, $database, q(SELECT * FROM holdfast.list_queues()));
	push @lines, sql($node, $database, q(SELECT * FROM holdfast.list_retry_policies()));
	push @lines, sql($node, $database, q(SELECT * FROM holdfast.list_error_rules('own')));
	# partitions: bounds, indexes, owner
	push @lines, sql($node, $database, q(
		SELECT c.relname, pg_get_expr(c.relpartbound, c.oid), c.relowner::regrole,
			   (SELECT string_agg(pg_get_indexdef(indexrelid), '; ' ORDER BY indexrelid::regclass::text) FROM pg_index WHERE indrelid = c.oid)
		FROM pg_class c WHERE relispartition ORDER BY 1));
	push @lines, sql($node, $database, q(
		SELECT p.proname, a.grantee::regrole, a.privilege_type FROM pg_proc p, aclexplode(p.proacl) a
		WHERE pronamespace = 'holdfast'::regnamespace AND a.grantee::regrole::text LIKE 'dump%' ORDER BY 1, 2, 3));
	return join "\n", @lines;
}

# What it says of its rows: figures, explanations, verdicts, and whether all is in place.
sub verdicts
{
	my ($node, $database, $day) = @_;

	return sql($node, $database, qq(
		SELECT check_name, object, problem FROM holdfast.verify() WHERE check_name <> 'partition' ORDER BY 1, 2, 3;
		SET holdfast.clock = '$day 10:00:30+00';
		SELECT m.* FROM holdfast.metrics_all() m ORDER BY m::text;
		SELECT * FROM holdfast.attempt ORDER BY source, job_id, attempt_number, started_at, lease_id;
		SELECT p.* FROM holdfast.attempt_pair p ORDER BY p::text;
		SELECT s.* FROM holdfast.stop_reason s ORDER BY s::text;
		SELECT j.job_id, e.* FROM (SELECT job_id FROM holdfast.job UNION ALL SELECT job_id FROM holdfast.dead_job) j, holdfast.explain(j.job_id) e ORDER BY 1, e::text;
		SELECT t.* FROM holdfast.timeline('s1') t;
		SELECT holdfast.outcome(job_id, lease_id) FROM held ORDER BY n));
}

# It works: who holds a lease still holds it, the next job is claimed, nothing is enqueued twice.
sub check_works
{
	my ($node, $database, $day, $name) = @_;

	is(sql($node, $database, qq(
		SET holdfast.clock = '$day 10:00:30+00';
		SELECT holdfast.complete(job_id, lease_id) FROM held WHERE n = 20;
		SELECT holdfast.complete(job_id, lease_id) FROM held WHERE n = 2;
		SELECT outcome FROM held, holdfast.heartbeat(job_id, lease_id) WHERE n = 21;
	)), "completed\nconflict\nextended", "$name: leases hold, and the history of those that ended is known");
	is(sql($node, $database, qq(
		SET holdfast.clock = '$day 10:00:30+00';
		SELECT count(*), min(attempt_number), bool_and(fencing_token >= 9000000000000000) FROM holdfast.claim('mail', 'w2', 5);
	)), '5|2|t', "$name: a claim works, what is to be tried again comes first, and tokens are above the floor");
	is(sql($node, $database, qq(
		SET holdfast.clock = '$day 10:00:30+00';
		SELECT outcome FROM holdfast.enqueue('mail', 'send', 'later');
		SELECT outcome, job_id > (SELECT max(job_id) FROM held) FROM holdfast.enqueue('mail', 'send', 'new');
	)), "duplicate\ncreated|t", "$name: intents are known, and new jobs get new ids");
	my $events = 'SELECT count(*), count(DISTINCT event_id) FROM (SELECT event_id FROM holdfast.event UNION ALL SELECT event_id FROM holdfast.event_overflow) e';
	# beforehand: what it parks for the open stream is evidence that it adds
	sql($node, $database, "SET holdfast.clock = '$day 10:00:31+00'; SELECT FROM holdfast.settle_all_streams()");
	my $before = sql($node, $database, $events);
	sql($node, $database, "SET holdfast.clock = '2041-05-05 10:00:00+00'; SELECT FROM holdfast.make_partitions()");
	sql($node, $database, "SET holdfast.clock = '$day 10:00:31+00'; SELECT FROM holdfast.maintain()");
	is(sql($node, $database, $events), $before, "$name: maintain() loses no event");
	is(sql($node, $database, 'SELECT count(*) FROM holdfast.event_overflow'), '0', "$name: ... and finds a place for each, in a partition made late");
	is(sql($node, $database, qq(
		SELECT count(*) - count(DISTINCT event_id) FROM (SELECT event_id FROM holdfast.event UNION ALL SELECT event_id FROM holdfast.event_overflow) e
	)), '0', "$name: no event id is given twice");
	is(sql($node, $database, qq(
		SET holdfast.clock = '$day 10:00:30+00';
		SET ROLE dump_worker;
		SELECT count(*) FROM holdfast.claim('mail', 'w3');
	)), '1', "$name: a grant holds");
	my ($status, undef, $stderr) = $node->psql('postgres' eq $database ? 'postgres' : $database,
		"\\set VERBOSITY sqlstate\nSET ROLE dump_reader; SELECT * FROM holdfast.claim('mail', 'w3')");
	like($stderr, qr/42501/, "$name: and no more than it");
}

1;
