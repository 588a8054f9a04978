"""The name of an uploaded file becomes one that every file system can have, with the suffix that tells its format."""

from __future__ import annotations

import re

from backtestr_protocol.file_names import file_name

# Characters, well below what file systems take in bytes.
MAX_CHARACTERS = 100
_LEFT_OUT = re.compile(r"[^0-9A-Za-z._ ()+=@-]")


def upload_name(given: str) -> str:
    """Return the last part of a name as the name of a file, without anything that leads elsewhere."""
    last = re.split(r"[/\\]", given)[-1]
    kept = _LEFT_OUT.sub("_", last)[-MAX_CHARACTERS:].lstrip(". -").rstrip(". ")
    return file_name(kept or "upload")
