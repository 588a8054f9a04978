"""Column batches: messages of one type as arrays, for readers that want arrays rather than maps.

A thousand prices are a thousand maps of 117 bytes, or five arrays and two texts: 40 bytes a message, and no work for a
client that reads them as a table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from backtestr_protocol.codec import encode, encoded_payload
from backtestr_protocol.stream_messages import Column


class ColumnBatch(msgspec.Struct, frozen=True):
    """`count` messages of one type: for each field an array of `count` float64 or int64, or one value for all."""

    type_name: str
    constants: Mapping[str, str]
    arrays: Mapping[str, np.ndarray]
    count: int

    def __len__(self) -> int:
        return self.count

    def cut(self, first: int, stop: int) -> ColumnBatch:
        """Return a copy of the messages [first, stop), which does not keep the whole batch in memory."""
        arrays = {name: values[first:stop].copy() for name, values in self.arrays.items()}
        return ColumnBatch(self.type_name, self.constants, arrays, stop - first)

    @property
    def size(self) -> int:
        """The bytes of the arrays alone."""
        return sum(values.nbytes for values in self.arrays.values())

    def continues(self, other: ColumnBatch) -> bool:
        """Return whether both fit into one batch."""
        return (self.type_name, self.constants) == (other.type_name, other.constants)

    def single(self) -> bytes:
        """Return the payload of the only message, as it is sent alone."""
        assert self.count == 1
        values = {name: values[0].item() for name, values in self.arrays.items()}
        return encoded_payload(self.type_name, {**self.constants, **values})


def encoded_columns(parts: Sequence[ColumnBatch]) -> bytes:
    """Return the MessagePack of a batch's `columns`; `parts` fit into one batch."""
    first = parts[0]
    columns: dict[str, Column | str] = dict(first.constants)
    for name, values in first.arrays.items():
        whole = values if len(parts) == 1 else np.concatenate([part.arrays[name] for part in parts])
        if whole.dtype.kind == "f":
            columns[name] = Column(dtype="<f8", data=whole.astype("<f8", copy=False).tobytes())
        else:
            columns[name] = Column(dtype="<i8", data=whole.astype("<i8", copy=False).tobytes())
    return encode(columns)
