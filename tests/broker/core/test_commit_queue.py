"""The ledger: what waits for the disk is released once, in order, and only by what it waited for."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_broker.core import commit_queue as ledger_module
from backtestr_broker.core.commit_queue import CommitQueue, PendingBacktest
from backtestr_broker.core.records import JobDeleted
from backtestr_protocol.errors import Busy

CHANGES = (JobDeleted("b"),)


class Sized(JobDeleted, frozen=True):
    """A change of a hundred bytes."""

    @property
    def size(self) -> int:
        return 100


def test_a_commit_releases_what_came_before_it_and_nothing_else() -> None:
    ledger = CommitQueue()
    tickets = [ledger.issue(CHANGES, PendingBacktest(name)).ticket for name in ("a", "b", "c")]
    assert ledger.committed(tickets[1]) == [PendingBacktest("a"), PendingBacktest("b")]
    assert ledger.committed(tickets[1]) == []
    assert ledger.committed(tickets[2]) == [PendingBacktest("c")]
    ledger.check_invariants()


def test_a_failure_takes_everything_with_it_that_was_issued_before_it_was_heard_of() -> None:
    ledger = CommitQueue()
    first = ledger.issue(CHANGES, PendingBacktest("a"))
    ledger.issue(CHANGES, PendingBacktest("b"))
    assert ledger.failed(first.generation) == [PendingBacktest("a"), PendingBacktest("b")]
    later = ledger.issue(CHANGES, PendingBacktest("c"))
    assert later.generation > first.generation
    assert ledger.failed(first.generation) == [], "old news"
    assert ledger.committed(later.ticket) == [PendingBacktest("c")]
    ledger.check_invariants()


def test_what_rests_on_others_waits_for_them_and_for_nothing_when_there_are_none() -> None:
    ledger = CommitQueue()
    assert not ledger.wait(PendingBacktest("a"))
    ticket = ledger.issue(CHANGES, PendingBacktest("b")).ticket
    assert ledger.wait(PendingBacktest("c"))
    later = ledger.issue(CHANGES, PendingBacktest("d")).ticket
    assert ledger.committed(ticket) == [PendingBacktest("b"), PendingBacktest("c")]
    assert ledger.committed(later) == [PendingBacktest("d")]
    assert not ledger.wait(PendingBacktest("e"))


def test_room_is_bounded_in_number_and_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "MAX_UNCOMMITTED", 3)
    monkeypatch.setattr(ledger_module, "MAX_UNCOMMITTED_BYTES", 250)
    ledger = CommitQueue()
    ledger.check_room(1000)  # one change is let in whatever its size: nothing is in its way
    first = ledger.issue([Sized("a")], PendingBacktest("a"))
    ledger.check_room(150)
    with pytest.raises(Busy) as caught:
        ledger.check_room(151)
    assert caught.value.details == {"retryAfterMs": ledger_module.RETRY_AFTER_MS}
    ledger.issue(CHANGES, PendingBacktest("b"))
    ledger.issue(CHANGES, PendingBacktest("c"))
    with pytest.raises(Busy, match="3 changes are on their way"):
        ledger.check_room()
    with pytest.raises(Busy):
        ledger.wait(PendingBacktest("d"))
    ledger.committed(first.ticket)
    ledger.check_room(250)
    ledger.check_invariants()


@settings(deadline=None)
@given(st.lists(st.sampled_from(["issue", "wait", "commit", "fail"]), max_size=40))
def test_everything_is_released_exactly_once_and_in_order(actions: list[str]) -> None:
    ledger = CommitQueue()
    held: list[str] = []
    released: list[str] = []
    tickets: list[tuple[int, int]] = []
    for number, action in enumerate(actions):
        name = str(number)
        match action:
            case "issue":
                persist = ledger.issue(CHANGES, PendingBacktest(name))
                tickets.append((persist.ticket, persist.generation))
                held.append(name)
            case "wait":
                if ledger.wait(PendingBacktest(name)):
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


def names(released: list[ledger_module.Pending]) -> list[str]:
    return [one.backtest_id for one in released if isinstance(one, PendingBacktest)]
