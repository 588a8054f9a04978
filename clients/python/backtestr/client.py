"""The front door: a connection to the broker with a method for everything it can be asked.

Blocking, and safe to share between threads: requests of different threads do not wait for each other.
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
from backtestr.core.recovery import Recovery
from backtestr.core.session import Session
from backtestr.core.updates import Update
from backtestr.io.callback_thread import CallbackThread
from backtestr.io.connection_file import HOW_TO_START, ConnectionFile
from backtestr.io.error_log import Callback, ErrorLog, ErrorReport
from backtestr.io.io_thread import IoThread
from backtestr.state.resolvers import Resolver
from backtestr.state.shared_state import SharedState
from backtestr_protocol.connection import Connection
from backtestr_protocol.errors import AuthenticationError, NetworkError, Severity, TimedOut
from backtestr_protocol.keys import KeyPair
from backtestr_protocol.messages import (
    AlgorithmInfo,
    AlgorithmList,
    AlgorithmRef,
    AlgorithmStatus,
    BacktestAccepted,
    BacktestConfig,
    BacktestList,
    BacktestRef,
    BacktestState,
    BacktestStatus,
    DeletedMarketData,
    DeletedState,
    DeleteMarketData,
    DeleteState,
    DescribeMarketData,
    GetMarketData,
    GetState,
    Imported,
    ImportMarketData,
    IndicatorConfig,
    Keep,
    ListBacktests,
    MarketData,
    Nothing,
    PerformanceMetrics,
    Pong,
    QuotePrice,
    Repair,
    ResampleMarketData,
    SeriesFacts,
    SeriesInfo,
    SeriesList,
    SnapshotState,
    StateEntry,
    StateSnapshot,
    StoredSeries,
    TableName,
    Timeframe,
    UpdatedState,
    UpdateState,
    Welcome,
)
from backtestr_protocol.price_messages import (
    PriceReplayAccepted,
    PriceReplayList,
    PriceReplayRef,
    PriceReplayStatus,
    PublishedPrices,
    ReplayState,
)
from backtestr_protocol.state_values import value_bytes
from backtestr_protocol.stream_messages import PriceUpdate
from backtestr_protocol.system_status import SystemStatus

from .algorithm_source import registration
from .arguments import Instant, as_iso, as_ms, feed_request, wire_options
from .metrics import Metrics, metrics_from_wire
from .replay import PriceReplay, Rate, replay_request, start_replay
from .requester import BULK_TIMEOUT, REQUEST_TIMEOUT, Requester
from .results import ALL_TABLES, Results, fetch_results, read_table
from .run import STREAMS, Run, Stream, start_backtest
from .series import covering_all
from .subscription import Subscription, fetch_missed


class Client:
    """A connection to a broker. Use it as a context manager, or `close` it.

    Every method raises the broker's error as an exception of `backtestr.errors`, `TimedOut` when there is no answer in
    time, `NetworkError` when the connection was lost for as long, and `RuntimeError` after `close`. When the broker is
    restarted the client connects again by itself, and what waits is sent again with the same id (docs/client.md).

    `connection_changed` is a blinker signal, sent with this client as sender and `state` and `previous`. Its listeners
    and the callbacks of `on_error` are called one after the other by a thread of their own, so they may ask the client
    things; one that raises is logged.
    """

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
        """Connect as `connection` says. `context` is needed for a broker inside this process, and stays the caller's.
        With `file`, other starts of the broker are noticed there. `keys` is what this client is known by, where the
        connection asks for that. The rest is as in `connect`."""
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
        self._ask = Requester(self._io_thread, request_timeout)
        try:
            self._welcome = self._io_thread.welcomed.read(timeout)
        except TimedOut:
            key_refusal = self._io_thread.key_refusal
            self.close()
            if key_refusal is not None:
                raise AuthenticationError(f"the broker does not take this client's key: {key_refusal}") from None
            silent = f"the broker (process {connection.pid}) did not answer within {timeout:g} s"
            raise NetworkError(f"{silent}; if it is gone, {HOW_TO_START}") from None
        except BaseException:  # Ctrl-C included: nobody else could end the I/O thread
            self.close()
            raise

    @property
    def welcome(self) -> Welcome:
        """What the broker said of itself when this client connected."""
        return self._welcome

    # --- how the connection fares ---------------------------------------------------------------------------------

    @property
    def state(self) -> ConnectionState:
        """`connecting`, `ready`, `reconnecting`, `auth_failed` or `closed`."""
        return self._io_thread.state

    @property
    def statistics(self) -> Statistics:
        """What was counted so far: requests, and what streams lost and got back."""
        return self._io_thread.statistics(self._callbacks.missed)

    @property
    def errors(self) -> tuple[ErrorReport, ...]:
        """The last 100 errors, the oldest first: requests that failed, messages that are lost, what the connection met
        with, and, while the program is subscribed to it, what comes on `system.errors`."""
        return self._errors.latest

    def on_error(self, callback: Callback, severity: Severity = "Warning") -> Callable[[], None]:
        """Have `callback` called with every further `ErrorReport` at least so severe; returns what ends that.

        Severities are `Info`, `Warning`, `Error` and `Critical`.
        """
        return self._errors.add_callback(callback, severity)

    def close(self) -> None:
        """End the session. Backtests go on; what waits for an answer in other threads gets a `RuntimeError`."""
        self._io_thread.close()
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
        """The broker's clock, in milliseconds since the Unix epoch."""
        return self._ask("Ping", Nothing(), Pong).timestamp

    def status(self) -> SystemStatus:
        """How the broker, its workers and its machine fare."""
        return self._ask("GetSystemStatus", Nothing(), SystemStatus)

    def list_algorithms(self) -> list[AlgorithmInfo]:
        """What can be run, with the parameters each takes."""
        return self._ask("ListAlgorithms", Nothing(), AlgorithmList).algorithms

    def register_algorithm(
        self, source: str | Path, name: str | None = None, *, timeout: float = BULK_TIMEOUT
    ) -> AlgorithmInfo:
        """Have the broker keep an algorithm of yours: the text of a Python file, or a `Path` to one.

        `name`: which of its algorithms, where it declares several. The answer has the id of this version, which the
        name means from now on, and `look_ahead`, the verdict of a check that does not refuse: look at its `passed`.
        Raises `AlgorithmError` for source that cannot be run, `StateConflict` for a name that is built in or in the
        folder, `TimedOut` for what does not come back, and `ValueError` where it cannot be told which one is meant.
        """
        return self._ask("RegisterAlgorithm", registration(source, name), AlgorithmInfo, timeout)

    def algorithm_status(self, algorithm: str) -> AlgorithmStatus:
        """One version of an algorithm by its id, or by name the newest one; with what runs of it and its last error, by
        name of all versions."""
        return self._ask("GetAlgorithmStatus", AlgorithmRef(algorithm_id=algorithm), AlgorithmStatus)

    # --- market data ----------------------------------------------------------------------------------------------

    def list_market_data(self) -> list[SeriesInfo]:
        """The stored series."""
        return self._ask("ListMarketData", Nothing(), SeriesList).series

    def market_data(
        self,
        symbol: str,
        timeframe: str,
        *,
        start: Instant | None = None,
        end: Instant | None = None,
        limit: int | None = None,
        keep: Keep = "last",
        indicators: Sequence[str | IndicatorConfig] = (),
        timeout: float = BULK_TIMEOUT,
    ) -> pl.DataFrame:
        """Bars as `timestamp open high low close volume`, with a column for each output of each indicator.

        `end` is exclusive; `limit` keeps the last or first bars of the range, as `keep` says. An indicator is TA-Lib's
        name, or an `IndicatorConfig` where it has parameters. Higher timeframes are resampled where not stored.
        """
        request = GetMarketData(
            symbol=symbol,
            timeframe=timeframe,
            start_time=None if start is None else as_ms(start),
            end_time=None if end is None else as_ms(end),
            limit=limit,
            keep=keep,
            indicators=[IndicatorConfig(name=one) if isinstance(one, str) else one for one in indicators],
        )
        answer, attachments = self._ask.with_attachments("GetMarketData", request, MarketData, timeout)
        frames = [read_table(ref, attachments) for ref in answer.tables]
        return pl.concat(frames, how="horizontal") if len(frames) > 1 else frames[0]

    def import_market_data(
        self,
        path: str | Path,
        symbol: str,
        *,
        timeframe: str | None = None,
        format: str | None = None,
        time_zone: str | None = None,
        price: QuotePrice | None = None,
        repair: Repair | None = None,
        timeout: float = BULK_TIMEOUT,
    ) -> Imported:
        """Have the broker import a file of this machine as `symbol`.

        `timeframe` None: as the bars are spaced; ticks need one. `format` None: as the content says. `time_zone` (an
        IANA name) is for times without an offset. `price`: the side of quotes to make bars of, "mid" when None.
        `repair` "drop" leaves out rows that cannot be used, and the answer counts them; without it `DataError` names
        the first.
        """
        request = ImportMarketData(
            path=str(Path(path).expanduser().resolve()),
            symbol=symbol,
            timeframe=timeframe,
            format=format,
            time_zone=time_zone,
            price=price,
            repair=repair,
        )
        return self._ask("ImportMarketData", request, Imported, timeout)

    def describe_market_data(self, symbol: str, timeframe: str, timeout: float = BULK_TIMEOUT) -> SeriesFacts:
        """Range, prices and gaps of a series, stored or resampled."""
        request = DescribeMarketData(symbol=symbol, timeframe=timeframe)
        return self._ask("DescribeMarketData", request, SeriesFacts, timeout)

    def resample_market_data(
        self, symbol: str, from_timeframe: str, to_timeframe: str, timeout: float = BULK_TIMEOUT
    ) -> StoredSeries:
        """Have the broker make a higher timeframe of a stored one, and store it."""
        request = ResampleMarketData(symbol=symbol, from_timeframe=from_timeframe, to_timeframe=to_timeframe)
        return self._ask("ResampleMarketData", request, StoredSeries, timeout)

    def delete_market_data(self, symbol: str, timeframe: str | None = None) -> list[Timeframe]:
        """Have the broker delete a series, or with `timeframe` None all series of a symbol; returns the timeframes."""
        request = DeleteMarketData(symbol=symbol, timeframe=timeframe)
        return self._ask("DeleteMarketData", request, DeletedMarketData).timeframes

    # --- prices ---------------------------------------------------------------------------------------------------

    def replay(
        self,
        symbol: str,
        timeframe: str,
        *,
        start: Instant | None = None,
        end: Instant | None = None,
        **rate: Unpack[Rate],
    ) -> PriceReplay:
        """Have stored bars published as prices, for everyone who listens; iterate over what this returns to read them.

        `end` is exclusive. `rate` is one of `bars_per_second=50`, `speed=60` (times real time, gaps skipped) and
        `as_fast_as_read=True`. Raises `ValueError` for none or several, `DataError`, `ValidationError` or
        `InvalidConfiguration` for what cannot be replayed, `Busy` when too many run.
        """
        return start_replay(self._ask, self._io_thread, replay_request(symbol, timeframe, start, end, rate))

    def list_replays(self) -> list[PriceReplayStatus]:
        """The replays that the broker knows, the latest first."""
        return self._ask("ListPriceReplays", Nothing(), PriceReplayList).replays

    def stop_replay(self, replay_id: str) -> ReplayState:
        """Stop a replay, whoever started it. Raises `NotFound`."""
        return self._ask("StopPriceReplay", PriceReplayRef(replay_id=replay_id), PriceReplayAccepted).status

    def publish_prices(self, prices: Iterable[PriceUpdate | Mapping[str, Any]]) -> int:
        """Publish live prices, up to 1,000, each on `prices.<symbol>.<timeframe>`; returns how many.

        A price has `symbol timestamp bid ask last volume timeframe`, the last of which may be `"tick"`. All or none:
        raises `ValidationError`, whose `details["path"]` names the first that is wrong.
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
        capital: float = 100_000.0,
        commission: float = 0.0,
        slippage: float = 0.0,
        parameters: Mapping[str, Any] | None = None,
        backtest_id: str | None = None,
        watch: Iterable[Stream] = STREAMS,
        **options: Any,
    ) -> Run:
        """Start a backtest, and return it as soon as the broker has accepted it.

        Several symbols (`["BTC", "ETH"]`) share the account.
        `end` is exclusive; without `start` and `end` all bars there are. `commission` and `slippage` are fractions of
        traded value and of price. `options` are the engine's conventions (`fill_at="close"`, `size="units"`, …; see
        `config/engine.toml`). `watch` names the streams to receive, so that they can be read from their first message.
        Raises `NotFound`, `ValidationError`, `InvalidConfiguration` or `DataError` for what cannot be run.
        """
        symbols = [symbol] if isinstance(symbol, str) else list(symbol)
        if not symbols:
            raise ValueError("a backtest needs at least one symbol")
        start_date, end_date = self._range(symbols, timeframe, start, end)
        config = BacktestConfig(
            backtest_id=backtest_id or str(uuid.uuid4()),
            algorithm_id=algorithm,
            symbol=symbols[0],
            symbols=symbols if len(symbols) > 1 else [],
            start_date=start_date,
            end_date=end_date,
            initial_capital=capital,
            timeframe=timeframe,
            commission=commission,
            slippage=slippage,
            parameters=dict(parameters or {}),
            options=wire_options(options),
        )
        return start_backtest(self._ask, self._io_thread, config, watch)

    def run(self, backtest_id: str) -> Run:
        """A backtest that was started elsewhere or before. Raises `NotFound`."""
        self.backtest_status(backtest_id)
        return Run(self._ask, self._io_thread, backtest_id, is_new=False)

    def list_backtests(self, status: BacktestState | None = None, limit: int | None = None) -> list[BacktestStatus]:
        """The backtests that the broker knows, the latest first, up to `limit`."""
        return self._ask("ListBacktests", ListBacktests(status=status, limit=limit), BacktestList).backtests

    def backtest_status(self, backtest_id: str) -> BacktestStatus:
        """How a backtest stands. Raises `NotFound`."""
        return self._ask("GetBacktestStatus", BacktestRef(backtest_id=backtest_id), BacktestStatus)

    def pause(self, backtest_id: str) -> BacktestState:
        """See `Run.pause`."""
        return self._ask("PauseBacktest", BacktestRef(backtest_id=backtest_id), BacktestAccepted).status

    def resume(self, backtest_id: str) -> BacktestState:
        """See `Run.resume`."""
        return self._ask("ResumeBacktest", BacktestRef(backtest_id=backtest_id), BacktestAccepted).status

    def stop(self, backtest_id: str) -> BacktestState:
        """See `Run.stop`."""
        return self._ask("StopBacktest", BacktestRef(backtest_id=backtest_id), BacktestAccepted).status

    def results(
        self, backtest_id: str, tables: Iterable[TableName] = ALL_TABLES, timeout: float = BULK_TIMEOUT
    ) -> Results:
        """What a backtest came to; without metrics while it has not ended. Raises `NotFound`."""
        return fetch_results(self._ask, backtest_id, tables, timeout)

    def metrics(self, backtest_id: str) -> Metrics | None:
        """The metrics of a backtest, without its tables; None while it has not ended. Raises `NotFound`."""
        answer = self._ask("GetPerformanceMetrics", BacktestRef(backtest_id=backtest_id), PerformanceMetrics)
        return None if answer.metrics is None else metrics_from_wire(answer.metrics)

    # --- shared state ---------------------------------------------------------------------------------------------

    def get_state(self, key: str) -> StateEntry:
        """A key of the state that all clients of this broker share, with its value and version. Raises `NotFound`."""
        return self._ask("GetState", GetState(key=key), StateEntry)

    def update_state(self, key: str, value: Any, *, expected_version: int | None = None) -> UpdatedState:
        """Set a key, and return when that is on disk, with its new version.

        `value` is what MessagePack can say: None, bool, int, float, str, bytes, lists, dicts with str keys.
        `expected_version`: only if the key is at that version; 0: only if it is not there. Raises `StateConflict`, its
        `details` with `currentVersion` and `currentValue`.
        """
        request = UpdateState(key=key, value=msgspec.Raw(value_bytes(value)), expected_version=expected_version)
        return self._ask("UpdateState", request, UpdatedState)

    def delete_state(self, key: str, *, expected_version: int | None = None) -> DeletedState:
        """Delete a key, and return when that is on disk; its version goes on counting. Raises `NotFound`, and
        `StateConflict` as `update_state` does."""
        return self._ask("DeleteState", DeleteState(key=key, expected_version=expected_version), DeletedState)

    def shared_state(self, prefix: str = "", *, resolvers: Mapping[str, Resolver] | None = None) -> SharedState:
        """The keys that begin with `prefix` (`"backtest."`) as a mapping that follows what all programs make of them.

        `resolvers` say, by prefixes of keys, who wins when two changed the same key, beside and before the built-in
        ones: of `backtest.` the later `lastUpdate`, of `algorithm.` both where they changed different fields, of all
        else the last writer (`backtestr.resolvers`). Returns with a first snapshot. Raises `ValueError` for a prefix
        that does not end with a dot.
        """
        if prefix and not prefix.endswith("."):
            raise ValueError(f"{prefix!r} does not end with a dot; the keys of one name are {prefix + '.'!r}")
        return SharedState(self._ask, self._io_thread, prefix, resolvers or {}, self._callbacks, self._errors)

    def snapshot_state(self, prefix: str = "") -> StateSnapshot:
        """All keys that begin with `prefix`, by name, as of one moment. What happens later comes on
        `subscribe("state.…")`, with a `revision` above the snapshot's `watermark`."""
        return self._ask("SnapshotState", SnapshotState(prefix=prefix), StateSnapshot)

    # --- streams --------------------------------------------------------------------------------------------------

    def subscribe(self, topic: str, *, history: bool = False) -> Subscription:
        """Receive a topic, or with a trailing dot (`"prices."`) every topic that begins so.

        Without `history`, from the moment at which the subscription reaches the broker, shortly after this returns.
        With it, from the oldest message that the broker keeps, and nothing is missed in between; what it does not keep
        any more is stated as a `Gap`. Of a prefix, the topics that move while it is subscribed. Raises `ValueError`
        for what is no topic.
        """
        return Subscription(self._io_thread, topic, "retained" if history else "now")

    def fetch_missed(self, topic: str, from_seq: int = 1, to_seq: int | None = None) -> list[Update | Gap]:
        """Messages of a topic that were sent before, as far as the broker keeps them, and a `Gap` for those it does
        not. Both numbers are included; `to_seq` None: up to the latest. Raises `NotFound`."""
        return fetch_missed(self._ask, topic, from_seq, to_seq)

    # --- within ---------------------------------------------------------------------------------------------------

    def _on_state(self, state: ConnectionState, previous: ConnectionState) -> None:
        for listener in list(self.connection_changed.receivers_for(self)):
            self._callbacks.call(partial(listener, self, state=state, previous=previous))

    def _range(
        self, symbols: Sequence[str], timeframe: str, start: Instant | None, end: Instant | None
    ) -> tuple[str, str]:
        if start is not None and end is not None:
            return as_iso(start), as_iso(end)
        first_ms, end_ms = covering_all(self.list_market_data(), symbols, timeframe)
        return as_iso(first_ms if start is None else start), as_iso(end_ms if end is None else end)
