"""Export writes bars and ticks to files that other programs read."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import polars as pl

_TIME = "%Y-%m-%dT%H:%M:%S%.fZ"
FORMATS: Mapping[str, Callable[[pl.DataFrame, Path], object]] = {
    ".csv": lambda bars, file: bars.write_csv(file, datetime_format=_TIME),
    ".parquet": lambda bars, file: bars.write_parquet(file),
    ".arrow": lambda bars, file: bars.write_ipc(file),
}
"""The writers of the formats, by the end of the file's name."""


_SINKS: Mapping[str, Callable[[pl.LazyFrame, Path], object]] = {
    ".csv": lambda ticks, file: ticks.sink_csv(file, datetime_format=_TIME),
    ".parquet": lambda ticks, file: ticks.sink_parquet(file),
    ".arrow": lambda ticks, file: ticks.sink_ipc(file),
}


def write_bars(bars: pl.DataFrame, file: Path) -> int:
    """Write bars in the format of the end of the file's name, and return their number.

    The file appears when it is complete; until then an existing file stays as it was. Raises `ValueError` for another
    end, and `OSError` where the file cannot be written.
    """
    _replace(file, lambda partial: FORMATS[file.suffix](bars, partial))
    return bars.height


def write_pages(pages: Iterable[pl.DataFrame], file: Path) -> int:
    """Write tables of ticks, one after another, as `write_bars` does, and return the number of ticks.

    A column that no tick has is left out. The pages lie in a folder beside the file until all are there, so that no
    more than a page is in memory. Raises what `pages` raises, too.
    """
    count = 0
    columns = ["timestamp"]
    with tempfile.TemporaryDirectory(prefix=f".{file.name}.", suffix=".partial", dir=file.parent) as folder:
        for number, page in enumerate(pages):
            page.write_parquet(Path(folder) / f"{number:09}.parquet", compression="lz4")
            count += page.height
            columns += [one for one in page.columns if one not in columns and page[one].null_count() < page.height]
        ticks = pl.scan_parquet(f"{folder}/*.parquet", glob=True)
        in_order = [one for one in ticks.collect_schema().names() if one in columns]
        _replace(file, lambda partial: _SINKS[file.suffix](ticks.select(in_order), partial))
    return count


def _replace(file: Path, write: Callable[[Path], object]) -> None:
    if file.suffix not in FORMATS:
        raise ValueError(f"{file.name} does not end in {', '.join(FORMATS)}")
    partial = file.with_name(f".{file.name}.partial")
    try:
        write(partial)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
