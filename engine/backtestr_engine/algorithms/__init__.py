"""Algorithms: their declaration, parameters, signals and weights."""
