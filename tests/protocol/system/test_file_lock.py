"""A lock belongs to one holder, also within a process, and ends with the process that holds it."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from backtestr_protocol.system.file_lock import FileLock

HOLDER = """
import sys
from pathlib import Path
{before}
from backtestr_protocol.system.file_lock import FileLock
lock = FileLock(Path("lock"))
assert lock.take()
print("held", flush=True)
sys.stdin.readline()
"""
# As on a system, or for a file system, without locks.
WITHOUT_LOCKS = "import warnings; warnings.simplefilter('ignore'); sys.modules['fcntl'] = None"
TAKER = HOLDER.replace("assert lock.take()", "print(lock.take())").replace('print("held", flush=True)', "")


def test_a_second_holder_is_refused_until_the_first_releases_it(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert first.take()
    assert first.is_held
    assert not second.take()
    assert not second.take(0.05)
    assert not second.is_held
    second.release()
    assert first.is_held
    first.release()
    assert second.take()
    second.release()


def test_its_file_is_private_and_stays(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    assert lock.take()
    assert stat.S_IMODE(lock.path.stat().st_mode) & 0o077 == 0
    lock.release()
    assert lock.path.exists(), "two processes must lock the same file"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="lock"):
        FileLock(tmp_path / "lock").take()
    assert not (tmp_path / "elsewhere").exists()


def test_it_ends_with_a_process_that_is_killed(tmp_path: Path) -> None:
    with holder(tmp_path / "lock") as process:
        lock = FileLock(tmp_path / "lock")
        assert not lock.take()
        process.kill()
        process.wait()
        assert lock.take()
        lock.release()


def test_without_locks_of_the_system_the_file_names_its_holder_and_ends_with_it_too(tmp_path: Path) -> None:
    taker = [sys.executable, "-c", TAKER.format(before=WITHOUT_LOCKS)]
    with holder(tmp_path / "lock", WITHOUT_LOCKS) as process:
        assert subprocess.run(taker, input=b"\n", stdout=subprocess.PIPE, cwd=tmp_path).stdout == b"False\n"
        process.kill()
        process.wait()
    assert subprocess.run(taker, input=b"\n", stdout=subprocess.PIPE, cwd=tmp_path).stdout == b"True\n"


def holder(path: Path, before: str = "") -> subprocess.Popen[bytes]:
    """Return a process that holds the lock until it is killed."""
    code = HOLDER.format(before=before)
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=path.parent
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process
