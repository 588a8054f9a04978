"""A traceback begins in the author's file, on every way on which an algorithm can fail."""

from __future__ import annotations

import queue
import sys
import traceback
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import backtestr_engine
from backtestr_engine.algorithms.tracebacks import authors_stack
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.library.source_files import load_source
from backtestr_engine.worker.time_limit import time_limit
from backtestr_protocol.errors import AlgorithmError, TimedOut

CALLER = f"{next(iter(backtestr_engine.__path__))}/worker/threads.py"
WORKER = """
def work(one, bars):
    try:
        queue.Queue().get_nowait()
    except queue.Empty:
        one.signals(bars, {})
"""
HEAD = "from backtestr_engine.authoring import Int, Signals, algorithm\n"
FAILS = (
    HEAD
    + """
def helper(bars):
    {body}

@algorithm("fails")
def fails(bars):
    return helper(bars)
"""
)
BODIES = {
    "plain": ("return bars.no_such_column", "in helper"),
    "refused by the engine": ("return Signals.of(entries=3, stop_loss='x')", "in helper"),
    "of the engine's error class": (
        "from backtestr_protocol.errors import AlgorithmError; raise AlgorithmError('mine')",
        "in helper",
    ),
    "no Exception": ("raise KeyboardInterrupt", "in helper"),
}


def called_while_the_queue_is_empty(source: str) -> str:
    """Return the traceback of an algorithm that a worker calls while it handles an error of its own."""
    (one,) = load_source(source, "mine.py", "mine")
    names: dict[str, Any] = {"queue": queue}
    exec(compile(WORKER, CALLER, "exec"), names)
    with pytest.raises(AlgorithmError) as caught:
        names["work"](one, synthetic_bars("1h", 10))
    assert caught.value.details is not None
    return str(caught.value.details["traceback"])


def first_frame(text: str) -> str:
    """Return the first line that names a file; that of a syntax error stands without a heading."""
    return text.removeprefix("Traceback (most recent call last):\n").splitlines()[0]


@pytest.mark.parametrize(("body", "place"), BODIES.values(), ids=BODIES.keys())
def test_a_failing_algorithm_begins_in_its_file(body: str, place: str) -> None:
    text = called_while_the_queue_is_empty(FAILS.format(body=body))
    assert first_frame(text) == '  File "mine.py", line 8, in fails'
    assert place in text
    assert "algorithm.py" not in text


def test_errors_that_the_author_has_chained_stay_and_those_of_the_worker_go() -> None:
    body = "\n    ".join(
        ["try:", "    {}['price']", "except KeyError as missing:", "    raise ValueError('no price') from missing"]
    )
    text = called_while_the_queue_is_empty(FAILS.format(body=body))
    assert first_frame(text) == '  File "mine.py", line 5, in helper'
    assert "KeyError: 'price'" in text
    assert "direct cause" in text
    assert "ValueError: no price" in text
    assert "_queue.Empty" not in text


def test_an_error_that_was_being_handled_when_the_author_failed_stays() -> None:
    body = "\n    ".join(["try:", "    1 / 0", "except ArithmeticError:", "    raise ValueError('while handling')"])
    text = called_while_the_queue_is_empty(FAILS.format(body=body))
    assert "ZeroDivisionError" in text
    assert "During handling of the above exception" in text


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("import no_such_module\n", 1),
        (HEAD + "\n\n1 / 0\n", 4),
        (HEAD + "def f(:\n", 2),
        (HEAD + "@algorithm('x', fast=Int(1, low=5, high=9))\ndef x(bars, fast): ...\n", 2),
        (HEAD + "@algorithm('x')\ndef x(bars, fast): ...\n", 2),
        (HEAD + "raise KeyboardInterrupt\n", 2),
    ],
    ids=["import", "module", "syntax", "default", "arguments", "no Exception"],
)
def test_a_source_that_cannot_be_loaded_begins_in_its_file(source: str, line: int) -> None:
    with pytest.raises(AlgorithmError) as caught:
        time_limit(10, 1)("loading mine.py", partial(load_source, source, "mine.py", "mine"))
    assert caught.value.details is not None
    assert first_frame(caught.value.details["traceback"]).startswith(f'  File "mine.py", line {line}')


def test_a_source_that_does_not_end_is_shown_from_its_own_line_on() -> None:
    with pytest.raises(TimedOut) as caught:
        time_limit(0.2, 2)("loading mine.py", partial(load_source, "while True:\n    pass\n", "mine.py", "mine"))
    assert caught.value.details is not None
    assert first_frame(caught.value.details["traceback"]).startswith('  File "mine.py", line')


@given(st.lists(st.sampled_from([CALLER, "mine.py", "library.py"])))
def test_only_frames_before_the_first_of_another_file_are_left_out(files: list[str]) -> None:
    stack = traceback.StackSummary.from_list([(file, 1, f"f{at}", "") for at, file in enumerate(files)])
    shown = authors_stack(stack).count("  File ")
    own = [at for at, file in enumerate(files) if file != CALLER]
    assert shown == (len(files) - own[0] if own else 0)


@pytest.mark.parametrize("depth", [1, sys.getrecursionlimit() - 100])
def test_a_long_chain_of_errors_is_no_error(depth: int) -> None:
    lines = [
        "error = None",
        f"for at in range({depth}):",
        "    new = ValueError(at)",
        "    new.__cause__, error = error, new",
    ]
    body = "\n    ".join([*lines, "raise error"])
    assert "ValueError" in called_while_the_queue_is_empty(FAILS.format(body=body))
