"""This part measures how late a progress message is while broker and engine are fully loaded.

    make bench-load

A worker that only publishes (`fake_engine.py`) floods the prices, singly or in batches as large as the engine's (as
columns, which the Python client asks for, and as maps), and sends a progress message every 5 ms to one client. The time
is from before the engine encodes it until the client returns it, on one clock, including the wait in the queues between
worker and broker. Beside it is the same without the flood.
"""

from __future__ import annotations

import contextlib
import time

from fake_engine import FakeEngine, Flood, running_fake
from figures import Figure, Missing, Target, percentile, rounds, run_part
from round_trips import connect, own_context

from backtestr.client import Client
from backtestr.core.updates import Update
from backtestr.subscription import Subscription
from backtestr_protocol import topics
from backtestr_protocol.errors import TimedOut
from backtestr_protocol.stream_messages import BacktestProgress

ROUNDS = 7
SECONDS = 1.0
PROGRESS_MS = 5.0
# The most messages of one batch: `[batching.prices] max_messages` in config/engine.toml.
BATCH = 1_000
PART = f"From engine to client, a progress message every {PROGRESS_MS:g} ms"
ALONE = "alone"
COLUMNS = f"beside batches of {BATCH:,}, columns"
MAPS = f"beside batches of {BATCH:,}, maps"
FLOODS = {
    ALONE: Flood(topic="", seconds=SECONDS, progress_ms=PROGRESS_MS),
    "beside single prices": Flood(topic="prices.BTCPERP.1m", seconds=SECONDS, progress_ms=PROGRESS_MS),
    COLUMNS: Flood(topic="prices.BTCPERP.1m", batch=BATCH, columns=True, seconds=SECONDS, progress_ms=PROGRESS_MS),
    MAPS: Flood(topic="prices.BTCPERP.1m", batch=BATCH, seconds=SECONDS, progress_ms=PROGRESS_MS),
}
# Seconds within which the last message of a round must come.
PATIENCE = 5.0
# The least number of messages of a round for its p99.
ENOUGH = 20


def lateness(subscription: Subscription, engine: FakeEngine, flood: Flood) -> list[float]:
    """Return the microseconds that every progress message of one flood took."""
    engine.publish(flood)
    late: list[float] = []
    end = time.monotonic() + SECONDS + PATIENCE
    with contextlib.suppress(TimedOut):
        while time.monotonic() < end:
            update = subscription.next(PATIENCE if not late else SECONDS / 2)
            now = time.monotonic_ns()
            if isinstance(update, Update) and isinstance(update.data, BacktestProgress):
                late.append((now - update.data.current_time) / 1000)
    if len(late) < ENOUGH:
        raise RuntimeError(f"only {len(late)} progress messages came")
    return late


def start(client: Client) -> str:
    """Start a backtest, which the fake engine never ends, and return its id."""
    run = client.backtest(
        "any", "SYNTH", timeframe="1m", start="2024-01-01", end="2025-01-01", watch=(), backtest_id="load"
    )
    run.abandon()
    return "load"


def measure(effort: float) -> list[Figure | Missing]:
    late: dict[str, list[list[float]]] = {name: [] for name in FLOODS}
    with own_context() as context, running_fake(context) as engine, connect(engine.broker) as client:
        topic = topics.progress(start(client))
        with client.subscribe(topic, history=True) as subscription:
            for number in range(rounds(ROUNDS, effort) + 1):
                for name, flood in FLOODS.items():
                    found = lateness(subscription, engine, flood)
                    if number:  # the first is for warming up
                        late[name].append(found)
    return [
        Figure(
            part=PART,
            name=f"{name} {label}",
            unit="µs",
            values=[percentile(one, percent) for one in found],
            beside=None if name == ALONE else f"{ALONE} {label}",
            target=Target(1000.0, of="value") if name in (COLUMNS, MAPS) and label == "p50" else None,
        )
        for label, percent in (("p50", 50), ("p99", 99))
        for name, found in late.items()
    ]


if __name__ == "__main__":
    run_part(__doc__, measure)
