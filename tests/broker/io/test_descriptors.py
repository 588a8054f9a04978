"""The limit on descriptors is raised as far as it may be, and shared out so that some are left for everything else."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr_broker.io import descriptors
from backtestr_broker.io.descriptors import MAX_CONNECTIONS, MOST, are_exhausted, connection_limit

RAISED = "from backtestr_broker.io.descriptors import *; raise_descriptor_limit(); print(descriptor_limit())"


@pytest.mark.parametrize(("soft", "hard", "expected"), [(256, 1024, 1024), (256, 256, 256), (1024, 4096, 4096)])
def test_the_soft_limit_is_raised_to_the_hard_one(soft: int, hard: int, expected: int) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    raised = subprocess.run(
        [sys.executable, "-c", RAISED], preexec_fn=limit, capture_output=True, text=True, check=True, timeout=60
    )
    assert int(raised.stdout) == expected


@pytest.mark.parametrize("hard", [resource.RLIM_INFINITY, 1 << 20])
def test_a_limit_beyond_all_need_is_not_used_up(monkeypatch: pytest.MonkeyPatch, hard: int) -> None:
    set_to: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (1024, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _kind, limits: set_to.append(limits))
    descriptors.raise_descriptor_limit()
    assert set_to == [(MOST, hard)]


def test_a_system_that_allows_less_than_it_says_gets_its_own_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to: list[int] = []

    def set_limit(_kind: int, limits: tuple[int, int]) -> None:
        if limits[0] > 10_240:
            raise ValueError("current limit exceeds maximum limit")
        set_to.append(limits[0])

    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", set_limit)
    descriptors.raise_descriptor_limit()
    assert set_to == [10_240]


@given(limit=st.integers(256, 1 << 20), workers=st.integers(2, 20))
def test_what_all_sockets_may_have_leaves_descriptors_for_the_rest(limit: int, workers: int) -> None:
    each = connection_limit(limit, 7, workers)
    assert 8 <= each <= MAX_CONNECTIONS
    assert each == 8 or 14 * each <= limit - 100
    assert connection_limit(limit, 7, workers, 20) == min(20, each)


def test_want_of_descriptors_is_noticed_and_ends() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert not are_exhausted()
    opened: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, max(map(int, os.listdir("/proc/self/fd"))) + 40), hard))
    try:
        while not are_exhausted():
            opened.append(os.open(os.devnull, os.O_RDONLY))
        assert len(opened) > 8
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in opened:
            os.close(descriptor)
    assert not are_exhausted()
