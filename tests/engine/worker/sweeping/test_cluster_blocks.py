"""A worker of a cluster computes blocks as a worker of the broker does, on shared bars or on bars that it was sent."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from backtestr_engine.built_in import find_algorithm
from backtestr_engine.cluster.fingerprint import digest
from backtestr_engine.cluster.messages import (
    ClusterBlock,
    ComputedBlock,
    Greeted,
    Greeting,
    SentBars,
    SentSource,
    Supplies,
)
from backtestr_engine.data.bars import COLUMNS, Bars
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.library.source_files import load_source
from backtestr_engine.simulation.conventions import Conventions
from backtestr_engine.worker.sweeping.cluster_blocks import ClusterWorker
from backtestr_engine.worker.sweeping.sweep_store import SweepStore, rows_of
from backtestr_engine.worker.sweeping.sweep_tasks import SweepTasks
from backtestr_engine.worker.sweeping.trial_store import TrialStore
from backtestr_protocol.codec import decode, encode
from backtestr_protocol.messages import BacktestConfig
from backtestr_protocol.sweep_messages import StartSweep
from backtestr_protocol.sweep_tasks import CheckedSweep, SweepBlock

FACTS = {"numpy": "2.0"}
SOURCE = """
from backtestr_engine.authoring import Int, Signals, algorithm


@algorithm("sent", n=Int(10, 1, 100))
def sent(bars, n):
    return Signals.of(bars.close > bars.open, bars.close < bars.open - n / 1000)
"""


class Broker:
    """The sweeps of a broker, on a catalogue with some bars."""

    def __init__(self, folder: Path, conventions: Conventions) -> None:
        self.conventions = conventions
        self.catalog = Catalog(folder / "catalog", cache_bytes=1 << 20)
        self.bars = synthetic_bars("1d", 200)
        self.catalog.write(self.bars)
        [self.own] = load_source(SOURCE, "sent.py", "sent@1")
        self.store = SweepStore(folder / "sweeps")
        self.tasks = SweepTasks(self.catalog, conventions, self.find, self.store, TrialStore(folder / "trials"))

    def find(self, name: str) -> Any:
        return self.own if name.startswith("sent") else find_algorithm(name)

    def checked(self, algorithm: str = "sma_cross", space: Any = None) -> CheckedSweep:
        config = BacktestConfig(
            algorithm_id=algorithm,
            symbol="SYNTH",
            initial_capital=10_000.0,
            timeframe="1d",
            commission=0.0,
            slippage=0.0,
            parameters={},
        )
        start = StartSweep(config=config, space=space or {"fast": [3, 4, 5], "slow": [10, 20]})
        return decode(msgspec.msgpack.Decoder(CheckedSweep), self.tasks.check(encode(start))[0])

    def block(self, checked: CheckedSweep, catalog: str, **changes: Any) -> bytes:
        block = SweepBlock(sweep_id="s1", checked=checked, first=0, count=checked.units, **changes)
        return encode(ClusterBlock(digest(FACTS), self.conventions, catalog, block))

    def rows(self, checked: CheckedSweep) -> pl.DataFrame:
        self.tasks.run_block(encode(SweepBlock(sweep_id="s1", checked=checked, first=0, count=checked.units)))
        [rows] = rows_of(self.store.blocks("s1"))
        return rows


@pytest.fixture
def broker(tmp_path: Path, conventions: Conventions) -> Broker:
    return Broker(tmp_path, conventions)


@pytest.fixture
def worker() -> ClusterWorker:
    return ClusterWorker(facts=lambda: FACTS)


def computed(worker: ClusterWorker, data: bytes) -> ComputedBlock:
    return decode(msgspec.msgpack.Decoder(ComputedBlock), worker.compute(data))


def sent(bars: Bars) -> SentBars:
    columns = [getattr(bars, name).tobytes() for name in COLUMNS]
    return SentBars(bars.symbol, bars.timeframe, bars.zone, columns)


def test_on_shared_bars_a_block_is_that_of_the_broker_as_bytes(broker: Broker, worker: ClusterWorker) -> None:
    checked = broker.checked()
    found = computed(worker, broker.block(checked, str(broker.catalog.root)))
    assert found.state == "computed"
    assert found.done is not None
    assert (found.done.rows, found.done.failed) == (6, 0)
    rows = pl.read_ipc_stream(io.BytesIO(found.rows))
    own = broker.rows(checked)
    assert rows.write_ipc_stream(None).getvalue() == own.write_ipc_stream(None).getvalue()


def test_without_a_shared_folder_bars_are_asked_for_and_kept(
    broker: Broker, worker: ClusterWorker, tmp_path: Path
) -> None:
    checked, elsewhere = broker.checked(), str(tmp_path / "not-mounted")
    found = computed(worker, broker.block(checked, elsewhere))
    assert (found.state, found.bars, found.source) == ("needs", True, False)
    worker.supply(encode(Supplies(data_version=checked.data_version, bars=[sent(broker.bars)])))
    for _ in range(2):
        found = computed(worker, broker.block(checked, elsewhere))
        assert found.state == "computed"
    assert pl.read_ipc_stream(io.BytesIO(found.rows)).equals(broker.rows(checked))


def test_a_shared_folder_with_other_bars_is_not_used(broker: Broker, worker: ClusterWorker, tmp_path: Path) -> None:
    other = Catalog(tmp_path / "other", cache_bytes=0)
    other.write(synthetic_bars("1d", 201))
    found = computed(worker, broker.block(broker.checked(), str(other.root)))
    assert (found.state, found.bars) == ("needs", True)


def test_an_algorithm_of_the_user_is_asked_for_by_its_version(broker: Broker, worker: ClusterWorker) -> None:
    checked = broker.checked("sent", {"n": [1, 2, 3]})
    shared = str(broker.catalog.root)
    found = computed(worker, broker.block(checked, shared))
    assert (found.state, found.source, found.bars) == ("needs", True, False)
    wrong = SentSource(broker.own.algorithm_id, "sent", SOURCE + "# edited\n")
    worker.supply(encode(Supplies(data_version="", source=wrong)))
    found = computed(worker, broker.block(checked, shared))
    assert found.state == "failed"
    assert found.error is not None
    assert "another version" in found.error.message
    worker.supply(encode(Supplies(data_version="", source=SentSource(broker.own.algorithm_id, "sent", SOURCE))))
    found = computed(worker, broker.block(checked, shared))
    assert found.state == "computed"
    assert pl.read_ipc_stream(io.BytesIO(found.rows)).equals(broker.rows(checked))


def test_a_worker_whose_facts_are_others_computes_nothing(broker: Broker) -> None:
    other = ClusterWorker(facts=lambda: {"numpy": "1.0"})
    found = computed(other, broker.block(broker.checked(), str(broker.catalog.root)))
    assert (found.state, found.facts) == ("refused", {"numpy": "1.0"})


def test_only_a_worker_with_the_same_facts_warms_its_kernels(
    conventions: Conventions, monkeypatch: pytest.MonkeyPatch
) -> None:
    from backtestr_engine.worker.sweeping import cluster_blocks

    warmed: list[str] = []
    monkeypatch.setattr(cluster_blocks, "warm", lambda _conventions: warmed.append("backtests"))
    monkeypatch.setattr(cluster_blocks, "warm_sweeps", lambda _conventions: warmed.append("sweeps"))
    worker = ClusterWorker(facts=lambda: FACTS)
    for facts, so_far in (({"numpy": "1.0"}, []), (FACTS, ["backtests", "sweeps"]), (FACTS, ["backtests", "sweeps"])):
        told = worker.greet(encode(Greeting(facts, conventions)))
        assert decode(msgspec.msgpack.Decoder(Greeted), told).facts == FACTS
        assert warmed == so_far


def test_a_block_that_does_not_come_back_ends_its_process(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    codes: list[int] = []

    def end(code: int) -> None:
        codes.append(code)
        ended.set()

    worker = ClusterWorker(facts=lambda: FACTS, end=end)

    def late() -> None:
        assert ended.wait(20.0), "nothing has ended the process"

    stuck = SOURCE.replace("    return Signals", "    late()\n    return Signals")
    [broker.own] = load_source(stuck, "stuck.py", "stuck@1")
    source = SentSource(broker.own.algorithm_id, "sent", stuck)
    worker.supply(encode(Supplies(data_version="", source=source)))
    monkeypatch.setattr("builtins.late", late, raising=False)
    checked = broker.checked("sent", {"n": [1]})
    found = computed(worker, broker.block(checked, str(broker.catalog.root), limit_ms=20))
    assert codes == [4]
    assert found.state == "computed", "a real process would be gone"


def test_the_bars_of_the_latest_sweeps_are_kept_and_no_more(broker: Broker, worker: ClusterWorker) -> None:
    for number in range(5):
        worker.supply(encode(Supplies(data_version=f"v{number}", bars=[sent(broker.bars)])))
    assert list(worker._bars) == ["v3", "v4"]
