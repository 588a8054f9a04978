"""Only regular files are read, whatever lies under a name, and nothing is waited for."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from backtestr_engine.data.regular_files import read_regular


def test_a_regular_file_is_read_also_through_a_link(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"12345")
    (tmp_path / "link").symlink_to(file)

    assert read_regular(file, 5) == b"12345"
    assert read_regular(tmp_path / "link", 5) == b"12345"
    with pytest.raises(OSError, match="it has 5 bytes, and may have 4"):
        read_regular(file, 4)


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.path.relpath(path))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Path.mkdir, "it is a folder, not a regular file"),
        (os.mkfifo, "it is a pipe, not a regular file"),
        (a_socket, "it is a socket or a device"),
        (lambda path: path.symlink_to("nothing"), "it is a link to nothing"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
        (lambda path: path.symlink_to("/dev/zero"), "it is a device, not a regular file"),
        (lambda path: None, "No such file or directory"),
    ],
    ids=["folder", "pipe", "socket", "dangling", "circle", "device", "absent"],
)
def test_everything_else_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.py"
    make(path)
    with pytest.raises(OSError, match=reason):
        read_regular(path, 100)


def test_a_name_with_nul_is_refused() -> None:
    with pytest.raises(OSError, match="null byte"):
        read_regular(Path("a\0b"), 100)
