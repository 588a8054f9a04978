"""The parts that all commands share: the two outputs, a client, and errors as lines."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from typing import Annotated, Any, TextIO

import msgspec
import typer
from rich.console import Console

from backtestr.client import Client
from backtestr.connecting import connect
from backtestr.requester import REQUEST_TIMEOUT
from backtestr_protocol import errors

from . import rendering
from .exit_codes import EXIT_ERROR as EXIT_ERROR
from .exit_codes import EXIT_INTERRUPTED as EXIT_INTERRUPTED
from .exit_codes import EXIT_NO_BROKER as EXIT_NO_BROKER
from .exit_codes import EXIT_USAGE as EXIT_USAGE

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output and nothing else.")]

# Characters in a line without a terminal: then another program reads the lines, which must not be cut.
PIPED_WIDTH = 240


def _width(stream: TextIO | None) -> int | None:
    """Return the width for a stream; None, which leaves it to the terminal, for a terminal. A closed stream is None."""
    return None if stream is not None and stream.isatty() else PIPED_WIDTH


out = Console(width=_width(sys.stdout))
err = Console(stderr=True, width=_width(sys.stderr))


@contextlib.contextmanager
def broker(as_json: bool, request_timeout: float = REQUEST_TIMEOUT) -> Iterator[Client]:
    """Give a client for one command. Errors become a line or two on standard error and an exit code."""
    try:
        with connect(request_timeout=request_timeout) as client:
            yield client
    except errors.BacktestrError as error:
        for line in rendering.error_lines(error):
            err.print(line, markup=False, highlight=False, soft_wrap=True)
        if as_json:
            print_json({"error": error.to_data(component="client", timestamp=time.time_ns() // 1_000_000)})
        raise typer.Exit(EXIT_NO_BROKER if isinstance(error, errors.NetworkError) else EXIT_ERROR) from None
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None


def print_json(answer: Any) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(answer), indent=2).decode() + "\n")


def assignments(given: list[str] | None, option: str) -> dict[str, Any]:
    """Return `["fast=10"]` as `{"fast": 10}`; a value that is no JSON is text."""
    assigned: dict[str, Any] = {}
    for one in given or []:
        name, equals, value = one.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{one!r} is not NAME=VALUE", param_hint=option)
        try:
            assigned[name] = json.loads(value)
        except ValueError:
            assigned[name] = value
    return assigned
