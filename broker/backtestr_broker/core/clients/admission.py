"""Admit or refuse a request by its client's rate and by the number of its running requests, and count requests.

A request comes here when it is known to be signed, in order and no duplicate. A request that is refused here was not
executed, is not remembered, and may be sent again under the same id.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from backtestr_protocol.errors import Busy, RateLimitExceeded
from backtestr_protocol.message_types import PRIORITIES, REQUESTS, Priority
from backtestr_protocol.system_status import RateStatus

from .idempotency import AnsweredRequests
from .rate_limit import Rate, RateLimits

# Requests of one client that are running and not answered yet: more than any client waits for, and few enough that one
# cannot fill the broker with them. Real-time requests have some more: where a flood has filled the rest, the request
# that stops it must still get through.
MAX_PENDING = 1024
PENDING_RESERVE = 256
# Clients that are counted, as many as may have a session. One that is forgotten and comes back is counted from zero.
MAX_COUNTED = 1024
# Milliseconds that a client is told to wait before it tries again.
RETRY_AFTER_MS = 1000


def priority_of(request_type: str) -> Priority:
    """Return the priority of a request type; an unknown type counts as bulk."""
    row = REQUESTS.get(request_type)
    return row.priority if row is not None else "K"


class ClientCounts:
    """One client's requests by priority, duplicates among them, and those that were refused."""

    __slots__ = ("busy", "requests", "throttled")

    def __init__(self) -> None:
        self.requests: dict[Priority, int] = dict.fromkeys(PRIORITIES, 0)
        self.throttled = 0
        self.busy = 0

    @property
    def total(self) -> int:
        """The number of requests of all priorities."""
        return sum(self.requests.values())


class Admission:
    """Checks the rate limits and the bound on running requests, and counts requests by client."""

    def __init__(self, rates: dict[Priority, Rate], answers: AnsweredRequests) -> None:
        self._rates = rates
        self._answers = answers
        self._rate_limits = RateLimits(rates)
        self._counts: OrderedDict[str, ClientCounts] = OrderedDict()  # the longest quiet first

    def count(self, client_id: str, request_type: str) -> None:
        """Count a request in order, whether or not it was answered before."""
        self._counts_of(client_id).requests[priority_of(request_type)] += 1

    def check(self, owner: str, request_type: str, now: float) -> None:
        """Admit a request that has begun. Raises `RateLimitExceeded`, and `Busy` when too many of its owner run.

        `owner` is the one whom limits apply to (`Session.owner`).
        """
        priority = priority_of(request_type)
        most = MAX_PENDING + (PENDING_RESERVE if priority == "R" else 0)
        if (running := self._answers.running_of(owner)) > most:
            raise Busy(
                f"{running - 1} requests of this client are running, the most there can be; wait for some answers",
                retryAfterMs=RETRY_AFTER_MS,
            )
        self._rate_limits.admit(owner, priority, now)

    def refused(self, client_id: str, code: str) -> None:
        """Count an error, if it is for lack of room or of a token."""
        if code == RateLimitExceeded.code:
            self._counts_of(client_id).throttled += 1
        elif code == Busy.code:
            self._counts_of(client_id).busy += 1

    def __iter__(self) -> Iterator[tuple[str, ClientCounts]]:
        """Yield the clients that are counted, the longest quiet first."""
        return iter(self._counts.items())

    def _counts_of(self, client_id: str) -> ClientCounts:
        """Return the counts of a client that asks for something now."""
        counts = self._counts.get(client_id)
        if counts is None:
            if len(self._counts) >= MAX_COUNTED:
                self._counts.popitem(last=False)
            counts = self._counts[client_id] = ClientCounts()
        self._counts.move_to_end(client_id)
        return counts

    def rates(self) -> dict[str, RateStatus]:
        """Return each priority's limit and how often it was hit."""
        unlimited = Rate(0, 0)
        return {
            priority: RateStatus(
                per_second=self._rates.get(priority, unlimited).per_second,
                burst=self._rates.get(priority, unlimited).burst,
                hits=self._rate_limits.hits[priority],
            )
            for priority in PRIORITIES
        }

    def check_invariants(self) -> None:
        self._rate_limits.check_invariants()
        assert len(self._counts) <= MAX_COUNTED
