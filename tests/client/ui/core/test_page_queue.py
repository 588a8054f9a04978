"""Messages wait for a page in order, bounded, and answers among them are never dropped."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr.ui.core import page_queue
from backtestr.ui.core.page_queue import MAX_ANSWER_BYTES, MAX_ANSWERS, PageQueue


@given(st.lists(st.one_of(st.none(), st.tuples(st.binary(max_size=9), st.booleans())), max_size=60))
def test_messages_leave_in_their_order(steps: list[tuple[bytes, bool] | None]) -> None:
    queue, waiting = PageQueue(), list[tuple[bytes, bool]]()
    for step in steps:
        if step is None:
            assert queue.next() == (waiting.pop(0)[0] if waiting else None)
        else:
            assert queue.put(step[0], is_answer=step[1])
            waiting.append(step)
        assert len(queue) == len(waiting)
        assert queue.answers == sum(is_answer for _, is_answer in waiting)
        assert queue.answer_bytes == sum(len(message) for message, is_answer in waiting if is_answer)


def test_a_page_may_leave_so_many_answers_unread() -> None:
    queue = PageQueue()
    assert all(queue.put(b"", is_answer=True) for _ in range(MAX_ANSWERS))
    assert not queue.put(b"", is_answer=True)
    assert queue.put(b"", is_answer=False)  # those have a bound of their own
    assert queue.next() == b""
    assert queue.put(b"", is_answer=True)


def test_one_answer_always_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_ANSWER_BYTES == 256 << 20
    monkeypatch.setattr(page_queue, "MAX_ANSWER_BYTES", 10)
    queue = PageQueue()
    assert queue.put(bytes(11), is_answer=True)
    assert not queue.put(b"x", is_answer=True)
    queue.next()
    assert queue.put(bytes(6), is_answer=True)
    assert not queue.put(bytes(5), is_answer=True)
