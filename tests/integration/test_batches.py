"""A raw client and the Python client read the prices of a real backtest in every form of batch."""

from __future__ import annotations

import io
from typing import Any

import polars as pl
import pytest

import backtestr
from integration.conftest import QUICK
from integration.test_end_to_end import SYNTH, run_to_end
from support.harness import RawClient, dense, running_broker, wait_until

TOPIC = "prices.SYNTH.1m"
BARS = 3 * 24 * 60
# All of both backtests is within the 10,000 prices that the broker retains.
THREE_DAYS = {**SYNTH, "endDate": "2024-01-04"}


def test_compressed_maps_and_columns_are_the_simulated_bars() -> None:
    engine = "[compression]\nenabled = true\n[worker]\nbeat_interval_ms = 50\n"
    with (
        running_broker({"broker.toml": QUICK, "engine.toml": engine}) as broker,
        RawClient(broker.connection_file) as one,
    ):
        one.hello()
        prices = one.subscribe("prices", TOPIC)
        for columns in (False, True):
            streams = {"prices": True, "columns": columns}
            ended = run_to_end(one, {**THREE_DAYS, "options": {"streams": streams}})
            assert ended["status"] == "completed"

        kept = one.ask("FetchMissed", {"topic": TOPIC, "fromSeq": 1})
        found = dense(one, prices, kept["toSeq"])
        assert len(found) == kept["toSeq"] == 2 * BARS
        publishers = [{price.pop("backtestId") for price in part} for part in (found[:BARS], found[BARS:])]
        assert [len(one) for one in publishers] == [1, 1]
        assert publishers[0] != publishers[1]
        assert found[:BARS] == found[BARS:]
        request: dict[str, Any] = {"symbol": "SYNTH", "timeframe": "1m", "limit": BARS, "keep": "first"}
        _, attachments = one.ask_with_attachments("GetMarketData", request)
        bars = pl.read_ipc_stream(io.BytesIO(attachments[0]))
        assert [price["last"] for price in found[:BARS]] == bars["close"].to_list()

        forms = {
            ("columns" if "columns" in batch["data"] else "messages", batch["data"]["compression"])
            for batch in (message["payload"] for message in kept["messages"])
            if batch["type"] == "Batch"
        }
        assert {("messages", "lz4"), ("columns", "lz4")} <= forms

        with backtestr.connect(connection_file=broker.connection_file) as client:
            missed = client.fetch_missed(TOPIC)
            fetched = [one.data.last for one in missed if isinstance(one, backtestr.Update)]
            assert fetched == [price["last"] for price in found]
            with client.subscribe(TOPIC, history=True) as subscription:
                tables = []
                for table in subscription.frames():
                    assert isinstance(table, pl.DataFrame)
                    tables.append(table)
                    if table["seq"][-1] == 2 * BARS:
                        break
            table = pl.concat(tables)
            assert table["seq"].to_list() == list(range(1, 2 * BARS + 1))
            assert table["last"].to_list() == fetched
            assert table["timestamp"][:BARS].to_list() == bars["timestamp"].to_list()
            with pytest.raises(ValueError, match="no topic of prices"):
                client.subscribe("system.errors").frames()

            def published() -> int:
                return sum(worker.batching["prices"].messages for worker in client.status().workers if worker.batching)

            wait_until(lambda: published() == 2 * BARS, 10)
            used = [worker.compression for worker in client.status().workers if worker.compression is not None]
            assert sum(one.bytes_out for one in used) < sum(one.bytes_in for one in used) / 2
