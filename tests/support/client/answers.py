"""Answers and stream messages of a scripted broker, which several test files need."""

from __future__ import annotations

from typing import Any

import backtestr
from backtestr.client import Client

from .peer import WALL_MS, Peer

PRICE = {"symbol": "S", "timestamp": 1, "bid": 1.0, "ask": 1.0, "last": 1.0, "volume": 0.0, "timeframe": "1m"}


def status(state: str, **more: Any) -> dict[str, Any]:
    return {
        "backtestId": "b1",
        "status": state,
        "algorithmId": "a",
        "symbol": "S",
        "progressPercent": 100.0,
        "submitTime": WALL_MS,
        **more,
    }


def order(number: int) -> dict[str, Any]:
    return {
        "orderId": str(number),
        "backtestId": "b1",
        "symbol": "S",
        "side": "buy",
        "quantity": 1.0,
        "price": 1.0,
        "orderType": "market",
        "status": "filled",
        "timestamp": 1,
    }


def nothing_missed(data: dict[str, Any]) -> dict[str, Any]:
    last = data["fromSeq"] - 1
    return {"topic": data["topic"], "fromSeq": data["fromSeq"], "toSeq": last, "oldestSeq": 1, "messages": []}


STARTING = {
    "StartBacktest": lambda data: {"backtestId": data["backtestId"], "status": "queued"},
    "FetchMissed": nothing_missed,
}


def connect(peer: Peer, **options: Any) -> Client:
    return backtestr.connect(connection_file=peer.file, **options)
