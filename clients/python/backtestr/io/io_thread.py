"""The I/O thread owns every socket of a client, and joins the session and the subscriptions to them and to the callers.

Callers give it commands and wait for replies. It alone touches the machines, except that a lone caller sends its
request and reads the answer itself (`caller_turns.py`). Both have the client's turn meanwhile (`turn.py`), which the
I/O thread gives up only to sleep. It also watches the connection and the connection file: when the connection breaks,
or another instance of the broker has written the file, it replaces the sockets, and the machines continue where they
were.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import random
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import assert_never

import msgspec
import zmq

from backtestr.core.backoff import backoff
from backtestr.core.circuit_breaker import CircuitBreaker
from backtestr.core.connection_state import CONNECTION, ConnectionEvent, ConnectionState
from backtestr.core.counters import Statistics, statistics
from backtestr.core.effects import (
    Answered,
    Ask,
    Deliver,
    End,
    Failed,
    Finished,
    KeyRefused,
    Reconnect,
    Refused,
    Send,
    SessionEffect,
    Subscribe,
    SubscriptionEffect,
    TopicRepair,
    UnattributedError,
    Unsubscribe,
    Wait,
    Welcomed,
)
from backtestr.core.handshakes import Handshakes, locked_out, replaced
from backtestr.core.recovery import Recovered, Recovery
from backtestr.core.session import Session
from backtestr.core.stream_errors import StreamErrors
from backtestr.core.subscriptions import Since, Subscriptions
from backtestr_protocol.connection import Connection
from backtestr_protocol.errors import AuthenticationError, BacktestrError, NetworkError
from backtestr_protocol.keys import KeyPair
from backtestr_protocol.messages import BacktestStatus, Contract, Welcome
from backtestr_protocol.zmq_frames import receive

from .caller_turns import CallerTurns
from .command_queue import CommandQueue
from .connection_file import ConnectionFile, Stamp
from .error_log import ErrorLog, ErrorReport
from .exchange import Exchange, Recipient, wall_ms
from .forks import check_process
from .interrupts import JoinableThread, join_uninterrupted
from .mailboxes import MAX_UNREAD, Mailbox, PendingReply
from .request_windows import MAX_WINDOW, RequestWindow, RequestWindows, Success
from .socket_selector import SocketSelector
from .sockets import BURST, Sockets
from .turn import Turn

# Seconds between two checks of the connection file; a file status costs microseconds.
RELOAD_INTERVAL = 0.25
# Seconds before a client whose key was denied connects again: the user has to allow the key first.
LOCKED_OUT_INTERVAL = 5.0
# Seconds after which a connection has lasted. One that breaks earlier, again and again, is made again ever more slowly.
LASTING_SECONDS = 5.0
# Requests that may wait for an answer: a program with more has a bug, and the broker's own queues are shorter.
MAX_WAITING = 1_000
# Seconds for a request of the subscriptions: its answer is small, or cut to size by the broker.
REPAIR_TIMEOUT = 30.0

log = logging.getLogger("backtestr")


class IoThread:
    """The I/O thread of one client, from its construction to `close`."""

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
        """Prepare the thread; `start` starts it.

        Without `file` no other connection will follow (a broker inside this process). `keys` is this client's own
        pair, for a connection with CURVE. The thread calls `on_state` with the new and the previous state; the function
        must not wait.
        """
        self.welcomed: PendingReply[Welcome] = PendingReply()
        self.state: ConnectionState = "connecting"
        self.key_refusal: BacktestrError | None = None  # why the state is `auth_failed`
        self._on_state = on_state
        self._recovery = recovery
        self._errors = errors
        self._breaker = CircuitBreaker(recovery)
        self._exchange = Exchange(session, self._breaker, errors, MAX_WAITING)
        self._losses = 0  # of connections in a row, none of which lasted
        self._welcomed_at: float | None = None
        self._connect_at: float | None = None
        self._is_accepted = False  # True if the broker has accepted the key of this connection before
        self._session = session
        self._subscriptions = Subscriptions()
        self._connection = connection
        self._keys = keys
        self._handshakes = Handshakes()
        self._file = file
        self._stamp: Stamp | None = file.stamp() if file else None
        self._reload_at = 0.0
        self._context = context
        self._sockets: Sockets | None = None
        self._commands = CommandQueue()
        self._turn = Turn()
        self._selector = SocketSelector(self._commands.wake_up, self._turn)
        self._callers = CallerTurns(self._turn, self._exchange, self._commands, self._selector, self._execute)
        self._is_welcomed = self._is_closing = False
        self._fault: BaseException | None = None
        self._process = os.getpid()
        self._ids = itertools.count(1)
        self._windows = RequestWindows(self._ask, lambda: session.room(MAX_WINDOW))
        self._stream_errors = StreamErrors()
        self._mailboxes: dict[int, Mailbox] = {}
        self._waits: deque[tuple[float, TopicRepair]] = deque()  # one for each topic at most, the earliest first
        self._ends: dict[str, list[PendingReply[BacktestStatus]]] = {}
        self._own_thread = JoinableThread(self._run, "backtestr client", daemon=True)

    # --- called by any thread -----------------------------------------------------------------------------------------

    @property
    def connection(self) -> Connection:
        """The connection that is used now."""
        return self._connection

    def start(self) -> None:
        """Start the thread. Whatever happens from here on, `close` ends it."""
        self._own_thread.start()

    @property
    def is_forked(self) -> bool:
        """True in a child process, which has inherited the client by a fork, and not this thread."""
        return self._commands.is_forked

    def ask(self, request_type: str, data: msgspec.Raw, timeout: float) -> PendingReply[Success]:
        """Send a request, and return the reply to its Success data and attachments. `timeout` is in seconds.

        `data` are encoded already, so that a value that cannot be sent fails in the thread of its caller.
        """
        reply: PendingReply[Success] = PendingReply()
        self._commands.add(lambda: self._ask(request_type, data, timeout, reply), lambda why: reply.fail(_ended(why)))
        return reply

    def call(self, request_type: str, data: msgspec.Raw, timeout: float) -> Success:
        """Send a request, and return its Success data and attachments, or raise its error. See `ask`."""
        check_process(self._process)
        reply = self._callers.ask(request_type, data, timeout) or self.ask(request_type, data, timeout)
        return reply.read()

    def hand_over(self, window: RequestWindow) -> None:
        """Send the requests of a window, at once and whenever some are settled."""
        self._commands.add(lambda: self._windows.add(window), lambda fault: window.abandon(_ended(fault)))

    def open(self, prefix: str, since: Since, until: str | None = None, first_seq: int = 1) -> tuple[int, Mailbox]:
        """Begin a subscription (see `Subscriptions.open`), and return its number and the mailbox of its deliveries."""
        number = next(self._ids)
        mailbox = Mailbox(
            lambda count: self._commands.add(lambda: self._execute(self._subscriptions.taken(number, count)))
        )

        def begin() -> None:
            self._mailboxes[number] = mailbox
            self._stream_errors.subscribed(number, prefix)
            self._execute(self._subscriptions.open(number, prefix, since, MAX_UNREAD, until, first_seq))

        self._commands.add(begin, lambda fault: mailbox.end(_ended(fault)))
        return number, mailbox

    def shut(self, number: int) -> None:
        """End a subscription. Deliveries that have arrived can still be read."""

        def end() -> None:
            self._execute(self._subscriptions.close(number))
            if (mailbox := self._mailboxes.pop(number, None)) is not None:
                mailbox.end(None)
            self._stream_errors.unsubscribed(number)

        self._commands.add(end)

    def follow(self, backtest_id: str, *, is_new: bool) -> PendingReply[BacktestStatus]:
        """Return the reply that carries the final status of a backtest once it has ended."""
        reply: PendingReply[BacktestStatus] = PendingReply()

        def begin() -> None:
            self._ends.setdefault(backtest_id, []).append(reply)
            self._execute(self._subscriptions.follow(backtest_id, is_new=is_new))

        self._commands.add(begin, lambda fault: reply.fail(_ended(fault)))
        return reply

    def started(self, backtest_id: str) -> None:
        """Note that the broker has accepted a backtest that is followed as new."""
        log.info("backtest %s was accepted", backtest_id, extra={"backtestId": backtest_id})
        self._commands.add(lambda: self._execute(self._subscriptions.started(backtest_id)))

    def unfollow(self, backtest_id: str) -> None:
        """Drop the replies to the end of this backtest."""

        def end() -> None:
            self._ends.pop(backtest_id, None)
            self._subscriptions.unfollow(backtest_id)

        self._commands.add(end)

    def statistics(self, missed: int) -> Statistics:
        """Return all counters at one moment, also of a closed client. `missed` counts dropped calls of callbacks."""
        counted: PendingReply[Statistics] = PendingReply()
        try:
            self._commands.add(lambda: counted.succeed(self._count(missed)), lambda fault: counted.fail(_ended(fault)))
        except RuntimeError:  # the thread has ended, and no counter changes any more
            return self._count(missed)
        return counted.read()

    def _count(self, missed: int) -> Statistics:
        return statistics(
            self._exchange.counters,
            self._session.counters,
            self._subscriptions.counters,
            queued=self._session.queued,
            errors=self._errors.count,
            listeners_missed=missed,
        )

    def check_may_wait(self) -> None:
        """Raise `RuntimeError` in a finalizer or logging handler in the middle of a call of its own thread."""
        self._callers.check_step()

    def close(self) -> None:
        """Say Goodbye, close the sockets and end the thread. Replies that still wait fail with `RuntimeError`.

        Ctrl-C meanwhile is raised when the thread has ended. In a forked child this does nothing.
        """
        if self.is_forked:
            return
        if self._own_thread.ident is None:
            self._end()
            return
        with contextlib.suppress(RuntimeError):
            self._commands.add(self._begin_to_close)
        join_uninterrupted(self._own_thread)

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        self._turn.take()
        try:
            self._connect(self._connection)
            while not self._is_closing:
                self._selector.wait(self._deadline())
                self._run_once()
        except BaseException as fault:
            self._has_failed(fault)
        finally:
            self._end()
            self._turn.leave()

    def _end(self) -> None:
        """Close everything and fail all that callers wait for, whatever goes wrong at that."""
        for step in (
            self._disconnect,
            self._close_sockets,
            self._close_state,
            self._selector.close,
            lambda: self._commands.close(self._fault),
            self._abandon_all,
            self._callers.disconnected,
            self._callers.close,
        ):
            try:
                step()
            except BaseException as fault:
                self._has_failed(fault)

    def _has_failed(self, fault: BaseException) -> None:
        self._fault = self._fault or fault
        log.critical("the client's I/O thread ended: %r", fault, exc_info=fault)

    def _close_sockets(self) -> None:
        """Close what a failed `_disconnect` has left open: the context cannot end before."""
        if self._sockets is not None:
            for socket in self._sockets.all:
                socket.close(linger=0)

    def _close_state(self) -> None:
        try:
            self._change_state("closed")
        finally:
            self.state = "closed"

    def _run_once(self) -> None:
        if self._callers.was_cut:
            self._repair()
        self._commands.run()
        if self._sockets is not None and self._selector.unread:
            self._receive(self._sockets)
        now = time.monotonic()
        if self._connect_at is not None and self._connect_at <= now:
            self._connect(self._connection)
        deadline = self._session.next_deadline()
        if deadline is not None and deadline <= now:
            self._execute(self._session.tick(now, wall_ms()))
        while self._waits and self._waits[0][0] <= now:
            self._execute(self._subscriptions.waited(self._waits.popleft()[1]))
        if self._file is not None and self._reload_at <= now:
            self._reload_at = now + RELOAD_INTERVAL
            self._reload_if_changed(self._file)
        self._windows.turn(now)
        self._callers.look_after()

    def _repair(self) -> None:
        """Begin a session anew after an exception in the middle of a caller's step."""
        self._losses = 0  # the broker is there: no need to wait
        self._reconnect("an exception interrupted a call in the middle of a step")
        self._execute(self._exchange.reconcile())
        self._callers.was_cut = False

    def _receive(self, sockets: Sockets) -> None:
        """Read a burst from each socket that may have something; the effects may touch the sockets again."""
        unread = self._selector.unread
        for source in [one for one in (sockets.requests, *sockets.streams.values()) if one in unread]:
            arrived = receive(source, BURST)
            if len(arrived) < BURST:
                unread.discard(source)
            if arrived and source is sockets.requests:
                self._callers.recall()
            for frames in arrived:
                if source is sockets.requests:
                    self._execute(self._session.receive(frames, time.monotonic(), wall_ms(), random.random()))
                else:
                    self._execute(self._subscriptions.receive(frames))
        if not unread.isdisjoint(sockets.monitors):
            self._handle_connection_events(sockets)

    def _deadline(self) -> float | None:
        """Return when something is due, in monotonic seconds, or None for never."""
        deadlines = (
            self._session.next_deadline(),
            self._reload_at if self._file else None,
            self._connect_at,
            self._waits[0][0] if self._waits else None,
            self._windows.next_deadline(),
            self._callers.next_check(),
        )
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def _reload_if_changed(self, file: ConnectionFile) -> None:
        """Connect to the broker that has written the connection file, or disconnect if the file is gone."""
        stamp = file.stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        if stamp is None:
            self._disconnect()
            self._change_state("lost")
            return
        try:
            connection = file.read()
        except NetworkError as error:
            log.warning("%s", error)
            self._report(error, "connection")
            self._disconnect()
            self._change_state("lost")
            return
        self._keys = file.own_keys
        is_other = connection.instance_id != self._connection.instance_id
        if is_other:
            self._is_accepted, self._losses, self.key_refusal = False, 0, None
            self._stream_errors.restarted()
            self._change_state("replaced")
        if is_other or (self._sockets is None and self._connect_at is None):
            self._connect(connection)

    def _handle_connection_events(self, sockets: Sockets) -> None:
        """Replace a connection that broke, and give up on a broker that denies this client's key (CURVE)."""
        for outcome, of_requests in sockets.connection_events():
            if outcome == "lost":
                self._reconnect("the connection broke")
                return
            match self._handshakes.ended(outcome, of_requests=of_requests):
                case "reconnected":
                    self._connect_at = None
                    self._execute(self._session.connected(self._connection.signer(), time.monotonic(), wall_ms()))
                case "locked out":
                    self._lock_out(locked_out(self._keys.public if self._keys else None))

    def _lock_out(self, error: AuthenticationError) -> None:
        """Fail every wait for an answer, a message or an end: the broker at this address denies this client's key."""
        self._is_accepted = False
        self._key_refused(error)
        self._connect_at = time.monotonic() + LOCKED_OUT_INTERVAL
        self._execute(self._session.denied(error))
        for number, mailbox in list(self._mailboxes.items()):
            del self._mailboxes[number]
            self._execute(self._subscriptions.close(number))
            mailbox.end(error)
        for backtest_id in list(self._ends):
            self._subscriptions.unfollow(backtest_id)
            self._finish(Finished(backtest_id, error))

    def _connect(self, connection: Connection) -> None:
        self._disconnect()
        self._connection = connection
        self._handshakes = Handshakes()
        self._sockets = sockets = Sockets(self._context, connection, self._keys)
        self._selector.watch(sockets.all)
        for prefix in self._subscriptions.prefixes:
            self._subscribe(prefix)
        signer = connection.signer()
        self._execute(self._session.connected(signer, time.monotonic(), wall_ms()))
        self._execute(self._subscriptions.connected(signer, connection.instance_id))
        self._callers.connected(sockets)

    def _disconnect(self) -> None:
        self._connect_at = None
        if self._sockets is None:
            return
        self._callers.disconnected()
        self._selector.forget(self._sockets.all)
        self._sockets.close()
        self._sockets = None
        self._session.disconnected()

    def _reconnect(self, reason: str) -> None:
        """Give up this connection and make another: at once after one that lasted, otherwise after the back-off.

        Only the first of several losses in a row is reported: an hour without a broker is one error.
        """
        now = time.monotonic()
        if self._welcomed_at is not None and now - self._welcomed_at >= LASTING_SECONDS:
            self._losses = 0
        self._welcomed_at = None
        if self._losses:
            log.info("connecting again: %s", reason)
        else:
            log.warning("connecting again: %s", reason)
            self._report(NetworkError(f"connecting to the broker again: {reason}"), "connection")
        self._disconnect()
        self._change_state("lost")
        self._connect_at = now + (backoff(self._recovery, self._losses, random.random()) if self._losses else 0.0)
        self._losses += 1

    def _key_refused(self, error: BacktestrError) -> None:
        """Note that the broker at this address does not accept this client's key. Every sign of that comes in here.

        A key that was accepted before stays valid for its broker. So another broker is there now, and its connection
        file will follow, if there is one to read.
        """
        if self._recovery.automatic:
            self._stamp = None  # as AUTHENTICATION_ERROR advises: read the connection file again
        if self._is_accepted:
            log.info("another broker answers, whose connection file is not there yet")
            self._change_state("lost")
            return
        self.key_refusal = error
        log.error("the broker does not take this client's key: %s", error)
        self._report(error, "connection")
        self._change_state("key_refused")

    def _change_state(self, what: ConnectionEvent) -> None:
        before, self.state = self.state, CONNECTION[self.state, what]
        if self.state != before:
            self._on_state(self.state, before)

    def _report(self, error: BacktestrError, about: str) -> None:
        self._errors.add(ErrorReport(error, about, wall_ms()))

    def _subscribe(self, prefix: str) -> None:
        if self._sockets is not None:
            self._selector.watch(self._sockets.subscribe(prefix))
            self._selector.unread.update(self._sockets.streams.values())

    def _ask(
        self,
        request_type: str,
        data: Contract | msgspec.Raw,
        timeout: float,
        recipient: Recipient,
        waited: float = 0.0,
    ) -> None:
        self._execute(self._exchange.ask(request_type, data, timeout, recipient, waited))

    def _execute(self, effects: Iterable[SessionEffect | SubscriptionEffect]) -> None:
        for effect in effects:
            if type(effect) is Send:  # the patterns ask the metaclass of each struct, which takes as long as to send
                if self._sockets is not None:
                    self._selector.unread.add(self._sockets.requests)
                if self._sockets is None or not self._sockets.send(effect.frames):
                    log.warning("a request could not be sent; it waits for the next connection")
                continue
            match effect:
                case Answered():
                    if (question := self._exchange.answered(effect)) is not None:
                        self._execute(self._subscriptions.answered(question, effect.data))
                case Deliver():
                    counters = self._subscriptions.counters
                    for error, topic in self._stream_errors.find(effect.subscription_id, effect.deliveries, counters):
                        self._report(error, topic)
                    self._mailboxes[effect.subscription_id].put(effect.deliveries)
                case Failed():
                    if (question := self._exchange.failed(effect)) is not None:
                        self._execute(self._subscriptions.failed(question, effect.error))
                case Ask():
                    self._ask(effect.request_type, effect.data, REPAIR_TIMEOUT, effect.purpose)
                case Wait(seconds, repair):
                    self._waits.append((time.monotonic() + seconds, repair))
                case End():
                    self._stream_errors.unsubscribed(effect.subscription_id)
                    if effect.error is not None:
                        self._report(effect.error, "subscription")
                    self._mailboxes.pop(effect.subscription_id).end(effect.error)
                case Finished():
                    self._finish(effect)
                case Subscribe():
                    self._subscribe(effect.prefix)
                case Unsubscribe():
                    if self._sockets is not None:
                        self._sockets.unsubscribe(effect.prefix)
                        self._selector.unread.update(self._sockets.streams.values())
                case Welcomed():
                    self._is_accepted, self.key_refusal = True, None
                    self._welcomed_at = time.monotonic()
                    self._breaker.welcomed()
                    if self.state == "reconnecting":
                        self._report(Recovered("the client is connected to the broker again"), "connection")
                    self._change_state("welcomed")
                    if not self._is_welcomed:
                        self._is_welcomed = True
                        self.welcomed.succeed(effect.welcome)
                case Refused():
                    log.error("the broker refuses this client: %s", effect.error)
                    self._report(effect.error, "connection")
                    self._change_state("lost")
                    if not self._is_welcomed:
                        self._is_welcomed = True
                        self.welcomed.fail(effect.error)
                case KeyRefused() if self._file is None and self._is_welcomed:
                    self._lock_out(replaced())
                case KeyRefused():
                    self._key_refused(effect.error)
                case Reconnect():
                    self._reconnect(effect.reason)
                case UnattributedError() if isinstance(effect.error, AuthenticationError) and self.state != "ready":
                    pass  # messages of the next broker, which come before its connection file
                case UnattributedError():
                    log.warning("%s: %s", effect.error.code, effect.error)
                    self._report(effect.error, "connection")
                case _:
                    assert_never(effect)

    def _finish(self, finished: Finished) -> None:
        for reply in self._ends.pop(finished.backtest_id, []):
            if isinstance(finished.outcome, BacktestrError):
                reply.fail(finished.outcome)
            else:
                reply.succeed(finished.outcome)

    def _begin_to_close(self) -> None:
        self._execute(self._session.farewell(time.monotonic(), wall_ms()))
        self._is_closing = True

    def _abandon_all(self) -> None:
        closed = RuntimeError("this client is closed") if self._fault is None else _ended(self._fault)
        self._exchange.abandon(closed)
        self._windows.abandon(closed)
        for reply in itertools.chain.from_iterable(self._ends.values()):
            reply.fail(closed)
        for mailbox in self._mailboxes.values():
            mailbox.end(closed)
        if not self._is_welcomed:
            self.welcomed.fail(closed)


def _ended(fault: BaseException) -> RuntimeError:
    return RuntimeError(f"this client's I/O thread ended: {fault!r}")
