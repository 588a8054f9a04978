"""An interactive worker answers every kind of interactive task, and refuses data that are not of its kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import msgspec
import polars as pl
import pytest

from backtestr_engine.backtest.result_store import ResultStore
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.library.library import Library
from backtestr_engine.simulation.conventions import Conventions
from backtestr_engine.worker.interactive_tasks import InteractiveTasks, Means
from backtestr_engine.worker.sweeping.sweep_store import SweepStore
from backtestr_engine.worker.sweeping.trial_store import TrialStore
from backtestr_protocol.codec import encode
from backtestr_protocol.errors import MessageError, NotFound, StateConflict
from backtestr_protocol.evaluation_messages import EvaluateAlgorithm
from backtestr_protocol.messages import BacktestConfig
from backtestr_protocol.worker_channel import Work
from support.engine.batches import batcher

KINDS: set[Work] = set(get_args(Work)) - {"RunBacktest"}
WITHOUT_DATA: set[Work] = {"ListMarketData"}


@pytest.fixture
def tasks(catalog: Catalog, tmp_path: Path, conventions: Conventions) -> InteractiveTasks:
    catalog.write(synthetic_bars("1d", 50))
    return InteractiveTasks(
        catalog,
        ResultStore(tmp_path / "results"),
        conventions,
        Library(),
        lambda: 7,
        Means(sweeps=SweepStore(tmp_path / "sweeps"), trials=TrialStore(tmp_path / "trials")),
        pack=batcher().payload,
    )


EVALUATED = EvaluateAlgorithm(
    algorithm_id="sma_cross", symbol="SYNTH", start_date="2024-01-11", timeframe="1d", parameters={"slow": 7, "fast": 3}
)


def decoded(frames: list[bytes]) -> Any:
    return msgspec.msgpack.decode(frames[0])


@pytest.mark.parametrize("work", sorted(KINDS - WITHOUT_DATA))
@pytest.mark.parametrize("data", [b"", b"\xc1", encode([1]), encode({"symbol": 7})], ids=repr)
def test_data_of_another_kind_are_refused(tasks: InteractiveTasks, work: Work, data: bytes) -> None:
    with pytest.raises(MessageError):
        tasks.answer(work, data)


def test_stored_series_are_listed_whatever_the_data_are(tasks: InteractiveTasks) -> None:
    [series] = decoded(tasks.answer("ListMarketData", b"\xc1"))["series"]
    assert (series["symbol"], series["timeframe"], series["bars"]) == ("SYNTH", "1d", 50)


def test_results_that_do_not_exist_are_not_found(tasks: InteractiveTasks) -> None:
    for work in ("GetBacktestResults", "GetPerformanceMetrics"):
        with pytest.raises(NotFound):
            tasks.answer(work, encode({"backtestId": "none"}))


def test_an_id_that_has_results_is_refused(tasks: InteractiveTasks, monkeypatch: pytest.MonkeyPatch) -> None:
    config = BacktestConfig(
        backtest_id="b",
        algorithm_id="buy_and_hold",
        symbol="SYNTH",
        start_date="2000-01-01",
        end_date="2100-01-01",
        initial_capital=1e5,
        timeframe="1d",
        commission=0.0,
        slippage=0.0,
        parameters={},
    )
    checked = decoded(tasks.answer("CheckBacktest", encode(config)))
    assert checked["algorithmId"].startswith("buy_and_hold@")
    monkeypatch.setattr(ResultStore, "has", lambda _store, backtest_id: backtest_id == "b")
    with pytest.raises(StateConflict, match="choose another backtestId"):
        tasks.answer("CheckBacktest", encode(config))


def test_an_evaluation_is_answered_with_version_parameters_warm_up_and_one_table(tasks: InteractiveTasks) -> None:
    frames = tasks.answer("EvaluateAlgorithm", encode(EVALUATED))

    answer = decoded(frames)
    assert answer.pop("algorithmId").startswith("sma_cross@")
    assert answer == {
        "timeframe": "1d",
        "parameters": {"fast": 3, "slow": 7},
        "tables": [{"name": "signals", "frame": 0, "format": "arrow-ipc-stream", "rows": 40}],
        "warmupBars": 7,
    }
    assert len(frames) == 2
    frame = pl.read_ipc_stream(frames[1])
    assert frame.columns[5:] == ["volume", "entries", "exits", "short_entries", "short_exits"]
    assert frame["entries"].any()


def test_the_algorithm_of_an_evaluation_runs_within_the_limit(
    catalog: Catalog, tmp_path: Path, conventions: Conventions
) -> None:
    """The bars are read outside: what can be interrupted is the author's code."""
    limited = []

    def limit(what: str, work: Any, /) -> Any:
        limited.append(what)
        return work()

    catalog.write(synthetic_bars("1d", 50))
    store = ResultStore(tmp_path / "results")
    tasks = InteractiveTasks(
        catalog, store, conventions, Library(), lambda: 7, Means(limit=limit), pack=batcher().payload
    )
    with pytest.raises(NotFound):
        tasks.answer("EvaluateAlgorithm", encode(msgspec.structs.replace(EVALUATED, algorithm_id="none")))
    assert limited == []
    tasks.answer("EvaluateAlgorithm", encode(EVALUATED))
    assert limited == ["evaluating sma_cross"]
