"""The engine's options as callers write them: snake_case in Python, camelCase on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def camel(name: str) -> str:
    """`fill_at` as `fillAt`; a name that is in camelCase already stays as it is."""
    first, *rest = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)


def wire_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """`options` with every name in camelCase, those of `streams` included. The broker knows which there are."""
    return {
        camel(name): wire_options(value) if isinstance(value, Mapping) else value for name, value in options.items()
    }
