"""Effects are what the client's machines ask of the I/O thread, and deliveries are what subscriptions receive.

The I/O thread executes effects in the order in which the machines return them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, final

import msgspec

from backtestr_protocol.errors import BacktestrError
from backtestr_protocol.messages import BacktestStatus, Contract, Welcome

from .batches import PackedMessages, PriceColumns

# Bytes of one delivery (measured: an order takes 504). A bound in deliveries is thereby a bound in memory.
DELIVERY_BYTES = 500

# --- effects of the session -------------------------------------------------------------------------------------------


@final
class Send(msgspec.Struct, frozen=True):
    """Send these frames on the connection for requests."""

    frames: list[bytes]


class Welcomed(msgspec.Struct, frozen=True):
    """The broker has opened a session."""

    welcome: Welcome


class Answered(msgspec.Struct, frozen=True):
    """The request succeeded; `data` are decoded and checked."""

    request_id: str
    data: Any
    attachments: list[bytes]


class Failed(msgspec.Struct, frozen=True):
    """The request failed: the broker answered with an error, or did not answer."""

    request_id: str
    error: BacktestrError


class Refused(msgspec.Struct, frozen=True):
    """The broker refuses to open a session; every request fails with `error` until the next connection."""

    error: BacktestrError


class KeyRefused(msgspec.Struct, frozen=True):
    """The answer to Hello was signed with another key: the connection file is old, or of another broker."""

    error: BacktestrError


class Reconnect(msgspec.Struct, frozen=True):
    """Make another connection, because the broker does not answer on this one."""

    reason: str


class UnattributedError(msgspec.Struct, frozen=True):
    """An error that belongs to no request: the broker sent it, or a message was malformed or wrongly signed."""

    error: BacktestrError


SessionEffect = Send | Welcomed | Answered | Failed | Refused | KeyRefused | Reconnect | UnattributedError

# --- deliveries -------------------------------------------------------------------------------------------------------


class StreamMessage(msgspec.Struct, frozen=True):
    """One message of a topic. `type` names the contract of `data`, which are decoded only when they are read."""

    topic: str
    seq: int
    type: str
    data: msgspec.Raw


class DeliveredBatch(msgspec.Struct, frozen=True):
    """A batch, whole and in order: the messages `seq` to `last_seq` of a topic."""

    topic: str
    seq: int
    content: PackedMessages | PriceColumns

    @property
    def last_seq(self) -> int:
        """The sequence number of the last message."""
        return self.seq + self.content.count - 1

    @property
    def weight(self) -> int:
        """The number of deliveries as which it counts against a bound."""
        return max(1, self.content.size // DELIVERY_BYTES)


class Gap(msgspec.Struct, frozen=True):
    """The messages `from_seq` to `to_seq` (both included) of a topic are lost; the broker no longer retains them."""

    topic: str
    from_seq: int
    to_seq: int


class Restarted(msgspec.Struct, frozen=True):
    """There is another instance of the broker: every topic is read again, from number 1."""

    instance_id: str


class MaybeLost(msgspec.Struct, frozen=True):
    """Messages under `prefix` may be missing; read the state that they describe again."""

    prefix: str


Delivery = StreamMessage | DeliveredBatch | Gap | Restarted | MaybeLost


def weight(deliveries: Iterable[Delivery]) -> int:
    """Return the number as which these deliveries count against a bound."""
    return sum(one.weight if isinstance(one, DeliveredBatch) else 1 for one in deliveries)


# --- effects of the subscriptions -------------------------------------------------------------------------------------


class Subscribe(msgspec.Struct, frozen=True):
    """Subscribe to a prefix on every ZeroMQ socket that can carry it."""

    prefix: str


class Unsubscribe(msgspec.Struct, frozen=True):
    """End the subscription to a prefix on every socket."""

    prefix: str


class Ask(msgspec.Struct, frozen=True):
    """Send a request of the client itself, and give its outcome to the subscriptions with `purpose`."""

    request_type: str
    data: Contract
    purpose: Purpose


class TopicRepair(msgspec.Struct, frozen=True):
    """The purpose of a request for missed messages of a topic.

    `is_last`: the backtest has ended, and the answer shows whether a message follows the last delivered one.
    """

    number: int
    subscription_id: int
    topic: str
    is_last: bool


class Wait(msgspec.Struct, frozen=True):
    """Give `repair` back to the subscriptions after so many seconds: the messages may be on their way."""

    seconds: float
    repair: TopicRepair


class StatusCheck(msgspec.Struct, frozen=True):
    """The purpose of a request for a status: it shows if a backtest has ended."""

    backtest_id: str


Purpose = TopicRepair | StatusCheck


class Deliver(msgspec.Struct, frozen=True):
    """Put these deliveries into the mailbox of a subscription."""

    subscription_id: int
    deliveries: list[Delivery]


class End(msgspec.Struct, frozen=True):
    """End a subscription: everything was delivered, or `error` says why it cannot continue."""

    subscription_id: int
    error: BacktestrError | None


class Finished(msgspec.Struct, frozen=True):
    """A followed backtest has ended, or `outcome` is the error that no end will be known."""

    backtest_id: str
    outcome: BacktestStatus | BacktestrError


SubscriptionEffect = Subscribe | Unsubscribe | Ask | Wait | Deliver | End | Finished | UnattributedError
