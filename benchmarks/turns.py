"""Kinds of work, run in turn so that a noisy machine is noisy for each, and the table of what they took."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

Work = Callable[[], object]
Took = Mapping[str, Sequence[float]]

PER_SECOND = {"ms": 1e3, "µs": 1e6}


def seconds(work: Work) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def in_turn(works: Mapping[str, Work], rounds: int, times: int = 1) -> dict[str, list[float]]:
    """Seconds by name: of every round, the median of `times` runs in a row."""
    took: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            took[name].append(statistics.median(seconds(work) for _ in range(times)))
    return took


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Round by round, so that what slowed a round down slowed both sides."""
    return [one / other for one, other in zip(above, below, strict=True)]


def print_table(title: str, took: Took, floors: Mapping[str, str], unit: Literal["ms", "µs"] = "ms") -> None:
    """Each kind's median and spread, and the median ratio to the kind that `floors` names for it, if any."""
    width = max(len(title), *map(len, took)) + 2
    print(f"{title:{width}}{'median ' + unit:>12}{'10..90 %':>20}{'÷ floor':>9}")
    for name, values in took.items():
        tenths = statistics.quantiles(values, n=10)
        low, median, high = (one * PER_SECOND[unit] for one in (tenths[0], statistics.median(values), tenths[-1]))
        ratio = f"{statistics.median(ratios(values, took[floors[name]])):9.2f}" if name in floors else ""
        print(f"{name:{width}}{median:12.2f}{f'{low:.2f}..{high:.2f}':>20}{ratio}")
