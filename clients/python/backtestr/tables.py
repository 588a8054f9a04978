"""Tables of answers as polars DataFrames: mapped from files of this machine, or made of attachments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import polars as pl

from backtestr.io.table_files import FileUnusable, map_table
from backtestr_protocol.errors import SerializationError
from backtestr_protocol.evaluation_messages import EvaluateAlgorithm, Evaluation
from backtestr_protocol.messages import BacktestResults, GetBacktestResults, GetMarketData, MarketData, TableRef
from backtestr_protocol.sweep_messages import GetSweepResults, SweepResults

from .requester import Requester

Answer = TypeVar("Answer", BacktestResults, MarketData, Evaluation, SweepResults)


def fetch_tables(
    ask: Requester,
    request: GetBacktestResults | GetMarketData | EvaluateAlgorithm | GetSweepResults,
    answer: type[Answer],
    timeout: float,
) -> tuple[Answer, list[pl.DataFrame]]:
    """Send a request, and return its answer with the tables, in the order of `answer.tables`.

    Where the broker is on this machine, large tables are mapped. If one of their files cannot be opened, as when the
    result was deleted meanwhile, the request is sent once more, and the tables are received. Raises what the requester
    raises, and `SerializationError` for a table that is missing or differs from its description.
    """
    kind = type(request).__name__
    directory = ask.tables_directory()
    if directory is not None:
        mapped = msgspec.structs.replace(request, mapped=True)
        found, attachments = ask.with_attachments(kind, mapped, answer, timeout)
        try:
            return found, [read_table(one, attachments, directory) for one in found.tables]
        except FileUnusable:
            pass
    found, attachments = ask.with_attachments(kind, request, answer, timeout)
    return found, [read_table(one, attachments) for one in found.tables]


def read_table(ref: TableRef, attachments: Sequence[bytes], directory: Path | None = None) -> pl.DataFrame:
    """Return the table that `ref` names: of an attachment, or of a file in `directory`.

    Raises `SerializationError` if it is missing or differs from `ref`, and what `map_table` raises.
    """
    if ref.file is not None:
        if directory is None:
            raise SerializationError(f"table {ref.name} is in a file, which was not asked for")
        frame = map_table(directory, ref.file)
    elif ref.frame is None or not 0 <= ref.frame < len(attachments):
        raise SerializationError(f"table {ref.name} is in attachment {ref.frame}; {len(attachments)} came")
    else:
        try:
            frame = pl.read_ipc_stream(attachments[ref.frame])
        except (pl.exceptions.PolarsError, OSError) as error:
            raise SerializationError(f"table {ref.name} is no Arrow IPC stream: {error}") from error
    if frame.height != ref.rows:
        raise SerializationError(f"table {ref.name} has {frame.height} rows; {ref.rows} were announced")
    return frame
