"""Shared state in the client: a mapping that follows the broker."""
