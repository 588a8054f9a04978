from collections.abc import Callable, Sequence
from typing import NoReturn

import zmq

def use_libzmq(
    path: str,
    version: tuple[int, int, int],
    underlying: object,
    again: type[zmq.Again],
    raise_error: Callable[[int], NoReturn],
    /,
) -> None: ...
def send(socket: zmq.Socket[bytes], frames: Sequence[bytes], /) -> None: ...
def receive(
    socket: zmq.Socket[bytes],
    most: int,
    accepts: Callable[[str], bool] | None = None,
    *,
    expecting: bool = False,
    of_one: bool = False,
    origins: list[tuple[int, str]] | None = None,
) -> list[list[bytes]]: ...
def has_input(socket: zmq.Socket[bytes], /) -> bool: ...
