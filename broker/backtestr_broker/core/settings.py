"""The options of the core, and what a core is made from."""

from __future__ import annotations

import msgspec

from backtestr_broker.core.clients.rate_limit import Rate
from backtestr_broker.core.records import Restored
from backtestr_broker.core.retention import RetentionRules
from backtestr_protocol.message_types import Priority
from backtestr_protocol.worker_channel import WorkerKind


class CoreSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The core's options, with units in their names; `config/broker.toml` explains each."""

    heartbeat_interval_ms: int
    watermark_interval_ms: int
    session_timeout_ms: int
    max_message_bytes: int
    max_queued_backtests: int
    max_queued_questions: int
    verify_interval_ms: int
    worker_hung_ms: int
    worker_silence_ms: int
    rates: dict[Priority, Rate]
    max_connections: int = 1024
    retention: RetentionRules = RetentionRules()  # of results
    sweep_retention: RetentionRules = RetentionRules()
    sweep_scheduler: str = ""  # the address of the cluster that computes sweeps which name none


class Start(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything that a core is started with, beside its instance id; it is the first thing in a recording.

    `key` is the key of the recording. It is not the broker's signing key, which no recording holds: the recorder signs
    with it again what the signing key verified, and a playback verifies the recorded frames with it. Ids are made from
    `id_seed`; in recordings of version 0.1, which have none, from the key. `now` is monotonic, in seconds. `build`
    says which parts are compiled, for the status; recordings of version 0.1 do not have it.
    """

    key: bytes
    limits: CoreSettings
    workers: dict[WorkerKind, int]
    now: float
    restored: Restored
    id_seed: bytes = b""
    build: str | None = None
