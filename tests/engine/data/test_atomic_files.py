"""Files are replaced as a whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backtestr_engine.data.atomic_files import replace_file


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    path.write_text("old")

    def fail_half_way() -> None:
        with replace_file(path) as file:
            file.write(b"new")
            raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="disk is full"):
        fail_half_way()
    assert [one.name for one in tmp_path.iterdir()] == ["kept"]
    assert path.read_text() == "old"


def test_a_file_is_replaced_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    path.write_text("old")
    with replace_file(path) as file:
        file.write(b"new")
        assert path.read_text() == "old"

    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_the_half_written_file_of_an_ended_process_is_removed(tmp_path: Path) -> None:
    of_no_process = tmp_path / ".kept.4194305.partial"  # above the largest process id of Linux
    of_a_running_one = tmp_path / f".kept.{os.getppid()}.partial"
    of_no_process.touch()
    of_a_running_one.touch()
    with replace_file(tmp_path / "kept") as file:
        file.write(b"new")

    assert sorted(tmp_path.iterdir()) == sorted([of_a_running_one, tmp_path / "kept"])
