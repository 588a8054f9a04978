"""What a client counts: how its requests fared, and what its streams lost and got back."""

from __future__ import annotations

import msgspec


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """A client's counters since it was made, at one moment.

    Requests are those of the program, without what the client asks by itself. Of the gaps in topics, each `gaps_seen`
    is at last one of `gaps_repaired`, `gaps_lost` (at least one message of it; `messages_lost` in all) or `gaps_left`
    (nobody wanted it any more: the subscription was closed, or another start of the broker began the topic anew);
    `gaps_open` are being repaired.
    """

    sessions: int  # opened: 1 and one more for each time of connecting again
    requests: int
    answered: int
    failed: int
    resent: int  # under the same id: for silence, a fault, a busy broker or a new session
    waiting: int  # for their answers, now
    queued: int  # of those: for a broker to come back
    dropped: int  # failed without ever having been sent: the queue was full, the circuit open, or time was up
    gaps_seen: int
    gaps_repaired: int
    gaps_lost: int
    gaps_left: int
    gaps_open: int
    messages_lost: int
    duplicates_dropped: int
    watermarks_behind: int  # that told of messages which had not come
    errors: int  # reported, those that `errors` no longer holds included
    listeners_missed: int  # calls of listeners that were dropped, because they were too slow


class SessionCounters:
    __slots__ = ("dropped", "resent", "sessions")

    def __init__(self) -> None:
        self.sessions = 0
        self.resent = 0
        self.dropped = 0


class StreamCounters:
    __slots__ = (
        "duplicates_dropped",
        "gaps_left",
        "gaps_lost",
        "gaps_repaired",
        "gaps_seen",
        "messages_lost",
        "watermarks_behind",
    )

    def __init__(self) -> None:
        self.gaps_seen = 0
        self.gaps_repaired = 0
        self.gaps_lost = 0
        self.gaps_left = 0
        self.messages_lost = 0
        self.duplicates_dropped = 0
        self.watermarks_behind = 0

    @property
    def gaps_open(self) -> int:
        return self.gaps_seen - self.gaps_repaired - self.gaps_lost - self.gaps_left
