"""A fake link joins a real core, scripted workers and clients in one thread; its time is a number.

    link = Link()
    ann = link.client("ann")              # has sent Hello
    started = ann.ask("StartBacktest", config())
    link.worker("compute-1").finish()

Clients speak through a codec that shares no line with that of the broker; workers use the real worker channel.
Every effect of the core is executed at once and in order. Faults are context managers and methods: `drop_replies(n)`,
`drop_requests(n)`, `duplicate_requests()`, `hold_replies()`, `hold_commits()`, `full_disk()`, `set_clock(…)`,
`restart_broker()`, `lose_worker(worker)`. One listener receives everything, unless the link is made with
`listening=False`; `subscribe(peer, prefix)`, `unsubscribe` and `hang_up` act for peers of the streams.
Everything that happened is recorded: `events` with their times, `effects`, the `streams` by topic and the `notices`;
`recording()` has the events as the recorder writes them.
"""

from __future__ import annotations

import contextlib
import io
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from backtestr_broker.core.core import Core
from backtestr_broker.core.events import (
    ClientsDropped,
    Effect,
    Event,
    FindListeners,
    HostSample,
    Instruct,
    Kill,
    ListenersFound,
    Notify,
    Persist,
    Publish,
    ReadState,
    RemoveResults,
    Reply,
    RequestReceived,
    StartAgain,
    StateRead,
    Stop,
    Subscribed,
    SurveyFiles,
    Tick,
    WorkerExited,
    WorkerStarted,
)
from backtestr_broker.core.faults import fault_in
from backtestr_broker.core.settings import CoreSettings, Start
from backtestr_broker.recording.format import Record, header, write_record
from backtestr_broker.recording.parts import records
from backtestr_protocol import topics, worker_channel
from backtestr_protocol.codec import Signer, encode
from backtestr_protocol.messages import FetchMissed
from backtestr_protocol.rights import Right
from backtestr_protocol.topics import Socket
from backtestr_protocol.worker_channel import WorkerKind
from support.broker.clients import Client, SessionClient
from support.broker.disk import Disk
from support.broker.scripted_worker import ALGORITHM as ALGORITHM
from support.broker.scripted_worker import SERIES as SERIES
from support.broker.scripted_worker import Worker as Worker
from support.protocol.independent import Fields, unpack_stream

WALL_MS = 1_790_000_000_000
BUILD = "pure Python: it is a test"
HOST = HostSample(memory_used=1 << 30, memory_total=8 << 30, cpu_percent=5.0, loop_lag_ms=1.0)
LIMITS = CoreSettings(
    heartbeat_interval_ms=1000,
    watermark_interval_ms=250,
    session_timeout_ms=30_000,
    max_message_bytes=1 << 20,
    max_queued_backtests=20,
    max_queued_questions=20,
    verify_interval_ms=1_000,
    worker_hung_ms=15_000,
    worker_silence_ms=600_000,
    rates={},
)
REPLAY_BARS = 30_000


def config(**changes: Any) -> Fields:
    """Return a BacktestConfig as a client sends it."""
    return {
        "algorithmId": "sma_cross",
        "symbol": "SYNTH",
        "startDate": "2022-01-03",
        "endDate": "2022-01-04",
        "initialCapital": 100_000.0,
        "timeframe": "1m",
        "commission": 0.0,
        "slippage": 0.0,
        "parameters": {},
        **changes,
    }


class Injected(Exception):
    """An exception that a test has the core raise."""


def check_faults(effects: list[Effect]) -> None:
    """Raise `AssertionError` for an exception of the core that no test has injected: it is a defect.

    The core goes on after one, or starts again, and clients may not notice.
    """
    if (fault := fault_in(effects)) is not None:
        assert Injected.__name__ in fault.facts["raised"], f"{fault.facts['during']}\n{fault.facts['traceback']}"
    for effect in effects:
        assert not isinstance(effect, StartAgain) or Injected.__name__ in effect.reason, effect.reason


class Link:
    def __init__(
        self,
        *,
        compute: int = 1,
        interactive: int = 1,
        limits: CoreSettings = LIMITS,
        start: bool = True,
        now: float = 50.0,
        listening: bool = True,
    ) -> None:
        """Make a link; with `start`, start all workers and make them ready."""
        self.listening = listening
        self.held: set[tuple[Socket, str, bytes]] = set()  # the subscriptions that ZeroMQ has: socket, peer and prefix
        self.limits = limits
        self.counts: dict[WorkerKind, int] = {"compute": compute, "interactive": interactive}
        self.now = now
        self.wall_offset = WALL_MS - round(now * 1000)
        self.host = HOST
        self.events: list[tuple[Event, float]] = []
        self.effects: list[list[Effect]] = []
        self.notices: list[tuple[str, Mapping[str, Any]]] = []
        self.streams: dict[str, list[tuple[int, Fields]]] = defaultdict(list)
        self.workers: dict[str, Worker] = {}
        self.killed: list[tuple[str, str]] = []  # worker ids and reasons; `lose_worker` ends the workers
        self._connections: dict[bytes, Client | SessionClient] = {}
        self.disk = Disk()
        self.stored_streams: dict[str, Callable[[FetchMissed], bytes]] = {}  # by topic: pages of stored results
        self.holds_removals = False  # true: files stay, as if the broker ended before it came to them
        self.holds_surveys = False  # true: no survey comes back
        self.named = 0  # the number of requests; each has an id of its own
        self._peers = 0
        self.keys: dict[bytes, tuple[str, Right]] = {}  # by connection: the key of the allow-list, and its right
        self._starts = 0
        self._waiting: deque[Event] = deque()
        self._busy = False
        self.replies_to_drop = self.requests_to_drop = 0
        self.copies = 1
        self.held_replies: list[Reply] | None = None
        self.starts_again: str | None = None  # the reason, once the core has asked for it
        self.is_stopped = False  # a client has asked for it
        self.restarts: list[str] = []  # the reasons of all so far
        self._new_core()
        if start:
            self.start_workers()

    # --- the broker ---

    def _new_core(self) -> None:
        self._starts += 1
        self.key = bytes([self._starts]) * 32
        self.signer = Signer(self.key)
        self.instance_id = f"{self._starts:08d}-instance"
        self.started = self.now
        self.restored = self.disk.restored(self.wall_ms)
        self.core = Core(
            signer=self.signer,
            id_seed=self.key,
            instance_id=self.instance_id,
            limits=self.limits,
            workers=self.counts,
            now=self.now,
            restored=self.restored,
            build=BUILD,
        )
        self.held.clear()
        if self.listening:
            for socket in topics.SOCKETS:
                self.subscribe("everything", socket, b"")

    @property
    def wall_ms(self) -> int:
        return self.wall_offset + round(self.now * 1000)

    def feed(self, event: Event) -> None:
        """Give the core an event and execute its effects, and those of the events that follow."""
        self._waiting.append(event)
        if self._busy:
            return
        self._busy = True
        try:
            while self._waiting:
                event = self._waiting.popleft()
                self.events.append((event, self.now))
                effects = self.core.handle(event, self.now)
                check_faults(effects)
                self.effects.append(effects)
                for effect in effects:
                    self._execute(effect)
        finally:
            self._busy = False
        if self.starts_again is not None:
            reason, self.starts_again = self.starts_again, None
            self.restarts.append(reason)
            self.restart_broker(after_fault=True)

    def tick(self) -> None:
        self.feed(Tick(self.host, self.wall_ms))

    def advance(self, seconds: float) -> None:
        """Let time pass, and tick at every deadline in it."""
        until = self.now + seconds
        while True:
            due = min([self.core.next_deadline(), *self._session_deadlines()])
            if due > until:
                break
            self.now = max(self.now, due)
            if self.core.next_deadline() <= self.now:
                core = self.core
                self.tick()
                assert self.core is not core or core.next_deadline() > self.now, "it would keep the processor busy"
            for connection in list(self._connections.values()):
                if isinstance(connection, SessionClient):
                    connection.tick()
        self.now = until

    def _session_deadlines(self) -> list[float]:
        sessions = [one.session for one in self._connections.values() if isinstance(one, SessionClient)]
        return [deadline for one in sessions if (deadline := one.next_deadline()) is not None]

    def _execute(self, effect: Effect) -> None:
        match effect:
            case Reply(peer, frames):
                if self.replies_to_drop:
                    self.replies_to_drop -= 1
                elif self.held_replies is not None:
                    self.held_replies.append(effect)
                elif peer in self._connections:
                    self._connections[peer].take(frames)
            case Publish(socket, frames):
                topic, envelope, _ = unpack_stream(self.key, frames)
                topic_class = topics.class_of(topic)
                assert topic_class is not None
                assert topic_class.socket == socket
                self.streams[topic].append((envelope["seq"], envelope["payload"]))
            case Instruct(peer, frames):
                (worker,) = (one for one in self.workers.values() if one.peer == peer)
                worker.take(frames)
            case Persist():
                self.disk.submit(effect)
                if not self.disk.held:
                    self.write_disk()
            case FindListeners(socket, prefixes, in_doubt):
                found = {prefix for on, _, prefix in self.held if on == socket}
                there, gone = ([one for one in prefixes if (one in found) is holds] for holds in (True, False))
                if gone or in_doubt:
                    self.feed(ListenersFound(socket, there, gone, self.wall_ms))
            case ReadState(key):
                self.feed(StateRead(key, self.disk.state.get(key), self.wall_ms))
            case SurveyFiles() if not self.holds_surveys:
                self.feed(self.disk.survey(self.wall_ms))
            case RemoveResults() if not self.holds_removals:
                self.feed(self.disk.remove(effect, self.wall_ms))
            case Kill(worker_id, reason):
                self.killed.append((worker_id, reason))
            case Notify(signal, facts):
                self.notices.append((signal, facts))
            case StartAgain(reason):
                self.starts_again = reason
                self._waiting.clear()
            case Stop():
                self.is_stopped = True

    # --- listeners ---

    def subscribe(self, peer: str, socket: Socket, prefix: bytes) -> None:
        self.held.add((socket, peer, prefix))
        self.feed(Subscribed(socket, prefix, 1, self.wall_ms))

    def unsubscribe(self, peer: str, socket: Socket, prefix: bytes) -> None:
        """Have a peer unsubscribe, also from a prefix that it does not hold: ZeroMQ passes both on."""
        self.held.discard((socket, peer, prefix))
        self.feed(Subscribed(socket, prefix, -1, self.wall_ms))

    def hang_up(self, peer: str) -> None:
        """End the peer's connection; its subscriptions end with it."""
        for socket, of, prefix in sorted(self.held):
            if of == peer:
                self.unsubscribe(peer, socket, prefix)

    def drop_clients(self) -> None:
        """Have the broker end every connection of clients."""
        self.held.clear()
        self.feed(ClientsDropped("no longer allowed: bob", self.wall_ms))

    # --- clients ---

    def attach(self, connection: Client | SessionClient) -> bytes:
        """Make a connection, and return its identity."""
        self._peers += 1
        peer = b"\0peer-%d" % self._peers  # as ZeroMQ makes them
        self._connections[peer] = connection
        return peer

    def records(self) -> Iterator[Record]:
        """Return the records of this broker's recording."""
        return records(io.BytesIO(self.recording()))

    def recording(self) -> bytes:
        """Return what a recorder would have written of this broker, as one part."""
        start = Start(
            key=self.key,
            id_seed=self.key,
            limits=self.limits,
            workers=self.counts,
            now=self.started,
            restored=self.restored,
            build=BUILD,
        )
        written, buffer = bytearray(), bytearray()
        for record in [header(self.instance_id, 1, start), *[(now, event) for event, now in self.events]]:
            write_record(record, buffer)
            written += buffer
        return bytes(written)

    def detach(self, peer: bytes) -> None:
        self._connections.pop(peer, None)

    def raw_client(self, client_id: str = "ann") -> Client:
        """Return a client that has not sent Hello."""
        client = Client(self, client_id, b"")
        client.peer = self.attach(client)
        return client

    def client(self, client_id: str = "ann", held: tuple[str, Right] | None = None) -> Client:
        """Return a client that has said Hello; `held` is the key of the allow-list that it connects with."""
        client = self.raw_client(client_id)
        if held is not None:
            self.keys[client.peer] = held
        client.hello()
        return client

    def session(self, client_id: str = "ann") -> SessionClient:
        client = SessionClient(self, client_id)
        client.connect()
        return client

    def request(self, peer: bytes, frames: list[bytes]) -> None:
        if self.requests_to_drop:
            self.requests_to_drop -= 1
            return
        for _ in range(self.copies):
            self.feed(RequestReceived(peer, frames, self.wall_ms, *self.keys.get(peer, ())))

    # --- workers ---

    def worker(self, worker_id: str) -> Worker:
        return self.workers[worker_id]

    def start_workers(self) -> None:
        for kind, count in self.counts.items():
            for number in range(1, count + 1):
                self.start_worker(f"{kind}-{number}", kind).ready()

    def start_worker(self, worker_id: str, kind: WorkerKind, pid: int = 1000) -> Worker:
        """Start the process of a worker, which is not ready yet."""
        self._peers += 1
        worker = self.workers[worker_id] = Worker(self, worker_id, kind, b"worker-%d" % self._peers)
        self.feed(WorkerStarted(worker_id, kind, pid, self.wall_ms))
        return worker

    def answer_to(self, work: worker_channel.Work, data: bytes) -> bytes:
        """Return the data that a scripted interactive worker answers with."""
        match work:
            case "CheckBacktest":
                checked = msgspec.msgpack.decode(data)
                if checked["algorithmId"] == ALGORITHM.name:
                    checked["algorithmId"] = ALGORITHM.algorithm_id
                return encode(checked)
            case "ListMarketData":
                return encode({"series": [msgspec.to_builtins(SERIES)]})
            case "OpenReplay":
                return encode(worker_channel.OpenedReplay(bars=REPLAY_BARS, start_time=0, end_time=60_000, checksum=7))
            case _:
                return encode({"answers": work})

    # --- faults ---

    @contextlib.contextmanager
    def drop_replies(self, count: int) -> Iterator[None]:
        """Lose the next `count` answers in this block on their way."""
        self.replies_to_drop = count
        yield
        assert self.replies_to_drop == 0, "fewer answers came than were to be dropped"

    def hold_replies(self) -> None:
        """Keep every later answer until `deliver` is called."""
        self.held_replies = []

    def deliver(self, index: int) -> None:
        """Deliver the held answer at `index`, in any order; its connection may have ended."""
        assert self.held_replies is not None
        reply = self.held_replies.pop(index)
        if reply.peer in self._connections:
            self._connections[reply.peer].take(reply.frames)

    def set_clock(self, seconds: float) -> None:
        """Move the wall clock by so many seconds."""
        self.wall_offset += round(seconds * 1000)

    @contextlib.contextmanager
    def drop_requests(self, count: int) -> Iterator[None]:
        self.requests_to_drop = count
        yield
        assert self.requests_to_drop == 0, "fewer requests came than were to be dropped"

    @contextlib.contextmanager
    def duplicate_requests(self) -> Iterator[None]:
        """Deliver every request in this block twice, byte for byte."""
        self.copies = 2
        yield
        self.copies = 1

    @contextlib.contextmanager
    def hold_commits(self) -> Iterator[None]:
        """Commit in this block only when `write_disk` is called, and commit the rest at its end."""
        self.disk.held = True
        yield
        self.disk.held = False
        self.write_disk()

    @contextlib.contextmanager
    def full_disk(self) -> Iterator[None]:
        """Fail every commit in this block."""
        self.disk.full = True
        yield
        self.disk.full = False

    def write_disk(self, count: int = 1_000_000) -> None:
        """Commit the first `count` of the waiting changes, as one transaction."""
        report = self.disk.write(count, self.wall_ms)
        if report is not None:
            self.feed(report)

    def restart_broker(self, *, after_fault: bool = False) -> None:
        """Start another broker with another key, as after `kill -9`: only what is on disk is left."""
        if not after_fault:
            self.core.check_invariants()
        connections = [one for one in self._connections.values() if isinstance(one, SessionClient)]
        self._connections.clear()
        self.workers.clear()
        self.streams.clear()
        self.events.clear()
        self.effects.clear()
        self.disk.lose_power()
        self._new_core()
        self.start_workers()
        for client in connections:
            client.session.disconnected()
            client.connect()

    def lose_worker(self, worker: Worker, *, again: bool = True, overdue: bool = False) -> Worker:
        """End a worker's process, if `overdue` because it used too much processor time.

        With `again` another worker takes its slot and gets ready, and is returned.
        """
        core = self.core
        self.feed(WorkerExited(worker.worker_id, "killed by signal 9", self.wall_ms, overdue=overdue))
        if self.core is not core:  # a fault: all workers were started again
            return self.worker(worker.worker_id)
        if not again:
            return worker
        successor = self.start_worker(worker.worker_id, worker.kind)
        successor.ready()
        return successor

    # --- what happened ---

    def signals(self, name: str) -> list[Mapping[str, Any]]:
        return [facts for signal, facts in self.notices if signal == name]

    def states(self, backtest_id: str) -> list[str]:
        """Return every published status of a backtest, in order."""
        data = [payload["data"] for _, payload in self.streams["system.backtests"]]
        return [one["status"] for one in data if one["backtestId"] == backtest_id]
