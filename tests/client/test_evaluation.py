"""`client.evaluate` sends what `client.backtest` would, and returns the table of the answer."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from backtestr_protocol.errors import AlgorithmError, SerializationError, ValidationError
from support.client.answers import STARTING, connect
from support.client.command_line import asked
from support.client.peer import Peer

FRAME = pl.DataFrame({"timestamp": [1, 2], "entries": [True, False], "atr": [float("nan"), 2.0]})


def answer(tables: int = 1, rows: int = 2) -> tuple[dict[str, Any], list[bytes]]:
    buffer = io.BytesIO()
    FRAME.write_ipc_stream(buffer)
    table = {"name": "signals", "frame": 0, "format": "arrow-ipc-stream", "rows": rows}
    data = {"algorithmId": "a@1", "timeframe": "1m", "parameters": {}, "tables": [table] * tables, "warmupBars": 3}
    return data, [buffer.getvalue()]


def test_the_table_of_the_answer_is_returned(home: Path) -> None:
    with Peer(home, {"EvaluateAlgorithm": lambda _: answer()}) as peer, connect(peer) as client:
        assert client.evaluate("a", "S", timeframe="1m").equals(FRAME)
        assert asked(peer, "EvaluateAlgorithm") == [{"algorithmId": "a", "symbol": "S", "timeframe": "1m"}]


@pytest.mark.parametrize(
    ("symbol", "more"),
    [
        ("S", {}),
        (np.str_("S"), {"start": "2024-01-02", "end": datetime(2024, 2, 3, tzinfo=UTC)}),
        (["S", "T"], {"price": "bid", "warmup": np.int64(9), "start": np.datetime64("2024-01-02")}),
        (
            ["S"],
            {"parameters": {"fast": np.int64(3), "ratio": np.float32(0.5), "since": datetime(2024, 1, 1, tzinfo=UTC)}},
        ),
    ],
    ids=["few", "times", "symbols", "parameters"],
)
def test_the_arguments_are_sent_as_those_of_a_backtest(home: Path, symbol: Any, more: dict[str, Any]) -> None:
    """The fields of both requests are the same, but for those that a backtest alone has."""
    script = {**STARTING, "EvaluateAlgorithm": lambda _: answer()}
    with Peer(home, script) as peer, connect(peer) as client:
        client.evaluate("a", symbol, timeframe="1m", **more)
        client.backtest("a", symbol, timeframe="1m", watch=(), **more)
        ((evaluated,), (tested,)) = asked(peer, "EvaluateAlgorithm"), asked(peer, "StartBacktest")
    own = ("backtestId", "initialCapital", "commission", "slippage")
    expected = {name: value for name, value in tested.items() if name not in own}
    assert {"parameters": {}, **evaluated} == expected


def test_wrong_arguments_are_refused_before_anything_is_sent(home: Path) -> None:
    with Peer(home) as peer, connect(peer) as client:
        with pytest.raises(ValueError, match="needs at least one symbol"):
            client.evaluate("a", [], timeframe="1m")
        with pytest.raises(ValidationError, match=r"^\$\.parameters\.fast: "):
            client.evaluate("a", "S", timeframe="1m", parameters={"fast": object()})
        assert asked(peer, "EvaluateAlgorithm") == []


def test_errors_of_the_algorithm_are_raised_with_its_traceback(home: Path) -> None:
    error = AlgorithmError("a raised KeyError: 'x'", traceback="Traceback …")
    with Peer(home, {"EvaluateAlgorithm": lambda _: error}) as peer, connect(peer) as client:
        with pytest.raises(AlgorithmError, match=r"^a raised KeyError") as caught:
            client.evaluate("a", "S", timeframe="1m")
        assert caught.value.details == {"traceback": "Traceback …"}


@pytest.mark.parametrize("wrong", [{"tables": 0}, {"tables": 2}, {"rows": 3}], ids=str)
def test_an_answer_without_its_one_table_is_an_error(home: Path, wrong: dict[str, int]) -> None:
    with (
        Peer(home, {"EvaluateAlgorithm": lambda _: answer(**wrong)}) as peer,
        connect(peer) as client,
        pytest.raises(SerializationError, match=r"one table; \d came|has 2 rows; 3 were announced"),
    ):
        client.evaluate("a", "S", timeframe="1m")
