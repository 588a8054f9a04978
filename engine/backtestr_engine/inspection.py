"""Inspection: what the engine tells of algorithms and indicators without a broker."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from backtestr_protocol.errors import AlgorithmError
from backtestr_protocol.inspection import CheckedFile, IndicatorInfo, IndicatorList

from .algorithm_files import load_file
from .indicators import indicators
from .look_ahead import check_algorithm
from .panel import Panel
from .synthetic import synthetic_bars

SAMPLE_BARS = 2_000
"""Twice as many as the longest average of the built-in algorithms: enough to have signals, few enough for a loop in
Python over each of the cuts."""


def check_file(path: Path, seed: int) -> CheckedFile:
    """Check every algorithm of a Python file for look-ahead, with its default parameters on a synthetic sample.

    One that compares symbols gets three, which begin and end at different times.
    """
    bars = [synthetic_bars("1h", SAMPLE_BARS, symbol=f"SAMPLE{number}", seed=number) for number in range(3)]
    panel = Panel.of([bars[0], bars[1][: SAMPLE_BARS // 2], bars[2][SAMPLE_BARS // 4 :]])
    chance = np.random.default_rng(seed)
    verdicts, problems = [], []
    try:
        for one in load_file(path):
            try:
                verdicts.append(check_algorithm(one, panel if one.across else bars[0], one.check({}), chance))
            except AlgorithmError as error:
                problems.append(f"{error.message}\n{(error.details or {}).get('traceback', '')}".strip())
    except AlgorithmError as error:
        problems.append(error.message)
    return CheckedFile(file=str(path), verdicts=verdicts, problems=problems)


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
