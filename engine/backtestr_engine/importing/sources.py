"""Opening a file of market data, whatever its format: its rows, what cannot be read of them, and where they stand."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import polars as pl

from backtestr_protocol.errors import UnusableFile

from .columns import EXPECTED, Kind
from .csv_layout import Layout, detect_layout
from .csv_reader import line_numbers, read_rows
from .formats import FORMATS, binary_format, serves
from .parquet_arrow import read_table, typed_rows

LARGEST_FILE_BYTES = 2 << 30
"""Text and table are in memory together while a file is read."""

# Enough that one with a damaged time is not what the others are judged by.
_LINES_LOOKED_AT = 20

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, kw_only=True)
class Source:
    """What was read of a file. `rows` has `timestamp` (datetime[us, UTC]) and the fields of `kind`, float64; rows that
    cannot be read are in `malformed` (`rows.Rows`) instead."""

    file: str
    format: str
    kind: Kind
    rows: pl.DataFrame
    malformed: pl.DataFrame
    names: Mapping[str, str]
    """What the file calls the columns of `rows`."""
    place: Literal["line", "row"]
    """What `places` count: the lines of a text, or the rows of a table, from 1."""
    zoned: bool
    """Whether the file's times say by themselves which instant they are."""
    zone: str | None
    """The zone that the format has its times in, where they do not."""
    notes: Sequence[str]
    _places: Sequence[int] | None = field(repr=False)
    _text: tuple[bytes, Layout] | None = field(repr=False)

    def places(self) -> Sequence[int]:
        """Where each of `rows` stands. Counting lines takes a second pass over the text, so only a refusal asks."""
        if self._places is not None:
            return self._places
        return range(1, self.rows.height + 1) if self._text is None else line_numbers(*self._text)


def open_source(path: Path, format: str | None, time_zone: str | None) -> Source:
    """Read a file. `format` None: as its content says. `time_zone` None: as the format says, else UTC.

    Raises `UnusableFile` for a file that is not there, cannot be read, or is not what it is said to be.
    """
    try:
        first_bytes = _check_readable(path)
    except OSError as error:
        raise UnusableFile(f"{path} cannot be read: {error.strerror}", path=str(path)) from error
    found = binary_format(first_bytes)
    if found is None and format in ("parquet", "arrow"):
        raise UnusableFile(
            f"{path.name} is no {format} file; expected is {FORMATS[format]}", path="$.format", got=format
        )
    if found is not None and format is not None and not serves(found, format):
        raise UnusableFile(
            f"{path.name} is no {format} file, it looks like {found}; expected is {FORMATS[format]}",
            path="$.format",
            got=format,
            found=found,
        )
    return _open_text(path, format, time_zone) if found is None else _open_table(path, found, time_zone)


def _open_table(path: Path, format: str, time_zone: str | None) -> Source:
    header, columns, frame = read_table(path, format)
    rows, zoned = typed_rows(frame, header, columns, time_zone, path.name)
    return Source(
        file=path.name,
        format=format,
        kind=columns.kind,
        rows=rows.frame,
        malformed=rows.malformed,
        names={"timestamp": header[columns.time[0]]} | {name: header[at] for name, at in columns.fields.items()},
        place="row",
        zoned=zoned,
        zone=None,
        notes=columns.notes,
        _places=rows.lines,
        _text=None,
    )


def _open_text(path: Path, format: str | None, time_zone: str | None) -> Source:
    content = _read_text(path)
    blank = content[: len(content) - len(content.lstrip())].count(b"\n")
    try:
        layout = detect_layout(_first_lines(content), blank, format, path.name)
        rows = read_rows(content, layout, time_zone or layout.zone)
    except csv.Error as error:
        raise UnusableFile(
            f"{path.name} cannot be read as lines of cells: {error}; is there a quote that is opened and not closed?",
            path=str(path),
        ) from error
    return Source(
        file=path.name,
        format=layout.format,
        kind=layout.kind,
        rows=rows.frame,
        malformed=rows.malformed,
        names={name: layout.column_of(name) for name in ("timestamp", *layout.fields)},
        place="line",
        zoned=layout.written.zoned,
        zone=layout.zone,
        notes=layout.notes,
        _places=rows.lines,
        _text=(content, layout),
    )


def _first_lines(content: bytes) -> list[str]:
    """The first lines that are not blank. The text is not split to find them."""
    lines: list[str] = []
    start = 0
    while start < len(content) and len(lines) < _LINES_LOOKED_AT:
        end = content.find(b"\n", start) + 1 or len(content)
        line = content[start:end].decode()
        lines += [line] if line.strip() else []
        start = end
    return lines


def _check_readable(path: Path) -> bytes:
    """The first bytes of a file that can be read whole."""
    if not path.exists():
        raise UnusableFile(f"there is no file {path}", path=str(path))
    if not path.is_file():
        what = "a folder" if path.is_dir() else "a device"
        raise UnusableFile(f"{path} is {what}, not a file of market data", path=str(path))
    if path.stat().st_size > LARGEST_FILE_BYTES:
        raise UnusableFile(f"{path} is larger than {LARGEST_FILE_BYTES >> 30} GiB; split it", path=str(path))
    with path.open("rb") as file:
        return file.read(8)


def _read_text(path: Path) -> bytes:
    """The content as UTF-8 without a byte order mark, its lines ending with a line feed. MetaTrader writes UTF-16 on
    some systems, with its mark."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnusableFile(f"{path} cannot be read: {error.strerror}", path=str(path)) from error
    try:
        content = content.decode("utf-16").encode() if content.startswith(_UTF_16) else content
        content = content.removeprefix(_BYTE_ORDER_MARK)
        content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UnusableFile(
            f"{path.name} is not UTF-8 text (line {line}); expected is a known format: {', '.join(FORMATS)}",
            path=str(path),
            line=line,
        ) from None
    if content.isspace() or not content:
        raise UnusableFile(f"{path.name} is empty; expected are {EXPECTED}", path=str(path))
    if b"\0" in content:
        raise UnusableFile(
            f"{path.name} is a binary file of no known format; expected is one of {', '.join(FORMATS)}", path=str(path)
        )
    return content.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in content else content
