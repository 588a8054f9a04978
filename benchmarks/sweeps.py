"""This program measures sweeps on one core beside vectorbt, and the memory that they take.

    make bench-sweep

A cell is a bar of a combination. 1,035 pairs of averages (5 to 50 bars) run on 2,148 days of GOOG with the rules of
vectorbt (`preset`), both sides averages and signals included. vectorbt is asked for five figures: total return, Sharpe
ratio, Sortino ratio, maximum drawdown and trades. Ours give these and all others of a row, and 16 block sums; the five
are compared. Every round runs each kind once, in turn, and takes the processor's time of this process. A worker's
memory is there from the first round on, as in a worker that has done a block; averages are computed in every round.

The general path calls an algorithm of one's own for each pair: once with averages that combinations share, once with
one that no other combination asks for. Memory is the peak of a process of its own above what it has after its imports,
with its bars and its kernels, and blocks of rows are thrown away, as a worker does that has stored them.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import oracles
from turns import ratios

from backtestr_engine.algorithms.algorithm import Algorithm
from backtestr_engine.algorithms.signals import ENTRY, REPEATED_ENTRY, REPEATED_SHORT_ENTRY, SHORT_ENTRY
from backtestr_engine.authoring import Bars, Int, Signals, algorithm, falls_below, rises_above, sma
from backtestr_engine.built_in import BUILT_IN
from backtestr_engine.config import load_config
from backtestr_engine.data.panel import Panel
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.research.sweep_blocks import Block, SweepWork, run_block
from backtestr_engine.research.sweep_plan import SweepPath, plan_sweep
from backtestr_protocol.messages import BacktestConfig

WINDOWS = range(5, 51)
PAIRS = len(WINDOWS) * (len(WINDOWS) - 1) // 2
CONVENTIONS = load_config(None).conventions
CAPITAL, FEES = 10_000.0, 0.001
FIVE = ("total_return", "sharpe_ratio", "sortino_ratio", "max_drawdown", "total_trades")
FUSED, REPEATED, FRESH, RUNS = "fused", "general, shared averages", "general, an average each", "a single run each"
CONDITIONS = "general, an average each, by conditions in numpy"
RIVAL = "vectorbt, five figures"
TO_REACH = {FUSED: (6.0, 60.0), REPEATED: (None, 40.0), FRESH: (None, 25.0)}
"""The most ns a cell, and the least multiple of vectorbt's speed."""
MEMORY_TO_REACH_MB = 100.0
MEMORY_BARS = 100_000
RUNS_SHARE = 16
"""One of so many pairs is run by itself: a thousand runs would take most of the time of the benchmark."""


@algorithm("pairs", fast=Int(10, low=2, high=500), slow=Int(30, low=3, high=1000), requires=["fast < slow"])
def pairs(bars: Bars, fast: int, slow: int) -> Signals:
    """Cross averages, as a user's file does."""
    return Signals.from_cross(sma(bars.close, fast), sma(bars.close, slow))


@algorithm("one_average", timeperiod=Int(10, low=2, high=5000))
def one_average(bars: Bars, timeperiod: int) -> Signals:
    """Cross an average that no other combination has."""
    return Signals.from_cross(bars.close, sma(bars.close, timeperiod))


@algorithm("conditions", timeperiod=Int(10, low=2, high=5000))
def conditions(bars: Bars, timeperiod: int) -> Signals:
    """Do the same by conditions in numpy."""
    average = sma(bars.close, timeperiod)
    return Signals.of(entries=rises_above(bars.close, average), short_entries=falls_below(bars.close, average))


def work_of(bars: Bars, one: Algorithm, space: dict[str, Any], metrics: Any = FIVE) -> SweepWork:
    config = BacktestConfig(
        algorithm_id=one.algorithm_id,
        symbol=bars.symbol,
        initial_capital=CAPITAL,
        timeframe=bars.timeframe,
        commission=FEES,
        slippage=0.0,
        parameters={},
        options={"preset": "vectorbt"},
    )
    plan = plan_sweep(config, one, space, CONVENTIONS, metrics=metrics)
    return SweepWork(plan, one, Panel.of([bars]))


def of_single_runs(bars: Bars) -> Callable[[], object]:
    work = work_of(bars, BUILT_IN["sma_cross"], {"fast": WINDOWS, "slow": list(WINDOWS)[::RUNS_SHARE]})
    work.plan = msgspec.structs.replace(work.plan, path=SweepPath("single_runs", "measured"))
    return lambda: run_block(work, 0, work.plan.space.cells)


def five_figures(rows: Any, entries: Any, short_entries: Any) -> list[Any]:
    signals = {"entries": entries, "short_entries": short_entries}
    found = oracles.from_signals(rows, signals, init_cash=CAPITAL, fees=FEES, freq="1D")
    figures = (found.total_return(), found.sharpe_ratio(), found.sortino_ratio(), found.max_drawdown())
    return [np.asarray(figure) for figure in (*figures, found.trades.count())]


def rival(bars: Bars) -> Callable[[], list[Any]]:
    """Return the five figures of vectorbt for all pairs, in the order of ours, with its own averages."""
    rows = oracles.frame(bars)
    averages = oracles.library("vectorbt").MA

    def figures() -> list[Any]:
        fast, slow = averages.run_combs(rows.Close, window=list(WINDOWS), r=2, short_names=["fast", "slow"])
        return five_figures(rows, fast.ma_crossed_above(slow), fast.ma_crossed_below(slow))

    return figures


def compare(bars: Bars, block: Block) -> None:
    """Print the largest difference of each figure from vectorbt's, which is given our signals.

    Its averages have other last bits than TA-Lib's, so where two lines touch it has crosses that TA-Lib has not.
    """
    of_pairs = zip(*(block.parameters[name].tolist() for name in ("fast", "slow")), strict=True)
    signals = [Signals.from_cross(sma(bars.close, fast), sma(bars.close, slow)) for fast, slow in of_pairs]
    pd, rows = oracles.library("pandas"), oracles.frame(bars)
    entries, short_entries = (
        pd.DataFrame(np.stack([(one.flags & flags) != 0 for one in signals], axis=1), index=rows.index)
        for flags in (ENTRY | REPEATED_ENTRY, SHORT_ENTRY | REPEATED_SHORT_ENTRY)
    )
    for name, other in zip(FIVE, five_figures(rows, entries, short_entries), strict=True):
        theirs = -other if name == "max_drawdown" else other
        largest = float(np.max(np.abs(block.metrics[name] - theirs) / np.maximum(np.abs(theirs), 1e-3)))
        print(f"  {name}: differs from vectorbt's by {largest:.1e} at most, over {len(signals):,} pairs", flush=True)


def measure(rounds: int) -> None:
    warnings.simplefilter("ignore")  # those of vectorbt and pandas
    bars = oracles.real_bars("GOOG", "1d")
    works: dict[str, tuple[Callable[[], object], int]] = {}
    for kind, one, space in (
        (FUSED, BUILT_IN["sma_cross"], {"fast": WINDOWS, "slow": WINDOWS}),
        (REPEATED, pairs, {"fast": WINDOWS, "slow": WINDOWS}),
        (FRESH, one_average, {"timeperiod": range(2, 2 + PAIRS)}),
        (CONDITIONS, conditions, {"timeperiod": range(2, 2 + PAIRS)}),
    ):
        works[kind] = fresh_work(bars, one, space), PAIRS
    single = of_single_runs(bars)
    works[RUNS] = single, len(single())  # type: ignore[arg-type]  # a work gives any object, this one a block
    if oracles.installed("vectorbt"):
        works[RIVAL] = rival(bars), PAIRS
        compare(bars, works[FUSED][0]())  # type: ignore[arg-type]  # the same
    else:
        print(f"vectorbt {oracles.MISSING}: NOT COMPARED")
    for work, _ in works.values():
        work()
    took: dict[str, list[float]] = {kind: [] for kind in works}
    for _ in range(rounds):
        for kind, (work, count) in works.items():
            began = time.process_time()
            work()
            took[kind].append(1e9 * (time.process_time() - began) / count / len(bars))
    print(f"{PAIRS:,} combinations x {len(bars):,} bars, ns a cell")
    for kind, values in took.items():
        spread = f"{min(values):.2f}..{max(values):.2f}"
        print(f"{kind:50}{statistics.median(values):10.2f}{spread:>20}{judged(kind, took)}", flush=True)


def fresh_work(bars: Bars, one: Algorithm, space: dict[str, Any]) -> Callable[[], Block]:
    """Return all rows of a sweep in a worker that knows no lines and indicators of an earlier round."""
    work = work_of(bars, one, space)

    def run() -> Block:
        work.forget()
        return run_block(work, 0, work.plan.space.cells)

    return run


def judged(kind: str, took: dict[str, list[float]]) -> str:
    most, least = TO_REACH.get(kind, (None, None))
    text = ""
    if most is not None:
        text += f"   <= {most:g} ns {'pass' if statistics.median(took[kind]) <= most else 'MISS'}"
    if RIVAL in took and kind != RIVAL:
        times = statistics.median(ratios(took[RIVAL], took[kind]))
        text += f"   {times:.1f} x vectorbt"
        if least is not None:
            text += f" (>= {least:g}: {'pass' if times >= least else 'MISS'})"
    return text


def peak_mb() -> float:
    """Return the peak of this process, and not that of the one that started it, as `getrusage` may."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def memory_of(kind: str, combinations: int) -> None:
    """Print the peak of this process above what it had before the sweep."""
    one = BUILT_IN["sma_cross"] if kind == FUSED else pairs
    bars = synthetic_bars("1m", MEMORY_BARS)
    small = work_of(bars[:64], one, {"fast": [2, 3], "slow": [5, 6]}, None)
    run_block(small, 0, 4)
    side = round(combinations**0.5)
    idle = peak_mb()
    work = work_of(bars, one, {"fast": range(2, 2 + combinations // side), "slow": range(500, 500 + side)}, None)
    began = time.process_time()
    for first in range(0, work.plan.space.cells, 64):
        run_block(work, first, 64)
    cost = 1e9 * (time.process_time() - began) / work.plan.space.cells / MEMORY_BARS
    above = peak_mb() - idle
    reached = "pass" if above <= MEMORY_TO_REACH_MB else "MISS"
    print(
        f"  {kind}: {work.plan.space.cells:,} combinations: {above:.0f} MB above {idle:.0f} MB "
        f"(<= {MEMORY_TO_REACH_MB:.0f}: {reached}), {cost:.1f} ns a cell",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=15, help="times each kind is run (default 15)")
    parser.add_argument(
        "--combinations",
        type=int,
        nargs="*",
        default=[1_000, 10_000],
        help="of the lines on memory (default 1000 10000)",
    )
    parser.add_argument("--memory-of", nargs=2, metavar=("KIND", "COUNT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        memory_of(arguments.memory_of[0], int(arguments.memory_of[1]))
        return
    measure(arguments.rounds)
    print(f"memory, {MEMORY_BARS:,} bars")
    for kind in (FUSED, REPEATED):
        for count in arguments.combinations:
            subprocess.run([sys.executable, str(Path(__file__)), "--memory-of", kind, str(count)], check=True)


if __name__ == "__main__":
    main()
