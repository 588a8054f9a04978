"""This module sends Pings and their answers as the protocol asks, and does nothing else: a floor for any such broker.

    bare_broker(ADDRESS)        a process that verifies, decodes, answers, encodes and signs
    BareClient(context, ADDRESS).run(requests, in_flight)

It uses the frames, the signer and the codec of the product, so it is as fast as those are. It has no sessions, no
counters, no duplicates, no limits, no timers and no retries, and no thread beside its own.
"""

from __future__ import annotations

import contextlib
import select
import subprocess
import sys
import time
from collections.abc import Iterator

import msgspec
import zmq

from backtestr_protocol.codec import REQUEST, RESPONSE, Signer, decode, decode_message, encode_message, encoded_payload
from backtestr_protocol.envelopes import Outgoing
from backtestr_protocol.messages import MessageType, Nothing, Pong
from backtestr_protocol.zmq_frames import has_input, receive, send

# The messages that are received together: as in the broker, and as in the client.
BROKER_BURST = 16
CLIENT_BURST = 256
PATIENCE = 20.0

_nothing = msgspec.msgpack.Decoder(Nothing)
_pong = msgspec.msgpack.Decoder(Pong)


class BareSocket:
    """A socket that receives what is there, and sleeps on its descriptor where nothing is."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self.socket = socket
        self.signer = Signer(bytes(32))
        self._sent = 0
        self._poller = select.poll()
        self._poller.register(int(socket.getsockopt(zmq.FD)), select.POLLIN)

    def receive(self, most: int) -> list[list[bytes]]:
        deadline = time.monotonic() + PATIENCE
        while not (found := receive(self.socket, most, expecting=True)):
            if time.monotonic() > deadline:
                raise RuntimeError("no message came")
            if not has_input(self.socket):
                self._poller.poll(1000)
        return found

    def message(self, label: bytes, kind: MessageType, payload: bytes, answers: str | None = None) -> list[bytes]:
        self._sent += 1
        envelope = Outgoing(
            id=f"bare-message-{self._sent}",
            timestamp=time.time_ns() // 1_000_000,
            schema_version=1,
            message_type=kind,
            payload=msgspec.Raw(payload),
            correlation_id=answers,
            counter=self._sent,
        )
        return encode_message(self.signer, label, envelope)


def serve(address: str) -> None:
    """Answer Pings for ever."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.bind(address)
    bare = BareSocket(router)
    while True:
        with contextlib.suppress(RuntimeError):
            answers = []
            for peer, *frames in bare.receive(BROKER_BURST):
                envelope = decode_message(bare.signer, REQUEST, frames).envelope
                decode(_nothing, envelope.payload.data)
                payload = encoded_payload("Success", Pong(timestamp=int(envelope.timestamp)))
                answers.append([peer, *bare.message(RESPONSE, "Response", payload, envelope.id)])
            for one in answers:
                send(router, one)


@contextlib.contextmanager
def bare_broker(address: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run `serve` as a process for the length of a `with` block."""
    process = subprocess.Popen([sys.executable, __file__, address])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


class BareClient:
    """Keeps Pings in flight."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str) -> None:
        dealer = context.socket(zmq.DEALER)
        dealer.linger = 0
        dealer.connect(address)
        self._bare = BareSocket(dealer)

    def run(self, requests: int, in_flight: int) -> None:
        for _ in range(in_flight):
            self._ask()
        answered = 0
        while answered < requests:
            for frames in self._bare.receive(CLIENT_BURST):
                decode(_pong, decode_message(self._bare.signer, RESPONSE, frames).envelope.payload.data)
                answered += 1
                if answered <= requests - in_flight:
                    self._ask()

    def _ask(self) -> None:
        send(self._bare.socket, self._bare.message(REQUEST, "Request", encoded_payload("Ping", Nothing())))


if __name__ == "__main__":
    serve(sys.argv[1])
