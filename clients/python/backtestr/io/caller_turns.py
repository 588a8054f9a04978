"""A caller does its own I/O when no one else is: it sends its request, and reads until its answer is there.

That spares two hand-overs between threads. One caller at a time does so, the leader. It has the client's turn for each
step and none while it sleeps. The I/O thread goes on with streams, timers and the requests of other callers meanwhile.
It leaves the socket for requests out of its own sleep, and takes it back when the leader is recalled, when the leader
leaves and requests still wait, and after `TAKE_BACK_SECONDS` without a leader.

Ctrl-C is put off during each step (`interrupts.py`). Any other exception that cuts a step in two, as a handler of
another signal may raise it, is repaired by the I/O thread as a lost connection is: `was_cut` says so.
"""

from __future__ import annotations

import logging
import math
import random
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

import msgspec
import zmq

from backtestr.core.effects import Answered, Failed, Send, SessionEffect
from backtestr_protocol.zmq_frames import has_input, receive

from .command_queue import CommandQueue
from .exchange import Exchange, wall_ms
from .interrupts import InterruptGuard
from .mailboxes import PendingReply
from .request_windows import Success
from .socket_selector import SocketSelector
from .sockets import BURST, Sockets
from .turn import Turn

# Seconds after which the I/O thread looks whether answers wait that no caller reads.
TAKE_BACK_SECONDS = 0.25
# Where a system cannot sleep on two descriptors at once in a cheap way (Windows), the I/O thread serves all calls.
_CAN_LEAD = hasattr(select, "poll")
# Milliseconds of one sleep of a leader: where the system gives Ctrl-C to another thread, it is noticed on waking.
_SLEEP_MS = 250

log = logging.getLogger("backtestr")


class CallerTurns:
    """The turns of callers at the socket for requests of one client.

    The methods from `look_after` on are the I/O thread's, which has the turn when it calls them.
    """

    def __init__(
        self,
        turn: Turn,
        exchange: Exchange,
        commands: CommandQueue,
        selector: SocketSelector,
        execute: Callable[[Sequence[SessionEffect]], None],
    ) -> None:
        """Take what callers use in their turns, and `execute`, which the I/O thread calls for all other effects."""
        self.was_cut = False
        self._turn = turn
        self._exchange = exchange
        self._commands = commands
        self._selector = selector
        self._execute = execute
        self._sockets: Sockets | None = None
        self._descriptor = -1  # of the socket for requests
        self._leader: PendingReply[Success] | None = None
        self._leading_thread = 0  # of the leader, or of the last one
        self._led_at = 0.0
        self._is_recalled = False
        self._is_closed = False
        self._recalls, self._recaller = socket.socketpair()

    # --- called by any thread -----------------------------------------------------------------------------------------

    def ask(self, request_type: str, data: msgspec.Raw, timeout: float) -> PendingReply[Success] | None:
        """Send a request and read until its reply is settled, or until this caller is recalled.

        Returns the reply, or None without having sent anything: the I/O thread has to do it, because it or another
        caller is at work, or because Ctrl-C could not be put off.
        """
        self._check_nesting()
        if not self._turn.is_free or not self._may_lead():
            return None
        guard = InterruptGuard()
        if not guard.is_needed():
            return self._lead(request_type, data, timeout, guard)
        if not guard.is_possible():
            return None
        return guard.run(lambda held: self._lead(request_type, data, timeout, held))

    def check_step(self) -> None:
        """Raise `RuntimeError` in the middle of a step of this very thread, where waiting would never end."""
        if self._leader is not None and self.was_cut and self._leading_thread == threading.get_ident():
            raise RuntimeError("a finalizer or logging handler called the client that called it; use another thread")

    def _check_nesting(self) -> None:
        """Have the I/O thread read for a leader whose own thread calls again, in a signal handler during its sleep."""
        if self._leader is not None and self._leading_thread == threading.get_ident():
            self.check_step()
            with self._turn.next, self._turn.now:
                self.recall()
                self._take_back()

    def _may_lead(self) -> bool:
        return (
            _CAN_LEAD
            and self._leader is None
            and self._sockets is not None
            and not self.was_cut
            and self._commands.is_empty
            and self._exchange.session.state == "ready"
            and not self._exchange.session.waiting
        )

    def _lead(
        self, request_type: str, data: msgspec.Raw, timeout: float, guard: InterruptGuard
    ) -> PendingReply[Success] | None:
        reply: PendingReply[Success] = PendingReply()
        is_sent = is_step = False
        try:
            with self._turn.next, self._turn.now:
                if not self._may_lead():
                    return None
                poller = select.poll()
                poller.register(self._descriptor, select.POLLIN)
                poller.register(self._recalls, select.POLLIN)
                self.was_cut = is_step = True
                self._begin(request_type, data, timeout, reply)
                self.was_cut = is_step = False
            is_sent = True
            while self._leader is reply:
                guard.let_through(poller.poll, _SLEEP_MS)
                with self._turn.next, self._turn.now:
                    self.was_cut = is_step = True
                    self._receive(reply)
                    self.was_cut = is_step = False
        except BaseException as error:
            self._give_up(reply, is_cut=is_step)
            if is_step:
                log.error("a call was interrupted in the middle of a step: %r", error)
            if not is_step or not is_sent or guard.is_needed():
                raise
            if not isinstance(error, Exception):
                reply.read()
                raise
        return reply

    def _begin(self, request_type: str, data: msgspec.Raw, timeout: float, reply: PendingReply[Success]) -> None:
        assert self._sockets is not None
        self._leader, self._leading_thread = reply, threading.get_ident()
        self._led_at = now = time.monotonic()
        if not self._selector.is_left_out(self._sockets.requests):
            self._selector.leave_out(self._sockets.requests)
        self._perform(self._exchange.ask(request_type, data, timeout, reply))
        deadline = self._exchange.session.next_deadline()
        if self._selector.sleeps_until > min(now + TAKE_BACK_SECONDS, deadline or math.inf):
            self._commands.wake()
        if reply.is_settled:
            self._leave()
        else:
            self._read_on(reply)

    def _receive(self, reply: PendingReply[Success]) -> None:
        """Take in what woke the leader: a recall, or one answer and those behind it that somebody waits for."""
        if self._is_recalled or self._sockets is None:
            self._leave()
            return
        for frames in receive(self._sockets.requests, 1, expecting=True):
            self._take_in(frames)
        if reply.is_settled and not self._exchange.session.waiting:
            self._leave()
        else:
            self._read_on(reply)

    def _read_on(self, reply: PendingReply[Success]) -> None:
        """Read until nothing is there: the socket was touched, and its descriptor may not report what came before."""
        while self._leader is reply and self._sockets is not None and has_input(self._sockets.requests):
            for frames in receive(self._sockets.requests, BURST, expecting=True):
                self._take_in(frames)
        if reply.is_settled and self._leader is reply:
            self._leave()

    def _take_in(self, frames: list[bytes]) -> None:
        self._perform(self._exchange.session.receive(frames, time.monotonic(), wall_ms(), random.random()))

    def _perform(self, effects: list[SessionEffect]) -> None:
        """Send, and settle the replies of callers; leave anything else, and the socket, to the I/O thread."""
        for index, effect in enumerate(effects):
            # `type`, since `isinstance` asks the metaclass of a struct, which takes as long as to send.
            if type(effect) is Send and self._sockets is not None:
                if not self._sockets.send(effect.frames):
                    log.warning("a request could not be sent; it waits for the next connection")
            elif type(effect) is Answered and self._exchange.is_of_caller(effect.request_id):
                self._exchange.answered(effect)
            elif type(effect) is Failed and self._exchange.is_of_caller(effect.request_id):
                self._exchange.failed(effect)
            else:
                self._commands.add(partial(self._execute, effects[index:]))
                self._leave()
                return

    def _leave(self) -> None:
        """End the lead, and have the I/O thread read on if an answer is still expected."""
        self._end_lead()
        session = self._exchange.session
        if session.waiting or session.state != "ready":
            self._take_back()
            self._commands.wake()

    def _end_lead(self) -> None:
        self._leader = None
        if self._is_recalled:
            self._is_recalled = False
            self._recalls.recv(1)
        if self._is_closed:
            self.close()

    def _give_up(self, reply: PendingReply[Success], *, is_cut: bool) -> None:
        """End the lead after an exception; what it cut in two is left to the I/O thread as it is."""
        with self._turn.next, self._turn.now:
            if is_cut:
                if self._leader is reply:
                    self._end_lead()
                self._commands.wake()
            elif self._leader is reply:
                self._leave()

    # --- the I/O thread -----------------------------------------------------------------------------------------------

    def connected(self, sockets: Sockets) -> None:
        """Let callers use these sockets."""
        self._sockets = sockets
        self._descriptor = int(sockets.requests.getsockopt(zmq.FD))

    def disconnected(self) -> None:
        """Let no caller lead until there is a connection."""
        self._sockets = None
        self.recall()

    def recall(self) -> None:
        """End the lead, if there is one: the I/O thread reads from now on, and the caller waits for its reply."""
        if self._leader is not None and not self._is_recalled:
            self._is_recalled = True
            self._recaller.send(b"\0")

    def look_after(self) -> None:
        """Read instead of a leader that does not, or has its answer, and take the socket back if there is no leader."""
        if self._leader is not None and self._leader.is_settled:
            self.recall()
        if self._sockets is None or not self._selector.is_left_out(self._sockets.requests):
            return
        if self._is_recalled or (self._leader is None and self._is_due()):
            self._take_back()
        elif self._leader is not None:
            self._selector.unread.add(self._sockets.requests)

    def _is_due(self) -> bool:
        session = self._exchange.session
        is_idle = time.monotonic() >= self._led_at + TAKE_BACK_SECONDS
        return is_idle or session.waiting > 0 or session.state != "ready"

    def _take_back(self) -> None:
        if self._sockets is not None and self._selector.is_left_out(self._sockets.requests):
            self._selector.take_in(self._sockets.requests)

    def next_check(self) -> float | None:
        """Return when `look_after` is due, in monotonic seconds, or None for never."""
        if self._sockets is None or not self._selector.is_left_out(self._sockets.requests):
            return None
        return time.monotonic() + TAKE_BACK_SECONDS

    def close(self) -> None:
        """Close what leaders are recalled by; if there is a leader still, it does so when it leaves."""
        self._is_closed = True
        if self._leader is None:
            self._recalls.close()
            self._recaller.close()
