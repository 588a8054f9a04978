"""Payloads of messages: one message as it is, several as a `Batch`, compressed where that pays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, cast

import msgspec

from backtestr_protocol.codec import encoded_payload
from backtestr_protocol.payload_compression import Priority, Thresholds, compress, level_for
from backtestr_protocol.system_status import CompressionStatus

from .column_batches import ColumnBatch, encoded_columns
from .record_encoding import EncodedMaps

Messages = EncodedMaps | ColumnBatch
_Positive = Annotated[int, msgspec.Meta(ge=1)]


class CompressionOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    enabled: bool
    fast_from_bytes: _Positive
    balanced_from_bytes: _Positive

    @property
    def thresholds(self) -> Thresholds:
        return Thresholds(self.fast_from_bytes, self.balanced_from_bytes)


class Packer:
    """The maker of payloads, with counters of their compression; `clock` returns seconds, for these counters alone."""

    def __init__(self, options: CompressionOptions, clock: Callable[[], float]) -> None:
        self._options = options
        self._thresholds = options.thresholds
        self._clock = clock
        self._batches = self._bytes_in = self._bytes_out = 0
        self._seconds = 0.0

    def payload(self, parts: Sequence[Messages], count: int, priority: Priority, compression_bytes: int) -> bytes:
        """Return one stream payload of `parts` that fit into one batch, `count` messages in all."""
        if isinstance(parts[0], ColumnBatch):
            columns = cast("Sequence[ColumnBatch]", parts)
            if count == 1:
                return columns[0].single()
            raw = encoded_columns(columns)
            fields: dict[str, int | str] = {"count": count, "rawBytes": len(raw), "type": columns[0].type_name}
            return self._batch(fields, "columns", raw, priority, compression_bytes)
        messages = b"".join([part.data for part in cast("Sequence[EncodedMaps]", parts)])
        if count == 1:
            return messages
        raw = _array_header(count) + messages
        return self._batch({"count": count, "rawBytes": len(raw)}, "messages", raw, priority, compression_bytes)

    @property
    def status(self) -> CompressionStatus | None:
        """The counters of compression so far; None while nothing was compressed."""
        if not self._batches:
            return None
        return CompressionStatus(
            batches=self._batches,
            bytes_in=self._bytes_in,
            bytes_out=self._bytes_out,
            time_ms=round(1000 * self._seconds, 3),
        )

    def _batch(
        self, fields: dict[str, int | str], content: str, raw: bytes, priority: Priority, compression_bytes: int
    ) -> bytes:
        if self._options.enabled:
            level = level_for(len(raw), priority, compression_bytes, self._thresholds)
            if level != "none":
                began = self._clock()
                form, packed = compress(level, raw)
                self._seconds += self._clock() - began
                self._batches += 1
                self._bytes_in += len(raw)
                self._bytes_out += len(packed)
                if form != "none":
                    return encoded_payload("Batch", {**fields, "compression": form, content: packed})
        return encoded_payload("Batch", {**fields, "compression": "none", content: msgspec.Raw(raw)})


def total(statuses: Iterable[CompressionStatus | None]) -> CompressionStatus | None:
    """Return the sums of several counters; None if there are none."""
    some = [one for one in statuses if one is not None]
    if not some:
        return None
    return CompressionStatus(
        batches=sum(one.batches for one in some),
        bytes_in=sum(one.bytes_in for one in some),
        bytes_out=sum(one.bytes_out for one in some),
        time_ms=sum(one.time_ms for one in some),
    )


def _array_header(count: int) -> bytes:
    return bytes([0x90 | count]) if count < 16 else b"\xdc" + count.to_bytes(2, "big")
