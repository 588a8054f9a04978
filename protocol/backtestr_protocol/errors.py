"""This module has every error that can cross the wire: its code, its exception and its recovery actions.

`to_data` makes an `ErrorData` of an exception of this tree, and `from_data` makes the same exception of an `ErrorData`
from a peer. Mistakes of the calling program itself (a function given a wrong type, a closed client used again) are
ordinary `TypeError`, `ValueError` and `RuntimeError`, and are never sent.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

import msgspec

Severity = Literal["Info", "Warning", "Error", "Critical"]

ErrorCode = Literal[
    "IPC_SERIALIZATION_ERROR",
    "IPC_NETWORK_ERROR",
    "TIMEOUT",
    "VALIDATION_ERROR",
    "INVALID_CONFIGURATION",
    "ALGORITHM_ERROR",
    "DATA_ERROR",
    "SYSTEM_ERROR",
    "AUTHENTICATION_ERROR",
    "REPLAY_DETECTED",
    "SESSION_UNKNOWN",
    "PROTOCOL_VERSION_UNSUPPORTED",
    "RATE_LIMIT_EXCEEDED",
    "MESSAGE_TOO_LARGE",
    "NOT_FOUND",
    "STATE_CONFLICT",
    "UNSUPPORTED_COMMAND",
    "BUSY",
]


class RecoveryAction(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An action that may resolve an error.

    `automatic`: the client library does it by itself. `user_required`: a person decides. If neither is set, the
    calling program decides, since it knows why it asked.
    """

    action: str
    description: str
    automatic: bool
    user_required: bool


class ErrorData(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An error on the wire (PROTOCOL.md, section 5); `timestamp` is in milliseconds since the Unix epoch."""

    code: ErrorCode
    message: str
    details: dict[str, Any] | None
    recovery_actions: list[RecoveryAction]
    severity: Severity
    component: str
    timestamp: int


def _automatic(action: str, description: str) -> RecoveryAction:
    return RecoveryAction(action=action, description=description, automatic=True, user_required=False)


def _by_user(action: str, description: str) -> RecoveryAction:
    return RecoveryAction(action=action, description=description, automatic=False, user_required=True)


def _by_program(action: str, description: str) -> RecoveryAction:
    return RecoveryAction(action=action, description=description, automatic=False, user_required=False)


RECOVERY_ACTIONS: Mapping[str, tuple[RecoveryAction, ...]] = {
    "IPC_SERIALIZATION_ERROR": (_by_user("fix_encoding", "Send frames as PROTOCOL.md, section 2, lays them out"),),
    "IPC_NETWORK_ERROR": (
        _automatic("reconnect", "Connect again and resend with the same request id"),
        _by_user("start_broker", "Start the broker: make run-broker"),
    ),
    "TIMEOUT": (
        _automatic("retry", "Send the request again with the same id: it is not executed twice"),
        _by_user("raise_time_limit", "Allow more time"),
    ),
    "VALIDATION_ERROR": (_by_user("correct_request", "Correct the field that details.path names"),),
    "INVALID_CONFIGURATION": (_by_user("correct_configuration", "Change the fields that the message names"),),
    "ALGORITHM_ERROR": (_by_user("fix_algorithm", "Correct the algorithm at the place details.traceback shows"),),
    "DATA_ERROR": (
        _by_user("import_data", "Import the data: backtestr import FILE --symbol SYMBOL"),
        _by_user("list_data", "See what there is: backtestr data"),
    ),
    "SYSTEM_ERROR": (
        _automatic("retry", "Send the request again with the same id"),
        _by_user("read_log", "Look for details.id in the broker's log"),
    ),
    "AUTHENTICATION_ERROR": (
        _automatic("reload_connection_file", "Read the connection file again: the key is new at every broker start"),
    ),
    "REPLAY_DETECTED": (_automatic("resend", "Send with a fresh counter and the same id"),),
    "SESSION_UNKNOWN": (_automatic("hello", "Say Hello again and resend with the same id"),),
    "PROTOCOL_VERSION_UNSUPPORTED": (_by_user("upgrade", "Use a client that speaks a version in details.supported"),),
    "RATE_LIMIT_EXCEEDED": (_automatic("wait", "Wait details.retryAfterMs, then send again"),),
    "MESSAGE_TOO_LARGE": (_by_user("split", "Ask for less, or send it in parts"),),
    "NOT_FOUND": (_by_user("correct_name", "Use one of the names that the message or details give"),),
    "STATE_CONFLICT": (_by_program("refresh", "Read the current state, then decide again"),),
    "UNSUPPORTED_COMMAND": (_by_user("correct_type", "Use a type that the message names, or upgrade the broker"),),
    "BUSY": (_automatic("wait", "Wait details.retryAfterMs, then send again with the same id"),),
}


class BacktestrError(Exception):
    """An error that is answered with a `Failure`.

    `str(error)` is the message. `details` has further facts, or is None.
    """

    code: ClassVar[ErrorCode] = "SYSTEM_ERROR"
    severity: ClassVar[Severity] = "Error"
    advice: ClassVar[tuple[RecoveryAction, ...] | None] = None  # replaces the code's recovery actions

    def __init__(self, message: str, /, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, Any] | None = details or None
        self._advice: list[RecoveryAction] | None = None

    @property
    def recovery_actions(self) -> list[RecoveryAction]:
        """The actions that may help: those that a peer sent, else those of the class, else those of the code."""
        if self._advice is not None:
            return list(self._advice)
        return list(RECOVERY_ACTIONS[self.code] if self.advice is None else self.advice)

    def to_data(self, *, component: str, timestamp: int) -> ErrorData:
        """Return the error as it is sent; `timestamp` is in milliseconds since the Unix epoch."""
        return ErrorData(
            code=self.code,
            message=self.message,
            details=self.details,
            recovery_actions=self.recovery_actions,
            severity=self.severity,
            component=component,
            timestamp=timestamp,
        )


class MessageError(BacktestrError):
    """A received message cannot be accepted; decoding hostile bytes raises this type and no other.

    `message_id` is the `id` in an envelope that is signed but wrong elsewhere, so that its request can be answered.
    """

    message_id: str | None = None


class SerializationError(MessageError):
    """Frames or MessagePack are not as PROTOCOL.md describes them."""

    code: ClassVar[ErrorCode] = "IPC_SERIALIZATION_ERROR"


class AuthenticationError(MessageError):
    """The signature is wrong."""

    code: ClassVar[ErrorCode] = "AUTHENTICATION_ERROR"


class NotPermitted(AuthenticationError):
    """The right of the client's key does not include the request."""

    advice: ClassVar[tuple[RecoveryAction, ...] | None] = (
        _by_user(
            "raise_right", "On the broker's machine: backtestr keys allow NAME --rights RIGHT, as the message says"
        ),
    )


class ValidationError(MessageError):
    """A field is missing, ill-typed or out of range; `details["path"]` names it."""

    code: ClassVar[ErrorCode] = "VALIDATION_ERROR"


class MessageTooLarge(MessageError):
    code: ClassVar[ErrorCode] = "MESSAGE_TOO_LARGE"


class UnsupportedCommand(MessageError):
    code: ClassVar[ErrorCode] = "UNSUPPORTED_COMMAND"


class ProtocolVersionUnsupported(MessageError):
    code: ClassVar[ErrorCode] = "PROTOCOL_VERSION_UNSUPPORTED"


class NetworkError(BacktestrError):
    """The client has no connection to a broker, or has lost it."""

    code: ClassVar[ErrorCode] = "IPC_NETWORK_ERROR"
    severity: ClassVar[Severity] = "Warning"  # it connects again by itself


class TimedOut(BacktestrError):
    code: ClassVar[ErrorCode] = "TIMEOUT"


class TimeLimitExceeded(TimedOut):
    """Work in a worker took longer than it may: to do the same again would take as long."""

    advice: ClassVar[tuple[RecoveryAction, ...] | None] = (
        _by_user("raise_time_limit", "Allow more time as the message says, or ask for less"),
    )


class InvalidConfiguration(BacktestrError):
    code: ClassVar[ErrorCode] = "INVALID_CONFIGURATION"


class AlgorithmError(BacktestrError):
    code: ClassVar[ErrorCode] = "ALGORITHM_ERROR"


class DataError(BacktestrError):
    code: ClassVar[ErrorCode] = "DATA_ERROR"


class UnusableFile(DataError):
    """A file to be imported does not exist, cannot be read, or does not have the stated format."""

    advice: ClassVar[tuple[RecoveryAction, ...] | None] = (
        _by_user("correct_file", "Name another file, or correct this one as the message says"),
    )


def worth_dropping(kept: int, rows: int) -> bool:
    """Return whether leaving rows out may be advised, which keeps `kept` of `rows`: it must not lose most of them."""
    return kept > 0 and kept * 2 >= rows


class UnusableRows(UnusableFile):
    """A file to be imported has rows that are not valid bars or ticks.

    `details["kept"]` of `details["rows"]` rows would be left without them; to leave them out is advised where that are
    most.
    """

    @property
    def recovery_actions(self) -> list[RecoveryAction]:
        """The actions that may help: none of them loses most of the rows."""
        if self._advice is not None:
            return list(self._advice)
        actions = [_by_user("correct_file", "Correct the file at the places that the message names")]
        details = self.details or {}
        kept, rows = details.get("kept", 0), details.get("rows", 0)
        if worth_dropping(kept, rows):
            drop = f'Leave those rows out ({kept:,} of {rows:,} are kept): --repair drop, or repair: "drop"'
            actions.append(_by_user("drop_rows", drop))
        return actions


class AmbiguousFile(UnusableFile):
    """A file to be imported can be read in two ways; the message has the options that decide."""

    advice: ClassVar[tuple[RecoveryAction, ...] | None] = (
        _by_user("choose_reading", "Name the reading that is right, with the option that the message has"),
    )


class SeveralSymbols(UnusableFile):
    """A file to be imported holds several symbols, and one series was asked for."""

    advice: ClassVar[tuple[RecoveryAction, ...] | None] = (
        _by_user(
            "name_symbol_column",
            "Name the column, and each symbol becomes a series: --symbol-column NAME, or symbolColumn; or one of them, "
            "with --symbol too",
        ),
    )


class UnknownTimeframe(DataError):
    """The bars of a file have no timeframe, or another than the named one."""

    advice: ClassVar[tuple[RecoveryAction, ...] | None] = (
        _by_user("name_timeframe", "Name the timeframe that the message has: --timeframe, or timeframe"),
    )


class SystemFault(BacktestrError):
    """The broker or the engine has a defect, or lacks memory or disk space."""

    code: ClassVar[ErrorCode] = "SYSTEM_ERROR"
    severity: ClassVar[Severity] = "Critical"


class DiskUnwritable(SystemFault):
    """A file cannot be written, as a rule since its disk is full. Nothing of it was stored."""

    advice: ClassVar[tuple[RecoveryAction, ...] | None] = (
        _by_user(
            "free_space", "Free space on the disk that the message names: backtestr results prune, backtestr data"
        ),
        _by_program("send_again", "Send it again when there is space"),
    )


class WorkersLost(SystemFault):
    """A task has ended two workers or more, one after the other, or no worker that could do it starts."""

    advice: ClassVar[tuple[RecoveryAction, ...] | None] = (
        _by_user("read_log", "Look in the broker's log for what ended the workers"),
    )


class ClusterUnavailable(SystemFault):
    """A Dask scheduler does not answer, or has no worker that may compute. What is on disk stays."""

    advice: ClassVar[tuple[RecoveryAction, ...] | None] = (
        _by_user("start_cluster", "Start the scheduler and its workers as the message says, then resume the sweep"),
    )


class ReplayDetected(BacktestrError):
    code: ClassVar[ErrorCode] = "REPLAY_DETECTED"
    severity: ClassVar[Severity] = "Warning"


class SessionUnknown(BacktestrError):
    code: ClassVar[ErrorCode] = "SESSION_UNKNOWN"
    severity: ClassVar[Severity] = "Warning"


class RateLimitExceeded(BacktestrError):
    code: ClassVar[ErrorCode] = "RATE_LIMIT_EXCEEDED"
    severity: ClassVar[Severity] = "Warning"


class NotFound(BacktestrError):
    code: ClassVar[ErrorCode] = "NOT_FOUND"


class StateConflict(BacktestrError):
    code: ClassVar[ErrorCode] = "STATE_CONFLICT"
    severity: ClassVar[Severity] = "Warning"


class Busy(BacktestrError):
    code: ClassVar[ErrorCode] = "BUSY"
    severity: ClassVar[Severity] = "Warning"


BY_CODE: Mapping[str, type[BacktestrError]] = {
    error.code: error
    for error in (
        SerializationError,
        NetworkError,
        TimedOut,
        ValidationError,
        InvalidConfiguration,
        AlgorithmError,
        DataError,
        SystemFault,
        AuthenticationError,
        ReplayDetected,
        SessionUnknown,
        ProtocolVersionUnsupported,
        RateLimitExceeded,
        MessageTooLarge,
        NotFound,
        StateConflict,
        UnsupportedCommand,
        Busy,
    )
}


def from_data(data: ErrorData) -> BacktestrError:
    """Return the exception that `data` describes, to be raised on this side of the wire."""
    error = BY_CODE[data.code](data.message, **(data.details or {}))
    error._advice = list(data.recovery_actions)
    return error


# The most characters that an error quotes of a received value.
_MAX_QUOTED = 200


def quoted(value: object) -> str:
    """Return `repr(value)` for a message, cut where it is long."""
    try:
        text = repr(value)
    except RecursionError:
        return f"a {type(value).__name__} that is nested too deeply"
    return text if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]}…"


# In characters; no existing name is longer. A peer could otherwise make comparing slow and answers large.
_MAX_NAME = 128


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'fast'?` if a known name is similar, else the empty string."""
    if len(name) > _MAX_NAME:
        return ""
    by_folded = {one.casefold(): one for one in known}
    near = difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.6)
    return f"; did you mean {by_folded[near[0]]!r}?" if near else ""


def unknown(kind: str, name: str, known: Iterable[str], *, hint: str = "") -> NotFound:
    """Return `NotFound` for a name of a `kind` ("algorithm", "symbol"), with a similar name and up to 20 known ones."""
    names = sorted(known)
    name = name if len(name) <= _MAX_NAME else f"{name[:_MAX_NAME]}…"
    listing = ", ".join(names[:20]) + (", …" if len(names) > 20 else "") if names else "there is none yet"
    text = f"unknown {kind} {name!r}{did_you_mean(name, names)} ({listing})"
    return NotFound(f"{text}; {hint}" if hint else text, kind=kind, name=name, known=names[:20])
