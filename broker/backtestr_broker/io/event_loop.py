"""The shell: one thread that owns every socket, feeds the core with events and executes its effects.

It sleeps until something arrives or the core's next deadline, takes one message from each socket in turn, and never
waits for a peer: whoever is full or has gone misses that message, and the hooks tell. A ROUTER takes from its
connections in turn too, so whoever has something to say waits for one message of each other, not for all that was sent.
"""

from __future__ import annotations

import contextlib
import selectors
import socket as sockets_of_the_system
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, assert_never

import zmq

from backtestr_broker import hooks
from backtestr_broker.core.core import Core
from backtestr_broker.core.events import (
    ClientsDropped,
    Effect,
    Event,
    FindListeners,
    Instruct,
    Kill,
    ListenersFound,
    Notify,
    Persist,
    Publish,
    ReadState,
    Reply,
    RequestReceived,
    Subscribed,
    SubscribersDropped,
    Tick,
    WorkerExited,
    WorkerSent,
    WorkerStarted,
)
from backtestr_broker.core.streams.listeners import MAX_PREFIXES
from backtestr_broker.recording.recorder import Recorder
from backtestr_protocol.messages import SeriesInfo
from backtestr_protocol.topics import Socket
from backtestr_protocol.zmq_frames import has_input, receive, send

from .allow_list import AllowList
from .database import Database
from .host_usage import HostUsage
from .sockets import Sockets
from .subscriber_probe import SubscriptionChange
from .supervisor import Ended, Started, Supervisor
from .zap import decide

if TYPE_CHECKING:
    from .prometheus import MetricsServer

# Messages taken from each socket, one by one and in turn, before what is due is looked at again.
BURST = 64
# Of those who were not let in, one in this many seconds is told of: who knocks in a loop must not fill the log.
DENIED_INTERVAL = 1.0
# The same for messages that a full queue did not take, by socket: who floods and does not read loses thousands.
DROPPED_INTERVAL = 1.0
# How long workers get to end by themselves; with the flush of the sockets that is well within three seconds.
STOP_PATIENCE = 1.5


class Wake:
    """Lets other threads and signal handlers end the shell's sleep."""

    def __init__(self) -> None:
        self.read_end, self._write_end = sockets_of_the_system.socketpair()
        self.read_end.setblocking(False)
        self._write_end.setblocking(False)

    def __call__(self) -> None:
        with contextlib.suppress(OSError):  # it is being woken already, or has ended
            self._write_end.send(b"\0")

    def drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self.read_end.recv(4096):
                pass

    def close(self) -> None:
        self.read_end.close()
        self._write_end.close()


class EventLoop:
    def __init__(
        self,
        core: Core,
        sockets: Sockets,
        supervisor: Supervisor,
        database: Database,
        wake: Wake,
        on_serving: Callable[[list[SeriesInfo]], None],
        max_early_deaths: int,
        allow_list: AllowList | None = None,
        recorder: Recorder | None = None,
        metrics: MetricsServer | None = None,
    ) -> None:
        """`on_serving` is called once, when the core says so, with what data there is. After `max_early_deaths` of a
        worker in a row before that, or one that refused its configuration, `run` gives up: it will not get well.
        `allow_list` says whose keys may connect."""
        self._core = core
        self._sockets = sockets
        self._supervisor = supervisor
        self._database = database
        self._wake = wake
        self._on_serving = on_serving
        self._max_early_deaths = max_early_deaths
        self._recorder = recorder
        self._metrics = metrics
        self._metrics_due = self._longest_lag_ms = 0.0
        self._stopping = False
        self._host_usage = HostUsage(time.monotonic())
        self._due = 0.0  # when something is to be done, whatever comes
        self._lag = 0.0  # the longest since the last sample that something had to wait for the loop
        self._allow_list = allow_list
        self._denied = 0  # since the last who was told of
        self._denied_told = -DENIED_INTERVAL
        self._all_dropped: dict[str, int] = {"requests": 0, "engine": 0}  # a stream drops without a word
        self._dropped: dict[str, tuple[int, float]] = {}  # by socket: those since the last that was told of, and when
        self._selector = selectors.DefaultSelector()
        self._sources: tuple[zmq.Socket[bytes], ...] = ()  # in the order of their turns
        self._streams: dict[zmq.Socket[bytes], Socket] = {}
        self._unread: set[zmq.Socket[bytes]] = set()  # those that may have something to read
        self._to_find: list[FindListeners] = []  # when the effects of the event at hand are done
        self.gave_up = False

    def stop(self) -> None:
        """End `run`; may be called from a signal handler or another thread."""
        self._stopping = True
        self._wake()

    def run(self) -> None:
        """Serve until stopped. Ends the workers before it returns."""
        with self._selector:
            self._take_up_sockets()
            self._selector.register(self._wake.read_end, selectors.EVENT_READ)
            try:
                self._supervise()
                self._due = self._deadline()
                while not self._stopping:
                    ready = self._selector.select(0 if self._unread else max(0.0, self._due - time.monotonic()))
                    self._lag = max(self._lag, time.monotonic() - self._due)
                    self._turn([key.data for key, _ in ready])
            finally:
                self._supervisor.stop(STOP_PATIENCE, time.monotonic, time.sleep)

    def _take_up_sockets(self) -> None:
        """Listen to the sockets that there are now, and to no others."""
        sockets = self._sockets
        doors = () if sockets.zap is None else (sockets.zap,)  # first: who waits to be let in has nothing else to do
        sources = (*doors, sockets.requests, sockets.engine, *sockets.streams.values())
        for source in sources:
            if source not in self._sources:
                self._selector.register(_descriptor(source), selectors.EVENT_READ, source)
        self._sources = sources
        self._streams = {socket: name for name, socket in sockets.streams.items()}
        self._unread = set(sources)

    def _turn(self, ready: list[zmq.Socket[bytes] | None]) -> None:
        """A burst from the sockets that have something, one message from each at a time, then what is due by now."""
        began = time.monotonic()
        if None in ready:
            self._wake.drain()
            self._supervise()
            for report in self._database.take():
                self._feed(report)
        self._unread.update(source for source in ready if source is not None)
        unread = [source for source in self._sources if source in self._unread]
        for taken in range(BURST):
            unread = [source for source in unread if self._take(source, expecting=taken > 1)]
            if not unread:
                break
        # Each that was touched since it had nothing is asked before the next sleep: see `has_input`.
        self._unread = {source for source in self._unread if has_input(source)}
        now = time.monotonic()
        self._due = self._deadline()
        if now >= self._due:
            self._reload_allow_list()
            self._supervise()
            gave_up = self._recorder is not None and self._recorder.has_failed
            host = self._host_usage.sample(self._supervisor.pids(), self._lag * 1000, now, recorder_failed=gave_up)
            self._lag = 0.0
            self._feed(Tick(host, _wall_ms()))
            self._find_listeners()
            self._show_metrics(host.loop_lag_ms, now)
            self._due = self._deadline()
        self._lag = max(self._lag, time.monotonic() - began)

    def _deadline(self) -> float:
        delayed_start = self._supervisor.next_deadline()
        core = self._core.next_deadline()
        return core if delayed_start is None else min(core, delayed_start)

    def _take(self, source: zmq.Socket[bytes], *, expecting: bool) -> bool:
        """Take and handle one message; False when there is none, or when the socket has been replaced meanwhile.
        `expecting`: one is likely to be there."""
        if source not in self._sources:
            return False
        sockets = self._sockets
        if (stream := self._streams.get(source)) is not None:
            self._listen(stream, sockets.audiences[stream].read(1))
            return source in self._sources and has_input(source)
        accepts = (
            self._allow_list.names.__contains__ if self._allow_list is not None and source is sockets.requests else None
        )
        messages = receive(source, 1, accepts, expecting=expecting)
        for message in messages:
            if source is sockets.requests:
                self._feed(RequestReceived(message[0], message[1:], _wall_ms()))
            elif source is sockets.engine:
                self._feed(WorkerSent(message[0], message[1:], _wall_ms()))
            else:
                self._decide(message[0], message[2:])
        if messages or (accepts is not None and has_input(source)):
            return True
        self._unread.discard(source)
        return False

    # --- who listens ---

    def _listen(self, name: Socket, said: list[SubscriptionChange]) -> None:
        """Tell the core what peers said. The socket of those who want too much is replaced."""
        for prefix, delta in said:
            self._feed(Subscribed(name, prefix, delta, _wall_ms()))
        if not self._core.listeners.is_crowded(name) or not self._sockets.can_drop_clients:
            return
        self._selector.unregister(_descriptor(self._sockets.streams[name]))
        self._sockets.drop_subscribers(name)
        self._take_up_sockets()
        self._feed(SubscribersDropped(name, _wall_ms()))
        hooks.send("clients_dropped", {"reason": f"{name}: more than {MAX_PREFIXES} different subscriptions"})

    def _find_listeners(self) -> None:
        """Ask ZeroMQ what the core wants to know."""
        to_find, self._to_find = self._to_find, []
        for asked in to_find:
            audience = self._sockets.audiences[asked.socket]
            self._unread.add(self._sockets.streams[asked.socket])  # see `has_input`
            answers = audience.ask(asked.prefixes)
            if answers.deserted or (asked.in_doubt and answers.held):
                self._feed(ListenersFound(asked.socket, answers.held, answers.deserted, _wall_ms()))
            self._listen(asked.socket, answers.said)

    def _show_metrics(self, loop_lag_ms: float, now: float) -> None:
        """Once a heartbeat, if anybody may ask."""
        self._longest_lag_ms = max(self._longest_lag_ms, loop_lag_ms)
        if self._metrics is not None and now >= self._metrics_due:
            self._metrics_due = now + self._core.limits.heartbeat_interval_ms / 1000
            self._metrics.show(self._core, self._all_dropped, self._longest_lag_ms)
            self._longest_lag_ms = 0.0

    # --- who may connect ---

    def _decide(self, peer: bytes, frames: list[bytes]) -> None:
        """Answer ZeroMQ, which asks about a handshake."""
        if self._allow_list is None or self._sockets.zap is None:
            return
        self._reload_allow_list()
        decision = decide(frames, self._allow_list.allowed)
        if decision.frames is not None:
            self._send("the allow-list", self._sockets.zap, [peer, b"", *decision.frames])
        if decision.name is None:
            self._tell_of_denied(decision.address, decision.reason)

    def _tell_of_denied(self, address: str, reason: str) -> None:
        now = time.monotonic()
        if now - self._denied_told < DENIED_INTERVAL:
            self._denied += 1
            return
        hooks.send("client_denied", {"address": address, "reason": reason, "untold": self._denied})
        self._denied, self._denied_told = 0, now

    def _reload_allow_list(self) -> None:
        """Has the allow-list changed? Who is no longer on it is disconnected, and so, for a moment, is everyone else:
        ZeroMQ asks about connections when they are made, and ends them only with their socket."""
        if self._allow_list is None:
            return
        known_problems = self._allow_list.problems
        revoked = self._allow_list.reload_if_changed()
        for problem in self._allow_list.problems:
            if problem not in known_problems:
                hooks.send("allow_list_problem", {"reason": problem})
        if revoked:
            self._drop_clients(f"no longer allowed: {', '.join(sorted(revoked))}")

    def _drop_clients(self, reason: str) -> None:
        for source in self._sockets.of_clients:
            self._selector.unregister(_descriptor(source))
        self._sockets.drop_clients()
        self._take_up_sockets()
        self._feed(ClientsDropped(reason, _wall_ms()))
        hooks.send("clients_dropped", {"reason": reason})

    def _supervise(self) -> None:
        for news in self._supervisor.poll(time.monotonic()):
            match news:
                case Started(worker_id, kind, pid):
                    self._feed(WorkerStarted(worker_id, kind, pid, _wall_ms()))
                case Ended(worker_id, reason, early_deaths, delay, overdue):
                    restart_ms = round(delay * 1000)
                    self._feed(WorkerExited(worker_id, reason, _wall_ms(), early_deaths, restart_ms, overdue))
                case _:
                    assert_never(news)
        supervisor = self._supervisor
        hopeless = supervisor.refused or supervisor.early_deaths >= self._max_early_deaths
        if hopeless and not self._core.worker_messages.serving:
            self.gave_up = True
            self._stopping = True

    def _feed(self, event: Event) -> None:
        now = time.monotonic()
        if self._recorder is not None:
            self._recorder.write(now, event)
        for effect in self._core.handle(event, now):
            self._execute(effect)
        self._core.counters.settle(time.monotonic())

    def _execute(self, effect: Effect) -> None:
        match effect:
            case Reply(peer, frames):
                self._send("requests", self._sockets.requests, [peer, *frames])
            case Publish(name, frames):
                self._send(name, self._sockets.streams[name], frames)
            case Instruct(peer, frames):
                self._send("engine", self._sockets.engine, [peer, *frames])
            case Persist() | ReadState():
                self._database.submit(effect)
            case FindListeners():
                self._to_find.append(effect)
            case Kill(worker_id, reason):
                self._supervisor.kill(worker_id, reason)
            case Notify("serving", facts):
                self._on_serving(self._core.worker_messages.series_at_start)
                hooks.send("serving", facts)
            case Notify(signal, facts):
                hooks.send(signal, facts)
            case _:
                assert_never(effect)

    def _send(self, name: str, socket: zmq.Socket[bytes], frames: list[bytes]) -> None:
        self._unread.add(socket)
        try:
            send(socket, frames)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                raise
            if error.errno == zmq.EAGAIN:
                self._tell_of_dropped(name)
            else:  # a client that leaves does not wait for the answer to its goodbye
                hooks.send("peer_gone", {"socket": name})

    def _tell_of_dropped(self, name: str) -> None:
        self._all_dropped[name] = self._all_dropped.get(name, 0) + 1
        untold, told = self._dropped.get(name, (0, -DROPPED_INTERVAL))
        now = time.monotonic()
        if now - told < DROPPED_INTERVAL:
            self._dropped[name] = (untold + 1, told)
            return
        self._dropped[name] = (0, now)
        hooks.send("message_dropped", {"socket": name, "untold": untold})


def _descriptor(socket: zmq.Socket[bytes]) -> int:
    return int(socket.getsockopt(zmq.FD))


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
