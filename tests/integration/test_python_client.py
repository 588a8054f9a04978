"""The Python client runs and watches backtests on a real broker, and outlives it."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import polars as pl
import pytest

import backtestr
from backtestr_protocol.errors import DataError, NetworkError, NotFound, StateConflict, ValidationError
from support.harness import RunningBroker

CROSS = {"fast": 10, "slow": 30}


@pytest.fixture
def client(broker: RunningBroker) -> Iterator[backtestr.Client]:
    with backtestr.connect(connection_file=broker.connection_file) as connected:
        yield connected


def test_the_streams_of_a_backtest_equal_its_results(client: backtestr.Client) -> None:
    run = client.backtest("sma_cross", "SYNTH", timeframe="1m", parameters=CROSS, commission=0.0005)
    orders, positions, progress = list(run.orders()), list(run.positions(marks=False)), list(run.progress())
    result = run.result()
    assert run.wait().status == result.status == "completed"
    filled = [order for order in orders if order.status == "filled"]
    assert pl.Series([order.fill_price for order in filled]).equals(result.orders["fill_price"].drop_nulls())
    assert pl.Series([one.quantity for one in positions]).equals(result.positions["quantity"])
    assert progress[-1].progress_percent == 100.0
    assert result.metrics is not None
    last = progress[-1].equity_curve_point
    assert last.equity == result.equity["equity"][-1] == result.metrics.final_equity
    assert result.config["parameters"] == CROSS
    series = next(one for one in client.list_market_data() if (one.symbol, one.timeframe) == ("SYNTH", "1m"))
    assert result.equity.height == series.bars, "without start and end all bars are covered"


def test_a_start_has_its_warm_up_before_it(client: backtestr.Client) -> None:
    def result(start: str | None, warmup: int | None) -> backtestr.Results:
        run = client.backtest("sma_cross", "SYNTH", timeframe="1m", start=start, warmup=warmup, parameters=CROSS)
        return run.result()

    whole, warm, cold, asked = result(None, None), *(result("2024-01-05", count) for count in (None, 0, 1_000_000))

    assert (whole.warmup_bars, warm.warmup_bars, cold.warmup_bars, asked.warmup_bars) == (0, 30, 0, 4 * 1440)
    later = whole.orders["timestamp"].filter(whole.orders["timestamp"] >= warm.equity["timestamp"][0])
    assert warm.orders["timestamp"].equals(later) or warm.orders["timestamp"].equals(later[1:])
    assert cold.orders["timestamp"][0] > warm.orders["timestamp"][0]
    assert warm.metrics is not None
    assert warm.metrics.warnings == []
    assert asked.metrics is not None
    assert asked.metrics.warnings[0].startswith("the warm-up had 5,760 of 1,000,000 bars")


def test_a_run_is_watched_and_read_by_another_client(broker: RunningBroker, client: backtestr.Client) -> None:
    run = client.backtest("buy_and_hold", "SYNTH", timeframe="1d")
    with backtestr.connect(connection_file=broker.connection_file) as other:
        same = other.run(run.id)
        assert same.wait(timeout=30).status == "completed"
        assert [order.order_id for order in same.orders()] == [order.order_id for order in run.orders()]
        assert same.result().metrics == run.result().metrics == other.metrics(run.id)
    assert run.id in [one.backtest_id for one in client.list_backtests("completed")]


def test_a_run_that_has_ended_cannot_be_steered(client: backtestr.Client) -> None:
    run = client.backtest("buy_and_hold", "SYNTH", timeframe="1d")
    run.wait(timeout=30)
    with pytest.raises(StateConflict):
        run.pause()


def test_indicators_come_as_columns(client: backtestr.Client) -> None:
    macd = backtestr.IndicatorConfig(name="MACD", output_names=["line", "signal", "histogram"])
    bars = client.market_data("SYNTH", "1h", start="2024-01-03", end="2024-01-04", indicators=["RSI", macd])
    assert bars.height == 24
    assert bars.columns[-3:] == ["line", "signal", "histogram"]


def test_mistakes_are_named(client: backtestr.Client) -> None:
    with pytest.raises(DataError, match="did you mean 'SYNTH'"):
        client.backtest("sma_cross", "SINTH", timeframe="1m")
    with pytest.raises(ValidationError, match="fats") as caught:
        client.backtest("sma_cross", "SYNTH", timeframe="1m", parameters={"fats": 10})
    assert caught.value.details is not None
    assert caught.value.details["path"] == "$.parameters.fats"
    with pytest.raises(NotFound, match="did you mean 'sma_cross'"):
        client.backtest("sma_cros", "SYNTH", timeframe="1m")
    with pytest.raises(ValidationError, match="unknown option 'fill_on'; did you mean 'fill_at'"):
        client.backtest("sma_cross", "SYNTH", timeframe="1m", fill_on="close")


def test_a_client_outlives_its_broker(own_broker: RunningBroker) -> None:
    with backtestr.connect(connection_file=own_broker.connection_file) as client:
        beats = client.subscribe("system.status")
        assert isinstance(beats.next(timeout=30), backtestr.Update)
        run = client.backtest("buy_and_hold", "SYNTH", timeframe="1d")
        run.wait(timeout=30)
        own_broker.kill()
        own_broker.start()
        assert client.status().status == "healthy"
        seen = iter(beats)
        assert any(isinstance(one, backtestr.Restarted) for one in seen)
        assert isinstance(next(seen), backtestr.Update)
        assert client.backtest("buy_and_hold", "SYNTH", timeframe="1d").wait(timeout=30).status == "completed"
        own_broker.stop(signal.SIGTERM)
    with pytest.raises(NetworkError, match="no broker is running"):
        backtestr.connect(wait=0, connection_file=own_broker.connection_file)


def test_bars_from_memory_are_imported_as_a_file_is(client: backtestr.Client) -> None:
    bars = client.market_data("SYNTH", "1d").head(50)
    first = client.import_bars(bars, "FROMMEMORY")
    again = client.import_bars(bars.to_dict(as_series=False), "FROMMEMORY", "1d")

    assert (first.bars, first.timeframe) == (again.bars, again.timeframe) == (50, "1d")
    assert client.market_data("FROMMEMORY", "1d").equals(bars)
    with pytest.raises(DataError, match=r"bars-from-memory\.arrow"):
        client.import_bars(bars.with_columns(high=bars["low"] / 2), "FROMMEMORY", "1d")
    assert client.market_data("FROMMEMORY", "1d").equals(bars)
    client.delete_market_data("FROMMEMORY")
