"""This module chooses the compression level of a batch, compresses batches and decompresses them.

    level       format    for
    none                  small data, and urgent data
    fast        lz4       urgent and large data
    balanced    zstd 3    data that may take a millisecond
    maximum     zstd 19   data that no client waits for

Received data are not trusted. `rawBytes` is compared with the receiver's limit before any byte is decompressed, no more
than that is ever decompressed, and data that do not match their description raise a `MessageError`.
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
# The most bytes that a zstd frame may have a decoder keep: as much as RFC 8878 recommends that decoders support.
_MAX_ZSTD_WINDOW = 8 << 20
# zlib's windowBits for the gzip format alone.
_GZIP = 31


class Thresholds(msgspec.Struct, frozen=True):
    """The sizes in bytes from which on a level is worth its time for urgent data."""

    fast_from_bytes: int
    balanced_from_bytes: int


def level_for(size: int, priority: Priority, minimum: int, thresholds: Thresholds) -> Level:
    """Return the level for `size` bytes of a priority; `none` below `minimum` bytes."""
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
    """Return the format and the compressed bytes; `none` and `data` itself if compression does not make it smaller."""
    if level == "none":
        return "none", data
    if level == "fast":
        form: Compression = "lz4"
        packed: bytes = lz4.frame.compress(data)
    else:
        # A new compressor each time: it must not be shared between threads, and costs a microsecond.
        form, packed = "zstd", zstandard.ZstdCompressor(level=_ZSTD_LEVELS[level]).compress(data)
    return (form, packed) if len(packed) < len(data) else ("none", data)


def decompress(form: Compression, data: bytes, raw_bytes: int, limit: int) -> bytes:
    """Return the data that were compressed: exactly `raw_bytes` bytes, `limit` at most.

    Raises `MessageError` for a `raw_bytes` outside the limit, and for data that do not decompress to exactly that.
    """
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
    """Decompress at most `raw_bytes` + 1 bytes; return None if `data` end too early, or do not end in time."""
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
            # The library allocates the size that the header states, so that size is checked first.
            if zstandard.frame_content_size(data) not in (-1, raw_bytes):
                return None
            frames = zstandard.ZstdDecompressor(max_window_size=_MAX_ZSTD_WINDOW)
            return frames.decompress(data, max_output_size=raw_bytes, allow_extra_data=False)
