"""Results as an answer carries them, and answers that contradict themselves."""

from __future__ import annotations

import io

import polars as pl
import pytest

import backtestr
from backtestr.results import results_from_wire
from backtestr_protocol.errors import SerializationError
from backtestr_protocol.messages import BacktestResults, TableRef
from backtestr_protocol.metrics import Metrics


def results(rows: int, frame: int = 0) -> backtestr.Results:
    buffer = io.BytesIO()
    pl.DataFrame({"equity": [1.0, 2.0]}).write_ipc_stream(buffer)
    ref = TableRef(name="equity", frame=frame, format="arrow-ipc-stream", rows=rows)
    answer = BacktestResults(
        backtest_id="b", status="completed", config={}, metrics=Metrics(total_return=0.5), tables=[ref]
    )
    return results_from_wire(answer, [buffer.getvalue()])


def test_tables_are_data_frames() -> None:
    found = results(rows=2)
    assert found.equity["equity"].to_list() == [1.0, 2.0]
    assert found.metrics is not None
    assert (found.metrics.total_return, found.metrics.win_rate) == (0.5, None)
    with pytest.raises(LookupError, match="no table 'trades'"):
        _ = found.trades


def test_a_table_that_differs_from_its_description_is_an_error() -> None:
    with pytest.raises(SerializationError, match="3 were announced"):
        results(rows=3)
    with pytest.raises(SerializationError, match="attachment 1"):
        results(rows=2, frame=1)


def test_results_of_a_backtest_under_way_have_no_metrics() -> None:
    answer = BacktestResults(backtest_id="b", status="running", config={}, metrics=None, tables=[])
    found = results_from_wire(answer, [])
    assert found.metrics is None
    with pytest.raises(LookupError, match="the backtest is running"):
        _ = found.equity


def test_what_a_reader_must_know_stands_beside_the_return() -> None:
    """A printed result says that most orders were rejected before it shows a figure."""
    rejected = "7 of 8 orders were rejected: not enough cash (7)"
    metrics = Metrics(total_return=6.97, total_trades=1).with_warnings([rejected])
    answer = BacktestResults(backtest_id="b", status="completed", config={}, metrics=metrics, tables=[])
    results = results_from_wire(answer, [])

    assert results.warnings == [rejected]
    shown = repr(results).splitlines()
    assert shown.index(f"! {rejected}") < next(at for at, line in enumerate(shown) if "697.00 %" in line)


def test_results_without_metrics_have_no_warnings() -> None:
    answer = BacktestResults(backtest_id="b", status="running", config={}, metrics=None, tables=[])

    assert results_from_wire(answer, []).warnings == []
    assert repr(results_from_wire(answer, [])).splitlines()[-1] == "no metrics: it has not ended"
