"""The messages that a backtest publishes: encoding, batches and compression."""
