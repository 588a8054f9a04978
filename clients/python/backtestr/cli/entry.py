"""`backtestr` begins here. The app of a browser is started without importing what the other commands need."""

from __future__ import annotations

import sys

from .standard_streams import standard_streams


def main() -> None:
    """Run the `backtestr` command."""
    with standard_streams():
        if sys.argv[1:2] == ["ui"]:
            from .ui_command import ui_app

            ui_app(sys.argv[2:], prog_name="backtestr ui")
        else:
            from .app import app

            app()
