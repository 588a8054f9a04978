"""Bars as files that other programs read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import polars as pl

FORMATS: Mapping[str, Callable[[pl.DataFrame, Path], object]] = {
    ".csv": lambda bars, file: bars.write_csv(file, datetime_format="%Y-%m-%dT%H:%M:%S%.fZ"),
    ".parquet": lambda bars, file: bars.write_parquet(file),
    ".arrow": lambda bars, file: bars.write_ipc(file),
}
"""How a file is written, by the end of its name."""


def write_bars(bars: pl.DataFrame, file: Path) -> None:
    """Write bars in the format that the end of the file's name says. The file is there when it is whole, or stays what
    it was. Raises `ValueError` for another end and `OSError` where nothing can be written."""
    if file.suffix not in FORMATS:
        raise ValueError(f"{file.name} does not end in {', '.join(FORMATS)}")
    partial = file.with_name(f".{file.name}.partial")
    try:
        FORMATS[file.suffix](bars, partial)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
