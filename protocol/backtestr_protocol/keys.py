"""This module keeps CURVE keys in files: the broker's pair, the allow-list, and the pairs of this user's clients.

    keys/                  0700, in the data directory
      server.secret        0600, the broker's pair, made at its first start with CURVE
      allowed/NAME.pub     a client that may connect: its public key, and its right on a second line (none: all)
      clients/NAME.secret  0600, the pair of a client of this user

A key is 32 bytes, written as 40 characters of Z85. A public key follows from its secret key, so a file holds one key.
Files are written whole. A secret that other users could read is refused, and so is any file that they could change; the
error names the chmod to run.
"""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path

import msgspec
import zmq
from zmq.utils import z85

from .errors import InvalidConfiguration
from .file_names import is_device
from .private_files import (
    OTHERS,
    OTHERS_WRITE,
    check_secret,
    is_exhausted,
    make_private,
    open_regular,
    private_opener,
)
from .rights import RIGHTS, Right
from .secret import Secret

KEY_BYTES = 32
# The most keys on the allow-list. All are read at every change; users have far fewer.
MAX_ALLOWED = 1024
# A key file is one line of 41 bytes, and may have a right on a second; a longer file is not a key.
_MAX_FILE_BYTES = 256
_NAME = re.compile(r"[0-9A-Za-z_-]{1,64}")

Stamp = tuple[object, ...]


class KeyPair(msgspec.Struct, frozen=True):
    """A CURVE key pair, each half as 40 characters of Z85."""

    public: str
    secret: Secret


class Allowed(msgspec.Struct, frozen=True):
    """The allow-list: names by public key (32 bytes), rights by name, and the problems of files that were left out."""

    names: dict[bytes, str]
    problems: tuple[str, ...] = ()
    rights: dict[str, Right] = {}


class KeyFolder:
    """The folder of keys.

    Every method but `allowed` and `stamp` raises `InvalidConfiguration` for a file or folder that is not as required.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.server_file = path / "server.secret"
        self.allowed_folder = path / "allowed"
        self.clients_folder = path / "clients"

    # --- for the broker ---

    def server_pair(self) -> KeyPair:
        """Return the broker's own pair; make it if there is none yet."""
        if not self.server_file.exists():
            self._make(self.path)
            _write(self.server_file, new_pair().secret.reveal() + b"\n")
        return _read_pair(self.server_file)

    def check(self) -> None:
        """Raise `InvalidConfiguration` for the first problem of the allow-list; the broker calls it at its start."""
        self._make(self.allowed_folder)
        for problem in self.allowed().problems:
            raise InvalidConfiguration(problem)

    def allowed(self) -> Allowed:
        """Return the keys that may connect.

        A file with a problem lets no client connect, and does not raise: it is named in `problems`. Raises `OSError`
        only where the files cannot be opened for want of descriptors.
        """
        names: dict[bytes, str] = {}
        rights: dict[str, Right] = {}
        problems: list[str] = []
        try:
            for folder in (self.path, self.allowed_folder):
                check_secret(folder, folder.stat(), OTHERS, "700")
            files = self._allowed_files()
        except (InvalidConfiguration, OSError) as error:
            if isinstance(error, OSError) and is_exhausted(error):
                raise
            return Allowed({}, (str(error),))
        if len(files) > MAX_ALLOWED:
            return Allowed({}, (f"{self.allowed_folder} holds {len(files)} keys and may hold {MAX_ALLOWED}",))
        for file in files:
            try:
                name = _checked_name(file.stem)
                key, right = _read_allowed(file)
            except InvalidConfiguration as error:
                problems.append(error.message)
                continue
            names[z85.decode(key)] = name
            rights[name] = right
        return Allowed(names, tuple(problems), rights)

    def stamp(self) -> Stamp:
        """Return a value that differs after every change of the allow-list, also of its files' owners and modes.

        Raises `OSError` only for want of descriptors.
        """
        try:
            return tuple(
                (path.name, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_mode)
                for path in (self.path, self.allowed_folder, *self._allowed_files())
                for found in (path.stat(),)
            )
        except OSError as error:
            if is_exhausted(error):
                raise
            return (str(error),)

    def _allowed_files(self) -> list[Path]:
        return [self.allowed_folder / name for name in sorted(os.listdir(self.allowed_folder)) if name.endswith(".pub")]

    @staticmethod
    def public_text(key: bytes) -> str:
        """Return a public key as 40 characters of Z85."""
        return z85.encode(key).decode()

    # --- for `backtestr keys` ---

    def allow(self, name: str, public: str | None = None, right: Right | None = None) -> Path:
        """Put a public key on the allow-list with a right, `all` unless it is given, and return its file.

        For a name that is on the list already, `right` replaces its right; so `public` may be left out. It may also be
        left out for a name whose pair was made here (`new`).
        """
        file = self.allowed_folder / f"{_checked_name(name)}.pub"
        if file.exists():
            known, before = _read_allowed(file)
            if public not in (None, known):
                raise InvalidConfiguration(f"{name} has a key already ({file}); to give it another, revoke that first")
            if right is not None and right != before:
                _write(file, _allowed_text(known, right))
            return file
        if public is None:
            public = self._own_public(name)
        _checked_key(public, "the key")
        self._make(self.allowed_folder)
        names = self.allowed().names
        if (owner := names.get(z85.decode(public))) is not None:
            raise InvalidConfiguration(f"that key is {owner}'s already; make one for each client")
        if len(names) >= MAX_ALLOWED:
            raise InvalidConfiguration(f"{MAX_ALLOWED} keys are allowed, the most there can be; revoke some first")
        _write(file, _allowed_text(public, right or "all"))
        return file

    def _own_public(self, name: str) -> str:
        """Return the public key of a pair that was made here."""
        file = self.clients_folder / f"{name}.secret"
        if not file.exists():
            raise InvalidConfiguration(
                f"there is no key {name} here; make one with: backtestr keys new {name}, or give the public key that "
                "was made elsewhere"
            )
        return _read_pair(file).public

    def revoke(self, name: str) -> None:
        """Remove a key from the allow-list; its secret half is kept."""
        file = self.allowed_folder / f"{_checked_name(name)}.pub"
        try:
            file.unlink()
        except FileNotFoundError:
            listing = ", ".join(sorted(self.allowed().names.values())) or "none"
            raise InvalidConfiguration(f"{name!r} has no key here; allowed: {listing}") from None

    # --- for clients ---

    def new(self, name: str) -> tuple[KeyPair, Path]:
        """Make a pair for a client of this user, and return it with the file of its secret half."""
        file = self.clients_folder / f"{_checked_name(name)}.secret"
        if file.exists():
            public = _read_pair(file).public
            raise InvalidConfiguration(
                f"there is a key {name} already ({file}); to let it in (again): backtestr keys allow {name} '{public}'"
            )
        pair = new_pair()
        self._make(self.clients_folder)
        _write(file, pair.secret.reveal() + b"\n")
        return pair, file

    def client_pair(self, wanted: str | Path | None) -> KeyPair:
        """Return the pair of a client.

        `wanted` is the path of its file or its name. None stands for the only pair that exists.
        """
        if wanted is None:
            files = sorted(self.clients_folder.glob("*.secret"))
            if len(files) != 1:
                found = f"there are {', '.join(file.stem for file in files)}" if files else "there is none"
                raise InvalidConfiguration(
                    f"which key? {found} in {self.clients_folder}; name one in BACKTESTR_KEY or with key=, "
                    "or make one: backtestr keys new NAME"
                )
            return _read_pair(files[0])
        if isinstance(wanted, str) and _NAME.fullmatch(wanted):
            return _read_pair(self.clients_folder / f"{wanted}.secret")
        return _read_pair(Path(wanted).expanduser())

    def _make(self, folder: Path) -> None:
        for one in (self.path, folder):
            make_private(one)
            check_secret(one, one.stat(), OTHERS, "700")


def new_pair() -> KeyPair:
    """Return a new pair."""
    while True:
        public, secret = zmq.curve_keypair()
        if not public.startswith(b"-"):  # the command line would take it for an option
            return KeyPair(public.decode(), Secret(secret))


def _read_pair(file: Path) -> KeyPair:
    secret = Secret(_read_key(file, OTHERS, "600").encode())
    return KeyPair(zmq.curve_public(secret.reveal()).decode(), secret)


def _read_allowed(file: Path) -> tuple[str, Right]:
    """Return the public key and the right in a file of the allow-list."""
    key, *rest = _read_lines(file, OTHERS_WRITE, "go-w")
    written = rest if rest else ["all"]
    right = next((one for one in RIGHTS if [one] == written), None)
    if right is None:
        raise InvalidConfiguration(
            f"{file} has {' '.join(rest)!r} after the key; expected is one right: {', '.join(RIGHTS)}"
        )
    return _checked_key(key, str(file)), right


def _allowed_text(public: str, right: Right) -> bytes:
    return f"{public}\n{right}\n".encode()


def _read_key(file: Path, forbidden: int, chmod: str) -> str:
    return _checked_key("\n".join(_read_lines(file, forbidden, chmod)), str(file))


def _read_lines(file: Path, forbidden: int, chmod: str) -> list[str]:
    """Return the lines of `file`; the mode is checked on the opened file, which cannot be exchanged meanwhile."""
    try:
        with open_regular(file) as opened:
            check_secret(file, os.fstat(opened.fileno()), forbidden, chmod)
            text = opened.read(_MAX_FILE_BYTES)
    except FileNotFoundError:
        raise InvalidConfiguration(f"there is no {file}; make it with: backtestr keys new {file.stem}") from None
    except OSError as error:
        if is_exhausted(error):
            raise
        raise InvalidConfiguration(f"cannot read {file}: {error.strerror}") from error
    return [line.strip() for line in text.decode("ascii", "replace").strip().split("\n")]


def _checked_key(text: str, where: str) -> str:
    try:
        whole = len(text) == 40 and len(z85.decode(text)) == KEY_BYTES
    except (KeyError, ValueError, struct.error):  # what z85 raises for other characters and for numbers too large
        whole = False
    if not whole:
        raise InvalidConfiguration(f"{where} is no CURVE key: expected 40 characters of Z85, as backtestr keys prints")
    return text


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name) or is_device(name):
        raise InvalidConfiguration(
            f"{name!r} is no name for a key: 1 to 64 of 0-9 A-Z a-z _ - are, but for what Windows takes for a device"
        )
    return name


def _write(file: Path, content: bytes) -> None:
    """Write a new file so that it appears whole."""
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    unfinished.unlink(missing_ok=True)
    with open(unfinished, "xb", opener=private_opener) as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
    unfinished.replace(file)
