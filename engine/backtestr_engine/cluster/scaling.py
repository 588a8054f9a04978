"""A model of how long a sweep takes on so many workers of a cluster. docs/scaling.md has what it was measured with.

Two things bound a sweep. Each worker has, beside the work on rows, some time for each block: it decodes it, and sends
the rows. And all blocks pass through one scheduler and the coordinators, which have some time for each, too; from some
number of workers on they are what a sweep waits for, and further workers change nothing.
"""

from __future__ import annotations

import msgspec


class ClusterCost(msgspec.Struct, frozen=True, kw_only=True):
    """The seconds that a block costs beside its work: on its worker, and where all blocks pass; and those of a start.

    A block has `block` seconds of work.
    """

    block: float = 0.25
    on_worker: float
    in_passing: float
    start: float = 0.0


def expected_seconds(work: float, workers: int, cost: ClusterCost) -> float:
    """Return how long `work` seconds of rows take on so many workers, at least 1.

    The last blocks end at different times: half a block's time is lost with that, on average.
    """
    blocks = max(1.0, work / cost.block)
    each = cost.block + cost.on_worker
    on_workers = blocks * each / workers + (each / 2 if workers > 1 else 0.0)
    return cost.start + max(on_workers, blocks * cost.in_passing, each)


def expected_speed(work: float, workers: int, cost: ClusterCost) -> float:
    """Return how many times as fast that is as one worker of the broker without a cluster."""
    return work / expected_seconds(work, workers, cost)


def most_workers(cost: ClusterCost) -> int:
    """Return the number of workers from which on all wait for what every block passes through."""
    return max(1, int((cost.block + cost.on_worker) / cost.in_passing))
