"""A stored result as earlier versions wrote it: a file for each array, and the checksum of each file."""

from __future__ import annotations

import zlib
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from backtestr_engine.backtest.result_files import RECORDS, Part, RecordFile

# The file of an array of one column, and the name of its column there.
_COLUMNS = {
    "equity": ("equity", "equity"),
    "starts": ("times", "start"),
    "bars": ("times", "bars"),
    "changes": ("changes", "order_id"),
    "signals": ("signals", "signal_time"),
}


def as_earlier_version(folder: Path) -> None:
    """Write the arrays of a result as files, in place of the one file that has them all."""
    stored = msgspec.json.decode((folder / "result.json").read_bytes())
    parts = msgspec.convert(stored.pop("parts"), dict[str, Part])
    found = RecordFile(folder, parts)
    tables: dict[str, dict[str, np.ndarray]] = {}
    for name, part in parts.items():
        if name == "streams":
            (folder / "streams.msgpack").write_bytes(found.content(name))
        elif name in _COLUMNS:
            file, column = _COLUMNS[name]
            tables.setdefault(file, {})[column] = found.column(name)
        else:
            kind = np.dtype([(field, form) for field, form, _ in part.columns])
            records = found.records(name, kind)
            tables[name] = {field: np.ascontiguousarray(records[field]) for field in kind.names or ()}
    (folder / RECORDS).unlink()
    for file, columns in tables.items():
        pl.DataFrame(columns).write_ipc_stream(folder / f"{file}.arrow", compression="uncompressed")
    files = [one for one in folder.iterdir() if one.name != "result.json"]
    stored["checksums"] = {one.name: zlib.crc32(one.read_bytes()) for one in files}
    (folder / "result.json").write_bytes(msgspec.json.encode(stored))
