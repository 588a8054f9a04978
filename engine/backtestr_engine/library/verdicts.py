"""Verdicts say which sources of algorithms were loaded in a process of their own, and can be loaded by workers.

    <root>/<key>.json               the verdict on one source: the key is a hash of its text, file name and surroundings
    <root>/loading-<worker>.json    the source that a worker is loading right now; it stays when that ends the worker

A good verdict holds until the source, backtestr or Python changes. A bad one holds for the workers of one broker: the
next start of a broker tries again, since a module may have been installed, or a machine been busy. A verdict that
cannot be read does not exist.

A source is condemned once `MAX_LOSSES` workers in a row have ended while they loaded it. One may have ended for another
reason just then, as by a signal; the next that loads it shows that.
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

MAX_LOSSES = 3
"""The workers that may end while they load a source, without one in between that could load it."""

_MAX_BYTES = 1 << 16
_MAX_REASON_CHARACTERS = 4_000


class SourceVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on a source: the reason why it is not loaded, or None.

    A bad one is for the workers of `broker`, and so are the `losses` of a good one: workers that ended in a row while
    they loaded it.
    """

    problem: str | None = None
    broker: str | None = None
    losses: int = 0


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
        return self._on(_key(source))

    def _on(self, key: str) -> SourceVerdict | None:
        try:
            content = read_regular(self._file(key), _MAX_BYTES)
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
        self._write(self._file(key), SourceVerdict(problem=shown, broker=broker))

    def _file(self, key: str) -> Path:
        return self.root / f"{key}.json"

    def blame(self) -> None:
        """Count that the worker before this one ended while it loaded a source, and condemn that at the last loss."""
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            loading = msgspec.json.decode(read_regular(self._mark, _MAX_BYTES), type=_Loading)
            self._mark.unlink(missing_ok=True)
            verdict = self._on(loading.key)
            # Another broker's worker may have ended with it. Without a verdict the source is inspected again.
            if loading.broker != self._broker or verdict is None or verdict.problem is not None:
                return
            losses = 1 + (verdict.losses if verdict.broker == self._broker else 0)
            if losses < MAX_LOSSES:
                self._write(self._file(loading.key), SourceVerdict(broker=self._broker, losses=losses))
                return
            self._keep(
                loading.key,
                f"{loading.file}: {losses} workers in a row ended while they loaded it, {self._worker_id} the last, "
                "though it could be loaded before; correct it, and restart the broker",
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
            if verdict is not None and verdict.losses:
                self.keep(source, None)

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
