"""A scheduler that does not answer is named at once, with what to do; `integration/test_cluster.py` has real ones."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import ClassVar, cast

import pytest
from distributed import KilledWorker
from distributed.scheduler import WorkerState

from backtestr_engine.cluster.io import dask_link
from backtestr_engine.cluster.io.dask_link import (
    DaskLink,
    Killed,
    LinkEvent,
    LinkLost,
    Raised,
    Returned,
    Vanished,
    check_reachable,
)
from backtestr_protocol.errors import ClusterUnavailable, InvalidConfiguration


def test_an_address_where_somebody_listens_is_reachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        check_reachable(f"tcp://127.0.0.1:{listener.getsockname()[1]}")


@pytest.mark.parametrize("connect", [check_reachable, DaskLink])
def test_one_where_nobody_does_is_named(connect: Callable[[str], object]) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ClusterUnavailable, match=f"the Dask scheduler at {address} does not answer") as refused:
            connect(address)
    assert refused.value.details == {"scheduler": address}


def test_a_port_that_is_none_is_no_crash() -> None:
    with pytest.raises(ClusterUnavailable, match="does not answer"):
        check_reachable("tcp://127.0.0.1:99999")


def test_without_dask_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_link, "find_spec", lambda _name: None)
    with pytest.raises(InvalidConfiguration, match=r"pip install 'backtestr\[cluster\]'"):
        check_reachable("tcp://127.0.0.1:1")


class Future:
    """A call of Dask's client, as its end leaves it."""

    def __init__(self, status: str, result: object = None) -> None:
        self.status = status
        self._result = result
        self.is_cancelled = False

    def add_done_callback(self, function: Callable[[Future], None]) -> None:
        function(self)

    def result(self, timeout: float) -> object:
        if isinstance(self._result, Exception):
            raise self._result
        return self._result

    def exception(self, timeout: float) -> object:
        return self._result

    def cancel(self) -> None:
        self.is_cancelled = True


class FakeClient:
    """Dask's client, whose calls end as the test says."""

    ends: ClassVar[list[Future]] = []
    submitted: ClassVar[list[dict[str, object]]] = []

    def __init__(self, _address: str, **_how: object) -> None:
        self.status = "running"
        self.scheduler = self

    def ncores(self) -> None: ...

    def sync(self, _function: object, *, callback_timeout: float) -> dict[str, int]:
        return {"tcp://10.0.0.2:1": 1}

    def submit(self, _function: object, _data: bytes, **how: object) -> Future:
        self.submitted.append(how)
        return self.ends[len(self.submitted) - 1]

    def close(self, timeout: float) -> None:
        self.status = "closed"


@pytest.fixture
def link(monkeypatch: pytest.MonkeyPatch) -> DaskLink:
    monkeypatch.setattr("distributed.Client", FakeClient)
    monkeypatch.setattr(dask_link, "check_reachable", lambda _address: None)
    monkeypatch.setattr(FakeClient, "ends", [])
    monkeypatch.setattr(FakeClient, "submitted", [])
    return DaskLink("tcp://10.0.0.1:8786")


def ended(link: DaskLink, future: Future) -> list[LinkEvent]:
    FakeClient.ends.append(future)
    link.call(f"block-{len(FakeClient.ends)}", bytes, "tcp://10.0.0.2:1", b"")
    return link.events(5.0)


def test_a_call_goes_to_one_worker_and_no_other(link: DaskLink) -> None:
    assert link.addresses() == {"tcp://10.0.0.2:1"}
    assert ended(link, Future("finished", b"rows")) == [Returned("block-1", b"rows")]
    [how] = FakeClient.submitted
    assert (how["workers"], how["allow_other_workers"], how["pure"]) == (["tcp://10.0.0.2:1"], False, False)


def test_the_ends_of_calls_are_told_apart(link: DaskLink) -> None:
    killed = KilledWorker("block", cast("WorkerState", None), 3)
    assert ended(link, Future("error", ValueError("no"))) == [Raised("block-1", "ValueError: no")]
    assert ended(link, Future("error", killed)) == [Killed("block-2")]
    assert ended(link, Future("finished", TimeoutError())) == [Vanished("block-3")]


def test_a_result_that_was_lost_before_it_was_read_is_not_a_lost_scheduler(link: DaskLink) -> None:
    again = Future("pending")
    assert ended(link, again) == [Vanished("block-1")]
    assert again.is_cancelled, "Dask would compute it again, on whatever is behind that address"


def test_a_forgotten_call_is_a_lost_scheduler(link: DaskLink) -> None:
    with pytest.raises(LinkLost):
        ended(link, Future("cancelled"))


def test_a_call_that_was_cancelled_here_is_silent(link: DaskLink) -> None:
    FakeClient.ends.append(Future("cancelled"))
    link.call("block-1", bytes, "tcp://10.0.0.2:1", b"")
    link.cancel("block-1")
    assert link.events(0.01) == []


class LateFuture(Future):
    """A call whose end is told when the test says."""

    def add_done_callback(self, function: Callable[[Future], None]) -> None:
        self._function = function

    def tell(self, status: str, result: object = None) -> None:
        self.status, self._result = status, result
        self._function(self)


def test_the_late_end_of_a_cancelled_call_is_not_that_of_the_next_one_with_its_key(link: DaskLink) -> None:
    """A span that ends cancels its greeting of a worker, and the next one greets it again."""
    first, second = LateFuture("pending"), LateFuture("pending")
    FakeClient.ends += [first, second]
    link.call("greet-a", bytes, "tcp://10.0.0.2:1", b"")
    link.cancel("greet-a")
    link.call("greet-a", bytes, "tcp://10.0.0.2:1", b"")
    first.tell("cancelled")
    assert link.events(0.01) == []
    assert not second.is_cancelled
    second.tell("finished", b"hello")
    assert link.events(5.0) == [Returned("greet-a", b"hello")]
    assert len({how["key"] for how in FakeClient.submitted}) == 2, "Dask may answer one by the other"


def test_a_connection_that_is_no_longer_there_is_noticed_by_every_call(link: DaskLink) -> None:
    link.close()
    for ask in (link.addresses, lambda: link.events(0.01), lambda: link.call("block-1", bytes, "a", b"")):
        with pytest.raises(LinkLost):
            ask()


@pytest.mark.parametrize("error", [AssertionError(), OSError("closed"), TimeoutError(), RuntimeError("no loop")])
def test_a_client_that_is_about_to_end_is_a_lost_scheduler(
    link: DaskLink, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(*_given: object, **_named: object) -> None:
        raise error

    monkeypatch.setattr(FakeClient, "sync", broken)
    monkeypatch.setattr(FakeClient, "submit", broken)
    for ask in (link.addresses, lambda: link.call("block-1", bytes, "a", b"")):
        with pytest.raises(LinkLost):
            ask()
