"""Compile the hot modules with mypyc, if their sources have changed since they were compiled.

    python compile_hot_modules.py [--strict]

It prints one line: how many were compiled and how long that took, or why pure Python is used instead. That is no error,
unless `--strict` says so. `make setup` runs it beside the compilation of the kernels, `make compiled` after an edit,
and `hatch_build.py` uses it for a wheel.
"""

from __future__ import annotations

import ast
import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent
# The packages that have hot modules, or modules that those import, and the folders that hold the packages.
PACKAGES = {"backtestr_protocol": "protocol", "backtestr_broker": "broker", "backtestr": "clients/python"}
sys.path[:0] = [str(ROOT / folder) for folder in PACKAGES.values()]
# This program replaces the compiled modules, and so must not use them.
os.environ["BACKTESTR_PURE"] = "1"

import msgspec  # noqa: E402 - after the lines above, as all that imports our packages

from backtestr_protocol.compiled_modules import (  # noqa: E402
    FOLDER,
    LIBRARY,
    MANIFEST,
    PYTHON,
    SUFFIX,
    Manifest,
    NotUsed,
    checked,
    hashes,
)

# The modules that each request or message passes, by profile (decision 49). None of them defines a struct: mypyc keeps
# of a field's type only so much that msgspec could not decode it, so structs stand in modules of their own.
MODULES = (
    "backtestr_protocol.codec",
    "backtestr_broker.core.core",
    "backtestr_broker.core.counters",
    "backtestr_broker.core.durability",
    "backtestr_broker.core.envelopes",
    "backtestr_broker.core.outbox",
    "backtestr_broker.core.worker_messages",
    "backtestr_broker.core.clients.admission",
    "backtestr_broker.core.clients.idempotency",
    "backtestr_broker.core.clients.log_limits",
    "backtestr_broker.core.clients.sessions",
    "backtestr_broker.core.requests.dispatch",
    "backtestr_broker.core.scheduling.publications",
    "backtestr_broker.core.streams.listeners",
    "backtestr_broker.core.streams.sequencer",
    "backtestr_broker.io.event_loop",
    "backtestr.pipeline",
    "backtestr.requester",
    "backtestr.subscription",
    "backtestr.core.circuit_breaker",
    "backtestr.core.pending_request",
    "backtestr.core.session",
    "backtestr.core.subscriptions",
    "backtestr.core.topic_stream",
    "backtestr.io.caller_turns",
    "backtestr.io.command_queue",
    "backtestr.io.exchange",
    "backtestr.io.io_thread",
    "backtestr.io.mailboxes",
    "backtestr.io.request_windows",
    "backtestr.io.socket_selector",
    "backtestr.io.sockets",
    "backtestr.io.turn",
)
OPTIMISATION = "1"
CONFIGURATION = """\
[mypy]
python_version = 3.11
explicit_package_bases = True
follow_imports = silent
ignore_missing_imports = True
"""
# For each package of others but msgspec, and for the engine, which embedded brokers import and no hot module does. To
# read the types of zmq, polars, numba and all that these import takes mypyc minutes, and a wheel is built without them.
UNREAD = """
[mypy-{}.*]
follow_imports = skip
follow_imports_for_stubs = True
"""
ENGINE = "backtestr_engine"


def main() -> int:
    """Compile the hot modules if need be, say so in a line, and return the exit status."""
    began = time.monotonic()
    if _are_compiled():
        print(f"hot modules: all {len(MODULES)} are compiled already")
        return 0
    try:
        compile_into(FOLDER, ROOT)
    except NotUsed as reason:
        print(f"hot modules: not compiled, and slower in pure Python: {reason}")
        return 1 if "--strict" in sys.argv[1:] else 0
    print(f"hot modules: {len(MODULES)} compiled in {time.monotonic() - began:.0f} s")
    return 0


def _are_compiled() -> bool:
    """Return True if all hot modules, and no others, are compiled from the sources that there are."""
    try:
        return checked(FOLDER).files.keys() == {LIBRARY, *MODULES}
    except NotUsed:
        return False


def build_all() -> tuple[list[Path], list[str]]:
    """Compile the hot modules for a wheel; return the files, or the reason why there are none."""
    try:
        compile_into(FOLDER, Path())
    except NotUsed as reason:
        return [], [str(reason)]
    return sorted(one for one in FOLDER.rglob("*") if one.is_file()), []


def compile_into(folder: Path, root: Path) -> None:
    """Compile the hot modules, and replace `folder` by them. Raises `NotUsed` where that fails; it is gone then.

    Tracebacks name the sources below `root`.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        needed = closure(MODULES)
        sources = hashes(sorted(needed))  # before mypyc reads them: an edit meanwhile must be noticed
        files = _compiled(Path(scratch), _others(needed), root)
        built = Path(scratch) / "built"
        manifest = Manifest(python=PYTHON, mypy=version("mypy"), files=files, sources=sources)
        (built / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
        built.rename(folder)


def _compiled(scratch: Path, others: Iterable[str], root: Path) -> dict[str, str]:
    """Compile into `scratch / "built"`, and return the file of each module. Raises `NotUsed`."""
    try:
        from mypyc.build import mypycify
        from setuptools import Distribution
    except ImportError as error:
        raise NotUsed(f"{error.name} is missing, which the extra `dev` installs") from error
    configuration = scratch / "mypy.ini"
    configuration.write_text(CONFIGURATION + "".join(map(UNREAD.format, others)), "utf-8")
    log = scratch / "log"
    sources = [root / file.relative_to(ROOT) for name in MODULES if (file := source_of(name)) is not None]
    try:
        with _output_in(log), _mypy_path(), contextlib.chdir(ROOT):
            extensions = mypycify(
                [f"--config-file={configuration}", *map(str, sources)],
                opt_level=OPTIMISATION,
                debug_level="0",
                group_name="backtestr",
                target_dir=str(scratch / "c"),
            )
            build = Distribution({"name": "hot-modules", "ext_modules": extensions}).get_command_obj("build_ext")
            build.build_lib, build.build_temp = str(scratch / "lib"), str(scratch / "temp")
            build.ensure_finalized()
            build.run()
    except (Exception, SystemExit) as error:  # of whatever kind: pure Python does the same, slower
        said = log.read_text("utf-8", "replace").splitlines()
        raise NotUsed(next((line.strip() for line in said if "error" in line), repr(error))) from error
    return _gathered(scratch / "lib", scratch / "built")


def _gathered(built: Path, folder: Path) -> dict[str, str]:
    """Move what was built, and return the file of each module in `folder`: mypyc expects it in folders of packages."""
    shutil.move(built, folder)
    files: dict[str, str] = {}
    for file in sorted(folder.rglob(f"*{SUFFIX}")):
        below = file.relative_to(folder).as_posix()
        files[below.removesuffix(SUFFIX).replace("/", ".")] = below
    if differing := files.keys() ^ {LIBRARY, *MODULES}:
        raise NotUsed(f"mypyc made other files than expected: {', '.join(sorted(differing))}")
    return files


@contextlib.contextmanager
def _output_in(log: Path) -> Iterator[None]:
    """Write in a file what this process and the compilers that it runs print."""
    sys.stdout.flush()
    kept = [os.dup(one) for one in (1, 2)]
    with log.open("wb") as opened:
        for one in (1, 2):
            os.dup2(opened.fileno(), one)
    try:
        yield
    finally:
        sys.stdout.flush()
        for one, earlier in zip((1, 2), kept, strict=True):
            os.dup2(earlier, one)
            os.close(earlier)


@contextlib.contextmanager
def _mypy_path() -> Iterator[None]:
    """Have mypy find our packages where they stand here."""
    earlier = os.environ.get("MYPYPATH")
    os.environ["MYPYPATH"] = os.pathsep.join(str(ROOT / folder) for folder in PACKAGES.values())
    try:
        yield
    finally:
        del os.environ["MYPYPATH"]
        if earlier is not None:
            os.environ["MYPYPATH"] = earlier


# --- what the hot modules rest on ---


def closure(names: Iterable[str]) -> set[str]:
    """Return the given modules, and those of ours that they import, directly or through others.

    mypyc takes types and constants from all of them, so a change of any makes what was compiled wrong.
    """
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [one for one in _imports(name) if source_of(one) is not None]
    return found


def source_of(name: str) -> Path | None:
    """Return the source of a module, None if it is not one of ours."""
    package = name.partition(".")[0]
    if package not in PACKAGES:
        return None
    base = ROOT / PACKAGES[package] / name.replace(".", "/")
    return next((file for file in (base.with_suffix(".py"), base / "__init__.py") if file.exists()), None)


def _others(names: Iterable[str]) -> set[str]:
    """Return the packages whose types are not read: the engine, and those of others that the modules import."""
    packages = {imported.partition(".")[0] for name in names for imported in _imports(name)}
    return (packages | {ENGINE}) - sys.stdlib_module_names - PACKAGES.keys() - {"msgspec"}


def _imports(name: str) -> set[str]:
    """Return what a module of ours may import, anywhere in it: modules, and names in modules."""
    source = source_of(name)
    assert source is not None
    package = name if source.name == "__init__.py" else name.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text("utf-8"))):
        match node:
            case ast.Import():
                found |= {one.name for one in node.names}
            case ast.ImportFrom():
                above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
                origin = ".".join([*above, *([node.module] if node.module else [])])
                found |= {origin, *(f"{origin}.{one.name}" for one in node.names)}
    return found


if __name__ == "__main__":
    sys.exit(main())
