"""Compressed batches: which level is worth its time for what, and bytes made smaller and whole again.

    level       format    for
    none                  what is small, or urgent
    fast        lz4       what is urgent and large
    balanced    zstd 3    what may take a millisecond
    maximum     zstd 19   what nobody waits for

Nothing here trusts what comes: `rawBytes` is compared with the receiver's limit before anything is unpacked, what is
unpacked is never more than that, and whatever does not turn out as it says is one `MessageError`.
"""

from __future__ import annotations

import zlib
from typing import Literal

import lz4.frame
import msgspec
import zstandard

from .errors import SerializationError

Level = Literal["none", "fast", "balanced", "maximum"]
Compression = Literal["none", "lz4", "zstd", "gzip"]
Priority = Literal["real_time", "interactive", "background", "bulk"]

_ZSTD_LEVELS: dict[Level, int] = {"balanced": 3, "maximum": 19}
# What a zstd frame may make a decoder remember: as much as RFC 8878 asks every decoder to be able to.
_MAX_ZSTD_WINDOW = 8 << 20
# zlib's windowBits for the gzip format alone.
_GZIP = 31


class Thresholds(msgspec.Struct, frozen=True):
    """Bytes from which on urgent data are worth a level."""

    fast_from_bytes: int
    balanced_from_bytes: int


def level_for(size: int, priority: Priority, minimum: int, thresholds: Thresholds) -> Level:
    """The level for `size` bytes of that priority; none below `minimum` bytes."""
    if size < minimum:
        return "none"
    match priority:
        case "real_time":
            return "fast" if size >= thresholds.fast_from_bytes else "none"
        case "interactive":
            return "balanced" if size >= thresholds.balanced_from_bytes else "fast"
        case "background":
            return "balanced"
        case "bulk":
            return "maximum"


def compress(level: Level, data: bytes) -> tuple[Compression, bytes]:
    """The format and the bytes in it; `data` themselves, as `none`, where that would not be smaller."""
    if level == "none":
        return "none", data
    if level == "fast":
        form: Compression = "lz4"
        packed: bytes = lz4.frame.compress(data)
    else:
        # Made anew each time: it must not be shared between threads, and costs a microsecond.
        form, packed = "zstd", zstandard.ZstdCompressor(level=_ZSTD_LEVELS[level]).compress(data)
    return (form, packed) if len(packed) < len(data) else ("none", data)


def decompress(form: Compression, data: bytes, raw_bytes: int, limit: int) -> bytes:
    """What `compress` was given: exactly `raw_bytes`, which may be `limit` at most. Raises `MessageError`."""
    if not 0 <= raw_bytes <= limit:
        raise SerializationError(f"a batch of {raw_bytes} bytes came; up to {limit} are taken", bytes=raw_bytes)
    try:
        raw = _unpacked(form, data, raw_bytes)
    except (RuntimeError, ValueError, EOFError, MemoryError, zlib.error, zstandard.ZstdError) as error:
        raise SerializationError(f"a batch that is not {form}: {error}", compression=form) from error
    if raw is None or len(raw) != raw_bytes:
        raise SerializationError(
            f"a batch in {form} says that it holds {raw_bytes} bytes, and is not exactly that", compression=form
        )
    return raw


def _unpacked(form: Compression, data: bytes, raw_bytes: int) -> bytes | None:
    """At most one byte more than `raw_bytes`; None where `data` end before they should, or after."""
    match form:
        case "none":
            return data
        case "lz4":
            frame = lz4.frame.LZ4FrameDecompressor()
            raw: bytes = frame.decompress(data, max_length=raw_bytes + 1)
            return raw if frame.eof and not frame.unused_data else None
        case "gzip":
            member = zlib.decompressobj(_GZIP)
            raw = member.decompress(data, raw_bytes + 1)
            return raw if member.eof and not member.unused_data else None
        case "zstd":
            # The library believes a size in the header, and takes memory for it: so that is looked at first.
            if zstandard.frame_content_size(data) not in (-1, raw_bytes):
                return None
            frames = zstandard.ZstdDecompressor(max_window_size=_MAX_ZSTD_WINDOW)
            return frames.decompress(data, max_output_size=raw_bytes, allow_extra_data=False)
