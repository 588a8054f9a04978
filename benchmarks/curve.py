"""What CURVE costs: round trips and bulk answers over TCP, encrypted beside plain, interleaved in one run.

    make bench-curve

Two brokers on the same bars, asked in turn by one client each, so that a noisy machine is noisy for both.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
from brokers import Running, running_broker

from backtestr.client import Client
from backtestr.discovery import ConnectionFile
from backtestr_protocol.keys import KeyFolder

TCP = '[transport]\nkind = "tcp"\n'
CURVE = TCP + "[curve]\nenabled = true\n"
BYTES_PER_BAR = 48


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--blocks", type=int, default=20, help="alternations (default 20)")
    parser.add_argument("--trips", type=int, default=200, help="round trips in a block (default 200)")
    parser.add_argument("--bars", type=int, default=500_000, help="bars in a bulk answer (default 500,000)")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bt-")))
        bars = write_bars(folder / "bars.parquet", arguments.bars)
        clients: dict[str, Client] = {}
        for name, config in {"ipc": "", "tcp": TCP, "tcp + CURVE": CURVE}.items():
            broker = stack.enter_context(running_broker(config=config))
            clients[name] = stack.enter_context(connect(broker))
            clients[name].import_market_data(bars, "BULK", timeframe="1m")
        pings: dict[str, Callable[[], object]] = {name: client.ping for name, client in clients.items()}
        reads: dict[str, Callable[[], object]] = {
            name: lambda client=client: client.market_data("BULK", "1m")  # type: ignore[misc]  # bound here and now
            for name, client in clients.items()
        }
        report("Ping, µs", 1e6, interleaved(pings, arguments.blocks, arguments.trips))
        megabytes = arguments.bars * BYTES_PER_BAR / 1e6
        report(f"{megabytes:.0f} MB of bars, ms", 1e3, interleaved(reads, arguments.blocks, 1))


def connect(broker: Running) -> Client:
    """A client, with a key that the broker lets in where it needs one."""
    file = ConnectionFile(broker.connection_file)
    keys = KeyFolder(broker.data_dir / "keys")
    if '"serverPublicKey"' in broker.connection_file.read_text("utf-8"):
        pair, secret = keys.new("bench")
        keys.allow("bench", pair.public)
        file = ConnectionFile(broker.connection_file, secret)
    return Client(file.read(), keys=file.own_keys)


def write_bars(file: Path, count: int) -> Path:
    close = 100 * np.exp(np.cumsum(np.random.default_rng(1).normal(0, 1e-3, count)))
    start = np.datetime64("2020-01-01T00:00:00", "us")
    pl.DataFrame(
        {
            "timestamp": start + np.arange(count) * np.timedelta64(60_000_000, "us"),
            "open": close,
            "high": close * 1.001,
            "low": close * 0.999,
            "close": close,
            "volume": np.ones(count),
        }
    ).write_parquet(file)
    return file


def interleaved(kinds: dict[str, Callable[[], object]], blocks: int, trips: int) -> dict[str, list[float]]:
    """Seconds of one trip, the median of each block, by kind."""
    for trip in kinds.values():
        trip()
    medians: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(blocks):
        for name, trip in kinds.items():
            took = []
            for _ in range(trips):
                began = time.perf_counter()
                trip()
                took.append(time.perf_counter() - began)
            medians[name].append(statistics.median(took))
    return medians


def report(title: str, unit: float, medians: dict[str, list[float]]) -> None:
    """Each kind's median, its spread, and the ratio to plain TCP block by block."""
    beside = medians["tcp"]
    print(f"{title:24}{'median':>10}{'10..90 %':>18}{'ratio':>8}")
    for name, values in medians.items():
        ratio = statistics.median(value / other for value, other in zip(values, beside, strict=True))
        tenths = statistics.quantiles(values, n=10)
        median = statistics.median(values) * unit
        print(f"  {name:22}{median:10.1f}{tenths[0] * unit:9.1f}..{tenths[-1] * unit:7.1f}{ratio:8.2f}")


if __name__ == "__main__":
    main()
