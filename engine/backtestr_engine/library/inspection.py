"""Inspection: what the engine tells of algorithms and indicators without a broker."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from backtestr_engine.algorithms.algorithm import Algorithm
from backtestr_engine.data.bars import Bars
from backtestr_engine.data.panel import Panel
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.indicators import indicators
from backtestr_protocol.errors import BacktestrError
from backtestr_protocol.inspection import CheckedFile, IndicatorInfo, IndicatorList, Verdict
from backtestr_protocol.messages import LookAhead

from .look_ahead import check_algorithm
from .source_files import Limit, load_file, unlimited

SAMPLE_BARS = 2_000
"""Twice as many as the longest average of the built-in algorithms: enough to have signals, few enough for a loop in
Python over each of the cuts."""


SEED = 1
"""Of the look-ahead check: the same source has the same verdict tomorrow."""

_MAX_PROBLEM_CHARACTERS = 4_000
"""A traceback; what an algorithm puts into its exceptions may be of any length, and is kept with it."""


def check_file(path: Path, seed: int, limit: Limit = unlimited) -> CheckedFile:
    """Check every algorithm of a Python file for look-ahead, with its default parameters on a synthetic sample.

    `limit` holds for running the file, and for each check.
    """
    verdicts, problems = [], []
    try:
        for one in limit(f"loading {path}", partial(load_file, path)):
            try:
                verdicts.append(limit(f"the look-ahead check of {one.name}", partial(_check, one, seed)))
            except BacktestrError as error:
                problems.append(_described(error))
    except BacktestrError as error:
        problems.append(error.message)
    return CheckedFile(file=str(path), verdicts=verdicts, problems=problems)


def look_ahead(one: Algorithm, seed: int) -> LookAhead:
    """The same check of one algorithm. That it fails on the sample is a verdict, too."""
    try:
        verdict = _check(one, seed)
    except BacktestrError as error:
        problem = _described(error)[:_MAX_PROBLEM_CHARACTERS]
        return LookAhead(passed=False, bars=SAMPLE_BARS, cuts=0, problem=problem)
    return LookAhead(passed=verdict.passed, bars=verdict.bars, cuts=len(verdict.cuts), finding=verdict.finding)


def _check(one: Algorithm, seed: int) -> Verdict:
    return check_algorithm(one, _sample(across=one.across), one.check({}), np.random.default_rng(seed))


def _sample(*, across: bool) -> Bars | Panel:
    """What an algorithm is checked on; where it compares symbols, three, which begin and end at different times."""
    series = [
        synthetic_bars("1h", SAMPLE_BARS, symbol=f"SAMPLE{seed}", seed=seed) for seed in range(3 if across else 1)
    ]
    if not across:
        return series[0]
    return Panel.of([series[0], series[1][: SAMPLE_BARS // 2], series[2][SAMPLE_BARS // 4 :]])


def _described(error: BacktestrError) -> str:
    return f"{error.message}\n{(error.details or {}).get('traceback', '')}".strip()


def list_indicators() -> IndicatorList:
    """Every indicator that there is, by group and name."""
    found = [
        IndicatorInfo(
            name=one.name,
            description=one.description,
            group=one.group,
            parameters=one.parameters,
            outputs=list(one.outputs),
        )
        for one in indicators().values()
    ]
    return IndicatorList(indicators=sorted(found, key=lambda one: (one.group, one.name)))
