"""Inspection of algorithms and indicators, with or without a broker."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np

from backtestr_engine.algorithms.algorithm import Algorithm
from backtestr_engine.data.bars import Bars
from backtestr_engine.data.panel import Panel
from backtestr_engine.data.printable import printable
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.indicators import indicators
from backtestr_protocol.errors import BacktestrError
from backtestr_protocol.inspection import CheckedFile, IndicatorInfo, IndicatorList, Verdict
from backtestr_protocol.messages import AlgorithmInfo, LookAhead
from backtestr_protocol.texts import bounded

from .look_ahead import check_algorithm
from .source_files import Limit, Source, checked_info, forget, load_file, load_source, named_in, unlimited

SAMPLE_BARS = 2_000
"""Twice the longest average of the built-in algorithms: enough for signals, few enough for a Python loop per cut."""


SEED = 1
"""Seed of the look-ahead check: the same source always has the same verdict."""

_MAX_PROBLEM_BYTES = 4_000
"""Enough for a traceback. An algorithm's exception may have any length, and is kept with the registration."""


class Examine(Protocol):
    """Runs a source, checks its algorithm `name` for look-ahead, and returns its facts, as `examine` does."""

    def __call__(self, name: str, source: Source, /) -> AlgorithmInfo: ...


def examine(name: str, source: Source, /, limit: Limit = unlimited) -> AlgorithmInfo:
    """Run a source that is to be registered, check its algorithm `name` for look-ahead, and return its facts.

    `limit` holds for running it, and for the check. Raises `ValidationError` for a source that does not define `name`
    exactly once, `AlgorithmError` for one that cannot be run or described, and `TimedOut`.
    """
    try:
        found = limit(f"loading {source.file}", partial(load_source, source.text, source.file, source.module))
        one = named_in(found, name)
        info = checked_info(one, source.file)
        verdict = limit(f"the look-ahead check of {name}", partial(look_ahead, one, SEED))
    finally:
        forget(source.file, source.module)
    return msgspec.structs.replace(info, look_ahead=verdict)


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
                problems.append(_description(error))
    except BacktestrError as error:
        problems.append(bounded(error.message))
    return CheckedFile(file=str(path), verdicts=verdicts, problems=problems)


def look_ahead(one: Algorithm, seed: int) -> LookAhead:
    """Check one algorithm for look-ahead as `check_file` does; a failure on the sample is a verdict too."""
    try:
        verdict = _check(one, seed)
    except BacktestrError as error:
        problem = bounded(printable(_description(error)), _MAX_PROBLEM_BYTES)
        return LookAhead(passed=False, bars=SAMPLE_BARS, cuts=0, problem=problem)
    return LookAhead(passed=verdict.passed, bars=verdict.bars, cuts=len(verdict.cuts), finding=verdict.finding)


def _check(one: Algorithm, seed: int) -> Verdict:
    return check_algorithm(one, _sample(across=one.across), one.check({}), np.random.default_rng(seed))


def _sample(*, across: bool) -> Bars | Panel:
    """Return the sample for a check: one series or, for `across`, three that begin and end at different times."""
    series = [
        synthetic_bars("1h", SAMPLE_BARS, symbol=f"SAMPLE{seed}", seed=seed) for seed in range(3 if across else 1)
    ]
    if not across:
        return series[0]
    return Panel.of([series[0], series[1][: SAMPLE_BARS // 2], series[2][SAMPLE_BARS // 4 :]])


def _description(error: BacktestrError) -> str:
    return bounded(f"{error.message}\n{(error.details or {}).get('traceback', '')}".strip())


def list_indicators() -> IndicatorList:
    """List every indicator, by group and name."""
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
