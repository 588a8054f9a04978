"""Compressed data decompress to the same bytes, and hostile bytes raise one error and never exhaust memory."""

from __future__ import annotations

import gzip
import tracemalloc
from typing import Any

import lz4.frame
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from backtestr_protocol.errors import MessageError, SerializationError
from backtestr_protocol.payload_compression import (
    Compression,
    Level,
    Priority,
    Thresholds,
    compress,
    decompress,
    level_for,
)

LIMIT = 1 << 20
PAYLOAD = b"".join(b"the message %d of many; " % number for number in range(500))
THRESHOLDS = Thresholds(fast_from_bytes=10_240, balanced_from_bytes=5_120)


def zstd(data: bytes, *, with_size: bool = True, level: int = 3) -> bytes:
    return zstandard.ZstdCompressor(level=level, write_content_size=with_size).compress(data)


# Every form in which an encoder may write the same bytes.
WRITTEN: dict[str, tuple[Compression, bytes]] = {
    "none": ("none", PAYLOAD),
    "lz4": ("lz4", lz4.frame.compress(PAYLOAD)),
    "lz4 without its size": ("lz4", lz4.frame.compress(PAYLOAD, store_size=False)),
    "lz4 in linked blocks with checksums": (
        "lz4",
        lz4.frame.compress(PAYLOAD, block_size=4, block_linked=True, content_checksum=True, block_checksum=True),
    ),
    "zstd": ("zstd", zstd(PAYLOAD)),
    "zstd without its size": ("zstd", zstd(PAYLOAD, with_size=False)),
    "zstd 19": ("zstd", zstd(PAYLOAD, level=19)),
    "gzip": ("gzip", gzip.compress(PAYLOAD)),
}
of_every_form = pytest.mark.parametrize(("form", "written"), WRITTEN.values(), ids=WRITTEN.keys())


def refused(form: Compression, data: bytes, raw_bytes: int, limit: int = LIMIT) -> SerializationError:
    with pytest.raises(SerializationError) as caught:
        decompress(form, data, raw_bytes, limit)
    return caught.value


@of_every_form
def test_data_decompress_to_the_same_bytes(form: Compression, written: bytes) -> None:
    assert decompress(form, written, len(PAYLOAD), LIMIT) == PAYLOAD
    assert decompress(form, written, len(PAYLOAD), len(PAYLOAD)) == PAYLOAD


@of_every_form
@pytest.mark.parametrize("wrong", [-1, 1, -len(PAYLOAD), 100_000])
def test_a_false_size_is_refused(form: Compression, written: bytes, wrong: int) -> None:
    refused(form, written, len(PAYLOAD) + wrong)


@of_every_form
def test_more_than_the_limit_is_refused_before_decompression(form: Compression, written: bytes) -> None:
    error = refused(form, written, len(PAYLOAD), len(PAYLOAD) - 1)
    assert error.details == {"bytes": len(PAYLOAD)}
    refused(form, written, -1)
    refused(form, written, 2**62)


@of_every_form
def test_truncated_data_and_data_with_more_after_them_are_refused(form: Compression, written: bytes) -> None:
    for data in (written[:-1], written[: len(written) // 2], b"", written + b"\0", written + written):
        refused(form, data, len(PAYLOAD))


def test_data_of_another_form_are_refused() -> None:
    for form, _ in WRITTEN.values():
        for other, written in WRITTEN.values():
            if form not in (other, "none"):
                refused(form, written, len(PAYLOAD))


BOMB = bytes(64 << 20)
BOMBS: dict[str, tuple[Compression, bytes]] = {
    "lz4": ("lz4", lz4.frame.compress(BOMB)),
    "lz4 without its size": ("lz4", lz4.frame.compress(BOMB, store_size=False)),
    "zstd": ("zstd", zstd(BOMB)),
    "zstd without its size": ("zstd", zstd(BOMB, with_size=False)),
    "gzip": ("gzip", gzip.compress(BOMB)),
    # A header that claims 2^62 bytes, a window of 2^41, and members or frames one after another.
    "zstd that claims 2^62 bytes": ("zstd", b"\x28\xb5\x2f\xfd\xe0" + (2**62).to_bytes(8, "little") + b"\x01\0\0"),
    "zstd with a window of terabytes": ("zstd", b"\x28\xb5\x2f\xfd\x00\xff\x09\0\0x"),
    "gzip in members": ("gzip", gzip.compress(bytes(1000)) * 1000),
    "zstd in frames": ("zstd", zstd(bytes(1000)) * 1000),
    "lz4 in frames": ("lz4", lz4.frame.compress(bytes(1000)) * 1000),
}


@pytest.mark.parametrize(("form", "bomb"), BOMBS.values(), ids=BOMBS.keys())
def test_a_bomb_takes_no_more_memory_than_the_size_it_claims(form: Compression, bomb: bytes) -> None:
    for claimed in (1, 1000, LIMIT):
        tracemalloc.start()
        try:
            refused(form, bomb, claimed)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 4 * LIMIT


@given(
    st.sampled_from(["lz4", "zstd", "gzip"]),
    st.integers(-10, 2 * LIMIT),
    st.one_of(
        st.binary(max_size=200),
        st.binary(max_size=40).map(lambda rest: b"\x04\x22\x4d\x18" + rest),
        st.binary(max_size=40).map(lambda rest: b"\x28\xb5\x2f\xfd" + rest),
        st.binary(max_size=40).map(lambda rest: b"\x1f\x8b\x08" + rest),
    ),
)
def test_hostile_bytes_raise_one_error(form: Compression, raw_bytes: int, data: bytes) -> None:
    try:
        raw = decompress(form, data, raw_bytes, LIMIT)
    except MessageError:
        return
    assert len(raw) == raw_bytes


@of_every_form
@given(data=st.data())
def test_damaged_bytes_raise_one_error_or_give_the_claimed_number_of_bytes(
    form: Compression, written: bytes, data: st.DataObject
) -> None:
    damaged = bytearray(written)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(written) - 1))] = data.draw(st.integers(0, 255))
    try:
        raw = decompress(form, bytes(damaged), len(PAYLOAD), LIMIT)
    except MessageError:
        return
    assert len(raw) == len(PAYLOAD)


@given(
    st.binary(max_size=2000) | st.binary(max_size=20).map(lambda data: data * 100),
    st.sampled_from(["none", "fast", "balanced", "maximum"]),
)
def test_compressed_data_are_smaller_or_left_uncompressed(data: bytes, level: Level) -> None:
    form, packed = compress(level, data)
    assert decompress(form, packed, len(data), LIMIT) == data
    assert len(packed) < len(data) if form != "none" else packed == data


@pytest.mark.parametrize(
    ("size", "priority", "level"),
    [
        (10_239, "real_time", "none"),
        (10_240, "real_time", "fast"),
        (5_119, "interactive", "fast"),
        (5_120, "interactive", "balanced"),
        (2_000, "background", "balanced"),
        (2_000, "bulk", "maximum"),
        (1_999, "bulk", "none"),
        (1_999, "interactive", "none"),
    ],
)
def test_the_level_depends_on_size_and_priority(size: int, priority: Priority, level: Level) -> None:
    assert level_for(size, priority, 2_000, THRESHOLDS) == level


@given(st.integers(0, 1 << 20), st.sampled_from(["real_time", "interactive", "background", "bulk"]), st.data())
def test_data_below_the_minimum_of_their_class_are_not_compressed(size: int, priority: Priority, data: Any) -> None:
    assert level_for(size, priority, data.draw(st.integers(size + 1, 1 << 21)), THRESHOLDS) == "none"
