"""Whatever ends, and whenever: a sweep that is acknowledged comes to its end, and counts only what is on disk.

One that is deleted leaves nothing behind that a worker could still speak of.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from backtestr_broker.core.events import WorkerExited
from support.broker.link import Link, Worker
from support.broker.steps import start
from support.broker.sweep_steps import SweepWorkers, request

UNITS = 300
SWEEPS = ("s1", "s2")
compute = st.sampled_from(["compute-1", "compute-2"])
sweeps = st.sampled_from(SWEEPS)


class SweepsAndLosses(RuleBasedStateMachine):
    """Two workers, two sweeps, backtests of a person, and everything that can end in between."""

    @initialize(worst=st.sets(st.integers(0, UNITS - 1), max_size=2))
    def begin(self, worst: set[int]) -> None:
        self.link = Link(compute=2)
        self.workers = SweepWorkers(self.link, UNITS)
        self.workers.worst = worst
        self.ann = self.link.client("ann")
        self.acknowledged: set[str] = set()
        self.counted: dict[str, int] = {}  # rows that a client was told of
        self.backtests = 0

    def worker(self, worker_id: str) -> Worker:
        return self.link.worker(worker_id)

    @rule(sweep_id=sweeps, block_size=st.sampled_from([None, 7, 64]), batch_size=st.sampled_from([None, None, 16, 77]))
    def start_sweep(self, sweep_id: str, block_size: int | None, batch_size: int | None) -> None:
        changes: dict[str, Any] = {} if block_size is None else {"blockSize": block_size}
        if batch_size is not None:
            changes |= {"method": "tpe", "trials": UNITS, "batchSize": batch_size}
        answer = self.ann.send("StartSweep", request(sweep_id, **changes))[0]["payload"]
        if answer["type"] == "Success":
            self.acknowledged.add(sweep_id)
        else:
            assert answer["data"]["code"] == "STATE_CONFLICT", answer
            assert sweep_id in self.acknowledged, "only another sweep of that name is refused"

    def is_running(self, worker: Worker) -> bool:
        return bool(self.link.core.scheduler.workers.get(worker.worker_id).running)

    @rule(worker_id=compute)
    def work(self, worker_id: str) -> None:
        worker = self.worker(worker_id)
        self.link.advance(0.05)
        if self.workers.has_task(worker):
            self.workers.do(worker)
        elif worker.assigned and self.is_running(worker):
            worker.finish()

    @rule(worker_id=compute, killed=st.booleans(), stored=st.booleans())
    def lose_worker(self, worker_id: str, killed: bool, stored: bool) -> None:
        worker = self.worker(worker_id)
        if stored and self.workers.has_task(worker) and worker.assigned[-1].work == "ProposeBatch":
            self.workers.propose(worker.received[-1][1][0])  # it ends between the disk and its message
        if stored and self.workers.has_task(worker) and worker.assigned[-1].work == "RunBlock":
            block = self.workers.block(worker)
            if self.workers.worst.isdisjoint(range(block.first, block.first + block.count)):
                self.workers.store(worker)  # it ends between the disk and its message
        self.link.feed(WorkerExited(worker_id, "it ended", self.link.wall_ms, killed=killed))
        self.link.start_worker(worker_id, "compute").ready()

    @rule()
    def kill_broker(self) -> None:
        self.link.restart_broker()
        self.ann = self.link.client("ann")

    @rule(sweep_id=sweeps, verb=st.sampled_from(["Pause", "Resume", "Stop"]))
    def steer(self, sweep_id: str, verb: str) -> None:
        answer = self.ann.send(f"{verb}Sweep", {"sweepId": sweep_id})[0]["payload"]
        if answer["type"] == "Failure":
            assert answer["data"]["code"] in ("NOT_FOUND", "STATE_CONFLICT")

    @rule(sweep_id=sweeps, stops=st.booleans())
    def delete(self, sweep_id: str, stops: bool) -> None:
        if stops:
            self.ann.send("StopSweep", {"sweepId": sweep_id})
        answer = self.ann.send("DeleteSweep", {"sweepId": sweep_id})[0]["payload"]
        if answer["type"] == "Success":
            self.acknowledged.remove(sweep_id)
            assert sweep_id not in self.workers.rows
        else:
            assert answer["data"]["code"] in ("NOT_FOUND", "STATE_CONFLICT", "BUSY")

    @precondition(lambda self: self.backtests < 8)
    @rule()
    def start_backtest(self) -> None:
        self.backtests += 1
        start(self.ann, f"b{self.backtests}")

    @invariant()
    def nothing_acknowledged_is_lost(self) -> None:
        if not hasattr(self, "link"):
            return
        self.link.core.check_invariants()
        known = {one["sweepId"]: one for one in self.ann.ask("ListSweeps", {})["sweeps"]}
        assert self.acknowledged == known.keys()
        for sweep_id, status in known.items():
            stored = self.workers.rows.get(sweep_id, {})
            assert status["done"] <= len(stored), "a row is counted that is not on disk"
            if status["status"] == "completed":
                assert status["done"] == len(stored) == UNITS

    def teardown(self) -> None:
        if not hasattr(self, "link"):
            return
        found = [self.link.core.scheduler.sweeping.sweeps.get(sweep_id) for sweep_id in self.acknowledged]
        for sweep in found:
            if sweep.status in ("paused", "failed"):
                self.ann.ask("ResumeSweep", {"sweepId": sweep.sweep_id})
        for _ in range(10_000):
            if all(sweep.ended for sweep in found):
                break
            running = [one for one in map(self.worker, ("compute-1", "compute-2")) if self.is_running(one)]
            assert running, "no worker is at work"
            for worker in running:
                self.work(worker.worker_id)
        for sweep_id, sweep in zip(self.acknowledged, found, strict=True):
            assert sweep.status in ("completed", "stopped")
            if sweep.status == "stopped":
                continue
            rows = self.workers.rows[sweep_id]
            assert sorted(rows) == list(range(UNITS))
            failed = {unit for unit, reason in rows.items() if reason is not None}
            assert self.workers.worst <= failed, "a unit that ends workers has figures"
            assert sweep.figures.failed == len(failed)
        self.link.core.check_invariants()


TestSweepsAndLosses = SweepsAndLosses.TestCase
TestSweepsAndLosses.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
