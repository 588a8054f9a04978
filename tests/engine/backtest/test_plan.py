"""A plan refuses bad configurations before anything runs, and spells out the checked one."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from backtestr_engine.backtest.plan import prepare
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.simulation.conventions import Conventions
from backtestr_protocol.errors import BacktestrError, DataError, InvalidConfiguration, NotFound, ValidationError
from backtestr_protocol.messages import BacktestConfig

CONFIG = BacktestConfig(
    algorithm_id="sma_cross",
    symbol="SYNTH",
    start_date="2024-01-01",
    end_date="2024-01-03",
    initial_capital=10_000.0,
    timeframe="1m",
    commission=0.0005,
    slippage=0.0001,
    parameters={"fast": 5, "slow": 20},
)


@pytest.fixture
def stocked(catalog: Catalog) -> Catalog:
    catalog.write(synthetic_bars("1m", 5_000))
    return catalog


@pytest.mark.parametrize(
    ("changed", "error", "message", "path"),
    [
        ({"algorithm_id": "sma_cros"}, NotFound, "did you mean 'sma_cross'", None),
        ({"parameters": {"fats": 3}}, ValidationError, "did you mean 'fast'", "$.parameters.fats"),
        ({"parameters": {"fast": 1}}, ValidationError, "within 2..500", "$.parameters.fast"),
        ({"parameters": {"fast": 50}}, InvalidConfiguration, "sma_cross requires fast < slow", None),
        ({"symbol": "SYNHT"}, DataError, "unknown symbol 'SYNHT'; did you mean 'SYNTH'?", "$.symbol"),
        ({"timeframe": "2y"}, ValidationError, "unknown timeframe '2y'", "$.timeframe"),
        ({"start_date": "2024-01-04"}, InvalidConfiguration, "is not before endDate 2024-01-03", None),
        ({"start_date": "2024-01-03"}, InvalidConfiguration, "is not before endDate 2024-01-03", None),
        ({"start_date": "January"}, ValidationError, "must be an ISO 8601 date", "$.startDate"),
        ({"end_date": "2024-13-01"}, ValidationError, "must be an ISO 8601 date", "$.endDate"),
        ({"initial_capital": 0.0}, InvalidConfiguration, "initialCapital must be above 0", "$.initialCapital"),
        ({"initial_capital": -1.0}, InvalidConfiguration, "initialCapital must be above 0", "$.initialCapital"),
        ({"initial_capital": float("inf")}, ValidationError, "must be a finite number", "$.initialCapital"),
        ({"commission": -0.1}, ValidationError, "from 0 up to, but not including, 1", "$.commission"),
        ({"commission": 1.0}, ValidationError, "from 0 up to, but not including, 1", "$.commission"),
        ({"commission": float("nan")}, ValidationError, "must be a finite number", "$.commission"),
        ({"slippage": 1.0}, ValidationError, "from 0 up to, but not including, 1", "$.slippage"),
        ({"options": {"fillat": 1}}, ValidationError, "did you mean 'fillAt'", "$.options.fillat"),
        (
            {"start_date": "2025-01-01", "end_date": "2026-01-01"},
            DataError,
            "no 1m bars of SYNTH from 2025-01-01 before 2026-01-01; there are bars from 2024-01-01 to 2024-01-04",
            None,
        ),
    ],
)
def test_a_plan_is_refused_before_anything_runs(
    changed: dict[str, Any],
    error: type[BacktestrError],
    message: str,
    path: str | None,
    stocked: Catalog,
    conventions: Conventions,
) -> None:
    with pytest.raises(error) as caught:
        prepare(msgspec.structs.replace(CONFIG, **changed), stocked, conventions)
    assert message in caught.value.message
    assert (caught.value.details or {}).get("path") == path
    assert msgspec.json.encode(caught.value.to_data(component="engine", timestamp=0))


@pytest.mark.parametrize(
    ("start", "end", "bars"),
    [
        ("2024-01-01", "2024-01-02", 1440),
        ("2024-01-01T01:00:00Z", "2024-01-01T02:00:00", 60),
        ("2024-01-01T01:00:00+01:00", "2024-01-01T00:01:30Z", 2),
    ],
)
def test_dates_are_utc_and_the_end_is_exclusive(
    start: str, end: str, bars: int, stocked: Catalog, conventions: Conventions
) -> None:
    config = msgspec.structs.replace(CONFIG, start_date=start, end_date=end)

    assert len(prepare(config, stocked, conventions).bars) == bars


@pytest.mark.parametrize(
    ("start", "end", "bars", "found"),
    [
        (None, None, 5_000, ("2024-01-01", "2024-01-04T11:20:00Z")),
        ("2024-01-04", None, 680, ("2024-01-04", "2024-01-04T11:20:00Z")),
        (None, "2024-01-02", 1440, ("2024-01-01", "2024-01-02")),
    ],
)
def test_an_absent_date_is_that_of_the_stored_range(
    start: str | None, end: str | None, bars: int, found: tuple[str, str], stocked: Catalog, conventions: Conventions
) -> None:
    """The plan names the range that it found, so that it has the same bars when more are imported meanwhile."""
    plan = prepare(msgspec.structs.replace(CONFIG, start_date=start, end_date=end), stocked, conventions)
    assert len(plan.bars) == bars
    assert (plan.config.start_date, plan.config.end_date) == found

    stocked.write(synthetic_bars("1m", 6_000))
    assert len(prepare(plan.config, stocked, conventions).bars) == bars


def test_an_absent_date_of_several_symbols_covers_all_of_them(stocked: Catalog, conventions: Conventions) -> None:
    stocked.write(synthetic_bars("1m", 6_000, symbol="LATE")[5_500:])
    config = msgspec.structs.replace(CONFIG, symbols=["SYNTH", "LATE"], start_date=None, end_date=None)
    plan = prepare(config, stocked, conventions)
    assert [len(bars) for bars in plan.panel.series] == [5_000, 500]
    assert (plan.config.start_date, plan.config.end_date) == ("2024-01-01", "2024-01-05T04:00:00Z")


def test_an_open_range_without_bars_is_refused(stocked: Catalog, conventions: Conventions) -> None:
    with pytest.raises(DataError, match="no 1m bars of SYNTH from 2025-01-01; there are bars from 2024-01-01"):
        prepare(msgspec.structs.replace(CONFIG, start_date="2025-01-01", end_date=None), stocked, conventions)


def test_a_timeframe_is_spelled_out_by_its_one_name(stocked: Catalog, conventions: Conventions) -> None:
    plan = prepare(msgspec.structs.replace(CONFIG, timeframe="60m"), stocked, conventions)
    assert plan.resolved_config().timeframe == plan.bars.timeframe == "1h"
