"""Delete sweeps by age, number and bytes, after each survey of the files.

Those that have not ended, that are paused or whose blocks are being computed stay, and so do the newest ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from backtestr_protocol.errors import BacktestrError, Busy, ErrorData, SystemFault

from .outbox import Outbox
from .retention import DueItem, RetentionRules, StoredItem, due
from .scheduling.sweep_scheduling import SweepScheduling

# Sweeps that are deleted after one survey: each is a task of an interactive worker.
BATCH = 10


class SweepRetention:
    """The rules by which sweeps are deleted, and those that could not be."""

    def __init__(self, outbox: Outbox, sweeping: SweepScheduling, rules: RetentionRules) -> None:
        self._outbox = outbox
        self._sweeping = sweeping
        self._rules = rules
        self._reported: set[str] = set()  # sweeps that could not be deleted: that is told once

    def surveyed(self, sizes: Mapping[str, int]) -> None:
        """Take the bytes of each sweep, and delete some of those that are due; the next survey comes to the others."""
        sweeping = self._sweeping
        items = [
            StoredItem(
                sweep.sweep_id,
                sizes.get(sweep.sweep_id, 0),
                sweep.end_time or sweep.submit_time,
                not sweep.ended or sweeping.is_busy(sweep),
            )
            for sweep in sweeping.sweeps
        ]
        for one in due(items, self._rules, self._outbox.wall_ms)[:BATCH]:
            try:
                sweeping.retire(sweeping.sweeps.get(one.name), partial(self._retired, one))
            except Busy:
                return

    def _retired(self, item: DueItem, error: BacktestrError | ErrorData | None) -> None:
        if error is None:
            self._reported.discard(item.name)
            self._outbox.notify("sweep_deleted", sweepId=item.name, bytes=item.size, reason=item.reason)
        elif item.name not in self._reported:
            self._reported.add(item.name)
            why = error.message if isinstance(error, ErrorData) else str(error)
            self._outbox.report(
                SystemFault(
                    f"sweep {item.name!r} is due ({item.reason}), and could not be deleted: {why}; this is tried again"
                )
            )
