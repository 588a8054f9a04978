"""Export writes bars to files that other programs read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import polars as pl

FORMATS: Mapping[str, Callable[[pl.DataFrame, Path], object]] = {
    ".csv": lambda bars, file: bars.write_csv(file, datetime_format="%Y-%m-%dT%H:%M:%S%.fZ"),
    ".parquet": lambda bars, file: bars.write_parquet(file),
    ".arrow": lambda bars, file: bars.write_ipc(file),
}
"""The writers of the formats, by the end of the file's name."""


def write_bars(bars: pl.DataFrame, file: Path) -> None:
    """Write bars in the format of the end of the file's name.

    The file appears when it is complete; until then an existing file stays as it was. Raises `ValueError` for another
    end, and `OSError` where the file cannot be written.
    """
    if file.suffix not in FORMATS:
        raise ValueError(f"{file.name} does not end in {', '.join(FORMATS)}")
    partial = file.with_name(f".{file.name}.partial")
    try:
        FORMATS[file.suffix](bars, partial)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
