"""Signals that an algorithm gives on each bar: entries and exits, or targets.

The signals of a bar are one byte of flags, which the simulation reads; the boolean arrays `entries`, `exits`,
`short_entries` and `short_exits` are made from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from backtestr_engine.bit_masks import bits_from, changes, has_bit, lowest_bit, sides_of, without_lowest_bit
from backtestr_engine.compiled import compiled
from backtestr_engine.data.arrays import AnyArray, Booleans, Bytes, Floats, Integers
from backtestr_engine.vectors import BARS_PER_MASK
from backtestr_protocol.errors import AlgorithmError

from .shown_series import checked_shown

ENTRY = 1
EXIT = 2
SHORT_ENTRY = 4
SHORT_EXIT = 8
REPEATED_ENTRY = 16
"""An entry under some conventions only: above, tie, above again. See `Signals.from_cross`."""
REPEATED_SHORT_ENTRY = 32
TIED = 64
"""A cross with a tie on the bar before, which is no cross under a strict convention."""
TARGET = 128
"""The bar has a target."""

LARGEST_LOSS = float(np.nextafter(1.0, 0.0))
"""The largest fraction of a stop loss or trailing stop: at 1 and more the price would have to be 0 or below."""


class Signals(msgspec.Struct, frozen=True, eq=False):
    """Signals of one algorithm, one byte of flags per bar, made with `Signals.of` or `Signals.from_cross`.

    `stop_loss`, `take_profit`, `trailing_stop`: fractions for the position that an entry on the bar opens, one value
    (shape (1,)) or one per bar; NaN leaves it to the option of that name, 0 means none. `limit_price`, `stop_price`:
    the prices of the order that an entry on the bar makes under the option `orderType`. `target`: the position to hold,
    as a signed fraction of equity, one per bar; NaN changes nothing. Signals have targets, or entries and exits.
    `shown` has the series that the algorithm shows by their names, one value per bar; no simulation reads them.
    """

    flags: Bytes
    stop_loss: Floats | None = None
    take_profit: Floats | None = None
    trailing_stop: Floats | None = None
    limit_price: Floats | None = None
    stop_price: Floats | None = None
    target: Floats | None = None
    shown: Mapping[str, Floats] = msgspec.field(default_factory=dict)

    @classmethod
    def of(
        cls,
        entries: AnyArray | None = None,
        exits: AnyArray | None = None,
        short_entries: AnyArray | None = None,
        short_exits: AnyArray | None = None,
        *,
        stop_loss: AnyArray | float | None = None,
        take_profit: AnyArray | float | None = None,
        trailing_stop: AnyArray | float | None = None,
        limit_price: AnyArray | float | None = None,
        stop_price: AnyArray | float | None = None,
        target: AnyArray | None = None,
        show: Mapping[str, AnyArray] | None = None,
    ) -> Signals:
        """Make signals of boolean arrays of one length (bars), or of a target (floats) instead.

        An absent array is False everywhere. Fractions and prices are as in the class. `show` has series to look at by
        their names (`{"atr": atr}`): numbers or booleans, one per bar, which change nothing. Raises `AlgorithmError`
        for an array that is not boolean (floats may hold NaN), for different lengths, for a fraction that is negative
        or infinite, for a target that is infinite, and for series that cannot be shown.
        """
        if target is not None:
            others = (entries, exits, short_entries, short_exits, limit_price, stop_price)
            signals = cls._of_target(target, others, show)
            return signals.protected(stop_loss=stop_loss, take_profit=take_profit, trailing_stop=trailing_stop)
        given = {
            name: (np.asarray(array), flag)
            for name, array, flag in (
                ("entries", entries, ENTRY),
                ("exits", exits, EXIT),
                ("short_entries", short_entries, SHORT_ENTRY),
                ("short_exits", short_exits, SHORT_EXIT),
            )
            if array is not None
        }
        if not given:
            raise AlgorithmError("signals need at least one of entries, exits, short_entries, short_exits, or a target")
        length = len(next(iter(given.values()))[0]) if next(iter(given.values()))[0].ndim else 0
        flags = np.zeros(length, dtype=np.uint8)
        for name, (array, flag) in given.items():
            _check_boolean(name, array, length)
            flags |= array.view(np.uint8) * flag
        signals = cls(
            flags,
            limit_price=_check_fractions("limit_price", limit_price, length),
            stop_price=_check_fractions("stop_price", stop_price, length),
            shown=checked_shown(show, length),
        )
        if stop_loss is take_profit is trailing_stop is None:
            return signals
        return signals.protected(stop_loss=stop_loss, take_profit=take_profit, trailing_stop=trailing_stop)

    @classmethod
    def _of_target(
        cls, target: AnyArray, others: Sequence[AnyArray | float | None], show: Mapping[str, AnyArray] | None
    ) -> Signals:
        if any(other is not None for other in others):
            raise AlgorithmError(
                "a target says all that is to be held: give it without entries, exits, limit_price and stop_price"
            )
        values = np.asarray(target)
        if values.ndim != 1 or values.dtype.kind not in "fiu":
            raise AlgorithmError(
                f"target must be an array of floats, one per bar (0.5: half of equity), not {values.dtype} "
                f"of shape {values.shape}"
            )
        values = np.array(values, dtype=np.float64)  # a copy: kernels are compiled for writable arrays
        if len(wrong := np.flatnonzero(np.isinf(values))):
            raise AlgorithmError(
                f"target must be a finite fraction of equity, or NaN to leave things as they are; bar {wrong[0]} has "
                f"{values[wrong[0]]}",
                bar=int(wrong[0]),
            )
        flags = np.where(np.isnan(values), np.uint8(0), np.uint8(TARGET))
        return cls(flags, target=values, shown=checked_shown(show, len(values)))

    def protected(
        self,
        *,
        stop_loss: AnyArray | float | None = None,
        take_profit: AnyArray | float | None = None,
        trailing_stop: AnyArray | float | None = None,
    ) -> Signals:
        """Return the same signals with these protective exits; raise `AlgorithmError` as `of` does."""
        bars = len(self)
        return Signals(
            self.flags,
            _check_losses("stop_loss", stop_loss, bars),
            _check_fractions("take_profit", take_profit, bars),
            _check_losses("trailing_stop", trailing_stop, bars),
            self.limit_price,
            self.stop_price,
            self.target,
            self.shown,
        )

    @classmethod
    def from_cross(cls, fast: Floats, slow: Floats, *, show: Mapping[str, AnyArray] | None = None) -> Signals:
        """Make signals that are long when `fast` crosses above `slow` and short when it crosses below.

        The lines must have stood strictly the other way round before a cross, so the end of the warm-up makes none. A
        tie keeps the side: above, tie, above is no cross; below, tie, above is one. (The convention `crossTies` can
        change that: vectorbt takes the first for a cross as well, backtesting.py takes neither. Such bars are marked.)
        A NaN on either line clears the side. `show` is as in `of`.
        """
        if fast.shape != slow.shape or fast.ndim != 1:
            raise AlgorithmError(
                f"crossing lines have shapes {fast.shape} and {slow.shape}; both need one value per bar"
            )
        return cls(_cross_flags(_line(fast), _line(slow)), shown=checked_shown(show, len(fast)))

    def __len__(self) -> int:
        return len(self.flags)

    def from_bar(self, first: int) -> Signals:
        """Return the signals of bar `first` and those after it; a value that stands for all bars stays."""
        if not first:
            return self

        def cut(values: Floats | None) -> Floats | None:
            return values if values is None or (len(values) == 1 and len(self) > 1) else values[first:]

        return Signals(
            self.flags[first:],
            cut(self.stop_loss),
            cut(self.take_profit),
            cut(self.trailing_stop),
            cut(self.limit_price),
            cut(self.stop_price),
            cut(self.target),
            {name: values[first:] for name, values in self.shown.items()},
        )

    def _have(self, flag: int) -> Booleans:
        present: Booleans = (self.flags & np.uint8(flag)) != 0
        return present

    @property
    def entries(self) -> Booleans:
        return self._have(ENTRY)

    @property
    def exits(self) -> Booleans:
        return self._have(EXIT)

    @property
    def short_entries(self) -> Booleans:
        return self._have(SHORT_ENTRY)

    @property
    def short_exits(self) -> Booleans:
        return self._have(SHORT_EXIT)


def _check_boolean(name: str, array: AnyArray, length: int) -> None:
    if array.ndim != 1 or len(array) != length:
        raise AlgorithmError(f"{name} has shape {array.shape}; every signal array needs one value per bar ({length})")
    if array.dtype == np.bool_:
        return
    wrong = np.flatnonzero(np.isnan(array)) if array.dtype.kind == "f" else np.empty(0, dtype=np.int64)
    nan = f", with NaN on {len(wrong)} bars (first: {wrong[0]})" if len(wrong) else ""
    raise AlgorithmError(
        f"{name} must be an array of booleans, not of {array.dtype}{nan}; compare to get one: close > average",
        **({"bar": int(wrong[0])} if len(wrong) else {}),
    )


def _check_fractions(name: str, given: AnyArray | float | None, bars: int) -> Floats | None:
    """Return `given` as float64, one value or one per bar; None stays None."""
    if given is None:
        return None
    values = np.atleast_1d(np.asarray(given))
    if values.dtype.kind not in "fiu":
        raise AlgorithmError(f"{name} must be a fraction (0.05 = 5 %) or one per bar, not {values.dtype}")
    if values.ndim != 1 or len(values) not in (1, bars):
        raise AlgorithmError(f"{name} has shape {values.shape}; it needs one value, or one per bar ({bars})")
    wrong = np.flatnonzero((values < 0) | np.isinf(values))
    if len(wrong):
        raise AlgorithmError(
            f"{name} must be a fraction, 0 or more, or NaN for none of its own; bar {wrong[0]} has {values[wrong[0]]}",
            bar=int(wrong[0]),
        )
    return np.ascontiguousarray(values, dtype=np.float64)


def _check_losses(name: str, given: AnyArray | float | None, bars: int) -> Floats | None:
    """Return `given` as `_check_fractions` does; a position cannot lose all of its price and be sold."""
    values = _check_fractions(name, given, bars)
    if values is not None and len(wrong := np.flatnonzero(values > LARGEST_LOSS)):
        at = values[wrong[0]]
        raise AlgorithmError(
            f"{name} is a fraction of the price below 1 (0.02 = 2 %); bar {wrong[0]} has {at:g}"
            + (f": if {at:g} % was meant, give {at / 100:g}" if at < 100 else ""),
            bar=int(wrong[0]),
        )
    return values


def _line(values: Floats) -> Floats:
    """Return the values of a line as compiled loops read them. Raises `AlgorithmError` for what is no number."""
    if values.dtype.kind not in "fiub":
        raise AlgorithmError(f"crossing lines are arrays of numbers, not of {values.dtype}")
    return np.ascontiguousarray(values, dtype=np.float64)


@compiled()
def mark_crosses(fast: Floats, slow: Floats, flags: Bytes, bars: Integers) -> int:
    """Set the flags of the bars on which the lines cross, write these bars to the begin of `bars`, and return how many.

    `flags` is 0 everywhere; it and `bars` have room for all bars. Only where another line is above than on the bar
    before the rules of a cross are looked at.
    """
    count = side = 0
    tied = seen_above = seen_below = False
    was_above = was_below = was_same = np.uint64(0)
    for first in range(0, fast.size, BARS_PER_MASK):
        above, below, same = sides_of(fast, slow, first)
        changed = changes(above, was_above) | changes(below, was_below) | changes(same, was_same)
        changed = bits_from(changed, 0, min(BARS_PER_MASK, fast.size - first))
        was_above, was_below, was_same = above, below, same
        while changed != 0:
            at = lowest_bit(changed)
            changed = without_lowest_bit(changed)
            flag = 0
            if has_bit(above, at):
                if side < 0:
                    flag = ENTRY | SHORT_EXIT | (TIED if tied else 0)
                elif tied and seen_below:
                    flag = REPEATED_ENTRY
                side = 1
                tied = False
                seen_above = True
            elif has_bit(below, at):
                if side > 0:
                    flag = SHORT_ENTRY | EXIT | (TIED if tied else 0)
                elif tied and seen_above:
                    flag = REPEATED_SHORT_ENTRY
                side = -1
                tied = False
                seen_below = True
            elif has_bit(same, at):
                tied = True
            else:
                side = 0
                tied = seen_above = seen_below = False
            if flag != 0:
                flags[first + at] = flag
                bars[count] = first + at
                count += 1
    return count


@compiled()
def _cross_flags(fast: Floats, slow: Floats) -> Bytes:
    """Return the flags of the bars: `mark_crosses` with memory that is made in compiled code, where it takes less."""
    flags = np.zeros(fast.size, dtype=np.uint8)
    mark_crosses(fast, slow, flags, np.empty(fast.size, dtype=np.int64))
    return flags
