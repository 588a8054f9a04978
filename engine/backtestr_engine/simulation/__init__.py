"""Fills, costs, orders and accounts: the compiled loops that simulate a backtest bar by bar."""
