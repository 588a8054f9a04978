"""Names of the wire in an error, as a caller of `Client.backtest` wrote them: `fill_at` for `fillAt`.

The broker speaks of fields and options by their names on the wire. A person who writes Python has never seen these.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec

from backtestr_protocol.errors import BacktestrError
from backtestr_protocol.messages import BacktestConfig, StreamOptions

_Error = TypeVar("_Error", bound=BacktestrError)

_ARGUMENTS = {"initialCapital": "capital", "startDate": "start", "endDate": "end", "algorithmId": "algorithm"}
_FIELDS = [field.encode_name for struct in (BacktestConfig, StreamOptions) for field in msgspec.structs.fields(struct)]
_CAMEL_CASE = re.compile(r"\b[a-z]+(?:[A-Z][A-Za-z0-9]*)+\b")


def in_python(error: _Error) -> _Error:
    """Return an error about a request's fields with the names of arguments in its message; the details stay.

    Other words, such as a symbol that is written like a field, stay as they are.
    """
    details = error.details or {}
    paths = [one for one in (details.get("path"), *_texts(details.get("paths"))) if isinstance(one, str)]
    if not any(path.startswith("$.") and not path.startswith(("$.parameters", "$.symbol")) for path in paths):
        return error
    known = {*_FIELDS, *(part for path in paths for part in path.split(".")), *_texts(details.get("expected"))}
    known |= {name for name in (details.get("meant"),) if isinstance(name, str)}
    error.message = _CAMEL_CASE.sub(lambda found: _named(found[0]) if found[0] in known else found[0], error.message)
    error.args = (error.message,)
    return error


def snake(name: str) -> str:
    """Return `fillAt` as `fill_at`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _named(name: str) -> str:
    return _ARGUMENTS.get(name) or snake(name)


def _texts(value: Any) -> Iterable[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list | tuple) else []
