"""The broker and the protocol run no foreign code: nothing in them unpickles, evaluates or imports by name."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import backtestr_broker
import backtestr_protocol

MODULES = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "runpy", "code", "imp"}
MODULES |= {"importlib", "pty", "ctypes"}
CALLS = {"eval", "exec", "compile", "__import__", "recv_pyobj", "recv_json", "recv_string"}
# Resources that ship with the package: TOML text, no code.
HARMLESS = {"importlib.resources"}
# Each calls one function of the C library in one place: `prctl`, with numbers of options of Linux, and `malloc_trim`.
PROCESS_ENDS = "process_ends.py"
FREED_MEMORY = "freed_memory.py"
# It finds our own modules in the folder of their compiled form, which lies in the package as their sources do.
COMPILED_MODULES = "compiled_modules.py"
ALLOWED = {
    PROCESS_ENDS: {"ctypes"},
    FREED_MEMORY: {"ctypes"},
    COMPILED_MODULES: {
        "importlib.import_module",
        "importlib.abc.MetaPathFinder",
        "importlib.machinery.EXTENSION_SUFFIXES",
        "importlib.machinery.ExtensionFileLoader",
        "importlib.machinery.ModuleSpec",
        "importlib.machinery.PathFinder",
        "importlib.util.source_hash",
        "importlib.util.spec_from_file_location",
    },
}

FILES = sorted(
    file for package in (backtestr_broker, backtestr_protocol) for file in Path(package.__path__[0]).rglob("*.py")
)


def foreign(tree: ast.AST) -> set[str]:
    """Return the names in `tree` that could run or load code that is not in it."""
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Import(names):
                found |= {one.name for one in names if one.name.split(".")[0] in MODULES}
            case ast.ImportFrom(module=str(module), names=names) if module.split(".")[0] in MODULES:
                found |= {f"{module}.{one.name}" for one in names}
            case ast.Call(func=ast.Name(name) | ast.Attribute(attr=name)) if name in CALLS:
                found.add(name)
            case _:
                pass
    return found - HARMLESS


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_no_file_can_run_what_came_over_the_wire(file: Path) -> None:
    found = foreign(ast.parse(file.read_text("utf-8"))) - ALLOWED.get(file.name, set())
    assert not found - ({"compile"} if "re.compile(" in file.read_text("utf-8") else set())


def source_of(name: str) -> str:
    (file,) = [one for one in FILES if one.name == name]
    return file.read_text("utf-8")


def calls_in(text: str, name: str) -> list[ast.Call]:
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    return [one for one in calls if isinstance(one.func, ast.Name) and one.func.id == name]


@pytest.mark.parametrize("name", ALLOWED)
def test_every_exception_is_needed(name: str) -> None:
    assert foreign(ast.parse(source_of(name))) == ALLOWED[name]


def test_the_c_library_is_used_for_two_options_of_processes_alone() -> None:
    text = source_of(PROCESS_ENDS)
    assert text.count("ctypes.") == text.count('getattr(ctypes.CDLL(None), "prctl", None)') == 1
    options = [one.args[0] for one in calls_in(text, "_prctl")]
    assert {one.id for one in options if isinstance(one, ast.Name)} == {
        "_PR_SET_PDEATHSIG",
        "_PR_SET_CHILD_SUBREAPER",
    }
    assert len(options) == sum(isinstance(one, ast.Name) for one in options), "the options are constants"


def test_the_return_of_freed_memory_calls_malloc_trim_and_nothing_else() -> None:
    text = source_of(FREED_MEMORY)
    assert text.count('getattr(ctypes.CDLL(None), "malloc_trim", None)') == 1
    assert text.count("ctypes.") == 1 + text.count("trim(ctypes.c_size_t(0))") == 2


def test_compiled_modules_come_from_one_folder_of_the_package_alone() -> None:
    text = source_of(COMPILED_MODULES)
    assert [ast.unparse(one) for one in calls_in(text, "import_module")] == ["import_module(LIBRARY)"]
    assert 'LIBRARY = "backtestr__mypyc"' in text
    loaded = ["spec_from_file_location(fullname, file, loader=ExtensionFileLoader(fullname, file))"]
    assert [ast.unparse(one) for one in calls_in(text, "spec_from_file_location")] == loaded
    assert len(calls_in(text, "ExtensionFileLoader")) == 1
    assert "file = str(self._folder / name)" in text
    assert [ast.unparse(one) for one in calls_in(text, "installed")] == ["installed(FOLDER, why_all_is_pure())"]
    assert 'FOLDER = Path(__file__).with_name("compiled") / PYTHON' in text
