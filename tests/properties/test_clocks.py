"""Clocks that jump, late answers, and a name that two clients share make no difference.

Two links get the same steps; on one of them the wall clock is set by up to an hour, again and again. The test compares
all that a timer, a session or a window could have decided.
"""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_broker.core.clients.sessions import REPLAY_WINDOW
from backtestr_protocol.errors import NetworkError, TimedOut
from backtestr_protocol.messages import BacktestConfig, UpdateState
from support.broker.anatomy import anatomy
from support.broker.clients import Client
from support.broker.link import LIMITS, Link, config
from support.protocol.independent import Fields

HOUR = 3600.0
# Long enough for a session to be dropped, and for a remembered answer to be forgotten.
PAUSES = (0.0, 0.2, 1.0, 29.0, 31.0, 301.0)
# A heartbeat every five seconds, since each costs the test a millisecond and decides nothing here.
RARE_HEARTBEATS = msgspec.structs.replace(LIMITS, heartbeat_interval_ms=5_000)

jumps = st.sampled_from([HOUR, -HOUR, 1.0, -1.0])
steps = st.sampled_from(
    ["ask", "ask", "state", "start", "again", "old counter", "reconnect", "finish", "lose", "restart", "session"]
)
script = st.lists(st.tuples(steps, st.sampled_from(PAUSES), jumps), max_size=25)


class Scripted:
    """A link on which a script is executed, and its outcome without wall clock times."""

    def __init__(self, *, jumping: bool) -> None:
        self.jumping = jumping
        self.link = Link(limits=RARE_HEARTBEATS)
        self.ann = self.link.client("ann")
        self.session = self.link.session("sid")
        self.last: tuple[str, Any, str] | None = None
        self.asked = 0

    def execute(self, step: str, pause: float, jump: float) -> None:
        if self.jumping:
            self.link.set_clock(jump)
        self.link.advance(pause)
        match step:
            case "ask":
                self.ask("Ping", {})
            case "state":
                self.ask("UpdateState", {"key": "a", "value": self.asked})
            case "start":
                self.ask("StartBacktest", config(backtestId=f"b{self.asked}"))
            case "again" if self.last is not None:
                type_name, data, message_id = self.last
                self.ann.send(type_name, data, message_id=message_id)
            case "old counter":
                self.ann.requests.counter += REPLAY_WINDOW
                self.ask("Ping", {})
                self.ann.requests.counter -= REPLAY_WINDOW
                self.ask("Ping", {})
                self.ann.requests.counter += REPLAY_WINDOW
            case "reconnect":
                self.ann.reconnect()
            case "finish" if self.link.core.scheduler.workers.get("compute-1").task_id is not None:
                self.link.worker("compute-1").finish()
            case "lose":
                self.link.lose_worker(self.link.worker("compute-1"))
            case "restart":
                # After a restart the age of an answer is known from the wall clock only.
                self.link.disk.answers.clear()
                self.link.restart_broker()
                self.ann.reconnect()
            case "session":
                self.session.ask("StartBacktest", msgspec.convert(config(), BacktestConfig), timeout=20.0)
        self.link.core.check_invariants()

    def ask(self, type_name: str, data: Any) -> None:
        self.asked += 1
        self.last = (type_name, data, f"request-{self.asked}")
        self.ann.send(type_name, data, message_id=f"request-{self.asked}")

    def outcome(self) -> Fields:
        core = self.link.core
        answers = [
            (one["correlationId"], one["payload"]["type"], code(one))
            for one, _ in self.ann.inbox
            if one["correlationId"].startswith("request-")  # a Hello has another id every time
        ]
        return {
            "answers": answers,
            "session": (list(self.session.answered), {one: str(e) for one, e in self.session.failed.items()}),
            "next": core.next_deadline(),
            "sessions": anatomy(core.sessions),
            "streams": {topic: [seq for seq, _ in found] for topic, found in self.link.streams.items()},
            "jobs": [(job.backtest_id, job.status, job.losses, job.worker_id) for job in core.scheduler.jobs],
            "versions": {record.key: (record.version, record.value) for record in core.state.snapshot("")},
            "notices": self.link.notices,
        }


def code(envelope: Fields) -> str | None:
    return envelope["payload"]["data"].get("code") if envelope["payload"]["type"] != "Success" else None


@settings(max_examples=40, deadline=None)
@given(script)
def test_a_clock_that_jumps_changes_nothing_but_the_time_it_shows(drawn: list[tuple[str, float, float]]) -> None:
    steady, jumping = Scripted(jumping=False), Scripted(jumping=True)
    for step in drawn:
        steady.execute(*step)
        jumping.execute(*step)
        assert jumping.outcome() == steady.outcome()


def test_the_time_that_is_shown_is_the_wall_clocks() -> None:
    link = Link()
    ann = link.client()
    before = ann.ask("Ping")["timestamp"]
    link.set_clock(-HOUR)
    assert ann.ask("Ping")["timestamp"] == before - 3_600_000 == link.wall_ms


# --- late answers ---

deliveries = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.just(0)),
        st.tuples(st.just("ask"), st.just(0)),
        st.tuples(st.just("deliver"), st.integers(0, 30)),
        st.tuples(st.just("deliver"), st.integers(0, 30)),
        st.tuples(st.just("wait"), st.sampled_from([0, 1, 3])),
        st.tuples(st.sampled_from(["reconnect", "restart", "set clock"]), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(deliveries)
def test_a_late_answer_meets_its_own_request_or_none(actions: list[tuple[str, int]]) -> None:
    """Each request sets a key of its own, so that an answer names its request."""
    link = Link()
    ann = link.session()
    asked: dict[str, str] = {}
    link.hold_replies()

    def deliver(index: int) -> None:
        if link.held_replies:
            link.deliver(index % len(link.held_replies))

    for action, number in actions:
        match action:
            case "ask":
                key = f"k{len(asked)}"
                asked[ann.ask("UpdateState", UpdateState(key=key, value=msgspec.Raw(b"\x01")), timeout=2.0)] = key
            case "deliver":
                deliver(number)
            case "wait":
                link.advance(number)
            case "reconnect":
                ann.disconnect()
                ann.connect()
            case "restart":
                link.restart_broker()
            case "set clock":
                link.set_clock(-HOUR)
        link.core.check_invariants()
    link.advance(10.0)
    while link.held_replies:
        deliver(0)
    assert ann.answered.keys() | ann.failed.keys() == asked.keys()
    assert not ann.answered.keys() & ann.failed.keys()
    for request_id, answer in ann.answered.items():
        assert answer.key == asked[request_id]
    assert all(isinstance(error, TimedOut | NetworkError) for error in ann.failed.values()), ann.failed


# --- names that two clients share ---

sharing = st.lists(
    st.tuples(st.sampled_from([0, 1]), st.sampled_from(["ask", "same id", "reconnect", "goodbye"])), max_size=30
)


@settings(max_examples=100, deadline=None)
@given(sharing)
def test_two_clients_of_one_name_get_their_own_answers_and_do_not_affect_others(actions: list[tuple[int, str]]) -> None:
    link = Link()
    bystander = link.client("bob")
    twins = [link.client("ann"), link.client("ann")]
    made = 0
    for which, action in actions:
        twin = twins[which]
        match action:
            case "ask":
                made += 1
                data = {"key": f"k{which}", "value": made}
                assert twin.ask("UpdateState", data, message_id=f"{which}-{made}")["key"] == f"k{which}"
            case "same id":
                answered = one_answer(twin, "shared")
                assert answered["key"] == "shared", "the same request from either of the two"
                assert answered["version"] == 1, "executed once"
            case "reconnect":
                twin.reconnect()
            case "goodbye":
                twin.ask("Goodbye")
                twin.hello()
        assert bystander.ask("Ping")
        assert len({client.requests.session_id for client in (*twins, bystander)}) == 3
        link.core.check_invariants()
    versions = {record.key: record.version for record in link.core.state.snapshot("k")}
    assert sum(versions.values()) == made


def one_answer(client: Client, message_id: str) -> Fields:
    return client.ask("UpdateState", {"key": "shared", "value": 0}, message_id=message_id)
