"""What the client's machines ask of the shell around them, and what subscribers receive: the language between the two.

Effects are executed in the order in which they are returned.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from backtestr_protocol.errors import BacktestrError
from backtestr_protocol.messages import BacktestStatus, Contract, Welcome

from .batches import PackedMessages, PriceColumns

# What one delivery takes (measured: an order 504). What is bounded in deliveries is bounded in memory by that.
DELIVERY_BYTES = 500

# --- the session's ------------------------------------------------------------------------------------------------


class Send(msgspec.Struct, frozen=True):
    """Put these frames on the connection."""

    frames: list[bytes]


class Welcomed(msgspec.Struct, frozen=True):
    """A session is open."""

    welcome: Welcome


class Answered(msgspec.Struct, frozen=True):
    """The request succeeded: its data, decoded and checked, and the attachments."""

    request_id: str
    data: Any
    attachments: list[bytes]


class Failed(msgspec.Struct, frozen=True):
    """The request failed: by the broker's answer, or for want of one."""

    request_id: str
    error: BacktestrError


class Refused(msgspec.Struct, frozen=True):
    """The broker will not open a session with this client; every request fails with this until the next connection."""

    error: BacktestrError


class KeyRefused(msgspec.Struct, frozen=True):
    """Whoever answered our Hello does not have the key that we have: the connection file is stale, or not its own."""

    error: BacktestrError


class Reconnect(msgspec.Struct, frozen=True):
    """The broker does not answer on this connection: make another one."""

    reason: str


class UnattributedError(msgspec.Struct, frozen=True):
    """Something that belongs to no request: a complaint of the broker's, or bytes that cannot be believed."""

    error: BacktestrError


SessionEffect = Send | Welcomed | Answered | Failed | Refused | KeyRefused | Reconnect | UnattributedError

# --- what subscribers receive ---------------------------------------------------------------------------------------


class StreamMessage(msgspec.Struct, frozen=True):
    """One message of a topic. `type` names the contract of `data`, which stay undecoded until somebody wants them."""

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
        return self.seq + self.content.count - 1

    @property
    def weight(self) -> int:
        """For how many deliveries it counts where they are bounded."""
        return max(1, self.content.size // DELIVERY_BYTES)


class Gap(msgspec.Struct, frozen=True):
    """The messages `from_seq` to `to_seq` (both included) of a topic are lost and no longer kept by the broker."""

    topic: str
    from_seq: int
    to_seq: int


class Restarted(msgspec.Struct, frozen=True):
    """Another start of the broker: every topic begins again at 1."""

    instance_id: str


class MaybeLost(msgspec.Struct, frozen=True):
    """Messages of topics that begin with `prefix` may have been lost unseen: read anew what they tell of."""

    prefix: str


Delivery = StreamMessage | DeliveredBatch | Gap | Restarted | MaybeLost


def weight(deliveries: Iterable[Delivery]) -> int:
    """For how many they count where unread deliveries are bounded."""
    return sum(one.weight if isinstance(one, DeliveredBatch) else 1 for one in deliveries)


# --- the subscriptions' ---------------------------------------------------------------------------------------------


class Subscribe(msgspec.Struct, frozen=True):
    """Subscribe, in ZeroMQ's sense, on every socket that can carry this prefix."""

    prefix: str


class Unsubscribe(msgspec.Struct, frozen=True):
    prefix: str


class Ask(msgspec.Struct, frozen=True):
    """Send a request and tell the subscriptions how it ended."""

    request_type: str
    data: Contract
    purpose: Purpose


class TopicRepair(msgspec.Struct, frozen=True):
    """What is there of this topic? `is_last` asks whether anything came after all that was delivered."""

    number: int
    subscription_id: int
    topic: str
    is_last: bool


class StatusCheck(msgspec.Struct, frozen=True):
    """Has this backtest ended?"""

    backtest_id: str


Purpose = TopicRepair | StatusCheck


class Deliver(msgspec.Struct, frozen=True):
    subscription_id: int
    deliveries: list[Delivery]


class End(msgspec.Struct, frozen=True):
    """Nothing more comes on this subscription: all was delivered, or `error` says why it cannot go on."""

    subscription_id: int
    error: BacktestrError | None


class Finished(msgspec.Struct, frozen=True):
    """A backtest that was followed has come to its end, or (`error`) the broker no longer knows it."""

    backtest_id: str
    outcome: BacktestStatus | BacktestrError


SubscriptionEffect = Subscribe | Unsubscribe | Ask | Deliver | End | Finished | UnattributedError
