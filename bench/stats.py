"""Medians and quartiles, of numbers and of interleaved slices."""
import math
import statistics


def quartiles(numbers):
    """First quartile, median, third quartile.  Of one number all three are that number."""
    numbers = sorted(numbers)
    if len(numbers) == 1:
        return numbers * 3
    return statistics.quantiles(numbers, n=4, method="inclusive")


def percentile(numbers, fraction):
    """The smallest number that at least this fraction of them do not exceed."""
    numbers = sorted(numbers)
    return numbers[max(0, math.ceil(len(numbers) * fraction) - 1)]


def ratio_row(ours, theirs, **row):
    """One line of the table from two arms' figures, slice by slice: the median of the ratios, not the ratio of medians.

    A slice is divided by the one that was measured next to it, so that what slows the machine down for
    a while slows both.
    """
    q1, ratio, q3 = quartiles([a / b for a, b in zip(ours, theirs, strict=True)])
    return row | {"ours": statistics.median(ours), "theirs": statistics.median(theirs),
                  "ratio": ratio, "q1": q1, "q3": q3}


def fixed_limit(value, limit, **row):
    """One line: a figure beside a limit that it must not exceed."""
    return row | {"beside": f"at most {limit:g}", "ours": value, "theirs": limit, "ratio": value / limit, "at_most": True, "goal": 1.0}


def plain_figure(value, **row):
    """One line: a figure that nothing is asked of."""
    return row | {"beside": "", "ours": value}
