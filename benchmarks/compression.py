"""This program measures compression and columns on one machine: bytes, time, and time until all is read.

    make bench-batching

The messages are those of a backtest on synthetic minutes: its prices, and its orders. Each form of them is packed and
read in turn, then sent from worker to reader over ipc (`pipeline.py`). At the end a cache of compressed batches is
tried on two backtests that publish the same prices: how often it has a batch, and how much time it costs otherwise.
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
from backtestr_protocol.envelopes import Payload
from backtestr_protocol.messages import StreamOptions
from backtestr_protocol.payload_compression import Level, Priority, compress
from backtestr_protocol.worker_channel import Published

PRICES, COLUMNS, ORDERS = "prices", "prices as columns", "orders"
LEVELS: tuple[Level, ...] = ("none", "fast", "balanced", "maximum")
# Batches of 100 KB in a cache for which a worker could spare the memory.
CACHE_BATCHES = 256

_payload_decoder = msgspec.msgpack.Decoder(Payload)
_numbers = itertools.count(1)

Batch = tuple[bytes, int]
"""A payload and the number of its messages."""


def messages_of(bars_count: int) -> dict[str, Messages]:
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


def packed(messages: Messages, size: int, level: Level) -> list[Batch]:
    """Return full batches of `messages` at that level."""
    options = msgspec.structs.replace(load_config(None).compression, enabled=level != "none", fast_from_bytes=1)
    packer = Packer(options, time.perf_counter)
    cuts = [messages.cut(first, first + size) for first in range(0, len(messages) - size + 1, size)]
    return [(packer.payload([cut], size, PRIORITIES[level], 1), size) for cut in cuts]


def read(batches: list[Batch]) -> int:
    """Decode every batch as the client does: messages except for their own fields, columns to one table."""
    found = [open_payload(_payload_decoder.decode(payload)) for payload, _ in batches]
    if columns := [one for one in found if isinstance(one, PriceColumns)]:
        join_columns(columns).frame(1)
    return len(found)


def through(source: Source, messages: Messages, size: int, level: Level) -> None:
    """Pack messages, and wait until a reader has all of them."""
    topic = f"prices.N{next(_numbers)}.1m"
    batches = packed(messages, size, level)
    source.send([(Published(topic=topic, count=count), payload) for payload, count in batches])
    source.arrived(topic, size * len(batches))


class Cache:
    """A cache of compressed batches by their bytes, bounded in batches; it is only tried here, not in the product."""

    def __init__(self) -> None:
        self._batches: OrderedDict[bytes, bytes] = OrderedDict()
        self.hits = self.misses = 0

    def compressed(self, level: Level, raw: bytes) -> bytes:
        if (found := self._batches.get(raw)) is not None:
            self._batches.move_to_end(raw)
            self.hits += 1
            return found
        self.misses += 1
        made = self._batches[raw] = compress(level, raw)[1]
        if len(self._batches) > CACHE_BATCHES:
            self._batches.popitem(last=False)
        return made


def cache(messages: EncodedMaps, size: int, rounds: int) -> None:
    """Try the cache on two backtests that publish `messages`, with the same batches, and with shifted ones."""

    def cut(first: int) -> list[bytes]:
        starts = range(first, len(messages) - size + 1, size)
        return [messages.between(start, start + size) for start in starts]

    for level in ("fast", "balanced"):
        for name, second in (("the same batches", 0), ("batches cut elsewhere", 17)):
            batches = cut(0) + cut(second)
            found: list[Cache] = []

            def cached(batches: list[bytes] = batches, level: Level = level, found: list[Cache] = found) -> None:
                found.append(Cache())
                for one in batches:
                    # Every batch is a new object, so its hash is not computed yet.
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
    published = messages_of(arguments.bars)
    for name, messages in published.items():
        print(f"{name}: {len(messages):,} messages in batches of {sizes[name]:,}")
        # The slowest level would take minutes for all messages.
        part = messages.cut(0, min(len(messages), 20 * sizes[name]))
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
            f"{name}, {level}": partial(through, source, messages, sizes[name], level)
            for name, messages in published.items()
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
