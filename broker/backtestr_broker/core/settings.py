"""The core's options."""

from __future__ import annotations

import msgspec

from backtestr_broker.core.clients.rate_limit import Rate
from backtestr_protocol.message_types import Priority


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The core's options, with units in their names; `config/broker.toml` explains each."""

    heartbeat_interval_ms: int
    watermark_interval_ms: int
    session_timeout_ms: int
    max_message_bytes: int
    max_queued_backtests: int
    max_queued_questions: int
    verify_interval_ms: int
    worker_hung_ms: int
    worker_silence_ms: int
    rates: dict[Priority, Rate]
