"""The table of connection states is complete, and only a welcome leads to `ready`."""

from __future__ import annotations

from itertools import product
from typing import get_args

import pytest

from backtestr.core.connection_state import CONNECTION, ConnectionEvent, ConnectionState


@pytest.mark.parametrize(("state", "what"), list(product(get_args(ConnectionState), get_args(ConnectionEvent))))
def test_every_state_knows_where_everything_leads(state: ConnectionState, what: ConnectionEvent) -> None:
    after = CONNECTION[state, what]
    assert (after == "closed") == ("closed" in (state, what))
    assert (after == "ready") == (what == "welcomed" and state != "closed")
    assert after != "connecting" or state == "connecting"


def test_the_table_has_nothing_else() -> None:
    assert CONNECTION.keys() == set(product(get_args(ConnectionState), get_args(ConnectionEvent)))
