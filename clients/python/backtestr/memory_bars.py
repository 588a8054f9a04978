"""Bars from memory, imported as a file is: a frame of polars, pandas or Arrow, or columns by name.

The frame is written to a private Arrow file of this machine, which the broker imports as any other: with the same
checks, reports and durability, and of any size. The file is removed when the broker has answered.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from backtestr_protocol.import_messages import Imported, ImportMarketData
from backtestr_protocol.messages import Repair

from .requester import BULK_TIMEOUT, Requester

FILE_NAME = "bars-from-memory.arrow"
"""Named in the reports of an import."""

_TIME = "timestamp"


class BarsFromMemory:
    """The part of a client that imports bars which are no file."""

    _ask: Requester

    def import_bars(
        self,
        frame: Any,
        symbol: str,
        timeframe: str | None = None,
        *,
        time_zone: str | None = None,
        repair: Repair | None = None,
        timeout: float = BULK_TIMEOUT,
    ) -> Imported:
        """Have the broker store the bars of `frame` as `symbol`, in place of what it has of that timeframe.

        `frame` is a polars or pandas frame, an Arrow table, or columns by name. It has a column of times, or in pandas
        an index of them, and open, high, low and close, with volume or without, under the names that files have.
        Times without a zone are UTC, or of `time_zone`. `timeframe` None means the spacing of the bars. The rest is as
        in `import_market_data`. The broker is on this machine. Raises `TypeError` for another frame, and `DataError`
        for rows that are no bars.
        """
        table = table_of(frame)
        with tempfile.TemporaryDirectory(prefix="backtestr-") as folder:  # readable by this user alone
            path = Path(folder).resolve() / FILE_NAME
            table.write_ipc(path, compression="uncompressed")
            request = ImportMarketData(
                path=str(path), symbol=symbol, timeframe=timeframe, time_zone=time_zone, repair=repair
            )
            return self._ask("ImportMarketData", request, Imported, timeout)


def table_of(frame: Any) -> pl.DataFrame:
    """Return a frame of any library as polars has it. Raises `TypeError` for what is no frame."""
    if isinstance(frame, pl.LazyFrame):
        return frame.collect()
    if isinstance(frame, pl.DataFrame):
        return frame
    if isinstance(frame, Mapping):
        return pl.DataFrame(dict(frame))
    if hasattr(frame, "index") and hasattr(frame, "columns") and hasattr(frame, "to_numpy"):
        return _of_pandas(frame)
    if hasattr(frame, "__arrow_c_stream__"):
        return pl.DataFrame(frame)
    raise TypeError(
        f"bars come as a polars or pandas frame, an Arrow table, or columns by name, not as {type(frame).__name__}"
    )


def _of_pandas(frame: Any) -> pl.DataFrame:
    """Return a pandas frame, with its index as the first column if it has times; pyarrow is not needed."""
    columns: dict[str, pl.Series] = {}
    if hasattr(frame.index, "tz"):
        columns[str(frame.index.name or _TIME)] = _series(frame.index)
    for position, name in enumerate(_names(frame)):
        columns[name] = _series(frame.iloc[:, position])
    return pl.DataFrame(columns)


def _names(frame: Any) -> list[str]:
    """Return the names of the columns. Those of several levels, as yfinance gives them, are named by the prices."""
    if getattr(frame.columns, "nlevels", 1) == 1:
        return [str(name) for name in frame.columns]
    for level in range(frame.columns.nlevels):
        names = [str(name) for name in frame.columns.get_level_values(level)]
        if "close" in {name.casefold() for name in names}:
            if len(set(names)) == len(names):
                return names
            others = sorted({str(one) for one in frame.columns.get_level_values(1 - level)}) if level < 2 else []
            raise TypeError(f"the frame has several symbols ({', '.join(others[:10])}): import each by itself")
    raise TypeError("the frame has columns of several levels, and none of them names a close")


def _series(values: Any) -> pl.Series:
    """Return a column or index of pandas; times with a zone keep their instants."""
    accessor = getattr(values, "dt", values)
    if getattr(accessor, "tz", None) is not None:
        naive = accessor.tz_convert("UTC")
        naive = naive.dt.tz_localize(None) if hasattr(naive, "dt") else naive.tz_localize(None)
        return pl.Series(_finer(naive.to_numpy())).dt.replace_time_zone("UTC")
    array = _finer(values.to_numpy())
    return pl.Series([str(one) for one in array]) if array.dtype == object and _is_text(array) else pl.Series(array)


def _is_text(array: Any) -> bool:
    return all(isinstance(one, str) for one in array[:100])


def _finer(array: Any) -> Any:
    """Return times in seconds, which polars does not have, as milliseconds, and all else as it is."""
    return array.astype("datetime64[ms]") if array.dtype == "datetime64[s]" else array
