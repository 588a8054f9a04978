"""Ticks: quotes and trades of one symbol as they came, the finer form of prices beside bars.

Ticks are valid wherever they exist: an import validates the rows of a file before it makes ticks of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import polars as pl

from backtestr_protocol.errors import InvalidConfiguration
from backtestr_protocol.messages import TICK, TickPrice

from .arrays import Floats, Integers
from .zones import UTC

FIELDS = ("bid", "ask", "last", "volume")
TICK_COLUMNS = ("timestamp", *FIELDS)

_TIME = pl.Datetime("us", "UTC")


@dataclass(frozen=True, slots=True, eq=False)
class Ticks:
    """Ticks of one symbol, all arrays of equal length and read-only. A column that no tick has is None.

    `timestamp`: int64 microseconds since the Unix epoch UTC, never going back; several ticks may share one, in the
    order in which they came. `bid ask`: float64, finite and positive, bid ≤ ask; there are both or none. `last
    volume`: price and size of a trade, float64, positive and not negative; NaN for a tick that is no trade. There is
    a bid and ask, or a last. `zone`: the IANA name of the zone whose dates bars of days are made of.
    """

    symbol: str
    timestamp: Integers
    bid: Floats | None = None
    ask: Floats | None = None
    last: Floats | None = None
    volume: Floats | None = None
    zone: str = field(default=UTC, kw_only=True)

    def __post_init__(self) -> None:
        if (self.bid is None) != (self.ask is None) or (self.bid is None and self.last is None):
            raise ValueError("ticks have bid and ask, or last, or all three")
        for name in ("timestamp", *self.columns):
            # A view: making it read-only leaves the caller's own array writable.
            column = np.ascontiguousarray(getattr(self, name), np.int64 if name == "timestamp" else np.float64).view()
            if column.ndim != 1 or len(column) != len(self.timestamp):
                raise ValueError(f"{name} has shape {column.shape}, timestamp has {self.timestamp.shape}")
            column.flags.writeable = False
            object.__setattr__(self, name, column)

    def __len__(self) -> int:
        return len(self.timestamp)

    def __getitem__(self, rows: slice) -> Ticks:
        """Return the ticks of a slice without a step, sharing memory."""
        if rows.step not in (None, 1):
            raise ValueError("ticks are sliced without a step")
        return Ticks(
            self.symbol,
            self.timestamp[rows],
            **{name: getattr(self, name)[rows] for name in self.columns},
            zone=self.zone,
        )

    @property
    def timeframe(self) -> Literal["tick"]:
        return TICK

    @property
    def columns(self) -> list[str]:
        """The names of what there is of `bid ask last volume`."""
        return [name for name in FIELDS if getattr(self, name) is not None]

    def copy(self) -> Ticks:
        """Return the same ticks in memory of their own: a slice keeps all ticks in memory."""
        return Ticks(
            self.symbol,
            self.timestamp.copy(),
            **{name: getattr(self, name).copy() for name in self.columns},
            zone=self.zone,
        )

    def to_frame(self) -> pl.DataFrame:
        """Return `timestamp` (datetime[us, UTC]) `bid ask last volume`, null where a tick has none."""
        absent = pl.repeat(None, len(self), dtype=pl.Float64, eager=True)
        columns = {
            name: pl.Series(getattr(self, name)).fill_nan(None) if name in self.columns else absent for name in FIELDS
        }
        return pl.DataFrame({"timestamp": pl.Series(self.timestamp).cast(_TIME), **columns})


def ticks_from_frame(symbol: str, frame: pl.DataFrame, zone: str = UTC) -> Ticks:
    """Invert `Ticks.to_frame`, for a frame known to hold valid ticks; columns that no tick has may be missing."""
    whole = frame.rechunk()
    fields = {name: whole[name].fill_null(np.nan).to_numpy() for name in FIELDS if name in whole.columns}
    return Ticks(symbol, whole["timestamp"].to_physical().to_numpy(), *map(fields.get, FIELDS), zone=zone)


def check_price(symbol: str, columns: Sequence[str], price: TickPrice | None) -> TickPrice:
    """Return the price that bars are made of: `price` if the ticks have it, `mid` or else `last` if it is None.

    `columns` is what the ticks have. Raises `InvalidConfiguration` for a price that they do not have.
    """
    has = [*(("mid", "bid", "ask") if "bid" in columns else ()), *(("last",) if "last" in columns else ())]
    if price is None:
        return "mid" if "bid" in columns else "last"
    if price in has:
        return price
    kind = "quotes without a last price" if "bid" in columns else "trades, which have no bid and ask"
    raise InvalidConfiguration(
        f"the ticks of {symbol} are {kind}: price must be {' or '.join(has)}, not {price}", paths=["$.price"]
    )
