"""Watching the system's status: a thread reads the heartbeats, and calls back at each change of the health."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from functools import partial

from backtestr.core.effects import Restarted
from backtestr.core.updates import Update
from backtestr.io.callback_thread import CallbackThread
from backtestr.io.io_thread import IoThread
from backtestr.requester import Requester
from backtestr.subscription import Subscription
from backtestr_protocol import topics
from backtestr_protocol.errors import BacktestrError
from backtestr_protocol.messages import Health, Nothing
from backtestr_protocol.system_status import SystemStatus

log = logging.getLogger("backtestr")


def watch_status(
    ask: Requester, io_thread: IoThread, callbacks: CallbackThread, callback: Callable[[SystemStatus], object]
) -> Callable[[], None]:
    """Call `callback` with the status of now and with every one of another health; return a function that ends that."""
    subscription = Subscription(io_thread, topics.STATUS, "now")
    ended = threading.Event()

    def deliver(status: SystemStatus) -> None:
        if not ended.is_set():
            callback(status)

    def follow() -> None:
        health: Health | None = None
        with contextlib.suppress(
            BacktestrError, RuntimeError
        ):  # without a broker, the first heartbeat is the first status
            now = ask("GetSystemStatus", Nothing(), SystemStatus)
            health = now.status
            callbacks.call(partial(deliver, now))
        try:
            for update in subscription:
                if isinstance(update, Restarted):
                    health = None
                elif isinstance(update, Update) and isinstance(update.data, SystemStatus):
                    if update.data.status != health:
                        callbacks.call(partial(deliver, update.data))
                    health = update.data.status
        except (BacktestrError, RuntimeError) as end:  # the broker refuses this client, or the client is closed
            log.info("the system's status is not followed any more: %s", end)

    def unsubscribe() -> None:
        ended.set()
        subscription.close()

    try:
        threading.Thread(target=follow, name="backtestr status", daemon=True).start()
    except BaseException:  # Ctrl-C included: nothing else could end the subscription
        subscription.close()
        raise
    return unsubscribe
