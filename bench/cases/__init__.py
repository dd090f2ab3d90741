"""What is measured: one function per case, by subject."""
from dataclasses import dataclass
from typing import Callable

CASES = {}


@dataclass
class Case:
    name: str
    title: str
    quick: bool
    needs: list             # of pgq, node, valgrind: what scripts/bench has to install
    seconds: Callable       # how long it takes, for the time left
    run: Callable           # Bench -> lines of the table, raw figures


def case(name, title, seconds, quick=False, needs=()):
    """Make a function a case.  Its docstring is the first paragraph that docs/performance.md has on it."""
    def register(function):
        CASES[name] = Case(name, title, quick, needs, seconds, function)
        return function
    return register


def all_cases():
    from . import throughput, steady, flat, retry, cost, evidence, watch  # noqa: F401  (they register)
    return CASES
