"""Requests of feeds and price replays are bounded and typed."""

from __future__ import annotations

from typing import Any

import msgpack
import msgspec
import pytest

from backtestr_protocol.codec import decode
from backtestr_protocol.errors import ValidationError
from backtestr_protocol.price_messages import MAX_PRICES, PublishPrices, StartPriceReplay

PRICE = {"symbol": "X", "timestamp": 1, "bid": -1.0, "ask": -0.5, "last": -0.75, "volume": 0.0, "timeframe": "tick"}
REPLAY = {"symbol": "X", "timeframe": "1m"}

_publish = msgspec.msgpack.Decoder(PublishPrices)
_start = msgspec.msgpack.Decoder(StartPriceReplay)


def test_as_many_prices_as_the_limit_are_accepted_and_no_more() -> None:
    assert len(decode(_publish, msgpack.packb({"prices": [PRICE] * MAX_PRICES})).prices) == MAX_PRICES
    with pytest.raises(ValidationError) as caught:
        decode(_publish, msgpack.packb({"prices": [PRICE] * (MAX_PRICES + 1)}))
    assert caught.value.details == {"path": "$.prices"}


@pytest.mark.parametrize("timeframe", ["2x", "", "Tick", None])
def test_a_price_has_a_timeframe_or_is_a_tick(timeframe: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        decode(_publish, msgpack.packb({"prices": [{**PRICE, "timeframe": timeframe}]}))
    assert caught.value.details == {"path": "$.prices[0].timeframe"}


def test_times_of_a_replay_become_integers() -> None:
    request = decode(_start, msgpack.packb({**REPLAY, "startTime": 5.0, "endTime": 6}))
    assert (request.start_time, type(request.start_time), request.end_time) == (5, int, 6)


@pytest.mark.parametrize("replay_id", ["", "a/b", "x" * 65, "new\n"])
def test_a_replay_id_is_fit_for_topics_and_file_names(replay_id: str) -> None:
    with pytest.raises(ValidationError) as caught:
        decode(_start, msgpack.packb({**REPLAY, "replayId": replay_id}))
    assert caught.value.details == {"path": "$.replayId"}
