"""`backtestr data`: what each command asks the broker for, and what it prints."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from backtestr.cli.console import EXIT_ERROR, EXIT_USAGE
from support.client.command_line import asked, read_json, type_in
from support.client.peer import Peer

SERIES = [
    {"symbol": "S", "timeframe": "1m", "startTime": 0, "endTime": 60_000, "bars": 2},
    {"symbol": "S", "timeframe": "1h", "startTime": 0, "endTime": 0, "bars": 1},
    {"symbol": "T", "timeframe": "1m", "startTime": 0, "endTime": 0, "bars": 1},
]
BARS = pl.DataFrame(
    {"timestamp": [datetime(2022, 1, 3, tzinfo=UTC)], "close": [1.5], "slow": [float("nan")]},
    schema_overrides={"timestamp": pl.Datetime("us", "UTC")},
)


def market_data(_: Any) -> tuple[dict[str, Any], list[bytes]]:
    buffer = io.BytesIO()
    BARS.write_ipc_stream(buffer)
    ref = {"name": "bars", "frame": 0, "format": "arrow-ipc-stream", "rows": 1}
    return {"symbol": "S", "timeframe": "1m", "tables": [ref]}, [buffer.getvalue()]


SCRIPT = {
    "ListMarketData": lambda _: {"series": SERIES},
    "GetMarketData": market_data,
    "DeleteMarketData": lambda data: {
        "symbol": data["symbol"],
        "timeframes": [data["timeframe"]] if "timeframe" in data else ["1m", "1h"],
    },
    "ResampleMarketData": lambda data: {
        **{"symbol": data["symbol"], "timeframe": data["toTimeframe"], "bars": 1},
        **{"startTime": 0, "endTime": 0, "warnings": []},
    },
}


def test_without_a_command_the_stored_series_are_listed(home: Path) -> None:
    with Peer(home, SCRIPT) as peer:
        assert [one["symbol"] for one in read_json(type_in(peer, "data", "--json"))] == ["S", "S", "T"]
        assert "1970-01-01 00:01" in type_in(peer, "data").stdout


def test_an_indicator_is_written_with_parameters_and_outputs(home: Path) -> None:
    with Peer(home, SCRIPT) as peer:
        words = ("data", "head", "S", "1m", "-n", "3", "--indicator", "RSI", "--start", "2022-01-03")
        printed = read_json(type_in(peer, *words, "--indicator", "SMA:timeperiod=20,as=slow", "--json"))
        [request] = asked(peer, "GetMarketData")
    assert request == {
        "symbol": "S",
        "timeframe": "1m",
        "startTime": 1_641_168_000_000,
        "limit": 3,
        "keep": "first",
        "indicators": [
            {"name": "RSI"},
            {"name": "SMA", "parameters": {"timeperiod": 20}, "outputNames": ["slow"]},
        ],
    }
    assert printed["bars"] == [{"timestamp": 1_641_168_000_000, "close": 1.5, "slow": None}]


def test_the_last_bars_are_a_table_in_which_a_warm_up_is_empty(home: Path) -> None:
    with Peer(home, SCRIPT) as peer:
        shown = type_in(peer, "data", "tail", "S", "1m").stdout
        [request] = asked(peer, "GetMarketData")
    assert request["limit"] == 10
    assert "keep" not in request, "the last bars are the protocol's default"
    assert "2022-01-03 00:00" in shown
    assert "nan" not in shown


def test_an_indicator_that_is_written_wrong_is_wrong_usage(home: Path) -> None:
    with Peer(home, SCRIPT) as peer:
        result = type_in(peer, "data", "head", "S", "1m", "--indicator", "SMA:20")
        assert result.exit_code == EXIT_USAGE
        assert "'20' is not NAME=VALUE" in result.output
        assert asked(peer, "GetMarketData") == []


def test_bars_are_exported_to_the_file_that_is_named(home: Path) -> None:
    with Peer(home, SCRIPT) as peer:
        file = home / "bars.csv"
        assert read_json(type_in(peer, "data", "export", "S", "1m", str(file), "--json")) == {
            "file": str(file.resolve()),
            "symbol": "S",
            "timeframe": "1m",
            "bars": 1,
        }
        assert file.read_text().splitlines()[0] == "timestamp,close,slow"
        refused = type_in(peer, "data", "export", "S", "1m", str(home / "bars.xlsx"))
        assert (refused.exit_code, len(asked(peer, "GetMarketData"))) == (EXIT_USAGE, 1)
        nowhere = type_in(peer, "data", "export", "S", "1m", str(home / "absent" / "bars.csv"))
        assert nowhere.exit_code == EXIT_USAGE
        assert "cannot be written" in nowhere.output


TICKS = BARS.select(
    "timestamp", bid=pl.lit(1.0), ask=pl.lit(1.25), last=pl.lit(None, pl.Float64), volume=pl.lit(None, pl.Float64)
)


def ticks(_: Any) -> tuple[dict[str, Any], list[bytes]]:
    buffer = io.BytesIO()
    TICKS.write_ipc_stream(buffer)
    ref = {"name": "ticks", "frame": 0, "format": "arrow-ipc-stream", "rows": 1}
    return {"symbol": "S", "timeframe": "tick", "tables": [ref], "version": "a"}, [buffer.getvalue()]


def test_ticks_are_exported_and_shown_with_what_they_have(home: Path) -> None:
    with Peer(home, {**SCRIPT, "GetMarketData": ticks}) as peer:
        file = home / "ticks.csv"
        assert "1 ticks written to" in type_in(peer, "data", "export", "S", "tick", str(file)).output
        assert file.read_text().splitlines() == ["timestamp,bid,ask", "2022-01-03T00:00:00Z,1.0,1.25"]
        shown = type_in(peer, "data", "head", "S", "tick").stdout
        assert "2022-01-03 00:00:00.000000" in shown
        assert "1.25" in shown


def test_a_price_of_ticks_is_passed_on(home: Path) -> None:
    with Peer(home, SCRIPT) as peer:
        for words in (("head", "S", "1m"), ("tail", "S", "1m"), ("export", "S", "1m", str(home / "bars.csv"))):
            assert type_in(peer, "data", *words, "--price", "ask").exit_code == 0
        type_in(peer, "data", "resample", "S", "tick", "1h", "--price", "last")
        assert {one["price"] for one in asked(peer, "GetMarketData")} == {"ask"}
        assert asked(peer, "ResampleMarketData") == [
            {"symbol": "S", "fromTimeframe": "tick", "toTimeframe": "1h", "price": "last"}
        ]
        assert type_in(peer, "data", "head", "S", "1m", "--price", "middle").exit_code == EXIT_USAGE


@pytest.mark.parametrize(("keys", "is_deleted"), [("y\n", True), ("n\n", False)])
def test_deleting_asks_first_and_names_what_it_would_delete(home: Path, keys: str, is_deleted: bool) -> None:
    with Peer(home, SCRIPT) as peer:
        result = type_in(peer, "data", "delete", "S", keys=keys)
        assert "delete S 1m (2 bars), 1h (1 bars)?" in result.output
        assert asked(peer, "DeleteMarketData") == ([{"symbol": "S"}] if is_deleted else [])
        assert result.exit_code == (0 if is_deleted else EXIT_ERROR)


def test_deleting_with_yes_asks_nothing(home: Path) -> None:
    with Peer(home, SCRIPT) as peer:
        printed = read_json(type_in(peer, "data", "delete", "S", "1h", "--yes", "--json"))
        assert printed == {"symbol": "S", "timeframes": ["1h"]}


def test_a_series_is_resampled_from_one_timeframe_to_another(home: Path) -> None:
    with Peer(home, SCRIPT) as peer:
        assert read_json(type_in(peer, "data", "resample", "S", "1m", "1h", "--json"))["timeframe"] == "1h"
        assert asked(peer, "ResampleMarketData") == [{"symbol": "S", "fromTimeframe": "1m", "toTimeframe": "1h"}]
