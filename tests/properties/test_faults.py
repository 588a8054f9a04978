"""An exception in any method of the core ends neither the broker nor what others do, and is logged once.

Each method of each class is made to raise, once, before or after it has done its work, while the broker does some of
everything. A method that the broker does not call meanwhile cannot raise: it is left out, and would cost as much.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import pytest

from backtestr_broker import core as core_package
from backtestr_broker.core.core import Core
from backtestr_broker.core.faults import Faults
from backtestr_protocol.errors import DataError
from support.broker.clients import Client
from support.broker.link import REPLAY_BARS, Injected, Link, config
from support.broker.sweep_steps import GROUP, SweepWorkers
from support.broker.sweep_steps import request as sweep_request

# Not part of handling an event, or the last line of it.
LEFT_OUT = {"check_invariants", "handle", "next_deadline", "restore", "take_effects"}


def machines() -> Iterator[type]:
    """Yield every class of the core that has methods."""
    for found in pkgutil.walk_packages(core_package.__path__, f"{core_package.__name__}."):
        module = importlib.import_module(found.name)
        for one in vars(module).values():
            if isinstance(one, type) and one.__module__ == module.__name__ and one is not Faults and methods(one):
                yield one


def methods(machine: type) -> list[str]:
    return [
        name
        for name, one in vars(machine).items()
        if inspect.isfunction(one) and not name.startswith("__") and name not in LEFT_OUT
    ]


@cache
def called() -> frozenset[tuple[type, str]]:
    """Return the methods that are called, with their classes, while the broker does some of everything without a fault.

    Up to the fault, the broker under test does the same.
    """
    found: set[tuple[type, str]] = set()
    scenario = Scenario()
    with pytest.MonkeyPatch.context() as patch:
        for machine in machines():
            for name in methods(machine):
                patch.setattr(machine, name, _noting(found, machine, name))
        play(scenario)
    return frozenset(found)


def _noting(found: set[tuple[type, str]], machine: type, name: str) -> Callable[..., Any]:
    """Return a method that notes its call, and is otherwise the one of that name."""
    original = vars(machine)[name]

    def noting(*arguments: Any, **named: Any) -> Any:
        found.add((machine, name))
        return original(*arguments, **named)

    return noting


class Raising:
    """A method that raises once, while the core handles an event."""

    def __init__(self, patch: pytest.MonkeyPatch, machine: type, name: str, *, after: bool) -> None:
        self.raised = False
        original, handle, handling = vars(machine)[name], Core.handle, [False]

        def raising(*arguments: Any, **named: Any) -> Any:
            if self.raised or not handling[0]:
                return original(*arguments, **named)
            if not after:
                self.raised = True
                raise Injected(f"{machine.__name__}.{name}")
            original(*arguments, **named)
            self.raised = True
            raise Injected(f"{machine.__name__}.{name}")

        def observed(core: Core, *arguments: Any) -> Any:
            handling[0] = True
            try:
                return handle(core, *arguments)
            finally:
                handling[0] = False

        patch.setattr(machine, name, raising)
        patch.setattr(Core, "handle", observed)


class Scenario:
    """Some of everything that clients, workers, subscribers, the disk and time do."""

    def __init__(self) -> None:
        self.link = Link(compute=2)
        self.ann = self.link.client("ann")
        self.bob = self.link.client("bob")
        self.sweeping = SweepWorkers(self.link, units=60)
        self.bob.ask("UpdateState", {"key": "kept", "value": "before"})

    def steps(self) -> Iterator[Callable[[], object]]:
        link = self.link
        for request in (
            ("Ping", {}),
            ("GetSystemStatus", {}),
            ("UpdateState", {"key": "a", "value": 1}),
            ("UpdateState", {"key": "a", "value": 2, "expectedVersion": 9}),
            ("GetState", {"key": "a"}),
            ("SnapshotState", {"prefix": ""}),
            ("DeleteState", {"key": "a"}),
            ("ListAlgorithms", {}),
            ("GetAlgorithmStatus", {"algorithmId": "sma_cross"}),
            ("ListMarketData", {}),
            ("StartBacktest", config(backtestId="b1")),
            ("StartBacktest", config(backtestId="b2")),
            ("StartBacktest", config(backtestId="b3")),
            ("ListBacktests", {}),
            ("GetBacktestStatus", {"backtestId": "b1"}),
            ("GetBacktestResults", {"backtestId": "b1"}),
            ("GetPerformanceMetrics", {"backtestId": "b1"}),
            ("FetchMissed", {"topic": "system.backtests", "fromSeq": 1}),
            ("PublishPrices", {"prices": [live_price("LIVE"), live_price("LIVE"), live_price("OTHER")]}),
            ("StartPriceReplay", {"replayId": "r1", "symbol": "SYNTH", "timeframe": "1m", "asFastAsRead": True}),
            ("ListPriceReplays", {}),
            ("GetPriceReplayStatus", {"replayId": "r1"}),
            ("PausePriceReplay", {"replayId": "r1"}),
            ("ResumePriceReplay", {"replayId": "r1"}),
            ("Nonsense", {}),
            ("GetState", {"key": ""}),
        ):
            yield partial(self.ask, *request)
        yield lambda: self.say("interactive-1", lambda worker: worker.play("r1", 100))
        yield lambda: self.ask("AcknowledgePrices", {"replayId": "r1", "seq": 50})
        yield lambda: self.say("compute-1", lambda worker: worker.publish("orders.b1", 1, 2, progress=10.0))
        yield lambda: self.later("PauseBacktest", {"backtestId": "b1"})
        yield lambda: self.say("compute-1", lambda worker: worker.paused("b1"))
        yield lambda: self.later("ResumeBacktest", {"backtestId": "b1"})
        yield lambda: self.say("compute-2", lambda worker: worker.finish())
        yield lambda: self.say("compute-1", lambda worker: worker.fail(DataError("no bars")))
        yield lambda: link.advance(1.5)
        yield lambda: link.subscribe("eve", "prices", b"prices.X")
        yield lambda: link.hang_up("eve")
        yield lambda: link.advance(2.5)
        yield lambda: self.say("interactive-1", lambda worker: worker.play("r1", REPLAY_BARS))
        yield lambda: self.lose("compute-1")
        yield lambda: self.lose("interactive-1")
        yield lambda: self.ask("StopPriceReplay", {"replayId": "r1"})
        yield lambda: self.later("StopBacktest", {"backtestId": "b3"})
        yield from self.steps_of_sweeps()
        yield self.fill_disk
        yield lambda: link.request(self.ann.peer, [b"never signed"])
        yield lambda: self.ask("RegisterAlgorithm", {"name": "own", "source": "x = 1"})
        yield lambda: link.advance(31.0)
        yield lambda: self.ask("Goodbye", {})
        yield link.drop_clients

    def steps_of_sweeps(self) -> Iterator[Callable[[], object]]:
        """Return a sweep over a grid and one that learns, which are steered, lose a worker, end, and are deleted."""
        yield lambda: self.ask("StartSweep", sweep_request("grid"))
        yield lambda: self.ask("StartSweep", sweep_request("learnt", method="tpe", batchSize=20))
        yield self.work_on_sweeps
        yield lambda: self.later("PauseSweep", {"sweepId": "grid"})
        yield lambda: self.ask("GetSweepStatus", {"sweepId": "grid"})
        yield lambda: self.ask("GetSweepResults", {"sweepId": "grid"})
        yield lambda: self.ask("GetTrials", {"group": GROUP})
        yield lambda: self.ask("ListSweeps", {})
        yield lambda: self.later("ResumeSweep", {"sweepId": "grid"})
        yield self.lose_one_at_a_sweep
        for _ in range(6):
            yield self.work_on_sweeps
        yield lambda: self.ask("GetSweepRun", {"sweepId": "grid", "row": 3})
        yield lambda: self.later("StopSweep", {"sweepId": "learnt"})
        yield lambda: self.ask("DeleteSweep", {"sweepId": "grid"})

    def work_on_sweeps(self) -> None:
        """Let each compute worker do the task of a sweep that it has, if it has one."""
        for worker_id in ("compute-1", "compute-2"):
            worker = self.link.worker(worker_id)
            if self.link.core.scheduler.workers.get(worker_id).peer is not None and self.sweeping.has_task(worker):
                self.sweeping.do(worker)

    def lose_one_at_a_sweep(self) -> None:
        for worker_id in ("compute-1", "compute-2"):
            if self.sweeping.has_task(self.link.worker(worker_id)):
                return self.lose(worker_id)

    def ask(self, type_name: str, data: Any) -> None:
        """Check that a request has one answer, or that the broker started again before it could have one."""
        link, ann = self.link, self.be_known(self.ann)
        restarts, inbox = len(link.restarts), len(ann.inbox)
        link.named += 1
        message_id = f"request-{link.named}"
        ann.send(type_name, data, message_id=message_id)
        self.bury()
        answers = ann.answers(message_id)
        assert len(answers) == 1 or (link.restarts[restarts:] and not answers), (type_name, ann.inbox[inbox:])
        for payload in answers:
            if payload["type"] == "Failure" and payload["data"]["code"] == "SYSTEM_ERROR":
                assert payload["data"]["details"]["id"]

    def later(self, type_name: str, data: Any) -> None:
        self.be_known(self.ann).send(type_name, data)

    def say(self, worker_id: str, does: Callable[[Any], object]) -> None:
        """Let a worker speak, if it works: after a restart it may have no task."""
        worker = self.link.core.scheduler.workers.get(worker_id)
        if worker.peer is not None and (worker.task_id is not None or worker_id == "interactive-1"):
            does(self.link.worker(worker_id))

    def lose(self, worker_id: str) -> None:
        self.link.lose_worker(self.link.worker(worker_id))

    def fill_disk(self) -> None:
        self.link.disk.full = True
        self.ask("UpdateState", {"key": "b", "value": 1})
        self.link.disk.full = False

    def be_known(self, client: Client) -> Client:
        """Say Hello again where the session is gone, and once more where that has met the fault."""
        if self.link.core.sessions.on(client.peer) is None:
            with contextlib.suppress(AssertionError):
                client.reconnect()
            if self.link.core.sessions.on(client.peer) is None:
                client.reconnect()
        return client

    def bury(self) -> None:
        """End the workers that the core wanted to end, and start them again."""
        killed, self.link.killed = {worker_id for worker_id, _ in self.link.killed}, []
        for worker_id in killed:
            if not self.link.core.scheduler.workers.get(worker_id).has_ended:
                self.lose(worker_id)


def live_price(symbol: str) -> dict[str, Any]:
    return {"symbol": symbol, "timestamp": 1, "bid": 1.0, "ask": 1.0, "last": 1.0, "volume": 0.0, "timeframe": "1m"}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("machine", list(machines()), ids=lambda machine: machine.__name__)
def test_an_exception_in_any_method_leaves_a_broker_that_serves(machine: type, after: bool) -> None:
    for name in methods(machine):
        if (machine, name) not in called():
            continue
        with pytest.MonkeyPatch.context() as patch:
            survives(Scenario(), Raising(patch, machine, name, after=after), name)


def test_most_methods_are_made_to_raise() -> None:
    every = {(machine, name) for machine in machines() for name in methods(machine)}
    assert called() <= every
    assert len(called()) > 0.6 * len(every)


def play(scenario: Scenario) -> None:
    """Do all of a scenario, to its end in time."""
    for step in scenario.steps():
        step()
        scenario.bury()
    scenario.link.advance(5.0)


def survives(scenario: Scenario, raising: Raising, name: str) -> None:
    link = scenario.link
    for step in scenario.steps():
        had_raised = raising.raised
        step()
        scenario.bury()
        link.core.check_invariants()
        if raising.raised and not had_raised:
            (fault,) = [one for one in link.signals("fault") if "Injected" in one.get("raised", "")]
            assert fault["id"], name
            assert name in fault["traceback"]
            scenario.be_known(scenario.bob)
            assert scenario.bob.ask("Ping") == {"timestamp": link.wall_ms}, name
            assert scenario.bob.ask("GetState", {"key": "kept"})["value"] == "before"
    link.advance(5.0)
    link.core.check_invariants()
    assert len(link.restarts) <= 1
