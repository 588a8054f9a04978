"""Sources of algorithms that a user may put into the folder, good and bad, for tests with real workers."""

from __future__ import annotations

# Tracebacks are compared by line: `fails` returns in line 16.
OWN = '''
from backtestr_engine.authoring import algorithm
from backtestr_engine.authoring import Int
from backtestr_engine.authoring import Signals


@algorithm("follow_the_hour", patience=Int(2, low=1, high=9))
def follow_the_hour(bars, patience):
    """Long while the last closed hour rose."""
    hour = bars.at("1h")
    return Signals.of(entries=hour.close > hour.open, exits=hour.close < hour.open)


@algorithm("fails")
def fails(bars):
    return bars.no_such_column


@algorithm("endless")
def endless(bars):
    while True:
        pass
'''

BAD = "import no_such_module\n"

GREEDY = """
import re

import numpy as np

from backtestr_engine.authoring import algorithm
from backtestr_engine.authoring import Int
from backtestr_engine.authoring import Signals


@algorithm("greedy", gigabytes=Int(1, low=1, high=1000))
def greedy(bars, gigabytes):
    taken = [np.zeros(1 << 27) for _ in range(gigabytes)]  # the limit is one of addresses: no page need be touched
    return Signals.of(entries=bars.close > taken[0][0], exits=bars.close < 0)


@algorithm("holds_the_lock")
def holds_the_lock(bars):
    re.match("(a+)+b", "a" * 64)  # does not end, and no other thread of Python runs meanwhile
"""

# It keeps its worker busy until a file exists, whose path `gate` replaces.
GATED = """
import time
from pathlib import Path

from backtestr_engine.authoring import Signals
from backtestr_engine.authoring import algorithm


@algorithm("gated")
def gated(bars):
    while not Path({gate!r}).exists():
        time.sleep(0.01)
    return Signals.of(entries=bars.close > 0)
"""
