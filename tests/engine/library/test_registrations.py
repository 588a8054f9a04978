"""A damaged registration is a problem of its own algorithm, and what is stored is what the next start reads."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_engine.library.library import Library
from backtestr_engine.library.registrations import RegisteredAlgorithms
from backtestr_engine.library.source_files import Source
from backtestr_engine.library.stored_samples import SeriesPart
from backtestr_protocol.errors import AlgorithmError, DataError
from backtestr_protocol.messages import AlgorithmInfo, AlgorithmList, RegisterAlgorithm

MINE = '''
from backtestr_engine.authoring import Float, Signals, algorithm


@algorithm("mine", share=Float(0.001, low=0.0, high=1.0))
def mine(bars, share):
    """Long on a bar that rises."""
    return Signals.of(entries=bars.close > bars.open * (1 + share))
'''
RECORD = b'{"algorithmId":"mine@%s","name":"mine","version":"%s","description":"","parameters":[]}'
OTHER = MINE.replace("mine", "other")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "algorithms-registered"


@pytest.fixture
def library(root: Path) -> Library:
    return another(root)


def another(root: Path) -> Library:
    """Return the library of another worker, or of the same worker after a restart."""
    return Library(registered=RegisteredAlgorithms(root))


def register(library: Library, name: str, source: str) -> AlgorithmInfo:
    return library.register(RegisterAlgorithm(name=name, source=source), 1_790_000_000_000)


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two registrations."""
    root = tmp_path_factory.mktemp("registered")
    for name, source in (("mine", MINE), ("other", OTHER)):
        register(another(root), name, source)
    return root


@settings(max_examples=150, deadline=None)
@given(at=st.integers(0, 1 << 20), byte=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_registration_is_a_problem_of_its_own_and_can_be_sent(
    registered: Path, at: int, byte: int, cut: bool
) -> None:
    record = registered / "mine.json"
    good = record.read_bytes()
    damaged = bytearray(good)
    damaged[at % len(good)] = byte
    try:
        record.write_bytes(good[: at % len(good)] if cut else bytes(damaged))
        survey = another(registered).survey()
    finally:
        record.write_bytes(good)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(survey), type=AlgorithmList) == survey
    assert "other" in {one.name for one in survey.algorithms}
    named = {one.name for one in survey.problems}
    assert ("mine" in named) != ("mine" in {one.name for one in survey.algorithms})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("mine.json", RECORD.replace(b'""', b'"\\ud800"')),
        ("mine.json", RECORD.replace(b"%s", b"1")),
        ("mine.json", RECORD.replace(b"mine", b"else")),
        ("mine.json", b"\xff" * (2 << 20)),
        ("no name.json", b"{}"),
        ("x" * 200 + ".json", b"{}"),
    ],
)
def test_every_odd_file_among_the_registrations_is_named(
    name: str, content: bytes, library: Library, root: Path
) -> None:
    root.mkdir()
    (root / name).write_bytes(content.replace(b"%s", b"0" * 16))
    (problem,) = library.survey().problems
    assert problem.file == str(root / name)
    assert all(one.origin == "built-in" for one in library.survey().algorithms)


def test_pipes_folders_and_links_among_the_registrations_are_not_waited_for(library: Library, root: Path) -> None:
    info = register(library, "mine", MINE)
    (root / "folder.json").mkdir()
    os.mkfifo(root / "pipe.json")
    (root / "link.json").symlink_to("nothing")
    assert {one.name for one in another(root).survey().problems} == {"folder", "pipe", "link"}
    source = root / f"{info.algorithm_id}.py"
    source.unlink()
    os.mkfifo(source)
    with pytest.raises(DataError, match="it is a pipe, not a regular file"):
        another(root).find("mine")


def test_registering_again_repairs_a_damaged_registration(library: Library, root: Path) -> None:
    info = register(library, "mine", MINE)
    for damaged in ("mine.json", f"{info.algorithm_id}.json", f"{info.algorithm_id}.py"):
        (root / damaged).write_bytes(b"{")
        assert register(another(root), "mine", MINE).algorithm_id == info.algorithm_id
        assert another(root).find("mine").description == "Long on a bar that rises."
        assert another(root).survey().problems == []


def test_what_cannot_be_sent_is_not_stored(library: Library, root: Path) -> None:
    big = MINE.replace("0.001", str(2**70)).replace("high=1.0", f"high={2**71}")
    assert big != MINE
    with pytest.raises(AlgorithmError, match="the algorithm 'mine' cannot be described"):
        register(library, "mine", big)
    assert not root.exists()


def test_a_source_is_examined_elsewhere_and_guarded_when_it_is_loaded(root: Path) -> None:
    loaded: list[str] = []

    def elsewhere(name: str, source: Source, parts: Sequence[SeriesPart], /) -> AlgorithmInfo:
        raise AlgorithmError(f"{source.file}: its process was ended")

    @contextlib.contextmanager
    def guard(source: Source) -> Iterator[None]:
        loaded.append(source.module)
        yield

    with pytest.raises(AlgorithmError, match=r"mine\.py: its process was ended"):
        register(Library(registered=RegisteredAlgorithms(root), examine_apart=elsewhere), "mine", MINE)
    library = Library(registered=RegisteredAlgorithms(root), guard=guard)
    info = register(library, "mine", MINE)
    assert loaded == []
    library.find("mine")
    assert loaded == [info.algorithm_id]
