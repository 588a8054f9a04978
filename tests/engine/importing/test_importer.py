"""Importing bars: real files, written forms of time, and refusals that state line, column and reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backtestr_engine.data.bars import Bars
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.instants import instant
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.importing.importer import import_market_data
from backtestr_protocol.errors import BacktestrError, DataError, ValidationError
from backtestr_protocol.import_messages import ImportMarketData
from support.engine.reading import read_bars

HEADER = "timestamp,open,high,low,close,volume\n"
FIRST = "2022-01-03 09:30:00,10,12,9,11,100\n"
SECOND = "2022-01-03 09:31:00,11,13,10,12,200\n"
THIRD = "2022-01-03 09:32:00,12,14,11,13,300\n"
UTC_NOTE = "times have no time zone: taken as UTC"


def importing(tmp_path: Path, content: str | bytes, **options: Any) -> tuple[Bars, list[str]]:
    path = tmp_path / "bars.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    read = read_bars(path, "X", **options)
    return read.bars, read.warnings


@pytest.mark.parametrize(
    ("file", "timeframe", "bars", "first", "close", "warnings"),
    [
        ("btc_perp_1m_2022-01.csv", "1m", 45_031, "2021-12-31T23:01:00Z", 46377.0, [UTC_NOTE]),
        ("gbpusd_1m_bid_2012-02.csv", "1m", 30_117, "2012-02-01", 1.57576, ["no volume column: volume is 0"]),
        ("gbpusd_1m_ask_2012-02.csv", "1m", 30_117, "2012-02-01", 1.57585, ["no volume column: volume is 0"]),
        (
            "index_5m_split_date_time_2006.csv",
            "5m",
            2_142,
            "2006-01-02T09:05:00Z",
            3582.99,
            ["columns not used: OpenInterest", UTC_NOTE],
        ),
        (
            "yhoo_daily_yahoo_1996-2015.csv",
            "1d",
            4_965,
            "1996-04-12",
            1.375,
            ["column 'Adj Close' is not used: prices are kept as they were traded, not adjusted", UTC_NOTE],
        ),
    ],
)
def test_real_files(
    file: str, timeframe: str, bars: int, first: str, close: float, warnings: list[str], real_data: Path
) -> None:
    read = read_bars(real_data / file, "X")
    got, warned = read.bars, read.warnings

    assert (got.timeframe, len(got), instant(int(got.timestamp[0])), float(got.close[0])) == (
        timeframe,
        bars,
        first,
        close,
    )
    assert warned == warnings


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("timestamp,open,high,low,close,volume", "2022-01-03 09:30:00,10,12,9,11,100"),
        ("timestamp,open,high,low,close,volume", "2022-01-03T09:30:00Z,10,12,9,11,100"),
        ("timestamp,open,high,low,close,volume", "2022-01-03T11:30:00+02:00,10,12,9,11,100"),
        ("timestamp,open,high,low,close,volume", "2022-01-03 04:30:00-0500,10,12,9,11,100"),
        ("Date,Open,High,Low,Close,Volume", "2022.01.03 09:30,10,12,9,11,100"),
        ("Date,Time,Open,High,Low,Close,Volume", "2022/01/03,09:30:00.000,10,12,9,11,100"),
        ("<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>", "2022.01.03\t09:30:00\t10\t12\t9\t11\t100"),
        ("date;o;h;l;c;v", "20220103 093000;10;12;9;11;100"),
        ("open_time,open,high,low,close,volume", "1641202200,10,12,9,11,100"),
        ("open_time,open,high,low,close,volume", "1641202200000,10,12,9,11,100"),
        ("open_time,open,high,low,close,volume", "1641202200000000,10,12,9,11,100"),
        ("open_time,open,high,low,close,volume", "1641202200000000000,10,12,9,11,100"),
        ("close,low,high,open,vol,Gmt time", "11,9,12,10,100,2022-01-03 09:30:00"),
        ('"Date","Open","High","Low","Close","Volume"', '"2022-01-03 09:30:00","10","12","9","11","100"'),
    ],
)
def test_written_forms(header: str, row: str, tmp_path: Path) -> None:
    bars, _ = importing(tmp_path, f"{header}\n{row}\n", timeframe="1m")

    assert [
        instant(int(bars.timestamp[0])),
        bars.open[0],
        bars.high[0],
        bars.low[0],
        bars.close[0],
        bars.volume[0],
    ] == [
        "2022-01-03T09:30:00Z",
        10,
        12,
        9,
        11,
        100,
    ]


@pytest.mark.parametrize(
    "content",
    [
        (HEADER + FIRST + SECOND).replace("\n", "\r\n"),
        (HEADER + FIRST + SECOND).replace("\n", "\r"),
        "\ufeff" + HEADER + FIRST + SECOND,
        HEADER + FIRST + "\n" + SECOND + "\n\n",
        HEADER + FIRST + SECOND.rstrip("\n"),
        "\n\r\n" + HEADER + FIRST + SECOND,
        HEADER + FIRST + SECOND.replace(",11,", ", 11 ,"),
    ],
)
def test_line_ends_blank_lines_and_spaces_do_not_matter(content: str, tmp_path: Path) -> None:
    bars, warnings = importing(tmp_path, content)

    assert (bars.close.tolist(), bars.timeframe, warnings) == ([11, 12], "1m", [UTC_NOTE])


@pytest.mark.parametrize(
    ("rows", "line", "column", "text", "reason"),
    [
        (FIRST + SECOND.replace("13", "abc"), 3, "high", "abc", "is not a number"),
        (FIRST + SECOND.replace(",13,", ",,"), 3, "high", "", "is not a number"),
        (FIRST + "\n" + SECOND.replace("200", "many"), 4, "volume", "many", "is not a number"),
        (FIRST + SECOND.replace(",200", ""), 3, "volume", "", "is missing: the line has 5 fields and the header 6"),
        (
            FIRST + SECOND.replace(",200", ",200,1"),
            3,
            "volume",
            "1",
            "is one too many: the line has 7 fields and the header 6",
        ),
        (
            FIRST + SECOND.replace("2022-01-03 09:31:00", "3 January"),
            3,
            "timestamp",
            "3 January",
            "is no time like the others (%Y-%m-%d %H:%M:%S%.f)",
        ),
        (
            FIRST + SECOND.replace("01-03", "02-30"),
            3,
            "timestamp",
            "2022-02-30 09:31:00",
            "is no time like the others (%Y-%m-%d %H:%M:%S%.f)",
        ),
    ],
)
def test_a_malformed_cell_is_named(rows: str, line: int, column: str, text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        importing(tmp_path, HEADER + rows)
    details = caught.value.details
    assert details is not None
    assert (details["line"], details["column"], details["text"], details["reason"]) == (line, column, text, reason)
    assert caught.value.message == f"bars.csv, line {line}, column {column!r}: {text!r} {reason}"


@pytest.mark.parametrize(
    ("content", "actions"),
    [
        (HEADER + FIRST + SECOND.replace("13", "x"), ["correct_file", "drop_rows"]),
        (HEADER + FIRST + SECOND.replace("13", "0"), ["correct_file", "drop_rows"]),
        (HEADER, ["correct_file"]),
        (HEADER + FIRST, ["name_timeframe"]),
    ],
)
def test_the_recovery_actions_fit_the_problem(content: str, actions: list[str], tmp_path: Path) -> None:
    """The general advice for missing data, to import it or to list it, does not help an import."""
    with pytest.raises(DataError) as caught:
        importing(tmp_path, content, timeframe=None)
    assert [one.action for one in caught.value.recovery_actions] == actions


def test_lines_are_counted_from_the_first_of_the_file(tmp_path: Path) -> None:
    for text in ("x", "1"):  # no number, and no high
        with pytest.raises(DataError, match=r"bars.csv, line 5, column 'high'"):
            importing(tmp_path, "\n \n" + HEADER + FIRST + SECOND.replace("13", text))


def test_the_first_of_many_malformed_cells_is_named_and_all_are_counted(tmp_path: Path) -> None:
    bad = SECOND.replace("13", "x")
    with pytest.raises(DataError, match=r"line 3, column 'high': 'x' is not a number \(7 such places\)") as caught:
        importing(tmp_path, HEADER + FIRST + bad * 7)
    assert caught.value.details is not None
    assert [one["line"] for one in caught.value.details["first"]] == [3, 4, 5, 6, 7]


def many_rows(count: int) -> list[list[str]]:
    """Return the cells of `count` sound rows, a minute apart."""
    rows = synthetic_bars("1m", count).to_frame().write_csv(datetime_format="%Y-%m-%d %H:%M:%S").splitlines()
    return [row.split(",") for row in rows[1:]]


@pytest.mark.parametrize("quoted", ["", '"', '"a,b"'])
def test_malformed_cells_of_every_kind_are_found_amid_many_rows_and_at_the_end(quoted: str, tmp_path: Path) -> None:
    """No cell is quoted, or all are, or some must be."""
    rows = many_rows(20_000)
    rows[10_000][3] = "x"  # line 10,002
    rows[10_001] = rows[10_001][:4]
    rows[10_002][0] = "2024-02-30 00:00:00"
    rows[10_003] += ["7", "8"]
    rows[10_004][1] = rows[10_004][5] = ""
    rows[19_998][2] = "y"
    rows[19_999] = rows[19_999][:2]  # line 20,001
    if quoted == '"a,b"':
        lines = ["note," + HEADER.strip()] + [",".join([quoted, *row]) for row in rows]
        extra = 1
    else:
        lines = [HEADER.strip()] + [",".join(f"{quoted}{cell}{quoted}" for cell in row) for row in rows]
        extra = 0
    with pytest.raises(DataError) as caught:
        importing(tmp_path, "\n".join(lines) + "\n")
    width = 6 + extra
    too_few = f"is missing: the line has {{}} fields and the header {width}"
    pattern = "%Y-%m-%d %H:%M:%S%.f"
    places = [
        (10_002, "low", "x", "is not a number"),
        (10_003, "close", "", too_few.format(4 + extra)),
        (10_004, "timestamp", "2024-02-30 00:00:00", f"is no time like the others ({pattern})"),
        (10_005, "volume", "8", f"is one too many: the line has {8 + extra} fields and the header {width}"),
        (10_006, "open", "", "is not a number"),
        (10_006, "volume", "", "is not a number"),
        (20_000, "high", "y", "is not a number"),
        (20_001, "high", "", too_few.format(2 + extra)),
    ]
    details = caught.value.details
    assert details is not None
    assert details["count"] == len(places)
    shown = [(one["line"], one["column"], one["text"], one["reason"]) for one in details["first"]]
    assert shown == places[:5]

    path = tmp_path / "bars.csv"
    dropped = read_bars(path, "X", repair="drop").dropped
    by_place = {(one.column, one.reason): (one.count, list(one.first)) for one in dropped}
    assert by_place == {
        ("low", "is not a number"): (1, [10_002]),
        ("close", too_few.format(4 + extra)): (1, [10_003]),
        ("timestamp", f"is no time like the others ({pattern})"): (1, [10_004]),
        ("volume", places[3][3]): (1, [10_005]),
        ("open", "is not a number"): (1, [10_006]),
        ("high", "is not a number"): (1, [20_000]),
        ("high", too_few.format(2 + extra)): (1, [20_001]),
    }
    assert sum(one.count for one in dropped) == 7


def test_impossible_rows_are_counted_by_reason_amid_many_rows_and_at_the_end(tmp_path: Path) -> None:
    rows = many_rows(20_000)
    for at in range(10_000, 10_007):
        rows[at][4] = "-1"
    rows[15_000][0] = rows[14_999][0]
    rows[19_999][2] = rows[19_999][3]
    rows[19_999][5] = "nan"
    with pytest.raises(DataError) as caught:
        importing(tmp_path, HEADER + "\n" + "\n".join(map(",".join, rows)))  # a blank line below the header
    assert caught.value.details is not None
    assert caught.value.details["line"] == 10_003
    assert caught.value.details["faults"] == [
        {"reason": "the same time as the row before", "count": 1, "lines": [15_003]},
        {"reason": "close is zero or negative", "count": 7, "lines": [10_003, 10_004, 10_005, 10_006, 10_007]},
        {"reason": "high is below open or close", "count": 1, "lines": [20_002]},
        {"reason": "low is above open or close", "count": 7, "lines": [10_003, 10_004, 10_005, 10_006, 10_007]},
        {"reason": "volume is negative or not a finite number", "count": 1, "lines": [20_002]},
    ]


@pytest.mark.parametrize("end", [',"', '\n"'])
def test_a_quote_alone_at_the_end_is_refused(end: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"bars.csv, line 3, column 'volume': ''"):
        importing(tmp_path, HEADER + FIRST + "2022-01-03 09:31:00,11,13,10,12" + end)


def test_a_quote_that_is_not_closed_for_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be read as lines of cells: .* is there a quote that is opened"):
        importing(tmp_path, HEADER + FIRST + '2022-01-03 09:31:00,"11' + SECOND * 4000)


@pytest.mark.parametrize(
    ("rows", "column", "reason", "line"),
    [
        (FIRST + FIRST + SECOND, "timestamp", "the same time as the row before", 3),
        (SECOND + "\n" + FIRST + THIRD, "timestamp", "an earlier time than the row before", 4),
        (FIRST + SECOND.replace("11,13", "nan,13"), "open", "open is not a finite number", 3),
        (FIRST + SECOND.replace("13,10", "13,0"), "low", "low is zero or negative", 3),
        (FIRST + SECOND.replace("13,10", "11,10"), "high", "high is below open or close", 3),
        (FIRST + SECOND.replace("13,10", "13,12"), "low", "low is above open or close", 3),
        (FIRST + SECOND.replace("200", "-200"), "volume", "volume is negative or not a finite number", 3),
    ],
)
def test_impossible_rows_are_named_by_line(rows: str, column: str, reason: str, line: int, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        importing(tmp_path, HEADER + rows, timeframe="1m")
    assert caught.value.details == {
        "line": line,
        "column": column,
        "reason": reason,
        "faults": [{"reason": reason, "count": 1, "lines": [line]}],
        "kept": rows.count("2022") - 1,
        "rows": rows.count("2022"),
    }
    summary = f"{reason} on 1 line (first: {line})"
    assert caught.value.message == f"bars.csv, line {line}, column {column!r}: {reason}. In all: {summary}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (HEADER, "has a header line and no bars"),
        (HEADER + "\n\n", "has a header line and no bars"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "is a picture: import the table itself"),
        (b"\x89XYZ\r\n", r"is not UTF-8 text \(line 1\)"),
        (b"a,b\n" + b"\x00" * 10, "is a binary file"),
        ((HEADER + FIRST).encode() + b"\xff", r"is not UTF-8 text \(line 3\)"),
        ("time,open,high,low\n" + FIRST, "has no column for close among time, open, high, low"),
        ("when,open,high,low,close\n" + FIRST, "has no column for timestamp"),
        ("just text\nmore text\n", "has no column for timestamp, open, high, low, close"),
        (FIRST + SECOND, "has no header line"),
        ("time,open,open,high,low,close\n" + FIRST, "has two columns of one name: open, open"),
        (HEADER + FIRST.replace("2022-01-03 09:30:00", "yesterday"), "'yesterday' is no time of a known form"),
    ],
)
def test_a_file_that_is_no_csv_of_bars_is_refused_with_the_expected_form(
    content: str | bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        importing(tmp_path, content)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file") as caught:
        read_bars(tmp_path / "none.csv", "X")
    assert caught.value.details == {"path": str(tmp_path / "none.csv")}
    with pytest.raises(DataError, match="is a folder, not a file of market data"):
        read_bars(tmp_path, "X")
    with pytest.raises(DataError, match="is a device, not a file of market data"):
        read_bars(Path("/dev/null"), "X")
    with pytest.raises(DataError, match="cannot be read: File name too long"):
        read_bars(tmp_path / ("x" * 300), "X")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"timeframe": "1mn"}, ValidationError, r"unknown timeframe '1mn'; did you mean '1m'\?"),
        ({"format": "cvs"}, ValidationError, r"unknown format 'cvs'; did you mean 'csv'\? \(arrow, binance, csv, "),
        (
            {"time_zone": "Europe/Londn"},
            ValidationError,
            "'Europe/Londn'; did you mean 'Europe/London'",
        ),
        ({"timeframe": "1h"}, DataError, "holds finer bars than 1h: its most frequent step is 1m"),
    ],
)
def test_impossible_options_are_refused(
    options: dict[str, str], error: type[BacktestrError], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        importing(tmp_path, HEADER + FIRST + SECOND + THIRD, **options)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (FIRST, "there is only one bar"),
        (FIRST + SECOND.replace(":31", ":37"), "its most frequent step is 7 minutes"),
    ],
)
def test_a_timeframe_that_cannot_be_detected_must_be_named(rows: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        importing(tmp_path, HEADER + rows)


def test_a_time_zone_applies_to_times_without_an_offset(tmp_path: Path) -> None:
    bars, warnings = importing(tmp_path, HEADER + FIRST + SECOND, time_zone="America/New_York")

    assert instant(int(bars.timestamp[0])) == "2022-01-03T14:30:00Z"
    assert warnings == []


def test_a_time_that_a_zone_skips_or_repeats_is_refused(tmp_path: Path) -> None:
    skipped = FIRST.replace("2022-01-03 09:30", "2022-03-13 02:30")
    with pytest.raises(DataError, match="'2022-03-13 02:30:00' does not exist, or exists twice, in America/New_York"):
        importing(tmp_path, HEADER + FIRST + skipped, time_zone="America/New_York")


def test_every_assumption_is_a_warning(tmp_path: Path) -> None:
    zoned = "Date,Open,High,Low,Close,Note\n2022-01-03T09:30:30Z,10,12,9,11,a\n2022-01-03T09:35:30Z,10,12,9,11,b\n"
    _, warnings = importing(tmp_path, zoned, timeframe="1m", time_zone="Europe/Berlin")

    assert warnings == [
        "no volume column: volume is 0",
        "columns not used: Note",
        "the file's times say which instant they are; Europe/Berlin is the zone of days",
        "the most frequent step is 5m, not 1m",
        "2 of 2 bars do not open on a 1m edge in UTC",
    ]


def test_an_import_replaces_a_series_with_a_warning(tmp_path: Path, catalog: Catalog) -> None:
    path = tmp_path / "bars.csv"
    path.write_text(HEADER + FIRST + SECOND)
    request = ImportMarketData(path=str(path), symbol="X")
    first = import_market_data(catalog, request)
    second = import_market_data(catalog, request)

    assert (first.symbol, first.timeframe, first.bars, first.warnings) == ("X", "1m", 2, [UTC_NOTE])
    assert first.end_time - first.start_time == 60_000
    assert second.warnings == [UTC_NOTE, "replaced 2 bars from 2022-01-03T09:30:00Z to 2022-01-03T09:31:00Z"]


def test_a_refused_import_changes_nothing(tmp_path: Path, catalog: Catalog) -> None:
    catalog.write(synthetic_bars("1m", 10, symbol="X"))
    before = catalog.series()
    path = tmp_path / "bars.csv"
    path.write_text(HEADER + FIRST + SECOND.replace("13", "abc"))

    with pytest.raises(DataError):
        import_market_data(catalog, ImportMarketData(path=str(path), symbol="X"))
    with pytest.raises(DataError):
        import_market_data(catalog, ImportMarketData(path=str(path), symbol="NEW"))
    assert catalog.series() == before


def test_a_written_series_comes_back_bit_for_bit(tmp_path: Path) -> None:
    bars = synthetic_bars("5m", 2_000)
    path = tmp_path / "bars.csv"
    bars.to_frame().write_csv(path)

    read = read_bars(path, "SYNTH")
    got = read.bars

    assert (read.format, read.warnings) == ("csv", [])
    assert got.to_frame().equals(bars.to_frame())
