"""Sweeps from a script: one call, and a table with a row for each combination.

    table = sweep(bars, find_algorithm("sma_cross"), {"fast": range(5, 50), "slow": range(20, 200, 5)},
                  where="slow - fast >= 10", conventions=load_config(None).conventions)
    table.best(5, "sharpe_ratio")

A figure of a row is that of the single backtest of its combination, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import polars as pl

from backtestr_engine.algorithms.algorithm import Algorithm
from backtestr_engine.data.arrays import AnyArray
from backtestr_engine.data.bars import Bars
from backtestr_engine.data.panel import Panel
from backtestr_engine.metrics.returns import BLOCKS
from backtestr_engine.simulation.conventions import Conventions
from backtestr_protocol.errors import InvalidConfiguration, ValidationError, did_you_mean
from backtestr_protocol.messages import BacktestConfig
from backtestr_protocol.metrics import METRICS

from .sweep_blocks import Block, SweepWork, run_block
from .sweep_plan import SweepPath, SweepPlan, plan_sweep
from .sweep_space import Count

BLOCK_CELLS = 4096
"""Cells of a block in a script: their rows take some 3 MB."""

_WHOLE = frozenset(one.name for one in METRICS if one.unit in ("count", "ms"))


class SweepTable(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of a sweep, the number of its combinations, and the path by which the rows were computed.

    `frame` has `cell`, the swept parameters, the metrics (null where undefined), `return_sums` and `square_sums` (Σ r
    and Σ r² in 16 blocks of time), and `failure`: the reason for which a combination failed, else null.
    """

    frame: pl.DataFrame
    count: Count
    path: SweepPath

    def best(self, rows: int, metric: str, *, lowest: bool = False) -> pl.DataFrame:
        """Return up to `rows` rows with the highest value of a metric, or the lowest, without those that have none.

        Of equal rows the one of the lower cell is first. Raises `ValidationError` for a metric that is no column, and
        `InvalidConfiguration` where it is undefined for every row.
        """
        names = [one.name for one in METRICS if one.name in self.frame.columns]
        if metric not in names:
            raise ValidationError(
                f"the table has no metric {metric!r}{did_you_mean(metric, names)} ({', '.join(names)})",
                path="$.objective",
                expected=names,
            )
        found = self.frame.filter(pl.col(metric).is_not_null())
        if not len(found):
            raise InvalidConfiguration(
                f"{metric} is undefined for each of {len(self.frame):,} rows, so none is the best: the single run of a "
                "row says why",
                path="$.objective",
            )
        return found.sort([metric, "cell"], descending=[not lowest, False]).head(rows)


def sweep(
    bars: Bars | Sequence[Bars],
    algorithm: Algorithm,
    space: Mapping[str, Any],
    *,
    conventions: Conventions,
    where: str | None = None,
    metrics: Sequence[str] | str | None = None,
    parameters: Mapping[str, Any] | None = None,
    initial_capital: float = 10_000.0,
    commission: float = 0.0,
    slippage: float = 0.0,
    options: Mapping[str, Any] | None = None,
    warmup: int = 0,
) -> SweepTable:
    """Run every combination of a space, and return the table of their figures.

    `bars` are those of one symbol, or of several that share the account. The first `warmup` of them are seen by the
    algorithm and not traded. `conventions` are the defaults of `options`, which are named as in `BacktestConfig`;
    `parameters` are those that are not swept. `space`, `where` and `metrics` are as for `plan_sweep`. Raises
    `ValidationError` and `InvalidConfiguration`.
    """
    seen = Panel.of([bars] if isinstance(bars, Bars) else list(bars))
    if not 0 <= warmup < len(seen):
        raise InvalidConfiguration(
            f"a warm-up of {warmup:,} leaves none of {len(seen):,} bars to test", path="$.warmup"
        )
    start = int(seen.timestamp[warmup])
    config = BacktestConfig(
        algorithm_id=algorithm.algorithm_id,
        symbol=seen.symbols[0],
        symbols=list(seen.symbols) if len(seen.symbols) > 1 else [],
        initial_capital=initial_capital,
        timeframe=seen.timeframe,
        commission=commission,
        slippage=slippage,
        parameters=dict(parameters or {}),
        options=dict(options or {}),
        warmup=warmup,
    )
    plan = plan_sweep(config, algorithm, space, conventions, where=where, metrics=metrics)
    count = plan.space.count()
    panel = Panel.of([one.between(start, None) for one in seen.series]) if warmup else seen
    work = SweepWork(plan, algorithm, panel, seen)
    blocks = (run_block(work, first, BLOCK_CELLS) for first in range(0, plan.space.cells, BLOCK_CELLS))
    return SweepTable(frame=table_of(plan, blocks), count=count, path=plan.path)


def table_of(plan: SweepPlan, blocks: Iterable[Block]) -> pl.DataFrame:
    """Return the rows of blocks, in any order of theirs, as a table in the order of their cells (see `SweepTable`)."""
    frames = [frame_of(block) for block in blocks]
    empty = frame_of(_empty(plan))
    return pl.concat([empty, *frames]).sort("cell")


def frame_of(block: Block) -> pl.DataFrame:
    """Return the rows of one block as a table (see `SweepTable`)."""
    metrics = {name: _nullable(name, values, block.codes[name]) for name, values in block.metrics.items()}
    reasons = [block.failures.get(row) for row in range(len(block))]
    sums = pl.Array(pl.Float64, BLOCKS)
    return pl.DataFrame(
        [
            pl.Series("cell", block.cells),
            *(pl.Series(name, values) for name, values in block.parameters.items()),
            *metrics.values(),
            pl.Series("return_sums", block.return_sums, dtype=sums),
            pl.Series("square_sums", block.square_sums, dtype=sums),
            pl.Series("failure", reasons, dtype=pl.String),
        ]
    )


def _nullable(name: str, values: AnyArray, codes: AnyArray) -> pl.Series:
    column = pl.Series(name, values)
    column = column.set(pl.Series(codes != 0), None)
    return column.cast(pl.Int64) if name in _WHOLE else column


def _empty(plan: SweepPlan) -> Block:
    """Return a block without rows, whose columns have the types of all others."""
    found = plan.space.combinations(0, 0)
    none = np.empty(0)
    return Block(
        first=0,
        count=0,
        cells=found.cells,
        parameters=found.columns,
        metrics=dict.fromkeys(plan.metrics, none),
        codes=dict.fromkeys(plan.metrics, np.empty(0, dtype=np.uint8)),
        return_sums=np.empty((0, BLOCKS)),
        square_sums=np.empty((0, BLOCKS)),
        failures={},
    )
