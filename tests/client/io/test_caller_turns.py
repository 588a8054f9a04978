"""A caller does its own I/O, and nothing that happens to it meanwhile loses an answer or makes others wait."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from backtestr.client import Client
from backtestr.core.updates import Update
from backtestr.io.caller_turns import CallerTurns
from backtestr_protocol.errors import TimedOut
from support.client.answers import PRICE, STARTING, connect
from support.client.peer import SILENCE, WALL_MS, Peer
from support.harness import wait_until

SECONDS = 10.0


def turns(client: Client) -> CallerTurns:
    return client._io_thread._callers


def is_led(client: Client) -> bool:
    return turns(client)._leader is not None


def test_a_lone_caller_asks_nothing_of_the_io_thread(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Peer(home) as peer, connect(peer) as client, ThreadPoolExecutor(1) as pool:
        handed_over: list[str] = []
        ask = client._io_thread.ask

        def count(request_type: str, *rest: Any) -> Any:
            handed_over.append(request_type)
            return ask(request_type, *rest)

        monkeypatch.setattr(client._io_thread, "ask", count)
        for _ in range(50):
            assert client.ping() == WALL_MS  # in the main thread, where Ctrl-C is put off
            assert pool.submit(client.ping).result() == WALL_MS
        assert not is_led(client)
        assert client.statistics.answered == 100
        # The I/O thread is at work at times, as when it has just connected.
        assert len(handed_over) < 50


def waiting_leader(client: Client, pool: ThreadPoolExecutor, call: Callable[[], Any] | None = None) -> Future[Any]:
    """Have a caller lead that gets no answer."""
    wait_until(lambda: turns(client)._may_lead() and turns(client)._turn.is_free, SECONDS)
    waiting = pool.submit(call or partial(client.get_state, "a"))
    wait_until(lambda: is_led(client) and turns(client)._turn.is_free, SECONDS)
    return waiting


SILENT = {**STARTING, "GetState": lambda _: SILENCE}


def test_others_are_served_while_a_leader_waits(home: Path) -> None:
    with Peer(home, SILENT) as peer, ThreadPoolExecutor(1) as pool, connect(peer) as client:
        subscription = client.subscribe("prices.")
        waiting = waiting_leader(client, pool)
        assert client.ping() == WALL_MS
        peer.wait_for_subscription("prices.")
        peer.publish("prices.S.1m", "PriceUpdate", PRICE)
        assert subscription.next(SECONDS) is not None
        assert not waiting.done()
        client.close()
        with pytest.raises(RuntimeError, match="closed"):
            waiting.result(SECONDS)


def test_a_led_call_times_out_in_time(home: Path) -> None:
    with Peer(home, SILENT) as peer, connect(peer, request_timeout=0.2) as client:
        with pytest.raises(TimedOut, match="GetState was not answered"):
            client.get_state("a")
        assert client.ping() == WALL_MS


def test_a_led_call_is_answered_on_the_next_connection(home: Path) -> None:
    silent = [True]

    def pong(_: Any) -> Any:
        return SILENCE if silent else {"timestamp": WALL_MS}

    with Peer(home, {"Ping": pong}) as peer, ThreadPoolExecutor(1) as pool, connect(peer) as client:
        waiting = waiting_leader(client, pool, client.ping)
        silent.clear()
        peer.hang_up()
        assert waiting.result(SECONDS) == WALL_MS


def interrupt_once(
    monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException, *, after: bool
) -> list[BaseException]:
    """Raise `error` in the next call of `step` by a leader, before it begins or `after` it has ended.

    Returns a list that is empty once that has happened.
    """
    path, name = step.rsplit(".", 1)
    module, _, class_name = path.rpartition(".")
    owner: Any = import_module(path) if path.islower() else getattr(import_module(module), class_name)
    original = getattr(owner, name)
    left = [error]

    def cut(*args: Any, **named: Any) -> Any:
        if threading.current_thread().name == "backtestr client" or not left:  # the I/O thread
            return original(*args, **named)
        if after:
            original(*args, **named)
        raise left.pop()

    monkeypatch.setattr(owner, name, cut)
    return left


# The steps of a leader, each of which an exception may cut in two.
STEPS = [
    "backtestr.core.session.Session.request",
    "backtestr.core.session.Session.receive",
    "backtestr.core.session.Session.next_deadline",
    "backtestr.core.circuit_breaker.CircuitBreaker.refusal",
    "backtestr.core.circuit_breaker.CircuitBreaker.sent",
    "backtestr.core.circuit_breaker.CircuitBreaker.ended",
    "backtestr.io.exchange.Exchange.ask",
    "backtestr.io.exchange.Exchange.answered",
    "backtestr.io.exchange.Exchange.is_of_caller",
    "backtestr.io.sockets.Sockets.send",
    "backtestr.io.caller_turns.receive",
    "backtestr.io.caller_turns.has_input",
    "backtestr.io.caller_turns.CallerTurns._begin",
    "backtestr.io.caller_turns.CallerTurns._receive",
    "backtestr.io.caller_turns.CallerTurns._read_on",
    "backtestr.io.caller_turns.CallerTurns._take_in",
    "backtestr.io.caller_turns.CallerTurns._perform",
    "backtestr.io.caller_turns.CallerTurns._leave",
    "backtestr.io.mailboxes.PendingReply.succeed",
]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("fault", [RuntimeError, SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("step", STEPS)
def test_an_exception_in_a_leader_s_step_leaves_a_client_that_can_be_used(
    home: Path, monkeypatch: pytest.MonkeyPatch, step: str, fault: type[BaseException], *, after: bool
) -> None:
    with Peer(home) as peer, connect(peer) as client, ThreadPoolExecutor(4) as pool:
        subscription = client.subscribe("prices.")
        peer.wait_for_subscription("prices.")
        left = interrupt_once(monkeypatch, step, fault("injected"), after=after)
        calls = [pool.submit(client.ping) for _ in range(4)]
        ended = [one.exception(SECONDS) for one in calls]
        assert sum(one is None for one in ended) >= 3, ended  # it interrupts one call, and no other
        with contextlib.suppress(fault):
            while left:  # none of them has led so far
                client.ping()
        assert client.ping() == WALL_MS
        wait_until(lambda: client.statistics.waiting == 0 and client.state == "ready", SECONDS)
        peer.wait_for_subscription("prices.")
        peer.publish("prices.S.1m", "PriceUpdate", PRICE)
        assert subscription.next(SECONDS) is not None
        assert client.ping() == WALL_MS


def test_a_client_can_be_closed_right_after_an_interrupted_step(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Peer(home) as peer:
        client = connect(peer)
        wait_until(lambda: turns(client)._may_lead() and turns(client)._turn.is_free, SECONDS)
        interrupt_once(monkeypatch, "backtestr.core.session.Session.receive", SystemExit("injected"), after=False)
        with pytest.raises(SystemExit, match="injected"):
            client.ping()
        client.close()
        assert client.state == "closed"


def test_a_signal_handler_may_call_while_its_thread_leads(home: Path) -> None:
    silent = [True]
    answered: list[int] = []

    def pong(_: Any) -> Any:
        return SILENCE if silent and not answered else {"timestamp": WALL_MS}

    def ask(_number: int, _frame: FrameType | None) -> None:
        silent.clear()
        answered.append(client.ping())

    def alarm() -> None:
        wait_until(lambda: any(kind == "Ping" for kind, *_ in peer.asked), SECONDS)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, ask)
    try:
        with Peer(home, {"Ping": pong}) as peer, connect(peer, request_timeout=3.0) as client:
            wait_until(lambda: turns(client)._may_lead() and turns(client)._turn.is_free, SECONDS)
            thread = threading.Thread(target=alarm)
            thread.start()
            with pytest.raises(TimedOut):
                client.ping()  # its own answer never comes
            thread.join()
            assert answered == [WALL_MS]
            assert client.ping() == WALL_MS
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_call_in_the_middle_of_a_step_of_its_thread_raises_and_does_not_wait(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised: list[str] = []
    with Peer(home) as peer, connect(peer) as client:
        answered = client._io_thread._exchange.answered

        def finalize(effect: Any) -> Any:
            for call in (client.ping, client.close):
                with pytest.raises(RuntimeError, match="use another thread") as caught:
                    call()
                raised.append(str(caught.value))
            return answered(effect)

        monkeypatch.setattr(client._io_thread._exchange, "answered", finalize)
        assert client.ping() == WALL_MS
        monkeypatch.undo()
        assert len(raised) == 2
        assert client.ping() == WALL_MS


def test_eight_threads_on_one_client_all_go_on_while_prices_flow(home: Path) -> None:
    calls, prices = 150, 300
    with Peer(home) as peer, connect(peer) as client, ThreadPoolExecutor(10) as pool:
        subscription = client.subscribe("prices.")
        peer.wait_for_subscription("prices.")

        def ask() -> int:
            return sum(client.ping() == WALL_MS for _ in range(calls))

        def read() -> list[int]:
            return [one.seq for _ in range(prices) if isinstance(one := subscription.next(SECONDS), Update)]

        reading = pool.submit(read)
        asking = [pool.submit(ask) for _ in range(8)]
        for _ in range(prices):
            peer.publish("prices.S.1m", "PriceUpdate", PRICE)
        assert [one.result(60) for one in asking] == [calls] * 8
        assert reading.result(60) == list(range(1, prices + 1))
        counted = client.statistics
        assert (counted.answered, counted.resent, counted.waiting, counted.sessions) == (8 * calls, 0, 0, 1)
