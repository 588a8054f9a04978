"""This module publishes a million prices to a client as fast as that reads them, under the name of a running broker.

    with price_tape(broker, topics) as connection_file:    a client that uses this file reads prices from the tape

The connection file is the broker's own but for the address of the prices. The tape has the broker's key, so what it
sends verifies; all is packed and signed before the first subscription. So a reader is measured, and no publisher.
"""

from __future__ import annotations

import contextlib
import json
import struct
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgpack
import zmq
from brokers import Running

from backtestr.io.connection_file import ConnectionFile
from backtestr_protocol.codec import STREAM, Signer

PRICES = 1_000_000
BATCH = 1_000
Form = Literal["maps", "columns"]
# Without a subscription the tape ends after this time, and so does a reader that is stuck.
PATIENCE_MS = 120_000


@contextlib.contextmanager
def price_tape(broker: Running, topics: Mapping[str, Form]) -> Iterator[Path]:
    """Publish `PRICES` prices on each topic once somebody subscribes to it, in batches of `BATCH`."""
    connection = ConnectionFile(broker.connection_file).read()
    own = json.loads(broker.connection_file.read_text("utf-8"))
    address = f"ipc://{broker.runtime_dir}/tape"
    file = broker.runtime_dir / "tape.json"
    file.touch(0o600)
    file.write_text(json.dumps({**own, "endpoints": {**own["endpoints"], "prices": address}}), "utf-8")
    tape = Tape(address, connection.signer(), connection.instance_id, topics)
    try:
        yield file
    finally:
        tape.close()


class Tape:
    """An XPUB socket on a thread of its own."""

    def __init__(self, address: str, signer: Signer, instance_id: str, topics: Mapping[str, Form]) -> None:
        envelopes = {
            form: [_envelope(form, start, instance_id) for start in range(0, PRICES, BATCH)]
            for form in set(topics.values())
        }
        self._messages = {
            topic.encode(): [
                [topic.encode(), signer.sign(STREAM, [topic.encode(), envelope]), envelope]
                for envelope in envelopes[form]
            ]
            for topic, form in topics.items()
        }
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)
        self._socket.linger = 0
        self._socket.sndhwm = 0
        self._socket.bind(address)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="price tape", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.is_set():
            if not self._socket.poll(50):
                continue
            said = self._socket.recv()
            if said[:1] == b"\x01":
                for message in self._messages.pop(said[1:], ()):
                    self._socket.send_multipart(message, copy=False)

    def close(self) -> None:
        self._stopped.set()
        self._thread.join()
        self._context.destroy(linger=0)


def _envelope(form: Form, start: int, instance_id: str) -> bytes:
    times = [1_700_000_000_000 + 60_000 * at for at in range(start, start + BATCH)]
    prices = [43_210.5 + at % 1000 for at in range(start, start + BATCH)]
    texts = {"symbol": "BTCPERP", "timeframe": "1m", "backtestId": "tape"}
    data: dict[str, Any] = {"count": BATCH, "compression": "none", "rawBytes": 0}
    if form == "maps":
        data["messages"] = [
            {
                "type": "PriceUpdate",
                "data": {**texts, "timestamp": time, "bid": price, "ask": price + 0.5, "last": price, "volume": 12.25},
            }
            for time, price in zip(times, prices, strict=True)
        ]
        data["rawBytes"] = len(msgpack.packb(data["messages"]))
    else:
        numbers = {
            name: {"dtype": "<f8", "data": struct.pack(f"<{BATCH}d", *prices)}
            for name in ("bid", "ask", "last", "volume")
        }
        numbers["timestamp"] = {"dtype": "<i8", "data": struct.pack(f"<{BATCH}q", *times)}
        data |= {"type": "PriceUpdate", "columns": {**texts, **numbers}}
        data["rawBytes"] = len(msgpack.packb(data["columns"]))
    packed: bytes = msgpack.packb(
        {
            "id": f"tape-{start}",
            "timestamp": times[0],
            "schemaVersion": 1,
            "messageType": "Stream",
            "payload": {"type": "Batch", "data": data},
            "seq": start + 1,
            "instanceId": instance_id,
        }
    )
    return packed
