"""Records: the last state of every order, and texts for every code."""

from __future__ import annotations

import numpy as np
import pytest

from backtestr_engine.simulation.records import (
    CANCELLED,
    CUT,
    FEE_TOO_HIGH,
    FILLED,
    NO_CASH,
    NO_PRICE,
    ORDER,
    PENDING,
    POSITION,
    REASONS,
    REJECTED,
    STATUSES,
    TOO_SMALL,
    TRADE,
    WRITTEN_POSITION,
    WRITTEN_TRADE,
    final_states,
    rejections,
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


@pytest.mark.parametrize(("kind", "written"), [(POSITION, WRITTEN_POSITION), (TRADE, WRITTEN_TRADE)])
def test_a_record_as_the_loops_write_it_has_no_byte_that_is_no_field(kind: np.dtype, written: np.dtype) -> None:
    assert written.fields is not None
    assert kind.fields is not None
    assert {name: written.fields[name] for name in kind.names or ()} == dict(kind.fields)
    assert sum(field.itemsize for field, *_ in written.fields.values()) == written.itemsize == kind.itemsize


def test_an_order_has_no_byte_that_is_no_field() -> None:
    assert sum(field.itemsize for field, *_ in (ORDER.fields or {}).values()) == ORDER.itemsize


def test_rejections_are_counted_by_reason_the_most_frequent_first() -> None:
    records = np.zeros(6, dtype=ORDER)
    records["status"] = [REJECTED, FILLED, REJECTED, REJECTED, PENDING, REJECTED]
    records["reason"] = [TOO_SMALL, CUT, NO_CASH, TOO_SMALL, NO_CASH, NO_PRICE]

    assert list(rejections(records).items()) == [("too small", 2), ("not enough cash", 1), ("no price to wait for", 1)]
    assert rejections(records[:0]) == {}
