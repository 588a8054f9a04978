"""Inspection of algorithms and indicators, with or without a broker."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import msgspec

from backtestr_engine.algorithms.algorithm import Algorithm
from backtestr_engine.data.bars import Bars
from backtestr_engine.data.printable import printable
from backtestr_engine.indicators import indicators
from backtestr_protocol.errors import BacktestrError
from backtestr_protocol.inspection import CheckedFile, IndicatorInfo, IndicatorList, Verdict
from backtestr_protocol.messages import AlgorithmInfo, LookAhead
from backtestr_protocol.texts import bounded

from .samples import LONG_BARS, check_on_samples
from .source_files import Limit, Source, checked_info, forget, load_file, load_source, named_in, unlimited
from .stored_samples import SeriesPart, stored_samples

SEED = 1
"""Seed of the look-ahead check: the same source always has the same verdict."""

_MAX_SAMPLE_PROBLEM_BYTES = 400
"""Enough for a sentence: the reason why one sample of several was left out."""

_MAX_PROBLEM_BYTES = 4_000
"""Enough for a traceback. An algorithm's exception may have any length, and is kept with the registration."""


class Examine(Protocol):
    """Runs a source, checks its algorithm `name` for look-ahead, and returns its facts, as `examine` does."""

    def __call__(self, name: str, source: Source, parts: Sequence[SeriesPart], /) -> AlgorithmInfo: ...


def examine(name: str, source: Source, parts: Sequence[SeriesPart], /, limit: Limit = unlimited) -> AlgorithmInfo:
    """Run a source that is to be registered, check its algorithm `name` for look-ahead, and return its facts.

    `parts` of stored series are among the samples of the check. `limit` holds for running it, and for the check. Raises
    `ValidationError` for a source that does not define `name` exactly once, `AlgorithmError` for one that cannot be run
    or described, and `TimedOut`.
    """
    try:
        found = limit(f"loading {source.file}", partial(load_source, source.text, source.file, source.module))
        one = named_in(found, name)
        info = checked_info(one, source.file)
        series = [part.bars() for part in parts]
        verdict = limit(f"the look-ahead check of {name}", partial(look_ahead, one, SEED, series))
    finally:
        forget(source.file, source.module)
    return msgspec.structs.replace(info, look_ahead=verdict)


def check_file(path: Path, seed: int, limit: Limit = unlimited) -> CheckedFile:
    """Check every algorithm of a Python file for look-ahead, with its default parameters on samples made for it.

    `limit` holds for running the file, and for each check.
    """
    verdicts, problems = [], []
    try:
        for one in limit(f"loading {path}", partial(load_file, path)):
            try:
                check = partial(check_on_samples, one, one.check({}), seed)
                verdicts.append(limit(f"the look-ahead check of {one.name}", check))
            except BacktestrError as error:
                problems.append(_description(error))
    except BacktestrError as error:
        problems.append(bounded(error.message))
    return CheckedFile(file=str(path), verdicts=verdicts, problems=problems)


def look_ahead(one: Algorithm, seed: int, series: Sequence[Bars] = ()) -> LookAhead:
    """Check one algorithm for look-ahead as `check_file` does, and on `series`; a failure on all is a verdict too."""
    try:
        verdict = check_on_samples(one, one.check({}), seed, stored_samples(series, across=one.across))
    except BacktestrError as error:
        problem = bounded(printable(_description(error)), _MAX_PROBLEM_BYTES)
        return LookAhead(passed=False, bars=LONG_BARS, cuts=0, problem=problem)
    return as_look_ahead(verdict)


def as_look_ahead(verdict: Verdict) -> LookAhead:
    """Return a verdict as `AlgorithmInfo` has it; texts of the algorithm are printable, and cut."""
    samples = [
        one
        if one.problem is None
        else msgspec.structs.replace(one, problem=bounded(printable(one.problem), _MAX_SAMPLE_PROBLEM_BYTES))
        for one in verdict.samples
    ]
    return LookAhead(
        passed=verdict.passed,
        bars=sum(one.bars for one in samples if one.problem is None),
        cuts=sum(one.cuts for one in samples),
        finding=verdict.finding,
        samples=samples,
    )


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
