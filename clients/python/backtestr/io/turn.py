"""The turn is the right to use the sockets and machines of a client: one thread has it at a time.

The I/O thread has it while it works, and lets it go while it sleeps. A caller that does its own I/O has it for each of
its steps. Who waits for the turn gets it next: the I/O thread, which takes it again at once, cannot overtake a caller.
"""

from __future__ import annotations

import threading


class Turn:
    """Two locks: `next` is held by the one who waits for `now`, which is held by the one who has the turn.

    A caller writes `with turn.next, turn.now:`. Locks of Python are entered and left by `with` as a whole, also when an
    asynchronous exception arrives meanwhile, so a caller never leaves the turn taken.
    """

    def __init__(self) -> None:
        self.next = threading.Lock()
        self.now = threading.Lock()

    @property
    def is_free(self) -> bool:
        """True if a thread that asked now would not have to wait."""
        return not (self.next.locked() or self.now.locked())

    def take(self) -> None:
        """Wait for the turn and take it, in a thread that no exception can interrupt."""
        with self.next:
            self.now.acquire()

    def leave(self) -> None:
        """Give the turn back."""
        self.now.release()
