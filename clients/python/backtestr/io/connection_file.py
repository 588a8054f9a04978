"""The connection file says how to reach the broker; it is read here, and a change by another broker is noticed."""

from __future__ import annotations

import os
from pathlib import Path

from backtestr_protocol import PROTOCOL_VERSION, paths
from backtestr_protocol.connection import Connection, Curve, Endpoints, decode_connection
from backtestr_protocol.errors import InvalidConfiguration, MessageError, NetworkError
from backtestr_protocol.keys import KeyFolder, KeyPair
from backtestr_protocol.private_files import OTHERS, check_secret, open_regular
from backtestr_protocol.secret import Secret

HOW_TO_START = "start one with: backtestr run (or make run-broker)"

Stamp = tuple[int, int, int]


class ConnectionFile:
    """The file in which a broker says how to reach it.

    `own_keys` is this client's pair if the connection that was read last uses CURVE, else None.
    """

    def __init__(self, path: Path | None = None, key: str | Path | None = None) -> None:
        """Name the file and the client's key, without reading them. Raises `NetworkError` without a safe usual place.

        `path` None means the usual place, which `BACKTESTR_CONNECTION_FILE` and `BACKTESTR_RUNTIME_DIR` change. `key`
        is the name or file of the client's key; None means `BACKTESTR_KEY`, else the key of the connection file.
        """
        try:
            self.path = path or paths.connection_file()
        except InvalidConfiguration as error:
            raise NetworkError(f"no connection file can be found: {error}") from error
        self.own_keys: KeyPair | None = None
        self._key = key or paths.client_key()

    def stamp(self) -> Stamp | None:
        """Return a value that differs after every writing of the file, or None without a file."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def read(self) -> Connection:
        """Read the connection. Raises `NetworkError` if there is no broker, or none that this client can reach."""
        try:
            with open_regular(self.path) as file:
                check_secret(self.path, os.fstat(file.fileno()), OTHERS, "600")
                connection = decode_connection(file.read())
        except FileNotFoundError as error:
            raise NetworkError(f"no broker is running (there is no {self.path}); {HOW_TO_START}") from error
        except OSError as error:
            raise NetworkError(f"cannot read {self.path}: {error.strerror}") from error
        except InvalidConfiguration as error:
            raise NetworkError(f"the connection file is not used: {error}") from error
        except MessageError as error:
            raise NetworkError(f"{self.path} is damaged ({error}); stop the broker, then {HOW_TO_START}") from error
        if connection.protocol_version != PROTOCOL_VERSION:
            theirs, ours = connection.protocol_version, PROTOCOL_VERSION
            raise NetworkError(f"the broker speaks version {theirs} of the protocol, this client {ours}; upgrade one")
        self.own_keys = None if connection.curve is None else self._keys_for(connection.curve, connection.endpoints)
        return connection

    def _keys_for(self, curve: Curve, endpoints: Endpoints) -> KeyPair:
        """Return the named key, else that of the connection file.

        The broker accepts the latter from its own machine only. So where the broker may be on another machine, and this
        user has made one key, that is taken.
        """
        public, secret = curve.client_public_key, curve.client_secret_key
        pair = None
        if public is not None and secret is not None and self._key is None:
            pair = KeyPair(public, Secret(secret.encode()))
        if pair is not None and endpoints.requests.startswith("tcp://127."):
            return pair
        try:
            return KeyFolder(paths.keys_dir()).client_pair(self._key)
        except InvalidConfiguration as error:
            if pair is not None:
                return pair
            raise NetworkError(f"the broker lets in only clients with a key (CURVE): {error}") from error
