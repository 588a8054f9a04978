"""This module has the messages between a worker of the broker and the workers of a cluster, as MessagePack.

Only bytes are handed to Dask, and functions by their names: nothing of backtestr is pickled, so a worker of another
version is refused by what it says, and not by an error of pickle.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from backtestr_engine.simulation.conventions import Conventions
from backtestr_protocol.errors import ErrorData
from backtestr_protocol.messages import Timeframe
from backtestr_protocol.sweep_tasks import BlockDone, SweepBlock


class Greeting(msgspec.Struct, frozen=True):
    """The question to a worker what its results depend on. If they would be equal, it warms its kernels."""

    facts: dict[str, str]
    conventions: Conventions


class Greeted(msgspec.Struct, frozen=True):
    """The answer: the worker's own facts."""

    facts: dict[str, str]


class ClusterBlock(msgspec.Struct, frozen=True):
    """A block to compute, on bars of the folder `catalog` if it is there and they are the same, else on bars sent.

    `facts` is the digest of the facts that the worker must have.
    """

    facts: str
    conventions: Conventions
    catalog: str
    block: SweepBlock


class ComputedBlock(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a block.

    computed: `rows` is its table as an Arrow stream, and `done` what the broker is told of it.
    needs: it lacks `bars` or the `source` of the algorithm, and is to be sent again once the worker has them.
    refused: the worker's results depend on other `facts`.
    failed: no row can be computed, for the reason `error`.
    """

    state: Literal["computed", "needs", "refused", "failed"]
    done: BlockDone | None = None
    rows: bytes = b""
    bars: bool = False
    source: bool = False
    facts: dict[str, str] = {}
    error: ErrorData | None = None


class SentBars(msgspec.Struct, frozen=True):
    """The bars of one symbol: each column as bytes, in the order of `bars.COLUMNS`."""

    symbol: str
    timeframe: Timeframe
    zone: str
    columns: list[bytes]


class SentSource(msgspec.Struct, frozen=True):
    """The source of an algorithm, and the name that errors give it."""

    algorithm_id: str
    name: str
    text: str


class Supplies(msgspec.Struct, frozen=True):
    """Supplies that a worker keeps for the blocks to come: bars by their version, and the source of an algorithm."""

    data_version: str
    bars: list[SentBars] | None = None
    source: SentSource | None = None
