"""The broker lists the algorithms that its workers report, and knows which version a name means."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from backtestr_broker.core import algorithms as algorithms_module
from backtestr_protocol import worker_channel
from backtestr_protocol.codec import encode
from backtestr_protocol.errors import AlgorithmError, TimedOut
from backtestr_protocol.messages import AlgorithmInfo, AlgorithmProblem
from support.broker.clients import Client
from support.broker.link import ALGORITHM, Link, Worker, config
from support.protocol.independent import Fields

SOURCE = {"name": "mine", "source": "…"}


def version(number: int, name: str = "mine", time: int | None = None) -> AlgorithmInfo:
    return AlgorithmInfo(
        algorithm_id=f"{name}@{number}",
        name=name,
        version=str(number),
        description=f"version {number}",
        parameters=[],
        origin="registered",
        registered_time=time if time is not None else 1_000 + number,
    )


@pytest.fixture
def interactive(link: Link) -> Worker:
    """Return the interactive worker, which answers only when the test calls for it."""
    found = link.worker("interactive-1")
    found.answers = False
    return found


def register(ann: Client, interactive: Worker, info: AlgorithmInfo) -> Fields:
    asked = ann.later("RegisterAlgorithm", SOURCE | {"name": info.name})
    interactive.finish(data=encode(info))
    return ann.answer(asked)


def start(ann: Client, interactive: Worker, backtest_id: str, algorithm_id: str) -> None:
    """Start a backtest; its check answers with `algorithm_id`."""
    asked = ann.later("StartBacktest", config(backtestId=backtest_id, algorithmId="mine"))
    interactive.finish(data=config(backtestId=backtest_id, algorithmId=algorithm_id))
    assert ann.answer(asked)["status"] == "queued"


def listed(ann: Client) -> dict[str, str]:
    found = ann.ask("ListAlgorithms")["algorithms"]
    ids = {one["name"]: one["algorithmId"] for one in found}
    assert len(ids) == len(found), "a name is listed twice"
    return ids


def status(ann: Client, algorithm_id: str) -> Fields:
    return ann.ask("GetAlgorithmStatus", {"algorithmId": algorithm_id})


def test_a_registered_algorithm_is_listed_at_once_and_once(ann: Client, interactive: Worker) -> None:
    answer = register(ann, interactive, version(1))

    assert answer == msgspec.to_builtins(version(1))
    assert interactive.assigned[-1].work == "RegisterAlgorithm"
    assert listed(ann) == {"mine": "mine@1", "sma_cross": ALGORITHM.algorithm_id}
    register(ann, interactive, version(2))
    assert listed(ann) == {"mine": "mine@2", "sma_cross": ALGORITHM.algorithm_id}
    assert status(ann, "mine")["description"] == status(ann, "mine@2")["description"] == "version 2"


def test_an_attempt_that_fails_changes_nothing(ann: Client, interactive: Worker) -> None:
    asked = ann.later("RegisterAlgorithm", SOURCE)
    interactive.fail(AlgorithmError("mine.py:1: SyntaxError: invalid syntax", line=1))

    assert (ann.answer(asked)["code"], ann.answer(asked)["details"]) == ("ALGORITHM_ERROR", {"line": 1})
    assert "mine" not in listed(ann)


@pytest.mark.parametrize("work", ["RegisterAlgorithm", "GetAlgorithmStatus"])
def test_an_answer_that_describes_no_algorithm_is_a_system_error(ann: Client, interactive: Worker, work: str) -> None:
    register(ann, interactive, version(2))
    asked = ann.later(work, SOURCE if work == "RegisterAlgorithm" else {"algorithmId": "mine@1"})
    interactive.finish(data={"name": 5})

    assert ann.answer(asked)["code"] == "SYSTEM_ERROR"
    assert listed(ann)["mine"] == "mine@2"


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"source": ""}, "$.name"),
        ({"name": "mine"}, "$.source"),
        ({"name": "", "source": ""}, "$.name"),
        ({"name": "mine@1", "source": ""}, "$.name"),
        ({"name": "../mine", "source": ""}, "$.name"),
        ({"name": ".mine", "source": ""}, "$.name"),
        ({"name": "mine\n", "source": ""}, "$.name"),
        ({"name": "x" * 65, "source": ""}, "$.name"),
        ({"name": "mine", "source": "#" * 262_145}, "$.source"),
        ({"name": "mine", "source": b"x"}, "$.source"),
    ],
)
def test_a_wrong_registration_is_refused_by_the_broker(
    ann: Client, interactive: Worker, data: Fields, path: str
) -> None:
    error = ann.refused("RegisterAlgorithm", data)

    assert (error["code"], error["details"]) == ("VALIDATION_ERROR", {"path": path})
    assert interactive.assigned == []


def test_a_worker_with_an_earlier_version_does_not_change_the_newest(
    link: Link, ann: Client, interactive: Worker
) -> None:
    """The worker read the library before the second version was registered, and is ready after it."""
    late = link.start_worker("compute-2", "compute")
    register(ann, interactive, version(1))
    register(ann, interactive, version(2))
    algorithms = [ALGORITHM, version(1)]
    late.say(worker_channel.Ready(worker_id="compute-2", pid=1, kind="compute", algorithms=algorithms, series=[]))

    assert listed(ann)["mine"] == "mine@2"


def test_a_version_that_was_registered_again_is_the_newest(ann: Client, interactive: Worker) -> None:
    for number, time in ((1, 1_000), (2, 2_000), (1, 3_000)):
        register(ann, interactive, version(number, time=time))

    assert listed(ann)["mine"] == "mine@1"


def test_runs_and_failures_are_counted_by_id_and_by_name(ann: Client, worker: Worker, interactive: Worker) -> None:
    register(ann, interactive, version(1))
    start(ann, interactive, "b1", "mine@1")
    register(ann, interactive, version(2))
    start(ann, interactive, "b2", "mine@2")
    start(ann, interactive, "b3", "mine@2")

    assert [status(ann, one)["activeBacktests"] for one in ("mine", "mine@2", "sma_cross")] == [3, 2, 0]
    assert ann.ask("GetBacktestStatus", {"backtestId": "b1"})["algorithmId"] == "mine@1"
    worker.fail(AlgorithmError("the old one failed"))
    assert status(ann, "mine")["lastError"]["message"] == "the old one failed"
    assert status(ann, "mine@2")["lastError"] is None
    worker.fail(AlgorithmError("the new one failed"))
    for one in ("mine", "mine@2"):
        assert status(ann, one)["lastError"]["message"] == "the new one failed"
        assert status(ann, one)["activeBacktests"] == 1
    assert status(ann, "sma_cross")["lastError"] is None


def test_an_earlier_version_is_described_by_a_worker(ann: Client, worker: Worker, interactive: Worker) -> None:
    register(ann, interactive, version(1))
    start(ann, interactive, "b1", "mine@1")
    worker.fail(AlgorithmError("the old one failed"))
    register(ann, interactive, version(2))
    asked = ann.later("GetAlgorithmStatus", {"algorithmId": "mine@1"})
    assert interactive.assigned[-1].work == "GetAlgorithmStatus"
    interactive.finish(data=encode(version(1)))

    answer = ann.answer(asked)
    assert (answer["description"], answer["activeBacktests"]) == ("version 1", 0)
    assert answer["lastError"]["message"] == "the old one failed"
    assert listed(ann)["mine"] == "mine@2"


def test_a_bounded_number_of_errors_is_remembered(
    ann: Client, worker: Worker, interactive: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(algorithms_module, "MAX_ERRORS", 2)
    errors: list[Any] = []
    for number in (1, 2, 3):
        register(ann, interactive, version(number, f"own{number}"))
        start(ann, interactive, f"b{number}", f"own{number}@{number}")
        worker.fail(AlgorithmError(f"no {number}"))
    errors = [status(ann, f"own{number}")["lastError"] for number in (1, 2, 3)]

    assert [error and error["message"] for error in errors] == [None, "no 2", "no 3"]


def test_a_registration_without_an_end_ends_its_worker_and_the_next_is_done(
    link: Link, ann: Client, interactive: Worker
) -> None:
    asked = ann.later("RegisterAlgorithm", SOURCE)
    waiting = ann.later("ListMarketData")
    late = TimedOut("loading mine.py took longer").to_data(component="engine", timestamp=0)
    interactive.say(worker_channel.Finished(task_id=interactive.task_id, outcome="failed", error=late, is_last=True))

    assert ann.answer(asked)["code"] == "TIMEOUT"
    assert ann.answers(waiting) == []
    link.lose_worker(interactive)
    assert ann.answer(waiting)["series"][0]["symbol"] == "SYNTH"


def test_a_registration_sent_again_to_the_next_broker_is_not_done_again(
    link: Link, ann: Client, interactive: Worker
) -> None:
    """A second registration would make the name mean the earlier version again."""
    request = SOURCE | {"name": "mine"}
    asked = ann.later("RegisterAlgorithm", request)
    with link.hold_commits():
        interactive.finish(data=encode(version(1)))
        assert ann.answers(asked) == [], "not before the answer is on disk"
    first = ann.answer(asked)
    register(ann, interactive, version(2))
    link.restart_broker()
    ann = link.client()
    assert ann.ask("RegisterAlgorithm", request, message_id=asked) == first
    assert [message.work for message in link.worker("interactive-1").assigned] == []


# --- files that are not loaded ---


def restarted(link: Link, worker_id: str, problems: list[AlgorithmProblem]) -> None:
    """End a worker, and start another in its slot that has these problems."""
    worker = link.worker(worker_id)
    link.lose_worker(worker, again=False)
    link.start_worker(worker_id, worker.kind).ready(problems)


def test_files_that_a_worker_did_not_load_are_listed_until_one_loads_them(link: Link, ann: Client) -> None:
    assert "problems" not in ann.ask("ListAlgorithms")
    bad = AlgorithmProblem(file="/folder/bad.py", message="/folder/bad.py:1: SyntaxError")
    other = AlgorithmProblem(file="/folder/a.py", message="it ended its process")
    restarted(link, "interactive-1", [bad])
    restarted(link, "compute-1", [bad, other])

    assert ann.ask("ListAlgorithms")["problems"] == [
        {"file": "/folder/a.py", "message": "it ended its process"},
        {"file": "/folder/bad.py", "message": "/folder/bad.py:1: SyntaxError"},
    ]
    restarted(link, "compute-1", [])
    assert [one["file"] for one in ann.ask("ListAlgorithms")["problems"]] == ["/folder/bad.py"]
    restarted(link, "interactive-1", [])
    assert "problems" not in ann.ask("ListAlgorithms")


def test_a_registration_ends_the_problem_of_its_name(link: Link, ann: Client) -> None:
    problems = [
        AlgorithmProblem(file=f"/{name}.json", message="cannot be read", name=name) for name in ("mine", "other")
    ]
    restarted(link, "interactive-1", problems)
    interactive = link.worker("interactive-1")
    interactive.answers = False
    register(ann, interactive, version(1))
    assert [one["name"] for one in ann.ask("ListAlgorithms")["problems"]] == ["other"]


def test_the_number_of_problems_is_bounded(link: Link, ann: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(algorithms_module, "MAX_PROBLEMS", 3)
    restarted(link, "interactive-1", [AlgorithmProblem(file=str(number), message="bad") for number in range(10)])
    assert len(ann.ask("ListAlgorithms")["problems"]) == 3
