"""Compiled modules are imported while they are those of their sources, and the sources are in every other case."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import ExtensionFileLoader
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backtestr_protocol import compiled_modules
from backtestr_protocol.compiled_modules import (
    LIBRARY,
    MANIFEST,
    PYTHON,
    SUFFIX,
    CompiledFinder,
    Manifest,
    NotUsed,
    checked,
    hashes,
    installed,
)

SOURCES = {"sample_package": "", "sample_package.hot": "ANSWER = 42\n", "sample_package.within.cold": "pass\n"}
MODULE = "sample_package.hot"


class Build:
    """Sources of a package, and a folder with a manifest of what was compiled from them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "compiled"
        self.folder.mkdir()
        for name, text in SOURCES.items():
            self.source(name).parent.mkdir(parents=True, exist_ok=True)
            self.source(name).write_text(text, "utf-8")
        self.manifest = Manifest(
            python=PYTHON,
            mypy="2.4.1",
            files={MODULE: f"{MODULE}{SUFFIX}", LIBRARY: f"{LIBRARY}{SUFFIX}"},
            sources=hashes(list(SOURCES)),
        )
        self.state(self.manifest)

    def source(self, name: str) -> Path:
        below = self.root / name.replace(".", "/")
        return below / "__init__.py" if name == "sample_package" else below.with_suffix(".py")

    def state(self, manifest: Manifest) -> None:
        (self.folder / MANIFEST).write_bytes(msgspec.json.encode(manifest))


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    monkeypatch.syspath_prepend(tmp_path)
    return Build(tmp_path)


def _edited(build: Build) -> None:
    build.source(MODULE).write_text("ANSWER = 43\n", "utf-8")


def _removed(build: Build) -> None:
    build.source("sample_package.within.cold").unlink()


def _all_edited(build: Build) -> None:
    for name in SOURCES:
        build.source(name).write_text("# edited\n", "utf-8")


def _other_python(build: Build) -> None:
    build.state(msgspec.structs.replace(build.manifest, python="cpython-39-x86_64-linux-gnu"))


def _no_library(build: Build) -> None:
    build.state(msgspec.structs.replace(build.manifest, files={MODULE: "hot.so"}))


def _imported(build: Build) -> None:
    build.state(msgspec.structs.replace(build.manifest, files={**build.manifest.files, "pytest": "pytest.so"}))


def test_the_modules_of_unchanged_sources_are_used(build: Build) -> None:
    assert hashes(list(SOURCES)).keys() == SOURCES.keys()
    assert checked(build.folder) == build.manifest


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_edited, r"sources changed since they were compiled \(sample_package\.hot\); run make compiled"),
        (_removed, r"sources changed since they were compiled \(sample_package\.within\.cold\)"),
        (_all_edited, r"sources changed since they were compiled \(sample_package and 2 more\)"),
        (lambda build: (build.folder / MANIFEST).unlink(), "nothing is compiled for this Python; run make compiled"),
        (lambda build: (build.folder / MANIFEST).write_bytes(b'{"python": 3'), "the manifest .* cannot be read"),
        (lambda build: (build.folder / MANIFEST).write_bytes(b"{}"), "the manifest .* cannot be read"),
        (_other_python, f"compiled for cpython-39-x86_64-linux-gnu, and this is {PYTHON}"),
        (_no_library, f"lacks {LIBRARY}"),
        (_imported, "pytest was imported before backtestr_protocol"),
    ],
)
def test_pure_python_is_used_with_a_reason(build: Build, change: Callable[[Build], object], reason: str) -> None:
    change(build)
    with pytest.raises(NotUsed, match=reason):
        checked(build.folder)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.sampled_from(sorted(SOURCES)), st.binary(max_size=40))
def test_any_other_bytes_of_any_source_are_a_change(build: Build, name: str, other: bytes) -> None:
    earlier = build.source(name).read_bytes()
    build.source(name).write_bytes(other)
    try:
        if other == earlier:
            checked(build.folder)
        else:
            with pytest.raises(NotUsed, match="sources changed"):
                checked(build.folder)
    finally:
        build.source(name).write_bytes(earlier)


def test_a_finder_finds_compiled_modules_and_no_others(build: Build) -> None:
    finder = CompiledFinder(build.folder, build.manifest.files)
    spec = finder.find_spec(MODULE, None)
    assert spec is not None
    assert isinstance(spec.loader, ExtensionFileLoader)
    assert spec.origin == str(build.folder / f"{MODULE}{SUFFIX}")
    assert finder.find_spec("sample_package", None) is None
    assert finder.find_spec("sample_package.within.cold", None) is None


def test_a_reason_against_it_leaves_the_sources_alone(build: Build) -> None:
    finders = list(sys.meta_path)
    found = installed(build.folder, "BACKTESTR_PURE is set")
    assert str(found) == "pure Python: BACKTESTR_PURE is set"
    assert not found.modules
    assert sys.meta_path == finders


def test_a_library_that_cannot_be_loaded_leaves_the_sources_alone(build: Build) -> None:
    (build.folder / f"{LIBRARY}{SUFFIX}").write_bytes(b"no library")
    finders, earlier = list(sys.meta_path), sys.modules.pop(LIBRARY, None)
    try:
        found = installed(build.folder)
    finally:
        if earlier is not None:
            sys.modules[LIBRARY] = earlier
    assert str(found).startswith("pure Python: the compiled modules cannot be loaded (")
    assert sys.meta_path == finders


def test_the_build_of_this_process_is_what_was_imported() -> None:
    from backtestr_protocol import codec

    build = compiled_modules.BUILD
    assert ("backtestr_protocol.codec" in build.modules) == (build.reason is None)
    assert str(codec.__file__).endswith(SUFFIX) == (build.reason is None)


# Prints why nothing is compiled, or the file of each compiled module.
LOOKED_UP = """
import importlib
from backtestr_protocol.compiled_modules import BUILD
print(BUILD)
print(*(importlib.import_module(name).__file__ for name in sorted(BUILD.modules)), sep="\\n")
"""


def test_a_program_imports_each_compiled_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKTESTR_PURE", "0")
    done = subprocess.run([sys.executable, "-c", LOOKED_UP], check=True, capture_output=True, text=True)
    build, *files = done.stdout.splitlines()
    if build != "compiled":
        pytest.skip(build)
    assert len(files) > 1
    assert all(Path(file).is_relative_to(compiled_modules.FOLDER) and Path(file).is_file() for file in files)
    assert all(file.endswith(SUFFIX) for file in files)
