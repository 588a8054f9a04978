"""The tables of message types are complete and consistent."""

from __future__ import annotations

import msgspec
import pytest

from backtestr_protocol.errors import ErrorData
from backtestr_protocol.message_types import PRIORITIES, REQUESTS, STREAMED, RequestType
from backtestr_protocol.messages import Contract, Nothing


@pytest.mark.parametrize("row", REQUESTS.values(), ids=REQUESTS)
def test_a_request_type_has_a_priority_and_contracts(row: RequestType) -> None:
    assert row.priority in PRIORITIES
    assert issubclass(row.data, Contract)
    assert issubclass(row.success, Contract)


def test_every_priority_but_bulk_has_requests() -> None:
    """Bulk work are the blocks of sweeps, which no request names, and requests of an unknown type."""
    assert {row.priority for row in REQUESTS.values()} == set(PRIORITIES) - {"K"}


def test_a_type_of_stream_messages_has_the_name_of_its_contract() -> None:
    names = {name: struct.__name__ for name, struct in STREAMED.items() if struct is not ErrorData}
    assert names == {name: name for name in names}
    assert STREAMED["Error"] is ErrorData


def test_no_contract_is_both_request_and_stream_message() -> None:
    requests: set[type[msgspec.Struct]] = {row.data for row in REQUESTS.values() if row.data is not Nothing}
    assert not requests & set(STREAMED.values())
