"""The answer that a worker makes at the end of a backtest is the one that is read from its result."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from backtestr_engine.backtest.result_store import ResultStore, Storing
from backtestr_engine.config import TableOptions
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.synthetic import write_synthetic
from backtestr_engine.publishing.batching import Batcher
from backtestr_engine.simulation.conventions import Conventions
from backtestr_engine.worker.interactive_tasks import Means
from backtestr_engine.worker.table_files import TableFiles
from backtestr_engine.worker.task_runner import TaskRunner
from backtestr_protocol.codec import encode
from backtestr_protocol.messages import BacktestResults, GetBacktestResults
from backtestr_protocol.worker_channel import Control, Finished
from support.engine.tasks import Clock, assign, config, of_kind, run_out

TABLES: list[Any] = ["trades", "equity", "orders", "positions"]


class Asking:
    """The requests that wait, as the inbox keeps them; `late` ones come while the result is stored."""

    def __init__(self, request: GetBacktestResults, *, late: bool = False) -> None:
        self.request: bytes | None = encode(request)
        self.late = late

    def __call__(self, _backtest_id: str) -> bytes | None:
        if self.late:
            self.late = False
            return None
        request, self.request = self.request, None
        return request


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    return ResultStore(tmp_path / "results")


@pytest.fixture
def runner(
    catalog: Catalog, store: ResultStore, conventions: Conventions, batcher: Batcher, tmp_path: Path
) -> TaskRunner:
    write_synthetic(catalog)
    options = TableOptions(file_from_bytes=1, max_bytes=1 << 30, max_age_ms=1000)
    files = TableFiles(tmp_path / "tables", options, lambda: 0.0)
    return TaskRunner(
        catalog, store, conventions, 100, lambda: 1_700_000_000_000, batcher, means=Means(table_files=files)
    )


def ended(runner: TaskRunner, asking: Asking) -> tuple[Finished, list[bytes]]:
    runner.wanted = asking
    sent = assign(runner, config(backtest_id="b")) + run_out(runner)
    [(finished, frames)] = [(one, payload) for one, payload in sent if isinstance(one, Finished)]
    return finished, list(frames)


@pytest.mark.parametrize("late", [False, True])
def test_it_is_the_answer_that_is_read_from_the_result(late: bool, runner: TaskRunner, store: ResultStore) -> None:
    finished, frames = ended(runner, Asking(GetBacktestResults(backtest_id="b", tables=TABLES), late=late))
    assert finished.is_wanted
    answer, attachments = store.read("b", TABLES)
    assert frames == [encode(answer), *attachments]


def test_without_tables_named_it_has_those_of_the_protocol(runner: TaskRunner) -> None:
    _, frames = ended(runner, Asking(GetBacktestResults(backtest_id="b")))
    answer = msgspec.msgpack.decode(frames[0], type=BacktestResults)
    assert [one.name for one in answer.tables] == ["equity", "trades", "orders"]


def test_mapped_tables_have_the_content_of_the_others(runner: TaskRunner, store: ResultStore, tmp_path: Path) -> None:
    _, frames = ended(runner, Asking(GetBacktestResults(backtest_id="b", tables=TABLES, mapped=True)))
    answer = msgspec.msgpack.decode(frames[0], type=BacktestResults)
    assert len(frames) == 1
    for table, attachment in zip(answer.tables, store.read("b", TABLES)[1], strict=True):
        assert table.file is not None
        assert pl.read_ipc(tmp_path / "tables" / table.file.name).equals(pl.read_ipc_stream(attachment)), table.name


def test_nobody_asked(runner: TaskRunner) -> None:
    sent = assign(runner, config(backtest_id="b")) + run_out(runner)
    [finished] = of_kind(sent, Finished)
    assert (finished.outcome, finished.is_wanted) == ("completed", False)


def test_a_stopped_backtest_answers_too(runner: TaskRunner, store: ResultStore) -> None:
    runner.wanted = Asking(GetBacktestResults(backtest_id="b", tables=["equity"]))
    assign(runner, config(backtest_id="b"))
    runner.step(Clock())
    sent = runner.take(Control(task_id="b", action="stop"), [])
    [(finished, frames)] = [(one, payload) for one, payload in sent if isinstance(one, Finished)]
    assert isinstance(finished, Finished)
    assert (finished.outcome, finished.is_wanted) == ("stopped", True)
    answer, attachments = store.read("b", ["equity"])
    assert answer.status == "stopped"
    assert list(frames) == [encode(answer), *attachments]


def test_tables_that_cannot_be_made_leave_the_result_and_no_answer(
    runner: TaskRunner, store: ResultStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(TableFiles, "hand_over", failing)
    finished, frames = ended(runner, Asking(GetBacktestResults(backtest_id="b", tables=TABLES, mapped=True)))
    assert (finished.outcome, finished.is_wanted, len(frames)) == ("completed", False, 1)
    assert store.has("b")
    assert "tables could not be made" in caplog.text


def test_a_request_that_cannot_be_read_fails_no_backtest(runner: TaskRunner, store: ResultStore) -> None:
    asking = Asking(GetBacktestResults(backtest_id="b", tables=["equities"]))  # type: ignore[list-item]
    finished, _ = ended(runner, asking)
    assert (finished.outcome, finished.is_wanted) == ("completed", False)
    assert store.has("b")


def test_a_result_that_cannot_be_stored_is_answered_by_its_failure(
    runner: TaskRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Storing, "end", full)
    finished, _ = ended(runner, Asking(GetBacktestResults(backtest_id="b", tables=TABLES)))
    assert (finished.outcome, finished.is_wanted) == ("failed", False)
    assert finished.error is not None
    assert "No space left" in finished.error.message
