"""`backtestr sweep` and `backtestr sweeps` run sweeps, list and steer them, and print their rows."""

from __future__ import annotations

import json
from typing import Annotated, Any

import polars as pl
import typer
from rich.table import Table

from backtestr.sweep import Sweep, named
from backtestr_protocol.messages import TickPrice
from backtestr_protocol.sweep_messages import SweepAccepted, SweepDetails, SweepMethod, SweepStatus

from .console import EXIT_ERROR, EXIT_INTERRUPTED, AsJson, assignments, broker, err, out, print_json

# The columns that a table shows beside the swept parameters and the objective, if rows have them.
_SHOWN = ("total_return", "max_drawdown", "sharpe_ratio", "total_trades")


def sweep(
    algorithm: Annotated[str, typer.Argument(help="See: backtestr algorithms")],
    symbol: Annotated[list[str], typer.Argument(help="See: backtestr data. Several share the account.")],
    timeframe: Annotated[str, typer.Option(help="Number and unit: 30s 5m 2h 1d 1w 1M.")],
    space: Annotated[
        list[str],
        typer.Option(
            help="One for each parameter: NAME=LOW:HIGH[:STEP], both ends included; NAME=VALUE,VALUE,…; or a "
            "distribution, NAME=LOW..HIGH or NAME=LOW..HIGH:log."
        ),
    ],
    where: Annotated[str | None, typer.Option(help="A constraint, such as 'fast < slow'.")] = None,
    objective: Annotated[str, typer.Option(help="The metric that the best row is best by.")] = "sharpe_ratio",
    minimize: Annotated[bool, typer.Option("--minimize", help="The lowest value is the best.")] = False,
    method: Annotated[
        SweepMethod | None,
        typer.Option(
            help="tpe and cmaes learn from rows; default: grid, and random with --trials.", show_default=False
        ),
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Run so many combinations, not all.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="With every method but grid: which combinations.", min=0)] = 0,
    batch_size: Annotated[
        int | None, typer.Option(help="With tpe and cmaes: trials proposed together; default: 16 and 8.", min=1)
    ] = None,
    param: Annotated[list[str] | None, typer.Option(help="NAME=VALUE, a parameter that is not swept.")] = None,
    start_date: Annotated[str | None, typer.Option("--start", help="ISO 8601, UTC; default: the first bar.")] = None,
    end_date: Annotated[str | None, typer.Option("--end", help="ISO 8601, exclusive; default: all bars.")] = None,
    price: Annotated[TickPrice | None, typer.Option(help="Price of ticks that bars are made of.")] = None,
    warmup: Annotated[
        int | None, typer.Option(min=0, help="Bars before --start for indicators; default: the algorithm's own.")
    ] = None,
    capital: Annotated[float, typer.Option(help="Money to begin with.")] = 100_000.0,
    commission: Annotated[float, typer.Option(help="Fraction of traded value: 0.0005 is 0.05 %.")] = 0.0,
    slippage: Annotated[float, typer.Option(help="Fraction of price, against you.")] = 0.0,
    option: Annotated[list[str] | None, typer.Option(help="NAME=VALUE, a convention such as fillAt=close.")] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="tcp://HOST:PORT of a Dask scheduler whose workers compute; '' for none.")
    ] = None,
    rows: Annotated[int, typer.Option(help="The best rows to print.", min=1)] = 10,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count and estimate, and start nothing.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Print the sweep's id, and do not wait.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a backtest for each combination of parameters, show the progress, and print the best rows.

    Ctrl-C leaves the sweep running; see: backtestr sweeps.
    """
    axes = dict(_axis(one) for one in space)
    config: dict[str, Any] = {
        "start": start_date,
        "end": end_date,
        "price": price,
        "warmup": warmup,
        "capital": capital,
        "commission": commission,
        "slippage": slippage,
        "parameters": assignments(param, "--param"),
        **assignments(option, "--option"),
    }
    asked: dict[str, Any] = {
        "timeframe": timeframe,
        "space": axes,
        "where": where,
        "method": method or ("grid" if trials is None else "random"),
        "trials": trials,
        "batch_size": batch_size,
        "scheduler": scheduler,
    }
    with broker(as_json) as client:
        counted = client.count_sweep(algorithm, symbol, **asked, **config)
        if dry_run:
            print_json(counted) if as_json else print(counted_text(counted))
            return
        err.print(counted_text(counted), markup=False, highlight=False)
        found = client.sweep(
            algorithm,
            symbol,
            **asked,
            seed=seed,
            objective=objective,
            direction="minimize" if minimize else "maximize",
            **config,
        )
        if detach:
            print_json({"sweepId": found.id}) if as_json else print(found.id)
            return
        try:
            status = found.progress()
        except KeyboardInterrupt:
            err.print(f"the sweep goes on; see, or stop it: backtestr sweeps {found.id}", soft_wrap=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None
        _print_rows(found, rows, as_json, status)
        if status.status == "failed":
            raise typer.Exit(EXIT_ERROR)


def sweeps(
    sweep_id: Annotated[str | None, typer.Argument(help="Print the best rows of this sweep.")] = None,
    rows: Annotated[int, typer.Option(help="The best rows to print, or the sweeps to list.", min=1, max=1_000)] = 10,
    pause: Annotated[bool, typer.Option("--pause", help="Pause it.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Let it go on, also after a failure.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="End it early; its rows stay.")] = False,
    delete: Annotated[bool, typer.Option("--delete", help="Delete it with its rows.")] = False,
    run: Annotated[int | None, typer.Option(help="Start the backtest of this row, by its cell.", min=0)] = None,
    as_json: AsJson = False,
) -> None:
    """List the sweeps, the latest first; or print the best rows of one, or steer it."""
    actions = [name for name, given in (("pause", pause), ("resume", resume), ("stop", stop)) if given]
    if sweep_id is None and (actions or delete or run is not None):
        raise typer.BadParameter("name the sweep; see: backtestr sweeps")
    if len(actions) + delete + (run is not None) > 1:
        raise typer.BadParameter("give one of --pause, --resume, --stop, --delete and --run")
    with broker(as_json) as client:
        if sweep_id is None:
            listed = client.list_sweeps(limit=rows)
            print_json(listed) if as_json else out.print(sweeps_table(listed))
            return
        found = client.find_sweep(sweep_id)
        if actions:
            _print_facts({"sweepId": sweep_id, "status": getattr(found, actions[0])()}, as_json)
        elif delete:
            _print_facts({"sweepId": sweep_id, "freedBytes": found.delete()}, as_json)
        elif run is not None:
            _print_facts({"backtestId": found.run(run, watch=()).id}, as_json)
        else:
            _print_rows(found, rows, as_json)


def counted_text(counted: SweepAccepted) -> str:
    """Return what a sweep would run, as a line for people."""
    about = "" if counted.exact else "about "
    of = "" if counted.combinations == counted.cells else f" of {counted.cells:,}"
    notes = "".join(f"; {note}" for note in counted.notes)
    seconds = counted.estimated_ms / 1000
    before = f"; {counted.trials_before:,} were run on these bars before" if counted.trials_before else ""
    run = f"{about}{counted.combinations:,}{of} combinations, some {seconds:,.1f} s ({counted.path_reason})"
    return f"{run}{before}{notes}"


def sweeps_table(listed: list[SweepStatus]) -> Table:
    """Return sweeps as a table."""
    table = Table("sweep", "status", "algorithm", "symbols", "timeframe")
    for name in ("done", "failed", "left", "trials"):
        table.add_column(name, justify="right")
    table.add_column("best")
    for one in listed:
        left = "" if one.time_left_ms is None else f"{one.time_left_ms / 1000:,.0f} s"
        best = "" if one.best is None else f"{one.objective} {one.best.value:.4g} at {named(one.best.parameters)}"
        done, failed = f"{one.done:,} of {one.of:,}", f"{one.failed:,}" if one.failed else ""
        known = (one.sweep_id, one.status, one.algorithm_id, " ".join(one.symbols), one.timeframe)
        table.add_row(*known, done, failed, left, _trials(one), best)
    return table


def _trials(status: SweepStatus) -> str:
    """Return how many combinations were ever run on the bars of a sweep; while it runs, how many were before it."""
    if status.trials_after is not None:
        return f"{status.trials_after:,}"
    return "" if status.trials_before is None else f"{status.trials_before:,} before"


def _print_rows(found: Sweep, rows: int, as_json: bool, status: SweepDetails | None = None) -> None:
    status = status or found.status()
    best = found.best(rows) if status.done > status.failed else pl.DataFrame()
    if as_json:
        print_json({"status": status, "rows": best.to_dicts()})
        return
    parameters = list(status.sweep.space)
    wanted = [*parameters, *dict.fromkeys([status.objective, *_SHOWN])]
    table = Table("row", *[name for name in wanted if name in best.columns], title=f"{status.sweep_id}")
    for row in best.iter_rows(named=True):
        table.add_row(str(row["cell"]), *[_value(row[name]) for name in wanted if name in best.columns])
    out.print(sweeps_table([status]))
    if best.height:
        out.print(table)
    if status.error is not None:
        err.print(status.error.message, markup=False, highlight=False, soft_wrap=True)
    for refused in [] if status.cluster is None else status.cluster.refused:
        err.print(f"no block for {refused}", markup=False, highlight=False, soft_wrap=True)


def _print_facts(facts: dict[str, Any], as_json: bool) -> None:
    print_json(facts) if as_json else print(" ".join(map(str, facts.values())))


def _value(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def _axis(text: str) -> tuple[str, Any]:
    """Read `fast=5:50`, `slow=20:200:5`, `stop=0.5..3`, `kind=a,b` or `fast=5` as a parameter and its values."""
    name, equals, values = text.partition("=")
    if not equals or not name or not values:
        raise typer.BadParameter(
            f"{text!r} is not NAME=LOW:HIGH[:STEP], NAME=LOW..HIGH or NAME=VALUE,VALUE", param_hint="--space"
        )
    if ".." in values:
        return name, _distribution(text, values)
    if ":" not in values:
        return name, [_scalar(one) for one in values.split(",")]
    numbers = [_scalar(one) for one in values.split(":")]
    if len(numbers) not in (2, 3) or any(isinstance(one, str | bool) for one in numbers):
        raise typer.BadParameter(
            f"{text!r} is no range: write NAME=LOW:HIGH or NAME=LOW:HIGH:STEP", param_hint="--space"
        )
    return name, {"low": numbers[0], "high": numbers[1], "step": numbers[2] if len(numbers) == 3 else 1}


def _distribution(text: str, values: str) -> dict[str, Any]:
    """Read `0.5..3` or `0.5..3:log` as a distribution."""
    ends, colon, kind = values.partition(":")
    low, _, high = ends.partition("..")
    numbers = _scalar(low), _scalar(high)
    if (colon and kind != "log") or any(isinstance(one, str | bool) for one in numbers):
        raise typer.BadParameter(
            f"{text!r} is no distribution: write NAME=LOW..HIGH or NAME=LOW..HIGH:log", param_hint="--space"
        )
    return {"low": numbers[0], "high": numbers[1], "distribution": "log_uniform" if colon else "uniform"}


def _scalar(text: str) -> Any:
    try:
        found = json.loads(text)
    except ValueError:
        return text
    return found if isinstance(found, int | float | bool | str) else text
