"""`backtestr replay` and `backtestr replays` run and list price replays; `replay-log` plays back a recording."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import msgspec
import typer

from backtestr.replay import PriceReplay, Rate
from backtestr_protocol.messages import TICK, TickPrice

from . import rendering
from .console import EXIT_INTERRUPTED, AsJson, broker, err, out, print_json


def replay(
    symbol: Annotated[str, typer.Argument(help="See: backtestr data")],
    timeframe: Annotated[str, typer.Option(help="Number and unit: 30s 5m 2h 1d 1w 1M; or tick.")],
    speed: Annotated[float | None, typer.Option(help="Times real time; gaps are skipped.")] = None,
    bars_per_second: Annotated[float | None, typer.Option(help="Bars, or ticks, a second.")] = None,
    as_fast_as_read: Annotated[bool, typer.Option("--as-fast-as-read", help="As fast as they are printed.")] = False,
    start: Annotated[str | None, typer.Option("--start", help="ISO 8601, UTC; default: the first bar.")] = None,
    end: Annotated[str | None, typer.Option("--end", help="ISO 8601, exclusive; default: all bars.")] = None,
    price: Annotated[TickPrice | None, typer.Option(help="Price of ticks to make the bars of.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print each price as a line of JSON.")] = False,
) -> None:
    """Publish stored bars or ticks as prices, at a rate, and print them: time, (bid, ask,) last, volume.

    Ctrl-C stops the price replay.
    """
    rate: Rate = {"bars_per_second": bars_per_second, "speed": speed, "as_fast_as_read": as_fast_as_read}
    if (bars_per_second is not None) + (speed is not None) + as_fast_as_read != 1:
        raise typer.BadParameter("give one of --speed, --bars-per-second and --as-fast-as-read")
    with (
        broker(False) as client,
        client.replay(symbol, timeframe, start=start, end=end, price=price, **rate) as running,
    ):
        try:
            _print(running, as_json)
        except KeyboardInterrupt:
            running.stop()
            status = running.status()
            unit = "ticks" if timeframe == TICK else "bars"
            err.print(f"{status.status} at {status.position:,} of {status.bars:,} {unit}", soft_wrap=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except BrokenPipeError:  # the reading program has read enough, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print(running: PriceReplay, as_json: bool) -> None:
    for price in running:
        line = msgspec.json.encode(price).decode() if as_json else rendering.price_line(price)
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def replays(
    stop: Annotated[str | None, typer.Option(help="Stop this price replay first; it may be of any client.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the price replays that run, and the latest that have ended."""
    with broker(as_json) as client:
        if stop is not None:
            client.stop_replay(stop)
        answer = client.list_replays()
        print_json(answer) if as_json else out.print(rendering.replays_table(answer))
