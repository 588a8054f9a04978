"""Methods that judge a result from many backtests: walk-forward and Monte Carlo."""
