"""The values of keys that a program was given, so that a change based on one of them is merged with it as its base.

No I/O. A program that read a key, and writes it some time later, may have missed changes of others meanwhile, although
the replica has them. The base of its change is what it read, in its own thread.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from .replica import VersionedValue

# Bounds of what is remembered by version, as the broker bounds all values together and all keys.
MAX_BYTES = 64 << 20
MAX_VALUES = 65_536
# The version of a value that the broker has not confirmed: this program's own optimistic update.
UNCONFIRMED = -1


class HandedOut:
    """The versions that were handed out, the latest 64 MiB of them, and of each thread the last one of every key.

    Calls are made under the lock of the replica, except those of `taken`, which is about the calling thread alone.
    """

    def __init__(self) -> None:
        self._values: OrderedDict[tuple[str, int], bytes | None] = OrderedDict()
        self._bytes = 0
        self._latest: dict[str, VersionedValue] = {}
        self._of_thread = threading.local()

    def note(self, key: str, current: VersionedValue) -> None:
        """Remember a value by its version."""
        if current.version == UNCONFIRMED:
            return
        self._bytes -= len(self._values.pop((key, current.version), None) or b"")
        self._values[key, current.version] = current.value
        self._bytes += len(current.value or b"")
        while self._bytes > MAX_BYTES or len(self._values) > MAX_VALUES:
            _, dropped = self._values.popitem(last=False)
            self._bytes -= len(dropped or b"")

    def give(self, key: str, current: VersionedValue) -> None:
        """Note that the calling thread is given this value of a key."""
        self.note(key, current)
        self._latest[key] = current
        self.taken(key, current)

    def taken(self, key: str, current: VersionedValue) -> None:
        """Note that the calling thread has this value of a key."""
        self._bases[key] = current

    def base(self, key: str) -> VersionedValue | None:
        """Return what the calling thread was last given of a key, else any thread; None if nobody read it."""
        return self._bases.get(key) or self._latest.get(key)

    def at(self, key: str, version: int) -> VersionedValue:
        """Return a key at a version. Its value is None where it is not remembered: then nothing in it is known."""
        return VersionedValue(version, self._values.get((key, version)))

    @property
    def _bases(self) -> dict[str, VersionedValue]:
        bases: dict[str, VersionedValue] | None = getattr(self._of_thread, "bases", None)
        if bases is None:
            bases = self._of_thread.bases = {}
        return bases

    def check_invariants(self) -> None:
        assert self._bytes == sum(len(value or b"") for value in self._values.values()) <= MAX_BYTES
        assert len(self._values) <= MAX_VALUES
