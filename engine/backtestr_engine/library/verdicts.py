"""Verdicts say which sources of algorithms were loaded in a process of their own, and can be loaded by workers.

    <root>/<key>.json               the verdict on one source: the key is a hash of its text, file name and surroundings
    <root>/loading-<worker>.json    the source that a worker is loading right now; it stays when that ends the worker

A good verdict holds until the source, backtestr or Python changes. A bad one holds for the workers of one broker: the
next start of a broker tries again, since a module may have been installed, or a machine been busy. A verdict that
cannot be read does not exist.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from backtestr_engine.data.printable import printable
from backtestr_engine.data.regular_files import read_regular
from backtestr_protocol import __version__
from backtestr_protocol.errors import AlgorithmError

from .source_files import Source

MAX_VERDICTS = 2_000
"""The most verdicts that are kept: twice the files of the largest folder."""

_MAX_BYTES = 1 << 16
_MAX_REASON_CHARACTERS = 4_000


class SourceVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on a source: the reason why it is not loaded, or None. A bad one is for the workers of `broker`."""

    problem: str | None = None
    broker: str | None = None


class _Loading(msgspec.Struct, frozen=True, kw_only=True):
    """A source that a worker of `broker` is loading."""

    key: str
    file: str
    broker: str


class Verdicts:
    """The verdicts under `root`, for the worker `worker_id` of the broker that the text `broker` stands for.

    Disks that cannot be written to only make it forget.
    """

    def __init__(self, root: Path, worker_id: str, broker: str) -> None:
        self.root = root
        self._broker = broker
        self._worker_id = worker_id
        self._mark = root / f"loading-{worker_id}.json"

    def on(self, source: Source) -> SourceVerdict | None:
        """Return the verdict on a source; None if there is none that holds."""
        try:
            content = read_regular(self.root / f"{_key(source)}.json", _MAX_BYTES)
            verdict = msgspec.json.decode(content, type=SourceVerdict)
        except (OSError, msgspec.MsgspecError):
            return None
        return verdict if verdict.problem is None or verdict.broker == self._broker else None

    def keep(self, source: Source, problem: str | None) -> None:
        """Keep a verdict."""
        self._keep(_key(source), problem)

    def _keep(self, key: str, problem: str | None) -> None:
        broker = None if problem is None else self._broker
        shown = None if problem is None else printable(problem)[:_MAX_REASON_CHARACTERS]
        self._write(self.root / f"{key}.json", SourceVerdict(problem=shown, broker=broker))

    def blame(self) -> None:
        """Condemn the source that the worker before this one was loading when it ended."""
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            loading = msgspec.json.decode(read_regular(self._mark, _MAX_BYTES), type=_Loading)
            self._mark.unlink(missing_ok=True)
            if loading.broker == self._broker:  # else it may have been the end of that broker
                self._keep(
                    loading.key,
                    f"{loading.file}: {self._worker_id} ended while it loaded it, though it could be loaded before; "
                    "correct it, and restart the broker",
                )

    @contextlib.contextmanager
    def loading(self, source: Source) -> Iterator[None]:
        """Mark a source as being loaded within the block. Raises `AlgorithmError` for one that was condemned."""
        verdict = self.on(source)
        if verdict is not None and verdict.problem is not None:
            raise AlgorithmError(verdict.problem, file=printable(source.file))
        self._write(self._mark, _Loading(key=_key(source), file=printable(source.file), broker=self._broker))
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                self._mark.unlink(missing_ok=True)

    def prune(self) -> None:
        """Remove the oldest verdicts beyond `MAX_VERDICTS`."""
        with contextlib.suppress(OSError):
            verdicts = sorted(self.root.glob("*.json"), key=lambda path: path.lstat().st_mtime_ns)
            for path in verdicts[:-MAX_VERDICTS]:
                path.unlink(missing_ok=True)

    def _write(self, path: Path, content: msgspec.Struct) -> None:
        """Write a file without waiting for the disk: a verdict that a crash cut off is made again."""
        with contextlib.suppress(OSError):
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.write_bytes(msgspec.json.encode(content))


def _key(source: Source) -> str:
    content = hashlib.sha256()
    for part in (source.text, source.file, __version__, sys.version):
        content.update(len(part).to_bytes(8, "big") + part.encode("utf-8", "surrogatepass"))
    return content.hexdigest()[:32]
