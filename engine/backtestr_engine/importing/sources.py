"""Opening a file of market data and deciding its format: the first stage of an import."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from backtestr_protocol.errors import UnusableFile

from .formats import EXPECTED_COLUMNS, FORMATS, binary_format, headed_format, serves, shape_of
from .timestamps import TimeFormat

LARGEST_FILE_BYTES = 2 << 30
"""Text and table are in memory together while a file is read."""

# Enough that one damaged time does not decide how the others are read.
_LINES_LOOKED_AT = 20

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_DELIMITERS = ",;\t|"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextFile:
    """A text file of a known format."""

    path: Path
    format: str
    content: bytes = field(repr=False)
    """UTF-8 without a byte order mark and without NUL, its lines ending with a line feed alone."""
    delimiter: str
    header: tuple[str, ...]
    """The names of the columns: those that the format gives them where the file has no header line."""
    has_header: bool
    header_lines: int
    """The number of lines before the first row."""
    first_rows: Sequence[Sequence[str]]
    """The cells of the first rows, without spaces around them."""
    time: TimeFormat | None
    """The format of its times, where the file format implies one."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TableFile:
    """A Parquet or Arrow file, with the names of all its columns."""

    path: Path
    format: str
    table: pl.LazyFrame
    header: tuple[str, ...]


def open_source(path: Path, format: str | None) -> TextFile | TableFile:
    """Open a file and decide its format; `format` is the one that it is said to have, None if nothing is said.

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
    if found is not None:
        return _open_table(path, _decide_format(path, found, format))
    try:
        return _open_text(path, format)
    except csv.Error as error:
        raise uneven_quotes(path, error) from error


def uneven_quotes(path: Path, error: csv.Error) -> UnusableFile:
    """Return the error for a text that Python's `csv` cannot cut into cells."""
    return UnusableFile(
        f"{path.name} cannot be read as lines of cells: {error}; is there a quote that is opened and not closed?",
        path=str(path),
    )


def unreadable_table(path: Path, format: str, error: BaseException) -> UnusableFile:
    """Return the error for a Parquet or Arrow file that polars cannot read."""
    return UnusableFile(f"{path.name} cannot be read as {format}: {error}", path=str(path))


def _decide_format(path: Path, found: str, asked: str | None) -> str:
    if asked is None or asked == found:
        return found
    if not serves(found, asked):
        raise UnusableFile(
            f"{path.name} is no {asked} file, it looks like {found}; expected is {FORMATS[asked]}",
            path="$.format",
            got=asked,
            found=found,
        )
    return asked


def _open_table(path: Path, format: str) -> TableFile:
    try:
        if format == "parquet":
            table = pl.scan_parquet(path)
        else:
            with path.open("rb") as file:
                is_file = file.read(6) == b"ARROW1"
            table = pl.scan_ipc(path) if is_file else pl.read_ipc_stream(path).lazy()
        return TableFile(path=path, format=format, table=table, header=tuple(table.collect_schema().names()))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise unreadable_table(path, format, error) from error


def _open_text(path: Path, asked: str | None) -> TextFile:
    content = _read_text(path)
    blank_lines = content[: len(content) - len(content.lstrip())].count(b"\n")
    lines = _first_lines(content)
    shape = shape_of(lines)
    if shape is not None:
        delimiter, header, found, rows = shape.delimiter, shape.header, shape.format, lines
    else:
        delimiter = max(_DELIMITERS, key=lines[0].strip().count)
        header, rows = tuple(_cells(lines[0], delimiter)), lines[1:]
        _refuse_headless(header, asked, path.name)
        found = headed_format(header)
    return TextFile(
        path=path,
        format=_decide_format(path, found, asked),
        content=content,
        delimiter=delimiter,
        header=header,
        has_header=shape is None,
        header_lines=blank_lines + len(lines) - len(rows),
        first_rows=[_cells(row, delimiter) for row in rows],
        time=None if shape is None else shape.time,
    )


def _cells(line: str, delimiter: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]


def _refuse_headless(header: tuple[str, ...], asked: str | None, file: str) -> None:
    if sum(cell[:1].isdigit() for cell in header) * 2 > len(header):
        expected = EXPECTED_COLUMNS if asked is None else f"{asked}: {FORMATS[asked]}"
        raise UnusableFile(
            f"{file} has no header line, and is of no format that has none: the first is {', '.join(header)}; "
            f"expected are {expected}",
            line=1,
            columns=list(header),
        )


def _first_lines(content: bytes) -> list[str]:
    """Return the first lines that are not blank, without splitting the whole text to find them."""
    lines: list[str] = []
    start = 0
    while start < len(content) and len(lines) < _LINES_LOOKED_AT:
        end = content.find(b"\n", start) + 1 or len(content)
        line = content[start:end].decode()
        lines += [line] if line.strip() else []
        start = end
    return lines


def _check_readable(path: Path) -> bytes:
    """Return the first bytes of a file that can be read whole."""
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
    """Return the content as `TextFile` has it. MetaTrader writes UTF-16 with its mark on some systems."""
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
        raise UnusableFile(f"{path.name} is empty; expected are {EXPECTED_COLUMNS}", path=str(path))
    if b"\0" in content:
        raise UnusableFile(
            f"{path.name} is a binary file of no known format; expected is one of {', '.join(FORMATS)}", path=str(path)
        )
    return content.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in content else content
