"""The messages of a backtest that an earlier worker has published, as the broker or a checkpoint counts them."""

from __future__ import annotations

import msgspec

from backtestr_engine.backtest.checkpoint_format import PublishedSoFar
from backtestr_protocol import topics
from backtestr_protocol.worker_channel import Assign, Continued


class PublishedBefore(msgspec.Struct, frozen=True):
    """The messages that are not published again.

    `published` counts them by topic, without the `marks`; `progress_percent` is the progress among them. `continued`
    tells the broker of these numbers, if they are those of an earlier broker.
    """

    published: dict[str, int]
    marks: int
    progress_percent: float | None
    continued: Continued | None = None


def published_before(assign: Assign, sent: PublishedSoFar | None) -> PublishedBefore:
    """Return what was published, of which `sent` is what the checkpoint has that the backtest goes on from.

    The broker counts what it has published. What an earlier broker has published is counted up to the checkpoint.
    """
    if sent is None or not assign.unnumbered:
        return PublishedBefore(assign.published, assign.marks or 0, assign.progress_percent)
    positions = topics.positions(assign.task_id)
    published = dict(sent.numbers)
    if positions in published:
        published[positions] -= sent.marks
    continued = Continued(
        task_id=assign.task_id,
        numbers=sent.numbers,
        marks=sent.marks,
        progress_percent=sent.progress_percent,
    )
    return PublishedBefore(published, sent.marks, sent.progress_percent, continued)
