"""One backtest from its configuration to its stored result."""
