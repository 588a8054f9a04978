"""Find out which prefixes of an XPUB have subscribers.

Subscription messages are unreliable: ZeroMQ passes on each subscription, also one that the peer has already, and each
unsubscription, also of a prefix that the peer never held. The prefixes by which ZeroMQ sends are right, and a probe
finds them: a subscriber of our own takes a prefix for a moment, and the number of different prefixes (ZMQ_TOPICS_COUNT)
rises if no peer held it. (The number itself is wrong: libzmq 4.3.5 does not count down when a peer vanishes.)
Everything happens on one thread, so that no message is sent in between.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import msgspec
import zmq

from backtestr_protocol.zmq_frames import Origin, has_input, receive

# ZMQ_TOPICS_COUNT of libzmq 4.3.5: how many different prefixes are held. Without it no prefix is ever known to be
# unheld, and a topic that once had a listener is sent for as long as the socket exists.
_TOPICS_COUNT = 116
# Subscription messages that are read before a probe, some milliseconds' worth; where more wait, the probe waits too.
_MAX_UNREAD = 512

_addresses = map("inproc://subscriber-probe-{}".format, itertools.count(1))

# A prefix, and 1 for a subscription or -1 for its end.
SubscriptionChange = tuple[bytes, int]


class ProbeResult(msgspec.Struct, frozen=True):
    """The prefixes with and without a subscriber, as they were before the `changes` that peers have sent since."""

    held: list[bytes]
    unheld: list[bytes]
    changes: list[SubscriptionChange]


class SubscriberProbe:
    """A subscriber of our own on one XPUB, which it holds from before that is bound until `close`.

    `heard` is called with the origin of every frame that subscribes to a prefix.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        xpub: zmq.Socket[bytes],
        heard: Callable[[Origin], None] = lambda _origin: None,
    ) -> None:
        self._xpub = xpub
        self._heard = heard
        address = next(_addresses)
        self._subscriber = context.socket(zmq.SUB)
        self._subscriber.set(zmq.LINGER, 0)
        self._subscriber.bind(address)
        xpub.connect(address)
        has_input(self._subscriber)  # makes it process the connection; a subscription alone does not

    def close(self) -> None:
        """Close the subscriber of our own."""
        self._subscriber.close()

    def read(self, most: int) -> list[SubscriptionChange]:
        """Return the changes in up to `most` of the messages that wait."""
        changes: list[SubscriptionChange] = []
        for _ in range(most):
            origins: list[Origin] = []
            messages = receive(self._xpub, 1, origins=origins)
            if not messages:
                break
            for data in messages[0]:  # any of its frames may be a change, whatever a peer puts around it
                if data[:1] == b"\1":
                    self._heard(origins[0])
                if data[:1] in (b"\0", b"\1"):
                    changes.append((data[1:], 1 if data[0] else -1))
        return changes

    def find(self, prefixes: tuple[bytes, ...]) -> ProbeResult:
        """Find out which prefixes have a subscriber. Those after the first change of a peer are left out."""
        changes = self.read(_MAX_UNREAD)
        if changes or has_input(self._xpub):
            return ProbeResult([], [], changes)
        held: list[bytes] = []
        unheld: list[bytes] = []
        for prefix in prefixes:
            before = self._count()
            self._subscriber.set(zmq.SUBSCRIBE, prefix)
            changes = self.read(_MAX_UNREAD)
            after = self._count()
            self._subscriber.set(zmq.UNSUBSCRIBE, prefix)
            changes += self.read(_MAX_UNREAD)
            own = [(prefix, 1), (prefix, -1)]
            if changes != own or before is None or after is None:
                return ProbeResult(held, unheld, _without(changes, own))
            (unheld if after > before else held).append(prefix)
        return ProbeResult(held, unheld, [])

    def _count(self) -> int | None:
        try:
            return int(self._xpub.getsockopt(_TOPICS_COUNT))
        except zmq.ZMQError:
            return None


def _without(changes: list[SubscriptionChange], own: list[SubscriptionChange]) -> list[SubscriptionChange]:
    """Return the changes of peers, without those of our own subscriber."""
    for change in own:
        if change in changes:
            changes.remove(change)
    return changes
