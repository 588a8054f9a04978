"""`backtestr data` lists, shows, resamples, exports and deletes stored series."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import polars as pl
import typer

from backtestr_protocol.messages import TICK, IndicatorConfig, Keep, TickPrice

from . import rendering
from .console import AsJson, assignments, broker, err, out, print_json
from .export import FORMATS, write_bars, write_pages

data_app = typer.Typer(
    invoke_without_command=True, help="List the stored series; or show, resample, export or delete one."
)

Symbol = Annotated[str, typer.Argument(help="See: backtestr data")]
Timeframe = Annotated[str, typer.Argument(help="Number and unit: 30s 5m 2h 1d 1w 1M; or tick.")]
Price = Annotated[TickPrice | None, typer.Option(help="Price of ticks to make the bars of; default: mid, or last.")]
Count = Annotated[int, typer.Option("-n", help="How many bars.", min=1)]
Indicators = Annotated[
    list[str] | None,
    typer.Option(
        "--indicator",
        help="TA-Lib's NAME, or NAME:parameter=value,…; as=column+column names its outputs. May be repeated.",
    ),
]
Start = Annotated[str | None, typer.Option("--start", help="ISO 8601, UTC; default: the first bar.")]
End = Annotated[str | None, typer.Option("--end", help="ISO 8601, exclusive; default: all bars.")]


@data_app.callback()
def list_series(context: typer.Context, as_json: AsJson = False) -> None:
    """List the stored series."""
    if context.invoked_subcommand is not None:
        return
    with broker(as_json) as client:
        answer = client.list_market_data()
        print_json(answer) if as_json else out.print(rendering.series_table(answer))


@data_app.command()
def show(symbol: Symbol, timeframe: Timeframe, price: Price = None, as_json: AsJson = False) -> None:
    """Show range, prices and gaps of a series."""
    with broker(as_json) as client:
        answer = client.describe_market_data(symbol, timeframe, price=price)
        print_json(answer) if as_json else out.print(rendering.facts_table(answer))


@data_app.command()
def head(
    symbol: Symbol,
    timeframe: Timeframe,
    count: Count = 10,
    indicator: Indicators = None,
    start: Start = None,
    price: Price = None,
    as_json: AsJson = False,
) -> None:
    """Show the first bars or ticks of a series, or those from a time on."""
    _print_bars(symbol, timeframe, count, indicator, as_json, keep="first", start=start, price=price)


@data_app.command()
def tail(
    symbol: Symbol,
    timeframe: Timeframe,
    count: Count = 10,
    indicator: Indicators = None,
    end: End = None,
    price: Price = None,
    as_json: AsJson = False,
) -> None:
    """Show the last bars or ticks of a series, or those before a time."""
    _print_bars(symbol, timeframe, count, indicator, as_json, keep="last", end=end, price=price)


@data_app.command()
def resample(
    symbol: Symbol,
    from_timeframe: Annotated[str, typer.Argument(metavar="FROM", help="A stored timeframe, or tick.")],
    to_timeframe: Annotated[str, typer.Argument(metavar="TO", help="The timeframe to make of it and to store.")],
    price: Price = None,
    as_json: AsJson = False,
) -> None:
    """Resample a stored series to a longer timeframe, or make bars of ticks, and store the result."""
    with broker(as_json) as client:
        answer = client.resample_market_data(symbol, from_timeframe, to_timeframe, price=price)
        print_json(answer) if as_json else out.print(rendering.stored_table(answer))


@data_app.command()
def export(
    symbol: Symbol,
    timeframe: Timeframe,
    file: Annotated[Path, typer.Argument(help="Ends in .csv, .parquet or .arrow; an existing file is replaced.")],
    start: Start = None,
    end: End = None,
    price: Price = None,
    as_json: AsJson = False,
) -> None:
    """Write bars or ticks to a file that `backtestr import` reads back unchanged."""
    if file.suffix not in FORMATS:
        raise typer.BadParameter(f"{file.name} does not end in {', '.join(FORMATS)}", param_hint="FILE")
    with broker(as_json) as client, err.status(f"exporting to {file.name}"):
        try:
            if timeframe == TICK and price is None:
                count = write_pages(client.ticks(symbol, start=start, end=end), file)
            else:
                count = write_bars(client.market_data(symbol, timeframe, start=start, end=end, price=price), file)
        except OSError as error:
            raise typer.BadParameter(f"{file} cannot be written: {error.strerror}", param_hint="FILE") from None
    facts = {"file": str(file.resolve()), "symbol": symbol, "timeframe": timeframe, "bars": count}
    unit = "ticks" if timeframe == TICK else "bars"
    print_json(facts) if as_json else print(f"{count:,} {unit} written to {file}")


@data_app.command()
def delete(
    symbol: Symbol,
    timeframe: Annotated[str | None, typer.Argument(help="Default: every timeframe of the symbol.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete a series, or all series of a symbol."""
    with broker(as_json) as client:
        of_symbol = [one for one in client.list_market_data() if one.symbol == symbol]
        named = [one for one in of_symbol if timeframe in (None, one.timeframe)]
        if named and not yes:
            listing = ", ".join(
                f"{one.timeframe} ({one.bars:,} {'ticks' if one.timeframe == TICK else 'bars'})" for one in named
            )
            typer.confirm(f"delete {symbol} {listing}?", abort=True, err=True)
        answer = client.delete_market_data(symbol, timeframe)
        deleted = {"symbol": symbol, "timeframes": answer}
        print_json(deleted) if as_json else print(f"deleted {symbol} {', '.join(answer)}")


def _print_bars(
    symbol: str,
    timeframe: str,
    count: int,
    indicator: list[str] | None,
    as_json: bool,
    *,
    keep: Keep,
    start: str | None = None,
    end: str | None = None,
    price: TickPrice | None = None,
) -> None:
    indicators = [_indicator(one) for one in indicator or []]
    with broker(as_json) as client:
        bars = client.market_data(
            symbol, timeframe, start=start, end=end, limit=count, keep=keep, price=price, indicators=indicators
        )
    if as_json:
        rows = bars.with_columns(pl.col("timestamp").dt.epoch("ms")).to_dicts()
        print_json({"symbol": symbol, "timeframe": timeframe, "bars": rows})
    else:
        out.print(rendering.bars_table(bars))


def _indicator(text: str) -> IndicatorConfig:
    """Read `BBANDS:timeperiod=20,nbdevup=2.5,as=upper+middle+lower` as an indicator."""
    name, _, settings = text.partition(":")
    parameters = assignments(settings.split(",") if settings else [], "--indicator")
    outputs = str(parameters.pop("as", ""))
    return IndicatorConfig(name=name, parameters=parameters, output_names=outputs.split("+") if outputs else [])
