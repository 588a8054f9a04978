"""An embedded broker runs with its workers in this process, as threads, over `inproc://` instead of sockets in files.

It is for tests and for scripts without a second process. Its code is that of the broker in a process of its own. Only
this module imports client, broker and engine; it needs the packages that `pip install 'backtestr[broker,engine]'`
installs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import msgspec
import zmq

from backtestr_broker.broker import Broker
from backtestr_broker.config import BrokerConfig
from backtestr_broker.config import load_config as load_broker_config
from backtestr_broker.io.supervisor import ExitReason, WorkerHandle
from backtestr_engine.config import EngineConfig
from backtestr_engine.config import load_config as load_engine_config
from backtestr_engine.kernel_cache import check_kernel_cache
from backtestr_engine.worker.threads import run_worker
from backtestr_protocol import paths
from backtestr_protocol.connection import Connection
from backtestr_protocol.errors import SystemFault
from backtestr_protocol.messages import SeriesInfo
from backtestr_protocol.worker_channel import WorkerSettings

from .client import Client
from .io.interrupts import JoinableThread, join_uninterrupted, uninterrupted

# Seconds until the workers are ready; the first start on a machine compiles the kernels, and the machine may be slow or
# busy. A broker that cannot start ends before that by itself.
START_TIMEOUT = 600.0


@contextlib.contextmanager
def embedded_client(data_dir: str | Path | None = None) -> Iterator[Client]:
    """Start an embedded broker, and give a client of it; both end with the `with` block.

    `data_dir`: the data directory, if not that of `BACKTESTR_DATA_DIR`. Raises `InvalidConfiguration`, also where
    another broker uses that directory (connect to that broker, or name another directory), and where another user could
    have written to it.
    """
    with EmbeddedBroker(Path(data_dir) if data_dir else paths.data_dir()) as broker, broker.connect() as client:
        yield client


class EmbeddedBroker:
    """A broker in threads of this process, as a context manager; `connect` makes any number of clients of it."""

    def __init__(
        self,
        data_dir: Path,
        *,
        broker_config: BrokerConfig | None = None,
        engine_config: EngineConfig | None = None,
    ) -> None:
        check_kernel_cache()
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._data_dir = data_dir
        self._engine_config = engine_config or load_engine_config(paths.config_dir())
        self._serving = threading.Event()
        name = f"backtestr-{uuid.uuid4().hex}"
        made: list[Broker] = []

        def make() -> None:
            broker = Broker(
                broker_config or _without_spare(load_broker_config(paths.config_dir())),
                data_dir,
                self.context,
                lambda socket: f"inproc://{name}/{socket}",
                self._launch,
                self._on_serving,
            )
            made.append(broker)

        try:
            uninterrupted(make)  # a socket that Ctrl-C left open would keep its context from ever ending
        except BaseException:  # another broker may use that data directory, or Ctrl-C was pressed meanwhile
            for broker in made:
                broker.close()
            self.context.term()
            raise
        [self._broker] = made
        self._thread = JoinableThread(self._run, "backtestr broker", daemon=True)

    @property
    def connection(self) -> Connection:
        """The endpoints and keys that a client needs, besides this broker's `context`."""
        return self._broker.connection

    def connect(self, client_id: str | None = None) -> Client:
        return Client(self.connection, context=self.context, client_id=client_id)

    def __enter__(self) -> EmbeddedBroker:
        try:
            self._thread.start()
            if not self._serving.wait(START_TIMEOUT) or not self._thread.is_alive():
                raise SystemFault("the embedded broker did not get ready; the log says why")
        except BaseException:  # Ctrl-C included: without the `with` block, nothing else can end it
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End broker and workers. Clients must have been closed before: they share the context.

        Ctrl-C meanwhile is raised when everything has ended.
        """
        try:
            if self._thread.ident is None:
                self._broker.close()
            else:
                self._broker.event_loop.stop()
                join_uninterrupted(self._thread)
        finally:
            self.context.term()

    def _run(self) -> None:
        try:
            self._broker.run()
        finally:
            self._serving.set()  # `__enter__`, which waits for this, then finds that the thread has ended

    def _on_serving(self, _series: list[SeriesInfo]) -> None:
        self._serving.set()

    def _launch(self, settings: WorkerSettings) -> WorkerHandle:
        return _WorkerThread(self.context, settings, self._engine_config, self._data_dir, self._broker)


def _without_spare(config: BrokerConfig) -> BrokerConfig:
    """Return the options without spare workers: a worker in a thread is not lost alone."""
    return msgspec.structs.replace(config, workers=msgspec.structs.replace(config.workers, spare=0))


class _WorkerThread:
    """A worker thread with the interface of a worker process for the supervisor; its lifeline is a pipe, too."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        settings: WorkerSettings,
        config: EngineConfig,
        data_dir: Path,
        broker: Broker,
    ) -> None:
        self.pid = os.getpid()
        self._read_end, self._write_end = os.pipe()
        self._is_held = True

        def work() -> None:
            try:
                run_worker(context, settings, self._read_end, config, data_dir)
            finally:
                broker.wake()

        self._thread = threading.Thread(target=work, name=settings.worker_id, daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # no further thread can be started, and no process could
            os.close(self._read_end)
            os.close(self._write_end)
            raise OSError(errno.EAGAIN, str(error)) from error

    def ended(self) -> ExitReason | None:
        return None if self._thread.is_alive() else ExitReason("its thread ended")

    def close_lifeline(self) -> None:
        if self._is_held:
            self._is_held = False
            os.close(self._write_end)

    def kill(self) -> None:
        """End the worker at its next chunk: a thread cannot be killed."""
        self.close_lifeline()
