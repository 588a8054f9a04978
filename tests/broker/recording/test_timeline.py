"""The story that a recording tells of a job, a session, a client or a topic."""

from __future__ import annotations

import msgspec

from backtestr_broker.core.events import ClientsDropped
from backtestr_broker.recording.playback import Replay
from backtestr_broker.recording.timeline import Line, Sort, Storyteller
from backtestr_protocol import worker_channel
from backtestr_protocol.errors import AlgorithmError
from support.broker.link import LIMITS, Client, Link, Worker, config
from support.broker.steps import MakeLink, start


def told(link: Link, sort: Sort | None = None, name: str = "") -> list[Line]:
    """The story of one of that sort, or everything; every line once, as it was told last."""
    teller = Storyteller()
    lines: dict[tuple[int, int], Line] = {}
    for step in Replay([("1", link.recording())]):
        for line in teller.tell(step):
            if sort is None or (sort, name) in line.subjects:
                lines[line.place] = line
    return [lines[place] for place in sorted(lines)]


def texts(lines: list[Line]) -> list[str]:
    return [line.text for line in lines]


def test_a_job_from_its_request_over_a_lost_worker_to_its_end(link: Link, ann: Client, worker: Worker) -> None:
    ann.ask("StartBacktest", config(backtestId="b1"), message_id="start")
    ann.ask("StartBacktest", config(backtestId="b2"), message_id="another")
    link.lose_worker(worker)
    link.worker("compute-1").fail(AlgorithmError("it divided by zero"))
    assert texts(told(link, "job", "b1")) == [
        "ann asked StartBacktest, id start, counter 1",
        "interactive-1 was given question-1: CheckBacktest",
        "interactive-1 said that question-1 is completed",
        "change 1 is on its way to disk: JobPut",
        "everything up to change 1 is on disk",
        "b1 is queued",
        "ann was answered to StartBacktest, id start: Success",
        "b1 is running",
        "compute-1 was given b1: RunBacktest",
        "change 2 is on its way to disk: JobPut",
        "everything up to change 2 is on disk",
        "compute-1 ended, holding b1: killed by signal 9",
        "b1 is queued",
        "change 5 is on its way to disk: JobPut",
        "everything up to change 5 is on disk",
        "b1 is running",
        "compute-1 was given b1: RunBacktest",
        "change 6 is on its way to disk: JobPut",
        "everything up to change 6 is on disk",
        "compute-1 said that b1 is failed, ALGORITHM_ERROR: it divided by zero",
        "b1 is failed",
        "change 7 is on its way to disk: JobPut, JobPut",
        "everything up to change 7 is on disk",
    ]


def test_a_client_is_told_that_its_connection_was_ended(link: Link, ann: Client) -> None:
    ann.ask("Ping")
    link.feed(ClientsDropped("the list of allowed keys has changed", link.wall_ms))
    assert texts(told(link, "client", "ann"))[-2:] == [
        "every connection of clients was ended: the list of allowed keys has changed",
        "client_left clientId ann, reason the list of allowed keys has changed",
    ]


def test_a_request_is_told_of_the_backtest_whose_id_the_broker_chose(link: Link, ann: Client) -> None:
    started = ann.ask("StartBacktest", config(), message_id="start")["backtestId"]
    assert texts(told(link, "job", started))[0] == "ann asked StartBacktest, id start, counter 1"


def test_pause_and_stop_are_told_with_what_they_were_answered(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    ann.later("PauseBacktest", {"backtestId": "b1"}, message_id="pause")
    ann.later("StopBacktest", {"backtestId": "b1"}, message_id="stop")
    worker.finish("b1", "stopped")
    lines = texts(told(link, "job", "b1"))
    assert "compute-1 was told to pause b1" in lines
    assert "compute-1 was told to stop b1" in lines
    assert "ann was answered to StopBacktest, id stop: Success" in lines
    conflict = "STATE_CONFLICT: the backtest was stopped before it could pause"
    assert f"ann was answered to PauseBacktest, id pause: {conflict}" in lines


def test_a_replay_is_no_backtest_of_its_id(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "r1")
    asked = {"replayId": "r1", "symbol": "SYNTH", "timeframe": "1m", "asFastAsRead": True}
    ann.ask("StartPriceReplay", asked, message_id="replay")
    of_the_job = texts(told(link, "job", "r1"))
    ann.ask("PausePriceReplay", {"replayId": "r1"}, message_id="pause")
    link.lose_worker(link.worker("interactive-1"))
    assert texts(told(link, "job", "r1")) == of_the_job
    assert not [line for line in of_the_job if "interactive-1 was told" in line]
    of_the_topic = texts(told(link, "topic", "prices.SYNTH.1m"))
    assert of_the_topic == [
        "ann asked StartPriceReplay, id replay, counter 2",
        "interactive-1 was given question-2: OpenReplay",
        "interactive-1 said that question-2 is completed",
        "replay r1 is running",
        "ann was answered to StartPriceReplay, id replay: Success",
        "interactive-1 was told that r1 may publish up to 10000 bars",
        "interactive-1 was told to resume r1",
        "interactive-1 said that r1 is resumed",
        "ann asked PausePriceReplay, id pause, counter 3",
        "interactive-1 was told to pause r1",
        "interactive-1 said that r1 is paused",
        "replay r1 is paused",
        "ann was answered to PausePriceReplay, id pause: Success",
        "interactive-1 ended, holding r1: killed by signal 9",
        "interactive-1 was given question-3: OpenReplay",
        "interactive-1 said that question-3 is completed",
        "interactive-1 was told that r1 may publish up to 10000 bars",
    ]
    assert set(of_the_topic) <= set(texts(told(link, "client", "ann")))
    worker.say(worker_channel.Paused(task_id="r1"))
    assert texts(told(link, "job", "r1"))[len(of_the_job)] == "compute-1 said that r1 is paused"


def test_a_session_has_its_requests_with_counters_and_answers(link: Link) -> None:
    ann, bob = link.client("ann"), link.client("bob")
    ann.ask("Ping", message_id="p")
    bob.ask("Ping")
    ann.refused("GetState", {"key": "nothing"}, message_id="g")
    link.advance(31.0)
    session_id = ann.requests.session_id
    assert session_id is not None
    lines = told(link, "session", session_id)
    assert [line.facts.get("counter") for line in lines if line.kind == "request"] == [None, 1, 2]
    assert [(line.facts["type"], line.facts["code"]) for line in lines if line.kind == "answer"] == [
        ("Hello", None),
        ("Ping", None),
        ("GetState", "NOT_FOUND"),
    ]
    assert lines[-1].text == "client_left clientId ann, reason silent for too long"


def test_a_client_has_all_its_sessions_and_nobody_elses(link: Link) -> None:
    ann = link.client("ann")
    link.client("bob").ask("Ping", message_id="bob's")
    ann.reconnect()
    ann.ask("Ping", message_id="ann's")
    lines = texts(told(link, "client", "ann"))
    assert sum(line.startswith("ann asked Hello") for line in lines) == 2
    assert "ann was answered to Ping, id ann's: Success" in lines
    assert not [line for line in lines if "bob" in line]


def test_a_topic_has_its_numbers(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    worker.publish("orders.b1", 1)
    worker.publish("orders.b1", 2, 3)
    ann.ask("FetchMissed", {"topic": "orders.b1", "fromSeq": 1}, message_id="f")
    assert texts(told(link, "topic", "orders.b1")) == [
        "compute-1 published a message on orders.b1",
        "orders.b1 1: OrderUpdate",
        "compute-1 published 2 messages on orders.b1",
        "orders.b1 2 to 3: Batch",
        "ann asked FetchMissed, id f, counter 2",
        "ann was answered to FetchMissed, id f: Success",
    ]


def test_a_key_of_shared_state_is_told_as_its_topic(link: Link, ann: Client) -> None:
    with link.full_disk():
        ann.refused("UpdateState", {"key": "ui", "value": 1}, message_id="first")
    ann.ask("UpdateState", {"key": "ui", "value": 1}, message_id="second")
    lines = texts(told(link, "topic", "state.ui"))
    assert "changes could not be written to disk: database or disk is full" in lines
    assert "state.ui 1: StateUpdate" in lines
    assert sum(line.startswith("ann asked UpdateState") for line in lines) == 2


def test_everything_has_a_line_for_every_event(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    worker.paused("nothing")
    link.request(ann.peer, [b"x"])
    link.request(b"stranger", [])
    link.tick()
    lines = told(link)
    assert {line.step for line in lines} == set(range(1, len(link.events) + 1))
    assert "ann sent 1 frames, 1 bytes, that are no request" in texts(lines)
    assert "someone sent 0 frames, 0 bytes, that are no request" in texts(lines)


def test_without_the_cores_state_what_was_said_is_told(link: Link, ann: Client, worker: Worker) -> None:
    """As behind a gap: the requests, and what workers said, are there without what the core did."""
    ann.ask("StartBacktest", config(backtestId="b1"), message_id="start")
    worker.finish("b1")
    teller = Storyteller()
    lines = [
        line
        for step in Replay([("1", link.recording())])
        for line in teller.tell(type(step)(step.number, step.now, step.event, None))
        if ("job", "b1") in line.subjects
    ]
    assert texts(lines) == ["ann asked StartBacktest, id start, counter 1", "compute-1 said that b1 is completed"]


def test_a_job_whose_worker_hung(make_link: MakeLink) -> None:
    link = make_link(limits=msgspec.structs.replace(LIMITS, worker_silence_ms=5_000))
    start(link.client("ann"), "b1")
    link.worker("interactive-1").say(worker_channel.Beat(task_id=None))
    link.advance(6.0)
    link.lose_worker(link.worker("compute-1"), again=False)
    assert texts(told(link, "job", "b1"))[-5:-2] == [
        "compute-1 is to be killed",
        "compute-1 ended, holding b1: killed by signal 9",
        "b1 is queued",
    ]
