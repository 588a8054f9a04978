"""Opening a file of market data and deciding its format: the first stage of an import."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from backtestr_protocol.errors import UnusableFile

from .foreign_files import FIRST_BYTES, foreign_kind, foreign_text
from .formats import EXPECTED_COLUMNS, FORMATS, binary_format, headed_format, names_columns, serves, shape_of
from .headers import cells_of, find_head
from .timestamps import TimeFormat
from .unpacking import unpack

LARGEST_FILE_BYTES = 2 << 30
"""Text and table are in memory together while a file is read."""

# Enough that one damaged time does not decide how the others are read.
_LINES_LOOKED_AT = 20

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextFile:
    """A text file of a known format."""

    path: Path
    name: str
    """The name of the file, and of what was packed in it, for messages."""
    format: str
    content: bytes = field(repr=False)
    """UTF-8 without a byte order mark and without NUL, its lines ending with a line feed alone."""
    delimiter: str
    header: tuple[str, ...]
    """The names of the columns: those that the format gives them where the file has no header line."""
    has_header: bool
    header_lines: int
    """The number of lines before the first row."""
    header_line: int
    """The line of the header, from 1; 0 without one."""
    rows_at: int
    """The byte of the content at which the first row begins, or a blank line before it."""
    first_rows: Sequence[Sequence[str]]
    """The cells of the first rows, without spaces around them."""
    time: TimeFormat | None
    """The format of its times, where the file format implies one."""
    notes: Sequence[str] = ()
    """Notes about opening it, for the answer."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TableFile:
    """A Parquet or Arrow file, with the names of all its columns."""

    path: Path
    format: str
    table: pl.LazyFrame
    header: tuple[str, ...]
    notes: Sequence[str] = ()

    @property
    def name(self) -> str:
        """The name of the file, for messages."""
        return self.path.name


def open_source(path: Path, format: str | None) -> TextFile | TableFile:
    """Open a file and decide its format; `format` is the one that it is said to have, None if nothing is said.

    Raises `UnusableFile` for a file that is not there, cannot be read, or is not what it is said to be.
    """
    try:
        first_bytes = _check_readable(path)
    except OSError as error:
        raise UnusableFile(f"{path} cannot be read: {error.strerror}", path=str(path)) from error
    found = binary_format(first_bytes)
    _refuse_foreign(path.name, path, first_bytes)
    if found is None and format in ("parquet", "arrow"):
        raise UnusableFile(
            f"{path.name} is no {format} file; expected is {FORMATS[format]}", path="$.format", got=format
        )
    if found is not None:
        return _open_table(path, _decide_format(path, found, format))
    try:
        return _open_text(path, first_bytes, format)
    except csv.Error as error:
        raise uneven_quotes(path, error) from error


def uneven_quotes(path: Path, error: csv.Error) -> UnusableFile:
    """Return the error for a text that Python's `csv` cannot cut into cells."""
    return UnusableFile(
        f"{path.name} cannot be read as lines of cells: {error}; is there a quote that is opened and not closed?",
        path=str(path),
    )


def _refuse_foreign(name: str, path: Path, first_bytes: bytes) -> None:
    """Raise `UnusableFile` for a file that is known to be something else."""
    kind = foreign_kind(first_bytes)
    if kind is not None:
        raise UnusableFile(f"{name} is {kind}", path=str(path))


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


def _open_text(path: Path, first_bytes: bytes, asked: str | None) -> TextFile:
    content, name, notes = _content(path, first_bytes)
    content = _decoded(content, name, path)
    placed = _first_lines(content)
    lines = [text for _, text in placed]
    shape = shape_of(lines)
    if shape is not None:
        delimiter, header, found, skipped = shape.delimiter, shape.header, shape.format, 0
    else:
        head = find_head(lines, name)
        delimiter, header, skipped = head.delimiter, head.names, head.lines
        _refuse_headless(header, asked, name)
        found = headed_format(header)
        notes = [*notes, *head.notes]
    rows = lines[skipped:]
    rows_at = placed[skipped][0] if rows else len(content)
    return TextFile(
        path=path,
        name=name,
        format=_decide_format(path, found, asked),
        content=content,
        delimiter=delimiter,
        header=header,
        has_header=shape is None,
        header_lines=content.count(b"\n", 0, rows_at),
        header_line=content.count(b"\n", 0, placed[skipped - 1][0]) + 1 if skipped else 0,
        rows_at=rows_at,
        first_rows=[cells_of(row, delimiter) for row in rows],
        time=None if shape is None else shape.time,
        notes=notes,
    )


def _refuse_headless(header: tuple[str, ...], asked: str | None, file: str) -> None:
    if not names_columns(header) and sum(cell[:1].isdigit() for cell in header) * 2 > len(header):
        expected = EXPECTED_COLUMNS if asked is None else f"{asked}: {FORMATS[asked]}"
        raise UnusableFile(
            f"{file} has no header line, and is of no format that has none: the first is {', '.join(header)}; "
            f"expected are {expected}",
            line=1,
            columns=list(header),
        )


def _first_lines(content: bytes) -> list[tuple[int, str]]:
    """Return the first lines that are not blank, and the byte at which each begins, without splitting the text."""
    lines: list[tuple[int, str]] = []
    start = 0
    while start < len(content) and len(lines) < _LINES_LOOKED_AT:
        end = content.find(b"\n", start) + 1 or len(content)
        line = content[start:end].decode()
        lines += [(start, line)] if line.strip() else []
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
        return file.read(FIRST_BYTES)


def _content(path: Path, first_bytes: bytes) -> tuple[bytes, str, Sequence[str]]:
    """Return the bytes of a text, or of what is packed in the file, its name, and notes."""
    unpacked = unpack(path, first_bytes, LARGEST_FILE_BYTES)
    if unpacked is None:
        try:
            return path.read_bytes(), path.name, ()
        except OSError as error:
            raise UnusableFile(f"{path} cannot be read: {error.strerror}", path=str(path)) from error
    inner = binary_format(unpacked.content)
    if inner is not None:
        raise UnusableFile(f"{path.name} holds a file of {FORMATS[inner]}; unpack it first", path=str(path))
    _refuse_foreign(f"what is packed in {path.name}", path, unpacked.content[:FIRST_BYTES])
    return unpacked.content, unpacked.name, unpacked.notes


def _decoded(content: bytes, name: str, path: Path) -> bytes:
    """Return a text as `TextFile` has it. MetaTrader writes UTF-16 with its mark on some systems, others without."""
    encoding = _utf_16(content)
    try:
        content = content.decode(encoding).encode() if encoding else content
        content = content.removeprefix(codecs.BOM_UTF8)
        if not content.isascii():  # ASCII is UTF-8, and told in a quarter of the time, without a copy
            content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UnusableFile(
            f"{name} is not UTF-8 text (line {line}); expected is a known format: {', '.join(FORMATS)}",
            path=str(path),
            line=line,
        ) from None
    if content.isspace() or not content:
        raise UnusableFile(f"{name} is empty; expected are {EXPECTED_COLUMNS}", path=str(path))
    if b"\0" in content:
        raise UnusableFile(
            f"{name} is a binary file of no known format; expected is one of {', '.join(FORMATS)}", path=str(path)
        )
    kind = foreign_text(content[:FIRST_BYTES].decode(errors="replace"))
    if kind is not None:
        raise UnusableFile(f"{name} is {kind}", path=str(path))
    return content.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in content else content


def _utf_16(content: bytes) -> str | None:
    """Return the encoding of a text in UTF-16, with a mark or without; None for another.

    Without a mark, ASCII in UTF-16 has a NUL in every second byte, and nowhere else.
    """
    if content.startswith(_UTF_16):
        return "utf-16"
    first = content[:FIRST_BYTES]
    even, odd = first[::2], first[1::2]
    if not even.count(0) and odd and odd.count(0) * 2 > len(odd):
        return "utf-16-le"
    return "utf-16-be" if even.count(0) * 2 > len(even) and not odd.count(0) else None
