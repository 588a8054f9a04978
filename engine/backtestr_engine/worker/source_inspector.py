"""A child process that loads sources which were never loaded, `python -m backtestr_engine.worker.source_inspector`.

It loads the sources of a folder one after the other, and sends what came of each; one that leaves threads or processes
running has failed, and is the last of this child. Or it loads one that is to be registered, and checks it for
look-ahead. The parent decodes the answers, and believes nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import msgspec

from backtestr_engine.data.printable import printable
from backtestr_engine.library.inspection import examine
from backtestr_engine.library.source_files import Limit, Source, load_whole
from backtestr_engine.library.stored_samples import SeriesPart
from backtestr_protocol.errors import AlgorithmError, BacktestrError, TimedOut
from backtestr_protocol.messages import AlgorithmInfo

from .child_process import Frames
from .child_serving import answered, serve_child
from .process_state import ProcessState
from .time_limit import time_limit

PATIENCE_SECONDS = 1.0
"""The seconds that a child waits for code that it has interrupted; its parent then ends it."""


class InspectSources(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A request to load sources, each within so many seconds."""

    sources: Sequence[Source]
    seconds: float


class Inspected(msgspec.Struct, frozen=True, kw_only=True):
    """The answer about one source: the reason why it must not be loaded, or None. `is_last`: the child ends then."""

    problem: str | None = None
    is_last: bool = False


class ExamineSource(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A request to examine a source whose algorithm `name` is to be registered, also on `parts` of stored series."""

    name: str
    source: Source
    parts: Sequence[SeriesPart]
    seconds: float


def inspect_or_examine(frames: Frames, request: bytes) -> None:
    """Do what the request asks for."""
    asked = msgspec.msgpack.decode(request, type=InspectSources | ExamineSource)
    if isinstance(asked, InspectSources):
        _inspect(frames, asked)
    else:
        _examine(frames, asked)


def _inspect(frames: Frames, asked: InspectSources) -> None:
    limit = time_limit(asked.seconds, PATIENCE_SECONDS)
    for source in asked.sources:
        inspected = inspect_source(source, limit)
        frames.send(msgspec.msgpack.encode(inspected))
        if inspected.is_last:
            return


def inspect_source(source: Source, limit: Limit) -> Inspected:
    """Load a source in this process, and return what came of it."""
    state, own = ProcessState(), os.getpid()
    problem, is_late = None, False
    try:
        limit(f"loading {printable(source.file)}", lambda: load_whole(source))
    except BacktestrError as error:
        problem, is_late = error.message, isinstance(error, TimedOut)
    if os.getpid() != own:  # it forked, and both came back
        os._exit(0)
    put_back = state.put_back()
    reason = state.changes()
    if reason is None:
        reason = next((f"{name} was set" for name in put_back if "timer" in name), None)
    state.close()
    if reason is not None and not is_late:  # the thread of a late source is left, of course
        problem = f"{printable(source.file)}: it must not do that when it is loaded: {reason}"
    return Inspected(problem=problem, is_last=reason is not None)


def _examine(frames: Frames, asked: ExamineSource) -> None:
    state, own = ProcessState(), os.getpid()

    def examined() -> AlgorithmInfo:
        info = examine(asked.name, asked.source, asked.parts, time_limit(asked.seconds, PATIENCE_SECONDS))
        state.put_back()
        if (reason := state.changes()) is not None:
            raise AlgorithmError(f"{asked.source.file}: it must not do that when it is loaded: {reason}")
        return info

    answer = answered(examined)
    if os.getpid() == own:
        frames.send(answer)


if __name__ == "__main__":
    serve_child(inspect_or_examine)
