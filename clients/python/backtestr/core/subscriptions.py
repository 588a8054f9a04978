"""All subscriptions of one client: their positions in each topic, and the search for lost messages and their repair.

No I/O. Three things reveal a loss: a jump in a topic's sequence numbers, `system.watermarks`, and a last request when
the backtest of a topic has ended. Each subscription also has a bound on its unread deliveries (`space`). Without space
a topic's sequence stands still, and the messages that pass meanwhile are fetched once there is space again. So a slow
reader costs memory up to the bound, then a repair, and only then a stated `Gap`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from backtestr_protocol import topics
from backtestr_protocol.codec import Signer, decode, decode_stream
from backtestr_protocol.envelopes import Payload
from backtestr_protocol.errors import (
    BacktestrError,
    Busy,
    MessageError,
    NetworkError,
    NotFound,
    TimedOut,
)
from backtestr_protocol.messages import FINAL_STATES, BacktestStatus, Contract, FetchMissed, Missed
from backtestr_protocol.stream_messages import Watermarks

from .counters import StreamCounters
from .effects import (
    Ask,
    Deliver,
    Delivery,
    End,
    Finished,
    Gap,
    MaybeLost,
    Purpose,
    Restarted,
    StatusCheck,
    StreamMessage,
    Subscribe,
    SubscriptionEffect,
    TopicRepair,
    UnattributedError,
    Unsubscribe,
    Wait,
    weight,
)
from .followed_backtests import FollowedBacktests, status_request
from .topic_stream import TopicStream

# The first message of a topic that a subscription gets. `now`: the next one that is published. `start`: the topic's
# first, because the topic is new. `retained`: the oldest that the broker retains. `latest`: the latest, for topics
# in which each message replaces those before it.
Since = Literal["now", "start", "retained", "latest"]

Effects = list[SubscriptionEffect]

# Seconds without a message of a topic after which messages that a watermark or an answer reports are missing. Until
# then they may be on their way: those come by another socket, and overtake a backlog.
QUIET = 0.25

_watermarks_decoder = msgspec.msgpack.Decoder(Watermarks)
_status_decoder = msgspec.msgpack.Decoder(BacktestStatus)

# The client's own subscription to system.backtests, which reports the end of every backtest.
_OWN = 0
_UNBOUNDED = 1 << 60


class _Subscription:
    __slots__ = ("_counters", "first_seq", "is_ending", "prefix", "since", "space", "streams", "until")

    def __init__(
        self, prefix: str, since: Since, until: str | None, space: int, counters: StreamCounters, first_seq: int
    ) -> None:
        self._counters = counters
        self.prefix = prefix
        self.since = since
        self.until = until  # the subscription ends with this backtest
        self.space = space
        self.is_ending = False
        self.first_seq = first_seq
        self.streams: dict[str, TopicStream] = {}
        self.begin()

    @property
    def is_exact(self) -> bool:
        return not self.prefix.endswith(".")

    def begin(self) -> None:
        """Start every topic from its beginning."""
        self.abandon()
        self.streams.clear()
        if self.is_exact and self.is_from_start:
            self.stream(self.prefix).next_seq = self.first_seq

    def abandon(self) -> None:
        """Give up the repairs that are under way."""
        for stream in self.streams.values():
            stream.abandon()

    @property
    def is_from_start(self) -> bool:
        """True if a topic begins with its first message, or with the oldest that is retained."""
        return self.since in ("start", "retained")

    def matches(self, topic: str) -> bool:
        return topic == self.prefix or (not self.is_exact and topic.startswith(self.prefix))

    def stream(self, topic: str) -> TopicStream:
        if topic not in self.streams:
            self.streams[topic] = TopicStream(topic, from_start=self.is_from_start, counters=self._counters)
        return self.streams[topic]


class Subscriptions:
    """The machine of all subscriptions: it takes messages, answers and the reader's progress, and returns effects."""

    def __init__(self) -> None:
        self._signer: Signer | None = None
        self._instance_id: str | None = None
        self._by_id: dict[int, _Subscription] = {}
        self._prefixes: Counter[str] = Counter()
        self._backtests = FollowedBacktests()
        self._watermark_seq = 0
        self._requests = 0  # numbers them
        self.counters = StreamCounters()

    @property
    def prefixes(self) -> list[str]:
        """The prefixes to subscribe to on a new connection."""
        return list(self._prefixes)

    # --- calls of the program -----------------------------------------------------------------------------------------

    def open(
        self,
        subscription_id: int,
        prefix: str,
        since: Since,
        space: int,
        until: str | None = None,
        first_seq: int = 1,
    ) -> Effects:
        """Begin a subscription to a topic, or to all whose names begin with `prefix` when that ends with a dot.

        It ends with the backtest `until`, once every message before the end is delivered. At most `space` deliveries
        are made before the reader has `taken` some. `first_seq` is the first sequence number of a topic that begins at
        its start or with its retained messages.
        """
        effects: Effects = []
        if not self._by_id:
            effects += self._subscribe(topics.WATERMARKS)
        subscription = self._by_id[subscription_id] = _Subscription(
            prefix, since, until, space, self.counters, first_seq
        )
        effects += self._subscribe(prefix)
        if since == "retained":
            effects += self._check_for_more(subscription_id, subscription)
        if until is not None:
            effects += self.follow(until, is_new=since == "start")
        return effects

    def close(self, subscription_id: int) -> Effects:
        """Forget a subscription. One that has ended is forgotten already."""
        subscription = self._by_id.pop(subscription_id, None)
        if subscription is None:
            return []
        subscription.abandon()
        effects = self._unsubscribe(subscription.prefix)
        return effects if self._by_id else effects + self._unsubscribe(topics.WATERMARKS)

    def follow(self, backtest_id: str, *, is_new: bool) -> Effects:
        """Report when this backtest has `Finished`.

        One that `is_new` cannot have finished before this call, and is not asked for before it has `started`: its start
        may still wait for a broker.
        """
        effects: Effects = []
        if _OWN not in self._by_id:
            effects += self.open(_OWN, topics.BACKTESTS, "retained", _UNBOUNDED)
        effects += self._backtests.follow(backtest_id, is_new=is_new)
        return effects

    def started(self, backtest_id: str) -> Effects:
        """Note that the broker has accepted a backtest that is followed as new."""
        return [*self._backtests.started(backtest_id)]

    def unfollow(self, backtest_id: str) -> None:
        """Report the end of this backtest no more."""
        self._backtests.unfollow(backtest_id)

    def taken(self, subscription_id: int, count: int) -> Effects:
        """Note that the reader has taken deliveries, which leaves space for `count` more."""
        subscription = self._by_id.get(subscription_id)
        if subscription is None:
            return []
        subscription.space += count
        effects: Effects = []
        for stream in list(subscription.streams.values()):
            effects += self._deliver(subscription_id, subscription, stream.resume(subscription.space))
            effects += self._fetch_missing(subscription_id, subscription, stream)
        return effects

    # --- the connection -----------------------------------------------------------------------------------------------

    def connected(self, signer: Signer, instance_id: str) -> Effects:
        """Note that there is a new connection, to this instance of the broker."""
        is_restart = self._instance_id not in (None, instance_id)
        self._signer, self._instance_id = signer, instance_id
        self._watermark_seq = 0
        effects: Effects = []
        for subscription_id, subscription in list(self._by_id.items()):
            if is_restart:
                subscription.first_seq = 1
                subscription.begin()
                subscription.is_ending = False
                effects += self._deliver(subscription_id, subscription, [Restarted(instance_id)])
            effects += self._check_for_more(subscription_id, subscription)
        if is_restart:
            effects += self._backtests.ask_for_all()
        return effects

    def receive(self, frames: Sequence[bytes]) -> Effects:
        """Take in a stream message, and never raise: what cannot be believed becomes an `UnattributedError`."""
        if self._signer is None:
            return []
        try:
            message = decode_stream(self._signer, frames)
        except MessageError as error:
            return [UnattributedError(error)]
        envelope = message.envelope
        assert envelope.seq is not None  # as decode_stream promises
        if envelope.instance_id != self._instance_id:
            return []  # from a broker that is gone
        effects: Effects = []
        if message.topic == topics.WATERMARKS:
            effects += self._watermarks(envelope.seq, envelope.payload)
        for subscription_id, subscription in list(self._by_id.items()):
            if subscription.matches(message.topic):
                effects += self._arrived(subscription_id, subscription, message.topic, envelope.seq, envelope.payload)
        return effects

    # --- the client's own requests ------------------------------------------------------------------------------------

    def answered(self, purpose: Purpose, data: Contract) -> Effects:
        """Take in the broker's answer to a request that an `Ask` has sent."""
        if isinstance(data, BacktestStatus):
            return self._status(data)
        found = self._repaired(purpose)
        if found is None or not isinstance(data, Missed):
            return []
        repair, subscription, stream = found
        try:
            deliveries = stream.fetched(data, subscription.space)
        except MessageError as error:
            return self._end(repair.subscription_id, error)
        if not data.messages:
            stream.reads_on = False
        effects = self._deliver(repair.subscription_id, subscription, deliveries)
        if repair.is_last and not data.messages and stream.next_seq > data.to_seq and stream.missing() is None:
            return effects + self._end(repair.subscription_id, None)
        is_certain = bool(deliveries)  # the next page of a long topic
        return effects + self._fetch_missing(repair.subscription_id, subscription, stream, is_certain=is_certain)

    def waited(self, repair: TopicRepair) -> Effects:
        """Take a `Wait` back: what is missing is fetched, if no message of the topic has come since."""
        subscription = self._by_id.get(repair.subscription_id)
        stream = subscription.streams.get(repair.topic) if subscription is not None else None
        if subscription is None or stream is None or stream.wait_number != repair.number:
            return []
        stream.wait_number = 0
        is_certain = stream.received == stream.waits_at
        return self._fetch_missing(repair.subscription_id, subscription, stream, is_certain=is_certain)

    def failed(self, purpose: Purpose, error: BacktestrError) -> Effects:
        """Take in the failure of a request that an `Ask` has sent: it was refused, or not answered."""
        is_passing = isinstance(error, TimedOut | NetworkError | Busy)
        if isinstance(purpose, StatusCheck):
            if purpose.backtest_id in self._backtests and is_passing:
                return [status_request(purpose.backtest_id)]
            return self._finished(purpose.backtest_id, error)
        found = self._repaired(purpose)
        if found is None:
            return []
        repair, subscription, stream = found
        stream.request_number = 0
        if is_passing:
            return self._fetch(repair.subscription_id, stream, is_last=repair.is_last)
        if not isinstance(error, NotFound):
            return self._end(repair.subscription_id, error)
        stream.reads_on = False
        effects = self._deliver(repair.subscription_id, subscription, stream.give_up(subscription.space, stream.known))
        return effects + self._end(repair.subscription_id, None) if subscription.is_ending else effects

    # --- messages -----------------------------------------------------------------------------------------------------

    def _arrived(
        self, subscription_id: int, subscription: _Subscription, topic: str, seq: int, payload: Payload
    ) -> Effects:
        stream = subscription.stream(topic)
        try:
            deliveries = stream.receive(seq, payload, subscription.space)
        except MessageError as error:
            return self._end(subscription_id, error)
        effects = self._deliver(subscription_id, subscription, deliveries)
        return effects + self._fetch_missing(subscription_id, subscription, stream)

    def _watermarks(self, seq: int, payload: Payload) -> Effects:
        try:
            reached = decode(_watermarks_decoder, payload.data).topics
        except MessageError as error:
            return [UnattributedError(error)]
        is_one_lost = seq != self._watermark_seq + 1  # also true of the first: what was before it is unknown
        self._watermark_seq = seq
        effects: Effects = []
        for subscription_id, subscription in list(self._by_id.items()):
            for topic, last_seq in reached.items():
                if subscription.matches(topic) and (topic in subscription.streams or subscription.since != "now"):
                    stream = subscription.stream(topic)
                    if subscription.since == "latest":
                        stream.start_at(last_seq)
                    stream.note_watermark(last_seq)
                    effects += self._fetch_missing(subscription_id, subscription, stream)
            if is_one_lost:
                effects += self._check_for_more(subscription_id, subscription)
        return effects

    def _fetch_missing(
        self, subscription_id: int, subscription: _Subscription, stream: TopicStream, *, is_certain: bool = False
    ) -> Effects:
        """Fetch the messages that are missing, or those that may follow an answer, or the last one of a backtest.

        Without `is_certain`, messages that no later one has passed may be on their way, and are waited for.
        """
        if subscription.space <= 0 or stream.request_number:
            return []
        missing = stream.missing()
        if missing is not None:
            if not (is_certain or stream.is_passed or subscription.is_ending):
                return self._wait(subscription_id, stream)
            stream.note_repair(missing[1])
            return self._fetch(subscription_id, stream, missing[1])
        if (subscription.is_ending or stream.reads_on) and not stream.has_next:
            return self._fetch(subscription_id, stream, is_last=subscription.is_ending)
        return []

    def _wait(self, subscription_id: int, stream: TopicStream) -> Effects:
        if stream.wait_number:
            return []
        self._requests += 1
        stream.wait_number, stream.waits_at = self._requests, stream.received
        return [Wait(QUIET, TopicRepair(stream.wait_number, subscription_id, stream.topic, is_last=False))]

    def _check_for_more(self, subscription_id: int, subscription: _Subscription) -> Effects:
        """Ask for each topic whether the broker has more, because a loss may be unnoticed.

        A reader of the latest messages, whose topics may be many, is told instead, and asks for all of them at once.
        """
        effects: Effects = []
        if subscription.since == "latest":
            return self._deliver(subscription_id, subscription, [MaybeLost(subscription.prefix)])
        for stream in subscription.streams.values():
            if subscription.space > 0 and stream.next_seq and not stream.request_number:
                effects += self._fetch(subscription_id, stream)
        return effects

    def _fetch(
        self, subscription_id: int, stream: TopicStream, to_seq: int | None = None, *, is_last: bool = False
    ) -> Effects:
        self._requests += 1
        stream.request_number = self._requests
        stream.asked_for = stream.known
        stream.reads_on = stream.reads_on or to_seq is None
        data = FetchMissed(topic=stream.topic, from_seq=stream.next_seq, to_seq=to_seq)
        return [Ask("FetchMissed", data, TopicRepair(stream.request_number, subscription_id, stream.topic, is_last))]

    def _repaired(self, purpose: Purpose) -> tuple[TopicRepair, _Subscription, TopicStream] | None:
        """Return the subscription and topic of a repair, or None if a restart or an end has made it obsolete."""
        if isinstance(purpose, StatusCheck) or purpose.subscription_id not in self._by_id:
            return None
        subscription = self._by_id[purpose.subscription_id]
        stream = subscription.streams.get(purpose.topic)
        return (purpose, subscription, stream) if stream and stream.request_number == purpose.number else None

    def _deliver(self, subscription_id: int, subscription: _Subscription, deliveries: list[Delivery]) -> Effects:
        if not deliveries:
            return []
        if subscription_id == _OWN:
            return self._own(deliveries)
        subscription.space -= weight(deliveries)
        return [Deliver(subscription_id, deliveries)]

    # --- ends ---------------------------------------------------------------------------------------------------------

    def _own(self, deliveries: Iterable[Delivery]) -> Effects:
        """Read the client's own subscription to system.backtests."""
        effects: Effects = []
        for delivery in deliveries:
            match delivery:
                case StreamMessage():
                    try:
                        effects += self._status(decode(_status_decoder, delivery.data))
                    except MessageError as error:
                        effects.append(UnattributedError(error))
                case Gap():
                    effects += self._backtests.ask_for_all()
                case Restarted():
                    pass
        return effects

    def _status(self, status: BacktestStatus) -> Effects:
        if status.status not in FINAL_STATES:
            return []
        return self._finished(status.backtest_id, status)

    def _finished(self, backtest_id: str, outcome: BacktestStatus | BacktestrError) -> Effects:
        if backtest_id not in self._backtests:
            return []
        self._backtests.unfollow(backtest_id)
        effects: Effects = [Finished(backtest_id, outcome)]
        for subscription_id, subscription in list(self._by_id.items()):
            if subscription.until == backtest_id:
                if isinstance(outcome, BacktestrError):
                    effects += self._end(subscription_id, outcome)
                    continue
                subscription.is_ending = True
                effects += self._fetch_missing(subscription_id, subscription, subscription.stream(subscription.prefix))
        return effects

    def _end(self, subscription_id: int, error: BacktestrError | None) -> Effects:
        if subscription_id == _OWN:
            return [UnattributedError(error)] if error else []
        return [End(subscription_id, error), *self.close(subscription_id)]

    # --- prefixes -----------------------------------------------------------------------------------------------------

    def _subscribe(self, prefix: str) -> Effects:
        self._prefixes[prefix] += 1
        return [Subscribe(prefix)] if self._prefixes[prefix] == 1 else []

    def _unsubscribe(self, prefix: str) -> Effects:
        self._prefixes[prefix] -= 1
        if self._prefixes[prefix]:
            return []
        del self._prefixes[prefix]
        return [Unsubscribe(prefix)]

    def check_invariants(self) -> None:
        """Raise `AssertionError` unless prefixes, followed backtests and topics fit the subscriptions."""
        wanted = Counter(subscription.prefix for subscription in self._by_id.values())
        if self._by_id:
            wanted[topics.WATERMARKS] += 1
        assert self._prefixes == wanted
        assert not self._backtests or _OWN in self._by_id
        self._backtests.check_invariants()
        for subscription in self._by_id.values():
            assert subscription.until is None or subscription.is_exact
            for topic, stream in subscription.streams.items():
                assert subscription.matches(topic)
                stream.check_invariants()
