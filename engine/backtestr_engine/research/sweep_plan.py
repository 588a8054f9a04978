"""A sweep before it runs: its checks, and the plan that has passed them, which can be sent to any worker.

A sweep is one configuration with a space in place of some of its parameters. The path by which its rows are computed
follows from the algorithm and the conventions alone. All paths give the same rows, but not in the same time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from backtestr_engine.algorithms.algorithm import Algorithm
from backtestr_engine.backtest.plan import check_money, check_shared_account
from backtestr_engine.built_in import BUILT_IN
from backtestr_engine.simulation.conventions import Conventions, Options, resolve_options
from backtestr_protocol.errors import ValidationError, did_you_mean, quoted
from backtestr_protocol.messages import BacktestConfig
from backtestr_protocol.metrics import METRICS

from .sweep_space import Space, space_of

OF_MARKET = ("alpha", "beta")
OF_TAILS = ("value_at_risk_95", "conditional_value_at_risk_95", "tail_ratio")
OF_EXCURSIONS = ("average_mae", "average_mfe")

USUAL_METRICS = tuple(one.name for one in METRICS if one.name not in (*OF_MARKET, *OF_TAILS, *OF_EXCURSIONS))
"""The metrics of a row unless others are asked for: those of one pass over the equity and the trades.

Those of the market need a second pass, those of the tails a search in all returns, and excursions one in all prices.
"""

ALL_METRICS = tuple(one.name for one in METRICS)

COLUMNS = ("cell", "trial", "return_sums", "square_sums", "failure")
"""The columns of rows beside the swept parameters and the metrics."""

CROSSES = ("sma_cross", "ema_cross")
CHANNELS = ("donchian_breakout",)


class SweepPath(msgspec.Struct, frozen=True):
    """The way in which rows are computed, and why it is that one.

    fused: its lines are shared, and signals are found, simulated and measured in one compiled loop.
    general: the algorithm is called for each combination; its signals are simulated and measured in a compiled loop.
    single_runs: each combination is a backtest of its own, of which the figures are kept.
    """

    name: Literal["fused", "general", "single_runs"]
    reason: str


class SweepPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A sweep that has passed every check: plain values, without bars and code.

    `config` has the parameters that are not swept. `metrics` are names in Python.
    """

    config: BacktestConfig
    options: Options
    space: Space
    metrics: tuple[str, ...]
    path: SweepPath


def plan_sweep(
    config: BacktestConfig,
    algorithm: Algorithm,
    space: Mapping[str, Any],
    conventions: Conventions,
    *,
    where: str | None = None,
    metrics: Sequence[str] | str | None = None,
) -> SweepPlan:
    """Check a sweep of `algorithm` over `space`, and return its plan; `conventions` are the defaults.

    `metrics` are names, or "all"; without any they are `USUAL_METRICS`. Raises what `plan.prepare` raises for a single
    run, and what `space_of` does. Whether constraints leave anything, `Space.count` says.
    """
    own = space_of(algorithm, space, config.parameters, where)
    for name in own.axes:
        if name in (*COLUMNS, *ALL_METRICS):
            raise ValidationError(
                f"{name} of {algorithm.name} cannot be swept, since rows have another column of that name: rename the "
                "parameter in the algorithm",
                path=f"$.space.{name}",
            )
    options = resolve_options(config.options, conventions)
    check_money(config)
    symbols = len(config.symbols) or 1
    if symbols > 1:
        check_shared_account(options.conventions)
    return SweepPlan(
        config=msgspec.structs.replace(config, algorithm_id=algorithm.algorithm_id, parameters=dict(own.fixed)),
        options=options,
        space=own,
        metrics=checked_metrics(metrics),
        path=choose_path(algorithm, options.conventions, symbols),
    )


def choose_path(algorithm: Algorithm, conventions: Conventions, symbols: int = 1) -> SweepPath:
    """Return the fastest path that an algorithm can take under these conventions."""
    if algorithm.across:
        return SweepPath("single_runs", f"{algorithm.name} compares symbols")
    if symbols > 1:
        return SweepPath("single_runs", f"{symbols} symbols share the account")
    if conventions.statistics != "per_bar":
        return SweepPath("single_runs", f"statistics {conventions.statistics} need the days of each run")
    is_built_in = BUILT_IN.get(algorithm.name) is algorithm
    if is_built_in and conventions.order_type == "market" and algorithm.name in (*CROSSES, *CHANNELS):
        return SweepPath("fused", f"combinations of {algorithm.name} share its lines")
    if is_built_in and algorithm.name in (*CROSSES, *CHANNELS):
        return SweepPath("general", f"orderType {conventions.order_type} needs prices of {algorithm.name} itself")
    return SweepPath("general", f"{algorithm.name} has to be called for its signals")


def checked_metrics(given: Sequence[str] | str | None) -> tuple[str, ...]:
    """Return the names in Python of metrics, which are given so or as on the wire. Raises `ValidationError`."""
    if given is None:
        return USUAL_METRICS
    if given == "all":
        return ALL_METRICS
    names = [given] if isinstance(given, str) else list(given)
    known = {one.wire_name: one.name for one in METRICS} | {name: name for name in ALL_METRICS}
    for name in names:
        if name not in known:
            raise ValidationError(
                f"unknown metric {quoted(name)}{did_you_mean(str(name), known)}; docs/metrics.md has all of them",
                path="$.metrics",
                expected=list(ALL_METRICS),
                got=quoted(name),
            )
    if not names:
        raise ValidationError(
            'metrics is empty: name some, such as ["sharpe_ratio"], or leave it out', path="$.metrics"
        )
    return tuple(dict.fromkeys(known[name] for name in names))
