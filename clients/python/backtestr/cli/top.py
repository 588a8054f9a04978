"""`backtestr top` asks for the broker's status repeatedly, and shows it as `top_view` draws it."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import Annotated

import msgspec
import typer
from rich.live import Live

from backtestr.client import Client
from backtestr_protocol.errors import BacktestrError

from . import top_view
from .console import AsJson, broker, out, print_json

# Seconds for an answer. A broker answers much faster; when it is gone, the screen stands still for so long.
_ANSWER_TIMEOUT = 2.0


def show_top(
    interval: Annotated[float, typer.Option(help="Seconds between two updates.", min=0.1, max=3600.0)] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Show one update, and end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Watch the broker: workers, backtests, topics with their rates and subscribers, clients. Ctrl-C ends it.

    With --json a line of JSON for every update. After a restart of the broker it continues by itself.
    """
    if not (once or as_json or out.is_terminal):
        raise typer.BadParameter("this is no terminal; use --once or --json", param_hint="top")
    with broker(as_json, request_timeout=_ANSWER_TIMEOUT) as client:
        if once:
            sample = _sample(client)
            print_json(top_view.document(None, sample, client.state)) if as_json else out.print(
                top_view.view(None, sample, client.state)
            )
            return
        try:
            _print_lines(client, interval) if as_json else _draw(client, interval)
        except KeyboardInterrupt:  # the usual end
            return


def _sample(client: Client) -> top_view.Sample:
    """Ask for the status and the backtests under way. Raises `BacktestrError`."""
    status = client.status()
    under_way = [*client.list_backtests("running", limit=100), *client.list_backtests("paused", limit=100)]
    return top_view.Sample(status, under_way)


def _print_lines(client: Client, interval: float) -> None:
    earlier: top_view.Sample | None = None
    later: top_view.Sample | None
    while True:
        later = None
        if client.state == "ready":
            with contextlib.suppress(BacktestrError):  # the next sample shows more
                later = _sample(client)
        line = msgspec.json.encode(top_view.document(earlier, later, client.state))
        sys.stdout.write(line.decode() + "\n")
        sys.stdout.flush()
        earlier = later
        time.sleep(interval)


def _draw(client: Client, interval: float) -> None:
    earlier: top_view.Sample | None = None
    later: top_view.Sample | None = None
    with Live(console=out, screen=True, auto_refresh=False) as live:
        while True:
            note = ""
            if client.state == "ready":
                try:
                    earlier, later = later, _sample(client)
                except BacktestrError as error:
                    note = f"no answer: {error}"
            live.update(top_view.view(earlier, later, client.state, note), refresh=True)
            time.sleep(interval)
