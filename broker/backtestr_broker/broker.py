"""A broker is assembled here, from core, sockets, database, supervisor and event loop.

`__main__` and the embedded broker start one.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import zmq

from backtestr_broker import hooks
from backtestr_broker.core.core import Core
from backtestr_broker.core.settings import Start
from backtestr_broker.io.allow_list import AllowList
from backtestr_broker.io.database import DATABASE, Database
from backtestr_broker.io.descriptors import connection_limit, descriptor_limit
from backtestr_broker.io.event_loop import EventLoop
from backtestr_broker.io.freed_memory import FreedMemory
from backtestr_broker.io.resources import Resources
from backtestr_broker.io.sockets import NAMES, ConnectionBounds, Sockets
from backtestr_broker.io.stored_files import TABLES, FileRules, StoredFiles
from backtestr_broker.io.supervisor import Launch, Supervisor
from backtestr_broker.io.wake import Wake
from backtestr_broker.recording.format import RECORDINGS
from backtestr_broker.recording.recorder import Recorder
from backtestr_protocol import PROTOCOL_VERSION
from backtestr_protocol.build import BUILD
from backtestr_protocol.codec import KEY_BYTES, Signer
from backtestr_protocol.connection import Connection, Curve, Signing
from backtestr_protocol.messages import SeriesInfo
from backtestr_protocol.private_files import private_directory
from backtestr_protocol.secret import Secret
from backtestr_protocol.worker_channel import WorkerCurve, WorkerKind, WorkerSettings

from .config import BrokerConfig, LogOptions

# Seconds that a connection may be silent however short the sessions are: as long as ZeroMQ lets a handshake take.
MIN_PATIENCE = 5.0

if TYPE_CHECKING:
    from backtestr_broker.io.prometheus import MetricsServer


# Seconds to wait for files that are being removed when the broker ends; the next start does what is left.
FILES_PATIENCE = 0.5


class Broker:
    """A broker that is bound and ready to `run`; `connection` is what clients need to connect."""

    def __init__(
        self,
        config: BrokerConfig,
        data_dir: Path,
        context: zmq.Context[zmq.Socket[bytes]],
        address: Callable[[str], str],
        launch: Launch,
        on_serving: Callable[[list[SeriesInfo]], None],
        allow_list: AllowList | None = None,
        freed_memory: FreedMemory | None = None,
    ) -> None:
        """Open and bind everything.

        `address` returns the address to bind for the name of a socket. With `allow_list` the sockets of clients are
        encrypted, and only its keys may connect. `freed_memory` is given where this process is the broker's own.
        Raises `zmq.ZMQError`, and `InvalidConfiguration` when `data_dir` or its database cannot be used, or the port
        for metrics is taken.
        """
        key = Secret(secrets.token_bytes(KEY_BYTES))
        signer = Signer(key)
        counts = config.worker_counts()
        spare = config.workers.spare
        curve = None if allow_list is None else allow_list.pair
        with contextlib.ExitStack() as undo:  # closes what was opened when anything after it fails
            self.wake = Wake()
            undo.callback(self.wake.close)
            private_directory(data_dir, "BACKTESTR_DATA_DIR")
            self._database = Database(data_dir / DATABASE, self.wake)
            undo.callback(self._database.close)
            bounds = ConnectionBounds(
                limit=connection_limit(
                    descriptor_limit(), len(NAMES), sum(counts.values()) + spare, 2 * config.limits.max_connections
                ),
                patience=max(MIN_PATIENCE, config.limits.session_timeout_ms / 1000),
            )
            self._sockets = Sockets(context, address, config.sockets, config.limits.max_message_bytes, curve, bounds)
            undo.callback(self._sockets.close)
            self._metrics = _metrics_server(config.metrics.port)
            if self._metrics is not None:
                undo.callback(self._metrics.close)
            instance_id = str(uuid.uuid4())
            start = Start(
                key=secrets.token_bytes(KEY_BYTES),
                id_seed=secrets.token_bytes(KEY_BYTES),
                limits=config.core_limits(),
                workers=counts,
                now=time.monotonic(),
                restored=self._database.restored,
                build=BUILD,
            )
            self._recorder = (
                Recorder(
                    data_dir / RECORDINGS,
                    config.recorder,
                    instance_id,
                    start,
                    _recorder_stopped,
                    signer,
                    _recorder_resumed,
                )
                if config.recorder.enabled
                else None
            )
            if self._recorder is not None:
                undo.callback(self._recorder.close)
            core = Core(
                signer=signer,
                id_seed=start.id_seed,
                instance_id=instance_id,
                limits=start.limits,
                workers=start.workers,
                now=start.now,
                restored=start.restored,
                build=start.build,
            )
            rules = FileRules(
                recordings=config.retention.recordings(),
                damaged=config.retention.damaged(),
                current=None if self._recorder is None else self._recorder.name,
            )
            self._files = StoredFiles(data_dir, rules, self.wake)
            keys = self._sockets.worker_keys
            # A client that reaches the broker otherwise may be on another machine.
            is_local = self._sockets.endpoints.requests.startswith("ipc://")
            tables_directory = str((data_dir / TABLES).absolute()) if is_local else None
            settings = worker_settings(
                {**counts, "compute": counts["compute"] + spare},
                self._sockets.engine_endpoint,
                key,
                config.log,
                None if keys is None else keys.for_workers(),
                tables_directory,
            )
            compute = [one for one in settings if one.kind == "compute"]
            spares = compute[counts["compute"] :]
            workers = [one for one in settings if one not in spares]
            supervisor = Supervisor(launch, workers, core.scheduler.workers.is_at_task, spares)
            resources = Resources(
                sockets=self._sockets,
                database=self._database,
                files=self._files,
                supervisor=supervisor,
                wake=self.wake,
                allow_list=allow_list,
                recorder=self._recorder,
                metrics=self._metrics,
                freed_memory=freed_memory,
            )
            self.event_loop = EventLoop(core, resources, on_serving)
            self.connection = Connection(
                protocol_version=PROTOCOL_VERSION,
                instance_id=core.instance_id,
                pid=os.getpid(),
                start_time=time.time_ns() // 1_000_000,
                endpoints=self._sockets.endpoints,
                signing=Signing(algorithm="hmac-sha256", key=key),
                curve=None if allow_list is None else _curve(allow_list),
                tables_directory=tables_directory,
            )
            undo.pop_all()

    def run(self) -> None:
        """Serve until `event_loop.stop` is called, then end the workers and close everything."""
        self._database.start()
        self._files.start()
        try:
            self.event_loop.run()
        finally:
            self.close()

    def close(self) -> None:
        """Close everything that was opened. `run` does so at its end; a broker that was never run needs this."""
        if self._metrics is not None:
            self._metrics.close()
        if self._recorder is not None:
            self._recorder.close()
        self._files.close(FILES_PATIENCE)
        self._database.close()
        self._sockets.close()
        self.wake.close()


def _curve(allow_list: AllowList) -> Curve:
    client = allow_list.pair_of_connection_file
    return Curve(
        server_public_key=allow_list.pair.public,
        client_public_key=client.public,
        client_secret_key=client.secret.reveal().decode(),
    )


def _recorder_stopped(reason: str) -> None:
    hooks.send("recorder_stopped", {"reason": reason})


def _recorder_resumed(missing: int) -> None:
    hooks.send("recorder_resumed", {"missing": missing})


def _metrics_server(port: int) -> MetricsServer | None:
    """Return None where metrics are off: then their libraries, which take a tenth of a second, are not loaded."""
    if not port:
        return None
    from backtestr_broker.io.prometheus import MetricsServer

    return MetricsServer(port)


def worker_settings(
    counts: dict[WorkerKind, int],
    endpoint: str,
    key: Secret,
    log: LogOptions,
    curve: WorkerCurve | None = None,
    tables_directory: str | None = None,
) -> list[WorkerSettings]:
    """Return the settings of each configured worker, named `compute-1`, `compute-2`, … and `interactive-1`, …."""
    return [
        WorkerSettings(
            worker_id=f"{kind}-{number}",
            kind=kind,
            endpoint=endpoint,
            key=key,
            log_level=log.level,
            log_format=log.format,
            curve=curve,
            tables_directory=tables_directory,
        )
        for kind, count in counts.items()
        for number in range(1, count + 1)
    ]
