"""The task runner does the tasks of a worker, without threads and sockets.

It runs one backtest at a time, holds parked backtests beside it, and does interactive tasks.

    runner.take(message, payload)   # a message of the broker
    runner.step(clock)              # simulate a chunk of the running backtest: a few milliseconds
    runner.running                  # True if there is a backtest to step
    runner.wait(now)                # seconds until its next step is due; pause and stop work meanwhile

    runner.due(now)                 # publish the messages that have waited long enough for others of their topic
    runner.next_deadline()          # the time of the next `due`, if nothing else happens

`take`, `step` and `due` return the messages to send to the broker. A backtest is simulated in chunks of bars, so pause,
resume, stop and progress take effect within a chunk. Chunks do not change results: a backtest that was paused and
resumed has the same results as one that was not.
"""

from __future__ import annotations

import logging
import math
import uuid
from collections.abc import Callable, Sequence

import msgspec

from backtestr_engine.algorithms.tracebacks import authors_traceback
from backtestr_engine.backtest.plan import prepare
from backtestr_engine.backtest.result_store import ResultStore
from backtestr_engine.backtest.run import Run
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.library.library import Library
from backtestr_engine.publishing.backtest_streams import BacktestStreams
from backtestr_engine.publishing.batching import Batcher, Publication
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
    Finished,
    Outcome,
    Paused,
    Resumed,
    Task,
    Work,
)

from .interactive_tasks import InteractiveTasks, Means
from .pace import Pace
from .price_replays import ReplayBars, Sent

# Seconds between two steps of a backtest with a pace: more steps would not be visible, and each has its messages.
MOMENT = 0.01

Clock = Callable[[], float]

_config_decoder = msgspec.msgpack.Decoder(BacktestConfig)
_log = logging.getLogger(__name__)


class _Backtest:
    """A run with its streams; its time limit counts the seconds `spent` on steps, not those parked or paced."""

    def __init__(self, run: Run, streams: BacktestStreams, published_percent: float | None) -> None:
        self.run = run
        self.streams = streams
        self.published_percent = published_percent  # by an earlier worker, which was lost; None without one
        self.spent = 0.0
        self.progress_due = 0.0
        self.now = 0.0  # the end of the last step
        self.stepped = -math.inf  # the start of the last step
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

    def due(self, chunk_bars: int, now: float) -> int:
        """Return the number of bars to simulate now: a chunk, or as many of it as are due by the pace."""
        return chunk_bars if self.pace is None else min(chunk_bars, self.pace.due(now))

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
    """The tasks of one worker."""

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
        self._running: _Backtest | None = None
        self._parked: dict[str, _Backtest] = {}

    @property
    def running(self) -> bool:
        """True if a backtest is running."""
        return self._running is not None

    @property
    def cache_status(self) -> CacheStatus:
        """The counters of the bars that are kept in memory."""
        return self._catalog.cache_status

    @property
    def running_id(self) -> str | None:
        """The id of the running backtest."""
        return self._running.backtest_id if self._running is not None else None

    @property
    def time_left(self) -> float:
        """The seconds that the running backtest may still spend; infinite if none runs."""
        return self._running.time_limit - self._running.spent if self._running else math.inf

    def wait(self, now: float) -> float:
        """Return the seconds until the next step of the running backtest: 0, unless its pace makes it wait."""
        if self._running is None or self._running.pace is None or self._running.run.done:
            return 0.0
        return max(0.0, self._running.pace.deadline(now) - now, self._running.stepped + MOMENT - now)

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
        return _sent(self.batcher.take(now))

    def next_deadline(self) -> float | None:
        """Return the time of the next `due`, in seconds of the clock; None if no message waits."""
        return self.batcher.next_deadline()

    def step(self, clock: Clock) -> list[Sent]:
        """Simulate one chunk of the running backtest; store its result after the last one."""
        backtest = self._running
        if backtest is None:
            return []
        if backtest.run.done:
            return self._guarded(backtest.backtest_id, lambda: self._finish(backtest, "completed"))
        return self._guarded(backtest.backtest_id, lambda: self._simulate(backtest, clock))

    def _answer(self, task_id: str, work: Work, data: bytes) -> list[Sent]:
        return [(Finished(task_id=task_id, outcome="completed"), self._interactive_tasks.answer(work, data))]

    def _begin(self, assign: Assign, config: bytes) -> list[Sent]:
        task_id = assign.task_id
        if assign.restored and (ended := self._results.outcome(task_id)) is not None:
            # Its broker ended after the result was stored and before it knew. The result has all that was published.
            return [(Finished(task_id=task_id, outcome=ended), (encode(Nothing()),))]
        plan = prepare(decode(_config_decoder, config), self._catalog, self._conventions, self._library.find)
        streams = BacktestStreams(task_id, plan.panel, plan.options.streams, assign.published)
        verdict = self._library.look_ahead(plan.algorithm.algorithm_id)
        self._running = _Backtest(Run(plan, task_id, verdict), streams, assign.progress_percent)
        if assign.paused:
            return self._park(self._running)
        return []

    def _simulate(self, backtest: _Backtest, clock: Clock) -> list[Sent]:
        began = clock()
        run = backtest.run
        first_bar = run.bars_simulated
        if not (bars := backtest.due(self._chunk_bars, began)):
            return []
        chunk = run.advance(bars)
        published = backtest.streams.chunk(chunk, first_bar, run.bars_simulated)
        backtest.now = now = clock()
        sent = _sent([one for topic, messages in published for one in self.batcher.add(topic, messages, now)])
        backtest.spent += now - began
        backtest.stepped = began
        if backtest.pace is not None:
            backtest.pace.take(run.bars_simulated - first_bar)
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

    def _progress(self, backtest: _Backtest) -> list[Sent]:
        """Return the progress, and before it the open positions at the same prices."""
        progress = backtest.run.progress()
        if backtest.published_percent is not None and progress.progress_percent <= backtest.published_percent:
            return []
        positions, marks = backtest.streams.marks(backtest.run.marks())
        sent = self.batcher.add(positions, marks, backtest.now, are_marks=True)
        topic, messages = backtest.streams.progress(progress)
        return _sent(sent + self.batcher.add(topic, messages, backtest.now, progress.progress_percent))

    def _flushed(self, backtest: _Backtest) -> list[Sent]:
        """Return all messages of its streams that wait."""
        return [one for topic in backtest.streams.topics for one in _sent(self.batcher.flush(topic))]

    def _control(self, task_id: str, action: str) -> list[Sent]:
        running = self._running if self._running and self._running.backtest_id == task_id else None
        parked = self._parked.get(task_id)
        match action:
            case "pause" if running is not None:
                return self._park(running)
            case "resume" if parked is not None:
                del self._parked[task_id]
                self._running = parked
                return [(Resumed(task_id=task_id), ())]
            case "stop" if (backtest := running or parked) is not None:
                return self._finish(backtest, "stopped")
        return []

    def _park(self, backtest: _Backtest) -> list[Sent]:
        self._running = None
        self._parked[backtest.backtest_id] = backtest
        if backtest.pace is not None:
            backtest.pace.halt()
        return [
            *self._progress(backtest),
            *self._flushed(backtest),
            (Paused(task_id=backtest.backtest_id), ()),
        ]

    def _finish(self, backtest: _Backtest, outcome: Outcome) -> list[Sent]:
        """Store the whole result, synced, and only then return that the backtest has ended."""
        run = backtest.run
        try:
            self._results.write(run.backtest_id, outcome, run.plan.resolved_config(), run.finish())
        except OSError as error:  # usually a full disk; messages that wait are still published
            _log.exception("the result of backtest %s could not be stored", run.backtest_id)
            raise DiskUnwritable(f"the result could not be stored: {error}; make room and start it again") from error
        last = self._progress(backtest) + self._flushed(backtest)
        self._forget(run.backtest_id)
        return [*last, (Finished(task_id=run.backtest_id, outcome=outcome), (encode(Nothing()),))]

    def _forget(self, task_id: str) -> None:
        self._parked.pop(task_id, None)
        if self._running is not None and self._running.backtest_id == task_id:
            self._running = None

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
        running = self._running if self._running and self._running.backtest_id == task_id else None
        backtest = running or self._parked.get(task_id)
        return self._flushed(backtest) if backtest else []

    def _failed(self, task_id: str, error: BacktestrError) -> list[Sent]:
        self._forget(task_id)
        data = error.to_data(component="engine", timestamp=self._wall_ms())
        data = msgspec.structs.replace(data, message=bounded(str(data.message)), details=bounded_details(data.details))
        return [(Finished(task_id=task_id, outcome="failed", error=data), ())]


def _sent(publications: list[Publication]) -> list[Sent]:
    return [(message, (payload,)) for message, payload in publications]
