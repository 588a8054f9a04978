"""A client is a connection to the broker with a method for each request.

Its methods block, and threads may share it: requests of different threads do not wait for each other.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Unpack

import blinker
import msgspec
import polars as pl
import zmq

from backtestr.core.connection_state import ConnectionState
from backtestr.core.counters import Statistics
from backtestr.core.effects import Gap
from backtestr.core.instants import Instant, as_iso
from backtestr.core.recovery import Recovery
from backtestr.core.request_encoding import with_times_as_text
from backtestr.core.session import Session
from backtestr.core.update_filter import Texts, update_filter
from backtestr.core.updates import Update
from backtestr.io.callback_thread import CallbackThread
from backtestr.io.connection_file import HOW_TO_START, ConnectionFile
from backtestr.io.error_log import Callback, ErrorLog, ErrorReports
from backtestr.io.io_thread import IoThread
from backtestr.state.resolvers import Resolver
from backtestr.state.shared_state import SharedState
from backtestr.state.status_watch import watch_status
from backtestr_protocol.connection import Connection
from backtestr_protocol.errors import AuthenticationError, NetworkError, Severity, TimedOut
from backtestr_protocol.evaluation_messages import EvaluateAlgorithm
from backtestr_protocol.keys import KeyPair
from backtestr_protocol.messages import (
    AlgorithmInfo,
    AlgorithmList,
    AlgorithmProblem,
    AlgorithmRef,
    AlgorithmStatus,
    BacktestAccepted,
    BacktestList,
    BacktestRef,
    BacktestState,
    BacktestStatus,
    DeletedState,
    DeleteState,
    GetState,
    ListBacktests,
    Nothing,
    PerformanceMetrics,
    Pong,
    SnapshotState,
    StateEntry,
    StateSnapshot,
    TableName,
    TickPrice,
    UpdatedState,
    UpdateState,
    Welcome,
)
from backtestr_protocol.metric_definitions import metric_definitions
from backtestr_protocol.metrics import Metrics
from backtestr_protocol.price_messages import (
    PriceReplayAccepted,
    PriceReplayList,
    PriceReplayRef,
    PriceReplayStatus,
    PublishedPrices,
    ReplayState,
)
from backtestr_protocol.result_messages import (
    DeletedBacktest,
    ListResults,
    PinBacktest,
    PinnedBacktest,
    PrunedResults,
    PruneResults,
    ResultList,
)
from backtestr_protocol.state_values import value_bytes
from backtestr_protocol.stream_messages import PriceUpdate
from backtestr_protocol.system_status import SystemStatus

from .algorithm_source import registration
from .arguments import as_symbols, config_of, feed_request
from .evaluation import fetch_evaluation
from .market_data import MarketDataRequests
from .pipeline import Pipeline
from .replay import PriceReplay, Rate, replay_request, start_replay
from .requester import BULK_TIMEOUT, REQUEST_TIMEOUT, Requester
from .results import ALL_TABLES, Results, fetch_results
from .run import STREAMS, Run, Stream, start_backtest
from .subscription import Subscription, fetch_missed
from .sweep_requests import SweepRequests
from .trials import TrialRequests


class Client(MarketDataRequests, SweepRequests, TrialRequests):
    """A connection to a broker. Use it as a context manager, or `close` it.

    Every method raises the broker's error as an exception of `backtestr.errors`, `TimedOut` when there is no answer in
    time, `NetworkError` when the connection was lost for as long, and `RuntimeError` after `close`. When the broker is
    restarted the client connects again by itself, and resends pending requests with the same id (docs/client.md).

    `connection_changed` is a blinker signal, sent with this client as sender and with `state` and `previous`. Its
    receivers and the callbacks of `on_error` are called one after the other by a thread of their own, so they may send
    requests; an error in one is logged.
    """

    metric_definitions = staticmethod(metric_definitions)

    def __init__(
        self,
        connection: Connection,
        *,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
        file: ConnectionFile | None = None,
        keys: KeyPair | None = None,
        client_id: str | None = None,
        timeout: float = 5.0,
        request_timeout: float = REQUEST_TIMEOUT,
        recovery: Recovery | None = None,
    ) -> None:
        """Connect as `connection` says.

        `context` is needed for a broker inside this process, and stays the caller's. With `file`, other starts of the
        broker are noticed in the connection file; without it, calls fail with `AuthenticationError` once another broker
        is at that address. `keys` is this client's key pair, where the connection requires one.
        The rest is as in `connect`.
        """
        if connection.curve is not None and keys is None:
            raise NetworkError("the broker lets in only clients with a key (CURVE); make one: backtestr keys new NAME")
        self._own_context = zmq.Context() if context is None else None
        nonce = uuid.uuid4().hex
        recovery = recovery or Recovery()
        session = Session(client_id or f"python-{nonce}", nonce, recovery=recovery)
        used_context = context or self._own_context
        assert used_context is not None
        self.connection_changed = blinker.Signal("the connection's state changed: state, previous")
        self._callbacks = CallbackThread()
        self._errors = ErrorLog(self._callbacks)
        self._io_thread = IoThread(
            session,
            connection,
            file,
            used_context,
            keys,
            recovery=recovery,
            errors=self._errors,
            on_state=self._on_state,
        )
        self._request_timeout = request_timeout
        self._ask = Requester(self._io_thread, request_timeout)
        try:
            self._io_thread.start()
            self._welcome = self._io_thread.welcomed.read(timeout)
        except TimedOut:
            key_refusal = self._io_thread.key_refusal
            self.close()
            if key_refusal is not None:
                raise AuthenticationError(f"the broker does not take this client's key: {key_refusal}") from None
            silent = f"the broker (process {connection.pid}) did not answer within {timeout:g} s"
            raise NetworkError(f"{silent}; if it is gone, {HOW_TO_START}") from None
        except BaseException:  # Ctrl-C included: without this object, nothing else can end the I/O thread
            self.close()
            raise

    @property
    def welcome(self) -> Welcome:
        """The broker's answer to this client's `Hello`: version, limits and topics."""
        return self._welcome

    # --- the connection -------------------------------------------------------------------------------------------

    @property
    def state(self) -> ConnectionState:
        """The connection state: `connecting`, `ready`, `reconnecting`, `auth_failed` or `closed`."""
        return self._io_thread.state

    @property
    def statistics(self) -> Statistics:
        """The counters so far: requests, and the messages that streams lost and that were repaired."""
        return self._io_thread.statistics(self._callbacks.missed)

    @property
    def errors(self) -> ErrorReports:
        """The last 100 errors, the oldest first; `errors(severity="Info")` are those that are at least so severe.

        They are of requests that failed, of messages that are lost, of the connection, and, while the program is
        subscribed to it, from `system.errors`. Those of the severity `Info` say that the client has recovered: it is
        connected again, or has the messages that were missing.
        """
        return self._errors.latest

    def on_status(self, callback: Callable[[SystemStatus], object]) -> Callable[[], None]:
        """Call `callback` with the system's status now, and whenever `status.status` changes; return what ends that.

        The status comes with the broker's heartbeats. Another instance of the broker is a change, too. The client's
        callback thread makes the calls.
        """
        return watch_status(self._ask, self._io_thread, self._callbacks, callback)

    def on_error(self, callback: Callback, severity: Severity = "Warning") -> Callable[[], None]:
        """Call `callback` with every further `ErrorReport` at least as severe; return a function that ends that.

        Severities are `Info`, `Warning`, `Error` and `Critical`.
        """
        return self._errors.add_callback(callback, severity)

    def close(self) -> None:
        """End the session. Backtests continue; requests that wait in other threads raise `RuntimeError`.

        Ctrl-C meanwhile is raised when everything is closed. In a forked child this does nothing: the client is its
        parent's.
        """
        if self._io_thread.is_forked:
            return
        self._io_thread.check_may_wait()
        try:
            self._io_thread.close()
        finally:
            self._callbacks.close()
            if self._own_context is not None:
                self._own_context.term()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # --- the system -----------------------------------------------------------------------------------------------

    def ping(self) -> int:
        """Return the broker's clock, in milliseconds since the Unix epoch."""
        return self._ask("Ping", Nothing(), Pong).timestamp

    def pipeline(self, window: int = 256, timeout: float | None = None) -> Pipeline:
        """Make many requests without waiting for the answer of each: `with client.pipeline() as pipe: pipe.ping()`.

        Methods of the pipeline return handles, whose `result()` returns or raises what the call without a pipeline
        does. At most `window` requests (1 to 500) are under way; a method waits while there are so many. `timeout` is
        that of each request in seconds, None the client's.
        """
        return Pipeline(self._io_thread, window, self._request_timeout if timeout is None else timeout)

    def status(self) -> SystemStatus:
        """Return the status of the broker, its workers and its machine."""
        return self._ask("GetSystemStatus", Nothing(), SystemStatus)

    def stop_broker(self) -> None:
        """Stop the broker for all its clients, as Ctrl-C does there; backtests run again when it is started again."""
        self._ask("StopBroker", Nothing(), Nothing)

    def list_algorithms(self) -> list[AlgorithmInfo]:
        """List the algorithms that can be run, with the parameters of each."""
        return self._ask("ListAlgorithms", Nothing(), AlgorithmList).algorithms

    def algorithm_problems(self) -> list[AlgorithmProblem]:
        """List the files of algorithms that the broker's workers have not loaded, each with the reason."""
        return self._ask("ListAlgorithms", Nothing(), AlgorithmList).problems

    def register_algorithm(
        self, source: str | Path, name: str | None = None, *, timeout: float = BULK_TIMEOUT
    ) -> AlgorithmInfo:
        """Have the broker keep an algorithm of yours: the text of a Python file, or a `Path` to one.

        `name`: which of its algorithms, where it declares several. The answer has the id of this version, which the
        name means from now on, and `look_ahead`, the verdict of the look-ahead check. A failed check does not refuse
        the algorithm: look at `passed`. Raises `AlgorithmError` for source that cannot be run, `StateConflict` for a
        name that is built in or in the folder, `TimedOut` for source that does not end in time, and `ValueError` where
        it cannot be determined which algorithm is meant.
        """
        return self._ask("RegisterAlgorithm", registration(source, name), AlgorithmInfo, timeout)

    def algorithm_status(self, algorithm: str) -> AlgorithmStatus:
        """Return one version of an algorithm by its id, or the newest by its name.

        The answer includes the backtests that run it and its last error; by name, those of all versions.
        """
        return self._ask("GetAlgorithmStatus", AlgorithmRef(algorithm_id=algorithm), AlgorithmStatus)

    # --- prices ---------------------------------------------------------------------------------------------------

    def replay(
        self,
        symbol: str,
        timeframe: str,
        *,
        start: Instant | None = None,
        end: Instant | None = None,
        price: TickPrice | None = None,
        **rate: Unpack[Rate],
    ) -> PriceReplay:
        """Publish stored bars, or those of a `price` of ticks, as prices for all clients that subscribe.

        Iterate over the handle to read them. The timeframe `"tick"` publishes the ticks. `end` is exclusive. `rate` is
        one of `bars_per_second=50` (or ticks), `speed=60` (times real time: gaps between bars are skipped, and silences
        of ticks last a minute at most) and `as_fast_as_read=True`. Raises `ValueError` for none or several,
        `DataError`, `ValidationError` or `InvalidConfiguration` for what cannot be published so, and `Busy` when too
        many price replays run.
        """
        return start_replay(self._ask, self._io_thread, replay_request(symbol, timeframe, start, end, rate, price))

    def list_replays(self) -> list[PriceReplayStatus]:
        """List the price replays that the broker knows, the latest first."""
        return self._ask("ListPriceReplays", Nothing(), PriceReplayList).replays

    def stop_replay(self, replay_id: str) -> ReplayState:
        """Stop a price replay of any client. Raises `NotFound`."""
        return self._ask("StopPriceReplay", PriceReplayRef(replay_id=replay_id), PriceReplayAccepted).status

    def publish_prices(self, prices: Iterable[PriceUpdate | Mapping[str, Any]]) -> int:
        """Publish live prices, up to 1,000, each on `prices.<symbol>.<timeframe>`; return how many.

        A price has `symbol timestamp bid ask last volume timeframe`, the last of which may be `"tick"`. All are
        published or none: `ValidationError` names the first wrong one in `details["path"]`.
        """
        return self._ask("PublishPrices", feed_request(prices), PublishedPrices).published

    # --- backtests ------------------------------------------------------------------------------------------------

    def backtest(
        self,
        algorithm: str,
        symbol: str | Sequence[str],
        *,
        timeframe: str,
        start: Instant | None = None,
        end: Instant | None = None,
        price: TickPrice | None = None,
        capital: float = 100_000.0,
        commission: float = 0.0,
        slippage: float = 0.0,
        parameters: Mapping[str, Any] | None = None,
        warmup: int | None = None,
        backtest_id: str | None = None,
        watch: Iterable[Stream] = STREAMS,
        **options: Any,
    ) -> Run:
        """Start a backtest, and return it as soon as the broker has accepted it.

        Several symbols (`["BTC", "ETH"]`) share the account. `end` is exclusive; without `start` or `end` the bars
        begin or end where the stored ones do. `price` is that of ticks to make the bars of. `warmup` stored bars before
        `start` warm up the indicators, and are not traded; None means as many as the algorithm declares. `commission`
        and `slippage` are fractions of traded value and of price. `options` are the engine's conventions
        (`fill_at="close"`, `size="units"`, …; see `config/engine.toml`). `watch` names the streams to receive, so that
        they can be read from their first message. Raises `NotFound`, `ValidationError`, `InvalidConfiguration` or
        `DataError` for a backtest that cannot be run.
        """
        config = config_of(
            algorithm,
            symbol,
            timeframe,
            start=start,
            end=end,
            price=price,
            capital=capital,
            commission=commission,
            slippage=slippage,
            parameters=parameters,
            warmup=warmup,
            **options,
        )
        config = msgspec.structs.replace(config, backtest_id=backtest_id or str(uuid.uuid4()))
        return start_backtest(self._ask, self._io_thread, config, watch)

    def evaluate(
        self,
        algorithm: str,
        symbol: str | Sequence[str],
        *,
        timeframe: str,
        start: Instant | None = None,
        end: Instant | None = None,
        price: TickPrice | None = None,
        parameters: Mapping[str, Any] | None = None,
        warmup: int | None = None,
        timeout: float = BULK_TIMEOUT,
    ) -> pl.DataFrame:
        """Return the signals of an algorithm with the bars, and the series that it shows, without a backtest.

        The arguments mean what they mean for `backtest`, and the signals are those that a backtest with them and
        without options trades. The columns are `timestamp open high low close volume`; then `entries exits
        short_entries short_exits`, or `target`; then the levels that the algorithm gives (`stop_loss` …); then what it
        shows with `Signals.of(…, show={"atr": atr})`. Of several symbols, the second column is `symbol`. Raises what
        `backtest` raises, and `AlgorithmError` with `details["traceback"]` for an algorithm that fails.
        """
        symbols = as_symbols(symbol)
        request = EvaluateAlgorithm(
            algorithm_id=algorithm,
            symbol=symbols[0],
            symbols=symbols if len(symbols) > 1 else [],
            start_date=None if start is None else as_iso(start),
            end_date=None if end is None else as_iso(end),
            timeframe=timeframe,
            price=price,
            parameters=with_times_as_text(parameters or {}),
            warmup=warmup,
        )
        return fetch_evaluation(self._ask, request, timeout)

    def run(self, backtest_id: str) -> Run:
        """Return the handle of a backtest that was started elsewhere or before. Raises `NotFound`."""
        self.backtest_status(backtest_id)
        return Run(self._ask, self._io_thread, backtest_id, is_new=False)

    def list_backtests(self, status: BacktestState | None = None, limit: int | None = None) -> list[BacktestStatus]:
        """List the backtests that the broker knows, the latest first, up to `limit`."""
        return self._ask("ListBacktests", ListBacktests(status=status, limit=limit), BacktestList).backtests

    def backtest_status(self, backtest_id: str) -> BacktestStatus:
        """Return the status of a backtest. Raises `NotFound`."""
        return self._ask("GetBacktestStatus", BacktestRef(backtest_id=backtest_id), BacktestStatus)

    def pause(self, backtest_id: str) -> BacktestState:
        """Pause a backtest, as `Run.pause` does."""
        return self._ask("PauseBacktest", BacktestRef(backtest_id=backtest_id), BacktestAccepted).status

    def resume(self, backtest_id: str) -> BacktestState:
        """Continue a paused backtest, as `Run.resume` does."""
        return self._ask("ResumeBacktest", BacktestRef(backtest_id=backtest_id), BacktestAccepted).status

    def stop(self, backtest_id: str) -> BacktestState:
        """Stop a backtest, as `Run.stop` does."""
        return self._ask("StopBacktest", BacktestRef(backtest_id=backtest_id), BacktestAccepted).status

    def results(
        self, backtest_id: str, tables: Iterable[TableName] = ALL_TABLES, timeout: float = BULK_TIMEOUT
    ) -> Results:
        """Return the results of a backtest, without metrics while it has not ended. Raises `NotFound`."""
        return fetch_results(self._ask, backtest_id, tables, timeout)

    def metrics(self, backtest_id: str) -> Metrics | None:
        """Return the metrics of a backtest, without its tables; None while it has not ended. Raises `NotFound`."""
        answer = self._ask("GetPerformanceMetrics", BacktestRef(backtest_id=backtest_id), PerformanceMetrics)
        return None if answer.metrics is None else answer.metrics.with_absent_as_none()

    # --- stored results -------------------------------------------------------------------------------------------

    def stored_results(self, limit: int | None = None, timeout: float = BULK_TIMEOUT) -> ResultList:
        """List the stored results with their sizes on disk in bytes, the latest first, up to `limit`."""
        return self._ask("ListResults", ListResults(limit=limit), ResultList, timeout)

    def delete_backtest(self, backtest_id: str, timeout: float = BULK_TIMEOUT) -> int:
        """Delete a backtest with its results, and return the bytes that this freed.

        Raises `StateConflict` for one that has not ended or is pinned, and `NotFound`.
        """
        request = BacktestRef(backtest_id=backtest_id)
        return self._ask("DeleteBacktest", request, DeletedBacktest, timeout).freed_bytes

    def pin_backtest(self, backtest_id: str, pinned: bool = True, timeout: float = BULK_TIMEOUT) -> bool:
        """Keep the results of a backtest from being deleted, or with `pinned` False no longer; return `pinned`.

        Raises `NotFound`.
        """
        request = PinBacktest(backtest_id=backtest_id, pinned=pinned)
        return self._ask("PinBacktest", request, PinnedBacktest, timeout).pinned

    def prune_results(
        self,
        *,
        dry_run: bool = False,
        max_age_days: float | None = None,
        max_count: int | None = None,
        max_bytes: int | None = None,
        keep_newest: int | None = None,
        timeout: float = BULK_TIMEOUT,
    ) -> PrunedResults:
        """Delete the results that are too old, too many or too large, the oldest first; with `dry_run` only name them.

        A bound that is None is the broker's (`[retention]` in broker.toml). The `keep_newest` newest, those pinned and
        those of backtests that have not ended stay in any case. At most 1,000 go at a time: `remaining` more are due.
        """
        request = PruneResults(
            dry_run=dry_run,
            max_age_ms=None if max_age_days is None else max(1, round(max_age_days * 86_400_000)),
            max_count=max_count,
            max_bytes=max_bytes,
            keep_newest=keep_newest,
        )
        return self._ask("PruneResults", request, PrunedResults, timeout)

    # --- shared state ---------------------------------------------------------------------------------------------

    def get_state(self, key: str) -> StateEntry:
        """Return a key of the shared state with its value and version. Raises `NotFound`."""
        return self._ask("GetState", GetState(key=key), StateEntry)

    def update_state(self, key: str, value: Any, *, expected_version: int | None = None) -> UpdatedState:
        """Set a key, and return its new version when the change is on disk.

        `value` is a MessagePack value: None, bool, int, float, str, bytes, lists, dicts with str keys. With
        `expected_version` the key is set only if it is at that version; with 0 only if it is not there. Otherwise
        `StateConflict` is raised, with `currentVersion` and `currentValue` in its `details`.
        """
        request = UpdateState(key=key, value=msgspec.Raw(value_bytes(value)), expected_version=expected_version)
        return self._ask("UpdateState", request, UpdatedState)

    def delete_state(self, key: str, *, expected_version: int | None = None) -> DeletedState:
        """Delete a key, and return when the change is on disk; its version keeps counting.

        Raises `NotFound`, and `StateConflict` as `update_state` does.
        """
        return self._ask("DeleteState", DeleteState(key=key, expected_version=expected_version), DeletedState)

    def shared_state(self, prefix: str = "", *, resolvers: Mapping[str, Resolver] | None = None) -> SharedState:
        """Return the keys that begin with `prefix` (`"backtest."`) as a mapping that follows the broker.

        `resolvers` decide, by prefixes of keys, which value counts when two clients changed the same key. They come
        before the built-in ones (`backtestr.resolvers`): for `backtest.` the later `lastUpdate`, for `algorithm.` both
        changes if they are to different fields, for all else the last writer. The mapping has a first snapshot when
        this returns. Raises `ValueError` for a prefix that does not end with a dot.
        """
        if prefix and not prefix.endswith("."):
            raise ValueError(f"{prefix!r} does not end with a dot; the keys of one name are {prefix + '.'!r}")
        return SharedState(self._ask, self._io_thread, prefix, resolvers or {}, self._callbacks, self._errors)

    def snapshot_state(self, prefix: str = "") -> StateSnapshot:
        """Return all keys that begin with `prefix`, by name, as of one moment.

        Later changes come on `subscribe("state.…")`, with a `revision` above the snapshot's `watermark`.
        """
        return self._ask("SnapshotState", SnapshotState(prefix=prefix), StateSnapshot)

    # --- streams --------------------------------------------------------------------------------------------------

    def subscribe(
        self,
        topic: str,
        *,
        history: bool = False,
        symbol: Texts | None = None,
        side: Texts | None = None,
        status: Texts | None = None,
        min_quantity: float | None = None,
    ) -> Subscription:
        """Receive a topic, or with a trailing dot (`"prices."`) every topic that begins so.

        Without `history` the subscription begins when it reaches the broker, shortly after this returns. With it, it
        begins with the oldest message that the broker retains, and misses none after that; a `Gap` states the messages
        that are no longer retained. Those of a backtest's orders, positions and progress are all there. A prefix covers
        the topics that advance while it is subscribed.

        `symbol`, `side`, `status` (one value or several) and `min_quantity` filter what is read (docs/streams.md).
        Raises `ValueError` for text that is no topic, and for a filter that its messages cannot have.
        """
        wanted = update_filter(topic, symbol=symbol, side=side, status=status, min_quantity=min_quantity)
        return Subscription(self._io_thread, topic, "retained" if history else "now", wanted=wanted)

    def fetch_missed(self, topic: str, from_seq: int = 1, to_seq: int | None = None) -> list[Update | Gap]:
        """Fetch earlier messages of a topic, as far as the broker retains them; a `Gap` states those it does not.

        Both sequence numbers are included; `to_seq` None means up to the latest. Raises `NotFound`.
        """
        return fetch_missed(self._ask, topic, from_seq, to_seq)

    # --- within ---------------------------------------------------------------------------------------------------

    def _on_state(self, state: ConnectionState, previous: ConnectionState) -> None:
        for callback in list(self.connection_changed.receivers_for(self)):
            self._callbacks.call(partial(callback, self, state=state, previous=previous))
