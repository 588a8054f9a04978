"""Execute the requests about sweeps (PROTOCOL.md, section 6.11).

Rows are read by workers, who have them on disk; all else is answered from what the core knows.
"""

from __future__ import annotations

from itertools import islice

import msgspec

from backtestr_broker.core.clients.answers import RequestKey
from backtestr_broker.core.clients.sessions import Session
from backtestr_broker.core.outbox import Outbox
from backtestr_broker.core.scheduling.scheduler import Scheduler
from backtestr_protocol.codec import encode
from backtestr_protocol.errors import InvalidConfiguration, NotPermitted, ValidationError
from backtestr_protocol.known_fields import check_known_fields
from backtestr_protocol.messages import BacktestConfig, Contract
from backtestr_protocol.sweep_messages import (
    LISTED_SWEEPS,
    GetSweepResults,
    GetSweepRun,
    ListSweeps,
    StartSweep,
    SweepList,
    SweepRef,
)
from backtestr_protocol.sweep_tasks import SweepRow

# Bytes of one sweep's request: it is kept as long as the broker knows the sweep, and goes to a worker with each block.
MAX_REQUEST_BYTES = 256 << 10
# The methods whose trials follow from their numbers, so that any worker of a cluster can compute any of them.
ON_CLUSTERS = ("grid", "random")


class _WithConfig(msgspec.Struct):
    config: msgspec.Raw


_with_config = msgspec.msgpack.Decoder(_WithConfig)


def check_config_fields(data: bytes | msgspec.Raw, hint: str) -> None:
    """Refuse unknown fields in the configuration of a sweep. What is none is left to the decoder of the contract."""
    try:
        config = _with_config.decode(data).config
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return
    check_known_fields(config, BacktestConfig, hint, "$.config")


class SweepRequests:
    """The requests about sweeps, as methods."""

    def __init__(self, outbox: Outbox, scheduler: Scheduler, cluster: str = "") -> None:
        """Take the address of the `cluster` that computes sweeps which name none; empty if there is none."""
        self._outbox = outbox
        self._cluster = cluster
        self._scheduler = scheduler
        self._sweeping = scheduler.sweeping
        self._sweeps = scheduler.sweeping.sweeps

    def start(self, session: Session, data: StartSweep, request_key: RequestKey) -> Contract | None:
        if data.config.backtest_id is not None:
            raise ValidationError(
                "$.config.backtestId: a sweep has many backtests; give the sweep a sweepId", path="$.config.backtestId"
            )
        if (size := len(encode(data))) > MAX_REQUEST_BYTES:
            raise ValidationError(
                f"$: the request of a sweep has at most {MAX_REQUEST_BYTES:,} bytes, and this one {size:,}; give "
                "ranges in place of long lists of values",
                path="$",
            )
        cluster = self._cluster_of(session, data)
        sweep_id = data.sweep_id if data.sweep_id is not None else self._outbox.unique_id()
        return self._sweeping.start(data, sweep_id, request_key, cluster)

    def _cluster_of(self, session: Session, data: StartSweep) -> str:
        """Return the address of the cluster that computes a sweep; empty if there is none.

        Raises `NotPermitted` for a client elsewhere that names one: the broker's workers connect to it, and trust it
        with code. Raises `InvalidConfiguration` for a method whose trials depend on rows.
        """
        named = data.scheduler
        if named and session.key is not None and named != self._cluster:
            raise NotPermitted(
                f"a client with a key of its own ({session.key!r}) may not have the broker connect to {named}; on the "
                "broker's machine, name it in broker.toml (scheduler under [sweep]), or start the sweep there",
                key=session.key,
            )
        if data.method in ON_CLUSTERS:
            return self._cluster if named is None else named
        if named:
            raise InvalidConfiguration(
                f"a sweep with method {data.method} proposes its trials from the rows of earlier ones, and is computed "
                "by the broker's own workers: leave out scheduler, or take method random",
                paths=["$.scheduler", "$.method"],
            )
        return ""

    def pause(self, _session: Session, data: SweepRef, request_key: RequestKey) -> None:
        self._sweeping.pause(self._sweeps.get(data.sweep_id), request_key)

    def resume(self, _session: Session, data: SweepRef, request_key: RequestKey) -> None:
        self._sweeping.resume(self._sweeps.get(data.sweep_id), request_key)

    def stop(self, _session: Session, data: SweepRef, request_key: RequestKey) -> None:
        self._sweeping.stop(self._sweeps.get(data.sweep_id), request_key)

    def delete(self, _session: Session, data: SweepRef, request_key: RequestKey) -> None:
        self._sweeping.delete(self._sweeps.get(data.sweep_id), request_key)

    def status(self, _session: Session, data: SweepRef, _request_key: RequestKey) -> Contract:
        sweep = self._sweeps.get(data.sweep_id)
        self._sweeping.trials.settle(sweep)
        return sweep.details(self._outbox.now, self._sweeping.compute_workers)

    def list_all(self, _session: Session, data: ListSweeps, _request_key: RequestKey) -> SweepList:
        now, workers = self._outbox.now, self._sweeping.compute_workers
        wanted = (one for one in reversed(list(self._sweeps)) if data.status in (None, one.status))
        listed = [one.status_message(now, workers) for one in islice(wanted, data.limit or LISTED_SWEEPS)]
        return SweepList(sweeps=listed, count=len(self._sweeps))

    def results(self, _session: Session, data: GetSweepResults, request_key: RequestKey) -> None:
        self._sweeps.get(data.sweep_id)
        self._scheduler.interactive.ask("GetSweepResults", encode(data), request_key, "I")

    def run(self, _session: Session, data: GetSweepRun, request_key: RequestKey) -> None:
        sweep = self._sweeps.get(data.sweep_id)
        self._scheduler.check_room(request_key[0])
        backtest_id = data.backtest_id if data.backtest_id is not None else self._outbox.unique_id()
        row = SweepRow(checked=sweep.checked, row=data.row, backtest_id=backtest_id)
        self._scheduler.start(encode(row), request_key, work="OpenSweepRun")
