"""Count the listeners of each prefix, and find out whether a topic has to be sent at all.

A topic is sent if it begins with a known prefix. A prefix is known from its first subscription on, and is forgotten
only when ZeroMQ reports that no connection holds it. Subscription messages only count: XPUB passes on unsubscriptions
from peers that never subscribed, and subscriptions that a peer makes twice. So false messages can make a count wrong
and a topic be sent in vain; they cannot stop a topic. A count is never below 0. One that is too high stays until no
connection holds the prefix; that it is above 0 is right once ZeroMQ was asked.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice

from backtestr_broker.core.events import FindListeners, ListenersFound, Subscribed, SubscribersDropped
from backtestr_protocol.topics import SOCKETS, Socket

# Different prefixes on one socket. ZeroMQ keeps each, at up to 20 kB, while any peer is connected, and this broker
# keeps its bytes: 512 at most, so 5 MB. Beyond it a TCP socket is replaced; on one that cannot be, which only this
# user's own processes reach, every topic is sent from then on.
MAX_PREFIXES = 10_000
# Topics of one socket for which it is remembered whether they are sent. Beyond that all are looked up again.
MAX_REMEMBERED = 4_096
# Prefixes with a count of 0 that ZeroMQ is asked about at once, at some 50 µs each: a peer that subscribes and
# unsubscribes all the time costs the loop a few milliseconds a second. Of the others one is asked about each time.
ASKED = 64


class _SocketListeners:
    """The listeners of one socket."""

    def __init__(self) -> None:
        self.counts: OrderedDict[bytes, int] = OrderedDict()  # by prefix; the one asked about longest ago is first
        self.is_crowded = False
        self._lengths: set[int] = set()  # of prefixes that are or were known
        self._sent: dict[bytes, bool] = {}  # by topic, what `wants` found out

    def change(self, prefix: bytes, delta: int) -> bool:
        """Take a subscription, and return true if other topics may be sent from now on."""
        if (count := self.counts.get(prefix)) is not None:
            self.counts[prefix] = max(0, count + delta)
        elif delta > 0:
            if len(self.counts) < MAX_PREFIXES:
                self.counts[prefix] = delta
                self._lengths.add(len(prefix))
            else:
                self.is_crowded = True
            self._sent.clear()
            return True
        return False

    def found(self, held: list[bytes], unheld: list[bytes]) -> bool:
        """Take what ZeroMQ reported when it knew of no subscription that the core did not; return as `change` does."""
        forgotten = [prefix for prefix in unheld if self.counts.pop(prefix, None) is not None]
        if forgotten:
            self._sent.clear()
        for prefix in held:
            if prefix in self.counts:
                self.counts[prefix] = max(1, self.counts[prefix])
        return bool(forgotten)

    def to_ask(self) -> tuple[tuple[bytes, ...], bool]:
        """Return the prefixes with a count of 0 and the next of the others, and whether there is one of the first."""
        doubtful = tuple(islice((prefix for prefix, count in self.counts.items() if not count), ASKED))
        if (following := next(iter(self.counts), None)) is None:
            return (), False
        self.counts.move_to_end(following)
        return (doubtful if not self.counts[following] else (*doubtful, following)), bool(doubtful)

    def wants(self, topic: bytes) -> bool:
        if (sent := self._sent.get(topic)) is None:
            sent = self.is_crowded or any(topic[:length] in self.counts for length in self._lengths)
            if len(self._sent) >= MAX_REMEMBERED:
                self._sent.clear()
            self._sent[topic] = sent
        return sent

    def count(self, topic: bytes) -> int:
        return sum(self.counts.get(topic[:length], 0) for length in self._lengths if length <= len(topic))

    def check_invariants(self) -> None:
        assert len(self.counts) <= MAX_PREFIXES
        assert len(self._sent) <= MAX_REMEMBERED
        assert all(count >= 0 for count in self.counts.values())
        assert {len(prefix) for prefix in self.counts} <= self._lengths
        for topic, sent in self._sent.items():
            assert sent == (self.is_crowded or any(topic.startswith(prefix) for prefix in self.counts)), topic


class Listeners:
    """The listeners of every stream socket."""

    def __init__(self) -> None:
        self.changes = 0  # after which other topics may be sent
        self.clear()

    def clear(self) -> None:
        """Forget all: every peer of every socket was disconnected."""
        self.changes += 1
        self._of = {name: _SocketListeners() for name in SOCKETS}

    def take(self, event: Subscribed | ListenersFound | SubscribersDropped) -> None:
        """Take what a peer or ZeroMQ reported."""
        match event:
            case Subscribed(socket, prefix, delta):
                self.changes += self._of[socket].change(prefix, delta)
            case ListenersFound(socket, held, unheld):
                self.changes += self._of[socket].found(held, unheld)
            case SubscribersDropped(socket):
                self._of[socket] = _SocketListeners()
                self.changes += 1

    def wants(self, socket: Socket, topic: bytes) -> bool:
        """Return true if the topic may have a listener."""
        return self._of[socket].wants(topic)

    def count(self, socket: Socket, topic: bytes) -> int:
        """Return the number of subscriptions that the topic matches; a peer that subscribed twice counts twice."""
        return self._of[socket].count(topic)

    def is_crowded(self, socket: Socket) -> bool:
        """Return true if there were more prefixes than are kept."""
        return self._of[socket].is_crowded

    def totals(self) -> dict[Socket, int]:
        """Return the number of subscriptions by socket."""
        return {name: sum(listeners.counts.values()) for name, listeners in self._of.items()}

    def to_ask(self) -> Iterator[FindListeners]:
        """Yield what ZeroMQ should be asked about next."""
        for name, listeners in self._of.items():
            prefixes, is_in_doubt = listeners.to_ask()
            if prefixes:
                yield FindListeners(name, prefixes, is_in_doubt)

    def check_invariants(self) -> None:
        for listeners in self._of.values():
            listeners.check_invariants()
