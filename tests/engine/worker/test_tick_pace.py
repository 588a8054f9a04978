"""The pace of ticks: each at its own moment, no faster than a topic is read, and none lost by a pause."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_engine.worker import tick_pace
from backtestr_engine.worker.tick_pace import LONGEST_SILENCE_US, TickPace
from backtestr_protocol.price_messages import MAX_RATE

SECOND = 1_000_000


def moments(pace: TickPace, count: int, now: float) -> list[float]:
    """Return when each of the next `count` ticks is due, for one who sleeps until the next is."""
    found: list[float] = []
    while len(found) < count:
        due = pace.due(now)
        assert due > 0, "a caller that slept until a tick is due finds it"
        found += [now] * due
        pace.take(due)
        now = pace.deadline(now)
    return found


def test_ticks_are_due_at_their_own_times() -> None:
    times = np.array([0, 0, 500_000, SECOND, 61 * SECOND]) + 1_577_836_800 * SECOND
    found = moments(TickPace(times, 0, 2.0), 5, 100.0)
    assert found == pytest.approx([100.0, 100.0, 100.25, 100.5, 130.5], abs=2 / MAX_RATE)
    assert moments(TickPace(times, 2, 2.0), 3, 100.0) == pytest.approx([100.0, 100.25, 130.25], abs=2 / MAX_RATE)


def test_a_silence_lasts_a_minute_at_most() -> None:
    times = np.array([0, 3 * 86_400 * SECOND, 3 * 86_400 * SECOND + SECOND])
    assert moments(TickPace(times, 0, 60.0), 3, 0.0) == pytest.approx([0.0, 1.0, 1.0 + 1 / 60])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([0, 0, 1, 30, 1_000, SECOND, 90 * SECOND]), min_size=1, max_size=80),
    st.floats(0.5, 1e6),
    st.integers(2, 30),
    st.data(),
)
def test_moments_follow_from_the_times_whatever_the_window(
    steps: list[int], speed: float, window: int, data: st.DataObject
) -> None:
    times = np.cumsum(steps)
    position = data.draw(st.integers(0, len(steps) - 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tick_pace, "_WINDOW", window)
        found = moments(TickPace(times, position, speed), len(steps) - position, 5.0)
    expected: list[float] = []
    played = 0
    for row, step in enumerate(steps[position:]):
        played += min(step, LONGEST_SILENCE_US) if row else 0
        earliest = 5.0 + played / 1e6 / speed
        expected.append(max(earliest, expected[-1] + 1 / MAX_RATE) if expected else earliest)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-8)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.0, 3.0), min_size=1, max_size=8))
def test_a_pause_delays_every_tick_by_as_long(pauses: list[float]) -> None:
    times = np.arange(0, 60 * SECOND, 700_000)
    pace, now, paused = TickPace(times, 0, 1.0), 10.0, 0.0
    taken = 0
    for pause in pauses:
        taken += pace.due(now)
        pace.take(pace.due(now))
        now += 0.9
        taken += pace.due(now)
        pace.take(pace.due(now))
        pace.halt(now)
        now += pause
        paused += pause
    pace.due(now)
    assert pace.deadline(now) == pytest.approx(10.0 + paused + 0.7 * taken)


def test_a_late_caller_finds_all_that_fell_due() -> None:
    pace = TickPace(np.arange(100) * SECOND, 0, 1.0)
    assert pace.due(0.0) == 1
    pace.take(1)
    assert pace.due(50.5) == 50
    pace.take(50)
    assert pace.deadline(50.5) == pytest.approx(51.0)
    pace.halt()
    assert pace.due(90.0) == 1, "without a time a tick is due at once"
