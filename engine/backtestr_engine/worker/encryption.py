"""Encryption of a worker's connection to its broker, where that is a TCP port of the machine."""

from __future__ import annotations

import zmq

from backtestr_protocol.worker_channel import WorkerCurve


def use_keys(socket: zmq.Socket[bytes], curve: WorkerCurve | None) -> None:
    """Have a socket, before it connects, use the keys that the broker has given; None for a plain connection."""
    if curve is None:
        return
    socket.set(zmq.CURVE_SERVERKEY, curve.server_public_key.encode())
    socket.set(zmq.CURVE_PUBLICKEY, curve.public_key.encode())
    socket.set(zmq.CURVE_SECRETKEY, curve.secret_key.reveal())
