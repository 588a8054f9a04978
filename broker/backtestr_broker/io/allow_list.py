"""The allow-list holds the broker's CURVE pair and the client keys that may connect.

It is reloaded when its files change. Checking for a change costs a few `stat()` calls, for each handshake and each
heartbeat.
"""

from __future__ import annotations

from collections.abc import Mapping

from backtestr_protocol.keys import Allowed, KeyFolder


class AllowList:
    """The allow-list as it was last read from its files, and the broker's own pair."""

    def __init__(self, folder: KeyFolder) -> None:
        """Read the keys, and make the broker's pair at first use.

        Raises `InvalidConfiguration` for files that others could read or change, or that hold no key.
        """
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
        """Problems of single files; the keys in those files may not connect."""
        return self._list.problems

    def reload_if_changed(self) -> frozenset[str]:
        """Read the files again if they have changed; returns the names whose keys may no longer connect."""
        stamp = self._folder.stamp()
        if stamp == self._stamp:
            return frozenset()
        before = self._list
        self._stamp = stamp  # taken before the files are read: a change meanwhile makes the next call read them again
        self._list = self._folder.allowed()
        self.names = frozenset(self._list.names.values())
        return revoked(before, self._list)


def revoked(before: Allowed, after: Allowed) -> frozenset[str]:
    """Return the names whose key was removed or replaced."""
    return frozenset(name for key, name in before.names.items() if after.names.get(key) != name)
