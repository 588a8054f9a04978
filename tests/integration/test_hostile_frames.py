"""Recorded, changed and invented frames on every bound socket: none is executed, and the broker goes on as it was."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import zmq

from backtestr_protocol.codec import RESPONSE, Signer, decode_message, decode_stream
from backtestr_protocol.errors import AuthenticationError
from backtestr_protocol.worker_channel import Beat, decode_to_broker, encode_to_broker
from integration.conftest import QUICK
from integration.test_end_to_end import SYNTH
from support.harness import RunningBroker, Stranger, running_broker, wait_until
from support.protocol.hostile import bit_flips, hostile_lists
from support.protocol.independent import Fields

# Requests in between, as many as a history of digests would forget.
OTHERS = 65_536
# What is under way at once; the broker's queue for one peer is 1,000.
IN_FLIGHT = 256
LISTS = 3_000
# Buffers of libzmq and of Python that a flood leaves behind; what leaks, leaks more than that.
MAX_GROWTH = 96 << 20


def backtests(stranger: Stranger) -> int:
    return len(stranger.ask("ListBacktests", {})["backtests"])


def code(envelope: Fields) -> str:
    found: str = envelope["payload"]["data"]["code"]
    return found


# --- recorded frames ----------------------------------------------------------------------------------------------


def test_a_recording_played_again_at_once_and_after_65536_others(stranger: Stranger) -> None:
    recorded = stranger.requests.make("StartBacktest", SYNTH)
    stranger.exchange(recorded)
    known = backtests(stranger)
    assert code(stranger.send_and_receive(recorded)[0]) == "REPLAY_DETECTED"
    waiting = 0
    for _ in range(OTHERS):
        stranger.dealer.send_multipart(stranger.requests.make("Ping", {}))
        waiting += 1
        while waiting >= IN_FLIGHT:
            stranger.dealer.recv_multipart()
            waiting -= 1
    for _ in range(waiting):
        stranger.receive()
    assert code(stranger.send_and_receive(recorded)[0]) == "REPLAY_DETECTED"
    assert backtests(stranger) == known


def test_a_recording_from_another_connection(broker: RunningBroker, stranger: Stranger) -> None:
    recorded = [stranger.requests.make("StartBacktest", SYNTH) for _ in range(2)]
    stranger.exchange(recorded[0])
    known = backtests(stranger)
    with Stranger(broker.connection_file, "thief") as thief:
        for frames in recorded:  # one that arrived, and one that was caught on its way
            assert code(thief.send_and_receive(frames)[0]) == "SESSION_UNKNOWN"
        thief.hello()
        for frames in recorded:
            assert code(thief.send_and_receive(frames)[0]) == "SESSION_UNKNOWN"
    assert backtests(stranger) == known


def test_a_recording_of_a_whole_conversation_opens_no_session(broker: RunningBroker, stranger: Stranger) -> None:
    with Stranger(broker.connection_file, "victim") as victim:
        recorded = [victim.requests.hello()]
        victim.requests.welcomed(victim.exchange(recorded[0]))
        recorded.append(victim.requests.make("StartBacktest", SYNTH))
        victim.exchange(recorded[1])
        known = backtests(stranger)
        with Stranger(broker.connection_file, "thief") as thief:
            codes = [code(thief.send_and_receive(frames)[0]) for frames in recorded]
            assert codes == ["REPLAY_DETECTED", "SESSION_UNKNOWN"]
        assert backtests(stranger) == known


def test_a_recording_after_a_restart_of_the_broker() -> None:
    with running_broker({"broker.toml": QUICK}) as broker:
        with Stranger(broker.connection_file) as before:
            hello = before.requests.hello()
            before.requests.welcomed(before.exchange(hello))
            recorded = before.requests.make("StartBacktest", SYNTH)
            before.exchange(recorded)
        broker.stop()
        broker.start()
        with Stranger(broker.connection_file) as after:
            after.hello()
            known = backtests(after)
            for frames in (hello, recorded):
                with Stranger(broker.connection_file, "thief") as thief:  # complaints come once a second per connection
                    assert code(thief.send_and_receive(frames)[0]) == "AUTHENTICATION_ERROR"
            assert after.ask("GetSystemStatus", {})["connectedClients"] == 1
            assert backtests(after) == known


def test_frames_swapped_between_requests(broker: RunningBroker, stranger: Stranger) -> None:
    known = backtests(stranger)
    ids = [str(uuid.uuid4()) for _ in range(2)]
    first, second = (
        stranger.requests.make("StartBacktest", {**SYNTH, "backtestId": one}, attachments=[one.encode(), b"more"])
        for one in ids
    )
    swapped = [
        [first[0], *second[1:]],
        [second[0], *first[1:]],
        [*first[:2], *second[2:]],
        [*first[:2], first[3], first[2]],
        [*first[:3], second[3] + b"!"],
        [first[0], first[1] + first[2], first[3]],
        first[:3],
        [*first, second[2]],
    ]
    for frames in swapped:
        with Stranger(broker.connection_file, "swapper") as swapper:
            assert code(swapper.send_and_receive(frames)[0]) == "AUTHENTICATION_ERROR"
        stranger.dealer.send_multipart(frames)  # and on the connection that they belong to
    stranger.requests.counter += 1
    assert after_all(stranger) == known


def after_all(stranger: Stranger) -> int:
    """How many backtests there are once everything sent so far was dealt with: a connection keeps the order."""
    request = stranger.requests.make("ListBacktests", {}, message_id=str(uuid.uuid4()))
    stranger.dealer.send_multipart(request)
    while True:
        envelope, _ = stranger.receive()
        if envelope["messageType"] == "Response" and "backtests" in envelope["payload"]["data"]:
            return len(envelope["payload"]["data"]["backtests"])


# --- one bit ------------------------------------------------------------------------------------------------------


def test_one_bit_flipped_in_each_byte_of_a_request(stranger: Stranger) -> None:
    known = backtests(stranger)
    good = stranger.requests.make("StartBacktest", SYNTH, attachments=[b"attached", b""])
    flips = 0
    for _, _, frames in bit_flips(good):
        stranger.dealer.send_multipart(frames)
        flips += 1
    assert flips == sum(map(len, good)) > 300
    assert after_all(stranger) == known
    stranger.exchange(good)  # unchanged, it is taken: its counter was used by none of the others
    assert backtests(stranger) == known + 1


def test_one_bit_flipped_in_each_byte_of_what_the_broker_sends(stranger: Stranger) -> None:
    """What a client verifies with: nothing that was changed on the way is believed."""
    signer = Signer(stranger.key)
    stranger.dealer.send_multipart(
        stranger.requests.make("GetMarketData", {"symbol": "SYNTH", "timeframe": "1d", "limit": 2, "indicators": []})
    )
    answer = stranger.dealer.recv_multipart()
    assert len(answer) == 3
    decode_message(signer, RESPONSE, answer)
    for _, _, frames in bit_flips(answer):
        with pytest.raises(AuthenticationError):
            decode_message(signer, RESPONSE, frames)
    stream = stranger.subscribe("system", "system.status").socket
    assert stream.poll(10_000)
    message = [*stream.recv_multipart()]
    assert decode_stream(signer, message).topic == "system.status"
    for _, _, frames in bit_flips(message):
        with pytest.raises(AuthenticationError):
            decode_stream(signer, frames)


def test_one_bit_flipped_in_each_byte_of_a_note_to_the_broker() -> None:
    signer = Signer(bytes(range(32)))
    good = encode_to_broker(signer, Beat(task_id="a task"), [b"payload"])
    decode_to_broker(signer, good)
    for _, _, frames in bit_flips(good):
        with pytest.raises(AuthenticationError):
            decode_to_broker(signer, frames)


def test_more_subscriptions_than_anyone_needs_end_with_their_connection() -> None:
    tcp = {"broker.toml": QUICK + '[transport]\nkind = "tcp"\n'}
    with running_broker(tcp) as broker, Stranger(broker.connection_file) as stranger:
        stranger.hello()
        status = stranger.subscribe("system", "system.status")
        greedy = stranger.open(zmq.SUB)
        greedy.sndhwm = 0
        greedy.connect(stranger.connection["endpoints"]["prices"])
        for number in range(11_000):
            greedy.subscribe(f"prices.{number}")
        wait_until(lambda: "prices: more than 10000 different subscriptions" in broker.log, 20)
        greedy.close()
        wait_until(lambda: "prices" not in stranger.ask("GetSystemStatus", {})["streams"]["subscriptions"], 20)
        assert stranger.ask("Ping", {}), "nobody else lost a connection"
        assert status.receive()


# --- floods -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def target() -> Iterator[RunningBroker]:
    """A broker of its own: what floods leave in its log is nobody else's."""
    with running_broker({"broker.toml": QUICK}) as running:
        yield running
        assert running.process.poll() is None, f"the broker ended:\n{running.log[-4000:]}"


@pytest.mark.parametrize("name", ["requests", "engine", "prices", "progress", "orders", "positions", "system"])
def test_a_flood_of_hostile_frame_lists_leaves_the_broker_as_it_was(target: RunningBroker, name: str) -> None:
    process = psutil.Process(target.process.pid)
    with Stranger(target.connection_file) as stranger:
        stranger.hello()
        before = process.memory_info().rss
        good = stranger.requests.make("StartBacktest", SYNTH, attachments=[b"attached"])
        endpoints: Any = {**stranger.connection["endpoints"], "engine": f"ipc://{target.runtime_dir}/engine"}
        flood = stranger.open(zmq.DEALER if name in ("requests", "engine") else zmq.XSUB)
        flood.linger = 500
        flood.reconnect_ivl = 1
        flood.connect(endpoints[name])
        for number, frames in enumerate(hostile_lists(4, LISTS, good, stranger.key)):
            flood.send_multipart(frames)
            if number % 500 == 0:
                assert stranger.ask("Ping", {}), "it answers all the while"
        flood.close()
        assert after_all(stranger) == 0
        # It may have been busy for longer than it calls healthy; a heartbeat later it is not any more.
        wait_until(lambda: bool(stranger.ask("GetSystemStatus", {})["status"] == "healthy"), 20)
        assert process.memory_info().rss - before < MAX_GROWTH
        assert len(target.log) < 1 << 20, "nor is the log flooded"
