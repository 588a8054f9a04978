"""Headers as programs and providers write them: the columns are found, and what stands above is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from backtestr_engine.data.instants import instant
from backtestr_protocol.errors import DataError
from support.engine.reading import ReadBars, read_bars

DAY = "2024-03-04"


def reading(tmp_path: Path, text: str) -> ReadBars:
    path = tmp_path / "bars.csv"
    path.write_text(text)
    return read_bars(path, "X", "1d")


@pytest.mark.parametrize(
    ("text", "notes"),
    [
        # yfinance, before and after its version 0.2.51, and by pandas
        (
            "Price,Close,High,Low,Open,Volume\nTicker,A,A,A,A,A\nDate,,,,,\n2024-03-04,11,12,9,10,100\n",
            ["the header has three lines; the columns are those of A"],
        ),
        (
            ",Close,High,Low,Open,Volume\n,A,A,A,A,A\nDate,,,,,\n2024-03-04,11,12,9,10,100\n",
            ["the header has three lines; the columns are those of A"],
        ),
        (
            "Ticker,A,A,A,A,A\nPrice,Open,High,Low,Close,Volume\nDate,,,,,\n2024-03-04,10,12,9,11,100\n",
            ["the header has three lines; the columns are those of A"],
        ),
        # Finnhub, Polygon, Alpha Vantage, TradingView, CoinAPI, Finam, NSE
        ("t,o,h,l,c,v\n1709510400,10,12,9,11,100\n", []),
        ("volume,open,close,high,low,window_start\n100,10,11,12,9,1709510400000000000\n", []),
        ("date,1. open,2. high,3. low,4. close,5. volume\n2024-03-04,10,12,9,11,100\n", []),
        ("time_period_start,open,high,low,close,volume_traded\n2024-03-04,10,12,9,11,100\n", None),
        ("<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>\n20240304,000000,10,12,9,11,100\n", []),
        ("Date,Open Price,High Price,Low Price,Close Price,Volume\n04-Mar-2024,10,12,9,11,100\n", []),
        ("ts_ms,open,high,low,close,volume\n1709510400000,10,12,9,11,100\n", []),
        ("[Date],[Open],[High],[Low],[Close],[Volume]\n2024-03-04,10,12,9,11,100\n", []),
        # Excel, CryptoDataDownload, a title
        ("sep=;\nDate;Open;High;Low;Close;Volume\n2024-03-04;10;12;9;11;100\n", []),
        ('"sep=|"\nDate|Open|High|Low|Close|Volume\n2024-03-04|10|12|9|11|100\n', []),
        (
            "https://www.example.com\nunix,date,open,high,low,close,Volume BTC\n1709510400,x,10,12,9,11,100\n",
            ["a line above the header is not used: https://www.example.com", "column 'Volume BTC' is taken as volume"],
        ),
        (
            "Prices of A\n\n# in dollars\nDate,Open,High,Low,Close,Volume\n\n2024-03-04,10,12,9,11,100\n",
            ["a line above the header is not used: Prices of A", "a line above the header is not used: # in dollars"],
        ),
        # Bars whose close has another name
        ("Time,Open,High,Low,Last,Volume\n2024-03-04,10,12,9,11,100\n", ["column 'Last' is taken as close"]),
        ("Date,Price,Open,High,Low,Volume\n2024-03-04,11,10,12,9,100\n", ["column 'Price' is taken as close"]),
        ("Date,Open,High,Low,Settle,Volume\n2024-03-04,10,12,9,11,100\n", ["column 'Settle' is taken as close"]),
        (
            "Date,Open,High,Low,Settle,Last,Volume\n2024-03-04,10,12,9,7,11,100\n",
            ["column 'Last' is taken as close", "columns not used: Settle"],
        ),
        (
            "Date,Open,High,Low,Last,Close,Volume\n2024-03-04,10,12,9,7,11,100\n",
            ["columns not used: Last"],
        ),
    ],
)
def test_headers_of_programs_and_providers(text: str, notes: list[str] | None, tmp_path: Path) -> None:
    read = reading(tmp_path, text)
    bars = read.bars
    assert instant(int(bars.timestamp[0])) == DAY
    assert (bars.open[0], bars.high[0], bars.low[0], bars.close[0]) == (10, 12, 9, 11)
    if notes is None:
        assert "no volume column: volume is 0" in read.warnings
        return
    assert bars.volume[0] == 100
    ignored = ("times have no time zone: taken as UTC", "columns not used: date")
    assert [note for note in read.warnings if note not in ignored] == notes


def test_lines_are_counted_with_those_above_the_header(tmp_path: Path) -> None:
    text = 'A "title"\n\nsecond\nDate,Open,High,Low,Close\n\n2024-03-04,10,12,9,11\n2024-03-05,10,x,9,11\n'
    with pytest.raises(DataError, match="line 7, column 'High': 'x' is not a number"):
        reading(tmp_path, text)
    with pytest.raises(DataError, match="line 7, column 'High': high is below open or close"):
        reading(tmp_path, text.replace("x", "1"))


def test_symbols_side_by_side_are_refused_by_name(tmp_path: Path) -> None:
    text = (
        "Price,Open,Open,High,High,Low,Low,Close,Close\nTicker,A,B,A,B,A,B,A,B\nDate,,,,,,,,\n"
        "2024-03-04,10,1,12,1,9,1,11,1\n"
    )
    with pytest.raises(DataError, match="several symbols side by side, in the columns of A, B") as caught:
        reading(tmp_path, text)
    assert caught.value.details == {"line": 2, "values": ["A", "B"]}


def test_rows_are_never_taken_for_lines_above_a_header(tmp_path: Path) -> None:
    """Two files one after the other: the rows of the first, which has no header, must not vanish."""
    text = "2024-03-01,1,1,1,1\nDate,Open,High,Low,Close\n2024-03-04,10,12,9,11\n"
    with pytest.raises(DataError, match="has no header line"):
        reading(tmp_path, text)


def test_a_file_without_a_close_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no column for close among Date, Open, High, Low, Adj Close"):
        reading(tmp_path, "Date,Open,High,Low,Adj Close\n2024-03-04,10,12,9,11\n")
