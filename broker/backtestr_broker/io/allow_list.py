"""The broker's door: its own CURVE pair, and the allow-list as it was last read from its files.

It is looked at on every handshake and every heartbeat: a look costs some file statuses, and reads what has changed.
"""

from __future__ import annotations

from collections.abc import Mapping

from backtestr_protocol.keys import Allowed, KeyFolder


class Door:
    def __init__(self, folder: KeyFolder) -> None:
        """Makes the broker's pair at first use. Raises `InvalidConfiguration` for files that others could read or
        change, or that hold no key."""
        self.pair = folder.server_pair()
        folder.check()
        self._folder = folder
        self._stamp = folder.stamp()
        self._list = folder.allowed()
        self.names = frozenset(self._list.names.values())

    @property
    def allowed(self) -> Mapping[bytes, str]:
        """Names by public key."""
        return self._list.names

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with files of the allow-list: nobody gets in by those."""
        return self._list.problems

    def look(self) -> frozenset[str]:
        """Read the allow-list again if it has changed; returns whose keys were let in before and are not any more."""
        stamp = self._folder.stamp()
        if stamp == self._stamp:
            return frozenset()
        before = self._list
        self._stamp = stamp  # taken before the reading: what changes meanwhile is read again at the next look
        self._list = self._folder.allowed()
        self.names = frozenset(self._list.names.values())
        return revoked(before, self._list)


def revoked(before: Allowed, after: Allowed) -> frozenset[str]:
    """The names whose key is gone, or is another one."""
    return frozenset(name for key, name in before.names.items() if after.names.get(key) != name)
