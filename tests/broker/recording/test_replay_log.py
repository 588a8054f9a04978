"""`replayed_log` sums a recording up, and has the timeline of the subject that is asked for."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from backtestr_broker.recording.format import header, write_record
from backtestr_broker.recording.replay_log import replayed_log
from backtestr_protocol import topics
from support.broker.link import Link, config
from support.broker.steps import start


@pytest.fixture
def part(link: Link, tmp_path: Path) -> Path:
    """Write the recording of a broker with two clients and a backtest."""
    start(link.client("ann"), "b1")
    link.client("bob").ask("UpdateState", {"key": "a", "value": 1})
    path = tmp_path / "000001.msgpack"
    path.write_bytes(link.recording())
    return path


def test_the_summary_has_the_subjects_that_there_are(link: Link, part: Path) -> None:
    log = replayed_log([part], None)
    assert [(job.backtest_id, job.client_id) for job in log.jobs] == [("b1", "ann")]
    assert [session.client_id for session in log.sessions] == ["ann", "bob"]
    assert log.topics == {topic: link.core.sequencer.last_seq(topic) for topic in log.topics}
    assert {topics.BACKTESTS, "state.a"} <= log.topics.keys()
    assert (log.timeline, log.found, log.contradiction, log.problems) == ([], True, None, [])
    assert (log.events, log.replayed_events) == (len(link.events), len(link.events))


def test_a_timeline_is_in_order_and_has_each_fact_once(link: Link, part: Path) -> None:
    log = replayed_log([part], ("job", "b1"))
    places = [(fact.event, fact.offset_ms) for fact in log.timeline]
    assert places == sorted(places)
    assert [fact.facts["type"] for fact in log.timeline].count("StartBacktest") == 2, "a request and its answer"
    assert log.timeline[0].kind == "request"
    everything = replayed_log([part], None, everything=True)
    assert {fact.event for fact in everything.timeline} == set(range(1, len(link.events) + 1))
    assert [fact for fact in everything.timeline if fact in log.timeline] == log.timeline


def test_a_subject_that_is_not_there_is_stated_with_the_nearest(part: Path) -> None:
    log = replayed_log([part], ("client", "anne"))
    assert (log.timeline, log.found) == ([], False)
    assert log.problems == ["nothing in it is about the client 'anne'; did you mean 'ann'?"]


def test_as_json_it_has_the_names_of_version_0_1(part: Path) -> None:
    found = msgspec.json.decode(msgspec.json.encode(replayed_log([part], ("client", "bob"))))
    assert found.keys() == {
        *("files", "version", "instanceId", "events", "replayedEvents", "startTime", "endTime", "effectsDigest"),
        *("contradiction", "problems", "jobs", "sessions", "topics", "story", "found"),
    }
    assert found["story"][0].keys() == {"event", "offsetMs", "timestamp", "kind", "text", "facts"}


def test_a_recording_of_several_parts_is_one_log(link: Link, part: Path, tmp_path: Path) -> None:
    """The second part is missing, so the later events have no effects."""
    link.client("carl").ask("StartBacktest", config(backtestId="b2"))
    (tmp_path / "000003.msgpack").write_bytes(later_part(link))
    log = replayed_log([part, tmp_path / "000003.msgpack"], ("client", "carl"))
    assert log.replayed_events < log.events
    assert [fact.kind for fact in log.timeline] == ["request", "request"]
    assert "part 2 of the recording is missing" in log.problems[0]


def later_part(link: Link) -> bytes:
    """Return a third part with the requests of the last client."""
    written, buffer = bytearray(), bytearray()
    events = [(now, event) for event, now in link.events[-6:]]
    for record in [header(link.instance_id, 3, None), *events]:
        write_record(record, buffer)
        written += buffer
    return bytes(written)
