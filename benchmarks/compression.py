"""What compression and columns cost and save on one machine: bytes, time, and how fast a reader has everything.

    make bench-batching

The messages are those of a backtest on synthetic minutes: its prices, and its orders. Each form of them is packed and
read in turn, then sent through the way from worker to reader (`pipeline.py`), ipc and all. At the end, a cache of what
was compressed, tried on two backtests that publish the same prices: what it finds, and what it costs where it does not.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections import OrderedDict
from functools import partial

import msgspec
from pipeline import Source, pipeline
from subject import backtest, config
from turns import Work, in_turn, print_table, ratios

from backtestr.core.batches import PriceColumns, join_columns, open_payload
from backtestr_engine.backtest.plan import Plan
from backtestr_engine.backtest.run import Run
from backtestr_engine.built_in import BUILT_IN
from backtestr_engine.config import load_config
from backtestr_engine.data.panel import Panel
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.publishing.backtest_streams import BacktestStreams
from backtestr_engine.publishing.payloads import Messages as Messages
from backtestr_engine.publishing.payloads import Packer
from backtestr_engine.publishing.record_encoding import EncodedMaps
from backtestr_engine.simulation.conventions import resolve_options
from backtestr_engine.simulation.records import Events
from backtestr_protocol.codec import Payload
from backtestr_protocol.messages import StreamOptions
from backtestr_protocol.payload_compression import Level, Priority, compress
from backtestr_protocol.worker_channel import Published

PRICES, COLUMNS, ORDERS = "prices", "prices as columns", "orders"
LEVELS: tuple[Level, ...] = ("none", "fast", "balanced", "maximum")
# As many batches of 100 KB as a worker could spare memory for.
CACHE_BATCHES = 256

_payload_decoder = msgspec.msgpack.Decoder(Payload)
_numbers = itertools.count(1)

Batch = tuple[bytes, int]
"""A payload and how many messages it holds."""


def runs(bars_count: int) -> dict[str, Messages]:
    """Return the messages that one backtest publishes."""
    bars = synthetic_bars("1m", bars_count)
    panel = Panel.of([bars])
    algorithm = BUILT_IN["sma_cross"]
    parameters = algorithm.check({"fast": 10, "slow": 30})
    plan = Plan(config(), algorithm, parameters, resolve_options({}, load_config(None).conventions), panel)
    run: Run = backtest(plan)
    result = run.finish()
    found: dict[str, Messages] = {}
    for name, streams in (
        (PRICES, StreamOptions(prices=True, orders=False, positions=False)),
        (COLUMNS, StreamOptions(prices=True, columns=True, orders=False, positions=False)),
        (ORDERS, StreamOptions(positions=False)),
    ):
        chunk = Events(result.orders, result.positions, result.trades)
        [(_, found[name])] = BacktestStreams("5f0c1d2e-3b4a", panel, streams, {}).chunk(chunk, 0, bars_count)
    return found


# The priority whose level is this one at any size.
PRIORITIES: dict[Level, Priority] = {
    "none": "real_time",
    "fast": "real_time",
    "balanced": "background",
    "maximum": "bulk",
}


def packed(run: Messages, size: int, level: Level) -> list[Batch]:
    """Full batches of `run` at that level."""
    options = msgspec.structs.replace(load_config(None).compression, enabled=level != "none", fast_from_bytes=1)
    packer = Packer(options, time.perf_counter)
    cuts = [run.cut(first, first + size) for first in range(0, len(run) - size + 1, size)]
    return [(packer.payload([cut], size, PRIORITIES[level], 1), size) for cut in cuts]


def read(batches: list[Batch]) -> int:
    """Take every batch apart, as the client does: messages but for their own fields, columns to one table."""
    found = [open_payload(_payload_decoder.decode(payload)) for payload, _ in batches]
    if columns := [one for one in found if isinstance(one, PriceColumns)]:
        join_columns(columns).frame(1)
    return len(found)


def through(source: Source, run: Messages, size: int, level: Level) -> None:
    """Pack it, and have a reader get all of it."""
    topic = f"prices.N{next(_numbers)}.1m"
    batches = packed(run, size, level)
    source.send([(Published(topic=topic, count=count), payload) for payload, count in batches])
    source.arrived(topic, size * len(batches))


class Cache:
    """A cache of the latest compressed batches by their bytes, bounded in batches. The product has none."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()
        self.hits = self.misses = 0

    def compressed(self, level: Level, raw: bytes) -> bytes:
        if (found := self._kept.get(raw)) is not None:
            self._kept.move_to_end(raw)
            self.hits += 1
            return found
        self.misses += 1
        made = self._kept[raw] = compress(level, raw)[1]
        if len(self._kept) > CACHE_BATCHES:
            self._kept.popitem(last=False)
        return made


def cache(run: EncodedMaps, size: int, rounds: int) -> None:
    """Two backtests that publish `run`; a pause has the second one's batches begin elsewhere, or has not."""

    def cut(first: int) -> list[bytes]:
        starts = range(first, len(run) - size + 1, size)
        return [run.between(start, start + size) for start in starts]

    for level in ("fast", "balanced"):
        for name, second in (("the same batches", 0), ("batches cut elsewhere", 17)):
            batches = cut(0) + cut(second)
            found: list[Cache] = []

            def cached(batches: list[bytes] = batches, level: Level = level, found: list[Cache] = found) -> None:
                found.append(Cache())
                for one in batches:
                    # Every batch is made anew, so its hash is not there yet.
                    found[-1].compressed(level, bytes(bytearray(one)))

            def plain(batches: list[bytes] = batches, level: Level = level) -> None:
                for one in batches:
                    compress(level, bytes(bytearray(one)))

            took = in_turn({"without": plain, "with": cached}, rounds)
            ratio = statistics.median(ratios(took["with"], took["without"]))
            rate = found[-1].hits / len(batches)
            print(f"  cache, {level}, {name}: {100 * rate:.0f} % found, time with it ÷ without {ratio:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--bars", type=int, default=200_000, help="bars in the series (default 200,000)")
    parser.add_argument("--rounds", type=int, default=11, help="times each kind is run (default 11)")
    arguments = parser.parse_args()
    batching = load_config(None).batching
    sizes = {PRICES: batching.prices.max_messages, COLUMNS: batching.prices.max_messages}
    sizes[ORDERS] = batching.orders.max_messages
    published = runs(arguments.bars)
    for name, run in published.items():
        print(f"{name}: {len(run):,} messages in batches of {sizes[name]:,}")
        # The slowest level takes minutes for all of it.
        part = run.cut(0, min(len(run), 20 * sizes[name]))
        works: dict[str, Work] = {}
        for level in LEVELS:
            batches = packed(part, sizes[name], level)
            size = sum(len(payload) for payload, _ in batches) / sum(count for _, count in batches)
            print(f"  {level}: {size:.1f} bytes a message")
            works[f"pack, {level}"] = partial(packed, part, sizes[name], level)
            works[f"read, {level}"] = partial(read, batches)
        took = in_turn(works, arguments.rounds)
        print_table(f"{len(batches)} batches", took, {one: f"{one[:4]}, none" for one in took})
    with pipeline() as source:
        ways: dict[str, Work] = {
            f"{name}, {level}": partial(through, source, run, sizes[name], level)
            for name, run in published.items()
            for level in LEVELS[:3]
        }
        in_turn(ways, 1)
        took = in_turn(ways, arguments.rounds)
        print_table("packed, sent, read", took, {one: f"{one.rpartition(', ')[0]}, none" for one in took})
        ratio = statistics.median(ratios(took[f"{PRICES}, none"], took[f"{COLUMNS}, none"]))
        print(f"columns are read {ratio:.1f} times as fast as maps")
    prices = published[PRICES]
    assert isinstance(prices, EncodedMaps)
    cache(prices, sizes[PRICES], arguments.rounds)


if __name__ == "__main__":
    main()
