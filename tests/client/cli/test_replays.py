"""`backtestr replay` and `backtestr replays`, against a scripted broker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backtestr.cli.console import EXIT_ERROR, EXIT_USAGE
from support.client.answers import PRICE
from support.client.command_line import asked, read_json, type_in
from support.client.peer import Peer

TOPIC = "prices.S.1m"


class Broker:
    """A script with one price replay of two bars, which are fetched as missed messages."""

    def __init__(self) -> None:
        self.replay_id = ""

    @property
    def script(self) -> dict[str, Any]:
        return {
            "StartPriceReplay": self.start,
            "StopPriceReplay": lambda data: {**data, "status": "stopped"},
            "GetPriceReplayStatus": lambda _: self.status(),
            "ListPriceReplays": lambda _: {"replays": [self.status()]},
            "FetchMissed": self.fetch,
        }

    def start(self, data: Any) -> dict[str, Any]:
        self.replay_id = data["replayId"]
        return {"replayId": self.replay_id, "topic": TOPIC, "fromSeq": 1, "bars": 2}

    def status(self) -> dict[str, Any]:
        return {
            **{"replayId": self.replay_id, "clientId": "c", "symbol": "S", "timeframe": "1m", "bars": 2},
            **{"startTime": 0, "endTime": 1, "position": 2, "progressPercent": 100.0, "speed": 60.0},
            **{"status": "completed", "lastSeq": 2},
        }

    def fetch(self, data: Any) -> dict[str, Any]:
        prices = [{**PRICE, "timestamp": 60_000 * seq, "replayId": self.replay_id} for seq in (1, 2)]
        kept = [
            {"seq": seq, "payload": {"type": "PriceUpdate", "data": price}} for seq, price in enumerate(prices, start=1)
        ]
        first = data["fromSeq"]
        return {"topic": data["topic"], "fromSeq": first, "toSeq": 2, "oldestSeq": 1, "messages": kept[first - 1 :]}


@pytest.mark.parametrize(
    "rates", [(), ("--speed", "1", "--as-fast-as-read"), ("--speed", "1", "--bars-per-second", "1")]
)
def test_there_is_exactly_one_rate(home: Path, rates: tuple[str, ...]) -> None:
    with Peer(home) as peer:
        result = type_in(peer, "replay", "S", "--timeframe", "1m", *rates)
        assert result.exit_code == EXIT_USAGE
        assert "give one of --speed" in result.output
        assert asked(peer, "StartPriceReplay") == []


def test_each_price_is_a_line_and_the_end_stops_the_price_replay(home: Path) -> None:
    broker = Broker()
    with Peer(home, broker.script) as peer:
        words = ("replay", "S", "--timeframe", "1m", "--speed", "60", "--start", "2022-01-03")
        result = type_in(peer, *words, "--json")
        assert result.exit_code == 0, result.output
        assert [json.loads(line)["timestamp"] for line in result.stdout.splitlines()] == [60_000, 120_000]
        [request] = asked(peer, "StartPriceReplay")
        assert (request["speed"], request["startTime"]) == (60.0, 1_641_168_000_000)
        assert asked(peer, "StopPriceReplay") == [{"replayId": broker.replay_id}]


def test_prices_are_printed_with_time_last_and_volume(home: Path) -> None:
    with Peer(home, Broker().script) as peer:
        lines = type_in(peer, "replay", "S", "--timeframe", "1m", "--speed", "60").stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["1970-01-01", "00:01", "1", "0"],
        ["1970-01-01", "00:02", "1", "0"],
    ]


def test_price_replays_are_listed_and_one_of_any_client_is_stopped(home: Path) -> None:
    with Peer(home, Broker().script) as peer:
        listed = read_json(type_in(peer, "replays", "--stop", "r9", "--json"))
        assert [one["status"] for one in listed] == ["completed"]
        assert asked(peer, "StopPriceReplay") == [{"replayId": "r9"}]
        assert "60 × real time" in type_in(peer, "replays").stdout


def test_an_unknown_price_replay_is_an_error(home: Path) -> None:
    with Peer(home) as peer:
        assert type_in(peer, "replays", "--stop", "r9").exit_code == EXIT_ERROR
