"""Results that other libraries computed for the same signals on the same bars, to 1e-9 relative."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from backtestr_engine.backtest.plan import prepare
from backtestr_engine.backtest.run import Result, Run
from backtestr_engine.data.bars import Bars
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.simulation.conventions import Conventions
from backtestr_protocol.messages import BacktestConfig


class Golden(msgspec.Struct, frozen=True):
    """Numbers of vectorbt 1.0.0 (engine numba), Portfolio.from_signals on GOOG daily.

    MA.run(close, 10) crosses MA.run(close, 30), cash 10,000, fees 0.001, freq 1D.
    """

    name: str
    options: dict[str, Any]
    slippage: float
    orders: int
    metrics: dict[str, float]


GOLDEN = [
    Golden(
        "long only",
        {"direction": "long"},
        0.0,
        65,
        {
            "finalEquity": 60155.441128097256,
            "totalTrades": 33,
            "winRate": 0.5625,
            "sharpeRatio": 1.2643286457221035,
            "sortinoRatio": 2.020249311020536,
            "calmarRatio": 1.2325536328847788,
            "annualReturn": 0.3564965362588697,
            "volatility": 0.269576311834587,
            "maxDrawdown": 0.28923409638937436,
            "averageDrawdown": 0.0445379932059639,
            "bestTrade": 0.5340550681255164,
            "worstTrade": -0.09547293614063325,
            "averageTrade": 0.06219955936393439,
            "profitFactor": 2.3448717641659114,
            "expectancy": 1310.291057115642,
            "totalFees": 2333.6803633278796,
            "peakEquity": 61475.529954682694,
            "totalReturn": 5.015544112809725,
        },
    ),
    Golden(
        "both directions",
        {"direction": "both"},
        0.0,
        66,
        {
            "finalEquity": 57570.72494468588,
            "totalTrades": 66,
            "winRate": 0.49230769230769234,
            "sharpeRatio": 1.0108259354465206,
            "sortinoRatio": 1.5314328076574604,
            "calmarRatio": 0.7388864755749285,
            "annualReturn": 0.3464110364705715,
            "volatility": 0.35690930423685296,
            "maxDrawdown": 0.46882849791103376,
            "averageDrawdown": 0.05602457262279236,
            "bestTrade": 0.5340550681255165,
            "worstTrade": -0.17752649741685497,
            "averageTrade": 0.032293542119925966,
            "profitFactor": 1.461787619641586,
            "expectancy": 610.7392619665081,
            "totalFees": 5287.286773446197,
            "peakEquity": 80863.56224641168,
            "totalReturn": 4.757072494468588,
        },
    ),
    Golden(
        "both directions with slippage",
        {"direction": "both"},
        0.002,
        66,
        {
            "finalEquity": 44221.86486987024,
            "totalTrades": 66,
            "winRate": 0.47692307692307695,
            "sharpeRatio": 0.8831399863594285,
            "sortinoRatio": 1.3288510120727297,
            "calmarRatio": 0.5805547899032831,
            "annualReturn": 0.28739022390971924,
            "volatility": 0.35829928738502753,
            "maxDrawdown": 0.4950268758571378,
            "averageDrawdown": 0.06383293149180787,
            "bestTrade": 0.527927103781702,
            "worstTrade": -0.18224203448064968,
            "averageTrade": 0.0281779340635848,
            "profitFactor": 1.3614971249426413,
            "expectancy": 434.6302941744543,
            "totalFees": 4511.982266365271,
            "peakEquity": 65876.02244943759,
            "totalReturn": 3.422186486987024,
        },
    ),
    Golden(  # of vectorbt 1.2.0, with fixed_fees 5: the two trades of a reversal share the fee of its one order
        "both directions with slippage and a fixed fee",
        {"direction": "both", "commissionFixed": 5.0},
        0.002,
        66,
        {
            "finalEquity": 43646.57362901724,
            "totalTrades": 66,
            "winRate": 0.47692307692307695,
            "bestTrade": 0.5274033849747007,
            "worstTrade": -0.18234490285240013,
            "averageTrade": 0.0279747974396799,
            "profitFactor": 1.357968588334695,
            "expectancy": 427.0120061795699,
            "sqn": 0.8493868805748375,
            "totalFees": 4797.929797332638,
        },
    ),
    Golden(
        "short only",
        {"direction": "short"},
        0.0,
        66,
        {
            "finalEquity": 9570.327116726223,
            "totalTrades": 33,
            "winRate": 0.42424242424242425,
            "sharpeRatio": 0.08511407251159164,
            "sortinoRatio": 0.1215140486928445,
            "calmarRatio": -0.016454771035747686,
            "annualReturn": -0.007434961696336617,
            "volatility": 0.2338615487780999,
            "maxDrawdown": 0.45184230641582923,
            "averageDrawdown": 0.07538149356056123,
            "bestTrade": 0.2961890608474175,
            "worstTrade": -0.17752649741685494,
            "averageTrade": 0.0032937678227055647,
            "profitFactor": 0.9669095526774633,
            "expectancy": -13.020390402235762,
            "totalFees": 717.3392300126003,
            "peakEquity": 17395.06951586668,
            "totalReturn": -0.04296728832737772,
        },
    ),
    Golden(
        "half of equity",
        {"direction": "long", "size": "fraction", "sizeValue": 0.5},
        0.0,
        65,
        {
            "finalEquity": 26574.92750684489,
            "totalTrades": 33,
            "winRate": 0.5625,
            "sharpeRatio": 1.2514470585288897,
            "sortinoRatio": 1.9728183340316194,
            "calmarRatio": 1.1471152785846512,
            "annualReturn": 0.18067029564955717,
            "volatility": 0.14058353294332646,
            "maxDrawdown": 0.15749968553507032,
            "averageDrawdown": 0.02455678281588731,
            "bestTrade": 0.5340550681255163,
            "worstTrade": -0.09547293614063322,
            "averageTrade": 0.062199559363934405,
            "profitFactor": 2.854586834259635,
            "expectancy": 457.01686638582646,
            "totalFees": 642.8958535596203,
            "peakEquity": 26743.060664763652,
            "totalReturn": 1.6574927506844892,
        },
    ),
    Golden(
        "forty units",
        {"direction": "both", "size": "units", "sizeValue": 40.0},
        0.0,
        66,
        {
            "finalEquity": 47915.28647583083,
            "totalTrades": 66,
            "winRate": 0.49230769230769234,
            "sharpeRatio": 1.1906826186167967,
            "sortinoRatio": 1.8118011119309216,
            "calmarRatio": 1.195142503681724,
            "annualReturn": 0.3050582849749306,
            "volatility": 0.2498007954924727,
            "maxDrawdown": 0.25524846119619726,
            "averageDrawdown": 0.03623309868734671,
            "bestTrade": 0.5340550681255163,
            "worstTrade": -0.17752649741685497,
            "averageTrade": 0.03229354211992589,
            "profitFactor": 1.982635317422464,
            "expectancy": 515.4691765512434,
            "totalFees": 2473.1212024515435,
            "peakEquity": 53483.33767583083,
            "totalReturn": 3.7915286475830827,
        },
    ),
    Golden(
        "long only, stop loss and take profit",
        {"direction": "long", "stopLoss": 0.05, "takeProfit": 0.1},
        0.0,
        66,
        {
            "finalEquity": 20472.199223240314,
            "totalTrades": 33,
            "sharpeRatio": 0.8468745177266135,
            "sortinoRatio": 1.3726480322365868,
            "maxDrawdown": 0.22533785266974315,
            "totalFees": 1040.4732548268623,
        },
    ),
    Golden(
        "both directions, stops, slippage and a fixed fee",
        {"direction": "both", "stopLoss": 0.05, "takeProfit": 0.1, "commissionFixed": 5.0},
        0.002,
        105,
        {
            "finalEquity": 15947.901543903916,
            "totalTrades": 61,
            "sharpeRatio": 0.4697662528852261,
            "sortinoRatio": 0.6823353108001255,
            "maxDrawdown": 0.3376723409828061,
            "totalFees": 2151.9558202421094,
        },
    ),
    Golden(
        "both directions, trailing stop",
        {"direction": "both", "trailingStop": 0.08, "takeProfit": 0.2, "commissionFixed": 5.0},
        0.002,
        113,
        {
            "finalEquity": 33067.69951175921,
            "totalTrades": 63,
            "sharpeRatio": 0.9173699446673804,
            "sortinoRatio": 1.3941031892776987,
            "maxDrawdown": 0.39100814612209245,
            "totalFees": 3153.630792424701,
        },
    ),
]


def run(golden: Golden, google: Bars, catalog: Catalog, conventions: Conventions) -> Result:
    catalog.write(google)
    config = BacktestConfig(
        algorithm_id="sma_cross",
        symbol="GOOG",
        start_date="2004-01-01",
        end_date="2014-01-01",
        initial_capital=10_000.0,
        timeframe="1d",
        commission=0.001,
        slippage=golden.slippage,
        parameters={"fast": 10, "slow": 30},
        options={"preset": "vectorbt", **golden.options},
    )
    one = Run(prepare(config, catalog, conventions), "golden")
    one.advance(len(google))
    return one.finish()


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.name)
def test_the_vectorbt_preset_gives_the_numbers_of_vectorbt(
    golden: Golden, google: Bars, catalog: Catalog, conventions: Conventions
) -> None:
    result = run(golden, google, catalog, conventions)

    metrics = result.metrics.to_wire()
    assert {name: metrics[name] for name in golden.metrics} == pytest.approx(golden.metrics, rel=1e-9)
    assert len(result.orders) == golden.orders
    assert result.metrics.undefined == {}


def test_a_preset_is_spelled_out_with_the_result(google: Bars, catalog: Catalog, conventions: Conventions) -> None:
    catalog.write(google)
    config = BacktestConfig(
        algorithm_id="sma_cross",
        symbol="GOOG",
        start_date="2004-01-01",
        end_date="2014-01-01",
        initial_capital=10_000.0,
        timeframe="1d",
        commission=0.001,
        slippage=0.0,
        parameters={},
        options={"preset": "vectorbt", "fillAt": "next_open"},
    )
    resolved = prepare(config, catalog, conventions).resolved_config()

    assert resolved.parameters == {"fast": 10, "slow": 30}
    assert resolved.options["fillAt"] == "next_open"
    assert resolved.options["crossTies"] == "fire"
    assert prepare(resolved, catalog, conventions).resolved_config() == resolved


class OfBacktestingPy(msgspec.Struct, frozen=True):
    """Numbers of backtesting.py 0.6.6: SMA 10 crosses SMA 30 on GOOG daily, cash 10,000, `finalize_trades`.

    The position is closed and reversed on each cross. Percentages are fractions here. Alpha is theirs with buy and hold
    from the first close on, where backtesting.py begins with the slower average.
    """

    name: str
    commission: float
    slippage: float
    options: dict[str, Any]
    metrics: dict[str, float]


OF_BACKTESTING_PY = [
    OfBacktestingPy(
        "plain",
        0.0,
        0.0,
        {},
        {
            "finalEquity": 51422.98999999996,
            "peakEquity": 75787.44,
            "totalTrades": 66.0,
            "totalFees": 0.0,
            "sharpeRatio": 0.5806232244485349,
            "sortinoRatio": 1.085343435248866,
            "calmarRatio": 0.44166409202994616,
            "annualReturn": 0.21191099249053225,
            "volatility": 0.3649716090702389,
            "cagr": 0.21160245705962624,
            "alpha": 3.87474634581589,
            "beta": 0.038033907091922066,
            "exposure": 0.9674115456238361,
            "maxDrawdown": 0.47980127050075877,
            "averageDrawdown": 0.05925851581948801,
            "maxDrawdownDurationMs": 50457600000.0,
            "winRate": 0.46969696969696967,
            "bestTrade": 0.5359595229490424,
            "worstTrade": -0.1839887353835481,
            "averageTrade": 0.02531715975158555,
            "profitFactor": 2.167945974262033,
            "sqn": 1.07661873566977,
            "kelly": 0.1518705127029717,
        },
    ),
    OfBacktestingPy(
        "trade_on_close, with commission, a fixed fee, spread, and stops from the close of the signal",
        0.001,
        0.002,
        {"fillAt": "close", "commissionFixed": 5.0, "stopLoss": 0.05, "takeProfit": 0.1},
        {
            "finalEquity": 19132.470330960015,
            "peakEquity": 23711.05669070001,
            "totalTrades": 66.0,
            "totalFees": 2636.2259890400005,
            "sharpeRatio": 0.3957553636097044,
            "sortinoRatio": 0.6314303755347096,
            "calmarRatio": 0.24570678041506863,
            "annualReturn": 0.07912644499795851,
            "volatility": 0.19993777033428495,
            "cagr": 0.07901758439963946,
            "alpha": 0.9459596279385694,
            "beta": -0.004650253972520021,
            "exposure": 0.48044692737430167,
            "maxDrawdown": 0.3220360661773006,
            "averageDrawdown": 0.05675693289693739,
            "maxDrawdownDurationMs": 47692800000.0,
            "winRate": 0.46969696969696967,
            "bestTrade": 0.14546685447388394,
            "worstTrade": -0.1393114674799005,
            "averageTrade": 0.010278234717078005,
            "profitFactor": 1.492155316384978,
            "sqn": 1.0511541490315486,
            "kelly": 0.12054255233603028,
        },
    ),
]


@pytest.mark.parametrize("golden", OF_BACKTESTING_PY, ids=lambda golden: golden.name)
def test_the_backtesting_py_preset_gives_the_numbers_of_backtesting_py(
    golden: OfBacktestingPy, google: Bars, catalog: Catalog, conventions: Conventions
) -> None:
    catalog.write(google)
    config = BacktestConfig(
        algorithm_id="sma_cross",
        symbol="GOOG",
        start_date="2004-01-01",
        end_date="2014-01-01",
        initial_capital=10_000.0,
        timeframe="1d",
        commission=golden.commission,
        slippage=golden.slippage,
        parameters={"fast": 10, "slow": 30},
        options={"preset": "backtesting.py", **golden.options},
    )
    one = Run(prepare(config, catalog, conventions), "golden")
    while not one.done:
        one.advance(97)
    metrics = one.finish().metrics.to_wire()

    assert {name: metrics[name] for name in golden.metrics} == pytest.approx(golden.metrics, rel=1e-9)
