"""The timeline has the facts about a job, a session, a client or a topic, and all facts on request."""

from __future__ import annotations

import re

import msgspec
import pytest

from backtestr_broker.core.events import ClientsDropped
from backtestr_broker.recording.playback import Playback
from backtestr_broker.recording.timeline import Fact, SubjectKind, Timeline
from backtestr_protocol import worker_channel
from backtestr_protocol.errors import AlgorithmError
from support.broker.clients import Client
from support.broker.link import LIMITS, Link, Worker, config
from support.broker.steps import MakeLink, start


def facts(link: Link, kind: SubjectKind | None = None, name: str = "") -> list[Fact]:
    """Return the facts about one subject, or all of them, in order and each once."""
    timeline = Timeline()
    found: dict[tuple[int, int], Fact] = {}
    for step in Playback([("1", link.records())]):
        for fact in timeline.add(step):
            if kind is None or (kind, name) in fact.subjects:
                found[fact.place] = fact
    return [found[place] for place in sorted(found)]


def texts(found: list[Fact]) -> list[str]:
    """Return the facts as text, without the session id, which is long and differs between links."""
    return [re.sub(r" sessionId=\S+", "", fact.text) for fact in found]


def test_a_job_from_its_request_over_a_lost_worker_to_its_end(link: Link, ann: Client, worker: Worker) -> None:
    ann.ask("StartBacktest", config(backtestId="b1"), message_id="start")
    ann.ask("StartBacktest", config(backtestId="b2"), message_id="another")
    link.lose_worker(worker)
    link.worker("compute-1").fail(AlgorithmError("it divided by zero"))
    of_ann = "clientId=ann requestId=start"
    assert texts(facts(link, "job", "b1")) == [
        "StartBacktest clientId=ann id=start counter=1",
        f"Assign workerId=interactive-1 taskId=question-1 work=CheckBacktest {of_ann}",
        "Finished workerId=interactive-1 taskId=question-1 outcome=completed",
        "Persist ticket=1 generation=0 changes=[JobPut]",
        "Committed ticket=1",
        f"backtest_changed backtestId=b1 status=queued {of_ann}",
        "StartBacktest clientId=ann id=start result=Success",
        f"backtest_changed backtestId=b1 status=running {of_ann} workerId=compute-1",
        f"Assign workerId=compute-1 taskId=b1 work=RunBacktest {of_ann}",
        "Persist ticket=2 generation=0 changes=[JobPut]",
        "Committed ticket=2",
        "WorkerExited workerId=compute-1 reason='killed by signal 9' earlyDeaths=0 restartMs=0 tasks=[b1]",
        f"backtest_changed backtestId=b1 status=queued {of_ann}",
        "Persist ticket=5 generation=0 changes=[JobPut]",
        "Committed ticket=5",
        f"backtest_changed backtestId=b1 status=running {of_ann} workerId=compute-1",
        f"Assign workerId=compute-1 taskId=b1 work=RunBacktest resumes=True {of_ann} losses=1",
        "Persist ticket=6 generation=0 changes=[JobPut]",
        "Committed ticket=6",
        "Finished workerId=compute-1 taskId=b1 outcome=failed code=ALGORITHM_ERROR message='it divided by zero'",
        f"backtest_changed backtestId=b1 status=failed {of_ann} code=ALGORITHM_ERROR message='it divided by zero'",
        "Persist ticket=7 generation=0 changes=[JobPut,JobPut]",
        "Committed ticket=7",
    ]


def test_a_client_has_the_end_of_its_connection(link: Link, ann: Client) -> None:
    ann.ask("Ping")
    link.feed(ClientsDropped("the list of allowed keys has changed", link.wall_ms))
    assert texts(facts(link, "client", "ann"))[-2:] == [
        "ClientsDropped reason='the list of allowed keys has changed'",
        "client_left clientId=ann reason='the list of allowed keys has changed'",
    ]


def test_a_request_is_about_the_backtest_whose_id_the_broker_chose(link: Link, ann: Client) -> None:
    started = ann.ask("StartBacktest", config(), message_id="start")["backtestId"]
    assert texts(facts(link, "job", started))[0] == "StartBacktest clientId=ann id=start counter=1"


def test_pause_and_stop_are_there_with_their_answers(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    ann.later("PauseBacktest", {"backtestId": "b1"}, message_id="pause")
    ann.later("StopBacktest", {"backtestId": "b1"}, message_id="stop")
    worker.finish("b1", "stopped")
    found = texts(facts(link, "job", "b1"))
    assert "Control workerId=compute-1 taskId=b1 action=pause" in found
    assert "Control workerId=compute-1 taskId=b1 action=stop" in found
    assert "StopBacktest clientId=ann id=stop result=Success" in found
    conflict = "code=STATE_CONFLICT message='the backtest was stopped before it could pause'"
    assert f"PauseBacktest clientId=ann id=pause result=Failure {conflict}" in found


def test_a_price_replay_is_not_the_backtest_of_the_same_id(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "r1")
    data = {"replayId": "r1", "symbol": "SYNTH", "timeframe": "1m", "asFastAsRead": True}
    ann.ask("StartPriceReplay", data, message_id="replay")
    of_the_job = texts(facts(link, "job", "r1"))
    ann.ask("PausePriceReplay", {"replayId": "r1"}, message_id="pause")
    link.lose_worker(link.worker("interactive-1"))
    assert texts(facts(link, "job", "r1")) == of_the_job
    assert not [text for text in of_the_job if text.startswith(("Control", "Credit"))]
    of_the_topic = texts(facts(link, "topic", "prices.SYNTH.1m"))
    of_ann, by = "clientId=ann requestId=replay", "workerId=interactive-1"
    assert of_the_topic == [
        "StartPriceReplay clientId=ann id=replay counter=2",
        f"Assign {by} taskId=question-2 work=OpenReplay {of_ann}",
        f"Finished {by} taskId=question-2 outcome=completed",
        f"replay_changed replayId=r1 status=running {of_ann} {by}",
        "StartPriceReplay clientId=ann id=replay result=Success",
        f"Credit {by} replayId=r1 allowed=10000",
        f"Control {by} taskId=r1 action=resume",
        f"Resumed {by} taskId=r1",
        "PausePriceReplay clientId=ann id=pause counter=3",
        f"Control {by} taskId=r1 action=pause",
        f"Paused {by} taskId=r1",
        f"replay_changed replayId=r1 status=paused {of_ann} {by}",
        "PausePriceReplay clientId=ann id=pause result=Success",
        f"WorkerExited {by} reason='killed by signal 9' earlyDeaths=0 restartMs=0 tasks=[r1]",
        f"Assign {by} taskId=question-3 work=OpenReplay {of_ann}",
        f"Finished {by} taskId=question-3 outcome=completed",
        f"Credit {by} replayId=r1 allowed=10000",
    ]
    assert set(of_the_topic) <= set(texts(facts(link, "client", "ann")))
    worker.say(worker_channel.Paused(task_id="r1"))
    assert texts(facts(link, "job", "r1"))[len(of_the_job)] == "Paused workerId=compute-1 taskId=r1"


def test_a_session_has_its_requests_with_counters_and_answers(link: Link) -> None:
    ann, bob = link.client("ann"), link.client("bob")
    ann.ask("Ping", message_id="p")
    bob.ask("Ping")
    ann.refused("GetState", {"key": "nothing"}, message_id="g")
    link.advance(31.0)
    session_id = ann.requests.session_id
    assert session_id is not None
    found = facts(link, "session", session_id)
    assert [fact.details.get("counter") for fact in found if fact.kind == "request"] == [None, 1, 2]
    assert [(fact.details["type"], fact.details.get("code")) for fact in found if fact.kind == "answer"] == [
        ("Hello", None),
        ("Ping", None),
        ("GetState", "NOT_FOUND"),
    ]
    assert found[-1].text == "client_left clientId=ann reason='silent for too long'"


def test_a_client_has_all_its_sessions_and_no_facts_of_others(link: Link) -> None:
    ann = link.client("ann")
    link.client("bob").ask("Ping", message_id="of-bob")
    ann.reconnect()
    ann.ask("Ping", message_id="of-ann")
    found = texts(facts(link, "client", "ann"))
    assert sum(text.startswith("Hello clientId=ann") and "result" not in text for text in found) == 2
    assert "Ping clientId=ann id=of-ann result=Success" in found
    assert not [text for text in found if "bob" in text]


def test_a_topic_has_its_sequence_numbers(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    worker.publish("orders.b1", 1)
    worker.publish("orders.b1", 2, 3)
    ann.ask("FetchMissed", {"topic": "orders.b1", "fromSeq": 1}, message_id="f")
    assert texts(facts(link, "topic", "orders.b1")) == [
        "Published workerId=compute-1 topic=orders.b1 count=1",
        "OrderUpdate topic=orders.b1 seq=1 count=1",
        "Published workerId=compute-1 topic=orders.b1 count=2",
        "Batch topic=orders.b1 seq=2 count=2",
        "FetchMissed clientId=ann id=f counter=2",
        "FetchMissed clientId=ann id=f result=Success",
    ]


def test_a_key_of_shared_state_is_its_topic(link: Link, ann: Client) -> None:
    with link.full_disk():
        ann.refused("UpdateState", {"key": "ui", "value": 1}, message_id="first")
    ann.ask("UpdateState", {"key": "ui", "value": 1}, message_id="second")
    found = texts(facts(link, "topic", "state.ui"))
    assert "CommitFailed generation=0 reason='database or disk is full'" in found
    assert "StateUpdate topic=state.ui seq=1 count=1" in found
    assert sum(text.startswith("UpdateState") and "counter=" in text for text in found) == 2


def test_listeners_of_a_topic_are_facts_about_it(make_link: MakeLink) -> None:
    link = make_link(listening=False)
    link.subscribe("ann", "orders", b"orders.b1")
    link.subscribe("bob", "orders", b"orders.")
    link.hang_up("ann")
    link.tick()
    assert texts(facts(link, "topic", "orders.b1"))[:2] == [
        "Subscribed socket=orders prefix=orders.b1 delta=1",
        "Subscribed socket=orders prefix=orders.b1 delta=-1",
    ]
    assert "Subscribed socket=orders prefix=orders. delta=1" in texts(facts(link))


def test_every_event_has_a_fact(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    worker.paused("nothing")
    link.request(ann.peer, [b"x"])
    link.request(b"raw", [])
    link.tick()
    found = facts(link)
    assert {fact.event for fact in found} == set(range(1, len(link.events) + 1))
    assert "unreadable clientId=ann frames=1 bytes=1" in texts(found)
    assert "unreadable frames=0 bytes=0" in texts(found)


def test_without_the_state_of_the_core_there_are_the_messages_to_the_broker(
    link: Link, ann: Client, worker: Worker
) -> None:
    """After a gap, the timeline has requests and worker messages, and no effects of the core."""
    ann.ask("StartBacktest", config(backtestId="b1"), message_id="start")
    worker.finish("b1")
    timeline = Timeline()
    found = [
        fact
        for step in Playback([("1", link.records())])
        for fact in timeline.add(msgspec.structs.replace(step, effects=None))
        if ("job", "b1") in fact.subjects
    ]
    assert texts(found) == [
        "StartBacktest clientId=ann id=start counter=1",
        "Finished workerId=compute-1 taskId=b1 outcome=completed",
    ]


def test_a_job_whose_worker_hung(make_link: MakeLink) -> None:
    link = make_link(limits=msgspec.structs.replace(LIMITS, worker_silence_ms=5_000))
    start(link.client("ann"), "b1")
    link.worker("interactive-1").say(worker_channel.Beat(task_id=None))
    link.advance(6.0)
    link.lose_worker(link.worker("compute-1"), again=False)
    killed, ended, queued = facts(link, "job", "b1")[-5:-2]
    assert killed.text.startswith("Kill workerId=compute-1 reason='it was killed")
    assert ended.details["tasks"] == ["b1"]
    assert queued.text.startswith("backtest_changed backtestId=b1 status=queued")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("b1", "b1"),
        (7, "7"),
        (["b1", "b 2"], "[b1,'b 2']"),
        ("", "''"),
        ("a=b", "'a=b'"),
        ("it's", '"it\'s"'),
        ("\x1b[31mred", r"'\x1b[31mred'"),
    ],
)
def test_a_value_is_one_word_and_cannot_forge_another(value: object, shown: str) -> None:
    details = {"type": "Test", "value": value}
    fact = Fact(event=1, index=0, now=0.0, wall_ms=0, kind="event", details=details, subjects=set())
    assert fact.text == f"Test value={shown}"
