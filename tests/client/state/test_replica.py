"""The laws of a replica: whatever the network does, it becomes what the broker has, and proposals leave no trace."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr.core.effects import Delivery, Doubt, Gap, Restarted, StreamMessage
from backtestr.state.replica import ABSENT, Committed, Held, Replica
from backtestr_protocol.codec import encode
from backtestr_protocol.errors import MessageError
from backtestr_protocol.messages import DeleteState, SnapshotState, StateEntry, StateSnapshot, UpdateState
from backtestr_protocol.state_values import checksum, value_bytes
from backtestr_protocol.stream_messages import StateUpdate
from support.client.link import Link

KEYS = ("x.a", "x.b", "x.c")


class Broker:
    """Keys with versions and revisions as the broker counts them, and everything that it has ever published."""

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


def contents(replica: Replica) -> dict[str, Held]:
    return {key: replica.committed(key) for key in replica.visible_keys()}


def expected(broker: Broker) -> dict[str, Held]:
    return {key: Held(entry.version, value_bytes(entry.value)) for key, entry in sorted(broker.entries.items())}


def settle(replica: Replica, broker: Broker) -> list[Committed]:
    snapshot = broker.snapshot()
    return replica.snapshot(replica.ask(), snapshot.entries, snapshot.watermark)


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


class Play:
    """A broker, a replica, and everything under way between them, carried in any order and as often as one likes."""

    def __init__(self) -> None:
        self.broker = Broker()
        self.replica = Replica()
        self.told: dict[str, Held] = {}
        self.own: list[tuple[str, int, StateUpdate]] = []  # changes of our own whose answer is under way
        self.asked: tuple[int, StateSnapshot | None] | None = None

    def tell(self, changes: list[Committed]) -> None:
        for change in changes:
            assert self.told.get(change.key, ABSENT) != change.held, "told of a change that is none"
            self.told[change.key] = change.held

    def step(self, kind: str, what: Any) -> None:
        match kind:
            case "change":
                self.change(*what)
            case "own change":
                key, value, deleted = what
                ticket = self.replica.propose(key, None if deleted else value_bytes(value))
                self.own.append((key, ticket, self.change(key, value, deleted)))
            case "deliver" if self.broker.published:
                self.deliver(self.broker.published[what % len(self.broker.published)])
            case "confirm" if self.own:
                key, ticket, update = self.own.pop(what % len(self.own))
                self.tell(self.replica.confirm(key, ticket, update.version))
            case "ask" if self.asked is None:
                self.asked = self.replica.ask(), self.broker.snapshot()
            case "answer" if self.asked is not None:
                self.answer()
        self.replica.check_invariants()

    def change(self, key: str, value: int, deleted: bool) -> StateUpdate:
        return self.broker.change(key, None if deleted else value, deleted=deleted)

    def deliver(self, update: StateUpdate) -> None:
        self.tell(self.replica.offer(delivery(update)))

    def answer(self) -> None:
        assert self.asked is not None
        number, snapshot = self.asked
        self.asked = None
        assert snapshot is not None
        self.tell(self.replica.snapshot(number, snapshot.entries, snapshot.watermark))

    def confirm_all(self) -> None:
        while self.own:
            self.step("confirm", 0)

    def restart(self, broker: Broker) -> None:
        """Another start of the broker, with this state; what was asked of the last one is not answered any more."""
        self.confirm_all()
        self.asked = None
        self.broker = broker
        self.replica.offer(Restarted("another"))


@settings(max_examples=400, deadline=None)
@given(st.lists(STEPS, max_size=40), st.randoms(use_true_random=False))
def test_once_everything_has_come_it_is_what_the_broker_has(steps: list[tuple[str, Any]], chance: Any) -> None:
    play = Play()
    for kind, what in [("ask", None), *steps]:
        play.step(kind, what)
    rest = list(play.broker.published)
    chance.shuffle(rest)
    for update in rest[: len(rest) // 2]:
        play.deliver(update)
    if play.asked is not None:
        play.answer()
    play.confirm_all()
    for update in rest[len(rest) // 2 :] + rest[:3]:
        play.deliver(update)
    assert not play.replica.is_in_doubt
    assert contents(play.replica) == expected(play.broker)
    assert {key: held for key, held in sorted(play.told.items()) if held != ABSENT} == expected(play.broker)


@settings(max_examples=200, deadline=None)
@given(st.lists(STEPS, max_size=40))
def test_however_much_was_lost_a_snapshot_makes_it_good(steps: list[tuple[str, Any]]) -> None:
    play = Play()
    for kind, what in steps:
        play.step(kind, what)
    play.confirm_all()
    if play.asked is not None:
        play.answer()
    play.tell(settle(play.replica, play.broker))
    assert contents(play.replica) == expected(play.broker)
    assert {key: held for key, held in sorted(play.told.items()) if held != ABSENT} == expected(play.broker)


@settings(max_examples=100, deadline=None)
@given(st.lists(STEPS, max_size=20), st.lists(STEPS, max_size=20), st.booleans())
def test_a_restarted_broker_may_have_another_state(
    before: list[tuple[str, Any]], after: list[tuple[str, Any]], is_other: bool
) -> None:
    play = Play()
    for kind, what in [("ask", None), ("answer", None), *before]:
        play.step(kind, what)
    play.restart(Broker() if is_other else play.broker)
    published = len(play.broker.published)
    for kind, what in after:
        if kind != "deliver" or len(play.broker.published) > published:
            play.step(kind, published + what % (len(play.broker.published) - published) if kind == "deliver" else what)
    play.confirm_all()
    if play.asked is not None:
        play.answer()
    for update in play.broker.published[published:]:
        play.deliver(update)
    if play.replica.is_in_doubt:
        play.tell(settle(play.replica, play.broker))
    assert contents(play.replica) == expected(play.broker)


# --- one thing at a time ---


def test_it_is_in_doubt_until_a_snapshot_that_was_asked_for_after_the_last_reason() -> None:
    broker, replica = Broker(), Replica()
    doubts = [replica.is_in_doubt]
    settle(replica, broker)
    for reason in (Doubt("state."), Gap("state.x.a", 1, 2), Restarted("another")):
        doubts.append(replica.is_in_doubt)
        replica.offer(reason)
        doubts.append(replica.is_in_doubt)
        asked = replica.ask()
        replica.offer(Doubt("state."))
        replica.snapshot(asked, [], 0)
        doubts.append(replica.is_in_doubt)  # the last reason is younger than the question
        settle(replica, broker)
    assert doubts == [True, *[False, True, True] * 3]


def test_what_is_no_update_is_raised_and_a_reason_for_a_snapshot() -> None:
    replica = Replica()
    settle(replica, Broker())
    with pytest.raises(MessageError):
        replica.offer(StreamMessage("state.x", 1, "StateUpdate", msgspec.Raw(encode({"key": 1}))))
    assert replica.is_in_doubt


def test_an_older_version_changes_nothing() -> None:
    broker, replica = Broker(), Replica()
    settle(replica, broker)
    old, new = broker.change("x.a", 1), broker.change("x.a", 2)
    assert replica.offer(delivery(new)) == [Committed("x.a", Held(2, value_bytes(2)))]
    assert replica.offer(delivery(old)) == []
    assert replica.offer(delivery(new)) == []


def test_what_is_deleted_is_not_brought_back_by_what_was_before() -> None:
    broker, replica = Broker(), Replica()
    settle(replica, broker)
    set_, deleted = broker.change("x.a", 1), broker.change("x.a", None, deleted=True)
    replica.offer(delivery(deleted))
    assert replica.offer(delivery(set_)) == []
    assert replica.committed("x.a") == ABSENT
    assert replica.offer(delivery(broker.change("x.a", 3))) == [Committed("x.a", Held(3, value_bytes(3)))]


def test_a_proposal_shows_at_once_and_leaves_no_trace_when_it_is_withdrawn() -> None:
    broker, replica = Broker(), Replica()
    broker.change("x.a", 1)
    settle(replica, broker)
    ticket = replica.propose("x.a", value_bytes(2))
    other = replica.propose("x.b", value_bytes(3))
    assert [replica.visible(key) for key in replica.visible_keys()] == [value_bytes(2), value_bytes(3)]
    assert replica.committed("x.a") == Held(1, value_bytes(1))
    replica.withdraw("x.a", ticket)
    replica.withdraw("x.a", ticket)
    replica.withdraw("x.b", other)
    assert contents(replica) == expected(broker)
    replica.check_invariants()


def test_the_latest_of_several_proposals_shows() -> None:
    replica = Replica()
    first, second = replica.propose("x.a", value_bytes(1)), replica.propose("x.a", value_bytes(2))
    replica.revise("x.a", first, value_bytes(9))
    assert replica.visible("x.a") == value_bytes(2)
    replica.withdraw("x.a", second)
    assert replica.visible("x.a") == value_bytes(9)


def test_a_proposed_deletion_hides_the_key() -> None:
    broker, replica = Broker(), Replica()
    broker.change("x.a", 1)
    settle(replica, broker)
    replica.propose("x.a", None)
    assert list(replica.visible_keys()) == []


def test_a_confirmed_proposal_is_what_the_broker_has_and_its_update_is_old_news() -> None:
    broker, replica = Broker(), Replica()
    settle(replica, broker)
    ticket = replica.propose("x.a", value_bytes(1))
    update = broker.change("x.a", 1)
    assert replica.confirm("x.a", ticket, update.version) == [Committed("x.a", Held(1, value_bytes(1)))]
    assert replica.offer(delivery(update)) == []


def test_a_snapshot_overrules_what_was_confirmed_before_it_was_asked_for() -> None:
    broker, replica = Broker(), Replica()
    settle(replica, broker)
    ticket = replica.propose("x.a", value_bytes(1))
    replica.confirm("x.a", ticket, broker.change("x.a", 1).version)
    broker.change("x.a", None, deleted=True)
    assert settle(replica, broker) == [Committed("x.a", ABSENT)]


def test_what_is_confirmed_while_a_snapshot_is_under_way_may_be_later_and_stays() -> None:
    broker, replica = Broker(), Replica()
    asked, snapshot = replica.ask(), broker.snapshot()
    ticket = replica.propose("x.a", value_bytes(1))
    replica.confirm("x.a", ticket, broker.change("x.a", 1).version)
    assert replica.snapshot(asked, snapshot.entries, snapshot.watermark) == []
    assert contents(replica) == expected(broker)


def test_an_update_that_is_later_than_the_snapshot_stays() -> None:
    broker, replica = Broker(), Replica()
    broker.change("x.a", 1)
    asked, snapshot = replica.ask(), broker.snapshot()
    replica.offer(delivery(broker.change("x.a", 2)))
    replica.offer(delivery(broker.change("x.b", 3)))
    assert replica.snapshot(asked, snapshot.entries, snapshot.watermark) == []
    assert contents(replica) == expected(broker)


def test_what_a_snapshot_has_seen_deleted_does_not_come_back_for_a_moment() -> None:
    broker, replica = Broker(), Replica()
    set_, deleted = broker.change("x.a", 1), broker.change("x.a", None, deleted=True)
    settle(replica, broker)
    assert replica.offer(delivery(set_)) == []
    assert replica.offer(delivery(deleted)) == []


def test_a_late_answer_does_not_bring_back_what_was_deleted_since() -> None:
    broker, replica = Broker(), Replica()
    settle(replica, broker)
    ticket = replica.propose("x.a", value_bytes(1))
    own, deleted = broker.change("x.a", 1), broker.change("x.a", None, deleted=True)
    replica.offer(delivery(deleted))
    settle(replica, broker)
    assert replica.confirm("x.a", ticket, own.version) == []
    assert replica.committed("x.a") == ABSENT


def test_what_a_conflict_tells_is_learned() -> None:
    broker, replica = Broker(), Replica()
    settle(replica, broker)
    update = broker.change("x.a", 1)
    assert replica.learn("x.a", Held(update.version, value_bytes(1))) == [Committed("x.a", Held(1, value_bytes(1)))]
    assert replica.learn("x.a", ABSENT) == []
    assert replica.offer(delivery(update)) == []


# --- against the broker's core ---


class Follower:
    """A replica of `x.` on a link, which takes what was delivered and asks for snapshots when it is in doubt."""

    def __init__(self, link: Link, number: int) -> None:
        self.link = link
        self.number = number
        self.replica = Replica()
        self.taken = 0
        link.subscribe(number, "state.x.", "latest")

    def catch_up(self) -> None:
        deliveries = self.link.delivered[self.number]
        while self.taken < len(deliveries) or self.replica.is_in_doubt:
            if self.taken < len(deliveries):
                self.replica.offer(deliveries[self.taken])
                self.taken += 1
                continue
            asked = self.replica.ask()
            request_id = self.link.ask("SnapshotState", SnapshotState(prefix="x."))
            for _ in range(40):
                if request_id in self.link.answers:
                    break
                self.link.advance(0.5, step=0.25)
            snapshot = self.link.answers[request_id]
            if isinstance(snapshot, StateSnapshot):
                self.replica.snapshot(asked, snapshot.entries, snapshot.watermark)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(["set", "delete", "wait", "catch up"])), max_size=25),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.randoms(use_true_random=False),
)
def test_over_a_bad_network_it_becomes_what_the_core_has(
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
    records = {one.key: Held(one.version, one.value) for one in link.core.state.snapshot("x.")}
    assert contents(follower.replica) == records
