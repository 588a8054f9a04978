"""This part measures the TypeScript client in Node: round trips, a million prices, a long result, its import and size.

    make bench-node

It runs the built package (`make build-ts`). Round trips alternate in blocks with a raw DEALER of zeromq.js that packs
and signs with the same broker. A million prices come from a tape (`price_tape.py`), so that the reader is measured and
no publisher; a timer beside it shows how long anything else in that process had to wait. The result of a million bars
is read after the backtest has completed. An import is a fresh process; the size is that of the part for pages.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from brokers import Running, running_broker
from figures import Figure, Missing, Target, rounds, run_part
from price_tape import Form, price_tape

from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.synthetic import synthetic_bars

NODE = Path(sys.executable).parent / "node"
PACKAGE = Path(__file__).parents[1] / "clients" / "typescript"
SECONDS = 300
# Rounds of each at the usual effort.
BLOCKS = 24
TRIPS = 250
PRICE_ROUNDS = 5
RESULTS = 8
IMPORTS = 15
BARS = 1_000_000
# No rate limit: a Ping in a loop would reach it.
UNLIMITED = "[throttle]\nreal_time_per_second = 0\n"
PART = "TypeScript client in Node"


def measure(effort: float) -> list[Figure | Missing]:
    if not NODE.exists() or not (PACKAGE / "dist" / "index.mjs").exists():
        return [Missing(PART, "it is not built; run: make build-ts")]
    with running_broker(config=UNLIMITED) as broker:
        found = [*round_trips(broker, effort), *prices(broker, effort)]
    return [*found, *results(effort), *imports(effort), *size()]


def node(program: str, *arguments: object) -> Any:
    """Return what a program of the package's folder `bench` prints as JSON."""
    command = [str(NODE), f"bench/{program}.mjs", *map(str, arguments)]
    done = subprocess.run(command, cwd=PACKAGE, capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{program}.mjs: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout)


def round_trips(broker: Running, effort: float) -> list[Figure | Missing]:
    took = node("ping", broker.connection_file, rounds(BLOCKS, effort), TRIPS)
    return [
        Figure(
            part=f"{PART}: round trips over ipc, {percentile}",
            name=name,
            unit="µs",
            values=[1e3 * one[percentile] for one in took[kind]],
            beside=RAW if name == PING else None,
            target=Target(1.5) if (name, percentile) == (PING, "p50") else None,
        )
        for percentile in ("p50", "p99")
        for name, kind in ((RAW, "raw"), (PING, "client"))
    ]


RAW = "raw zeromq.js DEALER that signs"
PING = 'client.request("Ping")'


def prices(broker: Running, effort: float) -> list[Figure | Missing]:
    forms: list[Form] = ["columns", "maps"]
    topics = {f"prices.{form}{number}.1m": form for number in range(rounds(PRICE_ROUNDS, effort)) for form in forms}
    with price_tape(broker, topics) as file:
        found = node("prices", file, *(f"{form}:{topic}" for topic, form in topics.items()))
    rates = {"columns": 2_000_000.0, "maps": 400_000.0}
    part = f"{PART}: a million prices"
    figures: list[Figure | Missing] = []
    for form, rate in rates.items():
        own = [one for one in found if one["form"] == form]
        target = Target(rate, "at least", "value")
        figures.append(Figure(part=part, name=form, unit="1/s", values=[one["rate"] for one in own], target=target))
    for form in rates:
        gaps = [one["gap"] for one in found if one["form"] == form]
        target = Target(30.0, "at most", "value")
        figures.append(Figure(part=part, name=f"largest gap of a timer, {form}", unit="ms", values=gaps, target=target))
    return figures


def results(effort: float) -> list[Figure | Missing]:
    with tempfile.TemporaryDirectory(prefix="bt-") as folder:
        Catalog(Path(folder) / "data" / "catalog", cache_bytes=1 << 30).write(synthetic_bars("1m", BARS))
        with running_broker(Path(folder)) as broker:
            found = node("result", broker.connection_file, rounds(RESULTS, effort))
    if any(one["bars"] != BARS for one in found):
        raise RuntimeError(f"the results do not have {BARS:,} bars: {found}")
    return [
        Figure(
            part=f"{PART}: result of a million bars, all tables as typed arrays",
            name="after completed",
            unit="ms",
            values=[one["ms"] for one in found],
            target=Target(250.0, "at most", "value"),
        )
    ]


def imports(effort: float) -> list[Figure | Missing]:
    took = [float(node("import")) for _ in range(rounds(IMPORTS, effort))]
    target = Target(60.0, "at most", "value")
    return [Figure(part=f"{PART}: import", name="a fresh process", unit="ms", values=took, target=target)]


def size() -> list[Figure | Missing]:
    sizes = node("bundle")
    targets = {"core": Target(40.0, "at most", "value")}
    return [
        Figure(
            part=f"{PART}: bundles for a page, gzip",
            name=name,
            unit="kB",
            values=[sizes[name]["gz"] / 1e3],
            target=targets.get(name),
        )
        for name in ("core", "page")
    ]


if __name__ == "__main__":
    run_part(__doc__, measure)
