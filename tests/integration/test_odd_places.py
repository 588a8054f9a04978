"""Broker and command line start where there is no home, no cache and no place to write, or say what to set."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backtestr_engine import kernel_cache
from backtestr_engine.config import load_config
from backtestr_engine.worker.warm_up import warm
from support.harness import RawClient, RunningBroker, short_directory

NOWHERE = "/proc/nope"


@pytest.fixture
def stopped() -> Iterator[RunningBroker]:
    """Make a broker whose data directory has the kernels, so that its first start need not compile them."""
    warm(load_config(None).conventions)
    assert kernel_cache.KERNEL_CACHE is not None
    with short_directory() as home:
        broker = RunningBroker(home)
        kept = broker.data_dir / "kernels" / kernel_cache.KERNEL_CACHE.name
        shutil.copytree(kernel_cache.KERNEL_CACHE, kept)
        for folder in (broker.data_dir, broker.data_dir / "kernels", kept):
            folder.chmod(0o700)
        yield broker


@pytest.mark.timeout(180)
def test_a_broker_without_a_cache_directory_keeps_its_kernels_with_its_data(stopped: RunningBroker) -> None:
    stopped.environment |= {"HOME": NOWHERE, "XDG_CACHE_HOME": NOWHERE}
    with stopped, RawClient(stopped.connection_file) as client:
        client.hello()
        assert client.ask("ListMarketData", {})["series"]
        assert "compiling" not in stopped.log, "it has found the kernels in the data directory"
        assert stopped.stop(signal.SIGTERM) == 0


def test_a_broker_that_has_no_home_says_what_to_set() -> None:
    with short_directory() as home:
        broker = RunningBroker(home)
        broker.environment |= {"HOME": NOWHERE}
        for name in ("BACKTESTR_DATA_DIR", "XDG_DATA_HOME"):
            broker.environment.pop(name, None)
        refused = broker.refused_start()
        assert "cannot be used" in refused
        assert "in BACKTESTR_DATA_DIR" in refused


@pytest.mark.parametrize(
    "variable", ["BACKTESTR_RUNTIME_DIR", "BACKTESTR_DATA_DIR", "BACKTESTR_CONNECTION_FILE", "BACKTESTR_CONFIG_DIR"]
)
def test_a_place_where_nothing_can_be_made_is_named_with_its_variable(variable: str) -> None:
    with short_directory() as home:
        broker = RunningBroker(home)
        place = f"{NOWHERE}/connection.json" if variable == "BACKTESTR_CONNECTION_FILE" else NOWHERE
        broker.environment[variable] = place
        refused = broker.refused_start(2 if variable == "BACKTESTR_CONFIG_DIR" else 1)
        assert place in refused
        assert variable in refused
        assert len(refused.splitlines()) == 1
        assert not Path(NOWHERE).exists()


COMMANDS = [
    ["data"],
    ["data", "--json"],
    ["status"],
    ["top", "--once"],
    ["backtest", "sma_cross", "SYNTH", "--timeframe", "1d"],
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_command_of_a_broker_works_without_streams_and_says_that_its_output_is_full(
    arguments: list[str], broker: RunningBroker
) -> None:
    for streams, code in (("<&- >&- 2>&-", 0), ("2>/dev/full", 0), (">/dev/full", 1)):
        shell = ["/bin/sh", "-c", f'exec "$@" {streams}', "sh", sys.executable, "-m", "backtestr", *arguments]
        ended = subprocess.run(shell, env=broker.environment, capture_output=True, text=True, timeout=60)
        assert ended.returncode == code, f"{streams}: {ended.stderr}"
        assert "Traceback" not in ended.stderr
        if code:
            assert ended.stderr.endswith("standard output cannot be written: No space left on device\n")
