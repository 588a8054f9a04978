"""This module hides PyYAML from the brokers under test, as `pandas` beside it does: numba imports it where it is."""

raise ModuleNotFoundError("PyYAML is hidden from the brokers of the tests", name="yaml")
