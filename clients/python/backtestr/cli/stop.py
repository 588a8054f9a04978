"""`backtestr stop` ends the broker from another terminal, on every system in the same way."""

from __future__ import annotations

import time

import typer

from backtestr.io.connection_file import ConnectionFile

from .console import EXIT_ERROR, AsJson, broker, err, out, print_json

# Seconds that the broker takes at most: its workers get half of them to end by themselves.
_PATIENCE = 10.0
_INTERVAL = 0.05


def stop(as_json: AsJson = False) -> None:
    """Stop the broker for all clients. Backtests that have not ended run again when it is started."""
    with broker(as_json) as client:
        file = ConnectionFile()
        before = file.stamp()
        client.stop_broker()
    deadline = time.monotonic() + _PATIENCE
    while file.stamp() == before:  # it is removed once the workers have ended
        if time.monotonic() > deadline:
            err.print(f"the broker has not ended within {_PATIENCE:g} s; its log says why")
            raise typer.Exit(EXIT_ERROR)
        time.sleep(_INTERVAL)
    print_json({"stopped": True}) if as_json else out.print("the broker has stopped")
