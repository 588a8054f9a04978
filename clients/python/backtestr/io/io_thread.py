"""The I/O thread: it owns every socket, and joins the session and the subscriptions to them and to the callers.

Callers hand it commands and wait for replies; it alone touches the machines. It also watches the connection and the
connection file: when the one breaks or another start of the broker has written the other, the sockets are replaced, and
the machines carry on where they were.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import random
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, assert_never

import zmq

from backtestr.core.backoff import backoff
from backtestr.core.circuit_breaker import CircuitBreaker
from backtestr.core.connection_state import CONNECTION, ConnectionEvent, ConnectionState
from backtestr.core.counters import Statistics
from backtestr.core.effects import (
    Answered,
    Ask,
    Deliver,
    End,
    Failed,
    Finished,
    KeyRefused,
    Purpose,
    Reconnect,
    Refused,
    Send,
    SessionEffect,
    Subscribe,
    SubscriptionEffect,
    UnattributedError,
    Unsubscribe,
    Welcomed,
)
from backtestr.core.handshakes import Handshakes
from backtestr.core.recovery import Recovery
from backtestr.core.session import Session
from backtestr.core.stream_errors import StreamErrors
from backtestr.core.subscriptions import Since, Subscriptions
from backtestr_protocol.connection import Connection
from backtestr_protocol.errors import AuthenticationError, BacktestrError, Busy, NetworkError
from backtestr_protocol.keys import KeyPair
from backtestr_protocol.messages import BacktestStatus, Contract, Welcome
from backtestr_protocol.zmq_frames import has_input, receive

from .connection_file import ConnectionFile, Stamp
from .error_log import ErrorLog, ErrorReport
from .mailbox import MAX_UNREAD, Mailbox, PendingReply
from .sockets import BURST, Sockets

# A caller that piles up more than this without an answer has a bug; the broker's own queues are shorter.
MAX_WAITING = 1_000
# How often the connection file is looked at, in seconds: a file status costs microseconds.
LOOK_INTERVAL = 0.25
# How long a client that was not let in waits before it knocks again, in seconds: somebody has to allow its key first.
LOCKED_OUT_INTERVAL = 5.0
# What the subscriptions ask for is small, or cut by the broker to what is.
REPAIR_TIMEOUT = 30.0

log = logging.getLogger("backtestr")

Success = tuple[Any, list[bytes]]


class IoThread:
    """One client's I/O thread, from its making to `close`."""

    def __init__(
        self,
        session: Session,
        connection: Connection,
        file: ConnectionFile | None,
        context: zmq.Context[zmq.Socket[bytes]],
        keys: KeyPair | None = None,
        *,
        recovery: Recovery,
        errors: ErrorLog,
        on_state: Callable[[ConnectionState, ConnectionState], None],
    ) -> None:
        """`file` None: the connection is the only one there will be (a broker inside this process). `keys`: what this
        client is known by, where the connection asks for that (CURVE). `on_state` is called by this thread with the
        state and the one before, and must not wait."""
        self.welcomed: PendingReply[Welcome] = PendingReply()
        self.state: ConnectionState = "connecting"
        self.key_refusal: BacktestrError | None = None  # why the state is `auth_failed`
        self._on_state = on_state
        self._recovery = recovery
        self._errors = errors
        self._breaker = CircuitBreaker(recovery)
        self._requests = self._answered = self._failed = self._refused = 0
        self._losses = 0  # of connections since the last welcome
        self._connect_at: float | None = None
        self._is_accepted = False  # the key of this connection was taken before
        self._session = session
        self._subscriptions = Subscriptions()
        self._connection = connection
        self._keys = keys
        self._handshakes = Handshakes()
        self._file = file
        self._stamp: Stamp | None = file.stamp() if file else None
        self._next_look = 0.0
        self._context = context
        self._sockets: Sockets | None = None
        # Sleeping on file descriptors costs less than zmq.Poller, which asks every socket anew around each sleep.
        self._selector = selectors.DefaultSelector()
        self._unread: set[zmq.Socket[bytes]] = set()  # those that may have something to read
        self._commands: deque[Callable[[], None]] = deque()
        self._is_woken = False
        self._wake_up, self._waker = socket.socketpair()
        self._wake_up.setblocking(False)
        self._gate = threading.Lock()  # no command is added after the last ones were taken
        self._is_shut = False
        self._is_welcomed = False
        self._is_closing = False
        self._fault: BaseException | None = None
        self._ids = itertools.count(1)
        self._waiting: dict[str, tuple[str, PendingReply[Success] | Purpose]] = {}
        self._stream_errors = StreamErrors()
        self._mailboxes: dict[int, Mailbox] = {}
        self._finishes: dict[str, list[PendingReply[BacktestStatus]]] = {}
        self._thread = threading.Thread(target=self._run, name="backtestr client", daemon=True)
        self._thread.start()

    # --- called by any thread -------------------------------------------------------------------------------------

    def ask(self, request_type: str, data: Contract, timeout: float) -> PendingReply[Success]:
        """Send a request; the reply carries its Success data and attachments. `timeout` in seconds."""
        reply: PendingReply[Success] = PendingReply()
        self._command(lambda: self._ask(request_type, data, timeout, reply))
        return reply

    def open(self, prefix: str, since: Since, until: str | None = None, first_seq: int = 1) -> tuple[int, Mailbox]:
        """Begin a subscription (see `Subscriptions.open`); returns its number and where its deliveries arrive."""
        number = next(self._ids)
        mailbox = Mailbox(lambda count: self._command(lambda: self._do(self._subscriptions.taken(number, count))))

        def begin() -> None:
            self._mailboxes[number] = mailbox
            self._stream_errors.subscribed(number, prefix)
            self._do(self._subscriptions.open(number, prefix, since, MAX_UNREAD, until, first_seq))

        self._command(begin)
        return number, mailbox

    def shut(self, number: int) -> None:
        """End a subscription; what has arrived can still be read."""

        def end() -> None:
            self._do(self._subscriptions.close(number))
            if (mailbox := self._mailboxes.pop(number, None)) is not None:
                mailbox.end(None)
            self._stream_errors.unsubscribed(number)

        self._command(end)

    def follow(self, backtest_id: str, *, is_new: bool) -> PendingReply[BacktestStatus]:
        """A reply that carries the final status of a backtest once it has ended."""
        reply: PendingReply[BacktestStatus] = PendingReply()

        def begin() -> None:
            self._finishes.setdefault(backtest_id, []).append(reply)
            self._do(self._subscriptions.follow(backtest_id, is_new=is_new))

        self._command(begin)
        return reply

    def started(self, backtest_id: str) -> None:
        """The broker has accepted a backtest that is followed as new."""
        log.info("backtest %s was accepted", backtest_id, extra={"backtestId": backtest_id})
        self._command(lambda: self._do(self._subscriptions.started(backtest_id)))

    def unfollow(self, backtest_id: str) -> None:
        """The end of this backtest is of no interest any more."""

        def end() -> None:
            self._finishes.pop(backtest_id, None)
            self._subscriptions.unfollow(backtest_id)

        self._command(end)

    def statistics(self, missed: int) -> Statistics:
        """The counters, at one moment, also of a client that is closed; `missed` is the listeners' part."""
        counted: PendingReply[Statistics] = PendingReply()
        try:
            self._command(lambda: counted.succeed(self._count(missed)))
        except RuntimeError:  # the thread has ended, and nothing moves any more
            return self._count(missed)
        return counted.read()

    def _count(self, missed: int) -> Statistics:
        session, streams = self._session.counters, self._subscriptions.counters
        return Statistics(
            sessions=session.sessions,
            requests=self._requests,
            answered=self._answered,
            failed=self._failed,
            resent=session.resent,
            waiting=self._requests - self._answered - self._failed,
            queued=self._session.queued,
            dropped=session.dropped + self._refused,
            gaps_seen=streams.gaps_seen,
            gaps_repaired=streams.gaps_repaired,
            gaps_lost=streams.gaps_lost,
            gaps_left=streams.gaps_left,
            gaps_open=streams.gaps_open,
            messages_lost=streams.messages_lost,
            duplicates_dropped=streams.duplicates_dropped,
            watermarks_behind=streams.watermarks_behind,
            errors=self._errors.count,
            listeners_missed=missed,
        )

    def close(self) -> None:
        """Say goodbye, close the sockets and end the thread. What still waits fails with `RuntimeError`."""
        with contextlib.suppress(RuntimeError):
            self._command(self._begin_to_close)
        self._thread.join()

    def _command(self, command: Callable[[], None]) -> None:
        with self._gate:
            if self._is_shut:
                raise RuntimeError("this client is closed") from self._fault
            self._commands.append(command)
            if not self._is_woken:
                self._is_woken = True
                self._waker.send(b"\0")

    # --- the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._selector.register(self._wake_up, selectors.EVENT_READ)
            self._connect(self._connection)
            while not self._is_closing:
                for key, _ in self._selector.select(self._idle()):
                    if key.data is None:
                        self._wake_up.recv(4096)
                    else:
                        self._unread.add(key.data)
                self._turn()
        except BaseException as fault:
            self._fault = fault
            log.critical("the client's I/O thread ended: %r", fault, exc_info=fault)
        finally:
            self._disconnect()
            self._happened("closed")
            with self._gate:
                self._is_shut = True
            self._run_commands()
            self._abandon_all()

    def _turn(self) -> None:
        self._is_woken = False  # in any case: a caller may have been interrupted (Ctrl-C) before it could wake us
        self._run_commands()
        if self._sockets is not None and self._unread:
            self._take_in(self._sockets)
        now = time.monotonic()
        if self._connect_at is not None and self._connect_at <= now:
            self._connect(self._connection)
        deadline = self._session.next_deadline()
        if deadline is not None and deadline <= now:
            self._do(self._session.tick(now, _wall_ms()))
        if self._file is not None and self._next_look <= now:
            self._next_look = now + LOOK_INTERVAL
            self._look(self._file)

    def _take_in(self, sockets: Sockets) -> None:
        """A burst from each socket that may have something; what is done about it may touch them again."""
        for source in [one for one in (sockets.requests, *sockets.streams.values()) if one in self._unread]:
            arrived = receive(source, BURST)
            if len(arrived) < BURST:
                self._unread.discard(source)
            for frames in arrived:
                if source is sockets.requests:
                    self._do(self._session.receive(frames, time.monotonic(), _wall_ms(), random.random()))
                else:
                    self._do(self._subscriptions.receive(frames))
        if not self._unread.isdisjoint(sockets.monitors):
            self._handle_connection_events(sockets)

    def _run_commands(self) -> None:
        while self._commands:
            self._commands.popleft()()

    def _idle(self) -> float | None:
        """The seconds for which nothing is due; None is for ever. Each socket that was touched is asked before the next
        sleep: see `has_input`."""
        self._unread = {socket for socket in self._unread if has_input(socket)}
        if self._unread:
            return 0.0
        deadlines = (self._session.next_deadline(), self._next_look if self._file else None, self._connect_at)
        due = [deadline for deadline in deadlines if deadline is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _look(self, file: ConnectionFile) -> None:
        """Has another broker written the connection file, or has this one removed it?"""
        stamp = file.stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        if stamp is None:
            self._disconnect()
            self._happened("lost")
            return
        try:
            connection = file.read()
        except NetworkError as error:
            log.warning("%s", error)
            self._report(error, "connection")
            self._disconnect()
            self._happened("lost")
            return
        self._keys = file.own_keys
        is_other = connection.instance_id != self._connection.instance_id
        if is_other:
            self._is_accepted, self._losses, self.key_refusal = False, 0, None
            self._stream_errors.restarted()
            self._happened("replaced")
        if is_other or (self._sockets is None and self._connect_at is None):
            self._connect(connection)

    def _handle_connection_events(self, sockets: Sockets) -> None:
        """A connection that broke is made anew. With CURVE, one that nobody lets in is told to all who wait."""
        for outcome, of_requests in sockets.news():
            if outcome == "lost":
                self._lose("the connection broke")
                return
            match self._handshakes.heard(outcome, of_requests=of_requests):
                case "again":
                    self._connect_at = None
                    self._do(self._session.connected(self._connection.signer(), time.monotonic(), _wall_ms()))
                case "locked out":
                    self._lock_out(_locked_out(self._keys))
                case None:
                    pass

    def _lock_out(self, error: AuthenticationError) -> None:
        """Whoever waits, for an answer, a message or an end, waits in vain: all of them are told."""
        self._is_accepted = False
        self._key_refused(error)
        self._connect_at = time.monotonic() + LOCKED_OUT_INTERVAL
        self._do(self._session.denied(error))
        for number, mailbox in list(self._mailboxes.items()):
            del self._mailboxes[number]
            self._do(self._subscriptions.close(number))
            mailbox.end(error)
        for backtest_id in list(self._finishes):
            self._subscriptions.unfollow(backtest_id)
            self._finish(Finished(backtest_id, error))

    def _connect(self, connection: Connection) -> None:
        self._disconnect()
        self._connection = connection
        self._handshakes = Handshakes()
        self._sockets = sockets = Sockets(self._context, connection, self._keys)
        self._watch(sockets.all)
        for prefix in self._subscriptions.prefixes:
            self._listen(prefix)
        signer = connection.signer()
        self._do(self._session.connected(signer, time.monotonic(), _wall_ms()))
        self._do(self._subscriptions.connected(signer, connection.instance_id))

    def _disconnect(self) -> None:
        self._connect_at = None
        if self._sockets is None:
            return
        for one in self._sockets.all:
            self._selector.unregister(_descriptor(one))
        self._unread.clear()
        self._sockets.close()
        self._sockets = None
        self._session.disconnected()

    def _lose(self, reason: str) -> None:
        """The connection is of no use any more: make another, at once the first time, then after a wait.

        Only the first of several in a row is reported: a broker that is away for an hour is one error.
        """
        if self._losses:
            log.info("connecting again: %s", reason)
        else:
            log.warning("connecting again: %s", reason)
            self._report(NetworkError(f"connecting to the broker again: {reason}"), "connection")
        self._disconnect()
        self._happened("lost")
        wait = backoff(self._recovery, self._losses, random.random()) if self._losses else 0.0
        self._losses += 1
        self._connect_at = time.monotonic() + wait

    def _key_refused(self, error: BacktestrError) -> None:
        """Whoever is at the broker's address does not share our keys. Every sign of that comes in here.

        A key that was taken before does not go bad: then another broker has come, and its connection file will.
        """
        if self._recovery.automatic:
            self._stamp = None  # what AUTHENTICATION_ERROR advises: read the connection file again
        if self._is_accepted:
            log.info("another broker answers, whose connection file is not there yet")
            self._happened("lost")
            return
        self.key_refusal = error
        log.error("the broker does not take this client's key: %s", error)
        self._report(error, "connection")
        self._happened("key_refused")

    def _happened(self, what: ConnectionEvent) -> None:
        before, self.state = self.state, CONNECTION[self.state, what]
        if self.state != before:
            self._on_state(self.state, before)

    def _report(self, error: BacktestrError, about: str) -> None:
        self._errors.add(ErrorReport(error, about, _wall_ms()))

    def _listen(self, prefix: str) -> None:
        if self._sockets is not None:
            self._watch(self._sockets.listen(prefix))
            self._unread.update(self._sockets.streams.values())

    def _watch(self, opened: Iterable[zmq.Socket[bytes]]) -> None:
        for one in opened:
            self._selector.register(_descriptor(one), selectors.EVENT_READ, one)
            self._unread.add(one)

    def _ask(self, request_type: str, data: Contract, timeout: float, waiter: PendingReply[Success] | Purpose) -> None:
        is_own = not isinstance(waiter, PendingReply)
        now = time.monotonic()
        if isinstance(waiter, PendingReply):
            self._requests += 1
            refusal = self._breaker.refusal(now) or self._too_many()
            if refusal is not None:
                self._refused += 1
                self._fail(request_type, waiter, refusal)
                return
        request_id, effects = self._session.request(request_type, data, now, _wall_ms(), timeout, is_own=is_own)
        if not is_own:
            self._breaker.sent(request_id, now)
        self._waiting[request_id] = request_type, waiter
        self._do(effects)

    def _too_many(self) -> Busy | None:
        if self._session.waiting < MAX_WAITING:
            return None
        return Busy(f"{MAX_WAITING} requests wait for an answer already; wait for some of them first")

    def _fail(self, request_type: str, reply: PendingReply[Success], error: BacktestrError) -> None:
        self._failed += 1
        self._report(error, request_type)
        reply.fail(error)

    def _do(self, effects: Iterable[SessionEffect | SubscriptionEffect]) -> None:
        for effect in effects:
            match effect:
                case Answered():
                    match self._waiting.pop(effect.request_id):
                        case (_, PendingReply() as reply):
                            self._answered += 1
                            self._breaker.ended(effect.request_id, None, time.monotonic())
                            reply.succeed((effect.data, effect.attachments))
                        case (_, question):
                            self._do(self._subscriptions.answered(question, effect.data))
                case Send():
                    if self._sockets is not None:
                        self._unread.add(self._sockets.requests)
                    if self._sockets is None or not self._sockets.send(effect.frames):
                        log.warning("a request could not be sent; it waits for the next connection")
                case Deliver():
                    lost = self._subscriptions.counters.messages_lost
                    for error, topic in self._stream_errors.within(effect.subscription_id, effect.deliveries, lost):
                        self._report(error, topic)
                    self._mailboxes[effect.subscription_id].put(effect.deliveries)
                case Failed():
                    match self._waiting.pop(effect.request_id):
                        case (request_type, PendingReply() as reply):
                            self._breaker.ended(effect.request_id, effect.error, time.monotonic())
                            failed = f"{request_type}, id {effect.request_id}: {effect.error.code}"
                            log.info("%s: %s", failed, effect.error, extra={"requestId": effect.request_id})
                            self._fail(request_type, reply, effect.error)
                        case (_, question):
                            self._do(self._subscriptions.failed(question, effect.error))
                case Ask():
                    self._ask(effect.request_type, effect.data, REPAIR_TIMEOUT, effect.purpose)
                case End():
                    self._stream_errors.unsubscribed(effect.subscription_id)
                    if effect.error is not None:
                        self._report(effect.error, "subscription")
                    self._mailboxes.pop(effect.subscription_id).end(effect.error)
                case Finished():
                    self._finish(effect)
                case Subscribe():
                    self._listen(effect.prefix)
                case Unsubscribe():
                    if self._sockets is not None:
                        self._sockets.unlisten(effect.prefix)
                        self._unread.update(self._sockets.streams.values())
                case Welcomed():
                    self._is_accepted, self._losses, self.key_refusal = True, 0, None
                    self._breaker.welcomed()
                    self._happened("welcomed")
                    if not self._is_welcomed:
                        self._is_welcomed = True
                        self.welcomed.succeed(effect.welcome)
                case Refused():
                    log.error("the broker refuses this client: %s", effect.error)
                    self._report(effect.error, "connection")
                    self._happened("lost")
                    if not self._is_welcomed:
                        self._is_welcomed = True
                        self.welcomed.fail(effect.error)
                case KeyRefused():
                    self._key_refused(effect.error)
                case Reconnect():
                    self._lose(effect.reason)
                case UnattributedError() if isinstance(effect.error, AuthenticationError) and self.state != "ready":
                    pass  # the next broker's streams, which are there before its connection file is
                case UnattributedError():
                    log.warning("%s: %s", effect.error.code, effect.error)
                    self._report(effect.error, "connection")
                case _:
                    assert_never(effect)

    def _finish(self, finished: Finished) -> None:
        for reply in self._finishes.pop(finished.backtest_id, []):
            if isinstance(finished.outcome, BacktestrError):
                reply.fail(finished.outcome)
            else:
                reply.succeed(finished.outcome)

    def _begin_to_close(self) -> None:
        self._do(self._session.farewell(time.monotonic(), _wall_ms()))
        self._is_closing = True

    def _abandon_all(self) -> None:
        closed = RuntimeError(
            "this client is closed" if self._fault is None else f"its I/O thread ended: {self._fault!r}"
        )
        for _, waiter in self._waiting.values():
            if isinstance(waiter, PendingReply):
                waiter.fail(closed)
        for reply in itertools.chain.from_iterable(self._finishes.values()):
            reply.fail(closed)
        for mailbox in self._mailboxes.values():
            mailbox.end(closed)
        if not self._is_welcomed:
            self.welcomed.fail(closed)
        self._selector.close()
        self._wake_up.close()
        self._waker.close()


def _locked_out(keys: KeyPair | None) -> AuthenticationError:
    return AuthenticationError(
        "the broker does not let this client in: authentication or key mismatch likely. On the broker's machine "
        f"`backtestr keys list` says whose keys may connect; this client's is {keys.public if keys else 'missing'}. "
        "`backtestr keys new NAME` makes one. Or the connection file is of another broker"
    )


def _descriptor(socket: zmq.Socket[bytes]) -> int:
    return int(socket.getsockopt(zmq.FD))


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
