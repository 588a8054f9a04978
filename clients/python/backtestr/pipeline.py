"""A pipeline sends many requests without waiting for the answer of each: the methods return at once, with a handle."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, TypeVar

import msgspec

from backtestr.core.request_encoding import encode_request
from backtestr.io.io_thread import IoThread
from backtestr.io.request_windows import MAX_WINDOW, PipelinedReply, RequestWindow
from backtestr_protocol.messages import (
    BacktestRef,
    BacktestStatus,
    Contract,
    DeletedState,
    DeleteState,
    GetState,
    Nothing,
    Pong,
    StateEntry,
    UpdatedState,
    UpdateState,
)
from backtestr_protocol.price_messages import PublishedPrices
from backtestr_protocol.state_values import value_bytes
from backtestr_protocol.stream_messages import PriceUpdate

from .arguments import feed_request

T = TypeVar("T")
Answer = TypeVar("Answer", bound=Contract)


class Pipeline:
    """A pipeline of one client, as a context manager; at the end of the `with` block every request is settled.

    Each method makes the request that the client's method of the same name makes, and returns its `PipelinedReply`.
    Errors of the broker are raised by `result()` of their own request. Requests leave in the order in which they are
    made. They are retried as ever, so one that has to be sent again may be executed after later ones. Any number of
    threads may use one pipeline.

    A method raises `ValidationError` for a value that cannot be sent, and `RuntimeError` after the `with` block, once
    the client is closed, and in a forked child.
    """

    def __init__(self, io_thread: IoThread, window: int, timeout: float) -> None:
        """Take the I/O thread to send through, the most requests under way and the `timeout` of each in seconds."""
        if isinstance(window, bool) or not isinstance(window, int) or not 1 <= window <= MAX_WINDOW:
            raise ValueError(f"window: expected a whole number from 1 to {MAX_WINDOW}; {window!r} came")
        self._window = RequestWindow(window, timeout, io_thread.hand_over)

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait until every request is settled. After an exception give up those that are not sent, and do not wait."""
        try:
            if error is None:
                self._window.drain()
        finally:
            self._window.close("this pipeline is closed; a request of it that was not sent by then is given up")

    def ping(self) -> PipelinedReply[int]:
        """Ask for the broker's clock, in milliseconds since the Unix epoch."""
        return self._ask("Ping", Nothing(), Pong, _timestamp)

    def get_state(self, key: str) -> PipelinedReply[StateEntry]:
        """Ask for a key of the shared state with its value and version."""
        return self._ask("GetState", GetState(key=key), StateEntry, _as_it_is)

    def update_state(
        self, key: str, value: Any, *, expected_version: int | None = None
    ) -> PipelinedReply[UpdatedState]:
        """Set a key of the shared state; the reply comes when the change is on disk."""
        request = UpdateState(key=key, value=msgspec.Raw(value_bytes(value)), expected_version=expected_version)
        return self._ask("UpdateState", request, UpdatedState, _as_it_is)

    def delete_state(self, key: str, *, expected_version: int | None = None) -> PipelinedReply[DeletedState]:
        """Delete a key of the shared state; the reply comes when the change is on disk."""
        request = DeleteState(key=key, expected_version=expected_version)
        return self._ask("DeleteState", request, DeletedState, _as_it_is)

    def publish_prices(self, prices: Iterable[PriceUpdate | Mapping[str, Any]]) -> PipelinedReply[int]:
        """Publish live prices, up to 1,000; the reply is their number."""
        return self._ask("PublishPrices", feed_request(prices), PublishedPrices, _published)

    def backtest_status(self, backtest_id: str) -> PipelinedReply[BacktestStatus]:
        """Ask for the status of a backtest."""
        return self._ask("GetBacktestStatus", BacktestRef(backtest_id=backtest_id), BacktestStatus, _as_it_is)

    def _ask(
        self, request_type: str, data: Contract, answer: type[Answer], convert: Callable[[Answer], T]
    ) -> PipelinedReply[T]:
        return self._window.ask(request_type, encode_request(data), convert)


# Functions of the module, since a lambda in a method is one more object for each request that is kept.


def _as_it_is(answer: Answer) -> Answer:
    return answer


def _timestamp(pong: Pong) -> int:
    return pong.timestamp


def _published(answer: PublishedPrices) -> int:
    return answer.published
