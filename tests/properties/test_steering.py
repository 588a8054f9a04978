"""Pause, resume and stop hold against workers that behave like the engine's task runner, in any order and at any delay.

A worker reads one worker message at a time, when the test lets it, so that every change can overtake every other. Such
a worker never sends what the broker does not expect; in the end the last requested change holds. Backtests with a pace
lend their workers, which then have several.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_broker.core.scheduling import workers as workers_module
from backtestr_protocol import topics, worker_channel
from backtestr_protocol.messages import FINAL_STATES
from support.broker.link import Link, config

BACKTESTS = ["b1", "b2", "b3"]
PACED = ["p1", "p2", "p3"]
COMPUTE = ["compute-1", "compute-2"]
PARKED = 1
LENDING = 2

Step = tuple[str, str]
changes = st.lists(st.sampled_from(["Pause", "Resume"]), min_size=1, max_size=3) | st.just(["Stop"])


def steps_of(
    backtests: Sequence[str], workers: Sequence[str] = COMPUTE, lends: Sequence[str] = ()
) -> st.SearchStrategy[list[Step]]:
    """Return what may happen to these backtests on these workers; `lends` are the steps that only paced ones have.

    Those share a worker, so several of them are changed at once.
    """
    backtest_ids, worker_ids = st.sampled_from(backtests), st.sampled_from(workers)
    # Several changes of one backtest in a row are what lets them overtake each other; so they are drawn together.
    bursts: st.SearchStrategy[list[Step]] = st.one_of(
        st.builds(lambda verbs, backtest_id: [(verb, backtest_id) for verb in verbs], changes, backtest_ids),
        st.builds(
            lambda action, worker_id: [(action, worker_id)],
            st.sampled_from(["read", "read", "publish", *lends]),
            worker_ids,
        ),
        st.builds(lambda action, worker_id: [(action, worker_id)], st.sampled_from(["finish", "lose"]), worker_ids),
        st.builds(lambda backtest_id: [("start", backtest_id)], backtest_ids),
        *[several_changed(backtest_ids)] * (2 if lends else 0),
    )
    return st.lists(bursts, min_size=15, max_size=40).map(lambda drawn: [step for burst in drawn for step in burst])


def several_changed(backtest_ids: st.SearchStrategy[str]) -> st.SearchStrategy[list[Step]]:
    return st.builds(
        lambda verb, changed: [(verb, backtest_id) for backtest_id in changed],
        st.sampled_from(["Pause", "Resume", "start"]),
        st.lists(backtest_ids, min_size=2, max_size=3, unique=True),
    )


steps = steps_of(BACKTESTS)
LENDS = ["lend", "lend", "finish lending"]


class Runner:
    """A worker that behaves like the engine's `TaskRunner`, on the link's worker of that name."""

    def __init__(self, link: Link, worker_id: str) -> None:
        self.worker = link.worker(worker_id)
        self.read = 0
        self.running: str | None = None
        self.lending: list[str] = []
        self.parked: set[str] = set()

    @property
    def at_work(self) -> list[str]:
        return [*self.lending, *([self.running] if self.running is not None else [])]

    def read_one(self) -> bool:
        """Take the next worker message and return True, or return False when there is none."""
        if self.read == len(self.worker.received):
            return False
        note, _ = self.worker.received[self.read]
        self.read += 1
        assert not isinstance(note, worker_channel.Credit)
        task_id = note.task_id
        match note:
            case worker_channel.Assign():
                assert self.running is None, "one task at a time"
                self.running = task_id
                if note.paused:
                    self.park(task_id)
            case worker_channel.Control(action="pause") if task_id in self.at_work:
                self.park(task_id)
            case worker_channel.Control(action="resume") if task_id in self.parked:
                self.parked.remove(task_id)
                if task_id in PACED:
                    self.lending.append(task_id)
                else:
                    assert self.running is None, "one task at a time"
                    self.running = task_id
                self.check_lending()
                self.worker.resumed(task_id)
            case worker_channel.Control(action="stop") if task_id in self.at_work or task_id in self.parked:
                self.end(task_id, "stopped")
        return True

    def lend(self) -> None:
        """Have a paced backtest begin, and lend the worker."""
        if self.running in PACED:
            assert self.running is not None
            self.lending.append(self.running)
            self.running = None
            self.check_lending()
            self.worker.lent(self.lending[-1])

    def check_lending(self) -> None:
        assert len(self.lending) <= LENDING, "more than may lend a worker"

    def leave(self, task_id: str) -> None:
        if self.running == task_id:
            self.running = None
        if task_id in self.lending:
            self.lending.remove(task_id)

    def park(self, task_id: str) -> None:
        self.leave(task_id)
        self.parked.add(task_id)
        assert len(self.parked) <= PARKED, "more than a worker holds"
        self.worker.publish(topics.progress(task_id), 1, progress=50.0)
        self.worker.paused(task_id)

    def end(self, task_id: str, outcome: worker_channel.Outcome) -> None:
        self.worker.publish(topics.progress(task_id), 1, progress=60.0)
        self.leave(task_id)
        self.parked.discard(task_id)
        self.worker.finish(task_id, outcome)


class Steered:
    def __init__(self, compute: int = len(COMPUTE)) -> None:
        self.link = Link(compute=compute)
        self.ann = self.link.client()
        self.runners = {worker_id: Runner(self.link, worker_id) for worker_id in COMPUTE[:compute]}
        self.asked: list[tuple[str, str, str]] = []  # verb, backtest, request id

    def do(self, action: str, subject: str) -> None:
        match action:
            case "start":
                options = {"pace": 10.0} if subject in PACED else {}
                self.ann.send("StartBacktest", config(backtestId=subject, options=options))
            case "Pause" | "Resume" | "Stop":
                self.link.named += 1
                request_id = f"steer-{self.link.named}"
                self.asked.append((action, subject, request_id))
                self.ann.send(f"{action}Backtest", {"backtestId": subject}, message_id=request_id)
            case "lose":
                self.link.lose_worker(self.link.worker(subject))
                self.runners[subject] = Runner(self.link, subject)
            case "read":
                self.runners[subject].read_one()
            case "publish":
                for at_work in self.runners[subject].at_work:
                    self.runners[subject].worker.publish(topics.orders(at_work), 1, 2)
            case "lend":
                self.runners[subject].lend()
            case "finish lending" if lending := self.runners[subject].lending:
                self.runners[subject].end(lending[0], "completed")
            case "finish" if (running := self.runners[subject].running) is not None:
                self.runners[subject].end(running, "completed")

    def settle(self) -> None:
        """Let workers read all messages, and those that follow from them."""
        while any([runner.read_one() for runner in self.runners.values()]):
            pass

    def let_finish(self) -> None:
        """Let every running backtest complete, and those that then start."""
        self.settle()
        while any(runner.at_work for runner in self.runners.values()):
            for runner in self.runners.values():
                for running in runner.at_work:
                    runner.end(running, "completed")
            self.settle()

    def answer(self, request_id: str) -> tuple[str, str]:
        """Return `Success` and the status, or `Failure` and the code."""
        (payload,) = self.ann.answers(request_id)
        data = payload["data"]
        return payload["type"], data["status"] if payload["type"] == "Success" else data["code"]


@pytest.fixture(autouse=True, scope="module")
def _few_parked() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers_module, "MAX_PARKED", PARKED)
        patch.setattr(workers_module, "MAX_LENDING", LENDING)
        yield


@settings(max_examples=250, deadline=None)
@given(steps)
def test_the_last_change_holds_and_every_change_is_answered_once(actions: list[Step]) -> None:
    the_last_change_holds(Steered(), BACKTESTS[:2], actions)


@settings(max_examples=250, deadline=None)
@given(steps_of(["b1", "p1", "p2", "p3"], lends=LENDS))
def test_the_last_change_holds_on_workers_that_are_lent(actions: list[Step]) -> None:
    the_last_change_holds(Steered(), ["p1", "b1"], actions)


@settings(max_examples=250, deadline=None)
@given(steps_of(["b1", "p1", "p2", "p3"], COMPUTE[:1], LENDS))
def test_the_last_change_holds_on_one_crowded_worker(actions: list[Step]) -> None:
    steered = Steered(compute=1)
    for backtest_id in ("p1", "p2"):
        steered.do("start", backtest_id)
        steered.settle()
        steered.do("lend", "compute-1")
    the_last_change_holds(steered, ["b1"], actions)


def the_last_change_holds(steered: Steered, begun: Sequence[str], actions: list[Step]) -> None:
    for backtest_id in begun:
        steered.do("start", backtest_id)
    for action, subject in actions:
        steered.do(action, subject)
        steered.link.core.check_invariants()
    steered.settle()

    jobs = {job.backtest_id: job for job in steered.link.core.scheduler.jobs}
    for job in jobs.values():
        if job.status == "running":
            assert job.requested is None, "its worker has the change, and no message is on its way"
        elif job.status == "paused":
            assert job.requested in (None, "resume"), "it may wait for its worker, which runs another task"
    at_work = [backtest_id for runner in steered.runners.values() for backtest_id in runner.at_work]
    running = set(at_work)
    assert len(running) == len(at_work), "two workers run the same backtest"
    parked = {backtest_id for runner in steered.runners.values() for backtest_id in runner.parked}
    assert running == {job.backtest_id for job in jobs.values() if job.status == "running"}
    assert parked == {job.backtest_id for job in jobs.values() if job.status == "paused"}

    steered.let_finish()
    for backtest_id, job in jobs.items():
        successes = [
            verb
            for verb, subject, request_id in steered.asked
            if subject == backtest_id
            and not any(payload["type"] == "Failure" for payload in steered.ann.answers(request_id))
        ]
        last = successes[-1] if successes else "Resume"
        if last == "Pause":
            assert not job.ended or job.losses > 1, f"{backtest_id} is {job.status} though it was to be paused"
        if not job.ended:
            assert last == "Pause", f"{backtest_id} is {job.status} though it should have run to its end"
            assert job.status == "paused" or (job.status, job.requested) == ("queued", "pause")

    for backtest_id in jobs:
        steered.do("Stop", backtest_id)
    steered.settle()
    assert all(job.ended for job in jobs.values())
    ends = [one["data"]["backtestId"] for one in changes_of(steered) if one["data"]["status"] in FINAL_STATES]
    assert sorted(ends) == sorted(jobs), "each ends once"
    assert [steered.answer(request_id) for _, _, request_id in steered.asked]
    assert not steered.link.signals("message_refused"), "no message of such a worker is refused"
    for messages in steered.link.streams.values():
        assert [seq for seq, _ in messages] == sorted({seq for seq, _ in messages})


@settings(max_examples=100, deadline=None)
@given(steps)
def test_nothing_is_published_between_the_answer_to_a_pause_and_the_next_change(actions: list[Step]) -> None:
    """A backtest answered `paused` publishes nothing until a client requests another change (PROTOCOL.md)."""
    steered = Steered()
    steered.do("start", "b1")
    silent: dict[str, int] = {}
    for action, subject in actions:
        if action == "lose":
            continue
        if action in ("Pause", "Resume", "Stop"):
            silent.pop(subject, None)
        steered.do(action, subject)
        for backtest_id, published in silent.items():
            assert published_of(steered, backtest_id) == published, f"{backtest_id} was paused"
        for verb, backtest_id, request_id in steered.asked:
            is_last = [one for one in steered.asked if one[1] == backtest_id][-1][2] == request_id
            is_answered = bool(steered.ann.answers(request_id))
            if verb == "Pause" and is_last and is_answered and steered.answer(request_id) == ("Success", "paused"):
                silent.setdefault(backtest_id, published_of(steered, backtest_id))


def changes_of(steered: Steered) -> list[Any]:
    return [payload for _, payload in steered.link.streams["system.backtests"]]


def published_of(steered: Steered, backtest_id: str) -> int:
    return sum(len(steered.link.streams.get(topic, [])) for topic in topics.of_backtest(backtest_id))
