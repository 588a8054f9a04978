"""A real broker publishes prices: of price replays that outlive their workers, of backtests and of a feed."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import backtestr
from backtestr.cli.app import app
from support.harness import ROOT, RawClient, RunningBroker, dense, wait_until

SECONDS = 60


@pytest.fixture
def client(broker: RunningBroker) -> Iterator[backtestr.Client]:
    with backtestr.connect(connection_file=broker.connection_file) as connected:
        yield connected


def test_bars_come_once_each_though_the_workers_that_publish_them_are_killed(own_broker: RunningBroker) -> None:
    with backtestr.connect(connection_file=own_broker.connection_file) as client:
        pids = {one.worker_id: one.pid for one in client.status().workers}
        expected = client.market_data("SYNTH", "1m")["timestamp"].dt.timestamp("ms").to_list()
        daily = client.market_data("SYNTH", "1d")["timestamp"].dt.timestamp("ms").to_list()
        simulated = client.subscribe("prices.SYNTH.1d", history=True)
        run = client.backtest(
            "sma_cross", "SYNTH", timeframe="1d", pace=len(daily) / 2, streams={"prices": True}, watch=()
        )
        replay = client.replay("SYNTH", "1m", bars_per_second=len(expected) / 2)
        prices = iter(replay)
        heard = [next(prices).timestamp for _ in range(len(expected) // 10)]
        os.kill(pids["interactive-1"], signal.SIGKILL)
        os.kill(pids["compute-1"], signal.SIGKILL)
        heard += [price.timestamp for price in prices]
        assert heard == expected
        wait_until(lambda: replay.status().status == "completed", SECONDS)
        seen = [simulated.next(SECONDS) for _ in daily]
        assert [one.data.timestamp for one in seen if isinstance(one, backtestr.Update)] == daily
        assert {one.data.backtest_id for one in seen if isinstance(one, backtestr.Update)} == {run.id}
        assert run.wait(SECONDS).status == "completed"
        again = client.backtest("sma_cross", "SYNTH", timeframe="1d", watch=())
        assert run.result().metrics == again.result().metrics, "a pace and a lost worker change no result"


def test_the_example_of_the_page_prints_the_output_below_it(broker: RunningBroker) -> None:
    page = (ROOT / "docs" / "prices.md").read_text("utf-8")
    found = re.search(r"```python\n(?P<code>.+?)```\n\n```\n(?P<output>.+?)```", page, re.DOTALL)
    assert found is not None, "docs/prices.md has no example followed by its output"
    command = [sys.executable, "-c", found["code"]]
    ran = subprocess.run(command, env=broker.environment, capture_output=True, text=True, timeout=SECONDS, check=True)
    assert (ran.stdout, ran.stderr) == (found["output"], "")


def test_a_price_replay_as_fast_as_read_loses_nothing_with_a_slow_reader(client: backtestr.Client) -> None:
    series = next(one for one in client.list_market_data() if (one.symbol, one.timeframe) == ("SYNTH", "1m"))
    before = client.statistics.messages_lost
    with client.replay("SYNTH", "1m", as_fast_as_read=True) as replay:
        first = replay.next(SECONDS)
        assert first is not None
        wait_until(lambda: replay.status().position == 10_000, SECONDS)  # it waits for credit there
        assert 1 + len(list(replay)) == series.bars == replay.bars
    assert client.statistics.messages_lost == before


def test_a_pause_is_exact_and_others_may_watch(client: backtestr.Client, raw_client: RawClient) -> None:
    watching = raw_client.subscribe("prices", "prices.SYNTH.1h")
    with client.replay("SYNTH", "1h", bars_per_second=20) as replay:
        times = [one.timestamp for _ in range(2) if (one := replay.next(SECONDS)) is not None]
        replay.pause()
        paused_at = replay.status().position
        assert paused_at == replay.status().position
        replay.resume()
        times += [one.timestamp for _ in range(paused_at) if (one := replay.next(SECONDS)) is not None]
        replay.stop()
        times += [price.timestamp for price in replay]
        status = replay.status()
    assert (status.status, status.position) == ("stopped", len(times))
    assert {later - earlier for earlier, later in itertools.pairwise(times)} == {3_600_000}
    assert status.last_seq is not None
    mine = [one for one in dense(raw_client, watching, status.last_seq) if one.get("replayId") == replay.id]
    assert [one["timestamp"] for one in mine] == times


def test_the_command_line_prints_prices_until_ctrl_c(broker: RunningBroker, client: backtestr.Client) -> None:
    command = [sys.executable, "-m", "backtestr", "replay", "SYNTH", "--timeframe", "1m", "--json"]
    with subprocess.Popen(
        [*command, "--speed", "6000"], env=broker.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        prices = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert said.startswith("stopped at ")
    assert [one["timestamp"] - prices[0]["timestamp"] for one in prices] == [0, 60_000, 120_000]
    [replay] = [one for one in client.list_replays() if one.replay_id == prices[0]["replayId"]]
    assert (replay.status, replay.speed) == ("stopped", 6000.0)


def test_the_command_line_lists_and_stops_replays_and_paces_backtests(
    broker: RunningBroker, client: backtestr.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in broker.environment.items():
        monkeypatch.setenv(name, value)
    runner = CliRunner()

    def run(*arguments: str) -> Result:
        return runner.invoke(app, arguments)

    replay = client.replay("SYNTH", "1m", speed=1)
    assert replay.id in run("replays").stdout
    stopped = json.loads(run("replays", "--stop", replay.id, "--json").stdout)
    assert [one["status"] for one in stopped if one["replayId"] == replay.id] == ["stopped"]
    assert run("replays", "--stop", "nothing").exit_code == 1
    assert "give one of" in run("replay", "SYNTH", "--timeframe", "1m").output
    assert run("replay", "SYNTH", "--timeframe", "1m", "--speed", "-1").exit_code == 1
    printed = run("replay", "SYNTH", "--timeframe", "1h", "--as-fast-as-read").stdout
    assert len(printed.splitlines()) == client.describe_market_data("SYNTH", "1h").bars
    paced = run("backtest", "buy_and_hold", "SYNTH", "--timeframe", "1d", "--pace", "5000", "--json")
    assert json.loads(paced.stdout)["config"]["options"]["pace"] == 5000.0


class Feed:
    """This process runs `examples/csv_feed.py` on a file."""

    def __init__(self, broker: RunningBroker, file: Path, *options: str) -> None:
        command = [sys.executable, str(ROOT / "examples" / "csv_feed.py"), str(file), "FEED", *options]
        self.process = subprocess.Popen(command, env=broker.environment, stderr=subprocess.PIPE, text=True)
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.said.extend(iter(self.process.stderr.readline, ""))

    def hears(self, text: str) -> None:
        wait_until(lambda: any(text in line for line in self.said) or self.process.poll() is not None, SECONDS)
        assert any(text in line for line in self.said), self.said

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        """End it, unless it has ended, and return its exit code."""
        assert self.process.stderr is not None
        self.process.send_signal(number)
        code = self.process.wait(SECONDS)
        self._reader.join(SECONDS)
        self.process.stderr.close()
        return code


@pytest.fixture
def start_feed(broker: RunningBroker) -> Iterator[Callable[..., Feed]]:
    """Start feeds with a file and options; they end with the test, also if that fails."""
    with contextlib.ExitStack() as stack:

        def start(file: Path, *options: str) -> Feed:
            feed = Feed(broker, file, *options)
            stack.callback(feed.end, signal.SIGKILL)
            feed.hears("following")
            return feed

        yield start


def test_a_feed_follows_a_file_that_grows_is_cut_short_and_replaced(
    start_feed: Callable[..., Feed], client: backtestr.Client, tmp_path: Path
) -> None:
    file = tmp_path / "quotes.csv"
    file.write_text("timestamp,bid,ask\n1,0.5,0.6\n2,0.7,")  # the first row is old, the second not complete
    heard = client.subscribe("prices.FEED.tick", history=True)

    def bids(count: int) -> list[float]:
        updates = [heard.next(SECONDS) for _ in range(count)]
        return [one.data.bid for one in updates if isinstance(one, backtestr.Update)]

    feed = start_feed(file)
    with file.open("a") as growing:
        for text in ("0.8\n", "3,1.0", "0,1.1\nnonsense\n4,nan,1\n2024-01-02T03:04:05Z,1.2,1.3\n5,1.4"):
            growing.write(text)
            growing.flush()
    assert bids(3) == [0.7, 1.0, 1.2]
    feed.hears("left out: nonsense")
    feed.hears("$.prices[0].bid: expected `float` >= -1e+300; a finite number")
    file.write_text("last,timestamp,volume\n")  # cut short, with other columns
    feed.hears("is read from its start again")
    with file.open("a") as growing:
        growing.write("9,6,2.5\n")
    assert bids(1) == [9.0]
    other = tmp_path / "other.csv"
    other.write_text("timestamp,last\n" + "".join(f"{number},{number}\n" for number in range(1_200)))
    with file.open("a") as growing:
        growing.write("10,7,0\n")  # the last line of the old file
    other.replace(file)
    assert bids(1_201) == [10.0, *range(1_200)]
    assert feed.end() == 0


def test_a_feed_can_begin_with_the_rows_there_are(
    start_feed: Callable[..., Feed], client: backtestr.Client, tmp_path: Path
) -> None:
    file = tmp_path / "bars.csv"
    rows = "".join(f"{number},{number}\n" for number in range(30_000))
    file.write_text(f"timestamp,last\n{rows}{'x' * 200_000}\n{30_000},{30_000}\n")
    feed = start_feed(file, "--from-start", "--timeframe", "1m")
    feed.hears("a line of more than")
    heard = client.subscribe("prices.FEED.1m", history=True)
    last = 0.0
    while last < 30_000.0:
        update = heard.next(SECONDS)
        last = update.data.last if isinstance(update, backtestr.Update) else last
    assert isinstance(update, backtestr.Update)
    assert update.seq == 30_001
    assert feed.end() == 0
