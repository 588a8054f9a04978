"""Price replays publish every bar once and in order: none early, none beyond the credit, none while paused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_engine.data.bars import Bars
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.worker import price_replays
from backtestr_engine.worker.price_replays import MOMENT, ReplayBars, Sent, read_replay_bars
from backtestr_protocol.errors import BacktestrError, DataError, InvalidConfiguration, ValidationError
from backtestr_protocol.worker_channel import (
    Control,
    Credit,
    Finished,
    OpenReplay,
    Paused,
    Published,
    Resumed,
)
from support.engine.batches import no_replays

BARS = synthetic_bars("1m", 700)


def settings_of(**changes: Any) -> OpenReplay:
    rate: dict[str, Any] = {"bars_per_second": None, "speed": None, "allowed": None}
    rate |= {} if changes.keys() & rate.keys() else {"bars_per_second": 10.0}
    asked = {"replay_id": "r", "symbol": "SYNTH", "timeframe": "1m", "start_time": None, "end_time": None}
    return OpenReplay(**{**asked, **rate, **changes})


def replay_of(bars: Bars = BARS, **changes: Any) -> ReplayBars:
    return ReplayBars(settings_of(**changes), bars, 1)


def times_of(sent: list[Sent]) -> list[int]:
    """Return the times of the published prices in milliseconds."""
    found = []
    for message, payload in sent:
        if isinstance(message, Published):
            data = msgpack.unpackb(payload[0])
            messages = data["data"]["messages"] if data["type"] == "Batch" else [data]
            assert len(messages) == message.count
            assert message.replay is not None
            assert {one["data"]["replayId"] for one in messages} == {message.replay.replay_id}
            times = [one["data"]["timestamp"] for one in messages]
            assert message.replay.current_time == times[-1]
            found += times
    return found


def ends(sent: list[Sent]) -> list[str]:
    return [message.outcome for message, _ in sent if isinstance(message, Finished)]


actions = st.lists(
    st.tuples(st.sampled_from(["wait", "wait", "pause", "resume", "publish"]), st.floats(0.0, 5.0)), max_size=40
)


@settings(max_examples=100, deadline=None)
@given(actions, st.floats(0.5, 500.0), st.integers(0, 699))
def test_a_replay_with_a_rate(actions: list[tuple[str, float]], rate: float, position: int) -> None:
    replays, now, paused = no_replays(), 50.0, False
    replays.open(replay_of(bars_per_second=rate, position=position))
    sent = replays.due(now)
    running = 0.0  # seconds that it was not paused
    for what, seconds in actions:
        if what == "wait":
            now += seconds
            running += 0.0 if paused else seconds
            continue
        if what != "publish":
            paused = what == "pause"
            sent += replays.take(Control(task_id="r", action="pause" if paused else "resume"), now)
        before = len(times_of(sent))
        sent += replays.due(now)
        if paused:
            assert len(times_of(sent)) == before
        else:
            due = math.floor(running * rate + 1 + 1e-6)
            assert len(times_of(sent)) <= min(700 - position, due)
        replays.check_invariants()
    times = (BARS.timestamp // 1000).tolist()
    assert times_of(sent) == times[position : position + len(times_of(sent))]
    sent += replays.take(Control(task_id="r", action="resume"), now)
    sent += replays.due(now) + replays.due(now + 1_500.0)
    assert times_of(sent) == times[position:]
    assert ends(sent) == ["completed"]
    assert replays.next_deadline(now) is None


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 700), max_size=10), st.integers(1, 100))
def test_a_replay_with_credit_publishes_as_many_bars_as_the_credit_allows(credits: list[int], first: int) -> None:
    replays = no_replays()
    replays.open(replay_of(allowed=first))
    sent, allowed = replays.due(1.0), first
    for credit in credits:
        replays.take(Credit(replay_id="r", allowed=credit), 1.0)
        allowed = max(allowed, credit)
        sent += replays.due(1.0)
        assert len(times_of(sent)) == min(700, allowed)
        assert replays.next_deadline(1.0) is None, "nothing is due before there is more credit"
    assert ends(sent) == (["completed"] if allowed >= 700 else [])


def test_each_replay_has_its_own_time() -> None:
    replays = no_replays()
    replays.open(replay_of(replay_id="slow", bars_per_second=1.0))
    replays.due(0.0)
    replays.open(replay_of(replay_id="fast", bars_per_second=100.0))
    sent = replays.due(0.5) + replays.due(1.0)
    counts = {name: 0 for name in ("slow", "fast")}
    for message, _ in sent:
        assert isinstance(message, Published)
        assert message.replay is not None
        counts[message.replay.replay_id] += message.count
    assert counts == {"slow": 1, "fast": 51}
    assert ends(replays.take(Control(task_id="slow", action="stop"), 1.0)) == ["stopped"]
    assert replays.replay_ids == ["fast"]


def test_bars_that_fell_due_meanwhile_are_published_in_batches() -> None:
    replays = no_replays()
    replays.open(replay_of(synthetic_bars("1m", 1500), bars_per_second=200.0))
    replays.due(0.0)
    sent = replays.due(6.5)
    assert [message.count for message, _ in sent if isinstance(message, Published)] == [1000, 300]


def test_a_replay_that_is_far_behind_does_not_delay_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(price_replays, "MAX_AT_ONCE", 10)
    replays = no_replays()
    replays.open(replay_of(allowed=700))
    replays.open(replay_of(replay_id="other", allowed=700))
    first = replays.due(0.0)
    assert [message.replay.replay_id for message, _ in first if isinstance(message, Published) and message.replay] == [
        "r",
        "other",
    ]
    assert replays.next_deadline(0.0) == 0.0, "it has further bars"


def test_a_fast_replay_publishes_several_bars_at_once() -> None:
    replays = no_replays()
    replays.open(replay_of(bars_per_second=10_000.0))
    replays.due(0.0)
    assert replays.next_deadline(0.0) == MOMENT


def test_every_pause_and_resume_is_confirmed() -> None:
    replays = no_replays()
    replays.open(replay_of(paused=True))
    assert replays.due(9.0) == []
    assert replays.next_deadline(9.0) is None
    for action, confirmed in (("resume", Resumed), ("pause", Paused), ("pause", Paused), ("resume", Resumed)):
        [(message, _)] = replays.take(Control(task_id="r", action=action), 9.0)  # type: ignore[arg-type]
        assert message == confirmed(task_id="r")
    assert replays.take(Control(task_id="another", action="stop"), 9.0) == []
    assert replays.take(Credit(replay_id="another", allowed=1), 9.0) == []


def test_a_replay_of_a_worker_lost_after_its_last_bar_is_completed_by_another() -> None:
    replays = no_replays()
    replays.open(replay_of(position=700, paused=True))
    assert replays.due(0.0) == []
    replays.take(Control(task_id="r", action="resume"), 0.0)
    assert replays.next_deadline(0.0) == 0.0
    assert ends(replays.due(0.0)) == ["completed"]


# --- reading ---


@pytest.fixture
def stored(catalog: Catalog) -> Catalog:
    catalog.write(BARS)
    return catalog


def test_replay_bars_are_those_of_the_range_in_memory_of_their_own(stored: Catalog) -> None:
    first, last = int(BARS.timestamp[10]) // 1000, int(BARS.timestamp[19]) // 1000
    found = read_replay_bars(stored, settings_of(start_time=first, end_time=last + 1))
    assert msgspec.structs.replace(found.opened, checksum=0) == msgspec.convert(
        {"bars": 10, "startTime": first, "endTime": last, "checksum": 0}, type(found.opened)
    )
    assert isinstance(found.bars, Bars)
    assert np.array_equal(found.bars.close, BARS.close[10:20])
    assert found.bars.close.base is None or len(found.bars.close.base) == 10
    again = settings_of(start_time=first, end_time=last + 1, checksum=found.checksum, position=3)
    assert read_replay_bars(stored, again).checksum == found.checksum


def test_bars_imported_again_are_refused_to_a_replay_that_another_worker_began(stored: Catalog) -> None:
    checksum = read_replay_bars(stored, settings_of()).checksum
    stored.write(synthetic_bars("1m", 701))
    with pytest.raises(DataError, match="changed while they were replayed"):
        read_replay_bars(stored, settings_of(checksum=checksum))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"bars_per_second": 0.0}, ValidationError, "barsPerSecond must be from 0.001 to 10000, not 0.0"),
        ({"bars_per_second": 5e-324}, ValidationError, "barsPerSecond must be from 0.001"),
        ({"speed": 5e-324}, ValidationError, "speed must be from 0.001"),
        ({"bars_per_second": math.nan}, ValidationError, "barsPerSecond must be"),
        ({"bars_per_second": math.inf}, ValidationError, "barsPerSecond must be"),
        ({"bars_per_second": 10_001.0}, ValidationError, "asFastAsRead has no bound"),
        ({"speed": -1.0}, ValidationError, "speed must be from 0.001 to 600000, not -1.0"),
        ({"speed": 1e9}, ValidationError, "speed must be from 0.001 to 600000"),
        ({"start_time": 9, "end_time": 9}, InvalidConfiguration, "is not before endTime"),
        ({"symbol": "SYNHT"}, DataError, "did you mean 'SYNTH'"),
        ({"timeframe": "2x"}, ValidationError, "unknown timeframe '2x'"),
        ({"start_time": 0, "end_time": 1}, DataError, "there are bars from"),
    ],
)
def test_a_refused_replay_has_its_reason(
    stored: Catalog, changes: dict[str, Any], error: type[BacktestrError], message: str
) -> None:
    with pytest.raises(error, match=message):
        read_replay_bars(stored, settings_of(**changes))


def test_the_bars_of_a_replay_are_limited(stored: Catalog, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(price_replays, "MAX_BARS", 699)
    with pytest.raises(InvalidConfiguration, match="up to 699 bars, and the range has 700"):
        read_replay_bars(stored, settings_of())


def test_a_speed_of_one_is_a_bar_per_timeframe() -> None:
    replays = no_replays()
    replays.open(replay_of(speed=60.0))
    assert len(times_of(replays.due(0.0))) == 1
    assert replays.next_deadline(0.0) == 1.0
