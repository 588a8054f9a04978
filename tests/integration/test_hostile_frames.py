"""The broker executes no recorded, changed or invented frames on any socket, and continues to serve."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import zmq

from backtestr_protocol.codec import RESPONSE, Signer, decode_message, decode_stream
from backtestr_protocol.errors import AuthenticationError
from backtestr_protocol.worker_channel import Ready, decode_proof, encode_proof
from integration.conftest import QUICK
from integration.test_end_to_end import SYNTH
from support.harness import RawClient, RunningBroker, running_broker, wait_until
from support.protocol.hostile import bit_flips, hostile_lists
from support.protocol.independent import Fields

# Requests in between, as many as a history of digests would forget.
OTHERS = 65_536
# Requests under way at once; the broker's queue for one peer is 1,000.
IN_FLIGHT = 256
LISTS = 3_000
# Bytes of buffers of libzmq and of Python that a flood leaves behind; a leak would be larger.
MAX_GROWTH = 96 << 20


def backtests(raw_client: RawClient) -> int:
    return len(raw_client.ask("ListBacktests", {})["backtests"])


def code(envelope: Fields) -> str:
    found: str = envelope["payload"]["data"]["code"]
    return found


# --- recorded frames ----------------------------------------------------------------------------------------------


def test_recorded_frames_are_refused_at_once_and_after_65536_others(raw_client: RawClient) -> None:
    recorded = raw_client.requests.make("StartBacktest", SYNTH)
    raw_client.exchange(recorded)
    known = backtests(raw_client)
    assert code(raw_client.send_and_receive(recorded)[0]) == "REPLAY_DETECTED"
    waiting = 0
    for _ in range(OTHERS):
        raw_client.dealer.send_multipart(raw_client.requests.make("Ping", {}))
        waiting += 1
        while waiting >= IN_FLIGHT:
            raw_client.dealer.recv_multipart()
            waiting -= 1
    for _ in range(waiting):
        raw_client.receive()
    assert code(raw_client.send_and_receive(recorded)[0]) == "REPLAY_DETECTED"
    assert backtests(raw_client) == known


def test_recorded_frames_from_another_connection_are_refused(broker: RunningBroker, raw_client: RawClient) -> None:
    recorded = [raw_client.requests.make("StartBacktest", SYNTH) for _ in range(2)]
    raw_client.exchange(recorded[0])
    known = backtests(raw_client)
    with RawClient(broker.connection_file, "thief") as thief:
        for frames in recorded:  # one that arrived, and one that did not
            assert code(thief.send_and_receive(frames)[0]) == "SESSION_UNKNOWN"
        thief.hello()
        for frames in recorded:
            assert code(thief.send_and_receive(frames)[0]) == "SESSION_UNKNOWN"
    assert backtests(raw_client) == known


def test_recorded_frames_of_a_whole_session_open_none(broker: RunningBroker, raw_client: RawClient) -> None:
    with RawClient(broker.connection_file, "other") as other:
        recorded = [other.requests.hello()]
        other.requests.welcomed(other.exchange(recorded[0]))
        recorded.append(other.requests.make("StartBacktest", SYNTH))
        other.exchange(recorded[1])
        known = backtests(raw_client)
        with RawClient(broker.connection_file, "thief") as thief:
            codes = [code(thief.send_and_receive(frames)[0]) for frames in recorded]
            assert codes == ["REPLAY_DETECTED", "SESSION_UNKNOWN"]
        assert backtests(raw_client) == known


def test_recorded_frames_are_refused_after_a_restart_of_the_broker(own_broker: RunningBroker) -> None:
    with RawClient(own_broker.connection_file) as before:
        hello = before.requests.hello()
        before.requests.welcomed(before.exchange(hello))
        recorded = before.requests.make("StartBacktest", SYNTH)
        before.exchange(recorded)
    own_broker.stop()
    own_broker.start()
    with RawClient(own_broker.connection_file) as after:
        after.hello()
        known = backtests(after)
        for frames in (hello, recorded):
            with RawClient(own_broker.connection_file, "thief") as thief:  # one unattributed error a second each
                assert code(thief.send_and_receive(frames)[0]) == "AUTHENTICATION_ERROR"
        assert after.ask("GetSystemStatus", {})["connectedClients"] == 1
        assert backtests(after) == known


def test_frames_swapped_between_requests(broker: RunningBroker, raw_client: RawClient) -> None:
    known = backtests(raw_client)
    ids = [str(uuid.uuid4()) for _ in range(2)]
    first, second = (
        raw_client.requests.make("StartBacktest", {**SYNTH, "backtestId": one}, attachments=[one.encode(), b"more"])
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
        with RawClient(broker.connection_file, "swapper") as swapper:
            assert code(swapper.send_and_receive(frames)[0]) == "AUTHENTICATION_ERROR"
        raw_client.dealer.send_multipart(frames)  # and on their own connection
    raw_client.requests.counter += 1
    assert after_all(raw_client) == known


def after_all(raw_client: RawClient) -> int:
    """Return the number of backtests once every message sent so far was handled: a connection keeps the order."""
    request = raw_client.requests.make("ListBacktests", {}, message_id=str(uuid.uuid4()))
    raw_client.dealer.send_multipart(request)
    while True:
        envelope, _ = raw_client.receive()
        if envelope["messageType"] == "Response" and "backtests" in envelope["payload"]["data"]:
            return len(envelope["payload"]["data"]["backtests"])


# --- one bit ------------------------------------------------------------------------------------------------------


def test_one_bit_flipped_in_each_byte_of_a_request(raw_client: RawClient) -> None:
    known = backtests(raw_client)
    good = raw_client.requests.make("StartBacktest", SYNTH, attachments=[b"attached", b""])
    flips = 0
    for _, _, frames in bit_flips(good):
        raw_client.dealer.send_multipart(frames)
        flips += 1
    assert flips == sum(map(len, good)) > 300
    assert after_all(raw_client) == known
    raw_client.exchange(good)  # unchanged, it is executed: the broker took its counter from none of the others
    assert backtests(raw_client) == known + 1


def test_one_bit_flipped_in_each_byte_of_an_answer_or_stream_message(raw_client: RawClient) -> None:
    """The client's decoder refuses every changed message."""
    signer = Signer(raw_client.key)
    raw_client.dealer.send_multipart(
        raw_client.requests.make("GetMarketData", {"symbol": "SYNTH", "timeframe": "1d", "limit": 2, "indicators": []})
    )
    answer = raw_client.dealer.recv_multipart()
    assert len(answer) == 3
    decode_message(signer, RESPONSE, answer)
    for _, _, frames in bit_flips(answer):
        with pytest.raises(AuthenticationError):
            decode_message(signer, RESPONSE, frames)
    stream = raw_client.subscribe("system", "system.status").socket
    assert stream.poll(10_000)
    message = [*stream.recv_multipart()]
    assert decode_stream(signer, message).topic == "system.status"
    for _, _, frames in bit_flips(message):
        with pytest.raises(AuthenticationError):
            decode_stream(signer, frames)


def test_one_bit_flipped_in_each_byte_of_the_proof_of_a_worker() -> None:
    signer = Signer(bytes(range(32)))
    good = encode_proof(signer, Ready(worker_id="compute-1", pid=1, kind="compute", algorithms=[], series=[]))
    decode_proof(signer, good)
    for _, _, frames in bit_flips(good):
        with pytest.raises(AuthenticationError):
            decode_proof(signer, frames)


def test_a_connection_with_more_than_10000_subscriptions_is_closed(tcp_broker: RunningBroker) -> None:
    with RawClient(tcp_broker.connection_file) as raw_client:
        raw_client.hello()
        status = raw_client.subscribe("system", "system.status")
        greedy = raw_client.open(zmq.SUB)
        greedy.sndhwm = 0
        greedy.connect(raw_client.connection["endpoints"]["prices"])
        for number in range(11_000):
            greedy.subscribe(f"prices.{number}")
        wait_until(lambda: "prices: more than 10000 different subscriptions" in tcp_broker.log, 20)
        greedy.close()
        wait_until(lambda: "prices" not in raw_client.ask("GetSystemStatus", {})["streams"]["subscriptions"], 20)
        assert raw_client.ask("Ping", {}), "no other client lost a connection"
        assert status.receive()


# --- floods -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def target() -> Iterator[RunningBroker]:
    """Run a broker for the floods, whose log and memory no other test touches."""
    with running_broker({"broker.toml": QUICK}) as running:
        yield running
        assert running.process.poll() is None, f"the broker ended:\n{running.log[-4000:]}"


@pytest.mark.parametrize("name", ["requests", "engine", "prices", "progress", "orders", "positions", "system"])
def test_a_flood_of_hostile_frame_lists_leaves_the_broker_as_it_was(target: RunningBroker, name: str) -> None:
    process = psutil.Process(target.process.pid)
    with RawClient(target.connection_file) as raw_client:
        raw_client.hello()
        before = process.memory_info().rss
        good = raw_client.requests.make("StartBacktest", SYNTH, attachments=[b"attached"])
        endpoints: Any = {**raw_client.connection["endpoints"], "engine": f"ipc://{target.runtime_dir}/engine"}
        flood = raw_client.open(zmq.DEALER if name in ("requests", "engine") else zmq.XSUB)
        flood.linger = 500
        flood.reconnect_ivl = 1
        flood.connect(endpoints[name])
        for number, frames in enumerate(hostile_lists(4, LISTS, good, raw_client.key)):
            flood.send_multipart(frames)
            if number % 500 == 0:
                assert raw_client.ask("Ping", {}), "it answers in between"
        flood.close()
        assert after_all(raw_client) == 0
        # It may have been busy for longer than it calls healthy; a heartbeat later it is not any more.
        wait_until(lambda: bool(raw_client.ask("GetSystemStatus", {})["status"] == "healthy"), 20)
        assert process.memory_info().rss - before < MAX_GROWTH
        assert len(target.log) < 1 << 20, "nor is the log flooded"
