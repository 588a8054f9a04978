"""The language between the core and the event loop: events go in, effects come out, to be executed in order.

An event comes with the monotonic time at which it happened. Wall-clock time (`wall_ms`, milliseconds since the Unix
epoch) is data and comes in with the event. The names of these structs are tags in recordings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, final

import msgspec

from backtestr_protocol.result_messages import DiskUsage
from backtestr_protocol.rights import Right
from backtestr_protocol.topics import Socket
from backtestr_protocol.worker_channel import WorkerKind

from .records import Change, StateRecord


class SocketLoad(msgspec.Struct, frozen=True):
    """The connections to one socket, the most that it keeps, and how many were ended since the last sample."""

    connections: int
    limit: int
    ended: int = 0


class HostSample(msgspec.Struct, frozen=True, kw_only=True):
    """The machine's load: bytes, percent of all cores, and the longest lag of the event loop since the last sample.

    `recorder_failed` is true once the recorder had to give up. `sockets` is by name. `descriptors_exhausted` is true
    where hardly a file descriptor was left. Both are unset in recordings of version 0.1.
    """

    memory_used: int
    memory_total: int
    cpu_percent: float
    loop_lag_ms: float
    recorder_failed: bool = False
    cpu_seconds: Mapping[int, float] = {}  # used by each process since its start, by process id
    sockets: Mapping[str, SocketLoad] | msgspec.UnsetType = msgspec.UNSET
    descriptors_exhausted: bool | msgspec.UnsetType = msgspec.UNSET


# --- events ---


class RequestReceived(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """Frames from a client; `peer` is its connection's identity, a new one for every connection.

    `key` is the name on the allow-list of the key that the client connected with, and `right` that key's right. Clients
    of this user on this machine have no key on the list, and every right.
    """

    peer: bytes
    frames: list[bytes]
    wall_ms: int
    key: str | None = None
    right: Right = "all"


class ClientsDropped(msgspec.Struct, frozen=True, tag=True):
    """Every connection of clients was ended; clients that may connect again do, each as a new peer."""

    reason: str
    wall_ms: int


class Subscribed(msgspec.Struct, frozen=True, tag=True):
    """A peer of a stream's socket has subscribed to a prefix (`delta` 1), or unsubscribed or gone (`delta` -1)."""

    socket: Socket
    prefix: bytes
    delta: int
    wall_ms: int


class ListenersFound(msgspec.Struct, frozen=True, tag=True):
    """ZeroMQ's answer about some prefixes: connections hold the `held` ones; none holds the `unheld` ones."""

    socket: Socket
    held: list[bytes]
    unheld: list[bytes] = msgspec.field(name="deserted")  # the name that recordings have
    wall_ms: int


class SubscribersDropped(msgspec.Struct, frozen=True, tag=True):
    """Every connection to a stream's socket was ended; peers that may connect again do, and subscribe again."""

    socket: Socket
    wall_ms: int


class WorkerSent(msgspec.Struct, frozen=True, tag=True):
    """Frames from a peer on the engine socket."""

    peer: bytes
    frames: list[bytes]
    wall_ms: int


class WorkerStarted(msgspec.Struct, frozen=True, tag=True):
    """The supervisor started a process or thread for the worker `worker_id`."""

    worker_id: str
    kind: WorkerKind
    pid: int
    wall_ms: int


class WorkerExited(msgspec.Struct, frozen=True, tag=True):
    """A worker's process has ended; `reason` is for people ("killed by signal 9").

    It was the `early_deaths`th early exit in a row; the next start is in `restart_ms`. `overdue` is true if the worker
    was ended because its task had used too much processor time, `killed` if SIGKILL has ended it that the broker did
    not send: somebody did, or the system for want of memory.
    """

    worker_id: str
    reason: str
    wall_ms: int
    early_deaths: int = 0
    restart_ms: int = 0
    overdue: bool = False
    killed: bool | msgspec.UnsetType = msgspec.UNSET


class Tick(msgspec.Struct, frozen=True, tag=True):
    """The deadline that `next_deadline` named has come."""

    host: HostSample
    wall_ms: int


class Committed(msgspec.Struct, frozen=True, tag=True):
    """Every `Persist` up to and including that ticket is on disk."""

    ticket: int
    wall_ms: int


class CommitFailed(msgspec.Struct, frozen=True, tag=True):
    """No `Persist` of that generation is on disk, or will be, but those reported before."""

    generation: int
    reason: str
    wall_ms: int


class StateRead(msgspec.Struct, frozen=True, tag=True):
    """The record of a key of shared state on disk; None where it cannot be read."""

    key: str
    record: StateRecord | None
    wall_ms: int


class FilesSurveyed(msgspec.Struct, frozen=True, tag=True):
    """The results on disk that have changed since the last survey, by id: bytes, and when they were stored.

    `gone` are those that are no longer there. `problem` is why the files could not be surveyed. `sweeps` are the bytes
    of the rows of each sweep.
    """

    changed: dict[str, tuple[int, int]]
    gone: list[str]
    usage: DiskUsage | None
    problem: str | None
    wall_ms: int
    sweeps: dict[str, int] = {}


class ResultsRemoved(msgspec.Struct, frozen=True, tag=True):
    """The files of a batch were removed: the bytes that each backtest freed, and why some could not be removed."""

    batch: int
    freed: dict[str, int]
    failed: dict[str, str]
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
    | FilesSurveyed
    | ResultsRemoved
)

# --- effects ---


@final
class Reply(msgspec.Struct, frozen=True, tag=True):
    """Send to one client."""

    peer: bytes
    frames: list[bytes]


@final
class Publish(msgspec.Struct, frozen=True, tag=True):
    """Send to every listener of the topic, on its socket."""

    socket: Socket
    frames: list[bytes]


class Instruct(msgspec.Struct, frozen=True, tag=True):
    """Send to one worker."""

    peer: bytes
    frames: list[bytes]


class Persist(msgspec.Struct, frozen=True, tag=True):
    """Write to disk, all of it or nothing, in the order of the tickets; see `commit_queue` for generations."""

    ticket: int
    generation: int
    changes: tuple[Change, ...]


class ReadState(msgspec.Struct, frozen=True, tag=True):
    """Read a key of shared state from disk, after every change that was issued before."""

    key: str


class SurveyFiles(msgspec.Struct, frozen=True, tag=True):
    """Measure the files in the data directory; what has changed comes back as `FilesSurveyed`.

    Checkpoints that were written before `wall_ms` are removed, but for those of the `unended` backtests.
    """

    unended: tuple[str, ...] = ()
    wall_ms: int = 0


class RemoveResults(msgspec.Struct, frozen=True, tag=True):
    """Remove the stored results of backtests; comes back as `ResultsRemoved`."""

    batch: int
    backtest_ids: tuple[str, ...]


class FindListeners(msgspec.Struct, frozen=True, tag=True):
    """Ask ZeroMQ whether a connection holds these prefixes. `in_doubt`: also report those that are held."""

    socket: Socket
    prefixes: tuple[bytes, ...]
    in_doubt: bool


class Kill(msgspec.Struct, frozen=True, tag=True):
    """End a worker's process at once; its end comes back as `WorkerExited`, with the reason in front."""

    worker_id: str
    reason: str


class StartSpares(msgspec.Struct, frozen=True, tag=True):
    """Start the spare workers in a moment: all others have been ready, so their starts are not slowed."""


class Notify(msgspec.Struct, frozen=True, tag=True):
    """Send a hook."""

    signal: Literal[
        "serving",
        "client_joined",
        "client_left",
        "message_refused",
        "request_refused",
        "backtest_changed",
        "backtest_deleted",
        "sweep_deleted",
        "sweep_changed",
        "replay_changed",
        "worker_ready",
        "spare_ready",
        "worker_lost",
        "state_repaired",
        "fault",
    ]
    facts: Mapping[str, Any]


class StartAgain(msgspec.Struct, frozen=True, tag=True):
    """End this core, and start the broker again in this process from what is on disk; `reason` is for people."""

    reason: str


class Stop(msgspec.Struct, frozen=True, tag=True):
    """End the broker, once the other effects of this event are executed: a client has asked for it."""


Effect = (
    Reply
    | Publish
    | Instruct
    | Persist
    | ReadState
    | SurveyFiles
    | RemoveResults
    | FindListeners
    | Kill
    | StartSpares
    | Notify
    | StartAgain
    | Stop
)
