"""A run that goes on from a checkpoint gives bit for bit what an undisturbed one gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_engine.algorithms.signals import Signals
from backtestr_engine.backtest.checkpoint_format import (
    MAGIC,
    CheckpointHead,
    Contents,
    Writer,
    read_checkpoint,
)
from backtestr_engine.backtest.plan import Plan
from backtestr_engine.backtest.run import Result, Run
from backtestr_engine.backtest.run_state import SavedUpTo, Unfit, computed, fingerprint, go_on
from backtestr_engine.built_in import find_algorithm
from backtestr_engine.data.bars import Bars
from backtestr_engine.data.panel import Panel
from backtestr_engine.simulation.conventions import Options
from backtestr_protocol.messages import BacktestConfig, StreamOptions
from support.engine.cases import (
    CAPITAL,
    random_bars,
    random_conventions,
    random_costs,
    random_signals,
    shipped_conventions,
)

DEFAULTS = shipped_conventions()
MINUTE = 60_000_000
TABLES = ("equity", "orders", "trades", "positions")


def drawn(seed: int) -> tuple[Plan, tuple[Signals, ...]]:
    """Return a random backtest of one to three symbols, and its signals."""
    chance = np.random.default_rng(seed)
    symbols = int(chance.integers(1, 4))
    conventions = random_conventions(chance, DEFAULTS, shared=symbols > 1)
    rows = int(chance.integers(4, 60))
    series = []
    for symbol in range(symbols):
        there = np.flatnonzero(chance.random(rows) < (0.7 if symbols > 1 else 1.0))
        there = there if len(there) else np.array([0])
        bars = random_bars(chance, len(there))
        columns = (getattr(bars, name) for name in ("open", "high", "low", "close", "volume"))
        series.append(Bars(f"S{symbol}", "1m", there * MINUTE, *columns))
    signals = tuple(random_signals(chance, bars, conventions) for bars in series)
    if conventions.order_type != "market" and any(one.limit_price is None or one.stop_price is None for one in signals):
        conventions = msgspec.structs.replace(conventions, order_type="market")
    commission, slippage = random_costs(chance)
    config = BacktestConfig(
        algorithm_id="sma_cross",
        symbol="S0",
        initial_capital=CAPITAL,
        timeframe="1m",
        commission=commission,
        slippage=slippage,
        parameters={},
    )
    options = Options(preset=None, conventions=conventions, streams=StreamOptions())
    return Plan(config, find_algorithm("sma_cross"), {}, options, Panel.of(series)), signals


def advanced(run: Run, sizes: Sequence[int]) -> Run:
    for size in sizes:
        run.advance(size)
    return run


def written(run: Run, sizes: Sequence[int]) -> bytes:
    """Return the checkpoint of a run that was advanced by these chunks, and saved behind each."""
    writer, saved = Writer(), SavedUpTo()
    content = MAGIC + writer.encode(CheckpointHead(b"")) + writer.encode(computed(run))
    for size in sizes:
        run.advance(size)
        content += writer.encode(saved.next_chunk(run, b""))
    return content


def bits(result: Result) -> list[object]:
    records = [getattr(result, name).tobytes() for name in ("equity", "orders", "positions", "trades", "open_trades")]
    links = [] if result.links is None else [one.tobytes() for one in result.links]
    return [records, links, msgspec.json.encode(result.metrics)]


SIZES = st.lists(st.integers(1, 25), max_size=5)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), first=SIZES, then=SIZES, last=SIZES)
def test_a_run_that_went_on_is_the_undisturbed_one_bit_for_bit(
    seed: int, first: list[int], then: list[int], last: list[int]
) -> None:
    plan, signals = drawn(seed)
    whole = Run(plan, "b")
    whole.start_with(*signals)
    whole.advance(10**9)
    lost = Run(plan, "b")
    lost.start_with(*signals)
    content = written(lost, first)

    second = Run(plan, "b")
    saved = go_on(second, found := read_checkpoint(content))
    assert (second.bars_simulated, saved.bars) == (lost.bars_simulated, lost.bars_simulated)
    assert second.progress() == lost.progress()
    assert second.marks().tobytes() == lost.marks().tobytes()
    writer = Writer(found.checksum)
    for size in then:
        second.advance(size)
        content += writer.encode(saved.next_chunk(second, b""))

    third = Run(plan, "b")
    go_on(third, read_checkpoint(content))
    assert third.bars_simulated == second.bars_simulated
    advanced(third, [*last, 10**9])
    assert bits(third.finish()) == bits(whole.finish())
    assert third.progress() == whole.progress()
    for table in TABLES:
        assert third.finish().frame(table).equals(whole.finish().frame(table))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), first=SIZES)
def test_a_run_that_went_on_and_was_stopped_is_one_that_was_stopped_there(seed: int, first: list[int]) -> None:
    plan, signals = drawn(seed)
    stopped = Run(plan, "b")
    stopped.start_with(*signals)
    content = written(stopped, first)
    again = Run(plan, "b")
    go_on(again, read_checkpoint(content))
    assert bits(again.finish()) == bits(stopped.finish())


def test_a_checkpoint_without_signals_begins_nothing() -> None:
    plan, _ = drawn(1)
    run = Run(plan, "b")
    assert go_on(run, Contents()).bars == 0
    assert not run.started


def test_arrays_of_another_run_are_refused() -> None:
    plan, signals = drawn(1)
    run = Run(plan, "b")
    run.start_with(*signals)
    found = read_checkpoint(written(run, [3]))
    (chunk,) = found.chunks
    harms: list[dict[str, Any]] = [
        {"equity": chunk.equity + b"1"},
        {"equity": chunk.equity * 1000},
        {"orders": chunk.orders + b"1"},
        {"state": {}},
        {"state": {"account": b"", "shared": b""}},
    ]
    for changed in harms:
        with pytest.raises(Unfit):
            go_on(Run(plan, "b"), msgspec.structs.replace(found, chunks=[msgspec.structs.replace(chunk, **changed)]))
    other, _ = drawn(2)
    with pytest.raises(Unfit, match="other bars"):
        go_on(Run(other, "b"), found)


def test_the_fingerprint_is_of_config_bars_and_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, _ = drawn(1)
    first = fingerprint(plan)
    assert fingerprint(drawn(1)[0]) == first
    bars = plan.panel.series[0]
    changed = dataclasses.replace(bars, close=bars.close + 1e-9)
    others = [
        msgspec.structs.replace(plan, panel=Panel.of([changed, *plan.panel.series[1:]])),
        msgspec.structs.replace(plan, panel=plan.panel.first(len(plan.panel) - 1)),
        msgspec.structs.replace(plan, parameters={"fast": 3}),
        msgspec.structs.replace(plan, config=msgspec.structs.replace(plan.config, commission=0.5)),
    ]
    assert first not in list(map(fingerprint, others))
    monkeypatch.setattr("backtestr_engine.backtest.run_state.kernels_version", lambda: "another")
    assert fingerprint(plan) != first
