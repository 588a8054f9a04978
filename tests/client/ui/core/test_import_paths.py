"""Requests that name files of the machine: which there are, and which a page may name."""

from __future__ import annotations

import contextlib
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtestr.ui.core import import_paths
from backtestr.ui.core.import_paths import refusal
from backtestr.ui.core.tunnel_format import MalformedMessage
from backtestr_protocol.codec import decode, encode
from backtestr_protocol.envelopes import Envelope, Outgoing, OutgoingPayload
from backtestr_protocol.errors import ErrorData, from_data
from backtestr_protocol.message_types import REQUESTS
from backtestr_protocol.messages import FilePath

UPLOAD = "/data/uploads/x/1/bars.csv"


def request(type_name: str, data: Any, **fields: Any) -> list[bytes]:
    envelope = Outgoing(
        id="page-7",
        timestamp=1,
        schema_version=1,
        message_type="Request",
        payload=OutgoingPayload(type_name, data),
        session_id="s",
        counter=3,
        **fields,
    )
    return [encode(envelope)]


def refused(frames: list[bytes]) -> ErrorData | None:
    answer = refusal(frames, {UPLOAD}, "ui-1", 5)
    if answer is None:
        return None
    envelope = decode(msgspec.msgpack.Decoder(Envelope), answer[0])
    assert (envelope.correlation_id, envelope.message_type, envelope.payload.type) == ("page-7", "Response", "Failure")
    assert len(answer) == 1
    return msgspec.msgpack.decode(envelope.payload.data, type=ErrorData)


def test_an_upload_may_be_imported() -> None:
    assert refused(request("ImportMarketData", {"path": UPLOAD, "symbol": "X"})) is None


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=50))
def test_nothing_else_may(path: str) -> None:
    error = refused(request("ImportMarketData", {"path": path, "symbol": "X"}))
    assert error is not None
    assert error.code == "DATA_ERROR"
    assert [one.action for one in error.recovery_actions] == ["upload_file"]


@pytest.mark.parametrize("path", [UPLOAD + "/../../../../etc/passwd", UPLOAD + "/", "/data/uploads/x/./1/bars.csv"])
def test_another_spelling_of_an_upload_is_another_path(path: str) -> None:
    assert refused(request("ImportMarketData", {"path": path})) is not None


def test_the_error_is_one_that_a_client_raises() -> None:
    error = refused(request("ImportMarketData", {"path": "/etc/passwd"}))
    assert error is not None
    assert "'/etc/passwd'" in str(from_data(error))


def test_a_path_that_is_missing_or_none_is_said_as_the_broker_says_it() -> None:
    for data in ({}, {"path": 5}, {"path": ""}, {"path": None}):
        error = refused(request("ImportMarketData", data))
        assert error is not None
        assert error.code == "VALIDATION_ERROR"
        assert error.details == {"path": "$.path"}


@pytest.mark.parametrize("name", sorted(REQUESTS.keys() - {"ImportMarketData"}))
def test_all_other_requests_pass(name: str) -> None:
    assert refused(request(name, {})) is None
    assert refused(request(name, {"path": "/etc/passwd"})) is None


def test_no_other_request_has_the_path_of_a_file() -> None:
    """A contract that gets one is to be added to `_WITH_PATHS`."""
    with_paths = {name for name, row in REQUESTS.items() if names_a_file(msgspec.inspect.type_info(row.data))}
    assert with_paths == import_paths._WITH_PATHS.keys() == {"ImportMarketData"}


def names_a_file(found: msgspec.inspect.Type) -> bool:
    match found:
        case msgspec.inspect.StructType():
            return any(names_a_file(one.type) or "path" in one.encode_name.lower() for one in found.fields)
        case msgspec.inspect.UnionType():
            return any(names_a_file(one) for one in found.types)
        case msgspec.inspect.ListType():
            return names_a_file(found.item_type)
        case msgspec.inspect.DictType():
            return names_a_file(found.value_type)
    return found == msgspec.inspect.type_info(FilePath)


def test_of_two_paths_in_one_map_the_one_is_checked_that_the_broker_takes() -> None:
    """MessagePack can name a key twice; this server and the broker decode by the same contracts."""
    for first, second in ((UPLOAD, "/etc/passwd"), ("/etc/passwd", UPLOAD)):
        data = b"\x82" + b"".join(msgpack.packb("path") + msgpack.packb(one) for one in (first, second))
        frames = request("ImportMarketData", msgspec.Raw(data))
        envelope = decode(msgspec.msgpack.Decoder(Envelope), frames[0])
        taken = decode(msgspec.msgpack.Decoder(REQUESTS["ImportMarketData"].data), envelope.payload.data)
        assert (refused(frames) is None) == (taken.path == UPLOAD)  # type: ignore[attr-defined]


def test_an_envelope_that_cannot_be_read_is_not_passed_on() -> None:
    known = msgpack.packb({"id": "page-7", "timestamp": "yesterday"})
    error = refused([known])
    assert error is not None
    assert error.code == "VALIDATION_ERROR"
    for hostile in (b"", b"\xc1", msgpack.packb([1, 2]), msgpack.packb({"id": 5})):
        with pytest.raises(MalformedMessage, match="envelope cannot be read"):
            refusal([hostile], {UPLOAD}, "ui-1", 5)


@given(st.binary(max_size=100))
def test_hostile_bytes_are_answered_or_end_the_link(body: bytes) -> None:
    with contextlib.suppress(MalformedMessage):
        assert refusal([body], set(), "ui-1", 5) is not None
