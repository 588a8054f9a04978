"""Algorithms from Python files: a file defines them with `@algorithm`, and a hash of its content is their version.

A file is read once. Later errors show the text that ran, even when the file has been edited since.
"""

from __future__ import annotations

import linecache
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Protocol, TypeVar

import msgspec

from backtestr_engine.algorithms.algorithm import Algorithm, Interrupted
from backtestr_protocol.errors import AlgorithmError, InvalidConfiguration, TimedOut
from backtestr_protocol.private_files import check_directory, read_trusted
from backtestr_protocol.texts import bounded, described, traceback_of

_PACKAGE = "backtestr_algorithms"
"""The package of the modules made of files, so that no module hides one of a library."""


T = TypeVar("T")


class Limit(Protocol):
    """Calls `work` and returns its result, or raises `TimedOut`, naming `what`, when that takes too long."""

    def __call__(self, what: str, work: Callable[[], T], /) -> T: ...


def unlimited(what: str, work: Callable[[], T], /) -> T:
    """Call `work` without a limit."""
    return work()


class LoadProblem(msgspec.Struct, frozen=True, kw_only=True):
    """The reason why a file, or one algorithm of it, could not be loaded."""

    file: str
    message: str


class Loaded(msgspec.Struct, frozen=True):
    """The algorithms of a folder by name, and the problems of the rest."""

    algorithms: dict[str, Algorithm]
    problems: list[LoadProblem]


def load_file(path: Path, read: Callable[[Path], bytes] = Path.read_bytes) -> list[Algorithm]:
    """Return the algorithms that the file at `path` defines, in its order.

    Raises `AlgorithmError`, naming file and line, for a file that cannot be read, is no Python, raises when it is run,
    or defines no algorithm.
    """
    try:
        source = read(path).decode("utf-8")
    except InvalidConfiguration as error:
        raise AlgorithmError(error.message, file=str(path)) from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise AlgorithmError(f"{path}: cannot be read: {reason}", file=str(path)) from error
    found = load_source(source, str(path), path.stem)
    if not found:
        raise AlgorithmError(f'{path}: defines no algorithm; put @algorithm("its name", …) above one', file=str(path))
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


def forget(file: str, name: str) -> None:
    """Drop the text and the module that `load_source` keeps. The algorithms that it returned can still run."""
    linecache.cache.pop(file, None)
    sys.modules.pop(_module_name(name), None)


def load_folder(folder: Path, taken: dict[str, Algorithm], limit: Limit = unlimited) -> Loaded:
    """Load the algorithms of every `*.py` in `folder` in order of file names, but for names that begin with `_`.

    A bad file does not affect the others, and `limit` holds for each. An algorithm whose name is `taken`, or was
    defined before, is left out with a problem, and so is a file or folder that another user may have written. A folder
    that does not exist is empty.
    """
    algorithms: dict[str, Algorithm] = {}
    problems = []
    if not folder.is_dir():
        return Loaded({}, [])
    try:
        check_directory(folder, "algorithms.folder (engine.toml)")
    except InvalidConfiguration as error:
        return Loaded({}, [LoadProblem(file=str(folder), message=error.message)])
    for path in sorted(folder.glob("*.py")):
        if path.name.startswith("_"):
            continue
        try:
            found = limit(f"loading {path}", partial(load_file, path, read_trusted))
        except (AlgorithmError, TimedOut) as error:
            problems.append(LoadProblem(file=str(path), message=error.message))
            continue
        for one in found:
            if one.name in taken or one.name in algorithms:
                message = f"{path}: there is an algorithm named {one.name!r} already; this one is left out"
                problems.append(LoadProblem(file=str(path), message=message))
            else:
                algorithms[one.name] = one
    return Loaded(algorithms, problems)


def _module_name(name: str) -> str:
    return f"{_PACKAGE}.{name}"


def _located(error: BaseException, file: str, line: int | None, message: str) -> AlgorithmError:
    where = file if line is None else f"{file}:{line}"
    return AlgorithmError(
        bounded(f"{where}: {message}"),
        file=file,
        **({"line": line} if line else {}),
        traceback=traceback_of(error),
    )
