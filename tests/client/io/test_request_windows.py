"""A request window loses no request and settles none twice, and the I/O thread wakes whoever waits for it."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any
from unittest import mock

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr.core.recovery import OfflineQueueFull, Recovery
from backtestr.core.request_encoding import encode_request
from backtestr.io.request_windows import MAX_WINDOW, PipelinedReply, RequestWindow, RequestWindows
from backtestr_protocol.errors import BacktestrError, Busy, NetworkError, RateLimitExceeded, SystemFault, TimedOut
from backtestr_protocol.messages import GetState, Nothing, UpdateState
from backtestr_protocol.state_values import value_bytes
from support.client.link import Link

TIMEOUT = 30.0
NOTHING = encode_request(Nothing())
PATIENCE = 10.0


class OnLink:
    """A request window whose requests travel over a link, all in one thread."""

    def __init__(self, link: Link, size: int) -> None:
        self.link = link
        self.windows = RequestWindows(self._send, lambda: link.session.room(MAX_WINDOW))
        self.window = RequestWindow(size, TIMEOUT, self.windows.add)
        self.replies: list[PipelinedReply[Any]] = []
        self.keys: list[str] = []  # of the requests, in their order
        self._sent: dict[str, PipelinedReply[Any]] = {}

    def _send(
        self, request_type: str, data: msgspec.Raw, timeout: float, reply: PipelinedReply[Any], waited: float
    ) -> None:
        self._sent[self.link.send(request_type, data, timeout, waited)] = reply

    def ask(self, number: int) -> None:
        """Set a key of the request's own, as far as that does not have to wait for room."""
        if self.window.under_way < self.window.size:
            value = msgspec.Raw(value_bytes(number))
            self.keys.append(f"asked.n{number}")
            request = encode_request(UpdateState(key=self.keys[-1], value=value))
            self.replies.append(self.window.ask("UpdateState", request, lambda answer: answer))

    def settle(self) -> None:
        """Do what the I/O thread does after each turn."""
        for request_id in [one for one in self._sent if one in self.link.answers]:
            reply, outcome = self._sent.pop(request_id), self.link.answers[request_id]
            assert not reply.done(), "a request was settled twice"
            if isinstance(outcome, BacktestrError):
                reply.fail(outcome)
            else:
                reply.succeed((outcome, []))
        self.windows.turn(self.link.now)
        assert self.window.under_way == sum(not reply.done() for reply in self.replies)
        assert len(self._sent) <= self.window.size

    def finish(self) -> None:
        """Let time pass until every request is settled."""
        for _ in range(4 * int(TIMEOUT)):
            self.link.pump()
            self.settle()
            if not self.window.under_way:
                return
            self.link.advance(0.5, step=0.5)
        raise AssertionError(f"{self.window.under_way} requests are never settled")


@contextlib.contextmanager
def on_link(size: int, recovery: Recovery | None = None) -> Iterator[OnLink]:
    link = Link(recovery)
    with mock.patch("backtestr.io.request_windows.time", SimpleNamespace(monotonic=lambda: link.now)):
        yield OnLink(link, size)
    link.check_invariants()


# --- laws ---

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(1, 8)),
        st.tuples(st.just("carry"), st.integers(1, 8)),
        st.tuples(st.just("lose requests"), st.integers(1, 4)),
        st.tuples(st.just("lose replies"), st.integers(1, 4)),
        st.tuples(st.just("refuse"), st.integers(0, 2)),
        st.tuples(st.just("wait"), st.integers(1, 40)),
        st.tuples(st.just("reconnect"), st.just(0)),
        st.tuples(st.just("restart"), st.integers(0, 8)),
    ),
    max_size=25,
)
REFUSALS: list[BacktestrError] = [Busy("full"), RateLimitExceeded("too fast", retryAfterMs=50), SystemFault("odd")]


def take_step(piped: OnLink, step: tuple[str, int], number: Iterator[int]) -> None:
    link = piped.link
    match step:
        case "ask", count:
            for _ in range(count):
                piped.ask(next(number))
        case "carry", count:
            link.pump(count)
        case "lose requests", count:
            with link.drop_requests(count):
                piped.ask(next(number))
                piped.ask(next(number))
        case "lose replies", count:
            with link.drop_replies(count):
                link.pump()
        case "refuse", which:
            with link.answering(REFUSALS[which]):
                link.pump()
        case "wait", tenths:
            link.advance(tenths / 10)
        case "reconnect", _:
            link.connect()
        case "restart", count:
            with link.broker_gone():
                for _ in range(count):
                    piped.ask(next(number))
                piped.settle()
    piped.settle()


@settings(deadline=None)
@given(STEPS, st.integers(1, 12), st.sampled_from([0, 1, 3, 100]))
def test_every_request_gets_its_own_answer_whatever_is_lost(
    steps: list[tuple[str, int]], size: int, offline_queue: int
) -> None:
    with on_link(size, Recovery(offline_queue=offline_queue)) as piped:
        number = itertools.count()
        for step in steps:
            take_step(piped, step, number)
        piped.finish()
        for key, reply in zip(piped.keys, piped.replies, strict=True):
            if (error := reply.exception()) is None:
                assert reply.result().key == key
            else:
                assert isinstance(error, TimedOut | NetworkError | SystemFault), error
                assert not isinstance(error, OfflineQueueFull) or not offline_queue, "the pipeline was too fast"


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 12), st.randoms(use_true_random=False))
def test_results_are_those_of_their_own_requests_in_any_order_of_answers(
    keys: list[int], size: int, chance: Any
) -> None:
    """Without a session, every request is answered with its own key, and those under way in a random order."""
    sent: list[tuple[bytes, PipelinedReply[Any]]] = []
    windows = RequestWindows(lambda _, data, __, reply, ___: sent.append((bytes(data), reply)), lambda: size)
    window = RequestWindow(size, TIMEOUT, windows.add)

    def answer_one() -> None:
        data, reply = sent.pop(chance.randrange(len(sent)))
        key = msgspec.msgpack.decode(data, type=GetState).key
        reply.succeed((key, []))
        windows.turn(0.0)

    replies: list[PipelinedReply[str]] = []
    for key in keys:
        while window.under_way >= size:
            answer_one()
        replies.append(window.ask("GetState", encode_request(GetState(key=f"k{key}")), str))
        assert len(sent) <= size
    while sent:
        answer_one()
    assert [reply.result() for reply in replies] == [f"k{key}" for key in keys]


def test_without_faults_none_fails_though_the_offline_queue_is_short() -> None:
    with on_link(50, Recovery(offline_queue=4)) as piped:
        with piped.link.broker_gone():
            for number in range(40):
                piped.ask(number)
            piped.settle()
            assert piped.link.session.queued == 2, "half of the offline queue is left to others"
        piped.finish()
        assert [reply.result().version for reply in piped.replies] == [1] * 40


def test_without_a_broker_every_request_fails_by_its_timeout() -> None:
    with on_link(50, Recovery(offline_queue=4)) as piped:
        link = piped.link
        with link.broker_gone():
            for number in range(40):
                piped.ask(number)
            link.advance(TIMEOUT - 1.0, step=0.5)
            piped.settle()
            assert not any(reply.done() for reply in piped.replies)
            link.advance(1.5, step=0.5)
            piped.settle()
            link.advance(0.5, step=0.5)
            piped.settle()
            assert all(isinstance(reply.exception(), NetworkError) for reply in piped.replies)


# --- threads ---


class Thread:
    """An I/O thread that sends to a list, and runs when the test says so."""

    def __init__(self, size: int) -> None:
        self.sent: list[PipelinedReply[Any]] = []
        self.told: list[RequestWindow] = []
        self.is_told = threading.Condition()
        self.windows = RequestWindows(lambda *request: self.sent.append(request[3]), lambda: MAX_WINDOW)
        self.window = RequestWindow(size, TIMEOUT, self._tell)

    def _tell(self, window: RequestWindow) -> None:
        with self.is_told:
            self.told.append(window)
            self.is_told.notify()

    def take(self) -> int:
        """Take what the window has, and return how many requests are sent and not answered."""
        told, self.told = self.told, []
        for window in told:
            self.windows.add(window)
        return len(self.sent)

    def answer(self, count: int) -> None:
        for reply in self.sent[:count]:
            reply.succeed((None, []))
        del self.sent[:count]
        self.windows.turn(0.0)

    def ask(self) -> PipelinedReply[None]:
        return self.window.ask("Ping", NOTHING, lambda _: None)


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread does, without a wait of a certain length."""
    waiting = threading.Event()
    for _ in range(int(PATIENCE * 1000)):
        if condition():
            return
        waiting.wait(0.001)
    raise AssertionError("it did not come")


def test_requests_are_handed_over_together() -> None:
    thread = Thread(8)
    for _ in range(5):
        thread.ask()
    assert len(thread.told) == 1
    assert thread.take() == 5
    thread.ask()
    assert len(thread.told) == 1, "the I/O thread came, so it has to be told again"


def test_a_full_window_waits_until_half_of_it_is_free() -> None:
    thread = Thread(8)
    for _ in range(8):
        thread.ask()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(thread.ask)
        until(lambda: bool(thread.window._waiting))
        thread.take()
        thread.answer(3)
        assert thread.window._waiting, "a thread is not woken for each answer"
        assert thread.window.under_way == 5
        thread.answer(1)
        assert not thread.window._waiting, "it is woken, and does not find out by itself"
        reply = waiting.result(PATIENCE)
        assert thread.take() == 5
        thread.answer(5)
        assert reply.done()


def test_a_reader_is_woken_by_its_own_answer() -> None:
    thread = Thread(8)
    first, second = thread.ask(), thread.ask()
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(second.result)
        until(lambda: bool(thread.window._waiting))
        thread.take()
        thread.answer(1)
        assert first.done()
        assert thread.window._waiting
        thread.answer(1)
        assert not thread.window._waiting
        assert reading.result(PATIENCE) is None


def test_threads_that_are_woken_together_do_not_overfill_what_is_sent() -> None:
    thread = Thread(2)
    thread.ask()
    thread.ask()
    thread.take()
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(thread.ask) for _ in range(2)]
        until(lambda: len(thread.window._waiting) == 2)
        thread.answer(1)
        for one in waiting:
            one.result(PATIENCE)
    assert thread.take() == 2
    assert thread.window.under_way == 3


def test_a_reader_that_is_impatient_may_read_again() -> None:
    thread = Thread(1)
    reply = thread.ask()
    with pytest.raises(TimedOut, match="Ping was not answered within 0 s"):
        reply.result(timeout=0)
    thread.take()
    thread.answer(1)
    assert reply.result(timeout=0) is None


def test_an_error_is_that_of_its_own_request_and_of_every_read() -> None:
    thread = Thread(2)
    first, second = thread.ask(), thread.ask()
    thread.take()
    thread.sent[0].fail(Busy("full"))
    thread.sent[0].fail(Busy("again"))
    thread.sent[1].succeed((None, []))
    for _ in range(2):
        with pytest.raises(Busy, match="full"):
            first.result()
    assert second.exception() is None
    assert thread.window.under_way == 0


def test_a_closed_window_gives_up_what_is_not_sent_and_lets_the_rest_be_answered() -> None:
    thread = Thread(4)
    sent = thread.ask()
    thread.take()
    unsent = thread.ask()
    thread.window.close("it is closed")
    with pytest.raises(RuntimeError, match="it is closed"):
        unsent.result()
    with pytest.raises(RuntimeError, match="it is closed"):
        thread.ask()
    thread.take()
    assert thread.sent == [sent]
    thread.answer(1)
    assert sent.result() is None


def test_a_client_that_is_closed_fails_all_requests_of_a_window() -> None:
    def closed(_: RequestWindow) -> None:
        raise RuntimeError("this client is closed")

    window = RequestWindow(4, TIMEOUT, closed)
    with pytest.raises(RuntimeError, match="client is closed"):
        window.ask("Ping", NOTHING, lambda _: None)
    assert window.under_way == 0


def test_ctrl_c_while_the_i_o_thread_is_told_loses_no_later_request() -> None:
    told: list[RequestWindow] = []

    def interrupted(window: RequestWindow) -> None:
        told.append(window)
        if len(told) == 1:
            raise KeyboardInterrupt

    window = RequestWindow(4, TIMEOUT, interrupted)
    with pytest.raises(KeyboardInterrupt):
        window.ask("Ping", NOTHING, lambda _: None)
    window.ask("Ping", NOTHING, lambda _: None)
    assert len(told) == 2


def test_a_failure_of_the_i_o_thread_ends_every_wait() -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    windows = RequestWindows(fail, lambda: MAX_WINDOW)
    told: list[RequestWindow] = []
    window = RequestWindow(4, TIMEOUT, told.append)
    replies = [window.ask("Ping", NOTHING, lambda _: None) for _ in range(2)]
    with pytest.raises(MemoryError):
        windows.add(window)
    windows.abandon(RuntimeError("ended"))
    for reply in replies:
        with pytest.raises(RuntimeError, match="ended"):
            reply.result()


def test_requests_without_room_wait_for_it_and_are_due_by_their_timeout() -> None:
    room = [1]
    sent: list[PipelinedReply[Any]] = []
    windows = RequestWindows(lambda *request: sent.append(request[3]), lambda: room[0] - len(sent))
    window = RequestWindow(4, TIMEOUT, windows.add)
    assert windows.next_deadline() is None
    with mock.patch("backtestr.io.request_windows.time", SimpleNamespace(monotonic=lambda: 5.0)):
        replies = [window.ask("Ping", NOTHING, lambda _: None) for _ in range(3)]
    assert sent == replies[:1]
    assert windows.next_deadline() == 5.0 + TIMEOUT
    room[0] = 2
    windows.turn(6.0)
    assert sent == replies[:2]
    windows.turn(5.0 + TIMEOUT)
    assert sent == replies, "an overdue request is sent in any case, to fail there"
    assert windows.next_deadline() is None
