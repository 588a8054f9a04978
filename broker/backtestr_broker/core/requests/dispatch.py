"""Execute requests: one method for each type, found in one table.

A method returns the answer, or None when the answer comes later from the scheduler, or raises a `BacktestrError`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

import msgspec

from backtestr_broker.core.algorithms import Algorithms
from backtestr_broker.core.clients.answers import RequestKey
from backtestr_broker.core.clients.sessions import Session, Sessions
from backtestr_broker.core.events import Stop
from backtestr_broker.core.outbox import Outbox
from backtestr_broker.core.scheduling.interactive_tasks import Make
from backtestr_broker.core.scheduling.scheduler import Scheduler
from backtestr_broker.core.status import Status
from backtestr_broker.core.streams.feeds import Feeds
from backtestr_protocol import topics
from backtestr_protocol.codec import decode, encode
from backtestr_protocol.envelopes import Payload
from backtestr_protocol.errors import MessageError, SystemFault, UnsupportedCommand, ValidationError, did_you_mean
from backtestr_protocol.known_fields import check_known_fields
from backtestr_protocol.message_types import REQUESTS
from backtestr_protocol.messages import (
    AlgorithmInfo,
    AlgorithmList,
    AlgorithmRef,
    AlgorithmStatus,
    BacktestConfig,
    BacktestList,
    BacktestRef,
    Contract,
    FetchMissed,
    GetBacktestResults,
    ListBacktests,
    Missed,
    Nothing,
    PerformanceMetrics,
    Pong,
    RegisterAlgorithm,
)
from backtestr_protocol.price_messages import PublishedPrices, PublishPrices
from backtestr_protocol.system_status import SystemStatus
from backtestr_protocol.worker_channel import Work

from .price_replay_requests import PriceReplayRequests
from .result_requests import ResultRequests
from .state_requests import StateRequests
from .sweep_requests import SweepRequests, check_config_fields

# Bytes of one backtest's configuration: it is kept as long as the broker knows the backtest, and on disk.
MAX_CONFIG_BYTES = 1 << 20
# The requests in which an unknown field is refused, and where a name belongs that is none of their fields.
NOT_A_FIELD = {
    "StartBacktest": "conventions (fillAt …) belong in options, what the algorithm takes in parameters",
    "StartSweep": "what each of its backtests takes (symbol, options …) belongs in config",
    "EvaluateAlgorithm": "what the algorithm takes belongs in parameters; conventions and money need a backtest",
}
# Characters of an unknown type that the answer repeats.
_SHOWN = 100

_algorithm_decoder = msgspec.msgpack.Decoder(AlgorithmInfo)
_decoders = {name: msgspec.msgpack.Decoder(row.data) for name, row in REQUESTS.items()}


class Requests:
    """The methods of all request types."""

    def __init__(
        self,
        outbox: Outbox,
        *,
        sessions: Sessions,
        status: Status,
        scheduler: Scheduler,
        algorithms: Algorithms,
        state: StateRequests,
        replays: PriceReplayRequests,
        results: ResultRequests,
        sweeps: SweepRequests,
    ) -> None:
        self._outbox = outbox
        self._sessions = sessions
        self._status = status
        self._scheduler = scheduler
        self._algorithms = algorithms
        self._state = state
        self._stored_results = results
        self._feeds = Feeds()
        self._methods: Mapping[str, Callable[[Session, Any, RequestKey], Contract | None]] = {
            "Goodbye": self._goodbye,
            "Ping": self._ping,
            "GetSystemStatus": self._system_status,
            "StopBroker": self._stop_broker,
            "StopBacktest": self._stop,
            "PauseBacktest": self._pause,
            "ResumeBacktest": self._resume,
            "GetBacktestStatus": self._backtest_status,
            "GetState": state.get,
            "UpdateState": state.update,
            "DeleteState": state.delete,
            "SnapshotState": state.snapshot,
            "FetchMissed": self._fetch_missed,
            "ListAlgorithms": self._list_algorithms,
            "RegisterAlgorithm": self._register_algorithm,
            "GetAlgorithmStatus": self._algorithm_status,
            "EvaluateAlgorithm": self._asking("EvaluateAlgorithm"),
            "ListMarketData": self._asking("ListMarketData"),
            "GetMarketData": self._asking("GetMarketData"),
            "ImportMarketData": self._asking("ImportMarketData"),
            "DescribeMarketData": self._asking("DescribeMarketData"),
            "ResampleMarketData": self._asking("ResampleMarketData"),
            "DeleteMarketData": self._asking("DeleteMarketData"),
            "StartBacktest": self._start,
            "ListBacktests": self._list_backtests,
            "GetBacktestResults": self._results,
            "GetPerformanceMetrics": self._metrics,
            "DeleteBacktest": results.delete,
            "PinBacktest": results.pin,
            "ListResults": results.list_all,
            "PruneResults": results.prune,
            "StartPriceReplay": replays.start,
            "PausePriceReplay": replays.pause,
            "ResumePriceReplay": replays.resume,
            "StopPriceReplay": replays.stop,
            "AcknowledgePrices": replays.acknowledge,
            "GetPriceReplayStatus": replays.status,
            "ListPriceReplays": replays.list_all,
            "PublishPrices": self._publish_prices,
            "StartSweep": sweeps.start,
            "PauseSweep": sweeps.pause,
            "ResumeSweep": sweeps.resume,
            "StopSweep": sweeps.stop,
            "GetSweepStatus": sweeps.status,
            "ListSweeps": sweeps.list_all,
            "GetSweepResults": sweeps.results,
            "GetSweepRun": sweeps.run,
            "DeleteSweep": sweeps.delete,
            "GetTrials": self._asking("GetTrials"),
        }

    def execute(self, session: Session, payload: Payload, request_key: RequestKey) -> Contract | None:
        """Execute one request. Raises `BacktestrError`, which is the answer then."""
        method = self._methods.get(payload.type)
        if method is None:
            shown = payload.type[:_SHOWN]
            raise UnsupportedCommand(
                f"unknown request type {shown!r}{did_you_mean(payload.type, self._methods)}",
                type=shown,
                known=sorted(self._methods),
            )
        if (hint := NOT_A_FIELD.get(payload.type)) is not None:
            check_known_fields(payload.data, REQUESTS[payload.type].data, hint)
        if payload.type == "StartSweep":
            check_config_fields(payload.data, NOT_A_FIELD["StartBacktest"])
        return method(session, decode(_decoders[payload.type], payload.data), request_key)

    # --- the connection ---

    def _goodbye(self, session: Session, _data: Nothing, _request_key: RequestKey) -> Nothing:
        self._sessions.close(session)
        self._outbox.notify("client_left", clientId=session.client_id, reason="said goodbye")
        return Nothing()

    def _ping(self, _session: Session, _data: Nothing, _request_key: RequestKey) -> Pong:
        return Pong(timestamp=self._outbox.wall_ms)

    def _system_status(self, _session: Session, _data: Nothing, _request_key: RequestKey) -> SystemStatus:
        return self._status.report()

    def _stop_broker(self, session: Session, _data: Nothing, _request_key: RequestKey) -> Nothing:
        """Stop as at a signal, after this answer: not every system can send a signal to another process."""
        self._outbox.notify("stops", clientId=session.client_id)
        self._outbox.add(Stop())
        return Nothing()

    def _fetch_missed(self, _session: Session, data: FetchMissed, request_key: RequestKey) -> Missed | None:
        if (key := topics.state_key(data.topic)) is not None and self._state.has(key):
            self._outbox.sequencer.create(data.topic)  # it was known before this broker's start, and quiet since
        return self._scheduler.stream_fetches.fetch(data, request_key)

    def _publish_prices(self, _session: Session, data: PublishPrices, _request_key: RequestKey) -> PublishedPrices:
        for one in self._feeds.take(data.prices):
            self._outbox.publish(one.topic, one.payload, one.count)
        return PublishedPrices(published=len(data.prices))

    # --- algorithms ---

    def _list_algorithms(self, _session: Session, _data: Nothing, _request_key: RequestKey) -> AlgorithmList:
        return AlgorithmList(algorithms=self._algorithms.all(), problems=self._algorithms.problems())

    def _register_algorithm(self, _session: Session, data: RegisterAlgorithm, request_key: RequestKey) -> None:
        def registered(frames: list[bytes]) -> None:
            info = _algorithm_info("RegisterAlgorithm", frames)
            self._algorithms.stored(info)
            self._outbox.answer_durably(request_key, info)  # executed again, it would put an earlier version in front

        self._ask("RegisterAlgorithm", data, request_key, registered)

    def _algorithm_status(
        self, session: Session, data: AlgorithmRef, request_key: RequestKey
    ) -> AlgorithmStatus | None:
        """Answer for the versions that the broker knows; of an earlier one, a worker knows what it was."""
        found = self._algorithms.status(data.algorithm_id, self._scheduler.jobs.active_algorithms())
        if found is None:
            self._ask("GetAlgorithmStatus", data, request_key, self._earlier_version)
        return found

    def _earlier_version(self, frames: list[bytes]) -> AlgorithmStatus:
        info = _algorithm_info("GetAlgorithmStatus", frames)
        return self._algorithms.status_of(info, self._scheduler.jobs.active_algorithms())

    # --- backtests ---

    def _start(self, _session: Session, data: BacktestConfig, request_key: RequestKey) -> None:
        backtest_id = data.backtest_id if data.backtest_id is not None else self._outbox.unique_id()
        self._scheduler.check_room(request_key[0])
        config = encode(msgspec.structs.replace(data, backtest_id=backtest_id))
        if len(config) > MAX_CONFIG_BYTES:
            raise ValidationError(
                f"$: a backtest's configuration has at most {MAX_CONFIG_BYTES:,} bytes, and this one {len(config):,}; "
                "give it fewer or shorter parameters",
                path="$",
            )
        self._scheduler.start(config, request_key)

    def _pause(self, _session: Session, data: BacktestRef, request_key: RequestKey) -> Contract | None:
        return self._scheduler.pause(self._scheduler.jobs.get(data.backtest_id), request_key)

    def _resume(self, _session: Session, data: BacktestRef, request_key: RequestKey) -> Contract | None:
        return self._scheduler.resume(self._scheduler.jobs.get(data.backtest_id), request_key)

    def _stop(self, _session: Session, data: BacktestRef, request_key: RequestKey) -> Contract | None:
        return self._scheduler.stop(self._scheduler.jobs.get(data.backtest_id), request_key)

    def _backtest_status(self, _session: Session, data: BacktestRef, _request_key: RequestKey) -> Contract:
        return self._scheduler.jobs.get(data.backtest_id).status_message()

    def _list_backtests(self, _session: Session, data: ListBacktests, _request_key: RequestKey) -> BacktestList:
        wanted = (job for job in reversed(list(self._scheduler.jobs)) if data.status in (None, job.status))
        return BacktestList(backtests=[job.status_message() for job in islice(wanted, data.limit)])

    # --- results: the broker answers itself for a backtest that has none yet, else a worker reads them ---

    def _results(self, _session: Session, data: GetBacktestResults, request_key: RequestKey) -> Contract | None:
        jobs = self._scheduler.jobs
        self._stored_results.check_readable(data.backtest_id)
        if data.backtest_id in jobs:
            job = jobs.get(data.backtest_id)
            if not job.has_results:
                return self._scheduler.results.ask(job, data, request_key)
        self._ask("GetBacktestResults", data, request_key)
        return None

    def _metrics(self, _session: Session, data: BacktestRef, request_key: RequestKey) -> Contract | None:
        jobs = self._scheduler.jobs
        self._stored_results.check_readable(data.backtest_id)
        if data.backtest_id in jobs and not jobs.get(data.backtest_id).has_results:
            return PerformanceMetrics(backtest_id=data.backtest_id, metrics=None)
        self._ask("GetPerformanceMetrics", data, request_key)
        return None

    # --- interactive tasks ---

    def _asking(self, work: Work) -> Callable[[Session, Contract, RequestKey], None]:
        def ask(_session: Session, data: Contract, request_key: RequestKey) -> None:
            self._ask(work, data, request_key)

        return ask

    def _ask(self, work: Work, data: Contract, request_key: RequestKey, make: Make | None = None) -> None:
        """Have a worker do the request; `make` makes the answer of what it sends."""
        interactive = self._scheduler.interactive
        done = None if make is None else interactive.answering(work, request_key, make)
        interactive.ask(work, encode(data), request_key, REQUESTS[work].priority, done=done)

    def check_invariants(self) -> None:
        self._feeds.check_invariants()


def _algorithm_info(work: Work, frames: list[bytes]) -> AlgorithmInfo:
    try:
        return decode(_algorithm_decoder, frames[0])
    except MessageError as error:
        raise SystemFault(f"the answer to {work} is no AlgorithmInfo: {error}") from error
