"""A worker starts whatever lies in the folder of algorithms, and loads known files without another process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from backtestr_engine.config import load_config
from backtestr_engine.library.source_files import Source, unlimited
from backtestr_engine.worker.child_tasks import ChildTasks
from backtestr_engine.worker.start_up import SAFE_AFTER, Equipment, equip
from backtestr_protocol.secret import Secret
from backtestr_protocol.worker_channel import WorkerSettings
from support.harness import WITHOUT_EXTRAS

SETTINGS = WorkerSettings(worker_id="compute-1", kind="compute", endpoint="ipc:///engine", key=Secret(bytes(32)))
GOOD = (
    "from backtestr_engine.authoring import Signals, algorithm\n\n\n"
    '@algorithm("mine")\ndef mine(bars):\n    """Always long."""\n    return Signals.of(entries=bars.close > 0)\n'
)


@pytest.fixture(autouse=True)
def without_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have children start as they do where pandas is not installed, in two thirds of the time."""
    monkeypatch.setenv("PYTHONPATH", str(WITHOUT_EXTRAS))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (folder := tmp_path / "algorithms").mkdir()
    return folder


def equipped(data_dir: Path, settings: WorkerSettings = SETTINGS) -> Equipment:
    return equip(settings, load_config(None), data_dir, unlimited, lambda: None)


def own(equipment: Equipment) -> list[str]:
    return [one.name for one in equipment.algorithms if one.origin == "folder"]


@pytest.fixture
def inspected(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Return the names of the files that were given to child processes, call by call."""
    calls: list[list[str]] = []
    inspect = ChildTasks.inspect

    def counted(self: ChildTasks, sources: Sequence[Source]) -> list[str | None]:
        calls.append([Path(source.file).name for source in sources])
        return inspect(self, sources)

    monkeypatch.setattr(ChildTasks, "inspect", counted)
    return calls


def test_files_are_inspected_once_and_the_bad_ones_once_for_each_broker(
    tmp_path: Path, folder: Path, inspected: list[list[str]]
) -> None:
    (folder / "good.py").write_text(GOOD)
    (folder / "deadly.py").write_text("import os\nos._exit(0)\n")
    for worker in ("compute-1", "compute-2", "interactive-1"):
        equipment = equipped(tmp_path, msgspec.structs.replace(SETTINGS, worker_id=worker))
        assert own(equipment) == ["mine"]
        (problem,) = equipment.problems
        assert problem.file == str(folder / "deadly.py")
        assert "it ended its process with exit code 0" in problem.message
    assert inspected == [["deadly.py", "good.py"]]

    equipped(tmp_path, msgspec.structs.replace(SETTINGS, endpoint="ipc:///of-a-later-broker"))
    assert inspected[1:] == [["deadly.py"]]


def test_an_empty_folder_and_known_files_cost_no_process(
    tmp_path: Path, folder: Path, inspected: list[list[str]]
) -> None:
    assert equipped(tmp_path).problems == []
    assert inspected == []


def test_whatever_lies_in_the_folder_is_named(tmp_path: Path, folder: Path) -> None:
    os.mkfifo(folder / "pipe.py")
    (folder / "folder.py").mkdir()
    (folder / "dangling.py").symlink_to("nothing")
    (folder / "empty.py").touch()
    (folder / "mark.py").write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    (folder / "odd.py").write_bytes(b"\xff\xfe")
    (folder / "huge.py").write_bytes(b"#" * (5 << 20))
    with open(os.fsencode(folder) + b"/\xff\n.py", "w") as file:
        file.write("x = ")
    equipment = equipped(tmp_path)

    assert own(equipment) == ["mine"], "a byte order mark is left out, as Python does"
    reasons = {Path(one.file).name: one.message for one in equipment.problems}
    for name, reason in {
        "pipe.py": "it is a pipe, not a regular file",
        "folder.py": "it is a folder, not a regular file",
        "dangling.py": "it is a link to nothing",
        "empty.py": "defines no algorithm",
        "odd.py": "it is not UTF-8",
        "huge.py": "it has 5,242,880 bytes, and may have 4,194,304",
        "\\udcff\n.py": "SyntaxError",
    }.items():
        assert reason.lower() in reasons.pop(name).lower()
    assert not reasons
    msgspec.msgpack.encode(equipment.problems)


def test_after_several_early_exits_no_file_is_loaded(tmp_path: Path, folder: Path, inspected: list[list[str]]) -> None:
    settings = msgspec.structs.replace(SETTINGS, early_exits=SAFE_AFTER)
    assert equipped(tmp_path, settings).problems == []
    (folder / "good.py").write_text(GOOD)
    equipment = equipped(tmp_path, settings)
    assert own(equipment) == []
    (problem,) = equipment.problems
    assert (
        "its files are not loaded: a worker that had loaded them ended soon after its start, 3 times" in problem.message
    )
    assert inspected == []
