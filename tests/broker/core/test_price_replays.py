"""Every state of a price replay meets every event, and its credit only grows."""

from __future__ import annotations

from itertools import product
from typing import Any, get_args

import pytest

from backtestr_broker.core.price_replays import (
    FINAL,
    TRANSITIONS,
    WINDOW,
    PriceReplay,
    PriceReplayEvent,
    PriceReplays,
)
from backtestr_protocol.errors import StateConflict
from backtestr_protocol.price_messages import ReplayState, StartPriceReplay


@pytest.mark.parametrize(
    ("state", "event"), [*product(["starting", *get_args(ReplayState)], get_args(PriceReplayEvent))]
)
def test_every_event_in_every_state_is_in_the_table_or_is_refused(state: Any, event: Any) -> None:
    machine = PriceReplays()
    replay = PriceReplay("r1", StartPriceReplay(symbol="S", timeframe="1m", speed=1.0), ("ann", "1"))
    machine.add(replay)
    replay.status = state
    if (state, event) in TRANSITIONS:
        machine.change(replay, event)
        assert replay.status == TRANSITIONS[state, event]
    else:
        with pytest.raises(StateConflict, match=f"a replay that is {state} cannot be {event}"):
            machine.change(replay, event)
        assert replay.status == state


def test_a_final_state_is_not_left() -> None:
    assert not [state for state, _ in TRANSITIONS if state in FINAL]


def test_an_older_acknowledgement_does_not_lower_the_credit() -> None:
    replay = PriceReplay("r1", StartPriceReplay(symbol="S", timeframe="1m", as_fast_as_read=True), ("ann", "1"))
    replay.position = WINDOW
    assert replay.acknowledge(5_000, WINDOW) == replay.allowed == WINDOW + 5_000
    assert replay.acknowledge(100, WINDOW) is None
    assert (replay.acknowledged, replay.allowed) == (5_000, WINDOW + 5_000)
