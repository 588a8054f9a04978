"""Hooks are blinker signals that the event loop sends to the log, to metrics and to programs that embed the broker.

    @hooks.backtest_changed.connect
    def on_change(sender, *, backtestId, status, **more): ...

A callback runs on the broker's thread and must be quick. An error in one is logged, and the other callbacks are still
called. A signal about a request, client, backtest or worker has its `requestId`, `clientId`, `backtestId`, `workerId`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import blinker

serving = blinker.Signal("every socket is bound and workers are ready")
client_joined = blinker.Signal("a session was opened: clientId, clientName, and key of the allow-list, if any")
client_left = blinker.Signal("a session ended: clientId, reason")
client_denied = blinker.Signal("a handshake was refused, sent once a second: address, reason, untold")
clients_dropped = blinker.Signal("connections of clients were ended; clients may connect again: reason")
connections_ended = blinker.Signal(
    "connections were too many or silent, sent once a heartbeat: socket, ended, connections (that are left), limit"
)
descriptors_exhausted = blinker.Signal(
    "hardly a file descriptor is left, and nobody can connect over Unix sockets until there are more: limit"
)
allow_list_problem = blinker.Signal("a file of the allow-list cannot be used, and its key may not connect: reason")
message_refused = blinker.Signal("a message could not be accepted: code, reason, workerId where a worker sent it")
request_refused = blinker.Signal(
    "a request was refused, sent up to 20 times a second: clientId, requestId, type, code, message, untold if any were"
)
message_dropped = blinker.Signal("a peer's queue was full, sent once a second: socket, untold")
peer_gone = blinker.Signal("a peer was gone before a message to it was sent: socket")
backtest_changed = blinker.Signal(
    "a backtest's status changed: backtestId, status, clientId, requestId, where there are any workerId, code, message"
)
backtest_deleted = blinker.Signal("retention has deleted a backtest with its results: backtestId, bytes, reason")
sweep_deleted = blinker.Signal("retention has deleted a sweep with its rows: sweepId, bytes, reason")
sweep_changed = blinker.Signal(
    "a sweep's status changed: sweepId, status, clientId, requestId, where there are any code, message"
)
replay_changed = blinker.Signal(
    "a price replay's status changed: replayId, status, clientId, requestId, where there are any workerId, reason, "
    "code, message"
)
worker_ready = blinker.Signal("a worker takes tasks from now on: workerId, pid, kind")
spare_ready = blinker.Signal("a spare worker waits for the loss of another: workerId, pid, kind")
worker_lost = blinker.Signal("a worker's process ended: workerId, reason, and the tasks that it had")
stops = blinker.Signal("the broker ends, since a client has asked for it: clientId")
starts_again = blinker.Signal("the broker ends all connections and starts again, from what is on disk: reason")
recorder_stopped = blinker.Signal("the recorder has failed, and the broker continues without it: reason")
recorder_resumed = blinker.Signal("the recorder goes on after a failure of the disk: missing, a number of events")
state_repaired = blinker.Signal("a damaged value in memory was read from disk again: key")
fault = blinker.Signal(
    "the broker or the engine has a fault: code, message, id, the ids that it is about, of an exception raised, during "
    "and traceback"
)

SIGNALS: Mapping[str, blinker.Signal] = {
    name: signal for name, signal in globals().items() if isinstance(signal, blinker.Signal)
}

_log = logging.getLogger(__name__)


def send(name: str, facts: Mapping[str, Any]) -> None:
    """Call the callbacks of the signal `name`. `untold` in `facts` counts those that were suppressed before."""
    for callback in list(SIGNALS[name].receivers_for(blinker.ANY)):
        try:
            callback(None, **facts)
        except Exception:  # no error of a callback may stop the broker; the log has its traceback
            _log.exception("a callback of %s failed", name)
