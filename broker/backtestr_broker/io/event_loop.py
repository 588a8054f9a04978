"""The event loop is the one thread that owns every socket, feeds the core with events and executes its effects.

It sleeps until something arrives or the core's next deadline, takes messages from each socket in turn, and never
waits for a peer: one whose queue is full, or that is gone, misses that message, and a hook reports it. A ROUTER takes
from its connections in turn too. Where only one peer sends, up to 16 of its messages are taken together; the first of
another peer ends that. So a client waits for one message of each other client, or for 16 of one, and not for all that
they sent.

An exception in a turn or an effect does not end the loop: it is logged. Where the core asks for it, an effect is lost
that nobody repairs, or faults come one after the other, `run` returns and the broker starts again.
"""

from __future__ import annotations

import selectors
import time
import traceback
import uuid
from collections import deque
from collections.abc import Callable
from typing import Any, assert_never

import msgspec
import zmq

from backtestr_broker import hooks
from backtestr_broker.core.clients.log_limits import LogLimit
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
    RemoveResults,
    Reply,
    RequestReceived,
    SocketLoad,
    StartAgain,
    StartSpares,
    Stop,
    Subscribed,
    SubscribersDropped,
    SurveyFiles,
    Tick,
    WorkerExited,
    WorkerSent,
    WorkerStarted,
)
from backtestr_broker.core.streams.listeners import MAX_PREFIXES
from backtestr_protocol.messages import SeriesInfo
from backtestr_protocol.topics import Socket
from backtestr_protocol.zmq_frames import Origin, has_input, receive, send

from .descriptors import are_exhausted, descriptor_limit
from .host_usage import HostUsage
from .resources import Resources
from .subscriber_probe import SubscriptionChange
from .supervisor import Ended, Started
from .zap import decide

# Messages taken from each socket, in turn, before the loop looks at the other sockets and does what has fallen due.
BURST = 64
# Messages of one peer that are taken together once it has sent two in a row: recorded in one write, handled and
# answered back to back. That takes a sixth less of the processor (decision 43).
MOST_OF_ONE = 16
# Seconds in which one refused handshake is reported: a peer that tries in a loop must not fill the log.
DENIED_INTERVAL = 1.0
# The same for messages that a full queue did not take, by socket: a peer that floods and does not read loses thousands.
DROPPED_INTERVAL = 1.0
# Connections to one socket that are ended in a heartbeat in which no file descriptor was left.
_SHED_AT_ONCE = 64
# Announces, among the sources that are ready, that there are reports of connections.
_CONNECTIONS = object()
# Seconds after which a worker to which a message could not be sent is killed: one that has ended is reported before.
UNTOLD_SECONDS = 3.0
# Seconds that workers get to end by themselves; with the flush of the sockets that is well within three seconds.
STOP_PATIENCE = 1.5


# So many faults of the loop within so many seconds are one that stays: then the broker starts again.
MAX_FAULTS = 20
FAULTS_SECONDS = 10.0
# ZeroMQ's context or a socket of the loop is closed: there is nothing to go on with.
_CLOSED = (zmq.ETERM, zmq.ENOTSOCK)


class EventLoop:
    """Runs a broker in the thread that calls `run`."""

    def __init__(self, core: Core, resources: Resources, on_serving: Callable[[list[SeriesInfo]], None]) -> None:
        """Take the core and its resources. `on_serving` is called once, when the core serves, with the stored series.

        `run` gives up where the workers cannot start before that: see `Supervisor.is_hopeless`.
        """
        self._core = core
        self._sockets = resources.sockets
        self._supervisor = resources.supervisor
        self._database = resources.database
        self._files = resources.files
        self._wake = resources.wake
        self._allow_list = resources.allow_list
        self._recorder = resources.recorder
        self._metrics = resources.metrics
        self._freed_memory = resources.freed_memory
        self._on_serving = on_serving
        self._metrics_due = self._longest_lag_ms = 0.0
        self._stopping = False
        self._host_usage = HostUsage(time.monotonic())
        self._ended: dict[str, int] = {}  # connections that were ended, by socket
        self._origin: Origin | None = None  # of the request whose effects are being executed
        self._due = 0.0  # the time of the next deadline, whatever arrives before it
        self._lag = 0.0  # the longest wait for the loop since the last sample, in seconds
        self._dropped: dict[str, int] = {"requests": 0, "engine": 0}  # by socket; a stream drops without an error
        self._untold: dict[bytes, float] = {}  # workers that lack a message, by connection, and since when
        self._dropped_limit = LogLimit(DROPPED_INTERVAL)
        self._denied_limit = LogLimit(DENIED_INTERVAL)
        self._selector = selectors.DefaultSelector()
        self._sources: tuple[zmq.Socket[bytes], ...] = ()  # in the order in which they are read
        self._streams: dict[zmq.Socket[bytes], Socket] = {}
        self._monitors: set[int] = set()  # descriptors that announce reports of connections
        self._unread: set[zmq.Socket[bytes]] = set()  # those that may have something to read
        self._to_find: list[FindListeners] = []  # once the effects of the current event are executed
        self._faults: deque[float] = deque(maxlen=MAX_FAULTS)  # the times of the latest
        self.gave_up = False
        self._fatal: Exception | None = None
        self.starts_again = False  # after `run` the broker has to be started again, from what is on disk

    def stop(self) -> None:
        """End `run`; may be called from a signal handler or another thread."""
        self._stopping = True
        self._wake()

    def run(self) -> None:
        """Serve until stopped. Ends the workers before it returns."""
        with self._selector:
            self._register_sockets()
            self._selector.register(self._wake.read_end, selectors.EVENT_READ)
            try:
                self._supervise()
                self._due = self._deadline()
                while not self._stopping:
                    try:
                        ready = self._selector.select(0 if self._unread else max(0.0, self._due - time.monotonic()))
                        self._lag = max(self._lag, time.monotonic() - self._due)
                        self._turn([key.data for key, _ in ready])
                    except Exception as error:  # a defect: what was at hand is lost, and the rest is served
                        self._survive(error)
                if self._fatal is not None:
                    raise self._fatal
            finally:
                self._supervisor.stop(STOP_PATIENCE, time.monotonic, time.sleep)

    def _register_sockets(self) -> None:
        """Read from the sockets that there are now, and from no others."""
        sockets = self._sockets
        handshakes = () if sockets.zap is None else (sockets.zap,)  # first: a peer can do nothing before its handshake
        sources = (*handshakes, sockets.requests, sockets.engine, *sockets.streams.values())
        for source in sources:
            if source not in self._sources:
                self._selector.register(_descriptor(source), selectors.EVENT_READ, source)
        watched = {_descriptor(one.monitor) for one in sockets.connections.values()}
        for monitor in watched - self._monitors:
            self._selector.register(monitor, selectors.EVENT_READ, _CONNECTIONS)
        self._monitors = watched
        self._sources = sources
        self._streams = {socket: name for name, socket in sockets.streams.items()}
        self._unread = set(sources)

    def _unregister(self, name: str, socket: zmq.Socket[bytes]) -> None:
        """Read no longer from a socket that is about to be closed, nor from its monitor."""
        self._selector.unregister(_descriptor(socket))
        self._selector.unregister(monitor := _descriptor(self._sockets.connections[name].monitor))
        self._monitors.remove(monitor)

    def _turn(self, ready: list[Any]) -> None:
        """Take a burst from the sockets that have messages, from each in turn, then do what has fallen due."""
        began = time.monotonic()
        if None in ready:
            self._wake.drain()
            self._supervise()
            for report in (*self._database.take(), *self._files.take()):
                self._feed(report)
        if _CONNECTIONS in ready:
            self._sockets.sweep()
        self._unread.update(source for source in ready if source is not None and source is not _CONNECTIONS)
        unread = [source for source in self._sources if source in self._unread]
        most, rounds = 0, 0  # messages of one socket, and rounds
        while unread and most < BURST:
            taken = {one: 0 if self.starts_again else self._take(one, expecting=rounds > 1) for one in unread}
            unread = [source for source in unread if taken[source]]
            most += max(taken.values())
            rounds += 1
        # Each socket that was used since it had nothing to read is asked before the next sleep: see `has_input`.
        self._unread = {source for source in self._unread if has_input(source)}
        now = time.monotonic()
        self._due = self._deadline()
        if now >= self._due:
            self._reload_allow_list()
            self._supervise()
            self._kill_untold(now)
            failed = self._recorder is not None and self._recorder.has_failed
            exhausted = are_exhausted()
            host = self._host_usage.sample(
                self._supervisor.pids(),
                self._lag * 1000,
                now,
                recorder_failed=failed,
                sockets=self._connections(exhausted),
                descriptors_exhausted=exhausted,
            )
            self._lag = 0.0
            self._feed(Tick(host, _wall_ms()))
            self._find_listeners()
            self._show_metrics(host.loop_lag_ms, now)
            if self._freed_memory is not None:
                self._freed_memory.return_some(now)
            self._due = self._deadline()
        self._lag = max(self._lag, time.monotonic() - began)

    def _deadline(self) -> float:
        delayed_start = self._supervisor.next_deadline()
        core = self._core.next_deadline()
        return core if delayed_start is None else min(core, delayed_start)

    def _take(self, source: zmq.Socket[bytes], *, expecting: bool) -> int:
        """Take and handle a message, or several of one peer, and return how many; 0 if the socket was replaced.

        `expecting`: some are likely to be there.
        """
        if source not in self._sources:
            return 0
        sockets = self._sockets
        if (stream := self._streams.get(source)) is not None:
            self._report_subscriptions(stream, sockets.probes[stream].read(1))
            return int(source in self._sources and has_input(source))
        allow_list = self._allow_list if source is sockets.requests else None
        accepts = None if allow_list is None else allow_list.accepted.__contains__
        most = MOST_OF_ONE if expecting and source is not sockets.zap else 1
        origins: list[Origin] = []
        messages = receive(source, most, accepts, expecting=expecting, of_one=most > 1, origins=origins)
        wall_ms = _wall_ms()
        if source is sockets.engine:
            self._feed_all([WorkerSent(one[0], one[1:], wall_ms) for one in messages], origins)
        elif source is sockets.zap:
            for one in messages:
                self._answer_handshake(one[0], one[2:])
        elif allow_list is None:
            self._feed_all([RequestReceived(one[0], one[1:], wall_ms) for one in messages], origins)
        else:
            keys = [allow_list.held_by(name) for _, name in origins]
            both = zip(messages, keys, strict=True)
            self._feed_all([RequestReceived(one[0], one[1:], wall_ms, *key) for one, key in both], origins)
        if messages or (accepts is not None and has_input(source)):
            return max(1, len(messages))
        self._unread.discard(source)
        return 0

    # --- connections ---

    def _connections(self, exhausted: bool) -> dict[str, SocketLoad]:
        """End the connections that are too many or say nothing, and return those that are left, by socket.

        With hardly a descriptor left nobody may connect: see `Sockets.hide`. Over TCP ZeroMQ would try in vain to
        accept what waits, without a pause, so silent connections make room.
        """
        self._sockets.sweep()
        if not exhausted:
            self._sockets.show()
        elif self._sockets.hide():
            hooks.send("descriptors_exhausted", {"limit": descriptor_limit()})
        loads: dict[str, SocketLoad] = {}
        for name, watched in self._sockets.connections.items():
            if exhausted and name != "engine":
                watched.shed(_SHED_AT_ONCE)
            ended = watched.take_ended()
            self._ended[name] = self._ended.get(name, 0) + ended
            loads[name] = SocketLoad(len(watched), watched.limit, ended)
            if ended > 0:
                facts = {"socket": name, "ended": ended, "connections": len(watched), "limit": watched.limit}
                hooks.send("connections_ended", facts)
        return loads

    # --- listeners ---

    def _report_subscriptions(self, name: Socket, changes: list[SubscriptionChange]) -> None:
        """Tell the core what peers subscribed to. A socket with too many prefixes is replaced where it can be."""
        for prefix, delta in changes:
            self._feed(Subscribed(name, prefix, delta, _wall_ms()))
        if not self._core.listeners.is_crowded(name) or not self._sockets.can_drop_clients:
            return
        self._unregister(name, self._sockets.streams[name])
        self._sockets.drop_subscribers(name)
        self._register_sockets()
        self._feed(SubscribersDropped(name, _wall_ms()))
        hooks.send("clients_dropped", {"reason": f"{name}: more than {MAX_PREFIXES} different subscriptions"})

    def _find_listeners(self) -> None:
        """Ask ZeroMQ about the prefixes that the core wants to know of."""
        to_find, self._to_find = self._to_find, []
        for query in to_find:
            self._unread.add(self._sockets.streams[query.socket])  # see `has_input`
            result = self._sockets.probes[query.socket].find(query.prefixes)
            if result.unheld or (query.in_doubt and result.held):
                self._feed(ListenersFound(query.socket, result.held, result.unheld, _wall_ms()))
            self._report_subscriptions(query.socket, result.changes)

    def _show_metrics(self, loop_lag_ms: float, now: float) -> None:
        """Take a snapshot for Prometheus once a heartbeat, if metrics are on."""
        self._longest_lag_ms = max(self._longest_lag_ms, loop_lag_ms)
        if self._metrics is not None and now >= self._metrics_due:
            self._metrics_due = now + self._core.limits.heartbeat_interval_ms / 1000
            connections = {
                name: (len(watched), watched.limit, self._ended.get(name, 0))
                for name, watched in self._sockets.connections.items()
            }
            self._metrics.show(self._core, self._dropped, self._longest_lag_ms, connections)
            self._longest_lag_ms = 0.0

    # --- the allow-list ---

    def _answer_handshake(self, peer: bytes, frames: list[bytes]) -> None:
        """Answer ZeroMQ's request whether a key may connect."""
        if self._sockets.zap is None:
            return
        self._reload_allow_list()
        decision = decide(frames, self._sockets.names_of_keys(self._allow_list))
        if decision.frames is not None:
            self._send("the allow-list", self._sockets.zap, [peer, b"", *decision.frames])
        if decision.name is None and (untold := self._denied_limit.check(time.monotonic())) is not None:
            facts = {"address": decision.address, "reason": decision.reason, "untold": untold}
            hooks.send("client_denied", facts)

    def _reload_allow_list(self) -> None:
        """Apply a change of the allow-list: a revoked key ends the connections of all clients.

        ZeroMQ asks about a connection when it is made, and ends it only with its socket. Clients with other keys
        connect again at once.
        """
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
        for name, source in self._sockets.of_clients.items():
            self._unregister(name, source)
        self._sockets.drop_clients()
        self._register_sockets()
        self._feed(ClientsDropped(reason, _wall_ms()))
        hooks.send("clients_dropped", {"reason": reason})

    # --- workers ---

    def _supervise(self) -> None:
        """Report to the core which workers have started and ended."""
        for change in self._supervisor.poll(time.monotonic()):
            match change:
                case Started(worker_id, kind, pid):
                    self._feed(WorkerStarted(worker_id, kind, pid, _wall_ms()))
                case Ended(worker_id, reason, early_exits, delay, overdue, killed):
                    restart_ms = round(delay * 1000)
                    from_outside = killed or msgspec.UNSET
                    self._feed(
                        WorkerExited(worker_id, reason, _wall_ms(), early_exits, restart_ms, overdue, from_outside)
                    )
                case _:
                    assert_never(change)
        if self._supervisor.is_hopeless and not self._core.worker_messages.serving:
            self.gave_up = True
            self._stopping = True

    def _kill_untold(self, now: float) -> None:
        """Kill workers that lack a message, which the core takes for told: their work moves as that of any lost one.

        Most have ended, which is reported within moments and with the true reason.
        """
        for peer, since in list(self._untold.items()):
            worker = self._core.scheduler.workers.at(peer)
            if worker is None:
                del self._untold[peer]
            elif now - since >= UNTOLD_SECONDS:
                del self._untold[peer]
                self._supervisor.kill(worker.worker_id, "it was killed: a message to it could not be sent")

    # --- the core ---

    def _feed(self, event: Event, origin: Origin | None = None) -> None:
        """Record an event, have the core handle it, and execute the effects. A message has an `origin`."""
        now = time.monotonic()
        if self._recorder is not None:
            self._recorder.write(now, event)
        self._execute_all(self._core.handle(event, now), origin)
        self._core.counters.settle(time.monotonic())

    def _feed_all(self, events: list[Event], origins: list[Origin]) -> None:
        """Feed messages that came together: record and handle all of them, and then execute all effects, in order."""
        if len(events) < 2:
            for event in events:
                self._feed(event, origins[0])
            return
        now = time.monotonic()
        if self._recorder is not None:
            self._recorder.write(now, *events)
        effects: list[list[Effect]] = []
        for event in events:
            found = self._core.handle(event, now, goes_on=bool(effects))
            effects.append(found)
            if found and type(found[-1]) is StartAgain:  # which is the last, if it is there
                break  # that core is not to be trusted; clients send again what it has not answered
        for of_one, origin in zip(effects, origins, strict=False):
            self._execute_all(of_one, origin)
        self._core.counters.settle(time.monotonic())

    def _execute_all(self, effects: list[Effect], origin: Origin | None) -> None:
        self._origin = origin
        for effect in effects:
            try:
                self._execute(effect)
            except Exception as error:  # a defect: the other effects must not be lost with this one
                self._not_executed(effect, error)
        self._origin = None

    def _execute(self, effect: Effect) -> None:
        # `type` first where many come: the patterns below ask the metaclass of each struct, which takes longer than
        # to send.
        if type(effect) is Reply:
            self._send("requests", self._sockets.requests, [effect.peer, *effect.frames])
            return
        if type(effect) is Publish:
            self._send(effect.socket, self._sockets.streams[effect.socket], effect.frames)
            return
        match effect:
            case Instruct(peer, frames):
                if not self._send("engine", self._sockets.engine, [peer, *frames]):
                    self._untold.setdefault(peer, time.monotonic())
            case Persist() | ReadState():
                self._database.submit(effect)
            case SurveyFiles() | RemoveResults():
                self._files.submit(effect)
            case FindListeners():
                self._to_find.append(effect)
            case Kill(worker_id, reason):
                self._supervisor.kill(worker_id, reason)
            case StartSpares():
                self._supervisor.start_spares(time.monotonic())
            case Notify("serving", facts):
                self._on_serving(self._core.worker_messages.series_at_start)
                hooks.send("serving", facts)
            case Notify(signal, facts):
                if signal == "client_joined":
                    self._sockets.heard("requests", self._origin)
                hooks.send(signal, facts)
            case StartAgain(reason):
                self._start_again(reason)
            case Stop():
                self._stopping = True
            case _:
                assert_never(effect)

    # --- faults ---

    def _survive(self, error: Exception) -> None:
        """Go on after a fault of the loop itself. Raises it again where the sockets are closed."""
        if isinstance(error, zmq.ZMQError) and error.errno in _CLOSED:
            raise error
        _report(error, "a turn of the event loop")
        self._unread = set(self._sources)
        now = time.monotonic()
        self._faults.append(now)
        if len(self._faults) == MAX_FAULTS and now - self._faults[0] < FAULTS_SECONDS:
            self._start_again(f"{MAX_FAULTS} faults of the event loop within {FAULTS_SECONDS:g} s, the last: {error!r}")

    def _not_executed(self, effect: Effect, error: Exception) -> None:
        """Go on without a message that its receiver asks for again or repairs; after any other effect start again.

        A broker that could not say that it serves must not serve: `run` raises that fault.
        """
        if isinstance(effect, Notify) and effect.signal == "serving":
            self._fatal, self._stopping = error, True
            return
        _report(error, type(effect).__name__)
        if not isinstance(effect, Reply | Publish | Notify | FindListeners):
            self._start_again(f"{type(effect).__name__} could not be executed: {error!r}")

    def _start_again(self, reason: str) -> None:
        if not self.starts_again:
            hooks.send("starts_again", {"reason": reason})
        self.starts_again = self._stopping = True

    # --- sending ---

    def _send(self, name: str, socket: zmq.Socket[bytes], frames: list[bytes]) -> bool:
        """Send a message, and return False if its peer is gone or has a full queue."""
        self._unread.add(socket)
        try:
            send(socket, frames)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                raise
            if error.errno == zmq.EAGAIN:
                self._count_dropped(name)
            else:  # a client that leaves does not wait for the answer to its goodbye
                hooks.send("peer_gone", {"socket": name})
            return False
        return True

    def _count_dropped(self, name: str) -> None:
        self._dropped[name] = self._dropped.get(name, 0) + 1
        if (untold := self._dropped_limit.check(time.monotonic(), name)) is not None:
            hooks.send("message_dropped", {"socket": name, "untold": untold})


def _report(error: Exception, during: str) -> None:
    """Log a fault of the event loop, with its traceback, which has no values of variables."""
    fault = {"code": "SYSTEM_ERROR", "message": f"the broker has a defect: {error!r}", "id": str(uuid.uuid4())}
    lines = "".join(traceback.format_exception(error))
    hooks.send("fault", {**fault, "during": during, "traceback": lines.strip()})


def _descriptor(socket: zmq.Socket[bytes]) -> int:
    return int(socket.getsockopt(zmq.FD))


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
