"""The command line in this process, connected to a scripted broker."""

from __future__ import annotations

import json
from typing import Any

from typer.testing import CliRunner, Result

from backtestr.cli.app import app

from .peer import Peer


def type_in(peer: Peer, *words: str, keys: str | None = None) -> Result:
    """Run a command as if it were typed; `keys` is what is typed while it runs."""
    return CliRunner().invoke(app, list(words), input=keys, env={"BACKTESTR_CONNECTION_FILE": str(peer.file)})


def read_json(result: Result) -> Any:
    """Return the JSON that a command has printed; it must have succeeded."""
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def asked(peer: Peer, request_type: str) -> list[Any]:
    """Return the data of all requests of a type."""
    return [data for kind, _, data in peer.asked if kind == request_type]
