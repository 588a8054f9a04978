"""File descriptors: the limit on them is raised at the start, and shared out among the sockets of clients."""

from __future__ import annotations

import contextlib
import math
import os

from backtestr_protocol.private_files import is_exhausted
from backtestr_protocol.system import process_limits

_LIMIT = "RLIMIT_NOFILE"

# More than all connections that a broker keeps take. A higher limit would only make a leak of descriptors last longer.
MOST = 65_536
# What macOS allows at most, whatever its limit says.
_MOST_ON_MACOS = 10_240
# Connections to one socket: twice the sessions that there can be, so that clients have room to come and go.
MAX_CONNECTIONS = 2_048
# Connections to one socket that are kept however low the limit is.
_MIN_CONNECTIONS = 8
# Descriptors that are no connection of a client: ZeroMQ's sockets, listeners, database, metrics and log.
_RESERVED = 128
# Besides, of each worker: its lifeline and its connection.
_PER_WORKER = 2
# Descriptors that must be free for the broker to go on as usual: for a worker that is started, and for peers that
# connect before the next heartbeat.
_SPARE = 16


def raise_descriptor_limit() -> None:
    """Raise this process's limit on file descriptors as far as it may be raised, up to `MOST`.

    The usual limit of 1,024 is for programs that call select(), and clients have up to six connections each.
    """
    limit = process_limits.read(_LIMIT)
    for wanted in (MOST, _MOST_ON_MACOS):
        if limit is None or min(wanted, limit.hard) <= limit.soft:
            return
        with contextlib.suppress(ValueError, OSError):  # the system allows less than it says
            process_limits.put(_LIMIT, limit._replace(soft=min(wanted, limit.hard)))
            return


def descriptor_limit() -> int:
    """Return how many file descriptors this process may have, `MOST` where there is no limit."""
    limit = process_limits.read(_LIMIT)
    return MOST if limit is None or math.isinf(limit.soft) else int(limit.soft)


def connection_limit(descriptors: int, sockets: int, workers: int, most: int = MAX_CONNECTIONS) -> int:
    """Return how many connections each of `sockets` sockets may have, at `most`, so that descriptors are left.

    That is half of what there are: ZeroMQ accepts further ones until the event loop has ended them.
    """
    free = descriptors - _RESERVED - _PER_WORKER * workers
    return max(_MIN_CONNECTIONS, min(most, free // (2 * sockets)))


def are_exhausted() -> bool:
    """Return True if this process or the machine has hardly a file descriptor left."""
    opened: list[int] = []
    try:
        for _ in range(_SPARE):
            opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return is_exhausted(error)
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return False
