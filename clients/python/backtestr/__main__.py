"""`python -m backtestr` is the command line where its script is not on the path."""

from __future__ import annotations

from backtestr.cli.entry import main

main()
