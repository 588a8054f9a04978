"""One topic as a subscriber sees it: sequence numbers in, messages in order out, and never a silent loss.

No I/O. A `TopicStream` is told what arrived and what is known to exist; it says what to ask the broker for
(`missing`), and what cannot be had any more becomes a `Gap` (PROTOCOL.md, section 7).
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from backtestr_protocol.codec import Payload, decode
from backtestr_protocol.messages import Missed

from .batches import open_payload
from .counters import StreamCounters
from .effects import DeliveredBatch, Delivery, Gap, StreamMessage

# Messages that arrived ahead of a missing one; beyond this they are asked for again instead of being kept.
MAX_AHEAD = 10_000
# What the broker no longer keeps may still be on its way, on another socket than the answer that says so. It is lost
# for certain once something later has come by that way; else after being asked for so often without any coming.
MAX_INCONCLUSIVE = 3

# Topics of which every message is wanted by itself.
_OF_THE_SYSTEM = ("system.", "state.")

_payload_decoder = msgspec.msgpack.Decoder(Payload)


def unpack(seq: int, payload: Payload) -> list[tuple[int, Payload]]:
    """The messages in a stream payload with their numbers: itself, or what a `Batch` that starts at `seq` holds.

    Raises `MessageError` as `open_payload` does.
    """
    found = open_payload(payload)
    return [(seq, found)] if isinstance(found, Payload) else list(enumerate(found.payloads(), seq))


class TopicStream:
    """The order of one topic for one subscriber.

    `next_seq` is the number that is delivered next; 0 while any may come first (`from_start=False`: the first that
    arrives begins the stream). Everything before it was delivered or stated as a gap.
    """

    __slots__ = ("_counters", "_doubts", "_gap_end", "_heard", "_held", "_lost", "asking", "known", "next_seq", "topic")

    def __init__(self, topic: str, *, from_start: bool, counters: StreamCounters | None = None) -> None:
        """`counters`: where duplicates and gaps are counted, beside those of other topics."""
        self.topic = topic
        self._counters = counters or StreamCounters()
        self._gap_end = 0  # the last number of the gap that is being repaired, 0 for none
        self._lost = False  # whether some of it is lost
        self.next_seq = 1 if from_start else 0
        self.known = 0  # the highest number heard of
        self.asking = 0  # the number of the FetchMissed that is under way, 0 for none
        self._held: dict[int, Payload] = {}
        self._heard = 0  # the highest number that came by subscription
        self._doubts = 0  # answers in a row that left it open whether what is missing will come

    def receive(self, seq: int, payload: Payload, space: int) -> list[Delivery]:
        """A stream payload arrived, the first of its messages with that number; what can be delivered now.

        A batch is delivered as one `DeliveredBatch` where nothing before it is missing and there is space for it,
        and else message by message; so are the seldom messages of the
        system. Raises `MessageError` as `unpack` does.
        """
        found = open_payload(payload)
        if isinstance(found, Payload):
            return self.offer([(seq, found)], space)
        first, last = self.next_seq or seq, seq + found.count - 1
        if not seq <= first <= last or self.topic.startswith(_OF_THE_SYSTEM):
            return self.offer(enumerate(found.payloads(), seq), space)
        block = DeliveredBatch(self.topic, first, found.after(first - seq))
        if block.weight > space:
            return self.offer(enumerate(found.payloads(), seq), space)
        self._counters.duplicates_dropped += first - seq
        if self._held:  # an answer may have been quicker
            twice = [one for one in range(first, last + 1) if self._held.pop(one, None) is not None]
            self._counters.duplicates_dropped += len(twice)
        self.known = max(self.known, last)
        self._heard = max(self._heard, last)
        self._reach(last)
        return [block, *self._with_held([], space - block.weight)]

    def offer(self, messages: Iterable[tuple[int, Payload]], space: int) -> list[Delivery]:
        """Messages arrived; what can be delivered now, in order, at most `space`. Duplicates are dropped."""
        delivered: list[Delivery] = []
        for seq, payload in messages:
            self.known = max(self.known, seq)
            self._heard = max(self._heard, seq)
            if self.next_seq == 0:
                self.next_seq = seq
            if seq == self.next_seq and len(delivered) < space:  # even where no more can be held
                self._counters.duplicates_dropped += self._held.pop(seq, None) is not None
                delivered.append(StreamMessage(self.topic, seq, payload.type, payload.data))
                self._reach(seq)
            elif seq < self.next_seq or seq in self._held:
                self._counters.duplicates_dropped += 1
            elif seq == self.next_seq or len(self._held) < MAX_AHEAD:
                self._held[seq] = payload
        return self._with_held(delivered, space)

    def resume(self, space: int) -> list[Delivery]:
        """There is space again, for `space` deliveries."""
        return self._with_held([], space)

    def note_watermark(self, last_seq: int) -> None:
        """A watermark: the topic has come as far as `last_seq`."""
        if self.next_seq:
            self._counters.watermarks_behind += last_seq > self.known and last_seq >= self.next_seq
            self.known = max(self.known, last_seq)

    def start_at(self, seq: int) -> None:
        """Begin with the message `seq`, when nothing has begun it."""
        self.next_seq = self.next_seq or seq

    def note_repair(self, to_seq: int) -> None:
        """What is missing up to `to_seq` is asked for."""
        if not self._gap_end:
            self._counters.gaps_seen += 1
            self._gap_end = to_seq

    def abandon(self) -> None:
        """Nobody wants the rest of this topic."""
        if self._gap_end:
            self._gap_end = 0
            self._counters.gaps_left += 1

    @property
    def has_next(self) -> bool:
        """What comes next is here already, and waits for space."""
        return self.next_seq in self._held

    def missing(self) -> tuple[int, int] | None:
        """The numbers to ask for, first and last, when something is missing and not being asked for already."""
        if self.asking or not 0 < self.next_seq <= self.known or self.has_next:
            return None
        return self.next_seq, min(self._held, default=self.known + 1) - 1

    def fetched(self, answer: Missed, space: int) -> list[Delivery]:
        """The answer to `FetchMissed`; what can be delivered now, with a `Gap` for whatever is lost for certain.

        Raises `MessageError` as `unpack` does.
        """
        self.asking = 0
        arrived = [one for kept in answer.messages for one in unpack(kept.seq, decode(_payload_decoder, kept.payload))]
        self._held.update((seq, payload) for seq, payload in arrived if seq >= self.next_seq)
        reached = max(answer.to_seq, answer.oldest_seq - 1)
        self.known = max(self.known, reached, *self._held)
        if reached < answer.from_seq and not self.has_next:  # what the stream has passed meanwhile says nothing
            return self.give_up(space)
        delivered = self._with_held([], space)
        while self.next_seq <= reached and len(delivered) < space:
            last_missing = min([reached, *(seq - 1 for seq in self._held)])
            if last_missing > self._heard and self._doubts < MAX_INCONCLUSIVE:
                self._doubts += 1
                break
            delivered.append(self._gap_to(last_missing))
            self._with_held(delivered, space)
        self._held = dict(sorted(self._held.items())[:MAX_AHEAD])
        return delivered

    def give_up(self, space: int) -> list[Delivery]:
        """The broker does not have what is missing: it is lost."""
        self.asking = 0
        missing = self.missing()
        return self._with_held([self._gap_to(missing[1])], space) if missing and space else []

    def _gap_to(self, last_seq: int) -> Gap:
        gap = Gap(self.topic, self.next_seq, last_seq)
        self._counters.messages_lost += last_seq - self.next_seq + 1
        self._lost = True
        self._reach(last_seq)
        return gap

    def _reach(self, seq: int) -> None:
        """Everything up to `seq` was delivered or stated as a gap."""
        self.next_seq = seq + 1
        self._doubts = 0
        if self._lost or self._gap_end:
            self._close_gap(seq)

    def _close_gap(self, seq: int) -> None:
        """Count the gap that ends with `seq` or before, if one does; a loss found without asking is one at once."""
        if self._lost and not self._gap_end:
            self._counters.gaps_seen += 1
        elif seq < self._gap_end:
            return
        if self._lost:
            self._counters.gaps_lost += 1
        else:
            self._counters.gaps_repaired += 1
        self._gap_end, self._lost = 0, False

    def _with_held(self, delivered: list[Delivery], space: int) -> list[Delivery]:
        """`delivered`, and those that were held because something before them was missing or there was no space."""
        while self._held and len(delivered) < space and (payload := self._held.pop(self.next_seq, None)) is not None:
            delivered.append(StreamMessage(self.topic, self.next_seq, payload.type, payload.data))
            self._reach(self.next_seq)
        return delivered

    def check_invariants(self) -> None:
        assert len(self._held) <= MAX_AHEAD + 1
        assert all(self.next_seq <= seq <= self.known for seq in self._held)
        assert not self._gap_end or self.next_seq <= self._gap_end
