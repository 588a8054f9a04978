"""This module hides scipy from the brokers under test, as `pandas` beside it does: numba imports it where it is."""

raise ModuleNotFoundError("scipy is hidden from the brokers of the tests", name="scipy")
