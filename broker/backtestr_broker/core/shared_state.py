"""Keep the shared state: keys with values and versions, compare-and-set, deletions. Every change of it is made here.

    record = state.update(key, value, expected_version, wall_ms)   # on its way: the next change compares with it
    state.commit(record)                                           # on disk: reads give it from here on
    state.roll_back()                                              # no change that was on its way will be made

Versions count 1, 2, 3 … per key and never go back: a deleted key keeps its record, without a value. Every change that
is committed also has the next revision, of all keys together: a snapshot names the last that it has seen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice

import msgspec

from backtestr_protocol.errors import BacktestrError, NotFound, StateConflict, SystemFault, ValidationError, unknown
from backtestr_protocol.messages import StateEntry
from backtestr_protocol.state_values import NIL, checksum, same_value_bytes
from backtestr_protocol.stream_messages import StateUpdate

from .records import StateRecord

# PROTOCOL.md, section 8.
MAX_VALUE_BYTES = 1 << 20
# Deleted keys count: their versions are remembered. Each costs about half a kilobyte; programs share state to be in
# step, and do not store data in it.
MAX_KEYS = 65_536
# All values together. They are in memory, and a snapshot of everything is one answer.
MAX_BYTES = 64 << 20
# Names that a wrong one is compared with, the last that changed: comparing with all of them can take a second.
COMPARED = 50
# Bytes verified in one go: a millisecond or two of the loop. All is verified in `MAX_BYTES / VERIFIED_BYTES` goes.
VERIFIED_BYTES = 1 << 20
VERIFIED_KEYS = 1000
# Values that are read from disk at a time: many are a sign of bad memory, and must not flood the storage thread.
MAX_REPAIRS = 64


class SharedState:
    """The committed records of all keys, and the changes that are on their way to disk."""

    def __init__(self) -> None:
        self._committed: dict[str, StateRecord] = {}  # the key that changed last is last
        self._on_its_way: dict[str, deque[StateRecord]] = {}
        self.revision = 0
        self._newest_revision = 0  # of those on their way
        self._bytes = 0
        self._newest_bytes = 0  # once all that is on its way is committed
        self._damaged: set[str] = set()  # keys whose value in memory has changed by itself
        self.damage_found: list[str] = []  # those of them that are not reported yet
        self._lost: set[str] = set()  # those of them that are damaged on disk too
        self._repairing = 0
        self._to_verify: deque[str] = deque()

    def __len__(self) -> int:
        return len(self._committed)

    def __contains__(self, key: str) -> bool:
        """Return true if there is such a key on disk, or was."""
        return key in self._committed

    def restore(self, records: Iterable[StateRecord]) -> None:
        """Take over the records on disk, in order of revision."""
        for record in records:
            self._committed[record.key] = record
            self.revision = self._newest_revision = record.revision
            self._bytes += record.size
        self._newest_bytes = self._bytes

    # --- changes ---

    def update(self, key: str, value: bytes | msgspec.Raw, expected: int | None, wall_ms: int) -> StateRecord:
        """Set a key, and return the change, which is on its way then.

        Raises `StateConflict` unless the key is at the version `expected` (0: not there; None: any), and
        `ValidationError` for bytes that are no value, and for a value or a key that there is no room for.
        """
        size = memoryview(value).nbytes
        encoded = same_value_bytes(value) if size <= MAX_VALUE_BYTES else b""
        size = max(size, len(encoded))
        if size > MAX_VALUE_BYTES:
            raise _no_room("$.value", f"{size} bytes; a value has at most {MAX_VALUE_BYTES}")
        newest = self._newest(key)
        self._compare(key, newest, expected)
        if newest is None and self._keys() >= MAX_KEYS:
            raise _no_room("$.key", f"there are {MAX_KEYS} keys, deleted ones included, the most there can be")
        total = self._newest_bytes + len(encoded) - (newest.size if newest else 0)
        if total > MAX_BYTES:
            raise _no_room("$.value", f"all values together would have {total} bytes, at most {MAX_BYTES}: delete some")
        return self._issue(key, newest, encoded, checksum(encoded), wall_ms)

    def delete(self, key: str, expected: int | None, wall_ms: int) -> StateRecord:
        """Delete a key, and return the change. Raises `StateConflict` as `update` does, and `NotFound`."""
        newest = self._newest(key)
        if newest is None or newest.value is None:
            if expected:
                self._compare(key, newest, expected)
            raise self._unknown(key)
        self._compare(key, newest, expected)
        return self._issue(key, newest, None, checksum(NIL), wall_ms)

    def is_on_its_way(self, key: str) -> bool:
        """Return true if a change of that key is not on disk yet: an answer that rests on it may turn out wrong."""
        return key in self._on_its_way

    def commit(self, record: StateRecord) -> None:
        """Make a change that is on disk. Changes are committed in the order in which they were issued."""
        waiting = self._on_its_way[record.key]
        assert waiting[0] == record
        waiting.popleft()
        if not waiting:
            del self._on_its_way[record.key]
        replaced = self._committed.pop(record.key, None)
        self._committed[record.key] = record
        self._bytes += record.size - (replaced.size if replaced else 0)
        self.revision = record.revision
        self._mend(record.key)

    def roll_back(self) -> None:
        """Drop every change that is on its way: none will get to disk."""
        self._on_its_way.clear()
        self._newest_revision = self.revision
        self._newest_bytes = self._bytes

    # --- reads ---

    def get(self, key: str) -> StateRecord:
        """Return the record of a key. Raises `NotFound`, and `SystemFault` while it is repaired."""
        record = self._committed.get(key)
        if record is None or record.value is None:
            raise self._unknown(key)
        self._check(record)
        self._refuse_damaged(key)
        return record

    def snapshot(self, prefix: str) -> list[StateRecord]:
        """Return the records under `prefix`, ordered by key. Raises `SystemFault` while one is repaired.

        Keys that are damaged on disk too are left out: one of them must not keep the others from being read.
        """
        return [self.get(key) for key in sorted(self._live()) if key.startswith(prefix) and key not in self._lost]

    # --- damage ---

    @property
    def lost(self) -> list[str]:
        """The keys that cannot be read until they are set again: damaged in memory and on disk."""
        return sorted(self._lost)

    def verify(self) -> None:
        """Compare the next values with their checksums, round after round; `take_damaged` returns what it found."""
        if not self._to_verify:
            self._to_verify.extend(self._committed)
        seen = 0
        for _ in range(min(VERIFIED_KEYS, len(self._to_verify))):
            record = self._committed[self._to_verify.popleft()]
            self._check(record)
            seen += record.size
            if seen >= VERIFIED_BYTES:
                break

    def take_damaged(self) -> list[str]:
        """Return the keys whose values are damaged and have to be repaired now; others wait for those."""
        taken = self.damage_found[: MAX_REPAIRS - self._repairing]
        del self.damage_found[: len(taken)]
        self._repairing += len(taken)
        return taken

    def repair(self, key: str, on_disk: StateRecord | None) -> bool:
        """Replace a damaged value by that on disk; return false if that is damaged too.

        Returns true also for a key that was set again meanwhile.
        """
        self._repairing -= 1
        if key not in self._damaged:
            return True
        if on_disk is None or not _is_intact(on_disk) or on_disk.version != self._committed[key].version:
            self._lost.add(key)
            return False
        self._committed[key] = on_disk  # of the size that was counted for this version
        self._mend(key)
        return True

    def _check(self, record: StateRecord) -> None:
        if record.key not in self._damaged and not _is_intact(record):
            self._damaged.add(record.key)
            self.damage_found.append(record.key)

    def _mend(self, key: str) -> None:
        self._damaged.discard(key)
        self._lost.discard(key)

    def _refuse_damaged(self, key: str) -> None:
        if key in self._lost:
            raise SystemFault(f"the value of {key!r} is damaged, in memory and on disk; set it again, or delete it")
        if key in self._damaged:
            raise SystemFault(f"the value of {key!r} is damaged and is being read from disk again; ask again")

    # --- internals ---

    def _live(self) -> Iterator[str]:
        return (key for key, record in self._committed.items() if record.value is not None)

    def _keys(self) -> int:
        return len(self._committed) + sum(key not in self._committed for key in self._on_its_way)

    def _newest(self, key: str) -> StateRecord | None:
        waiting = self._on_its_way.get(key)
        return waiting[-1] if waiting else self._committed.get(key)

    def _compare(self, key: str, newest: StateRecord | None, expected: int | None) -> None:
        is_there = newest is not None and newest.value is not None
        version = newest.version if newest is not None and is_there else 0
        if expected is None or expected == version:
            return
        value = newest.value if newest is not None else None
        if newest is not None and newest is self._committed.get(key):
            self._check(newest)  # the conflict has the value in it
            self._refuse_damaged(key)
        raise StateConflict(
            f"{key!r} is at version {version}, not at {expected}" if is_there else f"{key!r} is not there",
            currentVersion=version,
            currentValue=msgspec.Raw(NIL if value is None else value),
        )

    def _issue(
        self, key: str, newest: StateRecord | None, value: bytes | None, value_checksum: str, wall_ms: int
    ) -> StateRecord:
        self._newest_revision += 1
        record = StateRecord(
            key=key,
            version=newest.version + 1 if newest else 1,
            value=value,
            checksum=value_checksum,
            timestamp=wall_ms,
            revision=self._newest_revision,
        )
        self._newest_bytes += record.size - (newest.size if newest else 0)
        self._on_its_way.setdefault(key, deque()).append(record)
        return record

    def _unknown(self, key: str) -> NotFound:
        latest = islice((one for one in reversed(self._committed) if self._committed[one].value is not None), COMPARED)
        return unknown("state key", key, latest)

    def on_its_way(self) -> list[StateRecord]:
        """Return the changes that are on their way, in the order in which they were made."""
        records = [record for waiting in self._on_its_way.values() for record in waiting]
        return sorted(records, key=lambda record: record.revision)

    def check_invariants(self) -> None:
        assert self._bytes == sum(record.size for record in self._committed.values())
        newest = {**self._committed, **{key: waiting[-1] for key, waiting in self._on_its_way.items()}}
        assert self._newest_bytes == sum(record.size for record in newest.values()) <= MAX_BYTES
        assert len(newest) == self._keys() <= MAX_KEYS
        revisions = [record.revision for record in self._committed.values()]
        assert revisions == sorted(revisions)
        assert self.revision == max(revisions, default=self.revision)
        revisions = [record.revision for record in self.on_its_way()]
        assert revisions == list(range(self.revision + 1, self._newest_revision + 1))
        for key, waiting in self._on_its_way.items():
            first = self._committed[key].version if key in self._committed else 0
            assert [record.version for record in waiting] == [first + 1 + n for n in range(len(waiting))]
        assert self._lost <= self._damaged <= self._committed.keys()
        assert 0 <= self._repairing <= MAX_REPAIRS


def state_entry(record: StateRecord) -> StateEntry:
    """Return a record as clients get it."""
    return StateEntry(
        key=record.key,
        value=msgspec.Raw(NIL if record.value is None else record.value),
        version=record.version,
        checksum=record.checksum,
        timestamp=record.timestamp,
    )


def update_message(record: StateRecord) -> StateUpdate:
    """Return the stream message of a committed change."""
    entry = msgspec.structs.asdict(state_entry(record))
    return StateUpdate(**entry, revision=record.revision, deleted=record.value is None)


def _is_intact(record: StateRecord) -> bool:
    return checksum(NIL if record.value is None else record.value) == record.checksum


def _no_room(path: str, text: str) -> BacktestrError:
    return ValidationError(f"{path}: {text}", path=path)
