"""`backtestr metrics` prints the definition of every metric: formula, unit and source. It needs no broker."""

from __future__ import annotations

from itertools import groupby
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from backtestr_protocol.errors import did_you_mean
from backtestr_protocol.metric_definitions import MetricDefinition, metric_definitions, symbols_text

from .console import AsJson, out, print_json


def metrics(
    name: Annotated[str | None, typer.Argument(help="A metric, such as sharpe_ratio; default: all of them.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the definition of every metric, or of one: formula, unit and source."""
    definitions = metric_definitions()
    if name is not None:
        definitions = [one for one in definitions if name in (one.name, one.wire_name)]
        if not definitions:
            known = [one.name for one in metric_definitions()]
            raise typer.BadParameter(f"there is no metric {name!r}{did_you_mean(name, known)} (see: backtestr metrics)")
    if as_json:
        print_json(definitions)
        return
    out.print(symbols_text(), markup=False)
    for group, of_group in groupby(definitions, key=lambda one: one.group):
        out.print(_table(group, list(of_group)))


def _table(group: str, definitions: list[MetricDefinition]) -> Table:
    table = Table("metric", "unit", "formula", "source", title=group.capitalize(), title_justify="left")
    for one in definitions:
        other = f" Under daily_geometric: {one.daily_geometric}" if one.daily_geometric else ""
        table.add_row(one.name, one.unit, escape(one.formula + other), escape(one.source))
    return table
