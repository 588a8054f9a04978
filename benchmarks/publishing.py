"""This part measures stream messages from worker to clients, beside a bare forwarder and XPUB and SUB alone.

    make bench-publishing

The worker only publishes (`fake_engine.py`), so that the broker is measured. The bare forwarder is a ROUTER whose
messages an XPUB publishes, in a process of its own as the broker is. Another one verifies each message and signs it
again. "XPUB and SUB" has no process in between. The same loop reads all of them, with up to 16 subscribers in one
process. It counts the messages; a lost message is an error. Bursts are smaller than a subscriber's queue.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import msgpack
import msgspec
import zmq
from fake_engine import PRICE, FakeEngine, Flood, running_fake
from figures import Figure, Missing, Target, rounds, run_part
from floors import Burst, Context, Socket, floor, opened
from round_trips import connect, own_context
from turns import all_in_turn

from backtestr.client import Client
from backtestr.core.updates import Update
from backtestr.io.connection_file import ConnectionFile
from backtestr_protocol.codec import STREAM, Signer, encode
from backtestr_protocol.errors import TimedOut
from backtestr_protocol.stream_messages import PriceUpdate
from backtestr_protocol.wire.pure_frames import receive  # floors and broker are read alike, by pyzmq

ROUNDS = 9
SUBSCRIBERS = (1, 4, 16)
SMALL_MESSAGES = 4_000
BATCH = 1_000
BATCHES = 60
LARGE_BYTES = 1 << 20
LARGE_MESSAGES = 60
# The message sizes of the floors: about the bytes of one price in its envelope, and of a batch of prices.
SMALL_BYTES = 240
BATCH_BYTES = BATCH * len(encode({"type": "PriceUpdate", "data": PRICE}))
# After this time a message counts as lost, or the machine is too busy for measuring.
PATIENCE_MS = 20_000

TOPIC = "prices.BTCPERP.1m"
DIRECT = "XPUB and SUB"
FORWARDER = "bare forwarder"
SIGNED = "bare forwarder, signed"
OURS = "broker"
CLIENT = "backtestr client, columns"
CLIENT_MAPS = "backtestr client, maps"
KINDS = (DIRECT, FORWARDER, SIGNED, OURS)

Publish = Callable[[int], None]


class _PricePayload(msgspec.Struct, frozen=True):
    type: str
    data: PriceUpdate


class _PriceBatch(msgspec.Struct, frozen=True, rename="camel"):
    count: int
    messages: list[_PricePayload]


class _BatchPayload(msgspec.Struct, frozen=True):
    type: str
    data: _PriceBatch


class _BatchEnvelope(msgspec.Struct, frozen=True):
    payload: _BatchPayload


_envelopes = msgspec.msgpack.Decoder(_BatchEnvelope)


class Subscribers:
    """Sockets with a subscription to one topic, and a function that has so many messages published."""

    def __init__(self, context: Context, address: str, count: int, publish: Publish) -> None:
        self._publish = publish
        self.sockets = [opened(context, zmq.SUB, address) for _ in range(count)]
        self._poller = zmq.Poller()
        for socket in self.sockets:
            socket.subscribe(TOPIC)
            self._poller.register(socket, zmq.POLLIN)
        self._settle()

    def _settle(self) -> None:
        """Wait until every subscription works: each socket has received a message, and no more messages come."""
        silent = set(self.sockets)
        deadline = time.monotonic() + PATIENCE_MS / 1000
        while silent:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{len(silent)} subscribers get nothing")
            self._publish(1)
            while ready := self._poller.poll(100):
                for socket, _ in ready:
                    receive(socket, 1000)
                    silent.discard(socket)

    def burst(self, messages: int, read: Callable[[list[bytes]], object] | None = None) -> float:
        """Return the seconds from the first message to the last message of the last subscriber."""
        left = dict.fromkeys(self.sockets, messages)
        self._publish(messages)
        if not self._poller.poll(PATIENCE_MS):
            raise RuntimeError(f"nothing came of {messages} messages")
        began = time.perf_counter()
        while any(left.values()):
            ready = self._poller.poll(PATIENCE_MS)
            if not ready:
                raise RuntimeError(f"{sum(left.values())} messages did not come")
            for socket, _ in ready:
                arrived = receive(socket, 1000)
                left[socket] -= len(arrived)
                if read is not None:
                    for frames in arrived:
                        read(frames)
        return time.perf_counter() - began

    def close(self) -> None:
        for socket in self.sockets:
            socket.close()


class Publishers:
    """The floors and the broker, each with its control."""

    def __init__(self, stack: contextlib.ExitStack, context: Context) -> None:
        self.context = context
        self.engine: FakeEngine = stack.enter_context(running_fake(context))
        folder = self.engine.broker.runtime_dir
        self.connection = ConnectionFile(self.engine.broker.connection_file).read()
        self._controls: dict[str, Socket] = {}
        self._addresses = {DIRECT: f"ipc://{folder}/direct"}
        self._tell(stack, DIRECT, "publish", self._addresses[DIRECT], f"ipc://{folder}/direct-control")
        for name, kind in ((FORWARDER, "forward"), (SIGNED, "signed-forward")):
            into, self._addresses[name] = f"ipc://{folder}/{kind}-in", f"ipc://{folder}/{kind}-out"
            stack.enter_context(floor(kind, into, self._addresses[name]))
            self._tell(stack, name, "send", into, f"ipc://{folder}/{kind}-control")
        self._addresses[OURS] = self.connection.endpoints.prices

    def _tell(self, stack: contextlib.ExitStack, name: str, kind: str, address: str, control: str) -> None:
        """Start a process that sends to `address` the bursts requested on `control`."""
        stack.enter_context(floor(kind, address, control))
        self._controls[name] = opened(self.context, zmq.PUSH, control)

    @contextlib.contextmanager
    def read_by(self, count: int, floor_bytes: int, flood: Flood) -> Iterator[dict[str, Subscribers]]:
        """Yield each kind with so many subscribers; the floors send as many messages as the broker."""

        def ours(messages: int) -> None:
            self.engine.publish(msgspec.structs.replace(flood, messages=messages))

        def floors(control: Socket) -> Publish:
            return lambda messages: control.send(encode_burst(messages))

        def encode_burst(messages: int) -> bytes:
            return msgspec.json.encode(Burst(topic=TOPIC, messages=messages, size=floor_bytes))

        publish: dict[str, Publish] = {name: floors(control) for name, control in self._controls.items()}
        publish[OURS] = ours
        opened_here: dict[str, Subscribers] = {}
        try:
            for name, address in self._addresses.items():
                opened_here[name] = Subscribers(self.context, address, count, publish[name])
            yield opened_here
        finally:
            for subscribers in opened_here.values():
                subscribers.close()


def singles(publishers: Publishers, count: int, effort: float) -> list[Figure | Missing]:
    """Measure small single messages: how many each subscriber receives a second."""
    part = f"Publishing single prices to {count} subscriber{'s' * (count > 1)}"
    with publishers.read_by(count, SMALL_BYTES, Flood(topic=TOPIC)) as kinds:
        took = _bursts(kinds, SMALL_MESSAGES, rounds(ROUNDS, effort))
    targets = {OURS: Target(0.9, "at least")}
    return [
        Figure(
            part=part,
            name=name,
            unit="1/s",
            values=[SMALL_MESSAGES / seconds for seconds in took[name]],
            beside=None if name == FORWARDER else FORWARDER,
            target=targets.get(name),
        )
        for name in KINDS
    ]


def batched(publishers: Publishers, effort: float) -> list[Figure | Missing]:
    """Measure batches of 1,000 prices to one subscriber, decoded price by price, and read by the Python client.

    The prices of a backtest that the Python client starts come as columns, those of feeds and replays as maps.
    """
    part = f"Publishing prices in batches of {BATCH:,} to 1 subscriber"
    flood = Flood(topic=TOPIC, batch=BATCH)
    signer = publishers.connection.signer()
    ways: dict[str, Callable[[list[bytes]], object] | None] = {
        OURS: None,
        "verified, decoded (msgspec)": lambda frames: decoded_batch(signer, frames),
        "verified, decoded (msgpack)": lambda frames: unpacked_batch(signer, frames),
    }
    number = rounds(ROUNDS, effort)
    with publishers.read_by(1, BATCH_BYTES, flood) as kinds:
        works = {name: (lambda _, one=kinds[name]: [one.burst(BATCHES)]) for name in (FORWARDER, SIGNED)} | {
            name: (lambda _, read=read: [kinds[OURS].burst(BATCHES, read)]) for name, read in ways.items()
        }
        all_in_turn(works, 1, dict.fromkeys(works, 1))
        took = all_in_turn(works, number, dict.fromkeys(works, 1))
    with connect(publishers.engine.broker) as client:
        for name, form in ((CLIENT_MAPS, flood), (CLIENT, msgspec.structs.replace(flood, columns=True))):
            took[name] = [[seconds] for seconds in _by_client(client, publishers.engine, form, number)]
    prices = BATCH * BATCHES
    targets = {CLIENT: Target(2_000_000, "at least", "value")}
    return [
        Figure(
            part=part,
            name=name,
            unit="1/s",
            values=[prices / seconds for (seconds,) in values],
            beside=None if name == FORWARDER else FORWARDER,
            target=targets.get(name),
        )
        for name, values in took.items()
    ]


def decoded_batch(signer: Signer, frames: list[bytes]) -> list[PriceUpdate]:
    topic, signature, body = frames
    signer.verify(STREAM, signature, [topic, body])
    return [one.data for one in _envelopes.decode(body).payload.data.messages]


def unpacked_batch(signer: Signer, frames: list[bytes]) -> list[object]:
    topic, signature, body = frames
    signer.verify(STREAM, signature, [topic, body])
    return [one["data"] for one in msgpack.unpackb(body)["payload"]["data"]["messages"]]


def _by_client(client: Client, engine: FakeEngine, flood: Flood, number: int) -> list[float]:
    """Return the seconds from the first price that a subscription of the client returns to the last."""
    took = []
    with client.subscribe(TOPIC) as subscription:
        _first(subscription.next, engine, flood)
        for _ in range(number + 1):
            engine.publish(msgspec.structs.replace(flood, messages=BATCHES))
            began = 0.0
            for index in range(BATCH * BATCHES):
                if not isinstance(update := subscription.next(PATIENCE_MS / 1000), Update):
                    raise RuntimeError(f"the client lost messages: {update}")
                began = began if index else time.perf_counter()
            took.append(time.perf_counter() - began)
    return took[1:]


def _first(read: Callable[[float], object], engine: FakeEngine, flood: Flood) -> None:
    """Wait until the subscription works."""
    for _ in range(200):
        engine.publish(msgspec.structs.replace(flood, messages=1))
        with contextlib.suppress(TimedOut):
            read(0.1)
            with contextlib.suppress(TimedOut):
                while True:
                    read(0.3)
            return
    raise RuntimeError("the client's subscription gets nothing")


def large(publishers: Publishers, effort: float) -> list[Figure | Missing]:
    part = "Publishing messages of 1 MiB to 1 subscriber"
    with publishers.read_by(1, LARGE_BYTES, Flood(topic=TOPIC, size=LARGE_BYTES)) as kinds:
        took = _bursts(kinds, LARGE_MESSAGES, rounds(ROUNDS, effort))
    megabytes = LARGE_MESSAGES * LARGE_BYTES / 1e6
    return [
        Figure(
            part=part,
            name=name,
            unit="MB/s",
            values=[megabytes / seconds for seconds in took[name]],
            beside=None if name == FORWARDER else FORWARDER,
        )
        for name in KINDS
    ]


def _bursts(kinds: dict[str, Subscribers], messages: int, number: int) -> dict[str, list[float]]:
    works = {name: (lambda _, one=one: [one.burst(messages)]) for name, one in kinds.items()}
    all_in_turn(works, 1, dict.fromkeys(works, 1))
    took = all_in_turn(works, number, dict.fromkeys(works, 1))
    return {name: [seconds for (seconds,) in values] for name, values in took.items()}


def measure(effort: float) -> list[Figure | Missing]:
    with contextlib.ExitStack() as stack:
        publishers = Publishers(stack, stack.enter_context(own_context()))
        found = [one for count in SUBSCRIBERS for one in singles(publishers, count, effort)]
        return [*found, *batched(publishers, effort), *large(publishers, effort)]


if __name__ == "__main__":
    run_part(__doc__, measure)
