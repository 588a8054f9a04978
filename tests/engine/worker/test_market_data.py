"""Market data and indicators are read on request."""

from __future__ import annotations

import io
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
import talib

from backtestr_engine.data.bars import resample
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.indicators import compute, ema, indicators, sma
from backtestr_engine.worker.market_data import market_data
from backtestr_protocol.errors import BacktestrError, DataError, InvalidConfiguration, NotFound, ValidationError
from backtestr_protocol.messages import GetMarketData, IndicatorConfig
from support.protocol import hostile_values

BARS = synthetic_bars("1m", 3_000, symbol="X")
START_MS = int(BARS.timestamp[0]) // 1000
MINUTE_MS = 60_000


@pytest.fixture
def stocked(catalog: Catalog) -> Catalog:
    catalog.write(BARS)
    return catalog


def ask(catalog: Catalog, **request: Any) -> pl.DataFrame:
    answer, attachments = market_data(catalog, GetMarketData(**{"symbol": "X", "timeframe": "1m", **request}))
    [table] = answer.tables
    assert table.frame is not None
    frame = pl.read_ipc_stream(io.BytesIO(attachments[table.frame]))
    assert (answer.symbol, table.name, table.rows, table.format) == ("X", "bars", frame.height, "arrow-ipc-stream")
    assert frame.schema["timestamp"] == pl.Datetime("us", "UTC")
    return frame


def test_the_whole_series(stocked: Catalog) -> None:
    assert ask(stocked).equals(BARS.to_frame())


def test_a_range_is_half_open_and_limit_keeps_its_last_bars(stocked: Catalog) -> None:
    start, end = START_MS + 10 * MINUTE_MS, START_MS + 20 * MINUTE_MS

    assert ask(stocked, start_time=start, end_time=end).equals(BARS[10:20].to_frame())
    assert ask(stocked, start_time=start, end_time=end, limit=3).equals(BARS[17:20].to_frame())
    assert ask(stocked, limit=10_000).height == 3_000
    assert ask(stocked, start_time=start, end_time=end, limit=3, keep="first").equals(BARS[10:13].to_frame())
    assert ask(stocked, limit=10_000, keep="first").height == 3_000


def test_a_higher_timeframe_is_resampled(stocked: Catalog) -> None:
    assert ask(stocked, timeframe="4h", limit=5).equals(resample(BARS, "4h")[-5:].to_frame())


def test_indicators_are_warmed_up_by_the_bars_before_the_range(stocked: Catalog) -> None:
    configs = [
        IndicatorConfig(name="SMA", parameters={"timeperiod": 20}, output_names=["average"]),
        IndicatorConfig(name="MACD"),
        IndicatorConfig(name="bbands", parameters={"nbdevup": 1}, output_names=["upper", "middleband", "lowerband"]),
        IndicatorConfig(name="ATR", output_names=["range"]),
        IndicatorConfig(name="RSI"),
    ]
    whole = ask(stocked, indicators=configs)
    part = ask(stocked, indicators=configs, start_time=START_MS + 100 * MINUTE_MS, limit=50)

    assert whole.columns[6:] == [
        *("average", "macd", "macdsignal", "macdhist", "upper", "middleband", "lowerband", "range", "real"),
    ]
    assert part.equals(whole.tail(50))
    first = ask(stocked, indicators=configs, start_time=START_MS + 100 * MINUTE_MS, limit=50, keep="first")
    assert first.equals(whole[100:150])
    assert whole["average"].to_numpy()[19] == pytest.approx(BARS.close[:20].mean())
    assert np.isnan(whole["average"].to_numpy()[:19]).all()
    assert part["range"].to_list() == talib.ATR(BARS.high, BARS.low, BARS.close)[-50:].tolist()


def test_plain_averages() -> None:
    values = np.arange(1.0, 11.0)

    assert sma(values, 4)[3:].tolist() == [2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5]
    assert np.isnan(sma(values, 4)[:3]).all()
    assert ema(values, 3)[2:4].tolist() == [2.0, 3.0]


def test_every_indicator_computes_one_value_per_bar_with_its_defaults() -> None:
    bars = BARS[:200]
    assert {"SMA", "EMA", "RSI", "MACD", "BBANDS", "ATR", "OBV", "CDLDOJI"} <= set(indicators())
    for name, indicator in indicators().items():
        columns = compute(bars, IndicatorConfig(name=name))
        assert tuple(columns) == indicator.outputs
        assert all(values.shape == (200,) and values.dtype == np.float64 for values in columns.values())


@pytest.mark.parametrize(
    ("config", "error", "message", "path"),
    [
        ({"name": "SMMA"}, NotFound, r"unknown indicator 'SMMA'; did you mean 'SMA'\?", None),
        (
            {"name": "SMA", "parameters": {"period": 3}},
            ValidationError,
            r"unknown parameter 'period' of SMA; did you mean 'timeperiod'\? \(timeperiod=\d+\)",
            "$.indicators[0].parameters.period",
        ),
        (
            {"name": "SMA", "parameters": {"timeperiod": 0}},
            ValidationError,
            r"timeperiod of SMA must be within 1\.\.100000, not 0",
            "$.indicators[0].parameters.timeperiod",
        ),
        (
            {"name": "SMA", "parameters": {"timeperiod": 2.5}},
            ValidationError,
            "timeperiod of SMA must be a whole number, not 2.5",
            "$.indicators[0].parameters.timeperiod",
        ),
        (
            {"name": "BBANDS", "parameters": {"matype": 10**30}},
            ValidationError,
            "matype of BBANDS must be a whole number",
            "$.indicators[0].parameters.matype",
        ),
        (
            {"name": "BBANDS", "parameters": {"nbdevup": float("nan")}},
            ValidationError,
            "nbdevup of BBANDS must be a finite number",
            "$.indicators[0].parameters.nbdevup",
        ),
        (
            {"name": "BBANDS", "parameters": {"matype": 99}},
            ValidationError,
            "BBANDS does not take matype=99",
            "$.indicators[0].parameters",
        ),
        (
            {"name": "RSI", "output_names": ["a", "b"]},
            ValidationError,
            r"RSI has 1 outputs \(real\), outputNames gives 2",
            "$.indicators[0].outputNames",
        ),
        (
            {"name": "MACD", "output_names": ["line"]},
            ValidationError,
            r"MACD has 3 outputs \(macd, macdsignal, macdhist\), outputNames gives 1; name each of them",
            "$.indicators[0].outputNames",
        ),
        (
            {"name": "RSI", "output_names": ["close"]},
            ValidationError,
            "two columns would be named 'close'; give RSI outputNames of its own",
            "$.indicators[0].outputNames",
        ),
    ],
)
def test_indicators_that_are_refused(
    config: dict[str, Any], error: type[BacktestrError], message: str, path: str | None, stocked: Catalog
) -> None:
    with pytest.raises(error, match=message) as caught:
        ask(stocked, indicators=[IndicatorConfig(**config)])
    assert caught.value.details is not None
    assert caught.value.details.get("path") == path


def test_two_indicators_of_one_output_name_need_other_names(stocked: Catalog) -> None:
    with pytest.raises(ValidationError, match="two columns would be named 'real'") as caught:
        ask(stocked, indicators=[IndicatorConfig(name="SMA"), IndicatorConfig(name="EMA")])
    assert caught.value.details is not None
    assert caught.value.details["path"] == "$.indicators[1].outputNames"


@pytest.mark.parametrize(
    ("request_fields", "error", "message"),
    [
        ({"symbol": "Y"}, DataError, "unknown symbol 'Y'"),
        ({"timeframe": "2x"}, ValidationError, "unknown timeframe '2x'"),
        ({"limit": 0}, ValidationError, "limit must be at least 1, not 0"),
        ({"start_time": 2, "end_time": 1}, InvalidConfiguration, "is not before endTime"),
        ({"start_time": START_MS + 10**10}, DataError, "there are bars from 2024-01-01 to 2024-01-03T01:59:00Z"),
        (
            {"start_time": START_MS + 10**10, "indicators": [IndicatorConfig(name="SMA")]},
            DataError,
            "there are bars from 2024-01-01 to 2024-01-03T01:59:00Z",
        ),
        ({"end_time": START_MS}, DataError, "no 1m bars of X before 2024-01-01; there are bars from"),
    ],
)
def test_requests_that_are_refused(
    request_fields: dict[str, Any], error: type[BacktestrError], message: str, stocked: Catalog
) -> None:
    with pytest.raises(error, match=message):
        ask(stocked, **request_fields)


@pytest.mark.parametrize(("name", "parameter"), [("SMA", "timeperiod"), ("BBANDS", "nbdevup"), ("BBANDS", "matype")])
def test_an_indicator_s_parameter_of_any_value_is_taken_or_refused(name: str, parameter: str) -> None:
    for hostile in hostile_values.HOSTILE:
        try:
            value = msgspec.msgpack.decode(msgspec.msgpack.encode(hostile))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
        refused: ValidationError | None = None
        try:
            outputs = compute(BARS[:50], IndicatorConfig(name=name, parameters={parameter: value}))
        except ValidationError as error:
            refused = error
        if refused is None:
            assert {len(one) for one in outputs.values()} == {50}
        else:
            assert (refused.details or {})["path"].startswith("$.indicators[0].parameters")
            assert len(refused.message) < 2_000


def test_a_limit_beyond_every_series_is_all_bars(stocked: Catalog) -> None:
    assert ask(stocked, limit=2**53 - 1).height == len(BARS)
