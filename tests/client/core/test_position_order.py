"""Positions come once each, whatever the broker's restarts repeat."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backtestr.core.position_order import PositionOrder
from backtestr_protocol.stream_messages import PositionUpdate


def update(number: int, timestamp: int, *, mark: bool = False) -> PositionUpdate:
    return PositionUpdate(
        position_id=str(number),
        backtest_id="b",
        symbol="SYNTH",
        quantity=1.0,
        average_price=10.0,
        current_price=10.0 + timestamp,
        unrealized_pnl=float(timestamp),
        realized_pnl=0.0,
        timestamp=timestamp,
        mark=mark,
    )


# Steps between changes of 0: several changes on one bar.
changes = st.lists(st.integers(0, 2), min_size=1, max_size=30).map(
    lambda steps: [update(number, sum(steps[: number + 1])) for number in range(len(steps))]
)


def with_marks(run: list[PositionUpdate], after: set[int]) -> list[PositionUpdate]:
    """Return a run whose changes at the indices `after` are each followed by a mark at the same bar."""
    return [
        one
        for index, change in enumerate(run)
        for one in (change, *([update(index, change.timestamp, mark=True)] if index in after else []))
    ]


@given(run=changes, marks=st.lists(st.sets(st.integers(0, 29)), min_size=1, max_size=4), data=st.data())
def test_every_change_comes_once_and_in_order_and_no_mark_goes_back(
    run: list[PositionUpdate], marks: list[set[int]], data: st.DataObject
) -> None:
    order = PositionOrder()
    read: list[PositionUpdate] = []
    for attempt, after in enumerate(marks):
        if attempt:
            order.restarted()
        sent = with_marks(run, after)
        is_last = attempt == len(marks) - 1
        stop = len(sent) if is_last else data.draw(st.integers(0, len(sent)))
        read += [one for one in sent[:stop] if order.is_new(one)]
    assert [one for one in read if not one.mark] == run
    assert [one.timestamp for one in read] == sorted(one.timestamp for one in read)


def test_a_change_that_was_lost_does_not_hold_back_those_after_it() -> None:
    order = PositionOrder()
    assert order.is_new(update(1, 5))
    order.restarted()
    assert [order.is_new(one) for one in (update(0, 4), update(2, 6), update(3, 6))] == [False, True, True]
