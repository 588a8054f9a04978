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
# Each calls one function of the C library, in one place: `prctl` with numbers of options of Linux, and `malloc_trim`.
ALLOWED = {"process_ends.py": {"ctypes"}, "freed_memory.py": {"ctypes"}}

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


def allowed(name: str) -> str:
    """Return the text of a file that is allowed more than others."""
    (file,) = [one for one in FILES if one.name == name]
    text = file.read_text("utf-8")
    assert foreign(ast.parse(text)) == ALLOWED[name]
    return text


def test_the_end_of_processes_calls_prctl_and_nothing_else() -> None:
    text = allowed("process_ends.py")
    assert text.count("ctypes.") == text.count('getattr(ctypes.CDLL(None), "prctl", None)') == 1
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    options = [one.args[0] for one in calls if isinstance(one.func, ast.Name) and one.func.id == "_prctl"]
    assert {one.id for one in options if isinstance(one, ast.Name)} == {
        "_PR_SET_PDEATHSIG",
        "_PR_SET_CHILD_SUBREAPER",
    }
    assert len(options) == sum(isinstance(one, ast.Name) for one in options), "the options are constants"


def test_the_return_of_freed_memory_calls_malloc_trim_and_nothing_else() -> None:
    text = allowed("freed_memory.py")
    assert text.count('getattr(ctypes.CDLL(None), "malloc_trim", None)') == 1
    assert text.count("ctypes.") == 1 + text.count("trim(ctypes.c_size_t(0))") == 2
