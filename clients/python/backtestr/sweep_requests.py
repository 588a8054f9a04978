"""The part of a client that is about sweeps: started, counted before they start, found again and listed."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from backtestr.io.io_thread import IoThread
from backtestr_protocol.errors import BacktestrError
from backtestr_protocol.messages import BacktestState
from backtestr_protocol.sweep_messages import (
    Direction,
    ListSweeps,
    StartSweep,
    SweepAccepted,
    SweepDetails,
    SweepList,
    SweepMethod,
    SweepRef,
    SweepStatus,
)

from .arguments import config_of
from .python_names import in_python
from .requester import BULK_TIMEOUT, Requester
from .sweep import Sweep, start_sweep


class SweepRequests:
    """The methods of a client for sweeps."""

    _ask: Requester
    _io_thread: IoThread

    def sweep(
        self,
        algorithm: str,
        symbol: str | Sequence[str],
        *,
        timeframe: str,
        space: Mapping[str, Any],
        where: str | None = None,
        objective: str = "sharpe_ratio",
        direction: Direction = "maximize",
        method: SweepMethod = "grid",
        trials: int | None = None,
        seed: int = 0,
        batch_size: int | None = None,
        metrics: Sequence[str] | None = None,
        sweep_id: str | None = None,
        block_size: int | None = None,
        scheduler: str | None = None,
        **config: Any,
    ) -> Sweep:
        """Start a sweep: a backtest for each combination of the parameters in `space`. Returns once it is accepted.

        A value of `space` is a `range`, a list of values, one value, `{"low": …, "high": …, "step": …}` with both ends
        included, or `{"low": …, "high": …, "distribution": …}` with `"uniform"` or `"log_uniform"`. `where` is a
        constraint such as `"fast < slow"`. `method="grid"` runs every combination, and all others so many `trials`:
        `"random"` those that `seed` selects, and `"tpe"` and `"cmaes"` those that they propose from the rows of earlier
        ones, `batch_size` of them at a time. `objective` is the metric that is best in the direction
        `"maximize"` or `"minimize"`. `metrics` are the figures of each row: all usual ones if None, every one for
        `["all"]`. `scheduler` is the address of a Dask cluster that computes it, such as `"tcp://10.0.0.5:8786"`; that
        of the broker's configuration if None, and none for `""`. All else is as for `backtest`: `start`, `end`,
        `price`, `capital`, `commission`, `slippage`, `parameters` that are not swept, `warmup` and the engine's
        options. The same `sweep_id` with the same arguments again gives the same sweep.
        Raises what `backtest` raises, `ValidationError` for a metric or parameter that does not exist, and
        `InvalidConfiguration` for an empty space, a constraint that leaves nothing, too many combinations, and a method
        whose packages the broker lacks.
        """
        request = StartSweep(
            sweep_id=sweep_id or str(uuid.uuid4()),
            config=config_of(algorithm, symbol, timeframe, **config),
            space={name: as_axis(name, values) for name, values in space.items()},
            where=where,
            method=method,
            trials=trials,
            seed=seed,
            batch_size=batch_size,
            objective=objective,
            direction=direction,
            metrics=None if metrics is None else list(metrics),
            block_size=block_size,
            scheduler=scheduler,
        )
        return start_sweep(self._ask, self._io_thread, request)

    def count_sweep(
        self,
        algorithm: str,
        symbol: str | Sequence[str],
        *,
        timeframe: str,
        space: Mapping[str, Any],
        where: str | None = None,
        method: SweepMethod = "grid",
        trials: int | None = None,
        batch_size: int | None = None,
        scheduler: str | None = None,
        **config: Any,
    ) -> SweepAccepted:
        """Check a sweep without starting it: how many combinations it has, and how long they are expected to take.

        The arguments mean what they mean for `sweep`, and the errors are the same.
        """
        request = StartSweep(
            config=config_of(algorithm, symbol, timeframe, **config),
            space={name: as_axis(name, values) for name, values in space.items()},
            where=where,
            method=method,
            trials=trials,
            batch_size=batch_size,
            scheduler=scheduler,
            dry_run=True,
        )
        try:
            return self._ask("StartSweep", request, SweepAccepted, BULK_TIMEOUT)
        except BacktestrError as error:
            raise in_python(error) from None

    def find_sweep(self, sweep_id: str) -> Sweep:
        """Return the handle of a sweep that was started elsewhere or before. Raises `NotFound`."""
        self._ask("GetSweepStatus", SweepRef(sweep_id=sweep_id), SweepDetails)
        return Sweep(self._ask, self._io_thread, sweep_id)

    def list_sweeps(self, status: BacktestState | None = None, limit: int | None = None) -> list[SweepStatus]:
        """List the sweeps that the broker knows, the latest first, up to `limit`."""
        return self._ask("ListSweeps", ListSweeps(status=status, limit=limit), SweepList).sweeps


def as_axis(name: str, values: Any) -> Any:
    """Return the values of a parameter as the wire has them. Raises `ValueError` for a range without any."""
    if isinstance(values, range):
        if not values:
            raise ValueError(f"space: {name}={values!r} has no value; the end of a range is exclusive")
        low, high = min(values[0], values[-1]), max(values[0], values[-1])
        return {"low": low, "high": high, "step": abs(values.step)} if len(values) > 1 else [low]
    if hasattr(values, "tolist"):  # of numpy, pandas and others
        values = values.tolist()
    elif hasattr(values, "to_list"):
        values = values.to_list()
    if isinstance(values, Mapping):
        return dict(values)
    if isinstance(values, str | bytes) or not hasattr(values, "__iter__"):
        return [values]
    return list(values)
