"""Checkpoints of backtests that have ended or are unknown are removed, and no other."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from backtestr_broker.io.checkpoint_files import remove_checkpoints

NOW_MS = 1_700_000_000_000


def write(folder: Path, *names: str, at_ms: int = NOW_MS - 1) -> None:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")
        os.utime(folder / name, ns=(at_ms * 10**6, at_ms * 10**6))


def test_only_those_of_unended_backtests_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    write(folder, "ended", "runs", "%6Eul", ".abc.partial")
    remove_checkpoints(folder, ("runs", "nul"), NOW_MS)
    assert sorted(one.name for one in folder.iterdir()) == ["%6Eul", "runs"]


def test_one_that_was_written_after_the_order_is_kept(tmp_path: Path) -> None:
    write(tmp_path, "new", at_ms=NOW_MS)
    remove_checkpoints(tmp_path, (), NOW_MS)
    assert (tmp_path / "new").exists()


def test_no_folder_and_a_file_that_cannot_be_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    remove_checkpoints(tmp_path / "none", (), NOW_MS)
    assert caplog.text == ""
    write(tmp_path, "b1")
    (tmp_path / "a").mkdir()  # which is no file of backtestr's
    os.utime(tmp_path / "a", ns=(0, 0))
    remove_checkpoints(tmp_path, ("b1",), NOW_MS)
    assert "could not be removed" in caplog.text
    assert caplog.records[0].levelno == logging.WARNING
