"""Both implementations of frames return and raise the same, whatever comes, and either reads what the other sends."""

from __future__ import annotations

import itertools
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_protocol.wire import pure_frames
from backtestr_protocol.zmq_frames import Frames, Origin
from support.harness import wait_until
from support.protocol.implementations import COMPILED_FRAMES, EVERY_FRAMES, needs_compiled_frames

WAIT_MS = 10_000
HWM = 3

Socket = zmq.Socket[bytes]
Context = zmq.Context[Socket]

addresses = map("inproc://twins-{}".format, itertools.count())
every_frames = pytest.mark.parametrize("frames", EVERY_FRAMES)
both_frames = pytest.mark.parametrize("receiving", EVERY_FRAMES)

# libzmq keeps up to 33 bytes in the message itself; from 65,536 on a frame is sent without a copy.
sizes = st.sampled_from([0, 1, 32, 33, 34, 65_535, 65_536, 65_537, 200_000]) | st.integers(0, 300)
# The first byte matters to an XPUB, which takes 0 and 1 for subscriptions.
frame = st.builds(lambda size, byte: bytes([byte]) * size, sizes, st.integers(0, 3))
# Prefixes are short: libzmq's stack is exhausted by one of 65,536 bytes.
prefix = st.builds(lambda size, byte: bytes([byte]) * size, st.integers(0, 100), st.integers(0, 3))
messages = st.lists(frame, min_size=1, max_size=5) | st.integers(1, 100).map(lambda count: [b"part"] * count)


@pytest.fixture(scope="module")
def context() -> Iterator[Context]:
    one: Context = zmq.Context()
    yield one
    one.destroy(linger=0)


@contextmanager
def pair(
    context: Context, kind: int = zmq.DEALER, other: int = zmq.ROUTER, address: str | None = None, hwm: int = HWM
) -> Iterator[tuple[Socket, Socket]]:
    """Open a socket that is connected, and the one that is bound."""
    address = address or next(addresses)
    with context.socket(kind) as connected, context.socket(other) as bound:
        for one in (connected, bound):
            one.set_hwm(hwm)
            one.linger = 0
        if kind == zmq.DEALER:
            connected.routing_id = b"peer"
        bound.bind(address)
        connected.connect(address)
        yield connected, bound


# --- the same calls on each ---

Call = tuple[Any, ...]
calls = st.lists(
    st.tuples(st.just("send"), messages)
    | st.tuples(
        st.just("receive"),
        st.integers(-1, 5),
        st.fixed_dictionaries({}, optional={"expecting": st.booleans(), "of_one": st.booleans()}),
    )
    | st.tuples(st.just("has_input"))
    | st.tuples(st.just("send"), st.sampled_from([[], ["text"], [None]])),
    max_size=25,
)


def outcome(call: Callable[[], object]) -> object:
    """Return what a call returns, or the exception that it raises."""
    try:
        return call()
    except (zmq.ZMQError, TypeError, ValueError) as error:
        return type(error), getattr(error, "errno", None)


def executed(frames: Frames, context: Context, kinds: tuple[int, int], script: list[Call]) -> list[object]:
    with pair(context, *kinds) as (sender, receiver):
        if kinds[1] == zmq.PUB:  # it is the bound end that sends
            sender, receiver = receiver, sender
        outcomes: list[object] = []
        for name, *arguments in script:
            match name:
                case "send":
                    outcomes.append(outcome(partial(frames.send, sender, arguments[0])))
                case "receive":
                    most, options = arguments
                    origins: list[Origin] = []
                    found = frames.receive(receiver, most, **options, origins=origins)
                    outcomes += [found, origins]
                case _:
                    outcomes.append(frames.has_input(receiver))
        return outcomes


@needs_compiled_frames
@settings(max_examples=60)
@given(kinds=st.sampled_from([(zmq.DEALER, zmq.ROUTER), (zmq.PUSH, zmq.PULL), (zmq.SUB, zmq.PUB)]), script=calls)
def test_both_return_and_raise_the_same(context: Context, kinds: tuple[int, int], script: list[Call]) -> None:
    """The same calls on two sockets of their own, with queues of three messages, and mistakes among the frames."""
    assert not isinstance(COMPILED_FRAMES, str)
    assert executed(pure_frames, context, kinds, script) == executed(COMPILED_FRAMES, context, kinds, script)


@needs_compiled_frames
@settings(max_examples=40)
@given(sent=st.lists(st.lists(prefix, min_size=1, max_size=5), max_size=4), most=st.integers(1, 5))
def test_both_read_the_same_from_an_xpub_which_cuts_messages(
    context: Context, sent: list[list[bytes]], most: int
) -> None:
    found = []
    for frames in (pure_frames, COMPILED_FRAMES):
        assert not isinstance(frames, str)
        with pair(context, zmq.XSUB, zmq.XPUB, hwm=0) as (xsub, xpub):
            for parts in sent:
                pure_frames.send(xsub, parts)
            batches = []
            while batch := frames.receive(xpub, most):
                batches.append(batch)
            found.append(batches)
    assert found[0] == found[1]


@every_frames
@both_frames
@settings(max_examples=15)
@given(sent=st.lists(messages, min_size=1, max_size=4))
def test_each_reads_what_the_other_sends(
    context: Context,
    tmp_path_factory: pytest.TempPathFactory,
    frames: Frames,
    receiving: Frames,
    sent: list[list[bytes]],
) -> None:
    address = f"ipc://{tmp_path_factory.getbasetemp()}/twins"
    with pair(context, address=address, hwm=0) as (dealer, router):
        for parts in sent:
            frames.send(dealer, parts)
        found: list[list[bytes]] = []
        while len(found) < len(sent):
            assert router.poll(WAIT_MS)
            found += receiving.receive(router, 16)
        assert found == [[b"peer", *parts] for parts in sent]


# --- the queue ---


@every_frames
def test_a_queue_that_was_emptied_takes_a_message_at_once(context: Context, frames: Frames) -> None:
    """Without a question in between, libzmq would look for room only once a millisecond, and refuse until then."""
    with pair(context, zmq.PUSH, zmq.PULL) as (push, pull):
        for _ in range(500):
            for _ in range(2 * HWM):
                frames.send(push, [b"one", b"two"])
            with pytest.raises(zmq.Again):
                frames.send(push, [b"one", b"two"])
            assert len(frames.receive(pull, 100)) == 2 * HWM


@every_frames
def test_a_message_without_a_receiver_is_refused(context: Context, frames: Frames) -> None:
    with pair(context) as (_, router):
        router.router_mandatory = True
        with pytest.raises(zmq.ZMQError) as error:
            frames.send(router, [b"nobody", b"message"])
        assert error.value.errno == zmq.EHOSTUNREACH


# --- sockets that are closed ---


def uses(frames: Frames, socket: Socket) -> list[Callable[[], object]]:
    return [
        lambda: frames.send(socket, [b"one", b"two"]),
        lambda: frames.send(socket, [bytes(100_000)]),
        lambda: frames.receive(socket, 1),
        lambda: frames.receive(socket, 1, lambda _: True, expecting=True),
        lambda: frames.has_input(socket),
    ]


@every_frames
def test_a_closed_socket_is_refused(context: Context, frames: Frames) -> None:
    with pair(context) as (dealer, _):
        dealer.close()
        for use in uses(frames, dealer):
            with pytest.raises(zmq.ZMQError) as error:
                use()
            assert error.value.errno == zmq.ENOTSOCK


@every_frames
def test_a_terminated_context_is_told_as_pyzmq_tells_it(frames: Frames) -> None:
    context: Context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    terminating = threading.Thread(target=context.term)
    terminating.start()
    try:
        wait_until(lambda: outcome(lambda: frames.has_input(socket)) == (zmq.ContextTerminated, zmq.ETERM), 10.0)
        for use in uses(frames, socket):
            with pytest.raises(zmq.ContextTerminated):
                use()
    finally:
        socket.close(linger=0)
        terminating.join()


@every_frames
def test_only_sockets_are_accepted(frames: Frames) -> None:
    for use in uses(frames, "no socket"):  # type: ignore[arg-type]  # what a mistake would pass
        with pytest.raises((TypeError, AttributeError)):
            use()


# --- connections ---


@contextmanager
def named(tmp_path: Path, name: bytes) -> Iterator[tuple[Socket, Socket]]:
    """Open a DEALER and a ROUTER whose handshake is answered as by a ZAP handler that gives the DEALER a name."""
    context: Context = zmq.Context()
    with context.socket(zmq.REP) as handler:
        handler.bind("inproc://zeromq.zap.01")
        with context.socket(zmq.DEALER) as dealer, context.socket(zmq.ROUTER) as router:
            router.zap_domain = b"tests"
            router.bind(f"ipc://{tmp_path}/named")
            dealer.connect(f"ipc://{tmp_path}/named")
            assert handler.poll(WAIT_MS)
            version, number, *_ = handler.recv_multipart()
            handler.send_multipart([version, number, b"200", b"OK", name, b""])
            dealer.linger = 0
            yield dealer, router
    context.term()


@every_frames
def test_the_name_of_a_connection_decides_and_is_returned_with_its_descriptor(frames: Frames, tmp_path: Path) -> None:
    with named(tmp_path, "ann é".encode()) as (dealer, router):
        asked: list[str] = []

        def accepts(name: str) -> bool:
            asked.append(name)
            return len(asked) != 2

        for verdict in (True, False, True):
            frames.send(dealer, [b"large" * 20_000, b"end"])
            assert router.poll(WAIT_MS)
            origins: list[Origin] = []
            found = frames.receive(router, 5, accepts, origins=origins)
            assert [one[1:] for one in found] == [[b"large" * 20_000, b"end"]] * verdict
            assert [name for _, name in origins] == ["ann é"] * verdict
            assert all(stat.S_ISSOCK(os.fstat(descriptor).st_mode) for descriptor, _ in origins)
        assert asked == ["ann é"] * 3


@every_frames
def test_an_exception_of_accepts_is_raised_and_it_may_close_the_socket(frames: Frames, tmp_path: Path) -> None:
    with named(tmp_path, b"ann") as (dealer, router):

        def refuse(_: str) -> bool:
            raise LookupError("no such name")

        def close(_: str) -> bool:
            router.close(linger=0)
            return True

        for _ in range(3):
            frames.send(dealer, [b"message"])
        assert router.poll(WAIT_MS)
        with pytest.raises(LookupError, match="no such name"):
            frames.receive(router, 5, refuse)
        assert router.poll(WAIT_MS)
        with pytest.raises(zmq.ZMQError) as error:
            frames.receive(router, 5, close, expecting=True)
        assert error.value.errno == zmq.ENOTSOCK


# --- threads, signals and memory ---


@every_frames
def test_threads_use_their_own_sockets_at_the_same_time(context: Context, frames: Frames) -> None:
    failed: list[object] = []

    def exchange(number: int) -> None:
        parts = [b"%d" % number, bytes([number]) * 70_000, b""]
        with pair(context) as (dealer, router):
            for _ in range(300):
                frames.send(dealer, parts)
                found = frames.receive(router, 5)
                if found != [[b"peer", *parts]]:
                    failed.append(found)

    threads = [threading.Thread(target=exchange, args=(number,)) for number in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert failed == []


@every_frames
def test_signals_interrupt_nothing(context: Context, frames: Frames) -> None:
    came: list[int] = []
    before = signal.signal(signal.SIGVTALRM, lambda number, _: came.append(number))
    signal.setitimer(signal.ITIMER_VIRTUAL, 0.0005, 0.0005)
    try:
        with pair(context) as (dealer, router):
            while len(came) < 20:
                frames.send(dealer, [b"one", b"two"])
                assert frames.receive(router, 1) == [[b"peer", b"one", b"two"]]
                assert not frames.has_input(router)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@every_frames
def test_nothing_is_kept_of_messages(context: Context, frames: Frames) -> None:
    part = b"x" * 1000
    times = 20_000 if frames is pure_frames else 100_000  # it takes five times as long
    parts = [part, part, b"end"]
    with pair(context) as (dealer, router):

        def exchange(times: int) -> None:
            for _ in range(times):
                frames.send(dealer, parts)
                origins: list[Origin] = []
                assert len(frames.receive(router, 2, expecting=True, of_one=True, origins=origins)) == 1
            for _ in range(times // 100):  # the ways of failure
                assert outcome(lambda: frames.send(dealer, [part, None])) == (TypeError, None)  # type: ignore[list-item]
                frames.send(dealer, [part])
                frames.receive(router, 1)

        exchange(5_000)
        references, memory = sys.getrefcount(part), psutil.Process().memory_info().rss
        exchange(times)
        assert sys.getrefcount(part) == references
        grown = psutil.Process().memory_info().rss - memory
        assert grown < times * len(part) / 4, "a kept frame of each message would be four times as much"
