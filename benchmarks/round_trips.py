"""This part measures round trips of Ping and GetState beside a raw echo: ipc, tcp, CURVE and in one process.

    make bench-rtt

Over ipc, requests to NATS and Jupyter are measured as well. All kinds of a section run in blocks that alternate, so
that a noisy machine is noisy for each. The figures of every block are its median (p50) and its 99th percentile (p99).
Then single requests follow, each after 100 ms without one.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import statistics
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import peers
import zmq
from brokers import Running, running_broker
from figures import Figure, Missing, Target, percentile, rounds, run_part
from floors import CURVE_PUBLIC, CURVE_SECRET, KEY, Context, PlainSigner, Socket, floor
from turns import Trips, all_in_turn, trips

from backtestr.client import Client
from backtestr.core.effects import Answered, Send, Welcomed
from backtestr.core.session import Session
from backtestr.embedded_broker import EmbeddedBroker
from backtestr.io.connection_file import ConnectionFile
from backtestr_protocol.codec import REQUEST, RESPONSE
from backtestr_protocol.connection import Connection
from backtestr_protocol.keys import KeyFolder
from backtestr_protocol.messages import Nothing

PAYLOAD_BYTES = 200
BLOCKS = 24
TRIPS = 250
# Fewer than others: Jupyter takes milliseconds.
KERNEL_TRIPS = 20
IDLE_SECONDS = 0.1
IDLE_TRIPS = 50

ECHO = "raw echo"
SIGNED_ECHO = "raw echo, signed"
SESSION = "Ping, one thread"
PING = "client.ping()"
STATE = "client.get_state()"
NATS = "NATS request (tcp)"
KERNEL = "Jupyter kernel_info"

TCP = '[transport]\nkind = "tcp"\ntcp_readable_by_local_users = true\n'
CURVE = '[transport]\nkind = "tcp"\n'
# No rate limit: GetState in a loop would reach it.
UNLIMITED = "[throttle]\nreal_time_per_second = 0\n"

# Beside the signed echo.
PING_TARGETS = {"p50": Target(1.4), "p99": Target(1.6)}
PEER_TARGETS = {NATS: Target(2.0, "at least"), KERNEL: Target(10.0, "at least")}


def dealer_to(context: Context, address: str, *, curve: bool = False) -> Socket:
    dealer = context.socket(zmq.DEALER)
    dealer.linger = 0
    if curve:
        dealer.curve_publickey, dealer.curve_secretkey = zmq.curve_keypair()
        dealer.curve_serverkey = CURVE_PUBLIC
    dealer.connect(address)
    return dealer


def echo_trip(dealer: Socket) -> Trips:
    """Return the floor: one frame to a ROUTER and back."""
    payload = b"x" * PAYLOAD_BYTES

    def trip() -> None:
        dealer.send(payload)
        dealer.recv()

    return trips(trip)


def signed_echo_trip(dealer: Socket) -> Trips:
    """Return the floor of signed messages: as `echo_trip`, and both sides sign and verify."""
    payload = b"x" * PAYLOAD_BYTES
    signer = PlainSigner(KEY)

    def trip() -> None:
        dealer.send_multipart([signer.sign(REQUEST, [payload]), payload])
        signature, body = dealer.recv_multipart()
        signer.verify(RESPONSE, signature, [body])

    return trips(trip)


def session_trip(context: Context, connection: Connection) -> Trips:
    """Return Ping by the protocol, signed, verified, counted and correlated both ways, on one thread."""
    dealer = dealer_to(context, connection.endpoints.requests)
    session = Session("bench", secrets.token_hex(8))
    ping = Nothing()

    def send(effects: Iterable[object]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                dealer.send_multipart(effect.frames)

    def wait_for(kind: type) -> None:
        while True:
            effects = session.receive(dealer.recv_multipart(), time.monotonic(), time.time_ns() // 1_000_000)
            if any(isinstance(effect, kind) for effect in effects):
                return

    send(session.connected(connection.signer(), time.monotonic(), time.time_ns() // 1_000_000))
    wait_for(Welcomed)

    def trip() -> None:
        _, effects = session.request("Ping", ping, time.monotonic(), time.time_ns() // 1_000_000, 10.0)
        send(effects)
        wait_for(Answered)

    return trips(trip)


def client_trips(client: Client) -> dict[str, Trips]:
    client.update_state("bench.key", {"theme": "dark", "size": 12})
    return {PING: trips(client.ping), STATE: trips(lambda: client.get_state("bench.key"))}


def compared(part: str, kinds: Mapping[str, Trips], effort: float) -> list[Figure | Missing]:
    """Compare all kinds in loops, and some of them after idle times."""
    times = {name: KERNEL_TRIPS if name == KERNEL else TRIPS for name in kinds}
    all_in_turn(kinds, 1, times)
    blocks = all_in_turn(kinds, rounds(BLOCKS, effort), times)
    figures: list[Figure | Missing] = []
    for label, percent in (("p50", 50), ("p99", 99)):
        for name, took in blocks.items():
            if name == KERNEL and label == "p99":
                continue  # too few trips for a p99
            beside = None if name == ECHO else f"{PING if name in PEER_TARGETS else ECHO} {label}"
            target = PEER_TARGETS.get(name) if label == "p50" else None
            if name == PING and SIGNED_ECHO in kinds:
                beside, target = f"{SIGNED_ECHO} {label}", PING_TARGETS[label]
            values = [1e6 * percentile(block, percent) for block in took]
            figure = Figure(part=part, name=f"{name} {label}", unit="µs", values=values, beside=beside, target=target)
            figures.append(figure)
    asked = {name: after_idling(kinds[name]) for name in (ECHO, PING, STATE)}
    waited = all_in_turn(asked, rounds(IDLE_TRIPS, effort), dict.fromkeys(asked, 1))
    for name, took in waited.items():
        values = [1e6 * statistics.median(block) for block in took]
        beside = None if name == ECHO else f"{ECHO}, idle"
        figures.append(Figure(part=part, name=f"{name}, idle", unit="µs", values=values, beside=beside))
        figures.append(
            Figure(
                part=part,
                name=f"{name}, idle p99",
                unit="µs",
                values=[percentile(values, 99)],
                beside=beside and f"{beside} p99",
            )
        )
    return figures


def after_idling(kind: Trips) -> Trips:
    def waited(times: int) -> list[float]:
        time.sleep(IDLE_SECONDS)
        return kind(times)

    return waited


@contextlib.contextmanager
def own_context() -> Iterator[Context]:
    context: Context = zmq.Context()
    try:
        yield context
    finally:
        context.destroy(linger=0)


def connect(broker: Running) -> Client:
    """Connect a client, with a key on the allow-list if the broker needs one."""
    file = ConnectionFile(broker.connection_file)
    if '"serverPublicKey"' in broker.connection_file.read_text("utf-8"):
        keys = KeyFolder(broker.data_dir / "keys")
        pair, secret = keys.new("bench")
        keys.allow("bench", pair.public)
        file = ConnectionFile(broker.connection_file, secret)
    return Client(file.read(), keys=file.own_keys)


def over_ipc(effort: float) -> list[Figure | Missing]:
    """Measure the usual transport beside all floors and peers."""
    part = "Round trips over ipc"
    missing: list[Figure | Missing] = []
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bt-"))
        plain, signed = f"ipc://{folder}/echo", f"ipc://{folder}/signed"
        stack.enter_context(floor("echo", plain))
        stack.enter_context(floor("signed-echo", signed))
        broker = stack.enter_context(running_broker(config=UNLIMITED))
        context = stack.enter_context(own_context())
        client = stack.enter_context(connect(broker))
        kinds = {
            ECHO: echo_trip(dealer_to(context, plain)),
            SIGNED_ECHO: signed_echo_trip(dealer_to(context, signed)),
            SESSION: session_trip(context, ConnectionFile(broker.connection_file).read()),
            **client_trips(client),
        }
        if (program := peers.nats_server()) is None:
            missing.append(Missing(part, f"{NATS}: {peers.MISSING}"))
        else:
            kinds[NATS] = stack.enter_context(peers.nats_request(program))
        if peers.has_jupyter():
            kinds[KERNEL] = stack.enter_context(peers.kernel_info())
        else:
            missing.append(Missing(part, f"{KERNEL}: {peers.MISSING}"))
        return compared(part, kinds, effort) + missing


def over_tcp(part: str, config: str, effort: float) -> list[Figure | Missing]:
    curve = config == CURVE
    with contextlib.ExitStack() as stack:
        address = f"tcp://127.0.0.1:{_free_port()}"
        stack.enter_context(floor("echo", address, *(["--curve", CURVE_SECRET.decode()] if curve else [])))
        broker = stack.enter_context(running_broker(config=config + UNLIMITED))
        context = stack.enter_context(own_context())
        client = stack.enter_context(connect(broker))
        dealer = dealer_to(context, address, curve=curve)
        return compared(part, {ECHO: echo_trip(dealer), **client_trips(client)}, effort)


def in_one_process(effort: float) -> list[Figure | Missing]:
    """Measure broker, workers and client as threads beside an echo as a thread; they share Python's lock."""
    with tempfile.TemporaryDirectory(prefix="bt-") as folder, EmbeddedBroker(Path(folder)) as broker:
        stopping = threading.Event()
        router = broker.context.socket(zmq.ROUTER)
        router.bind("inproc://echo")
        thread = threading.Thread(target=_echo_until, args=(router, stopping))
        thread.start()
        dealer = dealer_to(broker.context, "inproc://echo")
        try:
            with broker.connect() as client:
                kinds = {ECHO: echo_trip(dealer), **client_trips(client)}
                return compared("Round trips in one process (inproc)", kinds, effort)
        finally:
            stopping.set()
            thread.join()
            dealer.close()


def _echo_until(router: Socket, stopping: threading.Event) -> None:
    """Echo messages; it blocks as the other echo does, but checks once a second if it is to stop."""
    router.rcvtimeo = 1000
    while not stopping.is_set():
        with contextlib.suppress(zmq.Again):
            router.send_multipart(router.recv_multipart())
    router.close(linger=0)


def _free_port() -> int:
    context: Context = zmq.Context()
    with context.socket(zmq.ROUTER) as socket:
        port = socket.bind_to_random_port("tcp://127.0.0.1")
    context.term()
    return port


def measure(effort: float) -> list[Figure | Missing]:
    os.environ.setdefault("POLARS_MAX_THREADS", "1")
    return [
        *over_ipc(effort),
        *over_tcp("Round trips over tcp", TCP, effort),
        *over_tcp("Round trips over tcp, encrypted (CURVE)", CURVE, effort),
        *in_one_process(effort),
    ]


if __name__ == "__main__":
    run_part(__doc__, measure)
