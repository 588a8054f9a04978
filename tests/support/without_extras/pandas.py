"""This module stands before pandas on the path of a broker under test, and hides it (`support/harness.py`)."""

raise ModuleNotFoundError("pandas is hidden from the brokers of the tests", name="pandas")
