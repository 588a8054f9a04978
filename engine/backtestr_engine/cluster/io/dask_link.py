"""The connection to a Dask scheduler: calls of functions on certain workers, and what comes of them.

Dask's client has threads of its own; this object belongs to one thread, which asks for `events`. Every call has a
limit, so that a scheduler that is gone is noticed within seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import queue
import socket
import uuid
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from backtestr_protocol.errors import ClusterUnavailable, InvalidConfiguration
from backtestr_protocol.texts import described

if TYPE_CHECKING:
    from distributed import Client, Future

CONNECT_SECONDS = 10.0
"""The longest wait for a scheduler to answer: one on another continent takes one."""

_PROBE_SECONDS = 3.0
_CALL_SECONDS = 20.0
# Rows of a block come through the scheduler: 20 MB at the most.
_GATHER_SECONDS = 30.0
_CLOSE_SECONDS = 2.0

# What Dask's client raises where its connection is about to end: it clears its parts one after the other, and asserts
# that they are there.
_BROKEN = (OSError, TimeoutError, ValueError, RuntimeError, AssertionError, AttributeError)

Function = Callable[[bytes], Any]


class LinkLost(Exception):
    """The scheduler does not answer any more; all calls are lost."""


class Returned(msgspec.Struct, frozen=True):
    """A call has come back, with these bytes."""

    key: str
    data: bytes


class Raised(msgspec.Struct, frozen=True):
    """A call has raised what `message` says."""

    key: str
    message: str


class Killed(msgspec.Struct, frozen=True):
    """The scheduler has given a call up, since it ended one worker after the other."""

    key: str


class Vanished(msgspec.Struct, frozen=True):
    """The result of a call is gone with its worker."""

    key: str


LinkEvent = Returned | Raised | Killed | Vanished


def check_reachable(address: str) -> None:
    """Raise `ClusterUnavailable` if nothing answers at the address of a scheduler, within some seconds.

    Raises `InvalidConfiguration` where Dask is not installed.
    """
    if find_spec("distributed") is None:
        raise InvalidConfiguration(
            "a sweep on a cluster needs Dask: pip install 'backtestr[cluster]', and restart the broker",
            paths=["$.scheduler"],
        )
    parts = urlsplit(address)
    try:
        with socket.create_connection((parts.hostname, parts.port), _PROBE_SECONDS):
            pass
    except (OSError, ValueError) as error:
        raise unavailable(address, described(error)) from error


def unavailable(address: str, reason: str) -> ClusterUnavailable:
    """Return the error of a scheduler that does not answer."""
    return ClusterUnavailable(
        f"the Dask scheduler at {address} does not answer ({reason}); start it (dask scheduler), or see if the address "
        "is right",
        scheduler=address,
    )


class DaskLink:
    """A connection to one scheduler."""

    def __init__(self, address: str) -> None:
        """Connect. Raises `ClusterUnavailable` and `InvalidConfiguration` as `check_reachable` does."""
        check_reachable(address)
        from distributed import Client  # half a second, which a worker without a cluster does not need

        self.address = address
        self._name = uuid.uuid4().hex
        self._calls = itertools.count(1)
        self._futures: dict[str, Future[Any]] = {}
        self._ended: queue.SimpleQueue[tuple[str, Future[Any]]] = queue.SimpleQueue()
        try:
            self._client: Client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False, name="backtestr")
        except _BROKEN as error:
            raise unavailable(address, described(error)) from error

    def addresses(self) -> set[str]:
        """Return the addresses of the workers that the scheduler has. Raises `LinkLost`."""
        self._check()
        try:
            assert self._client.scheduler is not None
            found = self._client.sync(self._client.scheduler.ncores, callback_timeout=_CALL_SECONDS)
        except _BROKEN as error:
            raise LinkLost(described(error)) from error
        return set(found)

    def call(self, key: str, function: Function, address: str, data: bytes) -> None:
        """Have one worker, and no other, call a function with these bytes. Raises `LinkLost`.

        A key may be used again once its call has ended or was cancelled. Dask has another one for each call: a worker
        that is still at a cancelled one would answer the next by what it was asked before.
        """
        import dask

        self._check()
        try:
            # Bars are larger than what Dask warns of; they go to each worker once.
            with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TB"}):
                future = self._client.submit(
                    function,
                    data,
                    workers=[address],
                    allow_other_workers=False,
                    pure=False,
                    key=f"backtestr-{self._name}-{next(self._calls)}-{key}",
                )
        except _BROKEN as error:
            raise LinkLost(described(error)) from error
        self._futures[key] = future
        future.add_done_callback(lambda _future: self._ended.put((key, future)))

    def cancel(self, key: str) -> None:
        """Forget a call; nothing comes of it any more."""
        future = self._futures.pop(key, None)
        if future is not None:
            with contextlib.suppress(*_BROKEN):
                future.cancel()

    def events(self, seconds: float) -> list[LinkEvent]:
        """Return what has come of calls, after so many seconds at the latest. Raises `LinkLost`."""
        ended: list[tuple[str, Future[Any]]] = []
        with contextlib.suppress(queue.Empty):
            ended.append(self._ended.get(timeout=seconds))
            while True:
                ended.append(self._ended.get_nowait())
        self._check()
        return [event for key, future in ended if (event := self._event(key, future)) is not None]

    def _event(self, key: str, future: Future[Any]) -> LinkEvent | None:
        from distributed import KilledWorker

        if self._futures.get(key) is not future:  # it was cancelled here; the key may be that of a later call by now
            return None
        del self._futures[key]
        if future.status == "finished":
            try:
                return Returned(key, future.result(timeout=_GATHER_SECONDS))
            except (*_BROKEN, asyncio.CancelledError):
                self._check()
                return Vanished(key)
        if future.status == "error":
            error = future.exception(timeout=_CALL_SECONDS)
            return Killed(key) if isinstance(error, KilledWorker) else Raised(key, described(error))
        if future.status != "cancelled":  # it had come back, and is to be computed again: its worker was lost since
            future.cancel()
            return Vanished(key)
        raise LinkLost("it has forgotten a call")

    def _check(self) -> None:
        if self._client.status != "running":
            raise LinkLost(f"the connection is {self._client.status}")

    def close(self) -> None:
        """Let go of the scheduler, which forgets all calls."""
        self._futures.clear()
        with contextlib.suppress(Exception):  # it is gone either way
            self._client.close(timeout=_CLOSE_SECONDS)
