"""The files of checkpoints are private, are appended to, and are replaced when they are taken up."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backtestr_engine.backtest.checkpoint_store import CheckpointStore
from backtestr_protocol.private_files import HAS_OWNERS


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


def test_what_was_appended_is_read(root: Path) -> None:
    store = CheckpointStore(root)
    assert store.read("b1") is None
    file = store.create("b1", b"one")
    file.append(b" two")
    assert store.read("b1") == b"one two"
    file.append(b" three")
    file.close()
    assert CheckpointStore(root).read("b1") == b"one two three"
    assert [one.name for one in root.iterdir()] == ["b1"]
    store.remove("b1")
    store.remove("b1")
    assert store.read("b1") is None


def test_a_writer_of_an_earlier_file_does_not_reach_the_one_that_was_taken_up(root: Path) -> None:
    store = CheckpointStore(root)
    earlier = store.create("b1", b"one")
    later = store.create("b1", b"one")
    earlier.append(b" of the earlier")
    later.append(b" of the later")
    assert store.read("b1") == b"one of the later"
    earlier.close()
    later.close()


@pytest.mark.skipif(not HAS_OWNERS, reason="files have no owners here")
def test_only_this_user_reads_them(root: Path) -> None:
    CheckpointStore(root).create("b1", b"x").close()
    assert [root.stat().st_mode & 0o777, (root / "b1").stat().st_mode & 0o777] == [0o700, 0o600]


def test_a_name_of_a_device_is_escaped(root: Path) -> None:
    store = CheckpointStore(root)
    store.create("nul", b"x").close()
    assert [one.name for one in root.iterdir()] == ["%6Eul"]
    assert store.read("nul") == b"x"


def test_a_file_that_cannot_be_written_leaves_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        CheckpointStore(root).create("b1", b"x")
    assert list(root.iterdir()) == []


def test_a_write_that_takes_a_part_is_continued(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, content: write(handle, bytes(content[:3])))
    CheckpointStore(root).create("b1", b"0123456789").close()
    assert CheckpointStore(root).read("b1") == b"0123456789"
