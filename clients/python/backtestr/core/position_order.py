"""The positions of a backtest, each once, across a restart of the broker.

No I/O. The positions of a backtest that ran when its broker ended are read again from the first under the next broker.
The changes are the same again, maybe under other sequence numbers, since the marks between them follow the clock.
"""

from __future__ import annotations

from backtestr_protocol.stream_messages import PositionUpdate


class PositionOrder:
    """The positions that were read of one backtest: after a restart they tell which ones are new."""

    __slots__ = ("_changed", "_is_behind", "_latest", "_resumes_after")

    def __init__(self) -> None:
        self._changed: PositionUpdate | None = None  # the last change that was read
        self._latest = 0  # the latest time that was read
        self._is_behind = False  # True until the last change comes again
        self._resumes_after: int | None = None  # marks up to this time were read, or later ones

    def restarted(self) -> None:
        """Note that the positions are read again from the first."""
        self._is_behind = self._changed is not None
        self._resumes_after = self._latest

    def is_new(self, update: PositionUpdate) -> bool:
        """Return False for an update that was read before the restart, and take any other as read."""
        has_restarted = self._is_behind or self._resumes_after is not None
        if not has_restarted:  # without a call for each of a hundred thousand
            if not update.mark:
                self._changed = update
        elif not (self._is_new_mark(update.timestamp) if update.mark else self._is_new_change(update)):
            return False
        self._latest = max(self._latest, update.timestamp)
        return True

    def _is_new_mark(self, timestamp: int) -> bool:
        if self._resumes_after is not None and timestamp <= self._resumes_after:
            return False
        self._resumes_after = None
        return True

    def _is_new_change(self, update: PositionUpdate) -> bool:
        last = self._changed
        if self._is_behind and last is not None and update.timestamp <= last.timestamp:
            self._is_behind = update != last
            return False
        self._is_behind = False  # also where the last change was lost on the way
        self._changed = update
        return True
