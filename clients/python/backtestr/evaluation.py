"""Signals of an algorithm, and the series that it shows, as a table without a backtest."""

from __future__ import annotations

import polars as pl

from backtestr_protocol.errors import SerializationError
from backtestr_protocol.evaluation_messages import EvaluateAlgorithm, Evaluation

from .requester import BULK_TIMEOUT, Requester
from .results import read_table


def fetch_evaluation(ask: Requester, request: EvaluateAlgorithm, timeout: float = BULK_TIMEOUT) -> pl.DataFrame:
    """Return the table of an evaluation, a row per bar. Raises `SerializationError` for an answer without one."""
    answer, attachments = ask.with_attachments("EvaluateAlgorithm", request, Evaluation, timeout)
    if len(answer.tables) != 1:
        raise SerializationError(f"an evaluation has one table; {len(answer.tables)} came")
    return read_table(answer.tables[0], attachments)
