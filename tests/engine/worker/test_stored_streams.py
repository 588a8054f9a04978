"""Pages of stored results are made of what was read once, until the last page or until the result is another."""

from __future__ import annotations

from pathlib import Path

import msgpack
import numpy as np
import pytest

from backtestr_engine.backtest.result_store import ResultStore
from backtestr_engine.backtest.run import Result
from backtestr_engine.publishing import stream_pages
from backtestr_engine.publishing.stream_log import StreamLog, to_bytes
from backtestr_engine.simulation.records import ORDER, POSITION, TRADE
from backtestr_engine.worker import stored_streams
from backtestr_engine.worker.stored_streams import StoredStreams
from backtestr_protocol.errors import DataError, NotFound
from backtestr_protocol.messages import FetchMissed
from backtestr_protocol.metrics import Metrics
from support.engine.batches import batcher
from support.engine.tasks import config


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    return ResultStore(tmp_path / "results")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_pages, "PAGE", 10)
    monkeypatch.setattr(stored_streams, "PAGE", 10)


def put(store: ResultStore, orders: int, *, states: int = 0, log: bytes | None = None) -> None:
    """Store a result with so many orders, and `states` more states of the first one."""
    made = np.zeros(orders, dtype=ORDER)
    made["order_id"] = np.arange(1, orders + 1)
    every = np.concatenate([made[:1]] * states + [made]) if states else None
    result = Result(
        symbols=("A",),
        timeframe="1d",
        initial_capital=1.0,
        timestamp=np.zeros(0, dtype=np.int64),
        equity=np.zeros(0),
        orders=made,
        positions=np.zeros(0, dtype=POSITION),
        trades=np.zeros(0, dtype=TRADE),
        open_trades=np.zeros(0, dtype=TRADE),
        metrics=Metrics(),
        order_states=every,
    )
    store.write("b", "completed", config(backtest_id="b"), result, log)


def last(streams: StoredStreams, from_seq: int = 1) -> int:
    answer = msgpack.unpackb(streams.page(FetchMissed(topic="orders.b", from_seq=from_seq)))
    reached: int = answer["toSeq"]
    return reached


def test_a_result_is_read_once_for_all_its_pages(store: ResultStore, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    recorded = ResultStore.recorded

    def counted(self: ResultStore, backtest_id: str) -> object:
        reads.append(backtest_id)
        return recorded(self, backtest_id)

    monkeypatch.setattr(ResultStore, "recorded", counted)
    put(store, 25, log=to_bytes(StreamLog()))
    streams = StoredStreams(store, batcher().payload)
    assert [last(streams, one) for one in (1, 11, 21)] == [10, 20, 25]
    assert reads == ["b"]
    assert last(streams) == 10
    assert reads == ["b", "b"], "after the last page nothing is kept"
    put(store, 7, log=to_bytes(StreamLog()))
    assert last(streams) == 7, "another result of the same id"


def test_every_state_of_an_order_is_a_message(store: ResultStore) -> None:
    put(store, 3, states=2, log=to_bytes(StreamLog()))
    assert last(StoredStreams(store, batcher().payload)) == 5


def test_a_result_without_a_log_has_no_streams(store: ResultStore) -> None:
    put(store, 3)
    with pytest.raises(NotFound, match="no log of its streams"):
        last(StoredStreams(store, batcher().payload))


def test_no_result_has_no_streams(store: ResultStore) -> None:
    with pytest.raises(NotFound):
        last(StoredStreams(store, batcher().payload))


def test_a_damaged_log_is_an_error(store: ResultStore, tmp_path: Path) -> None:
    put(store, 3, log=b"no log")
    with pytest.raises(DataError, match="streams of backtest b cannot be read"):
        last(StoredStreams(store, batcher().payload))
    put(store, 3, log=to_bytes(StreamLog()))
    (tmp_path / "results" / "b" / "records.bin").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"records\.bin ends"):
        last(StoredStreams(store, batcher().payload))
