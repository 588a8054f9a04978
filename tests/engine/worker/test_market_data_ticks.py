"""Ticks are read on request: by range, by limit from either side, and page after page."""

from __future__ import annotations

import io
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.data.tick_bars import bars_of_ticks
from backtestr_engine.worker import market_data as module
from backtestr_engine.worker.market_data import market_data
from backtestr_protocol.errors import BacktestrError, DataError, InvalidConfiguration
from backtestr_protocol.messages import GetMarketData, IndicatorConfig, MarketData
from support.engine.random_ticks import random_quotes

QUOTES = random_quotes(400)
MILLISECONDS = QUOTES.timestamp // 1000


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    catalog = Catalog(tmp_path_factory.mktemp("catalog"), cache_bytes=64 << 20)
    catalog.write_ticks(QUOTES)
    catalog.write(synthetic_bars("1m", 100, symbol="B"))
    return catalog


def ask(catalog: Catalog, **request: Any) -> tuple[pl.DataFrame, MarketData]:
    answer, attachments = market_data(catalog, GetMarketData(**{"symbol": "X", "timeframe": "tick", **request}))
    [table] = answer.tables
    assert table.frame is not None
    frame = pl.read_ipc_stream(io.BytesIO(attachments[table.frame]))
    assert (table.rows, table.format) == (frame.height, "arrow-ipc-stream")
    return frame, answer


def test_the_whole_series(stocked: Catalog) -> None:
    frame, answer = ask(stocked)
    assert frame.equals(QUOTES.to_frame())
    assert (answer.timeframe, answer.tables[0].name, answer.rest) == ("tick", "ticks", 0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 399), st.integers(1, 150), st.sampled_from(["first", "last"]), st.booleans())
def test_pages_are_the_whole_range_each_tick_once(
    stocked: Catalog, first: int, limit: int, keep: str, to_the_end: bool
) -> None:
    start = int(MILLISECONDS[first])
    end = None if to_the_end else int(MILLISECONDS[-1])
    whole, _ = ask(stocked, start_time=start, end_time=end) if start != end else (QUOTES.to_frame()[:0], None)
    limit = max(limit, whole.height // 20)  # pages of one tick where that is some twenty of them
    pages: list[pl.DataFrame] = []
    skip, versions = 0, set()
    while whole.height:
        page, answer = ask(stocked, start_time=start, end_time=end, limit=limit, keep=keep, skip=skip)
        pages.append(page)
        skip += page.height
        versions.add(answer.version)
        assert answer.rest == whole.height - skip
        if not answer.rest:
            break
    assert len(versions) <= 1
    joined = pl.concat(pages if keep == "first" else reversed(pages)) if pages else whole
    assert joined.equals(whole)


def test_a_page_beyond_the_end_is_empty(stocked: Catalog) -> None:
    for keep in ("first", "last"):
        frame, answer = ask(stocked, skip=500, limit=3, keep=keep)
        assert (frame.height, answer.rest) == (0, 0)


def test_bars_are_read_in_pages_as_well(stocked: Catalog) -> None:
    bars = synthetic_bars("1m", 100, symbol="B").to_frame()
    asked = {"symbol": "B", "timeframe": "1m", "limit": 30}
    frame, answer = ask(stocked, **asked, skip=10)
    assert (frame.equals(bars[60:90]), answer.rest, answer.version) == (True, 60, None)
    frame, answer = ask(stocked, **asked, skip=90, keep="first", indicators=[IndicatorConfig(name="RSI")])
    assert (frame.select(bars.columns).equals(bars[90:]), answer.rest) == (True, 0)
    assert frame["real"].is_not_nan().all(), "indicators are warmed up by the bars before"


def test_the_price_of_ticks_chooses_the_bars(stocked: Catalog) -> None:
    for price in ("bid", "ask", "mid"):
        frame, _ = ask(stocked, timeframe="5m", price=price)
        assert frame.equals(bars_of_ticks("X", "5m", price, [QUOTES]).to_frame())
    assert ask(stocked, timeframe="5m")[0].equals(frame)


def test_an_answer_has_so_many_ticks(stocked: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TICKS", 100)
    assert ask(stocked, limit=100)[0].height == 100
    for limit in (None, 101):
        with pytest.raises(
            InvalidConfiguration, match=r"up to 100 ticks, and .* are asked for; give a limit"
        ) as caught:
            ask(stocked, limit=limit)
        assert caught.value.details is not None
        assert caught.value.details["ticks"] == (limit or 400)


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        ({"indicators": [IndicatorConfig(name="RSI")]}, InvalidConfiguration, "indicators cannot be given for ticks"),
        ({"price": "bid"}, InvalidConfiguration, "price cannot be given for ticks"),
        ({"symbol": "B"}, DataError, "B has no stored ticks"),
        ({"start_time": 9, "end_time": 9}, InvalidConfiguration, "is not before endTime"),
        ({"start_time": 0, "end_time": 9}, DataError, "no ticks of X from 1970-01-01 before"),
    ],
)
def test_refusals(stocked: Catalog, request_: dict[str, Any], error: type[BacktestrError], message: str) -> None:
    with pytest.raises(error, match=message):
        ask(stocked, **request_)
