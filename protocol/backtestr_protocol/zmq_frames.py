"""This module sends and receives multipart messages on a ZeroMQ socket without waiting.

pyzmq's own `send_multipart` and `recv_multipart` check each frame again, and convert every flag to an enumeration. On
the path of a request that is a third of the time spent in the sockets (measured: 17 and 7 µs, here 11 and 3 µs).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import zmq

_DONTWAIT = int(zmq.DONTWAIT)
_DONTWAIT_MORE = int(zmq.DONTWAIT | zmq.SNDMORE)
_EVENTS = int(zmq.EVENTS)
_POLLIN = int(zmq.POLLIN)
# From this size on, a frame is passed to ZeroMQ without a copy.
_ZERO_COPY_BYTES = 65_536


def send(socket: zmq.Socket[bytes], frames: Sequence[bytes]) -> None:
    """Send one message; raise `zmq.Again` if the queue is full, and then send nothing of it."""
    *parts, last = frames
    for part in parts:
        socket.send(part, _DONTWAIT_MORE, len(part) < _ZERO_COPY_BYTES)
    socket.send(last, _DONTWAIT, len(last) < _ZERO_COPY_BYTES)


def receive(
    socket: zmq.Socket[bytes],
    most: int,
    accepts: Callable[[str], bool] | None = None,
    *,
    expecting: bool = False,
    of_one: bool = False,
    last: list[zmq.Frame] | None = None,
) -> list[list[bytes]]:
    """Return up to `most` messages that have arrived.

    A check for input is cheaper than the exception if no message is there, and slower than `recv` if one is. So `recv`
    is called without a check from the third message in a row on, or if `expecting` is set.

    With `accepts`, only messages are returned whose sender's name, as the ZAP handler gave it, is accepted. The others
    count towards `most`. A message without a name is never accepted. `last` gets the last frame of each message that is
    returned, which knows its connection.

    With `of_one`, for a ROUTER, the messages end with the first of another peer, and with a large one: what comes next
    is then never far behind what one peer sends, in time and in memory.
    """
    messages: list[list[bytes]] = []
    taken = 0
    while taken < most and (expecting or taken > 1 or has_input(socket)):
        try:
            frame = socket.recv(_DONTWAIT, False)
        except zmq.Again:
            break
        taken += 1
        parts = [frame.bytes]
        try:
            while frame.more:
                frame = socket.recv(_DONTWAIT, False)
                parts.append(frame.bytes)
        except zmq.Again:
            # An XPUB takes each frame that begins with 0 or 1 for a subscription, also the last frame of a message. No
            # further frame of that message will come.
            messages.append(parts)
            break
        if accepts is None or ((name := sender(frame)) and accepts(name)):
            messages.append(parts)
            if last is not None:
                last.append(frame)
            if of_one and (parts[0] != messages[0][0] or sum(map(len, parts)) >= _ZERO_COPY_BYTES):
                break
    return messages


def sender(frame: zmq.Frame) -> str:
    """Return the name that the ZAP handler gave the connection of a received frame, empty without one."""
    try:
        return str(frame.get("User-Id"))
    except zmq.ZMQError:  # the connection did not pass the ZAP handler
        return ""


def has_input(socket: zmq.Socket[bytes]) -> bool:
    """Return True if a message waits.

    Call it before sleeping on a socket's file descriptor. The descriptor signals changes only, and any call on the
    socket may consume one (ZMQ_FD in the manual of zmq_getsockopt).
    """
    return bool(int(socket.getsockopt(_EVENTS)) & _POLLIN)
