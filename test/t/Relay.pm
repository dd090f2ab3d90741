# Tests in Python: their TAP lines become those of the Perl test that starts them.

package Relay;

use strict;
use warnings;
use Exporter 'import';
use FindBin;
use IPC::Run;
use Test::More;

our @EXPORT = ('relay');

# Run test/t/SCRIPT with these arguments; how many lines of TAP it printed.  What it says besides is shown.
sub relay
{
	my ($script, @arguments) = @_;
	my ($out, $number) = ('', 0);
	my $ended_well = IPC::Run::run([ '/usr/bin/python3', "$FindBin::Bin/$script", @arguments ], '>&', \$out);

	while ($out =~ /^(?:(ok|not ok) \d+ - )?(.*)$/mg)
	{
		my ($verdict, $text) = ($1, $2);

		if (!defined $verdict)
		{
			diag($text =~ s/^# //r) if $text ne '';
			next;
		}
		ok($verdict eq 'ok', $text);
		$number++;
	}
	ok($ended_well, "$script ran to its end");
	return $number;
}

1;
