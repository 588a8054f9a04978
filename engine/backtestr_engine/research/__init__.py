"""Methods that judge a result by many backtests: walk-forward and Monte Carlo."""
