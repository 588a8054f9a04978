"""A file takes another's place at once; where open files cannot be replaced, their readers are waited for."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from backtestr_protocol.system import durable_files
from backtestr_protocol.system.durable_files import remove, replace, sync_file, sync_folder


@pytest.fixture
def _open_files_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this be a system on which open files cannot be replaced, with half a second of patience."""
    monkeypatch.setattr(durable_files, "OPEN_FILES_MOVE", False)
    monkeypatch.setattr(durable_files, "PATIENCE", 0.5)


def opened_by_others(method: str, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a method of `Path` fail so many times, as it does on Windows while a reader has the file open."""
    real: Callable[..., object] = getattr(Path, method)
    left = [times]

    def refusing(self: Path, *arguments: object, **named: object) -> object:
        if left[0]:
            left[0] -= 1
            raise PermissionError(errno.EACCES, "The process cannot access the file", str(self))
        return real(self, *arguments, **named)

    monkeypatch.setattr(Path, method, refusing)


def test_a_file_takes_the_place_of_another(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("old")
    new.write_text("new")
    replace(new, old)
    assert old.read_text() == "new"
    assert not new.exists()


def test_a_file_that_is_not_there_needs_no_removal(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    remove(file)
    remove(file)
    assert not file.exists()


@pytest.mark.usefixtures("_open_files_stay")
def test_a_reader_that_closes_the_file_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("old")
    new.write_text("new")
    opened_by_others("replace", 3, monkeypatch)
    replace(new, old)
    assert old.read_text() == "new"
    opened_by_others("unlink", 3, monkeypatch)
    remove(old)
    assert not old.exists()


@pytest.mark.usefixtures("_open_files_stay")
def test_a_reader_that_keeps_the_file_open_is_named_as_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("old")
    new.write_text("new")
    opened_by_others("replace", 1_000, monkeypatch)
    with pytest.raises(PermissionError, match="another program has it open") as raised:
        replace(new, old)
    assert raised.value.filename == str(old)
    assert (old.read_text(), new.read_text()) == ("old", "new")


def test_missing_rights_are_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("")
    opened_by_others("unlink", 1, monkeypatch)
    with pytest.raises(PermissionError, match="cannot access"):
        remove(file)


def test_content_is_synced_by_a_descriptor_that_may_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows refuses to sync a file that is open for reading."""
    file = tmp_path / "file"
    file.write_bytes(b"content")
    flags: list[int] = []
    real_open = os.open

    def watched(path: Path, how: int) -> int:
        flags.append(how)
        return real_open(path, how)

    monkeypatch.setattr(os, "open", watched)
    sync_file(file)
    assert flags[0] & os.O_RDWR
    assert file.read_bytes() == b"content"
    sync_folder(tmp_path)
    assert flags[1] & os.O_DIRECTORY


def test_a_folder_without_descriptors_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable_files, "CAN_OPEN_FOLDERS", False)
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("it was opened"))
    sync_folder(tmp_path)
