"""One link of a page: what it signs, verifies, drops and ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr.ui.core.page_link import (
    GOING_AWAY,
    MAX_SUBSCRIPTIONS,
    POLICY_VIOLATION,
    ChangeSubscription,
    EndPage,
    PageEffect,
    PageLink,
    SendToBroker,
    SendToPage,
    absent,
)
from backtestr.ui.core.stream_window import MAX_UNTAKEN
from backtestr.ui.core.tunnel_format import (
    ABSENT,
    ANSWER,
    LOST,
    OPENED,
    REPLACED,
    REQUEST,
    STREAM_MESSAGE,
    SUBSCRIBE,
    TAKEN,
    UNSUBSCRIBE,
    packed,
    unpacked,
)
from backtestr_protocol.codec import RESPONSE, STREAM, Signer, encode
from backtestr_protocol.envelopes import Outgoing, OutgoingPayload
from support.protocol.independent import signature as mac

KEY = bytes(range(32))
OTHER = bytes(32)
frames_of = st.lists(st.binary(max_size=20), min_size=1, max_size=4)


def link() -> PageLink:
    return PageLink("instance", Signer(KEY), {"/upload"})


def ping() -> bytes:
    payload = OutgoingPayload("Ping", {})
    return encode(Outgoing(id="p-1", timestamp=1, schema_version=1, message_type="Request", payload=payload))


def streamed(frames: Sequence[bytes], key: bytes = KEY) -> list[bytes]:
    topic, *rest = frames
    return [topic, mac(key, STREAM, [topic, *rest]), *rest]


def answered(frames: Sequence[bytes], key: bytes = KEY) -> list[bytes]:
    return [mac(key, RESPONSE, frames), *frames]


def said(effects: list[PageEffect]) -> list[tuple[int, list[bytes]]]:
    return [unpacked(one.message) for one in effects if isinstance(one, SendToPage)]


def test_it_says_first_which_instance_is_there() -> None:
    assert said([link().opened()]) == [(OPENED, [b"instance"])]


@given(st.lists(st.binary(max_size=50), max_size=3))
def test_a_request_is_signed(attachments: list[bytes]) -> None:
    frames = [ping(), *attachments]
    (effect,) = link().page_says(packed(REQUEST, frames), 1)
    assert effect == SendToBroker([mac(KEY, b"req", frames), *frames])


@given(frames_of)
def test_an_answer_loses_its_signature(frames: list[bytes]) -> None:
    effects = link().answered(answered(frames))
    assert said(effects) == [(ANSWER, frames)]
    assert not any(isinstance(one, SendToPage) and one.is_stream for one in effects)


@given(frames_of, st.data())
def test_an_answer_with_a_wrong_signature_ends_the_link(frames: list[bytes], data: st.DataObject) -> None:
    one = link()
    forged = data.draw(st.sampled_from([answered(frames, OTHER), [b"short", *frames], frames, streamed(frames)]))
    effects = one.answered(forged)
    assert said(effects) == [(LOST, [b"an answer has a wrong signature: the connection file is old"])]
    assert effects[-1] == EndPage("an answer has a wrong signature: the connection file is old", GOING_AWAY)
    assert one.has_ended
    assert one.answered(answered(frames)) == one.streamed(streamed([b"t", b"e"])) == one.replaced() == []
    assert one.page_says(packed(REQUEST, [ping()]), 1) == one.lost("again") == []


@given(st.lists(st.binary(max_size=20), min_size=2, max_size=4))
def test_a_stream_message_loses_its_signature(frames: list[bytes]) -> None:
    effects = link().streamed(streamed(frames))
    assert said(effects) == [(STREAM_MESSAGE, frames)]
    assert all(isinstance(one, SendToPage) and one.is_stream for one in effects)


@given(st.lists(st.binary(max_size=20), min_size=2, max_size=4), st.data())
def test_a_forged_stream_message_is_dropped_and_counted(frames: list[bytes], data: st.DataObject) -> None:
    one = link()
    genuine = streamed(frames)
    forged = data.draw(
        st.sampled_from(
            [streamed(frames, OTHER), frames[:1], genuine[:2], [*genuine, b"more"], [b"other", *genuine[1:]]]
        )
    )
    if forged == genuine:
        return
    assert one.streamed(forged) == []
    assert (one.forged, one.window.untaken, one.has_ended) == (1, 0, False)
    assert said(one.streamed(genuine)) == [(STREAM_MESSAGE, frames)]


def test_a_slow_page_loses_stream_messages_and_no_answers() -> None:
    one = link()
    message, answer = streamed([b"topic", b"envelope"]), answered([b"envelope"])
    came = [one.streamed(message) for _ in range(MAX_UNTAKEN + 50)]
    assert [len(effects) for effects in came] == [1] * MAX_UNTAKEN + [0] * 50
    assert one.window.dropped == 50
    assert all(said(one.answered(answer)) == [(ANSWER, [b"envelope"])] for _ in range(100))
    assert one.page_says(packed(TAKEN, [b"100"]), 1) == []
    assert [len(one.streamed(message)) for _ in range(101)] == [1] * 100 + [0]


def test_subscriptions_are_passed_on() -> None:
    one = link()
    for kind, begins in ((SUBSCRIBE, True), (SUBSCRIBE, True), (UNSUBSCRIBE, False), (UNSUBSCRIBE, False)):
        effects = one.page_says(packed(kind, [b"prices", b"prices.X"]), 1)
        assert effects == [ChangeSubscription("prices", "prices.X", begins)]
    assert one.page_says(packed(UNSUBSCRIBE, [b"prices", b"prices.X"]), 1) == []  # there is none left
    assert one.page_says(packed(UNSUBSCRIBE, [b"system", b"never"]), 1) == []


def test_a_page_has_a_bounded_number_of_subscriptions() -> None:
    one = link()
    for number in range(MAX_SUBSCRIPTIONS):
        assert one.page_says(packed(SUBSCRIBE, [b"prices", b"%d" % number]), 1)
    assert one.page_says(packed(UNSUBSCRIBE, [b"prices", b"0"]), 1)
    assert one.page_says(packed(SUBSCRIBE, [b"system", b"0"]), 1) == [ChangeSubscription("system", "0", True)]
    (end,) = one.page_says(packed(SUBSCRIBE, [b"system", b"1"]), 1)
    assert end == EndPage("the page has sent more than 4,096 subscriptions", POLICY_VIOLATION)


def test_a_file_that_was_not_uploaded_is_refused_and_an_upload_is_passed_on() -> None:
    one = link()
    for path, kind in (("/etc/passwd", SendToPage), ("/upload", SendToBroker)):
        payload = OutgoingPayload("ImportMarketData", {"path": path})
        body = encode(Outgoing(id="i", timestamp=1, schema_version=1, message_type="Request", payload=payload))
        (effect,) = one.page_says(packed(REQUEST, [body]), 1)
        assert isinstance(effect, kind)
    assert not one.has_ended


@pytest.mark.parametrize(
    "message", [b"", b"\x09", packed(TAKEN, [b"1"]), packed(REQUEST, [b"\xc1"]), packed(SUBSCRIBE, [b"x", b"y"])]
)
def test_what_no_page_sends_ends_the_link_with_a_reason(message: bytes) -> None:
    one = link()
    (end,) = one.page_says(message, 1)
    assert isinstance(end, EndPage)
    assert end.code == POLICY_VIOLATION
    assert end.reason.startswith("the page has sent ")
    assert one.page_says(packed(REQUEST, [ping()]), 1) == []


@given(st.lists(st.one_of(st.binary(max_size=60), st.builds(packed, st.integers(0, 6), frames_of)), max_size=8))
def test_hostile_bytes_have_effects_or_end_the_link(messages: list[bytes]) -> None:
    one = link()
    for message in messages:
        ended = one.has_ended
        effects: list[Any] = one.page_says(message, 1)
        assert not (ended and effects)
        assert one.has_ended == (ended or any(isinstance(effect, EndPage) for effect in effects))


def test_the_page_is_told_of_a_new_broker_of_a_loss_and_of_none() -> None:
    one = link()
    assert said(one.replaced()) == [(REPLACED, [])]
    assert said(one.lost("gone")) == [(LOST, [b"gone"])]
    assert unpacked(absent("none")) == (ABSENT, [b"none"])


def test_effects_are_values() -> None:
    assert msgspec.structs.asdict(EndPage("r", 1)) == {"reason": "r", "code": 1}
