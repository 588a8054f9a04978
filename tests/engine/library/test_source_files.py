"""Algorithms from files: loading, versions, and the problems of bad files."""

from __future__ import annotations

from pathlib import Path

import pytest

from backtestr_engine.built_in import BUILT_IN
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.library.source_files import load_file, load_folder
from backtestr_engine.worker.time_limit import time_limit
from backtestr_protocol.errors import AlgorithmError

GOOD = '''"""One that buys."""

from backtestr_engine.authoring import algorithm
from backtestr_engine.built_in.sma_cross import sma_cross
from backtestr_engine.authoring import Float
from backtestr_engine.authoring import Signals


@algorithm("rises", share=Float(0.01, low=0.0, high=1.0))
def rises(bars, share):
    """Long on a bar that rises by `share`."""
    return Signals.of(entries=bars.close > bars.open * (1 + share))


@algorithm("divides")
def divides(bars):
    return 1 / 0
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_file_has_only_the_algorithms_that_it_defines(folder: Path) -> None:
    rises, divides = load_file(written(folder, "mine.py", GOOD))

    assert (rises.name, divides.name) == ("rises", "divides")
    assert rises.description == "Long on a bar that rises by `share`."
    assert len(rises.signals(synthetic_bars("1h", 100), rises.check({"share": 0.001}))) == 100


def test_the_version_changes_with_the_content(folder: Path) -> None:
    path = written(folder, "mine.py", GOOD)
    first, again = load_file(path)[0], load_file(path)[0]
    elsewhere = load_file(written(folder, "renamed.py", GOOD))[0]
    edited = load_file(written(folder, "mine.py", GOOD + "\n# a thought\n"))[0]

    assert first.version == again.version == elsewhere.version
    assert edited.version != first.version


def test_a_traceback_shows_the_text_that_ran_even_when_the_file_has_changed(folder: Path) -> None:
    path = written(folder, "mine.py", GOOD)
    divides = load_file(path)[1]
    path.write_text("# nothing is left\n")

    with pytest.raises(AlgorithmError, match="divides raised ZeroDivisionError") as caught:
        divides.signals(synthetic_bars("1h", 10), {})
    assert caught.value.details is not None
    traceback = caught.value.details["traceback"]
    assert f'File "{path}", line 17, in divides' in traceback
    assert "return 1 / 0" in traceback


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("x = 1\ndef broken(:\n", 2, "SyntaxError: invalid syntax"),
        ("import no_such_module_anywhere\n", 1, "ModuleNotFoundError: No module named"),
        ("def fail():\n    raise ValueError('why not')\n\nfail()\n", 2, "ValueError: why not"),
        ("import sys\nsys.exit(3)\n", 2, "SystemExit: 3"),
        ("raise KeyboardInterrupt\n", 1, "KeyboardInterrupt"),
        ("x = 1\nraise GeneratorExit('no')\n", 2, "GeneratorExit: no"),
        ("class Own(BaseException):\n    pass\nraise Own('mine')\n", 3, "Own: mine"),
        ("raise ValueError('x' * 20_000_000)\n", 1, "… cut: 20,000,"),
        ("raise ValueError('\\ud800\\0')\n", 1, "ValueError: \\ud800\\x00"),
        (GOOD.replace("low=0.0", "low=0.5"), 9, "parameter 'share' of rises must be a number within 0.5..1.0"),
        (GOOD.replace("def rises(bars, share)", "def rises(bars)"), 9, "ValueError: rises takes"),
    ],
)
def test_an_error_names_file_and_line(folder: Path, text: str, line: int, message: str) -> None:
    path = written(folder, "bad.py", text)

    with pytest.raises(AlgorithmError) as caught:
        load_file(path)
    assert caught.value.message.startswith(f"{path}:{line}: ")
    assert message in caught.value.message
    assert caught.value.details is not None
    assert (caught.value.details["file"], caught.value.details["line"]) == (str(path), line)


def test_an_object_that_pretends_is_an_error_of_the_source(folder: Path) -> None:
    text = "class P:\n    @property\n    def __class__(self):\n        raise KeyboardInterrupt\np = P()\n"
    with pytest.raises(AlgorithmError, match=r"bad\.py:4: KeyboardInterrupt"):
        load_file(written(folder, "bad.py", text))


def test_a_missing_file_and_one_without_algorithms_are_errors(folder: Path) -> None:
    with pytest.raises(AlgorithmError, match=r"absent\.py: cannot be read: No such file"):
        load_file(folder / "absent.py")
    with pytest.raises(AlgorithmError, match=r"empty\.py: defines no algorithm; put @algorithm"):
        load_file(written(folder, "empty.py", "from backtestr_engine.built_in.sma_cross import sma_cross\n"))
    (folder / "binary.py").write_bytes(b"\xff\xfe")
    with pytest.raises(AlgorithmError, match="it is not UTF-8"):
        load_file(folder / "binary.py")


def test_a_bad_file_does_not_affect_the_others(folder: Path) -> None:
    written(folder, "a_bad.py", "def broken(:\n")
    written(folder, "b_good.py", GOOD)
    written(folder, "c_again.py", GOOD.replace('"divides"', '"macd"'))
    written(folder, "_helpers.py", "raise RuntimeError\n")
    written(folder, "notes.txt", "nothing")

    loaded = load_folder(folder, BUILT_IN)

    assert list(loaded.algorithms) == ["rises", "divides"]
    assert [problem.message.replace(str(folder), "") for problem in loaded.problems] == [
        "/a_bad.py:1: SyntaxError: invalid syntax",
        "/c_again.py: there is an algorithm named 'rises' already; this one is left out",
        "/c_again.py: there is an algorithm named 'macd' already; this one is left out",
    ]
    assert load_folder(folder / "absent", {}).algorithms == {}


def test_a_file_that_loops_is_a_problem_and_the_rest_is_loaded(folder: Path) -> None:
    looping = written(folder, "a_loops.py", "while True:\n    pass\n")
    written(folder, "b_good.py", GOOD)

    loaded = load_folder(folder, BUILT_IN, time_limit(1.0, patience=60.0))

    assert list(loaded.algorithms) == ["rises", "divides"]
    (problem,) = loaded.problems
    assert problem.file == str(looping)
    assert problem.message.startswith(f"loading {looping} took longer than 1 s; look for an endless loop")


def test_a_second_name_does_not_make_a_second_algorithm(folder: Path) -> None:
    assert len(load_file(written(folder, "mine.py", GOOD + "\nalias = rises\n"))) == 2


def test_a_file_that_others_may_write_is_one_problem_and_is_not_run(folder: Path) -> None:
    written(folder, "good.py", GOOD)
    path = written(folder, "open.py", "raise SystemExit('it was run')")
    path.chmod(0o666)
    loaded = load_folder(folder, {})
    assert set(loaded.algorithms) == {"rises", "divides"}
    [problem] = loaded.problems
    assert problem.file == str(path)
    assert f"chmod go-w '{path}'" in problem.message


def test_a_folder_to_which_others_may_write_has_no_algorithms(folder: Path) -> None:
    written(folder, "good.py", GOOD)
    folder.chmod(0o777)
    loaded = load_folder(folder, {})
    assert loaded.algorithms == {}
    [problem] = loaded.problems
    assert f"chmod -R go-w '{folder}'" in problem.message
    assert "algorithms.folder" in problem.message
    assert load_folder(folder / "missing", {}).problems == []
