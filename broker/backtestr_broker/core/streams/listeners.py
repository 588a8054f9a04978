"""Who listens: what the peers of each stream socket have subscribed to, and whether a topic has to be sent at all.

The rule that everything here serves: what somebody has subscribed to is sent. So a prefix is forgotten only on ZeroMQ's
word that nobody holds it, never on a peer's: XPUB passes on unsubscriptions from peers that never subscribed, and
subscriptions that a peer makes twice. Such a peer can make a count wrong, and cost everyone the saving; it cannot make
a message be left out. Counts never go below nothing. One that a liar made wrong, or a peer that subscribed twice and
left, stays so until nobody holds the prefix; that it is above 0 is right once ZeroMQ was asked.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice

from backtestr_broker.core.events import (
    FindListeners,
    ListenersFound,
    Subscribed,
    SubscribersDropped,
)
from backtestr_protocol.topics import SOCKETS, Socket

# Different prefixes on one socket. ZeroMQ keeps each, at up to 20 kB, for as long as somebody is connected, and this
# broker keeps its bytes: 512 at most, so 5 MB. Beyond it a TCP socket is replaced; on one that cannot be, which only
# this user's own processes reach, every topic is sent from then on.
MAX_PREFIXES = 10_000
# Topics whose answer is remembered, of one socket: those that move. When there are more, all are looked up anew.
MAX_REMEMBERED = 4_096
# Prefixes in doubt that ZeroMQ is asked about at once, at some 50 µs each: a peer that changes its mind all the time
# costs the loop a few milliseconds a second. Of the others one is asked about each time.
ASKED = 64


class _Listeners:
    """Of one socket. A prefix in doubt has no peers left, by what they said."""

    def __init__(self) -> None:
        self.peers: OrderedDict[bytes, int] = OrderedDict()  # by prefix; what was asked about the longest ago first
        self._doubted: dict[bytes, None] = {}
        self.is_crowded = False
        self._lengths: dict[int, int] = {}  # how many prefixes are so long
        self._remembered: dict[bytes, bool] = {}

    def change(self, prefix: bytes, delta: int) -> None:
        known = self.peers.get(prefix)
        if known is not None:
            self._set(prefix, max(0, known + delta))
        elif delta > 0:
            if len(self.peers) >= MAX_PREFIXES:
                self.is_crowded = True
                self._remembered.clear()
                return
            self.peers[prefix] = delta
            self._lengths[len(prefix)] = self._lengths.get(len(prefix), 0) + 1
            self._remembered.clear()

    def found(self, held: list[bytes], deserted: list[bytes]) -> None:
        """ZeroMQ's word, given when it knew of no subscription that was not told here."""
        for prefix in deserted:
            self._forget(prefix)
        for prefix in held:
            if prefix in self.peers:
                self._set(prefix, max(1, self.peers[prefix]))

    def to_ask(self) -> tuple[bytes, ...]:
        """What is in doubt, and of the others the next."""
        asked = tuple(islice(self._doubted, ASKED))
        following = next(iter(self.peers), None)
        if following is None:
            return ()
        self.peers.move_to_end(following)
        return asked if following in self._doubted else (*asked, following)

    @property
    def in_doubt(self) -> bool:
        return bool(self._doubted)

    def _set(self, prefix: bytes, count: int) -> None:
        self.peers[prefix] = count
        if count:
            self._doubted.pop(prefix, None)
        else:
            self._doubted[prefix] = None

    def _forget(self, prefix: bytes) -> None:
        if self.peers.pop(prefix, None) is None:
            return
        self._doubted.pop(prefix, None)
        self._lengths[len(prefix)] -= 1
        if not self._lengths[len(prefix)]:
            del self._lengths[len(prefix)]
        self._remembered.clear()

    def wants(self, topic: bytes) -> bool:
        wanted = self._remembered.get(topic)
        if wanted is None:
            wanted = self.is_crowded or any(topic[:length] in self.peers for length in self._lengths)
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
            self._remembered[topic] = wanted
        return wanted

    def count(self, topic: bytes) -> int:
        return sum(self.peers.get(topic[:length], 0) for length in self._lengths if length <= len(topic))

    def check_invariants(self) -> None:
        assert len(self.peers) <= MAX_PREFIXES
        assert len(self._remembered) <= MAX_REMEMBERED
        assert all(count >= 0 for count in self.peers.values())
        assert self._doubted.keys() == {prefix for prefix, count in self.peers.items() if not count}
        lengths = sorted(length for length, count in self._lengths.items() for _ in range(count))
        assert lengths == sorted(map(len, self.peers))
        for topic, wanted in self._remembered.items():
            assert wanted == (self.is_crowded or any(topic.startswith(prefix) for prefix in self.peers)), topic


class Subscriptions:
    def __init__(self) -> None:
        self._of: dict[Socket, _Listeners] = {name: _Listeners() for name in SOCKETS}

    def take(self, event: Subscribed | ListenersFound | SubscribersDropped) -> None:
        match event:
            case Subscribed(socket, prefix, delta):
                self._of[socket].change(prefix, delta)
            case ListenersFound(socket, held, deserted):
                self._of[socket].found(held, deserted)
            case SubscribersDropped(socket):
                self._of[socket] = _Listeners()

    def clear(self) -> None:
        """Every peer of every socket was disconnected."""
        self._of = {name: _Listeners() for name in SOCKETS}

    def wants(self, socket: Socket, topic: bytes) -> bool:
        """Whether anybody may listen."""
        return self._of[socket].wants(topic)

    def count(self, socket: Socket, topic: bytes) -> int:
        """How many subscriptions the topic matches: a peer that subscribed twice counts twice."""
        return self._of[socket].count(topic)

    def prefixes(self, socket: Socket) -> int:
        """How many different ones are held on the socket, or may be."""
        return len(self._of[socket].peers)

    def is_crowded(self, socket: Socket) -> bool:
        """Whether there were more than are kept."""
        return self._of[socket].is_crowded

    def totals(self) -> dict[Socket, int]:
        """Subscriptions by socket."""
        return {name: sum(listeners.peers.values()) for name, listeners in self._of.items()}

    def to_ask(self) -> Iterator[FindListeners]:
        """What ZeroMQ should be asked about next."""
        for name, listeners in self._of.items():
            if asked := listeners.to_ask():
                yield FindListeners(name, asked, listeners.in_doubt)

    def check_invariants(self) -> None:
        for listeners in self._of.values():
            listeners.check_invariants()
