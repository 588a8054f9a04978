"""Find out whether SQLite's write-ahead log has lost changes: SQLite itself ignores everything after a bad frame.

The log is a header of 32 bytes, then frames: 24 bytes of header and a page each. All frames that were written since the
log was last reset carry its two salts; a frame whose second field is not 0 ends a transaction. What lies behind the
last transaction that SQLite has recovered is either old, with other salts, or was being written when the broker ended,
or is damaged (https://sqlite.org/walformat.html).
"""

from __future__ import annotations

import struct

import msgspec

_HEADER = struct.Struct(">8I")
_FRAME = struct.Struct(">6I")
_MAGICS = (0x377F0682, 0x377F0683)
_SMALLEST_PAGE, _LARGEST_PAGE = 512, 65_536


class WalDamage(msgspec.Struct, frozen=True):
    """Damage of a write-ahead log. `certain`: changes are lost that were acknowledged; otherwise they may be."""

    certain: bool
    reason: str


def check_wal(content: bytes, recovered: int) -> WalDamage | None:
    """Return the damage of a log of which SQLite has recovered so many frames; None where nothing shows it.

    A broker that is killed may leave the header of a frame without its page, since SQLite writes them one after the
    other. A log that something else cut at the end of a frame looks like a shorter one.
    """
    if len(content) < _HEADER.size + _FRAME.size:
        return None if len(content) in (0, _HEADER.size) else WalDamage(False, "the log ends within a header")
    magic, _version, page_size, _sequence, *rest = _HEADER.unpack_from(content)
    salts, stored = tuple(rest[:2]), tuple(rest[2:])
    order = ">" if magic & 1 else "<"
    if (
        magic not in _MAGICS
        or not _SMALLEST_PAGE <= page_size <= _LARGEST_PAGE
        or page_size & (page_size - 1)
        or _sum(content[:24], (0, 0), order) != stored
    ):
        return WalDamage(False, "the header of the log is damaged, so none of its changes could be read")
    size = _FRAME.size + page_size
    starts = range(_HEADER.size, len(content) - size + 1, size)
    fields = [_FRAME.unpack_from(content, start) for start in starts]
    seed = stored if not 0 < recovered <= len(fields) else fields[recovered - 1][4:]
    for number in range(max(recovered, 0), len(fields)):
        same = [fields[number][2 + at] == salts[at] for at in (0, 1)]
        if all(same):
            frame = content[starts[number] : starts[number] + size]
            seed = _sum(frame[_FRAME.size :], _sum(frame[:8], seed, order), order)
            if seed == fields[number][4:]:
                continue  # of a transaction that was not finished
        # A frame from before the last reset has two other salts: one is counted up, one is a random number.
        elif not any(same) and any(fields[number][2:4]) and all(one[2:4] != salts for one in fields[number + 1 :]):
            return None
        ends = sum(one[2:4] == salts and one[1] != 0 for one in fields[number:])
        lost = f"{len(fields) - recovered} of its {len(fields)} frames could not be read"
        return WalDamage(ends > 1, f"frame {number + 1} of the log is damaged, and {lost}")
    if (len(content) - _HEADER.size) % size not in (0, _FRAME.size):
        return WalDamage(False, "the log ends within a page")
    return None


def _sum(data: bytes, seed: tuple[int, ...], order: str) -> tuple[int, ...]:
    """Return the log's checksum of `data`, a multiple of 8 bytes, continued from `seed`."""
    first, second = seed
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second
