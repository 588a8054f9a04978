"""The laws of a replica: over any network it comes to equal the broker, and withdrawn updates leave no trace."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr.core.effects import Delivery, Gap, MaybeLost, Restarted, StreamMessage
from backtestr.state.replica import ABSENT, Committed, Replica, VersionedValue
from backtestr_protocol.codec import encode
from backtestr_protocol.errors import MessageError
from backtestr_protocol.messages import DeleteState, SnapshotState, StateEntry, StateSnapshot, UpdateState
from backtestr_protocol.state_values import checksum, value_bytes
from backtestr_protocol.stream_messages import StateUpdate
from support.client.link import Link

KEYS = ("x.a", "x.b", "x.c")


class Broker:
    """Keys with versions and revisions as the broker counts them, and every message that it has published."""

    def __init__(self) -> None:
        self.entries: dict[str, StateEntry] = {}
        self.versions: dict[str, int] = {}
        self.published: list[StateUpdate] = []

    def change(self, key: str, value: Any, *, deleted: bool = False) -> StateUpdate:
        self.versions[key] = self.versions.get(key, 0) + 1
        facts = {
            "key": key,
            "value": value,
            "version": self.versions[key],
            "checksum": checksum(value_bytes(value)),
            "timestamp": 1,
        }
        update = StateUpdate(**facts, revision=len(self.published) + 1, deleted=deleted)
        self.entries.pop(key, None)
        if not deleted:
            self.entries[key] = StateEntry(**facts)
        self.published.append(update)
        return update

    def snapshot(self) -> StateSnapshot:
        return StateSnapshot(entries=list(self.entries.values()), watermark=len(self.published))


def delivery(update: StateUpdate) -> Delivery:
    return StreamMessage(f"state.{update.key}", 1, "StateUpdate", msgspec.Raw(encode(update)))


def contents(replica: Replica) -> dict[str, VersionedValue]:
    return {key: replica.committed(key) for key in replica.visible_keys()}


def expected(broker: Broker) -> dict[str, VersionedValue]:
    return {
        key: VersionedValue(entry.version, value_bytes(entry.value)) for key, entry in sorted(broker.entries.items())
    }


def settle(replica: Replica, broker: Broker) -> list[Committed]:
    snapshot = broker.snapshot()
    return replica.apply_snapshot(replica.begin_snapshot(), snapshot.entries, snapshot.watermark)


# --- laws ---

CHANGES = st.tuples(st.sampled_from(KEYS[:2]), st.integers(0, 9), st.booleans())
STEPS = st.one_of(
    st.tuples(st.just("change"), CHANGES),
    st.tuples(st.just("own change"), CHANGES),
    st.tuples(st.just("deliver"), st.integers(0, 30)),
    st.tuples(st.just("confirm"), st.integers(0, 30)),
    st.tuples(st.just("ask"), st.none()),
    st.tuples(st.just("answer"), st.none()),
)


class Exchange:
    """A broker, a replica and the messages between them, which arrive in any order and any number of times."""

    def __init__(self) -> None:
        self.broker = Broker()
        self.replica = Replica()
        self.seen: dict[str, VersionedValue] = {}
        self.own: list[tuple[str, int, StateUpdate]] = []  # own changes whose answer is on its way
        self.asked: tuple[int, StateSnapshot | None] | None = None

    def report(self, changes: list[Committed]) -> None:
        for change in changes:
            assert self.seen.get(change.key, ABSENT) != change.current, "a change was reported that is none"
            self.seen[change.key] = change.current

    def step(self, kind: str, what: Any) -> None:
        match kind:
            case "change":
                self.change(*what)
            case "own change":
                key, value, deleted = what
                update_id = self.replica.begin_update(key, None if deleted else value_bytes(value))
                self.own.append((key, update_id, self.change(key, value, deleted)))
            case "deliver" if self.broker.published:
                self.deliver(self.broker.published[what % len(self.broker.published)])
            case "confirm" if self.own:
                key, update_id, update = self.own.pop(what % len(self.own))
                self.report(self.replica.confirm_update(key, update_id, update.version))
            case "ask" if self.asked is None:
                self.asked = self.replica.begin_snapshot(), self.broker.snapshot()
            case "answer" if self.asked is not None:
                self.answer()
        self.replica.check_invariants()

    def change(self, key: str, value: int, deleted: bool) -> StateUpdate:
        return self.broker.change(key, None if deleted else value, deleted=deleted)

    def deliver(self, update: StateUpdate) -> None:
        self.report(self.replica.receive(delivery(update)))

    def answer(self) -> None:
        assert self.asked is not None
        number, snapshot = self.asked
        self.asked = None
        assert snapshot is not None
        self.report(self.replica.apply_snapshot(number, snapshot.entries, snapshot.watermark))

    def confirm_all(self) -> None:
        while self.own:
            self.step("confirm", 0)

    def restart(self, broker: Broker) -> None:
        """Start another broker, with this state; it does not answer what the last one was asked."""
        self.confirm_all()
        self.asked = None
        self.broker = broker
        self.replica.receive(Restarted("another"))


@settings(max_examples=400, deadline=None)
@given(st.lists(STEPS, max_size=40), st.randoms(use_true_random=False))
def test_once_every_message_has_arrived_it_equals_the_broker(steps: list[tuple[str, Any]], chance: Any) -> None:
    exchange = Exchange()
    for kind, what in [("ask", None), *steps]:
        exchange.step(kind, what)
    rest = list(exchange.broker.published)
    chance.shuffle(rest)
    for update in rest[: len(rest) // 2]:
        exchange.deliver(update)
    if exchange.asked is not None:
        exchange.answer()
    exchange.confirm_all()
    for update in rest[len(rest) // 2 :] + rest[:3]:
        exchange.deliver(update)
    assert not exchange.replica.needs_snapshot
    assert contents(exchange.replica) == expected(exchange.broker)
    assert {key: value for key, value in sorted(exchange.seen.items()) if value != ABSENT} == expected(exchange.broker)


@settings(max_examples=200, deadline=None)
@given(st.lists(STEPS, max_size=40))
def test_a_snapshot_repairs_any_loss(steps: list[tuple[str, Any]]) -> None:
    exchange = Exchange()
    for kind, what in steps:
        exchange.step(kind, what)
    exchange.confirm_all()
    if exchange.asked is not None:
        exchange.answer()
    exchange.report(settle(exchange.replica, exchange.broker))
    assert contents(exchange.replica) == expected(exchange.broker)
    assert {key: value for key, value in sorted(exchange.seen.items()) if value != ABSENT} == expected(exchange.broker)


@settings(max_examples=100, deadline=None)
@given(st.lists(STEPS, max_size=20), st.lists(STEPS, max_size=20), st.booleans())
def test_a_restarted_broker_may_have_another_state(
    before: list[tuple[str, Any]], after: list[tuple[str, Any]], is_other: bool
) -> None:
    exchange = Exchange()
    for kind, what in [("ask", None), ("answer", None), *before]:
        exchange.step(kind, what)
    exchange.restart(Broker() if is_other else exchange.broker)
    published = len(exchange.broker.published)
    for kind, what in after:
        if kind != "deliver" or len(exchange.broker.published) > published:
            exchange.step(
                kind, published + what % (len(exchange.broker.published) - published) if kind == "deliver" else what
            )
    exchange.confirm_all()
    if exchange.asked is not None:
        exchange.answer()
    for update in exchange.broker.published[published:]:
        exchange.deliver(update)
    if exchange.replica.needs_snapshot:
        exchange.report(settle(exchange.replica, exchange.broker))
    assert contents(exchange.replica) == expected(exchange.broker)


# --- one rule at a time ---


def test_it_needs_a_snapshot_until_one_that_was_requested_after_the_last_reason() -> None:
    broker, replica = Broker(), Replica()
    needs = [replica.needs_snapshot]
    settle(replica, broker)
    for reason in (MaybeLost("state."), Gap("state.x.a", 1, 2), Restarted("another")):
        needs.append(replica.needs_snapshot)
        replica.receive(reason)
        needs.append(replica.needs_snapshot)
        asked = replica.begin_snapshot()
        replica.receive(MaybeLost("state."))
        replica.apply_snapshot(asked, [], 0)
        needs.append(replica.needs_snapshot)  # the last reason came after the request
        settle(replica, broker)
    assert needs == [True, *[False, True, True] * 3]


def test_an_unreadable_message_is_raised_and_a_reason_for_a_snapshot() -> None:
    replica = Replica()
    settle(replica, Broker())
    with pytest.raises(MessageError):
        replica.receive(StreamMessage("state.x", 1, "StateUpdate", msgspec.Raw(encode({"key": 1}))))
    assert replica.needs_snapshot


def test_an_older_version_changes_nothing() -> None:
    broker, replica = Broker(), Replica()
    settle(replica, broker)
    old, new = broker.change("x.a", 1), broker.change("x.a", 2)
    assert replica.receive(delivery(new)) == [Committed("x.a", VersionedValue(2, value_bytes(2)))]
    assert replica.receive(delivery(old)) == []
    assert replica.receive(delivery(new)) == []


def test_an_older_update_does_not_bring_back_a_deleted_key() -> None:
    broker, replica = Broker(), Replica()
    settle(replica, broker)
    set_, deleted = broker.change("x.a", 1), broker.change("x.a", None, deleted=True)
    replica.receive(delivery(deleted))
    assert replica.receive(delivery(set_)) == []
    assert replica.committed("x.a") == ABSENT
    assert replica.receive(delivery(broker.change("x.a", 3))) == [Committed("x.a", VersionedValue(3, value_bytes(3)))]


def test_an_optimistic_update_shows_at_once_and_leaves_no_trace_when_it_is_withdrawn() -> None:
    broker, replica = Broker(), Replica()
    broker.change("x.a", 1)
    settle(replica, broker)
    update_id = replica.begin_update("x.a", value_bytes(2))
    other = replica.begin_update("x.b", value_bytes(3))
    assert [replica.visible(key) for key in replica.visible_keys()] == [value_bytes(2), value_bytes(3)]
    assert replica.committed("x.a") == VersionedValue(1, value_bytes(1))
    replica.withdraw_update("x.a", update_id)
    replica.withdraw_update("x.a", update_id)
    replica.withdraw_update("x.b", other)
    assert contents(replica) == expected(broker)
    replica.check_invariants()


def test_the_latest_of_several_optimistic_updates_shows() -> None:
    replica = Replica()
    first, second = replica.begin_update("x.a", value_bytes(1)), replica.begin_update("x.a", value_bytes(2))
    replica.revise_update("x.a", first, value_bytes(9))
    assert replica.visible("x.a") == value_bytes(2)
    replica.withdraw_update("x.a", second)
    assert replica.visible("x.a") == value_bytes(9)


def test_an_optimistic_deletion_hides_the_key() -> None:
    broker, replica = Broker(), Replica()
    broker.change("x.a", 1)
    settle(replica, broker)
    replica.begin_update("x.a", None)
    assert list(replica.visible_keys()) == []


def test_the_stream_message_of_a_confirmed_update_changes_nothing() -> None:
    broker, replica = Broker(), Replica()
    settle(replica, broker)
    update_id = replica.begin_update("x.a", value_bytes(1))
    update = broker.change("x.a", 1)
    assert replica.confirm_update("x.a", update_id, update.version) == [
        Committed("x.a", VersionedValue(1, value_bytes(1)))
    ]
    assert replica.receive(delivery(update)) == []


def test_a_snapshot_overrules_an_update_that_was_confirmed_before_its_request() -> None:
    broker, replica = Broker(), Replica()
    settle(replica, broker)
    update_id = replica.begin_update("x.a", value_bytes(1))
    replica.confirm_update("x.a", update_id, broker.change("x.a", 1).version)
    broker.change("x.a", None, deleted=True)
    assert settle(replica, broker) == [Committed("x.a", ABSENT)]


def test_an_update_that_is_confirmed_during_the_request_of_a_snapshot_stays() -> None:
    broker, replica = Broker(), Replica()
    asked, snapshot = replica.begin_snapshot(), broker.snapshot()
    update_id = replica.begin_update("x.a", value_bytes(1))
    replica.confirm_update("x.a", update_id, broker.change("x.a", 1).version)
    assert replica.apply_snapshot(asked, snapshot.entries, snapshot.watermark) == []
    assert contents(replica) == expected(broker)


def test_an_update_that_is_later_than_the_snapshot_stays() -> None:
    broker, replica = Broker(), Replica()
    broker.change("x.a", 1)
    asked, snapshot = replica.begin_snapshot(), broker.snapshot()
    replica.receive(delivery(broker.change("x.a", 2)))
    replica.receive(delivery(broker.change("x.b", 3)))
    assert replica.apply_snapshot(asked, snapshot.entries, snapshot.watermark) == []
    assert contents(replica) == expected(broker)


def test_a_key_that_a_snapshot_lacks_does_not_come_back_for_a_moment() -> None:
    broker, replica = Broker(), Replica()
    set_, deleted = broker.change("x.a", 1), broker.change("x.a", None, deleted=True)
    settle(replica, broker)
    assert replica.receive(delivery(set_)) == []
    assert replica.receive(delivery(deleted)) == []


def test_a_late_answer_does_not_bring_back_a_key_that_was_deleted_since() -> None:
    broker, replica = Broker(), Replica()
    settle(replica, broker)
    update_id = replica.begin_update("x.a", value_bytes(1))
    own, deleted = broker.change("x.a", 1), broker.change("x.a", None, deleted=True)
    replica.receive(delivery(deleted))
    settle(replica, broker)
    assert replica.confirm_update("x.a", update_id, own.version) == []
    assert replica.committed("x.a") == ABSENT


def test_the_value_in_a_conflict_is_learned() -> None:
    broker, replica = Broker(), Replica()
    settle(replica, broker)
    update = broker.change("x.a", 1)
    assert replica.learn("x.a", VersionedValue(update.version, value_bytes(1))) == [
        Committed("x.a", VersionedValue(1, value_bytes(1)))
    ]
    assert replica.learn("x.a", ABSENT) == []
    assert replica.receive(delivery(update)) == []


# --- against the broker's core ---


class Follower:
    """A replica of `x.` on a link, which takes the deliveries and requests snapshots when it needs them."""

    def __init__(self, link: Link, number: int) -> None:
        self.link = link
        self.number = number
        self.replica = Replica()
        self.taken = 0
        link.subscribe(number, "state.x.", "latest")

    def catch_up(self) -> None:
        deliveries = self.link.delivered[self.number]
        while self.taken < len(deliveries) or self.replica.needs_snapshot:
            if self.taken < len(deliveries):
                self.replica.receive(deliveries[self.taken])
                self.taken += 1
                continue
            asked = self.replica.begin_snapshot()
            request_id = self.link.ask("SnapshotState", SnapshotState(prefix="x."))
            for _ in range(40):
                if request_id in self.link.answers:
                    break
                self.link.advance(0.5, step=0.25)
            snapshot = self.link.answers[request_id]
            if isinstance(snapshot, StateSnapshot):
                self.replica.apply_snapshot(asked, snapshot.entries, snapshot.watermark)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(["set", "delete", "wait", "catch up"])), max_size=25),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.randoms(use_true_random=False),
)
def test_over_a_lossy_network_it_comes_to_equal_the_core(
    steps: list[tuple[str, str]], loss: float, chance: Any
) -> None:
    link = Link()
    link.ask("UpdateState", UpdateState(key="x.a", value=msgspec.Raw(value_bytes(0))))
    link.advance(chance.choice([0.0, 2.0]))
    follower = Follower(link, 1)
    with link.lossy_streams(lambda _: chance.random() < loss):
        for number, (key, kind) in enumerate(steps):
            match kind:
                case "set":
                    link.ask("UpdateState", UpdateState(key=key, value=msgspec.Raw(value_bytes(number))))
                case "delete":
                    link.ask("DeleteState", DeleteState(key=key))
                case "wait":
                    link.advance(0.3, step=0.1)
                case "catch up":
                    follower.catch_up()
    for _ in range(4):
        link.advance(2.0, step=0.25)
        follower.catch_up()
    link.check_invariants()
    records = {one.key: VersionedValue(one.version, one.value) for one in link.core.state.snapshot("x.")}
    assert contents(follower.replica) == records
