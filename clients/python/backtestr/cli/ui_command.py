"""`backtestr ui` opens the app in a browser: it serves the page, or asks a server that runs for a new link."""

from __future__ import annotations

import importlib.util
import sys
import threading
import webbrowser
from typing import Annotated

import typer

from backtestr_protocol.errors import BacktestrError

from .exit_codes import EXIT_ERROR, EXIT_INTERRUPTED

_NEEDED = ("filelock", "starlette", "uvicorn", "websockets")
_MIB = 1 << 20

_SERVING = """\
backtestr ui is at http://127.0.0.1:{port}/. Ctrl-C ends it.

  {link}

The link lets one browser in, once. For another one: backtestr ui
"""
_STARTING = "Starting a broker; the first start on a machine takes half a minute."
_STARTED = "The broker serves. It stays when this ends; stop it with: backtestr stop"
_NO_BROKER = "No broker is running. The page shows how to start one; or: backtestr ui --start"


def ui(
    start: Annotated[bool, typer.Option("--start", help="Start a broker if none is running. It stays.")] = False,
    port: Annotated[int | None, typer.Option(min=1, max=65_535, help="Port on 127.0.0.1; default: a free one.")] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the link, and open no browser.")] = False,
    upload_limit: Annotated[int, typer.Option(min=1, help="MiB of a file that a page may upload.")] = 2_048,
) -> None:
    """Open the app in a browser. Where it is open already, a new link to it is printed."""
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        _say(f"the app needs {', '.join(missing)}; install it with: pip install 'backtestr[ui]'")
        raise typer.Exit(EXIT_ERROR)
    try:
        _run(start, port, no_browser, upload_limit * _MIB)
    except BacktestrError as error:
        _say(str(error))
        raise typer.Exit(EXIT_ERROR) from None
    except KeyboardInterrupt:  # before it served: while it serves, Ctrl-C is its usual end
        raise typer.Exit(EXIT_INTERRUPTED) from None


def _run(start: bool, port: int | None, no_browser: bool, upload_limit: int) -> None:
    from backtestr.ui.io.new_links import ask_for_link, running_server  # only now: the extra is there
    from backtestr.ui.io.server import Server, link, listen

    _look_for_broker(start)
    if (running := running_server()) is not None and (token := ask_for_link(running)) is not None:
        if port not in (None, running.port):
            _say(f"the app is at port {running.port} already; to have it at another, end it there with Ctrl-C first")
        address = link(running.port, token)
        print(f"backtestr ui is running; a new link to it:\n\n  {address}\n", flush=True)
        if not no_browser:
            _open(address)
        return
    server = Server(listen(port), upload_limit)
    address = server.new_link()
    print(_SERVING.format(port=server.port, link=address), flush=True)
    if not no_browser:
        # The socket listens already. A browser that is slow to start keeps nobody waiting.
        threading.Thread(target=_open, args=(address,), name="backtestr browser", daemon=True).start()
    server.run()


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _look_for_broker(start: bool) -> None:
    import asyncio

    from backtestr.ui.io.broker_start import BrokerStart, running_broker

    if running_broker() is not None:
        return
    if not start:
        print(_NO_BROKER, flush=True)
        return
    print(_STARTING, flush=True)
    if asyncio.run(BrokerStart().start()):
        print(_STARTED, flush=True)


def _open(address: str) -> None:
    """Open an address in the browser of this user, unless that is one that takes the terminal."""
    try:
        browser = webbrowser.get()
    except webbrowser.Error:
        return
    if type(browser) is not webbrowser.GenericBrowser:  # its subclasses run beside the terminal
        browser.open(address)


ui_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
ui_app.command()(ui)
