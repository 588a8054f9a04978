"""Shared state against a scripted broker: following it, optimistic updates, and conflicts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import msgspec
import pytest

from backtestr.core.effects import Gap, MaybeLost, Restarted
from backtestr.core.subscriptions import Since
from backtestr.io.callback_thread import CallbackThread
from backtestr.io.error_log import ErrorLog
from backtestr.io.io_thread import IoThread
from backtestr.io.mailboxes import Mailbox, PendingReply
from backtestr.io.request_windows import Success
from backtestr.requester import Requester
from backtestr.state.shared_state import MAX_RETRIES, SharedState, StateChange
from backtestr_protocol.errors import (
    NetworkError,
    NotFound,
    StateConflict,
    SystemFault,
    ValidationError,
)
from backtestr_protocol.message_types import REQUESTS
from backtestr_protocol.messages import Contract, DeletedState, DeleteState, UpdatedState, UpdateState
from backtestr_protocol.stream_messages import StateUpdate
from client.state import test_replica
from client.state.test_replica import delivery
from support.harness import wait_until


class Broker:
    """The broker of the replica's laws, with an I/O thread's methods.

    `before_update` runs before each change is checked; an exception that it raises is the answer.
    """

    def __init__(self) -> None:
        self.book = test_replica.Broker()
        self.before_update: Callable[[], object] = lambda: None
        self.before_snapshot: Callable[[], object] = lambda: None
        self.updates: list[int | None] = []
        self.snapshots = 0
        self.mailbox = Mailbox(lambda _: None)
        self.is_subscribed = False

    # --- as an I/O thread ---

    def open(self, prefix: str, since: Since) -> tuple[int, Mailbox]:
        assert prefix.startswith("state.")
        assert since == "latest"
        self.is_subscribed = True
        return 1, self.mailbox

    def shut(self, number: int) -> None:
        self.is_subscribed = False
        self.mailbox.end(None)

    def ask(self, request_type: str, data: msgspec.Raw, timeout: float) -> PendingReply[Success]:
        reply: PendingReply[Success] = PendingReply()
        try:
            reply.succeed((self.answer(msgspec.msgpack.decode(data, type=REQUESTS[request_type].data)), []))
        except Exception as error:
            reply.fail(error)
        return reply

    def call(self, request_type: str, data: msgspec.Raw, timeout: float) -> Success:
        return self.ask(request_type, data, timeout).read()

    # --- as a broker ---

    def answer(self, data: Contract) -> Contract:
        match data:
            case UpdateState():
                return self.update(data)
            case DeleteState(key=key):
                self.before_update()
                if key not in self.book.entries:
                    raise NotFound(f"unknown state key {key!r}")
                return DeletedState(key=key, version=self.book.change(key, None, deleted=True).version)
            case _:
                self.snapshots += 1
                self.before_snapshot()
                return self.book.snapshot()

    def update(self, data: UpdateState) -> UpdatedState:
        self.updates.append(data.expected_version)
        self.before_update()
        there = self.book.entries.get(data.key)
        version = there.version if there else 0
        if data.expected_version is not None and data.expected_version != version:
            raise StateConflict("no", currentVersion=version, currentValue=there.value if there else None)
        update = self.book.change(data.key, msgspec.msgpack.decode(data.value))
        return UpdatedState(key=data.key, version=update.version, checksum=update.checksum)


class DirectCalls:
    """A callback thread that makes its calls at once, in the thread that asks for them."""

    def call(self, call: Callable[[], object]) -> None:
        call()


class Stage:
    """A shared state with the objects around it; `reported` has the changes that were given to callbacks."""

    def __init__(self) -> None:
        self.broker = Broker()
        self.callbacks = cast(CallbackThread, DirectCalls())
        self.errors = ErrorLog(self.callbacks)
        self.reported: list[StateChange] = []

    def open(self, prefix: str = "", /, **resolvers: Any) -> SharedState:
        io_thread = cast(IoThread, self.broker)
        own = {"x.": lambda mine, theirs, base: mine, **resolvers}
        state = SharedState(Requester(io_thread), io_thread, prefix, own, self.callbacks, self.errors)
        state.on_change(self.reported.append)
        return state

    def publish(self, update: StateUpdate) -> None:
        self.broker.mailbox.put([delivery(update)])


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.broker.shut(1)


# --- reading ---


def test_it_is_a_mapping_of_the_broker_s_keys(stage: Stage) -> None:
    stage.broker.book.change("x.b", {"n": 1})
    stage.broker.book.change("x.a", [1, 2])
    state = stage.open()
    assert dict(state) == {"x.a": [1, 2], "x.b": {"n": 1}}
    assert list(state) == ["x.a", "x.b"]
    assert (len(state), "x.a" in state, "x.c" in state) == (2, True, False)
    assert (state.get("x.c"), state.version("x.a"), state.version("x.c")) == (None, 1, 0)
    with pytest.raises(KeyError, match=r"x\.c"):
        state["x.c"]
    state["x.b"]["n"] = 7
    assert state["x.b"] == {"n": 1}, "what is read is a copy"


def test_it_follows_the_changes_of_other_clients(stage: Stage) -> None:
    state = stage.open()
    stage.publish(stage.broker.book.change("x.a", 1))
    stage.publish(stage.broker.book.change("x.a", None, deleted=True))
    stage.publish(stage.broker.book.change("x.b", 2))
    wait_until(lambda: "x.b" in state, 10)
    assert dict(state) == {"x.b": 2}
    assert stage.reported == [StateChange("x.a", 1, 1), StateChange("x.a", None, 0), StateChange("x.b", 2, 1)]


@pytest.mark.parametrize("reason", [MaybeLost("state."), Gap("state.x.a", 1, 2), Restarted("another")])
def test_changes_that_may_be_lost_are_read_from_a_snapshot(stage: Stage, reason: Any) -> None:
    state = stage.open()
    stage.broker.book.change("x.a", 1)  # without a stream message
    stage.broker.mailbox.put([reason])
    wait_until(lambda: "x.a" in state, 10)
    assert stage.broker.snapshots == 2


def test_a_snapshot_that_fails_is_requested_again(stage: Stage) -> None:
    state = stage.open()
    failures = [SystemFault("no"), NetworkError("no")]

    def fail() -> None:
        if failures:
            raise failures.pop()

    stage.broker.before_snapshot = fail
    stage.broker.book.change("x.a", 1)
    stage.broker.mailbox.put([MaybeLost("state.")])
    wait_until(lambda: "x.a" in state, 10)
    assert stage.broker.snapshots == 4


def test_a_failed_first_snapshot_is_raised_and_ends_the_subscription(stage: Stage) -> None:
    def fail() -> None:
        raise SystemFault("no")

    stage.broker.before_snapshot = fail
    with pytest.raises(SystemFault):
        stage.open()
    assert not stage.broker.is_subscribed


def test_an_unreadable_update_is_reported_and_repaired(stage: Stage) -> None:
    state = stage.open()
    update = stage.broker.book.change("x.a", 1)
    stage.broker.mailbox.put([msgspec.structs.replace(delivery(update), data=msgspec.Raw(b"\x80"))])
    wait_until(lambda: "x.a" in state, 10)
    [report] = stage.errors.latest
    assert isinstance(report.error, ValidationError)
    assert report.about == "state."


def test_reads_raise_once_the_subscription_has_ended_with_an_error(stage: Stage) -> None:
    state = stage.open()
    stage.broker.mailbox.end(NotFound("refused"))
    wait_until(lambda: state._fault is not None, 10)
    with pytest.raises(RuntimeError, match="not followed any more"):
        state.get("x.a")


def test_after_closing_reads_and_writes_raise(stage: Stage) -> None:
    with stage.open() as state:
        pass
    assert not stage.broker.is_subscribed
    for use in (lambda: state.get("x.a"), lambda: len(state), lambda: state.update("x.a", 1)):
        with pytest.raises(RuntimeError, match="closed"):
            use()


def test_a_callback_that_was_removed_is_not_called(stage: Stage) -> None:
    state = stage.open()
    seen: list[StateChange] = []
    stop = state.on_change(seen.append)
    state.update("x.a", 1)
    stop()
    stop()
    state.update("x.a", 2)
    assert seen == [StateChange("x.a", 1, 1)]


# --- writing ---


def test_an_update_is_compared_with_the_version_that_was_read_and_reported_once(stage: Stage) -> None:
    state = stage.open()
    assert state.update("x.a", 1) == 1
    assert state.update("x.a", lambda value: value + 1) == 2
    assert stage.broker.updates == [0, 1]
    for update in stage.broker.book.published:
        stage.publish(update)
    stage.publish(stage.broker.book.change("x.b", 1))
    wait_until(lambda: "x.b" in state, 10)
    assert stage.reported == [StateChange("x.a", 1, 1), StateChange("x.a", 2, 2), StateChange("x.b", 1, 1)]
    assert state.version("x.a") == 2


def test_the_new_value_is_visible_but_not_reported_before_the_broker_has_it(stage: Stage) -> None:
    state = stage.open()
    asked, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        asked.set()
        assert go_on.wait(10)

    stage.broker.before_update = hold
    with ThreadPoolExecutor(1) as pool:
        update = pool.submit(state.update, "x.a", 5)
        assert asked.wait(10)
        assert (state["x.a"], state.version("x.a"), stage.reported) == (5, 0, [])
        go_on.set()
        assert update.result() == 5
    assert (state.version("x.a"), stage.reported) == (1, [StateChange("x.a", 5, 1)])


@pytest.mark.parametrize("error", [NetworkError("no"), SystemFault("no"), RuntimeError("closed")])
def test_an_update_that_the_broker_refuses_is_taken_back(stage: Stage, error: Exception) -> None:
    state = stage.open()
    state.update("x.a", 1)

    def fail() -> None:
        assert state.get("x.a", "gone") in (2, "gone")
        raise error

    stage.broker.before_update = fail
    with pytest.raises(type(error)):
        state.update("x.a", 2)
    with pytest.raises(type(error)):
        state.delete("x.a")
    assert state["x.a"] == 1


def others_change(stage: Stage, key: str, *values: Any) -> None:
    """Let another client set the key to the next of these values before each of the next updates."""
    left = list(values)

    def change() -> None:
        if left:
            stage.broker.book.change(key, left.pop(0))

    stage.broker.before_update = change


def test_a_conflict_is_resolved_with_mine_theirs_and_base(stage: Stage) -> None:
    asked: list[tuple[Any, Any, Any]] = []

    def resolve(mine: Any, theirs: Any, base: Any) -> Any:
        asked.append((mine, theirs, base))
        return "both"

    state = stage.open(**{"x.a": resolve})
    state.update("x.a", "base")
    others_change(stage, "x.a", "theirs")
    assert state.update("x.a", "mine") == "both"
    assert asked == [("mine", "theirs", "base")]
    assert state["x.a"] == stage.broker.book.entries["x.a"].value == "both"


def test_a_resolver_that_prefers_theirs_writes_nothing(stage: Stage) -> None:
    state = stage.open(**{"x.": lambda mine, theirs, base: theirs})
    others_change(stage, "x.a", "theirs")
    assert state.update("x.a", "mine") == "theirs"
    assert state["x.a"] == "theirs", "the answer shows it before the stream does"
    assert stage.broker.book.versions == {"x.a": 1}


def test_a_function_is_applied_to_the_current_value(stage: Stage) -> None:
    state = stage.open(**{"x.": lambda *_: pytest.fail("functions need no resolver")})
    others_change(stage, "x.n", 10, 20)
    assert state.update("x.n", lambda value: (value or 0) + 1) == 21
    assert stage.broker.book.entries["x.n"].value == 21


def test_a_function_may_read_other_keys(stage: Stage) -> None:
    state = stage.open()
    state.update("x.a", 20)
    assert state.update("x.b", lambda value: (value or 0) + state["x.a"]) == 20


def test_after_three_retries_it_is_a_conflict_and_taken_back(stage: Stage) -> None:
    state = stage.open()
    others_change(stage, "x.a", *range(100, 110))
    with pytest.raises(StateConflict, match="changed by others each of the 4 times") as conflict:
        state.update("x.a", "mine")
    assert len(stage.broker.updates) == 1 + MAX_RETRIES
    assert conflict.value.details == {"currentVersion": 4, "currentValue": 103}
    assert state["x.a"] == 103


def test_changes_that_cannot_be_joined_are_raised_at_once_and_taken_back(stage: Stage) -> None:
    state = stage.open()
    state.update("algorithm.a", {"fast": 10})
    others_change(stage, "algorithm.a", {"fast": 12})
    stage.broker.updates.clear()
    with pytest.raises(StateConflict, match="changed by both, differently: fast"):
        state.update("algorithm.a", {"fast": 14})
    assert len(stage.broker.updates) == 1
    assert state["algorithm.a"] == {"fast": 12}


def test_changes_that_can_be_joined_are_both_kept(stage: Stage) -> None:
    state = stage.open()
    state.update("algorithm.a", {"fast": 10, "slow": 30})
    others_change(stage, "algorithm.a", {"fast": 12, "slow": 30})
    assert state.update("algorithm.a", {"fast": 10, "slow": 40}) == {"fast": 12, "slow": 40}


# --- the base of a change ---


def another_client_sets(stage: Stage, state: SharedState, key: str, value: Any) -> None:
    """Have another client change a key, and wait until the replica has it."""
    update = stage.broker.book.change(key, value)
    stage.publish(update)
    wait_until(lambda: state.version(key) == update.version, 10)


def test_a_change_is_based_on_what_was_read_and_not_on_what_came_since(stage: Stage) -> None:
    state = stage.open()
    state.update("algorithm.a", {"fast": 10, "slow": 30})
    read = state["algorithm.a"]
    another_client_sets(stage, state, "algorithm.a", {"fast": 12, "slow": 30})
    assert state.update("algorithm.a", {**read, "slow": 40}) == {"fast": 12, "slow": 40}
    read = state["algorithm.a"]
    another_client_sets(stage, state, "algorithm.a", {"fast": 13, "slow": 40})
    with pytest.raises(StateConflict, match="changed by both, differently: fast"):
        state.update("algorithm.a", {**read, "fast": 14})


@pytest.mark.parametrize("read", [lambda state: dict(state)["x.a"], lambda state: state.get("x.a")])
def test_every_way_to_read_counts(stage: Stage, read: Callable[[SharedState], Any]) -> None:
    bases: list[Any] = []

    def resolve(mine: Any, theirs: Any, base: Any) -> Any:
        bases.append(base)
        return mine

    state = stage.open(**{"x.": resolve})
    another_client_sets(stage, state, "x.a", "first")
    assert read(state) == "first"
    another_client_sets(stage, state, "x.a", "second")
    state.update("x.a", "mine")
    assert bases == ["first"]


def test_a_key_that_was_read_as_absent_was_made_by_both(stage: Stage) -> None:
    state = stage.open()
    assert state.get("algorithm.a") is None
    another_client_sets(stage, state, "algorithm.a", {"fast": 12})
    assert state.update("algorithm.a", {"slow": 40}) == {"fast": 12, "slow": 40}


def test_a_version_can_be_named_as_the_base(stage: Stage) -> None:
    state = stage.open()
    state.update("algorithm.a", {"fast": 10, "slow": 30})
    read = state.read("algorithm.a")
    assert read == StateChange("algorithm.a", {"fast": 10, "slow": 30}, 1)
    another_client_sets(stage, state, "algorithm.a", {"fast": 12, "slow": 30})
    assert state["algorithm.a"] == {"fast": 12, "slow": 30}, "read later, by the same thread"
    mine = {**read.value, "slow": 40}
    assert state.update("algorithm.a", mine, base_version=read.version) == {"fast": 12, "slow": 40}


def test_a_base_that_is_not_remembered_never_loses_a_change(stage: Stage) -> None:
    state = stage.open()
    for fast in (10, 11, 12):
        another_client_sets(stage, state, "algorithm.a", {"fast": fast})
    with pytest.raises(StateConflict, match="fast"):
        state.update("algorithm.a", {"fast": 10, "slow": 40}, base_version=2)
    assert state.update("algorithm.a", {"fast": 10, "slow": 40}, base_version=3) == {"fast": 10, "slow": 40}


def test_version_0_is_the_base_of_a_key_that_must_not_be_there(stage: Stage) -> None:
    state = stage.open(**{"x.": lambda mine, theirs, base: f"{theirs}, {mine}"})
    assert state.update("x.a", "mine", base_version=0) == "mine"
    assert state.update("x.a", "again", base_version=0) == "mine, again"


@pytest.mark.parametrize("base_version", [-1, True, 1.5, "1"])
def test_a_base_that_is_no_version_is_refused(stage: Stage, base_version: Any) -> None:
    state = stage.open()
    with pytest.raises((ValueError, TypeError)):
        state.update("x.a", 1, base_version=base_version)
    assert stage.broker.updates == []


def test_a_function_has_no_base(stage: Stage) -> None:
    state = stage.open()
    with pytest.raises(ValueError, match="of the current one"):
        state.update("x.a", lambda value: 1, base_version=0)


def test_threads_have_bases_of_their_own(stage: Stage) -> None:
    state = stage.open()
    state.update("algorithm.a", {"fast": 10, "slow": 30})
    with ThreadPoolExecutor(1) as other:
        read = other.submit(state.__getitem__, "algorithm.a").result()
        another_client_sets(stage, state, "algorithm.a", {"fast": 12, "slow": 30})
        assert state["algorithm.a"]["fast"] == 12
        written = other.submit(state.update, "algorithm.a", {**read, "slow": 40}).result()
    assert written == {"fast": 12, "slow": 40}


def test_a_key_that_was_never_read_is_set(stage: Stage) -> None:
    state = stage.open()
    another_client_sets(stage, state, "algorithm.a", {"fast": 12})
    assert state.update("algorithm.a", {"fast": 5}) == {"fast": 5}


def test_a_deleted_key_is_the_base_of_its_next_value(stage: Stage) -> None:
    state = stage.open()
    state.update("algorithm.a", {"fast": 10})
    state.delete("algorithm.a")
    assert state.update("algorithm.a", {"fast": 5}) == {"fast": 5}


def test_a_read_of_an_update_under_way_is_merged_with_what_became_of_it(stage: Stage) -> None:
    state = stage.open()
    state.update("algorithm.a", {"fast": 10, "slow": 30})
    is_read, goes_on = threading.Event(), threading.Event()
    others_change(stage, "algorithm.a", {"fast": 10, "slow": 31})
    change = stage.broker.before_update

    def wait() -> None:
        change()
        is_read.set()
        goes_on.wait()

    stage.broker.before_update = wait
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(state.update, "algorithm.a", {"fast": 12, "slow": 30})
        is_read.wait()

        def second() -> Any:
            read = state["algorithm.a"]
            assert read == {"fast": 12, "slow": 30}, "not confirmed yet"
            goes_on.set()
            return state.update("algorithm.a", {**read, "name": "x"})

        written = pool.submit(second).result()
        first.result()
    assert written == {"fast": 12, "slow": 31, "name": "x"}


def test_a_callback_bases_its_change_on_what_it_was_given(stage: Stage) -> None:
    state = stage.open()
    written: list[Any] = []

    def follow(change: StateChange) -> None:
        if change.version == 1:
            stage.broker.book.change("algorithm.a", {"fast": 12, "slow": 31})  # nobody here knows of it yet
            written.append(pool.submit(write, change.value))

    def write(value: Any) -> Any:
        return state.update("algorithm.a", {**value, "fast": 14}, base_version=1)

    with ThreadPoolExecutor(1) as pool:
        state.on_change("algorithm.a", follow)
        stage.publish(stage.broker.book.change("algorithm.a", {"fast": 12, "slow": 30}))
        wait_until(lambda: bool(written), 10)
        assert written[0].result() == {"fast": 14, "slow": 31}


# --- following one key ---


def test_one_key_is_followed_from_its_present_value_on(stage: Stage) -> None:
    state = stage.open()
    state.update("x.a", 1)
    seen: list[StateChange] = []
    unsubscribe = state.on_change("x.a", seen.append)
    assert seen == [StateChange("x.a", 1, 1)]
    state.update("x.b", 7)
    state.update("x.a", 2)
    state.delete("x.a")
    unsubscribe()
    unsubscribe()
    state.update("x.a", 3)
    assert seen == [StateChange("x.a", 1, 1), StateChange("x.a", 2, 2), StateChange("x.a", None, 0)]


def test_one_callback_may_follow_several_keys(stage: Stage) -> None:
    state = stage.open()
    seen: list[StateChange] = []
    ends = [state.on_change(key, seen.append) for key in ("x.a", "x.b")]
    seen.clear()
    ends[0]()
    state.update("x.a", 1)
    state.update("x.b", 2)
    assert seen == [StateChange("x.b", 2, 1)]


def test_a_key_without_a_callback_is_refused(stage: Stage) -> None:
    state = stage.open("x.")
    follow: Any = state.on_change
    with pytest.raises(TypeError, match="a key and a callback"):
        follow("x.a")
    with pytest.raises(ValueError, match="does not begin with"):
        follow("y.a", print)


def test_of_a_backtest_the_later_update_stays(stage: Stage) -> None:
    state = stage.open()
    others_change(stage, "backtest.b", {"lastUpdate": 7, "progress": 70})
    assert state.update("backtest.b", {"lastUpdate": 5, "progress": 50}) == {"lastUpdate": 7, "progress": 70}
    others_change(stage, "backtest.b", {"lastUpdate": 8, "progress": 80})
    assert state.update("backtest.b", {"lastUpdate": 9, "progress": 90}) == {"lastUpdate": 9, "progress": 90}


def test_threads_of_one_program_update_a_key_in_turn(stage: Stage) -> None:
    state = stage.open()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: state.update("x.n", lambda value: (value or 0) + 1), range(100)))
    assert state["x.n"] == 100
    assert len(stage.broker.updates) == 100, "no update was retried"


def test_the_version_of_a_deleted_key_keeps_counting(stage: Stage) -> None:
    state = stage.open()
    state.update("x.a", 1)
    state.delete("x.a")
    assert "x.a" not in state
    with pytest.raises(NotFound):
        state.delete("x.a")
    state.update("x.a", 2)
    assert state.version("x.a") == 3


@pytest.mark.parametrize("value", [object(), {1: 2}, 1 << 64])
def test_an_object_that_is_no_value_is_refused_before_any_request(stage: Stage, value: Any) -> None:
    state = stage.open()
    with pytest.raises(ValidationError, match="value"):
        state.update("x.a", value)
    assert stage.broker.updates == []
    assert "x.a" not in state


def test_a_key_of_another_prefix_is_refused(stage: Stage) -> None:
    state = stage.open("x.")
    with pytest.raises(ValueError, match=r"'y\.a' does not begin with 'x\.'"):
        state.update("y.a", 1)
    with pytest.raises(ValueError, match="does not begin"):
        state.delete("y.a")
