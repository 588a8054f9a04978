"""Records of a checkpoint are read up to the first that is torn, damaged or out of its order."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_engine.backtest.checkpoint_format import (
    MAGIC,
    Attempt,
    CheckpointHead,
    Chunk,
    Computed,
    Progressed,
    Record,
    SavedSignals,
    Writer,
    read_checkpoint,
)

HEAD = CheckpointHead(b"what it is of")
COMPUTED = Computed([SavedSignals(b"\1\0", stop_loss=b"12345678")])


def chunk(number: int, size: int = 3) -> Chunk:
    return Chunk(b"e" * 8 * size, b"o" * number, b"", b"t", {"account": b"a"}, bytes([number]))


def written(*records: Record) -> list[bytes]:
    writer = Writer()
    return [MAGIC, *map(writer.encode, records)]


ALL: tuple[Record, ...] = (HEAD, Attempt(0, 0), COMPUTED, chunk(1), Attempt(3, 6), chunk(2, 20_000), Attempt(9, 12))


def test_records_come_back_as_they_were_written() -> None:
    content = b"".join(written(*ALL))
    found = read_checkpoint(content)
    assert (found.head, found.computed, found.chunks) == (HEAD, COMPUTED, [chunk(1), chunk(2, 20_000)])
    assert found.attempts == [Attempt(9, 12)], "the others have a record behind them"
    assert found.size == len(content)


def test_a_writer_goes_on_behind_the_records_that_were_read() -> None:
    content = b"".join(written(*ALL))
    further = Writer(read_checkpoint(content).checksum).encode(chunk(3))
    assert read_checkpoint(content + further).chunks == [chunk(1), chunk(2, 20_000), chunk(3)]
    assert read_checkpoint(content + Writer().encode(chunk(3))).chunks == [chunk(1), chunk(2, 20_000)]


def test_a_tail_that_is_torn_at_any_byte_is_cut_off() -> None:
    *before, last = written(HEAD, COMPUTED, chunk(1), chunk(2))
    whole = b"".join(before)
    expected = read_checkpoint(whole)
    assert expected.chunks == [chunk(1)]
    for kept in range(len(last)):
        assert read_checkpoint(whole + last[:kept]) == expected
        assert read_checkpoint(whole + last[:kept] + bytes(len(last) - kept)).size in (len(whole), len(whole + last))


@settings(max_examples=200)
@given(data=st.data())
def test_damage_ends_it_before_the_damaged_record(data: st.DataObject) -> None:
    parts = written(*ALL)
    content = bytearray(b"".join(parts))
    at, mask = data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(1, 255))
    content[at] ^= mask
    ends = [sum(map(len, parts[: number + 1])) for number in range(len(parts))]
    whole = max((end for end in ends if end <= at), default=0)
    assert read_checkpoint(bytes(content)).size == whole


def test_the_bars_of_progress_are_kept_in_their_order_wherever_they_stand() -> None:
    first, second = Progressed(4), Progressed(9)
    found = read_checkpoint(b"".join(written(HEAD, first, COMPUTED, Attempt(0, 9), chunk(1), Attempt(9, 12), second)))
    assert (found.progress_at, found.chunks, found.attempts) == ([4, 9], [chunk(1)], [Attempt(9, 12)])
    *before, _ = written(HEAD, second, first)
    assert read_checkpoint(b"".join(written(HEAD, second, first))).size == len(b"".join(before))


@given(st.binary(max_size=300))
def test_foreign_bytes_are_no_checkpoint(content: bytes) -> None:
    assert read_checkpoint(content).head is None
    assert read_checkpoint(MAGIC + content).chunks == []


@pytest.mark.parametrize(
    "records", [(COMPUTED,), (HEAD, chunk(1)), (Attempt(0, 0),), (HEAD, COMPUTED, COMPUTED), (HEAD, HEAD)]
)
def test_a_record_out_of_its_order_ends_it(records: tuple[Record, ...]) -> None:
    *before, _ = written(*records)
    assert read_checkpoint(b"".join(written(*records))).size == len(b"".join(before))


def test_a_record_that_is_none_ends_it() -> None:
    writer = Writer()
    content = MAGIC + writer.encode(HEAD)
    other = msgspec.defstruct("Other", [("x", int)], tag=True)
    record: Any = other(1)
    assert read_checkpoint(content + writer.encode(record)).size == len(content)
