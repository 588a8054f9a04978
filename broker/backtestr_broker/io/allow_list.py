"""The allow-list holds the broker's CURVE pair and the client keys that may connect.

It is reloaded when its files change. Checking for a change costs a few `stat()` calls, for each handshake and each
heartbeat. Besides the keys in files there is one pair that is made at every start: it stands in the connection file,
and is for clients on this machine.
"""

from __future__ import annotations

import ipaddress

from zmq.utils import z85

from backtestr_protocol.keys import Allowed, KeyFolder, new_pair
from backtestr_protocol.rights import Right

# The name of the key in the connection file. No file of the allow-list can have this name.
CONNECTION_FILE = "(connection file)"


class AllowList:
    """The allow-list as it was last read from its files, and the pairs of the broker and of the connection file."""

    def __init__(self, folder: KeyFolder, host: str) -> None:
        """Read the keys, and make the broker's pair at first use. `host` is the address that clients connect to.

        Raises `InvalidConfiguration` for files that others could read or change, or that hold no key.
        """
        self.pair = folder.server_pair()
        self.pair_of_connection_file = new_pair()
        folder.check()
        self._own_key = z85.decode(self.pair_of_connection_file.public)
        self._host = host
        self._folder = folder
        self._stamp = folder.stamp()
        self._use(folder.allowed())

    @property
    def problems(self) -> tuple[str, ...]:
        """Problems of single files; the keys in those files may not connect."""
        return self._list.problems

    def name_of(self, key: bytes, address: str) -> str | None:
        """Return the name of a key (32 bytes) that may connect from `address`; None for any other.

        The key of the connection file is accepted from this machine only: on another one a client needs a key of its
        own, which can be revoked.
        """
        if key == self._own_key:
            return CONNECTION_FILE if self._is_of_this_machine(address) else None
        return self._list.names.get(key)

    def held_by(self, name: str) -> tuple[str | None, Right]:
        """Return the key and its right of a peer that `name_of` named; no key of the list for the connection file's."""
        return (None, "all") if name == CONNECTION_FILE else (name, self._list.rights.get(name, "read"))

    def reload_if_changed(self) -> frozenset[str]:
        """Read the files again if they have changed; returns the names whose keys may no longer connect.

        For want of file descriptors the list stays as it is, and the next call tries again.
        """
        before = self._list
        try:
            stamp = self._folder.stamp()
            if stamp == self._stamp:
                return frozenset()
            after = self._folder.allowed()
        except OSError:
            return frozenset()
        self._stamp = stamp  # taken before the files were read: a change meanwhile makes the next call read them again
        self._use(after)
        return revoked(before, after)

    def _use(self, allowed: Allowed) -> None:
        self._list = allowed
        self.names = frozenset(allowed.names.values())  # of the keys in files
        self.accepted = self.names | {CONNECTION_FILE}  # of all keys that may connect

    def _is_of_this_machine(self, address: str) -> bool:
        try:
            return address == self._host or ipaddress.ip_address(address).is_loopback
        except ValueError:
            return False


def revoked(before: Allowed, after: Allowed) -> frozenset[str]:
    """Return the names whose key was removed or replaced."""
    return frozenset(name for key, name in before.names.items() if after.names.get(key) != name)
