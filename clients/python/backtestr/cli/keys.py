"""`backtestr keys` makes CURVE keys, and edits the allow-list of the broker of this machine.

It changes files only; a running broker notices.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.table import Table

from backtestr_protocol import paths
from backtestr_protocol.errors import InvalidConfiguration
from backtestr_protocol.keys import Allowed, KeyFolder
from backtestr_protocol.rights import RIGHTS, Right

from .console import EXIT_ERROR, AsJson, err, out, print_json

keys_app = typer.Typer(no_args_is_help=True, help="Make, list, allow and revoke the keys of clients (CURVE).")

Name = Annotated[str, typer.Argument(help="The client's name: 0-9 A-Z a-z _ -")]
Rights = Annotated[
    Right | None,
    typer.Option(
        "--rights",
        help=f"What the key may do: {'; '.join(f'{right}: {meaning}' for right, meaning in RIGHTS.items())}.",
    ),
]


@keys_app.command()
def new(name: Name, rights: Rights = None, as_json: AsJson = False) -> None:
    """Make a key for a client of this user, and allow it here, with every right unless --rights says otherwise."""
    with _folder() as folder:
        pair, file = folder.new(name)
        allowed = folder.allow(name, pair.public, rights)
    right = rights or "all"
    if as_json:
        files = {"secretFile": str(file), "allowedFile": str(allowed)}
        print_json({"name": name, "publicKey": pair.public, "rights": right, **files})
        return
    _print_line(f"secret key  {file} (keep it; name it in BACKTESTR_KEY where there are several)")
    _print_line(f"public key  {pair.public}, allowed here by {allowed}")
    _print_line(f"rights      {right}: {RIGHTS[right]}")
    _print_line(f"a broker on another machine accepts it after: backtestr keys allow {name} '{pair.public}'")


@keys_app.command()
def allow(
    name: Name,
    public_key: Annotated[
        str | None,
        typer.Argument(help="The key that `backtestr keys new` printed, in quotes; not needed for a key of this user."),
    ] = None,
    rights: Rights = None,
    as_json: AsJson = False,
) -> None:
    """Allow a key that was made elsewhere, or change the rights of one that is allowed.

    A running broker applies the change within a heartbeat.
    """
    with _folder() as folder:
        file = folder.allow(name, public_key, rights)
        right = folder.allowed().rights[name]
    if as_json:
        print_json({"name": name, "rights": right, "allowedFile": str(file)})
    else:
        _print_line(f"allowed by {file}, with the rights {right}: {RIGHTS[right]}")


@keys_app.command("list")
def list_keys(as_json: AsJson = False) -> None:
    """List the keys that are allowed."""
    with _folder() as folder:
        allowed = folder.allowed() if folder.path.exists() else Allowed({}, ())  # before the first key there is none
        keys = sorted((name, allowed.rights[name], folder.public_text(key)) for key, name in allowed.names.items())
    if as_json:
        rows = [{"name": name, "rights": right, "publicKey": key} for name, right, key in keys]
        print_json({"keys": rows, "problems": list(allowed.problems)})
    else:
        table = Table("name", "rights", "public key")
        for row in keys:
            table.add_row(*row)
        out.print(table if keys else "no key is allowed yet; make one with: backtestr keys new NAME")
        for problem in allowed.problems:
            err.print(problem, markup=False, highlight=False, soft_wrap=True)
    if allowed.problems:
        raise typer.Exit(EXIT_ERROR)


@keys_app.command()
def revoke(name: Name, as_json: AsJson = False) -> None:
    """Allow a key no longer. A running broker ends its connections within a heartbeat."""
    with _folder() as folder:
        folder.revoke(name)
    print_json({"name": name}) if as_json else _print_line(f"{name} is no longer allowed")


@contextlib.contextmanager
def _folder() -> Iterator[KeyFolder]:
    try:
        yield KeyFolder(paths.keys_dir())
    except (InvalidConfiguration, OSError) as error:
        message = error.message if isinstance(error, InvalidConfiguration) else _unusable(error)
        err.print(message, markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(EXIT_ERROR) from None


def _unusable(error: OSError) -> str:
    return f"the folder of keys cannot be used: {error.strerror}: {error.filename}; name another in BACKTESTR_DATA_DIR"


def _print_line(line: str) -> None:
    out.print(line, markup=False, highlight=False, soft_wrap=True)
