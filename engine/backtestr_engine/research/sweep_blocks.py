"""A block of a sweep: the rows of a range of cells, as plain arrays.

    work = SweepWork(plan, algorithm, panel)          # once per worker
    block = run_block(work, first=0, count=1_000)     # any range, in any order

Local workers and those of a cluster call the same function. Rows of a cell are the same, bit for bit, whatever block
it is in.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import cache

import msgspec
import numpy as np

from backtestr_engine.algorithms.algorithm import Algorithm
from backtestr_engine.algorithms.parameters import Value
from backtestr_engine.algorithms.signals import Signals
from backtestr_engine.backtest.earlier_bars import WarmUpBars, wanted_warm_up
from backtestr_engine.backtest.plan import Plan, check_signals
from backtestr_engine.backtest.run import Run
from backtestr_engine.data.arrays import AnyArray, Bytes, Floats, Integers
from backtestr_engine.data.panel import Panel
from backtestr_engine.data.timeframes import close_time
from backtestr_engine.indicators import RememberedIndicators, remembering
from backtestr_engine.metrics.excursions import fill_in_excursions
from backtestr_engine.metrics.figures import (
    DEFINED,
    NOT_COMPUTED,
    REASONS_WHY_UNDEFINED,
    Activity,
    Row,
    add_tails,
    compute_figures,
    measure_of,
)
from backtestr_engine.metrics.returns import moments
from backtestr_engine.simulation.account import kernel_rules, totals
from backtestr_engine.simulation.symbol_loop import kept_flags, levels, targets
from backtestr_protocol.errors import BacktestrError
from backtestr_protocol.metrics import METRICS, WIRE_NAMES, Metrics

from .sweep_kernels import (
    FigureRows,
    SweepSetting,
    evaluate_crosses,
    evaluate_flags,
    flag_channels,
    new_rows,
    new_scratch,
    prices_of,
)
from .sweep_lines import PARAMETERS, SharedLines
from .sweep_plan import CHANNELS, OF_EXCURSIONS, OF_MARKET, OF_TAILS, SweepPlan
from .sweep_space import Combinations

REMEMBERED_BYTES = 32 << 20
"""The most bytes of indicators that are remembered from one combination to the next."""

_TOGETHER, _TOGETHER_BYTES = 256, 4 << 20
"""The most combinations, and bytes of their flags, that are simulated in one call: a call costs up to 100 µs."""


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of the admissible combinations in cells [first, first + count), in the order of their cells.

    `parameters` are the swept ones. `metrics` are float64, NaN where `codes` (indices into `REASONS_WHY_UNDEFINED`) is
    not 0. `return_sums` and `square_sums`, of shape (rows, 16), are Σ r and Σ r² of the returns per bar in each of 16
    blocks of time; NaN where equity fell to zero. `failures` has the reason, by row, for each combination that failed.
    """

    first: int
    count: int
    cells: Integers
    parameters: dict[str, AnyArray]
    metrics: dict[str, Floats]
    codes: dict[str, Bytes]
    return_sums: Floats
    square_sums: Floats
    failures: dict[int, str]

    def __len__(self) -> int:
        return len(self.cells)

    def undefined(self, row: int) -> dict[str, str]:
        """Return the reason for each metric of a row that is undefined, by its name; none for a failed row."""
        if row in self.failures:
            return {}
        return {name: REASONS_WHY_UNDEFINED[codes[row]] for name, codes in self.codes.items() if codes[row] != DEFINED}


class SweepWork:
    """A sweep in one worker: its plan, its algorithm, its bars, and the memory that its rows are computed in."""

    def __init__(self, plan: SweepPlan, algorithm: Algorithm, panel: Panel, seen: Panel | None = None) -> None:
        """Take the bars that are tested, at least one row, and `seen`, which has the longest warm-up in front of them.

        Of the bars before the test a combination sees as many as its backtest would: those of the option `warmup`, or
        as many as the algorithm declares for its parameters, or those there are.
        """
        self.plan = plan
        self._algorithm = algorithm
        self._panel = panel
        self._seen = panel if seen is None else seen
        self._conventions = plan.options.conventions
        self.constraints = plan.space.constraints()
        asked = set(plan.metrics)
        self._with_tails, self._with_excursions = (bool(asked & set(group)) for group in (OF_TAILS, OF_EXCURSIONS))
        self._seen_with = cache(self._cut)
        self._latest: tuple[Integers, Integers] | None = None  # cells, and the bars that they want
        if plan.path.name != "single_runs":
            self._set_up(with_market=bool(asked & set(OF_MARKET)))

    def _set_up(self, *, with_market: bool) -> None:
        plan, bars = self.plan, self._panel.series[0]
        capital = plan.config.initial_capital
        rules = kernel_rules(self._conventions, commission=plan.config.commission, slippage=plan.config.slippage)
        rule, _ = self._single({}, self._panel, 0).annualised()
        by = measure_of(
            capital,
            bars.timestamp,
            close_time(int(bars.timestamp[-1]), bars.timeframe),
            rule,
            from_capital=self._conventions.drawdown_from == "capital",
        )
        without = Signals(np.zeros(len(bars), dtype=np.uint8))
        self._setting = SweepSetting(prices_of(bars), rules, levels(without, rules), targets(without), by, with_market)
        self._earlier = min(len(one) for one in self._seen.series) - len(bars)
        self._scratch = new_scratch(len(bars), self._earlier, rules, capital)
        is_slow = self._with_tails or self._with_excursions
        self._together = 1 if is_slow else max(1, min(_TOGETHER, _TOGETHER_BYTES // len(bars)))
        self._flags: Bytes = np.empty((self._together, len(bars)), dtype=np.uint8)
        self._remembered = RememberedIndicators(REMEMBERED_BYTES)
        if plan.path.name == "fused":
            longest = self._earlier + len(bars)
            self._lines = SharedLines(self._algorithm.name, longest, lambda warm_up: self._seen_with(warm_up).series[0])

    def forget(self) -> None:
        """Forget the lines and indicators of earlier blocks: the next block computes its own."""
        self._remembered = RememberedIndicators(REMEMBERED_BYTES)
        if self.plan.path.name == "fused":
            self._lines.forget()

    def evaluate(self, found: Combinations, rows: FigureRows) -> dict[int, str]:
        """Set the rows of combinations, and return the reason, by row, for each that fails."""
        match self.plan.path.name:
            case "fused":
                return self._fused(found, rows)
            case "general":
                with remembering(self._remembered):
                    return self._general(found, rows)
            case "single_runs":
                return self._single_runs(found, rows)

    # --- the bars that a combination sees ---

    def _cut(self, warm_up: int) -> Panel:
        """Return the bars that are tested with up to `warm_up` earlier ones of each symbol."""
        if not warm_up or self._seen is self._panel:
            return self._panel
        pairs = zip(self._seen.series, self._panel.series, strict=True)
        return Panel.of([longer[max(0, len(longer) - len(bars) - warm_up) :] for longer, bars in pairs])

    def _warm_up(self, values: Mapping[str, Value]) -> int:
        """Return the bars of warm-up of a combination, which may be more than there are."""
        if self._seen is self._panel:
            return 0
        return wanted_warm_up(self.plan.config, self._algorithm, values) or 0

    def warm_up_bars(self, found: Combinations) -> list[Integers]:
        """Return the bars of warm-up that each combination is given, one array for each symbol."""
        wanted = self._wanted(found)
        pairs = zip(self._seen.series, self._panel.series, strict=True)
        return [np.minimum(wanted, len(longer) - len(bars)) for longer, bars in pairs]

    def _wanted(self, found: Combinations) -> Integers:
        """Return the bars of warm-up that each combination wants; of one whose declaration fails, 0."""
        declared, given = self._algorithm.warmup, self.plan.config.warmup
        if self._seen is self._panel or given is not None:
            return np.full(len(found), given or 0)
        if isinstance(declared, str) and declared in found.columns and found.columns[declared].dtype.kind == "i":
            return np.maximum(found.columns[declared], 0)
        if self._latest is not None and np.array_equal(self._latest[0], found.cells):
            return self._latest[1]
        wanted = np.zeros(len(found), dtype=np.int64)
        for row in range(len(found)):
            with contextlib.suppress(BacktestrError):
                wanted[row] = self._warm_up({**self.plan.space.fixed, **found.at(row)})
        self._latest = found.cells, wanted
        return wanted

    # --- the three paths ---

    def _fused(self, found: Combinations, rows: FigureRows) -> dict[int, str]:
        name, fixed = self._algorithm.name, self.plan.space.fixed
        columns = [
            found.columns[one] if one in found.columns else np.full(len(found), fixed[one]) for one in PARAMETERS[name]
        ]
        [warm_up] = self.warm_up_bars(found)
        setting, lines = self._setting, self._lines
        for first, pairs in lines.parts(np.stack(columns, axis=1), warm_up):
            for at in range(0, len(pairs), self._together):
                some = pairs[at : at + self._together]
                places = np.arange(first + at, first + at + len(some))
                earlier = warm_up[places]
                if name in CHANNELS:
                    flags = self._flags[: len(some)]
                    flag_channels(some, earlier, lines.buffer, setting.prices.close, flags)
                    evaluate_flags(places, flags, setting.levels, setting.targets, setting, rows, self._scratch)
                else:
                    strict = self._conventions.cross_ties == "strict"
                    evaluate_crosses(places, some, earlier, lines.buffer, strict, setting, rows, self._scratch)
                self._add_slow_figures(int(places[-1]), rows)
        return {}

    def _general(self, found: Combinations, rows: FigureRows) -> dict[int, str]:
        failures: dict[int, str] = {}
        fixed, setting = self.plan.space.fixed, self._setting
        columns = {name: column.tolist() for name, column in found.columns.items()}
        waiting: list[int] = []
        strict = self._conventions.cross_ties == "strict"

        def flush() -> None:
            places = np.array(waiting, dtype=np.int64)
            evaluate_flags(places, self._flags, setting.levels, setting.targets, setting, rows, self._scratch)
            if waiting:
                self._add_slow_figures(waiting[-1], rows)
            waiting.clear()

        for row in range(len(found)):
            try:
                signals = self._signals({**fixed, **{name: column[row] for name, column in columns.items()}})
            except BacktestrError as error:
                failures[row] = error.message
                continue
            self._flags[len(waiting)] = kept_flags(signals, setting.rules) if strict else signals.flags
            if _is_plain(signals):
                waiting.append(row)
                if len(waiting) == self._together:
                    flush()
                continue
            place, own = np.array([row]), self._flags[len(waiting) : len(waiting) + 1]
            ours = levels(signals, setting.rules), targets(signals)
            evaluate_flags(place, own, *ours, setting, rows, self._scratch)
            self._add_slow_figures(row, rows)
        flush()
        return failures

    def _signals(self, values: dict[str, Value]) -> Signals:
        if self._seen is self._panel:
            signals = self._algorithm.signals(self._panel.series[0], values)
        else:
            seen = self._seen_with(self._warm_up(values)).series[0]
            signals = self._algorithm.signals(seen, values).from_bar(len(seen) - len(self._panel))
        check_signals(self._algorithm, [signals], self._conventions)
        return signals

    def _add_slow_figures(self, row: int, rows: FigureRows) -> None:
        """Set the figures that need all returns, or the prices within trades, of the combination just simulated."""
        scratch, setting = self._scratch, self._setting
        own = Row(rows.values[row], rows.codes[row], rows.block_sums[row])
        if self._with_excursions:
            trades, at = scratch.trades[: scratch.log.counts[2]], totals(scratch.account)
            fills_at_close = self._conventions.fill_at == "close"
            fill_in_excursions(trades, self._panel.series, fills_at_close=fills_at_close)
            activity = Activity(at.open_positions, at.fees, at.slippage, at.traded_value, at.bars_exposed)
            prices = setting.prices
            compute_figures(
                own,
                setting.measure,
                prices.timestamp,
                prices.close,
                scratch.equity,
                trades,
                activity,
                setting.with_market,
                True,
            )
        if self._with_tails:
            add_tails(own, scratch.equity, setting.measure.initial_capital)

    def _single_runs(self, found: Combinations, rows: FigureRows) -> dict[int, str]:
        failures: dict[int, str] = {}
        for row in range(len(found)):
            values = {**self.plan.space.fixed, **found.at(row)}
            try:
                wanted = self._warm_up(values)
                run = Run(self._single(values, self._seen_with(wanted), wanted), "sweep")
                run.advance(run.bars_total)
            except BacktestrError as error:
                failures[row] = error.message
                continue
            _put_metrics(run.finish().metrics, Row(rows.values[row], rows.codes[row], rows.block_sums[row]))
            equity = run.simulation.equity
            if equity.min() > 0.0:
                moments(equity, self.plan.config.initial_capital, 0.0, rows.block_sums[row])
        return failures

    def _single(self, values: dict[str, Value], seen: Panel, wanted: int) -> Plan:
        """Return the plan of the single run of a combination."""
        given = tuple(len(one) - len(bars) for one, bars in zip(seen.series, self._panel.series, strict=True))
        warm_up = WarmUpBars(seen, self._panel, given, wanted)
        return Plan(self.plan.config, self._algorithm, values, self.plan.options, self._panel, warm_up)


def run_block(work: SweepWork, first: int, count: int) -> Block:
    """Return the rows of cells [first, first + count), or up to the last one there is.

    A combination whose algorithm fails is a row with the reason; all others are computed.
    """
    plan = work.plan
    found = plan.space.combinations(first, count, work.constraints)
    rows = new_rows(len(found))
    failures = work.evaluate(found, rows)
    failed = list(failures)
    rows.codes[failed], rows.block_sums[failed] = NOT_COMPUTED, np.nan
    places = {name: _PLACES[name] for name in plan.metrics}
    return Block(
        first=first,
        count=count,
        cells=found.cells,
        parameters=found.columns,
        metrics={name: rows.values[:, place].copy() for name, place in places.items()},
        codes={name: rows.codes[:, place].copy() for name, place in places.items()},
        return_sums=rows.block_sums[:, 0].copy(),
        square_sums=rows.block_sums[:, 1].copy(),
        failures=failures,
    )


_PLACES = {one.name: place for place, one in enumerate(METRICS)}


def _is_plain(signals: Signals) -> bool:
    """Return whether signals have nothing but flags, as those of most algorithms."""
    one = signals
    is_market = one.target is one.limit_price is one.stop_price is None
    return is_market and one.stop_loss is one.take_profit is one.trailing_stop is None


def _put_metrics(metrics: Metrics, row: Row) -> None:
    for place, name in enumerate(_PLACES):
        value = getattr(metrics, name)
        row.values[place] = np.nan if value is None else value
        reason = metrics.reasons.get(WIRE_NAMES[name], "")
        row.codes[place] = REASONS_WHY_UNDEFINED.index(reason)
