"""Reading files that anyone may have put there: only regular files, at most so many bytes, without ever waiting."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from backtestr_protocol.errors import InvalidConfiguration
from backtestr_protocol.private_files import check_file
from backtestr_protocol.system.open_flags import WITHOUT_WAITING

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def read_regular(path: Path, most_bytes: int, *, trusted: bool = False) -> bytes:
    """Return the content of a regular file of at most `most_bytes`.

    If it is to be `trusted`, raise `InvalidConfiguration` for a file that another user may have written.

    Raises `OSError`, whose `strerror` states the reason, for everything else: a pipe without a writer would be waited
    for without end, and a device has no end.
    """
    try:
        # A pipe is opened at once, and a terminal does not become this process's own.
        handle = os.open(path, os.O_RDONLY | WITHOUT_WAITING)
    except ValueError as error:  # a NUL in the name
        raise OSError(errno.EINVAL, str(error)) from error
    except FileNotFoundError as error:
        if path.is_symlink():
            raise OSError(errno.ENOENT, "it is a link to nothing") from error
        raise
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError(errno.ENXIO, "it is a socket or a device, not a regular file") from error
        raise
    try:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode):
            kind = next((name for matches, name in _KINDS if matches(facts.st_mode)), "no file")
            raise OSError(errno.EINVAL, f"it is {kind}, not a regular file")
        if trusted:
            check_file(path, facts)
    except (OSError, InvalidConfiguration):
        os.close(handle)
        raise
    with os.fdopen(handle, "rb") as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        size = max(len(content), facts.st_size)
        raise OSError(errno.EFBIG, f"it has {size:,} bytes, and may have {most_bytes:,}")
    return content
