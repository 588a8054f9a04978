"""Price replays and feeds in the client, against a scripted broker."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import backtestr
from backtestr import replay as replay_module
from backtestr.client import Client
from backtestr_protocol.errors import DataError, NotFound, RateLimitExceeded, SystemFault, TimedOut
from support.client.peer import SILENCE, WALL_MS, Peer

TOPIC = "prices.S.1m"
PRICE: dict[str, Any] = {
    "symbol": "S",
    "timestamp": 1,
    "bid": 1.0,
    "ask": 1.0,
    "last": 1.0,
    "volume": 0.0,
    "timeframe": "1m",
}


@pytest.fixture(autouse=True)
def _check_status_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_module, "STATUS_AFTER", 0.05)


class Broker:
    """A script with one price replay; `more` has further fields of its status."""

    def __init__(self, bars: int = 3) -> None:
        self.bars = bars
        self.replay_id = ""
        self.more: dict[str, Any] = {"status": "running"}

    @property
    def script(self) -> dict[str, Callable[[Any], Any]]:
        return {
            "StartPriceReplay": self.start,
            "GetPriceReplayStatus": lambda _: self.status(),
            "PausePriceReplay": lambda data: {**data, "status": "paused"},
            "ResumePriceReplay": lambda data: {**data, "status": "running"},
            "StopPriceReplay": self.stop,
            "AcknowledgePrices": lambda data: {"replayId": data["replayId"], "status": "running"},
            "PublishPrices": lambda data: {"published": len(data["prices"])},
            "ListPriceReplays": lambda _: {"replays": [self.status()]},
            "FetchMissed": lambda data: {**data, "toSeq": data["fromSeq"] - 1, "oldestSeq": 1, "messages": []},
        }

    def start(self, data: Any) -> dict[str, Any]:
        self.replay_id = data["replayId"]
        return {"replayId": self.replay_id, "topic": TOPIC, "fromSeq": 5, "bars": self.bars}

    def status(self) -> dict[str, Any]:
        return {
            **{"replayId": self.replay_id, "clientId": "c", "symbol": "S", "timeframe": "1m", "bars": self.bars},
            **{"startTime": 0, "endTime": 1, "position": 0, "progressPercent": 0.0, "speed": 60.0, **self.more},
        }

    def stop(self, data: Any) -> dict[str, Any]:
        self.more = {"status": "stopped", "lastSeq": self.more.get("lastSeq")}
        return {**data, "status": "stopped"}

    def price(self, **changes: Any) -> dict[str, Any]:
        return {**PRICE, "replayId": self.replay_id, **changes}


def connect(peer: Peer) -> Client:
    return backtestr.connect(connection_file=peer.file)


def asked(peer: Peer, kind: str) -> list[Any]:
    return [data for name, _, data in peer.asked if name == kind]


def test_a_price_replay_yields_its_own_prices_from_the_first_to_the_last(home: Path) -> None:
    broker = Broker()
    with Peer(home, broker.script) as peer, connect(peer) as client:
        replay = client.replay("S", "1m", start="2022-01-03", end="2022-01-04", speed=60)
        [request] = asked(peer, "StartPriceReplay")
        del request["replayId"]
        times = {"startTime": 1_641_168_000_000, "endTime": 1_641_254_400_000}
        assert request == {"symbol": "S", "timeframe": "1m", "speed": 60.0, **times}
        peer.wait_for_subscription(TOPIC)
        for number, price in enumerate(
            [
                broker.price(timestamp=1),
                PRICE,  # of a feed
                broker.price(replayId="another's"),
                {**PRICE, "backtestId": "b1"},
                broker.price(timestamp=2),
                broker.price(timestamp=3),
            ],
            start=5,
        ):
            peer.publish(TOPIC, "PriceUpdate", price, seq=number)
        assert [price.timestamp for price in replay] == [1, 2, 3]
        assert replay.next() is None
        assert asked(peer, "GetPriceReplayStatus") == [], "it had all of them"
        assert (replay.id, replay.topic, replay.bars) == (broker.replay_id, TOPIC, 3)


@pytest.mark.parametrize("last_seq", [None, 5, 6])
def test_a_price_replay_that_ended_early_is_read_to_its_last_price(home: Path, last_seq: int | None) -> None:
    broker = Broker()
    with Peer(home, broker.script) as peer, connect(peer) as client:
        replay = client.replay("S", "1m", bars_per_second=1)
        peer.wait_for_subscription(TOPIC)
        for seq in range(5, (last_seq or 4) + 1):
            peer.publish(TOPIC, "PriceUpdate", broker.price(), seq=seq)
        broker.more = {"status": "stopped", "lastSeq": last_seq}
        assert len(list(replay)) == (last_seq or 4) - 4


def test_polling_more_often_than_the_status_check_still_finds_the_end(home: Path) -> None:
    broker = Broker()
    with Peer(home, broker.script) as peer, connect(peer) as client:
        replay = client.replay("S", "1m", bars_per_second=1)
        broker.more = {"status": "stopped"}
        end = time.monotonic() + 10
        found: Any = "nothing"
        while found == "nothing" and time.monotonic() < end:
            with contextlib.suppress(TimedOut):
                found = replay.next(timeout=0.01)
        assert found is None


@contextlib.contextmanager
def busy_feed(peer: Peer, first: int) -> Iterator[None]:
    """Publish prices of a feed on the topic, without a pause."""
    over = threading.Event()

    def publish() -> None:
        seq = first
        while not over.wait(0.001):
            peer.publish(TOPIC, "PriceUpdate", PRICE, seq=seq)
            seq += 1

    feed = threading.Thread(target=publish)
    feed.start()
    try:
        yield
    finally:
        over.set()
        feed.join()


def test_a_feed_on_the_same_topic_hides_neither_the_end_nor_a_timeout(home: Path) -> None:
    broker = Broker()
    with Peer(home, broker.script) as peer, connect(peer) as client:
        replay = client.replay("S", "1m", bars_per_second=1)
        peer.wait_for_subscription(TOPIC)
        with busy_feed(peer, first=5):
            with pytest.raises(TimedOut, match="no price came within 0"):
                replay.next(timeout=0.1)
            broker.more = {"status": "stopped", "lastSeq": None}
            assert replay.next() is None


def test_a_price_replay_that_lost_prices_ends_beside_a_feed(home: Path) -> None:
    broker = Broker(bars=3)
    kept = {"topic": TOPIC, "fromSeq": 5, "toSeq": 6, "oldestSeq": 7, "messages": []}
    script = {**broker.script, "FetchMissed": lambda data: {**kept, "fromSeq": data["fromSeq"]}}
    with Peer(home, script) as peer, connect(peer) as client:
        replay = client.replay("S", "1m", bars_per_second=1)
        peer.wait_for_subscription(TOPIC)
        peer.publish(TOPIC, "PriceUpdate", broker.price(), seq=7)
        broker.more = {"status": "completed", "lastSeq": 7}
        with busy_feed(peer, first=8), pytest.warns(backtestr.GapWarning, match="messages 5 to 6"):
            assert len(list(replay)) == 1


def test_polling_skips_the_prices_of_others(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_module, "_SKIP", 10.0)
    broker = Broker()
    with Peer(home, broker.script) as peer, connect(peer) as client, client.subscribe(TOPIC, history=True) as beside:
        replay = client.replay("S", "1m", bars_per_second=1)
        peer.wait_for_subscription(TOPIC)
        for seq in range(5, 25):
            peer.publish(TOPIC, "PriceUpdate", broker.price() if seq == 24 else PRICE, seq=seq)
        while not (isinstance(update := beside.next(timeout=10), backtestr.Update) and update.seq == 24):
            pass
        client.ping()  # by now all messages have arrived for both
        assert replay.next(timeout=0) is not None


def test_the_error_of_a_failed_price_replay_is_raised_after_its_last_price(home: Path) -> None:
    broker = Broker()
    with Peer(home, broker.script) as peer, connect(peer) as client:
        replay = client.replay("S", "1m", bars_per_second=1)
        peer.wait_for_subscription(TOPIC)
        peer.publish(TOPIC, "PriceUpdate", broker.price(), seq=5)
        error = DataError("the stored bars changed").to_data(component="engine", timestamp=WALL_MS)
        broker.more = {"status": "failed", "lastSeq": 5, "error": error}
        prices = iter(replay)
        assert next(prices).last == 1.0
        with pytest.raises(DataError, match="the stored bars changed"):
            next(prices)


def test_a_timeout_ends_nothing(home: Path) -> None:
    broker = Broker()
    with Peer(home, broker.script) as peer, connect(peer) as client, client.replay("S", "1m", speed=1) as replay:
        for timeout in (0.0, 0.01):
            with pytest.raises(TimedOut):
                replay.next(timeout)
        peer.wait_for_subscription(TOPIC)
        peer.publish(TOPIC, "PriceUpdate", broker.price(), seq=5)
        assert replay.next(timeout=10) is not None
        assert (replay.pause(), replay.resume(), replay.status().status) == ("paused", "running", "running")
    assert len(asked(peer, "StopPriceReplay")) == 1
    assert replay.next() is None


def test_prices_are_acknowledged_four_times_in_each_ring(home: Path) -> None:
    broker = Broker(bars=6_000)
    with Peer(home, broker.script) as peer, connect(peer) as client:
        replay = client.replay("S", "1m", as_fast_as_read=True)
        peer.wait_for_subscription(TOPIC)
        messages = [{"type": "PriceUpdate", "data": broker.price()}] * 3_000
        for seq in (5, 3_005):
            batch = {"count": 3_000, "compression": "none", "rawBytes": 1, "messages": messages}
            peer.publish(TOPIC, "Batch", batch, seq=seq)
        prices = iter(replay)
        for _ in range(2_499):
            next(prices)
        assert asked(peer, "AcknowledgePrices") == []
        assert len(list(prices)) == 3_501
        client.ping()
        assert [one["seq"] for one in asked(peer, "AcknowledgePrices")] == [2_504, 5_004]


def test_a_refused_acknowledgement_is_sent_again(home: Path) -> None:
    broker = Broker(bars=2_501)
    refusals = [RateLimitExceeded("too many", retryAfterMs=1) for _ in range(2)]

    def acknowledge(data: Any) -> Any:
        if refusals:
            return refusals.pop()
        peer.publish(TOPIC, "PriceUpdate", broker.price(), seq=2_505)
        return {"replayId": data["replayId"], "status": "running"}

    script = {**broker.script, "AcknowledgePrices": acknowledge}
    never = backtestr.Recovery(automatic=False)
    with Peer(home, script) as peer, backtestr.connect(connection_file=peer.file, recovery=never) as client:
        replay = client.replay("S", "1m", as_fast_as_read=True)
        peer.wait_for_subscription(TOPIC)
        messages = [{"type": "PriceUpdate", "data": broker.price()}] * 2_500
        batch = {"count": 2_500, "compression": "none", "rawBytes": 1, "messages": messages}
        peer.publish(TOPIC, "Batch", batch, seq=5)
        assert len(list(replay)) == 2_501
        assert [one["seq"] for one in asked(peer, "AcknowledgePrices")][:3] == [2_504] * 3


def test_a_restarted_broker_has_no_price_replays(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_module, "STATUS_AFTER", 20.0)
    broker = Broker()
    with Peer(home, broker.script) as first:
        client = connect(first)
        replay = client.replay("S", "1m", speed=1)
        first.wait_for_subscription(TOPIC)
    with Peer(home), client:
        with pytest.raises(NotFound, match="the broker was restarted"):
            replay.next(timeout=20)
        with replay:
            pass  # to leave the block is no error either


def test_a_warning_states_lost_prices(home: Path) -> None:
    broker = Broker()
    kept = {"topic": TOPIC, "fromSeq": 5, "toSeq": 6, "oldestSeq": 7, "messages": []}
    script = {**broker.script, "FetchMissed": lambda data: {**kept, "fromSeq": data["fromSeq"]}}
    with Peer(home, script) as peer, connect(peer) as client:
        replay = client.replay("S", "1m", bars_per_second=1)
        peer.wait_for_subscription(TOPIC)
        peer.publish(TOPIC, "PriceUpdate", broker.price(), seq=7)
        with pytest.warns(backtestr.GapWarning, match="messages 5 to 6 of prices.S.1m came faster"):
            assert replay.next(timeout=10) is not None


@pytest.mark.parametrize("rate", [{}, {"speed": 1.0, "bars_per_second": 1.0}, {"as_fast_as_read": False}], ids=str)
def test_there_is_exactly_one_rate(home: Path, rate: Any) -> None:
    with Peer(home) as peer, connect(peer) as client, pytest.raises(ValueError, match="give one of bars_per_second"):
        client.replay("S", "1m", **rate)


def test_a_start_that_timed_out_is_taken_back(home: Path) -> None:
    script = {**Broker().script, "StartPriceReplay": lambda _: SILENCE}
    with Peer(home, script) as peer, backtestr.connect(connection_file=peer.file, request_timeout=0.2) as client:
        with pytest.raises(TimedOut):
            client.replay("S", "1m", speed=1)
        [started], [stopped] = asked(peer, "StartPriceReplay")[:1], asked(peer, "StopPriceReplay")
        assert stopped == {"replayId": started["replayId"]}


def test_other_price_replays_can_be_listed_and_stopped(home: Path) -> None:
    broker = Broker()
    with Peer(home, broker.script) as peer, connect(peer) as client:
        assert [one.status for one in client.list_replays()] == ["running"]
        assert client.stop_replay("r9") == "stopped"


def test_feeds_publish_mappings_and_price_updates(home: Path) -> None:
    with Peer(home, Broker().script) as peer, connect(peer) as client:
        update = backtestr.PriceUpdate(**{**PRICE, "timeframe": "tick"}, replay_id="is not sent on")
        assert client.publish_prices([PRICE, update]) == 2
        assert asked(peer, "PublishPrices") == [{"prices": [PRICE, {**PRICE, "timeframe": "tick"}]}]


def test_a_failure_without_an_error_raises_a_system_fault(home: Path) -> None:
    broker = Broker()
    with Peer(home, broker.script) as peer, connect(peer) as client:
        replay = client.replay("S", "1m", bars_per_second=1)
        broker.more = {"status": "failed"}
        with pytest.raises(SystemFault):
            replay.next()
