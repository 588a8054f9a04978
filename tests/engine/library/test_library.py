"""The library: registering algorithms, refusals, and the version that a name means."""

from __future__ import annotations

import json
import linecache
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from backtestr_engine.algorithms.algorithm import version_of
from backtestr_engine.data.atomic_files import replace_file
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.library import library as library_module
from backtestr_engine.library import registrations as registered_module
from backtestr_engine.library.library import Library
from backtestr_engine.library.registrations import RegisteredAlgorithms
from backtestr_engine.library.samples import LONG_BARS, SHORT_BARS
from backtestr_engine.library.source_files import load_source
from backtestr_engine.worker.time_limit import time_limit
from backtestr_protocol.errors import (
    AlgorithmError,
    DataError,
    DiskUnwritable,
    NotFound,
    StateConflict,
    TimedOut,
    ValidationError,
)
from backtestr_protocol.messages import AlgorithmInfo, RegisterAlgorithm

NOW = 1_790_000_000_000
HEAD = """import numpy as np
from backtestr_engine.authoring import Bars, Float, Int, Signals, algorithm

"""
MINE = (
    HEAD
    + '''
@algorithm("mine", share=Float(0.001, low=0.0, high=1.0))
def mine(bars, share):
    """Long on a bar that rises."""
    return Signals.of(entries=bars.close > bars.open * (1 + share))
'''
)
OTHER = MINE.replace("rises.", "rises at all.")
PEEKS = (
    HEAD
    + """
@algorithm("peeks")
def peeks(bars):
    return Signals.of(entries=np.append(bars.close[1:] > bars.close[:-1], False))
"""
)
FAILS = (
    HEAD
    + """
@algorithm("fails")
def fails(bars):
    return bars.no_such_column
"""
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "algorithms-registered"


@pytest.fixture
def library(root: Path) -> Library:
    return Library(registered=RegisteredAlgorithms(root))


def another(root: Path) -> Library:
    """Return the library of another worker, or of the same worker after a restart."""
    return Library(registered=RegisteredAlgorithms(root))


def register(library: Library, name: str, source: str, wall_ms: int = NOW) -> AlgorithmInfo:
    return library.register(RegisterAlgorithm(name=name, source=source), wall_ms)


def listed(library: Library) -> dict[str, str]:
    """Return the id that each registered name means."""
    return {one.name: one.algorithm_id for one in library.infos() if one.origin == "registered"}


# --- registering ---


def test_a_registered_algorithm_is_described_checked_and_can_run(library: Library) -> None:
    info = register(library, "mine", MINE)

    assert info.algorithm_id == f"mine@{version_of(MINE)}"
    assert info.description == "Long on a bar that rises."
    assert [(one.name, one.default) for one in info.parameters] == [("share", 0.001)]
    assert (info.origin, info.registered_time) == ("registered", NOW)
    assert info.look_ahead is not None
    assert (info.look_ahead.passed, info.look_ahead.bars) == (True, LONG_BARS + 2 * SHORT_BARS)
    assert info.look_ahead.cuts > 10
    found = library.find("mine")
    assert found is library.find(info.algorithm_id)
    assert len(found.signals(synthetic_bars("1h", 50), found.check({}))) == 50


def test_another_worker_finds_a_registration_on_disk(library: Library, root: Path) -> None:
    elsewhere = another(root)
    with pytest.raises(NotFound):
        elsewhere.find("mine")
    info = register(library, "mine", MINE)

    assert elsewhere.find("mine").algorithm_id == elsewhere.find(info.algorithm_id).algorithm_id == info.algorithm_id
    assert elsewhere.info("mine") == info
    assert listed(another(root)) == {"mine": info.algorithm_id}


def test_no_registered_source_runs_when_a_worker_starts(library: Library, root: Path) -> None:
    info = register(library, "mine", MINE)
    library.find("mine")
    (root / f"{info.algorithm_id}.py").write_text("raise SystemExit")

    assert another(root).info("mine") == info


def test_line_ends_and_letters_are_kept_as_they_are(library: Library, root: Path) -> None:
    source = MINE.replace("\n", "\r\n").replace("rises.", "rises ☃.")
    info = register(library, "mine", source)

    assert (root / f"{info.algorithm_id}.py").read_bytes() == source.encode()
    assert another(root).find("mine").description == "Long on a bar that rises ☃."


# --- versions ---


def test_the_same_source_again_changes_nothing(library: Library, root: Path) -> None:
    first = register(library, "mine", MINE)
    before = {path: path.stat().st_mtime_ns for path in root.iterdir()}

    assert register(another(root), "mine", MINE, NOW + 1_000) == first
    assert {path: path.stat().st_mtime_ns for path in root.iterdir()} == before


def test_the_name_means_the_newest_source_and_the_old_id_still_works(library: Library, root: Path) -> None:
    elsewhere = another(root)
    old = register(library, "mine", MINE)
    assert elsewhere.find("mine").algorithm_id == old.algorithm_id
    new = register(library, "mine", OTHER)

    for one in (library, elsewhere, another(root)):
        assert one.find("mine").description == "Long on a bar that rises at all."
        assert one.find(new.algorithm_id).algorithm_id == new.algorithm_id
        assert one.find(old.algorithm_id).description == "Long on a bar that rises."
        assert one.info(old.algorithm_id) == old
        assert listed(one) == {"mine": new.algorithm_id}


def test_an_earlier_source_can_become_the_newest_again(library: Library, root: Path) -> None:
    old = register(library, "mine", MINE)
    register(library, "mine", OTHER)
    again = register(library, "mine", MINE)

    assert again.algorithm_id == old.algorithm_id
    assert again.look_ahead == old.look_ahead
    assert listed(another(root)) == {"mine": old.algorithm_id}


@pytest.mark.parametrize("later", [NOW - 10_000, NOW, NOW + 10_000])
def test_the_newest_version_has_the_latest_time_even_if_the_clock_goes_back(library: Library, later: int) -> None:
    first, second = register(library, "mine", MINE), register(library, "mine", OTHER, later)

    assert first.registered_time is not None
    assert second.registered_time is not None
    assert second.registered_time > first.registered_time


# --- verdicts ---


def test_an_algorithm_that_looks_ahead_is_kept_with_its_finding(library: Library, root: Path) -> None:
    info = register(library, "peeks", PEEKS)

    assert info.look_ahead is not None
    assert not info.look_ahead.passed
    assert info.look_ahead.finding is not None
    assert "become known" in info.look_ahead.finding.explanation
    assert another(root).info("peeks") == info


def test_a_portfolio_is_checked_on_a_panel(library: Library) -> None:
    source = (
        "from backtestr_engine.authoring import portfolio\n\n"
        '@portfolio("even")\ndef even(panel):\n    return panel.close * 0 + 1 / len(panel.symbols)\n'
    )
    info = register(library, "even", source)

    assert info.across
    assert info.look_ahead is not None
    assert info.look_ahead.passed


def test_an_algorithm_that_fails_on_the_sample_is_kept_with_its_traceback(library: Library, root: Path) -> None:
    info = register(library, "fails", FAILS)

    assert info.look_ahead is not None
    assert (info.look_ahead.passed, info.look_ahead.cuts, info.look_ahead.finding) == (False, 0, None)
    assert info.look_ahead.problem is not None
    assert 'File "fails.py", line 7, in fails' in info.look_ahead.problem
    assert "return bars.no_such_column" in info.look_ahead.problem
    assert another(root).find("fails").name == "fails"


def test_defaults_that_contradict_each_other_are_a_problem_of_the_sample(library: Library) -> None:
    source = HEAD + (
        '@algorithm("odd", requires=["fast < slow"], fast=Int(9, low=1, high=9), slow=Int(2, low=1, high=9))\n'
        "def odd(bars, fast, slow):\n    return Signals.of(entries=bars.close > fast)\n"
    )
    info = register(library, "odd", source)

    assert info.look_ahead is not None
    assert info.look_ahead.problem == "odd requires fast < slow; fast is 9 and slow is 2"


# --- refusals: each leaves no file ---


@pytest.mark.parametrize(
    ("name", "source", "error", "message"),
    [
        ("mine", "x = 1\ndef (\n", AlgorithmError, r"^mine\.py:2: SyntaxError: invalid syntax"),
        ("mine", "def f():\n    return 1 / 0\n\nf()\n", AlgorithmError, r"^mine\.py:2: ZeroDivisionError"),
        ("mine", "raise SystemExit(3)\n", AlgorithmError, r"^mine\.py:1: SystemExit: 3"),
        ("mine", "x = '\0'", AlgorithmError, "null bytes"),
        ("mine", "x = 1\n", ValidationError, r"defines no algorithm; put @algorithm\('mine', …\) above"),
        ("yours", MINE, ValidationError, "defines no algorithm 'yours', but 'mine'$"),
        ("mine", MINE + MINE[len(HEAD) :].replace("def mine", "def two"), ValidationError, "defines 'mine' 2 times"),
        ("sma_cross", MINE.replace('"mine"', '"sma_cross"'), StateConflict, "'sma_cross' is built in; register yours"),
        ("own", MINE.replace('"mine"', '"own"'), StateConflict, "is in the folder of own algorithms"),
    ],
)
def test_a_refused_source_leaves_no_registration(
    root: Path, name: str, source: str, error: type[Exception], message: str
) -> None:
    (own,) = load_source(MINE.replace('"mine"', '"own"'), "own.py", "own")
    library = Library({"own": own}, RegisteredAlgorithms(root))

    with pytest.raises(error, match=message):
        register(library, name, source)
    assert not root.exists()
    assert listed(library) == {}
    assert "mine.py" not in linecache.cache
    assert not [one for one in sys.modules if "examined" in one]


def test_a_syntax_error_has_file_line_and_traceback(library: Library) -> None:
    with pytest.raises(AlgorithmError) as caught:
        register(library, "mine", "def fail():\n    raise ValueError('why not')\n\nfail()\n")

    assert caught.value.details is not None
    assert (caught.value.details["file"], caught.value.details["line"]) == ("mine.py", 2)
    assert 'File "mine.py", line 2, in fail\n    raise ValueError(' in caught.value.details["traceback"]


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("while True:\n    pass\n", r"^loading mine\.py took longer"),
        (
            FAILS.replace("fails", "mine").replace("return bars.no_such_column", "while True: pass"),
            "^the look-ahead check of mine took longer",
        ),
    ],
)
def test_a_source_that_does_not_end_is_refused(root: Path, source: str, what: str) -> None:
    library = Library(registered=RegisteredAlgorithms(root), limit=time_limit(2.0, patience=60.0))

    with pytest.raises(TimedOut, match=what) as caught:
        register(library, "mine", source)
    assert caught.value.details is not None
    assert 'File "mine.py", line' in caught.value.details["traceback"]
    assert not root.exists()


def test_the_number_of_names_is_bounded(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registered_module, "MAX_NAMES", 1)
    register(library, "mine", MINE)
    register(library, "mine", OTHER)
    with pytest.raises(StateConflict, match="1 algorithms are registered, the most there can be"):
        register(library, "peeks", PEEKS)


def test_names_differ_in_more_than_case(library: Library, root: Path) -> None:
    register(library, "mine", MINE)
    with pytest.raises(StateConflict, match="there is 'mine' already"):
        register(library, "Mine", MINE.replace('"mine"', '"Mine"'))
    assert list(listed(another(root))) == ["mine"]


# --- finding ---


def test_an_unknown_algorithm_names_the_near_miss(library: Library) -> None:
    register(library, "mine", MINE)

    with pytest.raises(NotFound, match="did you mean 'mine'"):
        library.find("mime")
    with pytest.raises(NotFound, match="did you mean 'sma_cross'"):
        library.find("sma_cros")
    for name in ("mine@0123456789abcdef", "../mine", "mine@../mine", "", "@", "mine@", "x" * 10_000):
        with pytest.raises(NotFound):
            library.find(name)
    with pytest.raises(NotFound, match=r"sma_cross is sma_cross@\w+ here; if its file was changed"):
        library.find("sma_cross@0123456789abcdef")


def test_an_algorithm_of_the_folder_hides_a_registered_one_of_its_name(library: Library, root: Path) -> None:
    registered = register(library, "mine", MINE)
    (own,) = load_source(OTHER, "own.py", "own")
    later = Library({"mine": own}, RegisteredAlgorithms(root))

    assert later.find("mine") is own
    assert later.find(registered.algorithm_id).version == registered.version
    assert [(one.algorithm_id, one.origin) for one in later.infos() if one.name == "mine"] == [
        (own.algorithm_id, "folder")
    ]
    assert later.info("sma_cross").origin == "built-in"


def test_a_traceback_shows_the_version_that_ran(library: Library, root: Path) -> None:
    """Two versions of one name differ in the text of the line that fails."""
    other = FAILS.replace("return bars.no_such_column", "return bars.nor_this_one")
    ids = [register(library, "fails", source).algorithm_id for source in (FAILS, other)]
    worker = another(root)
    both = [worker.find(one) for one in ids]

    for found, line in zip(both, ("return bars.no_such_column", "return bars.nor_this_one"), strict=True):
        with pytest.raises(AlgorithmError) as caught:
            found.signals(synthetic_bars("1h", 10), {})
        assert caught.value.details is not None
        assert (
            f'File "{root / found.algorithm_id}.py", line 7, in fails\n    {line}' in caught.value.details["traceback"]
        )


def test_the_number_of_loaded_algorithms_is_bounded(
    library: Library, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library_module, "MAX_LOADED", 2)
    ids = [register(library, "mine", f"{MINE}# {number}\n").algorithm_id for number in range(4)]
    first, *_ = [library.find(one) for one in ids]

    kept = [one for one in ids if f"backtestr_algorithms.{one}" in sys.modules]
    assert kept == ids[2:]
    assert [one for one in ids if str(root / f"{one}.py") in linecache.cache] == ids[2:]
    assert len(first.signals(synthetic_bars("1h", 10), first.check({}))) == 10
    assert library.find(ids[0]).algorithm_id == ids[0]


# --- damaged files ---


@pytest.mark.parametrize("survivors", [0, 1, 2])
def test_an_interrupted_registration_can_be_completed(
    library: Library, root: Path, survivors: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each of the three files, the name means what it meant before, and registering again completes it."""
    old = register(library, "mine", MINE)
    writes = iter(range(3))

    @contextmanager
    def failing(path: Path) -> Iterator[BinaryIO]:
        with replace_file(path) as file:
            yield file
            if next(writes) == survivors:
                raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(registered_module, "replace_file", failing)
        with pytest.raises(DiskUnwritable, match="No space left"):
            register(library, "mine", OTHER)

    after = another(root)
    assert listed(after) == {"mine": old.algorithm_id}
    assert after.find("mine").description == "Long on a bar that rises."
    assert not list(root.glob(".*"))
    new = register(after, "mine", OTHER)
    assert another(root).find("mine").algorithm_id == new.algorithm_id != old.algorithm_id


def test_a_source_that_was_changed_on_disk_does_not_run(library: Library, root: Path) -> None:
    info = register(library, "mine", MINE)
    (root / f"{info.algorithm_id}.py").write_text(OTHER)

    with pytest.raises(DataError, match="was changed after it was registered"):
        another(root).find("mine")
    assert register(another(root), "mine", MINE).algorithm_id == info.algorithm_id
    assert another(root).find("mine").description == "Long on a bar that rises."


def test_an_unreadable_registration_does_not_affect_the_others(library: Library, root: Path) -> None:
    register(library, "mine", MINE)
    kept = register(library, "peeks", PEEKS)
    (root / "mine.json").write_text("{")

    assert listed(another(root)) == {"peeks": kept.algorithm_id}
    (problem,) = another(root).survey().problems
    assert (problem.name, problem.file) == ("mine", str(root / "mine.json"))
    assert "mine.json cannot be read" in problem.message
    with pytest.raises(DataError, match=r"mine\.json cannot be read.*register the algorithm again"):
        another(root).find("mine")


@pytest.mark.parametrize("kind", ["json", "py"])
def test_a_registration_that_another_user_could_have_written_does_not_run(
    library: Library, root: Path, kind: str
) -> None:
    info = register(library, "mine", MINE)
    path = root / ("mine.json" if kind == "json" else f"{info.algorithm_id}.py")
    path.chmod(0o666)
    with pytest.raises(DataError, match=f"{path} cannot be read: others may write to .*chmod go-w"):
        another(root).find("mine")
    path.chmod(0o600)
    assert another(root).find("mine").algorithm_id == info.algorithm_id


def test_the_file_holds_the_answer(library: Library, root: Path) -> None:
    info = register(library, "mine", MINE)
    record = json.loads((root / "mine.json").read_text())

    assert record["algorithmId"] == info.algorithm_id
    assert record["lookAhead"]["passed"] is True
    assert record["registeredTime"] == NOW
