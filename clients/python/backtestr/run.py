"""A run is the handle of a backtest: it reads its streams, controls it and waits for its end."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from backtestr.core.effects import Gap, Restarted
from backtestr.core.position_order import PositionOrder
from backtestr.core.updates import Update
from backtestr.io.io_thread import IoThread
from backtestr.io.mailboxes import PendingReply
from backtestr_protocol import topics
from backtestr_protocol.errors import BacktestrError, SystemFault, TimedOut, from_data
from backtestr_protocol.messages import BacktestAccepted, BacktestConfig, BacktestRef, BacktestState, BacktestStatus
from backtestr_protocol.result_messages import DeletedBacktest, PinBacktest, PinnedBacktest
from backtestr_protocol.stream_messages import BacktestProgress, OrderUpdate, PositionUpdate

from .lateness import late
from .python_names import in_python
from .requester import BULK_TIMEOUT, Requester
from .results import Results, fetch_results
from .subscription import GapWarning, Subscription
from .trials import count_trials

Stream = Literal["progress", "orders", "positions"]
STREAMS: tuple[Stream, ...] = ("progress", "orders", "positions")

# Seconds for which a request for results waits for the end of its backtest. It is resent after five without an answer.
AT_HAND = 2.0
# Seconds after that within which the broker answers: a heartbeat, and some more. A shorter timeout asks for no waiting.
ANSWERED_WITHIN = 1.5

_TOPICS: dict[Stream, Callable[[str], str]] = {
    "progress": topics.progress,
    "orders": topics.orders,
    "positions": topics.positions,
}


class Run:
    """One backtest: watch it, control it, read its results.

    Each stream is read in order from its first message, by one thread, and ends when the backtest has ended and
    everything was read. A stream may be read again; then it begins with the oldest message that the broker retains.
    """

    def __init__(
        self, ask: Requester, io_thread: IoThread, backtest_id: str, *, is_new: bool, watch: Iterable[Stream] = ()
    ) -> None:
        """Follow a backtest and receive the streams in `watch`; called by `Client.backtest` and `Client.run`."""
        self._ask = ask
        self._io_thread = io_thread
        self._id = backtest_id
        self._end: PendingReply[BacktestStatus] = io_thread.follow(backtest_id, is_new=is_new)
        self._watched = {
            stream: Subscription(
                io_thread, _TOPICS[stream](backtest_id), "start" if is_new else "retained", backtest_id
            )
            for stream in watch
        }

    @property
    def id(self) -> str:
        return self._id

    def __repr__(self) -> str:
        return f"Run({self._id!r})"

    # --- watching -------------------------------------------------------------------------------------------------

    def status(self) -> BacktestStatus:
        """Ask the broker for the backtest's status."""
        return self._ask("GetBacktestStatus", BacktestRef(backtest_id=self._id), BacktestStatus)

    def progress(self) -> Iterator[BacktestProgress]:
        """Yield the progress up to the end. A slow reader misses some messages; each later one supersedes them."""
        for update in self._read("progress"):
            if isinstance(update, Update):
                yield update.data

    def orders(self) -> Iterator[OrderUpdate]:
        """Yield every change of an order, in order. A `GapWarning` states lost ones."""
        for update in self._each("orders"):
            yield update.data

    def positions(self, *, marks: bool = True) -> Iterator[PositionUpdate]:
        """Yield every change of a position, in order, and between them open positions at their present prices.

        The latter have `mark` True; they come with each progress, and not at all if `marks` is False. A `GapWarning`
        states lost ones.
        """
        order = PositionOrder()
        for update in self._each("positions", order):
            if order.is_new(update.data) and (marks or not update.data.mark):
                yield update.data

    def show_progress(self) -> BacktestStatus:
        """Show a progress bar, in a notebook or a terminal, until the backtest ends. Returns its final status."""
        with progress_bar() as show:
            for progress in self.progress():
                show(progress)
        return self.wait()

    # --- control --------------------------------------------------------------------------------------------------

    def pause(self) -> BacktestState:
        """Pause the backtest, and return when it is paused. Raises `StateConflict` when it has ended."""
        return self._control("Pause")

    def resume(self) -> BacktestState:
        """Continue a paused backtest. Raises `StateConflict` when it has ended."""
        return self._control("Resume")

    def stop(self) -> BacktestState:
        """Stop the backtest early; it keeps the results of the bars that were simulated.

        Raises `StateConflict` when it has ended in another way.
        """
        return self._control("Stop")

    def _control(self, verb: str) -> BacktestState:
        return self._ask(f"{verb}Backtest", BacktestRef(backtest_id=self._id), BacktestAccepted).status

    # --- the end --------------------------------------------------------------------------------------------------

    def wait(self, timeout: float | None = None) -> BacktestStatus:
        """Wait for the final status: `completed`, `failed` or `stopped`.

        Raises `TimedOut` after `timeout` seconds, while the backtest continues; it says how far the backtest is, or
        behind which others it waits. Raises `NotFound` when the broker was restarted and no longer knows the backtest.
        """
        try:
            return self._end.read(timeout)
        except TimedOut as error:
            raise late(self._ask, self._id, error) from None

    def result(self, timeout: float | None = None) -> Results:
        """Wait, then fetch metrics and tables. Raises the error of a failed backtest, and the errors of `wait`."""
        until = None if timeout is None else time.monotonic() + timeout
        wait = AT_HAND if timeout is None else min(AT_HAND, timeout - ANSWERED_WITHIN)
        if wait > 0.0:  # the worker that computes a backtest makes the tables of a result that is waited for meanwhile
            with contextlib.suppress(BacktestrError):  # the wait below finds the reason
                results = fetch_results(self._ask, self._id, timeout=timeout or BULK_TIMEOUT, wait=wait)
                if results.metrics is not None:
                    return results
        status = self.wait(None if until is None else max(0.0, until - time.monotonic()))
        if status.status == "failed":
            raise (
                from_data(status.error) if status.error else SystemFault(f"backtest {self._id} failed without a reason")
            )
        return fetch_results(self._ask, self._id)

    def trials(self) -> int | None:
        """Count the combinations that this broker has ever run with this algorithm on these bars, now; this is one.

        None until the backtest has results, and for one of an earlier version. Raises `NotFound` for one that failed.
        """
        return count_trials(self._ask, fetch_results(self._ask, self._id, tables=()).trial_group)

    def delete(self) -> int:
        """Delete the backtest with its results, and return the bytes that this freed.

        Raises `StateConflict` while it has not ended, and when it is pinned.
        """
        answer = self._ask("DeleteBacktest", BacktestRef(backtest_id=self._id), DeletedBacktest, BULK_TIMEOUT)
        return answer.freed_bytes

    def pin(self, pinned: bool = True) -> bool:
        """Keep its results from being deleted, or with `pinned` False no longer; return `pinned`."""
        request = PinBacktest(backtest_id=self._id, pinned=pinned)
        return self._ask("PinBacktest", request, PinnedBacktest, BULK_TIMEOUT).pinned

    def close(self) -> None:
        """Receive nothing more of the streams. The backtest continues."""
        for subscription in self._watched.values():
            subscription.close()

    def abandon(self) -> None:
        """Receive nothing more, not even the end."""
        self.close()
        self._io_thread.unfollow(self._id)

    # --- within ---------------------------------------------------------------------------------------------------

    def _read(self, stream: Stream) -> Iterator[Update | Gap | Restarted]:
        subscription = self._watched.pop(stream, None)
        if subscription is None:
            subscription = Subscription(self._io_thread, _TOPICS[stream](self._id), "retained", self._id)
        with subscription:
            yield from subscription

    def _each(self, stream: Stream, order: PositionOrder | None = None) -> Iterator[Update]:
        """Yield the updates of a stream, each once.

        After a restart of the broker all updates are read again from the first, in the same order; those that were read
        already are skipped. Positions may have other numbers then: `order` is told of it.
        """
        last_seq = 0
        for update in self._read(stream):
            if isinstance(update, Update):  # nearly all are
                if update.seq > last_seq:
                    last_seq = update.seq
                    yield update
                continue
            match update:
                case Restarted() if order is not None:
                    last_seq = 0
                    order.restarted()
                case Gap() if update.to_seq > last_seq:
                    first, last_seq = max(update.from_seq, last_seq + 1), update.to_seq
                    warnings.warn(
                        f"{stream} {first} to {last_seq} of backtest {self._id} came faster than they were read, and "
                        f"the broker no longer keeps them; result().{stream} has them all",
                        GapWarning,
                        stacklevel=3,
                    )


def start_backtest(ask: Requester, io_thread: IoThread, config: BacktestConfig, watch: Iterable[Stream]) -> Run:
    """Have the broker start a backtest, whose configuration has an id, and receive its streams."""
    assert config.backtest_id is not None
    # The subscriptions come before the start, so that they receive every message of the streams.
    run = Run(ask, io_thread, config.backtest_id, is_new=True, watch=watch)
    try:
        ask("StartBacktest", config, BacktestAccepted)
        io_thread.started(config.backtest_id)
    except BacktestrError as error:
        run.abandon()
        raise in_python(error) from None
    except BaseException:  # Ctrl-C included: without the run, nothing else can end its subscriptions
        run.abandon()
        raise
    return run


@contextlib.contextmanager
def progress_bar() -> Iterator[Callable[[BacktestProgress], None]]:
    """Show a bar from 0 to 100 %; yield the function that moves it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tqdm warns where a notebook lacks ipywidgets, and shows text instead
        from tqdm.auto import tqdm

        bar = tqdm(total=100.0, unit="%", bar_format="{l_bar}{bar}| {elapsed}<{remaining}{postfix}")

    def show(progress: BacktestProgress) -> None:
        bar.set_postfix_str(
            f"equity {progress.equity_curve_point.equity:,.2f}, {progress.orders_executed} orders", refresh=False
        )
        bar.update(progress.progress_percent - bar.n)

    with bar:
        yield show
