"""Replay: the same events at the same times give the same effects and the same state, and every gap is stated."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from backtestr_broker.core import shared_state as state_module
from backtestr_broker.core.events import Tick
from backtestr_broker.recording import format as recording_module
from backtestr_broker.recording.format import Skipped, header, write_record
from backtestr_broker.recording.playback import Playback, replayed_log
from backtestr_protocol import topics
from support.broker.anatomy import anatomy
from support.broker.link import HOST, WALL_MS, Client, Link, Worker, config
from support.broker.steps import MakeLink, paused, start


def part(*entries: object, number: int = 2) -> bytes:
    """A later part of the recording of a link's first broker."""
    written, buffer = bytearray(), bytearray()
    for record in [header("00000001-instance", number, None), *entries]:
        write_record(record, buffer)
        written += buffer
    return bytes(written)


def busy(link: Link) -> None:
    """A bit of everything."""
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


def test_a_replay_has_the_same_effects_and_the_same_state(link: Link) -> None:
    busy(link)
    replay = Playback([("1", link.recording())])
    assert [step.effects for step in replay] == link.effects
    assert (replay.events, replay.replayed, replay.problems) == (len(link.events), len(link.events), [])
    assert replay.core is not None
    assert anatomy(replay.core) == anatomy(link.core)
    assert replay.contradiction() is None


def test_what_is_compared_is_all_there_is(link: Link) -> None:
    """The comparison of states above would see a single number that differs, wherever it is."""
    busy(link)
    before = json.dumps(anatomy(link.core), default=str)
    for word in ("_opened", "_seen", "kept_messages", "revision", "_heartbeat_due", "generation", "losses", "parked"):
        assert f'"{word}"' in before, f"{word} is not compared"
    link.client("dora")
    assert json.dumps(anatomy(link.core), default=str) != before


def test_a_restarted_broker_is_replayed_from_what_it_found_on_disk(link: Link) -> None:
    busy(link)
    link.restart_broker()
    link.client("ann").ask("GetState", {"key": "a"})
    replay = Playback([("1", link.recording())])
    assert [step.effects for step in replay] == link.effects
    assert replay.core is not None
    assert {job.backtest_id for job in replay.core.scheduler.jobs} == {"b1", "b2"}


def test_another_process_with_other_hashes_has_the_same_effects(link: Link, tmp_path: Path) -> None:
    """Nothing depends on the order of a set, which is another in every process."""
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


def test_behind_a_missing_part_only_what_was_said_is_told(link: Link) -> None:
    busy(link)
    replay = Playback([("1", link.recording()), ("7", part((99.0, Tick(HOST, WALL_MS)), number=7))])
    *steps, last = list(replay)
    assert None not in [step.effects for step in steps]
    assert last.effects is None
    (problem,) = replay.problems
    assert problem.startswith("part 2 to 6 of the recording is missing, rotated away or not beside 7")
    assert (replay.events, replay.replayed) == (len(link.events) + 1, len(link.events))


def test_following_parts_continue_the_first(link: Link) -> None:
    busy(link)
    entries = [(now, event) for event, now in link.events]
    cut = len(entries) // 2
    later = part(*entries[cut:])
    link.events = link.events[:cut]
    replay = Playback([("1", link.recording()), ("2", later)])
    assert [step.effects for step in replay] == link.effects
    assert replay.problems == []


def test_without_the_first_part_nothing_is_replayed(link: Link) -> None:
    replay = Playback([("3", part((99.0, Tick(HOST, WALL_MS)), number=3))])
    assert [step.effects for step in replay] == [None]
    assert replay.problems[0].startswith("part 1 to 2 of the recording is missing")
    assert replay.contradiction() is None


def test_an_event_that_was_too_large_is_a_gap(link: Link) -> None:
    busy(link)
    tick = (99.0, Tick(HOST, WALL_MS))
    replay = Playback([("1", link.recording()), ("2", part((98.0, Skipped("WorkerSent", 1 << 30, WALL_MS)), tick))])
    assert [step.effects for step in list(replay)[-2:]] == [None, None]
    assert replay.problems == [f"event {len(link.events) + 1}, of 1,073,741,824 bytes, was too large to be recorded"]


def test_a_torn_end_is_stated_and_all_before_it_is_replayed(link: Link) -> None:
    busy(link)
    replay = Playback([("000001.msgpack", link.recording()[:-3])])
    assert [step.effects for step in replay] == link.effects[:-1]
    (problem,) = replay.problems
    assert "000001.msgpack: the last record" in problem
    assert "is torn" in problem


# --- what the recording is for ---


def test_an_event_that_the_core_cannot_stand_is_named(link: Link, ann: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    ann.ask("Ping")
    number = len(link.events) + 1
    link.client("bob").ask("SnapshotState", {"prefix": ""})

    def fail(_self: object, _prefix: str) -> list[object]:
        raise ZeroDivisionError("the fault")

    monkeypatch.setattr(state_module.SharedState, "snapshot", fail)
    replay = Playback([("1", link.recording())])
    steps = list(replay)
    assert [step.effects is None for step in steps] == [False] * number + [True]
    assert f"at event {number + 1} the core raised ZeroDivisionError('the fault')" in replay.problems[0]
    assert "in snapshot" in replay.problems[0]


def test_a_state_that_contradicts_itself_is_told(link: Link, ann: Client, worker: Worker) -> None:
    start(ann, "b1")
    replay = Playback([("1", link.recording())])
    list(replay)
    assert replay.core is not None
    replay.core.scheduler.workers.get("compute-1").task_id = None
    assert "running without a worker: {'b1'}" in (replay.contradiction() or "")


def test_another_version_and_another_format_are_said(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(recording_module, "__version__", "0.0.1")
        older = link.recording()
    replay = Playback([("1", older)])
    list(replay)
    assert replay.problems[0].startswith("it was recorded by version 0.0.1")


def test_the_summary_names_whose_story_there_is(make_link: MakeLink, tmp_path: Path) -> None:
    link = make_link()
    busy(link)
    path = tmp_path / "000001.msgpack"
    path.write_bytes(link.recording())
    log = replayed_log([path], None)
    assert [(job.backtest_id, job.client_id) for job in log.jobs] == [("b1", "ann"), ("b2", "ann")]
    assert [session.client_id for session in log.sessions] == ["ann", "bob", "carl"]
    assert log.topics == {topic: link.core.sequencer.last_seq(topic) for topic in log.topics}
    assert {topics.BACKTESTS, "state.a", "orders.b2"} <= log.topics.keys()
    assert (log.story, log.found, log.contradiction) == ([], True, None)
