"""The broker's options are defined here, and their defaults in `config/broker.toml` and nowhere else."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from backtestr_broker.core.clients.rate_limit import Rate
from backtestr_broker.core.clients.sessions import MAX_SESSIONS
from backtestr_broker.core.retention import RetentionRules
from backtestr_broker.core.settings import CoreSettings
from backtestr_protocol.errors import InvalidConfiguration
from backtestr_protocol.message_types import Priority
from backtestr_protocol.options import load_options
from backtestr_protocol.sweep_messages import SchedulerAddress
from backtestr_protocol.system.unix_sockets import has_unix_sockets
from backtestr_protocol.worker_channel import LogFormat, LogLevel, WorkerKind

_Positive = Annotated[int, msgspec.Meta(ge=1)]
_NotNegative = Annotated[int, msgspec.Meta(ge=0)]
# A hundred years.
_Days = Annotated[int, msgspec.Meta(ge=0, le=36_525)]
_DAY_MS = 86_400_000
_PerSecond = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
# Sections of earlier versions, and what to write instead.
_REMOVED = {
    "curve": "with transport.kind = 'tcp' connections are encrypted now, and clients on this machine need no key of "
    "their own. Remove [curve]; where it said enabled = false, transport.tcp_readable_by_local_users = true is its "
    "equal, which lets every user of this machine read all messages"
}
# More processes than this on one desktop are a typing error.
_MAX_WORKERS = 256
# Each takes memory and does nothing: more than the workers that are lost within one start of a process are of no use.
_MAX_SPARES = 16


class TransportOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    kind: Literal["auto", "ipc", "tcp"]
    host: str
    tcp_readable_by_local_users: bool

    @property
    def is_encrypted(self) -> bool:
        """True if clients connect with CURVE, once `kind` is decided."""
        return self.kind == "tcp" and not self.tcp_readable_by_local_users


class WorkerOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    compute: Annotated[int, msgspec.Meta(ge=0, le=_MAX_WORKERS)]
    interactive: Annotated[int, msgspec.Meta(ge=1, le=_MAX_WORKERS)]
    spare: Annotated[int, msgspec.Meta(ge=0, le=_MAX_SPARES)]


class LimitOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    heartbeat_interval_ms: Annotated[int, msgspec.Meta(ge=10)]
    watermark_interval_ms: Annotated[int, msgspec.Meta(ge=10)]
    session_timeout_ms: Annotated[int, msgspec.Meta(ge=100)]
    max_message_bytes: Annotated[int, msgspec.Meta(ge=4096)]
    max_connections: Annotated[int, msgspec.Meta(ge=1, le=MAX_SESSIONS)]
    max_queued_backtests: _Positive
    max_queued_questions: _Positive


class ThrottleOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    real_time_per_second: _PerSecond
    real_time_burst: _Positive
    interactive_per_second: _PerSecond
    interactive_burst: _Positive
    background_per_second: _PerSecond
    background_burst: _Positive
    bulk_per_second: _PerSecond
    bulk_burst: _Positive

    def rates(self) -> dict[Priority, Rate]:
        """Return the rate limit of each priority."""
        return {
            "R": Rate(self.real_time_per_second, self.real_time_burst),
            "I": Rate(self.interactive_per_second, self.interactive_burst),
            "B": Rate(self.background_per_second, self.background_burst),
            "K": Rate(self.bulk_per_second, self.bulk_burst),
        }


class LivenessOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    worker_hung_ms: Annotated[int, msgspec.Meta(ge=1000)]
    worker_silence_ms: Annotated[int, msgspec.Meta(ge=1000)]


class StateOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    verify_interval_ms: Annotated[int, msgspec.Meta(ge=10)]


class SocketOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    reply_queue: _Positive
    stream_queue: _Positive


class RecorderOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    enabled: bool
    max_bytes: Annotated[int, msgspec.Meta(ge=4 << 20)]
    files: Annotated[int, msgspec.Meta(ge=2)]


class RetentionOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    results_max_age_days: _Days
    results_max_count: _NotNegative
    results_max_bytes: _NotNegative
    results_keep_newest: _NotNegative
    sweeps_max_age_days: _Days
    sweeps_max_count: _NotNegative
    sweeps_max_bytes: _NotNegative
    sweeps_keep_newest: _NotNegative
    recordings_max_age_days: _Days
    damaged_max_age_days: _Days
    damaged_max_count: _NotNegative

    def results(self) -> RetentionRules:
        """Return the rules for stored results."""
        return RetentionRules(
            max_age_ms=self.results_max_age_days * _DAY_MS,
            max_count=self.results_max_count,
            max_bytes=self.results_max_bytes,
            keep_newest=self.results_keep_newest,
        )

    def sweeps(self) -> RetentionRules:
        """Return the rules for sweeps."""
        return RetentionRules(
            max_age_ms=self.sweeps_max_age_days * _DAY_MS,
            max_count=self.sweeps_max_count,
            max_bytes=self.sweeps_max_bytes,
            keep_newest=self.sweeps_keep_newest,
        )

    def recordings(self) -> RetentionRules:
        """Return the rules for recordings, whose number and size the recorder bounds."""
        return RetentionRules(max_age_ms=self.recordings_max_age_days * _DAY_MS)

    def damaged(self) -> RetentionRules:
        """Return the rules for what was set aside of damaged databases; the latest stays."""
        return RetentionRules(
            max_age_ms=self.damaged_max_age_days * _DAY_MS, max_count=self.damaged_max_count, keep_newest=1
        )


class SweepOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    scheduler: SchedulerAddress


class MetricsOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)]


class LogOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    level: LogLevel
    format: LogFormat


class BrokerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    transport: TransportOptions
    workers: WorkerOptions
    limits: LimitOptions
    throttle: ThrottleOptions
    liveness: LivenessOptions
    state: StateOptions
    sockets: SocketOptions
    recorder: RecorderOptions
    retention: RetentionOptions
    sweep: SweepOptions
    metrics: MetricsOptions
    log: LogOptions

    def core_limits(self) -> CoreSettings:
        """Return the options of the core."""
        return CoreSettings(
            **msgspec.structs.asdict(self.limits),
            **msgspec.structs.asdict(self.liveness),
            **msgspec.structs.asdict(self.state),
            rates=self.throttle.rates(),
            retention=self.retention.results(),
            sweep_retention=self.retention.sweeps(),
            sweep_scheduler=self.sweep.scheduler,
        )

    def worker_counts(self) -> dict[WorkerKind, int]:
        """Return the number of workers of each kind; `compute = 0` becomes one per core but one."""
        compute = self.workers.compute or max(1, (os.cpu_count() or 1) - 1)
        return {"compute": compute, "interactive": self.workers.interactive}


def load_config(own_dir: Path | None) -> BrokerConfig:
    """Load the options: the defaults, changed by a `broker.toml` in `own_dir`.

    `transport.kind` is decided: `ipc` where there is ipc, else `tcp`. Raises `InvalidConfiguration`, naming file and
    option.
    """
    config = load_options("broker.toml", BrokerConfig, own_dir, _REMOVED)
    config = msgspec.structs.replace(config, transport=_decided(config.transport, has_unix_sockets()))
    host = config.transport.host
    if config.transport.kind == "ipc":
        return config
    address = _ipv4(host)
    if not config.transport.is_encrypted and (address is None or not address.is_loopback):
        raise InvalidConfiguration(
            f"broker.toml: transport.host is {host!r}, and with transport.tcp_readable_by_local_users everyone on that "
            "network could read what is sent. Remove that option: then connections are encrypted (CURVE), and "
            "backtestr keys new NAME makes a key for each client elsewhere. Or use 127.0.0.1, and an SSH tunnel from "
            "elsewhere",
            option="transport.tcp_readable_by_local_users",
        )
    if address is None or address.is_unspecified:
        raise InvalidConfiguration(
            f"broker.toml: transport.host is {host!r}: expected the one IPv4 address of this machine that clients "
            "connect to, since the connection file tells them (192.168.1.5)",
            option="transport.host",
        )
    return config


def _decided(transport: TransportOptions, has_ipc: bool) -> TransportOptions:
    """Return the options with `ipc` or `tcp` in place of `auto`. Raises `InvalidConfiguration` for an absent `ipc`."""
    if transport.kind == "ipc" and not has_ipc:
        raise InvalidConfiguration(
            "broker.toml: transport.kind is 'ipc', and ZeroMQ has no ipc on this system; write 'auto' or 'tcp'",
            option="transport.kind",
        )
    if transport.kind != "auto":
        return transport
    return msgspec.structs.replace(transport, kind="ipc" if has_ipc else "tcp")


def _ipv4(host: str) -> ipaddress.IPv4Address | None:
    try:
        return ipaddress.IPv4Address(host)
    except ValueError:
        return None
