"""Uploads: private, bounded, and gone at the end."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from backtestr.ui.io import uploads as module
from backtestr.ui.io.uploads import MAX_FILES, Uploads
from backtestr_protocol.errors import Busy, DiskUnwritable, InvalidConfiguration, MessageTooLarge, ValidationError

LIMIT = 5 << 20


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BACKTESTR_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(module, "RESERVE_BYTES", 0)
    return tmp_path / "data"


@pytest.fixture
def uploads(data: Path) -> Iterator[Uploads]:
    made = Uploads(LIMIT)
    yield made
    made.close()


async def chunked(*chunks: bytes) -> AsyncIterator[bytes]:
    for one in chunks:
        yield one


def upload(uploads: Uploads, *chunks: bytes, name: str = "bars.csv", length: int | None = None) -> Path:
    return Path(asyncio.run(uploads.receive(name, chunked(*chunks), length))[0])


def test_a_file_of_many_chunks_is_written_whole(uploads: Uploads) -> None:
    content = os.urandom(3 << 20)
    chunks = [content[at : at + 65_536] for at in range(0, len(content), 65_536)]
    path = upload(uploads, *chunks)
    assert path.read_bytes() == content
    assert str(path) in uploads
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_files_of_one_name_do_not_meet(uploads: Uploads) -> None:
    first, second = upload(uploads, b"1"), upload(uploads, b"2")
    assert first != second
    assert (first.read_bytes(), second.read_bytes()) == (b"1", b"2")


def test_a_file_is_no_upload_while_it_is_written(uploads: Uploads) -> None:
    seen: list[bool] = []

    async def watched() -> AsyncIterator[bytes]:
        yield b"x" * (2 << 20)
        seen.extend(str(one) in uploads for one in Path(uploads._own_folder()).rglob("*.csv"))
        yield b"y"

    path, size = asyncio.run(uploads.receive("bars.csv", watched(), None))
    assert seen == [False]
    assert path in uploads
    assert size == (2 << 20) + 1


def test_nothing_else_is_an_upload(uploads: Uploads, data: Path) -> None:
    path = upload(uploads, b"x")
    for other in (
        "",
        "/etc/passwd",
        str(path.parent),
        f"{path}/",
        str(path.parent / ".." / path.parent.name / path.name),
    ):
        assert other not in uploads
    assert path not in uploads  # paths come as texts


def test_the_bounds(uploads: Uploads, monkeypatch: pytest.MonkeyPatch) -> None:
    upload(uploads, bytes(LIMIT))
    with pytest.raises(MessageTooLarge, match="larger than 5 MiB"):
        upload(uploads, bytes(LIMIT), b"x")
    with pytest.raises(MessageTooLarge):
        upload(uploads, length=LIMIT + 1)
    with pytest.raises(ValidationError, match=r"bars\.csv is empty"):
        upload(uploads)
    for _ in range(MAX_FILES - 1):
        upload(uploads, b"x")
    with pytest.raises(Busy, match="64 files"):
        upload(uploads, b"x")


def test_a_disk_that_is_nearly_full_is_left_alone(uploads: Uploads, monkeypatch: pytest.MonkeyPatch) -> None:
    path = upload(uploads, b"x")
    monkeypatch.setattr(module, "RESERVE_BYTES", shutil.disk_usage(path).free - (1 << 20))
    with pytest.raises(DiskUnwritable, match="MiB free"):
        upload(uploads, b"x", length=4 << 20)
    with pytest.raises(DiskUnwritable, match="MiB free"):
        upload(uploads, *[bytes(1 << 20)] * 4)
    assert {one.name for one in path.parents[1].iterdir()} == {"in-use", path.parent.name}


def test_a_failing_disk_is_said(uploads: Uploads, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(module, "_write_all", fail)
    with pytest.raises(DiskUnwritable, match=r"bars\.csv cannot be stored: Input/output error"):
        upload(uploads, b"x")
    assert list(Path(uploads._own_folder()).rglob("*.csv")) == []


def test_the_end_removes_all_of_them_and_nothing_of_others(data: Path) -> None:
    one, other = Uploads(LIMIT), Uploads(LIMIT)
    own, others = upload(one, b"1"), upload(other, b"2")
    one.close()
    assert not own.parents[1].exists()
    assert others.exists()
    other.close()
    assert list((data / "uploads").iterdir()) == []
    one.close()  # twice does no harm


def test_what_a_killed_server_left_is_removed_by_the_next(data: Path) -> None:
    killed = Uploads(LIMIT)
    left = upload(killed, b"1")
    assert killed._lock is not None
    killed._lock.release()  # as the system does
    (data / "uploads" / "of another program").mkdir()
    running = Uploads(LIMIT)
    kept = upload(running, b"2")
    assert not left.parents[1].exists()
    assert kept.exists()
    assert (data / "uploads" / "of another program").exists()
    running.close()


def test_a_data_directory_that_others_may_write_to_is_refused(data: Path, uploads: Uploads) -> None:
    data.mkdir()
    data.chmod(0o777)
    with pytest.raises(InvalidConfiguration, match="chmod"):
        upload(uploads, b"x")
