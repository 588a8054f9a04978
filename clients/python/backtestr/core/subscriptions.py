"""Every subscription of one client: what each wants, what it has, and how losses are found and repaired.

No I/O. A loss is found by a jump in a topic's numbers, by `system.watermarks`, and when a backtest ends by asking for
more than what came. The bound on what a slow consumer may leave lying (`space`) is kept here too: without it a topic's
sequence stands still, and what passed meanwhile is asked for once there is room again. So a slow consumer costs memory
up to the bound, then a repair, and only then a stated `Gap`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from backtestr_protocol import topics
from backtestr_protocol.codec import Payload, Signer, decode, decode_stream
from backtestr_protocol.errors import (
    BacktestrError,
    Busy,
    MessageError,
    NetworkError,
    NotFound,
    TimedOut,
)
from backtestr_protocol.messages import FINAL_STATES, BacktestRef, BacktestStatus, Contract, FetchMissed, Missed
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
    weight,
)
from .topic_stream import TopicStream

# Where a topic begins for a subscriber: with what is published from now on; with its first message, the topic being
# new; with the oldest message that the broker keeps; or with its latest message, for topics each message of which says
# all that those before it said.
Since = Literal["now", "start", "retained", "latest"]

Effects = list[SubscriptionEffect]

_watermarks_decoder = msgspec.msgpack.Decoder(Watermarks)
_status_decoder = msgspec.msgpack.Decoder(BacktestStatus)

# The client's own subscription to system.backtests, by which it learns that a backtest has ended.
_OWN = 0
_UNBOUNDED = 1 << 60


class _Subscription:
    __slots__ = ("_counters", "ending", "first_seq", "prefix", "since", "space", "streams", "until")

    def __init__(
        self, prefix: str, since: Since, until: str | None, space: int, counters: StreamCounters, first_seq: int
    ) -> None:
        self._counters = counters
        self.prefix = prefix
        self.since = since
        self.until = until  # the backtest whose end is this subscription's
        self.space = space
        self.ending = False
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
        """Nobody wants what is still missing."""
        for stream in self.streams.values():
            stream.abandon()

    @property
    def is_from_start(self) -> bool:
        """Whether a topic begins with its first message, or the oldest of it that is kept."""
        return self.since in ("start", "retained")

    def matches(self, topic: str) -> bool:
        return topic == self.prefix or (not self.is_exact and topic.startswith(self.prefix))

    def stream(self, topic: str) -> TopicStream:
        if topic not in self.streams:
            self.streams[topic] = TopicStream(topic, from_start=self.is_from_start, counters=self._counters)
        return self.streams[topic]


class Subscriptions:
    def __init__(self) -> None:
        self._signer: Signer | None = None
        self._instance_id: str | None = None
        self._by_id: dict[int, _Subscription] = {}
        self._prefixes: Counter[str] = Counter()
        self._followed: set[str] = set()
        self._unstarted: set[str] = set()  # of those, the broker has not said yet that it has them
        self._overdue: set[str] = set()  # of those, to be asked for once it has
        self._watermark_seq = 0
        self._questions = 0  # numbers them
        self.counters = StreamCounters()

    @property
    def prefixes(self) -> list[str]:
        """What to listen to on a new connection."""
        return list(self._prefixes)

    # --- the caller's wishes --------------------------------------------------------------------------------------

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

        It ends with the backtest `until`, when all of that was delivered. At most `space` deliveries are made before
        the consumer has `taken` some. A topic whose kept messages are wanted begins with the number `first_seq`.
        """
        effects: Effects = []
        if not self._by_id:
            effects += self._listen(topics.WATERMARKS)
        subscription = self._by_id[subscription_id] = _Subscription(
            prefix, since, until, space, self.counters, first_seq
        )
        effects += self._listen(prefix)
        if since == "retained":
            effects += self._check_for_more(subscription_id, subscription)
        if until is not None:
            effects += self.follow(until, is_new=since == "start")
        return effects

    def close(self, subscription_id: int) -> Effects:
        """Forget a subscription; one that has ended is forgotten already."""
        subscription = self._by_id.pop(subscription_id, None)
        if subscription is None:
            return []
        subscription.abandon()
        effects = self._unlisten(subscription.prefix)
        return effects if self._by_id else effects + self._unlisten(topics.WATERMARKS)

    def follow(self, backtest_id: str, *, is_new: bool) -> Effects:
        """Report when this backtest has `Finished`. One that `is_new` cannot have finished before this call, and is not
        asked for before it has `started`: its start may still wait for a broker."""
        effects: Effects = []
        if _OWN not in self._by_id:
            effects += self.open(_OWN, topics.BACKTESTS, "retained", _UNBOUNDED)
        self._followed.add(backtest_id)
        if is_new:
            self._unstarted.add(backtest_id)
        return effects if is_new else [*effects, _ask_status(backtest_id)]

    def started(self, backtest_id: str) -> Effects:
        """The broker has accepted a backtest that was followed as new."""
        self._unstarted.discard(backtest_id)
        is_overdue = backtest_id in self._overdue
        self._overdue.discard(backtest_id)
        return [_ask_status(backtest_id)] if is_overdue else []

    def unfollow(self, backtest_id: str) -> None:
        self._followed.discard(backtest_id)
        self._unstarted.discard(backtest_id)
        self._overdue.discard(backtest_id)

    def taken(self, subscription_id: int, count: int) -> Effects:
        """The consumer has taken `count` deliveries: there is room for as many."""
        subscription = self._by_id.get(subscription_id)
        if subscription is None:
            return []
        subscription.space += count
        effects: Effects = []
        for stream in list(subscription.streams.values()):
            effects += self._deliver(subscription_id, subscription, stream.resume(subscription.space))
            effects += self._fetch_missing(subscription_id, subscription, stream)
        return effects

    # --- the connection -------------------------------------------------------------------------------------------

    def connected(self, signer: Signer, instance_id: str) -> Effects:
        """There is a new connection, to this instance of the broker."""
        restarted = self._instance_id not in (None, instance_id)
        self._signer, self._instance_id = signer, instance_id
        self._watermark_seq = 0
        effects: Effects = []
        for subscription_id, subscription in list(self._by_id.items()):
            if restarted:
                subscription.first_seq = 1
                subscription.begin()
                subscription.ending = False
                effects += self._deliver(subscription_id, subscription, [Restarted(instance_id)])
                effects += self._check_for_more(subscription_id, subscription)
            else:
                effects += self._check_for_more(subscription_id, subscription)
        if restarted:
            effects += self._ask_for_all()
        return effects

    def receive(self, frames: Sequence[bytes]) -> Effects:
        """A stream message came. Whatever it is, this does not raise: what cannot be believed is `Noticed`."""
        if self._signer is None:
            return []
        try:
            message = decode_stream(self._signer, frames)
        except MessageError as error:
            return [UnattributedError(error)]
        envelope = message.envelope
        assert envelope.seq is not None  # as decode_stream promises
        if envelope.instance_id != self._instance_id:
            return []  # of a broker that is gone
        effects: Effects = []
        if message.topic == topics.WATERMARKS:
            effects += self._watermarks(envelope.seq, envelope.payload)
        for subscription_id, subscription in list(self._by_id.items()):
            if subscription.matches(message.topic):
                effects += self._arrived(subscription_id, subscription, message.topic, envelope.seq, envelope.payload)
        return effects

    # --- answers to what was asked ----------------------------------------------------------------------------------

    def answered(self, question: Purpose, data: Contract) -> Effects:
        """The broker's answer to what was asked with an `Ask`."""
        if isinstance(data, BacktestStatus):
            return self._news(data)
        found = self._asking(question)
        if found is None or not isinstance(data, Missed):
            return []
        question, subscription, stream = found
        try:
            deliveries = stream.fetched(data, subscription.space)
        except MessageError as error:
            return self._end(question.subscription_id, error)
        effects = self._deliver(question.subscription_id, subscription, deliveries)
        if question.is_last and not data.messages and stream.next_seq > data.to_seq and stream.missing() is None:
            return effects + self._end(question.subscription_id, None)
        return effects + self._fetch_missing(question.subscription_id, subscription, stream)

    def failed(self, question: Purpose, error: BacktestrError) -> Effects:
        """What was asked with an `Ask` was refused or not answered."""
        is_passing = isinstance(error, TimedOut | NetworkError | Busy)
        if isinstance(question, StatusCheck):
            if question.backtest_id in self._followed and is_passing:
                return [_ask_status(question.backtest_id)]
            return self._finished(question.backtest_id, error)
        found = self._asking(question)
        if found is None:
            return []
        question, subscription, stream = found
        stream.asking = 0
        if is_passing:
            return self._fetch(question.subscription_id, stream, is_last=question.is_last)
        if not isinstance(error, NotFound):
            return self._end(question.subscription_id, error)
        effects = self._deliver(question.subscription_id, subscription, stream.give_up(subscription.space))
        return effects + self._end(question.subscription_id, None) if subscription.ending else effects

    # --- within ---------------------------------------------------------------------------------------------------

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
        one_was_lost = seq != self._watermark_seq + 1  # or it is the first, and nobody knows what was before
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
            if one_was_lost:
                effects += self._check_for_more(subscription_id, subscription)
        return effects

    def _fetch_missing(self, subscription_id: int, subscription: _Subscription, stream: TopicStream) -> Effects:
        """Ask for what is missing, or, at the end of the backtest, for what may have come after all else."""
        if subscription.space <= 0 or stream.asking:
            return []
        missing = stream.missing()
        if missing is not None:
            stream.note_repair(missing[1])
            return self._fetch(subscription_id, stream, missing[1])
        if subscription.ending and not stream.has_next:
            return self._fetch(subscription_id, stream, is_last=True)
        return []

    def _check_for_more(self, subscription_id: int, subscription: _Subscription) -> Effects:
        """A loss may have gone unseen: ask each topic whether there is more than what is here.

        Where the latest message of each is all that counts, and topics may be many, the reader asks for all at once.
        """
        effects: Effects = []
        if subscription.since == "latest":
            return self._deliver(subscription_id, subscription, [MaybeLost(subscription.prefix)])
        for stream in subscription.streams.values():
            if subscription.space > 0 and stream.next_seq and not stream.asking:
                effects += self._fetch(subscription_id, stream)
        return effects

    def _fetch(
        self, subscription_id: int, stream: TopicStream, to_seq: int | None = None, *, is_last: bool = False
    ) -> Effects:
        self._questions += 1
        stream.asking = self._questions
        data = FetchMissed(topic=stream.topic, from_seq=stream.next_seq, to_seq=to_seq)
        return [Ask("FetchMissed", data, TopicRepair(stream.asking, subscription_id, stream.topic, is_last))]

    def _deliver(self, subscription_id: int, subscription: _Subscription, deliveries: list[Delivery]) -> Effects:
        if not deliveries:
            return []
        if subscription_id == _OWN:
            return self._own(deliveries)
        subscription.space -= weight(deliveries)
        return [Deliver(subscription_id, deliveries)]

    def _own(self, deliveries: Iterable[Delivery]) -> Effects:
        effects: Effects = []
        for delivery in deliveries:
            match delivery:
                case StreamMessage():
                    try:
                        effects += self._news(decode(_status_decoder, delivery.data))
                    except MessageError as error:
                        effects.append(UnattributedError(error))
                case Gap():
                    effects += self._ask_for_all()
                case Restarted():
                    pass
        return effects

    def _ask_for_all(self) -> Effects:
        """The end of a backtest may have gone unheard."""
        self._overdue |= self._unstarted
        return [_ask_status(backtest_id) for backtest_id in sorted(self._followed - self._unstarted)]

    def _news(self, status: BacktestStatus) -> Effects:
        if status.status not in FINAL_STATES:
            return []
        return self._finished(status.backtest_id, status)

    def _finished(self, backtest_id: str, outcome: BacktestStatus | BacktestrError) -> Effects:
        if backtest_id not in self._followed:
            return []
        self.unfollow(backtest_id)
        effects: Effects = [Finished(backtest_id, outcome)]
        for subscription_id, subscription in list(self._by_id.items()):
            if subscription.until == backtest_id:
                if isinstance(outcome, BacktestrError):
                    effects += self._end(subscription_id, outcome)
                    continue
                subscription.ending = True
                effects += self._fetch_missing(subscription_id, subscription, subscription.stream(subscription.prefix))
        return effects

    def _end(self, subscription_id: int, error: BacktestrError | None) -> Effects:
        if subscription_id == _OWN:
            return [UnattributedError(error)] if error else []
        return [End(subscription_id, error), *self.close(subscription_id)]

    def _asking(self, question: Purpose) -> tuple[TopicRepair, _Subscription, TopicStream] | None:
        """Who asked, if it still waits for the answer: a restart or an end may have come between."""
        if isinstance(question, StatusCheck) or question.subscription_id not in self._by_id:
            return None
        subscription = self._by_id[question.subscription_id]
        stream = subscription.streams.get(question.topic)
        return (question, subscription, stream) if stream and stream.asking == question.number else None

    def _listen(self, prefix: str) -> Effects:
        self._prefixes[prefix] += 1
        return [Subscribe(prefix)] if self._prefixes[prefix] == 1 else []

    def _unlisten(self, prefix: str) -> Effects:
        self._prefixes[prefix] -= 1
        if self._prefixes[prefix]:
            return []
        del self._prefixes[prefix]
        return [Unsubscribe(prefix)]

    def check_invariants(self) -> None:
        wanted = Counter(subscription.prefix for subscription in self._by_id.values())
        if self._by_id:
            wanted[topics.WATERMARKS] += 1
        assert self._prefixes == wanted
        assert not self._followed or _OWN in self._by_id
        assert self._overdue <= self._unstarted <= self._followed
        for subscription in self._by_id.values():
            assert subscription.until is None or subscription.is_exact
            for topic, stream in subscription.streams.items():
                assert subscription.matches(topic)
                stream.check_invariants()


def _ask_status(backtest_id: str) -> Ask:
    return Ask("GetBacktestStatus", BacktestRef(backtest_id=backtest_id), StatusCheck(backtest_id))
