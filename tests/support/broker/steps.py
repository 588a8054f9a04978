"""These steps are shared by many tests of backtests."""

from __future__ import annotations

from collections.abc import Callable

from support.broker.clients import Client
from support.broker.link import Link, Worker, config

MakeLink = Callable[..., Link]
B1 = {"backtestId": "b1"}


def start(client: Client, *backtest_ids: str) -> None:
    for backtest_id in backtest_ids:
        client.ask("StartBacktest", config(backtestId=backtest_id))


def start_paced(client: Client, *backtest_ids: str) -> None:
    """Start backtests that have a pace."""
    for backtest_id in backtest_ids:
        client.ask("StartBacktest", config(backtestId=backtest_id, options={"pace": 50.0}))


def lend(client: Client, worker: Worker, *backtest_ids: str) -> None:
    """Start paced backtests on a worker that is idle, and have each lend it."""
    for backtest_id in backtest_ids:
        start_paced(client, backtest_id)
        worker.lent(backtest_id)


def status(client: Client, backtest_id: str = "b1") -> str:
    found: str = client.ask("GetBacktestStatus", {"backtestId": backtest_id})["status"]
    return found


def is_conflict(client: Client, message_id: str, state: str) -> bool:
    (payload,) = client.answers(message_id)
    assert payload["type"] == "Failure"
    return (payload["data"]["code"], payload["data"]["details"]) == ("STATE_CONFLICT", {"status": state})


def paused(client: Client, worker: Worker, backtest_id: str = "b1") -> None:
    asked = client.later("PauseBacktest", {"backtestId": backtest_id})
    worker.paused(backtest_id)
    assert client.answer(asked) == {"backtestId": backtest_id, "status": "paused"}
