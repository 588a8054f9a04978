"""The ledger counts distinct trials, whatever is entered again, whoever enters it, and wherever a process is killed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from backtestr_engine.research.trials import Keys, TrialData
from backtestr_engine.worker.sweeping import trial_log, trial_store
from backtestr_engine.worker.sweeping.trial_store import TrialStore
from backtestr_protocol.errors import Busy
from backtestr_protocol.system.file_lock import FileLock

SYNTH = TrialData("sma_cross", ["SYNTH"], "1d", "0" * 32, 0, 86_400_000, 1)
OTHER = TrialData("ema_cross", ["SYNTH"], "1d", "0" * 32, 0, 86_400_000, 1)


def keys(*numbers: int) -> Keys:
    return np.array(numbers, dtype=np.uint64)


def files(root: Path, kind: str) -> list[Path]:
    return sorted(root.glob(f"*{kind}"))


def all_of(store: TrialStore, *, merge: bool = False) -> dict[str, tuple[int, int]]:
    """Return the trials and the runs of each group, by algorithm."""
    with store.read(merge=merge) as groups:
        return {one.data.algorithm: (store.count_of(group), one.runs) for group, one in groups.items()}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "trials"


def test_a_ledger_without_entries_counts_none(root: Path) -> None:
    store = TrialStore(root)
    assert store.count(SYNTH.group) == 0
    assert all_of(store, merge=True) == {}
    assert not root.exists()


def test_a_trial_counts_once_in_its_group(root: Path) -> None:
    store = TrialStore(root, wall_ms=iter(range(100)).__next__)
    store.append(SYNTH, keys(5, 7))
    store.append(OTHER, keys(5))
    store.append(SYNTH, keys(7, 2**64 - 1, 0))
    assert all_of(store) == {"sma_cross": (4, 5), "ema_cross": (1, 1)}
    with store.read() as groups:
        found = groups[SYNTH.group]
        assert (found.data, found.first_ms, found.last_ms) == (SYNTH, 0, 2)


def test_what_is_entered_is_synced_before_it_is_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_size))
    store = TrialStore(root)
    store.append(SYNTH, keys(1, 2, 3))
    [path] = files(root, ".log")
    assert synced[-1] == path.stat().st_size
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_full_disk_leaves_what_was_entered(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = TrialStore(root)
    store.append(SYNTH, keys(1))

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            store.append(SYNTH, keys(2, 3))
    assert store.count(SYNTH.group) == 1
    store.append(SYNTH, keys(2))
    assert TrialStore(root).count(SYNTH.group) == 2


@pytest.mark.parametrize("cut", range(1, 96))
def test_a_torn_end_costs_what_was_not_acknowledged(root: Path, cut: int) -> None:
    """Wherever the last block is cut, those before it count, and the rest of the file is left alone."""
    store = TrialStore(root)
    store.append(SYNTH, keys(1, 2))
    store.append(SYNTH, keys(3, 4, 5))
    store.close()
    [path] = files(root, ".log")
    os.truncate(path, path.stat().st_size - cut)
    assert all_of(TrialStore(root), merge=True) == {"sma_cross": (2, 2)}


def test_keys_that_are_damaged_are_left_out_and_never_merged(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_store, "LEFT_FILES", 0)
    store = TrialStore(root)
    store.append(SYNTH, keys(1, 2))
    store.append(SYNTH, keys(3))
    store.close()
    [path] = files(root, ".log")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    other = TrialStore(root)
    other.append(SYNTH, keys(9))
    other.close()
    assert TrialStore(root).count(SYNTH.group) == 3
    assert all_of(TrialStore(root), merge=True)["sma_cross"][0] == 3
    assert path.exists()


def test_files_of_workers_that_live_are_not_merged(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_store, "LEFT_FILES", 0)
    ended, living = TrialStore(root), TrialStore(root)
    ended.append(SYNTH, keys(1, 2))
    living.append(SYNTH, keys(2, 3))
    ended.close()
    assert all_of(living, merge=True) == {"sma_cross": (3, 4)}
    assert (len(files(root, ".log")), len(files(root, ".merged"))) == (1, 1)
    living.append(OTHER, keys(1))
    living.close()
    assert all_of(TrialStore(root), merge=True) == {"sma_cross": (3, 4), "ema_cross": (1, 1)}
    assert files(root, ".log") == []
    assert [path.name for path in files(root, ".lock")] == ["merge.lock"]


def test_a_worker_begins_another_file_when_its_own_is_large(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_log, "MAX_LOG_BYTES", 1_000)
    store = TrialStore(root)
    for first in range(0, 1_000, 100):
        store.append(SYNTH, np.arange(first, first + 100, dtype=np.uint64))
    assert len(files(root, ".log")) == 10
    assert all_of(store, merge=True) == {"sma_cross": (1_000, 1_000)}
    assert (len(files(root, ".log")), len(files(root, ".merged"))) == (1, 1)


@pytest.mark.parametrize("survivor", [0, 1])
def test_a_crash_between_a_merge_and_its_clean_up_counts_no_run_twice(
    root: Path, survivor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_store, "LEFT_FILES", 1)
    for _ in range(2):
        store = TrialStore(root)
        store.append(SYNTH, keys(1, 2))
        store.close()
    kept = files(root, ".log")[survivor]
    content = kept.read_bytes()
    assert all_of(TrialStore(root), merge=True) == {"sma_cross": (2, 4)}
    kept.write_bytes(content)  # as if it had not been removed yet
    (root / "0123.partial").write_bytes(b"of a merge that was killed")
    assert all_of(TrialStore(root)) == {"sma_cross": (2, 4)}
    assert not kept.exists()
    all_of(TrialStore(root), merge=True)
    assert files(root, ".partial") == []


def test_counting_waits_for_a_merge_no_longer_than_a_while(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_store, "_PATIENCE", 0.05)
    store = TrialStore(root)
    store.append(SYNTH, keys(1))
    lock = FileLock(root / "merge.lock")
    assert lock.take()
    with pytest.raises(Busy, match="being merged"):
        store.count(SYNTH.group)
    lock.release()
    assert store.count(SYNTH.group) == 1


@given(
    entries=st.lists(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 20), max_size=30), max_size=12),
    together=st.sampled_from([1, 7, 1 << 22]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_number_is_that_of_a_set_in_any_parts(
    tmp_path_factory: pytest.TempPathFactory, entries: Sequence[Sequence[int]], together: int
) -> None:
    root = tmp_path_factory.mktemp("ledger") / "trials"
    store = TrialStore(root, together=together)
    for entry in entries:
        store.append(SYNTH, keys(*entry))
    assert store.count(SYNTH.group) == len({one for entry in entries for one in entry})


class Ledger(RuleBasedStateMachine):
    """Workers enter trials, are killed, and merge; the numbers are those of sets at every moment."""

    roots: Iterator[Path]

    def __init__(self) -> None:
        super().__init__()
        self.root = next(self.roots)
        self.workers = [TrialStore(self.root, together=8) for _ in range(3)]
        self.entered: dict[str, set[int]] = {}
        self.runs: dict[str, int] = {}

    @rule(
        worker=st.integers(0, 2),
        data=st.sampled_from([SYNTH, OTHER]),
        numbers=st.lists(st.integers(0, 40) | st.integers(0, 2**64 - 1), min_size=1, max_size=12),
    )
    def enter(self, worker: int, data: TrialData, numbers: list[int]) -> None:
        self.workers[worker].append(data, keys(*numbers))
        self.entered.setdefault(data.algorithm, set()).update(numbers)
        self.runs[data.algorithm] = self.runs.get(data.algorithm, 0) + len(numbers)

    @rule(worker=st.integers(0, 2), tail=st.binary(max_size=200))
    def kill(self, worker: int, tail: bytes) -> None:
        """End a worker in the middle of an entry: something is at the end of its file, and its lock is free."""
        log = self.workers[worker]._log
        if log is not None:
            with open(log.path, "ab") as file:
                file.write(tail)
        self.workers[worker].close()
        self.workers[worker] = TrialStore(self.root, together=8)

    @precondition(lambda self: self.entered)
    @rule(worker=st.integers(0, 2))
    def merge(self, worker: int) -> None:
        self.check(worker, merge=True)

    @invariant()
    def numbers_are_those_of_sets(self) -> None:
        self.check(0, merge=False)

    def check(self, worker: int, *, merge: bool) -> None:
        found = all_of(self.workers[worker], merge=merge)
        assert found == {name: (len(numbers), self.runs[name]) for name, numbers in self.entered.items()}


def test_workers_that_are_killed_and_merge_lose_nothing(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_store, "LEFT_FILES", 1)
    monkeypatch.setattr(os, "fsync", lambda _handle: None)  # a hundred runs of fifty steps

    def fresh() -> Iterator[Path]:
        while True:
            yield tmp_path_factory.mktemp("ledger") / "trials"

    Ledger.roots = fresh()
    case: Any = Ledger.TestCase
    case.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
    case("runTest").runTest()
