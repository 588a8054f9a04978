"""What the core is told and what it asks for: the whole language between the core and the shell.

Events go in with the monotonic time at which they happened; effects come out, to be executed in order. Wall-clock time
(`wall_ms`, milliseconds since the Unix epoch) is data and comes in with the event.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from backtestr_protocol.topics import Socket
from backtestr_protocol.worker_channel import WorkerKind

from .records import Change, StateRecord


class HostSample(msgspec.Struct, frozen=True, kw_only=True):
    """How the machine fares: bytes, percent of all cores, the longest the loop was away since the last sample, and
    whether the flight recorder had to give up."""

    memory_used: int
    memory_total: int
    cpu_percent: float
    loop_lag_ms: float
    recorder_failed: bool = False
    cpu_seconds: Mapping[int, float] = {}  # that each process has used since its start, by process id


# --- events ---


class RequestReceived(msgspec.Struct, frozen=True, tag=True):
    """Frames from a client; `peer` is its connection's identity, a new one for every connection."""

    peer: bytes
    frames: list[bytes]
    wall_ms: int


class ClientsDropped(msgspec.Struct, frozen=True, tag=True):
    """Every connection of clients was ended; those who may come back do, each as a new peer."""

    reason: str
    wall_ms: int


class Subscribed(msgspec.Struct, frozen=True, tag=True):
    """A peer of a stream's socket says that it subscribed to what begins with `prefix` (`delta` 1), or that it is done
    with it (-1), as one that has gone is."""

    socket: Socket
    prefix: bytes
    delta: int
    wall_ms: int


class ListenersFound(msgspec.Struct, frozen=True, tag=True):
    """ZeroMQ's word on some prefixes: somebody, or nobody, holds them."""

    socket: Socket
    held: list[bytes]
    deserted: list[bytes]
    wall_ms: int


class SubscribersDropped(msgspec.Struct, frozen=True, tag=True):
    """Every connection to a stream's socket was ended; those who may come back do, and subscribe again."""

    socket: Socket
    wall_ms: int


class WorkerSent(msgspec.Struct, frozen=True, tag=True):
    """Frames from whoever is connected to the engine socket."""

    peer: bytes
    frames: list[bytes]
    wall_ms: int


class WorkerStarted(msgspec.Struct, frozen=True, tag=True):
    """The supervisor started a process or thread that will call itself `worker_id`."""

    worker_id: str
    kind: WorkerKind
    pid: int
    wall_ms: int


class WorkerExited(msgspec.Struct, frozen=True, tag=True):
    """It ended, however: `reason` is for people ("killed by signal 9"). It was the `early_deaths`th time in a row that
    it did so soon after its start, and the next start waits for so long. What it was at is `overdue` where it was ended
    for having used too much processor time."""

    worker_id: str
    reason: str
    wall_ms: int
    early_deaths: int = 0
    restart_ms: int = 0
    overdue: bool = False


class Tick(msgspec.Struct, frozen=True, tag=True):
    """The deadline that `next_deadline` named has come."""

    host: HostSample
    wall_ms: int


class Committed(msgspec.Struct, frozen=True, tag=True):
    """Every `Persist` up to and including that ticket is on disk."""

    ticket: int
    wall_ms: int


class CommitFailed(msgspec.Struct, frozen=True, tag=True):
    """No `Persist` of that generation that was not reported on disk before is there, nor will be."""

    generation: int
    reason: str
    wall_ms: int


class StateRead(msgspec.Struct, frozen=True, tag=True):
    """What is on disk of a key of shared state: nothing, where it cannot be read either."""

    key: str
    record: StateRecord | None
    wall_ms: int


Event = (
    RequestReceived
    | ClientsDropped
    | Subscribed
    | ListenersFound
    | SubscribersDropped
    | WorkerSent
    | WorkerStarted
    | WorkerExited
    | Tick
    | Committed
    | CommitFailed
    | StateRead
)

# --- effects ---


class Reply(msgspec.Struct, frozen=True, tag=True):
    """Send to one client."""

    peer: bytes
    frames: list[bytes]


class Publish(msgspec.Struct, frozen=True, tag=True):
    """Send to every subscriber of the topic, on its socket."""

    socket: Socket
    frames: list[bytes]


class Instruct(msgspec.Struct, frozen=True, tag=True):
    """Send to one worker."""

    peer: bytes
    frames: list[bytes]


class Persist(msgspec.Struct, frozen=True, tag=True):
    """Write to disk, all of it or nothing, in the order of the tickets; see `ledger` for generations."""

    ticket: int
    generation: int
    changes: tuple[Change, ...]


class ReadState(msgspec.Struct, frozen=True, tag=True):
    """Read a key of shared state from disk, after what was to be written before this."""

    key: str


class FindListeners(msgspec.Struct, frozen=True, tag=True):
    """Ask ZeroMQ whether anybody holds these prefixes. Where none is `in_doubt`, that somebody does is no news."""

    socket: Socket
    prefixes: tuple[bytes, ...]
    in_doubt: bool


class Kill(msgspec.Struct, frozen=True, tag=True):
    """End a worker's process at once; its end comes back as `WorkerExited`, with the reason in front."""

    worker_id: str
    reason: str


class Notify(msgspec.Struct, frozen=True, tag=True):
    """Tell whoever listens in this process: logging, metrics, hooks."""

    signal: Literal[
        "serving",
        "client_joined",
        "client_left",
        "message_refused",
        "request_refused",
        "backtest_changed",
        "replay_changed",
        "worker_ready",
        "worker_lost",
        "state_repaired",
        "fault",
    ]
    facts: Mapping[str, Any]


Effect = Reply | Publish | Instruct | Persist | ReadState | FindListeners | Kill | Notify
