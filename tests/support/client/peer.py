"""A scripted broker on real sockets, in a thread: it answers by its script, and publishes messages on demand."""

from __future__ import annotations

import itertools
import os
import queue
import threading
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import zmq

from backtestr_protocol.codec import REQUEST, RESPONSE, decode_message, encode_message, encode_stream
from backtestr_protocol.connection import Connection, Endpoints, Signing, encode_connection
from backtestr_protocol.envelopes import Envelope, Outgoing, OutgoingPayload
from backtestr_protocol.errors import AuthenticationError, BacktestrError, NotFound
from backtestr_protocol.messages import MessageType, Welcome
from backtestr_protocol.secret import Secret
from backtestr_protocol.topics import SOCKETS, class_of

WALL_MS = 1_790_000_000_000
SILENCE = object()
_instances = itertools.count(1)

# The answer to each type of request: Success data, an error, `SILENCE`, or data with attachments.
Script = Mapping[str, Callable[[Any], Any]]


def welcome(heartbeat_interval_ms: int = 60_000, session_timeout_ms: int = 60_000) -> Welcome:
    return Welcome(
        session_id="session",
        instance_id="instance",
        protocol_version=1,
        server_version="1",
        heartbeat_interval_ms=heartbeat_interval_ms,
        session_timeout_ms=session_timeout_ms,
        max_message_bytes=1 << 24,
        topics=[],
    )


class Peer:
    """The scripted broker, as a context manager. `asked` lists every request as (type, id, data)."""

    def __init__(
        self,
        directory: Path,
        script: Script | None = None,
        *,
        write_file: bool = True,
        at: Peer | None = None,
        key: Secret | None = None,
    ) -> None:
        """Bind the sockets, at the addresses of the ended peer `at` if there is one; sign with `key` or a new one."""
        self.asked: list[tuple[str, str, Any]] = []
        self.file = directory / "connection.json"
        self._script = script or {}
        self._write_file = write_file
        self._number = next(_instances)
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._sequences: dict[str, int] = {}
        self._subscribed: dict[bytes, threading.Event] = {}
        self._context = zmq.Context()
        place = at._number if at else self._number
        addresses = {name: f"ipc://{directory}/{name}-{place}" for name in ("requests", *SOCKETS)}
        self.connection = Connection(
            protocol_version=1,
            instance_id=str(uuid.uuid4()),
            pid=os.getpid(),
            start_time=WALL_MS,
            endpoints=Endpoints(**addresses),
            signing=Signing(algorithm="hmac-sha256", key=key or Secret(os.urandom(32))),
            curve=None,
        )
        self._signer = self.connection.signer()
        self._router = self._bound(zmq.ROUTER, addresses["requests"])
        self._publishers = {name: self._bound(zmq.XPUB, addresses[name]) for name in SOCKETS}
        self._commands_in = self._context.socket(zmq.PULL)
        self._commands_in.bind(f"inproc://commands-{self._number}")
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Peer:
        self._thread.start()
        if self._write_file:
            self.write(self.connection)
        return self

    def write(self, connection: Connection) -> None:
        """Write a connection file as a broker does: as a whole, and readable by this user only."""
        new = self.file.with_suffix(".new")
        new.touch(0o600)
        new.write_bytes(encode_connection(connection))
        new.replace(self.file)

    def __exit__(self, *_: object) -> None:
        self._do(lambda: setattr(self, "_is_closing", True))
        self._thread.join()
        self._context.destroy(linger=0)

    def wait_for_subscription(self, prefix: str, timeout: float = 10.0) -> None:
        """Wait until a subscription to `prefix` has arrived."""
        assert self._subscribed.setdefault(prefix.encode(), threading.Event()).wait(timeout), (
            f"no client subscribed to {prefix}"
        )

    def publish(self, topic: str, kind: str, data: Any, *, seq: int | None = None) -> None:
        """Publish the topic's next message, or the one with the sequence number `seq`."""
        self._do(lambda: self._publish(topic, kind, data, seq))

    def hang_up(self) -> None:
        """Break every connection for requests, and take new ones at the same address."""

        def again() -> None:
            address = self.connection.endpoints.requests
            self._router.close()
            self._router = self._bound(zmq.ROUTER, address)

        self._do(again)

    def send_error(self, error: BacktestrError) -> None:
        """Send an unattributed error to the peer of the last request."""
        self._do(lambda: self._send(self._peer, "Error", None, "Error", error.to_data(component="peer", timestamp=0)))

    # --- the thread ---

    _is_closing = False
    _peer = b""

    def _bound(self, kind: int, address: str) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.linger = 0
        socket.bind(address)
        return socket

    def _do(self, command: Callable[[], None]) -> None:
        self._commands.put(command)
        with self._context.socket(zmq.PUSH) as push:
            push.connect(f"inproc://commands-{self._number}")
            push.send(b"")

    def _serve(self) -> None:
        while not self._is_closing:
            poller = zmq.Poller()
            for socket in (self._router, self._commands_in, *self._publishers.values()):
                poller.register(socket, zmq.POLLIN)
            ready = dict(poller.poll())
            if self._commands_in in ready:
                self._commands_in.recv()
                self._commands.get()()
            if self._router in ready:
                peer, *frames = self._router.recv_multipart()
                self._receive(peer, frames)
            for publisher in self._publishers.values():
                if publisher in ready:
                    subscription = publisher.recv()
                    if subscription[:1] == b"\x01":
                        self._subscribed.setdefault(subscription[1:], threading.Event()).set()

    def _receive(self, peer: bytes, frames: list[bytes]) -> None:
        try:
            request = decode_message(self._signer, REQUEST, frames).envelope
        except AuthenticationError as error:
            self._peer = peer
            self._send(peer, "Error", None, "Error", error.to_data(component="peer", timestamp=WALL_MS))
        else:
            self._answer(peer, request)

    def _answer(self, peer: bytes, request: Envelope) -> None:
        self._peer = peer
        kind, data = request.payload.type, msgspec.msgpack.decode(request.payload.data)
        self.asked.append((kind, request.id, data))
        answer = self._script[kind](data) if kind in self._script else self._usual(kind)
        if answer is SILENCE:
            return
        attachments: list[bytes] = []
        if isinstance(answer, tuple):
            answer, attachments = answer
        if isinstance(answer, BacktestrError):
            failure = answer.to_data(component="peer", timestamp=WALL_MS)
            self._send(peer, "Response", request.id, "Failure", failure)
        else:
            self._send(peer, "Response", request.id, "Success", answer, attachments)

    def _usual(self, kind: str) -> Any:
        match kind:
            case "Hello":
                return welcome()
            case "Ping":
                return {"timestamp": WALL_MS}
            case "Goodbye":
                return {}
            case "FetchMissed":
                return NotFound("unknown topic")
            case _:
                return NotFound(f"the script has no {kind}")

    def _send(
        self, peer: bytes, message_type: MessageType, request_id: str | None, kind: str, data: Any, more: Any = ()
    ) -> None:
        envelope = Outgoing(
            id=uuid.uuid4().hex,
            timestamp=WALL_MS,
            schema_version=1,
            message_type=message_type,
            payload=OutgoingPayload(kind, data),
            correlation_id=request_id,
        )
        self._router.send_multipart([peer, *encode_message(self._signer, RESPONSE, envelope, more)])

    def _publish(self, topic: str, kind: str, data: Any, seq: int | None) -> None:
        of_class = class_of(topic)
        assert of_class is not None
        number = self._sequences[topic] = seq or self._sequences.get(topic, 0) + 1
        envelope = Outgoing(
            id=uuid.uuid4().hex,
            timestamp=WALL_MS,
            schema_version=1,
            message_type=of_class.message_type,
            payload=OutgoingPayload(kind, data),
            seq=number,
            instance_id=self.connection.instance_id,
        )
        self._publishers[of_class.socket].send_multipart(encode_stream(self._signer, topic.encode(), envelope))
