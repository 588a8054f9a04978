"""A worker has an I/O thread, which owns the socket and always sends beats, and a compute thread, which does the tasks.

The calling thread is the I/O thread. Between the two are two bounded queues and a socket pair that wakes the poller. An
interactive worker has a third thread, for price replays (`replay_thread.py`), that sends as the compute thread does.
The worker ends when its lifeline is cut (`lifeline.py`): its broker has closed it, or has ended. It also ends,
after the answer, when a task has left the process in another state than before (`process_state`), or has not come back.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import os
import queue
import socket as sockets_of_the_system
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

import msgspec
import psutil
import zmq

from backtestr_engine.backtest.checkpoint_store import CHECKPOINTS, CheckpointStore
from backtestr_engine.backtest.own_bars import OwnBarsCheck
from backtestr_engine.backtest.result_store import ResultStore
from backtestr_engine.config import EngineConfig
from backtestr_engine.data.synthetic import write_synthetic
from backtestr_engine.library.source_files import Limit
from backtestr_engine.publishing.adaptive_tuning import Tuner
from backtestr_engine.publishing.batching import Batcher
from backtestr_engine.publishing.payloads import Packer, total
from backtestr_protocol.codec import Signer
from backtestr_protocol.errors import MessageError, TimeLimitExceeded
from backtestr_protocol.secret import Secret
from backtestr_protocol.worker_channel import (
    MAX_ON_THE_WAY,
    Assign,
    Beat,
    Control,
    Credit,
    Finished,
    Published,
    Ready,
    Task,
    ToBroker,
    Work,
    WorkerSettings,
    decode_to_worker,
    encode_proof,
    encode_to_broker,
)
from backtestr_protocol.zmq_frames import receive, send

from .calls_apart import CallsApart
from .encryption import use_keys
from .inbox import Inbox
from .interactive_tasks import Means
from .lifeline import Lifeline
from .log import TaskLog
from .price_replays import PriceReplays, Sent
from .prints import PrintBudget
from .process_state import ProcessState
from .replay_thread import ReplayThread
from .start_up import equip
from .sweeping.sweep_store import SWEEPS, SweepStore
from .sweeping.trial_log import TRIALS
from .sweeping.trial_store import TrialStore
from .table_files import TableFiles
from .task_runner import TaskRunner
from .time_limit import LOAD_OPTION, time_limit
from .warm_up import warm, warm_answers

# The most messages that are sent or received before the other direction follows.
_BURST = 32
# The milliseconds that ZeroMQ may take to send the last message when the worker ends.
_LINGER_MS = 100
# The seconds by which a task may exceed its time limit: a chunk may be computing, or a result be stored.
_GRACE_SECONDS = 2.0
# The kinds of tasks that load or run code of a user in this process.
_RUNS_CODE: tuple[Work, ...] = (
    *("CheckBacktest", "RunBacktest", "EvaluateAlgorithm"),
    *("CheckSweep", "ProposeBatch", "RunBlock", "RunSpan", "OpenSweepRun"),
)
# The seconds that a worker which is to be replaced has for sending its last messages.
_LEAVING_SECONDS = 10.0
# The seconds between two checks of a waiting thread if the worker ends.
_CHECK_SECONDS = 0.2
# The weight of the latest batch in the smoothed time that batches wait; it follows a change within some 40 batches.
_SMOOTHING = 0.05

# An algorithm may have replaced them in their module.
_getpid, _exit = os.getpid, os._exit

T = TypeVar("T")

_log = logging.getLogger(__name__)


class _Deadline(msgspec.Struct, frozen=True):
    """The monotonic time by which the compute thread must have returned, and the error message if it has not."""

    at: float = math.inf
    message: str = ""


_STUCK_BACKTEST = (
    "the algorithm did not come back within the time limit and was ended with its worker; raise "
    "options.timeLimitMs, or look for an endless loop"
)
_STUCK_INTERACTIVE_TASK = (
    "it took longer than {:g} s and was ended with its worker; worker.question_time_limit_ms in engine.toml is how "
    "long it may take"
)
_STUCK_BLOCK = "the algorithm did not come back within the time limit of a block and was ended with its worker"


class _BlockLimit(msgspec.Struct, rename="camel"):
    limit_ms: int | None = None


_block_decoder = msgspec.msgpack.Decoder(_BlockLimit)


class _Threads:
    """The state that the threads of a worker share."""

    def __init__(
        self,
        worker_id: str,
        outbox: int,
        limit_processor: Callable[[float], None],
        prints: PrintBudget | None = None,
    ) -> None:
        self.inbox = Inbox()
        # Each with the time at which it was put there.
        self.outbox: queue.Queue[tuple[ToBroker, Sequence[bytes], float]] = queue.Queue(outbox)
        self.sending = 0.0  # seconds that published messages wait there, smoothed
        # None until the compute thread is ready. The I/O thread reads only the counters of it and of the packers.
        self.runner: TaskRunner | None = None
        self.packers: list[Packer] = []
        self.stopping = threading.Event()
        self.task_id: str | None = None
        self.tasks = TaskLog(worker_id, prints)
        self.muted: Callable[[], AbstractContextManager[None]] = prints.muted if prints else contextlib.nullcontext
        self.deadline = _Deadline()
        self.state: ProcessState | None = None  # of a process of the worker's own, once it is ready
        self.has_user_code = False  # whether code of a user was loaded here: nothing else leaves another state
        self.leaving: str | None = None  # the reason why this worker is to be replaced
        self.leave_by = math.inf
        self._limit_processor = limit_processor
        self._allowed = math.inf
        self.read_end, self._write_end = sockets_of_the_system.socketpair()
        self.read_end.setblocking(False)
        self._write_end.setblocking(False)

    @contextlib.contextmanager
    def limited(self, seconds: float, stuck: str) -> Iterator[None]:
        """Limit the code in the `with` block to `seconds` and some grace.

        After that the I/O thread fails the task with the message `stuck`, and ends the worker. If the calculation does
        not even let that thread run, the system ends the process after as much processor time.
        """
        before = self.deadline, self._allowed
        deadline = _Deadline(time.monotonic() + seconds + _GRACE_SECONDS, stuck)
        if deadline.at < self.deadline.at:
            self._allow(deadline, seconds)
        try:
            yield
        finally:
            self._allow(*before)

    def _allow(self, deadline: _Deadline, seconds: float) -> None:
        self.deadline, self._allowed = deadline, seconds
        self._limit_processor(seconds + 2 * _GRACE_SECONDS)

    def send(self, sent: Sequence[tuple[ToBroker, Sequence[bytes]]]) -> None:
        """Pass messages to the I/O thread.

        It waits while the queue is full, which slows the work down to the speed at which the broker accepts messages.
        """
        if not sent:
            return
        now = time.monotonic()
        for message, payload in sent:
            if self.outbox.full():
                self.wake()
            while not self.stopping.is_set():
                with contextlib.suppress(queue.Full):
                    self.outbox.put((message, payload, now), timeout=_CHECK_SECONDS)
                    break
        self.wake()

    def sent(self, message: ToBroker, put: float) -> None:
        """Count a message that the I/O thread has sent; `put` is the time at which it was put into the outbox."""
        if isinstance(message, Published):
            self.sending += _SMOOTHING * (time.monotonic() - put - self.sending)

    def source_loaded(self) -> None:
        """Take the settings that a source has made while it was loaded for those of the process."""
        self.has_user_code = True
        if self.state is not None:
            self.state.accept()

    def is_clean(self) -> bool:
        """Return whether the process is as a run of an algorithm must leave it; what can be put back is put back."""
        return self.state is None or self.state.changes() is None

    def settled(self, sent: list[Sent]) -> list[Sent]:
        """Return the messages of a task; if it has ended and left another state of the process, the worker leaves.

        The last message of an end then states the reason, and the worker ends by itself after it.
        """
        ends = [index for index, (message, _) in enumerate(sent) if isinstance(message, Finished)]
        if not ends or not self.has_user_code or self.state is None or (reason := self.state.changes()) is None:
            return sent
        self.leaving, self.leave_by = reason, time.monotonic() + _LEAVING_SECONDS
        _log.warning("worker_leaves", extra={"reason": reason})
        last, payload = sent[ends[-1]]
        assert isinstance(last, Finished)
        ended = msgspec.structs.replace(last, is_last=True, reason=reason)
        return [*sent[: ends[-1]], *sent[ends[-1] + 1 :], (ended, payload)]

    def is_unchanged(self) -> bool:
        """Put back what an algorithm has changed in the process, and return False if something cannot be put back."""
        if not self.has_user_code or self.state is None or (reason := self.state.changes()) is None:
            return True
        _log.warning("process_changed", extra={"reason": reason})
        return False

    def has_unsent(self, waiting: deque[list[bytes]]) -> bool:
        """Return whether a worker that leaves has more to send, and time for it."""
        return (
            self.leaving is not None and (bool(waiting) or not self.outbox.empty()) and time.monotonic() < self.leave_by
        )

    def tune(self, tuner: Tuner) -> None:
        backlog = self.outbox.qsize() / self.outbox.maxsize
        tuner.step(backlog=backlog, cpu_percent=psutil.cpu_percent(), sending_ms=1000 * self.sending)

    def beat(self) -> Beat:
        if self.runner is None:
            return Beat(task_id=self.task_id)
        batcher = self.runner.batcher
        compression = total([packer.status for packer in self.packers])
        batching, cache = batcher.status(1000 * self.sending), self.runner.cache_status
        return Beat(task_id=self.task_id, batching=batching, compression=compression, bars_cache=cache)

    def wake(self) -> None:
        with contextlib.suppress(OSError):  # it is already being woken, or has ended
            self._write_end.send(b"\0")

    def close(self) -> None:
        if self.runner is not None:
            self.runner.close()
        self.read_end.close()
        self._write_end.close()


def run_worker(
    context: zmq.Context[zmq.Socket[bytes]],
    settings: WorkerSettings,
    lifeline: int,
    config: EngineConfig,
    data_dir: Path,
    limit_processor: Callable[[float], None] | None = None,
    prints: PrintBudget | None = None,
) -> str | None:
    """Run a worker until the file descriptor `lifeline` reads end-of-file, or until an algorithm does not return.

    The descriptor is closed here. The thread of such an algorithm cannot be ended. So its task fails, the worker ends,
    and the broker starts another. `limit_processor` is called around code that may run an algorithm, if the process is
    the worker's own (`resources`); then `prints` is the budget of tasks for what they print, too. Such a worker also
    ends when a task has left its process in another state; the reason is returned.
    """
    threads = _Threads(settings.worker_id, config.worker.outbox, limit_processor or _no_limit, prints)
    replays = None
    if settings.kind == "interactive":
        prices, packer = config.batching.classes["prices"], Packer(config.compression, time.monotonic)
        threads.packers.append(packer)
        replays = ReplayThread(
            settings.worker_id, lambda: PriceReplays(prices, packer), threads.send, threads.stopping, _wall_ms
        )
    compute = threading.Thread(
        target=_compute,
        args=(threads, settings, config, data_dir, replays, limit_processor is not None),
        name=f"{settings.worker_id}-compute",
        daemon=True,
    )
    line = Lifeline(lifeline, threads.wake)
    compute.start()
    try:
        _exchange(context, settings, line, config.worker.beat_interval_ms / 1000, threads, compute, replays)
    finally:
        threads.stopping.set()
        compute.join(_CHECK_SECONDS * 5)
        if replays is not None:
            replays.join(_CHECK_SECONDS * 5)
        line.join()
        threads.close()
    return threads.leaving


def _no_limit(_further_seconds: float) -> None:
    """Limit nothing: the process is another program's."""


def _exchange(
    context: zmq.Context[zmq.Socket[bytes]],
    settings: WorkerSettings,
    lifeline: Lifeline,
    beat_interval: float,
    threads: _Threads,
    compute: threading.Thread,
    replays: ReplayThread | None,
) -> None:
    """Receive the broker's messages, send those of the other threads, and send beats: the loop of the I/O thread."""
    socket = context.socket(zmq.DEALER)
    socket.set(zmq.LINGER, _LINGER_MS)
    socket.set(zmq.SNDHWM, MAX_ON_THE_WAY)
    socket.set(zmq.ROUTING_ID, f"{settings.worker_id}-{os.getpid()}-{threading.get_native_id()}".encode())
    use_keys(socket, settings.curve)
    socket.connect(settings.endpoint)
    poller = zmq.Poller()
    poller.register(threads.read_end.fileno(), zmq.POLLIN)
    waiting: deque[list[bytes]] = deque()  # frames that the socket did not take
    has_more = has_proved = False  # nothing goes out before the message that proves the worker
    beat_due = time.monotonic() + beat_interval
    try:
        while compute.is_alive() or threads.has_unsent(waiting):
            poller.register(socket, zmq.POLLIN | (zmq.POLLOUT if waiting else 0))
            idle = max(0.0, beat_due - time.monotonic())
            ready = dict(poller.poll(0 if has_more else math.ceil(idle * 1000)))
            if lifeline.is_cut:
                return
            if threads.read_end.fileno() in ready:
                _drain(threads.read_end)
            for frames in receive(socket, _BURST):
                with contextlib.suppress(MessageError):  # the loop goes on, whatever comes
                    message, payload = decode_to_worker(frames)
                    if replays is not None and isinstance(message, Control | Credit):
                        replays.put(message)
                    elif not isinstance(message, Credit):  # a compute worker hosts no price replay
                        threads.inbox.put(message, payload)
            now = time.monotonic()
            if now >= beat_due:
                beat_due = now + beat_interval
                if has_proved:
                    waiting.append(encode_to_broker(threads.beat()))
            deadline = threads.deadline
            if now >= deadline.at:
                threads.tasks.given_up(threads.task_id, deadline.message)
                if has_proved:
                    waiting.append(encode_to_broker(_overdue(threads.task_id, deadline.message)))
                    _send_all(socket, waiting)
                return
            if not has_proved:
                has_proved = _prove(settings.key, threads, waiting)
            _send_all(socket, waiting)
            has_more = has_proved and not waiting and _send_burst(socket, threads, waiting)
    finally:
        socket.close(None if threads.leaving is None else round(1000 * _GRACE_SECONDS))


def _overdue(task_id: str | None, message: str) -> Finished:
    late = TimeLimitExceeded(message).to_data(component="engine", timestamp=_wall_ms())
    return Finished(task_id=task_id or "", outcome="failed", error=late, is_last=True)


def _limit_of_evaluations(threads: _Threads, config: EngineConfig) -> Limit:
    """Return a limit for an evaluation: it may take as long as a backtest, and no longer than an interactive task."""
    milliseconds = min(config.conventions.time_limit_ms, config.worker.question_time_limit_ms)
    return _ending_the_worker(threads, milliseconds / 1000, "time_limit_ms under [conventions]")


def _ending_the_worker(threads: _Threads, seconds: float, option: str = LOAD_OPTION) -> Limit:
    """Return a limit for the code of a task: code that cannot be interrupted fails its task, and ends the worker."""
    interrupting = time_limit(seconds, 2 * _GRACE_SECONDS, option)  # the worker ends before that

    def limit(what: str, work: Callable[[], T], /) -> T:
        stuck = f"{what} took longer than {seconds:g} s, could not be interrupted, and was ended with its worker"
        with threads.limited(seconds, stuck):
            return interrupting(what, work)

    return limit


def _prove(key: Secret, threads: _Threads, waiting: deque[list[bytes]]) -> bool:
    """Put the proof of the worker behind what waits, once the compute thread is ready; return True if it did."""
    try:
        ready, _, _ = threads.outbox.get_nowait()
    except queue.Empty:
        return False
    assert isinstance(ready, Ready), "a worker's first message is Ready"
    waiting.append(encode_proof(Signer(key), ready))
    return True


def _send_burst(socket: zmq.Socket[bytes], threads: _Threads, waiting: deque[list[bytes]]) -> bool:
    """Send up to a burst of the messages in the outbox; return True if there may be more."""
    for _ in range(_BURST):
        try:
            message, payload, put = threads.outbox.get_nowait()
        except queue.Empty:
            return False
        waiting.append(encode_to_broker(message, payload))
        _send_all(socket, waiting)
        threads.sent(message, put)
        if waiting:
            return False
    return True


def _send_all(socket: zmq.Socket[bytes], waiting: deque[list[bytes]]) -> None:
    """Send the messages that the socket accepts; the others continue to wait."""
    while waiting:
        try:
            send(socket, waiting[0])
        except zmq.Again:
            return
        waiting.popleft()


def _drain(read_end: sockets_of_the_system.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        while read_end.recv(4096):
            pass


def _compute(
    threads: _Threads,
    settings: WorkerSettings,
    config: EngineConfig,
    data_dir: Path,
    replays: ReplayThread | None,
    is_own_process: bool,
) -> None:
    """Warm up, send `Ready`, then do the tasks, a chunk at a time: the loop of the compute thread."""
    tasks = threads.tasks
    tasks.at(None)
    results = ResultStore(data_dir / "results")
    load_seconds = config.algorithms.load_time_limit_ms / 1000
    equipment = equip(settings, config, data_dir, _ending_the_worker(threads, load_seconds), threads.source_loaded)
    catalog = equipment.catalog
    table_files = _table_files(settings, config)
    packer = Packer(config.compression, time.monotonic)
    threads.packers.append(packer)
    runner = TaskRunner(
        catalog,
        results,
        config.conventions,
        config.worker.chunk_bars,
        _wall_ms,
        Batcher(config.batching.classes, packer),
        equipment.library,
        Means(
            equipment.child_tasks.read_file,
            _limit_of_evaluations(threads, config),
            table_files,
            SweepStore(data_dir / SWEEPS),
            TrialStore(data_dir / TRIALS),
        ),
    )
    runner.checkpoints = CheckpointStore(data_dir / CHECKPOINTS)
    runner.own_bars = OwnBarsCheck(CallsApart(threads.is_clean, threads.muted))
    batcher = runner.batcher
    if settings.kind == "compute":  # no interactive task waits for a kernel
        warm(config.conventions, _log.warning if settings.worker_id == "compute-1" else None)
    series = []
    if settings.kind == "interactive":
        warm_answers(config.conventions)
        for problem in equipment.problems:  # one kind of worker logs them, so that they are logged once
            _log.warning("an algorithm was not loaded: %s", problem.message)
        results.sweep()
        series = catalog.series()
        if not series:
            write_synthetic(catalog)
            series = catalog.series()
    ready = Ready(
        worker_id=settings.worker_id,
        pid=os.getpid(),
        kind=settings.kind,
        algorithms=equipment.algorithms,
        problems=equipment.problems,
        series=series,
        beat_interval_ms=config.worker.beat_interval_ms,
    )
    if is_own_process:
        gc.freeze()  # what is there by now stays: a collection in a task would take 100 ms to look at it
        threads.state = ProcessState()
    threads.has_user_code = equipment.has_user_code
    own_pid = os.getpid()

    def is_unchanged() -> bool:
        _end_if_forked(own_pid)
        return threads.is_unchanged()

    runner.is_unchanged = is_unchanged
    runner.wanted = threads.inbox.wanted
    threads.runner = runner
    threads.send([(ready, ())])
    tuner, tune_due = Tuner(batcher), 0.0
    while not threads.stopping.is_set():
        if (task := threads.inbox.take(_idle(runner))) is None:
            if (next_id := runner.next_id) is not None:
                threads.task_id = next_id
                with threads.limited(runner.time_left(next_id), _STUCK_BACKTEST):
                    tasks.at(next_id)
                    sent = runner.step(time.monotonic)
                _end_if_forked(own_pid)
                sent = threads.settled(sent)
                tasks.sent(sent)
                threads.send(sent)
        else:
            message, payload = task
            threads.task_id = message.task_id
            if isinstance(message, Assign):
                tasks.assigned(message, payload[0] if payload else b"")
            tasks.at(message.task_id)
            with threads.limited(*_limit_of(message, payload, runner, config)):
                sent = runner.take(message, payload)
            _end_if_forked(own_pid)
            if isinstance(message, Control) or (isinstance(message, Assign) and message.work in _RUNS_CODE):
                sent = threads.settled(sent)
            for opened in runner.take_opened():  # before the answer: the broker then sends messages about it
                if replays is not None:
                    replays.put(opened)
            tasks.sent(sent)
            threads.send(sent)
        if threads.leaving is not None:
            return
        now = time.monotonic()
        threads.send(runner.due(now))
        if table_files is not None:
            table_files.remove_old(now)
        if config.batching.adaptive and now >= tune_due:
            tune_due = now + config.batching.adapt_interval_ms / 1000
            threads.tune(tuner)
        if not runner.running:
            threads.task_id = None


def _table_files(settings: WorkerSettings, config: EngineConfig) -> TableFiles | None:
    """Return the table files of a worker whose broker serves clients of this machine."""
    if settings.tables_directory is None:
        return None
    return TableFiles(Path(settings.tables_directory), config.tables, time.monotonic)


def _end_if_forked(own_pid: int) -> None:
    """End a process that an algorithm has forked and that came back from it: it must not work as this worker."""
    if _getpid() != own_pid:
        _exit(1)


def _idle(runner: TaskRunner) -> float:
    """Return the seconds for which there is nothing to do."""
    now = time.monotonic()
    wait = runner.wait(now) if runner.running else _CHECK_SECONDS
    deadline = runner.next_deadline()
    return max(0.0, min(_CHECK_SECONDS, wait, wait if deadline is None else deadline - now))


def _limit_of(message: Task, payload: Sequence[bytes], runner: TaskRunner, config: EngineConfig) -> tuple[float, str]:
    """Return the time limit for handling a message in seconds, and the error message beyond it.

    Pausing a backtest before its first bar runs its algorithm. Loading an algorithm has a limit of its own besides that
    of interactive tasks.
    """
    if isinstance(message, Assign) and message.work == "RunBlock":
        limit_ms = config.conventions.time_limit_ms
        return min(limit_ms, _block_decoder.decode(payload[0]).limit_ms or limit_ms) / 1000, _STUCK_BLOCK
    if isinstance(message, Assign) and message.work == "RunSpan":
        return math.inf, ""  # each of its blocks has a limit on the worker of the cluster that computes it
    if isinstance(message, Assign) and message.work != "RunBacktest":
        seconds = config.worker.question_time_limit_ms / 1000
        return seconds, _STUCK_INTERACTIVE_TASK.format(seconds)
    return min(runner.time_left(message.task_id), config.conventions.time_limit_ms / 1000), _STUCK_BACKTEST


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
