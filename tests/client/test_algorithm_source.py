"""Registering from Python: the algorithm that is meant, the request that is sent, and the answer as it is shown."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import backtestr
from backtestr.algorithm_source import declared, registration
from backtestr.cli.rendering import algorithms_table, registered_table
from backtestr_protocol.errors import AlgorithmError, TimedOut
from backtestr_protocol.messages import AlgorithmInfo, Finding, LookAhead, RegisterAlgorithm
from support.client.peer import Peer

ONE = '@algorithm("mine", share=Float(0.1, low=0, high=1))\ndef whatever(bars, share):\n    return None\n'
OTHER = ONE.replace('"mine"', '"other"')
INFO = {"algorithmId": "mine@1", "name": "mine", "version": "1", "description": "does [bold]things", "parameters": []}
PASSED = {"passed": True, "bars": 2_000, "cuts": 24}


# --- which one is meant ---


@pytest.mark.parametrize(
    ("source", "names"),
    [
        (ONE, ["mine"]),
        (ONE + OTHER, ["mine", "other"]),
        (ONE.replace("@algorithm", "@authoring.algorithm"), ["mine"]),
        (ONE.replace("@algorithm", "@portfolio"), ["mine"]),
        (ONE.replace('"mine"', "NAME"), []),
        (ONE.replace("@algorithm", "@lru_cache"), []),
        ("@algorithm\ndef f(): ...\n@algorithm()\ndef g(): ...\n@algorithm(5)\ndef h(): ...\n", []),
        ("@table[0]('mine')\ndef f(): ...\n", []),
        ("def (\n", None),
        ("x = '\0'", None),
    ],
)
def test_names_are_read_from_the_text(source: str, names: list[str] | None) -> None:
    assert declared(source) == names


def test_the_only_algorithm_needs_no_name() -> None:
    assert registration(ONE, None) == RegisterAlgorithm(name="mine", source=ONE)
    assert registration(ONE + OTHER, "other") == RegisterAlgorithm(name="other", source=ONE + OTHER)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (ONE + OTHER, "name=...: it declares 'mine', 'other'"),
        ("x = 1", "it declares none that can be told"),
        ("def (", "it declares none that can be told"),
    ],
)
def test_without_exactly_one_algorithm_a_name_is_needed(source: str, found: str) -> None:
    with pytest.raises(ValueError, match=found):
        registration(source, None)


def test_a_file_is_sent_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "strategy.py"
    path.write_bytes(b"\xef\xbb\xbf# \xe2\x98\x83\r\n" + ONE.encode())
    assert registration(path, None) == RegisterAlgorithm(name="mine", source=f"# ☃\r\n{ONE}")
    path.write_text("def (\n")
    assert registration(path, None).name == "strategy", "the broker says where it is wrong"
    path.write_bytes(b"\xff")
    with pytest.raises(ValueError, match="utf-8"):
        registration(path, None)
    with pytest.raises(FileNotFoundError):
        registration(tmp_path / "absent.py", None)


# --- asking ---


def test_registering_answers_with_the_version_and_its_verdict(home: Path) -> None:
    def script(data: Any) -> Any:
        return INFO | {"origin": "registered", "registeredTime": 5, "lookAhead": PASSED}

    with Peer(home, {"RegisterAlgorithm": script}) as peer, backtestr.connect(connection_file=peer.file) as client:
        info = client.register_algorithm(ONE)

    assert info.algorithm_id == "mine@1"
    assert info.look_ahead == LookAhead(passed=True, bars=2_000, cuts=24)
    assert [(kind, data) for kind, _, data in peer.asked if kind == "RegisterAlgorithm"] == [
        ("RegisterAlgorithm", {"name": "mine", "source": ONE})
    ]


@pytest.mark.parametrize("error", [AlgorithmError("mine.py:1: SyntaxError", line=1), TimedOut("loading took longer")])
def test_a_refusal_is_raised_as_its_exception(home: Path, error: Exception) -> None:
    with (
        Peer(home, {"RegisterAlgorithm": lambda _: error}) as peer,
        backtestr.connect(connection_file=peer.file) as client,
        pytest.raises(type(error), match=str(error)),
    ):
        client.register_algorithm(ONE)


def test_algorithms_without_the_optional_fields_are_listed(home: Path) -> None:
    """`origin` and `lookAhead` are optional: a broker may send neither."""
    script = {"ListAlgorithms": lambda _: {"algorithms": [INFO]}}
    with Peer(home, script) as peer, backtestr.connect(connection_file=peer.file) as client:
        (found,) = client.list_algorithms()

    assert (found.origin, found.look_ahead) == (None, None)
    assert "not checked" in drawn(algorithms_table([found]))


# --- showing ---


def drawn(shown: Any) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(shown)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        (LookAhead(passed=True, bars=2_000, cuts=24), "none found (24 cuts of 2,000 bars)"),
        (
            LookAhead(
                passed=False,
                bars=2_000,
                cuts=24,
                finding=Finding(signal="entries", bar=7, cut=8, explanation="entries of bar 7 changes [x]"),
            ),
            "entries of bar 7 changes [x]",
        ),
        (LookAhead(passed=False, bars=2_000, cuts=0, problem="mine raised [oops]"), "it fails on the sample"),
    ],
)
def test_a_verdict_is_shown_where_it_is_registered_and_listed(verdict: LookAhead, said: str) -> None:
    info = AlgorithmInfo(
        algorithm_id="mine@1",
        name="mine",
        version="1",
        description="does [bold]things",
        parameters=[],
        origin="registered",
        look_ahead=verdict,
    )

    assert "mine@1" in drawn(registered_table(info))
    for shown in (drawn(registered_table(info)), drawn(algorithms_table([info]))):
        assert said in shown
    assert "does [bold]things" in drawn(algorithms_table([info]))
    assert ("mine raised [oops]" in drawn(registered_table(info))) == (verdict.problem is not None)
