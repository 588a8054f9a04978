"""A span on a cluster is the broker's own blocks, byte for byte, whatever happens to workers and to the scheduler.

The cluster is a fake one in this thread, whose workers are real: they compute with `ClusterWorker`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from backtestr_engine.cluster.io.dask_link import (
    Function,
    Killed,
    LinkEvent,
    LinkLost,
    Raised,
    Returned,
    Vanished,
    unavailable,
)
from backtestr_engine.simulation.conventions import Conventions
from backtestr_engine.worker.sweeping.cluster_blocks import ClusterWorker
from backtestr_engine.worker.sweeping.sweep_spans import RECONNECT_SECONDS, WAIT_SECONDS, SweepSpans
from backtestr_engine.worker.sweeping.sweep_store import rows_of
from backtestr_protocol.codec import decode, encode
from backtestr_protocol.errors import ClusterUnavailable, DataError
from backtestr_protocol.sweep_messages import StartSweep
from backtestr_protocol.sweep_tasks import CheckedSweep, SpanDone, SweepBlock, SweepSpan
from engine.worker.sweeping.test_cluster_blocks import FACTS, Broker

ADDRESS = "tcp://10.0.0.1:8786"
UNITS = 40


class FakeCluster:
    """The scheduler, and workers that do one call for each look at what has come back."""

    def __init__(self) -> None:
        self.now = 100.0
        self.workers: dict[str, ClusterWorker] = {}
        self.is_up = True
        self.calls: dict[str, tuple[str, str, bytes]] = {}
        self.order: deque[str] = deque()
        self.named: list[tuple[str, str]] = []  # every call so far: its function, and the worker
        self.before: Callable[[str, str, str], LinkEvent | None] = lambda _key, _name, _address: None
        self.connections = 0

    def start_worker(self, name: str, facts: dict[str, str] = FACTS) -> None:
        self.workers[name] = ClusterWorker(facts=lambda: facts)

    def connect(self, address: str) -> FakeCluster:
        if not self.is_up:
            raise unavailable(address, "connection refused")
        self.connections += 1
        return self

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def clock(self) -> float:
        return self.now

    def addresses(self) -> set[str]:
        self._check()
        return set(self.workers)

    def call(self, key: str, function: Function, address: str, data: bytes) -> None:
        self._check()
        self.calls[key] = (getattr(function, "__name__", ""), address, data)
        self.order.append(key)
        self.named.append((getattr(function, "__name__", ""), address))

    def cancel(self, key: str) -> None:
        self.calls.pop(key, None)

    def events(self, seconds: float) -> list[LinkEvent]:
        found = self._next()
        self.now += 0.01 if found else seconds
        return found

    def _next(self) -> list[LinkEvent]:
        self._check()
        for _ in range(len(self.order)):
            key = self.order.popleft()
            if key not in self.calls:
                continue
            name, address, data = self.calls[key]
            if address not in self.workers:  # it waits for a worker that does not come back
                self.order.append(key)
                continue
            event = self.before(key, name, address)
            self._check()
            if address not in self.workers:
                return []
            del self.calls[key]
            return [event or Returned(key, getattr(self.workers[address], name)(data))]
        return []

    def close(self) -> None:
        self.calls.clear()
        self.order.clear()

    def _check(self) -> None:
        if not self.is_up:
            raise LinkLost("the connection is closed")


@pytest.fixture(autouse=True)
def cold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Warm no kernels: the blocks of these tests are small."""
    monkeypatch.setattr("backtestr_engine.worker.sweeping.cluster_blocks.warm", lambda _conventions: None)
    monkeypatch.setattr("backtestr_engine.worker.sweeping.cluster_blocks.warm_sweeps", lambda _conventions: None)


@pytest.fixture
def broker(tmp_path: Path, conventions: Conventions) -> Broker:
    return Broker(tmp_path, conventions)


@pytest.fixture
def cluster() -> FakeCluster:
    found = FakeCluster()
    found.start_worker("tcp://10.0.0.2:1")
    found.start_worker("tcp://10.0.0.3:1")
    return found


@pytest.fixture
def spans(broker: Broker, cluster: FakeCluster) -> SweepSpans:
    return SweepSpans(
        broker.tasks,
        broker.conventions,
        broker.catalog.root,
        connect=cluster.connect,
        clock=cluster.clock,
        facts=lambda: FACTS,
        reachable=lambda _address: None,
        wait=cluster.wait,
    )


def checked_on_cluster(broker: Broker, algorithm: str = "sma_cross", **changes: Any) -> CheckedSweep:
    space = (
        {"n": list(range(1, UNITS + 1))} if algorithm == "sent" else {"fast": range_of(2, 9), "slow": range_of(10, 14)}
    )
    found = broker.checked(algorithm, space)
    sweep = msgspec.structs.replace(found.sweep, **{"scheduler": ADDRESS, "block_size": 4, **changes})
    assert found.units == UNITS
    return msgspec.structs.replace(found, sweep=sweep)


def range_of(low: int, high: int) -> dict[str, int]:
    return {"low": low, "high": high, "step": 1}


def run(
    spans: SweepSpans, checked: CheckedSweep, first: int = 0, count: int = UNITS, unit_seconds: float = 1e-3
) -> SpanDone:
    task = SweepSpan(sweep_id="far", checked=checked, first=first, count=count, unit_seconds=unit_seconds)
    return decode(msgspec.msgpack.Decoder(SpanDone), spans.run(encode(task))[0])


def far_rows(broker: Broker) -> pl.DataFrame:
    return pl.concat(rows_of(broker.store.blocks("far"))).sort("cell").rechunk()


def as_bytes(rows: pl.DataFrame) -> bytes:
    return rows.write_ipc_stream(None).getvalue()


def near_rows(broker: Broker, checked: CheckedSweep) -> pl.DataFrame:
    """Return the rows that this worker computes alone."""
    block = SweepBlock(sweep_id="near", checked=checked, first=0, count=checked.units)
    broker.tasks.run_block(encode(block))
    return pl.concat(rows_of(broker.store.blocks("near"))).sort("cell").rechunk()


def test_a_span_is_the_broker_s_own_block_as_bytes(spans: SweepSpans, broker: Broker, cluster: FakeCluster) -> None:
    checked = checked_on_cluster(broker)
    done = run(spans, checked)
    assert (done.rows, done.left, done.problem, done.workers) == (UNITS, [], None, 2)
    assert as_bytes(far_rows(broker)) == as_bytes(near_rows(broker, checked))
    assert len(done.cells_done["cell"].data) == 8 * UNITS
    best = near_rows(broker, checked).sort("sharpe_ratio", descending=True, nulls_last=True)
    assert done.best is not None
    assert done.best.value == best["sharpe_ratio"][0]
    computed = [address for name, address in cluster.named if name == "compute"]
    assert set(computed) == set(cluster.workers), "both have computed"
    assert len(computed) == UNITS // 4


def test_rows_of_a_cluster_are_trials_as_all_others(spans: SweepSpans, broker: Broker) -> None:
    checked = checked_on_cluster(broker)
    assert checked.trials_before == 0
    run(spans, checked, 0, 20)
    assert checked_on_cluster(broker).trials_before == 20
    near_rows(broker, checked)
    assert checked_on_cluster(broker).trials_before == UNITS, "20 of them were trials"


def test_workers_are_asked_once_for_all_spans(spans: SweepSpans, broker: Broker, cluster: FakeCluster) -> None:
    checked = checked_on_cluster(broker)
    run(spans, checked, 0, 20)
    done = run(spans, checked, 20, 20)
    assert done.rows == 20
    assert [name for name, _ in cluster.named].count("greet") == 2
    assert cluster.connections == 1


def test_bars_and_source_go_to_each_worker_once(
    spans: SweepSpans, broker: Broker, cluster: FakeCluster, tmp_path: Path
) -> None:
    spans.catalog_root = tmp_path / "not-mounted"
    checked = checked_on_cluster(broker, "sent")
    run(spans, checked, 0, 20)
    done = run(spans, checked, 20, 20)
    assert done.rows == 20
    assert as_bytes(far_rows(broker)) == as_bytes(near_rows(broker, checked))
    supplied = sorted(address for name, address in cluster.named if name == "supply")
    assert supplied == sorted([*cluster.workers, *cluster.workers]), "the source, and the bars"


def test_a_lost_worker_costs_no_row(spans: SweepSpans, broker: Broker, cluster: FakeCluster) -> None:
    lost: list[str] = []

    def lose(_key: str, name: str, address: str) -> None:
        if name == "compute" and not lost:
            lost.append(address)
            del cluster.workers[address]

    cluster.before = lose
    checked = checked_on_cluster(broker)
    done = run(spans, checked)
    assert (done.rows, done.failed, done.left) == (UNITS, 0, [])
    assert len(lost) == 1
    assert as_bytes(far_rows(broker)) == as_bytes(near_rows(broker, checked))


@pytest.mark.parametrize("given_up", [False, True], ids=["its worker is gone", "KilledWorker"])
def test_a_combination_that_ends_workers_is_a_failed_row(
    spans: SweepSpans, broker: Broker, cluster: FakeCluster, given_up: bool
) -> None:
    numbered = 0

    def end(key: str, name: str, address: str) -> LinkEvent | None:
        nonlocal numbered
        if name != "compute":
            return None
        block = msgspec.msgpack.decode(cluster.calls[key][2])["block"]
        if not block["first"] <= 17 < block["first"] + block["count"]:
            return None
        if given_up:
            return Killed(key)
        numbered += 1
        del cluster.workers[address]
        cluster.start_worker(f"tcp://10.0.1.{numbered}:1")
        return None

    cluster.before = end
    checked = checked_on_cluster(broker)
    done = run(spans, checked)
    assert (done.rows, done.failed, done.left, done.problem) == (UNITS, 1, [], None)
    rows = far_rows(broker)
    [failed] = rows.filter(pl.col("failure").is_not_null()).to_dicts()
    assert failed["cell"] == 17
    assert "ended the worker of the cluster" in failed["failure"]
    others = pl.col("cell") != 17
    assert_frame_equal(rows.filter(others), near_rows(broker, checked).filter(others), check_exact=True)


def test_a_worker_with_other_facts_gets_no_block_and_is_named(
    spans: SweepSpans, broker: Broker, cluster: FakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.start_worker("tcp://10.0.0.9:1", {"numpy": "1.0"})
    done = run(spans, checked_on_cluster(broker))
    assert done.rows == UNITS
    assert done.refused == ["tcp://10.0.0.9:1: numpy: 1.0 there, 2.0 here"]
    assert ("compute", "tcp://10.0.0.9:1") not in cluster.named
    assert "tcp://10.0.0.9:1 of the cluster gets no block" in caplog.text


def test_a_worker_that_was_exchanged_behind_its_address_is_found_out(
    spans: SweepSpans, broker: Broker, cluster: FakeCluster
) -> None:
    checked = checked_on_cluster(broker)
    run(spans, checked, 0, 8)
    cluster.start_worker("tcp://10.0.0.2:1", {"numpy": "1.0"})
    done = run(spans, checked, 8, UNITS - 8)
    assert done.rows == UNITS - 8
    assert done.refused == ["tcp://10.0.0.2:1: numpy: 1.0 there, 2.0 here"]
    assert as_bytes(far_rows(broker)) == as_bytes(near_rows(broker, checked))


def test_a_worker_without_backtestr_is_refused(spans: SweepSpans, broker: Broker, cluster: FakeCluster) -> None:
    def lacks(key: str, name: str, address: str) -> LinkEvent | None:
        is_bare = name == "greet" and address == "tcp://10.0.0.2:1"
        return Raised(key, "ModuleNotFoundError: No module named 'backtestr_engine'") if is_bare else None

    cluster.before = lacks
    done = run(spans, checked_on_cluster(broker))
    assert done.rows == UNITS
    [refused] = done.refused
    assert "backtestr does not run there: ModuleNotFoundError" in refused


def test_where_no_worker_may_compute_the_sweep_pauses_and_says_why(
    spans: SweepSpans, broker: Broker, cluster: FakeCluster
) -> None:
    cluster.workers = {}
    cluster.start_worker("tcp://10.0.0.9:1", {"numpy": "1.0"})
    began = cluster.now
    done = run(spans, checked_on_cluster(broker))
    assert done.pauses
    assert done.problem is not None
    assert "tcp://10.0.0.9:1: numpy: 1.0 there, 2.0 here" in done.problem.message
    assert done.left == [(0, UNITS)]
    assert cluster.now - began < WAIT_SECONDS + 5


def test_a_cluster_without_workers_is_waited_for_and_then_named(
    spans: SweepSpans, broker: Broker, cluster: FakeCluster
) -> None:
    cluster.workers = {}
    done = run(spans, checked_on_cluster(broker))
    assert done.pauses
    assert done.problem is not None
    assert f"dask worker {ADDRESS}" in done.problem.message


def test_a_scheduler_that_comes_back_within_its_time_costs_nothing(
    spans: SweepSpans, broker: Broker, cluster: FakeCluster
) -> None:
    calls = 0

    def lose(_key: str, name: str, _address: str) -> None:
        nonlocal calls
        calls += name == "compute"
        if calls == 3:
            calls += 1
            cluster.is_up = False

    plain = cluster.wait

    def wait(seconds: float) -> None:
        plain(seconds)
        cluster.is_up = True

    cluster.before = lose
    spans.wait = wait
    checked = checked_on_cluster(broker)
    done = run(spans, checked)
    assert (done.rows, done.left, done.problem) == (UNITS, [], None)
    assert cluster.connections == 2
    assert [name for name, _ in cluster.named].count("greet") == 4, "behind an address may be another worker"
    assert as_bytes(far_rows(broker)) == as_bytes(near_rows(broker, checked))


def test_a_scheduler_that_stays_away_pauses_the_sweep_and_what_is_stored_counts(
    spans: SweepSpans, broker: Broker, cluster: FakeCluster
) -> None:
    computed = 0

    def lose(_key: str, name: str, _address: str) -> None:
        nonlocal computed
        computed += name == "compute"
        if computed == 4:
            cluster.is_up = False

    cluster.before = lose
    checked = checked_on_cluster(broker)
    began = cluster.now
    done = run(spans, checked)
    assert done.pauses
    assert done.problem is not None
    assert ADDRESS in done.problem.message
    assert done.rows == 3 * 4
    assert sum(count for _, count in done.left) == UNITS - done.rows
    assert cluster.now - began < RECONNECT_SECONDS + 10
    cluster.before = lambda _key, _name, _address: None
    cluster.is_up = True
    rest = [run(spans, checked, first, count) for first, count in done.left]
    assert sum(one.rows for one in rest) == UNITS - done.rows
    assert as_bytes(far_rows(broker)) == as_bytes(near_rows(broker, checked))


def test_a_scheduler_that_was_never_there_pauses_the_sweep_at_once(
    spans: SweepSpans, broker: Broker, cluster: FakeCluster
) -> None:
    cluster.is_up = False
    began = cluster.now
    done = run(spans, checked_on_cluster(broker))
    assert done.pauses
    assert done.left == [(0, UNITS)]
    assert cluster.now == began


def test_rows_that_are_lost_on_their_way_are_computed_again(
    spans: SweepSpans, broker: Broker, cluster: FakeCluster
) -> None:
    vanished: list[str] = []

    def vanish(key: str, name: str, _address: str) -> LinkEvent | None:
        if name == "compute" and len(vanished) < 2:
            vanished.append(key)
            return Vanished(key)
        return None

    cluster.before = vanish
    done = run(spans, checked_on_cluster(broker))
    assert (done.rows, done.failed, done.left) == (UNITS, 0, [])


def test_an_algorithm_that_does_not_load_fails_the_sweep(
    spans: SweepSpans, broker: Broker, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_source: str, _file: str, _name: str) -> Any:
        raise DataError("it needs a library that is not there")

    monkeypatch.setattr("backtestr_engine.worker.sweeping.cluster_blocks.load_source", fail)
    done = run(spans, checked_on_cluster(broker, "sent"))
    assert not done.pauses
    assert done.problem is not None
    assert "needs a library" in done.problem.message
    assert done.left == [(0, UNITS)]


def test_a_call_that_raises_fails_the_sweep_and_names_the_worker(
    spans: SweepSpans, broker: Broker, cluster: FakeCluster
) -> None:
    cluster.before = lambda key, name, _address: Raised(key, "MemoryError") if name == "compute" else None
    done = run(spans, checked_on_cluster(broker))
    assert not done.pauses
    assert done.problem is not None
    assert "failed: MemoryError" in done.problem.message
    assert not cluster.calls, "nothing is left behind"


def test_a_sweep_is_accepted_only_where_its_scheduler_answers(broker: Broker, cluster: FakeCluster) -> None:
    asked: list[str] = []

    def reachable(address: str) -> None:
        asked.append(address)
        raise unavailable(address, "connection refused")

    spans = SweepSpans(
        broker.tasks, broker.conventions, broker.catalog.root, connect=cluster.connect, reachable=reachable
    )
    config = broker.checked().sweep.config
    plain = StartSweep(config=config, space={"fast": [3], "slow": [9]})
    assert len(spans.check(encode(plain))) == 1
    with pytest.raises(ClusterUnavailable, match="does not answer"):
        spans.check(encode(msgspec.structs.replace(plain, scheduler=ADDRESS)))
    assert asked == [ADDRESS]


def test_a_span_whose_speed_was_a_wrong_guess_ends_all_the_same(
    spans: SweepSpans, broker: Broker, cluster: FakeCluster
) -> None:
    def slow(_key: str, name: str, _address: str) -> None:
        if name == "compute":
            cluster.now += 1.0

    cluster.before = slow
    done = run(spans, checked_on_cluster(broker))
    assert done.problem is None
    assert 0 < done.rows < UNITS
    assert sum(count for _, count in done.left) == UNITS - done.rows, "the rest is for later spans"


def test_blocks_follow_from_the_speed_that_the_first_one_has_shown(
    spans: SweepSpans, broker: Broker, cluster: FakeCluster
) -> None:
    run(spans, checked_on_cluster(broker, block_size=None), unit_seconds=0.01)
    blocks = [block.facts.count for block in broker.store.blocks("far")]
    assert blocks[0] == 1, "a probe"
    assert sum(blocks) == UNITS
    assert max(blocks) > 25, "a unit takes less than the ten milliseconds that were guessed"


def test_an_answer_that_is_lost_on_its_way_is_asked_for_again(
    spans: SweepSpans, broker: Broker, cluster: FakeCluster
) -> None:
    lost: list[str] = []

    def lose(key: str, name: str, _address: str) -> LinkEvent | None:
        if name == "greet" and not lost:
            lost.append(key)
            return Vanished(key)
        return None

    cluster.before = lose
    done = run(spans, checked_on_cluster(broker))
    assert (done.rows, done.workers, done.refused) == (UNITS, 2, [])
