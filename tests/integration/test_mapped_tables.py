"""Clients of the broker's machine map tables, with the same content as attachments, and keep what they have mapped."""

from __future__ import annotations

import io
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import backtestr
from backtestr.client import Client
from backtestr.embedded_broker import EmbeddedBroker
from integration.test_end_to_end import SYNTH, run_to_end
from support.harness import RawClient, RunningBroker, running_broker
from support.protocol.independent import read_connection

# Every table but an empty one becomes a file.
ALL_FILES = "[tables]\nfile_from_bytes = 1\n"
TABLES: list[Any] = ["equity", "trades", "orders", "positions"]


@pytest.fixture(scope="module")
def mapping_broker() -> Iterator[RunningBroker]:
    with running_broker(
        {"broker.toml": "[workers]\ncompute = 1\ninteractive = 1\n", "engine.toml": ALL_FILES}
    ) as running:
        yield running


@pytest.fixture
def raw(mapping_broker: RunningBroker) -> Iterator[RawClient]:
    with RawClient(mapping_broker.connection_file) as client:
        client.hello()
        yield client


@pytest.fixture
def client(mapping_broker: RunningBroker) -> Iterator[Client]:
    with backtestr.connect(connection_file=mapping_broker.connection_file) as client:
        yield client


def content(frame: pl.DataFrame) -> bytes:
    """Return a table as Arrow bytes that do not depend on how it is divided."""
    frame.rechunk().write_ipc_stream(buffer := io.BytesIO(), compat_level=pl.CompatLevel.oldest())
    return buffer.getvalue()


def attached(raw: RawClient, request_type: str, request: dict[str, Any]) -> dict[str, pl.DataFrame]:
    """Ask as a client does that knows nothing of table files."""
    answer, attachments = raw.ask_with_attachments(request_type, request)
    assert all("file" not in one and one["format"] == "arrow-ipc-stream" for one in answer["tables"])
    return {one["name"]: pl.read_ipc_stream(attachments[one["frame"]]) for one in answer["tables"]}


def directory(broker: RunningBroker) -> Path:
    return Path(json.loads(broker.connection_file.read_text())["tablesDirectory"])


def test_results_are_the_same_mapped_and_attached(
    mapping_broker: RunningBroker, raw: RawClient, client: Client
) -> None:
    run_to_end(raw, SYNTH, "same")
    before = set(os.listdir(directory(mapping_broker)))
    mapped = client.results("same", TABLES).tables
    files = set(os.listdir(directory(mapping_broker))) - before
    received = attached(raw, "GetBacktestResults", {"backtestId": "same", "tables": TABLES})
    assert len(files) == 4
    assert list(mapped) == list(received) == TABLES
    for name, frame in mapped.items():
        assert frame.height > 100
        assert frame.schema == received[name].schema
        assert content(frame) == content(received[name]), name
    for file in files:
        found = (directory(mapping_broker) / file).stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o400, os.getuid())
    again = client.results("same", TABLES).tables
    assert set(os.listdir(directory(mapping_broker))) - before == files, "a result is written once"
    assert all(again[name].equals(frame) for name, frame in mapped.items())


@pytest.mark.parametrize("mapped", [True, False])
def test_results_that_wait_for_the_end_are_those_that_are_read_afterwards(
    mapped: bool, mapping_broker: RunningBroker, raw: RawClient, client: Client
) -> None:
    request = {"backtestId": f"waits-{mapped}", "tables": TABLES, "mapped": mapped}
    raw.ask("StartBacktest", {**SYNTH, "backtestId": request["backtestId"]})
    answer, attachments = raw.ask_with_attachments("GetBacktestResults", {**request, "waitMs": 60_000})
    assert answer["status"] == "completed"
    later, read = raw.ask_with_attachments("GetBacktestResults", {**request, "mapped": False})
    assert {**answer, "tables": None} == {**later, "tables": None}
    for table, attachment in zip(answer["tables"], read, strict=True):
        if mapped:
            frame = pl.read_ipc(directory(mapping_broker) / table["file"]["name"])
            assert content(frame) == content(pl.read_ipc_stream(attachment)), table["name"]
        else:
            assert attachments[table["frame"]] == attachment, table["name"]
    assert len(attachments) == (0 if mapped else 4)


def test_market_data_and_evaluations_are_the_same_mapped_and_attached(
    mapping_broker: RunningBroker, raw: RawClient, client: Client
) -> None:
    before = set(os.listdir(directory(mapping_broker)))
    bars = client.market_data("SYNTH", "1m")
    signals = client.evaluate("sma_cross", "SYNTH", timeframe="1m")
    assert len(set(os.listdir(directory(mapping_broker))) - before) == 2
    request = {"symbol": "SYNTH", "timeframe": "1m"}
    assert content(bars) == content(attached(raw, "GetMarketData", request)["bars"])
    evaluation = attached(raw, "EvaluateAlgorithm", {**request, "algorithmId": "sma_cross", "parameters": {}})
    assert content(signals) == content(evaluation["signals"])


def test_a_raw_client_finds_what_the_page_says(mapping_broker: RunningBroker, raw: RawClient) -> None:
    run_to_end(raw, SYNTH, "raw")
    request = {"backtestId": "raw", "tables": ["equity", "trades"], "mapped": True}
    answer, attachments = raw.ask_with_attachments("GetBacktestResults", request)
    assert attachments == []
    for table in answer["tables"]:
        file = table["file"]
        path = directory(mapping_broker) / file["name"]
        frame = pl.read_ipc(path)
        assert set(table) == {"name", "format", "rows", "file"}
        assert (table["format"], table["rows"]) == ("arrow-ipc-file", frame.height)
        assert (file["size"], path.parent) == (path.stat().st_size, mapping_broker.data_dir / "tables")
        assert [one["name"] for one in file["columns"]] == frame.columns
        assert not path.is_symlink()


def test_a_deleted_result_stays_readable_where_it_is_mapped(
    mapping_broker: RunningBroker, raw: RawClient, client: Client
) -> None:
    run_to_end(raw, SYNTH, "deleted")
    received = attached(raw, "GetBacktestResults", {"backtestId": "deleted", "tables": TABLES})
    mapped = client.results("deleted", TABLES).tables
    client.delete_backtest("deleted")
    for file in directory(mapping_broker).iterdir():
        file.unlink()
    assert all(content(frame) == content(received[name]) for name, frame in mapped.items())
    with pytest.raises(backtestr.errors.NotFound):
        client.results("deleted", TABLES)


def test_a_backtest_of_the_same_id_gets_its_own_tables(raw: RawClient, client: Client) -> None:
    run_to_end(raw, SYNTH, "again")
    first = client.results("again", TABLES).tables
    client.delete_backtest("again")
    run_to_end(raw, {**SYNTH, "parameters": {"fast": 5, "slow": 20}}, "again")
    second = client.results("again", TABLES).tables
    received = attached(raw, "GetBacktestResults", {"backtestId": "again", "tables": TABLES})
    assert content(first["trades"]) != content(second["trades"])
    assert all(content(frame) == content(received[name]) for name, frame in second.items())


def test_files_that_vanish_are_no_trouble(mapping_broker: RunningBroker, raw: RawClient, client: Client) -> None:
    run_to_end(raw, SYNTH, "vanishes")
    first = client.results("vanishes", TABLES).tables
    for file in directory(mapping_broker).iterdir():
        file.unlink()
    second = client.results("vanishes", TABLES).tables
    assert all(content(frame) == content(second[name]) for name, frame in first.items())


def test_over_tcp_and_in_one_process_tables_are_attached(tcp_broker: RunningBroker, tmp_path: Path) -> None:
    connection, _ = read_connection(tcp_broker.connection_file)
    assert "tablesDirectory" not in connection
    with RawClient(tcp_broker.connection_file) as raw_client:
        raw_client.hello()
        request = {"symbol": "SYNTH", "timeframe": "1m", "mapped": True}
        assert attached(raw_client, "GetMarketData", request)["bars"].height > 0
    assert not (tcp_broker.data_dir / "tables").exists()
    with EmbeddedBroker(tmp_path) as broker, broker.connect() as client:
        assert client.market_data("SYNTH", "1m").height > 0
    assert not (tmp_path / "tables").exists()
