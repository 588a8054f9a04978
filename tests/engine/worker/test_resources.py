"""The resources of a worker process are tested in processes of their own: its limits, and the memory that it keeps."""

from __future__ import annotations

import platform
import resource
import signal
import subprocess
import sys

import pytest

from backtestr_engine.worker import resources
from backtestr_protocol.system import process_limits

BEGIN = "import math, resource; from backtestr_engine.worker.resources import limit_memory, limit_processor; "

# Two rounds of large arrays, and the page faults of the second.
REUSE = """
import resource
import numpy as np
from backtestr_engine.worker.resources import keep_freed_memory

assert keep_freed_memory()
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.ones(1_500_000)  # 12 MB: 2,930 pages
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", BEGIN + code], capture_output=True, text=True, timeout=60)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit address space")
def test_an_allocation_beyond_the_limit_is_a_memory_error_and_one_within_is_not() -> None:
    done = run("limit_memory(1 << 30); kept = bytearray(1 << 29); print(len(kept)); bytearray(1 << 30)")
    assert done.stdout == f"{1 << 29}\n"
    assert done.stderr.endswith("MemoryError\n")


def test_no_limit_is_no_limit() -> None:
    done = run("limit_memory(0); print(resource.getrlimit(resource.RLIMIT_AS)[0])")
    assert int(done.stdout) == resource.getrlimit(resource.RLIMIT_AS)[0]


def test_a_worker_leaves_no_image_of_its_memory() -> None:
    done = run("limit_memory(0); print(resource.getrlimit(resource.RLIMIT_CORE)[0])")
    assert done.stdout == "0\n"


def test_processor_time_beyond_the_limit_ends_the_process() -> None:
    assert run("limit_memory(0); limit_processor(0.1)\nwhile True: pass").returncode == -signal.SIGXCPU


def test_the_limit_on_processor_time_can_be_lifted_and_set_again() -> None:
    done = run(
        "limit_processor(100); a = resource.getrlimit(resource.RLIMIT_CPU)[0]; limit_processor(math.inf); "
        "print(100 <= a <= 110, resource.getrlimit(resource.RLIMIT_CPU)[0] == resource.RLIM_INFINITY)"
    )
    assert done.stdout == "True True\n", done.stderr


def test_a_hard_limit_of_another_program_is_kept() -> None:
    done = run(
        "resource.setrlimit(resource.RLIMIT_CPU, (50, 60)); limit_processor(100); "
        "print(resource.getrlimit(resource.RLIMIT_CPU)); limit_processor(math.inf); "
        "print(resource.getrlimit(resource.RLIMIT_CPU))"
    )
    assert done.stdout == "(60, 60)\n(60, 60)\n", done.stderr


def test_memory_is_not_limited_where_the_system_cannot_limit_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, float]] = []
    monkeypatch.setattr(process_limits, "_LIMITS_ADDRESS_SPACE", False)
    monkeypatch.setattr(process_limits, "put", lambda name, limit: asked.append((name, limit.soft)))
    assert not resources.limit_memory(1 << 30), "its caller has to say so"
    assert resources.limit_memory(0), "no limit was asked for"
    assert asked == [("RLIMIT_CORE", 0.0)] * 2


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_freed_arrays_are_used_again() -> None:
    done = subprocess.run([sys.executable, "-c", REUSE], capture_output=True, text=True, check=True)

    assert int(done.stdout) < 100
