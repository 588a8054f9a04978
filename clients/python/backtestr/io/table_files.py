"""Table files: tables that a broker of this machine has written for its clients, which are mapped, not received.

A file is used only if this user or root alone may have written it and all directories on the way to it. Mapped data
cannot be changed, and stay as they are when the file is removed (PROTOCOL.md, section 6.10).

Polars reads a file into memory. So columns of numbers and times without nulls are made of the mapped pages themselves,
by way of numpy arrays, and only the others are read. Without numpy all are.
"""

from __future__ import annotations

import errno
import mmap
import os
import re
import stat
import weakref
from pathlib import Path
from typing import Any

import polars as pl

from backtestr.core.arrow_layout import record_batches
from backtestr_protocol.column_types import column_type
from backtestr_protocol.connection import Connection
from backtestr_protocol.errors import InvalidConfiguration, SerializationError
from backtestr_protocol.messages import TABLE_FILE, TableFile
from backtestr_protocol.private_files import HAS_OWNERS, check_directory, check_file
from backtestr_protocol.system.open_flags import NO_LINK, WITHOUT_WAITING

_NAME = re.compile(TABLE_FILE)
# Polars takes these characters of a path for a pattern of several files.
_PATTERN = frozenset("*?[")
# The bytes from which a file is mapped; to read a smaller one is as fast. A mapped file keeps a descriptor open as long
# as one of its columns is used, and a process usually may have 1,024: others are read.
MAPPED_FROM = 1 << 20
MAX_MAPPED = 128

_NUMBERS = {"float64": "<f8", "float32": "<f4"} | {
    f"{sign}int{bits}": f"<{code}{bits // 8}" for sign, code in (("", "i"), ("u", "u")) for bits in (8, 16, 32, 64)
}
_mapped: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()


class FileUnusable(Exception):
    """The file is not there any more, or this process cannot open it now: the table has to be received."""


def tables_directory(connection: Connection) -> Path | None:
    """Return the directory of table files, or None where tables have to be received.

    It is None unless the broker is reached over ipc, and the directory is there and nobody else may change it.
    """
    named = connection.tables_directory
    is_local = connection.endpoints.requests.startswith("ipc://") and connection.curve is None
    if named is None or not is_local or not HAS_OWNERS:
        return None
    directory = Path(named)
    try:
        if not directory.is_absolute() or not _PATTERN.isdisjoint(named) or not directory.is_dir():
            return None
        check_directory(directory, "BACKTESTR_DATA_DIR")
    except (OSError, ValueError, InvalidConfiguration):
        return None
    return directory


def map_table(directory: Path, file: TableFile) -> pl.DataFrame:
    """Return the table of a file, mapped if it is large.

    Raises `FileUnusable` for one that cannot be opened, and `SerializationError` for one outside of the directory, a
    link, one that others may have written, and one that is not as announced.
    """
    if _NAME.match(file.name) is None:
        raise SerializationError(f"{file.name!r} is no name of a table file")
    path = directory / file.name
    try:
        descriptor = os.open(path, os.O_RDONLY | WITHOUT_WAITING | NO_LINK)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):
            raise SerializationError(f"the table file {path} is a link, and is not used; remove it") from error
        raise FileUnusable(str(error)) from error
    try:
        _check(path, os.fstat(descriptor), file.size)
        schema = pl.Schema(pl.read_ipc_schema(path))
        _check_columns(path, schema, file)
        if file.size < MAPPED_FROM or len(_mapped) >= MAX_MAPPED:
            return pl.read_ipc(path)
        return _mapped_table(path, descriptor, schema)
    except InvalidConfiguration as error:
        raise SerializationError(f"a table file is not used: {error}") from error
    except OSError as error:
        raise FileUnusable(str(error)) from error
    except (ValueError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise SerializationError(f"{path} is no Arrow IPC file: {error}") from error
    finally:
        os.close(descriptor)


def _mapped_table(path: Path, descriptor: int, schema: pl.Schema) -> pl.DataFrame:
    """Return the table with the columns that can be used where they are, and those that have to be read."""
    try:
        import numpy as np
    except ImportError:  # a client without the engine
        return pl.read_ipc(path)
    pages = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    types = [column_type(kind) for kind in schema.dtypes()]
    try:
        batches = record_batches(memoryview(pages), types)
    except ValueError:  # polars knows more kinds of columns, and says what is damaged
        return pl.read_ipc(path)
    columns: dict[str, pl.Series] = {}
    for number, (name, kind) in enumerate(schema.items()):
        numbers = "<i8" if types[number].startswith("timestamp") else _NUMBERS.get(types[number])
        places = [(batch.columns[number], batch.rows) for batch in batches]
        if numbers is None or not places or any(place.nulls for place, _ in places):
            continue
        parts: list[Any] = [np.frombuffer(pages, numbers, rows, place.offset) for place, rows in places]
        columns[name] = pl.concat([pl.Series(name, part).cast(kind) for part in parts], rechunk=False)
    if columns:
        _mapped.add(pages)
    rest = [name for name in schema if name not in columns]
    read = pl.read_ipc(path, columns=rest) if rest else pl.DataFrame()
    return pl.DataFrame([columns[name] if name in columns else read[name] for name in schema])


def _check_columns(path: Path, schema: pl.Schema, file: TableFile) -> None:
    found = [(name, column_type(kind)) for name, kind in schema.items()]
    announced = [(one.name, one.type) for one in file.columns]
    if found != announced:
        raise SerializationError(f"{path} has the columns {found}; {announced} were announced")


def _check(path: Path, found: os.stat_result, size: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise SerializationError(f"the table file {path} is no regular file; remove it")
    check_file(path, found)
    if found.st_size != size:
        raise SerializationError(
            f"the table file {path} has {found.st_size:,} bytes; {size:,} were announced; remove it"
        )
