"""Execute the requests about price replays, and take what workers report of them (PROTOCOL.md, section 10).

An interactive task reads the bars; its worker then hosts the price replay. A pause, resume or stop is answered when
that worker has done it; while no worker hosts the price replay, because the last one was lost, it is done at once.
"""

from __future__ import annotations

from collections.abc import Set
from functools import partial

import msgspec

from backtestr_broker.core.clients.answers import RequestKey
from backtestr_broker.core.clients.sessions import Session
from backtestr_broker.core.outbox import Outbox
from backtestr_broker.core.price_replays import MAX_LOSSES, RETRY_AFTER_MS, PriceReplay, PriceReplayEvent, PriceReplays
from backtestr_broker.core.scheduling.interactive_tasks import Result
from backtestr_broker.core.scheduling.scheduler import Scheduler
from backtestr_broker.core.scheduling.workers import Worker
from backtestr_protocol import topics, worker_channel
from backtestr_protocol.codec import decode, encode, encoded_payload
from backtestr_protocol.errors import (
    BacktestrError,
    Busy,
    ErrorData,
    InvalidConfiguration,
    MessageError,
    StateConflict,
    SystemFault,
    ValidationError,
)
from backtestr_protocol.messages import Nothing
from backtestr_protocol.price_messages import (
    AcknowledgePrices,
    PriceReplayAccepted,
    PriceReplayList,
    PriceReplayRef,
    PriceReplayStatus,
    StartPriceReplay,
)
from backtestr_protocol.worker_channel import Action

# Requests that wait for one price replay to pause, resume or stop. So what waits in a worker has a bound, too.
MAX_WAITING = 16
# Seconds without a session of its client after which a price replay with credit is stopped: it goes as far as the
# client has read, and without a session the client reads nothing. A client that connects again has one long before.
ABSENT_SECONDS = 5.0

_DONE: dict[Action, PriceReplayEvent] = {"pause": "paused", "resume": "resumed", "stop": "stopped"}
_IN_EFFECT = (("paused", "pause"), ("running", "resume"))

_opened_decoder = msgspec.msgpack.Decoder(worker_channel.OpenedReplay)


class PriceReplayRequests:
    """The requests about price replays, as methods, and what becomes of the price replays."""

    def __init__(self, outbox: Outbox, scheduler: Scheduler) -> None:
        self._outbox = outbox
        self._scheduler = scheduler
        self._replays = PriceReplays()

    # --- requests ---

    def start(self, _session: Session, data: StartPriceReplay, request_key: RequestKey) -> None:
        rates = (data.bars_per_second is not None, data.speed is not None, data.as_fast_as_read)
        if sum(rates) != 1:
            raise InvalidConfiguration(
                "a replay needs a rate, and one only: barsPerSecond, or speed (1 is real time), or asFastAsRead",
                paths=["$.barsPerSecond", "$.speed", "$.asFastAsRead"],
            )
        replay = PriceReplay(data.replay_id or self._outbox.unique_id(), data, request_key)
        self._replays.add(replay)
        try:
            self._open(replay)
        except Busy:
            self._replays.forget(replay)
            raise

    def pause(self, _session: Session, data: PriceReplayRef, request_key: RequestKey) -> PriceReplayAccepted | None:
        return self._steer(self._replays.get(data.replay_id), "pause", request_key)

    def resume(self, _session: Session, data: PriceReplayRef, request_key: RequestKey) -> PriceReplayAccepted | None:
        return self._steer(self._replays.get(data.replay_id), "resume", request_key)

    def stop(self, _session: Session, data: PriceReplayRef, request_key: RequestKey) -> PriceReplayAccepted | None:
        """Stop a price replay. One that has ended stays as it is; one that is starting never starts."""
        starting = self._replays.find(data.replay_id)
        if starting is not None and starting.status == "starting":
            if not starting.discarded:
                starting.discarded = True
                self._outbox.answer(
                    starting.request_key, StateConflict("stopped before it had started", status="stopped")
                )
            return PriceReplayAccepted(replay_id=starting.replay_id, status="stopped")
        replay = self._replays.get(data.replay_id)
        return replay.accepted() if replay.ended else self._steer(replay, "stop", request_key)

    def acknowledge(self, session: Session, data: AcknowledgePrices, _request_key: RequestKey) -> PriceReplayAccepted:
        replay = self._replays.get(data.replay_id)
        if replay.ended:
            return replay.accepted()
        if not replay.request.as_fast_as_read or session.client_id != replay.client_id:
            raise StateConflict(
                "this replay has a rate and waits for no client"
                if not replay.request.as_fast_as_read
                else f"this replay waits for {replay.client_id!r} only, the client that started it",
                status=replay.status,
            )
        last_seq = self._outbox.sequencer.last_seq(replay.topic)
        if data.seq > last_seq:
            raise ValidationError(f"$.seq: {data.seq}; {replay.topic} has come to {last_seq}", path="$.seq")
        allowed = replay.acknowledge(data.seq, last_seq)
        if allowed is not None and replay.worker_id is not None:
            self._outbox.instruct(
                self._worker_of(replay).peer, worker_channel.Credit(replay_id=replay.replay_id, allowed=allowed)
            )
        return replay.accepted()

    def status(self, _session: Session, data: PriceReplayRef, _request_key: RequestKey) -> PriceReplayStatus:
        return self._replays.get(data.replay_id).status_message()

    def list_all(self, _session: Session, _data: Nothing, _request_key: RequestKey) -> PriceReplayList:
        """Return all that clients know, the latest first."""
        known = [replay for replay in reversed([*self._replays]) if replay.status != "starting"]
        return PriceReplayList(replays=[replay.status_message() for replay in known])

    def _steer(self, replay: PriceReplay, action: Action, request_key: RequestKey) -> PriceReplayAccepted | None:
        if replay.ended:
            raise StateConflict(f"a replay that is {replay.status} cannot be {_DONE[action]}", status=replay.status)
        if not replay.waiting and (replay.status, action) in _IN_EFFECT:
            return replay.accepted()
        if replay.worker_id is None:
            self._change(replay, _DONE[action])
            return replay.accepted()
        if len(replay.waiting) >= MAX_WAITING:
            raise Busy(f"{MAX_WAITING} requests wait for this replay already", retryAfterMs=RETRY_AFTER_MS)
        self._tell(replay, action, request_key)
        return None

    def _tell(self, replay: PriceReplay, action: Action, request_key: RequestKey | None) -> None:
        replay.waiting.append((action, request_key))
        self._outbox.instruct(
            self._worker_of(replay).peer, worker_channel.Control(task_id=replay.replay_id, action=action)
        )

    # --- opening: at the start, and again when the worker was lost ---

    def _open(self, replay: PriceReplay, *, again: bool = False) -> None:
        request = replay.request
        opened = replay.opened
        order = worker_channel.OpenReplay(
            replay_id=replay.replay_id,
            symbol=request.symbol,
            timeframe=request.timeframe,
            price=request.price,
            start_time=_whole(request.start_time) if opened is None else opened.start_time,
            end_time=_whole(request.end_time) if opened is None else opened.end_time + 1,
            bars_per_second=request.bars_per_second,
            speed=request.speed,
            allowed=replay.allowed if request.as_fast_as_read else None,
            position=replay.position,
            paused=True,  # until the core knows which worker hosts it
            checksum=None if opened is None else opened.checksum,
        )
        self._scheduler.interactive.ask(
            "OpenReplay",
            encode(order),
            replay.request_key,
            "B",
            done=partial(self._opened, replay.replay_id),
            admitted=again,
        )

    def _opened(self, replay_id: str, worker: Worker | None, result: Result) -> None:
        """Take the worker that has read the bars and hosts the price replay, or the error."""
        replay = self._replays.find(replay_id)
        if replay is None or replay.ended:  # it ended while it moved to another worker
            if worker is not None and isinstance(result, list):
                self._outbox.instruct(worker.peer, worker_channel.Control(task_id=replay_id, action="stop"))
            return
        if not isinstance(result, list):
            self._not_opened(replay, result)
            return
        try:
            found = decode(_opened_decoder, b"".join(result))
        except MessageError as error:
            self._not_opened(replay, SystemFault(f"the answer to OpenReplay is no OpenedReplay: {error}"))
            return
        assert worker is not None
        replay.worker_id = worker.worker_id
        if replay.discarded:
            self._tell(replay, "stop", None)
            return
        if replay.status == "starting":
            self._outbox.sequencer.create(replay.topic)
            replay.opened = found
            replay.acknowledged = self._outbox.sequencer.last_seq(replay.topic)
            self._change(replay, "opened")
            self._outbox.answer(replay.request_key, replay.started(replay.acknowledged + 1))
        if replay.request.as_fast_as_read:
            self._outbox.instruct(worker.peer, worker_channel.Credit(replay_id=replay_id, allowed=replay.allowed))
        if replay.status == "running":
            self._tell(replay, "resume", None)

    def _not_opened(self, replay: PriceReplay, error: BacktestrError | ErrorData) -> None:
        if replay.discarded:
            self._replays.forget(replay)
        elif replay.opened is None:
            self._replays.forget(replay)
            self._outbox.answer(replay.request_key, error)
        else:
            self._fail(replay, error)

    # --- worker messages: one that does not fit raises `ValidationError` and changes nothing ---

    def published(self, worker: Worker, message: worker_channel.Published, payload: list[bytes]) -> None:
        """Publish the bars that a worker sent."""
        assert message.replay is not None
        replay = self._replays.find(message.replay.replay_id)
        if replay is None or replay.worker_id != worker.worker_id or replay.topic != message.topic:
            raise ValidationError(
                f"{worker.worker_id} published on {message.topic[:200]!r} for a replay it does not host"
            )
        most = (replay.allowed if replay.request.as_fast_as_read else replay.bars) - replay.position
        if len(payload) != 1 or message.count > most or replay.status != "running":
            raise ValidationError(
                f"{worker.worker_id} published {message.count} messages in {len(payload)} frames for replay "
                f"{replay.replay_id}, which is {replay.status} and could publish {most}"
            )
        self._outbox.publish(replay.topic, payload[0], message.count)
        replay.position += message.count
        replay.current_time = message.replay.current_time
        replay.last_seq = self._outbox.sequencer.last_seq(replay.topic)
        replay.losses = 0

    def steered(self, worker: Worker, message: worker_channel.Paused | worker_channel.Resumed) -> None:
        """Take that the worker has done the first action that it was told."""
        replay = self._replays.find(message.task_id)
        action: Action = "pause" if isinstance(message, worker_channel.Paused) else "resume"
        hosted = replay is not None and replay.worker_id == worker.worker_id
        if replay is None or not hosted or [one for one, _ in replay.waiting[:1]] != [action]:
            raise ValidationError(f"{worker.worker_id} was not told to {action} replay {message.task_id[:200]!r}")
        _, request_key = replay.waiting.pop(0)
        self._done(replay, action, request_key)

    def finished(self, worker: Worker, message: worker_channel.Finished) -> None:
        """Take the end of a price replay: its worker hosts it no more."""
        replay = self._replays.find(message.task_id)
        if replay is None or replay.worker_id != worker.worker_id:
            if message.outcome != "stopped":
                raise ValidationError(
                    f"{worker.worker_id} finished replay {message.task_id[:200]!r}, which it did not host"
                )
        elif replay.discarded:
            self._replays.forget(replay)
        elif message.outcome == "failed" and message.error is not None:
            self._fail(replay, message.error)
        elif message.outcome == "stopped" and any(action == "stop" for action, _ in replay.waiting):
            self._end(replay, "stopped")
        elif message.outcome == "completed" and replay.position == replay.bars and replay.status == "running":
            self._end(replay, "completed")
        else:
            at = f"{replay.status} at {replay.position} of {replay.bars} bars"
            self._fail(replay, SystemFault(f"the engine said {message.outcome!r} of replay {replay.replay_id}, {at}"))

    def lost(self, worker_id: str, reason: str) -> None:
        """Settle the requests about a lost worker's price replays, and have another worker continue those."""
        for replay in self._replays.active:
            if replay.worker_id != worker_id:
                continue
            replay.worker_id = None
            if replay.discarded:
                self._replays.forget(replay)
                continue
            waiting, replay.waiting = replay.waiting, []
            for action, request_key in waiting:
                if not replay.ended:
                    self._done(replay, action, request_key)
                elif request_key is not None:
                    self._outbox.answer(request_key, _after_its_end(replay, action))
            if replay.ended:
                continue
            replay.losses += 1
            if replay.losses > MAX_LOSSES:
                said = f"the worker of replay {replay.replay_id} ended {replay.losses} times in a row: {reason}"
                self._fail(replay, SystemFault(said))
            else:
                self._open(replay, again=True)

    def stop_unread(self, connected: Set[str], now: float) -> None:
        """Stop the price replays whose client reads no more: it is not `connected`."""
        for replay in self._replays.active:
            if not replay.request.as_fast_as_read or replay.opened is None or replay.reason is not None:
                continue
            if replay.client_id in connected:
                replay.absent_since = None
                continue
            if replay.absent_since is None:
                replay.absent_since = now
            if now - replay.absent_since >= ABSENT_SECONDS:
                replay.reason = "its client has left"
                if replay.worker_id is None:
                    self._end(replay, "stopped")
                else:
                    self._tell(replay, "stop", None)

    # --- changes ---

    def _done(self, replay: PriceReplay, action: Action, request_key: RequestKey | None) -> None:
        """Answer a request whose action has taken effect."""
        if (replay.status, action) not in _IN_EFFECT:
            self._change(replay, _DONE[action])
        if request_key is not None:
            self._outbox.answer(request_key, replay.accepted())

    def _fail(self, replay: PriceReplay, error: BacktestrError | ErrorData) -> None:
        replay.error = self._outbox.error_data(error) if isinstance(error, BacktestrError) else error
        self._end(replay, "failed")

    def _end(self, replay: PriceReplay, event: PriceReplayEvent) -> None:
        waiting, replay.waiting = replay.waiting, []
        if event != "stopped":  # it ended before it could be stopped for that
            replay.reason = None
        self._change(replay, event)
        for action, request_key in waiting:
            if request_key is not None:
                self._outbox.answer(request_key, _after_its_end(replay, action))

    def _change(self, replay: PriceReplay, event: PriceReplayEvent) -> None:
        self._replays.change(replay, event)
        self._outbox.publish(topics.REPLAYS, encoded_payload("PriceReplayStatus", replay.status_message()))
        self._outbox.notify("replay_changed", **replay.facts())

    def _worker_of(self, replay: PriceReplay) -> Worker:
        assert replay.worker_id is not None
        return self._scheduler.workers.get(replay.worker_id)

    def waiting_requests(self) -> list[RequestKey]:
        """Return the keys of the requests that wait for a price replay to start or to change."""
        starting = [one.request_key for one in self._replays if one.status == "starting" and not one.discarded]
        changes = [request_key for one in self._replays for _, request_key in one.waiting if request_key is not None]
        return [*starting, *changes]

    def check_invariants(self) -> None:
        self._replays.check_invariants()
        opening = self._scheduler.interactive.opening()
        for replay in self._replays:
            assert replay.ended or replay.worker_id is not None or replay.request_key in opening, (
                f"{replay.replay_id} waits for nobody"
            )
            assert len(replay.waiting) <= MAX_WAITING + 1  # and a resume or stop that the broker told by itself
            if replay.worker_id is not None:
                assert self._worker_of(replay).peer is not None, f"{replay.replay_id} has no worker"


def _after_its_end(replay: PriceReplay, action: Action) -> PriceReplayAccepted | StateConflict:
    """Return the answer to a request that waited when the price replay ended."""
    if action == "stop":
        return replay.accepted()
    return StateConflict(f"it was {replay.status} before it could be {_DONE[action]}", status=replay.status)


def _whole(milliseconds: float | None) -> int | None:
    """Return a time as an integer: JavaScript sends it as a float."""
    return None if milliseconds is None else int(milliseconds)
