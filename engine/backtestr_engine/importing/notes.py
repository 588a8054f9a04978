"""Notes of an import of several series, as few as say the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from backtestr_protocol.import_messages import DroppedRows

from .problems import FIRST_ROWS

MOST_NOTES = 50
"""The most notes about single series: an answer of a thousand series would otherwise have thousands."""


def joined_notes(by_symbol: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the notes of each series: those that all have once, the others with the symbol before them."""
    if len(by_symbol) == 1:
        return [note for notes in by_symbol.values() for note in notes]
    first, *others = by_symbol.values()
    common = [note for note in first if all(note in notes for notes in others)]
    own = [f"{symbol}: {note}" for symbol, notes in by_symbol.items() for note in notes if note not in common]
    return common + shortened(own)


def shortened(notes: Sequence[str]) -> list[str]:
    """Return at most `MOST_NOTES`, and the number of the others."""
    if len(notes) <= MOST_NOTES:
        return list(notes)
    return [*notes[:MOST_NOTES], f"and {len(notes) - MOST_NOTES:,} more of the kind"]


def merge_dropped(of_series: Iterable[Sequence[DroppedRows]]) -> list[DroppedRows]:
    """Return one entry for each reason and column, with the rows of all series."""
    merged: dict[tuple[str, str], DroppedRows] = {}
    for one in (entry for dropped in of_series for entry in dropped):
        key = (one.reason, one.column)
        before = merged.get(key)
        count, first = (0, []) if before is None else (before.count, before.first)
        merged[key] = DroppedRows(
            reason=one.reason,
            column=one.column,
            count=count + one.count,
            first=sorted([*first, *one.first])[:FIRST_ROWS],
        )
    return list(merged.values())
