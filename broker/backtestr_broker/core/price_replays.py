"""Keep the price replays. Everything that can change the state of a price replay is in this file.

    starting ──opened──► running ──paused──► paused
                            │ ◄────resumed──── │
                            └───────┬──────────┘
                                    ▼
                     completed | failed | stopped  (final)

Clients know a price replay from `opened` on; one that cannot be opened is forgotten. The loss of its worker is no
change of state: the published bars are counted here, and another worker continues behind them. Price replays are
views: they do not outlive the broker.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from typing import Literal

from backtestr_broker.core.clients.answers import RequestKey
from backtestr_protocol import topics
from backtestr_protocol.errors import Busy, ErrorData, StateConflict, unknown
from backtestr_protocol.price_messages import (
    PriceReplayAccepted,
    PriceReplayStarted,
    PriceReplayStatus,
    ReplayState,
    StartPriceReplay,
)
from backtestr_protocol.worker_channel import Action, OpenedReplay

PriceReplayState = Literal["starting"] | ReplayState
PriceReplayEvent = Literal["opened", "paused", "resumed", "completed", "stopped", "failed"]

TRANSITIONS: dict[tuple[PriceReplayState, PriceReplayEvent], PriceReplayState] = {
    ("starting", "opened"): "running",
    ("running", "paused"): "paused",
    ("running", "completed"): "completed",
    ("running", "stopped"): "stopped",
    ("running", "failed"): "failed",
    ("paused", "resumed"): "running",
    ("paused", "stopped"): "stopped",
    ("paused", "failed"): "failed",
}
FINAL: frozenset[PriceReplayState] = frozenset({"completed", "stopped", "failed"})

# Each holds its bars in a worker, 48 MB at the most; half of them for one client leaves room for others.
MAX_REPLAYS = 32
MAX_REPLAYS_PER_CLIENT = 16
# Ended replays that are still listed.
MAX_ENDED = 100
# Messages that a price replay with credit may be ahead of its reader: as many as a topic retains, so that all of them
# can be repaired.
WINDOW = next(one.retained for one in topics.CLASSES if one.prefix == "prices.")
# The least credit that the worker is told of while the reader has not caught up.
LEAST_CREDIT = WINDOW // 8
# Workers lost in a row, without a bar in between, after which the price replay is taken for the cause.
MAX_LOSSES = 2
# Milliseconds that a client is told to wait before it tries again.
RETRY_AFTER_MS = 1000


class PriceReplay:
    """One price replay, from its request on."""

    __slots__ = (
        "absent_since",
        "acknowledged",
        "allowed",
        "client_id",
        "current_time",
        "discarded",
        "error",
        "last_seq",
        "losses",
        "opened",
        "position",
        "reason",
        "replay_id",
        "request",
        "request_key",
        "status",
        "topic",
        "waiting",
        "worker_id",
    )

    def __init__(self, replay_id: str, request: StartPriceReplay, request_key: RequestKey) -> None:
        self.replay_id = replay_id
        self.request = request
        self.request_key = request_key
        self.client_id = request_key[0]
        self.topic = topics.prices(request.symbol, request.timeframe)
        self.status: PriceReplayState = "starting"
        self.worker_id: str | None = None  # None while it is opened, or moves to another worker
        self.opened: OpenedReplay | None = None
        self.position = 0  # bars that were published
        self.current_time: int | None = None
        self.last_seq: int | None = None
        self.acknowledged = 0  # the sequence number up to which its client has read
        self.allowed = WINDOW if request.as_fast_as_read else 0  # bars that may have been published
        self.discarded = False  # stopped while it was starting: it is forgotten once no worker hosts it
        self.waiting: list[tuple[Action, RequestKey | None]] = []  # the actions that the worker was told, in order
        self.losses = 0  # of workers since the last bar
        self.absent_since: float | None = (
            None  # when its client, for whose reading it waits, was first found without a session
        )
        self.reason: str | None = None
        self.error: ErrorData | None = None

    @property
    def ended(self) -> bool:
        """True once the state is final."""
        return self.status in FINAL

    @property
    def bars(self) -> int:
        """The number of bars, 0 before they are read."""
        return self.opened.bars if self.opened is not None else 0

    @property
    def known_status(self) -> ReplayState:
        """The status of a price replay that clients know."""
        assert self.status != "starting", "no client knows of it yet"
        return self.status

    def acknowledge(self, seq: int, last_seq: int) -> int | None:
        """Take that the client has read up to `seq` of a topic that is at `last_seq`.

        Returns how many bars may have been published, if the worker has to know. A late acknowledgement takes nothing
        back.
        """
        self.acknowledged = max(self.acknowledged, seq)
        unread = last_seq - self.acknowledged
        allowed = self.position + max(0, WINDOW - unread)
        if allowed <= self.allowed or (allowed - self.allowed < LEAST_CREDIT and unread > 0):
            return None
        self.allowed = allowed
        return allowed

    def facts(self) -> dict[str, str]:
        """Return what the log has: the ids by which it is followed through all programs, and why it ended."""
        client_id, request_id = self.request_key
        facts = {"replayId": self.replay_id, "status": self.status, "clientId": client_id, "requestId": request_id}
        if self.worker_id is not None:
            facts["workerId"] = self.worker_id
        if self.reason is not None:
            facts["reason"] = self.reason
        if self.error is not None:
            facts |= {"code": self.error.code, "message": self.error.message}
        return facts

    def started(self, from_seq: int) -> PriceReplayStarted:
        return PriceReplayStarted(replay_id=self.replay_id, topic=self.topic, from_seq=from_seq, bars=self.bars)

    def accepted(self) -> PriceReplayAccepted:
        return PriceReplayAccepted(replay_id=self.replay_id, status=self.known_status)

    def status_message(self) -> PriceReplayStatus:
        opened, request = self.opened, self.request
        assert opened is not None, "no client knows of it yet"
        return PriceReplayStatus(
            replay_id=self.replay_id,
            client_id=self.client_id,
            status=self.known_status,
            symbol=request.symbol,
            timeframe=request.timeframe,
            bars=opened.bars,
            start_time=opened.start_time,
            end_time=opened.end_time,
            position=self.position,
            progress_percent=100.0 * self.position / opened.bars,
            bars_per_second=request.bars_per_second,
            speed=request.speed,
            as_fast_as_read=request.as_fast_as_read,
            current_time=self.current_time,
            last_seq=self.last_seq,
            reason=self.reason,
            error=self.error,
        )


class PriceReplays:
    """All price replays: the active ones, and the latest that have ended."""

    def __init__(self) -> None:
        self._replays: OrderedDict[str, PriceReplay] = OrderedDict()
        self._ended: OrderedDict[str, None] = OrderedDict()

    def __iter__(self) -> Iterator[PriceReplay]:
        return iter(list(self._replays.values()))

    @property
    def active(self) -> list[PriceReplay]:
        return [replay for replay in self if not replay.ended]

    def add(self, replay: PriceReplay) -> None:
        """Add a price replay. Raises `StateConflict` for an id that is taken.

        Raises `Busy` when there is no room for one more, or the one of that id is about to be forgotten.
        """
        earlier = self._replays.get(replay.replay_id)
        if earlier is not None and earlier.discarded:
            raise Busy(f"replay {replay.replay_id!r} is being stopped", retryAfterMs=RETRY_AFTER_MS)
        if earlier is not None:
            raise StateConflict(f"replay {replay.replay_id!r} exists; choose another replayId, or leave it out")
        owners = Counter(one.client_id for one in self.active)
        if owners.total() >= MAX_REPLAYS or owners[replay.client_id] >= MAX_REPLAYS_PER_CLIENT:
            raise Busy(
                f"{owners.total()} replays run, {owners[replay.client_id]} of them this client's; there can be "
                f"{MAX_REPLAYS}, and {MAX_REPLAYS_PER_CLIENT} of one client: stop one first",
                retryAfterMs=RETRY_AFTER_MS,
            )
        self._replays[replay.replay_id] = replay

    def find(self, replay_id: str) -> PriceReplay | None:
        """Return a price replay, also one that is still starting."""
        return self._replays.get(replay_id)

    def get(self, replay_id: str) -> PriceReplay:
        """Return a price replay that clients know. Raises `NotFound`, naming a near miss."""
        replay = self._replays.get(replay_id)
        if replay is None or replay.status == "starting":
            known = [one.replay_id for one in self if one.status != "starting"]
            raise unknown("replay", replay_id, known, hint="a replay does not outlive its broker")
        return replay

    def forget(self, replay: PriceReplay) -> None:
        """Remove a price replay that no client was told of."""
        del self._replays[replay.replay_id]

    def change(self, replay: PriceReplay, event: PriceReplayEvent) -> None:
        """Move `replay` along the table above. Raises `StateConflict` where the table has no such arrow."""
        following = TRANSITIONS.get((replay.status, event))
        if following is None:
            raise StateConflict(f"a replay that is {replay.status} cannot be {event}", status=replay.status)
        replay.status = following
        if replay.ended:
            replay.worker_id = None
            self._ended[replay.replay_id] = None
            if len(self._ended) > MAX_ENDED:
                forgotten, _ = self._ended.popitem(last=False)
                del self._replays[forgotten]

    def check_invariants(self) -> None:
        assert len(self.active) <= MAX_REPLAYS
        assert set(self._ended) == {replay.replay_id for replay in self if replay.ended}
        assert len(self._ended) <= MAX_ENDED
        for replay in self:
            assert (replay.opened is None) == (replay.status == "starting"), f"{replay.replay_id} {replay.status}"
            assert 0 <= replay.position <= replay.bars
            assert not (replay.ended and (replay.waiting or replay.worker_id)), f"{replay.replay_id} has ended"
            assert replay.worker_id is not None or not replay.waiting, "a request waits for a worker that is not there"
            assert replay.status != "completed" or replay.position == replay.bars
            if replay.request.as_fast_as_read:
                assert replay.position <= replay.allowed, f"{replay.replay_id} is ahead of its credit"
