"""Sources that end their process, and files that end their readers, cost a child process and nothing else."""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Callable
from pathlib import Path

import polars as pl
import psutil
import pytest

from backtestr_engine.algorithms.algorithm import version_of
from backtestr_engine.data.synthetic import synthetic_bars
from backtestr_engine.library.source_files import Source
from backtestr_engine.worker import child_tasks as module
from backtestr_engine.worker.child_process import Child, ChildLost
from backtestr_engine.worker.child_tasks import ChildTasks
from backtestr_protocol.errors import AlgorithmError, BacktestrError, DataError, ValidationError
from support.engine.reading import read_bars
from support.harness import WITHOUT_EXTRAS

HEAD = "from backtestr_engine.authoring import Float, Int, Signals, algorithm\n"
GOOD = HEAD + (
    '@algorithm("mine", patience=Int(2, low=1, high=9))\ndef mine(bars, patience):\n'
    '    """Always long."""\n    return Signals.of(entries=bars.close > 0)\n'
)
SECONDS = 2.0

# What a source does when it is loaded, and what its problem says.
HOSTILE = {
    "KeyboardInterrupt": ("raise KeyboardInterrupt", "hostile.py:1: KeyboardInterrupt"),
    "own BaseException": (
        "class Mine(BaseException):\n    def __str__(self): raise self\nraise Mine",
        "hostile.py:3: Mine: its text could not be made",
    ),
    "sys.exit": ("import sys; sys.exit(3)", "hostile.py:1: SystemExit: 3"),
    "os._exit": ("import os; os._exit(3)", "it ended its process with exit code 3"),
    "a crash": ("import ctypes; ctypes.string_at(0)", "its process was ended by SIGSEGV"),
    "killed": ("import os; os.kill(os.getpid(), 9)", "its process was ended by SIGKILL"),
    "a loop": ("while True: pass", "took longer than 2 s; look for an endless loop"),
    "sleep": ("import time; time.sleep(3600)", "took longer than 2 s; look for an endless loop"),
    "a held lock": ("import re; re.match('(a+)+b', 'a' * 64)", "it did not come back within 5 s"),
    "memory": ("kept = []\nwhile True: kept.append(bytearray(1 << 28))", "hostile.py:2: MemoryError"),
    "recursion": ("def f(): f()\nf()", "hostile.py:1: RecursionError"),
    "nesting": ("x = " + "(" * 5_000 + ")" * 5_000, "hostile.py"),
    "prints": ("for _ in range(100_000): print('x' * 1000)", "it printed more than 1 MiB"),
    "threads": (
        "import threading, time\nfor _ in range(9): threading.Thread(target=time.sleep, args=(9,)).start()",
        "must not do that when it is loaded: 9 threads were left running",
    ),
    "a fork": ("import os, time\nif not os.fork(): time.sleep(60)", "1 processes were left running"),
    "a fork that comes back": ("import os; os.fork()", "hostile.py"),
    "closed descriptors": ("import os; os.closerange(0, 256)", "it ended its process"),
    "a timer": ("import signal; signal.alarm(5)", "the timer ITIMER_REAL was set"),
    "a patch": ("import numpy; numpy.isnan = numpy.isinf", "numpy.isnan was replaced"),
    "NUL": ("x = 1\0", "null bytes"),
    "nothing": ("", "defines no algorithm"),
    "a number of 71 bits": (
        HEAD + '@algorithm("big", n=Int(2**70, low=0, high=2**71))\ndef big(bars, n):\n    return None\n',
        "the algorithm 'big' cannot be described",
    ),
    "no number": (
        HEAD + '@algorithm("odd", n=Float(0.5, low=0.0, high=float("nan")))\ndef odd(bars, n):\n    return None\n',
        "hostile.py",
    ),
    "a long name": (
        HEAD + '@algorithm("x" * 100_000)\ndef mine(bars):\n    return None\n',
        "the name of an algorithm is 1 to 64 printable characters",
    ),
    "NUL in a name": (
        HEAD + '@algorithm("a\\0b")\ndef mine(bars):\n    return None\n',
        "the name of an algorithm is 1 to 64 printable characters",
    ),
}


@pytest.fixture(autouse=True)
def without_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have children start as they do where pandas is not installed, in two thirds of the time."""
    monkeypatch.setenv("PYTHONPATH", str(WITHOUT_EXTRAS))


@pytest.fixture(scope="module")
def tasks() -> ChildTasks:
    return ChildTasks(SECONDS, 1 << 30)


def source(text: str, file: str = "hostile.py") -> Source:
    return Source(text, file, file.removesuffix(".py"))


@pytest.mark.timeout(300)
def test_every_hostile_source_is_named_and_the_others_pass(tasks: ChildTasks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INSPECTION_SECONDS", 250.0)
    # A description of any length is cut, and a lone surrogate in it is written as an escape: neither does any harm.
    odd = HEAD + '@algorithm("mine")\ndef mine(bars):\n    "\\ud800' + "x" * 100_000 + '"\n'
    sources = [source(GOOD, "first.py"), *(source(text) for text, _ in HOSTILE.values()), source(odd, "last.py")]
    first, *problems, last = tasks.inspect(sources)

    assert (first, last) == (None, None)
    for (what, (_, reason)), problem in zip(HOSTILE.items(), problems, strict=True):
        assert problem is not None, what
        assert "hostile.py" in problem, f"{what}: {problem}"
        assert reason in problem, f"{what}: {problem}"
    assert psutil.Process().children(recursive=True) == []


def test_only_so_much_time_is_spent_on_all_of_them(tasks: ChildTasks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INSPECTION_SECONDS", 0.0)
    (problem,) = tasks.inspect([source(GOOD, "mine.py")])
    assert problem is not None
    assert problem.startswith("mine.py: was not checked: the files before it took 0 s")


def test_a_source_is_examined_in_another_process(tasks: ChildTasks) -> None:
    info = tasks.examine("mine", source(GOOD, "mine.py"))
    assert info.algorithm_id == f"mine@{version_of(GOOD)}"
    assert info.look_ahead is not None
    assert info.look_ahead.passed


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("import os; os._exit(1)", AlgorithmError, r"^mine\.py: it cannot be loaded: it ended its process with exit"),
        (GOOD.replace('"mine"', '"yours"'), ValidationError, "the source defines no algorithm 'mine', but 'yours'"),
        (
            GOOD + "import threading, time; threading.Thread(target=time.sleep, args=(9,)).start()",
            AlgorithmError,
            "1 thr",
        ),
        (
            GOOD.replace("return", "import os; os.abort()\n    return"),
            AlgorithmError,
            "its process was ended by SIGABRT",
        ),
    ],
)
def test_a_refused_source_has_its_reason(
    tasks: ChildTasks, text: str, kind: type[BacktestrError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        tasks.examine("mine", source(text, "mine.py"))


def test_a_machine_without_room_for_a_process_refuses_the_work(
    tasks: ChildTasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("subprocess.Popen", full)
    with pytest.raises(AlgorithmError, match="no process could be started for it: Resource temporarily unavailable"):
        tasks.examine("mine", source(GOOD, "mine.py"))
    assert tasks.inspect([source(GOOD, "a.py")]) == [
        "a.py: could not be checked: no process could be started for it: Resource temporarily unavailable"
    ]


# --- files of market data ---

BARS = synthetic_bars("1m", 2_000, symbol="BTC")


def parquet(**options: object) -> bytes:
    content = io.BytesIO()
    BARS.to_frame().write_parquet(content, **options)  # type: ignore[arg-type]
    return content.getvalue()


def arrow(*, stream: bool) -> bytes:
    content = io.BytesIO()
    frame = BARS.to_frame()
    frame.write_ipc_stream(content) if stream else frame.write_ipc(content)
    return content.getvalue()


FILES: dict[str, Callable[[], bytes]] = {
    "parquet": lambda: parquet(row_group_size=100, compression="zstd"),
    "arrow": lambda: arrow(stream=False),
    "arrow stream": lambda: arrow(stream=True),
}


@pytest.mark.parametrize("kind", ["parquet", "arrow stream"])
def test_a_good_file_has_the_same_bars_as_without_another_process(kind: str, tasks: ChildTasks, tmp_path: Path) -> None:
    path = tmp_path / "bars"
    path.write_bytes(FILES[kind]())
    apart, here = read_bars(path, "X", "1m", read=tasks.read_file), read_bars(path, "X")
    assert apart.bars.to_frame().equals(here.bars.to_frame())
    assert (apart.bars.symbol, apart.bars.timeframe) == (here.bars.symbol, here.bars.timeframe)
    assert (apart.format, apart.warnings, apart.dropped) == (here.format, here.warnings, here.dropped)


def test_text_and_refusals_are_as_without_another_process(tasks: ChildTasks, tmp_path: Path) -> None:
    BARS.to_frame().write_csv(tmp_path / "bars.csv")
    assert len(read_bars(tmp_path / "bars.csv", "X", read=tasks.read_file).bars) == 2_000
    for name in ("absent.csv", "a\0b"):
        with pytest.raises((DataError, ValueError)):
            read_bars(tmp_path / name, "X", read=tasks.read_file)
    bad = BARS.to_frame().with_columns(high=pl.lit(-1.0))
    bad.write_parquet(tmp_path / "bad.parquet")
    with pytest.raises(DataError) as apart:
        read_bars(tmp_path / "bad.parquet", "X", read=tasks.read_file)
    with pytest.raises(DataError) as here:
        read_bars(tmp_path / "bad.parquet", "X")
    assert (apart.value.message, apart.value.details) == (here.value.message, here.value.details)
    assert apart.value.recovery_actions == here.value.recovery_actions


def with_footer_length(content: bytes, length: int) -> bytes:
    return content[:-8] + struct.pack("<I", length & 0xFFFFFFFF) + content[-4:]


def damaged(content: bytes) -> list[bytes]:
    """Return damaged copies: cut, with wrong lengths, zeroed, and with flipped bytes in the metadata."""
    chance = random.Random(7)
    flipped = bytearray(content)
    for begin in (0, len(content) - 1_500):
        for _ in range(9):
            flipped[begin + 8 + chance.randrange(1_400)] ^= 1 << chance.randrange(8)
    zeroed = content[:8] + bytes(len(content) - 16) + content[-8:]
    return [content[: len(content) // 2] + content[-4:], with_footer_length(content, 2**31), zeroed, bytes(flipped)]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_a_damaged_file_is_refused_or_read_and_never_ends_this_process(
    kind: str, tasks: ChildTasks, tmp_path: Path
) -> None:
    """Read some damaged files; `benchmarks/chaos/tables.py` reads thousands."""
    refused = 0
    path = tmp_path / "bars"
    for content in damaged(FILES[kind]()):
        path.write_bytes(content)
        try:
            assert len(read_bars(path, "X", "1m", read=tasks.read_file).bars) <= 2_000
        except DataError:
            refused += 1
    assert refused >= 2


def test_a_file_that_needs_more_memory_than_there_is_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.parquet"
    rows = 30_000_000
    pl.DataFrame({"timestamp": pl.repeat(0, rows, eager=True, dtype=pl.Int64)}).with_columns(
        **{name: pl.lit(1.0) for name in ("open", "high", "low", "close")}
    ).write_parquet(path, compression="zstd", row_group_size=rows)
    assert path.stat().st_size < 1 << 20
    with pytest.raises(DataError, match=r"bomb\.parquet cannot be read"):
        read_bars(path, "X", "1m", read=ChildTasks(SECONDS, 300 << 20).read_file)


def test_a_reader_that_ends_is_an_unusable_file(
    tasks: ChildTasks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bars.parquet"
    path.write_bytes(parquet())

    def lost(*_: object) -> bytes:
        raise ChildLost("its process was ended by SIGABRT")

    monkeypatch.setattr(Child, "frame", lost)
    with pytest.raises(BacktestrError, match="could not be started: its process was ended by SIGABRT"):
        read_bars(path, "X", read=tasks.read_file)
