"""A backtest under way, as the program that started it (or looks after it) holds it."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from backtestr.core.effects import Gap, Restarted
from backtestr.core.updates import Update
from backtestr.io.io_thread import IoThread
from backtestr.io.mailbox import PendingReply
from backtestr_protocol import topics
from backtestr_protocol.errors import SystemFault, from_data
from backtestr_protocol.messages import BacktestAccepted, BacktestConfig, BacktestRef, BacktestState, BacktestStatus
from backtestr_protocol.stream_messages import BacktestProgress, OrderUpdate, PositionUpdate

from .requester import Requester
from .results import Results, fetch_results
from .subscription import GapWarning, Subscription

Stream = Literal["progress", "orders", "positions"]
STREAMS: tuple[Stream, ...] = ("progress", "orders", "positions")

_TOPICS: dict[Stream, Callable[[str], str]] = {
    "progress": topics.progress,
    "orders": topics.orders,
    "positions": topics.positions,
}


class Run:
    """One backtest: watch it, steer it, read what it came to.

    The streams are read in order from their first message, each by one thread, and end when the backtest has ended and
    everything was read. A stream may be read again; then it begins with the oldest message that the broker still keeps.
    """

    def __init__(
        self, ask: Requester, io_thread: IoThread, backtest_id: str, *, is_new: bool, watch: Iterable[Stream] = ()
    ) -> None:
        """Made by `Client.backtest` and `Client.run`. `watch`: the streams to receive from now on, read or not."""
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
        """How it stands now, by the broker's word."""
        return self._ask("GetBacktestStatus", BacktestRef(backtest_id=self._id), BacktestStatus)

    def progress(self) -> Iterator[BacktestProgress]:
        """How far it is, again and again, up to its end. What a slow reader misses is superseded by what it gets."""
        for update in self._read("progress"):
            if isinstance(update, Update):
                yield update.data

    def orders(self) -> Iterator[OrderUpdate]:
        """Every change of an order, in order. Lost ones are stated with a `GapWarning`."""
        for update in self._each("orders"):
            yield update.data

    def positions(self) -> Iterator[PositionUpdate]:
        """Every change of a position, in order. Lost ones are stated with a `GapWarning`."""
        for update in self._each("positions"):
            yield update.data

    def show_progress(self) -> BacktestStatus:
        """Show a bar, in a notebook or a terminal, until it ends. Returns its final status."""
        with progress_bar() as show:
            for progress in self.progress():
                show(progress)
        return self.wait()

    # --- steering -------------------------------------------------------------------------------------------------

    def pause(self) -> BacktestState:
        """Halt it exactly where it is, and return when it stands still. Raises `StateConflict` when it has ended."""
        return self._steer("Pause")

    def resume(self) -> BacktestState:
        """Let a paused one go on. Raises `StateConflict` when it has ended."""
        return self._steer("Resume")

    def stop(self) -> BacktestState:
        """End it early; it keeps the results of what it walked. Raises `StateConflict` when it has ended otherwise."""
        return self._steer("Stop")

    def _steer(self, verb: str) -> BacktestState:
        return self._ask(f"{verb}Backtest", BacktestRef(backtest_id=self._id), BacktestAccepted).status

    # --- the end --------------------------------------------------------------------------------------------------

    def wait(self, timeout: float | None = None) -> BacktestStatus:
        """Its final status: `completed`, `failed` or `stopped`. Raises `TimedOut` after `timeout` seconds (it goes on),
        `NotFound` when the broker was restarted and does not know it any more."""
        return self._end.read(timeout)

    def result(self, timeout: float | None = None) -> Results:
        """Wait, then fetch metrics and tables. Raises what made it fail, if it failed, and what `wait` raises."""
        status = self.wait(timeout)
        if status.status == "failed":
            raise (
                from_data(status.error) if status.error else SystemFault(f"backtest {self._id} failed without a reason")
            )
        return fetch_results(self._ask, self._id)

    def close(self) -> None:
        """Receive no more of its streams. The backtest goes on."""
        for subscription in self._watched.values():
            subscription.close()

    def abandon(self) -> None:
        """Receive nothing more of it, not even its end."""
        self.close()
        self._io_thread.unfollow(self._id)

    # --- within ---------------------------------------------------------------------------------------------------

    def _read(self, stream: Stream) -> Iterator[Update | Gap | Restarted]:
        subscription = self._watched.pop(stream, None)
        if subscription is None:
            subscription = Subscription(self._io_thread, _TOPICS[stream](self._id), "retained", self._id)
        with subscription:
            yield from subscription

    def _each(self, stream: Stream) -> Iterator[Update]:
        """The updates of a stream, each once: after a restart of the broker a backtest runs again from its start, and
        sends again, in the same order, what was read already."""
        last_seq = 0
        for update in self._read(stream):
            match update:
                case Update() if update.seq > last_seq:
                    last_seq = update.seq
                    yield update
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
    except BaseException:  # Ctrl-C included: without the run, nothing else can end its subscriptions
        run.abandon()
        raise
    return run


@contextlib.contextmanager
def progress_bar() -> Iterator[Callable[[BacktestProgress], None]]:
    """A bar from 0 to 100 %, moved by the function that this gives."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tqdm warns where a notebook lacks ipywidgets, and shows text then
        from tqdm.auto import tqdm

        bar = tqdm(total=100.0, unit="%", bar_format="{l_bar}{bar}| {elapsed}<{remaining}{postfix}")

    def show(progress: BacktestProgress) -> None:
        bar.set_postfix_str(
            f"equity {progress.equity_curve_point.equity:,.2f}, {progress.orders_executed} orders", refresh=False
        )
        bar.update(progress.progress_percent - bar.n)

    with bar:
        yield show
