"""Warnings of a result about its orders: what a reader of the figures must know of orders that were not as asked."""

from __future__ import annotations

from backtestr_engine.data.arrays import Records
from backtestr_engine.simulation.records import LIQUIDATED, NO_NEXT_BAR, REASONS, rejections_of, tally


def order_warnings(orders: Records, final_equity: float) -> list[str]:
    """Return a sentence each about rejected orders, liquidations and a debt at the end; `orders` has each order once.

    A signal on the last bar has no next one to be filled at: that is counted, and no cause for a warning.
    """
    sentences = []
    counts = tally(orders)
    rejected = {reason: count for reason, count in rejections_of(counts).items() if reason != REASONS[NO_NEXT_BAR]}
    if rejected:
        reasons = ", ".join(f"{reason} ({count:,})" for reason, count in rejected.items())
        sentences.append(f"{sum(rejected.values()):,} of {len(orders):,} orders were rejected: {reasons}")
    liquidated = int(counts[:, LIQUIDATED].sum())
    if liquidated:
        positions = "1 position was" if liquidated == 1 else f"{liquidated:,} positions were"
        sentences.append(f"{positions} liquidated: the account was down to its maintenance margin")
    if final_equity < 0.0:
        sentences.append(f"the account ended with a debt of {-final_equity:,.2f}")
    return sentences
