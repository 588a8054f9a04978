"""A checked file passes if it has no problem and every verdict passes."""

from __future__ import annotations

import pytest

from backtestr_protocol.inspection import CheckedFile, Verdict
from backtestr_protocol.messages import Finding

FINDING = Finding(signal="entries", bar=3, cut=4, explanation="it reads the next bar")
PASSED = Verdict(algorithm_id="a@1", bars=10, cuts=[4, 7], finding=None)
FAILED = Verdict(algorithm_id="b@1", bars=10, cuts=[4, 7], finding=FINDING)


@pytest.mark.parametrize(
    ("verdicts", "problems", "passed"),
    [
        ([PASSED], [], True),
        ([PASSED, FAILED], [], False),
        ([PASSED], ["mine.py: it raised ValueError"], False),
        ([], ["mine.py declares no algorithm"], False),
    ],
)
def test_a_file_passes_if_all_of_it_passes(verdicts: list[Verdict], problems: list[str], passed: bool) -> None:
    assert CheckedFile(file="mine.py", verdicts=verdicts, problems=problems).passed is passed


def test_a_verdict_passes_without_a_finding() -> None:
    assert PASSED.passed
    assert not FAILED.passed
