"""Packed files are read within a bound, and files of other kinds are called what they are."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import pytest

from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.importing import sources
from backtestr_protocol.errors import DataError
from support.engine.reading import ReadBars, read_bars

BARS = synthetic_bars("1h", 30)
TEXT = BARS.to_frame().write_csv().encode()


def zipped(members: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return content.getvalue()


def reading(tmp_path: Path, content: bytes, name: str = "bars") -> ReadBars:
    path = tmp_path / name
    path.write_bytes(content)
    return read_bars(path, "X")


def named(given: object) -> str:
    """Name a test by its text alone: packed bytes hold the time at which they were packed."""
    return given if isinstance(given, str) else "content"


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (gzip.compress(TEXT, mtime=0), "unpacked with gzip: bars"),
        (gzip.compress(TEXT[:500], mtime=0) + gzip.compress(TEXT[500:], mtime=0), "unpacked with gzip: bars"),
        (zipped({"EURUSD.csv": TEXT}), "unpacked from zip: EURUSD.csv"),
        (zipped({"a/b.csv": TEXT, "__MACOSX/a/._b.csv": b"x"}), "unpacked from zip: a/b.csv"),
        (zipped({"DAT.csv": TEXT, "DAT.txt": b"report"}), "DAT.txt beside it is not used"),
    ],
    ids=named,
)
def test_packed_text_is_read(content: bytes, note: str, tmp_path: Path) -> None:
    read = reading(tmp_path, content)
    assert read.bars.to_frame().equals(BARS.to_frame())
    assert note in read.warnings


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
def test_utf_16_is_read_with_a_mark_and_without(encoding: str, tmp_path: Path) -> None:
    assert reading(tmp_path, TEXT.decode().encode(encoding)).bars.to_frame().equals(BARS.to_frame())
    packed = gzip.compress(TEXT.decode().encode(encoding))
    assert reading(tmp_path, packed).bars.to_frame().equals(BARS.to_frame())


def damaged_zip() -> bytes:
    content = bytearray(zipped({"a.csv": TEXT}))
    content[60] ^= 0xFF
    return bytes(content)


def locked_zip() -> bytes:
    """Return an archive whose member says that it is encrypted."""
    content = bytearray(zipped({"a.csv": TEXT}))
    content[6] |= 1
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(TEXT, mtime=0)[:-20], "cannot be unpacked: it is damaged or cut off"),
        (damaged_zip(), "cannot be unpacked: it is damaged or cut off"),
        (zipped({"a.csv": TEXT})[:-30], "cannot be unpacked: it is damaged or cut off"),
        (locked_zip(), "is a zip archive with a password"),
        (zipped({"a.csv": TEXT, "b.csv": TEXT}), r"holds 2 files \(a\.csv, b\.csv\); unpack it"),
        (zipped({f"{n:03}.csv": b"" for n in range(30)}), r"holds 30 files \(000\.csv, .*, 009\.csv, …\)"),
        (zipped({}), "is empty|is a binary file"),
        (
            zipped({"[Content_Types].xml": b"<Types/>", "xl/workbook.xml": b""}),
            r"is an Excel workbook \(\.xlsx\): save",
        ),
        (zipped({"mimetype": b"", "content.xml": b""}), "is an OpenDocument file"),
        (gzip.compress(b"PAR1" + bytes(20), mtime=0), "holds a file of Parquet.*; unpack it first"),
        (gzip.compress(bytes(257) + b"ustar" + bytes(300), mtime=0), "what is packed in bars is a tar archive"),
        (gzip.compress(b"<html><title>429 Too Many</title></html>", mtime=0), r"is a web page \('429 Too Many'\)"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(9), r"is an Excel workbook \(\.xls\): save its sheet as CSV"),
        (b"\xfd7zXZ\0\0", "is packed with xz: unpack it"),
        (b"%PDF-1.4", "is a PDF"),
        (b"\n<!DOCTYPE html>\n<html>", "is a web page, not a table"),
        (b'{"Information": "Thank you"}', r"is JSON, which begins '\{\"Information\": \"Thank you\"\}'"),
        (b"[[1709510400000, 1, 2]]", "is JSON"),
        (b'<?xml version="1.0"?><a/>', "is XML"),
    ],
    ids=named,
)
def test_what_cannot_be_read_is_called_what_it_is(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        reading(tmp_path, content)


def test_a_workbook_is_known_by_its_name_too(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is an Excel workbook"):
        reading(tmp_path, zipped({"[Content_Types].xml": b""}), "book.xlsx")


def test_a_header_in_brackets_is_no_json(tmp_path: Path) -> None:
    text = TEXT.decode().replace("timestamp,open", "[timestamp],[open]")
    assert len(reading(tmp_path, text.encode()).bars) == 30


@pytest.mark.parametrize("pack", [gzip.compress, lambda text: zipped({"a.csv": text})])
def test_content_beyond_the_bound_is_refused(pack: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert callable(pack)
    monkeypatch.setattr(sources, "LARGEST_FILE_BYTES", len(TEXT))
    assert len(reading(tmp_path, pack(TEXT)).bars) == 30
    with pytest.raises(DataError, match=r"unpacks to more than [\d,]+ bytes; split it"):
        reading(tmp_path, pack(TEXT + b"\n"))


def test_a_bomb_is_refused_before_it_is_unpacked_whole(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="unpacks to more than 250 times its size"):
        reading(tmp_path, gzip.compress(bytes(100 << 20)))
