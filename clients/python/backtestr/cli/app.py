"""The commands of `backtestr`, as far as they are not in a module of their own.

What they print for people is drawn in `rendering`; `--json` prints the protocol's structs instead.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
import typer

from backtestr.client import Client
from backtestr.run import Run
from backtestr_protocol import __version__, errors
from backtestr_protocol.build import BUILD
from backtestr_protocol.import_messages import DateOrder, DecimalMark, TimeUnit
from backtestr_protocol.inspection import CheckedFile, IndicatorList, ReplayedLog
from backtestr_protocol.messages import Repair, TickPrice
from backtestr_protocol.system.programs import run_in_place

from . import rendering
from .console import (
    EXIT_ERROR,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    AsJson,
    assignments,
    broker,
    err,
    out,
    print_json,
)
from .data import data_app
from .keys import keys_app
from .metrics_command import metrics
from .replays import replay, replays
from .results_command import print_results, results
from .stop import stop
from .sweep_commands import sweep, sweeps
from .top import show_top
from .trials_command import trials
from .ui_command import ui

app = typer.Typer(
    name="backtestr",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,
    rich_markup_mode=None,
    help="Run backtests on the broker of this machine.\n\n"
    "With --json a command prints JSON on standard output, as the protocol names things, and nothing else there.\n\n"
    "Exit codes: 0 done; 1 the broker refused, or the backtest failed; 2 wrong usage; 3 no broker answers; "
    "130 interrupted.",
)
app.add_typer(data_app, name="data")
app.add_typer(keys_app, name="keys")
app.command()(replay)
app.command()(replays)
app.command()(results)
app.command()(stop)
app.command()(sweep)
app.command()(sweeps)
app.command()(trials)
app.command()(metrics)
app.command("top")(show_top)
app.command()(ui)

T = TypeVar("T")


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"backtestr {__version__} ({BUILD})")
        raise typer.Exit


@app.command("run", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run_broker(context: typer.Context) -> None:
    """Start the broker and its workers here; Ctrl-C stops them. Arguments are passed on to the broker."""
    _need("the broker", "filelock", "structlog", "psutil", "prometheus_client", "numba", "talib")
    raise SystemExit(run_in_place([sys.executable, "-m", "backtestr_broker", *context.args]))


@app.command()
def status(as_json: AsJson = False) -> None:
    """Show the health of the broker and its workers."""
    with broker(as_json) as client:
        answer = client.status()
        print_json(answer) if as_json else out.print(rendering.status_table(answer))


@app.command("import")
def import_file(
    file: Annotated[Path, typer.Argument(help="Bars or ticks: CSV and the exports it comes in, Parquet or Arrow.")],
    symbol: Annotated[
        str | None,
        typer.Option(help="The name to store the bars or ticks under; with --symbol-column, the symbol to import."),
    ] = None,
    timeframe: Annotated[
        str | None,
        typer.Option(help="1m 5m 15m 30m 1h 4h 1d 1w; default: the spacing of the bars; ticks are kept as ticks."),
    ] = None,
    tz: Annotated[str | None, typer.Option(help="Time zone of times without offset, such as America/New_York.")] = None,
    format: Annotated[
        str | None,
        typer.Option(
            help="arrow binance csv dukascopy histdata mt4 mt5 nasdaq parquet yahoo; default: as the content."
        ),
    ] = None,
    price: Annotated[TickPrice | None, typer.Option(help="Price of ticks that bars are made of.")] = None,
    repair: Annotated[Repair | None, typer.Option(help="Leave out the rows that cannot be used.")] = None,
    time_unit: Annotated[
        TimeUnit | None, typer.Option(help="Unit of times that count from 1970; default: as all rows show.")
    ] = None,
    date_order: Annotated[
        DateOrder | None, typer.Option(help="Order in dates such as 03/04/2024; default: as all dates show.")
    ] = None,
    decimal: Annotated[
        DecimalMark | None, typer.Option(help="Decimal mark of numbers such as 1,234; default: as all numbers show.")
    ] = None,
    symbol_column: Annotated[
        str | None, typer.Option(help="Column of the symbols, in a file of several: each becomes a series.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Store the bars or ticks of a file."""
    if not file.exists():
        raise typer.BadParameter(f"there is no file {file}", param_hint="FILE")
    if symbol is None and symbol_column is None:
        raise typer.BadParameter(
            "name the series, or the column that names each: --symbol-column", param_hint="--symbol"
        )
    with broker(as_json) as client, err.status(f"importing {file.name}"):
        answer = client.import_market_data(
            file,
            symbol,
            timeframe=timeframe,
            time_zone=tz,
            format=format,
            price=price,
            repair=repair,
            time_unit=time_unit,
            date_order=date_order,
            decimal=decimal,
            symbol_column=symbol_column,
        )
        print_json(answer) if as_json else out.print(rendering.imported_table(answer))


@app.command()
def algorithms(as_json: AsJson = False) -> None:
    """List the algorithms that can be run, with their parameters, and the files that are not loaded."""
    with broker(as_json) as client:
        answer, problems = client.list_algorithms(), client.algorithm_problems()
        print_json(answer) if as_json else out.print(rendering.algorithms_table(answer))
        if problems:
            err.print(rendering.problems_table(problems))


@app.command()
def register(
    file: Annotated[Path, typer.Argument(help="A Python file with an @algorithm function.")],
    name: Annotated[str | None, typer.Option(help="Which of its algorithms; default: the only one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Have the broker keep an algorithm, and print whether it looks ahead. One that does is kept all the same."""
    if not file.is_file():
        raise typer.BadParameter(f"there is no file {file}", param_hint="FILE")
    with broker(as_json) as client, err.status(f"registering {file.name}"):
        answer = client.register_algorithm(file, name)
        print_json(answer) if as_json else out.print(rendering.registered_table(answer))


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="A Python file with @algorithm functions.")], as_json: AsJson = False
) -> None:
    """Check algorithms for look-ahead; no broker is needed. Exit code 1 when one fails."""
    if not file.exists():
        raise typer.BadParameter(f"there is no file {file}", param_hint="FILE")
    answer = _ask("engine", CheckedFile, "--check", str(file))
    print_json(answer) if as_json else out.print(rendering.checked_file(answer))
    if not answer.passed:
        raise typer.Exit(EXIT_ERROR)


@app.command()
def indicators(as_json: AsJson = False) -> None:
    """List the indicators, with parameters and outputs; no broker is needed."""
    answer = _ask("engine", IndicatorList, "--indicators").indicators
    print_json(answer) if as_json else out.print(rendering.indicators_table(answer))


@app.command()
def backtests(
    limit: Annotated[int, typer.Option(help="How many, the latest first.", min=1)] = 20, as_json: AsJson = False
) -> None:
    """List the backtests."""
    with broker(as_json) as client:
        answer = client.list_backtests(limit=limit)
        print_json(answer) if as_json else out.print(rendering.backtests_table(answer))


@app.command()
def backtest(
    algorithm: Annotated[str, typer.Argument(help="See: backtestr algorithms")],
    symbol: Annotated[list[str], typer.Argument(help="See: backtestr data. Several share the account.")],
    timeframe: Annotated[str, typer.Option(help="Number and unit: 30s 5m 2h 1d 1w 1M.")],
    param: Annotated[list[str] | None, typer.Option(help="NAME=VALUE, a parameter of the algorithm.")] = None,
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
    preset: Annotated[str | None, typer.Option(help="Conventions of another system, such as vectorbt.")] = None,
    pace: Annotated[float | None, typer.Option(help="Bars a second, to watch it; default: full speed.")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Print the backtest's id, and do not wait.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a backtest, show its progress, and print its metrics.

    Ctrl-C stops the backtest; the bars that were simulated until then keep their results.
    """
    options = assignments(option, "--option") | ({"preset": preset} if preset else {})
    options |= {} if pace is None else {"pace": pace}
    parameters = assignments(param, "--param")
    backtest_id = str(uuid.uuid4())

    def start(client: Client) -> Run:
        return client.backtest(
            algorithm,
            symbol,
            timeframe=timeframe,
            start=start_date,
            end=end_date,
            price=price,
            capital=capital,
            commission=commission,
            slippage=slippage,
            parameters=parameters,
            warmup=warmup,
            backtest_id=backtest_id,
            watch=() if detach else ("progress",),
            **options,
        )

    with broker(as_json) as client:
        if detach:
            start(client)
            print_json({"backtestId": backtest_id}) if as_json else print(backtest_id)
            return
        try:
            _watch(start(client), f"{algorithm} {' '.join(symbol)} {timeframe}")
            interrupted = False
        except KeyboardInterrupt:
            _stop(client, backtest_id)
            interrupted = True
        print_results(client.run(backtest_id).result(), as_json)
        if interrupted:
            raise typer.Exit(EXIT_INTERRUPTED)


@app.command("replay-log")
def replay_log(
    file: Annotated[
        Path, typer.Argument(help="A recording: its folder in <data directory>/recordings, or a file of it.")
    ],
    job: Annotated[str | None, typer.Option(help="Show the timeline of this backtest.")] = None,
    session: Annotated[str | None, typer.Option(help="Show the timeline of this session.")] = None,
    client: Annotated[str | None, typer.Option(help="Show the timeline of this client, by its clientId.")] = None,
    topic: Annotated[str | None, typer.Option(help="Show the timeline of this topic.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Show every fact, event by event.")] = False,
    as_json: AsJson = False,
) -> None:
    """Play back what the broker's recorder wrote, and show what happened; no broker is needed.

    Exit code 1 when the broker's state contradicts itself, or the recording has nothing about what you ask for.
    """
    named = {"--job": job, "--session": session, "--client": client, "--topic": topic}
    subject = [word for option, name in named.items() if name is not None for word in (option, name)]
    if everything:
        subject.append("--all")
    if len(subject) > 2 or (everything and len(subject) > 1):
        raise typer.BadParameter("name one of --job, --session, --client, --topic and --all")
    answer = _ask("broker", ReplayedLog, "--replay-log", str(file), *subject)
    print_json(answer) if as_json else out.print(rendering.replayed_log(answer), soft_wrap=True)
    if answer.contradiction is not None or not answer.found:
        raise typer.Exit(EXIT_ERROR)


# --- within -------------------------------------------------------------------------------------------------------


def _need(program: str, *modules: str) -> None:
    """Exit with the command that installs them, if a module that `program` needs is missing."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        err.print(f"{program} needs {', '.join(missing)}; install it with: pip install 'backtestr[broker,engine]'")
        raise typer.Exit(EXIT_ERROR)


def _ask(program: Literal["engine", "broker"], answer: type[T], *arguments: str) -> T:
    """Return the answer of the engine or the broker, run in a process of its own.

    An algorithm is the code of others, and a recording may be long.
    """
    _need(
        f"the {program}",
        "filelock",
        "structlog",
        "psutil",
        *(("numba", "talib") if program == "engine" else ("msgpack",)),
    )
    command = [sys.executable, "-m", f"backtestr_{program}", *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
    if done.returncode == EXIT_USAGE:  # it has printed what is wrong
        raise typer.Exit(EXIT_USAGE)
    try:
        return msgspec.json.decode(done.stdout, type=answer)
    except msgspec.DecodeError:
        err.print(f"the {program} ended with code {done.returncode} and without an answer", markup=False)
        raise typer.Exit(EXIT_ERROR) from None


def _watch(run: Run, title: str) -> None:
    """Show the progress bar up to the end of the backtest."""
    with rendering.LiveBar(err, title) as bar:
        for progress in run.progress():
            bar.show(progress.progress_percent, progress.equity_curve_point.equity, progress.orders_executed)
    run.wait()


def _stop(client: Client, backtest_id: str) -> None:
    """Stop a backtest in any status."""
    try:
        client.stop(backtest_id)
    except errors.NotFound:  # Ctrl-C came before the broker had accepted the backtest
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except errors.StateConflict:  # it ended at the same moment
        pass
    ended = client.backtest_status(backtest_id)
    where = f"{ended.status} at {ended.progress_percent:.0f} %"
    err.print(f"{where}; to see it again: backtestr results {backtest_id}", soft_wrap=True)
