# Every SQL block of the documentation runs, and answers what the page says.
#
# A page is one psql session, in a database of its own.  A block without a
# language (one of text is not compared) that follows a block of SQL is the end of what psql printed since
# the block before it: without empty lines, row counts, and with every uuid
# and lease as it happens to be.  A page that \i's a file finds it from the
# top of the tree.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my %pages = map { $_ => blocks($_) } grep { -e } 'README.md', glob('docs/*.md');
plan skip_all => 'no documentation here' unless %pages;

my $node = PostgreSQL::Test::Cluster->new('docs');
$node->init;
$node->start;
$ENV{PGTZ} = 'UTC';

# [language, text, line number] of each fenced block; language "" for none
sub blocks
{
	my ($page) = @_;
	my @blocks;
	my $open;
	open my $file, '<:encoding(UTF-8)', $page or die "$page: $!";
	while (my $line = <$file>)
	{
		if (defined $open)
		{
			if ($line =~ /^```\s*$/) { push @blocks, $open; undef $open; }
			else { $open->[1] .= $line; }
		}
		elsif ($line =~ /^```(\w*)\s*$/) { $open = [ $1, '', $. ]; }
	}
	return \@blocks;
}

sub lines
{
	my ($text) = @_;
	$text =~ s/\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b/00000000-0000-0000-0000-000000000000/g;
	return grep { $_ ne '' && !/^\(\d+ rows?\)$/ } map { s/\s+$//r } split /\n/, $text;
}

for my $page (sort keys %pages)
{
	my @blocks = grep { $_->[0] =~ /^(|sql)$/ } @{ $pages{$page} };
	my @sql = grep { $_->[0] eq 'sql' } @blocks;
	next unless @sql;
	(my $database = lc $page) =~ s/\W/_/g;
	$node->safe_psql('postgres', "CREATE DATABASE $database");
	# examples are of a database that has the extension, but for the README, which makes it
	$node->safe_psql($database, 'CREATE EXTENSION holdfast') unless $page eq 'README.md';

	my $script = join '', map { "$_->[1]\n\\echo \@\@\@\n" } @sql;
	my ($out, $err);
	IPC::Run::run [ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($database), '-f', '-' ], '<', \$script, '>', \$out, '2>', \$err;
	my @answers = split /^\@\@\@\n/m, $out, -1;
	is(@answers - 1, @sql, "$page: every block runs") or diag($err);

	# what a page shows is the end of what was printed since the last block shown
	my $printed = '';
	my $shown = 0;
	for my $block (@blocks)
	{
		if ($block->[0] eq 'sql')
		{
			$printed .= shift(@answers) // '';
			$shown = 0;
			next;
		}
		next if $shown || $printed eq '';		# a block that no SQL precedes is something else
		my @want = lines($block->[1]);
		my @have = lines($printed);
		splice @have, 0, @have - @want if @have > @want;
		is(join("\n", @have), join("\n", @want), "$page, line $block->[2]: the answer");
		$printed = '';
		$shown = 1;
	}
}

# Whatever the extension has, the reference names.
{
	my $reference = slurp_file('docs/reference.md');
	my @names = split /\n/, $node->safe_psql('docs_reference_md', q(LOAD 'holdfast';
		SELECT DISTINCT p.proname FROM pg_proc p WHERE p.pronamespace = 'holdfast'::regnamespace
		UNION SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'holdfast'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
		UNION SELECT a.attname FROM pg_attribute a WHERE a.attrelid IN ('holdfast.attempt'::regclass, 'holdfast.execution_context'::regclass, 'holdfast.retry_decision'::regclass, 'holdfast.violation'::regclass) AND a.attnum > 0
		UNION SELECT s.name FROM pg_settings s WHERE s.name LIKE 'holdfast.%'));
	cmp_ok(scalar(@names), '>', 200, 'names of functions, tables, views, columns and settings');
	is(join(' ', grep { $reference !~ /(?<![\w.])\Q$_\E(?!\w)/ } @names), '', '... all of which docs/reference.md has');
}

# Tests that a page names are there, and every failure mode names one, or the limit.
my %tests = map { (m{([^/]+)$})[0] => 1 } glob('test/sql/*.sql test/specs/*.spec test/t/*.pl');
$tests{"soak/$_"} = 1 for map { (m{([^/]+)$})[0] } glob('test/soak/*');
for my $page (sort keys %pages)
{
	my $text = slurp_file($page);
	my @named = ($text =~ /`(\w+\.(?:spec|pl)|soak\/\w+)`/g, $text =~ m{test/(?:sql|specs|t)/(\w+\.(?:sql|spec|pl))}g, $page =~ /failure-modes/ ? $text =~ /`(\w+\.sql)`/g : ());
	is(join(' ', grep { !$tests{$_} } @named), '', "$page: the tests it names are there");
}
my @modes = slurp_file('docs/failure-modes.md') =~ /^\| ([A-D]\d+) \|/mg;
cmp_ok(scalar(@modes), '>=', 57, 'failure modes');
is(join(' ', map { /^\| ([A-D]\d+) \|/ && !/`(?:\w+\.(?:sql|spec|pl)|soak\/\w+)`|limits\.md#[\w-]+\) \|$/ ? $1 : () } split /\n/, slurp_file('docs/failure-modes.md')), '', '... each with the test that shows it, or its limit');

$node->stop;
done_testing();
