"""`backtestr trials` prints how many combinations were ever run, by algorithm and by the bars that they were run on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.table import Table

from backtestr_protocol.trial_messages import LISTED_GROUPS, MAX_GROUPS, TrialGroup

from .console import AsJson, broker, out, print_json

# Symbols that a row shows; more are counted.
_SHOWN = 3


def trials(
    algorithm: Annotated[str | None, typer.Argument(help="Of this algorithm only; see: backtestr algorithms")] = None,
    symbol: Annotated[str | None, typer.Argument(help="On this symbol only; see: backtestr data")] = None,
    timeframe: Annotated[str | None, typer.Option(help="Number and unit: 30s 5m 2h 1d 1w 1M.")] = None,
    group: Annotated[str | None, typer.Option(help="The trialGroup of a result or a sweep.")] = None,
    limit: Annotated[
        int, typer.Option(help="How many groups, the latest first.", min=1, max=MAX_GROUPS)
    ] = LISTED_GROUPS,
    as_json: AsJson = False,
) -> None:
    """Count the combinations that this broker has ever run, in sweeps and single backtests, each once.

    They are counted by algorithm and by the bars that were tested. Nothing lowers the numbers: deleted sweeps count on.
    """
    with broker(as_json) as client:
        found = client.trials(algorithm, symbol, timeframe, group=group, limit=limit)
        print_json(found) if as_json else out.print(trials_table(found))


def trials_table(groups: Sequence[TrialGroup]) -> Table:
    """Return groups of trials as a table."""
    table = Table("algorithm", "symbols", "timeframe", "from", "to")
    for name in ("bars", "trials", "runs"):
        table.add_column(name, justify="right")
    table.add_column("last run")
    for one in groups:
        more = len(one.symbols) - _SHOWN
        symbols = " ".join(one.symbols[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
        table.add_row(
            one.algorithm,
            symbols,
            one.timeframe,
            _day(one.start_time),
            _day(one.end_time),
            f"{one.bars:,}",
            f"{one.trials:,}",
            f"{one.runs:,}",
            f"{_time(one.last_time):%Y-%m-%d %H:%M}",
        )
    return table


def _day(wall_ms: int) -> str:
    """Return a date alone where the time is midnight UTC."""
    time = _time(wall_ms)
    return f"{time:%Y-%m-%d}" if not wall_ms % 86_400_000 else f"{time:%Y-%m-%d %H:%M}"


def _time(wall_ms: int) -> datetime:
    return datetime.fromtimestamp(wall_ms / 1000, UTC)
