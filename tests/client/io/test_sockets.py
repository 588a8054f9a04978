"""The sockets of a connection are opened as subscriptions need them, and the loss of the DEALER alone is reported."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from backtestr.io.sockets import Sockets
from backtestr_protocol.topics import SOCKETS
from support.client.peer import Peer


@pytest.fixture
def peer(home: Path) -> Iterator[Peer]:
    with Peer(home) as peer:
        yield peer


@pytest.fixture
def sockets(peer: Peer) -> Iterator[Sockets]:
    with zmq.Context() as context:
        sockets = Sockets(context, peer.connection)
        yield sockets
        sockets.close()


def test_a_socket_is_opened_once_for_all_prefixes_that_it_carries(sockets: Sockets, peer: Peer) -> None:
    opened = sockets.subscribe("prices.A.1m")
    assert opened == [sockets.streams["prices"]]
    assert sockets.subscribe("prices.B.1m") == []
    peer.wait_for_subscription("prices.A.1m")
    peer.wait_for_subscription("prices.B.1m")
    assert len(sockets.subscribe("orders.b1")) == 1
    assert set(sockets.all) == {sockets.requests, *sockets.streams.values(), *sockets.monitors}


def test_a_message_arrives_on_the_socket_of_its_topic_until_the_subscription_ends(sockets: Sockets, peer: Peer) -> None:
    sockets.subscribe("orders.b1")
    sockets.subscribe("orders.b2")
    peer.wait_for_subscription("orders.b2")
    peer.publish("orders.b1", "OrderUpdate", {})
    stream = sockets.streams["orders"]
    assert stream.poll(10_000)
    assert stream.recv_multipart()[0] == b"orders.b1"
    sockets.unsubscribe("orders.b1")
    peer.publish("orders.b1", "OrderUpdate", {})
    peer.publish("orders.b2", "OrderUpdate", {})
    assert stream.poll(10_000)
    assert stream.recv_multipart()[0] == b"orders.b2", "what is not subscribed to is not received"


def test_without_curve_there_is_one_monitor_and_it_reports_a_broken_connection(sockets: Sockets, peer: Peer) -> None:
    [monitor] = sockets.monitors
    assert sockets.send([bytes(32), b"unsigned"])
    assert sockets.requests.poll(10_000), "the broker has answered, so the connection is open"
    assert list(sockets.connection_events()) == []
    peer.hang_up()
    assert monitor.poll(10_000)
    assert list(sockets.connection_events()) == [("lost", True)]


def test_every_socket_of_the_protocol_can_be_opened(sockets: Sockets) -> None:
    for prefix in ("prices.", "progress.b", "orders.b", "positions.b", "system.", "state."):
        sockets.subscribe(prefix)
    assert set(sockets.streams) <= set(SOCKETS)
