"""Algorithms from Python files: a file defines them with `@algorithm`, and the content is its version.

A file is read once. What it raises later shows the text that ran, even when the file has been edited since.
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

from backtestr_engine.algorithms.algorithm import Algorithm
from backtestr_protocol.errors import AlgorithmError, TimedOut

_PACKAGE = "backtestr_algorithms"
"""What the modules made of files are named after, so that none hides a library's."""


T = TypeVar("T")


class Limit(Protocol):
    """Calls `work` and returns what it returns, or raises `TimedOut`, naming `what`, when that takes too long."""

    def __call__(self, what: str, work: Callable[[], T], /) -> T: ...


def unlimited(what: str, work: Callable[[], T], /) -> T:
    """The limit that is none."""
    return work()


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Why a file, or one algorithm of it, is not there."""

    file: str
    message: str


class Loaded(msgspec.Struct, frozen=True):
    """The algorithms of a folder by name, and what was wrong with the rest."""

    algorithms: dict[str, Algorithm]
    problems: list[Problem]


def load_file(path: Path) -> list[Algorithm]:
    """The algorithms that the file at `path` defines, in its order.

    Raises `AlgorithmError`, naming file and line, for a file that cannot be read, is no Python, raises when it is run,
    or defines no algorithm.
    """
    try:
        source = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise AlgorithmError(f"{path}: cannot be read: {reason}", file=str(path)) from error
    found = load_source(source, str(path), path.stem)
    if not found:
        raise AlgorithmError(f'{path}: defines no algorithm; put @algorithm("its name", …) above one', file=str(path))
    return found


def load_source(source: str, file: str, name: str) -> list[Algorithm]:
    """The algorithms that `source` defines, maybe none. Errors and tracebacks call it `file`; its module bears `name`.

    Raises `AlgorithmError`, naming file and line, for what is no Python or raises when it is run.
    """
    module = ModuleType(_module_name(name))
    module.__file__ = file
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    sys.modules[module.__name__] = module
    try:
        exec(compile(source, file, "exec", dont_inherit=True), module.__dict__)
    except SyntaxError as error:
        raise _located(file, error.lineno, f"{type(error).__name__}: {error.msg}") from error
    except (Exception, SystemExit) as error:  # it is anyone's code: whatever it raises is its own error
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
        described = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise _located(file, lines[-1] if lines else None, described) from error
    own = {
        id(value): value  # by identity: a second name for the same one is no second algorithm
        for value in module.__dict__.values()
        if isinstance(value, Algorithm) and value.function.__module__ == module.__name__
    }
    return list(own.values())


def forget(file: str, name: str) -> None:
    """Let go of what `load_source` keeps for tracebacks and by the module's name. What it returned can still run."""
    linecache.cache.pop(file, None)
    sys.modules.pop(_module_name(name), None)


def load_folder(folder: Path, taken: dict[str, Algorithm], limit: Limit = unlimited) -> Loaded:
    """The algorithms of every `*.py` in `folder`, files in order of their names; those that begin with `_` are left to
    be imported by none. One bad file costs nothing but itself, and `limit` holds for each. A name that is `taken`, or
    came before, stays as it is.

    A folder that does not exist is empty.
    """
    algorithms: dict[str, Algorithm] = {}
    problems = []
    for path in sorted(folder.glob("*.py")):
        if path.name.startswith("_"):
            continue
        try:
            found = limit(f"loading {path}", partial(load_file, path))
        except (AlgorithmError, TimedOut) as error:
            problems.append(Problem(file=str(path), message=error.message))
            continue
        for one in found:
            if one.name in taken or one.name in algorithms:
                message = f"{path}: there is an algorithm named {one.name!r} already; this one is left out"
                problems.append(Problem(file=str(path), message=message))
            else:
                algorithms[one.name] = one
    return Loaded(algorithms, problems)


def _module_name(name: str) -> str:
    return f"{_PACKAGE}.{name}"


def _located(file: str, line: int | None, message: str) -> AlgorithmError:
    where = file if line is None else f"{file}:{line}"
    return AlgorithmError(
        f"{where}: {message}", file=file, **({"line": line} if line else {}), traceback=traceback.format_exc()
    )
