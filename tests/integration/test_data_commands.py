"""`backtestr data` works with a real broker: output for people, JSON for programs, and refusals."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

import backtestr
from backtestr.cli.app import app
from backtestr.cli.console import EXIT_ERROR, EXIT_USAGE
from support.harness import RunningBroker

HEADER = "timestamp,open,high,low,close,volume\n"
DAY_MS = 86_400_000


@pytest.fixture
def runner(broker: RunningBroker, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    for name, value in broker.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", "160")
    return CliRunner()


@pytest.fixture
def symbol(runner: CliRunner, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """Store three days of minutes, one hour left out, under a symbol of the test's own, and return the symbol."""
    rows = [
        f"2024-01-{1 + at // 1440:02}T{at // 60 % 24:02}:{at % 60:02}:00Z,1.0,1.5,0.5,{1 + at % 7 / 20},10\n"
        for at in range(3 * 1440)
        if at // 60 != 30
    ]
    name = f"DATA-{request.node.name.replace('[', '-').replace(']', '')}"[:50]
    (tmp_path / "minutes.csv").write_text(HEADER + "".join(rows))
    as_json(runner, "import", str(tmp_path / "minutes.csv"), "--symbol", name)
    return name


def as_json(runner: CliRunner, *arguments: str) -> Any:
    done = runner.invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def refused(runner: CliRunner, code: int, *arguments: str) -> str:
    done = runner.invoke(app, list(arguments))
    assert done.exit_code == code, done.output
    assert done.stdout == ""
    return " ".join(done.stderr.split())


def test_without_a_command_it_lists(runner: CliRunner, symbol: str) -> None:
    listed = as_json(runner, "data")
    assert {"symbol": symbol, "timeframe": "1m", "bars": 4260} in [
        {name: one[name] for name in ("symbol", "timeframe", "bars")} for one in listed
    ]
    assert symbol in runner.invoke(app, ["data"]).stdout


def test_show(runner: CliRunner, symbol: str) -> None:
    facts = as_json(runner, "data", "show", symbol, "1m")
    assert (facts["bars"], facts["gaps"], facts["missingBars"], facts["madeFrom"]) == (4260, 1, 60, "1m")
    assert (facts["low"], facts["high"], facts["volume"]) == (0.5, 1.5, 42_600)
    shown = runner.invoke(app, ["data", "show", symbol, "1h"]).stdout
    assert "1h, made of 1m" in shown
    assert "1, 1 bars missing" in shown
    assert "2024-01-02 06:00" in shown


def test_head_and_tail(runner: CliRunner, symbol: str) -> None:
    first = as_json(runner, "data", "head", symbol, "1m", "-n", "3")["bars"]
    assert [bar["timestamp"] % DAY_MS for bar in first] == [0, 60_000, 120_000]
    last = as_json(runner, "data", "tail", symbol, "1d", "-n", "1")["bars"]
    assert [(bar["timestamp"] % DAY_MS, bar["volume"]) for bar in last] == [(0, 14_400)]
    later = as_json(runner, "data", "head", symbol, "1m", "-n", "1", "--start", "2024-01-02T06:30")["bars"]
    assert later[0]["timestamp"] % DAY_MS == 7 * 3_600_000
    assert len(as_json(runner, "data", "head", symbol, "1m")["bars"]) == 10


def test_head_with_indicators(runner: CliRunner, symbol: str) -> None:
    averages = ["--indicator", "SMA:timeperiod=2,as=fast", "--indicator", "SMA:timeperiod=3,as=slow"]
    bars = as_json(runner, "data", "head", symbol, "1m", "-n", "3", *averages, "--indicator", "MACD")["bars"]
    assert list(bars[0])[6:] == ["fast", "slow", "macd", "macdsignal", "macdhist"]
    assert bars[0]["fast"] is None
    assert math.isclose(bars[2]["slow"], sum(bar["close"] for bar in bars) / 3)
    shown = runner.invoke(app, ["data", "head", symbol, "1m", "-n", "3", *averages]).stdout
    assert "fast" in shown
    assert "nan" not in shown


def test_resample_stores(runner: CliRunner, symbol: str) -> None:
    assert as_json(runner, "data", "resample", symbol, "1m", "4h")["bars"] == 18
    assert [one["timeframe"] for one in as_json(runner, "data") if one["symbol"] == symbol] == ["1m", "4h"]
    again = runner.invoke(app, ["data", "resample", symbol, "1m", "4h"])
    assert "replaced 18 bars" in again.stdout
    assert as_json(runner, "data", "show", symbol, "1d")["madeFrom"] == "1m"


@pytest.mark.parametrize("suffix", ["csv", "parquet", "arrow"])
def test_exported_bars_are_imported_unchanged(
    suffix: str, runner: CliRunner, broker: RunningBroker, symbol: str, tmp_path: Path
) -> None:
    file = tmp_path / f"bars.{suffix}"
    file.write_text("this is replaced")
    assert as_json(runner, "data", "export", symbol, "1m", str(file))["bars"] == 4260
    imported = as_json(runner, "import", str(file), "--symbol", f"{symbol}-AGAIN")
    assert (imported["bars"], imported["format"], imported["warnings"]) == (4260, suffix, [])
    with backtestr.connect(connection_file=broker.connection_file) as client:
        assert client.market_data(symbol, "1m").equals(client.market_data(f"{symbol}-AGAIN", "1m"))
    assert [one.name for one in tmp_path.iterdir() if "partial" in one.name] == []


def test_a_range_is_exported(runner: CliRunner, symbol: str, tmp_path: Path) -> None:
    file = tmp_path / "day.csv"
    done = runner.invoke(
        app, ["data", "export", symbol, "1h", str(file), "--start", "2024-01-02", "--end", "2024-01-03"]
    )
    assert done.stdout == f"23 bars written to {file}\n"
    assert pl.read_csv(file).height == 23


def test_delete_asks(runner: CliRunner, symbol: str) -> None:
    as_json(runner, "data", "resample", symbol, "1m", "1h")
    asked = runner.invoke(app, ["data", "delete", symbol, "1h"], input="n\n")
    assert asked.exit_code == EXIT_ERROR
    assert f"delete {symbol} 1h (71 bars)?" in asked.stderr
    assert as_json(runner, "data", "delete", symbol, "1h", "--yes") == {"symbol": symbol, "timeframes": ["1h"]}
    deleted = runner.invoke(app, ["data", "delete", symbol], input="y\n")
    assert f"deleted {symbol} 1m\n" in deleted.stdout
    assert symbol not in [one["symbol"] for one in as_json(runner, "data")]


def test_near_misses_are_named(runner: CliRunner, symbol: str, tmp_path: Path) -> None:
    miss = f"{symbol}X"
    for command in (["show", miss, "1m"], ["head", miss, "1m"], ["resample", miss, "1m", "1h"], ["delete", miss]):
        assert f"unknown symbol '{miss}'; did you mean '{symbol}'?" in refused(runner, EXIT_ERROR, "data", *command)
    timeframe = refused(runner, EXIT_ERROR, "data", "show", symbol, "1hr")
    assert "unknown timeframe '1hr'; did you mean '1h'?" in timeframe
    assert f"{symbol} is not stored in 1h" in refused(runner, EXIT_ERROR, "data", "delete", symbol, "1h")
    indicator = refused(runner, EXIT_ERROR, "data", "head", symbol, "1m", "--indicator", "SMAA")
    assert "unknown indicator 'SMAA'; did you mean 'SMA'?" in indicator
    assert "cannot be made of" in refused(runner, EXIT_ERROR, "data", "resample", symbol, "1m", "1m")
    excel = refused(runner, EXIT_USAGE, "data", "export", symbol, "1m", str(tmp_path / "bars.xlsx"))
    assert "bars.xlsx does not end in .csv, .parquet, .arrow" in excel
    nowhere = refused(runner, EXIT_USAGE, "data", "export", symbol, "1m", str(tmp_path / "no" / "bars.csv"))
    assert "cannot be written" in nowhere
    assert "is not NAME=VALUE" in refused(runner, EXIT_USAGE, "data", "head", symbol, "1m", "--indicator", "SMA:5")
    failed = runner.invoke(app, ["data", "show", miss, "1m", "--json"])
    assert json.loads(failed.stdout)["error"]["code"] == "DATA_ERROR"


def test_ticks_are_kept_ranged_replayed_and_exported(runner: CliRunner, tmp_path: Path) -> None:
    times = ["09:30:00.000100", "09:30:00.000100", "09:30:00.000900", "09:31:59.5", "09:33:00"]
    rows = [f"2022-01-03 {at}Z,{10 + row},{10.5 + row}\n" for row, at in enumerate(times)]
    (tmp_path / "quotes.csv").write_text("time,bid,ask\n" + "".join(rows))
    stored = as_json(runner, "import", str(tmp_path / "quotes.csv"), "--symbol", "TICKS")
    assert (stored["timeframe"], stored["bars"]) == ("tick", 5)

    with backtestr.connect() as client:
        whole = client.market_data("TICKS", "tick")
        cut = "2022-01-03T09:30:00.001Z"
        parts = [client.market_data("TICKS", "tick", end=cut), client.market_data("TICKS", "tick", start=cut)]
        assert pl.concat(parts).equals(whole)
        assert [part.height for part in parts] == [3, 2]
        assert whole["bid"].to_list() == [10, 11, 12, 13, 14]
        assert pl.concat(client.ticks("TICKS")).equals(whole)
        bars = client.market_data("TICKS", "1m", price="ask")
        assert (bars["high"].to_list(), bars["volume"].to_list()) == ([12.5, 13.5, 14.5], [3, 1, 1])
        with client.replay("TICKS", "tick", speed=1000) as replay:
            prices = [(one.bid, one.ask, one.last, one.timeframe) for one in replay]
        assert prices == [(10 + row, 10.5 + row, 10.25 + row, "tick") for row in range(5)]
        result = client.backtest("buy_and_hold", "TICKS", timeframe="1m", price="bid").result()
        assert (result.config["price"], result.equity.height) == ("bid", 3)

    for end in ("csv", "parquet", "arrow"):
        file = str(tmp_path / f"out.{end}")
        assert as_json(runner, "data", "export", "TICKS", "tick", file)["bars"] == 5
        as_json(runner, "import", file, "--symbol", "TICKS-AGAIN")
        with backtestr.connect() as client:
            assert client.market_data("TICKS-AGAIN", "tick").equals(whole)
    made = as_json(runner, "data", "resample", "TICKS", "tick", "1m", "--price", "bid")
    imported = as_json(runner, "import", str(tmp_path / "quotes.csv"), "--symbol", "BARS", "--timeframe", "1m")
    assert made["bars"] == imported["bars"] == 3
    assert "price cannot be given for ticks" in refused(
        runner, EXIT_ERROR, "data", "head", "TICKS", "tick", "--price", "bid"
    )
