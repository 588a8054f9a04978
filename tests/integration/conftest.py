"""Brokers that the tests share: a start costs two seconds, so a test has a broker of its own only if it must.

A test uses names of its own (backtests, keys of the shared state, symbols), and compares counts with those before it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import pytest

from support.engine.own_algorithms import BAD, GATED, GREEDY, OWN
from support.harness import ROOT, RawClient, RunningBroker, running_broker, short_directory

# Heartbeats ten times a second, so that no test waits long for the next. Raw clients send no pings: their sessions last
# two minutes.
QUICK = "[limits]\nheartbeat_interval_ms = 100\nwatermark_interval_ms = 50\nsession_timeout_ms = 120_000\n"
ONE_WORKER = QUICK + "[workers]\ncompute = 1\n"
TCP = '[transport]\nkind = "tcp"\n'
PLAIN_TCP = TCP + "tcp_readable_by_local_users = true\n"
TWENTY_BARS = "[worker]\nchunk_bars = 20\n"
# Long enough for sources that do nothing on a busy machine, and short enough to wait for those that do not end.
SHORT_LOAD_LIMIT = "[algorithms]\nload_time_limit_ms = 3000\n"

# The fixtures that start a broker for several tests. Tests that use the same one run in one process of pytest-xdist, so
# that it is started once.
SHARED_BROKERS = (
    "mortal_broker",
    "mortal_slow_broker",
    "tcp_broker",
    "plain_tcp_broker",
    "algorithms_broker",
    "hostile_broker",
    "portable",
    "evaluating_broker",
    "embedded",
    "lent_broker",
    "stopped_recorder",
    "far_broker",
    "target",
    "vault",
    "watched",
    "broker",
)


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the marks in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group the tests by the first shared broker that each uses."""
    for item in items:
        if (shared := shared_broker_of(item)) is not None:
            item.add_marker(pytest.mark.xdist_group(shared))


def shared_broker_of(item: pytest.Item) -> str | None:
    """Return the fixture of the shared broker that a test is grouped by."""
    return next((name for name in SHARED_BROKERS if name in fixtures_of(item)), None)


def fixtures_of(item: pytest.Item) -> Collection[str]:
    return getattr(item, "fixturenames", ())


# The brokers that live as long as the session, by their fixtures.
_of_session: dict[str, RunningBroker] = {}


@contextlib.contextmanager
def kept(name: str, broker: RunningBroker) -> Iterator[RunningBroker]:
    """Let a broker of the session rest while tests of other groups run: ten that are idle take a tenth of a core."""
    _of_session[name] = broker
    try:
        yield broker
    finally:
        del _of_session[name]


@pytest.hookimpl(trylast=True)  # after the fixtures of the test, which may still need it
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Stop the brokers of the session after the last test of a group."""
    if nextitem is None or shared_broker_of(item) == shared_broker_of(nextitem):
        return
    for name, broker in _of_session.items():
        if broker.is_running and name not in fixtures_of(nextitem):
            broker.stop()


@pytest.hookimpl(tryfirst=True)  # before the fixtures of the test
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Start a broker again that was stopped too early: a test of two groups came between."""
    for name, broker in _of_session.items():
        if name in fixtures_of(item):
            running_again(broker)


@pytest.fixture(scope="session")
def broker() -> Iterator[RunningBroker]:
    """Run a broker that the tests leave as they found it, on an empty catalogue, so with the SYNTH series."""
    with running_broker({"broker.toml": QUICK}) as running, kept("broker", running):
        yield running


@pytest.fixture
def raw_client(broker: RunningBroker) -> Iterator[RawClient]:
    """Connect a raw client to that broker and open a session."""
    with RawClient(broker.connection_file) as client:
        client.hello()
        yield client


@contextlib.contextmanager
def stopped_broker(config: Mapping[str, str]) -> Iterator[RunningBroker]:
    """Make a broker that its tests start; at the end it is stopped, if it still runs."""
    with short_directory() as home, contextlib.ExitStack() as stack:
        broker = RunningBroker(home, config)
        stack.push(broker)
        yield broker


def running_again(broker: RunningBroker) -> RunningBroker:
    """Start a broker unless it runs."""
    if not broker.is_running:
        broker.start()
    return broker


@pytest.fixture(scope="session")
def mortal_broker() -> Iterator[RunningBroker]:
    with stopped_broker({"broker.toml": QUICK}) as broker, kept("mortal_broker", broker):
        yield broker


@pytest.fixture
def own_broker(mortal_broker: RunningBroker) -> RunningBroker:
    """Give the test a running broker that it may stop, kill and start again, and whose workers it may kill."""
    return running_again(mortal_broker)


@pytest.fixture(scope="session")
def mortal_slow_broker() -> Iterator[RunningBroker]:
    config = {"broker.toml": ONE_WORKER, "engine.toml": "[worker]\nchunk_bars = 1\n"}
    with stopped_broker(config) as broker, kept("mortal_slow_broker", broker):
        yield broker


@pytest.fixture
def slow_broker(mortal_slow_broker: RunningBroker) -> RunningBroker:
    """Give the test such a broker with one compute worker that simulates bar by bar: a backtest takes seconds."""
    return running_again(mortal_slow_broker)


@pytest.fixture(scope="session")
def tcp_broker() -> Iterator[RunningBroker]:
    """Run a broker over TCP with one compute worker, which simulates 20 bars at a time and which a test may kill."""
    config = {"broker.toml": ONE_WORKER + TCP, "engine.toml": TWENTY_BARS}
    with running_broker(config) as running, kept("tcp_broker", running):
        yield running


@pytest.fixture(scope="session")
def plain_tcp_broker() -> Iterator[RunningBroker]:
    """Run such a broker without encryption, for peers that speak ZeroMQ's protocol without libzmq."""
    config = {"broker.toml": ONE_WORKER + PLAIN_TCP, "engine.toml": TWENTY_BARS}
    with running_broker(config) as running, kept("plain_tcp_broker", running):
        yield running


@pytest.fixture(scope="session")
def algorithms_broker() -> Iterator[RunningBroker]:
    """Run a broker with the algorithms of `support/engine/own_algorithms.py`, and with workers of 3 GiB.

    The algorithm `gated` waits for the file `open` beside the data directory.
    """
    engine = f"{SHORT_LOAD_LIMIT}[worker]\nmemory_limit_bytes = {3 << 30}\n"
    config = {"broker.toml": ONE_WORKER, "engine.toml": engine}
    with stopped_broker(config) as broker, kept("algorithms_broker", broker):
        gated = GATED.format(gate=str(broker.data_dir.parent / "open"))
        for name, source in (("own", OWN), ("bad", BAD), ("greedy", GREEDY), ("gated", gated)):
            with_algorithm(broker, name, source)
        broker.start()
        yield broker


def with_algorithm(broker: RunningBroker, name: str, source: str) -> Path:
    """Write a file of algorithms into the broker's folder and return its path."""
    file = broker.data_dir / "algorithms" / f"{name}.py"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(source, "utf-8")
    return file


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real market data: `$BACKTESTR_TEST_DATA`, else `shared/data` beside the checkout."""
    folder = Path(os.environ.get("BACKTESTR_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real market data in {folder}; name a folder in BACKTESTR_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def goog_csv() -> Path:
    """Return the file of GOOG daily, 2,148 bars, that the `backtesting` wheel carries."""
    spec = importlib.util.find_spec("backtesting")
    if spec is None or spec.origin is None:
        pytest.skip("the backtesting wheel, whose GOOG series this runs on, is not installed")
    return Path(spec.origin).parent / "test" / "GOOG.csv"
