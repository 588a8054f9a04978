"""Warnings of a result: sentences that a reader of its figures must know. They stand in the metrics."""

from __future__ import annotations

from backtestr_engine.algorithms.algorithm import Algorithm
from backtestr_engine.simulation.conventions import Conventions
from backtestr_protocol.messages import LookAhead

from .earlier_bars import WarmUpBars
from .plan import Plan


def result_warnings(plan: Plan, look_ahead: LookAhead | None) -> list[str]:
    """Return the warnings of a result of `plan`; `look_ahead` is the verdict on its algorithm, if it was checked."""
    warm_up = [] if plan.warm_up is None else warm_up_warnings(plan.warm_up, plan.algorithm)
    return [*look_ahead_warnings(look_ahead, plan.algorithm), *_far_away(plan.options.conventions), *warm_up]


def _far_away(conventions: Conventions) -> list[str]:
    """Return what a take profit that may have been meant in per cent means: a long position can have one above 1."""
    profit = conventions.take_profit
    return (
        [] if profit < 1 else [f"takeProfit {profit:g} is {profit:.0%} of the price; {profit:g} % is {profit / 100:g}"]
    )


def look_ahead_warnings(verdict: LookAhead | None, algorithm: Algorithm) -> list[str]:
    """Return what a finding of the look-ahead check means for the figures."""
    if verdict is None or verdict.finding is None:
        return []
    finding = verdict.finding
    where = "" if finding.sample is None else f" on the sample {finding.sample}"
    return [
        f"{algorithm.algorithm_id} looks ahead, so these figures cannot be had in trading: {finding.explanation}{where}"
    ]


def warm_up_warnings(warm_up: WarmUpBars, algorithm: Algorithm) -> list[str]:
    """Return what a reader of the result must know about the warm-up."""
    if warm_up.wanted is None and warm_up.has_earlier:
        return [
            f"{algorithm.name} declares no warm-up, so its indicators began at the start, although earlier bars are "
            "stored: declare it (docs/algorithms.md), or ask for it, as in warmup=200"
        ]
    if warm_up.wanted and warm_up.fewest < warm_up.wanted:
        fewest = warm_up.given.index(warm_up.fewest)
        return [
            f"the warm-up had {warm_up.fewest:,} of {warm_up.wanted:,} bars: no more of "
            f"{warm_up.panel.symbols[fewest]} are stored before the start, so signals of the first bars may be missing"
        ]
    return []
