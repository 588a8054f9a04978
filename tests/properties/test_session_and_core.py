"""The client's session and the core: each request has one end, on a link that loses, repeats and restarts."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from backtestr_protocol.messages import BacktestConfig, Nothing
from support.broker.link import Link, config

faults = st.sampled_from(
    ["start", "start", "ping", "drop reply", "drop request", "repeat", "reconnect", "restart", "wait", "finish", "lose"]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(faults, max_size=25))
def test_a_session_gets_one_end_for_each_request_whatever_the_link_does(actions: list[str]) -> None:
    link = Link()
    ann = link.session()
    asked: list[str] = []
    started: list[str] = []
    for action in actions:
        match action:
            case "start":
                started.append(ann.ask("StartBacktest", msgspec.convert(config(), BacktestConfig), timeout=30.0))
                asked.append(started[-1])
            case "ping":
                asked.append(ann.ask("Ping", Nothing(), timeout=30.0))
            case "drop reply":
                link.replies_to_drop += 1
            case "drop request":
                link.requests_to_drop += 1
            case "repeat":
                link.copies = 3 - link.copies
            case "reconnect":
                ann.disconnect()
                ann.connect()
            case "restart":
                link.restart_broker()
            case "wait":
                link.advance(3.0)
            case "finish":
                worker = link.worker("compute-1")
                if link.core.scheduler.workers.get("compute-1").task_id is not None:
                    worker.finish()
            case "lose":
                link.lose_worker(link.worker("compute-1"))
        link.core.check_invariants()
    link.advance(60.0)
    assert ann.answered.keys() | ann.failed.keys() >= set(asked)
    assert not ann.answered.keys() & ann.failed.keys()
    known = {job.backtest_id for job in link.core.scheduler.jobs}
    assert len(known) <= len(asked)
    accepted = [ann.answered[one].backtest_id for one in started if one in ann.answered]
    assert len(set(accepted)) == len(accepted)
    assert set(accepted) <= known
