"""A raw client goes the whole path through a real broker, from an import to results."""

from __future__ import annotations

import io
import uuid
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from support.harness import RawClient, RunningBroker, dense, messages
from support.protocol.independent import Fields

SYNTH: Fields = {
    "algorithmId": "sma_cross",
    "symbol": "SYNTH",
    "startDate": "2024-01-01",
    "endDate": "2030-01-01",
    "initialCapital": 100_000.0,
    "timeframe": "1m",
    "commission": 0.0005,
    "slippage": 0.0001,
    "parameters": {"fast": 10, "slow": 30},
}


def run_to_end(raw_client: RawClient, config: Fields, backtest_id: str | None = None) -> Fields:
    """Start a backtest, wait for its end on system.backtests and return the final BacktestStatus."""
    backtest_id = backtest_id or str(uuid.uuid4())
    system = raw_client.subscribe("system", "system.backtests")
    raw_client.ask("StartBacktest", {**config, "backtestId": backtest_id})
    ended = ("completed", "failed", "stopped")
    seen = system.until(lambda data: data.get("backtestId") == backtest_id and data["status"] in ended)
    status: Fields = seen[-1]["payload"]["data"]
    return status


def tables(raw_client: RawClient, backtest_id: str, names: list[str]) -> tuple[Fields, dict[str, pl.DataFrame]]:
    results, attachments = raw_client.ask_with_attachments(
        "GetBacktestResults", {"backtestId": backtest_id, "tables": names}
    )
    return results, {
        table["name"]: pl.read_ipc_stream(io.BytesIO(attachments[table["frame"]])) for table in results["tables"]
    }


def test_every_stream_of_a_run_is_dense_and_equals_what_is_stored(raw_client: RawClient) -> None:
    backtest_id = str(uuid.uuid4())
    streams = {
        name: raw_client.subscribe(name, f"{name}.{backtest_id}") for name in ("progress", "orders", "positions")
    }
    system = raw_client.subscribe("system", "system.backtests")

    accepted = raw_client.ask("StartBacktest", {**SYNTH, "backtestId": backtest_id})
    assert accepted == {"backtestId": backtest_id, "status": "queued"}
    changes = system.until(lambda data: data["backtestId"] == backtest_id and data["status"] == "completed")
    mine = [one["payload"]["data"] for one in changes if one["payload"]["data"]["backtestId"] == backtest_id]
    assert [one["status"] for one in mine] == ["queued", "running", "completed"]

    last = {
        name: raw_client.ask("FetchMissed", {"topic": stream.topic, "fromSeq": 1})["toSeq"]
        for name, stream in streams.items()
    }
    results, stored = tables(raw_client, backtest_id, ["equity", "orders", "trades", "positions"])
    assert results["status"] == "completed"
    progress, orders, positions = (
        dense(raw_client, streams[name], last[name]) for name in ("progress", "orders", "positions")
    )

    assert progress[-1]["progressPercent"] == 100.0
    end = stored["equity"].row(-1, named=True)
    point = progress[-1]["equityCurvePoint"]
    assert (point["equity"], point["drawdown"], point["returns"]) == (end["equity"], end["drawdown"], end["returns"])
    assert point["timestamp"] == int(end["timestamp"].timestamp() * 1000)
    assert results["metrics"]["finalEquity"] == end["equity"]

    assert len(orders) == stored["orders"].height > 100
    for streamed, row in zip(orders, stored["orders"].iter_rows(named=True), strict=True):
        assert streamed == stored_order(row, backtest_id)
    changes = [one for one in positions if "mark" not in one]
    assert len(changes) == stored["positions"].height
    for streamed, row in zip(changes, stored["positions"].iter_rows(named=True), strict=True):
        assert streamed["positionId"] == row["position_id"]
        assert (streamed["quantity"], streamed["realizedPnL"]) == (row["quantity"], row["realized_pnl"])
    assert results["metrics"]["totalTrades"] == stored["trades"].height


def stored_order(row: dict[str, Any], backtest_id: str) -> Fields:
    """Return the OrderUpdate that a row of the `orders` table stands for."""
    expected = {
        "orderId": row["order_id"],
        "backtestId": backtest_id,
        "symbol": row["symbol"],
        "side": row["side"],
        "quantity": row["quantity"],
        "price": row["price"],
        "orderType": row["order_type"],
        "status": row["status"],
        "timestamp": int(row["timestamp"].timestamp() * 1000),
        "fillPrice": row["fill_price"],
        "fillQuantity": row["fill_quantity"],
        "reason": row["reason"],
    }
    return {name: value for name, value in expected.items() if value is not None}


def test_the_golden_case_of_vectorbt_through_the_broker(raw_client: RawClient, goog_csv: Path) -> None:
    """vectorbt's figures for GOOG daily, SMA 10/30, long only, fills at the close, fees 0.001, cash 10,000, freq 1D."""
    imported = raw_client.ask("ImportMarketData", {"path": str(goog_csv), "symbol": "GOOG", "timeframe": "1d"})
    assert imported["bars"] == 2148
    config = {
        **SYNTH,
        "symbol": "GOOG",
        "timeframe": "1d",
        "startDate": "2000-01-01",
        "initialCapital": 10_000,
        "commission": 0.001,
        "slippage": 0,
        "options": {"fillAt": "close", "direction": "long", "shortOfCash": "cut", "calendar": "24/7"},
    }
    for options in (config["options"], {"preset": "vectorbt", "direction": "long"}):
        status = run_to_end(raw_client, {**config, "options": options})
        assert status["status"] == "completed", status
        metrics = raw_client.ask("GetPerformanceMetrics", {"backtestId": status["backtestId"]})["metrics"]
        assert metrics["finalEquity"] == pytest.approx(60155.441128097256, rel=1e-9)
        assert metrics["totalTrades"] == 33
        assert metrics["sharpeRatio"] == pytest.approx(1.2643286457221035, rel=1e-9)
        assert metrics["sortinoRatio"] == pytest.approx(2.020249311020536, rel=1e-9)
        assert metrics["maxDrawdown"] == pytest.approx(0.28923409638937386, rel=1e-9)
        assert metrics["totalFees"] == pytest.approx(2333.6803633278796, rel=1e-9)


def test_real_minutes_from_import_to_results(raw_client: RawClient, real_data: Path) -> None:
    path = str(real_data / "btc_perp_1m_2022-01.csv")
    imported = raw_client.ask("ImportMarketData", {"path": path, "symbol": "BTCPERP", "timeframe": "1m"})
    assert (imported["symbol"], imported["timeframe"], imported["bars"]) == ("BTCPERP", "1m", 45_031)
    series = raw_client.ask("ListMarketData", {})["series"]
    (found,) = [one for one in series if (one["symbol"], one["timeframe"]) == ("BTCPERP", "1m")]
    assert found["bars"] == 45_031

    config = {**SYNTH, "symbol": "BTCPERP", "startDate": "2021-12-31", "endDate": "2022-03-01"}
    status = run_to_end(raw_client, config)
    results, stored = tables(raw_client, status["backtestId"], ["equity", "trades"])
    assert stored["equity"].height == 45_031
    # The accounts add up: capital + the results of all trades, the open one at its mark = the last equity.
    assert stored["trades"]["pnl"].sum() + 100_000 == pytest.approx(results["metrics"]["finalEquity"], rel=1e-9)
    hourly = run_to_end(raw_client, {**config, "timeframe": "1h"})
    _, resampled = tables(raw_client, hourly["backtestId"], ["equity"])
    assert resampled["equity"].height == 1 + 31 * 24 + 6  # from 2021-12-31 23:00 to 2022-02-01 05:00


def test_market_data_comes_with_indicators_that_agree_with_a_second_computation(raw_client: RawClient) -> None:
    request = {
        "symbol": "SYNTH",
        "timeframe": "1d",
        "limit": 50,
        "indicators": [
            {"name": "SMA", "parameters": {"timeperiod": 20}, "outputNames": ["slow"]},
            {"name": "MACD", "parameters": {}, "outputNames": []},
        ],
    }
    found, attachments = raw_client.ask_with_attachments("GetMarketData", request)
    bars = pl.read_ipc_stream(io.BytesIO(attachments[found["tables"][0]["frame"]]))
    assert bars.height == found["tables"][0]["rows"] == 50
    assert bars.columns == [
        *("timestamp", "open", "high", "low", "close", "volume"),
        *("slow", "macd", "macdsignal", "macdhist"),
    ]
    assert bars["timestamp"].dtype == pl.Datetime("us", "UTC")
    assert bars["slow"][-1] == pytest.approx(bars["close"][-20:].mean(), rel=1e-12)


def test_a_client_may_name_its_backtest(raw_client: RawClient) -> None:
    assert run_to_end(raw_client, SYNTH, "my-run_1")["status"] == "completed"
    assert raw_client.ask("GetBacktestResults", {"backtestId": "my-run_1"})["metrics"]["totalTrades"] > 100
    assert raw_client.refused("StartBacktest", {**SYNTH, "backtestId": "my-run_1"})["code"] == "STATE_CONFLICT"


def test_a_client_that_joins_late_fetches_the_retained_messages(raw_client: RawClient, broker: RunningBroker) -> None:
    status = run_to_end(raw_client, SYNTH)
    topic = f"orders.{status['backtestId']}"
    with RawClient(broker.connection_file, "late") as late:
        late.hello()
        missed = late.ask("FetchMissed", {"topic": topic, "fromSeq": 1})
        assert missed["oldestSeq"] == 1
        found = [seq for one in missed["messages"] for seq, _ in messages(one)]
        assert found == list(range(1, missed["toSeq"] + 1))
        part = late.ask("FetchMissed", {"topic": topic, "fromSeq": 3, "toSeq": 3})
        assert part["toSeq"] == 3
        assert part["messages"][0]["seq"] <= 3


def test_the_status_lists_workers_and_memory(raw_client: RawClient) -> None:
    heartbeat = raw_client.subscribe("system", "system.status")
    _, envelope = heartbeat.receive()
    assert envelope["messageType"] == "Heartbeat"
    status = envelope["payload"]["data"]
    assert status["status"] == "healthy"
    assert {worker["workerId"] for worker in status["workers"]} >= {"compute-1", "interactive-1"}
    assert 0 < status["memoryUsage"]["used"] < status["memoryUsage"]["total"]
    asked = raw_client.ask("GetSystemStatus", {})
    assert asked.keys() == status.keys()
    assert asked["connectedClients"] >= 1
