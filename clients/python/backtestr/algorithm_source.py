"""Reading the source of an algorithm that is to be registered, and finding which of its algorithms is meant.

The source is not executed here: names are read from its text.
"""

from __future__ import annotations

import ast
from pathlib import Path

from backtestr_protocol.messages import RegisterAlgorithm

_DECLARING = ("algorithm", "portfolio")


def registration(source: str | Path, name: str | None) -> RegisterAlgorithm:
    """Return the request that registers the algorithm `name` of a text, or of the file at a path.

    `name` None means the only algorithm that it declares with `@algorithm("…")`. A file that is not valid Python is
    named after the file, so that the broker can state where it is wrong. Raises `ValueError` when it cannot be
    determined which algorithm is meant, and `OSError`.
    """
    # Line ends stay as they are: the version is a hash of the text.
    text = source.read_bytes().decode("utf-8-sig") if isinstance(source, Path) else source
    if name is None:
        names = declared(text)
        if names is None and isinstance(source, Path):
            names = [source.stem]
        if not names or len(names) > 1:
            found = f"it declares {', '.join(map(repr, names))}" if names else "it declares none that can be told"
            raise ValueError(f"say which algorithm of the source is meant, name=...: {found}")
        name = names[0]
    return RegisterAlgorithm(name=name, source=text)


def declared(source: str) -> list[str] | None:
    """Return the names that a source gives to `@algorithm` and `@portfolio`, in order; None if it is not Python."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return None
    calls = (
        decorator
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        for decorator in node.decorator_list
        if isinstance(decorator, ast.Call) and decorator.args
    )
    return [
        call.args[0].value
        for call in calls
        if isinstance(call.args[0], ast.Constant)
        and isinstance(call.args[0].value, str)
        and _called(call.func) in _DECLARING
    ]


def _called(function: ast.expr) -> str:
    match function:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""
