"""The compiled loops that simulate a backtest bar by bar: orders, fills, costs and the account."""
