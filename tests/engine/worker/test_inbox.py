"""The inbox keeps the order of messages, and of those about listeners the latest of each backtest."""

from __future__ import annotations

from backtestr_engine.worker.inbox import BOUND, KEPT_WANTED, Inbox
from backtestr_protocol.worker_channel import Control, Unheard, Wanted


def test_messages_come_in_order_with_their_payload() -> None:
    inbox = Inbox()
    messages = [Control(task_id="b", action="pause"), Control(task_id="b", action="resume")]
    for number, message in enumerate(messages):
        inbox.put(message, [bytes([number])])
    assert [inbox.take(0.0), inbox.take(0.0), inbox.take(0.0)] == [(messages[0], [b"\0"]), (messages[1], [b"\1"]), None]


def test_listeners_that_come_and_go_take_one_place_for_each_backtest() -> None:
    inbox = Inbox()
    for number in range(2 * BOUND):
        inbox.put(Unheard(task_id=f"b{number % 2}", topics=[f"orders.{number}"]), [])
    taken = [inbox.take(0.0), inbox.take(0.0)]
    assert taken == [
        (Unheard(task_id="b0", topics=[f"orders.{2 * BOUND - 2}"]), []),
        (Unheard(task_id="b1", topics=[f"orders.{2 * BOUND - 1}"]), []),
    ]
    assert inbox.take(0.0) is None
    inbox.put(Unheard(task_id="b0", topics=[]), [])
    assert inbox.take(0.0) == (Unheard(task_id="b0", topics=[]), [])


def test_a_request_for_results_is_kept_until_the_end_asks_for_it() -> None:
    inbox = Inbox()
    inbox.put(Wanted(task_id="b"), [b"all tables"])
    assert inbox.take(0.0) is None, "it is no message to handle now"
    assert (inbox.wanted("other"), inbox.wanted("b"), inbox.wanted("b")) == (None, b"all tables", None)


def test_requests_that_no_end_asks_for_make_room() -> None:
    inbox = Inbox()
    for number in range(KEPT_WANTED + 1):
        inbox.put(Wanted(task_id=f"b{number}"), [b"x"])
    assert (inbox.wanted("b0"), inbox.wanted("b1")) == (None, b"x")
