"""The format of a checkpoint: what a running backtest has come to, as bytes that another worker goes on from.

    magic, then records: length (8 bytes), checksum (4 bytes), MessagePack of
        CheckpointHead   what the checkpoint is of: config, data, engine
        Attempt*         a worker was about to run the algorithm or to simulate bars, after another one was lost
        Computed         the signals that the algorithm gave
        Chunk*           what came with further bars, and the state of the simulation behind them; Attempts between them
        Progressed*      progress was made at these bars; anywhere behind the head, and before its messages were sent

Records are only appended. The checksum of each continues that of the one before it, so a record counts if it and all
before it are as they were written: a torn or damaged record ends the checkpoint before it. An `Attempt` without a
record behind it ended its worker.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec

from backtestr_engine.data.block_sums import checksum
from backtestr_protocol.ranges import NotNegative

MAGIC = b"backtestr checkpoint 1\n"
_PREFIX = struct.Struct("<QI")


class CheckpointHead(msgspec.Struct, frozen=True, tag=True):
    """The hash of everything that decides what the backtest gives."""

    fingerprint: bytes


class Attempt(msgspec.Struct, frozen=True, tag=True):
    """A worker was about to simulate the bars from `first_bar` up to, but not including, `stop_bar`.

    Without a bar among them it was about to run the algorithm, or to end the backtest.
    """

    first_bar: NotNegative
    stop_bar: NotNegative


class Progressed(msgspec.Struct, frozen=True, tag=True):
    """Progress was made when so many `bars` were simulated, and is made there again by whoever simulates them again."""

    bars: NotNegative


class SavedSignals(msgspec.Struct, frozen=True):
    """The bytes of the arrays of `Signals` of one symbol, None where there is none."""

    flags: bytes
    stop_loss: bytes | None = None
    take_profit: bytes | None = None
    trailing_stop: bytes | None = None
    limit_price: bytes | None = None
    stop_price: bytes | None = None
    target: bytes | None = None


class Computed(msgspec.Struct, frozen=True, tag=True):
    """The signals of every symbol."""

    signals: list[SavedSignals]


class Chunk(msgspec.Struct, frozen=True, tag=True):
    """The records and equity since the chunk before, as bytes of arrays, and the `state` behind its last bar.

    `log` has the new entries of the stream log.
    """

    equity: bytes
    orders: bytes
    positions: bytes
    trades: bytes
    state: dict[str, bytes]
    log: bytes


Record = CheckpointHead | Attempt | Progressed | Computed | Chunk

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)


class Writer:
    """Encodes the records of one checkpoint, in order."""

    def __init__(self, last: int = 0) -> None:
        """Take the checksum of the last record that is written already."""
        self._checksum = last

    def encode(self, record: Record) -> bytes:
        """Return the bytes to append for the next record. Raises `OverflowError` and `ValueError` for one too large."""
        payload = _encoder.encode(record)
        self._checksum = checksum(payload, self._checksum)
        return _PREFIX.pack(len(payload), self._checksum) + payload


class Contents(msgspec.Struct):
    """The records of a checkpoint that are as they were written.

    `attempts` are those behind the last chunk, or behind the signals. `progress_at` has the bars at which progress was
    made, in order. The records end at byte `size`; `checksum` is that of the last.
    """

    head: CheckpointHead | None = None
    computed: Computed | None = None
    chunks: list[Chunk] = []
    attempts: list[Attempt] = []
    progress_at: list[int] = []
    size: int = 0
    checksum: int = 0


def read_checkpoint(content: bytes) -> Contents:
    """Return what of a file is as it was written, up to the first record that is not, or is not in its order."""
    found = Contents()
    if not content.startswith(MAGIC):
        return found
    found.size = len(MAGIC)
    for record, size, last in _records(content):
        match record:
            case CheckpointHead() if found.head is None:
                found.head = record
            case Attempt() if found.head is not None:
                found.attempts.append(record)
            case Progressed(bars=bars) if found.head is not None and [bars] > found.progress_at[-1:]:
                found.progress_at.append(bars)
            case Computed() if found.head is not None and found.computed is None:
                found.computed, found.attempts = record, []
            case Chunk() if found.computed is not None:
                found.chunks.append(record)
                found.attempts = []
            case _:
                break
        found.size, found.checksum = size, last
    return found


def _records(content: bytes) -> Iterator[tuple[Record, int, int]]:
    """Yield each record with the byte at which it ends and its checksum, up to the first that is torn or damaged."""
    at, found = len(MAGIC), 0
    while len(content) - at >= _PREFIX.size:
        length, stated = _PREFIX.unpack_from(content, at)
        first = at + _PREFIX.size
        if length > len(content) - first:
            return
        payload = memoryview(content)[first : first + length]
        found = checksum(payload, found)
        if found != stated:
            return
        try:
            record = _decoder.decode(payload)
        except msgspec.MsgspecError:
            return
        at = first + length
        yield record, at, found
