"""New links of a server that runs, for `backtestr ui` in another terminal.

The server leaves a private file that says where it is, with a key. Who can read the file asks for a link, and both ends
prove that they have the key without sending it: another program may have taken the port of a server that was killed.
"""

from __future__ import annotations

import contextlib
import hmac
import http.client
import os
import secrets
from pathlib import Path
from typing import Annotated

import msgspec

from backtestr.ui.core.admission import SECRET_BYTES, Admission
from backtestr_protocol import paths
from backtestr_protocol.errors import AuthenticationError, InvalidConfiguration, ValidationError
from backtestr_protocol.private_files import OTHERS, check_secret, open_regular, private_directory, private_opener
from backtestr_protocol.secret import Secret, decode_secret, encode_secret

# Seconds in which a server of this machine answers.
_SECONDS = 2.0
_NONCE = Annotated[str, msgspec.Meta(min_length=32, max_length=64)]


class RunningServer(msgspec.Struct, frozen=True):
    """The address of a server, its key, and the connection file of the broker that it is for."""

    port: int
    pid: int
    connection_file: str
    key: Secret


class _Ask(msgspec.Struct, frozen=True):
    nonce: _NONCE
    proof: str


class _Link(msgspec.Struct, frozen=True):
    token: str
    proof: str


class NewLinks:
    """The links of one server, and the file by which others find it."""

    def __init__(self, admission: Admission, port: int) -> None:
        self._admission = admission
        self._port = port
        self._key = Secret(secrets.token_bytes(SECRET_BYTES))
        self._file: Path | None = None

    @staticmethod
    def new_secret() -> str:
        """Return a new value for a token or a cookie."""
        return secrets.token_urlsafe(SECRET_BYTES)

    def new(self) -> str:
        """Return the token of a new link."""
        self._admission.add_link(token := self.new_secret())
        return token

    def answer(self, body: bytes) -> _Link:
        """Return a new link to a program that has the key. Raises `MessageError` for any other."""
        try:
            asked = msgspec.json.decode(body, type=_Ask)
        except msgspec.DecodeError as error:
            raise ValidationError(f"this asks for no link: {error}") from error
        if not hmac.compare_digest(asked.proof.encode(), _proof(self._key, "ask", asked.nonce).encode()):
            raise AuthenticationError("this program does not have the key of this server")
        token = self.new()
        return _Link(token, _proof(self._key, "link", asked.nonce, token))

    def publish(self) -> None:
        """Write the file. Raises `InvalidConfiguration` where the runtime directory cannot be used."""
        folder = paths.runtime_dir()
        private_directory(folder, "BACKTESTR_RUNTIME_DIR")
        server = RunningServer(self._port, os.getpid(), str(paths.connection_file()), self._key)
        file = folder / "ui.json"
        unfinished = file.with_name(f"ui.json.{os.getpid()}")
        try:
            with open(unfinished, "wb", opener=private_opener) as opened:
                opened.write(msgspec.json.encode(server, enc_hook=encode_secret))
            unfinished.replace(file)
        except OSError as error:
            raise InvalidConfiguration(
                f"{file} cannot be written: {error.strerror}; name another directory in BACKTESTR_RUNTIME_DIR"
            ) from error
        self._file = file

    def withdraw(self) -> None:
        """Remove the file, unless it is that of a later server."""
        if self._file is not None and (found := running_server()) is not None and found.key == self._key:
            with contextlib.suppress(OSError):
                self._file.unlink()


def running_server() -> RunningServer | None:
    """Return the server that the file names, None if there is none for this connection file or it is not trusted."""
    try:
        file = paths.runtime_dir() / "ui.json"
        with open_regular(file) as opened:
            check_secret(file, os.fstat(opened.fileno()), OTHERS, "600")
            found = msgspec.json.decode(opened.read(), type=RunningServer, dec_hook=decode_secret)
    except (OSError, InvalidConfiguration, msgspec.DecodeError):
        return None
    return found if found.connection_file == str(paths.connection_file()) else None


def ask_for_link(server: RunningServer) -> str | None:
    """Return the token of a new link; None if that server does not run any more."""
    nonce = secrets.token_hex(16)
    body = msgspec.json.encode(_Ask(nonce, _proof(server.key, "ask", nonce)))
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=_SECONDS)
    try:
        connection.request("POST", "/api/links", body, {"Origin": f"http://127.0.0.1:{server.port}"})
        link = msgspec.json.decode(connection.getresponse().read(), type=_Link)
    except (OSError, http.client.HTTPException, msgspec.DecodeError):
        return None
    finally:
        connection.close()
    is_genuine = hmac.compare_digest(link.proof.encode(), _proof(server.key, "link", nonce, link.token).encode())
    return link.token if is_genuine else None


def _proof(key: Secret, *texts: str) -> str:
    return hmac.digest(key.reveal(), "\n".join(texts).encode(), "sha256").hex()
