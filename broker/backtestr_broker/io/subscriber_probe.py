"""What one XPUB knows of its subscribers: what they say, and whether anybody holds a prefix.

What they say may be wrong: ZeroMQ passes on each subscription, also one that the peer has already, and each
unsubscription, also one of what the peer never held. What it sends by is right, and can be asked in a roundabout way: a
subscriber of our own takes the prefix for a moment, and the number of different prefixes grows if nobody else held it.
(The number itself is wrong: libzmq 4.3.5 does not count down when a peer vanishes.) Everything happens on one thread,
so that nothing is sent in between.
"""

from __future__ import annotations

import itertools

import msgspec
import zmq

from backtestr_protocol.zmq_frames import has_input

# ZMQ_TOPICS_COUNT of libzmq 4.3.5: how many different prefixes are held. Without it nobody is ever known to have left,
# and a topic that was once subscribed to is sent for as long as the socket lives.
_TOPICS_COUNT = 116
# What is taken in before asking, some milliseconds' worth; where more waits the question does too.
_MAX_UNREAD = 512

_numbers = itertools.count(1)

# A prefix, and 1 for a subscription or -1 for its end.
Said = tuple[bytes, int]


class Answers(msgspec.Struct, frozen=True):
    """What was asked about, as it was before the rest was `said`."""

    held: list[bytes]
    deserted: list[bytes]
    said: list[Said]


class Audience:
    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], xpub: zmq.Socket[bytes]) -> None:
        self._xpub = xpub
        address = f"inproc://audience-{next(_numbers)}"
        self._probe = context.socket(zmq.SUB)
        self._probe.set(zmq.LINGER, 0)
        self._probe.bind(address)
        xpub.connect(address)
        has_input(self._probe)  # has it take note of the connection; to subscribe alone does not

    def close(self) -> None:
        self._probe.close()

    def read(self, most: int) -> list[Said]:
        """Up to `most` of the messages that wait."""
        said: list[Said] = []
        for _ in range(most):
            if not has_input(self._xpub):
                break
            said += self._read_message()
        return said

    def _read_message(self) -> list[Said]:
        """Any part may be a subscription, whatever else a peer puts around it."""
        said: list[Said] = []
        more = True
        while more:
            try:
                frame = self._xpub.recv(zmq.DONTWAIT, copy=False)
            except zmq.Again:  # see `frames.receive`: of that message no more will come
                break
            more = frame.more
            data = frame.bytes
            if data[:1] in (b"\0", b"\1"):
                said.append((data[1:], 1 if data[0] else -1))
        return said

    def ask(self, prefixes: tuple[bytes, ...]) -> Answers:
        """Whether anybody holds `prefixes`. What cannot be told now, as somebody says something, is left out."""
        said = self.read(_MAX_UNREAD)
        if said or has_input(self._xpub):
            return Answers([], [], said)
        held: list[bytes] = []
        deserted: list[bytes] = []
        for prefix in prefixes:
            count = self._count()
            self._probe.set(zmq.SUBSCRIBE, prefix)
            came = self.read(_MAX_UNREAD)
            grown = self._count()
            self._probe.set(zmq.UNSUBSCRIBE, prefix)
            after = self.read(_MAX_UNREAD)
            if came != [(prefix, 1)] or after != [(prefix, -1)] or count is None or grown is None:
                return Answers(held, deserted, [*_without(came, (prefix, 1)), *_without(after, (prefix, -1))])
            (deserted if grown > count else held).append(prefix)
        return Answers(held, deserted, [])

    def _count(self) -> int | None:
        try:
            return int(self._xpub.getsockopt(_TOPICS_COUNT))
        except zmq.ZMQError:
            return None


def _without(said: list[Said], own: Said) -> list[Said]:
    """`said` by others than ourselves."""
    at = said.index(own) if own in said else len(said)
    return said[:at] + said[at + 1 :]
