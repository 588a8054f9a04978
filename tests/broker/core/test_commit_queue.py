"""The ledger: what waits for the disk is released once, in order, and only by what it waited for."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_broker.core import commit_queue as ledger_module
from backtestr_broker.core.commit_queue import HeldBacktest, Ledger
from backtestr_broker.core.records import JobDeleted
from backtestr_protocol.errors import Busy

CHANGES = (JobDeleted("b"),)


class Sized(JobDeleted, frozen=True):
    """A change of a hundred bytes."""

    @property
    def size(self) -> int:
        return 100


def test_a_commit_releases_what_came_before_it_and_nothing_else() -> None:
    ledger = Ledger()
    tickets = [ledger.issue(CHANGES, HeldBacktest(name)).ticket for name in ("a", "b", "c")]
    assert ledger.committed(tickets[1]) == [HeldBacktest("a"), HeldBacktest("b")]
    assert ledger.committed(tickets[1]) == []
    assert ledger.committed(tickets[2]) == [HeldBacktest("c")]
    ledger.check_invariants()


def test_a_failure_takes_everything_with_it_that_was_issued_before_it_was_heard_of() -> None:
    ledger = Ledger()
    first = ledger.issue(CHANGES, HeldBacktest("a"))
    ledger.issue(CHANGES, HeldBacktest("b"))
    assert ledger.failed(first.generation) == [HeldBacktest("a"), HeldBacktest("b")]
    later = ledger.issue(CHANGES, HeldBacktest("c"))
    assert later.generation > first.generation
    assert ledger.failed(first.generation) == [], "old news"
    assert ledger.committed(later.ticket) == [HeldBacktest("c")]
    ledger.check_invariants()


def test_what_rests_on_others_waits_for_them_and_for_nothing_when_there_are_none() -> None:
    ledger = Ledger()
    assert not ledger.wait(HeldBacktest("a"))
    ticket = ledger.issue(CHANGES, HeldBacktest("b")).ticket
    assert ledger.wait(HeldBacktest("c"))
    later = ledger.issue(CHANGES, HeldBacktest("d")).ticket
    assert ledger.committed(ticket) == [HeldBacktest("b"), HeldBacktest("c")]
    assert ledger.committed(later) == [HeldBacktest("d")]
    assert not ledger.wait(HeldBacktest("e"))


def test_room_is_bounded_in_number_and_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "MAX_UNCOMMITTED", 3)
    monkeypatch.setattr(ledger_module, "MAX_UNCOMMITTED_BYTES", 250)
    ledger = Ledger()
    ledger.check_room(1000)  # one change is let in whatever its size: nothing is in its way
    first = ledger.issue([Sized("a")], HeldBacktest("a"))
    ledger.check_room(150)
    with pytest.raises(Busy) as caught:
        ledger.check_room(151)
    assert caught.value.details == {"retryAfterMs": ledger_module.RETRY_AFTER_MS}
    ledger.issue(CHANGES, HeldBacktest("b"))
    ledger.issue(CHANGES, HeldBacktest("c"))
    with pytest.raises(Busy, match="3 changes are on their way"):
        ledger.check_room()
    with pytest.raises(Busy):
        ledger.wait(HeldBacktest("d"))
    ledger.committed(first.ticket)
    ledger.check_room(250)
    ledger.check_invariants()


@settings(deadline=None)
@given(st.lists(st.sampled_from(["issue", "wait", "commit", "fail"]), max_size=40))
def test_everything_is_released_exactly_once_and_in_order(actions: list[str]) -> None:
    ledger = Ledger()
    held: list[str] = []
    released: list[str] = []
    tickets: list[tuple[int, int]] = []
    for number, action in enumerate(actions):
        name = str(number)
        match action:
            case "issue":
                persist = ledger.issue(CHANGES, HeldBacktest(name))
                tickets.append((persist.ticket, persist.generation))
                held.append(name)
            case "wait":
                if ledger.wait(HeldBacktest(name)):
                    held.append(name)
            case "commit" if tickets:
                ticket, generation = tickets.pop(0)
                if generation == ledger.generation:
                    released += names(ledger.committed(ticket))
            case "fail" if tickets:
                _, generation = tickets.pop(0)
                released += names(ledger.failed(generation))
        ledger.check_invariants()
        assert released == held[: len(released)]
    released += names(ledger.failed(ledger.generation))
    assert released == held
    assert len(ledger) == 0


def names(released: list[ledger_module.Held]) -> list[str]:
    return [one.backtest_id for one in released if isinstance(one, HeldBacktest)]
