"""The task runner does the tasks of a worker, without threads and sockets.

It runs backtests, a chunk of one and then of another, holds parked backtests beside them, and does interactive tasks.

    runner.take(message, payload)   # a message of the broker
    runner.step(clock)              # simulate a chunk of the backtest that is next: a few milliseconds
    runner.running                  # True if there is a backtest to step
    runner.wait(now)                # seconds until the next step is due; pause and stop work meanwhile

    runner.due(now)                 # publish the messages that have waited long enough for others of their topic
    runner.next_deadline()          # the time of the next `due`, if nothing else happens

`take`, `step` and `due` return the messages to send to the broker. A backtest is simulated in chunks of bars, so pause,
resume, stop and progress take effect within a chunk. Chunks do not change results: a backtest that was paused and
resumed has the same results as one that was not.

A backtest with a pace lends its worker once its algorithm has run: the broker then assigns another beside it. The next
step is that of the backtest which has been due for longest: by its pace, or else since its last step. So a backtest
that is due waits for the step at hand and for at most one of each other.
"""

from __future__ import annotations

import logging
import math
import uuid
from collections.abc import Callable, Sequence

import msgspec

from backtestr_engine.algorithms.tracebacks import authors_traceback
from backtestr_engine.backtest.checkpoint_format import PublishedSoFar
from backtestr_engine.backtest.checkpoint_store import CheckpointStore
from backtestr_engine.backtest.own_bars import OwnBarsCheck, is_built_in, is_checked
from backtestr_engine.backtest.plan import prepare
from backtestr_engine.backtest.result_store import ResultStore
from backtestr_engine.backtest.run import Run
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.library.library import Library
from backtestr_engine.publishing.backtest_streams import BacktestStreams
from backtestr_engine.publishing.batching import Batcher, Publication
from backtestr_engine.publishing.payloads import Messages
from backtestr_engine.simulation.conventions import Conventions
from backtestr_protocol.codec import decode, encode
from backtestr_protocol.errors import (
    AlgorithmError,
    BacktestrError,
    DiskUnwritable,
    SystemFault,
    TimeLimitExceeded,
)
from backtestr_protocol.messages import BacktestConfig, Nothing
from backtestr_protocol.system_status import CacheStatus
from backtestr_protocol.texts import bounded, bounded_details, described
from backtestr_protocol.worker_channel import (
    Assign,
    Control,
    CostWorkers,
    Finished,
    Lent,
    Outcome,
    Paused,
    Resumed,
    Task,
    Work,
)

from .checkpoints import Checkpoint
from .interactive_tasks import InteractiveTasks, Means
from .pace import Pace
from .price_replays import ReplayBars, Sent
from .published_before import PublishedBefore, published_before

# Seconds between two steps of a backtest with a pace: more steps would not be visible, and each has its messages.
MOMENT = 0.01

Clock = Callable[[], float]

_config_decoder = msgspec.msgpack.Decoder(BacktestConfig)
_log = logging.getLogger(__name__)


class _Backtest:
    """A run with its streams; its time limit counts the seconds `spent` on steps, not those parked or paced."""

    def __init__(
        self,
        run: Run,
        streams: BacktestStreams,
        checkpoint: Checkpoint,
        published_percent: float | None,
        *,
        to_check: bool,
    ) -> None:
        self.run = run
        self.streams = streams
        self.checkpoint = checkpoint
        self.to_check = to_check  # on its own bars: with a pace before it lends its worker, else after the last bar
        self.published_percent = published_percent  # by an earlier worker, which was lost; None without one
        # Bars that the earlier worker has shown: the next one simulates them at full speed, whatever the pace.
        self.shown_bars = round(run.bars_total * (published_percent or 0.0) / 100)
        self.sent_percent = published_percent  # of the latest progress
        self.has_begun = False  # its algorithm has run
        self.spent = 0.0
        self.call_seconds = 0.0  # that the algorithm took for its signals, with the first chunk
        self.progress_due = 0.0
        self.now = 0.0  # the end of the last step
        self.stepped = -math.inf  # the start of the last step
        self.turn = 0  # the number of that step among those of all backtests
        pace = run.plan.options.pace
        self.pace = None if pace is None else Pace(pace)

    @property
    def backtest_id(self) -> str:
        return self.run.backtest_id

    @property
    def time_limit(self) -> float:
        return self.run.plan.options.conventions.time_limit_ms / 1000

    @property
    def progress_interval(self) -> float:
        return self.run.plan.options.streams.progress_interval_ms / 1000

    @property
    def pace_in_force(self) -> Pace | None:
        """The pace of the next step, if it has one."""
        return None if self.run.done or self.run.bars_simulated < self.shown_bars else self.pace

    @property
    def due_at(self) -> float:
        """The time at which the next step is due."""
        if (pace := self.pace_in_force) is None:
            return self.now
        return max(pace.deadline(self.now), self.stepped + MOMENT)

    def sent(self) -> PublishedSoFar:
        """Return what was published, as a checkpoint has it."""
        return PublishedSoFar(self.streams.numbers, self.streams.marks_published, self.sent_percent)

    def due(self, chunk_bars: int, now: float) -> int:
        """Return the number of bars to simulate now: a chunk, or as many of it as are due by the pace."""
        if (pace := self.pace_in_force) is not None:
            return min(chunk_bars, pace.due(now))
        return chunk_bars if self.pace is None else min(chunk_bars, self.shown_bars - self.run.bars_simulated)

    def takes_progress(self, now: float) -> bool:
        """Return True if progress is due, and set the next time.

        With a pace, progress comes with the step that is nearest to that time, so that every step has progress if steps
        are as rare.
        """
        slack = 0.0 if self.pace is None else 0.5 / self.pace.rate
        if now + slack < self.progress_due:
            return False
        self.progress_due = now + self.progress_interval
        return True


class TaskRunner:
    """The tasks of one worker.

    `own_bars` checks algorithms on the bars of their backtests, without limits until the worker puts its own there.
    Backtests have `checkpoints` once it has put a store there.
    """

    def __init__(
        self,
        catalog: Catalog,
        results: ResultStore,
        conventions: Conventions,
        chunk_bars: int,
        wall_ms: Callable[[], int],
        batcher: Batcher,
        library: Library | None = None,
        means: Means | None = None,
    ) -> None:
        self._catalog = catalog
        self._results = results
        self._conventions = conventions
        self._library = library or Library()
        self._chunk_bars = chunk_bars
        self._wall_ms = wall_ms
        self.batcher = batcher
        self._interactive_tasks = InteractiveTasks(catalog, results, conventions, self._library, wall_ms, means)
        self.own_bars = OwnBarsCheck()
        self.checkpoints: CheckpointStore | None = None
        self._running: dict[str, _Backtest] = {}
        self._parked: dict[str, _Backtest] = {}
        self._alone: str | None = None  # a running backtest that has changed the process: no other is stepped meanwhile
        self._turns = 0  # steps so far
        self._showing: dict[str, str] = {}  # by topic of prices, the backtest whose prices may wait in the batcher
        self.is_unchanged: Callable[[], bool] = lambda: True
        """Returns False if an algorithm has left the process in another state; what can be put back is put back."""

    @property
    def running(self) -> bool:
        """True if a backtest is running."""
        return bool(self._running)

    @property
    def cache_status(self) -> CacheStatus:
        """The counters of the bars that are kept in memory."""
        return self._catalog.cache_status

    @property
    def next_id(self) -> str | None:
        """The id of the backtest of the next step; None if none is running."""
        return None if (backtest := self._next()) is None else backtest.backtest_id

    def time_left(self, task_id: str) -> float:
        """Return the seconds that a running backtest may still spend; infinite for any other task."""
        backtest = self._running.get(task_id)
        return math.inf if backtest is None else backtest.time_limit - backtest.spent

    def wait(self, now: float) -> float:
        """Return the seconds until the next step: 0, unless the paces of all running backtests make it wait."""
        return 0.0 if (backtest := self._next()) is None else max(0.0, backtest.due_at - now)

    def take_opened(self) -> list[ReplayBars]:
        """Return the price replays opened since the last call, to be hosted before that task is answered."""
        return self._interactive_tasks.take_opened()

    def take(self, message: Task, payload: Sequence[bytes]) -> list[Sent]:
        """Handle a message of the broker; one about a task that has ended meanwhile is ignored."""
        task_id = message.task_id
        match message:
            case Assign(work="RunBacktest"):
                return self._guarded(task_id, lambda: self._begin(message, payload[0]))
            case Assign(work=work):
                return self._guarded(task_id, lambda: self._answer(task_id, work, payload[0]))
            case Control(action=action):
                return self._guarded(task_id, lambda: self._control(task_id, action))

    def due(self, now: float) -> list[Sent]:
        """Return the batches whose messages have waited as long as they may for others of their topic."""
        return self._sent(self.batcher.take(now))

    def next_deadline(self) -> float | None:
        """Return the time of the next `due`, in seconds of the clock; None if no message waits."""
        return self.batcher.next_deadline()

    def step(self, clock: Clock) -> list[Sent]:
        """Simulate one chunk of the backtest that is next; after the last one, check it, and store its result."""
        if (backtest := self._next()) is None:
            return []
        self._turns += 1
        backtest.turn = self._turns
        if backtest.run.done:
            if backtest.to_check:
                began = clock()
                self._check(backtest)
                if not self.is_unchanged():
                    self._alone = backtest.backtest_id
                backtest.spent = min(backtest.time_limit, backtest.spent + clock() - began)
                return []  # to store the result is a step of its own, which has its time however long this one took
            return self._guarded(backtest.backtest_id, lambda: self._finish(backtest, "completed"))
        return self._guarded(backtest.backtest_id, lambda: self._simulate(backtest, clock))

    def _next(self) -> _Backtest | None:
        """Return the running backtest that has been due for longest, or is due first; of equal ones, by turns."""
        if self._alone is not None:
            return self._running[self._alone]
        return min(self._running.values(), key=lambda one: (one.due_at, one.turn), default=None)

    def _answer(self, task_id: str, work: Work, data: bytes) -> list[Sent]:
        return [(Finished(task_id=task_id, outcome="completed"), self._interactive_tasks.answer(work, data))]

    def _begin(self, assign: Assign, config: bytes) -> list[Sent]:
        task_id = assign.task_id
        if assign.restored and (ended := self._results.outcome(task_id)) is not None:
            # Its broker ended after the result was stored and before it knew. The result has all that was published.
            return [(Finished(task_id=task_id, outcome=ended), (encode(Nothing()),))]
        plan = prepare(decode(_config_decoder, config), self._catalog, self._conventions, self._library.find)
        verdict = self._library.look_ahead(plan.algorithm.algorithm_id)
        # An algorithm that is known to look ahead is not asked again. Nor is one whose worker was lost: it may have
        # been the check that ended it, and the backtest must not end in the same way.
        is_known = verdict is not None and verdict.finding is not None
        to_check = is_checked(plan) and not is_known and not assign.losses
        run, checkpoint = Checkpoint.taken_up(
            self.checkpoints,
            lambda: Run(plan, task_id, verdict),
            assign,
            is_user_code=not is_built_in(plan.algorithm),
        )
        before = published_before(assign, checkpoint.sent)
        streams = BacktestStreams(task_id, plan.panel, plan.options.streams, before.published, before.marks)
        backtest = _Backtest(run, streams, checkpoint, before.progress_percent, to_check=to_check)
        self._running[task_id] = backtest
        if checkpoint.fatal is not None:
            self._end(backtest)
            first_bar, stop_bar = checkpoint.fatal
            return [(CostWorkers(task_id=task_id, first_bar=first_bar, stop_bar=stop_bar), ())]
        sent: list[Sent] = [] if before.continued is None else [(before.continued, ())]
        return sent + self._caught_up(backtest, before) + (self._park(backtest) if assign.paused else [])

    def _caught_up(self, backtest: _Backtest, before: PublishedBefore) -> list[Sent]:
        """Return what the earlier worker had not published of the bars behind which its backtest goes on."""
        run, streams = backtest.run, backtest.streams
        if not run.bars_simulated:
            return []
        events = run.simulation.events()
        if before.continued is not None:
            streams.pass_over(events)
            return []
        missed = streams.chunk(events, 0, run.bars_simulated)
        return [one for topic, messages in missed for one in self._added(backtest, topic, messages)] + self._flushed(
            backtest
        )

    def _simulate(self, backtest: _Backtest, clock: Clock) -> list[Sent]:
        began = clock()
        run = backtest.run
        first_bar = run.bars_simulated
        if not (bars := backtest.due(self._chunk_bars, began)):
            return []
        pace = backtest.pace_in_force
        told = backtest.checkpoint.start()
        backtest.checkpoint.before(bars)
        chunk = run.advance(bars)
        lent = self._begun(backtest, began, clock)
        published = backtest.streams.chunk(chunk, first_bar, run.bars_simulated)
        backtest.now = now = clock()
        sent = [one for topic, messages in published for one in self._added(backtest, topic, messages)] + lent
        backtest.spent += now - began
        backtest.stepped = began
        if pace is not None:
            pace.take(run.bars_simulated - first_bar)
        told += backtest.checkpoint.after(backtest.spent, now, backtest.sent)
        sent += [(message, ()) for message in told]
        if run.done:  # the result is stored in a step of its own, so that these messages do not wait for the disk
            return sent + self._flushed(backtest)
        if backtest.spent > backtest.time_limit:
            late = TimeLimitExceeded(
                f"the backtest worked for {backtest.spent:.1f} s and was allowed {backtest.time_limit:g} s; "
                "raise options.timeLimitMs, or test fewer bars",
                bar=run.bars_simulated,
            )
            return sent + self._flushed(backtest) + self._failed(run.backtest_id, late)
        if backtest.takes_progress(now):
            # Batches that are due go first: progress that comes every max_wait_ms is then sent alone, at once.
            sent += self.due(now) + self._progress(backtest)
        return sent

    def _begun(self, backtest: _Backtest, began: float, clock: Clock) -> list[Sent]:
        """Take that a backtest's algorithm has run: with a pace it lends its worker from now on.

        One that has changed the process is stepped alone as long as it runs, and lends nothing. One that lends is
        checked before, since a call that ends the worker is then known to be its own.
        """
        if backtest.has_begun:
            return []
        backtest.has_begun = True
        if backtest.to_check:
            called = clock()
            backtest.call_seconds = called - began
            if backtest.pace is not None:
                self._check(backtest)
                backtest.spent -= clock() - called  # it costs a backtest nothing of its time limit
        if not self.is_unchanged():
            self._alone = backtest.backtest_id
        elif backtest.pace is not None and not backtest.run.done:
            return [(Lent(task_id=backtest.backtest_id), ())]
        return []

    def _added(self, backtest: _Backtest, topic: str, messages: Messages) -> list[Sent]:
        """Add messages of a backtest to the batches; a batch of prices has those of one backtest."""
        sent: list[Sent] = []
        if len(messages) and topic.startswith("prices."):
            if self._showing.get(topic) != backtest.backtest_id:
                sent = self._sent(self.batcher.flush(topic))
            self._showing[topic] = backtest.backtest_id
        return sent + self._sent(self.batcher.add(topic, messages, backtest.now))

    def _sent(self, publications: list[Publication]) -> list[Sent]:
        """Return these as messages to the broker, those of prices with the backtest that shows them."""
        return [
            (msgspec.structs.replace(message, task_id=shown_by), (payload,))
            if (shown_by := self._showing.get(message.topic)) is not None
            else (message, (payload,))
            for message, payload in publications
        ]

    def _check(self, backtest: _Backtest) -> None:
        """Check the algorithm on the bars of its backtest; whatever comes of it, the backtest has its result."""
        backtest.to_check = False
        try:
            left = backtest.time_limit - backtest.spent
            verdict = self.own_bars.verdict(backtest.run.plan, left, backtest.call_seconds)
        except Exception:  # a defect of the check
            _log.exception("the look-ahead check of backtest %s failed", backtest.backtest_id)
            verdict = None
        if verdict is not None and verdict.finding is not None:
            backtest.run.look_ahead = verdict

    def _progress(self, backtest: _Backtest) -> list[Sent]:
        """Return the progress, and before it the open positions at the same prices."""
        progress = backtest.run.progress()
        if backtest.published_percent is not None and progress.progress_percent <= backtest.published_percent:
            return []
        positions, marks = backtest.streams.marks(backtest.run.marks())
        sent = self.batcher.add(positions, marks, backtest.now, are_marks=True)
        topic, messages = backtest.streams.progress(progress)
        backtest.sent_percent = progress.progress_percent
        return self._sent(sent + self.batcher.add(topic, messages, backtest.now, progress.progress_percent))

    def _flushed(self, backtest: _Backtest) -> list[Sent]:
        """Return all messages of its streams that wait, and none of another backtest that shows the same prices."""
        sent: list[Sent] = []
        for topic in backtest.streams.topics:
            if self._showing.get(topic, backtest.backtest_id) == backtest.backtest_id:
                sent += self._sent(self.batcher.flush(topic))
                self._showing.pop(topic, None)
        return sent

    def _control(self, task_id: str, action: str) -> list[Sent]:
        running, parked = self._running.get(task_id), self._parked.get(task_id)
        match action:
            case "pause" if running is not None:
                return self._park(running)
            case "resume" if parked is not None:
                del self._parked[task_id]
                self._running[task_id] = parked
                return [(Resumed(task_id=task_id), ())]
            case "stop" if (backtest := running or parked) is not None:
                # Beside a parked one another may be computed, which would be blamed for a call that ends the worker.
                if running is not None and backtest.to_check and backtest.run.bars_simulated:
                    self._check(backtest)
                return self._finish(backtest, "stopped")
        return []

    def _park(self, backtest: _Backtest) -> list[Sent]:
        self._forget(backtest.backtest_id)
        self._parked[backtest.backtest_id] = backtest
        if backtest.pace is not None:
            backtest.pace.halt()
        told = backtest.checkpoint.start()
        last = [*self._progress(backtest), *self._flushed(backtest)]
        told += backtest.checkpoint.save(backtest.spent, backtest.sent)
        last += [(message, ()) for message in told]
        if not backtest.has_begun:  # the progress before the first bar has run its algorithm
            backtest.has_begun = True
            if backtest.pace is not None and backtest.to_check:
                self._check(backtest)
            self.is_unchanged()
        return [*last, (Paused(task_id=backtest.backtest_id), ())]

    def _finish(self, backtest: _Backtest, outcome: Outcome) -> list[Sent]:
        """Store the whole result, synced, and only then return that the backtest has ended."""
        run = backtest.run
        backtest.checkpoint.before_end()
        try:
            self._results.write(run.backtest_id, outcome, run.plan.resolved_config(), run.finish())
        except OSError as error:  # usually a full disk; messages that wait are still published
            _log.exception("the result of backtest %s could not be stored", run.backtest_id)
            raise DiskUnwritable(f"the result could not be stored: {error}; make room and start it again") from error
        last = self._progress(backtest) + self._flushed(backtest)
        self._end(backtest)
        return [*last, (Finished(task_id=run.backtest_id, outcome=outcome), (encode(Nothing()),))]

    def _end(self, backtest: _Backtest) -> None:
        self._forget(backtest.backtest_id)
        backtest.checkpoint.remove()

    def _forget(self, task_id: str) -> None:
        self._parked.pop(task_id, None)
        self._running.pop(task_id, None)
        if self._alone == task_id:
            self._alone = None

    def _guarded(self, task_id: str, work: Callable[[], list[Sent]]) -> list[Sent]:
        """Return `work()`; any error ends that task and no other."""
        try:
            return work()
        except BacktestrError as error:
            return self._waiting(task_id) + self._failed(task_id, error)
        except MemoryError as error:
            failure: BacktestrError = SystemFault(
                f"there is not enough memory for this: {described(error)}; ask for fewer bars, or raise "
                "memory_limit_bytes in engine.toml"
            )
        except Exception as error:  # a defect of backtestr or of a library: the task fails, the log has the traceback
            fault_id = str(uuid.uuid4())
            _log.exception("task %s failed; fault %s", task_id, fault_id)
            failure = SystemFault(f"the engine failed: {described(error)}", id=fault_id)
        except BaseException as error:  # only code of an algorithm raises what is no `Exception` in this thread
            failure = AlgorithmError(f"the algorithm raised {described(error)}", traceback=authors_traceback(error))
        self._waiting(task_id)  # these are not sent: messages before them may have been lost in the failure
        return self._failed(task_id, failure)

    def _waiting(self, task_id: str) -> list[Sent]:
        """Return all messages of a backtest's streams that wait, and none of another task."""
        backtest = self._running.get(task_id) or self._parked.get(task_id)
        return self._flushed(backtest) if backtest else []

    def _failed(self, task_id: str, error: BacktestrError) -> list[Sent]:
        if (backtest := self._running.get(task_id) or self._parked.get(task_id)) is not None:
            self._end(backtest)
        data = error.to_data(component="engine", timestamp=self._wall_ms())
        data = msgspec.structs.replace(data, message=bounded(str(data.message)), details=bounded_details(data.details))
        return [(Finished(task_id=task_id, outcome="failed", error=data), ())]
