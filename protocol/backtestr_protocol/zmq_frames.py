"""This module sends and receives multipart messages on a ZeroMQ socket without waiting.

It has two implementations: `wire/pure_frames.py` on pyzmq, and `wire/_frames.c`, which calls the libzmq that pyzmq has
loaded. Both do and raise the same. The compiled one is used where it was built and the library fits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NoReturn, Protocol

import zmq

from .wire import pure_frames
from .wire.compiled import NOT_BUILT, WHY_MACS_ARE_PURE, why_all_is_pure

# The releases of libzmq that the compiled implementation was tested with: it relies on the size of a message.
TESTED = (4, 3)

# The connection that a message came on: the file descriptor (-1 within a process), and the name that the ZAP handler
# gave it, which is looked up for `accepts` only and empty otherwise.
Origin = tuple[int, str]


class Frames(Protocol):
    """The functions of this module, as each implementation has them."""

    def send(self, socket: zmq.Socket[bytes], frames: Sequence[bytes], /) -> None:
        """Send one message; raise `zmq.Again` if the queue is full, and then send nothing of it."""
        ...

    def receive(
        self,
        socket: zmq.Socket[bytes],
        most: int,
        accepts: Callable[[str], bool] | None = None,
        *,
        expecting: bool = False,
        of_one: bool = False,
        origins: list[Origin] | None = None,
    ) -> list[list[bytes]]:
        """Return up to `most` messages that have arrived. `expecting`: some are likely to be there, which saves time.

        With `accepts`, only messages are returned whose sender's name, as the ZAP handler gave it, is accepted. The
        others count towards `most`. A message without a name is never accepted. `origins` gets the connection of each
        message that is returned.

        With `of_one`, for a ROUTER, the messages end with the first of another peer, and with a large one: what comes
        next is then never far behind what one peer sends, in time and in memory.
        """
        ...

    def has_input(self, socket: zmq.Socket[bytes], /) -> bool:
        """Return True if a message waits.

        Call it before sleeping on a socket's file descriptor. The descriptor signals changes only, and any call on the
        socket may consume one (ZMQ_FD in the manual of zmq_getsockopt).
        """
        ...


def compiled_frames() -> Frames | str:
    """Return the compiled implementation, or the reason why it is not used."""
    if (reason := why_all_is_pure()) is not None:
        return reason
    try:
        import backtestr_protocol.wire._frames as twin
    except ModuleNotFoundError:
        return NOT_BUILT
    except ImportError as error:
        return str(error)
    try:
        from zmq.backend.cython import _zmq as backend

        major, minor, patch, *_ = zmq.zmq_version_info()
        if (major, minor) != TESTED:
            return f"libzmq {major}.{minor} was not tested, only {TESTED[0]}.{TESTED[1]}"
        twin.use_libzmq(backend.__file__, (major, minor, patch), zmq.Socket.underlying, zmq.Again, _raise)
    except (ImportError, TypeError, AttributeError) as error:  # another backend of pyzmq
        return f"pyzmq {zmq.__version__}: {error}"
    return twin


def _raise(number: int) -> NoReturn:
    """Raise pyzmq's exception for an errno."""
    if number == zmq.EAGAIN:
        raise zmq.Again(number)
    if number == zmq.ETERM:
        raise zmq.ContextTerminated(number)
    raise zmq.ZMQError(number)


def described(why_frames: str | None, why_macs: str | None) -> str:
    """Return which implementations are used, in words, given the reasons why they are in Python."""
    frames, macs = ("compiled" if why is None else f"pure Python: {why}" for why in (why_frames, why_macs))
    return frames if frames == macs else f"{frames}; signatures: {macs}"


_found = compiled_frames()
_used: Frames = pure_frames if isinstance(_found, str) else _found
send, receive, has_input = _used.send, _used.receive, _used.has_input
# Which implementation is used, for `--version` and the status.
IMPLEMENTATION = described(_found if isinstance(_found, str) else None, WHY_MACS_ARE_PURE)
