"""Hooks: blinker signals that the shell sends, for logging, metrics and whoever embeds the broker.

    @hooks.backtest_changed.connect
    def on_change(sender, *, backtestId, status, **more): ...

A listener runs on the broker's thread and must be quick. One that raises is logged and harms nobody. What is about a
request, a client, a backtest or a worker has its `requestId`, `clientId`, `backtestId`, `workerId`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import blinker

serving = blinker.Signal("every socket is bound and workers are ready")
client_joined = blinker.Signal("a session was opened: clientId, clientName")
client_left = blinker.Signal("a session ended: clientId, reason")
client_denied = blinker.Signal("somebody was not let in: address, reason, and how many before who were not told of")
clients_dropped = blinker.Signal("connections of clients were ended, and may be made again: reason")
allow_list_problem = blinker.Signal("a file of the allow-list is not as it must be and lets nobody in: reason")
message_refused = blinker.Signal("a message could not be accepted: code, reason, workerId where it was a worker's")
request_refused = blinker.Signal(
    "a request was refused, told up to 20 times a second: clientId, requestId, type, code, message, untold if any were"
)
message_dropped = blinker.Signal("a peer's queue was full, told once a second: socket, untold")
peer_gone = blinker.Signal("a peer had gone before a message to it was sent: socket")
backtest_changed = blinker.Signal(
    "a backtest's status changed: backtestId, status, clientId, requestId, where there are any workerId, code, message"
)
replay_changed = blinker.Signal(
    "a replay's status changed: replayId, status, clientId, requestId, where there are any workerId, reason, code, "
    "message"
)
worker_ready = blinker.Signal("a worker can work: workerId, pid, kind")
worker_lost = blinker.Signal("a worker's process ended: workerId, reason, and the tasks that it held")
recorder_stopped = blinker.Signal("the flight recorder had to give up, and the broker goes on without it: reason")
state_repaired = blinker.Signal("a damaged value in memory was read from disk again: key")
fault = blinker.Signal("something is wrong with the broker or the engine: code, message, id, and what it is about")

SIGNALS: Mapping[str, blinker.Signal] = {
    name: signal for name, signal in globals().items() if isinstance(signal, blinker.Signal)
}

_log = logging.getLogger(__name__)


def send(name: str, facts: Mapping[str, Any]) -> None:
    """Tell the listeners of the signal `name`."""
    for listener in list(SIGNALS[name].receivers_for(blinker.ANY)):
        try:
            listener(None, **facts)
        except Exception:  # whatever a listener does wrong must not stop the broker; the log has its traceback
            _log.exception("a listener of %s failed", name)
