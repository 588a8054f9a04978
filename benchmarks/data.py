"""This program measures the import or refusal of a million rows, and the reading of 100,000 bars with indicators.

    make bench-data

Imports and answers are measured one after the other, each in rounds that run every kind once, in turn, so that a noisy
machine is noisy for all; medians are compared. (In one round with imports, which move all pages of memory, an answer
takes a third longer.) The floor of the import is polars reading the same text into the same columns, with one thread as
in a worker. The same file with a cell on its last line that is no number is refused with line and column. Python's csv
then reads every cell: that takes some three times as long as an import, and must not take 3 s. The floor of the answer
is a ROUTER in another process that sends as many bytes, already in memory, to a DEALER that receives them.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import tempfile
from multiprocessing import get_context
from pathlib import Path

os.environ["POLARS_MAX_THREADS"] = "1"  # as workers have it; read when polars is first imported

import polars as pl
import zmq
from brokers import running_broker
from turns import Work, in_turn, print_table

from backtestr.client import Client
from backtestr.io.connection_file import ConnectionFile
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.importing.importer import read_file
from backtestr_protocol.errors import DataError
from backtestr_protocol.import_messages import ImportMarketData
from backtestr_protocol.messages import IndicatorConfig

IMPORT_TO_REACH_MS = 1000.0
REFUSAL_TO_REACH_MS = 3000.0
ANSWER_TO_REACH_MS = 60.0
IMPORT = "import through the broker"
READ = "  read and check"
REFUSED = "  refuse, the last line bad"
IMPORT_FLOOR = "  polars alone"
ANSWER = "100k bars, 5 indicators"
PLAIN = "  without indicators"
ANSWER_FLOOR = "  as many bytes, raw"
DAY = "1 day of all minutes, cold"
INDICATORS = [
    IndicatorConfig(name="SMA", parameters={"timeperiod": 20}, output_names=["sma"]),
    IndicatorConfig(name="EMA", parameters={"timeperiod": 50}, output_names=["ema"]),
    IndicatorConfig(name="RSI", output_names=["rsi"]),
    IndicatorConfig(name="MACD"),
    IndicatorConfig(name="BBANDS"),
]


def send_raw(endpoint: str, size: int) -> None:
    """Answer every message on `endpoint` with `size` bytes, in a process of its own."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.bind(endpoint)
        body = bytes(size)
        while True:
            identity, asked = socket.recv_multipart()
            if not asked:
                return
            socket.send_multipart([identity, body], copy=False)


def plain_read(path: Path) -> pl.DataFrame:
    """Read the text into a time and five numbers, which any reader must do."""
    schema = {"timestamp": pl.String()} | dict.fromkeys(["open", "high", "low", "close", "volume"], pl.Float64())
    rows = pl.read_csv(path, schema=schema)
    return rows.with_columns(pl.col("timestamp").str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="us"))


def refuse(path: Path, line: int) -> None:
    """Read a file that must be refused for that line."""
    try:
        read_file(ImportMarketData(path=str(path), symbol="ALL"))
    except DataError as error:
        if error.details and error.details["line"] == line:
            return
        raise
    raise RuntimeError(f"{path} was read, and line {line} is invalid")


def kinds(client: Client, home: Path, raw: zmq.Socket[bytes], rows: int, bars: int) -> list[dict[str, Work]]:
    """Return the kinds of work by name: imports, then answers."""
    path = home / "minutes.csv"
    synthetic_bars("1m", rows).to_frame().write_csv(path, datetime_format="%Y-%m-%d %H:%M:%S")
    malformed = home / "malformed.csv"
    malformed.write_bytes(path.read_bytes().rpartition(b",")[0] + b",many\n")
    client.import_market_data(path, "ALL")
    synthetic_bars("1m", bars).to_frame().write_parquet(home / "asked.parquet")
    client.import_market_data(home / "asked.parquet", "ASKED")
    day = synthetic_bars("1m", rows).timestamp[rows // 2]

    def one_day() -> object:
        return Catalog(home / "data" / "catalog", cache_bytes=1 << 30).load(
            "ALL", "1m", int(day), int(day) + 86_400_000_000
        )

    def as_many_bytes() -> None:
        raw.send(b"?")
        raw.recv(copy=False)

    imports: dict[str, Work] = {
        IMPORT: lambda: client.import_market_data(path, "ALL"),
        READ: lambda: read_file(ImportMarketData(path=str(path), symbol="ALL")),
        REFUSED: lambda: refuse(malformed, rows + 1),
        IMPORT_FLOOR: lambda: plain_read(path),
    }
    answers: dict[str, Work] = {
        ANSWER: lambda: client.market_data("ASKED", "1m", indicators=INDICATORS),
        PLAIN: lambda: client.market_data("ASKED", "1m"),
        ANSWER_FLOOR: as_many_bytes,
        DAY: one_day,
    }
    return [imports, answers]


def answer_size(bars: int) -> int:
    """Return the bytes of the answer's table: a time, prices and volume, and nine outputs."""
    buffer = io.BytesIO()
    frame = synthetic_bars("1m", bars).to_frame()
    outputs = [pl.col("close").alias(f"output {number}") for number in range(9)]
    frame.with_columns(outputs).write_ipc_stream(buffer, compression="uncompressed")
    return buffer.tell()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the CSV file (default 1,000,000)")
    parser.add_argument("--bars", type=int, default=100_000, help="bars asked for (default 100,000)")
    parser.add_argument("--rounds", type=int, default=15, help="times each kind is run (default 15)")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="backtestr-bench-") as folder,
        running_broker(Path(folder)) as broker,
        Client(ConnectionFile(broker.connection_file).read()) as client,
        zmq.Context() as context,
        context.socket(zmq.DEALER) as raw,
    ):
        home = Path(folder)
        endpoint, size = f"ipc://{home / 'raw'}", answer_size(arguments.bars)
        sender = get_context("spawn").Process(target=send_raw, args=(endpoint, size))
        sender.start()
        raw.connect(endpoint)
        took: dict[str, list[float]] = {}
        for works in kinds(client, home, raw, arguments.rows, arguments.bars):
            in_turn(works, 2)
            took |= in_turn(works, arguments.rounds)
        raw.send(b"")
        sender.join()
        megabytes = (home / "minutes.csv").stat().st_size / 1e6
    print(
        f"{arguments.rows:,} rows of CSV, {megabytes:.0f} MB; {arguments.bars:,} bars in {size / 1e6:.1f} MB of Arrow"
    )
    floors = dict.fromkeys((IMPORT, READ, REFUSED), IMPORT_FLOOR) | dict.fromkeys((ANSWER, PLAIN), ANSWER_FLOOR)
    print_table("", took, floors)
    imported, refused, answered = (1e3 * statistics.median(took[name]) for name in (IMPORT, REFUSED, ANSWER))
    print(f"import {imported:.0f} ms (to reach: {IMPORT_TO_REACH_MS:.0f} ms)", end="; ")
    print(f"refusal {refused:.0f} ms (to reach: {REFUSAL_TO_REACH_MS:.0f} ms)", end="; ")
    print(f"answer {answered:.1f} ms (to reach: {ANSWER_TO_REACH_MS:.0f} ms)")


if __name__ == "__main__":
    main()
