"""This module runs kinds of work in turn, so that a noisy machine is noisy for each, and prints what they took."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

Work = Callable[[], object]
# Does something so many times, and returns the seconds of each time.
Trips = Callable[[int], list[float]]
Took = Mapping[str, Sequence[float]]

PER_SECOND = {"ms": 1e3, "µs": 1e6}


def seconds(work: Work) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def trips(work: Work) -> Trips:
    return lambda times: [seconds(work) for _ in range(times)]


def all_in_turn(works: Mapping[str, Trips], rounds: int, times: Mapping[str, int]) -> dict[str, list[list[float]]]:
    """Return the seconds by name: of every round, those of each of its `times[name]` runs in a row."""
    took: dict[str, list[list[float]]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            took[name].append(work(times[name]))
    return took


def in_turn(works: Mapping[str, Work], rounds: int, times: int = 1) -> dict[str, list[float]]:
    """Return the seconds by name: of every round, the median of `times` runs in a row."""
    took = all_in_turn({name: trips(work) for name, work in works.items()}, rounds, dict.fromkeys(works, times))
    return {name: [statistics.median(values) for values in all_values] for name, all_values in took.items()}


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Return the ratio of every round: a slow moment of the machine slows both sides of a round."""
    return [one / other for one, other in zip(above, below, strict=True)]


def print_table(title: str, took: Took, floors: Mapping[str, str], unit: Literal["ms", "µs"] = "ms") -> None:
    """Print the median and spread of each kind, and the median ratio to the kind that `floors` names for it, if any."""
    width = max(len(title), *map(len, took)) + 2
    print(f"{title:{width}}{'median ' + unit:>12}{'10..90 %':>20}{'÷ floor':>9}")
    for name, values in took.items():
        tenths = statistics.quantiles(values, n=10) if len(values) > 1 else values  # one round has no spread
        low, median, high = (one * PER_SECOND[unit] for one in (tenths[0], statistics.median(values), tenths[-1]))
        ratio = f"{statistics.median(ratios(values, took[floors[name]])):9.2f}" if name in floors else ""
        print(f"{name:{width}}{median:12.2f}{f'{low:.2f}..{high:.2f}':>20}{ratio}")
