"""The client's session makes requests into messages, matches answers to them, and resends where that is safe.

No I/O. The I/O thread reports events (`connected`, `receive`, `tick`) with the monotonic time in seconds as `now` and
wall-clock time as data; the session returns effects, which are executed in order. It owns the session id and counter,
the requests that wait for an answer or for a broker, and their deadlines. It resends a request under the same id where
that is safe (PROTOCOL.md, section 4) and the `Recovery` says so.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from backtestr_protocol import PROTOCOL_VERSION, SCHEMA_VERSION, __version__
from backtestr_protocol.codec import REQUEST, RESPONSE, Signer, decode, decode_message, encode_message, encoded_payload
from backtestr_protocol.envelopes import Envelope, Outgoing
from backtestr_protocol.errors import (
    AuthenticationError,
    BacktestrError,
    Busy,
    ErrorData,
    MessageError,
    MessageTooLarge,
    NetworkError,
    RateLimitExceeded,
    ReplayDetected,
    SerializationError,
    SessionUnknown,
    SystemFault,
    TimedOut,
    from_data,
)
from backtestr_protocol.message_types import REQUESTS
from backtestr_protocol.messages import Contract, Hello, Nothing, Welcome

from .backoff import backoff
from .counters import SessionCounters
from .effects import Answered, Failed, KeyRefused, Reconnect, Refused, Send, SessionEffect, UnattributedError, Welcomed
from .pending_request import PendingRequest
from .recovery import OfflineQueueFull, Recovery

# A request that is refused for its session or counter more often meets a broker that will never accept it.
MAX_RESENDS = 8
# The broker refuses counters that are so far behind the highest one, and within that those that were used.
REPLAY_WINDOW = 1_024
# A broker on the same machine answers Hello within milliseconds; the next attempt is made on a new connection.
HELLO_TIMEOUT = 5.0
# The wait in milliseconds when an error asks to wait and does not say how long.
DEFAULT_RETRY_MS = 100

# `disconnected`: no connection. `greeting`: Hello was sent. `ready`: a session is open. `refused`: the broker refused
# this client, and no request is sent until the next connection.
State = Literal["disconnected", "greeting", "ready", "refused"]

_welcome_decoder = msgspec.msgpack.Decoder(Welcome)
_error_decoder = msgspec.msgpack.Decoder(ErrorData)
_success_decoders = {name: msgspec.msgpack.Decoder(request.success) for name, request in REQUESTS.items()}


class Session:
    """The session of one client, across connections and instances of the broker."""

    def __init__(
        self,
        client_id: str,
        nonce: str,
        client_name: str = "backtestr (Python)",
        recovery: Recovery | None = None,
    ) -> None:
        """Make a session without a connection.

        `client_id` is the client's own stable name. `nonce` must be new for every session object: request ids are made
        of it, and an id must not be used twice under one `client_id`.
        """
        self._recovery = recovery or Recovery()
        self.counters = SessionCounters()
        self._hello = Hello(
            client_id=client_id,
            client_name=client_name,
            client_version=__version__,
            protocol_versions=[PROTOCOL_VERSION],
        )
        self._nonce = nonce
        self._signer: Signer | None = None
        self._state: State = "disconnected"
        self._refusal: BacktestrError | None = None
        self._key_error: AuthenticationError | None = None
        self._welcome: Welcome | None = None
        self._messages = 0  # numbers the request ids
        self._counter = 0
        self._pending: OrderedDict[str, PendingRequest] = OrderedDict()
        self._hello_id: str | None = None
        self._hello_deadline = 0.0
        self._ping_id: str | None = None
        self._last_sent = 0.0
        self._deadline: float | None = None  # the earliest of all, or earlier

    @property
    def state(self) -> State:
        """The state of the session."""
        return self._state

    @property
    def welcome(self) -> Welcome | None:
        """The broker's answer to Hello, None without a session."""
        return self._welcome

    @property
    def waiting(self) -> int:
        """The number of requests that wait for an answer."""
        return len(self._pending)

    @property
    def queued(self) -> int:
        """The number of the program's requests that wait for a broker and were never sent."""
        return sum(one.is_queued for one in self._pending.values())

    def room(self, most: int) -> int:
        """Return how many more requests there is room for, if at most `most` are to wait for an answer.

        While a session is awaited they may take half of the offline queue. An offline queue of no length has room: it
        refuses at once.
        """
        room = most - len(self._pending)
        if self._state in ("disconnected", "greeting") and (length := self._recovery.offline_queue):
            room = min(room, max(1, length // 2) - self.queued)
        return max(0, room)

    def connected(self, signer: Signer, now: float, wall_ms: int) -> list[SessionEffect]:
        """Say Hello on a new connection; `signer` has the key of the broker at its other end."""
        self._signer = signer
        self._key_error = None
        self._forget_session()
        return [self._greet(now, wall_ms)]

    def disconnected(self) -> None:
        """Note that the connection is gone. Requests wait for the next one until their deadlines."""
        self._forget_session()
        self._state = "disconnected"
        self._signer = None

    def denied(self, error: BacktestrError) -> list[SessionEffect]:
        """Fail all requests until the next connection, because the broker does not admit this client."""
        self._forget_session()
        self._state, self._refusal = "refused", error
        self.counters.dropped += self.queued
        failed: list[SessionEffect] = [Failed(request_id, error) for request_id in self._pending]
        self._pending.clear()
        return [Refused(error), *failed]

    def reconcile(self, expected: Iterable[str]) -> list[str]:
        """Forget all requests but those in `expected`, without a connection; return those that do not wait here.

        An exception that cut a caller in two leaves such differences.
        """
        known = set(expected)
        for request_id in [one for one in self._pending if one not in known]:
            del self._pending[request_id]
        self._deadline = self._earliest()
        return [one for one in expected if one not in self._pending]

    def request(
        self,
        request_type: str,
        data: Contract | msgspec.Raw,
        now: float,
        wall_ms: int,
        timeout: float,
        *,
        is_own: bool = False,
        waited: float = 0.0,
    ) -> tuple[str, list[SessionEffect]]:
        """Make a request, and return its id and the effects. `timeout` in seconds covers every attempt.

        `data` may be encoded already. `waited` seconds of the timeout have passed before.

        Without a session the request waits for one, in order, as one of at most `offline_queue`. Requests of the client
        itself (`is_own`) are bounded by the number of its subscriptions instead.
        """
        request_id = self._new_id()
        pending = PendingRequest(request_type, data, now - waited, timeout, is_own=is_own)
        if self._state in ("disconnected", "greeting") and not is_own and self.queued >= self._recovery.offline_queue:
            self.counters.dropped += 1
            return request_id, [Failed(request_id, self._queue_full(request_type))]
        self._pending[request_id] = pending
        self._wake_by(pending.deadline)
        if self._state == "ready":
            return request_id, [self._send(request_id, pending, now, wall_ms)]
        if self._refusal is not None:
            self.counters.dropped += pending.is_queued
            del self._pending[request_id]
            return request_id, [Failed(request_id, self._refusal)]
        return request_id, []

    def _queue_full(self, request_type: str) -> OfflineQueueFull:
        return OfflineQueueFull(
            f"{request_type} was not sent: there is no broker, and {self._recovery.offline_queue} requests wait for "
            "one already; wait for some of them, ask again later, or connect with recovery=Recovery(offline_queue=...)",
            waiting=self.queued,
        )

    def farewell(self, now: float, wall_ms: int) -> list[SessionEffect]:
        """End the session at once instead of by silence, without waiting for the answer."""
        if self._state != "ready":
            return []
        goodbye = PendingRequest("Goodbye", Nothing(), now, timeout=0.0)
        send = self._send(self._new_id(), goodbye, now, wall_ms)
        self.disconnected()
        return [send]

    def receive(self, frames: Sequence[bytes], now: float, wall_ms: int, chance: float = 0.0) -> list[SessionEffect]:
        """Take in an answer, and never raise: what cannot be believed becomes an `UnattributedError`.

        `chance` is a random number from 0 to 1, for the jitter of a wait that may follow.
        """
        if self._signer is None:
            return []
        try:
            message = decode_message(self._signer, RESPONSE, frames)
            envelope = message.envelope
            error = _error_in(envelope)
            if envelope.correlation_id is None:
                return [
                    UnattributedError(error or SerializationError(f"{envelope.message_type} without correlationId"))
                ]
            if envelope.correlation_id == self._hello_id:
                return self._greeted(envelope, error, now, wall_ms)
        except AuthenticationError as key_error:
            if self._state != "greeting":
                return [UnattributedError(key_error)]
            self._key_error = key_error
            return [KeyRefused(key_error)]
        except MessageError as malformed:
            return [UnattributedError(malformed)]
        return self._answered(envelope.correlation_id, envelope, error, message.attachments, now, wall_ms, chance)

    def tick(self, now: float, wall_ms: int) -> list[SessionEffect]:
        """Do what is due: time requests out, resend after a wait, keep the session alive."""
        if self._deadline is None or now < self._deadline:
            return []
        effects: list[SessionEffect] = []
        for request_id, pending in list(self._pending.items()):
            if pending.deadline <= now:
                del self._pending[request_id]
                effects += self._timed_out(request_id, pending)
            elif self._state == "ready" and pending.due is not None and pending.due <= now:
                if pending.retry_at is None:
                    pending.silences += 1
                effects.append(self._send(request_id, pending, now, wall_ms))
        if self._state == "greeting" and self._hello_deadline <= now:
            self._hello_deadline = now + HELLO_TIMEOUT
            effects.append(Reconnect("the broker did not take the Hello"))
        elif (
            not effects
            and self._welcome
            and self._ping_id is None
            and self._last_sent + self._ping_interval(self._welcome) <= now
        ):
            effects.append(self._ping(self._welcome, now, wall_ms))
        self._deadline = self._earliest()
        return effects

    def next_deadline(self) -> float | None:
        """Return when `tick` is due, or somewhat before; None is never."""
        return self._deadline

    # --- Hello --------------------------------------------------------------------------------------------------------

    def _greet(self, now: float, wall_ms: int) -> SessionEffect:
        self._forget_session()
        self._state = "greeting"
        self._hello_id = self._new_id()
        self._hello_deadline = now + HELLO_TIMEOUT
        self._wake_by(self._hello_deadline)
        payload = msgspec.Raw(encoded_payload("Hello", self._hello))
        return Send(self._signed(self._hello_id, payload, wall_ms))

    def _greeted(
        self, envelope: Envelope, error: BacktestrError | None, now: float, wall_ms: int
    ) -> list[SessionEffect]:
        if isinstance(error, Busy | RateLimitExceeded):
            self._hello_deadline = now + _retry_ms(error) / 1000
            self._wake_by(self._hello_deadline)
            return []
        if error is not None:
            return self.denied(error)
        welcome = decode(_welcome_decoder, envelope.payload.data)
        self._hello_id = None
        self._state, self._welcome, self._counter = "ready", welcome, 0
        self._key_error = None
        self.counters.sessions += 1
        self._last_sent = now
        self._wake_by(now + self._ping_interval(welcome))
        effects: list[SessionEffect] = [Welcomed(welcome)]
        waiting = list(self._pending.items())
        effects += [self._send(request_id, pending, now, wall_ms) for request_id, pending in waiting]
        return effects

    def _forget_session(self) -> None:
        if self._ping_id is not None:
            self._pending.pop(self._ping_id, None)
        self._welcome = self._hello_id = self._ping_id = self._refusal = None

    # --- answers ------------------------------------------------------------------------------------------------------

    def _answered(
        self,
        request_id: str,
        envelope: Envelope,
        error: BacktestrError | None,
        attachments: list[bytes],
        now: float,
        wall_ms: int,
        chance: float,
    ) -> list[SessionEffect]:
        pending = self._pending.get(request_id)
        if pending is None:
            return []  # it timed out meanwhile, or this is the second answer to a resent request
        if _is_of_copy(error):
            return []  # the broker has what was sent, and answers that
        if error is not None and self._recovery.automatic:
            retry = self._retry(request_id, pending, error, now, wall_ms, chance)
            if retry is not None:
                return retry
        del self._pending[request_id]
        if request_id == self._ping_id:
            self._ping_id = None
            self._wake_by(self._last_sent)  # at once, so that `tick` computes when the next Ping is due
            return []  # the broker is there, and no caller waits for this answer
        if error is not None:
            greet = isinstance(error, SessionUnknown) and self._is_current(pending)
            return [*([self._greet(now, wall_ms)] if greet else []), Failed(request_id, error)]
        try:
            data = decode(_success_decoders[pending.request_type], envelope.payload.data)
        except MessageError as malformed:
            return [Failed(request_id, malformed)]
        return [Answered(request_id, data, attachments)]

    def _retry(
        self, request_id: str, pending: PendingRequest, error: BacktestrError, now: float, wall_ms: int, chance: float
    ) -> list[SessionEffect] | None:
        """Return the effects that retry the request if the error advises that and attempts and time remain, else None.

        Advice that this client does not know is left to the program, which finds it in `error.recovery_actions`.
        """
        advice = {one.action for one in error.recovery_actions if one.automatic}
        match error:
            case SessionUnknown() if "hello" in advice and pending.resends < MAX_RESENDS:
                pending.resends += 1
                if self._is_current(pending):
                    pending.session_id = None
                    return [self._greet(now, wall_ms)]
                if self._state == "ready":
                    return [self._send(request_id, pending, now, wall_ms)]
                return []  # it is sent when the session is open
            case ReplayDetected() if "resend" in advice and pending.resends < MAX_RESENDS:
                pending.resends += 1
                return [self._send(request_id, pending, now, wall_ms)] if self._state == "ready" else []
            case Busy() | RateLimitExceeded() if "wait" in advice:
                pending.waits += 1
                delay = backoff(self._recovery, pending.waits, chance)
                return self._retry_after(pending, now, max(_retry_ms(error) / 1000, delay))
            case SystemFault() if "retry" in advice and pending.may_retry(self._recovery):
                pending.faults += 1
                return self._retry_after(pending, now, backoff(self._recovery, pending.faults, chance))
            case _:
                return None

    def _retry_after(self, pending: PendingRequest, now: float, delay: float) -> list[SessionEffect] | None:
        """Schedule a retry after `delay` seconds, or return None if the request's time is up before."""
        if not pending.retry_after(now, delay):
            return None
        self._wake_by(now + delay)
        return []

    def _is_current(self, pending: PendingRequest) -> bool:
        """Return True if the request was last sent in the session that is open."""
        return self._welcome is not None and pending.session_id == self._welcome.session_id

    def _timed_out(self, request_id: str, pending: PendingRequest) -> list[SessionEffect]:
        if request_id == self._ping_id:
            self._ping_id = None
            return [Reconnect(f"no answer to Ping within {pending.timeout:g} s")]
        if pending.is_queued:
            self.counters.dropped += 1
        waited = f"{pending.request_type} was not answered within {pending.timeout:g} s"
        if self._state == "ready":
            return [Failed(request_id, TimedOut(waited, timeoutSeconds=pending.timeout))]
        sent = "it was never sent" if not pending.sendings else "it was sent before, and may have been executed"
        if self._key_error is not None:
            why: BacktestrError = AuthenticationError(f"{waited} ({sent}): {self._key_error}")
        else:
            why = NetworkError(f"{waited}: the connection to the broker is lost ({sent})")
        return [Failed(request_id, why)]

    # --- sending ------------------------------------------------------------------------------------------------------

    def _send(self, request_id: str, pending: PendingRequest, now: float, wall_ms: int) -> Send | Failed:
        assert self._welcome is not None
        session_id, most = self._welcome.session_id, self._welcome.max_message_bytes
        frames = self._signed(request_id, pending.payload, wall_ms, session_id, self._counter + 1)
        size = sum(map(len, frames))
        if size > most:
            self._pending.pop(request_id, None)
            return Failed(request_id, _too_large(pending.request_type, size, most))
        self._counter += 1
        self._last_sent = now
        pending.sent(session_id, now, self._recovery)
        if pending.due is not None:
            self._wake_by(pending.due)
        if pending.sendings > 1 and not pending.is_own:
            self.counters.resent += 1
        return Send(frames)

    def _signed(
        self,
        request_id: str,
        payload: msgspec.Raw,
        wall_ms: int,
        session_id: str | None = None,
        counter: int | None = None,
    ) -> list[bytes]:
        assert self._signer is not None
        envelope = Outgoing(
            id=request_id,
            timestamp=wall_ms,
            schema_version=SCHEMA_VERSION,
            message_type="Request",
            payload=payload,
            session_id=session_id,
            counter=counter,
        )
        return encode_message(self._signer, REQUEST, envelope)

    def _ping(self, welcome: Welcome, now: float, wall_ms: int) -> Send | Failed:
        self._ping_id = self._new_id()
        timeout = welcome.session_timeout_ms / 1000
        pending = self._pending[self._ping_id] = PendingRequest("Ping", Nothing(), now, timeout, is_own=True)
        send = self._send(self._ping_id, pending, now, wall_ms)
        pending.resend_at = None  # a Ping without an answer shows that the connection is lost
        return send

    def _new_id(self) -> str:
        self._messages += 1
        return f"{self._nonce}-{self._messages}"

    # --- time ---------------------------------------------------------------------------------------------------------

    def _ping_interval(self, welcome: Welcome) -> float:
        return welcome.heartbeat_interval_ms / 1000

    def _wake_by(self, at: float) -> None:
        if self._deadline is None or at < self._deadline:
            self._deadline = at

    def _earliest(self) -> float | None:
        times = [pending.deadline for pending in self._pending.values()]
        if self._state == "ready":
            times += [pending.due for pending in self._pending.values() if pending.due is not None]
        if self._state == "greeting":
            times.append(self._hello_deadline)
        if self._welcome and self._ping_id is None:
            times.append(self._last_sent + self._ping_interval(self._welcome))
        return min(times, default=None)

    def check_invariants(self) -> None:
        """Raise `AssertionError` unless state, requests and the next deadline agree."""
        assert (self._state == "ready") == (self._welcome is not None)
        assert (self._state == "greeting") == (self._hello_id is not None)
        assert (self._state == "refused") == (self._refusal is not None)
        assert self._state == "disconnected" or self._signer is not None
        assert self._state == "ready" or self.queued <= self._recovery.offline_queue
        for pending in self._pending.values():
            pending.check_invariants(self._recovery)
        earliest = self._earliest()
        assert earliest is None or (self._deadline is not None and self._deadline <= earliest), (
            "a deadline would be missed"
        )


def _error_in(envelope: Envelope) -> BacktestrError | None:
    """Return the error that an answer carries, None for a success. Raises `MessageError` for any other message."""
    match envelope.payload.type:
        case "Success":
            return None
        case "Failure" | "Error":
            return from_data(decode(_error_decoder, envelope.payload.data))
        case other:
            raise SerializationError(f"expected the answer Success, Failure or Error; {other!r} came")


def _is_of_copy(error: BacktestrError | None) -> bool:
    """Return True for the refusal of a copy that somebody between has made of a message that the broker has taken.

    A counter within the broker's window was refused because it was used, and this client uses none twice.
    """
    details = error.details if isinstance(error, ReplayDetected) else None
    counter, highest = (details or {}).get("counter"), (details or {}).get("highest")
    return isinstance(counter, int) and isinstance(highest, int) and 0 <= highest - counter < REPLAY_WINDOW


def _too_large(request_type: str, size: int, most: int) -> MessageTooLarge:
    return MessageTooLarge(
        f"{request_type} was not sent: it has {size:,} bytes, and the broker takes at most {most:,} in one message; "
        "send less at once, or raise limits.max_message_bytes in broker.toml",
        bytes=size,
        maxMessageBytes=most,
    )


def _retry_ms(error: BacktestrError) -> float:
    stated = (error.details or {}).get("retryAfterMs", DEFAULT_RETRY_MS)
    return max(1.0, float(stated)) if isinstance(stated, int | float) else DEFAULT_RETRY_MS
