# The specs meet_* are those that test/specs/meet.py makes, and in every one of
# their ends, as expected/ has them, two calls at once did what one after the
# other does.  That they still end so the isolation tests show.

use strict;
use warnings;
use FindBin;
use PostgreSQL::Test::Utils;
use Test::More;

my $specs = "$FindBin::Bin/../specs";
my $made = PostgreSQL::Test::Utils::tempdir;

is(system('/usr/bin/python3', "$specs/meet.py", $made), 0, 'meet.py writes its specs');
my @names = map { s/.*\///r } glob "$made/meet_*.spec";
my $permutations = 0;
foreach my $name (@names)
{
	my $spec = slurp_file("$made/$name");
	ok($spec eq slurp_file("$specs/$name"), "$name is as meet.py makes it");
	$permutations += () = $spec =~ /^permutation /mg;
}
cmp_ok($permutations, '>=', 2000, 'permutations');

my $judgement = '';
ok(IPC::Run::run([ '/usr/bin/python3', "$specs/meet.py", '--check' ], '>&', \$judgement), 'G2, G5, G6: two calls at once end as one after the other')
	or diag($judgement);
note($judgement);

done_testing();
