"""Remember answers and running requests by request key, so that a duplicate is not executed again.

A request is begun once. A duplicate that comes while it runs takes over the answer, and afterwards gets the remembered
one (PROTOCOL.md, section 4).
"""

from __future__ import annotations

from collections import Counter, OrderedDict

from .answers import Answer, RequestKey

# PROTOCOL.md: a remembered answer lives for five minutes or 1,024 later answers to the same client.
KEPT_SECONDS = 300.0
KEPT_ANSWERS = 1024
# A request that changes something is answered in a few bytes, and those answers are kept. A larger answer was read from
# somewhere and can be read again: beyond so many bytes for all clients together the oldest large ones go.
SMALL_BYTES = 4096
KEPT_LARGE_BYTES = 64 << 20
# Clients that are known. They come and go under new ids; the longest quiet are forgotten first. Those of one key on the
# allow-list leave room for others.
MAX_CLIENTS = 4096
MAX_CLIENTS_OF_KEY = 1024


class _Client:
    __slots__ = ("answers", "owner", "running")

    def __init__(self, owner: str) -> None:
        self.owner = owner  # empty after a restart, until the client comes back
        self.answers: OrderedDict[str, tuple[float, Answer]] = OrderedDict()  # the oldest first
        self.running: dict[str, bytes] = {}  # request id -> the connection that gets the answer


class AnsweredRequests:
    """The remembered answers and the running requests of all clients."""

    def __init__(self) -> None:
        self._clients: OrderedDict[str, _Client] = OrderedDict()  # the longest quiet first
        self._running: dict[str, int] = {}  # requests that are running, by owner; none of them is 0
        self._large: OrderedDict[RequestKey, int] = OrderedDict()  # sizes by client and request id, oldest first
        self._large_bytes = 0

    def begin(
        self, client_id: str, request_id: str, peer: bytes, now: float, owner: str | None = None
    ) -> Answer | bool:
        """Return the remembered answer; or True if the request is new and is running now; or False if it runs already.

        The answer of a request that runs already will go to `peer`, instead of to the connection that asked before.
        `owner` is the one whom limits apply to, the client itself unless it is given.
        """
        owner = client_id if owner is None else owner
        client = self._clients.get(client_id)
        if client is None:
            self._make_room(owner if owner != client_id else None)
            client = self._clients[client_id] = _Client(owner)
        elif client.owner != owner:
            self._count(client, -len(client.running))
            client.owner = owner
            self._count(client, len(client.running))
        self._clients.move_to_end(client_id)
        if request_id in client.running:
            client.running[request_id] = peer
            return False
        remembered = client.answers.get(request_id)
        if remembered is not None and now - remembered[0] < KEPT_SECONDS:
            return remembered[1]
        client.running[request_id] = peer
        self._count(client, 1)
        return True

    def finish(self, client_id: str, request_id: str, answer: Answer, now: float) -> bytes:
        """Remember the answer to a running request, and return the connection it goes to."""
        client = self._clients[client_id]
        peer = client.running.pop(request_id)
        self._count(client, -1)
        if request_id in client.answers:
            self._forget(client_id, request_id)
        client.answers[request_id] = (now, answer)
        if len(client.answers) > KEPT_ANSWERS:
            self._forget(client_id, next(iter(client.answers)))
        if (answer.attachments or len(answer.payload) > SMALL_BYTES) and answer.size > SMALL_BYTES:
            self._large[client_id, request_id] = answer.size
            self._large_bytes += answer.size
            while self._large_bytes > KEPT_LARGE_BYTES:
                self._forget(*next(iter(self._large)))
        return peer

    def restore(self, client_id: str, request_id: str, answer: Answer, answered: float) -> None:
        """Take over an answer that an earlier broker gave at `answered`, on this one's clock; the oldest come first."""
        if client_id not in self._clients:
            self._make_room()
            self._clients[client_id] = _Client("")
        client = self._clients[client_id]
        client.running[request_id] = b""
        self._count(client, 1)
        self.finish(client_id, request_id, answer, answered)

    def abandon(self, client_id: str, request_id: str) -> bytes:
        """End a running request whose answer must not be remembered, such as `BUSY`, and return its connection."""
        client = self._clients[client_id]
        peer = client.running.pop(request_id)
        self._count(client, -1)
        return peer

    def __len__(self) -> int:
        """Return the number of clients that are known."""
        return len(self._clients)

    def is_running(self, client_id: str, request_id: str) -> bool:
        """Return true if that request has begun and is not answered yet."""
        client = self._clients.get(client_id)
        return client is not None and request_id in client.running

    def all_running(self) -> set[RequestKey]:
        """Return the keys of all requests that are not answered yet."""
        return {(name, request_id) for name, client in self._clients.items() for request_id in client.running}

    def running(self, client_id: str) -> int:
        """Return the number of requests of that client that are not answered yet."""
        client = self._clients.get(client_id)
        return len(client.running) if client is not None else 0

    def running_of(self, owner: str) -> int:
        """Return the number of requests of all clients of that owner that are not answered yet."""
        return self._running.get(owner, 0)

    def owner_of(self, client_id: str) -> str:
        """Return the one whom limits of that client apply to; the client itself where nothing else is known."""
        client = self._clients.get(client_id)
        return client_id if client is None else client.owner or client_id

    def is_of_another(self, client_id: str, owner: str) -> bool:
        """Return true if the answers to that client are remembered for another owner, to whom they belong."""
        client = self._clients.get(client_id)
        return client is not None and client.owner not in ("", owner)

    def expire(self, now: float) -> None:
        """Forget the answers that are past their time, and the clients of which nothing is left."""
        for client_id, client in list(self._clients.items()):
            while client.answers:
                oldest = next(iter(client.answers))
                if now - client.answers[oldest][0] < KEPT_SECONDS:
                    break
                self._forget(client_id, oldest)
            if not client.answers and not client.running:
                del self._clients[client_id]

    def _forget(self, client_id: str, request_id: str) -> None:
        del self._clients[client_id].answers[request_id]
        if self._large:
            self._large_bytes -= self._large.pop((client_id, request_id), 0)

    def _count(self, client: _Client, more: int) -> None:
        running = self._running.get(client.owner, 0) + more
        if running:
            self._running[client.owner] = running
        else:
            self._running.pop(client.owner, None)

    def _make_room(self, key: str | None = None) -> None:
        """Forget the longest quiet client without running requests; those are bounded by the queues they wait in.

        Where only the clients of one owner, who has a `key`, are too many, it is one of those.
        """
        if len(self._clients) >= MAX_CLIENTS:
            key = None
        elif key is None or sum(one.owner == key for one in self._clients.values()) < MAX_CLIENTS_OF_KEY:
            return
        for client_id, client in self._clients.items():
            if not client.running and key in (None, client.owner):
                for request_id in list(client.answers):
                    self._forget(client_id, request_id)
                del self._clients[client_id]
                return

    def check_invariants(self) -> None:
        large: dict[RequestKey, int] = {}
        running: Counter[str] = Counter()
        for client_id, client in self._clients.items():
            assert len(client.answers) <= KEPT_ANSWERS
            running[client.owner] += len(client.running)
            times = [at for at, _ in client.answers.values()]
            assert times == sorted(times), "the oldest answer is not first"
            for request_id, (_, answer) in client.answers.items():
                if answer.size > SMALL_BYTES:
                    large[client_id, request_id] = answer.size
        assert self._large == large
        assert self._running == {owner: count for owner, count in running.items() if count}
        assert self._large_bytes == sum(large.values()) <= KEPT_LARGE_BYTES
