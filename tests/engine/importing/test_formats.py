"""Every format: recognised by content, chosen by name, and refused for a file of another format."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from backtestr_engine.data.instants import instant
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.importing.formats import FORMATS
from backtestr_protocol.errors import DataError, ValidationError
from support.engine.reading import ReadBars, read_bars

BARS = {
    "yahoo": (
        "Date,Open,High,Low,Close,Adj Close,Volume\n2022-01-03,10,12,9,11,10.5,100\n2022-01-04,11,13,10,12,11.5,200\n"
    ),
    "mt4": "2022.01.03,09:30,10,12,9,11,100\n2022.01.03,09:31,11,13,10,12,200\n",
    "mt5": (
        "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>\n"
        "2022.01.03\t09:30:00\t10\t12\t9\t11\t100\t0\t3\n2022.01.03\t09:31:00\t11\t13\t10\t12\t200\t0\t3\n"
    ),
    "histdata": "20220103 093000;10.0;12.0;9.0;11.0;100\n20220103 093100;11.0;13.0;10.0;12.0;200\n",
    "dukascopy": (
        "Gmt time,Open,High,Low,Close,Volume\n"
        "03.01.2022 09:30:00.000,10,12,9,11,100\n03.01.2022 09:31:00.000,11,13,10,12,200\n"
    ),
    "binance": (
        "1641202200000,10.0,12.0,9.0,11.0,100,1641202259999,1100.0,7,50.0,550.0,0\n"
        "1641202260000,11.0,13.0,10.0,12.0,200,1641202319999,2400.0,8,50.0,600.0,0\n"
    ),
    "nasdaq": ("Date,Close/Last,Volume,Open,High,Low\n01/04/2022,$12,200,$11,$13,$10\n01/03/2022,$11,100,$10,$12,$9\n"),
    "csv": (
        "time,open,high,low,close,volume\n2022-01-03T09:30:00Z,10,12,9,11,100\n2022-01-03T09:31:00Z,11,13,10,12,200\n"
    ),
}
FIRST_OPEN = dict.fromkeys(BARS, "2022-01-03T09:30:00Z") | {
    "yahoo": "2022-01-03",
    "nasdaq": "2022-01-03",
    "histdata": "2022-01-03T14:30:00Z",  # EST
}
UTC_NOTE = "times have no time zone: taken as UTC"


def reading(tmp_path: Path, content: str | bytes, **options: Any) -> ReadBars:
    path = tmp_path / "file"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_bars(path, "X", **options)


def check(read: ReadBars, format: str, first: str) -> None:
    bars = read.bars
    assert (read.format, instant(int(bars.timestamp[0]))) == (format, first)
    assert [bars.open.tolist(), bars.high.tolist(), bars.low.tolist(), bars.close.tolist(), bars.volume.tolist()] == [
        *([10, 11], [12, 13], [9, 10], [11, 12], [100, 200]),
    ]


@pytest.mark.parametrize("format", BARS)
def test_a_format_is_recognised_by_the_content(format: str, tmp_path: Path) -> None:
    read = reading(tmp_path, BARS[format])

    check(read, format, FIRST_OPEN[format])
    assert read.bars.timeframe == ("1d" if format in ("yahoo", "nasdaq") else "1m")


@pytest.mark.parametrize("format", BARS)
def test_a_format_can_be_named(format: str, tmp_path: Path) -> None:
    check(reading(tmp_path, BARS[format], format=format), format, FIRST_OPEN[format])


@pytest.mark.parametrize("format", BARS)
def test_line_ends_byte_order_marks_and_utf_16_do_not_matter(format: str, tmp_path: Path) -> None:
    for content in (
        BARS[format].replace("\n", "\r\n"),
        "\ufeff" + BARS[format],
        BARS[format].encode("utf-16"),
        BARS[format].rstrip("\n"),
    ):
        check(reading(tmp_path, content), format, FIRST_OPEN[format])


@pytest.mark.parametrize(
    ("format", "content", "first", "note"),
    [
        ("mt4", BARS["mt4"], "2022-01-03T09:30:00Z", UTC_NOTE),
        ("mt5", BARS["mt5"], "2022-01-03T09:30:00Z", "columns not used: <VOL>, <SPREAD>"),
        ("mt5", BARS["mt5"].replace("\t", ","), "2022-01-03T09:30:00Z", UTC_NOTE),
        ("histdata", BARS["histdata"], "2022-01-03T14:30:00Z", "times are taken as Etc/GMT+5, as histdata has them"),
        # HistData's files for MetaTrader look like MetaTrader's, so their format must be named.
        ("histdata", BARS["mt4"], "2022-01-03T14:30:00Z", "times are taken as Etc/GMT+5, as histdata has them"),
        ("dukascopy", BARS["dukascopy"], "2022-01-03T09:30:00Z", None),
        (
            "dukascopy",
            BARS["dukascopy"].replace("Gmt time", "Local time").replace("00.000", "00.000 GMT+0100"),
            "2022-01-03T08:30:00Z",
            None,
        ),
        (
            "dukascopy",
            BARS["dukascopy"].replace("Gmt time", "Time (EET)").replace("03.01.2022", "2022.01.03"),
            "2022-01-03T07:30:00Z",
            "times are taken as EET, as dukascopy has them",
        ),
        ("binance", re.sub(r"(?m)^(\d+)", r"\g<1>000", BARS["binance"]), "2022-01-03T09:30:00Z", None),
        (
            "binance",
            "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,"
            "ignore\n" + BARS["binance"],
            "2022-01-03T09:30:00Z",
            "columns not used: close_time, quote_volume, count, taker_buy_volume, taker_buy_quote_volume, ignore",
        ),
        ("csv", BARS["csv"].replace("time,", ",", 1), "2022-01-03T09:30:00Z", None),
        ("csv", BARS["csv"].replace("2022-01-03T", "03.01.2022 ").replace("Z", ""), "2022-01-03T09:30:00Z", UTC_NOTE),
    ],
)
def test_variants_of_formats(format: str, content: str, first: str, note: str | None, tmp_path: Path) -> None:
    named = format if content == BARS["mt4"] else None
    read = reading(tmp_path, content, format=named)

    check(read, format, first)
    assert note in read.warnings if note else read.warnings == []


def test_histdata_is_est_in_summer_too_and_a_named_zone_wins(tmp_path: Path) -> None:
    summer = BARS["histdata"].replace("20220103", "20220704")

    assert instant(int(reading(tmp_path, summer).bars.timestamp[0])) == "2022-07-04T14:30:00Z"
    new_york = reading(tmp_path, summer, time_zone="America/New_York")
    assert instant(int(new_york.bars.timestamp[0])) == "2022-07-04T13:30:00Z"
    assert new_york.warnings == []


@pytest.mark.parametrize(
    ("asked", "content", "message"),
    [
        ("histdata", BARS["csv"], "is no histdata file, it looks like csv; expected is HistData's ASCII bars"),
        ("mt4", BARS["histdata"], "is no mt4 file, it looks like histdata"),
        ("mt5", BARS["dukascopy"], "is no mt5 file, it looks like dukascopy"),
        ("csv", BARS["mt4"], "is no csv file, it looks like mt4"),
        ("binance", "1,2,3\n4,5,6\n", "has no header line, and is of no format that has none: the first is 1, 2, 3"),
        ("parquet", BARS["csv"], "is no parquet file"),
        ("csv", b"PAR1" + bytes(8), "is no csv file, it looks like parquet"),
        (None, b"PAR1" + bytes(8), "cannot be read as parquet"),
        (None, b"ARROW1" + bytes(8), "cannot be read as arrow"),
    ],
)
def test_a_file_of_another_format_than_the_named_one_is_refused(
    asked: str | None, content: str | bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        reading(tmp_path, content, format=asked)


def test_every_format_is_described_for_users() -> None:
    page = (Path(__file__).parents[3] / "docs" / "data.md").read_text("utf-8")

    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == set(FORMATS)


def test_an_unknown_format_is_refused_with_the_list(tmp_path: Path) -> None:
    with pytest.raises(ValidationError) as caught:
        reading(tmp_path, BARS["csv"], format="histdat")
    assert caught.value.message == f"unknown format 'histdat'; did you mean 'histdata'? ({', '.join(FORMATS)})"
    assert caught.value.details == {"path": "$.format", "expected": list(FORMATS), "got": "histdat"}


@pytest.mark.parametrize("format", ["yahoo", "dukascopy"])
def test_a_plain_header_serves_for_formats_that_have_one(format: str, tmp_path: Path) -> None:
    check(reading(tmp_path, BARS["csv"], format=format), format, FIRST_OPEN["csv"])


@pytest.mark.parametrize("format", ["mt4", "histdata", "binance"])
def test_lines_count_from_1_without_a_header(format: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        reading(tmp_path, BARS[format].replace("13", "x", 1))
    details = caught.value.details
    assert details is not None
    assert (details["line"], details["column"], details["reason"]) == (2, "high", "is not a number")
    with pytest.raises(DataError) as caught:
        reading(tmp_path, BARS[format].replace("13", "3", 1))
    assert caught.value.details is not None
    assert caught.value.details["faults"] == [{"reason": "high is below open or close", "count": 1, "lines": [2]}]


# --- tables ---

MINUTES = synthetic_bars("1m", 500)


def written(frame: pl.DataFrame, how: str) -> bytes:
    buffer = io.BytesIO()
    if how == "parquet":
        frame.write_parquet(buffer)
    elif how == "arrow file":
        frame.write_ipc(buffer)
    else:
        frame.write_ipc_stream(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("how", ["parquet", "arrow file", "arrow stream"])
def test_tables_come_back_bit_for_bit(how: str, tmp_path: Path) -> None:
    read = reading(tmp_path, written(MINUTES.to_frame(), how))

    assert (read.format, read.bars.timeframe, read.warnings) == (how.split()[0], "1m", [])
    assert read.bars.to_frame().equals(MINUTES.to_frame())


@pytest.mark.parametrize(
    "time",
    [
        pl.col("timestamp").dt.convert_time_zone("America/New_York"),
        pl.col("timestamp").cast(pl.Datetime("ns", "UTC")),
        pl.col("timestamp").dt.replace_time_zone(None).cast(pl.Datetime("ms")),
        pl.col("timestamp").dt.epoch("ms"),
        pl.col("timestamp").dt.epoch("us"),
        pl.col("timestamp").dt.to_string("%Y-%m-%d %H:%M:%S"),
        pl.col("timestamp").dt.to_string("iso"),
    ],
)
def test_tables_may_have_their_times_in_any_type(time: pl.Expr, tmp_path: Path) -> None:
    frame = MINUTES.to_frame().with_columns(time.alias("timestamp"))
    frame = frame.rename({"timestamp": "__index_level_0__", "open": "Open"})

    assert reading(tmp_path, written(frame, "parquet")).bars.to_frame().equals(MINUTES.to_frame())


def test_tables_of_days_and_other_numbers(tmp_path: Path) -> None:
    days = synthetic_bars("1d", 30)
    frame = days.to_frame().with_columns(pl.col("timestamp").dt.date(), pl.col("volume").cast(pl.Int64))
    read = reading(tmp_path, written(frame.rename({"timestamp": "Date"}), "parquet"))

    assert (read.bars.timeframe, read.warnings) == ("1d", [UTC_NOTE])
    assert read.bars.timestamp.tolist() == days.timestamp.tolist()


def test_problems_of_a_table_are_named_by_row(tmp_path: Path) -> None:
    frame = MINUTES.to_frame().with_row_index("at")
    missing = frame.with_columns(pl.when(pl.col("at") == 6).then(None).otherwise(pl.col("high")).alias("high"))
    with pytest.raises(DataError, match=r"file, row 7, column 'high': 'None' is not a number") as caught:
        reading(tmp_path, written(missing, "parquet"))
    assert caught.value.details is not None
    assert caught.value.details["row"] == 7
    low = frame.with_columns(pl.when(pl.col("at") == 8).then(0.0).otherwise(pl.col("low")).alias("low"))
    with pytest.raises(DataError, match=r"file, row 9, column 'low': low is zero or negative. In all: .* on 1 row "):
        reading(tmp_path, written(low, "parquet"))
    flags = frame.with_columns((pl.col("at") > 3).alias("timestamp"))
    with pytest.raises(DataError, match="column 'timestamp' holds Boolean, no times"):
        reading(tmp_path, written(flags, "parquet"))
    for kind in (pl.Float64, pl.Int32):
        numbers = frame.with_columns(pl.col("at").cast(kind).alias("timestamp"))
        with pytest.raises(DataError, match="column 'timestamp': 0, 1, … are the numbers of rows, or times"):
            reading(tmp_path, written(numbers, "parquet"))
    with pytest.raises(DataError, match="has no column for close among at, timestamp, open, high, low, volume"):
        reading(tmp_path, written(frame.drop("close"), "parquet"))
