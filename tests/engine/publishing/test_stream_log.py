"""The log gives back what was published: progress and marks, each at its place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr_engine.publishing import stream_log
from backtestr_engine.publishing.stream_log import StreamLog, from_bytes, to_bytes
from backtestr_engine.simulation.records import POSITION
from backtestr_protocol.stream_messages import BacktestProgress, EquityCurvePoint

SYMBOLS = 3


def progress(number: int) -> BacktestProgress:
    return BacktestProgress(
        backtest_id="b",
        current_time=1_700_000_000_000 + number,
        progress_percent=0.1 * number,
        orders_executed=number,
        positions_opened=2,
        positions_closed=1,
        unrealized_pnl=-1.5 * number,
        realized_pnl=1 / 3,
        equity_curve_point=EquityCurvePoint(
            timestamp=1_700_000_000_000 + number, equity=1e5 + number, drawdown=0.1, returns=-0.0
        ),
    )


def changes(symbols: list[int]) -> np.ndarray:
    """Return changes of positions of these symbols, no two alike."""
    made = np.zeros(len(symbols), dtype=POSITION)
    made["symbol"] = symbols
    made["position_id"] = np.arange(1, len(symbols) + 1)
    made["quantity"] = made["average_price"] = np.arange(len(symbols)) + 0.5
    made["realized"] = np.arange(len(symbols)) / 7
    made["timestamp"] = np.arange(len(symbols)) * 1_000
    return made


def marked(change: np.void, price: float, time: int) -> np.ndarray:
    """Return the position after a change, marked to a price, field by field."""
    mark = np.zeros(1, dtype=POSITION)
    for name in ("position_id", "symbol", "quantity", "average_price", "realized"):
        mark[name] = change[name]
    mark["timestamp"] = time * 1000
    mark["current_price"] = price
    mark["unrealized"] = change["quantity"] * (price - change["average_price"])
    return mark


def read_again(log: StreamLog) -> StreamLog:
    return from_bytes(to_bytes(log))


def read_in_parts(log: StreamLog) -> StreamLog:
    """Return a log that was written as checkpoints write it, one message of progress after the other."""
    whole, parts = StreamLog(), [to_bytes(StreamLog())]
    made, marks = log._progress.rows, log._marks.rows
    for number, row in enumerate(made):
        whole._progress.space(1)[:] = row
        fresh = marks[whole.marks_made : int(row["marks"])]
        whole._marks.space(len(fresh))[:] = fresh
        parts.append(to_bytes(whole, number))
    assert sum(map(len, parts)) < len(to_bytes(log)) + 100 * len(parts), "a part has only what is new"
    return from_bytes(*parts)


steps = st.lists(
    st.tuples(st.lists(st.integers(0, SYMBOLS - 1), max_size=4), st.booleans(), st.sets(st.integers(0, SYMBOLS - 1))),
    max_size=12,
)


@given(steps=steps, data=st.data())
def test_every_message_stands_where_it_was_published(steps: list[Any], data: st.DataObject) -> None:
    log = StreamLog()
    symbols: list[int] = []
    published: list[tuple[np.ndarray, bool]] = []
    for number, (changed, makes_progress, open_symbols) in enumerate(steps):
        symbols += changed
        so_far = changes(symbols)
        published += [(so_far[index : index + 1], False) for index in range(len(symbols) - len(changed), len(symbols))]
        if makes_progress:
            held = [one for one in sorted(open_symbols) if one in symbols]
            latest = [so_far[len(symbols) - 1 - symbols[::-1].index(one)] for one in held]
            made = [marked(one, 10.0 + number, progress(number).current_time) for one in latest]
            marks = np.concatenate(made) if made else np.zeros(0, dtype=POSITION)
            log.add(number, progress(number), so_far, marks)
            published += [(one, True) for one in made]
    log = data.draw(st.sampled_from([lambda one: one, read_again, read_in_parts]))(log)
    first = data.draw(st.integers(0, len(published)))
    stop = data.draw(st.integers(first, len(published)))
    found, is_mark = log.positions(changes(symbols), first, stop)
    assert is_mark.tolist() == [mark for _, mark in published[first:stop]]
    expected = [one for one, _ in published[first:stop]]
    assert found.tolist() == [one[0].tolist() for one in expected]
    numbers = [number for number, (_, makes_progress, _) in enumerate(steps) if makes_progress]
    assert log.progress("b", 0, log.progress_made) == [progress(number) for number in numbers]
    assert log.bars == (numbers[-1] if numbers else -1)


def test_a_log_continues_after_it_was_read_again() -> None:
    """As after a checkpoint: the latest change of each symbol is found again."""
    so_far = changes([0, 1, 0])
    log = StreamLog()
    log.add(1, progress(1), so_far[:2], marked(so_far[1], 5.0, progress(1).current_time))
    again = from_bytes(to_bytes(log))
    again.add(2, progress(2), so_far, marked(so_far[1], 6.0, progress(2).current_time))
    found, is_mark = again.positions(so_far, 0, 5)
    assert is_mark.tolist() == [False, False, True, False, True]
    assert found["position_id"].tolist() == [1, 2, 2, 3, 2]
    assert found["current_price"][is_mark].tolist() == [5.0, 6.0]


def test_its_options_are_kept() -> None:
    again = from_bytes(to_bytes(StreamLog(orders=False, positions=True)))
    assert (again.has_orders, again.has_positions) == (False, True)


def test_bytes_that_are_no_log_are_refused() -> None:
    with pytest.raises(ValueError, match="no stream log"):
        from_bytes(b"\x81")


def test_progress_has_room_for_half_the_bytes_and_then_as_the_backtest_advances(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream_log, "MAX_BYTES", 20 * stream_log.PROGRESS.itemsize)
    log, made = StreamLog(), []
    for percent in range(101):
        if log.has_room(percent / 100):
            log.add(percent, progress(percent), changes([]), changes([]))
            made.append(percent)
    assert made[:11] == list(range(11)), "half of the room is taken at once"
    assert 18 <= len(made) <= 21
    assert max(np.diff(made[11:])) <= 11, "and the rest lasts to the end"
    assert made[-1] >= 90
