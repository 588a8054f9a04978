"""Messages are the same whether they are made alone or together, and marks stand between changes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from backtestr_engine.publishing.record_messages import (
    changes_and_marks,
    order_messages,
    position_messages,
    progress_messages,
)
from backtestr_engine.simulation.records import ORDER, POSITION
from support.engine.examples import unpacked


def positions(count: int) -> np.ndarray:
    made = np.zeros(count, dtype=POSITION)
    made["position_id"] = np.arange(count) * 7
    made["quantity"] = 1.5
    made["symbol"] = np.arange(count) % 2
    return made


@given(st.lists(st.booleans(), max_size=20))
def test_changes_and_marks_follow_each_other_as_their_records_do(marks: list[bool]) -> None:
    is_mark, records = np.array(marks, dtype=bool), positions(len(marks))
    found = changes_and_marks("b", ("A", "B"), records, is_mark)
    alone = [
        position_messages("b", ("A", "B"), records[index : index + 1], mark=mark) for index, mark in enumerate(marks)
    ]
    assert found.data == b"".join(one.data for one in alone)
    assert [found.between(index, index + 1) for index in range(len(found))] == [one.data for one in alone]


def test_orders_of_several_symbols_have_their_names() -> None:
    orders = np.zeros(3, dtype=ORDER)
    orders["symbol"] = [0, 1, 0]
    orders["order_id"] = [1, 2, 3]
    assert [one["data"]["symbol"] for one in unpacked(order_messages("b", ("A", "B"), orders))] == ["A", "B", "A"]


def test_no_progress_is_no_message() -> None:
    assert len(progress_messages([])) == 0
