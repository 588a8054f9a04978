"""This module sends messages from a worker to a reader without the rest of a backtest, to measure batches.

A source in this process is built as a worker is: one thread makes messages and batches, the other signs and sends. A
relay and a reader are processes of their own. All use the product's own parts. The relay does with published messages
what the broker's core does. The reader does what the Python client does, down to every message as a struct.

    python benchmarks/pipeline.py relay|reader DIRECTORY      # started by `pipeline()`
"""

from __future__ import annotations

import contextlib
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import zmq

from backtestr.core.batches import PriceColumns, join_columns, open_payload
from backtestr_broker.core.envelopes import Envelopes
from backtestr_broker.core.streams.sequencer import Sequencer
from backtestr_engine.publishing.batching import Publication
from backtestr_protocol import worker_channel
from backtestr_protocol.codec import Signer, decode_stream
from backtestr_protocol.envelopes import Payload
from backtestr_protocol.stream_messages import OrderUpdate, PriceUpdate

KEY = bytes(range(32))
INSTANCE = "benchmark"
# The same as `worker.outbox` in config/engine.toml.
OUTBOX = 256
PATIENCE_MS = 60_000
# Columns are put together into tables of about 65,536 rows, as `Subscription.frames` does with what lies unread.
TABLE_BATCHES = 65

_decoders: dict[str, msgspec.msgpack.Decoder[Any]] = {
    one.__name__: msgspec.msgpack.Decoder(one) for one in (PriceUpdate, OrderUpdate)
}


class Arrived(msgspec.Struct):
    """The messages of one topic, their bytes of payload, the time of the last, and percentiles of transit in ms."""

    messages: int
    bytes: int
    at: float
    median_ms: float
    p95_ms: float


class Source:
    """The end of the worker: `send` puts into the outbox, as the compute thread does, and a thread sends it."""

    def __init__(self, directory: Path, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self.outbox: queue.Queue[tuple[Publication, float] | None] = queue.Queue(OUTBOX)
        self.sending = 0.0  # seconds that a batch waits in the outbox, smoothed
        self._socket = context.socket(zmq.DEALER)
        self._socket.connect(_address(directory, "in"))
        self._asking = context.socket(zmq.REQ)
        self._asking.connect(_address(directory, "ask"))
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def send(self, publications: list[Publication]) -> None:
        for one in publications:
            self.outbox.put((one, time.monotonic()))

    def arrived(self, topic: str, messages: int) -> Arrived:
        """Wait until the reader has so many messages of the topic."""
        self._asking.send(msgspec.msgpack.encode((topic, messages)))
        if not self._asking.poll(PATIENCE_MS):
            raise RuntimeError(f"{messages} messages of {topic} did not arrive")
        return msgspec.msgpack.decode(self._asking.recv(), type=Arrived)

    def close(self) -> None:
        self.outbox.put(None)
        self._thread.join()

    def _send(self) -> None:
        while (item := self.outbox.get()) is not None:
            (message, payload), put = item
            self._socket.send_multipart(worker_channel.encode_to_broker(message, [payload]))
            self.sending += 0.05 * (time.monotonic() - put - self.sending)


@contextlib.contextmanager
def pipeline() -> Iterator[Source]:
    """Yield a source; its relay and reader run for the length of the `with` block."""
    with tempfile.TemporaryDirectory(prefix="bt-") as folder, contextlib.ExitStack() as stack:
        directory = Path(folder)
        for part in ("relay", "reader"):
            process = subprocess.Popen([sys.executable, __file__, part, folder])
            stack.callback(process.wait)
            stack.callback(process.kill)
        while not all((directory / part).exists() for part in ("relay", "reader")):
            time.sleep(0.01)
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        stack.callback(context.destroy, linger=0)
        source = Source(directory, context)
        stack.callback(source.close)
        yield source


def _relay(directory: Path) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    inward, outward = context.socket(zmq.ROUTER), context.socket(zmq.XPUB)
    outward.set(zmq.SNDHWM, 10_000)
    inward.bind(_address(directory, "in"))
    outward.bind(_address(directory, "out"))
    outward.recv()  # the reader is there
    (directory / "relay").touch()
    sequencer, envelopes = Sequencer(), Envelopes(Signer(KEY), KEY, INSTANCE)
    while True:
        _, *frames = inward.recv_multipart()
        message, payload = worker_channel.decode_to_broker(frames)
        assert isinstance(message, worker_channel.Published)
        placed = sequencer.append(message.topic, payload[0], message.count)
        outward.send_multipart(envelopes.stream(placed, payload[0], 0).frames)


def _reader(directory: Path) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    stream, answers = context.socket(zmq.SUB), context.socket(zmq.REP)
    stream.set(zmq.RCVHWM, 100_000)
    stream.subscribe(b"")
    stream.connect(_address(directory, "out"))
    answers.bind(_address(directory, "ask"))
    (directory / "reader").touch()
    signer = Signer(KEY)
    seen: dict[str, list[Any]] = {}  # messages, bytes, time of the last, ms in transit of each batch's messages
    blocks: list[PriceColumns] = []
    asked: tuple[str, int] | None = None
    poller = zmq.Poller()
    poller.register(stream, zmq.POLLIN)
    poller.register(answers, zmq.POLLIN)
    while True:
        ready = dict(poller.poll())
        if answers in ready:
            asked = msgspec.msgpack.decode(answers.recv(), type=tuple[str, int])
        if stream in ready:
            message = decode_stream(signer, stream.recv_multipart())
            found = open_payload(message.envelope.payload)
            of_topic = seen.setdefault(message.topic, [0, 0, 0.0, []])
            if isinstance(found, PriceColumns):
                sent = np.array(found.numbers["timestamp"])
                blocks.append(found)
                if len(blocks) == TABLE_BATCHES:
                    join_columns(blocks).frame(1)
                    blocks.clear()
            else:
                payloads = [found] if isinstance(found, Payload) else found.payloads()
                sent = np.array([_decoders[one.type].decode(one.data).timestamp for one in payloads])
            now = time.monotonic()
            of_topic[0] += len(sent)
            of_topic[1] += len(bytes(message.envelope.payload.data))
            of_topic[2] = now
            of_topic[3].append(now * 1e3 - sent / 1e3)
        if asked is not None and seen.get(asked[0], [0])[0] >= asked[1]:
            messages, size, at, waited = seen[asked[0]]
            median, p95 = np.percentile(np.concatenate(waited), [50, 95])
            answers.send(msgspec.msgpack.encode(Arrived(messages, size, at, float(median), float(p95))))
            asked = None


def _address(directory: Path, name: str) -> str:
    return f"ipc://{directory / name}.sock"


if __name__ == "__main__":
    {"relay": _relay, "reader": _reader}[sys.argv[1]](Path(sys.argv[2]))
