"""Market data: bars, panels, timeframes and the catalogue that stores series."""
