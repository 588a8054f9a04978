"""Signals of an algorithm, and the series that it shows, as a table without a backtest."""

from __future__ import annotations

import polars as pl

from backtestr_protocol.errors import SerializationError
from backtestr_protocol.evaluation_messages import EvaluateAlgorithm, Evaluation

from .requester import BULK_TIMEOUT, Requester
from .tables import fetch_tables


def fetch_evaluation(ask: Requester, request: EvaluateAlgorithm, timeout: float = BULK_TIMEOUT) -> pl.DataFrame:
    """Return the table of an evaluation, a row per bar. Raises `SerializationError` for an answer without one."""
    answer, frames = fetch_tables(ask, request, Evaluation, timeout)
    if len(frames) != 1:
        raise SerializationError(f"an evaluation has one table; {len(answer.tables)} came")
    return frames[0]
