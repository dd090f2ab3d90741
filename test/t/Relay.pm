# Tests in Python: their TAP lines become those of the Perl test that starts them.

package Relay;

use strict;
use warnings;
use Exporter 'import';
use FindBin;
use IPC::Run;
use Test::More;

our @EXPORT = ('relay');

# Run test/t/SCRIPT with these arguments; how many lines of TAP it printed.  What it says besides is shown, all as it comes.
sub relay
{
	my ($script, @arguments) = @_;
	my ($rest, $number) = ('', 0);
	my $take = sub {
		$rest .= shift;
		while ($rest =~ s/^(.*)\n//)
		{
			my $line = $1;

			if ($line =~ /^(ok|not ok) \d+ - (.*)$/)
			{
				ok($1 eq 'ok', $2);
				$number++;
			}
			elsif ($line ne '')
			{
				diag($line =~ s/^# //r);
			}
		}
	};
	my $ended_well = IPC::Run::run([ '/usr/bin/python3', "$FindBin::Bin/$script", @arguments ], '>&', $take);

	$take->("\n");
	ok($ended_well, "$script ran to its end");
	return $number;
}

1;
