"""Every request with a hostile value in any field has one typed answer, and no note of a worker does harm."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, get_args

import msgspec
import pytest

from backtestr_broker.core.events import RequestReceived, WorkerSent
from backtestr_protocol import worker_channel
from backtestr_protocol.codec import encode
from backtestr_protocol.errors import ErrorCode
from backtestr_protocol.message_types import REQUESTS
from support.broker.clients import Client
from support.broker.link import ALGORITHM, Link, config
from support.protocol import hostile_values
from support.protocol.independent import Fields

CODES = set(get_args(ErrorCode)) - {"SYSTEM_ERROR"}
# Those of the engine are tried with the engine (tests/engine).
OF_THE_ENGINE = ("options.", "parameters.", "indicators.0.parameters.")
CASES: dict[str, list[tuple[str, Fields]]] = defaultdict(list)
for _name, _field, _data in hostile_values.requests():
    if not _field.startswith(OF_THE_ENGINE):
        CASES[_name].append((_field, _data))


class Attacked(Link):
    """Its worker answers with an algorithm where it has to."""

    def answer_to(self, work: worker_channel.Work, data: bytes) -> bytes:
        return encode(ALGORITHM) if "Algorithm" in work else super().answer_to(work, data)


def test_every_request_type_is_attacked() -> None:
    assert CASES.keys() == REQUESTS.keys()
    for name, row in REQUESTS.items():
        attacked = {field.split(".")[0] for field, _ in CASES[name]}
        assert attacked >= {field.encode_name for field in msgspec.structs.fields(row.data)}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_hostile_value_in_any_field_has_a_typed_answer(name: str) -> None:
    link = Attacked()
    ann = link.client()
    for number, (field, data) in enumerate(CASES[name]):
        if link.core.sessions.on(ann.peer) is None or name == "Hello":
            ann.reconnect()
        (answer,) = attacked(link, ann, name, data, f"{number}")
        assert_typed(answer, (name, field, str(data)[:200]))
        if number % 50 == 0:
            link.core.check_invariants()
    link.core.check_invariants()
    assert link.signals("fault") == []
    assert link.client("bob").ask("Ping") == {"timestamp": link.wall_ms}


def test_a_hostile_value_in_any_field_of_the_envelope_has_a_typed_answer() -> None:
    link = Link()
    ann = link.client()
    valid = {
        **hostile_values.envelope("Ping", {}, "an-id", link.wall_ms),
        **dict.fromkeys(("correlationId", "instanceId"), "x"),
    }
    for number, (field, envelope) in enumerate(hostile_values.envelopes({**valid, "sessionId": "", "counter": 0})):
        if link.core.sessions.on(ann.peer) is None:
            ann.reconnect()
        ann.requests.counter += 1
        session = {"sessionId": ann.requests.session_id, "counter": ann.requests.counter, "id": f"{number}"}
        changed = {name: value for name, value in session.items() if name != field and name in envelope}
        before = len(ann.inbox)
        link.request(ann.peer, hostile_values.request_frames(link.key, {**envelope, **changed}))
        link.now += 1.0  # an error without an id comes once a second
        for answer, _ in ann.inbox[before:]:
            assert_typed(answer, (field, str(envelope)[:200]))
        assert len(ann.inbox) - before == 1, (field, str(envelope)[:200])
    link.core.check_invariants()
    assert link.signals("fault") == []


def test_requests_with_several_hostile_values_have_typed_answers() -> None:
    link = Attacked()
    ann = link.client()
    for number, (name, field, data) in enumerate(hostile_values.random_requests(seed=1, count=3_000)):
        if link.core.sessions.on(ann.peer) is None or name == "Hello":
            ann.reconnect()
        for answer in attacked(link, ann, name, data, f"{number}"):
            assert_typed(answer, (name, field, str(data)[:200]))
    link.core.check_invariants()
    assert link.signals("fault") == []


def attacked(link: Link, client: Client, name: str, data: Any, message_id: str) -> list[Fields]:
    """Return the answers to a request that come at once."""
    envelope = hostile_values.envelope(name, data, message_id, link.wall_ms)
    if name != "Hello":
        client.requests.counter += 1
        envelope |= {"sessionId": client.requests.session_id, "counter": client.requests.counter}
    before = len(client.inbox)
    link.feed(RequestReceived(client.peer, hostile_values.request_frames(link.key, envelope), link.wall_ms))
    if len(client.inbox) == before:  # its id cannot be read, and such an error comes once a second
        link.now += 1.0
        link.feed(RequestReceived(client.peer, hostile_values.request_frames(link.key, envelope), link.wall_ms))
        assert client.inbox[-1][0]["payload"]["data"]["code"] == "IPC_SERIALIZATION_ERROR", str(data)[:200]
    return [answer for answer, _ in client.inbox[before:]]


def assert_typed(answer: Fields, about: object) -> None:
    assert answer["messageType"] in ("Response", "Error"), about
    payload = answer["payload"]
    if payload["type"] != "Success":
        assert payload["data"]["code"] in CODES, (about, payload["data"])
        assert 0 < len(payload["data"]["message"]) < 2_000, about
        if payload["data"]["code"] == "VALIDATION_ERROR":
            assert payload["data"]["details"]["path"].startswith("$"), about


# --- notes of workers ---

PAYLOADS: tuple[list[bytes], ...] = ([encode({"type": "Anything", "data": {}})], [], [encode({})] * 2)


@pytest.mark.parametrize("struct", get_args(worker_channel.ToBroker), ids=lambda struct: struct.__name__)
def test_a_hostile_value_in_any_field_of_a_note_does_no_harm(struct: type) -> None:
    link = Link()
    ann = link.client()
    ann.ask("StartPriceReplay", {"replayId": "r1", "symbol": "SYNTH", "timeframe": "1m", "barsPerSecond": 5.0})
    for number, (name, field, note) in enumerate(hostile_values.notes(current(link, ann))):
        if name != struct.__name__:
            continue
        hints = current(link, ann)
        named: Fields = {
            key: hints[key] for key in ("taskId", "topic", "workerId") if key in note and not field.startswith(key)
        }
        for worker_id in ("compute-1", "interactive-1"):
            frames = hostile_values.note_frames({**note, **named}, PAYLOADS[number % 3])
            link.feed(WorkerSent(link.worker(worker_id).peer, frames, link.wall_ms))
        if number % 20 == 0:
            link.core.check_invariants()
            assert ann.ask("Ping"), (name, field)
    link.advance(2.0)
    link.core.check_invariants()
    # A backtest of which a worker says that it has cost two workers fails, and its error is in the log.
    cost_two = "has cost two workers" if struct is worker_channel.CostWorkers else None
    assert [one for one in link.signals("fault") if cost_two is None or cost_two not in one["message"]] == []
    assert link.restarts == []


def current(link: Link, client: Client) -> Fields:
    """Return valid values of notes, of a backtest that runs. A worker that said it would end is started again."""
    kinds: dict[str, worker_channel.WorkerKind] = {"compute-1": "compute", "interactive-1": "interactive"}
    for worker_id, kind in kinds.items():
        if link.core.scheduler.workers.get(worker_id).has_ended:
            link.start_worker(worker_id, kind).ready()
    while (task_id := link.core.scheduler.workers.get("compute-1").task_id) is None:
        link.named += 1
        client.send("StartBacktest", config(backtestId=f"b{link.named}"))
    return {"taskId": task_id, "topic": f"orders.{task_id}", "count": 1, "workerId": "compute-1", "kind": "compute"}
