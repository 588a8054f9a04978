"""Files are measured when they have changed, and removed as a whole, without following a link."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from backtestr_broker.core.events import FilesSurveyed, RemoveResults, ResultsRemoved, SurveyFiles
from backtestr_broker.core.retention import RetentionRules
from backtestr_broker.io import stored_files as stored_files_module
from backtestr_broker.io.stored_files import FileRules, StoredFiles
from backtestr_protocol.file_names import file_name
from support.harness import wait_until

DAY = 86_400
RULES = FileRules(recordings=RetentionRules(), damaged=RetentionRules())


def result(data_dir: Path, name: str, size: int = 100) -> Path:
    """Store a result of so many bytes, in two files."""
    folder = data_dir / "results" / name
    folder.mkdir(parents=True)
    (folder / "result.json").write_bytes(bytes(size - 10))
    (folder / "equity.arrow").write_bytes(bytes(10))
    return folder


def files_of(data_dir: Path, rules: FileRules = RULES) -> StoredFiles:
    data_dir.mkdir(exist_ok=True)
    return StoredFiles(data_dir, rules, lambda: None)


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """Return a folder beside the data directory that must stay as it is."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "precious").write_text("do not touch")
    yield folder
    assert (folder / "precious").read_text() == "do not touch"


def test_a_survey_names_what_is_new_changed_or_gone(tmp_path: Path) -> None:
    files = files_of(tmp_path)
    assert files.survey().changed == {}
    result(tmp_path, "a")
    result(tmp_path, "b", 50)
    first = files.survey()
    assert {name: size for name, (size, _) in first.changed.items()} == {"a": 100, "b": 50}
    assert first.usage is not None
    assert (first.usage.results, first.usage.results_bytes) == (2, 150)
    assert files.survey().changed == {}, "nothing has changed"
    shutil.rmtree(tmp_path / "results" / "a")
    shutil.rmtree(tmp_path / "results" / "b")
    result(tmp_path, "b", 70)
    second = files.survey()
    assert (second.gone, second.changed["b"][0]) == (["a"], 70)


def test_a_survey_does_not_measure_again_what_has_not_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = files_of(tmp_path)
    result(tmp_path, "a")
    files.survey()
    measured: list[Path] = []

    def size(folder: Path) -> int:
        measured.append(folder)
        return 0

    monkeypatch.setattr(stored_files_module, "_size", size)
    files.survey()
    assert tmp_path / "results" / "a" not in measured


def test_the_use_of_the_disk_is_told_apart(tmp_path: Path) -> None:
    for name, size in (
        ("broker.db", 1000),
        ("broker.db-wal", 10),
        ("broker.db.corrupt-20260101T000000.000Z", 500),
        ("broker.db.corrupt-20260101T000000.000Z-wal", 5),
        ("catalog/SYNTH/1m.parquet", 2000),
        ("tables/42-0a.arrow", 70),
        ("recordings/20260101T000000.000Z-0123abcd/000001.msgpack", 300),
        ("sweeps/s1/1-a.rows", 600),
        ("sweeps/s1/2-b.rows", 60),
        ("trials/1-a.log", 80),
        ("sweeps/%53%32/1-a.rows", 6),  # no name that a sweep has
        ("sweeps/notes.txt", 9),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes(size))
    survey = files_of(tmp_path).survey()
    usage = survey.usage
    assert usage is not None
    assert survey.sweeps == {"s1": 660}
    assert (usage.sweeps, usage.sweeps_bytes, usage.trials_bytes) == (1, 660, 80)
    assert (usage.database_bytes, usage.damaged_bytes) == (1010, 505)
    assert (usage.catalogue_bytes, usage.recordings_bytes, usage.results) == (2000, 300, 0)
    assert usage.tables_bytes == 70
    assert usage.free_bytes > 0


def test_a_survey_that_fails_says_why(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("not a folder")
    survey = files_of(tmp_path).survey()
    assert survey.problem is not None
    assert "results" in survey.problem


# --- removal ---


def test_results_are_removed_with_the_bytes_that_they_took(tmp_path: Path) -> None:
    result(tmp_path, "a")
    result(tmp_path, "b")
    removed = files_of(tmp_path).remove(3, ("a", "absent"))
    assert (removed.batch, removed.freed, removed.failed) == (3, {"a": 100, "absent": 0}, {})
    assert os.listdir(tmp_path / "results") == ["b"]


def test_without_a_results_folder_there_is_nothing_to_remove(tmp_path: Path) -> None:
    assert files_of(tmp_path).remove(1, ("a",)).freed == {"a": 0}


def test_a_link_in_place_of_a_result_is_removed_and_not_followed(tmp_path: Path, outside: Path) -> None:
    data_dir = tmp_path / "data"
    (data_dir / "results").mkdir(parents=True)
    (data_dir / "results" / "a").symlink_to(outside)
    files = files_of(data_dir)
    assert files.survey().changed == {}
    assert files.remove(1, ("a",)).failed == {}
    assert not (data_dir / "results" / "a").is_symlink()


def test_links_within_a_result_are_removed_and_not_followed(tmp_path: Path, outside: Path) -> None:
    data_dir = tmp_path / "data"
    folder = result(data_dir, "a")
    (folder / "folder").symlink_to(outside)
    (folder / "file").symlink_to(outside / "precious")
    (folder / "loop").symlink_to(folder)
    files = files_of(data_dir)
    size, _ = files.survey().changed["a"]
    assert size < 4096
    assert files.remove(1, ("a",)).failed == {}
    assert os.listdir(data_dir / "results") == []


def test_a_tree_however_deep_is_measured_and_removed(tmp_path: Path) -> None:
    """Deeper than Python recurses, than a process has descriptors, and than a path may be long."""
    folder = result(tmp_path, "deep")
    inner = os.open(folder, os.O_RDONLY)
    for _ in range(2500):
        os.mkdir("d", dir_fd=inner)
        outer, inner = inner, os.open("d", os.O_RDONLY, dir_fd=inner)
        os.close(outer)
    os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=inner))
    os.close(inner)
    files = files_of(tmp_path)
    assert files.survey().changed["deep"][0] == 100
    assert files.remove(1, ("deep",)).failed == {}
    assert os.listdir(tmp_path / "results") == []


def test_what_could_not_be_removed_is_removed_the_next_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result(tmp_path, "a")
    files = files_of(tmp_path)

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refused)
        assert list(files.remove(1, ("a",)).failed) == ["a"]
    assert os.listdir(tmp_path / "results") == [".a.deleted"]
    assert files.remove(2, ("a",)).freed == {"a": 100}
    assert os.listdir(tmp_path / "results") == []


def test_what_is_no_result_is_left_alone(tmp_path: Path) -> None:
    names = [b"\xff\xfe", b"two words", b"n" * 65, b".hidden"]
    (tmp_path / "results").mkdir()
    for name in names:
        os.mkdir(os.fsencode(tmp_path / "results") + b"/" + name)
    files = files_of(tmp_path)
    assert files.survey().changed == {}
    files.start()
    files.close(10)
    assert sorted(os.listdir(os.fsencode(tmp_path / "results"))) == sorted(names)


@pytest.mark.parametrize("name", ["..", ".", "../outside", "a/../../outside", "", "/etc", "a\0b", ".hidden"])
def test_a_name_that_is_no_backtest_s_removes_nothing(tmp_path: Path, outside: Path, name: str) -> None:
    data_dir = tmp_path / "data"
    result(data_dir, "a")
    removed = files_of(data_dir).remove(1, (name,))
    assert list(removed.failed) == [name]
    assert (data_dir / "results" / "a").is_dir()


def test_files_that_cannot_be_removed_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result(tmp_path, "a")
    result(tmp_path, "b")
    real = os.rename

    def refused(source: str, target: str, **at: int) -> None:
        if source == "a":
            raise PermissionError(13, "Permission denied", source)
        real(source, target, **at)

    monkeypatch.setattr(os, "rename", refused)
    removed = files_of(tmp_path).remove(1, ("a", "b"))
    assert list(removed.failed) == ["a"]
    assert "Permission denied" in removed.failed["a"]
    assert removed.freed == {"b": 100}


def test_what_a_killed_broker_left_of_a_removal_is_removed_at_the_next_start(tmp_path: Path, outside: Path) -> None:
    data_dir = tmp_path / "data"
    result(data_dir, "kept")
    half = result(data_dir, ".a.deleted")
    (half / "link").symlink_to(outside)
    other = result(data_dir, ".a.123.partial")
    files = files_of(data_dir)
    files.start()
    wait_until(lambda: not half.exists(), 10)
    files.close(10)
    assert other.exists(), "a worker is writing it"
    assert (data_dir / "results" / "kept").is_dir()


def test_orders_are_executed_by_a_thread_in_order(tmp_path: Path) -> None:
    woken = threading.Event()
    result(tmp_path, "a")
    files = StoredFiles(tmp_path, RULES, woken.set)
    files.start()
    reports: list[FilesSurveyed | ResultsRemoved] = []
    for order in (SurveyFiles(), RemoveResults(1, ("a",)), SurveyFiles()):
        files.submit(order)

    def came() -> bool:
        reports.extend(files.take())
        return len(reports) == 3

    wait_until(came, 10)
    assert woken.is_set()
    files.close(10)
    surveyed, removed, again = reports
    assert isinstance(surveyed, FilesSurveyed)
    assert list(surveyed.changed) == ["a"]
    assert isinstance(removed, ResultsRemoved)
    assert removed.freed == {"a": 100}
    assert isinstance(again, FilesSurveyed)
    assert again.gone == [], "the core knows"


# --- what is removed without the core ---


def aged(path: Path, days: float) -> None:
    then = path.stat().st_mtime - days * DAY
    os.utime(path, (then, then))


def test_old_recordings_are_removed_but_for_the_current_one(tmp_path: Path, outside: Path) -> None:
    folder = tmp_path / "recordings"
    names = {name: folder / f"20260101T000000.00{at}Z-0123abcd" for at, name in enumerate(("old", "current", "new"))}
    for recording in names.values():
        recording.mkdir(parents=True)
        (recording / "000001.msgpack").write_bytes(b"x")
    for other in ("notes", "20260101T000000.009Z-0123abcd"):
        (folder / other).mkdir() if other == "notes" else (folder / other).symlink_to(outside)
    aged(names["old"], 40)
    aged(names["current"], 40)
    aged(folder / "notes", 40)
    rules = FileRules(
        recordings=RetentionRules(max_age_ms=30 * DAY * 1000),
        damaged=RetentionRules(),
        current=names["current"].name,
    )
    files = files_of(tmp_path, rules)
    files.start()
    files.submit(SurveyFiles())
    wait_until(lambda: bool(files.take()), 10)
    files.close(10)
    assert {name for name, path in names.items() if path.exists()} == {"current", "new"}
    assert (folder / "notes").is_dir()


def test_of_damaged_databases_the_latest_stay_with_all_their_files(tmp_path: Path) -> None:
    stamps = [f"2026010{day}T000000.000Z" for day in range(1, 5)]
    for at, stamp in enumerate(stamps):
        for suffix in ("", "-wal", ".txt"):
            path = tmp_path / f"broker.db.corrupt-{stamp}{suffix}"
            path.write_bytes(b"x")
            aged(path, 10 - at)
    (tmp_path / "broker.db").write_bytes(b"x")
    files = files_of(tmp_path, FileRules(recordings=RetentionRules(), damaged=RetentionRules(max_count=2)))
    files.start()
    files.submit(SurveyFiles())
    wait_until(lambda: bool(files.take()), 10)
    files.close(10)
    left = sorted(path.name for path in tmp_path.iterdir())
    expected = [f"broker.db.corrupt-{stamp}{suffix}" for stamp in stamps[2:] for suffix in ("", "-wal", ".txt")]
    assert left == sorted(["broker.db", *expected])


def test_the_result_of_an_id_that_windows_takes_for_a_device_is_found_and_removed(tmp_path: Path) -> None:
    files = files_of(tmp_path)
    result(tmp_path, file_name("con"))
    assert list(files.survey().changed) == ["con"]
    assert files.remove(1, ("con",)).freed == {"con": 100}
    assert list((tmp_path / "results").iterdir()) == []
