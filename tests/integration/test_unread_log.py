"""A log that nobody reads stops neither broker nor workers, and both end when they are told to."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import signal
import termios
import threading
from collections.abc import Callable, Iterator

import pytest

from backtestr.client import Client
from backtestr.io.connection_file import ConnectionFile
from integration.conftest import ONE_WORKER, stopped_broker
from support.engine.own_algorithms import FAILS_IN_EVERY_WAY
from support.harness import RawClient, RunningBroker

CONFIG = {"broker.toml": ONE_WORKER + '[log]\nlevel = "debug"\n', "engine.toml": "[worker]\nprint_bytes = 8_000_000\n"}


@contextlib.contextmanager
def full_pipe() -> Iterator[tuple[int, int]]:
    """Give both ends of a pipe that takes no more bytes."""
    read_end, write_end = os.pipe()
    fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 4096)
    os.write(write_end, b"." * fcntl.fcntl(write_end, fcntl.F_GETPIPE_SZ))
    yield read_end, write_end
    os.close(read_end)


@contextlib.contextmanager
def stopped_terminal() -> Iterator[tuple[int, int]]:
    """Give both ends of a terminal on which Ctrl-S was typed."""
    read_end, write_end = os.openpty()
    termios.tcflow(write_end, termios.TCOOFF)
    yield read_end, write_end
    os.close(read_end)


Sink = Callable[[], contextlib.AbstractContextManager[tuple[int, int]]]


@pytest.fixture(scope="module")
def unread() -> Iterator[RunningBroker]:
    with stopped_broker(CONFIG) as broker:
        yield broker


def busy(broker: RunningBroker) -> None:
    """Have broker and workers log and print more than any queue holds, and wait for heartbeats meanwhile."""
    with Client(ConnectionFile(broker.connection_file).read()) as client:
        client.register_algorithm(FAILS_IN_EVERY_WAY, "prints")
        for megabytes in (1, 20):
            run = client.backtest("prints", "SYNTH", timeframe="1d", parameters={"megabytes": megabytes})
            assert run.wait().status == "completed"
    with RawClient(broker.connection_file) as raw_client:
        raw_client.hello()
        status = raw_client.subscribe("system", "system.status")
        for _ in range(3):
            raw_client.refused("GetBacktestStatus", {"backtestId": "x"})
            status.until(lambda data: data["status"] in ("healthy", "warning"))


@pytest.mark.parametrize("sink", [full_pipe, stopped_terminal])
def test_a_log_that_nobody_reads_stops_nothing(unread: RunningBroker, sink: Sink) -> None:
    with sink() as (_read_end, write_end):
        unread.start(write_end)
        os.close(write_end)
        busy(unread)
        workers = unread.worker_pids()
        assert unread.stop(signal.SIGTERM) == 0
        assert not [pid for pid in workers if os.path.exists(f"/proc/{pid}")]


def test_the_dropped_lines_are_stated_when_the_log_is_read_again(unread: RunningBroker) -> None:
    with full_pipe() as (read_end, write_end):
        unread.start(write_end)
        os.close(write_end)
        busy(unread)
        found = bytearray()
        while not re.search(rb"[0-9,]+ log lines were dropped: nobody read standard error", found):
            assert select.select([read_end], [], [], 20.0)[0], "the dropped lines are not stated"
            found += os.read(read_end, 1 << 20)
        reader = threading.Thread(target=lambda: [None for _ in iter(lambda: os.read(read_end, 1 << 20), b"")])
        reader.start()
        assert unread.stop(signal.SIGINT) == 0
        reader.join(20.0)


def test_a_broker_without_standard_streams_serves(unread: RunningBroker) -> None:
    """No file that it opens gets their descriptors, and with them the lines of the log."""
    unread.start(closed=True)
    busy(unread)
    assert unread.stop(signal.SIGTERM) == 0
    assert b"backtest_changed" not in (unread.data_dir / "broker.db").read_bytes()
