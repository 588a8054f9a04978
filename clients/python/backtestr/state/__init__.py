"""Shared state as a program sees it: a mapping that follows the broker's."""
