"""A link joins a client's real session and subscriptions to the broker's real core in one thread, with faults."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from backtestr.core.effects import (
    Answered,
    Ask,
    Deliver,
    DeliveredBatch,
    Delivery,
    End,
    Failed,
    Finished,
    Gap,
    Purpose,
    Send,
    SessionEffect,
    StreamMessage,
    Subscribe,
    SubscriptionEffect,
    TopicRepair,
    Unsubscribe,
    Wait,
)
from backtestr.core.recovery import Recovery
from backtestr.core.session import Session
from backtestr.core.subscriptions import Since, Subscriptions
from backtestr_broker.core.core import Core
from backtestr_broker.core.events import (
    Committed,
    Effect,
    HostSample,
    Persist,
    Publish,
    Reply,
    RequestReceived,
    Subscribed,
    Tick,
)
from backtestr_broker.core.settings import CoreSettings
from backtestr_protocol.codec import REQUEST, RESPONSE, Signer, decode_message, encode, encode_message, encoded_payload
from backtestr_protocol.envelopes import Outgoing, OutgoingPayload
from backtestr_protocol.errors import BacktestrError
from backtestr_protocol.messages import Contract
from backtestr_protocol.topics import sockets_for

WALL_MS = 1_790_000_000_000
LIMITS = CoreSettings(
    heartbeat_interval_ms=1_000,
    watermark_interval_ms=250,
    session_timeout_ms=30_000,
    max_message_bytes=1 << 20,
    max_queued_backtests=10,
    max_queued_questions=10,
    verify_interval_ms=1_000,
    worker_hung_ms=15_000,
    worker_silence_ms=600_000,
    rates={},
)
_HOST = HostSample(memory_used=1, memory_total=2, cpu_percent=0.0, loop_lag_ms=0.0)

Frames = list[bytes]
Outcome = Contract | BacktestrError


class Link:
    """A client and a broker, and the messages between them.

    `answers`, `events` and `delivered` collect the client's effects. Messages move only in `ask`, `publish`, `advance`
    and the like, each of which carries all of them to their end.
    """

    def __init__(self, recovery: Recovery | None = None) -> None:
        self.now = 100.0
        self.session = Session("tester", "nonce", recovery=recovery)
        self.subscriptions = Subscriptions()
        self.answers: dict[str, Outcome] = {}
        self.events: list[SessionEffect | SubscriptionEffect] = []
        self.delivered: dict[int, list[Delivery]] = {}
        self.ended: dict[int, BacktestrError | None] = {}
        self.finished: dict[str, Any] = {}
        self.sent: list[Frames] = []
        self._starts = 0
        self._connections = 0
        self._purposes: dict[str, Purpose] = {}
        self._lost_requests = self._lost_replies = 0
        self._error_instead: BacktestrError | None = None
        self._is_broker_there = True
        self._lose_stream: Callable[[str], bool] = lambda _: False
        self._under_way: deque[tuple[str, Frames]] = deque()
        self._waits: deque[TopicRepair] = deque()
        self.start_broker()

    # --- the broker ---

    def start_broker(self) -> None:
        """Start another instance of the broker, with a new key and an empty state, and connect to it."""
        self._starts += 1
        key = bytes([self._starts]) * 32
        self.signer = Signer(key)
        self.core = Core(
            signer=self.signer,
            id_seed=key,
            instance_id=f"instance-{self._starts}",
            limits=LIMITS,
            workers={"compute": 1, "interactive": 1},
            now=self.now,
        )
        for prefix in self.subscriptions.prefixes:  # as ZeroMQ does by itself
            self._report_subscription(prefix, 1)
        self.connect()

    def connect(self) -> None:
        """Make a new connection to the broker."""
        self._connections += 1
        self._under_way.clear()
        self._take(self.session.connected(self.signer, self.now, WALL_MS))
        self._take(self.subscriptions.connected(self.signer, self.core.instance_id))
        self.pump()

    def publish(self, topic: str, *numbers: int) -> None:
        """Publish a message on `topic`, or several as a batch."""
        payloads = [{"type": "Number", "data": number} for number in numbers]
        if len(payloads) == 1:
            self.core.outbox.publish(topic, encode(payloads[0]))
        else:
            batch = {"count": len(payloads), "compression": "none", "rawBytes": 0, "messages": payloads}
            self.core.outbox.publish(topic, encoded_payload("Batch", batch), len(payloads))
        self.carry_published()

    def carry_published(self) -> None:
        """Carry the messages that the core has published."""
        self._tick_broker()
        self.pump()

    # --- the client ---

    def ask(self, request_type: str, data: Contract, timeout: float = 10.0) -> str:
        request_id = self.send(request_type, data, timeout)
        self.pump()
        return request_id

    def send(self, request_type: str, data: Contract | msgspec.Raw, timeout: float, waited: float = 0.0) -> str:
        """Make a request as `ask` does, and carry nothing."""
        request_id, effects = self.session.request(request_type, data, self.now, WALL_MS, timeout, waited=waited)
        self._take(effects)
        return request_id

    def subscribe(
        self, number: int, prefix: str, since: Since, space: int = 1_000, until: str | None = None, first_seq: int = 1
    ) -> None:
        self.delivered[number] = []
        self._take(self.subscriptions.open(number, prefix, since, space, until, first_seq))
        self.pump()

    def started(self, backtest_id: str) -> None:
        """Tell the client that the broker has accepted a backtest that is followed as new."""
        self._take(self.subscriptions.started(backtest_id))
        self.pump()

    def take(self, number: int, count: int) -> None:
        """Take `count` deliveries as the reader."""
        self._take(self.subscriptions.taken(number, count))
        self.pump()

    def close(self, number: int) -> None:
        self._take(self.subscriptions.close(number))
        self.pump()

    def numbers(self, number: int) -> list[int | tuple[int, int]]:
        """Return the deliveries of a subscription: sequence numbers, and gaps as pairs."""
        found: list[int | tuple[int, int]] = []
        for delivery in self.delivered[number]:
            match delivery:
                case StreamMessage():
                    found.append(delivery.seq)
                case DeliveredBatch():
                    found += range(delivery.seq, delivery.last_seq + 1)
                case Gap():
                    found.append((delivery.from_seq, delivery.to_seq))
        return found

    def advance(self, seconds: float, step: float = 0.05) -> None:
        """Let time pass, in small steps, on both sides."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + step)
            self._tick_broker()
            self._take(self.session.tick(self.now, WALL_MS))
            self.pump()

    def pass_unnoticed(self, seconds: float) -> None:
        """Let time pass for the broker, while the client's machine sleeps."""
        self.now += seconds
        self._tick_broker()
        self.pump()

    def say_goodbye(self) -> None:
        self._take(self.session.farewell(self.now, WALL_MS))
        self.pump()

    # --- faults ---

    @contextlib.contextmanager
    def drop_requests(self, count: int = 1) -> Iterator[None]:
        """Lose the next `count` requests."""
        self._lost_requests = count
        yield
        self._lost_requests = 0

    @contextlib.contextmanager
    def drop_replies(self, count: int = 1) -> Iterator[None]:
        """Lose the next `count` answers."""
        self._lost_replies = count
        yield
        self._lost_replies = 0

    @contextlib.contextmanager
    def answering(self, error: BacktestrError) -> Iterator[None]:
        """Answer every request with `error`, and execute none."""
        self._error_instead = error
        yield
        self._error_instead = None

    @contextlib.contextmanager
    def broker_gone(self) -> Iterator[None]:
        """Kill the broker, disconnect the client, and start another instance afterwards."""
        self._is_broker_there = False
        self._under_way.clear()
        self.session.disconnected()
        yield
        self._is_broker_there = True
        self.start_broker()

    @contextlib.contextmanager
    def lossy_streams(self, is_lost: Callable[[str], bool] = lambda _: True) -> Iterator[None]:
        """Lose the stream messages for whose topic `is_lost` is true."""
        self._lose_stream = is_lost
        yield
        self._lose_stream = lambda _: False

    # --- carrying ---

    def pump(self, most: int | None = None) -> None:
        """Carry everything that is under way to its end, or the next `most` messages."""
        carried = 0
        while carried != most:
            if not self._under_way and most is None and self._waits:  # nothing is on its way any more
                self._take(self.subscriptions.waited(self._waits.popleft()))
                continue
            if not self._under_way:
                return
            carried += 1
            kind, frames = self._under_way.popleft()
            match kind:
                case "request" if self._error_instead is not None:
                    self._under_way.append(("reply", self._failure_of(self._error_instead, frames)))
                case "request":
                    peer = b"\0connection %d" % self._connections
                    self._from_broker(self.core.handle(RequestReceived(peer, frames, WALL_MS), self.now))
                case "reply":
                    self._take(self.session.receive(frames, self.now, WALL_MS))
                case "stream":
                    self._take(self.subscriptions.receive(frames))

    def _report_subscription(self, prefix: str, delta: int) -> None:
        """Report a subscription of the client to the broker, as its XPUBs do."""
        for socket in sockets_for(prefix):
            self._from_broker(self.core.handle(Subscribed(socket, prefix.encode(), delta, WALL_MS), self.now))

    def _failure_of(self, error: BacktestrError, request: Frames) -> Frames:
        asked = decode_message(self.signer, REQUEST, request).envelope
        envelope = Outgoing(
            id=f"to {asked.id}",
            timestamp=WALL_MS,
            schema_version=1,
            message_type="Response",
            payload=OutgoingPayload("Failure", error.to_data(component="broker", timestamp=WALL_MS)),
            correlation_id=asked.id,
        )
        return encode_message(self.signer, RESPONSE, envelope)

    def _tick_broker(self) -> None:
        if not self._is_broker_there:
            return
        self._from_broker(self.core.handle(Tick(_HOST, WALL_MS), self.now))

    def _from_broker(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Reply():
                    if self._lost_replies:
                        self._lost_replies -= 1
                    else:
                        self._under_way.append(("reply", effect.frames))
                case Persist():
                    self._from_broker(self.core.handle(Committed(effect.ticket, WALL_MS), self.now))
                case Publish():
                    topic = effect.frames[0].decode()
                    is_subscribed = any(topic.startswith(prefix) for prefix in self.subscriptions.prefixes)
                    if is_subscribed and not self._lose_stream(topic):
                        self._under_way.append(("stream", effect.frames))

    def _take(self, effects: list[SessionEffect] | list[SubscriptionEffect]) -> None:
        for effect in effects:
            match effect:
                case Send():
                    self.sent.append(effect.frames)
                    if self._lost_requests:
                        self._lost_requests -= 1
                    else:
                        self._under_way.append(("request", effect.frames))
                case Answered() | Failed() if effect.request_id in self._purposes:
                    purpose = self._purposes.pop(effect.request_id)
                    if isinstance(effect, Failed):
                        self._take(self.subscriptions.failed(purpose, effect.error))
                    else:
                        self._take(self.subscriptions.answered(purpose, effect.data))
                case Answered():
                    assert effect.request_id not in self.answers, "a request was answered twice"
                    self.answers[effect.request_id] = effect.data
                case Failed():
                    assert effect.request_id not in self.answers, "a request was answered twice"
                    self.answers[effect.request_id] = effect.error
                case Wait():
                    self._waits.append(effect.repair)
                case Ask():
                    request_id, sends = self.session.request(
                        effect.request_type, effect.data, self.now, WALL_MS, 5.0, is_own=True
                    )
                    self._purposes[request_id] = effect.purpose
                    self._take(sends)
                case Subscribe():
                    self.events.append(effect)
                    self._report_subscription(effect.prefix, 1)
                case Unsubscribe():
                    self.events.append(effect)
                    self._report_subscription(effect.prefix, -1)
                case Deliver():
                    self.delivered[effect.subscription_id] += effect.deliveries
                case End():
                    self.ended[effect.subscription_id] = effect.error
                case Finished():
                    self.finished[effect.backtest_id] = effect.outcome
                case _:
                    self.events.append(effect)

    def check_invariants(self) -> None:
        self.core.check_invariants()
        self.session.check_invariants()
        self.subscriptions.check_invariants()
