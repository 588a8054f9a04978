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
from backtestr_engine.backtest.checkpoint_store import CheckpointStore
from backtestr_engine.backtest.own_bars import OwnBarsCheck, is_built_in, is_checked
from backtestr_engine.backtest.plan import prepare
from backtestr_engine.backtest.result_store import ResultStore
from backtestr_engine.backtest.run import RecordedRun, Run
from backtestr_engine.data.catalog import Catalog
from backtestr_engine.library.library import Library
from backtestr_engine.publishing.backtest_streams import BacktestStreams, Made
from backtestr_engine.publishing.batching import Batcher, Publication
from backtestr_engine.publishing.stream_log import to_bytes
from backtestr_engine.simulation.conventions import Conventions
from backtestr_protocol import topics
from backtestr_protocol.codec import decode, encode
from backtestr_protocol.errors import (
    AlgorithmError,
    BacktestrError,
    DiskUnwritable,
    ErrorData,
    SystemFault,
    TimeLimitExceeded,
)
from backtestr_protocol.messages import BacktestConfig, Nothing
from backtestr_protocol.system_status import CacheStatus
from backtestr_protocol.texts import bounded, bounded_details, described
from backtestr_protocol.worker_channel import (
    Assign,
    Checkpointed,
    Control,
    CostWorkers,
    Fetch,
    Fetched,
    Finished,
    Lent,
    Outcome,
    Paused,
    Resumed,
    Task,
    Unheard,
    Work,
)

from .checkpoints import Checkpoint
from .held_backtest import HeldBacktest
from .interactive_tasks import InteractiveTasks, Means
from .logged_streams import LoggedStreams
from .price_replays import ReplayBars, Sent
from .sweeping.trial_tasks import TrialEntries
from .wanted_results import WantedResults

Clock = Callable[[], float]

_config_decoder = msgspec.msgpack.Decoder(BacktestConfig)
_log = logging.getLogger(__name__)


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
        self._trials = None if means is None or means.trials is None else TrialEntries(means.trials)
        self.batcher = batcher
        self._interactive_tasks = InteractiveTasks(
            catalog, results, conventions, self._library, wall_ms, means, pack=batcher.payload
        )
        self.own_bars = OwnBarsCheck()
        self.checkpoints: CheckpointStore | None = None
        self.wanted: Callable[[str], bytes | None] = lambda _backtest_id: None
        """Returns the request for results that waits for the end of a backtest."""
        self._running: dict[str, HeldBacktest] = {}
        self._parked: dict[str, HeldBacktest] = {}
        self._alone: str | None = None  # a running backtest that has changed the process: no other is stepped meanwhile
        self._turns = 0  # steps so far
        self._showing: dict[str, str] = {}  # by topic of prices, the backtest whose prices may wait in the batcher
        self.is_unchanged: Callable[[], bool] = lambda: True
        """Returns False if an algorithm has left the process in another state; what can be put back is put back."""

    def close(self) -> None:
        """Close what would outlive a worker that is a thread of another program."""
        if self._trials is not None:
            self._trials.close()

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
            case Unheard(topics=unheard):
                return self._set_unheard(task_id, unheard)
            case Fetch():
                return [self._fetched(message)]

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

    def _next(self) -> HeldBacktest | None:
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
        streams = BacktestStreams(task_id, plan.panel, plan.options.streams, assign.published)
        streams.set_unheard(assign.unheard or ())
        goes_on = assign.unnumbered and checkpoint.is_taken_up  # under a later broker, from the numbers in its log
        told = len(checkpoint.progress_at if goes_on else assign.progress_at or ())
        logged = LoggedStreams(run, streams, checkpoint, told)
        backtest = self._running[task_id] = HeldBacktest(run, logged, checkpoint, to_check=to_check)
        if self._trials is not None:
            backtest.trial = self._trials.enter(plan)
        if checkpoint.fatal is not None:
            self._end(backtest)
            first_bar, stop_bar = checkpoint.fatal
            return [(CostWorkers(task_id=task_id, first_bar=first_bar, stop_bar=stop_bar), ())]
        sent: list[Sent] = []
        if goes_on:
            sent.append((logged.continued(), ()))
        elif checkpoint.is_taken_up:
            sent += self._added(backtest, logged.catch_up()) + self._flushed(backtest)
        return sent + (self._park(backtest) if assign.paused else [])

    def _simulate(self, backtest: HeldBacktest, clock: Clock) -> list[Sent]:
        began = clock()
        run = backtest.run
        told = backtest.checkpoint.start()
        sent = self._added(backtest, backtest.logged.repeated_progress())
        if not (bars := backtest.due(self._chunk_bars, began)):
            return [*_told(told), *sent]
        pace, first_bar = backtest.pace_in_force, run.bars_simulated
        backtest.checkpoint.before(bars)
        chunk = run.advance(bars)
        backtest.write_ahead(self._results)
        lent = self._begun(backtest, began, clock)
        published = backtest.streams.chunk(chunk, first_bar, run.bars_simulated)
        backtest.now = now = clock()
        sent += self._chunk(backtest, published) + lent
        backtest.spent += now - began
        backtest.stepped = began
        if pace is not None:
            pace.take(run.bars_simulated - first_bar)
        told += backtest.checkpoint.after(backtest.spent, now)
        sent += _told(told)
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

    def _chunk(self, backtest: HeldBacktest, published: Made) -> list[Sent]:
        """Add the messages of a chunk to the batches, and those of progress that a lost worker has made at its end."""
        sent = self._added(backtest, published)
        return sent + self._added(backtest, backtest.logged.repeated_progress())

    def _catch_up(self, backtest: HeldBacktest) -> list[Sent]:
        """Simulate the bars of which a lost worker has published: then a pause or an end is no step back."""
        run, checkpoint = backtest.run, backtest.checkpoint
        told = checkpoint.start()
        sent = self._added(backtest, backtest.logged.repeated_progress())
        while backtest.logged.is_behind and not run.done:
            first_bar, bars = run.bars_simulated, backtest.logged.bars_until_progress(self._chunk_bars)
            checkpoint.before(bars)
            chunk = run.advance(bars)
            sent += self._chunk(backtest, backtest.streams.chunk(chunk, first_bar, run.bars_simulated))
            told += checkpoint.after(backtest.spent, backtest.now)
        return sent + _told(told)

    def _begun(self, backtest: HeldBacktest, began: float, clock: Clock) -> list[Sent]:
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

    def _added(self, backtest: HeldBacktest, made: Made) -> list[Sent]:
        """Add messages of a backtest to the batches, and return what is to be sent: first what has to come before them.

        A batch of prices has those of one backtest.
        """
        sent: list[Sent] = [(message, ()) for message in backtest.logged.counted()]
        for topic, messages in made:
            if len(messages) and topic.startswith("prices."):
                if self._showing.get(topic) != backtest.backtest_id:
                    sent += self._sent(self.batcher.flush(topic))
                self._showing[topic] = backtest.backtest_id
            percent = backtest.logged.log.percent if topic == topics.progress(backtest.backtest_id) else None
            sent += self._sent(self.batcher.add(topic, messages, backtest.now, percent))
        return sent

    def _sent(self, publications: list[Publication]) -> list[Sent]:
        """Return these as messages to the broker, those of prices with the backtest that shows them."""
        return [
            (msgspec.structs.replace(message, task_id=shown_by), (payload,))
            if (shown_by := self._showing.get(message.topic)) is not None
            else (message, (payload,))
            for message, payload in publications
        ]

    def _check(self, backtest: HeldBacktest) -> None:
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

    def _progress(self, backtest: HeldBacktest, *, is_last: bool = False) -> list[Sent]:
        """Return the progress, and before it the open positions at the same prices."""
        return self._added(backtest, backtest.logged.progress(is_last=is_last))

    def _set_unheard(self, task_id: str, unheard: Sequence[str]) -> list[Sent]:
        """Count the messages of these topics from now on, once those that wait are sent."""
        if (backtest := self._running.get(task_id) or self._parked.get(task_id)) is None:
            return []
        return [one for topic in backtest.streams.set_unheard(unheard) for one in self._sent(self.batcher.flush(topic))]

    def _fetched(self, fetch: Fetch) -> Sent:
        """Return a page of what a backtest has published; whatever comes of it, the backtest goes on."""
        if (backtest := self._running.get(fetch.task_id) or self._parked.get(fetch.task_id)) is None:
            return Fetched(task_id=fetch.task_id, fetch_id=fetch.fetch_id), ()
        try:
            page = backtest.logged.page(fetch, self.batcher.payload)
        except BacktestrError as error:
            failure = error
        except Exception as error:  # a defect
            _log.exception("messages %s of %s could not be made again", fetch.from_seq, fetch.topic)
            failure = SystemFault(f"the engine failed: {described(error)}")
        else:
            return Fetched(task_id=fetch.task_id, fetch_id=fetch.fetch_id), (page,)
        return Fetched(task_id=fetch.task_id, fetch_id=fetch.fetch_id, error=self._error_data(failure)), ()

    def _flushed(self, backtest: HeldBacktest) -> list[Sent]:
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

    def _park(self, backtest: HeldBacktest) -> list[Sent]:
        self._forget(backtest.backtest_id)
        self._parked[backtest.backtest_id] = backtest
        backtest.discard_result()
        if backtest.pace is not None:
            backtest.pace.halt()
        last = [*self._catch_up(backtest), *self._progress(backtest), *self._flushed(backtest)]
        last += _told(backtest.checkpoint.save(backtest.spent))
        if not backtest.has_begun:  # the progress before the first bar has run its algorithm
            backtest.has_begun = True
            if backtest.pace is not None and backtest.to_check:
                self._check(backtest)
            self.is_unchanged()
        return [*last, (Paused(task_id=backtest.backtest_id), ())]

    def _finish(self, backtest: HeldBacktest, outcome: Outcome) -> list[Sent]:
        """Store the whole result, synced, and only then return that the backtest has ended."""
        run = backtest.run
        last = self._catch_up(backtest)
        backtest.checkpoint.before_end()
        last += self._progress(backtest, is_last=True) + self._flushed(backtest)
        try:
            frames = self._store(backtest, outcome)
        except OSError as error:  # usually a full disk; messages that wait are still published
            _log.exception("the result of backtest %s could not be stored", run.backtest_id)
            full = DiskUnwritable(f"the result could not be stored: {error}; make room and start it again")
            return last + self._failed(run.backtest_id, full)
        self._end(backtest)
        finished = Finished(task_id=run.backtest_id, outcome=outcome, is_wanted=bool(frames))
        return [*last, (finished, frames or [encode(Nothing())])]

    def _store(self, backtest: HeldBacktest, outcome: Outcome) -> list[bytes]:
        """Store the result, and return the frames of the answer to a request that waits for it, if there is one.

        The figures are computed while the records go to the disk and the tables are made.
        """
        run, log = backtest.run, to_bytes(backtest.logged.log)
        storing, backtest.storing = backtest.storing or self._results.begin(run.backtest_id), None
        with storing:
            recorded = run.recorded()
            storing.recorded(recorded)
            wanted = self._wanted(recorded, run.backtest_id)
            try:
                metrics = run.finish(recorded).metrics
                answer = storing.end(outcome, run.plan.resolved_config(), metrics, log, backtest.trial_group())
            except BaseException:
                if wanted is not None:
                    wanted.join()  # it uses what the next task would
                raise
        wanted = wanted or self._wanted(recorded, run.backtest_id)  # it may have come meanwhile
        return [] if wanted is None else wanted.frames(answer)

    def _wanted(self, recorded: RecordedRun, backtest_id: str) -> WantedResults | None:
        if (request := self.wanted(backtest_id)) is None:
            return None
        try:
            return self._interactive_tasks.wanted(request, recorded)
        except BacktestrError as error:  # of a broker that is not ours; a request fails no backtest
            _log.warning("a request for results is not answered: %s", error)
            return None

    def _end(self, backtest: HeldBacktest) -> None:
        self._forget(backtest.backtest_id)
        backtest.discard_result()
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
            _await_trial(backtest)
            self._end(backtest)
        return [(Finished(task_id=task_id, outcome="failed", error=self._error_data(error)), ())]

    def _error_data(self, error: BacktestrError) -> ErrorData:
        """Return the error as it is sent, with texts that are not too long."""
        data = error.to_data(component="engine", timestamp=self._wall_ms())
        return msgspec.structs.replace(data, message=bounded(str(data.message)), details=bounded_details(data.details))


def _await_trial(backtest: HeldBacktest) -> None:
    """Wait until a backtest that fails is in the ledger of trials; where the disk does not take it, the log says so."""
    try:
        backtest.trial_group()
    except Exception as error:
        _log.warning("trial_not_entered", extra={"backtestId": backtest.backtest_id, "reason": described(error)})


def _told(messages: Sequence[Checkpointed]) -> list[Sent]:
    return [(message, ()) for message in messages]
