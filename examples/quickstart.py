"""`python examples/quickstart.py [SYMBOL [TIMEFRAME]]` runs a backtest and prints its results.

It needs a broker: make run-broker
"""

import sys

import backtestr

symbol, timeframe = (sys.argv[1:] + ["SYNTH", "1m"][len(sys.argv) - 1 :])[:2]

with backtestr.connect() as client:
    run = client.backtest(
        "sma_cross", symbol, timeframe=timeframe, parameters={"fast": 10, "slow": 30}, commission=0.0005
    )
    for progress in run.progress():
        print(f"{progress.progress_percent:5.1f} %  equity {progress.equity_curve_point.equity:,.2f}")
    filled = [order for order in run.orders() if order.status == "filled"]
    result = run.result()

metrics = result.metrics
assert metrics is not None
print(f"{len(filled)} orders filled, {result.trades.height} trades, final equity {metrics.final_equity:,.2f}")
for name, value in metrics.defined().items():
    print(f"{name:26} {value:>18,.6g}")
for name, reason in metrics.undefined.items():
    print(f"{name:26} {'undefined':>18}: {reason}")
print(result.equity.tail(3))
