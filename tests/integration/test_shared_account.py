"""Backtests of several symbols on one account run for a raw client, the Python client and the command line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import backtestr
from backtestr.cli.app import app
from backtestr_engine.data.synthetic import synthetic_bars
from integration.test_end_to_end import SYNTH, run_to_end, tables
from support.harness import RawClient, RunningBroker, messages

SYMBOLS = ["FIRST", "SECOND"]


@pytest.fixture(scope="module")
def client(broker: RunningBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[backtestr.Client]:
    """Connect a client and store both symbols for as long as these tests run."""
    folder: Path = tmp_path_factory.mktemp("series")
    with backtestr.connect(connection_file=broker.connection_file) as connected:
        for seed, symbol in enumerate(SYMBOLS):
            file = folder / f"{symbol}.parquet"
            synthetic_bars("1m", 3_000, symbol=symbol, seed=seed).to_frame().write_parquet(file)
            connected.import_market_data(file, symbol, timeframe="1m")
        yield connected
        for symbol in SYMBOLS:
            connected.delete_market_data(symbol)


def test_streams_and_tables_name_the_symbol(client: backtestr.Client, raw_client: RawClient) -> None:
    config = {name: value for name, value in SYNTH.items() if name != "symbol"}
    config |= {"symbols": SYMBOLS, "options": {"size": "fraction", "sizeValue": 0.5}}

    status = run_to_end(raw_client, config)

    assert (status["status"], status["symbol"], status["symbols"]) == ("completed", "FIRST", SYMBOLS)
    results, stored = tables(raw_client, status["backtestId"], ["equity", "orders", "trades"])
    assert results["config"]["symbols"] == SYMBOLS
    assert stored["equity"].height == 3_000
    assert set(stored["orders"]["symbol"]) == set(stored["trades"]["symbol"]) == set(SYMBOLS)
    assert stored["trades"]["mfe"].min() >= 0  # type: ignore[operator]  # a column of numbers
    kept = raw_client.ask("FetchMissed", {"topic": f"orders.{status['backtestId']}", "fromSeq": 1})
    streamed = [payload["data"] for one in kept["messages"] for _, payload in messages(one)]
    assert [one["symbol"] for one in streamed] == stored["orders"]["symbol"].to_list()


def test_a_backtest_without_a_symbol_is_refused(raw_client: RawClient) -> None:
    config = {name: value for name, value in SYNTH.items() if name != "symbol"}
    refused = raw_client.refused("StartBacktest", config)

    assert (refused["code"], refused["details"]["path"]) == ("VALIDATION_ERROR", "$.symbol")


def test_the_python_client_takes_a_list(client: backtestr.Client) -> None:
    run = client.backtest("sma_cross", SYMBOLS, timeframe="1m", size="fraction", size_value=0.5, watch=("orders",))

    assert {order.symbol for order in run.orders()} == set(SYMBOLS)
    assert run.result().equity.height == 3_000
    assert run.status().symbols == SYMBOLS


def test_the_command_line_takes_several(client: backtestr.Client, broker: RunningBroker) -> None:
    runner = CliRunner(env={**os.environ, "BACKTESTR_CONNECTION_FILE": str(broker.connection_file)})
    command = ["backtest", "buy_and_hold", *SYMBOLS, "--timeframe", "1h", "--option", "size=fraction"]
    done = runner.invoke(app, [*command, "--option", "sizeValue=0.5", "--json"])

    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert answer["config"]["symbols"] == SYMBOLS
    assert answer["metrics"]["openTrades"] == 2
    listed = runner.invoke(app, ["backtests"], env={"COLUMNS": "200"})
    assert "FIRST, SECOND" in listed.stdout
