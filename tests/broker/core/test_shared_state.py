"""The state machine has versions and bounds, compares before it sets, and repairs damaged values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from backtestr_broker.core import shared_state as shared_state_module
from backtestr_broker.core.records import StateRecord
from backtestr_broker.core.shared_state import SharedState
from backtestr_protocol.errors import NotFound, StateConflict, SystemFault, ValidationError
from backtestr_protocol.state_values import checksum, value_bytes


def put(state: SharedState, key: str, value: Any, expected: int | None = None) -> StateRecord:
    record = state.update(key, value_bytes(value), expected, 1000)
    state.commit(record)
    state.check_invariants()
    return record


def damage(state: SharedState, key: str, value: bytes = b"\xc3") -> StateRecord:
    """Change the value in memory without the state machine, and return the undamaged record."""
    record = state.get(key)
    good = msgspec.structs.replace(record)
    msgspec.structs.force_setattr(record, "value", value)
    return good


def test_versions_count_from_one_and_survive_a_deletion() -> None:
    state = SharedState()
    assert [put(state, "a", number).version for number in (1, 2)] == [1, 2]
    deleted = state.delete("a", None, 1000)
    state.commit(deleted)
    assert (deleted.version, deleted.value) == (3, None)
    with pytest.raises(NotFound):
        state.get("a")
    assert put(state, "a", 5).version == 4
    assert state.get("a").value == value_bytes(5)
    assert state.revision == 4


@pytest.mark.parametrize(("expected", "fits"), [(None, True), (0, False), (1, False), (2, True), (3, False)], ids=str)
def test_a_change_needs_the_expected_version(expected: int | None, fits: bool) -> None:
    state = SharedState()
    put(state, "a", "old")
    put(state, "a", {"is": "new"})
    made: list[Callable[[], StateRecord]] = [
        lambda: state.update("a", value_bytes(1), expected, 1000),
        lambda: state.delete("a", expected, 1000),
    ]
    for change in made:
        if fits:
            change()
            state.roll_back()
            continue
        with pytest.raises(StateConflict) as caught:
            change()
        assert caught.value.details == {"currentVersion": 2, "currentValue": msgspec.Raw(value_bytes({"is": "new"}))}
    state.check_invariants()


@pytest.mark.parametrize("deleted", [True, False])
def test_an_absent_key_has_version_0(deleted: bool) -> None:
    state = SharedState()
    if deleted:
        put(state, "a", 1)
        state.commit(state.delete("a", 1, 1000))
    with pytest.raises(StateConflict, match="'a' is not there") as caught:
        state.update("a", value_bytes(1), 2, 1000)
    assert caught.value.details == {"currentVersion": 0, "currentValue": msgspec.Raw(b"\xc0")}
    with pytest.raises(StateConflict):
        state.delete("a", 2, 1000)
    for expected in (None, 0):
        with pytest.raises(NotFound):
            state.delete("a", expected, 1000)
    assert put(state, "a", 1, expected=0).version == (3 if deleted else 1)


def test_an_error_about_an_unknown_key_names_the_nearest() -> None:
    state = SharedState()
    put(state, "ui.theme", 1)
    put(state, "ui.gone", 1)
    state.commit(state.delete("ui.gone", None, 1000))
    with pytest.raises(NotFound, match=r"unknown state key 'ui.them'; did you mean 'ui.theme'\?") as caught:
        state.get("ui.them")
    assert caught.value.details is not None
    assert caught.value.details["known"] == ["ui.theme"]


def test_uncommitted_changes_are_compared_with_and_not_read() -> None:
    state = SharedState()
    put(state, "a", 1)
    first = state.update("a", value_bytes(2), 1, 1000)
    second = state.update("a", value_bytes(3), 2, 1000)
    assert state.is_on_its_way("a")
    assert state.get("a").value == value_bytes(1)
    with pytest.raises(StateConflict):
        state.update("a", value_bytes(4), 1, 1000)
    state.commit(first)
    assert state.get("a").value == value_bytes(2)
    state.commit(second)
    assert not state.is_on_its_way("a")
    assert [one.version for one in state.snapshot("")] == [3]


def test_a_change_whose_commit_failed_is_undone() -> None:
    state = SharedState()
    put(state, "a", 1)
    state.update("a", value_bytes(2), 1, 1000)
    state.update("b", value_bytes(2), 0, 1000)
    state.roll_back()
    state.check_invariants()
    assert put(state, "a", 3, expected=1).revision == 2
    assert put(state, "b", 3, expected=0).version == 1


@pytest.mark.parametrize(
    ("prefix", "keys"), [("", ["a", "ui", "ui.a", "uid"]), ("ui", ["ui", "ui.a", "uid"]), ("ui.", ["ui.a"]), ("x", [])]
)
def test_a_snapshot_has_the_keys_that_a_subscription_of_that_prefix_receives(prefix: str, keys: list[str]) -> None:
    state = SharedState()
    for key in ("uid", "ui.a", "a", "ui", "ui.z"):
        put(state, key, 1)
    state.commit(state.delete("ui.z", None, 1000))
    assert [record.key for record in state.snapshot(prefix)] == keys


# --- bounds ---


def test_a_value_has_at_most_one_mebibyte() -> None:
    state = SharedState()
    room = shared_state_module.MAX_VALUE_BYTES - 5  # bin32 has a head of five bytes
    put(state, "a", bytes(room))
    with pytest.raises(ValidationError, match=r"\$\.value: 1048577 bytes; a value has at most 1048576"):
        state.update("a", value_bytes(bytes(room + 1)), None, 1000)
    float32 = b"\xdd" + (200_000).to_bytes(4, "big") + b"\xca\x3f\xc0\x00\x00" * 200_000
    with pytest.raises(ValidationError, match=r"\$\.value: 1800005 bytes"):
        state.update("a", float32, None, 1000)
    state.check_invariants()


def test_keys_and_bytes_are_bounded_including_uncommitted_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_state_module, "MAX_KEYS", 3)
    monkeypatch.setattr(shared_state_module, "MAX_BYTES", 100)
    state = SharedState()
    put(state, "a", bytes(58))
    put(state, "b", 1)
    state.update("a", value_bytes(bytes(60)), None, 1000)
    state.update("c", value_bytes(1), None, 1000)
    with pytest.raises(ValidationError, match=r"\$\.key: there are 3 keys"):
        state.update("d", value_bytes(1), None, 1000)
    with pytest.raises(ValidationError, match=r"\$\.value: all values together would have 101 bytes"):
        state.update("b", value_bytes(bytes(36)), None, 1000)
    state.update("b", value_bytes(bytes(35)), None, 1000)
    state.check_invariants()
    state.roll_back()
    put(state, "c", 1)
    state.commit(state.delete("c", None, 1000))
    with pytest.raises(ValidationError, match="deleted ones included"):
        state.update("d", value_bytes(1), None, 1000)
    put(state, "c", 2)


@pytest.mark.parametrize("came", [b"\x81\x01\x02", b"\x81\x80\x01", b"\xc1", b"\x91" * 100_000, b"\xa1\xff", b""])
def test_bytes_that_are_no_value_are_refused(came: bytes) -> None:
    with pytest.raises(ValidationError) as caught:
        SharedState().update("a", came, None, 1000)
    assert caught.value.details == {"path": "$.value"}


# --- damage ---


def test_a_damaged_value_is_found_by_the_round_and_repaired_from_disk() -> None:
    state = SharedState()
    for key in ("a", "b"):
        put(state, key, key)
    good = damage(state, "a")
    state.verify()
    assert state.take_damaged() == ["a"]
    assert state.take_damaged() == [], "once"
    with pytest.raises(SystemFault, match="being read from disk again"):
        state.get("a")
    with pytest.raises(SystemFault):
        state.snapshot("")
    assert state.repair("a", good)
    assert state.get("a") == good
    assert state.get("a").value == value_bytes("a")
    state.check_invariants()


def test_a_damaged_value_is_not_read_before_verification_reaches_it() -> None:
    state = SharedState()
    put(state, "a", "a")
    damage(state, "a")
    with pytest.raises(SystemFault):
        state.get("a")
    assert state.take_damaged() == ["a"]


@pytest.mark.parametrize("flaw", ["gone", "damaged too", "another version"])
def test_a_damaged_record_on_disk_does_not_repair_a_value(flaw: str) -> None:
    state = SharedState()
    put(state, "a", "a")
    good = damage(state, "a", value_bytes("b"))
    state.verify()
    state.take_damaged()
    on_disk = {
        "gone": None,
        "damaged too": msgspec.structs.replace(good, value=value_bytes("x")),
        "another version": msgspec.structs.replace(good, version=7),
    }[flaw]
    assert not state.repair("a", on_disk)
    with pytest.raises(SystemFault):
        state.get("a")
    put(state, "a", "again")
    assert state.get("a").value == value_bytes("again")


def lost(state: SharedState, *keys: str) -> None:
    """Damage keys in memory and on disk."""
    for key in keys:
        damage(state, key, value_bytes("x"))
    state.verify()
    for key in state.take_damaged():
        assert not state.repair(key, None)


def test_a_value_that_is_damaged_on_disk_too_does_not_keep_others_from_being_read() -> None:
    state = SharedState()
    for key in ("a", "b", "c"):
        put(state, key, key)
    lost(state, "b")
    assert state.lost == ["b"]
    assert [one.key for one in state.snapshot("")] == ["a", "c"]
    with pytest.raises(SystemFault, match="in memory and on disk; set it again, or delete it"):
        state.get("b")
    state.check_invariants()
    assert put(state, "b", "again").version == 2
    assert state.lost == []
    assert [one.key for one in state.snapshot("")] == ["a", "b", "c"]


def test_a_lost_value_can_be_deleted() -> None:
    state = SharedState()
    put(state, "a", "a")
    lost(state, "a")
    state.commit(state.delete("a", 1, 1000))
    with pytest.raises(NotFound):
        state.get("a")
    state.check_invariants()


def test_a_conflict_does_not_hand_out_a_damaged_value() -> None:
    state = SharedState()
    put(state, "a", "a")
    good = damage(state, "a", b"\xc1")
    with pytest.raises(SystemFault, match="read from disk again"):
        state.update("a", value_bytes("b"), 7, 1000)
    assert state.take_damaged() == ["a"]
    assert state.repair("a", good)
    with pytest.raises(StateConflict):
        state.update("a", value_bytes("b"), 7, 1000)


def test_a_key_that_was_set_again_meanwhile_needs_no_repair() -> None:
    state = SharedState()
    put(state, "a", "a")
    good = damage(state, "a", value_bytes("b"))
    state.verify()
    state.take_damaged()
    newer = put(state, "a", "newer")
    assert state.repair("a", good)
    assert state.get("a") == newer


def test_a_round_is_done_in_parts_and_begins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_state_module, "VERIFIED_KEYS", 2)
    state = SharedState()
    for key in ("a", "b", "c"):
        put(state, key, key)
    damage(state, "c", value_bytes("x"))
    state.verify()
    assert state.take_damaged() == []
    state.verify()
    assert state.take_damaged() == ["c"]
    damage(state, "a", value_bytes("x"))
    state.verify()
    assert state.take_damaged() == ["a"]


def test_a_part_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_state_module, "VERIFIED_BYTES", 100)
    state = SharedState()
    for key in ("a", "b"):
        put(state, key, bytes(98))
        damage(state, key, value_bytes(bytes([1]) * 98))
    state.verify()
    assert state.take_damaged() == ["a"]
    state.verify()
    assert state.take_damaged() == ["b"]


def test_a_bounded_number_of_values_is_repaired_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_state_module, "MAX_REPAIRS", 2)
    state = SharedState()
    good = {}
    for key in ("a", "b", "c"):
        put(state, key, key)
        good[key] = damage(state, key, value_bytes("x"))
    state.verify()
    assert state.take_damaged() == ["a", "b"]
    assert state.take_damaged() == []
    assert state.repair("a", good["a"])
    assert state.take_damaged() == ["c"]
    state.check_invariants()


# --- laws ---

KEYS = st.sampled_from(["a", "b", "c.d"])


class Model(RuleBasedStateMachine):
    """A plain list of the requested changes agrees with the state machine on every version, value and refusal."""

    def __init__(self) -> None:
        super().__init__()
        self.state = SharedState()
        self.committed: dict[str, tuple[int, Any]] = {}
        self.newest: dict[str, tuple[int, Any]] = {}
        self.waiting: list[StateRecord] = []
        self.disk: dict[str, StateRecord] = {}

    @rule(key=KEYS, value=st.integers() | st.none() | st.text(max_size=3), expected=st.none() | st.integers(0, 4))
    def update(self, key: str, value: Any, expected: int | None) -> None:
        value = {"is": value} if not isinstance(value, int) or abs(value) < 2**63 else 0
        version, current = self.newest.get(key, (0, None))
        if expected not in (None, version if current is not None else 0):
            with pytest.raises(StateConflict):
                self.state.update(key, value_bytes(value), expected, 1)
            return
        self.waiting.append(self.state.update(key, value_bytes(value), expected, 1))
        self.newest[key] = (version + 1, value)

    @rule(key=KEYS, expected=st.none() | st.integers(0, 4))
    def delete(self, key: str, expected: int | None) -> None:
        version, current = self.newest.get(key, (0, None))
        if current is None or expected not in (None, version):
            with pytest.raises((StateConflict, NotFound)):
                self.state.delete(key, expected, 1)
            return
        self.waiting.append(self.state.delete(key, expected, 1))
        self.newest[key] = (version + 1, None)

    @rule(count=st.integers(1, 3))
    def commit(self, count: int) -> None:
        for record in self.waiting[:count]:
            self.state.commit(record)
            self.disk[record.key] = record
            value = None if record.value is None else msgspec.msgpack.decode(record.value)
            self.committed[record.key] = (record.version, value)
        del self.waiting[:count]

    @rule()
    def fail(self) -> None:
        self.state.roll_back()
        self.waiting.clear()
        self.newest = dict(self.committed)

    @rule()
    def restart(self) -> None:
        restored = SharedState()
        restored.restore(sorted(self.disk.values(), key=lambda record: record.revision))
        assert restored.revision == self.state.revision
        self.fail()
        self.state = restored

    @invariant()
    def agrees(self) -> None:
        self.state.check_invariants()
        found = {record.key: record for record in self.state.snapshot("")}
        alive = {key: one for key, one in self.committed.items() if one[1] is not None}
        assert {key: record.version for key, record in found.items()} == {key: one[0] for key, one in alive.items()}
        for key, record in found.items():
            assert record.value == value_bytes(alive[key][1])
            assert record.checksum == checksum(value_bytes(alive[key][1]))


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
