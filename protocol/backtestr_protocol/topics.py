"""This module has the topics: how each is spelled, which socket carries it, and how many messages are retained."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import msgspec

from .messages import MessageType

Socket = Literal["prices", "progress", "orders", "positions", "system"]
SOCKETS: tuple[Socket, ...] = ("prices", "progress", "orders", "positions", "system")


class TopicClass(msgspec.Struct, frozen=True):
    """A topic class; `retained` is the size of each topic's ring in messages (PROTOCOL.md, section 7)."""

    prefix: str
    socket: Socket
    message_type: MessageType
    retained: int


CLASSES: tuple[TopicClass, ...] = (
    TopicClass("prices.", "prices", "Stream", 10_000),
    TopicClass("progress.", "progress", "Stream", 1_000),
    TopicClass("orders.", "orders", "Stream", 5_000),
    TopicClass("positions.", "positions", "Stream", 1_000),
    TopicClass("system.status", "system", "Heartbeat", 1),
    TopicClass("system.errors", "system", "Error", 100),
    TopicClass("system.backtests", "system", "Event", 1_000),
    TopicClass("system.watermarks", "system", "Event", 1),
    TopicClass("system.replays", "system", "Event", 1_000),
    TopicClass("state.", "system", "Event", 1_000),
)

STATUS = "system.status"
ERRORS = "system.errors"
BACKTESTS = "system.backtests"
REPLAYS = "system.replays"
WATERMARKS = "system.watermarks"


@lru_cache(maxsize=1024)  # each message of a topic asks
def class_of(topic: str) -> TopicClass | None:
    """Return the class of a topic; None if no topic is spelled like that."""
    for one in CLASSES:
        if topic == one.prefix if not one.prefix.endswith(".") else topic.removeprefix(one.prefix) not in ("", topic):
            return one
    return None


def socket_of(topic: str) -> Socket:
    """Return the socket that carries a topic. Raises `ValueError` where no topic is spelled like that."""
    if (topic_class := class_of(topic)) is None:
        raise ValueError(f"{topic!r} is no topic")
    return topic_class.socket


def sockets_for(prefix: str) -> tuple[Socket, ...]:
    """Return the sockets on which a subscription to `prefix` can match any topic."""
    carrying = {one.socket for one in CLASSES if one.prefix.startswith(prefix) or class_of(prefix) is one}
    return tuple(name for name in SOCKETS if name in carrying)


def prices(symbol: str, timeframe: str) -> str:
    return f"prices.{symbol}.{timeframe}"


def progress(backtest_id: str) -> str:
    return f"progress.{backtest_id}"


def orders(backtest_id: str) -> str:
    return f"orders.{backtest_id}"


def positions(backtest_id: str) -> str:
    return f"positions.{backtest_id}"


def state(key: str) -> str:
    return f"state.{key}"


def state_key(topic: str) -> str | None:
    """Return the key of the shared state whose changes a topic carries; None for another topic."""
    key = topic.removeprefix("state.")
    return None if key == topic else key


def of_backtest(backtest_id: str) -> tuple[str, str, str]:
    return progress(backtest_id), orders(backtest_id), positions(backtest_id)


def backtest_of(topic: str) -> str | None:
    """Return the id of the backtest whose orders, positions or progress a topic carries; None for another topic."""
    kind, _, backtest_id = topic.partition(".")
    return backtest_id if backtest_id and kind in ("progress", "orders", "positions") else None
