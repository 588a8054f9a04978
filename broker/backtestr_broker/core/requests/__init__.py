"""The request types: one method for each, found in one table."""
