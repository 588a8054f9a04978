"""Price replays of ticks publish each tick once and in order, at a rate, in real time, or by credit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.tick_bars import bars_of_ticks
from backtestr_engine.data.ticks import Ticks
from backtestr_engine.worker import price_replays
from backtestr_engine.worker.price_replays import ReplayBars, Sent, read_replay_bars
from backtestr_protocol.errors import BacktestrError, DataError, InvalidConfiguration, ValidationError
from backtestr_protocol.worker_channel import Control, Credit, Finished, OpenReplay, Published
from support.engine.batches import messages, no_replays
from support.engine.random_ticks import START, random_quotes, random_trades

QUOTES = random_quotes(700, step_us=2_000_000)


def settings_of(**changes: Any) -> OpenReplay:
    rate: dict[str, Any] = {"bars_per_second": None, "speed": None, "allowed": None}
    rate |= {} if changes.keys() & rate.keys() else {"bars_per_second": 10.0}
    asked = {"replay_id": "r", "symbol": "X", "timeframe": "tick", "start_time": None, "end_time": None}
    return OpenReplay(**{**asked, **rate, **changes})


def prices_of(sent: list[Sent]) -> list[tuple[float, float]]:
    """Return bid and ask of the published prices."""
    assert {note.topic for note, _ in sent if isinstance(note, Published)} <= {"prices.X.tick"}
    return [(one["data"]["bid"], one["data"]["ask"]) for one in messages(sent)]


def quotes_from(position: int) -> list[tuple[float, float]]:
    assert QUOTES.bid is not None
    assert QUOTES.ask is not None
    return list(zip(QUOTES.bid[position:].tolist(), QUOTES.ask[position:].tolist(), strict=True))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([{"bars_per_second": 25.0}, {"speed": 3.0}, {"speed": 500.0}, {"allowed": 10}]),
    st.integers(0, 699),
    st.lists(st.tuples(st.sampled_from(["wait", "pause", "resume", "credit"]), st.floats(0.0, 9.0)), max_size=30),
)
def test_each_tick_is_sent_once_in_order(
    rate: dict[str, float], position: int, actions: list[tuple[str, float]]
) -> None:
    replays, now = no_replays(), 50.0
    replays.open(ReplayBars(settings_of(**rate, position=position), QUOTES, 1))
    sent = replays.due(now)
    for what, seconds in actions:
        now += seconds
        if what == "credit" and "allowed" in rate:
            replays.take(Credit(replay_id="r", allowed=int(seconds * 100)), now)
        elif what in ("pause", "resume"):
            sent += replays.take(Control(task_id="r", action=what), now)  # type: ignore[arg-type]
        sent += replays.due(now)
        replays.check_invariants()
    sent += replays.take(Control(task_id="r", action="resume"), now)
    replays.take(Credit(replay_id="r", allowed=700), now)
    while (deadline := replays.next_deadline(now)) is not None:
        now = max(now, deadline) + 30.0
        sent += replays.due(now)
    assert prices_of(sent) == quotes_from(position)
    assert [note.outcome for note, _ in sent if isinstance(note, Finished)] == ["completed"]


def test_real_time_is_that_of_the_ticks() -> None:
    times = START + np.array([0, 0, 2, 10, 4000]) * 1_000_000
    ticks = Ticks("X", times, last=np.arange(1.0, 6.0))
    replays = no_replays()
    replays.open(ReplayBars(settings_of(speed=2.0), ticks, 1))
    assert [len(messages(replays.due(at))) for at in (0.0, 0.5, 0.9, 1.0, 4.9, 5.0, 34.9, 35.1)] == [
        *(1, 1, 0, 1, 0, 1, 0, 1)
    ]


@pytest.fixture
def stored(catalog: Catalog) -> Catalog:
    catalog.write_ticks(QUOTES)
    return catalog


def test_the_ticks_of_a_range_are_read_with_all_of_one_millisecond(stored: Catalog) -> None:
    times = QUOTES.timestamp // 1000
    first, last = int(times[10]), int(times[400])
    found = read_replay_bars(stored, settings_of(start_time=first, end_time=last + 1))
    expected = int(((times >= first) & (times <= last)).sum())
    assert (found.opened.bars, found.opened.start_time, found.opened.end_time) == (expected, first, last)
    again = read_replay_bars(
        stored, settings_of(start_time=first, end_time=last + 1, checksum=found.checksum, position=3)
    )
    assert again.checksum == found.checksum


@pytest.mark.parametrize("other", [random_quotes(700, seed=2, step_us=2_000_000), random_trades(700)])
def test_ticks_imported_again_are_refused_to_a_replay_that_another_worker_began(stored: Catalog, other: Ticks) -> None:
    checksum = read_replay_bars(stored, settings_of()).checksum
    stored.write_ticks(other)
    with pytest.raises(DataError, match="the stored ticks of X tick changed while they were replayed"):
        read_replay_bars(stored, settings_of(checksum=checksum))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"speed": 1e-9}, ValidationError, "speed must be from 0.001 to "),
        ({"speed": float("nan")}, ValidationError, "speed must be"),
        ({"bars_per_second": 10_001.0}, ValidationError, "barsPerSecond must be from 0.001 to 10000"),
        ({"price": "bid"}, InvalidConfiguration, "ticks are replayed with every price"),
        ({"symbol": "Y"}, DataError, "unknown symbol 'Y'"),
        ({"start_time": 0, "end_time": 1}, DataError, "no ticks of X from 1970-01-01 before .*; there are ticks from"),
    ],
)
def test_a_refused_replay_has_its_reason(
    stored: Catalog, changes: dict[str, Any], error: type[BacktestrError], message: str
) -> None:
    with pytest.raises(error, match=message):
        read_replay_bars(stored, settings_of(**changes))


def test_the_ticks_of_a_replay_are_limited(stored: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(price_replays, "MAX_BARS", 699)
    with pytest.raises(InvalidConfiguration, match="up to 699 ticks, and the range has 700"):
        read_replay_bars(stored, settings_of())


def test_bars_of_ticks_are_replayed_as_bars(stored: Catalog) -> None:
    found = read_replay_bars(stored, settings_of(timeframe="1m", price="ask"))
    asks = bars_of_ticks("X", "1m", "ask", [QUOTES])
    assert not isinstance(found.bars, Ticks)
    assert found.bars.close.tolist() == asks.close.tolist()
