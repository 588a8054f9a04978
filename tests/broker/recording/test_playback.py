"""A playback of the same events at the same times has the same effects and state, and states every gap."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backtestr_broker.core import shared_state as shared_state_module
from backtestr_broker.core.events import Tick, WorkerStarted
from backtestr_broker.core.scheduling import liveness as liveness_module
from backtestr_broker.recording import format as format_module
from backtestr_broker.recording.format import Record, Skipped, header, write_record
from backtestr_broker.recording.parts import records
from backtestr_broker.recording.playback import Playback
from backtestr_broker.recording.replay_log import replayed_log
from support.broker.anatomy import anatomy
from support.broker.clients import Client
from support.broker.link import HOST, WALL_MS, Link, Worker, config
from support.broker.steps import paused, start


def part(*entries: object, number: int = 2) -> Iterator[Record]:
    """Return the records of a later part of the recording of a link's first broker."""
    written, buffer = bytearray(), bytearray()
    for record in [header("00000001-instance", number, None), *entries]:
        write_record(record, buffer)
        written += buffer
    return records(io.BytesIO(written))


def busy(link: Link) -> None:
    """Have the broker do some of everything."""
    ann, bob = link.client("ann"), link.client("bob")
    start(ann, "b1", "b2")
    ann.ask("UpdateState", {"key": "a", "value": {"x": [1.5, None]}})
    bob.refused("UpdateState", {"key": "a", "value": 1, "expectedVersion": 7})
    paused(ann, link.worker("compute-1"), "b1")
    link.worker("compute-1").publish("orders.b2", 1, 2)
    link.lose_worker(link.worker("compute-1"))
    with link.full_disk():
        bob.refused("StartBacktest", config(backtestId="b3"))
    link.advance(31.0)
    link.request(ann.peer, [b"never signed"])
    link.client("carl").ask("Ping")


def test_a_playback_has_the_same_effects_and_the_same_state(link: Link) -> None:
    busy(link)
    playback = Playback([("1", link.records())])
    assert [step.effects for step in playback] == link.effects
    assert (playback.events, playback.handled, playback.problems) == (len(link.events), len(link.events), [])
    assert playback.core is not None
    assert anatomy(playback.core) == anatomy(link.core)
    assert playback.contradiction() is None


def test_the_comparison_of_states_is_complete(link: Link) -> None:
    """The comparison above would find a single number that differs, wherever in the core it is."""
    busy(link)
    before = json.dumps(anatomy(link.core), default=str)
    for word in (
        "_opened",
        "_seen",
        "retained_messages",
        "revision",
        "_heartbeat_due",
        "generation",
        "losses",
        "parked",
    ):
        assert f'"{word}"' in before, f"{word} is not compared"
    link.client("dora")
    assert json.dumps(anatomy(link.core), default=str) != before


def test_a_restarted_broker_is_played_back_from_the_records_it_found_on_disk(link: Link) -> None:
    busy(link)
    link.restart_broker()
    link.client("ann").ask("GetState", {"key": "a"})
    playback = Playback([("1", link.records())])
    assert [step.effects for step in playback] == link.effects
    assert playback.core is not None
    assert {job.backtest_id for job in playback.core.scheduler.jobs} == {"b1", "b2"}


def test_another_process_with_other_hashes_has_the_same_effects(link: Link, tmp_path: Path) -> None:
    """No effect depends on the order of a set, which differs between processes."""
    busy(link)
    path = tmp_path / "000001.msgpack"
    path.write_bytes(link.recording())
    digests = set()
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-m", "backtestr_broker", "--replay-log", str(path)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        )
        digests.add(json.loads(done.stdout)["effectsDigest"])
    assert digests == {replayed_log([path], None).effects_digest}


# --- gaps ---


def test_behind_a_missing_part_only_the_events_are_known(link: Link) -> None:
    busy(link)
    playback = Playback([("1", link.records()), ("7", part((99.0, Tick(HOST, WALL_MS)), number=7))])
    *steps, last = list(playback)
    assert None not in [step.effects for step in steps]
    assert last.effects is None
    (problem,) = playback.problems
    assert problem.startswith("part 2 to 6 of the recording is missing, deleted or not beside 7")
    assert (playback.events, playback.handled) == (len(link.events) + 1, len(link.events))


def test_following_parts_continue_the_first(link: Link) -> None:
    busy(link)
    entries = [(now, event) for event, now in link.events]
    cut = len(entries) // 2
    later = part(*entries[cut:])
    link.events = link.events[:cut]
    playback = Playback([("1", link.records()), ("2", later)])
    assert [step.effects for step in playback] == link.effects
    assert playback.problems == []


def test_without_the_first_part_no_core_is_built(link: Link) -> None:
    playback = Playback([("3", part((99.0, Tick(HOST, WALL_MS)), number=3))])
    assert [step.effects for step in playback] == [None]
    assert playback.problems[0].startswith("part 1 to 2 of the recording is missing")
    assert playback.contradiction() is None


def test_an_event_that_was_too_large_is_a_gap(link: Link) -> None:
    busy(link)
    tick = (99.0, Tick(HOST, WALL_MS))
    playback = Playback([("1", link.records()), ("2", part((98.0, Skipped("WorkerSent", 1 << 30, WALL_MS)), tick))])
    assert [step.effects for step in list(playback)[-2:]] == [None, None]
    assert playback.problems == [f"event {len(link.events) + 1}, of 1,073,741,824 bytes, was too large to be recorded"]


def test_a_torn_end_is_stated_and_all_before_it_is_played_back(link: Link) -> None:
    busy(link)
    playback = Playback([("000001.msgpack", records(io.BytesIO(link.recording()[:-3])))])
    assert [step.effects for step in playback] == link.effects[:-1]
    (problem,) = playback.problems
    assert "000001.msgpack: the last record" in problem
    assert "is torn" in problem


# --- what a recording is for ---


def test_an_event_at_which_the_core_raises_is_named(link: Link, ann: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    ann.ask("Ping")
    number = len(link.events) + 1
    link.client("bob").ask("SnapshotState", {"prefix": ""})

    def fail(_self: object, _prefix: str) -> list[object]:
        raise ZeroDivisionError("the fault")

    monkeypatch.setattr(shared_state_module.SharedState, "snapshot", fail)
    playback = Playback([("1", link.records())])
    steps = list(playback)
    assert [step.effects is None for step in steps] == [False] * (number + 1)
    (problem,) = playback.problems
    assert problem.startswith(f"at event {number + 1} the core raised ZeroDivisionError('the fault'):\n")
    assert "in snapshot" in problem
    assert playback.contradiction() is None


def test_an_event_after_which_the_broker_started_again_is_named(
    link: Link, ann: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    link.start_worker("compute-2", "compute")
    ann.ask("Ping")

    def fail(*_arguments: object) -> None:
        raise ZeroDivisionError("the fault")

    monkeypatch.setattr(liveness_module.Liveness, "started", fail)
    playback = Playback([("1", link.records())])
    steps = list(playback)
    first = next(number for number, step in enumerate(steps, 1) if isinstance(step.event, WorkerStarted))
    assert [step.effects is None for step in steps] == [False] * first + [True] * (len(steps) - first)
    raised, started_again = playback.problems
    assert raised.startswith(f"at event {first} the core raised ZeroDivisionError('the fault')")
    assert started_again.startswith(f"after event {first} the broker started again: WorkerStarted raised")


def test_a_broken_invariant_is_reported(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    playback = Playback([("1", link.records())])
    list(playback)
    assert playback.core is not None
    playback.core.scheduler.workers.get("compute-1").task_id = None
    assert "running without a worker: {'b1'}" in (playback.contradiction() or "")


def test_another_version_is_a_problem(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(format_module, "__version__", "0.0.1")
        older = link.recording()
    playback = Playback([("1", records(io.BytesIO(older)))])
    list(playback)
    assert playback.problems[0].startswith("it was recorded by version 0.0.1")
