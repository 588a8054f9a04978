"""A replica is a client's copy of a part of the shared state, with this program's optimistic updates laid over it.

It has no I/O and no threads. It receives stream deliveries, snapshots and the answers to this program's own changes, in
any order in which the network brings them, and says which keys changed and whether it needs another snapshot. Two rules
keep it correct: of one key the higher version wins; and a snapshot contains every change up to its watermark, so a key
that it lacks is deleted unless something later is known of that key (PROTOCOL.md, section 8).

An optimistic update is visible at once, until it is confirmed or withdrawn.
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


class VersionedValue(msgspec.Struct, frozen=True):
    """A key's value at a version, encoded (see `state_values`); `value` is None where the key is deleted or never was.

    The version of a key that never was is 0.
    """

    version: int
    value: bytes | None


ABSENT = VersionedValue(0, None)


class Committed(msgspec.Struct, frozen=True):
    """A change of a key that the broker has made: `current` is the value it has now."""

    key: str
    current: VersionedValue


class _Known(msgspec.Struct, frozen=True):
    """The latest that is known of a key, from a stream message, a snapshot or an answer.

    `revision` is None where the source is the answer to a change of this program, which carries none; then `begun`
    counts the snapshots that had been requested before that answer came.
    """

    current: VersionedValue
    revision: int | None
    begun: int = 0


class Replica:
    """A copy of the keys under a prefix; deleted keys keep their version, as in the broker, which bounds all keys."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self._watermark = 0
        # What came since a restart of the broker, until the first snapshot. Older knowledge does not count then: the
        # broker may have another state.
        self._since_restart: dict[str, _Known] | None = None
        self._reasons = 1  # reasons to request a snapshot so far; the first is that there is no state yet
        self._settled = 0  # of these, how many the last snapshot has settled
        self._begun = 0
        self._update_ids = itertools.count(1)
        self._updates: dict[str, dict[int, bytes | None]] = {}  # optimistic updates of each key, the latest last

    # --- reading --------------------------------------------------------------------------------------------------

    def committed(self, key: str) -> VersionedValue:
        """Return the key as the broker has it; version 0 when it is not there."""
        known = self._known.get(key)
        return known.current if known is not None and known.current.value is not None else ABSENT

    def visible(self, key: str) -> bytes | None:
        """Return the value that the program sees: its own latest optimistic update, or else the broker's value."""
        updates = self._updates.get(key)
        return next(reversed(updates.values())) if updates else self.committed(key).value

    def visible_keys(self) -> Iterator[str]:
        """Return the keys that the program sees, in order of their names."""
        names = self._known.keys() | self._updates.keys()
        return (key for key in sorted(names) if self.visible(key) is not None)

    # --- following the broker -------------------------------------------------------------------------------------

    @property
    def needs_snapshot(self) -> bool:
        """True while the replica may lack a change that only a snapshot can show."""
        return self._reasons > self._settled

    def receive(self, delivery: Delivery) -> list[Committed]:
        """Take a delivery of the subscription to `state.…`, which began with the latest message of each topic.

        Raises `MessageError` for a message that cannot be read; then a snapshot is needed.
        """
        match delivery:
            case StreamMessage():
                try:
                    return self._updated(decode(_update_decoder, delivery.data))
                except MessageError:
                    self._reasons += 1
                    raise
            case Restarted():
                self._since_restart = {}
                self._reasons += 1
            case Gap() | MaybeLost():
                self._reasons += 1
        return []

    def begin_snapshot(self) -> int:
        """Note that a snapshot is requested now; return the value to give to `apply_snapshot` with the answer."""
        self._begun += 1
        return self._reasons

    def apply_snapshot(self, reasons: int, entries: Iterable[StateEntry], watermark: int) -> list[Committed]:
        """Take the answer to the request that the last `begin_snapshot` noted and that returned `reasons`."""
        before = self._known
        earlier = before if self._since_restart is None else self._since_restart
        self._known = {key: self._without_entry(known, watermark) for key, known in earlier.items()}
        for entry in entries:
            known = earlier.get(entry.key)
            if known is None or entry.version >= known.current.version:
                self._known[entry.key] = _Known(VersionedValue(entry.version, value_bytes(entry.value)), watermark)
        self._watermark, self._since_restart, self._settled = watermark, None, reasons
        return [
            Committed(key, self.committed(key))
            for key in sorted(before.keys() | self._known.keys())
            if _present(before.get(key)) != _present(self._known.get(key))
        ]

    def _without_entry(self, known: _Known, watermark: int) -> _Known:
        """Return what is known of a key that a snapshot lacks: what is later than the snapshot, or its deletion."""
        is_later = known.begun >= self._begun if known.revision is None else known.revision > watermark
        return known if is_later else _Known(VersionedValue(known.current.version, None), watermark)

    def _updated(self, update: StateUpdate) -> list[Committed]:
        is_in_snapshot = self._since_restart is None and update.revision <= self._watermark
        # The snapshot contains this change. If its version is later than the snapshot's, the key was deleted by then.
        value = None if update.deleted or is_in_snapshot else value_bytes(update.value)
        return self._take(update.key, _Known(VersionedValue(update.version, value), update.revision))

    def _take(self, key: str, new: _Known) -> list[Committed]:
        known = self._latest.get(key)
        if known is not None and new.current.version <= known.current.version:
            return []
        self._latest[key] = new
        if self._since_restart is not None or _present(known) == _present(new):
            return []
        return [Committed(key, self.committed(key))]

    @property
    def _latest(self) -> dict[str, _Known]:
        return self._known if self._since_restart is None else self._since_restart

    # --- optimistic updates ---------------------------------------------------------------------------------------

    def begin_update(self, key: str, value: bytes | None) -> int:
        """Show `value` (None: the key is deleted) at once; return the id of this optimistic update."""
        update_id = next(self._update_ids)
        self._updates.setdefault(key, {})[update_id] = value
        return update_id

    def revise_update(self, key: str, update_id: int, value: bytes | None) -> None:
        """Show `value` instead."""
        self._updates[key][update_id] = value

    def confirm_update(self, key: str, update_id: int, version: int) -> list[Committed]:
        """Take the broker's answer that it has made the change, at `version`."""
        value = self._updates[key][update_id]
        self.withdraw_update(key, update_id)
        return self._take(key, _Known(VersionedValue(version, value), None, self._begun))

    def withdraw_update(self, key: str, update_id: int) -> None:
        """Show the broker's value again. This has no effect on an update that is confirmed."""
        updates = self._updates.get(key, {})
        updates.pop(update_id, None)
        if not updates:
            self._updates.pop(key, None)

    def learn(self, key: str, current: VersionedValue) -> list[Committed]:
        """Take the value that the broker states when it refuses a change of this key."""
        return self._take(key, _Known(current, None, self._begun)) if current.version else []

    def check_invariants(self) -> None:
        assert self._settled <= self._reasons
        assert all(self._updates.values())
        for known in (*self._known.values(), *(self._since_restart or {}).values()):
            assert known.current.version > 0
            assert known.begun <= self._begun


def _present(known: _Known | None) -> VersionedValue:
    return ABSENT if known is None or known.current.value is None else known.current
