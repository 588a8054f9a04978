"""Price replays are steered, publish within their credit, and end or move when a client or a worker is lost."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from backtestr_broker.core import price_replays
from backtestr_broker.core.price_replays import (
    MAX_LOSSES,
    WINDOW,
)
from backtestr_broker.core.requests.price_replay_requests import ABSENT_SECONDS, MAX_WAITING
from backtestr_protocol import worker_channel
from backtestr_protocol.codec import encoded_payload
from backtestr_protocol.errors import DataError
from support.broker.clients import Client
from support.broker.link import REPLAY_BARS, Link, Worker

TOPIC = "prices.SYNTH.1m"
R1 = {"replayId": "r1"}
OTHERS = encoded_payload("PriceUpdate", {})


@pytest.fixture
def host(link: Link) -> Worker:
    """Return the interactive worker, which opens and steers price replays at once."""
    return link.worker("interactive-1")


def asked(**changes: Any) -> dict[str, Any]:
    rate = {} if changes.keys() & {"speed", "asFastAsRead", "barsPerSecond"} else {"barsPerSecond": 10.0}
    return {"replayId": "r1", "symbol": "SYNTH", "timeframe": "1m", **rate, **changes}


def start(client: Client, **changes: Any) -> dict[str, Any]:
    return client.ask("StartPriceReplay", asked(**changes))


def states(link: Link, replay_id: str = "r1") -> list[str]:
    data = [payload["data"] for _, payload in link.streams["system.replays"]]
    return [one["status"] for one in data if one["replayId"] == replay_id]


def status(client: Client, replay_id: str = "r1") -> dict[str, Any]:
    return client.ask("GetPriceReplayStatus", {"replayId": replay_id})


def credits(worker: Worker) -> list[int]:
    return [message.allowed for message, _ in worker.received if isinstance(message, worker_channel.Credit)]


def orders(worker: Worker) -> list[worker_channel.OpenReplay]:
    found = []
    for message, payload in worker.received:
        if isinstance(message, worker_channel.Assign) and message.work == "OpenReplay":
            found.append(msgspec.msgpack.decode(payload[0], type=worker_channel.OpenReplay))
    return found


# --- from start to end ---


def test_a_price_replay_from_its_start_to_its_end(link: Link, ann: Client, host: Worker) -> None:
    link.core.outbox.publish(TOPIC, OTHERS)
    assert start(ann, barsPerSecond=50.0) == {"replayId": "r1", "topic": TOPIC, "fromSeq": 2, "bars": REPLAY_BARS}
    host.play("r1", 10_000)
    host.play("r1", 20_000)
    assert status(ann)["position"] == REPLAY_BARS
    host.finish("r1")
    assert states(link) == ["running", "completed"]
    assert status(ann) == {
        **{"replayId": "r1", "clientId": "ann", "status": "completed", "symbol": "SYNTH", "timeframe": "1m"},
        **{"bars": REPLAY_BARS, "startTime": 0, "endTime": 60_000, "position": REPLAY_BARS, "currentTime": 60_000},
        **{"progressPercent": 100.0, "barsPerSecond": 50.0, "lastSeq": 1 + REPLAY_BARS},
    }
    assert ann.ask("ListPriceReplays")["replays"] == [status(ann)]
    assert [seq for seq, _ in link.streams[TOPIC]] == [1, 2, 10_002]
    assert ann.ask("StopPriceReplay", R1) == {"replayId": "r1", "status": "completed"}
    assert ann.refused("PausePriceReplay", R1)["code"] == "STATE_CONFLICT"


def test_a_price_replay_is_opened_paused_and_begins_when_its_client_is_known(ann: Client, host: Worker) -> None:
    start(ann, startTime=5, endTime=9)
    (order,) = orders(host)
    assert (order.paused, order.position, order.start_time, order.end_time) == (True, 0, 5, 9)


def test_times_that_javascript_sends_as_floats_are_integers_for_the_worker(ann: Client, host: Worker) -> None:
    start(ann, startTime=1.7e12, endTime=1.8e12)
    (order,) = orders(host)
    assert (order.start_time, order.end_time) == (1_700_000_000_000, 1_800_000_000_000)
    assert isinstance(order.start_time, int)
    assert host.controls == [("resume", "r1")]


def test_a_worker_is_told_for_which_request_it_opens_a_price_replay(link: Link, ann: Client, host: Worker) -> None:
    ann.ask("StartPriceReplay", asked(), message_id="once")
    successor = link.lose_worker(host)
    for worker in (host, successor):
        assert [(message.client_id, message.request_id) for message in worker.assigned] == [("ann", "once")]


@pytest.mark.parametrize(
    "rates", [{}, {"barsPerSecond": 1.0, "speed": 1.0}, {"speed": 1.0, "asFastAsRead": True}], ids=str
)
def test_there_is_exactly_one_rate(ann: Client, rates: dict[str, Any]) -> None:
    error = ann.refused("StartPriceReplay", {"symbol": "SYNTH", "timeframe": "1m", **rates})
    assert error["code"] == "INVALID_CONFIGURATION"
    assert error["details"]["paths"] == ["$.barsPerSecond", "$.speed", "$.asFastAsRead"]


def test_a_price_replay_that_cannot_be_opened_is_refused_and_forgotten(link: Link, ann: Client, host: Worker) -> None:
    host.answers = False
    waits = ann.later("StartPriceReplay", asked())
    assert ann.refused("GetPriceReplayStatus", R1)["code"] == "NOT_FOUND", "it has not begun"
    host.fail(DataError("no such bars"))
    assert ann.answer(waits)["code"] == "DATA_ERROR"
    assert ann.ask("ListPriceReplays") == {"replays": []}
    assert states(link) == []
    host.answers = True
    start(ann)


def test_the_same_request_starts_one_price_replay(link: Link, ann: Client, host: Worker) -> None:
    first = ann.ask("StartPriceReplay", asked(), message_id="once")
    assert ann.ask("StartPriceReplay", asked(), message_id="once") == first
    assert len(orders(host)) == 1
    assert ann.refused("StartPriceReplay", asked())["code"] == "STATE_CONFLICT", "the id is taken"


def test_price_replays_are_bounded_in_all_and_for_each_client(link: Link, ann: Client) -> None:
    for number in range(price_replays.MAX_REPLAYS_PER_CLIENT):
        start(ann, replayId=f"a{number}")
    assert ann.refused("StartPriceReplay", asked())["code"] == "BUSY"
    bob = link.client("bob")
    for number in range(price_replays.MAX_REPLAYS - price_replays.MAX_REPLAYS_PER_CLIENT):
        start(bob, replayId=f"b{number}")
    assert link.client("carl").refused("StartPriceReplay", asked())["code"] == "BUSY"
    ann.ask("StopPriceReplay", {"replayId": "a0"})
    start(ann)


def test_the_oldest_ended_price_replays_are_forgotten_first(ann: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(price_replays, "MAX_ENDED", 2)
    for name in ("x", "y", "z"):
        start(ann, replayId=name)
        ann.ask("StopPriceReplay", {"replayId": name})
    assert [one["replayId"] for one in ann.ask("ListPriceReplays")["replays"]] == ["z", "y"]


def test_the_log_has_the_ids_by_which_a_change_can_be_followed(link: Link, ann: Client, host: Worker) -> None:
    ann.ask("StartPriceReplay", asked(), message_id="one")
    host.fail(DataError("a defect"), "r1")
    ann.ask("StartPriceReplay", asked(replayId="r2", asFastAsRead=True, barsPerSecond=None), message_id="two")
    ann.ask("Goodbye")
    link.advance(ABSENT_SECONDS + 2.0)
    first = {"replayId": "r1", "clientId": "ann", "requestId": "one"}
    second = {"replayId": "r2", "clientId": "ann", "requestId": "two"}
    assert link.signals("replay_changed") == [
        {**first, "status": "running", "workerId": "interactive-1"},
        {**first, "status": "failed", "code": "DATA_ERROR", "message": "a defect"},
        {**second, "status": "running", "workerId": "interactive-1"},
        {**second, "status": "stopped", "reason": "its client has left"},
    ]


# --- steering ---


def test_a_pause_is_answered_when_the_worker_has_paused(link: Link, ann: Client, host: Worker) -> None:
    start(ann)
    host.answers = False
    pause = ann.later("PausePriceReplay", R1)
    host.play("r1", 3)
    resume, again = ann.later("ResumePriceReplay", R1), ann.later("PausePriceReplay", R1)
    host.paused("r1")
    assert ann.answer(pause) == {"replayId": "r1", "status": "paused"}
    assert ann.answers(resume) == []
    host.resumed("r1")
    host.paused("r1")
    assert ann.answer(resume) == {"replayId": "r1", "status": "running"}
    assert ann.answer(again) == {"replayId": "r1", "status": "paused"}
    assert states(link) == ["running", "paused", "running", "paused"]
    assert ann.ask("PausePriceReplay", R1)["status"] == "paused", "a repeated action changes nothing"
    host.play("r1")
    assert status(ann)["position"] == 3, "nothing is published by a paused one"
    assert link.signals("message_refused")


def test_a_stop_ends_the_price_replay_and_refuses_waiting_requests(link: Link, ann: Client, host: Worker) -> None:
    start(ann)
    host.answers = False
    stop, late = ann.later("StopPriceReplay", R1), ann.later("PausePriceReplay", R1)
    host.finish("r1", "stopped")
    assert ann.answer(stop)["status"] == "stopped"
    assert ann.answer(late)["details"] == {"status": "stopped"}
    assert states(link) == ["running", "stopped"]


def test_requests_that_wait_for_one_price_replay_are_bounded(ann: Client, host: Worker) -> None:
    start(ann)
    host.answers = False
    for _ in range(MAX_WAITING // 2):
        ann.later("PausePriceReplay", R1)
        ann.later("ResumePriceReplay", R1)
    assert ann.refused("PausePriceReplay", R1)["code"] == "BUSY"
    host.finish("r1", "stopped")


def test_a_starting_price_replay_can_be_stopped(link: Link, ann: Client, host: Worker) -> None:
    host.answers = False
    waits = ann.later("StartPriceReplay", asked())
    assert ann.ask("StopPriceReplay", R1) == ann.ask("StopPriceReplay", R1) == {"replayId": "r1", "status": "stopped"}
    assert ann.answer(waits)["code"] == "STATE_CONFLICT"
    host.answers = True
    message, payload = host.received[-1]
    host.do(message, payload)
    assert host.controls == [("stop", "r1")]
    assert states(link) == []
    start(ann)


def test_the_id_of_a_price_replay_that_is_being_stopped_is_free_soon(ann: Client, host: Worker) -> None:
    host.answers = False
    ann.later("StartPriceReplay", asked())
    ann.ask("StopPriceReplay", R1)
    error = ann.refused("StartPriceReplay", asked(), message_id="again")
    assert (error["code"], error["message"]) == ("BUSY", "replay 'r1' is being stopped")
    assert error["details"]["retryAfterMs"] > 0
    host.answers = True
    host.do(*host.received[-1])
    assert ann.ask("StartPriceReplay", asked(), message_id="again")["replayId"] == "r1", (
        "the refusal was not remembered"
    )


@pytest.mark.parametrize("how", ["cannot be opened", "its worker is lost"])
def test_a_price_replay_stopped_while_starting_is_forgotten_however_the_start_ends(
    link: Link, ann: Client, host: Worker, how: str
) -> None:
    host.answers = False
    waits = ann.later("StartPriceReplay", asked())
    ann.ask("StopPriceReplay", R1)
    if how == "cannot be opened":
        host.fail(DataError("no such bars"))
        host.answers = True
    else:
        host.do(*host.received[-1])
        assert host.controls == [("stop", "r1")]
        link.lose_worker(host)
    assert len(ann.answers(waits)) == 1
    start(ann)


def test_a_full_interactive_queue_begins_no_price_replay(link: Link, ann: Client, host: Worker) -> None:
    host.answers = False
    bob = link.client("bob")
    ann.later("ListMarketData")
    while (answers := bob.send("ListMarketData", {})) == []:
        pass
    assert answers[0]["payload"]["data"]["code"] == "BUSY"
    assert bob.refused("StartPriceReplay", asked())["code"] == "BUSY"
    link.core.check_invariants()
    host.answers = True
    for message, payload in list(host.received):
        host.do(message, payload)
    start(bob)


# --- false worker messages and lost workers ---


def test_an_answer_without_an_opened_replay_is_a_fault(ann: Client, host: Worker) -> None:
    host.answers = False
    waits = ann.later("StartPriceReplay", asked())
    host.finish()
    assert ann.answer(waits)["code"] == "SYSTEM_ERROR"


def test_the_failure_that_a_worker_reports_is_that_of_the_price_replay(ann: Client, host: Worker) -> None:
    start(ann)
    host.fail(DataError("a defect"), "r1")
    assert (status(ann)["status"], status(ann)["error"]["message"]) == ("failed", "a defect")


def test_a_request_that_waits_behind_a_stop_is_refused_when_the_worker_is_lost(
    link: Link, ann: Client, host: Worker
) -> None:
    start(ann)
    host.answers = False
    stop, late = ann.later("StopPriceReplay", R1), ann.later("ResumePriceReplay", R1)
    link.lose_worker(host)
    assert ann.answer(stop)["status"] == "stopped"
    assert ann.answer(late)["code"] == "STATE_CONFLICT"


def test_every_stop_that_waits_succeeds_when_the_worker_is_lost(link: Link, ann: Client, host: Worker) -> None:
    start(ann)
    host.answers = False
    stops = [ann.later("StopPriceReplay", R1) for _ in range(2)]
    link.lose_worker(host)
    assert [ann.answers(one) for one in stops] == [[{"type": "Success", "data": {**R1, "status": "stopped"}}]] * 2


def test_the_end_of_a_price_replay_that_a_worker_does_not_host_is_refused(
    link: Link, ann: Client, host: Worker
) -> None:
    start(ann)
    host.finish("r2", "completed")
    assert link.signals("message_refused")


@pytest.mark.parametrize(
    "message",
    [
        worker_channel.Published(
            topic="prices.OTHER.1m", count=1, replay=worker_channel.ReplayMark(replay_id="r1", current_time=0)
        ),
        worker_channel.Published(
            topic=TOPIC, count=0, replay=worker_channel.ReplayMark(replay_id="r1", current_time=0)
        ),
        worker_channel.Published(
            topic=TOPIC, count=REPLAY_BARS + 1, replay=worker_channel.ReplayMark(replay_id="r1", current_time=0)
        ),
        worker_channel.Published(
            topic=TOPIC, count=1, replay=worker_channel.ReplayMark(replay_id="r2", current_time=0)
        ),
        worker_channel.Published(topic=TOPIC, count=1),
        worker_channel.Paused(task_id="r1"),
        worker_channel.Resumed(task_id="r2"),
    ],
    ids=str,
)
def test_a_report_of_an_action_that_the_worker_was_not_told_is_refused(
    link: Link, ann: Client, host: Worker, message: worker_channel.ToBroker
) -> None:
    start(ann)
    host.say(message, [b"\x80"] if isinstance(message, worker_channel.Published) else [])
    assert link.signals("message_refused")
    assert (status(ann)["status"], status(ann)["position"], link.streams[TOPIC]) == ("running", 0, [])


def test_only_the_worker_that_hosts_a_price_replay_may_report_of_it() -> None:
    link = Link(interactive=2)
    ann = link.client("ann")
    start(ann)
    host, other = sorted(
        (link.worker("interactive-1"), link.worker("interactive-2")), key=lambda one: len(orders(one)), reverse=True
    )
    assert (len(orders(host)), len(orders(other))) == (1, 0)
    other.play("r1", 2)
    host.answers = False
    waits = ann.later("PausePriceReplay", R1)
    other.paused("r1")
    other.finish("r1", "completed")
    assert len(link.signals("message_refused")) == 3
    assert (status(ann)["status"], status(ann)["position"], link.streams[TOPIC]) == ("running", 0, [])
    host.play("r1", 3)
    host.paused("r1")
    assert ann.answer(waits)["status"] == "paused"
    assert status(ann)["position"] == 3


def test_a_batch_of_a_price_replay_has_a_bound(link: Link, ann: Client, host: Worker) -> None:
    start(ann)
    host.play("r1", worker_channel.MAX_BATCH + 1)
    assert link.signals("message_refused")
    host.play("r1", 100)
    assert status(ann)["position"] == 100


def test_a_price_replay_without_bars_is_a_failure(link: Link, ann: Client, host: Worker) -> None:
    host.answers = False
    asked = ann.later("StartPriceReplay", {**R1, "symbol": "SYNTH", "timeframe": "1m", "barsPerSecond": 1.0})
    host.finish(data={"bars": 0, "startTime": 0, "endTime": 0, "checksum": 1})
    assert (ann.answer(asked)["code"], link.signals("fault")[0]["requestId"]) == ("SYSTEM_ERROR", asked)


@pytest.mark.parametrize("outcome", ["completed", "stopped", "failed"])
def test_an_impossible_end_is_a_failure(ann: Client, host: Worker, outcome: worker_channel.Outcome) -> None:
    start(ann)
    host.finish("r1", outcome)
    assert (status(ann)["status"], status(ann)["error"]["code"]) == ("failed", "SYSTEM_ERROR")


def test_another_worker_continues_where_the_last_one_stopped(link: Link, ann: Client, host: Worker) -> None:
    start(ann)
    host.play("r1", 123)
    successor = link.lose_worker(host)
    (order,) = orders(successor)
    assert (order.position, order.checksum, order.start_time, order.end_time) == (123, 7, 0, 60_001)
    assert successor.controls == [("resume", "r1")]
    successor.play("r1", 1)
    assert [seq for seq, _ in link.streams[TOPIC]] == [1, 124]
    assert states(link) == ["running"], "the price replay was running all the time"


def test_an_action_requested_of_a_lost_worker_is_done(link: Link, ann: Client, host: Worker) -> None:
    for name in ("r1", "r2", "r3"):
        start(ann, replayId=name)
    host.answers = False
    waits = {
        name: ann.later(f"{verb}PriceReplay", {"replayId": name}) for name, verb in (("r1", "Pause"), ("r2", "Stop"))
    }
    link.lose_worker(host, again=False)
    assert ann.answer(waits["r1"])["status"] == "paused"
    assert ann.answer(waits["r2"])["status"] == "stopped"
    assert ann.ask("PausePriceReplay", {"replayId": "r3"})["status"] == "paused", "no worker publishes it"
    assert ann.ask("ResumePriceReplay", R1)["status"] == "running"
    successor = link.start_worker("interactive-1", "interactive")
    successor.ready()
    assert sorted(order.replay_id for order in orders(successor)) == ["r1", "r3"]
    assert successor.controls == [("resume", "r1")]


def test_a_price_replay_whose_workers_are_lost_without_a_bar_fails(link: Link, ann: Client, host: Worker) -> None:
    start(ann)
    worker = host
    for _ in range(MAX_LOSSES):
        worker = link.lose_worker(worker)
    assert status(ann)["status"] == "running"
    worker.play("r1")
    for _ in range(MAX_LOSSES):
        worker = link.lose_worker(worker)
    assert status(ann)["status"] == "running", "a bar between is progress"
    link.lose_worker(worker)
    assert "ended 3 times in a row: killed by signal 9" in status(ann)["error"]["message"]


def test_a_price_replay_continues_although_the_queue_of_interactive_tasks_is_full(
    link: Link, ann: Client, host: Worker
) -> None:
    start(ann)
    bob = link.client("bob")
    host.answers = False
    asked_by_ann = 0
    while ann.send("ListMarketData", {}) == []:
        asked_by_ann += 1
    while bob.send("ListMarketData", {}) == []:
        pass
    assert asked_by_ann > 1
    assert bob.refused("StartPriceReplay", asked(replayId="r2"))["code"] == "BUSY"
    successor = link.lose_worker(host)
    assert [order.replay_id for order in orders(successor)] == ["r1"]
    assert successor.controls == [("resume", "r1")]
    assert status(ann)["status"] == "running"
    link.core.check_invariants()


def test_bars_that_changed_under_a_price_replay_fail_it(link: Link, ann: Client, host: Worker) -> None:
    start(ann)
    successor = link.lose_worker(host, again=False)
    successor = link.start_worker("interactive-1", "interactive")
    successor.answers = False
    successor.ready()
    successor.fail(DataError("the stored bars changed"))
    assert (status(ann)["status"], status(ann)["error"]["code"]) == ("failed", "DATA_ERROR")
    assert states(link) == ["running", "failed"]


def test_a_restart_of_the_broker_ends_price_replays(link: Link, ann: Client) -> None:
    start(ann)
    link.restart_broker()
    ann.reconnect()
    error = ann.refused("GetPriceReplayStatus", R1)
    assert error["code"] == "NOT_FOUND"
    assert "a replay does not outlive its broker" in error["message"]


# --- credit ---


def test_a_price_replay_is_no_further_ahead_of_its_reader_than_its_topic_retains(ann: Client, host: Worker) -> None:
    start(ann, asFastAsRead=True)
    assert orders(host)[0].allowed == WINDOW
    assert credits(host) == [WINDOW]
    host.play("r1", WINDOW)
    host.play("r1", 1)
    assert status(ann)["position"] == WINDOW, "bars beyond the credit are refused"
    ann.ask("AcknowledgePrices", {**R1, "seq": 2_500})
    assert credits(host)[1:] == [WINDOW + 2_500]
    ann.ask("AcknowledgePrices", {**R1, "seq": 2_600})
    ann.ask("AcknowledgePrices", {**R1, "seq": 100})
    assert len(credits(host)) == 2, "a small change is not sent, and credit is never lowered"
    ann.ask("AcknowledgePrices", {**R1, "seq": WINDOW})
    assert credits(host)[2:] == [2 * WINDOW]


def test_messages_of_others_on_the_topic_count_as_unread(link: Link, ann: Client, host: Worker) -> None:
    start(ann, asFastAsRead=True)
    host.play("r1", 5_000)
    for _ in range(2_000):
        link.core.outbox.publish(TOPIC, OTHERS)
    ann.ask("AcknowledgePrices", {**R1, "seq": 5_000})
    assert credits(host)[1:] == [5_000 + WINDOW - 2_000]


def test_invalid_acknowledgements_are_refused(link: Link, ann: Client, host: Worker) -> None:
    start(ann, asFastAsRead=True)
    start(ann, replayId="r2")
    assert ann.refused("AcknowledgePrices", {**R1, "seq": 1})["details"] == {"path": "$.seq"}
    assert "waits for no client" in ann.refused("AcknowledgePrices", {"replayId": "r2", "seq": 1})["message"]
    assert "waits for 'ann'" in link.client("bob").refused("AcknowledgePrices", {**R1, "seq": 1})["message"]
    ann.ask("StopPriceReplay", R1)
    assert ann.ask("AcknowledgePrices", {**R1, "seq": 1})["status"] == "stopped", "a late acknowledgement is accepted"


def test_credit_outlives_the_worker(link: Link, ann: Client, host: Worker) -> None:
    start(ann, asFastAsRead=True)
    host.play("r1", 6_000)
    link.lose_worker(host, again=False)
    ann.ask("AcknowledgePrices", {**R1, "seq": 6_000})
    successor = link.start_worker("interactive-1", "interactive")
    successor.ready()
    assert credits(successor) == [6_000 + WINDOW]


def test_a_price_replay_that_ends_before_its_stop_has_no_reason_for_a_stop(
    link: Link, ann: Client, host: Worker
) -> None:
    start(ann, asFastAsRead=True)
    for count in (WINDOW, WINDOW, REPLAY_BARS - 2 * WINDOW):
        host.play("r1", count)
        ann.ask("AcknowledgePrices", {**R1, "seq": status(ann)["lastSeq"]})
    host.answers = False
    ann.ask("Goodbye")
    link.advance(ABSENT_SECONDS + 2.0)
    assert host.controls[-1] == ("stop", "r1")
    host.finish("r1", "completed")
    ended = status(link.client("bob"))
    assert (ended["status"], ended.get("reason")) == ("completed", None)


@pytest.mark.parametrize("how", ["goodbye", "silence", "dropped"])
def test_a_price_replay_that_waits_for_a_client_that_has_left_is_stopped(link: Link, ann: Client, how: str) -> None:
    bob = link.client("bob")
    start(ann, asFastAsRead=True)
    start(ann, replayId="rated")
    match how:
        case "goodbye":
            ann.ask("Goodbye")
        case "silence":
            link.advance(30.0)
        case "dropped":
            link.core.sessions.clear()
    link.advance(ABSENT_SECONDS + 2.0)
    bob = link.client("bob")
    ended = status(bob)
    assert (ended["status"], ended["reason"]) == ("stopped", "its client has left")
    assert status(bob, "rated")["status"] == "running", "others may watch it"


def test_a_client_that_comes_back_keeps_its_price_replay(link: Link, ann: Client) -> None:
    start(ann, asFastAsRead=True)
    ann.ask("Goodbye")
    link.advance(ABSENT_SECONDS / 2)
    ann.reconnect()
    link.advance(2 * ABSENT_SECONDS)
    assert status(ann)["status"] == "running"


def test_two_short_absences_do_not_add_up(link: Link, ann: Client) -> None:
    start(ann, asFastAsRead=True)
    for _ in range(2):
        ann.ask("Goodbye")
        link.advance(ABSENT_SECONDS - 1.5)
        ann.reconnect()
        link.advance(1.5)
    assert status(ann)["status"] == "running"


def test_a_busy_worker_is_told_once_to_stop(link: Link, ann: Client, host: Worker) -> None:
    start(ann, asFastAsRead=True)
    host.answers = False
    ann.ask("Goodbye")
    link.advance(ABSENT_SECONDS + 20.0)
    assert host.controls.count(("stop", "r1")) == 1
    host.finish("r1", "stopped")
    assert status(link.client("bob"))["reason"] == "its client has left"


def test_a_price_replay_without_a_worker_is_stopped(link: Link, ann: Client, host: Worker) -> None:
    start(ann, asFastAsRead=True)
    link.lose_worker(host, again=False)
    ann.ask("Goodbye")
    link.advance(ABSENT_SECONDS + 2.0)
    assert status(link.client("bob"))["status"] == "stopped"
    successor = link.start_worker("interactive-1", "interactive")
    successor.ready()
    assert successor.controls == [("stop", "r1")], "the worker had been assigned the price replay"
    assert not link.signals("message_refused")
