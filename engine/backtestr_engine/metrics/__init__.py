"""The metrics of a backtest, computed from its equity curve and trades."""
