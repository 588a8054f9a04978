"""This program measures requests that are on disk before their answer, beside a Ping and a bare commit.

    make bench-durability

The bare commit is on the same disk. All kinds run in blocks that alternate, so that a noisy machine is noisy for each;
medians are compared. Then many clients change the shared state at once, and so share commits.
"""

from __future__ import annotations

import argparse
import itertools
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from brokers import running_broker
from turns import Work, in_turn, print_table

from backtestr.client import Client
from backtestr.io.connection_file import ConnectionFile
from backtestr_protocol.connection import Connection

FLOOR = "Ping"
VALUE = {"payload": "x" * 200}


def bare_commit(folder: Path) -> Work:
    """Return the floor: one row of 200 bytes, committed and synced as the broker does it."""
    database = sqlite3.connect(folder / "floor.db", isolation_level=None)
    for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL"):
        database.execute(f"PRAGMA {pragma}")
    database.execute("CREATE TABLE state (key TEXT PRIMARY KEY, value BLOB)")

    numbers = itertools.count()  # SQLite does not write an unchanged row

    def trip() -> None:
        database.execute("BEGIN IMMEDIATE")
        value = f"{next(numbers):200}"
        database.execute("INSERT INTO state VALUES ('a', ?) ON CONFLICT DO UPDATE SET value = excluded.value", (value,))
        database.execute("COMMIT")

    return trip


def start_backtest(client: Client) -> Work:
    """Return the start of a backtest: checked by a worker, written to disk, answered; it runs while the next starts."""

    def trip() -> None:
        run = client.backtest("buy_and_hold", "SYNTH", timeframe="1d", start="2000-01-01", end="2100-01-01", watch=())
        run.abandon()

    return trip


def changes_per_second(connection: Connection, clients: int, seconds: float) -> float:
    def change(number: int) -> int:
        done = 0
        with Client(connection) as client:
            until = time.perf_counter() + seconds
            while time.perf_counter() < until:
                client.update_state(f"bench.{number}", VALUE)
                done += 1
        return done

    with ThreadPoolExecutor(clients) as pool:
        return sum(pool.map(change, range(clients))) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--blocks", type=int, default=20, help="alternations (default 20)")
    parser.add_argument("--trips", type=int, default=50, help="round trips in a block (default 50)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of many clients at once (default 3)")
    arguments = parser.parse_args()
    with running_broker() as broker:
        connection = ConnectionFile(broker.connection_file).read()
        with Client(connection) as client:
            client.update_state("bench", VALUE)
            kinds: dict[str, Work] = {
                FLOOR: client.ping,
                "GetState": lambda: client.get_state("bench"),
                "bare commit": bare_commit(broker.data_dir),
                "UpdateState": lambda: client.update_state("bench", VALUE),
                "StartBacktest": start_backtest(client),
            }
            took: dict[str, list[float]] = {name: [] for name in kinds}
            for _ in range(arguments.blocks):
                for name, (median,) in in_turn(kinds, 1, arguments.trips).items():
                    took[name].append(median)
                while client.status().active_backtests:
                    time.sleep(0.05)
            print_table("over ipc", took, dict.fromkeys(kinds, FLOOR), "µs")
        for clients in (1, 4, 16):
            rate = changes_per_second(connection, clients, arguments.seconds)
            print(f"{clients:2} clients: {rate:7.0f} changes a second")


if __name__ == "__main__":
    main()
