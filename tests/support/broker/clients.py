"""The clients of a fake link: one that speaks through raw frames, and one that is the Python client's session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from backtestr.core import session as client_session
from backtestr.core.effects import Answered, Failed, Reconnect, Send, SessionEffect
from backtestr_protocol.errors import BacktestrError, ErrorData
from backtestr_protocol.messages import Contract
from support.protocol.independent import Fields, Requests

if TYPE_CHECKING:
    from support.broker.link import Link


class Client:
    """A raw client on a connection of its own."""

    def __init__(self, link: Link, client_id: str, peer: bytes) -> None:
        self.link = link
        self.peer = peer
        self.client_id = client_id
        self.inbox: list[tuple[Fields, list[bytes]]] = []
        self.requests = Requests(link.key, client_id, now_ms=lambda: link.wall_ms)

    def take(self, frames: list[bytes]) -> None:
        self.inbox.append(self.requests.answer(frames))

    def reconnect(self) -> None:
        """Send Hello on a new connection; the broker may have been restarted in between."""
        self.link.detach(self.peer)
        self.peer = self.link.attach(self)
        self.requests = Requests(self.link.key, self.client_id, now_ms=lambda: self.link.wall_ms)
        self.hello()

    def hello(self) -> Fields:
        welcome = self._success(self.send_frames(self.requests.hello()))
        self.requests.welcomed(welcome)
        return welcome

    def send_frames(self, frames: list[bytes]) -> list[Fields]:
        """Put frames on the connection, and return the envelopes that came back at once."""
        before = len(self.inbox)
        self.link.request(self.peer, frames)
        return [envelope for envelope, _ in self.inbox[before:]]

    def send(self, type_name: str, data: Any, *, message_id: str | None = None) -> list[Fields]:
        return self.send_frames(self.requests.make(type_name, data, message_id=message_id))

    def ask(self, type_name: str, data: Any = None, *, message_id: str | None = None) -> Fields:
        """Return the Success data of a request that is answered at once."""
        return self._success(self._exchange(type_name, data, message_id))

    def refused(self, type_name: str, data: Any = None, *, message_id: str | None = None) -> Fields:
        """Return the ErrorData of a request that is refused at once."""
        (envelope,) = self._exchange(type_name, data, message_id)
        return failure(envelope)

    def later(self, type_name: str, data: Any = None, *, message_id: str | None = None) -> str:
        """Send a request whose answer has to wait, and return its id, for `answer`."""
        message_id = message_id or self._new_id()
        assert self.send(type_name, data or {}, message_id=message_id) == []
        return message_id

    def answers(self, message_id: str) -> list[Fields]:
        """Return the payloads of every answer to that request."""
        return [envelope["payload"] for envelope, _ in self.inbox if envelope.get("correlationId") == message_id]

    def answer(self, message_id: str) -> Fields:
        """Return the data of the one answer to that request."""
        (payload,) = self.answers(message_id)
        data: Fields = payload["data"]
        return data

    def _new_id(self) -> str:
        self.link.named += 1
        return f"request-{self.link.named}"

    def _exchange(self, type_name: str, data: Any, message_id: str | None) -> list[Fields]:
        """Return the answers to this request that come at once, without the answers to others."""
        message_id = message_id or self._new_id()
        envelopes = self.send(type_name, data or {}, message_id=message_id)
        return [envelope for envelope in envelopes if envelope.get("correlationId") == message_id]

    def _success(self, envelopes: list[Fields]) -> Fields:
        (envelope,) = envelopes
        assert envelope["payload"]["type"] == "Success", envelope
        data: Fields = envelope["payload"]["data"]
        return data


class SessionClient:
    """The session of the Python client, with a connection that is made again when the session asks for it."""

    def __init__(self, link: Link, client_id: str) -> None:
        self.link = link
        self.session = client_session.Session(client_id, nonce=client_id)
        self.peer = b""
        self.answered: dict[str, Any] = {}
        self.failed: dict[str, BacktestrError] = {}

    def connect(self) -> None:
        self.peer = self.link.attach(self)
        self.execute(self.session.connected(self.link.signer, self.link.now, self.link.wall_ms))

    def disconnect(self) -> None:
        self.link.detach(self.peer)
        self.session.disconnected()

    def ask(self, request_type: str, data: Contract, timeout: float = 60.0) -> str:
        request_id, effects = self.session.request(request_type, data, self.link.now, self.link.wall_ms, timeout)
        self.execute(effects)
        return request_id

    def take(self, frames: list[bytes]) -> None:
        self.execute(self.session.receive(frames, self.link.now, self.link.wall_ms))

    def tick(self) -> None:
        self.execute(self.session.tick(self.link.now, self.link.wall_ms))

    def execute(self, effects: Sequence[SessionEffect]) -> None:
        for effect in effects:
            match effect:
                case Send(frames):
                    self.link.request(self.peer, frames)
                case Answered(request_id, data):
                    assert request_id not in self.answered
                    self.answered[request_id] = data
                case Failed(request_id, error):
                    assert request_id not in self.answered
                    self.failed[request_id] = error
                case Reconnect():
                    self.disconnect()
                    self.connect()
        self.session.check_invariants()


def failure(envelope: Fields) -> Fields:
    """Return the ErrorData of an answer that has to be a Failure."""
    assert envelope["payload"]["type"] == "Failure", envelope
    error: Fields = envelope["payload"]["data"]
    assert msgspec.convert(error, ErrorData).recovery_actions
    return error
