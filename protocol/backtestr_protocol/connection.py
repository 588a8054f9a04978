"""The connection file tells clients where the broker is and which signing key it has (PROTOCOL.md, section 1).

The broker writes it once every socket is bound and a worker is ready. Clients read it, and read it again when it
changes. `backtestr_broker.io.runtime_directory` writes the file atomically and with the right mode.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from .codec import Signer
from .errors import SerializationError, ValidationError
from .messages import Contract
from .secret import Secret, decode_secret, encode_secret
from .topics import Socket


class Endpoints(Contract, frozen=True, kw_only=True):
    """The ZeroMQ addresses of the broker, one for each socket."""

    requests: str
    prices: str
    progress: str
    orders: str
    positions: str
    system: str

    def of(self, socket: Socket) -> str:
        """Return the address of a stream socket."""
        address: str = getattr(self, socket)
        return address


class Signing(Contract, frozen=True, kw_only=True):
    """The signing key: `key` is 64 hexadecimal characters, new at every start of the broker."""

    algorithm: Literal["hmac-sha256"]
    key: Annotated[Secret, msgspec.Meta(extra_json_schema={"type": "string"})]


# 32 bytes in Z85 (RFC 32 of ZeroMQ).
Z85_KEY = r"^[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}$"


Z85Key = Annotated[str, msgspec.Meta(pattern=Z85_KEY)]


class Curve(Contract, frozen=True, kw_only=True):
    """The CURVE public key of the broker, and a key pair for clients on its machine, each 40 characters of Z85.

    The pair is new at every start of the broker. The broker accepts it from its own machine only, so a copy of the
    connection file for another machine need not have it.
    """

    server_public_key: Z85Key
    client_public_key: Z85Key | None = None
    client_secret_key: Z85Key | None = None

    def __repr__(self) -> str:
        return f"Curve(server_public_key={self.server_public_key!r})"


class Connection(Contract, frozen=True, kw_only=True):
    """The content of the connection file.

    `start_time` is in milliseconds since the Unix epoch. Another `instance_id` means another start of the broker.
    `tables_directory` is the path of the table files, where the broker serves over ipc.
    """

    protocol_version: int
    instance_id: str
    pid: int
    start_time: int
    endpoints: Endpoints
    signing: Signing
    curve: Curve | None
    tables_directory: str | None = None

    def signer(self) -> Signer:
        """Return a signer with the signing key."""
        return Signer(self.signing.key)


def encode_connection(connection: Connection) -> bytes:
    """Return the text of the connection file."""
    return msgspec.json.format(msgspec.json.encode(connection, enc_hook=encode_secret), indent=2)


def decode_connection(text: bytes) -> Connection:
    """Decode the text of a connection file.

    Raises `MessageError` for a file that is damaged or of another kind.
    """
    try:
        connection = msgspec.json.decode(text, type=Connection, dec_hook=decode_secret)
        connection.signer()
    except msgspec.ValidationError as error:
        raise ValidationError(f"connection file: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SerializationError(f"connection file: not JSON: {error}") from error
    except ValueError as error:
        raise ValidationError(f"connection file: signing.key: {error}", path="$.signing.key") from error
    return connection
