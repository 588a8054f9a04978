"""Reading files that are packed with gzip or zip, within a bound."""

from __future__ import annotations

import gzip
import lzma
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import IO

import msgspec

from backtestr_engine.data.printable import printable
from backtestr_protocol.errors import UnusableFile

from .foreign_files import office_file

GZIP, ZIP = b"\x1f\x8b", b"PK\x03\x04"

_CHUNK_BYTES = 1 << 20
# Bars compress to a fifth or a tenth of their size, and the same line again and again to a hundredth or two.
_MOST_TIMES, _SMALL_BYTES = 250, 64 << 20
_SHOWN = 10


class Unpacked(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a packed file, the name of what was in it, and notes for a user."""

    content: bytes
    name: str
    notes: Sequence[str]


def unpack(path: Path, first_bytes: bytes, largest_bytes: int) -> Unpacked | None:
    """Return the content of a file that is packed with gzip or is a zip archive; None for all others.

    A zip archive has one file, or one CSV file with a report of the same name beside it. Raises `UnusableFile` for
    another archive, a damaged one, and content that is larger than `largest_bytes`.
    """
    if not first_bytes.startswith((GZIP, ZIP)):
        return None
    try:
        if first_bytes.startswith(GZIP):
            return _unpack_gzip(path, largest_bytes)
        return _unpack_zip(path, largest_bytes)
    # zipfile's error for a method of compression that it does not know is NotImplementedError.
    except (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError) as error:
        reason = printable(f"{type(error).__name__}: {error}")
        raise UnusableFile(
            f"{path.name} cannot be unpacked: it is damaged or cut off ({reason}); download it again, or unpack it",
            path=str(path),
        ) from error


def _unpack_gzip(path: Path, largest_bytes: int) -> Unpacked:
    with gzip.open(path) as file:
        content = _read_bounded(file, path, path.stat().st_size, largest_bytes)
    name = path.name.removesuffix(".gz")
    return Unpacked(content=content, name=path.name, notes=[f"unpacked with gzip: {printable(name)}"])


def _unpack_zip(path: Path, largest_bytes: int) -> Unpacked:
    with zipfile.ZipFile(path) as archive:
        members = [one for one in archive.infolist() if not one.is_dir() and not _is_of_finder(one.filename)]
        names = [one.filename for one in members]
        kind = office_file(path.name, names)
        if kind is not None:
            raise UnusableFile(f"{path.name} is {kind}", path=str(path))
        chosen, beside = _only_table(members)
        if chosen is None:
            listed = ", ".join(printable(name) for name in names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
            held = f"holds {len(names):,} files ({listed}); unpack it, and import one after the other"
            raise UnusableFile(
                f"{path.name} is a zip archive that {held if names else 'is empty'}",
                path=str(path),
                members=[printable(name) for name in names[:_SHOWN]],
            )
        if chosen.flag_bits & 1:
            raise UnusableFile(
                f"{path.name} is a zip archive with a password; unpack it, and import what is inside", path=str(path)
            )
        if chosen.file_size > largest_bytes:
            raise _too_large(path, largest_bytes)
        with archive.open(chosen) as file:
            content = _read_bounded(file, path, chosen.compress_size, largest_bytes)
    name = printable(chosen.filename)
    notes = [f"unpacked from zip: {name}", *(f"{printable(one)} beside it is not used" for one in beside)]
    return Unpacked(content=content, name=f"{path.name} ({name})", notes=notes)


def _is_of_finder(name: str) -> bool:
    """Return whether macOS has added the member to the archive."""
    return name.startswith("__MACOSX/") or PurePosixPath(name).name == ".DS_Store"


def _only_table(members: Sequence[zipfile.ZipInfo]) -> tuple[zipfile.ZipInfo | None, list[str]]:
    """Return the member to read, None where that is not plain, and the names of those beside it."""
    if len(members) == 1:
        return members[0], []
    tables = [one for one in members if PurePosixPath(one.filename).suffix.casefold() == ".csv"]
    if len(tables) != 1:
        return None, []
    stem = PurePosixPath(tables[0].filename).stem
    others = [PurePosixPath(one.filename) for one in members if one is not tables[0]]
    if any(one.stem != stem or one.suffix.casefold() != ".txt" for one in others):
        return None, []
    return tables[0], [one.name for one in others]


def _read_bounded(file: IO[bytes] | gzip.GzipFile, path: Path, packed_bytes: int, largest_bytes: int) -> bytes:
    """Return the whole content, unless it is larger than allowed, or is so much larger than packed as no table is."""
    content = bytearray()
    while chunk := file.read(_CHUNK_BYTES):
        content += chunk
        if len(content) > largest_bytes:
            raise _too_large(path, largest_bytes)
        if len(content) > max(_SMALL_BYTES, packed_bytes * _MOST_TIMES):
            raise UnusableFile(
                f"{path.name} unpacks to more than {_MOST_TIMES} times its size, as no table does; unpack it, and "
                "import what is inside",
                path=str(path),
            )
    return bytes(content)


def _too_large(path: Path, largest_bytes: int) -> UnusableFile:
    size = f"{largest_bytes >> 30} GiB" if largest_bytes >> 30 else f"{largest_bytes:,} bytes"
    return UnusableFile(f"{path.name} unpacks to more than {size}; split it", path=str(path))
