"""This module runs a broker whose engine only publishes, as fast as a benchmark asks for.

    running_fake(config)        the broker, its two workers, and a control of the compute worker

The broker is the real one, made as its own `__main__` makes it. The workers use the engine's channel from processes of
their own. The interactive worker accepts every backtest. The compute worker begins a backtest and never ends it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import msgspec
import numpy as np
import zmq
from brokers import Running, running_broker

from backtestr_broker.broker import Broker
from backtestr_broker.config import load_config
from backtestr_broker.io.runtime_directory import RuntimeDirectory
from backtestr_broker.io.supervisor import ExitReason, WorkerHandle
from backtestr_protocol import paths, topics
from backtestr_protocol.codec import Signer, encoded_payload
from backtestr_protocol.messages import SeriesInfo
from backtestr_protocol.stream_messages import BacktestProgress, Batch, Column, Columns, EquityCurvePoint, PriceUpdate
from backtestr_protocol.worker_channel import (
    MAX_ON_THE_WAY,
    Assign,
    Beat,
    Finished,
    Published,
    Ready,
    ToBroker,
    WorkerSettings,
    decode_settings,
    decode_to_worker,
    encode_proof,
    encode_settings,
    encode_to_broker,
)
from backtestr_protocol.zmq_frames import send

BEAT_MS = 1000
PRICE = PriceUpdate(
    symbol="BTCPERP",
    timestamp=1_700_000_000_000,
    bid=43_210.5,
    ask=43_211.0,
    last=43_210.5,
    volume=12.25,
    timeframe="1m",
)


class Flood(msgspec.Struct, frozen=True):
    """Messages to publish, to `topics` topics in turn.

    There are `messages` messages: each is a price, a `batch` of prices (as `columns` or as maps), or `size` zero bytes.
    If `seconds` is not 0, it replaces the number of messages; a progress message of the running backtest is then
    published every `progress_ms`, whose `currentTime` is the monotonic clock in nanoseconds. Without a `topic`, only
    progress is published.
    """

    topic: str
    messages: int = 1
    batch: int = 1
    columns: bool = False
    size: int = 0
    topics: int = 1
    seconds: float = 0.0
    progress_ms: float = 0.0

    def names(self) -> list[str]:
        return [self.topic] if self.topics == 1 else [f"{self.topic}.{number}" for number in range(self.topics)]


class FakeEngine:
    """The control of the compute worker."""

    def __init__(self, broker: Running, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self.broker = broker
        self._control = context.socket(zmq.PUSH)
        self._control.linger = 0
        self._control.connect(f"ipc://{broker.runtime_dir}/control")

    def publish(self, flood: Flood) -> None:
        self._control.send(msgspec.json.encode(flood))


@contextlib.contextmanager
def running_fake(context: zmq.Context[zmq.Socket[bytes]], config: str = "") -> Iterator[FakeEngine]:
    with running_broker(config=config, program=(__file__, "broker")) as broker:
        yield FakeEngine(broker, context)


# --- the broker ---


class _Fake:
    def __init__(self, settings: WorkerSettings) -> None:
        self._process = subprocess.Popen([sys.executable, __file__, "worker"], stdin=subprocess.PIPE)
        self.pid = self._process.pid
        assert self._process.stdin is not None
        self._lifeline = self._process.stdin
        self._lifeline.write(encode_settings(settings))
        self._lifeline.flush()

    def ended(self) -> ExitReason | None:
        return None if self._process.poll() is None else ExitReason("it ended")

    def close_lifeline(self) -> None:
        self._lifeline.close()

    def kill(self) -> None:
        self._process.kill()


def serve() -> None:
    def launch(settings: WorkerSettings) -> WorkerHandle:
        return _Fake(settings)

    def on_serving(_series: list[SeriesInfo]) -> None:
        directory.publish(broker.connection)

    directory = RuntimeDirectory(paths.runtime_dir(), paths.connection_file())
    directory.acquire()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        config = load_config(paths.config_dir())
        broker = Broker(config, paths.data_dir(), context, directory.socket_address, launch, on_serving)
        signal.signal(signal.SIGTERM, lambda *_: broker.event_loop.stop())
        broker.run()
    finally:
        directory.release()
        context.term()


# --- the workers ---


class Worker:
    def __init__(self, settings: WorkerSettings) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._kind = settings.kind
        self._broker = context.socket(zmq.DEALER)
        self._broker.linger = 0
        self._broker.sndhwm = MAX_ON_THE_WAY
        self._broker.connect(settings.endpoint)
        self._control = context.socket(zmq.PULL)
        if settings.kind == "compute":
            self._control.bind(f"ipc://{paths.runtime_dir()}/control")
        self._backtest_id: str | None = None
        ready = Ready(worker_id=settings.worker_id, pid=os.getpid(), kind=settings.kind, algorithms=[], series=[])
        self._broker.send_multipart(encode_proof(Signer(settings.key), ready))

    def run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._broker, zmq.POLLIN)
        poller.register(self._control, zmq.POLLIN)
        poller.register(sys.stdin.fileno(), zmq.POLLIN)
        while True:
            ready = dict(poller.poll(BEAT_MS))
            if sys.stdin.fileno() in ready:  # it is readable only once it is closed
                return
            if self._broker in ready:
                self._take(self._broker.recv_multipart())
            if self._control in ready:
                self._flood(msgspec.json.decode(self._control.recv(), type=Flood))
            self._tell(Beat(task_id=self._backtest_id))

    def _tell(self, message: ToBroker, *payload: bytes) -> None:
        self._broker.send_multipart(encode_to_broker(message, payload))

    def _take(self, frames: list[bytes]) -> None:
        message, payload = decode_to_worker(frames)
        match message:
            case Assign(work="RunBacktest"):
                self._backtest_id = message.task_id
            case Assign():
                self._tell(Finished(task_id=message.task_id, outcome="completed"), *payload)

    def _flood(self, flood: Flood) -> None:
        messages = [self._message(flood, name) for name in flood.names() if name]
        if flood.seconds:
            self._flood_with_progress(flood, messages[0] if messages else None)
            return
        for number in range(flood.messages):
            self._send(messages[number % len(messages)])

    def _message(self, flood: Flood, topic: str) -> list[bytes]:
        """Return the frames of a message, which are equal every time."""
        if flood.size:
            payload = encoded_payload("PriceUpdate", bytes(flood.size))
        elif flood.batch == 1:
            payload = encoded_payload("PriceUpdate", PRICE)
        elif flood.columns:
            payload = encoded_payload("Batch", _columns(flood.batch))
        else:
            one = encoded_payload("PriceUpdate", PRICE)
            array = msgspec.msgpack.encode([msgspec.Raw(one)] * flood.batch)
            batch = {
                "count": flood.batch,
                "compression": "none",
                "rawBytes": len(array),
                "messages": msgspec.Raw(array),
            }
            payload = encoded_payload("Batch", batch)
        return encode_to_broker(Published(topic=topic, count=flood.batch), [payload])

    def _flood_with_progress(self, flood: Flood, frames: list[bytes] | None) -> None:
        end = time.monotonic() + flood.seconds
        due = 0.0
        while (now := time.monotonic()) < end:
            if now >= due and self._backtest_id is not None:
                due = now + flood.progress_ms / 1000
                self._progress(self._backtest_id)
            if frames is None:
                time.sleep(max(0.0, due - time.monotonic()))
            else:
                self._send(frames)

    def _progress(self, backtest_id: str) -> None:
        at = time.monotonic_ns()
        progress = BacktestProgress(
            backtest_id=backtest_id,
            current_time=at,
            progress_percent=50.0,
            orders_executed=1,
            positions_opened=1,
            positions_closed=0,
            unrealized_pnl=0.0,
            realized_pnl=0.0,
            equity_curve_point=EquityCurvePoint(timestamp=0, equity=1.0, drawdown=0.0, returns=0.0),
        )
        message = Published(topic=topics.progress(backtest_id), count=1, progress_percent=50.0)
        self._send(encode_to_broker(message, [encoded_payload("BacktestProgress", progress)]))

    def _send(self, frames: list[bytes]) -> None:
        """Send as the engine does, waiting while the queue is full."""
        try:
            send(self._broker, frames)
        except zmq.Again:
            self._broker.poll(flags=zmq.POLLOUT)
            self._send(frames)


def _columns(count: int) -> Batch:
    """Return a batch of prices as the engine makes one of columns."""
    columns: Columns = {"symbol": PRICE.symbol, "timeframe": PRICE.timeframe}
    columns["timestamp"] = Column(dtype="<i8", data=np.full(count, PRICE.timestamp, "<i8").tobytes())
    for name in ("bid", "ask", "last", "volume"):
        columns[name] = Column(dtype="<f8", data=np.full(count, getattr(PRICE, name), "<f8").tobytes())
    raw = len(msgspec.msgpack.encode(columns))
    return Batch(count=count, compression="none", raw_bytes=raw, type="PriceUpdate", columns=columns)


def work() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    line = b""
    while not line.endswith(b"\n"):
        if not (byte := os.read(sys.stdin.fileno(), 1)):  # the broker ended before it could write
            os._exit(1)
        line += byte
    Worker(decode_settings(line)).run()
    os._exit(0)


if __name__ == "__main__":
    {"broker": serve, "worker": work}[sys.argv[1]]()
