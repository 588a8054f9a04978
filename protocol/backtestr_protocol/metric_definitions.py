"""This module has the definition of every metric, for readers: formula, unit and source.

Names, groups, units and formulas come from `metrics.Metrics`. `python -m backtestr_protocol.metric_definitions` prints
docs/metrics.md.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from itertools import groupby

import msgspec

from .metrics import METRICS, Group, Metrics, Unit

_UNIT_TEXTS: Mapping[Unit, str] = {
    "money": "the account's currency",
    "fraction": "a fraction (0.25 = 25 %)",
    "ms": "milliseconds",
    "ratio": "a number without a unit",
    "count": "a count",
}

_ACCOUNT = "the account of the backtest"
_EMPYRICAL = "empyrical-reloaded 0.7"
_SOURCES: Mapping[str, str] = {
    "start_equity": _ACCOUNT,
    "final_equity": _ACCOUNT,
    "peak_equity": _ACCOUNT,
    "total_return": "CFA Institute, GIPS: the holding-period return",
    "annual_return": f"{_EMPYRICAL} annual_return; vectorbt annualized_return",
    "cagr": "CFA Institute: the compound annual growth rate over calendar time",
    "buy_and_hold_return": "CFA Institute, GIPS: the holding-period return of the market",
    "alpha": f"Jensen 1968, The Performance of Mutual Funds; {_EMPYRICAL} alpha",
    "beta": f"Sharpe 1964, Capital Asset Prices; {_EMPYRICAL} beta",
    "volatility": f"{_EMPYRICAL} annual_volatility",
    "sharpe_ratio": "Sharpe 1994, The Sharpe Ratio",
    "sortino_ratio": f"Sortino & Price 1994, Performance Measurement in a Downside Risk Framework; {_EMPYRICAL}",
    "calmar_ratio": "Young 1991, Calmar Ratio: A Smoother Tool",
    "omega_ratio": "Keating & Shadwick 2002, A Universal Performance Measure",
    "skew": "Fisher & Pearson; scipy.stats.skew",
    "kurtosis": "Fisher; scipy.stats.kurtosis",
    "value_at_risk_95": f"{_EMPYRICAL} value_at_risk, cutoff 0.05",
    "conditional_value_at_risk_95": f"{_EMPYRICAL} conditional_value_at_risk, cutoff 0.05",
    "tail_ratio": f"{_EMPYRICAL} tail_ratio",
    "max_drawdown": f"{_EMPYRICAL} max_drawdown, with the opposite sign",
    "average_drawdown": "vectorbt drawdowns.avg_drawdown, with the opposite sign",
    "max_drawdown_duration_ms": "vectorbt drawdowns.max_duration",
    "average_drawdown_duration_ms": "vectorbt drawdowns.avg_duration",
    "recovery_factor": "MetaTrader's recovery factor, as fractions of the capital",
    "ulcer_index": "Martin & McCann 1989, The Investor's Guide to Fidelity Funds",
    "exposure": "backtestr: time in the market",
    "turnover": "backtestr: traded value by mean equity",
    "total_fees": _ACCOUNT,
    "total_slippage": _ACCOUNT,
    "total_trades": "vectorbt stats: total trades",
    "open_trades": "vectorbt stats: total open trades",
    "win_rate": "vectorbt stats: win rate",
    "best_trade": "vectorbt stats: best trade",
    "worst_trade": "vectorbt stats: worst trade",
    "average_trade": "the arithmetic mean",
    "profit_factor": "vectorbt stats: profit factor",
    "payoff_ratio": "Kelly 1956, as the odds of his formula",
    "expectancy": "vectorbt stats: expectancy",
    "sqn": "Tharp 2008, Van Tharp's Definitive Guide to Position Sizing",
    "kelly": "Kelly 1956, A New Interpretation of Information Rate",
    "average_trade_duration_ms": "the arithmetic mean",
    "max_trade_duration_ms": "the maximum",
    "average_mae": "Sweeney 1996, Maximum Adverse Excursion",
    "average_mfe": "Sweeney 1996, Maximum Adverse Excursion",
}
_DAILY = "g, var: the geometric mean and variance of returns per day, A: 252 days a year, or 365, 52 weeks, 12 months"
_DAILY_GEOMETRIC: Mapping[str, str] = {
    "annual_return": f"(1 + g)^A − 1 ({_DAILY}).",
    "volatility": f"√((var + (1 + g)²)^A − (1 + g)^(2A)) ({_DAILY}).",
    "sharpe_ratio": "(annualReturn − yearly risk-free rate) / volatility.",
    "sortino_ratio": "(annualReturn − yearly risk-free rate) / (√mean(min(r, 0)²) · √A), r the returns per day.",
    "calmar_ratio": "annualReturn / maxDrawdown.",
    "exposure": "Bars from the one of a trade's entry to that of its exit, both included, of closed trades / all bars.",
    "cagr": "(1 + totalReturn)^(1 / years) − 1, years of 365.25 days from the first bar's time to the last bar's.",
    "beta": "cov / var of the logarithms of eᵢ / eᵢ₋₁ and closeᵢ / closeᵢ₋₁, i = 2 … n.",
    "alpha": "totalReturn − f − beta · (buyAndHoldReturn − f), over the whole backtest, f the yearly risk-free rate.",
    "average_trade": "The geometric mean of the returns of the closed trades.",
    "profit_factor": "Σ returns of winning closed trades / −Σ returns of losing ones.",
}


class MetricDefinition(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The definition of one metric.

    `name` is the attribute of `Metrics`, `wire_name` its name on the wire. `unit_text` says what the unit is.
    `daily_geometric` is the formula under `statistics: daily_geometric`, where it is another.
    """

    name: str
    wire_name: str
    label: str
    group: Group
    unit: Unit
    unit_text: str
    formula: str
    source: str
    daily_geometric: str = ""


def metric_definitions() -> list[MetricDefinition]:
    """Return the definition of every metric, in the order in which they are printed."""
    return [
        MetricDefinition(
            name=one.name,
            wire_name=one.wire_name,
            label=one.label,
            group=one.group,
            unit=one.unit,
            unit_text=_UNIT_TEXTS[one.unit],
            formula=one.meaning,
            source=_SOURCES[one.name],
            daily_geometric=_DAILY_GEOMETRIC.get(one.name, ""),
        )
        for one in METRICS
    ]


def symbols_text() -> str:
    """Return the sentences that explain the letters of the formulas."""
    return " ".join((Metrics.__doc__ or "").split()).partition(" ")[2].partition("backtest. ")[2]


def metrics_page() -> str:
    """Return docs/metrics.md."""
    lines = [
        "# Metrics",
        "",
        "This page is printed by `python -m backtestr_protocol.metric_definitions`. The same definitions are a call "
        "away, `client.metric_definitions()`, and a command, `backtestr metrics` or `backtestr metrics sharpe_ratio`.",
        "",
        symbols_text(),
        "",
        "**`annual_return` and `cagr`** compound the same total return to a year by two clocks. `annual_return` counts "
        "bars: n bars are n / A years, where A are the bars in a year of the `calendar`. `cagr` counts calendar time. "
        "They differ where the calendar is not the market's: 252 daily bars of a share are a year of `252d`, and 0.69 "
        "years of `24/7`. The calendar is told from the bars unless it is given; `metrics.annualisation` has it, with "
        "the reason.",
    ]
    for group, definitions in groupby(metric_definitions(), key=lambda one: one.group):
        lines += ["", f"## {group.capitalize()}", "", "| metric | unit | formula | source |", "|---|---|---|---|"]
        for one in definitions:
            other = f" Under `daily_geometric`: {one.daily_geometric}" if one.daily_geometric else ""
            cells = (f"`{one.name}`", one.unit, _cell(one.formula + other), _cell(one.source))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(metrics_page())
