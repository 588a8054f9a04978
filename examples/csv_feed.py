"""This feed follows a CSV file that grows, as `tail -f` does, and publishes its rows as live prices.

    python csv_feed.py quotes.csv EURUSD                   # the rows from now on
    python csv_feed.py quotes.csv EURUSD --from-start      # the rows that are in the file as well

The first line names the columns: `timestamp` (ISO 8601, or milliseconds since 1970), and `last`, or `bid` and `ask`, or
all three; `volume` is optional. A row that is no price is reported and left out. A file that is truncated, or replaced
by another, is read from its start. Without a broker the feed waits, and reports that. Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import backtestr

# Bytes read at once, and the longest line, so that memory does not grow with the file.
BLOCK = 65_536
# Prices per request; the broker accepts up to 1,000.
AT_ONCE = 500
# Seconds between two checks of a file that does not grow.
LOOK_INTERVAL = 0.1
# Seconds before prices that the broker did not accept are sent again.
TRY_AGAIN_AFTER = 5.0
# Errors of a broker that is not running or too busy; the prices are valid.
PASSING = (
    backtestr.errors.NetworkError,
    backtestr.errors.TimedOut,
    backtestr.errors.Busy,
    backtestr.errors.RateLimitExceeded,
)


class Tail:
    """The complete rows of a file as it grows; `header` has the names of its columns, once they are known."""

    def __init__(self, path: Path, *, from_start: bool) -> None:
        self._path = path
        self._open(from_start=from_start)

    def _open(self, *, from_start: bool) -> None:
        self._file = self._path.open("rb")
        self._rest = b""  # the start of an incomplete line
        self._is_too_long = False  # True for the line whose rest comes next
        self.header: list[str] = []
        first = self._file.readline(BLOCK)
        if from_start or not first.endswith(b"\n"):
            self._file.seek(0)
            return
        self.header = _cells(first)
        start = max(len(first), self._file.seek(0, os.SEEK_END) - BLOCK)
        self._file.seek(start)
        self._file.seek(start + self._file.read(BLOCK).rfind(b"\n") + 1)  # after the last complete line

    def new_rows(self) -> Iterator[list[str]]:
        """Yield the rows since the last call."""
        yield from self._read()
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return  # it is being replaced
        here = os.fstat(self._file.fileno())
        if (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino) or there.st_size < self._file.tell():
            say(f"{self._path} is read from its start again")
            self._file.close()
            self._open(from_start=True)
            yield from self._read()

    def _read(self) -> Iterator[list[str]]:
        while block := self._file.read(BLOCK):
            *lines, self._rest = (self._rest + block).split(b"\n")
            for line in lines:
                cells = [] if self._is_too_long else _cells(line)
                self._is_too_long = False
                if self.header and cells:
                    yield cells
                elif cells:
                    self.header = cells
            if len(self._rest) > BLOCK:
                say(f"a line of more than {BLOCK} bytes is left out")
                self._rest, self._is_too_long = b"", True


def _cells(line: bytes) -> list[str]:
    return next(csv.reader([line.decode("utf-8-sig", "replace").strip()]), [])


def price_of(row: dict[str, str], symbol: str, timeframe: str) -> backtestr.PriceUpdate:
    """Return the price in a row; raise `ValueError` or `KeyError` for a row that is no price."""
    written = row["timestamp"].strip()
    if written.isdigit():
        timestamp = int(written)
    else:
        moment = datetime.fromisoformat(written)
        timestamp = round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    last = float(row["last"]) if row.get("last") else (float(row["bid"]) + float(row["ask"])) / 2
    return backtestr.PriceUpdate(
        symbol=symbol,
        timestamp=timestamp,
        bid=float(row.get("bid") or last),
        ask=float(row.get("ask") or last),
        last=last,
        volume=float(row.get("volume") or 0),
        timeframe=timeframe,
    )


def publish(client: backtestr.Client, prices: list[backtestr.PriceUpdate]) -> None:
    """Publish all prices; if the broker refuses one, publish the others.

    The file is not read further until the broker has accepted them, so no prices pile up here. A request without an
    answer may have been executed: its prices may be published twice.
    """
    while True:
        try:
            client.publish_prices(prices)
        except PASSING as error:
            say(f"not published yet: {error}")
            time.sleep(TRY_AGAIN_AFTER)
            continue
        except backtestr.errors.ValidationError as error:
            say(f"left out: {error}")
            if len(prices) > 1:
                for price in prices:
                    publish(client, [price])
        return


def say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def follow(client: backtestr.Client, tail: Tail, symbol: str, timeframe: str) -> None:
    while True:
        prices: list[backtestr.PriceUpdate] = []
        for cells in tail.new_rows():
            try:
                prices.append(price_of(dict(zip(tail.header, cells, strict=True)), symbol, timeframe))
            except (ValueError, KeyError) as error:
                say(f"left out: {','.join(cells)}: {error!r}")
            if len(prices) == AT_ONCE:
                publish(client, prices)
                prices = []
        if prices:
            publish(client, prices)
        time.sleep(LOOK_INTERVAL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("symbol")
    parser.add_argument("--timeframe", default="tick", help="tick, or that of the bars whose closes these are")
    parser.add_argument("--from-start", action="store_true", help="publish the rows that are there already")
    asked = parser.parse_args()
    if not asked.file.is_file():
        parser.error(f"there is no file {asked.file}")
    with backtestr.connect() as client:
        tail = Tail(asked.file, from_start=asked.from_start)
        say(f"following {asked.file}")  # rows that are written from here on are published
        with contextlib.suppress(KeyboardInterrupt):
            follow(client, tail, asked.symbol, asked.timeframe)


if __name__ == "__main__":
    main()
