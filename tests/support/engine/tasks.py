"""A task runner is driven step by step: these functions assign backtests to it, and read the messages it returns."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import msgpack
import msgspec

from backtestr_engine.worker.price_replays import Sent
from backtestr_engine.worker.task_runner import TaskRunner
from backtestr_protocol.messages import BacktestConfig
from backtestr_protocol.worker_channel import Assign, Published


class Clock:
    """A clock that advances by `step` seconds at every reading."""

    def __init__(self, step: float = 0.0) -> None:
        self.now = 0.0
        self.step = step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def config(**changes: Any) -> BacktestConfig:
    return BacktestConfig(
        **{
            "backtest_id": str(uuid.uuid4()),
            "algorithm_id": "sma_cross",
            "symbol": "SYNTH",
            "start_date": "2000-01-01",
            "end_date": "2100-01-01",
            "initial_capital": 1e5,
            "timeframe": "1d",
            "commission": 0.001,
            "slippage": 0.0,
            "parameters": {},
            **changes,
        }
    )


def to_wire(asked: BacktestConfig) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(asked)
    return found


def assign(runner: TaskRunner, asked: BacktestConfig, **how: Any) -> list[Sent]:
    assert asked.backtest_id is not None
    message = Assign(task_id=asked.backtest_id, work="RunBacktest", **how)
    return runner.take(message, [msgpack.packb(to_wire(asked))])


def run_out(runner: TaskRunner, clock: Clock | None = None) -> list[Sent]:
    sent: list[Sent] = []
    while runner.running:
        sent += runner.step(clock or Clock())
    return sent


def is_event(message: dict[str, Any]) -> bool:
    """Return False for progress and marks, which follow the clock."""
    return message["type"] != "BacktestProgress" and "mark" not in message["data"]


def of_kind(sent: Sequence[Sent], kind: type) -> list[Any]:
    return [message for message, _ in sent if isinstance(message, kind)]


def published_orders(sent: Sequence[Sent]) -> list[Any]:
    found = []
    for message, frames in sent:
        if isinstance(message, Published) and message.topic.startswith("orders."):
            data = msgpack.unpackb(frames[0])
            for one in data["data"]["messages"] if data["type"] == "Batch" else [data]:
                found.append({name: value for name, value in one["data"].items() if name != "backtestId"})
    return found
