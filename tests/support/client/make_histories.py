"""`PYTHONPATH=tests python -m support.client.make_histories` writes the fixtures of the TypeScript client's core.

Each file has scripted histories: events and times in, effects out, as the Python core has them. The TypeScript core
replays them, so that both clients keep one behaviour. The files are the same bytes every time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import small_histories
from .session_histories import session_histories
from .stream_histories import stream_histories

DIRECTORY = Path(__file__).parents[3] / "clients" / "typescript" / "tests" / "conformance" / "fixtures"


def rendered() -> dict[str, str]:
    """Return the text of each file, by file name."""
    small = {
        "backoffs": small_histories.backoffs(),
        "tables": small_histories.tables(),
        "constants": small_histories.constants(),
        "breakers": small_histories.breakers(),
        "handshakes": small_histories.handshakes(),
        "resolutions": small_histories.resolutions(),
        "replicas": small_histories.replicas(),
        "positions": small_histories.positions(),
        "filters": small_histories.filters(),
    }
    return {
        "sessions.json": _text(session_histories()),
        "subscriptions.json": _text(stream_histories()),
        "small.json": _text(small),
    }


def _text(value: Any) -> str:
    return "\n".join(_lines(value, depth=3)) + "\n"


def _lines(value: Any, depth: int) -> Iterator[str]:
    """Yield JSON with the outer levels on lines of their own, so that a difference is small and a file is not long."""
    if depth == 0 or not isinstance(value, dict | list) or not value:
        yield json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return
    opening, closing = ("{", "}") if isinstance(value, dict) else ("[", "]")
    yield opening
    rows = list(value.items()) if isinstance(value, dict) else [(None, one) for one in value]
    for number, (name, one) in enumerate(rows):
        lines = list(_lines(one, depth - 1))
        if name is not None:
            lines[0] = f"{json.dumps(name)}:{lines[0]}"
        if number < len(rows) - 1:
            lines[-1] += ","
        yield from lines
    yield closing


def main() -> None:
    """Write the files."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for name, text in rendered().items():
        (DIRECTORY / name).write_text(text, "utf-8", newline="\n")


if __name__ == "__main__":
    main()
