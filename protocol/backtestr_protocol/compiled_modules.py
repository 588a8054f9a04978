"""This module has Python import the compiled form of hot modules, as long as it is that of their sources.

`compile_hot_modules.py` compiles them with mypyc into a folder beside this file, not beside their sources: Python
would prefer them there, also after an edit. The manifest in that folder has a hash of every source that the compiled
modules were made from, those that they import included. They call each other as C does, so one source that has changed
makes all of them pure. The hashes are compared at each start, which takes about a millisecond.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec, PathFinder
from importlib.util import source_hash, spec_from_file_location
from pathlib import Path
from types import ModuleType

import msgspec

from .wire.compiled import why_all_is_pure

# The end of a compiled module's name, such as .cpython-311-x86_64-linux-gnu.so, says which interpreters can load it.
SUFFIX = EXTENSION_SUFFIXES[0]
PYTHON = SUFFIX.strip(".").rpartition(".")[0]
FOLDER = Path(__file__).with_name("compiled") / PYTHON
MANIFEST = "manifest.json"
# What the others are linked with. They import it by this name.
LIBRARY = "backtestr__mypyc"

_AGAIN = "run make compiled"


class Manifest(msgspec.Struct, frozen=True):
    """The contents of a folder of compiled modules: each module's file, and the hash of each source as hex."""

    python: str
    mypy: str
    files: dict[str, str]
    sources: dict[str, str]


class NotUsed(Exception):
    """The compiled modules are not used; the text says why, and how to change that."""


class CompiledFinder(MetaPathFinder):
    """Finds the compiled modules, before Python looks for their sources."""

    def __init__(self, folder: Path, files: Mapping[str, str]) -> None:
        self._folder = folder
        self._files = files

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a compiled module is; None for any other module."""
        if (name := self._files.get(fullname)) is None:
            return None
        file = str(self._folder / name)
        return spec_from_file_location(fullname, file, loader=ExtensionFileLoader(fullname, file))


class Build:
    """The modules that this process runs: compiled ones, or pure Python for a `reason`."""

    def __init__(self) -> None:
        self.reason: str | None = "nothing was looked for yet"
        self.modules: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return "compiled" if self.reason is None else f"pure Python: {self.reason}"


def installed(folder: Path, why_pure: str | None = None) -> Build:
    """Have the compiled modules of a folder imported, unless there is a reason against it, and return the build."""
    build = Build()
    try:
        if why_pure is not None:
            raise NotUsed(why_pure)
        manifest = checked(folder)
        finder = CompiledFinder(folder, manifest.files)
        sys.meta_path.insert(0, finder)
        try:
            import_module(LIBRARY)
        except ImportError as error:
            sys.meta_path.remove(finder)
            raise NotUsed(f"the compiled modules cannot be loaded ({error}); {_AGAIN}") from error
    except NotUsed as reason:
        build.reason = str(reason)
    else:
        build.reason, build.modules = None, frozenset(manifest.files)
    return build


def checked(folder: Path) -> Manifest:
    """Return the manifest of a folder of compiled modules. Raises `NotUsed` if they are not those of the sources."""
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except FileNotFoundError as error:
        raise NotUsed(f"nothing is compiled for this Python; {_AGAIN}") from error
    except (OSError, msgspec.DecodeError) as error:
        raise NotUsed(f"the manifest of the compiled modules cannot be read ({error}); {_AGAIN}") from error
    if manifest.python != PYTHON:
        raise NotUsed(f"the modules are compiled for {manifest.python}, and this is {PYTHON}; {_AGAIN}")
    if LIBRARY not in manifest.files:
        raise NotUsed(f"the manifest of the compiled modules lacks {LIBRARY}; {_AGAIN}")
    if early := sorted(manifest.files.keys() & sys.modules.keys() - {LIBRARY}):
        raise NotUsed(f"{early[0]} was imported before backtestr_protocol")
    found = hashes(manifest.sources)
    changed = sorted(name for name, expected in manifest.sources.items() if found.get(name) != expected)
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise NotUsed(f"sources changed since they were compiled ({changed[0]}{more}); {_AGAIN}")
    return manifest


def hashes(modules: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """Return the hash of each module's source, as Python itself computes it; a module without a source has none."""
    packages = {name.partition(".")[0] for name in modules}
    specs = {name: PathFinder.find_spec(name) for name in packages}
    folders = {name: found.submodule_search_locations for name, found in specs.items() if found is not None}
    hashed: dict[str, str] = {}
    for name in modules:
        package, _, below = name.partition(".")
        for folder in folders.get(package) or ():
            module = f"{folder}/{below.replace('.', '/')}"
            for file in (f"{module}.py", f"{module}/__init__.py"):
                try:
                    with open(file, "rb", buffering=0) as opened:
                        hashed[name] = source_hash(opened.readall()).hex()
                    break
                except OSError:  # it is a package, or gone
                    continue
    return hashed


BUILD = installed(FOLDER, why_all_is_pure())
