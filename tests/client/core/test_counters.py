"""Statistics are the counters of requests, session and streams, put together once."""

from __future__ import annotations

from backtestr.core.counters import RequestCounters, SessionCounters, Statistics, StreamCounters, statistics


def test_every_counter_has_its_place() -> None:
    requests, session, streams = RequestCounters(), SessionCounters(), StreamCounters()
    requests.requests, requests.answered, requests.failed, requests.refused = 20, 11, 6, 2
    session.sessions, session.resent, session.dropped = 3, 4, 5
    streams.gaps_seen, streams.gaps_repaired, streams.gaps_lost, streams.gaps_left = 15, 4, 3, 2
    streams.messages_lost, streams.duplicates_dropped, streams.watermarks_behind = 30, 31, 32
    assert statistics(requests, session, streams, queued=1, errors=8, listeners_missed=9) == Statistics(
        sessions=3,
        requests=20,
        answered=11,
        failed=6,
        resent=4,
        waiting=3,
        queued=1,
        dropped=7,
        gaps_seen=15,
        gaps_repaired=4,
        gaps_lost=3,
        gaps_left=2,
        gaps_open=6,
        messages_lost=30,
        duplicates_dropped=31,
        watermarks_behind=32,
        errors=8,
        listeners_missed=9,
    )


def test_a_new_client_has_counted_nothing() -> None:
    found = statistics(RequestCounters(), SessionCounters(), StreamCounters(), queued=0, errors=0, listeners_missed=0)
    assert all(getattr(found, name) == 0 for name in Statistics.__struct_fields__)
