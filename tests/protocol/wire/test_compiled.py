"""The compiled twins are used where they were built and the libraries fit; otherwise the reason is kept."""

from __future__ import annotations

import _hashlib
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zmq

from backtestr_protocol import zmq_frames
from backtestr_protocol.wire import compiled
from backtestr_protocol.wire.pure_mac import PureMac
from support.protocol.implementations import needs_compiled_frames, needs_compiled_mac

ROOT = Path(__file__).parents[3]
BUILD = ROOT / "protocol" / "build_extensions.py"


@pytest.fixture(autouse=True)
def not_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BACKTESTR_PURE", raising=False)


@pytest.mark.parametrize("value", ["1", "yes"])
@pytest.mark.parametrize("find", [compiled.compiled_mac, zmq_frames.compiled_frames])
def test_an_option_in_the_environment_switches_them_off(
    monkeypatch: pytest.MonkeyPatch, find: Callable[[], object], value: str
) -> None:
    monkeypatch.setenv("BACKTESTR_PURE", value)
    assert find() == "BACKTESTR_PURE is set"


@pytest.mark.parametrize("value", ["", "0"])
def test_it_switches_nothing_off_when_it_is_empty_or_0(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("BACKTESTR_PURE", value)
    assert compiled.why_all_is_pure() is None


@pytest.mark.parametrize(("module", "find"), [("_mac", compiled.compiled_mac), ("_frames", zmq_frames.compiled_frames)])
def test_without_a_compiler_they_were_not_built(
    monkeypatch: pytest.MonkeyPatch, module: str, find: Callable[[], object]
) -> None:
    monkeypatch.setitem(sys.modules, f"backtestr_protocol.wire.{module}", None)
    assert find() == compiled.NOT_BUILT


@needs_compiled_mac
def test_a_hashlib_without_a_library_of_its_own_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(_hashlib, "__file__")
    assert "no attribute '__file__'" in str(compiled.compiled_mac())


@needs_compiled_mac
def test_a_library_without_sha256_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    from backtestr_protocol.wire import _mac

    monkeypatch.setattr(_hashlib, "__file__", _mac.__file__)
    assert str(compiled.compiled_mac()).endswith("has no SHA256_Init")
    monkeypatch.setattr(_hashlib, "__file__", "/nowhere/libcrypto.so")
    assert compiled.compiled_mac() == "/nowhere/libcrypto.so is not loaded"
    assert len(_mac.Mac(bytes(32)).sign(b"", [])) == 32, "what was found before is still there"


@needs_compiled_mac
def test_another_sha256_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PureMac, "sign", lambda *_: bytes(32))
    assert compiled.compiled_mac() == "libcrypto's SHA-256 differs from that of hashlib"


@needs_compiled_frames
@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ((4, 3, 0), "libzmq 4.3.5 was found, and pyzmq uses 4.3.0"),
        ((4, 4, 0), "libzmq 4.4 was not tested, only 4.3"),
    ],
)
def test_another_libzmq_is_a_reason(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int], reason: str
) -> None:
    found = zmq.zmq_version()
    monkeypatch.setattr(zmq, "zmq_version_info", lambda: version)
    assert str(zmq_frames.compiled_frames()).endswith(reason.replace("4.3.5", found))


@needs_compiled_frames
def test_another_backend_of_pyzmq_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zmq.backend.cython._zmq", None)
    monkeypatch.delattr("zmq.backend.cython._zmq")
    assert str(zmq_frames.compiled_frames()).startswith(f"pyzmq {zmq.__version__}: ")


def test_what_is_used_is_said_in_words() -> None:
    assert zmq_frames.described(None, None) == "compiled"
    assert zmq_frames.described("a reason", "a reason") == "pure Python: a reason"
    assert zmq_frames.described(None, "one") == "compiled; signatures: pure Python: one"
    assert zmq_frames.described("one", None) == "pure Python: one; signatures: compiled"


SAID = "from backtestr_protocol.zmq_frames import IMPLEMENTATION as used; print(used)"


def test_a_program_with_the_option_uses_python_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKTESTR_PURE", "1")
    said = subprocess.run([sys.executable, "-c", SAID], check=True, capture_output=True, text=True).stdout
    assert said == "pure Python: BACKTESTR_PURE is set\n"


# --- the build ---


@pytest.fixture
def build() -> dict[str, Any]:
    """Return the names of the build script."""
    return runpy.run_path(str(BUILD))


def test_they_compile_without_a_warning(build: dict[str, Any], tmp_path: Path) -> None:
    try:
        build["compiler"]()
    except build["NotBuilt"] as error:
        pytest.skip(str(error))
    for source in build["SOURCES"]:
        assert build["build"](source, tmp_path, [*build["FLAGS"], "-Werror"]).is_file()


def test_what_does_not_compile_is_told_and_leaves_no_module_of_an_earlier_source(
    build: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", f"{sys.executable} -c 'raise SystemExit(\"no such header\")'")
    source = tmp_path / "_mac.c"
    earlier = tmp_path / f"_mac{build['sysconfig'].get_config_var('EXT_SUFFIX')}"
    earlier.write_bytes(b"")
    with pytest.raises(build["NotBuilt"], match=r"_mac.c: no such header"):
        build["build"](source, tmp_path)
    assert not list(tmp_path.iterdir())
