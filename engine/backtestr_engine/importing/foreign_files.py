"""Files that are no market data that can be read: what they are, by their first bytes, and what helps."""

from __future__ import annotations

import re
from collections.abc import Sequence

FIRST_BYTES = 4096
"""So many bytes of a file tell what it is."""

_UNPACK = "unpack it, and import what is inside"
_EXPORT = "save its sheet as CSV"
_MAGIC: Sequence[tuple[bytes, str, str]] = (
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel workbook (.xls)", _EXPORT),
    (b"%PDF", "a PDF", "export the table as CSV"),
    (b"SQLite format 3\0", "an SQLite database", "export the table as CSV"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", "write the table as Parquet or CSV"),
    (b"\x93NUMPY", "a numpy array", "write it as Parquet or CSV, with the names of its columns"),
    (b"FEA1", "a Feather file of version 1", "write it as Feather version 2 (Arrow), Parquet or CSV"),
    (b"Obj\x01", "an Avro file", "write the table as Parquet or CSV"),
    (b"ORC", "an ORC file", "write the table as Parquet or CSV"),
    (b"\x89PNG", "a picture", "import the table itself"),
    (b"\xff\xd8\xff", "a picture", "import the table itself"),
    (b"GIF8", "a picture", "import the table itself"),
    (b"\xfd7zXZ\0", "packed with xz", _UNPACK),
    (b"BZh", "packed with bzip2", _UNPACK),
    (b"(\xb5/\xfd", "packed with zstd", _UNPACK),
    (b'\x04"M\x18', "packed with lz4", _UNPACK),
    (b"7z\xbc\xaf'\x1c", "a 7z archive", _UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
)
_WORKBOOKS = (".xlsx", ".xlsm", ".xltx", ".xlsb")
_TAR_AT, _TAR = 257, b"ustar"
_PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")

_JSON = re.compile(r'\{|\[\s*[\[{"\d\]-]')  # [Date],[Open] is a header

_SHOWN_CHARACTERS = 120


def foreign_kind(first: bytes) -> str | None:
    """Return what a file is and what helps, None if it may be read; `first` are its first bytes.

    The text is such as `an Excel workbook (.xls): save its sheet as CSV`.
    """
    for magic, kind, mend in _MAGIC:
        if first.startswith(magic):
            return f"{kind}: {mend}"
    if first[_TAR_AT : _TAR_AT + len(_TAR)] == _TAR:
        return f"a tar archive: {_UNPACK}"
    if first.startswith(_PICKLES) and b"\0" in first:
        return "a pickle of Python: write the table as Parquet or CSV"
    return None


def foreign_text(text: str) -> str | None:
    """Return what a text is that is no table, and what helps; None if it may be one. `text` is its beginning."""
    begin = text.lstrip("\ufeff \t\r\n")
    lower = begin[:512].lower()
    if lower.startswith(("<!doctype html", "<html")) or (lower.startswith("<") and "<html" in lower):
        title = begin[lower.index("<title>") + 7 :].partition("<")[0].strip() if "<title>" in lower else ""
        about = f" ({title[:_SHOWN_CHARACTERS]!r})" if title else ""
        return f"a web page{about}, not a table: download the data again, and look at what the server answered"
    if lower.startswith("<?xml"):
        return "XML: write the table as CSV or Parquet"
    if _JSON.match(begin):
        shown = " ".join(begin.split())[:_SHOWN_CHARACTERS]
        return f"JSON, which begins {shown!r}: write the table as CSV or Parquet, or look whether a server refused it"
    return None


def office_file(file: str, members: Sequence[str]) -> str | None:
    """Return what a zip archive is by the names of it and its members where it is a document, None for others."""
    if "[Content_Types].xml" in members:
        if file.casefold().endswith(_WORKBOOKS) or any(name.startswith("xl/") for name in members):
            return f"an Excel workbook (.xlsx): {_EXPORT}"
        return "an Office document: save the table as CSV"
    if "mimetype" in members and "content.xml" in members:
        return f"an OpenDocument file: {_EXPORT}"
    return None
