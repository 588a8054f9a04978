"""Registered algorithms on disk, shared by all workers and outliving them.

    <root>/<name>@<version>.py      a source; the version is a hash of it, so it never changes
           <name>@<version>.json    its AlgorithmInfo, with the verdict of the look-ahead check
           <name>.json              the AlgorithmInfo of the newest version, which the name means

Every file is written whole or not at all, in this order: a crash can leave a version without a name, which registering
it again completes. Versions are never removed, because results name them.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from backtestr_engine.algorithms.algorithm import VERSION_CHARACTERS
from backtestr_engine.data.atomic_files import replace_file
from backtestr_protocol.errors import DataError, InvalidConfiguration, StateConflict
from backtestr_protocol.messages import AlgorithmInfo, AlgorithmName
from backtestr_protocol.private_files import make_private, read_trusted

# Every worker sends all of them to the broker at its start, and a longer list is of no use to a person.
MAX_NAMES = 1000

_VERSION = re.compile(f"[0-9a-f]{{{VERSION_CHARACTERS}}}")


class RegisteredAlgorithms:
    """The registrations under `root`.

    Reading raises `DataError` for a file that cannot be read, or that a user other than this one and root may write.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self) -> list[str]:
        return sorted(path.name.removesuffix(".json") for path in self._root.glob("*.json") if "@" not in path.name)

    def find(self, name_or_id: str) -> AlgorithmInfo | None:
        """Return the newest version of a name, or the version that an id names; None if it was never registered.

        Every call reads one file: another worker may have registered it a moment ago.
        """
        name, at, version = name_or_id.partition("@")
        if not _is_name(name) or (at and not _VERSION.fullmatch(version)):
            return None
        path = self._root / f"{name_or_id}.json"
        try:
            info = msgspec.json.decode(read_trusted(path), type=AlgorithmInfo)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError, InvalidConfiguration) as error:
            raise DataError(f"{path} cannot be read: {error}; remove it and register the algorithm again") from error
        return info if info.name == name else None  # a file system may ignore case

    def source_path(self, info: AlgorithmInfo) -> Path:
        return self._root / f"{info.algorithm_id}.py"

    def source(self, info: AlgorithmInfo) -> str:
        path = self.source_path(info)
        try:
            return read_trusted(path).decode("utf-8")
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
        make_private(self._root)
        record = msgspec.json.format(msgspec.json.encode(info))
        if self.find(info.algorithm_id) is None or not self.has(info, source):
            self._write(f"{info.algorithm_id}.py", source.encode("utf-8"))
            self._write(f"{info.algorithm_id}.json", record)
        self._write(f"{info.name}.json", record)
        return msgspec.json.decode(record, type=AlgorithmInfo)

    def _write(self, name: str, content: bytes) -> None:
        with replace_file(self._root / name) as file:
            file.write(content)


def _is_name(text: str) -> bool:
    try:
        msgspec.convert(text, AlgorithmName)
    except msgspec.ValidationError:
        return False
    return True
