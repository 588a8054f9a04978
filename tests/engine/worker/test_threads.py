"""A full outbox wakes the thread that empties it."""

from __future__ import annotations

import threading

from backtestr_engine.worker.threads import _Threads
from backtestr_protocol.worker_channel import Beat

OUTBOX = 4


def test_a_thread_that_waits_for_space_has_woken_the_thread_that_makes_it() -> None:
    """The I/O thread sleeps until a message arrives or its beat is due: without the wake-up, that takes a second."""
    threads = _Threads("compute-1", OUTBOX, lambda _seconds: None)
    sending = threading.Thread(target=threads.send, args=([(Beat(task_id=None), ())] * (OUTBOX + 1),))
    threads.read_end.settimeout(10.0)
    sending.start()
    assert threads.read_end.recv(1), "it was woken, though not all messages are in the queue"
    assert threads.outbox.full()
    threads.outbox.get()
    sending.join(10.0)
    assert not sending.is_alive()
    threads.close()
