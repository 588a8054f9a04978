"""This module has the figures that the parts of `make bench` measure, and prints them in one table."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec
from machine import Machine, facts
from turns import ratios

# The least number of values whose 10..90 % are printed.
_SPREAD_FROM = 3


class Target(msgspec.Struct, frozen=True):
    """The limit that a figure is to reach, by itself or divided by the figure beside it."""

    limit: float
    side: Literal["at most", "at least"] = "at most"
    of: Literal["ratio", "value"] = "ratio"

    def is_reached_by(self, value: float) -> bool:
        return value <= self.limit if self.side == "at most" else value >= self.limit


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A figure with one value a round; `beside` names the figure of its part by which it is divided in each round."""

    part: str
    name: str
    unit: str
    values: list[float]
    beside: str | None = None
    target: Target | None = None


class Missing(msgspec.Struct, frozen=True):
    """A part, or some of it, that was not measured, with the reason."""

    part: str
    reason: str


class Measured(msgspec.Struct, frozen=True):
    """The result of one run: the content of a JSON file."""

    machine: Machine
    figures: list[Figure]
    missing: list[Missing]


# Figures are published with `effort` 1.0; less is for a first look.
Measure = Callable[[float], list[Figure | Missing]]


def rounds(usual: int, effort: float) -> int:
    return max(_SPREAD_FROM, round(usual * effort))


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the value below which `percent` of all values are, interpolated between two."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def ratio(figure: Figure, figures: Iterable[Figure]) -> float | None:
    """Return the median of the ratios to the figure beside it."""
    for other in figures:
        if other.part == figure.part and other.name == figure.beside:
            if len(other.values) == len(figure.values):
                return statistics.median(ratios(figure.values, other.values))
            return statistics.median(figure.values) / statistics.median(other.values)
    return None


def verdict(figure: Figure, figures: Iterable[Figure]) -> bool | None:
    """Return True if the target is reached; None without a target."""
    if figure.target is None:
        return None
    value = statistics.median(figure.values) if figure.target.of == "value" else ratio(figure, figures)
    return value is not None and figure.target.is_reached_by(value)


def print_figures(measured: Measured) -> None:
    figures = measured.figures
    width = max([len(one.name) for one in figures], default=0) + 2
    beside_width = max([len(one.beside or "") for one in figures], default=0) + 2
    print(f"{'':{width}}{'median':>12}{'':6}{'10..90 %':>22}{'÷':>8}  {'beside':{beside_width}}target")
    part = ""
    for one in figures:
        if one.part != part:
            part = one.part
            print(f"\n{part}")
        spread = ""
        if len(one.values) >= _SPREAD_FROM:
            spread = f"{_shown(percentile(one.values, 10))}..{_shown(percentile(one.values, 90))}"
        divided = ratio(one, figures)
        print(
            f"{one.name:{width}}{_shown(statistics.median(one.values)):>12} {one.unit:5}{spread:>22}"
            f"{'' if divided is None else f'{divided:.2f}':>8}  {one.beside or '':{beside_width}}"
            f"{_judged(one, figures)}".rstrip()
        )
    for absent in measured.missing:
        print(f"\n{absent.part}: NOT MEASURED: {absent.reason}")


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}"


def _judged(figure: Figure, figures: Sequence[Figure]) -> str:
    reached = verdict(figure, figures)
    if reached is None or figure.target is None:
        return ""
    sign = "≤" if figure.target.side == "at most" else "≥"
    return f"{sign} {figure.target.limit:,g} {'pass' if reached else 'MISS'}"


def write(measured: Measured, file: Path) -> None:
    """Write JSON, with the median, ratio and verdict of each figure beside its values."""
    rows = [
        msgspec.to_builtins(one)
        | {
            "median": statistics.median(one.values),
            "ratio": ratio(one, measured.figures),
            "reached": verdict(one, measured.figures),
        }
        for one in measured.figures
    ]
    whole = {**msgspec.to_builtins(measured), "figures": rows}
    file.write_bytes(msgspec.json.format(msgspec.json.encode(whole), indent=1) + b"\n")


def read(file: Path) -> Measured:
    return msgspec.json.decode(file.read_bytes(), type=Measured)


def options(description: str | None) -> argparse.ArgumentParser:
    """Return the options that every part has, and all of them together."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0] if description else None)
    parser.add_argument("--effort", type=float, default=1.0, help="share of the usual rounds (default 1.0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures and the machine's facts there too")
    return parser


def run_part(description: str | None, measure: Measure) -> None:
    """Run a part by itself."""
    arguments = options(description).parse_args()
    machine = facts()
    found = measure(arguments.effort)
    measured = Measured(
        machine=machine,
        figures=[one for one in found if isinstance(one, Figure)],
        missing=[one for one in found if isinstance(one, Missing)],
    )
    print_figures(measured)
    if arguments.json:
        write(measured, arguments.json)
