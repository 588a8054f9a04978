"""Keep which parked backtests wait to continue: only the worker that has a backtest parked can continue it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator


class Resuming:
    """The parked backtests that wait to continue, by worker, in the order in which they were resumed."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[str]] = {}

    def __iter__(self) -> Iterator[str]:
        """Yield the ids of the workers of which a backtest waits, or did."""
        return iter(list(self._waiting))

    def add(self, worker_id: str, backtest_id: str) -> None:
        """Have a backtest wait until its worker can continue it."""
        self._waiting.setdefault(worker_id, deque()).append(backtest_id)

    def of(self, worker_id: str | None) -> list[str]:
        """Return the backtests that wait for a worker, in their order."""
        return list(self._waiting.get(worker_id or "", ()))

    def remove(self, worker_id: str, backtest_id: str) -> None:
        """Have a backtest wait no longer, which does."""
        self._waiting[worker_id].remove(backtest_id)

    def lost(self, worker_id: str) -> None:
        """Forget the backtests that waited for a worker which has ended."""
        self._waiting.pop(worker_id, None)
