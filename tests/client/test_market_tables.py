"""Ticks are read page after page, and joined in order; a series that changes meanwhile is no series."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from backtestr.market_tables import tick_pages
from backtestr.requester import Requester
from backtestr_protocol.errors import DataError
from backtestr_protocol.messages import MAX_TICKS, GetMarketData
from support.client.answers import connect
from support.client.command_line import asked
from support.client.peer import Peer

TICKS = pl.DataFrame(
    {
        "timestamp": pl.Series(range(10)).cast(pl.Datetime("us", "UTC")),
        "bid": [1.0 + row for row in range(10)],
        "ask": [2.0 + row for row in range(10)],
        "last": pl.Series([None] * 10, dtype=pl.Float64),
        "volume": pl.Series([None] * 10, dtype=pl.Float64),
    }
)


class Stored:
    """The ticks as a broker answers with them; `page` at most at a time."""

    def __init__(self, page: int, versions: str = "a") -> None:
        self._page = page
        self._versions = iter(versions + versions[-1] * 100)

    def __call__(self, data: Mapping[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
        limit, skip = min(data["limit"], self._page), data.get("skip", 0)
        first = data.get("keep") == "first"
        left = TICKS[skip:] if first else TICKS[: 10 - skip]
        page = left.head(limit) if first else left.tail(limit)
        buffer = io.BytesIO()
        page.write_ipc_stream(buffer)
        table = {"name": "ticks", "frame": 0, "format": "arrow-ipc-stream", "rows": page.height}
        answer = {"symbol": "X", "timeframe": "tick", "tables": [table], "version": next(self._versions)}
        return answer | ({"rest": left.height - page.height} if left.height > page.height else {}), [buffer.getvalue()]


@pytest.mark.parametrize(("keep", "expected"), [("first", TICKS[:7]), ("last", TICKS[3:])])
def test_pages_are_joined_in_the_order_of_time(home: Path, keep: Any, expected: pl.DataFrame) -> None:
    with Peer(home, {"GetMarketData": Stored(3)}) as peer, connect(peer) as client:
        assert client.market_data("X", "tick", limit=7, keep=keep).equals(expected)
        assert client.market_data("X", "tick", keep=keep).equals(TICKS)
        asked_for = [(one["limit"], one.get("skip", 0)) for one in asked(peer, "GetMarketData")]
    assert asked_for == [(7, 0), (4, 3), (1, 6), *((MAX_TICKS, skip) for skip in (0, 3, 6, 9))]


def test_ticks_are_yielded_page_by_page(home: Path) -> None:
    with Peer(home, {"GetMarketData": Stored(4)}) as peer, connect(peer) as client:
        pages = client.ticks("X", start=5)
        assert asked(peer, "GetMarketData") == [], "nothing is read before it is wanted"
        assert [page.height for page in pages] == [4, 4, 2]
        assert {one["startTime"] for one in asked(peer, "GetMarketData")} == {5}


def test_ticks_that_are_stored_anew_meanwhile_are_refused(home: Path) -> None:
    with (
        Peer(home, {"GetMarketData": Stored(4, "aab")}) as peer,
        connect(peer) as client,
        pytest.raises(DataError, match="the ticks of X were stored anew while they were read; read them again"),
    ):
        client.market_data("X", "tick")


def test_a_page_has_as_many_ticks_as_are_asked_for(home: Path) -> None:
    with Peer(home, {"GetMarketData": Stored(100)}) as peer, connect(peer) as client:
        ask: Requester = client._ask
        request = GetMarketData(symbol="X", timeframe="tick", keep="first", limit=8)
        assert [page.height for page in tick_pages(ask, request, page_ticks=3)] == [3, 3, 2]
