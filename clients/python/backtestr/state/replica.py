"""A copy of a part of the shared state, and what this program wants of it that the broker has not confirmed yet.

No I/O, no threads. It is told what comes (stream deliveries, snapshots, answers to its own changes), in whatever order
the network makes of them, and says what changed and when it needs another snapshot. Two rules keep it true: of a key,
the higher version wins; and a snapshot has seen every change up to its watermark, so a key that is not in it is deleted
unless something later is known of it (PROTOCOL.md, section 8).

What this program proposes is laid over that copy, visible at once, until it is confirmed or withdrawn.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import msgspec

from backtestr.core.effects import Delivery, Gap, MaybeLost, Restarted, StreamMessage
from backtestr_protocol.codec import decode
from backtestr_protocol.errors import MessageError
from backtestr_protocol.messages import StateEntry
from backtestr_protocol.state_values import value_bytes
from backtestr_protocol.stream_messages import StateUpdate

_update_decoder = msgspec.msgpack.Decoder(StateUpdate)


class Held(msgspec.Struct, frozen=True):
    """A key at a version. `value` is encoded (see `state_values`), None where there is none: deleted, or version 0."""

    version: int
    value: bytes | None


ABSENT = Held(0, None)


class Committed(msgspec.Struct, frozen=True):
    """The broker has changed a key: `held` is what it is now."""

    key: str
    held: Held


class _Known(msgspec.Struct, frozen=True):
    """What was last heard of a key. `revision` is None for what an answer to a change of our own said, which does not
    tell it; `asked` counts the snapshots asked for before that answer came."""

    held: Held
    revision: int | None
    asked: int = 0


class Replica:
    """Deleted keys keep their version, as they do in the broker, which bounds how many keys there are."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self._watermark = 0
        # After a restart of the broker, until the first snapshot: what has come since. Nothing older counts then, since
        # nobody knows whether it is the same state.
        self._since_restart: dict[str, _Known] | None = None
        self._doubts = 1  # reasons to ask for a snapshot; there is nothing yet
        self._settled = 0
        self._asked = 0
        self._tickets = itertools.count(1)
        self._proposals: dict[str, dict[int, bytes | None]] = {}  # the latest last

    # --- what it is ---

    def committed(self, key: str) -> Held:
        """The key by the broker's word; version 0 when it is not there."""
        known = self._known.get(key)
        return known.held if known is not None and known.held.value is not None else ABSENT

    def visible(self, key: str) -> bytes | None:
        """The value that the program sees: its own latest proposal, or else the broker's."""
        proposals = self._proposals.get(key)
        return next(reversed(proposals.values())) if proposals else self.committed(key).value

    def visible_keys(self) -> Iterator[str]:
        """The keys that the program sees, by name."""
        names = self._known.keys() | self._proposals.keys()
        return (key for key in sorted(names) if self.visible(key) is not None)

    # --- what the broker says ---

    @property
    def is_in_doubt(self) -> bool:
        """It may lack something, and needs a snapshot."""
        return self._doubts > self._settled

    def offer(self, delivery: Delivery) -> list[Committed]:
        """Something came on the subscription to `state.…`, begun with the latest of each topic."""
        match delivery:
            case StreamMessage():
                try:
                    return self._updated(decode(_update_decoder, delivery.data))
                except MessageError:
                    self._doubts += 1
                    raise
            case Restarted():
                self._since_restart = {}
                self._doubts += 1
            case Gap() | MaybeLost():
                self._doubts += 1
        return []

    def ask(self) -> int:
        """A snapshot is being asked for; returns what to give back with the answer."""
        self._asked += 1
        return self._doubts

    def snapshot(self, asked: int, entries: Iterable[StateEntry], watermark: int) -> list[Committed]:
        """The answer to the last `ask`."""
        before = self._known
        earlier = before if self._since_restart is None else self._since_restart
        self._known = {key: self._outlived(known, watermark) for key, known in earlier.items()}
        for entry in entries:
            known = earlier.get(entry.key)
            if known is None or entry.version >= known.held.version:
                self._known[entry.key] = _Known(Held(entry.version, value_bytes(entry.value)), watermark)
        self._watermark, self._since_restart, self._settled = watermark, None, asked
        return [
            Committed(key, self.committed(key))
            for key in sorted(before.keys() | self._known.keys())
            if _live(before.get(key)) != _live(self._known.get(key))
        ]

    def _outlived(self, known: _Known, watermark: int) -> _Known:
        """What is left of a key that the snapshot does not have."""
        is_later = known.asked >= self._asked if known.revision is None else known.revision > watermark
        return known if is_later else _Known(Held(known.held.version, None), watermark)

    def _updated(self, update: StateUpdate) -> list[Committed]:
        is_seen = self._since_restart is None and update.revision <= self._watermark
        # What the snapshot has seen, and a later version than it has: then it had no such key any more.
        value = None if update.deleted or is_seen else value_bytes(update.value)
        return self._take(update.key, _Known(Held(update.version, value), update.revision))

    def _take(self, key: str, news: _Known) -> list[Committed]:
        known = self._heard.get(key)
        if known is not None and news.held.version <= known.held.version:
            return []
        self._heard[key] = news
        if self._since_restart is not None or _live(known) == _live(news):
            return []
        return [Committed(key, self.committed(key))]

    @property
    def _heard(self) -> dict[str, _Known]:
        return self._known if self._since_restart is None else self._since_restart

    # --- what the program wants ---

    def propose(self, key: str, value: bytes | None) -> int:
        """Show `value` (None: nothing) at once; returns a ticket for what becomes of it."""
        ticket = next(self._tickets)
        self._proposals.setdefault(key, {})[ticket] = value
        return ticket

    def revise(self, key: str, ticket: int, value: bytes | None) -> None:
        """It will be this instead."""
        self._proposals[key][ticket] = value

    def confirm(self, key: str, ticket: int, version: int) -> list[Committed]:
        """The broker has it, at `version`."""
        value = self._proposals[key][ticket]
        self.withdraw(key, ticket)
        return self._take(key, _Known(Held(version, value), None, self._asked))

    def learn(self, key: str, held: Held) -> list[Committed]:
        """The broker has refused a change of this key, and said what it is."""
        return self._take(key, _Known(held, None, self._asked)) if held.version else []

    def withdraw(self, key: str, ticket: int) -> None:
        """It is not to be: the broker's value shows again. Without effect for what is confirmed."""
        proposals = self._proposals.get(key, {})
        proposals.pop(ticket, None)
        if not proposals:
            self._proposals.pop(key, None)

    def check_invariants(self) -> None:
        assert self._settled <= self._doubts
        assert all(self._proposals.values())
        for known in (*self._known.values(), *(self._since_restart or {}).values()):
            assert known.held.version > 0
            assert known.asked <= self._asked


def _live(known: _Known | None) -> Held:
    return ABSENT if known is None or known.held.value is None else known.held
