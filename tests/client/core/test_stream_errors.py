"""Lost messages and the messages of system.errors become errors, each once."""

from __future__ import annotations

import msgspec
import pytest

from backtestr.core.counters import StreamCounters
from backtestr.core.effects import Delivery, Gap, StreamMessage
from backtestr.core.recovery import MessagesLost
from backtestr.core.stream_errors import StreamErrors
from backtestr_protocol.codec import encode
from backtestr_protocol.errors import BacktestrError, MessageError, SystemFault

ERRORS = "system.errors"


def message(seq: int, error: BacktestrError | None = None, topic: str = ERRORS) -> StreamMessage:
    data = (error or SystemFault(f"fault {seq}")).to_data(component="broker", timestamp=0)
    return StreamMessage(topic, seq, "Error", msgspec.Raw(encode(data)))


def counted(*, lost: int = 0, repaired: int = 0) -> StreamCounters:
    counters = StreamCounters()
    counters.messages_lost, counters.gaps_repaired = lost, repaired
    return counters


def found(errors: StreamErrors, number: int, deliveries: list[Delivery], lost: int = 0) -> list[tuple[str, str]]:
    return [(str(error), topic) for error, topic in errors.find(number, deliveries, counted(lost=lost))]


@pytest.mark.parametrize("prefix", [ERRORS, "system."])
def test_a_subscription_that_carries_system_errors_reports_them(prefix: str) -> None:
    errors = StreamErrors()
    errors.subscribed(1, prefix)
    assert found(errors, 1, [message(1), message(2), message(3, topic="system.status")]) == [
        ("fault 1", ERRORS),
        ("fault 2", ERRORS),
    ]


@pytest.mark.parametrize("prefix", ["system.status", "orders.b1", "system.err"])
def test_another_subscription_reports_none(prefix: str) -> None:
    errors = StreamErrors()
    errors.subscribed(1, prefix)
    assert found(errors, 1, [message(1)]) == []


def test_a_message_that_two_subscriptions_bring_is_reported_once() -> None:
    errors = StreamErrors()
    errors.subscribed(1, ERRORS)
    errors.subscribed(2, "system.")
    assert found(errors, 1, [message(1)]) == [("fault 1", ERRORS)]
    assert found(errors, 2, [message(1), message(2)]) == [("fault 2", ERRORS)]


def test_after_a_restart_the_sequence_numbers_begin_again() -> None:
    errors = StreamErrors()
    errors.subscribed(1, ERRORS)
    found(errors, 1, [message(5)])
    errors.restarted()
    assert found(errors, 1, [message(1)]) == [("fault 1", ERRORS)]


def test_an_ended_subscription_reports_nothing() -> None:
    errors = StreamErrors()
    errors.subscribed(1, ERRORS)
    errors.unsubscribed(1)
    assert found(errors, 1, [message(1)]) == []


def test_a_gap_is_reported_with_its_topic_when_messages_were_lost() -> None:
    errors = StreamErrors()
    [(error, topic)] = errors.find(1, [Gap("orders.b1", 3, 7)], counted(lost=5))
    assert isinstance(error, MessagesLost)
    assert (str(error), topic) == ("messages 3 to 7 of orders.b1 are lost", "orders.b1")


def test_deliveries_are_not_searched_while_no_message_was_lost() -> None:
    errors = StreamErrors()
    assert found(errors, 1, [Gap("orders.b1", 3, 7)], 0) == []


def test_a_repaired_gap_is_a_recovery_once() -> None:
    errors = StreamErrors()
    came: list[Delivery] = [message(3, topic="orders.b1")]
    [(error, topic)] = errors.find(1, came, counted(repaired=2))
    assert (error.severity, topic, error.recovery_actions) == ("Info", "orders.b1", [])
    assert list(errors.find(1, came, counted(repaired=2))) == []


def test_a_malformed_error_is_an_error_itself() -> None:
    errors = StreamErrors()
    errors.subscribed(1, ERRORS)
    [(error, _)] = errors.find(1, [StreamMessage(ERRORS, 1, "Error", msgspec.Raw(encode({"code": 7})))], counted())
    assert isinstance(error, MessageError)
