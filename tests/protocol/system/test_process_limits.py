"""Limits are read and lowered where the system has them; elsewhere nothing is limited, and that is returned."""

from __future__ import annotations

import math
import resource
import subprocess
import sys

import pytest

from backtestr_protocol.system import process_limits
from backtestr_protocol.system.process_limits import ProcessLimit

FILES = "RLIMIT_NOFILE"
LOWERS = """
import math
from backtestr_protocol.system import process_limits as limits
soft, hard = limits.read("RLIMIT_NOFILE")
assert limits.lower("RLIMIT_NOFILE", 99)
assert limits.read("RLIMIT_NOFILE") == (99, hard)
assert limits.lower("RLIMIT_NOFILE", math.inf)
assert limits.read("RLIMIT_NOFILE") == (hard, hard)
assert limits.lower("RLIMIT_NOFILE", hard + 1)
assert limits.read("RLIMIT_NOFILE") == (hard, hard)
assert limits.leave_no_image() and limits.read("RLIMIT_CORE").soft == 0
"""


@pytest.fixture
def _no_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this be a system without the module `resource`."""
    monkeypatch.setattr(process_limits, "_resource", None)


def test_a_limit_is_read_as_numbers_and_infinity() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert process_limits.read(FILES) == ProcessLimit(
        math.inf if soft == resource.RLIM_INFINITY else soft, math.inf if hard == resource.RLIM_INFINITY else hard
    )
    assert FILES in process_limits.names()
    assert process_limits.read("RLIMIT_UNKNOWN") is None


def test_a_limit_is_lowered_and_never_raised_beyond_the_hard_one() -> None:
    assert subprocess.run([sys.executable, "-c", LOWERS], timeout=60).returncode == 0


def test_a_limit_is_put_back_as_it_was() -> None:
    limit = process_limits.read(FILES)
    assert limit is not None
    process_limits.put(FILES, limit)
    assert process_limits.read(FILES) == limit


@pytest.mark.usefixtures("_no_limits")
def test_a_system_without_limits_says_so() -> None:
    assert process_limits.names() == []
    assert process_limits.read(FILES) is None
    assert not process_limits.lower(FILES, 1)
    assert not process_limits.leave_no_image()
    assert process_limits.used_processor_seconds() == 0.0
    process_limits.put(FILES, ProcessLimit(1, 1))
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 1
