"""An answer as it is remembered and sent, and the key of the request that it belongs to."""

from __future__ import annotations

import msgspec

from backtestr_protocol.errors import ErrorData

# The client id and the request's id. All duplicates of a request have the same.
RequestKey = tuple[str, str]


class Answer(msgspec.Struct, frozen=True, gc=False):
    """An encoded payload and its attachments, for as many envelopes as are asked for, and the error of a failure.

    The garbage collector does not look at it (`gc`): a remembered answer refers to bytes alone, without its error, and
    so many are remembered that a collection would halt the broker for a tenth of a second.
    """

    payload: bytes
    attachments: tuple[bytes, ...] = ()
    error: ErrorData | None = None

    @property
    def size(self) -> int:
        """The number of bytes of payload and attachments."""
        return len(self.payload) + sum(map(len, self.attachments))
