"""A pipeline keeps many requests of one thread under way, with every promise of single requests."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import zmq

import backtestr
from backtestr.client import Client
from backtestr.core.recovery import Recovery
from backtestr.core.session import HELLO_TIMEOUT
from backtestr.io.io_thread import MAX_WAITING
from backtestr.io.request_windows import MAX_WINDOW
from backtestr_protocol.errors import NotFound, RateLimitExceeded, TimedOut, ValidationError
from backtestr_protocol.messages import StateEntry
from support.client.answers import PRICE, connect
from support.client.peer import SILENCE, WALL_MS, Peer
from support.harness import wait_until

SECONDS = 10.0
QUICK = Recovery(base_delay=0.01, max_delay=0.05, jitter=0.01)


def entry(data: dict[str, Any]) -> Any:
    """Answer GetState: the value is the key; keys that end with `missing` do not exist."""
    if data["key"].endswith("missing"):
        return NotFound(f"unknown key {data['key']!r}")
    return {"key": data["key"], "value": data["key"], "version": 1, "checksum": "c", "timestamp": 1}


def keys_asked(peer: Peer) -> list[str]:
    return [data["key"] for kind, _, data in list(peer.asked) if kind == "GetState"]


def test_results_come_in_the_order_of_the_requests(home: Path) -> None:
    keys = [f"a.k{number}" for number in range(300)]
    with Peer(home, {"GetState": entry}) as peer, connect(peer) as client:
        with client.pipeline(window=16) as pipe:
            replies = [pipe.get_state(key) for key in keys]
        assert all(reply.done() for reply in replies)
        assert [reply.result().value for reply in replies] == keys
        assert keys_asked(peer) == keys


def test_each_method_gives_what_the_client_s_gives(home: Path) -> None:
    status = {"backtestId": "b1", "status": "running", "algorithmId": "a", "symbol": "S", "progressPercent": 1.0}
    script = {
        "GetState": entry,
        "UpdateState": lambda data: {"key": data["key"], "version": 3, "checksum": "c"},
        "DeleteState": lambda data: {"key": data["key"], "version": 4},
        "PublishPrices": lambda data: {"published": len(data["prices"])},
        "GetBacktestStatus": lambda data: {**status, "submitTime": WALL_MS, "backtestId": data["backtestId"]},
    }
    with Peer(home, script) as peer, connect(peer) as client:
        with client.pipeline() as pipe:
            replies: list[backtestr.PipelinedReply[Any]] = [
                pipe.ping(),
                pipe.get_state("a.b"),
                pipe.update_state("a.b", [1, {"c": b"d"}], expected_version=2),
                pipe.delete_state("a.b", expected_version=3),
                pipe.publish_prices([PRICE, PRICE]),
                pipe.backtest_status("b1"),
            ]
        sent = [(kind, data) for kind, _, data in peer.asked if kind != "Hello"]
        peer.asked.clear()
        assert [reply.result() for reply in replies] == [
            client.ping(),
            client.get_state("a.b"),
            client.update_state("a.b", [1, {"c": b"d"}], expected_version=2),
            client.delete_state("a.b", expected_version=3),
            client.publish_prices([PRICE, PRICE]),
            client.backtest_status("b1"),
        ]
        assert sent == [(kind, data) for kind, _, data in peer.asked]


def test_an_error_is_raised_by_the_reply_of_its_own_request(home: Path) -> None:
    with Peer(home, {"GetState": entry}) as peer, connect(peer) as client:
        with client.pipeline() as pipe:
            with pytest.raises(ValidationError, match="expectedVersion"):
                pipe.update_state("a", 1, expected_version=object())  # type: ignore[arg-type]
            found, missing, other = (pipe.get_state(key) for key in ("a.b", "a.missing", "a.c"))
        assert found.result().key == "a.b"
        assert isinstance(missing.exception(), NotFound)
        with pytest.raises(NotFound, match=r"a\.missing"):
            missing.result()
        assert (other.exception(), other.result().key) == (None, "a.c")
        assert [report.about for report in client.errors] == ["GetState"]


def test_no_more_requests_than_the_window_are_under_way(home: Path) -> None:
    opened = threading.Event()

    def gated(data: dict[str, Any]) -> Any:
        assert opened.wait(SECONDS)
        return entry(data)

    with Peer(home, {"GetState": gated}) as peer, connect(peer) as client, ThreadPoolExecutor(1) as pool:
        made: list[Any] = []

        def ask() -> list[str]:
            with client.pipeline(window=8) as pipe:
                for number in range(30):
                    made.append(pipe.get_state(f"a.k{number}"))
            return [reply.result().key for reply in made]

        asking = pool.submit(ask)
        wait_until(lambda: client.statistics.waiting == 8, SECONDS)
        assert len(made) == 8
        opened.set()
        assert asking.result(SECONDS) == [f"a.k{number}" for number in range(30)]


@pytest.mark.parametrize("window", [0, -1, MAX_WINDOW + 1, 1.5, True, "256"])
def test_a_window_without_sense_is_refused(home: Path, window: Any) -> None:
    with Peer(home) as peer, connect(peer) as client, pytest.raises(ValueError, match="whole number from 1 to 500"):
        client.pipeline(window)


def test_full_pipelines_leave_room_for_other_calls(home: Path) -> None:
    with Peer(home, {"GetState": lambda _: SILENCE}) as peer, connect(peer) as client:
        pipes = [client.pipeline(MAX_WINDOW) for _ in range(3)]
        replies = [pipe.get_state("a") for pipe in pipes for _ in range(MAX_WINDOW)]
        wait_until(lambda: client.statistics.waiting == MAX_WINDOW, SECONDS)
        assert client.ping() == WALL_MS
        assert client.statistics.waiting == MAX_WINDOW < MAX_WAITING
        assert not any(reply.done() for reply in replies)


def test_each_request_times_out_by_itself(home: Path) -> None:
    with Peer(home, {"GetState": lambda _: SILENCE}) as peer, connect(peer) as client:
        with client.pipeline(timeout=0.2) as pipe:
            silent, answered = pipe.get_state("a"), pipe.ping()
        assert answered.result() == WALL_MS
        with pytest.raises(TimedOut, match=r"GetState was not answered within 0\.2 s"):
            silent.result()


def test_without_a_timeout_that_of_the_client_counts(home: Path) -> None:
    with Peer(home, {"GetState": lambda _: SILENCE}) as peer, connect(peer, request_timeout=0.1) as client:
        with client.pipeline() as pipe:
            silent = pipe.get_state("a")
        assert isinstance(silent.exception(), TimedOut)


def test_a_request_that_never_finds_room_times_out_too(home: Path) -> None:
    recovery = Recovery(resend_after=None)
    with (
        Peer(home, {"GetState": lambda _: SILENCE}, write_file=False) as peer,
        zmq.Context() as context,
        Client(peer.connection, context=context, recovery=recovery) as client,
    ):
        full, short = client.pipeline(MAX_WINDOW), client.pipeline(timeout=0.1)
        for _ in range(MAX_WINDOW):
            full.get_state("a")
        reply = short.get_state("b")
        # Nothing else wakes the I/O thread for 5 s.
        assert isinstance(reply.exception(HELLO_TIMEOUT - 1.0), TimedOut)


def test_requests_that_the_rate_limit_refuses_are_sent_again(home: Path) -> None:
    refused: set[str] = set()

    def limited(data: dict[str, Any]) -> Any:
        if data["key"] in refused:
            return entry(data)
        refused.add(data["key"])
        return RateLimitExceeded("too fast", retryAfterMs=1)

    with Peer(home, {"GetState": limited}) as peer, connect(peer, recovery=QUICK) as client:
        with client.pipeline(window=16) as pipe:
            replies = [pipe.get_state(f"a.k{number}") for number in range(64)]
        assert [reply.result().key for reply in replies] == [f"a.k{number}" for number in range(64)]
        assert client.statistics.resent == 64


def test_requests_under_way_go_to_the_next_broker_under_the_same_ids(home: Path) -> None:
    with Peer(home, {"GetState": lambda _: SILENCE}) as first:
        client = connect(first, recovery=QUICK)
        pipe = client.pipeline(window=40)
        replies = [pipe.get_state(f"a.k{number}") for number in range(20)]
        wait_until(lambda: len(keys_asked(first)) == 20, SECONDS)
    replies += [pipe.get_state(f"a.k{number}") for number in range(20, 40)]
    with Peer(home, {"GetState": entry}) as second, client, pipe:
        assert [reply.result(SECONDS).key for reply in replies] == [f"a.k{number}" for number in range(40)]
        ids = {data["key"]: request_id for kind, request_id, data in first.asked if kind == "GetState"}
        again = {data["key"]: request_id for kind, request_id, data in second.asked if kind == "GetState"}
        assert {key: again[key] for key in ids} == ids
        assert keys_asked(second) == [f"a.k{number}" for number in range(40)]


def test_threads_share_a_pipeline(home: Path) -> None:
    with Peer(home, {"GetState": entry}) as peer, connect(peer) as client, ThreadPoolExecutor(6) as pool:
        with client.pipeline(window=8) as pipe:

            def ask(thread: int) -> list[str]:
                replies = [pipe.get_state(f"a.t{thread}k{number}") for number in range(50)]
                return [reply.result(SECONDS).key for reply in replies]

            asking = [pool.submit(ask, thread) for thread in range(6)]
            for thread, one in enumerate(asking):
                assert one.result(SECONDS) == [f"a.t{thread}k{number}" for number in range(50)]
        assert client.statistics.answered == 300


# --- the end ---


def test_an_exception_in_the_block_leaves_a_usable_client(home: Path) -> None:
    opened = threading.Event()

    def gated(data: dict[str, Any]) -> Any:
        assert opened.wait(SECONDS)
        return entry(data)

    def interrupted(pipe: backtestr.Pipeline, replies: list[backtestr.PipelinedReply[StateEntry]]) -> None:
        with pipe:
            replies.append(pipe.get_state("a.b"))
            wait_until(lambda: client.statistics.waiting == 1, SECONDS)
            raise KeyboardInterrupt

    replies: list[backtestr.PipelinedReply[StateEntry]] = []
    with Peer(home, {"GetState": gated}) as peer, connect(peer) as client:
        pipe = client.pipeline()
        with pytest.raises(KeyboardInterrupt):
            interrupted(pipe, replies)
        [reply] = replies
        assert not reply.done(), "the block waits for nothing after an exception"
        opened.set()
        assert client.ping() == WALL_MS
        assert reply.result(SECONDS).key == "a.b"
        with pytest.raises(RuntimeError, match="pipeline is closed"):
            pipe.ping()


def test_a_closed_client_ends_a_pipeline(home: Path) -> None:
    with Peer(home, {"GetState": lambda _: SILENCE}) as peer, ThreadPoolExecutor(1) as pool:
        client = connect(peer)
        pipes = [client.pipeline(MAX_WINDOW) for _ in range(2)]
        replies = [pipe.get_state("a") for pipe in pipes for _ in range(MAX_WINDOW)]
        waiting = pool.submit(replies[-1].result)  # of a request for which there is no room
        wait_until(lambda: bool(pipes[1]._window._waiting), SECONDS)
        client.close()
        with pytest.raises(RuntimeError, match="closed"):
            waiting.result(SECONDS)
        for reply in replies:
            with pytest.raises(RuntimeError, match="closed"):
                reply.result(SECONDS)
        with pytest.raises(RuntimeError, match="closed"):
            pipes[0].ping()


def test_a_thread_that_waits_for_room_ends_with_the_client(home: Path) -> None:
    with Peer(home, {"Ping": lambda _: SILENCE}) as peer, ThreadPoolExecutor(1) as pool:
        client = connect(peer)
        pipe = client.pipeline(window=1)
        pipe.ping()
        waiting = pool.submit(pipe.ping)
        wait_until(lambda: bool(pipe._window._waiting), SECONDS)
        client.close()
        with pytest.raises(RuntimeError, match="closed"):
            waiting.result(SECONDS)


def test_a_client_keeps_nothing_of_a_pipeline_that_ended(home: Path) -> None:
    with Peer(home) as peer, connect(peer) as client:
        with client.pipeline() as pipe:
            pipe.ping()
        assert _windows_of(client) == {}


def _windows_of(client: Client) -> Any:
    return client._io_thread._windows._open
