"""This module names the types of columns as PROTOCOL.md does, so that an answer says what a table file holds."""

from __future__ import annotations

# The names by the text of the types in polars, which this package does not import.
_NAMES = {
    "Boolean": "bool",
    "Float32": "float32",
    "Float64": "float64",
    "String": "utf8",
    **{f"{sign}Int{bits}": f"{sign.lower()}int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)},
}
_TIME = "Datetime(time_unit='"


def column_type(polars_type: object) -> str:
    """Return the name of a column's type: `float64`, `utf8`, `timestamp[us, UTC]` …; any other as polars writes it."""
    text = str(polars_type)
    if text.startswith(_TIME):
        unit, _, rest = text.removeprefix(_TIME).partition("'")
        zone = rest.removeprefix(", time_zone=").removesuffix(")").strip("'")
        return f"timestamp[{unit}]" if zone == "None" else f"timestamp[{unit}, {zone}]"
    return _NAMES.get(text, text)
