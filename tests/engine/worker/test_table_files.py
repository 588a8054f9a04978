"""Table files hold what attachments would, are bounded by size and age, and never change under a reader."""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil
import pytest

from backtestr_engine.backtest.tables import Table, arrow_stream, attach_all
from backtestr_engine.config import TableOptions
from backtestr_engine.worker import table_files as module
from backtestr_engine.worker.table_files import TableFiles
from backtestr_protocol.messages import TableFile, TableRef

OPTIONS = TableOptions(file_from_bytes=1_000, max_bytes=1 << 20, max_age_ms=60_000)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def frame(rows: int = 1_000, seed: int = 0) -> pl.DataFrame:
    values = np.random.default_rng(seed).normal(size=rows)
    return pl.DataFrame(
        {
            "timestamp": pl.Series(range(rows)).cast(pl.Datetime("us", "UTC")),
            "value": values,
            "reason": pl.Series([None if value < 0 else f"é {value:.1f}" for value in values], dtype=pl.String),
            "flag": values > 0,
        }
    )


def table(one: pl.DataFrame, key: str | None = None, name: str = "bars") -> Table:
    return Table(name, lambda: one, key)


def file_of(ref: TableRef) -> TableFile:
    assert ref.file is not None
    return ref.file


def opened(folder: Path, **changes: Any) -> tuple[TableFiles, Clock]:
    options = {name: getattr(OPTIONS, name) for name in OPTIONS.__struct_fields__} | changes
    return TableFiles(folder, TableOptions(**options), clock := Clock()), clock


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_holds_the_bytes_that_an_attachment_would(tmp_path: Path) -> None:
    files, _ = opened(tmp_path / "tables")
    one = frame()
    ([ref], attachments), (_, [attached]) = files.hand_over([table(one)]), attach_all([table(one)])

    file = file_of(ref)
    path = tmp_path / "tables" / file.name
    assert attachments == []
    assert (ref.name, ref.frame, ref.format, ref.rows) == ("bars", None, "arrow-ipc-file", 1_000)
    assert file.size == path.stat().st_size
    assert [(column.name, column.type) for column in file.columns] == [
        ("timestamp", "timestamp[us, UTC]"),
        ("value", "float64"),
        ("reason", "utf8"),
        ("flag", "bool"),
    ]
    assert arrow_stream(pl.read_ipc(path).rechunk()) == arrow_stream(pl.read_ipc_stream(attached).rechunk())
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_small_tables_are_attached_beside_files(tmp_path: Path) -> None:
    files, _ = opened(tmp_path)
    small, large = frame(3), frame()
    refs, attachments = files.hand_over([table(small), table(large), table(small, name="ticks")])
    assert [(ref.name, ref.frame, ref.file is None) for ref in refs] == [
        ("bars", 0, True),
        ("bars", None, False),
        ("ticks", 1, True),
    ]
    assert [pl.read_ipc_stream(one).equals(small) for one in attachments] == [True, True]


def test_a_table_with_a_key_is_made_once_while_its_file_is_there(tmp_path: Path) -> None:
    files, _ = opened(tmp_path)
    made: list[int] = []

    def make() -> pl.DataFrame:
        made.append(1)
        return frame()

    def named(key: str | None = "b/1/equity") -> str:
        return file_of(files.hand_over([Table("equity", make, key)])[0][0]).name

    first = named()
    assert (named(), len(made)) == (first, 1)
    assert (named("b/2/equity") == first, len(made)) == (False, 2)
    (tmp_path / first).unlink()
    assert (named() == first, len(made)) == (False, 3), "a file that somebody removed is not named"
    assert (named(None) == first, named(None) == first, len(made)) == (False, False, 5)


def test_files_that_were_named_longest_ago_make_room(tmp_path: Path) -> None:
    files, _ = opened(tmp_path)
    size = file_of(files.hand_over([table(frame())])[0][0]).size
    files, _ = opened(tmp_path / "bounded", max_bytes=3 * size)
    first, second, third = (
        file_of(files.hand_over([table(frame(seed=seed), str(seed))])[0][0]).name for seed in range(3)
    )
    assert names(tmp_path / "bounded") == {first, second, third}
    files.hand_over([table(frame(seed=0), "0")])  # named again
    mapped = pl.read_ipc(tmp_path / "bounded" / second)
    fourth = file_of(files.hand_over([table(frame(seed=3), "3")])[0][0]).name
    assert names(tmp_path / "bounded") == {first, third, fourth}
    assert mapped.equals(frame(seed=1)), "who has mapped a file keeps what it had"


def test_an_answer_does_not_remove_its_own_files(tmp_path: Path) -> None:
    files, _ = opened(tmp_path)
    size = file_of(files.hand_over([table(frame())])[0][0]).size
    files, _ = opened(tmp_path / "bounded", max_bytes=2 * size)
    refs, attachments = files.hand_over([table(frame(seed=seed)) for seed in range(4)])
    assert [ref.frame for ref in refs] == [None, None, 0, 1]
    assert {file_of(ref).name for ref in refs[:2]} == names(tmp_path / "bounded")
    assert pl.read_ipc_stream(attachments[1]).equals(frame(seed=3))


def test_a_file_is_removed_when_it_was_not_named_for_long(tmp_path: Path) -> None:
    files, clock = opened(tmp_path)
    old, kept = (file_of(files.hand_over([table(frame(), key)])[0][0]).name for key in ("a", "b"))
    clock.now += 59.0
    files.hand_over([table(frame(), "b")])
    clock.now += 1.0
    files.remove_old(clock.now)
    assert names(tmp_path) == {kept} != {old}
    clock.now += 60.0
    files.hand_over([])
    assert names(tmp_path) == set()


def test_no_room_at_all_means_attachments(tmp_path: Path) -> None:
    files, _ = opened(tmp_path, max_bytes=0)
    [ref], attachments = files.hand_over([table(frame(), "a")])
    assert (ref.frame, len(attachments), names(tmp_path)) == (0, 1, set())


@pytest.mark.parametrize("fails", ["open", "write"])
def test_a_full_disk_means_attachments_and_one_warning(
    fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    files, _ = opened(tmp_path)
    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
        if fails == "open":
            patched.setattr(module, "private_opener", full)
        else:
            patched.setattr(pl.DataFrame, "write_ipc", full)
        for _ in range(2):
            [ref], [attached] = files.hand_over([table(frame(), "a")])
            assert ref.frame == 0
            assert pl.read_ipc_stream(attached).equals(frame())
    assert [one.getMessage() for one in caplog.records] == [
        "table files cannot be written, so tables are attached: [Errno 28] No space left on device"
    ]
    assert names(tmp_path) == set()
    assert files.hand_over([table(frame(), "a")])[0][0].file is not None


def test_a_worker_removes_what_ended_workers_left_and_what_is_old(tmp_path: Path) -> None:
    gone = next(pid for pid in range(400_000, 500_000) if not psutil.pid_exists(pid))
    left, fresh, old, foreign = (f"{gone}-a.arrow", f"{os.getpid()}-b.arrow", f"{os.getpid()}-c.arrow", "notes.txt")
    for name in (left, fresh, old, foreign):
        (tmp_path / name).write_bytes(b"x")
    hour_ago = time.time() - 3600
    os.utime(tmp_path / old, (hour_ago, hour_ago))
    os.utime(tmp_path / foreign, (hour_ago, hour_ago))
    opened(tmp_path)
    assert names(tmp_path) == {fresh, foreign}


def test_a_directory_that_cannot_be_made_means_attachments(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    files, _ = opened(tmp_path / "file" / "tables")
    [ref], [_] = files.hand_over([table(frame())])
    assert ref.frame == 0
