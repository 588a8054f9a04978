"""Time limits are short in tests of endless work, and long in tests of work that returns."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Iterator

import pytest

from backtestr_engine.library.source_files import load_source
from backtestr_engine.worker import time_limit as time_limit_module
from backtestr_engine.worker.time_limit import time_limit
from backtestr_protocol.errors import AlgorithmError, TimedOut

LONG = time_limit(60.0, patience=60.0)
SHORT = time_limit(0.05, patience=60.0)

ENDLESS = """
def turn():
    while True:
        pass

turn()
"""
# It catches the interruption three times, and is interrupted again.
STUBBORN = """
caught = []
while len(caught) < 3:
    try:
        while True:
            pass
    except BaseException as error:
        caught.append(error)
while True:
    pass
"""


def test_work_within_the_limit_returns_or_raises_unchanged() -> None:
    def fail() -> None:
        raise ValueError("no")

    assert LONG("adding", lambda: 1 + 1) == 2
    with pytest.raises(ValueError, match="no"):
        LONG("failing", fail)


@pytest.mark.parametrize("source", [ENDLESS, STUBBORN], ids=["endless", "stubborn"])
def test_a_loop_is_interrupted_and_the_error_has_its_lines(source: str) -> None:
    with pytest.raises(TimedOut, match=r"^loading mine\.py took longer than 0\.05 s; look for an endless") as caught:
        SHORT("loading mine.py", lambda: load_source(source, "mine.py", "mine"))

    assert caught.value.details is not None
    assert 'File "mine.py", line' in caught.value.details["traceback"]
    assert f'File "{time_limit_module.__file__}"' not in caught.value.details["traceback"]
    assert not [thread for thread in threading.enumerate() if thread.name == "backtestr limited"]


def test_the_message_names_the_option_that_sets_the_limit() -> None:
    limit = time_limit(0.05, patience=60.0, option="time_limit_ms under [conventions]")
    with pytest.raises(TimedOut, match=r"loop, or raise time_limit_ms under \[conventions\] in engine\.toml$"):
        limit("evaluating mine", lambda: load_source(ENDLESS, "mine.py", "mine"))


def test_the_work_has_the_context_of_its_caller() -> None:
    """The lines that it logs are then about the caller's task."""
    task = contextvars.ContextVar("task", default="none")
    task.set("mine")
    assert LONG("reading", task.get) == "mine"


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Provide an event that a thread can wait for uninterruptibly; it is set when the test ends."""
    opened = threading.Event()
    yield opened
    opened.set()


def test_code_that_cannot_be_interrupted_is_left_behind(gate: threading.Event) -> None:
    with pytest.raises(TimedOut, match=r"^waiting took longer"):
        time_limit(0.05, patience=0.1)("waiting", lambda: gate.wait(60.0))


@pytest.mark.parametrize("raised", [KeyboardInterrupt, GeneratorExit, SystemExit])
def test_exceptions_that_would_end_the_waiting_thread_are_errors_of_the_algorithm(raised: type[BaseException]) -> None:
    def leave() -> None:
        raise raised("gone")

    with pytest.raises(AlgorithmError, match=f"^loading mine raised {raised.__name__}: gone"):
        LONG("loading mine", leave)
