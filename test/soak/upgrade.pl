# pg_upgrade, from the server below OLD_SERVER to that of pg_config: every row
# of every table, events of any day, sequences, grants, figures and verdicts
# are the same, and the queues and watched tables work on, with no setting.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../t";
use EveryState;
use File::Path qw(rmtree);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $old_path = $ENV{OLD_SERVER} or die 'OLD_SERVER is not set: see scripts/upgrade';
my $old = PostgreSQL::Test::Cluster->new('old', install_path => $old_path);
my $new = PostgreSQL::Test::Cluster->new('new');
my ($old_bin, $new_bin) = ("$old_path/bin", $new->config_data('--bindir'));

$old->init;
$old->start;
my $today = sql($old, 'postgres', q(SELECT (now() AT TIME ZONE 'UTC')::date));
sql($old, 'postgres', 'CREATE ROLE dump_worker; CREATE ROLE dump_reader');
my %day = (today => $today, another => '2024-02-28');
my (%digest, %verdicts);
for my $database (sort keys %day)
{
	fill($old, $database, $day{$database});
	# events of more days, whose partitions were made for them
	sql($old, $database, qq(
		SET holdfast.clock = '$day{$database}';
		DO \$\$
		BEGIN
			FOR n IN 1 .. 5 LOOP
				PERFORM set_config('holdfast.clock', (timestamptz '$day{$database} 11:00+00' + n * interval '1 day')::text, false);
				PERFORM holdfast.make_partitions();
				PERFORM holdfast.enqueue('mail', 'send', 'of day ' || n), holdfast.cancel(job_id, 'why') FROM holdfast.job WHERE subject = 'later' OR subject = 's' || (34 + n);
				PERFORM holdfast.enqueue('mail', 'send', 'later');
			END LOOP;
		END \$\$));
	sql($old, $database, q(
		CREATE TABLE watched (id integer PRIMARY KEY, status text DEFAULT 'pending', attempts integer DEFAULT 0, run_after timestamptz DEFAULT now());
		SELECT holdfast.watch('watched', '{"id": "id", "status": "status", "attempt_number": "attempts", "run_after": "run_after", "succeeded": ["done"]}');
		INSERT INTO watched SELECT n FROM generate_series(1, 5) n));
	sql($old, $database, q(UPDATE watched SET status = 'running', attempts = 1 WHERE id < 4));
	sql($old, $database, q(UPDATE watched SET status = 'done' WHERE id = 1));
	$digest{$database} = digest($old, $database);
	$verdicts{$database} = verdicts($old, $database, $day{$database});
	cmp_ok(sql($old, $database, q(SELECT count(DISTINCT tableoid) FROM holdfast.event)), '>=', 5, "$database: events of several days");
}
my ($old_version, $new_version) = map { (`$_/postgres --version`)[0] =~ /([\d.]+)/ } $old_bin, $new_bin;
$old->stop;

sub run_upgrade
{
	# 18 checks pages by default
	$new->init(extra => `$new_bin/initdb --help` =~ /no-data-checksums/ ? ['--no-data-checksums'] : []);
	chdir $new->basedir;
	return $new->run_log([ "$new_bin/pg_upgrade", '--no-sync', '-b', $old_bin, '-B', $new_bin, '-d', $old->data_dir, '-D', $new->data_dir,
		'-s', $new->host, '-p', $old->port, '-P', $new->port, '-U', scalar getpwuid($<) ]);
}

# What pg_upgrade's programs complained of.
sub complaints
{
	return grep { /ERROR|FATAL|error:/ } map { split /^/, slurp_file($_) } glob($new->data_dir . '/pg_upgrade_output.d/*/log/*.log');
}

my $done = run_upgrade();
my $how = '';
if (!$done && grep { /unrecognized parameter "pg_attver"/ } complaints())
{
	# A column option that the old server's minor release writes, and the new one's does not know yet: not
	# holdfast's, and nothing works with it.  Without it everything else is seen.
	$how = ', which fails in PostgreSQL itself (pg_attver); done once that option is taken out of the old catalogs by hand';
	$old->start;
	sql($old, $_, q(UPDATE pg_attribute SET attoptions = nullif(ARRAY(SELECT o FROM unnest(attoptions) o WHERE o NOT LIKE 'pg_attver=%'), '{}')
		WHERE attoptions::text LIKE '%pg_attver=%')) for keys %day, 'template1', 'postgres';
	$old->stop;
	rmtree($new->data_dir);
	$done = run_upgrade();
}
ok($done, 'pg_upgrade') or diag(complaints());
diag("pg_upgrade, $old_version to $new_version$how");
$new->start;

for my $database (sort keys %day)
{
	is(digest($new, $database), $digest{$database}, "$database: every row, sequence, partition and privilege is the same");
	is(verdicts($new, $database, $day{$database}), $verdicts{$database}, "$database: figures, verdicts and explanations are the same, and verify() has nothing new to report");
	check_works($new, $database, $day{$database}, $database);
	sql($new, $database, q(UPDATE watched SET status = 'done' WHERE id = 2));
	sql($new, $database, q(UPDATE watched SET status = 'running', attempts = 1 WHERE id = 4));
	is(sql($new, $database, q(SELECT string_agg(concat_ws(' ', job_id, attempt_number, outcome), ', ' ORDER BY job_id) FROM holdfast.attempt WHERE source = 'public.watched')),
		'1 1 succeeded, 2 1 succeeded, 3 1, 4 1', "$database: a watched table is watched on");
	my (undef, undef, $stderr) = $new->psql($database, "\\set VERBOSITY sqlstate\nUPDATE holdfast.event SET kind = 'x'");
	like($stderr, qr/ERROR:  JQ004/, "$database: the evidence is guarded");
}
$new->stop;
done_testing();
