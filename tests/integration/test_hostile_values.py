"""Requests with hostile values are answered by a real broker and its workers, which stay the same processes."""

from __future__ import annotations

import time
from typing import get_args

import zmq

from backtestr_protocol.errors import ErrorCode
from integration.test_end_to_end import SYNTH
from support.harness import RawClient, RunningBroker
from support.protocol import hostile_values

REQUESTS = 2_000
CODES = set(get_args(ErrorCode)) - {"SYSTEM_ERROR"}


def test_hostile_values_are_answered_with_types_and_harm_no_worker(broker: RunningBroker) -> None:
    workers = broker.worker_pids()
    with RawClient(broker.connection_file, "hostile") as raw_client:
        raw_client.hello()
        for name, field, data in hostile_values.random_requests(seed=7, count=REQUESTS):
            if name in ("Hello", "Goodbye", "StopBroker"):  # they end the session; they are attacked without a socket
                continue
            envelope = hostile_values.envelope(name, data, f"hostile-{raw_client.requests.counter}", now_ms())
            raw_client.requests.counter += 1
            envelope |= {"sessionId": raw_client.requests.session_id, "counter": raw_client.requests.counter}
            answer, _ = raw_client.send_and_receive(hostile_values.request_frames(raw_client.key, envelope))
            payload, about = answer["payload"], (name, field, str(data)[:200])
            assert answer.get("correlationId") == envelope["id"], about
            assert payload["type"] == "Success" or payload["data"]["code"] in CODES, (about, payload)
        assert raw_client.ask("Ping", {})
        raw_client.ask("StartBacktest", {**SYNTH, "backtestId": "after-hostile-values"})
    assert broker.worker_pids() == workers
    assert "Traceback" not in broker.log


def now_ms() -> int:
    return time.time_ns() // 1_000_000


# --- a routing id of one's own ---


def test_a_connection_that_names_itself_gets_no_session(broker: RunningBroker) -> None:
    """Under its name a later connection would go on with the session: ROUTER could not tell the two apart."""
    with RawClient(broker.connection_file, "named") as raw_client:
        raw_client.dealer.close()
        raw_client.dealer = raw_client.open(zmq.DEALER)
        raw_client.dealer.setsockopt(zmq.ROUTING_ID, b"of my own")
        raw_client.dealer.connect(raw_client.connection["endpoints"]["requests"])
        refused, _ = raw_client.send_and_receive(raw_client.requests.hello())
        assert refused["payload"]["data"]["code"] == "VALIDATION_ERROR"
        assert "ZMQ_ROUTING_ID" in refused["payload"]["data"]["message"]


def test_a_session_does_not_go_on_over_a_new_connection(broker: RunningBroker) -> None:
    with RawClient(broker.connection_file, "again") as raw_client:
        raw_client.hello()
        never_sent = raw_client.requests.make("Ping", {})
        endpoint = raw_client.connection["endpoints"]["requests"]
        raw_client.dealer.disconnect(endpoint)
        raw_client.dealer.connect(endpoint)
        answer, _ = raw_client.send_and_receive(never_sent)
        assert answer["payload"]["data"]["code"] == "SESSION_UNKNOWN"
