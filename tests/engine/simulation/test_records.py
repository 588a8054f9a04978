"""Records: the last state of every order, and texts for every code."""

from __future__ import annotations

import numpy as np

from backtestr_engine.simulation.records import (
    CANCELLED,
    FEE_TOO_HIGH,
    FILLED,
    ORDER,
    PENDING,
    REASONS,
    STATUSES,
    final_states,
)


def orders(*states: tuple[int, int]) -> np.ndarray:
    records = np.zeros(len(states), dtype=ORDER)
    records["order_id"], records["status"] = zip(*states, strict=True)
    return records


def test_the_last_record_of_an_order_is_its_state() -> None:
    final = final_states(orders((1, PENDING), (2, FILLED), (3, PENDING), (1, CANCELLED), (3, FILLED)))
    assert final[["order_id", "status"]].tolist() == [(1, CANCELLED), (2, FILLED), (3, FILLED)]


def test_orders_that_were_never_pending_are_their_own_states() -> None:
    records = orders((1, FILLED), (2, FILLED))
    assert final_states(records) is records
    assert len(final_states(np.zeros(0, dtype=ORDER))) == 0


def test_every_code_has_a_text() -> None:
    assert len(STATUSES) == CANCELLED + 1
    assert len(REASONS) == FEE_TOO_HIGH + 1
    assert len(set(REASONS)) == len(REASONS)
