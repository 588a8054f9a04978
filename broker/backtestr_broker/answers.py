"""Idempotent requests: the answers that are remembered, by client and request id, and the requests still running.

The pair (`clientId`, request `id`) is the key. A request is begun once; whoever sends it again meanwhile takes over
the answer, and afterwards gets the remembered one (PROTOCOL.md, section 4).
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

# PROTOCOL.md: a remembered answer lives for five minutes or 1,024 later answers to the same client.
KEPT_SECONDS = 300.0
KEPT_ANSWERS = 1024
# Tables in attachments are large and cheap to read again: beyond this much per client the oldest such answers go.
KEPT_ATTACHMENT_BYTES = 16 << 20
# Clients come and go under new ids; the longest quiet are forgotten first.
MAX_CLIENTS = 4096


class Answer(msgspec.Struct, frozen=True):
    """An encoded payload and its attachments, ready to be put into an envelope as often as it is asked for."""

    payload: bytes
    attachments: tuple[bytes, ...] = ()

    @property
    def attachment_bytes(self) -> int:
        return sum(map(len, self.attachments))


class _Client:
    __slots__ = ("answers", "attachment_bytes", "running")

    def __init__(self) -> None:
        self.answers: OrderedDict[str, tuple[float, Answer]] = OrderedDict()
        self.attachment_bytes = 0
        self.running: dict[str, bytes] = {}  # request id -> the connection that gets the answer

    def forget(self, request_id: str) -> None:
        _, answer = self.answers.pop(request_id)
        self.attachment_bytes -= answer.attachment_bytes


class AnswerBook:
    def __init__(self) -> None:
        self._clients: OrderedDict[str, _Client] = OrderedDict()

    def begin(self, client_id: str, request_id: str, peer: bytes, now: float) -> Answer | bool:
        """The remembered answer; or True when the request is new and is now running; or False when it runs already,
        in which case its answer will go to `peer` instead of to whoever asked before."""
        client = self._clients.get(client_id)
        if client is None:
            client = self._clients[client_id] = _Client()
            self._forget_quiet_clients()
        else:
            self._clients.move_to_end(client_id)
        if request_id in client.running:
            client.running[request_id] = peer
            return False
        remembered = client.answers.get(request_id)
        if remembered is not None and now - remembered[0] < KEPT_SECONDS:
            return remembered[1]
        client.running[request_id] = peer
        return True

    def finish(self, client_id: str, request_id: str, answer: Answer, now: float) -> bytes:
        """Remember the answer to a running request; returns the connection it goes to."""
        client = self._clients[client_id]
        peer = client.running.pop(request_id)
        if request_id in client.answers:
            client.forget(request_id)
        client.answers[request_id] = (now, answer)
        client.attachment_bytes += answer.attachment_bytes
        if len(client.answers) > KEPT_ANSWERS:
            client.forget(next(iter(client.answers)))
        if client.attachment_bytes > KEPT_ATTACHMENT_BYTES:
            for other in [key for key, (_, kept) in client.answers.items() if kept.attachments]:
                client.forget(other)
                if client.attachment_bytes <= KEPT_ATTACHMENT_BYTES:
                    break
        return peer

    def abandon(self, client_id: str, request_id: str) -> bytes:
        """End a running request whose answer must not be remembered, such as `BUSY`; returns its connection."""
        return self._clients[client_id].running.pop(request_id)

    def expire(self, now: float) -> None:
        """Forget the answers that are past their time."""
        for client in self._clients.values():
            while client.answers:
                oldest = next(iter(client.answers))
                if now - client.answers[oldest][0] < KEPT_SECONDS:
                    break
                client.forget(oldest)

    def _forget_quiet_clients(self) -> None:
        if len(self._clients) > MAX_CLIENTS:
            for client_id, client in self._clients.items():
                if not client.running:
                    del self._clients[client_id]
                    return

    def check_invariants(self) -> None:
        for client in self._clients.values():
            assert len(client.answers) <= KEPT_ANSWERS
            assert client.attachment_bytes == sum(kept.attachment_bytes for _, kept in client.answers.values())
            times = [at for at, _ in client.answers.values()]
            assert times == sorted(times), "the oldest answer is not first"
