"""Registered algorithms on disk, shared by all workers and outliving them.

    <root>/<name>@<version>.py      a source; the version is a hash of it, so it never changes
           <name>@<version>.json    its AlgorithmInfo, with the verdict of the look-ahead check
           <name>.json              the AlgorithmInfo of the newest version, which the name means

Every file is written whole or not at all, in this order: a crash can leave a version without a name, which registering
it again completes. Versions are never removed, because results name them. What is stored has been read back before, and
what is read is checked as strictly: a damaged file is a `DataError` of that one algorithm.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from backtestr_engine.algorithms.algorithm import VERSION_CHARACTERS
from backtestr_engine.data.atomic_files import replace_file
from backtestr_engine.data.printable import printable
from backtestr_engine.data.regular_files import read_regular
from backtestr_protocol.errors import DataError, DiskUnwritable, InvalidConfiguration, StateConflict, ValidationError
from backtestr_protocol.messages import MAX_SOURCE_CHARACTERS, AlgorithmInfo, AlgorithmName
from backtestr_protocol.private_files import make_private

# Every worker sends all of them to the broker at its start, and a longer list is of no use to a person.
MAX_NAMES = 1000

# The most bytes of a record: an `AlgorithmInfo` and its verdict. A source has at most 4 bytes for each character.
_MAX_RECORD_BYTES = 1 << 20
_MAX_SOURCE_BYTES = 4 * MAX_SOURCE_CHARACTERS

_VERSION = re.compile(f"[0-9a-f]{{{VERSION_CHARACTERS}}}")


class RegisteredAlgorithms:
    """The registrations under `root`.

    Reading raises `DataError` for a file that cannot be read, or that a user other than this one and root may write.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self) -> list[str]:
        """Return the names of the files that stand for a name, sorted; one of them need not be readable."""
        return sorted(path.name.removesuffix(".json") for path in self._root.glob("*.json") if "@" not in path.name)

    def path_of(self, name: str) -> Path:
        """Return the file that says which version a name means."""
        return self._root / f"{name}.json"

    def find(self, name_or_id: str) -> AlgorithmInfo | None:
        """Return the newest version of a name, or the version that an id names; None if it was never registered.

        Every call reads one file: another worker may have registered it a moment ago.
        """
        name, at, version = name_or_id.partition("@")
        if not _is_name(name) or (at and not _VERSION.fullmatch(version)):
            return None
        path = self._root / f"{name_or_id}.json"
        try:
            info = _record(read_regular(path, _MAX_RECORD_BYTES, trusted=True))
        except FileNotFoundError as error:
            if path.is_symlink():
                raise _unreadable(path, error.strerror, "remove it, and ") from error
            return None
        except OSError as error:
            raise _unreadable(path, error.strerror, "remove it, and ") from error
        except InvalidConfiguration as error:
            raise _unreadable(path, error.message, "remove it, and ") from error
        except (ValueError, msgspec.MsgspecError) as error:  # UnicodeDecodeError and the like are ValueErrors
            raise _unreadable(path, printable(str(error))) from error
        if info.name != name and info.name.casefold() == name.casefold():
            return None  # a file system may ignore case
        if info.name != name or (at and info.version != version):
            raise _unreadable(path, f"it is about {info.algorithm_id!r}")
        return info

    def source_path(self, info: AlgorithmInfo) -> Path:
        return self._root / f"{info.algorithm_id}.py"

    def source(self, info: AlgorithmInfo) -> str:
        path = self.source_path(info)
        try:
            return read_regular(path, _MAX_SOURCE_BYTES, trusted=True).decode("utf-8")
        except (OSError, UnicodeDecodeError, InvalidConfiguration) as error:
            raise DataError(f"{path} cannot be read: {error}; register the algorithm again") from error

    def has(self, info: AlgorithmInfo, source: str) -> bool:
        """Return whether the source of a registration is on disk and equals `source`."""
        try:
            return self.source(info) == source
        except DataError:
            return False

    def add(self, info: AlgorithmInfo, source: str) -> AlgorithmInfo:
        """Make this the version that its name means, and return it as it is read from now on.

        It is on disk when this returns. Raises `StateConflict` for a name that differs from another in case alone, and
        when there are too many names.
        """
        names = self.names()
        alike = [one for one in names if one != info.name and one.casefold() == info.name.casefold()]
        if alike:  # a file system may ignore case
            raise StateConflict(f"there is {alike[0]!r} already; choose a name that differs from it in more than case")
        if info.name not in names and len(names) >= MAX_NAMES:
            raise StateConflict(
                f"{MAX_NAMES} algorithms are registered, the most there can be; register this one as a new version of "
                f"one of them, or remove the files of some in {self._root}"
            )
        record = msgspec.json.format(msgspec.json.encode(info))
        if _record(record) != info:
            raise ValidationError(f"the facts of {info.name} cannot be stored as they are", path="$.source")
        make_private(self._root)
        if not self._is_stored(info, source):
            self._write(f"{info.algorithm_id}.py", source.encode("utf-8"))
            self._write(f"{info.algorithm_id}.json", record)
        self._write(f"{info.name}.json", record)
        return _record(record)

    def _is_stored(self, info: AlgorithmInfo, source: str) -> bool:
        try:
            return self.find(info.algorithm_id) is not None and self.has(info, source)
        except DataError:  # it is damaged, and is written again
            return False

    def _write(self, name: str, content: bytes) -> None:
        try:
            with replace_file(self._root / name) as file:
                file.write(content)
        except OSError as error:
            raise DiskUnwritable(
                f"{printable(str(self._root / name))} cannot be written, and the algorithm is not registered: "
                f"{error.strerror}"
            ) from error


def _is_name(text: str) -> bool:
    try:
        msgspec.convert(text, AlgorithmName)
    except msgspec.ValidationError:
        return False
    return True


def _record(content: bytes) -> AlgorithmInfo:
    """Return the info in a record, or raise `ValueError` for one that could not be sent as it is."""
    info = msgspec.json.decode(content, type=AlgorithmInfo)
    try:
        sent = msgspec.msgpack.encode(info)
    except (ValueError, OverflowError) as error:  # a number of more than 64 bits, a text that is no Unicode
        raise ValueError(str(error)) from error
    if msgspec.msgpack.decode(sent, type=AlgorithmInfo) != info:
        raise ValueError("its numbers are not finite")
    if info.algorithm_id != f"{info.name}@{info.version}" or not _VERSION.fullmatch(info.version):
        raise ValueError(f"the id of {info.name!r} is {info.algorithm_id!r}")
    return info


def _unreadable(path: Path, reason: str | None, first: str = "") -> DataError:
    file = printable(str(path))
    return DataError(f"{file} cannot be read: {reason}; {first}register the algorithm again", file=file)
