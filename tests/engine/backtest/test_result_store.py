"""Results on disk are whole or absent, and lie in the folder of their backtest."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from backtestr_engine.backtest import result_store as results_module
from backtestr_engine.backtest.plan import Plan, prepare
from backtestr_engine.backtest.result_store import ResultStore
from backtestr_engine.backtest.run import Result, Run
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.simulation.conventions import Conventions
from backtestr_protocol.errors import DataError, NotFound, ValidationError
from backtestr_protocol.messages import BacktestConfig
from backtestr_protocol.worker_channel import Outcome
from support.engine.earlier_results import as_earlier_version

ID = "0a1b2c3d-0000-4000-8000-000000000001"
TABLES: list[Any] = ["equity", "trades", "orders", "positions"]


@pytest.fixture
def plan(catalog: Catalog, conventions: Conventions) -> Plan:
    catalog.write(synthetic_bars("1h", 500))
    config = BacktestConfig(
        algorithm_id="sma_cross",
        symbol="SYNTH",
        start_date="2024-01-01",
        end_date="2025-01-01",
        initial_capital=10_000.0,
        timeframe="1h",
        commission=0.0005,
        slippage=0.0,
        parameters={},
    )
    return prepare(config, catalog, conventions)


@pytest.fixture
def result(plan: Plan) -> Result:
    run = Run(plan, ID)
    run.advance(500)
    return run.finish()


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    return ResultStore(tmp_path / "results")


def test_a_written_result_is_read_back(store: ResultStore, plan: Plan, result: Result) -> None:
    store.write(ID, "completed", plan.resolved_config(), result)
    answer, attachments = store.read(ID, TABLES)

    assert (answer.backtest_id, answer.status, answer.metrics) == (ID, "completed", result.metrics)
    assert answer.config["parameters"] == {"fast": 10, "slow": 30}
    assert answer.config["algorithmId"] == plan.algorithm.algorithm_id
    assert answer.config["options"]["fillAt"] == "next_open"
    assert [(table.name, table.frame) for table in answer.tables] == [(name, i) for i, name in enumerate(TABLES)]
    for table in answer.tables:
        assert table.frame is not None
        frame = pl.read_ipc_stream(io.BytesIO(attachments[table.frame]))
        assert frame.equals(result.frame(table.name)), table.name
        assert table.rows == frame.height


def test_the_result_of_an_earlier_version_is_read_with_the_same_tables(
    store: ResultStore, plan: Plan, result: Result, tmp_path: Path
) -> None:
    store.write(ID, "completed", plan.resolved_config(), result, b"log")
    now, recorded = store.read(ID, TABLES), store.recorded(ID)
    as_earlier_version(tmp_path / "results" / ID)

    assert store.read(ID, TABLES) == now
    earlier = store.recorded(ID)
    assert earlier.log == recorded.log == b"log"
    assert earlier.orders.tobytes() == recorded.orders.tobytes() == result.orders.tobytes()
    for name in ("position_id", "timestamp", "quantity", "symbol"):
        assert earlier.positions[name].tolist() == recorded.positions[name].tolist() == result.positions[name].tolist()


def test_only_the_requested_tables_are_read(store: ResultStore, plan: Plan, result: Result) -> None:
    store.write(ID, "completed", plan.resolved_config(), result)

    assert store.read(ID)[1] == []
    answer, attachments = store.read(ID, ["orders"])
    assert [table.name for table in answer.tables] == ["orders"]
    assert len(attachments) == 1


def test_a_later_result_takes_the_place_of_an_earlier_one(store: ResultStore, plan: Plan, result: Result) -> None:
    store.write(ID, "stopped", plan.resolved_config(), result)
    store.write(ID, "completed", plan.resolved_config(), result)

    assert store.read(ID)[0].status == "completed"


def test_a_crash_while_writing_leaves_no_result(
    store: ResultStore, plan: Plan, result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def power_cut(*_: object) -> None:
        raise OSError("power cut")

    with monkeypatch.context() as cut:
        cut.setattr(Path, "rename", power_cut)
        with pytest.raises(OSError, match="power cut"):
            store.write(ID, "completed", plan.resolved_config(), result)
    with pytest.raises(NotFound):
        store.read(ID)

    store.write(ID, "completed", plan.resolved_config(), result)
    assert store.read(ID)[0].status == "completed"
    assert [path.name for path in (tmp_path / "results").iterdir()] == [ID]


def test_a_result_that_cannot_be_written_frees_its_space(
    store: ResultStore, plan: Plan, result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(results_module, "sync_file", no_room)
    with pytest.raises(OSError, match="no space left"):
        store.write(ID, "completed", plan.resolved_config(), result)
    assert list((tmp_path / "results").iterdir()) == []


def test_partial_results_of_ended_processes_are_swept_and_others_are_not(store: ResultStore, tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    root = tmp_path / "results"
    names = [f".b1.{ended.pid}.partial", ".b2.partial", ".2.partial", f".b3.{os.getpid()}.partial", "b4"]
    for name in names:
        (root / name).mkdir(parents=True)
        (root / name / "records.bin").write_bytes(b"half")
    store.sweep()
    assert sorted(path.name for path in root.iterdir()) == sorted(names[3:])


def test_writing_sweeps_earlier_partial_results_of_the_same_backtest(
    store: ResultStore, plan: Plan, result: Result, tmp_path: Path
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left, other = (tmp_path / "results" / f".{one}.{ended.pid}.partial" for one in (ID, "another"))
    for partial in (left, other):
        partial.mkdir(parents=True)
    store.write(ID, "completed", plan.resolved_config(), result)
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == sorted([ID, other.name])


@pytest.mark.parametrize("status", ["completed", "stopped"])
def test_a_stored_result_has_how_the_backtest_ended(
    status: Outcome, store: ResultStore, plan: Plan, result: Result
) -> None:
    assert store.outcome(ID) is None
    store.write(ID, status, plan.resolved_config(), result)
    assert store.outcome(ID) == status


def test_an_unreadable_result_has_no_outcome(store: ResultStore, plan: Plan, result: Result, tmp_path: Path) -> None:
    store.write(ID, "completed", plan.resolved_config(), result)
    (tmp_path / "results" / ID / "result.json").write_bytes(b'{"status": "com')
    assert store.outcome(ID) is None


def test_an_unknown_backtest_has_no_result(store: ResultStore) -> None:
    with pytest.raises(NotFound) as caught:
        store.read(ID)
    assert caught.value.details == {"kind": "result", "name": ID, "known": []}


def test_the_error_of_an_unknown_id_names_a_similar_one(store: ResultStore, plan: Plan, result: Result) -> None:
    for name in ("gold-5m", "silver-1h"):
        store.write(name, "completed", plan.resolved_config(), result)
    with pytest.raises(NotFound, match="no result of backtest 'gold5m'; did you mean 'gold-5m'") as caught:
        store.read("gold5m")
    assert caught.value.details is not None
    assert sorted(caught.value.details["known"]) == ["gold-5m", "silver-1h"]


def test_durations_of_an_earlier_version_are_rounded(
    store: ResultStore, plan: Plan, result: Result, tmp_path: Path
) -> None:
    store.write(ID, "completed", plan.resolved_config(), result)
    (file,) = tmp_path.rglob("result.json")
    fields = msgspec.json.decode(file.read_bytes())
    fields["metrics"] |= {"averageTradeDurationMs": 1234.56, "maxTradeDurationMs": 5e9}
    file.write_bytes(msgspec.json.encode(fields))
    metrics = store.read(ID)[0].metrics
    assert metrics is not None
    assert (metrics.average_trade_duration_ms, metrics.max_trade_duration_ms) == (1235, 5_000_000_000)


@pytest.mark.parametrize("backtest_id", ["", "..", "../" + ID, "{" + ID + "}", "a/b", ID + "\n", "x" * 65])
def test_an_id_names_no_path_outside_the_store(
    backtest_id: str, store: ResultStore, plan: Plan, result: Result, tmp_path: Path
) -> None:
    with pytest.raises(NotFound, match="no result of backtest"):
        store.write(backtest_id, "completed", plan.resolved_config(), result)
    with pytest.raises(NotFound):
        store.read(backtest_id)
    assert not (tmp_path / "results").exists()


def test_an_id_may_be_a_name(store: ResultStore, plan: Plan, result: Result) -> None:
    store.write("my-run_1", "completed", plan.resolved_config(), result)
    assert store.read("my-run_1")[0].backtest_id == "my-run_1"


def test_an_unknown_table_is_named(store: ResultStore, plan: Plan, result: Result) -> None:
    store.write(ID, "completed", plan.resolved_config(), result)
    with pytest.raises(ValidationError, match="unknown table 'equities'; did you mean 'equity'"):
        store.read(ID, ["equities"])  # type: ignore[list-item]


@pytest.mark.parametrize("place", [0, 7, -1])
def test_a_flipped_bit_in_any_array_of_a_result_is_found_before_it_is_used(
    place: int, store: ResultStore, plan: Plan, result: Result, tmp_path: Path
) -> None:
    store.write(ID, "completed", plan.resolved_config(), result)
    file = tmp_path / "results" / ID / "records.bin"
    parts = msgspec.json.decode((tmp_path / "results" / ID / "result.json").read_bytes())["parts"]
    good = file.read_bytes()
    for name, table in (("starts", "equity"), ("orders", "orders"), ("trades", "trades"), ("signals", "orders")):
        content = bytearray(good)
        content[parts[name]["offset"] + place % parts[name]["size"]] ^= 4
        file.write_bytes(content)
        with pytest.raises(DataError, match=rf"the checksum of {name} in records\.bin does not match; run the"):
            store.read(ID, [table])  # type: ignore[list-item]
    file.write_bytes(good[:-1])
    with pytest.raises(DataError, match=r"records\.bin ends within"):
        store.read(ID, TABLES)


@pytest.mark.parametrize("place", [4, 40, 200, -1])
def test_a_flipped_bit_in_any_file_of_an_earlier_version_is_found_before_the_file_is_read(
    place: int, store: ResultStore, plan: Plan, result: Result, tmp_path: Path
) -> None:
    store.write(ID, "completed", plan.resolved_config(), result)
    as_earlier_version(tmp_path / "results" / ID)
    for name, table in (("times", "equity"), ("orders", "orders"), ("open_trades", "trades")):
        file = tmp_path / "results" / ID / f"{name}.arrow"
        content = bytearray(good := file.read_bytes())
        content[place] ^= 4
        file.write_bytes(content)
        with pytest.raises(DataError, match=rf"the checksum of {name}\.arrow does not match; run the backtest again"):
            store.read(ID, [table])  # type: ignore[list-item]
        file.write_bytes(good)


def test_a_damaged_result_is_a_data_error(store: ResultStore, plan: Plan, result: Result, tmp_path: Path) -> None:
    store.write(ID, "completed", plan.resolved_config(), result)
    as_earlier_version(tmp_path / "results" / ID)
    (tmp_path / "results" / ID / "orders.arrow").write_bytes(b"no table")

    assert store.read(ID, ["equity"])
    with pytest.raises(DataError, match="cannot be read"):
        store.read(ID, ["orders"])


def test_a_result_that_is_deleted_while_it_is_read_is_not_found(
    store: ResultStore, plan: Plan, result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(ID, "completed", plan.resolved_config(), result)
    read = results_module._read_table

    def deleted_before(*given: Any) -> pl.DataFrame:
        shutil.rmtree(tmp_path / "results" / ID)
        return read(*given)

    monkeypatch.setattr(results_module, "_read_table", deleted_before)
    with pytest.raises(NotFound, match="there is no result of backtest"):
        store.read(ID, ["equity"])
