"""Messages as columns: what a batch of one type holds when its reader wants arrays rather than maps.

A thousand prices are a thousand maps of 117 bytes, or five arrays and two texts: 40 bytes a message, and no work for
whoever reads them as a table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from backtestr_protocol.codec import encode, encoded_payload
from backtestr_protocol.stream_messages import Column


class ColumnRun(msgspec.Struct, frozen=True):
    """`count` messages of one type: by field an array of `count` float64 or int64, or the value that all have."""

    type_name: str
    constants: Mapping[str, str]
    arrays: Mapping[str, np.ndarray]
    count: int

    def __len__(self) -> int:
        return self.count

    def cut(self, first: int, stop: int) -> ColumnRun:
        """The messages [first, stop), copied: what is kept must not keep the whole alive."""
        arrays = {name: values[first:stop].copy() for name, values in self.arrays.items()}
        return ColumnRun(self.type_name, self.constants, arrays, stop - first)

    @property
    def size(self) -> int:
        """Bytes, of the arrays alone."""
        return sum(values.nbytes for values in self.arrays.values())

    def continues(self, other: ColumnRun) -> bool:
        """Whether both can stand in one batch."""
        return (self.type_name, self.constants) == (other.type_name, other.constants)

    def single(self) -> bytes:
        """The payload of its only message, as it travels alone."""
        assert self.count == 1
        values = {name: values[0].item() for name, values in self.arrays.items()}
        return encoded_payload(self.type_name, {**self.constants, **values})


def encoded_columns(runs: Sequence[ColumnRun]) -> bytes:
    """The MessagePack of a batch's `columns`, of runs that continue each other."""
    first = runs[0]
    columns: dict[str, Column | str] = dict(first.constants)
    for name, values in first.arrays.items():
        whole = values if len(runs) == 1 else np.concatenate([run.arrays[name] for run in runs])
        if whole.dtype.kind == "f":
            columns[name] = Column(dtype="<f8", data=whole.astype("<f8", copy=False).tobytes())
        else:
            columns[name] = Column(dtype="<i8", data=whole.astype("<i8", copy=False).tobytes())
    return encode(columns)
