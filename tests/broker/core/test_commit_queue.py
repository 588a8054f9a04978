"""The commit queue releases what waits for a commit once and in order, as soon as that commit is done."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_broker.core import commit_queue as commit_queue_module
from backtestr_broker.core.commit_queue import CommitQueue, PendingBacktest
from backtestr_broker.core.records import JobDeleted
from backtestr_protocol.errors import Busy

CHANGES = (JobDeleted("b"),)


class Sized(JobDeleted, frozen=True):
    """A change of 100 bytes."""

    @property
    def size(self) -> int:
        return 100


def test_a_commit_releases_only_the_changes_up_to_it() -> None:
    commit_queue = CommitQueue()
    tickets = [commit_queue.issue(CHANGES, PendingBacktest(name)).ticket for name in ("a", "b", "c")]
    assert commit_queue.committed(tickets[1]) == [PendingBacktest("a"), PendingBacktest("b")]
    assert commit_queue.committed(tickets[1]) == []
    assert commit_queue.committed(tickets[2]) == [PendingBacktest("c")]
    commit_queue.check_invariants()


def test_a_failure_fails_every_change_issued_before_its_report() -> None:
    commit_queue = CommitQueue()
    first = commit_queue.issue(CHANGES, PendingBacktest("a"))
    commit_queue.issue(CHANGES, PendingBacktest("b"))
    assert commit_queue.failed(first.generation) == [PendingBacktest("a"), PendingBacktest("b")]
    later = commit_queue.issue(CHANGES, PendingBacktest("c"))
    assert later.generation > first.generation
    assert commit_queue.failed(first.generation) == [], "this generation has failed already"
    assert commit_queue.committed(later.ticket) == [PendingBacktest("c")]
    commit_queue.check_invariants()


def test_an_answer_waits_for_earlier_changes_if_there_are_any() -> None:
    commit_queue = CommitQueue()
    assert not commit_queue.wait(PendingBacktest("a"))
    ticket = commit_queue.issue(CHANGES, PendingBacktest("b")).ticket
    assert commit_queue.wait(PendingBacktest("c"))
    later = commit_queue.issue(CHANGES, PendingBacktest("d")).ticket
    assert commit_queue.committed(ticket) == [PendingBacktest("b"), PendingBacktest("c")]
    assert commit_queue.committed(later) == [PendingBacktest("d")]
    assert not commit_queue.wait(PendingBacktest("e"))


def test_the_commit_queue_is_bounded_in_changes_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit_queue_module, "MAX_UNCOMMITTED", 3)
    monkeypatch.setattr(commit_queue_module, "MAX_UNCOMMITTED_BYTES", 250)
    commit_queue = CommitQueue()
    commit_queue.check_room(1000)  # an empty queue takes one change of any size
    first = commit_queue.issue([Sized("a")], PendingBacktest("a"))
    commit_queue.check_room(150)
    with pytest.raises(Busy) as caught:
        commit_queue.check_room(151)
    assert caught.value.details == {"retryAfterMs": commit_queue_module.RETRY_AFTER_MS}
    commit_queue.issue(CHANGES, PendingBacktest("b"))
    commit_queue.issue(CHANGES, PendingBacktest("c"))
    with pytest.raises(Busy, match="3 changes are on their way"):
        commit_queue.check_room()
    with pytest.raises(Busy):
        commit_queue.wait(PendingBacktest("d"))
    commit_queue.committed(first.ticket)
    commit_queue.check_room(250)
    commit_queue.check_invariants()


@settings(deadline=None)
@given(st.lists(st.sampled_from(["issue", "wait", "commit", "fail"]), max_size=40))
def test_everything_is_released_exactly_once_and_in_order(actions: list[str]) -> None:
    commit_queue = CommitQueue()
    held: list[str] = []
    released: list[str] = []
    tickets: list[tuple[int, int]] = []
    for number, action in enumerate(actions):
        name = str(number)
        match action:
            case "issue":
                persist = commit_queue.issue(CHANGES, PendingBacktest(name))
                tickets.append((persist.ticket, persist.generation))
                held.append(name)
            case "wait":
                if commit_queue.wait(PendingBacktest(name)):
                    held.append(name)
            case "commit" if tickets:
                ticket, generation = tickets.pop(0)
                if generation == commit_queue.generation:
                    released += names(commit_queue.committed(ticket))
            case "fail" if tickets:
                _, generation = tickets.pop(0)
                released += names(commit_queue.failed(generation))
        commit_queue.check_invariants()
        assert released == held[: len(released)]
    released += names(commit_queue.failed(commit_queue.generation))
    assert released == held
    assert len(commit_queue) == 0


def names(released: list[commit_queue_module.Pending]) -> list[str]:
    return [one.backtest_id for one in released if isinstance(one, PendingBacktest)]
