"""The summary of a result as plain text, on one screen of 80 columns: no colours, so it is read on any background."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from backtestr_protocol.metrics import METRICS, Metric, Metrics

WIDTH = 80
MAX_WARNINGS = 4
"""The most warnings that are shown; a line says how many more there are."""

_SHOWN = (
    *("total_return", "cagr", "buy_and_hold_return", "volatility", "sharpe_ratio", "sortino_ratio"),
    *("max_drawdown", "calmar_ratio", "final_equity", "total_fees", "exposure", "turnover"),
    *("total_trades", "open_trades", "win_rate", "profit_factor", "average_trade", "expectancy"),
)
_COLUMNS = 2
_FIGURE = 14
"""The characters of a figure."""
_DAY_MS, _HOUR_MS = 86_400_000, 3_600_000
_BY_NAME = {one.name: one for one in METRICS}


def summary(
    backtest_id: str, status: str, config: Mapping[str, Any], metrics: Metrics | None, warmup_bars: int = 0
) -> str:
    """Return what was run, its warnings and its main figures; one that is undefined is a dash."""
    lines = [_title(config), f"{status}, backtest {backtest_id}"]
    if config.get("startDate"):
        warm = f", after {warmup_bars:,} bars of warm-up" if warmup_bars else ""
        lines[1:1] = [f"{_day(config['startDate'])} to {_day(config['endDate'])}{warm}"]
    if metrics is None:
        return "\n".join([*lines, "no metrics: it has not ended" if status not in _ENDED else "no metrics"])
    lines += _warnings(metrics.warnings)
    cells = [_cell(_BY_NAME[name], getattr(metrics, name)) for name in _SHOWN if name in _BY_NAME]
    rows = -(-len(cells) // _COLUMNS)
    lines += ["", *("   ".join(cells[row::rows]).rstrip() for row in range(rows))]
    lines += ["", "metrics has all figures; tables: equity, trades, orders, positions"]
    return "\n".join(lines)


_ENDED = ("completed", "failed", "stopped")


def _title(config: Mapping[str, Any]) -> str:
    symbols = [str(one) for one in (config.get("symbols") or [config.get("symbol", "")])]
    named = ", ".join(symbols[:4]) + (f" and {len(symbols) - 4} more" if len(symbols) > 4 else "")
    parameters = ", ".join(f"{name}={value}" for name, value in (config.get("parameters") or {}).items())
    algorithm = str(config.get("algorithmId", "backtest")).partition("@")[0]
    title = f"{algorithm}({parameters}) on {named} {config.get('timeframe', '')}".strip()
    return title if len(title) <= WIDTH else title[: WIDTH - 1] + "…"


def _day(date: Any) -> str:
    """Return a date alone where the time is midnight."""
    text = str(date).replace("T00:00:00Z", "").replace("T00:00:00+00:00", "")
    return text.removesuffix("Z").replace("T", " ")


def _warnings(warnings: Sequence[str]) -> list[str]:
    lines = [
        line
        for warning in warnings[:MAX_WARNINGS]
        for line in textwrap.wrap(warning, WIDTH, initial_indent="! ", subsequent_indent="  ", max_lines=3)
    ]
    more = len(warnings) - MAX_WARNINGS
    return lines + ([f"! and {more} more in metrics.warnings"] if more > 0 else [])


def _cell(metric: Metric, value: float | int | None) -> str:
    return f"{metric.label[:22]:<22} {_figure(metric, value):>{_FIGURE}}"


def _figure(metric: Metric, value: float | int | None) -> str:
    """Return a value that fits its column."""
    if not isinstance(value, int | float):
        return "–"
    scale, ending, digits = 1.0, "", 2
    if metric.unit == "fraction":
        scale, ending = 100.0, " %"
    elif metric.unit == "ms":
        is_long = abs(value) >= _DAY_MS
        scale, ending, digits = (1 / _DAY_MS, " d", 1) if is_long else (1 / _HOUR_MS, " h", 1)
    elif metric.unit == "count" and isinstance(value, int):
        digits = 0
    text = f"{value * scale:,.{digits}f}{ending}"
    return text if len(text) <= _FIGURE else f"{value * scale:.3g}{ending}"
