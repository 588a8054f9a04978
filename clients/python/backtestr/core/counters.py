"""The counters of a client: its requests, and the losses and repairs of its streams."""

from __future__ import annotations

import msgspec


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """The counters of a client since it was made, at one moment.

    Requests are those of the program, without the client's own. Each gap in a topic is counted as seen, and at last as
    one of `gaps_repaired`, `gaps_lost` (at least one message of it is lost; `messages_lost` counts them) or `gaps_left`
    (its repair was given up: the subscription was closed, or another instance of the broker began the topic again).
    `gaps_open` are being repaired.
    """

    sessions: int  # opened: 1, and one more for every reconnection
    requests: int
    answered: int
    failed: int
    resent: int  # under the same id: after silence, a fault, a busy broker or a new session
    waiting: int  # requests without an answer, now
    queued: int  # of those, the ones that wait for a broker
    dropped: int  # failed without having been sent: the offline queue was full, the circuit open, or time was up
    gaps_seen: int
    gaps_repaired: int
    gaps_lost: int
    gaps_left: int
    gaps_open: int
    messages_lost: int
    duplicates_dropped: int
    watermarks_behind: int  # watermarks that reported messages which had not come
    errors: int  # reported, including those that `errors` no longer holds
    listeners_missed: int  # calls of callbacks that were dropped, because callbacks were too slow


class RequestCounters:
    """The counters of the program's requests."""

    __slots__ = ("answered", "failed", "refused", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.answered = 0
        self.failed = 0
        self.refused = 0  # by this client, before the session had them

    @property
    def waiting(self) -> int:
        """The requests without an answer."""
        return self.requests - self.answered - self.failed


class SessionCounters:
    """The counters of one session object, across connections."""

    __slots__ = ("dropped", "resent", "sessions")

    def __init__(self) -> None:
        self.sessions = 0
        self.resent = 0
        self.dropped = 0


class StreamCounters:
    """The counters of all topics of one client."""

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
        """The gaps that are being repaired."""
        return self.gaps_seen - self.gaps_repaired - self.gaps_lost - self.gaps_left


def statistics(
    requests: RequestCounters,
    session: SessionCounters,
    streams: StreamCounters,
    *,
    queued: int,
    errors: int,
    listeners_missed: int,
) -> Statistics:
    """Return all counters as one value."""
    return Statistics(
        sessions=session.sessions,
        requests=requests.requests,
        answered=requests.answered,
        failed=requests.failed,
        resent=session.resent,
        waiting=requests.waiting,
        queued=queued,
        dropped=session.dropped + requests.refused,
        gaps_seen=streams.gaps_seen,
        gaps_repaired=streams.gaps_repaired,
        gaps_lost=streams.gaps_lost,
        gaps_left=streams.gaps_left,
        gaps_open=streams.gaps_open,
        messages_lost=streams.messages_lost,
        duplicates_dropped=streams.duplicates_dropped,
        watermarks_behind=streams.watermarks_behind,
        errors=errors,
        listeners_missed=listeners_missed,
    )
