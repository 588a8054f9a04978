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

# Each way to fail is a number; 20 MB is what an error and its log lines must not cost the broker.
FAILS_IN_EVERY_WAY = '''
import sys
import threading

from backtestr_engine.authoring import algorithm
from backtestr_engine.authoring import Int
from backtestr_engine.authoring import Signals
from backtestr_protocol.errors import AlgorithmError


class OwnBase(BaseException):
    pass


class Silent(Exception):
    def __str__(self):
        raise KeyboardInterrupt


class Pretender:
    @property
    def __class__(self):
        raise KeyboardInterrupt


class Long(Signals):
    def __len__(self):
        raise GeneratorExit


def deep():
    return deep()


def circle():
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    return one


def thrown(error):
    raise error


WAYS = [
    lambda bars: thrown(KeyboardInterrupt()),
    lambda bars: thrown(GeneratorExit("no more")),
    lambda bars: thrown(SystemExit(3)),
    lambda bars: sys.exit("bye"),
    lambda bars: thrown(OwnBase("mine")),
    lambda bars: thrown(BaseExceptionGroup("several", [KeyboardInterrupt(), ValueError("y" * 1_000_000)])),
    lambda bars: thrown(ValueError("x" * 20_000_000)),
    lambda bars: thrown(AlgorithmError("z" * 20_000_000, more=["w" * 1_000_000] * 20, what=object())),
    lambda bars: thrown(AlgorithmError(OwnBase)),
    lambda bars: thrown(Silent()),
    lambda bars: thrown(ValueError("lone " + chr(0xD800))),
    lambda bars: thrown(circle()),
    lambda bars: deep(),
    lambda bars: Pretender(),
    lambda bars: Long(bars.close),
    lambda bars: thrown(StopIteration()),
]


@algorithm("fails_in_every_way", way=Int(0, low=0, high=len(WAYS) - 1))
def fails_in_every_way(bars, way):
    return WAYS[way](bars)


@algorithm("prints", megabytes=Int(0, low=0, high=1000), how=Int(0, low=0, high=7))
def prints(bars, megabytes, how):
    """Print, in one of several ways."""
    for _ in range(megabytes):
        if how == 0:
            print("p" * 99, file=sys.stdout) if megabytes == 1 else print(("p" * 99 + chr(10)) * 10_000)
        elif how == 1:
            print("p" * 1_000_000, end="", file=sys.stderr)
        elif how == 2:
            import logging
            logging.getLogger("mine").warning("p" * 1_000_000)
        elif how == 3:
            threads = [threading.Thread(target=thrown, args=(ValueError("p" * 1_000_000),)) for _ in range(10)]
            [thread.start() for thread in threads]
            [thread.join() for thread in threads]
        elif how == 4:
            sys.stdout.buffer.write(b"p" * 1_000_000)
        elif how == 5:
            import os
            os.write(1, b"p" * 1_000_000)
        elif how == 6:
            import subprocess
            subprocess.run(["sh", "-c", "head -c 1000000 /dev/zero"], check=True)
        else:
            print("p" * 1_000_000)
    if how == 7:
        sys.stdout.close()
    return Signals.of(entries=bars.close > 0)
'''
WAYS_TO_FAIL = 16

# It ends on the bars of a look-ahead check, and not on those of a long series.
LOOPS = """
from backtestr_engine.authoring import Signals
from backtestr_engine.authoring import algorithm


@algorithm("loops")
def loops(bars):
    while len(bars) > 10_000:
        pass
    return Signals.of(entries=bars.close > 0)
"""
