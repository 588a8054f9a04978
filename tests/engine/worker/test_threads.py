"""What a worker's two threads share: a full queue wakes whoever empties it."""

from __future__ import annotations

import threading

from backtestr_engine.worker.threads import _Threads
from backtestr_protocol.worker_channel import Beat

OUTBOX = 4


def test_who_waits_for_room_has_woken_the_thread_that_makes_it() -> None:
    """It sleeps until something arrives or its beat is due: without that, a second would pass."""
    threads = _Threads("compute-1", OUTBOX, lambda _seconds: None)
    sending = threading.Thread(target=threads.send, args=([(Beat(task_id=None), ())] * (OUTBOX + 1),))
    threads.read_end.settimeout(10.0)
    sending.start()
    assert threads.read_end.recv(1), "it was woken, though what is sent is not all in the queue"
    assert threads.outbox.full()
    threads.outbox.get()
    sending.join(10.0)
    assert not sending.is_alive()
    threads.close()
