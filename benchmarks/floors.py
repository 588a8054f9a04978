"""A floor is the least that plain pyzmq takes for the same way; each runs in a process of its own.

    echo ADDRESS                a ROUTER that sends back every message
    signed-echo ADDRESS         the same, with both ways signed and verified as ours are
    publish ADDRESS CONTROL     an XPUB that publishes the bursts requested on CONTROL
    send ADDRESS CONTROL        a DEALER that does the same
    forward FROM TO             a ROUTER whose messages an XPUB publishes
    signed-forward FROM TO      the same, each message verified and signed again as the broker does

They are written to be short, not to be fast: as a user of pyzmq would write them. They sign with `PlainSigner`, which
is their own and stays as it is: a faster signer of the product does not move the floor that it is measured by.
"""

from __future__ import annotations

import argparse
import contextlib
import hmac
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

import msgspec
import zmq

from backtestr_protocol.codec import REQUEST, RESPONSE, STREAM, TO_BROKER

KEY = bytes(32)
# The keys of the echo with CURVE. They protect nothing: both ends belong to these benchmarks.
CURVE_PUBLIC, CURVE_SECRET = zmq.curve_keypair()
LARGE_BYTES = 65_536

Socket = zmq.Socket[bytes]
Context = zmq.Context[Socket]


class Burst(msgspec.Struct, frozen=True):
    """A burst of `messages` messages of `size` bytes, with `topic` and 32 bytes in place of a signature."""

    topic: str
    messages: int
    size: int


class PlainSigner:
    """HMAC-SHA256 by Python's `hmac` over a label and frames, each with its length before it, as the protocol has it.

    This is how the product signed when the floors were frozen. Do not make it faster with the product.
    """

    def __init__(self, key: bytes) -> None:
        self._keyed = hmac.new(key, digestmod="sha256")

    def sign(self, label: bytes, frames: Sequence[bytes]) -> bytes:
        digest = self._keyed.copy()
        parts = [label]
        for frame in frames:
            parts += (len(frame).to_bytes(4, "big"), frame)
        if sum(map(len, parts)) < LARGE_BYTES:
            digest.update(b"".join(parts))
        else:  # copies of large frames cost more than calls
            for part in parts:
                digest.update(part)
        return digest.digest()

    def verify(self, label: bytes, signature: bytes, frames: Sequence[bytes]) -> None:
        if not hmac.compare_digest(signature, self.sign(label, frames)):
            raise RuntimeError("a message of a floor has a wrong signature")


def echo(socket: Socket) -> None:
    while True:
        socket.send_multipart(socket.recv_multipart())


def signed_echo(socket: Socket) -> None:
    signer = PlainSigner(KEY)
    while True:
        peer, signature, body = socket.recv_multipart()
        signer.verify(REQUEST, signature, [body])
        socket.send_multipart([peer, signer.sign(RESPONSE, [body]), body])


def publish(socket: Socket, control: Socket) -> None:
    while True:
        burst = msgspec.json.decode(control.recv(), type=Burst)
        frames = [burst.topic.encode(), bytes(32), bytes(burst.size)]
        copy = burst.size < LARGE_BYTES
        for _ in range(burst.messages):
            socket.send_multipart(frames, copy=copy)


def forward(socket: Socket, out: Socket) -> None:
    while True:
        _peer, *frames = socket.recv_multipart()
        out.send_multipart(frames, copy=len(frames[-1]) < LARGE_BYTES)


def signed_forward(socket: Socket, out: Socket) -> None:
    signer = PlainSigner(KEY)
    while True:
        _peer, topic, _, body = socket.recv_multipart()
        signer.sign(TO_BROKER, [topic, body])  # takes as long as verifying it
        out.send_multipart([topic, signer.sign(STREAM, [topic, body]), body], copy=len(body) < LARGE_BYTES)


@contextlib.contextmanager
def floor(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a floor as a process for the length of a `with` block."""
    process = subprocess.Popen([sys.executable, __file__, *arguments])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def opened(context: Context, kind: int, address: str, *, binds: bool = False) -> Socket:
    """Open a socket with unbounded queues, so that no message is dropped."""
    socket = context.socket(kind)
    socket.linger = 0
    if kind in (zmq.SUB, zmq.XPUB, zmq.PULL, zmq.PUSH):
        socket.set_hwm(0)
    (socket.bind if binds else socket.connect)(address)
    return socket


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("kind", choices=["echo", "signed-echo", "publish", "send", "forward", "signed-forward"])
    parser.add_argument("address")
    parser.add_argument("second", nargs="?", default="")
    parser.add_argument("--curve", metavar="SECRET", help="encrypt, with this key")
    given = parser.parse_args()
    context: Context = zmq.Context()
    if given.kind in ("publish", "send"):
        control = opened(context, zmq.PULL, given.second, binds=True)
        is_xpub = given.kind == "publish"
        publish(opened(context, zmq.XPUB if is_xpub else zmq.DEALER, given.address, binds=is_xpub), control)
        return
    router = context.socket(zmq.ROUTER)
    if given.curve:
        router.curve_server = True
        router.curve_secretkey = given.curve.encode()
    router.bind(given.address)
    serve: dict[str, Callable[[Socket], None]] = {"echo": echo, "signed-echo": signed_echo}
    if given.kind.endswith("forward"):
        pass_on = forward if given.kind == "forward" else signed_forward
        pass_on(router, opened(context, zmq.XPUB, given.second, binds=True))
    else:
        serve[given.kind](router)


if __name__ == "__main__":
    main()
