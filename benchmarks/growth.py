"""This part measures the broker's processor time and memory with more clients, topics and backtests, and idle.

    make bench-growth

Processor time is that of the broker's process, without its workers, divided by the messages that it received: Pings,
always 500 in flight, from one client and from 500; prices of one topic and of 1,000 (by `fake_engine.py`); starts of
backtests while few and while 200 are queued, and Pings beside those. Memory is the resident memory of the process. The
memory a client is what 499 more add, each after some requests, whose answers are remembered. Beside both is a ROUTER
that only echoes, with as many connections. Five times 500 clients come, ask and go; what they leave is measured once
their answers are forgotten, which takes five minutes, and some seconds in the broker of this part.
"""

from __future__ import annotations

import contextlib
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial

import zmq
from brokers import running_broker
from fake_engine import Flood, running_fake
from figures import Figure, Missing, Target, rounds, run_part
from floors import floor
from machine import cpu_seconds, memory_bytes
from pipelined import PipelinedSession
from publishing import TOPIC, Subscribers
from round_trips import UNLIMITED, connect, dealer_to, own_context

from backtestr.client import Client
from backtestr.io.connection_file import ConnectionFile
from backtestr_broker.__main__ import main
from backtestr_broker.core.clients import idempotency
from backtestr_broker.io import freed_memory

CLIENTS = 500
PINGS = 10_000
# Pings of each client before its memory is measured.
PINGS_EACH = 20
WAVES = 5
# Megabytes that clients that came and went may leave; seconds for which answers are kept, and until all is forgotten.
MOST_LEFT_MB = 20.0
KEPT_SECONDS = 5.0
TOPICS = 1_000
PRICES = 5_000
QUEUED = 200
# Starts of backtests that are measured at either end of the queue.
STARTS = 20
ROUNDS = 5
IDLE_SECONDS = 8.0
IDLE_ROUNDS = 3
# File descriptors of this process, for its ends of the connections.
DESCRIPTORS = 8_192
BARE_ONE, BARE_MANY = "an echo, 1 connection", f"an echo, {CLIENTS} connections"
CONFIG = UNLIMITED + "background_per_second = 0\n"


def idle(effort: float) -> list[Figure | Missing]:
    """Measure a broker without clients, with its two workers."""
    with running_broker() as broker:
        time.sleep(2)  # until the start is over
        seconds = IDLE_SECONDS * min(1.0, effort)
        busy = [100 * _spent(broker.pid, lambda: time.sleep(seconds)) / seconds for _ in range(IDLE_ROUNDS)]
        resident = memory_bytes(broker.pid) / 1e6
    part = "An idle broker"
    return [
        Figure(part=part, name="processor", unit="%", values=busy, target=Target(1.0, of="value")),
        Figure(part=part, name="memory", unit="MB", values=[resident], target=Target(120.0, of="value")),
    ]


def clients(effort: float) -> list[Figure | Missing]:
    part = f"From 1 client to {CLIENTS}"
    one, many = "a Ping, 1 client", f"a Ping, {CLIENTS} clients"
    spent: dict[str, list[float]] = {one: [], many: []}
    with running_broker(config=UNLIMITED) as broker, own_context() as context:
        context.set(zmq.MAX_SOCKETS, 2 * CLIENTS + 100)
        connection = ConnectionFile(broker.connection_file).read()
        alone = PipelinedSession(context, connection, "client-0")
        alone.run(PINGS, CLIENTS)
        before = memory_bytes(broker.pid)
        others = [PipelinedSession(context, connection, f"client-{number}") for number in range(1, CLIENTS)]
        everyone = [alone, *others]
        _ask_times(everyone, PINGS_EACH)
        share = (memory_bytes(broker.pid) - before) / (CLIENTS - 1)
        for _ in range(rounds(ROUNDS, effort)):
            spent[one].append(_spent(broker.pid, lambda: alone.run(PINGS, CLIENTS)) / PINGS)
            spent[many].append(_spent(broker.pid, partial(_ask_times, everyone, PINGS // CLIENTS)) / PINGS)
    bare_spent, bare_share = bare(effort)
    return [
        *_per_message(part, bare_spent, BARE_ONE),
        *_per_message(part, spent, one),
        Figure(part=part, name="memory a client, bare ROUTER", unit="kB", values=[bare_share / 1e3]),
        Figure(
            part=part,
            name="memory a client",
            unit="kB",
            values=[share / 1e3],
            beside="memory a client, bare ROUTER",
            target=Target(50.0, of="value"),
        ),
    ]


def come_and_go(effort: float) -> list[Figure | Missing]:
    """Measure the memory that clients leave behind, in brokers of their own: it differs by where the last ones lay."""
    left = [_left_by_waves() for _ in range(max(3, round(5 * effort)))]
    part, name = f"After {WAVES * CLIENTS:,} clients that came and went", "memory left more"
    return [Figure(part=part, name=name, unit="MB", values=left, target=Target(MOST_LEFT_MB, of="value"))]


def _left_by_waves() -> float:
    """Return the MB that a broker has more than before, once it has forgotten the answers of waves of clients."""
    with running_broker(config=UNLIMITED, program=(__file__, "broker")) as broker:
        connection = ConnectionFile(broker.connection_file).read()
        time.sleep(2)  # until the start is over
        before = memory_bytes(broker.pid)
        for wave in range(WAVES):
            with own_context() as context:
                context.set(zmq.MAX_SOCKETS, 2 * CLIENTS + 100)
                names = [f"wave-{wave}-{number}" for number in range(CLIENTS)]
                sessions = [PipelinedSession(context, connection, name) for name in names]
                _ask_times(sessions, PINGS_EACH)
                for session in sessions:
                    session.leave()
        time.sleep(3 * KEPT_SECONDS)  # until the answers are forgotten, and what they took is returned
        return (memory_bytes(broker.pid) - before) / 1e6


def serve_forgetfully() -> int:
    """Run a broker that forgets answers and returns freed memory after seconds."""
    idempotency.KEPT_SECONDS = KEPT_SECONDS
    freed_memory.INTERVAL = KEPT_SECONDS
    sys.argv[1:] = []
    return main()


def _ask_times(sessions: Sequence[PipelinedSession], times: int) -> None:
    """Send one request of each session, all in flight at once, so many times."""
    for _ in range(times):
        for session in sessions:
            session.ask()
        for session in sessions:
            while not session.receive():
                pass


def bare(effort: float) -> tuple[dict[str, list[float]], float]:
    """Measure a ROUTER that only echoes: seconds of processor time a message, and bytes a connection."""
    spent: dict[str, list[float]] = {BARE_ONE: [], BARE_MANY: []}
    with tempfile.TemporaryDirectory(prefix="bt-") as folder, own_context() as context:
        context.set(zmq.MAX_SOCKETS, 2 * CLIENTS + 100)
        address = f"ipc://{folder}/echo"
        with floor("echo", address) as process:
            alone = [dealer_to(context, address)]
            _echo_times(alone * CLIENTS, 1)
            before = memory_bytes(process.pid)
            everyone = alone + [dealer_to(context, address) for _ in range(CLIENTS - 1)]
            _echo_times(everyone, PINGS_EACH)
            share = (memory_bytes(process.pid) - before) / (CLIENTS - 1)
            times = PINGS // CLIENTS
            for _ in range(rounds(ROUNDS, effort)):
                for name, dealers in ((BARE_ONE, alone * CLIENTS), (BARE_MANY, everyone)):
                    echo = partial(_echo_times, dealers, times)
                    spent[name].append(_spent(process.pid, echo) / PINGS)
    return spent, share


def _echo_times(dealers: Sequence[zmq.Socket[bytes]], times: int) -> None:
    for _ in range(times):
        for dealer in dealers:
            dealer.send(bytes(200))
        for dealer in dealers:
            dealer.recv()


def topics(effort: float) -> list[Figure | Missing]:
    part = f"From 1 topic to {TOPICS:,}"
    one, many = "a price, 1 topic", f"a price, {TOPICS:,} topics"
    spent: dict[str, list[float]] = {one: [], many: []}
    with own_context() as context, running_fake(context) as engine:
        address = ConnectionFile(engine.broker.connection_file).read().endpoints.prices
        floods = {one: Flood(topic=TOPIC), many: Flood(topic=TOPIC, topics=TOPICS)}

        def publisher(flood: Flood) -> Callable[[int], None]:
            return lambda messages: engine.publish(Flood(topic=flood.topic, topics=flood.topics, messages=messages))

        for name, flood in floods.items():
            subscribers = Subscribers(context, address, 1, publisher(flood))
            for _ in range(rounds(ROUNDS, effort)):
                spent[name].append(_spent(engine.broker.pid, partial(subscribers.burst, PRICES)) / PRICES)
            subscribers.close()
    return _per_message(part, spent, one)


def queue(effort: float) -> list[Figure | Missing]:
    """Measure backtests that wait for a worker which never ends its own."""
    part = f"From 1 queued backtest to {QUEUED}"
    first, last = f"a start, {STARTS} wait", f"a start, {QUEUED} wait"
    few, many = f"a Ping, {STARTS} wait", f"a Ping, {QUEUED} wait"
    starts: dict[str, list[float]] = {first: [], last: []}
    pings: dict[str, list[float]] = {few: [], many: []}
    for _ in range(rounds(3, effort)):
        with own_context() as context, running_fake(context, CONFIG) as engine, connect(engine.broker) as client:
            pid = engine.broker.pid
            connection = ConnectionFile(engine.broker.connection_file).read()
            pinger = PipelinedSession(context, connection)
            pinger.run(PINGS // 2, CLIENTS)
            starts[first].append(_spent(pid, partial(_start, client, 0, STARTS)) / STARTS)
            pings[few].append(_spent(pid, partial(pinger.run, PINGS, CLIENTS)) / PINGS)
            _start(client, STARTS, QUEUED - STARTS)
            starts[last].append(_spent(pid, partial(_start, client, QUEUED - STARTS, QUEUED)) / STARTS)
            pings[many].append(_spent(pid, partial(pinger.run, PINGS, CLIENTS)) / PINGS)
    return [*_per_message(part, starts, first), *_per_message(part, pings, few)]


def _start(client: Client, begin: int, end: int) -> None:
    for number in range(begin, end):
        client.backtest(
            "any",
            "SYNTH",
            timeframe="1m",
            start="2024-01-01",
            end="2025-01-01",
            watch=(),
            backtest_id=f"queued-{number}",
        ).abandon()


def _spent(pid: int, work: Callable[[], object]) -> float:
    """Return the seconds of processor time that the process spent during the work."""
    before = cpu_seconds(pid)
    work()
    return cpu_seconds(pid) - before


def _per_message(part: str, spent: dict[str, list[float]], least: str) -> list[Figure | Missing]:
    return [
        Figure(
            part=part,
            name=name,
            unit="µs",
            values=[1e6 * seconds for seconds in values],
            beside=None if name == least else least,
        )
        for name, values in spent.items()
    ]


def measure(effort: float) -> list[Figure | Missing]:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = idle(effort)
    if most != resource.RLIM_INFINITY and most < 4 * CLIENTS:
        found.append(Missing(f"From 1 client to {CLIENTS}", f"a process may have {most} files open (ulimit -Hn)"))
    else:
        with contextlib.suppress(ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, most))
        found += clients(effort)
        found += come_and_go(effort)
    return [*found, *topics(effort), *queue(effort)]


if __name__ == "__main__":
    if sys.argv[1:] == ["broker"]:
        sys.exit(serve_forgetfully())
    run_part(__doc__, measure)
