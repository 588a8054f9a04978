"""A sweep is the handle of many backtests over the values of some parameters: watch it, steer it, read its rows."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from backtestr.core.updates import Update
from backtestr.io.io_thread import IoThread
from backtestr_protocol import topics
from backtestr_protocol.errors import (
    BacktestrError,
    InvalidConfiguration,
    SerializationError,
    SystemFault,
    TimedOut,
    from_data,
)
from backtestr_protocol.messages import FINAL_STATES, BacktestAccepted, BacktestState
from backtestr_protocol.sweep_messages import (
    MAX_ROWS,
    DeletedSweep,
    GetSweepResults,
    GetSweepRun,
    StartSweep,
    SweepAccepted,
    SweepDetails,
    SweepProgress,
    SweepRef,
    SweepResults,
    SweepStatus,
)

from .python_names import in_python
from .requester import BULK_TIMEOUT, Requester
from .run import STREAMS, Run, Stream
from .subscription import Subscription
from .tables import fetch_tables
from .trials import count_trials

if TYPE_CHECKING:
    from types import ModuleType

# Seconds between two looks at the status where a program waits for the end and no progress comes.
_LOOK_SECONDS = 2.0


class Sweep:
    """One sweep: its progress, its rows, and what steers it. `accepted` says what was counted and estimated."""

    def __init__(
        self, ask: Requester, io_thread: IoThread, sweep_id: str, accepted: SweepAccepted | None = None
    ) -> None:
        """Follow a sweep; called by `Client.sweep` and `Client.find_sweep`."""
        self._ask = ask
        self._io_thread = io_thread
        self._id = sweep_id
        self.accepted = accepted

    @property
    def id(self) -> str:
        return self._id

    def __repr__(self) -> str:
        return f"Sweep({self._id!r})"

    # --- watching -------------------------------------------------------------------------------------------------

    def status(self) -> SweepDetails:
        """Ask the broker for the sweep's status, with the best row so far and the time left."""
        return self._ask("GetSweepStatus", SweepRef(sweep_id=self._id), SweepDetails)

    def updates(self) -> Iterator[SweepProgress]:
        """Yield the progress of each block up to the end, with the cells that it has finished as columns.

        Those that the broker still retains come first. It ends with a sweep that is completed, failed or stopped.
        """
        if self.status().status in FINAL_STATES:  # its topic may be silent for good
            return
        with Subscription(self._io_thread, topics.progress(self._id), "retained") as subscription:
            while True:
                try:
                    update = subscription.next(_LOOK_SECONDS)
                except TimedOut:
                    if self.status().status in FINAL_STATES:
                        return
                    continue
                if update is None:
                    return
                if isinstance(update, Update) and isinstance(update.data, SweepProgress):
                    yield update.data
                    if self._has_ended(update.data):
                        return

    def _has_ended(self, progress: SweepProgress) -> bool:
        """Return whether a message is the last one. One that failed may have been resumed since."""
        return (self.status() if progress.status == "failed" else progress).status in FINAL_STATES

    def progress(self) -> SweepDetails:
        """Show a progress bar, in a notebook or a terminal, until the sweep ends. Returns its final status."""
        with _bar() as show:
            show(self.status())
            for update in self.updates():
                show(update)
            status = self.status()
            if status.status in FINAL_STATES and status.trials_after is None:  # the broker is about to count them
                status = msgspec.structs.replace(status, trials_after=self.trials())
            show(status)
        return status

    def trials(self) -> int | None:
        """Count the combinations that this broker has ever run with this algorithm on these bars, now.

        Those of other sweeps and of single backtests are among them, each once. None for a sweep of an earlier version.
        """
        return count_trials(self._ask, self.status().trial_group)

    def wait(self, timeout: float | None = None) -> SweepDetails:
        """Wait for the final status: `completed`, `failed` or `stopped`.

        Raises `TimedOut` after `timeout` seconds, while the sweep continues.
        """
        until = None if timeout is None else time.monotonic() + timeout
        with Subscription(self._io_thread, topics.progress(self._id), "now") as subscription:
            while (status := self.status()).status not in FINAL_STATES:
                left = _LOOK_SECONDS if until is None else min(_LOOK_SECONDS, until - time.monotonic())
                if left <= 0.0:
                    raise TimedOut(
                        f"sweep {self._id} is {status.status} at {status.done:,} of {status.of:,} after {timeout:g} s; "
                        "it goes on, and can be waited for again"
                    )
                self._await_news(subscription, left)
        return status

    def _await_news(self, subscription: Subscription, seconds: float) -> None:
        """Wait until a message says that the sweep has ended, for so many seconds at the most."""
        until = time.monotonic() + seconds
        with contextlib.suppress(TimedOut):
            while (left := until - time.monotonic()) > 0.0:
                update = subscription.next(left)
                if update is None:
                    time.sleep(left)  # the broker is away
                elif not isinstance(update, Update) or getattr(update.data, "status", None) in FINAL_STATES:
                    return

    # --- rows -----------------------------------------------------------------------------------------------------

    def results(
        self,
        *,
        where: str | None = None,
        sort: str | None = None,
        descending: bool = False,
        limit: int | None = None,
        columns: Sequence[str] | None = None,
        timeout: float = BULK_TIMEOUT,
    ) -> pl.DataFrame:
        """Return the rows that are finished: `cell`, the swept parameters, the metrics, sums of returns, `failure`.

        `where` is an expression on columns, such as `"sharpe_ratio > 1 and total_trades >= 20"`. Rows come in the order
        of `sort`, those without a value last, or else of their cells. `failure` is the reason for which a combination
        has no figures. Raises `ValidationError` for a column that does not exist and for a filter that cannot be read.
        """
        names = None if columns is None else list(columns)
        if limit is not None and limit <= MAX_ROWS:
            order: dict[str, Any] = {"sort": sort, "descending": descending}
            request = GetSweepResults(sweep_id=self._id, where=where, limit=limit, columns=names, **order)
            return self._page(request, timeout)[0]
        if sort is None:
            return self._pages(where, limit, names, timeout)
        # In any order but that of cells, rows that a running sweep adds would move others to other pages.
        rows = self._pages(where, None, None if names is None else [*names, sort], timeout)
        rows = rows.sort(sort, "cell", descending=[descending, False], nulls_last=True)
        rows = rows if names is None else rows.select(list(dict.fromkeys(["cell", *names])))
        return rows if limit is None else rows.head(limit)

    def _pages(self, where: str | None, limit: int | None, columns: list[str] | None, timeout: float) -> pl.DataFrame:
        """Return rows in the order of their cells, read page by page: each page begins behind the last cell so far."""
        pages: list[pl.DataFrame] = []
        taken = 0
        behind = where
        while True:
            size = MAX_ROWS if limit is None else min(MAX_ROWS, limit - taken)
            request = GetSweepResults(sweep_id=self._id, where=behind, limit=size, columns=columns)
            page, matching = self._page(request, timeout)
            pages.append(page)
            taken += page.height
            if not page.height or page.height >= matching or taken == limit:
                return pages[0] if len(pages) == 1 else pl.concat(pages)
            last = f"cell > {page['cell'][-1]}"
            behind = last if where is None else f"({where}) and {last}"

    def _page(self, request: GetSweepResults, timeout: float) -> tuple[pl.DataFrame, int]:
        """Return one page of rows, and how many there are of which it is the first."""
        answer, frames = fetch_tables(self._ask, request, SweepResults, timeout)
        if len(frames) != 1:
            raise SerializationError(f"the rows of a sweep are one table; {len(answer.tables)} came")
        return frames[0], answer.matching

    def best(self, n: int = 10, *, where: str | None = None) -> pl.DataFrame:
        """Return the `n` rows that are best by the objective, without those in which it is undefined.

        Raises `InvalidConfiguration` where it is undefined for every row.
        """
        if n < 1:
            raise ValueError(f"best({n}): ask for one row at least")
        status = self.status()
        rows = self.results(where=where, sort=status.objective, descending=status.direction == "maximize", limit=n)
        defined = rows.filter(pl.col(status.objective).is_not_null()) if rows.height else rows
        if rows.height and not defined.height:
            raise InvalidConfiguration(
                f"{status.objective} is undefined for each of the {status.done:,} finished rows, so none is the best; "
                "run(row).result().metrics.reasons says why",
                path="$.objective",
            )
        return defined

    def heatmap(self, x: str, y: str, value: str | None = None) -> Any:
        """Return a plotly figure of a metric over two parameters; of several rows in a field, the best one is shown.

        `value` is the objective if None. Raises `ModuleNotFoundError` where plotly is not installed.
        """
        plotly = _plotly()
        status = self.status()
        value = value or status.objective
        rows = self.results(columns=[x, y, value])
        highest = status.direction == "maximize"
        best = pl.col(value).max() if highest else pl.col(value).min()
        fields = rows.group_by(x, y).agg(best).sort(x, y)
        table = fields.pivot(on=x, index=y, values=value, sort_columns=False).sort(y)
        names = [one for one in table.columns if one != y]
        figure = plotly.Figure(
            plotly.Heatmap(
                x=fields[x].unique(maintain_order=True).to_list(),
                y=table[y].to_list(),
                z=table.select(names).rows(),
                colorbar={"title": value},
                hovertemplate=f"{x} %{{x}}<br>{y} %{{y}}<br>{value} %{{z:.4g}}<extra></extra>",
            )
        )
        figure.update_layout(
            title=f"{value} of {status.algorithm_id.partition('@')[0]}, {status.done:,} of {status.of:,} combinations",
            xaxis_title=x,
            yaxis_title=y,
        )
        return figure

    def run(self, row: int, *, backtest_id: str | None = None, watch: Iterable[Stream] = STREAMS) -> Run:
        """Start the backtest of a row, by its `cell`, with streams and tables. Raises `ValidationError`."""
        request = GetSweepRun(sweep_id=self._id, row=row, backtest_id=backtest_id)
        accepted = self._ask("GetSweepRun", request, BacktestAccepted)
        return Run(self._ask, self._io_thread, accepted.backtest_id, is_new=False, watch=watch)

    # --- steering -------------------------------------------------------------------------------------------------

    def pause(self) -> BacktestState:
        """Give out no further block; those being computed still count. Raises `StateConflict` when it has ended."""
        return self._steer("Pause")

    def resume(self) -> BacktestState:
        """Go on, also after a failure. Raises `StateConflict` when it is completed or stopped."""
        return self._steer("Resume")

    def stop(self) -> BacktestState:
        """End the sweep early; the rows so far stay. One that has ended stays as it is."""
        return self._steer("Stop")

    def delete(self) -> int:
        """Delete the sweep with its rows, and return the bytes that this freed.

        Waits for a worker that is just ending its last task of it. Raises `StateConflict` while it has not ended.
        """
        return self._ask("DeleteSweep", SweepRef(sweep_id=self._id), DeletedSweep, BULK_TIMEOUT).freed_bytes

    def _steer(self, verb: str) -> BacktestState:
        answer = self._ask(f"{verb}Sweep", SweepRef(sweep_id=self._id), SweepAccepted)
        if answer.status is None:
            raise SystemFault(f"the answer to {verb}Sweep has no status")
        return answer.status

    def raise_failure(self) -> None:
        """Raise the error of a sweep that has failed; do nothing for any other."""
        status = self.status()
        if status.status == "failed":
            raise from_data(status.error) if status.error else SystemFault(f"sweep {self._id} failed without a reason")


def start_sweep(ask: Requester, io_thread: IoThread, request: StartSweep) -> Sweep:
    """Have the broker start a sweep, whose request has an id."""
    assert request.sweep_id is not None
    try:
        accepted = ask("StartSweep", request, SweepAccepted, BULK_TIMEOUT)
    except BacktestrError as error:
        raise in_python(error) from None
    return Sweep(ask, io_thread, request.sweep_id, accepted)


@contextlib.contextmanager
def _bar() -> Iterator[Callable[[SweepStatus], None]]:
    """Show a bar over the combinations of a sweep; yield the function that moves it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tqdm warns where a notebook lacks ipywidgets, and shows text instead
        from tqdm.auto import tqdm

        said: list[str] = []
        bar = tqdm(total=1, unit="row", bar_format="{l_bar}{bar}| {n:,}/{total:,} [{elapsed}{postfix}]")

    def show(status: SweepStatus) -> None:
        bar.total = max(1, status.of)
        told = [] if status.rate is None else [f"{status.rate:,.0f}/s"]
        if status.time_left_ms is not None:
            told.append(f"{status.time_left_ms / 1000:,.0f} s left")
        if status.best is not None:
            told.append(f"best {status.objective} {status.best.value:.4g} at {named(status.best.parameters)}")
        if status.status not in ("running", "queued"):
            told.append(status.status)
        if status.trials_after is not None:
            told.append(f"{status.trials_after:,} trials on these bars")
        if status.status == "paused" and status.error is not None and status.error.message not in said:
            said.append(status.error.message)  # once, above the bar: it has lost its cluster, and waits to be resumed
            bar.write(f"paused: {status.error.message}")
        bar.set_postfix_str(", ".join(told), refresh=False)
        bar.update(status.done - bar.n)
        bar.refresh()

    with bar:
        yield show


def named(parameters: dict[str, Any]) -> str:
    """Return parameters as `fast=10 slow=30`."""
    return " ".join(f"{name}={value}" for name, value in parameters.items())


def _plotly() -> ModuleType:
    try:
        import plotly.graph_objects as found
    except ModuleNotFoundError:
        raise ModuleNotFoundError("a heat map needs plotly: pip install plotly") from None
    module: ModuleType = found
    return module
