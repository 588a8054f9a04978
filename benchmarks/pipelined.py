"""This part measures requests a second with many in flight: Ping through the broker beside a raw echo, over ipc.

    make bench-pipelined

On either side one client keeps 100 requests in flight: it sends as many, and one more for every answer. Blocks of both
alternate. The broker is asked by the session that every client has, on one thread, and by eight threads that share one
client, each of which waits for its own answer.
"""

from __future__ import annotations

import contextlib
import secrets
import tempfile
import threading
import time
from collections.abc import Iterable

from brokers import running_broker
from figures import Figure, Missing, Target, rounds, run_part
from floors import Context, Socket, floor
from round_trips import ECHO, PAYLOAD_BYTES, UNLIMITED, connect, dealer_to, own_context
from turns import Work, in_turn

from backtestr.client import Client
from backtestr.core.effects import Answered, Failed, Send, Welcomed
from backtestr.core.session import Session
from backtestr.io.connection_file import ConnectionFile
from backtestr_protocol.connection import Connection
from backtestr_protocol.messages import Nothing

IN_FLIGHT = 100
REQUESTS = 4_000
BLOCKS = 20
THREADS = 8
SESSION = "session, one thread"
SHARED = f"one client, {THREADS} threads"
PART = "Pipelined requests over ipc"


class PipelinedSession:
    """A session on a socket with requests in flight."""

    def __init__(self, context: Context, connection: Connection, client_id: str = "pipelined") -> None:
        self.dealer = dealer_to(context, connection.endpoints.requests)
        self._session = Session(client_id, secrets.token_hex(8))
        self._send(self._session.connected(connection.signer(), time.monotonic(), _wall_ms()))
        while not self.receive(Welcomed):
            pass

    def ask(self) -> None:
        _, effects = self._session.request("Ping", Nothing(), time.monotonic(), _wall_ms(), 60.0)
        self._send(effects)

    def receive(self, kind: type = Answered) -> int:
        """Receive one message, and return how many effects of that kind it had."""
        effects = self._session.receive(self.dealer.recv_multipart(), time.monotonic(), _wall_ms())
        if refused := [one for one in effects if isinstance(one, Failed)]:
            raise RuntimeError(f"the broker refused a Ping: {refused[0].error}")
        return sum(isinstance(effect, kind) for effect in effects)

    def run(self, requests: int, in_flight: int) -> None:
        for _ in range(in_flight):
            self.ask()
        answered = 0
        while answered < requests:
            answered += self.receive()
            if answered <= requests - in_flight:
                self.ask()

    def _send(self, effects: Iterable[object]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                self.dealer.send_multipart(effect.frames)


def echoed(dealer: Socket) -> Work:
    payload = b"x" * PAYLOAD_BYTES

    def run() -> None:
        for _ in range(IN_FLIGHT):
            dealer.send(payload)
        for answered in range(1, REQUESTS + 1):
            dealer.recv()
            if answered <= REQUESTS - IN_FLIGHT:
                dealer.send(payload)

    return run


def by_threads(client: Client) -> Work:
    def ask() -> None:
        for _ in range(REQUESTS // THREADS):
            client.ping()

    def run() -> None:
        threads = [threading.Thread(target=ask) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return run


def measure(effort: float) -> list[Figure | Missing]:
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bt-"))
        address = f"ipc://{folder}/echo"
        stack.enter_context(floor("echo", address))
        broker = stack.enter_context(running_broker(config=UNLIMITED))
        context = stack.enter_context(own_context())
        client = stack.enter_context(connect(broker))
        session = PipelinedSession(context, ConnectionFile(broker.connection_file).read())
        works: dict[str, Work] = {
            ECHO: echoed(dealer_to(context, address)),
            SESSION: lambda: session.run(REQUESTS, IN_FLIGHT),
            SHARED: by_threads(client),
        }
        in_turn(works, 1)
        took = in_turn(works, rounds(BLOCKS, effort))
    targets = {SESSION: Target(0.75, "at least")}
    return [
        Figure(
            part=PART,
            name=name,
            unit="1/s",
            values=[REQUESTS / seconds for seconds in values],
            beside=None if name == ECHO else ECHO,
            target=targets.get(name),
        )
        for name, values in took.items()
    ]


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


if __name__ == "__main__":
    run_part(__doc__, measure)
