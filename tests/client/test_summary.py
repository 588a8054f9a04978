"""The summary of a result fits a screen, and says what must be known first."""

from __future__ import annotations

from typing import Any

import pytest

import backtestr
from backtestr.summary import MAX_WARNINGS, WIDTH, summary
from backtestr_protocol.metrics import METRICS, Metrics

CONFIG: dict[str, Any] = {
    "algorithmId": "sma_cross@0123456789abcdef",
    "symbol": "SYNTH",
    "timeframe": "1m",
    "parameters": {"fast": 10, "slow": 30},
    "startDate": "2024-01-01T00:00:00Z",
    "endDate": "2024-01-14T21:20:00Z",
}


def metrics(**figures: Any) -> Metrics:
    return Metrics(**figures).with_absent_as_none()


def test_the_first_lines_say_what_was_run() -> None:
    lines = summary("b1", "completed", CONFIG, metrics(total_return=-0.596, total_trades=791), 30).splitlines()

    assert lines[0] == "sma_cross(fast=10, slow=30) on SYNTH 1m"
    assert lines[1] == "2024-01-01 to 2024-01-14 21:20:00, after 30 bars of warm-up"
    assert lines[2] == "completed, backtest b1"
    text = "\n".join(lines)
    assert "Total return                 -59.60 %" in text
    assert "Total trades                      791" in text
    assert "Sharpe ratio                        –" in text


def test_warnings_come_before_the_figures() -> None:
    shown = metrics(total_return=1.0).with_warnings(["mine@1 looks ahead, so " + "these figures " * 20, "too few"])
    lines = summary("b1", "completed", CONFIG, shown).splitlines()

    assert lines[3].startswith("! mine@1 looks ahead")
    assert lines.index("! too few") < lines.index("")


@pytest.mark.parametrize("value", [0.0, -1.0, 1e-9, 123456.789, 1e300, -1e300, 10**15])
def test_it_is_one_screen_whatever_the_figures(value: float) -> None:
    figures = {one.name: value for one in METRICS}
    config = CONFIG | {"symbols": [f"SYMBOL{number}" * 5 for number in range(50)], "parameters": {"p" * 60: "v" * 60}}
    shown = metrics(**figures).with_warnings(["a long warning " * 30] * 20)
    lines = summary("b" * 36, "completed", config, shown, 10**9).splitlines()

    assert max(map(len, lines)) <= WIDTH
    assert len(lines) <= 24 + 3 * MAX_WARNINGS - 4
    assert lines.count("! and 16 more in metrics.warnings") == 1
    assert "\x1b" not in "".join(lines)


def test_results_print_it() -> None:
    found = backtestr.Results(backtest_id="b1", status="running", config=CONFIG, metrics=None, tables={})

    assert repr(found) == str(found)
    assert repr(found).splitlines()[-1] == "no metrics: it has not ended"
