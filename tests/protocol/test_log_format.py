"""The lines of the log have tracebacks without values, bounded texts, and a form that stays whatever is logged."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from backtestr_protocol.log_format import LineHandler, dropped_line
from backtestr_protocol.texts import MAX_TEXT_BYTES
from backtestr_protocol.worker_channel import LogFormat

both_forms = pytest.mark.parametrize("form", ["console", "json"])


def lines_of(form: LogFormat, log: Callable[[logging.Logger], None]) -> list[str]:
    """Return what `log` logs with a logger."""
    lines: list[str] = []
    handler = LineHandler(form, [], lambda _name, line: lines.append(line), colors=False)
    logger = logging.Logger("some.library")
    logger.addHandler(handler)
    log(logger)
    return lines


def failing(logger: logging.Logger, error: BaseException) -> None:
    held = " by ".join(("held", "a frame"))
    try:
        raise error
    except BaseException:
        logger.exception("it failed %d times", len(held) - 14)


@both_forms
def test_a_traceback_has_lines_and_no_values(form: LogFormat) -> None:
    (line,) = lines_of(form, lambda logger: failing(logger, ValueError("why")))
    assert "it failed 1 times" in line
    assert "in failing" in line
    assert "ValueError: why" in line
    assert "held by a frame" not in line


@both_forms
def test_long_texts_are_cut_and_a_line_of_json_stays_one(form: LogFormat) -> None:
    def log(logger: logging.Logger) -> None:
        logger.warning("x" * 20_000_000)
        failing(logger, ValueError("y" * 20_000_000))

    first, second = lines_of(form, log)
    assert "cut: 20,000,000 characters" in first
    assert "… cut: " in json.loads(second)["exception"] if form == "json" else "… cut: " in second
    assert max(map(len, (first, second))) < 2 * MAX_TEXT_BYTES


class Silent(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt


class Unprintable:
    def __repr__(self) -> str:
        raise SystemExit


@both_forms
def test_objects_of_users_cannot_break_it(form: LogFormat) -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one

    def log(logger: logging.Logger) -> None:
        failing(logger, Silent())
        failing(logger, one)
        logger.warning("%s", Unprintable())
        logger.warning("lone \ud800")

    silent, circle, unprintable, _ = lines_of(form, log)
    assert "Silent" in silent
    assert "ValueError: one" in circle
    assert unprintable == "a line of some.library could not be made: SystemExit\n"


@both_forms
def test_dropped_lines_are_a_line_of_the_same_form(form: LogFormat) -> None:
    line = dropped_line(form)(1234)
    assert "1,234 log lines were dropped: nobody read standard error" in line
    assert line.endswith("\n")
    if form == "json":
        facts: dict[str, Any] = json.loads(line)
        assert (facts["level"], facts["dropped"]) == ("warning", 1234)
