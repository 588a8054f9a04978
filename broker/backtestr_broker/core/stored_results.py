"""Keep what is known of the results on disk: their sizes, which are pinned, and how much of the disk is used.

The files themselves are surveyed and removed by `io/stored_files`. A survey names only what has changed since the one
before it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from backtestr_protocol.errors import ValidationError
from backtestr_protocol.result_messages import DiskUsage

from .records import PinRecord
from .retention import StoredItem

# Pins are remembered one by one, in memory and on disk; more come from a program that pins everything.
MAX_PINS = 10_000


class StoredResults:
    """The results on disk as last surveyed, and the pins."""

    def __init__(self) -> None:
        self.usage: DiskUsage | None = None  # None before the first survey
        self.problem: str | None = None  # why the last survey failed
        self._sizes: dict[str, tuple[int, int]] = {}  # bytes, and when they were stored
        self._total = 0
        self._newest: list[tuple[str, int, int]] | None = None  # kept between two surveys
        self._pins: set[str] = set()
        self._pinning: set[str] = set()  # on their way to disk: retention must not be faster

    def __contains__(self, backtest_id: str) -> bool:
        """Return true if a result of that backtest is on disk."""
        return backtest_id in self._sizes

    def __len__(self) -> int:
        return len(self._sizes)

    @property
    def total_bytes(self) -> int:
        return self._total

    def restore(self, pins: Iterable[PinRecord]) -> None:
        """Take over the pins of an earlier broker."""
        self._pins.update(one.backtest_id for one in pins)

    def surveyed(self, changed: Mapping[str, tuple[int, int]], gone: Collection[str], usage: DiskUsage | None) -> None:
        """Take a survey: results that are new or changed, those that are gone, and the use of the disk."""
        if changed or gone:
            self._newest = None
        self._sizes.update(changed)
        for backtest_id in gone:
            self._sizes.pop(backtest_id, None)
        self._total = sum(size for size, _ in self._sizes.values())
        if usage is not None:
            self.usage = usage

    def size(self, backtest_id: str) -> int:
        """Return the bytes of a result, 0 where there is none."""
        return self._sizes.get(backtest_id, (0, 0))[0]

    def newest(self) -> list[tuple[str, int, int]]:
        """Return every result as id, bytes and time of storing, the latest first."""
        if self._newest is None:
            ordered = sorted(self._sizes.items(), key=lambda one: (one[1][1], one[0]), reverse=True)
            self._newest = [(backtest_id, size, stored_ms) for backtest_id, (size, stored_ms) in ordered]
        return self._newest

    def items(self, in_use: Collection[str]) -> list[StoredItem]:
        """Return all results for retention; those pinned or `in_use` are kept."""
        kept = self._pins | self._pinning | set(in_use)
        return [StoredItem(name, size, stored_ms, name in kept) for name, (size, stored_ms) in self._sizes.items()]

    def is_pinned(self, backtest_id: str) -> bool:
        return backtest_id in self._pins

    def check_pins(self, backtest_id: str) -> None:
        """Raise `ValidationError` when there is no room for a further pin."""
        if backtest_id not in self._pins and len(self._pins) >= MAX_PINS:
            raise ValidationError(
                f"$.pinned: {MAX_PINS:,} backtests are pinned, the most there can be: unpin some", path="$.pinned"
            )

    def begin_pin(self, backtest_id: str) -> None:
        """Keep a backtest whose pin is on its way to disk."""
        self._pinning.add(backtest_id)

    def end_pin(self, backtest_id: str) -> None:
        """Take back a pin that could not be written."""
        self._pinning.discard(backtest_id)

    def pin(self, backtest_id: str, pinned: bool) -> None:
        """Pin a backtest, or unpin it: that is on disk now."""
        self._pinning.discard(backtest_id)
        if pinned:
            self._pins.add(backtest_id)
        else:
            self._pins.discard(backtest_id)

    def check_invariants(self) -> None:
        assert self._total == sum(size for size, _ in self._sizes.values())
        assert all(size >= 0 for size, _ in self._sizes.values())
