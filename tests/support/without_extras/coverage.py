"""This module hides coverage from the brokers under test, as `pandas` beside it does: numba imports it where it is."""

raise ModuleNotFoundError("coverage is hidden from the brokers of the tests", name="coverage")
