"""Algorithms as their authors see them: parameters, signals and weights."""
