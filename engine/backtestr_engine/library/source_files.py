"""Algorithms from Python files: a file defines them with `@algorithm`, and a hash of its content is their version.

A file is read once. Later errors show the text that ran, even when the file has been edited since. What lies in the
folder may be anything: whatever it is, it is named with the reason why it is not loaded, and the rest is loaded.
"""

from __future__ import annotations

import linecache
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Protocol, TypeVar

import msgspec

from backtestr_engine.algorithms.algorithm import Algorithm, Interrupted
from backtestr_engine.algorithms.tracebacks import authors_traceback
from backtestr_engine.data.printable import printable
from backtestr_engine.data.regular_files import read_regular
from backtestr_protocol.errors import AlgorithmError, BacktestrError, InvalidConfiguration, TimedOut, ValidationError
from backtestr_protocol.messages import (
    ALGORITHM_NAME_RULE,
    AlgorithmInfo,
    AlgorithmProblem,
    is_algorithm_name,
)
from backtestr_protocol.private_files import check_directory
from backtestr_protocol.texts import bounded, described

_PACKAGE = "backtestr_algorithms"
"""The package of the modules made of files, so that no module hides one of a library."""

MAX_FILE_BYTES = 4 << 20
"""A hundred times a long file of algorithms. A larger one holds data, which belong in a file that it reads."""

MAX_FILES = 1_000
"""The most files of a folder that are loaded: every worker loads them all at its start."""

MAX_INFO_BYTES = 1 << 16
"""The most bytes that name, description and parameters of one algorithm may take: every list has them all."""

MAX_PROBLEM_CHARACTERS = 2_000
"""The longest message of a problem that is kept: an exception of a file may have a message of any length."""


T = TypeVar("T")


class Limit(Protocol):
    """Calls `work` and returns its result, or raises `TimedOut`, naming `what`, when that takes too long."""

    def __call__(self, what: str, work: Callable[[], T], /) -> T: ...


def unlimited(what: str, work: Callable[[], T], /) -> T:
    """Call `work` without a limit."""
    return work()


class Source(msgspec.Struct, frozen=True):
    """The text of a file of algorithms, the name that errors give it, and the name of the module made of it."""

    text: str
    file: str
    module: str


class Vet(Protocol):
    """Returns, for each source, the reason why it must not be loaded in this process; None if it may be."""

    def __call__(self, sources: Sequence[Source], /) -> Sequence[str | None]: ...


class Guard(Protocol):
    """Surrounds the loading of a source in this process. Raises `AlgorithmError` where that must not be tried."""

    def __call__(self, source: Source, /) -> AbstractContextManager[None]: ...


def no_guard(_source: Source, /) -> AbstractContextManager[None]:
    """Surround the loading of a source with nothing."""
    return nullcontext()


def all_pass(sources: Sequence[Source], /) -> Sequence[str | None]:
    """Let every source be loaded."""
    return [None] * len(sources)


class Loaded(msgspec.Struct, frozen=True):
    """The algorithms of a folder by name, and the problems of the rest."""

    algorithms: dict[str, Algorithm]
    problems: list[AlgorithmProblem]


def problem_of(file: str, message: str) -> AlgorithmProblem:
    """Return the problem of a file, its texts printable and of bounded length."""
    shown, name = printable(message), printable(file)
    if len(shown) > MAX_PROBLEM_CHARACTERS:
        shown = f"{shown[:MAX_PROBLEM_CHARACTERS]} … ({len(message):,} characters)"
    return AlgorithmProblem(file=name, message=shown)


def read_source(path: Path, *, trusted: bool = False) -> Source:
    """Return the text of the file at `path`.

    Raises `AlgorithmError` for one that cannot be read, and, if it is to be `trusted`, for one that another user may
    have written.
    """
    file = printable(str(path))
    try:
        # Editors of Windows begin a file with a byte order mark, which Python leaves out as well.
        text = read_regular(path, MAX_FILE_BYTES, trusted=trusted).decode("utf-8-sig")
    except InvalidConfiguration as error:
        raise AlgorithmError(printable(error.message), file=file) from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise AlgorithmError(f"{file}: cannot be read: {reason}", file=file) from error
    text = text.replace("\r\n", "\n").replace("\r", "\n")  # as Python reads text, so that versions stay what they were
    return Source(text, file, printable(path.stem))


def load_file(path: Path, read: Callable[[Path], bytes] = Path.read_bytes) -> list[Algorithm]:
    """Return the algorithms that the file at `path` defines, in its order.

    Raises `AlgorithmError`, naming file and line, for a file that cannot be read, is no Python, raises when it is run,
    or defines no algorithm.
    """
    return load_whole(read_source(path))


def load_whole(source: Source) -> list[Algorithm]:
    """Return the algorithms of a file's source. Raises `AlgorithmError` as `load_file` does."""
    found = load_source(source.text, source.file, source.module)
    file = printable(source.file)
    if not found:
        raise AlgorithmError(f'{file}: defines no algorithm; put @algorithm("its name", …) above one', file=file)
    for one in found:
        checked_info(one, file)
    return found


def load_source(source: str, file: str, name: str) -> list[Algorithm]:
    """Return the algorithms that `source` defines, or an empty list.

    Errors and tracebacks name it `file`; its module has the name `name`. Raises `AlgorithmError`, naming file and line,
    for a source that is no Python or raises when it is run.
    """
    module = ModuleType(_module_name(name))
    module.__file__ = file
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    sys.modules[module.__name__] = module
    try:
        exec(compile(source, file, "exec", dont_inherit=True), module.__dict__)
        own = {
            id(value): value  # by identity: an algorithm may have two names
            for value in module.__dict__.values()
            if isinstance(value, Algorithm) and value.function.__module__ == module.__name__
        }
    except Interrupted:
        raise
    except BaseException as error:  # code of a user: all that it raises is an error of the source
        if isinstance(error, SyntaxError) and type(error) in (SyntaxError, IndentationError, TabError):
            raise _located(error, file, error.lineno, f"{type(error).__name__}: {error.msg}") from error
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
        raise _located(error, file, lines[-1] if lines else None, described(error)) from error
    return list(own.values())


def named_in(found: Sequence[Algorithm], name: str) -> Algorithm:
    """Return the algorithm `name` of those that a source defines. Raises `ValidationError` unless there is just one."""
    named = [one for one in found if one.name == name]
    if len(named) == 1:
        return named[0]
    defined = [one.name for one in found]
    if not found:
        reason = f"the source defines no algorithm; put @algorithm({name!r}, …) above the function that it is"
    elif named:
        reason = f"the source defines {name!r} {len(named)} times; name each of its algorithms differently"
    else:
        reason = f"the source defines no algorithm {name!r}, but {', '.join(map(repr, defined))}"
    raise ValidationError(reason, path="$.name", expected=defined, got=name)


def checked_info(one: Algorithm, file: str) -> AlgorithmInfo:
    """Return the facts of an algorithm, as everybody who is sent them reads them.

    Raises `AlgorithmError` for facts that cannot be sent: a number of more than 64 bits, a text that is no Unicode, an
    object that is neither number nor text, too many bytes.
    """
    try:
        info = one.info
        if not is_algorithm_name(info.name):
            raise ValueError(ALGORITHM_NAME_RULE)
        sent = msgspec.msgpack.encode(info)
        if len(sent) > MAX_INFO_BYTES:
            raise ValueError(f"description and parameters take {len(sent):,} bytes, and may take {MAX_INFO_BYTES:,}")
        received = msgspec.msgpack.decode(sent, type=AlgorithmInfo)
        stored = msgspec.json.decode(msgspec.json.encode(info), type=AlgorithmInfo)
        if not received == stored == info:  # a number that is not finite has no JSON
            raise ValueError("description and parameters cannot be stored as they are; numbers have to be finite")
    except Exception as error:  # the facts are objects of a user, of any class
        name = printable(str(one.name))[:64]
        raise AlgorithmError(f"{file}: the algorithm {name!r} cannot be described: {described(error)}") from error
    return info


def forget(file: str, name: str) -> None:
    """Drop the text and the module that `load_source` keeps. The algorithms that it returned can still run."""
    linecache.cache.pop(file, None)
    sys.modules.pop(_module_name(name), None)


def load_folder(
    folder: Path,
    taken: dict[str, Algorithm],
    limit: Limit = unlimited,
    vet: Vet = all_pass,
    guard: Guard = no_guard,
) -> Loaded:
    """Load the algorithms of every `*.py` in `folder` in order of file names, but for names that begin with `_`.

    A bad file does not affect the others, and `limit` holds for each. `vet` names those that must not even be tried,
    and `guard` surrounds the loading of each of the others. An algorithm whose name is `taken`, or was defined before,
    is left out with a problem, and so is a file or folder that another user may have written. A folder that does not
    exist is empty.
    """
    algorithms: dict[str, Algorithm] = {}
    sources, problems = _sources_in(folder)
    for source, reason in zip(sources, vet(sources), strict=True):
        if reason is not None:
            problems.append(problem_of(source.file, reason))
            continue
        try:
            with guard(source):
                found = limit(f"loading {source.file}", partial(load_whole, source))
        except (AlgorithmError, TimedOut) as error:
            problems.append(problem_of(source.file, error.message))
            continue
        for one in found:
            if one.name in taken or one.name in algorithms:
                message = f"{source.file}: there is an algorithm named {one.name!r} already; this one is left out"
                problems.append(problem_of(source.file, message))
            else:
                algorithms[one.name] = one
    return Loaded(algorithms, problems)


def _sources_in(folder: Path) -> tuple[list[Source], list[AlgorithmProblem]]:
    """Return the sources of a folder, and the problems of the files that cannot be read."""
    sources: list[Source] = []
    problems: list[AlgorithmProblem] = []
    if not folder.is_dir():
        return [], []
    try:
        check_directory(folder, "algorithms.folder (engine.toml)")
        paths = sorted(path for path in folder.glob("*.py") if not path.name.startswith("_"))
    except InvalidConfiguration as error:
        return [], [problem_of(str(folder), error.message)]
    except OSError as error:
        return [], [problem_of(str(folder), f"{folder}: cannot be read: {error.strerror}")]
    for path in paths[:MAX_FILES]:
        try:
            sources.append(read_source(path, trusted=True))
        except BacktestrError as error:
            problems.append(problem_of(str(path), error.message))
    if len(paths) > MAX_FILES:
        left = f"{folder}: {len(paths) - MAX_FILES} of its files are not loaded; {MAX_FILES} are the most there can be"
        problems.append(problem_of(str(folder), left))
    return sources, problems


def _module_name(name: str) -> str:
    return f"{_PACKAGE}.{name}"


def _located(error: BaseException, file: str, line: int | None, message: str) -> AlgorithmError:
    named = printable(file)
    where = named if line is None else f"{named}:{line}"
    return AlgorithmError(
        bounded(printable(f"{where}: {message}")),
        file=named,
        **({"line": line} if line else {}),
        traceback=bounded(printable(authors_traceback(error))),
    )
