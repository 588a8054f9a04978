"""Scripted histories of the client's session: events and times in, effects and state out, as plain JSON values.

Every number is a multiple of an eighth, so that sums of them are exact in each language.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import msgspec

from backtestr.core.effects import (
    Answered,
    Failed,
    KeyRefused,
    Reconnect,
    Refused,
    Send,
    SessionEffect,
    UnattributedError,
    Welcomed,
)
from backtestr.core.recovery import Backoff, Recovery
from backtestr.core.session import Session
from backtestr_protocol.codec import REQUEST, RESPONSE, Signer, decode, decode_message, encode_message
from backtestr_protocol.envelopes import Outgoing, OutgoingPayload
from backtestr_protocol.errors import (
    AlgorithmError,
    AuthenticationError,
    BacktestrError,
    Busy,
    NotFound,
    RateLimitExceeded,
    ReplayDetected,
    SessionUnknown,
    SystemFault,
)
from backtestr_protocol.messages import BacktestRef, Contract, GetState, Nothing

WALL_MS = 1_790_000_000_000
RIGHT, WRONG = Signer(bytes(32)), Signer(bytes([1] * 32))
_any = msgspec.msgpack.Decoder()
_SELDOM = ("connected", "disconnected", "denied", "farewell", "stranger", "forged", "rubbish")
_BACKOFFS: tuple[Backoff, ...] = ("fixed", "linear", "exponential")


def error_json(error: BacktestrError) -> dict[str, Any]:
    """Return the part of an error that is the same in every client: its class, its code and its details."""
    return {"name": type(error).__name__, "code": error.code, "details": error.details}


def policy_json(policy: Recovery) -> dict[str, Any]:
    """Return a policy with the names and the milliseconds of the TypeScript client."""
    return {
        "backoff": policy.backoff,
        "baseDelayMs": policy.base_delay * 1000,
        "maxDelayMs": policy.max_delay * 1000,
        "jitterMs": policy.jitter * 1000,
        "maxAttempts": policy.max_attempts,
        "resendAfterMs": None if policy.resend_after is None else policy.resend_after * 1000,
        "breakerFailures": policy.breaker_failures,
        "breakerResetMs": policy.breaker_reset * 1000,
        "offlineQueue": policy.offline_queue,
        "automatic": policy.automatic,
    }


def policy_of(chance: random.Random) -> Recovery:
    """Return a policy of small numbers."""
    return Recovery(
        backoff=chance.choice(_BACKOFFS),
        base_delay=chance.choice([0.125, 0.5]),
        max_delay=chance.choice([1.0, 4.0]),
        jitter=chance.choice([0.0, 0.125]),
        max_attempts=chance.choice([1, 2, 4]),
        resend_after=chance.choice([None, 1.0, 2.0]),
        breaker_failures=chance.choice([1, 3]),
        breaker_reset=chance.choice([1.0, 8.0]),
        offline_queue=chance.choice([0, 2, 10]),
        automatic=chance.random() < 0.8,
    )


class _SessionHistory:
    """One history while it is written: each event goes to the session, and its effects are noted."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._policy = policy_of(self._chance)
        self._session = Session("client", "n", "history", self._policy)
        self._now = 0.0
        self._welcomes = 0
        self._sent: list[tuple[str, str]] = []  # the id and the type of each request that was sent
        self._steps: list[dict[str, Any]] = []

    def written(self, steps: int) -> dict[str, Any]:
        for _ in range(steps):
            self._step()
        return {"policy": policy_json(self._policy), "clientId": "client", "nonce": "n", "steps": self._steps}

    def _step(self) -> None:
        self._now += self._chance.choice([0.0, 0.125, 0.5, 1.0, 4.0])
        often = ["request"] * 6 + ["own"] + ["answer"] * 8 + ["tick"] * 5
        event = self._chance.choice(often if self._chance.random() < 0.9 else _SELDOM)
        if self._session.state == "disconnected" and self._chance.random() < 0.8:
            event = "connected"
        if self._session.state == "refused" and self._chance.random() < 0.5:
            event = "connected"
        if self._session.state == "greeting" and self._chance.random() < 0.7:
            event = "answer"
        if event == "denied" and self._session.state == "disconnected":
            event = "tick"  # only the broker at the other end denies
        wall = WALL_MS + int(self._now * 1000)
        match event:
            case "connected":
                self._note({"event": "connected"}, self._session.connected(RIGHT, self._now, wall))
            case "disconnected":
                self._session.disconnected()
                self._note({"event": "disconnected"}, [])
            case "denied":
                error = AuthenticationError("denied")
                self._note({"event": "denied", "error": _wire(error)}, self._session.denied(error))
            case "farewell":
                self._note({"event": "farewell"}, self._session.farewell(self._now, wall))
            case "request" | "own":
                self._ask(wall, is_own=event == "own")
            case "tick":
                self._note({"event": "tick"}, self._session.tick(self._now, wall))
            case "stranger":
                self._receive(None, "Error", _wire(NotFound("?")), wall)
            case "forged":
                self._receive("n-1", "Success", {}, wall, signer=WRONG)
            case "rubbish":
                frames = [b"\x00" * 32, b"\xc1"][: self._chance.choice([1, 2])]
                effects = self._session.receive(frames, self._now, wall, 0.0)
                self._note({"event": "frames", "frames": [one.hex() for one in frames]}, effects)
            case "answer":
                self._answer(wall)

    def _ask(self, wall: int, *, is_own: bool) -> None:
        kind, data = self._chance.choice(
            [("Ping", Nothing()), ("GetState", GetState(key="k")), ("GetBacktestStatus", BacktestRef(backtest_id="b"))]
        )
        timeout = self._chance.choice([1.0, 8.0, 30.0])
        request_id, effects = self._session.request(kind, data, self._now, wall, timeout, is_own=is_own)
        step = {"event": "request", "type": kind, "data": _plain(data), "timeout": timeout, "isOwn": is_own}
        self._note({**step, "requestId": request_id}, effects)

    def _answer(self, wall: int) -> None:
        request_id, kind = self._chance.choice(self._sent[-6:]) if self._sent else ("n-999", "Ping")
        error = self._chance.choice(
            [
                *[None] * 6,
                SessionUnknown("?"),
                ReplayDetected("?"),
                ReplayDetected("?", counter=3, highest=5),
                ReplayDetected("?", counter=3, highest=3 + 1024),
                Busy("?", retryAfterMs=250),
                RateLimitExceeded("?"),
                SystemFault("?"),
                AlgorithmError("?", traceback="x"),
            ]
        )
        if error is not None and (kind != "Hello" or self._chance.random() < 0.2):
            self._receive(request_id, "Failure", _wire(error), wall)
        elif kind == "Hello":
            self._welcomes += 1
            self._receive(request_id, "Success", self._welcome(), wall)
        else:
            self._receive(request_id, "Success", _success(kind), wall)

    def _welcome(self) -> dict[str, Any]:
        return {
            "sessionId": f"s{self._welcomes}",
            "instanceId": "i",
            "protocolVersion": 1,
            "serverVersion": "1",
            "heartbeatIntervalMs": 1000,
            "sessionTimeoutMs": 8000,
            "maxMessageBytes": self._chance.choice([1 << 24] * 9 + [200]),
            "topics": [],
        }

    def _receive(self, correlation_id: str | None, kind: str, data: Any, wall: int, signer: Signer = RIGHT) -> None:
        envelope = Outgoing(
            id="a",
            timestamp=wall,
            schema_version=1,
            message_type="Response",
            payload=OutgoingPayload(kind, data),
            correlation_id=correlation_id,
        )
        chance = self._chance.choice([0.0, 0.5, 1.0])
        effects = self._session.receive(encode_message(signer, RESPONSE, envelope), self._now, wall, chance)
        answer = {"type": kind, "data": data, "correlationId": correlation_id, "isForged": signer is WRONG}
        self._note({"event": "answer", "answer": answer, "chance": chance}, effects)

    def _note(self, step: dict[str, Any], effects: Iterable[SessionEffect]) -> None:
        session = self._session
        session.check_invariants()
        after = {
            "state": session.state,
            "waiting": session.waiting,
            "queued": session.queued,
            "deadline": session.next_deadline(),
            "sessions": session.counters.sessions,
            "resent": session.counters.resent,
            "dropped": session.counters.dropped,
        }
        found = [self._effect(one) for one in effects]
        self._steps.append({**step, "now": self._now, "effects": found, "after": after})

    def _effect(self, effect: SessionEffect) -> dict[str, Any]:
        match effect:
            case Send(frames):
                envelope = decode_message(RIGHT, REQUEST, frames).envelope
                self._sent.append((envelope.id, envelope.payload.type))
                payload = {"type": envelope.payload.type, "data": decode(_any, envelope.payload.data)}
                ids = {"sessionId": envelope.session_id, "counter": envelope.counter}
                return {"kind": "send", "id": envelope.id, "timestamp": envelope.timestamp, "payload": payload, **ids}
            case Welcomed(welcome):
                return {"kind": "welcomed", "sessionId": welcome.session_id}
            case Answered(request_id, data, _):
                return {"kind": "answered", "requestId": request_id, "data": _plain(data)}
            case Failed(request_id, error):
                return {"kind": "failed", "requestId": request_id, "error": error_json(error)}
            case Refused(error):
                return {"kind": "refused", "error": error_json(error)}
            case KeyRefused(error):
                return {"kind": "keyRefused", "error": error_json(error)}
            case Reconnect(reason):
                return {"kind": "reconnect", "reason": reason}
            case UnattributedError(error):
                return {"kind": "unattributed", "error": {**error_json(error), "details": None}}


def _wire(error: BacktestrError) -> Any:
    return msgspec.to_builtins(error.to_data(component="test", timestamp=WALL_MS))


def _plain(data: Contract) -> Any:
    return decode(_any, msgspec.msgpack.encode(data))


def _success(kind: str) -> dict[str, Any]:
    match kind:
        case "Ping":
            return {"timestamp": WALL_MS}
        case "GetState":
            return {"key": "k", "value": [1, "a", None], "version": 3, "checksum": "c", "timestamp": WALL_MS}
        case "GetBacktestStatus":
            return {
                "backtestId": "b",
                "status": "running",
                "algorithmId": "a",
                "symbol": "S",
                "progressPercent": 12.5,
                "submitTime": WALL_MS,
            }
    return {}


def session_histories(count: int = 16, steps: int = 45) -> list[dict[str, Any]]:
    """Return histories of sessions, the same ones every time."""
    return [_SessionHistory(seed).written(steps) for seed in range(count)]
