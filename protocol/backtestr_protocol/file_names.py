"""Names become names of files and folders that every operating system can have.

Windows takes some names for devices, whatever their case and whatever follows a dot. A path of such a name would reach
the device, so its first character is percent-escaped. No symbol, id or key name has a percent sign otherwise, once it
is escaped.
"""

from __future__ import annotations

from urllib.parse import unquote

_DEVICES = frozenset(
    {"aux", "con", "conin$", "conout$", "nul", "prn"}
    | {f"{port}{number}" for port in ("com", "lpt") for number in (*"0123456789", "\u00b9", "\u00b2", "\u00b3")}
)


def is_device(name: str) -> bool:
    """Return True for what Windows takes for a device, such as `nul`, `CON` and `com1.txt`."""
    return name.partition(".")[0].rstrip().casefold() in _DEVICES


def file_name(name: str) -> str:
    """Return `name`, which has letters, digits, `-`, `_` and percent escapes, as the name of a file on every system."""
    return f"%{ord(name[0]):02X}{name[1:]}" if is_device(name) else name


def name_of(file_name: str) -> str:
    """Return the name that `file_name` was made of."""
    return unquote(file_name)
