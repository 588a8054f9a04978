"""Annualisation: bars a year of every calendar, and the risk-free rate per bar."""

from __future__ import annotations

from typing import Any

import pytest

from backtestr_engine.metrics.annualisation import Annualisation, annualisation


@pytest.mark.parametrize(
    ("timeframe", "calendar", "bars_per_year"),
    [
        ("1d", "24/7", 365),
        ("1d", "24/5", 365 * 5 / 7),
        ("1d", "252d", 252),
        ("1m", "24/7", 365 * 1440),
        ("1h", "24/5", 365 * 5 / 7 * 24),
        ("30m", "252d", 252 * 13),
        ("1w", "24/7", 365 / 7),
        ("1w", "252d", 365 / 7),
        ("2w", "24/5", 365 / 14),
        ("1M", "252d", 12),
        ("3M", "24/7", 4),
        ("12M", "24/7", 1),
        ("3d", "24/7", 365 / 3),
        ("2d", "252d", 126),
        ("2h", "24/7", 365 * 12),
        ("1s", "24/7", 365 * 86_400),
    ],
)
def test_bars_per_year(timeframe: Any, calendar: Any, bars_per_year: float) -> None:
    assert annualisation(timeframe, calendar, 0.0).bars_per_year == pytest.approx(bars_per_year)


def test_the_risk_free_rate_compounds_to_a_year() -> None:
    rule = Annualisation(365.0, 0.05)

    assert (1 + rule.risk_free_per_bar) ** 365 == pytest.approx(1.05)
