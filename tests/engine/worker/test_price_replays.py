"""Replays in a worker: every bar once and in order, never early, never beyond the credit, and nothing while paused."""

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
from backtestr_engine.worker import price_replays as replay_module
from backtestr_engine.worker.price_replays import MAX_RATE, MOMENT, Sent, Tape, read_tape
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


def order(**changes: Any) -> OpenReplay:
    rate: dict[str, Any] = {"bars_per_second": None, "speed": None, "allowed": None}
    rate |= {} if changes.keys() & rate.keys() else {"bars_per_second": 10.0}
    asked = {"replay_id": "r", "symbol": "SYNTH", "timeframe": "1m", "start_time": None, "end_time": None}
    return OpenReplay(**{**asked, **rate, **changes})


def tape(bars: Bars = BARS, **changes: Any) -> Tape:
    return Tape(order(**changes), bars, 1)


def heard(sent: list[Sent]) -> list[int]:
    """The times of the prices that were published, in milliseconds."""
    found = []
    for note, payload in sent:
        if isinstance(note, Published):
            data = msgpack.unpackb(payload[0])
            messages = data["data"]["messages"] if data["type"] == "Batch" else [data]
            assert len(messages) == note.count
            assert note.replay is not None
            assert {one["data"]["replayId"] for one in messages} == {note.replay.replay_id}
            times = [one["data"]["timestamp"] for one in messages]
            assert note.replay.current_time == times[-1]
            found += times
    return found


def ends(sent: list[Sent]) -> list[str]:
    return [note.outcome for note, _ in sent if isinstance(note, Finished)]


doings = st.lists(
    st.tuples(st.sampled_from(["wait", "wait", "pause", "resume", "look"]), st.floats(0.0, 5.0)), max_size=40
)


@settings(max_examples=100, deadline=None)
@given(doings, st.floats(0.5, 500.0), st.integers(0, 699))
def test_a_replay_with_a_rate(doings: list[tuple[str, float]], rate: float, position: int) -> None:
    replays, now, paused = no_replays(), 50.0, False
    replays.open(tape(bars_per_second=rate, position=position))
    sent = replays.due(now)
    played = 0.0  # seconds that it was not paused
    for what, seconds in doings:
        if what == "wait":
            now += seconds
            played += 0.0 if paused else seconds
            continue
        if what != "look":
            paused = what == "pause"
            sent += replays.take(Control(task_id="r", action="pause" if paused else "resume"), now)
        before = len(heard(sent))
        sent += replays.due(now)
        if paused:
            assert len(heard(sent)) == before
        else:
            due = math.floor(played * rate + 1 + 1e-6)
            assert len(heard(sent)) <= min(700 - position, due)
        replays.check_invariants()
    times = (BARS.timestamp // 1000).tolist()
    assert heard(sent) == times[position : position + len(heard(sent))]
    sent += replays.take(Control(task_id="r", action="resume"), now)
    sent += replays.due(now) + replays.due(now + 1_500.0)
    assert heard(sent) == times[position:]
    assert ends(sent) == ["completed"]
    assert replays.next_deadline(now) is None


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 700), max_size=10), st.integers(1, 100))
def test_a_replay_with_credit_goes_as_far_as_it_has(credits: list[int], first: int) -> None:
    replays = no_replays()
    replays.open(tape(allowed=first))
    sent, allowed = replays.due(1.0), first
    for credit in credits:
        replays.take(Credit(replay_id="r", allowed=credit), 1.0)
        allowed = max(allowed, credit)
        sent += replays.due(1.0)
        assert len(heard(sent)) == min(700, allowed)
        assert replays.next_deadline(1.0) is None, "it has nothing to do before there is more"
    assert ends(sent) == (["completed"] if allowed >= 700 else [])


def test_several_replays_have_their_own_time() -> None:
    replays = no_replays()
    replays.open(tape(replay_id="slow", bars_per_second=1.0))
    replays.due(0.0)
    replays.open(tape(replay_id="quick", bars_per_second=100.0))
    sent = replays.due(0.5) + replays.due(1.0)
    counts = {name: 0 for name in ("slow", "quick")}
    for note, _ in sent:
        assert isinstance(note, Published)
        assert note.replay is not None
        counts[note.replay.replay_id] += note.count
    assert counts == {"slow": 1, "quick": 51}
    assert ends(replays.take(Control(task_id="slow", action="stop"), 1.0)) == ["stopped"]
    assert replays.replay_ids == ["quick"]


def test_who_was_away_finds_all_that_fell_due_in_batches() -> None:
    replays = no_replays()
    replays.open(tape(synthetic_bars("1m", 1500), bars_per_second=200.0))
    replays.due(0.0)
    sent = replays.due(6.5)
    assert [note.count for note, _ in sent if isinstance(note, Published)] == [1000, 300]


def test_one_that_is_far_behind_leaves_others_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_module, "MAX_AT_ONCE", 10)
    replays = no_replays()
    replays.open(tape(allowed=700))
    replays.open(tape(replay_id="other", allowed=700))
    first = replays.due(0.0)
    assert [note.replay.replay_id for note, _ in first if isinstance(note, Published) and note.replay] == ["r", "other"]
    assert replays.next_deadline(0.0) == 0.0, "it is not through"


def test_a_quick_replay_is_not_looked_at_for_every_bar() -> None:
    replays = no_replays()
    replays.open(tape(bars_per_second=MAX_RATE))
    replays.due(0.0)
    assert replays.next_deadline(0.0) == MOMENT


def test_pause_resume_and_stop_are_said_each_time() -> None:
    replays = no_replays()
    replays.open(tape(paused=True))
    assert replays.due(9.0) == []
    assert replays.next_deadline(9.0) is None
    for action, said in (("resume", Resumed), ("pause", Paused), ("pause", Paused), ("resume", Resumed)):
        [(note, _)] = replays.take(Control(task_id="r", action=action), 9.0)  # type: ignore[arg-type]
        assert note == said(task_id="r")
    assert replays.take(Control(task_id="another", action="stop"), 9.0) == []
    assert replays.take(Credit(replay_id="another", allowed=1), 9.0) == []


def test_one_that_died_with_its_last_bar_is_completed_elsewhere() -> None:
    replays = no_replays()
    replays.open(tape(position=700, paused=True))
    assert replays.due(0.0) == []
    replays.take(Control(task_id="r", action="resume"), 0.0)
    assert replays.next_deadline(0.0) == 0.0
    assert ends(replays.due(0.0)) == ["completed"]


# --- reading ---


@pytest.fixture
def stored(catalog: Catalog) -> Catalog:
    catalog.write(BARS)
    return catalog


def test_a_tape_has_the_bars_of_the_range_in_memory_of_its_own(stored: Catalog) -> None:
    first, last = int(BARS.timestamp[10]) // 1000, int(BARS.timestamp[19]) // 1000
    found = read_tape(stored, order(start_time=first, end_time=last + 1))
    assert msgspec.structs.replace(found.opened, checksum=0) == msgspec.convert(
        {"bars": 10, "startTime": first, "endTime": last, "checksum": 0}, type(found.opened)
    )
    assert np.array_equal(found.bars.close, BARS.close[10:20])
    assert found.bars.close.base is None or len(found.bars.close.base) == 10
    again = order(start_time=first, end_time=last + 1, checksum=found.checksum, position=3)
    assert read_tape(stored, again).checksum == found.checksum


def test_bars_that_were_imported_anew_are_refused_to_a_replay_that_moves(stored: Catalog) -> None:
    checksum = read_tape(stored, order()).checksum
    stored.write(synthetic_bars("1m", 701))
    with pytest.raises(DataError, match="changed while they were replayed"):
        read_tape(stored, order(checksum=checksum))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"bars_per_second": 0.0}, ValidationError, "barsPerSecond must be above 0 and up to 10000, not 0.0"),
        ({"bars_per_second": math.nan}, ValidationError, "barsPerSecond must be"),
        ({"bars_per_second": math.inf}, ValidationError, "barsPerSecond must be"),
        ({"bars_per_second": 10_001.0}, ValidationError, "asFastAsRead has no bound"),
        ({"speed": -1.0}, ValidationError, "speed must be above 0 and up to 600000, not -1.0"),
        ({"speed": 1e9}, ValidationError, "speed must be above 0 and up to 600000"),
        ({"start_time": 9, "end_time": 9}, InvalidConfiguration, "is not before endTime"),
        ({"symbol": "SYNHT"}, DataError, "did you mean 'SYNTH'"),
        ({"timeframe": "2m"}, ValidationError, "unknown timeframe '2m'"),
        ({"start_time": 0, "end_time": 1}, DataError, "there are bars from"),
    ],
)
def test_what_cannot_be_replayed_says_why(
    stored: Catalog, changes: dict[str, Any], error: type[BacktestrError], message: str
) -> None:
    with pytest.raises(error, match=message):
        read_tape(stored, order(**changes))


def test_a_replay_has_so_many_bars_at_most(stored: Catalog, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(replay_module, "MAX_BARS", 699)
    with pytest.raises(InvalidConfiguration, match="up to 699 bars, and the range has 700"):
        read_tape(stored, order())


def test_a_speed_of_one_is_a_bar_per_timeframe() -> None:
    replays = no_replays()
    replays.open(tape(speed=60.0))
    assert len(heard(replays.due(0.0))) == 1
    assert replays.next_deadline(0.0) == 1.0
