"""No failure in the I/O thread, and no fork, leaves a caller waiting."""

from __future__ import annotations

import os
import signal
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import backtestr
from backtestr.client import Client
from support.client.answers import STARTING, connect
from support.client.peer import SILENCE, WALL_MS, Peer
from support.harness import wait_until

SECONDS = 10.0
SILENT = {**STARTING, "GetState": lambda _: SILENCE}
# The steps of the I/O thread, each of which may fail at any of its calls.
STEPS = [
    "backtestr.core.session.Session.request",
    "backtestr.core.session.Session.tick",
    "backtestr.core.session.Session.next_deadline",
    "backtestr.core.session.Session.receive",
    "backtestr.core.session.Session.farewell",
    "backtestr.core.session.Session.disconnected",
    "backtestr.core.subscriptions.Subscriptions.open",
    "backtestr.core.subscriptions.Subscriptions.receive",
    "backtestr.core.subscriptions.Subscriptions.follow",
    "backtestr.core.circuit_breaker.CircuitBreaker.sent",
    "backtestr.core.circuit_breaker.CircuitBreaker.refusal",
    "backtestr.core.stream_errors.StreamErrors.subscribed",
    "backtestr.io.sockets.Sockets.send",
    "backtestr.io.sockets.Sockets.subscribe",
    "backtestr.io.sockets.Sockets.close",
    "backtestr.io.sockets.Sockets.connection_events",
    "backtestr.io.socket_selector.SocketSelector.wait",
    "backtestr.io.socket_selector.SocketSelector.forget",
    "backtestr.io.socket_selector.SocketSelector.close",
    "backtestr.io.io_thread.receive",
    "backtestr.io.io_thread.IoThread._run_once",
    "backtestr.io.io_thread.IoThread._deadline",
    "backtestr.io.io_thread.IoThread._ask",
    "backtestr.io.io_thread.IoThread._execute",
    "backtestr.io.io_thread.IoThread._change_state",
    "backtestr.io.io_thread.IoThread._reload_if_changed",
    "backtestr.io.mailboxes.Mailbox.put",
    "backtestr.io.request_windows.RequestWindows.turn",
]


def waiting_callers(client: Client, pool: ThreadPoolExecutor) -> list[Future[Any]]:
    """Have callers wait for an answer, a message and the end of a backtest that do not come."""
    subscription = client.subscribe("prices.S.1m")
    run = client.backtest("a", "S", timeframe="1d", backtest_id="b1")
    reply = client.pipeline().get_state("a")
    waiting: list[Future[Any]] = [
        pool.submit(client.get_state, "a"),
        pool.submit(reply.result),
        pool.submit(subscription.next, None),
        pool.submit(run.wait, None),
    ]
    wait_until(lambda: client.statistics.requests >= 3, SECONDS)
    return waiting


@pytest.mark.parametrize("fault", [RuntimeError, MemoryError, KeyboardInterrupt])
@pytest.mark.parametrize("step", STEPS)
def test_a_failure_at_any_step_ends_every_wait(
    home: Path, monkeypatch: pytest.MonkeyPatch, step: str, fault: type[BaseException]
) -> None:
    with Peer(home, SILENT) as peer, ThreadPoolExecutor(8) as pool:
        client = connect(peer)
        try:
            waiting = waiting_callers(client, pool)

            def fail(*_: object, **__: object) -> Any:
                raise fault("injected")

            monkeypatch.setattr(step, fail)
            # Whatever wakes the thread: requests, a subscription, messages, the end.
            with_errors: list[Callable[[], object]] = [
                client.ping,
                lambda: client.subscribe("orders.x").next(SECONDS),
                lambda: client.statistics,
                lambda: client.backtest("a", "S", timeframe="1d", backtest_id="b2").wait(SECONDS),
            ]
            asked = [pool.submit(call) for call in with_errors]
            peer.publish("prices.S.1m", "Nonsense", {})
            peer.hang_up()
            closing = pool.submit(client.close)
            closing.exception(SECONDS)
            for one in (*waiting, *asked):
                one.exception(SECONDS)  # it may have been answered before the failure, and must not wait
            state, pipelined, _, end = waiting
            assert isinstance(state.exception(0), RuntimeError)
            assert isinstance(pipelined.exception(0), RuntimeError)
            assert isinstance(end.exception(0), RuntimeError)
            assert client.state == "closed"
            with pytest.raises(RuntimeError, match="closed"):
                client.ping()
        finally:
            monkeypatch.undo()
            client.close()


def test_a_value_that_cannot_be_sent_fails_its_caller_alone(home: Path) -> None:
    with Peer(home, STARTING) as peer, connect(peer) as client:
        with pytest.raises(backtestr.errors.ValidationError, match=r"\$\.parameters\.fast: "):
            client.backtest("a", "S", timeframe="1d", parameters={"fast": object()})
        with pytest.raises(backtestr.errors.ValidationError, match=r"\$\.key: "):
            client.get_state("\ud800")
        assert client.ping() == WALL_MS
        assert {kind for kind, *_ in peer.asked}.isdisjoint({"StartBacktest", "GetState"})


def in_forked_child(check: Callable[[], None]) -> None:
    """Run `check` in a forked child, which must end well within its time."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(5)  # a child that waits is ended
        code = 1
        try:
            check()
            code = 0
        except BaseException:
            traceback.print_exc()
        os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert status == 0, "the child waited, or did not find what it expected"


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_a_client_in_a_forked_child_raises_at_once_and_that_of_the_parent_goes_on(home: Path) -> None:
    with Peer(home, SILENT) as peer, connect(peer) as client:
        subscription = client.subscribe("prices.")
        run = client.backtest("a", "S", timeframe="1d", backtest_id="b1")
        pipe = client.pipeline()
        pipelined = pipe.get_state("a")
        calls: list[Callable[[], object]] = [
            client.ping,
            lambda: client.backtest("a", "S", timeframe="1d"),
            lambda: client.subscribe("orders."),
            lambda: subscription.next(None),
            lambda: run.wait(None),
            lambda: next(iter(run.orders())),
            pipe.ping,
            pipelined.result,
        ]

        def check() -> None:
            for call in calls:
                with pytest.raises(RuntimeError, match=r"was forked; connect in this process \(\d+\) as well"):
                    call()
            client.close()  # does nothing, and does not wait

        in_forked_child(check)
        assert client.ping() == WALL_MS
        assert client.state == "ready"


def test_ctrl_c_while_closing_is_raised_once_all_is_closed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Peer(home) as peer:
        client = connect(peer)
        thread = client._io_thread._own_thread
        wait = thread.wait
        interrupts = [1, 2]

        def interrupted() -> None:
            if interrupts:
                interrupts.pop()
                raise KeyboardInterrupt
            wait()

        monkeypatch.setattr(thread, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            client.close()
        assert not thread.is_alive()
        assert client.state == "closed"
        client.close()


def test_ctrl_c_while_connecting_leaves_no_thread(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = threading.active_count()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with Peer(home) as peer:
        with_peer = threading.active_count()
        monkeypatch.setattr("backtestr.io.mailboxes.PendingReply.read", interrupted)
        with pytest.raises(KeyboardInterrupt):
            connect(peer)
        assert threading.active_count() == with_peer
        monkeypatch.setattr("threading.Thread.start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            connect(peer)
        assert threading.active_count() == with_peer
        monkeypatch.undo()
        with connect(peer) as client:
            assert client.ping() == WALL_MS
    assert threading.active_count() == before
