"""A late reader of a backtest's streams fetches, from number 1, what a live subscriber got, whatever happened between.

Core and task runner are joined without sockets. Listeners come and go, messages are on their way when they do, the
backtest is paused, its worker is lost, and the broker is restarted. The next worker goes on from a checkpoint, if the
lost one has written any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_engine.backtest.checkpoint_store import CheckpointStore
from backtestr_engine.backtest.result_store import ResultStore
from backtestr_engine.config import load_config
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.publishing import stream_pages
from backtestr_engine.worker import checkpoints
from backtestr_engine.worker.task_runner import TaskRunner
from backtestr_protocol import topics
from support.broker.clients import Client
from support.engine.batches import batcher
from support.engine_link import EngineLink, numbered
from support.protocol.independent import Fields

TOPICS = topics.of_backtest("b1")
RETAINED = 12
BARS = 120
TIMES = synthetic_bars("1d", BARS).timestamp

CONFIGS: list[Fields] = [
    {"parameters": {"fast": 2, "slow": 4}},
    {"parameters": {"fast": 3, "slow": 9}, "symbols": ["SYNTH", "MORE"]},
    {"algorithmId": "buy_and_hold"},
]

actions = st.lists(
    st.one_of(
        st.tuples(st.just("work"), st.integers(1, 6)),
        st.tuples(st.just("deliver"), st.integers(1, 5)),
        st.tuples(st.sampled_from(["subscribe", "unsubscribe"]), st.sampled_from(range(3))),
        st.tuples(st.sampled_from(["Pause", "Resume", "lose", "heartbeat", "restart"]), st.just(0)),
        st.tuples(st.just("fetch"), st.integers(1, 60)),
        st.tuples(st.sampled_from(["work and lose", "work and restart"]), st.integers(1, 6)),
    ),
    max_size=30,
)
streams = st.fixed_dictionaries(
    {"progressIntervalMs": st.sampled_from([1, 40, 10_000])},
    optional={"marks": st.booleans(), "orders": st.booleans(), "positions": st.booleans()},
)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    catalog = Catalog(tmp_path_factory.mktemp("bars"), cache_bytes=1 << 20)
    catalog.write(synthetic_bars("1d", BARS))
    catalog.write(synthetic_bars("1d", BARS, symbol="MORE"))
    return catalog


@pytest.fixture(autouse=True, scope="module")
def _small() -> Iterator[None]:
    """Have rings and pages that a short backtest exceeds."""
    with pytest.MonkeyPatch.context() as patch:
        small = [
            msgspec.structs.replace(one, retained=RETAINED) if topics.backtest_of(f"{one.prefix}x") else one
            for one in topics.CLASSES
        ]
        patch.setattr(topics, "CLASSES", tuple(small))
        patch.setattr(stream_pages, "BATCH", 5)
        patch.setattr(stream_pages, "PAGE", 15)
        yield


class Streamed:
    """A backtest on an engine's worker, and what was seen of its streams under one start of the broker."""

    def __init__(self, new_runner: Callable[[], TaskRunner], changes: Fields) -> None:
        self.link = EngineLink(new_runner)
        self.client = self.link.client()
        asked = {
            "backtestId": "b1",
            "algorithmId": "sma_cross",
            "symbol": "SYNTH",
            "startDate": "2000-01-01",
            "endDate": "2100-01-01",
            "initialCapital": 100_000.0,
            "timeframe": "1d",
            "commission": 0.001,
            "slippage": 0.0,
            "parameters": {},
            **changes,
        }
        if "symbols" in asked:
            del asked["symbol"]
        self.client.ask("StartBacktest", asked)
        self.fetched: list[tuple[str, dict[int, Fields]]] = []
        self.earlier: list[tuple[str, dict[int, Fields]]] = []  # seen under earlier brokers, and still true

    def do(self, action: str, number: int) -> None:
        link = self.link
        match action:
            case "work":
                for _ in range(number):
                    link.compute.work()
            case "deliver":
                link.compute.deliver(number)
            case "subscribe":
                topic = TOPICS[number]
                link.subscribe("ann", topics.socket_of(topic), topic.encode())
            case "unsubscribe":
                topic = TOPICS[number]
                link.unsubscribe("ann", topics.socket_of(topic), topic.encode())
            case "work and lose" | "work and restart":
                self.do("work", number)
                self.do("deliver", 3 * number)
                self.do(action.removeprefix("work and "), 0)
            case "heartbeat":
                link.advance(1.5)
            case "Pause" | "Resume":
                self.client.send(f"{action}Backtest", {"backtestId": "b1"})
            case "lose":
                link.lose_worker(link.compute)
            case "restart":
                self.forget_what_began_again()
                self.earlier += [*link.heard().items(), *self.fetched]
                link.restart_broker()
                self.client = link.client()
                self.fetched.clear()
            case "fetch":
                for topic in TOPICS:
                    self._fetch(topic, number)
        link.core.check_invariants()

    def _fetch(self, topic: str, from_seq: int) -> None:
        """Fetch once, wherever the backtest is; an answer that is refused says that the worker was lost."""
        self.link.named += 1
        request_id = f"fetch-{self.link.named}"
        self.client.send("FetchMissed", {"topic": topic, "fromSeq": from_seq}, message_id=request_id)
        self.link.compute.work()
        self.link.compute.deliver(1_000)
        for payload in self.client.answers(request_id):
            if payload["type"] == "Success":
                self.fetched.append((topic, messages_in(payload["data"])))
            else:
                assert payload["data"]["code"] in ("BUSY", "NOT_FOUND"), payload

    def forget_what_began_again(self) -> None:
        """Forget what may come otherwise under a later broker.

        If the backtest began again, that is progress and positions; if it went on from a checkpoint, positions behind
        the last progress, since there may be a mark before them now.
        """
        for bars in self.link.goes_on:
            until = -1 if not bars else int(TIMES[bars - 1]) // 1000
            self.earlier = [
                (
                    topic,
                    {
                        seq: one
                        for seq, one in messages.items()
                        if topic != TOPICS[2] or one["data"]["timestamp"] <= until
                    },
                )
                for topic, messages in self.earlier
                if topic == TOPICS[1] or bars is not None
            ]
        self.link.goes_on.clear()

    def end(self) -> str:
        """Let the backtest come to its end, and return its status."""
        self.client.send("ResumeBacktest", {"backtestId": "b1"})
        self.link.settle()
        status: str = self.client.ask("GetBacktestStatus", {"backtestId": "b1"})["status"]
        return status


def messages_in(missed: Fields) -> dict[int, Fields]:
    found: dict[int, Fields] = {}
    for one in missed["messages"]:
        found |= numbered(one["seq"], one["payload"])
    return found


def everything(client: Client, topic: str) -> dict[int, Fields]:
    """Fetch a topic from its first message, page by page."""
    found: dict[int, Fields] = {}
    while True:
        missed = client.ask("FetchMissed", {"topic": topic, "fromSeq": len(found) + 1})
        if not missed["messages"]:
            assert missed["toSeq"] == len(found)
            return found
        assert missed["oldestSeq"] == 1, topic
        found |= messages_in(missed)
        assert sorted(found) == list(range(1, missed["toSeq"] + 1)), f"{topic} is not dense"


@settings(max_examples=60, deadline=None)
@given(
    config=st.sampled_from(CONFIGS),
    streams=streams,
    chunks=st.lists(st.sampled_from([7, 11, 30, 1000]), min_size=1, max_size=3),
    interval=st.sampled_from([0.0, 0.025, 0.25]),
    actions=actions,
)
def test_a_late_reader_gets_what_live_ones_got(
    catalog: Catalog,
    config: Fields,
    streams: Fields,
    chunks: list[int],
    interval: float,
    actions: list[tuple[str, int]],
) -> None:
    """Workers have their chunks by turns, and checkpoints after an `interval` of work; a step takes 0.01 seconds."""
    with TemporaryDirectory(prefix="bt-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "INTERVAL", interval)
        store = ResultStore(Path(folder) / "results")

        sizes = cycle(chunks)

        def new_runner() -> TaskRunner:
            runner = TaskRunner(catalog, store, load_config(None).conventions, next(sizes), lambda: 7, batcher())
            runner.checkpoints = CheckpointStore(Path(folder) / "checkpoints")
            return runner

        streamed = Streamed(new_runner, {**config, "options": {"streams": streams}})
        for action, number in actions:
            streamed.do(action, number)
        if streamed.end() != "completed":  # it has lost more workers than it may
            return
        found = {topic: everything(streamed.client, topic) for topic in TOPICS}
        check_against(streamed, found)
        streamed.link.restart_broker()
        assert {topic: everything(streamed.link.client(), topic) for topic in TOPICS} == found


def check_against(streamed: Streamed, found: dict[str, dict[int, Fields]]) -> None:
    """Check that everything seen before is among what is found at the end, and that nothing was refused."""
    for topic, heard in streamed.link.heard().items():
        assert found[topic] == found[topic] | heard, topic
    streamed.forget_what_began_again()
    for topic, fetched in streamed.fetched + streamed.earlier:
        assert found[topic] == found[topic] | fetched, topic
    for topic in TOPICS:
        last = streamed.link.core.sequencer.last_seq(topic)
        assert last in (0, len(found[topic])), "0 where an earlier broker published it all"
    assert streamed.link.signals("message_refused") == []
    progress: list[Any] = [one["data"]["progressPercent"] for _, one in sorted(found[TOPICS[0]].items())]
    assert progress == sorted(set(progress))
    assert progress[-1] == 100.0
