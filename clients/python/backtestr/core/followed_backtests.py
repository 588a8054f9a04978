"""The backtests that a client follows to their end, and the requests for their status.

No I/O. The end of a backtest arrives on `system.backtests`. The broker is asked where that message may have been lost.
"""

from __future__ import annotations

from backtestr_protocol.messages import BacktestRef

from .effects import Ask, StatusCheck


class FollowedBacktests:
    """The backtests of which no end is known yet.

    A new backtest is asked for only once the broker has accepted it: its start may still wait for a broker.
    """

    def __init__(self) -> None:
        self._followed: set[str] = set()
        self._unstarted: set[str] = set()  # of those, the broker has not accepted these yet
        self._overdue: set[str] = set()  # of the unstarted, these are asked for once they have started

    def __contains__(self, backtest_id: str) -> bool:
        return backtest_id in self._followed

    def __len__(self) -> int:
        return len(self._followed)

    def follow(self, backtest_id: str, *, is_new: bool) -> list[Ask]:
        """Follow a backtest. One that `is_new` cannot have ended yet, and is not asked for."""
        self._followed.add(backtest_id)
        if is_new:
            self._unstarted.add(backtest_id)
            return []
        return [status_request(backtest_id)]

    def started(self, backtest_id: str) -> list[Ask]:
        """Note that the broker has accepted a new backtest."""
        self._unstarted.discard(backtest_id)
        is_overdue = backtest_id in self._overdue
        self._overdue.discard(backtest_id)
        return [status_request(backtest_id)] if is_overdue else []

    def unfollow(self, backtest_id: str) -> None:
        """Forget a backtest, if it is followed."""
        self._followed.discard(backtest_id)
        self._unstarted.discard(backtest_id)
        self._overdue.discard(backtest_id)

    def ask_for_all(self) -> list[Ask]:
        """Ask for the status of every backtest, because messages that report an end may be lost."""
        self._overdue |= self._unstarted
        return [status_request(backtest_id) for backtest_id in sorted(self._followed - self._unstarted)]

    def check_invariants(self) -> None:
        """Raise `AssertionError` unless the sets contain each other."""
        assert self._overdue <= self._unstarted <= self._followed


def status_request(backtest_id: str) -> Ask:
    """Return the effect that asks for the status of a backtest."""
    return Ask("GetBacktestStatus", BacktestRef(backtest_id=backtest_id), StatusCheck(backtest_id))
