"""Good verdicts are for everybody, bad ones for one broker, and a worker that ends while it loads leaves a name."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from backtestr_engine.library import verdicts as module
from backtestr_engine.library.source_files import Source
from backtestr_engine.library.verdicts import Verdicts
from backtestr_protocol.errors import AlgorithmError

SOURCE = Source("x = 1\n", "/folder/mine.py", "mine")


def made(root: Path, *, worker: str = "compute-1", broker: str = "first") -> Verdicts:
    return Verdicts(root, worker, broker)


def ends_while_loading(verdicts: Verdicts) -> None:
    """Leave behind what a process does that ends while it loads the source."""
    with verdicts.loading(SOURCE):
        left = {path: path.read_bytes() for path in verdicts.root.iterdir()}
    for path, content in left.items():
        path.write_bytes(content)


def problem(verdicts: Verdicts, source: Source = SOURCE) -> str | None:
    verdict = verdicts.on(source)
    assert verdict is not None
    return verdict.problem


def test_a_good_verdict_holds_for_every_worker_and_broker_until_the_source_changes(tmp_path: Path) -> None:
    made(tmp_path).keep(SOURCE, None)
    assert problem(made(tmp_path, worker="compute-2", broker="later")) is None
    for changed in (
        msgspec.structs.replace(SOURCE, text="x = 2\n"),
        msgspec.structs.replace(SOURCE, file="/folder/other.py"),
    ):
        assert made(tmp_path).on(changed) is None


def test_a_bad_verdict_holds_for_one_broker(tmp_path: Path) -> None:
    made(tmp_path).keep(SOURCE, "it ended its process")
    assert problem(made(tmp_path, worker="compute-2")) == "it ended its process"
    assert made(tmp_path, broker="later").on(SOURCE) is None


def test_workers_that_end_in_a_row_while_they_load_a_source_condemn_it(tmp_path: Path) -> None:
    made(tmp_path).keep(SOURCE, None)
    for worker in ("compute-1", "interactive-1", "compute-2"):
        assert problem(made(tmp_path)) is None
        ends_while_loading(made(tmp_path, worker=worker))
        made(tmp_path, worker="compute-9").blame()
        assert problem(made(tmp_path)) is None, "it was not that worker"
        made(tmp_path, worker=worker).blame()
    after = made(tmp_path)
    assert problem(after) == (
        "/folder/mine.py: 3 workers in a row ended while they loaded it, compute-2 the last, though it could be loaded "
        "before; correct it, and restart the broker"
    )
    with pytest.raises(AlgorithmError, match="3 workers in a row ended while they loaded it"), after.loading(SOURCE):
        raise AssertionError("it must not be loaded")
    assert made(tmp_path, broker="later").on(SOURCE) is None


def test_workers_that_are_killed_now_and_then_condemn_nothing(tmp_path: Path) -> None:
    """A kill from outside may come at any moment, also while a source is loaded."""
    made(tmp_path).keep(SOURCE, None)
    for _ in range(5):
        for _ in range(module.MAX_LOSSES - 1):
            ends_while_loading(made(tmp_path))
            made(tmp_path).blame()
        with made(tmp_path, worker="compute-2").loading(SOURCE):
            pass
    assert problem(made(tmp_path)) is None


def test_losses_of_another_broker_do_not_count(tmp_path: Path) -> None:
    made(tmp_path).keep(SOURCE, None)
    for broker in ("first", "second", "third"):
        ends_while_loading(made(tmp_path, broker=broker))
        made(tmp_path, broker=broker).blame()
        assert problem(made(tmp_path, broker=broker)) is None


def test_a_source_without_a_verdict_gets_none_by_a_loss(tmp_path: Path) -> None:
    ends_while_loading(made(tmp_path))
    made(tmp_path).blame()
    assert made(tmp_path).on(SOURCE) is None, "it would be loaded without being inspected"


def test_the_end_of_a_broker_condemns_nothing(tmp_path: Path) -> None:
    ends_while_loading(made(tmp_path))
    later = made(tmp_path, broker="later")
    later.blame()
    assert later.on(SOURCE) is None
    assert list(tmp_path.glob("loading-*")) == []


def test_a_source_that_was_loaded_or_raised_leaves_no_mark(tmp_path: Path) -> None:
    verdicts = made(tmp_path)
    with verdicts.loading(SOURCE):
        pass
    with pytest.raises(ValueError, match="a source raises"), verdicts.loading(SOURCE):
        raise ValueError("a source raises")
    verdicts.blame()
    assert verdicts.on(SOURCE) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"problem": 7}', b"\xff" * 100_000])
def test_a_damaged_verdict_does_not_exist(tmp_path: Path, content: bytes) -> None:
    verdicts = made(tmp_path)
    verdicts.keep(SOURCE, None)
    (file,) = tmp_path.iterdir()
    file.write_bytes(content)
    assert verdicts.on(SOURCE) is None
    (tmp_path / "loading-compute-1.json").write_bytes(content)
    verdicts.blame()
    assert verdicts.on(SOURCE) is None


def test_a_disk_that_cannot_be_written_to_only_makes_it_forget(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    verdicts = made(tmp_path / "file" / "verdicts")
    verdicts.keep(SOURCE, None)
    with verdicts.loading(SOURCE):
        assert verdicts.on(SOURCE) is None
    verdicts.prune()


def test_the_number_of_verdicts_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_VERDICTS", 3)
    verdicts = made(tmp_path)
    for number in range(10):
        verdicts.keep(msgspec.structs.replace(SOURCE, text=str(number)), None)
    verdicts.prune()
    assert len(list(tmp_path.iterdir())) == 3
