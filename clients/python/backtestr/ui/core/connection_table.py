"""The table of TCP connections that Linux shows in /proc/net/tcp, which has the user of each socket."""

from __future__ import annotations

import ipaddress

# Columns of a line, separated by spaces.
_LOCAL, _REMOTE, _USER = 1, 2, 7

Address = tuple[str, int]


def user_of(table: str, local: Address, remote: Address) -> int | None:
    """Return the id of the user whose socket is connected from `local` to `remote` (IPv4); None if it is not there."""
    ends = [_written(local), _written(remote)]
    for line in table.splitlines():
        columns = line.split()
        if len(columns) > _USER and [columns[_LOCAL], columns[_REMOTE]] == ends and columns[_USER].isdigit():
            return int(columns[_USER])
    return None


def _written(address: Address) -> str:
    """Return an address as Linux writes it where the lowest byte comes first, as on all machines that this runs on."""
    host, port = address
    return f"{int.from_bytes(ipaddress.IPv4Address(host).packed, 'little'):08X}:{port:04X}"
