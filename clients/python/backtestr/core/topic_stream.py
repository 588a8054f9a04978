"""One topic for one subscriber: sequence numbers go in, messages in order come out, and no loss is silent.

No I/O. A `TopicStream` is given the messages that arrive and the watermarks. Its `missing` is what to fetch from the
broker, and a message that cannot be had any more becomes a `Gap` (PROTOCOL.md, section 7).
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from backtestr_protocol.codec import decode
from backtestr_protocol.envelopes import Payload
from backtestr_protocol.messages import Missed

from .batches import open_payload
from .counters import StreamCounters
from .effects import DeliveredBatch, Delivery, Gap, StreamMessage

# Messages that arrived ahead of a missing one; beyond this they are fetched again later instead of being held.
MAX_AHEAD = 10_000
# A message that the broker no longer retains may still be on its way, on another socket than the answer that omits it.
# It is lost for certain once a later message has come that way, or after so many answers without it.
MAX_INCONCLUSIVE = 3

# Of these topics every message is delivered by itself.
_SYSTEM_PREFIXES = ("system.", "state.")

_payload_decoder = msgspec.msgpack.Decoder(Payload)


def unpack(seq: int, payload: Payload) -> list[tuple[int, Payload]]:
    """Return the messages of a stream payload with their sequence numbers; `seq` is the first one's.

    Raises `MessageError` as `open_payload` does.
    """
    found = open_payload(payload)
    return [(seq, found)] if isinstance(found, Payload) else list(enumerate(found.payloads(), seq))


class TopicStream:
    """The order of one topic for one subscriber.

    `next_seq` is the sequence number that is delivered next. It is 0 while any may come first: without `from_start` the
    first message that arrives begins the stream. Every number before it was delivered or stated as a gap.
    """

    __slots__ = (
        "_ahead",
        "_counters",
        "_gap_end",
        "_inconclusive",
        "_is_gap_lost",
        "_received",
        "asked_for",
        "known",
        "next_seq",
        "reads_on",
        "request_number",
        "topic",
        "wait_number",
        "waits_at",
    )

    def __init__(self, topic: str, *, from_start: bool, counters: StreamCounters | None = None) -> None:
        """`counters` count duplicates and gaps, together with those of other topics."""
        self.topic = topic
        self._counters = counters or StreamCounters()
        self._gap_end = 0  # the last number of the gap that is being repaired, 0 for none
        self._is_gap_lost = False  # True if messages of it are lost
        self.next_seq = 1 if from_start else 0
        self.known = 0  # the highest number that is known to exist
        self.request_number = 0  # the number of the FetchMissed that is under way, 0 for none
        self.asked_for = 0  # the highest number that was known to exist when that was sent
        self.reads_on = False  # True while the broker may have more behind an answer: those of a log are pages
        self.wait_number = 0  # the number of the wait for messages that may be on their way, 0 for none
        self.waits_at = 0  # what `received` was when that wait began
        self._ahead: dict[int, Payload] = {}
        self._received = 0  # the highest number that came by subscription
        self._inconclusive = 0  # answers in a row after which a missing message might still come

    def receive(self, seq: int, payload: Payload, space: int) -> list[Delivery]:
        """Take in a stream payload whose first message is `seq`, and return what can be delivered now.

        A batch is delivered as one `DeliveredBatch` if nothing before it is missing and there is space for it, and
        otherwise message by message. The few messages of system topics always come one by one. Raises `MessageError` as
        `unpack` does.
        """
        found = open_payload(payload)
        if isinstance(found, Payload):
            return self.offer([(seq, found)], space)
        first, last = self.next_seq or seq, seq + found.count - 1
        if not seq <= first <= last or self.topic.startswith(_SYSTEM_PREFIXES):
            return self.offer(enumerate(found.payloads(), seq), space)
        batch = DeliveredBatch(self.topic, first, found.after(first - seq))
        if batch.weight > space:
            return self.offer(enumerate(found.payloads(), seq), space)
        self._counters.duplicates_dropped += first - seq
        if self._ahead:  # an answer may have been quicker
            twice = [one for one in range(first, last + 1) if self._ahead.pop(one, None) is not None]
            self._counters.duplicates_dropped += len(twice)
        self.known = max(self.known, last)
        self._received = max(self._received, last)
        self._advance_to(last)
        return [batch, *self._with_ahead([], space - batch.weight)]

    def offer(self, messages: Iterable[tuple[int, Payload]], space: int) -> list[Delivery]:
        """Take in single messages, and return at most `space` that can be delivered now, in order and once each."""
        delivered: list[Delivery] = []
        for seq, payload in messages:
            self.known = max(self.known, seq)
            self._received = max(self._received, seq)
            if self.next_seq == 0:
                self.next_seq = seq
            if seq == self.next_seq and len(delivered) < space:  # even when no more can be held
                self._counters.duplicates_dropped += self._ahead.pop(seq, None) is not None
                delivered.append(StreamMessage(self.topic, seq, payload.type, payload.data))
                self._advance_to(seq)
            elif seq < self.next_seq or seq in self._ahead:
                self._counters.duplicates_dropped += 1
            elif seq == self.next_seq or len(self._ahead) < MAX_AHEAD:
                self._ahead[seq] = payload
        return self._with_ahead(delivered, space)

    def resume(self, space: int) -> list[Delivery]:
        """Return the held messages that can be delivered now that there is space for `space` deliveries."""
        return self._with_ahead([], space)

    def note_watermark(self, last_seq: int) -> None:
        """Note that the topic has reached `last_seq`."""
        if self.next_seq:
            self._counters.watermarks_behind += last_seq > self.known and last_seq >= self.next_seq
            self.known = max(self.known, last_seq)

    def start_at(self, seq: int) -> None:
        """Begin with the message `seq`, unless the stream has begun already."""
        self.next_seq = self.next_seq or seq

    def note_repair(self, to_seq: int) -> None:
        """Note that the missing messages up to `to_seq` are being fetched."""
        if not self._gap_end:
            self._counters.gaps_seen += 1
            self._gap_end = to_seq

    def abandon(self) -> None:
        """Give up the repair that is under way, because the rest of the topic is not wanted."""
        if self._gap_end:
            self._gap_end = 0
            self._counters.gaps_left += 1

    @property
    def received(self) -> int:
        """The highest number that came by subscription."""
        return self._received

    @property
    def is_passed(self) -> bool:
        """True if a later message than the next one has come by subscription: then the next one will not."""
        return 0 < self.next_seq <= self._received

    @property
    def has_next(self) -> bool:
        """True if the next message is held already and waits for space."""
        return self.next_seq in self._ahead

    def missing(self) -> tuple[int, int] | None:
        """Return the first and last number to fetch, or None if nothing is missing or a request is under way."""
        if self.request_number or not 0 < self.next_seq <= self.known or self.has_next:
            return None
        return self.next_seq, min(self._ahead, default=self.known + 1) - 1

    def fetched(self, answer: Missed, space: int) -> list[Delivery]:
        """Take in the answer to `FetchMissed`, and return what can be delivered now, with a `Gap` for each loss.

        Raises `MessageError` as `unpack` does.
        """
        self.request_number = 0
        arrived = [one for each in answer.messages for one in unpack(each.seq, decode(_payload_decoder, each.payload))]
        self._ahead.update((seq, payload) for seq, payload in arrived if seq >= self.next_seq)
        reached = max(answer.to_seq, answer.oldest_seq - 1)
        self.known = max(self.known, reached, *self._ahead)
        if reached < answer.from_seq and not self.has_next:  # the stream may have passed the answer meanwhile
            return self.give_up(space, self.asked_for)  # and what is known only since then is younger than the answer
        delivered = self._with_ahead([], space)
        while self.next_seq <= reached and len(delivered) < space:
            last_missing = min([reached, *(seq - 1 for seq in self._ahead)])
            if last_missing > self._received and self._inconclusive < MAX_INCONCLUSIVE:
                self._inconclusive += 1
                break
            delivered.append(self._gap_to(last_missing))
            self._with_ahead(delivered, space)
        self._ahead = dict(sorted(self._ahead.items())[:MAX_AHEAD])
        return delivered

    def give_up(self, space: int, up_to: int) -> list[Delivery]:
        """State the missing messages up to that number as a gap, because the broker does not have them."""
        self.request_number = 0
        missing = self.missing()
        if missing is None or space <= 0 or self.next_seq > up_to:
            return []
        return self._with_ahead([self._gap_to(min(missing[1], up_to))], space)

    def _gap_to(self, last_seq: int) -> Gap:
        gap = Gap(self.topic, self.next_seq, last_seq)
        self._counters.messages_lost += last_seq - self.next_seq + 1
        self._is_gap_lost = True
        self._advance_to(last_seq)
        return gap

    def _advance_to(self, seq: int) -> None:
        """Note that everything up to `seq` was delivered or stated as a gap."""
        self.next_seq = seq + 1
        self._inconclusive = 0
        if self._is_gap_lost or self._gap_end:
            self._close_gap(seq)

    def _close_gap(self, seq: int) -> None:
        """Count the gap that ends at `seq` or before, if one does.

        A loss that was found without a repair counts as seen and lost at once.
        """
        if self._is_gap_lost and not self._gap_end:
            self._counters.gaps_seen += 1
        elif seq < self._gap_end:
            return
        if self._is_gap_lost:
            self._counters.gaps_lost += 1
        else:
            self._counters.gaps_repaired += 1
        self._gap_end, self._is_gap_lost = 0, False

    def _with_ahead(self, delivered: list[Delivery], space: int) -> list[Delivery]:
        """Return `delivered`, extended by the held messages that follow without a gap, as far as there is space."""
        while self._ahead and len(delivered) < space and (payload := self._ahead.pop(self.next_seq, None)) is not None:
            delivered.append(StreamMessage(self.topic, self.next_seq, payload.type, payload.data))
            self._advance_to(self.next_seq)
        return delivered

    def check_invariants(self) -> None:
        """Raise `AssertionError` unless held messages and the open gap lie ahead of `next_seq`."""
        assert len(self._ahead) <= MAX_AHEAD + 1
        assert all(self.next_seq <= seq <= self.known for seq in self._ahead)
        assert not self._gap_end or self.next_seq <= self._gap_end
