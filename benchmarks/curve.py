"""This program measures round trips and bulk answers over TCP, encrypted with CURVE beside plain ones.

    make bench-curve

Brokers with the same bars are asked in turn by one client each, so that a noisy machine is noisy for all.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from brokers import Running, running_broker
from turns import Work, in_turn, print_table

from backtestr.client import Client
from backtestr.io.connection_file import ConnectionFile

TCP = '[transport]\nkind = "tcp"\ntcp_readable_by_local_users = true\n'
CURVE = '[transport]\nkind = "tcp"\n'
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
        pings: dict[str, Work] = {name: client.ping for name, client in clients.items()}
        reads: dict[str, Work] = {name: partial(client.market_data, "BULK", "1m") for name, client in clients.items()}
        floors = dict.fromkeys(clients, "tcp")
        for warmed in (pings, reads):
            in_turn(warmed, 1)
        print_table("Ping", in_turn(pings, arguments.blocks, arguments.trips), floors, "µs")
        megabytes = arguments.bars * BYTES_PER_BAR / 1e6
        print_table(f"{megabytes:.0f} MB of bars", in_turn(reads, arguments.blocks), floors)


def connect(broker: Running) -> Client:
    """Connect a client, with the key in the connection file if there is one."""
    file = ConnectionFile(broker.connection_file)
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


if __name__ == "__main__":
    main()
