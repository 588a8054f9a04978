"""The I/O thread recovers on real sockets against a scripted broker: states, errors, offline queue and circuit."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

import backtestr
from backtestr.client import Client
from backtestr.core.recovery import Recovery
from backtestr_protocol.connection import encode_connection
from backtestr_protocol.errors import (
    AuthenticationError,
    Busy,
    DataError,
    NetworkError,
    NotFound,
    SystemFault,
    TimedOut,
    ValidationError,
)
from backtestr_protocol.secret import Secret
from support.client.answers import PRICE, connect, nothing_missed
from support.client.peer import SILENCE, WALL_MS, Peer, welcome
from support.harness import wait_until

QUICK = Recovery(base_delay=0.01, max_delay=0.05, jitter=0.01)


class States:
    """The connection states of a client, as a callback receives them."""

    def __init__(self, client: Client) -> None:
        self.seen: list[str] = []
        self._changed = threading.Condition()
        client.connection_changed.connect(self._on_change)

    def _on_change(self, sender: Client, *, state: str, previous: str) -> None:
        with self._changed:
            assert previous == (self.seen[-1] if self.seen else "ready")
            self.seen.append(state)
            self._changed.notify_all()

    def wait_for(self, *states: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.seen[: len(states)] == list(states), 10), self.seen


@pytest.fixture
def another_key(home: Path) -> Iterator[Peer]:
    """Run a broker whose connection file has another key than its own."""
    with Peer(home, write_file=False) as peer:
        signing = msgspec.structs.replace(peer.connection.signing, key=Secret(os.urandom(32)))
        peer.write(msgspec.structs.replace(peer.connection, signing=signing))
        yield peer


def write_file(peer: Peer) -> None:
    peer.write(msgspec.structs.replace(peer.connection, instance_id="another"))


# --- the connection's state ---


def test_a_client_is_ready_until_it_is_closed(home: Path) -> None:
    with Peer(home) as peer:
        client = connect(peer)
        states = States(client)
        found = [client.state]
        client.close()
        assert [*found, client.state] == ["ready", "closed"]
        assert states.seen == ["closed"]


def test_a_client_reconnects_to_a_broker_that_comes_back(home: Path) -> None:
    with Peer(home) as first:
        client = connect(first)
        states = States(client)
    with client:
        states.wait_for("reconnecting")
        assert client.state == "reconnecting"
        assert client.statistics.sessions == 1
        with Peer(home):
            states.wait_for("reconnecting", "ready")
            assert client.ping() == WALL_MS
            assert client.statistics.sessions == 2
            assert states.seen == ["reconnecting", "ready"]


def test_a_connection_that_breaks_is_made_again_with_a_new_session(home: Path) -> None:
    with Peer(home) as peer, connect(peer, recovery=QUICK) as client:
        states = States(client)
        peer.hang_up()
        states.wait_for("reconnecting", "ready")
        assert client.ping() == WALL_MS
        assert [kind for kind, *_ in peer.asked].count("Hello") == 2
        assert [one.severity for one in client.errors(severity="Info")] == ["Warning", "Info"]
        [lost] = client.errors
        assert isinstance(lost.error, NetworkError)
        assert lost.about == "connection"


def test_a_key_that_is_never_accepted_is_an_authentication_error(another_key: Peer) -> None:
    with pytest.raises(AuthenticationError, match="does not take this client's key"):
        connect(another_key, timeout=0.5)


def test_the_next_connection_file_ends_the_refusal_of_a_key(another_key: Peer) -> None:
    with ThreadPoolExecutor(1) as pool:
        connecting = pool.submit(connect, another_key, timeout=30.0)
        wait_until(lambda: another_key._peer != b"", 10)  # it was refused
        write_file(another_key)
        with connecting.result() as client:
            assert client.state == "ready"
            assert client.ping() == WALL_MS


def test_a_new_connection_file_with_a_wrong_key_is_reported(home: Path) -> None:
    with Peer(home) as peer, connect(peer, request_timeout=0.3) as client:
        states = States(client)
        signing = msgspec.structs.replace(peer.connection.signing, key=Secret(os.urandom(32)))
        forged = msgspec.structs.replace(peer.connection, signing=signing, instance_id="forged")
        peer.write(forged)
        states.wait_for("reconnecting", "auth_failed")
        assert client.state == "auth_failed"
        with pytest.raises(AuthenticationError, match="never sent"):
            client.ping()
        write_file(peer)
        states.wait_for("reconnecting", "auth_failed", "reconnecting", "ready")
        assert client.ping() == WALL_MS


def test_a_client_waits_for_the_connection_file_of_another_broker_at_the_same_address(home: Path) -> None:
    """A restarted broker listens before it writes its connection file, and the old key is not at fault."""
    with Peer(home) as first:
        client = connect(first)
        states = States(client)
    with client, Peer(home, write_file=False, at=first) as second:
        wait_until(lambda: second._peer != b"", 10)  # the old key was refused
        write_file(second)
        states.wait_for("reconnecting", "ready")
        assert client.ping() == WALL_MS
        assert states.seen == ["reconnecting", "ready"]


# --- a client without a connection file ---


@contextlib.contextmanager
def without_a_file(peer: Peer) -> Iterator[Client]:
    """Give a client that was given a connection, and can learn of no other."""
    with Client(peer.connection, request_timeout=60.0) as client:
        yield client


def test_a_client_without_a_file_fails_what_waits_once_another_broker_is_at_its_address(home: Path) -> None:
    silence = {"GetSystemStatus": lambda _: SILENCE}
    with ThreadPoolExecutor(2) as pool, contextlib.ExitStack() as stack:
        with Peer(home, silence, write_file=False) as first:
            client = stack.enter_context(without_a_file(first))
            states = States(client)
            prices = client.subscribe("prices.")
            sent = pool.submit(client.status)
            wait_until(lambda: any(kind == "GetSystemStatus" for kind, *_ in first.asked), 10)
        states.wait_for("reconnecting")
        queued = pool.submit(client.ping)
        wait_until(lambda: client.statistics.queued == 1, 10)
        with Peer(home, write_file=False, at=first):
            for waiting in (sent, queued):
                with pytest.raises(AuthenticationError, match=r"another broker.*Make a new client"):
                    waiting.result(timeout=10)
            with pytest.raises(AuthenticationError, match="another broker"):
                prices.next(timeout=10)
            states.wait_for("reconnecting", "auth_failed")
            with pytest.raises(AuthenticationError, match="another broker"):
                client.ping()


def test_a_client_without_a_file_waits_for_its_own_broker(home: Path) -> None:
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(1) as pool:
        with Peer(home, write_file=False) as first:
            client = stack.enter_context(without_a_file(first))
            states = States(client)
        states.wait_for("reconnecting")
        waiting = pool.submit(client.ping)
        wait_until(lambda: client.statistics.queued == 1, 10)
        with Peer(home, write_file=False, at=first, key=first.connection.signing.key):
            assert waiting.result(timeout=10) == WALL_MS
            states.wait_for("reconnecting", "ready")


def test_a_client_without_a_file_is_served_again_when_its_own_broker_is_back(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backtestr.io.io_thread.LOCKED_OUT_INTERVAL", 0.05)
    with contextlib.ExitStack() as stack:
        with Peer(home, write_file=False) as first:
            client = stack.enter_context(without_a_file(first))
            states = States(client)
        with Peer(home, write_file=False, at=first):
            states.wait_for("reconnecting", "auth_failed")
            with pytest.raises(AuthenticationError, match="another broker"):
                client.ping()
        with Peer(home, write_file=False, at=first, key=first.connection.signing.key):
            states.wait_for("reconnecting", "auth_failed", "ready")
            assert client.ping() == WALL_MS


def test_after_the_refusal_of_a_key_the_connection_file_is_read_again(
    another_key: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read even if place, size and time of the file are the same as before."""
    monkeypatch.setattr("backtestr.core.session.HELLO_TIMEOUT", 0.1)
    with ThreadPoolExecutor(1) as pool:
        connecting = pool.submit(connect, another_key, timeout=30.0, recovery=QUICK)
        wait_until(lambda: another_key._peer != b"", 10)
        stamp = another_key.file.stat()
        right = msgspec.structs.replace(another_key.connection, instance_id=str(uuid.uuid4()))
        with another_key.file.open("r+b") as file:
            file.write(encode_connection(right))
        os.utime(another_key.file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        assert another_key.file.stat().st_size == stamp.st_size
        with connecting.result() as client:
            assert client.state == "ready"


def test_each_reconnection_waits_longer(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[int] = []

    def quick(policy: Recovery, attempt: int, chance: float) -> float:
        assert 0.0 <= chance < 1.0
        waits.append(attempt)
        return 0.001

    monkeypatch.setattr("backtestr.core.session.HELLO_TIMEOUT", 0.05)
    monkeypatch.setattr("backtestr.io.io_thread.backoff", quick)
    hellos: list[Any] = []

    def silent(data: Any) -> Any:
        hellos.append(data)
        return SILENCE if len(hellos) < 5 else welcome()

    with Peer(home, {"Hello": silent}) as peer, connect(peer, timeout=30.0) as client:
        assert client.ping() == WALL_MS
        assert waits[:3] == [1, 2, 3]  # the first time at once
        assert [report.about for report in client.errors] == ["connection"]
        monkeypatch.setattr("backtestr.core.session.HELLO_TIMEOUT", 5.0)
        before = len(waits)
        peer.hang_up()
        wait_until(lambda: client.statistics.sessions == 2, 10)
        assert len(waits) == before + 1, "a connection that did not last counts as one more loss"
        monkeypatch.setattr("backtestr.io.io_thread.LASTING_SECONDS", 0.0)
        peer.hang_up()
        wait_until(lambda: client.statistics.sessions == 3, 10)
        assert len(waits) == before + 1, "after a connection that lasted the waits begin again"


def test_a_callback_may_send_requests(home: Path) -> None:
    answers: list[int] = []
    answered = threading.Event()

    def ask(sender: Client, *, state: str, previous: str) -> None:
        if state == "ready":
            answers.append(sender.ping())
            answered.set()

    with Peer(home) as peer, connect(peer, recovery=QUICK) as client:
        client.connection_changed.connect(ask)
        peer.hang_up()
        assert answered.wait(10)
    assert answers == [WALL_MS]


def test_a_callback_that_fails_is_logged_and_stops_nothing(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fail(sender: Client, **_: Any) -> None:
        raise ZeroDivisionError

    with Peer(home) as peer, connect(peer, recovery=QUICK) as client:
        client.connection_changed.connect(fail)
        states = States(client)
        peer.hang_up()
        states.wait_for("reconnecting", "ready")
        assert client.ping() == WALL_MS
    assert "a callback failed" in caplog.text


# --- the offline queue and the circuit ---


def test_requests_wait_for_the_broker_and_those_beyond_the_offline_queue_are_refused(home: Path) -> None:
    with Peer(home) as first:
        client = connect(first, recovery=Recovery(offline_queue=3))
        states = States(client)
    with client, ThreadPoolExecutor(3) as pool:
        states.wait_for("reconnecting")
        waiting = [pool.submit(client.ping) for _ in range(3)]
        wait_until(lambda: client.statistics.queued == 3, 10)
        with pytest.raises(backtestr.OfflineQueueFull, match="3 requests wait"):
            client.ping()
        with Peer(home) as second:
            assert [one.result(timeout=10) for one in waiting] == [WALL_MS] * 3
            assert [kind for kind, *_ in second.asked] == ["Hello", "Ping", "Ping", "Ping"]
            assert (client.statistics.queued, client.statistics.dropped) == (0, 1)
            assert [report.about for report in client.errors] == ["connection", "Ping"]


def test_after_too_many_failures_requests_fail_at_once_until_one_succeeds(home: Path) -> None:
    silent = threading.Event()
    silent.set()
    answer = {"GetSystemStatus": lambda _: SILENCE if silent.is_set() else NotFound("nothing here")}
    recovery = Recovery(breaker_failures=2, breaker_reset=1.5)
    with Peer(home, answer) as peer, connect(peer, request_timeout=0.3, recovery=recovery) as client:
        for _ in range(2):
            with pytest.raises(TimedOut):
                client.status()
        asked = len(peer.asked)
        with pytest.raises(backtestr.CircuitOpen, match="the last 2 requests"):
            client.status()
        assert len(peer.asked) == asked
        silent.clear()
        wait_until(lambda: client._io_thread._breaker.state(time.monotonic()) == "half_open", 10)
        with pytest.raises(NotFound, match="nothing here"):
            client.status()
        assert client._io_thread._breaker.state(time.monotonic()) == "closed"
        assert client.statistics.dropped == 1


# --- errors ---


def test_errors_are_kept_counted_and_given_to_callbacks_by_severity(home: Path) -> None:
    reported: list[tuple[str, str]] = []
    script = {"GetSystemStatus": lambda _: SystemFault("no"), "ListAlgorithms": lambda _: Busy("no")}
    recovery = Recovery(automatic=False)
    with Peer(home, script) as peer, connect(peer, recovery=recovery) as client:
        stop = client.on_error(lambda report: reported.append(("any", report.about)))
        client.on_error(lambda report: reported.append(("critical", report.about)), severity="Critical")
        for ask in (client.status, client.list_algorithms, client.list_market_data):
            with pytest.raises(backtestr.errors.BacktestrError):
                ask()
        stop()
        with pytest.raises(SystemFault):
            client.status()
        assert [(one.about, one.severity) for one in client.errors] == [
            ("GetSystemStatus", "Critical"),
            ("ListAlgorithms", "Warning"),
            ("ListMarketData", "Error"),
            ("GetSystemStatus", "Critical"),
        ]
        assert client.errors[1].error.recovery_actions[0].action == "wait"
        assert client.statistics.errors == client.statistics.failed == 4
    assert reported == [
        ("any", "GetSystemStatus"),
        ("critical", "GetSystemStatus"),
        ("any", "ListAlgorithms"),
        ("any", "ListMarketData"),
        ("critical", "GetSystemStatus"),
    ]


def test_a_refused_request_has_recovery_actions_and_is_not_resent(home: Path) -> None:
    with Peer(home, {"ListAlgorithms": lambda _: ValidationError("$.x: no", path="$.x")}) as peer:
        with connect(peer) as client, pytest.raises(ValidationError) as refused:
            client.list_algorithms()
        assert refused.value.recovery_actions[0].user_required
        assert [kind for kind, *_ in peer.asked].count("ListAlgorithms") == 1


def test_a_request_is_retried_after_a_fault(home: Path) -> None:
    answers: list[Any] = [SystemFault("no"), SystemFault("no"), {"algorithms": []}]
    with Peer(home, {"ListAlgorithms": lambda _: answers.pop(0)}) as peer, connect(peer, recovery=QUICK) as client:
        assert client.list_algorithms() == []
        assert len({request_id for kind, request_id, _ in peer.asked if kind == "ListAlgorithms"}) == 1
        assert client.statistics.resent == 2
        assert client.errors == ()


def test_lost_messages_are_an_error_and_counted(home: Path) -> None:
    def gone(data: dict[str, Any]) -> dict[str, Any]:
        return nothing_missed(data) | ({"toSeq": 4, "oldestSeq": 5} if data["fromSeq"] == 2 else {})

    with Peer(home, {"FetchMissed": gone}) as peer, connect(peer) as client, client.subscribe("prices.") as prices:
        peer.wait_for_subscription("prices.")
        peer.publish("prices.S.1m", "PriceUpdate", PRICE)
        peer.publish("prices.S.1m", "PriceUpdate", PRICE, seq=5)
        assert [type(prices.next(timeout=10)).__name__ for _ in range(3)] == ["Update", "Gap", "Update"]
        [lost] = client.errors
        assert (lost.about, lost.severity, str(lost.error)) == (
            "prices.S.1m",
            "Warning",
            "messages 2 to 4 of prices.S.1m are lost",
        )
        counted = client.statistics
        assert (counted.gaps_seen, counted.gaps_lost, counted.messages_lost, counted.gaps_open) == (1, 1, 3, 0)


def test_errors_of_the_broker_are_kept_while_the_program_subscribes_to_them(home: Path) -> None:
    fault = DataError("the disk is full").to_data(component="engine", timestamp=1)
    with Peer(home) as peer, connect(peer) as client:
        everything, errors = client.subscribe("system."), client.subscribe("system.errors")
        peer.wait_for_subscription("system.errors")
        peer.publish("system.errors", "Error", fault)
        assert everything.next(timeout=10) is not None
        assert errors.next(timeout=10) is not None
        [report] = client.errors  # once, though two subscriptions have it
        assert (report.about, str(report.error)) == ("system.errors", "the disk is full")
